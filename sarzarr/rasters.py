"""Read GeoTIFFs safely: the only place that opens a raster, and the hot path of reading windows.

What opens is a local TIFF file and nothing else: no other driver, no URL, no ``/vsi`` path, no
sidecar file beside it but a mask (``.msk``), which can take pixels away and change none. Handles are kept a thread
and a process, and never cross a border.
"""

import os
import re
import stat
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import rasterio
from rasterio.enums import Compression, Interleaving, MaskFlags
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.session import DummySession

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, RasterNotFoundError, UnsupportedRasterError
from sarzarr.zips import (
    CORRUPT,
    archive_of,
    gdal_name,
    is_archive,
    is_compressed,
    members,
    open_file,
    status_of,
    with_size,
)
from sarzarr.zips.zarrs import ZarrChip, zarr_chip_at

CACHE_BYTES: Final = 128 * 2**20
"""The most that GDAL's block cache holds in a process; GDAL's own default is 5 % of the memory."""
HANDLES_A_THREAD: Final = 8
"""Open files that `read_window` keeps in each thread."""
_HASHED: Final = 2**16
_JPEG_PARTS: Final = 64
"""Parts of a JPEG's header among which its size stands."""
_CACHED_PIXELS: Final = 2**16
"""Pixels that are looked at at once for values that stand for nothing."""
_NOT_LOCAL: Final = re.compile(r"/vsi|\w{2,}:|<")
"""How what GDAL would take for something else than a file begins: URLs, subdatasets, inline XML."""
_OPEN_OPTIONS: Final = {
    "driver": "GTiff",
    "sharing": False,
    "GEOREF_SOURCES": "INTERNAL",  # no .aux.xml, .tab or world file places the pixels
    "NUM_THREADS": "1",
}
_PICTURES: Final = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG"}
"""Drivers of pictures by how their files begin; what begins otherwise must be a TIFF."""
_ENVIRONMENT: Final = {
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",  # else a truncated JPEG is read to its end, as grey
    "GDAL_PAM_ENABLED": "NO",  # a sidecar can replace CRS, transform, nodata and tags
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # and an .ovr or .msk what stands for the pixels
    "GDAL_NUM_THREADS": "1",
    "GTIFF_DIRECT_IO": "NO",  # past the end of a truncated file it returns whatever the buffer held
    "GTIFF_VIRTUAL_MEM_IO": "NO",
    "GTIFF_IGNORE_READ_ERRORS": "NO",
}


class _Handles(threading.local):
    """The open files of one thread, the least recently read first."""

    def __init__(self) -> None:
        self.opened: OrderedDict[tuple[str, int, int, int], Any] = OrderedDict()
        self.has_environment = False


class _Process:
    """The state of one process: its threads' handles, and the lock under which it opens files."""

    def __init__(self, inherited: "_Process | None" = None) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.handles = _Handles()
        self.is_cache_bounded = False
        self.inherited = inherited
        """A forked child's copy of the parent's state: kept, since closing its handles or waiting
        for its lock could hang, and never read, since a file's position is shared across a fork."""


_current: list[_Process] = [_Process()]
"""The process's own state; a forked child replaces it at its first read."""


def _process() -> _Process:
    if _current[0].pid != os.getpid():
        _current[0] = _Process(_current[0])
    return _current[0]


