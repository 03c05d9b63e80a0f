"""NPZ files, read where they lie and never unpickled: headers are held against the bytes that are there.

An array that is stored uncompressed is read by offset; a compressed one is decoded in a stream. What a file says of
itself is believed where the sizes of its ZIP listing, its headers and the file agree, before memory is taken.
"""

import json
import math
import pickletools
import shutil
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import file_digest
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy

from sarzarr import zips
from sarzarr.arrays import Array
from sarzarr.errors import (
    InvalidInputError,
    MissingKeyError,
    NoRoomError,
    RasterNotFoundError,
    UnsupportedRasterError,
)
from sarzarr.files import flush, whole_file
from sarzarr.ptychography.frames import RowsOnDisk, frame_shape
from sarzarr.text import size_text

MAX_WHOLE: Final = 2**28
"""Bytes of an array that is read as a whole: positions, a probe, an object."""
MAX_METADATA: Final = 2**20
"""Bytes of ``_metadata``."""
MAX_RATIO: Final = 1032
"""The most bytes that a byte of deflate can stand for: 258 bytes take 2 bits (RFC 1951)."""
BLOCK: Final = 2**22
"""Bytes that are converted at once, about."""
_UNREAD: Final = (ValueError, SyntaxError, TokenError, TypeError, MemoryError, RuntimeError)
"""Errors that numpy ends in where a header is no header; too deep a one is a `RecursionError`, a RuntimeError."""
_LOCAL: Final = struct.Struct("<4s22x2H")


