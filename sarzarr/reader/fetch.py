"""Chunks out of a store's files: read, checked against their checksums and decoded, a group at a time.

What decides is how often threads hand each other the GIL, so a group is as many chunks as a core's cache holds.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from crc32c import crc32c

from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, StoreChangedError
from sarzarr.pixels.compiled.when import loops_for
from sarzarr.reader.cache import ChunkCache
from sarzarr.reader.memory import MAX_HANDLES, ScratchMemory
from sarzarr.reader.sources import PAGE, ByteRanges, Kind, Source
from sarzarr.store.codecs import CRC_BYTES, Codec, get_codec
from sarzarr.store.place import read_at
from sarzarr.store.shards import check_end

GROUP: Final = 8
"""Chunks that are read, checked and stretched together."""
FAST_GROUP: Final = 32
"""The same where one compiled loop reads and checks them: a call costs as much as half a chunk."""
READ_TO: Final = PAGE // 2
"""Bytes into a page at which bytes from a file are put. Some processors copy five times slower to a place that is up
to 31 bytes further within its page than where they come from (``rep movsb``, on AMD Zen 3 and 4). The chunks of a
shard without a codec begin 0, 4, ... 252 bytes into a page, and their places 0, 4, ... 28 bytes after this."""


@dataclass(eq=False)
class Trust:
    """The chunks of a table that this process has checked, in files that are still the same."""

    chunks: Array
    """(chunks,) uint8: 1 of those whose checksum was right, in a file that stays open or is found unchanged."""
    keeps: bool = True
    """Whether a chunk that was checked is trusted; no longer, once a file was found to be another."""
    _files: dict[int, tuple[int, ...]] = field(default_factory=dict, init=False, repr=False)

    def opened(self, file: int, handle: int) -> None:
        """Take note of a file that was opened: where it is not the one of before, nothing is trusted any more."""
        now = os.fstat(handle)
        identity = now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns
        if self._files.setdefault(file, identity) != identity:
            self.keeps, self.chunks = False, np.zeros_like(self.chunks)

    @property
    def of_loops(self) -> tuple[Array, int]:
        """The chunks that are trusted, and what becomes of those that are checked: 1, or 0 where none is kept."""
        return self.chunks, int(self.keeps)


@dataclass(eq=False)
class Work:
    """The work of this process for a reader of batches."""

    checks_once: bool = True
    """Whether a chunk is checked once, or each time."""
    cache: int | None = None
    """Bytes of decoded chunks that are kept; as `cache_rows` has it if None."""
    pixels: int = 0
    """The pixels that were delivered, roughly: threads may forget a group of each other's."""
    _trust: dict[int, Trust] = field(default_factory=dict, init=False, repr=False)
    _caches: dict[tuple[int, int], ChunkCache] = field(default_factory=dict, init=False, repr=False)

    def trust(self, part: int, chunks: int) -> Trust:
        """Return what is known of so many chunks of a part of batches; all threads share it."""
        return self._trust.setdefault(part, Trust(np.zeros(chunks, np.uint8), self.checks_once))

    def kept(self, part: int, chunks: int, nbytes: int, rows: int) -> ChunkCache:
        """Return what is kept of so many chunks of a part; all threads share it, and who was forked has its own."""
        key = os.getpid(), part
        if key not in self._caches:
            self._caches.setdefault(key, ChunkCache(chunks, nbytes, rows))
        return self._caches[key]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_trust": {}, "_caches": {}}  # another process checks for itself


