"""Loops over pixels that Numba compiles: chunks read, checked, turned, stretched; tiles taken in; columns added up.

Each gives the bits of NumPy's passes; none holds Python's lock. Arrays are C-contiguous. Only an index that cannot be
below zero, as one that is unsigned or counts from a slice's beginning, makes vector instructions.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numba import njit, types
from numba.extending import overload, typeof_impl

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
_words, _crcs = types.uint64[:, ::1], types.uint32[::1]
_laws = types.Tuple((_float32s, _float32s, types.float32, _float32s))


class _Function(types.WrapperAddressProtocol):  # type: ignore[misc]
    """A function of a C library that loops are given by its address; it needs nothing of Python."""

    def __init__(self, address: int, signature: Any) -> None:
        self._address, self._signature, self.type = address, signature, types.FunctionType(signature)

    def __wrapper_address__(self) -> int:
        return self._address

    def signature(self) -> Any:
        return self._signature


@typeof_impl.register(_Function)  # type: ignore[untyped-decorator]
def _type_of(function: _Function, _: Any) -> Any:  # Numba would make it anew for each call, 25 microseconds
    return function.type


_pread = types.int64(types.int32, types.uintp, types.uintp, types.int64)
_extend = types.uint32(types.uint32, types.uintp, types.uintp)


def _functions() -> tuple[int, int] | None:
    """Return where the system's pread is, and the CRC-32C of google/crc32c, which knows x86's and aarch64's."""
    try:
        from google_crc32c import _crc32c

        pread, extend = ctypes.CDLL(None).pread, ctypes.CDLL(_crc32c.__file__).crc32c_extend
    except (AttributeError, ImportError, OSError, TypeError):  # Windows has no pread
        return None
    found = [ctypes.cast(function, ctypes.c_void_p).value for function in (pread, extend)]
    return found[0] or 1, found[1] or 1


_FOUND: Final = _functions()
READS: Final = _FOUND is not None
"""Whether loops can read chunks and check them; else they are given chunks that were."""
_NOWHERE: Final = 1, 1  # an address has to be above 0; it is not called
C: Final = tuple(map(_Function, _FOUND or _NOWHERE, (_pread, _extend)))
"""``pread`` and ``crc32c_extend``."""


def _delivered(code: Any, law: Any) -> Any:
    """Return a code as it is delivered: by `Stretch.law_of_codes`, or, where that is None, as it is."""
    raise NotImplementedError  # compiled code has one of `_delivered_by`


@overload(_delivered)  # type: ignore[untyped-decorator]
def _delivered_by(code: Any, law: Any) -> Any:
    """Return the function for the type of a law: None, a table, two or three numbers for floats, four for codes."""
    if isinstance(law, types.NoneType):
        return _as_it_is
    if isinstance(law, types.Array):
        return _looked_up
    return {2: _stretched_float, 3: _stretched_to_half, 4: _stretched, 5: _stretched_to_bfloat16}[len(law)]


def _as_it_is(code: Any, law: Any) -> Any:
    return code


def _looked_up(code: Any, law: Any) -> Any:
    return law[code]


def _stretched(code: Any, law: Any) -> Any:
    value = (np.float32(min(max(code, law[0]), law[1])) - law[2]) * law[3]
    return min(max(value, np.float32(0)), np.float32(1))


def _stretched_to_bfloat16(code: Any, law: Any) -> Any:
    value = (np.float32(min(max(code, law[0]), law[1])) - law[2]) * law[3]
    bits = np.float32(min(max(value, np.float32(0)), np.float32(1))).view(np.int32)
    return _u16((bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))) >> np.int32(16))


def _stretched_float(code: Any, law: Any) -> Any:
    value = code * law[0] + law[1]
    value = value if value > np.float32(0) else np.float32(0)  # noqa: FURB136 (this way round NaN becomes 0)
    return np.float32(1) if value > np.float32(1) else value  # noqa: FURB136


