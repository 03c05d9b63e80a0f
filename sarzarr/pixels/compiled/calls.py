"""Compiled loops as functions of arrays, called by their addresses and without the lock of Python."""

import ctypes
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from crc32c import crc32c

from sarzarr.arrays import Array

STRIP: Final = 32
"""Rows that are transposed together: of uint16, a cache line across."""
_LAW: Final = "uint16 uint16 float32 float32"
_PLACES: Final = "*int32 *int64 *int64 *uint8 int64"
_CHUNK: Final = "uint64 *uint64 *uint32 *uint16"
_TILE: Final = "int32 *float32 *int32 int64 int64"
_LOGS: Final = "*float32 int64 *float32"
SIGNATURES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "read_cells": "int64 *int32 *int64 int64 int64 int64 uint64",
        "stretch_codes": f"void *uint16 int64 *float32 int64 int64 {_LAW}",
        "stretch_floats": "void *float32 int64 *float32 int64 int64 float32 float32",
        "turn_codes": "void *uint16 int64 *uint8 *uint16 int64 int64",
        "deliver": f"int64 {_PLACES} {_CHUNK} *uint16 *float32 int64 {_LAW} *uint64",
        "floored_power float32": f"int64 *float32 int64 int64 int64 float32 int64 {_TILE}",
        "floored_power uint16": f"int64 *uint16 int64 int64 int64 uint16 int64 {_TILE}",
        "floored_power int16": f"int64 *int16 int64 int64 int64 int16 int64 {_TILE}",
        "floored_power uint8": f"int64 *uint8 int64 int64 int64 uint8 int64 {_TILE}",
        "codes_of_logs": f"void {_LOGS} *float32 float32 *float32 *uint16 *int32 int64 *int64 *int64",
        "floats_of_logs": f"void {_LOGS} *float32 float32 *float32 *int32 int64 *int64 *int64",
        "column_sums": "void *uint16 int64 int64 int64 uint16 uint16 *uint16 *uint32 *int64",
        "float_column_sums": "void *float32 int64 int64 int64 float32 float32 *float64 *float64 *float64",
    }
)
"""What each loop gives back and takes; those of several dtypes have a name for each. ``*``: where an array begins."""
NEEDS_CRC: Final = "deliver"
"""The loop that takes an instruction for CRC-32C, which x86 has had since 2008."""
Law = tuple[int, int, float, float]
"""Of codes: the lowest and highest that count, what is subtracted from them, and what the rest is multiplied by."""
_IN_C: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "void": None,
        "uint8": ctypes.c_uint8,
        "int16": ctypes.c_int16,
        "uint16": ctypes.c_uint16,
        "int32": ctypes.c_int32,
        "int64": ctypes.c_int64,
        "uint64": ctypes.c_uint64,
        "float32": ctypes.c_float,
    }
)


