"""The place of a raster's pixels on the ground and on another raster's grid: affine, rotated, or by GCPs.

GCP-only rasters are placed by a thin-plate spline through all of their ground control points, never by a
fitted affine, which is kilometres off on a Sentinel-1 GRD. No terrain enters: between the points, heights
still shift pixels by hundreds of metres.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.grids.crs import (
    LONLAT,
    crs_name,
    crs_wkt,
    is_same_crs,
    parse_crs,
    transform_points,
    turn_of,
    turned,
    turns_onto,
)  # fmt: skip
from sarzarr.grids.grid import Grid

Gcp = tuple[float, float, float, float, float]
"""A ground control point: (row, col, x, y, z)."""
_HALVES: Final = np.meshgrid((0.0, 0.5, 1.0), (0.0, 0.5, 1.0), indexing="ij")
"""Parts of a raster's rows and columns, (3, 3) each, where its place is asked for."""
MIN_GCPS: Final = 4
"""Fewer control points cannot tell how wrong they are."""
_GCP_RESIDUAL: Final = 0.1
"""Pixels by which a spline through the GCPs may miss one of them; it misses where they contradict."""
_EDGE_POINTS: Final = 65
"""Points along each edge of a raster when its bounding box is taken to another CRS."""


@dataclass(frozen=True, kw_only=True)
class Georeference:
    """All that ties the (height, width) pixels of a raster to the ground."""

    grid: Grid
    """Shape, and CRS and transform where pixels have them."""
    gcps: tuple[Gcp, ...] = ()
    """Ground control points; they count where ``grid`` has no CRS."""
    gcps_crs: str | None = None
    """WKT2 of the CRS that ``gcps`` are in."""
    geolocation: str = ""
    """Its name, see `conventions.GEOLOCATION`, or ``rpcs``; what follows from the others if left out."""
    name: str = field(default="", compare=False)
    """The raster's path, for messages."""
    unplaced: str = field(default="", compare=False)
    """Why what the file says of its place was not taken, for people; empty where it says none, or was."""

    def __post_init__(self) -> None:
        affine = "rotated_affine" if self.grid.is_rotated else "affine"
        placed = affine if self.grid.is_georeferenced else "gcps" if self.gcps else "none"
        object.__setattr__(self, "geolocation", self.geolocation or placed)

    @property
    def uses_gcps(self) -> bool:
        """Whether ground control points are all that places its pixels."""
        return not self.grid.is_georeferenced and bool(self.gcps) and self.gcps_crs is not None

    @property
    def crs_wkt(self) -> str | None:
        """WKT2 of the CRS that its transform or its GCPs are in."""
        return self.gcps_crs if self.uses_gcps else self.grid.crs_wkt

    @cached_property
    def middle(self) -> float:
        """X of the raster's middle in its own CRS; NaN where it has none."""
        if self.uses_gcps:
            xs = np.array([gcp[2] for gcp in self.gcps])
            return float(turned(self.gcps_crs, xs, near=xs[0]).mean())
        if not self.grid.is_georeferenced:
            return math.nan
        return float(self.grid.to_xy(np.array(self.grid.height / 2), np.array(self.grid.width / 2))[0])

    @property
    def is_located(self) -> bool:
        """Whether its cells have a place in the world, in degrees."""
        return self.grid.is_georeferenced or (len(self.gcps) >= MIN_GCPS and bool(self.gcps_crs))

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells; the last ones may be ragged."""
        return math.ceil(self.grid.height / cv.CELL), math.ceil(self.grid.width / cv.CELL)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits (8 bytes) that tell this place from any other."""
        affine = self.grid.crs_wkt or "", *map(float, self.grid.transform)
        parts = (*self.grid.shape, *affine, self.gcps, self.gcps_crs or "")
        return blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def on_earth(place: Georeference) -> Georeference:
    """Return a place as it is; without its CRS, and with a sentence in ``unplaced``, where it lies beyond the earth.

    Of degrees, latitudes are within 90, longitudes within two turns of 0 and no more than a turn wide, a
    pixel more or less. Of a projection, some point of the raster has a longitude and a latitude.
    """
    wkt = place.crs_wkt
    if wkt is None:
        return place
    xs, ys = np.array([g[2:4] for g in place.gcps]).T if place.uses_gcps else np.array(place.grid.corners).T
    across, down = (0.0, 0.0) if place.uses_gcps else place.grid.pixel_size
    crs, turn = parse_crs(wkt), turn_of(wkt)
    if crs.is_geographic and turn is not None:
        is_beyond = np.abs(ys).max() > turn / 4 + down or np.abs(xs).max() > 2 * turn + across
        is_beyond |= not place.uses_gcps and np.ptp(xs) > turn + across
    else:
        rows, cols = (part * n for part, n in zip(_HALVES, place.grid.shape, strict=True))
        some = (xs, ys) if place.uses_gcps else place.grid.to_xy(rows, cols)
        is_beyond = (
            crs.is_projected and not np.isfinite(transform_points(wkt, LONLAT, *some)).all(axis=0).any()
        )
    if not is_beyond:
        return place
    spans = [f"{v.min():g} to {v.max():g}" for v in (xs, ys)]
    why = f"no place on earth: its {crs_name(wkt)} has x {spans[0]}, y {spans[1]}"
    if place.uses_gcps:
        return replace(place, gcps=(), gcps_crs=None, geolocation="", unplaced=why)
    return replace(place, grid=replace(place.grid, crs_wkt=None), geolocation="", unplaced=why)


