"""Scenes: files grouped by acquisition, and opened lazily."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from sarzarr import conventions as cv
from sarzarr.conventions import CHUNK, POLARIZATIONS, SHARD
from sarzarr.errors import InvalidInputError, SceneIdError, UnsupportedRasterError
from sarzarr.grids.dataset import grid_coordinates, handed_out
from sarzarr.rasters import Unmeasured, measured, measured_dtype, read_window
from sarzarr.scenes.acquisition import Acquisition, merge_facts
from sarzarr.scenes.header import Placed
from sarzarr.scenes.names import check_scene_id, scene_name
from sarzarr.scenes.probe import ArrayProbe, RasterProbe, probe_file


@dataclass(frozen=True, kw_only=True)
class SceneProbe(Placed):
    """One acquisition: the (rows, columns) arrays of one file, or of one file a polarization."""

    id: str
    """Scene id: the group's name in the store."""
    arrays: tuple[ArrayProbe, ...]
    """Its arrays, each with its file and band; empty where every band was refused."""
    acquisition: Acquisition
    """The facts of its files, merged."""
    source_hash: str
    """One hash over the hashes of its files, in the order of its arrays."""
    files: tuple[RasterProbe, ...]
    """The probes that it was made of."""
    refusal: str | None
    """Why it cannot be ingested as asked, with the remedy; None where it can."""


def group_scenes(probes: Iterable[RasterProbe], *, scene_id: str | None = None) -> tuple[SceneProbe, ...]:
    """Return the scenes that files make, in the order of their first files.

    Files are one scene where folder and name agree but for the polarization. A file in
    ``measurement/`` takes its product folder's name, one that is named by nothing but
    polarizations its folder's. With ``scene_id`` all files make that one scene, whatever their names.

    Raises `SceneIdError` where an id is malformed, two scenes claim one, or two files of a scene claim one array;
    `UnsupportedRasterError` where the files of a scene are on different grids: (rows, columns), CRS or transform.
    """
    groups: dict[tuple[str, str], list[RasterProbe]] = {}
    for probe in probes:
        name = check_scene_id(scene_id) if scene_id is not None else scene_name(probe.path)
        place = "" if scene_id is not None else str(probe.path.parent)
        groups.setdefault((name, place), []).append(probe)
    owners: dict[str, RasterProbe] = {}
    for (name, _), files in groups.items():
        if name in owners:  # folders tell two files of one name apart
            one, other = ("/".join(probe.path.parts[-2:]) for probe in (owners[name], files[0]))
            raise SceneIdError(
                f"expected a scene id for each scene, got {name!r} for {one} and {other}. "
                "Ingest one of them with --id."
            )
        owners[name] = files[0]
    return tuple(_scene(name, files) for (name, _), files in groups.items())


def _scene(name: str, files: Sequence[RasterProbe]) -> SceneProbe:
    files = sorted(files, key=_file_order)
    first = files[0]
    owners: dict[str, ArrayProbe] = {}
    for array in (array for file in files for array in file.arrays):
        if array.name in owners:
            raise SceneIdError(
                f"expected one file for {array.name!r} of scene {name!r}, got "
                f"{owners[array.name].path.name} and {array.path.name}. "
                "Ingest one of them with --id, or name their bands with --polarizations."
            )
        owners[array.name] = array
    for file in files:
        if file.grid != first.grid or file.georeference.gcps != first.georeference.gcps:
            raise UnsupportedRasterError(
                f"expected the files of scene {name!r} on one grid, got {first.path.name} on "
                f"{_describe(first)} and {file.path.name} on {_describe(file)}. Ingest one of them with --id."
            )
    return SceneProbe(
        id=name,
        georeference=first.georeference,
        arrays=tuple(sorted(owners.values(), key=_in_order)),
        acquisition=merge_facts(file.acquisition for file in files),
        source_hash=scene_hash(file.source_hash for file in files),
        files=tuple(files),
        refusal=" ".join(file.refusal for file in files if file.refusal) or None,
    )


def _describe(probe: RasterProbe) -> str:
    grid = probe.grid
    place = f"transform {grid.transform}" if grid.is_georeferenced else f"{len(probe.georeference.gcps)} GCPs"
    return f"{grid.height} x {grid.width} pixels, {place}"


def _in_order(array: ArrayProbe) -> tuple[int, str, int]:
    """Order arrays the same whatever the order of the files: VV, VH, HH, HV, then the others."""
    known = POLARIZATIONS.index(array.name) if array.name in POLARIZATIONS else len(POLARIZATIONS)
    return known, array.path.name, array.band


def _file_order(file: RasterProbe) -> tuple[Any, ...]:
    """Order files by their first arrays: the order in which they are named on a command line says nothing."""
    return *min(map(_in_order, file.arrays), default=(len(POLARIZATIONS) + 1,)), str(file.path)


def scene_hash(files: Iterable[str]) -> str:
    """Return the hash of a scene from its files': the only one, or a SHA-256 (32 bytes) over all in sorted order."""
    hashes = sorted(files)
    if len(hashes) == 1:
        return hashes[0]
    return f"{hashes[0].split(':')[0]}:{sha256(' '.join(hashes).encode()).hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class LazyBand:
    """One band of a file as an array that reads when it is indexed; carries an address, no handle."""

    path: Path
    """The file."""
    band: int
    """Number of the band, from 1."""
    shape: tuple[int, int]
    """(rows, columns)."""
    dtype: np.dtype[Any]
    """The dtype that reading gives."""
    unmeasured: Unmeasured | None = None
    """What tells, beside a nodata tag, which pixels are NaN."""

    @property
    def ndim(self) -> int:
        """Two: (rows, columns)."""
        return 2

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray[Any, Any]:
        """Read a window with steps of 1 or more."""
        rows, cols = (range(size)[part] for size, part in zip(self.shape, key, strict=True))
        if len(rows) == 0 or len(cols) == 0:
            return np.empty((len(rows), len(cols)), self.dtype)
        window = read_window(
            self.path,
            band=self.band,
            row=rows[0],
            col=cols[0],
            height=rows[-1] - rows[0] + 1,
            width=cols[-1] - cols[0] + 1,
        )
        window = measured(window, self.unmeasured, row=rows[0], col=cols[0])
        return window[:: rows.step, :: cols.step]


