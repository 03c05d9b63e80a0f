"""Histograms of the chips of a store's collections, by the group that shares a clip."""

from collections.abc import Set as AbstractSet
from typing import Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.pixels.bounds import ClipBounds, Histogram
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


def chip_histogram(made: Collection, array: ChipArray, split: str | None) -> Histogram:
    """Return the dB histogram of an array of all chips, or, in one pass over their codes, of a side of a split.

    Of a side, pixels are counted that are valid and positive.
    """
    if split is None:
        return made.histogram(array.name)
    is_there = made.table[f"valid_{array.name}"].values != ABSENT
    rows = np.flatnonzero(chip_side(made, split) & is_there).tolist()
    total = Histogram.empty()
    for first in range(0, len(rows), TOGETHER):
        parts = [_db(made, array, row).ravel() for row in rows[first : first + TOGETHER]]
        total = total + Histogram.from_db(np.concatenate(parts))
    return total


def _db(made: Collection, array: ChipArray, row: int) -> Array:
    """Return dB, float32 (rows, columns), NaN where a pixel is not valid and positive."""
    stored = made.stored(row, array.name)
    values = from_codes(stored) if stored.dtype == np.uint16 else stored.astype(np.float32)
    db = denormalize(values, ClipBounds(array.vmin, array.vmax))
    return np.where(made.stored(row, array.flags) == cv.Flag.VALID, db, np.float32(np.nan))
