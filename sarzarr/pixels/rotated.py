"""Rotated boxes: four corners, and ``cx, cy, w, h, angle`` as ``le90`` of MMRotate has them.

``w`` is the longer side and ``h`` the shorter one. ``angle`` is in radians, in [-pi/2, pi/2), from the axis of
columns to the longer side, positive towards the axis of rows: clockwise as a picture is seen. Zhou et al. 2022,
MMRotate, doi:10.1145/3503161.3548541; its documentation, "What is rotated box", and ``poly2obb_le90``. torchvision's
``CXCYWHR`` is ``(cx, cy, w, h, -degrees(angle))``.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.pixels.turns import COLUMNS, ROWS, TRANSPOSE

_PAIRS: Final = ((0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3))
"""Sides and diagonals of four corners: among them are the sides of their convex hull."""
_AT_ONCE: Final = 4096
"""Polygons that are cut at once: a kilobyte each."""


def corners_of_boxes(boxes: Array) -> Array:
    """Return (n, 4, 2) the corners of upright boxes (n, 4) ``x_min, y_min, x_max, y_max``, in their dtype."""
    return boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]


def corners_of_rotated(boxes: Any) -> Array:
    """Return (n, 4, 2) float64 corners x, y of rotated boxes (n, 5), along the edge; inverse of `rotated_boxes`.

    The first is the one at ``-w/2, -h/2`` of the box before it is turned.
    """
    given = np.asarray(boxes, np.float64).reshape(-1, 5)
    cos, sin = np.cos(given[:, 4]), np.sin(given[:, 4])
    along = given[:, 2, None] / 2 * np.stack([cos, sin], axis=1)
    across = given[:, 3, None] / 2 * np.stack([-sin, cos], axis=1)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    out: Array = given[:, None, :2] + np.stack([a * along + b * across for a, b in signs], axis=1)
    return out


def rotated_boxes(corners: Array) -> Array:
    """Return (n, 5) float64 ``cx, cy, w, h, angle`` of the least rectangle around four corners (n, 4, 2) each.

    Of a rectangle it is the rectangle. The least one has a side along one of the convex hull (Freeman and Shapira
    1975, doi:10.1145/360881.360919).
    """
    points = np.asarray(corners, np.float64).reshape(-1, 4, 2)
    sides = np.stack([points[:, b] - points[:, a] for a, b in _PAIRS], axis=1)
    angles = np.arctan2(sides[..., 1], sides[..., 0])  # (n, 6); 0 of corners that are one
    cos, sin = np.cos(angles)[..., None], np.sin(angles)[..., None]
    along = points[:, None, :, 0] * cos + points[:, None, :, 1] * sin
    across = points[:, None, :, 1] * cos - points[:, None, :, 0] * sin
    width, height = np.ptp(along, axis=2), np.ptp(across, axis=2)
    best = np.argmin(width * height, axis=1)[:, None]

    def chosen(values: Array) -> Array:
        return np.take_along_axis(values, best, axis=1)[:, 0]

    middle = [(v.min(axis=2) + v.max(axis=2)) / 2 for v in (along, across)]
    u, v, c, s = (chosen(part) for part in (*middle, cos[..., 0], sin[..., 0]))
    w, h, angle = chosen(width), chosen(height), chosen(angles)
    angle = angle + np.where(w < h, np.pi / 2, 0)
    sizes = np.maximum(w, h), np.minimum(w, h)
    return np.stack([u * c - v * s, u * s + v * c, *sizes, in_range(angle)], axis=1)


def least_rectangle(points: Array) -> Array:
    """Return (4, 2) float64 corners of the least rectangle around points (n, 2): four of them stay as they are."""
    if len(points) == 4:
        return np.asarray(points, np.float64)
    if len(points) < 3 or not np.isfinite(points).all():
        return np.full((4, 2), np.nan)
    sides = points[:, None] - points[None] if len(points) <= 64 else np.diff(_hull(points), axis=0)
    angles = np.unique(np.arctan2(*sides.reshape(-1, 2).T[::-1]) % (np.pi / 2))
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    along, across = points[:, 0] * cos + points[:, 1] * sin, points[:, 1] * cos - points[:, 0] * sin
    i = int(np.argmin(np.ptp(along, axis=1) * np.ptp(across, axis=1)))
    u, v, c, s = (along[i].min(), along[i].max()), (across[i].min(), across[i].max()), cos[i, 0], sin[i, 0]
    turned = [(u[a], v[b]) for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
    return np.array([(x * c - y * s, x * s + y * c) for x, y in turned])


def _hull(points: Array) -> Array:
    """Return the convex hull of points (n, 2), closed; of points on a line those points."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        ring: Array = points[ConvexHull(points).vertices]
    except QhullError:
        ring = points
    return np.concatenate([ring, ring[:1]])


