"""Histograms of one side of a split, from one pass over its codes: the source of a clip without leak.

Validation must not decide how training batches are stretched, so its pixels may not be counted. The pass is
integer counts, which add up in any order.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.patches.stored_array import StoredArray
from sarzarr.pixels.bounds import Histogram, count_half_codes
from sarzarr.pixels.kernels import half_codes_kernel, normalize_kernel
from sarzarr.pixels.radiometry import denormalize
from sarzarr.store.catalog import catalog_rows
from sarzarr.store.membership import parse_choice
from sarzarr.store.shard_job import job_side, rectangles
from sarzarr.store.split_table import read_split
from sarzarr.store.store import Store
from sarzarr.tasks import gather

BATCHES: Final = 32
"""Tasks per group: each brings back one histogram of a megabyte."""


_Part = tuple[StoredArray, dict[str, Any], Array]
"""An array, a rectangle of it as `rectangles` yields them, and (rows, columns) bool: its cells that are counted."""


def split_histograms(store: Store, split: str = "train") -> dict[str, Histogram]:
    """Return the dB histogram of each group over the cells of one side of a split, by `bounds_key`.

    Pixels are counted that are valid and positive; the dB of a code is taken to be its middle. A group
    without a cell on that side is not there.

    Raises `NotInStoreError` where there is no such version; `CorruptStoreError` where a file is absent or short, or a
    chunk fails its checksum.
    """
    version, wanted = parse_choice(split)
    record = read_split(store.place, version)
    parts: dict[str, list[_Part]] = {}
    for row in catalog_rows(store.catalog):
        cells = record.by_scene.get(str(row["scene"]))
        if cells is not None and cells.grid == store.grids[str(row["scene"])]:
            array = StoredArray.of(store.place, row)
            parts.setdefault(row["bounds_key"], []).extend(_parts(array, cells.codes == wanted))
    for scene in store.scenes:
        store.check_files(scene)
    tasks = [(key, some[i::BATCHES]) for key, some in parts.items() for i in range(min(BATCHES, len(some)))]
    out: dict[str, Histogram] = {}
    counted = gather([(_count_all, (batch,)) for _, batch in tasks])
    for (key, _), histogram in zip(tasks, counted, strict=True):
        out[key] = out.get(key, Histogram.empty()) + histogram
    return out


def _parts(array: StoredArray, cells: Array) -> Iterator[_Part]:
    """Yield the rectangles of an array, of whole files and whole cells, that hold any of the wanted ``cells``."""
    side = math.lcm(job_side(array.encoding.file_size), cv.CELL)
    for place in rectangles(array.shape, (side, side)):
        row, col = place["row"] // cv.CELL, place["col"] // cv.CELL
        wanted = cells[row : row + side // cv.CELL, col : col + side // cv.CELL]
        if wanted.any():
            yield array, place, wanted


def _count_all(parts: list[_Part]) -> Histogram:
    return sum((_count(*part) for part in parts), start=Histogram.empty())


def _count(array: StoredArray, place: dict[str, Any], cells: Array) -> Histogram:
    """Count the wanted cells of one rectangle."""
    row, col = place["row"], place["col"]
    window = slice(row, row + place["height"]), slice(col, col + place["width"])
    values, flags = array.codes(window), array.flags(window)
    to_half = _half_codes(array)
    counts = np.zeros(cv.HISTOGRAM_BINS, np.int64)
    nodata = nonpositive = 0
    for top, left in (np.argwhere(cells) * cv.CELL).tolist():
        cell = np.s_[top : top + cv.CELL, left : left + cv.CELL]
        coded = flags[cell]
        count_half_codes(to_half(values[cell][coded == cv.Flag.VALID]), counts)
        nonpositive += int(np.count_nonzero(coded == cv.Flag.NONPOSITIVE))
        nodata += int(np.count_nonzero(~cv.Flag.is_valid(coded)))
    return Histogram(counts=counts, nonpositive=nonpositive, nodata=nodata)


def _half_codes(array: StoredArray) -> Callable[[Array], Array]:
    """Return the function from stored values to histogram bins (int32)."""

    def of_floats(z: Array) -> Array:
        if array.stored != cv.STORED_RANGE:
            z = normalize_kernel(denormalize(z, array.stored), cv.STORED_RANGE)
        return half_codes_kernel(z)

    if array.encoding.dtype != "uint16":
        return lambda values: of_floats(values.astype(np.float32))
    codes = np.arange(cv.MAX_CODE + 1, dtype=np.int32)
    is_whole = array.stored == cv.STORED_RANGE
    table = 2 * codes if is_whole else of_floats(codes.astype(np.float32) / np.float32(cv.MAX_CODE))
    return lambda values: table[values]
