"""The loop that brings a window of codes to another size in linear power, as `sarzarr.pixels.scaling`, to the bit."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numba import njit, types

from sarzarr.arrays import Array
from sarzarr.pixels.compiled.lazy import lazy_loop

_part: Final[Callable[[Callable[..., Any]], Callable[..., Any]]] = njit(error_model="numpy")
_floats = types.float32[:, ::1]


@_part
def _sums(values: Any, first: Any, weights: Any, tall: Any, out: Any) -> None:
    """Write weighted sums of (window, window) along columns into a row, and of that along rows into ``out``."""
    for i in range(len(first)):
        tall[:] = 0
        for t in range(len(weights)):
            weight, source = weights[t, i], values[first[i] + t]
            for j in range(tall.size):
                tall[j] += weight * source[j]
        place = out[i]
        place[:] = 0
        for t in range(len(weights)):
            weights_of, moved = weights[t], tall[t:]
            for j in range(place.size):
                place[j] += weights_of[j] * moved[first[j]]


@lazy_loop(
    types.void(
        types.Array(types.uint16, 2, "C"),
        types.Array(types.float32, 1, "C", readonly=True),
        types.Tuple((types.uint32[::1], types.int64[::1], _floats, types.boolean)),
        types.Tuple((_floats, _floats, types.float32[::1])),
        _floats,
    )
)
def _scaled_power(codes: Any, powers: Any, taps: Any, memory: Any, out: Any) -> None:
    (first, nearest, weights, averages), (values, counts, tall) = taps, memory
    missing = 0
    for i in range(codes.shape[0]):
        source, place = codes[i], values[i]
        for j in range(place.size):
            missing += source[j] == 0
            place[j] = powers[source[j]]
    if missing == 0:
        _sums(values, first, weights, tall, out)
        return
    for i in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            if codes[i, j] == 0:
                values[i, j] = 0
    _sums(values, first, weights, tall, out)
    for i in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            values[i, j] = codes[i, j] != 0
    _sums(values, first, weights, tall, counts)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] /= counts[i, j]
            if not averages and codes[nearest[i], nearest[j]] == 0:
                out[i, j] = np.nan


def scaled_power(
    codes: Array, powers: Array, taps: Any, scratch: tuple[Array, Array, Array], out: Array
) -> None:
    """Write the mean power (n, n) float32 of codes (window, window) uint16, NaN where none is valid.

    ``powers`` are `sarzarr.pixels.scaling.powers_of_codes`, ``taps`` a `sarzarr.pixels.scaling.Taps`; ``scratch`` is
    float32, (window, window), (n, n) and (window,).
    """
    _scaled_power(codes, powers, (taps.first, taps.nearest, taps.weights, taps.averages), scratch, out)
