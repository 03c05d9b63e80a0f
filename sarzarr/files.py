"""The only place that renames, locks and flushes files and folders.

What is made is made beside its place, under a hidden name that ends in ``.partial``, and takes its name in one step:
a reader sees the old or the new, and a process that is killed leaves nothing half.
"""

import ctypes
import errno
import json
import os
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Final

LOCK: Final = ".lock"
"""The file of a folder that is locked; it is there as long as the lock is held, and says who holds it."""
NEW: Final = ".new.partial"
"""A file in a folder that has not taken its place yet: see `move_in`."""
SILENCE: Final = 600.0
"""Seconds without a sign of life after which a holder on another machine, whose lock is free, is taken for dead."""
SIGNS: Final = 10.0
"""Seconds between two signs of life."""
HALF_MADE: Final = 10.0
"""Seconds after which a lock that names nobody belongs to nobody: its maker died before it could write its name."""
PAUSES: Final = (0.0, 0.05, 0.2, 0.5)
"""Seconds before each try to take away a folder that others may still write into."""


def beside(path: Path) -> Path:
    """Return a new hidden name beside ``path``: ``.<name>.<hex>.partial``."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")


def take_name(partial: Path, path: Path, *, once: bool = False) -> None:
    """Rename a file to ``path``, in the place of what is there; with ``once`` that is a `FileExistsError`."""
    if once:
        os.link(partial, path, follow_symlinks=False)
        partial.unlink()
    else:
        partial.replace(path)


@contextmanager
def whole_file(path: Path, *, once: bool = False) -> Iterator[Path]:
    """Give a path beside ``path`` to write; what is there at the end takes its name, unless something was raised.

    With ``once`` it is flushed to the disk first, and a file that is there already is a `FileExistsError`.
    """
    partial = beside(path)
    try:
        with naming(path):
            yield partial
            if once:
                flush(partial)
        take_name(partial, path, once=once)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Give a new hidden folder beside ``path`` for what is needed to make that, and remove it at the end."""
    folder = beside(path)
    try:
        folder.mkdir(parents=True)
        yield folder
    finally:
        remove_tree(folder)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system that names no file, as those of writes do, name ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def whole_folder(path: Path, *, once: bool = False) -> Iterator[Path]:
    """Give a new folder beside ``path`` to fill; at the end it takes its name, unless something was raised.

    With ``once`` it is flushed to the disk first, and anything that is there already is a `FileExistsError`.
    """
    partial = beside(path)
    try:
        partial.mkdir(parents=True)
        yield partial
        swap_in(partial, path, once=once, flushed=once)
    finally:
        with suppress(OSError):
            remove_tree(partial)


def swap_in(new: Path, place: Path, *, once: bool = False, flushed: bool = True) -> None:
    """Rename a folder to ``place``; what was there is removed after. At every moment one of them is there.

    Parameters
    ----------
    new, place
        Folders of one file system.
    once
        Anything that is there already is a `FileExistsError`: of two processes, one wins.
    flushed
        Flush every file below ``new`` to the disk first, so that the rename never precedes its data.
    """
    if flushed:
        flush(new)
    place.parent.mkdir(parents=True, exist_ok=True)
    if once or not place.exists():
        _rename_once(new, place)
    elif _exchange(new, place):
        remove_tree(new)
    else:
        swap_out(place)
        new.rename(place)
    if flushed:
        flush_names(place.parent)


def _rename_once(new: Path, place: Path) -> None:
    """Rename a folder to where there must be none: onto one with files in it that fails, as one step."""
    try:
        new.rename(place)
    except OSError as error:
        is_taken = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
        if is_taken or isinstance(error, FileExistsError):
            raise FileExistsError(str(place)) from None
        raise


def mark_new(folder: Path) -> None:
    """Mark a folder as one that has not taken its place yet."""
    (folder / NEW).touch()


def move_in(new: Path, place: Path) -> None:
    """Put a file, or a folder that `mark_new` marked, in its place; done again after a kill, it is done once.

    What was there is at ``new`` after that, where that can be, or beside it. At every moment one of them is there.
    """
    if new.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        new.replace(place)
        return
    if (new / NEW).exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            new.rename(place)
        elif not _exchange(new, place):
            place.rename(beside(new))
            new.rename(place)
    if place.is_dir():
        (place / NEW).unlink(missing_ok=True)


