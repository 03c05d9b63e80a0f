"""Linear power, dB, [0, 1] and uint16 codes: one law for each step, the same to the bit everywhere.

The public functions take NumPy, Dask and xarray objects alike. Underneath are kernels that work in
place on contiguous float arrays. Everything goes through them, ingest included, so that values do not
depend on how an array is cut into blocks or strided in memory: NumPy's vector loops for ``log`` and
``exp`` may round differently on strided memory, therefore each kernel is fed a contiguous array.

Floats keep their precision (float32 stays float32, float64 stays float64); integers of up to 16 bits
become float32, wider ones float64; complex64 becomes float32, complex128 float64.
"""

import math
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar, cast

import numpy as np

from sarzarr import conventions as c
from sarzarr.conventions import Representation
from sarzarr.errors import InvalidInputError

Array = np.ndarray[Any, Any]
T = TypeVar("T")

DB_PER_NEPER: Final = 10.0 / math.log(10.0)
"""``10 log10(p) = DB_PER_NEPER ln(p)``. NumPy has vector code for float32 log and exp, none for log10."""
HALF_CODES: Final = 2 * c.MAX_CODE
"""The half-code of 1.0: half-codes are the bins of a `sarzarr.Histogram`, two to a code."""
DB_SUFFIX: Final = "_db"
"""What the name of an xarray array in dB ends in."""

STALE_ATTRS: Final = frozenset(
    {"_FillValue", "missing_value", "scale_factor", "add_offset", "scales", "offsets"}
    | {"valid_min", "valid_max", "valid_range", "actual_range", c.SOURCE_NODATA, c.VMIN, c.VMAX}
)
"""Attributes that describe the values before a step, and would be false after it."""


# ---------------------------------------------------------------- laws of dtype and bounds
def float_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the float dtype that values of ``dtype`` are worked on in; raises for what is no number."""
    if dtype.kind == "f":
        return np.dtype(np.float64 if dtype.itemsize > 4 else np.float32)
    if dtype.kind == "c":
        return np.dtype(np.float64 if dtype.itemsize > 8 else np.float32)
    if dtype.kind in "iub":
        return np.dtype(np.float64 if dtype.itemsize > 2 else np.float32)
    raise InvalidInputError(f"pixel values must be numbers, got dtype {dtype}.")


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
    """Return (scale, offset): ``z * scale + offset`` is the stored ``z`` on the range of ``clip``."""
    vmin, vmax = check_bounds(stored)
    low, high = check_bounds(clip)
    return (vmax - vmin) / (high - low), (vmin - low) / (high - low)


# ---------------------------------------------------------------- kernels, on contiguous float arrays
def fresh(values: Any) -> Array:
    """Return a new C-contiguous float array of real ``values``, NaN where a masked array is masked."""
    if isinstance(values, np.ma.MaskedArray):
        filled = np.array(values.data, dtype=float_dtype(values.dtype), order="C")
        filled[np.ma.getmaskarray(values)] = np.nan
        return filled
    values = np.asarray(values)
    if values.dtype.kind == "c":
        raise InvalidInputError("expected real values, got complex ones. Call to_power first.")
    return np.array(values, dtype=float_dtype(values.dtype), order="C")


def power_kernel(raw: Any, representation: str, *, nodata: float | None = None) -> Array:
    """Return linear power as a fresh C-contiguous float array, NaN where ``raw`` is nodata or not finite.

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
            power, imaginary = fresh(data.real), fresh(data.imag)
            np.multiply(power, power, out=power)
            power += np.multiply(imaginary, imaginary, out=imaginary)
        else:
            power = fresh(data)
            if representation == Representation.AMPLITUDE:
                np.multiply(power, power, out=power)
            elif representation == Representation.DB:
                linear_kernel(power)
            elif representation != Representation.POWER:
                raise InvalidInputError(
                    f"representation must be power, amplitude, db or complex, got {representation!r}. "
                    "Denormalize normalized values first."
                )
        invalid = ~np.isfinite(power)
        if representation == Representation.DB:
            invalid |= data == -np.inf  # its power is a finite 0
        if nodata is not None:
            invalid |= data == _sentinel(nodata, data.dtype)
    if isinstance(raw, np.ma.MaskedArray):
        invalid |= np.ma.getmaskarray(raw)
    if invalid.any():
        np.copyto(power, np.nan, where=invalid)
    return power


