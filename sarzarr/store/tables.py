"""Tables of a store: groups of columns, each one checksummed chunk, replaced as a whole.

Any Zarr reader opens them; these functions open them fast, and see every flipped bit.
"""

import time
from typing import Final

import xarray as xr

from sarzarr.errors import CorruptStoreError
from sarzarr.store.documents import group_document, read_node, read_small_array, write_json, write_small_array
from sarzarr.store.place import Folder, Place

COLUMNS: Final = "columns"
"""Attribute of a table: the names of its columns, in order."""
TABLE_READ_TRIES: Final = 20
"""How often a table that is being replaced is looked for again, 50 ms apart."""


def write_table(place: Place, key: str, table: xr.Dataset, *, once: bool = False) -> None:
    """Put a table of columns in the place of the one at ``key``, whole; every column is checksummed.

    With ``once`` it is flushed to the disk, and one that is there already is a `FileExistsError`.
    """
    attributes = {**table.attrs, COLUMNS: [str(name) for name in table.data_vars]}
    with place.whole(key, once=once) as folder:
        new = Folder(folder)
        for name, column in table.data_vars.items():
            write_small_array(new, str(name), column.values, tuple(map(str, column.dims)))
        write_json(new, "zarr.json", group_document(attributes))


def read_table(place: Place, key: str) -> xr.Dataset:
    """Read a table into memory; one that is being replaced is waited for.

    Raises `CorruptStoreError` where a column fails its checksum.
    """
    for attempt in range(TABLE_READ_TRIES):
        before = place.head(f"{key}/zarr.json")
        try:
            attributes = read_node(place, key)["attributes"]
            columns = {}
            for name in attributes.pop(COLUMNS):
                values, document = read_small_array(place, f"{key}/{name}")
                columns[name] = document["dimension_names"], values
            if place.head(f"{key}/zarr.json") == before:
                break
        except (FileNotFoundError, CorruptStoreError):  # of one that is replaced, parts of two do not match
            is_stale = before is None or place.head(f"{key}/zarr.json") != before
            if attempt == TABLE_READ_TRIES - 1 or not is_stale:
                raise
        time.sleep(0.05)
    return xr.Dataset(columns, attrs=attributes)
