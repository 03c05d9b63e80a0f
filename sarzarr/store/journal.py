"""Changes of a store that are made whole or not at all, however the process that makes them ends.

What changes is written beside the store first, in ``<store>.ingest``, and flushed. Then a journal there lists it, a
few bytes a document, and from then on the change is made: each thing is renamed into its place, and the journal goes.
Whoever comes upon a journal, to write or to open the store, renames what is left to rename. So a killed process
leaves the old store or the new one.
"""

import errno
import json
import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError, IngestError, NoRoomError
from sarzarr.files import (
    LOCK,
    Lock,
    flush,
    flush_names,
    holder_of,
    locked,
    mark_new,
    move_in,
    move_out,
    remove_partials,
    remove_path,
    whole_file,
)
from sarzarr.store.place import Folder, Head, Place

log = logging.getLogger(__name__)
JOURNAL: Final = ".journal.json"
"""The file beside a store that lists a change which is being made."""
DRAFT: Final = ".draft"
"""The folder beside a store where new documents and tables wait for their change."""
GONE: Final = ".gone"
"""The folder beside a store for what a change took away, until it is removed."""
BRIEFLY: Final = 15.0
"""Seconds that a long change waits for another one: a reader that mends the store needs no more, on a busy disk."""
PATIENCE: Final = 60.0
"""Seconds that a short change waits for another one."""
DEEPEST: Final = 1000
"""More folders within one another than a key has."""
LAST_BLOCKS: Final = 30.0
"""Seconds that the workers of a writer that was killed are waited for: they end with the block that they are at."""
Unit = tuple[str, Path | None]
"""A key of a store, and what takes its place: a file or a folder beside the store; None takes it away."""
NO_ROOM: Final = {errno.ENOSPC, errno.EFBIG, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""Errors of a disk that is full, or fails."""


def beside_store(root: Path) -> Path:
    """Return the folder beside a store where what enters it is made."""
    here = root.resolve()
    return here.with_name(here.name + ".ingest")


@dataclass(frozen=True)
class Draft:
    """A `Place`: a store in a folder as it will be after a change, of which nothing is in the store yet."""

    base: Folder
    """The store as it is."""
    folder: Path
    """The folder beside it for what is written."""
    units: dict[str, Path | None] = field(default_factory=dict)
    """What changes, by key, as `Unit`; what is set later may lie in what was set before."""

    def __str__(self) -> str:
        return str(self.base)

    @property
    def name(self) -> str:
        """See `Place.name`."""
        return self.base.name

    @property
    def home(self) -> str:
        """See `Place.home`."""
        return self.base.home

    @property
    def is_sealed(self) -> bool:
        """See `Place.is_sealed`."""
        return self.base.is_sealed

    def unsealed(self) -> "Draft":
        """See `Place.unsealed`."""
        return replace(self, base=self.base.unsealed())

    def _find(self, key: str) -> Path | None:
        """Return where a key will be read; None where it is taken away."""
        unit, rest = key, ""
        while unit:
            if unit in self.units:
                found = self.units[unit]
                return None if found is None else found / rest
            unit, _, name = unit.rpartition("/")
            rest = f"{name}/{rest}".rstrip("/")
        return self.base.path / key

    def _at(self, key: str) -> tuple[Folder, str]:
        found = self._find(key) or self.folder / "taken away"
        return Folder(found.parent), found.name

    def head(self, key: str) -> Head | None:
        """See `Place.head`."""
        folder, name = self._at(key)
        return folder.head(name)

    def get(self, key: str) -> bytes:
        """See `Place.get`."""
        folder, name = self._at(key)
        return folder.get(name)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Place.get_ranges`."""
        folder, name = self._at(key)
        return folder.get_ranges(name, ranges)

    def children(self, key: str = "") -> list[str]:
        """See `Place.children`."""
        here = self._find(key)
        names = set(Folder(here).children()) if here is not None else set()
        above = f"{key}/" if key else ""
        for unit, path in self.units.items():
            name, slash, _ = unit.removeprefix(above).partition("/")
            if not unit.startswith(above) or unit == key:
                continue
            if path is None and not slash:
                names -= {name, f"{name}/"}
            elif path is not None:
                names.add(f"{name}/" if slash or path.is_dir() else name)
        return sorted(names)

    def descriptor(self, key: str) -> int:
        """See `Place.descriptor`."""
        folder, name = self._at(key)
        return folder.descriptor(name)

    def zarr(self) -> Path:
        """See `Place.zarr`: the store as it is."""
        return self.base.zarr()

    def put(self, key: str, data: bytes) -> None:
        """See `Place.put`; what is there already with these bytes stays."""
        with suppress(FileNotFoundError):
            if self.get(key) == data:
                return
        if any(key.startswith(f"{unit}/") and path is not None for unit, path in self.units.items()):
            folder, name = self._at(key)
            folder.put(name, data)
        else:
            new = uuid.uuid4().hex
            Folder(self.folder).put(new, data)
            self.units[key] = self.folder / new

    @contextmanager
    def whole(self, key: str, *, once: bool = False) -> Iterator[Path]:
        """See `Place.whole`."""
        if once and self.head(key) is not None:
            raise FileExistsError(str(self.base.path / key))
        new = self.folder / uuid.uuid4().hex
        new.mkdir(parents=True)
        yield new
        self.swap(new, key)

    def swap(self, staged: Path, key: str) -> None:
        """See `Place.swap`."""
        self._forget(key)
        self.units[key] = staged.resolve()

    def delete(self, key: str) -> None:
        """See `Place.delete`."""
        self._forget(key)
        if self.base.head(key) is not None:
            self.units[key] = None

    def _forget(self, key: str) -> None:
        for unit in [unit for unit in self.units if unit == key or unit.startswith(f"{key}/")]:
            del self.units[unit]


# ------------------------------------------------------------------ who may write
@contextmanager
def writing(root: Path, *, patience: float | None = BRIEFLY) -> Iterator[Lock]:
    """Hold the lock of those who write a store, and mend first what one that was killed left half made.

    The lock's file is in `beside_store`; there need be no store yet.

    Raises `IngestError` where another holds it, for longer than ``patience`` seconds, which says who (None does not
    even wait for the workers of one that was killed); `NoRoomError` where a file cannot be written, since the disk is
    full or fails.
    """

    def busy(holder: str) -> Exception:
        return IngestError(
            f"one writer at a time was expected, got another that writes {root.name!r}: {holder}. "
            "Wait for it to end, then run this again."
        )

    beside = beside_store(root)
    if patience is not None and (holder := holder_of(beside)) and holder.is_dead:
        patience = max(patience, LAST_BLOCKS)
    with telling_no_room(root), locked(beside, busy=busy, patience=patience or 0) as lock:
        _mend(root.resolve(), is_after_death=lock.left_by is not None)
        try:
            yield lock
        finally:
            _tidy(beside)


@contextmanager
def telling_no_room(root: Path) -> Iterator[None]:
    """Turn an error of a disk that is full, or fails, into one that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise NoRoomError(
            f"expected room, and a disk that works, for {str(error.filename or root)!r}, got {error.strerror!r}. "
            f"What is done stays: make room (`sarzarr clean {root.name}` gives up what interrupted runs left beside "
            "the store), then run the same command again."
        ) from error


def _mend(root: Path, *, is_after_death: bool) -> None:
    """Finish the change that a journal lists, and remove what was begun: nobody else writes."""
    finish(root)
    beside = beside_store(root)
    _tidy(beside)
    for partial in partials_beside(root):
        remove_path(partial)
    for folder in imports_beside(root):
        if {path.name for path in folder.iterdir()} <= {LOCK}:
            with suppress(BlockingIOError), locked(folder, busy=BlockingIOError):
                pass  # of a killed import that was done: it goes with its lock
    if is_after_death:
        remove_partials(root)
        remove_partials(beside)


def _tidy(beside: Path) -> None:
    """Remove what changes were made of, and what they took away, unless one is still to be made of it."""
    for name in (DRAFT, GONE) if not (beside / JOURNAL).exists() else ():
        remove_path(beside / name)


def partials_beside(root: Path) -> list[Path]:
    """Return the folders beside a store, or beside its place, that were to become it."""
    return [path for path in _beside(root, f".{root.name}.") if path.name.endswith(".partial")]


def imports_beside(root: Path) -> list[Path]:
    """Return the folders beside a store where sets of samples are gathered."""
    return _beside(root, f"{root.name}.samples-")


def _beside(root: Path, begins: str) -> list[Path]:
    names = (path.name for path in root.parent.iterdir()) if root.parent.is_dir() else ()
    return [root.with_name(name) for name in sorted(names) if name.startswith(begins)]


# ------------------------------------------------------------------ how a change is made
@contextmanager
def drafted(root: Path, leaves: Iterable[Path] = ()) -> Iterator[Draft]:
    """Yield a store as it is, in which changes are drafted; at the end they are made, unless something was raised.

    ``leaves`` are files and folders beside it that are removed then. The caller is in `writing`.
    """
    root = root.resolve()
    draft = Draft(Folder(root), beside_store(root) / DRAFT)
    yield draft
    if draft.units:
        _write_journal(root, draft, leaves)
        finish(root)
        _tidy(beside_store(root))


def _write_journal(root: Path, draft: Draft, leaves: Iterable[Path]) -> None:
    beside, units = beside_store(root), _ordered(draft.units)
    for _, path in units:
        if path is not None:
            if path.is_dir():
                mark_new(path)
            flush(path)
    folders = {path.parent for _, path in units if path is not None}
    flush_names(*folders, *(folder.parent for folder in folders if folder != beside), beside, beside.parent)
    above = root.parent
    steps = [[key, path and path.relative_to(above).as_posix()] for key, path in units]
    left = [path.resolve().relative_to(above).as_posix() for path in leaves]
    with whole_file(beside / JOURNAL) as partial:
        partial.write_text(json.dumps({"steps": steps, "leaves": left}))
        flush(partial)
    flush_names(beside)


def _ordered(units: Mapping[str, Path | None]) -> list[Unit]:
    """Return things in the order in which they take their places: a table never names what is not there.

    Documents of nodes come after what is below them, so that a table's tells that all of it is new.
    """
    removes = any(path is None and key.startswith(f"{cv.SCENES}/") for key, path in units.items())
    tables = [cv.PATCHES, cv.CATALOG] if removes else [cv.CATALOG, cv.PATCHES]
    rank = {top: at for at, top in enumerate((cv.HISTOGRAMS, cv.SCENES, "zarr.json", *tables))}

    def place(unit: Unit) -> tuple[bool, int, int, str]:
        key, path = unit
        depth = key.count("/") if key.endswith("/zarr.json") else DEEPEST
        return path is None, rank.get(key.split("/")[0], len(rank)), -depth, key

    return sorted(units.items(), key=place)


def finish(root: Path) -> None:
    """Make the change that the journal beside a store lists, or what is left of it; the caller is in `writing`."""
    beside = beside_store(root)
    journal = _read_journal(beside / JOURNAL)
    if journal is None:
        return
    folders = set[Path]()
    for key, path in journal["steps"]:
        place = root / key
        if path is None:
            move_out(place, beside / GONE)
        else:
            move_in(root.parent / path, place)
        folders.add(place.parent)
    flush_names(*(folder for folder in folders if folder.is_dir()), root)
    for path in journal["leaves"]:
        move_out(root.parent / path, beside / GONE)
    (beside / JOURNAL).unlink()


def _read_journal(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        names = [name for step in found["steps"] for name in step if name is not None]
        if any(".." in Path(name).parts or Path(name).is_absolute() for name in (*names, *found["leaves"])):
            raise ValueError("a name in it leads elsewhere")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStoreError(
            f"a list of documents was expected in {str(path)!r}, got another file ({error}). Restore it from a "
            "copy, or delete it and run the command that was interrupted again."
        ) from None
    return found


def under_change(place: Place) -> Path | None:
    """Return the folder of a store of which a change is half made: its files may be the old ones and the new."""
    if isinstance(place, Folder) and not place.home and (beside_store(place.path) / JOURNAL).exists():
        return place.path
    return None


def settle(root: Path) -> tuple[str, ...]:
    """Wait until no change of a store is half made; make the rest of one whose maker died. Return what it took away.

    Raises `CorruptStoreError` where that cannot be written.
    """
    beside, taken, began = beside_store(root), tuple[str, ...](), time.monotonic()
    path = beside / JOURNAL
    holder = holder_of(beside)
    if holder is None:
        with suppress(OSError):  # of a writer that was killed as it took it away
            beside.rmdir()
    elif holder.is_dead and not path.exists():
        with suppress(IngestError, OSError), writing(root, patience=None):
            pass  # what it had begun is removed
    while (journal := _read_journal(path)) is not None:
        taken = tuple(key for key, new in journal["steps"] if new is None)
        try:
            with writing(root, patience=None):
                log.info("%s: a change that was interrupted is made", root.name)
        except IngestError as error:
            if time.monotonic() - began > PATIENCE:
                raise CorruptStoreError(f"a whole change was expected, got one under way. {error}") from None
            time.sleep(0.01)
        except OSError as error:
            raise CorruptStoreError(
                f"a whole change of {root.name!r} was expected, got one that was interrupted and cannot be made here "
                f"({error}). Run `sarzarr clean {root.name}` where the store can be written."
            ) from None
    return taken


def removed_by(units: Iterable[str], group: str) -> set[str]:
    """Return the names directly below a group among keys that were taken away."""
    return {key.removeprefix(f"{group}/") for key in units if key.startswith(f"{group}/")}
