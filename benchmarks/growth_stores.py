"""Stores of many tiny scenes, made fast: ten real ones are ingested, and cloned on ground of their own.

    python benchmarks/growth_stores.py STORE SCENES

Documents, manifests, catalog and index are made by the package's own functions, since seals and manifests are
bound to their keys: a checkout that is imported makes the store as it would. They are made in memory, a scene at a
time, and written as they are, with no journal, lock or flush; tables once, for all. Chunks are hard links to the
first ones.
"""

import os
import shutil
import sys
from dataclasses import replace
from inspect import signature
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.patches import index
from sarzarr.patches.cut import patch_ids
from sarzarr.patches.index import _by_owner, measured_table, spec_of, stamp_of
from sarzarr.store import catalog
from sarzarr.store.catalog import catalog_of, catalog_rows
from sarzarr.store.documents import read_sealed, spatial_attributes, write_coordinates, write_node
from sarzarr.store.manifest import read_manifest, write_manifest
from sarzarr.store.place import Head
from sarzarr.store.tables import read_table, write_table

try:
    from sarzarr.store import copies
except ImportError:  # an older checkout, which gathers all documents in the root's
    from sarzarr.store.commit import consolidate

    copies = None

TEMPLATES, SIDE, STEP = 10, 256, 2560.0
KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 256}
if "scenes" in signature(sz.plan_ingest).parameters:  # many small files are an archive of chips else
    KNOWN["scenes"] = True


