"""Levels of scenes: where they stand, what they were made of, and how they are opened.

Level n of a scene has a pixel for each block of 2^n x 2^n pixels of the scene, which begin at its first row and
column: ``overviews/<scene>/<n>/<array>``. What it was made of stands beside it, so that levels of pixels that a scene
no longer has are none of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError, NotInStoreError
from sarzarr.grids.dataset import handed_out, value_attributes
from sarzarr.grids.grid import Grid
from sarzarr.pixels.radiometry import denormalize, from_codes, from_db
from sarzarr.store.chunks import read_layout
from sarzarr.store.documents import (
    Document,
    Encoding,
    group_document,
    has_node,
    named,
    read_node,
    spatial_attributes,
    stored_coordinates,
)
from sarzarr.store.manifest import REMEDY, read_manifest
from sarzarr.store.place import Place
from sarzarr.store.shard_job import job_side
from sarzarr.store.stored_pixels import StoredPixels

SMALLEST: Final = 512
"""Rows or columns, whichever are more, that the last level has at the most."""
_AVERAGE: Final = "average"
_NOT_OF_LEVELS: Final = (cv.LAYERS, cv.BORDER, cv.LOOKS_EQUIVALENT_NUMBER, cv.SOURCE_HASH, cv.SOURCE_FILES)
_OF_ARRAYS: Final = (
    *(cv.LONG_NAME, cv.UNITS, cv.VMIN, cv.VMAX, cv.QUANTITY, cv.REPRESENTATION, cv.SAR_POLARIZATIONS),
    *(cv.GRID_MAPPING, cv.COORDINATES, *cv.CODED),
)


def levels_key(scene: str) -> str:
    """Return the key of the group that the levels of a scene are in."""
    return f"{cv.OVERVIEWS}/{scene}"


def count_levels(shape: tuple[int, int], encoding: Encoding) -> int:
    """Return how many levels a scene of (rows, columns) has beside itself: the last is `SMALLEST` at the most.

    Fewer where a job, which has twice the rows of whole files, would not hold whole blocks of a level.

    >>> [count_levels((n, 300), Encoding()) for n in (512, 513, 1024, 1025, 26_000)]
    [0, 1, 1, 2, 6]
    """
    side = 2 * job_side(encoding.file_size)
    most = (side & -side).bit_length() - 1
    needed = (-(-max(shape) // SMALLEST) - 1).bit_length()
    return min(needed, most)


def scaled(grid: Grid, factor: int) -> Grid:
    """Return the grid of blocks of ``factor`` x ``factor`` pixels; the last ones may reach beyond it.

    >>> scaled(Grid(height=5, width=8, transform=(10, 0, 500, 0, -10, 900)), 4)
    Grid(height=2, width=2, transform=(40, 0, 500, 0, -40, 900), crs_wkt=None)
    """
    a, b, c, d, e, f = grid.transform
    transform = (factor * a, factor * b, c, factor * d, factor * e, f)
    height, width = (-(-n // factor) for n in grid.shape)
    return replace(grid, height=height, width=width, transform=transform)


def made_of(place: Place, rows: Iterable[Mapping[str, Any]], fingerprint: str) -> Document:
    """Return what levels of a scene depend on: its place, and of each array its files, its flags' and its dB.

    ``rows`` are those of its arrays in the catalog, ``fingerprint`` that of its georeference.
    """
    arrays = {}
    for row in rows:
        keys = (f"{cv.SCENES}/{row['scene']}/{row[k]}" for k in ("name", "flags"))
        files = "".join(f"{read_manifest(place, key).crc:08x}" for key in keys)
        arrays[str(row["name"])] = f"{files} {float(row['vmin'])!r} {float(row['vmax'])!r}"
    return {"grid": fingerprint, "arrays": arrays}


def told_levels(about: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the levels that the attributes of a group tell of."""
    return tuple(int(level["asset"]) for level in about[cv.MULTISCALES]["layout"])


def fresh_levels(
    place: Place, scene: str, rows: Sequence[Mapping[str, Any]], fingerprint: str
) -> tuple[int, ...]:
    """Return the levels of a scene, ascending, that were made of the pixels (rows, columns) that it now has."""
    if not has_node(place, levels_key(scene)):
        return ()
    about = read_node(place, levels_key(scene))["attributes"]
    with named(place, f"{levels_key(scene)}/zarr.json"):
        levels = told_levels(about)
        return levels if about[cv.MADE_OF] == made_of(place, rows, fingerprint) else ()


def is_known(level: int, known: Sequence[int], name: str) -> bool:
    """Return whether a scene, ``STORE SCENE``, has a level of fewer pixels; `NotInStoreError` where it has not."""
    if level not in known:
        raise NotInStoreError(
            f"level must be one of {', '.join(map(str, known))}, got {level!r} of {name}. Levels down to {SMALLEST} "
            f"pixels are made by `sarzarr overview {name}`."
        )
    return True


