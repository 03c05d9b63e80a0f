"""Blocks of a layer: read on the scene's grid, and written as they are.

Nothing is normalised. A layer on the scene's own pixels is copied bit for bit; another one is warped by
what suits its kind.
"""

from pathlib import Path

from sarzarr.grids.warp.read import read_warped
from sarzarr.ingestion.blocks.receipts import ArrayReceipt, Receipt
from sarzarr.ingestion.blocks.write import write_chunks
from sarzarr.ingestion.layers.plan import LayerJob
from sarzarr.pixels.bounds import Histogram
from sarzarr.store.codecs import get_codec
from sarzarr.store.shards import ArrayFiles


def write_layer(job: LayerJob) -> Receipt:
    """Read one block of a layer, write its shards, and return its receipt.

    Peak memory is a band of (band_rows, width) pixels and what `sarzarr.grids.warp.read` takes.
    """
    name, chunk = job.layer.name, job.encoding.chunk
    with ArrayFiles(Path(job.folder) / name, job.encoding.grid, get_codec(job.encoding.codec)) as files:
        for first, rows in job.bands:
            band = read_warped(job.layer.onto, row=first, col=job.col, height=rows, width=job.width)
            # As unsigned integers of the same bits: a chunk of -0.0 is no chunk of zeros, which would be left out.
            write_chunks(files, (first, job.col), band.view(f"u{band.dtype.itemsize}"), chunk)
            files.close_above((first + rows) // chunk)
        shards = job.every_file(files.close())
    done = ArrayReceipt(shards=shards, flag_shards={}, histogram=Histogram.empty(), regions=None)
    return Receipt(scene=job.scene, at=job.at, arrays={name: done})
