"""Loops over pixels in the subset of Python that Numba compiles: imported once a machine.

They take the addresses of arrays, so that what Numba makes of them can be kept as object code and used without
Numba. For that, a loop must not be able to raise: it indexes, slices and calls, and does not allocate, reshape
or assign arrays to one another. `sarzarr.pixels.compiled.object_code` refuses others.

Pixels are float32, or integers, throughout. Only rows of contiguous arrays become vector instructions for sure.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

from sarzarr.pixels.compiled.calls import NEEDS_CRC, SIGNATURES, STRIP
from sarzarr.pixels.turns import COLUMNS, ROWS, TRANSPOSE

LOOPS: Final[dict[str, Any]] = {}
"""Compiled loops by the names of their signatures."""
HAS_CRC: Final = get_host_cpu_features().get("sse4.2", False)
"""Whether the processor has an instruction for CRC-32C: x86 since 2008."""
_SQUARE: Final = 8
_part: Callable[[Callable[..., Any]], Callable[..., Any]] = njit(error_model="numpy", forceinline=True)


def _loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop for each of its signatures: that of its name, or those of its name and a dtype."""
    for name, words in SIGNATURES.items():
        is_wanted = name != NEEDS_CRC or HAS_CRC
        if is_wanted and name.partition(" ")[0] == function.__name__:
            result, *arguments = map(_type_of, words.split())
            LOOPS[name] = cfunc(result(*arguments), error_model="numpy")(function)
    return function


def _type_of(word: str) -> Any:
    return types.CPointer(getattr(types, word[1:])) if word.startswith("*") else getattr(types, word)


# ---------------------------------------------------------------- the loader
_pread = types.ExternalFunction("pread", types.int64(types.int32, types.uintp, types.uint64, types.int64))
"""The C library's, called by its name: ``ssize_t (int, void*, size_t, off_t)``."""


@_loop
def read_cells(handles: Any, offsets: Any, first: int, count: int, cell: int, address: int) -> int:
    """Read cells one behind the other to a place in memory; return 1 if all were read whole."""
    for i in range(count):
        place = np.uint64(address + np.uint64(i * cell))
        if _pread(handles[first + i], place, np.uint64(cell), offsets[first + i]) != cell:
            return 0
    return 1


@_part
def _stretched(code: Any, low: Any, high: Any, lowest: Any, scale: Any) -> Any:
    value = (np.float32(min(max(code, low), high)) - lowest) * scale
    return min(max(value, np.float32(0)), np.float32(1))


@_part
def _stretch(source: Any, place: Any, low: Any, high: Any, lowest: Any, scale: Any) -> None:
    for i in range(place.size):
        place[i] = _stretched(source[i], low, high, lowest, scale)


@_loop
def stretch_codes(
    cells: Any, pitch: int, out: Any, count: int, n: int, low: Any, high: Any, lowest: Any, scale: Any
) -> None:
    """Stretch the n codes that each of some cells begins with."""
    sources, places = carray(cells, (count, pitch)), carray(out, (count, n))
    for k in range(count):
        _stretch(sources[k], places[k], low, high, lowest, scale)


@_loop
def stretch_floats(cells: Any, pitch: int, out: Any, count: int, n: int, scale: Any, offset: Any) -> None:
    """Stretch the n floats that each of some cells begins with; NaN stays NaN."""
    zero, one = np.float32(0), np.float32(1)
    sources, places = carray(cells, (count, pitch)), carray(out, (count, n))
    for k in range(count):
        source, place = sources[k], places[k]
        for i in range(n):
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


