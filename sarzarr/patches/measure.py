"""Measures of patches: valid and unsaturated fractions, mean and standard deviation in dB."""

import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.patches.cut import IndexSpec, patch_ids
from sarzarr.patches.stored_array import StoredArray
from sarzarr.pixels.compiled.when import loops_for
from sarzarr.pixels.radiometry import denormalize

SATURATED: Final = (0.01, 0.99)
"""A pixel is unsaturated strictly between these values of the clipped [0, 1]."""
SLAB_COLUMNS: Final = 2048
"""Columns that are worked on at once, which bounds the memory of a task."""
COLUMNS: Final[Mapping[str, str]] = {
    "row": "i4",
    "col": "i4",
    "id": "i8",
    "valid_fraction": "f4",
    "unsaturated_fraction": "f4",
    "mean_db": "f4",
    "std_db": "f4",
}
"""The columns of a patch table over ``patch``, besides ``owner``, and their dtypes."""


class _Room:
    """Buffers that a task works in, one slab after another."""

    def __init__(self, dtype: str, height: int, width: int, fast: ModuleType | None) -> None:
        self.fast = fast
        self.codes = np.empty((height, width), dtype)
        self.flags = np.empty((height, width), np.uint8)
        self.values = np.empty((height, width), np.float64)
        self.shifted = np.empty((height, width), dtype)
        self.mask = np.empty((height, width), bool)


def _row_of_patches(
    array: StoredArray, spec: IndexSpec, row: int, cols: Array, room: _Room, between: tuple[Any, Any]
) -> Array:
    """Return (5, patches): pixels that are valid, unsaturated and lit; sum and sum of squares of lit values.

    Lit is valid and positive. Columns are added up first, over many patches in one call, and each
    patch is a difference of running totals. Codes are integers whose sums of squares stay below 2**53,
    so that float64 is exact and no order of adding changes them.
    """
    out = np.empty((5, len(cols)), np.float64)
    bottom = min(row + spec.size, array.shape[0])
    per_slab = _per_slab(spec)
    for first in range(0, len(cols), per_slab):
        some = cols[first : first + per_slab]
        left, end = int(some[0]), int(some[-1]) + spec.size
        width, right = end - left, min(end, array.shape[1])
        inside = np.s_[: bottom - row, : right - left]
        room.codes[bottom - row :], room.codes[:, right - left :] = 0, 0
        room.flags[bottom - row :], room.flags[:, right - left :] = cv.Flag.NODATA, cv.Flag.NODATA
        window = slice(row, bottom), slice(left, right)
        array.codes(window, room.codes[inside])
        array.flags(window, room.flags[inside])
        totals = np.zeros((5, width + 1), np.float64)
        np.cumsum(_columns(room, width, between), axis=1, out=totals[:, 1:])
        starts = some - left
        out[:, first : first + len(some)] = totals[:, starts + spec.size] - totals[:, starts]
    return out


