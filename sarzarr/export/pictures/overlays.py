"""Layers and boxes over pictures: colours that people of any sight tell apart, and a legend of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import NotInStoreError
from sarzarr.pixels.rotated import simple_rings
from sarzarr.reader.picture import MOST_CLASSES, class_colours
from sarzarr.reader.targets import table_asked
from sarzarr.store.boxes import Boxes, check_grids, read_boxes
from sarzarr.store.store import Store

COLOURS: Final = ("#e69f00", "#cc79a7", "#009e73", "#f0e442", "#d55e00")
"""Of classes, while they last: Okabe and Ito's without their blues, which would be that of pixels not valid."""
SEE_THROUGH: Final = 0.5
"""Opacity of layers."""
MOST_NAMES: Final = 60
"""Boxes of a panel from which on none is named."""
_HELD: Final = 8
"""Colours in a legend, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlay:
    """A layer's values in the panels of a picture, and the colours of them all."""

    name: str
    """Its name."""
    values: Mapping[str, Array]
    """(rows, columns) float64 by panel; NaN where nothing is drawn: no data, and class 0."""
    classes: tuple[float, ...] = ()
    """The classes that are there; none of a layer of measures, which has a ramp."""
    words: Mapping[str, str] = field(default_factory=dict)
    """The name of each class, where it has one."""
    units: str = ""
    """Units of its measures."""
    extents: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)
    """Left, right, bottom and top by panel, where an axis does not count pixels from their middles."""

    @classmethod
    def of(
        cls,
        name: str,
        values: Mapping[str, Array],
        attrs: Mapping[str, Any],
        extents: Mapping[str, tuple[float, float, float, float]] | None = None,
    ) -> "Overlay":
        """Return the overlay of a layer with these attributes: pixels (rows, columns) as stored, by panel."""
        nodata = attrs.get(cv.NODATA)
        seen = {key: np.where(v == nodata, np.nan, v.astype(np.float64)) for key, v in values.items()}
        is_classes = attrs.get(cv.LAYER_KIND) == "classes"
        found = np.unique(np.concatenate([v[np.isfinite(v)] for v in seen.values()] or [np.zeros(0)]))
        classes = tuple(v for v in found.tolist() if v) if is_classes and len(found) <= MOST_CLASSES else ()
        if is_classes:
            seen = {key: np.where(v == 0, np.nan, v) for key, v in seen.items()}
        return cls(
            name=name,
            values=seen,
            classes=classes,
            words=dict(zip(*_class_names(attrs), strict=False)),
            units=str(attrs.get(cv.UNITS, "")),
            extents=extents or {},
        )

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest value of all panels."""
        found = np.concatenate([v[np.isfinite(v)] for v in self.values.values()] or [np.zeros(0)])
        return (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)

    def draw(self, axis: Any, key: str) -> None:
        """Draw it half transparent over the panel ``key``, whose limits stay."""
        if key not in self.values:
            return
        style = {"cmap": "viridis", "vmin": self.ends[0], "vmax": self.ends[1]}
        if self.classes:
            style = class_colours(self.classes, self._colours())
        seen, limits = np.ma.masked_invalid(self.values[key]), axis.axis()
        placed = {"extent": self.extents.get(key), "aspect": axis.get_aspect()}
        axis.imshow(seen, alpha=SEE_THROUGH, interpolation="nearest", **style, **placed)
        axis.axis(limits)

    def _colours(self) -> Sequence[Any] | None:
        return COLOURS[: len(self.classes)] if len(self.classes) <= len(COLOURS) else None

    def legend(self) -> list[Any]:
        """Return matplotlib's handles of its classes, or of the ends of its ramp."""
        from matplotlib import colormaps
        from matplotlib.patches import Patch

        if not self.classes:
            texts = (f"{self.name} {end:.4g} {self.units}".rstrip() for end in self.ends)
            ramp = zip(texts, (0.0, 1.0), strict=True)
            return [Patch(color=colormaps["viridis"](at), alpha=SEE_THROUGH, label=text) for text, at in ramp]
        drawn = class_colours(self.classes, self._colours())
        shown = [
            Patch(color=drawn["cmap"](i), alpha=SEE_THROUGH, label=f"{self.name} {self._word(value)}")
            for i, value in enumerate(self.classes[:_HELD])
        ]
        more = len(self.classes) - _HELD
        return shown + ([Patch(alpha=0, label=f"and {more} more classes")] if more > 0 else [])

    def _word(self, value: float) -> str:
        number = f"{value:g}"
        return f"{number}, {self.words[number]}" if number in self.words else number


