"""Stacks as lazy cubes ``(time, y, x)``: a Dask task per date and shard."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.grids.dataset import handed_out, value_attributes
from sarzarr.patches.stacks.find import named_stacks
from sarzarr.patches.stacks.stack import Stack
from sarzarr.pixels.radiometry import denormalize, from_codes, from_db
from sarzarr.store.shard_job import job_side
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.store.stored_pixels import StoredPixels


@dataclass(frozen=True, kw_only=True)
class _Plane:
    """One array of one scene, its flags, and the dB of its values. Opens nothing until it is read."""

    values: StoredPixels
    """Its codes, or floats in [0, 1]."""
    flags: StoredPixels
    """Its flags."""
    stored: tuple[float, float]
    """dB that 0 and 1 stand for."""
    power: bool
    """Whether linear power is delivered, else dB."""

    def read(self, rows: slice, cols: slice) -> Array:
        """Return (1, rows, columns) float32 as `Store.db` and `Store.power` have them."""
        codes = self.values.read((rows, cols))
        z = from_codes(codes) if codes.dtype == np.uint16 else codes.astype(np.float32)
        values: Array = denormalize(z, self.stored)
        if self.power:
            values = from_db(values)
            values[self.flags.read((rows, cols)) == cv.Flag.NONPOSITIVE] = 0
        return values[None]


def open_stack(
    store: AnyStore,
    stack: Stack | str | bool = True,
    *,
    scenes: list[str] | tuple[str, ...] | None = None,
    polarizations: list[str] | tuple[str, ...] | None = None,
    representation: Literal["db", "power"] = "db",
) -> xr.Dataset:
    """Open a stack as one lazy cube, a variable per polarization: float32 (time, y, x), NaN where not valid.

    Each date is that of `Store.db` or `Store.power`, in variables of the same names. Chunks are one date by
    one shard. ``time`` is datetime64[ns] UTC, ascending; ``scene`` names the scene of each. Facts that are known of
    all dates and equal (orbit, pass, platform, ...) are in the attributes, others are coordinates.

    ``stack`` is a `Stack`, or the id of any scene of one, or True: the only one of the store, or with ``scenes``, the
    ids to choose from, the one that those make. ``polarizations``, or names of arrays, are in that order, all that
    the scenes share if left out; ``representation`` is ``db``, or linear ``power``.

    Raises `InvalidInputError` where there is no such stack, or several, or two scenes are of one time;
    `NotInStoreError` where a scene or polarization is not in the store.
    """
    opened = open_store(store)
    if representation not in ("db", "power"):
        raise InvalidInputError(f"representation must be db or power, got {representation!r}.")
    one, *others = named_stacks(opened, stack, scenes=scenes, polarizations=polarizations)
    if others:
        ids = ", ".join(repr(s.id) for s in (one, *others[:7]))
        raise InvalidInputError(
            f"one stack was expected, got {1 + len(others)}. Name one: stack= one of {ids}."
        )
    first = opened.open_scene(one.id)
    of_scene = {scene: opened.rows(scene) for scene in one.scenes}
    variables = {
        (name if representation == "power" else f"{name}_db"): (
            ("time", "y", "x"),
            _cube(opened, one, name, of_scene, power=representation == "power"),
            value_attributes(first[name].attrs, representation),
        )
        for name in one.arrays
    }
    coords: dict[Hashable, Any] = {str(k): v.variable for k, v in first.coords.items()}
    facts, differing = _facts(one, of_scene)
    coords |= {"time": ("time", one.times), "scene": ("time", np.array(one.scenes, object)), **differing}
    return handed_out(xr.Dataset(variables, coords=coords, attrs=facts))


def _cube(store: Store, stack: Stack, name: str, rows: dict[str, xr.Dataset], *, power: bool) -> Any:
    """Return a Dask array whose every chunk is one task."""
    planes = []
    block = job_side(int(rows[stack.id]["shard"].values[0]) or cv.SHARD)
    for scene in stack.scenes:
        row = rows[scene].isel(array=rows[scene]["name"].values.tolist().index(name))
        stored = float(row["vmin"]), float(row["vmax"])
        values, flags = (store.pixels(scene, array) for array in (name, str(row["flags"].values)))
        planes.append(_Plane(values=values, flags=flags, stored=stored, power=power))
    downs, acrosses = ([slice(a, min(a + block, n)) for a in range(0, n, block)] for n in stack.grid.shape)
    key = f"{'power' if power else 'db'}-{name}-{tokenize(planes, block, stack.grid.shape)}"
    graph = {
        (key, t, i, j): (_Plane.read, plane, down, across)
        for t, plane in enumerate(planes)
        for i, down in enumerate(downs)
        for j, across in enumerate(acrosses)
    }
    sizes = tuple(tuple(s.stop - s.start for s in spans) for spans in (downs, acrosses))
    return da.Array(graph, key, chunks=((1,) * len(planes), *sizes), dtype=np.float32)


def _facts(stack: Stack, rows: dict[str, xr.Dataset]) -> tuple[dict[str, Any], dict[Hashable, Any]]:
    """Return facts that are known of every date and equal, by STAC's keys, and coordinates of the others."""
    equal: dict[str, Any] = {}
    differing: dict[Hashable, Any] = {}
    for key, column in cv.CATALOG_COLUMNS.items():
        values = [rows[scene][column].values[0] for scene in stack.scenes]
        known = [bool(v == v and v != "") for v in values]
        if key == cv.DATETIME or not any(known):
            continue
        if all(known) and all(v == values[0] for v in values):
            equal[key] = values[0].item() if isinstance(values[0], np.generic) else str(values[0])
        else:
            differing[column] = ("time", np.array(values))
    return equal, differing