@_part
def _turn_strip(image: Any, n: int, operation: Any, top: int, strip: Any) -> None:
    """Write rows from ``top`` on of ``image``, n * n uint16, under an operation that transposes.

    A strip of 32 is as wide as a cache line of the image, so that each of its lines is fetched once.
    """
    height = strip.size // n
    flips_rows, flips_columns = operation & ROWS != 0, operation & COLUMNS != 0
    pitch, whole, whole_rows = 2 * n, n - n % _SQUARE, height - height % _SQUARE
    begin, begin_strip = np.int64(image.ctypes.data), np.int64(strip.ctypes.data)
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
            strip[i * n + j] = image[(n - 1 - j if flips_columns else j) * n + column]


@_part
def _source_row(image: Any, n: int, operation: Any, row: int) -> Any:
    first = (n - 1 - row if operation & ROWS != 0 else row) * n
    return image[first : first + n]


@_loop
def turn_codes(cells: Any, pitch: int, operations: Any, out: Any, count: int, n: int) -> None:
    """Turn the image (n, n) that each of some cells begins with."""
    sources, images = carray(cells, (count, pitch)), carray(out, (count, n * n))
    # Unsigned: an index that may be below zero makes no vector instructions.
    last = np.uint64(n) - np.uint64(1)
    for k in range(count):
        image, turned, operation = sources[k], images[k], operations[k]
        if operation & TRANSPOSE != 0:
            for top in range(0, n, STRIP):
                _turn_strip(image, n, operation, top, turned[top * n : min(top + STRIP, n) * n])
            continue
        for row in range(n):
            source, place = _source_row(image, n, operation, row), turned[row * n : (row + 1) * n]
            if operation & COLUMNS != 0:
                for i in range(np.uint64(n)):
                    place[i] = source[last - i]
            else:
                for j in range(n):
                    place[j] = source[j]


@_part
def _place_codes(
    image: Any, n: int, operation: Any, strip: Any, out: Any, low: Any, high: Any, lowest: Any, scale: Any
) -> None:
    """Stretch an image of codes under an operation into ``out``, both n * n.

    Flips are done while stretching; what is transposed goes through ``strip``, `STRIP` * n uint16.
    """
    last = np.uint64(n) - np.uint64(1)
    if operation == 0:
        _stretch(image, out, low, high, lowest, scale)
    elif operation & TRANSPOSE != 0:
        for top in range(0, n, STRIP):
            bottom = min(top + STRIP, n)
            rows = strip[: (bottom - top) * n]
            _turn_strip(image, n, operation, top, rows)
            _stretch(rows, out[top * n : bottom * n], low, high, lowest, scale)
    else:
        for row in range(n):
            source, place = _source_row(image, n, operation, row), out[row * n : (row + 1) * n]
            if operation & COLUMNS == 0:
                _stretch(source, place, low, high, lowest, scale)
                continue
            for i in range(np.uint64(n)):
                place[i] = _stretched(source[last - i], low, high, lowest, scale)


