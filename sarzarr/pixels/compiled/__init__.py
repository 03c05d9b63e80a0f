"""Compiled loops over pixels, with the bits of the NumPy passes."""

from threading import RLock
from typing import Final

LOADING: Final = RLock()
"""Held while a loop is loaded or compiled."""
