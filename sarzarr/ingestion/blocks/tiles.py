"""One tile of a band: which pixels are valid, what is stored of them, and how many there are of each.

Two ways to the same bits: NumPy, for every tile there is; and compiled loops, for tiles whose every pixel is
valid and positive, which most are.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.ingestion.blocks.jobs import ArraySource, BlockJob, Step
from sarzarr.pixels.bounds import Histogram, count_half_codes
from sarzarr.pixels.compiled.calls import Loops
from sarzarr.pixels.compiled.fused import loops_for
from sarzarr.pixels.kernels import (
    DB_PER_NEPER,
    HALF_CODES,
    codes_from_half,
    db_kernel,
    float_dtype,
    half_codes_kernel,
    normalize_kernel,
    power_kernel,
)

GROUP: Final = 2
"""Chunks side by side that NumPy works on at once: few enough for the cache, enough to make calls few."""
UNDECIDED: Final = 4
"""Staged flag of an exact zero that may be nodata or dark: decided once the whole scene is known."""
_LIMITS: Final = np.array((cv.DB_FLOOR, cv.DB_CEILING), np.float32)
_FLOOR_BITS: Final = int(np.float32(cv.NOISE_FLOOR).view(np.int32))


@dataclass
class Counts:
    """The histogram of one array in one block, being filled."""

    counts: Array = field(default_factory=lambda: np.zeros(cv.HISTOGRAM_BINS, np.int64))
    under: int = 0
    over: int = 0
    nonpositive: int = 0
    nodata: int = 0

    def freeze(self) -> Histogram:
        """Return what was counted."""
        return Histogram(
            counts=self.counts,
            under=self.under,
            over=self.over,
            nonpositive=self.nonpositive,
            nodata=self.nodata,
        )


@dataclass(frozen=True, kw_only=True)
class FastPath:
    """The numbers of `encode_tile`, as compiled loops take them: every one float32."""

    loops: Loops
    """The loops."""
    squares: bool
    """Whether values are amplitudes."""
    sentinel: Any
    """The file's nodata in its own dtype; 0, which is no power that counts, where there is none."""
    law: Array
    """dB a neper, dB that 0 stands for, reciprocal of the range: of what is stored."""
    whole: Array
    """The same of what is counted."""
    dtype: str
    """What is stored."""
    half: Array = field(default_factory=lambda: np.empty(2048, np.int32))
    """(2048,) int32: a part of the half-codes that stays in the first cache."""

    @classmethod
    def of(cls, job: BlockJob, source: ArraySource, dtype: np.dtype[Any]) -> "FastPath | None":
        """Return the path for one array; None where its values take another, or loops are not compiled."""
        is_plain = source.representation in (cv.Representation.POWER, cv.Representation.AMPLITUDE)
        is_plain &= float_dtype(dtype) == np.float32 and dtype in (np.float32, np.uint16, np.int16, np.uint8)
        is_plain &= job.encoding.dtype in ("float32", "uint16") and job.step is not Step.MASK
        compiled = loops_for(job.workload) if is_plain else None
        if compiled is None:
            return None
        return cls(
            loops=compiled,
            squares=source.representation == cv.Representation.AMPLITUDE,
            sentinel=_sentinel_like(source.nodata, dtype),
            law=_law((source.vmin, source.vmax)),
            whole=_law(cv.STORED_RANGE),
            dtype=job.encoding.dtype,
        )

    def logs(self, band: Array, row: int, col: int, out: Array) -> Array | None:
        """Return natural logarithms of the power of a tile, in ``out``; None where a pixel has none that counts."""
        is_clean = self.loops.floored_power(
            band, row, col, self.sentinel, self.squares, _FLOOR_BITS, out, out.view(np.int32)
        )
        return np.log(out, out=out) if is_clean else None

    def encoded(self, logs: Array, codes: Array, counts: Counts) -> Array:
        """Return the stored values, in one of both, and count them."""
        flat, rest = logs.reshape(-1), (self.half, counts.counts)
        laws = self.law, self.whole, HALF_CODES, _LIMITS
        if self.dtype == "uint16":
            found = self.loops.codes_of_logs(flat, *laws, codes.reshape(-1), *rest)
        else:
            found = self.loops.floats_of_logs(flat, *laws, *rest)
        counts.under += found[0]
        counts.over += found[1]
        return codes if self.dtype == "uint16" else logs


