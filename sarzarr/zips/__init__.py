"""ZIP and tar archives as folders: their files have paths, ``S1A.zip/S1A.SAFE/manifest.safe``, and are read in place.

Nothing is unpacked. An archive is listed within limits and refused whole where a name climbs out of it, where two
files have one name, where one is encrypted, or is a link, a device or sparse; a file is read no further than the
archive says that it is long. Files of a tar archive lie in it as they are, so that GDAL opens each at its offset.
"""

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, TypeVar, cast

from sarzarr.errors import RasterNotFoundError, UnsupportedRasterError

SUFFIXES: Final = (".zip", ".tar")
"""Suffixes of archives whose files are read where they lie."""
COMPRESSED: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
"""Suffixes of archives that have to be read from their beginning for any file in them."""
MAX_MEMBERS: Final = 1_000_000
"""Files that an archive may have; one of chips has hundreds of thousands."""
MAX_LISTING: Final = 128 * 2**20
"""Bytes of an archive's list of files."""
MAX_INNER: Final = 2**28
"""Bytes of a Zarr archive that is a file in a tar archive: it is read whole."""
MAX_NAME: Final = 2**16
"""Bytes of what a tar archive says of one file beside its header: long names, records of POSIX.1-2001."""
MAX_MEMBER: Final = 16 * 2**30
"""Bytes that a file may have unpacked; the largest measurement files have 3 GB."""
CORRUPT: Final = (zipfile.BadZipFile, zlib.error, EOFError)
"""Errors that reading bytes of an archive may end in, besides `OSError`."""
_END: Final = struct.Struct("<4s4H2LH")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_BLOCK: Final = 512
"""Bytes of a tar archive's header; files begin at multiples of them."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in a tar archive, with the names that `zipfile.ZipInfo` has for the same."""

    filename: str
    """Its name, ``below/x.tif``."""
    file_size: int
    """Bytes."""
    offset: int
    """Where they begin in the archive, in bytes."""


Member = zipfile.ZipInfo | TarMember
"""A file in an archive."""
_Kind = TypeVar("_Kind", zipfile.ZipInfo, TarMember)


