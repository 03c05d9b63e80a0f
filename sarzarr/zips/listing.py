"""The TIFF files that paths stand for: those of folders, of SAFE folders in them, and of archives."""

import os
from collections.abc import Iterable
from pathlib import Path

from sarzarr.errors import RasterNotFoundError, UnsupportedRasterError
from sarzarr.text import listed
from sarzarr.zips import is_archive, members


def raster_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return paths, each folder and each archive replaced by the TIFF files in it, in the order of their names.

    Of a SAFE folder (``*.SAFE``, or one with a folder ``measurement`` in it) they are those below
    ``measurement/``; of another one those in itself, and those of the SAFE folders and of the archives in it. Of an
    archive they are those below a ``measurement/`` in it, if there is one, else all. One that cannot be listed stands
    for itself, so that whoever opens it says why.

    Raises `RasterNotFoundError` where there is no TIFF file in a folder.
    """
    out: list[Path] = []
    for path in without_packed(paths):
        files = _in_folder(path) if path.is_dir() else _in_archive(path) if is_archive(path) else [path]
        if not files:
            inside = listed(_folders_with_tiffs(path))
            remedy = f"Name those in it that do: {inside}." if inside else "Name the folder that they are in."
            raise RasterNotFoundError(
                f"a folder of TIFF files was expected, got {str(path)!r}, which holds no .tif or .tiff. {remedy}"
            )
        out += files
    return out


def _in_folder(folder: Path) -> list[Path]:
    if folder.suffix.lower() == ".safe" or (folder / "measurement").is_dir():
        return _tiffs((folder / "measurement").rglob("*"))
    here = sorted(folder.iterdir())
    inner = [p for p in here if p.suffix.lower() == ".safe" and p.is_dir()]
    zipped = without_packed([*inner, *filter(is_archive, here)])[len(inner) :]
    files = [*_tiffs(here), *(file for safe in inner for file in _in_folder(safe))]
    return [*files, *(file for archive in zipped for file in _in_archive(archive))]


def _folders_with_tiffs(folder: Path) -> list[str]:
    """Return the names of the folders in a folder that hold TIFF files, sorted."""
    inner = sorted(folder.iterdir()) if folder.is_dir() else []
    return [p.name for p in inner if p.is_dir() and os.access(p, os.R_OK | os.X_OK) and _in_folder(p)]


def without_packed(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return paths without the archives of SAFE folders that are among them, too, unpacked beside their archives."""
    given = [Path(path) for path in paths]
    unpacked = {p.absolute().with_suffix("") for p in given if p.suffix.lower() == ".safe" and p.is_dir()}
    packed = (p.absolute().with_name(p.name.split(".")[0]) if is_archive(p) else None for p in given)
    return [p for p, inside in zip(given, packed, strict=True) if inside not in unpacked]


def _in_archive(archive: Path) -> list[Path]:
    try:
        names = sorted(name for name in members(archive) if _is_tiff(Path(name)))
    except UnsupportedRasterError:
        return [archive]
    measured = [name for name in names if Path(name).parent.name.lower() == "measurement"]
    return [archive / name for name in measured or names]


def _tiffs(paths: Iterable[Path]) -> list[Path]:
    return sorted(p for p in paths if _is_tiff(p) and p.is_file())


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff") and not path.name.startswith(".")
