"""Membership of cells, from the ground that scenes lie on; and the check that no ground is on two sides.

Scenes without a place in the world share a lattice of pixels where their shapes are equal, or stand apart where
their sites are named; where neither can be known, a split is refused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, SplitLeakError
from sarzarr.grids.footprint import Footprint, footprint_of
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.world import Extents, judge, touched_ids, unit_ids
from sarzarr.splits.overlap import TOUCH, Cells, shared_ground, touching
from sarzarr.store.split_table import Recipe, SceneCells
from sarzarr.text import counted

WORLD: Final = "world"
"""The place of scenes that longitude and latitude tell apart."""


@dataclass(frozen=True, kw_only=True)
class SceneGround:
    """A scene, as a split sees it."""

    scene: str
    """Its id."""
    placement: Georeference
    """How its pixels are tied to the ground."""
    site: str = ""
    """The name of its site, where it has one."""


@dataclass(frozen=True, eq=False)
class Grounds:
    """Scenes with their places on the ground, in degrees; the footprints of equal placements are made once."""

    scenes: tuple[SceneGround, ...]
    """Sorted by id."""
    _footprints: dict[str, Footprint] = field(default_factory=dict, init=False, repr=False)

    def __repr__(self) -> str:
        return f"<Grounds: {counted(len(self.scenes), 'scene')}>"

    @cached_property
    def by_id(self) -> Mapping[str, SceneGround]:
        """Its scenes by id."""
        return {g.scene: g for g in self.scenes}

    def footprint(self, ground: SceneGround) -> Footprint:
        """Return where the cells of a located scene lie, in degrees."""
        key = ground.placement.fingerprint
        if key not in self._footprints:
            self._footprints[key] = footprint_of(ground.placement)
        return self._footprints[key]

    def guarded(self, ground: SceneGround, recipe: Recipe) -> Extents:
        """Return the extents (cells,) of a located scene's cells in degrees, with the margin of a recipe."""
        return self.footprint(ground).guarded(recipe.guard)

    @cached_property
    def places(self) -> Mapping[str, str]:
        """The lattice of each scene's cells, world or pixels; `InvalidInputError` where shared ground is unknown."""
        adrift = [g for g in self.scenes if not g.placement.is_located and not g.site]
        shapes = {g.placement.grid.shape for g in adrift}
        if adrift and (len(shapes) > 1 or len(adrift) < len(self.scenes)):
            raise InvalidInputError(_unknown_ground(adrift, len(self.scenes)))
        return {g.scene: self._place(g) for g in self.scenes}

    def _place(self, ground: SceneGround) -> str:
        p = ground.placement
        if not ground.site:
            return WORLD if p.is_located else f"pixels/{p.grid.height}x{p.grid.width}"
        mates = [g.placement for g in self._mates[ground.site]]
        if all(m.is_located for m in mates):
            return WORLD
        shapes = {(m.grid.shape, m.is_located) for m in mates}
        return f"pixels/{ground.site}" if len(shapes) == 1 else f"whole/{ground.site}"

    @cached_property
    def _mates(self) -> Mapping[str, list[SceneGround]]:
        out: dict[str, list[SceneGround]] = {}
        for g in self.scenes:
            out.setdefault(g.site, []).append(g)
        return out


def _unknown_ground(adrift: Sequence[SceneGround], total: int) -> str:
    shown = ", ".join(g.scene for g in adrift[:4]) + (", ..." if len(adrift) > 4 else "")
    shapes = len({g.placement.grid.shape for g in adrift})
    why = f"of {shapes} shapes" if shapes > 1 else f"among {total} scenes, the others elsewhere"
    return (
        "scenes whose ground is known, or named sites, were expected, got "
        f"{len(adrift)} without a CRS {why} ({shown}). Name the site of each, the same for those that show "
        f"the same ground: --site '{adrift[0].scene}=NAME'; patterns such as '2019*=NAME' name many."
    )


def assign_to_train(
    grounds: Grounds, known: Sequence[SceneCells], fixed: Array, recipe: Recipe, *, version: int
) -> tuple[SceneCells, ...]:
    """Return the cells of scenes that came after validation was fixed: all train, or held back.

    Held back is what lies in one of the ``fixed`` units (units,) uint64 of validation and test, or touches one of
    their cells. ``grounds`` has the new scenes, and those of the ``known`` ones that are still there.
    """

    def decide(ids: Array) -> Array:
        return np.where(np.isin(ids, fixed), cv.Membership.HELD_BACK, cv.Membership.TRAIN).astype(np.uint8)

    fixed_cells = [(g, mask) for s, g, mask in _fixed_cells(grounds, known) if s.place == WORLD]
    closed = _joined([grounds.guarded(g, recipe)[mask] for g, mask in fixed_cells])
    fresh = assign(grounds, recipe, version=version, known=known, decide=decide)
    return tuple(_without_touching(grounds, closed, s, recipe) for s in fresh)