def _stretched_to_half(code: Any, law: Any) -> Any:
    """Return the 16 bits nearest the float32, to even: of bfloat16 those above 16, of float16 those above 13.

    A float16 has its exponent 112 lower; below its smallest normal number, 2**-14, steps are those of float32 at 0.5.
    """
    value = code * law[0] + law[1]
    value = value if value > np.float32(0) else np.float32(0)  # noqa: FURB136
    value = np.float32(1) if value > np.float32(1) else value  # noqa: FURB136
    bits, one = np.float32(value).view(np.int32), np.int32(1)
    if law[2] == 16:
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


def _in_words(rows: Array) -> Array:
    """Return uint16 (rows, n) as uint64 (rows, n / 4); (rows, 0) of others, or where a row is no whole words."""
    is_whole = rows.dtype == _u16 and rows.shape[1] % 4 == 0
    return rows.view(_u64) if is_whole else np.empty((len(rows), 0), _u64)


@_part
def _fetched(pread: Any, extend: Any, reads: Any, k: int, rows: Any, cell: Any, crc: Any) -> bool:
    """Read ``rows`` (the first, the one behind the last) of a chunk, or, where it is not trusted, all of it, checked.

    It is put into ``cell`` (rows, columns), and its checksum behind it, into ``crc``. Say if it is as it should be.
    """
    (first, last), (handles, offsets, crcs, numbers, trusted, keep) = rows, reads
    address, row = cell.ctypes.data, cell.shape[1] * cell.itemsize
    if trusted[numbers[k]]:
        begin, some = first * row, (last - first) * row
        return bool(pread(handles[k], address + _u64(begin), _u64(some), offsets[k] + begin) == some)
    size = _u64(cell.shape[0] * row)
    if pread(handles[k], address, size + _u64(4), offsets[k]) != size + 4:
        return False
    if crc[0] != crcs[k] or extend(np.uint32(0), address, size) != crcs[k]:
        return False
    trusted[numbers[k]] = keep
    return True


def _deliver(
    pread: Any,
    extend: Any,
    reads: Any,
    pieces: Any,
    places: Any,
    memory: Any,
    out: Array,
    law: Any,
) -> int:
    (held, parts, ends, fill), (slots, operations) = pieces, places
    (cells, crc, shape, strip, words, window), k = memory, 0
    height, width = window.shape
    for n in range(len(slots)):
        image, covered = window, 0
        for i in range(k, ends[n]):
            y, x, h, w = parts[i]
            covered += (min(y + h, height) - max(y, 0)) * (min(x + w, width) - max(x, 0))
        if covered < height * width:
            window[:] = fill
        while k < ends[n]:
            y, x, h, w = parts[k]
            top, bottom, left, right = max(y, 0), min(y + h, height), max(x, 0), min(x + w, width)
            chunk = cells[held[k], : shape[0] * shape[1]].reshape(shape)
            rows = top - y, bottom - y
            if crc.size and not _fetched(pread, extend, reads, k, rows, chunk, crc):
                return n
            if chunk.shape == window.shape and covered == height * width and y == 0 and x == 0:
                image = chunk
            else:
                for i in range(top, bottom):
                    source, place = chunk[i - y, left - x : right - x], window[i, left:right]
                    for j in range(place.size):
                        place[j] = source[j]
            k += 1
        _place(image, operations[n], strip, words, out[slots[n]], law)
    return len(slots)


_c = types.FunctionType(_pread), types.FunctionType(_extend)
_reads = types.Tuple((_int32s, _int64s, _crcs, _int64s, types.uint8[::1], types.uint8))
_places = types.Tuple((_int64s, types.uint8[::1]))


