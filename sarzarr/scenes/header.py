"""The header of a TIFF, and a small fixed sample of its pixels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rasterio.enums import ColorInterp

from sarzarr.grids.georeference import Georeference, on_earth
from sarzarr.grids.grid import Grid
from sarzarr.rasters import BandMask, band_masks, block_sizes, open_raster, read_dtype

MAX_BANDS: Final = 64
"""Bands that a file may have; a picture of more is no radar scene."""
MAX_PIXELS: Final = 2**40
"""Pixels that a scene may have: a square of 10,000 km at 10 m."""
MAX_SIDE: Final = 2**24
"""Rows or columns that a scene may have."""
MAX_SAMPLED_BLOCK: Final = 512 * 2**20
"""Bytes of a TIFF block beyond which no pixel is sampled: one read would decode all of it."""
_FARTHEST: Final = 1e12
"""Units of a CRS beyond which a transform is none: 25,000 times around the Earth in metres."""
_COSTLY_BLOCK: Final = 64 * 2**20
_ALL: Final = 2**18
LOOKS: Final = 256
"""Windows of each band, at the most, that are looked at besides where the sample finds next to nothing."""
_RANKED: Final = 2**16
"""TIFF blocks whose bytes are compared to find those that have pixels; of more, every second one, or third."""

_STORAGE_TAGS: Final = frozenset(
    {"_FillValue", "missing_value", "fill_value", "nodata", "nodatavals", "_Unsigned", "is_tiled", "res"}
    | {"scale_factor", "add_offset", "scales", "offsets", "dtype", "grid_mapping", "coordinates"}
    | {"crs", "transform"}
)
"""Tags that say of pixels what the TIFF itself says, or did before they were copied from another file."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """The place of pixels, of a file or of all arrays of a scene."""

    georeference: Georeference
    """The place of its pixels; no CRS where the file has none or only GCPs."""

    @property
    def grid(self) -> Grid:
        """CRS, transform and (rows, columns)."""
        return self.georeference.grid

    @property
    def geolocation(self) -> str:
        """``affine``, ``rotated_affine``, ``gcps``, ``rpcs`` or ``none``."""
        return self.georeference.geolocation


@dataclass(frozen=True, kw_only=True)
class Header(Placed):
    """Everything that a TIFF says of itself."""

    bands: int
    """Number of bands."""
    dtype: np.dtype[Any]
    """The dtype that reading gives."""
    is_integer: bool
    """Whether the file holds integers; complex ones are read as complex64."""
    nodata: float | None
    """The tag's sentinel; NaN where it says NaN."""
    masks: tuple[BandMask | None, ...]
    """The mask of each band; None where a band has none."""
    block_shape: tuple[int, int]
    """(rows, columns) of a TIFF block."""
    block_bytes: int
    """Bytes of one decoded TIFF block, all bands of a pixel-interleaved file included."""
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


