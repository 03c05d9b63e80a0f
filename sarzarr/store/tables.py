"""Tables of a store: groups of checksummed columns, replaced as a whole, or appended to.

Any Zarr reader opens them; these functions open them fast, and see every flipped bit. A table that grows is in chunks
of rows: whoever appends to it writes the last chunk of each column, and documents, however many rows there are.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, InvalidInputError
from sarzarr.store.codecs import CRC_BYTES
from sarzarr.store.documents import (
    chunk_key,
    column_document,
    crc_of_crcs,
    decode_chunk,
    encode_chunk,
    file_bytes,
    group_document,
    has_node,
    key_in_store,
    named,
    read_node,
    read_sealed,
    read_small_array,
    write_node,
    write_small_array,
)
from sarzarr.store.journal import settle, under_change
from sarzarr.store.limits import DTYPES, check_array
from sarzarr.store.place import Folder, Place

COLUMNS: Final = "columns"
"""Attribute of a table: the names of its columns, in order."""
EMPTY: Final = "empty_columns"
"""Attribute of a table: its columns without a value, ``row int32 patch=0`` each: GDAL refuses arrays of length 0."""
ROWS_PER_CHUNK: Final = 16_384
"""Rows of a chunk of a table that is appended to, where nobody says another number."""
TABLE_READ_TRIES: Final = 100
"""How often a table that is being replaced is looked for again, 10 ms apart."""
Rows = int | Mapping[str, int]
"""Rows of a chunk, of every dimension or by its name."""


def write_table(
    place: Place, key: str, table: xr.Dataset, *, once: bool = False, rows_per_chunk: Rows | None = None
) -> None:
    """Put a table of columns in the place of the one at ``key``, whole; every column is checksummed.

    With ``once`` it is flushed to the disk, and one that is there already is a `FileExistsError`. With
    ``rows_per_chunk`` its columns are in chunks of so many rows, for `append_rows`; else in one chunk each.
    """
    columns = {str(name): column.variable for name, column in table.data_vars.items()}
    attributes = {**table.attrs, COLUMNS: list(columns)}
    rows = {} if rows_per_chunk is None else _chunk_rows(table, rows_per_chunk)
    if rows:
        attributes[cv.CHUNK_ROWS] = rows
    if empty := [name for name, column in columns.items() if not column.size]:
        attributes[EMPTY] = [_described(name, columns[name]) for name in empty]
    with place.whole(key, once=once) as folder:
        new = Folder(folder, key_in_store(place, key))
        attributes[cv.CHUNK_CRC] = [
            0 if name in empty else _write_column(new, name, column, rows) for name, column in columns.items()
        ]
        write_node(new, "", group_document(attributes))


def _chunk_rows(table: xr.Dataset, rows: Rows) -> dict[str, int]:
    """Return the rows of a chunk of each dimension that a column has first."""
    dims = dict.fromkeys(str(column.dims[0]) for column in table.data_vars.values())
    return {dim: rows if isinstance(rows, int) else rows.get(dim, ROWS_PER_CHUNK) for dim in dims}


def _write_column(place: Place, name: str, column: xr.Variable, rows: Mapping[str, int]) -> int:
    """Write a column that has values, in one chunk or in chunks of rows, and return its checksum."""
    if not rows:
        return write_small_array(place, name, column.values, tuple(map(str, column.dims)))
    return _Grown.new(column, rows).write(place, name)


@dataclass(frozen=True)
class _Grown:
    """A column in chunks of rows, as it is to be written: its last chunks."""

    document: dict[str, Any]
    """Its document, of all rows."""
    values: Array
    """(rows, ...) of the chunks that are written."""
    first: int = 0
    """The first of them."""
    before: int = 0
    """The checksum over those before."""

    @classmethod
    def new(cls, column: xr.Variable, rows: Mapping[str, int]) -> "_Grown":
        """Return a column that is not there yet, with ``rows`` of a chunk by dimension."""
        dims, values = tuple(map(str, column.dims)), column.values
        return cls(column_document(values, (rows[dims[0]], *values.shape[1:]), dims), values)

    @classmethod
    def of(cls, place: Place, node: str, more: xr.Variable, crc: int) -> "_Grown":
        """Return a column of a table with more rows, of which the last chunk is read."""
        document = read_node(place, node)
        with named(place, f"{node}/zarr.json"):
            check_array(document, is_column=True)
            shape, before = tuple(document["shape"]), document["attributes"][cv.CRC_BEFORE_LAST]
            rows = document["chunk_grid"]["configuration"]["chunk_shape"][0]
            if crc != document["attributes"][cv.CHUNK_CRC]:
                raise ValueError("not a column that was written with its table")
        last = (shape[0] - 1) // rows
        key = chunk_key(node, len(shape), last)
        with named(place, key):
            stored = file_bytes(place, key)
            if crc_of_crcs([stored[-CRC_BYTES:]], before) != crc:
                raise ValueError("not the chunk that was written with its document")
        held = decode_chunk(place, key, stored, document, (rows, *shape[1:]))[: shape[0] - last * rows]
        _, values = _joined(node.rpartition("/")[2], (document["dimension_names"], held), more)
        return cls({**document, "shape": [shape[0] + len(more), *shape[1:]]}, values, last, before)

    def write(self, place: Place, node: str) -> int:
        """Write the chunks, and the document of the column, and return its checksum."""
        rows = self.document["chunk_grid"]["configuration"]["chunk_shape"][0]
        before = whole = self.before
        for at in range(0, len(self.values), rows):
            part = self.values[at : at + rows]
            if len(part) < rows:  # chunks of Zarr are whole: the rows beyond the end are fill values
                fill: Array = np.full((rows, *part.shape[1:]), self.document["fill_value"], part.dtype)
                fill[: len(part)] = part
                part = fill
            payload, crc = encode_chunk(part)
            place.put(chunk_key(node, part.ndim, self.first + at // rows), payload + crc)
            before, whole = whole, crc_of_crcs([crc], whole)
        attributes = {**self.document["attributes"], cv.CHUNK_CRC: whole, cv.CRC_BEFORE_LAST: before}
        write_node(place, node, {**self.document, "attributes": attributes})
        return whole


def append_rows(place: Place, key: str, rows: xr.Dataset, *, rows_per_chunk: Rows | None = None) -> None:
    """Add rows to the table at ``key``, which is made if there is none, behind those that it has, in their order.

    Each column grows along its first dimension; attributes of ``rows`` take the place of those of the same name. The
    last chunk of each column is read and written anew, and documents: files of a draft, which takes its place in one
    step. A table of one chunk a column is written anew, in chunks of ``rows_per_chunk``.

    Raises `InvalidInputError` where columns, their dimensions or their dtypes are others than the table's;
    `CorruptStoreError` where what is read is not as it was written.
    """
    if not has_node(place, key):
        write_table(place, key, rows, rows_per_chunk=rows_per_chunk or ROWS_PER_CHUNK)
        return
    document, free = read_sealed(place, key)
    about = document["attributes"]
    with named(place, f"{key}/zarr.json"):
        per, names, crcs = about.get(cv.CHUNK_ROWS), about[COLUMNS], list(about[cv.CHUNK_CRC])
        empty = {name: words for name, *words in map(str.split, about.pop(EMPTY, ()))}
    if names != list(map(str, rows.data_vars)):
        raise InvalidInputError(
            f"columns {', '.join(names)} were expected for {key}, got {', '.join(map(str, rows.data_vars))}."
        )
    if per is None:
        old = read_table(place, key)
        joined = {
            name: _joined(name, (old[name].dims, old[name].values), rows[name].variable) for name in names
        }
        table = xr.Dataset(joined, attrs=old.attrs | rows.attrs)
        write_table(place, key, table, rows_per_chunk=rows_per_chunk or ROWS_PER_CHUNK)
        return
    kept, grown = [], list[tuple[int, _Grown]]()
    for i, name in enumerate(names):
        column = rows[name].variable
        if name in empty:
            column = xr.Variable(*_joined(name, _empty_column(*empty[name]), column))
            if not column.size:
                kept.append(_described(name, column))
            else:
                grown.append((i, _Grown.new(column, per)))
        elif column.size:
            grown.append((i, _Grown.of(place, f"{key}/{name}", column, crcs[i])))
    for i, column in grown:  # all of them fit
        crcs[i] = column.write(place, f"{key}/{names[i]}")
    attributes = {**about, **rows.attrs, cv.CHUNK_CRC: crcs}
    if kept:
        attributes[EMPTY] = kept
    write_node(place, key, {**document, "attributes": attributes}, free - rows.attrs.keys())


def _joined(name: str, old: tuple[Any, Array], new: xr.Variable) -> tuple[list[str], Array]:
    """Return (dimensions, values) of a column with more rows; `InvalidInputError` where these are of another kind."""
    dims, values = list(map(str, old[0])), old[1]
    told = (list(map(str, new.dims)), new.shape[1:], _kind(new.dtype))
    if told != (dims, values.shape[1:], _kind(values.dtype)):
        raise InvalidInputError(
            f"{_kind(values.dtype)} of {', '.join(dims)} was expected for column {name}, got {told[2]} of "
            f"{', '.join(told[0])}, {new.shape}."
        )
    if not new.size:
        return dims, values
    return dims, np.concatenate([values, new.values]) if values.size else new.values


def _kind(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.kind in "OTU" else dtype.name


def _described(name: str, column: xr.Variable) -> str:
    return " ".join((name, _kind(column.dtype), *(f"{dim}={length}" for dim, length in column.sizes.items())))


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
            changing = under_change(place)  # first: a change that ends now has written the table's document
            is_stale = changing is not None or before is None or place.head(f"{key}/zarr.json") != before
            if attempt == TABLE_READ_TRIES - 1 or not is_stale:
                raise
            if changing is not None:
                settle(changing)
        time.sleep(0.01)
    return table


def row_count(place: Place, key: str, column: str) -> int:
    """Return the number of values of a column of a table, (rows, ...), along its first dimension."""
    attributes = read_node(place, key)["attributes"]
    with named(place, f"{key}/zarr.json"):
        empty = {name: words for name, *words in map(str.split, attributes.get(EMPTY, ()))}
        if column in empty:
            return len(_empty_column(*empty[column])[1])
        return int(read_node(place, f"{key}/{column}")["shape"][0])


def _read_columns(
    place: Place, key: str, attributes: dict[str, Any], wanted: Collection[str] | None
) -> dict[str, tuple[list[str], Array]]:
    """Return columns of a table by name, with their dimensions; its attributes lose what tells of them."""
    columns = {}
    empty = {name: words for name, *words in map(str.split, attributes.pop(EMPTY, ()))}
    names, _ = attributes.pop(COLUMNS), attributes.pop(cv.CHUNK_ROWS, None)
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
