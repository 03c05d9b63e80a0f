"""Stored arrays: one array of a scene and its flags, as a worker reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
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

    scene: str
    """The scene's id."""
    name: str
    """The array's name in its scene group."""
    values: StoredPixels
    """Its codes, as whoever asks sees them: a worker that sees others reads none."""
    coverage: StoredPixels
    """Its flags, likewise."""
    stored: tuple[float, float]
    """dB that 0 and 1 stand for."""
    is_clear: bool = False
    """Whether every pixel is known to be valid and positive, so that flags need not be read."""

    @classmethod
    def of(cls, place: Place, row: Mapping[str, Any]) -> "StoredArray":
        """Return the array of a row of the catalog: its (rows, columns), encoding and dB."""
        shape, encoding = (int(row["height"]), int(row["width"])), encoding_of(row)
        group = f"{cv.SCENES}/{row['scene']}"
        kinds = ((row["name"], encoding), (row["flags"], encoding.of_flags))
        values, coverage = (
            StoredPixels.of(place, ArrayLayout.of(f"{group}/{name}", shape, kind)) for name, kind in kinds
        )
        return cls(
            scene=str(row["scene"]),
            name=str(row["name"]),
            values=values,
            coverage=coverage,
            stored=(float(row["vmin"]), float(row["vmax"])),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.values.shape

    @property
    def encoding(self) -> Encoding:
        """The encoding of its codes."""
        return self.values.encoding

    def codes(self, window: Window, out: Array | None = None) -> Array:
        """Return a window (rows, columns) of uint16 codes, or of floats in [0, 1] or NaN; in ``out`` if it is given.

        Raises `CorruptStoreError` where a file is absent, or a chunk fails its checksum or is not the one that
        belongs there; `StoreChangedError` where another array is seen there than whoever asks sees.
        """
        return self.values.read(window, out)

    def flags(self, window: Window, out: Array | None = None) -> Array:
        """Return a window of the flags, uint8, as `codes`."""
        if self.is_clear:
            rows, cols = (span.stop - span.start for span in window)
            out = np.empty((rows, cols), np.uint8) if out is None else out
            out[...] = cv.Flag.VALID
            return out
        return self.coverage.read(window, out)
