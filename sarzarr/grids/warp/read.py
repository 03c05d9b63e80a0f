"""Read any window of a raster on a grid, passed through or warped.

The grid is cut into tiles that depend on the plan alone, and each is warped whole: a window read in any
way, in any process and in any order has the same bits as that part of the whole. No handle is kept;
the source's pixels are read by `sarzarr.rasters`, turned into power by `sarzarr.pixels.radiometry`, and warped by
GDAL where they lie.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.session import DummySession

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.grids.crs import is_same_crs, turn_of, turns_onto
from sarzarr.grids.georeference import is_affine_to, locate, project, spline_points
from sarzarr.grids.warp import vrt
from sarzarr.grids.warp.areas import LEAST_COVERED, share_by_area
from sarzarr.grids.warp.plan import Passthrough, WarpPlan, WarpSource
from sarzarr.grids.warp.positions import Lattice
from sarzarr.grids.window import Window, tiles_of
from sarzarr.pixels.kernels import impossible, is_sentinel, power_kernel, sentinel_limits
from sarzarr.rasters import fingerprint, local_file, measured, read_mask, read_window
from sarzarr.text import nodata_text

TILE: Final = 2048
"""Rows and columns of the tiles that a grid is warped in: a shard's, so that an ingest's blocks are tiles."""
_CACHED_BYTES: Final = 64 * 2**20
"""Warped tiles that a thread keeps, for windows smaller than a tile."""
_AFFINE_TOLERANCE: Final = 1e-9
"""Source pixels by which positions may be off within one CRS: what rounding makes of them anyway."""
_LEAST_HALVED: Final = 128
"""Pixels a side of a window that is not cut further for the sake of its map: there it is computed by GDAL."""
_GDAL: Final = {
    "GDAL_MEM_ENABLE_OPEN": "YES",  # the source is an array of this process
    "GDAL_VRT_WARP_USE_DATASET_RASTERIO": "YES",  # a window as one, not in blocks
    "GDAL_NUM_THREADS": "1",
}
_SHARED_PIXELS: Final = 2**17
"""Source pixels whose totals are shared out at once."""
_CACHED_PIXELS: Final = 2**18
"""Pixels of an array that stay in a core's cache from one pass over them to the next."""
_ON_EDGE: Final = 1e-10
"""Source pixels by which a centre may miss an edge and still be of the pixel after it: GDAL's own number."""


def read_warped(plan: WarpPlan | Passthrough, *, row: int, col: int, height: int, width: int) -> Array:
    """Read a window wholly inside a source's grid: (height, width), the same bits as that part of the whole.

    Warped backscatter is linear power, float32, NaN where invalid. Layers and whatever is passed through have
    ``plan.dtype`` and the file's own values, ``plan.fill`` where there are none. The file is opened as
    `sarzarr.rasters.read_window` does: safe in threads, under fork and under spawn. Windows of whole `TILE` tiles
    cost least; a smaller one has its tile warped whole, and kept a while.

    Raises `InvalidInputError` where the window reaches beyond the grid; `RasterNotFoundError` where the file is gone,
    `UnsupportedRasterError` where its bytes cannot be decoded.
    """
    return read_warped_counted(plan, row=row, col=col, height=height, width=width)[0]


def read_warped_counted(
    plan: WarpPlan | Passthrough, *, row: int, col: int, height: int, width: int
) -> tuple[Array, int]:
    """Return what `read_warped` gives, and how many of its (height, width) pixels were raised to zero power.

    Only kernels that overshoot make such pixels; power that was negative in the source is among them.
    """
    whole = Window.of(*plan.grid.shape)
    window = Window(row=row, col=col, height=height, width=width)
    if window.is_empty or window.intersection(whole) != window:
        raise InvalidInputError(
            f"expected a window inside {plan.grid.height} x {plan.grid.width} pixels, got {height} x {width} "
            f"at row {row}, column {col}. Clip it to the grid."
        )
    if isinstance(plan, Passthrough):
        return _copied(plan, window), 0
    out = np.empty((height, width), plan.dtype)
    for tile in tiles_of(whole, window, side=TILE):
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