def assign(
    grounds: Grounds,
    recipe: Recipe,
    *,
    version: int,
    known: Sequence[SceneCells] = (),
    decide: Callable[[Array], Array] | None = None,
) -> tuple[SceneCells, ...]:
    """Return the membership (rows, columns) uint8 of the cells of every scene that is not ``known``.

    ``decide`` gives the membership of units; the recipe's draw if left out. `InvalidInputError` where shared ground
    is unknown, or a scene lacks the site that ``by="site"`` needs.
    """
    old = {s.scene for s in known}
    decide = decide or recipe.draw
    judged: dict[str, Array] = {}

    def codes_of(ground: SceneGround) -> Array:
        place, key = grounds.places[ground.scene], ground.placement.fingerprint
        if recipe.by != "ground" or place != WORLD:
            codes = decide(_own_units(ground, place, recipe))
            if place == WORLD:  # held back where nobody knows a cell's place
                codes = np.where(grounds.guarded(ground, recipe).is_placed, codes, np.uint8(0))
        elif key in judged:
            codes = judged[key]
        else:
            codes = judged[key] = judge(grounds.guarded(ground, recipe), recipe.lattice, decide)
        return codes.reshape(ground.placement.cells)

    return tuple(
        SceneCells(
            scene=g.scene,
            grid=g.placement.fingerprint,
            place=grounds.places[g.scene],
            site=g.site,
            since=version,
            codes=codes_of(g),
        )
        for g in grounds.scenes
        if g.scene not in old
    )


