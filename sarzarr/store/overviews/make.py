"""Overviews made: read in parallel, scene by scene, beside the store, and put in it at once."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError, IngestError, NotInStoreError
from sarzarr.files import Lock, boot, remove_path
from sarzarr.store.catalog import encoding_of
from sarzarr.store.commit import changed_once
from sarzarr.store.documents import (
    Document,
    array_document,
    ensure_groups,
    read_node,
    read_sealed,
    write_coordinates,
    write_node,
)
from sarzarr.store.journal import NO_ROOM, beside_store, writing
from sarzarr.store.manifest import ShardRecord, read_manifest, write_manifest
from sarzarr.store.overviews.average import LevelJob, Written, write_level
from sarzarr.store.overviews.levels import (
    array_attributes,
    count_levels,
    level_document,
    levels_key,
    made_of,
    overview_document,
    scaled,
    told_levels,
)
from sarzarr.store.place import Folder
from sarzarr.store.shard_job import check_written, job_side, rectangles
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.tasks import Progress, compute, processes, wave_size, workplace
from sarzarr.text import counted, listed

log = logging.getLogger(__name__)
STAGING: Final = ".overviews"
"""The folder beside a store that levels are made in."""
BATCH: Final = 8
"""Levels of scenes enter together when they are this share of those that are there: documents are gathered anew."""


def make_overviews(
    store: AnyStore,
    scenes: Sequence[str] | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> Store:
    """Make the levels of scenes: each has half the rows and columns of the one before, until 512 pixels are left.

    A pixel of level n is the mean, in linear power, of those that are valid among 2^n x 2^n pixels of the scene, each
    of the same weight: never a mean of means, so a block that is valid in half has the mean of that half. Nonpositive
    power counts as 0. Where none is valid it is not measured, and nowhere else. At the right and the bottom it is the
    mean of what is there; the transform is the scene's times 2^n. What is stored is the nearest code, in the dtype,
    codec and shards of the scene, below ``overviews``; means below the stored range are at its floor.

    Levels that are there, of the pixels that the scene has, are not made again. Work is done as `ingest` does it, by
    an active Dask client if there is one. Interrupted, it goes on with the scene that it was at.

    Parameters
    ----------
    store
        The store, in a folder.
    scenes
        Ids of scenes; all if left out. Scenes of layers alone, and of 512 pixels or fewer, have none.
    progress
        Called with the bytes of stored pixels, decoded, that are done.

    Raises `NotInStoreError` where a scene is not there; `CorruptStoreError` where stored pixels are damaged: levels
    of the other scenes are in the store then.
    """
    opened = open_store(store)
    with writing(opened.root) as lock:
        return write_overviews(opened.anew(), scenes, progress=progress, lock=lock)


def write_overviews(
    store: Store,
    scenes: Iterable[str] | None = None,
    *,
    again: bool = False,
    progress: Callable[[Progress], None] | None = None,
    lock: Lock | None = None,
) -> Store:
    """Make levels as `make_overviews` says, in bytes (uint16 and others) as scenes are stored; the caller is writing.

    With ``again`` those that are there are made again.
    """
    names = list(dict.fromkeys(store.scenes if scenes is None else scenes))
    if unknown := [name for name in names if name not in store.scenes]:
        raise NotInStoreError(
            f"scenes of {store.place.name} were expected, got {', '.join(unknown)}. `sarzarr info STORE` lists its "
            "scenes."
        )
    wanted = [s for s in names if levels_wanted(store, s) and (again or not store.levels(s)[1:])]
    beside, ready = beside_store(store.root) / STAGING, dict[str, Path]()
    if wanted:
        note = beside / "boot"
        if beside.exists() and not (note.exists() and note.read_text() == boot()):
            remove_path(beside)  # a machine that was switched off may have lost bytes of it
        beside.mkdir(parents=True, exist_ok=True)
        note.write_text(boot())
        there = sum(bool(store.levels(scene)[1:]) for scene in names)
        try:
            for scene, folder in built(store, wanted, beside, progress=progress, lock=lock):
                ready[scene] = folder
                if len(ready) * BATCH >= there:
                    there += len(ready)
                    _enter(store, ready)
        except CorruptStoreError:  # of some scenes: the others are whole
            _enter(store, ready)
            remove_path(beside)
            raise
        _enter(store, ready)
    remove_path(beside)
    return store.anew()


def _enter(store: Store, ready: dict[str, Path]) -> None:
    """Put levels of scenes in the place of those that are there, and forget them."""
    if ready:
        with changed_once(store) as draft:
            ensure_groups(draft.place, cv.OVERVIEWS)
            for scene, folder in ready.items():
                draft.place.swap(folder, levels_key(scene))
        log.info("%s: overviews of %s", store.place.name, listed(ready))
    ready.clear()


def levels_wanted(store: Store, scene: str) -> int:
    """Return how many levels a scene, (rows, columns), has when they are made; 0 of one of layers alone."""
    rows = arrays_of(store, scene)
    return count_levels(store.grid(scene).shape, encoding_of(rows[0])) if rows else 0


def arrays_of(store: Store, scene: str) -> list[dict[str, Any]]:
    """Return the rows of the catalog of a scene's arrays of backscatter, (rows, columns) each."""
    return [row for row in store.facts(scene) if row["name"]]


