"""Kernels of radiometry: in place on contiguous float arrays, NumPy alone.

`sarzarr.pixels.radiometry` is their public face; ingest and the histograms call them directly. NumPy's vector
loops for ``log`` and ``exp`` may round strided memory differently, therefore what enters a kernel is
contiguous (`fresh` makes it so), and values do not depend on how an array lies in memory or is cut
into blocks. Between processors without the same vector instructions they may differ in the last bit.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from sarzarr import conventions as c
from sarzarr.arrays import Array
from sarzarr.conventions import Representation
from sarzarr.errors import InvalidInputError

DB_PER_NEPER: Final = 10.0 / math.log(10.0)
"""``10 log10(p) = DB_PER_NEPER ln(p)``. NumPy has vector code for float32 log and exp, none for log10."""
STANDS_FOR_NOTHING: Final = (-9999.0, -999.0, -99.0, -32768.0)
"""Values that say "no data" in files whose tags do not, besides float32's lowest: no backscatter is one of them."""
DB_LIMITS: Final = (-100.0, 100.0)
"""dB beyond which nothing was measured: the floor that power is held at, and more than a squared uint16 (96.3)."""
_LOWEST: Final = -3e38
_SINGLE: Final = 4 * float(np.finfo(np.float32).eps)
"""The relative difference up to which GDAL takes a pixel for its nodata value (``ARE_REAL_EQUAL`` of floats)."""
HALF_CODES: Final = 2 * c.STEPS
"""The half-code of 1.0: half-codes are the bins of a `sarzarr.pixels.bounds.Histogram`, two to a step of codes."""


