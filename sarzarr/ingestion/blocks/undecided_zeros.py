"""Undecided zeros: settled once all blocks of a scene are known.

Only blocks that have such zeros are looked at again, and only what they stored: the source is not read twice.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.ingestion.blocks.flags import UNDECIDED, decide, region_mask
from sarzarr.ingestion.blocks.jobs import ArraySource, BlockJob, Step
from sarzarr.ingestion.blocks.receipts import ArrayReceipt, Receipt
from sarzarr.ingestion.blocks.regions import RegionTracker
from sarzarr.ingestion.blocks.write import array_files, read_staged, write_chunks
from sarzarr.pixels.kernels import db_kernel, normalize_kernel
from sarzarr.pixels.radiometry import to_codes
from sarzarr.store.shards import ArrayFiles


def decide_zeros(job: BlockJob, receipt: Receipt, reaches: dict[str, Array]) -> Receipt:
    """Rewrite a block's flags once it is known which regions of zeros reach the scene's edge; return its receipt.

    ``receipt`` is what `write_block` returned for it; ``reaches`` is, for each array with regions, (labels,) bool:
    which of the labels 0 to ``regions.count`` reach the edge.
    """
    return receipt | {
        source.name: _decide_array(job, source, receipt[source.name], reaches[source.name])
        for source in job.arrays
        if source.name in reaches
    }


def _decide_array(job: BlockJob, source: ArraySource, done: ArrayReceipt, reaches: Array) -> ArrayReceipt:
    data, flag_files = array_files(job, job.folder, source.name)
    tracker, again = RegionTracker(), RegionTracker()
    for first, rows in job.bands:
        tracker.add(region_mask(_band(job, flag_files, first, rows), source))
    outside = reaches[tracker.names()]
    # Zeros inside are measured, and were stored as if they were not.
    rewrites = job.step is Step.WRITE and not outside[1:].all()
    zero = stored_zero((source.vmin, source.vmax), job.encoding.dtype)
    nodata = 0
    with data, flag_files:
        for first, rows in job.bands:
            flags = _band(job, flag_files, first, rows)
            labels, undecided = again.add(region_mask(flags, source)), flags == UNDECIDED
            nodata += decide(flags, outside[labels], source)
            write_chunks(flag_files, (first, job.col), flags)
            if rewrites:
                values = _band(job, data, first, rows)
                values[undecided & cv.Flag.is_valid(flags)] = zero
                write_chunks(data, (first, job.col), values)
        flag_shards = job.every_file(flag_files.close())
        shards = job.every_file(data.close()) if rewrites else done.shards
    old = done.histogram
    histogram = replace(old, nonpositive=old.nonpositive - nodata, nodata=old.nodata + nodata)
    return replace(done, shards=shards, flag_shards=flag_shards, histogram=histogram, regions=None)


def stored_zero(stored: tuple[float, float], dtype: str) -> Any:
    """Return the stored value of a zero that was measured, of the range (dB) and dtype of an array: the floor."""
    z = normalize_kernel(db_kernel(np.zeros(1, np.float32)), stored)
    return to_codes(z)[0] if dtype == "uint16" else z[0]


def _band(job: BlockJob, files: ArrayFiles, first: int, rows: int) -> Array:
    """Return one band of the block (rows, width), read back from the staged files."""
    window = slice(first, first + rows), slice(job.col, job.col + job.width)
    return read_staged(files, window)
