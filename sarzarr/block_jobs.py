"""What a worker of an ingest is asked: the arrays of one file over one rectangle of whole shards.

It crosses process boundaries, so it holds addresses and nothing open.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from sarzarr.documents import Encoding
from sarzarr.rasters import read_window
from sarzarr.resampling import Passthrough, WarpPlan
from sarzarr.warp import read_warped

Pixels = np.ndarray[Any, Any]


class Step(StrEnum):
    """What is done with a block."""

    WRITE = "write"
    """Codes and flags are written and counted."""
    COUNT = "count"
    """Pixels are counted and nothing is written: the first pass of a classic store."""
    MASK = "mask"
    """Flags alone are written: the first pass where borders are eroded."""


@dataclass(frozen=True, kw_only=True)
class ArraySource:
    """One array of a scene, as a worker reads it."""

    name: str
    """The array's name in its scene group."""
    path: str
    """The GeoTIFF."""
    band: int
    """Its band, from 1."""
    representation: str
    """How its numbers are written down: power, amplitude, db or complex."""
    itemsize: int
    """Bytes of a source pixel."""
    nodata: float | None
    """The file's sentinel, if it declares one."""
    onto: WarpPlan | Passthrough | None = None
    """How it comes onto another grid; None where it keeps its own."""
    vmin: float
    """dB that 0 stands for in the stored array."""
    vmax: float
    """dB that 1 stands for in the stored array."""

    @property
    def has_untagged_zeros(self) -> bool:
        """Whether exact zeros may be fill: no tag, or a NaN tag, which says nothing of zeros."""
        return self.nodata is None or bool(np.isnan(self.nodata))

    @property
    def is_warped(self) -> bool:
        """Whether pixels are resampled, and not copied."""
        return isinstance(self.onto, WarpPlan)

    def read(self, *, row: int, col: int, height: int, width: int, out: Pixels | None = None) -> Pixels:
        """Read a window: values as in the file, or linear power where they are warped; into ``out`` if it can."""
        if self.onto is None:
            return read_window(
                self.path, band=self.band, row=row, col=col, height=height, width=width, out=out
            )
        return read_warped(self.onto, row=row, col=col, height=height, width=width)


@dataclass(frozen=True, kw_only=True)
class BlockJob:
    """The arrays of one file over one rectangle of whole shards: a unit of work."""

    scene: str
    """The scene's id."""
    arrays: tuple[ArraySource, ...]
    """Arrays that come from one file."""
    folder: str
    """The staged scene group that shards are written into."""
    encoding: Encoding
    """How pixels become bytes."""
    row: int
    """First row of the block."""
    col: int
    """First column of the block."""
    height: int
    """Rows of the block; fewer than whole shards only at the scene's edge."""
    width: int
    """Columns of the block, likewise."""
    shape: tuple[int, int]
    """(rows, columns) of the scene."""
    band_rows: int
    """Rows that are read at once: a multiple of the chunk and, where it can be, of the file's blocks."""
    step: Step = Step.WRITE
    """What is done with it."""
    border: int = 0
    """Pixels around nodata that become border; their flags are then taken from ``mask``."""
    mask: str = ""
    """The folder that the first pass wrote the flags into, where borders are eroded."""
    workload: int = 0
    """Pixels that a worker may expect of this job and those that come with it."""

    @property
    def at(self) -> tuple[int, int]:
        """(row, column) of the first pixel: the block's name within its arrays."""
        return self.row, self.col

    @property
    def source_bytes(self) -> int:
        """Bytes of the decoded pixels that the block reads."""
        return self.height * self.width * sum(source.itemsize for source in self.arrays)
