"""Windows of an image brought to another size, in linear power: averaged where they are larger, else interpolated.

Averages are those of overviews: the mean power of the valid pixels under a new one, each by the share of it that lies
there, and valid where any of them is. Interpolation is bilinear between middles of pixels, over the valid ones, and
valid where the pixel under the new one's middle is. `sarzarr.pixels.compiled.scaling` does the same to codes.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.pixels.radiometry import denormalize, from_codes, from_db


@lru_cache(maxsize=8)
def powers_of_codes(stored: tuple[float, float]) -> Array:
    """Return (65536,) float32: the linear power of each code of a stored range in dB, NaN of code 0."""
    powers = from_db(denormalize(from_codes(np.arange(cv.MAX_CODE + 1, dtype=np.uint16)), stored))
    powers.flags.writeable = False
    return powers


@dataclass(frozen=True, eq=False, kw_only=True)
class Taps:
    """The pixels along an axis of a square window that each pixel of another size is made of."""

    first: Array
    """(n,) uint32: the first of them."""
    weights: Array
    """(taps, n) float32: what each of them, one behind another, counts; together 1, and none below 0."""
    nearest: Array
    """(n,) int64: the pixel under the middle of each."""
    averages: bool
    """Whether pixels are averages of several, and no interpolation."""

    @classmethod
    @lru_cache(maxsize=256)
    def between(cls, window: int, size: int) -> Self:
        """Return those that make ``size`` pixels of the ``window`` ones along an axis."""
        step, pixels = window / size, np.arange(size)
        every = np.zeros((size, window))
        if step >= 1:
            begin, end, source = pixels[:, None] * step, (pixels[:, None] + 1) * step, np.arange(window)
            every = np.maximum(np.minimum(end, source + 1) - np.maximum(begin, source), 0)
            every[every < step * 1e-9] = 0  # what rounding leaves of a pixel that is not touched
        else:
            place = np.clip((pixels + 0.5) * step - 0.5, 0, window - 1)
            low = np.floor(place).astype(np.int64)
            np.add.at(every, (pixels, low), 1 - (place - low))
            np.add.at(every, (pixels, np.minimum(low + 1, window - 1)), place - low)
        every /= every.sum(axis=1, keepdims=True)
        begins, lasts = (every > 0).argmax(axis=1), window - 1 - (every > 0)[:, ::-1].argmax(axis=1)
        taps = int((lasts - begins).max()) + 1
        first = np.minimum(begins, window - taps)
        return cls(
            first=first.astype(np.uint32),
            weights=every[pixels, first + np.arange(taps)[:, None]].astype(np.float32),
            nearest=np.minimum(((pixels + 0.5) * step).astype(np.int64), window - 1),
            averages=step >= 1,
        )

    @cached_property
    def touched(self) -> Array:
        """(taps, n) int64: the pixels that count, the first that does in the place of those that do not."""
        counts = self.weights > 0
        every = self.first + np.arange(len(counts))[:, None]
        return np.where(counts, every, self.first + counts.argmax(axis=0))

    def mean(self, power: Array) -> Array:
        """Return float32 (n, n) of values (window, window) float32, NaN where not valid, there and in the result."""
        is_valid = ~np.isnan(power)
        if is_valid.all():
            return self._sums(power)
        counts = self._sums(is_valid.astype(np.float32))
        with np.errstate(invalid="ignore"):
            out = self._sums(np.where(is_valid, power, np.float32(0))) / counts
        if not self.averages:
            out[~is_valid[np.ix_(self.nearest, self.nearest)]] = np.nan
        return out

    def _sums(self, values: Array) -> Array:
        """Return (n, n): weighted sums of values (window, window), along columns, then along rows."""
        tall = np.zeros((len(self.first), values.shape[1]), np.float32)
        for t, weights in enumerate(self.weights):
            tall += weights[:, None] * values[self.first + t]
        out = np.zeros((len(self.first),) * 2, np.float32)
        for t, weights in enumerate(self.weights):
            out += weights * tall[:, self.first + t]
        return out

    def lowest(self, values: Array) -> Array:
        """Return (n, n) of integers (window, window): the lowest of those averaged, else the one under the middle."""
        if not self.averages:
            return self.of_nearest(values)
        rows = values[self.touched].min(axis=0)
        return np.ascontiguousarray(rows.T[self.touched].min(axis=0).T)

    def of_nearest(self, values: Array) -> Array:
        """Return (n, n) of values (window, window): the one under the middle of each."""
        out: Array = values[np.ix_(self.nearest, self.nearest)]
        return out