def is_archive(path: Path) -> bool:
    """Whether a path is that of a ZIP or tar archive, a regular file of any bytes, by its name."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def is_compressed(path: Path) -> bool:
    """Whether a path is that of a compressed tar archive, of any bytes, by its name: `members` says what to do."""
    return path.name.lower().endswith(COMPRESSED) and path.is_file()


def archive_of(path: Path) -> tuple[Path, str] | None:
    """Return the archive that a path leads into and the name of the file there; None for any other path.

    A name takes up to 65,535 bytes of an archive; whether there is such a file, `members` says.
    """
    for folder in path.parents:
        if folder.suffix.lower() in SUFFIXES and (folder.is_file() or _is_inner(folder)):
            return folder, path.relative_to(folder).as_posix()
    return None


def _is_inner(archive: Path) -> bool:
    """Whether a path is that of a Zarr archive which is itself a file in a tar archive."""
    outer = archive_of(archive) if archive.name.lower().endswith(".zarr.zip") else None
    return outer is not None and outer[0].suffix.lower() == ".tar" and outer[1] in members(outer[0])


def members(archive: Path) -> Mapping[str, Member]:
    """Return the files in an archive by name, with their sizes in bytes; folders are left out.

    Raises `UnsupportedRasterError` where it is no archive, or one that is refused.
    """
    if archive.suffix.lower() == ".tar":
        return _of_tar(*_key(archive))
    if is_compressed(archive):
        raise UnsupportedRasterError(
            f"expected an archive whose files can be read where they lie, got {archive.name!r}, which is compressed "
            "as a whole. Unpack it and give the folder, or pack it again as ZIP or as plain tar."
        )
    return zip_members(archive)


def zip_members(archive: Path) -> Mapping[str, zipfile.ZipInfo]:
    """Return the files in a ZIP archive, whatever its name; sizes are in bytes. Raises as `members`."""
    return _of_zip(*_key(archive))


def _key(archive: Path) -> tuple[str, int, int, int]:
    status = status_of(archive)
    return str(archive), status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=64)
def _of_zip(archive: str, *_: int) -> Mapping[str, zipfile.ZipInfo]:
    name = Path(archive).name
    try:
        with open_file(Path(archive)) as file:
            if listing_size(file) > MAX_LISTING:
                raise _refused(name, f"a list of files of more than {MAX_LISTING // 2**20} MB")
            with zipfile.ZipFile(file) as opened:
                found = [info for info in opened.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, struct.error, NotImplementedError, UnicodeDecodeError) as error:
        raise _refused(name, str(error) or type(error).__name__) from error
    by_name = _by_name(name, found, last=name.lower().endswith(".zarr.zip"))
    for info in found:
        if info.flag_bits & 1:
            raise _refused(name, f"{info.filename[:100]!r}, which is encrypted")
    return by_name


@lru_cache(maxsize=64)
def _of_tar(archive: str, *_: int) -> Mapping[str, TarMember]:
    name = Path(archive).name
    try:
        with open(archive, "rb", buffering=0) as file:  # noqa: PTH123 - a cached function's key is a text
            return _by_name(name, _tar_members(name, file))
    except (OSError, ValueError) as error:
        if isinstance(error, UnsupportedRasterError):
            raise
        raise _refused(name, str(error) or type(error).__name__) from error


def _by_name(name: str, found: Iterable[_Kind], *, last: bool = False) -> dict[str, _Kind]:
    """Return the files in an archive by name, which is refused where one leads out, or is there twice.

    Who writes Zarr into a ZIP archive cannot change a document, and writes it again: there the ``last`` one counts.
    """
    by_name: dict[str, _Kind] = {}
    for info in found:
        parts = PurePosixPath(info.filename).parts
        if ".." in parts or not parts or info.filename != "/".join(parts) or "\\" in info.filename:
            raise _refused(name, f"the name {info.filename[:100]!r}, which leads out of it")
        if info.filename in by_name and not last:
            raise _refused(name, f"two files {info.filename[:100]!r}")
        by_name[info.filename] = info
        if len(by_name) > MAX_MEMBERS:
            raise _refused(name, f"more than {MAX_MEMBERS:,} files")
    return by_name


def _tar_members(archive: str, file: Any) -> Iterator[TarMember]:
    """Yield the files of a tar archive, by one pass over the headers: POSIX.1-2001 (pax) and GNU's."""
    end, at, told = file.seek(0, os.SEEK_END), 0, dict[str, str]()
    while at < end:
        header = _read(file, at, _BLOCK)
        if not any(header):  # a block of zeros ends it
            return
        size, kind = _tar_size(header), header[156:157]
        if kind in b"xgLK":
            if size > MAX_NAME:
                raise _refused(archive, f"{size:,} bytes that name one file")
            text = _read(file, at + _BLOCK, size)
            more = (
                _pax(text) if kind in b"xg" else {"path": text.rstrip(b"\0").decode()} if kind == b"L" else {}
            )
            if kind == b"g" and more.keys() & {"path", "size", "linkpath"}:
                raise ValueError("one name or size for all files")
            told |= {} if kind == b"g" else more
            at += _BLOCK + -(-size // _BLOCK) * _BLOCK
            continue
        name = told.get("path", _tar_name(header)).removeprefix("./")
        size = int(told.get("size", size))
        if kind == b"5" or (kind in b"0\0" and name.endswith("/")):
            told, at = {}, at + _BLOCK
            continue
        if kind not in b"0\x007" or any(key.startswith("GNU.sparse") for key in told):
            what = {b"1": "a link", b"2": "a link", b"S": "sparse"}.get(kind, "no plain file")
            raise _refused(archive, f"{name[:100]!r}, which is {what}")
        at += _BLOCK
        if not 0 <= size <= end - at:
            raise _refused(archive, f"{name[:100]!r} of {size:,} bytes, of which {end - at:,} are there")
        yield TarMember(name, size, at)
        told, at = {}, at + -(-size // _BLOCK) * _BLOCK


def _read(file: Any, at: int, size: int) -> bytes:
    file.seek(at)
    data = bytes(file.read(size))
    if len(data) < size:
        raise ValueError(f"an end after {at + len(data):,} bytes")
    return data


def _tar_size(header: bytes) -> int:
    """Return the bytes of what a tar header is of: octal digits, or of more than 8 GiB a binary number."""
    summed = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    if _octal(header[148:156]) != summed:
        raise ValueError("a header whose checksum is another")
    field = header[124:136]
    return int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)


def _octal(field: bytes) -> int:
    text = field.split(b"\0")[0].strip()
    return int(text, 8) if text else 0


def _tar_name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode()


def _pax(text: bytes) -> dict[str, str]:
    """Return the records of a header of POSIX.1-2001: ``30 path=...``, the bytes of a record first."""
    out: dict[str, str] = {}
    while text:
        length, _, rest = text.partition(b" ")
        if not (length.isdigit() and len(length) < int(length) <= len(text)):
            raise ValueError("a record of another length than it says")
        key, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        text = text[int(length) :]
        name = key.decode()
        if name in ("path", "size", "linkpath") or name.startswith("GNU.sparse"):
            out[name] = value.decode()
    return out


def listing_size(file: BinaryIO) -> int:
    """Return the bytes that an archive says its list of files takes: Python would read all of them at once."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2**16 - _END.size))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise zipfile.BadZipFile("no list of files at its end")
    listed, wide = int(_END.unpack_from(tail, at)[5]), tail.rfind(b"PK\x06\x06", 0, at)
    if wide < 0:
        return listed
    return max(listed if listed != 0xFFFFFFFF else 0, int(_END_64.unpack_from(tail, wide)[8]))


def _refused(name: str, what: str) -> UnsupportedRasterError:
    return UnsupportedRasterError(
        f"expected an archive of a product or of chips as it was downloaded, got {what} in {name!r}. Download it "
        "again, or unpack it and give the folder."
    )


def member(path: Path) -> tuple[Path, Member] | None:
    """Return the archive that a path leads into and the file there, with its size in bytes; None for another path.

    Raises `RasterNotFoundError` where the archive has no such file; `UnsupportedRasterError` where it is refused, or
    the file is larger than `MAX_MEMBER`.
    """
    found = archive_of(path)
    if found is None:
        return None
    archive, name = found
    info = members(archive).get(name)
    if info is None:
        raise RasterNotFoundError(
            f"expected a file in {archive.name!r}, got {name[:200]!r}, which is not there. Check the path."
        )
    if info.file_size > MAX_MEMBER:
        raise _refused(archive.name, f"{name[:100]!r} of {info.file_size:,} bytes")
    return archive, info


def status_of(path: Path) -> os.stat_result:
    """Return the status of a file, one in an archive too: with its own size in bytes, and the archive's times.

    Raises `OSError` where there is none.
    """
    try:
        return path.stat()
    except OSError:
        found = member(path)
        if found is None:
            raise
    return with_size(status_of(found[0]), found[1].file_size)


def with_size(status: os.stat_result, size: int) -> os.stat_result:
    """Return the status of a file of so many bytes in the archive that another is the status of."""
    parts = list(status[:10])
    parts[stat.ST_SIZE] = size
    return os.stat_result(parts, {"st_mtime_ns": status.st_mtime_ns})


def open_file(path: Path) -> BinaryIO:
    """Open a file, one in an archive too, to read its bytes; seeking back in an archive unpacks from the beginning.

    Raises `OSError` where there is none, or it cannot be unpacked.
    """
    found = member(path)
    if found is None:
        return path.open("rb")
    archive, info = found
    if isinstance(info, TarMember):
        return io.BufferedReader(_Part(archive, info))
    try:
        opened = zipfile.ZipFile(archive if archive.is_file() else _inner(archive))
        return cast("BinaryIO", opened.open(info))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise _refused(archive.name, f"{info.filename[:100]!r}: {error}") from error


def _inner(archive: Path) -> BinaryIO:
    """Return an archive that is a file in another, whole."""
    data = read_bytes(archive, MAX_INNER)
    if data is None:
        raise zipfile.BadZipFile(f"an archive in an archive of more than {MAX_INNER // 2**20} MB")
    return io.BytesIO(data)


class _Part(io.RawIOBase):
    """A file in a tar archive: bytes of it from an offset on."""

    def __init__(self, archive: Path, info: TarMember) -> None:
        self._file, self._info, self._at = archive.open("rb", buffering=0), info, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._info.file_size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer)[: max(self._info.file_size - self._at, 0)]
        self._file.seek(self._info.offset + self._at)
        got = self._file.readinto(room) or 0
        self._at += got
        return got

    def close(self) -> None:
        self._file.close()
        super().close()


def has_file(path: Path, limit: int) -> bool:
    """Whether there is a regular file, one in an archive too, of at most ``limit`` bytes."""
    try:
        status = status_of(path)
    except (OSError, ValueError):  # ValueError: an archive that is refused, too
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size <= limit


def read_bytes(path: Path, limit: int) -> bytes | None:
    """Return the bytes of a file, one in an archive too; None where there is none, or it is longer than ``limit``."""
    if not has_file(path, limit):
        return None
    try:
        with open_file(path) as file:
            data = file.read(limit + 1)
    except (*CORRUPT, OSError, ValueError):
        return None
    return data if len(data) <= limit else None


def gdal_name(path: Path) -> str:
    """Return the name by which GDAL opens a file that is in an archive, bytes as they are; else the path itself."""
    found = archive_of(path)
    if found is None:
        return str(path)
    archive, name = found
    if archive.suffix.lower() == ".zip":
        return f"/vsizip/{{{archive}}}/{name}"
    info = members(archive)[name]
    return f"/vsisubfile/{getattr(info, 'offset', 0)}_{info.file_size},{archive}"
