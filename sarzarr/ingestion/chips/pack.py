"""Sample sets on their way into a store, with their boxes: resumable, in whole shards, all or nothing.

Finished shards and their receipts wait beside the store; the set enters it by one rename. A hundred
thousand samples become a few hundred files. `pack_samples` is the one way in, whatever format they come from.
"""

import base64
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeVar

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import IngestError, InvalidInputError
from sarzarr.files import locked, remove_partials, remove_tree
from sarzarr.ingestion.chips.find import SampleSource
from sarzarr.ingestion.chips.read import Pixels
from sarzarr.scenes.refusals import Refusals
from sarzarr.store.boxes import Boxes, safe_name, write_boxes
from sarzarr.store.classes import MovedClass
from sarzarr.store.commit import changed_once
from sarzarr.store.documents import ensure_groups, has_node, read_json, read_node, write_json
from sarzarr.store.free_values import values_of
from sarzarr.store.journal import PATIENCE, telling_no_room, writing
from sarzarr.store.manifest import ShardRecord
from sarzarr.store.place import Folder
from sarzarr.store.sample_files import ARRAYS, append_picture, sample_writers, write_sample_documents
from sarzarr.store.samples import SampleLayout, SampleSet, open_samples, sample_sets
from sarzarr.store.shard_job import NO_FILE, check_written
from sarzarr.store.store import Store, create_store
from sarzarr.store.tables import write_table
from sarzarr.tasks import TOKEN, compute, workplace
from sarzarr.text import counted

log = logging.getLogger(__name__)
TellSamples = Callable[[int, int], None]
S = TypeVar("S")
PARTS: Final = ("arrays", "receipts", cv.SAMPLES)
"""The folders that a set is gathered in."""
COLUMNS: Final = ("id", "source", "height", "width")
"""The columns that every set has."""


