"""Loops over pixels that Numba compiles: chunks read, checked, turned, stretched; tiles taken in; columns added up.

Each gives the bits of NumPy's passes; none holds Python's lock. Arrays are C-contiguous. Only an index that cannot be
below zero, as one that is unsigned or counts from a slice's beginning, makes vector instructions.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numba import njit, types
from numba.extending import overload

from sarzarr.arrays import Array
from sarzarr.pixels.compiled.lazy import COMPILED as COMPILED
from sarzarr.pixels.compiled.lazy import LazyLoop as _Loop
from sarzarr.pixels.compiled.lazy import lazy_loop as _loop
from sarzarr.pixels.turns import COLUMNS, ROWS, TRANSPOSE

STRIP: Final = 32
"""Rows that are transposed together: of uint16, a cache line across."""
_u16, _u64 = np.uint16, np.uint64
_part: Final[Callable[[Callable[..., Any]], Callable[..., Any]]] = njit(error_model="numpy")
_int32s, _int64s, _float32s = types.int32[::1], types.int64[::1], types.float32[::1]
_codes, _words, _floats = types.uint16[:, ::1], types.uint64[:, ::1], types.float32[:, ::1]
_law = types.Tuple((types.uint16, types.uint16, types.float32, types.float32))
_half_law = types.Tuple((*_law, types.int32))
_laws = types.Tuple((_float32s, _float32s, types.float32, _float32s))
_places = types.Tuple((_int64s, types.uint8[::1]))
_crcs = types.uint32[::1]
_chunks = types.Tuple((_int32s, _int64s, _crcs, _int64s))
_trust = types.Tuple((types.uint8[::1], types.uint8))
_pieces = types.Tuple((types.int32[:, ::1], _int64s, types.uint16))
_memory = types.Tuple((_codes, _crcs, _codes, _words, _codes))


class _Function(types.WrapperAddressProtocol):  # type: ignore[misc]
    """A function of a C library that loops are given by its address; it needs nothing of Python."""

    def __init__(self, library: str | None, name: str, signature: Any) -> None:
        self._address = ctypes.cast(getattr(ctypes.CDLL(library), name), ctypes.c_void_p).value
        self._signature = signature

    def __wrapper_address__(self) -> int | None:
        return self._address

    def signature(self) -> Any:
        return self._signature


_pread = types.int64(types.int32, types.uintp, types.uintp, types.int64)
_extend = types.uint32(types.uint32, types.uintp, types.uintp)


def _functions() -> tuple[_Function, _Function] | None:
    """Return the system's pread, and the CRC-32C of google/crc32c, which knows x86's instruction and aarch64's."""
    try:
        from google_crc32c import _crc32c

        return _Function(None, "pread", _pread), _Function(_crc32c.__file__, "crc32c_extend", _extend)
    except (AttributeError, ImportError, OSError, TypeError):  # Windows has no pread
        return None


C: Final = _functions()
"""``pread`` and ``crc32c_extend``; None where one is not at hand: `deliver` is no use then."""


@_loop(types.void(_floats, _floats, types.float32, types.float32))
def stretch_floats(cells: Array, out: Array, scale: float, offset: float) -> None:
    """Write ``clip(stored * scale + offset, 0, 1)``: float32 (k, n or more) to (k, n); NaN becomes 0."""
    zero, one = np.float32(0), np.float32(1)
    for k in range(len(out)):
        source, place = cells[k], out[k]
        for i in range(place.size):
            value = source[i] * scale + offset
            value = value if value > zero else zero  # noqa: FURB136 (this way round NaN becomes 0)
            place[i] = one if value > one else value  # noqa: FURB136


def _delivered(code: Any, law: Any) -> Any:
    """Return a code as it is delivered: by `Stretch.law_of_codes`, or, where that is None, as it is."""
    raise NotImplementedError  # compiled code has one of `_delivered_by`


@overload(_delivered)  # type: ignore[untyped-decorator]
def _delivered_by(code: Any, law: Any) -> Any:
    """Return the function for the type of a law: None, four numbers, or one more for values of 16 bits."""
    if isinstance(law, types.NoneType):
        return _as_it_is
    return _stretched if len(law) == len(_law) else _stretched_to_half


