"""Limits on what a store may say of itself: a stranger can write one, and compute every checksum in it.

What documents and tables tell is held against these before memory is taken for it: `InvalidInputError` where it is
beyond them, which `sarzarr.store.documents.named` gives the name of the file. Text that others wrote (boxes, classes,
splits) is read within limits here, too.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.scenes.header import MAX_PIXELS, MAX_SIDE
from sarzarr.scenes.names import check_scene_id
from sarzarr.text import listed, size_text

MAX_DOCUMENT: Final = 64 * 2**20
"""Bytes of a JSON document of a store, a manifest too; of the root's, which repeats all others, `MAX_ROOT`."""
MAX_ROOT: Final = 2**30
MAX_FILE: Final = 2**30
"""Bytes of a file that is copied as it is: a chunk of a table, or a shard of pictures."""
MAX_TEXT: Final = 256 * 2**20
"""Bytes of a file of boxes, annotations or splits that is imported."""
MAX_CHUNK: Final = 2**28
"""Bytes of a decoded chunk of pixels; sarzarr writes chunks of 256 x 256 pixels."""
MAX_CHUNKS: Final = 2**24
"""Chunks of an array: 2**40 pixels in chunks of 256 x 256."""
MAX_COLUMN: Final = 2**20
"""Chunks of a column: 2**34 rows in chunks of 16,384."""
MAX_CUT: Final = 2**14
"""Rows or columns of a patch, of a shard, and of a picture."""
ZSTD_RATIO: Final = 2**15
"""The most bytes that a byte of a Zstandard frame can stand for: a block of 128 KiB takes 4 (RFC 8878, 3.1.1.2)."""
DTYPES: Final = frozenset(
    f"{kind}{bits}"
    for kind, sizes in {"uint": (8, 16, 32, 64), "int": (8, 16, 32, 64), "float": (16, 32, 64)}.items()
    for bits in sizes
)
"""Dtypes whose chunks are read directly: codes, floats, flags, and whatever a layer is."""
_DTYPES: Final = DTYPES | {"bool", "complex64", "complex128", "string"}
_CODECS: Final = frozenset(
    ("bytes", "vlen-utf8", "crc32c", "zstd", "blosc", "gzip", "transpose", "sharding_indexed")
)
"""Codecs of the Zarr v3 specification that run nothing and import nothing."""

_MEASURES: Final = ("valid_fraction", "unsaturated_fraction", "mean_db", "std_db")


def check_document(key: str, size: int) -> None:
    """Refuse a JSON document, or another file that is read as a whole, of more bytes than a store's has."""
    limit = MAX_ROOT if key == "zarr.json" else MAX_DOCUMENT if key.endswith(".json") else MAX_FILE
    if size > limit:
        raise InvalidInputError(f"at most {size_text(limit)} were expected, got {size_text(size)}")


