"""Where the pixels of one raster lie on another's grid: affine, rotated, or by ground control points.

GCP-only rasters are placed by a thin-plate spline through all of their points, never by a fitted
affine, which is kilometres off on a Sentinel-1 GRD. No terrain enters: between the points, heights
still shift pixels by hundreds of metres.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer

from sarzarr.arrays import Array
from sarzarr.conventions import Representation
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.grids.crs import crs_name, crs_wkt, parse_crs, transform_points
from sarzarr.grids.grid import Grid

LAYER: Final = "layer"
"""Representation of a raster that is warped as it is: a mask, a DEM, an angle."""
_REPRESENTATIONS: Final = (
    Representation.POWER,
    Representation.AMPLITUDE,
    Representation.DB,
    Representation.COMPLEX,
    LAYER,
)
_GCP_RESIDUAL: Final = 0.1
"""Pixels by which a spline through the GCPs may miss one of them; it misses where they contradict."""
_EDGE_POINTS: Final = 65
"""Points along each edge of a raster when its footprint is taken to another CRS."""


@dataclass(frozen=True, kw_only=True)
class WarpSource:
    """One band of a GeoTIFF, what its numbers are and where its pixels lie."""

    path: str
    """The GeoTIFF, a local file."""
    band: int
    """Its band, from 1."""
    representation: str
    """``power``, ``amplitude``, ``db`` or ``complex``; ``layer`` for a raster that is warped as it is."""
    dtype: str
    """NumPy dtype that `sarzarr.rasters.read_window` gives: ``uint16``, ``float32``, ``complex64``, ..."""
    grid: Grid
    """Shape, and transform and CRS where the file has them."""
    nodata: float | None = None
    """The sentinel; None where there is none. NaN becomes None: NaN and Inf are invalid in any case."""
    gcps: tuple[tuple[float, float, float, float, float], ...] = ()
    """Ground control points (row, col, x, y, z); they count where ``grid`` has no CRS."""
    gcps_crs_wkt: str | None = None
    """WKT2 of the GCPs' CRS."""
    has_rpcs: bool = False
    """Whether rational polynomials are all that places the pixels."""

    def __post_init__(self) -> None:
        if self.representation not in _REPRESENTATIONS:
            raise InvalidInputError(
                f"expected a representation of {', '.join(_REPRESENTATIONS)}, got {self.representation!r}. "
                "Denormalize normalized values first."
            )
        if self.nodata is not None and math.isnan(self.nodata):
            object.__setattr__(self, "nodata", None)  # NaN equals nothing, and a plan must equal its copy
        is_complex = np.dtype(self.dtype).kind == "c"
        if is_complex != (self.representation == Representation.COMPLEX):
            raise InvalidInputError(
                f"representation 'complex' belongs to complex values, got {self.representation!r} for "
                f"{self.dtype}. Complex is never warped: its power is."
            )

    @property
    def is_layer(self) -> bool:
        """Whether its values are kept as they are, and are not backscatter."""
        return self.representation == LAYER

    @property
    def uses_gcps(self) -> bool:
        """Whether ground control points are all that places its pixels."""
        return not self.grid.is_georeferenced and bool(self.gcps) and self.gcps_crs_wkt is not None

    @property
    def crs_wkt(self) -> str | None:
        """WKT2 of the CRS that its transform or its GCPs are in."""
        return self.gcps_crs_wkt if self.uses_gcps else self.grid.crs_wkt


# ---------------------------------------------------------------- ground control points
Gcps = tuple[tuple[float, float, float, float, float], ...]
"""(row, col, x, y, z) each."""


