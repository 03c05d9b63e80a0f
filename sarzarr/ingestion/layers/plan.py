"""Layer plans and layer jobs: one layer of one scene on its grid, and one rectangle of its shards."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.grids.warp.plan import Passthrough, WarpPlan
from sarzarr.rasters import FileStamp
from sarzarr.store.documents import Encoding, cf_fill
from sarzarr.store.free_values import extreme
from sarzarr.store.shard_job import ShardJob
from sarzarr.text import nodata_text

STEP: Final = "layer"
"""The step of a layer's jobs, in names of receipts."""


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """One layer of one scene, ready to be read on the scene's grid."""

    name: str
    """The array's name in the scene group."""
    kind: str
    """``classes``, ``continuous`` or ``counts``."""
    onto: WarpPlan | Passthrough
    """The way of its pixels onto the scene's grid."""
    covered: float
    """Share of the scene's grid that the raster lies on, as far as a lattice of points can tell."""
    block_shape: tuple[int, int]
    """(rows, columns) of a TIFF block."""
    block_bytes: int
    """Bytes of one decoded TIFF block."""
    file: FileStamp
    """The file: its raster, or the annotation that tells it."""
    factor: float = 1.0
    """Factor from the file's pixels to the layer's."""
    units: str = ""
    """The unit of its numbers, ``degree`` say; empty where nothing says it."""
    free: tuple[str, int] | None = None
    """The dtype and fill that its pixels leave free, where they have no nodata; None before they are known."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Attributes more, which decide its bytes: of polygons, their classes and how they were burnt."""

    @property
    def path(self) -> Path:
        """The file's path."""
        return Path(self.file.path)

    @property
    def source_hash(self) -> str:
        """The hash that the file is recognised by."""
        return self.file.hash

    @property
    def dtype(self) -> str:
        """NumPy dtype of its pixels: ``uint8``, ``int16``, ``float32``, ..."""
        return self.onto.dtype

    @property
    def is_warped(self) -> bool:
        """Whether pixels are resampled, and not copied."""
        return isinstance(self.onto, WarpPlan)

    @property
    def nodata(self) -> float | int | None:
        """The stored value of pixels without data: NaN for floats without another; None for integers without one."""
        if self.is_warped or np.dtype(self.dtype).kind == "f":
            return self.onto.fill
        return None if self.onto.source.nodata is None else self.onto.fill

    @property
    def identity(self) -> tuple[Any, ...]:
        """Everything that decides the bytes."""
        onto = self.onto
        return (
            *(self.name, self.kind, self.source_hash, onto.source.band, repr(self.nodata)),
            *(type(onto).__name__, onto.grid, onto.source.grid, sorted(onto.attrs.items()), self.factor),
            *sorted(self.more.items()),
        )

    @property
    def attrs(self) -> dict[str, Any]:
        """The array's attributes, but for its place.

        Classes of integers get no CF fill value: xarray would make float64 of them. rioxarray reads ``nodata``.
        """
        attrs: dict[str, Any] = {
            cv.LONG_NAME: self.name,
            cv.LAYER_KIND: self.kind,
            cv.SOURCE_FILES: [self.path.name],
            cv.SOURCE_BAND: self.onto.source.band,
            cv.SOURCE_HASH: self.source_hash,
            **self.onto.attrs,
            **self.more,
        }
        if self.units:
            attrs[cv.UNITS] = self.units
        if self.free is not None and self.free[0] != self.dtype:
            attrs[cv.SOURCE_DTYPE] = self.dtype
        nodata = self.nodata
        if nodata is None:
            return attrs
        if math.isfinite(nodata):
            attrs[cv.NODATA] = nodata
        if np.dtype(self.dtype).kind == "f" or self.kind != "classes":
            attrs[cv.FILL_VALUE] = cf_fill(np.dtype(self.dtype).type(nodata))
        return attrs

    def scaled(self, pixels: Array) -> Array:
        """Return pixels (rows, columns) of the file times the factor; nodata stays as it is."""
        if self.factor == 1.0:
            return pixels
        values = pixels * np.asarray(self.factor, pixels.dtype)
        return values if self.nodata is None else np.where(pixels == self.nodata, pixels, values)

    def encoding(self, scene: Encoding) -> Encoding:
        """Return the layer's encoding beside arrays of ``scene``: chunks and shards (rows, columns) are theirs.

        Its fill is the layer's nodata, else what is `free`, or, until that is known, the extreme of the dtype.
        """
        dtype, fill = self.free or (self.dtype, extreme(self.dtype) if self.nodata is None else self.nodata)
        return replace(scene, dtype=dtype, codec=scene.codec_beside, nodata=fill)

    def __str__(self) -> str:
        part = "" if self.covered > 0.999 else f", on {max(self.covered, 0.001):.1%} of the scene"
        return f"layer {self.name}: {self.dtype} {self.kind}, nodata {nodata_text(self.nodata)}; {self.onto}{part}"


@dataclass(frozen=True, kw_only=True)
class LayerJob(ShardJob):
    """One layer over one rectangle of whole shards, (height, width) pixels."""

    layer: LayerPlan
    """The layer that is read."""

    @property
    def source_bytes(self) -> int:
        """Bytes of the pixels that the job makes."""
        return self.height * self.width * np.dtype(self.layer.dtype).itemsize
