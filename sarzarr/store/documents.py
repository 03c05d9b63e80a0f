"""The documents and small arrays of a store: plain Zarr v3, sealed, written whole or not at all."""

import base64
import json
import math
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import xarray as xr
from crc32c import crc32c
from numcodecs import VLenUTF8

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, InvalidInputError, MissingFileError
from sarzarr.grids.dataset import grid_coordinates
from sarzarr.grids.grid import Grid
from sarzarr.store.codecs import CRC_BYTES, UNSHARDED_CODEC, get_codec
from sarzarr.store.limits import ZSTD_RATIO, check_array, check_decoded, check_document, check_texts
from sarzarr.store.place import Place
from sarzarr.store.seals import Document as Document
from sarzarr.store.seals import sealed, unsealed

RESTORE: Final = "Restore it from a copy, or see what else is damaged with `sarzarr verify`."


def group_document(attributes: Mapping[str, Any] | None = None) -> Document:
    """Return the ``zarr.json`` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}


def root_document(attributes: Mapping[str, Any]) -> Document:
    """Return the ``zarr.json`` of a store, whose consolidated metadata is empty: see `sarzarr.store.copies`."""
    return {**group_document(attributes), cv.CONSOLIDATED: {}}


def root_with_bounds(bounds: Mapping[str, Mapping[str, Any]], own: Mapping[str, Any]) -> Document:
    """Return the root's document with the bounds (dB) of groups, and with attributes that are the user's own."""
    schema = {"schema": cv.SCHEMA, "version": cv.SCHEMA_VERSION}
    ranges = {(entry[cv.VMIN], entry[cv.VMAX]) for entry in bounds.values()}
    whole = dict(zip((cv.VMIN, cv.VMAX), ranges.pop(), strict=True)) if len(ranges) == 1 else {}
    return root_document({**own, cv.SARZARR: schema, cv.BOUNDS: dict(sorted(bounds.items())), **whole})


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The dtype, codec, chunks and shards of an array."""

    dtype: str = "uint16"
    """``uint16`` (codes of [0, 1]), ``float32``, ``float16``; ``uint8`` for flags."""
    codec: str = "none"
    """A name in `sarzarr.store.codecs.CODECS`."""
    chunk: int = cv.CHUNK
    """Rows and columns of a chunk."""
    shard: int = cv.SHARD
    """Rows and columns of a shard; 0 writes a file a chunk."""
    nodata: float | int | None = None
    """The fill value; None is NaN of floats and 0 of integers."""

    def __post_init__(self) -> None:
        get_codec(self.codec)
        if self.chunk < 1 or self.shard % self.chunk:
            raise InvalidInputError(
                f"shard must be a multiple of the {self.chunk}-pixel chunk (or 0), got {self.shard}."
            )

    @property
    def fill(self) -> Any:
        """The value of chunks that are left out and of pixels beyond the edge: a NumPy scalar of the dtype."""
        dtype = np.dtype(self.dtype)
        default = np.nan if dtype.kind == "f" else 0
        return dtype.type(default if self.nodata is None else self.nodata)

    @property
    def file_size(self) -> int:
        """Rows and columns of one file: the shard, or the chunk where there are no shards."""
        return self.shard or self.chunk

    @property
    def grid(self) -> tuple[int, int]:
        """Chunks of a shard, (rows, columns); (0, 0) where there are no shards."""
        n = self.shard // self.chunk
        return n, n

    @property
    def of_flags(self) -> "Encoding":
        """The encoding of the flags of an array: uint8, in chunks and shards like its own."""
        return replace(self, dtype="uint8", codec=self.codec_beside, nodata=cv.FLAGS_FILL)

    @property
    def codec_beside(self) -> str:
        """The codec of the flags (uint8) and layers beside an array: whoever reads that one reads them, too."""
        return self.codec if self.codec == UNSHARDED_CODEC else cv.BESIDE_CODEC

    @property
    def codec_of_coordinates(self) -> str:
        """The codec of the coordinates (float64) beside an array: none, since xarray reads them of each scene."""
        return self.codec if self.codec == UNSHARDED_CODEC else "none"


def array_document(
    shape: tuple[int, ...],
    encoding: Encoding,
    *,
    dims: tuple[str, ...],
    attributes: Mapping[str, Any] | None = None,
) -> Document:
    """Return the ``zarr.json`` of an array."""
    dtype = np.dtype(encoding.dtype)
    inner = get_codec(encoding.codec).documents(dtype)
    codecs: list[Document] = inner
    if encoding.shard:
        codecs = [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [encoding.chunk] * len(shape),
                    "codecs": inner,
                    "index_codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        {"name": "crc32c"},
                    ],
                    "index_location": "end",
                },
            }
        ]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": encoding.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [encoding.file_size] * len(shape)},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _json_number(encoding.fill),
        "codecs": codecs,
        "attributes": dict(attributes or {}),
        "dimension_names": list(dims),
        "storage_transformers": [],
    }