def spline_points(source: WarpSource, crs: str | None) -> tuple[Gcps, str]:
    """Return the GCPs that a spline towards ``crs`` goes through, and the WKT of the CRS that they are in.

    They are the source's own, except where their longitudes jump at the antimeridian: no spline goes
    through a jump, and they are taken to ``crs`` first.

    Raises
    ------
    UnsupportedRasterError
        There are fewer than 3 different points, some are not finite, or they jump in ``crs`` too.
    """
    gcps, wkt = source.gcps, str(source.gcps_crs_wkt)
    values = np.array(gcps, np.float64)
    if len(gcps) < 3 or not np.isfinite(values[:, :4]).all() or _on_one_line(values):
        raise _no_spline(source)
    if not _jumps(gcps, wkt) or crs is None:
        return gcps, wkt
    xs, ys = transform_points(wkt, crs, *np.array([gcp[2:4] for gcp in gcps]).T)
    taken = tuple((g[0], g[1], float(x), float(y), g[4]) for g, x, y in zip(gcps, xs, ys, strict=True))
    if _jumps(taken, crs) or not np.isfinite([xs, ys]).all():
        raise UnsupportedRasterError(
            f"expected a CRS without a jump where {source.path!r} crosses the antimeridian, got "
            f"{crs_name(crs)}. Choose a projected CRS, such as its UTM zone."
        )
    return taken, crs


def _on_one_line(gcps: Array) -> bool:
    """Whether pixels, or places on the ground, are all on one line, or at one point."""
    for at in (gcps[:, :2], gcps[:, 2:4]):
        longer, shorter = np.linalg.svd(at - at.mean(axis=0), compute_uv=False)
        if shorter <= 1e-6 * longer:
            return True
    return False


def _jumps(gcps: Gcps, wkt: str) -> bool:
    xs = [gcp[2] for gcp in gcps]
    return bool(parse_crs(wkt).is_geographic) and max(xs) - min(xs) > 180.0


def _no_spline(source: WarpSource) -> UnsupportedRasterError:
    return UnsupportedRasterError(
        f"expected at least 3 ground control points that are not on one line and do not contradict each "
        f"other, got {len(source.gcps)} in {source.path!r}. "
        "Georeference the file, or leave out crs= to keep its own grid."
    )


def _check_spline(source: WarpSource, crs: str | None) -> None:
    """Raise `UnsupportedRasterError` where a spline does not go through a source's GCPs."""
    gcps, _ = spline_points(source, crs)
    values = np.array(gcps, np.float64)
    with _spline(gcps) as spline:
        cols, rows = spline.xy(values[:, 3], values[:, 2], offset="ul")
    off = max(np.abs(rows - values[:, 0]).max(), np.abs(cols - values[:, 1]).max())
    if not off <= _GCP_RESIDUAL:  # NaN too
        raise _no_spline(source)


def _spline(gcps: Gcps) -> Any:
    """Return the spline whose ``rowcol(cols, rows)`` is (y, x), and whose ``xy(ys, xs)`` is (cols, rows).

    Ground and pixels have changed places, because rasterio builds the spline from the ground to pixels,
    and GDAL's warper inverts the one from pixels to the ground. They are two functions: between the noisy
    points of a Sentinel-1 SLC they are 0.6 pixels apart.
    """
    return GCPTransformer([GroundControlPoint(y, x, col, row) for row, col, x, y, _ in gcps], tps=True)


# ---------------------------------------------------------------- from pixels to pixels
def locate(source: WarpSource, grid: Grid, rows: Array, cols: Array) -> tuple[Array, Array]:
    """Return (rows, cols) in the source of pixel positions of a grid, float64, shapes kept.

    Positions are fractional with (0, 0) at the outer corner. Not finite where there is none.
    """
    gcps, wkt = spline_points(source, grid.crs_wkt) if source.uses_gcps else ((), source.crs_wkt)
    xs, ys = grid.to_xy(np.asarray(rows, np.float64), np.asarray(cols, np.float64))
    if grid.crs_wkt is not None and wkt is not None:
        xs, ys = transform_points(grid.crs_wkt, wkt, xs, ys)
    if not gcps:
        with np.errstate(invalid="ignore"):  # Inf in, NaN out: no position either way
            return source.grid.to_pixels(xs, ys)
    out = np.full((2, xs.size), np.inf)
    finite = np.isfinite(xs.ravel()) & np.isfinite(ys.ravel())
    if finite.any():
        with _spline(gcps) as spline:
            out[::-1, finite] = spline.xy(ys.ravel()[finite], xs.ravel()[finite], offset="ul")
    return out[0].reshape(xs.shape), out[1].reshape(xs.shape)


