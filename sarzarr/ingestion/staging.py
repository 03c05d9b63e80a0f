"""The folder beside a store in which scenes are made, with a receipt for each block that is done.

A receipt is no promise that its files are on the disk: they are flushed once a scene, when that is whole, and a file
`FLUSHED` says so. After a machine was switched off, a scene without it is begun anew.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sarzarr.errors import CorruptStoreError
from sarzarr.files import boot, flush, flush_names, remove_partials, remove_tree, whole_file
from sarzarr.ingestion.blocks.jobs import BlockJob, Step
from sarzarr.ingestion.blocks.receipts import Receipt, files_of, receipt_from_json, receipt_to_json
from sarzarr.ingestion.layers.plan import STEP, LayerJob
from sarzarr.ingestion.scene_plan import ScenePlan
from sarzarr.store.journal import NO_ROOM
from sarzarr.store.shard_job import check_written

log = logging.getLogger(__name__)
Job = BlockJob | LayerJob
"""A unit of work."""
FLUSHED: Final = "flushed"
"""The file of a staged scene that is there when all of it is whole and on the disk."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a block of (rows, columns) pixels: its receipt, or the error that it ended with."""

    job: Job
    """The block."""
    receipt: Receipt | None = None
    """Its files and counts; None where it failed."""
    error: str = ""
    """The error, with its type, where it failed."""
    no_room: OSError | None = None
    """The error, where the disk is full or fails: all others would, too."""
    first_time: bool = True
    """Whether its pixels were read for it; a decision on zeros reads none."""
    worker: str = ""
    """The cluster's worker that ended it; empty where there is none."""

    def __str__(self) -> str:
        on = f", on {self.worker}" if self.worker else ""
        return f"{self.job.scene}, block at row {self.job.row}, column {self.job.col}{on}: {self.error}"


@dataclass
class Staged:
    """One scene on its way: its folder, and the blocks, (rows, columns) of pixels, that are in."""

    plan: ScenePlan
    """Its plan."""
    folder: Path
    """The folder beside the store that its parts are gathered in."""
    step: Step
    """The pass that it is at."""
    waiting: int = 0
    """Blocks that are not in yet."""
    done: dict[str, tuple[Job, Receipt]] = field(default_factory=dict)
    """Blocks that are in, by `job_key`."""
    workers: dict[str, str] = field(default_factory=dict)
    """The worker that ended each block of this run, likewise; empty words where there is none."""
    failures: list[str] = field(default_factory=list)
    """Errors of blocks, and of itself, each with its type."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The rows of its arrays in the catalog, when it is whole."""

    @property
    def group(self) -> Path:
        """The folder of the staged scene group: arrays (rows, columns)."""
        return self.folder / "scene"

    @property
    def mask(self) -> Path:
        """The folder of the uint8 flags that a first pass writes, if borders are eroded."""
        return self.folder / "mask"

    def check_files(self) -> None:
        """Raise `CorruptStoreError` unless every file is here, with the bytes and checksums that its worker said."""
        for key, (job, receipt) in self.done.items():
            for array, records in files_of(receipt):
                check_written(
                    Path(job.folder) / array, records, job.encoding.grid, by=self.workers.get(key, "")
                )

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Keep an error with this scene, so that the others go on."""
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            log.debug("%s failed", self.plan.id, exc_info=True)
            self.failures.append(f"{self.plan.id}: {type(error).__name__}: {error}")

    def jobs(self) -> Iterator[Job]:
        """Yield the blocks, (rows, columns) of pixels, of its step; layers are written with the last one."""
        place = self.mask if self.step is Step.MASK else self.group
        yield from self.plan.jobs(
            str(place), step=self.step, mask=str(self.mask) if self.plan.has_border else ""
        )
        if self.step is Step.WRITE:
            yield from self.plan.layer_jobs(str(self.group))


def job_key(job: Job) -> str:
    """Return the name of a block within its scene: its first row and column in pixels are in it.

    That of a layer has the dtype and the fill: one that turns out to be taken makes another block.
    """
    if isinstance(job, LayerJob):
        stored = job.encoding
        return f"{STEP}-{job.layer.name}-{stored.dtype}-{stored.fill}-{job.row}-{job.col}"
    return f"{job.step}-{job.arrays[0].name}-{job.row}-{job.col}"


def _receipt_path(job: Job) -> Path:
    return Path(job.folder).parent / "receipts" / f"{job_key(job)}.json"


def stage(plan: ScenePlan, folder: Path) -> Staged:
    """Take up the staged work of the same scene and sources, or begin anew."""
    fingerprint, began = folder / "fingerprint", folder / "boot"
    known = fingerprint.read_text() if fingerprint.exists() else ""
    is_kept = began.exists() and (began.read_text() == boot() or (folder / FLUSHED).exists())
    if folder.exists() and not (known == plan.fingerprint and is_kept):
        remove_tree(folder)
    (folder / "receipts").mkdir(parents=True, exist_ok=True)
    began.write_text(boot())
    fingerprint.write_text(plan.fingerprint)
    remove_partials(folder)
    return Staged(plan, folder, Step.MASK if plan.has_border and not plan.only_layers else Step.WRITE)


def begin_documents(scene: Staged) -> None:
    """Take back that a scene is on the disk, before something of it is written again."""
    done = scene.folder / FLUSHED
    if done.exists():
        done.unlink()
        flush_names(scene.folder)


def flush_staged(scene: Staged) -> None:
    """Flush a whole scene to the disk, once, and say so beside it."""
    done = scene.folder / FLUSHED
    flush(scene.folder)
    flush_names(scene.folder.parent)
    done.touch()
    flush_names(done, scene.folder)


def leave_receipt(job: Job, receipt: Receipt) -> None:
    """Leave a receipt beside the store, never in it, as JSON: the block's bytes are written."""
    place = _receipt_path(job)
    place.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(place) as partial:
        partial.write_text(receipt_to_json(receipt))


def intact_receipt(job: Job) -> Receipt | None:
    """Return the receipt of a block whose files all have the chunks and checksums that it says."""
    place = _receipt_path(job)
    if not place.exists():
        return None
    receipt = receipt_from_json(place.read_text())
    try:
        for array, records in files_of(receipt):
            check_written(Path(job.folder) / array, records, job.encoding.grid)
    except CorruptStoreError:
        return None
    return receipt
