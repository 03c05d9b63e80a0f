"""Chips of an archive on their way into a collection: a shard of every array a task, resumable, all or nothing.

Finished shards and their receipts wait beside the store. Chips of another size than most come back from their tasks,
and are packed in a part of their own; chips that cannot be taken come back with their reasons, and the others go in.
"""

import base64
import json
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numcodecs import zstd

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, SarzarrError
from sarzarr.files import Lock, boot, remove_partials, remove_tree
from sarzarr.ingestion.collections.files import Chips
from sarzarr.ingestion.collections.plan import CollectionPlan
from sarzarr.ingestion.collections.read import Chip, ChipReader, OtherSizeError, Understanding
from sarzarr.ingestion.collections.shards import done_once
from sarzarr.pixels.bounds import Histogram, clip_bounds_from_histogram
from sarzarr.rasters import many_rasters
from sarzarr.scenes.refusals import Refusals
from sarzarr.store.codecs import get_codec
from sarzarr.store.collection_files import Records, ShardOfChips, shard_key, write_collection
from sarzarr.store.collections import ABSENT, Collection, Contents, Part, chip_table, collection_names
from sarzarr.store.commit import changed_once, write_bounds
from sarzarr.store.documents import read_json, write_json
from sarzarr.store.manifest import ShardRecord
from sarzarr.store.place import Folder, Place
from sarzarr.store.shard_job import check_written
from sarzarr.store.shards import read_chunks
from sarzarr.store.store import BoundsEntry, Store
from sarzarr.tasks import Progress, cpu_count
from sarzarr.text import counted, error_text

log = logging.getLogger(__name__)
_OTHERS: Final = ("under", "over", "nonpositive", "nodata")
LEAST_IN_SHARD: Final = 256
"""Chips of a shard where there are enough for several: small archives may grow."""


@dataclass(frozen=True, kw_only=True)
class ShardOfWork:
    """One shard of all arrays of a part: an address and the chips that are to be in it; nothing open."""

    folder: str
    """The folder of the part's arrays beside the store."""
    contents: Contents
    """What the collection holds, for its arrays."""
    part: Part
    """The size of its chips."""
    shard: int
    """Its number."""
    first: int
    """Chips that it holds already, of the store at ``place``."""
    place: Place
    """The store."""
    key: str
    """The part's key there."""
    chips: Chips
    """The files of the chips that are to be in it."""
    numbers: tuple[int, ...]
    """Their numbers in the plan."""
    understanding: Understanding
    """The meaning of their files."""
    workload: int
    """Pixels that a worker may expect."""

    @property
    def receipt(self) -> str:
        """The key of its receipt beside the store: of other chips, or understood otherwise, it is another."""
        parts = [
            cv.SCHEMA_VERSION,
            asdict(self.part) | {"count": 0},
            self.shard,
            self.first,
            sorted(map(repr, self.contents.stored.items())),
            self.contents.numbers,
            repr(sorted(map(repr, self.understanding.meanings.items()))),
            repr(replace(self.understanding, meanings={})),
            self.chips.ids,
            self.chips.sources,
            self.chips.stamps.tolist(),
            sorted((name, stamps.tolist()) for name, stamps in self.chips.layer_stamps.items()),
        ]
        return f"receipts/{self.part.name}-{self.shard}-{sha256(repr(parts).encode()).hexdigest()[:32]}.json"


