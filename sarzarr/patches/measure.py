"""Measures of patches: valid and unsaturated fractions, mean and standard deviation in dB."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.patches.cut import IndexSpec, patch_ids
from sarzarr.pixels.compiled.calls import Loops
from sarzarr.pixels.compiled.fused import loops_for
from sarzarr.pixels.radiometry import denormalize
from sarzarr.store.codecs import get_codec
from sarzarr.store.documents import Encoding
from sarzarr.store.shards import read_stored

SATURATED: Final = (0.01, 0.99)
"""A pixel is unsaturated strictly between these values of the clipped [0, 1]."""
SLAB_COLUMNS: Final = 2048
"""Columns that are worked on at once: what bounds the memory of a task."""


# ------------------------------------------------------------------ one array
@dataclass(frozen=True, kw_only=True)
class PatchOwner:
    """One array of a scene, as a worker looks at it."""

    root: str
    scene: str
    array: str
    shape: tuple[int, int]
    encoding: Encoding
    stored: tuple[float, float]
    clip: tuple[float, float]

    def window(self, name: str, codec: str, window: tuple[slice, slice], out: Array) -> None:
        """Read a window of the codes or the flags into ``out``, 0 beyond the array's right and bottom edge."""
        rows, cols = window
        bottom, right = min(rows.stop, self.shape[0]), min(cols.stop, self.shape[1])
        height, width = bottom - rows.start, right - cols.start
        out[height:], out[:, width:] = 0, 0
        read_stored(
            Path(self.root) / cv.SCENES / self.scene / name,
            grid=self.encoding.grid,
            codec=get_codec(codec),
            like=np.empty((self.encoding.chunk, self.encoding.chunk), out.dtype),
            window=(slice(rows.start, bottom), slice(cols.start, right)),
            out=out[:height, :width],
        )


class _Room:
    """Arrays that a task works in, one slab after another."""

    def __init__(self, dtype: str, height: int, width: int, fast: Loops | None) -> None:
        self.fast = fast
        self.codes = np.empty((height, width), dtype)
        self.flags = np.empty((height, width), np.uint8)
        self.values = np.empty((height, width), np.float64)
        self.shifted = np.empty((height, width), dtype)
        self.mask = np.empty((height, width), bool)


def _row_of_patches(owner: PatchOwner, spec: IndexSpec, row: int, cols: Array, room: _Room) -> Array:
    """Return (5, patches): pixels that are valid, unsaturated and lit; sum and sum of squares of lit values.

    Lit is valid and positive. Columns are added up first, over many patches in one call, and each
    patch is a difference of running totals. Codes are integers whose sums of squares stay below 2**53,
    so that float64 is exact and no order of adding changes them.
    """
    between = _unsaturated_values(owner)
    out = np.empty((5, len(cols)), np.float64)
    rows = slice(row, row + spec.size)
    per_slab = _per_slab(spec)
    for first in range(0, len(cols), per_slab):
        some = cols[first : first + per_slab]
        columns = slice(int(some[0]), int(some[-1]) + spec.size)
        width = columns.stop - columns.start
        flags = room.flags[:, :width]
        owner.window(owner.array, owner.encoding.codec, (rows, columns), room.codes[:, :width])
        owner.window(owner.array + cv.FLAGS_SUFFIX, cv.FLAGS_CODEC, (rows, columns), flags)
        flags[max(owner.shape[0] - row, 0) :] = cv.Flag.NODATA
        flags[:, max(owner.shape[1] - columns.start, 0) :] = cv.Flag.NODATA
        totals = np.zeros((5, width + 1), np.float64)
        np.cumsum(_columns(room, width, between), axis=1, out=totals[:, 1:])
        at = some - columns.start
        out[:, first : first + len(some)] = totals[:, at + spec.size] - totals[:, at]
    return out


def _per_slab(spec: IndexSpec) -> int:
    """Return how many patches side by side are worked on at once."""
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
        if codes.dtype == np.uint16:
            out[1], out[3], out[4] = fast.column_sums(room.codes, width, low, span)
            return out
        if codes.dtype == np.float32:
            out[1], out[3], out[4] = fast.float_column_sums(room.codes, width, low, span)
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
        values *= lit
        out[0], out[2] = _true(cv.Flag.is_valid(flags)), _true(lit)
    else:
        out[0] = out[2] = codes.shape[0]
    out[1] = _true(unsaturated)
    np.add.reduce(values, axis=0, out=out[3])
    np.add.reduce(np.square(values, out=values), axis=0, out=out[4])
    return out


def _true(mask: Array) -> Array:
    """Return how many are True in each column: added up in bytes, 255 rows at a time, which is fastest."""
    counts = (
        np.add.reduce(mask[i : i + 255].view(np.uint8), dtype=np.uint8) for i in range(0, len(mask), 255)
    )
    return sum(counts, start=np.zeros(mask.shape[1], np.int64))


def _unsaturated_values(owner: PatchOwner) -> tuple[Any, Any]:
    """Return what stored values lie strictly between 1 % and 99 % of the clip.

    For codes (first, last - first), so that one wrapping subtraction and one comparison tell; for
    floats the two ends.
    """
    (vmin, vmax), (low, high) = owner.stored, owner.clip
    at = [(low + share * (high - low) - vmin) / (vmax - vmin) for share in SATURATED]
    if owner.encoding.dtype != "uint16":
        return at[0], at[1]
    first = min(max(math.floor(at[0] * cv.MAX_CODE) + 1, 0), cv.MAX_CODE)
    last = min(max(math.ceil(at[1] * cv.MAX_CODE) - 1, first), cv.MAX_CODE)
    return np.uint16(first), np.uint16(last - first)


def measure_patches(owner: PatchOwner, spec: IndexSpec, rows: Array, cols: Array) -> dict[str, Array]:
    """Return the columns of the patches at every (row, col), row by row."""
    room = _Room(
        owner.encoding.dtype,
        spec.size,
        (_per_slab(spec) - 1) * spec.stride + spec.size,
        loops_for(len(rows) * len(cols) * spec.size**2),
    )
    counted = np.concatenate([_row_of_patches(owner, spec, int(r), cols, room) for r in rows], axis=1)
    valid, unsaturated, lit, total, squares = counted
    pixels = spec.size * spec.size
    with np.errstate(invalid="ignore", divide="ignore"):  # a patch without a lit pixel has no mean
        mean = total / lit
        std = np.sqrt(np.maximum(squares / lit - mean * mean, 0))
    scale = cv.MAX_CODE if owner.encoding.dtype == "uint16" else 1.0
    vmin, vmax = owner.stored
    row, col = (v.reshape(-1) for v in np.meshgrid(rows, cols, indexing="ij"))
    return {
        "row": row.astype(np.int32),
        "col": col.astype(np.int32),
        "id": patch_ids(owner.scene, owner.array, spec.size, row, col),
        "valid_fraction": (valid / pixels).astype(np.float32),
        "unsaturated_fraction": (unsaturated / pixels).astype(np.float32),
        "mean_db": denormalize(mean / scale, owner.stored).astype(np.float32),
        "std_db": (std / scale * (vmax - vmin)).astype(np.float32),
    }
