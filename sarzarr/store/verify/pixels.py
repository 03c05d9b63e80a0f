"""The pixels of a store held against its manifests: every file, and every chunk in it, in one parallel pass."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from crc32c import crc32c

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError
from sarzarr.store.chunks import ArrayLayout, described_layout, manifest_of
from sarzarr.store.codecs import CRC_BYTES, get_codec
from sarzarr.store.manifest import CHUNK, Manifest, was_changed
from sarzarr.store.place import Head, Place, read_at
from sarzarr.store.shards import EMPTY, parse_index
from sarzarr.store.verify.findings import Findings, scene_in
from sarzarr.store.verify.tree import TAKE_AWAY, UNLISTED, Tree, add_absent
from sarzarr.tasks import Progress, Task, compute, processes, wave_size

BATCH: Final = 1 << 26
"""Bytes of the files that a task looks at, about."""
READ: Final = 1 << 20
"""Bytes that are read at once: they are still in the processor's cache when they are summed up."""


@dataclass(frozen=True, eq=False)
class FileCheck:
    """One file of an array, as its manifest has it: an address and numbers, nothing open."""

    key: str
    """Its key in the store."""
    array: str
    """Its array's."""
    size: int
    """Bytes."""
    chunks: bytes
    """`CHUNK` of each of its chunks, in C order."""
    chunk_bytes: int
    """Bytes of a decoded chunk."""
    codec: str
    """The codec of its chunks."""
    has_index: bool
    """Whether it is a shard, which ends in an index."""


def read_manifests(tree: Tree, found: Findings) -> dict[str, tuple[ArrayLayout, Manifest]]:
    """Return the layout and manifest of each array of pixels; add those that are damaged, and unlisted files."""
    out = {}
    for array in tree.arrays:
        key = f"{array}/{cv.MANIFEST}"
        if key not in tree.files:
            continue
        try:
            layout = described_layout(array, tree.documents[array])
            out[array] = layout, (manifest := manifest_of(tree.place, layout))
        except (CorruptStoreError, KeyError, TypeError, ValueError) as error:
            found.add(key, f"it is damaged, or another array's ({type(error).__name__})")
            continue
        listed = {f"{array}/{name}" for name, record in manifest.records.items() if record.size}
        there = tree.chunks.get(array, set())
        for file in sorted(there - listed):
            found.add(file, UNLISTED, TAKE_AWAY)
        for file in sorted(listed - there):
            add_absent(tree, file, found)
    return out


