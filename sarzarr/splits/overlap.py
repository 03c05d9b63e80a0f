"""Shared ground: which cells of different membership lie on one another.

Extents are joined through a tree of their middles, and the pairs that remain are compared as quadrilaterals of
great circles.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from scipy.spatial import cKDTree

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.grids.world import EARTH_RADIUS, Extents, mix

LEVELS: Final = 30
"""Sizes of extents: 360 degrees halved so many times at most (0.04 m)."""
BATCH: Final = 1 << 21
"""Pairs that are looked at together."""
TOUCH: Final = 0.02
"""Share of a pixel by which neighbours may seem to overlap through rounding."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Cells:
    """Cells that are compared."""

    extents: Extents
    """Of each; without a margin."""
    codes: Array
    """(n,) uint8 memberships; those held back take no part."""
    corners: Callable[[Array], Array]
    """Gives, for the numbers (m,) of some cells, (m, 4, 2) float64: (longitude, latitude) around each."""
    tolerance: Array
    """(n,) float32: metres by which a cell may reach into another; negative where it must stay away."""


def shared_ground(cells: Cells) -> Array:
    """Return (pairs, 2) indices of cells that lie on one another and are of different membership.

    Cells without a place take no part: no split gives them a membership.
    """
    pairs = [np.empty((0, 2), np.int64)]
    for one, other in combinations((cv.Membership.TRAIN, cv.Membership.VAL, cv.Membership.TEST), 2):
        sides = [_distinct(cells, np.flatnonzero(cells.codes == side)) for side in (one, other)]
        fewer, more = sorted(sides, key=len)
        pairs += [_truly(cells, near) for near in touching(cells.extents, fewer, more)]
    return np.concatenate(pairs)


def _distinct(cells: Cells, rows: Array) -> Array:
    """Return ``rows`` without those of equal extents: acquisitions on one grid are one."""
    rows = rows[cells.extents.is_placed[rows]]
    hashed = np.zeros(len(rows), np.uint64)
    for values in vars(cells.extents[rows]).values():
        hashed = mix(hashed ^ np.ascontiguousarray(values).view(np.uint64))
    return np.take(rows, np.unique(hashed, return_index=True)[1])


def touching(extents: Extents, fewer: Array, more: Array) -> Iterator[Array]:
    """Yield (pairs, 2) indices, one of ``fewer`` and one of ``more``, whose extents overlap.

    Middles are looked up in a tree on a torus, by the two sizes at which extents of their levels could still meet.
    """
    level = _level(extents)
    middle = np.stack(
        [(extents.south + extents.north) / 2 + 90, (extents.west + extents.east) / 2 % 360], axis=1
    )
    for b in np.unique(level[more]):
        others = more[level[more] == b]
        tree = cKDTree(middle[others], boxsize=(720, 360))  # latitudes reach half of theirs, never round it
        for a in np.unique(level[fewer]):
            rows = fewer[level[fewer] == a]
            reach = 180 / 2 ** int(a) + 180 / 2 ** int(b)
            counts = tree.query_ball_point(middle[rows], reach, p=np.inf, return_length=True)
            for part in np.split(rows, np.flatnonzero(np.diff(np.cumsum(counts) // BATCH)) + 1):
                near = tree.query_ball_point(middle[part], reach, p=np.inf)
                one = np.repeat(part, [len(n) for n in near])
                two = others[np.concatenate([*near, []]).astype(np.int64)]
                overlap = _overlap(extents, one, two)
                if overlap.any():
                    yield np.stack([one[overlap], two[overlap]], axis=1)


def _level(extents: Extents) -> Array:
    """Return how often (n,) int64 360 degrees may be halved and not be below an extent."""
    span = np.maximum(extents.north - extents.south, extents.east - extents.west)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.floor(np.log2(360 / span))
    clipped: Array = np.clip(np.nan_to_num(level, nan=0, posinf=LEVELS), 0, LEVELS).astype(np.int64)
    return clipped


def _overlap(extents: Extents, one: Array, two: Array) -> Array:
    a, b = extents[one], extents[two]
    turn = 360 * np.rint((a.west - b.west) / 360)
    lat = (a.south < b.north) & (b.south < a.north)
    lon = [(a.west < b.east + t) & (b.west + t < a.east) for t in (turn - 360, turn, turn + 360)]
    out: Array = lat & np.logical_or.reduce(lon)
    return out


def _truly(cells: Cells, pairs: Array) -> Array:
    """Return the pairs that no great circle along an edge keeps apart."""
    one, two = (unit_vectors(cells.corners(pairs[:, i])) for i in (0, 1))
    allowed = np.minimum(*(cells.tolerance[pairs[:, i]] for i in (0, 1))) / EARTH_RADIUS
    apart = np.maximum(widest_gap(one, two), widest_gap(two, one)) >= -allowed
    return np.compress(~apart, pairs, axis=0)


def unit_vectors(corners: Array) -> Array:
    """Return (..., 3) unit vectors of (longitude, latitude) in degrees."""
    lam, phi = np.moveaxis(np.radians(corners), -1, 0)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def widest_gap(one: Array, two: Array) -> Array:
    """Return (n,) the widest angle by which all of ``two`` is beyond one edge of ``one``; negative if none."""
    normal = np.cross(one, np.roll(one, -1, axis=1))
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = normal / np.where(length > 0, length, 1)
    inside = np.sign(np.einsum("nec,nc->ne", normal, one.mean(axis=1)))
    distance = np.einsum("nec,nvc->nev", normal, two) * -inside[..., None]
    out: Array = distance.min(axis=2).max(axis=1)
    return out
