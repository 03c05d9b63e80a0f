"""Regions of the ground: scenes that lie near each other, so that a picture can show each at a scale of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.grids.footprint import positions_of
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.world import EARTH_RADIUS

EARTH_KM: Final = EARTH_RADIUS / 1000
SPANS: Final = (40, 80, 120)
"""Cells that a region of scenes apart may be wide: the first span that makes few enough regions, or the last."""
TOUCH: Final = 1.25
"""Scenes belong together, however many, where their middles are within their radii times this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MapScene:
    """A scene as a map shows it: where its cells lie, and on which side each is."""

    placement: Georeference
    """How its pixels are tied to the ground."""
    codes: Array
    """(rows, columns) uint8 of its cells: `sarzarr.conventions.Membership`, or ``maps.UNSPLIT``."""


@dataclass(frozen=True, kw_only=True)
class MapRegion:
    """Scenes that one panel shows: those within a circle on the ground."""

    members: tuple[int, ...]
    """Numbers of the scenes."""
    lon: float
    """Of the circle's middle, degrees."""
    lat: float
    """Likewise."""
    radius: float
    """Kilometres from there to the farthest corner."""


def find_regions(scenes: Sequence[MapScene], *, most: int) -> tuple[tuple[MapRegion, ...], tuple[int, ...]]:
    """Return the regions of scenes, those of most scenes first, and the numbers of scenes without a place.

    Scenes that touch are in one region; those apart, where it spans no more cells than `SPANS` allows for ``most``
    regions. Distances are on the sphere: no meridian and no pole is special.
    """
    circles = np.array([_circle(s.placement) for s in scenes]).reshape(-1, 4)
    placed = np.flatnonzero(np.isfinite(circles).all(axis=1))
    lost = tuple(sorted({*range(len(scenes))} - {*placed.tolist()}))
    if not placed.size:
        return (), lost
    circles = circles[placed]
    cells = np.array([np.hypot(*scenes[i].placement.grid.shape) / cv.CELL for i in placed.tolist()])
    cell_km = float(np.median(2 * circles[:, 3] / np.maximum(cells, 1)))
    groups = _touching(circles)
    for span in SPANS:
        regions = _gathered(circles, groups, span * cell_km / 2)
        if len(regions) <= most:
            break
    ordered = sorted(regions, key=lambda r: (-r.size, r[0]))
    return tuple(_region(circles, placed, members) for members in ordered), lost


def _circle(place: Georeference) -> Array:
    """Return (x, y, z, km): the middle of a scene on the unit sphere, and how far its corners are; NaN if nowhere."""
    if not place.is_located:
        return np.full(4, np.nan)
    rows, cols = np.meshgrid(*(np.linspace(0, n, 3) for n in place.grid.shape), indexing="ij")
    lon, lat, _ = positions_of(place, rows, cols)
    points = on_sphere(lon, lat).reshape(-1, 3)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return np.full(4, np.nan)
    middle = _middle(points)
    return np.append(middle, _km(points, middle).max())


def on_sphere(lon: Array, lat: Array) -> Array:
    """Return (..., 3) float64: positions in degrees as points of the unit sphere; NaN where they are not finite."""
    with np.errstate(invalid="ignore"):
        lam, phi = np.radians(lon), np.radians(lat)
        points: Array = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)
    return points


def _middle(points: Array) -> Array:
    total = points.sum(axis=0)
    length = float(np.linalg.norm(total))
    middle: Array = total / length if length > 1e-9 else points[0]
    return middle


def _km(points: Array, middle: Array) -> Array:
    """Return kilometres on the sphere from each point (n, 3) to the middle (3,)."""
    km: Array = 2 * EARTH_KM * np.arcsin(np.minimum(np.linalg.norm(points - middle, axis=-1) / 2, 1))
    return km


def _touching(circles: Array) -> list[Array]:
    """Return the scenes, by number, that touch each other, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    step = max(float(np.median(circles[:, 3])) / 4, 1e-6)  # scenes of one place count once: pairs stay few
    _, first, place = np.unique(
        np.rint(circles[:, :3] * EARTH_KM / step), axis=0, return_index=True, return_inverse=True
    )
    place = place.reshape(-1)
    radius = np.zeros(len(first))
    np.maximum.at(radius, place, circles[:, 3])
    points = circles[first, :3] * EARTH_KM
    pairs: Any = KDTree(points).query_pairs(2 * TOUCH * radius.max() + step, output_type="ndarray")
    apart = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    pairs = pairs[apart <= TOUCH * radius[pairs].sum(axis=1) + step]
    links = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(len(first),) * 2)
    group = connected_components(links, directed=False)[1][place]
    order = np.argsort(group, kind="stable")
    return [*np.split(order, np.flatnonzero(np.diff(group[order])) + 1)]


def _gathered(circles: Array, groups: Sequence[Array], reach: float) -> list[Array]:
    """Return groups, those of most scenes first, each with the free ones within ``reach`` km of its middle."""
    around = np.array([_around(circles[g]) for g in groups])
    free = np.ones(len(groups), bool)
    out = []
    for i in sorted(range(len(groups)), key=lambda i: (-groups[i].size, groups[i][0])):
        if free[i]:
            far = _km(around[:, :3], around[i, :3]) + around[:, 3]
            mine = free & (far <= max(reach, around[i, 3]))
            mine[i] = True
            free &= ~mine
            out.append(np.sort(np.concatenate([groups[j] for j in np.flatnonzero(mine).tolist()])))
    return out


def _around(circles: Array) -> Array:
    """Return the circle (x, y, z, km) about circles (n, 4)."""
    middle = _middle(circles[:, :3])
    return np.append(middle, (_km(circles[:, :3], middle) + circles[:, 3]).max())


def _region(circles: Array, placed: Array, members: Array) -> MapRegion:
    x, y, z, radius = _around(circles[members]).tolist()
    lon, lat = float(np.degrees(np.arctan2(y, x))), float(np.degrees(np.arctan2(z, np.hypot(x, y))))
    return MapRegion(
        members=tuple(placed[members].tolist()), lon=lon, lat=lat, radius=min(radius, EARTH_KM * np.pi)
    )
