"""Tiles of a band: their stored values and flags, and the counts of their pixels.

Two ways to the same bits: NumPy, for every tile there is; and compiled loops, for tiles whose every pixel is
valid and positive, which most are.
"""

import math
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.ingestion.blocks.flags import classify, is_invalid, with_faint
from sarzarr.ingestion.blocks.jobs import ArraySource, BlockJob, Step
from sarzarr.pixels.bounds import Histogram, count_half_codes
from sarzarr.pixels.calibration import Calibration
from sarzarr.pixels.compiled.when import loops_for
from sarzarr.pixels.kernels import (
    DB_LIMITS,
    DB_PER_NEPER,
    HALF_CODES,
    STANDS_FOR_NOTHING,
    codes_from_half,
    db_kernel,
    float_dtype,
    half_codes_kernel,
    impossible,
    is_sentinel,
    normalize_kernel,
    power_kernel,
    sentinel_limits,
)

GROUP: Final = 2
"""Chunks side by side that NumPy works on at once: few enough for the cache, enough to make calls few."""
_LIMITS: Final = np.array((cv.DB_FLOOR, cv.DB_CEILING), np.float32)
_NO_GAINS: Final = np.empty(0, np.float32)
_FLOOR_BITS: Final = int(np.float32(cv.NOISE_FLOOR).view(np.int32))


@dataclass
class Counts:
    """The histogram of one array in one block, being filled."""

    counts: Array = field(default_factory=lambda: np.zeros(cv.HISTOGRAM_BINS, np.int64))
    """(131069,) int64: pixels of each half-code."""
    under: int = 0
    """Pixels below the stored range."""
    over: int = 0
    """Pixels above it."""
    nonpositive: int = 0
    """Valid pixels without a dB."""
    nodata: int = 0
    """Pixels that are not valid."""

    def freeze(self) -> Histogram:
        """Return the histogram of all pixels that were counted."""
        return Histogram(**vars(self))


@dataclass(frozen=True, kw_only=True)
class FastPath:
    """The numbers of `TileEncoder`, as compiled loops take them: every one float32."""

    loops: ModuleType
    """`sarzarr.pixels.compiled.loops`."""
    squares: bool
    """Whether values are amplitudes."""
    is_db: bool
    """Whether values are dB, float32."""
    sentinels: tuple[Any, Any]
    """The first and last value of the file's dtype that its nodata means; 0, which is no power that counts, where
    there is none."""
    law: Array
    """dB a neper, dB that 0 stands for, reciprocal of the range: of what is stored."""
    whole: Array
    """The same of what is counted."""
    dtype: str
    """The stored dtype."""
    gains: Array | None
    """(columns,) float32: what the power of each of the block's columns is multiplied by; None: nothing."""
    half: Array = field(default_factory=lambda: np.empty(2048, np.int32))
    """(2048,) int32: a part of the half-codes that stays in the first cache."""

    @classmethod
    def of(cls, job: BlockJob, source: ArraySource, dtype: np.dtype[Any]) -> "FastPath | None":
        """Return the float32 path for one array; None where its values take another, or loops are not compiled."""
        is_db = source.representation == cv.Representation.DB and dtype == np.float32
        is_plain = is_db or source.representation in (cv.Representation.POWER, cv.Representation.AMPLITUDE)
        is_plain &= float_dtype(dtype) == np.float32 and dtype in (np.float32, np.uint16, np.int16, np.uint8)
        is_plain &= job.encoding.dtype in ("float32", "uint16") and job.step is not Step.MASK
        calibration = source.calibration
        is_plain &= calibration is None or calibration.is_plain
        compiled = loops_for(job.workload) if is_plain else None
        if compiled is None:
            return None
        return cls(
            loops=compiled,
            squares=source.representation == cv.Representation.AMPLITUDE,
            is_db=is_db,
            sentinels=sentinel_limits(source.nodata, dtype) or (dtype.type(0), dtype.type(0)),
            law=_law((source.vmin, source.vmax)),
            whole=_law(cv.STORED_RANGE),
            dtype=job.encoding.dtype,
            gains=None if calibration is None else _gains(calibration, source.offset[1] + job.col, job.width),
        )

    def logs(self, band: Array, row: int, col: int, out: Array) -> Array | None:
        """Return natural logarithms of the power of a tile, in ``out``; None where a pixel has none that counts."""
        if self.is_db:
            return self._logs_of_db(band[row : row + out.shape[0], col : col + out.shape[1]], out)
        gains = _NO_GAINS if self.gains is None else self.gains[col : col + out.shape[1]]
        is_clean = self.loops.FLOORED_POWER[band.dtype](
            band, (row, col), self.sentinels, self.squares, gains, _FLOOR_BITS, out
        )
        return np.log(out, out=out) if is_clean else None

    def _logs_of_db(self, db: Array, out: Array) -> Array | None:
        """Return `logs` of dB: none of them may be NaN, nodata or `impossible`, and all are above the floor then."""
        low, high = db.min(), db.max()
        if not (low > max(STANDS_FOR_NOTHING) and high <= DB_LIMITS[1]):
            return None
        first, last = self.sentinels
        if low <= last and first <= high and ((db >= first) & (db <= last)).any():
            return None
        np.multiply(db, 1.0 / DB_PER_NEPER, out=out)
        return np.log(np.exp(out, out=out), out=out)

    def encoded(self, logs: Array, codes: Array, counts: Counts) -> Array:
        """Return the stored values of a tile, uint16 in ``codes`` or float32 in ``logs``, and count them."""
        flat, laws = logs.reshape(-1), (self.law, self.whole, HALF_CODES, _LIMITS)
        found = np.zeros(2, np.int64)
        into = codes.reshape(-1) if self.dtype == "uint16" else None
        self.loops.encode_logs(flat, laws, into, self.half, counts.counts, found)
        counts.under += int(found[0])
        counts.over += int(found[1])
        return codes if self.dtype == "uint16" else logs