def first_jobs(store: Store, row: Mapping[str, Any], folder: Path) -> Iterator[LevelJob]:
    """Yield the jobs of the first level of an array, (rows, columns) of whole files each."""
    scene, name, encoding = str(row["scene"]), str(row["name"]), encoding_of(row)
    shape, side = (int(row["height"]), int(row["width"])), job_side(encoding.file_size)
    is_dark = bool(store.histogram(scene, name).nonpositive)
    for place in rectangles(_halved(shape, 1), (side, side)):
        yield LevelJob(
            scene=scene,
            folder=str(folder),
            encoding=encoding,
            band_rows=encoding.chunk,
            name=name,
            level=1,
            levels=count_levels(shape, encoding),
            values=store.pixels(scene, name),
            coverage=store.pixels(scene, str(row["flags"])) if is_dark else None,
            stored=(float(row["vmin"]), float(row["vmax"])),
            parts=str(folder / ".parts"),
            **place,
        )


def _halved(shape: tuple[int, int], times: int) -> tuple[int, int]:
    height, width = (-(-n // 2**times) for n in shape)
    return height, width


def later_jobs(first: LevelJob) -> Iterator[LevelJob]:
    """Yield the jobs of the levels, (rows, columns) each, above the first, of an array of which that is a job."""
    side = job_side(first.encoding.file_size)
    for level in range(2, first.levels + 1):
        for place in rectangles(_halved(first.values.shape, level), (side, side)):
            yield replace(first, level=level, **place)


@dataclass
class _Staged:
    """A scene whose levels are made, (rows, columns) by (rows, columns)."""

    store: Store
    """Its store."""
    scene: str
    """Its id."""
    folder: Path
    """The folder of its levels."""
    made: Document = field(init=False)
    """What they are made of."""
    waiting: int = 0
    """Jobs that are not done."""
    is_joined: bool = False
    """Whether the jobs of higher levels were given out."""
    firsts: dict[str, LevelJob] = field(default_factory=dict)
    """A job of the first level of each array."""
    records: dict[tuple[int, str], dict[str, ShardRecord]] = field(default_factory=dict)
    """Records of files by level and array."""
    failure: Exception | None = None
    """What went wrong first."""

    def begin(self) -> list[LevelJob]:
        """Return the jobs of the first level; none where all is there already."""
        self.made = made_of(self.store.place, self._rows, self.store.grids[self.scene])
        if self._is_whole():
            self.is_joined, self.records = True, {}
            return []
        remove_path(self.folder)
        (self.folder / ".parts").mkdir(parents=True)
        jobs = [job for row in self._rows for job in first_jobs(self.store, row, self.folder)]
        self.firsts = {job.name: job for job in jobs}
        self.waiting = len(jobs)
        return jobs

    @property
    def _rows(self) -> list[dict[str, Any]]:
        return arrays_of(self.store, self.scene)

    @property
    def _place(self) -> Folder:
        return Folder(self.folder, levels_key(self.scene))

    def _is_whole(self) -> bool:
        """Whether an interrupted run has made all of it, of these pixels."""
        try:
            about = read_node(self._place, "")["attributes"]
            for name, level in ((n, lv) for n in about[cv.MADE_OF]["arrays"] for lv in told_levels(about)):
                key = f"{level}/{name}"
                grid = encoding_of(self._rows[0]).grid
                check_written(self.folder / key, read_manifest(self._place, key).records, grid)
            return bool(about[cv.MADE_OF] == self.made)
        except CorruptStoreError:
            return False

    def take(self, job: LevelJob, records: dict[str, ShardRecord] | Exception) -> None:
        """Take up the result of a job."""
        self.waiting -= 1
        if isinstance(records, Exception):
            self.failure = self.failure or records
        else:
            self.records.setdefault((job.level, job.name), {}).update(records)

    def join(self) -> list[LevelJob]:
        """Return the jobs of the levels above the first, once."""
        jobs = [] if self.is_joined else [job for one in self.firsts.values() for job in later_jobs(one)]
        self.waiting, self.is_joined = len(jobs), True
        return jobs

    def finish(self) -> None:
        """Write the documents, the scene's own last: then all of it is there."""
        if not self.records:
            return
        store, scene, grid = self.store, self.scene, self.store.grid(self.scene)
        encoding, levels = encoding_of(self._rows[0]), max(level for level, _ in self.records)
        about, free = read_sealed(store.place, f"{cv.SCENES}/{scene}")
        facts = {k: v for k, v in about["attributes"].items() if k not in free}
        for (level, name), records in self.records.items():
            check_written(self.folder / str(level) / name, records, encoding.grid)
            write_manifest(self._place, f"{level}/{name}", records)
            attributes = array_attributes(store.node_attrs(scene, name))
            shape = scaled(grid, 2**level).shape
            document = array_document(shape, encoding, dims=("y", "x"), attributes=attributes)
            write_node(self._place, f"{level}/{name}", document)
        for level in range(1, levels + 1):
            place = Folder(self.folder / str(level), f"{levels_key(scene)}/{level}")
            write_coordinates(place, scaled(grid, 2**level), encoding.codec_of_coordinates, 2**level)
            write_node(place, "", level_document(facts, grid, level))
        remove_path(self.folder / ".parts")
        write_node(self._place, "", overview_document(scene, grid, levels, self.made))


def built(
    store: Store,
    scenes: Sequence[str],
    folder: Path,
    *,
    progress: Callable[[Progress], None] | None = None,
    lock: Lock | None = None,
) -> Iterator[tuple[str, Path]]:
    """Yield scenes, and the folder of the levels (rows, columns) of each, below one folder, as they become whole.

    Raises the error of the first that failed when the others are done.
    """
    begun: dict[str, _Staged] = {}
    sizes = {scene: sum(map(_bytes_of, arrays_of(store, scene))) for scene in scenes}
    done, total, failed = 0.0, sum(sizes.values()), dict[str, Exception]()

    def begin() -> Iterator[LevelJob]:
        for scene in scenes:
            begun[scene] = _Staged(store, scene, folder / scene)
            yield from begun[scene].begin()

    def take(result: Written) -> None:
        nonlocal done
        if lock is not None:
            lock.show_life()
        job, records = result
        if isinstance(records, OSError) and records.errno in NO_ROOM:
            raise records
        begun[job.scene].take(job, records)
        if job.level == 1:
            done += 4 * job.height * job.width * job.values.dtype.itemsize
            if progress is not None:
                progress(Progress(min(round(done), total), total, job.scene))

    folder.mkdir(parents=True, exist_ok=True)
    jobs, more = begin(), list[LevelJob]()
    with processes(total), workplace(folder):
        while True:
            wave = [*more, *islice(jobs, wave_size())]
            compute([(write_level, (job,)) for job in wave], take)
            more = []
            for scene, staged in [(s, one) for s, one in begun.items() if not one.waiting]:
                if staged.failure is None and (joined := staged.join()):
                    more += joined
                    continue
                del begun[scene]
                if staged.failure is not None:
                    failed[scene] = staged.failure
                    remove_path(staged.folder)
                    continue
                staged.finish()
                yield scene, staged.folder
            if not wave and not more:
                break
    if failed:
        first, error = next(iter(failed.items()))
        others = f" (and {counted(len(failed) - 1, 'more scene')})" if failed.keys() - {first} else ""
        kind = CorruptStoreError if isinstance(error, CorruptStoreError) else IngestError
        raise kind(f"overviews of {first}{others} were not made: {error}") from error


def _bytes_of(row: Mapping[str, Any]) -> int:
    return int(row["height"]) * int(row["width"]) * np.dtype(str(row["dtype"])).itemsize
