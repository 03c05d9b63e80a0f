"""Shares of a patch's pixels that a layer says something of: tables beside a patch index, by layer."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.store.manifest import read_manifest
from sarzarr.store.place import Place

FRACTION: Final = "fraction"
"""The column of all pixels that are neither 0 nor no data, after the layer's name: ``water_fraction``."""


def shares_key(index: str, layer: str) -> str:
    """Return the key of the table of a layer's shares in the patches of an index."""
    return f"{cv.SHARES}/{index}/{layer}"


def layers_meant(names: Iterable[str], layers: Collection[str]) -> tuple[str, ...]:
    """Return the layers whose shares are among names of a condition; of names within one another, the longest.

    >>> layers_meant(["mask_2_fraction", "other"], ["mask", "mask_2"])
    ('mask_2',)
    """
    meant = set[str]()
    for name in names:
        fitting = [layer for layer in layers if name.startswith(f"{layer}_")]
        meant |= {max(fitting, key=len)} if fitting else set()
    return tuple(sorted(meant))


def layer_stamp(place: Place, scene: str, layer: str, attrs: Mapping[str, Any]) -> str:
    """Return what the shares of a layer of a scene depend on: its pixels, its nodata and its classes."""
    crc = read_manifest(place, f"{cv.SCENES}/{scene}/{layer}").crc
    return f"{crc:08x} {attrs.get(cv.NODATA)!r} {sorted(attrs.get(cv.CLASSES, {}).items())}"


def share_columns(table: xr.Dataset, shares: xr.Dataset) -> dict[str, Array]:
    """Return the columns of a table of shares, float32, for each row of a `Store.patch_columns` table.

    NaN where the shares know no such scene.
    """
    ends = np.cumsum([0, *shares["owner_count"].values.tolist()])
    first = dict(zip(shares["owner_scene"].values.tolist(), ends[:-1].tolist(), strict=True))
    count = dict(zip(first, shares["owner_count"].values.tolist(), strict=True))
    owner = table["owner"].values
    starts = np.searchsorted(owner, np.arange(table.sizes["array"] + 1))
    row = np.full(len(owner), -1, np.int64)
    for i, scene in enumerate(table["owner_scene"].values.tolist()):
        n = int(starts[i + 1] - starts[i])
        if count.get(scene) == n:
            row[starts[i] : starts[i + 1]] = np.arange(first[scene], first[scene] + n)
    columns = {str(k): column.values for k, column in shares.data_vars.items() if column.dims == ("patch",)}
    return {
        name: np.where(row >= 0, values[row] if len(values) else np.nan, np.nan).astype(np.float32)
        for name, values in columns.items()
    }


def class_column(layer: str, value: int, names: Mapping[str, str]) -> str:
    """Return the column of a class: by the name of its value where that is a word of its own, else by the value.

    >>> class_column("ice", 2, {"1": "old ice", "2": "young"}), class_column("ice", 1, {"1": "a b", "2": "a-b"})
    ('ice_young', 'ice_1')
    """
    words = {key: re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") for key, name in names.items()}
    word = words.get(str(value), "")
    is_own = word not in ("", FRACTION) and list(words.values()).count(word) == 1 and not word.isdigit()
    return f"{layer}_{word if is_own else value}"
