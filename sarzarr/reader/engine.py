"""The engine: planes of a batch filled from chunks, turned and stretched on the way, a group at a time.

A `BatchFiller` belongs to one thread.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.pixels.compiled.when import loops_for
from sarzarr.pixels.turns import Turner
from sarzarr.reader.fetch import READ_TO, ChunkFetcher, in_groups
from sarzarr.reader.sources import PIECE, Address, Kind, Source, pieces_of
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
        slots, flat = np.arange(len(chunks)), out.reshape(len(out), -1)
        kind_of = np.zeros(1, np.int64) if len(kinds) == 1 else numbers[address().array]
        for number, kind in enumerate(kinds):
            some = slots if len(kinds) == 1 else slots[kind_of == number]
            is_bits = kind.stretch is not None and out.dtype == np.float16  # loops write bits
            place = flat.view(np.uint16) if is_bits else flat
            if some.size:
                images = _Images(kind=kind, slots=some, out=place, operations=operations)
                self._fill_kind(images, address, chunks[some])

    def _fill_kind(self, images: "_Images", address: Callable[[], Address], chunks: Array) -> None:
        kind, slots = images.kind, images.slots
        is_whole = chunks.min(initial=0) >= 0
        pieces = _whole(chunks, kind.chunk) if is_whole else pieces_of(self.source, address(), slots, kind)
        if self._deliver_at_once(images, pieces):
            return
        if is_whole:
            is_absent = self.source.table.of(chunks)["size"] == 0
            if is_absent.any():
                images.out[slots[is_absent]] = self._filled(kind)
                slots, chunks = slots[~is_absent], chunks[~is_absent]
            order = self._reading_order(chunks)
            slots, groups = slots[order], self.fetcher.groups(kind, chunks[order])
        else:
            windows = self._windows(kind, pieces, len(slots))
            groups = in_groups(windows.reshape(len(windows), -1))
        first = 0
        for pixels in groups:
            self._deliver(images.at(slots[first : first + len(pixels)]), pixels)
            first += len(pixels)

    def _deliver_at_once(self, images: "_Images", pieces: Array) -> bool:
        """Deliver images, put together from pieces, by one compiled loop, without Python's lock; say if it was done.

        Chunks without a codec are read on the way, by the rows that are needed; others are where they are kept. Where
        it is not done, or not to the end, all is delivered group by group: that knows every case, and what to say of
        damage.
        """
        kind, fetcher = images.kind, self.fetcher
        fast, is_plain = self._loops(images), kind.codec == "none"
        if fast is None or (is_plain and not (fast.READS and kind.nbytes % CRC_BYTES == 0)):
            return False
        pieces = pieces[self.source.table.of(pieces["chunk"])["size"] > 0]  # the others are fill value
        if (np.diff(pieces["slot"]) < 0).any():
            pieces = pieces[np.argsort(pieces["slot"], kind="stable")]
        if not is_plain:
            with fetcher.held(kind, pieces["chunk"]) as held:
                return held is not None and self._by_loop(fast, images, pieces, held)
        if (reads := self._reads(kind, pieces["chunk"])) is None:
            return False
        raw = fetcher.scratch.take("raw", (1, kind.nbytes + CRC_BYTES), "u1", within_page=READ_TO)
        row = raw.view(kind.dtype), np.zeros(len(pieces), np.int64)
        return self._by_loop(fast, images, pieces, row, reads)

    def _reads(self, kind: Kind, chunks: Array) -> tuple[Any, ...] | None:
        """Return what a loop reads chunks by; None where one has another length, or not all files can be open."""
        entries = self.source.table.of(chunks)
        handles = self.fetcher.handles_of(entries["file"].tolist(), chunks.tolist())
        if handles is None or (entries["size"] != kind.nbytes + CRC_BYTES).any():
            return None
        crcs, numbers = np.ascontiguousarray(entries["crc"]), np.ascontiguousarray(chunks)
        return handles, entries["offset"].astype(np.int64), crcs, numbers, *self.fetcher.trust.of_loops

    def _by_loop(
        self,
        fast: ModuleType,
        images: "_Images",
        pieces: Array,
        held: tuple[Array, Array],
        reads: tuple[Any, ...] | None = None,
    ) -> bool:
        """Deliver images from chunks in memory, ``held`` (rows, which row each piece is of), or read there first."""
        kind, shape, take = images.kind, self.source.shape, self.fetcher.scratch.take
        parts = np.stack([pieces[name] for name in ("y", "x", "h", "w")], axis=1)
        parts[:, 2:] = np.minimum(parts[:, 2:], kind.chunk)
        ends = np.searchsorted(pieces["slot"], np.arange(len(images.slots)), "right")
        done = fast.deliver(
            held[0],
            reads,
            (held[1], parts, ends, kind.chunk, kind.fill),
            (images.slots, images.turns),
            (take("strip", (fast.STRIP, shape[1]), kind.dtype), take("window", shape, kind.dtype)),
            images.out.reshape(-1, *shape),
            images.law,
        )
        self.fetcher.work.pixels += len(images.slots) * math.prod(shape)
        return bool(done == len(images.slots))

    def _loops(self, images: "_Images") -> ModuleType | None:
        """Return compiled loops that deliver these images: squares, of a dtype and by a law that they know."""
        kind, law, (rows, cols) = images.kind, images.kind.stretch, self.source.shape
        if law is None:
            is_known = images.out.dtype == kind.dtype and kind.dtype in ("uint16", "float32", "uint8")
        elif kind.dtype == "uint16":
            is_known = law.white is None and (law.half is not None or not law.lights_fill)
        else:
            is_known = kind.dtype == "float32" and law.is_line
        return loops_for(self.fetcher.work.pixels) if is_known and rows == cols else None

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

    def _deliver(self, images: "_Images", pixels: Array) -> None:
        """Turn and stretch what ``pixels`` (k, rows * columns or more) begin with into the places of images."""
        kind, out, slots = images.kind, images.out, images.slots
        if (fast := self._loops(images)) is not None:
            numbers = np.arange(len(slots))
            self._by_loop(
                fast, images.of(self.source.shape), _whole(numbers, self.source.shape), (pixels, numbers)
            )
            return
        begins = slots.tolist()
        follow = begins == list(range(begins[0], begins[0] + len(begins)))
        step = len(begins) if follow else 1
        for i in range(0, len(begins), step):
            some = pixels[i : i + step]
            if images.operations is not None:
                some = self._turned(kind, some, images.operations[slots[i : i + step]])
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
        kind.stretch(pixels, out, scratch)
        self.fetcher.work.pixels += out.size

    def _windows(self, kind: Kind, pieces: Array, count: int) -> Array:
        """Return (count, rows, columns) stored values, each chunk decoded once; fill beyond the array."""
        height, width = self.source.shape
        out = self.fetcher.scratch.take("windows", (count, height, width), kind.dtype)
        out[:] = kind.fill
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


@dataclass(frozen=True, eq=False, kw_only=True)
class _Images:
    """Images of one kind, and where they go."""

    kind: Kind
    """What they are made of, and what their values become."""
    slots: Array
    """(k,) int64: their places in ``out``."""
    out: Array
    """(slots, rows * columns)."""
    operations: Array | None
    """(slots,) uint8: how each is turned; None where none is."""

    def at(self, slots: Array) -> "_Images":
        """Return those that go to some slots (k,)."""
        return replace(self, slots=slots)

    def of(self, chunk: tuple[int, int]) -> "_Images":
        """Return the same, made of chunks of another shape."""
        return replace(self, kind=replace(self.kind, chunk=chunk))

    @property
    def turns(self) -> Array:
        """(k,) uint8: how each is turned; 0 does nothing."""
        return np.zeros(len(self.slots), np.uint8) if self.operations is None else self.operations[self.slots]

    @property
    def law(self) -> Any:
        """What a loop takes for the law of their values."""
        law = self.kind.stretch
        return None if law is None else law.law_of_codes if self.kind.dtype == "uint16" else law.law_of_floats


def _whole(chunks: Array, shape: tuple[int, int]) -> Array:
    """Return the pieces of images that are each a whole chunk (rows, columns)."""
    pieces = np.zeros(len(chunks), PIECE)
    pieces["chunk"], pieces["slot"] = chunks, np.arange(len(chunks))
    pieces["h"], pieces["w"] = shape
    return pieces


def images_of(pixels: Array, shape: tuple[int, int]) -> Array:
    """Return (k, rows, columns) of what each of some rows (k, rows * columns or more) begins with: a view."""
    return pixels[:, : math.prod(shape)].reshape(len(pixels), *shape)
