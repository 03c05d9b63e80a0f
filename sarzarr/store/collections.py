"""Collections of chips: many small georeferenced rasters as a few arrays, one of each polarization and size.

``collections/<name>`` is a group whose attributes tell what the numbers of all its chips mean. Below it are the
table ``chips``, a row a chip; ``histograms``, one of each array of backscatter; and a group for each size of chip,
``512x512``, with arrays (chip, y, x): codes of the stored range as scenes have them, their flags, and layers. A chunk
is one chip, a shard many. A chip's row in its arrays never changes; later ones come behind it.
"""

import json
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, NotInStoreError
from sarzarr.grids.grid import Grid
from sarzarr.pixels.bounds import Histogram
from sarzarr.store.catalog import read_histogram
from sarzarr.store.chunks import ArrayLayout, manifest_of, read_layout
from sarzarr.store.codecs import get_codec
from sarzarr.store.documents import Encoding, array_document, named, nodes_below, read_node
from sarzarr.store.limits import MAX_CUT, check_within
from sarzarr.store.manifest import Manifest
from sarzarr.store.shards import read_chunks
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.store.tables import read_table

CHIPS: Final = "chips"
"""The table of a collection: a row a chip."""
SHARD_BYTES: Final = 1 << 27
"""Bytes of a shard of codes, about: a thousand chips of 512 x 512 pixels are four files of each array."""
MOST_IN_SHARD: Final = 4096
"""Chips of a shard at most."""
LONGEST: Final = 1024
"""Rows or columns of a chip, at most."""
NUMBERS: Final = ("part", "row", "crs", "facts", "time", "bytes", "modified", "layers")
"""Columns of `numbers`, which a ``valid_<array>`` of each array of backscatter follows."""
NO_TIME: Final = np.iinfo(np.int64).min
"""The time of a chip that nothing dates."""
STAMP: Final = ("bytes", "modified", "hash")
"""What columns ``bytes_mask``, ``modified_mask`` and ``hash_mask`` say of the file of a layer."""
ABSENT: Final = -1
"""Valid pixels of an array that a chip does not have; the CRS of one without."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The way in which the pixels of one array are written."""

    dtype: str
    """Stored dtype."""
    codec: str
    """A name in `sarzarr.store.codecs.CODECS`."""
    fill: float | int
    """The value of chunks that are left out: 0 of codes, NaN of floats, 255 of flags, of a layer its nodata."""

    @property
    def encoding(self) -> Encoding:
        """The same as an encoding; its chunks, which are no squares, stand in `ArrayLayout`."""
        return Encoding(dtype=self.dtype, codec=self.codec, shard=cv.CHUNK, nodata=self.fill)


@dataclass(frozen=True, kw_only=True)
class ChipArray:
    """An array of backscatter of a collection: one meaning for all its chips."""

    name: str
    """``vv``, ``vh``, ...: the array's name in each size's group; its flags are ``vv_flags``."""
    polarization: str | None
    """``VV``, ...; None where nothing says it."""
    quantity: str
    """`conventions.Quantity` of its power."""
    bounds_key: str
    """The group that it shares stored range and clip with: ``vv/sigma0``, a key of `Store.bounds`."""
    dtype: str = "uint16"
    """Stored dtype: ``uint16`` codes, ``float32`` or ``float16``."""
    codec: str = "none"
    """Codec of its chunks."""
    vmin: float = cv.DB_FLOOR
    """dB that a stored 0 stands for."""
    vmax: float = cv.DB_CEILING
    """dB that a stored 1 stands for."""

    @property
    def flags(self) -> str:
        """The name of its flags, uint8."""
        return self.name + cv.FLAGS_SUFFIX

    @property
    def stored(self) -> Stored:
        """The way in which its pixels are written."""
        fill = cv.NOT_MEASURED if self.dtype == "uint16" else math.nan
        return Stored(dtype=self.dtype, codec=self.codec, fill=fill)