def open_scene(
    paths: str | Path | Sequence[str | Path],
    *,
    quantity: str | None = None,
    representation: str | None = None,
    polarizations: Sequence[str] | None = None,
) -> xr.Dataset:
    """Open the files of one scene lazily, values as in the files.

    The Dataset has one variable a band, dims (y, x), in Dask chunks of whole TIFF blocks; complex stays complex and
    nodata is not masked. Only where a mask, or values that no tag declares, tell which pixels nobody measured, those
    are NaN, and integers floats (``identified_by`` says so): no attribute could tell `to_power`. ``y`` and ``x`` are
    pixel centres in the CRS, or index + 0.5 where no plain affine places them. Variables say ``quantity``,
    ``representation``, ``identified_by``.

    ``paths`` are one TIFF, or one a polarization; the options are those of `probe_file`. Raises
    `UnsupportedRasterError` where a file is not known to be backscatter; `InvalidInputError` where the files are not
    of one scene; says the remedy.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    scenes = group_scenes(
        probe_file(p, quantity=quantity, representation=representation, polarizations=polarizations)
        for p in given
    )
    if len(scenes) != 1:
        ids = ", ".join(scene.id for scene in scenes) or "none"
        raise InvalidInputError(
            f"expected the files of one scene, got {len(scenes)}: {ids}. Open one at a time."
        )
    return open_probed(scenes[0])


def open_probed(scene: SceneProbe) -> xr.Dataset:
    """Open a probed scene lazily, (rows, columns) an array, as `open_scene`; `UnsupportedRasterError` if refused."""
    if scene.refusal is not None:
        names = ", ".join(file.path.name for file in scene.files)
        raise UnsupportedRasterError(f"{names}: {scene.refusal}")
    variables = {array.name: (("y", "x"), _lazy(scene, array), _array_attrs(array)) for array in scene.arrays}
    attrs: dict[str, Any] = {**scene.acquisition.attrs(), cv.GEOLOCATION: scene.geolocation}
    if polarizations := [array.polarization for array in scene.arrays if array.polarization]:
        attrs[cv.SAR_POLARIZATIONS] = polarizations
    return handed_out(xr.Dataset(variables, coords=grid_coordinates(scene.grid), attrs=attrs))


def _array_attrs(array: ArrayProbe) -> dict[str, Any]:
    """Return the attributes of a variable; never a path."""
    attrs = {
        cv.QUANTITY: array.quantity,
        cv.REPRESENTATION: array.representation,
        cv.REASON: array.reason,
        cv.SOURCE_NODATA: array.nodata,
        cv.FILL_VALUE: _of_dtype(array.nodata, _dtype(array)),
        cv.SAR_POLARIZATIONS: [array.polarization] if array.polarization else None,
        cv.UNITS: "dB" if array.representation == cv.Representation.DB else "1",
    }
    return {key: value for key, value in attrs.items() if value is not None}


def _dtype(array: ArrayProbe) -> np.dtype[Any]:
    """Return the dtype that a band is opened in: floats, which can be NaN, where something tells what is."""
    return measured_dtype(np.dtype(array.dtype), array.unmeasured)


def _of_dtype(nodata: float | None, dtype: np.dtype[Any]) -> Any:
    """Return a nodata value as a pixel of ``dtype`` has it; None where there is none, or no pixel can have it."""
    if nodata is None or dtype.kind == "c":
        return nodata
    can_be = dtype.kind == "f" or nodata in range(np.iinfo(dtype).min, np.iinfo(dtype).max + 1)
    return dtype.type(nodata) if can_be else None


def _lazy(scene: SceneProbe, array: ArrayProbe) -> da.Array:
    """Return a Dask array of a band, in chunks of whole TIFF blocks of about `CHUNK_PIXELS`."""
    band = LazyBand(
        path=array.path,
        band=array.band,
        shape=scene.grid.shape,
        dtype=_dtype(array),
        unmeasured=array.unmeasured,
    )
    chunks = block_chunks(scene.grid.shape, array.block_shape)
    status = array.path.stat()
    token = tokenize(
        str(array.path),
        status.st_mtime_ns,
        status.st_size,
        status.st_ino,
        array.band,
        chunks,
        array.unmeasured,
    )
    return da.from_array(
        band,
        chunks=chunks,
        name=f"sarzarr-{array.name}-{token}",
        asarray=False,
        fancy=False,
        meta=np.empty((0, 0), band.dtype),
    )


def block_chunks(shape: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of chunks: whole blocks, near `SHARD` a side; strips stay full width.

    >>> block_chunks((16705, 26102), (1, 26102)), block_chunks((10000, 10000), (512, 512))
    ((256, 26102), (2048, 2048))
    """
    rows, cols = (min(b, n) for b, n in zip(block, shape, strict=True))
    sides = (max(CHUNK, SHARD * SHARD // cols), cols) if cols == shape[1] else (SHARD, SHARD)
    down, across = (
        min(n, b * max(1, round(side / b))) for n, b, side in zip(shape, (rows, cols), sides, strict=True)
    )
    return down, across