def scene_file(folder, number, *, side=SIDE):
    """Write a GeoTIFF of (256, 256) linear power, a scene of its own ground and day, and return its path."""
    day = f"2021{1 + number // 28 % 12:02d}{1 + number % 28:02d}"
    path = Path(folder) / f"s{number:05d}_{day}_vv.tif"
    power = np.random.default_rng(number).gamma(4.0, 0.025, (side, side)).astype("float32")
    place = from_origin(300_000 + STEP * (number % 100), 5_400_000 - STEP * (number // 100), 10, 10)
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": 1,
        "width": side,
        "height": side,
        "tiled": True,
    }
    with rasterio.open(path, "w", crs="EPSG:32633", transform=place, **profile) as out:
        out.write(power, 1)
    return path


class Room:
    """A place in memory to write to: the files of a scene by their keys in the store."""

    is_sealed = True

    def __init__(self, home="", files=None):
        self.home, self.files = home, {} if files is None else files

    def at(self, home):
        """Return the part of it below a key."""
        return Room(home, self.files)

    def _key(self, key):
        return f"{self.home}/{key}".lstrip("/")

    def put(self, key, data):
        self.files[self._key(key)] = data

    def get(self, key):
        try:
            return self.files[self._key(key)]
        except KeyError:
            raise FileNotFoundError(key) from None

    def head(self, key):
        found = self.files.get(self._key(key))
        return None if found is None else Head(len(found), None)

    def children(self, key=""):
        above = f"{self._key(key)}/".lstrip("/")
        below = (name.removeprefix(above).partition("/") for name in self.files if name.startswith(above))
        return sorted({name + slash for name, slash, _ in below})

    def write(self, root):
        """Write all of it into a store."""
        for folder in {key.rpartition("/")[0] for key in self.files}:
            os.makedirs(f"{root}/{folder}", exist_ok=True)  # noqa: PTH103 - a Path costs more than the call
        for key, data in self.files.items():
            with open(f"{root}/{key}", "wb") as out:  # noqa: PTH123
                out.write(data)


class Template:
    """A scene of a store, whose documents are read once."""

    def __init__(self, store, name):
        self.store, self.name = store, name
        self.rows = catalog_rows(store.rows(name))
        self.grid = store.grid(name)
        self.documents, self.manifests, self.chunks, coordinates = {}, {}, [], ("x", "y", cv.SPATIAL_REF)
        for group in (f"{cv.SCENES}/{name}", f"{cv.HISTOGRAMS}/{name}"):
            for folder, _, files in os.walk(store.root / group):
                node = Path(folder).relative_to(store.root).as_posix()
                if any(f"{node}/".startswith(f"{cv.SCENES}/{name}/{axis}/") for axis in coordinates):
                    continue
                for file in files:
                    if file == "zarr.json":
                        document, free = read_sealed(store.place, node)
                        document.pop("consolidated_metadata", None)
                        self.documents[node] = document, free
                    elif file == cv.MANIFEST:
                        self.manifests[node] = read_manifest(store.place, node).records
                    else:
                        self.chunks.append(f"{node}/{file}")

    def clone(self, number):
        """Write the scene under another name on other ground, and return its rows of the catalog."""
        name, room, root = f"c{number:05d}", Room(), self.store.root
        a, b, c, d, e, f = self.grid.transform
        there = (a, b, 1e6 + c + STEP * (number % 300), d, e, f - STEP * (number // 300))
        grid = replace(self.grid, transform=there)
        for node, (document, free) in self.documents.items():
            if node == f"{cv.SCENES}/{self.name}":
                attributes = document["attributes"] | spatial_attributes(grid) | {"id": name}
                document = document | {"attributes": attributes}
            write_node(room, self.renamed(node, name), document, free)
        for node, records in self.manifests.items():
            write_manifest(room, self.renamed(node, name), records)
        write_coordinates(room.at(f"{cv.SCENES}/{name}"), grid)
        if copies is not None:
            copies._gather_scene(room, name, {})
        room.write(root)
        for chunk in self.chunks:
            key = f"{root}/{self.renamed(chunk, name)}"
            os.makedirs(key.rpartition("/")[0], exist_ok=True)  # noqa: PTH103
            os.link(f"{root}/{chunk}", key)
        return [row | {"scene": name, "transform": there} for row in self.rows]

    def renamed(self, key, name):
        group, _, *rest = key.split("/")
        return "/".join((group, name, *rest))


def in_chunks(module, name):
    """Return how a table is cut into chunks of rows; an older checkout has no such tables."""
    return {"rows_per_chunk": getattr(module, name)} if hasattr(module, name) else {}


def grown(root, scenes):
    """Make a store of so many scenes at ``root``, or bring one to so many, and return it."""
    root = Path(root)
    if not root.exists():
        files = root.with_name(f"{root.name}.files")
        files.mkdir()
        sz.ingest(
            sz.plan_ingest([scene_file(files, i) for i in range(min(TEMPLATES, scenes))], root, **KNOWN)
        )
        shutil.rmtree(files)
    store = sz.open_store(root)
    names = store.scenes
    templates = [Template(store, name) for name in [n for n in names if n.startswith("s")][:TEMPLATES]]
    if not (numbers := range(len(names), scenes)):
        return store
    rows = catalog_rows(store.catalog)
    for number in numbers:
        rows += templates[number % len(templates)].clone(number)
    write_table(store.place, cv.CATALOG, catalog_of(rows), **in_chunks(catalog, "CATALOG_ROWS"))
    known = _by_owner(read_table(store.place, f"{cv.PATCHES}/{cv.DEFAULT_INDEX}"))
    measures = {scene: columns for (scene, _, _), columns in known.items()}
    store, spec = store.anew(), spec_of(store, cv.DEFAULT_INDEX)
    for row in catalog_rows(store.catalog):
        scene = str(row["scene"])
        if (stamp := stamp_of(store, row)) not in known:
            columns = measures[templates[int(scene[1:]) % len(templates)].name]
            ids = patch_ids(scene, str(row["name"]), spec.size, columns["row"], columns["col"])
            known[stamp] = columns | {"id": ids.astype("i8")}
    table, key = measured_table(store, spec, known), f"{cv.PATCHES}/{cv.DEFAULT_INDEX}"
    write_table(store.place, key, table, **in_chunks(index, "INDEX_ROWS"))
    if copies is None:
        consolidate(store)
    else:
        copies._gather_rest(store.place, {})
    return store.anew()


if __name__ == "__main__":
    print(grown(sys.argv[1], int(sys.argv[2])))
