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
STRIP: Final = 32
"""Rows that are transposed together: of uint16, a cache line across."""
_SQUARE: Final = 8
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


@intrinsic  # type: ignore[untyped-decorator]
def _transpose_square(_: Any, source: Any, source_step: Any, target: Any, target_step: Any) -> Any:
    """Write the transposed 8 x 8 uint16 at one place to another; a step is from row to row, in bytes.

    Rows i and i + 4 are interleaved to rows 2 i and 2 i + 1, three times: each time the six bits of a pixel's place,
    three of its row and three of its column, move on by one.
    """

    def build(__: Any, builder: Any, ___: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        row_type = ir.VectorType(ir.IntType(16), _SQUARE)
        lanes = ir.VectorType(ir.IntType(32), _SQUARE)
        halves = [ir.Constant(lanes, [i + j for i in range(h, h + 4) for j in (0, _SQUARE)]) for h in (0, 4)]

        def row_at(place: Any, step: Any, i: int) -> Any:
            at = builder.add(place, builder.mul(step, ir.Constant(word, i)))
            return builder.inttoptr(at, row_type.as_pointer())

        source, source_step, target, target_step = arguments
        rows = [builder.load(row_at(source, source_step, i), align=2) for i in range(_SQUARE)]
        for _ in range(3):
            rows = [builder.shuffle_vector(rows[i], rows[i + 4], half) for i in range(4) for half in halves]
        for i, row in enumerate(rows):
            builder.store(row, row_at(target, target_step, i), align=2)
        return ir.Constant(ir.IntType(1), 1)

    return types.boolean(types.uintp, types.intp, types.uintp, types.intp), build


@_compiled
def _turn_strip(image: Any, operation: int, top: int, strip: Any) -> None:
    """Write rows from ``top`` on of ``image``, (n, n) uint16, under an operation that transposes.

    A strip is as wide as a cache line of the image, so that each of its lines is fetched once.
    """
    n, height = image.shape[0], strip.shape[0]
    flips_rows, flips_columns = operation & ROWS != 0, operation & COLUMNS != 0
    pitch, whole, whole_rows = 2 * n, n - n % _SQUARE, height - height % _SQUARE
    begin, begin_strip = image.ctypes.data, strip.ctypes.data
    for i in range(0, whole_rows, _SQUARE):  # of the strip, where they are columns of the image
        column = n - _SQUARE - top - i if flips_rows else top + i
        first = i + _SQUARE - 1 if flips_rows else i
        for j in range(0, whole, _SQUARE):
            row = n - 1 - j if flips_columns else j
            _transpose_square(
                np.uint64(begin + row * pitch + 2 * column),
                -pitch if flips_columns else pitch,
                np.uint64(begin_strip + first * pitch + 2 * j),
                -pitch if flips_rows else pitch,
            )
    for i in range(height):
        column = n - 1 - top - i if flips_rows else top + i
        for j in range(whole if i < whole_rows else 0, n):
            strip[i, j] = image[n - 1 - j if flips_columns else j, column]


@_compiled
def turn_codes(cells: Any, operations: Any, out: Any) -> None:
    """Write the uint16 image that each of ``cells`` (k, n * n or more) begins with into ``out`` (k, n, n), turned."""
    n = out.shape[1]
    count = np.uint64(n)  # unsigned: an index that may be below zero makes no vector instructions
    for k in range(out.shape[0]):
        image, operation = cells[k, : n * n].reshape(n, n), operations[k]
        if operation & TRANSPOSE != 0:
            for top in range(0, n, STRIP):
                _turn_strip(image, operation, top, out[k, top : top + STRIP])
            continue
        for row in range(n):
            source, place = image[n - 1 - row if operation & ROWS != 0 else row], out[k, row]
            if operation & COLUMNS != 0:
                for i in range(count):
                    place[i] = source[count - np.uint64(1) - i]
            else:
                place[:] = source


@_compiled
def _place_codes(
    image: Any, operation: int, strip: Any, out: Any, low: Any, high: Any, lowest: Any, scale: Any
) -> None:
    """Write an image (n, n) of codes under an operation into ``out`` (n, n), stretched as by `stretch_codes`.

    Flips are done while stretching; what is transposed goes through ``strip``, (`STRIP`, n) uint16.
    """
    n, zero, one = image.shape[0], np.float32(0), np.float32(1)
    count = np.uint64(n)
    if operation & TRANSPOSE != 0:
        for top in range(0, n, STRIP):
            rows = strip[: min(STRIP, n - top)]
            _turn_strip(image, operation, top, rows)
            stretch_codes(rows, out[top : top + STRIP], low, high, lowest, scale)
    elif operation & COLUMNS != 0:
        for row in range(n):
            source, place = image[n - 1 - row if operation & ROWS != 0 else row], out[row]
            for i in range(count):
                code = source[count - np.uint64(1) - i]
                value = (np.float32(min(max(code, low), high)) - lowest) * scale
                place[i] = min(max(value, zero), one)
    elif operation & ROWS != 0:
        for row in range(n):
            stretch_codes(image[n - 1 - row : n - row], out[row : row + 1], low, high, lowest, scale)
    else:
        stretch_codes(image, out, low, high, lowest, scale)


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
    strip: Any,
    out: Any,
    low: Any,
    high: Any,
    lowest: Any,
    scale: Any,
    table: Any,
) -> int:
    """Read chunks of codes, check, turn and stretch each, while it is in cache, into its slot of a batch.

    Return how many were as they should be: it stops at the first that is short, or whose checksum fails.
    ``raw`` has room for a chunk and its checksum, ``strip`` is (`STRIP`, n) uint16; ``table`` is `zeros_table` of a
    chunk's words, ``out`` (slots, n, n) float32.
    """
    n = out.shape[1]
    nbytes = 2 * n * n
    words, stored = raw[:nbytes].view(np.uint64), raw[nbytes : nbytes + 4].view(np.uint32)
    image = raw[:nbytes].view(np.uint16).reshape(n, n)
    for k in range(handles.size):
        if _pread(handles[k], np.uint64(raw.ctypes.data), np.uint64(raw.size), offsets[k]) != raw.size:
            return k
        if crc_of_words(words, table) != stored[0]:
            return k
        _place_codes(image, operations[k], strip, out[slots[k]], low, high, lowest, scale)
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
