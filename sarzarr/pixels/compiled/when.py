"""When compiled loops take part: they are imported where there is enough work for what that costs.

Each does in one pass what NumPy does in several, to the same bits. In the environment, ``SARZARR_NUMBA=0`` leaves
loops out, and ``SARZARR_NUMBA=1`` wants them at once.
"""

import logging
import os
from functools import cache
from types import ModuleType
from typing import Final

from sarzarr.pixels.compiled import LOADING

SWITCH: Final = "SARZARR_NUMBA"
WORTH: Final = 128 * 2**20
"""Pixels from which loops are loaded, which takes a process 0.4 s: they save an ingest 4 ns of each."""
log = logging.getLogger(__name__)


def loops_for(pixels: int) -> ModuleType | None:
    """Return the module of loops where so much work makes up for loading it, or where it is in use; else None.

    ``pixels`` are those that this process has still to read or, where nobody knows, has read already.
    """
    is_wanted = pixels >= WORTH or loops.cache_info().currsize or os.environ.get(SWITCH) == "1"
    return loops() if is_wanted else None


@cache
def loops() -> ModuleType | None:
    """Return the module of loops, loaded or, once on a machine, compiled; None where it is not wanted, or fails."""
    if os.environ.get(SWITCH) == "0":
        return None
    with LOADING:
        try:
            from sarzarr.pixels.compiled import loops as found
        except Exception as error:  # an installation that does not fit, or nowhere to keep what is compiled
            log.warning("compiled loops were expected, got %r. NumPy works, at half the rate.", error)
            return None
    return found


def scaling_for(pixels: int) -> ModuleType | None:
    """Return the module of the loop that scales windows, where `loops_for` so many pixels are there; else None."""
    return None if loops_for(pixels) is None else _scaling()


@cache
def _scaling() -> ModuleType:
    with LOADING:
        from sarzarr.pixels.compiled import scaling
    return scaling


if hasattr(os, "register_at_fork"):  # what is forked while a thread loads would wait for it for ever
    _freed = LOADING.release
    os.register_at_fork(before=LOADING.acquire, after_in_parent=_freed, after_in_child=_freed)
