"""When compiled loops take part."""

import os
from functools import cache
from typing import Final

from sarzarr.pixels.compiled.calls import Loops

SWITCH: Final = "SARZARR_NUMBA"
WORTH_LOADING: Final = 8 * 2**20
"""Pixels from which kept loops are loaded: they save about 4 ns of each."""
WORTH_COMPILING: Final = 256 * 2**20
"""Pixels from which they are compiled, where none are kept."""


def loops_for(pixels: int) -> Loops | None:
    """Return compiled loops where so much work makes up for loading or compiling them, or where they are in use.

    ``pixels`` are those that this process has still to read or, where nobody knows, has read already.
    """
    if pixels >= WORTH_COMPILING or loops.cache_info().currsize or os.environ.get(SWITCH) == "1":
        return loops()
    return kept() if pixels >= WORTH_LOADING or kept.cache_info().currsize else None


@cache
def kept() -> Loops | None:
    """Return loops that were compiled before; None where there are none, or they are not wanted."""
    if os.environ.get(SWITCH) == "0":
        return None
    from sarzarr.pixels.compiled.object_code import kept_loops

    return kept_loops()


@cache
def loops() -> Loops | None:
    """Return compiled loops; None where Numba is not installed, or not wanted."""
    if os.environ.get(SWITCH) == "0":
        return None
    from sarzarr.pixels.compiled.object_code import kept_loops, new_loops

    return kept_loops() or new_loops()
