"""Layers beside patches: the array that each patch's layer is read from, and the value where it has none."""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, MissingFileError
from sarzarr.patches.selection import Selection
from sarzarr.reader.prefetch import PartRecipe
from sarzarr.reader.sources import Source
from sarzarr.store.chunks import described_layout, expected_chunk_table, looked_into, read_chunk_table
from sarzarr.store.documents import Document, named, read_node
from sarzarr.store.manifest import told_checksum
from sarzarr.store.store import Store
from sarzarr.text import listed


def layer_recipes(store: Store, names: Sequence[str], chosen: Selection) -> tuple[PartRecipe, ...]:
    """Return the recipes of layers (n, dates, size, size) beside patches, in the order of ``names``.

    Documents of the layers are read; those of groups, and manifests, as of `expected_chunk_table`.

    `InvalidInputError`, with the scenes, where one has no such layer, they differ in its dtype, nodata or classes, or
    patches reach beyond a scene whose layer has no value for that. `CorruptStoreError` as of `expected_chunk_table`.
    """
    owners = store.catalog["scene"].values[chosen.catalog_row].astype(str)
    scenes, number = np.unique(owners, return_inverse=True)
    channels = chosen.array.shape[1] // max(chosen.dates, 1)
    scene = number[chosen.array[:, ::channels]].astype(np.int32)
    return tuple(_layer_recipe(store, name, scenes.tolist(), scene, chosen) for name in names)


def _documents(store: Store, name: str, scenes: Sequence[str]) -> dict[str, Document]:
    """Return the documents of a layer by scene; `InvalidInputError` where a scene has none of that name.

    Of `looked_into` scenes the document of the group must list it, too.
    """
    out = {}
    unlisted = {scenes[i] for i in looked_into(len(scenes)) if name not in store.layers(scenes[i])}
    for scene in [scene for scene in scenes if scene not in unlisted] if name.isidentifier() else ():
        with suppress(MissingFileError):
            document = read_node(store.place, f"{cv.SCENES}/{scene}/{name}")
            if cv.LAYER_KIND in document["attributes"]:  # of no array of backscatter
                out[scene] = document
    if len(out) < len(scenes):
        held = {scene: store.layers(scene) for scene in scenes}
        without = [scene for scene, layers in held.items() if name not in layers]
        if not without:  # one of them is damaged
            return {scene: read_node(store.place, f"{cv.SCENES}/{scene}/{name}") for scene in scenes}
        known = sorted({layer for layers in held.values() for layer in layers})
        raise InvalidInputError(
            f"expected layer {name!r} in every scene that patches are of, got {len(without)} of {len(held)} without "
            f"({listed(without)}; their layers are {', '.join(known) or 'none'}). Pass "
            f"scenes=store.scenes_with({name!r}), or ingest them again with --layer {name}=FILE --replace."
        )
    return out


def _layer_recipe(
    store: Store, name: str, scenes: Sequence[str], scene: Array, chosen: Selection
) -> PartRecipe:
    """Return a layer's recipe; ``scene`` (n, dates) is the number in ``scenes`` of each patch's."""
    documents, layouts = _documents(store, name, scenes), []
    for s, document in documents.items():
        with named(store.place, f"{cv.SCENES}/{s}/{name}/zarr.json"):
            layouts.append(described_layout(f"{cv.SCENES}/{s}/{name}", document))
    # One scene's may be stored in a wider dtype than another's: all are delivered in that.
    own = {s: d["attributes"].get(cv.SOURCE_DTYPE, d["data_type"]) for s, d in documents.items()}
    _only(name, "dtype", own)
    dtype = str(np.result_type(*{layout.dtype for layout in layouts}))
    none = math.nan if np.dtype(dtype).kind == "f" else None
    values = {s: document["attributes"].get(cv.NODATA) for s, document in documents.items()}
    nodata = _only(name, "nodata value", {s: none if value is None else value for s, value in values.items()})
    tables = {s: document["attributes"].get(cv.CLASSES, {}) for s, document in documents.items()}
    for value in sorted({value for table in tables.values() for value in table}):
        _only(name, f"name of class {value}", {s: table.get(value) for s, table in tables.items()})
    ends = np.stack([chosen.row, chosen.col], axis=1)[:, None] + chosen.shape
    if nodata is None and (ends > np.array([layout.shape for layout in layouts])[scene]).any():
        raise InvalidInputError(
            f"expected a nodata value for the pixels of layer {name!r} beyond a scene's edge, got none. Pass "
            f"edge='shift' or 'drop', or ingest it with one: --layer {name}:nodata255=FILE --replace."
        )
    if store.place.is_sealed:
        crcs = [told_checksum(store.place, layout.path) for layout in layouts]
        table = expected_chunk_table(store.place, layouts, crcs)
    else:
        table = read_chunk_table(store.place, layouts)
    source = Source(table=table, stretches=(None,) * len(layouts), shape=chosen.shape)
    return PartRecipe(name=name, source=source, array=scene, dtype=dtype, outside=nodata)


def _only(name: str, what: str, by_scene: dict[str, Any]) -> Any:
    """Return the one value of every scene that has any; NaN is one value."""
    known = {repr(value): (value, scene) for scene, value in reversed(by_scene.items()) if value is not None}
    if len(known) > 1:
        values = "; ".join(f"{value} in {scene!r}" for value, scene in known.values())
        raise InvalidInputError(
            f"expected one {what} for layer {name!r} in all scenes, got {values}. Select scenes that agree with "
            "scenes=, or convert the files and ingest them again with --replace."
        )
    return next(iter(known.values()))[0] if known else None
