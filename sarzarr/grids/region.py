"""Regions of the world, and the windows of rasters that share ground with them.

A region is brought onto a raster's pixels, where windows are boxes. Its edges are straight in its own CRS, as
those of GeoJSON are in longitude and latitude (RFC 7946, 3.1.1): they are followed in steps of a 256th of the
raster.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, MissingExtraError
from sarzarr.grids.crs import (
    LONLAT,
    crs_name,
    crs_wkt,
    parse_crs,
    transform_points,
    turn_of,
    turned,
    turns_onto,
)
from sarzarr.grids.georeference import Georeference, locate, project
from sarzarr.grids.grid import WHOLE_PIXEL, Grid

NODES: Final = 17
"""Points along each axis of a raster that tell its extent in the CRS of a region."""
STEPS: Final = 256
"""Steps in which an edge across a whole raster is followed."""
_STEEP: Final = 1 / 12
"""Part of a turn from one node to the next at which a raster lies about a pole."""
_KINDS: Final = "a Polygon, a MultiPolygon, or a feature or collection of them"
_JSON: Final = (".geojson", ".json")
Rings = tuple[Array, ...]
"""(k, 2) float64 each: x and y of corners, the first not repeated."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GroundRegion:
    """Polygons in one CRS. Inside a part is what an odd number of its rings goes around."""

    parts: tuple[Rings, ...]
    """The rings of each polygon or multipolygon, holes among them."""
    crs_wkt: str
    """WKT2 of the CRS that they are in."""

    @classmethod
    def of_bounds(cls, bounds: Any) -> Self:
        """Return the region of ``(left, bottom, right, top)`` in degrees, or of such a tuple and a CRS.

        ``left`` above ``right`` goes across the antimeridian, as in GeoJSON. Raises `InvalidInputError` where
        they are no four numbers, ``bottom`` is not below ``top``, or a latitude is beyond a pole.
        """
        given, crs = _with_crs(bounds, LONLAT)
        try:
            if np.ndim(given) != 1:  # two numbers are no box and its CRS
                given, crs = bounds, LONLAT
            left, bottom, right, top = map(float, given)
        except (TypeError, ValueError):
            left = math.nan
        wkt = crs_wkt(crs)
        if not math.isnan(left) and left > right and (turn := turn_of(wkt)) is not None:
            right += turn
        if not (math.isfinite(left) and left < right < math.inf and -math.inf < bottom < top < math.inf):
            raise InvalidInputError(
                "expected bounds (left, bottom, right, top) with bottom below top, in longitude and latitude, got "
                f"{bounds!r:.120}. Of another CRS say which: bounds=((left, bottom, right, top), 'EPSG:32633')."
            )
        ring = np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
        return cls(parts=((_on_earth(ring, wkt),),), crs_wkt=wkt)

    @classmethod
    def of_polygon(cls, polygon: Any) -> Self:
        """Return the region of a geometry, or of a geometry and its CRS; longitude and latitude if left out.

        A geometry is a GeoJSON mapping, anything with ``__geo_interface__`` (its ``crs``, if it has one, counts), or
        the path of a file: GeoJSON, or what pyogrio reads (GeoPackage, shapefiles), in the file's CRS. Raises
        `InvalidInputError` where it has no polygons, `MissingExtraError` where pyogrio is needed and not installed.
        """
        given, crs = _with_crs(polygon, None)
        if isinstance(given, str | Path):
            given, told = _read_file(Path(given))
        else:
            own: Any = getattr(given, "crs", None)
            told = own.to_wkt() if hasattr(own, "to_wkt") else own
            given = getattr(given, "__geo_interface__", given)
        if told is None and isinstance(given, Mapping) and isinstance(given.get("crs"), Mapping):
            told = given["crs"].get("properties", {}).get("name")  # GeoJSON of 2008, which GDAL still writes
        wkt = crs_wkt(crs or told or LONLAT)
        try:
            parts = tuple(_parts(given))
        except (AttributeError, KeyError, TypeError, ValueError):
            parts = ()
        if not parts:
            raise InvalidInputError(
                f"expected {_KINDS}, as GeoJSON or with __geo_interface__, got {given!r:.120}. Buffer points and "
                "lines first."
            )
        return cls(parts=tuple(tuple(_on_earth(ring, wkt) for ring in part) for part in parts), crs_wkt=wkt)

    def chosen(self, place: Georeference, rows: Array, cols: Array, *, within: bool = False) -> Array:
        """Return (n,) bool: the windows of a located raster that share ground with the region, not its edge alone.

        ``rows`` and ``cols`` (2, n) are each window's first pixel, and the one after its last. With ``within``: those
        that lie wholly in one part. A thousandth of a pixel is not told apart. Where control points place the raster,
        the spline through them does, and heights between them can move what is chosen by hundreds of metres.
        """
        view = _View.of(place, self.crs_wkt)
        out = np.zeros(rows.shape[1], bool)
        if view is not None:
            for part in self.parts:
                out |= _judged(view.onto_pixels(view.edges(part)), rows, cols, within=within)
        return out