def local_file(path: str | os.PathLike[str]) -> tuple[Path, os.stat_result]:
    """Return the absolute path of a local regular file, one in an archive too, and its status, with its bytes.

    Raises `RasterNotFoundError` where there is no such file; `InvalidInputError` where the path is a URL, a
    ``/vsi`` path, a subdataset's name or not a regular file.
    """
    text = os.fspath(path)
    absolute = Path(os.path.abspath(text))  # noqa: PTH100 - lexical: symlinks keep the name that was given
    try:
        str(absolute).encode()
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"expected a path in UTF-8, got {text[:200]!r}, which GDAL cannot open. Rename the file."
        ) from None
    try:
        status = _status_of(absolute)
    except UnsupportedRasterError:
        raise
    except (OSError, ValueError) as error:
        if _NOT_LOCAL.match(text):
            raise InvalidInputError(
                f"expected the path of a local TIFF file, got {text[:200]!r}. Download it and give its path."
            ) from error
        raise RasterNotFoundError(
            f"expected the path of a TIFF file, got {text[:200]!r}, which is not there. Check the path."
        ) from error
    if not stat.S_ISREG(status.st_mode) or str(absolute).startswith("/vsi"):
        raise InvalidInputError(
            f"expected the path of a local TIFF file, got {text[:200]!r}, which is no regular file. "
            "Give the TIFF files inside."
        )
    return absolute, status


def _status_of(path: Path) -> os.stat_result:
    """Return the status of a file, one in an archive too; the bytes of a chip of a Zarr archive are its pixels'."""
    chip = zarr_chip_at(path)
    if chip is None:
        return status_of(path)
    chips, name = chip
    if name not in chips.places:
        raise FileNotFoundError(path)
    return with_size(status_of(chips.bands.archive), chips.nbytes)


@contextmanager
def without_place_warnings() -> Iterator[None]:
    """Silence rasterio about datasets without a place: one thread at a time, since the filters are the process's."""
    with _process().lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def bound_cache() -> None:
    """Bound GDAL's block cache in this process, once, to `CACHE_BYTES`; what the user has set stays."""
    process = _process()
    if not process.is_cache_bounded:
        process.is_cache_bounded = True
        if "GDAL_CACHEMAX" not in os.environ and get_gdal_config("GDAL_CACHEMAX") > CACHE_BYTES:
            set_gdal_config("GDAL_CACHEMAX", CACHE_BYTES)  # an int is taken as bytes, process-wide


def _open(path: Path, options: Mapping[str, Any] = _OPEN_OPTIONS) -> Any:
    """Open a file under the options that must hold; the caller is inside `_ENVIRONMENT`."""
    with without_place_warnings():
        bound_cache()
        if (chip := zarr_chip_at(path)) is not None:
            try:
                return _in_memory(chip[0].read(chip[1]), options)
            except (RasterioError, CRSError) as error:
                raise UnsupportedRasterError(
                    f"expected a chip that a TIFF can be of, got {path.name!r}: {without_stop(error)}. Write it as "
                    "GeoTIFF."
                ) from error
        try:
            dataset = rasterio.open(gdal_name(path), **options)
        except RasterioError as error:
            kind = str(options["driver"]).removeprefix("G").upper()
            remedy = "Write it as GeoTIFF first." if kind == "TIFF" else "Fetch or write the file again."
            raise UnsupportedRasterError(
                f"expected a {kind} file, got {path.name!r}: {without_stop(error)}. {remedy}"
            ) from error

    if dataset.driver == "GTiff" and dataset.compression == Compression.jpeg:
        with _intact(path):
            _check_jpegs(dataset, path)
    return dataset


def _in_memory(chip: ZarrChip, options: Mapping[str, Any]) -> Any:
    """Return a chip of a Zarr archive as the TIFF that it would be, open, in memory."""
    count, height, width = chip.pixels.shape
    place: dict[str, Any] = {} if chip.epsg is None else {"crs": rasterio.CRS.from_epsg(chip.epsg)}
    if chip.transform is not None:
        place["transform"] = rasterio.Affine(*chip.transform)
    if chip.nodata is not None:
        place["nodata"] = chip.nodata
    memory = rasterio.MemoryFile()
    with memory.open(
        driver="GTiff", height=height, width=width, count=count, dtype=chip.pixels.dtype, **place
    ) as out:
        out.write(chip.pixels)
        if chip.packing != (1.0, 0.0):
            out.scales, out.offsets = ((one,) * count for one in chip.packing)
        if len(chip.names) == count:
            out.descriptions = chip.names
        if chip.time is not None:
            out.update_tags(ACQUISITION_DATETIME=chip.time)
    dataset = rasterio.open(memory.name, **options)  # memory.open would keep it
    weakref.finalize(dataset, memory.close)
    return dataset


