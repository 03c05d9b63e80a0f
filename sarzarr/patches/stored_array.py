"""Stored arrays: one array of a scene and its flags, as a worker reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError
from sarzarr.store.catalog import encoding_of
from sarzarr.store.documents import Encoding
from sarzarr.store.place import Place
from sarzarr.store.shard_job import files_digest
from sarzarr.store.shards import read_stored
from sarzarr.tasks import worker_name

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
    files: str
    """`files_digest` of it and its flags, as whoever asks sees them; whoever reads must see the same."""
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
            files=files_digest(place, cls._keys(row["scene"], row["name"])),
        )

    @staticmethod
    def _keys(scene: str, name: str) -> tuple[str, str]:
        return f"{cv.SCENES}/{scene}/{name}", f"{cv.SCENES}/{scene}/{name}{cv.FLAGS_SUFFIX}"

    @cached_property
    def _is_seen(self) -> bool:
        """Whether the same files are seen from here."""
        try:
            return files_digest(self.place, self._keys(self.scene, self.name)) == self.files
        except CorruptStoreError:
            return False

    def codes(self, window: Window, out: Array | None = None) -> Array:
        """Return a window (rows, columns) of uint16 codes, or of floats in [0, 1] or NaN; in ``out`` if it is given.

        Raises `CorruptStoreError` where a chunk fails its checksum, or its files are not those that were listed.
        """
        return self._read(self._keys(self.scene, self.name)[0], self.encoding, window, out)

    def flags(self, window: Window, out: Array | None = None) -> Array:
        """Return a window of the flags, uint8, as `codes`."""
        if self.is_clear:
            rows, cols = (span.stop - span.start for span in window)
            out = np.empty((rows, cols), np.uint8) if out is None else out
            out[...] = cv.Flag.VALID
            return out
        return self._read(self._keys(self.scene, self.name)[1], self.encoding.of_flags, window, out)

    def _read(self, array: str, encoding: Encoding, window: Window, out: Array | None) -> Array:
        if not self._is_seen:
            raise CorruptStoreError(
                f"{self.place}/{array} was expected as it was when the work began, got none or another on "
                f"{worker_name() or 'this machine'}. Workers must see the same file system under the same path; run "
                "the same again."
            )
        return read_stored(self.place, array, encoding, window, out)
