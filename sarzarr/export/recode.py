"""One array, rows of shards after another, into another dtype, codec or shard size: a copy's task.

A chunk whose dtype and codec stay is passed on as it is stored; any other is decoded, converted and
encoded anew. Every file is held against its manifest, and every chunk against its checksum.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError
from sarzarr.export.schema1 import OlderRecord, as_schema_2, older_records
from sarzarr.pixels.bounds import count_half_codes
from sarzarr.pixels.kernels import half_codes_kernel
from sarzarr.pixels.radiometry import from_codes, to_codes
from sarzarr.store.codecs import get_codec
from sarzarr.store.documents import Encoding, file_bytes
from sarzarr.store.free_values import values_of
from sarzarr.store.manifest import REMEDY, ShardRecord, read_manifest
from sarzarr.store.place import Place
from sarzarr.store.shard_job import ShardJob, job_side, rectangles
from sarzarr.store.shards import EMPTY, ArrayFiles, read_index, record_of
from sarzarr.tasks import worker_name

Records = dict[str, ShardRecord]
Copied = tuple[Path, Records | Exception, Array | None]
"""The folder of an array, records of its files or what went wrong, and (131069,) int64 counts of pixels or None."""


@dataclass(frozen=True, kw_only=True)
class CopyJob(ShardJob):
    """One array, codes or flags, or some rows of its new files, as a worker reads and writes it."""

    name: str
    """The array's name in its scene group."""
    source: Place
    """The store that is copied."""
    listed: str
    """`digest` as whoever copies sees it; workers must see the same."""
    token: str
    """A file that is there as long as the copy goes on."""
    stored: Encoding
    """The encoding that it is read in."""
    is_older: bool = False
    """Whether the store is of schema 1."""
    old_flags: str = ""
    """Of backscatter of schema 1, the name of its flags, which tell what was measured."""
    is_counted: bool = False
    """Whether its pixels are counted into a histogram anew."""

    @classmethod
    def of(cls, shape: tuple[int, int], *, encoding: Encoding, **fields: Any) -> "CopyJob":
        """Return the job of a whole array of ``shape`` (rows, columns) with those fields."""
        (place,) = rectangles(shape, shape)
        return cls(**place, band_rows=encoding.file_size, encoding=encoding, **fields)

    @property
    def key(self) -> str:
        """The array's key, in the store and in the copy."""
        return f"{cv.SCENES}/{self.scene}/{self.name}"

    @property
    def digest(self) -> str:
        """A digest of the manifests of the array, and of flags that tell what was measured of it, as seen from here.

        Raises `CorruptStoreError` where there is none.
        """
        digest = hashlib.blake2b(digest_size=8)
        for array in (self.key, *([f"{cv.SCENES}/{self.scene}/{self.old_flags}"] if self.old_flags else ())):
            try:
                digest.update(file_bytes(self.source, f"{array}/{cv.MANIFEST}"))
            except (FileNotFoundError, NotADirectoryError):
                raise CorruptStoreError(
                    f"a manifest was expected, got none at {self.source}/{array}/{cv.MANIFEST}. {REMEDY} Nothing was "
                    "copied."
                ) from None
        return digest.hexdigest()

    def check_source(self) -> None:
        """Raise `CorruptStoreError` unless the store that is read from here is the one that is copied."""
        try:
            if self.digest == self.listed:
                return
            got = "another"
        except CorruptStoreError:
            got = "none"
        raise CorruptStoreError(
            f"{self.source}/{self.key} was expected as it was when the copy began, got {got} on "
            f"{worker_name() or 'this machine'}. Workers must see the same file system under the same path; run the "
            "same command again. Nothing was copied."
        )

    @property
    def target(self) -> Path:
        """The array's folder in the copy."""
        return Path(self.folder, self.name)

    @property
    def is_passed_on(self) -> bool:
        """Whether the bytes of chunks, up to their CRC-32C, stay as stored, and only their files may change."""
        is_same = (self.stored.dtype, self.stored.codec) == (self.encoding.dtype, self.encoding.codec)
        return is_same and not self.is_older and not get_codec(self.stored.codec).checks_itself

    @property
    def stored_bytes(self) -> int:
        """Bytes of its pixels, decoded."""
        return self.height * self.width * np.dtype(self.stored.dtype).itemsize

    @property
    def parts(self) -> tuple["CopyJob", ...]:
        """The jobs of its tasks: whole files of (rows, columns), of a shard's default height if they are small."""
        size = job_side(self.encoding.file_size), self.width
        return tuple(replace(self, **place) for place in rectangles((self.height, self.width), size))