def _class_names(attrs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the numbers of a layer's classes as text, and their names."""
    named = attrs.get(cv.CLASSES)
    if isinstance(named, Mapping):
        return [str(k) for k in named], [str(v) for v in named.values()]
    values = [f"{float(v):g}" for v in np.ravel(attrs.get(cv.FLAG_VALUES, ()))]
    return values, str(attrs.get(cv.FLAG_MEANINGS, "")).split()


def scene_layer(store: Store, scene: str, layer: str, *, step: int) -> Array:
    """Return every nth row and column of a layer (rows, columns) as stored, from the middle of the first ``step`` on.

    Its chunks are read a few at a time.
    """
    shard = int(store.facts(scene)[0]["shard"]) or cv.SHARD
    lazy = store.pixels(scene, layer).lazy(shard)
    height, width = lazy.shape
    thinned: Array = lazy[min(step, height) // 2 :: step, min(step, width) // 2 :: step].compute()
    return thinned


def check_layer(store: Store, layer: str, scenes: Iterable[str]) -> None:
    """Raise `NotInStoreError` where none of some scenes has a layer."""
    some = list(dict.fromkeys(scenes))
    if not any(layer in store.layers(scene) for scene in some):
        known = sorted({name for scene in some for name in store.layers(scene)})
        raise NotInStoreError(
            f"a layer of the scenes that are shown was expected ({', '.join(known) or 'they have none'}), got "
            f"{layer!r}."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Outlines:
    """Boxes over panels, a colour a class."""

    classes: tuple[str, ...]
    """Name of class 1, 2, ..."""
    table: Boxes | None = None
    """The boxes of scenes; None where those of panels are given when they are drawn."""

    @classmethod
    def of_scenes(cls, store: Store, name: str | bool, scenes: Sequence[str]) -> "Outlines":
        """Return the outlines of a table of boxes (n, 4) on scenes; as of `read_boxes` and `check_grids`."""
        table = read_boxes(store, table_asked(name)[0])
        if table.on != cv.SCENES:
            raise NotInStoreError(
                f"boxes on scenes were expected, got {name!r}, which are on {table.on}. Those are drawn where the "
                "set of samples is named as a scene."
            )
        check_grids(store, table, scenes)
        return cls(classes=table.classes, table=table)

    def of(self, scene: str) -> tuple[Array, Array]:
        """Return the corners (n, 4, 2) of a scene's boxes in pixel edges, and their labels (n,) from 1."""
        if self.table is None or scene not in self.table.owners:
            return np.zeros((0, 4, 2)), np.zeros(0, np.int64)
        rows = self.table.rows_of(self.table.owners.index(scene))
        return self.table.polygons[rows], self.table.label[rows]

    def draw(self, axis: Any, polygons: Array, labels: Array) -> None:
        """Draw boxes, corners (n, 4, 2) in pixel edges of the picture, and names of those that have room for one."""
        from matplotlib.collections import PolyCollection

        corners: Any = simple_rings(polygons)
        boxes = np.concatenate([polygons.min(axis=1), polygons.max(axis=1)], axis=1)
        limits = axis.axis()
        colours = [self._colour(int(label)) for label in labels]
        axis.add_collection(PolyCollection(corners, facecolors="none", edgecolors=colours, linewidths=1.2))
        axis.axis(limits)  # a rotated box may reach outside
        if len(boxes) > MOST_NAMES:
            return
        inches = axis.get_position().width * axis.figure.get_figwidth()
        letter = (
            abs(np.subtract(*axis.get_xlim())) / max(inches * 72, 1) * 4.2
        )  # pixels of a letter of 7 points
        line = letter * 2.2
        taken: list[tuple[float, float, float, float]] = []
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            name = self.classes[label - 1]
            room = box[0], box[1] - line, box[0] + letter * len(name), box[1]
            fits = room[1] >= 0 and room[2] <= max(axis.get_xlim())
            if fits and not any(_meet(room, other) for other in taken):
                taken.append(room)
                axis.text(
                    box[0], box[1] - 0.15 * line, name, fontsize=7, color=self._colour(label), va="bottom",
                    fontweight="bold",
                )  # fmt: skip

    def _colour(self, label: int) -> str:
        return COLOURS[(label - 1) % len(COLOURS)]

    def legend(self) -> list[Any]:
        """Return matplotlib's handles of its classes."""
        from matplotlib.lines import Line2D

        return [
            Line2D([], [], color=self._colour(i), label=f"box: {name}", linewidth=1.2)
            for i, name in enumerate(self.classes[:_HELD], 1)
        ]


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
