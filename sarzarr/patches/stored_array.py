"""Stored arrays: one array of a scene and its flags, as a worker reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.store.catalog import encoding_of
from sarzarr.store.chunks import ArrayLayout
from sarzarr.store.documents import Encoding
from sarzarr.store.place import Place
from sarzarr.store.stored_pixels import StoredPixels

Window = tuple[slice, slice]
"""Rows and columns, pixels."""


@dataclass(frozen=True, kw_only=True)
class StoredArray:
    """One array of a scene and its flags: a place and numbers, nothing open."""

    place: Place
    """The store."""
    scene: str
    """The scene's id."""
    name: str
    """The array's name in its scene group."""
    shape: tuple[int, int]
    """(rows, columns)."""
    encoding: Encoding
    """The encoding of its codes."""
    stored: tuple[float, float]
    """dB that 0 and 1 stand for."""
    is_clear: bool = False
    """Whether every pixel is known to be valid and positive, so that flags need not be read."""

    @classmethod
    def of(cls, place: Place, row: Mapping[str, Any]) -> "StoredArray":
        """Return the array of a row of the catalog: its (rows, columns), encoding and dB."""
        return cls(
            place=place,
            scene=str(row["scene"]),
            name=str(row["name"]),
            shape=(int(row["height"]), int(row["width"])),
            encoding=encoding_of(row),
            stored=(float(row["vmin"]), float(row["vmax"])),
        )

    def codes(self, window: Window, out: Array | None = None) -> Array:
        """Return a window (rows, columns) of uint16 codes, or of floats in [0, 1] or NaN; in ``out`` if it is given.

        Raises `CorruptStoreError` where a file is absent, or a chunk fails its checksum or is not the one that
        belongs there.
        """
        return self._read(self.name, self.encoding, window, out)

    def flags(self, window: Window, out: Array | None = None) -> Array:
        """Return a window of the flags, uint8, as `codes`."""
        if self.is_clear:
            rows, cols = (span.stop - span.start for span in window)
            out = np.empty((rows, cols), np.uint8) if out is None else out
            out[...] = cv.Flag.VALID
            return out
        return self._read(self.name + cv.FLAGS_SUFFIX, self.encoding.of_flags, window, out)

    @cached_property
    def _pixels(self) -> dict[str, StoredPixels]:
        return {}  # by array, once they are asked for

    def _read(self, name: str, encoding: Encoding, window: Window, out: Array | None) -> Array:
        if name not in self._pixels:
            path = f"{cv.SCENES}/{self.scene}/{name}"
            self._pixels[name] = StoredPixels.of(self.place, ArrayLayout.of(path, self.shape, encoding))
        return self._pixels[name].read(window, out)
