"""Decoded chunks that a process keeps between batches, in memory of bounded size that its threads share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.reader.memory import aligned_buffer
from sarzarr.reader.sources import Source

FOR_WINDOWS: Final = 256_000_000
"""Bytes of a reader whose windows are no whole chunks, unless told otherwise: several windows need each chunk."""
BESIDE: Final = 32_000_000
"""Bytes for flags and layers beside images that are whole chunks: most chunks of flags have one value."""
VALUES: Final = 4
"""Values of which one chunk is kept that stands for all that have no other."""
_LINE: Final = 64


@dataclass(eq=False)
class ChunkCache:
    """Chunks of one part of batches, by their number in its table. A chunk that has been decoded has been checked."""

    chunks: int
    """Chunks of the table."""
    nbytes: int
    """Bytes of the largest, decoded, and up to whole cache lines."""
    rows: int
    """Chunks that are kept; those of one value are not counted."""
    _row_of: Array = field(init=False, repr=False)
    _chunk_of: Array = field(init=False, repr=False)
    _users: Array = field(init=False, repr=False)
    _values: dict[bytes, int] = field(default_factory=dict, init=False, repr=False)
    _next: int = field(default=0, init=False, repr=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._row_of = np.full(self.chunks, -1, np.int32)
        self._chunk_of, self._users = np.full(self.rows, -1, np.int64), np.zeros(self.rows, np.int32)
        memory = aligned_buffer((self.rows + VALUES) * self.nbytes)  # of the system's, once it is written to
        self.cells = np.frombuffer(memory, np.uint8).reshape(-1, self.nbytes)

    def take(self, chunks: Array) -> tuple[Array, Array] | None:
        """Return the row of `cells` (k,) int64 of each chunk, all different, and which are to be decoded there.

        The rows are the caller's until it gives them back. None where those of others leave too few; else what was
        there longest makes room.
        """
        with self._lock:
            rows = self._row_of[chunks].astype(np.int64)
            missing, kept = np.flatnonzero(rows < 0), rows[(rows >= 0) & (rows < self.rows)]
            self._users[kept] += 1
            if missing.size:
                order = (np.arange(self.rows) + self._next) % self.rows
                free = order[self._users[order] == 0][: missing.size]
                if free.size < missing.size:
                    self._users[kept] -= 1
                    return None
                old = self._chunk_of[free]
                self._row_of[old[old >= 0]] = -1
                self._chunk_of[free], self._users[free] = -1, 1
                rows[missing], self._next = free, int(free[-1]) + 1
            return rows, missing

    def put(self, chunks: Sequence[int], rows: Sequence[int], dtype: str) -> list[int]:
        """Take note of what was decoded; return where it is from now on: a chunk of one value, where all such are."""
        kept = [self._kept(row, dtype) for row in rows]
        with self._lock:
            for chunk, row in zip(chunks, kept, strict=True):
                if self._row_of[chunk] < 0:  # else another thread was quicker
                    self._row_of[chunk] = row
                    if row < self.rows:
                        self._chunk_of[row] = chunk
        return kept

    def give_back(self, rows: Array) -> None:
        """Let others have the rows that were taken."""
        with self._lock:
            self._users[rows[rows < self.rows]] -= 1

    def _kept(self, row: int, dtype: str) -> int:
        pixels = self.cells[row].view(f"u{np.dtype(dtype).itemsize}")
        if pixels[0] != pixels[-1] or not (pixels == pixels[0]).all():
            return row
        with self._lock:
            value = pixels[:1].tobytes()
            if value not in self._values and len(self._values) < VALUES:
                at = self._values[value] = self.rows + len(self._values)
                self.cells[at] = self.cells[row]
            return self._values.get(value, row)


def cache_rows(sources: Sequence[Source], nbytes: int | None, *, is_whole: bool) -> list[tuple[int, int]]:
    """Return (bytes of a chunk, chunks kept) of each part of batches, images first; (0, 0) of one that needs none.

    ``nbytes`` are those of all parts, as many chunks of each; None is `FOR_WINDOWS` or, where images are whole chunks
    (``is_whole``), `BESIDE`, for the others alone. Chunks that are not compressed are read by rows instead.
    """
    sizes = [
        max((kind.nbytes for kind in source.kinds[1] if kind.codec not in ("none", None)), default=0)
        for source in sources
    ]
    if nbytes is None and is_whole:
        sizes[0] = 0
    sizes = [math.ceil(size / _LINE) * _LINE for size in sizes]
    most = (BESIDE if is_whole else FOR_WINDOWS) if nbytes is None else nbytes
    rows = most // max(sum(sizes), 1)
    return [(size, rows if size else 0) for size in sizes]