def cf_attributes(encoding: Encoding) -> Document:
    """Return CF's attributes of an array of backscatter: what xarray decodes to [0, 1], NaN where not measured."""
    if encoding.dtype == "uint16":
        return dict(cv.CODED)
    return {cv.FILL_VALUE: cf_fill(encoding.fill)}


def cf_fill(value: Any) -> Any:
    """Return a fill value as xarray reads ``_FillValue`` of Zarr v3: of floats base64 of a little-endian double."""
    if np.asarray(value).dtype.kind == "f":
        return base64.standard_b64encode(struct.pack("<d", value)).decode()
    return int(value)


def _json_number(value: Any) -> Any:
    """Return a number as Zarr v3 writes a fill value: NaN and infinities are text."""
    number = value.item()
    if not isinstance(number, float) or math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def fill_of(document: Mapping[str, Any]) -> float | int | None:
    """Return the fill value that an array's document says; None where it is no number as `array_document` writes."""
    value = document["fill_value"]
    if isinstance(value, str):
        return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def write_json(place: Place, key: str, document: Mapping[str, Any]) -> None:
    """Write a JSON document, UTF-8 bytes, whole or not at all; NaN that others put into it stays."""
    place.put(key, json_bytes(document))


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a JSON document as it stands in a store, UTF-8."""
    return json.dumps(document, indent=1).encode()


def read_json(place: Place, key: str) -> Document:
    """Read a JSON document, UTF-8 bytes; `MissingFileError` without one, `CorruptStoreError` where it is none."""
    with named(place, key):
        document = json.loads(file_bytes(place, key))
        if not isinstance(document, dict):
            raise TypeError(f"a {type(document).__name__}")
    return document


def file_bytes(place: Place, key: str) -> bytes:
    """Return the bytes of a file that is read as a whole; `CorruptStoreError` where they are more than any has."""
    with named(place, key):
        head = place.head(key)
        check_document(key, 0 if head is None else head.size)
        return place.get(key)


@contextmanager
def named(place: Place, key: str) -> Iterator[None]:
    """Turn errors of what a file says into `CorruptStoreError`, with its name; `MissingFileError` without one."""
    try:
        yield
    except (MissingFileError, FileNotFoundError, NotADirectoryError) as error:
        if isinstance(error, MissingFileError):
            raise
        raise MissingFileError(f"a file was expected at {place}/{key}, got none. {RESTORE}") from None
    except CorruptStoreError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise CorruptStoreError(
            f"what sarzarr writes was expected, got {place}/{key}, which is no such document "
            f"({type(error).__name__}: {error}). {RESTORE}"
        ) from None


def _file_of(node: str) -> str:
    return f"{node}/zarr.json".lstrip("/")


def key_in_store(place: Place, key: str) -> str:
    """Return the key in its store of what is, or will be, at a key of a place."""
    return f"{place.home}/{key}".strip("/")


def write_node(place: Place, node: str, document: Mapping[str, Any], free: Collection[str] = ()) -> None:
    """Write the ``zarr.json`` of a group or an array, sealed but for attributes that are ``free``; "" is the root."""
    key = _file_of(node)
    write_json(place, key, sealed(document, key_in_store(place, key), free))


def read_node(place: Place, node: str) -> Document:
    """Read the ``zarr.json`` of a group or an array, without its seal, which must fit; "" is the root.

    Raises `MissingFileError` where there is none, `CorruptStoreError` where it is not as it was sealed.
    """
    return read_sealed(place, node)[0]


def read_sealed(place: Place, node: str) -> tuple[Document, frozenset[str]]:
    """Return a document as `read_node`, and the names of its attributes that are free, for who writes it anew."""
    return without_seal(place, node, read_json(place, _file_of(node)))


def without_seal(place: Place, node: str, document: Document) -> tuple[Document, frozenset[str]]:
    """Return a document that was read as `read_sealed` does."""
    key = _file_of(node)
    if not place.is_sealed:
        with named(place, key):
            return {**document, "attributes": {**document.get("attributes", {})}}, frozenset()
    with named(place, key):
        return unsealed(document, key_in_store(place, key), f"{place}/{key}")


def update_node(
    place: Place, node: str, attributes: Mapping[str, Any], without: Collection[str] = ()
) -> None:
    """Change some attributes of a document, and take some out; those that are the user's own stay free."""
    document, free = read_sealed(place, node)
    kept = {k: v for k, v in document["attributes"].items() if k not in without}
    write_node(place, node, {**document, "attributes": {**kept, **attributes}}, free - attributes.keys())


