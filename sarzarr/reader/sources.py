"""The way from planes of a batch to the bytes of their chunks. Nothing is open here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np

from sarzarr.arrays import Array
from sarzarr.pixels.stretch import Stretch
from sarzarr.store.chunks import ArrayLayout, ChunkTable

PAGE: Final = 4096
"""Bytes of a page."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Address:
    """The array and the first pixel of each plane of a batch; a plane is one channel of one patch."""

    array: Array
    """(planes,) int64: number of the array in the table."""
    row: Array
    """(planes,) int64: first row, in pixels."""
    col: Array
    """(planes,) int64: first column, in pixels."""
    plane: Array | None = None
    """(planes,) int64: picture within a packed array; 0 if left out."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """Arrays that are delivered alike: where their chunks lie and what their values become."""

    table: ChunkTable
    """The chunks."""
    stretches: tuple[Stretch | None, ...]
    """The law of each array; None delivers the stored values."""
    shape: tuple[int, int]
    """Rows and columns of a patch."""

    @cached_property
    def kinds(self) -> tuple[Array, tuple["Kind", ...]]:
        """Return (arrays,) the kind of each array, and the kinds."""
        found: dict[Kind, int] = {}
        numbers = [
            found.setdefault(_kind(layout, stretch), len(found))
            for layout, stretch in zip(self.table.layouts, self.stretches, strict=True)
        ]
        return np.array(numbers, np.int64), tuple(found)

    def chunks(self, address: Address) -> Array:
        """Return (planes,) int64: the number of the chunk that a plane is; -1 where it is not a whole chunk."""
        table, array = self.table, address.array
        shape, chunk, grid = table.shape[array], table.chunk[array], table.grid[array]
        row, col, (rows, cols) = address.row, address.col, self.shape
        is_whole = (chunk[:, 1:] == self.shape).all(1) & (row % rows == 0) & (col % cols == 0)
        is_whole &= (row + rows <= shape[:, 1]) & (col + cols <= shape[:, 2])
        plane = 0 if address.plane is None else address.plane // chunk[:, 0]
        numbers = (plane * grid[:, 1] + row // chunk[:, 1]) * grid[:, 2] + col // chunk[:, 2]
        return np.where(is_whole, table.first_chunk[array] + numbers, -1)


@dataclass(frozen=True)
class Kind:
    """The properties that patches worked on together share."""

    dtype: str
    """Stored dtype."""
    chunk: tuple[int, int]
    """Rows and columns of a chunk."""
    codec: str | None
    """How chunks are encoded; None where zarr-python reads them."""
    fill: float | int
    """The value of chunks that are left out, and of what lies beyond the edge."""
    stretch: Stretch | None
    """What values become."""

    @property
    def nbytes(self) -> int:
        """Bytes of a decoded chunk."""
        return self.chunk[0] * self.chunk[1] * np.dtype(self.dtype).itemsize


def _kind(layout: ArrayLayout, stretch: Stretch | None) -> Kind:
    fill = math.nan if layout.fill != layout.fill else layout.fill  # the one NaN, which is itself
    return Kind(layout.dtype, layout.chunk_pixels[1:], layout.codec, fill, stretch)


@dataclass(frozen=True, eq=False, kw_only=True)
class ByteRanges:
    """The file, offset and bytes of each chunk of a batch, as plain numbers, looked up once."""

    chunks: Sequence[int]
    """Numbers of the chunks in the table."""
    files: Sequence[int]
    """Numbers of their files."""
    offsets: Sequence[int]
    """Where in a file each begins, bytes."""
    sizes: Sequence[int]
    """Stored bytes of each; 0 where a chunk is absent because it is empty."""
    crcs: Array
    """(chunks,) uint32: the last four bytes of each."""

    @classmethod
    def of(cls, table: ChunkTable, chunks: Array) -> Self:
        """Return those of some chunks, in their order."""
        entries = table.of(chunks)
        files, sizes, offsets, _ = zip(*entries.tolist(), strict=True)
        crcs = np.ascontiguousarray(entries["crc"])
        return cls(files=files, offsets=offsets, sizes=sizes, chunks=chunks.tolist(), crcs=crcs)

    def __len__(self) -> int:
        return len(self.chunks)

    @cached_property
    def has_absent(self) -> bool:
        """Whether a chunk is absent."""
        return 0 in self.sizes

    @property
    def pages(self) -> int:
        """Pages that the longest may touch."""
        return -(-max(self.sizes, default=0) // PAGE) + 1

    def first_of_another_size(self, nbytes: int) -> int | None:
        """Return the first chunk that is there and has not so many bytes."""
        if set(self.sizes) <= {0, nbytes}:
            return None
        return next(c for c, size in zip(self.chunks, self.sizes, strict=True) if size not in (0, nbytes))


PIECE: Final = np.dtype(
    [("chunk", "<i8"), ("slot", "<i4"), ("y", "<i4"), ("x", "<i4"), ("h", "<i4"), ("w", "<i4")]
)
"""What one chunk gives one patch: (y, x) is where the chunk's first pixel falls in the patch (negative to the
upper left of it), (h, w) how much of the chunk lies within the array."""


def pieces_of(source: Source, address: Address, slots: Array, kind: Kind) -> Array:
    """Return (pieces,) of dtype `PIECE`: what the patches of ``slots`` (n,) int64 are made of, sorted by chunk."""
    table, array = source.table, address.array[slots]
    shape, grid = table.shape[array], table.grid[array]
    row, col = address.row[slots], address.col[slots]
    plane = np.zeros_like(row) if address.plane is None else address.plane[slots]
    (height, width), (rows, cols) = source.shape, kind.chunk
    found = []
    for down in range(-(-(height - 1) // rows) + 1):
        for right in range(-(-(width - 1) // cols) + 1):
            i, j = row // rows + down, col // cols + right
            y, x = i * rows - row, j * cols - col
            hit = np.flatnonzero((y < height) & (x < width) & (i < grid[:, 1]) & (j < grid[:, 2]))
            piece = np.empty(hit.size, PIECE)
            numbers = table.first_chunk[array] + (plane * grid[:, 1] + i) * grid[:, 2] + j
            columns = {
                "chunk": numbers,
                "y": y,
                "x": x,
                "h": shape[:, 1] - i * rows,
                "w": shape[:, 2] - j * cols,
            }
            for name, values in columns.items():
                piece[name] = values[hit]
            piece["slot"] = hit
            found.append(piece)
    pieces = np.concatenate(found)
    return pieces[np.argsort(pieces["chunk"], kind="stable")]
