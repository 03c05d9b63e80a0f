"""Plans of a raster's way onto a grid: passed through where its pixels are the grid's, else warped.

A plan is pure, printable and picklable; `sarzarr.grids.warp.read` reads what it describes.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.grids.burn import BurntPolygons
from sarzarr.grids.crs import (
    LONLAT,
    crs_name,
    is_same_crs,
    parse_crs,
    transform_points,
    turn_of,
    turned,
    turns_onto,
)
from sarzarr.grids.georeference import (
    Georeference,
    bbox_in,
    check_placed,
    edge_points,
    is_affine_to,
    locate,
    moved_by,
    onto,
)  # fmt: skip
from sarzarr.grids.grid import Grid
from sarzarr.grids.window import Window
from sarzarr.pixels.calibration import Calibration, Field
from sarzarr.rasters import Unmeasured, measured_dtype

Fill = float | int | None
GDAL_TYPES: Final = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}
"""GDAL's name of each dtype that a warp can work in."""
LAYER: Final = "layer"
"""Representation of a raster that is warped as it is: a mask, a DEM, an angle."""
_REPRESENTATIONS: Final = (*(r for r in cv.Representation if r != cv.Representation.NORMALIZED), LAYER)
METHODS: Final = {
    "backscatter": ("nearest", "average", "bilinear", "cubic", "lanczos", "rms"),
    "classes": ("mode", "nearest", "min", "max"),
    "continuous": ("bilinear", "average", "nearest", "cubic", "lanczos", "rms", "min", "max", "med"),
    "counts": ("sum", "nearest", "average", "mode", "min", "max", "med"),
}
"""The methods that suit each kind of data, the default first."""
OVERSHOOTING: Final = ("cubic", "lanczos")
"""Methods whose weights are partly negative: beside a bright target their power can fall below zero."""
FAST_TOLERANCE: Final = 1e-4
"""Source pixels by which positions may be off between two CRSs, unless they are asked to be exact."""
GCP_TOLERANCE: Final = 1e-2
"""The same for ground control points: a spline through them misses a Sentinel-1 GRD by 0.03 pixels itself,
and each of its positions costs 40 times what a pixel's resampling does."""
COARSENING: Final = 1.05
"""Source pixels per target pixel, along one side, from which a grid is coarser than its source."""
MARGIN: Final = 8
"""Source pixels that are read around what a window needs."""
_SOURCE_BYTES: Final = 128 * 2**20
"""What the source pixels of one warped window may take, in all their copies."""
_RADIUS: Final = {"cubic": 2, "lanczos": 3}
"""Reach of a kernel, in pixels of the coarser side, where it is more than 1."""


@dataclass(frozen=True, kw_only=True)
class WarpSource:
    """One band of a GeoTIFF, of any dtype in `GDAL_TYPES` or complex64, and the place of its pixels."""

    path: str
    """The GeoTIFF, a local file."""
    band: int
    """Its band, from 1."""
    representation: str
    """``power``, ``amplitude``, ``db`` or ``complex``; ``layer`` for a raster that is warped as it is."""
    dtype: str
    """NumPy dtype that `sarzarr.rasters.read_window` gives: ``uint16``, ``float32``, ``complex64``, ..."""
    georeference: Georeference
    """The place of its pixels."""
    nodata: float | None = None
    """The sentinel; None where there is none. NaN becomes None: NaN and Inf are invalid in any case."""
    calibration: Calibration | None = None
    """The way of its power to backscatter, which is what is warped; None where it is that."""
    field: Field | BurntPolygons | None = None
    """What its pixels are, where they are computed, and the path is that of its annotation; None: read there."""
    unmeasured: Unmeasured | None = None
    """What else tells which pixels nobody measured; a layer with a mask has a nodata value, which stands there."""
    has_chosen_nodata: bool = False
    """Whether ``nodata`` was chosen for a mask, and declared by nobody: no measured pixel may have it."""

    def __post_init__(self) -> None:
        if self.representation not in _REPRESENTATIONS:
            raise InvalidInputError(
                f"expected a representation of {', '.join(_REPRESENTATIONS)}, got {self.representation!r}. "
                "Denormalize normalized values first."
            )
        if self.nodata is not None and math.isnan(self.nodata):
            object.__setattr__(self, "nodata", None)  # NaN equals nothing, and a plan must equal its copy
        is_complex = np.dtype(self.dtype).kind == "c"
        if is_complex != (self.representation == cv.Representation.COMPLEX):
            raise InvalidInputError(
                f"representation 'complex' belongs to complex values, got {self.representation!r} for "
                f"{self.dtype}. Complex is never warped: its power is."
            )

    @property
    def grid(self) -> Grid:
        """The grid of its own pixels."""
        return self.georeference.grid

    @property
    def is_layer(self) -> bool:
        """Whether its values are kept as they are, and are not backscatter."""
        return self.representation == LAYER

    @property
    def has_untold_zeros(self) -> bool:
        """Whether pixels of zero power may be fill: no tag and no mask tells. No dB is zero power."""
        is_masked = self.unmeasured is not None and self.unmeasured.mask is not None
        return self.representation != cv.Representation.DB and self.nodata is None and not is_masked

    @property
    def read_dtype(self) -> np.dtype[Any]:
        """The dtype that its pixels are read in: of backscatter with a mask, floats, which can be NaN."""
        return (
            np.dtype(self.dtype) if self.is_layer else measured_dtype(np.dtype(self.dtype), self.unmeasured)
        )

    @property
    def sentinel(self) -> float | int:
        """The value that says "no data": float for float32 and float64, else int; NaN where there is none."""
        nodata, dtype = self.nodata, np.dtype(self.dtype)
        if nodata is None or dtype.kind == "c":
            return math.nan
        if dtype.kind == "f":
            return float(dtype.type(nodata))
        limits = np.iinfo(dtype)
        is_held = math.isfinite(nodata) and nodata == int(nodata) and limits.min <= nodata <= limits.max
        return int(nodata) if is_held else math.nan