def spline_points(place: Georeference, crs: str | None) -> tuple[tuple[Gcp, ...], str]:
    """Return the GCPs that a spline towards ``crs`` goes through, and the WKT of the CRS that they are in.

    They are the raster's own, their longitudes in one turn about its middle. About a pole they jump all the same: no
    spline goes through a jump, and they are taken to ``crs`` first.

    Raises `UnsupportedRasterError` where fewer than 3 differ, some are not finite, or they jump in ``crs`` too.
    """
    gcps, wkt = place.gcps, str(place.gcps_crs)
    values = np.array(gcps, np.float64)
    if len(gcps) < 3 or not np.isfinite(values[:, :4]).all() or _on_one_line(values):
        raise _no_spline(place)
    around = turned(wkt, values[:, 2], near=place.middle).tolist()
    gcps = tuple((g[0], g[1], x, *g[3:]) for g, x in zip(gcps, around, strict=True))
    if not _jumps(gcps, wkt) or crs is None:
        return gcps, wkt
    xs, ys = transform_points(wkt, crs, *values[:, 2:4].T)
    moved = tuple((g[0], g[1], float(x), float(y), g[4]) for g, x, y in zip(gcps, xs, ys, strict=True))
    if _jumps(moved, crs) or not np.isfinite([xs, ys]).all():
        raise UnsupportedRasterError(
            f"expected a CRS without a jump where {place.name!r} lies about a pole, got {crs_name(crs)}. "
            "Choose a projected CRS, such as EPSG:3413 or EPSG:3031."
        )
    return moved, crs


def _on_one_line(gcps: Array) -> bool:
    """Whether pixels, or places on the ground, are all on one line, or at one point."""
    centred = (points - points.mean(axis=0) for points in (gcps[:, :2], gcps[:, 2:4]))
    spreads = (np.linalg.svd(points, compute_uv=False) for points in centred)
    return any(shorter <= 1e-6 * longer for longer, shorter in spreads)


def _jumps(gcps: tuple[Gcp, ...], wkt: str) -> bool:
    xs = [gcp[2] for gcp in gcps]
    return bool(parse_crs(wkt).is_geographic) and max(xs) - min(xs) > 180.0


def _no_spline(place: Georeference) -> UnsupportedRasterError:
    return UnsupportedRasterError(
        "expected at least 3 ground control points that are not on one line and do not contradict each other, got "
        f"{len(place.gcps)} in {place.name!r}. Georeference the file, or leave out crs= to keep its own grid."
    )


