"""Panels of scenes: one array from its clip's black to its white, or two polarizations and their ratio as RGB."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.export.pictures.overlays import Outlines, Overlay, scene_layer
from sarzarr.export.pictures.panels import HATCH, NODATA_COLOUR
from sarzarr.export.pictures.small import small_db
from sarzarr.export.pictures.upright import Upright, draw_scale, upright
from sarzarr.pixels.rotated import apply_to_points
from sarzarr.pixels.turns import TRANSPOSE, apply
from sarzarr.store.store import Store
from sarzarr.text import shortened

PANEL_PIXELS: Final = 700
"""The longer side of a panel, at most; scenes are averaged in power down to it."""
PAIRS: Final = (("vv", "vh"), ("hh", "hv"))
"""Polarizations that make a picture in colour: like, and cross."""
RATIO_DB: Final = (0.0, 15.0)
"""Decibels of like over cross polarization that are no blue and all blue: rough water and forest lie between."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneFrame:
    """The place of a scene in a panel: axes count pixel edges of the scene as it is drawn."""

    scene: str
    """Its id."""
    shape: tuple[int, int]
    """(rows, columns) of the scene as stored."""
    lies: Upright
    """How it is drawn."""
    when: str = ""
    """Its time, to the minute; empty where that is not known."""

    @classmethod
    def of(cls, store: Store, scene: str) -> "SceneFrame":
        """Return the frame of a scene, (rows, columns) as its catalog says."""
        time = str(store.facts(scene)[0]["time"])
        return cls(
            scene=scene,
            shape=store.grid(scene).shape,
            lies=upright(store.placements[scene]),
            when=minute(time),
        )

    @property
    def drawn_shape(self) -> tuple[int, int]:
        """(rows, columns) as drawn."""
        return self.shape[::-1] if self.lies.turn & TRANSPOSE else self.shape

    @property
    def tall(self) -> float:
        """Height of its picture by its width."""
        return self.drawn_shape[0] / self.drawn_shape[1] * self.lies.aspect

    def points(self, points: Array) -> Array:
        """Return points (n, ..., 2) x, y in pixel edges of the scene as they are drawn."""
        return apply_to_points(self.lies.turn, points, shape=self.shape)

    def turned(self, values: Array) -> Array:
        """Return pixels (..., rows, columns) as they are drawn."""
        return apply(self.lies.turn, values)

    def extent(self, shape: tuple[int, ...], step: int) -> tuple[float, float, float, float]:
        """Return left, right, bottom and top, in pixel edges as drawn, of (rows, columns) of ``step`` pixels each."""
        down, across = (min(step, n) * m for n, m in zip(self.shape, shape, strict=True))
        ends = self.points(np.array([[0, 0], [across, down]]))
        left, top, right, bottom = np.sort(ends, axis=0).ravel().tolist()
        return left, right, bottom, top

    def finish(self, axis: Any, facts: Sequence[str]) -> None:
        """Write a panel's title, its scale, and what is said of how it lies."""
        size = " x ".join(map(str, self.shape))
        line = ", ".join(filter(None, (*facts, self.when, size)))
        lies = f"\n{self.lies.words}" if self.lies.words else ""
        axis.set_title(f"{shortened(self.scene)}\n{line}{lies}", fontsize=8)
        axis.set_aspect(self.lies.aspect)
        draw_scale(axis, self.lies, self.drawn_shape[1], self.drawn_shape[0])


def step_of(small: tuple[int, ...], shape: tuple[int, int]) -> int:
    """Return the number of rows and columns of a scene, (rows, columns), that are one of its decimated picture.

    A picture may end with whole pixels or with the rest as one more, so that the longer side alone tells it.
    """
    longer = int(np.argmax(small))
    return max(round(shape[longer] / small[longer]), 1)


def minute(time: str) -> str:
    """Return a time for people: day, and hours and minutes in UTC where they are told.

    >>> minute("2026-01-01T05:16:32Z"), minute("2026-01-01T00:00:00Z"), minute("")
    ('2026-01-01 05:16', '2026-01-01', '')
    """
    clock = time[11:16]
    return time[:10] if time[11:19] == "00:00:00" else f"{time[:10]} {clock}".strip()


def band_name(array: str) -> str:
    """Return an array's name for people: ``VV``, other bands as they are."""
    return array.upper() if array in cv.POLARIZATIONS else array


@dataclass(frozen=True, kw_only=True, eq=False)
class ScenePanel:
    """A panel of a scene: of one array, or in colour of two."""

    store: Store
    """The store."""
    frame: SceneFrame
    """The scene's place in it."""
    arrays: tuple[str, ...]
    """One array; or, in colour, like and cross polarization."""
    layer: Overlay | None = None
    """The layer over it."""
    outlines: Outlines | None = None
    """The boxes over it."""

    def __call__(self, axis: Any) -> None:
        """Draw it into an axis of matplotlib."""
        scene, drawn = self.frame.scene, [self._small(array) for array in self.arrays]
        keys = bounds_keys(self.store, scene)
        extent = self.frame.extent(drawn[0].shape, step_of(drawn[0].shape, self.frame.shape))
        clips = [self.store.bounds[keys[array]].clip for array in self.arrays]
        quantity = keys[self.arrays[0]].split("/")[-1]
        values = [self.frame.turned(one.values) for one in drawn]
        if len(values) > 1:
            axis.patch.set(**HATCH)
            axis.imshow(
                rgb_of(values, [(c.vmin, c.vmax) for c in clips]), extent=extent, interpolation="nearest"
            )
            self.frame.finish(axis, [quantity])
        else:
            style = {"vmin": clips[0].vmin, "vmax": clips[0].vmax, "interpolation": "nearest"}
            shown = axis.imshow(np.ma.masked_invalid(values[0]), cmap=grey(), extent=extent, **style)
            self.frame.finish(axis, [f"{band_name(self.arrays[0])} {quantity}"])
            colour_bar(axis, shown, "dB")
        if self.layer is not None:
            self.layer.draw(axis, scene)
        if self.outlines is not None:
            polygons, labels = self.outlines.of(scene)
            self.outlines.draw(axis, self.frame.points(polygons), labels)

    def _small(self, array: str) -> xr.DataArray:
        return small_db(self.store, self.frame.scene, array, pixels=PANEL_PIXELS)


