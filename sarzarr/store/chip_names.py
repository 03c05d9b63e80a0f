"""Names of chips as lists and labels of others spell them: an id, a file, with or without folder and ending."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.store.collections import Collection

UNKNOWN: Final = -1
"""The row of a name that is no chip's."""
_MARKS: Final = "_-."
"""Characters that part a name."""
_TWO: Final = -2


def chip_rows(collection: Collection, names: Sequence[str]) -> Array:
    """Return (names,) int64: the row of the chip that each name means, -1 where it means none, or more than one.

    A name is an id, or one of a chip's files; folders (of either slash) and endings may be left out, and so may what
    follows a ``_``, ``-`` or ``.``, as ``Spain_7370579`` for ``Spain_7370579_S1Hand``, or be another.
    """
    exact: dict[str, int] = {}
    for row, (chip, source) in enumerate(
        zip(collection.ids, collection.table["source"].values.tolist(), strict=True)
    ):
        for text in {chip, *(part for line in str(source).split("\n") for part in _spellings(line))}:
            exact[text] = row if exact.get(text, row) == row else _TWO
    found = [next((exact[t] for t in _spellings(name) if t in exact), UNKNOWN) for name in names]
    missing = [i for i, row in enumerate(found) if row < 0]
    if missing:
        begins: dict[str, int] = {}
        for row, chip in enumerate(collection.ids):
            for text in _beginnings(chip):
                begins[text] = row if begins.get(text, row) == row else _TWO
        for i in missing:
            stem = _spellings(names[i])[-1]
            tries = [begins.get(stem, UNKNOWN)]
            tries += [exact.get(text, begins.get(text, UNKNOWN)) for text in _beginnings(stem)[:1]]
            found[i] = next((row for row in tries if row >= 0), UNKNOWN)
    return np.array(found, np.int64)


def _spellings(name: str) -> list[str]:
    """Return a name as it is, without its folders, and without its ending; what comes before a tab is not of it."""
    path = PurePosixPath(name.rpartition("\t")[2].strip().replace("\\", "/"))
    stem = path.name
    while PurePosixPath(stem).suffix.lower() in (".tif", ".tiff", ".gz", ".png", ".jpg", ".npy", ".zarr"):
        stem = PurePosixPath(stem).stem
    return [str(path), path.name, stem]


def _beginnings(stem: str) -> list[str]:
    """Return what comes before each mark in a name, the longest first."""
    return [stem[:i] for i in range(len(stem) - 1, 0, -1) if stem[i] in _MARKS]
