"""Groups of a scan as arrays: frames, positions and the object at each, in the layouts that networks take."""

from typing import Any, Final, Literal

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.ptychography.frames import amplitudes
from sarzarr.ptychography.scan import Scan

Layout = Literal["nhwc", "nchw"]
"""(B, N, N, C) with coordinates (B, 1, 2, C), or (B, C, N, N) with coordinates (B, C, 1, 2)."""
Position = Literal["true", "compat"]
"""The place the object is cut out at: each position c, or 2 m - c, as an older pipeline has it; m is the mean."""
LAYOUTS: Final = ("nhwc", "nchw")
POSITIONS: Final = ("true", "compat")


def energies(frames: Array) -> Array:
    """Return (k,) float64: the sum of A squared of frames (k, N, N), the same for a frame in whatever company."""
    return np.array([np.square(frame, dtype=np.float64).sum() for frame in np.ascontiguousarray(frames)])


def frame_scale(energy: Array, size: int) -> np.float32:
    """Return the s of ``X_full = s * A``: (N/2)**2 is then the mean over frames of the sum of X squared.

    ``energy`` is of all frames of all groups, of each as often as it is in one; ``size`` is N in pixels.

    Raises `InvalidInputError` where all frames are dark.
    """
    mean = float(np.mean(energy, dtype=np.float64))
    if not mean > 0:
        raise InvalidInputError("expected frames with light in them, got 0 in all of them. Check the data.")
    return np.float32(np.sqrt((size / 2) ** 2 / mean))


def grouped_arrays(
    scan: Scan, groups: Array, chosen: Array | None, position: Position, layout: Layout
) -> dict[str, Any]:
    """Return groups (B, C) of a scan as arrays by name; ``groups`` are numbers in ``chosen`` (m,), where given.

    ``diffraction`` and ``X_full`` float32 and ``Y`` complex64 (None without an object) are (B, N, N, C), coordinates
    float64: ``coords_nn`` (B, 1, 2, C), x before y; ``coords_offsets`` (B, 1, 2, 1) their mean m; ``coords_relative``
    m - c. Those with ``start`` are the same. ``nn_indices`` is ``groups``. Channel k is at (k // gridsize,
    k % gridsize). A ``layout`` of ``nchw`` puts C second.
    """
    for name, value, known in (("position", position, POSITIONS), ("layout", layout, LAYOUTS)):
        if value not in known:
            raise InvalidInputError(f"expected {name} {' or '.join(known)}, got {value!r}. Mend {name}=.")
    rows = groups if chosen is None else chosen[groups]
    frames = amplitudes(scan.frames[rows])
    centers = np.stack([scan.x[rows], scan.y[rows]], axis=-1)[:, :, None]  # (B, C, 1, 2)
    offsets = centers.mean(axis=1, keepdims=True)
    energy = energies(frames.reshape(-1, scan.size, scan.size))
    if scan.patches is not None:
        patches: Array | None = scan.patches[rows].astype(np.complex64, copy=False)
    elif scan.object is not None:
        places = centers if position == "true" else 2 * offsets - centers
        patches = object_patches(scan.object, places.reshape(-1, 2), scan.size)
        patches = patches.reshape(frames.shape)
    else:
        patches = None
    found = {"diffraction": frames, "X_full": frame_scale(energy, scan.size) * frames, "Y": patches}
    for start in ("", "start_"):
        found |= {
            f"coords_{start}nn": centers,
            f"coords_{start}offsets": offsets,
            f"coords_{start}relative": offsets - centers,
        }
    if layout == "nhwc":
        found = {name: channels_last(values) for name, values in found.items()}
    found |= {"nn_indices": groups, "objectGuess": scan.object}
    return found if chosen is None else found | {"sample_indices": chosen}


def channels_last(values: Array | None) -> Array | None:
    """Return a view of (B, C, ...) as (B, ..., C)."""
    return None if values is None else np.moveaxis(values, 1, -1)


def object_patches(image: Array, places: Array, size: int) -> Array:
    """Return (k, size, size) complex64: an object around places (k, 2), x and y in pixels, interpolated bilinearly.

    Pixel (i, j) is at row y - size // 2 + i and column x - size // 2 + j; beyond the object it is 0.
    """
    out = np.empty((len(places), size, size), np.complex64)
    corners = np.floor(places).astype(np.int64)
    for patch, (left, top), (right, down) in zip(
        out, corners.tolist(), (places - corners).tolist(), strict=True
    ):
        window = _window(image, top - size // 2, left - size // 2, size + 1)
        upper, lower = window[:-1] * (1 - down), window[1:] * down
        rows = upper + lower
        patch[:] = rows[:, :-1] * (1 - right) + rows[:, 1:] * right
    return out


def _window(image: Array, top: int, left: int, size: int) -> Array:
    """Return (size, size) complex128 of an image from a pixel on, 0 beyond it."""
    out = np.zeros((size, size), np.complex128)
    height, width = image.shape
    a, b, c, d = max(top, 0), min(top + size, height), max(left, 0), min(left + size, width)
    if a < b and c < d:
        out[a - top : b - top, c - left : d - left] = image[a:b, c:d]
    return out
