"""Chunk addresses: where each chunk of each array lies, in one table that is read once.

The table holds a file number, an offset, a size and the last bytes of each chunk, 20 bytes, and nothing that is open:
it pickles, is shared by fork, and opens a store of a million chunks without opening its groups. It is made of
manifests alone, each read when a chunk of its array is first asked for. What it cannot address (another codec,
another index) is marked, and read through zarr-python.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Final, Self

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, InvalidInputError, MissingFileError, StoreChangedError
from sarzarr.store.codecs import CODECS
from sarzarr.store.documents import Encoding, fill_of, named, read_node
from sarzarr.store.limits import DTYPES, check_array, check_cut
from sarzarr.store.manifest import CHUNK, REMEDY, Manifest, changed, read_manifest, was_changed
from sarzarr.store.place import Place
from sarzarr.store.shards import record_of
from sarzarr.store.tables import read_table

log = logging.getLogger(__name__)
ENTRY: Final = np.dtype([("file", "<u4"), ("size", "<u4"), ("offset", "<u8"), ("crc", "<u4")])
"""One chunk: which file, how many bytes (0: the chunk is all fill value), where they begin, and the last four."""
ELSEWHERE: Final = np.uint32(2**32 - 1)
"""Size of a chunk that only zarr-python knows how to read."""
AT_ONCE: Final = 64
"""Arrays of an `expected_chunk_table` whose manifests are read, and files looked for, when it is made."""


@dataclass(frozen=True, kw_only=True)
class ArrayLayout:
    """The cut of one array into chunks and files. Two dimensions, or three with planes first."""

    path: str
    """The array's directory, relative to the root of the store, with forward slashes."""
    shape: tuple[int, ...]
    """Pixels, ``(rows, columns)`` or ``(planes, rows, columns)``."""
    dtype: str
    """Stored dtype, little-endian."""
    chunk: tuple[int, ...]
    """Pixels of a chunk, as many numbers as ``shape``."""
    shard: tuple[int, ...] | None = None
    """Pixels of a shard; None where each chunk is a file."""
    codec: str | None = "none"
    """A name in `sarzarr.store.codecs.CODECS`; None where only zarr-python can read the array."""
    fill: float | int = 0
    """The value of chunks that are left out, and of what lies beyond the edge."""

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3) or len(self.chunk) != len(self.shape):
            raise InvalidInputError(
                f"an array of two or three dimensions was expected, got {self.path!r} of shape {self.shape}."
            )
        itemsize = np.dtype(self.dtype).itemsize
        check_cut(self.shape, self.chunk, self.shard or self.chunk, itemsize=itemsize)

    @classmethod
    def of(cls, path: str, shape: tuple[int, int], encoding: Encoding) -> "ArrayLayout":
        """Return the layout of an array (rows, columns) of an encoding."""
        chunk, shard = encoding.chunk, encoding.shard
        cut: dict[str, Any] = {"chunk": (chunk, chunk), "shard": (shard, shard) if shard else None}
        cut |= {"dtype": encoding.dtype, "codec": encoding.codec, "fill": encoding.fill.item()}
        return cls(path=path, shape=shape, **cut)

    def at(self, path: str) -> "ArrayLayout":
        """Return the layout of another array of the same cut, which needs no check of its own."""
        other = object.__new__(ArrayLayout)
        vars(other).update(vars(self), path=path)
        return other

    @property
    def encoding(self) -> Encoding:
        """The encoding of an array (rows, columns) whose codec is known; chunks and shards are square."""
        shard = self.shard[0] if self.shard else 0
        codec = self.codec or cv.BESIDE_CODEC
        return Encoding(dtype=self.dtype, codec=codec, chunk=self.chunk[0], shard=shard, nodata=self.fill)

    @property
    def pixels(self) -> tuple[int, int, int]:
        """Shape, (planes, rows, columns)."""
        return _three(self.shape)

    @property
    def chunk_pixels(self) -> tuple[int, int, int]:
        """Shape of a chunk, (planes, rows, columns)."""
        return _three(self.chunk)

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Chunks along (planes, rows, columns)."""
        return _ceil(self.pixels, self.chunk_pixels)

    @property
    def files(self) -> tuple[int, int, int]:
        """Files along (planes, rows, columns)."""
        return _ceil(self.pixels, self.file_pixels)

    @property
    def file_pixels(self) -> tuple[int, int, int]:
        """Pixels of one file, (planes, rows, columns)."""
        return _three(self.shard or self.chunk)

    def keys(self) -> list[str]:
        """Return the keys of the files in C order: ``c/0/0``, ``c/0/1``, ..."""
        return ["/".join(("c", *key)) for key in product(*map(_numbered, self.files[3 - len(self.shape) :]))]


def _numbered(count: int) -> list[str]:
    return [str(i) for i in range(count)]


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    planes, rows, columns = (1,) * (3 - len(values)) + tuple(values)
    return planes, rows, columns


def _ceil(whole: tuple[int, int, int], part: tuple[int, int, int]) -> tuple[int, int, int]:
    a, b, c = (-(-w // p) for w, p in zip(whole, part, strict=True))
    return a, b, c


def read_layout(place: Place, path: str) -> ArrayLayout:
    """Return the layout of an array from its ``zarr.json``; codec None means that zarr-python must read it."""
    document = read_node(place, path)
    with named(place, f"{path}/zarr.json"):
        return described_layout(path, document)


def described_layout(path: str, document: Mapping[str, Any]) -> ArrayLayout:
    """Return the layout that a Zarr v3 array document describes; `ValueError` where it is none within limits."""
    check_array(document)
    shape = tuple(document["shape"])
    outer = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
    codecs = document["codecs"]
    inner, shard = outer, None
    is_known = document["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
    fill = fill_of(document)
    is_known &= document["chunk_grid"]["name"] == "regular" and fill is not None
    is_known &= not document.get("storage_transformers")
    if codecs[0]["name"] == "sharding_indexed":
        sharding = codecs[0]["configuration"]
        inner, shard = tuple(sharding["chunk_shape"]), outer
        is_known &= len(codecs) == 1 and sharding.get("index_location", "end") == "end"
        is_known &= [c["name"] for c in sharding["index_codecs"]] == ["bytes", "crc32c"]
        is_known &= _is_little(sharding["index_codecs"][0])
        codecs = sharding["codecs"]
    dtype = document["data_type"]
    is_known &= dtype in DTYPES
    return ArrayLayout(
        path=path,
        shape=shape,
        dtype=dtype,
        chunk=inner,
        shard=shard,
        codec=_codec_of(codecs, dtype) if is_known else None,
        fill=fill or 0,
    )


def _is_little(codec: Mapping[str, Any]) -> bool:
    return bool(codec.get("configuration", {}).get("endian", "little") == "little")


def _codec_of(documents: Sequence[Mapping[str, Any]], dtype: str) -> str | None:
    """Return the codec whose chunks these codecs write: blosc and zstd say their own parameters."""
    names = [d["name"] for d in documents]
    if not documents or not _is_little(documents[0]):
        return None
    ours = {codec.name: codec.documents(np.dtype(dtype)) for codec in CODECS.values()}
    fit = [name for name, chain in ours.items() if [d["name"] for d in chain] == names]
    if documents[-1].get("configuration", {}).get("checksum") is not True:
        fit = [name for name in fit if not CODECS[name].checks_itself]
    return min(fit, key=lambda name: ours[name] != documents, default=None)  # the very parameters first


@dataclass(frozen=True, eq=False)
class ChunkTable:
    """Every chunk of every array that may be read, in C order of each array's chunks."""

    places: tuple[Place, ...]
    """The store of each array."""
    layouts: tuple[ArrayLayout, ...]
    """The arrays, by number."""
    entries: Array
    """`ENTRY` a chunk, all arrays one behind another; zeros of an array that is not read yet: see `of`."""
    crcs: tuple[int | None, ...] = ()
    """The checksum of each array's manifest, from which its entries are; None of arrays of other programs."""
    unread: Array = field(default_factory=lambda: np.zeros(0, np.bool_))
    """(arrays,) bool: those whose manifest is not read yet; (0,) where all are."""
    remedy: str = ""
    """What to do where an array that is read later is not of its checksum."""
    first_chunk: Array = field(init=False)
    """(arrays + 1,) int64: where each array's entries begin."""
    first_file: Array = field(init=False)
    """(arrays + 1,) int64: the number of each array's first file."""
    grid: Array = field(init=False)
    """(arrays, 3) int64: chunks along each dimension."""
    chunk: Array = field(init=False)
    """(arrays, 3) int64: pixels of a chunk."""
    shape: Array = field(init=False)
    """(arrays, 3) int64: pixels of an array."""
    file: Array = field(init=False)
    """(arrays, 3) int64: pixels of a file."""

    def __post_init__(self) -> None:
        numbers: dict[Any, int] = {}
        cuts = ((x.shape, x.chunk, x.shard) for x in self.layouts)
        cut = np.array([numbers.setdefault(some, len(numbers)) for some in cuts], np.int64)
        unlike = [self.layouts[i] for i in np.unique(cut, return_index=True)[1].tolist()]

        def each(attribute: str) -> Array:
            rows = np.array([getattr(layout, attribute) for layout in unlike], np.int64)
            return rows.reshape(-1, 3)[cut]

        for name, attribute in (("first_chunk", "chunks"), ("first_file", "files")):
            counts = each(attribute).prod(axis=1)
            object.__setattr__(self, name, np.concatenate(([0], np.cumsum(counts, dtype=np.int64))))
        for name, attribute in (
            ("grid", "chunks"),
            ("chunk", "chunk_pixels"),
            ("shape", "pixels"),
            ("file", "file_pixels"),
        ):
            object.__setattr__(self, name, each(attribute))

    @classmethod
    def joined(cls, tables: Sequence[Self]) -> Self:
        """Return the table of all arrays, of one or of several stores, one table's behind another's."""
        if len(tables) == 1:
            return tables[0]
        files, entries, unread = 0, [], []
        for table in tables:
            entries.append(table.entries.copy())
            entries[-1]["file"] += files
            files += int(table.first_file[-1])
            unread.append(table.unread if table.unread.size else np.zeros(len(table.layouts), np.bool_))
        places, layouts, crcs = (
            tuple(one for table in tables for one in getattr(table, name))
            for name in ("places", "layouts", "crcs")
        )
        remedy = next((table.remedy for table in tables if table.remedy), "")
        return cls(places, layouts, np.concatenate(entries), crcs, np.concatenate(unread), remedy)

    def of(self, chunks: Array) -> Array:
        """Return the entries (k,) of some chunks; manifests of arrays that no chunk was asked of before are read.

        Threads may ask at once: what both read is the same.

        Raises `CorruptStoreError` as `read_chunk_table`, and `StoreChangedError` where a manifest is not of the
        checksum that was expected.
        """
        if self.unread.any():
            arrays = np.unique(np.searchsorted(self.first_chunk, chunks, "right") - 1)
            self.read(arrays[self.unread[arrays]])
        return self.entries[chunks]

    def read(self, arrays: Array) -> None:
        """Read the manifests of arrays (k,) by number, and look for their files; errors are those of `of`."""
        for array in arrays.tolist():
            place, layout, expected = self.places[array], self.layouts[array], self.crcs[array]
            try:
                entries, crc = _array_entries(place, layout, int(self.first_file[array]))
            except MissingFileError:
                if (
                    layout.path.split("/")[1]
                    in read_table(place, cv.CATALOG, columns=("scene",))["scene"].values
                ):
                    raise
                raise was_changed(place, layout.path) from None
            if crc != expected:
                raise StoreChangedError(f"{was_changed(place, layout.path)} {self.remedy}".rstrip())
            self.entries[slice(*self.first_chunk[array : array + 2])] = entries
            self.unread[array] = False  # last: another thread takes the entries for whole

    def files_at(self, array: Array, row: Array, col: Array) -> Array:
        """Return (n,) int64: the number of the file that holds a pixel (row, col) of the first plane of an array."""
        across = -(-self.shape[array, 2] // self.file[array, 2])
        down, right = row // self.file[array, 1], col // self.file[array, 2]
        return np.asarray(self.first_file[array] + down * across + right)

    def at(self, file: int) -> tuple[Place, str]:
        """Return the store and the key of a file by its number."""
        array = int(np.searchsorted(self.first_file, file, "right")) - 1
        layout = self.layouts[array]
        at = np.unravel_index(file - int(self.first_file[array]), layout.files)[3 - len(layout.shape) :]
        return self.places[array], "/".join((layout.path, "c", *map(str, map(int, at))))

    def locate(self, chunk: int) -> tuple[int, tuple[int, int, int]]:
        """Return the number of the array of a chunk, and (plane, row, col) of its first pixel."""
        array = int(np.searchsorted(self.first_chunk, chunk, "right")) - 1
        at = np.unravel_index(chunk - int(self.first_chunk[array]), tuple(self.grid[array]))
        plane, row, col = (int(i) * int(size) for i, size in zip(at, self.chunk[array], strict=True))
        return array, (plane, row, col)

    def describe(self, chunk: int) -> str:
        """Return where a chunk belongs, for an error: scene, array, row, col and file."""
        number, (plane, row, col) = self.locate(chunk)
        layout = self.layouts[number]
        *_, scene, array = ("", *layout.path.split("/"))
        owner = f"scene {scene!r}, array {array!r}"
        if layout.path.startswith(f"{cv.SAMPLES}/"):
            owner = f"sample {plane} of {array!r}"
        elif layout.path.startswith(f"{cv.COLLECTIONS}/"):
            owner = f"chip {plane} of {layout.path.partition('/')[2]!r}"
        place, file = self.at(int(self.entries["file"][chunk]))
        return f"{owner}, row {row}, col {col} (file {place}/{file})"

    def damage(self, what: str, chunk: int) -> CorruptStoreError | StoreChangedError:
        """Return the error of a chunk that is not as the table has it; another where the store has changed since."""
        array, _ = self.locate(chunk)
        crc = self.crcs[array] if self.crcs else None
        damage = CorruptStoreError(f"{what}: {self.describe(chunk)}. {REMEDY}")
        return damage if crc is None else changed(self.places[array], self.layouts[array].path, crc) or damage


def read_chunk_table(place: Place, layouts: Iterable[ArrayLayout]) -> ChunkTable:
    """Read the manifests of arrays: 20 bytes per chunk that say where it lies, and in which bytes it ends.

    A file that the manifest lists with size 0 is empty on purpose. In a place without seals an array may lack a
    manifest, as one of another program does: its own indices are read, and what is not there is fill value.

    Raises `CorruptStoreError` where a manifest is absent, damaged or another's, or a listed file is absent or of
    another length.
    """
    layouts = tuple(layouts)
    first_file, parts, crcs = 0, list[Array](), list[int | None]()
    for layout in layouts:
        entries, crc = _array_entries(place, layout, first_file)
        parts.append(entries)
        crcs.append(crc)
        first_file += math.prod(layout.files)
    entries = np.concatenate(parts) if parts else np.empty(0, ENTRY)
    slow = [layout.path for layout in layouts if layout.codec is None]
    if slow:
        others = f" and {len(slow) - 1} more" if slow[1:] else ""
        log.warning("%r%s: written in another way, so read through zarr-python, slowly", slow[0], others)
    return ChunkTable((place,) * len(layouts), layouts, entries, tuple(crcs))


def expected_chunk_table(
    place: Place, layouts: Iterable[ArrayLayout], crcs: Sequence[int], *, remedy: str = ""
) -> ChunkTable:
    """Return the table of arrays whose manifests are to be of some checksums; most are read when they are asked for.

    Of `AT_ONCE` arrays, spread over all, they are read now: so damage of a copy that was cut short is found before
    training begins, of a store of few scenes wherever it is, and opening takes no longer for more scenes.

    Raises `CorruptStoreError` as `read_chunk_table`; `StoreChangedError`, which ends in ``remedy``, where a manifest
    is of another checksum.
    """
    layouts = tuple(layouts)
    counts = ChunkTable((place,) * len(layouts), layouts, np.empty(0, ENTRY))
    entries, unread = np.zeros(int(counts.first_chunk[-1]), ENTRY), np.ones(len(layouts), np.bool_)
    table = replace(counts, entries=entries, crcs=tuple(crcs), unread=unread, remedy=remedy)
    table.read(looked_into(len(layouts)))
    return table


def looked_into(count: int) -> Array:
    """Return (k,) int64, ascending: which of so many arrays or scenes are looked into at once, `AT_ONCE` at most."""
    return np.unique(np.linspace(0, count - 1, min(AT_ONCE, count)).astype(np.int64))


def _array_entries(place: Place, layout: ArrayLayout, first_file: int) -> tuple[Array, int | None]:
    """Return the entries of an array's chunks in C order, and the checksum of its manifest."""
    entries = np.zeros(layout.chunks, ENTRY)
    if layout.codec is None and place.is_sealed:
        raise CorruptStoreError(
            f"a codec of {', '.join(CODECS)} was expected in {place}/{layout.path}/zarr.json, got another. {REMEDY}"
        )
    if layout.codec is None:
        entries["size"] = ELSEWHERE
        return entries.reshape(-1), None
    files, within = layout.files, _ceil(layout.file_pixels, layout.chunk_pixels)
    if place.is_sealed:
        manifest = manifest_of(place, layout)
        check_files(place, manifest)
        chunks, crc = manifest.chunks, manifest.crc
    else:
        chunks, crc = _told_by_files(place, layout), None
    table = np.zeros(chunks.shape, ENTRY)
    for name in ("offset", "size", "crc"):
        table[name] = chunks[name]
    table["file"] = (first_file + np.arange(len(chunks)))[:, None]
    # (shard z, y, x, chunk z, y, x) -> (z, y, x), and off with the chunks beyond the array's edge
    ordered = table.reshape(*files, *within).transpose(0, 3, 1, 4, 2, 5)
    ordered = ordered.reshape([s * c for s, c in zip(files, within, strict=True)])
    entries[...] = ordered[tuple(slice(n) for n in entries.shape)]
    return entries.reshape(-1), crc


def manifest_of(place: Place, layout: ArrayLayout) -> Manifest:
    """Return the manifest of an array, which must list as many files and chunks as its layout has.

    Raises `CorruptStoreError` as `read_manifest`, and where it lists others.
    """
    manifest = read_manifest(place, layout.path)
    files = layout.files[3 - len(layout.shape) :]
    most = math.prod(_ceil(layout.file_pixels, layout.chunk_pixels))
    chunks = manifest.chunks
    is_within = chunks["offset"] + chunks["size"] <= manifest.sizes[:, None].astype(np.uint64)
    if manifest.files == files and chunks.shape[1] in (0, most) and is_within.all():
        if chunks.shape[1] == most:
            return manifest
        return replace(manifest, chunks=np.zeros((len(chunks), most), chunks.dtype))  # it has no file at all
    raise CorruptStoreError(
        f"files {files} of {most} chunks were expected in {place}/{layout.path}/{cv.MANIFEST}, got {manifest.files} "
        f"of {chunks.shape[1]}. {REMEDY}"
    )


def check_files(place: Place, manifest: Manifest) -> None:
    """Raise `CorruptStoreError` unless every file that a manifest lists is there, and as long as that says."""
    for key, size in zip(manifest.keys, manifest.sizes.tolist(), strict=True):
        if size:
            check_size(place, f"{manifest.array}/{key}", size)


def check_links(place: Place, group: str) -> None:
    """Look at every file below a group: `Place.head` refuses one that leads out of the store."""
    for name in place.children(group):
        if name.endswith("/"):
            check_links(place, f"{group}/{name[:-1]}")
        else:
            place.head(f"{group}/{name}")


def check_size(place: Place, key: str, size: int) -> None:
    """Raise `CorruptStoreError` unless a file is there, and has so many bytes."""
    head = place.head(key)
    if head is None or head.size != size:
        got = f"no file {place}/{key}" if head is None else f"{head.size} at {place}/{key}"
        raise CorruptStoreError(f"a shard of {size} bytes was expected, got {got}. {REMEDY}")


def _told_by_files(place: Place, layout: ArrayLayout) -> Array:
    """Return (files, chunks) of `CHUNK` as the files' own indices have them; what is not there is fill value."""
    grid = (0, 0) if layout.shard is None else (math.prod(_ceil(layout.file_pixels, layout.chunk_pixels)), 1)
    chunks = np.zeros((math.prod(layout.files), max(grid[0], 1)), CHUNK)
    for row, name in zip(chunks, layout.keys(), strict=True):
        key = f"{layout.path}/{name}"
        try:
            row[:] = record_of(place, key, grid).entries
        except FileNotFoundError:
            continue
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{error} It is that of {place}/{key}. {REMEDY}") from None
    return chunks