def _spline(gcps: tuple[Gcp, ...]) -> Any:
    """Return the spline whose ``rowcol(cols, rows)`` is (y, x), and whose ``xy(ys, xs)`` is (cols, rows).

    Ground and pixels have changed places, because rasterio builds the spline from the ground to pixels,
    and GDAL's warper inverts the one from pixels to the ground. They are two functions: between the noisy
    points of a Sentinel-1 SLC they are 0.6 pixels apart.
    """
    return GCPTransformer([GroundControlPoint(y, x, col, row) for row, col, x, y, _ in gcps], tps=True)


def check_placed(place: Georeference, crs: str | None) -> None:
    """Raise `UnsupportedRasterError`, with the remedy, where nothing places a raster's pixels in ``crs``."""
    if place.uses_gcps:
        gcps, _ = spline_points(place, crs)
        values = np.array(gcps, np.float64)
        with _spline(gcps) as spline:
            cols, rows = spline.xy(values[:, 3], values[:, 2], offset="ul")
        off = max(np.abs(rows - values[:, 0]).max(), np.abs(cols - values[:, 1]).max())
        if not off <= _GCP_RESIDUAL:  # NaN too
            raise _no_spline(place)
    elif not place.grid.is_georeferenced:
        got, remedy = place.unplaced or "neither", "Georeference it"
        if place.geolocation == "rpcs":
            got = "rational polynomials (RPC)"
            remedy = "Orthorectify it with a DEM first (gdalwarp -rpc -to RPC_DEM=DEM.tif)"
        raise UnsupportedRasterError(
            f"expected a raster with a CRS or ground control points, got {place.name!r} with {got}. "
            f"{remedy}, or leave out crs= to keep its own grid."
        )


def locate(place: Georeference, grid: Grid, rows: Array, cols: Array) -> tuple[Array, Array]:
    """Return (rows, cols) in a raster of pixel positions of a grid, float64, shapes kept.

    Positions are fractional with (0, 0) at the outer corner. Not finite where there is none. Longitudes are counted
    from the raster's middle: a seam is half a turn away from it. Inverse: `project`.
    """
    gcps, wkt = spline_points(place, grid.crs_wkt) if place.uses_gcps else ((), place.crs_wkt)
    xs, ys = grid.to_xy(np.asarray(rows, np.float64), np.asarray(cols, np.float64))
    if grid.crs_wkt is not None and wkt is not None:
        xs, ys = transform_points(grid.crs_wkt, wkt, xs, ys)
        xs = turned(wkt, xs, near=place.middle)
    if not gcps:
        with np.errstate(invalid="ignore"):  # Inf in, NaN out: no position either way
            return place.grid.to_pixels(xs, ys)
    out = np.full((2, xs.size), np.inf)
    finite = np.isfinite(xs.ravel()) & np.isfinite(ys.ravel())
    if finite.any():
        with _spline(gcps) as spline:
            out[::-1, finite] = spline.xy(ys.ravel()[finite], xs.ravel()[finite], offset="ul")
    return out[0].reshape(xs.shape), out[1].reshape(xs.shape)


def project(place: Georeference, crs: str | None, rows: Array, cols: Array) -> tuple[Array, Array]:
    """Return (x, y) in ``crs`` of pixel positions of a raster, float64, shapes kept. Inverse: `locate`.

    Longitudes are in one turn about the raster's middle: they may lie beyond 180, and do not jump there.
    """
    shape = np.shape(rows)
    # the middle comes along, so that all positions are in its turn
    rows, cols = (np.append(v, n / 2) for v, n in zip((rows, cols), place.grid.shape, strict=True))
    wkt = place.crs_wkt
    if place.uses_gcps:
        gcps, wkt = spline_points(place, crs)
        with _spline(gcps) as spline:
            ys, xs = spline.rowcol(cols, rows, op=np.positive)
    else:
        xs, ys = place.grid.to_xy(rows, cols)
    if crs is not None and wkt is not None and not is_same_crs(wkt, crs):
        xs, ys = transform_points(wkt, crs, xs, ys)
        xs = turned(crs, xs, near=float(xs[-1]))
    return np.reshape(xs[:-1], shape), np.reshape(ys[:-1], shape)


