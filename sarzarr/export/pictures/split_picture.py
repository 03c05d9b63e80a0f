"""A picture of a split: footprints of cells and blocks of the ground, coloured by membership."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.export.pictures.maps import COLOURS, UNSPLIT, add_legend, draw_map
from sarzarr.export.pictures.regions import MapScene
from sarzarr.splits.assign import WORLD
from sarzarr.store.split_table import SceneCells, Split
from sarzarr.store.store import Store
from sarzarr.text import counted

log = logging.getLogger(__name__)
MAX_PLACES: Final = 5
"""Panels of lattices of pixels, at most; those of scenes in the world come before them."""


def map_scenes(store: Store, split: Split | None) -> list[MapScene]:
    """Return the scenes of a store that have backscatter as a map shows them: (rows, columns) uint8 codes of cells.

    Of a scene that the split does not know on its grid, or without a split, all cells are ``maps.UNSPLIT``.
    """
    known = {} if split is None else split.by_scene
    trained = set(store.catalog["scene"].values.tolist())
    out = []
    for scene, placement in store.placements.items():
        if scene in trained:
            mine = known.get(scene)
            is_known = mine is not None and mine.grid == placement.fingerprint
            codes = (
                mine.codes if mine is not None and is_known else np.full(placement.cells, UNSPLIT, np.uint8)
            )
            out.append(MapScene(placement=placement, codes=codes))
    return out


def write_split_picture(store: Store, split: Split, path: str | Path) -> Path:
    """Draw a split's cells on the ground, a panel a region, and those of each place of pixels apart; return the path.

    `MissingExtraError` where matplotlib is not installed, `InvalidInputError` where no picture can be written there.
    """
    by_place: dict[str, list[SceneCells]] = {}
    for s in split.scenes:
        if s.scene in store.grids:
            by_place.setdefault(s.place, []).append(s)
    mapped = by_place.pop(WORLD, [])
    scenes = [MapScene(placement=store.placements[s.scene], codes=s.codes) for s in mapped]
    places = sorted(by_place)[:MAX_PLACES]
    figure, axes, left_out = draw_map(scenes, recipe=split.recipe, extra=len(places), legend=0.5)
    for axis, place in zip(axes, places, strict=True):
        _draw_pixels(axis, place, by_place[place])
    counts: Counter[int] = Counter()
    for s in split.scenes:
        counts.update(dict(zip(*(v.tolist() for v in np.unique(s.codes, return_counts=True)), strict=True)))
    add_legend(figure, counts)
    figure.suptitle(_title(store, split, left_out), fontsize=10, parse_math=False)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:  # no such folder; no such format
        raise InvalidInputError(
            f"a path that a picture can be written to was expected, got {str(path)!r} "
            f"({getattr(error, 'strerror', None) or error}). Give a .png in a folder that is there."
        ) from None
    log.info("wrote %s", path)
    return Path(path)


def _title(store: Store, split: Split, left_out: str) -> str:
    by = f"by {split.recipe.by}" + (f" in blocks of {' and '.join(split.blocks)}" if split.blocks else "")
    shares = f"{split.val_ratio:.1%} validation, {split.held_back_share:.1%} held back"
    name = Path(store.place.name).stem
    lines = [
        f"{name if len(name) <= 40 else name[:37] + '...'}, split {split.name}: {by}",
        f"seed {split.recipe.seed}; {shares}",
    ]
    return "\n".join([*lines, *([left_out] if left_out else [])])


def _draw_pixels(axis: Any, place: str, scenes: list[SceneCells]) -> None:
    """Draw the lattice of pixels that scenes share; where they share none, the first of them."""
    from matplotlib.colors import ListedColormap

    colours = ListedColormap([COLOURS[m] for m in cv.Membership])
    axis.imshow(
        scenes[0].codes, interpolation="nearest", cmap=colours, vmin=-0.5, vmax=len(cv.Membership) - 0.5
    )
    axis.set_xlabel("cells", fontsize=8)
    axis.tick_params(labelsize=7, length=2)
    axis.set_title(f"{place}: {counted(len(scenes), 'scene')}", fontsize=9, parse_math=False)