@dataclass(frozen=True, kw_only=True)
class Passthrough:
    """A grid that shares its source's pixels: reading copies them, untouched."""

    source: WarpSource
    """What is read."""
    grid: Grid
    """Where it goes."""
    row: int
    """Row in the source of the grid's first pixel; negative where the grid begins outside of it."""
    col: int
    """Column in the source, likewise."""
    fill: float | int = field(compare=False)
    """What stands outside of the source: its nodata, else NaN; 0 for integers and complex without a tag."""

    @property
    def dtype(self) -> str:
        """NumPy dtype of what `read_warped` gives, ``uint16`` say: the source's own."""
        return str(self.source.read_dtype)

    @property
    def is_identity(self) -> bool:
        """Whether the grid is the source's own, pixel for pixel."""
        return (self.row, self.col, self.grid.shape) == (0, 0, self.source.grid.shape)

    @property
    def geolocation(self) -> str:
        """The tie of pixels to the ground, see `conventions.GEOLOCATION`."""
        return Georeference(grid=self.grid).geolocation

    @property
    def attrs(self) -> dict[str, str | float]:
        """Attributes that say what was done: nothing."""
        return {}

    def __str__(self) -> str:
        part = "its own grid" if self.is_identity else f"a window from row {self.row}, column {self.col}"
        return f"{Path(self.source.path).name} band {self.source.band}: passed through, {part}"


