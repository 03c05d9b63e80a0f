"""Carry out a plan: blocks run as Dask tasks, and scenes enter the store when they are whole.

A scene enters with its patches, and those of a group that the store does not know together at the end, with the clip
that they all give: so the bytes are the same however often a run is interrupted. Tasks go to the active
``dask.distributed`` client if there is one, else to Dask's local threads. They go in waves, so that neither a
scheduler's graph nor this process grows with the plan. Each finished block leaves a receipt beside the store; run
again, and what has an intact receipt is not redone.
"""

import logging
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import IngestError, InvalidInputError, NotInStoreError, PartialIngestError
from sarzarr.files import Lock, remove_partials
from sarzarr.ingestion.blocks.jobs import BlockJob, Step
from sarzarr.ingestion.blocks.receipts import Receipt
from sarzarr.ingestion.blocks.regions import reaching_edge
from sarzarr.ingestion.blocks.undecided_zeros import decide_zeros
from sarzarr.ingestion.blocks.write import write_block, write_layer
from sarzarr.ingestion.collections.later import pack_layers
from sarzarr.ingestion.collections.pack import pack_collection
from sarzarr.ingestion.layers.plan import LayerJob, LayerPlan
from sarzarr.ingestion.plan import IngestPlan
from sarzarr.ingestion.scene_documents import (
    catalog_row,
    write_array_documents,
    write_layer_documents,
    write_scene_documents,
)
from sarzarr.ingestion.scene_plan import ScenePlan
from sarzarr.ingestion.staging import (
    Job,
    Outcome,
    Staged,
    begin_documents,
    flush_staged,
    intact_receipt,
    job_key,
    leave_receipt,
    stage,
)
from sarzarr.ingestion.waiting import check_room, leave_note, take_note_away
from sarzarr.patches.clips import recommend_clips
from sarzarr.patches.index import update_indices
from sarzarr.pixels.bounds import Histogram, clip_bounds_from_histogram
from sarzarr.pixels.compiled.when import loops_for
from sarzarr.scenes.probe import ArrayProbe
from sarzarr.scenes.refusals import Refusals
from sarzarr.store.catalog import catalog_of, catalog_rows, write_histogram
from sarzarr.store.commit import (
    changed_once,
    commit_layers,
    commit_scenes,
    withdraw_scenes,
    write_bounds,
)
from sarzarr.store.documents import group_document, has_node, read_json, write_json, write_node
from sarzarr.store.free_values import free_value
from sarzarr.store.journal import NO_ROOM, beside_store, removed_by, settle, writing
from sarzarr.store.overviews.levels import levels_key
from sarzarr.store.overviews.make import write_overviews
from sarzarr.store.place import Folder
from sarzarr.store.store import Store, create_store, open_store
from sarzarr.tasks import Progress, Task, compute, cpu_count, processes, wave_size, worker_name, workplace
from sarzarr.text import counted, listed

log = logging.getLogger(__name__)
BATCH: Final = 8
"""Scenes take the place of others when they are this share of those that are there: tables are written anew."""