def tag_attributes(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return tags as attributes, as rioxarray has them: text, numbers, and arrays of the numbers of ``{1,2}``.

    Tags that xarray or rioxarray would take for statements on how the pixels are stored are left out.
    """
    named = {key.split("NC_GLOBAL#")[-1]: value for key, value in tags.items()}
    return {key: _number(value) for key, value in named.items() if key and key not in _STORAGE_TAGS}


def _number(text: str) -> Any:
    """Return the number, or the array of numbers, that a text is, within 64 bits; else the text."""
    try:
        if text.startswith("{") and text.endswith("}"):
            return np.array([float(number) for number in text[1:-1].split(",")])
        return int(text) if abs(int(text)) < 2**63 else text
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def read_header(path: Path) -> Header:
    """Return a TIFF's header; no pixel is read.

    Raises `RasterNotFoundError` or `InvalidInputError` or `UnsupportedRasterError` as `open_raster` does.
    """
    with open_raster(path) as dataset:
        return header_of(dataset, path)


def header_of(dataset: Any, path: Path) -> Header:
    """Return the header of a TIFF that is open (`sarzarr.rasters.open_raster`); no pixel is read."""
    colors = dataset.colorinterp
    block = dataset.block_shapes[0]
    is_pixel = dataset.interleaving is not None and dataset.interleaving.name.lower() == "pixel"
    dtype = read_dtype(dataset)
    return Header(
        georeference=_georeference(dataset, str(path)),
        bands=dataset.count,
        dtype=dtype,
        is_integer=dataset.dtypes[0].startswith("complex_int") or dtype.kind in "iu",
        nodata=None if dataset.nodata is None else float(dataset.nodata),
        masks=band_masks(dataset, path),
        block_shape=(int(block[0]), int(block[1])),
        block_bytes=block[0] * block[1] * dtype.itemsize * (dataset.count if is_pixel else 1),
        names=tuple(dataset.descriptions),
        units=tuple(dataset.units),
        scales=tuple(dataset.scales),
        offsets=tuple(dataset.offsets),
        tags=dataset.tags(),
        band_tags=tuple(dataset.tags(index) for index in dataset.indexes[:MAX_BANDS]),
        is_alpha=tuple(color == ColorInterp.alpha for color in colors),
        is_picture=_has_colour_table(dataset) or {ColorInterp.red, ColorInterp.green} <= set(colors),
        pages=max(1, len(dataset.subdatasets)),
    )


def _has_colour_table(dataset: Any) -> bool:
    """Whether a file has a colour table that colours: one of value v as grey v says nothing."""
    if ColorInterp.palette not in dataset.colorinterp:
        return False
    return any((*color[:3],) != (value,) * 3 for value, color in dataset.colormap(1).items())


def _georeference(dataset: Any, name: str) -> Georeference:
    """Return the place of a dataset's pixels. GCPs without an affine place no pixel by themselves."""
    points, points_crs = dataset.gcps
    a, b, c, d, e, f = (float(v) for v in dataset.transform[:6])
    is_usable = all(abs(v) < _FARTHEST for v in (a, b, c, d, e, f)) and a * e - b * d != 0  # NaN is not
    is_placed = is_usable and dataset.crs is not None and not dataset.transform.is_identity
    wkt = dataset.crs.to_wkt(version="WKT2_2019") if is_placed else None
    grid = Grid(
        height=dataset.height,
        width=dataset.width,
        crs_wkt=wkt or None,
        transform=(a, b, c, d, e, f) if is_usable else Grid.transform,
    )
    has_only_rpcs = not grid.is_georeferenced and not points and dataset.rpcs is not None
    place = Georeference(
        grid=grid,
        gcps=tuple((float(p.row), float(p.col), float(p.x), float(p.y), float(p.z or 0)) for p in points),
        gcps_crs=points_crs.to_wkt(version="WKT2_2019") if points and points_crs else None,
        geolocation="rpcs" if has_only_rpcs else "",
        name=name,
    )
    return on_earth(place)


@dataclass(frozen=True, kw_only=True)
class SampleWindow:
    """A window that is sampled."""

    row: int
    """First row."""
    col: int
    """First column."""
    height: int
    """Rows."""
    width: int
    """Columns."""


def sample_places(header: Header) -> Iterator[SampleWindow]:
    """Yield the windows of a band that are sampled: all of a small raster, else 4 x 4 windows spread over it.

    The same header gives the same windows. A TIFF block is decoded whole, so a window lies within one where it fits;
    of a file in large blocks only the middle is looked at, and of one in giant blocks nothing.
    """
    if header.block_bytes > MAX_SAMPLED_BLOCK:
        return
    is_costly = header.block_bytes > _COSTLY_BLOCK
    steps = [1 / 2] if is_costly else [1 / 8, 3 / 8, 5 / 8, 7 / 8]
    yield from _lattice(header, steps, is_costly=is_costly)


def further_places(path: Path, header: Header) -> Iterator[SampleWindow]:
    """Yield `LOOKS` windows more, at the most, for a raster whose sample has next to no pixel that was measured.

    First those in the TIFF blocks of the most bytes, where pixels are: empty blocks compress to next to nothing, or
    are not there. Then a finer lattice. No pixel is read to choose them.
    """
    rows, cols = header.grid.shape
    if header.block_bytes > _COSTLY_BLOCK or rows * cols <= _ALL:
        return
    height, width = header.block_shape
    sizes = block_sizes(path, limit=_RANKED)
    heavy = sorted(sizes, key=lambda at: -sizes[at])[: LOOKS // 4] if len({*sizes.values()}) > 1 else []
    for down, across in heavy:
        row, col = down * height, across * width
        row, col = (
            row + max(0, min(height, rows - row) - 64) // 2,
            col + max(0, min(width, cols - col) - 256) // 2,
        )
        yield SampleWindow(row=row, col=col, height=min(64, rows - row), width=min(256, cols - col))
    side = math.isqrt(LOOKS - len(heavy))
    yield from _lattice(header, [(i + 0.5) / side for i in range(side)], is_costly=False)


def _within_one(first: int, length: int, block: int) -> int:
    """Return the start of ``length`` pixels, ``first`` or so far before it that they fit one block, if they can."""
    beyond = first % block + length - block
    return first - beyond if length <= block and beyond > 0 else first


def _lattice(header: Header, steps: Sequence[float], *, is_costly: bool) -> Iterator[SampleWindow]:
    """Yield windows, in pixels, at ``steps``, shares of the raster's height and of its width."""
    rows, cols = header.grid.shape
    if rows * cols <= _ALL:
        yield SampleWindow(row=0, col=0, height=rows, width=cols)
        return
    height, width = (min(rows, 512), min(cols, 512)) if is_costly else (min(rows, 64), min(cols, 256))
    down, across = header.block_shape
    for top in sorted({int(step * (rows - height)) for step in steps}):
        for left in sorted({int(step * (cols - width)) for step in steps}):
            row, col = _within_one(top, height, down), _within_one(left, width, across)
            yield SampleWindow(row=row, col=col, height=height, width=width)
