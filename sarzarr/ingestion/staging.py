"""Where scenes are made: a folder beside the store, with a receipt for each block that is done."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from sarzarr import conventions as cv
from sarzarr.errors import IngestError
from sarzarr.files import locked, remove_partials, remove_tree, whole_file
from sarzarr.ingestion.blocks.jobs import BlockJob, Step
from sarzarr.ingestion.blocks.receipts import Receipt, receipt_from_json, receipt_to_json
from sarzarr.ingestion.layers.plan import STEP, LayerJob
from sarzarr.ingestion.scene_plan import ScenePlan
from sarzarr.store.place import Folder
from sarzarr.store.shards import digest_of

Job = BlockJob | LayerJob
"""A unit of work."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A block that could not be done."""

    scene: str
    """The scene's id."""
    at: tuple[int, int]
    """(row, column) of the block's first pixel."""
    error: str
    """What was raised."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """A block that is done."""

    scene: str
    """The scene's id."""
    job: Job
    """What was asked for."""
    receipt: Receipt
    """What became of it."""
    first_time: bool
    """Whether its pixels were read for it; a decision on zeros reads none."""


@dataclass
class Staged:
    """One scene on its way: where its parts are gathered, and which blocks are in."""

    plan: ScenePlan
    """What is to be done."""
    folder: Path
    """Where its parts are gathered, beside the store."""
    step: Step
    """The pass that it is at."""
    waiting: int = 0
    """Blocks that are not in yet."""
    done: dict[str, tuple[Job, Receipt]] = field(default_factory=dict)
    """Blocks that are in, by `job_key`."""
    failures: list[Failure] = field(default_factory=list)
    """Blocks that could not be done."""

    @property
    def group(self) -> Path:
        """The staged scene group."""
        return self.folder / "scene"

    @property
    def mask(self) -> Path:
        """Where a first pass writes the flags, if borders are eroded."""
        return self.folder / "mask"

    def jobs(self) -> Iterator[Job]:
        """Yield the blocks of the step that the scene is at; its layers are written with the last one."""
        place = self.mask if self.step is Step.MASK else self.group
        yield from self.plan.jobs(str(place), step=self.step, mask=str(self.mask) if self.plan.border else "")
        if self.step is Step.WRITE:
            yield from self.plan.layer_jobs(str(self.group))


def job_key(job: Job) -> str:
    """Return the name of a block within its scene."""
    if isinstance(job, LayerJob):
        return f"{STEP}-{job.layer.name}-{job.row}-{job.col}"
    return f"{job.step}-{job.arrays[0].name}-{job.row}-{job.col}"


def receipt_path(job: Job) -> Path:
    """Return where the receipt of a block is left: beside the store, never in it."""
    return Path(job.folder).parent / "receipts" / f"{job_key(job)}.json"


def staging_of(store: Path) -> Path:
    """Return the folder beside a store where scenes are made."""
    return store.with_name(store.name + ".ingest")


def stage(plan: ScenePlan, folder: Path) -> Staged:
    """Take up the staged work of the same scene and sources, or begin anew."""
    said = folder / "fingerprint"
    if folder.exists() and (not said.exists() or said.read_text() != plan.fingerprint):
        remove_tree(folder)
    (folder / "receipts").mkdir(parents=True, exist_ok=True)
    said.write_text(plan.fingerprint)
    remove_partials(folder)
    return Staged(plan, folder, Step.MASK if plan.border and not plan.only_layers else Step.WRITE)


def leave_receipt(job: Job, receipt: Receipt) -> None:
    """Leave a receipt beside the store: the block is done."""
    place = receipt_path(job)
    place.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(place) as partial:
        partial.write_text(receipt_to_json(receipt))


def intact_receipt(job: Job) -> Receipt | None:
    """Return the receipt of a block whose files are all there as it says."""
    place = receipt_path(job)
    if not place.exists():
        return None
    receipt, group = receipt_from_json(place.read_text()), Folder(Path(job.folder))
    for name, array in receipt.arrays.items():
        for folder, records in ((name, array.shards), (name + cv.FLAGS_SUFFIX, array.flag_shards)):
            for key, record in records.items():
                digest = digest_of(group, f"{folder}/{key}", job.encoding.grid)
                if digest != (record.size, record.digest):
                    return None
    return receipt


def only_writer(staging: Path) -> AbstractContextManager[None]:
    """Hold the right to write into a store; another process that holds it is an error, never a mix."""
    busy = IngestError(
        f"one ingest at a time was expected, got another that writes beside {staging.stem!r}. "
        "Wait for it to end, then run this again."
    )
    return locked(staging, busy=busy)
