"""Sample sets: pictures that came alone, packed into ``samples/<name>``, and how they are read back.

A set is one array (sample, y, x), as large as the largest picture, in chunks of one sample and at most 256 x 256
pixels of it, whole shards of many; what is only padding is not stored. Columns beside it say what each sample is.
Padding, and what was not measured, is the array's fill, which no other pixel has.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import NotInStoreError
from sarzarr.pixels.rotated import corners_of_boxes
from sarzarr.store.boxes import Boxes, read_boxes, stored_rotated
from sarzarr.store.chunks import described_layout
from sarzarr.store.codecs import DEFAULT_CODECS, get_codec
from sarzarr.store.documents import Encoding, array_document, fill_of, named, nodes_below, read_node
from sarzarr.store.free_values import extreme, free_value
from sarzarr.store.limits import MAX_CUT, check_array, check_within
from sarzarr.store.manifest import Manifest, read_manifest
from sarzarr.store.shards import is_as_listed, read_chunks
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.store.tables import read_table

IMAGE: Final = "image"
"""The array of a set's pictures; its flags are beside it."""
SHARD_BYTES: Final = 1 << 25
"""Bytes of a shard's pixels, about."""
MOST_IN_SHARD: Final = 512
"""Samples of a shard at most."""
WHITE: Final = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""The value of pictures, by their dtype, that is delivered as 1."""


@dataclass(frozen=True, kw_only=True)
class SampleLayout:
    """The cut of a set's pixels into chunks and shards."""

    count: int
    """Samples."""
    height: int
    """Rows of the array: the largest picture's, or more in sets that older releases packed."""
    width: int
    """Columns, likewise."""
    chunk: tuple[int, int]
    """Rows and columns of a chunk."""
    dtype: str
    """Of the pictures, as in their files."""
    stored: str
    """Stored dtype: the same, or a wider one where no value of it was free."""
    fill: float | int
    """The stored value of padding and of pixels that were not measured."""
    per_shard: int
    """Samples of a shard."""
    codec: str | None = None
    """Codec of the pictures; the stored dtype's own if None."""

    @classmethod
    def of(
        cls, *, count: int, height: int, width: int, dtype: str, free: tuple[str, int] | None = None
    ) -> "SampleLayout":
        """Return the layout of pictures that are at most ``height`` by ``width`` pixels.

        ``free`` is the stored dtype and fill; if left out, the pictures' own and its extreme.
        """
        stored, fill = free or (dtype, extreme(dtype))
        chunk = min(height, cv.CHUNK), min(width, cv.CHUNK)
        pixels = math.prod(math.ceil(n / c) * c for n, c in zip((height, width), chunk, strict=True))
        per = min(max(SHARD_BYTES // (pixels * np.dtype(stored).itemsize), 1), MOST_IN_SHARD)
        size: dict[str, Any] = {"count": count, "height": height, "width": width, "chunk": chunk}
        return cls(**size, dtype=dtype, stored=stored, fill=fill, per_shard=per)

    def filled(self, taken: Array) -> "SampleLayout":
        """Return the layout whose fill none of ``taken`` (n,) is, what `free_value` takes; floats have NaN anyway."""
        if self.dtype == "float32":
            return self
        size = {"count": self.count, "height": self.height, "width": self.width}
        return SampleLayout.of(**size, dtype=self.dtype, free=free_value(self.dtype, taken))

    @property
    def shards(self) -> int:
        """Files of the array."""
        return math.ceil(self.count / self.per_shard)

    @property
    def chunks(self) -> tuple[int, int]:
        """Chunks of one sample, (rows, columns)."""
        return math.ceil(self.height / self.chunk[0]), math.ceil(self.width / self.chunk[1])

    @property
    def grid(self) -> tuple[int, int]:
        """Chunks of a shard, (samples, chunks) with those of a sample in one row."""
        return self.per_shard, math.prod(self.chunks)

    @property
    def encoding(self) -> Encoding:
        """The encoding of the pictures: dtype, codec and fill; `chunk` has their chunks, which need not be square."""
        usual = DEFAULT_CODECS[self.dtype] if self.stored == self.dtype else DEFAULT_CODECS["uint8"]
        codec = self.codec or usual
        return Encoding(dtype=self.stored, codec=codec, shard=cv.CHUNK, nodata=self.fill)

    def document(self, *, flags: bool = False, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the ``zarr.json`` of the pictures, (samples, rows, columns), or of their flags, uint8.

        ``about`` are more attributes of the pictures.
        """
        encoding = self.encoding.of_flags if flags else self.encoding
        if flags:
            attributes: dict[str, Any] = {
                cv.LONG_NAME: "validity of image",
                cv.FLAG_VALUES: [int(f) for f in cv.Flag],
                cv.FLAG_MEANINGS: " ".join(f.name.lower() for f in cv.Flag),
            }
        else:
            attributes = {cv.LONG_NAME: "pictures, padded", cv.UNITS: "1", **(about or {})}
            attributes |= {cv.ANCILLARY: IMAGE + cv.FLAGS_SUFFIX, cv.SOURCE_DTYPE: self.dtype}
            if self.dtype != "float32":
                attributes[cv.NODATA] = self.fill
        shape = (self.count, self.height, self.width)
        document = array_document(shape, encoding, dims=("sample", "y", "x"), attributes=attributes)
        whole = [self.per_shard, *(n * c for n, c in zip(self.chunks, self.chunk, strict=True))]
        document["chunk_grid"]["configuration"]["chunk_shape"] = whole
        document["codecs"][0]["configuration"]["chunk_shape"] = [1, *self.chunk]
        return document


@dataclass(frozen=True, eq=False)
class SampleSet:
    """A set of samples: a store, and what the set's columns say. Holds no handle."""

    store: Store
    """The store."""
    name: str
    """The set's name."""

    @cached_property
    def table(self) -> xr.Dataset:
        """One row per sample: id, source, height and width in pixels, and what else the set's format knows."""
        return read_table(self.store.place, self.key)

    @property
    def key(self) -> str:
        """The key of the set's group."""
        return f"{cv.SAMPLES}/{self.name}"

    @property
    def folder(self) -> Path:
        """The set's group, of a store in a folder."""
        return self.store.root / self.key

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the samples, in the order in which they are stored."""
        return tuple(map(str, self.table["id"].values.tolist()))

    @cached_property
    def layout(self) -> SampleLayout:
        """The cut of its pixels into chunks and shards."""
        place, node = self.store.place, f"{self.key}/{IMAGE}"
        document = read_node(place, node)
        with named(place, f"{node}/zarr.json"):
            check_array(document)
            count, height, width = document["shape"]
            check_within(self.table["height"].values, 1, height, "height")
            check_within(self.table["width"].values, 1, width, "width")
            if max(height, width) > MAX_CUT or len(self.ids) != count:
                raise ValueError(f"{len(self.ids)} ids of {count} pictures of {height} x {width} pixels")
            cut = described_layout(node, document)
            if cut.chunk[0] != 1:
                raise ValueError(f"chunks of {cut.chunk[0]} pictures")
            return SampleLayout(
                count=count,
                height=height,
                width=width,
                dtype=document["attributes"].get(cv.SOURCE_DTYPE, document["data_type"]),
                stored=document["data_type"],
                fill=fill_of(document) or 0,
                chunk=cut.chunk_pixels[1:],
                per_shard=cut.file_pixels[0],
                codec=cut.codec,
            )

    @cached_property
    def largest(self) -> tuple[int, int]:
        """Rows and columns that every picture is within: those of the tallest, and of the widest."""
        height, width = (int(self.table[k].values.max()) for k in ("height", "width"))
        return height, width

    @cached_property
    def boxes(self) -> Boxes:
        """The boxes on its samples, a table without rows where none were given; `MissingFileError` without one."""
        return read_boxes(self.store, self.name, always=True)

    def __len__(self) -> int:
        return self.layout.count

    def image(self, sample: int) -> Array:
        """Return the pixels of a sample (rows, columns), without padding, of the dtype and values of its file.

        Pixels that were not measured are 0, of floats NaN.

        Raises `IndexError` where there is no sample of that number; they are 0 to n - 1; `CorruptStoreError` where
        a chunk is absent or fails its checksum.
        """
        self._check(sample)
        layout, fill = self.layout, self.layout.encoding.fill
        height, width = (int(self.table[k].values[sample]) for k in ("height", "width"))
        (rows, cols), (down, across) = layout.chunk, layout.chunks
        out = np.full((down * rows, across * cols), fill)
        shard, at = divmod(sample, layout.per_shard)
        key, wanted = f"{self.key}/{IMAGE}/c/{shard}/0/0", {(at, c) for c in range(layout.grid[1])}
        like, codec = np.zeros(layout.chunk, layout.stored), get_codec(layout.encoding.codec)
        place = self.store.place
        entries = self._manifest.chunks[shard] if place.is_sealed else None
        if entries is not None or place.head(key) is not None:
            for _, chunk, tile in read_chunks(place, key, layout.grid, codec, like, wanted, entries):
                top, left = chunk // across * rows, chunk % across * cols
                out[top : top + rows, left : left + cols] = tile
        out[out == fill] = 0
        return out[:height, :width].astype(layout.dtype, copy=False)

    def target(self, sample: int, *, rotated: bool = False) -> tuple[Array, Array]:
        """Return (boxes (n, 4) float32, labels (n,) int64) of a sample; `IndexError` where there is none.

        ``rotated`` they are (n, 5) ``cx, cy, w, h, angle`` in pixels and radians: see `sarzarr.pixels.rotated`.
        """
        self._check(sample)
        rows = self.boxes.rows_of(sample)
        boxes = self.boxes.boxes[rows].copy()
        if rotated:
            boxes = stored_rotated(
                corners_of_boxes(boxes) if self.boxes.corners is None else self.boxes.corners[rows]
            )
        return boxes, self.boxes.label[rows].astype(np.int64)

    def _check(self, sample: int) -> None:
        if not 0 <= sample < len(self):
            raise IndexError(
                f"a sample from 0 to {len(self) - 1} of {self.name!r} was expected, got {sample}. "
                "The number of an id is ids.index(id)."
            )

    @cached_property
    def _manifest(self) -> Manifest:
        return read_manifest(self.store.place, f"{self.key}/{IMAGE}")

    def verify(self) -> list[str]:
        """Return what is wrong with the set's files, a line each; none where every shard is as listed."""
        wrong = []
        for array in (IMAGE, IMAGE + cv.FLAGS_SUFFIX):
            for file, record in read_manifest(self.store.place, f"{self.key}/{array}").records.items():
                if not is_as_listed(self.store.place, f"{self.key}/{array}/{file}", self.layout.grid, record):
                    wrong.append(f"{array}/{file}: absent, short or another")
        return wrong

    def __repr__(self) -> str:
        return f"<sarzarr.SampleSet {self.name!r}: {len(self)} samples, {len(self.boxes)} boxes>"


def open_samples(store: AnyStore, name: str) -> SampleSet:
    """Return a set of samples of a store, or of the store at a path.

    Raises `StoreNotFoundError` where there is no store at that path; `NotInStoreError` where there is no set of
    that name.
    """
    store = open_store(store)
    known = sample_sets(store)
    if name not in known:
        raise NotInStoreError(
            f"a set of samples among {', '.join(known) or 'none'} was expected, got {name!r}."
        )
    return SampleSet(store, name)


def sample_sets(store: Store) -> tuple[str, ...]:
    """Return the names of a store's sets of samples."""
    return tuple(nodes_below(store.place, cv.SAMPLES))
