"""Patch indices: tables of the patches that can be trained on, measured once, so that filters never touch pixels.

A patch is a window of one array. Its row holds its place and four measures of its pixels, which follow from
integer counts of codes: a table does not depend on the cut of the work.
"""

import logging
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, IngestError, InvalidInputError
from sarzarr.patches.cut import IndexSpec, positions
from sarzarr.patches.measure import COLUMNS, measure_patches
from sarzarr.patches.stored_array import StoredArray
from sarzarr.store.catalog import catalog_rows
from sarzarr.store.commit import changing
from sarzarr.store.documents import named
from sarzarr.store.manifest import read_manifest
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.store.tables import append_rows, read_table, row_count, write_table
from sarzarr.tasks import Task, gather

log = logging.getLogger(__name__)
TASK_PIXELS: Final = 2**25
"""Pixels that one task looks at, about."""
INDEX_ROWS: Final = {"patch": 16_384, "array": 256}
"""Rows of a chunk of an index: of patches, and of arrays."""
Stamp = tuple[str, str, str]
"""(scene, array, digest of all that the array's measures depend on)."""


def index_patches(
    store: AnyStore,
    *,
    size: int = cv.CHUNK,
    stride: int = cv.CHUNK,
    edge: str = "drop",
    name: str = cv.DEFAULT_INDEX,
) -> xr.Dataset:
    """Make, or bring up to date, a patch index in one pass over codes and flags; return `Store.patches` of it.

    Its columns are scene, array, row, col, id, valid_fraction, unsaturated_fraction (of positive pixels, strictly
    inside 1 % and 99 % of the clip, times valid_fraction; 0 where none is positive), mean_db and std_db (of the
    valid, positive pixels; NaN where there is none).
    ``size`` and ``stride`` are pixels of a patch, and from one to the next; a table of that name that was cut
    otherwise is replaced. ``edge`` can ``drop`` the remainders at right and bottom (they are counted in the attrs),
    ``shift`` the last patch inward, or ``pad`` it: its pixels beyond the edge are not valid.
    """
    opened = open_store(store)
    with changing(opened) as draft:
        update_index(draft, IndexSpec(name=name, size=size, stride=stride, edge=edge))
    return opened.anew().patches(name)


def ensure_index(store: Store, spec: IndexSpec) -> None:
    """Index a store's patches; where it cannot be written to now, ``store`` alone has the table, while it lives."""
    try:
        with changing(store) as draft:
            update_index(draft, spec)
    except CorruptStoreError:
        raise
    except (OSError, IngestError, InvalidInputError) as error:
        if (table := _brought_up_to_date(store, spec)) is not None:
            log.warning("index %s of %s is kept in memory alone: %s", spec.name, store.place.name, error)
            store.unwritten[spec.name] = table


def update_index(store: Store, spec: IndexSpec, replaced: Collection[str] | None = None) -> None:
    """Index the arrays that the table does not know, or knows with other pixels or another clip (dB).

    One process does it at a time, in a draft of what the store then holds: none takes away what another has measured,
    and what several ask for is measured once. ``replaced`` are the only scenes that may have other pixels, where that
    is known.
    """
    table = _brought_up_to_date(store, spec, replaced)
    if table is not None:
        write_table(store.place, f"{cv.PATCHES}/{spec.name}", table, rows_per_chunk=INDEX_ROWS)


def _brought_up_to_date(
    store: Store, spec: IndexSpec, replaced: Collection[str] | None = None
) -> xr.Dataset | None:
    """Return the table of a cut as it should be; None where the store has it so.

    Manifests are read of all arrays; with ``replaced`` of those of these scenes, and of arrays that are not in the
    table: of the others it knows the pixels.
    """
    is_same = spec.name in store.patch_indices and spec_of(store, spec.name) == spec
    known = _by_owner(_as_it_was(store, spec.name)) if is_same else {}
    stays = known if replaced is not None else ()
    told = {(scene, name): stamp for scene, name, stamp in stays if scene not in (replaced or ())}
    wanted = {stamp_of(store, row, told.get((row["scene"], row["name"]))): row for row in _arrays_of(store)}
    if is_same and list(known) == list(wanted):
        return None
    return _measured(store, spec, wanted, known)


def measured_table(
    store: Store, spec: IndexSpec, known: Mapping[Stamp, dict[str, Array]] = MappingProxyType({})
) -> xr.Dataset:
    """Return the patch table of a cut as it is measured now; what is ``known`` of an array is not measured again."""
    return _measured(store, spec, {stamp_of(store, row): row for row in _arrays_of(store)}, known)


def _measured(
    store: Store,
    spec: IndexSpec,
    wanted: Mapping[Stamp, Mapping[str, Any]],
    known: Mapping[Stamp, dict[str, Array]],
) -> xr.Dataset:
    fresh = _measure_all(store, spec, {stamp: row for stamp, row in wanted.items() if stamp not in known})
    parts = {stamp: known.get(stamp) or fresh[stamp] for stamp in wanted}
    return _table(parts, spec, _dropped(wanted.values(), spec))


def _arrays_of(store: Store) -> list[dict[str, Any]]:
    """Return the rows of the catalog of arrays of backscatter, in the order in which they came in, as in an index."""
    return [row for row in catalog_rows(store.arrived) if row["name"]]


def update_indices(
    store: Store, added: Iterable[Mapping[str, Any]] | None = None, *, replaced: Collection[str] = ()
) -> None:
    """Bring every index of a draft up to date, the default one, of 256 x 256 pixels, too where there is none.

    Where nothing but arrays, rows of the catalog, was ``added``, their patches are added to those that are there.
    Else scenes may have gone, clips may be others, and scenes that were ``replaced`` have other pixels.
    """
    known = store.patch_indices
    for name in sorted({cv.DEFAULT_INDEX, *known}):
        if name not in known:
            update_index(store, IndexSpec(name=name))
        elif added is None:
            update_index(store, spec_of(store, name), replaced)
        else:
            _extend_index(store, name, [row for row in added if row["name"]])


