"""Bring a raster onto a grid: plan a passthrough or a warp, and read any window of the result.

A plan is pure, printable and picklable; reading needs no state but the calling thread's. The grid is cut
into tiles that depend on the plan alone, and each is warped whole: a window read in any way, in any
process and in any order has the same bits as the whole.
"""

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.session import DummySession

from sarzarr import conventions as cv
from sarzarr import vrt
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.georeference import (
    WarpSource,
    check_placed,
    crs_name,
    footprint,
    is_same_crs,
    locate,
    project,
    spline_points,
)
from sarzarr.grid import Grid
from sarzarr.radiometry import power_kernel
from sarzarr.rasters import read_window

Array = np.ndarray[Any, Any]
Fill = float | int | None

METHODS: Final = {
    "backscatter": ("nearest", "average", "bilinear", "cubic", "lanczos", "rms"),
    "classes": ("mode", "nearest", "min", "max"),
    "continuous": ("bilinear", "average", "nearest", "cubic", "lanczos", "rms", "min", "max", "med"),
    "counts": ("sum", "nearest", "average", "mode", "min", "max", "med"),
}
"""The methods that suit each kind of data."""
OVERSHOOTING: Final = ("cubic", "lanczos")
"""Methods whose weights are partly negative: beside a bright target their power can fall below zero."""
FAST_TOLERANCE: Final = 1e-4
"""Source pixels by which positions may be off between two CRSs, unless they are asked to be exact."""
TILE: Final = 2048
"""Rows and columns of the tiles that a grid is warped in: a shard's, so that an ingest's blocks are tiles."""
COARSENING: Final = 1.05
"""Source pixels a target pixel, along one side, from which a grid is coarser than its source."""

_SOURCE_BYTES: Final = 128 * 2**20
"""What the source pixels of one warped window may take, in all their copies."""
_CACHED_BYTES: Final = 64 * 2**20
"""Warped tiles that a thread keeps, for windows smaller than a tile."""
_MARGIN: Final = 8
"""Source pixels around what a window needs, beside its kernel."""
_LATTICE: Final = 17
"""Points a side at which the source window of a tile is found."""
_RADIUS: Final = {"bilinear": 1, "cubic": 2, "lanczos": 3}
"""Reach of each kernel, in pixels of the coarser side."""
_GDAL: Final = {
    "GDAL_MEM_ENABLE_OPEN": "YES",  # the source is an array of this process
    "GDAL_VRT_WARP_USE_DATASET_RASTERIO": "YES",  # a window as one, not in blocks
    "GDAL_NUM_THREADS": "1",
}


# ---------------------------------------------------------------- plans
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
    fill: float | int
    """What stands outside of the source: its nodata, else NaN; 0 for integers and complex without a tag."""

    @property
    def dtype(self) -> str:
        """NumPy dtype of what `read_warped` gives: the source's own."""
        return self.source.dtype

    @property
    def is_identity(self) -> bool:
        """Whether the grid is the source's own, pixel for pixel."""
        return (self.row, self.col, self.grid.shape) == (0, 0, self.source.grid.shape)

    @property
    def geolocation(self) -> str:
        """How pixels are tied to the ground, as `conventions.GEOLOCATION` says it."""
        return _geolocation(self.grid)

    @property
    def attrs(self) -> dict[str, str | float]:
        """Attributes that say what was done: nothing."""
        return {}

    def __str__(self) -> str:
        how = "its own grid" if self.is_identity else f"a window from row {self.row}, column {self.col}"
        return f"{Path(self.source.path).name} band {self.source.band}: passed through, {how}"


