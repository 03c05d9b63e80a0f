"""From where scenes lie to the membership of their cells; and the check that no ground is on two sides.

Nothing here reads or writes a store. Scenes without a place in the world share a lattice of pixels where
their shapes are equal, or stand apart where their sites are named; where neither can be known, a split is
refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    """Scenes with their places; the footprints of equal placements are made once."""

    scenes: tuple[SceneGround, ...]
    """Sorted by id."""
    _footprints: dict[str, Footprint] = field(default_factory=dict, init=False, repr=False)

    def footprint(self, ground: SceneGround) -> Footprint:
        """Return where the cells of a located scene lie."""
        key = ground.placement.fingerprint
        if key not in self._footprints:
            self._footprints[key] = footprint_of(ground.placement)
        return self._footprints[key]

    @cached_property
    def places(self) -> Mapping[str, str]:
        """The lattice that each scene's cells are on, by id.

        Raises
        ------
        InvalidInputError
            It cannot be known which scenes share ground.
        """
        adrift = [g for g in self.scenes if not g.placement.is_located and not g.site]
        shapes = {g.placement.grid.shape for g in adrift}
        if adrift and (len(shapes) > 1 or len(adrift) < len(self.scenes)):
            raise InvalidInputError(_unknown_ground(adrift, len(self.scenes)))
        return {g.scene: self._place(g) for g in self.scenes}

    def _place(self, ground: SceneGround) -> str:
        p = ground.placement
        if not ground.site:
            return WORLD if p.is_located else f"pixels/{p.grid.height}x{p.grid.width}"
        mates = self._mates[ground.site]
        if all(m.placement.is_located for m in mates):
            return WORLD
        shapes = {(m.placement.grid.shape, m.placement.is_located) for m in mates}
        return f"pixels/{ground.site}" if len(shapes) == 1 else f"whole/{ground.site}"

    @cached_property
    def _mates(self) -> Mapping[str, list[SceneGround]]:
        out: dict[str, list[SceneGround]] = {}
        for g in self.scenes:
            out.setdefault(g.site, []).append(g)
        return out


def _unknown_ground(adrift: Sequence[SceneGround], total: int) -> str:
    shown = ", ".join(g.scene for g in adrift[:4]) + (", ..." if len(adrift) > 4 else "")
    shapes = sorted({g.placement.grid.shape for g in adrift})
    why = f"of {len(shapes)} shapes" if len(shapes) > 1 else f"among {total} scenes, the others elsewhere"
    return (
        "scenes whose ground is known, or named sites, were expected, got "
        f"{len(adrift)} without a CRS {why} ({shown}). Name the site of each, the same for those that show "
        f"the same ground: --site '{adrift[0].scene}=NAME'; patterns such as '2019*=NAME' name many."
    )


# ------------------------------------------------------------------ membership
def assign(grounds: Grounds, recipe: Recipe, *, version: int) -> tuple[SceneCells, ...]:
    """Return the membership of every cell of every scene, as the recipe says.

    Raises
    ------
    InvalidInputError
        It cannot be known which scenes share ground, or a scene lacks the site that ``by="site"`` needs.
    """
    judged: dict[str, Array] = {}
    return tuple(
        SceneCells(
            scene=g.scene,
            grid=g.placement.fingerprint,
            place=grounds.places[g.scene],
            site=g.site,
            since=version,
            codes=_codes(grounds, g, recipe, judged),
        )
        for g in grounds.scenes
    )


def _codes(grounds: Grounds, ground: SceneGround, recipe: Recipe, judged: dict[str, Array]) -> Array:
    place, shape = grounds.places[ground.scene], ground.placement.cells
    if recipe.by == "ground" and place == WORLD:
        key = ground.placement.fingerprint
        if key not in judged:
            guarded = grounds.footprint(ground).guarded(recipe.guard)
            judged[key] = judge(guarded, recipe.lattice, recipe.draw).reshape(shape)
        return judged[key]
    return _on_ground(grounds, ground, recipe, recipe.draw(_own_units(ground, place, recipe)))


def _on_ground(grounds: Grounds, ground: SceneGround, recipe: Recipe, codes: Array) -> Array:
    """Return a scene's codes (cells,) as (rows, columns): held back where nobody knows a cell's place."""
    if grounds.places[ground.scene] == WORLD:
        is_placed = grounds.footprint(ground).guarded(recipe.guard).is_placed
        codes = np.where(is_placed, codes, np.uint8(cv.Membership.HELD_BACK))
    return codes.reshape(ground.placement.cells)


def _own_units(ground: SceneGround, place: str, recipe: Recipe) -> Array:
    """Return the unit (cells,) that each cell of a scene is drawn with, where it lies in one alone."""
    rows, cols = ground.placement.cells
    at = np.indices((rows, cols)).reshape(2, -1)
    zero = np.zeros(at.shape[1], np.int64)
    if recipe.by == "ground" and place.startswith("pixels/"):
        return unit_ids(place, *(at * cv.CELL // recipe.pixel_block))
    if recipe.by == "ground":
        return unit_ids(place, zero, zero)
    if recipe.by == "site" and not ground.site:
        raise InvalidInputError(
            f"a site for each scene was expected, got none for {ground.scene!r}. "
            f"Name it: --site '{ground.scene}=NAME', or split by ground."
        )
    return unit_ids(f"{recipe.by}/{ground.site if recipe.by == 'site' else ground.scene}", zero, zero)


def fixed_units(grounds: Grounds, scenes: Sequence[SceneCells], recipe: Recipe) -> Array:
    """Return the units (ascending, uint64) that the validation and test cells of scenes lie in."""
    by_id = {g.scene: g for g in grounds.scenes}
    parts = [np.empty(0, np.uint64)]
    for s in scenes:
        ground = by_id.get(s.scene)
        fixed = (s.codes == cv.Membership.VAL) | (s.codes == cv.Membership.TEST)
        if ground is None or not fixed.any():
            continue
        if recipe.by == "ground" and s.place == WORLD:
            cells = grounds.footprint(ground).guarded(recipe.guard)[fixed.reshape(-1)]
            parts.append(touched_ids(cells, recipe.lattice))
        else:
            parts.append(_own_units(ground, s.place, recipe)[fixed.reshape(-1)])
    return np.unique(np.concatenate(parts))


def assign_to_train(
    grounds: Grounds, known: Sequence[SceneCells], fixed: Array, recipe: Recipe, *, version: int
) -> tuple[SceneCells, ...]:
    """Return the cells of scenes that came after validation was fixed: all train, or held back.

    Held back is what lies in a unit of validation or test, or touches one of their cells.

    Parameters
    ----------
    grounds
        The new scenes, and the ``known`` ones that are still there.
    known
        Scenes that have their membership.
    fixed
        Units of validation and test.
    recipe
        Of the split.
    version
        In which the new scenes come in.
    """

    def decide(ids: Array) -> Array:
        return np.where(np.isin(ids, fixed), cv.Membership.HELD_BACK, cv.Membership.TRAIN).astype(np.uint8)

    old = {s.scene for s in known}
    out = []
    for g in (g for g in grounds.scenes if g.scene not in old):
        place, shape = grounds.places[g.scene], g.placement.cells
        if recipe.by == "ground" and place == WORLD:
            codes = judge(grounds.footprint(g).guarded(recipe.guard), recipe.lattice, decide).reshape(shape)
        else:
            codes = _on_ground(grounds, g, recipe, decide(_own_units(g, place, recipe)))
        out.append(
            SceneCells(
                scene=g.scene,
                grid=g.placement.fingerprint,
                place=place,
                site=g.site,
                since=version,
                codes=codes,
            )
        )
    theirs = _fixed_extents(grounds, known, recipe)
    return tuple(_without_touching(grounds, theirs, s, recipe) for s in out)


def _fixed_extents(grounds: Grounds, known: Sequence[SceneCells], recipe: Recipe) -> Extents:
    """Return where the validation and test cells of known scenes of the world lie, with their margins."""
    by_id = {g.scene: g for g in grounds.scenes}
    parts = []
    for s in known:
        fixed = (s.codes == cv.Membership.VAL) | (s.codes == cv.Membership.TEST)
        if s.place == WORLD and s.scene in by_id and fixed.any():
            parts.append(grounds.footprint(by_id[s.scene]).guarded(recipe.guard)[fixed.reshape(-1)])
    return _joined(parts)


def _without_touching(grounds: Grounds, theirs: Extents, new: SceneCells, recipe: Recipe) -> SceneCells:
    """Hold back the cells of a scene of the world that touch any of ``theirs``."""
    if new.place != WORLD or not len(theirs):
        return new
    ground = next(g for g in grounds.scenes if g.scene == new.scene)
    mine = grounds.footprint(ground).guarded(recipe.guard)
    both = _joined([mine, theirs])
    train = np.flatnonzero((new.codes.reshape(-1) == cv.Membership.TRAIN) & mine.is_placed)
    others = np.flatnonzero(both.is_placed)
    codes = new.codes.reshape(-1).copy()
    for pairs in touching(both, train, others[others >= len(mine)]):
        codes[pairs[:, 0]] = cv.Membership.HELD_BACK
    return SceneCells(**{**vars(new), "codes": codes.reshape(new.codes.shape)})


def _joined(parts: Sequence[Extents]) -> Extents:
    corners = ("south", "north", "west", "east")
    return Extents(**{k: np.concatenate([np.empty(0), *(getattr(p, k) for p in parts)]) for k in corners})


# ------------------------------------------------------------------ the check
def check(grounds: Grounds, scenes: Sequence[SceneCells]) -> None:
    """Raise unless no ground is on two sides: in the world, and on every shared lattice of pixels.

    Scenes that are in ``scenes`` and not in ``grounds`` have left the store, and take no part.

    Raises
    ------
    SplitLeakError
        Names two scenes that share ground, and the remedy.
    """
    by_id = {g.scene: g for g in grounds.scenes}
    there = [s for s in scenes if s.scene in by_id]
    pairs = [*_pixel_leaks(there), *_world_leaks(grounds, by_id, there)]
    if pairs:
        one, other, count = pairs[0]
        raise SplitLeakError(
            f"a split whose sides share no ground was expected, got {count} cells of {one!r} and {other!r} that do. "
            "Split with by='ground', or give scenes of one place the same --site and split with by='site'."
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


def _world_leaks(
    grounds: Grounds, by_id: Mapping[str, SceneGround], scenes: Sequence[SceneCells]
) -> list[tuple[str, str, int]]:
    alike = {
        (s.grid, s.codes.tobytes()): s for s in scenes if by_id[s.scene].placement.is_located
    }  # acquisitions on one grid, split alike, are one
    located = list(alike.values())
    if len({int(c) for s in located for c in np.unique(s.codes)} - {0}) < 2:
        return []
    prints = [grounds.footprint(by_id[s.scene]) for s in located]
    kept = [np.flatnonzero(s.codes) for s in located]
    owner = np.repeat(np.arange(len(located)), [len(k) for k in kept])
    numbers = np.concatenate(kept)

    def corners(rows: Array) -> Array:
        out = np.empty((len(rows), 4, 2))
        for scene in np.unique(owner[rows]):
            mine = owner[rows] == scene
            out[mine] = _corners(prints[scene], numbers[rows[mine]])
        return out

    cells = Cells(
        extents=_joined([f.extents[k].grown(f.doubt) for f, k in zip(prints, kept, strict=True)]),
        codes=np.concatenate([s.codes.reshape(-1)[k] for s, k in zip(located, kept, strict=True)]),
        corners=corners,
        tolerance=np.concatenate(
            [
                np.full(len(k), -f.doubt or TOUCH * f.pixel, np.float32)
                for f, k in zip(prints, kept, strict=True)
            ]
        ),
    )
    pairs = shared_ground(cells)
    if not len(pairs):
        return []
    one, other = owner[pairs[0]]
    return [(located[one].scene, located[other].scene, len(np.unique(pairs)))]


def _corners(footprint: Footprint, cells: Array) -> Array:
    """Return (n, 4, 2): (longitude, latitude) of the corners of cells, in order around each."""
    row, col = np.divmod(cells, footprint.lon.shape[1] - 1)
    around = [(row + down, col + across) for down, across in ((0, 0), (0, 1), (1, 1), (1, 0))]
    return np.stack([np.stack([footprint.lon[at], footprint.lat[at]], axis=-1) for at in around], axis=1)
