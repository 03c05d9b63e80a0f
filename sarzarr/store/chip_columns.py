"""Columns of the chips of a collection that conditions and splits may name: of the table, and facts by chip."""

from typing import Any

import numpy as np

from sarzarr.arrays import Array
from sarzarr.store.collections import ABSENT, Collection


def chip_columns(collection: Collection) -> dict[str, Array]:
    """Return columns (n,) by name: id, source, height and width in pixels, time (ISO 8601), facts of the acquisition.

    ``valid_vv``, ... are shares of valid pixels in [0, 1], NaN where a chip has no such array. Facts are numbers, or
    texts; others are left out.
    """
    table = collection.table
    pixels = table["height"].values * table["width"].values
    out: dict[str, Array] = {name: table[name].values for name in ("id", "source", "height", "width")}
    for array in collection.arrays:
        valid = table[f"valid_{array}"].values
        out[f"valid_{array}"] = np.where(valid == ABSENT, np.nan, valid / pixels)
    out["time"] = chip_times(table["time"].values)
    facts, number = collection.contents.facts, table["facts"].values
    for name in sorted({key for one in facts for key in one}):
        given = [one.get(name) for one in facts]
        is_number = all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in given)
        if not is_number and not all(v is None or isinstance(v, str) for v in given):
            continue
        none: Any = np.nan if is_number else ""
        values = np.array([none if v is None else v for v in given], np.float64 if is_number else object)
        out.setdefault(name, values[number])
    return out


def chip_times(stamps: Array) -> Array:
    """Return (n,) texts, ISO 8601 UTC to the second with Z, of datetime64[ns]; empty where nothing dates a chip."""
    text = np.char.add(np.datetime_as_string(stamps, "s"), "Z")
    out: Array = np.where(np.isnat(stamps), "", text).astype(object)
    return out
