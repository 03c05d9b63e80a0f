"""Values that no pixel has: the fill of arrays of which nothing says what "no data" is.

Some tools take a fill value for nodata, so one that a pixel has would hide that pixel from them.
"""

from typing import Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError

_WIDER: Final = {
    "int8": "int16",
    "uint8": "uint16",
    "int16": "int32",
    "uint16": "uint32",
    "int32": "int64",
    "uint32": "int64",
}


def extreme(dtype: str) -> int | float:
    """Return the value that is tried first: NaN of floats, the lowest of signed integers, the highest of others."""
    kind = np.dtype(dtype).kind
    if kind == "f":
        return float("nan")
    return int(np.iinfo(dtype).min if kind == "i" else np.iinfo(dtype).max)


def values_of(pixels: Array) -> Array:
    """Return the values (n,) that integers of any shape have: all of 8 and 16 bits, both ends of wider ones."""
    if pixels.dtype.itemsize > 2 or not pixels.size:
        return np.array([pixels.min(), pixels.max()] if pixels.size else [], pixels.dtype)
    unsigned = f"u{pixels.dtype.itemsize}"
    is_taken = np.zeros(256**pixels.dtype.itemsize, bool)
    is_taken[pixels.view(unsigned)] = True
    return np.flatnonzero(is_taken).astype(unsigned).view(pixels.dtype)


def free_value(dtype: str, taken: Array) -> tuple[str, int]:
    """Return the dtype and value of a fill: the value next to `extreme` that none of ``taken`` (n,) integers is.

    ``taken`` is all that `values_of` parts of the pixels. Where it leaves none free, the dtype is a wider one, and
    the value the next beyond: 256 of uint8.

    Raises `InvalidInputError` where there is no wider one.
    """
    limits, first = np.iinfo(dtype), int(extreme(dtype))
    last, step = (limits.min, -1) if first == limits.max else (limits.max, 1)
    values = range(first, last + step, step) if np.dtype(dtype).itemsize <= 2 else (first, last)
    known = set(taken.tolist())
    free = next((value for value in values if value not in known), None)
    if free is not None:
        return dtype, int(free)
    if dtype not in _WIDER:
        raise InvalidInputError(
            f"a value that no pixel has was expected among the ends of {dtype}, got pixels of both. "
            "Say which value is no data."
        )
    return _WIDER[dtype], first - step
