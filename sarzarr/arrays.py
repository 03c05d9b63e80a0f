"""Arrays of any shape and dtype."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
"""A NumPy array; the docstring beside it says shape, dtype and unit."""
