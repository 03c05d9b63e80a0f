"""Carry out a plan: blocks run as Dask tasks, and each scene enters the store when it is whole.

Tasks go to the active ``dask.distributed`` client if there is one, else to Dask's local threads. They
go in waves, so that neither a scheduler's graph nor this process grows with the plan. Each finished
block leaves a receipt beside the store; run again, and what has an intact receipt is not redone.
"""

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import dask
import numpy as np
from dask.callbacks import Callback

from sarzarr import conventions as cv
from sarzarr.blocks import (
    ArrayReceipt,
    BlockJob,
    Receipt,
    decide_zeros,
    receipt_from_json,
    receipt_to_json,
    write_block,
)
from sarzarr.bounds import Histogram
from sarzarr.clips import recommend_clips
from sarzarr.documents import (
    Encoding,
    array_document,
    group_document,
    spatial_attributes,
    write_coordinates,
    write_json,
)
from sarzarr.errors import IngestError
from sarzarr.patches import DEFAULT_SPEC, update_index
from sarzarr.plan import IngestPlan, ScenePlan
from sarzarr.probe import ArrayProbe
from sarzarr.regions import reaching_edge
from sarzarr.shards import ShardRecord, digest_of
from sarzarr.store import (
    Store,
    bounds_key,
    commit_scenes,
    consolidate,
    create_store,
    open_store,
    write_bounds,
)
from sarzarr.tables import write_histogram

log = logging.getLogger(__name__)
WAVE_TASKS_PER_WORKER: Final = 64
"""Tasks that are handed to the scheduler at once, for each of its threads."""
FLAG_MEANINGS: Final = " ".join(flag.name.lower() for flag in cv.Flag)


@dataclass(frozen=True)
class Progress:
    """How far an ingest is."""

    done: int
    """Source bytes whose blocks are written."""
    total: int
    """Source bytes of the plan."""
    scene: str
    """The scene that the last block belongs to."""


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """A block that could not be done."""

    scene: str
    at: tuple[int, int]
    error: str


@dataclass
class _Staged:
    """One scene on its way: where its parts are gathered, and which blocks are in."""

    plan: ScenePlan
    folder: Path
    waiting: int = 0
    done: dict[str, tuple[BlockJob, Receipt]] = field(default_factory=dict)
    failures: list[_Failure] = field(default_factory=list)

    @property
    def group(self) -> Path:
        return self.folder / "scene"

    def receipt_path(self, job: BlockJob) -> Path:
        return self.folder / "receipts" / f"{_job_key(job)}.json"


def _job_key(job: BlockJob) -> str:
    return f"{job.arrays[0].name}-{job.row}-{job.col}"


# ------------------------------------------------------------------ the run
def ingest(plan: IngestPlan, *, progress: Callable[[Progress], None] | None = None) -> Store:
    """Write what a plan says into its store, and return the store.

    Inside ``with Client(...)`` the work is done by that cluster, else by threads of this process.
    Interrupted, it is simply run again: blocks that are done are not redone, and the bytes are the
    same. A scene that fails does not keep the others out.

    Raises
    ------
    IngestError
        Some scenes failed; the message names each with its cause, the others are in the store.
    """
    store = create_store(plan.store)
    staging = plan.store.with_name(plan.store.name + ".ingest")
    with _only_writer(staging):
        run = _Run(store, [_stage(s, staging / s.id) for s in plan.scenes], _Meter(plan.bytes_in, progress))
        run.go()
        _finish(store)
    if failed := [f for s in run.scenes.values() for f in s.failures[:1]]:
        listed = "\n".join(
            f"  {f.scene}, block at row {f.at[0]}, column {f.at[1]}: {f.error}" for f in failed
        )
        raise IngestError(
            f"{len(plan.scenes)} scenes were expected, {len(failed)} of them failed:\n{listed}\n"
            "Mend the files and run the same command again; the others are in the store."
        )
    return open_store(plan.store)


Task = tuple[Callable[..., Any], tuple[Any, ...]]