def _copied(plan: Passthrough, window: Window) -> Array:
    """Return a window of the source, with the plan's fill outside of it."""
    source = plan.source
    wanted = window.moved(plan.row, plan.col)
    held = wanted.intersection(Window.of(*source.grid.shape))
    if held == wanted:
        return _read(source, wanted)
    out = np.full((window.height, window.width), plan.fill, source.read_dtype)
    if not held.is_empty:
        out[held.within(wanted)] = _read(source, held)
    return out


def _read(source: WarpSource, window: Window) -> Array:
    """Return a window of the source; what nobody measured is NaN, or a layer's nodata to the last digit."""
    if source.field is not None:
        return source.field.window(**asdict(window))
    raw, rule = read_window(source.path, band=source.band, **asdict(window)), source.unmeasured
    if not source.is_layer:
        return measured(raw, rule, row=window.row, col=window.col)
    mask = read_mask(rule.mask, **asdict(window)) if rule and rule.mask is not None else None
    if source.nodata is not None:
        is_nodata = is_sentinel(raw, source.nodata)
        if source.has_chosen_nodata and mask is not None and bool((is_nodata & mask).any()):
            raise UnsupportedRasterError(
                f"expected a value that no pixel of {Path(source.path).name!r} has for those that its mask leaves "
                f"out, got {nodata_text(source.nodata)}. Name another: --layer NAME:nodataVALUE=FILE."
            )
        raw[is_nodata] = source.sentinel
    if mask is not None:
        raw[~mask] = source.sentinel
    return raw


class _Kept(threading.local):
    """Tiles that a thread warped for windows smaller than they are, the least recently read first."""

    def __init__(self) -> None:
        self.tiles: OrderedDict[tuple[Any, ...], Array] = OrderedDict()
        self.bytes = 0


_kept = _Kept()
"""Plain arrays, therefore safe in a forked child; never more than `_CACHED_BYTES` and one tile a thread."""


def _kept_tile(plan: WarpPlan, tile: Window) -> Array:
    key = (plan, tile, *fingerprint(plan.source.path, local_file(plan.source.path)[1]))
    if key in _kept.tiles:
        _kept.tiles.move_to_end(key)
        return _kept.tiles[key]
    values = np.empty((tile.height, tile.width), plan.dtype)
    _warp_into(plan, tile, values)
    _kept.tiles[key] = values
    _kept.bytes += values.nbytes
    while _kept.bytes > _CACHED_BYTES:
        _kept.bytes -= _kept.tiles.popitem(last=False)[1].nbytes
    return values


def _warp_into(plan: WarpPlan, window: Window, out: Array) -> None:
    """Warp a window into ``out``; in halves, where its source pixels are too many or its map is too bent."""
    lattice = Lattice.spanning(partial(locate, plan.source.georeference, plan.grid), window)
    shape = plan.source.grid.shape
    span = lattice.span(shape)
    needed = None if span is None else span.grown(plan.reach).intersection(Window.of(*shape))
    if needed is None or needed.is_empty:
        out[...] = 0 if plan.fill is None else plan.fill
        return
    is_heavy = needed.height * needed.width > plan.source_pixels and window.height * window.width > 1
    is_bent = not plan.is_exact and lattice.cubic_error > plan.tolerance / 4
    if is_heavy or (is_bent and lattice.is_complete and max(window.height, window.width) > _LEAST_HALVED):
        for half in window.halves():
            _warp_into(plan, half, out[half.within(window)])
        return
    values, is_masked = _prepared(plan, _read(plan.source, needed), needed)
    if plan.method == "sum":
        out[...] = _shared(plan, window, needed, values)
    elif plan.method == "nearest" and _is_by_axes(plan):
        _copy_nearest(plan, window, needed, values, out)
    elif plan.is_exact or is_bent:
        out[...] = _through_crs(plan, window, needed, values)
    else:
        points = lattice.control_points(row=needed.row, col=needed.col)
        tolerance = plan.tolerance - max(lattice.cubic_error, plan.tolerance / 4)
        _by_cubic(plan, points, values, out, is_masked=is_masked, tolerance=tolerance)


