"""`PtychoDataContainer`: grouped data under the names that training code reads."""

import logging
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, WrongDtypeError
from sarzarr.ptychography.config import PHOTONS
from sarzarr.ptychography.grouped import LAYOUTS, Layout

log = logging.getLogger(__name__)
NEEDED: Final = ("X_full", "coords_relative", "coords_offsets", "nn_indices")
"""The arrays that grouped data must have."""


class PtychoDataContainer:
    """Grouped data of B groups of C frames, as NumPy arrays; `sarzarr.torch` has one of the same in tensors.

    Attributes
    ----------
    X, Y_I, Y_phi
        (B, N, N, C) float32: scaled amplitudes; amplitude and phase of Y.
    Y
        Complex64 of that shape: the object at each position; all 1 where nothing is known of it.
    coords, coords_nominal, coords_true, coords_relative
        (B, 1, 2, C) float32, one array: from each position to its group's mean, x before y, pixels.
    local_offsets, global_offsets
        The same, and the mean (B, 1, 2, 1), float64.
    nn_indices
        (B, C) int32: numbers of the positions.
    probe, YY_full
        Complex64 (N, N) and (M, M'): the probe, and the whole object or None.
    norm_Y_I
        Photons in units of X: the square root of photons over the mean of the sum of X squared.

    Parameters
    ----------
    grouped
        The result of `generate_grouped_data` or `get_grouped_data`.
    probe
        (N, N).
    layout
        ``nhwc``, or ``nchw`` with C second; as ``grouped`` is, if left out.

    Raises `InvalidInputError`, a ValueError, where an array is missing or Y is not complex64; `WrongDtypeError`,
    a TypeError, where X_full is not float32.
    """

    def __init__(self, grouped: Mapping[str, Any], probe: Any, layout: Layout | None = None) -> None:
        if missing := [name for name in NEEDED if grouped.get(name) is None]:
            raise InvalidInputError(
                f"expected grouped data with {', '.join(NEEDED)}, got none of {', '.join(missing)}. "
                "Pass all of what generate_grouped_data returned."
            )
        if layout not in (None, *LAYOUTS):
            raise InvalidInputError(f"expected layout {' or '.join(LAYOUTS)}, got {layout!r}. Mend layout=.")
        frames, relative, patches = grouped["X_full"], grouped["coords_relative"], grouped.get("Y")
        if frames.dtype != np.float32:
            raise WrongDtypeError(f"expected X_full as float32, got {frames.dtype}. Convert it with astype.")
        if patches is None:
            log.warning("grouped data without Y: ones of the shape of X stand for it")
            patches = np.ones_like(frames, np.complex64)
        elif patches.dtype != np.complex64:
            raise InvalidInputError(
                f"expected Y as complex64, got {patches.dtype} (DATA-001). Pass the object as complex numbers."
            )

        def laid(values: Array) -> Array:
            return _laid(values, layout, is_last=relative.shape[2] == 2)

        squared = math.fsum(np.square(one, dtype=np.float64).sum() for one in frames) / (relative.size // 2)
        if not squared > 0:
            raise InvalidInputError("expected X_full with light in it, got 0 in all of it. Check the data.")
        photons = float(grouped.get("nphotons") or PHOTONS)
        self.X = laid(frames)
        self.Y = laid(patches)
        self.Y_I = np.abs(self.Y)
        self.Y_phi = np.angle(self.Y).astype(np.float32, copy=False)
        self.norm_Y_I = float(np.sqrt(photons / squared))
        self.coords = laid(relative).astype(np.float32)
        self.coords_nominal = self.coords_true = self.coords_relative = self.coords
        self.global_offsets = laid(grouped["coords_offsets"]).astype(np.float64, copy=False)
        self.local_offsets = laid(relative).astype(np.float64, copy=False)
        self.nn_indices = np.asarray(grouped["nn_indices"]).astype(np.int32, copy=False)
        self.probe = np.asarray(probe).astype(np.complex64, copy=False)
        self.YY_full = grouped.get("objectGuess")

    def __len__(self) -> int:
        return len(self.nn_indices)

    def __repr__(self) -> str:
        each = (
            f"{name} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
            for name, value in vars(self).items()
            if hasattr(value, "dtype")
        )
        return f"<sarzarr.{type(self).__name__}: {', '.join(each)}, norm_Y_I {self.norm_Y_I:.6g}>"


def _laid(values: Array, layout: Layout | None, *, is_last: bool) -> Array:
    """Return a view of (B, ..., C), or with ``is_last`` False of (B, C, ...), in a layout."""
    if layout == "nchw" and is_last:
        return np.moveaxis(values, -1, 1)
    return np.moveaxis(values, 1, -1) if layout == "nhwc" and not is_last else values
