"""Loops that Numba compiles, where it is installed (``pip install sarzarr[fast]``).

Each makes in one pass, and without Python's lock, what NumPy makes in several, and gives the same bits: what is
stored or delivered does not depend on what is installed. Loops are compiled when they are first called, once a
machine: Numba keeps them beside this file or, where that is not writable, in the user's cache. To start Numba takes
a process half a second all the same, so `loops_for` waits for work that makes up for it. In the environment,
``SARZARR_NUMBA=0`` leaves Numba out, and ``SARZARR_NUMBA=1`` starts it at once.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from sarzarr.augment import COLUMNS, ROWS, TRANSPOSE

Loop = Callable[..., None]
SWITCH: Final = "SARZARR_NUMBA"
WORTH: Final = 256 * 2**20
"""Pixels from which loops are started: they save about 3 ns of each, and to start them takes 0.5 s."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class Loops:
    """The compiled loops."""

    read_cells: Callable[..., bool] | None
    """`_read_cells`; None where the system has no ``pread``."""
    stretch_codes: Loop
    """`_stretch_codes`"""
    stretch_floats: Loop
    """`_stretch_floats`"""
    turn_words: Loop
    """`_turn_words`"""
    turn_and_stretch: Loop
    """`_turn_and_stretch`"""
    floored_power: Callable[..., bool]
    """`_floored_power`"""
    codes_of_logs: Callable[..., tuple[int, int]]
    """`_codes_of_logs`"""
    floats_of_logs: Callable[..., tuple[int, int]]
    """`_floats_of_logs`"""
    column_sums: Loop
    """`_column_sums`"""
    float_column_sums: Loop
    """`_float_column_sums`"""


def loops_for(pixels: int) -> Loops | None:
    """Return the compiled loops where so much work makes up for starting them, or where they are started.

    ``pixels`` are those that this process has still to read or, where nobody knows, has read already.
    """
    is_due = pixels >= WORTH or loops.cache_info().currsize or os.environ.get(SWITCH) == "1"
    return loops() if is_due else None


@cache
def loops() -> Loops | None:
    """Return the compiled loops; None where Numba is not installed, or not wanted."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        from numba import njit
    except ImportError as error:  # also where it does not know this NumPy or Python yet
        log.debug("numba is left out: %s", error)
        return None

    def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
        try:
            made: Callable[..., Any] = njit(nogil=True, error_model="numpy", cache=True)(loop)
        except RuntimeError:  # no place to keep it
            made = njit(nogil=True, error_model="numpy")(loop)
        return made

    stretch, turn = compiled(_stretch_codes), compiled(_turn_words)
    return Loops(
        read_cells=compiled(_read_cells(_pread())) if hasattr(os, "pread") else None,
        stretch_codes=stretch,
        stretch_floats=compiled(_stretch_floats),
        turn_words=turn,
        turn_and_stretch=compiled(_turn_and_stretch(turn, stretch)),
        floored_power=compiled(_floored_power),
        codes_of_logs=compiled(_codes_of_logs),
        floats_of_logs=compiled(_floats_of_logs),
        column_sums=compiled(_column_sums),
        float_column_sums=compiled(_float_column_sums),
    )


def _pread() -> Any:
    """Return the C library's ``pread``, called by its name: ``ssize_t (int, void*, size_t, off_t)``."""
    from numba.core import types

    return types.ExternalFunction("pread", types.int64(types.int32, types.uintp, types.uint64, types.int64))


def _read_cells(pread: Any) -> Callable[..., bool]:
    def read_cells(handles: Any, offsets: Any, first: int, count: int, cell: int, address: int) -> bool:
        """Read ``count`` cells, from number ``first`` on, one behind the other to a place in memory.

        Return whether all were read whole. Threads meet at Python's lock once a group, and not once a cell.
        """
        for i in range(count):
            place = np.uint64(address + i * cell)
            if pread(handles[first + i], place, np.uint64(cell), offsets[first + i]) != cell:
                return False
        return True

    return read_cells


# What follows is compiled: plain loops over pixels, in the subset of Python that Numba knows. Only rows of
# C-contiguous arrays become vector instructions for sure.
def _stretch_codes(cells: Any, out: Any, low: Any, high: Any, lowest: Any, scale: Any) -> None:
    """Write ``clip((clip(code, low, high) - lowest) * scale, 0, 1)``: uint16 (k, n or more) to float32 (k, n)."""
    for k in range(out.shape[0]):
        source, place = cells[k], out[k]
        for i in range(place.size):
            value = (np.float32(min(max(source[i], low), high)) - lowest) * scale
            place[i] = min(max(value, np.float32(0)), np.float32(1))