@dataclass(frozen=True, eq=False, kw_only=True)
class NpzArray:
    """An array of an NPZ file: its header, and where its values lie."""

    file: Path
    """The NPZ file."""
    key: str
    """Its name."""
    info: zipfile.ZipInfo
    """Its entry in the listing."""
    shape: tuple[int, ...]
    """As numpy would load it."""
    dtype: np.dtype[np.generic]
    """Of its values; no object."""
    is_fortran: bool
    """Whether its values lie in the reverse order of axes."""
    header: int
    """Bytes before the first value, of the array's own part of the file."""

    @property
    def is_stored(self) -> bool:
        """Whether its values are in the file as they are."""
        return self.info.compress_type == zipfile.ZIP_STORED

    @contextmanager
    def values(self) -> Iterator[IO[bytes]]:
        """Give its values as a stream of bytes, whose checksum is compared at the end."""
        with zipfile.ZipFile(self.file) as archive, archive.open(self.info) as stream:
            stream.read(self.header)
            yield stream

    def whole(self) -> Array:
        """Return it as numpy loads it; of more than `MAX_WHOLE` bytes it is refused."""
        if (nbytes := math.prod(self.shape) * self.dtype.itemsize) > MAX_WHOLE:
            raise self.refused(f"{size_text(nbytes)} where {size_text(MAX_WHOLE)} are the most")
        with _decoding(self), self.values() as stream:
            data = stream.read()
            values = np.frombuffer(bytearray(data), self.dtype)  # that may be written to
            return values.reshape(self.shape, order="F" if self.is_fortran else "C")

    def rows(self, n: int, folder: Path) -> RowsOnDisk:
        """Return it as rows (n, rows, columns), read where they lie or from a file that is made below ``folder``.

        That file is made where the array is compressed, or its rows do not lie one behind the other; once, under
        a name of the content. Its axes are those that `frame_shape` knows.
        """
        read_as, is_older = frame_shape(self.shape, n)
        if len(read_as) != 3 or read_as[0] != n:
            raise self.refused(f"shape {self.shape} for {n} positions")
        _, height, width = read_as
        shape = (height, width, n) if is_older else (n, height, width)
        lies = shape[::-1] if self.is_fortran else shape
        is_scattered = is_older != self.is_fortran  # the axis of rows is the last in the file
        form: dict[str, Any] = {
            "shape": (n, height, width),
            "dtype": self.dtype,
            "is_turned": self.is_fortran,
        }
        if self.is_stored and not is_scattered:
            return RowsOnDisk(path=self.file, offset=self._begin + self.header, **form)
        path = self._converted(folder, lies, is_scattered)
        return RowsOnDisk(path=path, offset=path.stat().st_size - self._nbytes, **form)

    @property
    def _nbytes(self) -> int:
        size: int = self.dtype.itemsize
        return math.prod(self.shape) * size

    @cached_property
    def _begin(self) -> int:
        """The offset in the file of the array's own part, which its local header gives."""
        with self.file.open("rb") as file:
            file.seek(self.info.header_offset)
            local = file.read(_LOCAL.size)
            size = self.file.stat().st_size
        if len(local) < _LOCAL.size or not local.startswith(b"PK\3\4"):
            raise self.refused("no entry where its listing says")
        begin: int = self.info.header_offset + _LOCAL.size + sum(_LOCAL.unpack(local)[1:])
        if begin + self.info.file_size > size:
            raise self.refused("an end beyond the end of the file")
        return begin

    def _converted(self, folder: Path, lies: tuple[int, ...], is_scattered: bool) -> Path:
        """Return an uncompressed .npy of the rows, made where there is none that is whole; nobody sees a half."""
        with self.file.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        path = folder / f"{digest}.{self.key}.npy"
        form = (*lies[-1:], *lies[:-1]) if is_scattered else lies
        header = BytesIO()
        told = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": form}
        npy.write_array_header_1_0(header, told)
        begin = header.tell()
        if path.is_file() and path.stat().st_size == begin + self._nbytes:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < self._nbytes:
            raise NoRoomError(
                f"expected room for {size_text(self._nbytes)} in {folder.name!r}, got "
                f"{size_text(shutil.disk_usage(folder).free)}. Free some, or name another folder as memmap_dir=."
            )
        with whole_file(path) as partial:
            with partial.open("wb") as out:
                out.write(header.getvalue())
                out.truncate(begin + self._nbytes)
            target = np.memmap(partial, self.dtype, "r+", offset=begin, shape=form)
            with _decoding(self), self.values() as stream:
                self._fill(stream, target.reshape(form[0], -1), lies, is_scattered)
            target.flush()
            del target
            flush(partial)
        return path

    def _fill(self, stream: IO[bytes], target: Array, lies: tuple[int, ...], is_scattered: bool) -> None:
        """Write all values of a stream into ``target`` (n, pixels), a block at a time."""
        lines, length = (math.prod(lies[:-1]), lies[-1]) if is_scattered else (lies[0], math.prod(lies[1:]))
        step = max(BLOCK // (length * self.dtype.itemsize), 1)
        for first in range(0, lines, step):
            count = min(step, lines - first)
            data = stream.read(count * length * self.dtype.itemsize)
            block = np.frombuffer(data, self.dtype).reshape(count, length)
            if is_scattered:
                target[:, first : first + count] = block.T
            else:
                target[first : first + count] = block
        stream.read(1)  # the end, where the checksum is compared

    def refused(self, what: str) -> InvalidInputError:
        """Return the error of an array that is not what its file says, or more than is read."""
        return refused_npz(self.file, f"{self.key} with {what}")


def refused_npz(file: Path, what: str) -> InvalidInputError:
    """Return the error of a file that is no NPZ, or one that is refused."""
    return InvalidInputError(
        f"expected an NPZ file as numpy.savez writes it, got {what} in {file.name!r}. Write it again."
    )


@contextmanager
def _decoding(array: NpzArray) -> Iterator[None]:
    try:
        yield
    except (*zips.CORRUPT, ValueError, NotImplementedError) as error:
        raise array.refused(f"damage: {error}") from error


@dataclass(frozen=True)
class Npz:
    """An NPZ file: its arrays by key."""

    path: Path
    """The file."""

    @cached_property
    def members(self) -> dict[str, zipfile.ZipInfo]:
        """The entries of its listing, by key."""
        try:
            listed = zips.zip_members(self.path)
        except FileNotFoundError:
            raise RasterNotFoundError(
                f"expected an NPZ file at {str(self.path)!r}, got none. Check the path."
            ) from None
        except (UnsupportedRasterError, OSError) as error:
            got = str(error).partition(", got ")[2].partition(f" in {self.path.name!r}")[0]
            raise refused_npz(self.path, got or str(error)) from error
        return {name.removesuffix(".npy"): info for name, info in listed.items() if name.endswith(".npy")}

    def find(self, *keys: str) -> str | None:
        """Return the first of some keys that is there; None where none is."""
        return next((key for key in keys if key in self.members), None)

    def require(self, *keys: str) -> NpzArray:
        """Return the array of the first of some keys that is there.

        Raises `MissingKeyError`, a KeyError, which names the keys that are there.
        """
        key = self.find(*keys)
        if key is None:
            there = ", ".join(sorted(self.members)[:30]) or "none"
            raise MissingKeyError(
                f"expected the key {' or '.join(map(repr, keys))} in {self.path.name!r}, got the keys {there}. "
                "Save the array under that key."
            )
        return self.array(key)

    def array(self, key: str) -> NpzArray:
        """Return the array of a key that is there, its header read and held against the sizes that are told."""
        info = self.members[key]
        shape, is_fortran, dtype, header = self._header(key, info)
        if dtype.hasobject:
            raise refused_npz(self.path, f"{key} of Python objects, which are never unpickled,")
        nbytes = header + math.prod(shape) * dtype.itemsize
        is_told = min(shape, default=0) >= 0 and nbytes == info.file_size
        if not is_told or info.file_size > MAX_RATIO * (info.compress_size + 64):
            raise refused_npz(
                self.path,
                f"{key} with a header of {shape} {dtype}, {size_text(nbytes)}, in {size_text(info.file_size)} and "
                f"{size_text(info.compress_size)} of file",
            )
        is_stored = info.compress_type == zipfile.ZIP_STORED
        if not is_stored and info.compress_type != zipfile.ZIP_DEFLATED:
            raise refused_npz(self.path, f"{key} compressed by method {info.compress_type}")
        if is_stored and info.compress_size != info.file_size:
            raise refused_npz(self.path, f"{key} of two sizes")
        return NpzArray(
            file=self.path,
            key=key,
            info=info,
            shape=shape,
            dtype=dtype,
            is_fortran=is_fortran and len(shape) > 1,
            header=header,
        )

    def _header(self, key: str, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
        """Return shape, whether Fortran's order, dtype, and bytes of the header of an entry."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(info) as stream:
                version = npy.read_magic(stream)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, is_fortran, dtype = read(stream)
                return shape, is_fortran, dtype, stream.tell()
        except (*zips.CORRUPT, *_UNREAD, OSError) as error:
            raise refused_npz(self.path, f"{key} without a header of numpy's ({error})") from error

    def metadata(self) -> dict[str, Any]:
        """Return the JSON object that ``_metadata`` holds as text, pickled text too; empty where there is none.

        A pickle's opcodes are listed, and never run: the one text among them that is a JSON object is taken.
        """
        info = self.members.get("_metadata")
        if info is None:
            return {}
        if info.file_size > MAX_METADATA:
            raise refused_npz(self.path, f"_metadata of {size_text(info.file_size)}")
        _, _, dtype, header = self._header("_metadata", info)
        if not dtype.hasobject:
            texts = [str(self.array("_metadata").whole().reshape(-1)[0])] if dtype.kind == "U" else []
        else:
            with zipfile.ZipFile(self.path) as archive:
                data = archive.read(info)[header:]
            try:
                texts = [value for _, value, _ in pickletools.genops(data) if isinstance(value, str)]
            except (ValueError, IndexError) as error:
                raise refused_npz(self.path, f"_metadata that is no pickle ({error})") from error
        found = [value for text in texts if text.lstrip().startswith("{") if (value := _object_of(text))]
        return found[0] if len(found) == 1 else {}


def _object_of(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
