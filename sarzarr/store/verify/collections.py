"""Collections of chips held against themselves: tables against arrays, and hashes of chips against their chunks."""

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import SarzarrError
from sarzarr.store.collection_files import chip_hashes, shard_key
from sarzarr.store.collections import ABSENT, CHIPS, Collection, collection_names
from sarzarr.store.manifest import CHUNK
from sarzarr.store.place import Place
from sarzarr.store.store import Store
from sarzarr.store.verify.findings import ROOT, Findings
from sarzarr.store.verify.tree import Tree, add_absent
from sarzarr.tasks import Task, gather


def check_collections(tree: Tree, found: Findings) -> None:
    """Hold each collection's table, documents and chunks (chip, y, x) against one another; add what does not fit."""
    store = Store(tree.place)
    for name in collection_names(store):
        collection = Collection(store, name)
        try:
            _check(tree, collection, found)
        except (SarzarrError, OSError) as error:
            if not found.touches(collection.key):
                found.add(f"{collection.key}/{ROOT}", str(error).partition(". ")[0])


def _check(tree: Tree, collection: Collection, found: Findings) -> None:
    key, contents = collection.key, collection.contents
    nodes = [f"{key}/{part.name}/{array}" for part in contents.parts for array in contents.stored]
    nodes += [f"{key}/{cv.HISTOGRAMS}/{array}" for array in collection.arrays]
    for node in (*nodes, f"{key}/{CHIPS}"):
        if node not in tree.documents:
            add_absent(tree, f"{node}/{ROOT}", found)
    for array in tree.arrays:
        if array.startswith(f"{key}/") and array not in nodes:
            found.add(array, "its collection does not list it")
    groups = tree.attributes("").get(cv.BOUNDS, {})
    for group in {array.bounds_key for array in contents.arrays} - set(groups) if groups else ():
        found.add(f"{key}/{ROOT}", f"it names bounds of {group}, which the store has not")
    if found.touches(key):
        return
    table = collection.table
    places = np.stack([table["part"].values, table["row"].values], 1)
    if len(np.unique(places, axis=0)) != len(places):
        found.add(f"{key}/{CHIPS}", "two chips have one row")
    if len(set(collection.ids)) != len(collection):
        found.add(f"{key}/{CHIPS}", "two chips have one id")
    for name in collection.arrays:
        _check_counts(collection, name, found)
    for part in range(len(contents.parts)):
        for array in contents.stored:
            collection.layout(part, array)
    tasks = list(_shards(collection))
    for wrong in gather(tasks):
        for row in wrong:
            at = f"{key}/{contents.parts[int(table['part'].values[row])].name}"
            found.add(f"{at}/{ROOT}", f"the pixels of chip {collection.ids[row]!r} are not those of its hash")


def _check_counts(collection: Collection, name: str, found: Findings) -> None:
    """Hold a histogram against the pixels of all chips that have the array: of chips that were replaced, more."""
    valid, table = collection.table[f"valid_{name}"].values, collection.table
    has = valid != ABSENT
    pixels = int((table["height"].values * table["width"].values)[has].sum())
    histogram = collection.histogram(name)
    counted = int(histogram.counts.sum()) + histogram.nonpositive + histogram.nodata
    if counted < pixels or (histogram.n_valid + histogram.nonpositive) < int(valid[has].sum()):
        found.add(
            f"{collection.key}/{cv.HISTOGRAMS}/{name}", f"it counts {counted} pixels, and chips have {pixels}"
        )


def _shards(collection: Collection) -> list[Task]:
    """Return a task for each shard: the rows of its chips, their places in it, their hashes, and its chunks."""
    table, contents = collection.table, collection.contents
    part_of, row_of = table["part"].values, table["row"].values
    tasks: list[Task] = []
    for number, part in enumerate(contents.parts):
        manifests = {array: collection.manifest(number, array) for array in contents.stored}
        for shard in range(part.shards):
            rows = np.flatnonzero((part_of == number) & (row_of // part.per_shard == shard))
            if not rows.size:
                continue
            entries = {array: manifest.chunks[shard].tobytes() for array, manifest in manifests.items()}
            hashes = table["sha"].values[rows]
            base = f"{collection.key}/{part.name}", shard_key(shard)
            at = row_of[rows] % part.per_shard
            tasks.append((wrong_chips, (collection.store.place, base, entries, rows, at, hashes)))
    return tasks


def wrong_chips(
    place: Place, base: tuple[str, str], entries: dict[str, bytes], rows: Array, at: Array, hashes: Array
) -> list[int]:
    """Return the rows (n,) whose chips' chunks have another SHA-256 than ``hashes`` (n, 32) uint8 say.

    ``at`` are their places in a shard, of which ``entries`` has `CHUNK` of each array.
    """
    arrays = {
        array: (place, f"{base[0]}/{array}/{base[1]}", np.frombuffer(chunks, CHUNK))
        for array, chunks in entries.items()
    }
    found = zip(rows.tolist(), chip_hashes(arrays, at.tolist()), hashes, strict=True)
    return [row for row, digest, wanted in found if digest != wanted.tobytes()]
