"""Zarr archives of chips as they are published, ``*.zarr.zip``: their samples as files in a folder, read in place.

One has an array ``bands`` with dimensions ``sample``, ``time``, ``band``, ``y``, ``x``, or without the first, or the
first two, in Zarr format 2 or 3, and coordinates: ``x`` and ``y`` of pixels' middles, ``crs`` (numbers of EPSG),
``band``, ``time``. Each sample of each time is a chip: ``a.zarr.zip/0194630_1_t0.zarr`` is a sample's first.

Chunks are decoded here, by codecs of a short list and within limits: what else a registry of codecs has may run code.
"""

import base64
import json
import math
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Final

import numcodecs
import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import RasterNotFoundError, UnsupportedRasterError
from sarzarr.zips import CORRUPT, archive_of, members, open_file, read_bytes, status_of

SUFFIX: Final = ".zarr.zip"
"""How the names of such archives end."""
BANDS: Final = "bands"
"""The array of pixels."""
DIMENSIONS: Final = ("sample", "time", "band", "y", "x")
"""Its dimensions; the first two may be absent."""
MAX_CHUNK: Final = 2**30
"""Bytes of a chunk, decoded."""
MAX_COLUMN: Final = 2**26
"""Bytes of a coordinate."""
KEPT: Final = 3 * 2**27
"""Bytes of decoded chunks that a thread keeps: a chunk may hold many samples."""
_MAX_DOCUMENT: Final = 2**22
_CODECS: Final = frozenset(("blosc", "zstd", "zlib", "gzip", "lz4", "shuffle", "crc32c"))
"""Codecs that are decoded, beside the text of `_TEXT`."""
_TEXT: Final = "vlen-utf8"


