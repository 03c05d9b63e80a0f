"""Places: the bytes of a store by key. A folder is the only one yet.

A key is a POSIX path relative to the store's root: ``scenes/s1/vv/c/0/0``. A place is an address: it pickles, and
holds nothing open. A reader takes any place; what writes makes things in local folders, and swaps them in.
"""

import errno
import os
import re
import stat
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from sarzarr.errors import CorruptStoreError, InvalidInputError
from sarzarr.files import swap_in, swap_out, whole_file, whole_folder

OPEN_FLAGS: Final = os.O_RDONLY | sum(
    getattr(os, f"O_{name}", 0) for name in ("BINARY", "NOFOLLOW", "NONBLOCK")
)
"""Bytes as they are, never through a link, never waiting for the other end of a pipe."""


class Head(NamedTuple):
    """Size and stamp of an object, known without reading it."""

    size: int
    """Bytes."""
    stamp: Any
    """Equal as long as the object is not replaced."""


class Place(Protocol):
    """The bytes of a store, by key. ``str`` of it is its address, for people."""

    @property
    def name(self) -> str:
        """The store's name, for people."""

    @property
    def home(self) -> str:
        """The key that its root has, or will have, in the store, which seals are bound to; empty of a store."""

    @property
    def is_sealed(self) -> bool:
        """Whether documents and manifests carry seals: those of schema 1 and of other programs have none."""

    def unsealed(self) -> "Place":
        """Return the same bytes, whose documents carry no seals."""

    def head(self, key: str) -> Head | None:
        """Return the bytes and the stamp of an object; None where there is none."""

    def get(self, key: str) -> bytes:
        """Return the bytes of an object; `FileNotFoundError` where there is none."""

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each (offset, size) of an object, fewer at its end; `FileNotFoundError` without one."""

    def children(self, key: str = "") -> list[str]:
        """Return the names directly below a key, sorted; that of what holds others ends in ``/``."""

    def descriptor(self, key: str) -> int | None:
        """Return a new file descriptor of an object, which is the caller's to close; None where a place has none.

        Raises `FileNotFoundError` where there is no such object.
        """

    def zarr(self) -> Any:
        """Return the store as zarr-python and xarray open it, for reading."""

    def put(self, key: str, data: bytes) -> None:
        """Write the bytes of an object, whole or not at all."""

    def whole(self, key: str, *, once: bool = False) -> AbstractContextManager[Path]:
        """Give a local folder to fill, which takes the place of what is at ``key`` in the end: see `swap`."""

    def swap(self, staged: Path, key: str) -> None:
        """Put a local folder in the place of what is at ``key``, if anything: a reader sees the old or the new."""

    def delete(self, key: str) -> None:
        """Take what is below a key away, in one step."""


def local_folder(path: str | Path, what: str) -> Path:
    """Return a path of this machine; `InvalidInputError` where it is a URL, of which a folder would be made."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path))  # a letter and a colon is a drive of Windows
    if scheme and not os.path.lexists(scheme[0]):
        raise InvalidInputError(
            f"{what} in a local directory was expected, got {str(path)!r}. Make it here, and copy it there."
        )
    return Path(path)