def _stretch_floats(cells: Any, out: Any, scale: Any, offset: Any) -> None:
    """Write ``clip(stored * scale + offset, 0, 1)``: float32 (k, n or more) to (k, n); NaN stays NaN."""
    zero, one = np.float32(0), np.float32(1)
    for k in range(out.shape[0]):
        source, place = cells[k], out[k]
        for i in range(place.size):
            value = source[i] * scale + offset
            value = zero if value < zero else value  # noqa: FURB136 (this way round NaN stays)
            place[i] = one if value > one else value  # noqa: FURB136


def _turn_words(source: Any, operations: Any, out: Any) -> None:
    """Write each (n, n / 4) image of words, four uint16 pixels a word, under its operation.

    Transposing is by squares of 4 x 4 pixels: four words of four rows become four words of four columns.
    """
    s16, s32 = np.uint64(16), np.uint64(32)
    even, low = np.uint64(0x0000FFFF0000FFFF), np.uint64(0x00000000FFFFFFFF)
    odd, high = np.uint64(0xFFFF0000FFFF0000), np.uint64(0xFFFFFFFF00000000)
    n, words = source.shape[1], source.shape[2]
    for k in range(source.shape[0]):
        operation = operations[k]
        flips_rows, flips_columns = operation & ROWS != 0, operation & COLUMNS != 0
        if operation & TRANSPOSE != 0:
            for word in range(words):
                top, step = (n - 1 - 4 * word, -1) if flips_rows else (4 * word, 1)
                for column in range(words):
                    first, down = (n - 1 - 4 * column, -1) if flips_columns else (4 * column, 1)
                    a, b = source[k, first, word], source[k, first + down, word]
                    c, d = source[k, first + 2 * down, word], source[k, first + 3 * down, word]
                    ab0, ab1 = (a & even) | ((b & even) << s16), ((a & odd) >> s16) | (b & odd)
                    cd0, cd1 = (c & even) | ((d & even) << s16), ((c & odd) >> s16) | (d & odd)
                    out[k, top, column] = (ab0 & low) | (cd0 << s32)
                    out[k, top + step, column] = (ab1 & low) | (cd1 << s32)
                    out[k, top + 2 * step, column] = (ab0 >> s32) | (cd0 & high)
                    out[k, top + 3 * step, column] = (ab1 >> s32) | (cd1 & high)
        else:
            for row in range(n):
                from_row = n - 1 - row if flips_rows else row
                if flips_columns:
                    for word in range(words):
                        a = source[k, from_row, words - 1 - word]
                        a = ((a & even) << s16) | ((a & odd) >> s16)
                        out[k, row, word] = (a << s32) | (a >> s32)
                else:
                    for word in range(words):
                        out[k, row, word] = source[k, from_row, word]


def _turn_and_stretch(turn: Loop, stretch: Loop) -> Loop:
    def turn_and_stretch(
        words: Any,
        operations: Any,
        room: Any,
        codes: Any,
        out: Any,
        low: Any,
        high: Any,
        lowest: Any,
        scale: Any,
    ) -> None:
        """Do `_turn_words` and `_stretch_codes`, image by image, so that what is turned stays in cache.

        ``room`` (1, n, n / 4) and ``codes`` (1, n * n) are the same memory.
        """
        for k in range(words.shape[0]):
            turn(words[k : k + 1], operations[k : k + 1], room)
            stretch(codes, out[k : k + 1], low, high, lowest, scale)

    return turn_and_stretch


# ---------------------------------------------------------------- ingest
# A tile is worked on in three steps, `_floored_power`, NumPy's log, and one of the others. float32 throughout.
# What is looked for in passing is found in integers, whose minimum and maximum are vector instructions.
def _floored_power(
    band: Any, row: int, col: int, sentinel: Any, squares: bool, floor: Any, out: Any, bits: Any
) -> bool:
    """Write ``max(power, floor)`` of the tile of ``band`` at (row, col) into ``out``, (rows, columns).

    Return whether each of its pixels is finite, above zero and not ``sentinel``: else ``out`` is of no use.
    NaN is no sentinel. ``bits`` is ``out`` seen as int32: floats above zero are in the order of their bits,
    below infinity's, and negative ones are below zero. ``floor`` is bits, too.
    """
    infinite, lowest, highest, hits = np.int32(0x7F800000), np.int32(0x7FFFFFFF), np.int32(0), np.int32(0)
    for i in range(out.shape[0]):
        source, place, seen = band[row + i, col : col + out.shape[1]], out[i], bits[i]
        for j in range(place.size):
            value = np.float32(source[j])
            hits |= np.int32(source[j] == sentinel)
            place[j] = value * value if squares else value
        for j in range(seen.size):
            lowest, highest = min(lowest, seen[j]), max(highest, seen[j])
            seen[j] = max(seen[j], floor)
    return bool(lowest > 0 and highest < infinite and hits == 0)


