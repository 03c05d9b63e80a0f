"""Names of chips as lists and labels of others spell them: an id, a file, with or without folder and ending."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.store.collections import Collection

UNKNOWN: Final = -1
"""The row of a name that is no chip's."""
_MARKS: Final = "_-."
"""Characters that part a name."""
_ENDINGS: Final = (".tif", ".tiff", ".gz", ".png", ".jpg", ".jpeg", ".npy", ".zarr")
_TWO: Final = -2


def chip_rows(collection: Collection, names: Sequence[str]) -> Array:
    """Return (names,) int64: the row of the chip that each name means, -1 where it means none, or more than one.

    A name is an id, or one of a chip's files. Folders (of either slash), from the first on, and endings may be left
    out, or there may be more folders before. The last words of a name, after a ``_``, ``-`` or ``.``, may be left
    out, as ``Spain_7370579`` for ``Spain_7370579_S1Hand``, and the last one be another, where they are the same in
    all chips and in all names that need it, and begin with a letter: dates and numbers tell chips from one another.
    """
    exact: dict[str, int] = {}
    for row, (chip, source) in enumerate(
        zip(collection.ids, collection.table["source"].values.tolist(), strict=True)
    ):
        for text in {chip, *(part for line in str(source).split("\n") for part in _spellings(line))}:
            exact[text] = row if exact.get(text, row) == row else _TWO
    found = [next((exact[t] for t in _spellings(name) if t in exact), UNKNOWN) for name in names]
    if missing := [i for i, row in enumerate(found) if row == UNKNOWN]:
        bases = _bases(collection.ids)
        dropped: dict[str, list[int]] = {}
        for i in missing:
            stem = _spellings(names[i])[-1]
            found[i] = bases.get(stem, UNKNOWN)
            base, word = _parted(stem)
            if found[i] == UNKNOWN and base:
                found[i] = exact.get(base, bases.get(base, UNKNOWN))
                dropped.setdefault(word, []).append(i)
        taken = [word for word, some in dropped.items() if any(found[i] >= 0 for i in some)]
        for i in [i for word in taken for i in dropped[word]] if len(taken) > 1 else ():
            found[i] = UNKNOWN
    return np.maximum(np.array(found, np.int64), UNKNOWN)


def _spellings(name: str) -> list[str]:
    r"""Return a name as it is, and from each of its folders on, with its ending and without; the bare one comes last.

    What comes before a tab is not of it.

    >>> _spellings(r"val\a.tif")
    ['val/a.tif', 'val/a', 'a.tif', 'a']
    """
    parts = [part for part in name.rpartition("\t")[2].strip().replace("\\", "/").split("/") if part]
    *folders, last = parts or [""]
    stem = last
    while stem.lower().endswith(_ENDINGS) and stem.rindex(".") > 0:
        stem = stem[: stem.rindex(".")]
    tails = [folders[at:] for at in range(len(folders) + 1)]
    return ["/".join((*tail, one)) for tail in tails for one in (last, stem)]


def _parted(stem: str) -> tuple[str, str]:
    """Return a name without its last word, and that word; nothing where it does not begin with a letter.

    >>> _parted("Spain_7370579_S1Hand"), _parted("site1_20240101")
    (('Spain_7370579', 'S1Hand'), ('', ''))
    """
    at = max(stem.rfind(mark) for mark in _MARKS)
    return (stem[:at], stem[at + 1 :]) if at > 0 and stem[at + 1 :][:1].isalpha() else ("", "")


def _bases(ids: Sequence[str]) -> dict[str, int]:
    """Return the rows of chips by their ids without the last words that are the same in all of them."""
    bases: dict[str, int] = {}
    parted = [_parted(chip) for chip in ids]
    while len({word for _, word in parted}) == 1 and parted[0][1]:
        for row, (base, _) in enumerate(parted):
            bases[base] = row if bases.get(base, row) == row else _TWO
        parted = [_parted(base) for base, _ in parted]
    return bases