@dataclass(frozen=True, kw_only=True)
class WarpPlan:
    """A warp of one band onto a grid of (height, width) pixels."""

    source: WarpSource
    """What is read."""
    grid: Grid
    """Where it goes."""
    kind: str
    """``backscatter``, ``classes``, ``continuous`` or ``counts``."""
    method: str
    """The resampling: one of `METHODS`."""
    tolerance: float
    """Source pixels by which positions may be off; 0 is exact."""
    scale: tuple[float, float]
    """(x, y) target pixels per source pixel: below 1 where the grid is coarser, and kernels widen. One pair for the
    whole grid: GDAL would choose it anew from the shape of each window, a seam at each border."""
    dtype: str
    """NumPy dtype of the result."""
    fill: Fill = field(compare=False)
    """What stands where nothing is known: NaN for backscatter; None where a layer has no such value."""

    @property
    def is_exact(self) -> bool:
        """Whether each pixel's position is computed, rather than interpolated within `tolerance`."""
        return self.tolerance == 0

    @property
    def overshoots(self) -> bool:
        """Whether power below zero may arise: `read_warped_counted` raises such pixels to 0, and counts them."""
        return self.kind == "backscatter" and self.method in OVERSHOOTING

    @property
    def working_dtype(self) -> str:
        """NumPy dtype that GDAL is given: its ``mode`` of int16 passes over negative values."""
        return "int32" if self.method == "mode" and self.dtype == "int16" else self.dtype

    @property
    def reach(self) -> int:
        """Source pixels that a window needs beyond its own positions: its kernel, and a margin."""
        wide = max(1.0, 1.0 / min(self.scale))
        return math.ceil((_RADIUS.get(self.method, 1) + 1) * wide) + MARGIN

    @property
    def source_pixels(self) -> int:
        """Most source pixels of a window that is warped at once: as read, as power, and GDAL's own copy."""
        itemsize = max(np.dtype(self.source.dtype).itemsize, 4)
        return _SOURCE_BYTES // (2 * itemsize + 2 * np.dtype(self.working_dtype).itemsize)

    @property
    def keeps_looks(self) -> bool:
        """Whether the equivalent number of looks is still the source's; otherwise it is not known."""
        return self.method == "nearest"

    @property
    def geolocation(self) -> str:
        """The tie of pixels to the ground, see `conventions.GEOLOCATION`."""
        uses_gcps = self.source.georeference.uses_gcps
        return "gcp_tps_no_dem" if uses_gcps else Georeference(grid=self.grid).geolocation

    @property
    def attrs(self) -> dict[str, str | float]:
        """Attributes that say what was done: method, tolerance in pixels, geolocation, and looks of backscatter."""
        done: dict[str, str | float] = {
            cv.RESAMPLING: self.method,
            cv.RESAMPLING_TOLERANCE: self.tolerance,
            cv.GEOLOCATION: self.geolocation,
        }
        if self.kind == "backscatter":
            done[cv.RESAMPLING_LOOKS] = "unchanged" if self.keeps_looks else "unknown"
        return done

    def __str__(self) -> str:
        x, y = self.grid.pixel_size
        origin = crs_name(self.source.georeference.crs_wkt)
        origin += ", GCPs by thin-plate spline, no terrain" if self.source.georeference.uses_gcps else ""
        size = f"{x:g}" if x == y else f"{x:g} x {y:g}"
        precision = "exact" if self.is_exact else f"within {self.tolerance:f}".rstrip("0") + " px"
        looks = "" if self.kind != "backscatter" or self.keeps_looks else ", looks unknown"
        return (
            f"{Path(self.source.path).name} band {self.source.band}: warped from {origin} to "
            f"{crs_name(self.grid.crs_wkt)} at {size}, {self.method}, {precision}{looks}"
        )


def plan_warp(
    source: WarpSource,
    grid: Grid,
    *,
    method: str | None = None,
    kind: str = "backscatter",
    exact: bool = False,
) -> WarpPlan | Passthrough:
    """Return the plan of a source's way onto a grid: untouched where its pixels are the grid's, else warped.

    Pixels are the grid's where both have one CRS and all four corners are within 1e-3 pixels of a
    whole-pixel offset. No file is opened. Longitudes that differ by whole turns are the same ground: the source of
    the plan has those that its grid has.

    ``kind`` is ``backscatter``; for a layer ``classes``, ``continuous`` or ``counts``. ``method`` is one of
    ``METHODS[kind]``. By default backscatter is averaged (in power) where the grid is coarser and taken from the
    nearest pixel elsewhere, which alone keeps its looks; classes by ``mode``, continuous data by ``average`` or
    ``bilinear``, counts by ``sum``. ``exact`` computes each position, where two CRSs or GCPs are involved; otherwise
    they are within `FAST_TOLERANCE` or `GCP_TOLERANCE` source pixels. Within one CRS it is always exact, and so is
    ``sum``.

    Raises `InvalidInputError` where the method does not suit the kind, or the kind does not suit the source;
    `UnsupportedRasterError` where nothing places the source on the ground, it does not touch the grid, it is too
    fine for it, or its dtype cannot be warped.
    """
    _check_kind(source, kind, method)
    source = replace(source, georeference=_in_turn(source.georeference, grid))
    place = source.georeference
    grids_agree = not place.uses_gcps or not grid.is_georeferenced
    is_one = place.uses_gcps or is_affine_to(place, grid)
    if grids_agree and is_one and is_same_crs(source.grid.crs_wkt, grid.crs_wkt):
        offset = source.grid.whole_pixel_offset(grid)
        if offset is not None:
            return _passthrough(source, grid, *offset)
    if not grid.is_georeferenced:
        raise InvalidInputError(
            f"expected a grid with a CRS to warp {source.path!r} onto, got one without. "
            "Pass crs=, or leave the grid out to keep the raster's own."
        )
    check_placed(place, grid.crs_wkt)
    _check_touches(place, grid)
    scale = _kernel_scale(place, grid)
    if method is None:
        is_coarser = 1.0 / math.sqrt(scale[0] * scale[1]) >= COARSENING
        averages = kind in ("backscatter", "continuous") and is_coarser
        method = "average" if averages else METHODS[kind][0]
    dtype, fill = _result_type(source, grid, kind, method)
    tolerance = 0.0
    if not exact and method != "sum":  # to share out totals costs more than to find exact positions
        within_one = is_affine_to(place, grid)
        tolerance = GCP_TOLERANCE if place.uses_gcps else 0.0 if within_one else FAST_TOLERANCE
    plan = WarpPlan(
        source=source,
        grid=grid,
        kind=kind,
        method=method,
        tolerance=tolerance,
        scale=scale,
        dtype=dtype,
        fill=fill,
    )
    across, down = (1.0 / s for s in scale)
    if (across + 2 * plan.reach) * (down + 2 * plan.reach) > plan.source_pixels:
        raise UnsupportedRasterError(
            f"expected a grid whose pixels hold fewer source pixels, got {across:.0f} x {down:.0f} of them in "
            f"each. Coarsen the raster in two steps."
        )
    return plan