@dataclass(frozen=True, kw_only=True)
class WarpPlan:
    """A warp of one band onto a grid."""

    source: WarpSource
    """What is read."""
    grid: Grid
    """Where it goes."""
    kind: str
    """``backscatter``, ``classes``, ``continuous`` or ``counts``."""
    method: str
    """How pixels are resampled: one of `METHODS`."""
    tolerance: float
    """Source pixels by which positions may be off; 0 is exact."""
    scale: tuple[float, float]
    """(x, y) target pixels a source pixel: below 1 where the grid is coarser."""
    dtype: str
    """NumPy dtype of the result."""
    fill: Fill
    """What stands where nothing is known: NaN for backscatter; None where a layer has no such value."""

    @property
    def is_exact(self) -> bool:
        """Whether each pixel's position is computed, rather than interpolated within `tolerance`."""
        return self.tolerance == 0

    @property
    def overshoots(self) -> bool:
        """Whether power below zero may arise; it is raised to 0, and counted by `read_warped_counted`."""
        return self.kind == "backscatter" and self.method in OVERSHOOTING

    @property
    def coarsening(self) -> float:
        """Source pixels a target pixel, along one side."""
        return _coarsening(self.scale)

    @property
    def keeps_looks(self) -> bool:
        """Whether the equivalent number of looks is still the source's; otherwise it is not known."""
        return self.method == "nearest"

    @property
    def geolocation(self) -> str:
        """How pixels are tied to the ground, as `conventions.GEOLOCATION` says it."""
        return "gcp_tps_no_dem" if self.source.uses_gcps else _geolocation(self.grid)

    @property
    def attrs(self) -> dict[str, str | float]:
        """Attributes that say what was done."""
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
        origin = crs_name(self.source.crs_wkt)
        origin += ", GCPs by thin-plate spline, no terrain" if self.source.uses_gcps else ""
        size = f"{x:g}" if x == y else f"{x:g} x {y:g}"
        how = "exact" if self.is_exact else f"within {self.tolerance:g} px"
        looks = "" if self.kind != "backscatter" or self.keeps_looks else ", looks unknown"
        return (
            f"{Path(self.source.path).name} band {self.source.band}: warped from {origin} to "
            f"{crs_name(self.grid.crs_wkt)} at {size}, {self.method}, {how}{looks}"
        )


def plan_warp(
    source: WarpSource,
    grid: Grid,
    *,
    method: str | None = None,
    kind: str = "backscatter",
    exact: bool = False,
) -> WarpPlan | Passthrough:
    """Return how a source comes onto a grid: untouched where its pixels are the grid's, else warped.

    Pixels are the grid's where both have one CRS and all four corners are within 1e-3 pixels of a
    whole-pixel offset. No file is opened.

    Parameters
    ----------
    method
        One of ``METHODS[kind]``. By default backscatter is averaged (in power) where the grid is coarser
        and taken from the nearest pixel elsewhere, which alone keeps its looks; classes by ``mode``,
        continuous data by ``average`` or ``bilinear``, counts by ``sum``.
    kind
        ``backscatter``; for a layer ``classes``, ``continuous`` or ``counts``.
    exact
        Compute each position, where two CRSs or GCPs are involved; otherwise they are within
        `FAST_TOLERANCE` source pixels. Within one CRS it is always exact.

    Raises
    ------
    InvalidInputError
        The method does not suit the kind, or the kind does not suit the source.
    UnsupportedRasterError
        Nothing places the source on the ground, it does not touch the grid, it is too fine for it,
        or its dtype cannot be warped.
    """
    _check_kind(source, kind, method)
    grids_agree = not source.uses_gcps or not grid.is_georeferenced
    if grids_agree and is_same_crs(source.grid.crs_wkt, grid.crs_wkt):
        offset = source.grid.whole_pixel_offset(grid)
        if offset is not None:
            return _passthrough(source, grid, *offset)
    if not grid.is_georeferenced:
        raise InvalidInputError(
            f"expected a grid with a CRS to warp {source.path!r} onto, got one without. "
            "Pass crs=, or leave the grid out to keep the raster's own."
        )
    check_placed(source, grid.crs_wkt)
    _check_touches(source, grid)
    scale = _kernel_scale(source, grid)
    method = method or _default_method(kind, _coarsening(scale))
    is_exact = exact or (not source.uses_gcps and is_same_crs(source.crs_wkt, grid.crs_wkt))
    dtype, fill = _result_type(source, grid, kind, method)
    plan = WarpPlan(
        source=source,
        grid=grid,
        kind=kind,
        method=method,
        tolerance=0.0 if is_exact else FAST_TOLERANCE,
        scale=scale,
        dtype=dtype,
        fill=fill,
    )
    _check_fits(plan)
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
    dtype = np.dtype(source.dtype)
    inside = (
        row >= 0
        and col >= 0
        and row + grid.height <= source.grid.height
        and col + grid.width <= source.grid.width
    )
    fill: float | int = _sentinel(source)
    if math.isnan(fill) and dtype.kind != "f":
        if source.is_layer and not inside:
            raise _no_nodata(source)
        fill = 0
    return Passthrough(source=source, grid=grid, row=row, col=col, fill=fill)