def _as_it_is(code: Any, law: Any) -> Any:
    return code


def _stretched(code: Any, law: Any) -> Any:
    value = (np.float32(min(max(code, law[0]), law[1])) - law[2]) * law[3]
    return min(max(value, np.float32(0)), np.float32(1))


def _stretched_to_half(code: Any, law: Any) -> Any:
    """Return the 16 bits nearest the float32, to even: of bfloat16 those above 16, of float16 those above 13.

    A float16 has its exponent 112 lower; below its smallest normal number, 2**-14, steps are those of float32 at 0.5.
    """
    value = (np.float32(min(max(code, law[0]), law[1])) - law[2]) * law[3]
    value = min(max(value, np.float32(0)), np.float32(1))
    bits, one = np.float32(value).view(np.int32), np.int32(1)
    if law[4] == 16:
        return _u16((bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & one)) >> np.int32(16))
    small = np.float32(value + np.float32(0.5)).view(np.int32) - np.int32(0x3F000000)
    whole = (bits - np.int32(112 << 23) + np.int32(0xFFF) + ((bits >> np.int32(13)) & one)) >> np.int32(13)
    return _u16(small if bits < np.int32(0x38800000) else whole)


@_part
def _transpose(image: Any, operation: Any, top: int, strip: Any, words: Any) -> None:
    """Write rows from ``top`` on of ``image``, uint16 (n, n), under an operation that transposes into ``strip``.

    ``words`` are ``strip``, (rows, n), as uint64 (rows, n / 4): what comes from four rows is written at once.
    """
    height, n = strip.shape
    first = n - top - height if operation & ROWS else top
    begin, step = (n - 1, -1) if operation & COLUMNS else (0, 1)
    for j in range(words.shape[1]):
        at = begin + 4 * j * step
        a, b = image[at, first : first + height], image[at + step, first : first + height]
        c, d = image[at + 2 * step, first : first + height], image[at + 3 * step, first : first + height]
        column = words[::-1, j] if operation & ROWS else words[::1, j]
        for i in range(height):
            low, high = _u64(a[i]) | _u64(b[i]) << _u64(16), _u64(c[i]) | _u64(d[i]) << _u64(16)
            column[i] = low | high << _u64(32)
    for j in range(4 * words.shape[1], n):
        source, place = image[begin + j * step], strip[::-1, j] if operation & ROWS else strip[::1, j]
        for i in range(height):
            place[i] = source[first + i]


@_part
def _place(image: Any, operation: Any, strip: Any, words: Any, out: Any, law: Any) -> None:
    """Deliver ``image`` under an operation into ``out``, both (n, n); transposes go through ``strip``."""
    n = len(image)
    if operation & TRANSPOSE:
        for top in range(0, n, STRIP):
            height = min(STRIP, n - top)
            _transpose(image, operation, top, strip[:height], words[:height])
            for i in range(height):
                source, place = strip[i], out[top + i]
                for j in range(n):
                    place[j] = _delivered(source[j], law)
        return
    for i in range(n):
        source, place = image[n - 1 - i if operation & ROWS else i], out[i]
        if operation & COLUMNS:
            for j in range(_u64(n)):
                place[j] = _delivered(source[_u64(n - 1) - j], law)
        else:
            for j in range(n):
                place[j] = _delivered(source[j], law)


@_loop(
    types.void(_codes, _places, _codes, _words, types.float32[:, :, ::1], _law),
    types.void(_codes, _places, _codes, _words, types.uint16[:, :, ::1], _half_law),
    types.void(_codes, _places, _codes, _words, types.uint16[:, :, ::1], types.none),
)
def _place_codes(cells: Array, places: Any, strip: Array, words: Array, out: Array, law: Any) -> None:
    n, slots, operations = out.shape[1], places[0], places[1]
    for k in range(len(slots)):
        _place(cells[k, : n * n].reshape((n, n)), operations[k], strip, words, out[slots[k]], law)


