"""Blocks of one raster: read, flagged, normalised, written as whole shards, and counted; of a layer, as they are.

A block is read in bands that follow the file's TIFF blocks, and each chunk is worked on while it is in cache, so
a process needs a few bands and no more.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.grids.warp.read import read_warped
from sarzarr.ingestion.blocks.flags import add_border, region_mask
from sarzarr.ingestion.blocks.jobs import ArraySource, BlockJob, Step
from sarzarr.ingestion.blocks.receipts import ArrayReceipt, Receipt
from sarzarr.ingestion.blocks.regions import RegionTracker
from sarzarr.ingestion.blocks.tiles import TileEncoder
from sarzarr.ingestion.layers.plan import LayerJob
from sarzarr.pixels.bounds import Histogram
from sarzarr.store.free_values import values_of
from sarzarr.store.place import Folder
from sarzarr.store.shards import ArrayFiles, read_stored


def write_block(job: BlockJob) -> Receipt:
    """Read one block, write its shards of codes and flags, and return its receipt.

    Peak memory is a few bands of (band_rows, width) pixels; nothing is returned but counts.

    Raises `UnsupportedRasterError` where the file is another than was planned.
    """
    for file in {source.file for source in job.arrays}:
        file.check()
    return {source.name: _write_array(job, source) for source in job.arrays}


def _write_array(job: BlockJob, source: ArraySource) -> ArrayReceipt:
    chunk, tracker = job.encoding.chunk, RegionTracker()
    data, flag_files = array_files(job, job.folder, source.name)
    raw: Array | None = None
    is_known = job.step is Step.WRITE and bool(job.mask)
    with data, flag_files:
        for first, rows in job.bands:
            room = raw if raw is not None and raw.shape == (rows, job.width) else None
            raw = source.read(row=first, col=job.col, height=rows, width=job.width, out=room)
            if first == job.row:
                encoder = TileEncoder(job, source, raw.dtype)
            known = _flags_with_border(job, source.name, first, rows) if is_known else None
            judged = np.zeros(raw.shape, bool)
            for row, col, tile in tiles(raw, chunk, encoder.columns):
                values, flags = encoder.encode(raw, row, col, known, top=first)
                at = first + row, job.col + col
                if values is not None and job.step is Step.WRITE:
                    write_chunks(data, at, values)
                if job.step is not Step.COUNT:
                    write_chunks(flag_files, at, np.zeros(tile.shape, np.uint8) if flags is None else flags)
                if flags is not None and job.step is not Step.COUNT:
                    judged[row : row + tile.shape[0], col : col + tile.shape[1]] = region_mask(flags, source)
            for files in (data, flag_files):
                files.close_above((first + rows) // chunk)
            tracker.add(judged)
        return ArrayReceipt(
            shards=job.every_file(data.close()),
            flag_shards=job.every_file(flag_files.close()),
            histogram=encoder.counts.freeze(),
            regions=tracker.finish() if tracker.has_regions else None,
            impossible=encoder.impossible,
        )


def write_layer(job: LayerJob) -> Receipt:
    """Read one block of a layer on the scene's grid, write its shards as they are, and return its receipt.

    Peak memory is a band of (band_rows, width) pixels and what `sarzarr.grids.warp.read` takes. Of a layer without
    nodata the receipt has the values: whether its fill is free is known when all blocks are.
    """
    name, chunk = job.layer.name, job.encoding.chunk
    if job.layer.onto.source.field is None:  # a field was read from its file when it was planned
        job.layer.file.check()
    values = np.empty(0, job.layer.dtype)
    with ArrayFiles(Path(job.folder) / name, job.encoding) as files:
        for first, rows in job.bands:
            band = read_warped(job.layer.onto, row=first, col=job.col, height=rows, width=job.width)
            band = job.layer.scaled(band)
            if job.layer.nodata is None:
                values = values_of(np.concatenate([values, values_of(band)]))
            write_chunks(files, (first, job.col), band.astype(job.encoding.dtype, copy=False))
            files.close_above((first + rows) // chunk)
        shards = job.every_file(files.close())
    empty = Histogram.empty()
    return {name: ArrayReceipt(shards=shards, flag_shards={}, histogram=empty, regions=None, values=values)}


def _flags_with_border(job: BlockJob, name: str, first: int, rows: int) -> Array:
    """Return the flags of a band from the first pass, with what is near nodata turned into border."""
    margin, (height, width) = job.border, job.shape
    top, left = max(first - margin, 0), max(job.col - margin, 0)
    down = slice(top, min(first + rows + margin, height))
    across = slice(left, min(job.col + job.width + margin, width))
    flags = read_staged(array_files(job, job.mask, name)[1], (down, across))
    if margin:
        add_border(flags, margin)
    top, left = first - top, job.col - left
    return np.ascontiguousarray(flags[top : top + rows, left : left + job.width])


def array_files(job: BlockJob, folder: str, name: str) -> tuple[ArrayFiles, ArrayFiles]:
    """Return the files of an array's codes and of its uint8 flags, in a folder."""
    flags = Path(folder) / (name + cv.FLAGS_SUFFIX)
    return ArrayFiles(Path(folder) / name, job.encoding), ArrayFiles(flags, job.encoding.of_flags)


def read_staged(files: ArrayFiles, window: tuple[slice, slice]) -> Array:
    """Return a window (rows, columns) of what was written into files, fresh and checked."""
    return read_stored(Folder(files.folder.parent), files.folder.name, files.encoding, window)


def tiles(band: Array, rows: int, cols: int) -> Iterator[tuple[int, int, Array]]:
    """Yield row, column and a view (rows, cols) of the tiles of a band, those at its right and bottom as they are."""
    for row in range(0, band.shape[0], rows):
        for col in range(0, band.shape[1], cols):
            yield row, col, band[row : row + rows, col : col + cols]


def write_chunks(files: ArrayFiles, at: tuple[int, int], values: Array) -> None:
    """Write values as whole chunks, the first pixel at row and column ``at`` of the array; beyond edges is fill."""
    chunk, fill = files.encoding.chunk, files.encoding.fill
    for row, col, tile in tiles(values, chunk, chunk):
        if tile.shape != (chunk, chunk):
            tile = np.pad(tile, [(0, chunk - n) for n in tile.shape], constant_values=fill)
        files.write((at[0] + row) // chunk, (at[1] + col) // chunk, np.ascontiguousarray(tile))