class SampleRows(Protocol):
    """Pictures by the number of their row, wherever they come from. It pickles, and holds nothing open."""

    @property
    def measures(self) -> Mapping[str, str]:
        """The dtype of each column that is measured on the pixels."""

    def pixels(self, start: int, stop: int) -> Iterator[Pixels | str]:
        """Yield the pictures of rows start to stop - 1, one at a time; in the place of an unreadable one, why."""

    def measure(self, pixels: Pixels) -> Mapping[str, Any]:
        """Return a number for each of `measures`, of one picture."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SamplePack:
    """A set of samples to be packed."""

    name: str
    """The set's."""
    layout: SampleLayout
    """Its cut; the fill becomes one that no pixel has."""
    source: SampleRows
    """The pictures (rows, columns)."""
    table: xr.Dataset
    """What is known of each sample beforehand, a row each: `COLUMNS` and others; height and width in pixels."""
    fingerprint: str
    """What pictures and columns depend on: what was packed with another one before is thrown away."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """JSON attributes of the set and of its pictures: what their numbers mean."""
    boxes: Boxes | None = None
    """The boxes on the samples; none if left out."""
    classes_from: str = ""
    """The list that names their classes, or the set that shows them; their table if left out."""
    replace: bool = False
    """Put the set in the place of one of that name."""
    beside: Callable[[Store], None] | None = None
    """Writes into the draft of a store what enters it with the set, such as its splits."""


@dataclass(frozen=True, kw_only=True)
class SampleReport:
    """Counts of an import of samples."""

    samples: int
    """Samples in the set."""
    coloured: int = 0
    """Samples (rows, columns, channels) whose channels differed, and became their middle one."""
    annotated: int
    """Samples with an annotation, of a box that was kept or of nothing."""
    boxes: Mapping[str, int]
    """``given``, ``kept``, ``repaired``, ``left_out``."""
    rotated: int = 0
    """Boxes that are kept with four corners, as they do not stand upright."""
    difficult: int = 0
    """Boxes that are kept and called difficult."""
    moved: tuple[MovedClass, ...] = ()
    """Classes that their list, or an older table of the store, numbers otherwise than the store."""
    unmatched: tuple[str, ...] = ()
    """Annotations of pictures that are not there, which were left out as asked."""
    refused: Refusals = field(default_factory=Refusals)
    """Pictures that are not in the set, and why."""


@dataclass(frozen=True, kw_only=True)
class SampleFiles:
    """The files of samples, as one text: it crosses to a process faster than a list."""

    base: Path
    """The folder that they are below."""
    listing: str
    """``bytes nanoseconds path`` of each, NUL between them."""

    @classmethod
    def of(cls, base: Path, sources: Sequence[SampleSource]) -> Self:
        """Return the files of some samples, in their order."""
        return cls(base=base, listing="\0".join(" ".join((*map(str, s.stamp), s.source)) for s in sources))

    def sources(self, start: int, stop: int) -> Iterator[SampleSource]:
        """Yield the files of rows start to stop - 1, without their ids."""
        for file in self.listing.split("\0")[start:stop]:
            size, changed, source = file.split(" ", 2)
            yield SampleSource(id="", source=source, stamp=(int(size), int(changed)))


class UnreadableSamplesError(IngestError):
    """Samples whose pixels could not be read: nothing was written."""

    def __init__(self, rows: Mapping[int, str]) -> None:
        row, why = next(iter(rows.items()))
        super().__init__(
            f"readable samples were expected, got {len(rows)} others, the first row {row}: {why}"
        )
        self.rows = dict(rows)


def pack_samples(
    store: Store | str | Path, pack: SamplePack, progress: TellSamples | None = None
) -> SampleSet:
    """Pack samples into a store's set (samples, rows, columns), and return it; a store that is not there is made.

    Interrupted, it is simply run again: shards that are done are not redone, and the bytes are the same. Inside
    ``with Client(...)`` the work is done by that cluster. A task holds a picture at a time. ``progress`` is called
    with (samples done, samples) as shards are finished.

    Raises `InvalidInputError` where the store has a set or boxes of that name; `UnreadableSamplesError` where
    pictures cannot be read; `IngestError` where another process packs the same set.
    """
    target = store_for(store)
    name, layout = safe_name(pack.name), pack.layout
    check_new(target, name, replace=pack.replace)
    if (sizes := pack.table.sizes["sample"]) != layout.count or not {*COLUMNS} <= {*pack.table}:
        raise InvalidInputError(
            f"{layout.count} rows of {', '.join(COLUMNS)} were expected, got {sizes} of "
            f"{', '.join(map(str, pack.table))}."
        )
    with _staging(target, name, pack) as staging:
        staged = [staging / part for part in (*PARTS, "fingerprint")]
        receipts, layout = _pack(pack.source, staging, layout, progress)
        table = pack.table.assign(
            {
                column: ("sample", np.concatenate([r.measured[column] for r in receipts]))
                for column in pack.source.measures
            }
        ).assign_attrs(pack.about)
        boxes = pack.boxes if pack.boxes is not None else _no_boxes(name, pack.table)
        with writing(target.root, patience=PATIENCE), changed_once(target, leaves=staged) as draft:
            _enter(draft, staging, pack, layout, receipts, table, boxes)
    log.info("%s, samples/%s: %s committed", target.place.name, name, counted(layout.count, "sample"))
    return open_samples(target, name)


def pack_readable(
    sources: Sequence[S],
    refused: Refusals,
    pack: Callable[[Sequence[S]], SampleSet],
    file_of: Callable[[S], Path],
    *,
    strict: bool,
) -> SampleSet:
    """Return what ``pack`` makes of the sources that can be read; the others are ``refused``, by their file.

    Raises the error of what is refused where nothing is left, or with ``strict`` something is.
    """
    while True:
        if not sources or (strict and refused):
            raise refused.error()
        try:
            made = pack(sources)
        except UnreadableSamplesError as error:
            for row, why in error.rows.items():
                refused.add([file_of(sources[row])], why)
            sources = [source for row, source in enumerate(sources) if row not in error.rows]
        else:
            refused.tell()
            return made


def store_for(store: Store | str | Path) -> Store:
    """Return the store of that path, made if it is not there."""
    root = store.root if isinstance(store, Store) else Path(store)
    with writing(root, patience=PATIENCE):
        return create_store(root)


def check_new(store: Store, name: str, *, replace: bool) -> None:
    """Refuse the name of a set that is there, unless it is replaced, and of a table of boxes on scenes."""
    if name in sample_sets(store) and not replace:
        _sweep(_beside(store, name))
        raise InvalidInputError(
            f"a new set of samples was expected, got {name!r}, which is there. "
            "Name another with --name, or pass --replace."
        )
    table, own = f"{cv.BOXES}/{name}", f"{cv.SAMPLES}/{name}"
    known = read_node(store.place, table)["attributes"]["on"] if has_node(store.place, table) else own
    if known != own:
        raise InvalidInputError(
            f"a name that no table of boxes has was expected, got {name!r}, whose boxes are on {known}. "
            "Name another with --name."
        )


def _beside(store: Store, name: str) -> Path:
    root = store.root.resolve()
    return root.with_name(f"{root.name}.samples-{name}")


def _sweep(staging: Path) -> None:
    """Take away what an import left that was killed when its set had entered the store; what waits stays."""
    if staging.exists() and not any((staging / part).exists() for part in PARTS):
        with suppress(BlockingIOError), locked(staging, busy=BlockingIOError):
            remove_partials(staging)
            for left in (TOKEN, "fingerprint"):
                (staging / left).unlink(missing_ok=True)


def _no_boxes(name: str, table: xr.Dataset) -> Boxes:
    sizes = zip(*(table[k].values.tolist() for k in ("height", "width")), strict=True)
    owners = dict(zip(table["id"].values.tolist(), sizes, strict=True))
    return Boxes.gathered({}, owners, on=f"{cv.SAMPLES}/{name}")


@dataclass(frozen=True, kw_only=True)
class _Receipt:
    """The result of one shard of samples."""

    shard: int
    """Its number."""
    image: ShardRecord = NO_FILE
    """Its file of pixels."""
    flags: ShardRecord = NO_FILE
    """Its file of flags."""
    measured: Mapping[str, Array] = field(default_factory=dict)
    """Its rows of the columns that are measured."""
    values: tuple[int, ...] = ()
    """What measured pixels of integers have: `values_of`."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Rows that could not be read, and why; nothing is written then."""