@dataclass(frozen=True, kw_only=True)
class ChipLayer:
    """A raster beside the backscatter of each chip, kept as it is: a mask, an optical band."""

    name: str
    """The array's name in each size's group."""
    kind: str
    """``classes``, ``continuous`` or ``counts``."""
    dtype: str
    """NumPy dtype of its pixels, and of the file's."""
    nodata: float | int | None
    """The value of pixels without data, which a loss has to ignore (``ignore_index``); None: there is none."""
    fill: float | int | None
    """The value of the layer of a chip that has none, as column ``layers`` tells; None is NaN."""
    units: str = ""
    """The unit of its numbers; empty where nothing says it."""

    @property
    def stored(self) -> Stored:
        """The way in which its pixels are written."""
        fill = math.nan if self.fill is None else self.fill
        return Stored(dtype=self.dtype, codec=cv.BESIDE_CODEC, fill=fill)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The chips of one size, ``512x512``: a group of arrays (chip, y, x)."""

    height: int
    """Rows of a chip."""
    width: int
    """Columns of a chip."""
    per_shard: int
    """Chips of a shard."""
    count: int = 0
    """Chips."""

    @classmethod
    def of(cls, height: int, width: int, itemsize: int = 2) -> "Part":
        """Return the part of chips of so many rows and columns, which are stored in so many bytes a pixel."""
        per = SHARD_BYTES // (height * width * itemsize)
        return cls(height=height, width=width, per_shard=min(max(per, 1), MOST_IN_SHARD))

    @property
    def name(self) -> str:
        """The name of its group: rows and columns."""
        return f"{self.height}x{self.width}"

    @property
    def shards(self) -> int:
        """Files of an array."""
        return -(-self.count // self.per_shard)

    def document(self, stored: Stored, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ``zarr.json`` of an array (chip, y, x) of this size."""
        shape = (self.count, self.height, self.width)
        document = array_document(shape, stored.encoding, dims=("chip", "y", "x"), attributes=attributes)
        sizes = self.height, self.width
        document["chunk_grid"]["configuration"]["chunk_shape"] = [self.per_shard, *sizes]
        document["codecs"][0]["configuration"]["chunk_shape"] = [1, *sizes]
        return document


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that a collection's group says of its chips together; the attributes of the group are it."""

    arrays: tuple[ChipArray, ...]
    """Arrays of backscatter, ``vv`` first."""
    layers: tuple[ChipLayer, ...] = ()
    """Layers, in the order in which they came: bits of column ``layers``."""
    parts: tuple[Part, ...] = ()
    """Sizes of chips, in the order in which they came: column ``part`` counts them."""
    crs: tuple[str, ...] = ()
    """WKT2 of the CRSs, in the order in which they came: column ``crs`` counts them, -1 is none."""
    facts: tuple[Mapping[str, Any], ...] = ()
    """Distinct sets of facts of the acquisition and of the numbers in the files: column ``facts`` counts them."""
    stamps: tuple[str, ...] = ()
    """Names of layers as they were asked for, ``s2`` of ``s2_1`` and ``s2_2``, whose files have columns of their own:
    `STAMP`, -1 of a chip whose files of layers, if it has them, are counted among its own, as those of older rows."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else is known of all: the patterns of names, and how files were understood."""

    def to_attributes(self) -> dict[str, Any]:
        """Return the attributes of the group; `from_attributes` is the inverse."""
        attributes: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return attributes | {"kind": "chips"}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> "Contents":
        """Return what attributes say; `ValueError` and its like where they are none of a collection."""
        return cls(
            arrays=tuple(ChipArray(**one) for one in attributes["arrays"]),
            layers=tuple(ChipLayer(**one) for one in attributes["layers"]),
            parts=tuple(Part(**one) for one in attributes["parts"]),
            crs=tuple(map(str, attributes["crs"])),
            facts=tuple(dict(one) for one in attributes["facts"]),
            stamps=tuple(map(str, attributes.get("stamps", ()))),
            about=dict(attributes["about"]),
        )

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the columns of ``numbers`` in the table, int64."""
        stamps = (f"{what}_{name}" for name in self.stamps for what in STAMP)
        return (*NUMBERS, *(f"valid_{array.name}" for array in self.arrays), *stamps)

    def layers_among(self, names: Container[str]) -> int:
        """Return column ``layers`` of a chip that has the layers of some names: a bit each."""
        return sum(1 << at for at, layer in enumerate(self.layers) if layer.name in names)

    @property
    def stored(self) -> dict[str, Stored]:
        """Every array of a size's group, flags and layers too, and how it is written."""
        flags = Stored(dtype="uint8", codec=cv.BESIDE_CODEC, fill=cv.FLAGS_FILL)
        coded = {array.name: array.stored for array in self.arrays}
        return coded | {a.flags: flags for a in self.arrays} | {one.name: one.stored for one in self.layers}


