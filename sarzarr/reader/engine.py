"""The engine: planes of a batch filled from chunks, turned and stretched on the way, a group at a time.

A `BatchFiller` belongs to one thread.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.pixels.compiled.when import loops_for
from sarzarr.pixels.turns import Turner
from sarzarr.reader.fetch import READ_TO, ChunkFetcher, in_groups
from sarzarr.reader.sources import Address, Kind, Source, pieces_of
from sarzarr.store.codecs import CRC_BYTES

_FILE_SHIFT: Final = np.uint64(40)  # no shard is as long as a terabyte


@dataclass(eq=False)
class BatchFiller:
    """One thread's way from chunks to the planes (rows, columns) of a batch."""

    fetcher: ChunkFetcher
    """The chunks."""
    _turners: dict[str, Turner] = field(default_factory=dict, init=False, repr=False)

    @property
    def source(self) -> Source:
        """The arrays that planes are filled from."""
        return self.fetcher.source

    def fill(
        self,
        address: Callable[[], Address],
        out: Array,
        operations: Array | None = None,
        chunks: Array | None = None,
    ) -> None:
        """Write each plane of ``address`` into ``out`` (planes, rows, columns), turned by ``operations`` (planes,).

        ``out`` is float32, float16, the bits (uint16) of bfloat16, or the stored dtype where nothing is stretched.
        Beyond an array's edge is its fill value.
        ``chunks`` is `Source.chunks` of the address, where that is known: the address is then asked for where
        arrays differ or planes are no whole chunks.

        Raises `CorruptStoreError` as `ChunkFetcher.groups`.
        """
        numbers, kinds = self.source.kinds
        chunks = self.source.chunks(address()) if chunks is None else chunks
        slots = np.arange(len(chunks))
        if len(kinds) == 1:
            self._fill_kind(kinds[0], address, slots, chunks, out, operations)
            return
        kind_of = numbers[address().array]
        for number, kind in enumerate(kinds):
            some = slots[kind_of == number]
            if some.size:
                self._fill_kind(kind, address, some, chunks[some], out, operations)

    def _fill_kind(
        self,
        kind: Kind,
        address: Callable[[], Address],
        slots: Array,
        chunks: Array,
        out: Array,
        operations: Array | None,
    ) -> None:
        if kind.stretch is not None and out.dtype == np.float16:
            out = out.view(np.uint16)  # loops write bits
        first, flat = 0, out.reshape(len(out), -1)
        if chunks.min(initial=0) >= 0:
            is_absent = self.source.table.of(chunks)["size"] == 0
            if is_absent.any():
                flat[slots[is_absent]] = self._filled(kind)
                slots, chunks = slots[~is_absent], chunks[~is_absent]
            if self._deliver_at_once(kind, chunks, slots, flat, operations):
                return
            order = self._reading_order(chunks)
            slots, groups = slots[order], self.fetcher.groups(kind, chunks[order])
        else:
            if self._deliver_windows(kind, address(), slots, flat, operations):
                return
            windows = self._windows(kind, address(), slots)
            groups = in_groups(windows.reshape(len(windows), -1))
        for pixels in groups:
            self._deliver(kind, pixels, slots[first : first + len(pixels)], flat, operations)
            first += len(pixels)

    def _deliver_at_once(
        self, kind: Kind, chunks: Array, slots: Array, out: Array, operations: Array | None
    ) -> bool:
        """Deliver chunks of codes by one compiled loop, without Python's lock; return whether that was done.

        Where it is not, or not to the end, all of them are delivered group by group: that knows every case, and
        what to say of damage.
        """
        fast, fetcher, shape = self._loops_of_codes(kind, out), self.fetcher, self.source.shape
        stored, entries = kind.nbytes + CRC_BYTES, self.source.table.of(chunks)
        if fast is None or fast.C is None or kind.codec != "none":
            return False
        handles = fetcher.handles_of(entries["file"].tolist(), chunks.tolist())
        if handles is None or (entries["size"] != stored).any():
            return False
        crcs = np.ascontiguousarray(entries["crc"])
        ranges = handles, entries["offset"].astype(np.int64), crcs, chunks
        places = slots, _of_slots(operations, slots)
        raw = fetcher.scratch.take("raw", (stored,), "u1", within_page=READ_TO)
        scratch = raw, self._strip(fast)
        done = fast.deliver(
            ranges, fetcher.trust.of_loops, places, scratch, out.reshape(-1, *shape), _law(kind)
        )
        fetcher.work.pixels += len(chunks) * math.prod(shape)
        return bool(done == len(chunks))

    def _deliver_windows(
        self, kind: Kind, address: Address, slots: Array, out: Array, operations: Array | None
    ) -> bool:
        """Deliver windows of codes by one compiled loop, as `_deliver_at_once`; it reads the rows that they need."""
        fast, fetcher, shape = self._loops_of_codes(kind, out), self.fetcher, self.source.shape
        if fast is None or fast.C is None or kind.codec != "none":
            return False
        pieces = pieces_of(self.source, address, slots, kind)
        pieces = pieces[self.source.table.of(pieces["chunk"])["size"] > 0]  # the others are fill value
        pieces = pieces[np.argsort(pieces["slot"], kind="stable")]
        chunks, entries = pieces["chunk"], self.source.table.of(pieces["chunk"])
        stored = kind.nbytes + CRC_BYTES
        handles = fetcher.handles_of(entries["file"].tolist(), chunks.tolist())
        if handles is None or (entries["size"] != stored).any():
            return False
        ranges = tuple(
            np.ascontiguousarray(column)
            for column in (handles, entries["offset"].astype(np.int64), entries["crc"], chunks)
        )
        parts = np.stack([pieces[name] for name in ("y", "x", "h", "w")], axis=1)
        parts[:, 2:] = np.minimum(parts[:, 2:], kind.chunk)
        ends = np.searchsorted(pieces["slot"], np.arange(len(slots)), "right")
        raw = fetcher.scratch.take("raw", (stored,), "u1", within_page=READ_TO)
        window = fetcher.scratch.take("windows", shape, kind.dtype)
        scratch = raw, self._strip(fast), kind.chunk, window
        places = slots, _of_slots(operations, slots)
        done = fast.deliver_windows(
            ranges,
            fetcher.trust.of_loops,
            (parts, ends, kind.fill),
            places,
            scratch,
            out.reshape(-1, *shape),
            _law(kind),
        )
        fetcher.work.pixels += len(slots) * math.prod(shape)
        return bool(done == len(slots))

    def _loops_of_codes(self, kind: Kind, out: Array) -> ModuleType | None:
        """Return compiled loops that deliver this kind into ``out``: square codes, as float32 or as they are."""
        law, (rows, cols) = kind.stretch, self.source.shape
        is_plain = out.dtype == kind.dtype if law is None else not (law.is_identity or law.lights_fill)
        return (
            loops_for(self.fetcher.work.pixels)
            if is_plain and rows == cols and kind.dtype == "uint16"
            else None
        )

    def _strip(self, fast: ModuleType) -> Array:
        return self.fetcher.scratch.take("strip", (fast.STRIP, self.source.shape[1]), "uint16")

    def _reading_order(self, chunks: Array) -> Array | slice:
        """Return the order of the files where it makes neighbours of a quarter of the chunks, else as they are.

        Slots that follow one another are stretched together, which is worth more than a few calls saved.
        """
        numbers = np.sort(chunks)
        if 4 * np.count_nonzero(numbers[1:] - numbers[:-1] == 1) < len(chunks):
            return slice(None)  # chunks that are not neighbours in their array are not in a file
        entries = self.source.table.of(chunks)
        place = (entries["file"].astype(np.uint64) << _FILE_SHIFT) | entries["offset"]
        return np.argsort(place, kind="stable")

    def _deliver(self, kind: Kind, pixels: Array, slots: Array, out: Array, operations: Array | None) -> None:
        """Turn and stretch what ``pixels`` (k, rows * columns or more) begin with into the slots of ``out``."""
        if (fast := self._loops_of_codes(kind, out)) is not None:
            shape, places = self.source.shape, (slots, _of_slots(operations, slots))
            fast.place_codes(pixels, places, self._strip(fast), out.reshape(-1, *shape), _law(kind))
            self.fetcher.work.pixels += len(slots) * math.prod(shape)
            return
        begins = slots.tolist()
        follow = begins == list(range(begins[0], begins[0] + len(begins)))
        step = len(begins) if follow else 1
        for i in range(0, len(begins), step):
            some = pixels[i : i + step]
            if operations is not None:
                some = self._turned(kind, some, operations[slots[i : i + step]])
            self._stretch(kind, some, out[begins[i] : begins[i] + step])

    def _filled(self, kind: Kind) -> Any:
        """Return what the fill value is delivered as: an absent chunk is nothing else."""
        is_half = kind.stretch is not None and kind.stretch.half is not None
        out = np.zeros((1, 1), kind.dtype if kind.stretch is None else "uint16" if is_half else np.float32)
        self._stretch(kind, np.full((1, 1), kind.fill, kind.dtype), out)
        return out[0, 0]

    def _turned(self, kind: Kind, pixels: Array, operations: Array) -> Array:
        shape = self.source.shape
        turned = self.fetcher.scratch.take("turned", (len(pixels), *shape), kind.dtype)
        if kind.dtype not in self._turners:
            self._turners[kind.dtype] = Turner(shape, kind.dtype)
        turner = self._turners[kind.dtype]
        for image, out, operation in zip(images_of(pixels, shape), turned, operations.tolist(), strict=True):
            turner.copy(image, operation, out)
        return turned.reshape(len(turned), -1)

    def _stretch(self, kind: Kind, pixels: Array, out: Array) -> None:
        if kind.stretch is None:
            np.copyto(out, pixels[:, : out.shape[1]])
            return
        scratch = self.fetcher.scratch.take("stretch", (2 * out.size,), "float32")
        kind.stretch(pixels, out, scratch, loops_for(self.fetcher.work.pixels))
        self.fetcher.work.pixels += out.size

    def _windows(self, kind: Kind, address: Address, slots: Array) -> Array:
        """Return (slots, rows, columns) stored values, each chunk decoded once; fill beyond the array."""
        height, width = self.source.shape
        out = self.fetcher.scratch.take("windows", (slots.size, height, width), kind.dtype)
        out[:] = kind.fill
        pieces = pieces_of(self.source, address, slots, kind)
        chunks, starts = np.unique(pieces["chunk"], return_index=True)
        ends = np.append(starts[1:], len(pieces))
        rows, cols = kind.chunk
        each = iter(zip(starts.tolist(), ends.tolist(), strict=True))
        for pixels in self.fetcher.groups(kind, chunks):
            for image, (begin, end) in zip(images_of(pixels, kind.chunk), each, strict=False):
                for _, slot, y, x, h, w in pieces[begin:end].tolist():
                    top, left = max(y, 0), max(x, 0)
                    bottom, right = min(y + rows, y + h, height), min(x + cols, x + w, width)
                    out[slot, top:bottom, left:right] = image[top - y : bottom - y, left - x : right - x]
        return out


def _of_slots(operations: Array | None, slots: Array) -> Array:
    """Return the operations (k,) of some slots; 0, which does nothing, where there are none."""
    return np.zeros(len(slots), np.uint8) if operations is None else operations[slots]


def _law(kind: Kind) -> Any:
    return None if kind.stretch is None else kind.stretch.law_of_codes


def images_of(pixels: Array, shape: tuple[int, int]) -> Array:
    """Return (k, rows, columns) of what each of some rows (k, rows * columns or more) begins with: a view."""
    return pixels[:, : math.prod(shape)].reshape(len(pixels), *shape)
