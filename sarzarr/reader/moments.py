"""Mean and standard deviation of the values that a reader delivers, from histograms: no pixel is read.

Codes stand in the histograms exactly; of floats a value is known to a bin.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.pixels.bounds import Histogram
from sarzarr.pixels.kernels import codes_from_half
from sarzarr.pixels.stretch import Stretch
from sarzarr.text import counted

_ROUNDING: Final = 2.0**-23
"""Most by which float32 rounds a delivered value."""
_HALF_PRECISION: Final = 2.0**-12
"""Most by which float16 rounds a value in [0, 1]."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelMoments:
    """Mean and standard deviation of each channel as delivered: what is clipped counts as 0 or 1.

    They are of every valid pixel of the arrays that patches are chosen from: of whole scenes, not of the patches or
    the side of a split, which no histogram tells apart.
    """

    mean: Array
    """(channels,) float64."""
    std: Array
    """(channels,) float64: of the population."""
    pixels: Array
    """(channels,) int64: those that count; pixels that are not valid do not."""
    bound: Array
    """(channels,) float64: most by which mean and std may be off from those of these pixels as delivered."""
    of: str
    """The pixels that they are of, in words."""

    def __str__(self) -> str:
        lines = [f"mean and std of {self.of}:"]
        each = zip(self.mean.tolist(), self.std.tolist(), self.bound.tolist(), strict=True)
        lines += [
            f"  channel {i}: {mean:.6f}, {std:.6f} (within {off:.1g})"
            for i, (mean, std, off) in enumerate(each)
        ]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class CountedArray:
    """An array of a selection, and all that its delivered values follow from."""

    histogram: Histogram
    """Its pixels."""
    dtype: str
    """Its stored dtype."""
    stored: tuple[float, float]
    """(vmin, vmax) in dB of stored 0 and 1."""
    clip: tuple[float, float] | None
    """(vmin, vmax) in dB that it is delivered with; None where codes are delivered."""

    @property
    def values(self) -> tuple[Array, float]:
        """(bins,) the value that the pixels of each bin are delivered as, and the most by which it is off."""
        half = np.arange(cv.HISTOGRAM_BINS, dtype=np.int32)
        if self.dtype == "uint16":
            codes = codes_from_half(half)
            if self.clip is None:
                return codes.astype(np.float64), 0.0
            stored, off = codes, 0.0
        else:
            middles = (half + 0.5) / (cv.HISTOGRAM_BINS - 1)
            middles[-1] = 1.0
            stored = middles.astype(np.float32)
            off = 0.5 / (cv.HISTOGRAM_BINS - 1) + (_HALF_PRECISION if self.dtype == "float16" else 0.0)
        law = Stretch.between(self.dtype, self.stored, self.clip or self.stored)
        out = np.empty((1, len(half)), np.float32)
        law(stored[None], out, np.empty(out.size, np.float32))
        return out[0].astype(np.float64), off * law.scale + _ROUNDING

    @property
    def counts(self) -> Array:
        """(bins,) int64: pixels of each bin; those of nonpositive power are stored as the least there is."""
        counts = self.histogram.counts.copy()
        counts[0] += self.histogram.nonpositive
        return counts


def channel_moments(channels: Sequence[Sequence[CountedArray]], scenes: int) -> ChannelMoments:
    """Return the moments of channels, each of some arrays of so many scenes; NaN where none of them is valid."""
    found = []
    for arrays in channels:
        n, total, squares, bound = 0, 0.0, 0.0, 0.0
        tables: dict[tuple[object, ...], tuple[Array, float]] = {}
        for array in arrays:
            kind = array.dtype, array.stored, array.clip
            if kind not in tables:
                tables[kind] = array.values
            (values, off), counts = tables[kind], array.counts
            n += int(counts.sum())
            total += float(counts @ values)
            squares += float(counts @ values**2)
            bound = max(bound, off)
        mean = total / n if n else math.nan
        found.append((mean, math.sqrt(max(squares / n - mean**2, 0.0)) if n else math.nan, n, bound))
    mean_of, std, pixels, bounds = (np.array(column) for column in zip(*found, strict=True))
    arrays_of = counted(sum(map(len, channels)), "whole array")
    of = f"{pixels.sum():,} pixels, valid ones of {arrays_of} of {counted(scenes, 'scene')}"
    return ChannelMoments(mean=mean_of, std=std, pixels=pixels, bound=bounds, of=of)
