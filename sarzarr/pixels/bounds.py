"""Clip bounds in dB, and the histogram from which they follow without reading a pixel twice.

A `Histogram` counts pixels in fixed bins of the stored range. Integer sums do not depend on order, so
bounds are the same for any cut into blocks, any scheduler and any retry; histograms of scenes add up.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Self, cast, overload

import numpy as np

from sarzarr import conventions as c
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.pixels.kernels import check_bounds, fresh, half_codes_kernel, normalize_kernel

NOISE_FLOOR_DB: Final = 10.0 * math.log10(c.NOISE_FLOOR)
"""dB of what was not positive (-100)."""
VALID_ABOVE_DB: Final = NOISE_FLOOR_DB + 1e-4
"""A pixel is counted where it is finite and above this: a float32 logarithm misses -100 by up to 1e-5."""
FIXED_BOUNDS: Final = (-25.0, 5.0)
"""dB of method ``fixed`` unless others are passed, and of any method that finds no valid pixel."""
MINIMUM_SPAN_DB: Final = 0.1
"""Bounds that are closer are widened about their middle, so that a constant image normalizes to 0.5."""
BIN_WIDTH_DB: Final = (c.DB_CEILING - c.DB_FLOOR) / (c.HISTOGRAM_BINS - 1)
"""dB of one histogram bin (0.00122)."""
_TALLIES: Final = ("under", "over", "nonpositive", "nodata")
_BLOCK: Final = 1 << 18
"""Pixels counted at a time: temporaries of 1 MiB, and few additions of whole count arrays."""


@dataclass(frozen=True)
class ClipBounds:
    """The dB values that 0 and 1 stand for; unpacks, indexes and compares as the tuple ``(vmin, vmax)``.

    >>> bounds = ClipBounds(-25, 5)
    >>> bounds[0], bounds[-1], len(bounds), bounds == (-25, 5)
    (-25.0, 5.0, 2, True)
    """

    vmin: float
    """dB that 0 stands for, a Python float (a NumPy float64 would make float32 pixels float64)."""
    vmax: float
    """dB that 1 stands for, a Python float above ``vmin``."""
    method: str = field(default="fixed", compare=False)
    """``percentile``, ``fixed`` or ``sigma``."""
    description: str = field(default="", compare=False)
    """The method with its parameters, for people: ``percentile 1..99``."""

    def __post_init__(self) -> None:
        vmin, vmax = check_bounds((self.vmin, self.vmax))
        object.__setattr__(self, "vmin", vmin)
        object.__setattr__(self, "vmax", vmax)

    def __iter__(self) -> Iterator[float]:
        return iter((self.vmin, self.vmax))

    def __len__(self) -> int:
        return 2

    @overload
    def __getitem__(self, key: int) -> float: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[float, ...]: ...
    def __getitem__(self, key: int | slice) -> float | tuple[float, ...]:
        return (self.vmin, self.vmax)[key]

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, ClipBounds | tuple) else NotImplemented


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram:
    """Counts of pixels in each bin of the stored range; ``a + b`` is the histogram of both.

    >>> one, other = Histogram.from_db(np.array([-12.0, -10.0])), Histogram.from_db(np.array([-8.0, np.nan]))
    >>> both = one + other
    >>> both.n_valid, both.nodata, round(both.percentile(50), 2)
    (3, 1, -10.0)
    """

    counts: Array
    """int64, shape (131069,), read-only: bin k holds the pixels of half-code k, the last one exactly 1.0."""
    under: int = 0
    """Pixels among the counted ones that lay below the stored range, and are in the first bin."""
    over: int = 0
    """Pixels among the counted ones that lay above the stored range, and are in the last bin."""
    nonpositive: int = 0
    """Pixels that are valid but have no dB, and are in no bin."""
    nodata: int = 0
    """Pixels that are not valid, and are in no bin."""

    def __post_init__(self) -> None:
        counts = np.asarray(self.counts, dtype=np.int64).view()
        if counts.shape != (c.HISTOGRAM_BINS,):
            raise InvalidInputError(f"counts must have shape ({c.HISTOGRAM_BINS},), got {counts.shape}.")
        counts.flags.writeable = False
        object.__setattr__(self, "counts", counts)

    @classmethod
    def empty(cls) -> Self:
        """Return the histogram of no pixels: the neutral element of ``+``."""
        return cls(counts=np.zeros(c.HISTOGRAM_BINS, np.int64))

    @classmethod
    def from_db(cls, db: Any) -> Self:
        """Return the histogram of an image in dB: NumPy, xarray or Dask (block by block), of any shape.

        What is not finite counts as nodata, what is at the noise floor (-100 dB) as nonpositive.
        """
        parts = _arrays(db)
        if len(parts) != 1:
            return cast("Self", _total(map(cls.from_db, parts)))
        if hasattr(parts[0], "to_delayed"):
            from dask import delayed

            counted = [delayed(cls.from_db)(block) for block in parts[0].to_delayed().ravel()]
            while len(counted) > 1:  # a tree, so that few count arrays are alive at a time
                counted = [delayed(_total)(counted[i : i + 8]) for i in range(0, len(counted), 8)]
            return cast("Self", counted[0].compute())
        flat = np.ravel(parts[0])
        counts, tallies = np.zeros(c.HISTOGRAM_BINS, np.int64), np.zeros(4, np.int64)
        for start in range(0, flat.size, _BLOCK):
            tallies += _count(flat[start : start + _BLOCK], counts)
        return cls(counts=counts, **dict(zip(_TALLIES, tallies.tolist(), strict=True)))

    def __add__(self, other: Self) -> Self:
        sums = {name: getattr(self, name) + getattr(other, name) for name in ("counts", *_TALLIES)}
        return type(self)(**sums)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        is_same = all(getattr(self, name) == getattr(other, name) for name in _TALLIES)
        return is_same and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]  # it compares by value and holds an array

    @property
    def n_valid(self) -> int:
        """Pixels in the bins: those with a dB. Nonpositive pixels have none."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Mean dB of the counted pixels, as clipped to the stored range, within half a bin; NaN if none."""
        n = self.n_valid
        return float(self.counts @ _centres()) / n if n else math.nan

    @property
    def std(self) -> float:
        """Population standard deviation in dB, of the same pixels, within half a bin; NaN if none."""
        n = self.n_valid
        return math.sqrt(float(self.counts @ (_centres() - self.mean) ** 2) / n) if n else math.nan

    def percentile(self, q: float) -> float:
        """Return the ``q``-th percentile in dB, within a bin (0.0012 dB) of `numpy.percentile`; NaN if none.

        Ranks are exact and interpolated as NumPy does by default; values within a bin are taken to be its centre,
        and pixels outside the stored range count as clipped. Raises `InvalidInputError` where ``q`` is not in 0..100.
        """
        if not 0 <= q <= 100:
            raise InvalidInputError(f"a percentile must be in 0..100, got {q}.")
        n, cumulated = self.n_valid, np.cumsum(self.counts)
        if n == 0:
            return math.nan
        rank = q / 100 * (n - 1)
        below = min(math.floor(rank), n - 1)
        bins = np.searchsorted(cumulated, (below, min(below + 1, n - 1)), side="right")
        low, high = _centres()[bins]
        return float(low + (high - low) * (rank - below))


