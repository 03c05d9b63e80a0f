"""Histograms of the chips of a store's collections, by the group that shares a clip."""

from collections.abc import Set as AbstractSet
from typing import Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.pixels.bounds import ClipBounds, Histogram
from sarzarr.pixels.kernels import half_codes_kernel, normalize_kernel
from sarzarr.pixels.radiometry import denormalize, from_codes
from sarzarr.store.chip_splits import chip_side
from sarzarr.store.collections import ABSENT, ChipArray, Collection, collection_names, open_collection
from sarzarr.store.store import Store

TOGETHER: Final = 64
"""Chips that are counted together."""


def chip_arrays(store: Store, keys: AbstractSet[str]) -> dict[str, list[tuple[Collection, ChipArray]]]:
    """Return the arrays of collections, by the group among ``keys`` that they are of; each has its dB."""
    out: dict[str, list[tuple[Collection, ChipArray]]] = {}
    for name in collection_names(store):
        made = open_collection(store, name)
        for array in made.contents.arrays:
            if array.bounds_key in keys:
                out.setdefault(array.bounds_key, []).append((made, array))
    return out


def chip_histogram(made: Collection, array: ChipArray, side: str | Array | None) -> Histogram:
    """Return the dB histogram of an array of all chips, or, in one pass over their codes, of some of them.

    ``side`` is a side of a split, or rows (k,) of the table of chips: of these, pixels are counted that are valid and
    positive.
    """
    if side is None:
        return made.histogram(array.name)
    wanted = chip_side(made, side) if isinstance(side, str) else np.isin(np.arange(len(made)), side)
    rows = np.flatnonzero(wanted & (made.table[f"valid_{array.name}"].values != ABSENT)).tolist()
    if array.dtype == "uint16":
        return _of_codes(made, array, rows)
    total = Histogram.empty()
    for first in range(0, len(rows), TOGETHER):
        parts = [_db(made, array, row).ravel() for row in rows[first : first + TOGETHER]]
        total = total + Histogram.from_db(np.concatenate(parts))
    return total


def _of_codes(made: Collection, array: ChipArray, rows: list[int]) -> Histogram:
    """Return the histogram of codes: each is counted, and then every code once is brought to its bin."""
    counts, pixels = np.zeros(cv.MAX_CODE + 1, np.int64), 0
    for row in rows:
        codes, flags = made.stored(row, array.name), made.stored(row, array.flags)
        counts += np.bincount(codes[flags == cv.Flag.VALID], minlength=len(counts))
        pixels += codes.size
    db = denormalize(
        from_codes(np.arange(1, len(counts), dtype=np.uint16)), ClipBounds(array.vmin, array.vmax)
    )
    bins = half_codes_kernel(normalize_kernel(db, cv.STORED_RANGE))
    out = np.zeros(cv.HISTOGRAM_BINS, np.int64)
    np.add.at(out, bins, counts[1:])
    return Histogram(counts=out, nodata=pixels - int(counts[1:].sum()))


def _db(made: Collection, array: ChipArray, row: int) -> Array:
    """Return dB, float32 (rows, columns), NaN where a pixel is not valid and positive."""
    stored = made.stored(row, array.name)
    values = from_codes(stored) if stored.dtype == np.uint16 else stored.astype(np.float32)
    db = denormalize(values, ClipBounds(array.vmin, array.vmax))
    return np.where(made.stored(row, array.flags) == cv.Flag.VALID, db, np.float32(np.nan))