def ingest(plan: IngestPlan, *, progress: Callable[[Progress], None] | None = None) -> Store:
    """Write what a plan says into its store, and return the store; ``progress`` is told the bytes that are done.

    Inside ``with Client(...)`` the work is done by that cluster; else by forked processes where the work
    is worth them and this process has no other thread, and by threads elsewhere.
    Interrupted, it is simply run again: blocks that are done are not redone, and the bytes are the
    same. A scene that fails does not keep the others out: it joins ``plan.refused``, which is logged as a warning.

    Raises `IngestError` where nothing went in and nothing was there; `PartialIngestError` where the plan is strict
    and a scene failed: the others are in the store. The messages name each scene with its cause.
    """
    plan, failed, staging = _with_workload(plan), Refusals(), beside_store(plan.store)
    with (
        writing(plan.store) as lock,
        workplace(staging),
        processes(plan.bytes_in),
    ):  # workers lock it, too
        store = create_store(plan.store)
        check_room(plan)
        leave_note(plan.store, [*plan.present, *(scene.id for scene in plan.scenes)])
        for collection in plan.collections:
            if len(collection.later):
                pack_layers(store, collection, staging, lock=lock, failed=failed, progress=progress)
            if len(collection.chips):
                pack_collection(store, collection, staging, lock=lock, failed=failed, progress=progress)
        planned = _with_bounds(plan, staging, failed)
        staged = []
        for scene in planned:
            with failed.leaving_out(scene.probe.paths, scene.id):
                staged.append(stage(scene, staging / scene.id))
        levels = [key for scene in plan.scenes if has_node(store.place, key := levels_key(scene.id))]
        _Run(store, staged, lock, progress).go()
        for one in staged:
            if one.failures:
                failed.add(one.plan.probe.paths, one.failures[0], scene=one.plan.id)
        if plan.options.overviews:
            store = open_store(plan.store).anew()
            wanted = {*plan.present, *(scene.id for scene in plan.scenes)}
            write_overviews(store, sorted(filter(store.has_scene, wanted)), lock=lock)
        elif gone := sorted(key.partition("/")[2] for key in levels if not has_node(store.place, key)):
            why = "were of other pixels, and are gone: `sarzarr overview` makes them again"
            log.warning("%s: overviews of %s %s", store.place.name, listed(gone), why)
        if not failed:
            take_note_away(plan.store)
            for ranges in staging.glob("bounds-*.json"):
                ranges.unlink()
    plan.refused.extend(failed)
    units = len(plan.scenes) + sum(len(c.chips) + len(c.later) for c in plan.collections)
    has_some = plan.present or any(c.present for c in plan.collections) or len(failed) < units
    if failed and (plan.options.strict or not has_some):
        what = counted(units, "chip" if plan.collections else "scene")
        raise (PartialIngestError if has_some else IngestError)(
            f"{what} to be written were expected, got {len(failed)} that failed:\n  "
            + "\n  ".join(plan.refused.lines())
            + "\nMend the files and run the same command again; what is done is not redone."
        )
    plan.refused.tell()
    return open_store(plan.store)


def _with_workload(plan: IngestPlan) -> IngestPlan:
    """Tell each scene how much work there is for one processor; load what pays for so much, for all to share."""
    pixels = sum(s.probe.grid.height * s.probe.grid.width * len(s.probe.arrays) for s in plan.scenes)
    workload = (pixels + sum(c.pixels for c in plan.collections)) // cpu_count()
    loops_for(workload)
    return replace(plan, scenes=tuple(replace(s, workload=workload) for s in plan.scenes))


