"""From stored values to delivered ones, ``clip(stored * scale + offset, 0, 1)``, in as few passes as it takes.

`sarzarr.radiometry` has the law for whole scenes; this is the same law for the inner loop of the loader,
where a pass over a patch costs as much as reading it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from sarzarr import conventions as cv

Array = np.ndarray[Any, Any]
INTEGER_TOLERANCE: Final = 1e-7
"""Delivered difference below which the end of a clip is taken to be a code."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """One law; call it with a source and a place of the same shape."""

    scale: float
    """What a stored value is multiplied by."""
    offset: float
    """What is added then."""
    ends: tuple[int, int] | None = None
    """The codes that 0 and 1 stand for, where both are codes: integer passes are cheaper than float ones."""

    @classmethod
    def between(cls, dtype: str, stored: Iterable[float], clip: Iterable[float]) -> Self:
        """Return the law from a stored range to a clip, both (vmin, vmax) in dB, for one stored dtype."""
        (vmin, vmax), (low, high) = stored, clip
        span = high - low
        scale, offset = (vmax - vmin) / span, (vmin - low) / span
        if dtype != "uint16":
            return cls(scale=scale, offset=offset)
        first, last = ((end - vmin) / (vmax - vmin) * cv.MAX_CODE for end in (low, high))
        scale /= cv.MAX_CODE
        ends = round(first), round(last)
        is_exact = max(abs(first - ends[0]), abs(last - ends[1])) * scale < INTEGER_TOLERANCE
        is_inside = 0 <= ends[0] < ends[1] <= cv.MAX_CODE
        return cls(scale=scale, offset=offset, ends=ends if is_exact and is_inside else None)

    @property
    def dark(self) -> float:
        """What a stored 0 becomes: 0, unless the clip reaches below the stored range."""
        return min(max(self.offset, 0.0), 1.0)

    def __call__(self, stored: Array, out: Array, scratch: Array | None = None) -> None:
        """Write [0, 1] of ``stored`` into float32 ``out``; ``scratch`` is like ``stored``, made if left out."""
        if self.ends is not None:
            self._by_codes(self.ends, stored, out, np.empty_like(stored) if scratch is None else scratch)
        elif stored.dtype == np.uint16:
            # Subtracting first keeps the float32 exact where a narrow clip stands far from 0.
            np.subtract(stored, np.float32(-self.offset / self.scale), out=out)
            np.multiply(out, np.float32(self.scale), out=out)
            np.clip(out, 0, 1, out=out)
        elif (self.scale, self.offset) == (1.0, 0.0):
            np.copyto(out, stored)
        else:
            np.multiply(stored, np.float32(self.scale), out=out, dtype=np.float32)
            np.add(out, np.float32(self.offset), out=out)
            np.clip(out, 0, 1, out=out)

    def _by_codes(self, ends: tuple[int, int], stored: Array, out: Array, scratch: Array) -> None:
        low, high = ends
        if (low, high) != (0, cv.MAX_CODE):
            np.clip(stored, np.uint16(low), np.uint16(high), out=scratch)
            stored = np.subtract(scratch, np.uint16(low), out=scratch)
        np.multiply(stored, _reciprocal(high - low), out=out)


def _reciprocal(codes: int) -> np.float32:
    """Return the float32 nearest 1/codes whose product with ``codes`` does not exceed 1."""
    found = np.float32(1 / codes)
    return found if found * np.float32(codes) <= 1 else np.nextafter(found, np.float32(0))
