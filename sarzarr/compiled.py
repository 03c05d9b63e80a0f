"""Loops that Numba compiles: the one module that imports it, and only `sarzarr.fused` imports this one.

Plain loops over pixels, in the subset of Python that Numba knows, without Python's lock. Only rows of C-contiguous
arrays become vector instructions for sure. They are compiled when they are first called, once a machine: Numba keeps
them beside this file or, where that is not writable, in the user's cache. Therefore they are functions of this module
and not of another function: those are compiled again in every process.
"""

import os
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np
from crc32c import crc32c
from llvmlite import ir
from numba import njit, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from sarzarr.augment import COLUMNS, ROWS, TRANSPOSE

LANES: Final = 3
"""Checksums of parts of a chunk that are under way at once: each waits three cycles for its last instruction."""
HAS_PREAD: Final = hasattr(os, "pread")
"""Whether loops that read can be called: not on Windows."""


def _compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    try:
        made: Callable[..., Any] = njit(nogil=True, error_model="numpy", cache=True)(loop)
    except RuntimeError:  # no place to keep it
        made = njit(nogil=True, error_model="numpy")(loop)
    return made


# ---------------------------------------------------------------- the loader
_pread = types.ExternalFunction("pread", types.int64(types.int32, types.uintp, types.uint64, types.int64))
"""The C library's, called by its name: ``ssize_t (int, void*, size_t, off_t)``."""


@_compiled
def read_cells(handles: Any, offsets: Any, first: int, count: int, cell: int, address: int) -> bool:
    """Read ``count`` cells, from number ``first`` on, one behind the other to a place in memory.

    Return whether all were read whole. Threads meet at Python's lock once a group, and not once a cell.
    """
    for i in range(count):
        place = np.uint64(address + i * cell)
        if _pread(handles[first + i], place, np.uint64(cell), offsets[first + i]) != cell:
            return False
    return True


@_compiled
def stretch_codes(cells: Any, out: Any, low: Any, high: Any, lowest: Any, scale: Any) -> None:
    """Write ``clip((clip(code, low, high) - lowest) * scale, 0, 1)``: uint16 (k, n or more) to float32 (k, n)."""
    for k in range(out.shape[0]):
        source, place = cells[k], out[k]
        for i in range(place.size):
            value = (np.float32(min(max(source[i], low), high)) - lowest) * scale
            place[i] = min(max(value, np.float32(0)), np.float32(1))


@_compiled
def stretch_floats(cells: Any, out: Any, scale: Any, offset: Any) -> None:
    """Write ``clip(stored * scale + offset, 0, 1)``: float32 (k, n or more) to (k, n); NaN stays NaN."""
    zero, one = np.float32(0), np.float32(1)
    for k in range(out.shape[0]):
        source, place = cells[k], out[k]
        for i in range(place.size):
            value = source[i] * scale + offset
            value = zero if value < zero else value  # noqa: FURB136 (this way round NaN stays)
            place[i] = one if value > one else value  # noqa: FURB136


@_compiled
def turn_words(source: Any, operations: Any, out: Any) -> None:
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


# ---------------------------------------------------------------- a batch
@cache
def can_deliver() -> bool:
    """Return whether `deliver` can be called: its checksum takes an instruction that x86 has since 2008."""
    return HAS_PREAD and "+sse4.2" in cpu_target.target_context.codegen().magic_tuple()[2]


