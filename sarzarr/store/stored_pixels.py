"""The pixels of one array as they are stored: read by window, every chunk held against the array's manifest."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, MissingFileError
from sarzarr.store.chunks import ArrayLayout, check_files, manifest_of
from sarzarr.store.documents import Encoding
from sarzarr.store.manifest import Manifest, changed, read_manifest, was_changed
from sarzarr.store.place import Place
from sarzarr.store.shards import read_stored


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredPixels:
    """One array (rows, columns): its address and manifest, nothing open. Dask takes it for an array."""

    place: Place
    """The store."""
    path: str
    """The array's key."""
    shape: tuple[int, int]
    """(rows, columns)."""
    encoding: Encoding
    """Its dtype, codec, chunks and shards."""
    crc: int
    """The checksum of its manifest when it was opened."""
    ndim: ClassVar[int] = 2

    @classmethod
    def of(cls, place: Place, layout: ArrayLayout) -> "StoredPixels":
        """Return the array of a layout of two dimensions.

        Raises `CorruptStoreError` where its manifest is absent or damaged, or a file is absent or of another length.
        """
        manifest = manifest_of(place, layout)
        check_files(place, manifest)
        rows, columns = layout.shape
        encoding, crc = layout.encoding, manifest.crc
        return cls(place=place, path=layout.path, shape=(rows, columns), encoding=encoding, crc=crc)

    @cached_property
    def manifest(self) -> Manifest:
        """Its files and chunks; `StoreChangedError` where they are no longer those of when it was opened."""
        try:
            manifest = read_manifest(self.place, self.path)
        except MissingFileError:
            raise was_changed(self.place, self.path) from None
        if manifest.crc != self.crc:
            raise was_changed(self.place, self.path)
        return manifest

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "manifest"}  # each worker reads it itself

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored dtype."""
        return np.dtype(self.encoding.dtype)

    def read(self, window: tuple[slice, slice], out: Array | None = None) -> Array:
        """Return a window (rows, columns) of stored values, in ``out`` if that is given.

        Raises `CorruptStoreError` where a chunk is absent, fails its checksum or is not the one that belongs there;
        `StoreChangedError` where the array was replaced since it was opened.
        """
        try:
            return read_stored(self.place, self.path, self.encoding, window, out, self.manifest)
        except CorruptStoreError as error:
            raise changed(self.place, self.path, self.crc) or error from None

    def __getitem__(self, key: Any) -> Array:
        """Return what slices or numbers of (rows, columns) choose, as Dask asks for it."""
        rest, window = [], []
        for part, length in zip(key, self.shape, strict=True):
            chosen = range(length)[part]
            is_one = isinstance(chosen, int)
            low, high = (chosen, chosen) if is_one else (min(chosen, default=0), max(chosen, default=-1))
            window.append(slice(low, high + 1))
            rest.append(chosen - low if is_one else slice(None, None, chosen.step))
        if any(span.start == span.stop for span in window):
            return np.empty([s.stop - s.start for s in window], self.dtype)[tuple(rest)]
        return self.read((window[0], window[1]))[tuple(rest)]

    def lazy(self, block: int) -> Any:
        """Return a Dask array (rows, columns) of the stored dtype: a task per ``block`` x ``block`` pixels."""
        import dask.array as da
        from dask.base import tokenize

        name = f"{self.path.rpartition('/')[2]}-{tokenize(str(self.place), self.path, self.crc, block)}"
        return da.from_array(self, chunks=(block, block), name=name)

    def __dask_tokenize__(self) -> Any:
        return str(self.place), self.path, self.crc
