"""Shares of layers in patches, measured: each layer once per scene and index, whatever arrays the scene has."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, IngestError, InvalidInputError, NotInStoreError
from sarzarr.patches.cut import IndexSpec, positions
from sarzarr.patches.index import spec_of
from sarzarr.store.commit import changing
from sarzarr.store.conditions import columns_of, names_in
from sarzarr.store.documents import ensure_groups
from sarzarr.store.free_values import values_of
from sarzarr.store.layer_shares import FRACTION, class_column, layers_meant, shares_key
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.store.stored_pixels import StoredPixels
from sarzarr.store.tables import write_table
from sarzarr.tasks import Task, gather
from sarzarr.text import listed

log = logging.getLogger(__name__)
MOST_CLASSES: Final = 64
"""Values of a layer above which it has no column per class."""
TASK_PIXELS: Final = 2**26
"""Pixels that one task looks at, about."""
Counts = dict[int | None, Array]
"""Pixels of each patch that have a value; under None, those that are neither 0 nor no data."""


def index_layers(
    store: AnyStore, layers: Sequence[str] | str, *, index: str = cv.DEFAULT_INDEX
) -> xr.Dataset:
    """Find the shares of layers in the patches of an index, keep them, and return `Store.patches` with them.

    Columns are ``<layer>_fraction``, the share of a patch's pixels that are neither 0 nor no data (padding is none of
    them), and of classes ``<layer>_<class>``, by name where it has one, else by value: up to 64. float32 in [0, 1],
    NaN in scenes without the layer. What is known of pixels as they are is not measured again.

    Raises `NotInStoreError` where there is no such index, or no scene with backscatter has the layer.
    """
    opened = open_store(store)
    wanted, known = [layers] if isinstance(layers, str) else list(layers), _layers(opened)
    opened.patch_columns(index)  # raises, and says which there are
    if missing := [layer for layer in wanted if layer not in known]:
        raise NotInStoreError(
            f"layers among {', '.join(sorted(known)) or 'none'} were expected, got {', '.join(missing)}. Name one of "
            "these."
        )
    _ensure(opened, spec_of(opened, index), wanted)
    fresh = opened if opened.unwritten_shares else opened.anew()
    return fresh.patches(index)


def with_shares(store: Store, table: xr.Dataset, index: str, where: str) -> xr.Dataset:
    """Return a patch table with the shares of the layers that a condition names, which are found where they are not.

    They are kept in the store, or in memory where it cannot be written to now.
    """
    names = names_in(where) - set(columns_of(table, store.catalog).names)
    layers = layers_meant(names, _layers(store)) if names else ()
    if layers:
        _ensure(store, spec_of(store, index), layers)
    return store.with_shares(table, index, layers)


def _layers(store: Store) -> set[str]:
    scenes = set(store.catalog["scene"].values.tolist())
    return {layer for scene in scenes for layer in store.layers(scene)}


def _ensure(store: Store, spec: IndexSpec, layers: Sequence[str]) -> None:
    """Measure the shares of layers in the patches of an index, where they are not known or of other pixels."""
    for layer in layers:
        if store.has_shares(spec.name, layer):
            continue
        try:
            with changing(store) as draft:
                if not draft.has_shares(spec.name, layer):  # of another process meanwhile
                    key = shares_key(spec.name, layer)
                    made = _measured(draft, spec, layer)
                    ensure_groups(draft.place, cv.SHARES, f"{cv.SHARES}/{spec.name}")
                    write_table(draft.place, key, made)
        except CorruptStoreError:
            raise
        except (OSError, IngestError, InvalidInputError) as error:
            log.warning(
                "shares of layer %s of %s are kept in memory alone: %s", layer, store.place.name, error
            )
            store.unwritten_shares[spec.name, layer] = _measured(store, spec, layer)


def _measured(store: Store, spec: IndexSpec, layer: str) -> xr.Dataset:
    """Return the table of a layer's shares: those of scenes that are as they were are taken from the one there is."""
    stamps, known = store.layer_stamps(spec.name, layer), store.kept_shares(spec.name, layer)
    parts = {} if known is None else _by_scene(known, stamps)
    names: dict[str, str] = {}
    tasks, owners = list[Task](), list[str]()
    for scene in stamps:
        attrs = store.layer_attrs(scene, layer)
        names = {**attrs.get(cv.CLASSES, {}), **names}
        if scene in parts:
            continue
        pixels = store.pixels(scene, layer)
        tops, lefts = (positions(n, spec) for n in pixels.shape)
        per_task = max(TASK_PIXELS // max(pixels.shape[1] * spec.size, 1), 1)
        for part in np.array_split(tops, math.ceil(len(tops) / per_task)) if len(lefts) and len(tops) else []:
            tasks.append((_count, (pixels, attrs, spec, part, lefts)))
            owners.append(scene)
    log.info("%s: finding the shares of layer %s in %s", store.place, layer, listed(dict.fromkeys(owners)))
    counted: dict[str, list[Counts]] = {scene: [] for scene in stamps if scene not in parts}
    for scene, counts in zip(owners, gather(tasks), strict=True):
        counted[scene].append(counts)
    for scene, some in counted.items():
        parts[scene] = _columns(some, layer, names, spec.size**2)
    return _table({scene: parts[scene] for scene in stamps}, stamps, layer, spec)


def _by_scene(shares: xr.Dataset, stamps: Mapping[str, str]) -> dict[str, dict[str, Array]]:
    """Return the columns of each scene that a table knows as it is now."""
    ends = np.cumsum([0, *shares["owner_count"].values.tolist()])
    owners = zip(shares["owner_scene"].values.tolist(), shares["owner_stamp"].values.tolist(), strict=True)
    columns = [str(k) for k, column in shares.data_vars.items() if column.dims == ("patch",)]
    return {
        scene: {k: shares[k].values[ends[i] : ends[i + 1]] for k in columns}
        for i, (scene, stamp) in enumerate(owners)
        if stamps.get(scene) == stamp
    }


def _count(
    pixels: StoredPixels, attrs: Mapping[str, Any], spec: IndexSpec, rows: Array, cols: Array
) -> Counts:
    """Return the counts of the patches at every (row, col), row by row, (n,) float64.

    Classes are counted one by one where a table names them, or they are 8-bit numbers from 0 on.
    """
    (height, width), nodata, table = pixels.shape, attrs.get(cv.NODATA), attrs.get(cv.CLASSES)
    is_small = pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= (1 if table is None else 2)
    is_classes = is_small and attrs[cv.LAYER_KIND] == "classes"
    right = np.minimum(cols + spec.size, width)
    counts: Counts = {None: np.zeros((len(rows), len(cols)))}
    for i, row in enumerate(rows.tolist()):
        strip = pixels.read((slice(row, min(row + spec.size, height)), slice(0, width)))
        held = (strip != 0) & (strip == strip)  # NaN is no data
        if nodata is not None:
            held &= strip != nodata
        counts[None][i] = _between(held, cols, right)
        for value in values_of(strip).tolist() if is_classes else ():
            if value >= 0 and value != nodata and (table is None or str(value) in table):
                here = counts.setdefault(value, np.zeros((len(rows), len(cols))))
                here[i] = _between(strip == value, cols, right)
    return {value: count.reshape(-1) for value, count in counts.items()}


def _between(held: Array, left: Array, right: Array) -> Array:
    """Return (patches,) float64: how many pixels of (rows, columns) are held between columns."""
    totals = np.concatenate([[0], np.cumsum(np.count_nonzero(held, axis=0))])
    return np.asarray(totals[right] - totals[left], np.float64)


def _columns(parts: Iterable[Counts], layer: str, names: Mapping[str, str], pixels: int) -> dict[str, Array]:
    """Return the columns of a scene, float32 shares of all pixels of a patch."""
    some = list(parts)
    values = {value for counts in some for value in counts if value is not None}
    values = set() if len(values) > MOST_CLASSES else values
    out = {f"{layer}_{FRACTION}": _gathered(some, None) / pixels}
    out |= {class_column(layer, value, names): _gathered(some, value) / pixels for value in sorted(values)}
    return {name: column.astype(np.float32) for name, column in out.items()}


def _gathered(parts: Sequence[Counts], value: int | None) -> Array:
    empty = np.empty(0)
    return np.concatenate([empty, *(c.get(value, np.zeros(len(c[None]))) for c in parts)])


def _table(
    parts: Mapping[str, dict[str, Array]], stamps: Mapping[str, str], layer: str, spec: IndexSpec
) -> xr.Dataset:
    first = f"{layer}_{FRACTION}"
    counts = [len(columns[first]) for columns in parts.values()]
    names = dict.fromkeys(name for columns in parts.values() for name in columns)
    made: dict[str, Any] = {
        name: ("patch", np.concatenate(
            [np.empty(0, np.float32), *(c.get(name, np.zeros(len(c[first]), np.float32)) for c in parts.values())]
        ))
        for name in names
    }  # fmt: skip
    made["owner_scene"] = ("scene", np.array(list(parts), object))
    made["owner_stamp"] = ("scene", np.array([stamps[scene] for scene in parts], object))
    made["owner_count"] = ("scene", np.array(counts, np.int32))
    return xr.Dataset(made, attrs={"size": spec.size, "stride": spec.stride, "edge": spec.edge})
