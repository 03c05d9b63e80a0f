"""Pack pictures that came alone, with their boxes, into a store: resumable, whole shards, all or nothing.

Finished shards and their receipts wait beside the store; the set enters it by one rename. A hundred
thousand chips become a few hundred files.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import IngestError, InvalidInputError, UnsupportedRasterError
from sarzarr.files import locked, remove_partials, remove_tree, swap_in, swap_out
from sarzarr.ingestion.annotations import Annotation
from sarzarr.ingestion.chips.find import (
    ChipOptions,
    ChipSource,
    chip_annotations,
    find_chips,
    layout_of,
    probe_chips,
    safe_stem,
)
from sarzarr.ingestion.chips.pictures import read_picture
from sarzarr.store.boxes import Boxes, safe_name, write_boxes
from sarzarr.store.codecs import get_codec
from sarzarr.store.commit import consolidate
from sarzarr.store.documents import group_document, read_json, write_json
from sarzarr.store.samples import IMAGE, SampleLayout, SampleSet, codec_of, open_samples, sample_sets
from sarzarr.store.shards import ShardRecord, ShardWriter, digest_of
from sarzarr.store.store import Store, create_store
from sarzarr.store.tables import write_table
from sarzarr.tasks import compute
from sarzarr.text import listed


@dataclass(frozen=True, kw_only=True)
class ChipReport:
    """What an import did."""

    samples: int
    """Chips in the set."""
    coloured: int
    """Chips whose channels differed, and became their middle one."""
    annotated: int
    """Chips that an annotation speaks of, if only to say that there is nothing."""
    boxes: Mapping[str, int]
    """``given``, ``kept``, ``repaired``, ``left_out``."""
    unmatched: tuple[str, ...]
    """Annotations of pictures that are not there."""


# ------------------------------------------------------------------ the import
def import_chips(
    folder: str | Path,
    store: Store | str | Path,
    *,
    options: ChipOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[SampleSet, ChipReport]:
    """Pack the pictures below a folder, with their boxes, into a store's sample set; return it and what was done.

    Interrupted, it is simply run again: shards that are done are not redone. Inside ``with Client(...)``
    the work is done by that cluster.

    Parameters
    ----------
    folder
        PNG, JPEG and TIFF files, at any depth, all of one dtype; with VOC XML of the same stems, one or
        several COCO JSON, or YOLO text of the same stems (classes in ``classes.txt``).
    store
        A store, or the path of one, which is made where there is none.
    options
        See `ChipOptions`.
    progress
        Called with (chips done, chips) as shards are finished.

    Raises
    ------
    InvalidInputError
        There is no picture, two claim one id, annotations are of several formats, a box is refused, or
        the store has a set of that name.
    UnsupportedRasterError
        Pictures are of several dtypes, or of one that is not taken.
    IngestError
        A picture could not be read, or another process imports the same set.
    """
    options = options or ChipOptions()
    base = Path(folder)
    target = store if isinstance(store, Store) else create_store(store)
    name = safe_name(options.name or safe_stem(base.resolve().name))
    if name in sample_sets(target) and not options.replace:
        raise InvalidInputError(
            f"a new set of samples was expected, got {name!r}, which is there. "
            "Name another with --name, or pass --replace."
        )
    _check_boxes(target, name)
    sources = probe_chips(base, find_chips(base))
    layout = layout_of(sources)
    said, unmatched = chip_annotations(base, sources, options)
    boxes = Boxes.gathered(
        {i: (a.boxes, a.labels) for i, a in said.items()},
        {s.id: (s.height, s.width) for s in sources},
        on=f"{cv.SAMPLES}/{name}",
        policy=options.policy,
    )
    with _staging(target, name, sources) as staging:
        receipts = _pack(base, staging, sources, layout, progress)
        _enter((target, name), staging, layout, receipts, _table(sources, said), boxes)
    made = open_samples(target, name)
    coloured = sum(r.coloured for r in receipts)
    report = ChipReport(
        samples=len(sources), coloured=coloured, annotated=len(said), boxes=boxes.counts, unmatched=unmatched
    )
    return made, report


# ------------------------------------------------------------------ packing
@dataclass(frozen=True, kw_only=True)
class _Receipt:
    """What became of one shard of chips."""

    shard: int
    image: ShardRecord
    flags: ShardRecord
    coloured: int
    problems: tuple[str, ...] = ()


@contextmanager
def _staging(store: Store, name: str, chips: Sequence[ChipSource]) -> Iterator[Path]:
    """Yield the folder beside the store where this set is gathered; what another selection left is thrown away."""
    folder = store.root.with_name(f"{store.root.name}.samples-{name}")
    busy = IngestError(f"one import of {name!r} at a time was expected, got another. Wait for it to end.")
    with locked(folder, busy=busy):
        fingerprint = sha256(json.dumps([asdict(c) for c in chips]).encode()).hexdigest()
        said = folder / "fingerprint"
        if not said.exists() or said.read_text() != fingerprint:
            for part in ("arrays", "receipts", "group"):
                remove_tree(folder / part)
            said.write_text(fingerprint)
        remove_partials(folder)
        yield folder
        remove_tree(folder)


def _pack(
    base: Path, staging: Path, chips: Sequence[ChipSource], layout: SampleLayout, progress: Any
) -> list[_Receipt]:
    """Write every shard that has no intact receipt; return all receipts."""
    done: dict[int, _Receipt] = {}
    (staging / "receipts").mkdir(exist_ok=True)
    for shard in range(layout.shards):
        receipt = _intact(staging, layout, shard)
        if receipt is not None:
            done[shard] = receipt
    per = layout.per_shard
    tasks = [
        (_pack_shard, (str(base), str(staging), layout, shard, list(chips[shard * per : (shard + 1) * per])))
        for shard in range(layout.shards)
        if shard not in done
    ]

    def take(receipt: _Receipt) -> None:
        done[receipt.shard] = receipt
        if progress is not None:
            progress(min(len(done) * per, len(chips)), len(chips))

    compute(tasks, take)
    if problems := [p for r in done.values() for p in r.problems]:
        raise IngestError(listed("pictures that can be read", sorted(problems)) + "\nWhat was done is kept.")
    return [done[shard] for shard in range(layout.shards)]


def _pack_shard(
    base: str, staging: str, layout: SampleLayout, shard: int, chips: Sequence[ChipSource]
) -> _Receipt:
    """Read the chips of one shard and write it, whole; a chip that cannot be read comes back as a problem."""
    arrays = Path(staging) / "arrays"
    key = f"c/{shard}/0/0"
    image = ShardWriter(arrays / IMAGE / key, layout.grid, get_codec(codec_of(layout.dtype)))
    flags = ShardWriter(arrays / (IMAGE + cv.FLAGS_SUFFIX) / key, layout.grid, get_codec(cv.FLAGS_CODEC))
    coloured = 0
    with image, flags:
        for row, chip in enumerate(chips):
            try:
                picture = read_picture(Path(base) / chip.source)
            except (UnsupportedRasterError, OSError) as error:
                image.abort()
                flags.abort()
                nothing = ShardRecord(0, 0, 0)
                return _Receipt(
                    shard=shard,
                    image=nothing,
                    flags=nothing,
                    coloured=0,
                    problems=(f"{chip.source}: {error}",),
                )
            coloured += picture.is_coloured
            _append(image, flags, row, picture.pixels, layout)
        receipt = _Receipt(shard=shard, image=image.close(), flags=flags.close(), coloured=coloured)
    text = json.dumps(
        {k: list(vars(getattr(receipt, k)).values()) for k in ("image", "flags")} | {"coloured": coloured}
    )
    write_json(Path(staging) / "receipts" / f"{shard}.json", json.loads(text))
    return receipt


def _append(image: ShardWriter, flags: ShardWriter, row: int, pixels: Array, layout: SampleLayout) -> None:
    """Add one picture, padded to whole chunks; what is padding alone has no pixels, only flags."""
    height, width = pixels.shape
    size = cv.CHUNK
    for i in range(layout.chunks[0]):
        for j in range(layout.chunks[1]):
            part = pixels[i * size : (i + 1) * size, j * size : (j + 1) * size]
            if part.shape == (size, size):
                image.append(row, i * layout.chunks[1] + j, np.ascontiguousarray(part))
                continue
            tile = np.zeros((size, size), pixels.dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            coded = np.full((size, size), cv.Flag.NODATA, np.uint8)
            coded[: max(height - i * size, 0), : max(width - j * size, 0)] = cv.Flag.VALID
            image.append(row, i * layout.chunks[1] + j, tile)
            flags.append(row, i * layout.chunks[1] + j, coded)


def _intact(staging: Path, layout: SampleLayout, shard: int) -> _Receipt | None:
    """Return the receipt of a shard whose files are there as it says."""
    place = staging / "receipts" / f"{shard}.json"
    try:
        said = json.loads(place.read_text())
        records = {k: ShardRecord(*said[k]) for k in ("image", "flags")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    for array, record in ((IMAGE, records["image"]), (IMAGE + cv.FLAGS_SUFFIX, records["flags"])):
        found = digest_of(staging / "arrays" / array / f"c/{shard}/0/0", layout.grid)
        if found != (record.size, record.digest):
            return None
    return _Receipt(
        shard=shard, image=records["image"], flags=records["flags"], coloured=int(said["coloured"])
    )


# ------------------------------------------------------------------ into the store
def _table(chips: Sequence[ChipSource], said: Mapping[str, Annotation]) -> xr.Dataset:
    folders = [Path(c.source).parent.as_posix() for c in chips]
    return xr.Dataset(
        {
            "id": ("sample", np.array([c.id for c in chips], dtype="T")),
            "source": ("sample", np.array([c.source for c in chips], dtype="T")),
            "folder": ("sample", np.array(["" if f == "." else f for f in folders], dtype="T")),
            "height": ("sample", np.array([c.height for c in chips], np.int32)),
            "width": ("sample", np.array([c.width for c in chips], np.int32)),
            "annotated": ("sample", np.array([c.id in said for c in chips], np.uint8)),
        },
        attrs={"sizes": len({(c.height, c.width) for c in chips})},
    )


def _check_boxes(store: Store, name: str) -> None:
    """Refuse the name of a table of boxes on scenes: a set's boxes have its own name."""
    place, on = store.root / cv.BOXES / name / "zarr.json", f"{cv.SAMPLES}/{name}"
    if place.exists() and (there := read_json(place)["attributes"]["on"]) != on:
        raise InvalidInputError(
            f"a name that no table of boxes has was expected, got {name!r}, whose boxes are on {there}. "
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
    """Let a set that is whole into the store, under its name."""
    store, name = target
    group = staging / "group"
    write_table(group, table)
    for array, flags in ((IMAGE, False), (IMAGE + cv.FLAGS_SUFFIX, True)):
        place = staging / "arrays" / array
        place.mkdir(parents=True, exist_ok=True)
        records = [r.flags if flags else r.image for r in receipts]
        shards = {f"c/{r.shard}/0/0": list(vars(x).values()) for r, x in zip(receipts, records, strict=True)}
        write_json(place / cv.MANIFEST, {"shards": shards})
        write_json(place / "zarr.json", layout.document(flags=flags))
        swap_in(place, group / array)
    folder = store.root / cv.SAMPLES
    if not (folder / "zarr.json").exists():
        write_json(folder / "zarr.json", group_document())
    if (folder / name).exists():  # the old ones first, so that no picture is ever seen with another's boxes
        swap_out(store.root / cv.BOXES / name)
        swap_in(group, folder / name)
        write_boxes(store, boxes, name)
    else:
        write_boxes(store, boxes, name)
        swap_in(group, folder / name)
    consolidate(store)