def _check_jpegs(dataset: Any, path: Path) -> None:
    """Refuse a TIFF with a JPEG smaller than its block, (rows, columns): GDAL leaves the rest as memory is."""
    (height, width), (rows, cols) = dataset.block_shapes[0], dataset.shape
    with open_file(path) as file:
        for band in dataset.indexes:
            for down, across in product(range(-(-rows // height)), range(-(-cols // width))):
                start = dataset.get_tag_item(f"BLOCK_OFFSET_{across}_{down}", "TIFF", bidx=band)
                wanted = (min(height, rows - down * height), width)
                got = _jpeg_size(file, int(start)) if start else wanted
                if got[0] < wanted[0] or got[1] < wanted[1]:
                    raise UnsupportedRasterError(
                        f"expected intact pixels in {path.name!r}, got a JPEG of {got[0]} x {got[1]} pixels in a "
                        f"block of {wanted[0]} x {wanted[1]}. Fetch or write the file again."
                    )
            if dataset.interleaving != Interleaving.band:
                return


def _jpeg_size(file: BinaryIO, start: int) -> tuple[int, int]:
    """Return (rows, columns) of the JPEG at an offset of a file; (0, 0) where its header does not say them.

    ITU-T T.81, B.1.1: markers of two bytes, most with the length of what follows; a frame's has its size.
    """
    at = start + 2
    for _ in range(_JPEG_PARTS):
        file.seek(at)
        part = file.read(9)
        if len(part) < 9 or part[0] != 0xFF:
            break
        if 0xC0 <= part[1] <= 0xCF and part[1] not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(part[5:7], "big"), int.from_bytes(part[7:9], "big")
        at += 2 + int.from_bytes(part[2:4], "big")
    return 0, 0


def without_stop(error: BaseException) -> str:
    """Return an error's message without the full stop that it may end in."""
    return str(error).rstrip(". ")


def _environment() -> Any:
    """Return the GDAL environment that files are opened in; it holds for the calling thread."""
    held = _process().handles.has_environment
    return nullcontext() if held else rasterio.Env(session=DummySession(), **_ENVIRONMENT)


@contextmanager
def many_rasters() -> Iterator[None]:
    """Hold the environment of GDAL while this thread opens one file after another: making it takes 0.4 ms each."""
    with _environment():
        _process().handles.has_environment = True
        try:
            yield
        finally:
            _process().handles.has_environment = False


@contextmanager
def open_raster(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a local TIFF as a rasterio dataset, with nothing but its own bytes trusted.

    Raises as `local_file` does; `UnsupportedRasterError` where the file is not a TIFF, whatever its name says.
    """
    absolute, _ = local_file(path)
    if is_archive(absolute) or is_compressed(absolute):
        members(absolute)  # says why it is refused; one that is not has no TIFF
    with _environment(), _open(absolute) as dataset, _intact(absolute, "structure"):
        yield dataset


@contextmanager
def open_picture(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a local PNG, JPEG or TIFF, told apart by 4 bytes, as `open_raster` opens a TIFF; it raises the same."""
    absolute, _ = local_file(path)
    with open_file(absolute) as file:
        begins = file.read(4)
    driver = next((d for magic, d in _PICTURES.items() if begins.startswith(magic)), "")
    if not driver and begins[:2] not in (b"II", b"MM"):
        raise UnsupportedRasterError(
            f"a PNG, JPEG or TIFF was expected, got {absolute.name!r}, which begins as none of them. "
            "Fetch or write the file again."
        )
    options = {"driver": driver, "sharing": False} if driver else _OPEN_OPTIONS
    with _environment(), _open(absolute, options) as dataset, _intact(absolute, "structure"):
        yield dataset


def block_sizes(path: str | os.PathLike[str], *, limit: int) -> dict[tuple[int, int], int]:
    """Return the bytes on disk of the TIFF blocks of a first band, by (row, column) of blocks; no pixel is read.

    Blocks that a sparse file leaves out have 0. Of more than ``limit`` blocks, ``limit`` spread over all are told.
    """
    with open_raster(path) as dataset:
        (height, width), (rows, cols) = dataset.block_shapes[0], dataset.shape
        across = -(-cols // width)
        count = -(-rows // height) * across
        places = [divmod(i, across) for i in range(0, count, -(-count // limit))]
        tags = (dataset.get_tag_item(f"BLOCK_SIZE_{j}_{i}", "TIFF", bidx=1) for i, j in places)
        return {place: int(tag or 0) for place, tag in zip(places, tags, strict=True)}


def read_dtype(dataset: Any) -> np.dtype[Any]:
    """Return the NumPy dtype that reading a dataset gives; complex integers are read as complex64."""
    name = dataset.dtypes[0]
    return np.dtype("complex64" if name.startswith("complex_int") else name)


def _handle(path: str | os.PathLike[str]) -> Any:
    """Return this thread's open dataset of a file as it is on disk now."""
    text = os.fspath(path)
    opened = _process().handles.opened
    try:
        key = fingerprint(text, _status(text))
        handle = opened[key]
    except (KeyError, OSError, ValueError):
        absolute, status = local_file(path)
        with _environment():
            handle = _open(absolute)
        opened[fingerprint(text, status)] = handle
        while len(opened) > HANDLES_A_THREAD:
            opened.popitem(last=False)[1].close()
    else:
        opened.move_to_end(key)
    return handle


def _status(text: str) -> os.stat_result:
    try:
        return os.stat(text)  # noqa: PTH116 - a Path costs more than the call
    except NotADirectoryError:
        return local_file(text)[1]


def fingerprint(text: str, status: os.stat_result) -> tuple[str, int, int, int]:
    """Return (path, nanoseconds of its last change, bytes, inode): another one is another file, or a changed one."""
    return text, status.st_mtime_ns, status.st_size, status.st_ino


def _hash_into(digest: Any, file: Any, size: int, *, full: bool) -> None:
    """Add the bytes of a file to a hash, all of them or samples."""
    if full or size <= 16 * _HASHED:
        while piece := file.read(2**20):
            digest.update(piece)
        return
    digest.update(size.to_bytes(8, "little"))
    for step in range(16):  # forwards: an archive's bytes are unpacked, and checked, once
        file.seek(step * (size - _HASHED) // 15)
        digest.update(file.read(_HASHED))


def source_hash(path: str | os.PathLike[str], *, full: bool = False) -> str:
    """Return a hash of a file: ``sha256-sampled:<hex>``, or ``sha256:<hex>`` of every byte if ``full``.

    The sampled hash sees the size, the first and last 64 KiB and 14 more spread between: another acquisition or
    processing differs in all of them. A change of a few pixels in between is seen by the full one only. A mask beside
    the file, or the other files of a shapefile, are hashed with it.
    """
    absolute, _ = local_file(path)
    digest = sha256()
    try:
        for hashed in (absolute, mask_beside(absolute), *_of_shapefile(absolute)):
            chip = None if hashed is None else zarr_chip_at(hashed)
            if chip is not None:
                digest.update(chip[0].identity(chip[1]))
            elif hashed is not None:
                with open_file(hashed) as file:
                    _hash_into(digest, file, status_of(hashed).st_size, full=full)
    except (*CORRUPT, OSError) as error:
        if archive_of(absolute) is None:
            raise
        raise UnsupportedRasterError(
            f"expected intact bytes in {absolute.name!r}, got {without_stop(error)}. Download the archive again."
        ) from error
    return f"{'sha256' if full else 'sha256-sampled'}:{digest.hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class FileStamp:
    """A file as it was planned: who reads it later, on another machine perhaps, knows by this that it is the same."""

    path: str
    """Its absolute path."""
    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970 of its last change."""
    hash: str
    """Its `source_hash`."""

    @classmethod
    def of(cls, path: str | os.PathLike[str], *, full: bool = False) -> "FileStamp":
        """Return the stamp of a file as it is; of every byte if ``full``. Raises as `source_hash`."""
        file, status = local_file(path)
        known = source_hash(file, full=full)
        return cls(path=str(file), size=status.st_size, modified=status.st_mtime_ns, hash=known)

    def check(self) -> None:
        """Raise `UnsupportedRasterError` unless it is the same file still, by size and time, or else by its hash."""
        try:
            file, status = local_file(self.path)
            if (status.st_size, status.st_mtime_ns) == (self.size, self.modified):
                return
            if source_hash(file, full=self.hash.startswith("sha256:")) == self.hash:
                return  # each machine may have a copy of its own
            got = f"another of {status.st_size}"
        except RasterNotFoundError:
            got = "none"
        raise UnsupportedRasterError(
            f"expected the file of {self.size} bytes that was planned at {self.path!r}, got {got}. Plan it again "
            "where it changed; on a cluster, let every worker see the same files under the same paths."
        )


def close_rasters() -> None:
    """Close the files that `read_window` keeps open in the calling thread."""
    opened = _process().handles.opened
    while opened:
        opened.popitem()[1].close()


def read_window(
    path: str | os.PathLike[str],
    *,
    band: int,
    row: int,
    col: int,
    height: int,
    width: int,
    out: np.ndarray[Any, Any] | None = None,
) -> np.ndarray[Any, Any]:
    """Read a window of one band, values exactly as in the file.

    Files stay open in the thread that read them, `HANDLES_A_THREAD` at most; a file that changed on
    disk is opened anew. Safe in threads, under fork and under spawn. ``band`` counts from 1, and the window is
    wholly inside the raster. Returned is ``out``, a (height, width) array of the file's dtype, or a new one where it
    is None. Complex integers come as complex64. NaN and nodata are as stored.

    Raises `InvalidInputError` where the window reaches beyond the raster, there is no such band, or ``out`` does not
    fit; `RasterNotFoundError` where there is no such file; `UnsupportedRasterError` where it is not a TIFF, or its
    bytes cannot be decoded.
    """
    handle = _handle(path)
    ends = row + height, col + width
    if min(row, col) < 0 or min(height, width) < 1 or ends[0] > handle.height or ends[1] > handle.width:
        raise InvalidInputError(
            f"expected a window inside {handle.height} x {handle.width} pixels, got {height} x {width} "
            f"at row {row}, column {col}. Clip it to the raster."
        )
    if not 1 <= band <= handle.count:
        raise InvalidInputError(f"expected a band from 1 to {handle.count}, got {band}. Bands count from 1.")
    if out is not None and (out.shape != (height, width) or out.dtype != read_dtype(handle)):
        raise InvalidInputError(
            f"expected out of shape {(height, width)} and dtype {read_dtype(handle)}, "
            f"got {out.shape} and {out.dtype}. Leave it out to have one made."
        )
    with _intact(path):
        pixels = handle.read(band, window=((row, ends[0]), (col, ends[1])), out=out)
    if out is None:
        return np.asarray(pixels)
    if pixels is not out:  # rasterio 1.5 reads a copy of what is not contiguous
        np.copyto(out, pixels)
    return out


@contextmanager
def _intact(path: str | os.PathLike[str], what: str = "pixels") -> Iterator[None]:
    """Turn an error of GDAL's into one that names the file whose bytes cannot be decoded."""
    try:
        yield
    except Exception as error:
        # Rasterio lets some of GDAL's errors through as they are, in classes that it does not publish.
        if not isinstance(error, RasterioError) and type(error).__module__ != "rasterio._err":
            raise
        raise UnsupportedRasterError(
            f"expected intact {what} in {Path(path).name!r}, got {without_stop(error.__cause__ or error)}. "
            "Fetch or write the file again."
        ) from error


# ------------------------------------------------------------------ which pixels were measured
@dataclass(frozen=True, kw_only=True)
class BandMask:
    """The address of a mask, 0 where a pixel was not measured: the file's own, or that of an ``.msk`` beside it."""

    path: str
    """The file that holds it."""
    band: int
    """The band that it is the mask of; of an ``.msk``, the band that it is."""
    is_beside: bool
    """Whether it is a file of its own."""


@dataclass(frozen=True, kw_only=True)
class Unmeasured:
    """The pixels of a band that nobody measured, as told beside a nodata tag: by a mask, or by values."""

    mask: BandMask | None = None
    """The mask of the band; None where it has none."""
    values: tuple[float, ...] = ()
    """Values that no tag declares, and that stand for nothing: as the pixels have them, exactly."""

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return self.mask is not None or bool(self.values)


def mask_beside(path: Path) -> Path | None:
    """Return the ``.msk`` of a TIFF, (rows, columns) as it; None where there is none."""
    beside = path.with_name(f"{path.name}.msk")
    return beside if beside.is_file() else None


def _of_shapefile(path: Path) -> list[Path]:
    """Return the files with the attributes, the CRS and the encoding of a shapefile; none of another file."""
    beside = (path.with_suffix(suffix) for suffix in (".dbf", ".prj", ".cpg"))
    return [one for one in beside if path.suffix.lower() == ".shp" and one.is_file()]


def band_masks(dataset: Any, path: Path) -> tuple[BandMask | None, ...]:
    """Return the mask of each band: internal, alpha, GDAL's ``NODATA_VALUES``, or beside the file.

    Raises `UnsupportedRasterError` where the one beside it is of another shape.
    """
    beside = mask_beside(path)
    if beside is not None:
        with open_raster(beside) as held:
            if held.shape != dataset.shape:
                raise UnsupportedRasterError(
                    f"expected a mask of {dataset.height} x {dataset.width} pixels in {beside.name!r}, got "
                    f"{held.height} x {held.width}. Take it away, or write it anew."
                )
            shared = held.count < dataset.count
        return tuple(
            BandMask(path=str(beside), band=1 if shared else i, is_beside=True) for i in dataset.indexes
        )
    return tuple(
        BandMask(path=str(path), band=i, is_beside=False) if MaskFlags.per_dataset in flags else None
        for i, flags in zip(dataset.indexes, dataset.mask_flag_enums, strict=True)
    )


def read_mask(mask: BandMask, *, row: int, col: int, height: int, width: int) -> Array:
    """Return (height, width) bool of a window: where a pixel was measured; errors are those of `read_window`."""
    if mask.is_beside:
        held = read_window(mask.path, band=mask.band, row=row, col=col, height=height, width=width)
    else:
        handle = _handle(mask.path)
        with _intact(mask.path):
            held = handle.read_masks(mask.band, window=((row, row + height), (col, col + width)))
    return np.asarray(held != 0)


def measured_dtype(dtype: np.dtype[Any], rule: Unmeasured | None) -> np.dtype[Any]:
    """Return the dtype that `measured` gives: NaN needs floats; complex stays complex."""
    return np.result_type(dtype, np.float32) if rule else dtype


def measured(raw: Array, rule: Unmeasured | None, *, row: int, col: int) -> Array:
    """Return a window as read at (row, col), NaN where a rule says that nobody measured; in place where it can be.

    Without a rule it is ``raw`` itself. Integers become floats that hold them: `measured_dtype`.
    """
    if not rule:
        return raw
    out = raw.astype(measured_dtype(raw.dtype, rule), copy=False)
    step = max(1, _CACHED_PIXELS // raw.shape[1])
    for first in range(0, raw.shape[0] if rule.values else 0, step):  # while each part is in cache
        part = raw[first : first + step]
        for value in rule.values:
            if (missing := part == value).any():
                np.copyto(out[first : first + step], np.nan, where=missing)
    if rule.mask is not None:
        missing = ~read_mask(rule.mask, row=row, col=col, height=raw.shape[0], width=raw.shape[1])
        np.copyto(out, np.nan, where=missing)
    return out
