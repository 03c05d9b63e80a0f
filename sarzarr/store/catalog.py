"""The catalog and the histograms of a store."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.pixels.bounds import Histogram
from sarzarr.store.codecs import get_codec
from sarzarr.store.documents import Encoding, array_document, read_json, write_json


def empty_catalog() -> xr.Dataset:
    """Return a catalog without rows."""
    return catalog_of(())


def catalog_of(rows: Iterable[Mapping[str, Any]]) -> xr.Dataset:
    """Return the catalog that holds ``rows``, sorted by scene and array name.

    Text that is not known is empty, a number that is not known is NaN.
    """
    ordered = sorted(rows, key=lambda r: (r["scene"], r["name"]))
    columns: dict[str, Any] = {}
    for name, kind in cv.CATALOG_SCHEMA.items():
        values = [row.get(name) for row in ordered]
        if kind == "text":
            columns[name] = ("array", np.array(["" if v is None else str(v) for v in values], dtype="T"))
        elif kind == "affine":
            columns[name] = (("array", "affine"), np.array(values, dtype="f8").reshape(len(ordered), 6))
        elif kind == "integer":
            columns[name] = ("array", np.array(values, dtype="i8"))
        else:
            columns[name] = ("array", np.array([np.nan if v is None else v for v in values], dtype="f8"))
    return xr.Dataset(columns)


def catalog_rows(catalog: xr.Dataset) -> list[dict[str, Any]]:
    """Return a catalog's rows; the inverse of `catalog_of`."""
    values = {name: catalog[name].values for name in cv.CATALOG_SCHEMA}
    return [{name: column[i] for name, column in values.items()} for i in range(catalog.sizes["array"])]


def encoding_of(row: Mapping[str, Any]) -> Encoding:
    """Return the encoding of a catalog row's array; its flags have the same chunks and shards."""
    dtype, codec, chunk, shard = (row[k] for k in ("dtype", "codec", "chunk", "shard"))
    return Encoding(dtype=str(dtype), codec=str(codec), chunk=int(chunk), shard=int(shard))


# ------------------------------------------------------------------ histograms
def write_histogram(folder: Path, histogram: Histogram) -> None:
    """Write one array's histogram: int64 counts over the stored range, and four counts in its attrs."""
    encoding = Encoding(dtype="int64", codec="zstd", chunk=cv.HISTOGRAM_BINS, shard=0)
    counts = {k: getattr(histogram, k) for k in ("under", "over", "nonpositive", "nodata")}
    attributes = {cv.VMIN: cv.DB_FLOOR, cv.VMAX: cv.DB_CEILING, cv.UNITS: "dB", **counts}
    payload, crc = get_codec(encoding.codec).encode(np.ascontiguousarray(histogram.counts, "<i8"))
    (folder / "c").mkdir(parents=True, exist_ok=True)
    (folder / "c" / "0").write_bytes(bytes(payload) + crc)
    document = array_document((cv.HISTOGRAM_BINS,), encoding, dims=("bin",), attributes=attributes)
    write_json(folder / "zarr.json", document)


def read_histogram(folder: Path) -> Histogram:
    """Read what `write_histogram` wrote."""
    attributes = read_json(folder / "zarr.json")["attributes"]
    counts = np.empty(cv.HISTOGRAM_BINS, np.int64)
    get_codec("zstd").decode_into((folder / "c" / "0").read_bytes(), counts)
    named = {k: int(attributes[k]) for k in ("under", "over", "nonpositive", "nodata")}
    return Histogram(counts=counts, **named)
