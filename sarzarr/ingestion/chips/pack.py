"""Sample sets on their way into a store, with their boxes: resumable, in whole shards, all or nothing.

Finished shards and their receipts wait beside the store; the set enters it by one rename. A hundred
thousand samples become a few hundred files.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.errors import IngestError, InvalidInputError, UnsupportedRasterError
from sarzarr.files import locked, remove_partials, remove_tree
from sarzarr.ingestion.annotations import Annotation
from sarzarr.ingestion.chips.find import (
    ChipOptions,
    SampleSource,
    find_samples,
    safe_stem,
    sample_annotations,
    sample_layout,
)
from sarzarr.ingestion.chips.read import read_sample
from sarzarr.scenes.refusals import Refusals
from sarzarr.store.boxes import Boxes, known_classes, safe_name, write_boxes
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
from sarzarr.tasks import compute, workplace
from sarzarr.text import counted

log = logging.getLogger(__name__)
PARTS: Final = ("arrays", "receipts", cv.SAMPLES)
"""The folders that a set is gathered in."""


@dataclass(frozen=True, kw_only=True)
class SampleReport:
    """Counts of an import of samples."""

    samples: int
    """Samples in the set."""
    coloured: int
    """Samples (rows, columns, channels) whose channels differed, and became their middle one."""
    annotated: int
    """Samples with an annotation, of a box that was kept or of nothing."""
    boxes: Mapping[str, int]
    """``given``, ``kept``, ``repaired``, ``left_out``."""
    unmatched: tuple[str, ...]
    """Annotations of pictures that are not there."""
    refused: Refusals = field(default_factory=Refusals)
    """Pictures that are not in the set, and why."""


class _UnreadableError(Exception):
    """Pictures whose headers can be read, and whose pixels cannot."""

    def __init__(self, refused: Refusals) -> None:
        super().__init__(refused)
        self.refused = refused


def import_chips(
    folder: str | Path,
    store: Store | str | Path,
    *,
    options: ChipOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[SampleSet, SampleReport]:
    """Pack the pictures below a folder, with their boxes, into a store's sample set; return it and what was done.

    Interrupted, it is simply run again: shards that are done are not redone. Inside ``with Client(...)``
    the work is done by that cluster.

    The folder has PNG, JPEG and TIFF files (uint8, uint16 or float32), at any depth, all of one dtype; with VOC XML
    of the same stems, one or several COCO JSON, or YOLO text of the same stems (classes in ``classes.txt``). A store
    that is not there is made. ``progress`` is called with (samples done, samples) as shards are finished. Pictures
    that cannot be read, or are not taken, do not keep the others out: they are in ``refused`` of the report.

    Raises `InvalidInputError` where there is no picture, two claim one id, annotations are of several formats, a
    box is refused, or the store has a set of that name; `UnsupportedRasterError` where pictures are of several
    dtypes, or none can be read, or with ``strict`` one cannot; `IngestError` where another process imports the same
    set.
    """
    options = options or ChipOptions()
    base = Path(folder).absolute()  # workers may stand elsewhere
    sources, refused = find_samples(base)
    while True:
        if not sources or (options.strict and refused):
            raise refused.error()
        try:
            made, done = _import_readable(base, store, sources, options, progress)
        except _UnreadableError as error:
            refused.extend(error.refused)
            gone = {file for one in refused for file in one.files}
            sources = [sample for sample in sources if base / sample.source not in gone]
        else:
            refused.tell()
            return made, replace(done, refused=refused)


def _import_readable(
    base: Path,
    store: Store | str | Path,
    sources: Sequence[SampleSource],
    options: ChipOptions,
    progress: Callable[[int, int], None] | None,
) -> tuple[SampleSet, SampleReport]:
    """Pack pictures as `import_chips`; `_UnreadableError` where the pixels of some cannot be read."""
    layout = sample_layout(sources)
    found = sample_annotations(base, sources, options)
    root = store.root if isinstance(store, Store) else Path(store)
    with writing(root, patience=PATIENCE):
        target = create_store(root)
    name = safe_name(options.name or safe_stem(base.resolve().name))
    if name in sample_sets(target) and not options.replace:
        raise InvalidInputError(
            f"a new set of samples was expected, got {name!r}, which is there. "
            "Name another with --name, or pass --replace."
        )
    _check_boxes(target, name)
    annotations = found.by_id
    boxes = Boxes.gathered(
        {i: (a.boxes, a.labels) for i, a in annotations.items()},
        {s.id: (s.height, s.width) for s in sources},
        on=f"{cv.SAMPLES}/{name}",
        policy=options.policy,
        classes=known_classes(target, first=name, more=found.classes),
    )
    if boxes.counts["given"] and not len(boxes):
        raise InvalidInputError(
            f"boxes inside their pictures were expected in {base.name!r}, got none among {boxes.counts['given']}. "
            "Check that they are in pixels of these pictures, or pass --annotations none."
        )
    with _staging(target, name, sources) as staging:
        staged = [staging / part for part in (*PARTS, "fingerprint")]
        receipts, layout = _pack(base, staging, sources, layout, progress)
        table = _table(sources, annotations, boxes)
        with writing(target.root, patience=PATIENCE), changed_once(target, leaves=staged) as draft:
            _enter((draft, name), staging, layout, receipts, table, boxes)
    log.info("%s, samples/%s: %s committed", target.place.name, name, counted(len(sources), "sample"))
    return open_samples(target, name), SampleReport(
        samples=len(sources),
        coloured=sum(r.coloured for r in receipts),
        annotated=int(table["annotated"].sum()),
        boxes=boxes.counts,
        unmatched=found.unmatched,
    )


@dataclass(frozen=True, kw_only=True)
class _Receipt:
    """The result of one shard of samples."""

    shard: int
    """Its number."""
    image: ShardRecord = NO_FILE
    """Its file of pixels."""
    flags: ShardRecord = NO_FILE
    """Its file of flags."""
    coloured: int = 0
    """Samples in colour."""
    values: tuple[int, ...] = ()
    """What measured pixels of integers have: `values_of`."""
    refused: tuple[tuple[str, str], ...] = ()
    """Pictures that could not be read, and why; nothing is written then."""


@contextmanager
def _staging(store: Store, name: str, chips: Sequence[SampleSource]) -> Iterator[Path]:
    """Yield the folder beside the store where this set is gathered; what another selection left is thrown away."""
    root = store.root.resolve()
    folder = root.with_name(f"{root.name}.samples-{name}")

    def busy(holder: str) -> Exception:
        return IngestError(
            f"one import of {name!r} at a time was expected, got another: {holder}. Wait for it to end."
        )

    with telling_no_room(root), locked(folder, busy=busy):
        parts = [cv.SCHEMA_VERSION, *(asdict(c) for c in chips)]
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
    base: Path, staging: Path, samples: Sequence[SampleSource], layout: SampleLayout, progress: Any
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
        receipts = _pack_shards(base, staging, samples[: shards * layout.per_shard], layout, progress)
        taken.update(*(receipt.values for receipt in receipts))
        if (free := layout.filled(np.array([*taken], layout.dtype))) != layout:
            layout = free
        elif len(receipts) == layout.shards:
            return receipts, layout
        shards = layout.shards


def _pack_shards(
    base: Path, staging: Path, samples: Sequence[SampleSource], layout: SampleLayout, progress: Any
) -> list[_Receipt]:
    """Write every shard of the first samples that has no intact receipt; return all of theirs."""
    shards = range(math.ceil(len(samples) / layout.per_shard))
    known = (_intact(staging, layout, shard) for shard in shards)
    done = {receipt.shard: receipt for receipt in known if receipt is not None}
    per = layout.per_shard
    tasks = [
        (_pack_shard, (base, staging, layout, shard, samples[shard * per : (shard + 1) * per]))
        for shard in shards
        if shard not in done
    ]

    def take(receipt: _Receipt) -> None:
        done[receipt.shard] = receipt
        if progress is not None:
            progress(min(len(done) * per, layout.count), layout.count)

    compute(tasks, take)
    refused = Refusals()
    for source, why in (pair for receipt in done.values() for pair in receipt.refused):
        refused.add([base / source], why)
    if refused:
        raise _UnreadableError(refused)
    for receipt in done.values():
        _check_files(staging, layout, receipt)
    return [done[shard] for shard in shards]


def _pack_shard(
    base: Path, staging: Path, layout: SampleLayout, shard: int, samples: Sequence[SampleSource]
) -> _Receipt:
    """Read the samples of one shard and write it, whole; those that cannot be read come back as ``refused``."""
    coloured, values, refused = 0, np.empty(0, layout.dtype), list[tuple[str, str]]()
    image, flags = writers = sample_writers(staging / "arrays", layout, shard)
    with image, flags:
        for row, sample in enumerate(samples):
            try:
                pixels = read_sample(sample.below(base))
            except (UnsupportedRasterError, OSError) as error:
                refused.append((sample.source, str(error)))
                continue
            coloured += pixels.is_coloured
            if values.dtype.kind == "u":
                values = values_of(np.concatenate([values, values_of(pixels.values[pixels.is_measured])]))
            append_picture(writers, row, pixels.values, pixels.is_measured, layout)
        if refused:
            return _Receipt(shard=shard, refused=tuple(refused))
        taken = tuple(values.tolist())
        receipt = _Receipt(
            shard=shard, image=image.close(), flags=flags.close(), coloured=coloured, values=taken
        )
    document: dict[str, Any] = {"image": receipt.image.to_json(), "flags": receipt.flags.to_json()}
    document |= {"coloured": coloured, "values": taken}
    write_json(Folder(staging), _receipt_key(layout, shard), document)
    return receipt


def _receipt_key(layout: SampleLayout, shard: int) -> str:
    """Return the key of a shard's receipt: with another fill it is another shard."""
    return f"receipts/{layout.stored}-{layout.fill}-{shard}.json"


