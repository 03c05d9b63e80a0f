"""Companions: the rasters that a product delivers beside its backscatter, and the scenes that they belong to."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from sarzarr.rasters import read_window
from sarzarr.scenes.acquisition import is_one_pass
from sarzarr.scenes.header import read_header, sample_places
from sarzarr.scenes.probe import RasterProbe
from sarzarr.scenes.products.rasters import TO_DEGREES, Content, content_of
from sarzarr.scenes.refusals import Refusals
from sarzarr.scenes.scene import SceneProbe
from sarzarr.scenes.words import not_backscatter_in, polarizations_in, quantity_in, representation_in
from sarzarr.text import listed

_PARTS: Final = ("measurement", "annotation", "support", "imagery", "imagedata")
"""Folders of a product; what lies in two of them lies together."""
_STEEPEST: Final = 1.6
"""An angle of incidence up to which a whole raster is in radians: 90 degrees are 1.57."""


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A raster that is to be a layer of a scene."""

    path: Path
    """Its file."""
    content: Content
    """The layer that it is, its unit known."""


def companions_of(
    probes: Iterable[RasterProbe], scenes: Sequence[SceneProbe], refused: Refusals, notes: list[str]
) -> dict[str, tuple[Companion, ...]]:
    """Return the companions that are layers of scenes, by scene id; a sentence for each other one.

    A companion is of the scene that its name is of, else of the only one in its folder, and is its layer where it
    lies on the very grid, (rows, columns), of its files, and where neither tells another date than the other. One
    without any scene in its folder is refused.
    """
    layers: dict[str, tuple[Companion, ...]] = {}
    near: list[tuple[RasterProbe, list[SceneProbe], bool]] = []
    for probe in probes:
        around = [s for s in scenes if any(_folder(f.path) == _folder(probe.path) for f in s.files)]
        if probe.companion is None or not around:
            refused.add([probe.path], str(probe.refusal))
            continue
        named = [s for s in around if any(_is_of(probe.path, f.path) for f in s.files)]
        others = [s for s in around if not any(_is_other(probe.path, f.path) for f in s.files)]
        near.append((probe, named or others, bool(named)))
    for probe, candidates, is_named in sorted(near, key=lambda one: (not one[2], _is_static(one[0].path))):
        content = probe.companion or Content()
        own = [scene for scene in candidates if _is_of_its_date(probe, scene)]
        if not own:
            notes.append(_of_another(probe, content, candidates))
            continue
        on_grid = [s for s in own if s.grid == probe.grid and s.georeference.gcps == probe.georeference.gcps]
        is_shared = is_named and content_of(probe.path) is not None and len(on_grid) == len(own)
        if content.layer is None or not on_grid or (len(own) > 1 and not is_shared) or len(probe.arrays) > 1:
            why = "" if content.layer is None else _why(own, on_grid)
            notes.append(f"{probe.path.name} is left out, since it is {content.companion}{why}.")
            continue
        companion = Companion(path=probe.path, content=_in_degrees(probe.path, content))
        for scene in on_grid:
            taken = {other.content.layer for other in layers.get(scene.id, ())}
            if content.layer in taken:
                notes.append(
                    f"{probe.path.name} is left out, since {scene.id!r} has a layer {content.layer!r}."
                )
            else:
                layers[scene.id] = (*layers.get(scene.id, ()), companion)
    return layers


def _why(own: Sequence[SceneProbe], on_grid: Sequence[SceneProbe]) -> str:
    if not on_grid:
        return f" on another grid than {own[0].id!r}; --layer brings it there"
    return " that could be of several scenes; --layer says of which"


def _folder(path: Path) -> Path:
    return path.parent.parent if path.parent.name.lower() in _PARTS else path.parent


def _is_static(path: Path) -> bool:
    found = content_of(path)
    return found is not None and found.is_static


def _is_of_its_date(probe: RasterProbe, scene: SceneProbe) -> bool:
    """Whether a companion may be of a scene by their times; an elevation and what is static are of every date."""
    when, other = probe.acquisition.datetime, scene.acquisition.datetime
    is_dated = not (_is_static(probe.path) or (probe.companion and probe.companion.layer == "dem"))
    return when is None or other is None or not is_dated or is_one_pass(when, other)


def _of_another(probe: RasterProbe, content: Content, scenes: Sequence[SceneProbe]) -> str:
    """Return the sentence for a companion that is of another product or date than all scenes around it."""
    what = f"{probe.path.name} is left out, since it is {content.companion}"
    dates = listed(dict.fromkeys(str(scene.acquisition.datetime) for scene in scenes), most=3)
    return (
        f"{what} of {probe.acquisition.datetime}, and no scene of {dates}."
        if scenes
        else f"{what} of another scene."
    )


def _is_of(companion: Path, file: Path) -> bool:
    """Whether a companion's name is of the product that a file's is."""
    one, other = content_of(companion), content_of(file)
    if one is not None and other is not None:
        return one.place == other.place if one.is_static else one.subject == other.subject
    return _subject(companion.stem) == _subject(file.stem)


def _is_other(companion: Path, file: Path) -> bool:
    """Whether names of one product tell that a companion is not of a file."""
    one, other = content_of(companion), content_of(file)
    return (
        one is not None and other is not None and one.product == other.product and not _is_of(companion, file)
    )


def _subject(stem: str) -> tuple[str, ...]:
    """Return the words of a stem that say what it is of: no polarization, quantity or kind of raster."""
    words = re.split(r"[^A-Za-z0-9]+", stem)
    said = (polarizations_in, quantity_in, representation_in, not_backscatter_in)
    return tuple(word.lower() for word in words if word and not any(says(word) for says in said))


def _in_degrees(path: Path, content: Content) -> Content:
    """Return the content of an angle with its factor known: a raster that nowhere exceeds 1.6 is in radians."""
    if content.factor == content.factor:
        return content
    header = read_header(path)
    windows = [read_window(path, **asdict(place)) for place in sample_places(header, bands=[1])]
    pixels = np.concatenate([window[np.isfinite(window)].ravel() for window in windows] or [np.empty(0)])
    pixels = pixels[pixels != header.nodata] if header.nodata is not None else pixels
    is_radians = pixels.size > 0 and header.dtype.kind == "f" and pixels.max() <= _STEEPEST
    return replace(content, factor=TO_DEGREES if is_radians else 1.0)