@contextmanager
def _staging(store: Store, name: str, pack: SamplePack) -> Iterator[Path]:
    """Yield the folder beside the store where this set is gathered; what another selection left is thrown away."""
    folder = _beside(store, name)

    def busy(holder: str) -> Exception:
        return IngestError(
            f"one import of {name!r} at a time was expected, got another: {holder}. Wait for it to end."
        )

    with telling_no_room(store.root.resolve()), locked(folder, busy=busy):
        parts = [cv.SCHEMA_VERSION, repr(asdict(pack.layout)), dict(pack.source.measures), pack.fingerprint]
        fingerprint = sha256(json.dumps(parts).encode()).hexdigest()
        known = folder / "fingerprint"
        if not known.exists() or known.read_text() != fingerprint:
            for part in PARTS:
                remove_tree(folder / part)
            known.write_text(fingerprint)
        remove_partials(folder)
        with workplace(folder):
            yield folder


def _pack(
    source: SampleRows, staging: Path, layout: SampleLayout, progress: TellSamples | None
) -> tuple[list[_Receipt], SampleLayout]:
    """Write every shard, with a fill that no pixel has; return all receipts, and the layout with that fill.

    The first shard shows most fills that are taken, and receipts of an earlier run do. Where another one has the
    fill, all are written anew.
    """
    (staging / "receipts").mkdir(exist_ok=True)
    folder, shards = Folder(staging), 1
    taken = {
        v for name in folder.children("receipts") for v in read_json(folder, f"receipts/{name}")["values"]
    }
    layout = layout.filled(np.array([*taken], layout.dtype))
    while True:
        receipts = _pack_shards(source, staging, layout, shards, progress)
        taken.update(*(receipt.values for receipt in receipts))
        if (free := layout.filled(np.array([*taken], layout.dtype))) != layout:
            layout = free
        elif len(receipts) == layout.shards:
            return receipts, layout
        shards = layout.shards


def _pack_shards(
    source: SampleRows, staging: Path, layout: SampleLayout, shards: int, progress: TellSamples | None
) -> list[_Receipt]:
    """Write each of the first shards that has no intact receipt; return all of theirs."""
    known = (_intact(staging, layout, shard) for shard in range(shards))
    done = {receipt.shard: receipt for receipt in known if receipt is not None}
    tasks = [(_pack_shard, (source, staging, layout, shard)) for shard in range(shards) if shard not in done]

    def take(receipt: _Receipt) -> None:
        done[receipt.shard] = receipt
        if progress is not None:
            progress(min(len(done) * layout.per_shard, layout.count), layout.count)

    compute(tasks, take)
    if refused := {row: why for shard in sorted(done) for row, why in done[shard].refused.items()}:
        raise UnreadableSamplesError(refused)
    for receipt in done.values():
        _check_files(staging, layout, receipt)
    return [done[shard] for shard in range(shards)]


