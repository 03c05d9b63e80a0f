"""Scenes in few pixels, for pictures: averaged in linear power, read from overviews where there are some."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr.arrays import Array
from sarzarr.grids.dataset import handed_out, value_attributes
from sarzarr.pixels.radiometry import to_db
from sarzarr.store.catalog import catalog_rows
from sarzarr.store.documents import stored_coordinates
from sarzarr.store.overviews.average import mean_power, power_and_validity
from sarzarr.store.overviews.levels import level_pixels, scaled
from sarzarr.store.shard_job import rectangles
from sarzarr.store.store import Store
from sarzarr.store.stored_pixels import StoredPixels
from sarzarr.tasks import Task, gather, processes

BLOCK: Final = 2048
"""Rows and columns that a task reads, a band of chunks at a time: chunks of the default size lie in it whole."""


def small_db(store: Store, scene: str, array: str, *, pixels: int) -> xr.DataArray:
    """Return an array in dB, averaged in power until its longer side is ``pixels`` at most; float32.

    NaN where none of the pixels that were averaged is valid. ``y`` and ``x`` are the centres of what was averaged; at
    the right and the bottom of blocks of which not all is there. It is read from the coarsest of `Store.levels` that
    gives two thirds of the pixels asked for; without overviews every chunk of the scene is read, once, a few at a
    time: part of a chunk cannot be held against its checksum, and would miss what is small and bright.

    Raises `NotInStoreError` where there is no such array, `CorruptStoreError` where stored bytes are damaged.
    """
    row = _row(store, scene, array)
    shape = int(row["height"]), int(row["width"])
    level = _level_for(shape, store.levels(scene), pixels)
    stored = level_pixels(store.place, scene, level, array) if level else store.pixels(scene, array)
    step = math.ceil(max(stored.shape) / pixels)
    power = mean_power(_sums(stored, (float(row["vmin"]), float(row["vmax"])), step))
    factor = step * 2**level
    coordinates = stored_coordinates(scaled(store.grid(scene), factor), factor)
    about = value_attributes(store.node_attrs(scene, array), "power")
    made = xr.DataArray(power, coordinates, ("y", "x"), name=array, attrs=about)
    averaged: xr.DataArray = to_db(handed_out(made.to_dataset())[array])
    return averaged


def _row(store: Store, scene: str, array: str) -> Mapping[str, Any]:
    rows = {str(row["name"]): row for row in catalog_rows(store.rows(scene))}
    if array not in rows:
        store.db(scene, array)  # says what there is
    return rows[array]


def _level_for(shape: tuple[int, int], levels: tuple[int, ...], pixels: int) -> int:
    """Return the coarsest level whose longer side is ``pixels``, or twice as many at least; 0 where none is.

    >>> [_level_for((n, 10), (0, 1, 2, 3), 700) for n in (1399, 1400, 2799, 2800, 4000, 12_000)]
    [1, 1, 2, 2, 1, 3]
    """
    sides = {level: -(-max(shape) // 2**level) for level in levels}
    return max((n for n, side in sides.items() if side == pixels or side >= 2 * pixels), default=0)


def _sums(pixels: StoredPixels, stored: tuple[float, float], step: int) -> Array:
    """Return (2, rows, columns) of an array's power and valid pixels, summed up over blocks of ``step`` pixels."""
    height, width = pixels.shape
    tasks: list[Task] = [
        (_block_sums, (pixels, stored, step, place)) for place in rectangles(pixels.shape, (BLOCK, BLOCK))
    ]
    out = np.zeros((2, -(-height // step), -(-width // step)), np.float64)
    with processes(height * width * pixels.dtype.itemsize):
        for row, col, sums in gather(tasks):
            out[:, row : row + sums.shape[1], col : col + sums.shape[2]] += sums
    return out.astype(np.float32)


def _block_sums(
    pixels: StoredPixels, stored: tuple[float, float], step: int, place: Mapping[str, int]
) -> tuple[int, int, Array]:
    """Return the first row and column of the result that a rectangle of pixels is in, and its sums."""
    first, left = place["row"] // step, place["col"] // step
    bottom, right = place["row"] + place["height"], place["col"] + place["width"]
    out = np.zeros((2, -(-bottom // step) - first, -(-right // step) - left), np.float64)
    band = pixels.encoding.chunk
    for row in range(place["row"], bottom, band):
        end = min(row + band, bottom)
        sums = power_and_validity(pixels.read((slice(row, end), slice(place["col"], right))), stored)
        cuts = _cuts(row, end, step)
        rows = np.stack([sums[:, a:b].sum(axis=1) for a, b in pairwise((*cuts, end - row))], axis=1)
        both = np.add.reduceat(rows, _cuts(place["col"], right, step), axis=2, dtype=np.float64)
        top = row // step - first
        out[:, top : top + both.shape[1]] += both
    return first, left, out


def _cuts(first: int, end: int, step: int) -> list[int]:
    """Return where blocks of ``step`` begin in pixels ``first`` to ``end``, counted from there, 0 at the least."""
    return [max(begin - first, 0) for begin in range(first // step * step, end, step)]
