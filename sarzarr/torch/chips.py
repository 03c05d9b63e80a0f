"""The sides of a collection of chips, for loaders."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from sarzarr.conventions import Membership
from sarzarr.errors import InvalidInputError
from sarzarr.patches.chip_histograms import chip_histogram
from sarzarr.pixels.bounds import Histogram, clip_bounds_from_histogram
from sarzarr.reader.collections import CollectionKeywords, CollectionReader
from sarzarr.reader.options import ReadKeywords
from sarzarr.splits.chips.make import split_collection
from sarzarr.store.store import Store


def chip_sides(
    store: Store, chips: Mapping[str, Any], split: str | None, common: ReadKeywords, val_fraction: float
) -> tuple[ReadKeywords, ReadKeywords, int]:
    """Return the options of training, and of validation, of a collection; and how many chips are on no side.

    ``chips`` are ``collection``, ``size`` and ``labels``. Both have the clip (dB) that the pixels of the training
    chips recommend, unless one is given; training has the turns that its chips' (rows, columns) allow.

    Raises `InvalidInputError` where no split is named and the ground of chips does not tell them apart.
    """
    name, left_out = str(chips["collection"]), 0
    if split is not None:
        train: ReadKeywords = {**common, "split": f"{split}:train"}
        val: ReadKeywords = {**common, "split": f"{split}:val"}
    else:
        try:
            (planned,) = split_collection(
                store, name, val_fraction=val_fraction, seed=int(common["seed"]), fresh=True, dry_run=True
            )
        except InvalidInputError as error:
            raise InvalidInputError(
                f"{error} Or make a split with sarzarr.split_collection or import_split_lists, and pass its name as "
                "split=."
            ) from None
        rows = [np.flatnonzero(planned.codes == side) for side in (Membership.TRAIN, Membership.VAL)]
        left_out = len(planned.codes) - sum(map(len, rows))
        if (given := common.get("rows")) is not None:
            rows = [np.intersect1d(some, given) for some in rows]
        train, val = {**common, "rows": rows[0]}, {**common, "rows": rows[1]}
    of_chips = {"size": chips["size"], "labels": chips["labels"], **train}
    reader = CollectionReader(store, name, **cast("CollectionKeywords", of_chips))
    if common.get("clip") is None and common.get("dtype") != "uint16":
        train["clip"] = val["clip"] = _clips(store, reader)
    height, width = reader.selection.shape
    train["augment"] = "d4" if height == width else "flips"
    return train, val, left_out


def _clips(store: Store, reader: CollectionReader) -> dict[str, tuple[float, float]]:
    """Return the clip of each group, dB: what the chips of a reader recommend, else the store's."""
    found = dict[str, Histogram]()
    for array in reader.arrays:
        counted = chip_histogram(reader.collection, array, reader.selection.table_row)
        found[array.bounds_key] = found.get(array.bounds_key, Histogram.empty()) + counted
    clips = {key: (entry.clip_vmin, entry.clip_vmax) for key, entry in store.bounds.items()}
    for key, histogram in found.items():
        if histogram.n_valid:
            clip = clip_bounds_from_histogram(histogram)
            clips[key] = clip.vmin, clip.vmax
    return clips
