"""The cells of a scene in the world, placed by its affine and CRS or by its ground control points.

A cell's extent holds every point of the cell: the latitudes and longitudes of its corners, and what its
edges may bulge beyond them, taken from how much the lines of the lattice bend from cell to cell.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.grids.crs import turned
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.world import EARTH_RADIUS, METRES_PER_DEGREE, Extents

GUARD_PIXELS: Final = 2.0
"""Default margin about a cell, in pixels: what a resampling kernel may have mixed in."""
GCP_GUARD: Final = 1000.0
"""Metres more where control points place the pixels: relief displaces what lies between them."""
_ENDS: Final = (slice(None, -1), slice(1, None))
_CORNERS: Final = tuple((rows, cols) for rows in _ENDS for cols in _ENDS)
"""The four corners of every cell, in an array of vertices."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Footprint:
    """A scene's cells in the world, in degrees and metres."""

    lon: Array
    """(rows + 1, columns + 1) float64: longitudes of the cells' corners, in degrees; not finite if unknown."""
    lat: Array
    """(rows + 1, columns + 1) float64: latitudes."""
    extents: Extents
    """(rows * columns,) of the cells in C order, with their bulge and without a margin."""
    pixel: float
    """Metres of a pixel at its largest, along a row or a column; NaN where no cell has a place."""
    doubt: float
    """Metres by which the placement may be wrong: 0 for an affine, more for control points."""

    def guarded(self, guard: float | None) -> Extents:
        """Return the extents with their margin: ``guard`` metres or two pixels, and the doubt on top."""
        margin = GUARD_PIXELS * self.pixel if guard is None else guard
        return self.extents.grown(margin + self.doubt)


def footprint_of(place: Georeference) -> Footprint:
    """Return the cells of a located scene in the world, in degrees.

    Raises `InvalidInputError` where the CRS cannot be brought to longitude and latitude.
    """
    lines = [_lines(n) for n in place.grid.shape]
    rows, cols = np.meshgrid(*lines, indexing="ij")
    lon, lat, doubt = positions_of(place, rows, cols)
    keep = tuple(slice(None, None, 2 if n == 1 else 1) for n in place.cells)
    edges = [line[kept] for line, kept in zip(lines, keep, strict=True)]
    with np.errstate(invalid="ignore", over="ignore"):
        extents = _extents(lon, lat, place.cells)
        pixel = _pixel_metres(lon[keep], lat[keep], *edges)
    return Footprint(lon=lon[keep], lat=lat[keep], extents=extents, pixel=pixel, doubt=doubt)


def positions_of(place: Georeference, rows: Array, cols: Array) -> tuple[Array, Array, float]:
    """Return (lon, lat) in degrees of pixel positions (rows, cols) of a located scene, and its doubt in metres.

    Not finite where a position has none. Raises as `footprint_of` does.
    """
    if place.grid.crs_wkt is not None:
        lon, lat = degrees_of(place.grid.crs_wkt, *place.grid.to_xy(rows, cols))
        return lon, lat, GCP_GUARD if place.geolocation.startswith("gcp") else 0.0
    lon, lat, miss = _from_gcps(place, rows, cols)
    return lon, lat, miss + GCP_GUARD


def _lines(length: int) -> Array:
    """Return the pixel lines between cells; a single cell is cut in two, so that its bend is seen."""
    if length <= cv.CELL:
        return np.array([0, length / 2, length], np.float64)
    return np.append(np.arange(0, length, cv.CELL), length).astype(np.float64)


@lru_cache(maxsize=64)
def _transformer(crs_wkt: str) -> Any:
    """Return the transformer of a CRS to longitude and latitude (a pure function of its argument)."""
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        return Transformer.from_crs(crs_wkt, "EPSG:4326", always_xy=True)
    except ProjError as error:
        raise InvalidInputError(
            f"a CRS that leads to longitude and latitude was expected, got one that does not ({error}). "
            "Name the sites of these scenes."
        ) from None