def _per_slab(spec: IndexSpec) -> int:
    """Return the number of patches side by side that are worked on at once."""
    return max(SLAB_COLUMNS // spec.stride, 1)


def _columns(room: _Room, width: int, between: tuple[Any, Any]) -> Array:
    """Return the counts and sums of `_row_of_patches` of each of the first ``width`` columns of ``room``."""
    codes, flags, values, unsaturated, shifted = (
        array[:, :width] for array in (room.codes, room.flags, room.values, room.mask, room.shifted)
    )
    out = np.empty((5, width), np.float64)
    low, span = between
    is_clean = not flags.any()
    fast = room.fast if is_clean and len(codes) < 2**16 else None
    if fast is not None:
        out[0] = out[2] = codes.shape[0]
        if codes.dtype in (np.uint16, np.float32):
            out[1], out[3], out[4] = fast.column_sums(room.codes, width, *_inclusive(low, span))
            return out
    if codes.dtype.kind == "u":
        np.less_equal(np.subtract(codes, low, out=shifted), span, out=unsaturated)
    else:
        np.greater(codes, low, out=unsaturated)
        unsaturated &= codes < span
    np.copyto(values, codes)
    if not is_clean:
        lit = flags == cv.Flag.VALID
        unsaturated &= lit
        np.copyto(values, 0, where=~lit)
        out[0], out[2] = _true(cv.Flag.is_valid(flags)), _true(lit)
    else:
        out[0] = out[2] = codes.shape[0]
    out[1] = _true(unsaturated)
    np.add.reduce(values, axis=0, out=out[3])
    np.add.reduce(np.square(values, out=values), axis=0, out=out[4])
    return out


def _inclusive(low: Any, span: Any) -> tuple[Any, Any]:
    """Return the first and last stored value of `_unsaturated_values`."""
    if isinstance(low, np.uint16):
        return low, low + span
    return np.nextafter(low, np.float32(np.inf)), np.nextafter(span, np.float32(-np.inf))


def _true(mask: Array) -> Array:
    """Return (columns,) the count of True in each column: added up in bytes, 255 rows at a time, which is fastest."""
    counts = (
        np.add.reduce(mask[i : i + 255].view(np.uint8), dtype=np.uint8) for i in range(0, len(mask), 255)
    )
    return sum(counts, start=np.zeros(mask.shape[1], np.int64))


def _unsaturated_values(array: StoredArray, clip: tuple[float, float]) -> tuple[Any, Any]:
    """Return the stored values that lie strictly between 1 % and 99 % of the clip (dB).

    For codes (first, last - first), so that one wrapping subtraction and one comparison tell; for
    floats the two ends.
    """
    (vmin, vmax), (low, high) = array.stored, clip
    ends = [(low + share * (high - low) - vmin) / (vmax - vmin) for share in SATURATED]
    if array.encoding.dtype != "uint16":
        return ends[0], ends[1]
    low, high = (cv.FIRST_CODE + end * cv.STEPS for end in ends)
    first = min(max(math.floor(low) + 1, cv.FIRST_CODE), cv.MAX_CODE)
    last = min(max(math.ceil(high) - 1, first), cv.MAX_CODE)
    return np.uint16(first), np.uint16(last - first)


def measure_patches(
    array: StoredArray, clip: tuple[float, float], spec: IndexSpec, rows: Array, cols: Array
) -> dict[str, Array]:
    """Return the columns of the patches at every (row, col), row by row: `COLUMNS`.

    Raises `CorruptStoreError` where a chunk fails its checksum.
    """
    room = _Room(
        array.encoding.dtype,
        spec.size,
        (_per_slab(spec) - 1) * spec.stride + spec.size,
        loops_for(len(rows) * len(cols) * spec.size**2),
    )
    between = _unsaturated_values(array, clip)
    measured = [_row_of_patches(array, spec, int(row), cols, room, between) for row in rows]
    valid, unsaturated, lit, total, squares = np.concatenate(measured, axis=1)
    pixels = spec.size * spec.size
    with np.errstate(invalid="ignore", divide="ignore"):  # a patch without a lit pixel has no mean
        mean = total / lit
        std = np.sqrt(np.maximum(squares / lit - mean * mean, 0))
    scale, first = (cv.STEPS, cv.FIRST_CODE) if array.encoding.dtype == "uint16" else (1.0, 0)
    vmin, vmax = array.stored
    row, col = (v.reshape(-1) for v in np.meshgrid(rows, cols, indexing="ij"))
    columns = {
        "row": row,
        "col": col,
        "id": patch_ids(array.scene, array.name, spec.size, row, col),
        "valid_fraction": valid / pixels,
        # among lit pixels: what is nonpositive is dark, and no stretch made it so
        "unsaturated_fraction": np.where(lit > 0, unsaturated / np.maximum(lit, 1), 0) * valid / pixels,
        "mean_db": denormalize((mean - first) / scale, array.stored),
        "std_db": std / scale * (vmax - vmin),
    }
    return {name: columns[name].astype(dtype) for name, dtype in COLUMNS.items()}