def _law(bounds: tuple[float, float]) -> Array:
    vmin, vmax = bounds
    return np.array((DB_PER_NEPER, vmin, 1.0 / (vmax - vmin)), np.float32)


def _sentinel_like(nodata: float | None, dtype: np.dtype[Any]) -> Any:
    """Return what to compare pixels with: ``nodata`` where the dtype has it, else what no positive pixel is."""
    nothing = dtype.type(0)
    if nodata is None or math.isnan(nodata):
        return nothing
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # a value beyond the dtype is infinite: no pixel that counts is
            return dtype.type(nodata)
    limits = np.iinfo(dtype)
    has_it = limits.min <= nodata <= limits.max and nodata == int(nodata)
    return dtype.type(int(nodata)) if has_it else nothing


class Scratch:
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

    def like(self, array: Array, shape: tuple[int, ...]) -> Array:
        """Return the part of ``array`` that a tile of ``shape`` takes, contiguous."""
        return array[: math.prod(shape)].reshape(shape)

    def encode_clean(
        self,
        band: Array,
        row: int,
        col: int,
        shape: tuple[int, ...],
        known: Array | None,
        counts: Counts,
    ) -> Array | None:
        """Return the stored values of a tile of ``band`` whose every pixel is valid and positive, and count it.

        None, with nothing counted, where it is not so, or where loops are not compiled. The bits are those of
        `encode_tile`.
        """
        if self.fast is None or not band.flags.c_contiguous or (known is not None and known.any()):
            return None
        logs = self.fast.logs(band, row, col, self.like(self.power, shape))
        return None if logs is None else self.fast.encoded(logs, self.like(self.codes, shape), counts)


def classify(raw: Array, power: Array, source: ArraySource) -> Array | None:
    """Return the flags of a tile; None where every pixel is valid and positive.

    ``power`` is NaN where ``raw`` is the tag, NaN or Inf: nodata. Power at or below zero is
    nonpositive. Exact zeros without a tag are `UNDECIDED`; on dB too, where they are no power at all.
    """
    low = power.min()
    is_db = source.representation == cv.Representation.DB
    zeros: Array | None = None
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


def encode_tile(
    raw: Array, source: ArraySource, job: BlockJob, counts: Counts, known: Array | None, scratch: Scratch
) -> tuple[Array, Array | None]:
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
        z[_is_missing(flags)] = 0
    return z.astype(encoding.dtype, copy=False), flags


def _is_missing(flags: Array) -> Array:
    """Return which pixels were not measured, bool; of an undecided zero that is not known."""
    missing: Array = ~(cv.Flag.is_valid(flags) | (flags == UNDECIDED))
    return missing


def _count_halves(half: Array, counted: Array | None, counts: Counts) -> None:
    count_half_codes(half if counted is None else half[counted], counts.counts)


def _count_others(db: Array, flags: Array | None, counts: Counts) -> None:
    """Count what has no bin of its own: pixels beyond the range, nonpositive and nodata ones."""
    if flags is not None:
        nodata = int(np.count_nonzero(_is_missing(flags)))
        counts.nodata += nodata
        counts.nonpositive += flags.size - nodata - db.size
    if db.size and db.min() < cv.DB_FLOOR:
        counts.under += int(np.count_nonzero(db < cv.DB_FLOOR))
    if db.size and db.max() > cv.DB_CEILING:
        counts.over += int(np.count_nonzero(db > cv.DB_CEILING))


def _is_counted(flags: Array, source: ArraySource, step: Step) -> Array:
    """Which pixels have a dB value that counts: valid ones, and on dB the zeros that may yet be.

    The first pass of a classic store leaves such zeros out: 0 dB to the last bit is fill, nearly always.
    """
    valid: Array = flags == cv.Flag.VALID
    if source.representation == cv.Representation.DB and step is Step.WRITE:
        valid |= flags == UNDECIDED
    return valid
