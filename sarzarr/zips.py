"""ZIP archives as folders: their files have paths, ``S1A.zip/S1A.SAFE/manifest.safe``, and are read where they lie.

Nothing is unpacked. An archive is listed within limits and refused whole where a name climbs out of it, where two
files have one name, or where one is encrypted; a file is read no further than the archive says that it is long.
"""

import os
import stat
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, cast

from sarzarr.errors import RasterNotFoundError, UnsupportedRasterError

MAX_MEMBERS: Final = 20_000
"""Files that an archive may have; a wave mode product has about 1,500."""
MAX_LISTING: Final = 16 * 2**20
"""Bytes of an archive's list of files."""
MAX_MEMBER: Final = 16 * 2**30
"""Bytes that a file may have unpacked; the largest measurement files have 3 GB."""
CORRUPT: Final = (zipfile.BadZipFile, zlib.error, EOFError)
"""Errors that reading bytes of an archive may end in, besides `OSError`."""
_END: Final = struct.Struct("<4s4H2LH")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")


def is_archive(path: Path) -> bool:
    """Whether a path is that of a ZIP archive, a regular file of any bytes, by its name."""
    return path.suffix.lower() == ".zip" and path.is_file()


def archive_of(path: Path) -> tuple[Path, str] | None:
    """Return the archive that a path leads into and the name of the file there; None for any other path.

    A name takes up to 65,535 bytes of an archive; whether there is such a file, `members` says.
    """
    for folder in path.parents:
        if folder.suffix.lower() == ".zip":
            return (folder, path.relative_to(folder).as_posix()) if folder.is_file() else None
    return None


def members(archive: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the files in an archive by name, with their sizes in bytes; folders are left out.

    Raises `UnsupportedRasterError` where it is no archive, or one that is refused.
    """
    status = archive.stat()
    return _members(str(archive), status.st_mtime_ns, status.st_size, status.st_ino)


@lru_cache(maxsize=64)
def _members(archive: str, *_: int) -> dict[str, zipfile.ZipInfo]:
    name = Path(archive).name
    try:
        with open(archive, "rb") as file:  # noqa: PTH123 - a cached function's key is a text
            if listing_size(file) > MAX_LISTING:
                raise _refused(name, f"a list of files of more than {MAX_LISTING // 2**20} MB")
            with zipfile.ZipFile(file) as opened:
                found = [info for info in opened.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, struct.error, NotImplementedError, UnicodeDecodeError) as error:
        raise _refused(name, str(error) or type(error).__name__) from error
    if len(found) > MAX_MEMBERS:
        raise _refused(name, f"{len(found)} files")
    by_name: dict[str, zipfile.ZipInfo] = {}
    for info in found:
        parts = PurePosixPath(info.filename).parts
        if ".." in parts or not parts or info.filename != "/".join(parts) or "\\" in info.filename:
            raise _refused(name, f"the name {info.filename[:100]!r}, which leads out of it")
        if info.filename in by_name:
            raise _refused(name, f"two files {info.filename[:100]!r}")
        if info.flag_bits & 1:
            raise _refused(name, f"{info.filename[:100]!r}, which is encrypted")
        by_name[info.filename] = info
    return by_name


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
        f"expected a ZIP archive of a product as it was downloaded, got {what} in {name!r}. Download it again, or "
        "unpack it and give the folder."
    )


def member(path: Path) -> tuple[Path, zipfile.ZipInfo] | None:
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
    archive, info = found
    status = archive.stat()
    parts = list(status[:10])
    parts[stat.ST_SIZE] = info.file_size
    return os.stat_result(parts, {"st_mtime_ns": status.st_mtime_ns})


def open_file(path: Path) -> BinaryIO:
    """Open a file, one in an archive too, to read its bytes; seeking back in an archive unpacks from the beginning.

    Raises `OSError` where there is none, or it cannot be unpacked.
    """
    found = member(path)
    if found is None:
        return path.open("rb")
    archive, info = found
    try:
        return cast("BinaryIO", zipfile.ZipFile(archive).open(info))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise _refused(archive.name, f"{info.filename[:100]!r}: {error}") from error


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
    return str(path) if found is None else f"/vsizip/{{{found[0]}}}/{found[1]}"
