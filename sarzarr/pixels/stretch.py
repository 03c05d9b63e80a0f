"""From stored values to delivered ones, ``clip(stored * scale + offset, 0, 1)``, in as few passes as it takes.

`sarzarr.pixels.radiometry` has the law for whole scenes; this is the same law for the inner loop of the loader,
where a pass over a patch costs as much as reading it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal, Self

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array

Half = Literal["float16", "bfloat16"]
SHIFTS: Final[dict[Half, int]] = {"float16": 13, "bfloat16": 16}
"""Bits of a float32 that values of 16 bits leave out."""
INTEGER_TOLERANCE: Final = 1e-7
"""Delivered difference below which the end of a clip is taken to be a code."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """One law from stored uint16 or float32 to [0, 1]; call it with a source and a place of the same shape."""

    scale: float
    """What a stored value is multiplied by."""
    offset: float
    """What is added then."""
    ends: tuple[int, int] | None = None
    """The codes that 0 and 1 stand for, where both are codes: integer passes are cheaper than float ones."""
    is_open: bool = False
    """Whether nothing is clipped, and NaN stays: ``stored * scale`` of floats."""
    fill: float | int = cv.NOT_MEASURED
    """The stored value of what was not measured, delivered as 0; floats have NaN, which is 0 anyway."""
    half: Half | None = None
    """Deliver the bits, uint16, of float16 or bfloat16, each the nearest to its float32, halfway to even; None:
    float32."""
    white: int | None = None
    """The integer that is delivered as 1: others are divided by it, so that each is the float32 nearest its share;
    None: by the line."""

    @classmethod
    def between(
        cls, dtype: str, stored: Iterable[float], clip: Iterable[float], half: Half | None = None
    ) -> Self:
        """Return the law from a stored range to a clip, both (vmin, vmax) in dB, for one stored dtype."""
        (vmin, vmax), (low, high) = stored, clip
        span = high - low
        scale, offset = (vmax - vmin) / span, (vmin - low) / span
        if dtype != "uint16":
            return cls(scale=scale, offset=offset, half=half)
        codes = [cv.FIRST_CODE + (end - vmin) / (vmax - vmin) * cv.STEPS for end in (low, high)]
        first, last = map(round, codes)
        scale /= cv.STEPS
        offset -= cv.FIRST_CODE * scale
        is_exact = max(abs(codes[0] - first), abs(codes[1] - last)) * scale < INTEGER_TOLERANCE
        is_inside = cv.FIRST_CODE <= first < last <= cv.MAX_CODE
        ends = (first, last) if is_exact and is_inside else None
        return cls(scale=scale, offset=offset, ends=ends, half=half)

    @cached_property
    def lights_fill(self) -> bool:
        """Whether passes must make the fill 0: the clip reaches below it, or nothing is clipped."""
        lowest, _ = self._line
        return self.white is not None or bool(self.fill > lowest)

    def __call__(self, cells: Array, out: Array, scratch: Array) -> None:
        """Write [0, 1] of the values that each row of ``cells`` begins with into float32 ``out``, 0 if not measured.

        Shapes are (k, n or more) and (k, n), both C-contiguous; ``scratch`` is float32, k * n or more, and twice
        that for a ``half``, whose ``out`` is uint16. Compiled loops do the same by `law_of_codes` or `law_of_floats`.
        """
        if self.half is not None:
            values, rest = scratch[: out.size].reshape(out.shape), scratch[out.size :]
            self._whole(cells, values, rest)
            np.copyto(out, bits_of(values, self.half))
            return
        stored = cells[:, : out.shape[1]]
        if self.is_open:
            np.multiply(stored, np.float32(self.scale), out=out)
        elif self.is_identity:
            np.fmax(stored, np.float32(0), out=out)
        elif self.white is not None:
            np.copyto(out, stored)
            np.divide(out, np.float32(self.white), out=out)
            np.copyto(out, 0, where=stored == self.fill)
        else:
            self._in_passes(stored, out, scratch)

    @cached_property
    def _whole(self) -> "Stretch":
        """The law to float32, which values of 16 bits are rounded from."""
        return replace(self, half=None)

    @cached_property
    def _line(self) -> tuple[np.float32, np.float32]:
        """What is subtracted from a code, and what the rest is multiplied by then.

        Codes are whole numbers: subtracting first keeps a narrow clip far from 0 exact.
        """
        if self.ends is not None:
            return np.float32(self.ends[0]), _reciprocal(self.ends[1] - self.ends[0])
        return np.float32(-self.offset / self.scale), np.float32(self.scale)

    @cached_property
    def law_of_codes(self) -> Any:
        """The law of uint16 for compiled loops: the lowest and highest code that count, and `_line`.

        Of bfloat16 with its shift; of float16, whose rounding makes no vector instructions, a table (65536,) uint16.
        """
        lowest, scale = self._line
        law = *(self.ends or (0, cv.MAX_CODE)), float(lowest), float(scale)
        if self.half == "float16" or (self.half and self.lights_fill):
            codes = np.arange(cv.MAX_CODE + 1, dtype=np.uint16)[None]
            table = np.empty(codes.shape, np.uint16)
            self(codes, table, np.empty(2 * codes.size, np.float32))
            return table[0]
        return law if self.half is None else (*law, SHIFTS[self.half])

    @property
    def law_of_floats(self) -> tuple[float, ...]:
        """The law of float32 that `is_line`, for them: scale and offset, and of values of 16 bits one of `SHIFTS`."""
        return (
            (self.scale, self.offset) if self.half is None else (self.scale, self.offset, SHIFTS[self.half])
        )

    @property
    def is_line(self) -> bool:
        """Whether float32 becomes ``clip(stored * scale + offset, 0, 1)``, and nothing else but rounded."""
        return not (self.is_open or self.is_identity or self.white is not None)

    @property
    def is_identity(self) -> bool:
        """Whether values in [0, 1] are delivered as they are."""
        return (self.scale, self.offset) == (1.0, 0.0)

    def _in_passes(self, stored: Array, out: Array, scratch: Array) -> None:
        """Do it with NumPy: a cast alone and a pass in place cost less than its buffered pass over mixed dtypes.

        ``out`` is cold memory, so it is written once or twice and worked on elsewhere; ``stored`` may lie across
        cache lines, so it is read once.
        """
        is_lit = self.lights_fill and stored.dtype.kind == "u"
        if self.ends is not None and not is_lit:
            low, high = self.ends
            if (low, high) != (0, cv.MAX_CODE):
                work = scratch.view(np.uint16)[: stored.size].reshape(stored.shape)
                np.clip(stored, np.uint16(low), np.uint16(high), out=work)
                stored = np.subtract(work, np.uint16(low), out=work)
            np.copyto(out, stored)
            np.multiply(out, self._line[1], out=out)
            return
        work = scratch[: stored.size].reshape(stored.shape)
        if stored.dtype == np.float32:
            np.multiply(stored, np.float32(self.scale), out=work)
            np.add(work, np.float32(self.offset), out=work)
        else:
            lowest, scale = self._line
            np.copyto(work, stored)
            np.subtract(work, lowest, out=work)
            np.multiply(work, scale, out=work)
        if is_lit:
            np.copyto(work, 0, where=stored == self.fill)
        np.fmax(work, np.float32(0), out=work)  # NaN becomes 0
        np.minimum(work, np.float32(1), out=out)


def bits_of(values: Array, half: Half) -> Array:
    """Return the bits, uint16, of float32 values of any shape, each the nearest of 16 bits, halfway to even."""
    if half == "float16":
        return values.astype(np.float16).view(np.uint16)
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
        np.uint16
    )


def _reciprocal(codes: int) -> np.float32:
    """Return the float32 nearest 1/codes whose product with ``codes`` does not exceed 1."""
    nearest = np.float32(1 / codes)
    return nearest if nearest * np.float32(codes) <= 1 else np.nextafter(nearest, np.float32(0))
