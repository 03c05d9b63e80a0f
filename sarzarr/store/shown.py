"""A store as a notebook shows it: tables of what its documents say. No pixel is read, and no patch table."""

from typing import TYPE_CHECKING

import numpy as np

from sarzarr import conventions as cv
from sarzarr.store.documents import named, nodes_below, read_node
from sarzarr.store.html import MOST_ROWS, Section, page_part
from sarzarr.store.split_table import versions
from sarzarr.text import counted

if TYPE_CHECKING:
    from sarzarr.store.store import Store


def store_html(store: "Store") -> str:
    """Return a store's HTML: its catalog by scene, the clip of each group in dB, indices, splits, samples and boxes.

    Documents of the scenes that are listed are read for the names of their layers, and of no other.
    """
    held = f"{counted(len(store.scenes), 'scene')}, {counted(store.catalog.sizes['array'], 'array')}"
    sections = [
        _scenes(store),
        _groups(store),
        _indices(store),
        _splits(store),
        *(Section.of(title, [[name] for name in nodes_below(store.place, key)])
          for title, key in (("Samples", cv.SAMPLES), ("Collections", cv.COLLECTIONS), ("Boxes", cv.BOXES))),
    ]  # fmt: skip
    return page_part("sarzarr.Store", store.place.name, held, sections)


def _scenes(store: "Store") -> Section:
    """Return the rows of the catalog, those of a scene as one."""
    rows = []
    for scene in store.scenes[:MOST_ROWS]:
        arrays = {name: column.values for name, column in store.entries(scene).items()}
        first = {name: values[0] for name, values in arrays.items()}
        names = ", ".join(filter(None, arrays["name"].tolist()))
        quantities = ", ".join(filter(None, dict.fromkeys(arrays["quantity"].tolist())))
        layers = ", ".join(store.layers(scene))
        facts = " ".join(filter(None, map(str, (first["platform"], first["mode"], first["orbit_state"]))))
        size = f"{first['height']} x {first['width']}"
        place = str(first["geolocation"]).replace("_", " ")
        rows.append((scene, first["time"], names, quantities, size, place, facts, layers))
    columns = ("scene", "time", "arrays", "quantity", "rows x columns", "place", "acquisition", "layers")
    return Section(
        title="Catalog, by scene", rows=rows, columns=columns, total=len(store.scenes), is_open=True
    )


def _groups(store: "Store") -> Section:
    catalog = store.catalog
    keys = catalog["bounds_key"].values
    pixels = catalog["height"].values * catalog["width"].values
    rows = []
    for key in sorted(set(keys.tolist())):
        entry, mine = store.bounds[key], keys == key
        clip = f"{entry.clip_vmin:.2f} to {entry.clip_vmax:.2f} dB"
        size = f"{pixels[mine].sum() / 1e6:.2f} Mpx"
        rows.append((key, int(np.count_nonzero(mine)), size, clip, entry.clip_method))
    return Section.of("Groups", rows, columns=("group", "arrays", "pixels", "clip", "found by"))


def _indices(store: "Store") -> Section:
    rows = []
    for name in store.patch_indices:
        known = store.unwritten.get(name)
        about = read_node(store.place, f"{cv.PATCHES}/{name}")["attributes"] if known is None else known.attrs
        with named(store.place, f"{cv.PATCHES}/{name}/zarr.json"):
            rows.append((name, *(about[k] for k in ("size", "stride", "edge"))))
    return Section.of("Patch indices", rows, columns=("index", "size", "stride", "edge"))


def _splits(store: "Store") -> Section:
    """Return the newest versions first, with what their documents say."""
    rows = []
    numbers = versions(store.place)[::-1]
    for number in numbers[:MOST_ROWS]:
        key = f"{cv.SPLITS}/v{number}"
        about = read_node(store.place, key)["attributes"]
        with named(store.place, f"{key}/zarr.json"):
            cells = ", ".join(f"{n} {side.replace('_', ' ')}" for side, n in about["counts"].items() if n)
            rows.append(
                (f"v{number}", about["by"], about["seed"], cells, about["created_at"], about["notes"])
            )
    columns = ("split", "by", "seed", "cells", "made", "notes")
    return Section(title="Splits", rows=rows, columns=columns, total=len(numbers))
