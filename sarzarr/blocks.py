"""One block of one raster: read, identify what is valid, normalise, write whole shards, report.

A block is a rectangle of whole shards. It is read in bands that follow the file's own blocks, and
each chunk is worked on while it is in cache, so a process needs a few bands and no more. What
crosses a process boundary is a `BlockJob` on the way in and a `Receipt` on the way out.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
from numcodecs import zstd
from scipy import ndimage

from sarzarr import conventions as cv
from sarzarr.bounds import Histogram, count_half_codes
from sarzarr.codecs import get_codec
from sarzarr.documents import Encoding
from sarzarr.radiometry import (
    codes_from_half,
    db_kernel,
    half_codes_kernel,
    normalize_kernel,
    power_kernel,
)
from sarzarr.rasters import read_window
from sarzarr.regions import BlockRegions, RegionTracker
from sarzarr.shards import ArrayFiles, ShardRecord, read_chunks, read_stored

Pixels = np.ndarray[Any, Any]
UNDECIDED: Final = 4
"""Staged flag of an exact zero that may be nodata or dark: decided once the whole scene is known."""


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
    vmin: float
    """dB that 0 stands for in the stored array."""
    vmax: float
    """dB that 1 stands for in the stored array."""

    @property
    def has_untagged_zeros(self) -> bool:
        """Whether exact zeros may be fill: no tag, or a NaN tag, which says nothing of zeros."""
        return self.nodata is None or bool(np.isnan(self.nodata))


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

    @property
    def at(self) -> tuple[int, int]:
        """(row, column) of the first pixel: the block's name within its arrays."""
        return self.row, self.col

    @property
    def source_bytes(self) -> int:
        """Bytes of the decoded pixels that the block reads."""
        return self.height * self.width * sum(source.itemsize for source in self.arrays)


@dataclass(kw_only=True)
class ArrayReceipt:
    """What became of one array in one block."""

    shards: dict[str, ShardRecord]
    """Files of codes, by key."""
    flag_shards: dict[str, ShardRecord]
    """Files of flags, by key."""
    histogram: Histogram
    """dB counts of the pixels that are valid and positive, and the counts of the others."""
    regions: BlockRegions | None
    """Regions of undecided zeros, where there are any."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of one block."""

    scene: str
    """The scene's id."""
    at: tuple[int, int]
    """`BlockJob.at`."""
    arrays: dict[str, ArrayReceipt]
    """By array name."""


@dataclass
class _Counts:
    """The histogram of one array in one block, being filled."""

    counts: Pixels = field(default_factory=lambda: np.zeros(cv.HISTOGRAM_BINS, np.int64))
    under: int = 0
    over: int = 0
    nonpositive: int = 0
    nodata: int = 0

    def freeze(self) -> Histogram:
        return Histogram(
            counts=self.counts,
            under=self.under,
            over=self.over,
            nonpositive=self.nonpositive,
            nodata=self.nodata,
        )


def classify(raw: Pixels, power: Pixels, source: ArraySource) -> Pixels | None:
    """Return the flags of a tile; None where every pixel is valid and positive.

    ``power`` is NaN where ``raw`` is the tag, NaN or Inf: nodata. Power at or below zero is
    nonpositive. Exact zeros without a tag are `UNDECIDED`; on dB too, where they are no power at all.
    """
    low = power.min()
    is_db = source.representation == cv.Representation.DB
    zeros: Pixels | None = None
    if source.has_untagged_zeros and (is_db or not low > 0):
        zeros = raw == 0
        zeros = zeros if zeros.any() else None
    if low > 0 and zeros is None:
        return None
    flags = np.zeros(raw.shape, np.uint8)
    if not is_db:
        flags[power <= 0] = cv.Flag.NONPOSITIVE
    if zeros is not None:
        flags[zeros] = UNDECIDED
    flags[np.isnan(power)] = cv.Flag.NODATA
    return flags


def _encode_tile(
    raw: Pixels, source: ArraySource, job: BlockJob, counts: _Counts, known: Pixels | None
) -> tuple[Pixels, Pixels | None]:
    """Return (stored values, flags) of a tile and count it; ``known`` are its flags if a pass found them."""
    power = power_kernel(raw, source.representation, nodata=source.nodata)
    if known is None:
        flags = classify(raw, power, source)
    else:
        flags = known if known.any() else None
        power[known == cv.Flag.BORDER] = np.nan
    db = db_kernel(power)
    counted = None if flags is None else _is_counted(flags, source, job.step)
    _count_others(db if counted is None else db[counted], flags, counts)
    stored_range = (source.vmin, source.vmax)
    classic = stored_range != cv.STORED_RANGE
    if classic:
        everything = normalize_kernel(db.copy(), cv.STORED_RANGE)
        _count_halves(half_codes_kernel(everything), counted, counts)
    z = normalize_kernel(db, stored_range)
    encoding = job.encoding
    if encoding.dtype == "uint16" or not classic:
        half = half_codes_kernel(z)
        if not classic:
            _count_halves(half, counted, counts)
        if encoding.dtype == "uint16":
            return codes_from_half(half), flags
    if flags is not None:
        z[(flags == cv.Flag.NODATA) | (flags == cv.Flag.BORDER)] = 0
    return z.astype(encoding.dtype, copy=False), flags


