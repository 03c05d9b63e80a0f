"""Tables of a store: groups of columns, each one checksummed chunk, replaced as a whole.

Any Zarr reader opens them; these functions open them fast, and see every flipped bit.
"""

import math
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numcodecs import VLenUTF8

from sarzarr.errors import CorruptStoreError
from sarzarr.files import whole_folder
from sarzarr.store.codecs import get_codec
from sarzarr.store.documents import Encoding, array_document, group_document, read_json, write_json

COLUMNS: Final = "columns"
"""Attribute of a table: the names of its columns, in order."""
TABLE_READ_TRIES: Final = 20
"""How often a table that is being replaced is looked for again, 50 ms apart."""


def write_table(folder: Path, table: xr.Dataset, *, once: bool = False) -> None:
    """Put a table of columns in the place of the one at ``folder``, whole; every column is checksummed.

    With ``once`` it is flushed to the disk, and one that is there already is a `FileExistsError`.
    """
    attributes = {**table.attrs, COLUMNS: [str(name) for name in table.data_vars]}
    with whole_folder(folder, once=once) as new:
        for name, column in table.data_vars.items():
            _write_column(new / str(name), column.dims, column.values)
        write_json(new / "zarr.json", group_document(attributes))


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
