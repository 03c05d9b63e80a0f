"""The rules of flags: which pixels are nodata, nonpositive, border, or zeros that only a whole scene can judge.

A new rule for pixels at or below zero, not finite, or of the file's nodata goes into `classify` alone, and what it
calls invalid is stored as not measured. One for positive pixels also goes into `FLOORED_POWER` of
`sarzarr.pixels.compiled.loops`, which lets tiles pass whose every pixel is positive.

Nodata is the file's tag, its mask, NaN and Inf, and what cannot have been measured. Power at or below zero is
measured: nonpositive, and valid. An exact zero without a tag or a mask is undecided until all blocks of a scene are
known: nodata where its region reaches the scene's edge, else nonpositive. Border is what lies near nodata, where that
was asked for.
"""

from typing import Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.ingestion.blocks.jobs import ArraySource

UNDECIDED: Final = 4
"""Staged flag of an exact zero that may be nodata or dark: decided once the whole scene is known."""

FAINT: Final = 5
"""Staged flag of a pixel no stronger than noise, which may be border: decided once the whole scene is known."""


def classify(raw: Array, power: Array, source: ArraySource) -> Array | None:
    """Return the flags (rows, columns) uint8 of a tile; None where every pixel is valid and positive.

    ``power`` is float power of ``raw``, NaN where that was not measured. Exact zeros without a tag are `UNDECIDED`.
    """
    if power.min() > 0:
        return None
    flags = np.zeros(raw.shape, np.uint8)
    flags[power <= 0] = cv.Flag.NONPOSITIVE
    if source.has_untagged_zeros:
        flags[raw == 0] = UNDECIDED
    flags[np.isnan(power)] = cv.Flag.NODATA
    return flags


def with_faint(flags: Array | None, faint: Array) -> Array:
    """Return flags in which what was measured and is ``faint``, bool of their shape, is to be decided."""
    out = np.zeros(faint.shape, np.uint8) if flags is None else flags
    out[faint & cv.Flag.is_valid(out)] = FAINT
    return out


def is_invalid(flags: Array) -> Array:
    """Return bool of the shape of ``flags``: nodata or border; undecided zeros are neither yet."""
    invalid: Array = (flags == cv.Flag.NODATA) | (flags == cv.Flag.BORDER)
    return invalid


def region_mask(flags: Array, source: ArraySource) -> Array:
    """Return the pixels whose regions are judged: undecided zeros, and faint ones.

    Warped, the scene's own edge lies inside the grid: what is outside of it, and reaches the grid's edge, joins.
    """
    mask: Array = (flags == UNDECIDED) | (flags == FAINT)
    if source.is_warped:
        mask |= flags == cv.Flag.NODATA
    return mask


def decide(flags: Array, reaches_edge: Array, source: ArraySource) -> int:
    """Decide the undecided zeros and faint pixels of ``flags`` in place; return how many zeros became nodata.

    ``reaches_edge`` is bool of the shape of ``flags``: where a region of `region_mask` reaches the scene's edge.
    """
    undecided = flags == UNDECIDED
    fill = reaches_edge & undecided
    faint, is_denoised = flags == FAINT, bool(source.calibration and source.calibration.noise)
    flags[faint] = cv.Flag.NONPOSITIVE if is_denoised else cv.Flag.VALID
    flags[faint & reaches_edge] = cv.Flag.BORDER
    flags[undecided] = cv.Flag.NONPOSITIVE
    flags[fill] = cv.Flag.NODATA
    return int(np.count_nonzero(fill))


def add_border(flags: Array, pixels: int) -> None:
    """Turn what is valid within so many pixels of nodata, along a row, a column or both, into border, in place."""
    nodata = (flags == cv.Flag.NODATA).view(np.uint8)
    from scipy import ndimage

    near = ndimage.maximum_filter(nodata, size=2 * pixels + 1, mode="constant").view(bool)
    flags[near & cv.Flag.is_valid(flags)] = cv.Flag.BORDER