def _pack_shard(source: SampleRows, staging: Path, layout: SampleLayout, shard: int) -> _Receipt:
    """Read the samples of one shard and write it, whole; those that cannot be read come back as ``refused``."""
    start, stop = shard * layout.per_shard, min((shard + 1) * layout.per_shard, layout.count)
    values, refused = np.empty(0, layout.dtype), dict[int, str]()
    rows: dict[str, list[Any]] = {column: [] for column in source.measures}
    image, flags = writers = sample_writers(staging / "arrays", layout, shard)
    with image, flags:
        for row, pixels in zip(range(start, stop), source.pixels(start, stop), strict=True):
            if isinstance(pixels, str):
                refused[row] = pixels
                continue
            if np.greater(pixels.values.shape, (layout.height, layout.width)).any():
                refused[row] = (
                    f"at most {layout.height} x {layout.width} pixels were expected, got {pixels.values.shape}."
                )
                continue
            if values.dtype.kind == "u":
                values = values_of(np.concatenate([values, values_of(pixels.values[pixels.is_measured])]))
            measured = source.measure(pixels)
            for column, numbers in rows.items():
                numbers.append(measured[column])
            append_picture(writers, row - start, pixels.values, pixels.is_measured, layout)
        if refused:
            return _Receipt(shard=shard, refused=refused)
        receipt = _Receipt(
            shard=shard,
            image=image.close(),
            flags=flags.close(),
            measured={column: np.array(rows[column], dtype) for column, dtype in source.measures.items()},
            values=tuple(values.tolist()),
        )
    write_json(Folder(staging), _receipt_key(layout, shard), _to_json(receipt))
    return receipt


def _receipt_key(layout: SampleLayout, shard: int) -> str:
    """Return the key of a shard's receipt: with another fill it is another shard."""
    return f"receipts/{layout.stored}-{layout.fill}-{shard}.json"


def _to_json(receipt: _Receipt) -> dict[str, Any]:
    columns = receipt.measured.items()
    return {
        "image": receipt.image.to_json(),
        "flags": receipt.flags.to_json(),
        "measured": {k: [v.dtype.str, base64.b64encode(v.tobytes()).decode()] for k, v in columns},
        "values": receipt.values,
    }


def _intact(staging: Path, layout: SampleLayout, shard: int) -> _Receipt | None:
    """Return the receipt of a shard whose files are there as it says."""
    try:
        document = read_json(Folder(staging), _receipt_key(layout, shard))
        image, flags = (ShardRecord.from_json(document[k]) for k in ("image", "flags"))
        columns = document["measured"].items()
        measured = {k: np.frombuffer(base64.b64decode(text), dtype) for k, (dtype, text) in columns}
        values = tuple(document["values"])
        receipt = _Receipt(shard=shard, image=image, flags=flags, measured=measured, values=values)
        _check_files(staging, layout, receipt)
    except (OSError, ValueError, KeyError, TypeError):  # damage is an OSError, too
        return None
    return receipt


def _check_files(staging: Path, layout: SampleLayout, receipt: _Receipt) -> None:
    """Raise `CorruptStoreError` unless both files of a shard are here as their receipt says."""
    for array, record in zip(ARRAYS, (receipt.image, receipt.flags), strict=True):
        check_written(staging / "arrays" / array, {f"c/{receipt.shard}/0/0": record}, layout.grid)


def _enter(
    store: Store,
    staging: Path,
    pack: SamplePack,
    layout: SampleLayout,
    receipts: Sequence[_Receipt],
    table: xr.Dataset,
    boxes: Boxes,
) -> None:
    key = f"{cv.SAMPLES}/{pack.name}"
    group, arrays = staging / key, Folder(staging / "arrays", key)
    write_table(Folder(staging), key, table)
    write_sample_documents(arrays, layout, [(r.image, r.flags) for r in receipts], pack.about)
    ensure_groups(store.place, cv.SAMPLES)
    store.place.swap(group, key)
    for array in ARRAYS:
        store.place.swap(arrays.path / array, f"{key}/{array}")
    write_boxes(store, boxes, pack.name, source=pack.classes_from)
    if pack.beside is not None:
        pack.beside(store)
