"""Cloud-optimized GeoTIFFs, streamed: GDAL's COG driver copies a file of tiles, with overviews averaged here.

GDAL reports a disk that fills while it writes a TIFF in some cases; in others it leaves a file that is short without
a word. So every block is read back from the file that was made, and held against the checksum of what was to be
written.
"""

import math
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, NoRoomError
from sarzarr.files import scratch_folder, whole_file
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.window import Window
from sarzarr.rasters import bound_cache, without_place_warnings
from sarzarr.store.journal import NO_ROOM
from sarzarr.store.overviews.average import halved, mean_power
from sarzarr.tasks import cpu_count
from sarzarr.text import size_text

BLOCK: Final = (1024, 2048)
"""Rows and columns that are held at once, of one band."""
TILE: Final = 512
"""Rows and columns of a tile; a raster that has no more needs no overview."""
COMPRESSIONS: Final = ("deflate", "zstd", "lzw", "none")
_ENVIRONMENT: Final = {"GDAL_PAM_ENABLED": "NO", "GDAL_TIFF_INTERNAL_MASK": "YES"}
"""All that is said stands in the file itself, and in no sidecar."""
_TILED: Final[Mapping[str, Any]] = {
    "tiled": True,
    "blockxsize": TILE,
    "blockysize": TILE,
    "interleave": "band",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputBand:
    """One band of a file that is to be written: its name, its numbers, and how they are averaged."""

    name: str
    """Its description in the file."""
    dtype: str
    """The dtype of its pixels, one that GDAL has."""
    nodata: float | int | None
    """The value that says "no data"; NaN of floats."""
    units: str
    """The unit of its numbers; empty where nothing tells."""
    tags: Mapping[str, str]
    """What is said of it, by name."""
    read: Callable[[Window], tuple[Array, Array | None]]
    """From a window of the scene, (rows, columns) of pixels, and what overviews are means of: floats, NaN where there
    is nothing; None: an overview has the pixel in the middle of those that it stands for."""
    from_mean: Callable[[Array], Array] = field(default=lambda mean: mean)
    """From such means, float64 of any shape, the pixels of an overview."""


@dataclass(frozen=True, kw_only=True)
class Raster:
    """A file that is to be written: its bands, the part of a scene that it has, and its tags."""

    bands: Sequence[OutputBand]
    """Its bands, all of one dtype and one nodata value."""
    place: Georeference
    """The place of the window's pixels on the ground, and its shape."""
    window: Window
    """The pixels of the scene that it has."""
    tags: Mapping[str, str]
    """What is said of all bands, by name."""
    compress: str = "deflate"
    """One of `COMPRESSIONS`."""

    @property
    def levels(self) -> range:
        """Numbers of its levels: level k has a pixel for 2^k x 2^k; the last one fits a tile."""
        longest = max(self.place.grid.shape)
        return range(1 + min(max(0, math.ceil(math.log2(longest / TILE))), int(math.log2(min(BLOCK)))))

    def shape(self, level: int) -> tuple[int, int]:
        """Return (rows, columns) of a level."""
        height, width = (math.ceil(n / 2**level) for n in self.place.grid.shape)
        return height, width

    @property
    def blocks(self) -> list[Window]:
        """Windows of its own pixels that are held at once, row by row."""
        whole = Window.of(*self.place.grid.shape)
        starts = product(range(0, whole.height, BLOCK[0]), range(0, whole.width, BLOCK[1]))
        cut = (Window(row=row, col=col, height=BLOCK[0], width=BLOCK[1]) for row, col in starts)
        return [block.intersection(whole) for block in cut]

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels, without overviews."""
        return math.prod(self.place.grid.shape) * sum(np.dtype(band.dtype).itemsize for band in self.bands)


def write_cog(path: Path, raster: Raster, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write a raster as a cloud-optimized GeoTIFF, whole or not at all, in the place of what is there.

    Beside ``path`` its pixels stand uncompressed until then, in a hidden folder that ends in ``.partial``; of each
    band a block of `BLOCK` (rows, columns) is held. ``progress`` is called with (bytes of pixels that are done, all).

    Raises `NoRoomError` where the disk has no room, fails, or does not give back what was written;
    `InvalidInputError` where nothing can be written there.
    """
    if raster.compress not in COMPRESSIONS:
        raise InvalidInputError(
            f"compress must be one of {', '.join(COMPRESSIONS)}, got {raster.compress!r}."
        )
    path = path.absolute()
    if path.is_dir():
        raise InvalidInputError(
            f"a path of a file was expected, got the folder {str(path)!r}. Give x.tif in it."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if raster.nbytes > free:
        raise NoRoomError(
            f"expected {size_text(raster.nbytes)} of free space beside {path.name}, where its pixels stand before "
            f"they are compressed, got {size_text(free)}. Make room, or export a part with window= or bounds=."
        )
    with whole_file(path) as partial, scratch_folder(path) as folder, _gdal(path):
        checksums = _write_levels(folder, raster, progress)
        _copy(_described(folder, raster), partial, raster)
        for level in raster.levels:
            if _read_back(partial, raster, level) != checksums[level]:
                raise NoRoomError(_no_room(path, "pixels that are not what was written"))
    return path


@contextmanager
def _gdal(path: Path) -> Iterator[None]:
    """Set GDAL up for this thread; an error of it is one of the disk, since all that is written is ours."""
    import rasterio
    from rasterio.errors import RasterioError

    with without_place_warnings():  # under its lock
        bound_cache()
    try:
        with rasterio.Env(**_ENVIRONMENT):
            yield
    except OSError as error:
        if not isinstance(error, RasterioError) and error.errno not in NO_ROOM:
            raise
        raise NoRoomError(_no_room(path, repr(error.strerror or str(error)))) from error
    except (
        Exception
    ) as error:  # rasterio raises GDAL's errors as classes that it does not export, and SystemError
        if not (isinstance(error, SystemError) or type(error).__module__.startswith("rasterio.")):
            raise
        raise NoRoomError(_no_room(path, repr(str(error)))) from error


def _no_room(path: Path, got: str) -> str:
    return (
        f"expected room, and a disk that works, for {str(path)!r}, got {got}. Nothing was written: make room, then "
        "run the same command again."
    )


def _profile(raster: Raster, level: int) -> dict[str, Any]:
    from affine import Affine

    height, width = raster.shape(level)
    first, grid = raster.bands[0], raster.place.grid
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": len(raster.bands),
    }
    profile |= {
        "dtype": first.dtype,
        "nodata": first.nodata,
        "bigtiff": "IF_SAFER",
        "sparse_ok": first.nodata is not None,
    }
    if level == 0 and not raster.place.gcps:
        profile |= {"crs": grid.crs_wkt, "transform": Affine(*grid.transform)}
    return {**profile, **_TILED}


def _write_levels(
    folder: Path, raster: Raster, progress: Callable[[int, int], None] | None
) -> list[list[int]]:
    """Write the pixels of each level into a TIFF of its own, and return the checksum of each band of each level."""
    import rasterio

    checksums = [[0] * len(raster.bands) for _ in raster.levels]
    done = 0
    with ExitStack() as opened:
        with without_place_warnings():
            files = [
                opened.enter_context(rasterio.open(folder / f"{level}.tif", "w", **_profile(raster, level)))
                for level in raster.levels
            ]
        _describe(files[0], raster)
        for block in raster.blocks:
            for i, band in enumerate(raster.bands):
                pixels, to_mean = band.read(block.moved(raster.window.row, raster.window.col))
                made = _levels_of(band, pixels, to_mean, len(files))
                for level, (file, values) in enumerate(zip(files, made, strict=True)):
                    file.write(values, i + 1, window=_window(block, level))
                    checksums[level][i] = _checksum(values, checksums[level][i])
                done += pixels.nbytes
                if progress is not None:
                    progress(done, raster.nbytes)
    return checksums


def _window(block: Window, level: int) -> Any:
    from rasterio.windows import Window as Rectangle

    step = 2**level
    height, width = math.ceil(block.height / step), math.ceil(block.width / step)
    return Rectangle(block.col // step, block.row // step, width, height)


def _levels_of(band: OutputBand, pixels: Array, to_mean: Array | None, count: int) -> Iterator[Array]:
    """Yield the pixels (rows, columns) of a block and of its overviews: means of what is valid, or the middle one."""
    yield np.ascontiguousarray(pixels, band.dtype)
    if to_mean is None:
        for level in range(1, count):
            middle, last = 2 ** (level - 1), [n - 1 for n in pixels.shape]
            rows, cols = (
                np.minimum(np.arange(math.ceil(n / 2**level)) * 2**level + middle, most)
                for n, most in zip(pixels.shape, last, strict=True)
            )
            yield np.ascontiguousarray(pixels[np.ix_(rows, cols)], band.dtype)
        return
    sums = np.stack([np.nan_to_num(to_mean), ~np.isnan(to_mean)]).astype(np.float64)
    for _ in range(1, count):
        sums = halved(sums)
        yield np.ascontiguousarray(band.from_mean(mean_power(sums)), band.dtype)


def _describe(dataset: Any, raster: Raster) -> None:
    """Write what is said of a raster and its bands into a dataset."""
    from rasterio.control import GroundControlPoint
    from rasterio.crs import CRS

    dataset.update_tags(**raster.tags)
    for i, band in enumerate(raster.bands, 1):
        dataset.set_band_description(i, band.name)
        dataset.update_tags(i, **band.tags)
        dataset.set_band_unit(i, band.units)
    if raster.place.gcps:
        points = [GroundControlPoint(row, col, x, y, z) for row, col, x, y, z in raster.place.gcps]
        wkt = raster.place.gcps_crs
        dataset.gcps = points, CRS.from_wkt(wkt) if wkt else CRS()


def _described(folder: Path, raster: Raster) -> Path:
    """Return a VRT of the levels: what GDAL says of the first, with the others as its overviews, and GCPs in full."""
    from rasterio.shutil import copy

    path = folder / "all.vrt"
    copy(str(folder / "0.tif"), str(path), driver="VRT")
    tree = ET.parse(path)
    for number, band in enumerate(tree.getroot().iter("VRTRasterBand"), 1):
        for level in raster.levels[1:]:
            overview = ET.SubElement(band, "Overview")
            ET.SubElement(overview, "SourceFilename", relativeToVRT="1").text = f"{level}.tif"
            ET.SubElement(overview, "SourceBand").text = str(number)
    for element, gcp in zip(tree.getroot().iter("GCP"), raster.place.gcps, strict=False):
        for name, value in zip(("Line", "Pixel", "X", "Y", "Z"), gcp, strict=True):
            element.set(name, repr(value))
    tree.write(path)
    return path


def _copy(source: Path, partial: Path, raster: Raster) -> None:
    """Have GDAL write a COG; no error of it may be trusted to come."""
    from rasterio.shutil import copy

    options = {"COMPRESS": raster.compress.upper(), "BLOCKSIZE": TILE, "OVERVIEWS": "FORCE_USE_EXISTING"}
    options |= {"BIGTIFF": "IF_SAFER", "NUM_THREADS": min(cpu_count(), 8)}
    options |= {} if raster.compress == "none" else {"PREDICTOR": "YES"}
    copy(str(source), str(partial), driver="COG", **options)


def _read_back(path: Path, raster: Raster, level: int) -> list[int]:
    """Return the checksum of each band of a level of a file, block by block as they were written."""
    import rasterio

    checksums = [0] * len(raster.bands)
    options: dict[str, Any] = {"overview_level": level - 1} if level else {}
    with without_place_warnings():
        opened = rasterio.open(path, driver="GTiff", sharing=False, **options)
    with opened as file:
        if file.shape != raster.shape(level):
            return []
        for block in raster.blocks:
            for i in range(len(raster.bands)):
                checksums[i] = _checksum(file.read(i + 1, window=_window(block, level)), checksums[i])
    return checksums


def _checksum(values: Array, before: int) -> int:
    """Return the CRC-32 of pixels behind others, where each NaN is as good as another."""
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), values.dtype.type(math.nan), values)
    return zlib.crc32(np.ascontiguousarray(values).data, before)
