"""Shards: one file of chunks and their index, as Zarr v3's ``sharding_indexed`` lays it out.

A shard is written once, whole, by one task: chunks are appended to a file beside its place as
they are made, the index follows, and the file is renamed. Chunks that are all fill value are left out of it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from crc32c import crc32c

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError
from sarzarr.files import beside, naming, take_name, whole_file
from sarzarr.store.codecs import CRC_BYTES, Codec, get_codec
from sarzarr.store.documents import Encoding
from sarzarr.store.place import Place

EMPTY: Final = np.uint64(2**64 - 1)
"""Offset and size of a chunk that is not in its shard."""
TOGETHER: Final = 8
"""Chunks of a file that are asked for at once."""


def index_bytes(chunks_per_shard: int) -> int:
    """Return the length of a shard's index: 16 bytes a chunk and a checksum."""
    return 16 * chunks_per_shard + CRC_BYTES


def parse_index(tail: bytes, chunks_per_shard: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return a shard's index as (chunks, 2) offsets and sizes, in C order of the chunks.

    ``tail`` ends where the file ends. Chunks that are left out hold `EMPTY` twice.

    Raises `CorruptStoreError` where the bytes are too few, or the index fails its checksum.
    """
    want = index_bytes(chunks_per_shard)
    index = tail[-want:-CRC_BYTES]
    if len(tail) < want or crc32c(index) != int.from_bytes(tail[-CRC_BYTES:], "little"):
        raise CorruptStoreError(
            f"expected a shard index of {want} intact bytes, got {len(tail)} that fail it."
        )
    return np.frombuffer(index, "<u8").reshape(chunks_per_shard, 2)


def read_index(
    place: Place, key: str, grid: tuple[int, int]
) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], int]:
    """Return the index of a file as `parse_index`, all of it within the file, and the bytes of the file.

    ``grid`` (0, 0) is that of a file that is one chunk.

    Raises `CorruptStoreError` as `parse_index`, or where a chunk would lie outside (a file that is cut behind a chunk
    as long as an index ends in bytes whose checksum holds); `FileNotFoundError` where there is no such file.
    """
    head = place.head(key)
    if head is None:
        raise FileNotFoundError(f"{place}/{key}")
    chunks = grid[0] * grid[1]
    if not chunks:
        return np.array([[0, head.size]], np.uint64), head.size
    want = index_bytes(chunks)
    room = max(head.size - want, 0)
    index = parse_index(place.get_ranges(key, [(room, want)])[0], chunks)
    offset, size = index[index[:, 0] != EMPTY].T
    if ((offset > room) | (size > room - offset) | (size < CRC_BYTES)).any():
        raise CorruptStoreError(f"expected chunks within {room} bytes, got a shard index that lists others.")
    return index, head.size


def shard_digest(index: bytes, checksums: list[bytes]) -> int:
    """Return the digest of a shard from the bytes of its index and of its chunks' checksums: `ShardRecord.digest`."""
    return int(crc32c(b"".join(checksums), crc32c(index)))


def is_empty(chunk: np.ndarray[Any, Any], fill: Any) -> bool:
    """Whether a chunk is all ``fill``, bit by bit: most are not, and their first pixel tells. None: it is not."""
    if fill is None:
        return False
    unsigned = f"u{chunk.itemsize}"
    bits, blank = chunk.view(unsigned), np.asarray(fill, chunk.dtype).view(unsigned)
    return bool(bits.flat[0] == blank and (bits == blank).all())


@dataclass(frozen=True)
class ShardRecord:
    """The record of one shard in a manifest."""

    size: int
    """Bytes of the file; 0 where every chunk is all fill value and there is no file."""
    digest: int
    """CRC-32C of the index followed by the chunks' checksums in C order of the chunks.

    A CRC-32C of the file itself would be blind: every chunk is followed by its own checksum,
    and the CRC of (bytes, CRC of bytes) is the same constant for all bytes.
    """
    chunks: int
    """Chunks that the file holds; the others are all fill value."""


def write_manifest(place: Place, array: str, records: Mapping[str, ShardRecord]) -> None:
    """Write the manifest of an array: the records of all its files by key, those too that are empty on purpose."""
    shards = {key: astuple(record) for key, record in sorted(records.items())}
    place.put(f"{array}/{cv.MANIFEST}", json.dumps({"shards": shards}).encode())


def read_manifest(place: Place, array: str) -> dict[str, ShardRecord] | None:
    """Return the records of an array's files by key; None of an array without one.

    Raises `ValueError` where the manifest is no JSON.
    """
    try:
        shards = json.loads(place.get(f"{array}/{cv.MANIFEST}"))["shards"]
    except FileNotFoundError:
        return None
    return {key: ShardRecord(*record) for key, record in shards.items()}


@dataclass
class ShardWriter:
    """Append chunks, then `close`: the shard is at ``path`` whole, or not at all.

    As a context manager it leaves nothing behind on an error, or where it was not closed.
    """

    path: Path
    """Where the shard will be."""
    grid: tuple[int, int]
    """Chunks of a shard, (rows, columns)."""
    codec: Codec
    """How each chunk is encoded."""
    fill: Any = 0
    """The value that chunks which are left out hold; None leaves none out."""
    _file: Any = field(default=None, init=False, repr=False)
    _offset: int = field(default=0, init=False, repr=False)
    _crcs: dict[int, bytes] = field(default_factory=dict, init=False, repr=False)
    _index: Any = field(init=False, repr=False)
    _partial: Path = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._index = np.full((self.grid[0] * self.grid[1], 2), EMPTY, "<u8")
        self._partial = beside(self.path)

    def append(self, row: int, col: int, chunk: np.ndarray[Any, Any]) -> None:
        """Add the C-contiguous chunk at (row, col) of this shard; one that is all fill value costs nothing."""
        if is_empty(chunk, self.fill):
            return
        payload, crc = self.codec.encode(chunk)
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("wb", buffering=0)
        size = len(payload) + CRC_BYTES
        self._write(payload)
        self._write(crc)
        at = row * self.grid[1] + col
        self._crcs[at] = crc
        self._index[at] = self._offset - size, size

    def _write(self, data: Any) -> None:
        self._offset += len(data)
        view = memoryview(data)
        with naming(self.path):
            while view:  # a raw write may be short, on a full disk above all
                view = view[self._file.write(view) :]

    def close(self) -> ShardRecord:
        """Write the index, put the file in its place, and return its record."""
        if self._file is None:
            self.path.unlink(missing_ok=True)
            return ShardRecord(0, 0, 0)
        index = self._index.tobytes()
        self._write(index + crc32c(index).to_bytes(CRC_BYTES, "little"))
        self._file.close()
        take_name(self._partial, self.path)
        crcs = [self._crcs[at] for at in sorted(self._crcs)]
        return ShardRecord(self._offset, shard_digest(index, crcs), len(crcs))

    def abort(self) -> None:
        """Leave no trace of this shard."""
        if self._file is not None:
            self._file.close()
            self._partial.unlink(missing_ok=True)  # it has its name already, if it was closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()


@dataclass
class ArrayFiles:
    """The files of one array in a folder: whole shards, or a file a chunk where there are none.

    As a context manager it leaves nothing half-written behind on an error.
    """

    folder: Path
    """The array's directory."""
    encoding: Encoding
    """The dtype, codec, chunks, shards and fill value of the array."""
    is_encoded: bool = False
    """Whether chunks come as bytes that are encoded already; none is left out then."""
    records: dict[str, ShardRecord] = field(default_factory=dict, init=False)
    """What was written, by key (``c/0/0``); complete after `close`."""
    _open: dict[str, ShardWriter] = field(default_factory=dict, init=False, repr=False)

    def write(self, row: int, col: int, chunk: np.ndarray[Any, Any]) -> None:
        """Write the C-contiguous chunk at (row, col) of the array's lattice of chunks."""
        rows, cols = grid = self.encoding.grid
        codec = get_codec("none" if self.is_encoded else self.encoding.codec)
        fill = None if self.is_encoded else self.encoding.fill
        if not rows:
            key = f"c/{row}/{col}"
            self.records[key] = write_chunk_file(self.folder / key, codec, chunk, fill)
            return
        key = f"c/{row // rows}/{col // cols}"
        if key not in self._open:
            self._open[key] = ShardWriter(self.folder / key, grid, codec, fill)
        self._open[key].append(row % rows, col % cols, chunk)

    def close_above(self, row: int) -> None:
        """Finish the shards that end at or above chunk row ``row``: few files are open at a time."""
        for key in list(self._open):
            if (int(key.split("/")[1]) + 1) * self.encoding.grid[0] <= row:
                self.records[key] = self._open.pop(key).close()

    def close(self) -> dict[str, ShardRecord]:
        """Finish every shard and return the records of all files."""
        for key in list(self._open):
            self.records[key] = self._open[key].close()
            del self._open[key]
        return self.records

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._open.values():
            writer.abort()


def write_chunk_file(path: Path, codec: Codec, chunk: np.ndarray[Any, Any], fill: Any = 0) -> ShardRecord:
    """Write a chunk as a file of its own, whole; one that is all fill value has no file."""
    if is_empty(chunk, fill):
        path.unlink(missing_ok=True)
        return ShardRecord(0, 0, 0)
    payload, crc = codec.encode(chunk)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, partial.open("wb") as file:
        file.write(payload)
        file.write(crc)
    return ShardRecord(len(payload) + CRC_BYTES, shard_digest(b"", [crc]), 1)


def read_chunks(
    place: Place,
    key: str,
    grid: tuple[int, int],
    codec: Codec,
    like: np.ndarray[Any, Any],
    wanted: set[tuple[int, int]] | None = None,
) -> Iterator[tuple[int, int, np.ndarray[Any, Any]]]:
    """Yield (row, column, chunk) of each chunk that a file holds, checked and decoded.

    ``grid`` (0, 0) reads a file that is one chunk. ``like`` gives a chunk's shape and dtype; the
    array that is yielded is used again for the next one. ``wanted`` limits which are read.
    """
    cols, out = max(grid[1], 1), np.empty_like(like)
    index, _ = read_index(place, key, grid)
    numbers = np.flatnonzero(index[:, 0] != EMPTY)
    if wanted is not None:
        numbers = numbers[[divmod(number, cols) in wanted for number in numbers.tolist()]]
    for first in range(0, len(numbers), TOGETHER):
        some = numbers[first : first + TOGETHER]
        for number, stored in zip(some.tolist(), place.get_ranges(key, index[some].tolist()), strict=True):
            if codec.is_plain:  # what was read is the chunk: no copy
                yield *divmod(number, cols), codec.view(stored, like)
                continue
            codec.decode_into(stored, out)
            yield *divmod(number, cols), out


def digest_of(place: Place, key: str, grid: tuple[int, int]) -> tuple[int, int]:
    """Return (size, digest) of a file from its index and its chunks' checksums; (0, 0) if absent or torn.

    The chunks themselves are not read: this tells which bytes a file claims to hold.
    """
    try:
        index, size = read_index(place, key, grid)
        ends = index[index[:, 0] != EMPTY].sum(axis=1).tolist()
        crcs = place.get_ranges(key, [(max(end - CRC_BYTES, 0), CRC_BYTES) for end in ends])
    except (OSError, CorruptStoreError):
        return 0, 0
    return size, shard_digest(index.tobytes() if grid[0] else b"", crcs)


def read_stored(
    place: Place,
    array: str,
    encoding: Encoding,
    window: tuple[slice, slice],
    out: np.ndarray[Any, Any] | None = None,
) -> np.ndarray[Any, Any]:
    """Return a window (rows, columns) of an array from its files, checked; what has no file is its fill value.

    ``array`` is its key in the place. ``window`` is within it, and goes into ``out``, if that is given.
    """
    rows, cols = window
    chunk, size, grid, codec = encoding.chunk, encoding.file_size, encoding.grid, get_codec(encoding.codec)
    per, like = max(grid[0], 1), np.empty((chunk, chunk), encoding.dtype)
    shape = rows.stop - rows.start, cols.stop - cols.start
    out = np.empty(shape, like.dtype) if out is None else out
    out[...] = encoding.fill
    for i in range(rows.start // size, (rows.stop - 1) // size + 1):
        for j in range(cols.start // size, (cols.stop - 1) // size + 1):
            key = f"{array}/c/{i}/{j}"
            if place.head(key) is None:
                continue
            wanted = _chunks_of(i * per, j * per, per, chunk, window)
            for row, col, tile in read_chunks(place, key, grid, codec, like, wanted):
                top, left = (i * per + row) * chunk - rows.start, (j * per + col) * chunk - cols.start
                part = out[max(top, 0) : max(top + chunk, 0), max(left, 0) : max(left + chunk, 0)]
                part[...] = tile[max(-top, 0) :, max(-left, 0) :][: part.shape[0], : part.shape[1]]
    return out


def _chunks_of(row: int, col: int, per: int, chunk: int, window: tuple[slice, slice]) -> set[tuple[int, int]]:
    """Return which chunks of the file whose first chunk is (row, col) touch the window."""
    spans = []
    for first, span in zip((row, col), window, strict=True):
        low = max(span.start // chunk - first, 0)
        high = min((span.stop - 1) // chunk - first, per - 1)
        spans.append(range(low, high + 1))
    return {(i, j) for i in spans[0] for j in spans[1]}
