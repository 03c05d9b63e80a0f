"""Quicklooks: what a store holds, at a glance."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

import numpy as np

from sarzarr.errors import InvalidInputError
from sarzarr.export.pictures.chip_sheet import chip_sheet
from sarzarr.export.pictures.overlays import Outlines, check_layer
from sarzarr.export.pictures.panels import Sheet, check_picture, draw_sheet, figure_class
from sarzarr.export.pictures.patch_sheet import patch_sheet
from sarzarr.export.pictures.scene_panels import (
    SceneFrame,
    ScenePanel,
    grey,
    layer_over,
    not_valid,
    pair_of,
    rgb_legend,
)
from sarzarr.export.pictures.stack_sheet import one_stack, stack_sheet
from sarzarr.keywords import shows_options
from sarzarr.patches.stacks.stack import Stack
from sarzarr.store.samples import WHITE, SampleSet, open_samples, sample_sets
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.text import counted, listed, shortened

log = logging.getLogger(__name__)
MAX_PANELS: Final = 24
"""Panels of one page, at most."""
CHIPS: Final = 16
"""Chips of a collection that are drawn where nothing says how many."""


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """The kinds of pictures, and what lies over them."""

    rgb: bool = False
    """Draw VV (or HH), VH (or HV) and their ratio as red, green and blue; scenes without both are left out."""
    patches: int | None = None
    """Draw so many patches, 1 to 64, as `sarzarr.PatchReader` delivers them, shuffled, in the place of scenes."""
    split: str | None = None
    """The side that patches are of: ``train``, ``v2:val``; all if left out."""
    seed: int = 0
    """The seed of the order in which patches are drawn."""
    stack: Stack | str | bool = False
    """Draw dates of a stack, their mean and their coefficient of variation: a `Stack`, the id of any scene of one, or
    True for the only one."""
    layer: str | None = None
    """Draw this layer, half transparent, over scenes or patches that have it; class 0 and no data are left clear."""
    boxes: bool | str = False
    """Draw the table of boxes ``default``, or of that name, over scenes or patches."""
    page: int = 1
    """The page, from 1, where scenes make more than 24 panels."""
    collection: str | None = None
    """Draw chips of this collection, ``patches`` of them, or 16, of the side ``split``, with ``layer`` and ``boxes``
    over them."""

    def __post_init__(self) -> None:
        kinds = [n for n in ("rgb", "patches", "stack") if getattr(self, n) not in (None, False)]
        if len(kinds) > 1:
            raise InvalidInputError(
                f"one of rgb, patches and stack was expected, got {' and '.join(kinds)}. Leave the others out."
            )
        if self.collection is not None and (self.rgb or self.stack):
            raise InvalidInputError(
                "a layer and boxes over chips were expected with collection, got rgb or stack. Leave them out."
            )
        if self.split is not None and self.patches is None and self.collection is None:
            raise InvalidInputError("patches were expected with split, got none. Say how many: patches=16.")
        if self.stack is not False and (self.layer or self.boxes):
            raise InvalidInputError(
                "layers and boxes over scenes or patches were expected, got stack. Leave one out."
            )
        if self.page < 1:
            raise InvalidInputError(f"a page from 1 on was expected, got {self.page}.")


class PictureKeywords(TypedDict, total=False):
    """Fields of `PictureOptions`; ``patches`` is a count, ``page`` is from 1."""

    rgb: bool
    patches: int | None
    split: str | None
    seed: int
    stack: Stack | str | bool
    layer: str | None
    boxes: bool | str
    page: int
    collection: str | None


@shows_options(PictureOptions, PictureKeywords)
def quicklook(
    store: AnyStore, scenes: Sequence[str] | str | None = None, **options: Unpack[PictureKeywords]
) -> Any:
    """Return a `matplotlib.figure.Figure` of scenes, patches or a stack of a store; notebooks show it inline.

    Arrays are drawn in dB over their group's clip, averaged in power to a few hundred pixels, and never read whole.
    They are drawn upright, however their files lie, and each panel says so; a bar has a length on the ground in the
    scene's middle, where its georeference allows one, else there are ticks in pixels. Pixels that are not valid are
    blue, in colour hatched.

    Parameters
    ----------
    store
        A `Store`, or its path.
    scenes
        Ids of scenes, or of sets of samples, which are drawn from black to white with their boxes; all scenes if left
        out, or all samples of a store without scenes.
    **options
        The fields of `PictureOptions`.

    Raises `InvalidInputError` where there is nothing to draw, or options exclude each other; `NotInStoreError` where
    a scene, layer or table is not in the store; `CorruptStoreError` where stored bytes are damaged;
    `MissingExtraError` where matplotlib is not installed.
    """
    return draw_sheet(_sheet(open_store(store), scenes, PictureOptions(**options)))


@shows_options(PictureOptions, PictureKeywords)
def write_quicklook(
    store: AnyStore,
    path: str | Path,
    *,
    scenes: Sequence[str] | str | None = None,
    **options: Unpack[PictureKeywords],
) -> Path:
    """Write the picture that `quicklook` returns, a ``.png`` or what else matplotlib writes, and return its path.

    Parameters
    ----------
    store, scenes
        As of `quicklook`.
    path
        The picture; its folder must be there.
    **options
        The fields of `PictureOptions`.

    Raises as `quicklook`; `InvalidInputError` where its suffix is of no format, or its folder is not there.
    """
    place = Path(path)
    check_picture(figure_class()(), place)  # before anything is read
    figure = quicklook(store, scenes, **options)
    figure.savefig(place)
    log.info("wrote %s", place)
    return place


def count_panels(store: Store, scenes: Sequence[str] | None = None, *, rgb: bool = False) -> int:
    """Return how many panels scenes and samples make; one page shows `MAX_PANELS` of them."""
    return len(_panels(store, scenes, PictureOptions(rgb=rgb))[0])


def _sheet(store: Store, scenes: Sequence[str] | str | None, options: PictureOptions) -> Sheet:
    names = [scenes] if isinstance(scenes, str) else None if scenes is None else list(scenes)
    if options.collection is not None:
        if names:
            raise InvalidInputError(
                f"chips of {options.collection!r} were expected, got {listed(names)}, too. Leave one out."
            )
        return chip_sheet(
            store, options.collection, options.patches or CHIPS,
            split=options.split, seed=options.seed, layer=options.layer, boxes=options.boxes,
        )  # fmt: skip
    if options.patches is not None:
        return patch_sheet(
            store, names, options.patches,
            split=options.split, seed=options.seed, layer=options.layer, boxes=options.boxes,
        )  # fmt: skip
    if options.stack is not False:
        return stack_sheet(store, one_stack(store, options.stack, names))
    return _scene_sheet(store, names, options)


Panel = ScenePanel | Callable[[Any], None]


def _scene_sheet(store: Store, names: Sequence[str] | None, options: PictureOptions) -> Sheet:
    """Return a page of scenes and samples, with what lies over them."""
    every, without = _panels(store, names, options)
    pages = math.ceil(len(every) / MAX_PANELS)
    if options.page > pages:
        raise InvalidInputError(f"a page from 1 to {pages} was expected, got {options.page}.")
    panels = every[(options.page - 1) * MAX_PANELS : options.page * MAX_PANELS]
    of_scenes = [panel for panel in panels if isinstance(panel, ScenePanel)]
    scenes = list(dict.fromkeys(panel.frame.scene for panel in of_scenes))
    legend = rgb_legend(store, of_scenes) if options.rgb else [not_valid()]
    over: dict[str, Any] = {}
    if options.layer is not None:
        check_layer(store, options.layer, scenes)
        over["layer"] = layer_over(store, options.layer, [panel.frame for panel in of_scenes])
    if options.boxes is not False and scenes:
        over["outlines"] = Outlines.of_scenes(store, options.boxes, scenes)
    panels = [replace(p, **over) if isinstance(p, ScenePanel) else p for p in panels]
    legend += [handle for one in over.values() for handle in one.legend()]
    notes = ["dB, each array over its group's clip" if of_scenes and not options.rgb else ""]
    notes += [f"without both polarizations, and left out: {listed(without)}" if without else ""]
    page = f"page {options.page} of {pages}" if pages > 1 else ""
    held = "" if pages == 1 else f"{len(panels)} of {counted(len(every), 'panel')}"
    kind = counted(len(scenes), "scene") if of_scenes else "samples"
    return Sheet(
        panels=panels,
        title=", ".join(filter(None, (f"{store.place.name}: {kind}", held, page))),
        notes="; ".join(filter(None, notes)),
        legend=legend,
        tall=float(np.median([panel.frame.tall for panel in of_scenes] or [0.8])),
        drawn=0.86 if of_scenes and not options.rgb else 1.0,
    )


def _panels(
    store: Store, scenes: Sequence[str] | None, options: PictureOptions
) -> tuple[list[Panel], list[str]]:
    """Return a panel for each array or sample, or in colour for each scene, and the scenes that have no colour."""
    panels: list[Panel] = []
    without: list[str] = []
    sets = sample_sets(store)
    drawn = dict.fromkeys(store.catalog["scene"].values.tolist())  # layers alone are no backscatter
    for name in drawn or sets if scenes is None else scenes:
        if name in sets and name not in store.scenes:
            samples = open_samples(store, name)
            panels += [partial(_draw_sample, samples=samples, sample=i) for i in range(len(samples))]
            continue
        arrays = store.rows(name)["name"].values.tolist()
        pair = pair_of(store, name) if options.rgb else None
        if options.rgb and pair is None:
            without.append(name)
            continue
        frame = SceneFrame.of(store, name)
        for chosen in [pair] if pair else [(array,) for array in arrays]:
            panels.append(ScenePanel(store=store, frame=frame, arrays=chosen))
    if not panels and without:
        raise InvalidInputError(
            f"scenes with VV and VH, or HH and HV, of one quantity were expected, got {listed(without)} without. "
            "Leave out rgb, or ingest them with the names of their polarizations."
        )
    if not panels:
        raise InvalidInputError(
            "at least one scene or sample was expected, got a store without backscatter. Ingest some first."
        )
    return panels, without


def _draw_sample(axis: Any, *, samples: SampleSet, sample: int) -> None:
    """Draw a picture from black to white, and the outlines of its boxes."""
    picture = np.ma.masked_invalid(samples.image(sample))
    rows, cols = picture.shape
    axis.imshow(
        picture, cmap=grey(), vmin=0, vmax=WHITE[samples.layout.dtype], interpolation="nearest",
        extent=(0, cols, rows, 0),
    )  # fmt: skip
    _, labels = samples.target(sample)
    polygons = samples.boxes.polygons[samples.boxes.rows_of(sample)]
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"{shortened(samples.ids[sample])}\n{samples.name}, {rows} x {cols}", fontsize=8)
    Outlines(classes=samples.boxes.classes).draw(axis, polygons, labels)
