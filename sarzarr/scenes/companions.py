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
_ByName = dict[tuple[Any, ...], dict[str, SceneProbe]]
"""Scenes by id, by their folder and by one of the names that they have in it."""
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


@dataclass(frozen=True, kw_only=True)
class _Near:
    """A companion, and the scenes of its folder that it may be of."""

    probe: RasterProbe
    """What was found in its file."""
    content: Content
    """What it is."""
    found: Found | None
    """What its name says; None for a name of no known product."""
    scenes: tuple[SceneProbe, ...]
    """Those of its name, or where there are none those of no other name."""
    is_named: bool
    """Whether the scenes are those of its name."""

    @property
    def is_static(self) -> bool:
        """Whether its name says that it is of every date."""
        return self.found is not None and self.found.is_static

    def left_out(self, why: str = "") -> str:
        """Return the sentence for a companion that is no layer, with an end that says why."""
        return f"{self.probe.path.name} is left out, since it is {self.content.companion}{why}."


def companions_of(
    probes: Iterable[RasterProbe], scenes: Sequence[SceneProbe], refused: Refusals, notes: list[str]
) -> dict[str, tuple[Companion, ...]]:
    """Return the companions that are layers of scenes, by scene id; a sentence for each other one.

    A companion is of the scene that its name is of, else of the only one in its folder, and is its layer where it
    lies on the very grid, (rows, columns), of its files, and where neither tells another date than the other. One
    without any scene in its folder is refused.
    """
    layers: dict[str, tuple[Companion, ...]] = {}
    near, given = [], list(probes)
    by_name = _by_name(scenes) if given else {}
    for probe in given:
        if one := _near(probe, by_name):
            near.append(one)
        else:
            refused.add([probe.path], str(probe.refusal))
    for one in sorted(near, key=lambda one: (not one.is_named, one.is_static)):
        own = _own_scenes(one)
        companion = own if isinstance(own, str) else _as_layer(one)
        if isinstance(own, str) or isinstance(companion, str):
            notes.append(str(companion))
            continue
        for scene in own:
            taken = layers.get(scene.id, ())
            if one.content.layer in {other.content.layer for other in taken}:
                name = one.probe.path.name
                notes.append(f"{name} is left out, since {scene.id!r} has a layer {one.content.layer!r}.")
            else:
                layers[scene.id] = (*taken, companion)
    return layers


def _near(probe: RasterProbe, by_name: _ByName) -> _Near | None:
    """Return a companion with the scenes that it may be of; None where no scene is in its folder."""
    found, folder = content_of(probe.path), _folder(probe.path)
    around = by_name.get((folder,), {})
    if probe.companion is None or not around:
        return None
    named: dict[str, SceneProbe] = {}
    for name in _names_sought(probe.path, found):
        named |= by_name.get((folder, *name), {})
    others = by_name.get((folder, "product", found.product), {}) if found else {}
    scenes = named or {key: scene for key, scene in around.items() if key not in others}
    return _Near(
        probe=probe,
        content=probe.companion,
        found=found,
        scenes=tuple(scenes.values()),
        is_named=bool(named),
    )


def _own_scenes(one: _Near) -> list[SceneProbe] | str:
    """Return the scenes of which a companion is a layer, else the sentence that says why it is of none."""
    when, of_all_dates = one.probe.acquisition.datetime, one.is_static or one.content.layer == "dem"
    own = [s for s in one.scenes if of_all_dates or _is_of_date(when, s.acquisition.datetime)]
    if not own and not one.scenes:
        return one.left_out(" of another scene")
    if not own:
        dates = listed(dict.fromkeys(str(s.acquisition.datetime) for s in one.scenes), most=3)
        return one.left_out(f" of {when}, and no scene of {dates}")
    if one.content.layer is None or len(one.probe.arrays) > 1:
        return one.left_out()
    grid, gcps = one.probe.grid, one.probe.georeference.gcps
    on_grid = [s for s in own if s.grid == grid and s.georeference.gcps == gcps]
    if not on_grid:
        return one.left_out(f" on another grid than {own[0].id!r}; --layer brings it there")
    if len(own) > 1 and not (one.is_named and one.found and len(on_grid) == len(own)):
        return one.left_out(" that could be of several scenes; --layer says of which")
    return on_grid


def _is_of_date(when: str | None, other: str | None) -> bool:
    """Whether two times, UTC, may be of one pass; so they may where one is not known."""
    return when is None or other is None or is_one_pass(when, other)


def _folder(path: Path) -> Path:
    return path.parent.parent if path.parent.name.lower() in _PARTS else path.parent


def _by_name(scenes: Iterable[SceneProbe]) -> _ByName:
    """Return the scenes, by id, that have files in a folder, and in it under each of their names."""
    found: _ByName = {}
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


def _as_layer(one: _Near) -> Companion | str:
    """Return a companion with its unit and fill known, else the sentence that says why they are not.

    Values that stand for nothing though no tag declares them are looked for in a sample. An angle that nowhere
    exceeds 1.6 is in radians; one of which most is from 5 to 90 is in degrees; of another, as of degrees times 100,
    nothing is sure, nor of whole numbers that a product's name says to be radians.
    """
    path, content = one.probe.path, one.content
    header = read_header(path)
    is_real = header.dtype.kind == "f"
    if content.kind != "continuous":
        return Companion(path=path, content=content)
    sample = sample_band(path, header, 1, nodata=header.nodata, is_told=False)
    windows = [window[np.isfinite(window) & (window != 0)] for window in sample.windows]
    pixels = np.concatenate([*windows, np.empty(0)])
    is_untold, most = content.factor != content.factor, pixels.max(initial=0)
    is_radians = is_real and most <= _STEEPEST and pixels.min(initial=1) > 0
    is_degrees = pixels.size and pixels.min() >= 0 and 5 <= np.median(pixels) <= 90 and most <= 180
    if is_untold and not (is_radians or is_degrees):
        return one.left_out(" neither in degrees nor in radians; --layer keeps it as it is")
    if content.factor == TO_DEGREES and not is_real:
        return one.left_out(" in whole numbers, which radians are not; --layer keeps it as it is")
    highest = _STEEPEST if is_untold and is_radians else 180.0 if content.units == "degree" else np.inf
    found = [fill.value for fill in sample.fills]
    fills = [value for value in found if value in _FILLS or value < LOWEST or value > highest]
    if len(fills) > 1 or (fills and header.nodata is not None):
        values = " and ".join(map(nodata_text, fills))
        return one.left_out(f" with {values} in it, which no tag declares; --layer says its nodata")
    if is_untold:
        content = replace(content, factor=TO_DEGREES if is_radians and pixels.size else 1.0)
    return Companion(path=path, content=content, nodata=fills[0] if fills else None)