def _count_halves(half: Pixels, counted: Pixels | None, counts: _Counts) -> None:
    count_half_codes(half if counted is None else half[counted], counts.counts)


def _count_others(db: Pixels, flags: Pixels | None, counts: _Counts) -> None:
    """Count what has no bin of its own: pixels beyond the range, nonpositive and nodata ones."""
    if flags is not None:
        nodata = int(np.count_nonzero((flags == cv.Flag.NODATA) | (flags == cv.Flag.BORDER)))
        counts.nodata += nodata
        counts.nonpositive += flags.size - nodata - db.size
    if db.size and db.min() < cv.DB_FLOOR:
        counts.under += int(np.count_nonzero(db < cv.DB_FLOOR))
    if db.size and db.max() > cv.DB_CEILING:
        counts.over += int(np.count_nonzero(db > cv.DB_CEILING))


def _is_counted(flags: Pixels, source: ArraySource, step: Step) -> Pixels:
    """Which pixels have a dB value that counts: valid ones, and on dB the zeros that may yet be.

    The first pass of a classic store leaves such zeros out: 0 dB to the last bit is fill, nearly always.
    """
    valid: Pixels = flags == cv.Flag.VALID
    if source.representation == cv.Representation.DB and step is Step.WRITE:
        valid |= flags == UNDECIDED
    return valid


def write_block(job: BlockJob) -> Receipt:
    """Read one block, write its shards of codes and flags, and return what became of it.

    Peak memory is a few bands of ``band_rows`` x ``width``; nothing is returned but counts.
    """
    bands = _bands(job)
    return Receipt(
        scene=job.scene,
        at=job.at,
        arrays={source.name: _write_array(job, source, bands) for source in job.arrays},
    )


def _bands(job: BlockJob) -> tuple[tuple[int, int], ...]:
    """(first row, rows) of each band of a block."""
    return tuple(
        (row, min(job.band_rows, job.row + job.height - row))
        for row in range(job.row, job.row + job.height, job.band_rows)
    )


def _write_array(job: BlockJob, source: ArraySource, bands: tuple[tuple[int, int], ...]) -> ArrayReceipt:
    chunk = job.encoding.chunk
    counts, tracker = _Counts(), RegionTracker()
    data, flag_files = array_files(job, source.name)
    with data, flag_files:
        for first, rows in bands:
            raw = read_window(
                source.path, band=source.band, row=first, col=job.col, height=rows, width=job.width
            )
            known = _eroded_flags(job, source, first, rows) if job.border else None
            undecided: Pixels | None = None
            for row, col, tile in _tiles(raw, chunk):
                window = slice(row, row + chunk), slice(col, col + chunk)
                values: Pixels | None = None
                if job.step is Step.MASK:
                    flags = classify(
                        tile, power_kernel(tile, source.representation, nodata=source.nodata), source
                    )
                else:
                    mine = known if known is None else known[window]
                    values, flags = _encode_tile(tile, source, job, counts, mine)
                at = (first + row) // chunk, (job.col + col) // chunk
                if values is not None and job.step is Step.WRITE:
                    data.write(*at, _whole(values, chunk))
                if flags is not None and job.step is not Step.COUNT:
                    flag_files.write(*at, _whole(flags, chunk))
                    if UNDECIDED in flags:
                        if undecided is None:
                            undecided = np.zeros(raw.shape, bool)
                        undecided[window] = flags == UNDECIDED
            if undecided is None:
                tracker.add_empty(*raw.shape)
            else:
                tracker.add(undecided)
        return ArrayReceipt(
            shards=_every_file(job, data.close()),
            flag_shards=_every_file(job, flag_files.close()),
            histogram=counts.freeze(),
            regions=tracker.finish() if tracker.found else None,
        )


def _eroded_flags(job: BlockJob, source: ArraySource, first: int, rows: int) -> Pixels:
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
    flags[near & (flags < cv.Flag.NODATA)] = cv.Flag.BORDER
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


def _tiles(raw: Pixels, chunk: int) -> Iterator[tuple[int, int, Pixels]]:
    for row in range(0, raw.shape[0], chunk):
        for col in range(0, raw.shape[1], chunk):
            yield row, col, raw[row : row + chunk, col : col + chunk]


def _whole(tile: Pixels, chunk: int) -> Pixels:
    """Return the tile as a whole chunk, padded with zeros at the scene's right and bottom edges."""
    if tile.shape == (chunk, chunk):
        return np.ascontiguousarray(tile)
    out = np.zeros((chunk, chunk), tile.dtype)
    out[: tile.shape[0], : tile.shape[1]] = tile
    return out