# ---------------------------------------------------------------- a batch
@intrinsic  # type: ignore[untyped-decorator]
def _crc_of_word(_: Any, crc: Any, word: Any) -> Any:
    """Return the CRC-32C register after eight more bytes."""

    def build(__: Any, builder: Any, ___: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        name, kind = "llvm.x86.sse42.crc32.64.64", ir.FunctionType(word, [word, word])
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.call(function, arguments)

    return types.uint64(crc, word), build


@_part
def _after_zeros(register: Any, table: Any) -> Any:
    low = np.uint64(0xFF)
    return (
        table[register & low]
        ^ table[np.uint64(256) + ((register >> np.uint64(8)) & low)]
        ^ table[np.uint64(512) + ((register >> np.uint64(16)) & low)]
        ^ table[np.uint64(768) + (register >> np.uint64(24))]
    )


@_part
def _crc(words: Any, count: int, table: Any) -> Any:
    """Return the CRC-32C of so many words: three parts at once, since each waits three cycles for its last step."""
    part, ones = count // 3, np.uint64(0xFFFFFFFF)
    a, b, c = ones, np.uint64(0), np.uint64(0)
    for i in range(part):
        a, b, c = (
            _crc_of_word(a, words[i]),
            _crc_of_word(b, words[part + i]),
            _crc_of_word(c, words[2 * part + i]),
        )
    a = _after_zeros(_after_zeros(a, table) ^ b, table) ^ c
    for i in range(3 * part, count):
        a = _crc_of_word(a, words[i])
    return a ^ ones


@_loop
def deliver(
    handles: Any,
    offsets: Any,
    slots: Any,
    operations: Any,
    count: int,
    raw: int,
    words: Any,
    stored: Any,
    codes: Any,
    strip: Any,
    out: Any,
    n: int,
    low: Any,
    high: Any,
    lowest: Any,
    scale: Any,
    table: Any,
) -> int:
    """Read chunks of codes, check, turn and stretch each, while it is in cache, into its slot of a batch.

    Return how many were as they should be. ``words``, ``stored`` and ``codes`` are what lies at ``raw``: a chunk in
    words and in codes, and behind it its checksum.
    """
    pixels = n * n
    room, cell = carray(strip, (STRIP * n,)), 2 * pixels + 4
    image = carray(codes, (pixels,))
    for k in range(count):
        if _pread(handles[k], raw, np.uint64(cell), offsets[k]) != cell:
            return k
        if _crc(words, pixels // 4, table) != stored[0]:
            return k
        first = slots[k] * pixels
        place = carray(out, (first + pixels,))[first:]
        _place_codes(image, n, operations[k], room, place, low, high, lowest, scale)
    return count


# ---------------------------------------------------------------- ingest
# A tile is worked on in three steps, `floored_power`, NumPy's log, and one of the others. What is looked for in
# passing is found in integers, whose minimum and maximum are vector instructions.
@_loop
def floored_power(
    band: Any,
    pitch: int,
    row: int,
    col: int,
    sentinel: Any,
    squares: int,
    floor: Any,
    out: Any,
    bits: Any,
    rows: int,
    columns: int,
) -> int:
    """Write ``max(power, floor)`` of a tile of a band into ``out``, (rows, columns).

    Return 1 if each of its pixels is finite, above zero and not ``sentinel``: else ``out`` is of no use. NaN is no
    sentinel. ``bits`` is ``out`` seen as int32: floats above zero are in the order of their bits, below infinity's,
    and negative ones are below zero. ``floor`` is bits, too.
    """
    infinite, lowest, highest, hits = np.int32(0x7F800000), np.int32(0x7FFFFFFF), np.int32(0), np.int32(0)
    lines, places, seen_lines = (
        carray(band, (row + rows, pitch)),
        carray(out, (rows, columns)),
        carray(bits, (rows, columns)),
    )
    for i in range(rows):
        source, place, seen = lines[row + i, col : col + columns], places[i], seen_lines[i]
        for j in range(columns):
            value = np.float32(source[j])
            hits |= np.int32(source[j] == sentinel)
            place[j] = value * value if squares != 0 else value
        for j in range(columns):
            lowest, highest = min(lowest, seen[j]), max(highest, seen[j])
            seen[j] = max(seen[j], floor)
    return int(lowest > 0 and highest < infinite and hits == 0)


@_part
def _half_codes(logs: Any, law: Any, top: Any, bins: Any) -> Any:
    """Write the half-codes of natural logarithms of power; return whether one is the first or the last."""
    zero, one, last = np.float32(0), np.float32(1), np.int32(top)
    lowest, highest = last, np.int32(0)
    for i in range(logs.size):
        bin_ = np.int32(min(max((logs[i] * law[0] - law[1]) * law[2], zero), one) * top)
        lowest, highest = min(lowest, bin_), max(highest, bin_)
        bins[i] = bin_
    return (lowest == 0) | (highest == last)


@_part
def _count(logs: Any, law: Any, limits: Any, bins: Any, at_ends: Any, counts: Any, found: Any) -> None:
    """Count half-codes, and the dB under and over: only what is at the ends can be that."""
    for i in range(logs.size):
        counts[bins[i]] += 1
    if at_ends:
        for i in range(logs.size):
            found[0] += logs[i] * law[0] < limits[0]
            found[1] += logs[i] * law[0] > limits[1]


@_loop
def codes_of_logs(
    logs: Any,
    size: int,
    law: Any,
    whole: Any,
    top: Any,
    limits: Any,
    codes: Any,
    half: Any,
    part: int,
    counts: Any,
    found: Any,
) -> None:
    """Write uint16 codes of natural logarithms of power, and count half-codes and those under and over.

    ``law`` is dB a neper, dB of 0, reciprocal of the range: of what is stored; ``whole`` of what is counted, another
    in classic stores. ``limits`` are the dB that are counted beyond. ``half`` is int32 scratch for a part of them,
    since counting makes no vector instructions.
    """
    all_logs, all_codes, bins = carray(logs, (size,)), carray(codes, (size,)), carray(half, (part,))
    one = np.int32(1)
    for first in range(0, size, part):
        source, place = all_logs[first : first + part], all_codes[first : first + part]
        at_ends = _half_codes(source, law, top, bins)
        for i in range(source.size):
            place[i] = np.uint16((bins[i] + one) >> one)
        if law[1] != whole[1] or law[2] != whole[2]:
            at_ends = _half_codes(source, whole, top, bins)
        _count(source, whole, limits, bins, at_ends, counts, found)


@_loop
def floats_of_logs(
    logs: Any,
    size: int,
    law: Any,
    whole: Any,
    top: Any,
    limits: Any,
    half: Any,
    part: int,
    counts: Any,
    found: Any,
) -> None:
    """Turn natural logarithms of power into [0, 1] in place, and count: see `codes_of_logs`."""
    zero, one = np.float32(0), np.float32(1)
    all_logs, bins = carray(logs, (size,)), carray(half, (part,))
    for first in range(0, size, part):
        place = all_logs[first : first + part]
        at_ends = _half_codes(place, whole, top, bins)
        _count(place, whole, limits, bins, at_ends, counts, found)
        for i in range(place.size):
            place[i] = min(max((place[i] * law[0] - law[1]) * law[2], zero), one)


# ---------------------------------------------------------------- the patch index
@_loop
def column_sums(
    codes: Any,
    rows: int,
    pitch: int,
    columns: int,
    low: Any,
    span: Any,
    inside: Any,
    total: Any,
    squares: Any,
) -> None:
    """Add up columns, of fewer than 65,536 rows: codes from ``low`` to ``low + span``, sum, sum of squares."""
    lines, counts = carray(codes, (rows, pitch)), carray(inside, (columns,))
    sums, squared = carray(total, (columns,)), carray(squares, (columns,))
    for j in range(columns):
        counts[j], sums[j], squared[j] = 0, 0, 0
    for i in range(rows):
        row = lines[i]
        for j in range(columns):
            code = row[j]
            counts[j] += np.uint16(np.uint16(code - low) <= span)
            sums[j] += np.uint32(code)
        for j in range(columns):
            code = np.uint32(row[j])
            squared[j] += np.int64(np.uint32(code * code))


@_loop
def float_column_sums(
    values: Any,
    rows: int,
    pitch: int,
    columns: int,
    low: Any,
    high: Any,
    inside: Any,
    total: Any,
    squares: Any,
) -> None:
    """Add up columns of floats: those between, sum, sum of squares, in float64, row by row."""
    lines, counts = carray(values, (rows, pitch)), carray(inside, (columns,))
    sums, squared = carray(total, (columns,)), carray(squares, (columns,))
    for j in range(columns):
        counts[j], sums[j], squared[j] = 0.0, 0.0, 0.0
    for i in range(rows):
        row = lines[i]
        for j in range(columns):
            value = np.float64(row[j])
            sums[j] += value
            squared[j] += value * value
            counts[j] += np.float64((row[j] > low) & (row[j] < high))