def _sentinel(source: WarpSource) -> float | int:
    """Return the value that says "no data" in a source, as a Python number; NaN where there is none."""
    nodata, dtype = source.nodata, np.dtype(source.dtype)
    if nodata is None or math.isnan(nodata) or dtype.kind == "c":
        return math.nan
    if dtype.kind == "f":
        return float(dtype.type(nodata))
    limits = np.iinfo(dtype)
    is_held = nodata == int(nodata) and limits.min <= nodata <= limits.max if math.isfinite(nodata) else False
    return int(nodata) if is_held else math.nan


def _no_nodata(source: WarpSource) -> UnsupportedRasterError:
    return UnsupportedRasterError(
        f"expected a nodata value for pixels of the grid that {source.path!r} does not cover, got none for "
        f"{source.dtype}. Pass nodata=, or choose a grid inside of the raster."
    )


def _check_touches(source: WarpSource, grid: Grid) -> None:
    try:
        x_min, y_min, x_max, y_max = footprint(source, grid.crs_wkt)
    except UnsupportedRasterError:
        if not source.grid.is_georeferenced:
            raise
        return  # its edges are out of the CRS's reach, as of a global raster: its middle need not be
    left, bottom, right, top = grid.bbox
    if x_max <= left or x_min >= right or y_max <= bottom or y_min >= top:
        raise UnsupportedRasterError(
            f"expected a raster that touches the grid {grid.bbox}, got {source.path!r} at "
            f"{(x_min, y_min, x_max, y_max)}. Leave it out, or choose a grid that covers it."
        )


def _kernel_scale(source: WarpSource, grid: Grid) -> tuple[float, float]:
    """Return (x, y) target pixels a source pixel, one pair for the whole grid: the median over the source.

    GDAL would choose it anew for each window, and show every border of one.
    """
    if not source.uses_gcps and is_same_crs(source.crs_wkt, grid.crs_wkt):
        a, b, _, d, e, _ = grid.transform
        ia, ib, _, id_, ie, _ = source.grid.inverse
        across = math.hypot(ia * a + ib * d, ia * b + ib * e)
        down = math.hypot(id_ * a + ie * d, id_ * b + ie * e)
        return _rounded(1.0 / across), _rounded(1.0 / down)
    at = np.linspace(0.1, 0.9, 5)
    rows, cols = (v.ravel() for v in np.meshgrid(at * source.grid.height, at * source.grid.width))
    rows, cols = grid.to_pixels(*project(source, grid.crs_wkt, rows, cols))
    here = np.isfinite(rows) & np.isfinite(cols)
    rows, cols = rows[here], cols[here]
    steps = [locate(source, grid, rows + dr, cols + dc) for dr, dc in ((-4, 0), (4, 0), (0, -4), (0, 4))]
    along = [np.hypot(*(steps[j + 1][i] - steps[j][i] for j in (0, 2))) / 8 for i in (0, 1)]
    sizes = [np.median(v[np.isfinite(v)]) if np.isfinite(v).any() else math.nan for v in along]
    if not all(0 < v < math.inf for v in sizes):
        raise UnsupportedRasterError(
            f"expected a raster with a place in {crs_name(grid.crs_wkt)}, got none for {source.path!r}. "
            "Choose a CRS that covers it."
        )
    return _rounded(1.0 / sizes[1]), _rounded(1.0 / sizes[0])


