"""The ground of chips: which of them lie on one another, across CRSs, and how much ground they share.

Chips of one CRS are compared in its plane, where their edges are straight; those of two on the sphere, with the
metres by which an edge leaves its great circle.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sarzarr.arrays import Array
from sarzarr.grids.crs import transform_points
from sarzarr.grids.footprint import degrees_of
from sarzarr.grids.world import EARTH_RADIUS, Extents, WorldLattice, mix
from sarzarr.splits.overlap import touching, unit_vectors, widest_gap

_AROUND: Final = np.array([(0, 0), (0, 0.5), (0, 1), (0.5, 1), (1, 1), (1, 0.5), (1, 0), (0.5, 0)])
"""Eight places (row, column) around a chip, as shares of its sides: corners and the middles between."""
_CORNERS: Final = slice(None, None, 2)
TOUCH: Final = 1e-3
"""Share of a pixel by which chips of one CRS may seem to overlap through rounding."""
POINTS: Final = 32
"""Rows, and columns, of the places of a chip that tell how much of it others show."""
MOST_POINTS: Final = 1 << 22
"""Places that are looked at together."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ChipGrounds:
    """The ground of chips, as numbers: CRSs, transforms (n, 6) and shapes (n, 2)."""

    crs: tuple[str, ...]
    """WKT of the CRSs."""
    number: Array
    """(n,) int64: the CRS of each chip; -1 of one without a place in the world."""
    transform: Array
    """(n, 6) float64: x = a * col + b * row + c and y = d * col + e * row + f of pixel edges."""
    shape: Array
    """(n, 2) int64: rows and columns."""

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, rows: Array) -> Self:
        """Return the grounds of some chips, by mask or indices (k,)."""
        columns = {name: getattr(self, name)[rows] for name in ("number", "transform", "shape")}
        return type(self)(crs=self.crs, **columns)

    @cached_property
    def plane(self) -> Array:
        """(n, 8, 2) float64: (x, y) around each chip in its own CRS."""
        places = self.shape[:, None, :] * _AROUND
        return np.stack(_to_xy(self.transform[:, None], places[..., 0], places[..., 1]), axis=-1)

    @cached_property
    def degrees(self) -> Array:
        """(n, 8, 2) float64: (longitude, latitude) around each chip; not finite where it has no place.

        Longitudes of one chip are within half a turn of one another.
        """
        out = np.full((len(self), len(_AROUND), 2), np.inf)
        for number, wkt in enumerate(self.crs):
            mine = self.number == number
            if mine.any():
                out[mine] = np.stack(degrees_of(wkt, *np.moveaxis(self.plane[mine], -1, 0)), axis=-1)
        with np.errstate(invalid="ignore"):
            out[..., 0] -= 360 * np.rint((out[..., 0] - out[:, :1, 0]) / 360)
        return out

    @cached_property
    def is_placed(self) -> Array:
        """(n,) bool: whether a chip has a place in the world, and not about a pole."""
        lon, lat = np.moveaxis(np.where(np.isfinite(self.degrees), self.degrees, np.nan), -1, 0)
        with np.errstate(invalid="ignore"):
            spans = np.abs(lon - lon[:, :1]).max(axis=1) < 90
            out: Array = np.isfinite(self.degrees).all((1, 2)) & spans & (np.abs(lat) < 89.9).all(axis=1)
        return out

    @cached_property
    def bulge(self) -> Array:
        """(n,) float64: metres by which an edge may leave the great circle of its corners; NaN where unplaced."""
        with np.errstate(invalid="ignore"):
            around = unit_vectors(self.degrees)
            corners = around[:, _CORNERS]
            middles = corners + np.roll(corners, -1, axis=1)
            middles /= np.linalg.norm(middles, axis=-1, keepdims=True)
            off = np.linalg.norm(around[:, 1::2] - middles, axis=-1).max(axis=1, initial=0)
        out: Array = off * EARTH_RADIUS
        return out

    @cached_property
    def extents(self) -> Extents:
        """(n,) boxes of latitude and longitude, degrees, that hold each chip, edges and all."""
        degrees = np.where(self.is_placed[:, None, None], self.degrees, np.nan)
        (west, south), (east, north) = degrees.min(axis=1).T, degrees.max(axis=1).T
        boxes = Extents(south=south, north=north, west=west, east=east)
        grown = np.where(self.is_placed, self.bulge, 0).max(initial=0) + 1e-3
        return boxes.grown(float(grown))

    @cached_property
    def pixel(self) -> Array:
        """(n,) float64: the side of a pixel, its square having a pixel's area, in units of the CRS."""
        a, b, _, d, e, _ = self.transform.T
        out: Array = np.sqrt(np.abs(a * e - b * d))
        return out

    @cached_property
    def areas(self) -> Array:
        """(n,) float64: square metres of each chip on WGS 84; NaN without a place."""
        from pyproj import Geod

        ellipsoid = Geod(ellps="WGS84")
        out = np.full(len(self), np.nan)
        for i in np.flatnonzero(self.is_placed).tolist():
            out[i] = abs(ellipsoid.polygon_area_perimeter(*self.degrees[i].T)[0])
        return out

    @cached_property
    def places(self) -> tuple[Array, Array]:
        """Return (k,) int64 one chip of each place, and (n,) the place of each chip: dates of one grid are one."""
        key = np.zeros(len(self), np.uint64)
        columns = [self.number.astype(np.int64), *self.shape.astype(np.int64).T, *(self.transform.T + 0.0)]
        for values in columns:
            key = mix(key ^ np.ascontiguousarray(values).view(np.uint64))
        key = np.where(self.is_placed, key, mix(np.arange(len(self)).astype(np.uint64)))
        _, first, place = np.unique(key, return_index=True, return_inverse=True)
        return first, place.reshape(-1)


