"""The report of a store as one HTML file, written scene by scene, whole or not at all."""

import logging
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from sarzarr.errors import CorruptStoreError, InvalidInputError
from sarzarr.export.pictures.maps import COLOURS, NAMES
from sarzarr.export.pictures.panels import new_figure
from sarzarr.export.pictures.split_picture import map_scenes
from sarzarr.export.report.facts import (
    SceneFacts,
    group_histograms,
    overview,
    patch_rows,
    scene_facts,
    share_of,
    sizes,
)
from sarzarr.export.report.pictures import bytes_each, histogram_svg, map_svgs, scene_picture, side_of
from sarzarr.files import whole_file
from sarzarr.splits.versions import utc_now
from sarzarr.store.split_table import Split, read_split, versions
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.store.verify.findings import Verification
from sarzarr.tasks import Progress
from sarzarr.text import counted, size_text

log = logging.getLogger(__name__)
SUFFIXES: Final = (".html", ".htm")
MAX_FINDINGS: Final = 200
"""Findings that are listed, at most."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report that was written."""

    path: Path
    """The HTML file."""
    size: int
    """Its bytes."""
    scenes: int
    """Scenes that it shows."""
    damage: tuple[str, ...] = field(default=())
    """What could not be read, a sentence each; the page says it, too."""

    def __str__(self) -> str:
        held = f"{counted(self.scenes, 'scene')}, {size_text(self.size)}"
        return "\n".join([f"wrote {self.path} ({held})", *self.damage])


def write_report(
    store: AnyStore,
    path: str | Path,
    *,
    verification: Verification | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Write what is in a store as one HTML file, and return what was written; scene by scene, in bounded memory.

    It holds everything that it shows, and asks no network: pictures of every array in dB over its group's clip,
    facts, histograms in dB, shares of pixels beyond the clip, patches, a map, and sizes. Pictures have 12 MB
    of it together at most, down to 1.5 kB each. Beside one scene at a time, patch indices, and the newest split, are
    in memory, as readers have them.

    Parameters
    ----------
    store
        The store.
    path
        The file, ``.html``. It is replaced, whole or not at all.
    verification
        What `sarzarr.verify` found, to be shown. Without it the page says that it was not run: it reads every byte.
    progress
        Called with the scenes that are done.

    Raises `InvalidInputError` where ``path`` is no such file in a folder that is there; `MissingExtraError` where
    matplotlib is not installed; `CorruptStoreError` where what tells of all scenes is damaged. Of a scene, damage is
    told in the page, and in the `Report`.
    """
    place = Path(path)
    if place.suffix.lower() not in SUFFIXES or not place.parent.is_dir():
        raise InvalidInputError(
            f"a file such as NAME.html in a folder that is there was expected, got {str(place)!r}. "
            "Name one, or make its folder first."
        )
    new_figure((1, 1), dpi=72)  # says that matplotlib is missing before anything is read
    opened = open_store(store)
    split = read_split(opened.place) if versions(opened.place) else None
    scenes = list(scene_facts(opened, split))
    limit = bytes_each(sum(len(s.arrays) for s in scenes))
    page = (
        _environment()
        .get_template("report.html")
        .generate(
            **_about(opened, split, verification),
            scenes=scenes,
            cards=_cards(opened, scenes, progress, limit),
            card_width=min(max(side_of(limit) / 14, 9.5), 18),
        )
    )
    with whole_file(place) as partial, partial.open("w", encoding="utf-8") as out:
        out.writelines(page)
    damage = tuple(dict.fromkeys(line for scene in scenes for line in scene.damage))
    log.info("wrote %s", place)
    return Report(path=place, size=place.stat().st_size, scenes=len(scenes), damage=damage)


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("sarzarr.export.report")
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"percent": _percent, "db": _db, "size": size_text}
    script, _, _ = loader.get_source(made, "table.js")
    made.globals["script_hash"] = b64encode(sha256(script.encode()).digest()).decode()
    made.globals["script"] = script
    return made


def _percent(share: float) -> str:
    """Return a share for people: whole and none are told apart from nearly so.

    >>> [_percent(share) for share in (0, 0.00001, 0.0123, 0.99999, 1.0, float("nan"))]
    ['0 %', '< 0.01 %', '1.23 %', '> 99.99 %', '100 %', '-']
    """
    if share != share:
        return "-"
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    return "< 0.01 %" if share < 1e-4 else "> 99.99 %" if share > 0.9999 else f"{100 * share:.2f} %"


def _db(value: float) -> str:
    return "-" if value != value else f"{value:.2f}"


def _about(store: Store, split: Split | None, verification: Verification | None) -> dict[str, Any]:
    """Return what the page says of the store as a whole."""
    by_room = sizes(store.place)
    maps, left_out = map_svgs(map_scenes(store, split), split.recipe if split else None, 1)
    split_text = ""
    if split is not None:
        blocks = f" in blocks of {' and '.join(split.blocks)}" if split.blocks else ""
        split_text = (
            f"Split {split.name}, by {split.recipe.by}{blocks}, seed {split.recipe.seed}: "
            f"{split.val_ratio:.1%} of the cells that are used are validation, {split.held_back_share:.1%} of all "
            "are held back."
        )
    return {
        "name": store.place.name,
        "made": utc_now(),
        "version": version("sarzarr"),
        "overview": overview(store, by_room),
        "groups": _groups(store, number=100),
        "maps": [_safe(svg) for svg in maps],
        "left_out": left_out,
        "split_text": split_text,
        "legend": [
            (colour, NAMES[code]) for code, colour in COLOURS.items() if (code == 4) != (split is not None)
        ],
        "indices": [(name, *patch_rows(store, name, split)) for name in store.patch_indices],
        "verification": verification,
        "most": MAX_FINDINGS,
    }


def _safe(svg: str) -> Any:
    """Return SVG that matplotlib made, and escaped, as a template takes it."""
    from markupsafe import Markup

    return Markup(svg)


def _groups(store: Store, number: int) -> Iterator[dict[str, Any]]:
    for n, (key, arrays, histogram) in enumerate(group_histograms(store)):
        bounds = store.bounds[key]
        yield {
            "key": key,
            "arrays": arrays,
            "bounds": bounds,
            "share": share_of(histogram, bounds),
            "histogram": histogram,
            "svg": _safe(histogram_svg(histogram, bounds, key, number + n)),
        }


def _cards(
    store: Store, scenes: list[SceneFacts], progress: Callable[[Progress], None] | None, limit: int
) -> Iterator[tuple[SceneFacts, list[Any]]]:
    """Yield each scene with pictures of its arrays, ``limit`` bytes each; what is damaged is told by the scene."""
    for done, scene in enumerate(scenes, 1):
        pictures = []
        for array in scene.arrays:
            try:
                pictures.append((array, scene_picture(store, scene.scene, array.name, limit=limit)))
            except CorruptStoreError as error:
                scene.damage.append(str(error))
        yield scene, pictures
        if progress is not None:
            progress(Progress(done, len(scenes), scene.scene))
