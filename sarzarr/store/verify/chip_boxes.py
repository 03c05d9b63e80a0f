"""Boxes on chips of collections held against their chips."""

import numpy as np

from sarzarr.errors import SarzarrError
from sarzarr.store.boxes import boxes_group
from sarzarr.store.chip_boxes import chip_box_tables, chip_grids, read_chip_boxes
from sarzarr.store.collections import CHIPS, Collection, collection_names
from sarzarr.store.store import Store
from sarzarr.store.verify.findings import ROOT, Findings
from sarzarr.store.verify.tree import Tree


def check_chip_boxes(tree: Tree, found: Findings) -> None:
    """Hold each table of boxes on chips against them, owners and pixels (rows, columns); add what does not fit.

    Tables of a collection that is damaged itself are not looked into.
    """
    store = Store(tree.place)
    for name in collection_names(store):
        collection = Collection(store, name)
        if any(found.touches(f"{collection.key}/{part}") for part in (ROOT, CHIPS)):
            continue
        for table in chip_box_tables(collection):
            key = f"{boxes_group(collection.key)}/{table}"
            if not found.touches(key):
                _check_boxes(collection, table, key, found)


def _check_boxes(collection: Collection, name: str, key: str, found: Findings) -> None:
    """Hold a table of boxes against its chips, as far as these are those that it was put on."""
    try:
        boxes = read_chip_boxes(collection, name, as_stored=True)
    except (SarzarrError, OSError) as error:
        found.add(key, str(error).partition(". ")[0])
        return
    if boxes.on != collection.key:
        found.add(key, f"it is on {boxes.on}")
        return
    if (np.diff(boxes.owner) < 0).any():
        found.add(key, "its owners are not ascending")
    here = [i for i, chip in enumerate(boxes.owners) if chip in collection.numbers]
    rows = np.array([collection.numbers[boxes.owners[i]] for i in here], np.int64)
    limits = np.full((len(boxes.owners), 2), np.inf)
    same = [boxes.grids[i] == grid for i, grid in zip(here, chip_grids(collection, rows), strict=True)]
    sides = np.stack([collection.table[side].values[rows] for side in ("width", "height")], axis=1)
    limits[np.array(here, np.int64)[same]] = sides[same]
    if not (boxes.boxes[:, 2:] <= limits[boxes.owner]).all():
        found.add(key, "its boxes do not lie in the pixels of their chips")