def db_kernel(power: Array, out: Array | None = None) -> Array:
    """Return ``10 log10(max(power, 1e-10))`` in ``out`` (default: in place). NaN stays NaN."""
    out = power if out is None else out
    np.clip(power, c.NOISE_FLOOR, np.inf, out=out)  # five times as fast as np.maximum
    np.log(out, out=out)
    return np.multiply(out, DB_PER_NEPER, out=out)


def linear_kernel(db: Array, out: Array | None = None) -> Array:
    """Return ``10 ** (db / 10)`` in ``out`` (default: in place). NaN stays NaN, too large is inf."""
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
    np.multiply(z, vmax - vmin, out=z)
    return np.add(z, vmin, out=z)


def restretch_kernel(z: Array, scale: float, offset: float) -> Array:
    """Turn ``z`` into ``clip(z * scale + offset, 0, 1)`` in place, and return it. NaN stays NaN."""
    np.multiply(z, scale, out=z)
    np.add(z, offset, out=z)
    return np.clip(z, 0.0, 1.0, out=z)


def half_codes_kernel(z: Array) -> Array:
    """Return int32 half-codes ``trunc(z * 131070)`` of ``z`` in [0, 1] or NaN; NaN gives 0. ``z`` stays."""
    scaled = np.multiply(z, HALF_CODES)
    nan = np.isnan(scaled)
    if nan.any():
        np.copyto(scaled, 0, where=nan)
    return scaled.astype(np.int32)


def codes_from_half(half: Array) -> Array:
    """Return uint16 codes ``(half + 1) >> 1``: the nearest of 0..65535. ``half`` stays."""
    rounded = half + np.int32(1)
    np.right_shift(rounded, 1, out=rounded)
    return rounded.astype(np.uint16)


def _sentinel(nodata: float, dtype: np.dtype[Any]) -> float | int:
    """Return ``nodata`` as a Python number: NumPy then compares in the pixels' own dtype."""
    value = float(nodata)
    return int(nodata) if dtype.kind in "iu" and math.isfinite(value) and value == int(nodata) else value


# ---------------------------------------------------------------- public functions
def handle_invalid_values(image: T, noise_floor: float = c.NOISE_FLOOR) -> T:
    """Return a copy in which every pixel that is not finite and positive is ``noise_floor``.

    ``image`` is linear power of any shape, and is left untouched. It has no inverse: what was invalid
    is told apart only by flags. To keep invalid pixels as NaN, use `to_power`.

    Raises
    ------
    InvalidInputError
        ``noise_floor`` is not a positive finite number.

    Examples
    --------
    >>> handle_invalid_values(np.array([4.0, 0.0, np.nan, -np.inf]))
    array([4.e+00, 1.e-10, 1.e-10, 1.e-10])
    """
    if not (math.isfinite(noise_floor) and noise_floor > 0):
        raise InvalidInputError(f"noise_floor must be a positive finite number, got {noise_floor}.")
    return _lift(image, partial(_floor_invalid, noise_floor=float(noise_floor)))


def to_power(obj: T, representation: str | None = None) -> T:
    """Return linear power, NaN where a pixel is nodata or not finite.

    NumPy and Dask arrays need ``representation`` (``power``, ``amplitude``, ``db``, ``complex``) unless they
    are complex. xarray objects say it in the attribute ``representation``, and their sentinel in
    ``source_nodata``; a Dataset's variables that say nothing are left as they are. Nonpositive power
    is kept: it was measured. DN are amplitudes.

    Raises
    ------
    InvalidInputError
        The representation is unknown, missing, or does not fit the dtype.

    Examples
    --------
    >>> to_power(np.array([-10.0, 0.0, np.inf]), "db")
    array([0.1, 1. , nan])
    >>> to_power(np.array([3 + 4j], np.complex64))
    array([25.], dtype=float32)
    """
    if _is_dataset(obj):
        return cast("T", _to_power_dataset(obj, representation))
    if _is_dataarray(obj):
        return cast("T", _to_power_dataarray(obj, representation))
    said = representation
    if said is None and np.dtype(getattr(obj, "dtype", type(obj))).kind == "c":
        said = Representation.COMPLEX
    return _lift(obj, partial(power_kernel, representation=_known(said)))


