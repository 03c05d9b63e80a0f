"""Boxes on the chips of a collection: tables ``collections/<collection>/boxes/<name>``, in pixel edges of a chip.

A table lists the chips that were annotated, those without a box too, each with a hash of its id, size and place: a
chip that was replaced by one of another size or place is told from the one that its boxes were drawn on.
"""

from collections.abc import Iterable

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.pixels.rotated import ring_areas, shared_areas, simple_rings
from sarzarr.store.boxes import (
    MIN_VISIBLE,
    ROUNDED,
    Boxes,
    PatchBoxes,
    boxes_group,
    boxes_of_table,
    check_visible,
    stored_rotated,
    with_store_numbers,
)
from sarzarr.store.chip_splits import chip_keys
from sarzarr.store.collections import Collection
from sarzarr.store.documents import named, nodes_below
from sarzarr.store.tables import read_table
from sarzarr.text import listed


def chip_box_tables(collection: Collection) -> tuple[str, ...]:
    """Return the names of the tables of boxes on a collection, sorted."""
    return tuple(nodes_below(collection.store.place, boxes_group(collection.key)))


def chip_grids(collection: Collection, rows: Iterable[int] | Array) -> tuple[str, ...]:
    """Return (n,) hashes, 16 hexadecimal digits, of the ids, sizes and places of chips by their rows (n,)."""
    chosen = np.asarray(rows if isinstance(rows, np.ndarray) else list(rows), np.int64)
    return tuple(f"{key:016x}" for key in chip_keys(collection)[chosen].tolist())


def read_chip_boxes(
    collection: Collection, name: str = cv.DEFAULT_INDEX, *, as_stored: bool = False
) -> Boxes:
    """Return a table of boxes (n, 4) on a collection, with the numbers of the store's classes.

    ``as_stored`` it has its own numbers, of the classes that it lists. Raises `NotInStoreError` where there is none
    of that name; `CorruptStoreError` as `read_table`.
    """
    if name not in (known := chip_box_tables(collection)):
        raise NotInStoreError(
            f"a table of boxes among {', '.join(known) or 'none'} was expected on {collection.name!r}, got "
            f"{name!r:.100}. Take some in: sarzarr import boxes FILE -o STORE --collection {collection.name}."
        )
    key, parts = f"{boxes_group(collection.key)}/{name}", collection.contents.parts
    table = read_table(collection.store.place, key)
    with named(collection.store.place, f"{key}/zarr.json"):
        sides = {side: ("part", np.array([getattr(p, side) for p in parts])) for side in ("height", "width")}
        boxes = boxes_of_table(table, collection.key, xr.Dataset(sides))
    return boxes if as_stored else with_store_numbers(collection.store, boxes)


def check_chip_grids(collection: Collection, boxes: Boxes, rows: Array) -> None:
    """Raise `InvalidInputError` where chips, by rows (n,), have another place or size than when boxes were put on."""
    drawn = dict(zip(boxes.owners, boxes.grids, strict=False))
    ids = [collection.ids[row] for row in rows.tolist()]
    mine = np.array([name in drawn for name in ids], bool)
    if not mine.any():
        return
    grids = chip_grids(collection, rows[mine])
    others = [
        ids[i] for i, grid in zip(np.flatnonzero(mine).tolist(), grids, strict=True) if drawn[ids[i]] != grid
    ]
    if others:
        raise InvalidInputError(
            f"boxes on chips of {collection.name!r} as they are were expected, got some of {len(others)} that were "
            f"replaced by chips of another size or place: {listed(others, most=3)}. Import their annotations again: "
            f"sarzarr import boxes FILE -o STORE --collection {collection.name}."
        )


def boxes_on_chips(
    boxes: Boxes,
    names: Iterable[str],
    sizes: Array,
    *,
    min_visible: float = MIN_VISIBLE,
    rotated: bool = False,
) -> PatchBoxes:
    """Return the boxes on whole chips by their ids, n of them, each of ``sizes`` (n, 2) rows and columns.

    Upright ones (m, 4) lie in their chip, and all are there. ``rotated`` ones (m, 5) are whole, and there where at
    least ``min_visible`` of the polygon's area is in the chip, and any of it. Boxes of a chip keep their order.
    """
    check_visible(min_visible)
    number = {owner: i for i, owner in enumerate(boxes.owners)}
    owner = np.array([number.get(name, -1) for name in names], np.int64)
    begin, end = np.searchsorted(boxes.owner, owner), np.searchsorted(boxes.owner, owner + 1)
    count = end - begin
    chip = np.repeat(np.arange(len(owner)), count)
    source = np.arange(len(chip)) + np.repeat(begin - (np.cumsum(count) - count), count)
    given, visible = boxes.boxes[source], np.ones(len(source), np.float32)
    if rotated:
        rings = boxes.polygons[source].astype(np.float64)
        limits = sizes[chip][:, ::-1]
        part = ((rings < 0) | (rings > limits[:, None])).any(axis=(1, 2))  # others are inside, all of them
        frame = np.concatenate([np.zeros_like(limits), limits], axis=1)[part]
        shared, whole = shared_areas(rings[part], frame), ring_areas(simple_rings(rings[part]))
        shown = ~part
        shown[part] = (shared > 0) & (shared >= (min_visible - ROUNDED) * whole)
        visible[part] = shared / whole
        chip, source, visible, given = (
            chip[shown],
            source[shown],
            visible[shown],
            stored_rotated(rings[shown]),
        )
    first = np.searchsorted(chip, np.arange(len(owner) + 1)).astype(np.int64)
    return PatchBoxes(first=first, boxes=given.astype(np.float32), source=source, visible=visible)
