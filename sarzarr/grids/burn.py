"""Polygons on a grid: which of its pixels they cover.

Edges are straight in the CRS that polygons are drawn in, as GeoJSON (RFC 7946, section 3.1.1) and GeoPackage say.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from affine import Affine
from rasterio.features import rasterize

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.grids.crs import crs_name, transform_points, turn_of, turned, turns_onto
from sarzarr.grids.georeference import Georeference, edge_points, project
from sarzarr.grids.polygon_files import Rings
from sarzarr.grids.region import clipped_ring
from sarzarr.grids.window import Window
from sarzarr.rasters import without_place_warnings

BEND: Final = 0.05
"""Pixels by which an edge that is straight in the polygons' CRS may be off on the grid."""
_HALVINGS: Final = 20
_BESIDE: Final = Affine(1, 0, 1, 0, 1, 1)
"""Pixels are counted from 1: rasterio warns of transforms that are none."""
_TILE: Final = (256, 2048)
"""Rows and columns that are burnt at once, on a lattice of the grid: so no window's pixels depend on its cut."""
_AROUND: Final = 0.05
"""Share of a scene's extent by which polygons reach beyond it before they are cut off; of a small one, pixels."""
_PIXELS_AROUND: Final = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class BurntPolygons:
    """Polygons in pixels of a grid, and the value of each; later ones are on top of earlier ones."""

    rings: tuple[Rings, ...] = field(repr=False)
    """Of each polygon; x are columns and y rows, from the outer corner of the grid's first pixel."""
    values: tuple[int, ...] = field(repr=False)
    """The value of each polygon's pixels; 0 is outside of all."""
    dtype: str
    """``uint8`` or ``uint16``."""
    all_touched: bool
    """Whether a pixel counts that a polygon touches; else one whose centre it covers."""

    @cached_property
    def _boxes(self) -> Array:
        """(n, 4) float64: x_min, y_min, x_max, y_max of each polygon."""
        outer = [rings[0] for rings in self.rings]
        return np.array([[*o.min(axis=0), *o.max(axis=0)] for o in outer]).reshape(-1, 4)

    def window(self, *, row: int, col: int, height: int, width: int) -> Array:
        """Return the values over a window, (height, width) of ``dtype``."""
        out = np.zeros((height, width), self.dtype)
        window, (rows, cols) = Window(row=row, col=col, height=height, width=width), _TILE
        for top in range(row // rows * rows, row + height, rows):
            for left in range(col // cols * cols, col + width, cols):
                held = window.intersection(Window(row=top, col=left, height=rows, width=cols))
                tile = self._tile(top, left)
                if tile is not None:
                    out[held.within(window)] = tile[held.moved(-top, -left).slices]
        return out

    def _tile(self, top: int, left: int) -> Array | None:
        """Return the values of a tile; None where no polygon lies on it."""
        rows, cols = _TILE
        x_min, y_min, x_max, y_max = self._boxes.T
        near = (x_min <= left + cols) & (x_max >= left) & (y_min <= top + rows) & (y_max >= top)
        box = left - 2.0, top - 2.0, left + cols + 2.0, top + rows + 2.0
        shapes = []
        for i in np.flatnonzero(near).tolist():
            rings = [
                ring
                for ring in (clipped_ring(ring, box[:2], box[2:]) for ring in self.rings[i])
                if len(ring) > 2
            ]
            if rings:
                closed = [(np.concatenate([r, r[:1]]) - (left - 1, top - 1)).tolist() for r in rings]
                shapes.append(({"type": "Polygon", "coordinates": closed}, self.values[i]))
        if not shapes:
            return None
        with without_place_warnings():  # rasterio changes the filters, too
            burnt: Array = rasterize(
                shapes, out_shape=_TILE, dtype=self.dtype, all_touched=self.all_touched, transform=_BESIDE
            )
        return burnt


def burn(
    polygons: Sequence[Rings],
    values: Sequence[int],
    crs: str,
    place: Georeference,
    *,
    dtype: str,
    all_touched: bool,
) -> BurntPolygons:
    """Return polygons of a CRS (WKT) on the grid of a scene; those that lie elsewhere are left out.

    Raises `UnsupportedRasterError` where no affine transform ties the scene to the ground, or a polygon beside it has
    no place in its CRS; `InvalidInputError` where an edge crosses 180 degrees.
    """
    if not place.grid.is_georeferenced or place.uses_gcps:
        raise UnsupportedRasterError(
            f"expected a scene with a CRS and a transform for polygons, got {place.name!r} in image geometry. Ingest "
            "it onto the ground first: --crs EPSG:CODE --pixel-size METRES --replace."
        )
    box, to_pixels = _box_of(place, crs), _to_pixels(crs, place)
    rings, kept = [], []
    for polygon, value in zip(polygons, values, strict=True):
        for part in _near(polygon, crs, box):
            drawn = tuple(_drawn(ring, to_pixels) for ring in part)
            if not all(np.isfinite(ring).all() for ring in drawn):
                raise UnsupportedRasterError(
                    f"expected polygons that have a place in {crs_name(place.grid.crs_wkt)}, got one beside "
                    f"{place.name!r} without. Mend it, or cut it at the CRS's border."
                )
            rings.append(drawn)
            kept.append(value)
    return BurntPolygons(rings=tuple(rings), values=tuple(kept), dtype=dtype, all_touched=all_touched)


def _box_of(place: Georeference, crs: str) -> tuple[float, float, float, float]:
    """Return x_min, y_min, x_max, y_max in a CRS around a scene, a little wider than it."""
    xs, ys = project(place, crs, *edge_points(place.grid))
    finite = np.isfinite(xs) & np.isfinite(ys)
    if not finite.any():
        raise UnsupportedRasterError(
            f"expected a scene that lies within {crs_name(crs)}, got {place.name!r} outside of it. Reproject the "
            "polygons."
        )
    ys, xs = ys[finite], turned(crs, xs[finite], near=float(xs[finite][0]))
    x_min, y_min, x_max, y_max = float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
    turn = turn_of(crs)
    for pole in (90.0, -90.0) if turn == 360.0 else ():
        col, row = _to_pixels(crs, place)(np.array([[0.0, pole]]))[0]
        if 0 <= col <= place.grid.width and 0 <= row <= place.grid.height:
            x_min, x_max, y_min, y_max = -180.0, 180.0, min(y_min, pole), max(y_max, pole)
    share = max(_AROUND, _PIXELS_AROUND / min(place.grid.shape))
    across, down = share * (x_max - x_min), share * (y_max - y_min)
    return x_min - across, y_min - down, x_max + across, y_max + down


def _near(polygon: Rings, crs: str, box: tuple[float, float, float, float]) -> Iterator[Rings]:
    """Yield the parts of a polygon near a box, whole turns of longitude taken out."""
    outer = polygon[0]
    (x_min, y_min), (x_max, y_max) = outer.min(axis=0), outer.max(axis=0)
    if y_min > box[3] or y_max < box[1]:
        return
    for move in turns_onto(crs, (float(x_min), float(x_max)), (box[0], box[2])):
        _check_seam(polygon, crs)
        rings = [clipped_ring(ring + np.array([move, 0.0]), box[:2], box[2:]) for ring in polygon]
        if len(rings[0]) > 2:
            yield tuple(ring for ring in rings if len(ring) > 2)


def _check_seam(polygon: Rings, crs: str) -> None:
    """Raise `InvalidInputError` where an edge is longer than half the way around, and is no edge of the map."""
    turn = turn_of(crs) or np.inf
    for ring in polygon:
        steps = np.abs(np.roll(ring[:, 0], -1) - ring[:, 0])
        if ((steps > turn / 2) & ~np.isclose(steps, turn)).any():
            raise InvalidInputError(
                f"expected polygons that are cut at 180 degrees (RFC 7946, section 3.1.9), got an edge over "
                f"{steps.max():g} of longitude. Cut them: ogr2ogr -wrapdateline OUT IN."
            )


def _to_pixels(crs: str, place: Georeference) -> Callable[[Array], Array]:
    """Return the function from positions (n, 2) of a CRS to columns and rows of a scene."""
    own = str(place.grid.crs_wkt)

    def at(points: Array) -> Array:
        xs, ys = transform_points(crs, own, points[:, 0], points[:, 1])
        with np.errstate(invalid="ignore"):
            rows, cols = place.grid.to_pixels(turned(own, xs, near=place.middle), ys)
        return np.stack([cols, rows], axis=1)

    return at


def _drawn(ring: Array, to_pixels: Callable[[Array], Array]) -> Array:
    """Return a ring (n, 2) in pixels, with as many points more as its edges need to be straight in its own CRS."""
    pixels = to_pixels(ring)
    for _ in range(_HALVINGS):
        middle = (ring + np.roll(ring, -1, axis=0)) / 2
        true = to_pixels(middle)
        with np.errstate(invalid="ignore"):
            off = np.abs(true - (pixels + np.roll(pixels, -1, axis=0)) / 2).max(axis=1)
        bent = off > BEND
        if not bent.any():
            break
        kept = np.stack([np.ones(len(ring), bool), bent], axis=1).reshape(-1)
        ring = np.stack([ring, middle], axis=1).reshape(-1, 2)[kept]
        pixels = np.stack([pixels, true], axis=1).reshape(-1, 2)[kept]
    return pixels
