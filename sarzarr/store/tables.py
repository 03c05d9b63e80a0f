"""Tables of a store: groups of columns, each one checksummed chunk, replaced as a whole.

Any Zarr reader opens them; these functions open them fast, and see every flipped bit.
"""

import time
from collections.abc import Collection
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, InvalidInputError
from sarzarr.store.documents import (
    group_document,
    key_in_store,
    named,
    read_node,
    read_small_array,
    write_node,
    write_small_array,
)
from sarzarr.store.limits import DTYPES
from sarzarr.store.place import Folder, Place

COLUMNS: Final = "columns"
"""Attribute of a table: the names of its columns, in order."""
EMPTY: Final = "empty_columns"
"""Attribute of a table: its columns without a value, ``row int32 patch=0`` each: GDAL refuses arrays of length 0."""
TABLE_READ_TRIES: Final = 100
"""How often a table that is being replaced is looked for again, 10 ms apart."""


def write_table(place: Place, key: str, table: xr.Dataset, *, once: bool = False) -> None:
    """Put a table of columns in the place of the one at ``key``, whole; every column is checksummed.

    With ``once`` it is flushed to the disk, and one that is there already is a `FileExistsError`.
    """
    columns = {str(name): column for name, column in table.data_vars.items()}
    attributes = {**table.attrs, COLUMNS: list(columns)}
    if empty := [name for name, column in columns.items() if not column.size]:
        attributes[EMPTY] = [_described(name, columns[name]) for name in empty]
    with place.whole(key, once=once) as folder:
        new = Folder(folder, key_in_store(place, key))
        attributes[cv.CHUNK_CRC] = [
            0 if name in empty else write_small_array(new, name, column.values, tuple(map(str, column.dims)))
            for name, column in columns.items()
        ]
        write_node(new, "", group_document(attributes))


def _described(name: str, column: xr.DataArray) -> str:
    dtype = "string" if column.dtype.kind in "OTU" else column.dtype.name
    return " ".join((name, dtype, *(f"{dim}={length}" for dim, length in column.sizes.items())))


def _empty_column(dtype: str, *sizes: str) -> tuple[list[str], Array]:
    dims, lengths = zip(*(size.split("=") for size in sizes), strict=True)
    shape = tuple(map(int, lengths))
    if 0 not in shape or (dtype != "string" and dtype not in DTYPES):
        raise InvalidInputError(f"an empty column was expected, got {dtype[:100]} of {sizes!r:.100}")
    return list(dims), np.empty(shape, object if dtype == "string" else dtype)


def read_table(place: Place, key: str, *, columns: Collection[str] | None = None) -> xr.Dataset:
    """Read a table into memory, all of its columns or some; one that is being replaced is waited for.

    Raises `CorruptStoreError`, with the file, where a document is not as it was sealed, or a column is absent, fails
    its checksum, or was not written with this table.
    """
    for attempt in range(TABLE_READ_TRIES):
        before = place.head(f"{key}/zarr.json")
        try:
            attributes = read_node(place, key)["attributes"]
            with named(place, f"{key}/zarr.json"):
                table = xr.Dataset(_read_columns(place, key, attributes, columns), attrs=attributes)
            if place.head(f"{key}/zarr.json") == before:
                break
        except (FileNotFoundError, CorruptStoreError):  # of one that is replaced, parts of two do not match
            is_stale = before is None or place.head(f"{key}/zarr.json") != before
            if attempt == TABLE_READ_TRIES - 1 or not is_stale:
                raise
        time.sleep(0.01)
    return table


def _read_columns(
    place: Place, key: str, attributes: dict[str, Any], wanted: Collection[str] | None
) -> dict[str, tuple[list[str], Array]]:
    """Return columns of a table by name, with their dimensions; its attributes lose what tells of them."""
    columns = {}
    empty = {name: words for name, *words in map(str.split, attributes.pop(EMPTY, ()))}
    names = attributes.pop(COLUMNS)
    crcs = attributes.pop(cv.CHUNK_CRC) if place.is_sealed else [None] * len(names)
    for name, crc in zip(names, crcs, strict=True):
        if wanted is not None and name not in wanted:
            continue
        if name in empty:
            columns[name] = _empty_column(*empty[name])
            continue
        values, document = read_small_array(place, f"{key}/{name}", crc)
        columns[name] = document["dimension_names"], values
    return columns
