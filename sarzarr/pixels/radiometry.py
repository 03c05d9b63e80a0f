"""Linear power, dB, [0, 1] and uint16 codes: one law for each step, the same to the bit everywhere.

The functions take NumPy, Dask and xarray objects alike, and go through the kernels that ingest calls:
values do not depend on how an array is cut into blocks or lies in memory.

Floats keep their precision (float32 stays float32, float64 stays float64); integers of up to 16 bits
become float32, wider ones float64; complex64 becomes float32, complex128 float64. NaN stays NaN.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar, cast

import numpy as np

from sarzarr import conventions as c
from sarzarr.arrays import Array
from sarzarr.conventions import Representation
from sarzarr.errors import InvalidInputError
from sarzarr.pixels.kernels import (
    check_bounds,
    codes_from_half,
    db_kernel,
    denormalize_kernel,
    float_dtype,
    fresh,
    half_codes_kernel,
    is_sentinel,
    linear_kernel,
    normalize_kernel,
    power_kernel,
    restretch_coefficients,
    restretch_kernel,
)

T = TypeVar("T")
DB_SUFFIX: Final = "_db"
"""What the name of an xarray array in dB ends in."""
STALE_ATTRS: Final = frozenset(
    {"_FillValue", "missing_value", "scale_factor", "add_offset", "scales", "offsets"}
    | {"valid_min", "valid_max", "valid_range", "actual_range", c.SOURCE_NODATA, c.VMIN, c.VMAX}
    | {c.UNITS, "unit", "unittype", "data_units", "data_type"}
)
"""Attributes that describe the values before a step, and would be false after it."""
_NODATA_ATTRS: Final = (c.SOURCE_NODATA, c.FILL_VALUE, "missing_value", "fill_value", c.NODATA)
"""Attributes that declare nodata, the first of them decides: ours, CF's, and rioxarray's."""


def handle_invalid_values(image: T, noise_floor: float = c.NOISE_FLOOR) -> T:
    """Return a copy in which every pixel that is not finite and positive is ``noise_floor``.

    ``image`` is linear power of any shape, and is left untouched. It has no inverse: what was invalid is told apart
    only by flags; `to_power` keeps it as NaN. Raises `InvalidInputError` where ``noise_floor`` is not positive and
    finite.

    >>> handle_invalid_values(np.array([4.0, 0.0, np.nan, -np.inf]))
    array([4.e+00, 1.e-10, 1.e-10, 1.e-10])
    """
    if not (math.isfinite(noise_floor) and noise_floor > 0):
        raise InvalidInputError(f"noise_floor must be a positive finite number, got {noise_floor}.")
    return _lift(image, partial(_floor_invalid, noise_floor=float(noise_floor)))


def to_power(obj: T, representation: str | None = None) -> T:
    """Return linear power, NaN where a pixel is nodata or not finite.

    NumPy and Dask arrays need ``representation`` (``power``, ``amplitude``, ``db``, ``complex``) unless they
    are complex. xarray objects say it in the attribute ``representation``, and their nodata, scale and offset as
    rioxarray has them; a Dataset's variables that say nothing are left as they are. Nonpositive power is kept: it was
    measured. DN are amplitudes; those of `open_scene` whose product has a calibration become what it says, ``sigma0``
    unless another was asked for there.

    Raises `InvalidInputError` where the representation is unknown, missing, or does not fit the dtype.

    >>> to_power(np.array([-10.0, 0.0, np.inf]), "db")
    array([0.1, 1. , nan])
    >>> to_power(np.array([3 + 4j], np.complex64))
    array([25.], dtype=float32)
    """
    if hasattr(obj, "data_vars"):
        return cast("T", _dataset_to_power(obj, representation))
    if hasattr(obj, "coords"):
        return cast("T", _array_to_power(obj, representation))
    if representation is None and np.dtype(getattr(obj, "dtype", type(obj))).kind == "c":
        representation = Representation.COMPLEX
    return _lift(obj, partial(power_kernel, representation=_known(representation)))


def to_db(power: T) -> T:
    """Return ``10 log10(max(power, 1e-10))``. NaN stays NaN; nonpositive power gives -100 dB.

    xarray names gain ``_db``. Inverse: `from_db`, within 2e-14 of the power for float64; for float32 within
    2e-6 of it from -60 to 60 dB, and 4e-6 to 100 dB, where a step of the dB value is 7.6e-6 dB.

    Raises `InvalidInputError` where an xarray object says that it is not linear power.

    >>> to_db(np.array([0.1, 1.0, np.nan]))
    array([-10.,   0.,  nan])
    """
    return _lift(power, partial(_fed, kernel=db_kernel), _Step(Representation.POWER, Representation.DB))


def from_db(db: T) -> T:
    """Return linear power ``10 ** (db / 10)``. NaN stays NaN. Inverse: `to_db`.

    Raises `InvalidInputError` where an xarray object says that it is not in dB.

    >>> from_db(np.array([-np.inf, 0.0, 10.0]))
    array([ 0.,  1., 10.])
    """
    return _lift(db, partial(_fed, kernel=linear_kernel), _Step(Representation.DB, Representation.POWER))


def normalize(db: T, bounds: Iterable[float]) -> T:
    """Return ``clip((db - vmin) / (vmax - vmin), 0, 1)``; ``bounds`` unpack to (vmin, vmax) in dB.

    NaN stays NaN. xarray attributes gain ``vmin`` and ``vmax``. Inverse, but for what was clipped:
    `denormalize`, on the stored range within 1e-13 dB for float64 and 2e-5 dB for float32.

    Raises `InvalidInputError` where bounds are not finite with vmin < vmax, or an xarray object is not in dB.

    >>> normalize(np.array([-30.0, -10.0, np.nan, 9.0]), (-20.0, 0.0))
    array([0. , 0.5, nan, 1. ])
    """
    pair = check_bounds(bounds)
    step = _Step(Representation.DB, Representation.NORMALIZED, {c.VMIN: pair[0], c.VMAX: pair[1]})
    return _lift(db, partial(_fed, kernel=partial(normalize_kernel, bounds=pair)), step)


def denormalize(z: T, bounds: Iterable[float] | None = None, *, looks: float | None = None) -> T:
    """Return dB: ``z * (vmax - vmin) + vmin``. NaN stays NaN. Inverse: `normalize`.

    Without ``bounds``, the attributes ``vmin`` and ``vmax`` of an xarray array, or of each of a Dataset, are taken.

    With ``looks`` the values are taken for means in dB over speckle of so many looks, as a model that was trained on
    normalized dB predicts them, and `log_bias` is added: the result is the dB of the mean power. Never of single
    measured pixels, of which no mean was taken.

    Raises `InvalidInputError` where bounds are missing, not finite or vmin >= vmax, an xarray one is not in 0..1, or
    looks are not positive.

    >>> denormalize(np.array([0.0, 0.5, 1.0]), (-20.0, 0.0))
    array([-20., -10.,   0.])
    >>> denormalize(np.array([0.5]), (-20.0, 0.0), looks=1).round(3)
    array([-7.493])
    """
    if bounds is None and hasattr(z, "data_vars"):
        chosen = {k: v for k, v in z.data_vars.items() if c.REPRESENTATION in v.attrs}
        return cast("T", _replaced(z, {k: denormalize(v, looks=looks) for k, v in chosen.items()}))
    if bounds is None:
        attrs = getattr(z, "attrs", {})
        if c.VMIN not in attrs or c.VMAX not in attrs:
            raise InvalidInputError("denormalize needs bounds, got none. Pass (vmin, vmax) in dB.")
        bounds = attrs[c.VMIN], attrs[c.VMAX]
    pair = check_bounds(bounds)
    step = _Step(Representation.NORMALIZED, Representation.DB)
    kernel: Callable[[Array], Array] = partial(denormalize_kernel, bounds=pair)
    if looks is not None:
        kernel = partial(_raised, kernel=kernel, by=log_bias(looks))
    return _lift(z, partial(_fed, kernel=kernel), step)


def log_bias(looks: float) -> float:
    """Return ``10 log10(L) - (10 / ln 10) psi(L)``: dB of the mean power less the mean of dB, of L looks of speckle.

    psi is the digamma function. The natural logarithm of gamma-distributed power of L looks and mean 1 has the mean
    ``psi(L) - ln(L)`` (Xie, Pierce and Ulaby 2002, doi:10.1109/TGRS.2002.1000333). It is 2.507 dB of one look,
    0.512 of 4.4, and about ``2.17 / L`` of many. Raises `InvalidInputError` unless looks are positive and finite.

    >>> round(log_bias(1), 3), round(log_bias(4.4), 3)
    (2.507, 0.512)
    """
    from scipy.special import digamma

    if not (math.isfinite(looks) and looks > 0):
        raise InvalidInputError(
            f"looks must be a positive finite number, got {looks}. Give the equivalent number of looks."
        )
    return 10 * math.log10(looks) - 10 / math.log(10) * float(digamma(looks))


def restretch(z: T, stored: Iterable[float], clip: Iterable[float]) -> T:
    """Return ``normalize(denormalize(z, stored), clip)`` in one step, bounds in dB. NaN stays NaN.

    Raises `InvalidInputError` where either pair of bounds is not finite with vmin < vmax.

    >>> restretch(np.array([0.0, 0.25, 0.5]), (-60.0, 100.0), (-40.0, 0.0))
    array([0. , 0.5, 1. ])
    """
    low, high = check_bounds(clip)
    scale, offset = restretch_coefficients(stored, (low, high))
    step = _Step(Representation.NORMALIZED, Representation.NORMALIZED, {c.VMIN: low, c.VMAX: high})
    return _lift(z, partial(_fed, kernel=partial(restretch_kernel, scale=scale, offset=offset)), step)


def to_codes(z: T) -> T:
    """Return uint16 codes of [0, 1], the nearest of 1..65535; NaN gives 0, values outside are clipped.

    Inverse: `from_codes`, within half a step (7.7e-6).

    >>> to_codes(np.array([0.0, 0.5, 1.0, np.nan]))
    array([    1, 32768, 65535,     0], dtype=uint16)
    """
    step = _Step(Representation.NORMALIZED, Representation.NORMALIZED, c.CODED, keeps_bounds=True)
    return _lift(z, _codes, step, dtype=np.dtype(np.uint16))


def from_codes(codes: T) -> T:
    """Return float32 ``(codes - 1) / 65534``, NaN of code 0. Inverse: `to_codes`.

    Raises `InvalidInputError` where the codes are not integers.

    >>> from_codes(np.array([0, 1, 65535], np.uint16))
    array([nan,  0.,  1.], dtype=float32)
    """
    step = _Step(Representation.NORMALIZED, Representation.NORMALIZED, keeps_bounds=True)
    return _lift(codes, _values, step, dtype=np.dtype(np.float32))


def _raised(values: Array, kernel: Callable[[Array], Array], by: float) -> Array:
    out = kernel(values)
    out += by
    return out


def _fed(values: Any, kernel: Callable[[Array], Array]) -> Array:
    return kernel(fresh(values))


def _floor_invalid(values: Any, noise_floor: float) -> Array:
    out = fresh(values)
    np.copyto(out, noise_floor, where=~((out > 0) & (out < np.inf)))
    return out


def _codes(z: Any) -> Array:
    values = fresh(z)
    missing = np.isnan(values)
    codes = codes_from_half(half_codes_kernel(np.clip(values, 0.0, 1.0, out=values)))
    codes[missing] = c.NOT_MEASURED
    return codes


def _values(codes: Any) -> Array:
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu":
        raise InvalidInputError(f"codes must be integers, got dtype {codes.dtype}.")
    out = np.array(codes, dtype=np.float32, order="C")
    missing = out == c.NOT_MEASURED
    np.subtract(out, np.float32(c.FIRST_CODE), out=out)
    np.multiply(out, 1.0 / c.STEPS, out=out)
    out[missing] = np.nan
    return out


@dataclass(frozen=True)
class _Step:
    """What a step does to the attributes and the name of an xarray array."""

    takes: Representation | None
    """The representation that the values must have, where they say one; None: any."""
    gives: Representation
    """The representation of the result."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Attributes that the result gains."""
    keeps_bounds: bool = False
    """Whether ``vmin`` and ``vmax`` stay true."""

    def check(self, array: Any) -> None:
        """Raise where ``array`` says that it is in another representation."""
        form = array.attrs.get(c.REPRESENTATION, self.takes)
        if self.takes is None or form == self.takes:
            return
        remedy = {"power": "to_power", "db": "to_db"}.get(self.takes, "normalize")
        raise InvalidInputError(
            f"expected representation '{self.takes}' in {array.name!r}, got '{form}'. Call {remedy} first."
        )

    def relabel(self, array: Any, data: Any) -> Any:
        """Return ``array`` with ``data``, its coordinates and its true attributes, named by unit.

        Nodata of floats is NaN, in the encoding as rioxarray has it of what is masked.
        """
        out = array.copy(deep=False, data=data)
        is_db = self.gives == Representation.DB
        bounds = {k: array.attrs[k] for k in (c.VMIN, c.VMAX) if self.keeps_bounds and k in array.attrs}
        out.attrs = _true_of_any_step(array.attrs) | bounds
        out.attrs |= {c.REPRESENTATION: self.gives.value, c.UNITS: "dB" if is_db else "1", **self.extra}
        out.encoding = {k: v for k, v in array.encoding.items() if k == c.GRID_MAPPING}
        if out.dtype.kind == "f":
            out.encoding[c.FILL_VALUE] = np.nan
        if isinstance(array.name, str):
            out.name = array.name.removesuffix(DB_SUFFIX) + (DB_SUFFIX if is_db else "")
        return out


