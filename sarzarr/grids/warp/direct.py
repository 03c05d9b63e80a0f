"""Windows of a source read without GDAL's warper: by area, by axes, by nearest neighbour."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.grids.crs import is_same_crs
from sarzarr.grids.georeference import project
from sarzarr.grids.warp.areas import LEAST_COVERED, share_by_area
from sarzarr.grids.warp.plan import WarpPlan
from sarzarr.grids.window import Window

_SHARED_PIXELS: Final = 2**17
"""Source pixels whose totals are shared out at once."""
CACHED_PIXELS: Final = 2**18
"""Pixels of an array that stay in a core's cache from one pass over them to the next."""
_ON_EDGE: Final = 1e-10
"""Source pixels by which a centre may miss an edge and still be of the pixel after it: GDAL's own number."""


def read_shared(plan: WarpPlan, window: Window, needed: Window, values: Array) -> Array:
    """Return a window of totals, (height, width) float64: each source pixel's, shared by area.

    GDAL's ``sum`` loses some at its borders.
    """

    def parts() -> Iterator[tuple[Array, Array, Array]]:
        step = max(1, _SHARED_PIXELS // needed.width)
        for first in range(0, needed.height, step):
            part = values[first : first + step]
            rows, cols = np.indices((part.shape[0] + 1, needed.width + 1), np.float64)
            rows += needed.row + first
            cols += needed.col
            rows, cols = plan.grid.to_pixels(
                *project(plan.source.georeference, plan.grid.crs_wkt, rows, cols)
            )
            yield part, rows - window.row, cols - window.col

    sums, covered = share_by_area(parts(), height=window.height, width=window.width)
    sums[covered < LEAST_COVERED] = np.nan
    return sums


def is_by_axes(plan: WarpPlan) -> bool:
    """Whether a pixel's row alone says its source's row, and its column the column."""
    place, grid = plan.source.georeference, plan.grid
    if place.uses_gcps or place.grid.is_rotated or grid.is_rotated:
        return False
    return is_same_crs(place.crs_wkt, grid.crs_wkt)


def read_by_axes(plan: WarpPlan, window: Window, needed: Window, values: Array, out: Array) -> None:
    """Copy the pixel that each centre lies in into ``out``: what GDAL's nearest neighbour does, row by row."""
    source = plan.source.grid
    a, _, c, _, e, f = plan.grid.transform
    ia, _, ic, _, ie, if_ = source.inverse
    ys = f + (window.row + np.arange(window.height) + 0.5) * e
    xs = c + (window.col + np.arange(window.width) + 0.5) * a
    rows, has_row = _nearest(if_ + ys * ie, source.height)
    cols, has_col = _nearest(ic + xs * ia, source.width)
    rows, cols = rows - needed.row, cols - needed.col
    step = max(1, CACHED_PIXELS // needed.width)
    for first in range(0, window.height, step):
        some = np.take(values, rows[first : first + step], axis=0, mode="clip")
        out[first : first + step] = np.take(some, cols, axis=1, mode="clip")
    fill = 0 if plan.fill is None else plan.fill
    out[~has_row] = fill
    out[:, ~has_col] = fill


def _nearest(positions: Array, length: int) -> tuple[Array, Array]:
    """Return the pixel along an axis that each position is in, and whether there is one; edges as GDAL has them."""
    inside = (positions >= 0) & (positions + _ON_EDGE <= length)
    return np.clip(np.floor(positions + _ON_EDGE).astype(np.intp), 0, length - 1), inside
