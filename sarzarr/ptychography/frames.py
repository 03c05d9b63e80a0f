"""Diffraction frames as amplitudes, read by number: of an array in memory, or of any place that has rows."""

import os
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Protocol

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, InvalidInputError, StoreChangedError


class Rows(Protocol):
    """An array (n, rows, columns) that is read by row."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape (n, rows, columns)."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Its dtype."""

    def __getitem__(self, rows: Array) -> Array:
        """Return some rows (k, rows, columns), of the array's dtype."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RowsOnDisk:
    """Values (n, rows, columns) in a file, one row behind the other: those that are asked for are read, no others."""

    path: Path
    """The file."""
    offset: int
    """Bytes before the first value."""
    shape: tuple[int, ...]
    """(n, rows, columns)."""
    dtype: np.dtype[np.generic]
    """Of the values."""
    is_turned: bool = False
    """Whether each row lies in the file as (columns, rows)."""
    stamp: tuple[int, ...] = field(init=False)
    """Of the file as it was found: bytes, time of the last change in ns, and number."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stamp", _stamp(self.path.stat()))

    def __getitem__(self, rows: Array) -> Array:
        once, back = np.unique(rows, return_inverse=True)
        _, height, width = self.shape
        out = np.empty((len(once), *((width, height) if self.is_turned else (height, width))), self.dtype)
        size = height * width * self.dtype.itemsize
        with self.path.open("rb", buffering=0) as file:
            if _stamp(os.fstat(file.fileno())) != self.stamp:
                raise StoreChangedError(
                    f"expected {self.path.name!r} as it was opened, got a changed file. Open it again."
                )
            for run in np.split(np.arange(len(once)), np.flatnonzero(np.diff(once) != 1) + 1):
                if len(run):
                    file.seek(self.offset + int(once[run[0]]) * size)
                    _fill(file, out[run[0] : run[-1] + 1].data.cast("B"), self.path.name)
        return (out.swapaxes(1, 2) if self.is_turned else out)[back.reshape(np.shape(rows))]


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _fill(file: FileIO, place: memoryview, name: str) -> None:
    while len(place):
        if not (done := file.readinto(place)):
            raise CorruptStoreError(
                f"expected {len(place)} bytes more of {name!r}, got its end. Copy it again."
            )
        place = place[done:]


def amplitudes(frames: Array, first: int = 0) -> Array:
    """Return frames (k, N, N) as float32 amplitudes; integers are intensities, whose square root is taken.

    That is worked out in float64, so that 16 bits never wrap. NaN, infinite and negative values are refused.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        out = np.sqrt(frames, dtype=np.float64) if frames.dtype.kind in "iu" else frames
        out = out.astype(np.float32, copy=False)
    lowest, highest = float(out.min(initial=0)), float(out.max(initial=0))
    if not (lowest >= 0 and highest < np.inf):  # of NaN neither is true
        raise InvalidInputError(
            f"expected amplitudes of 0 or more, got {lowest} to {highest} in frames from {first} on. "
            "Mask what was not measured to 0, and take the square root of intensities."
        )
    return out


def frame_shape(shape: tuple[int, ...], n: int) -> tuple[tuple[int, ...], bool]:
    """Return the shape (n, rows, columns) that an array of n frames is read as, and whether its axes are older.

    A trailing axis of 1 is left out; (rows, columns, n) is the older order, where the first axis is not n, too.
    """
    shape = shape[:-1] if len(shape) == 4 and shape[-1] == 1 else shape
    is_older = len(shape) == 3 and shape[-1] == n != shape[0]
    return ((n, *shape[:-1]) if is_older else shape), is_older


def in_order(values: Array, n: int) -> Array:
    """Return an array of n frames as (n, rows, columns), a view, from the orders that `frame_shape` knows."""
    shape, is_older = frame_shape(values.shape, n)
    return np.moveaxis(values.reshape(*shape[1:], n), -1, 0) if is_older else values.reshape(shape)


def check_frames(shape: tuple[int, ...], dtype: np.dtype[np.generic], name: str) -> None:
    """Refuse frames that are not (n, N, N) of integers or floats."""
    if len(shape) != 3 or shape[1] != shape[2] or 0 in shape:
        raise InvalidInputError(
            f"expected {name} (n, N, N) of square frames, got shape {shape}. Cut or pad the frames."
        )
    if dtype.kind not in "iuf":
        raise InvalidInputError(
            f"expected {name} of integer intensities or float amplitudes, got {dtype}. Convert it."
        )
