"""One block of one raster: read, identify what is valid, normalise, write whole shards, report.

A block is a rectangle of whole shards. It is read in bands that follow the file's own blocks, and
each chunk is worked on while it is in cache, so a process needs a few bands and no more. What
crosses a process boundary is a `BlockJob` on the way in and a `Receipt` on the way out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import ndimage

from sarzarr import conventions as cv
from sarzarr.bounds import Histogram, count_half_codes
from sarzarr.codecs import get_codec
from sarzarr.documents import Encoding
from sarzarr.fused import Loops, loops_for
from sarzarr.kernels import DB_PER_NEPER, HALF_CODES, float_dtype
from sarzarr.radiometry import (
    codes_from_half,
    db_kernel,
    half_codes_kernel,
    normalize_kernel,
    power_kernel,
)
from sarzarr.rasters import read_window
from sarzarr.receipts import ArrayReceipt, Receipt
from sarzarr.regions import RegionTracker
from sarzarr.resampling import Passthrough, WarpPlan
from sarzarr.shards import ArrayFiles, ShardRecord, read_stored
from sarzarr.warp import read_warped

Pixels = np.ndarray[Any, Any]
GROUP: Final = 2
"""Chunks side by side that are worked on at once: few enough for the cache, enough to make calls few."""
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

    def read(self, *, row: int, col: int, height: int, width: int, out: Pixels | None = None) -> Pixels:
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


class _Scratch:
    """Arrays that a block's tiles are worked on in, one after another.

    Fresh ones for each tile would cost as much as the work: threads wait for one another while the
    kernel gives and takes back their pages.
    """

    def __init__(self, job: BlockJob, source: ArraySource, dtype: np.dtype[Any]) -> None:
        self.fast = FastPath.of(job, source, dtype)
        self.columns = job.encoding.chunk * (GROUP if self.fast is None else 1)
        self.size = job.encoding.chunk * self.columns
        self.power = np.empty(self.size, float_dtype(dtype))
        self.whole_range = np.empty(self.size, self.power.dtype)
        self.half = np.empty(self.size, np.int32)
        self.codes = np.empty(self.size, np.uint16)

    def like(self, array: Pixels, shape: tuple[int, ...]) -> Pixels:
        """Return the part of ``array`` that a tile of ``shape`` takes, contiguous."""
        return array[: math.prod(shape)].reshape(shape)

    def encode_clean(
        self,
        band: Pixels,
        row: int,
        col: int,
        shape: tuple[int, ...],
        known: Pixels | None,
        counts: "_Counts",
    ) -> Pixels | None:
        """Return the stored values of a tile of ``band`` whose every pixel is valid and positive, and count it.

        None, with nothing counted, where it is not so, or where loops are not compiled. The bits are those of
        `_encode_tile`.
        """
        if self.fast is None or (known is not None and known.any()):
            return None
        logs = self.fast.logs(band, row, col, self.like(self.power, shape))
        return None if logs is None else self.fast.encoded(logs, self.like(self.codes, shape), counts)


@dataclass(frozen=True, kw_only=True)
class FastPath:
    """The numbers of `_encode_tile`, as compiled loops take them: every one float32."""

    loops: Loops
    """The loops."""
    squares: bool
    """Whether values are amplitudes."""
    sentinel: Any
    """The file's nodata in its own dtype; NaN or a value that cannot be where there is none."""
    law: tuple[np.float32, ...]
    """dB a neper, dB that 0 stands for, reciprocal of the range: of what is stored."""
    whole: tuple[np.float32, ...]
    """The same of what is counted."""
    dtype: str
    """What is stored."""
    half: Pixels = field(default_factory=lambda: np.empty(2048, np.int32))
    """(2048,) int32: a part of the half-codes that stays in the first cache."""

    @classmethod
    def of(cls, job: BlockJob, source: ArraySource, dtype: np.dtype[Any]) -> "FastPath | None":
        """Return the path for one array; None where its values take another, or loops are not compiled."""
        is_plain = source.representation in (cv.Representation.POWER, cv.Representation.AMPLITUDE)
        is_plain &= float_dtype(dtype) == np.float32 and dtype in (np.float32, np.uint16, np.int16, np.uint8)
        stored = source.vmin, source.vmax
        is_plain &= job.encoding.dtype == "float32" or stored == cv.STORED_RANGE
        is_plain &= job.encoding.dtype in ("float32", "uint16") and job.step is not Step.MASK
        compiled = loops_for(job.workload) if is_plain else None
        if compiled is None:
            return None
        return cls(
            loops=compiled,
            squares=source.representation == cv.Representation.AMPLITUDE,
            sentinel=_sentinel_like(source.nodata, dtype),
            law=_law(stored),
            whole=_law(cv.STORED_RANGE),
            dtype=job.encoding.dtype,
        )

    def logs(self, band: Pixels, row: int, col: int, out: Pixels) -> Pixels | None:
        """Return natural logarithms of the power of a tile, in ``out``; None where a pixel has none that counts."""
        floor = np.float32(cv.NOISE_FLOOR).view(np.int32)
        is_clean = self.loops.floored_power(
            band, row, col, self.sentinel, self.squares, floor, out, out.view(np.int32)
        )
        return np.log(out, out=out) if is_clean else None

    def encoded(self, logs: Pixels, codes: Pixels, counts: _Counts) -> Pixels:
        """Return the stored values, in one of both, and count them."""
        top, limits = np.float32(HALF_CODES), (np.float32(cv.DB_FLOOR), np.float32(cv.DB_CEILING))
        flat, bins = logs.reshape(-1), counts.counts
        if self.dtype == "uint16":
            found = self.loops.codes_of_logs(flat, self.law, top, limits, codes.reshape(-1), self.half, bins)
        else:
            found = self.loops.floats_of_logs(flat, self.law, self.whole, top, limits, self.half, bins)
        counts.under += found[0]
        counts.over += found[1]
        return codes if self.dtype == "uint16" else logs