class _Run:
    """Scenes on their way into a store: waves of tasks, and after each wave what has become whole."""

    def __init__(
        self,
        store: Store,
        scenes: Sequence[Staged],
        lock: Lock,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.store, self.lock, self.progress = store, lock, progress
        self.done, self.total = 0, sum(s.plan.bytes_worked for s in scenes)
        self.scenes = {s.plan.id: s for s in sorted(scenes, key=lambda s: s.plan.id)}
        self.begun: dict[str, Staged] = {}
        self.whole: dict[str, Staged] = {}
        self.entered = set[str]()

    def go(self) -> None:
        """Run everything; failures stay with their scenes."""
        jobs = (job for scene in self.scenes.values() for job in self._begin(scene))
        decisions = list[Task]()
        while True:
            wave = [*decisions, *((_write, (job,)) for job in islice(jobs, wave_size()))]
            compute(wave, self._take)
            decisions = self._settle()
            if not wave and not decisions:
                break
            self._enter()
        self._let_in(self._in_turn(is_end=True))
        self._let_in([scene for name, scene in self.scenes.items() if name in self.whole])

    def _begin(self, scene: Staged) -> list[Job]:
        """Begin a scene, or its second pass: return the blocks that have no intact receipt; others are done."""
        left = list[Job]()
        with scene.failing():
            for job in scene.jobs():
                receipt = intact_receipt(job)
                if receipt is None:
                    left.append(job)
                else:
                    scene.done[job_key(job)] = job, receipt
                    self._report(job)
        scene.waiting = len(left)
        self.begun[scene.plan.id] = scene
        return left

    def _take(self, result: Outcome) -> None:
        self.lock.show_life()
        scene = self.scenes[result.job.scene]
        scene.waiting -= 1
        if result.no_room is not None:
            raise result.no_room
        if result.receipt is None:
            scene.failures.append(str(result))
            return
        scene.done[job_key(result.job)] = result.job, result.receipt
        scene.workers[job_key(result.job)] = result.worker
        if result.first_time:
            self._report(result.job)

    def _report(self, job: Job) -> None:
        """Count the source bytes of a block that is done, a first pass apart, and report them."""
        if isinstance(job, BlockJob) and job.step is not Step.WRITE:
            return
        self.done += job.source_bytes
        if self.progress is not None:
            self.progress(Progress(self.done, self.total, job.scene))

    def _settle(self) -> list[Task]:
        """Flush the scenes that are whole; return the tasks that others need to become so."""
        tasks: list[Task] = []
        for scene in list(self.begun.values()):
            with scene.failing():
                if scene.waiting or scene.failures:
                    continue
                more = list(decisions(scene))
                if not more and scene.step is Step.MASK:
                    scene.check_files()
                    scene.step, scene.done = Step.WRITE, {}
                    more = [(_write, (job,)) for job in self._begin(scene)] or list(decisions(scene))
                more = more or list(_with_free_fills(scene))
                scene.waiting = len(more)
                tasks += more
                if not more and not scene.failures:
                    begin_documents(scene)
                    _write_documents(scene)
                    flush_staged(scene)
                    self.whole[scene.plan.id] = scene
                    del self.begun[scene.plan.id]
        return tasks

    def _enter(self) -> None:
        """Let whole scenes of groups that have a clip into the store; those that replace others if they are many."""
        ready = self._in_turn()
        if any(s.plan.replaces for s in ready) and len(ready) * BATCH < len(self.store.anew().scenes):
            return
        self._let_in(ready)

    def _let_in(self, scenes: Sequence[Staged]) -> None:
        _enter(self.store, scenes)
        for scene in scenes:
            self.entered.add(scene.plan.id)
            del self.whole[scene.plan.id]

    def _in_turn(self, *, is_end: bool = False) -> list[Staged]:
        """Return the whole scenes of groups that have a clip, before which all such scenes are whole, or failed.

        So scenes come in in one order, whatever is done first and whatever is interrupted.
        """
        known, ready = set(self.store.anew().bounds), list[Staged]()
        for name, scene in self.scenes.items():
            has_clip = scene.plan.only_layers or scene.plan.groups <= known
            if name in self.whole and has_clip:
                ready.append(scene)
            elif not (is_end or scene.failures or name in self.entered) and has_clip:
                break
        return ready


def _write(job: Job, first_time: bool = True) -> Outcome:
    """Run one block on a worker, unless another try of the same task did already."""
    work: Callable[..., Receipt] = write_layer if isinstance(job, LayerJob) else write_block
    return _attempt(lambda one: intact_receipt(one) or work(one), job, first_time=first_time)


def _attempt(
    work: Callable[..., Receipt], job: Job, *rest: Any, leave: bool = True, first_time: bool = True
) -> Outcome:
    """Do a block's work on a worker; its error comes back as a value, so that others go on."""
    try:
        receipt = work(job, *rest)
        if leave:
            leave_receipt(job, receipt)
    except Exception as error:
        log.debug("block %s of %s failed", job.at, job.scene, exc_info=True)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            room = OSError(error.errno, error.strerror, error.filename or job.folder)
            return Outcome(job=job, no_room=room, worker=worker_name())
        return Outcome(job=job, error=f"{type(error).__name__}: {error}", worker=worker_name())
    return Outcome(job=job, receipt=receipt, first_time=first_time, worker=worker_name())


def _decide(job: BlockJob, receipt: Receipt, reaches: dict[str, Any]) -> Receipt:
    """Settle a block's zeros on a worker, though another try of the same task did already, or was killed at it."""
    now = intact_receipt(job)
    if now is not None and all(now[name].regions is None for name in reaches):
        return now
    return decide_zeros(job, receipt if now is not None else write_block(job), reaches)


def _with_bounds(plan: IngestPlan, staging: Path, failed: Refusals) -> Sequence[ScenePlan]:
    """Return the scenes with the stored ranges of a classic store found: one pass over new groups' pixels.

    The ranges are kept beside the store, so that an interrupted run does not look for them again. They are found
    anew without the scenes that fail, unless the plan is strict.
    """
    if plan.options.bounds not in ("percentile", "sigma"):
        return plan.scenes
    known = open_store(plan.store).bounds
    pairs = ((scene, array) for scene in plan.scenes for array in scene.probe.arrays)
    arrays = [(scene, array) for scene, array in pairs if scene.group(array) not in known]
    sources = [(scene.probe.source_hash, scene.identity_of(array)) for scene, array in arrays]
    name = sha256(repr([plan.options.method, sources]).encode()).hexdigest()
    place, key = Folder(staging), f"bounds-{name[:16]}.json"
    if not place.head(key):
        found, failures = _find_ranges(arrays, plan.options.method)
        if failures:
            for scene in (scene for scene in plan.scenes if scene.id in failures):
                failed.add(scene.probe.paths, failures[scene.id], scene=scene.id)
            others = () if plan.options.strict else (s for s in plan.scenes if s.id not in failures)
            return _with_bounds(replace(plan, scenes=tuple(others)), staging, failed)
        write_json(place, key, found)
    ranges = {group: (low, high) for group, (low, high) in read_json(place, key).items()}
    scenes = []
    for scene in plan.scenes:
        bounds = {a.name: ranges.get(scene.group(a), scene.bounds[a.name]) for a in scene.probe.arrays}
        scenes.append(replace(scene, bounds=bounds))
    return scenes


def _find_ranges(
    arrays: Sequence[tuple[ScenePlan, ArrayProbe]], method: Mapping[str, Any]
) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """Return (vmin, vmax) of each group from the histograms of its arrays' files, or why scenes fail, by id."""
    of_array = {(scene.id, array.name): scene.group(array) for scene, array in arrays}
    histograms = dict.fromkeys(sorted(of_array.values()), Histogram.empty())
    failures: dict[str, str] = {}

    def take(result: Outcome) -> None:
        if result.receipt is None:
            failures.setdefault(result.job.scene, str(result))
            return
        for name, receipt in result.receipt.items():
            if key := of_array.get((result.job.scene, name)):
                histograms[key] = histograms[key] + receipt.histogram

    scenes = {scene.id: scene for scene, _ in arrays}.values()
    jobs = (job for scene in scenes for job in scene.jobs("", step=Step.COUNT))
    count = partial(_attempt, write_block, leave=False)
    while wave := [(count, (job,)) for job in islice(jobs, wave_size())]:
        compute(wave, take)
    if failures:
        return {}, failures
    clips = {key: clip_bounds_from_histogram(h, **method) for key, h in histograms.items()}
    return {key: (clip.vmin, clip.vmax) for key, clip in clips.items()}, {}


def decisions(scene: Staged) -> Iterator[Task]:
    """Yield the tasks that settle a scene's zeros, file by file, now that all its blocks are known."""
    files: dict[str, list[tuple[BlockJob, Receipt]]] = {}
    for job, receipt in sorted(scene.done.values(), key=lambda pair: pair[0].at):
        if isinstance(job, BlockJob):
            files.setdefault(job.arrays[0].name, []).append((job, receipt))
    for blocks in files.values():
        first = blocks[0][0]
        places = [(job.row // first.height, job.col // first.width) for job, _ in blocks]
        reaches: dict[str, dict[tuple[int, int], Any]] = {}
        for source in first.arrays:
            done = [receipt[source.name] for _, receipt in blocks]
            dark = any(receipt.histogram.nonpositive for receipt in done)
            is_judged = dark or not source.is_warped or first.step is Step.MASK
            if is_judged and any(receipt.regions is not None for receipt in done):
                regions = {place: receipt.regions for place, receipt in zip(places, done, strict=True)}
                reaches[source.name] = reaching_edge(regions)
        for place, (job, receipt) in zip(places, blocks, strict=True):
            mine = {name: labels[place] for name, labels in reaches.items() if place in labels}
            if mine:
                yield partial(_attempt, _decide, first_time=False), (job, receipt, mine)


def _with_free_fills(scene: Staged) -> Iterator[Task]:
    """Give each layer whose fill some pixel has a free one, and yield the tasks that write it anew.

    A layer without nodata has the extreme of its dtype as fill until all its values are known. One that can have no
    fill fails its scene.
    """
    chosen: dict[str, LayerPlan] = {}
    for layer in scene.plan.layers:
        if layer.nodata is not None or layer.free is not None:
            continue
        done = {key: (job, r[layer.name]) for key, (job, r) in scene.done.items() if layer.name in r}
        stored = layer.encoding(scene.plan.encoding)
        try:
            free = free_value(layer.dtype, np.concatenate([receipt.values for _, receipt in done.values()]))
        except InvalidInputError as error:
            scene.failures.append(f"{scene.plan.id}, layer {layer.name}: {error}")
            return
        if free != (stored.dtype, stored.fill):
            chosen[layer.name] = replace(layer, free=free)
            scene.done = {key: outcome for key, outcome in scene.done.items() if key not in done}
    layers = tuple(chosen.get(layer.name, layer) for layer in scene.plan.layers)
    scene.plan = replace(scene.plan, layers=layers)
    for job in scene.plan.layer_jobs(str(scene.group)):
        if job.layer.name in chosen:
            yield _write, (job, False)


def _enter(store: Store, scenes: Sequence[Staged]) -> None:
    """Let whole scenes into the store, with the clips of new groups and their patches, in one step.

    The clip of a group that is new is what the histograms recommend; of a classic store, whose range is a clip
    already, all of it. The catalog is written anew up to the last scene that replaces another, and the others are
    added to it: so it is the same as if scenes had come in one after the other.
    """
    if not scenes:
        return
    with changed_once(store, leaves=[scene.folder for scene in scenes]) as draft:
        for scene in scenes:
            if scene.plan.only_layers:
                commit_layers(draft, scene.plan.id, scene.group, [layer.name for layer in scene.plan.layers])
        whole = [scene for scene in scenes if not scene.plan.only_layers]
        replaced = max((at for at, s in enumerate(whole, 1) if draft.has_scene(s.plan.id)), default=0)
        rows = [*_commit(draft, whole[:replaced]), *_commit(draft, whole[replaced:])]
        fresh = draft.anew()
        arrays = [row for row in rows if row["name"]]
        ranges = {row["bounds_key"]: (row["vmin"], row["vmax"]) for row in arrays}
        new = {key: stored for key, stored in ranges.items() if key not in fresh.bounds}
        clips = recommend_clips(fresh, set(new), among=arrays) if new else {}
        for key, (vmin, vmax) in new.items():
            if (vmin, vmax) != cv.STORED_RANGE:
                clips[key] = replace(clips[key], clip_vmin=vmin, clip_vmax=vmax, clip_method="stored range")
        if whole:
            ids = {scene.plan.id for scene in whole}
            bounded = write_bounds(fresh, clips, arrays)
            update_indices(bounded, None if replaced else arrays, replaced=ids)


def _commit(draft: Store, scenes: Sequence[Staged]) -> list[dict[str, Any]]:
    """Have whole scenes enter a draft, and return their rows in the catalog."""
    rows = [row for scene in scenes for row in scene.rows]
    if scenes:
        commit_scenes(draft, {scene.plan.id: scene.folder for scene in scenes}, rows)
    return catalog_rows(catalog_of(rows))


def _write_documents(scene: Staged) -> None:
    """Write the documents of a whole scene, and keep the rows of its arrays in the catalog with it."""
    scene.check_files()
    scene.rows, plan = [], scene.plan
    group = Folder(scene.group, f"{cv.SCENES}/{plan.id}")
    histograms = Folder(scene.folder / "histograms", f"{cv.HISTOGRAMS}/{plan.id}")
    remove_partials(scene.group)  # of a worker that was killed in this run
    for layer in plan.layers:
        receipts = [r[layer.name] for _, r in scene.done.values() if layer.name in r]
        write_layer_documents(group, plan, layer, receipts)
    if plan.only_layers:
        return
    for array in plan.probe.arrays:
        receipts = [r[array.name] for _, r in scene.done.values() if array.name in r]
        write_array_documents(group, plan, array, receipts)
        histogram = sum((r.histogram for r in receipts), start=Histogram.empty())
        write_histogram(histograms, array.name, histogram)
        scene.rows.append(catalog_row(plan, array))
    if not plan.probe.arrays:
        scene.rows.append(catalog_row(plan))
    write_node(histograms, "", group_document())
    write_scene_documents(group, plan)


def remove_scene(store: Store | str | Path, scene: str | Sequence[str]) -> Store:
    """Take a scene, or several, with patches and histograms (131,069 int64 each) out of a store, in one step.

    No other scene is touched. A removal that was interrupted is made first, and what it took out is no error.

    Raises `NotInStoreError` where there is no such scene: nothing is removed then.
    """
    names = [scene] if isinstance(scene, str) else list(dict.fromkeys(scene))
    root = store.root if isinstance(store, Store) else Path(store)
    gone = removed_by(settle(root), cv.SCENES)
    with writing(root):
        return _without(open_store(root), names, gone)


def _without(opened: Store, scenes: Sequence[str], gone: Container[str]) -> Store:
    """Take scenes out of a store; those that are ``gone`` are none of it any more."""
    names = [name for name in scenes if name in opened.scenes or name not in gone]
    if unknown := [name for name in names if name not in opened.scenes]:
        raise NotInStoreError(
            f"scenes of {opened.place.name} were expected, got {', '.join(unknown)}, which it does not hold. "
            "Nothing was removed; `sarzarr info STORE` lists its scenes."
        )
    if names:
        with changed_once(opened) as draft:
            withdraw_scenes(draft, names)
            update_indices(draft.anew())
    return opened.anew()
