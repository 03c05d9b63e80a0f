"""The files of a collection as they are written: shards of many chips, documents, a table, and all at once."""

import os
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.pixels.bounds import Histogram
from sarzarr.store.catalog import write_histogram
from sarzarr.store.codecs import CRC_BYTES, get_codec
from sarzarr.store.collections import ABSENT, CHIPS, Contents, Part, chip_table
from sarzarr.store.documents import (
    cf_attributes,
    ensure_groups,
    group_document,
    has_node,
    read_node,
    write_node,
)
from sarzarr.store.manifest import ShardRecord, write_manifest
from sarzarr.store.place import Place, read_at
from sarzarr.store.shards import ShardWriter, is_empty
from sarzarr.store.store import Store
from sarzarr.store.tables import append_rows, read_table, write_table

CHIP_ROWS: Final = 65_536
"""Chips of a chunk of the table."""
Records = dict[str, ShardRecord]
"""The file of each array of a shard, by the array's name."""


ChunksOfArray = tuple[Place, str, Array]
"""The chunks of a shard of one array: the place and the key of its file, and (chips,) of `manifest.CHUNK`."""


def shard_key(shard: int) -> str:
    """Return the key of a shard of an array (chip, y, x), of its number."""
    return f"c/{shard}/0/0"


@dataclass
class ShardOfChips:
    """One shard of every array of a part, being written: whole or not at all, as a context manager."""

    folder: Path
    """The folder of the part's arrays."""
    contents: Contents
    """What the collection holds."""
    part: Part
    """The size of its chips, (rows, columns)."""
    shard: int
    """Its number."""
    arrays: Container[str] | None = None
    """The arrays that are written; None: all."""
    _all_valid: tuple[Any, bytes] | None = field(default=None, init=False)
    """The flags of a chip of which every pixel is valid, encoded: most have them."""
    _writers: dict[str, ShardWriter] = field(default_factory=dict, init=False)
    _stack: ExitStack = field(default_factory=ExitStack, init=False)

    def __enter__(self) -> Self:
        for name, stored in self.contents.stored.items():
            if self.arrays is not None and name not in self.arrays:
                continue
            path = self.folder / name / shard_key(self.shard)
            writer = ShardWriter(
                path, (self.part.per_shard, 1), get_codec(stored.codec), stored.encoding.fill
            )
            self._writers[name] = self._stack.enter_context(writer)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def append(self, at: int, pixels: Mapping[str, Array]) -> bytes:
        """Add a chip as number ``at`` of the shard: stored values (rows, columns) by the array's name.

        Returned is the SHA-256 (32 bytes) of its chunks: see `chip_hashes`.
        """
        digest = sha256()
        for name in sorted(pixels):
            values, writer = pixels[name], self._writers[name]
            if is_empty(values, writer.fill):
                continue
            if name.endswith(cv.FLAGS_SUFFIX) and not values.any():
                self._all_valid = self._all_valid or writer.codec.encode(np.zeros_like(values, order="C"))
                payload, crc = self._all_valid
            else:
                payload, crc = writer.codec.encode(np.ascontiguousarray(values))
            digest.update(payload)
            writer.add(at, 0, payload, crc)
        return digest.digest()

    def close(self) -> Records:
        """Finish every file, and return their records."""
        return {name: writer.close() for name, writer in self._writers.items()}


def chip_hashes(arrays: Mapping[str, ChunksOfArray], at: Iterable[int]) -> Iterator[bytes]:
    """Yield of each chip of a shard the SHA-256 (32 bytes) of its chunks as they are stored, without their checksums.

    They are in the order of the arrays' names; of chunks that are all fill value, and so left out, there are none.
    ``at`` are the chips' places in the shard.
    """
    files: dict[str, Any] = {}
    try:
        for position in at:
            digest = sha256()
            for name in sorted(arrays):
                place, key, entries = arrays[name]
                entry = entries[position] if len(entries) else None
                if entry is None or not entry["size"]:
                    continue
                if name not in files:
                    files[name] = place.descriptor(key)
                size, offset = int(entry["size"]) - CRC_BYTES, int(entry["offset"])
                room = bytearray(size)
                if files[name] is None:
                    room = bytearray(place.get_ranges(key, [(offset, size)])[0])
                else:
                    read_at(files[name], [memoryview(room)], offset)
                digest.update(room)
            yield digest.digest()
    finally:
        for handle in files.values():
            if handle is not None:
                os.close(handle)


def chip_attributes(contents: Contents, name: str) -> dict[str, Any]:
    """Return the attributes of an array of a part, dB and CF's among them: of backscatter, flags, or a layer."""
    for array in contents.arrays:
        if array.name == name:
            about = {
                cv.LONG_NAME: f"{array.quantity} {array.polarization or array.name}, normalized dB",
                cv.UNITS: "1",
                cv.VMIN: array.vmin,
                cv.VMAX: array.vmax,
                cv.QUANTITY: array.quantity,
                cv.REPRESENTATION: str(cv.Representation.NORMALIZED),
                cv.ANCILLARY: array.flags,
                **cf_attributes(array.stored.encoding),
            }
            return about | ({cv.SAR_POLARIZATIONS: [array.polarization]} if array.polarization else {})
        if array.flags == name:
            return {
                cv.LONG_NAME: f"validity of {array.name}",
                cv.FLAG_VALUES: [int(f) for f in cv.Flag],
                cv.FLAG_MEANINGS: " ".join(f.name.lower() for f in cv.Flag),
            }
    layer = next(one for one in contents.layers if one.name == name)
    about = {cv.LONG_NAME: layer.name, cv.LAYER_KIND: layer.kind}
    if layer.units:
        about[cv.UNITS] = layer.units
    if layer.nodata is not None and np.isfinite(layer.nodata):
        about[cv.NODATA] = layer.nodata
    return about