@dataclass(frozen=True, eq=False)
class Collection:
    """A collection of chips: a store, and what its documents said when they were first asked for. Holds no handle."""

    store: Store
    """The store."""
    name: str
    """Its name."""

    @property
    def key(self) -> str:
        """The key of its group."""
        return f"{cv.COLLECTIONS}/{self.name}"

    @cached_property
    def contents(self) -> Contents:
        """All that its group says of its chips; `CorruptStoreError` where that is not what sarzarr writes."""
        attributes = read_node(self.store.place, self.key)["attributes"]
        with named(self.store.place, f"{self.key}/zarr.json"):
            contents = Contents.from_attributes(attributes)
            for part in contents.parts:
                sizes = part.height, part.width, part.per_shard, part.count
                if not all(type(n) is int and n > 0 for n in sizes) or max(sizes[:2]) > MAX_CUT:
                    raise ValueError(f"chips of {sizes}")
            return contents

    @cached_property
    def table(self) -> xr.Dataset:
        """One row a chip, in the order in which they came in.

        Columns over ``chip``: id, source (paths of its files below the folder that was ingested, one a line); part,
        row (in the arrays of that part), crs, facts (numbers into `Contents`); transform (chip, 6) float64; time,
        datetime64[ns], NaT where nothing dates it; height, width, pixels; layers (bits of `Contents.layers` that it
        has); ``valid_vv``, ... (pixels that were measured, -1 where it has no such array); bytes and modified, the
        stamp of its files; ``bytes_mask``, ``modified_mask`` and ``hash_mask``, ..., that of a layer's file, -1
        where it has none (`Contents.stamps`); ``sha`` and ``source_hash`` (chip, 32) uint8, SHA-256 of its
        chunks (`sarzarr.store.collection_files.chip_hashes`) and of its files.
        """
        place, key = self.store.place, f"{self.key}/{CHIPS}"
        table, contents = read_table(place, key), self.contents
        with named(place, f"{key}/zarr.json"):
            numbers, hashes = table["numbers"].values, table["hashes"].values
            count = table["id"].size
            if numbers.shape != (count, len(contents.numbers)) or hashes.shape != (count, 2, 32):
                raise ValueError(f"{numbers.shape} numbers of {count} chips")
            columns = dict(zip(contents.numbers, numbers.T, strict=True))
            check_within(columns["part"], 0, len(contents.parts) - 1, "part")
            check_within(columns["crs"], ABSENT, len(contents.crs) - 1, "crs")
            check_within(columns["facts"], 0, len(contents.facts) - 1, "facts")
            sizes = np.array([(p.height, p.width, p.count) for p in contents.parts], np.int64).reshape(-1, 3)
            height, width, most = sizes[columns["part"]].T
            if not ((columns["row"] >= 0) & (columns["row"] < most)).all():
                raise ValueError("rows beyond their arrays")
            if not np.isfinite(table["transform"].values).all():
                raise ValueError("a transform of numbers")
            time = columns.pop("time").view("M8[ns]")
            return xr.Dataset(
                {"id": table["id"], "source": table["source"], "transform": table["transform"]}
                | {name: ("chip", np.ascontiguousarray(column)) for name, column in columns.items()}
                | {"time": ("chip", time), "height": ("chip", height), "width": ("chip", width)}
                | {"sha": (("chip", "byte"), hashes[:, 0]), "source_hash": (("chip", "byte"), hashes[:, 1])}
            )

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the chips, in the order of the table."""
        return tuple(map(str, self.table["id"].values.tolist()))

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Row of the table of each chip, by its id."""
        return {name: number for number, name in enumerate(self.ids)}

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays of backscatter."""
        return tuple(array.name for array in self.contents.arrays)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(layer.name for layer in self.contents.layers)

    def array(self, name: str) -> ChipArray:
        """Return an array of backscatter; `NotInStoreError` where there is none of that name."""
        array: ChipArray = _named(self.contents.arrays, name, "array")
        return array

    def layer(self, name: str) -> ChipLayer:
        """Return a layer; `NotInStoreError` where there is none of that name."""
        layer: ChipLayer = _named(self.contents.layers, name, "layer")
        return layer

    def number(self, chip: int | str) -> int:
        """Return the row in the table of a chip by its id, or by that number; `NotInStoreError` without one."""
        known = self.numbers.get(chip) if isinstance(chip, str) else chip
        if known is None or not 0 <= known < len(self):
            raise NotInStoreError(
                f"a chip of {self.name!r} was expected, by its id, such as {self.ids[0]!r}, or a number from 0 to "
                f"{len(self) - 1}, got {chip!r:.200}. `open_collection(store, name).ids` lists them."
            )
        return known

    def grid(self, chip: int | str) -> Grid:
        """Return CRS, transform and (rows, columns) of a chip."""
        row = self.number(chip)
        crs = int(self.table["crs"].values[row])
        a, b, c, d, e, f = map(float, self.table["transform"].values[row])
        return Grid(
            height=int(self.table["height"].values[row]),
            width=int(self.table["width"].values[row]),
            transform=(a, b, c, d, e, f),
            crs_wkt=None if crs == ABSENT else self.contents.crs[crs],
        )

    def layout(self, part: int, array: str) -> ArrayLayout:
        """Return the cut of an array, of its flags or of a layer, (chip, y, x), of the part of that number."""
        size = self.contents.parts[part]
        key = f"{self.key}/{size.name}/{array}"
        layout = read_layout(self.store.place, key)
        expected = (size.count, size.height, size.width), (1, size.height, size.width)
        if (layout.shape, layout.chunk) != expected or (layout.shard or (0,))[0] != size.per_shard:
            raise CorruptStoreError(
                f"chips of {expected[0]} were expected in {self.store.place}/{key}, got {layout.shape} in chunks of "
                f"{layout.chunk}."
            )
        return layout

    def stored(self, chip: int | str, array: str) -> Array:
        """Return the pixels of a chip as they are stored: codes, flags, or those of a layer (rows, columns).

        What the chip does not have is the array's fill value.

        Raises `CorruptStoreError` where its chunk is absent, fails its checksum or is not the one that belongs there.
        """
        row = self.number(chip)
        part = int(self.table["part"].values[row])
        layout, manifest = self._manifest(part, array)
        shard, at = divmod(int(self.table["row"].values[row]), self.contents.parts[part].per_shard)
        out = np.full(layout.chunk[1:], layout.fill, layout.dtype)
        grid, codec = ((layout.shard or layout.chunk)[0], 1), get_codec(layout.codec or "none")
        entries, key = manifest.chunks[shard], f"{layout.path}/c/{shard}/0/0"
        for _, _, pixels in read_chunks(self.store.place, key, grid, codec, out, {(at, 0)}, entries):
            out[...] = pixels
        return out

    def histogram(self, array: str) -> Histogram:
        """Return the dB histogram of all chips of an array of backscatter."""
        return read_histogram(self.store.place, f"{self.key}/{cv.HISTOGRAMS}/{array}")

    def manifest(self, part: int, array: str) -> Manifest:
        """Return the files and chunks of an array, its flags or a layer, of the part of that number."""
        return self._manifest(part, array)[1]

    def _manifest(self, part: int, array: str) -> tuple[ArrayLayout, Manifest]:
        known = self._manifests
        if (part, array) not in known:
            layout = self.layout(part, array)
            known[part, array] = layout, manifest_of(self.store.place, layout)
        return known[part, array]

    @cached_property
    def _manifests(self) -> dict[tuple[int, str], tuple[ArrayLayout, Manifest]]:
        return {}

    def __len__(self) -> int:
        return int(self.table.sizes["chip"])

    def __repr__(self) -> str:
        sizes = ", ".join(part.name for part in self.contents.parts)
        return f"<sarzarr.Collection {self.name!r}: {len(self)} chips of {sizes}, {'+'.join(self.arrays)}>"


def _named(among: Sequence[Any], name: str, what: str) -> Any:
    found = next((one for one in among if one.name == name), None)
    if found is None:
        known = ", ".join(one.name for one in among) or "none"
        raise NotInStoreError(f"{what} must be one of {known}, got {name!r:.100}.")
    return found


def open_collection(store: AnyStore, name: str) -> Collection:
    """Return a collection of chips of a store, or of the store at a path.

    Raises `StoreNotFoundError` where there is no store at that path; `NotInStoreError` where there is no collection
    of that name.
    """
    opened = open_store(store)
    known = collection_names(opened)
    if name not in known:
        raise NotInStoreError(f"a collection among {', '.join(known) or 'none'} was expected, got {name!r}.")
    return Collection(opened, name)


def collection_names(store: Store) -> tuple[str, ...]:
    """Return the names of a store's collections of chips, sorted."""
    return tuple(nodes_below(store.place, cv.COLLECTIONS))


def chip_table(
    ids: Sequence[str], sources: Sequence[str], transform: Array, numbers: Array, hashes: Array
) -> xr.Dataset:
    """Return rows of chips as the table stores them: few columns, since each is two files.

    ``transform`` is (chip, 6) float64, ``numbers`` (chip, k) int64 with the columns of `Contents.numbers`, ``hashes``
    (chip, 2, 32) uint8: SHA-256 of stored pixels, and of files.
    """
    text = {name: ("chip", np.array(some, object)) for name, some in (("id", ids), ("source", sources))}
    return xr.Dataset(
        {
            **text,
            "transform": (("chip", "affine"), transform),
            "numbers": (("chip", "number"), numbers),
            "hashes": (("chip", "hash", "byte"), hashes),
        }
    )