def degrees_of(crs_wkt: str, x: Array, y: Array) -> tuple[Array, Array]:
    """Return (lon, lat) of positions in a CRS, lon from -180 to below 180, infinite where the CRS does not reach.

    Far beyond its zone a projection may give any position instead: what does not lead back is none. A few
    positions tell whether to look at all of them.
    """
    transformer = _transformer(crs_wkt)
    x = turned(crs_wkt, x, near=0.0)
    lon, lat = transformer.transform(x, y)
    with np.errstate(invalid="ignore"):
        lon = np.where(np.isfinite(lon), lon - 360 * np.floor((lon + 180) / 360), lon)
    some = np.ix_(*(np.unique([0, n // 2, n - 1]) for n in x.shape))
    if not _leads_back(crs_wkt, x[some], y[some], lon[some], lat[some]).all():
        lost = ~_leads_back(crs_wkt, x, y, lon, lat)
        lon, lat = (np.where(lost, np.inf, v) for v in (lon, lat))
    return lon, lat


def _leads_back(crs_wkt: str, x: Array, y: Array, lon: Array, lat: Array) -> Array:
    again = _transformer(crs_wkt).transform(lon, lat, direction="INVERSE")
    with np.errstate(invalid="ignore", over="ignore"):
        across = turned(crs_wkt, again[0] - x, near=0.0)  # it may come back a turn away
        off = np.hypot(across, again[1] - y)
        near: Array = (off <= 1e-5 * (1 + np.hypot(x, y))) & (np.abs(lat) <= 90)
    return near


def _from_gcps(place: Georeference, rows: Array, cols: Array) -> tuple[Array, Array, float]:
    """Return (lon, lat, metres): a polynomial through control points, and its worst miss of one left out.

    It is fitted to positions on the unit sphere, where no meridian and no pole is special.
    """
    points = np.array(place.gcps, np.float64)
    lam, phi = np.radians(degrees_of(str(place.gcps_crs), points[:, 2], points[:, 3]))
    sphere = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)
    scale = max(place.grid.shape)
    degree = next(d for d, least in ((3, 40), (2, 16), (1, 0)) if len(points) >= least)
    basis = _powers(points[:, 0] / scale, points[:, 1] / scale, degree)
    fit, *_ = np.linalg.lstsq(basis, sphere, rcond=None)
    leverage = np.einsum("ij,ji->i", basis, np.linalg.pinv(basis))
    missed = np.linalg.norm(sphere - basis @ fit, axis=1) / np.maximum(1 - leverage, 1e-3)
    x, y, z = np.moveaxis(_powers(rows / scale, cols / scale, degree) @ fit, -1, 0)
    lon, lat = np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))
    return lon, lat, float(missed.max()) * EARTH_RADIUS


def _powers(row: Array, col: Array, degree: int) -> Array:
    return np.stack([row**i * col**j for i in range(degree + 1) for j in range(degree + 1 - i)], axis=-1)


def _wrapped(degrees: Array) -> Array:
    """Return differences of longitude in -180..180."""
    wrapped: Array = degrees - 360 * np.rint(degrees / 360)
    return wrapped


def _extents(lon: Array, lat: Array, cells: tuple[int, int]) -> Extents:
    """Return the extents of cells between vertices; (1 cell, 3 lines) along an axis is joined again."""
    first = lon[:-1, :-1]
    around = [_wrapped(lon[r, c] - first) for r, c in _CORNERS]
    lats = [lat[r, c] for r, c in _CORNERS]
    bulge_lon, bulge_lat = _bulge(lon, is_longitude=True), _bulge(lat, is_longitude=False)
    west, east = np.minimum.reduce(around) - bulge_lon, np.maximum.reduce(around) + bulge_lon
    south, north = np.minimum.reduce(lats) - bulge_lat, np.maximum.reduce(lats) + bulge_lat
    for axis, n in enumerate(cells):
        if n == 1:  # its two halves, relative to the first one's corner
            first, second = np.split(first, 2, axis)
            step = _wrapped(second - first)
            west, east, south, north = (np.split(v, 2, axis) for v in (west, east, south, north))
            west = np.minimum(west[0], west[1] + step)
            east = np.maximum(east[0], east[1] + step)
            south, north = np.minimum(*south), np.maximum(*north)
    south = np.where(np.isfinite(west + east + south + north), south, np.nan)
    west, east = first + west, first + east
    return Extents(south=south.ravel(), north=north.ravel(), west=west.ravel(), east=east.ravel())


def _bulge(values: Array, *, is_longitude: bool) -> Array:
    """Return (rows, columns) how far a cell may reach beyond its corners: its edges are curves.

    A parabola rises an eighth of its second difference above its chord; twice that is taken, along both
    axes, from the bends at all corners.
    """
    total: Any = 0.0
    for axis in (0, 1):
        step = np.diff(values, axis=axis)
        step = _wrapped(step) if is_longitude else step
        bend = np.abs(np.diff(step, axis=axis))
        bend = _wrapped(bend) if is_longitude else bend
        bend = np.abs(np.pad(bend, [(1, 1) if axis == a else (0, 0) for a in (0, 1)], mode="edge"))
        total = total + np.maximum.reduce([bend[r, c] for r, c in _CORNERS]) / 4
    return np.asarray(total)


def _pixel_metres(lon: Array, lat: Array, rows: Array, cols: Array) -> float:
    """Return the largest side of a pixel, in metres, over all cells."""
    largest = math.nan
    for axis, lines in enumerate((rows, cols)):
        north = np.diff(lat, axis=axis)
        middle = np.take(lat, range(lat.shape[axis] - 1), axis)
        east = _wrapped(np.diff(lon, axis=axis)) * np.cos(np.radians(middle))
        count = np.diff(lines).reshape((-1, 1) if axis == 0 else (1, -1))
        side = np.hypot(north, east) * METRES_PER_DEGREE / count
        finite = side[np.isfinite(side)]
        largest = np.fmax(largest, finite.max(initial=0.0) or math.nan)
    return float(largest)
