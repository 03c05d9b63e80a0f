"""Scenes: files grouped by acquisition, and opened lazily."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from sarzarr.acquisition import Acquisition
from sarzarr.grid import Grid
from sarzarr.probe import ArrayProbe, RasterProbe


@dataclass(frozen=True, kw_only=True)
class SceneProbe:
    """One acquisition: the arrays of one file, or of one file a polarization."""

    id: str
    """Scene id: the group's name in the store."""
    grid: Grid
    """The grid that all its arrays share."""
    arrays: tuple[ArrayProbe, ...]
    """Its arrays, each with its file and band; empty where every band was refused."""
    acquisition: Acquisition
    """The facts of its files, merged."""
    geolocation: str
    """``affine``, ``rotated_affine``, ``gcps`` or ``none``."""
    gcps: tuple[tuple[float, float, float, float, float], ...]
    """Ground control points: (row, col, x, y, z) in the CRS of ``gcps_crs_wkt``."""
    gcps_crs_wkt: str | None
    """WKT2 of the GCPs' CRS."""
    source_hash: str
    """One hash over the hashes of its files, in the order of its arrays."""
    files: tuple[RasterProbe, ...]
    """The probes that it was made of."""
    refusal: str | None
    """Why it cannot be ingested as asked, with the remedy; None where it can."""


def group_scenes(probes: Iterable[RasterProbe], *, scene_id: str | None = None) -> tuple[SceneProbe, ...]:
    """Return the scenes that the files make, in the order of their first files."""
    raise NotImplementedError


def open_scene(
    paths: str | Path | Sequence[str | Path],
    *,
    quantity: str | None = None,
    representation: str | None = None,
    polarizations: Sequence[str] | None = None,
) -> xr.Dataset:
    """Open the files of one scene lazily, values exactly as in the files."""
    raise NotImplementedError