def in_range(angle: Array) -> Array:
    """Return angles (n,) of lines in [-pi/2, pi/2), radians."""
    turned = angle - np.pi * np.floor(angle / np.pi + 0.5)
    out: Array = np.clip(turned, -np.pi / 2, np.nextafter(np.pi / 2, 0))
    return out


def apply_to_points(operation: int, points: Array, *, shape: tuple[int, int]) -> Array:
    """Return points (n, ..., 2) x, y in pixel edges under an operation of `turns` on (rows, columns)."""
    rows, cols = shape
    x, y = points[..., 0], points[..., 1]
    if operation & TRANSPOSE:
        x, y, rows, cols = y, x, cols, rows
    if operation & ROWS:
        y = rows - y
    if operation & COLUMNS:
        x = cols - x
    return np.stack([x, y], axis=-1)


def apply_to_rotated(operation: int, boxes: Array, *, shape: tuple[int, int]) -> Array:
    """Return rotated boxes (n, 5) under an operation on (rows, columns): those of the corners under it."""
    given = np.asarray(boxes).reshape(-1, 5)
    middle = apply_to_points(operation, given[:, :2], shape=shape)
    angle = given[:, 4].astype(np.float64)
    if operation & TRANSPOSE:
        angle = np.pi / 2 - angle
    if operation & ROWS:
        angle = -angle
    if operation & COLUMNS:
        angle = -angle
    turned = as_float32(in_range(angle)) if given.dtype == np.float32 else in_range(angle)
    return np.concatenate([middle, given[:, 2:4], turned[:, None]], axis=1).astype(given.dtype)


def as_float32(angle: Array) -> Array:
    """Return angles (n,) as float32 in [-pi/2, pi/2): what is rounded up to pi/2 is the same line at -pi/2."""
    end = np.nextafter(np.float32(np.pi / 2), np.float32(0))
    rounded = angle.astype(np.float32)
    out: Array = np.where(rounded > end, -end, np.maximum(rounded, -end))
    return out


def ring_areas(points: Array) -> Array:
    """Return (n,) the areas within closed rings (n, k, 2), pixels."""
    x, y = np.moveaxis(points - points[:, :1], -1, 0)
    out: Array = np.abs((x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)) / 2
    return out


def shared_areas(corners: Array, boxes: Array) -> Array:
    """Return (n,) the areas that four corners (n, 4, 2) share with upright boxes (n, 4), pixels.

    A ring is cut at a line by bringing what is beyond straight onto it: that part has no area.
    """
    out = np.zeros(len(corners))
    for part in _parts(len(corners)):
        ring = simple_rings(np.asarray(corners[part], np.float64))
        low, high = boxes[part, None, :2], boxes[part, None, 2:]
        for axis in (0, 1):
            ring = _cut(ring, low[..., axis], axis, 1)
            ring = _cut(ring, high[..., axis], axis, -1)
        out[part] = ring_areas(ring)
    return out


def _parts(count: int) -> Iterator[slice]:
    return (slice(at, at + _AT_ONCE) for at in range(0, count, _AT_ONCE))


def _cut(ring: Array, limit: Array, axis: int, sign: int) -> Array:
    """Return rings (n, k, 2) as (n, 2k, 2), what lies before ``limit`` (n, 1) along an axis brought onto it."""
    beyond = sign * (ring[..., axis] - limit)
    after, ahead = np.roll(ring, -1, axis=1), np.roll(beyond, -1, axis=1)
    crosses = (beyond < 0) != (ahead < 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(crosses, beyond / (beyond - ahead), 0)[..., None]
    between = np.where(crosses[..., None], ring + share * (after - ring), ring)
    out = np.stack([ring, between], axis=2).reshape(len(ring), -1, 2)
    bound = np.broadcast_to(limit, out.shape[:2])
    out[..., axis] = np.maximum(out[..., axis], bound) if sign > 0 else np.minimum(out[..., axis], bound)
    return out


def simple_rings(corners: Array) -> Array:
    """Return four corners (n, 4, 2) in an order around their middle, where their own crosses itself."""
    x, y = np.moveaxis(corners, -1, 0)
    crossed = (np.roll(x, -1, 1) - x) * (np.roll(y, -2, 1) - y) - (np.roll(y, -1, 1) - y) * (
        np.roll(x, -2, 1) - x
    )
    is_simple = ~((crossed > 0).any(axis=1) & (crossed < 0).any(axis=1))
    around = np.arctan2(*(np.moveaxis(corners - corners.mean(axis=1, keepdims=True), -1, 0)[::-1]))
    order = np.argsort(around, axis=1, kind="stable")
    sorted_ones = np.take_along_axis(corners, order[..., None], axis=1)
    return np.where(is_simple[:, None, None], corners, sorted_ones)
