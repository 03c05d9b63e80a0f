"""Spectrogram samples in their older files: ``<id>.npz`` with one picture, ``<id>.json`` with the boxes on it.

Nothing is unpickled. What an archive or an array's header says of its size is held against what a sample is before
memory is taken for it.
"""

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.ingestion.annotations import Annotation
from sarzarr.store.boxes import CORNERS, DEFAULT_LABEL
from sarzarr.store.limits import read_text
from sarzarr.zips import CORRUPT, listing_size

_SHAPE: Final = cv.SPECTROGRAM_SIDE, cv.SPECTROGRAM_SIDE
MAX_ARCHIVE: Final = 64 * 2**20
"""Bytes of an archive: it may hold other arrays, which are not read."""
MAX_LISTING: Final = 2**20
"""Bytes of an archive's list of files."""
MAX_ARRAY: Final = cv.SPECTROGRAM_SIDE**2 + 2**16
"""Bytes of the array as its file has it: pixels and a header."""
MAX_JSON: Final = 16 * 2**20
_HEADERS: Final = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def probe_spectrogram(path: Path) -> tuple[str, ...]:
    """Return the names of the other arrays of an archive that has a spectrogram; errors as `read_spectrogram`."""
    with _opened(path) as archive:
        _member(archive, path)
        return tuple(sorted(name for name in _names(archive) if name != cv.SPECTROGRAM))


def read_spectrogram(path: Path) -> Array:
    """Return the spectrogram of an archive, (1024, 1024) uint8, C-contiguous.

    Raises `UnsupportedRasterError` where it is none, of another dtype or shape, holds objects, or is damaged.
    """
    try:
        with _opened(path) as archive, archive.open(_member(archive, path)) as file:
            data = file.read(MAX_ARRAY + 1)
        content = io.BytesIO(data)
        shape, is_by_column, dtype = _HEADERS[np.lib.format.read_magic(content)](content)
    except (*CORRUPT, OSError, NotImplementedError, RuntimeError, KeyError, ValueError) as error:
        if isinstance(error, UnsupportedRasterError):
            raise
        raise _refused(path, f"a damaged one ({str(error)[:100] or type(error).__name__})") from error
    if dtype != np.uint8 or shape != _SHAPE or len(data) != content.tell() + cv.SPECTROGRAM_SIDE**2:
        raise _refused(path, f"{str(dtype)[:50]} {str(shape)[:50]} in {len(data)} bytes")
    values = np.frombuffer(data, np.uint8, offset=content.tell())
    return np.ascontiguousarray(values.reshape(_SHAPE, order="F" if is_by_column else "C"))


def _opened(path: Path) -> zipfile.ZipFile:
    if (size := path.stat().st_size) > MAX_ARCHIVE:
        raise _refused(path, f"a file of {size:,} bytes")
    try:
        with path.open("rb") as file:
            listing = listing_size(file)
        if listing <= MAX_LISTING:
            return zipfile.ZipFile(path)
        raise _refused(path, f"an archive whose list of files takes {listing:,} bytes")
    except (*CORRUPT, NotImplementedError, struct.error) as error:
        raise _refused(path, f"no archive ({str(error)[:100]})") from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [info.filename.removesuffix(".npy") for info in archive.infolist()]


def _member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == f"{cv.SPECTROGRAM}.npy"]
    if len(found) != 1:
        names = ", ".join(_names(archive)[:5])[:200]
        raise _refused(path, f"{len(found)} of that key, among {names or 'none'}")
    if found[0].file_size > MAX_ARRAY or found[0].flag_bits & 1:
        raise _refused(path, f"one of {found[0].file_size:,} bytes, or encrypted")
    return found[0]


def _refused(path: Path, what: str) -> UnsupportedRasterError:
    return UnsupportedRasterError(
        f"expected uint8 {_SHAPE} as {cv.SPECTROGRAM!r} in {path.name!r}, got {what}. Write it again with "
        f"np.savez_compressed(path, {cv.SPECTROGRAM}=...), or take it away."
    )


def read_sample_json(path: Path) -> tuple[dict[str, Any], Annotation]:
    """Return a sample's JSON document, whatever else it says, and its boxes in pixels; none without the key.

    Raises `InvalidInputError` where it is no such document; `OSError` where there is no file.
    """
    try:
        document = json.loads(read_text(path, "a sample's JSON", limit=MAX_JSON))
        boxes = document.get(cv.BOXES) or []
        corners = [box.get(corner) for box in boxes for corner in CORNERS]
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in corners):
            raise TypeError(f"a box without numbers {', '.join(CORNERS)}")
        labels = [DEFAULT_LABEL if box.get("label") is None else str(box["label"]) for box in boxes]
        "".join(labels).encode()  # halves of a character have no UTF-8
        return document, Annotation.of(np.array(corners, np.float64).reshape(-1, 4), labels)
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f'expected JSON {{"{cv.BOXES}": [{{"x_min": ...}}, ...]}} in {path.name!r}, '
            f"got {str(error)[:200]}. Mend it."
        ) from error