# ------------------------------------------------------------------ documents
def overview_document(scene: str, grid: Grid, levels: int, made: Document) -> Document:
    """Return the ``zarr.json`` of the group of a scene's levels, with the attributes of the multiscales convention.

    The scene itself, in another group, is none of its levels: a path of that convention leads downwards only. See
    https://github.com/zarr-conventions/multiscales, v1.
    """
    layout = []
    for level in range(1, levels + 1):
        about = spatial_attributes(scaled(grid, 2**level))
        kept: Document = {k: about[k] for k in (cv.SPATIAL_SHAPE, cv.SPATIAL_TRANSFORM) if k in about}
        step = {"scale": [2.0, 2.0], "translation": [0.0, 0.0]}
        derived: Document = {"derived_from": str(level - 1), "transform": step} if level > 1 else {}
        layout.append({"asset": str(level), **derived, **kept})
    attributes: Document = {
        "zarr_conventions": [*cv.CONVENTIONS],
        cv.MULTISCALES: {"layout": layout, "resampling_method": _AVERAGE},
        cv.FULL_RESOLUTION: f"{cv.SCENES}/{scene}",
        cv.MADE_OF: made,
    }
    return group_document(attributes)


def level_document(about: Mapping[str, Any], grid: Grid, level: int) -> Document:
    """Return the ``zarr.json`` of the group of a level: the facts of its scene, and its own place.

    Rows and columns of ground control points are the level's own.
    """
    kept = {k: v for k, v in about.items() if k not in _NOT_OF_LEVELS}
    kept |= spatial_attributes(scaled(grid, 2**level))
    if points := kept.get(cv.GCPS):
        kept[cv.GCPS] = [v / 2**level if i % 5 < 2 else v for i, v in enumerate(points)]
    return group_document(kept)


def array_attributes(about: Mapping[str, Any]) -> Document:
    """Return the attributes of an array of a level: those of its scene's array that stay true, units and dB."""
    return {k: about[k] for k in _OF_ARRAYS if k in about}


# ------------------------------------------------------------------ opened
def level_pixels(place: Place, scene: str, level: int, array: str) -> StoredPixels:
    """Return the stored pixels (rows, columns) of an array of a level, as `StoredPixels.of`."""
    return StoredPixels.of(place, read_layout(place, f"{levels_key(scene)}/{level}/{array}"))


def overview_bytes(place: Place, scene: str) -> int:
    """Return the bytes of the pixels of a scene's levels, as they are stored."""
    about = read_node(place, levels_key(scene))["attributes"]
    arrays = product(told_levels(about), about[cv.MADE_OF]["arrays"])
    return sum(int(read_manifest(place, f"{levels_key(scene)}/{n}/{name}").sizes.sum()) for n, name in arrays)


def open_level(place: Place, scene: str, level: int, grid: Grid, arrays: Sequence[str]) -> xr.Dataset:
    """Return arrays (y, x) of a level in their stored dtypes, lazily, a Dask chunk a shard.

    ``grid`` is the level's. Raises `CorruptStoreError` as `Store.open_scene`.
    """
    group, out = f"{levels_key(scene)}/{level}", {}
    for name in arrays:
        stored = level_pixels(place, scene, level, name)
        if stored.shape != grid.shape:
            raise CorruptStoreError(
                f"{grid.height} x {grid.width} pixels were expected of {place}/{group}/{name}, got "
                f"{stored.shape}. {REMEDY}"
            )
        attributes = read_node(place, f"{group}/{name}")["attributes"]
        out[name] = ("y", "x"), stored.lazy(stored.encoding.shard or cv.SHARD), attributes
    about = read_node(place, group)["attributes"]
    return xr.Dataset(out, coords=stored_coordinates(grid, 2**level), attrs=about)


def scene_values(
    opened: xr.Dataset, rows: Sequence[Mapping[str, Any]], array: str | None, *, power: bool
) -> Any:
    """Return opened arrays (y, x) as float32 dB or linear power, of one array if one is named; see `Store.db`.

    ``rows`` are those of the catalog. Nonpositive power is 0 where flags are there to tell it.
    """
    representation = cv.Representation.POWER if power else cv.Representation.DB
    out = {}
    for row in rows:
        name = str(row["name"])
        if array not in (None, name):
            continue
        stored = opened[name]
        z = from_codes(stored) if stored.dtype == np.uint16 else stored.astype(np.float32)
        values = denormalize(z, (float(row["vmin"]), float(row["vmax"])))
        if power:
            values = from_db(values)
            if row["flags"] in opened:
                values = values.where(opened[row["flags"]] != cv.Flag.NONPOSITIVE, 0)
        values.attrs, values.encoding = value_attributes(stored.attrs, representation), {}
        out[name if power else f"{name}_db"] = values
    made = handed_out(xr.Dataset(out, attrs=opened.attrs))
    return made if array is None else made[next(iter(out))]