def _to_xy(transform: Array, row: Array, col: Array) -> tuple[Array, Array]:
    a, b, c, d, e, f = np.moveaxis(transform, -1, 0)
    return a * col + b * row + c, d * col + e * row + f


def overlapping(grounds: ChipGrounds, one: Array, other: Array) -> Array:
    """Return (pairs, 2) int64: chips, one of ``one`` (k,) and one of ``other`` (m,), that lie on one another.

    Neighbours that share an edge do not. A chip is no pair with itself, and chips without a place are in none.
    """
    found = [np.empty((0, 2), np.int64)]
    sides = one[grounds.is_placed[one]], other[grounds.is_placed[other]]
    order = -1 if len(sides[0]) > len(sides[1]) else 1
    for near in touching(grounds.extents, *sides[::order]):
        near = near[near[:, 0] != near[:, 1]]
        found.append(near[_share_ground(grounds, near)])
    return np.concatenate(found)[:, ::order]


def _share_ground(grounds: ChipGrounds, pairs: Array) -> Array:
    """Return (pairs,) bool: whether both chips of a pair have ground in common."""
    a, b = pairs.T
    out = np.zeros(len(pairs), bool)
    alike = grounds.number[a] == grounds.number[b]
    if alike.any():
        one, two = (grounds.plane[rows[alike]][:, _CORNERS] for rows in (a, b))
        least = np.minimum(grounds.pixel[a[alike]], grounds.pixel[b[alike]])
        out[alike] = np.maximum(_plane_gap(one, two), _plane_gap(two, one)) < -TOUCH * least
    if not alike.all():
        one, two = (unit_vectors(grounds.degrees[rows[~alike]][:, _CORNERS]) for rows in (a, b))
        margin = (grounds.bulge[a[~alike]] + grounds.bulge[b[~alike]]) / EARTH_RADIUS
        out[~alike] = np.maximum(widest_gap(one, two), widest_gap(two, one)) < margin
    return out


def _plane_gap(one: Array, two: Array) -> Array:
    """Return (n,) the widest distance from an edge of ``one`` (n, 4, 2) to all of ``two``; negative without."""
    along = np.roll(one, -1, axis=1) - one
    normal = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    inside = np.sign(np.einsum("nec,nec->ne", normal, one.mean(axis=1)[:, None] - one))
    distance = np.einsum("nec,nevc->nev", normal, two[:, None] - one[:, :, None]) * -inside[..., None]
    out: Array = distance.min(axis=2).max(axis=1)
    return out


def ground_groups(grounds: ChipGrounds) -> Array:
    """Return (n,) int64: a number that chips have in common where ground leads from one to the other.

    Chips of two groups share no ground. Chips without a place are alone.
    """
    first, place = grounds.places
    rows = np.arange(len(first))
    pairs = overlapping(grounds[first], rows, rows)
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(first),) * 2)
    _, group = connected_components(graph.tocsr(), directed=False)
    out: Array = group[place].astype(np.int64)
    return out


