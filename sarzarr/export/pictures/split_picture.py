"""A picture of a split: footprints of cells and blocks of the ground, coloured by membership."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.export.pictures.panels import empty_panels
from sarzarr.grids.crs import LONLAT, crs_wkt, turned
from sarzarr.grids.footprint import Footprint
from sarzarr.splits.assign import WORLD, Grounds
from sarzarr.splits.versions import grounds_of
from sarzarr.store.split_table import SceneCells, Split
from sarzarr.store.store import Store
from sarzarr.text import counted

log = logging.getLogger(__name__)
COLOURS: Final = {
    cv.Membership.HELD_BACK: "#c9ccd1",
    cv.Membership.TRAIN: "#2a7f9e",
    cv.Membership.VAL: "#e08b27",
    cv.Membership.TEST: "#8a3b8f",
}
"""Of cells; blocks have the same, paler."""
PANEL: Final = 5.0
"""Inches of a panel's height."""
MAX_BLOCKS: Final = 20_000
"""Blocks that are drawn behind the cells; more would be finer than a pixel of the picture."""
EDGED_CELL: Final = 6.0
"""Points of a cell's side in the picture from which on a white edge is drawn about it."""
MAX_PANELS: Final = 6
"""Panels of one picture: one for the world, one for each place of pixels."""


def write_split_picture(store: Store, split: Split, path: str | Path) -> Path:
    """Draw a split's cells on the ground, in degrees, those of each place of pixels apart; return the path.

    `MissingExtraError` where matplotlib is not installed, `InvalidInputError` where no picture can be written there.
    """
    grounds = grounds_of(store, known=split)
    by_place: dict[str, list[SceneCells]] = {}
    for s in split.scenes:
        if s.scene in grounds.by_id:
            by_place.setdefault(s.place, []).append(s)
    places = sorted(by_place, key=lambda p: (p != WORLD, p))[:MAX_PANELS]
    figure, axes = empty_panels(len(places), across=3, inches=(7.0, PANEL), legend=0.8, dpi=120)
    for axis, place in zip(axes, places, strict=True):
        if place == WORLD:
            _draw_world(axis, grounds, split, by_place[place])
        else:
            _draw_pixels(axis, place, by_place[place])
    figure.legend(handles=_legend(split), loc="outside lower center", ncols=4, frameon=False)
    by = f"by {split.recipe.by}" + (f" in blocks of {' and '.join(split.blocks)}" if split.blocks else "")
    shares = f"{split.val_ratio:.1%} validation, {split.held_back_share:.1%} held back"
    title = f"{Path(store.place.name).stem}, split {split.name}: {by}, seed {split.recipe.seed}; {shares}"
    figure.suptitle(title, fontsize=11)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:  # no such folder; no such format
        raise InvalidInputError(
            f"a path that a picture can be written to was expected, got {str(path)!r} "
            f"({getattr(error, 'strerror', None) or error}). Give a .png in a folder that is there."
        ) from None
    log.info("wrote %s", path)
    return Path(path)


def _legend(split: Split) -> list[Any]:
    from matplotlib.patches import Patch

    return [
        Patch(color=colour, label=f"{name.replace('_', ' ')}: {counted(split.counts[name], 'cell')}")
        for name, colour in ((m.name.lower(), colour) for m, colour in COLOURS.items())
    ]


def _colours() -> dict[str, Any]:
    from matplotlib.colors import ListedColormap

    return {"cmap": ListedColormap(list(COLOURS.values())), "vmin": -0.5, "vmax": len(COLOURS) - 0.5}