def place_codes(cells: Array, places: tuple[Array, Array], strip: Array, out: Array, law: Any) -> None:
    """Turn, and stretch, the image that each of ``cells``, uint16 (k, n * n or more), begins with into its place.

    Places are slots (int64) of ``out``, (slots, n, n), and operations (uint8). ``out`` is float32, by the four
    numbers of a law, ``clip((clip(code, low, high) - lowest) * scale, 0, 1)``; the bits (uint16) of a float16 or a
    bfloat16, where a fifth is 13 or 16; or uint16, where the law is None.
    ``strip`` is scratch, (`STRIP`, n) uint16.
    """
    _place_codes(cells, places, strip, _in_words(strip), out, law)


def _in_words(rows: Array) -> Array:
    """Return uint16 (rows, n) as uint64 (rows, n / 4); (rows, 0) where a row is no whole words."""
    return (rows if rows.shape[1] % 4 == 0 else rows[:, :0].copy()).view(_u64)


_c = types.FunctionType(_pread), types.FunctionType(_extend), types.uintp
_whole, _parted = (*_c, _chunks, _trust, _places, _memory), (*_c, _chunks, _trust, _pieces, _places, _memory)


@_part
def _fetched(pread: Any, extend: Any, chunks: Any, trust: Any, at: Any, memory: Any) -> bool:
    """Read rows of a chunk, or all of it, checked, where it is not trusted; say if it is as it should be.

    ``at`` is the memory's address, the chunk, and the first row and the one behind the last.
    """
    (address, k, first, last), (handles, offsets, crcs, numbers), (trusted, keep) = at, chunks, trust
    image, stored = memory[0], memory[1]
    if trusted[numbers[k]]:
        row = 2 * image.shape[1]
        begin, some = first * row, (last - first) * row
        return bool(pread(handles[k], address + _u64(begin), _u64(some), offsets[k] + begin) == some)
    size = _u64(2 * image.size)
    if pread(handles[k], address, size + _u64(4), offsets[k]) != size + 4:
        return False
    if stored[0] != crcs[k] or extend(np.uint32(0), address, size) != crcs[k]:
        return False
    trusted[numbers[k]] = keep
    return True


@_loop(
    types.int64(*_whole, types.float32[:, :, ::1], _law),
    types.int64(*_whole, types.uint16[:, :, ::1], _half_law),
    types.int64(*_whole, types.uint16[:, :, ::1], types.none),
)
def _deliver(
    pread: Any,
    extend: Any,
    address: Any,
    chunks: Any,
    trust: Any,
    places: Any,
    memory: Any,
    out: Array,
    law: Any,
) -> int:
    (slots, operations), (image, _, strip, words, _) = places, memory
    for k in range(len(slots)):
        if not _fetched(pread, extend, chunks, trust, (address, k, 0, image.shape[0]), memory):
            return k
        _place(image, operations[k], strip, words, out[slots[k]], law)
    return len(slots)


def deliver(
    chunks: tuple[Array, ...],
    trust: tuple[Array, int],
    places: tuple[Array, Array],
    scratch: tuple[Array, ...],
    out: Array,
    law: Any,
) -> int:
    """Read chunks of codes, check, turn and stretch each, while it is in cache, into its slot of a batch.

    Return how many were as they should be: it stops at the first that is short, or of another checksum. Chunks are
    handles (int32), offsets (int64), checksums (uint32), and their numbers (int64) in ``trust``: (chunks,) uint8, 1
    for what has been checked before and is not again, and what becomes of others once they are. Places and the two of
    ``scratch``, a chunk and its checksum (uint8) and a strip, are as in `place_codes`.
    """
    raw, strip = scratch
    image, stored = raw[:-4].view(_u16).reshape(out.shape[1:]), raw[-4:].view(np.uint32)
    memory = image, stored, strip, _in_words(strip), image
    kept = trust[0], np.uint8(trust[1])
    return int(_deliver(*(C or ()), image.ctypes.data, chunks, kept, places, memory, out, law))


