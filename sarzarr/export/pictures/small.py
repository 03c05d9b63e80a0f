"""Scenes in few pixels, for pictures: averaged in linear power."""

import math

import xarray as xr

from sarzarr.pixels.radiometry import to_db
from sarzarr.store.store import Store


def small_db(store: Store, scene: str, array: str, *, pixels: int) -> xr.DataArray:
    """Return an array in dB, averaged in power until its longer side is ``pixels`` at most; float32.

    NaN where none of the pixels that were averaged is valid. `CorruptStoreError` where stored bytes are damaged.
    """
    power = store.power(scene, array)
    step = math.ceil(max(power.shape) / pixels)
    if step > 1:
        size = {dim: min(step, power.sizes[dim]) for dim in ("y", "x")}
        power = power.coarsen(size, boundary="trim").mean()
    averaged: xr.DataArray = to_db(power.compute())
    return averaged
