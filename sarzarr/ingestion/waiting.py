"""Leftovers of interrupted runs: scenes and sets of samples that wait beside a store, and files without their name.

`clean` removes them, also those in the store; never what a living process writes.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sarzarr.errors import IngestError, NoRoomError, StoreNotFoundError
from sarzarr.files import LOCK, Holder, holder_of, locked, partials, remove_path
from sarzarr.ingestion.plan import IngestPlan
from sarzarr.store.journal import beside_store, imports_beside, partials_beside, settle, writing
from sarzarr.store.store import Store
from sarzarr.text import counted, size_text

log = logging.getLogger(__name__)
NOTE: Final = ".scenes.json"
"""The file beside a store that names the scenes of an ingest which is not done."""


def leave_note(root: Path, scenes: Sequence[str]) -> None:
    """Leave the names of all scenes of an ingest beside the store."""
    (beside_store(root) / NOTE).write_text(json.dumps(list(scenes)))


def take_note_away(root: Path) -> None:
    """Take the note of `leave_note` away: the ingest is done."""
    (beside_store(root) / NOTE).unlink(missing_ok=True)


def check_room(plan: IngestPlan) -> None:
    """Hold the bytes that a plan may write against those that are free where its store is, before any is written.

    Raises `NoRoomError` with both numbers, unless the plan is to ignore it.
    """
    beside = beside_store(plan.store)
    done = sum(size_of(beside / scene.id) for scene in plan.scenes)
    wanted, free = max(plan.bytes_out - done, 0), shutil.disk_usage(beside).free
    if wanted > free and not plan.options.ignore_space:
        raise NoRoomError(
            f"expected {size_text(wanted)} of free space for what {plan.store.name} may take at the most, got "
            f"{size_text(free)}. Make room, or pass --ignore-space where most pixels were not measured."
        )


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; 0 where there is none."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for found in path.rglob("*"):
        with suppress(FileNotFoundError):  # it was renamed meanwhile
            total += found.stat().st_size if found.is_file() else 0
    return total


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """An ingest that is not done, as it is found beside a store."""

    scenes: int
    """Scenes that it was to write, or found in the store."""
    staged: int
    """Scenes of it that wait beside the store, whole or in part."""
    size: int
    """Their bytes."""
    holder: Holder | None
    """The process that still works on it; None where it was interrupted."""

    def text(self, name: str) -> str:
        """Return it as a sentence, for people."""
        held = f"{self.staged} of {counted(self.scenes, 'scene')} wait beside this store ({size_text(self.size)})"
        if self.holder is not None:
            return f"{held}: {self.holder} writes them"
        return f"{held}: run the same ingest again, or `sarzarr clean {name}`"


def waiting(store: Store) -> Waiting | None:
    """Return the ingest into a store that is not done; None where there is none."""
    beside = beside_store(store.root)
    try:
        names = json.loads((beside / NOTE).read_text())
    except (OSError, ValueError):
        return None
    staged = [beside / name for name in names if any((beside / name / "receipts").glob("*"))]
    holder = holder_of(beside)
    return Waiting(
        scenes=len(names),
        staged=len(staged),
        size=sum(map(size_of, staged)),
        holder=None if holder is None or holder.is_dead else holder,
    )


# ------------------------------------------------------------------ what is removed
@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """Leftovers that `clean` removed, or would remove."""

    removed: tuple[tuple[Path, int], ...]
    """Files and folders, and the bytes of each."""
    kept: tuple[str, ...]
    """What a living process writes, and who it is."""

    @property
    def size(self) -> int:
        """The bytes of all that is removed."""
        return sum(size for _, size in self.removed)


def clean(store: Store | str | Path, *, dry_run: bool = False) -> Cleaned:
    """Remove what interrupted runs left beside a store and in it, and return what it was, with its bytes.

    A change that was interrupted is made first. What goes is staged scenes of an ingest and shards of an import,
    which running the same command again would take up; copies that were not done; and files without their name.
    What a living process writes stays. With ``dry_run`` nothing is removed, and no change is made.

    Raises `StoreNotFoundError` where there is no store, nor anything left of one.
    """
    root = (store.root if isinstance(store, Store) else Path(store)).resolve()
    folders = [beside_store(root), *imports_beside(root)]
    there = [root / "zarr.json", *folders, *partials_beside(root)]
    if not any(path.exists() for path in there):
        raise StoreNotFoundError(
            f"a store, or what is left of one, was expected at {str(root)!r}, got neither. Name another place."
        )
    if not dry_run:
        settle(root)
    removed, kept = list[tuple[Path, int]](), list[str]()
    for folder in folders:
        if (holder := holder_of(folder)) and not holder.is_dead:
            kept.append(f"{folder.name}, which {holder} writes")
            continue
        found = sorted(p for p in folder.glob("*") if p.name != LOCK)
        is_own = folder == beside_store(root)
        found += [*partials_beside(root), *partials(root)] if is_own else []
        removed += [(path, size_of(path)) for path in found]
        if not dry_run:
            with writing(root) if is_own else locked(folder, busy=IngestError):
                for path in found:
                    remove_path(path)
    return Cleaned(removed=tuple(removed), kept=tuple(kept))
