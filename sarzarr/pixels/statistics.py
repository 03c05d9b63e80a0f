"""Statistics of an image: moments and percentiles, in linear power and dB, and its looks."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from sarzarr import conventions as c
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.pixels.kernels import db_kernel, fresh
from sarzarr.pixels.radiometry import to_power

PERCENTILES: Final = (0.5, 1.0, 5.0, 50.0, 95.0, 99.0, 99.5)
"""The percentiles of a `Distribution`."""
MINIMUM_WINDOWS: Final = 30
"""Fewer homogeneous windows than these say nothing about looks."""
_BAND: Final = 1 << 20
"""Pixels of windows that are worked on at a time."""


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Moments and percentiles of pixels; all NaN where there are none."""

    min: float
    """Smallest."""
    max: float
    """Largest."""
    mean: float
    """Mean, summed in float64."""
    std: float
    """Population standard deviation."""
    median: float
    """Middle."""
    percentiles: tuple[float, ...]
    """Values at `PERCENTILES`, by NumPy's linear rule."""

    def to_dict(self) -> dict[str, float]:
        """Return plain numbers by name, percentiles as ``p0.5``, ``p1``, ..."""
        named = {f"p{q:g}": v for q, v in zip(PERCENTILES, self.percentiles, strict=True)}
        return {k: v for k, v in asdict(self).items() if k != "percentiles"} | named


