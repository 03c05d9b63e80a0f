"""Layers of chips that are in a collection already: shards of these arrays alone, and rows that say so.

Nothing of the backscatter is written. It is read, since a chip's hash is that of all of its chunks: they are held
against the hash that its row has before the row gets another. All or nothing, and resumed, as chips are.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, SarzarrError
from sarzarr.files import Lock, remove_tree
from sarzarr.grids.grid import Grid
from sarzarr.ingestion.collections.files import Chips
from sarzarr.ingestion.collections.pack import (
    begin,
    check_shard,
    forget_others,
    known_records,
    layer_stamps,
)
from sarzarr.ingestion.collections.plan import CollectionPlan
from sarzarr.ingestion.collections.read import ChipReader, Understanding
from sarzarr.ingestion.collections.shards import done_once
from sarzarr.rasters import many_rasters
from sarzarr.scenes.refusals import Refusals
from sarzarr.store.codecs import get_codec
from sarzarr.store.collection_files import (
    ChangedRow,
    ChunksOfArray,
    Records,
    ShardOfChips,
    chip_hashes,
    shard_key,
    write_layers,
)
from sarzarr.store.collections import ABSENT, Collection, Contents, Part
from sarzarr.store.commit import changed_once
from sarzarr.store.documents import read_json, write_json
from sarzarr.store.manifest import ShardRecord
from sarzarr.store.place import Folder, Place
from sarzarr.store.shards import read_chunks
from sarzarr.store.store import Store
from sarzarr.tasks import Progress
from sarzarr.text import counted, error_text

log = logging.getLogger(__name__)
_COLUMNS: Final = ("row", "layers", "crs", "transform", "sha")


@dataclass(frozen=True, kw_only=True)
class LayersOfShard:
    """The layers that chips of one shard get: an address and files; nothing open."""

    folder: str
    """The folder of the part's arrays beside the store."""
    contents: Contents
    """What the collection will hold."""
    part: Part
    """The size of its chips."""
    shard: int
    """Its number."""
    place: Place
    """The store."""
    collection: str
    """The collection there."""
    chips: Chips
    """The chips, in the order of the shard, with the files of their layers."""
    rows: tuple[int, ...]
    """Their rows in the table."""
    columns: Mapping[str, Array]
    """What the table says of them: row, layers, crs, transform (n, 6) and sha (n, 32)."""
    understanding: Understanding
    """The meaning of their files."""

    @property
    def arrays(self) -> tuple[str, ...]:
        """The arrays (chip, y, x) that are written."""
        return tuple(one.layer.name for one in self.understanding.layers)

    @property
    def receipt(self) -> str:
        """The key of its receipt beside the store: of other files, or of a shard that changed, it is another."""
        parts = [
            cv.SCHEMA_VERSION,
            self.part,
            self.shard,
            repr(self.understanding),
            self.contents.numbers,
            self.chips.ids,
            self.chips.sources,
            sorted((name, stamps.tolist()) for name, stamps in self.chips.layer_stamps.items()),
            self.columns["sha"].tobytes(),
        ]
        return f"receipts/{self.part.name}-{self.shard}-{sha256(repr(parts).encode()).hexdigest()[:32]}.json"

    @property
    def bytes_in(self) -> int:
        """Bytes of the layers' files."""
        return sum(int(stamps[:, 0].sum()) for stamps in self.chips.layer_stamps.values())

    @property
    def places(self) -> list[int]:
        """Places of the chips in the shard."""
        return list((self.columns["row"] % self.part.per_shard).tolist())

    def grid(self, position: int) -> Grid:
        """Return CRS, transform and (rows, columns) of a chip."""
        crs = int(self.columns["crs"][position])
        a, b, c, d, e, f = map(float, self.columns["transform"][position])
        return Grid(
            height=self.part.height,
            width=self.part.width,
            transform=(a, b, c, d, e, f),
            crs_wkt=None if crs == ABSENT else self.contents.crs[crs],
        )


@dataclass(frozen=True, kw_only=True)
class LayersReceipt:
    """The result of a shard."""

    records: Records
    """Its file of each array that was written."""
    numbers: Mapping[int, Mapping[str, int]]
    """Columns of `Contents.numbers` that change, by the position of a chip that got its layers."""
    hashes: Mapping[int, str]
    """SHA-256 of its chunks, 64 hexadecimal digits, likewise."""
    refused: Mapping[int, str]
    """Why chips did not get theirs, by their position."""