@_loop(
    types.int64(*_parted, types.float32[:, :, ::1], _law),
    types.int64(*_parted, types.uint16[:, :, ::1], _half_law),
    types.int64(*_parted, types.uint16[:, :, ::1], types.none),
)
def _deliver_windows(
    pread: Any,
    extend: Any,
    address: Any,
    chunks: Any,
    trust: Any,
    pieces: Any,
    places: Any,
    memory: Any,
    out: Array,
    law: Any,
) -> int:
    (parts, ends, fill), (slots, operations), (chunk, _, strip, words, window) = pieces, places, memory
    (height, width), k = window.shape, 0
    for n in range(len(slots)):
        covered = 0
        for i in range(k, ends[n]):
            y, x, h, w = parts[i]
            covered += (min(y + h, height) - max(y, 0)) * (min(x + w, width) - max(x, 0))
        if covered < height * width:
            window[:] = fill
        while k < ends[n]:
            y, x, h, w = parts[k]
            top, bottom, left, right = max(y, 0), min(y + h, height), max(x, 0), min(x + w, width)
            if not _fetched(pread, extend, chunks, trust, (address, k, top - y, bottom - y), memory):
                return n
            for i in range(top, bottom):
                source, place = chunk[i - y, left - x : right - x], window[i, left:right]
                for j in range(place.size):
                    place[j] = source[j]
            k += 1
        _place(window, operations[n], strip, words, out[slots[n]], law)
    return len(slots)


def deliver_windows(
    chunks: tuple[Array, ...],
    trust: tuple[Array, int],
    pieces: tuple[Array, Array, int],
    places: tuple[Array, Array],
    scratch: tuple[Array, ...],
    out: Array,
    law: Any,
) -> int:
    """Put windows together from the rows that they need of chunks, turn and stretch each into its slot of a batch.

    Return how many are as they should be, as `deliver`; a chunk that is not trusted is read whole, and checked.
    Pieces are (y, x, h, w) int32 (pieces, 4): where a chunk's first pixel falls in its window, and its rows and
    columns that the array has; the end (windows,) int64 of each window's pieces; and the value where there is none.
    ``scratch`` is a chunk and its checksum (uint8), a strip, a chunk's and a window's shape (uint16 arrays).
    """
    raw, strip, whole, window = scratch
    image, stored = raw[:-4].view(_u16).reshape(whole), raw[-4:].view(np.uint32)
    memory = image, stored, strip, _in_words(strip), window
    kept, parts = (trust[0], np.uint8(trust[1])), (pieces[0], pieces[1], _u16(pieces[2]))
    return int(_deliver_windows(*(C or ()), image.ctypes.data, chunks, kept, parts, places, memory, out, law))


@_loop(types.int64(*_c, types.Tuple((_int32s, _int64s, _crcs)), types.uint32[:, ::1]))
def _read(pread: Any, extend: Any, address: Any, chunks: Any, words: Any) -> int:
    handles, offsets, crcs = chunks
    size = _u64(4 * words.shape[1])
    for k in range(len(handles)):
        place = address + _u64(k) * size
        if pread(handles[k], place, size, offsets[k]) != size:
            return k
        if words[k, -1] != crcs[k] or extend(np.uint32(0), place, size - _u64(4)) != crcs[k]:
            return k
    return len(handles)


def read_group(handles: Array, offsets: Array, crcs: Array, raw: Array) -> int:
    """Read chunks into ``raw``, uint8 (k, words), and return how many are as they should be: of their checksum.

    Chunks are handles (int32), offsets (int64) and checksums (uint32), (k,) each.
    """
    return int(_read(*(C or ()), raw.ctypes.data, (handles, offsets, crcs), raw.view(np.uint32)))


