"""The catalog and the histograms of a store."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.pixels.bounds import Histogram
from sarzarr.store.documents import Encoding, named, read_node, read_small_array, write_small_array
from sarzarr.store.place import Place


def catalog_of(rows: Iterable[Mapping[str, Any]]) -> xr.Dataset:
    """Return the catalog that holds ``rows``, sorted by scene and array name.

    Text that is not known is empty, a number that is not known is NaN.
    """
    ordered = sorted(rows, key=lambda r: (r["scene"], r["name"]))
    columns: dict[str, Any] = {}
    for name, kind in cv.CATALOG_SCHEMA.items():
        values = [row.get(name) for row in ordered]
        if kind == "text":
            columns[name] = ("array", np.array(["" if v is None else str(v) for v in values], dtype=object))
        elif kind == "affine":
            columns[name] = (("array", "affine"), np.array(values, dtype="f8").reshape(len(ordered), 6))
        elif kind == "integer":
            columns[name] = ("array", np.array(values, dtype="i8"))
        else:
            columns[name] = ("array", np.array([np.nan if v is None else v for v in values], dtype="f8"))
    return xr.Dataset(columns)


CATALOG_ROWS: Final = 256
"""Rows of a chunk of the catalog."""


def order_of(catalog: xr.Dataset) -> Array:
    """Return (arrays,) int: the order of a catalog's rows by scene and array name; of rows of one name the last."""
    names = zip(catalog["scene"].values.tolist(), catalog["name"].values.tolist(), strict=True)
    last = {name: at for at, name in enumerate(names)}
    return np.array([last[name] for name in sorted(last)], np.intp)


def patches_in_order(table: xr.Dataset) -> xr.Dataset:
    """Return a patch table with its arrays, and so their patches, in the order of the catalog that readers see."""
    owners = table.rename(owner_scene="scene", owner_array="name")[["scene", "name"]]
    order = order_of(owners)
    if np.array_equal(order, np.arange(owners.sizes["array"])):
        return table
    rank = np.full(owners.sizes["array"], -1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    owner = rank[table["owner"].values]
    patches = np.argsort(owner, kind="stable")
    patches = patches[
        np.searchsorted(owner[patches], 0) :
    ]  # those of an array that came in again are left out
    ordered = table.isel(array=order, patch=patches)
    return ordered.assign(owner=("patch", owner[patches]))


def is_in_order(catalog: xr.Dataset) -> bool:
    """Return whether a catalog's rows are sorted by scene and array name."""
    return np.array_equal(order_of(catalog), np.arange(catalog.sizes["array"]))


def catalog_rows(catalog: xr.Dataset) -> list[dict[str, Any]]:
    """Return a catalog's rows; the inverse of `catalog_of`."""
    values = {name: catalog[name].values for name in cv.CATALOG_SCHEMA}
    return [{name: column[i] for name, column in values.items()} for i in range(catalog.sizes["array"])]


def encoding_of(row: Mapping[str, Any]) -> Encoding:
    """Return the encoding of a catalog row's array; its flags have the same chunks and shards, pixels."""
    dtype, codec, chunk, shard = (row[k] for k in ("dtype", "codec", "chunk", "shard"))
    return Encoding(dtype=str(dtype), codec=str(codec), chunk=int(chunk), shard=int(shard))


_COUNTS: Final = ("under", "over", "nonpositive", "nodata")


def write_histogram(place: Place, node: str, histogram: Histogram) -> None:
    """Write one array's histogram: int64 counts over the stored range, and four counts in its attrs."""
    attributes = {cv.VMIN: cv.DB_FLOOR, cv.VMAX: cv.DB_CEILING, cv.UNITS: "dB"}
    attributes |= {k: getattr(histogram, k) for k in _COUNTS}
    write_small_array(place, node, histogram.counts.astype(np.int64), ("bin",), attributes)


def read_histogram(place: Place, node: str) -> Histogram:
    """Return the dB histogram that `write_histogram` wrote; `MissingFileError` where there is none."""
    counts, document = read_small_array(place, node)
    with named(place, f"{node}/zarr.json"):
        return histogram_of(counts, document)


def is_clear(place: Place, node: str) -> bool:
    """Return whether a histogram's document tells of no pixel that is nonpositive or was not measured."""
    about = read_node(place, node)["attributes"]
    with named(place, f"{node}/zarr.json"):
        return not (int(about["nonpositive"]) or int(about["nodata"]))


def histogram_of(counts: Array, document: Mapping[str, Any]) -> Histogram:
    """Return the histogram of counts (bins,) int64, with the four counts that its document tells."""
    return Histogram(counts=counts, **{k: int(document["attributes"][k]) for k in _COUNTS})