class _Run:
    """Scenes on their way into a store: waves of tasks, and after each wave what has become whole."""

    def __init__(self, store: Store, scenes: Sequence[_Staged], meter: "_Meter") -> None:
        self.store, self.meter = store, meter
        self.scenes = {s.plan.id: s for s in scenes}
        self.begun: dict[str, _Staged] = {}

    def go(self) -> None:
        """Run everything; failures stay with their scenes."""
        jobs, decisions = self._unfinished(), list[Task]()
        while True:
            wave = [*decisions, *((_write, (job,)) for job in islice(jobs, _wave_size()))]
            _compute(wave, self._take)
            decisions = self._settle()
            if not wave and not decisions:
                return

    def _unfinished(self) -> Iterator[BlockJob]:
        """Yield the jobs that have no intact receipt; the others are counted as done."""
        for scene in self.scenes.values():
            left = []
            for job in scene.plan.jobs(str(scene.group)):
                receipt = _intact_receipt(scene, job)
                if receipt is None:
                    left.append(job)
                else:
                    scene.done[_job_key(job)] = job, receipt
                    self.meter.add(job)
            scene.waiting = len(left)
            self.begun[scene.plan.id] = scene
            yield from left

    def _take(self, result: "_Done | _Failure") -> None:
        scene = self.scenes[result.scene]
        scene.waiting -= 1
        if isinstance(result, _Failure):
            scene.failures.append(result)
            return
        scene.done[_job_key(result.job)] = result.job, result.receipt
        if result.first_time:
            self.meter.add(result.job)

    def _settle(self) -> list[Task]:
        """Commit the scenes that are whole; return the tasks that others need to become so."""
        tasks: list[Task] = []
        whole: list[_Staged] = []
        for scene in self.begun.values():
            if scene.waiting or scene.failures:
                continue
            decisions = list(_decisions(scene))
            scene.waiting = len(decisions)
            tasks += decisions
            if not decisions:
                whole.append(scene)
        _commit(self.store, whole)
        for scene in whole:
            del self.begun[scene.plan.id]
        return tasks


@dataclass(frozen=True, kw_only=True)
class _Done:
    """A block that is done."""

    scene: str
    job: BlockJob
    receipt: Receipt
    first_time: bool


def _write(job: BlockJob) -> _Done | _Failure:
    """Run one block on a worker; its error comes back as a value, so that others go on."""
    try:
        receipt = write_block(job)
        _leave(job, receipt)
    except Exception as error:
        log.debug("block %s of %s failed", job.at, job.scene, exc_info=True)
        return _Failure(scene=job.scene, at=job.at, error=f"{type(error).__name__}: {error}")
    return _Done(scene=job.scene, job=job, receipt=receipt, first_time=True)


def _decide(job: BlockJob, receipt: Receipt, reaches: dict[str, Any]) -> _Done | _Failure:
    """Run the decision on a block's zeros on a worker."""
    try:
        decided = decide_zeros(job, receipt, reaches)
        _leave(job, decided)
    except Exception as error:
        log.debug("block %s of %s failed", job.at, job.scene, exc_info=True)
        return _Failure(scene=job.scene, at=job.at, error=f"{type(error).__name__}: {error}")
    return _Done(scene=job.scene, job=job, receipt=decided, first_time=False)


def _leave(job: BlockJob, receipt: Receipt) -> None:
    """Leave a receipt beside the store: the block is done."""
    place = Path(job.folder).parent / "receipts" / f"{_job_key(job)}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    partial.write_text(receipt_to_json(receipt))
    partial.replace(place)


class _Meter:
    """Source bytes done, reported as they come."""

    def __init__(self, total: int, report: Callable[[Progress], None] | None) -> None:
        self.done, self.total, self.report = 0, total, report

    def add(self, job: BlockJob) -> None:
        self.done += job.source_bytes
        if self.report is not None:
            self.report(Progress(self.done, self.total, job.scene))


def _stage(plan: ScenePlan, folder: Path) -> _Staged:
    """Take up the staged work of the same scene and sources, or begin anew."""
    said = folder / "fingerprint"
    if folder.exists() and (not said.exists() or said.read_text() != plan.fingerprint):
        shutil.rmtree(folder)
    (folder / "receipts").mkdir(parents=True, exist_ok=True)
    said.write_text(plan.fingerprint)
    for leftover in folder.rglob("*.partial"):
        leftover.unlink()
    return _Staged(plan, folder)


def _intact_receipt(scene: _Staged, job: BlockJob) -> Receipt | None:
    """Return the receipt of a block whose files are all there as it says."""
    place = scene.receipt_path(job)
    if not place.exists():
        return None
    receipt = receipt_from_json(place.read_text())
    for name, array in receipt.arrays.items():
        for folder, records in ((name, array.shards), (name + cv.FLAGS_SUFFIX, array.flag_shards)):
            for key, record in records.items():
                if digest_of(scene.group / folder / key, job.encoding.grid) != (record.size, record.digest):
                    return None
    return receipt