def write_part(place: Place, key: str, contents: Contents, part: Part, records: Sequence[Records]) -> None:
    """Write the documents and manifests of a part's arrays, of which ``records`` are all shards, in order."""
    ensure_groups(place, key)
    for name, stored in contents.stored.items():
        files = {shard_key(shard): record[name] for shard, record in enumerate(records)}
        write_manifest(place, f"{key}/{name}", files)
        write_node(place, f"{key}/{name}", part.document(stored, chip_attributes(contents, name)))


def write_collection(
    draft: Store,
    name: str,
    contents: Contents,
    chips: xr.Dataset,
    histograms: Mapping[str, Histogram],
    parts: Mapping[str, tuple[Path, Sequence[Records]]],
    *,
    without: Collection[str] = (),
) -> None:
    """Have chips enter a collection of a draft, which is made if it is not there.

    ``contents`` are those of all its chips, known ones too; ``chips`` are the rows of new ones
    (`chip_table`), and ``histograms`` the dB of all. ``parts`` has, of each part that gets some, the folder of its
    new shards, and the records of all its shards. Rows of the ids ``without`` leave the table.
    """
    key, place = f"{cv.COLLECTIONS}/{name}", draft.place
    ensure_groups(place, cv.COLLECTIONS)
    _write_parts(place, key, contents, parts)
    ensure_groups(place, f"{key}/{cv.HISTOGRAMS}")
    for array, histogram in histograms.items():
        write_histogram(place, f"{key}/{cv.HISTOGRAMS}/{array}", histogram)
    known = read_node(place, key)["attributes"] if has_node(place, key) else None
    columns = contents.numbers if known is None else Contents.from_attributes(known).numbers
    append_chips(place, f"{key}/{CHIPS}", chips, contents.numbers, columns, without=without)
    write_node(place, key, group_document(contents.to_attributes()))


def _write_parts(
    place: Place, key: str, contents: Contents, parts: Mapping[str, tuple[Path, Sequence[Records]]]
) -> None:
    for part in contents.parts:
        if part.name not in parts:
            continue
        folder, records = parts[part.name]
        for array in contents.stored:
            for file in sorted((folder / array / "c").glob("*/0/0")):
                shard = file.relative_to(folder / array).as_posix()
                place.swap(file, f"{key}/{part.name}/{array}/{shard}")
        write_part(place, f"{key}/{part.name}", contents, part, records)


@dataclass(frozen=True, kw_only=True)
class ChangedRow:
    """A row of a chip that got layers later."""

    source: str
    """All of its files, a line each."""
    numbers: Mapping[str, int]
    """Columns of `Contents.numbers` that are others now."""
    sha: bytes
    """The SHA-256 (32 bytes) of its chunks."""


def write_layers(
    draft: Store,
    name: str,
    contents: Contents,
    rows: Mapping[int, ChangedRow],
    parts: Mapping[str, tuple[Path, Sequence[Records]]],
) -> None:
    """Have layers of chips that are there enter a collection of a draft: see `write_collection`.

    ``rows`` are those of the table that change, by their numbers.
    """
    key, place = f"{cv.COLLECTIONS}/{name}", draft.place
    _write_parts(place, key, contents, parts)
    known = Contents.from_attributes(read_node(place, key)["attributes"])
    table = _widened(read_table(place, f"{key}/{CHIPS}"), contents.numbers, known.numbers)
    sources, numbers, hashes = (table[what].values.copy() for what in ("source", "numbers", "hashes"))
    columns = {column: at for at, column in enumerate(contents.numbers)}
    for row, changed in rows.items():
        sources[row] = changed.source
        numbers[row, [columns[what] for what in changed.numbers]] = [*changed.numbers.values()]
        hashes[row, 0] = np.frombuffer(changed.sha, np.uint8)
    ids = table["id"].values.tolist()
    anew = chip_table(ids, sources.tolist(), table["transform"].values, numbers, hashes)
    write_table(place, f"{key}/{CHIPS}", anew, rows_per_chunk=CHIP_ROWS)
    write_node(place, key, group_document(contents.to_attributes()))


def _widened(table: xr.Dataset, numbers: Sequence[str], known: Sequence[str]) -> xr.Dataset:
    """Return a table of chips with the columns ``numbers``, of which it has those that are ``known``."""
    more: Array = np.full((table.sizes["chip"], len(numbers)), ABSENT, np.int64)
    more[:, [numbers.index(name) for name in known]] = table["numbers"].values
    names = [*table.data_vars]
    return table.drop_vars("numbers").assign(numbers=(("chip", "number"), more))[names]


def append_chips(
    place: Place,
    key: str,
    table: xr.Dataset,
    numbers: Sequence[str],
    known_numbers: Sequence[str],
    *,
    without: Collection[str] = (),
) -> None:
    """Put rows behind those of a table of chips, which is made if it is not there; rows of some ids leave it.

    ``numbers`` are the columns of `Contents.numbers` that the rows have, int64, and ``known_numbers`` those of the
    rows that are there, which have `ABSENT` in the others.
    """
    if without or [*numbers] != [*known_numbers]:
        known = read_table(place, key)
        known = known.isel(chip=~np.isin(known["id"].values.astype(str), sorted(without)))
        known = _widened(known, numbers, known_numbers)[[*table.data_vars]]
        write_table(place, key, known, rows_per_chunk=CHIP_ROWS)
    append_rows(place, key, table, rows_per_chunk=CHIP_ROWS)