def bounds_keys(store: Store, scene: str) -> dict[str, str]:
    """Return the group of each array of a scene, ``vv/sigma0``, whose clip in dB it is drawn with."""
    rows = store.rows(scene)
    return dict(zip(rows["name"].values.tolist(), rows["bounds_key"].values.tolist(), strict=True))


def layer_over(store: Store, layer: str, frames: Sequence[SceneFrame]) -> Overlay:
    """Return a layer over scenes: every nth row and column of it, none averaged, (rows, columns) as drawn."""
    values: dict[str, Array] = {}
    extents: dict[str, tuple[float, float, float, float]] = {}
    attrs: Mapping[str, Any] = {}
    for frame in frames:
        if layer in store.layers(frame.scene) and frame.scene not in values:
            step = math.ceil(max(frame.shape) / PANEL_PIXELS)
            attrs = store.layer_attrs(frame.scene, layer)
            thinned = scene_layer(store, frame.scene, layer, step=step)
            extents[frame.scene] = frame.extent(thinned.shape, step)
            values[frame.scene] = frame.turned(thinned)
    return Overlay.of(layer, values, attrs, extents)


def pair_of(store: Store, scene: str) -> tuple[str, str] | None:
    """Return the like and the cross polarization of a scene that are of one quantity; None where it has no such."""
    keys = bounds_keys(store, scene)
    kinds = {array: key.split("/")[-1] for array, key in keys.items()}
    return next((pair for pair in PAIRS if pair[0] in kinds and kinds.get(pair[1]) == kinds[pair[0]]), None)


def rgb_of(db: Sequence[Array], clips: Sequence[tuple[float, float]]) -> Array:
    """Return (rows, columns, 4) float64 in [0, 1]: like, cross, and like over cross polarization, from two in dB.

    Red and green go from the black to the white of their ``clips``, blue over `RATIO_DB`. Where one of the two is NaN
    the picture is transparent.
    """
    ranges = (*clips, RATIO_DB)
    planes = (db[0], db[1], db[0] - db[1])
    scaled = [(plane - low) / (high - low) for plane, (low, high) in zip(planes, ranges, strict=True)]
    is_valid = np.isfinite(planes[2])
    colours = [np.clip(np.where(is_valid, plane, 0), 0, 1) for plane in scaled]
    return np.stack([*colours, is_valid], axis=-1).astype(np.float64)


def rgb_legend(store: Store, panels: Sequence[ScenePanel]) -> list[Any]:
    """Return matplotlib's handles that say what red, green and blue are, in dB, once each."""
    from matplotlib.patches import Patch

    texts: dict[str, str] = {}
    for panel in panels:
        keys = bounds_keys(store, panel.frame.scene)
        for colour, array in zip(("#d62728", "#2ca02c"), panel.arrays, strict=True):
            clip, quantity = store.bounds[keys[array]].clip, keys[array].split("/")[-1]
            name = "red" if colour == "#d62728" else "green"
            texts[f"{name}: {band_name(array)} {quantity}, {clip.vmin:.1f} to {clip.vmax:.1f} dB"] = colour
        ratio = " / ".join(map(band_name, panel.arrays))
        texts[f"blue: {ratio}, {RATIO_DB[0]:g} to {RATIO_DB[1]:g} dB"] = "#1f4fd6"
    order = sorted(texts, key=lambda text: ("red", "green", "blue").index(text.split(":")[0]))
    return [Patch(color=texts[text], label=text) for text in order] + [Patch(**HATCH, label="not valid")]


def not_valid() -> Any:
    """Return matplotlib's handle of the colour of pixels that are not valid."""
    from matplotlib.patches import Patch

    return Patch(color=NODATA_COLOUR, label="not valid")


def grey() -> Any:
    """Return matplotlib's colours from black to white, with the one of pixels that are not valid."""
    from matplotlib import colormaps

    return colormaps["gray"].with_extremes(bad=NODATA_COLOUR)


def colour_bar(axis: Any, drawn: Any, label: str) -> None:
    """Draw the scale of a panel at its right, as high as its picture."""
    from matplotlib.ticker import MaxNLocator

    box = axis.get_window_extent()
    bar = axis.inset_axes((1.02, 0.0, 0.035 * min(box.height / max(box.width, 1), 1), 1.0))
    axis.figure.colorbar(drawn, cax=bar, ticks=MaxNLocator(5))
    bar.set_ylabel(label, fontsize=7, labelpad=2)
    bar.tick_params(labelsize=7)
