"""GDAL's virtual raster documents for one warp: pure text, made here and nowhere else.

rasterio's ``WarpedVRT`` cannot say what a seamless warp needs: with a destination grid it drops the
ground control points without a word, and its tolerance cannot be 0. A document can.
The pixels come from an array in this process, so no document holds a path.
"""

from collections.abc import Iterable, Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from sarzarr.arrays import Array
from sarzarr.grids.georeference import Gcp
from sarzarr.grids.grid import Transform
from sarzarr.grids.warp.plan import GDAL_TYPES, WarpPlan
from sarzarr.grids.window import Window

ALGORITHMS: Final = {
    "nearest": "NearestNeighbour",
    "bilinear": "Bilinear",
    "cubic": "Cubic",
    "lanczos": "Lanczos",
    "average": "Average",
    "rms": "RootMeanSquare",
    "mode": "Mode",
    "min": "Minimum",
    "max": "Maximum",
    "med": "Median",
}
"""GDAL's name of each method, as its documents spell it."""
_WARP_BYTES: Final = 2**40
"""GDAL's own limit on a warp's memory: out of the way, since windows are cut before they reach it."""


def memory_raster(pixels: Array) -> str:
    """Return the name of a C-contiguous (height, width) array, which the caller holds while it is open."""
    (height, width), kind = pixels.shape, GDAL_TYPES[str(pixels.dtype)]
    return f"MEM:::DATAPOINTER={pixels.ctypes.data:#x},PIXELS={width},LINES={height},DATATYPE={kind}"


def raster_document(plan: WarpPlan, pixels: str, part: Window) -> str:
    """Return a plan's source of which one window is the raster named ``pixels``, and all else is nodata.

    The source's pixel coordinates stay in force, to the last bit.
    """
    height, width = plan.source.grid.shape
    shape = f'xSize="{part.width}" ySize="{part.height}"'
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
        f'<VRTRasterBand dataType="{GDAL_TYPES[plan.working_dtype]}" band="1">{_nodata_tag(plan)}<SimpleSource>'
        f'<SourceFilename relativeToVRT="0" shared="0">{pixels}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" {shape}/><DstRect xOff="{part.col}" yOff="{part.row}" {shape}/>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )


def affine_placement(transform: Transform, inverse: Transform) -> str:
    """Return the element that places source pixels by a geotransform."""
    return (
        f"<SrcGeoTransform>{_gdal_order(transform)}</SrcGeoTransform>"
        f"<SrcInvGeoTransform>{_gdal_order(inverse)}</SrcInvGeoTransform>"
    )


def spline_placement(gcps: Sequence[Gcp], crs_wkt: str) -> str:
    """Return the element that places source pixels by a thin-plate spline through GCPs."""
    points = _points((row, col, x, y) for row, col, x, y, _ in gcps)
    return (
        "<SrcTPSTransformer><TPSTransformer><Reversed>0</Reversed>"
        f"<GCPList Projection={quoteattr(crs_wkt)}>{points}</GCPList></TPSTransformer></SrcTPSTransformer>"
    )


def reprojection(source_wkt: str, target_wkt: str, *, middle: float | None) -> str:
    """Return the element that takes coordinates from one CRS to another.

    ``middle`` is the longitude that those of the source are within half a turn of; None where it has none.
    """
    turn = "" if middle is None else f'<Options><Option key="CENTER_LONG">{middle!r}</Option></Options>'
    return (
        "<ReprojectTransformer><ReprojectionTransformer>"
        f"<SourceSRS>{escape(source_wkt)}</SourceSRS><TargetSRS>{escape(target_wkt)}</TargetSRS>{turn}"
        "</ReprojectionTransformer></ReprojectTransformer>"
    )


def cubic_placement(points: Sequence[tuple[float, float, float, float]]) -> str:
    """Return the element that places source pixels by a cubic through (v, u, row, col), v down and u across."""
    controls = _points((row, col, u, v) for v, u, row, col in points)
    return (
        "<SrcGCPTransformer><GCPTransformer><Order>3</Order><Reversed>0</Reversed>"
        f"<GCPList>{controls}</GCPList></GCPTransformer></SrcGCPTransformer>"
    )


