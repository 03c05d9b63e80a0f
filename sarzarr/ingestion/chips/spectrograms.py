"""Spectrogram samples on their way into a store's sample set: pictures, boxes, JSON, and versions of their split."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, RasterNotFoundError, UnsupportedRasterError
from sarzarr.ingestion.annotations import Annotation
from sarzarr.ingestion.chips.find import SampleSource
from sarzarr.ingestion.chips.npz import probe_spectrogram, read_sample_json, read_spectrogram
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
from sarzarr.ingestion.chips.read import Pixels
from sarzarr.scenes.refusals import Refusals
from sarzarr.splits.samples.backends import FolderBackend, SampleSplit, StoreBackend
from sarzarr.splits.samples.manager import SplitManager
from sarzarr.store.boxes import Boxes, safe_name
from sarzarr.store.samples import SampleLayout, SampleSet
from sarzarr.store.store import Store
from sarzarr.text import listed

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Spectrograms:
    """The rows of a set of spectrograms."""

    measures: ClassVar[Mapping[str, str]] = MappingProxyType({})
    files: SampleFiles
    """Their archives."""

    def pixels(self, start: int, stop: int) -> Iterator[Pixels | str]:
        for sample in self.files.sources(start, stop):
            try:
                values = read_spectrogram(sample.below(self.files.base))
            except (UnsupportedRasterError, OSError) as error:
                yield str(error)
            else:
                yield Pixels(values=values, is_measured=np.ones(values.shape, bool), is_coloured=False)

    def measure(self, _: Pixels) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True, eq=False, kw_only=True)
class _Sample:
    """One sample of a folder."""

    source: SampleSource
    """Its archive."""
    document: dict[str, Any]
    """Its JSON."""
    annotation: Annotation
    """Its boxes, pixels."""


def import_npz(
    folder: str | Path,
    store: Store | str | Path,
    *,
    name: str | None = None,
    replace: bool = False,
    strict: bool = False,
    progress: TellSamples | None = None,
) -> tuple[SampleSet, SampleReport]:
    """Pack ``signals/NAME`` of the older layout into a store's sample set; return it and what was done.

    Each ``samples/<id>.npz`` has the key ``spectrogram``, uint8 (1024, 1024), beside ``<id>.json`` with ``boxes`` in
    pixels: all of the JSON is kept, with keys that are not known. Versions of ``splits/`` enter with the set under
    their numbers, ids in their order, and the one that ``active.json`` names is active. Interrupted, it is run again.
    A sample that lacks a file or cannot be read is in ``refused`` of the report, and does not keep the others out.

    Parameters
    ----------
    name
        The set's; the folder's if left out.
    replace
        Put the set in the place of one of that name.
    strict
        Write nothing where a sample cannot be taken.

    Raises `RasterNotFoundError` where there is no such folder; `UnsupportedRasterError` or `InvalidInputError` where
    none can be taken, or with ``strict`` one cannot; `InvalidInputError` where the store has a set of that name, or
    another version of a number.
    """
    base = Path(folder).absolute()
    samples, refused = _find(base)
    splits, active = _splits(base)

    def pack(some: Sequence[_Sample]) -> SampleSet:
        target, own = store_for(store), safe_name(name or base.name)
        check_new(target, own, replace=replace)
        new = _new_splits(target, own, splits)

        def enter(draft: Store) -> None:
            backend = StoreBackend(draft)
            for split in new:
                backend.enter(own, split)
            if active:
                backend.point_at(own, active)

        boxes = Boxes.gathered(
            {s.source.id: (s.annotation.boxes, s.annotation.labels) for s in some},
            {s.source.id: (cv.SPECTROGRAM_SIDE, cv.SPECTROGRAM_SIDE) for s in some},
            on=f"{cv.SAMPLES}/{own}",
        )
        files = SampleFiles.of(base, [s.source for s in some])
        return pack_samples(
            target,
            SamplePack(
                name=own,
                layout=SampleLayout.of(
                    count=len(some), height=cv.SPECTROGRAM_SIDE, width=cv.SPECTROGRAM_SIDE, dtype="uint8"
                ),
                source=_Spectrograms(files=files),
                table=_table(some),
                fingerprint=files.listing,
                boxes=boxes,
                classes_from=base.name,
                replace=replace,
                beside=enter,
            ),
            progress,
        )

    made = pack_readable(samples, refused, pack, lambda s: base / s.source.source, strict=strict)
    report = SampleReport(samples=len(made), annotated=len(made), boxes=made.boxes.counts, refused=refused)
    return made, report


def _find(base: Path) -> tuple[list[_Sample], Refusals]:
    """Return the samples of a folder, sorted by id, and what is refused of it."""
    if not (base / "samples").is_dir():
        raise RasterNotFoundError(
            f"a folder with samples/<id>.npz and <id>.json was expected, got {str(base)!r}. Give signals/NAME itself."
        )
    found, refused, others = list[_Sample](), Refusals(), set[str]()
    whole = FolderBackend(base.parent).samples_in(base / "samples")
    for path in sorted(p for p in (base / "samples").iterdir() if p.suffix in (".npz", ".json")):
        if path.stem not in whole:
            refused.add(
                [path],
                "expected <id>.npz and <id>.json, ids of letters, digits, '.', '_' or '-', got one alone.",
            )
    for one in whole:
        path = base / "samples" / f"{one}.npz"
        with refused.leaving_out([path]):
            others.update(probe_spectrogram(path))
            document, annotation = read_sample_json(path.with_suffix(".json"))
            stat = path.stat()
            source = SampleSource(
                id=one, source=f"samples/{path.name}", stamp=(stat.st_size, stat.st_mtime_ns)
            )
            found.append(_Sample(source=source, document=document, annotation=annotation))
    if others:
        log.warning("%s: arrays that are not taken: %s", base.name, listed(sorted(others)))
    if not found and not refused:
        raise InvalidInputError(f"samples were expected in {base.name!r}, got none. Check the folder.")
    return found, refused


def _splits(base: Path) -> tuple[list[SampleSplit], int]:
    """Return the versions of a folder's split, ascending, and the active one's number; 0 for none."""
    if not (base / "splits").is_dir():
        return [], 0
    manager = SplitManager(base.parent.parent if base.parent.name == "signals" else base.parent)
    splits = [manager.read(base.name, version) for version in manager.get_versions(base.name)]
    return splits, manager.get_active_split_version(base.name)


def _new_splits(store: Store, name: str, splits: Sequence[SampleSplit]) -> list[SampleSplit]:
    """Return the versions that a store does not have; `InvalidInputError` where it has another of a number."""
    backend, new = StoreBackend(store), []
    for split in splits:
        if split.version not in backend.versions(name):
            new.append(split)
        elif backend.read(name, split.version).document() != split.document():
            raise InvalidInputError(
                f"a split of {name!r} without v{split.version}, or the same one, was expected, got another. Versions "
                "never change: import the set under another --name."
            )
    return new


def _table(samples: Sequence[_Sample]) -> xr.Dataset:
    side = np.full(len(samples), cv.SPECTROGRAM_SIDE, np.int32)
    columns = {
        "id": np.array([s.source.id for s in samples], object),
        "source": np.array([s.source.source for s in samples], object),
        "height": side,
        "width": side,
        "annotated": np.ones(len(samples), np.uint8),
        cv.SAMPLE_JSON: np.array([json.dumps(s.document) for s in samples], object),
    }
    return xr.Dataset({column: ("sample", values) for column, values in columns.items()})
