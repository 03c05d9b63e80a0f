"""One block of one raster: read, identify what is valid, normalise, write whole shards, report.

A block is a rectangle of whole shards. It is read in bands that follow the file's own blocks, and
each chunk is worked on while it is in cache, so a process needs a few bands and no more. What
crosses a process boundary is a `BlockJob` on the way in and a `Receipt` on the way out.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.ingestion.blocks.jobs import ArraySource, BlockJob, Step
from sarzarr.ingestion.blocks.receipts import ArrayReceipt, Receipt
from sarzarr.ingestion.blocks.regions import RegionTracker
from sarzarr.ingestion.blocks.tiles import UNDECIDED, Counts, Scratch, classify, encode_tile
from sarzarr.pixels.kernels import power_kernel
from sarzarr.store.codecs import get_codec
from sarzarr.store.shards import ArrayFiles, ShardRecord, read_stored


def write_block(job: BlockJob) -> Receipt:
    """Read one block, write its shards of codes and flags, and return what became of it.

    Peak memory is a few bands of ``band_rows`` x ``width``; nothing is returned but counts.
    """
    return Receipt(
        scene=job.scene,
        at=job.at,
        arrays={source.name: _write_array(job, source) for source in job.arrays},
    )


def bands(job: BlockJob) -> tuple[tuple[int, int], ...]:
    """(first row, rows) of each band of a block."""
    return tuple(
        (row, min(job.band_rows, job.row + job.height - row))
        for row in range(job.row, job.row + job.height, job.band_rows)
    )


def _write_array(job: BlockJob, source: ArraySource) -> ArrayReceipt:
    chunk = job.encoding.chunk
    counts, tracker = Counts(), RegionTracker()
    data, flag_files = array_files(job, source.name)
    raw: Array | None = None
    with data, flag_files:
        for first, rows in bands(job):
            room = raw if raw is not None and raw.shape == (rows, job.width) else None
            raw = source.read(row=first, col=job.col, height=rows, width=job.width, out=room)
            if first == job.row:
                scratch = Scratch(job, source, raw.dtype)
            known = _eroded_flags(job, source, first, rows) if job.border else None
            undecided: Array | None = None
            for row, col, tile in tiles(raw, chunk, scratch.columns):
                window = slice(row, row + chunk), slice(col, col + scratch.columns)
                values: Array | None = None
                if job.step is Step.MASK:
                    flags = classify(
                        tile, power_kernel(tile, source.representation, nodata=source.nodata), source
                    )
                else:
                    mine = known if known is None else known[window]
                    values, flags = scratch.encode_clean(raw, row, col, tile.shape, mine, counts), None
                    if values is None:
                        values, flags = encode_tile(tile, source, job, counts, mine, scratch)
                at = (first + row) // chunk, (job.col + col) // chunk
                if values is not None and job.step is Step.WRITE:
                    _write_chunks(data, at, values, chunk)
                if flags is not None and job.step is not Step.COUNT:
                    _write_chunks(flag_files, at, flags, chunk)
                    if (found := region_mask(flags, source)).any():
                        if undecided is None:
                            undecided = np.zeros(raw.shape, bool)
                        undecided[window] = found
            for files in (data, flag_files):
                files.close_above((first + rows) // chunk)
            if undecided is None:
                tracker.add_empty(*raw.shape)
            else:
                tracker.add(undecided)
        return ArrayReceipt(
            shards=every_file(job, data.close()),
            flag_shards=every_file(job, flag_files.close()),
            histogram=counts.freeze(),
            regions=tracker.finish() if tracker.found else None,
        )


def region_mask(flags: Array, source: ArraySource) -> Array:
    """Return the pixels whose regions are judged: undecided zeros.

    Warped, the scene's own edge lies inside the grid: what is outside of it, and reaches the grid's edge, joins.
    """
    mask: Array = flags == UNDECIDED
    if source.is_warped:
        mask |= flags == cv.Flag.NODATA
    return mask


def _eroded_flags(job: BlockJob, source: ArraySource, first: int, rows: int) -> Array:
    """Return the flags of a band from the first pass, with what is near nodata turned into border."""
    margin, (height, width) = job.border, job.shape
    top, left = max(first - margin, 0), max(job.col - margin, 0)
    window = (
        slice(top, min(first + rows + margin, height)),
        slice(left, min(job.col + job.width + margin, width)),
    )
    files = array_files(job, source.name, folder=job.mask)[1]
    like = np.zeros((job.encoding.chunk, job.encoding.chunk), np.uint8)
    flags = read_stored(files.folder, grid=files.grid, codec=files.codec, like=like, window=window)
    nodata = (flags == cv.Flag.NODATA).view(np.uint8)
    near = ndimage.maximum_filter(nodata, size=2 * margin + 1, mode="constant").view(bool)
    flags[near & cv.Flag.is_valid(flags)] = cv.Flag.BORDER
    return np.ascontiguousarray(
        flags[first - top : first - top + rows, job.col - left : job.col - left + job.width]
    )


def array_files(job: BlockJob, name: str, *, folder: str | None = None) -> tuple[ArrayFiles, ArrayFiles]:
    """Return the files of an array's codes and of its flags, in the job's folder or in another."""
    place, grid = Path(folder or job.folder), job.encoding.grid
    return (
        ArrayFiles(place / name, grid, get_codec(job.encoding.codec)),
        ArrayFiles(place / (name + cv.FLAGS_SUFFIX), grid, get_codec(cv.FLAGS_CODEC)),
    )


def tiles(raw: Array, rows: int, cols: int) -> Iterator[tuple[int, int, Array]]:
    """Yield (row, column, view) of the tiles of a band, those at its right and bottom as they are."""
    for row in range(0, raw.shape[0], rows):
        for col in range(0, raw.shape[1], cols):
            yield row, col, raw[row : row + rows, col : col + cols]


def _write_chunks(files: ArrayFiles, at: tuple[int, int], values: Array, chunk: int) -> None:
    """Write a tile of chunks side by side, the first one at row and column ``at`` of the chunks."""
    for _, col, tile in tiles(values, chunk, chunk):
        files.write(at[0], at[1] + col // chunk, whole(tile, chunk))


def whole(tile: Array, chunk: int) -> Array:
    """Return the tile as a whole chunk, padded with zeros at the scene's right and bottom edges."""
    if tile.shape == (chunk, chunk):
        return np.ascontiguousarray(tile)
    out = np.zeros((chunk, chunk), tile.dtype)
    out[: tile.shape[0], : tile.shape[1]] = tile
    return out


def every_file(job: BlockJob, records: dict[str, ShardRecord]) -> dict[str, ShardRecord]:
    """Account for every file of the block, the empty ones too."""
    size = job.encoding.file_size
    empty = ShardRecord(0, 0, 0)
    keys = (
        f"c/{row // size}/{col // size}"
        for row in range(job.row, job.row + job.height, size)
        for col in range(job.col, job.col + job.width, size)
    )
    return {key: records.get(key, empty) for key in keys}