def _law(bounds: tuple[float, float]) -> Array:
    vmin, vmax = bounds
    return np.array((DB_PER_NEPER, vmin, 1.0 / (vmax - vmin)), np.float32)


def _gains(calibration: Calibration, col: int, width: int) -> Array:
    """Return linear power per DN^2 of columns, (width,) float32."""
    gains = calibration.gain(row=0, col=col, height=1, width=width)[0]
    return np.array(np.broadcast_to(gains, width))


class TileEncoder:
    """Encode the tiles of one array in one block, one after another, and count their pixels.

    It works in buffers of its own. Fresh ones for each tile would cost as much as the work: threads wait for one
    another while the kernel gives and takes back their pages.
    """

    def __init__(self, job: BlockJob, source: ArraySource, dtype: np.dtype[Any]) -> None:
        self.job, self.source, self.counts = job, source, Counts()
        self.impossible = 0
        self.fast = FastPath.of(job, source, dtype)
        self.columns = job.encoding.chunk * (GROUP if self.fast is None else 1)
        size = job.encoding.chunk * self.columns
        self._power = np.empty(size, float_dtype(dtype))
        self._whole_range = np.empty(size, self._power.dtype)
        self._half = np.empty(size, np.int32)
        self._codes = np.empty(size, np.uint16)

    def encode(
        self, band: Array, row: int, col: int, known: Array | None = None, *, top: int = 0
    ) -> tuple[Array | None, Array | None]:
        """Return (stored values, flags) of the tile of a band at (row, col), and count it.

        Values are codes or floats, good until the next tile; None in the pass for flags alone. Flags are uint8;
        None where every pixel is valid and positive. ``known`` are the band's flags if a pass found them;
        ``top`` is the band's first row in what is stored.
        """
        window = slice(row, row + self.job.encoding.chunk), slice(col, col + self.columns)
        tile, known = band[window], None if known is None else known[window]
        if self.job.step is Step.MASK:
            return None, self._mask(tile, top + row, col)
        if self.fast is not None and band.flags.c_contiguous and (known is None or not known.any()):
            logs = self.fast.logs(band, row, col, _part(self._power, tile.shape))
            if logs is not None:
                return self.fast.encoded(logs, _part(self._codes, tile.shape), self.counts), None
        return self._encode(tile, self._power_of(tile, top + row, col), known)

    def _mask(self, raw: Array, row: int, col: int) -> Array | None:
        """Return the flags of a tile, (rows, columns) uint8, in the pass that finds borders."""
        source, (height, width) = self.source, raw.shape
        flags = classify(raw, self._power_of(raw, row, col), source)
        if source.border_noise is None:
            return flags
        noise = source.border_noise.window(row=row, col=self.job.col + col, height=height, width=width)
        return with_faint(flags, power_kernel(raw, source.representation, nodata=source.nodata) <= noise)

    def _power_of(self, raw: Array, row: int, col: int) -> Array:
        """Return the linear power of a tile whose first pixel is at a row of the scene and a column of the block."""
        source = self.source
        power = power_kernel(
            raw, source.representation, nodata=source.nodata, out=_part(self._power, raw.shape)
        )
        if source.calibration is not None:
            down, across = source.offset
            source.calibration.apply(power, row=down + row, col=across + self.job.col + col)
        return power

    def _encode(self, raw: Array, power: Array, known: Array | None) -> tuple[Array, Array | None]:
        """Return the result of `encode` by NumPy: of any dtype, with pixels of any kind."""
        source = self.source
        flags = classify(raw, power, source) if known is None else known if known.any() else None
        db = db_kernel(power)
        counted = None if flags is None else flags == cv.Flag.VALID
        if flags is not None:
            self._count_impossible(raw)
        self._count_others(db if counted is None else db[counted], flags)
        return self._stored(db, flags, counted), flags

    def _stored(self, db: Array, flags: Array | None, counted: Array | None) -> Array:
        """Return the stored values of ``db``, which is spoilt, and count those of ``counted`` (all if None)."""
        stored_range, dtype = (self.source.vmin, self.source.vmax), self.job.encoding.dtype
        is_whole, is_coded = stored_range == cv.STORED_RANGE, dtype == "uint16"
        half = _part(self._half, db.shape)
        if not is_whole:  # a classic store: what is counted is not what is stored
            everything = _part(self._whole_range, db.shape)
            np.copyto(everything, db)
            half_codes_kernel(normalize_kernel(everything, cv.STORED_RANGE), out=half, spoil=True)
            count_half_codes(half if counted is None else half[counted], self.counts.counts)
        z = normalize_kernel(db, stored_range)
        if is_coded or is_whole:
            half_codes_kernel(z, out=half, spoil=is_coded)
        if is_whole:
            count_half_codes(half if counted is None else half[counted], self.counts.counts)
        if is_coded:
            stored = codes_from_half(half, out=_part(self._codes, z.shape), spoil=True)
        else:
            stored = z.astype(dtype, copy=False)
        if flags is not None:
            # Undecided zeros, too, until they are decided.
            stored[~cv.Flag.is_valid(flags)] = self.job.encoding.fill
        return stored

    def _count_impossible(self, raw: Array) -> None:
        """Count what is not valid for its value alone, whatever tags and masks say."""
        wrong = impossible(raw, self.source.representation)
        if wrong is not None:
            wrong &= np.isfinite(raw) & ~is_sentinel(raw, self.source.nodata)
            self.impossible += int(np.count_nonzero(wrong))

    def _count_others(self, db: Array, flags: Array | None) -> None:
        """Count what has no bin of its own: pixels beyond the range, nonpositive and nodata ones."""
        if flags is not None:
            nodata = int(np.count_nonzero(is_invalid(flags)))
            self.counts.nodata += nodata
            self.counts.nonpositive += flags.size - nodata - db.size
        if db.size and db.min() < cv.DB_FLOOR:
            self.counts.under += int(np.count_nonzero(db < cv.DB_FLOOR))
        if db.size and db.max() > cv.DB_CEILING:
            self.counts.over += int(np.count_nonzero(db > cv.DB_CEILING))


def _part(buffer: Array, shape: tuple[int, ...]) -> Array:
    """Return the part of a buffer that a tile of ``shape`` takes, contiguous."""
    return buffer[: math.prod(shape)].reshape(shape)