@dataclass(frozen=True, kw_only=True)
class SharedGround:
    """Ground that chips of two sides have in common."""

    chips: Array
    """(k,) int64: those of the first side that share ground with the second, ascending."""
    area: float
    """Square metres of ground that both sides show, each counted once; within a few parts in a hundred."""


def shared_ground_of(
    grounds: ChipGrounds, one: Array, other: Array, *, with_area: bool = True
) -> SharedGround:
    """Return the chips of ``one`` (k,) that share ground with any of ``other`` (m,), and how much, in square metres.

    The area is counted on a lattice of places in each chip. Without ``with_area`` it is NaN.
    """
    pairs = overlapping(grounds, one, other)
    leaking = np.unique(pairs[:, 0])
    if not with_area or not len(leaking):
        return SharedGround(chips=leaking, area=0.0 if not len(leaking) else float("nan"))
    points = max(4, min(POINTS, int((16 * MOST_POINTS / len(pairs)) ** 0.5)))
    shown, _ = _covered(grounds, pairs, leaking, points)
    twins = np.concatenate([overlapping(grounds, leaking, leaking), np.stack([leaking] * 2, axis=1)])
    _, times = _covered(grounds, twins, leaking, points)
    shares = (shown / np.maximum(times, 1)).mean(axis=1)
    return SharedGround(chips=leaking, area=float((shares * grounds[leaking].areas).sum()))


def _covered(grounds: ChipGrounds, pairs: Array, chips: Array, points: int) -> tuple[Array, Array]:
    """Return (chips, points**2) whether second chips of ``pairs`` show each place in the first ones, and how many."""
    times = np.zeros((len(chips), points**2), np.int32)
    middle = (np.arange(points) + 0.5) / points
    row, col = (n.reshape(-1) for n in np.meshgrid(middle, middle, indexing="ij"))
    per = max(MOST_POINTS // points**2, 1)
    for first in range(0, len(pairs), per):
        a, b = pairs[first : first + per].T
        x, y = _to_xy(
            grounds.transform[a][:, None],
            row * grounds.shape[a, :1],
            col * grounds.shape[a, 1:],
        )
        for source, target in np.unique(grounds.number[np.stack([a, b], axis=1)], axis=0).tolist():
            if source != target:
                mine = (grounds.number[a] == source) & (grounds.number[b] == target)
                x[mine], y[mine] = transform_points(
                    grounds.crs[source], grounds.crs[target], x[mine], y[mine]
                )
        np.add.at(times, np.searchsorted(chips, a), _within(grounds, b, x, y))
    return times > 0, times


def _within(grounds: ChipGrounds, chips: Array, x: Array, y: Array) -> Array:
    """Return (n, points) bool: whether positions (n, points) in each chip's CRS lie in it."""
    a, b, c, d, e, f = grounds.transform[chips].T[..., None]
    height, width = grounds.shape[chips].T[..., None]
    with np.errstate(invalid="ignore"):
        scale = a * e - b * d
        col = (e * (x - c) - b * (y - f)) / scale
        row = (a * (y - f) - d * (x - c)) / scale
        out: Array = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    return out


def block_groups(grounds: ChipGrounds, block: float) -> Array:
    """Return (n,) int64: the number of the block of the world, of ``block`` metres, that each chip's middle is in."""
    lattice = WorldLattice(block=block)
    lon, lat = (np.nan_to_num(v, posinf=0, neginf=0) for v in grounds.degrees.mean(axis=1).T)
    ids = lattice.ids(*lattice.block_of(lon, lat))
    ids = np.where(grounds.is_placed, ids, mix(np.arange(len(grounds)).astype(np.uint64)))
    out: Array = np.unique(ids, return_inverse=True)[1].reshape(-1)
    return out


def named_groups(names: list[str], group_of: Callable[[str], str]) -> Array:
    """Return (n,) int64: the number of the group that each chip's name is given."""
    return np.unique(np.array([group_of(name) for name in names], object).astype(str), return_inverse=True)[1]


def joined_groups(one: Array, other: Array) -> Array:
    """Return (n,) int64: the groups that things are in where either (n,) numbering has them together."""
    n, most = len(one), int(one.max(initial=-1)) + 1
    size = n and most + int(other.max(initial=-1)) + 1
    graph = coo_array((np.ones(n, np.int8), (one, other + most)), shape=(size, size))
    _, group = connected_components(graph.tocsr(), directed=False)
    out: Array = group[one].astype(np.int64)
    return out