def project(source: WarpSource, crs: str | None, rows: Array, cols: Array) -> tuple[Array, Array]:
    """Return (x, y) in ``crs`` of pixel positions of a source; the inverse of `locate`."""
    rows, cols = np.asarray(rows, np.float64), np.asarray(cols, np.float64)
    wkt = source.crs_wkt
    if source.uses_gcps:
        gcps, wkt = spline_points(source, crs)
        with _spline(gcps) as spline:
            ys, xs = (
                v.reshape(rows.shape) for v in spline.rowcol(cols.ravel(), rows.ravel(), op=np.positive)
            )
    else:
        xs, ys = source.grid.to_xy(rows, cols)
    if crs is None or wkt is None:
        return xs, ys
    return transform_points(wkt, crs, xs, ys)


def footprint(source: WarpSource, crs: str | None) -> tuple[float, float, float, float]:
    """Return (x_min, y_min, x_max, y_max) of a source's edges in ``crs``.

    Points of the edges that have no position there are left out.

    Raises
    ------
    UnsupportedRasterError
        No point of the edges has a position in ``crs``.
    """
    height, width = source.grid.shape
    along = np.linspace(0.0, 1.0, _EDGE_POINTS)
    rows = np.concatenate([0 * along, height * along, height + 0 * along, height * along])
    cols = np.concatenate([width * along, width + 0 * along, width * along, 0 * along])
    xs, ys = project(source, crs, rows, cols)
    finite = np.isfinite(xs) & np.isfinite(ys)
    if not finite.any():
        raise UnsupportedRasterError(
            f"expected a raster that lies within {crs_name(crs)}, got {source.path!r} outside of it. "
            "Choose a CRS that covers it."
        )
    xs, ys = xs[finite], ys[finite]
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())


def covering(sources: Iterable[WarpSource], *, crs: str, pixel_size: float) -> Grid:
    """Return the smallest north-up grid of ``crs`` that covers all sources, its edges on whole pixel sizes.

    Parameters
    ----------
    crs
        A code such as ``EPSG:32633``, or WKT.
    pixel_size
        Width and height of a pixel, in units of ``crs``.

    Raises
    ------
    InvalidInputError
        There are no sources, ``crs`` is unknown, or the pixel size is not positive.
    UnsupportedRasterError
        A source has no position in ``crs``.
    """
    wkt = crs_wkt(crs)
    boxes = []
    for source in sources:
        check_placed(source, wkt)
        boxes.append(footprint(source, wkt))
    if not boxes:
        raise InvalidInputError("expected at least one raster to cover, got none. Give the files.")
    x_min, y_min, x_max, y_max = (
        pick(values) for pick, values in zip((min, min, max, max), zip(*boxes, strict=True), strict=True)
    )
    return Grid.from_bounds(
        x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max, pixel_size=pixel_size, crs_wkt=wkt
    )


def check_placed(source: WarpSource, crs: str | None) -> None:
    """Raise `UnsupportedRasterError`, with the remedy, where nothing places a source in ``crs``."""
    if source.uses_gcps:
        _check_spline(source, crs)
    elif not source.grid.is_georeferenced:
        got = "rational polynomials (RPC)" if source.has_rpcs else "neither"
        remedy = "Georeference it"
        if source.has_rpcs:
            remedy = "Orthorectify it with a DEM first (gdalwarp -rpc -to RPC_DEM=DEM.tif)"
        raise UnsupportedRasterError(
            f"expected a raster with a CRS or ground control points, got {source.path!r} with {got}. "
            f"{remedy}, or leave out crs= to keep its own grid."
        )
