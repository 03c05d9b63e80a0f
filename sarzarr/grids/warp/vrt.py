"""GDAL's virtual raster documents for one warp: pure text, made here and nowhere else.

rasterio's ``WarpedVRT`` cannot say what a seamless warp needs: with a destination grid it drops the
ground control points without a word, and its tolerance cannot be 0. A document can.
The pixels come from an array in this process, so no document holds a path.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from sarzarr.grids.georeference import Gcp
from sarzarr.grids.grid import Transform
from sarzarr.grids.window import Window

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


def memory_raster(address: int, *, dtype: str, height: int, width: int) -> str:
    """Return the name of a raster in memory: C-contiguous at ``address``, and alive while it is open."""
    kind = GDAL_TYPES[dtype]
    return f"MEM:::DATAPOINTER={address:#x},PIXELS={width},LINES={height},DATATYPE={kind}"


def raster_document(
    pixels: str, part: Window, *, dtype: str, height: int, width: int, nodata: str | None
) -> str:
    """Return a raster of which one window is the raster named ``pixels``, and all else is ``nodata``.

    The whole raster's pixel coordinates stay in force, to the last bit.
    """
    shape = f'xSize="{part.width}" ySize="{part.height}"'
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
        f'<VRTRasterBand dataType="{GDAL_TYPES[dtype]}" band="1">{_tag("NoDataValue", nodata)}<SimpleSource>'
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


def reprojection(source_wkt: str, target_wkt: str) -> str:
    """Return the element that takes coordinates from one CRS to another."""
    return (
        "<ReprojectTransformer><ReprojectionTransformer>"
        f"<SourceSRS>{escape(source_wkt)}</SourceSRS><TargetSRS>{escape(target_wkt)}</TargetSRS>"
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

    Parameters
    ----------
    placement, reproject
        The elements that place source pixels, and take their CRS to the frame's ("" where they are the same).
    tolerance
        Source pixels by which positions may be interpolated along a row; 0 computes each one.
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


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """The resampling of a warp, and the numbers that it is done in."""

    method: str
    """A key of `ALGORITHMS`."""
    scale: tuple[float, float]
    """(x, y) target pixels per source pixel: how far kernels widen when they shrink a raster. GDAL would choose
    it anew for every window, from its shape: a seam at each border."""
    dtype: str
    """A key of `GDAL_TYPES`, that the warp works in."""
    nodata: str | None
    """Text of the value that says "no data", in the source and in the result; None for neither."""
    is_masked: bool
    """Whether the source may hold that value: to look for it takes a pass over all of its pixels."""


def warp_document(kernel: Kernel, *, source: str, transformer: str, height: int, width: int) -> str:
    """Return the document of a warp of ``source``, a document or a name, to ``height`` x ``width`` pixels."""
    kind, nodata = GDAL_TYPES[kernel.dtype], kernel.nodata
    options = {
        "INIT_DEST": "0" if nodata is None else nodata,
        "ERROR_OUT_IF_EMPTY_SOURCE_WINDOW": "FALSE",
        "XSCALE": repr(kernel.scale[0]),
        "YSCALE": repr(kernel.scale[1]),
    }
    sides = ["Src"] if kernel.is_masked and nodata is not None else []
    if nodata not in (None, "nan"):
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
        f"{_tag('NoDataValue', nodata)}</VRTRasterBand>"
        "<BlockXSize>1</BlockXSize><BlockYSize>1</BlockYSize>"  # a window is warped as one, never in blocks
        f"<GDALWarpOptions><WarpMemoryLimit>{_WARP_BYTES}</WarpMemoryLimit>"
        f"<ResampleAlg>{ALGORITHMS[kernel.method]}</ResampleAlg><WorkingDataType>{kind}</WorkingDataType>"
        + "".join(f'<Option name="{name}">{value}</Option>' for name, value in options.items())
        + f'<SourceDataset relativeToVRT="0">{escape(source)}</SourceDataset>'
        f"<Transformer>{transformer}</Transformer>"
        f'<BandList><BandMapping src="1" dst="1">{sentinels}</BandMapping></BandList>'
        "</GDALWarpOptions></VRTDataset>"
    )


def _tag(name: str, text: str | None) -> str:
    return "" if text is None else f"<{name}>{text}</{name}>"


def _gdal_order(transform: Transform) -> str:
    a, b, c, d, e, f = transform
    return ",".join(repr(float(v)) for v in (c, a, b, f, d, e))