def has_node(place: Place, node: str) -> bool:
    """Return whether there is a group or an array of that name."""
    return place.head(_file_of(node)) is not None


def nodes_below(place: Place, group: str) -> list[str]:
    """Return the names of the groups and arrays directly below a group, sorted; what is half made is hidden."""
    names = [name[:-1] for name in place.children(group) if name.endswith("/") and not name.startswith(".")]
    return [name for name in names if has_node(place, f"{group}/{name}")]


def ensure_groups(place: Place, *groups: str) -> None:
    """Write the documents of groups that have none."""
    for group in groups:
        if not has_node(place, group):
            write_node(place, group, group_document())


def write_small_array(
    place: Place,
    node: str,
    values: Array,
    dims: Sequence[str],
    attributes: Mapping[str, Any] | None = None,
    *,
    codec: str = "zstd",
) -> int:
    """Write an array as one checksummed chunk: zstd, text as Zarr's variable-length UTF-8; return its checksum.

    That stands in the array's document, too, which so holds this chunk and no other.
    """
    chunk = tuple(max(n, 1) for n in values.shape)
    document = column_document(values, chunk, dims, attributes, codec=codec)
    payload, crc = encode_chunk(values, codec) if values.size else (b"", b"")
    document["attributes"][cv.CHUNK_CRC] = int.from_bytes(crc, "little")
    write_node(place, node, document)
    if values.size:
        place.put(chunk_key(node, values.ndim), payload + crc)
    return int(document["attributes"][cv.CHUNK_CRC])


def column_document(
    values: Array,
    chunk: tuple[int, ...],
    dims: Sequence[str],
    attributes: Mapping[str, Any] | None = None,
    *,
    codec: str = "zstd",
) -> Document:
    """Return the document of an array of numbers or text, of values' shape, a file for each chunk (rows, ...)."""
    is_text = values.dtype.kind in "OTU"
    encoding = Encoding(dtype="uint8" if is_text else values.dtype.name, codec=codec, chunk=1, shard=0)
    document = array_document(values.shape, encoding, dims=tuple(dims), attributes=attributes)
    document["chunk_grid"]["configuration"]["chunk_shape"] = list(chunk)
    if is_text:
        document |= {"data_type": "string", "fill_value": ""}
        document["codecs"][0] = {"name": "vlen-utf8"}
    return document


def encode_chunk(values: Array, codec: str = "zstd") -> tuple[bytes, bytes]:
    """Return (payload, checksum) of a chunk of numbers or text."""
    raw: Any = np.ascontiguousarray(values)
    if values.dtype.kind in "OTU":
        raw = np.frombuffer(VLenUTF8().encode(values.astype(object)), np.uint8)
    payload, crc = get_codec(codec).encode(raw)
    return bytes(payload), crc


def read_small_array(place: Place, node: str, crc: int | None = None) -> tuple[Array, Document]:
    """Return the values of an array of one chunk, or of chunks of rows, of its shape and dtype, and its document.

    Raises `CorruptStoreError` where the chunk fails its checksum, or is not the one that its document was written
    with, or of another checksum than ``crc``; `MissingFileError` where it is not there.
    """
    document = read_node(place, node)
    with named(place, _file_of(node)):
        check_array(document, is_column=True)
        shape = tuple(document["shape"])
        values: Array = np.empty(shape if not math.prod(shape) else 0, _dtype_of(document))
        told = document["attributes"].pop(cv.CHUNK_CRC) if place.is_sealed else None
        if crc not in (None, told):
            raise ValueError("not a column that was written with its table")
    if cv.CRC_BEFORE_LAST in document["attributes"]:
        return _read_chunks(place, node, document, told), document
    if math.prod(shape):
        key = chunk_key(node, len(shape))
        with named(place, key):
            stored = file_bytes(place, key)
            if told not in (None, int.from_bytes(stored[-CRC_BYTES:], "little")):
                raise ValueError("not the chunk that was written with its document")
            values = decode_chunk(place, key, stored, document, shape)
    return values, document


def _read_chunks(place: Place, node: str, document: Mapping[str, Any], told: int | None) -> Array:
    """Return the values of a column in chunks of rows, whose checksums are those that it was written with."""
    shape, keys = tuple(document["shape"]), chunk_keys(node, document)
    rows = document["chunk_grid"]["configuration"]["chunk_shape"][0]
    stored = [file_bytes(place, key) for key in keys]
    with named(place, _file_of(node)):
        values: Array = np.empty((0, *shape[1:]), _dtype_of(document))
        check_decoded(math.prod(shape) * values.itemsize, sum(map(len, stored)))
        values = np.empty(shape, values.dtype)
    for at, (key, content) in enumerate(zip(keys, stored, strict=True)):
        part = values[at * rows : (at + 1) * rows]
        part[:] = decode_chunk(place, key, content, document, (rows, *shape[1:]))[: len(part)]
    with named(place, keys[0] if len(keys) == 1 else f"{node}/c"):
        if told not in (None, crc_of_crcs(content[-CRC_BYTES:] for content in stored)):
            raise ValueError("not the chunks that were written with its document")
    return values