@dataclass(eq=False)
class ChunkFetcher:
    """One thread's open files and scratch memory. The `Source` holds nothing open, pickles, and threads share it."""

    source: Source
    """The arrays whose chunks are read."""
    handles: int = MAX_HANDLES
    """Files held open at most."""
    work: Work = field(default_factory=Work)
    """What this process has done, by all readers of chunks of one reader of batches."""
    part: int = 0
    """The number of the part of a batch that is read."""
    keeps: tuple[int, int] = (0, 0)
    """Bytes of a decoded chunk, and how many are kept."""
    scratch: ScratchMemory = field(default_factory=ScratchMemory, init=False, repr=False)
    """Memory of this thread."""
    _open: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    _arrays: dict[int, Any] = field(default_factory=dict, init=False, repr=False)
    _constants: dict[tuple[int, int], int] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def trust(self) -> Trust:
        """The chunks that need not be checked again."""
        return self.work.trust(self.part, len(self.source.table.entries))

    @contextmanager
    def held(self, kind: Kind, chunks: Array) -> Iterator[tuple[Array, Array] | None]:
        """Give (memory, (k,) int64) while it lasts: compressed chunks (k,), decoded, in rows of the stored dtype.

        Each is decoded unless it is kept from before. None where nothing is: by choice, where files are not what they
        were, or where there is no room for all of these.

        Raises as `groups`.
        """
        nbytes, rows = self.keeps
        if not rows or kind.codec is None:
            yield None
            return
        every, back = np.unique(chunks, return_inverse=True)
        if rows < len(every) or not self._is_trusted(every):
            yield None
            return
        cache = self.work.kept(self.part, len(self.source.table.entries), nbytes, rows)
        if (taken := cache.take(every)) is None:
            yield None
            return
        at, missing = taken[0].copy(), taken[1]
        try:
            if missing.size:
                new, codec = every[missing], get_codec(str(kind.codec))
                places, where = ByteRanges.of(self.source.table, new), at[missing].tolist()
                images = [cache.cells[i, : kind.nbytes].view(kind.dtype).reshape(kind.chunk) for i in where]
                for first in range(0, len(places), GROUP):
                    self._decode_some(kind, codec, places, first, images[first : first + GROUP])
                at[missing] = cache.put(new.tolist(), where, kind.dtype)
            yield cache.cells.view(kind.dtype), at[back]
        finally:
            cache.give_back(taken[0])

    def _is_trusted(self, chunks: Array) -> bool:
        """Return whether what was checked need not be again, once the files of chunks were looked at."""
        if not self.trust.keeps:
            return False
        entries = self.source.table.of(chunks)
        chunks, entries = chunks[entries["size"] > 0], entries[entries["size"] > 0]
        files, first = np.unique(entries["file"], return_index=True)
        numbers = zip(files.tolist(), chunks[first].tolist(), strict=True)
        has_handles = all(self._handle(file, chunk) is not None for file, chunk in numbers)
        return has_handles and self.trust.keeps

    def close(self) -> None:
        """Close every handle."""
        while self._open:
            os.close(self._open.popitem()[1])
        self._arrays.clear()

    def groups(self, kind: Kind, chunks: Array) -> Iterator[Array]:
        """Yield chunks of one kind, a group at a time: (k, pixels or more) of the stored dtype.

        Each row begins with its chunk's pixels, and is good until the next group.

        Raises `CorruptStoreError`, with the place, where a chunk is absent, short, fails its checksum or is not the
        one that belongs there; `StoreChangedError` where the store has changed since its table was read.
        """
        if kind.codec is None or not chunks.size:
            for some in in_groups(chunks):
                yield self._load_elsewhere(kind, some).reshape(len(some), -1)
            return
        codec = get_codec(kind.codec)
        if not codec.is_plain:
            with self.held(kind, chunks) as held:
                if held is not None:
                    yield from (held[0][rows] for rows in in_groups(held[1]))
                    return
        places = ByteRanges.of(self.source.table, chunks)
        yield from self._plain(kind, places) if codec.is_plain else self._decoded(kind, codec, places)

    def _plain(self, kind: Kind, places: ByteRanges) -> Iterator[Array]:
        """Read chunks that are bytes and their checksum."""
        size, dtype = kind.nbytes + CRC_BYTES, np.dtype(kind.dtype)
        if (wrong := places.first_of_another_size(size)) is not None:
            raise self._damage(f"a chunk of {size} bytes was expected, got another size", wrong)
        fast = loops_for(self.work.pixels)
        is_fast = fast is not None and fast.READS and size % 4 == 0 and not places.has_absent
        handles = self.handles_of(places.files, places.chunks) if is_fast else None
        offsets = np.array(places.offsets, np.int64)
        most = GROUP if handles is None else FAST_GROUP
        raw = self.scratch.take("raw", (most, size), "u1", within_page=READ_TO)
        view, begins = raw.reshape(-1).data, [i * size for i in range(most)]
        # Where a checksum is half a pixel, pixels do not lie one behind the other.
        pixels = raw.view(dtype) if size % dtype.itemsize == 0 else None
        for first in range(0, len(places), most):
            count = min(most, len(places) - first)
            some, done = slice(first, first + count), 0
            if fast is not None and handles is not None:
                done = fast.read_group(handles[some], offsets[some], places.crcs[some], raw[:count])
            if done < count:
                self._read(places, first, count, view, begins)
                ends = raw[:count, -CRC_BYTES:].copy().view("<u4")[:, 0]
                are_ours = not places.has_absent and np.array_equal(ends, places.crcs[some])
                if not are_ours or crc32c(view[: count * size]) != self._constant(size, count):
                    self._check_each(raw, kind, places, first, count)
            yield raw[:count, :-CRC_BYTES].copy().view(dtype) if pixels is None else pixels[:count]

    def _decoded(self, kind: Kind, codec: Codec, places: ByteRanges) -> Iterator[Array]:
        """Read chunks and decode them."""
        out = self.scratch.take("decoded", (GROUP, *kind.chunk), kind.dtype)
        for first in range(0, len(places), GROUP):
            count = min(GROUP, len(places) - first)
            self._decode_some(kind, codec, places, first, out[:count])
            yield out[:count].reshape(count, -1)

    def _decode_some(
        self, kind: Kind, codec: Codec, places: ByteRanges, first: int, images: Sequence[Array] | Array
    ) -> None:
        """Decode up to `GROUP` chunks into images (rows, columns).

        Each is read to as far into a page as it is in its file, and `READ_TO` further.
        """
        span, count = places.pages * PAGE, len(images)
        view = self.scratch.take("raw", (GROUP * span,), "u1", within_page=READ_TO).data
        within = places.offsets[first : first + count]
        begins = [i * span + offset % PAGE for i, offset in enumerate(within)]
        self._read(places, first, count, view, begins)
        for i, begin in enumerate(begins):
            if size := places.sizes[first + i]:
                self._decode(codec, view[begin : begin + size], images[i], places, first + i)
            else:
                images[i][:] = kind.fill

    def _decode(self, codec: Codec, raw: memoryview, image: Array, places: ByteRanges, i: int) -> None:
        try:
            check_end(raw, int(places.crcs[i]))
            codec.decode_into(raw, image)
        except (CorruptStoreError, RuntimeError, ValueError) as error:
            raise self._damage(str(error).rstrip("."), places.chunks[i]) from None

    def _constant(self, size: int, count: int) -> int:
        """Return the CRC of ``count`` intact chunks of ``size`` bytes, each of which ends in its own CRC.

        The CRC of bytes that are followed by their CRC does not depend on the bytes, so that of several such
        chunks is one constant. One wrong chunk always moves it; two wrong ones cancel once in 2**32.
        """
        if (size, count) not in self._constants:
            zeros = bytes(size - CRC_BYTES)
            whole = (zeros + crc32c(zeros).to_bytes(CRC_BYTES, "little")) * count
            self._constants[size, count] = int(crc32c(whole))
        return self._constants[size, count]

    def _check_each(self, raw: Array, kind: Kind, places: ByteRanges, first: int, count: int) -> None:
        """Fill the chunks that are absent on purpose, and raise for the first whose checksum fails."""
        for i, data in enumerate(raw[:count], first):
            if not places.sizes[i]:
                data[:-CRC_BYTES] = np.full(kind.chunk, kind.fill, kind.dtype).reshape(-1).view(np.uint8)
                continue
            if crc32c(data) != self._constant(len(data), 1):
                raise self._damage(
                    "a chunk whose CRC-32C matches was expected, got flipped bytes", places.chunks[i]
                )
            if int.from_bytes(data[-CRC_BYTES:].tobytes(), "little") != places.crcs[i]:
                raise self._damage("the chunk that belongs there was expected, got another", places.chunks[i])

    def _damage(self, what: str, chunk: int) -> CorruptStoreError | StoreChangedError:
        return self.source.table.damage(what, chunk)

    def _load_elsewhere(self, kind: Kind, chunks: Array) -> Array:
        """Read chunks through zarr-python, which knows every codec there is."""
        import zarr

        out = self.scratch.take("decoded", (len(chunks), *kind.chunk), kind.dtype)
        out[:] = kind.fill
        for image, chunk in zip(out, chunks.tolist(), strict=True):
            table = self.source.table
            array, (plane, row, col) = table.locate(chunk)
            layout = table.layouts[array]
            if array not in self._arrays:
                self._arrays[array] = zarr.open_array(table.places[array].zarr(), path=layout.path, mode="r")
            window = (slice(row, row + kind.chunk[0]), slice(col, col + kind.chunk[1]))
            stored = self._arrays[array][window if len(layout.shape) == 2 else (plane, *window)]
            image[: stored.shape[0], : stored.shape[1]] = stored
        return out

    def _read(
        self, places: ByteRanges, first: int, count: int, raw: memoryview, begins: Sequence[int]
    ) -> None:
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
            if want and self._read_run(files[i], run, offsets[i], places.chunks[i]) != want:
                self._read_rest(files[i], run, offsets[i], places.chunks[i])
            i = upto

    def _read_run(self, file: int, run: list[memoryview], offset: int, chunk: int) -> int:
        """Fill a run from ``offset`` of a file on, by handle or else as one range; return the bytes there were."""
        handle = self._handle(file, chunk)
        if handle is not None:
            return read_at(handle, run, offset)
        place, key = self.source.table.at(file)
        (stored,) = place.get_ranges(key, [(offset, sum(map(len, run)))])
        begin = 0
        for part in run:
            some = stored[begin : begin + len(part)]
            part[: len(some)] = some
            begin += len(some)
        return begin

    def _read_rest(self, file: int, run: list[memoryview], offset: int, chunk: int) -> None:
        """Read again, part by part, what came short: that is legal, and the end of the file is not."""
        for part in run:
            done = 0
            while done < len(part):
                taken = self._read_run(file, [part[done:]], offset + done, chunk)
                if not taken:
                    raise self._damage(
                        f"{len(part)} bytes at {offset} were expected, got the end of the file", chunk
                    )
                done += taken
            offset += done

    def handles_of(self, files: Sequence[int], chunks: Sequence[int]) -> Array | None:
        """Return (files,) int32: their handles, all open; None where those are too many, or a place has none."""
        if len(set(files)) > self.handles:
            return None
        handles = [self._handle(file, chunk) for file, chunk in zip(files, chunks, strict=True)]
        return None if None in handles else np.array(handles, np.int32)

    def _handle(self, file: int, chunk: int) -> int | None:
        """Return the handle of a file, that of ``chunk``; None in a place that has none."""
        handle = self._open.pop(file, None)
        if handle is None:
            if len(self._open) >= self.handles:
                os.close(self._open.pop(next(iter(self._open))))
            try:
                place, key = self.source.table.at(file)
                handle = place.descriptor(key)
            except FileNotFoundError:
                raise self._damage("a file was expected, got no such file", chunk) from None
            if handle is None:
                return None
            self.trust.opened(file, handle)
        self._open[file] = handle  # last: the one used least recently is first
        return handle


def in_groups(values: Array) -> Iterator[Array]:
    """Yield ``values`` (n, ...) in groups of `GROUP` rows."""
    return (values[first : first + GROUP] for first in range(0, len(values), GROUP))
