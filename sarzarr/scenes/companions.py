"""Companions: the rasters that a product delivers beside its backscatter, and the scenes that they belong to."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr.scenes.acquisition import is_one_pass
from sarzarr.scenes.header import read_header
from sarzarr.scenes.measured import LOWEST, sample_band
from sarzarr.scenes.probe import RasterProbe
from sarzarr.scenes.products.rasters import TO_DEGREES, Content, Found, content_of
from sarzarr.scenes.refusals import Refusals
from sarzarr.scenes.scene import SceneProbe
from sarzarr.scenes.words import not_backscatter_in, polarizations_in, quantity_in, representation_in
from sarzarr.text import listed, nodata_text

_PARTS: Final = ("measurement", "annotation", "support", "imagery", "imagedata")
"""Folders of a product; what lies in two of them lies together."""
_FILLS: Final = (-9999.0, -999.0, -32768.0)
"""Values that stand for nothing in fields; -99 is the height of some places."""
_STEEPEST: Final = 1.6
"""An angle of incidence up to which a whole raster is in radians: 90 degrees are 1.57."""


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A raster that is to be a layer of a scene."""

    path: Path
    """Its file."""
    content: Content
    """The layer that it is, its unit known."""
    nodata: float | None = None
    """A value that stands for nothing though no tag declares it; None where there is none."""


def companions_of(
    probes: Iterable[RasterProbe], scenes: Sequence[SceneProbe], refused: Refusals, notes: list[str]
) -> dict[str, tuple[Companion, ...]]:
    """Return the companions that are layers of scenes, by scene id; a sentence for each other one.

    A companion is of the scene that its name is of, else of the only one in its folder, and is its layer where it
    lies on the very grid, (rows, columns), of its files, and where neither tells another date than the other. One
    without any scene in its folder is refused.
    """
    layers: dict[str, tuple[Companion, ...]] = {}
    near: list[tuple[RasterProbe, list[SceneProbe], bool, Found | None]] = []
    by_name = _by_name(scenes)
    for probe in probes:
        found, folder = content_of(probe.path), _folder(probe.path)
        around = by_name.get((folder,), {})
        if probe.companion is None or not around:
            refused.add([probe.path], str(probe.refusal))
            continue
        named: dict[str, SceneProbe] = {}
        for name in _names_sought(probe.path, found):
            named |= by_name.get((folder, *name), {})
        others = by_name.get((folder, "product", found.product), {}) if found else {}
        candidates = named or {key: scene for key, scene in around.items() if key not in others}
        near.append((probe, list(candidates.values()), bool(named), found))
    near.sort(key=lambda one: (not one[2], one[3] is not None and one[3].is_static))
    for probe, candidates, is_named, found in near:
        content = probe.companion or Content()
        is_dated = content.layer != "dem" and not (found and found.is_static)
        own = [scene for scene in candidates if not is_dated or _is_of_its_date(probe, scene)]
        if not own:
            notes.append(_of_another(probe, content, candidates))
            continue
        on_grid = [s for s in own if s.grid == probe.grid and s.georeference.gcps == probe.georeference.gcps]
        is_shared = is_named and found is not None and len(on_grid) == len(own)
        if content.layer is None or not on_grid or (len(own) > 1 and not is_shared) or len(probe.arrays) > 1:
            why = "" if content.layer is None else _why(own, on_grid)
            notes.append(f"{probe.path.name} is left out, since it is {content.companion}{why}.")
            continue
        companion = _as_layer(probe.path, content)
        if isinstance(companion, str):
            notes.append(f"{probe.path.name} is left out, since it is {content.companion}{companion}.")
            continue
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


def _is_of_its_date(probe: RasterProbe, scene: SceneProbe) -> bool:
    """Whether a companion may be of a scene by their times."""
    when, other = probe.acquisition.datetime, scene.acquisition.datetime
    return when is None or other is None or is_one_pass(when, other)