def _true_of_any_step(attrs: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """Return the attributes that do not describe values in one representation, whatever case tags are written in."""
    told = {k: v for k, v in attrs.items() if not {k, str(k).lower()} & STALE_ATTRS}
    if any(form in str(told.get(c.LONG_NAME)).lower() for form in (*Representation, "intensity")):
        del told[c.LONG_NAME]  # Amplitude_VV
    return {k: v for k, v in told.items() if not str(k).startswith("STATISTICS_")}


def _lift(
    obj: T, kernel: Callable[[Any], Array], step: _Step | None = None, dtype: np.dtype[Any] | None = None
) -> T:
    """Apply ``kernel`` to a number, NumPy, Dask or xarray object; ``step`` says how xarray labels change."""
    anything = cast("Any", obj)
    if hasattr(obj, "data_vars"):
        chosen = {k: v for k, v in anything.data_vars.items() if step is None or c.REPRESENTATION in v.attrs}
        return cast("T", _replaced(anything, {k: _lift(v, kernel, step, dtype) for k, v in chosen.items()}))
    if hasattr(obj, "coords"):
        if step is None:
            return cast("T", anything.copy(deep=False, data=_lift(anything.data, kernel)))
        step.check(anything)
        return cast("T", step.relabel(anything, _lift(anything.data, kernel, dtype=dtype)))
    if hasattr(obj, "map_blocks"):
        out = float_dtype(anything.dtype) if dtype is None else dtype
        return cast("T", anything.map_blocks(kernel, dtype=out, meta=np.empty((0,) * anything.ndim, out)))
    result = kernel(obj)
    return cast("T", result if isinstance(obj, np.ndarray) or result.ndim else result[()])


def _replaced(dataset: Any, variables: Mapping[Hashable, Any]) -> Any:
    """Return ``dataset`` with variables replaced in their places, under the names that they now have."""
    if not variables:
        raise InvalidInputError(
            "expected a Dataset whose variables say their representation, got none that does. "
            "Set their attribute 'representation', or pass it to to_power."
        )
    out = dataset.assign(variables).rename({k: v.name for k, v in variables.items() if v.name != k})
    out.attrs = _true_of_any_step(out.attrs)
    if c.REPRESENTATION not in out.attrs:
        return out
    return out.assign_attrs({c.REPRESENTATION: next(iter(variables.values())).attrs.get(c.REPRESENTATION)})


def _known(representation: str | None) -> str:
    if representation is None:
        raise InvalidInputError(
            "expected a representation, got none. Pass power, amplitude, db or complex as representation."
        )
    return str(representation)


def _power_of_packed(
    raw: Any, representation: str, nodata: float | None, packing: tuple[float, float]
) -> Array:
    """Return linear power of the values ``raw * scale + offset``, NaN where ``raw`` is ``nodata``."""
    values = np.array(raw) if representation == Representation.COMPLEX else fresh(raw)
    scale, offset = packing
    values = values * scale + offset
    values[is_sentinel(np.asarray(raw), nodata)] = np.nan
    return power_kernel(values, representation)


def _packing(array: Any) -> dict[str, Any]:
    """Return the ``nodata`` that an xarray array declares, and scale and offset where they were not applied."""
    told = next((array.attrs[k] for k in _NODATA_ATTRS if k in array.attrs), None)
    nodata = None if told is None else float(np.real(told))
    if {"scales", "offsets"} & set(array.attrs):
        raise InvalidInputError(
            f"expected one scale and offset in {array.name!r}, got one for each band. "
            "Open it with band_as_variable=True, or with mask_and_scale=True."
        )
    packing = float(array.attrs.get(c.SCALE_FACTOR, 1.0)), float(array.attrs.get(c.ADD_OFFSET, 0.0))
    return {"nodata": nodata} | ({} if packing == (1.0, 0.0) else {"packing": packing})


def _array_to_power(array: Any, representation: str | None) -> Any:
    form = _known(array.attrs.get(c.REPRESENTATION) if representation is None else representation)
    if form == Representation.NORMALIZED:
        return from_db(denormalize(array))
    about = _packing(array)
    kernel = partial(_power_of_packed if "packing" in about else power_kernel, representation=form, **about)
    source = {c.SOURCE_REPRESENTATION: array.attrs.get(c.SOURCE_REPRESENTATION, form)}
    power = _Step(None, Representation.POWER, source).relabel(array, _lift(array.data, kernel))
    return _calibrated(power) if c.GAIN in array.attrs else power


def _calibrated(power: Any) -> Any:
    """Return ``(DN^2 - noise) * gain``, by the coordinates that an array of DN^2 names, which end here.

    Raises `InvalidInputError` where a coordinate was dropped.
    """
    names = {key: power.attrs[key] for key in (c.GAIN, c.NOISE) if key in power.attrs}
    if lost := [name for name in names.values() if name not in power.coords]:
        raise InvalidInputError(
            f"expected the coordinate {lost[0]!r} that calibrates {power.name!r}, got an array without it. Keep it, "
            "or open the scene with calibrate='none'."
        )
    gain = power.coords[names[c.GAIN]]
    told = {c.QUANTITY: gain.attrs[c.QUANTITY], c.CALIBRATED_BY: gain.attrs[c.CALIBRATED_BY]}
    values = power.variable
    if c.NOISE in names:
        noise = power.coords[names[c.NOISE]]
        values, told[c.DENOISED_BY] = values - noise.variable, noise.attrs[c.DENOISED_BY]
    out = power.copy(deep=False, data=(values * gain.variable).transpose(*power.dims).data)
    out.attrs = {key: value for key, value in power.attrs.items() if key not in names} | told
    return out.drop_vars(names.values())


def _dataset_to_power(dataset: Any, representation: str | None) -> Any:
    """Convert the variables that say a representation, or, where one is passed, all but the flags."""
    variables = dataset.data_vars.items()
    if representation is None:
        chosen = {k: v for k, v in variables if c.REPRESENTATION in v.attrs}
    else:
        chosen = {k: v for k, v in variables if c.FLAG_VALUES not in v.attrs}
    gone = {v.attrs[key] for v in chosen.values() for key in (c.GAIN, c.NOISE) if key in v.attrs}
    powers = {
        k: _array_to_power(v, representation).drop_vars(gone, errors="ignore") for k, v in chosen.items()
    }
    return _replaced(dataset.drop_vars(gone, errors="ignore"), powers)