# A tile is worked on in three steps, `_floored_power`, NumPy's log, and one of the others. What is looked for in
# passing is found in integers, whose minimum and maximum are vector instructions.
def _floored_power(band: Any, at: Any, sentinels: Any, squares: Any, gains: Any, floor: Any, out: Any) -> Any:
    """Write ``max(power, floor)`` of the tile of ``band`` at (row, col) into ``out``, (rows, columns).

    Power is multiplied by the gain of its column; ``gains`` are (columns,) float32, or (0,): by nothing.

    Return whether each pixel is finite, above zero, of power above zero, and not from the first to the last of
    ``sentinels``: else ``out`` is of no use, and `ingestion.blocks.flags` judges. ``floor`` is the bits of a float,
    as int32: floats above zero are in the order of their bits, below infinity's, and negative ones are below zero.
    """
    infinite, lowest, highest, hits = np.int32(0x7F800000), np.int32(0x7FFFFFFF), np.int32(0), np.int32(0)
    (row, col), (first, last), (rows, columns) = at, sentinels, out.shape
    for i in range(rows):
        source, place = band[row + i, col : col + columns], out[i]
        bits = place.view(np.int32)
        for j in range(columns):
            value = np.float32(source[j])
            hits |= np.int32(source[j] >= first) & np.int32(source[j] <= last) | np.int32(source[j] < 0)
            place[j] = value * value if squares else value
        for j in range(gains.size):
            place[j] *= gains[j]
        for j in range(columns):
            lowest, highest = min(lowest, bits[j]), max(highest, bits[j])
            bits[j] = max(bits[j], floor)
    return lowest > 0 and highest < infinite and hits == 0


FLOORED_POWER: Final = {
    np.dtype(pixel): _Loop(
        _floored_power,
        (f"b1({pixel}[:,::1], UniTuple(i8, 2), UniTuple({pixel}, 2), b1, f4[::1], i4, f4[:,::1])",),
    )
    for pixel in ("f4", "u2", "i2", "u1")
}
"""`_floored_power` by the dtype of a raster."""


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


@_loop(
    types.void(_float32s, _laws, types.uint16[::1], _int32s, _int64s, _int64s),
    types.void(_float32s, _laws, types.none, _int32s, _int64s, _int64s),
)
def encode_logs(logs: Any, laws: Any, codes: Any, half: Any, counts: Any, found: Any) -> None:
    """Turn natural logarithms of power, float32, into uint16 ``codes`` or, without, in place into [0, 1]; count them.

    ``laws`` are (dB per neper, dB of 0, reciprocal of the range) of what is stored; the same of what is counted,
    another in classic stores; the highest half-code; and the dB (low, high) that are counted beyond. ``half`` is
    int32 scratch for a part of them, since counting makes no vector instructions. Half-codes are added to ``counts``,
    those under and over to ``found``, int64.
    """
    law, whole, top, limits = laws
    zero, one, shift, three, part = np.float32(0), np.float32(1), np.int32(1), np.int32(3), half.size
    for first in range(0, logs.size, part):
        source = logs[first : first + part]
        if codes is not None:
            at_ends, place = _half_codes(source, law, top, half), codes[first : first + part]
            for i in range(source.size):
                place[i] = _u16((half[i] + three) >> shift)
        if codes is None or law[1] != whole[1] or law[2] != whole[2]:
            at_ends = _half_codes(source, whole, top, half)
        _count(source, whole, limits, half, at_ends, counts, found)
        if codes is None:
            for i in range(source.size):
                source[i] = min(max((source[i] * law[0] - law[1]) * law[2], zero), one)


@_loop(
    "void(uint16[:,::1], uint16, uint16, uint16[::1], uint32[::1], int64[::1], int64)",
    "void(float32[:,::1], float32, float32, float64[::1], float64[::1], float64[::1], float64)",
)
def _add_up(values: Any, low: Any, high: Any, inside: Any, total: Any, squares: Any, one: Any) -> None:
    for i in range(len(values)):
        row = values[i]
        for j in range(inside.size):
            total[j] += row[j]
            inside[j] += (row[j] >= low) & (row[j] <= high)
        for j in range(inside.size):
            value = row[j] * one
            squares[j] += value * value


def column_sums(values: Array, columns: int, low: Any, high: Any) -> tuple[Array, Array, Array]:
    """Return of each of the first columns: values from ``low`` to ``high``, sum and sum of squares, added row by row.

    ``values`` are uint16, of fewer than 65,536 rows, or float32, (rows, columns or more).
    """
    dtypes = (_u16, np.uint32, np.int64) if values.dtype == _u16 else (np.float64,) * 3
    inside, total, squares = (np.zeros(columns, dtype) for dtype in dtypes)
    _add_up(values, low, high, inside, total, squares, 1)
    return inside, total, squares


column_sums(np.ones((1, 1), np.float32), 1, 0, 1)  # where nothing can be compiled, importing this fails