def _prepared(plan: WarpPlan, raw: Array, window: Window) -> tuple[Array, bool]:
    """Return a window of source pixels, (rows, columns), as they are warped, and whether some are invalid.

    They are power for backscatter; layers have one sentinel, ``plan.fill``, and NaN is among it.
    """
    source = plan.source
    is_plain = source.is_layer or source.representation == cv.Representation.POWER
    is_plain &= source.calibration is None
    if is_plain and raw.dtype == plan.working_dtype and _is_all_valid(raw, source):
        return np.ascontiguousarray(raw), False
    if not source.is_layer:
        power = power_kernel(raw, source.representation, nodata=source.nodata)
        if source.calibration is not None:
            untold = power == 0 if source.calibration.noise and source.has_untold_zeros else None
            source.calibration.apply(power, row=window.row, col=window.col)
            if untold is not None:
                power[untold] = 0  # not less by noise: whether they are fill, the whole scene tells
        return np.ascontiguousarray(power, dtype=np.float32), bool(np.isnan(power.min()))
    values = np.array(raw, dtype=plan.working_dtype, order="C")
    if values.dtype.kind == "f":
        invalid = ~np.isfinite(values)
        if source.nodata is not None:
            invalid |= is_sentinel(raw, source.nodata)
        values[invalid] = plan.fill
    return values, True


