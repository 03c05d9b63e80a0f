"""Labels on whole chips: tables ``labels/<collection>/<set>``, the classes of each chip that has some.

A class has a number in its set, from 0, in the order in which it was given; numbers never change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import NotInStoreError
from sarzarr.store.boxes import safe_name
from sarzarr.store.collections import Collection
from sarzarr.store.commit import changing
from sarzarr.store.documents import ensure_groups, named, nodes_below
from sarzarr.store.limits import check_within
from sarzarr.store.tables import read_table, write_table

NO_LABEL: Final = -1
"""The class of a chip that has none."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ChipLabels:
    """A set of labels on the chips of a collection."""

    name: str
    """Its name."""
    classes: tuple[str, ...]
    """Name of class 0, 1, ..."""
    is_multi: bool
    """Whether a chip may have several classes, or none of them."""
    known: Array
    """(n,) bool: the chips that have labels, by row of the table of chips."""
    chip: Array
    """(labels,) int64: the chip of each label, ascending."""
    label: Array
    """(labels,) int64: its class."""

    @cached_property
    def targets(self) -> Array:
        """(n,) int64: the class of each chip, -1 of one without; of a set of many (n, classes) float32 of 0 and 1."""
        if not self.is_multi:
            single = np.full(len(self.known), NO_LABEL, np.int64)
            single[self.chip] = self.label
            return single
        many = np.zeros((len(self.known), len(self.classes)), np.float32)
        many[self.chip, self.label] = 1
        return many

    @property
    def counts(self) -> dict[str, int]:
        """Chips of each class, by name."""
        found = np.bincount(self.label, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, found, strict=True))

    def __repr__(self) -> str:
        kind = "many a chip" if self.is_multi else "one a chip"
        return f"<sarzarr.ChipLabels {self.name!r}: {len(self.classes)} classes, {kind}, on {self.known.sum()} chips>"


def _key(collection: Collection) -> str:
    return f"{cv.CHIP_LABELS}/{collection.name}"


def label_sets(collection: Collection) -> tuple[str, ...]:
    """Return the names of the sets of labels on a collection, sorted."""
    return tuple(nodes_below(collection.store.place, _key(collection)))


def read_labels(collection: Collection, name: str) -> ChipLabels:
    """Return a set of labels, by row (n,) of the table of chips; those of chips that are gone are left out.

    Raises `NotInStoreError` where there is none of that name; `CorruptStoreError` as `read_table`.
    """
    if name not in (known := label_sets(collection)):
        raise NotInStoreError(
            f"labels among {', '.join(known) or 'none'} were expected on {collection.name!r}, got {name!r:.100}. "
            f"Take some in: sarzarr import labels FILE -o STORE --collection {collection.name}."
        )
    key = f"{_key(collection)}/{name}"
    table = read_table(collection.store.place, key)
    with named(collection.store.place, f"{key}/zarr.json"):
        owners = table["chip_id"].values.tolist()
        check_within(table["owner"].values, 0, len(owners) - 1, "owner")
        check_within(table["label"].values, 0, table["class_name"].size - 1, "label")
        rows = np.array([collection.numbers.get(str(one), -1) for one in owners], np.int64)
        chip = rows[table["owner"].values]
        order = np.argsort(chip, kind="stable")
        order = order[chip[order] >= 0]
        known_rows = np.zeros(len(collection), bool)
        known_rows[rows[rows >= 0]] = True
        return ChipLabels(
            name=name,
            classes=tuple(map(str, table["class_name"].values.tolist())),
            is_multi=bool(table.attrs["is_multi"]),
            known=known_rows,
            chip=chip[order],
            label=table["label"].values[order].astype(np.int64),
        )


def write_labels(
    collection: Collection,
    name: str,
    labels: Mapping[int, Sequence[str]],
    classes: Sequence[str],
    *,
    is_multi: bool,
) -> ChipLabels:
    """Put a set of labels, the names of the classes of each chip by its row, in the place of one; return it."""
    number = {kind: i for i, kind in enumerate(classes)}
    rows = sorted(labels)
    counts = [len(labels[row]) for row in rows]
    columns: dict[str, Any] = {
        "chip_id": ("chip", np.array([collection.ids[row] for row in rows], object)),
        "owner": ("label_of", np.repeat(np.arange(len(rows)), counts).astype(np.int32)),
        "label": ("label_of", np.array([number[k] for row in rows for k in labels[row]], np.int32)),
        "class_name": ("class", np.array(list(classes), object)),
    }
    table = xr.Dataset(columns, attrs={"on": collection.key, "is_multi": is_multi})
    with changing(collection.store) as draft:
        ensure_groups(draft.place, cv.CHIP_LABELS, _key(collection))
        write_table(draft.place, f"{_key(collection)}/{safe_name(name)}", table)
    return read_labels(collection, name)