class Loops:
    """The loops of a process. Every array must be C-contiguous; one that is not, or of another dtype, is refused.

    Parameters
    ----------
    addresses
        Of each of `SIGNATURES`; `NEEDS_CRC` may be missing.
    code
        What holds the memory that they are in.
    """

    def __init__(self, addresses: Mapping[str, int], code: object) -> None:
        self._code = code
        self._loops = {name: _callable(name, address) for name, address in addresses.items()}

    @property
    def can_deliver(self) -> bool:
        """Whether this processor has what `deliver` takes."""
        return NEEDS_CRC in self._loops

    # ------------------------------------------------------------ the loader
    def read_cells(
        self, handles: Array, offsets: Array, first: int, count: int, cell: int, address: int
    ) -> bool:
        """Read ``count`` cells, from number ``first`` on, one behind the other to a place in memory.

        Return whether all were read whole. Threads meet at Python's lock once a group, and not once a cell.
        """
        return bool(self._loops["read_cells"](handles, offsets, first, count, cell, address))

    def stretch_codes(self, cells: Array, out: Array, law: Law) -> None:
        """Write ``clip((clip(code, low, high) - lowest) * scale, 0, 1)``: uint16 (k, n or more) to float32 (k, n)."""
        self._loops["stretch_codes"](cells, cells.shape[1], out, *out.shape, *law)

    def stretch_floats(self, cells: Array, out: Array, scale: float, offset: float) -> None:
        """Write ``clip(stored * scale + offset, 0, 1)``: float32 (k, n or more) to (k, n); NaN stays NaN."""
        self._loops["stretch_floats"](cells, cells.shape[1], out, *out.shape, scale, offset)

    def turn_codes(self, cells: Array, operations: Array, out: Array) -> None:
        """Turn the uint16 image that each of ``cells`` (k, n * n or more) begins with into ``out`` (k, n, n)."""
        self._loops["turn_codes"](cells, cells.shape[1], operations, out, *out.shape[:2])

    def deliver(
        self,
        handles: Array,
        offsets: Array,
        slots: Array,
        operations: Array,
        raw: Array,
        strip: Array,
        out: Array,
        law: Law,
    ) -> int:
        """Read chunks of codes, check, turn and stretch each, while it is in cache, into its slot of a batch.

        Return how many were as they should be: it stops at the first that is short, or whose checksum fails.
        ``raw`` is memory for a chunk and its checksum, ``strip`` (`STRIP`, n) uint16, ``out`` (slots, n, n) float32.
        """
        n = out.shape[1]
        chunk, stored = raw[: 2 * n * n], raw[2 * n * n :].view(np.uint32)
        places = handles, offsets, slots, operations, len(handles)
        memory = raw.ctypes.data, chunk.view(np.uint64), stored, chunk.view(np.uint16), strip, out
        table = zeros_table(chunk.size // 8)
        return int(self._loops["deliver"](*places, *memory, n, *law, table))

    # ------------------------------------------------------------ ingest
    def floored_power(
        self,
        band: Array,
        row: int,
        col: int,
        sentinel: float,
        squares: bool,
        floor: int,
        out: Array,
        bits: Array,
    ) -> bool:
        """Write ``max(power, floor)`` of the tile of ``band`` at (row, col) into ``out``, (rows, columns).

        Return whether each of its pixels is finite, above zero and not ``sentinel``: else ``out`` is of no use.
        NaN is no sentinel. ``bits`` is ``out`` seen as int32, and ``floor`` is bits, too.
        """
        loop = self._loops[f"floored_power {band.dtype}"]
        place = row, col, sentinel, squares, floor, out, bits, *out.shape
        return bool(loop(band, band.shape[1], *place))

    def codes_of_logs(
        self,
        logs: Array,
        law: Array,
        whole: Array,
        top: float,
        limits: Array,
        codes: Array,
        half: Array,
        counts: Array,
    ) -> tuple[int, int]:
        """Write uint16 codes of natural logarithms of power, count their half-codes, and return (under, over).

        ``law`` is dB a neper, dB of 0, reciprocal of the range: of what is stored; ``whole`` of what is counted.
        ``limits`` are the dB that are counted beyond. Arrays are flat; ``half`` is int32 scratch for a part of them.
        """
        return self._counted("codes_of_logs", logs, law, whole, top, limits, codes, half, counts)

    def floats_of_logs(
        self, logs: Array, law: Array, whole: Array, top: float, limits: Array, half: Array, counts: Array
    ) -> tuple[int, int]:
        """Turn natural logarithms of power into [0, 1] in place, and count: see `codes_of_logs`."""
        return self._counted("floats_of_logs", logs, law, whole, top, limits, half, counts)

    def _counted(self, name: str, logs: Array, *rest: Any) -> tuple[int, int]:
        """Call a loop that ends in scratch and its size, counts, and how many are under and over."""
        *numbers, half, counts = rest
        found = np.zeros(2, np.int64)
        self._loops[name](logs, logs.size, *numbers, half, half.size, counts, found)
        return int(found[0]), int(found[1])

    # ------------------------------------------------------------ the patch index
    def column_sums(self, codes: Array, columns: int, low: int, span: int) -> tuple[Array, Array, Array]:
        """Return of each of the first columns: codes from ``low`` to ``low + span``, sum and sum of squares.

        ``codes`` are uint16 (rows, columns or more), of fewer than 65,536 rows.
        """
        found = np.empty(columns, np.uint16), np.empty(columns, np.uint32), np.empty(columns, np.int64)
        self._loops["column_sums"](codes, *codes.shape, columns, low, span, *found)
        return found

    def float_column_sums(
        self, values: Array, columns: int, low: float, high: float
    ) -> tuple[Array, Array, Array]:
        """Return of each of the first columns: values between, sum and sum of squares, float64, added row by row."""
        found = np.empty(columns), np.empty(columns), np.empty(columns)
        self._loops["float_column_sums"](values, *values.shape, columns, low, high, *found)
        return found


def _callable(name: str, address: int) -> Callable[..., Any]:
    """Return a loop as a function: by Numba's convention it takes where its result goes, and where an error goes."""
    words = SIGNATURES[name].split()
    result = _IN_C[words[0]] or ctypes.c_int64
    kinds = [ctypes.c_void_p if word.startswith("*") else _IN_C[word] for word in words[1:]]
    call = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *kinds)(address)
    arrays = [(i, np.dtype(word[1:])) for i, word in enumerate(words[1:]) if word.startswith("*")]

    def checked(*values: Any) -> Any:
        given = list(values)
        for i, dtype in arrays:
            array = given[i]
            if array.dtype != dtype or not array.flags.c_contiguous:
                raise TypeError(f"{name}: argument {i} must be C-contiguous {dtype}, got {array.dtype}")
            given[i] = array.ctypes.data
        found, error = result(), ctypes.c_void_p()
        call(ctypes.byref(found), ctypes.byref(error), *given)
        return found.value

    return checked


@cache
def zeros_table(words: int) -> Array:
    """Return what a third of so many zero words make of a CRC-32C register: (4, 256) uint64, one a byte of it.

    A register is linear in what it was: so that of a whole is put together from those of its parts.
    """
    zeros = bytes(8 * (words // 3))
    of_bit = [crc32c(zeros, (1 << bit) ^ 0xFFFFFFFF) ^ 0xFFFFFFFF for bit in range(32)]
    table = np.zeros((4, 256), np.uint64)
    for bit, register in enumerate(of_bit):
        has_bit = np.arange(256) >> (bit % 8) & 1 == 1
        table[bit // 8, has_bit] ^= np.uint64(register)
    return table
