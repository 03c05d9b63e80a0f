"""One layer of one scene, and one block of it: read on the scene's grid, written as it is.

Nothing is normalised. A layer on the scene's own pixels is copied bit for bit; another one is warped by
what suits its kind.
"""

import base64
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.bounds import Histogram
from sarzarr.codecs import get_codec
from sarzarr.documents import Encoding
from sarzarr.layers import nodata_text
from sarzarr.receipts import ArrayReceipt, Receipt
from sarzarr.resampling import Passthrough, WarpPlan
from sarzarr.shards import ArrayFiles, ShardRecord
from sarzarr.warp import read_warped

Pixels = np.ndarray[Any, Any]
STEP: Final = "layer"
"""What a layer's block is in names of receipts."""
_EMPTY: Final = ShardRecord(0, 0, 0)


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


def write_layer(job: LayerJob) -> Receipt:
    """Read one block of a layer, write its shards, and return what became of it.

    Peak memory is a band of ``band_rows`` x ``width`` and what `sarzarr.warp` takes.
    """
    chunk = job.encoding.chunk
    with ArrayFiles(
        Path(job.folder) / job.layer.name, job.encoding.grid, get_codec(job.encoding.codec)
    ) as files:
        for first in range(job.row, job.row + job.height, job.band_rows):
            rows = min(job.band_rows, job.row + job.height - first)
            band = read_warped(job.layer.onto, row=first, col=job.col, height=rows, width=job.width)
            for row, col, tile in _chunks(band, chunk):
                files.write((first + row) // chunk, (job.col + col) // chunk, tile)
            files.close_above((first + rows) // chunk)
        shards = {**dict.fromkeys(_keys(job), _EMPTY), **files.close()}
    done = ArrayReceipt(shards=shards, flag_shards={}, histogram=Histogram.empty(), regions=None)
    return Receipt(scene=job.scene, at=job.at, arrays={job.layer.name: done})


def _chunks(band: Pixels, chunk: int) -> Iterator[tuple[int, int, Pixels]]:
    """Yield (row, column, whole chunk) of a band, padded with zeros at the scene's right and bottom edges.

    As unsigned integers of the same bits: a chunk of -0.0 is no chunk of zeros, which would be left out.
    """
    bits = np.dtype(f"u{band.dtype.itemsize}")
    for row in range(0, band.shape[0], chunk):
        for col in range(0, band.shape[1], chunk):
            part = band[row : row + chunk, col : col + chunk]
            whole = np.zeros((chunk, chunk), band.dtype)
            whole[: part.shape[0], : part.shape[1]] = part
            yield row, col, whole.view(bits)


def _keys(job: LayerJob) -> list[str]:
    """Return the keys of every file of a block: the empty ones are accounted for, too."""
    size = job.encoding.file_size
    rows, cols = (
        range(first // size, math.ceil((first + n) / size))
        for first, n in ((job.row, job.height), (job.col, job.width))
    )
    return [f"c/{row}/{col}" for row in rows for col in cols]