def count_half_codes(half: Array, counts: Array) -> None:
    """Add the int32 ``half`` codes (any shape) to the int64 ``counts`` in place.

    Every pixel is counted. Pixels that are not valid or not positive have half-code 0: take their number
    off ``counts[0]``. Fastest on 2^18 pixels and more: an addition of up to 131,069 counts is in each call.
    """
    added = np.bincount(half.reshape(-1).astype(np.intp))  # what bincount would do, only faster
    counts[: added.size] += added


def compute_clip_bounds(
    images: Any,
    method: str = "percentile",
    *,
    low_pct: float = 1.0,
    high_pct: float = 99.0,
    vmin: float = FIXED_BOUNDS[0],
    vmax: float = FIXED_BOUNDS[1],
    k: float = 3.0,
) -> ClipBounds:
    """Return clip bounds over the valid pixels of one image in dB, or of a list of them together.

    Valid is finite and above the noise floor of -100 dB. ``percentile``: NumPy's linear percentiles ``low_pct`` and
    ``high_pct``. ``fixed``: ``vmin`` and ``vmax``. ``sigma``: mean -+ ``k`` population standard deviations. Bounds
    closer than 0.1 dB are widened about their middle; no valid pixel gives (-25, 5). Images are NumPy, Dask or
    xarray, of any shapes. Where one is a Dask array nothing is loaded whole: pixels are counted in a `Histogram`
    (bins of 0.0012 dB over [-60, 100] dB, pixels outside as clipped), which moves percentiles by less than a bin.

    Raises `InvalidInputError` where the method is unknown, a parameter out of range, or an xarray object not in dB.

    >>> vmin, vmax = compute_clip_bounds(np.linspace(-20.0, 0.0, 201))
    >>> round(vmin, 3), round(vmax, 3)
    (-19.8, -0.2)
    """
    rule: dict[str, Any] = {"low_pct": low_pct, "high_pct": high_pct, "vmin": vmin, "vmax": vmax, "k": k}
    bounds = clip_bounds_from_histogram(_Pixels(np.empty(0)), method, **rule)
    if method == "fixed":
        return bounds
    several = isinstance(images, (list, tuple, Iterator))
    parts = [part for image in (images if several else (images,)) for part in _arrays(image)]
    if any(hasattr(part, "to_delayed") for part in parts):
        return clip_bounds_from_histogram(_total(map(Histogram.from_db, parts)), method, **rule)
    pixels = np.concatenate([np.empty(0, np.float32), *(_valid(fresh(np.ravel(part))) for part in parts)])
    return clip_bounds_from_histogram(_Pixels(pixels), method, **rule)


