"""Whether loops that Numba compiles take part (``pip install sarzarr[fast]``).

Each makes in one pass, and without Python's lock, what NumPy makes in several, and gives the same bits: what is
stored or delivered does not depend on what is installed. To start Numba takes a process half a second, so `loops_for`
waits for work that makes up for it. In the environment, ``SARZARR_NUMBA=0`` leaves Numba out, and ``SARZARR_NUMBA=1``
starts it at once.
"""

import logging
import os
from functools import cache
from types import ModuleType
from typing import Final

SWITCH: Final = "SARZARR_NUMBA"
WORTH: Final = 256 * 2**20
"""Pixels from which loops are started: they save about 3 ns of each, and to start them takes 0.5 s."""
log = logging.getLogger(__name__)


def loops_for(pixels: int) -> ModuleType | None:
    """Return `sarzarr.compiled` where so much work makes up for starting it, or where it is started.

    ``pixels`` are those that this process has still to read or, where nobody knows, has read already.
    """
    is_due = pixels >= WORTH or loops.cache_info().currsize or os.environ.get(SWITCH) == "1"
    return loops() if is_due else None


@cache
def loops() -> ModuleType | None:
    """Return `sarzarr.compiled`; None where Numba is not installed, or not wanted."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        from sarzarr import compiled
    except ImportError as error:  # also where Numba does not know this NumPy or Python yet
        log.debug("numba is left out: %s", error)
        return None
    return compiled