def _rounded(value: float) -> float:
    """Return a number to 9 digits: what is computed another way on another machine is the same again."""
    return float(f"{value:.9g}")


def _coarsening(scale: tuple[float, float]) -> float:
    return 1.0 / math.sqrt(scale[0] * scale[1])


def _default_method(kind: str, coarsening: float) -> str:
    if kind in ("backscatter", "continuous") and coarsening >= COARSENING:
        return "average"
    return METHODS[kind][0]


def _result_type(source: WarpSource, grid: Grid, kind: str, method: str) -> tuple[str, Fill]:
    """Return (dtype, fill) of a warp's result."""
    if kind == "backscatter":
        return "float32", math.nan
    if source.dtype not in vrt.GDAL_TYPES:
        raise UnsupportedRasterError(
            f"expected a layer of {', '.join(vrt.GDAL_TYPES)} to warp, got {source.dtype} in {source.path!r}. "
            "Convert it, or give it on the grid of its scene."
        )
    if method == "sum":
        return "float64", math.nan
    fill = _sentinel(source)
    if not math.isnan(fill) or np.dtype(source.dtype).kind == "f":
        return source.dtype, fill
    if not _covers(source, grid):
        raise _no_nodata(source)
    return source.dtype, None


def _covers(source: WarpSource, grid: Grid) -> bool:
    """Whether a source's pixels reach all around the edges of a grid."""
    rows = np.linspace(0, grid.height, 65)
    cols = np.linspace(0, grid.width, 65)
    at = [(rows, 0 * cols), (rows, 0 * cols + grid.width), (0 * rows, cols), (0 * rows + grid.height, cols)]
    located = [locate(source, grid, r, c) for r, c in at]
    height, width = source.grid.shape
    return all(bool(((r >= 0) & (r <= height) & (c >= 0) & (c <= width)).all()) for r, c in located)


def _check_fits(plan: WarpPlan) -> None:
    reach = 2 * (_MARGIN + _reach(plan)) + 1
    across, down = (1.0 / s for s in plan.scale)
    if (across + reach) * (down + reach) > _source_pixels(plan):
        raise UnsupportedRasterError(
            f"expected a grid whose pixels hold at most {_source_pixels(plan)} source pixels, got "
            f"{across:.0f} x {down:.0f} of them. Coarsen the raster in two steps."
        )


def _geolocation(grid: Grid) -> str:
    if not grid.is_georeferenced:
        return "none"
    return "rotated_affine" if grid.is_rotated else "affine"


# ---------------------------------------------------------------- reading
def read_warped(plan: WarpPlan | Passthrough, *, row: int, col: int, height: int, width: int) -> Array:
    """Read a window of a source on its grid.

    Warped backscatter is linear power, float32, NaN where invalid. Layers and whatever is passed
    through have ``plan.dtype`` and the file's own values, ``plan.fill`` where there are none. The
    file is opened as `sarzarr.rasters.read_window` does: safe in threads, under fork and under spawn.
    Windows of whole `TILE` tiles cost least; a smaller one has its tile warped whole, and kept a while.

    Parameters
    ----------
    row, col, height, width
        The window, wholly inside the grid.

    Returns
    -------
    ndarray
        (height, width), the same bits as that part of the whole.

    Raises
    ------
    InvalidInputError
        The window reaches beyond the grid.
    RasterNotFoundError, UnsupportedRasterError
        The file is gone, or its bytes cannot be decoded.
    """
    return read_warped_counted(plan, row=row, col=col, height=height, width=width)[0]