def _is_all_valid(raw: Array, source: WarpSource) -> bool:
    """Whether no pixel is NaN, Inf or the sentinel, and no power impossible: found without a copy, part by part."""
    limits = sentinel_limits(source.nodata, raw.dtype)
    step = max(1, _CACHED_PIXELS // raw.shape[1])
    for first in range(0, raw.shape[0], step):
        part = raw[first : first + step]
        low, high = float(part.min()), float(part.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        if limits is not None and low <= limits[1] and high >= limits[0]:
            return False
        if not source.is_layer and impossible(part, source.representation) is not None:
            return False
    return True


def _shared(plan: WarpPlan, window: Window, needed: Window, values: Array) -> Array:
    """Return a window of totals, (height, width) float64: each source pixel's, shared by area.

    GDAL's ``sum`` loses some at its borders.
    """

    def parts() -> Iterator[tuple[Array, Array, Array]]:
        step = max(1, _SHARED_PIXELS // needed.width)
        for first in range(0, needed.height, step):
            part = values[first : first + step]
            rows, cols = np.indices((part.shape[0] + 1, needed.width + 1), np.float64)
            rows += needed.row + first
            cols += needed.col
            xs, ys = project(plan.source.georeference, wkt, rows, cols)
            known = xs[np.isfinite(xs)]
            span = (float(known.min()), float(known.max())) if known.size else (math.inf, math.inf)
            for turn in turns_onto(wkt, span, (left, right)):
                rows, cols = plan.grid.to_pixels(xs + turn, ys)
                yield part, rows - window.row, cols - window.col

    wkt, (left, _, right, _) = plan.grid.crs_wkt, plan.grid.bbox
    sums, covered = share_by_area(parts(), height=window.height, width=window.width)
    sums[covered < LEAST_COVERED] = np.nan
    return sums


def _is_by_axes(plan: WarpPlan) -> bool:
    """Whether a pixel's row alone says its source's row, and its column the column."""
    place, grid = plan.source.georeference, plan.grid
    return not (place.grid.is_rotated or grid.is_rotated) and is_affine_to(place, grid)


def _copy_nearest(plan: WarpPlan, window: Window, needed: Window, values: Array, out: Array) -> None:
    """Copy the pixel that each centre lies in into ``out``: what GDAL's nearest neighbour does, row by row."""
    source = plan.source.grid
    a, _, c, _, e, f = plan.grid.transform
    ia, _, ic, _, ie, if_ = source.inverse
    ys = f + (window.row + np.arange(window.height) + 0.5) * e
    xs = c + (window.col + np.arange(window.width) + 0.5) * a
    rows, has_row = _nearest(if_ + ys * ie, source.height)
    cols, has_col = _nearest(ic + xs * ia, source.width)
    rows, cols = rows - needed.row, cols - needed.col
    step = max(1, _CACHED_PIXELS // needed.width)
    for first in range(0, window.height, step):
        some = np.take(values, rows[first : first + step], axis=0, mode="clip")
        out[first : first + step] = np.take(some, cols, axis=1, mode="clip")
    fill = 0 if plan.fill is None else plan.fill
    out[~has_row] = fill
    out[:, ~has_col] = fill


def _nearest(positions: Array, length: int) -> tuple[Array, Array]:
    """Return the pixel along an axis that each position is in, and whether there is one; edges as GDAL has them."""
    inside = (positions >= 0) & (positions + _ON_EDGE <= length)
    return np.clip(np.floor(positions + _ON_EDGE).astype(np.intp), 0, length - 1), inside


def _by_cubic(
    plan: WarpPlan,
    points: Sequence[tuple[float, float, float, float]],
    values: Array,
    out: Array,
    *,
    is_masked: bool,
    tolerance: float,
) -> None:
    """Warp a window of the source into ``out``, by the cubic through its control points.

    ``tolerance`` is what the cubic leaves of the plan's.
    """
    height, width = out.shape
    has_sentinel = plan.fill is None or not math.isnan(plan.fill)
    document = vrt.warp_document(
        plan,
        source=vrt.memory_raster(values),
        is_masked=is_masked or has_sentinel,
        transformer=vrt.transformer(
            vrt.unit_frame(height, width),
            placement=vrt.cubic_placement(points),
            reproject="",
            tolerance=tolerance,
        ),
        height=height,
        width=width,
    )
    _run(plan, document, Window.of(height, width), out)


def _through_crs(plan: WarpPlan, window: Window, needed: Window, values: Array) -> Array:
    """Return a window of the grid, with positions as GDAL computes them through CRSs and GCPs.

    GDAL is told of the whole grid and the whole source, so that coordinates are the same to the last bit.
    """
    place, grid = plan.source.georeference, plan.grid
    if place.uses_gcps:
        gcps, wkt = spline_points(place, grid.crs_wkt)
        placement = vrt.spline_placement(gcps, wkt)
    else:
        wkt = str(place.crs_wkt)
        placement = vrt.affine_placement(place.grid.transform, place.grid.inverse)
    same = is_same_crs(wkt, grid.crs_wkt) if place.uses_gcps else is_affine_to(place, grid)
    middle = place.middle if turn_of(wkt) == 360 else None  # GDAL counts in degrees
    document = vrt.warp_document(
        plan,
        source=vrt.raster_document(plan, vrt.memory_raster(values), needed),
        is_masked=True,
        transformer=vrt.transformer(
            (grid.transform, grid.inverse),
            placement=placement,
            reproject="" if same else vrt.reprojection(wkt, str(grid.crs_wkt), middle=middle),
            tolerance=_AFFINE_TOLERANCE if same and not place.uses_gcps else plan.tolerance / 2,
        ),
        height=grid.height,
        width=grid.width,
    )
    # grown, since GDAL would warp a window that is one pixel thin in blocks of one
    asked = window.grown(1).intersection(Window.of(*grid.shape))
    pixels = np.empty((asked.height, asked.width), plan.working_dtype)
    _run(plan, document, asked, pixels)
    return pixels[window.within(asked)]


def _run(plan: WarpPlan, document: str, window: Window, out: Array) -> None:
    """Read a window of a document into ``out``; the caller holds the arrays that the document names."""
    try:
        with (
            rasterio.Env(session=DummySession(), **_GDAL),
            rasterio.open(document, driver="VRT", sharing=False) as warped,
        ):
            if out.dtype == plan.working_dtype:
                warped.read(1, window=window.slices, out=out)
            else:
                out[...] = warped.read(1, window=window.slices)
    except RasterioError as error:
        raise UnsupportedRasterError(
            f"expected {Path(plan.source.path).name!r} to be warped, got {error} Check its georeferencing."
        ) from error
