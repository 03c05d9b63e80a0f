"""Shares of layers in chips of a collection, measured: each chip once, by the hash of its pixels.

They are tables ``collections/<collection>/shares/<layer>``, float32 in [0, 1].
"""

import logging
from collections.abc import Iterable
from typing import Final

import numpy as np
import xarray as xr

from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, IngestError, InvalidInputError
from sarzarr.patches.shares import MOST_CLASSES
from sarzarr.store.collections import ChipLayer, Collection
from sarzarr.store.commit import changing
from sarzarr.store.documents import ensure_groups, has_node
from sarzarr.store.layer_shares import FRACTION, layers_meant
from sarzarr.store.place import Place
from sarzarr.store.tables import read_table, write_table
from sarzarr.tasks import gather

log = logging.getLogger(__name__)
GROUP: Final = "shares"
"""The group of these tables below a collection's."""
CHIPS_A_TASK: Final = 512
"""Chips that one task looks at."""
Counts = tuple[float, dict[int, float]]
"""Shares of a chip: of pixels that are neither 0 nor no data, and of each class."""


def chip_shares(collection: Collection, names: Iterable[str]) -> dict[str, Array]:
    """Return columns (n,) float32 of shares of layers in chips that names mean; those not known are found.

    They are ``<layer>_fraction``, the share of a chip's pixels that are neither 0 nor no data, and of classes
    ``<layer>_<value>``, up to 64 of them; NaN where a chip has no such layer. They are kept in the store, or in
    memory where it cannot be written to now.
    """
    columns: dict[str, Array] = {}
    for name in layers_meant(names, collection.layers):
        columns |= _columns(collection, collection.layer(name))
    return columns


def _columns(collection: Collection, layer: ChipLayer) -> dict[str, Array]:
    """Return the columns of one layer."""
    has = collection.table["layers"].values >> collection.layers.index(layer.name) & 1 == 1
    stamps = np.ascontiguousarray(collection.table["sha"].values[:, :8]).view("<u8").reshape(-1)
    key = f"{collection.key}/{GROUP}/{layer.name}"
    known = _read(collection.store.place, key)
    fresh = np.flatnonzero(has & ~np.isin(stamps, known["stamp"].values))
    if fresh.size:
        log.info("%s, %s: finding the shares of layer %s", collection.store.place, collection.key, layer.name)
        parts = [fresh[i : i + CHIPS_A_TASK] for i in range(0, len(fresh), CHIPS_A_TASK)]
        bare = Collection(collection.store, collection.name)
        counted = [one for some in gather([(_count, (bare, part, layer)) for part in parts]) for one in some]
        made = _table(stamps[fresh], counted)
        known = _joined(known, made)
        try:
            with changing(collection.store) as draft:
                ensure_groups(draft.place, f"{collection.key}/{GROUP}")
                write_table(draft.place, key, _joined(_read(draft.place, key), made))
        except CorruptStoreError:
            raise
        except (OSError, IngestError, InvalidInputError) as error:
            log.warning(
                "shares of layer %s of %s are in memory alone: %s", layer.name, collection.name, error
            )
    order = np.argsort(known["stamp"].values)
    at = order[np.searchsorted(known["stamp"].values, stamps[has], sorter=order)]
    columns = {FRACTION: known[FRACTION].values}
    values = known["value"].values.tolist()
    if len(values) <= MOST_CLASSES:
        columns |= {str(value): known["share"].values[:, i] for i, value in enumerate(values)}
    out: dict[str, Array] = {}
    for name, column in columns.items():
        of_chips = out[f"{layer.name}_{name}"] = np.full(len(has), np.nan, np.float32)
        of_chips[has] = column[at]
    return out


def _count(collection: Collection, rows: Array, layer: ChipLayer) -> list[Counts]:
    """Return the shares of a layer in chips by their rows (n,)."""
    is_classes, found = np.dtype(layer.dtype).kind in "iu" and layer.kind == "classes", []
    for row in rows.tolist():
        pixels = collection.stored(row, layer.name)
        held = (pixels != 0) & (pixels == pixels)  # NaN is no data
        if layer.nodata is not None:
            held &= pixels != layer.nodata
        values, counts = np.unique(pixels, return_counts=True) if is_classes else ((), ())
        shares = {
            int(value): float(count) / pixels.size
            for value, count in zip(values, counts, strict=True)
            if value >= 0 and value != layer.nodata
        }
        found.append((float(np.count_nonzero(held)) / pixels.size, shares))
    return found


def _table(stamps: Array, counted: list[Counts]) -> xr.Dataset:
    """Return rows of shares, by the first 8 bytes of the hash of their chips' pixels."""
    values = sorted({value for _, shares in counted for value in shares})
    values = values[: MOST_CLASSES + 1]  # more than that are no columns
    share = [[shares.get(value, 0.0) for value in values] for _, shares in counted]
    return xr.Dataset(
        {
            "stamp": ("chip", stamps),
            FRACTION: ("chip", np.array([fraction for fraction, _ in counted], np.float32)),
            "value": ("class", np.array(values, np.int64)),
            "share": (("chip", "class"), np.array(share, np.float32).reshape(len(counted), len(values))),
        }
    )


def _read(place: Place, key: str) -> xr.Dataset:
    return read_table(place, key) if has_node(place, key) else _table(np.zeros(0, np.uint64), [])


def _joined(one: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Return the rows of both tables, each stamp once, with the classes of both."""
    other = other.isel(chip=~np.isin(other["stamp"].values, one["stamp"].values))
    values = np.union1d(one["value"].values, other["value"].values)[: MOST_CLASSES + 1]
    share = np.zeros((one.sizes["chip"] + other.sizes["chip"], len(values)), np.float32)
    for table, rows in ((one, slice(0, one.sizes["chip"])), (other, slice(one.sizes["chip"], None))):
        kept = np.isin(table["value"].values, values)
        share[rows, np.searchsorted(values, table["value"].values[kept])] = table["share"].values[:, kept]
    columns = {
        name: ("chip", np.concatenate([one[name].values, other[name].values])) for name in ("stamp", FRACTION)
    }
    return xr.Dataset({**columns, "value": ("class", values), "share": (("chip", "class"), share)})
