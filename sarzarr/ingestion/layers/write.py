"""One layer of one scene, and one block of it: read on the scene's grid, written as it is.

Nothing is normalised. A layer on the scene's own pixels is copied bit for bit; another one is warped by
what suits its kind.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.grids.warp.read import read_warped
from sarzarr.ingestion.blocks.jobs import LayerJob
from sarzarr.ingestion.blocks.receipts import ArrayReceipt, Receipt
from sarzarr.pixels.bounds import Histogram
from sarzarr.store.codecs import get_codec
from sarzarr.store.shards import ArrayFiles, ShardRecord

_EMPTY: Final = ShardRecord(0, 0, 0)


def write_layer(job: LayerJob) -> Receipt:
    """Read one block of a layer, write its shards, and return what became of it.

    Peak memory is a band of ``band_rows`` x ``width`` and what `sarzarr.grids.warp.read` takes.
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


def _chunks(band: Array, chunk: int) -> Iterator[tuple[int, int, Array]]:
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