def clip_bounds_from_histogram(
    histogram: "Histogram | _Pixels",
    method: str = "percentile",
    *,
    low_pct: float = 1.0,
    high_pct: float = 99.0,
    vmin: float = FIXED_BOUNDS[0],
    vmax: float = FIXED_BOUNDS[1],
    k: float = 3.0,
) -> ClipBounds:
    """Return what `compute_clip_bounds` returns for the pixels of ``histogram``, within one bin.

    Raises `InvalidInputError` where the method is unknown, or a parameter is out of range.
    """
    if method not in ("percentile", "fixed", "sigma"):
        raise InvalidInputError(f"Unknown method: {method}. Pass 'percentile', 'fixed' or 'sigma'.")
    if not 0 <= low_pct < high_pct <= 100:
        raise InvalidInputError(
            f"percentiles must be 0 <= low_pct < high_pct <= 100, got {low_pct} and {high_pct}."
        )
    if not (math.isfinite(k) and k > 0):
        raise InvalidInputError(f"k must be a positive number of standard deviations, got {k}.")
    if method == "fixed":
        return ClipBounds(vmin, vmax, "fixed", f"fixed {vmin:g}..{vmax:g} dB")
    if histogram.n_valid == 0:
        return ClipBounds(*FIXED_BOUNDS, "fixed", "fixed, for want of pixels above zero")
    if method == "sigma":
        mean, reach, rule = histogram.mean, k * histogram.std, f"sigma {k:g}"
        low, high = mean - reach, mean + reach
    else:
        low, high = histogram.percentile(low_pct), histogram.percentile(high_pct)
        rule = f"percentile {low_pct:g}..{high_pct:g}"
    if high - low < MINIMUM_SPAN_DB:
        middle = (low + high) / 2
        low, high = middle - MINIMUM_SPAN_DB / 2, middle + MINIMUM_SPAN_DB / 2
    return ClipBounds(low, high, method, rule)


class _Pixels:
    """Valid dB in memory, one axis of any float dtype, with the face of a `Histogram`; sums are in float64."""

    def __init__(self, values: Array) -> None:
        self._values, self.n_valid = values, values.size

    @property
    def mean(self) -> float:
        return float(self._values.mean(dtype=np.float64))

    @property
    def std(self) -> float:
        return float(self._values.std(dtype=np.float64))

    def percentile(self, q: float) -> float:
        """`numpy.percentile` with ranks in float64 (a Python ``q`` has float32 ranks in float32 pixels)."""
        return float(np.percentile(self._values, np.float64(q), overwrite_input=True))


def _arrays(image: Any) -> list[Any]:
    """Return the arrays of an image: itself, or what an xarray object holds in dB."""
    if hasattr(image, "data_vars"):
        variables = image.data_vars.values()
        return [
            a for v in variables if v.attrs.get(c.REPRESENTATION) == c.Representation.DB for a in _arrays(v)
        ]
    if not hasattr(image, "coords"):
        return [image]
    form = image.attrs.get(c.REPRESENTATION, c.Representation.DB)
    if form != c.Representation.DB:
        raise InvalidInputError(f"expected an image in dB, got representation '{form}'. Call to_db first.")
    return [image.data]


def _valid(values: Array) -> Array:
    return values[(values > VALID_ABOVE_DB) & (values < np.inf)]


def _count(flat: Any, counts: Array) -> tuple[int, int, int, int]:
    """Add dB values to ``counts``, and return how many were under, over, nonpositive and nodata."""
    values = fresh(flat)
    finite = int(np.count_nonzero(np.isfinite(values)))
    db = _valid(values)
    under, over = int(np.count_nonzero(db < c.DB_FLOOR)), int(np.count_nonzero(db > c.DB_CEILING))
    count_half_codes(half_codes_kernel(normalize_kernel(db, c.STORED_RANGE)), counts)
    return under, over, finite - db.size, values.size - finite


def _total(histograms: Iterable[Histogram]) -> Histogram:
    return sum(histograms, Histogram.empty())


def _centres() -> Array:
    """Return the dB that each bin stands for: its middle, and exactly the ceiling for the last."""
    centres = c.DB_FLOOR + (np.arange(c.HISTOGRAM_BINS) + 0.5) * BIN_WIDTH_DB
    centres[-1] = c.DB_CEILING
    return centres
