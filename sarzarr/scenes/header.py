"""Read the header of a TIFF and a small fixed sample of its pixels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rasterio.enums import ColorInterp

from sarzarr.grids.grid import Grid
from sarzarr.rasters import open_raster, read_dtype, read_window

MAX_BANDS: Final = 64
"""Bands that a file may have; a picture of more is no radar scene."""
MAX_SAMPLED_BLOCK: Final = 512 * 2**20
"""Bytes of a block beyond which no pixel is sampled: one read would decode all of it."""
_COSTLY_BLOCK: Final = 64 * 2**20
_ALL: Final = 2**18
GCP = tuple[float, float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a TIFF says of itself."""

    grid: Grid
    """CRS, transform and shape; no CRS where the file has none or only GCPs."""
    geolocation: str
    """``affine``, ``rotated_affine``, ``gcps``, ``rpcs`` or ``none``."""
    gcps: tuple[GCP, ...]
    """(row, col, x, y, z) in the CRS of ``gcps_crs_wkt``."""
    gcps_crs_wkt: str | None
    """WKT2 of the GCPs' CRS."""
    bands: int
    """Number of bands."""
    dtype: np.dtype[Any]
    """What reading gives."""
    is_integer: bool
    """Whether the file holds integers; complex ones are read as complex64."""
    nodata: float | None
    """The tag's sentinel; NaN where it says NaN."""
    block_shape: tuple[int, int]
    """(rows, columns) of a block."""
    block_bytes: int
    """Bytes of one decoded block, all bands of a pixel-interleaved file included."""
    compression: str
    """``none``, ``deflate``, ... in lower case."""
    interleaving: str
    """``band`` or ``pixel``."""
    names: tuple[str | None, ...]
    """Description of each band."""
    units: tuple[str | None, ...]
    """Unit of each band."""
    scales: tuple[float, ...]
    """Declared scale of each band."""
    offsets: tuple[float, ...]
    """Declared offset of each band."""
    tags: Mapping[str, str]
    """The file's tags."""
    band_tags: tuple[Mapping[str, str], ...]
    """Each band's tags."""
    is_alpha: tuple[bool, ...]
    """Whether each band is an opacity."""
    is_picture: bool
    """Whether the file is a colour picture or has a colour table."""
    pages: int
    """Pictures in the file; only the first can be read."""


def read_header(path: Path) -> Header:
    """Return a TIFF's header; no pixel is read.

    Raises
    ------
    RasterNotFoundError, InvalidInputError, UnsupportedRasterError
        As `open_raster` does.
    """
    with open_raster(path) as dataset:
        return _header(dataset)


def _header(dataset: Any) -> Header:
    colors = dataset.colorinterp
    block = dataset.block_shapes[0]
    is_pixel = dataset.interleaving is not None and dataset.interleaving.name.lower() == "pixel"
    file_dtype = dataset.dtypes[0]
    dtype = read_dtype(dataset)
    count = dataset.count
    indexes = dataset.indexes[:MAX_BANDS]
    return Header(
        **_georeferencing(dataset),
        bands=count,
        dtype=dtype,
        is_integer=file_dtype.startswith("complex_int") or dtype.kind in "iu",
        nodata=None if dataset.nodata is None else float(dataset.nodata),
        block_shape=(int(block[0]), int(block[1])),
        block_bytes=block[0] * block[1] * dtype.itemsize * (count if is_pixel else 1),
        compression=dataset.compression.name.lower() if dataset.compression else "none",
        interleaving="pixel" if is_pixel else "band",
        names=tuple(dataset.descriptions),
        units=tuple(dataset.units),
        scales=tuple(dataset.scales),
        offsets=tuple(dataset.offsets),
        tags=dataset.tags(),
        band_tags=tuple(dataset.tags(index) for index in indexes),
        is_alpha=tuple(color == ColorInterp.alpha for color in colors),
        is_picture=ColorInterp.palette in colors or {ColorInterp.red, ColorInterp.green} <= set(colors),
        pages=max(1, len(dataset.subdatasets)),
    )


def _georeferencing(dataset: Any) -> dict[str, Any]:
    """Return grid, geolocation, gcps and their CRS. GCPs without an affine place no pixel by themselves."""
    points, points_crs = dataset.gcps
    a, b, c, d, e, f = (float(v) for v in dataset.transform[:6])
    is_usable = all(math.isfinite(v) for v in (a, b, c, d, e, f)) and a * e - b * d != 0
    is_placed = is_usable and dataset.crs is not None and not dataset.transform.is_identity
    wkt = dataset.crs.to_wkt(version="WKT2_2019") if is_placed else None
    grid = Grid(
        height=dataset.height,
        width=dataset.width,
        crs_wkt=wkt or None,
        transform=(a, b, c, d, e, f) if is_usable else Grid.transform,
    )
    geolocation = "none"
    if grid.is_georeferenced:
        geolocation = "rotated_affine" if grid.is_rotated else "affine"
    elif points:
        geolocation = "gcps"
    elif dataset.rpcs is not None:
        geolocation = "rpcs"
    return {
        "grid": grid,
        "geolocation": geolocation,
        "gcps": tuple((float(p.row), float(p.col), float(p.x), float(p.y), float(p.z or 0)) for p in points),
        "gcps_crs_wkt": points_crs.to_wkt(version="WKT2_2019") if points and points_crs else None,
    }


def sample_windows(path: Path, header: Header, *, bands: Sequence[int]) -> Iterator[np.ndarray[Any, Any]]:
    """Yield sampled windows of bands: all of a small raster, else 4 x 4 windows spread over it.

    The same file gives the same windows. A block is decoded whole, so a window lies within one where it fits; of a
    file in large blocks only the middle is looked at, and of one in giant blocks nothing.

    Raises
    ------
    UnsupportedRasterError
        The pixels cannot be decoded.
    """
    if header.block_bytes > MAX_SAMPLED_BLOCK:
        return
    rows, cols = header.block_shape
    for row, col, height, width in _lattice(*header.grid.shape, is_costly=header.block_bytes > _COSTLY_BLOCK):
        row, col = _within_one(row, height, rows), _within_one(col, width, cols)
        for band in bands:
            yield read_window(path, band=band, row=row, col=col, height=height, width=width)


def _within_one(first: int, length: int, block: int) -> int:
    """Return where ``length`` pixels begin that were to begin at ``first``, moved back into one block if they fit."""
    beyond = first % block + length - block
    return first - beyond if length <= block and beyond > 0 else first


def _lattice(rows: int, cols: int, *, is_costly: bool) -> list[tuple[int, int, int, int]]:
    """Return (row, col, height, width) of the windows to look at."""
    if rows * cols <= _ALL:
        return [(0, 0, rows, cols)]
    height, width = (min(rows, 512), min(cols, 512)) if is_costly else (min(rows, 64), min(cols, 256))
    steps = [1 / 2] if is_costly else [1 / 8, 3 / 8, 5 / 8, 7 / 8]
    tops = sorted({int(step * (rows - height)) for step in steps})
    lefts = sorted({int(step * (cols - width)) for step in steps})
    return [(top, left, height, width) for top in tops for left in lefts]