def _check_kind(source: WarpSource, kind: str, method: str | None) -> None:
    if kind not in METHODS:
        raise InvalidInputError(f"expected a kind of {', '.join(METHODS)}, got {kind!r}. Name one of these.")
    if (kind == "backscatter") == source.is_layer:
        raise InvalidInputError(
            f"expected kind 'backscatter' for backscatter and another for a layer, got {kind!r} for "
            f"{source.representation!r}. Choose among {', '.join(METHODS)}."
        )
    if method is not None and method not in METHODS[kind]:
        raise InvalidInputError(
            f"expected a method for {kind} of {', '.join(METHODS[kind])}, got {method!r}. Name one of these."
        )


def _passthrough(source: WarpSource, grid: Grid, row: int, col: int) -> Passthrough:
    fill = math.nan if source.unmeasured and not source.is_layer else source.sentinel
    if math.isnan(fill) and source.read_dtype.kind != "f" and not source.unmeasured:
        wanted = Window(row=row, col=col, height=grid.height, width=grid.width)
        if source.is_layer and wanted.intersection(Window.of(*source.grid.shape)) != wanted:
            raise _no_nodata(source)
        fill = 0
    return Passthrough(source=source, grid=grid, row=row, col=col, fill=fill)


def _no_nodata(source: WarpSource) -> UnsupportedRasterError:
    return UnsupportedRasterError(
        f"expected a nodata value for pixels of the grid that {source.path!r} does not cover, got none for "
        f"{source.dtype}. Pass nodata= (--layer NAME:nodata255=FILE), or choose a grid inside of the raster."
    )


def _in_turn(place: Georeference, grid: Grid) -> Georeference:
    """Return a place moved by the whole turns that bring its longitudes to a grid's, or to those of its CRS.

    Raises `UnsupportedRasterError` where a raster of a cylindrical CRS lies on both sides of the end of its x, which
    GDAL does not see beyond.
    """
    wkt, turn = place.crs_wkt, turn_of(place.crs_wkt)
    if wkt is None or turn is None or not grid.is_georeferenced:
        return place
    if place.uses_gcps:
        near = Georeference(grid=grid).middle if is_same_crs(wkt, grid.crs_wkt) else 0.0
        moved = float(turned(wkt, np.array(place.middle), near=near)) - place.middle
        return replace(place, gcps=tuple((row, col, x + moved, y, z) for row, col, x, y, z in place.gcps))
    left, _, right, _ = place.grid.bbox
    if is_same_crs(wkt, grid.crs_wkt):
        moves = turns_onto(wkt, (left, right), (grid.bbox[0], grid.bbox[2]))
        return replace(place, grid=moved_by(place.grid, moves[0])) if len(moves) == 1 else place
    if parse_crs(wkt).is_geographic:
        middle = float(turned(wkt, np.array(place.middle), near=0.0))  # GDAL adds one turn, and no more
        return replace(place, grid=moved_by(place.grid, middle - place.middle))
    ends = np.array([left, right]) + (right - left) * np.array([1e-9, -1e-9])
    again, _ = transform_points(
        LONLAT, wkt, *transform_points(wkt, LONLAT, ends, np.full(2, place.grid.bbox[1]))
    )
    off = turn * np.rint((again - ends) / turn)
    if not np.isfinite(off).all() or off[0] == off[1]:
        return replace(place, grid=moved_by(place.grid, float(np.nan_to_num(off[0]))))
    raise UnsupportedRasterError(
        f"expected a raster on one side of the end of {crs_name(wkt)}, got {place.name!r}, which goes on beyond it. "
        "Leave out --crs to keep its own grid, or give it in EPSG:4326."
    )