def _decisions(scene: _Staged) -> Iterator[Task]:
    """Yield the tasks that settle a scene's zeros, now that all its blocks are known."""
    for file_jobs in _by_file(scene).values():
        size = file_jobs[0][0]
        reaches: dict[str, dict[tuple[int, int], Any]] = {}
        for source in size.arrays:
            regions = {
                (job.row // size.height, job.col // size.width): receipt.arrays[source.name].regions
                for job, receipt in file_jobs
            }
            if any(r is not None for r in regions.values()):
                reaches[source.name] = reaching_edge(regions)
        for job, receipt in file_jobs:
            at = job.row // size.height, job.col // size.width
            mine = {name: found[at] for name, found in reaches.items() if at in found}
            if mine:
                yield _decide, (job, receipt, mine)


def _by_file(scene: _Staged) -> dict[str, list[tuple[BlockJob, Receipt]]]:
    """Blocks by the array they lead with (one a file), the block at the origin first."""
    out: dict[str, list[tuple[BlockJob, Receipt]]] = {}
    for job, receipt in sorted(scene.done.values(), key=lambda pair: pair[0].at):
        out.setdefault(job.arrays[0].name, []).append((job, receipt))
    return out


# ------------------------------------------------------------------ the scheduler
def _client() -> Any:
    """Return the active ``dask.distributed`` client, or None."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def _wave_size() -> int:
    client = _client()
    threads = sum(client.nthreads().values()) if client is not None else os.cpu_count() or 1
    return WAVE_TASKS_PER_WORKER * max(int(threads), 1)


def _compute(tasks: Sequence[Task], take: Callable[[Any], None]) -> None:
    """Run tasks on whatever Dask runs on, and hand each result to ``take`` as it comes."""
    client = _client()
    if client is not None:
        from distributed import as_completed

        futures = [client.submit(function, *args, pure=False) for function, args in tasks]
        for future in as_completed(futures):
            take(future.result())
        return

    class Taker(Callback):  # type: ignore[misc]
        def _posttask(self, key: Any, result: Any, *_: Any) -> None:
            if isinstance(result, _Done | _Failure):
                take(result)

    with Taker():
        dask.compute(*(dask.delayed(function, pure=False)(*args) for function, args in tasks))


@contextmanager
def _only_writer(staging: Path) -> Iterator[None]:
    """Hold the right to write beside a store; another process that holds it is an error, never a mix."""
    import fcntl

    staging.mkdir(parents=True, exist_ok=True)
    with (staging / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise IngestError(
                f"one ingest at a time was expected, got another that writes beside {staging.stem!r}. "
                "Wait for it to end, then run this again."
            ) from None
        try:
            yield
        finally:
            (staging / "lock").unlink()
            if not any(staging.iterdir()):
                staging.rmdir()


# ------------------------------------------------------------------ commit
def _commit(store: Store, scenes: Sequence[_Staged]) -> None:
    """Write scenes' documents, each one's own ``zarr.json`` last, and let them into the store."""
    rows = []
    for scene in scenes:
        plan = scene.plan
        for array in plan.probe.arrays:
            receipts = [r.arrays[array.name] for _, r in scene.done.values() if array.name in r.arrays]
            _write_array_documents(scene.group, plan, array, receipts)
            histogram = sum((r.histogram for r in receipts), start=Histogram.empty())
            write_histogram(scene.folder / "histograms" / array.name, histogram)
            rows.append(_catalog_row(plan, array))
        write_json(scene.folder / "histograms" / "zarr.json", group_document())
        write_coordinates(scene.group, plan.probe.grid)
        write_json(scene.group / "zarr.json", group_document(scene_attributes(plan)))
    if scenes:
        commit_scenes(store, {s.plan.id: s.folder for s in scenes}, rows)
    for scene in scenes:
        shutil.rmtree(scene.folder)


def scene_attributes(plan: ScenePlan) -> dict[str, Any]:
    """Return the attributes of a scene's group: the facts, in STAC's spelling; never a path."""
    probe = plan.probe
    polarizations = [a.polarization for a in probe.arrays if a.polarization]
    attributes: dict[str, Any] = {
        "id": plan.id,
        **probe.acquisition.attrs(),
        cv.GEOLOCATION: probe.geolocation,
        **spatial_attributes(probe.grid),
        cv.SOURCE_HASH: probe.source_hash,
        cv.SOURCE_FILES: [f.path.name for f in probe.files],
    }
    if polarizations:
        attributes[cv.SAR_POLARIZATIONS] = polarizations
    if probe.geolocation == "rotated_affine":
        attributes[cv.SPATIAL_TRANSFORM] = list(probe.grid.transform)
    if probe.gcps:
        attributes[cv.GCPS] = [list(gcp) for gcp in probe.gcps]
        attributes[cv.GCPS_CRS] = probe.gcps_crs_wkt
    return attributes


def _write_array_documents(
    group: Path, plan: ScenePlan, array: ArrayProbe, receipts: Sequence[ArrayReceipt]
) -> None:
    """Write the ``zarr.json`` and the manifest of an array and of its flags."""
    grid = plan.probe.grid
    vmin, vmax = plan.bounds[array.name]
    flags = array.name + cv.FLAGS_SUFFIX
    placed: dict[str, Any] = {}
    if grid.is_georeferenced and not grid.is_rotated:
        placed = {cv.GRID_MAPPING: cv.SPATIAL_REF, cv.COORDINATES: cv.SPATIAL_REF, **spatial_attributes(grid)}
    nodata = array.nodata
    about: dict[str, Any] = {
        cv.LONG_NAME: f"{array.quantity} {array.polarization or array.name}, normalized dB",
        cv.UNITS: "1",
        cv.VMIN: vmin,
        cv.VMAX: vmax,
        cv.QUANTITY: str(array.quantity),
        cv.REPRESENTATION: str(cv.Representation.NORMALIZED),
        cv.SOURCE_REPRESENTATION: str(array.representation),
        cv.REASON: array.reason,
        cv.ANCILLARY: flags,
        **placed,
    }
    if nodata is not None:
        about[cv.SOURCE_NODATA] = nodata if np.isfinite(nodata) else str(nodata)
    if array.polarization:
        about[cv.SAR_POLARIZATIONS] = [array.polarization]
    if plan.encoding.dtype == "uint16":
        about[cv.SCALE_FACTOR] = 1 / cv.MAX_CODE
    _write_node(group / array.name, plan, plan.encoding, about, [r.shards for r in receipts])
    coded: dict[str, Any] = {
        cv.LONG_NAME: f"validity of {array.name}",
        cv.FLAG_VALUES: [int(f) for f in cv.Flag],
        cv.FLAG_MEANINGS: FLAG_MEANINGS,
        **placed,
    }
    flags_encoding = Encoding(
        dtype="uint8", codec=cv.FLAGS_CODEC, chunk=plan.encoding.chunk, shard=plan.encoding.shard
    )
    _write_node(group / flags, plan, flags_encoding, coded, [r.flag_shards for r in receipts])


def _write_node(
    folder: Path,
    plan: ScenePlan,
    encoding: Encoding,
    attributes: Mapping[str, Any],
    records: Sequence[Mapping[str, ShardRecord]],
) -> None:
    manifest = {k: [r.size, r.digest, r.chunks] for part in records for k, r in part.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / cv.MANIFEST).write_text(json.dumps({"shards": dict(sorted(manifest.items()))}))
    document = array_document(plan.probe.grid.shape, encoding, dims=("y", "x"), attributes=attributes)
    write_json(folder / "zarr.json", document)


def _catalog_row(plan: ScenePlan, array: ArrayProbe) -> dict[str, Any]:
    probe, encoding = plan.probe, plan.encoding
    vmin, vmax = plan.bounds[array.name]
    facts = {cv.CATALOG_COLUMNS[key]: value for key, value in probe.acquisition.attrs().items()}
    return {
        "scene": plan.id,
        "name": array.name,
        "flags": array.name + cv.FLAGS_SUFFIX,
        "polarization": array.polarization,
        "quantity": str(array.quantity),
        "source_representation": str(array.representation),
        "dtype": encoding.dtype,
        "codec": encoding.codec,
        "height": probe.grid.height,
        "width": probe.grid.width,
        "chunk": encoding.chunk,
        "shard": encoding.shard,
        "vmin": vmin,
        "vmax": vmax,
        "bounds_key": bounds_key(array.name, str(array.quantity)),
        "crs_wkt": probe.grid.crs_wkt,
        "transform": probe.grid.transform,
        "geolocation": probe.geolocation,
        "source_hash": probe.source_hash,
        **facts,
    }


# ------------------------------------------------------------------ the end of a run
def _finish(store: Store) -> None:
    """Recommend clips for groups that have none, index the new patches, and consolidate, once a run."""
    fresh = open_store(store.root)
    groups = set(fresh.catalog["bounds_key"].values.tolist())
    clips = recommend_clips(fresh, groups - set(fresh.bounds))
    fresh = write_bounds(fresh, {**fresh.bounds, **clips})
    update_index(fresh, DEFAULT_SPEC)
    consolidate(fresh)
