"""Pictures: what a store holds, at a glance."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, MissingExtraError
from sarzarr.radiometry import to_db
from sarzarr.store import Store, open_store

PANEL_PIXELS: Final = 700
"""The longer side of a panel, at most; scenes are averaged in power down to it."""
MAX_PANELS: Final = 24
"""Panels of one picture, at most."""
NODATA_COLOUR: Final = "#31435c"


def write_quicklook(
    store: Store | str | Path, path: str | Path, *, scenes: Sequence[str] | None = None
) -> Path:
    """Draw arrays of a store in dB, each over its group's clip, into one picture.

    Parameters
    ----------
    store
        The store.
    path
        The picture: ``.png``, or whatever else matplotlib writes.
    scenes
        Which scenes; all of them, up to `MAX_PANELS` arrays, if left out.

    Returns
    -------
    pathlib.Path
        Where it was written. Pixels that are not valid are blue.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(
            "matplotlib was expected, got none. Install it: pip install 'sarzarr[plot]'."
        ) from None
    opened = store if isinstance(store, Store) else open_store(store)
    panels = _panels(opened, scenes)
    columns = min(len(panels), 4)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.2 * columns, 4.0 * rows), layout="constrained", dpi=110)
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axis, (scene, name, key) in zip(axes, panels, strict=False):
        _draw(axis, opened, scene, name, key)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(f"{opened.root.stem}: dB over the clip of each group; blue is not valid", fontsize=11)
    figure.savefig(path)
    return Path(path)


def _panels(store: Store, scenes: Sequence[str] | None) -> list[tuple[str, str, str]]:
    """(scene, array, bounds key) of what is drawn."""
    chosen = list(store.scenes) if scenes is None else list(scenes)
    rows = [store.rows(scene) for scene in chosen]
    panels = [
        (str(scene), str(name), str(key))
        for row in rows
        for scene, name, key in zip(*(row[k].values for k in ("scene", "name", "bounds_key")), strict=True)
    ]
    if not panels:
        raise InvalidInputError("at least one scene was expected, got an empty store. Ingest some first.")
    return panels[:MAX_PANELS]


def overview(store: Store, scene: str, array: str, *, pixels: int = PANEL_PIXELS) -> xr.DataArray:
    """Return an array in dB, averaged in power until its longer side is ``pixels`` at most; float32.

    NaN where none of the pixels that were averaged is valid.
    """
    power = store.power(scene, array)
    step = math.ceil(max(power.shape) / pixels)
    if step > 1:
        size = {dim: min(step, power.sizes[dim]) for dim in ("y", "x")}
        power = power.coarsen(size, boundary="trim").mean()
    averaged: xr.DataArray = to_db(power.compute())
    return averaged


def _draw(axis: Any, store: Store, scene: str, array: str, key: str) -> None:
    bounds, row = store.bounds[key], store.rows(scene)
    picture = np.ma.masked_invalid(overview(store, scene, array).values)
    from matplotlib import colormaps

    grey = colormaps["gray"].with_extremes(bad=NODATA_COLOUR)
    drawn = axis.imshow(
        picture, cmap=grey, vmin=bounds.clip_vmin, vmax=bounds.clip_vmax, interpolation="nearest"
    )
    axis.set_xticks([])
    axis.set_yticks([])
    height, width = int(row["height"].values[0]), int(row["width"].values[0])
    name = scene if len(scene) <= 38 else f"{scene[:18]}...{scene[-17:]}"
    quantity = key.split("/")[-1]
    axis.set_title(
        f"{name}\n{array.upper() if array in cv.POLARIZATIONS else array} {quantity}, {height} x {width}",
        fontsize=8,
    )
    ratio = picture.shape[0] / picture.shape[1]
    bar = axis.figure.colorbar(drawn, ax=axis, fraction=0.046 * ratio, pad=0.02)
    bar.set_label("dB", fontsize=8)
    bar.ax.tick_params(labelsize=7)