def to_db(power: T) -> T:
    """Return ``10 log10(max(power, 1e-10))``. NaN stays NaN; nonpositive power gives -100 dB.

    xarray names gain ``_db``. Inverse: `from_db`.

    Raises
    ------
    InvalidInputError
        An xarray object says that it is not linear power.

    Examples
    --------
    >>> to_db(np.array([0.1, 1.0, np.nan]))
    array([-10.,   0.,  nan])
    """
    return _lift(power, partial(_fed, kernel=db_kernel), _Step(Representation.POWER, Representation.DB))


def from_db(db: T) -> T:
    """Return linear power ``10 ** (db / 10)``. NaN stays NaN. Inverse: `to_db`.

    Raises
    ------
    InvalidInputError
        An xarray object says that it is not in dB.

    Examples
    --------
    >>> from_db(np.array([-np.inf, 0.0, 10.0]))
    array([ 0.,  1., 10.])
    """
    return _lift(db, partial(_fed, kernel=linear_kernel), _Step(Representation.DB, Representation.POWER))


def normalize(db: T, bounds: Iterable[float]) -> T:
    """Return ``clip((db - vmin) / (vmax - vmin), 0, 1)``; ``bounds`` unpack to (vmin, vmax) in dB.

    NaN stays NaN. xarray attributes gain ``vmin`` and ``vmax``. Inverse, but for what was clipped:
    `denormalize`, within 2e-14 of the larger of span and |bound| for float64, 3e-7 of it for float32.

    Raises
    ------
    InvalidInputError
        The bounds are not finite with vmin < vmax, or an xarray object says that it is not in dB.

    Examples
    --------
    >>> normalize(np.array([-30.0, -10.0, np.nan, 9.0]), (-20.0, 0.0))
    array([0. , 0.5, nan, 1. ])
    """
    pair = check_bounds(bounds)
    step = _Step(Representation.DB, Representation.NORMALIZED, {c.VMIN: pair[0], c.VMAX: pair[1]})
    return _lift(db, partial(_fed, kernel=partial(normalize_kernel, bounds=pair)), step)


def denormalize(z: T, bounds: Iterable[float] | None = None) -> T:
    """Return dB: ``z * (vmax - vmin) + vmin``. NaN stays NaN. Inverse: `normalize`.

    Without ``bounds``, an xarray object's attributes ``vmin`` and ``vmax`` are taken.

    Raises
    ------
    InvalidInputError
        The bounds are missing, not finite or vmin >= vmax; an xarray object says that it is something else.

    Examples
    --------
    >>> denormalize(np.array([0.0, 0.5, 1.0]), (-20.0, 0.0))
    array([-20., -10.,   0.])
    """
    if bounds is None:
        bounds = _own_bounds(obj := cast("Any", z), getattr(obj, "name", None))
    pair = check_bounds(bounds)
    step = _Step(Representation.NORMALIZED, Representation.DB)
    return _lift(z, partial(_fed, kernel=partial(denormalize_kernel, bounds=pair)), step)


def restretch(z: T, stored: Iterable[float], clip: Iterable[float]) -> T:
    """Return ``normalize(denormalize(z, stored), clip)`` in one step. NaN stays NaN.

    Raises
    ------
    InvalidInputError
        Either pair of bounds is not finite with vmin < vmax.

    Examples
    --------
    >>> restretch(np.array([0.0, 0.25, 0.5]), (-60.0, 100.0), (-40.0, 0.0))
    array([0. , 0.5, 1. ])
    """
    low, high = check_bounds(clip)
    scale, offset = restretch_coefficients(stored, (low, high))
    step = _Step(Representation.NORMALIZED, Representation.NORMALIZED, {c.VMIN: low, c.VMAX: high})
    return _lift(z, partial(_fed, kernel=partial(restretch_kernel, scale=scale, offset=offset)), step)