def check_array(document: Mapping[str, Any], *, is_column: bool = False) -> None:
    """Refuse the document of an array that would take more memory than any of sarzarr's, or run what is not known.

    A column of a table is one chunk, of any size: `check_decoded` is for its bytes. Or it is in chunks of rows.
    """
    try:
        codecs = list(_flat(document["codecs"]))
        outer = document["chunk_grid"]["configuration"]["chunk_shape"]
        inner = document["codecs"][0].get("configuration", {}).get("chunk_shape", outer)
    except (LookupError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"chunks and codecs of an array were expected, got {error!r:.100}") from None
    if unknown := {str(codec["name"]) for codec in codecs} - _CODECS:
        raise InvalidInputError(f"codecs that run nothing were expected, got {listed(sorted(unknown))[:200]}")
    dtype = document["data_type"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise InvalidInputError(f"numbers or text were expected, got {str(dtype)[:100]}")
    itemsize = 8 if dtype == "string" else np.dtype(dtype).itemsize
    check_cut(document["shape"], inner, outer, itemsize=itemsize, is_column=is_column)


def _flat(codecs: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield codecs and those within them."""
    waiting = list(codecs)
    while waiting:
        codec = waiting.pop()
        yield codec
        for key in ("codecs", "index_codecs"):
            waiting += codec.get("configuration", {}).get(key, ())


def check_cut(shape: Any, inner: Any, outer: Any, *, itemsize: int, is_column: bool = False) -> None:
    """Refuse (rows, columns), chunks and shards that are no counts, or more than memory is taken for."""
    lists = (shape, inner, outer)
    is_counted = len({len(some) for some in lists}) == 1 and all(
        type(n) is int for some in lists for n in some
    )
    if not is_counted or min(shape, default=0) < 0 or min((*inner, *outer), default=1) < 1:
        raise InvalidInputError(f"whole numbers as shape and chunks were expected, got {str(lists)[:200]}")
    if is_column and tuple(inner) == tuple(outer) == tuple(max(n, 1) for n in shape):
        return
    chunk = math.prod(inner) * itemsize
    count, within = (
        math.prod(-(-n // c) for n, c in zip(some, inner, strict=True)) for some in (shape, outer)
    )
    is_other = is_column and (not shape or [*inner[1:], *outer] != [*(max(n, 1) for n in shape[1:]), *inner])
    most = MAX_COLUMN if is_column else MAX_CHUNKS
    if chunk > MAX_CHUNK or max(count, within) > most or is_other:
        raise InvalidInputError(
            f"chunks of at most {size_text(MAX_CHUNK)}, and at most {most:,} of them, were expected, got "
            f"{count:,} of {size_text(chunk)}"
        )


def check_decoded(size: int, stored: int) -> None:
    """Refuse bytes before memory is taken for them, where no frame of ``stored`` bytes decodes to so many."""
    if size > ZSTD_RATIO * stored:
        raise InvalidInputError(
            f"at most {size_text(ZSTD_RATIO * stored)} were expected, got {size_text(size)}"
        )


def check_texts(encoded: bytes, count: int) -> None:
    """Refuse text of another number of values than is told, each of which takes 4 bytes or more."""
    told = int.from_bytes(encoded[:4], "little")
    if told != count or 4 * (count + 1) > len(encoded):
        raise InvalidInputError(f"{count} texts were expected, got {told} in {len(encoded)} bytes")


# ------------------------------------------------------------------ tables
def check_catalog(catalog: xr.Dataset) -> None:
    """Refuse a catalog whose columns are none of its own, or whose names and numbers no scene has."""
    kinds = {"text": "OTU", "integer": "iu", "number": "f", "affine": "f"}
    for name, kind in cv.CATALOG_SCHEMA.items():
        column = catalog[name]
        if column.dtype.kind not in kinds[kind] or column.dims[:1] != ("array",):
            raise InvalidInputError(
                f"a column {name} of {kind} was expected, got {column.dtype} of {column.dims}"
            )
    for scene in dict.fromkeys(catalog["scene"].values.tolist()):
        check_scene_id(scene)
    for name in {*catalog["name"].values.tolist(), *catalog["flags"].values.tolist()} - {""}:
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
            raise InvalidInputError(f"the name of an array was expected, got {str(name)[:100]!r}")
    height, width, chunk, shard = (catalog[k].values for k in ("height", "width", "chunk", "shard"))
    is_cut = (height > 0) & (width > 0) & (chunk > 0) & (shard >= 0) & (shard % np.maximum(chunk, 1) == 0)
    is_cut &= (chunk <= MAX_CUT) & (shard <= MAX_CUT) & (np.maximum(height, width) <= MAX_SIDE)
    is_cut &= height.astype(np.float64) * width <= MAX_PIXELS
    if not is_cut.all():
        i = int(np.argmin(is_cut))
        got = f"{height[i]} x {width[i]} pixels, chunks of {chunk[i]} and shards of {shard[i]}"
        raise InvalidInputError(f"an array that can be was expected, got {got}")
    if unknown := {*catalog["dtype"].values.tolist()} - DTYPES:
        raise InvalidInputError(f"dtypes of pixels were expected, got {str(unknown)[:100]}")


def check_patches(table: xr.Dataset, catalog: xr.Dataset) -> None:
    """Refuse a patch table whose places (pixels) or owners cannot be."""
    kinds = {**dict.fromkeys(("owner", "row", "col", "id"), "i"), **dict.fromkeys(_MEASURES, "f")}
    wrong = [
        name
        for name, kind in kinds.items()
        if (table[name].dtype.kind, table[name].dims) != (kind, ("patch",))
    ]
    owners = table["owner_scene"].size
    if wrong or table["owner_array"].size != owners:
        raise InvalidInputError(f"numbers of each patch were expected, got others as {wrong or 'owners'}")
    cut = tuple(table.attrs[k] for k in ("size", "stride"))
    if not all(type(n) is int and n > 0 for n in cut) or cut[0] > MAX_CUT:
        raise InvalidInputError(f"patches of 1 to {MAX_CUT} pixels were expected, got {str(cut)[:100]}")
    for name, end in (("owner", owners), ("row", _most(catalog["height"])), ("col", _most(catalog["width"]))):
        check_within(table[name].values, 0, end - 1, name)


def check_boxes_within(corners: Mapping[str, Array], sizes: xr.Dataset) -> None:
    """Refuse boxes, pixels, that are none, or lie beyond the largest image of ``sizes``."""
    for axis, side in (("x", "width"), ("y", "height")):
        low, high = corners[f"{axis}_min"], corners[f"{axis}_max"]
        check_within(np.concatenate([low, high]), 0, _most(sizes[side]), f"{axis}_min, {axis}_max")
        if not (low < high).all():
            raise InvalidInputError(f"{axis}_min below {axis}_max was expected")


def check_within(values: Array, low: float, high: float, what: str) -> None:
    """Refuse numbers (n,) of which one is none, or below ``low`` or above ``high``."""
    if values.size and not (values.min() >= low and values.max() <= high):  # NaN is neither
        raise InvalidInputError(
            f"{what} of {low} to {high} was expected, got {values.min()} to {values.max()}"
        )


def _most(column: xr.DataArray) -> int:
    return int(column.values.max(initial=1))


# ------------------------------------------------------------------ text that others wrote
def read_text(path: Path, what: str, *, limit: int = MAX_TEXT) -> str:
    """Return the text of a file, without the mark that other systems put before it; `OSError` where it is not there.

    Raises `InvalidInputError` where it has more than ``limit`` bytes, is no regular file, or no UTF-8.
    """
    try:
        return read_within(path, what, limit=limit).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInputError(
            f"{what} in UTF-8 was expected, got {path.name!r}, which is not UTF-8. Save it so."
        ) from None


def read_within(path: Path, what: str, *, limit: int = MAX_TEXT) -> bytes:
    """Return the bytes of a file; errors are those of `read_text`."""
    status = path.stat()
    if status.st_size > limit or not (path.is_file() or path.is_dir()):  # of a folder, opening says so
        got = size_text(status.st_size) if path.is_file() else "no regular file"
        raise InvalidInputError(
            f"{what} of at most {size_text(limit)} was expected, got {got} at {path.name!r}. Divide it into several."
        )
    return path.read_bytes()