def onto(place: Georeference, grid: Grid, rows: Array, cols: Array) -> tuple[Array, Array]:
    """Return (rows, cols) in a grid of pixel positions of a raster, float64, shapes kept; each in the grid's turn."""
    xs, ys = project(place, grid.crs_wkt, rows, cols)
    xs = turned(grid.crs_wkt, xs, near=Georeference(grid=grid).middle)
    with np.errstate(invalid="ignore"):
        return grid.to_pixels(xs, ys)


def in_turn_of(grid: Grid, other: Grid) -> Grid:
    """Return a grid moved by whole turns to where another of its CRS counts its longitudes; the same ground."""
    x = Georeference(grid=grid).middle
    moved = float(turned(grid.crs_wkt, np.array(x), near=Georeference(grid=other).middle)) - x
    return moved_by(grid, moved)


def moved_by(grid: Grid, across: float) -> Grid:
    """Return a grid whose x is larger by ``across``."""
    a, b, c, d, e, f = grid.transform
    return replace(grid, transform=(a, b, c + across, d, e, f)) if across and math.isfinite(across) else grid


def is_affine_to(place: Georeference, grid: Grid) -> bool:
    """Whether an affine alone takes pixels of a grid to a raster's: one CRS, and no seam of longitudes between."""
    if place.uses_gcps or not is_same_crs(place.crs_wkt, grid.crs_wkt):
        return False
    (low, _, high, _), (left, _, right, _) = place.grid.bbox, grid.bbox
    return turns_onto(grid.crs_wkt, (low, high), (left, right)) in ((), (0.0,))


def bbox_in(place: Georeference, crs: str | None) -> tuple[float, float, float, float]:
    """Return (x_min, y_min, x_max, y_max) of a raster's edges in the units of ``crs``.

    Points without a position there are left out; raises `UnsupportedRasterError` where no point has one.
    """
    xs, ys = project(place, crs, *edge_points(place.grid))
    finite = np.isfinite(xs) & np.isfinite(ys)
    if not finite.any():
        raise UnsupportedRasterError(
            f"expected a raster that lies within {crs_name(crs)}, got {place.name!r} outside of it. "
            "Choose a CRS that covers it."
        )
    xs, ys = xs[finite], ys[finite]
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())


def edge_points(grid: Grid) -> tuple[Array, Array]:
    """Return (rows, cols), (260,) float64 each, of points along the outer edges of a grid."""
    along = np.linspace(0.0, 1.0, _EDGE_POINTS)
    none, rows, cols = 0 * along, grid.height * along, grid.width * along
    bottom, right = grid.height + none, grid.width + none
    return np.concatenate([none, rows, bottom, rows]), np.concatenate([cols, right, cols, none])


def covering(places: Iterable[Georeference], *, crs: str, pixel_size: float) -> Grid:
    """Return the smallest north-up grid of ``crs`` that covers all rasters, its edges on whole pixel sizes.

    ``crs`` is a code such as ``EPSG:32633``, or WKT; ``pixel_size`` is width and height of a pixel in its units.
    Of longitudes, its left edge is at -180 or east of it, and below 180: across 180 they go on, to 180.3 say.

    Raises `InvalidInputError` where there are no rasters, ``crs`` is unknown, or the pixel size is not positive;
    `UnsupportedRasterError` where a raster has no position in ``crs``.
    """
    wkt = crs_wkt(crs)
    boxes = []
    for place in places:
        check_placed(place, wkt)
        boxes.append(bbox_in(place, wkt))
    if not boxes:
        raise InvalidInputError("expected at least one raster to cover, got none. Give the files.")
    lefts, bottoms, rights, tops = (np.array(v) for v in zip(*boxes, strict=True))
    turn, near = turn_of(wkt), float(lefts[0])
    near -= 0.0 if turn is None else turn * math.floor(near / turn + 0.5)
    wide, lefts = rights - lefts, turned(wkt, lefts, near=near)
    return Grid.from_bounds(
        x_min=float(lefts.min()), y_min=float(bottoms.min()), x_max=float((lefts + wide).max()),
        y_max=float(tops.max()), pixel_size=pixel_size, crs_wkt=wkt,
    )  # fmt: skip