def pack_layers(
    store: Store,
    plan: CollectionPlan,
    staging: Path,
    *,
    lock: Lock,
    failed: Refusals,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Write the layers of a plan's chips that are in a collection; the caller is in `writing`, and knows ``staging``.

    Files that cannot be taken are added to ``failed``. Where none can, the store stays as it is.
    """
    folder = staging / f"layers-{plan.name}"
    begin(folder)
    known = Collection(store, plan.name)
    contents = plan.contents(known.contents)
    works = list(_works(known, plan, contents, folder))
    receipts = _written(works, plan, lock, progress)
    for work, receipt in zip(works, receipts, strict=True):
        for position, why in sorted(receipt.refused.items()):
            files = [some[position] for some in work.chips.layers.values() if some[position]]
            failed.add(map(Path, files), why, scene=work.chips.ids[position])
    if count := sum(len(receipt.hashes) for receipt in receipts):
        rows = dict(_rows(known, works, receipts))
        with changed_once(store, leaves=[folder]) as draft:
            write_layers(draft, plan.name, contents, rows, _parts(known, contents, folder, works, receipts))
        what = counted(count, "chip")
        log.info("%s, collections/%s: layers of %s", store.place.name, plan.name, what)
    remove_tree(folder)


def _works(
    known: Collection, plan: CollectionPlan, contents: Contents, folder: Path
) -> Iterator[LayersOfShard]:
    """Yield the shards that have chips which get layers; chips that left the store since are nobody's."""
    names = [name for name in plan.later.layers if any(plan.later.layers[name])]
    own = [one for one in plan.understanding.layers if one.files in names]
    numbers = {name: at for at, name in enumerate(plan.later.ids)}
    rows = np.array(sorted(known.numbers[name] for name in numbers if name in known.numbers), np.int64)
    part_of, row_of = (known.table[what].values[rows] for what in ("part", "row"))
    for number, part in enumerate(contents.parts):
        for shard in range(part.shards):
            mine = np.flatnonzero((part_of == number) & (row_of // part.per_shard == shard))
            mine = mine[np.argsort(row_of[mine])]
            if len(mine):
                chosen = [numbers[known.ids[row]] for row in rows[mine].tolist()]
                yield LayersOfShard(
                    folder=str(folder / part.name),
                    contents=contents,
                    part=part,
                    shard=shard,
                    place=known.store.place,
                    collection=known.name,
                    chips=plan.later.part(np.array(chosen, np.int64)),
                    rows=tuple(rows[mine].tolist()),
                    columns={what: known.table[what].values[rows[mine]] for what in _COLUMNS},
                    understanding=replace(plan.understanding, layers=tuple(own)),
                )


def _written(
    works: Sequence[LayersOfShard],
    plan: CollectionPlan,
    lock: Lock,
    progress: Callable[[Progress], None] | None,
) -> list[LayersReceipt]:
    """Return the receipts of all shards, of which those that are done are not done again."""
    total, done = sum(work.bytes_in for work in works), 0

    def report(work: LayersOfShard) -> None:
        nonlocal done
        done += work.bytes_in
        if progress is not None:
            progress(Progress(done, total, plan.name))

    return done_once(works, _intact, _write, lock, report)


def _rows(
    known: Collection, works: Sequence[LayersOfShard], receipts: Sequence[LayersReceipt]
) -> Iterator[tuple[int, ChangedRow]]:
    """Yield the rows that change, by their numbers: files of layers stand behind the others, sorted by name."""
    sources = known.table["source"].values
    for work, receipt in zip(works, receipts, strict=True):
        for position, digest in receipt.hashes.items():
            row = work.rows[position]
            lines = str(sources[row]).split("\n")
            beside = dict(line.split("\t", 1) for line in lines if "\t" in line)
            beside |= dict(line.split("\t", 1) for line in work.chips.sources[position].split("\n"))
            files = [line for line in lines if "\t" not in line]
            yield (
                row,
                ChangedRow(
                    source="\n".join([*files, *(f"{name}\t{beside[name]}" for name in sorted(beside))]),
                    numbers=receipt.numbers[position],
                    sha=bytes.fromhex(digest),
                ),
            )


def _parts(
    known: Collection,
    contents: Contents,
    folder: Path,
    works: Sequence[LayersOfShard],
    receipts: Sequence[LayersReceipt],
) -> dict[str, tuple[Path, Sequence[Records]]]:
    """Return, of each part, the folder of its new shards and the records of all of them: each has every array."""
    out: dict[str, tuple[Path, Sequence[Records]]] = {}
    for part in contents.parts:
        records: list[Records] = [
            dict.fromkeys(contents.stored, ShardRecord()) | held for held in known_records(known, part.name)
        ]
        written = set[Path]()
        for work, receipt in zip(works, receipts, strict=True):
            if work.part.name == part.name and receipt.hashes:
                written |= check_shard(folder / part.name, part, work.shard, receipt.records)
                records[work.shard] |= receipt.records
        forget_others(folder / part.name, written)
        out[part.name] = folder / part.name, records
    return out


# ------------------------------------------------------------------ one shard, on a worker
def _write(work: LayersOfShard) -> LayersReceipt:
    known, part = Collection(Store(work.place), work.collection), work.part
    places = work.places
    number = [p.name for p in known.contents.parts].index(part.name)
    held = {
        array: _chunks(work, array, known.manifest(number, array).chunks[work.shard])
        for array in known.contents.stored
    }
    _check_held(work, held)
    reader = ChipReader(work.understanding, (part.height, part.width))
    refused: dict[int, str] = {}
    numbers: dict[int, dict[str, int]] = {}
    arrays = work.arrays
    files = ShardOfChips(Path(work.folder), work.contents, part, work.shard, arrays)
    positions = dict(zip(places, range(len(places)), strict=True))
    with many_rasters(), files as shard:
        for place in range(part.per_shard):
            pixels: dict[str, Array] = {}
            position = positions.get(place)
            if position is not None:
                names = {name: some[position] for name, some in work.chips.layers.items() if some[position]}
                try:
                    pixels, hashes = reader.layers(names, work.grid(position))
                except (SarzarrError, OSError, ValueError) as error:
                    refused[position] = error_text(error)
                else:
                    bits = int(work.columns["layers"][position]) | work.contents.layers_among(pixels)
                    numbers[position] = {
                        "layers": bits,
                        **layer_stamps(work.chips, position, names),
                        **hashes,
                    }
            kept = {array: held[array] for array in arrays if array in held and array not in pixels}
            shard.append(place, pixels | _stored(kept, place, work))
        records = shard.close()
    if numbers:
        staged = Folder(Path(work.folder))
        key = shard_key(work.shard)
        held |= {array: (staged, f"{array}/{key}", record.entries) for array, record in records.items()}
    digests = chip_hashes(held, [places[position] for position in numbers])
    receipt = LayersReceipt(
        records=records,
        numbers=numbers,
        hashes={at: digest.hex() for at, digest in zip(numbers, digests, strict=True)},
        refused=refused,
    )
    write_json(Folder(Path(work.folder).parent), work.receipt, _to_json(receipt))
    return receipt


def _chunks(work: LayersOfShard, array: str, entries: Array) -> ChunksOfArray:
    key = f"{cv.COLLECTIONS}/{work.collection}/{work.part.name}/{array}/{shard_key(work.shard)}"
    return work.place, key, entries


def _check_held(work: LayersOfShard, held: Mapping[str, ChunksOfArray]) -> None:
    """Raise `CorruptStoreError` unless the chunks of the chips have the SHA-256 that their rows say."""
    digests = chip_hashes(held, work.places)
    for name, wanted, digest in zip(work.chips.ids, work.columns["sha"], digests, strict=True):
        if digest != wanted.tobytes():
            raise CorruptStoreError(
                f"the pixels that its row says were expected of chip {name!r} of {work.place}, got others. Look with "
                "`sarzarr verify STORE`; remove the collection, and ingest it again."
            )


def _stored(kept: Mapping[str, ChunksOfArray], at: int, work: LayersOfShard) -> dict[str, Array]:
    """Return the pixels (rows, columns) that a chip of the shard has of some layers already, checked."""
    out: dict[str, Array] = {}
    for array, (place, key, entries) in kept.items():
        stored = work.contents.stored[array]
        if at < len(entries) and entries["size"][at]:
            like = np.empty((work.part.height, work.part.width), stored.dtype)
            grid, codec = (work.part.per_shard, 1), get_codec(stored.codec)
            for _, _, pixels in read_chunks(place, key, grid, codec, like, {(at, 0)}, entries):
                out[array] = pixels.reshape(like.shape)
    return out


def _intact(work: LayersOfShard) -> LayersReceipt | None:
    """Return the receipt of a shard whose files are there as it says."""
    try:
        receipt = _from_json(read_json(Folder(Path(work.folder).parent), work.receipt))
        check_shard(Path(work.folder), work.part, work.shard, receipt.records)
    except (OSError, ValueError, KeyError, TypeError):  # damage is an OSError, too
        return None
    return receipt


def _to_json(receipt: LayersReceipt) -> dict[str, Any]:
    return {
        "records": {name: record.to_json() for name, record in receipt.records.items()},
        **{name: [*getattr(receipt, name).items()] for name in ("numbers", "hashes", "refused")},
    }


def _from_json(document: Mapping[str, Any]) -> LayersReceipt:
    return LayersReceipt(
        records={name: ShardRecord.from_json(record) for name, record in document["records"].items()},
        **{name: dict(document[name]) for name in ("numbers", "hashes", "refused")},
    )