def _delivers(pixel: Any, *laws: Any) -> _Loop:
    """Return the loop for chunks of a dtype, for pairs of a delivered dtype and the type of a law."""
    pieces = types.Tuple((_int64s, types.int32[:, ::1], _int64s, pixel))
    rows, shape = pixel[:, ::1], types.UniTuple(types.int64, 2)
    memory = types.Tuple((rows, _crcs, shape, rows, _words, rows))
    signatures = [types.int64(*_c, _reads, pieces, _places, memory, to[:, :, ::1], law) for to, law in laws]
    return _Loop(_deliver, tuple(signatures))


_line = types.UniTuple(types.float32, 2)
_half_line = types.Tuple((types.float32, types.float32, types.int32))
_law = types.Tuple((types.uint16, types.uint16, types.float32, types.float32))
_DELIVER: Final = {
    np.dtype("uint16"): _delivers(
        types.uint16,
        (types.float32, _law),
        (types.uint16, types.Tuple((*_law, types.int32))),
        (types.uint16, types.uint16[::1]),
        (types.uint16, types.none),
    ),
    np.dtype("float32"): _delivers(
        types.float32, (types.float32, _line), (types.uint16, _half_line), (types.float32, types.none)
    ),
    np.dtype("uint8"): _delivers(types.uint8, (types.uint8, types.none)),
}
"""`_deliver` by the dtype of chunks."""
_NO_READS: Final = *(np.zeros(0, dtype) for dtype in ("i4", "i8", "u4", "i8", "u1")), np.uint8(0)


def deliver(
    cells: Array,
    reads: tuple[Any, ...] | None,
    pieces: tuple[Any, ...],
    places: tuple[Array, Array],
    scratch: tuple[Array, Array],
    out: Array,
    law: Any,
) -> int:
    """Put images together from pieces of chunks, turn each, and stretch it, while it is in cache, into its place.

    Return how many are as they should be. Chunks, of uint16, float32 or uint8, are in ``cells``, (rows, pixels of a
    chunk or more). With ``reads`` each is read to row 0 first, its checksum behind it: all of it, and held against
    that, or of one that is trusted the rows that are needed. It stops at the first image with a chunk that is short,
    or of another checksum.

    Pieces are: the row of ``cells`` of each, int64 (pieces,); (y, x, h, w) int32 (pieces, 4), where the chunk's first
    pixel falls in the image, and its rows and columns that count; int64 (images,), where those of each image end; a
    chunk's shape; and the value where there is no piece. Reads are, of each piece, the handle (int32), offset
    (int64), checksum (uint32) and number (int64) of its chunk; then uint8 (chunks,), 1 for those that were checked
    before, and are not again; and what becomes of others once they are. Places are slots (int64) of ``out``,
    (slots, n, n), and operations (uint8). Scratch is (`STRIP`, n) and (n, n) of the chunks' dtype.

    The law is None for values as they are; of codes the four numbers of
    ``clip((clip(code, low, high) - lowest) * scale, 0, 1)`` in float32, and a fifth, 16, for the bits (uint16) of a
    bfloat16, or a table, uint16 (65536,), of what each becomes; of float32 the two of
    ``clip(stored * scale + offset, 0, 1)``, where NaN becomes 0, and a third, 13 or 16, for the bits of a float16 or
    a bfloat16.
    """
    (held, parts, ends, shape, fill), (strip, window) = pieces, scratch
    pixels = shape[0] * shape[1]
    crc = cells[0, pixels:].view(np.uint32) if reads else np.zeros(0, np.uint32)
    memory = cells, crc, shape, strip, _in_words(strip), window
    ranges = (*reads[:-1], np.uint8(reads[-1])) if reads else _NO_READS
    kept = held, parts, ends, cells.dtype.type(fill)
    return int(_DELIVER[cells.dtype](*C, ranges, kept, places, memory, out, law))


@_loop(types.int64(*_c, types.uintp, types.Tuple((_int32s, _int64s, _crcs)), types.uint32[:, ::1]))
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
    return int(_read(*C, raw.ctypes.data, (handles, offsets, crcs), raw.view(np.uint32)))


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
