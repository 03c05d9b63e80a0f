"""Manifests: the files of an array, and every chunk in them, as JSON beside it.

A manifest says where each chunk lies and which four bytes it ends in, its checksum: a chunk is held against that
wherever one is read, so that another one, however intact, is never taken for it. It is bound to its array by a
checksum over itself and the array's key in the store.
"""

import base64
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Final

import numpy as np
from numcodecs import zstd

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, InvalidInputError, MissingFileError, StoreChangedError
from sarzarr.store.codecs import get_codec
from sarzarr.store.documents import file_bytes, key_in_store, named, read_json, write_json
from sarzarr.store.limits import MAX_CHUNKS
from sarzarr.store.place import Place
from sarzarr.store.seals import crc_of
from sarzarr.tasks import worker_name

REMEDY: Final = "Make it again from its source: `sarzarr remove`, then `sarzarr ingest`."
_ENDS: Final = re.compile(rb'"crc32c": (\d{1,10})\s*}\s*\Z')
"""How a manifest ends."""
CHUNK: Final = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc", "<u4")])
"""One chunk of a file: where it begins, its bytes (0: it is all fill value and left out), and the last four of them:
its CRC-32C, or what its codec has in that place."""


@dataclass(frozen=True)
class ShardRecord:
    """The record of one file of an array."""

    size: int = 0
    """Bytes of the file; 0 where every chunk is all fill value and there is no file."""
    table: bytes = b""
    """`CHUNK` of each chunk, in C order of the file's chunks; none where there is no file."""

    @classmethod
    def of(cls, size: int, index: Array, crcs: Mapping[int, bytes]) -> "ShardRecord":
        """Return the record of a file from (offset, size) of its chunks and the last bytes of those that it holds."""
        entries = np.zeros(len(index), CHUNK)
        for at, crc in crcs.items():
            entries[at] = (*index[at].tolist(), int.from_bytes(crc, "little"))
        return cls(size, entries.tobytes())

    @property
    def entries(self) -> Array:
        """(chunks,) of `CHUNK`; (0,) where there is no file."""
        return np.frombuffer(self.table, CHUNK)

    @property
    def chunks(self) -> int:
        """Chunks that the file holds; the others are all fill value."""
        return int(np.count_nonzero(self.entries["size"]))

    def to_json(self) -> list[Any]:
        """Return the record as JSON has it; `from_json` is the inverse."""
        return [self.size, _packed(self.entries[None])]

    @classmethod
    def from_json(cls, content: list[Any]) -> "ShardRecord":
        """Return the record that `to_json` wrote."""
        size, table = content
        return cls(int(size), _unpacked(table, 1).tobytes())


@dataclass(frozen=True, eq=False)
class Manifest:
    """The files of an array and their chunks."""

    array: str
    """The array's key in the store."""
    files: tuple[int, ...]
    """Files along each dimension."""
    sizes: Array
    """(files,) int64: bytes of each, in C order; 0 where there is no file on purpose."""
    chunks: Array
    """(files, chunks of a file) of `CHUNK`."""
    crc: int
    """The checksum of all of it: another one is another array."""

    @cached_property
    def keys(self) -> list[str]:
        """The keys of the files in C order: ``c/0/0``, ``c/0/1``, ..."""
        return ["/".join(("c", *map(str, at))) for at in product(*map(range, self.files))]

    @cached_property
    def records(self) -> dict[str, ShardRecord]:
        """The record of each file by its key."""
        rows = zip(self.keys, self.sizes.tolist(), self.chunks, strict=True)
        return {key: ShardRecord(size, row.tobytes()) if size else ShardRecord() for key, size, row in rows}


def write_manifest(place: Place, array: str, records: Mapping[str, ShardRecord]) -> None:
    """Write the manifest of an array: the records of all its files by key, those too that are empty on purpose."""
    at = {tuple(map(int, key.split("/")[1:])): record for key, record in records.items()}
    files = [max(numbers) + 1 for numbers in zip(*at, strict=True)]
    if len(at) != math.prod(files):
        raise InvalidInputError(
            f"records of {math.prod(files)} files of {array!r} were expected, got {len(at)}."
        )
    ordered = [at[key] for key in product(*map(range, files))]
    per = max(len(record.entries) for record in ordered)
    chunks = np.zeros((len(ordered), per), CHUNK)
    for row, record in zip(chunks, ordered, strict=True):
        row[: len(record.entries)] = record.entries
    key = key_in_store(place, array)
    document = {
        "array": key,
        "files": files,
        "sizes": _text(np.array([record.size for record in ordered], "<u8")),
        "chunks": _packed(chunks),
    }
    write_json(place, f"{array}/{cv.MANIFEST}", document | {"crc32c": crc_of(document, key)})


