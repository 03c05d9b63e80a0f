"""`Scan`: positions, frames, probe and object, checked; from arrays or an NPZ file of either generation of keys."""

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.ptychography.config import PHOTONS
from sarzarr.ptychography.frames import Rows, check_frames, frame_shape, in_order
from sarzarr.ptychography.npz import Npz

log = logging.getLogger(__name__)
FRAMES: Final = ("diffraction", "diff3d")
"""The keys of frames, the newer generation's first."""
REQUIRED: Final = ("xcoords", "ycoords", "probeGuess", "objectGuess")
"""The keys that a file must have besides."""
OPTIONAL: Final = ("scan_index", "xcoords_start", "ycoords_start")
"""Those that it may have, of arrays that are small."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan:
    """A scan of n positions. Frames, and the object at each position, may be on a disk: they are read by number."""

    x: Array
    """(n,) float64: columns on the object's grid, pixels."""
    y: Array
    """(n,) float64: rows, pixels."""
    frames: Rows
    """(n, N, N): float amplitudes, or integer intensities."""
    probe: Array
    """(N, N) complex64."""
    index: Array
    """(n,) int64: number of the scan that each position is of."""
    object: Array | None = None
    """(M, M') complex64."""
    patches: Rows | None = None
    """(n, N, N) complex: the object at each position, ``Y``."""
    nphotons: float = PHOTONS
    """Photons of a frame on average."""
    start: tuple[Array, Array] | None = field(default=None, repr=False)
    """x and y (n,) float64 as they were before they were refined, where they are known."""

    def __post_init__(self) -> None:
        n = len(self.x) if self.x.ndim == 1 else -1
        columns = {"ycoords": self.y, "scan_index": self.index}
        columns |= (
            {} if self.start is None else {"xcoords_start": self.start[0], "ycoords_start": self.start[1]}
        )
        for name, column in columns.items():
            if column.shape != (n,):
                raise InvalidInputError(
                    f"expected {name} (n,) as xcoords (n,), got shapes {column.shape} and {self.x.shape}. "
                    "Give one of each per position."
                )
        check_frames(self.frames.shape, self.frames.dtype, "diff3d")
        if self.frames.shape[0] != n:
            raise InvalidInputError(
                f"expected a frame for each of {n} positions, got {self.frames.shape[0]}. Leave out the others."
            )
        if self.patches is not None and (
            self.patches.dtype.kind != "c" or self.patches.shape != self.frames.shape
        ):
            raise InvalidInputError(
                f"expected complex Y of shape {self.frames.shape}, got {self.patches.dtype} of shape "
                f"{self.patches.shape} (DATA-001). Convert it to complex64, or leave it out."
            )
        for name, values in (("probeGuess", self.probe), ("objectGuess", self.object)):
            if values is not None and (values.ndim != 2 or values.dtype.kind not in "iufc"):
                raise InvalidInputError(
                    f"expected {name} as a picture (rows, columns) of numbers, got {values.dtype} of shape "
                    f"{values.shape}. Take one mode, or squeeze it."
                )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def size(self) -> int:
        """Rows and columns of a frame, N."""
        return self.frames.shape[1]


def scan_of_arrays(arrays: dict[str, Any], frames: Rows | None = None, **others: Any) -> Scan:
    """Return the scan of arrays by their keys in an NPZ file, of which those that may be left out may be None.

    ``frames`` stand for ``diff3d``, ``others`` are fields of `Scan`. Raises `InvalidInputError` as that.
    """
    given = {key: np.asarray(value) for key, value in arrays.items() if value is not None}
    reals = {key: _cast(given, key, np.float64, "iuf") for key in given if key[1:].startswith("coords")}
    start = [reals.get(f"{axis}coords_start") for axis in "xy"]
    x = reals["xcoords"]
    if frames is None:
        frames = cast("Rows", in_order(given["diff3d"], x.size))
    if others.get("patches") is None and "Y" in given:
        others["patches"] = in_order(given["Y"], x.size)
    return Scan(
        x=x,
        y=reals["ycoords"],
        frames=frames,
        probe=_cast(given, "probeGuess", np.complex64, "iufc"),
        object=_cast(given, "objectGuess", np.complex64, "iufc") if "objectGuess" in given else None,
        index=_cast(given, "scan_index", np.int64, "iu") if "scan_index" in given else np.arange(x.size),
        start=None if start[0] is None or start[1] is None else (start[0], start[1]),
        **others,
    )


def _cast(given: dict[str, Array], key: str, dtype: Any, kinds: str) -> Array:
    """Return an array as ``dtype``, where its own is one of ``kinds``."""
    if given[key].dtype.kind not in kinds:
        raise InvalidInputError(
            f"expected {key} that {np.dtype(dtype)} can hold, got {given[key].dtype}. Convert it."
        )
    return given[key].astype(dtype, copy=False)


def read_scan(path: Path, folder: Path, *, with_patches: bool = True) -> Scan:
    """Return the scan of an NPZ file; frames stay there, or are converted once below ``folder``.

    The keys are ``diffraction`` or ``diff3d``, ``xcoords``, ``ycoords``, ``probeGuess`` and ``objectGuess``; there
    may be ``scan_index`` (0 to n - 1 if not), ``xcoords_start`` and ``ycoords_start``, ``Y`` and ``_metadata``.
    Without ``with_patches`` ``Y`` is not looked at.

    Raises `MissingKeyError`, a KeyError, which names the keys that are there; `InvalidInputError` for arrays that
    are not as `Scan` says, for Python objects, and for files that are damaged or say what cannot be.
    """
    npz = Npz(path)
    frames, *small = (npz.require(*keys) for keys in (FRAMES, *((key,) for key in REQUIRED)))
    small += [npz.array(key) for key in OPTIONAL if key in npz.members]
    arrays = {array.key: array.whole() for array in small}
    n = arrays["xcoords"].size
    check_frames(frame_shape(frames.shape, n)[0], frames.dtype, frames.key)
    patches = _patches_of(npz, n, folder) if with_patches else None
    return scan_of_arrays(arrays, frames.rows(n, folder), patches=patches, nphotons=_photons(npz))


def _patches_of(npz: Npz, n: int, folder: Path) -> Rows | None:
    """Return the object at each position that a file holds; of another number than n it is left out, and said."""
    if "Y" not in npz.members:
        return None
    array = npz.array("Y")
    if array.dtype.kind != "c" or array.shape[0] != n or len(frame_shape(array.shape, n)[0]) != 3:
        log.warning(
            "%s: complex Y (%d, N, N) was expected, got %s %s: left out",
            npz.path.name,
            n,
            array.dtype,
            array.shape,
        )
        return None
    return array.rows(n, folder)


def _photons(npz: Npz) -> float:
    """Return the photons of a frame that ``_metadata`` tells; `PHOTONS` where it does not."""
    physics = npz.metadata().get("physics_parameters")
    told = physics.get("nphotons") if isinstance(physics, dict) else None
    is_told = isinstance(told, int | float) and 0 < told < math.inf
    return float(told) if told is not None and is_told else PHOTONS