def _draw_world(axis: Any, grounds: Grounds, split: Split, scenes: Sequence[SceneCells]) -> None:
    """Draw blocks, and on them the cells of every scene; acquisitions on one grid once."""
    kept = list({s.grid: s for s in scenes}.values())
    footprints = _in_one_turn([grounds.footprint(grounds.by_id[s.scene]) for s in kept])
    corners = np.concatenate([np.stack([f.lon, f.lat], axis=-1).reshape(-1, 2) for f in footprints])
    corners = corners[np.isfinite(corners).all(axis=1)]
    (west, south), (east, north) = corners.min(axis=0), corners.max(axis=0)
    if split.recipe.by == "ground":
        _draw_blocks(axis, split, (west, east, south, north))
    edge = _edge_of(footprints, max(east - west, north - south))
    for side in COLOURS:  # what is rare comes last, and stays on top
        for s, f in zip(kept, footprints, strict=True):
            if np.isfinite(f.lon).all() and np.ptp(f.lon) < 180 and (s.codes == side).any():
                mine = np.ma.masked_where(s.codes != side, s.codes)
                axis.pcolormesh(f.lon, f.lat, mine, zorder=2 + side, **edge, **_colours())
    stretch = 1 / max(math.cos(math.radians((south + north) / 2)), 0.05)
    axis.set(aspect=stretch, xlabel="longitude", ylabel="latitude")
    axis.set_title(f"{counted(len(scenes), 'scene')} on {counted(len(kept), 'grid')}", fontsize=10)


def _in_one_turn(footprints: Sequence[Footprint]) -> list[Footprint]:
    """Return footprints whose longitudes lie about the first one's: across 180 degrees they go on."""
    first = next((f.lon[0, 0] for f in footprints if np.isfinite(f.lon[0, 0])), 0.0)
    return [replace(f, lon=turned(crs_wkt(LONLAT), f.lon, near=float(first))) for f in footprints]


def _edge_of(footprints: Sequence[Footprint], span: float) -> dict[str, Any]:
    """Return the edges of cells: white where they are large in a picture of ``span`` degrees.

    Others have a hairline of their own colour, so that a scene of a few pixels of the picture does not vanish.
    """
    sides = [np.ptp(f.lat[:, 0]) / max(len(f.lat) - 1, 1) for f in footprints]
    points = PANEL * 72 * float(np.nanmedian(sides)) / max(span, 1e-9)
    colour, width = ("white", 0.4) if points >= EDGED_CELL else ("face", 0.6)
    return {"edgecolors": colour, "linewidth": width}


def _draw_blocks(axis: Any, split: Split, area: tuple[float, float, float, float]) -> None:
    from matplotlib.collections import PolyCollection

    lattice = split.recipe.lattice
    west, east, south, north = area
    lowest, highest = lattice.band_of(np.array([south, north])).tolist()
    bands = np.arange(lowest, highest + 1)
    wide = 360 / lattice.columns(bands)
    first, last = np.floor((west + 180) / wide).astype(int), np.floor((east + 180) / wide).astype(int)
    if (last - first + 1).sum() > MAX_BLOCKS:
        return
    band = np.repeat(bands, last - first + 1)
    column = np.concatenate([np.arange(a, b + 1) for a, b in zip(first, last, strict=True)])
    codes = split.recipe.draw(lattice.ids(band, column % lattice.columns(band)))
    e = lattice.bounds_of(band, column)
    corners = ((e.west, e.south), (e.east, e.south), (e.east, e.north), (e.west, e.north))
    rings: Any = np.stack([np.stack(c, axis=-1) for c in corners], axis=1)
    axis.add_collection(
        PolyCollection(
            rings,
            facecolors=[COLOURS[cv.Membership(int(c))] for c in codes],
            edgecolors="white",
            linewidths=0.8,
            alpha=0.25,
        )
    )


def _draw_pixels(axis: Any, place: str, scenes: Sequence[SceneCells]) -> None:
    """Draw the lattice of pixels that scenes share; where they share none, the first of them."""
    axis.imshow(scenes[0].codes, interpolation="nearest", **_colours())
    axis.set_xlabel("cells")
    axis.set_title(f"{place}: {counted(len(scenes), 'scene')}", fontsize=10)