@dataclass(frozen=True, kw_only=True)
class SceneStatistics:
    """Statistics of one image: counts, moments and percentiles, in linear power and dB."""

    n_pixels: int
    """Pixels, valid or not."""
    invalid_fraction: float
    """Share of pixels that are nodata or not finite, 0..1."""
    nonpositive_fraction: float
    """Share of pixels that are valid but have no dB, 0..1."""
    linear: Distribution
    """Of all valid pixels, linear power."""
    db: Distribution
    """Of the valid positive pixels, dB."""
    cv: float
    """Coefficient of variation of linear power over the scene: texture and speckle together."""
    dynamic_range_db: float
    """Largest less smallest dB."""
    equivalent_looks: float
    """Equivalent number of looks over homogeneous windows, see `equivalent_looks`."""

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain numbers, for JSON: dB under ``db``, linear power under ``linear``."""
        return asdict(self) | {"linear": self.linear.to_dict(), "db": self.db.to_dict()}


def scene_statistics(image: Any, *, window: int = 9) -> SceneStatistics:
    """Return the statistics of an image in linear power, of two dimensions.

    ``image`` is (rows, columns): NumPy, Dask (computed whole) or xarray, which is converted first where it says
    another representation, or a sentinel. Not finite is invalid. ``window`` is the rows and columns of the windows
    that `equivalent_looks` is estimated in.

    Raises `InvalidInputError` where the image has not two dimensions, or the window is smaller than 3.

    >>> power = np.random.default_rng(0).gamma(4.4, 1 / 4.4, (300, 300))
    >>> statistics = scene_statistics(power)
    >>> round(statistics.equivalent_looks, 1), round(statistics.linear.mean, 2), statistics.invalid_fraction
    (4.4, 1.0, 0.0)
    """
    power = _in_memory(image)
    valid = power[np.isfinite(power)]
    positive = valid[valid > 0]
    linear, db = _distribution(valid), _distribution(db_kernel(positive))
    return SceneStatistics(
        n_pixels=power.size,
        invalid_fraction=1 - valid.size / power.size if power.size else math.nan,
        nonpositive_fraction=(valid.size - positive.size) / power.size if power.size else math.nan,
        linear=linear,
        db=db,
        cv=linear.std / linear.mean if linear.mean > 0 else math.nan,
        dynamic_range_db=db.max - db.min,
        equivalent_looks=equivalent_looks(power, window=window),
    )


def equivalent_looks(power: Any, *, window: int = 9) -> float:
    """Return the equivalent number of looks: mean^2 / variance of linear power where ground is homogeneous.

    The ratio is taken in small disjoint windows. Where a window holds texture it is lower than the looks, by any
    amount; where it does not, it scatters about them: the looks are the mode of its logarithm. Over a whole scene
    the ratio says 0.01 to 2.3 where the truth is 4.4. On speckle alone the result is within 4 %, on fields, sea and
    towns within 10 % (textured fields pull it down). Neighbouring pixels that are correlated, as after resampling,
    raise it. NaN where fewer than 30 windows are wholly valid, positive and not constant.

    The mode of n-pixel windows lies above the looks L by exp((1 + 2/L) / n), which is taken off: for
    gamma speckle ``s^2/m^2`` has the mean (1 - 1/(nL))/L and its logarithm the variance 2 (1 + 1/L)/n,
    to first order in 1/n. For the mode see Anfinsen et al. 2009, doi:10.1109/TGRS.2009.2019269.

    Raises `InvalidInputError` where the image has not two dimensions, or the window is smaller than 3.
    """
    if window < 3:
        raise InvalidInputError(f"window must be 3 pixels or more, got {window}.")
    ratios = _window_ratios(_in_memory(power), window)
    if ratios.size < MINIMUM_WINDOWS:
        return math.nan
    n = window * window
    looks = math.exp(_mode(np.log(ratios), n))
    return looks * math.exp(-(1 + 2 / looks) / n)


def _in_memory(image: Any) -> Array:
    is_labelled = c.REPRESENTATION in getattr(image, "attrs", {})
    converted = to_power(image) if is_labelled else image
    values = fresh(getattr(converted, "values", converted))
    if values.ndim != 2:
        raise InvalidInputError(f"an image has two dimensions, got {values.ndim}. Pass one band.")
    return values


def _distribution(values: Array) -> Distribution:
    """Return moments and percentiles of one axis of finite values, which it reorders."""
    values = values if values.size else np.array([math.nan])
    mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    ranks = np.array([0.0, *PERCENTILES, 100.0])
    low, *percentiles, high = np.percentile(values, ranks, overwrite_input=True).tolist()
    return Distribution(
        min=low,
        max=high,
        mean=float(mean),
        std=float(std),
        median=percentiles[PERCENTILES.index(50.0)],
        percentiles=tuple(percentiles),
    )


def _window_ratios(power: Array, window: int) -> Array:
    """Return mean^2 / variance of each disjoint window that is valid, positive and not constant."""
    rows, columns = (n // window for n in power.shape)
    ratios = [np.empty(0)]
    step = max(1, _BAND // max(1, window * power.shape[1]))
    for top in range(0, rows, step):
        bottom = min(top + step, rows)
        tiles = power[top * window : bottom * window, : columns * window].astype(np.float64)
        tiles[~(tiles > 0) | np.isinf(tiles)] = np.nan
        tiles = tiles.reshape(bottom - top, window, columns, window)
        mean, variance = tiles.mean(axis=(1, 3)), tiles.var(axis=(1, 3), ddof=1)
        speckled = variance > 1e-12 * mean**2  # false for NaN; below it is rounding
        ratios.append((mean[speckled] / np.sqrt(variance[speckled])) ** 2)
    return np.concatenate(ratios)


def _mode(log_looks: Array, n: int) -> float:
    """Return the mode of a Gaussian kernel density, half as wide as speckle scatters the values."""
    mode, width = math.nan, 0.15
    for _ in range(3):  # the width follows from the mode
        step = width / 20
        start = math.floor(log_looks.min() / step) - 100
        bins = np.floor(log_looks / step).astype(np.int64) - start
        kernel = np.exp(-0.5 * (np.arange(-100, 101) / 20) ** 2)
        density = np.convolve(np.bincount(bins, minlength=int(bins.max()) + 101), kernel, "same")
        mode = (start + int(density.argmax()) + 0.5) * step
        width = 0.5 * math.sqrt(2 * (1 + math.exp(-mode)) / n)
    return mode
