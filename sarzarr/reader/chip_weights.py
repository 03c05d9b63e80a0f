"""The chips of a selection as a table, and the weights by which they are drawn."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.patches.selection import weights_of
from sarzarr.reader.options import Weights
from sarzarr.store.chip_columns import chip_columns
from sarzarr.store.chip_labels import ChipLabels
from sarzarr.store.collections import Collection
from sarzarr.text import listed


def chip_table_of(collection: Collection, rows: Array, labels: ChipLabels | None) -> pd.DataFrame:
    """Return a `pandas.DataFrame` of chips, by their rows (n,) in the collection's table, a row each.

    Columns are those that conditions may name, and ``label``, the name of the class of each; of labels of which a
    chip may have several a column ``label_<class>`` each, bool.
    """
    columns: dict[str, Any] = {name: values[rows] for name, values in chip_columns(collection).items()}
    if labels is not None and labels.is_multi:
        has = labels.targets[rows] > 0
        columns |= {f"label_{name}": has[:, i] for i, name in enumerate(labels.classes)}
    elif labels is not None:
        names = np.array([*labels.classes, ""], object)  # -1 is a chip without
        columns["label"] = names[labels.targets[rows]]
    return pd.DataFrame(columns)


def chip_weights(table: pd.DataFrame, labels: ChipLabels | None, given: Weights) -> Array:
    """Return (n,) float64: how often each chip of a table of n is drawn, against the others.

    A column of numbers is the weight; of a column of words, ``label`` or another, each word counts alike; a mapping
    weighs classes of the labels, 1 where one is not named; a function is given the table; or they are weights.

    Raises `NotInStoreError` where there is no such column or class; `InvalidInputError` where chips have no class of
    their own, or weights are not n.
    """
    if isinstance(given, str):
        columns = {str(name): partial(np.asarray, table[name]) for name in table}
        if given == "label" and "label" not in columns:
            raise InvalidInputError(
                "labels of one class each were expected for weights='label', got none. Pass labels=True, or a "
                "function of CollectionReader.table()."
            )
        return weights_of(columns, given)
    if isinstance(given, Mapping):
        if labels is None or labels.is_multi:
            raise InvalidInputError(
                "labels of one class each were expected for weights by class, got none. Pass labels=True, or a "
                "function of CollectionReader.table()."
            )
        if unknown := sorted(set(map(str, given)) - {*labels.classes}):
            raise NotInStoreError(
                f"weights of the classes {listed(labels.classes)} were expected, got {listed(unknown)}. Leave "
                "them out."
            )
        return np.array([float(given.get(name, 1.0)) for name in table["label"].tolist()])
    values = np.asarray(given(table) if callable(given) else given, np.float64)
    if values.shape != (len(table),):
        raise InvalidInputError(
            f"one weight for each of {len(table)} chips was expected, got shape {values.shape}. Return one per "
            "row of CollectionReader.table()."
        )
    return values