def _of_another(probe: RasterProbe, content: Content, scenes: Sequence[SceneProbe]) -> str:
    """Return the sentence for a companion that is of another product or date than all scenes around it."""
    what = f"{probe.path.name} is left out, since it is {content.companion}"
    dates = listed(dict.fromkeys(str(scene.acquisition.datetime) for scene in scenes), most=3)
    return (
        f"{what} of {probe.acquisition.datetime}, and no scene of {dates}."
        if scenes
        else f"{what} of another scene."
    )


def _by_name(scenes: Iterable[SceneProbe]) -> dict[tuple[Any, ...], dict[str, SceneProbe]]:
    """Return the scenes, by id, that have files in a folder, and in it under each of their names."""
    found: dict[tuple[Any, ...], dict[str, SceneProbe]] = {}
    for scene in scenes:
        names = {name for file in scene.files for name in _names(file.path)}
        for folder in {_folder(file.path) for file in scene.files}:
            for name in names:
                found.setdefault((folder, *name), {})[scene.id] = scene
    return found


def _names(path: Path) -> Iterator[tuple[Any, ...]]:
    """Yield the names under which a scene's file is sought."""
    found = content_of(path)
    yield ()
    yield "words", found is None, _subject(path.stem)
    if found is not None:
        yield from (("product", found.product), ("subject", found.subject), ("place", found.place))


def _names_sought(path: Path, found: Found | None) -> Iterator[tuple[Any, ...]]:
    """Yield the names of the files that a companion is of: by the product, or by words where one of both has none."""
    yield "words", True, _subject(path.stem)
    if found is None:
        yield "words", False, _subject(path.stem)
    else:
        yield ("place", found.place) if found.is_static else ("subject", found.subject)


def _subject(stem: str) -> tuple[str, ...]:
    """Return the words of a stem that say what it is of: no polarization, quantity or kind of raster."""
    words = re.split(r"[^A-Za-z0-9]+", stem)
    said = (polarizations_in, quantity_in, representation_in, not_backscatter_in)
    return tuple(word.lower() for word in words if word and not any(says(word) for says in said))


def _as_layer(path: Path, content: Content) -> Companion | str:
    """Return a companion with its unit and fill known, else why they are not, to end a sentence.

    Values that stand for nothing though no tag declares them are looked for in a sample. An angle that nowhere
    exceeds 1.6 is in radians; one of which most is from 5 to 90 is in degrees; of another, as of degrees times 100,
    nothing is sure.
    """
    header = read_header(path)
    if content.kind != "continuous":
        return Companion(path=path, content=content)
    sample = sample_band(path, header, 1, nodata=header.nodata, is_told=False)
    windows = [window[np.isfinite(window) & (window != 0)] for window in sample.windows]
    pixels = np.concatenate([*windows, np.empty(0)])
    is_untold, most = content.factor != content.factor, pixels.max(initial=0)
    is_radians = header.dtype.kind == "f" and most <= _STEEPEST and pixels.min(initial=1) > 0
    highest = _STEEPEST if is_untold and is_radians else 180.0 if content.units == "degree" else np.inf
    found = [fill.value for fill in sample.fills]
    fills = [value for value in found if value in _FILLS or value < LOWEST or value > highest]
    if len(fills) > 1 or (fills and header.nodata is not None):
        return f" with {' and '.join(map(nodata_text, fills))} in it, which no tag declares; --layer says its nodata"
    nodata = fills[0] if fills else None
    if (
        is_untold
        and not is_radians
        and not (pixels.min() >= 0 and 5 <= np.median(pixels) <= 90 and most <= 180)
    ):
        return " neither in degrees nor in radians; --layer keeps it as it is"
    if is_untold:
        content = replace(content, factor=TO_DEGREES if is_radians and pixels.size else 1.0)
    return Companion(path=path, content=content, nodata=nodata)
