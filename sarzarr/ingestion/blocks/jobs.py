"""Block jobs: the arrays of one file over one rectangle of whole shards."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.grids.warp.plan import Passthrough, WarpPlan
from sarzarr.grids.warp.read import read_warped
from sarzarr.pixels.calibration import Calibration, Noise
from sarzarr.rasters import FileStamp, Unmeasured, measured, read_window
from sarzarr.store.shard_job import ShardJob


class Step(StrEnum):
    """The passes over the pixels of a block."""

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
    file: FileStamp
    """The GeoTIFF."""
    band: int
    """Its band, from 1."""
    representation: str
    """The scale of its numbers: power, amplitude, db or complex."""
    itemsize: int
    """Bytes of a source pixel."""
    nodata: float | None
    """The file's sentinel, if it declares one."""
    unmeasured: Unmeasured | None = None
    """What else tells which pixels nobody measured; None where nothing does, or a warp has looked."""
    onto: WarpPlan | Passthrough | None = None
    """Its way onto another grid; None where it keeps its own."""
    calibration: Calibration | None = None
    """The way of the power that is read to backscatter; None where it is that."""
    border_noise: Noise | None = None
    """Noise, DN^2: pixels no stronger than it that reach the scene's edge are border; None: none are."""
    vmin: float
    """dB that 0 stands for in the stored array."""
    vmax: float
    """dB that 1 stands for in the stored array."""

    @property
    def has_untagged_zeros(self) -> bool:
        """Whether pixels of zero power may be fill: no mask and no tag, or a NaN tag, which says nothing of zeros.

        Of what is warped, the file's own tag and mask tell.
        """
        if isinstance(self.onto, WarpPlan):
            return self.onto.source.has_untold_zeros
        is_masked = self.unmeasured is not None and self.unmeasured.mask is not None
        is_power = self.representation != cv.Representation.DB
        return is_power and not is_masked and (self.nodata is None or bool(np.isnan(self.nodata)))

    @property
    def is_warped(self) -> bool:
        """Whether pixels are resampled, and not copied."""
        return isinstance(self.onto, WarpPlan)

    @property
    def offset(self) -> tuple[int, int]:
        """Row and column of the source's raster at the first pixel of what is stored; (0, 0) where it is warped."""
        return (self.onto.row, self.onto.col) if isinstance(self.onto, Passthrough) else (0, 0)

    @property
    def path(self) -> str:
        """The GeoTIFF's absolute path."""
        return self.file.path

    def read(self, *, row: int, col: int, height: int, width: int, out: Array | None = None) -> Array:
        """Return a window: values as in the file, or float32 power where warped; in ``out`` if it can.

        Where something tells which pixels nobody measured, they are NaN (`sarzarr.rasters.measured`).
        """
        if self.onto is not None:
            return read_warped(self.onto, row=row, col=col, height=height, width=width)
        room = out if out is not None and out.itemsize == self.itemsize else None
        raw = read_window(self.path, band=self.band, row=row, col=col, height=height, width=width, out=room)
        return measured(raw, self.unmeasured, row=row, col=col)


@dataclass(frozen=True, kw_only=True)
class BlockJob(ShardJob):
    """The arrays of one file over one rectangle of whole shards."""

    arrays: tuple[ArraySource, ...]
    """Arrays that come from one file."""
    shape: tuple[int, int]
    """(rows, columns) of the scene."""
    step: Step = Step.WRITE
    """The pass that it is for."""
    border: int = 0
    """Pixels around nodata that become border; their flags are then taken from ``mask``."""
    mask: str = ""
    """The folder that the first pass wrote the flags into, where borders are eroded."""
    workload: int = 0
    """Pixels that a worker may expect of this job and those that come with it."""

    @property
    def source_bytes(self) -> int:
        """Bytes of the decoded pixels that the block reads."""
        return self.height * self.width * sum(source.itemsize for source in self.arrays)
