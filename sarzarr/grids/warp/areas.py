"""Share the values of source pixels among target pixels by the area that they have in common.

Each source pixel is the quadrilateral of its corners' positions; neighbours share their edges, so that
nothing is lost or counted twice between them, and totals are conserved to rounding whatever the map.
Areas are exact, by Green's theorem: each edge adds what lies to its right.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from sarzarr.arrays import Array

LEAST_COVERED: Final = 1e-9
"""Share of a target pixel that must be covered for it to have a value: more than rounding makes of none."""
_LEVEL: Final = 1e-100
"""Rows that an edge must climb to count; less would overflow its slope."""


def share_by_area(
    parts: Iterable[tuple[Array, Array, Array]], *, height: int, width: int
) -> tuple[Array, Array]:
    """Return two (height, width) float64 arrays: the total that falls into each target pixel, and its covered share.

    Each of the source's parts is (values, rows, cols): (h, w) float64 totals of pixels, NaN where there is none; and
    (h + 1, w + 1) float64 positions of their corners in target pixels, of which (i, j) spans rows i to i + 1 and
    columns j to j + 1. A pixel with a corner that is not finite has no place, and is left out; of one that reaches
    over the target's edge, the part inside counts.
    """
    sums, covered = np.zeros((height, width + 1)), np.zeros((height, width + 1))
    for values, rows, cols in parts:
        area = _signed_areas(rows, cols)
        known = np.isfinite(values) & np.isfinite(area) & (area != 0)
        density = np.divide(values, area, out=np.zeros(area.shape), where=known)
        presence = np.where(known, np.sign(area), 0.0)
        _add_edges(((sums, density), (covered, presence)), rows, cols)
    for total in (sums, covered):
        np.cumsum(total, axis=1, out=total)
    return sums[:, :width], covered[:, :width]


def _add_edges(layers: Sequence[tuple[Array, Array]], rows: Array, cols: Array) -> None:
    """Add to each (total, density) what the edges of its pixels begin and end, for a sum along rows."""
    height, width = layers[0][0].shape[0], layers[0][0].shape[1] - 1
    # edges along rows, then those along columns
    for axis, sign, ends in ((0, 1.0, np.s_[:, :-1, :, 1:]), (1, -1.0, np.s_[:-1, :, 1:, :])):
        corners = [v[end].ravel() for end in (ends[:2], ends[2:]) for v in (cols, rows)]
        edge, row, col, dy, fraction = _cut(*corners, height=height, width=width)
        if not edge.size:
            continue
        first, last = int(row.min()), int(row.max()) + 1
        cell = (row - first) * (width + 1) + col
        size = (last - first) * (width + 1)
        for total, density in layers:
            weight = sign * np.diff(density, axis=axis, prepend=0.0, append=0.0).ravel()[edge] * dy
            added = np.bincount(cell, weight * (1.0 - fraction), size)
            added += np.bincount(cell + 1, weight * fraction, size + 1)[:size]
            total[first:last] -= added.reshape(last - first, width + 1)


def _signed_areas(rows: Array, cols: Array) -> Array:
    """Return the area of each quadrilateral; negative where the map mirrors it."""
    with np.errstate(invalid="ignore"):
        one, other = ((v[1:, 1:] - v[:-1, :-1], v[1:, :-1] - v[:-1, 1:]) for v in (cols, rows))
        area: Array = 0.5 * (one[0] * other[1] - one[1] * other[0])
    return area


def _cut(
    x0: Array, y0: Array, x1: Array, y1: Array, *, height: int, width: int
) -> tuple[Array, Array, Array, Array, Array]:
    """Cut edges where they cross from one target pixel to another.

    Returns, a piece each: the edge's number, row and column of the pixel, the rows it climbs (signed),
    and how far from the pixel's left side it is on average. What lies left of the target is moved to its left
    side; what lies right of it, above or below is left out.
    """
    with np.errstate(invalid="ignore"):
        low, high = np.minimum(y0, y1), np.maximum(y0, y1)
        seen = (high - low > _LEVEL) & (high > 0) & (low < height) & (np.minimum(x0, x1) < width)
        seen &= np.isfinite(x0 + x1 + y0 + y1)
    edge = np.flatnonzero(seen)
    x0, y0, x1, y1 = (v[edge] for v in (x0, y0, x1, y1))
    low, high = np.maximum(np.minimum(y0, y1), 0.0), np.minimum(np.maximum(y0, y1), height)
    slope = (x1 - x0) / (y1 - y0)
    which, row = _steps(low, high)
    below, above = np.maximum(low[which], row), np.minimum(high[which], row + 1.0)
    one, other = (x0[which] + (y - y0[which]) * slope[which] for y in (below, above))
    dy = (above - below) * np.sign(y1 - y0)[which]
    left, right = np.minimum(one, other), np.maximum(one, other)
    piece, col = _steps(np.maximum(left, -1.0), np.minimum(right, width + 1.0))
    start = np.where(col < 0, left[piece], np.maximum(left[piece], col))
    stop = np.where(col >= width, right[piece], np.minimum(right[piece], col + 1.0))
    extent = right - left
    share = np.divide(stop - start, extent[piece], out=np.ones(piece.size), where=extent[piece] > 0)
    fraction = np.where(col < 0, 0.0, 0.5 * (start + stop) - col)
    pieces = edge[which[piece]], row[piece], np.maximum(col, 0), dy[piece] * share, fraction
    edge, row, col, dy, fraction = (v[col < width] for v in pieces)
    return edge, row, col, dy, fraction


def _steps(low: Array, high: Array) -> tuple[Array, Array]:
    """Return, for each whole step that an interval touches, the interval's number and the step."""
    first = np.floor(low).astype(np.int64)
    count = np.maximum(np.ceil(high).astype(np.int64) - first, 1)
    which = np.repeat(np.arange(low.size), count)
    start = np.cumsum(count) - count
    return which, first[which] + np.arange(which.size) - start[which]
