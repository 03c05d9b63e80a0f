"""The direct read engine: from chunk addresses to delivered pixels, a group of patches at a time.

What decides is how often threads hand each other the GIL, so reads, checks and passes each take a group
of patches that still fits a core's cache. A `Filler` belongs to one thread; what it was made from,
a `sarzarr.reader.places.Source`, holds nothing open, pickles, and may be used by any number of them.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final, Self

import numpy as np
from crc32c import crc32c

from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError
from sarzarr.pixels.compiled.when import loops_for
from sarzarr.pixels.turns import Turner
from sarzarr.reader.places import PAGE, Address, Kind, Places, Source, pieces_of
from sarzarr.store.chunks import OPEN_FLAGS, REMEDY, read_at
from sarzarr.store.codecs import CRC_BYTES, Codec, get_codec

GROUP: Final = 8
"""Patches that are read, checked and stretched together."""
MAX_HANDLES: Final = 512
"""Files that one thread holds open at most; fewer where the process may not have as many."""
_FILE_SHIFT: Final = np.uint64(40)  # no shard is as long as a terabyte
_READ_TO: Final = PAGE // 2
"""Where in a page bytes from a file are put. Some processors copy five times slower to a place that is up to
31 bytes further within its page than where they come from (``rep movsb``, on AMD Zen 3 and 4). The chunks of a
shard without a codec begin 0, 4, ... 252 bytes into a page, and their places 0, 4, ... 28 bytes after this."""


@dataclass(eq=False)
class Work:
    """How much was delivered, roughly: threads may forget a group of each other's."""

    pixels: int = 0
    """Pixels."""


