"""Scenes: files grouped by acquisition, and opened lazily."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from dask.base import tokenize

from sarzarr import conventions as cv
from sarzarr.conventions import CHUNK, POLARIZATIONS, SHARD
from sarzarr.errors import InvalidInputError, SceneIdError, UnsupportedRasterError
from sarzarr.grids.dataset import grid_coordinates, handed_out
from sarzarr.pixels.calibration import Calibration
from sarzarr.rasters import (
    Unmeasured,
    local_file,
    measured,
    measured_dtype,
    read_window,
)  # fmt: skip
from sarzarr.scenes.acquisition import Acquisition, merge_facts
from sarzarr.scenes.calibrate import CalibrationChoice
from sarzarr.scenes.header import Header, Placed, tag_attributes
from sarzarr.scenes.names import scene_claim
from sarzarr.scenes.probe import ArrayProbe, RasterProbe, probe_file
from sarzarr.zips.listing import raster_files

if TYPE_CHECKING:
    import dask.array as da


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

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, each once."""
        return tuple(file.path for file in self.files)


def group_scenes(probes: Iterable[RasterProbe], *, scene_id: str | None = None) -> tuple[SceneProbe, ...]:
    """Return the scenes that files make, in the order of their first files.

    Files are one scene where folder and name agree but for the polarization: `scene_name` has the law of ids, and
    folders that are named by a polarization alone are one. With ``scene_id`` all files make that one scene, whatever
    their names, unless ``{name}`` or ``{folder}`` stand in it: see `scene_claim`.

    Raises `SceneIdError` where an id is malformed, two scenes claim one, or two files of a scene claim one array;
    `UnsupportedRasterError` where the files of a scene are on different grids: (rows, columns), CRS or transform.
    """
    groups: dict[tuple[str, str], list[RasterProbe]] = {}
    for probe in probes:
        groups.setdefault(scene_claim(probe.path, scene_id), []).append(probe)
    owners: dict[str, RasterProbe] = {}
    for (name, _), files in groups.items():
        if name in owners:  # folders tell two files of one name apart
            one, other = ("/".join(probe.path.parts[-2:]) for probe in (owners[name], files[0]))
            raise SceneIdError(
                f"expected a scene id for each scene, got {name!r} for {one} and {other}. "
                "Ingest one of them with --id, or all with --id '{folder}_{name}'."
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
                "Ingest one of them with --id."
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
class LazyWindows:
    """A field over a raster as an array that is made, window by window, when it is indexed; carries no handle."""

    make: Callable[..., np.ndarray[Any, Any]]
    """From ``row``, ``col``, ``height`` and ``width``, that window: `read_window` of a band, for example."""
    shape: tuple[int, int]
    """(rows, columns)."""
    dtype: np.dtype[Any]
    """The dtype that it gives."""

    @property
    def ndim(self) -> int:
        """Two: (rows, columns)."""
        return 2

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray[Any, Any]:
        """Make a window with steps of 1 or more."""
        rows, cols = (range(size)[part] for size, part in zip(self.shape, key, strict=True))
        if len(rows) == 0 or len(cols) == 0:
            return np.empty((len(rows), len(cols)), self.dtype)
        height, width = rows[-1] - rows[0] + 1, cols[-1] - cols[0] + 1
        return self.make(row=rows[0], col=cols[0], height=height, width=width)[:: rows.step, :: cols.step]


def open_scene(
    paths: str | Path | Sequence[str | Path],
    *,
    quantity: str | None = None,
    representation: str | None = None,
    polarizations: Sequence[str] | None = None,
    calibrate: str | None = None,
    denoise: bool = False,
) -> xr.Dataset:
    """Open the files of one scene lazily, values as in the files, and all else as rioxarray has it.

    The Dataset has one variable a band, dims (y, x), in Dask chunks of whole TIFF blocks; complex stays complex and
    nodata is not masked; where a mask, or values that no tag declares, tell which pixels nobody measured, those are
    NaN, and integers floats (``identified_by`` says so). ``y`` and ``x`` are pixel centres by the affine, index + 0.5
    of a file with GCPs alone, and left out of a rotated one. Attributes are tags, ``scale_factor``, ``add_offset``,
    ``_FillValue``, ``long_name``, facts of the acquisition, and of variables ``quantity``, ``representation``,
    ``identified_by``. docs/lazy.md lists where it differs from rioxarray. Digital numbers whose product has a
    calibration are dn, and have it as coordinates that `to_power` applies, unless ``calibrate`` is ``none``:
    ``vv_gain``, linear power per DN^2, float32 (), (x,) or (y, x), and, with ``denoise``, ``vv_noise``, DN^2, (y, x).

    ``paths`` are one TIFF, or one a polarization, or the folder or ZIP archive of a product; the options are those of
    `probe_file`. Raises `UnsupportedRasterError` where a file is not known to be backscatter, `InvalidInputError`
    where the files are not of one scene; says the remedy.
    """
    given = raster_files([paths] if isinstance(paths, str | os.PathLike) else list(paths))
    choice = CalibrationChoice(calibrate=calibrate, denoise=denoise)
    scenes = group_scenes(
        probe_file(
            p,
            quantity=quantity,
            representation=representation,
            polarizations=polarizations,
            calibrate=choice,
        )
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
    headers = {file.path: file.header for file in scene.files}
    first, *others = (header.tags for header in headers.values())
    shared = {k: v for k, v in first.items() if all(tags.get(k) == v for tags in others)}
    variables = {
        array.name: (("y", "x"), _lazy(scene, array), _array_attrs(array, headers[array.path], shared))
        for array in scene.arrays
    }
    attrs: dict[str, Any] = {**tag_attributes(shared), **scene.acquisition.attrs()}
    attrs[cv.GEOLOCATION] = scene.geolocation
    if polarizations := [array.polarization for array in scene.arrays if array.polarization]:
        attrs[cv.SAR_POLARIZATIONS] = polarizations
    dataset = handed_out(xr.Dataset(variables, coords=grid_coordinates(scene.grid), attrs=attrs))
    return dataset.assign_coords({k: v for array in scene.arrays for k, v in _calibrations(scene, array)})


def _calibrations(scene: SceneProbe, array: ArrayProbe) -> Iterator[tuple[str, xr.Variable]]:
    """Yield the coordinates that calibrate an array of digital numbers: its gain, and its noise."""
    calibration = array.calibration
    if calibration is None:
        return
    shape, whole = scene.grid.shape, {"row": 0, "col": 0, "height": 1, "width": scene.grid.width}
    about = {cv.QUANTITY: calibration.quantity, cv.CALIBRATED_BY: calibration.source}
    about[cv.LONG_NAME] = f"{calibration.quantity} per DN^2"
    if calibration.table is None:
        gain = xr.Variable((), calibration.gain(**whole)[0, 0], about)
    elif calibration.table.is_one_row:
        gain = xr.Variable(("x",), calibration.gain(**whole)[0], about)
    else:
        gain = xr.Variable(("y", "x"), _lazy_field(calibration.gain, calibration, array, shape), about)
    yield f"{array.name}_{cv.GAIN}", gain
    if noise := calibration.noise:
        about = {cv.LONG_NAME: "thermal noise, DN^2", cv.DENOISED_BY: noise.source}
        field = _lazy_field(noise.window, calibration, array, shape)
        yield f"{array.name}_{cv.NOISE}", xr.Variable(("y", "x"), field, about)


def _lazy_field(
    make: Callable[..., np.ndarray[Any, Any]],
    calibration: Calibration,
    array: ArrayProbe,
    shape: tuple[int, int],
) -> "da.Array":
    """Return a float32 field of a calibration as a Dask array, (rows, columns), in the chunks of its array."""
    field = LazyWindows(make=make, shape=shape, dtype=np.dtype(np.float32))
    token = tokenize(make.__name__, calibration.identity, shape)
    return _from_windows(field, block_chunks(shape, array.block_shape), f"sarzarr-{make.__name__}-{token}")


def _from_windows(field: LazyWindows, chunks: tuple[int, int], name: str) -> "da.Array":
    """Return a Dask array, (rows, columns), of windows that are made when it is computed."""
    import dask.array as da  # takes a quarter of a second, which an ingest does without

    meta = np.empty((0, 0), field.dtype)
    return da.from_array(field, chunks=chunks, name=name, asarray=False, fancy=False, meta=meta)


def _array_attrs(array: ArrayProbe, header: Header, shared: Mapping[str, str]) -> dict[str, Any]:
    """Return the attributes of a variable: rioxarray's, without the path of the file, and ours."""
    band = array.band - 1
    own = {k: v for k, v in header.tags.items() if k not in shared}
    calibration = array.calibration
    attrs = {
        **tag_attributes({**own, **header.band_tags[band]}),
        cv.SCALE_FACTOR: header.scales[band],
        cv.ADD_OFFSET: header.offsets[band],
        cv.LONG_NAME: header.names[band],
        cv.QUANTITY: array.quantity if calibration is None else cv.Quantity.DN.value,
        cv.REPRESENTATION: array.representation,
        cv.REASON: array.reason,
        cv.SOURCE_NODATA: array.nodata,
        cv.FILL_VALUE: _of_dtype(array.nodata, _dtype(array)),
        cv.SAR_POLARIZATIONS: [array.polarization] if array.polarization else None,
        cv.UNITS: header.units[band] or ("dB" if array.representation == cv.Representation.DB else "1"),
        cv.GAIN: f"{array.name}_{cv.GAIN}" if calibration else None,
        cv.NOISE: f"{array.name}_{cv.NOISE}" if calibration and calibration.noise else None,
    }
    return {key: value for key, value in attrs.items() if value is not None}


def _dtype(array: ArrayProbe) -> np.dtype[Any]:
    """Return the dtype that a band is opened in: floats, which can be NaN, where something tells what is."""
    return measured_dtype(np.dtype(array.dtype), array.unmeasured)


def _of_dtype(nodata: float | None, dtype: np.dtype[Any]) -> Any:
    """Return a nodata value as a pixel of ``dtype`` has it; None where there is none, or no pixel can have it."""
    if nodata is None:
        return None
    can_be = dtype.kind in "fc" or nodata in range(np.iinfo(dtype).min, np.iinfo(dtype).max + 1)
    return dtype.type(nodata) if can_be else None


def _lazy(scene: SceneProbe, array: ArrayProbe) -> "da.Array":
    """Return a Dask array of a band, in chunks of whole TIFF blocks of about `CHUNK_PIXELS`."""
    read = partial(_read_measured, array.path, array.band, array.unmeasured)
    band = LazyWindows(make=read, shape=scene.grid.shape, dtype=_dtype(array))
    chunks = block_chunks(scene.grid.shape, array.block_shape)
    _, status = local_file(array.path)
    stamp = status.st_mtime_ns, status.st_size, status.st_ino
    token = tokenize(str(array.path), *stamp, array.band, chunks, array.unmeasured)
    return _from_windows(band, chunks, f"sarzarr-{array.name}-{token}")


def _read_measured(
    path: Path, band: int, unmeasured: Unmeasured | None, *, row: int, col: int, height: int, width: int
) -> Any:
    """Return a window of a band, (height, width), NaN where ``unmeasured`` tells that nobody measured."""
    window = read_window(path, band=band, row=row, col=col, height=height, width=width)
    return measured(window, unmeasured, row=row, col=col)


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