@dataclass(frozen=True, kw_only=True)
class ShardReceipt:
    """The result of a shard: its files, and the rows of its chips."""

    records: Records
    """Its file of each array."""
    taken: tuple[int, ...]
    """Positions in the task's chips of those that are in it, in order: the first is behind those that were there."""
    numbers: Array
    """(taken, k) int64: `Contents.numbers`, with ``crs`` and ``facts`` as numbers into these two lists."""
    transform: Array
    """(taken, 6) float64."""
    hashes: Array
    """(taken, 2, 32) uint8: of pixels, and of files."""
    crs: tuple[str, ...]
    """WKT2 of CRSs."""
    facts: tuple[Mapping[str, Any], ...]
    """Sets of facts."""
    histograms: Mapping[str, Histogram]
    """dB of its new chips, by array."""
    sizes: Mapping[int, tuple[int, int]]
    """(rows, columns) of chips of another size, by their position."""
    refused: Mapping[int, str]
    """Why chips were not taken, by their position."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """Sentences, and of how many chips they hold."""


def pack_collection(
    store: Store,
    plan: CollectionPlan,
    staging: Path,
    *,
    lock: Lock,
    failed: Refusals,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Write a plan's chips into a collection of a store; the caller is in `writing`, and knows ``staging``.

    Chips that cannot be taken are added to ``failed``. Where none can, the store stays as it is.
    """
    folder = staging / f"collection-{plan.name}"
    begin(folder)
    known = Collection(store, plan.name) if plan.name in collection_names(store) else None
    base = plan.contents(known.contents if known is not None else None)
    run = _Run(store, plan, folder, known, base, lock, progress)
    run.go()
    chips = plan.chips
    for number, why in sorted(run.refused.items()):
        failed.add(map(Path, chips.paths[number].split("\n")), why, scene=chips.ids[number])
    if run.taken:
        run.enter()
    for sentence, count in run.notes.items():
        log.warning(
            "%s, collections/%s: %s: %s", store.place.name, plan.name, counted(count, "chip"), sentence
        )
    remove_tree(folder)


def begin(folder: Path) -> None:
    """Take up what an interrupted run left, unless the machine was switched off since."""
    began = folder / "boot"
    if folder.exists() and not (began.exists() and began.read_text() == boot()):
        remove_tree(folder)
    (folder / "receipts").mkdir(parents=True, exist_ok=True)
    began.write_text(boot())
    remove_partials(folder)