def move_out(place: Path, to: Path) -> None:
    """Take a file or a folder away, if it is there, to a new name in another folder of the file system."""
    if place.exists():
        to.mkdir(parents=True, exist_ok=True)
        place.rename(to / f"{uuid.uuid4().hex}.partial")


def swap_out(place: Path) -> None:
    """Take a folder away in one step, then remove what it held."""
    old = beside(place)
    place.rename(old)
    remove_tree(old)


def remove_tree(folder: Path) -> None:
    """Remove a folder, if there is one, and all that is in it, though others may still write there for a moment."""
    for pause in PAUSES:
        time.sleep(pause)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    shutil.rmtree(folder)  # says what stands against it


def partials(folder: Path) -> list[Path]:
    """Return what is below a folder, at any depth, that was begun and has not taken its name, outermost alone."""
    found = list[Path]()
    for here, folders, files in os.walk(folder):
        begun = [name for name in (*folders, *files) if name.endswith(".partial")]
        folders[:] = [name for name in folders if name not in begun]
        found += [Path(here, name) for name in begun]
    return sorted(found)


def remove_partials(folder: Path) -> None:
    """Remove what is below a folder that a process which was killed had begun."""
    for partial in partials(folder):
        remove_path(partial)


def remove_path(path: Path) -> None:
    """Remove a file, or a folder and all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flush a file, or a folder and all below it, to the disk."""
    _flush((path, *path.rglob("*")))


def flush_names(*folders: Path) -> None:
    """Flush the names that folders hold, and nothing below them, to the disk."""
    _flush(dict.fromkeys(folders))


def _flush(entries: Iterable[Path]) -> None:
    for entry in entries:
        if os.name != "nt":
            handle = os.open(entry, os.O_RDONLY)
        elif entry.is_file():  # Windows flushes files alone, through handles that may write
            handle = os.open(entry, os.O_RDWR)
        else:
            continue
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system has no such call: two renames do it then."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library from before 2018
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as the lock's file says; no store ever does."""

    process: int
    """Its number."""
    machine: str
    """The name of its machine."""
    since: str
    """UTC, ISO 8601 with Z."""
    began: str = ""
    """Its own start, which tells it from a later process of that number; empty where the system does not say."""

    def __str__(self) -> str:
        return f"process {self.process} on {self.machine} since {self.since}"

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.machine == platform.node()

    @property
    def is_dead(self) -> bool:
        """Whether it was on this machine, and runs no more."""
        return self.is_here and not self.is_running

    @property
    def is_running(self) -> bool:
        """Whether a process of this machine is that one and runs."""
        if os.name == "nt":  # a lock goes with its process there, and a signal 0 would interrupt it
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except OSError:  # it is another user's
            pass
        return _began(self.process) == self.began


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds."""

    path: Path
    """Its file."""
    left_by: Holder | None = None
    """The process that died with it before."""

    def show_life(self) -> None:
        """Show other machines that the holder lives; more often than every `SIGNS` seconds it costs nothing."""
        with suppress(OSError):
            if time.time() - self.path.stat().st_mtime > SIGNS:
                os.utime(self.path)


def _began(process: int) -> str:
    """Return the boot and the tick at which a process of this machine began; empty where the system does not say."""
    try:
        ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{boot()} {ticks}"
    except (OSError, IndexError):
        return ""


def boot() -> str:
    """Return the name of this machine's run since it was switched on; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@contextmanager
def locked(
    folder: Path, *, busy: Callable[[str], Exception] | None = None, patience: float = 0.0
) -> Iterator[Lock]:
    """Hold the lock of a folder, which is made where there is none, and taken away where nothing is left in it.

    The lock goes with this process, however that ends, and with those that were forked from it. It keeps other
    threads of this process out, too. Where the file system grants every lock, or none, the name of the holder in the
    lock's file decides: one that is on this machine and does not run is dead; one on another machine is, when it has
    shown no life for `SILENCE` seconds.

    Where another holds it, it is waited for; with ``busy`` no longer than ``patience`` seconds: then it is raised,
    of a text that says who holds it.
    """
    path = folder / LOCK
    try:
        handle, left_by = _held(path, None if busy is None else patience)
    except BlockingIOError as error:
        raise (busy or BlockingIOError)(_holder_text(path)) from error
    try:
        yield Lock(path, left_by)
    finally:
        try:
            if _is_still(handle, path):
                path.unlink(missing_ok=True)
        except PermissionError:  # Windows removes no file that is open; where another has opened it, it stays
            os.close(handle)
            with suppress(OSError):
                path.unlink(missing_ok=True)
                folder.rmdir()
        else:
            with suppress(OSError):
                folder.rmdir()
            os.close(handle)