def copy_shards(job: CopyJob) -> Copied:
    """Write the files of a job; return the array's folder, the files' records or what went wrong, and counts.

    An error is a value, so that whoever gives the copy up can wait until no other task writes.
    """
    try:
        return job.target, *_copy_files(job)
    except Exception as error:
        return job.target, error, None


def _copy_files(job: CopyJob) -> tuple[Records, Array | None]:
    job.check_source()
    reader = _OlderReader(job) if job.is_older else _ChunkReader(job)
    size, chunk = job.encoding.file_size, job.encoding.chunk
    records: Records = {}
    for top, rows in job.bands:
        for left in range(0, job.width, size):
            if not Path(job.token).exists():
                return {}, None
            down, across = range(top, top + rows, chunk), range(left, min(left + size, job.width), chunk)
            with ArrayFiles(job.target, job.encoding, is_encoded=job.is_passed_on) as files:
                for row, col in product(down, across):
                    if (pixels := reader.read(row // chunk, col // chunk)) is not None:
                        files.write(row // chunk, col // chunk, pixels)
                records |= files.close()
    return job.every_file(records), reader.counts if isinstance(reader, _OlderReader) else None


@dataclass
class _ChunkReader:
    """The stored chunks of one array by row and column, each file held against the manifest once."""

    array: CopyJob
    _listed: Mapping[str, ShardRecord | OlderRecord] = field(init=False, repr=False)
    _indices: dict[str, Array | None] = field(default_factory=dict, init=False, repr=False)
    _chunk: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        array = self.array
        read = older_records if array.is_older else lambda place, key: read_manifest(place, key).records
        try:
            self._listed = read(array.source, array.key)
        except CorruptStoreError as error:
            raise self._corrupt(str(error).rstrip("."), cv.MANIFEST) from None
        self._chunk = np.empty((self.array.stored.chunk, self.array.stored.chunk), self.array.stored.dtype)

    def read(self, row: int, col: int) -> Array | None:
        """Return what is to be written of a chunk, None where it is empty; good until the next one is read.

        Of an array that is passed on these are the chunk's stored bytes, without their checksum: written with
        the codec ``none`` they are followed by the same one.
        """
        rows, cols = (max(n, 1) for n in self.array.stored.grid)
        key, at = f"c/{row // rows}/{col // cols}", row % rows * cols + col % cols
        if key not in self._indices:
            self._indices[key] = self._index(key)
        index = self._indices[key]
        if index is None or not index["size"][at]:
            return None
        stored = self._stored(key, int(index["offset"][at]), int(index["size"][at]))
        try:
            codec = get_codec(self.array.stored.codec)
            if self.array.is_passed_on:
                return np.frombuffer(codec.payload_of(stored), np.uint8)
            codec.decode_into(stored, self._chunk)
        except CorruptStoreError as error:
            raise self._corrupt(str(error).rstrip("."), key, at) from None
        return self._chunk if self.array.is_older else converted(self._chunk, self.array.encoding.dtype)

    def _index(self, key: str) -> Array | None:
        """Return (chunks,) of `CHUNK` of a file that is as the manifest lists it; None of one that is empty."""
        if key not in self._listed:
            raise self._corrupt(f"file {key} was expected in the {cv.MANIFEST}, got no word of it", key)
        record, place, grid = self._listed[key], self.array.source, self.array.stored.grid
        if not record.size:
            return None
        try:
            found = record_of(place, f"{self.array.key}/{key}", grid)
        except (FileNotFoundError, CorruptStoreError):
            raise self._damage(key) from None
        if isinstance(record, OlderRecord):
            is_listed = record.lists(found, is_sharded=bool(self.array.stored.shard))
        else:
            is_listed = found == record
        if not is_listed:
            raise self._damage(key)
        return found.entries

    def _damage(self, key: str) -> CorruptStoreError:
        """Return what is wrong with a file: the first chunk that fails its checksum, or the whole of it."""
        try:
            index, _ = read_index(self.array.source, f"{self.array.key}/{key}", self.array.stored.grid)
        except FileNotFoundError:
            return self._corrupt(f"a file of {self._listed[key].size} bytes was expected, got none", key)
        except CorruptStoreError as error:  # a file without an index is a chunk
            return self._corrupt(str(error).rstrip("."), key, None if self.array.stored.shard else 0)
        codec = get_codec(self.array.stored.codec)
        for at in np.flatnonzero(index[:, 0] != EMPTY).tolist():
            try:
                codec.decode_into(self._stored(key, *index[at].tolist()), self._chunk)
            except CorruptStoreError as error:
                return self._corrupt(str(error).rstrip("."), key, at)
        return self._corrupt("a file as the manifest lists it was expected, got another that is intact", key)

    def _stored(self, key: str, offset: int, size: int) -> bytes:
        """Return the stored bytes of a chunk."""
        return self.array.source.get_ranges(f"{self.array.key}/{key}", [(offset, size)])[0]

    def _corrupt(self, what: str, key: str, at: int | None = None) -> CorruptStoreError:
        """Return an error that says where: scene, array, file, and the chunk by its first pixel."""
        array, chunk = self.array, ""
        if at is not None:
            down, right = (int(n) * array.stored.file_size for n in key.split("/")[1:])
            row, col = divmod(at, max(array.stored.grid[1], 1))
            size = array.stored.chunk
            chunk = f", chunk at row {down + row * size}, col {right + col * size}"
        return CorruptStoreError(
            f"{what}: scene {array.scene!r}, array {array.name!r}{chunk} "
            f"(file {array.source}/{array.key}/{key}). {REMEDY} Nothing was copied."
        )


class _OlderReader:
    """The chunks of an array of schema 1 as they are stored today, and their histogram where it is asked for."""

    def __init__(self, array: CopyJob) -> None:
        self.array = array
        self.counts = np.zeros(cv.HISTOGRAM_BINS, np.int64) if array.is_counted else None
        self._values = _ChunkReader(array)
        self._flags: _ChunkReader | None = None
        if array.old_flags:
            self._flags = _ChunkReader(replace(array, name=array.old_flags, stored=array.stored.of_flags))

    def read(self, row: int, col: int) -> Array:
        """Return a chunk, fill where nothing was measured and beyond the array's edges; good until the next one."""
        array, size = self.array, self.array.stored.chunk
        blank = np.ones((size, size), bool)
        blank[: array.row + array.height - row * size, : array.col + array.width - col * size] = False
        out = _or_zeros(self._values, row, col)
        if self._flags is not None:
            flags = _or_zeros(self._flags, row, col)
            if self.counts is not None:
                lit = out[(flags == cv.Flag.VALID) & ~blank]
                count_half_codes(half_codes_kernel(lit), self.counts)
            blank |= ~cv.Flag.is_valid(flags)
            out = as_schema_2(out, array.encoding.dtype)
        out = out.astype(array.encoding.dtype, copy=False)
        out[blank] = array.encoding.fill
        return out


def values_in(job: CopyJob) -> Array:
    """Return the values (n,) that the pixels of a layer of schema 1 have: `sarzarr.store.free_values.values_of`."""
    job.check_source()
    reader, size, values = _ChunkReader(job), job.stored.chunk, np.empty(0, job.stored.dtype)
    for top in range(job.row, job.row + job.height, size):
        for left in range(job.col, job.col + job.width, size):
            chunk = _or_zeros(reader, top // size, left // size)
            chunk = chunk[: job.row + job.height - top, : job.col + job.width - left]
            values = values_of(np.concatenate([values, values_of(chunk)]))
    return values


def _or_zeros(reader: _ChunkReader, row: int, col: int) -> Array:
    """Return a chunk of schema 1, zeros where it is left out."""
    chunk, stored = reader.read(row, col), reader.array.stored
    return np.zeros((stored.chunk, stored.chunk), stored.dtype) if chunk is None else chunk


def converted(values: Array, dtype: str) -> Array:
    """Return stored values, codes or [0, 1], as ``dtype``; ``values`` themselves where they are it already.

    >>> converted(np.array([0, 32768, 65535], np.uint16), "float32")
    array([nan, 0.5, 1. ], dtype=float32)
    >>> converted(np.array([0.0, 0.5, 1.0], np.float16), "uint16")
    array([    1, 32768, 65535], dtype=uint16)
    """
    if values.dtype == dtype:
        return values
    if dtype == "uint16":
        return to_codes(values.astype(np.float32, copy=False))
    floats = from_codes(values) if values.dtype == np.uint16 else values
    return floats.astype(dtype, copy=False)
