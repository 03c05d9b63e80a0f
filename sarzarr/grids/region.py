"""Regions of the world, and the windows of rasters that share ground with them.

A region is brought onto a raster's pixels, where windows are boxes. Its edges are straight in its own CRS, as
those of GeoJSON are in longitude and latitude (RFC 7946, 3.1.1): they are followed in steps of a 256th of the
raster.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
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
from sarzarr.grids.polygon_files import Rings, geojson_polygons, read_polygon_features

NODES: Final = 17
"""Points along each axis of a raster that tell its extent in the CRS of a region."""
STEPS: Final = 256
"""Steps in which an edge across a whole raster is followed."""
_STEEP: Final = 1 / 12
"""Part of a turn from one node to the next at which a raster lies about a pole."""
_ONE_TABLE: Final = "Write one to a file of its own: ogr2ogr OUT.geojson IN TABLE."


@dataclass(frozen=True, eq=False, kw_only=True)
class GroundRegion:
    """Polygons in one CRS. Inside a part is what its rings go around, holes the other way, not to naught."""

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
        _check_on_earth(ring, wkt)
        return cls(parts=((ring,),), crs_wkt=wkt)

    @classmethod
    def of_polygon(cls, polygon: Any) -> Self:
        """Return the region of a geometry, or of a geometry and its CRS; longitude and latitude if left out.

        A geometry is a GeoJSON mapping, anything with ``__geo_interface__`` (its ``crs``, if it has one, counts), or
        the path of a file. Raises as `sarzarr.grids.polygon_files.read_polygon_features`; `InvalidInputError` where
        degrees are beyond the earth.
        """
        given, crs = _with_crs(polygon, None)
        if isinstance(given, str | Path):
            found = read_polygon_features(Path(given), crs=crs, many=_ONE_TABLE)
        else:
            own: Any = getattr(given, "crs", None)
            crs = crs or (own.to_wkt() if hasattr(own, "to_wkt") else own)
            given = getattr(given, "__geo_interface__", given)
            found = geojson_polygons(given, crs=crs, where="GeoJSON or __geo_interface__")
        parts = tuple(
            tuple(_turning(ring, hole=i > 0) for rings in shape for i, ring in enumerate(rings))
            for shapes in found.shapes
            for shape in shapes
        )
        for ring in (ring for part in parts for ring in part):
            _check_on_earth(ring, found.crs_wkt)
        return cls(parts=parts, crs_wkt=found.crs_wkt)

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


def _turning(ring: Array, *, hole: bool) -> Array:
    """Return a ring that turns left, or right around a hole."""
    (x, y), (next_x, next_y) = (ring - ring[0]).T, (np.roll(ring, -1, axis=0) - ring[0]).T
    return ring[::-1] if (np.sum(x * next_y - next_x * y) < 0) != hole else ring


def _check_on_earth(ring: Array, wkt: str) -> None:
    turn = turn_of(wkt) if parse_crs(wkt).is_geographic else None
    if turn is not None and (np.abs(ring[:, 1]).max() > turn / 4 or np.abs(ring[:, 0]).max() > 2 * turn):
        raise InvalidInputError(
            f"expected longitudes and latitudes of {crs_name(wkt)}, got x, y of {ring[0].tolist()}. Say the CRS "
            "beside them: bounds=((left, bottom, right, top), 'EPSG:32633'), polygon=(geometry, 'EPSG:32633')."
        )


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

        Edges that two rings go along in opposite ways are none: those of a seam that GeoJSON cuts at 180 degrees; nor
        are poles, which are points.
        """
        turn = turn_of(self.crs_wkt)
        edges = [np.empty((0, 2, 2))]
        for ring in part:
            moves: tuple[float, ...] = (0.0,)
            if turn is not None and math.isfinite(self.low[0]):
                span = float(ring[:, 0].min()), float(ring[:, 0].max())
                moves = turns_onto(self.crs_wkt, span, (float(self.low[0]), float(self.high[0])))
            for move in moves:
                near = clipped_ring(ring + np.array([move, 0.0]), self.low, self.high)
                edges.append(np.stack([near, np.roll(near, -1, axis=0)], axis=1))
        every = np.concatenate(edges)
        ends = np.round(every, 9)
        if turn is not None and not math.isfinite(self.low[0]):
            ends[..., 0] %= turn  # about a pole all turns are one
        order = np.lexsort((every[..., 0], ends[..., 1], ends[..., 0]), axis=1)
        keys = np.take_along_axis(ends, order[..., None], axis=1).reshape(-1, 4)
        _, key = np.unique(keys, axis=0, return_inverse=True)
        key = key.reshape(-1)
        is_edge = np.bincount(key, weights=1.0 - 2.0 * order[:, 0])[key] != 0
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


def clipped_ring(ring: Array, low: Sequence[float] | Array, high: Sequence[float] | Array) -> Array:
    """Return the part (m, 2) of a ring (k, 2) within a box, by Sutherland and Hodgman (doi:10.1145/360767.360802).

    It is cut corner by corner and side by side; further edges lie on the box's sides.
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
    A window that none crosses is as its middle: inside where the edges to its right, up and down, do not cancel.
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
            crossings = x[spans] + (middle - y[spans]) / dy[spans] * dx[spans]
            by_place = np.argsort(crossings)
            winding = np.concatenate([[0], np.cumsum(np.sign(dy[spans][by_place]))])
            to_the_left = np.searchsorted(crossings[by_place], (first + last) / 2)
            is_inside = winding[to_the_left] != winding[-1]
            out[mine] = is_inside & ~is_crossed if within else is_inside | is_crossed
    return out