def read_manifest(place: Place, array: str) -> Manifest:
    """Return the manifest of an array.

    Raises `MissingFileError` where there is none: no pixel of such an array is known to be what was written;
    `CorruptStoreError` where it is not as it was written, or is that of another array.
    """
    name, key = f"{array}/{cv.MANIFEST}", key_in_store(place, array)
    try:
        document = read_json(place, name)
    except MissingFileError:
        raise MissingFileError(f"a manifest was expected at {place}/{name}, got none. {REMEDY}") from None
    except CorruptStoreError as error:
        raise CorruptStoreError(f"{error} {REMEDY}") from None
    with named(place, name):
        crc = document.pop("crc32c")
        if document["array"] != key or crc != crc_of(document, key):
            raise CorruptStoreError(
                f"the manifest of {key!r} was expected at {place}/{name}, got one that is damaged, or another's. "
                f"{REMEDY}"
            )
        sizes = np.frombuffer(_bytes(document["sizes"]), "<u8").astype(np.int64)
        files = tuple(document["files"])
        if not all(type(n) is int and n > 0 for n in files) or math.prod(files) != len(sizes):
            raise ValueError(f"{str(files)[:100]} files of {len(sizes)} sizes")
        return Manifest(key, files, sizes, _unpacked(document["chunks"], len(sizes)), crc)


def told_checksum(place: Place, array: str) -> int:
    """Return the checksum that the manifest of an array ends in, which is not held against the rest of it here.

    Raises `MissingFileError` as `read_manifest`; `CorruptStoreError` where it ends in another way, and is damaged.
    """
    with suppress(MissingFileError):
        ends = _ENDS.search(file_bytes(place, f"{array}/{cv.MANIFEST}"))
        if ends is not None:
            return int(ends[1])
    return read_manifest(place, array).crc


def changed(place: Place, array: str, crc: int) -> StoreChangedError | None:
    """Return the error of an array whose manifest is no longer of that checksum; None where it is."""
    try:
        if read_manifest(place, array).crc == crc:
            return None
    except CorruptStoreError:
        pass
    return was_changed(place, array)


def was_changed(place: Place, array: str) -> StoreChangedError:
    """Return the error of an array that is no longer the one that was there when it was opened."""
    if by := worker_name():
        why = (
            f"on {by}. Workers must see the same file system under the same path; run the same command again."
        )
    else:
        why = "it was replaced or removed meanwhile. Open the store anew."
    return StoreChangedError(
        f"{array} as it was when {place} was opened was expected, got another or none: {why}"
    )


def _packed(entries: Array) -> str:
    """Return (files, chunks) of `CHUNK` as text. In a file they follow one another: sizes tell where they begin."""
    size, crc = entries["size"], entries["crc"]
    ahead = entries["offset"] - _expected(size)
    columns = (np.where(size > 0, ahead, 0).astype("<u8"), size, crc)
    return _text(np.concatenate([np.ascontiguousarray(column).reshape(-1).view("u1") for column in columns]))


def _unpacked(text: str, files: int) -> Array:
    """Return the entries (files, chunks) that `_packed` wrote."""
    content = _bytes(text)
    count = len(content) // CHUNK.itemsize
    entries = np.zeros((files, count // files), CHUNK)
    shape = entries.shape
    entries["size"] = np.frombuffer(content, "<u4", count, 8 * count).reshape(shape)
    entries["crc"] = np.frombuffer(content, "<u4", count, 12 * count).reshape(shape)
    offset = np.frombuffer(content, "<u8", count).reshape(shape) + _expected(entries["size"])
    entries["offset"] = np.where(entries["size"] > 0, offset, 0)
    return entries


def _expected(size: Array) -> Array:
    """Return (files, chunks) uint64: where chunks of these sizes begin if each follows the one before it."""
    return np.cumsum(size, axis=1, dtype=np.uint64) - size


def _text(values: Array) -> str:
    """Return values as text; of none the empty text: what zstd makes of nothing, it cannot read."""
    return base64.b64encode(zstd.compress(values.tobytes(), 3)).decode() if values.size else ""


def _bytes(text: str) -> bytes:
    return get_codec("zstd").decoded(base64.b64decode(text), CHUNK.itemsize * MAX_CHUNKS) if text else b""