def _every_file(job: BlockJob, records: dict[str, ShardRecord]) -> dict[str, ShardRecord]:
    """Account for every file of the block, the empty ones too."""
    size = job.encoding.file_size
    empty = ShardRecord(0, 0, 0)
    keys = (
        f"c/{row // size}/{col // size}"
        for row in range(job.row, job.row + job.height, size)
        for col in range(job.col, job.col + job.width, size)
    )
    return {key: records.get(key, empty) for key in keys}


# ------------------------------------------------------------------ deciding the zeros
def decide_zeros(job: BlockJob, receipt: Receipt, reaches: dict[str, Pixels]) -> Receipt:
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


def _decide_array(job: BlockJob, source: ArraySource, done: ArrayReceipt, reaches: Pixels) -> ArrayReceipt:
    chunk = job.encoding.chunk
    is_db = source.representation == cv.Representation.DB
    data, flag_files = array_files(job, source.name)
    tracker = RegionTracker()
    bands = [(first, rows, _staged_flags(job, flag_files, first, rows)) for first, rows in _bands(job)]
    for _, rows, flags in bands:
        if (flags == UNDECIDED).any():
            tracker.add(flags == UNDECIDED)
        else:
            tracker.add_empty(rows, job.width)
    outside = reaches[tracker.names()]
    again = RegionTracker()
    nodata = dark = 0
    with data, flag_files:
        for first, rows, flags in bands:
            undecided = flags == UNDECIDED
            if undecided.any():
                fill = outside[again.add(undecided)]
                flags[undecided] = cv.Flag.VALID if is_db else cv.Flag.NONPOSITIVE
                flags[fill] = cv.Flag.NODATA
                nodata, dark = nodata + int(fill.sum()), dark + int(undecided.sum())
            else:
                again.add_empty(rows, job.width)
            for row, col, tile in _tiles(flags, chunk):
                flag_files.write((first + row) // chunk, (job.col + col) // chunk, _whole(tile, chunk))
        flag_shards = _every_file(job, flag_files.close())
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


def _staged_flags(job: BlockJob, files: ArrayFiles, first: int, rows: int) -> Pixels:
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
            (row, col): mask >= cv.Flag.NODATA
            for row, col, mask in read_chunks(flag_folder / key, data.grid, get_codec(cv.FLAGS_CODEC), flags)
        }
        for row, col, tile in read_chunks(data.folder / key, data.grid, data.codec, values):
            if (row, col) in masks:
                tile[masks[row, col]] = 0
            data.write(int(i) * per + row, int(j) * per + col, tile)
    return {**done.shards, **data.close()}


# ------------------------------------------------------------------ receipts on disk
def receipt_to_json(receipt: Receipt) -> str:
    """Return a receipt as JSON, arrays compressed; `receipt_from_json` is the inverse."""

    def packed(values: Pixels) -> str:
        return base64.b64encode(zstd.compress(np.ascontiguousarray(values), 1)).decode()

    arrays = {}
    for name, a in receipt.arrays.items():
        used = np.flatnonzero(a.histogram.counts)
        h = a.histogram
        arrays[name] = {
            "shards": {k: [r.size, r.digest, r.chunks] for k, r in a.shards.items()},
            "flag_shards": {k: [r.size, r.digest, r.chunks] for k, r in a.flag_shards.items()},
            "bins": packed(used.astype("<i4")),
            "counts": packed(h.counts[used].astype("<i8")),
            "others": [h.under, h.over, h.nonpositive, h.nodata],
            "regions": None
            if a.regions is None
            else {
                k: v if isinstance(v, int) else packed(v.astype("<i4")) for k, v in asdict(a.regions).items()
            },
        }
    return json.dumps({"scene": receipt.scene, "at": list(receipt.at), "arrays": arrays})


def receipt_from_json(text: str) -> Receipt:
    """Return the receipt that `receipt_to_json` wrote."""

    def unpacked(value: str, dtype: str) -> Pixels:
        return np.frombuffer(zstd.decompress(base64.b64decode(value)), dtype)

    document = json.loads(text)
    arrays = {}
    for name, a in document["arrays"].items():
        counts = np.zeros(cv.HISTOGRAM_BINS, np.int64)
        counts[unpacked(a["bins"], "<i4")] = unpacked(a["counts"], "<i8")
        under, over, nonpositive, nodata = a["others"]
        regions = a["regions"] and BlockRegions(
            count=a["regions"]["count"],
            **{side: unpacked(a["regions"][side], "<i4") for side in ("top", "bottom", "left", "right")},
        )
        arrays[name] = ArrayReceipt(
            shards={k: ShardRecord(*r) for k, r in a["shards"].items()},
            flag_shards={k: ShardRecord(*r) for k, r in a["flag_shards"].items()},
            histogram=Histogram(
                counts=counts, under=under, over=over, nonpositive=nonpositive, nodata=nodata
            ),
            regions=regions,
        )
    return Receipt(scene=document["scene"], at=tuple(document["at"]), arrays=arrays)