@dataclass(eq=False)
class Filler:
    """One thread's handles and scratch memory. A context manager: handles are closed on the way out."""

    source: Source
    """What to read."""
    handles: int = MAX_HANDLES
    """Files held open at most."""
    work: Work = field(default_factory=Work)
    """What this process has delivered, by all its fillers of one reader."""
    _open: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    _arrays: dict[int, Any] = field(default_factory=dict, init=False, repr=False)
    _turners: dict[str, Turner] = field(default_factory=dict, init=False, repr=False)
    _memory: dict[str, Array] = field(default_factory=dict, init=False, repr=False)
    _views: dict[tuple[str, tuple[int, ...], str], Array] = field(
        default_factory=dict, init=False, repr=False
    )
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
    def fill(
        self,
        address: Address | Callable[[], Address],
        out: Array,
        operations: Array | None = None,
        chunks: Array | None = None,
    ) -> None:
        """Write each plane of ``address`` into ``out`` (planes, size, size), turned by ``operations`` (planes,).

        ``out`` is float32, or the stored dtype where nothing is stretched. Beyond an array's edge it is 0.
        ``chunks`` is `Source.chunks` of the address, where that is known: the address is then asked for where
        arrays differ or planes are no whole chunks.

        Raises
        ------
        CorruptStoreError
            A chunk is absent, short or fails its checksum; says scene, array, row, col and file.
        """
        numbers, kinds = self.source.kinds
        chunks = self.source.chunks(_known(address)) if chunks is None else chunks
        slots = np.arange(len(chunks))
        if len(kinds) == 1:
            self._fill_kind(kinds[0], address, slots, chunks, out, operations)
            return
        address = _known(address)
        kind_of = numbers[address.array]
        for number, kind in enumerate(kinds):
            some = slots[kind_of == number]
            if some.size:
                self._fill_kind(kind, address, some, chunks[some], out, operations)

    def _fill_kind(
        self,
        kind: Kind,
        address: Address | Callable[[], Address],
        slots: Array,
        chunks: Array,
        out: Array,
        operations: Array | None,
    ) -> None:
        first, flat = 0, out.reshape(len(out), -1)
        if chunks.min(initial=0) >= 0:
            is_absent = self.source.table.entries["size"][chunks] == 0
            if is_absent.any():
                flat[slots[is_absent]] = self._dark(kind)
                slots, chunks = slots[~is_absent], chunks[~is_absent]
            if self._deliver_at_once(kind, chunks, slots, flat, operations):
                return
            order = self._reading_order(chunks)
            slots, groups = slots[order], self.groups(kind, chunks[order])
        else:
            windows = self._windows(kind, _known(address), slots)
            groups = in_groups(windows.reshape(len(windows), -1))
        for cells in groups:
            self._deliver(kind, cells, slots[first : first + len(cells)], flat, operations)
            first += len(cells)

    def _deliver_at_once(
        self, kind: Kind, chunks: Array, slots: Array, out: Array, operations: Array | None
    ) -> bool:
        """Deliver chunks of codes by one compiled loop, without Python's lock; return whether that was done.

        Where it is not, or not to the end, the other way is gone: that knows every case, and what to say of damage.
        """
        fast, size = self._loops_of_codes(kind), self.source.size
        cell, entries = kind.nbytes + CRC_BYTES, self.source.table.entries[chunks]
        if fast is None or fast.C is None or kind.codec != "none":
            return False
        handles = self._handles(entries["file"].tolist(), chunks.tolist())
        if handles is None or (entries["size"] != cell).any():
            return False
        places = handles, entries["offset"].astype(np.int64), slots, _some(operations, slots)
        memory = self._scratch("raw", (cell,), "u1"), self._strip(fast)
        done = fast.deliver(places, *memory, out.reshape(-1, size, size), _law(kind))
        self.work.pixels += len(chunks) * size**2
        return bool(done == len(chunks))

    def _loops_of_codes(self, kind: Kind) -> ModuleType | None:
        """Return compiled loops where they deliver this kind."""
        is_plain = kind.stretch is None or not kind.stretch.is_identity
        return loops_for(self.work.pixels) if is_plain and kind.dtype == "uint16" else None

    def _strip(self, fast: ModuleType) -> Array:
        return self._scratch("strip", (fast.STRIP, self.source.size), "uint16")

    def _handles(self, files: Sequence[int], chunks: Sequence[int]) -> Array | None:
        """Return (files,) int32: their handles, all of them open; None where those are too many."""
        if len(set(files)) > self.handles:
            return None
        return np.array(
            [self._handle(file, chunk) for file, chunk in zip(files, chunks, strict=True)], np.int32
        )

    def _reading_order(self, chunks: Array) -> Array | slice:
        """Return the order of the files where it makes neighbours of a quarter of the chunks, else as they are.

        Slots that follow one another are stretched together, which is worth more than a few calls saved.
        """
        numbers = np.sort(chunks)
        if 4 * np.count_nonzero(numbers[1:] - numbers[:-1] == 1) < len(chunks):
            return slice(None)  # chunks that are not neighbours in their array are not in a file
        entries = self.source.table.entries[chunks]
        place = (entries["file"].astype(np.uint64) << _FILE_SHIFT) | entries["offset"]
        return np.argsort(place, kind="stable")

    def _deliver(self, kind: Kind, cells: Array, slots: Array, out: Array, operations: Array | None) -> None:
        """Turn and stretch what ``cells`` (k, size * size or more) begin with into the slots of ``out``."""
        if (fast := self._loops_of_codes(kind)) is not None:
            size, places = self.source.size, (slots, _some(operations, slots))
            fast.place_codes(cells, places, self._strip(fast), out.reshape(-1, size, size), _law(kind))
            self.work.pixels += len(slots) * size**2
            return
        places = slots.tolist()
        if places == list(range(places[0], places[0] + len(places))):
            self._place(kind, cells, out[places[0] : places[-1] + 1], operations, slots)
            return
        for i, place in enumerate(places):
            self._place(kind, cells[i : i + 1], out[place : place + 1], operations, slots[i : i + 1])

    def _place(self, kind: Kind, cells: Array, out: Array, operations: Array | None, slots: Array) -> None:
        if operations is None:
            self._stretch(kind, cells, out)
            return
        self._stretch(kind, self._turned(kind, cells, operations[slots]), out)

    def _dark(self, kind: Kind) -> Any:
        """Return what a stored 0 is delivered as: an absent chunk is nothing else."""
        out = np.zeros((1, 1), kind.dtype if kind.stretch is None else np.float32)
        self._stretch(kind, np.zeros((1, 1), kind.dtype), out)
        return out[0, 0]

    def _turned(self, kind: Kind, cells: Array, operations: Array) -> Array:
        size = self.source.size
        turned = self._scratch("turned", (len(cells), size, size), kind.dtype)
        turner = self._turners.get(kind.dtype)
        if turner is None:
            turner = self._turners[kind.dtype] = Turner(size, kind.dtype)
        for image, place, operation in zip(
            images_of(cells, (size, size)), turned, operations.tolist(), strict=True
        ):
            turner.copy(image, operation, place)
        return turned.reshape(len(turned), -1)

    def _stretch(self, kind: Kind, cells: Array, out: Array) -> None:
        if kind.stretch is None:
            np.copyto(out, cells[:, : out.shape[1]])
        else:
            kind.stretch(
                cells, out, self._scratch("stretch", (out.size,), "float32"), loops_for(self.work.pixels)
            )
            self.work.pixels += out.size

    # -------------------------------------------------------------- windows over several chunks
    def _windows(self, kind: Kind, address: Address, slots: Array) -> Array:
        """Return (slots, size, size) stored values, each chunk decoded once; zeros beyond the array."""
        size = self.source.size
        out = self._scratch("windows", (slots.size, size, size), kind.dtype)
        out[:] = 0
        pieces = pieces_of(self.source, address, slots, kind)
        chunks, starts = np.unique(pieces["chunk"], return_index=True)
        ends = np.append(starts[1:], len(pieces))
        rows, cols = kind.chunk
        each = iter(zip(starts.tolist(), ends.tolist(), strict=True))
        for cells in self.groups(kind, chunks):
            for image, (begin, end) in zip(images_of(cells, kind.chunk), each, strict=False):
                for _, slot, y, x, h, w in pieces[begin:end].tolist():
                    top, left = max(y, 0), max(x, 0)
                    bottom, right = min(y + rows, y + h, size), min(x + cols, x + w, size)
                    out[slot, top:bottom, left:right] = image[top - y : bottom - y, left - x : right - x]
        return out

    # -------------------------------------------------------------- chunks
    def groups(self, kind: Kind, chunks: Array) -> Iterator[Array]:
        """Yield cells of chunks of one kind, a group at a time: (k, pixels or more) of the stored dtype.

        Each begins with its chunk's pixels, and is good until the next group.
        """
        if kind.codec is None or not chunks.size:
            for some in in_groups(chunks):
                yield self._load_elsewhere(kind, some).reshape(len(some), -1)
            return
        codec, places = get_codec(kind.codec), Places.of(self.source.table, chunks)
        yield from self._plain(kind, places) if codec.kind == "bytes" else self._decoded(kind, codec, places)

    def _plain(self, kind: Kind, places: Places) -> Iterator[Array]:
        """Read chunks that are bytes and their checksum."""
        cell, dtype = kind.nbytes + CRC_BYTES, np.dtype(kind.dtype)
        if (wrong := places.first_of_another_size(cell)) is not None:
            where = self.source.table.describe(wrong)
            raise CorruptStoreError(
                f"a chunk of {cell} bytes was expected, got another size: {where}. {REMEDY}"
            )
        raw = self._scratch("raw", (GROUP, cell), "u1")
        view, begins = raw.reshape(-1).data, [i * cell for i in range(GROUP)]
        # Where a checksum is half a pixel, pixels do not lie one behind the other.
        cells = raw.view(dtype) if cell % dtype.itemsize == 0 else None
        for first in range(0, len(places), GROUP):
            count = min(GROUP, len(places) - first)
            self._read(places, first, count, view, begins)
            if places.has_absent or crc32c(view[: count * cell]) != self._constant(cell, count):
                self._check_each(raw, places, first, count)
            yield raw[:count, :-CRC_BYTES].copy().view(dtype) if cells is None else cells[:count]

    def _decoded(self, kind: Kind, codec: Codec, places: Places) -> Iterator[Array]:
        """Read chunks and decode them. Each is put where in a page it is in its file, but for `_READ_TO`."""
        span = places.pages * PAGE
        view = self._scratch("raw", (GROUP * span,), "u1").data
        out = self._scratch("decoded", (GROUP, *kind.chunk), kind.dtype)
        for first in range(0, len(places), GROUP):
            count = min(GROUP, len(places) - first)
            within = places.offsets[first : first + count]
            begins = [i * span + offset % PAGE for i, offset in enumerate(within)]
            self._read(places, first, count, view, begins)
            for i, begin in enumerate(begins):
                if size := places.sizes[first + i]:
                    self._decode(codec, view[begin : begin + size], out[i], places.chunks[first + i])
                else:
                    out[i] = 0
            yield out[:count].reshape(count, -1)

    def _decode(self, codec: Codec, raw: memoryview, image: Array, chunk: int) -> None:
        try:
            codec.decode_into(raw, image)
        except (CorruptStoreError, RuntimeError, ValueError) as error:
            where = self.source.table.describe(chunk)
            raise CorruptStoreError(f"{str(error).rstrip('.')}: {where}. {REMEDY}") from None

    def _constant(self, cell: int, count: int) -> int:
        """Return the CRC of ``count`` intact cells, each of which ends in its own CRC.

        The CRC of bytes that are followed by their CRC does not depend on the bytes, so that of several such
        cells is one constant. One wrong cell always moves it; two wrong ones cancel once in 2**32.
        """
        if (cell, count) not in self._constants:
            zeros = bytes(cell - CRC_BYTES)
            whole = (zeros + crc32c(zeros).to_bytes(CRC_BYTES, "little")) * count
            self._constants[cell, count] = int(crc32c(whole))
        return self._constants[cell, count]

    def _check_each(self, raw: Array, places: Places, first: int, count: int) -> None:
        """Clear the cells that are absent on purpose, and raise for the first whose checksum fails."""
        for i, data in enumerate(raw[:count], first):
            if not places.sizes[i]:
                data[:] = 0
            elif crc32c(data) != self._constant(len(data), 1):
                where = self.source.table.describe(places.chunks[i])
                raise CorruptStoreError(
                    f"a chunk whose CRC-32C matches was expected, got flipped bytes: {where}. {REMEDY}"
                )

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
    def _read(self, places: Places, first: int, count: int, raw: memoryview, begins: Sequence[int]) -> None:
        """Read some places to ``begins`` in ``raw``; neighbours that follow one another in one call."""
        files, offsets, sizes = places.files, places.offsets, places.sizes
        i, end = first, first + count
        while i < end:
            begin, want, upto = begins[i - first], sizes[i], i + 1
            run = [raw[begin : begin + want]]
            while upto < end and files[upto] == files[i] and 0 < want == offsets[upto] - offsets[i]:
                begin, size = begins[upto - first], sizes[upto]
                run.append(raw[begin : begin + size])
                want += size
                upto += 1
            if want and read_at(self._handle(files[i], places.chunks[i]), run, offsets[i]) != want:
                self._read_rest(files[i], run, offsets[i], places.chunks[i])
            i = upto

    def _read_rest(self, file: int, run: list[memoryview], offset: int, chunk: int) -> None:
        """Read again, part by part, what came short: that is legal, and the end of the file is not."""
        for part in run:
            done = 0
            while done < len(part):
                got = read_at(self._handle(file, chunk), [part[done:]], offset + done)
                if not got:
                    where = self.source.table.describe(chunk)
                    raise CorruptStoreError(
                        f"{len(part)} bytes at {offset} were expected, got the end of the file: {where}. {REMEDY}"
                    )
                done += got
            offset += done

    def _handle(self, file: int, chunk: int) -> int:
        """Return the handle of a file, that of ``chunk``."""
        handle = self._open.pop(file, None)
        if handle is None:
            if len(self._open) >= self.handles:
                os.close(self._open.pop(next(iter(self._open))))
            try:
                handle = os.open(self.source.table.path(file), OPEN_FLAGS)
            except FileNotFoundError:
                where = self.source.table.describe(chunk)
                raise CorruptStoreError(f"a file was expected, got no such file: {where}. {REMEDY}") from None
        self._open[file] = handle  # last: the one used least recently is first
        return handle

    def _scratch(self, name: str, shape: tuple[int, ...], dtype: str) -> Array:
        """Return memory of this thread, kept between calls under ``name``."""
        key = name, shape, dtype
        if (view := self._views.get(key)) is not None:
            return view
        wanted = math.prod(shape) * np.dtype(dtype).itemsize
        kept = self._memory.get(name)
        if kept is None or kept.size < wanted:
            kept = self._memory[name] = aligned_memory(wanted, within_page=_READ_TO if name == "raw" else 0)
            self._views = {k: v for k, v in self._views.items() if k[0] != name}
        view = self._views[key] = kept[:wanted].view(dtype).reshape(shape)
        return view


def _some(operations: Array | None, slots: Array) -> Array:
    """Return the operations (k,) of some slots; 0, which does nothing, where there are none."""
    return np.zeros(len(slots), np.uint8) if operations is None else operations[slots]


def _law(kind: Kind) -> Any:
    return None if kind.stretch is None else kind.stretch.law_of_codes


def _known(address: Address | Callable[[], Address]) -> Address:
    return address() if callable(address) else address


def images_of(cells: Array, shape: tuple[int, int]) -> Array:
    """Return (k, rows, columns) of what each of some cells (k, rows * columns or more) begins with: a view."""
    return cells[:, : math.prod(shape)].reshape(len(cells), *shape)


def in_groups(values: Array) -> Iterator[Array]:
    """Yield ``values`` in groups."""
    return (values[first : first + GROUP] for first in range(0, len(values), GROUP))


def aligned_memory(nbytes: int, *, within_page: int = 0) -> Array:
    """Return bytes that begin so far into a page. Rows that straddle cache lines cost a third more a pass."""
    memory = np.empty(nbytes + PAGE, np.uint8)
    begin = (within_page - memory.ctypes.data) % PAGE
    return memory[begin : begin + nbytes]