def read_warped_counted(
    plan: WarpPlan | Passthrough, *, row: int, col: int, height: int, width: int
) -> tuple[Array, int]:
    """Return what `read_warped` gives, and how many of its pixels were raised to zero power.

    Only kernels that overshoot make such pixels; power that was negative in the source is among them.
    """
    if min(row, col) < 0 or min(height, width) < 1 or _beyond(plan.grid, row + height, col + width):
        raise InvalidInputError(
            f"expected a window inside {plan.grid.height} x {plan.grid.width} pixels, got {height} x {width} "
            f"at row {row}, column {col}. Clip it to the grid."
        )
    window = _Window(row, col, height, width)
    if isinstance(plan, Passthrough):
        return _copied(plan, window), 0
    out = np.empty((height, width), plan.dtype)
    for tile in _tiles(plan.grid, window):
        shared = tile.intersection(window)
        if shared == tile:
            _warp_into(plan, tile, out[tile.within(window)])
        else:
            out[shared.within(window)] = _kept_tile(plan, tile)[shared.within(tile)]
    if not plan.overshoots:
        return out, 0
    below = out < 0
    out[below] = 0
    return out, int(np.count_nonzero(below))


def _beyond(grid: Grid, bottom: int, right: int) -> bool:
    return bottom > grid.height or right > grid.width


@dataclass(frozen=True, slots=True)
class _Window:
    """A rectangle of pixels."""

    row: int
    col: int
    height: int
    width: int

    def intersection(self, other: "_Window") -> "_Window":
        """Return what both have in common, with a height or width of 0 or less where that is nothing."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        bottom = min(self.row + self.height, other.row + other.height)
        right = min(self.col + self.width, other.col + other.width)
        return _Window(row, col, bottom - row, right - col)

    def within(self, other: "_Window") -> tuple[slice, slice]:
        """Return where it lies in an array of the other."""
        row, col = self.row - other.row, self.col - other.col
        return slice(row, row + self.height), slice(col, col + self.width)

    def halves(self) -> tuple["_Window", "_Window"]:
        """Return it cut across its longer side."""
        row, col, height, width = self.row, self.col, self.height, self.width
        if height >= width:
            n = height // 2
            return _Window(row, col, n, width), _Window(row + n, col, height - n, width)
        n = width // 2
        return _Window(row, col, height, n), _Window(row, col + n, height, width - n)

    def grown(self, by: int) -> "_Window":
        """Return it with ``by`` more pixels on each side."""
        return _Window(self.row - by, self.col - by, self.height + 2 * by, self.width + 2 * by)


def _tiles(grid: Grid, window: _Window) -> Iterator[_Window]:
    """Yield the tiles of a grid that a window touches, row by row."""
    for row in range(window.row // TILE * TILE, window.row + window.height, TILE):
        for col in range(window.col // TILE * TILE, window.col + window.width, TILE):
            yield _Window(row, col, min(TILE, grid.height - row), min(TILE, grid.width - col))


def _copied(plan: Passthrough, window: _Window) -> Array:
    """Return a window of the source, with the plan's fill outside of it."""
    source = plan.source
    wanted = _Window(window.row + plan.row, window.col + plan.col, window.height, window.width)
    there = wanted.intersection(_Window(0, 0, source.grid.height, source.grid.width))
    if there == wanted:
        return _read(source, wanted)
    out = np.full((window.height, window.width), plan.fill, source.dtype)
    if there.height > 0 and there.width > 0:
        out[there.within(wanted)] = _read(source, there)
    return out


def _read(source: WarpSource, window: _Window) -> Array:
    return read_window(
        source.path,
        band=source.band,
        row=window.row,
        col=window.col,
        height=window.height,
        width=window.width,
    )


# ---------------------------------------------------------------- tiles that a thread keeps
class _Kept(threading.local):
    """Tiles that a thread warped for windows smaller than they are, the least recently read first."""

    def __init__(self) -> None:
        self.tiles: OrderedDict[tuple[Any, ...], Array] = OrderedDict()
        self.bytes = 0