def _with_crs(given: Any, otherwise: str | None) -> tuple[Any, Any]:
    """Return what is given, and the CRS that stands beside it."""
    if isinstance(given, tuple) and len(given) == 2 and not isinstance(given[1], Mapping):
        crs = given[1]
        return given[0], str(crs.to_wkt()) if hasattr(crs, "to_wkt") else str(crs)
    return given, otherwise


def _on_earth(ring: Array, wkt: str) -> Array:
    """Return a ring; `InvalidInputError` where it has no area, is not finite, or degrees are beyond the earth."""
    turn = turn_of(wkt) if parse_crs(wkt).is_geographic else None
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise InvalidInputError(f"expected rings of 3 finite corners or more, got {ring.tolist()!r:.120}.")
    if turn is not None and (np.abs(ring[:, 1]).max() > turn / 4 or np.abs(ring[:, 0]).max() > 2 * turn):
        raise InvalidInputError(
            f"expected longitudes and latitudes of {crs_name(wkt)}, got x, y of {ring[0].tolist()}. Say the CRS "
            "beside them: bounds=((left, bottom, right, top), 'EPSG:32633'), polygon=(geometry, 'EPSG:32633')."
        )
    return ring


def _parts(geometry: Any) -> Iterator[Rings]:
    """Yield the rings of each polygon and multipolygon of a GeoJSON mapping; others raise `ValueError`."""
    match geometry["type"]:
        case "Polygon":
            yield tuple(map(_ring, geometry["coordinates"]))
        case "MultiPolygon":
            yield tuple(_ring(ring) for polygon in geometry["coordinates"] for ring in polygon)
        case "Feature":
            yield from _parts(geometry["geometry"])
        case "FeatureCollection":
            for feature in geometry["features"]:
                yield from _parts(feature)
        case "GeometryCollection":
            for one in geometry["geometries"]:
                yield from _parts(one)
        case _:
            raise ValueError


def _ring(corners: Any) -> Array:
    ring = np.array([corner[:2] for corner in corners], np.float64).reshape(-1, 2)
    return ring[:-1] if len(ring) and (ring[0] == ring[-1]).all() else ring


def _read_file(path: Path) -> tuple[Any, str | None]:
    """Return the GeoJSON mapping that a file holds, and its CRS; None of GeoJSON, which says it itself."""
    if not path.exists():
        raise InvalidInputError(f"expected a file of polygons, got nothing at {str(path)!r}. Mend the path.")
    if path.suffix.lower() in _JSON:
        try:
            return json.loads(path.read_text(encoding="utf-8-sig")), None
        except ValueError as error:
            raise InvalidInputError(
                f"expected GeoJSON in {str(path)!r}, got text that is none ({error})."
            ) from None
    try:
        import pyogrio
        import shapely
    except ImportError:
        raise MissingExtraError(
            f"pyogrio and shapely were expected to read {path.name!r}, got none. Install them: "
            "pip install 'sarzarr[vector]', or convert it: ogr2ogr polygons.geojson FILE."
        ) from None
    try:
        layers = pyogrio.list_layers(path)[:, 0].tolist()
        about, _, shapes, _ = (
            pyogrio.raw.read(path, columns=[]) if len(layers) == 1 else (None, None, (), None)
        )
    except pyogrio.errors.DataSourceError as error:
        raise InvalidInputError(f"expected polygons that GDAL reads in {str(path)!r}, got {error}.") from None
    if about is None:
        raise InvalidInputError(
            f"expected one layer in {path.name!r}, got {', '.join(layers)}. Write one to a file of its own: "
            f"ogr2ogr polygons.geojson {path.name} LAYER."
        )
    features = [shapely.from_wkb(shape).__geo_interface__ for shape in shapes]
    return {"type": "GeometryCollection", "geometries": features}, about["crs"]