def crc_of_crcs(crcs: Iterable[bytes], before: int = 0) -> int:
    """Return the CRC-32C over checksums of chunks, 4 bytes each, after those whose own is ``before``."""
    return int(crc32c(b"".join(crcs), before))


def decode_chunk(
    place: Place, key: str, stored: bytes, document: Mapping[str, Any], shape: tuple[int, ...]
) -> Array:
    """Return the values of a chunk of a column, of a shape, from its bytes, which were read at ``key``.

    Raises `CorruptStoreError` where it fails its checksum, or is of another size.
    """
    with named(place, key):
        try:
            codec = get_codec(codec_of_column(document))
            if document["data_type"] == "string":
                encoded = codec.decode(stored, ZSTD_RATIO * len(stored))
                check_texts(encoded, math.prod(shape))
                texts: Array = VLenUTF8().decode(encoded).reshape(shape)
                return texts
            dtype = _dtype_of(document)
            check_decoded(math.prod(shape) * dtype.itemsize, len(stored))
            values: Array = np.empty(shape, dtype)
            codec.decode_into(stored, values)
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{str(error).rstrip('.')} at {place}/{key}. {RESTORE}") from None
    return values


def codec_of_column(document: Mapping[str, Any]) -> str:
    """Return the name of the codec of a column, of coordinates or of counts, which its document tells."""
    names = [codec["name"] for codec in document["codecs"]]
    if names[-1] != "crc32c":
        return UNSHARDED_CODEC
    return "zstd" if "zstd" in names else "none"


def _dtype_of(document: Mapping[str, Any]) -> np.dtype[Any]:
    is_text = document["data_type"] == "string"
    return np.dtype(object if is_text else document["data_type"])


def chunk_key(node: str, dimensions: int, at: int = 0) -> str:
    """Return the key of a chunk of an array that is in chunks of rows: of the first, where there is no other."""
    return "/".join((node, "c", str(at), *["0"] * (dimensions - 1)))


def chunk_keys(node: str, document: Mapping[str, Any]) -> list[str]:
    """Return the keys of the chunks of an array of one chunk, or of chunks of rows; none of an empty one."""
    shape = document["shape"]
    if not math.prod(shape):
        return []
    rows = document["chunk_grid"]["configuration"]["chunk_shape"][0]
    return [chunk_key(node, len(shape), at) for at in range(-(-shape[0] // rows))]


def spatial_attributes(grid: Grid) -> Document:
    """Return the ``proj:`` and ``spatial:`` attributes of a scene's group, in CRS units; none where it has no CRS."""
    if grid.crs_wkt is None:
        return {}
    from rasterio.crs import CRS

    authority = CRS.from_wkt(grid.crs_wkt).to_authority()
    crs = {cv.PROJ_CODE: ":".join(authority)} if authority else {cv.PROJ_WKT2: grid.crs_wkt}
    return {
        **crs,
        cv.SPATIAL_DIMENSIONS: ["y", "x"],
        cv.SPATIAL_TRANSFORM: list(grid.transform),
        cv.SPATIAL_SHAPE: list(grid.shape),
        cv.SPATIAL_BBOX: list(grid.bbox),
    }


def stored_coordinates(grid: Grid, factor: int = 1) -> dict[str, xr.Variable]:
    """Return the `grid_coordinates` of a stored scene: without a CRS they are index + 0.5, whatever its affine.

    Of a level, whose pixels are ``factor`` of the scene's wide and high, they are then in pixels of the scene.
    """
    if grid.is_georeferenced:
        return grid_coordinates(grid)
    indices = grid_coordinates(Grid(height=grid.height, width=grid.width))
    return {name: variable.copy(data=factor * variable.values) for name, variable in indices.items()}


def write_coordinates(scene: Place, grid: Grid, codec: str = "none", factor: int = 1) -> None:
    """Write the `stored_coordinates` into a scene's group, float64 and, as attributes alone, ``spatial_ref``."""
    for name, variable in stored_coordinates(grid, factor).items():
        if variable.ndim:
            write_small_array(scene, name, variable.values, (name,), variable.attrs, codec=codec)
        else:
            scalar = Encoding(dtype="uint8", codec=codec, chunk=1, shard=0)
            write_node(scene, name, array_document((), scalar, dims=(), attributes=variable.attrs))
