"""What a worker of an ingest is asked: the arrays of one file over one rectangle of whole shards.

It crosses process boundaries, so it holds addresses and nothing open.
"""

import base64
import math
import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.grids.warp.plan import Passthrough, WarpPlan
from sarzarr.grids.warp.read import read_warped
from sarzarr.rasters import read_window
from sarzarr.store.documents import Encoding
from sarzarr.text import nodata_text


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

    def read(self, *, row: int, col: int, height: int, width: int, out: Array | None = None) -> Array:
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


STEP: Final = "layer"
"""What a layer's block is in names of receipts."""


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """One layer of one scene, ready to be read on the scene's grid."""

    name: str
    """The array's name in the scene group."""
    kind: str
    """``classes``, ``continuous`` or ``counts``."""
    onto: WarpPlan | Passthrough
    """How its pixels come onto the scene's."""
    covered: float
    """Share of the scene's grid that the raster lies on, as far as a lattice of points can tell."""
    block_shape: tuple[int, int]
    """(rows, columns) of the file's blocks."""
    block_bytes: int
    """Bytes of one decoded block."""
    source_hash: str
    """What the file is recognised by."""

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.onto.source.path)

    @property
    def dtype(self) -> str:
        """NumPy dtype, as stored and as delivered."""
        return self.onto.dtype

    @property
    def is_warped(self) -> bool:
        """Whether pixels are resampled, and not copied."""
        return isinstance(self.onto, WarpPlan)

    @property
    def nodata(self) -> float | int | None:
        """The stored value that says "no data": NaN for floats without another; None for integers without one."""
        if self.is_warped or np.dtype(self.dtype).kind == "f":
            return self.onto.fill
        return None if self.onto.source.nodata is None else self.onto.fill

    @property
    def said(self) -> tuple[Any, ...]:
        """Everything that decides the bytes."""
        onto = self.onto
        return (
            *(self.name, self.kind, self.source_hash, onto.source.band, repr(self.nodata)),
            *(type(onto).__name__, onto.grid, onto.source.grid, sorted(onto.attrs.items())),
        )

    @property
    def attrs(self) -> dict[str, Any]:
        """What the array says of itself, but for where it lies.

        Classes of integers get no CF fill value: xarray would make floats of them. rioxarray reads ``nodata``.
        """
        said: dict[str, Any] = {
            cv.LONG_NAME: self.name,
            cv.LAYER_KIND: self.kind,
            cv.SOURCE_FILES: [self.path.name],
            cv.SOURCE_BAND: self.onto.source.band,
            cv.SOURCE_HASH: self.source_hash,
            **self.onto.attrs,
        }
        nodata = self.nodata
        if nodata is None:
            return said
        if math.isfinite(nodata):
            said[cv.NODATA] = nodata
        if np.dtype(self.dtype).kind == "f":
            # as xarray writes a float into Zarr v3 attributes, since JSON has no NaN
            said[cv.FILL_VALUE] = base64.standard_b64encode(struct.pack("<d", nodata)).decode()
        elif self.kind != "classes":
            said[cv.FILL_VALUE] = nodata
        return said

    def encoding(self, scene: Encoding) -> Encoding:
        """Return how it becomes bytes in a scene that is written so: in the same chunks and shards."""
        return Encoding(dtype=self.dtype, codec=cv.LAYER_CODEC, chunk=scene.chunk, shard=scene.shard)

    def __str__(self) -> str:
        part = "" if self.covered > 0.999 else f", on {max(self.covered, 0.001):.1%} of the scene"
        return f"layer {self.name}: {self.dtype} {self.kind}, nodata {nodata_text(self.nodata)}; {self.onto}{part}"


@dataclass(frozen=True, kw_only=True)
class LayerJob:
    """One layer over one rectangle of whole shards: a unit of work."""

    scene: str
    """The scene's id."""
    layer: LayerPlan
    """What is read."""
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
    band_rows: int
    """Rows that are read at once: a multiple of the chunk."""

    @property
    def at(self) -> tuple[int, int]:
        """(row, column) of the first pixel."""
        return self.row, self.col

    @property
    def source_bytes(self) -> int:
        """Bytes of the pixels that the block makes."""
        return self.height * self.width * np.dtype(self.layer.dtype).itemsize