def _check_touches(place: Georeference, grid: Grid) -> None:
    try:
        x_min, y_min, x_max, y_max = bbox_in(place, grid.crs_wkt)
    except UnsupportedRasterError:
        if not place.grid.is_georeferenced:
            raise
        return  # its edges are out of the CRS's reach, as of a global raster: its middle need not be
    left, bottom, right, top = grid.bbox
    is_beside = not turns_onto(grid.crs_wkt, (x_min, x_max), (left, right))
    if is_beside or y_max <= bottom or y_min >= top:
        raise UnsupportedRasterError(
            f"expected a raster that touches the grid {grid.bbox}, got {place.name!r} at "
            f"{(x_min, y_min, x_max, y_max)}. Leave it out, or choose a grid that covers it."
        )


def _kernel_scale(place: Georeference, grid: Grid) -> tuple[float, float]:
    """Return (x, y) target pixels per source pixel, one pair for the whole grid: the median over the source.

    GDAL would choose it anew for each window, and show every border of one.
    """
    if is_affine_to(place, grid):
        a, b, _, d, e, _ = grid.transform
        ia, ib, _, id_, ie, _ = place.grid.inverse
        across = math.hypot(ia * a + ib * d, ia * b + ib * e)
        down = math.hypot(id_ * a + ie * d, id_ * b + ie * e)
        return _rounded(1.0 / across), _rounded(1.0 / down)
    along = np.linspace(0.1, 0.9, 5)
    rows, cols = (v.ravel() for v in np.meshgrid(along * place.grid.height, along * place.grid.width))
    rows, cols = onto(place, grid, rows, cols)
    finite = np.isfinite(rows) & np.isfinite(cols)
    rows, cols = rows[finite], cols[finite]
    steps = [locate(place, grid, rows + dr, cols + dc) for dr, dc in ((-4, 0), (4, 0), (0, -4), (0, 4))]
    moves = [np.hypot(*(steps[j + 1][i] - steps[j][i] for j in (0, 2))) / 8 for i in (0, 1)]
    sizes = [np.median(v[np.isfinite(v)]) if np.isfinite(v).any() else math.nan for v in moves]
    if not all(0 < v < math.inf for v in sizes):
        raise UnsupportedRasterError(
            f"expected a raster with a place in {crs_name(grid.crs_wkt)}, got none for {place.name!r}. "
            "Choose a CRS that covers it."
        )
    return _rounded(1.0 / sizes[1]), _rounded(1.0 / sizes[0])


def _rounded(value: float) -> float:
    """Return a number to 9 digits: what is computed another way on another machine is the same again."""
    return float(f"{value:.9g}")


def _result_type(source: WarpSource, grid: Grid, kind: str, method: str) -> tuple[str, Fill]:
    """Return (dtype, fill) of a warp's result."""
    if kind == "backscatter":
        return "float32", math.nan
    if source.dtype not in GDAL_TYPES:
        raise UnsupportedRasterError(
            f"expected a layer of {', '.join(GDAL_TYPES)} to warp, got {source.dtype} in "
            f"{source.path!r}. Convert it, or give it on the grid of its scene."
        )
    if method == "sum":
        return "float64", math.nan
    fill = source.sentinel
    if not math.isnan(fill) or np.dtype(source.dtype).kind == "f":
        return source.dtype, fill
    rows, cols = locate(source.georeference, grid, *edge_points(grid))
    height, width = source.grid.shape
    if not ((rows >= 0) & (rows <= height) & (cols >= 0) & (cols <= width)).all():
        raise _no_nodata(source)
    return source.dtype, None