@dataclass(frozen=True, eq=False, kw_only=True)
class _View:
    """A raster as a region's CRS sees it: where it lies there, and the way to its pixels."""

    place: Georeference
    """The raster."""
    crs_wkt: str
    """The region's CRS."""
    own: str
    """The CRS that the way leads through: the raster's, or one about the middle of its control points."""
    low: Array
    """(2,) the least x and y that may be the raster's; -Inf about a pole."""
    high: Array
    """(2,) the greatest."""
    middle: float
    """X of the raster's middle."""

    @classmethod
    def of(cls, place: Georeference, wkt: str) -> Self | None:
        """Return it; None where no point of the raster has a place in the CRS."""
        own = _own_crs(place)
        rows, cols = np.meshgrid(*(np.linspace(0, n, NODES) for n in place.grid.shape), indexing="ij")
        xs, ys = transform_points(own, wkt, *project(place, own, rows, cols))
        finite = np.isfinite(xs) & np.isfinite(ys)
        if not finite.any():
            return None
        middle = float(xs[NODES // 2, NODES // 2])
        middle = middle if math.isfinite(middle) else float(xs[finite][0])
        nodes = np.stack([turned(wkt, xs, near=middle), ys])
        nodes[:, ~finite] = np.nan
        along = [np.abs(np.concatenate([np.diff(v, axis=a).ravel() for a in (0, 1)])) for v in nodes]
        steps = np.array([v[np.isfinite(v)].max(initial=0.0) for v in along])
        low, high = (f(nodes.reshape(2, -1), axis=1) for f in (np.nanmin, np.nanmax))
        low, high = low - steps, high + steps
        turn = turn_of(wkt)
        if turn is not None and steps[0] > _STEEP * turn:  # about a pole, whose latitude no node may have
            is_north = np.nanmean(nodes[1]) > 0
            low = np.array([-np.inf, low[1] if is_north else -np.inf])
            high = np.array([np.inf, np.inf if is_north else high[1]])
        return cls(place=place, crs_wkt=wkt, own=own, low=low, high=high, middle=middle)

    def edges(self, part: Rings) -> Array:
        """Return (m, 2, 2): the ends (x, y) of the edges of a part near the raster, in its turn.

        Edges that two rings share are none: those of a seam that GeoJSON cuts at 180 degrees, and poles, which
        are points.
        """
        turn = turn_of(self.crs_wkt)
        edges = [np.empty((0, 2, 2))]
        for ring in part:
            moves: tuple[float, ...] = (0.0,)
            if turn is not None and math.isfinite(self.low[0]):
                span = float(ring[:, 0].min()), float(ring[:, 0].max())
                moves = turns_onto(self.crs_wkt, span, (float(self.low[0]), float(self.high[0])))
            for move in moves:
                near = _clipped(ring + np.array([move, 0.0]), self.low, self.high)
                edges.append(np.stack([near, np.roll(near, -1, axis=0)], axis=1))
        every = np.concatenate(edges)
        ends = every.copy()
        if turn is not None and not math.isfinite(self.low[0]):
            ends[..., 0] %= turn  # about a pole all turns are one
        order = np.lexsort((ends[..., 1], ends[..., 0]), axis=1)
        keys = np.round(np.take_along_axis(ends, order[..., None], axis=1), 9).reshape(-1, 4)
        _, key, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        is_edge = counts[key.reshape(-1)] % 2 == 1
        if turn is not None and parse_crs(self.crs_wkt).is_geographic:
            is_edge &= np.abs(every[..., 1]).min(axis=1) < turn / 4
        kept: Array = every[is_edge]
        return kept

    def onto_pixels(self, edges: Array) -> Array:
        """Return (k, 2, 2): ends (row, col) of the steps of edges on the raster's pixels, where they have a place."""
        if not len(edges):
            return edges
        turn = turn_of(self.crs_wkt)
        extent = self.high - self.low
        step = extent / STEPS if np.isfinite(extent).all() else np.full(2, (turn or 0.0) / (2 * 360))
        steps = np.maximum(np.ceil((np.abs(edges[:, 1] - edges[:, 0]) / step).max(axis=1)), 1).astype(
            np.int64
        )
        edge = np.repeat(np.arange(len(edges)), steps + 1)
        number = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - steps - 1, steps + 1)
        first, last = edges[edge, 0], edges[edge, 1]
        points = first + (last - first) * (number / steps[edge])[:, None]
        is_last = number == steps[edge]
        points[is_last] = last[is_last]
        pixels = np.stack(self._pixels(*points.T), axis=1)
        ends = np.stack([pixels[:-1][~is_last[:-1]], pixels[1:][~is_last[:-1]]], axis=1)
        placed: Array = ends[np.isfinite(ends).all(axis=(1, 2))]
        return placed

    def _pixels(self, xs: Array, ys: Array) -> tuple[Array, Array]:
        """Return (rows, cols) of positions in the region's CRS; those of longitudes go on across a seam."""
        x, y = transform_points(self.crs_wkt, self.own, xs, ys)
        turn, other = turn_of(self.own), turn_of(self.crs_wkt)
        with np.errstate(invalid="ignore"):
            if turn is not None:
                near = self.place.middle + (0.0 if other is None else (xs - self.middle) * turn / other)
                x = x + turn * np.rint((near - x) / turn)
            if not self.place.uses_gcps:
                return self.place.grid.to_pixels(x, y)
        return locate(self.place, Grid(height=1, width=1, crs_wkt=self.own), y, x)


def _own_crs(place: Georeference) -> str:
    """Return the WKT of a CRS in which a raster has no seam: its own, or one about its control points."""
    if not place.uses_gcps:
        return str(place.grid.crs_wkt)
    xs, ys = np.array(place.gcps, np.float64)[:, 2:4].T
    lon, lat = np.radians(transform_points(str(place.gcps_crs), LONLAT, xs, ys))
    x, y, z = (v.mean() for v in (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))
    middle = math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))
    return crs_wkt(f"+proj=laea +lat_0={middle[0]:.6f} +lon_0={middle[1]:.6f} +datum=WGS84")


