"""Scenes and layers entering and leaving a store, all at once."""

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sarzarr import conventions as cv
from sarzarr.files import locked, swap_in, swap_out
from sarzarr.store.catalog import catalog_of, catalog_rows
from sarzarr.store.documents import Document, read_json, write_json
from sarzarr.store.store import BoundsEntry, Store, open_store
from sarzarr.store.tables import read_table, write_table
from sarzarr.text import counted

log = logging.getLogger(__name__)


def commit_scenes(store: Store, staged: Mapping[str, Path], rows: Iterable[Mapping[str, Any]]) -> None:
    """Make staged scenes visible: directories are renamed into the store, then they enter the catalog.

    Each folder of ``staged`` holds ``scene/`` (the group) and ``histograms/``; ``rows`` are their
    catalog rows. A scene of the same id is replaced.
    """
    for scene, folder in staged.items():
        swap_in(folder / "histograms", store.root / cv.HISTOGRAMS / scene)
        swap_in(folder / "scene", store.root / cv.SCENES / scene)
    kept = [r for r in catalog_rows(read_table(store.root / cv.CATALOG)) if r["scene"] not in staged]
    write_table(store.root / cv.CATALOG, catalog_of([*kept, *rows]))
    log.info("%s: %s committed: %s", store.root.name, counted(len(staged), "scene"), ", ".join(staged))


def commit_layers(store: Store, scene: str, folder: Path, names: Iterable[str]) -> None:
    """Make staged layers of a scene that is there visible: they are renamed into its group, then listed in it."""
    place = store.root / cv.SCENES / scene
    document = read_json(place / "zarr.json")
    listed = document["attributes"].setdefault(cv.LAYERS, [])
    for name in names:
        swap_in(folder / name, place / name)
        listed += [] if name in listed else [name]
    write_json(place / "zarr.json", document)
    log.info("%s: layers of %s committed", store.root.name, scene)


def withdraw_scene(store: Store, scene: str) -> None:
    """Take a scene out of the catalog, then out of the store."""
    kept = [r for r in catalog_rows(read_table(store.root / cv.CATALOG)) if r["scene"] != scene]
    write_table(store.root / cv.CATALOG, catalog_of(kept))
    for group in (cv.SCENES, cv.HISTOGRAMS):
        swap_out(store.root / group / scene)
    log.info("%s: %s removed", store.root.name, scene)


def write_bounds(store: Store, bounds: Mapping[str, BoundsEntry]) -> Store:
    """Write the bounds of groups into the root's attrs and onto every array of those groups; others stay."""
    with locked(store.root):
        _write_bounds(store, bounds)
    for key, b in bounds.items():
        clip = f"{b.clip_vmin:.2f} to {b.clip_vmax:.2f} dB ({b.clip_method})"
        log.info("%s: clip of %s set to %s", store.root.name, key, clip)
    return open_store(store.root)


def _write_bounds(store: Store, bounds: Mapping[str, BoundsEntry]) -> None:
    document = read_json(store.root / "zarr.json")
    attributes = document["attributes"]
    merged = {**attributes[cv.BOUNDS], **{k: asdict(b) for k, b in bounds.items()}}
    attributes[cv.BOUNDS] = dict(sorted(merged.items()))
    ranges = {(b["vmin"], b["vmax"]) for b in merged.values()}
    for key in (cv.VMIN, cv.VMAX):
        attributes.pop(key, None)
    if len(ranges) == 1:
        attributes[cv.VMIN], attributes[cv.VMAX] = ranges.pop()
    catalog = read_table(store.root / cv.CATALOG)
    for scene, name, key in zip(
        catalog["scene"].values, catalog["name"].values, catalog["bounds_key"].values, strict=True
    ):
        if key in bounds:
            place = store.root / cv.SCENES / scene / name / "zarr.json"
            array = read_json(place)
            clip = {
                cv.CLIP_VMIN: bounds[key].clip_vmin,
                cv.CLIP_VMAX: bounds[key].clip_vmax,
                cv.CLIP_METHOD: bounds[key].clip_method,
            }
            if any(array["attributes"].get(k) != v for k, v in clip.items()):
                array["attributes"] |= clip
                write_json(place, array)
    write_json(store.root / "zarr.json", document)


def consolidate(store: Store) -> None:
    """Gather the documents of every node into the root's, where xarray looks for them.

    Written here and not by zarr-python, which warns that consolidated metadata is not part of
    the Zarr v3 specification; readers that do not know it ignore it (``must_understand: false``).
    """
    with locked(store.root):
        _consolidate(store.root)


def _consolidate(place: Path) -> None:
    found: dict[str, Document] = {}
    for at, folders, _ in os.walk(place):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "c")
        if Path(at) != place:
            with suppress(FileNotFoundError):  # taken out or replaced meanwhile: whoever does it gathers anew
                found[Path(at).relative_to(place).as_posix()] = read_json(Path(at) / "zarr.json")
    root = read_json(place / "zarr.json")
    root["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": dict(sorted(found.items())),
    }
    write_json(place / "zarr.json", root)