@intrinsic  # type: ignore[untyped-decorator]
def _crc_of_word(_: Any, crc: Any, word: Any) -> Any:
    """Return the CRC-32C register after eight more bytes."""

    def build(__: Any, builder: Any, ___: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        name, kind = "llvm.x86.sse42.crc32.64.64", ir.FunctionType(word, [word, word])
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.call(function, arguments)

    return types.uint64(crc, word), build


@cache
def zeros_table(words: int) -> np.ndarray[Any, Any]:
    """Return what a third of so many zero words make of a CRC-32C register: (4, 256) uint64, one a byte of it.

    A register is linear in what it was: so that of a whole is put together from those of its parts.
    """
    zeros = bytes(8 * (words // LANES))
    of_bit = [crc32c(zeros, (1 << bit) ^ 0xFFFFFFFF) ^ 0xFFFFFFFF for bit in range(32)]
    table = np.zeros((4, 256), np.uint64)
    for bit, register in enumerate(of_bit):
        has_bit = np.arange(256) >> (bit % 8) & 1 == 1
        table[bit // 8, has_bit] ^= np.uint64(register)
    return table


@_compiled
def _after_zeros(register: Any, table: Any) -> Any:
    low = np.uint64(0xFF)
    return (
        table[0, register & low]
        ^ table[1, (register >> np.uint64(8)) & low]
        ^ table[2, (register >> np.uint64(16)) & low]
        ^ table[3, register >> np.uint64(24)]
    )


@_compiled
def crc_of_words(words: Any, table: Any) -> Any:
    """Return the CRC-32C of (n,) uint64 words; ``table`` is `zeros_table` of n."""
    part, ones = words.size // 3, np.uint64(0xFFFFFFFF)
    a, b, c = ones, np.uint64(0), np.uint64(0)
    first, second, third = words[:part], words[part : 2 * part], words[2 * part : 3 * part]
    for i in range(part):
        a, b, c = _crc_of_word(a, first[i]), _crc_of_word(b, second[i]), _crc_of_word(c, third[i])
    a = _after_zeros(_after_zeros(a, table) ^ b, table) ^ c
    for i in range(3 * part, words.size):
        a = _crc_of_word(a, words[i])
    return a ^ ones


@_compiled
def deliver(
    handles: Any,
    offsets: Any,
    slots: Any,
    operations: Any,
    raw: Any,
    turned: Any,
    out: Any,
    low: Any,
    high: Any,
    lowest: Any,
    scale: Any,
    table: Any,
) -> int:
    """Read chunks of codes, check, turn and stretch each, while it is in cache, into its slot of a batch.

    Return how many were as they should be: it stops at the first that is short, or whose checksum fails.
    ``raw`` has room for a chunk and its checksum, ``turned`` (1, n, n / 4) words for a turned one; ``table`` is
    `zeros_table` of a chunk's words, ``out`` (slots, n * n) float32. Every operation is 0 where n / 4 is not whole.
    """
    pixels = out.shape[1]
    nbytes = 2 * pixels
    words, stored = raw[:nbytes].view(np.uint64), raw[nbytes : nbytes + 4].view(np.uint32)
    codes, codes_turned = raw[:nbytes].view(np.uint16), turned.reshape(-1).view(np.uint16)
    image = words[: turned.size].reshape(turned.shape)
    for k in range(handles.size):
        if _pread(handles[k], np.uint64(raw.ctypes.data), np.uint64(raw.size), offsets[k]) != raw.size:
            return k
        if crc_of_words(words, table) != stored[0]:
            return k
        place = out[slots[k] : slots[k] + 1]
        if operations[k] == 0:
            stretch_codes(codes.reshape(1, pixels), place, low, high, lowest, scale)
        else:
            turn_words(image, operations[k : k + 1], turned)
            stretch_codes(codes_turned.reshape(1, pixels), place, low, high, lowest, scale)
    return int(handles.size)


# ---------------------------------------------------------------- ingest
# A tile is worked on in three steps, `floored_power`, NumPy's log, and one of the others. float32 throughout.
# What is looked for in passing is found in integers, whose minimum and maximum are vector instructions.
@_compiled
def floored_power(
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


@_compiled
def codes_of_logs(
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


@_compiled
def floats_of_logs(
    logs: Any, law: Any, whole: Any, top: Any, limits: Any, half: Any, counts: Any
) -> tuple[int, int]:
    """Turn natural logarithms of power into [0, 1] in place, and count: see `codes_of_logs`.

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


@_compiled
def column_sums(codes: Any, low: Any, span: Any, out: Any) -> None:
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


@_compiled
def float_column_sums(values: Any, low: Any, high: Any, inside: Any, total: Any, squares: Any) -> None:
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