def _points(points: Iterable[tuple[float, float, float, float]]) -> str:
    return "".join(
        f'<GCP Id="{i}" Pixel="{col!r}" Line="{row!r}" X="{x!r}" Y="{y!r}" Z="0"/>'
        for i, (row, col, x, y) in enumerate(points)
    )


def unit_frame(height: int, width: int) -> tuple[Transform, Transform]:
    """Return the frame of a window whose edges are at -1 and 1 both ways: where a cubic is well conditioned.

    A frame is a transform from the pixels that a warp makes to where source pixels are placed, and its inverse.
    """
    down, across = height / 2.0, width / 2.0
    return (2.0 / width, 0.0, -1.0, 0.0, 2.0 / height, -1.0), (across, 0.0, across, 0.0, down, down)


def transformer(
    frame: tuple[Transform, Transform], *, placement: str, reproject: str, tolerance: float
) -> str:
    """Return the element that takes a frame's pixels to source pixels.

    ``placement`` and ``reproject`` are the elements that place source pixels, and that take their CRS to the
    frame's ("" where they are the same). Along a row, positions are interpolated within ``tolerance`` source pixels;
    0 computes each one.
    """
    positions = (
        f"<GenImgProjTransformer>{placement}"
        f"<DstGeoTransform>{_gdal_order(frame[0])}</DstGeoTransform>"
        f"<DstInvGeoTransform>{_gdal_order(frame[1])}</DstInvGeoTransform>"
        f"{reproject}</GenImgProjTransformer>"
    )
    if tolerance == 0:
        return positions
    return (
        f"<ApproxTransformer><MaxError>{tolerance!r}</MaxError>"
        f"<BaseTransformer>{positions}</BaseTransformer></ApproxTransformer>"
    )


def warp_document(
    plan: WarpPlan, *, source: str, is_masked: bool, transformer: str, height: int, width: int
) -> str:
    """Return the document of a warp of ``source``, a document or a name, to ``height`` x ``width`` pixels.

    ``is_masked`` says whether the source may hold the plan's fill: to look for it takes a pass over its pixels.
    """
    kind, nodata = GDAL_TYPES[plan.working_dtype], repr(plan.fill)
    options = {
        "INIT_DEST": "0" if plan.fill is None else nodata,
        "ERROR_OUT_IF_EMPTY_SOURCE_WINDOW": "FALSE",
        "XSCALE": repr(plan.scale[0]),
        "YSCALE": repr(plan.scale[1]),
    }
    sides = ["Src"] if is_masked and plan.fill is not None else []
    if nodata not in ("None", "nan"):
        # values that come out as the sentinel are moved off it; looking for NaN doubles a warp's time in vain
        sides.append("Dst")
    sentinels = "".join(
        f"<{side}NoDataReal>{nodata}</{side}NoDataReal><{side}NoDataImag>0</{side}NoDataImag>"
        for side in sides
    )
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}" subClass="VRTWarpedDataset">'
        "<GeoTransform>0,1,0,0,0,-1</GeoTransform>"  # not looked at: the transformer has its own
        f'<VRTRasterBand dataType="{kind}" band="1" subClass="VRTWarpedRasterBand">'
        f"{_nodata_tag(plan)}</VRTRasterBand>"
        "<BlockXSize>1</BlockXSize><BlockYSize>1</BlockYSize>"  # a window is warped as one, never in blocks
        f"<GDALWarpOptions><WarpMemoryLimit>{_WARP_BYTES}</WarpMemoryLimit>"
        f"<ResampleAlg>{ALGORITHMS[plan.method]}</ResampleAlg><WorkingDataType>{kind}</WorkingDataType>"
        + "".join(f'<Option name="{name}">{value}</Option>' for name, value in options.items())
        + f'<SourceDataset relativeToVRT="0">{escape(source)}</SourceDataset>'
        f"<Transformer>{transformer}</Transformer>"
        f'<BandList><BandMapping src="1" dst="1">{sentinels}</BandMapping></BandList>'
        "</GDALWarpOptions></VRTDataset>"
    )


def _nodata_tag(plan: WarpPlan) -> str:
    return "" if plan.fill is None else f"<NoDataValue>{plan.fill!r}</NoDataValue>"


def _gdal_order(transform: Transform) -> str:
    a, b, c, d, e, f = transform
    return ",".join(repr(float(v)) for v in (c, a, b, f, d, e))