def holder_of(folder: Path) -> Holder | None:
    """Return who holds the lock of a folder, or died with it; None where nobody does, or it is not said."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        return _read_holder(handle)
    finally:
        os.close(handle)


def _held(path: Path, patience: float | None) -> tuple[int, Holder | None]:
    """Return a handle of a lock's file that holds it, and the holder that died with it; else `BlockingIOError`."""
    began, left_by = time.monotonic(), None
    while True:
        with suppress(FileExistsError):
            path.parent.mkdir(parents=True)
        try:
            return _new_lock(path), left_by
        except FileNotFoundError:  # whoever held it took the folder away
            continue
        except FileExistsError:
            pass
        except PermissionError:
            if os.name != "nt":  # there it is being removed
                raise
        if (dead := _taken_from_the_dead(path)) is not None:
            left_by = dead
            continue
        waited = time.monotonic() - began
        if patience is not None and waited >= patience:
            raise BlockingIOError(errno.EAGAIN, "locked by another", str(path))
        time.sleep(0.005 if waited < 1 else 0.05)


def _new_lock(path: Path) -> int:
    """Make a lock's file, which no other can at the same time, and return a handle that holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        while not _granted(handle):  # another looks at it for a moment
            time.sleep(0.001)
        own = os.getpid()
        since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        holder = Holder(own, platform.node(), since, _began(own))
        os.lseek(handle, 1, os.SEEK_SET)  # Windows lets nobody else read the byte that is locked
        os.write(handle, json.dumps(asdict(holder)).encode())
    except BaseException:
        os.close(handle)
        with suppress(OSError):
            path.unlink()
        raise
    return handle


def _taken_from_the_dead(path: Path) -> Holder | None:
    """Take a lock's file away whose holder is dead, and return that one; None where there is none."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        if not _granted(handle):
            return None
        holder = _read_holder(handle)
        if not _is_still(handle, path) or _may_live(holder, path):
            return None
        if os.name == "nt":
            os.close(handle)
            path.unlink(missing_ok=True)
            handle = -1
        else:
            away = beside(path)
            path.rename(away)
            away.unlink()
        return holder or Holder(0, "", "")
    except FileNotFoundError:
        return None
    finally:
        if handle >= 0:
            os.close(handle)


def _may_live(holder: Holder | None, path: Path) -> bool:
    """Whether the holder of a lock that was granted may live: not every file system's locks are true."""
    if holder is None:
        return time.time() - path.stat().st_mtime < HALF_MADE
    if holder.is_here:
        return holder.is_running
    return _age(path) < SILENCE


def _age(path: Path) -> float:
    """Return the seconds since a file was written, by the clock of its file system."""
    probe = beside(path)
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink()


def _is_still(handle: int, path: Path) -> bool:
    """Whether a handle is that of the file of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _read_holder(handle: int) -> Holder | None:
    try:
        os.lseek(handle, 1, os.SEEK_SET)
        return Holder(**json.loads(os.read(handle, 4096)))
    except (OSError, ValueError, TypeError):
        return None


def _holder_text(path: Path) -> str:
    """Return who holds a lock, for people, and what to do where that is no more."""
    holder = holder_of(path.parent)
    if holder is None:
        return "another process"
    if holder.is_here:
        return str(holder)
    return f"{holder} (if it is dead, delete {str(path)!r})"


def _granted(handle: int) -> bool:
    """Whether the system gives the lock of a file to this handle, or has no locks to give."""
    try:
        import fcntl
    except ImportError:  # Windows, or a Python without locks: the name of the holder decides then
        try:
            msvcrt = import_module("msvcrt")
        except ImportError:
            return True
        os.lseek(handle, 0, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return True
        raise
    return True


_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of file systems without locks."""
