"""Shards: one file of chunks and their index, as Zarr v3's ``sharding_indexed`` lays it out.

A shard is written once, whole, by one task: chunks are appended to a file beside its place as
they are made, the index follows, and the file is renamed. Chunks of zeros are left out of it.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from crc32c import crc32c

from sarzarr.codecs import CRC_BYTES, Codec
from sarzarr.errors import CorruptStoreError

EMPTY: Final = np.uint64(2**64 - 1)
"""Offset and size of a chunk that is not in its shard."""


def index_bytes(chunks_per_shard: int) -> int:
    """Return the length of a shard's index: 16 bytes a chunk and a checksum."""
    return 16 * chunks_per_shard + CRC_BYTES


def parse_index(tail: bytes, chunks_per_shard: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return a shard's index as (chunks, 2) offsets and sizes, in C order of the chunks.

    ``tail`` ends where the file ends. Chunks that are left out hold `EMPTY` twice.

    Raises
    ------
    CorruptStoreError
        The bytes are too few, or the index fails its checksum.
    """
    want = index_bytes(chunks_per_shard)
    index = tail[-want:-CRC_BYTES]
    if len(tail) < want or crc32c(index) != int.from_bytes(tail[-CRC_BYTES:], "little"):
        raise CorruptStoreError(f"expected a shard index of {want} intact bytes, got {len(tail)} that fail it.")
    return np.frombuffer(index, "<u8").reshape(chunks_per_shard, 2)


def shard_digest(index: bytes, checksums: list[bytes]) -> int:
    """Return the digest of a shard: see `ShardRecord.digest`."""
    return int(crc32c(b"".join(checksums), crc32c(index)))


@dataclass(frozen=True)
class ShardRecord:
    """What a manifest says of one shard."""

    size: int
    """Bytes of the file; 0 where every chunk is zero and there is no file."""
    digest: int
    """CRC-32C of the index followed by the chunks' checksums in C order of the chunks.

    A CRC-32C of the file itself would be blind: every chunk is followed by its own checksum,
    and the CRC of (bytes, CRC of bytes) is the same constant for all bytes.
    """
    chunks: int
    """Chunks that the file holds; the others are zero."""


@dataclass
class ShardWriter:
    """Append chunks, then `close`: the shard is at ``path`` whole, or not at all.

    As a context manager it closes on success and leaves nothing behind on an error.
    """

    path: Path
    """Where the shard will be."""
    grid: tuple[int, int]
    """Chunks of a shard, (rows, columns)."""
    codec: Codec
    """How each chunk is encoded."""
    _file: Any = field(default=None, init=False, repr=False)
    _offset: int = field(default=0, init=False, repr=False)
    _crcs: dict[int, bytes] = field(default_factory=dict, init=False, repr=False)
    _index: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._index = np.full((self.grid[0] * self.grid[1], 2), EMPTY, "<u8")

    @property
    def _partial(self) -> Path:
        return self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")

    def append(self, row: int, col: int, chunk: np.ndarray[Any, Any]) -> None:
        """Add the C-contiguous chunk at (row, col) of this shard; a chunk of zeros costs nothing."""
        if not chunk.any():
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
        while view:  # a raw write may be short, on a full disk above all
            view = view[self._file.write(view) :]

    def close(self) -> ShardRecord:
        """Write the index, put the file in its place, and return its record."""
        if self._file is None:
            return ShardRecord(0, 0, 0)
        index = self._index.tobytes()
        self._write(index + crc32c(index).to_bytes(CRC_BYTES, "little"))
        self._file.close()
        self._partial.replace(self.path)
        crcs = [self._crcs[at] for at in sorted(self._crcs)]
        return ShardRecord(self._offset, shard_digest(index, crcs), len(crcs))

    def abort(self) -> None:
        """Leave no trace of this shard."""
        if self._file is not None:
            self._file.close()
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.abort()