def _intact(staging: Path, layout: SampleLayout, shard: int) -> _Receipt | None:
    """Return the receipt of a shard whose files are there as it says."""
    try:
        document = read_json(Folder(staging), _receipt_key(layout, shard))
        image, flags = (ShardRecord.from_json(document[k]) for k in ("image", "flags"))
        values, coloured = tuple(document["values"]), int(document["coloured"])
        receipt = _Receipt(shard=shard, image=image, flags=flags, coloured=coloured, values=values)
        _check_files(staging, layout, receipt)
    except (OSError, ValueError, KeyError, TypeError):  # damage is an OSError, too
        return None
    return receipt


def _check_files(staging: Path, layout: SampleLayout, receipt: _Receipt) -> None:
    """Raise `CorruptStoreError` unless both files of a shard are here as their receipt says."""
    for array, record in zip(ARRAYS, (receipt.image, receipt.flags), strict=True):
        check_written(staging / "arrays" / array, {f"c/{receipt.shard}/0/0": record}, layout.grid)


def _table(
    samples: Sequence[SampleSource], annotations: Mapping[str, Annotation], boxes: Boxes
) -> xr.Dataset:
    """Return the set's columns; a picture all of whose boxes were left out is not annotated as an empty one."""
    shown = np.bincount(boxes.owner, minlength=len(samples)) > 0
    empty = [s.id in annotations and not len(annotations[s.id].labels) for s in samples]
    folders = [Path(s.source).parent.as_posix() for s in samples]
    columns = {
        "id": np.array([s.id for s in samples], object),
        "source": np.array([s.source for s in samples], object),
        "folder": np.array(["" if f == "." else f for f in folders], object),
        "height": np.array([s.height for s in samples], np.int32),
        "width": np.array([s.width for s in samples], np.int32),
        "annotated": np.asarray(shown | empty, np.uint8),
    }
    attrs = {"sizes": len({(s.height, s.width) for s in samples})}
    return xr.Dataset({name: ("sample", values) for name, values in columns.items()}, attrs=attrs)


def _check_boxes(store: Store, name: str) -> None:
    """Refuse the name of a table of boxes on scenes: a set's boxes have its own name."""
    table, own = f"{cv.BOXES}/{name}", f"{cv.SAMPLES}/{name}"
    known = read_node(store.place, table)["attributes"]["on"] if has_node(store.place, table) else own
    if known != own:
        raise InvalidInputError(
            f"a name that no table of boxes has was expected, got {name!r}, whose boxes are on {known}. "
            "Name another with --name."
        )


def _enter(
    target: tuple[Store, str],
    staging: Path,
    layout: SampleLayout,
    receipts: Sequence[_Receipt],
    table: xr.Dataset,
    boxes: Boxes,
) -> None:
    store, name = target
    key = f"{cv.SAMPLES}/{name}"
    group, arrays = staging / key, Folder(staging / "arrays", key)
    write_table(Folder(staging), key, table)
    write_sample_documents(arrays, layout, [(r.image, r.flags) for r in receipts])
    ensure_groups(store.place, cv.SAMPLES)
    store.place.swap(group, key)
    for array in ARRAYS:
        store.place.swap(arrays.path / array, f"{key}/{array}")
    write_boxes(store, boxes, name)
