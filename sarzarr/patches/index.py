"""Patch indices: a table of what can be trained on, found once, so that filters never touch pixels.

A patch is a window of one array. Its row holds where it is and what four counts over its pixels say;
the counts are integers of codes, so a table does not depend on how the work was cut.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.patches.cut import IndexSpec, positions
from sarzarr.patches.measure import PatchOwner, measure_patches
from sarzarr.store.commit import consolidate
from sarzarr.store.documents import Encoding
from sarzarr.store.store import Store, open_store
from sarzarr.store.tables import read_table, write_table
from sarzarr.tasks import Task, gather

TASK_PIXELS: Final = 2**25
"""Pixels that one task looks at, about."""
# ------------------------------------------------------------------ the table
COLUMNS: Final[Mapping[str, str]] = {
    "row": "i4",
    "col": "i4",
    "id": "u8",
    "valid_fraction": "f4",
    "unsaturated_fraction": "f4",
    "mean_db": "f4",
    "std_db": "f4",
}
"""The columns over ``patch``, besides ``owner``, and their dtypes."""


def index_patches(
    store: Store | str | Path,
    *,
    size: int = cv.CHUNK,
    stride: int = cv.CHUNK,
    edge: str = "drop",
    name: str = cv.DEFAULT_INDEX,
) -> xr.Dataset:
    """Make, or bring up to date, a patch index in one pass over codes and flags; return its table.

    Parameters
    ----------
    store
        The store.
    size, stride
        Pixels of a patch, and from one to the next.
    edge
        ``drop`` the remainders at right and bottom (they are counted in the attrs), ``shift`` the last
        patch inward, or ``pad`` it: its pixels beyond the edge are not valid.
    name
        The table's name. A table of that name with another size, stride or edge is replaced.

    Returns
    -------
    xarray.Dataset
        `Store.patches` of it: scene, array, row, col, id, valid_fraction, unsaturated_fraction (of all
        pixels, strictly inside 1 % and 99 % of the clip), mean_db and std_db (of the valid, positive
        pixels; NaN where there is none).
    """
    opened = store if isinstance(store, Store) else open_store(store)
    update_index(opened, IndexSpec(name=name, size=size, stride=stride, edge=edge))
    consolidate(opened)
    return open_store(opened.root).patches(name)


def update_index(store: Store, spec: IndexSpec) -> None:
    """Index the arrays that the table does not know, or knows with other pixels or another clip."""
    place = store.root / cv.PATCHES / spec.name
    old = _same_cut(place, spec)
    known = {} if old is None else _by_owner(old)
    wanted = {_stamp(store, i): i for i in range(store.catalog.sizes["array"])}
    if old is not None and list(known) == list(wanted):
        return
    fresh = _measure_all(store, spec, {s: i for s, i in wanted.items() if s not in known})
    parts = {stamp: known.get(stamp) or fresh[stamp] for stamp in wanted}
    lost = sum(_lost(store, i, spec) for i in range(store.catalog.sizes["array"]))
    write_table(place, _table(parts, spec, lost))


def update_indices(store: Store) -> None:
    """Bring every index up to date, the default one too where there is none."""
    for name in sorted({cv.DEFAULT_INDEX, *store.patch_indices}):
        folder = store.root / cv.PATCHES / name
        update_index(store, spec_of(folder) if folder.exists() else IndexSpec(name=name))


def spec_of(folder: Path) -> IndexSpec:
    """Return how the table at ``folder`` was cut."""
    cut = read_table(folder).attrs
    return IndexSpec(name=folder.name, size=cut["size"], stride=cut["stride"], edge=cut["edge"])


def _stamp(store: Store, row: int) -> tuple[str, str, str]:
    """(scene, array, what its statistics depend on: its own and its flags' files, and the clip) of a catalog row."""
    scene, name, flags, key = (
        str(store.catalog[k].values[row]) for k in ("scene", "name", "flags", "bounds_key")
    )
    clip, folder = store.bounds[key], store.root / cv.SCENES / scene
    files = hashlib.blake2b(digest_size=8)
    for array in (name, flags):
        files.update((folder / array / cv.MANIFEST).read_bytes())
    return scene, name, f"{files.hexdigest()} {clip.clip_vmin!r} {clip.clip_vmax!r}"


def _same_cut(place: Path, spec: IndexSpec) -> xr.Dataset | None:
    """Return the table at ``place`` if it was cut the same way."""
    if not (place / "zarr.json").exists():
        return None
    table = read_table(place)
    cut = {k: table.attrs.get(k) for k in ("size", "stride", "edge")}
    return table if cut == {"size": spec.size, "stride": spec.stride, "edge": spec.edge} else None


def _by_owner(table: xr.Dataset) -> dict[tuple[str, str, str], dict[str, Array]]:
    """Return a table's columns by owner."""
    ends = np.searchsorted(table["owner"].values, np.arange(table.sizes["array"] + 1))
    stamps = zip(*(table[f"owner_{k}"].values.tolist() for k in ("scene", "array", "stamp")), strict=True)
    return {
        stamp: {k: table[k].values[ends[i] : ends[i + 1]] for k in COLUMNS} for i, stamp in enumerate(stamps)
    }


def _measure_all(
    store: Store, spec: IndexSpec, rows: Mapping[tuple[str, str, str], int]
) -> dict[tuple[str, str, str], dict[str, Array]]:
    """Measure the patches of some catalog rows, in parallel."""
    tasks: list[Task] = []
    names = []
    for scene in sorted({scene for scene, *_ in rows}):
        store.check_files(scene)
    for stamp, i in rows.items():
        owner = _owner(store, i)
        tops, lefts = (positions(n, spec) for n in owner.shape)
        if not len(tops) or not len(lefts):
            continue
        per_task = max(TASK_PIXELS // (owner.shape[1] * spec.size), 1)
        for part in np.array_split(tops, math.ceil(len(tops) / per_task)):
            tasks.append((measure_patches, (owner, spec, part, lefts)))
            names.append(stamp)
    out: dict[tuple[str, str, str], list[dict[str, Array]]] = {stamp: [] for stamp in rows}
    for stamp, part in zip(names, gather(tasks), strict=True):
        out[stamp].append(part)
    return {stamp: _concatenated(parts) for stamp, parts in out.items()}


def _concatenated(parts: list[dict[str, Array]]) -> dict[str, Array]:
    return {k: np.concatenate([np.empty(0, t), *(p[k] for p in parts)]).astype(t) for k, t in COLUMNS.items()}


def _owner(store: Store, i: int) -> PatchOwner:
    row = {k: store.catalog[k].values[i] for k in cv.CATALOG_SCHEMA}
    clip = store.bounds[row["bounds_key"]]
    return PatchOwner(
        root=str(store.root),
        scene=str(row["scene"]),
        array=str(row["name"]),
        shape=(int(row["height"]), int(row["width"])),
        encoding=Encoding(
            dtype=str(row["dtype"]), codec=str(row["codec"]), chunk=int(row["chunk"]), shard=int(row["shard"])
        ),
        stored=(float(row["vmin"]), float(row["vmax"])),
        clip=(clip.clip_vmin, clip.clip_vmax),
    )


def _lost(store: Store, i: int, spec: IndexSpec) -> int:
    """Return how many patches of an array, the ragged ones, the table leaves out."""
    shape = (int(store.catalog[k].values[i]) for k in ("height", "width"))
    padded = IndexSpec(size=spec.size, stride=spec.stride, edge="pad")
    counts = [(len(positions(n, padded)), len(positions(n, spec))) for n in shape]
    return math.prod(c[0] for c in counts) - math.prod(c[1] for c in counts)


def _table(parts: Mapping[tuple[str, str, str], dict[str, Array]], spec: IndexSpec, lost: int) -> xr.Dataset:
    lengths = [len(p["row"]) for p in parts.values()]
    owner = np.repeat(np.arange(len(parts), dtype=np.int32), lengths)
    columns: dict[str, Any] = {"owner": ("patch", owner)}
    columns |= {k: ("patch", v) for k, v in _concatenated(list(parts.values())).items()}
    for at, name in enumerate(("scene", "array", "stamp")):
        columns[f"owner_{name}"] = ("array", _text([stamp[at] for stamp in parts]))
    attrs = {"size": spec.size, "stride": spec.stride, "edge": spec.edge, "dropped": lost}
    return xr.Dataset(columns, attrs=attrs)


def _text(values: Iterable[str]) -> Array:
    return np.array(list(values), dtype="T")