_kept = _Kept()
"""Plain arrays, therefore safe in a forked child; never more than `_CACHED_BYTES` and one tile a thread."""


def _kept_tile(plan: WarpPlan, tile: _Window) -> Array:
    try:
        status = os.stat(plan.source.path)  # noqa: PTH116 - a Path costs more than the call
        key = (plan, tile, status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError:
        key = None  # reading it says what is wrong
    if key in _kept.tiles:
        _kept.tiles.move_to_end(key)
        return _kept.tiles[key]
    values = np.empty((tile.height, tile.width), plan.dtype)
    _warp_into(plan, tile, values)
    if key is not None:
        _kept.tiles[key] = values
        _kept.bytes += values.nbytes
    while _kept.bytes > _CACHED_BYTES:
        _kept.bytes -= _kept.tiles.popitem(last=False)[1].nbytes
    return values


# ---------------------------------------------------------------- warping one tile
def _warp_into(plan: WarpPlan, window: _Window, out: Array) -> None:
    """Warp a window into ``out``, in halves where its source pixels are too many to hold."""
    needed = _source_window(plan, window)
    if needed is None:
        out[...] = 0 if plan.fill is None else plan.fill
        return
    if needed.height * needed.width > _source_pixels(plan) and window.height * window.width > 1:
        for half in window.halves():
            _warp_into(plan, half, out[half.within(window)])
        return
    values = _prepared(plan, _read(plan.source, needed))
    halo = _halo(plan)
    asked = window.grown(halo) if halo else _thickened(window, plan.grid)
    try:
        with (
            rasterio.Env(session=DummySession(), **_GDAL),
            rasterio.open(_document(plan, needed, values, halo), driver="VRT", sharing=False) as warped,
        ):
            at = asked.row + halo, asked.col + halo
            pixels = warped.read(1, window=((at[0], at[0] + asked.height), (at[1], at[1] + asked.width)))
    except RasterioError as error:
        raise UnsupportedRasterError(
            f"expected {Path(plan.source.path).name!r} to be warped, got {error} Check its georeferencing."
        ) from error
    out[...] = pixels[window.within(asked)]


def _thickened(window: _Window, grid: Grid) -> _Window:
    """Return a window of at least 2 x 2 pixels where the grid has them: GDAL warps thinner ones in blocks."""
    height = min(max(window.height, 2), grid.height)
    width = min(max(window.width, 2), grid.width)
    return _Window(min(window.row, grid.height - height), min(window.col, grid.width - width), height, width)


def _source_pixels(plan: WarpPlan) -> int:
    """Most source pixels of one warped window: raw, as power, and as GDAL's own copy."""
    itemsize = max(np.dtype(plan.source.dtype).itemsize, 4)
    return _SOURCE_BYTES // (2 * itemsize + 2 * np.dtype(plan.dtype).itemsize)


def _reach(plan: WarpPlan) -> int:
    """Source pixels that a kernel reaches beyond a position."""
    wide = max(1.0, 1.0 / min(plan.scale))
    return math.ceil(_RADIUS.get(plan.method, 1) * wide) + (math.ceil(wide) * _halo(plan))


def _halo(plan: WarpPlan) -> int:
    """Target pixels around a window that are warped with it, and dropped.

    ``sum`` leaves out source pixels that reach over the border of a window: a seam that loses
    0.1 % of a total. Inside of a halo as wide as a source pixel none does.
    """
    return math.ceil(1.5 * max(1.0, *plan.scale)) + 2 if plan.method == "sum" else 0


def _source_window(plan: WarpPlan, window: _Window) -> _Window | None:
    """Return the source pixels that a window needs; None where there are none."""
    rows, cols = np.meshgrid(
        window.row + np.linspace(0, window.height, _LATTICE),
        window.col + np.linspace(0, window.width, _LATTICE),
        indexing="ij",
    )
    located = locate(plan.source, plan.grid, rows, cols)
    finite = np.isfinite(located[0]) & np.isfinite(located[1])
    if not finite.any():
        return None
    whole = _Window(0, 0, *plan.source.grid.shape)
    margin = _MARGIN + _reach(plan)
    low, high = [], []
    for positions, size in zip(located, plan.source.grid.shape, strict=True):
        bend = _bend(positions, is_smooth=bool(finite.all()))
        near = np.clip(positions[finite], -size - 1.0, 2.0 * size + 1.0)
        low.append(math.floor(near.min() - bend) - margin)
        high.append(math.ceil(near.max() + bend) + margin)
    needed = _Window(low[0], low[1], high[0] - low[0], high[1] - low[1]).intersection(whole)
    return needed if needed.height > 0 and needed.width > 0 else None


def _bend(positions: Array, *, is_smooth: bool) -> float:
    """Return by how much positions between lattice points may lie beyond them.

    A smooth map strays from a straight line by an eighth of its second differences; where the lattice has
    holes, a whole step is allowed for.
    """
    order = 2 if is_smooth else 1
    with np.errstate(invalid="ignore"):
        steps = [np.abs(np.diff(positions, n=order, axis=axis)) for axis in (0, 1)]
    return float(max((s[np.isfinite(s)].max(initial=0.0) for s in steps), default=0.0))


def _prepared(plan: WarpPlan, raw: Array) -> Array:
    """Return source pixels as they are warped: power for backscatter, with one sentinel for layers."""
    source = plan.source
    if not source.is_layer:
        nodata = source.nodata
        if source.representation == cv.Representation.COMPLEX:
            nodata = None if nodata is None or math.isnan(nodata) else nodata
        power = power_kernel(raw, source.representation, nodata=nodata)
        return np.ascontiguousarray(power, dtype=np.float32)
    values = np.ascontiguousarray(raw)
    sentinel = _sentinel(source)
    if plan.dtype != source.dtype:
        values = values.astype(plan.dtype)
    if values.dtype.kind == "f":
        invalid = ~np.isfinite(values)
        if not math.isnan(sentinel) and math.isnan(float(plan.fill or 0)):
            invalid |= values == sentinel
        if invalid.any():
            values = values.copy()
            values[invalid] = plan.fill
    return values


def _document(plan: WarpPlan, needed: _Window, values: Array, halo: int) -> str:
    """Return the document of the warp of one window of the source onto the grid, grown by ``halo``."""
    source, height, width = plan.source, *plan.grid.shape
    grid = (
        plan.grid
        if not halo
        else plan.grid.window(row=-halo, col=-halo, height=height + 2 * halo, width=width + 2 * halo)
    )
    nodata = None if plan.fill is None else repr(plan.fill)
    pixels = vrt.Pixels(
        address=values.ctypes.data,
        dtype=plan.dtype,
        row=needed.row,
        col=needed.col,
        height=needed.height,
        width=needed.width,
    )
    wkt = source.crs_wkt
    if source.uses_gcps:
        gcps, wkt = spline_points(source, grid.crs_wkt)
        placement = vrt.spline_placement(gcps, wkt)
    else:
        placement = vrt.affine_placement(source.grid.transform, source.grid.inverse)
    return vrt.warp_document(
        vrt.Target(
            height=grid.height,
            width=grid.width,
            transform=grid.transform,
            inverse=grid.inverse,
            dtype=plan.dtype,
            nodata=nodata,
        ),
        source=vrt.raster_document(pixels, height=source.grid.height, width=source.grid.width, nodata=nodata),
        placement=placement,
        reproject="" if is_same_crs(wkt, grid.crs_wkt) else vrt.reprojection(str(wkt), str(grid.crs_wkt)),
        method=plan.method,
        tolerance=plan.tolerance,
        scale=plan.scale if plan.method in _RADIUS else None,
    )