def to_codes(z: T) -> T:
    """Return uint16 codes of [0, 1], the nearest of 65,536; NaN gives 0, values outside are clipped.

    Inverse: `from_codes`, within half a code (7.7e-6).

    Examples
    --------
    >>> to_codes(np.array([0.0, 0.5, 1.0, np.nan]))
    array([    0, 32768, 65535,     0], dtype=uint16)
    """
    coded = {c.SCALE_FACTOR: 1.0 / c.MAX_CODE}
    step = _Step(Representation.NORMALIZED, Representation.NORMALIZED, coded, keeps_bounds=True)
    return _lift(z, _codes, step, dtype=np.dtype(np.uint16))


def from_codes(codes: T) -> T:
    """Return float32 ``codes / 65535``. Inverse: `to_codes`.

    Raises
    ------
    InvalidInputError
        The codes are not integers.

    Examples
    --------
    >>> from_codes(np.array([0, 65535], np.uint16))
    array([0., 1.], dtype=float32)
    """
    step = _Step(Representation.NORMALIZED, Representation.NORMALIZED, keeps_bounds=True)
    return _lift(codes, _values, step, dtype=np.dtype(np.float32))


# ---------------------------------------------------------------- kernels behind the public functions
def _fed(values: Any, kernel: Callable[[Array], Array]) -> Array:
    return kernel(fresh(values))


def _floor_invalid(values: Any, noise_floor: float) -> Array:
    out = fresh(values)
    np.copyto(out, noise_floor, where=~((out > 0) & (out < np.inf)))
    return out


def _codes(z: Any) -> Array:
    values = fresh(z)
    return codes_from_half(half_codes_kernel(np.clip(values, 0.0, 1.0, out=values)))


def _values(codes: Any) -> Array:
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu":
        raise InvalidInputError(f"codes must be integers, got dtype {codes.dtype}.")
    out = np.array(codes, dtype=np.float32, order="C")
    return np.multiply(out, 1.0 / c.MAX_CODE, out=out)


# ---------------------------------------------------------------- Dask and xarray
@dataclass(frozen=True)
class _Step:
    """What a step does to the attributes and name of an xarray array."""

    takes: Representation
    """The representation that the values must have, where they say one."""
    gives: Representation
    """The representation of the result."""
    extra: Mapping[str, float] = field(default_factory=dict)
    """Attributes that the result gains."""
    keeps_bounds: bool = False
    """Whether ``vmin`` and ``vmax`` stay true."""


_UNITS: Final = {Representation.DB: "dB"}


