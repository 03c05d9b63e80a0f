"""Blocks of a scene written again, by the code that wrote them first, into a folder beside the store."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from sarzarr import conventions as cv
from sarzarr.errors import IngestError
from sarzarr.ingestion.blocks.jobs import BlockJob, Step
from sarzarr.ingestion.blocks.receipts import Receipt
from sarzarr.ingestion.blocks.write import write_block, write_layer
from sarzarr.ingestion.layers.plan import LayerJob
from sarzarr.ingestion.run import decisions
from sarzarr.ingestion.scene_plan import ScenePlan
from sarzarr.ingestion.staging import Job, Outcome, Staged, job_key
from sarzarr.pixels.bounds import Histogram
from sarzarr.store.manifest import ShardRecord
from sarzarr.tasks import compute, processes, workplace

Shard = tuple[str, str]
"""An array's name in its scene, and the key of one of its files, ``c/0/0``."""


def write_again(plan: ScenePlan, folder: Path, wanted: Collection[Shard] | None) -> Staged:
    """Write the blocks of some files of a scene, (rows, columns) of pixels, again; all blocks if ``wanted`` is None.

    Where zeros, or borders, are to be judged by the whole scene, all of its blocks are written.
    Raises `IngestError` where a block fails.
    """
    is_masked = plan.has_border and not plan.only_layers
    scene = Staged(plan, folder, Step.MASK if is_masked else Step.WRITE)
    with processes(plan.bytes_in), workplace(folder):
        if is_masked:
            _carry_out(scene, list(scene.jobs()))
            _decide(scene)
            scene.step, scene.done = Step.WRITE, {}
        jobs = list(scene.jobs())
        some = jobs if wanted is None else [job for job in jobs if not _files(job).isdisjoint(wanted)]
        _carry_out(scene, some)
        is_undecided = any(
            r.regions is not None for _, receipt in scene.done.values() for r in receipt.values()
        )
        if is_undecided and len(some) < len(jobs):
            known = set(map(job_key, some))
            _carry_out(
                scene, [job for job in jobs if isinstance(job, BlockJob) and job_key(job) not in known]
            )
        _decide(scene)
    return scene


def _files(job: Job) -> set[Shard]:
    """Return the files that a block writes."""
    names = [job.layer.name] if isinstance(job, LayerJob) else [source.name for source in job.arrays]
    names += [] if isinstance(job, LayerJob) else [name + cv.FLAGS_SUFFIX for name in names]
    return {(name, key) for name in names for key in job.every_file({})}


def _write(job: Job) -> Outcome:
    try:
        receipt: Receipt = write_layer(job) if isinstance(job, LayerJob) else write_block(job)
    except Exception as error:
        return Outcome(job=job, error=f"{type(error).__name__}: {error}")
    return Outcome(job=job, receipt=receipt)


def _carry_out(scene: Staged, jobs: Sequence[Job]) -> None:
    compute([(_write, (job,)) for job in jobs], lambda outcome: _take(scene, outcome))


def _decide(scene: Staged) -> None:
    compute(list(decisions(scene)), lambda outcome: _take(scene, outcome))


def _take(scene: Staged, outcome: Outcome) -> None:
    if outcome.receipt is None:
        raise IngestError(f"a block that can be written was expected, got {outcome}.")
    scene.done[job_key(outcome.job)] = outcome.job, outcome.receipt


def records_of(scene: Staged, array: str) -> dict[str, ShardRecord]:
    """Return the records of the files of an array, of its flags or of a layer that were written again, by key."""
    name = array.removesuffix(cv.FLAGS_SUFFIX)
    receipts: Iterable[Receipt] = [receipt for _, receipt in scene.done.values()]
    if any(array in receipt for receipt in receipts):
        return {k: r for receipt in receipts if array in receipt for k, r in receipt[array].shards.items()}
    return {k: r for receipt in receipts if name in receipt for k, r in receipt[name].flag_shards.items()}


def histogram_of_all(scene: Staged, array: str) -> Histogram:
    """Return the dB histogram of an array, int64 counts, of which all blocks were written again."""
    parts = (receipt[array].histogram for _, receipt in scene.done.values() if array in receipt)
    return sum(parts, start=Histogram.empty())