class _Run:
    """Chips on their way: rounds of shards, one for each size of chip that turns up."""

    def __init__(
        self,
        store: Store,
        plan: CollectionPlan,
        folder: Path,
        known: Collection | None,
        contents: Contents,
        lock: Lock,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.store, self.plan, self.folder, self.known, self.lock = store, plan, folder, known, lock
        self.contents, self.progress, self.done = contents, progress, 0
        self.total = int(plan.chips.stamps[:, 0].sum())
        self.refused: dict[int, str] = {}
        self.notes: dict[str, int] = {}
        self.taken: list[tuple[str, int, ShardOfWork, ShardReceipt]] = []
        """Of each shard its part's name, its number, its work and its receipt, in order."""

    def go(self) -> None:
        """Pack every chip: those of the usual size first, then the others by theirs."""
        waiting = {size: rows for size, rows in self.plan.by_size.items() if len(rows)}
        while waiting:
            size = next(iter(waiting))
            sizes = self._pack(size, waiting.pop(size))
            for number, other in sorted(sizes.items()):
                waiting.setdefault(other, [])
                waiting[other] = [*waiting[other], number]

    def _part(self, size: tuple[int, int], count: int) -> Part:
        found = next((p for p in self.contents.parts if (p.height, p.width) == size), None)
        if found is not None:
            return found
        itemsize = max(np.dtype(array.dtype).itemsize for array in self.contents.arrays)
        part = Part.of(*size, itemsize=itemsize)
        least = max(-(-count // max(2 * cpu_count(), 4)), LEAST_IN_SHARD)
        part = replace(part, per_shard=min(part.per_shard, least))
        self.contents = replace(self.contents, parts=(*self.contents.parts, part))
        return part

    def _pack(self, size: tuple[int, int], rows: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Pack the chips of one size; return those that turn out to be of another."""
        part = self._part(size, len(rows))
        others: dict[int, tuple[int, int]] = {}
        works = list(self._works(part, rows))
        receipts = done_once(works, _intact, _packed, self.lock, self._report)
        end = part.count
        for work, receipt in zip(works, receipts, strict=True):
            for position, why in receipt.refused.items():
                self.refused[work.numbers[position]] = why
            for position, other in receipt.sizes.items():
                others[work.numbers[position]] = other
            for sentence, count in receipt.notes.items():
                self.notes[sentence] = self.notes.get(sentence, 0) + count
            if receipt.taken:
                self.taken.append((part.name, work.shard, work, receipt))
                end = work.shard * part.per_shard + work.first + len(receipt.taken)
        parts = (replace(p, count=end) if p.name == part.name else p for p in self.contents.parts)
        self.contents = replace(self.contents, parts=tuple(parts))
        return others

    def _works(self, part: Part, rows: Sequence[int]) -> Iterator[ShardOfWork]:
        at, shard = 0, part.count // part.per_shard
        first = part.count % part.per_shard
        chips = self.plan.chips
        workload = part.height * part.width * len(self.contents.arrays) * len(rows) // cpu_count()
        while at < len(rows):
            some = rows[at : at + part.per_shard - first]
            yield ShardOfWork(
                folder=str(self.folder / part.name),
                contents=replace(self.contents, parts=(), crs=(), facts=(), about={}),
                part=part,
                shard=shard,
                first=first,
                place=self.store.place,
                key=f"{cv.COLLECTIONS}/{self.plan.name}/{part.name}",
                chips=chips.part(np.array(some, np.int64)),
                numbers=tuple(some),
                understanding=self.plan.understanding,
                workload=workload,
            )
            at, shard, first = at + len(some), shard + 1, 0

    def _report(self, work: ShardOfWork) -> None:
        self.done += int(work.chips.stamps[:, 0].sum())
        if self.progress is not None:
            self.progress(Progress(min(self.done, self.total), self.total, self.plan.name))

    def enter(self) -> None:
        """Let all that was packed into the store, with the clips of new groups, in one step."""
        table = self._table()
        histograms = {array.name: Histogram.empty() for array in self.contents.arrays}
        if self.known is not None:
            for name in self.known.arrays:
                histograms[name] = self.known.histogram(name)
        for *_, receipt in self.taken:
            for name, histogram in receipt.histograms.items():
                histograms[name] = histograms[name] + histogram
        self.contents = replace(self.contents, parts=tuple(p for p in self.contents.parts if p.count))
        self._tell_twins(table)
        with changed_once(self.store, leaves=[self.folder]) as draft:
            refused = {self.plan.chips.ids[number] for number in self.refused}
            name, gone = self.plan.name, tuple(one for one in self.plan.replaced if one not in refused)
            write_collection(draft, name, self.contents, table, histograms, self._parts(), without=gone)
            self._bounds(draft, histograms)
        log.info(
            "%s, collections/%s: %s", self.store.place.name, self.plan.name, counted(len(table["id"]), "chip")
        )

    def _tell_twins(self, table: xr.Dataset) -> None:
        """Say which new chips have all the pixels, and the place, of one that is there."""
        if self.known is None:
            return
        there = _identities(self.known.table["transform"].values, self.known.table["sha"].values)
        same = dict(zip(there, self.known.ids, strict=True))
        new = _identities(table["transform"].values, table["hashes"].values[:, 0])
        names = zip(new, map(str, table["id"].values.tolist()), strict=True)
        twins = [(name, same[key]) for key, name in names if key in same and name not in self.plan.replaced]
        if twins:
            log.warning(
                "%s, collections/%s: %s the pixels and the place of one that is there: %r those of %r, and so on. "
                "Where they are the same files, given from elsewhere, put them into a collection of their own.",
                self.store.place.name,
                self.plan.name,
                f"{counted(len(twins), 'chip')} {'has' if len(twins) == 1 else 'have'}",
                *twins[0],
            )

    def _parts(self) -> dict[str, tuple[Path, Sequence[Records]]]:
        """Return, of each part that gets chips, the folder of its new shards and the records of all of them."""
        out: dict[str, tuple[Path, Sequence[Records]]] = {}
        names = [name for name, *_ in self.taken]
        if self.known is not None and self.known.contents.stored != self.contents.stored:
            names += [part.name for part in self.known.contents.parts]  # each has every array
        for name in dict.fromkeys(names):
            part = next(p for p in self.contents.parts if p.name == name)
            records: list[Records] = [
                dict.fromkeys(self.contents.stored, ShardRecord()) for _ in range(part.shards)
            ]
            if self.known is not None:
                for shard, held in enumerate(known_records(self.known, name)):
                    records[shard] |= held
            written = set[Path]()
            for of, shard, work, receipt in self.taken:
                if of == name:
                    written |= check_shard(Path(work.folder), part, shard, receipt.records)
                    records[shard] = receipt.records
            forget_others(self.folder / name, written)
            out[name] = self.folder / name, records
        return out

    def _table(self) -> xr.Dataset:
        """Return the new rows; CRSs and facts of the shards get their numbers in the collection's lists."""
        crs = {wkt: at for at, wkt in enumerate(self.contents.crs)}
        facts = {json.dumps(one, sort_keys=True): at for at, one in enumerate(self.contents.facts)}
        columns, parts = self.contents.numbers, [p.name for p in self.contents.parts if p.count]
        numbers, affine, hashes = [], [], []
        ids: list[str] = []
        sources: list[str] = []
        for name, shard, work, receipt in self.taken:
            own = receipt.numbers.copy()
            size = work.part.per_shard
            own[:, columns.index("part")] = parts.index(name)
            own[:, columns.index("row")] = shard * size + work.first + np.arange(len(own))
            crs_of = [crs.setdefault(wkt, len(crs)) for wkt in receipt.crs]
            facts_of = [facts.setdefault(json.dumps(f, sort_keys=True), len(facts)) for f in receipt.facts]
            placed = own[:, columns.index("crs")]
            own[:, columns.index("crs")] = np.array([*crs_of, ABSENT])[placed]
            own[:, columns.index("facts")] = np.array(facts_of)[own[:, columns.index("facts")]]
            numbers.append(own)
            affine.append(receipt.transform)
            hashes.append(receipt.hashes)
            ids += [work.chips.ids[i] for i in receipt.taken]
            sources += [work.chips.sources[i] for i in receipt.taken]
        self.contents = replace(self.contents, crs=tuple(crs), facts=tuple(map(json.loads, facts)))
        return chip_table(
            ids, sources, np.concatenate(affine), np.concatenate(numbers), np.concatenate(hashes)
        )

    def _bounds(self, draft: Store, histograms: Mapping[str, Histogram]) -> None:
        """Write the clips of groups that are new: what the histograms of the collection recommend."""
        new: dict[str, BoundsEntry] = {}
        for array in self.contents.arrays:
            if array.bounds_key not in draft.bounds:
                clip = clip_bounds_from_histogram(histograms[array.name])
                new[array.bounds_key] = BoundsEntry(
                    vmin=array.vmin,
                    vmax=array.vmax,
                    clip_vmin=clip.vmin,
                    clip_vmax=clip.vmax,
                    clip_method=clip.description or clip.method,
                )
        if new:
            write_bounds(draft, new)


def check_shard(folder: Path, part: Part, shard: int, records: Records) -> set[Path]:
    """Return the paths of the files of a shard of a part (chip, y, x) in its folder; raises as `check_written`."""
    for array, record in records.items():
        check_written(folder / array, {shard_key(shard): record}, (part.per_shard, 1))
    return {folder / array / shard_key(shard) for array in records}


def forget_others(folder: Path, written: Container[Path]) -> None:
    """Remove shards that an interrupted run left in the folder of a part, and that are no part of this one's."""
    for file in [*folder.glob("*/c/*/0/0")]:
        if file not in written:
            file.unlink()


def _identities(transform: Array, sha: Array) -> list[bytes]:
    """Return the affine (n, 6) and the hash (n, 32) of chips as bytes."""
    return [a.tobytes() + b.tobytes() for a, b in zip(np.ascontiguousarray(transform), sha, strict=True)]


def known_records(known: Collection, part: str) -> list[Records]:
    """Return the records of the shards that a part has in the store."""
    number = next((i for i, p in enumerate(known.contents.parts) if p.name == part), None)
    if number is None:
        return []
    out: list[Records] = [{} for _ in range(known.contents.parts[number].shards)]
    for array in known.contents.stored:
        for shard, record in enumerate(known.manifest(number, array).records.values()):
            out[shard][array] = record
    return out


# ------------------------------------------------------------------ one shard, on a worker
def _packed(work: ShardOfWork) -> ShardReceipt:
    part, chips = work.part, work.chips
    reader = ChipReader(work.understanding, (part.height, part.width), work.workload)
    crs: dict[str, int] = {}
    facts: dict[str, int] = {}
    taken: list[int] = []
    rows: list[tuple[list[int], tuple[float, ...], bytes]] = []
    sizes: dict[int, tuple[int, int]] = {}
    refused: dict[int, str] = {}
    columns = work.contents.numbers
    files = ShardOfChips(Path(work.folder), work.contents, part, work.shard)
    with many_rasters(), files as shard:
        if work.first:
            _keep_known(work, shard)
        for position in range(len(chips)):
            layers = {name: files[position] for name, files in chips.layers.items() if files[position]}
            try:
                chip = reader.read(chips.paths[position].split("\n"), layers)
            except OtherSizeError as error:
                sizes[position] = error.shape
                continue
            except (SarzarrError, OSError, ValueError) as error:
                if isinstance(error, CorruptStoreError):
                    raise
                refused[position] = error_text(error)
                continue
            sha = shard.append(work.first + len(taken), chip.pixels)
            numbers = _numbers(chip, chips.stamps[position].tolist(), crs, facts)
            numbers["layers"] = work.contents.layers_among(chip.pixels)
            numbers |= layer_stamps(chips, position, layers)
            row = [numbers.get(name, ABSENT) for name in columns]
            rows.append((row, chip.grid.transform, sha + chip.source_hash))
            taken.append(position)
        records = shard.close() if taken else {}
    receipt = ShardReceipt(
        records=records,
        taken=tuple(taken),
        numbers=np.array([row[0] for row in rows], np.int64).reshape(-1, len(columns)),
        transform=np.array([row[1] for row in rows], np.float64).reshape(-1, 6),
        hashes=np.frombuffer(b"".join(row[2] for row in rows), np.uint8).reshape(-1, 2, 32),
        crs=tuple(crs),
        facts=tuple(map(json.loads, facts)),
        histograms={name: encoder.counts.freeze() for name, encoder in reader.encoders.items()},
        sizes=sizes,
        refused=refused,
        notes={
            f"{name}: pixels of {value:g}, which no tag declares, were not measured": count
            for name, encoder in reader.encoders.items()
            for value, count in encoder.fills.items()
        },
    )
    write_json(Folder(Path(work.folder).parent), work.receipt, _to_json(receipt))
    return receipt


def _numbers(chip: Chip, stamp: list[int], crs: dict[str, int], facts: dict[str, int]) -> dict[str, int]:
    """Return the numbers of a chip's row but for its place, which its shard tells."""
    about = chip.facts.attrs()
    about.pop(cv.DATETIME, None)
    said = json.dumps({**about, cv.SOURCE_REPRESENTATION: chip.representations}, sort_keys=True)
    wkt = chip.grid.crs_wkt
    return {
        **chip.numbers,
        "part": 0,
        "row": 0,
        "crs": ABSENT if wkt is None else crs.setdefault(wkt, len(crs)),
        "facts": facts.setdefault(said, len(facts)),
        "bytes": stamp[0],
        "modified": stamp[1],
    }


def layer_stamps(chips: Chips, position: int, names: Iterable[str]) -> dict[str, int]:
    """Return ``bytes_mask`` and ``modified_mask``, nanoseconds since 1970, ... of a chip's files of some layers."""
    out: dict[str, int] = {}
    for name in names:
        size, modified = chips.layer_stamps[name][position].tolist()
        out |= {f"bytes_{name}": size, f"modified_{name}": modified}
    return out


def _keep_known(work: ShardOfWork, shard: ShardOfChips) -> None:
    """Write the chips that a shard of the store holds into the new one, checked."""
    known = Collection(Store(work.place), work.key.split("/")[1])
    number = next(i for i, p in enumerate(known.contents.parts) if p.name == work.part.name)
    for array in known.contents.stored:
        manifest = known.manifest(number, array)
        layout = known.layout(number, array)
        like = np.empty(layout.chunk[1:], layout.dtype)
        entries, grid = manifest.chunks[work.shard], (work.part.per_shard, 1)
        key, codec = f"{layout.path}/{shard_key(work.shard)}", get_codec(layout.codec or "none")
        if not entries["size"].any():
            continue
        for at, _, pixels in read_chunks(work.place, key, grid, codec, like, None, entries):
            shard.append(at, {array: pixels.reshape(like.shape)})


def _intact(work: ShardOfWork) -> ShardReceipt | None:
    """Return the receipt of a shard whose files are there as it says."""
    place = Folder(Path(work.folder).parent)
    try:
        receipt = _from_json(read_json(place, work.receipt))
        check_shard(Path(work.folder), work.part, work.shard, receipt.records)
    except (OSError, ValueError, KeyError, TypeError):  # damage is an OSError, too
        return None
    return receipt


def _to_json(receipt: ShardReceipt) -> dict[str, Any]:
    histograms = {
        name: [_packed_array(h.counts), *(getattr(h, k) for k in _OTHERS)]
        for name, h in receipt.histograms.items()
    }
    return {
        "records": {name: record.to_json() for name, record in receipt.records.items()},
        "taken": receipt.taken,
        **{name: _packed_array(getattr(receipt, name)) for name in ("numbers", "transform", "hashes")},
        "crs": receipt.crs,
        "facts": receipt.facts,
        "histograms": histograms,
        "sizes": list(receipt.sizes.items()),
        "refused": list(receipt.refused.items()),
        "notes": receipt.notes,
    }


def _from_json(document: Mapping[str, Any]) -> ShardReceipt:
    histograms = {
        name: Histogram(counts=_unpacked(counts), **dict(zip(_OTHERS, others, strict=True)))
        for name, (counts, *others) in document["histograms"].items()
    }
    return ShardReceipt(
        records={name: ShardRecord.from_json(record) for name, record in document["records"].items()},
        taken=tuple(document["taken"]),
        **{name: _unpacked(document[name]) for name in ("numbers", "transform", "hashes")},
        crs=tuple(document["crs"]),
        facts=tuple(document["facts"]),
        histograms=histograms,
        sizes={at: (size[0], size[1]) for at, size in document["sizes"]},
        refused=dict(document["refused"]),
        notes=document["notes"],
    )


def _packed_array(values: Array) -> list[Any]:
    text = base64.b64encode(zstd.compress(values.tobytes(), 1)).decode() if values.size else ""
    return [values.dtype.str, values.shape, text]


def _unpacked(packed: list[Any]) -> Array:
    dtype, shape, text = packed
    content = zstd.decompress(base64.b64decode(text)) if text else b""
    return np.frombuffer(content, dtype).reshape(shape)
