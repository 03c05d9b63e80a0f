"""Layers beside patches: which array each patch's layer is, and what stands where it has no value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.reader.crew import Companion
from sarzarr.reader.places import Source
from sarzarr.store.chunks import ArrayLayout, layout_of, read_table
from sarzarr.store.documents import read_json
from sarzarr.store.store import Store
from sarzarr.text import listed


@dataclass(frozen=True, eq=False, kw_only=True)
class Places:
    """Where patches lie, whatever is delivered of them."""

    scenes: Sequence[str]
    """The scene of each array that patches are of, by the array's number."""
    array: Array
    """(n, dates) int: number of an array of each patch, on each of its dates."""
    row: Array
    """(n,) int32: first row."""
    col: Array
    """(n,) int32: first column."""
    size: int
    """Rows and columns of a patch."""


def companions(store: Store, names: Sequence[str], places: Places) -> tuple[Companion, ...]:
    """Return layers as they are delivered beside patches, in the order of ``names``.

    Raises
    ------
    InvalidInputError
        A scene of the patches has no layer of that name, or scenes differ in its dtype or nodata, or patches
        reach beyond a scene whose layer has no value for that; names the scenes, and the remedy.
    CorruptStoreError
        As `sarzarr.store.chunks.read_table`.
    """
    scenes, number = np.unique(np.asarray(places.scenes, dtype=object).astype(str), return_inverse=True)
    held = {scene: store.layers(scene) for scene in scenes.tolist()}
    return tuple(_companion(store, name, held, number[places.array], places) for name in names)


def _companion(
    store: Store, name: str, held: dict[str, tuple[str, ...]], array: Array, places: Places
) -> Companion:
    without = [scene for scene, layers in held.items() if name not in layers]
    if without:
        known = sorted({layer for layers in held.values() for layer in layers})
        raise InvalidInputError(
            f"expected layer {name!r} in every scene that patches are of, got {len(without)} of {len(held)} without "
            f"({listed(without)}; their layers are {', '.join(known) or 'none'}). Pass "
            f"scenes=store.scenes_with({name!r}), or ingest them again with --layer {name}=FILE --replace."
        )
    paths = {scene: f"{cv.SCENES}/{scene}/{name}" for scene in held}
    documents = {scene: read_json(Path(store.root) / path / "zarr.json") for scene, path in paths.items()}
    layouts = {scene: layout_of(paths[scene], document) for scene, document in documents.items()}
    dtype = str(_only(name, "dtype", {scene: layout.dtype for scene, layout in layouts.items()}))
    nodata = _only(name, "nodata value", {s: _nodata(d, dtype) for s, d in documents.items()})
    if nodata is None:
        _check_inside(name, list(layouts.values()), array, places)
    table = read_table(store.root, layouts.values())
    return Companion(
        name=name,
        source=Source(table=table, stretches=(None,) * len(layouts), size=places.size),
        array=array.astype(np.int32),
        dtype=dtype,
        nodata=nodata,
    )


def _nodata(document: dict[str, Any], dtype: str) -> float | int | None:
    said: float | int | None = document["attributes"].get(cv.NODATA)
    return math.nan if said is None and np.dtype(dtype).kind == "f" else said


def _only(name: str, what: str, said: dict[str, Any]) -> Any:
    """Return what every scene says that says anything; NaN is one value."""
    found = {repr(value): (value, scene) for scene, value in reversed(said.items()) if value is not None}
    if len(found) > 1:
        listed = "; ".join(f"{value} in {scene!r}" for value, scene in found.values())
        raise InvalidInputError(
            f"expected one {what} for layer {name!r} in all scenes, got {listed}. Select scenes that agree with "
            "scenes=, or convert the files and ingest them again with --replace."
        )
    return next(iter(found.values()))[0] if found else None


def _check_inside(name: str, layouts: Sequence[ArrayLayout], array: Array, places: Places) -> None:
    shape = np.array([layout.shape for layout in layouts])[array]  # (n, dates, 2)
    ends = np.stack([places.row, places.col], axis=1)[:, None] + places.size
    if bool((ends > shape).any()):
        raise InvalidInputError(
            f"expected a nodata value for the pixels of layer {name!r} beyond a scene's edge, got none. Pass "
            f"edge='shift' or 'drop', or ingest it with one: --layer {name}:nodata255=FILE --replace."
        )