@dataclass(frozen=True, kw_only=True)
class ZarrArray:
    """An array of an archive, as its document says."""

    archive: Path
    """The archive."""
    name: str
    """Its name."""
    shape: tuple[int, ...]
    """Its shape."""
    chunk: tuple[int, ...]
    """That of a chunk."""
    dtype: np.dtype[Any]
    """Its dtype; objects are texts."""
    codecs: tuple[Mapping[str, Any], ...]
    """Configurations of the codecs that encode a chunk, in order, of ``numcodecs``."""
    order: str
    """``C`` or ``F``: the order of the numbers in a chunk."""
    fill: Any
    """The value of chunks that are left out."""
    prefix: str
    """What the keys of chunks begin with, and ..."""
    separator: str
    """... what is between their numbers."""
    dims: tuple[str, ...]
    """Names of its dimensions."""
    attributes: Mapping[str, Any]
    """Its attributes."""

    def read(self, index: tuple[int | slice, ...] = ()) -> Array:
        """Return the numbers at an index, an int or all of each dimension; fewer stand for all of the others."""
        index = (*index, *(slice(None) for _ in self.shape[len(index) :]))
        ranges = [
            range(i // c, i // c + 1) if isinstance(i, int) else range(-(-n // c))
            for i, c, n in zip(index, self.chunk, self.shape, strict=True)
        ]
        shape = tuple(n for i, n in zip(index, self.shape, strict=True) if not isinstance(i, int))
        out = np.empty(shape, self.dtype)
        for at in product(*ranges):
            own = tuple(
                i % c if isinstance(i, int) else slice(0, min(c, n - k * c))
                for i, c, n, k in zip(index, self.chunk, self.shape, at, strict=True)
            )
            there = tuple(
                slice(k * c, min((k + 1) * c, n))
                for i, c, n, k in zip(index, self.chunk, self.shape, at, strict=True)
                if not isinstance(i, int)
            )
            chunk = self._chunk(at)
            out[there] = self.fill if chunk is None else chunk[own]
        return out

    def _chunk(self, at: tuple[int, ...]) -> Array | None:
        """Return a chunk, decoded; None where it is left out."""
        key = *_key(self.archive), self.name, at
        known = _kept.chunks
        if key in known:
            known.move_to_end(key)
            return known[key]
        name = f"{self.name}/{self.prefix}{self.separator.join(map(str, at or (0,)))}"
        if name not in members(self.archive):
            return None
        with open_file(self.archive / name) as file:
            data: Any = file.read(MAX_CHUNK)
        numbers = math.prod(self.chunk) * self.dtype.itemsize
        for config in reversed(self.codecs):
            data = _decoded(data, config, MAX_COLUMN if self.dtype.kind == "O" else numbers)
        flat = data if self.dtype.kind == "O" else np.frombuffer(memoryview(data).cast("B"), self.dtype)
        chunk = flat.reshape(self.chunk, order="F" if self.order == "F" else "C")
        known[key] = chunk
        while sum(one.nbytes for one in known.values()) > KEPT and len(known) > 1:
            known.popitem(last=False)
        return chunk


class _Kept(threading.local):
    """Chunks that a thread has decoded, the least recently read first."""

    def __init__(self) -> None:
        self.chunks: OrderedDict[Any, Array] = OrderedDict()


_kept = _Kept()


@dataclass(frozen=True, kw_only=True)
class ZarrChip:
    """A chip of an archive."""

    pixels: Array
    """(bands, rows, columns), float16 as float32."""
    names: tuple[str, ...]
    """Names of its bands; empty where nothing says them."""
    transform: tuple[float, float, float, float, float, float] | None
    """The affine of its pixels; None where nothing places them."""
    epsg: int | None
    """The number of its CRS."""
    time: str | None
    """When it was acquired, ISO 8601 UTC."""
    nodata: float | None
    """The value that stands for no data; None where nothing says one, or says NaN."""
    packing: tuple[float, float]
    """What its numbers are multiplied by, and what is added then: (1, 0) where they are the values."""


@dataclass(frozen=True, kw_only=True)
class ZarrChips:
    """The chips of an archive."""

    bands: ZarrArray
    """Their pixels."""
    places: Mapping[str, tuple[int, ...]]
    """Where each is in it, by its name: numbers of the sample and the time, as far as there are such dimensions."""
    columns: Mapping[str, ZarrArray] = field(default_factory=dict)
    """Coordinates by name."""

    @property
    def nbytes(self) -> int:
        """Bytes of a chip."""
        return math.prod(self.bands.shape[-3:]) * self.bands.dtype.itemsize

    def read(self, name: str) -> ZarrChip:
        """Return a chip by its name.

        Raises `RasterNotFoundError` where there is none; `UnsupportedRasterError` where it cannot be decoded.
        """
        archive = self.bands.archive
        if name not in self.places:
            raise RasterNotFoundError(
                f"expected a chip of {archive.name!r}, got {name[:200]!r}. Check the path."
            )
        try:
            return self._read(self.places[name])
        except (*CORRUPT, OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
            if isinstance(error, UnsupportedRasterError):
                raise
            raise _refused(archive, f"{name!r}, which cannot be decoded ({error})") from error

    def _read(self, at: tuple[int, ...]) -> ZarrChip:
        pixels = self.bands.read(at)
        where = dict(zip(self.bands.dims, at, strict=False))
        x, y, crs, time = (self._column(what, where) for what in ("x", "y", "crs", "time"))
        names = self.columns["band"].read().tolist() if "band" in self.columns else []
        epsg = None if crs is None or crs.size != 1 or crs.dtype.kind not in "iu" else int(crs.reshape(-1)[0])
        native = np.dtype(np.float32) if pixels.dtype == np.float16 else pixels.dtype.newbyteorder("=")
        return ZarrChip(
            pixels=pixels.astype(native, copy=False),
            names=tuple(map(str, names)),
            transform=None if x is None or y is None else _affine(self.bands.archive, x, y),
            epsg=epsg if epsg is None or epsg > 0 else None,
            time=_iso(self.columns.get("time"), time),
            nodata=_nodata(self.bands),
            packing=_packing(self.bands),
        )

    def identity(self, name: str) -> bytes:
        """Return all that a chip is as bytes, for hashes."""
        chip = self.read(name)
        said = chip.names, chip.transform, chip.epsg, chip.time, chip.pixels.shape, chip.pixels.dtype.str
        return repr((*said, chip.nodata, chip.packing)).encode() + chip.pixels.tobytes()

    def _column(self, name: str, where: Mapping[str, int]) -> Array | None:
        """Return a coordinate of the chip at some numbers of samples and times; None where there is none."""
        column = self.columns.get(name)
        if column is None:
            return None
        index = tuple(where.get(dim, slice(None)) for dim in column.dims)
        return column.read(index)


def is_zarr(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a Zarr archive of chips, of any bytes, by its name."""
    return os.fspath(path).lower().endswith(SUFFIX)


def is_in_zarr(path: str) -> bool:
    """Whether a path leads into a Zarr archive, of any bytes, by its name."""
    return f"{SUFFIX}/" in path.lower()


def zarr_chip_at(path: Path) -> tuple[ZarrChips, str] | None:
    """Return the chips of the Zarr archive that a path leads into, and the name of one there; None for another."""
    if not is_in_zarr(path.as_posix()):
        return None
    found = archive_of(path)
    if found is None or not is_zarr(found[0]):
        return None
    return chips_in(found[0]), found[1]


def chips_in(archive: Path) -> ZarrChips:
    """Return the chips of an archive, (bands, rows, columns) each.

    Raises `UnsupportedRasterError` where it is none of chips, or has codecs that are not decoded.
    """
    return _chips_in(*_key(archive))


def _key(archive: Path) -> tuple[str, int, int, int]:
    status = status_of(archive)
    return str(archive), status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=256)
def _chips_in(path: str, *_: int) -> ZarrChips:
    archive = Path(path)
    names = {
        name.rpartition("/")[0] for name in members(archive) if name.endswith(("/.zarray", "/zarr.json"))
    }
    if BANDS not in names:
        raise _refused(archive, f"arrays {sorted(names)[:5]}")
    try:
        bands = _array(archive, BANDS)
        columns: dict[str, ZarrArray] = {
            name: _array(archive, name)
            for name in ("sample", "time", "band", "x", "y", "crs")
            if name in names
        }
        if bands.dims not in (DIMENSIONS, DIMENSIONS[1:], DIMENSIONS[2:], ("sample", *DIMENSIONS[2:])):
            raise _refused(archive, f"dimensions {bands.dims}")
        if bands.dtype.kind not in "fiu":
            raise _refused(archive, f"pixels of {bands.dtype}")
        for one in columns.values():
            if _packing(one) != (1.0, 0.0):
                raise _refused(archive, f"{one.name} in other units, by scale_factor or add_offset,")
        for column in columns.values():
            if math.prod(column.shape) * column.dtype.itemsize > MAX_COLUMN:
                raise _refused(archive, f"{column.name} of {column.shape}")
        samples = columns["sample"].read() if "sample" in columns else None
    except (*CORRUPT, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        if isinstance(error, UnsupportedRasterError):
            raise
        raise _refused(archive, f"one that cannot be understood ({error})") from error
    at = bands.shape[:-3]
    places: dict[str, tuple[int, ...]] = {}
    for numbers in product(*map(range, at)):
        place = dict(zip(bands.dims, numbers, strict=False))
        words = [archive.name[: -len(SUFFIX)]] if "sample" not in place else []
        if "sample" in place:
            sample = place["sample"] if samples is None else samples.reshape(-1)[place["sample"]]
            words.append("".join(c if c.isalnum() else "_" for c in str(sample)))
        words += (
            [f"t{place['time']}"] if "time" in place and bands.shape[bands.dims.index("time")] > 1 else []
        )
        places["_".join(words) + ".zarr"] = numbers
    if len(places) != math.prod(at):
        raise _refused(archive, "two samples of one name")
    return ZarrChips(bands=bands, places=places, columns=columns)


def _array(archive: Path, name: str) -> ZarrArray:
    """Return an array by its document, of format 3 or 2; raises where a codec is none of those that are decoded."""
    if (document := _document(archive, f"{name}/zarr.json")) is not None:
        return _checked(_of_3(archive, name, document))
    document = _document(archive, f"{name}/.zarray")
    if document is None:
        raise ValueError(f"no document of {name}")
    return _checked(_of_2(archive, name, document, _document(archive, f"{name}/.zattrs") or {}))


def _of_2(archive: Path, name: str, document: Any, attributes: Any) -> ZarrArray:
    codecs = [*(document.get("filters") or ()), *filter(None, [document["compressor"]])]
    is_text = document["dtype"] == "|O" and codecs[:1] == [{"id": _TEXT}]
    return ZarrArray(
        archive=archive,
        name=name,
        shape=tuple(map(int, document["shape"])),
        chunk=tuple(map(int, document["chunks"])),
        dtype=np.dtype(object if is_text else document["dtype"]),
        codecs=tuple(codecs),
        order=str(document["order"]),
        fill=document["fill_value"] if document["fill_value"] is not None else 0,
        prefix="",
        separator=str(document.get("dimension_separator", ".")),
        dims=tuple(map(str, attributes.get("_ARRAY_DIMENSIONS", ()))),
        attributes=attributes,
    )


def _of_3(archive: Path, name: str, document: Any) -> ZarrArray:
    codecs: list[Mapping[str, Any]] = []
    kind = document["data_type"]
    dtype = np.dtype(object) if kind == "string" else _dtype_3(kind)
    for codec in document["codecs"]:
        config = codec.get("configuration", {})
        if codec["name"] == "bytes":
            dtype = dtype.newbyteorder(">" if config.get("endian") == "big" else "<")
        elif codec["name"] == _TEXT:
            codecs.append({"id": _TEXT})
        elif codec["name"] == "blosc":
            codecs.append({"id": "blosc"})
        else:
            level = {"level": config["level"]} if "level" in config else {}
            codecs.append({"id": codec["name"]} | level)
    keys = document["chunk_key_encoding"]
    separator = keys.get("configuration", {}).get("separator", "/" if keys["name"] == "default" else ".")
    return ZarrArray(
        archive=archive,
        name=name,
        shape=tuple(map(int, document["shape"])),
        chunk=tuple(map(int, document["chunk_grid"]["configuration"]["chunk_shape"])),
        dtype=dtype,
        codecs=tuple(codecs),
        order="C",
        fill=document["fill_value"],
        prefix=f"c{separator}" if keys["name"] == "default" else "",
        separator=str(separator),
        dims=tuple(map(str, document.get("dimension_names") or ())),
        attributes=document.get("attributes", {}),
    )


def _dtype_3(kind: Any) -> np.dtype[Any]:
    if isinstance(kind, dict) and kind.get("name") == "fixed_length_utf32":
        return np.dtype(f"U{int(kind['configuration']['length_bytes']) // 4}")
    dtype: np.dtype[Any] = np.dtype(kind)
    return dtype


def _checked(array: ZarrArray) -> ZarrArray:
    ids = [config["id"] for config in array.codecs]
    if array.dtype.kind == "O":
        ids = ids[1:] if ids[:1] == [_TEXT] else ["object"]
    if unknown := sorted(set(ids) - _CODECS):
        raise _refused(array.archive, f"codec {unknown[0]!r} of {array.name}")
    sizes = (
        len(array.shape) == len(array.chunk) == len(array.dims) and min((1, *array.shape, *array.chunk)) > 0
    )
    if not sizes or math.prod(array.chunk) * array.dtype.itemsize > MAX_CHUNK:
        raise _refused(
            array.archive, f"{array.name} of {array.shape} in chunks of {array.chunk}, {array.dims}"
        )
    return array


def _document(archive: Path, name: str) -> Any:
    """Return a JSON document of an archive; None where there is none."""
    if name not in members(archive):
        return None
    data = read_bytes(archive / name, _MAX_DOCUMENT)
    if data is None:
        raise ValueError(f"{name} cannot be read")
    return json.loads(data)


def _decoded(data: Any, config: Mapping[str, Any], most: int) -> Any:
    """Return what a codec of `_CODECS` makes of bytes; `ValueError` where that is more than ``most`` bytes."""
    name = config["id"]
    if name == "crc32c":  # behind a chunk of format 3; the archive has a checksum of its own
        return memoryview(data)[:-4]
    if name in ("zlib", "gzip"):
        unpacked = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32).decompress(data, most + 1)
        size = len(unpacked)
    else:
        size = _told_size(name, bytes(memoryview(data)[:18]))
    if size > most:
        raise ValueError(f"a chunk of {size:,} bytes and more, decoded, of {most:,}")
    return unpacked if name in ("zlib", "gzip") else numcodecs.get_codec(dict(config)).decode(data)


def _told_size(name: str, head: bytes) -> int:
    """Return the bytes that encoded data say that they are decoded, by their first bytes.

    Blosc's header, numcodecs' of LZ4, and of Zstandard the frame header of RFC 8878, 3.1.1.1.
    """
    if name == "blosc":
        return int.from_bytes(head[4:8], "little")
    if name == "lz4":
        return int.from_bytes(head[:4], "little")
    if name == _TEXT:  # a number of texts is first, and a text takes 8 bytes and more
        return 8 * int.from_bytes(head[:4], "little")
    if name != "zstd":  # bytes in another order
        return 0
    flags = head[4] if len(head) > 4 else 0
    is_single, length = bool(flags & 32), (0, 2, 4, 8)[flags >> 6]
    length = length or int(is_single)
    if not length:
        raise ValueError("Zstandard that does not say how long it is")
    at = 5 + (not is_single) + (0, 1, 2, 4)[flags & 3]
    return int.from_bytes(head[at : at + length], "little") + (256 if length == 2 else 0)


def _nodata(array: ZarrArray) -> float | None:
    """Return the value that stands for no data, by CF's attributes or, of format 2, by the fill value; None without.

    A fill value of 0 is Zarr's own where nobody says one, and means nothing. xarray writes the attribute of floats of
    format 3 as base64 of a float64.
    """
    about = array.attributes
    value = about.get("_FillValue", about.get("missing_value", None if array.prefix else array.fill or None))
    if isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity"):
        value = np.frombuffer(base64.b64decode(value), "<f8")[0]
    number = None if value is None else float(value)
    return None if number is None or math.isnan(number) else number


def _packing(array: ZarrArray) -> tuple[float, float]:
    """Return CF's scale_factor and add_offset."""
    return float(array.attributes.get("scale_factor", 1)), float(array.attributes.get("add_offset", 0))


def _affine(archive: Path, x: Array, y: Array) -> tuple[float, float, float, float, float, float] | None:
    """Return the affine of pixels by their middles (columns,) and (rows,); None of numbers that place nothing."""
    if x.dtype.kind not in "fiu" or y.dtype.kind not in "fiu" or min(x.size, y.size) < 2:
        return None
    x, y = x.astype(np.float64), y.astype(np.float64)
    dx, dy = (x[-1] - x[0]) / (x.size - 1), (y[-1] - y[0]) / (y.size - 1)
    if not (np.isfinite([*x, *y]).all() and dx and dy):
        return None
    off = max(np.abs(np.diff(v) - d).max() / abs(d) for v, d in ((x, dx), (y, dy)))
    if off > 0.01:
        raise _refused(archive, "pixels that are not evenly spaced")
    return float(dx), 0.0, float(x[0] - dx / 2), 0.0, float(dy), float(y[0] - dy / 2)


def _iso(column: ZarrArray | None, time: Array | None) -> str | None:
    """Return a time as ISO 8601, by the units of its coordinate; None where it says none."""
    if column is None or time is None or time.size != 1:
        return None
    attributes = {key: column.attributes[key] for key in ("units", "calendar") if key in column.attributes}
    if time.dtype.kind != "M" and "units" not in attributes:
        return None
    import xarray as xr

    decoded = xr.decode_cf(xr.Dataset({"time": ((), time.reshape(()), attributes)}))["time"].values
    if decoded.dtype.kind != "M" or np.isnat(decoded):
        return None
    return f"{np.datetime_as_string(decoded, 's')}Z"


def _refused(archive: Path, what: str) -> UnsupportedRasterError:
    return UnsupportedRasterError(
        f"expected a Zarr archive of chips, {BANDS!r} of {', '.join(DIMENSIONS)}, got {what} in {archive.name!r}. "
        "Download it again, or write its samples as GeoTIFFs."
    )