def float_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that values of ``dtype`` are worked on in, float32 or float64; raises for no numbers."""
    most = {"f": 4, "c": 8, "i": 2, "u": 2, "b": 2}.get(dtype.kind)
    if most is None:
        raise InvalidInputError(f"pixel values must be numbers, got dtype {dtype}.")
    return np.dtype(np.float64 if dtype.itemsize > most else np.float32)


def check_bounds(bounds: Iterable[float]) -> tuple[float, float]:
    """Return (vmin, vmax) as Python floats; raises where they are not finite with vmin < vmax.

    Python floats, because a NumPy float64 would turn float32 pixels into float64. Spans whose
    reciprocal float32 cannot hold are refused with the empty ones.
    """
    pair = tuple(float(v) for v in bounds)
    if len(pair) != 2 or not 1e-30 < pair[1] - pair[0] < 1e30:  # false for NaN and for infinite bounds
        raise InvalidInputError(
            f"bounds must be two finite numbers (vmin, vmax) with vmin < vmax, got {pair}."
        )
    return pair


def restretch_coefficients(stored: Iterable[float], clip: Iterable[float]) -> tuple[float, float]:
    """Return (scale, offset): ``z * scale + offset`` is the stored ``z`` on the dB range of ``clip``."""
    vmin, vmax = check_bounds(stored)
    low, high = check_bounds(clip)
    return (vmax - vmin) / (high - low), (vmin - low) / (high - low)


def fresh(values: Any) -> Array:
    """Return real ``values`` as a new C-contiguous array, float32 or float64, NaN where a masked array is masked.

    Raises `InvalidInputError` for complex values and for what is no number.
    """
    is_masked = isinstance(values, np.ma.MaskedArray)
    data = values.data if is_masked else np.asarray(values)
    if data.dtype.kind == "c":
        raise InvalidInputError("expected real values, got complex ones. Call to_power first.")
    out = np.array(data, dtype=float_dtype(data.dtype), order="C")
    if is_masked:
        out[np.ma.getmaskarray(values)] = np.nan
    return out


def _placed(values: Array, out: Array | None) -> Array:
    """Return `fresh` values, in ``out`` if there is one."""
    if out is None:
        return fresh(values)
    np.copyto(out, values)
    return out


def sentinel_limits(nodata: float | None, dtype: np.dtype[Any]) -> tuple[Any, Any] | None:
    """Return the first and the last value of ``dtype`` that a nodata value means; None where no pixel can be one.

    Floats are equal within float32's precision, as GDAL has it: a tag may have fewer digits than the pixels. NaN and
    infinity are no number that a pixel could have by chance, and need no look.
    """
    if nodata is None or not math.isfinite(nodata):
        return None
    if dtype.kind == "f":
        reach = _SINGLE * abs(nodata)
        with np.errstate(over="ignore"):
            return dtype.type(nodata - reach), dtype.type(nodata + reach)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        is_held = nodata == int(nodata) and limits.min <= int(nodata) <= limits.max
        return (dtype.type(int(nodata)),) * 2 if is_held else None
    return dtype.type(nodata), dtype.type(nodata)


def is_sentinel(data: Array, nodata: float | None) -> Array:
    """Return bool of the shape of ``data``: where pixels are a nodata value, as `sentinel_limits` has it."""
    limits = sentinel_limits(nodata, data.dtype)
    if limits is None:
        return np.zeros(data.shape, bool)
    low, high = limits
    return np.asarray(data == low if low == high else (data >= low) & (data <= high))


def impossible(data: Array, representation: str) -> Array | None:
    """Return bool of the shape of ``data``: numbers that no radar measures; None where there is none.

    They are amplitudes below 0, dB beyond `DB_LIMITS`, and `STANDS_FOR_NOTHING` and float32's lowest. Power below 0
    is measured: noise was subtracted.
    """
    if data.size == 0 or data.dtype.kind not in ("iuf" if representation == Representation.DB else "if"):
        return None
    low = data.min()  # NaN where one is: then all are compared
    if representation == Representation.AMPLITUDE:
        return None if low >= 0 else np.asarray(data < 0)
    highest = max(STANDS_FOR_NOTHING)
    if representation == Representation.DB:
        if low > highest and data.max() <= DB_LIMITS[1]:
            return None
        return np.asarray((data < DB_LIMITS[0]) | (data > DB_LIMITS[1]) | (data == highest))
    if low > highest:
        return None
    found = data <= _LOWEST
    for value in STANDS_FOR_NOTHING:
        found |= data == value
    return np.asarray(found)


def power_kernel(
    raw: Any, representation: str, *, nodata: float | None = None, out: Array | None = None
) -> Array:
    """Return linear power, C-contiguous float32 or float64, NaN where ``raw`` is nodata, not finite or `impossible`.

    It is fresh, or ``out``: of the shape of ``raw`` and of `float_dtype` of its dtype.

    ``amplitude`` is squared, ``db`` becomes ``exp(db ln10/10)``, ``complex`` becomes ``re^2 + im^2``.
    Nonpositive power stays as it is: it was measured. ``raw`` is left untouched.
    """
    data = np.asarray(np.ma.getdata(raw))
    if (data.dtype.kind == "c") != (representation == Representation.COMPLEX):
        raise InvalidInputError(
            f"representation 'complex' belongs to complex values, got {representation!r} for {data.dtype}."
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not finite, and becomes NaN
        if representation == Representation.COMPLEX:
            power, imaginary = _placed(data.real, out), fresh(data.imag)
            np.multiply(power, power, out=power)
            power += np.multiply(imaginary, imaginary, out=imaginary)
        else:
            power = _placed(data, out)
            if representation == Representation.AMPLITUDE:
                np.multiply(power, power, out=power)
            elif representation == Representation.DB:
                linear_kernel(power)
            elif representation != Representation.POWER:
                raise InvalidInputError(
                    f"representation must be power, amplitude, db or complex, got {representation!r}. "
                    "Denormalize normalized values first."
                )
        if not np.isfinite(power.sum()):  # one cheap look; where it fails, the pixels are looked at
            np.copyto(power, np.nan, where=~np.isfinite(power))
        if (wrong := impossible(data, representation)) is not None:
            np.copyto(power, np.nan, where=wrong)
        if sentinel_limits(nodata, data.dtype) is not None:
            np.copyto(power, np.nan, where=is_sentinel(data, nodata))
    if isinstance(raw, np.ma.MaskedArray):
        np.copyto(power, np.nan, where=np.ma.getmaskarray(raw))
    return power


def db_kernel(power: Array, out: Array | None = None) -> Array:
    """Return dB, ``10 log10(max(power, 1e-10))``, in ``out`` (default: in place). NaN stays NaN."""
    out = power if out is None else out
    np.clip(power, c.NOISE_FLOOR, np.inf, out=out)  # five times as fast as np.maximum
    np.log(out, out=out)
    return np.multiply(out, DB_PER_NEPER, out=out)


def linear_kernel(db: Array, out: Array | None = None) -> Array:
    """Return dB as power, ``10 ** (db / 10)``, in ``out`` (default: in place). NaN stays NaN, too large is inf."""
    out = db if out is None else out
    with np.errstate(over="ignore"):
        np.multiply(db, 1.0 / DB_PER_NEPER, out=out)
        return np.exp(out, out=out)


def normalize_kernel(db: Array, bounds: Iterable[float]) -> Array:
    """Turn dB into ``clip((db - vmin) / (vmax - vmin), 0, 1)`` in place, and return it. NaN stays NaN."""
    vmin, vmax = check_bounds(bounds)
    with np.errstate(over="ignore"):
        np.subtract(db, vmin, out=db)
        np.multiply(db, 1.0 / (vmax - vmin), out=db)
    return np.clip(db, 0.0, 1.0, out=db)


def denormalize_kernel(z: Array, bounds: Iterable[float]) -> Array:
    """Turn [0, 1] into dB in place, and return it. NaN stays NaN."""
    vmin, vmax = check_bounds(bounds)
    with np.errstate(over="ignore"):
        np.multiply(z, vmax - vmin, out=z)
        return np.add(z, vmin, out=z)


def restretch_kernel(z: Array, scale: float, offset: float) -> Array:
    """Turn ``z`` into [0, 1], ``clip(z * scale + offset, 0, 1)``, in place, and return it. NaN stays NaN."""
    with np.errstate(over="ignore"):
        np.multiply(z, scale, out=z)
        np.add(z, offset, out=z)
    return np.clip(z, 0.0, 1.0, out=z)


def half_codes_kernel(z: Array, *, out: Array | None = None, spoil: bool = False) -> Array:
    """Return int32 half-codes ``trunc(z * 131068)`` of ``z`` in [0, 1] or NaN; NaN gives 0.

    They are in ``out`` if there is one. ``z`` stays, unless it may be spoilt, which saves an array.
    """
    scaled = np.multiply(z, HALF_CODES, out=z if spoil else np.empty_like(z))
    if scaled.size and np.isnan(scaled.min()):
        np.copyto(scaled, 0, where=np.isnan(scaled))
    half = np.empty(z.shape, np.int32) if out is None else out
    np.copyto(half, scaled, casting="unsafe")
    return half


def codes_from_half(half: Array, *, out: Array | None = None, spoil: bool = False) -> Array:
    """Return uint16 codes ``1 + (half + 1 >> 1)``: the nearest of 1..65535.

    They are in ``out`` if there is one. ``half`` stays, unless it may be spoilt.
    """
    rounded = np.add(half, np.int32(1 + 2 * c.FIRST_CODE), out=half if spoil else np.empty_like(half))
    np.right_shift(rounded, 1, out=rounded)
    codes = np.empty(half.shape, np.uint16) if out is None else out
    np.copyto(codes, rounded, casting="unsafe")
    return codes