def check_pixels(
    place: Place,
    arrays: dict[str, tuple[ArrayLayout, Manifest]],
    found: Findings,
    *,
    scenes: Collection[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> int:
    """Hold every file of arrays against its manifest, in parallel; add those that are damaged, return their bytes.

    ``scenes`` limits it to the arrays of some scenes. ``progress`` is told the bytes that are done.
    """
    files = [
        check
        for array, (layout, manifest) in arrays.items()
        if scenes is None or scene_in(array) in scenes
        for check in _checks(layout, manifest)
        if not found.touches(check.key)
    ]
    done, total = 0, sum(check.size for check in files)

    def take(result: tuple[list[tuple[str, str]], int, str]) -> None:
        nonlocal done
        wrong, size, last = result
        for key, what in wrong:
            found.add(key, what)
        done += size
        if progress is not None:
            progress(Progress(done, total, scene_in(last)))

    seen = {array: place.head(f"{array}/{cv.MANIFEST}") for array in arrays}
    tasks: Iterator[Task] = (
        (check_batch, (place, {array: seen[array] for array in {f.array for f in batch}}, batch))
        for batch in _batches(files)
    )
    with processes(total):
        while wave := list(islice(tasks, wave_size())):
            compute(wave, take)
    return total


def _checks(layout: ArrayLayout, manifest: Manifest) -> Iterator[FileCheck]:
    chunk_bytes = int(np.prod(layout.chunk)) * np.dtype(layout.dtype).itemsize
    for key, size, row in zip(manifest.keys, manifest.sizes.tolist(), manifest.chunks, strict=True):
        if size:
            yield FileCheck(
                key=f"{layout.path}/{key}",
                array=layout.path,
                size=size,
                chunks=row.tobytes(),
                chunk_bytes=chunk_bytes,
                codec=layout.codec or "none",
                has_index=layout.shard is not None,
            )


def _batches(files: list[FileCheck]) -> Iterator[list[FileCheck]]:
    batch, size = list[FileCheck](), 0
    for file in files:
        batch.append(file)
        size += file.size
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def check_batch(
    place: Place, seen: Mapping[str, Head | None], files: list[FileCheck]
) -> tuple[list[tuple[str, str]], int, str]:
    """Return (key, what is wrong) of the files that are not as listed, the bytes of all, and the last one's key.

    Raises `StoreChangedError` where the manifests of their arrays are not those that were ``seen``: a worker of a
    cluster may see another disk.
    """
    for array, head in seen.items():
        if place.head(f"{array}/{cv.MANIFEST}") != head:
            raise was_changed(place, array)
    room = bytearray(READ)
    wrong = [(file.key, what) for file in files if (what := _damage(place, file, room))]
    return wrong, sum(file.size for file in files), files[-1].key if files else ""


def _damage(place: Place, file: FileCheck, room: bytearray) -> str:
    """Return what is wrong with a file; nothing where every byte is as listed."""
    try:
        head = place.head(file.key)
        if head is None:
            return "it is absent"
        if head.size != file.size:
            return f"it has {head.size} bytes, not {file.size}"
        entries = np.frombuffer(file.chunks, CHUNK)
        held = np.flatnonzero(entries["size"])
        held = held[np.argsort(entries["offset"][held])]
        wrong = _wrong_chunks(place, file, entries, held, room)
        if wrong:
            what = f"{len(wrong)} of {len(held)} chunks damaged or not those that belong there"
            return f"{what}, the first number {wrong[0]}"
        return _wrong_index(place, file, entries, held) if file.has_index else ""
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"


def _wrong_chunks(place: Place, file: FileCheck, entries: Array, held: Array, room: bytearray) -> list[int]:
    """Return the numbers of the chunks that fail their checksum, or end in another than the manifest says."""
    codec, wrong = get_codec(file.codec), list[int]()
    out = np.empty(file.chunk_bytes, np.uint8) if codec.checks_itself else None
    for number, stored in _stored(place, file.key, entries, held, room):
        last = int.from_bytes(stored[-CRC_BYTES:], "little")
        is_right = last == entries["crc"][number]
        if is_right and out is None:
            is_right = crc32c(stored[:-CRC_BYTES]) == last
        elif is_right and out is not None:
            try:
                codec.decode_into(stored, out)
            except CorruptStoreError:
                is_right = False
        if not is_right:
            wrong.append(number)
    return wrong


def _stored(
    place: Place, key: str, entries: Array, held: Array, room: bytearray
) -> Iterator[tuple[int, memoryview]]:
    """Yield (number, stored bytes) of chunks in the order in which they lie, read many at once."""
    handle = place.descriptor(key)
    try:
        first = 0
        offsets, sizes = entries["offset"][held].tolist(), entries["size"][held].tolist()
        while first < len(held):
            begin, end, last = offsets[first], offsets[first] + sizes[first], first + 1
            while last < len(held) and offsets[last] == end and end + sizes[last] - begin <= READ:
                end += sizes[last]
                last += 1
            view = _read(place, key, handle, begin, end - begin, room)
            for i in range(first, last):
                at = offsets[i] - begin
                yield int(held[i]), view[at : at + sizes[i]]
            first = last
    finally:
        if handle is not None:
            os.close(handle)


def _read(place: Place, key: str, handle: int | None, offset: int, size: int, room: bytearray) -> memoryview:
    if handle is None:
        return memoryview(place.get_ranges(key, [(offset, size)])[0])
    view = memoryview(room if size <= len(room) else bytearray(size))[:size]
    got = 0
    while got < size and (more := read_at(handle, [view[got:]], offset + got)):
        got += more
    return view[:got]


def _wrong_index(place: Place, file: FileCheck, entries: Array, held: Array) -> str:
    """Return what is wrong with the index of a shard, by which other programs read: it must say the manifest's."""
    index = np.full((len(entries), 2), EMPTY, "<u8")
    index[held, 0], index[held, 1] = entries["offset"][held], entries["size"][held]
    want = 16 * len(entries) + CRC_BYTES
    tail = place.get_ranges(file.key, [(file.size - want, want)])[0] if file.size >= want else b""
    try:
        if not np.array_equal(parse_index(tail, len(entries)), index):
            return "its index says other chunks than the manifest"
    except CorruptStoreError:
        return "its index is damaged"
    used = int(entries["size"][held].astype(np.int64).sum()) + want
    return "" if used == file.size else f"it holds {file.size - used} bytes that nothing lists"