def _clipped(ring: Array, low: Array, high: Array) -> Array:
    """Return the part of a ring (k, 2) within a box: corner by corner, side by side (Sutherland and Hodgman 1974).

    Its further edges lie on the box's sides (doi:10.1145/360767.360802).
    """
    for axis in (0, 1):
        for sign, bound in ((1.0, low[axis]), (-1.0, high[axis])):
            depth = sign * (ring[:, axis] - bound)
            is_inside = depth >= 0
            if is_inside.all():
                continue
            following, next_depth = np.roll(ring, -1, axis=0), np.roll(depth, -1)
            leaves = is_inside != np.roll(is_inside, -1)
            share = np.divide(depth, depth - next_depth, out=np.zeros_like(depth), where=leaves)
            crossing = ring + (following - ring) * share[:, None]
            crossing[:, axis] = bound
            both = np.stack([ring, crossing], axis=1).reshape(-1, 2)
            ring = both[np.stack([is_inside, leaves], axis=1).reshape(-1)]
    return ring


def _judged(edges: Array, rows: Array, cols: Array, *, within: bool) -> Array:
    """Return (n,) bool: the windows that share pixels with the inside of closed edges (m, 2, 2) of (row, col).

    A band of windows of the same rows is judged at once: an edge crosses those that its part within the band reaches.
    A window that none crosses is as its middle: inside where an odd number of edges is to its right.
    """
    out = np.zeros(rows.shape[1], bool)
    left, right = cols[0] + WHOLE_PIXEL, cols[1] - WHOLE_PIXEL
    order = np.lexsort(rows)
    bands = np.split(order, np.flatnonzero(np.diff(rows[:, order]).any(axis=0)) + 1)
    (y, x), (dy, dx) = edges[:, 0].T, (edges[:, 1] - edges[:, 0]).T
    least, most = np.minimum(y, y + dy), np.maximum(y, y + dy)
    with np.errstate(divide="ignore", invalid="ignore"):
        for mine in bands if len(order) and len(edges) else ():
            first, last = left[mine], right[mine]
            top, bottom = rows[0, mine[0]] + WHOLE_PIXEL, rows[1, mine[0]] - WHOLE_PIXEL
            near = (most > top) & (least < bottom)
            shares = [np.clip((line - y[near]) / dy[near], 0, 1) for line in (top, bottom)]
            is_flat = dy[near] == 0
            reach = np.sort(
                [x[near] + np.where(is_flat, i, s) * dx[near] for i, s in enumerate(shares)], axis=0
            )
            begins, ends = np.sort(reach[0]), np.sort(reach[1])
            is_crossed = np.searchsorted(begins, last) > np.searchsorted(ends, first, "right")
            middle = (top + bottom) / 2
            spans = (least <= middle) & (most > middle)
            crossings = np.sort(x[spans] + (middle - y[spans]) / dy[spans] * dx[spans])
            to_the_right = len(crossings) - np.searchsorted(crossings, (first + last) / 2)
            is_inside = to_the_right % 2 == 1
            out[mine] = is_inside & ~is_crossed if within else is_inside | is_crossed
    return out