def _extend_index(store: Store, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Measure arrays, rows of the catalog that came in last, and add their patches to an index."""
    about, spec, key = _as_it_was(store, name, columns=()).attrs, spec_of(store, name), f"{cv.PATCHES}/{name}"
    wanted = {stamp_of(store, row): row for row in rows}
    owners = row_count(store.place, key, "owner_scene")
    dropped = about["dropped"] + _dropped(wanted.values(), spec)
    table = _table(_measure_all(store, spec, wanted), spec, dropped, owners)
    append_rows(store.place, key, table, rows_per_chunk=INDEX_ROWS)


def _dropped(rows: Iterable[Mapping[str, Any]], spec: IndexSpec) -> int:
    return sum(_ragged((int(row["height"]), int(row["width"])), spec) for row in rows)


def spec_of(store: Store, name: str) -> IndexSpec:
    """Return the cut of a patch index of a store, in pixels."""
    cut = _as_it_was(store, name, columns=()).attrs
    with named(store.place, f"{cv.PATCHES}/{name}/zarr.json"):
        return IndexSpec(name=name, size=cut["size"], stride=cut["stride"], edge=cut["edge"])


def _as_it_was(store: Store, name: str, columns: Collection[str] | None = None) -> xr.Dataset:
    """Return the table of an index, which may be of scenes that were larger before they were replaced."""
    if name in store.unwritten:
        return store.unwritten[name]
    return read_table(store.place, f"{cv.PATCHES}/{name}", columns=columns)


def stamp_of(store: Store, row: Mapping[str, Any], told: str | None = None) -> Stamp:
    """Return the stamp of a catalog row: its measures depend on its own and its flags' files, and on the clip.

    Of which files they are, manifests say, or a digest that was ``told`` when they were the same.
    """
    scene, name, clip = str(row["scene"]), str(row["name"]), store.bounds[row["bounds_key"]]
    if told is None:
        arrays = (f"{cv.SCENES}/{scene}/{array}" for array in (name, row["flags"]))
        files = "".join(f"{read_manifest(store.place, array).crc:08x}" for array in arrays)
    else:
        files = told.partition(" ")[0]
    return scene, name, f"{files} {clip.clip_vmin!r} {clip.clip_vmax!r}"


def _by_owner(table: xr.Dataset) -> dict[Stamp, dict[str, Array]]:
    ends = np.searchsorted(table["owner"].values, np.arange(table.sizes["array"] + 1))
    stamps = zip(*(table[f"owner_{k}"].values.tolist() for k in ("scene", "array", "stamp")), strict=True)
    columns = {k: table[k].values for k in COLUMNS}
    return {
        stamp: {k: column[ends[i] : ends[i + 1]] for k, column in columns.items()}
        for i, stamp in enumerate(stamps)
    }


def _measure_all(
    store: Store, spec: IndexSpec, rows: Mapping[Stamp, Mapping[str, Any]]
) -> dict[Stamp, dict[str, Array]]:
    tasks: list[Task] = []
    owners = []
    for stamp, row in rows.items():
        clip = store.bounds[row["bounds_key"]].clip
        array = replace(StoredArray.of(store.place, row), is_clear=store.is_clear(row["scene"], row["name"]))
        tops, lefts = (positions(n, spec) for n in array.shape)
        if not len(tops) or not len(lefts):
            continue
        per_task = max(TASK_PIXELS // (array.shape[1] * spec.size), 1)
        for part in np.array_split(tops, math.ceil(len(tops) / per_task)):
            tasks.append((measure_patches, (array, tuple(clip), spec, part, lefts)))
            owners.append(stamp)
    measured: dict[Stamp, list[dict[str, Array]]] = {stamp: [] for stamp in rows}
    for stamp, columns in zip(owners, gather(tasks), strict=True):
        measured[stamp].append(columns)
    return {stamp: _concatenated(parts) for stamp, parts in measured.items()}


def _concatenated(parts: Iterable[dict[str, Array]]) -> dict[str, Array]:
    some = list(parts)
    return {k: np.concatenate([np.empty(0, t), *(p[k] for p in some)]).astype(t) for k, t in COLUMNS.items()}


def _ragged(shape: tuple[int, int], spec: IndexSpec) -> int:
    """Return the number of patches of an array, those over its edges, that a table leaves out."""
    padded = replace(spec, edge="pad")
    whole, kept = (math.prod(len(positions(n, cut)) for n in shape) for cut in (padded, spec))
    return whole - kept


def _table(
    parts: Mapping[Stamp, dict[str, Array]], spec: IndexSpec, dropped: int, owners: int = 0
) -> xr.Dataset:
    """Return the table of the patches of arrays, which come after so many ``owners``."""
    numbers = np.arange(owners, owners + len(parts), dtype=np.int32)
    owner = np.repeat(numbers, [len(p["row"]) for p in parts.values()])
    columns: dict[str, Any] = {"owner": ("patch", owner)}
    columns |= {k: ("patch", v) for k, v in _concatenated(parts.values()).items()}
    for i, name in enumerate(("scene", "array", "stamp")):
        columns[f"owner_{name}"] = ("array", np.array([stamp[i] for stamp in parts], dtype=object))
    attrs = {"size": spec.size, "stride": spec.stride, "edge": spec.edge, "dropped": dropped}
    return xr.Dataset(columns, attrs=attrs)
