"""Archives of patches in ``.npy`` files: what their indices and headers say, held against the files.

An archive is a ``metadata.npy`` (a pickled dict with ``file_index``) beside its files, or one file alone. Nothing
here reads a pixel.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr.errors import InvalidInputError, RasterNotFoundError, SarzarrError
from sarzarr.ingestion.archives.pickles import read_pickled
from sarzarr.scenes.grammars import without_named_polarization
from sarzarr.scenes.words import without_polarizations
from sarzarr.store.limits import MAX_CUT

METADATA: Final = "metadata.npy"
"""The index of an archive."""
BOUNDS: Final = "global_bounds.npy"
"""The file of vmin and vmax (dB) that older notebooks saved."""
SUFFIX: Final = "_patches"
"""The end of the stems of an archive's files."""
_READERS: Final = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_NUMBERED: Final = re.compile(r"(?i)^(s1[a-d]-[a-z0-9-]*-[0-9a-f]{6}-[0-9a-f]{6})-\d{3}$")
"""The stem of an ESA measurement file without its polarization: the images of a product are numbered at its end."""


@dataclass(frozen=True, kw_only=True)
class PatchFile:
    """A file of patches, as its header says."""

    path: Path
    """The file, absolute."""
    listed: str
    """Its path as the archive's index has it."""
    count: int
    """Patches in it."""
    height: int
    """Rows of a patch."""
    width: int
    """Columns of a patch."""
    dtype: str
    """Dtype of its values, with the order of their bytes: ``<f4``."""
    offset: int
    """Bytes before the first value."""

    @property
    def product(self) -> str:
        """The file's name without its polarization: the files of one product share it."""
        return product_of(self.path.stem)

    @property
    def patch_bytes(self) -> int:
        """Bytes of a patch."""
        return self.height * self.width * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class PatchArchive:
    """Files of normalized patches of one size, and what their index says of them."""

    files: tuple[PatchFile, ...]
    """The files, in the order of the index."""
    vmin: float | None = None
    """The dB that 0 stands for; None where nothing says so."""
    vmax: float | None = None
    """The dB that 1 stands for."""
    stride: int | None = None
    """Pixels from one patch to the next; None where nothing says so."""
    min_valid: float | None = None
    """Least share of pixels strictly between 0.01 and 0.99 of each patch, in [0, 1]."""

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Patches of each file."""
        return tuple(file.count for file in self.files)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of a patch."""
        return self.files[0].height, self.files[0].width


def product_of(stem: str) -> str:
    """Return the name of a file's product, which its polarizations share.

    >>> product_of("s1a-iw-grd-vv-20200101t050000-20200101t050025-030600-038190-001_patches")
    's1a-iw-grd-20200101t050000-20200101t050025-030600-038190'
    >>> product_of("lake_VH_patches"), product_of("VV_patches")
    ('lake', '')
    """
    bare = without_polarizations(without_named_polarization(stem.removesuffix(SUFFIX)))
    return _NUMBERED.sub(r"\1", bare)


def read_archive(metadata_path: str | Path) -> PatchArchive:
    """Return what a ``metadata.npy`` says, with the header of each file that it lists.

    A path in it is that of another machine: its last component, after ``/`` or a backslash, is the name of a file
    beside the metadata. ``vmin`` and ``vmax`` are dB, ``10 log10`` of what the sources held.

    Raises `RasterNotFoundError` where there is no such file; `InvalidInputError` where it is no such dict, or a file
    that it lists is missing, leads out of the folder, has the name of another, is cut, of another count, dtype or
    shape, or holds objects.
    """
    path = _absolute(metadata_path)
    facts = _facts(path)
    files = tuple(
        _checked(path.parent, listed, count, facts["patch_size"], facts["names"])
        for listed, count in facts["file_index"]
    )
    if not sum(file.count for file in files):
        raise InvalidInputError(f"patches were expected in {path.name!r}, got none. Make them anew.")
    return PatchArchive(
        files=tuple(file for file in files if file.count),
        vmin=facts["vmin"],
        vmax=facts["vmax"],
        stride=facts["stride"],
        min_valid=facts["min_valid"],
    )


def read_one(path: str | Path) -> PatchArchive:
    """Return the archive of one ``.npy`` file (n, rows, columns) float32; errors as of `read_archive`."""
    place = _absolute(path)
    file = read_npy_header(place, place.name)
    if file.dtype != "<f4" or not file.count:
        raise InvalidInputError(
            f"patches (n, rows, columns) of little-endian float32 were expected in {place.name!r}, got "
            f"{file.count} of {file.dtype}. Save them so with numpy.save."
        )
    return PatchArchive(files=(file,))


def verify_patch_files(metadata_path: str | Path) -> list[tuple[str, str]]:
    """Return (path as in the index, reason) of each file of a ``metadata.npy`` that is not as listed; [] if none is.

    Headers and sizes in bytes alone are read: a file that is missing or cut, leads out of the folder, has the name of
    another, is of another count, dtype or shape, or holds objects. Remedy: delete it and make it anew.

    Raises `RasterNotFoundError` where there is no such metadata, `InvalidInputError` where it is no such dict.
    """
    path = _absolute(metadata_path)
    facts = _facts(path)
    wrong = []
    for listed, count in facts["file_index"]:
        try:
            _checked(path.parent, listed, count, facts["patch_size"], facts["names"])
        except (SarzarrError, OSError) as error:
            wrong.append((listed, str(error)))
    return wrong


def read_bounds(path: Path) -> tuple[float, float]:
    """Return (vmin, vmax) in dB of a ``global_bounds.npy``; `InvalidInputError` where it is no such dict."""
    facts = read_pickled(path)
    return _number(facts, "vmin", path), _number(facts, "vmax", path)


