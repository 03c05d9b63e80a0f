"""Pictures: what a store holds, at a glance."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.export.pictures.panels import check_picture, empty_panels
from sarzarr.export.pictures.small import small_db
from sarzarr.store.samples import WHITE, SampleSet, open_samples, sample_sets
from sarzarr.store.store import AnyStore, Store, open_store

log = logging.getLogger(__name__)
PANEL_PIXELS: Final = 700
"""The longer side of a panel, at most; scenes are averaged in power down to it."""
MAX_PANELS: Final = 24
"""Panels of one picture, at most."""
NODATA_COLOUR: Final = "#31435c"


def write_quicklook(store: AnyStore, path: str | Path, *, scenes: Sequence[str] | None = None) -> Path:
    """Draw arrays of a store in dB, each over its group's clip, into one picture, and return its path.

    Pixels that are not valid are blue. It is a ``.png``, or whatever else matplotlib writes, of some ``scenes`` or of
    all, `MAX_PANELS` arrays at the most. Sets of samples are drawn, from black to white with their boxes, where
    ``scenes`` names them, or the store has no scenes.

    Raises `InvalidInputError` where its suffix is of no format, its folder is not there, or there is nothing to draw;
    `CorruptStoreError` where stored bytes are damaged.
    """
    opened, place = open_store(store), Path(path)
    every = _panels(opened, scenes)
    panels = every[:MAX_PANELS]
    figure, axes = empty_panels(len(panels), across=4, inches=(4.2, 4.0), dpi=110)
    check_picture(figure, place)
    for axis, draw in zip(axes, panels, strict=True):
        draw(axis)
    shown = "" if len(panels) == len(every) else f" ({len(panels)} of {len(every)})"
    title = f"{Path(opened.place.name).stem}{shown}: dB over the clip of each group, samples as they are; "
    title += "blue is not valid"
    figure.suptitle(title, fontsize=11)
    figure.savefig(place)
    log.info("wrote %s", place)
    return place


def count_panels(store: Store, scenes: Sequence[str] | None = None) -> int:
    """Return how many arrays and samples there are to draw; one picture shows `MAX_PANELS` of them."""
    return len(_panels(store, scenes))


def _panels(store: Store, scenes: Sequence[str] | None) -> list[Callable[[Any], None]]:
    """Return what draws each array or sample into an axis."""
    panels: list[Callable[[Any], None]] = []
    sets = sample_sets(store)
    drawn = dict.fromkeys(store.catalog["scene"].values.tolist())  # layers alone are no backscatter
    for name in drawn or sets if scenes is None else scenes:
        if name in sets and name not in store.scenes:
            samples = open_samples(store, name)
            panels += [partial(_draw_sample, samples=samples, sample=i) for i in range(len(samples))]
            continue
        columns = (store.rows(name)[k].values.tolist() for k in ("name", "bounds_key"))
        panels += [
            partial(_draw, store=store, scene=name, array=a, key=k) for a, k in zip(*columns, strict=True)
        ]
    if not panels:
        raise InvalidInputError(
            "at least one scene or sample was expected, got a store without backscatter. Ingest some first."
        )
    return panels


def _draw(axis: Any, *, store: Store, scene: str, array: str, key: str) -> None:
    from matplotlib import colormaps

    bounds, row = store.bounds[key], store.rows(scene)
    picture = np.ma.masked_invalid(small_db(store, scene, array, pixels=PANEL_PIXELS).values)
    grey = colormaps["gray"].with_extremes(bad=NODATA_COLOUR)
    drawn = axis.imshow(
        picture, cmap=grey, vmin=bounds.clip_vmin, vmax=bounds.clip_vmax, interpolation="nearest"
    )
    axis.set(xticks=[], yticks=[])
    size = f"{int(row['height'].values[0])} x {int(row['width'].values[0])}"
    name = scene if len(scene) <= 38 else f"{scene[:18]}...{scene[-17:]}"
    band = array.upper() if array in cv.POLARIZATIONS else array
    axis.set_title(f"{name}\n{band} {key.split('/')[-1]}, {size}", fontsize=8)
    ratio = picture.shape[0] / picture.shape[1]
    bar = axis.figure.colorbar(drawn, ax=axis, fraction=0.046 * ratio, pad=0.02)
    bar.set_label("dB", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _draw_sample(axis: Any, *, samples: SampleSet, sample: int) -> None:
    """Draw a picture from black to white, and the outlines of its boxes."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    picture = np.ma.masked_invalid(samples.image(sample))
    grey = colormaps["gray"].with_extremes(bad=NODATA_COLOUR)
    white = WHITE[samples.layout.dtype]
    axis.imshow(picture, cmap=grey, vmin=0, vmax=white, interpolation="nearest")
    boxes, _ = samples.target(sample)
    for left, top, right, bottom in (
        boxes - 0.5
    ).tolist():  # matplotlib counts from the middle of the first pixel
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="#ffb000"))
    axis.set(xticks=[], yticks=[])
    name = samples.ids[sample]
    shown = name if len(name) <= 38 else f"{name[:18]}...{name[-17:]}"
    axis.set_title(f"{shown}\n{samples.name}, {picture.shape[0]} x {picture.shape[1]}", fontsize=8)
