"""The direct read engine: from chunk addresses to delivered pixels, a group of patches at a time.

What decides is how often threads hand each other the GIL, so reads, checks and passes each take a group
of patches that still fits a core's cache. A `Filler` belongs to one thread; what it was made from
(`Patches`) holds nothing open, pickles, and may be used by any number of them.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from crc32c import crc32c

from sarzarr.augment import copy_turned
from sarzarr.chunks import ChunkTable
from sarzarr.codecs import CRC_BYTES, Codec, get_codec
from sarzarr.errors import CorruptStoreError
from sarzarr.stretch import Stretch

Array = np.ndarray[Any, Any]
GROUP: Final = 8
"""Patches that are read, checked and stretched together."""
MAX_HANDLES: Final = 512
"""Files that one thread holds open at most; fewer where the process may not have as many."""
_REMEDY: Final = "Run `sarzarr verify --repair`."


@dataclass(frozen=True, eq=False, kw_only=True)
class Address:
    """Where the planes of a batch come from; a plane is one channel of one patch."""

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
    size: int
    """Rows and columns of a patch."""

    @cached_property
    def kinds(self) -> tuple[Array, tuple["Kind", ...]]:
        """Return (arrays,) the kind of each array, and the kinds."""
        found: dict[Kind, int] = {}
        numbers = [
            found.setdefault(Kind(layout.dtype, layout.chunk_pixels[1:], layout.codec, stretch), len(found))
            for layout, stretch in zip(self.table.layouts, self.stretches, strict=True)
        ]
        return np.array(numbers, np.int64), tuple(found)


@dataclass(frozen=True)
class Kind:
    """What must be equal for patches to be worked on together."""

    dtype: str
    """Stored dtype."""
    chunk: tuple[int, int]
    """Rows and columns of a chunk."""
    codec: str | None
    """How chunks are encoded; None where zarr-python reads them."""
    stretch: Stretch | None
    """What values become."""

    @property
    def nbytes(self) -> int:
        """Bytes of a decoded chunk."""
        return self.chunk[0] * self.chunk[1] * np.dtype(self.dtype).itemsize


@dataclass(eq=False)
class Filler:
    """One thread's handles and scratch memory. A context manager: handles are closed on the way out."""

    source: Source
    """What to read."""
    handles: int = MAX_HANDLES
    """Files held open at most."""
    _open: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    _arrays: dict[int, Any] = field(default_factory=dict, init=False, repr=False)
    _memory: dict[str, Array] = field(default_factory=dict, init=False, repr=False)
    _constants: dict[tuple[int, int], int] = field(default_factory=dict, init=False, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every handle."""
        while self._open:
            os.close(self._open.popitem()[1])
        self._arrays.clear()

    # -------------------------------------------------------------- a batch
    def fill(self, address: Address, out: Array, operations: Array | None = None) -> None:
        """Write each plane of ``address`` into ``out`` (planes, size, size), turned by ``operations`` (planes,).

        ``out`` is float32, or the stored dtype where nothing is stretched. Beyond an array's edge it is 0.

        Raises
        ------
        CorruptStoreError
            A chunk is absent, short or fails its checksum; says scene, array, row, col and file.
        """
        numbers, kinds = self.source.kinds
        kind_of = numbers[address.array]
        for number, kind in enumerate(kinds):
            slots = np.flatnonzero(kind_of == number) if len(kinds) > 1 else np.arange(len(kind_of))
            if slots.size:
                self._fill_kind(kind, address, slots, out, operations)

    def _fill_kind(
        self, kind: Kind, address: Address, slots: Array, out: Array, operations: Array | None
    ) -> None:
        if self._are_chunks(kind, address, slots):
            chunks = self._chunk_numbers(address, slots)
            for first in range(0, slots.size, GROUP):
                some = slots[first : first + GROUP]
                stored = self.load(kind, chunks[first : first + GROUP])
                self._deliver(kind, stored, some, out, operations)
        else:
            stored = self._windows(kind, address, slots)
            for first in range(0, slots.size, GROUP):
                self._deliver(
                    kind, stored[first : first + GROUP], slots[first : first + GROUP], out, operations
                )

    def _are_chunks(self, kind: Kind, address: Address, slots: Array) -> bool:
        """Return whether every patch is one whole chunk, inside its array."""
        size, table = self.source.size, self.source.table
        if kind.chunk != (size, size):
            return False
        row, col = address.row[slots], address.col[slots]
        shape = table.shape[address.array[slots]]
        is_inside = (row + size <= shape[:, 1]) & (col + size <= shape[:, 2])
        return bool((is_inside & (row % size == 0) & (col % size == 0)).all())

    def _chunk_numbers(self, address: Address, slots: Array) -> Array:
        table, array = self.source.table, address.array[slots]
        grid, chunk = table.grid[array], table.chunk[array]
        plane = 0 if address.plane is None else address.plane[slots] // chunk[:, 0]
        row, col = address.row[slots] // chunk[:, 1], address.col[slots] // chunk[:, 2]
        numbers: Array = table.first_chunk[array] + (plane * grid[:, 1] + row) * grid[:, 2] + col
        return numbers

    def _deliver(self, kind: Kind, stored: Array, slots: Array, out: Array, operations: Array | None) -> None:
        """Turn and stretch ``stored`` (k, size, size) into the slots of ``out``."""
        if operations is not None:
            stored = self._turned(kind, stored, operations[slots])
        if slots[-1] - slots[0] + 1 == slots.size:
            self._stretch(kind, stored, out[slots[0] : slots[-1] + 1])
            return
        for image, slot in zip(stored, slots.tolist(), strict=True):
            self._stretch(kind, image, out[slot])

    def _turned(self, kind: Kind, stored: Array, operations: Array) -> Array:
        turned = self._scratch("turned", stored.shape, kind.dtype)
        for image, place, operation in zip(stored, turned, operations.tolist(), strict=True):
            copy_turned(image, operation, place, self._scratch)
        return turned

    def _stretch(self, kind: Kind, stored: Array, out: Array) -> None:
        if kind.stretch is None:
            np.copyto(out, stored)
        else:
            kind.stretch(stored, out, self._scratch("stretch", (stored.size,), np.dtype(np.float32)))

    # -------------------------------------------------------------- windows over several chunks
    def _windows(self, kind: Kind, address: Address, slots: Array) -> Array:
        """Return (slots, size, size) stored values, each chunk decoded once; zeros beyond the array."""
        size = self.source.size
        out = self._scratch("windows", (slots.size, size, size), kind.dtype)
        out[:] = 0
        pieces = _pieces(self.source, address, slots, kind)
        chunks, starts = np.unique(pieces["chunk"], return_index=True)
        ends = np.append(starts[1:], len(pieces))
        rows, cols = kind.chunk
        for first in range(0, chunks.size, GROUP):
            group = slice(first, first + GROUP)
            stored = self.load(kind, chunks[group])
            for image, begin, end in zip(stored, starts[group].tolist(), ends[group].tolist(), strict=True):
                for _, slot, y, x, h, w in pieces[begin:end].tolist():
                    top, left = max(y, 0), max(x, 0)
                    bottom, right = min(y + rows, y + h, size), min(x + cols, x + w, size)
                    out[slot, top:bottom, left:right] = image[top - y : bottom - y, left - x : right - x]
        return out

    # -------------------------------------------------------------- chunks
    def load(self, kind: Kind, chunks: Array) -> Array:
        """Return (k, rows, cols) stored values of chunks of one kind; good until the next `load`."""
        if kind.codec is None:
            return self._load_elsewhere(kind, chunks)
        codec = get_codec(kind.codec)
        entries = self.source.table.entries[chunks]
        sizes = entries["size"].astype(np.int64)
        if codec.kind == "bytes":
            return self._load_plain(kind, chunks, entries, sizes)
        ends = np.cumsum(sizes)
        raw = self._scratch("raw", (int(ends[-1]),), "u1")
        begins = ends - sizes
        self._read(chunks, entries, begins, raw)
        out = self._scratch("decoded", (len(chunks), *kind.chunk), kind.dtype)
        for chunk, image, begin, end in zip(chunks, out, begins.tolist(), ends.tolist(), strict=True):
            if begin == end:
                image[:] = 0
            else:
                self._decode(codec, raw[begin:end], image, int(chunk))
        return out

    def _decode(self, codec: Codec, raw: Array, image: Array, chunk: int) -> None:
        try:
            codec.decode_into(raw, image)
        except (CorruptStoreError, RuntimeError, ValueError) as error:
            where = self.source.table.describe(chunk)
            raise CorruptStoreError(f"{str(error).rstrip('.')}: {where}. {_REMEDY}") from None

    def _load_plain(self, kind: Kind, chunks: Array, entries: Array, sizes: Array) -> Array:
        """Read chunks that are bytes and their checksum into cells; the values are a view of those."""
        cell = kind.nbytes + CRC_BYTES
        if ((sizes != cell) & (sizes != 0)).any():
            chunk = int(chunks[np.flatnonzero((sizes != cell) & (sizes != 0))[0]])
            where = self.source.table.describe(chunk)
            raise CorruptStoreError(
                f"a chunk of {cell} bytes was expected, got another size: {where}. {_REMEDY}"
            )
        raw = self._scratch("raw", (len(chunks), cell), "u1")
        self._read(chunks, entries, np.arange(len(chunks)) * cell, raw.reshape(-1))
        is_absent = sizes == 0
        if is_absent.any():
            raw[is_absent] = 0
        self._check(raw, chunks, is_absent)
        dtype = np.dtype(kind.dtype)
        strides = (cell, kind.chunk[1] * dtype.itemsize, dtype.itemsize)
        return np.ndarray((len(chunks), *kind.chunk), dtype, buffer=raw, strides=strides)

    def _check(self, raw: Array, chunks: Array, is_absent: Array) -> None:
        """Raise unless each cell's checksum holds: all in one call, which sees any one wrong.

        The CRC of bytes that are followed by their own CRC does not depend on them, so that of k intact
        cells is one constant; a wrong cell moves it (two wrong ones cancel once in 2**32).
        """
        count, cell = raw.shape
        if not is_absent.any() and crc32c(raw) == self._constant(cell, count):
            return
        for data, chunk, absent in zip(raw, chunks.tolist(), is_absent.tolist(), strict=True):
            if not absent and crc32c(data) != self._constant(cell, 1):
                where = self.source.table.describe(chunk)
                raise CorruptStoreError(
                    f"a chunk whose CRC-32C matches was expected, got flipped bytes: {where}. {_REMEDY}"
                )

    def _constant(self, cell: int, count: int) -> int:
        if (cell, count) not in self._constants:
            zeros = bytes(cell - CRC_BYTES)
            whole = (zeros + crc32c(zeros).to_bytes(CRC_BYTES, "little")) * count
            self._constants[cell, count] = int(crc32c(whole))
        return self._constants[cell, count]

    def _load_elsewhere(self, kind: Kind, chunks: Array) -> Array:
        """Read chunks through zarr-python, which knows every codec there is."""
        out = self._scratch("decoded", (len(chunks), *kind.chunk), kind.dtype)
        out[:] = 0
        for image, chunk in zip(out, chunks.tolist(), strict=True):
            layout, (plane, row, col) = self.source.table.locate(chunk)
            window = (slice(row, row + kind.chunk[0]), slice(col, col + kind.chunk[1]))
            at = window if len(layout.shape) == 2 else (plane, *window)
            got = self._zarr_array(layout.path)[at]
            image[: got.shape[0], : got.shape[1]] = got
        return out

    def _zarr_array(self, path: str) -> Any:
        import zarr

        key = hash(path)
        if key not in self._arrays:
            self._arrays[key] = zarr.open_array(f"{self.source.table.root}/{path}", mode="r")
        return self._arrays[key]

    # -------------------------------------------------------------- bytes
    def _read(self, chunks: Array, entries: Array, begins: Array, raw: Array) -> None:
        """Read each entry to its place in ``raw``, in the order of the files, neighbours in one call."""
        files, offsets = entries["file"].tolist(), entries["offset"].tolist()
        sizes, places = entries["size"].tolist(), begins.tolist()
        view = raw.data
        run: list[memoryview] = []
        file, at, upto, chunk = -1, 0, 0, -1
        for next_file, offset, i in sorted(zip(files, offsets, range(len(files)), strict=True)):
            if not sizes[i]:
                continue
            cell = view[places[i] : places[i] + sizes[i]]
            if next_file == file and offset == upto:
                run.append(cell)
            else:
                self._read_run(file, at, run, chunk)
                run, file, at, chunk = [cell], next_file, offset, int(chunks[i])
            upto = offset + sizes[i]
        self._read_run(file, at, run, chunk)

    def _read_run(self, file: int, offset: int, run: list[memoryview], chunk: int) -> None:
        """Read neighbouring chunks, the first of which is ``chunk``."""
        if not run:
            return
        try:
            want = sum(map(len, run))
            got = _read_at(self._handle(file), run, offset)
            while got < want:  # a short read is legal; one of nothing is the end of the file
                more = _read_at(self._handle(file), [_rest(run, got)], offset + got)
                if not more:
                    raise EOFError
                got += more
        except (OSError, EOFError) as error:
            why = "no such file" if isinstance(error, FileNotFoundError) else "the end of the file"
            why = str(error) if isinstance(error, OSError) and why != "no such file" else why
            where = self.source.table.describe(chunk)
            raise CorruptStoreError(
                f"{want} bytes at {offset} were expected, got {why}: {where}. {_REMEDY}"
            ) from None

    def _handle(self, file: int) -> int:
        handle = self._open.pop(file, None)
        if handle is None:
            if len(self._open) >= self.handles:
                os.close(self._open.pop(next(iter(self._open))))
            handle = os.open(self.source.table.path(file), os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._open[file] = handle  # last: the one used least recently is first
        return handle

    def _scratch(self, name: str, shape: Sequence[int], dtype: Any) -> Array:
        """Return memory of this thread, kept between calls under ``name``."""
        wanted = math.prod(shape) * np.dtype(dtype).itemsize
        kept = self._memory.get(name)
        if kept is None or kept.size < wanted:
            kept = self._memory[name] = np.empty(wanted, np.uint8)
        out: Array = kept[:wanted].view(dtype).reshape(shape)
        return out


def _read_at(handle: int, places: Sequence[memoryview], offset: int) -> int:
    """Fill ``places`` from ``offset`` on, and return how many bytes there were."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, places, offset)
    os.lseek(handle, offset, os.SEEK_SET)  # Windows: a handle belongs to one thread
    got = os.read(handle, len(places[0]))
    places[0][: len(got)] = got
    return len(got)


def _rest(run: Sequence[memoryview], done: int) -> memoryview:
    """Return what is left of the first part of ``run`` that ``done`` bytes did not fill."""
    for part in run:
        if done < len(part):
            return part[done:]
        done -= len(part)
    raise EOFError


PIECE: Final = np.dtype(
    [("chunk", "<i8"), ("slot", "<i4"), ("y", "<i4"), ("x", "<i4"), ("h", "<i4"), ("w", "<i4")]
)
"""What one chunk gives one patch: (y, x) is where the chunk's first pixel falls in the patch (negative to the
upper left of it), (h, w) how much of the chunk lies within the array."""


def _pieces(source: Source, address: Address, slots: Array, kind: Kind) -> Array:
    """Return the pieces that the patches of ``slots`` are made of, by chunk."""
    table, array = source.table, address.array[slots]
    shape, grid = table.shape[array], table.grid[array]
    row, col = address.row[slots], address.col[slots]
    plane = np.zeros_like(row) if address.plane is None else address.plane[slots]
    rows, cols = kind.chunk
    found = []
    for down in range(-(-(source.size - 1) // rows) + 1):
        for right in range(-(-(source.size - 1) // cols) + 1):
            i, j = row // rows + down, col // cols + right
            y, x = i * rows - row, j * cols - col
            hit = np.flatnonzero((y < source.size) & (x < source.size) & (i < grid[:, 1]) & (j < grid[:, 2]))
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