def read_npy_header(path: Path, listed: str) -> PatchFile:
    """Return what the header of a ``.npy`` file (n, rows, columns), or of one patch (rows, columns), says.

    Raises `InvalidInputError` where it is no such file, holds objects, or has another size in bytes than its header
    says: a save that was interrupted leaves it short.
    """
    try:
        return _header(path, listed)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path.name!r}: {error}") from None


def _header(path: Path, listed: str) -> PatchFile:
    with path.open("rb") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            shape, in_columns, dtype = _READERS[version](stream)
        except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, EOFError) as error:
            raise InvalidInputError(f"Expected a .npy file, got {error!r:.100}. Make it anew.") from None
        offset = stream.tell()
    if dtype.hasobject:
        raise InvalidInputError(f"Expected numbers, got objects ({dtype}). Make it anew.")
    if len(shape) == 1 and not shape[0]:
        shape = (0, 1, 1)  # of an image without patches
    if in_columns and len(shape) > 1:
        raise InvalidInputError("Expected values row by row, got Fortran's order. Save a C-contiguous copy.")
    if len(shape) not in (2, 3) or max(shape[-2:]) > MAX_CUT or min(shape[-2:]) < 1:
        raise InvalidInputError(
            f"Expected patches (n, rows, columns) of at most {MAX_CUT} pixels a side, got shape {shape}. Make it "
            "anew."
        )
    count, height, width = (1, *shape)[-3:]
    file = PatchFile(
        path=path, listed=listed, count=count, height=height, width=width, dtype=dtype.str, offset=offset
    )
    wanted, got = offset + count * file.patch_bytes, path.stat().st_size
    if got != wanted:
        why = "it was cut" if got < wanted else "more follows"
        raise InvalidInputError(f"Expected {wanted} bytes, got {got}: {why}. Delete it and make it anew.")
    return file


def _checked(folder: Path, listed: str, count: int, size: int, names: Counter[str]) -> PatchFile:
    """Return a file as an index lists it, beside the index; `InvalidInputError` where it is not so."""
    name = _name_of(listed)
    if names[name] > 1:
        raise InvalidInputError(
            f"Expected each name once, got {names[name]} of {name!r}. Rename one of them."
        )
    path = folder / name
    if not path.exists():
        raise InvalidInputError(
            f"Expected {name!r} beside the metadata, got no such file. Put it there, or make it anew."
        )
    if path.resolve().parent != folder.resolve():
        raise InvalidInputError(
            f"Expected {name!r} in the folder of the metadata, got a link that leads out of it. Put the file itself "
            "there."
        )
    file = read_npy_header(path, listed)
    if file.count != count:
        raise InvalidInputError(f"{name!r}: Expected {count} patches, got {file.count}. Make it anew.")
    if count and (file.height, file.width, file.dtype) != (size, size, "<f4"):
        raise InvalidInputError(
            f"{name!r}: Expected {size} x {size} pixels of float32, got {file.height} x {file.width} of "
            f"{np.dtype(file.dtype)}. Make it anew."
        )
    return file


def _name_of(listed: str) -> str:
    """Return the last component of a path of another machine; `InvalidInputError` where that names no file."""
    name = re.split(r"[/\\]", listed)[-1]
    if name in ("", ".", "..") or "\0" in name or ":" in name:
        raise InvalidInputError(
            f"Expected the path of a file, got {listed[:200]!r}. Mend it in the metadata."
        )
    return name


def _facts(path: Path) -> dict[str, Any]:
    """Return the facts of a ``metadata.npy``, each of its own type, with how often each name of a file is listed."""
    facts = read_pickled(path)
    index = facts.get("file_index")
    if not isinstance(index, list | tuple) or not index or not all(_is_entry(entry) for entry in index):
        raise InvalidInputError(
            f"file_index, a list of (path, number of patches), was expected in {path.name!r}, got {index!r:.200}. "
            "Write the metadata anew."
        )
    files = [(str(listed), int(count)) for listed, count in index]
    names = Counter(re.split(r"[/\\]", listed)[-1] for listed, _ in files)
    size, stride = (int(_number(facts, key, path)) for key in ("patch_size", "stride"))
    if not (1 <= size <= MAX_CUT and stride >= 1):
        raise InvalidInputError(
            f"patch_size of 1 to {MAX_CUT} and stride of 1 or more were expected in {path.name!r}, got {size} and "
            f"{stride}. Write the metadata anew."
        )
    floats = {key: _number(facts, key, path) for key in ("vmin", "vmax", "min_valid")}
    if floats["vmin"] >= floats["vmax"]:
        raise InvalidInputError(
            f"vmin below vmax was expected in {path.name!r}, got {floats['vmin']} and {floats['vmax']}. "
            "Write the metadata anew."
        )
    return {**floats, "patch_size": size, "stride": stride, "file_index": files, "names": names}


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, list | tuple)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], int | np.integer)
        and int(entry[1]) >= 0
    )


def _number(facts: dict[str, Any], key: str, path: Path) -> float:
    value = facts.get(key)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if not isinstance(value, int | float | np.integer | np.floating) or not np.isfinite(value):
        raise InvalidInputError(
            f"{key}, a number, was expected in {path.name!r}, got {value!r:.100}. Write it anew."
        )
    return float(value)


def _absolute(path: str | Path) -> Path:
    place = Path(path).absolute()  # workers may stand elsewhere
    if not place.exists():
        raise RasterNotFoundError(f"a .npy file was expected, got nothing at {str(path)!r}. Give its path.")
    return place