def _codes_of_logs(
    logs: Any, law: Any, top: Any, limits: Any, codes: Any, half: Any, counts: Any
) -> tuple[int, int]:
    """Write uint16 codes of natural logarithms of power, count their half-codes, and return (under, over).

    ``law`` is dB a neper, dB of 0, reciprocal of the range; ``limits`` are the dB that are counted beyond.
    Arrays are flat; ``half`` is int32 scratch for a part of them, since counting makes no vector instructions.
    """
    under = over = 0
    zero, one, step, last = np.float32(0), np.float32(1), np.int32(1), np.int32(top)
    for first in range(0, logs.size, half.size):
        source, place = logs[first : first + half.size], codes[first : first + half.size]
        lowest, highest = last, np.int32(0)
        for i in range(source.size):
            z = min(max((source[i] * law[0] - law[1]) * law[2], zero), one)
            bin_ = np.int32(z * top)
            lowest, highest = min(lowest, bin_), max(highest, bin_)
            half[i] = bin_
            place[i] = np.uint16((bin_ + step) >> step)
        for i in range(source.size):
            counts[half[i]] += 1
        if lowest == 0 or highest == last:
            for i in range(source.size):
                under += source[i] * law[0] < limits[0]
                over += source[i] * law[0] > limits[1]
    return under, over


def _floats_of_logs(
    logs: Any, law: Any, whole: Any, top: Any, limits: Any, half: Any, counts: Any
) -> tuple[int, int]:
    """Turn natural logarithms of power into [0, 1] in place, and count: see `_codes_of_logs`.

    What is counted are half-codes by the law ``whole``, which may be another than that of what is stored.
    """
    under = over = 0
    zero, one, last = np.float32(0), np.float32(1), np.int32(top)
    for first in range(0, logs.size, half.size):
        place = logs[first : first + half.size]
        lowest, highest = last, np.int32(0)
        for i in range(place.size):
            bin_ = np.int32(min(max((place[i] * law[0] - whole[1]) * whole[2], zero), one) * top)
            lowest, highest = min(lowest, bin_), max(highest, bin_)
            half[i] = bin_
        if lowest == 0 or highest == last:
            for i in range(place.size):
                under += place[i] * law[0] < limits[0]
                over += place[i] * law[0] > limits[1]
        for i in range(place.size):
            place[i] = min(max((place[i] * law[0] - law[1]) * law[2], zero), one)
        for i in range(place.size):
            counts[half[i]] += 1
    return under, over


def _column_sums(codes: Any, low: Any, span: Any, out: Any) -> None:
    """Write into ``out`` (3, columns), int64: codes from ``low`` to ``low + span``, sum and sum of squares.

    ``codes`` are uint16 (rows, columns), of fewer than 65,536 rows.
    """
    columns = out.shape[1]
    inside, total, squares = np.zeros(columns, np.uint16), np.zeros(columns, np.uint32), out[2]
    squares[:] = 0
    for i in range(codes.shape[0]):
        row = codes[i, :columns]
        for j in range(columns):
            code = row[j]
            inside[j] += np.uint16(np.uint16(code - low) <= span)
            total[j] += np.uint32(code)
        for j in range(columns):
            code = np.uint32(row[j])
            squares[j] += np.int64(np.uint32(code * code))
    out[0], out[1] = inside, total


def _float_column_sums(values: Any, low: Any, high: Any, inside: Any, total: Any, squares: Any) -> None:
    """Write how many of the float32 (rows, columns) lie between, and the sums: float64 (columns,), row by row."""
    columns = inside.size
    inside[:] = 0
    total[:] = 0
    squares[:] = 0
    for i in range(values.shape[0]):
        row = values[i, :columns]
        for j in range(columns):
            value = np.float64(row[j])
            total[j] += value
            squares[j] += value * value
            inside[j] += np.float64((row[j] > low) & (row[j] < high))
