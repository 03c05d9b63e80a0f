"""Shards: one file of chunks and their index, as Zarr v3's ``sharding_indexed`` lays it out.

A shard is written once, whole, by one task: chunks are appended to a file beside its place as
they are made, the index follows, and the file is renamed. Chunks that are all fill value are left out of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from crc32c import crc32c

from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError
from sarzarr.files import beside, naming, take_name, whole_file
from sarzarr.store.codecs import CRC_BYTES, Codec, get_codec
from sarzarr.store.documents import Encoding
from sarzarr.store.manifest import CHUNK, REMEDY, Manifest, ShardRecord
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
    if not chunks and head.size < CRC_BYTES:
        raise CorruptStoreError(f"expected a chunk and its checksum, got {head.size} bytes.")
    if not chunks:
        return np.array([[0, head.size]], np.uint64), head.size
    want = index_bytes(chunks)
    room = max(head.size - want, 0)
    index = parse_index(place.get_ranges(key, [(room, want)])[0], chunks)
    offset, size = index[index[:, 0] != EMPTY].T
    if ((offset > room) | (size > room - offset) | (size < CRC_BYTES)).any():
        raise CorruptStoreError(f"expected chunks within {room} bytes, got a shard index that lists others.")
    return index, head.size


def is_empty(chunk: np.ndarray[Any, Any], fill: Any) -> bool:
    """Whether a chunk is all ``fill``, bit by bit: most are not, and their first pixel tells. None: it is not."""
    if fill is None:
        return False
    unsigned = f"u{chunk.itemsize}"
    bits, blank = chunk.view(unsigned), np.asarray(fill, chunk.dtype).view(unsigned)
    return bool(bits.flat[0] == blank and (bits == blank).all())


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
        if not is_empty(chunk, self.fill):
            self.add(row, col, *self.codec.encode(chunk))

    def add(self, row: int, col: int, payload: Any, crc: bytes) -> None:
        """Add the bytes of the chunk at (row, col), as the codec has encoded them, with their checksum."""
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
            return ShardRecord()
        index = self._index.tobytes()
        self._write(index + crc32c(index).to_bytes(CRC_BYTES, "little"))
        self._file.close()
        take_name(self._partial, self.path)
        return ShardRecord.of(self._offset, self._index, self._crcs)

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
        return ShardRecord()
    payload, crc = codec.encode(chunk)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, partial.open("wb") as file:
        file.write(payload)
        file.write(crc)
    size = len(payload) + CRC_BYTES
    return ShardRecord.of(size, np.array([[0, size]]), {0: crc})


def read_chunks(
    place: Place,
    key: str,
    grid: tuple[int, int],
    codec: Codec,
    like: np.ndarray[Any, Any],
    wanted: set[tuple[int, int]] | None = None,
    entries: Array | None = None,
) -> Iterator[tuple[int, int, np.ndarray[Any, Any]]]:
    """Yield (row, column, chunk) of each chunk that a file holds, checked and decoded.

    ``grid`` (0, 0) reads a file that is one chunk. ``like`` gives a chunk's shape and dtype; the
    array that is yielded is used again for the next one. ``wanted`` limits which are read. ``entries`` (chunks,) of
    `CHUNK` are what the manifest says of the file; without them its own index is taken at its word.

    Raises `CorruptStoreError`, which names the file, where it is absent, or a chunk is short, fails its checksum or
    is not the one that belongs there.
    """
    cols, out = max(grid[1], 1), np.empty_like(like)
    try:
        held = entries if entries is not None else _claimed(read_index(place, key, grid)[0])
        numbers = np.flatnonzero(held["size"])
        if wanted is not None:
            numbers = numbers[[divmod(number, cols) in wanted for number in numbers.tolist()]]
        for first in range(0, len(numbers), TOGETHER):
            some = numbers[first : first + TOGETHER]
            ranges = list(zip(held["offset"][some].tolist(), held["size"][some].tolist(), strict=True))
            for number, stored in zip(some.tolist(), place.get_ranges(key, ranges), strict=True):
                if entries is not None:
                    check_end(stored, int(entries["crc"][number]))
                if codec.is_plain:  # what was read is the chunk: no copy
                    yield *divmod(number, cols), codec.view(stored, like)
                    continue
                codec.decode_into(stored, out)
                yield *divmod(number, cols), out
    except (CorruptStoreError, FileNotFoundError) as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else str(error).rstrip(".")
        raise CorruptStoreError(f"{what} (file {place}/{key}). {REMEDY}") from None


def check_end(stored: Any, crc: int) -> None:
    """Raise `CorruptStoreError` unless the bytes of a chunk end in the four that its manifest says."""
    if int.from_bytes(stored[-CRC_BYTES:], "little") != crc:
        raise CorruptStoreError("expected the chunk that the manifest lists, got another or a damaged one.")


def _claimed(index: Array) -> Array:
    """Return (chunks,) of `CHUNK` as a file's own index has them, without checksums."""
    entries = np.zeros(len(index), CHUNK)
    held = index[:, 0] != EMPTY
    entries["offset"][held], entries["size"][held] = index[held].T
    return entries


def record_of(place: Place, key: str, grid: tuple[int, int]) -> ShardRecord:
    """Return the record of a file from its index and its chunks' last bytes: what it claims to hold.

    The chunks themselves are not read. ``grid`` (0, 0) is that of a file that is one chunk.

    Raises `CorruptStoreError` and `FileNotFoundError` as `read_index`.
    """
    index, size = read_index(place, key, grid)
    held = np.flatnonzero(index[:, 0] != EMPTY)
    ends = index[held].sum(axis=1).tolist()
    crcs = place.get_ranges(key, [(max(end - CRC_BYTES, 0), CRC_BYTES) for end in ends])
    return ShardRecord.of(size, index, dict(zip(held.tolist(), crcs, strict=True)))


def is_as_listed(place: Place, key: str, grid: tuple[int, int], record: ShardRecord) -> bool:
    """Return whether a file claims to hold what its record says; of an empty record, whether there is no file."""
    try:
        return record_of(place, key, grid) == record
    except (OSError, CorruptStoreError):
        return not record.size and place.head(key) is None


def read_stored(
    place: Place,
    array: str,
    encoding: Encoding,
    window: tuple[slice, slice],
    out: np.ndarray[Any, Any] | None = None,
    manifest: Manifest | None = None,
) -> np.ndarray[Any, Any]:
    """Return a window (rows, columns) of an array from its files, checked; what has no file is its fill value.

    ``array`` is its key in the place. ``window`` is within it, and goes into ``out``, if that is given. ``manifest``
    is the array's: without one, as while it is made, each file is taken at its word, and one may be absent.

    Raises `CorruptStoreError` as `read_chunks`.
    """
    rows, cols = window
    chunk, size, grid, codec = encoding.chunk, encoding.file_size, encoding.grid, get_codec(encoding.codec)
    per, like = max(grid[0], 1), np.empty((chunk, chunk), encoding.dtype)
    shape = rows.stop - rows.start, cols.stop - cols.start
    out = np.empty(shape, like.dtype) if out is None else out
    out[...] = encoding.fill
    for i in range(rows.start // size, (rows.stop - 1) // size + 1):
        for j in range(cols.start // size, (cols.stop - 1) // size + 1):
            key, entries = f"{array}/c/{i}/{j}", None
            if manifest is not None:
                entries = manifest.chunks[i * manifest.files[1] + j]
            elif place.head(key) is None:
                continue
            wanted = _chunks_of(i * per, j * per, per, chunk, window)
            for row, col, tile in read_chunks(place, key, grid, codec, like, wanted, entries):
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
