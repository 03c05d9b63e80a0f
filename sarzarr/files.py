"""The only place that renames, locks and flushes files and folders."""

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write; what is there at the end takes its name, unless something was raised."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which goes with the process; a folder that is not there has nothing to lock."""
    import fcntl

    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def rename_once(new: Path, place: Path) -> None:
    """Rename a directory to where there must be none; `FileExistsError` where there is one.

    A rename onto a directory that is not empty fails as one step, so that two processes cannot both win.
    """
    try:
        os.rename(new, place)  # noqa: PTH104  (Path.rename says the same)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or isinstance(error, FileExistsError):
            raise FileExistsError(str(place)) from None
        raise


# ------------------------------------------------------------------ commit
def sync_tree(folder: Path) -> None:
    """Flush every file below ``folder`` to the disk, so that a rename never precedes its data."""
    for at, _, names in os.walk(folder):
        for path in (Path(at), *(Path(at) / n for n in names)):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@contextmanager
def changing_root(root: Path) -> Iterator[None]:
    """Wait until no other process changes the root's document: it is read, changed and written as one."""
    handle = os.open(root, os.O_RDONLY)
    try:
        with suppress(ImportError):  # not on Windows, which has no such lock on a directory
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def swap_in(new: Path, place: Path) -> None:
    """Rename a directory into its place; what was there is removed after. At every moment one of them is there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        new.rename(place)
        return
    if not _exchange(new, place):
        old = place.with_name(f".{place.name}.{uuid.uuid4().hex}.old")
        place.rename(old)
        new.rename(place)
        new = old
    shutil.rmtree(new, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step; False where the system has no such call: two renames do it then."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library from before 2018
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def swap_out(place: Path) -> None:
    """Take a directory away in one step, then remove what it held."""
    old = place.with_name(f".{place.name}.{uuid.uuid4().hex}.old")
    place.rename(old)
    shutil.rmtree(old)
