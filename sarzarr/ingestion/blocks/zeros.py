"""Zeros that a block could not judge: settled once all blocks of a scene are known.

Exact zeros without a nodata tag are nodata where their region reaches the scene's edge. Only blocks
that have such zeros are looked at again, and only what they stored: the source is not read twice.
"""

from pathlib import Path

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.ingestion.blocks.jobs import ArraySource, BlockJob, Step
from sarzarr.ingestion.blocks.receipts import ArrayReceipt, Receipt
from sarzarr.ingestion.blocks.regions import RegionTracker
from sarzarr.ingestion.blocks.tiles import UNDECIDED
from sarzarr.ingestion.blocks.write import array_files, bands, every_file, region_mask, tiles, whole
from sarzarr.pixels.bounds import Histogram
from sarzarr.pixels.kernels import half_codes_kernel, normalize_kernel, power_kernel
from sarzarr.store.codecs import get_codec
from sarzarr.store.shards import ArrayFiles, ShardRecord, read_chunks, read_stored


def decide_zeros(job: BlockJob, receipt: Receipt, reaches: dict[str, Array]) -> Receipt:
    """Rewrite a block's flags once it is known which regions of zeros reach the scene's edge.

    Zeros of a region that does are nodata; the others are nonpositive, or valid 0 dB.

    Parameters
    ----------
    job, receipt
        The block and what `write_block` said of it.
    reaches
        For each array with regions, which of the labels 0 to ``regions.count`` reach the edge.
    """
    decided = {
        source.name: (
            _decide_array(job, source, receipt.arrays[source.name], reaches[source.name])
            if source.name in reaches
            else receipt.arrays[source.name]
        )
        for source in job.arrays
    }
    return Receipt(scene=receipt.scene, at=receipt.at, arrays=decided)


def _decide_array(job: BlockJob, source: ArraySource, done: ArrayReceipt, reaches: Array) -> ArrayReceipt:
    chunk = job.encoding.chunk
    is_db = source.representation == cv.Representation.DB
    data, flag_files = array_files(job, source.name)
    tracker = RegionTracker()
    for first, rows in bands(job):
        _track(tracker, region_mask(_staged_flags(job, flag_files, first, rows), source))
    outside = reaches[tracker.names()]
    again = RegionTracker()
    nodata = 0
    with data, flag_files:
        for first, rows in bands(job):
            flags = _staged_flags(job, flag_files, first, rows)
            undecided = flags == UNDECIDED
            labels = _track(again, region_mask(flags, source))
            if labels is not None:
                fill = outside[labels] & undecided
                flags[undecided] = cv.Flag.VALID if is_db else cv.Flag.NONPOSITIVE
                flags[fill] = cv.Flag.NODATA
                nodata += int(fill.sum())
            for row, col, tile in tiles(flags, chunk, chunk):
                flag_files.write((first + row) // chunk, (job.col + col) // chunk, whole(tile, chunk))
        flag_shards = every_file(job, flag_files.close())
        rewrite = is_db and nodata and job.step is Step.WRITE
        shards = _without_fill(job, data, flag_shards, done) if rewrite else done.shards
    old = done.histogram
    counts = old.counts
    if is_db and nodata and job.step is Step.WRITE:
        counts = counts.copy()
        zero_db = np.zeros(1, power_kernel(np.zeros(1, np.float32), source.representation).dtype)
        counts[half_codes_kernel(normalize_kernel(zero_db, cv.STORED_RANGE))[0]] -= nodata
    histogram = Histogram(
        counts=counts,
        under=old.under,
        over=old.over,
        nonpositive=old.nonpositive - (0 if is_db else nodata),
        nodata=old.nodata + nodata,
    )
    return ArrayReceipt(shards=shards, flag_shards=flag_shards, histogram=histogram, regions=None)


def _track(tracker: RegionTracker, undecided: Array) -> Array | None:
    """Hand the next band to the tracker; return its labels where it has any."""
    if undecided.any():
        return tracker.add(undecided)
    tracker.add_empty(*undecided.shape)
    return None


def _staged_flags(job: BlockJob, files: ArrayFiles, first: int, rows: int) -> Array:
    """Return the flags of one band, read back from the staged files."""
    like = np.zeros((job.encoding.chunk, job.encoding.chunk), np.uint8)
    window = slice(first, first + rows), slice(job.col, job.col + job.width)
    return read_stored(files.folder, grid=files.grid, codec=files.codec, like=like, window=window)


def _without_fill(
    job: BlockJob, data: ArrayFiles, flag_shards: dict[str, ShardRecord], done: ArrayReceipt
) -> dict[str, ShardRecord]:
    """Rewrite the codes with 0 where the flags now say nodata (a dB raster's fill of exact zeros)."""
    chunk, per = job.encoding.chunk, max(job.encoding.grid[0], 1)
    values = np.zeros((chunk, chunk), job.encoding.dtype)
    flags = np.zeros((chunk, chunk), np.uint8)
    flag_folder = Path(job.folder) / (data.folder.name + cv.FLAGS_SUFFIX)
    for key, record in done.shards.items():
        if not record.size or not flag_shards[key].size:
            continue
        _, i, j = key.split("/")
        masks = {
            (row, col): ~cv.Flag.is_valid(mask)
            for row, col, mask in read_chunks(flag_folder / key, data.grid, get_codec(cv.FLAGS_CODEC), flags)
        }
        for row, col, tile in read_chunks(data.folder / key, data.grid, data.codec, values):
            if (row, col) in masks:
                tile = np.where(masks[row, col], 0, tile).astype(tile.dtype)
            data.write(int(i) * per + row, int(j) * per + col, tile)
    return {**done.shards, **data.close()}
