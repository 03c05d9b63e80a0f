"""Tables of a store: groups of columns, each one checksummed chunk, replaced as a whole.

Any Zarr reader opens them; these functions open them fast, and see every flipped bit.
"""

import ctypes
import math
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numcodecs import VLenUTF8

from sarzarr import conventions as cv
from sarzarr.bounds import Histogram
from sarzarr.codecs import get_codec
from sarzarr.documents import Encoding, array_document, group_document, read_json, write_json
from sarzarr.errors import CorruptStoreError

COLUMNS: Final = "columns"
"""Attribute of a table: the names of its columns, in order."""
TABLE_READ_TRIES: Final = 20
"""How often a table that is being replaced is looked for again, 50 ms apart."""


def write_table(folder: Path, table: xr.Dataset) -> None:
    """Put a table of columns in the place of the one at ``folder``, whole; every column is checksummed."""
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    attributes = {**table.attrs, COLUMNS: [str(name) for name in table.data_vars]}
    for name, column in table.data_vars.items():
        _write_column(new / str(name), column.dims, column.values)
    write_json(new / "zarr.json", group_document(attributes))
    swap_in(new, folder)


def _write_column(folder: Path, dims: tuple[Any, ...], values: np.ndarray[Any, Any]) -> None:
    """Write one column as one chunk; text as Zarr's variable-length UTF-8."""
    zipped, is_text = get_codec("zstd"), values.dtype.kind in "OTU"
    dtype = "string" if is_text else values.dtype.name
    encoding = Encoding(dtype="uint8" if is_text else dtype, codec="zstd", chunk=1, shard=0)
    document = array_document(values.shape, encoding, dims=tuple(map(str, dims)))
    document["chunk_grid"]["configuration"]["chunk_shape"] = [max(n, 1) for n in values.shape]
    raw: Any = np.ascontiguousarray(values)
    if is_text:
        document |= {"data_type": "string", "fill_value": ""}
        document["codecs"][0] = {"name": "vlen-utf8"}
        raw = np.frombuffer(VLenUTF8().encode(values.astype(object)), np.uint8)
    write_json(folder / "zarr.json", document)
    if values.size:
        payload, crc = zipped.encode(raw)
        place = folder.joinpath("c", *["0"] * values.ndim)
        place.parent.mkdir(parents=True)
        place.write_bytes(bytes(payload) + crc)


def _read_column(folder: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    document = read_json(folder / "zarr.json")
    shape = tuple(document["shape"])
    is_text = document["data_type"] == "string"
    if not math.prod(shape):
        return document["dimension_names"], np.empty(shape, object if is_text else document["data_type"])
    stored = folder.joinpath("c", *["0"] * len(shape)).read_bytes()
    if is_text:
        return document["dimension_names"], VLenUTF8().decode(get_codec("zstd").decode(stored)).reshape(shape)
    values = np.empty(shape, document["data_type"])
    get_codec("zstd").decode_into(stored, values)
    return document["dimension_names"], values


def swap_in(new: Path, place: Path) -> None:
    """Rename a directory into its place; what was there is removed after. At every moment one of them is there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        new.rename(place)
        return
    if not _exchange(new, place):
        old = place.with_name(f".{place.name}.{uuid.uuid4().hex}.old")
        place.rename(old)
        new.rename(place)
        new = old
    shutil.rmtree(new, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step; False where the system has no such call: two renames do it then."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library from before 2018
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def swap_out(place: Path) -> None:
    """Take a directory away in one step, then remove what it held."""
    old = place.with_name(f".{place.name}.{uuid.uuid4().hex}.old")
    place.rename(old)
    shutil.rmtree(old)


def read_table(folder: Path) -> xr.Dataset:
    """Read a table into memory; one that is being replaced is waited for.

    Raises
    ------
    CorruptStoreError
        A column fails its checksum.
    """
    for attempt in range(TABLE_READ_TRIES):
        before = _inode(folder)
        try:
            attributes = read_json(folder / "zarr.json")["attributes"]
            columns = {name: _read_column(folder / name) for name in attributes.pop(COLUMNS)}
            if _inode(folder) == before:
                break
        except (
            FileNotFoundError,
            CorruptStoreError,
        ):  # where it is replaced meanwhile, parts of two do not match
            is_stale = before is None or _inode(folder) != before
            if attempt == TABLE_READ_TRIES - 1 or not is_stale:
                raise
        time.sleep(0.05)
    return xr.Dataset(columns, attrs=attributes)


def _inode(table: Path) -> int | None:
    """Return what tells this table from the one that replaces it; None where there is none."""
    try:
        return (table / "zarr.json").stat().st_ino
    except FileNotFoundError:
        return None


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
