"""Names from older pipelines, kept for their users, on the laws of this one."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.pixels.bounds import compute_clip_bounds
from sarzarr.pixels.radiometry import denormalize, from_db, handle_invalid_values, normalize, to_db

SATURATED: Final = (0.01, 0.99)
"""Normalized values at or beyond these say nothing to a model: `extract_patches` counts what lies between."""


def preprocess_sar_complete(
    image: Array,
    vmin: float | None = None,
    vmax: float | None = None,
    clip_percentiles: tuple[float, float] = (1, 99),
) -> tuple[Array, dict[str, Any]]:
    """Return ``image`` (linear power) in dB, clipped and normalized to [0, 1], and what undoes it.

    ``image`` has any shape, and is left untouched; ``vmin`` and ``vmax`` are the dB that 0 and 1 stand for. A bound
    that is left out is one of the percentiles (low, high) of the valid pixels: those that are finite and positive.
    Invalid pixels are at the noise floor, hence 0 on any usual bounds, never NaN. float32 stays float32. A constant
    image becomes 0.5. What undoes it is ``{"vmin", "vmax", "invalid_mask"}``: two Python floats, and a bool array
    that is true where a pixel was not finite and positive. Inverse: `inverse_preprocess`.

    Raises `InvalidInputError` where bounds are not finite with vmin < vmax, or the percentiles are out of range.

    >>> z, params = preprocess_sar_complete(np.array([[0.01, 0.1], [1.0, np.nan]]), vmin=-20, vmax=0)
    >>> z.round(6)
    array([[0. , 0.5],
           [1. , 0. ]])
    >>> inverse_preprocess(z, params).round(6)
    array([[0.01, 0.1 ],
           [1.  ,  nan]])
    """
    filled = np.ma.filled(image, 0) if isinstance(image, np.ma.MaskedArray) else np.asarray(image)
    invalid = ~(np.isfinite(filled) & (filled > 0))
    db = to_db(handle_invalid_values(filled))
    if vmin is None or vmax is None:
        low, high = clip_percentiles
        bounds = compute_clip_bounds(db[~invalid], low_pct=low, high_pct=high)
        vmin, vmax = bounds.vmin if vmin is None else vmin, bounds.vmax if vmax is None else vmax
    return normalize(db, (vmin, vmax)), {"vmin": float(vmin), "vmax": float(vmax), "invalid_mask": invalid}


def inverse_preprocess(normalized: Array, params: Mapping[str, Any]) -> Array:
    """Return linear power; NaN where ``params["invalid_mask"]`` is true. Inverse: `preprocess_sar_complete`.

    Exact for pixels that were not clipped. Without a mask (as from the ``metadata.npy`` of older data
    sets) every pixel is taken to be valid. float32 stays float32.

    Raises `InvalidInputError` where bounds are missing or not finite with vmin < vmax, or the mask has another shape.
    """
    if "vmin" not in params or "vmax" not in params:
        raise InvalidInputError(f"params must hold vmin and vmax, got {sorted(params)}.")
    power = from_db(denormalize(np.asarray(normalized), (params["vmin"], params["vmax"])))
    mask = params.get("invalid_mask")
    if mask is not None:
        if np.shape(mask) != power.shape:
            raise InvalidInputError(f"invalid_mask must have shape {power.shape}, got {np.shape(mask)}.")
        power[np.asarray(mask, bool)] = np.nan
    return power


def extract_patches(
    image: Array, patch_size: int = 256, stride: int = 128, min_valid: float = 0.9
) -> tuple[Array, Array]:
    """Return the patches of a normalized image that are not saturated, and where they were.

    ``image`` is (rows, columns) in [0, 1]. A patch is kept where the share of its pixels with ``0.01 < z < 0.99`` is
    at least ``min_valid``, 0..1; NaN is not among them. Patches go row by row, ``stride`` pixels apart from the top
    left; what is left over at the right and the bottom is dropped. A stride below the size makes patches that
    overlap: split them by ground, not by number. Returned are patches (n, patch_size, patch_size) of the dtype of
    ``image``, and positions (n, 2) int64: (row, column) of the top left pixel. Where none is kept n is 0.

    Raises `InvalidInputError` where the image has not two dimensions, or a number is out of range.

    >>> patches, positions = extract_patches(np.full((300, 520), 0.5), stride=256)
    >>> patches.shape, positions.tolist()
    ((2, 256, 256), [[0, 0], [0, 256]])
    """
    pixels = np.asarray(image)
    if pixels.ndim != 2 or patch_size < 1 or stride < 1 or not 0 <= min_valid <= 1:
        raise InvalidInputError(
            "expected a 2-D image, patch_size and stride of 1 or more and min_valid in 0..1, "
            f"got {pixels.shape}, {patch_size}, {stride}, {min_valid}."
        )
    if min(pixels.shape) < patch_size:
        return np.empty((0, patch_size, patch_size), pixels.dtype), np.empty((0, 2), np.int64)
    useful = (pixels > SATURATED[0]) & (pixels < SATURATED[1])
    shares = _window_sums(useful, patch_size)[::stride, ::stride] / patch_size**2
    kept = np.argwhere(shares >= min_valid)
    windows = sliding_window_view(pixels, (patch_size, patch_size))[::stride, ::stride]
    return windows[kept[:, 0], kept[:, 1]], kept.astype(np.int64) * stride


def _window_sums(mask: Array, size: int) -> Array:
    """Return how many pixels are true in the window at each position, from a summed-area table."""
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1, out=table[1:, 1:])
    sums: Array = table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]
    return sums