@dataclass(frozen=True)
class Folder:
    """A `Place` that is a folder of this machine."""

    path: Path
    """The folder."""
    home: str = ""
    """See `Place.home`."""
    is_sealed: bool = True
    """See `Place.is_sealed`."""

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.absolute().name

    def __reduce__(self) -> tuple[type["Folder"], tuple[Path, str, bool]]:
        # whoever takes it up may stand in another folder
        return Folder, (self.path.absolute(), self.home, self.is_sealed)

    def unsealed(self) -> "Folder":
        """See `Place.unsealed`."""
        return Folder(self.path, self.home, is_sealed=False)

    def head(self, key: str) -> Head | None:
        """See `Place.head`; the stamp is the file's number, which the next may get again, and its time."""
        try:
            found = os.lstat(self._inside(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise _leads_out(f"{self}/{key}")
        return Head(found.st_size, (found.st_ino, found.st_ctime_ns))

    def get(self, key: str) -> bytes:
        """See `Place.get`."""
        handle = self.descriptor(key)
        try:
            status = os.fstat(handle)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(f"{self}/{key}")
            if not stat.S_ISREG(status.st_mode):
                raise _leads_out(f"{self}/{key}")
            return _read_range(handle, 0, status.st_size)
        finally:
            os.close(handle)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Place.get_ranges`."""
        handle = self.descriptor(key)
        try:
            return [_read_range(handle, offset, size) for offset, size in ranges]
        finally:
            os.close(handle)

    def children(self, key: str = "") -> list[str]:
        """See `Place.children`."""
        try:
            with os.scandir(self._inside(f"{key}/.")) as entries:
                return sorted(entry.name + "/" * entry.is_dir() for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def descriptor(self, key: str) -> int:
        """See `Place.descriptor`."""
        try:
            return os.open(self._inside(key), OPEN_FLAGS)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK):  # a link that is not to be followed
                raise _leads_out(f"{self}/{key}") from None
            raise

    def _inside(self, key: str) -> str:
        """Return the path of what is at a key; `CorruptStoreError` where that leads out of the store."""
        folder, _, name = key.rpartition("/")
        _check_inside(str(self.path), folder)
        if name == "..":
            raise _leads_out(f"{self}/{key}")
        return f"{self.path}/{key}"

    def zarr(self) -> Path:
        """See `Place.zarr`."""
        return self.path

    def put(self, key: str, data: bytes) -> None:
        """See `Place.put`."""
        path = Path(self._inside(key))
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_bytes(data)

    def whole(self, key: str, *, once: bool = False) -> AbstractContextManager[Path]:
        """See `Place.whole`, and `sarzarr.files.whole_folder`."""
        return whole_folder(Path(self._inside(key)), once=once)

    def swap(self, staged: Path, key: str) -> None:
        """See `Place.swap`; what is staged is flushed to the disk first."""
        swap_in(staged, Path(self._inside(key)))

    def delete(self, key: str) -> None:
        """See `Place.delete`."""
        swap_out(Path(self._inside(key)))


@lru_cache(maxsize=4096)
def _check_inside(root: str, folder: str) -> None:
    """Refuse a folder of a store that is, by its name or by links, outside of it: once, since every shard asks."""
    above, _, name = folder.rpartition("/")
    if above:
        _check_inside(root, above)
    if name == ".." or _is_link(root, folder):
        raise _leads_out(f"{root}/{folder}")


def _is_link(root: str, folder: str) -> bool:
    if os.name != "nt":
        return os.path.islink(f"{root}/{folder}")  # noqa: PTH114 - a Path costs more than the call
    inside = os.path.realpath(f"{root}/{folder}")  # a junction leads elsewhere, too
    return inside != os.path.normpath(f"{os.path.realpath(root)}/{folder}")


def _leads_out(path: str) -> CorruptStoreError:
    return CorruptStoreError(
        f"files and folders inside of the store were expected, got {path!r}, which is a link or leads out of it. Put "
        "what it leads to in its place."
    )


def _read_range(handle: int, offset: int, size: int) -> bytes:
    if hasattr(os, "pread"):
        data = os.pread(handle, size, offset)
    else:  # Windows
        os.lseek(handle, offset, os.SEEK_SET)
        data = os.read(handle, size)
    if len(data) in (0, size):
        return data
    return data + _read_range(handle, offset + len(data), size - len(data))  # a short read, or the end


def read_at(handle: int, buffers: Sequence[memoryview], offset: int) -> int:
    """Fill ``buffers`` from ``offset`` of a file on, and return how many bytes there were."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, buffers, offset)
    os.lseek(handle, offset, os.SEEK_SET)  # Windows: a handle belongs to one thread
    got = os.read(handle, len(buffers[0]))
    buffers[0][: len(got)] = got
    return len(got)