def _is_instance(obj: object, module: str, name: str) -> bool:
    """Return whether ``obj`` is a ``module.name``, without importing: an unloaded class has no instances."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(obj, getattr(loaded, name))


def _is_dataarray(obj: object) -> bool:
    return _is_instance(obj, "xarray", "DataArray")


def _is_dataset(obj: object) -> bool:
    return _is_instance(obj, "xarray", "Dataset")


def _lift(
    obj: T, kernel: Callable[[Any], Array], step: _Step | None = None, dtype: np.dtype[Any] | None = None
) -> T:
    """Apply ``kernel`` to a number, NumPy, Dask or xarray object; ``step`` says how xarray labels change."""
    anything = cast("Any", obj)
    if _is_dataset(obj):
        variables = {
            k: v for k, v in anything.data_vars.items() if step is None or c.REPRESENTATION in v.attrs
        }
        return cast(
            "T", _with_variables(anything, {k: _lift(v, kernel, step, dtype) for k, v in variables.items()})
        )
    if _is_dataarray(obj):
        if step is not None:
            _check_takes(anything, step)
        return cast("T", _relabelled(anything, _lift(anything.data, kernel, None, dtype), step))
    if _is_instance(obj, "dask.array", "Array"):
        out = float_dtype(anything.dtype) if dtype is None else dtype
        return cast("T", anything.map_blocks(kernel, dtype=out, meta=np.empty((0,) * anything.ndim, out)))
    result = kernel(obj)
    return cast("T", result if isinstance(obj, np.ndarray) or result.ndim else result[()])


def _check_takes(array: Any, step: _Step) -> None:
    said = array.attrs.get(c.REPRESENTATION)
    if said is not None and said != step.takes:
        remedy = {"power": "Call to_power first.", "db": "Call to_db first."}.get(
            step.takes, "Normalize first."
        )
        raise InvalidInputError(
            f"expected representation '{step.takes}' in {array.name!r}, got '{said}'. {remedy}"
        )


def _relabelled(array: Any, data: Any, step: _Step | None) -> Any:
    """Return ``array`` with ``data``: coordinates kept, stale attributes and encoding gone, name by unit."""
    out = array.copy(deep=False, data=data)
    if step is None:
        return out
    kept = {c.VMIN, c.VMAX} if step.keeps_bounds else set()
    attrs = {k: v for k, v in array.attrs.items() if k in kept or not _is_stale(k)}
    out.attrs = attrs | {
        c.REPRESENTATION: step.gives.value,
        c.UNITS: _UNITS.get(step.gives, "1"),
        **step.extra,
    }
    out.encoding = {}
    out.name = _named(array.name, is_db=step.gives == Representation.DB)
    return out


def _is_stale(key: Hashable) -> bool:
    return key in STALE_ATTRS or str(key).startswith("STATISTICS_")


def _named(name: Hashable, *, is_db: bool) -> Hashable:
    if not isinstance(name, str):
        return name
    bare = name.removesuffix(DB_SUFFIX)
    return bare + DB_SUFFIX if is_db else bare


def _with_variables(dataset: Any, variables: Mapping[Hashable, Any]) -> Any:
    """Return ``dataset`` with variables replaced in their places, under the names that they now have."""
    if not variables:
        raise InvalidInputError(
            "expected a Dataset whose variables say their representation, got none that does."
        )
    out = dataset.assign(variables).rename({k: v.name for k, v in variables.items() if v.name != k})
    said = {v.attrs.get(c.REPRESENTATION) for v in variables.values()}
    return out.assign_attrs({c.REPRESENTATION: said.pop()}) if c.REPRESENTATION in out.attrs else out


def _own_bounds(obj: Any, name: Hashable) -> tuple[float, float]:
    attrs = getattr(obj, "attrs", {})
    if c.VMIN not in attrs or c.VMAX not in attrs:
        raise InvalidInputError(
            f"bounds are needed to denormalize {name!r}, got none. Pass (vmin, vmax) in dB."
        )
    return attrs[c.VMIN], attrs[c.VMAX]


def _known(representation: str | None) -> str:
    if representation is None:
        raise InvalidInputError(
            "expected a representation, got none. Pass power, amplitude, db or complex as representation."
        )
    return str(representation)


def _to_power_dataarray(array: Any, representation: str | None) -> Any:
    said = _known(array.attrs.get(c.REPRESENTATION) if representation is None else representation)
    if said == Representation.NORMALIZED:
        return from_db(denormalize(array))
    kernel = partial(power_kernel, representation=said, nodata=array.attrs.get(c.SOURCE_NODATA))
    step = _Step(Representation(said), Representation.POWER)
    out = _relabelled(array, _lift(array.data, kernel), step)
    out.attrs.setdefault(c.SOURCE_REPRESENTATION, said)
    return out


def _to_power_dataset(dataset: Any, representation: str | None) -> Any:
    """Convert the variables that say a representation, or, where one is passed, all but the flags."""
    if representation is None:
        chosen = {k: v for k, v in dataset.data_vars.items() if c.REPRESENTATION in v.attrs}
    else:
        chosen = {k: v for k, v in dataset.data_vars.items() if c.FLAG_VALUES not in v.attrs}
    return _with_variables(dataset, {k: _to_power_dataarray(v, representation) for k, v in chosen.items()})
