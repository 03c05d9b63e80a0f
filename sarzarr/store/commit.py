"""Scenes and layers entering and leaving a store, all at once.

Whatever changes a store does so in `changing`, in a draft that becomes the store in one step: see
`sarzarr.store.journal`.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.store.catalog import CATALOG_ROWS, catalog_of, catalog_rows, is_in_order, order_of
from sarzarr.store.copies import gather_changed
from sarzarr.store.documents import read_node, update_node
from sarzarr.store.journal import PATIENCE, drafted, writing
from sarzarr.store.place import Place
from sarzarr.store.store import BoundsEntry, Store
from sarzarr.store.tables import append_rows, read_table, write_table
from sarzarr.text import counted

log = logging.getLogger(__name__)


@contextmanager
def changing(store: Store, *, patience: float = PATIENCE) -> Iterator[Store]:
    """Yield a draft of a store, as it is and nobody else writes it, to change; at the end it is the store, at once.

    What is raised inside changes nothing. Another writer is waited for, ``patience`` seconds: see `writing`.
    """
    with writing(store.root, patience=patience), changed_once(store) as draft:
        yield draft


@contextmanager
def changed_once(store: Store, *, leaves: Iterable[Path] = ()) -> Iterator[Store]:
    """Yield a draft as `changing`, for a caller that is in `writing` already.

    ``leaves`` are files and folders beside the store that are removed when the change is made.
    """
    with drafted(store.root, leaves) as place:
        draft = Store(place)
        yield draft
        if place.units:
            gather_changed(place, place.units)


def commit_scenes(store: Store, staged: Mapping[str, Path], rows: Iterable[Mapping[str, Any]]) -> None:
    """Have staged scenes enter a draft: their folders, and their rows in the catalog.

    Each folder of ``staged`` holds ``scene/`` (the group) and ``histograms/``; ``rows`` are their
    catalog rows, which are added to it. Where a scene of the same id is replaced, it is written anew, in order.
    """
    replaced = [scene for scene in staged if store.has_scene(scene)]
    for scene, folder in staged.items():
        store.place.swap(folder / "histograms", f"{cv.HISTOGRAMS}/{scene}")
        store.place.swap(folder / "scene", f"{cv.SCENES}/{scene}")
        store.place.delete(f"{cv.OVERVIEWS}/{scene}")  # of its old pixels
    if replaced:
        _write_catalog(store.place, rows, without=staged)
    else:
        append_rows(store.place, cv.CATALOG, catalog_of(rows), rows_per_chunk=CATALOG_ROWS)
    log.info("%s: %s committed: %s", store.place.name, counted(len(staged), "scene"), ", ".join(staged))


def _write_catalog(place: Place, rows: Iterable[Mapping[str, Any]], without: Iterable[str] = ()) -> None:
    """Write the catalog anew, in order, with more rows, and without those of some scenes."""
    held, more, gone = read_table(place, cv.CATALOG), catalog_of(rows), set(without)
    kept = np.array([scene not in gone for scene in held["scene"].values.tolist()], bool)
    joined = {
        name: (column.dims, np.concatenate([held[name].values[kept], column.values]))
        for name, column in more.data_vars.items()
    }
    table = xr.Dataset(joined)
    write_table(place, cv.CATALOG, table.isel(array=order_of(table)), rows_per_chunk=CATALOG_ROWS)


def put_in_order(store: Store) -> None:
    """Have the catalog of a draft in the order of its scenes, not of their arrival."""
    if not is_in_order(store.arrived):
        _write_catalog(store.place, ())


def commit_layers(store: Store, scene: str, folder: Path, names: Iterable[str]) -> None:
    """Have staged layers of a scene that is there enter a draft: they are in its group, and listed in it."""
    group = f"{cv.SCENES}/{scene}"
    new, known = list(names), read_node(store.place, group)["attributes"].get(cv.LAYERS, ())
    for name in new:
        store.place.swap(folder / name, f"{group}/{name}")
    update_node(store.place, group, {cv.LAYERS: sorted({*known, *new})})
    log.info("%s: layers of %s committed", store.place.name, scene)


def withdraw_scenes(store: Store, scenes: Sequence[str]) -> None:
    """Take scenes out of a draft, and out of its catalog."""
    _write_catalog(store.place, (), without=scenes)
    for scene in scenes:
        for group in (cv.SCENES, cv.HISTOGRAMS, cv.OVERVIEWS):
            store.place.delete(f"{group}/{scene}")
    log.info("%s: %s removed", store.place.name, ", ".join(scenes))


def write_bounds(
    store: Store, bounds: Mapping[str, BoundsEntry], rows: Iterable[Mapping[str, Any]] | None = None
) -> Store:
    """Write the bounds of groups into a draft, and the clip of every group onto its arrays; others stay.

    ``rows`` are those of the catalog whose arrays may have another clip: all of these groups, if left out.
    """
    if rows is None:
        rows = [row for row in catalog_rows(store.catalog) if row["bounds_key"] in bounds]
    _write_bounds(store.place, bounds, rows)
    for key, b in bounds.items():
        clip = f"{b.clip_vmin:.2f} to {b.clip_vmax:.2f} dB ({b.clip_method})"
        log.info("%s: clip of %s set to %s", store.place.name, key, clip)
    return store.anew()


def _write_bounds(place: Place, bounds: Mapping[str, BoundsEntry], rows: Iterable[Mapping[str, Any]]) -> None:
    known = read_node(place, "")["attributes"][cv.BOUNDS]
    merged = {**known, **{k: asdict(b) for k, b in bounds.items()}}
    ranges = {(b["vmin"], b["vmax"]) for b in merged.values()}
    whole = dict(zip((cv.VMIN, cv.VMAX), ranges.pop(), strict=True)) if len(ranges) == 1 else {}
    for row in rows:  # scenes of groups that stay may be new, too
        if entry := merged.get(row["bounds_key"]):
            node = f"{cv.SCENES}/{row['scene']}/{row['name']}"
            array = read_node(place, node)["attributes"]
            clip = {k: entry[k] for k in (cv.CLIP_VMIN, cv.CLIP_VMAX, cv.CLIP_METHOD)}
            if any(array.get(k) != v for k, v in clip.items()):
                update_node(place, node, clip)
    update_node(place, "", {cv.BOUNDS: dict(sorted(merged.items())), **whole}, without=(cv.VMIN, cv.VMAX))
