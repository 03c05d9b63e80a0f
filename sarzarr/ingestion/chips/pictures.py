"""Chips: the pictures below a folder, with their boxes, on their way into a store's sample set."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.ingestion.annotations import Annotation
from sarzarr.ingestion.chips.find import (
    ChipOptions,
    FoundAnnotations,
    SampleSource,
    find_samples,
    safe_stem,
    sample_annotations,
    sample_layout,
)
from sarzarr.ingestion.chips.pack import (
    SampleFiles,
    SamplePack,
    SampleReport,
    TellSamples,
    check_new,
    pack_readable,
    pack_samples,
    store_for,
)
from sarzarr.ingestion.chips.read import Pixels, read_sample
from sarzarr.store.boxes import Boxes, safe_name
from sarzarr.store.classes import moved_tables, read_classes
from sarzarr.store.samples import SampleSet
from sarzarr.store.store import Store

COLOURED: Final = "coloured"


@dataclass(frozen=True, kw_only=True)
class _Pictures:
    """The rows of a set of chips."""

    measures: ClassVar[Mapping[str, str]] = MappingProxyType({COLOURED: "uint8"})
    files: SampleFiles
    """Their files."""

    def pixels(self, start: int, stop: int) -> Iterator[Pixels | str]:
        for sample in self.files.sources(start, stop):
            try:
                yield read_sample(sample.below(self.files.base))
            except (UnsupportedRasterError, OSError) as error:
                yield str(error)

    def measure(self, pixels: Pixels) -> Mapping[str, int]:
        return {COLOURED: pixels.is_coloured}


def import_chips(
    folder: str | Path,
    store: Store | str | Path,
    *,
    options: ChipOptions | None = None,
    progress: TellSamples | None = None,
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
    found = FoundAnnotations(by_id={})

    def pack(some: Sequence[SampleSource]) -> SampleSet:
        nonlocal found
        here = {s.source for s in some}
        others = [s.source for s in sources if s.source not in here]
        others += [p.relative_to(base).as_posix() for one in refused for p in map(Path, one.files)]
        layout, found = sample_layout(some), sample_annotations(base, some, options, others)
        target, name = store_for(store), safe_name(options.name or safe_stem(base.resolve().name))
        check_new(target, name, replace=options.replace)
        boxes = _boxes(base, name, some, (found, options))
        return pack_samples(
            target,
            SamplePack(
                name=name,
                layout=layout,
                source=_Pictures(files=SampleFiles.of(base, some)),
                table=_table(some, found.by_id, boxes),
                fingerprint=json.dumps([asdict(s) for s in some]),
                boxes=boxes,
                classes_from=found.classes_from or base.name,
                replace=options.replace,
            ),
            progress,
        )

    made = pack_readable(sources, refused, pack, lambda s: base / s.source, strict=options.strict)
    boxes, place = made.boxes, made.store.place
    listed = read_classes(place).moved(found.classes, found.classes_from)
    return made, SampleReport(
        samples=len(made),
        coloured=int(made.table[COLOURED].sum()),
        annotated=int(made.table["annotated"].sum()),
        boxes=boxes.counts,
        rotated=boxes.turned,
        difficult=0 if boxes.difficult is None else int(boxes.difficult.sum()),
        moved=(*listed, *moved_tables(place)),
        unmatched=found.unmatched,
        refused=refused,
    )


def _boxes(
    base: Path,
    name: str,
    sources: Sequence[SampleSource],
    given: tuple[FoundAnnotations, ChipOptions],
) -> Boxes:
    """Return the boxes that annotations draw; `InvalidInputError` where none of them is inside its picture."""
    found, options = given
    boxes = Boxes.gathered(
        {i: a.drawn for i, a in found.by_id.items()},
        {s.id: (s.height, s.width) for s in sources},
        on=f"{cv.SAMPLES}/{name}",
        policy=options.policy,
        classes=found.classes,
    )
    if boxes.counts["given"] and not len(boxes):
        raise InvalidInputError(
            f"boxes inside their pictures were expected in {base.name!r}, got none among {boxes.counts['given']}. "
            "Check that they are in pixels of these pictures, or pass --annotations none."
        )
    return boxes


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