def _own_units(ground: SceneGround, place: str, recipe: Recipe) -> Array:
    """Return the unit (cells,) that each cell of a scene is drawn with, where it lies in one alone."""
    cells = np.indices(ground.placement.cells).reshape(2, -1)
    if recipe.by == "ground":
        is_whole = not place.startswith("pixels/")
        return unit_ids(place, *(cells * 0 if is_whole else cells * cv.CELL // recipe.pixel_block))
    if recipe.by == "site" and not ground.site:
        raise InvalidInputError(
            f"a site for each scene was expected, got none for {ground.scene!r}. "
            f"Name it: --site '{ground.scene}=NAME', or split by ground."
        )
    return unit_ids(f"{recipe.by}/{ground.site if recipe.by == 'site' else ground.scene}", *(cells * 0))


def _fixed_cells(
    grounds: Grounds, scenes: Sequence[SceneCells]
) -> Iterator[tuple[SceneCells, SceneGround, Array]]:
    """Yield the scenes that are there and have validation or test, with their ground and the mask (cells,) of it."""
    for s in scenes:
        mask = np.isin(s.codes.reshape(-1), (cv.Membership.VAL, cv.Membership.TEST))
        if s.scene in grounds.by_id and mask.any():
            yield s, grounds.by_id[s.scene], mask


def fixed_units(grounds: Grounds, scenes: Sequence[SceneCells], recipe: Recipe) -> Array:
    """Return the units (units,) uint64, ascending, that the validation and test cells of scenes lie in."""
    parts = [np.empty(0, np.uint64)]
    for s, ground, mask in _fixed_cells(grounds, scenes):
        if recipe.by == "ground" and s.place == WORLD:
            parts.append(touched_ids(grounds.guarded(ground, recipe)[mask], recipe.lattice))
        else:
            parts.append(_own_units(ground, s.place, recipe)[mask])
    return np.unique(np.concatenate(parts))


def _without_touching(grounds: Grounds, closed: Extents, new: SceneCells, recipe: Recipe) -> SceneCells:
    """Hold back the cells of a scene of the world that touch any of the closed extents."""
    if new.place != WORLD or not len(closed):
        return new
    own = grounds.guarded(grounds.by_id[new.scene], recipe)
    both = _joined([own, closed])
    train = np.flatnonzero((new.codes.reshape(-1) == cv.Membership.TRAIN) & own.is_placed)
    others = np.flatnonzero(both.is_placed)
    codes = new.codes.reshape(-1).copy()
    for pairs in touching(both, train, others[others >= len(own)]):
        codes[pairs[:, 0]] = cv.Membership.HELD_BACK
    return replace(new, codes=codes.reshape(new.codes.shape))


def _joined(parts: Sequence[Extents]) -> Extents:
    corners = ("south", "north", "west", "east")
    return Extents(**{k: np.concatenate([np.empty(0), *(getattr(p, k) for p in parts)]) for k in corners})


def check(grounds: Grounds, scenes: Sequence[SceneCells]) -> None:
    """Raise `SplitLeakError` unless no ground is on two sides, in the world and on every shared lattice of pixels.

    Scenes that are in ``scenes`` and not in ``grounds`` have left the store, and take no part.
    """
    stored = [s for s in scenes if s.scene in grounds.by_id]
    if leaks := [*_pixel_leaks(stored), *_world_leaks(grounds, stored)]:
        one, other, count = leaks[0]
        raise SplitLeakError(
            f"a split whose sides share no ground was expected, got {counted(count, 'cell')} of {one!r} and "
            f"{other!r} that do. Split with by='ground', or give scenes of one place the same --site and split "
            "with by='site'."
        )


def _pixel_leaks(scenes: Sequence[SceneCells]) -> list[tuple[str, str, int]]:
    """Return pairs of scenes, with their cells of different membership at one place of pixels."""
    out = []
    seen: dict[str, tuple[str, Array]] = {}
    for s in (s for s in scenes if s.place != WORLD):
        codes = s.codes if s.place.startswith("pixels/") else _one_code(s.codes)
        owner, before = seen.setdefault(s.place, (s.scene, codes))
        if before.shape != codes.shape:
            out.append((owner, s.scene, codes.size))
            continue
        used = (before != cv.Membership.HELD_BACK) & (codes != cv.Membership.HELD_BACK)
        if count := int(np.count_nonzero(used & (before != codes))):
            out.append((owner, s.scene, count))
        seen[s.place] = owner, np.where(before == cv.Membership.HELD_BACK, codes, before)
    return out


def _one_code(codes: Array) -> Array:
    """Return the one membership (1, 1) of a scene that is not divided; its own shape where it has two."""
    used = np.unique(codes[codes != cv.Membership.HELD_BACK])
    return np.array([[used[0] if used.size else 0]], np.uint8) if used.size < 2 else codes


def _world_leaks(grounds: Grounds, scenes: Sequence[SceneCells]) -> list[tuple[str, str, int]]:
    """Return two scenes that share ground of the world, with their cells on it; one pair at most."""
    in_world = [s for s in scenes if grounds.by_id[s.scene].placement.is_located]
    located = list({(s.grid, s.codes.tobytes()): s for s in in_world}.values())  # one of those split alike
    if len({int(c) for s in located for c in np.unique(s.codes)} - {0}) < 2:
        return []
    prints = [grounds.footprint(grounds.by_id[s.scene]) for s in located]
    kept = [np.flatnonzero(s.codes) for s in located]
    owner, numbers = np.repeat(np.arange(len(located)), list(map(len, kept))), np.concatenate(kept)

    def corners(rows: Array) -> Array:
        out = np.empty((len(rows), 4, 2))
        for scene in np.unique(owner[rows]):
            mine = owner[rows] == scene
            out[mine] = _corners(prints[scene], numbers[rows[mine]])
        return out

    reach = np.array([-f.doubt or TOUCH * f.pixel for f in prints], np.float32)
    cells = Cells(
        extents=_joined([f.extents[k].grown(f.doubt) for f, k in zip(prints, kept, strict=True)]),
        codes=np.concatenate([s.codes.reshape(-1)[k] for s, k in zip(located, kept, strict=True)]),
        corners=corners,
        tolerance=reach[owner],
    )
    pairs = shared_ground(cells)
    if not len(pairs):
        return []
    one, other = (located[i].scene for i in owner[pairs[0]])
    return [(one, other, len(np.unique(pairs)))]


def _corners(footprint: Footprint, cells: Array) -> Array:
    """Return (n, 4, 2): (longitude, latitude) of the corners of cells, in order around each."""
    row, col = (n[:, None] for n in np.divmod(cells, footprint.lon.shape[1] - 1))
    around = np.add(row, (0, 0, 1, 1)), np.add(col, (0, 1, 1, 0))
    return np.stack([footprint.lon[around], footprint.lat[around]], axis=-1)
