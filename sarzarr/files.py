"""The only place that renames, locks and flushes files and folders.

What is made is made beside its place, under a hidden name that ends in ``.partial``, and takes its name in one step:
a reader sees the old or the new, and a process that is killed leaves nothing half.
"""

import ctypes
import errno
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Final

LOCK: Final = ".lock"
"""The file of a folder that is locked; it is there as long as the lock is held."""
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
        yield partial
        if once:
            flush(partial)
        take_name(partial, path, once=once)
    finally:
        partial.unlink(missing_ok=True)


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


def _rename_once(new: Path, place: Path) -> None:
    """Rename a folder to where there must be none: onto one with files in it that fails, as one step."""
    try:
        new.rename(place)
    except OSError as error:
        is_taken = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
        if is_taken or isinstance(error, FileExistsError):
            raise FileExistsError(str(place)) from None
        raise


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


def remove_partials(folder: Path) -> None:
    """Remove the files below a folder that a process which was killed had begun."""
    for partial in folder.rglob("*.partial"):
        partial.unlink()


def flush(path: Path) -> None:
    """Flush a file, or a folder and all below it, to the disk."""
    for entry in (path, *path.rglob("*")):
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


@contextmanager
def locked(folder: Path, *, busy: Exception | None = None) -> Iterator[None]:
    """Hold the lock of a folder, which is made where there is none, and taken away where nothing is left in it.

    The lock goes with this process, however that ends, and with those that were forked from it. It keeps other
    threads of this process out, too. Where another holds it, ``busy`` is raised; without that it is waited for.
    """
    lock = folder / LOCK
    try:
        handle = _held(lock, wait=busy is None)
    except BlockingIOError:
        raise busy or BlockingIOError(str(folder)) from None
    try:
        yield
    finally:
        try:
            lock.unlink(missing_ok=True)
        except PermissionError:  # Windows removes no file that is open; where another has opened it, it stays
            os.close(handle)
            with suppress(OSError):
                lock.unlink(missing_ok=True)
                folder.rmdir()
        else:
            with suppress(OSError):
                folder.rmdir()
            os.close(handle)


def _held(lock: Path, *, wait: bool) -> int:
    """Return a handle of a lock's file that holds it, and that is still the file of that name."""
    while True:
        with suppress(FileExistsError):
            lock.parent.mkdir(parents=True)
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # whoever held it took the folder away
            continue
        try:
            _wait_for(handle, wait=wait)
            if os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # whoever held it took the file away


def _wait_for(handle: int, *, wait: bool) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        msvcrt = import_module("msvcrt")
    else:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    while True:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            if not wait:
                raise BlockingIOError(errno.EAGAIN, "locked by another") from None
            time.sleep(0.01)
        else:
            return