def _law(bounds: tuple[float, float]) -> tuple[np.float32, ...]:
    vmin, vmax = bounds
    return np.float32(DB_PER_NEPER), np.float32(vmin), np.float32(1.0 / (vmax - vmin))


def _sentinel_like(nodata: float | None, dtype: np.dtype[Any]) -> Any:
    """Return what to compare pixels with: ``nodata`` where the dtype has it, else what no positive pixel is."""
    nothing = dtype.type(0)
    if nodata is None or math.isnan(nodata):
        return nothing
    if dtype.kind == "f":
        with np.errstate(
            over="ignore"
        ):  # what the dtype cannot hold is infinite, and so are no pixels that count
            return dtype.type(nodata)
    limits = np.iinfo(dtype)
    is_there = (
        nodata == int(nodata) and limits.min <= nodata <= limits.max if math.isfinite(nodata) else False
    )
    return dtype.type(int(nodata)) if is_there else nothing


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
    raw: Pixels, source: ArraySource, job: BlockJob, counts: _Counts, known: Pixels | None, scratch: _Scratch
) -> tuple[Pixels, Pixels | None]:
    """Return (stored values, flags) of a tile and count it; ``known`` are its flags if a pass found them.

    The values are good until the next tile.
    """
    power = power_kernel(
        raw, source.representation, nodata=source.nodata, out=scratch.like(scratch.power, raw.shape)
    )
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
        everything = scratch.like(scratch.whole_range, db.shape)
        np.copyto(everything, db)
        half = half_codes_kernel(
            normalize_kernel(everything, cv.STORED_RANGE),
            out=scratch.like(scratch.half, db.shape),
            spoil=True,
        )
        _count_halves(half, counted, counts)
    z = normalize_kernel(db, stored_range)
    encoding = job.encoding
    if encoding.dtype == "uint16" or not classic:
        half = half_codes_kernel(
            z, out=scratch.like(scratch.half, z.shape), spoil=job.encoding.dtype == "uint16"
        )
        if not classic:
            _count_halves(half, counted, counts)
        if encoding.dtype == "uint16":
            return codes_from_half(half, out=scratch.like(scratch.codes, z.shape), spoil=True), flags
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
    counts, tracker = _Counts(), RegionTracker()
    data, flag_files = array_files(job, source.name)
    raw: Pixels | None = None
    with data, flag_files:
        for first, rows in bands(job):
            room = raw if raw is not None and raw.shape == (rows, job.width) else None
            raw = source.read(row=first, col=job.col, height=rows, width=job.width, out=room)
            if first == job.row:
                scratch = _Scratch(job, source, raw.dtype)
            known = _eroded_flags(job, source, first, rows) if job.border else None
            undecided: Pixels | None = None
            for row, col, tile in tiles(raw, chunk, scratch.columns):
                window = slice(row, row + chunk), slice(col, col + scratch.columns)
                values: Pixels | None = None
                if job.step is Step.MASK:
                    flags = classify(
                        tile, power_kernel(tile, source.representation, nodata=source.nodata), source
                    )
                else:
                    mine = known if known is None else known[window]
                    values, flags = scratch.encode_clean(raw, row, col, tile.shape, mine, counts), None
                    if values is None:
                        values, flags = _encode_tile(tile, source, job, counts, mine, scratch)
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


def region_mask(flags: Pixels, source: ArraySource) -> Pixels:
    """Return the pixels whose regions are judged: undecided zeros.

    Warped, the scene's own edge lies inside the grid: what is outside of it, and reaches the grid's edge, joins.
    """
    mask: Pixels = flags == UNDECIDED
    if source.is_warped:
        mask |= flags == cv.Flag.NODATA
    return mask


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


def tiles(raw: Pixels, rows: int, cols: int) -> Iterator[tuple[int, int, Pixels]]:
    """Yield (row, column, view) of the tiles of a band, those at its right and bottom as they are."""
    for row in range(0, raw.shape[0], rows):
        for col in range(0, raw.shape[1], cols):
            yield row, col, raw[row : row + rows, col : col + cols]


def _write_chunks(files: ArrayFiles, at: tuple[int, int], values: Pixels, chunk: int) -> None:
    """Write a tile of chunks side by side, the first one at row and column ``at`` of the chunks."""
    for _, col, tile in tiles(values, chunk, chunk):
        files.write(at[0], at[1] + col // chunk, whole(tile, chunk))


def whole(tile: Pixels, chunk: int) -> Pixels:
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
