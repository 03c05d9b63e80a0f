"""Splits of a store's ground: made, extended, checked before they are written, and never changed after."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack, overload

import numpy as np

from sarzarr.errors import InvalidInputError, SplitExistsError, SplitLeakError
from sarzarr.keywords import shows_options
from sarzarr.splits.assign import Grounds, assign, assign_to_train, check, fixed_units
from sarzarr.splits.search import NEAR, distance_from_shares, empty_message, empty_side, split_choices
from sarzarr.splits.versions import Sites, grounds_of, next_version, utc_now, write_split
from sarzarr.store.split_table import (
    Recipe,
    SceneCells,
    Split,
    fold_versions,
    read_split,
    versions,
)
from sarzarr.store.store import AnyStore, Store, open_store

log = logging.getLogger(__name__)


class SplitKeywords(TypedDict, total=False):
    """Fields of `Recipe` that are asked for; lengths in metres or as text, ``"10km"``."""

    val_fraction: float
    test_fraction: float
    seed: int
    by: str
    block: float | str | None
    pixel_block: int | str | None
    guard: float | str | None
    fixed_val: bool


@overload
def make_split(
    store: AnyStore,
    *,
    sites: Sites | None = None,
    notes: str = "",
    fresh: bool = False,
    folds: None = None,
    **recipe: Unpack[SplitKeywords],
) -> Split: ...


@overload
def make_split(
    store: AnyStore,
    *,
    sites: Sites | None = None,
    notes: str = "",
    fresh: bool = False,
    folds: int,
    **recipe: Unpack[SplitKeywords],
) -> tuple[Split, ...]: ...


@shows_options(Recipe, SplitKeywords, block="auto", pixel_block="auto")
def make_split(
    store: AnyStore,
    *,
    sites: Sites | None = None,
    notes: str = "",
    fresh: bool = False,
    folds: int | None = None,
    **recipe: Unpack[SplitKeywords],
) -> Split | tuple[Split, ...]:
    """Split a store's ground into train, validation and test, check it, and write it as a new version.

    The same call on the same store returns the version that is there.

    Parameters
    ----------
    store
        A `Store`, or its path.
    sites
        Names of sites by scene id or pattern, for scenes without a place in the world and ``by="site"``.
    notes
        Kept with the version.
    fresh
        Begin anew, with a validation of its own, where there are versions already. They stay.
    folds
        Write so many versions, and return them in order: in each another fold of the units is validation, the others
        train, and none is in two folds. ``split="fold0:train"`` names a side of the newest folds. In the place of
        ``val_fraction``; test ground is no fold's.
    block, pixel_block
        Sides of a block in metres (or ``"10km"``), and in pixels where scenes have no place in the world;
        ``"auto"`` begins at 10 km and 1024 pixels, and becomes smaller until little ground, too, has every side.
    **recipe
        The fields of `Recipe`.

    Raises `InvalidInputError` where an argument is out of range, it cannot be known which scenes share ground, or a
    side would be empty; `SplitLeakError` where ground would be on two sides; `SplitExistsError` where there is
    a split of another recipe or of fewer scenes.
    """
    here = open_store(store).anew()
    if folds is None:
        split = plan_split(here, sites=sites, notes=notes, fresh=fresh, **recipe)
        if versions(here.place) and not fresh:
            return _same_or_refused(read_split(here.place), split)
        return write_split(here, split)
    planned = plan_folds(here, folds, sites=sites, notes=notes, fresh=fresh, **recipe)
    known = {} if fresh else fold_versions(here.place)
    if versions(here.place) and not fresh and not known:
        return (_same_or_refused(read_split(here.place), planned[0]),)  # always refused: no fold is there
    out = []
    for fold, split in enumerate(planned):  # some, where a run was interrupted
        held = _same_or_refused(read_split(here.place, known[fold]), split) if fold in known else None
        out.append(held or write_split(here, _numbered(split, next_version(here.place))))
    return tuple(out)


def _numbered(split: Split, version: int) -> Split:
    """Return a planned split as another version."""
    return replace(split, version=version, scenes=tuple(replace(s, since=version) for s in split.scenes))


@shows_options(Recipe, SplitKeywords)
def plan_split(
    store: AnyStore,
    *,
    sites: Sites | None = None,
    notes: str = "",
    fresh: bool = False,
    **recipe: Unpack[SplitKeywords],
) -> Split:
    """Return the split that `make_split` would write, codes (rows, columns) uint8 per scene, checked."""
    here = open_store(store).anew()
    return _planned(here, recipe, sites=sites, notes=notes, fresh=fresh)[0]


@shows_options(Recipe, SplitKeywords)
def plan_folds(
    store: AnyStore,
    folds: int,
    *,
    sites: Sites | None = None,
    notes: str = "",
    fresh: bool = False,
    **recipe: Unpack[SplitKeywords],
) -> tuple[Split, ...]:
    """Return the splits that `make_split` would write with ``folds``, in order, checked."""
    here = open_store(store).anew()
    if recipe.pop("val_fraction", Recipe().val_fraction) != Recipe().val_fraction:
        raise InvalidInputError(
            f"folds or a val_fraction was expected, got both. Leave val_fraction out: each of {folds} folds is "
            "validation once."
        )
    share = (1 - recipe.get("test_fraction", 0.0)) / max(folds, 1)
    options = {**recipe, "val_fraction": min(share, 0.5), "folds": folds, "fold": 0}
    return _planned(here, options, sites=sites, notes=notes, fresh=fresh)


def _planned(
    here: Store, options: Mapping[str, Any], *, sites: Sites | None, notes: str, fresh: bool
) -> tuple[Split, ...]:
    """Return the split of the first recipe that divides ground as asked for; of folds one each, of one block."""
    if not here.scenes:
        raise InvalidInputError(_no_scenes(here))
    grounds = grounds_of(here, sites)
    newest = None if fresh or not versions(here.place) else read_split(here.place).recipe
    known = [] if newest is None else [newest if newest.folds is None else replace(newest, fold=0)]
    is_open = options.get("block", "auto") in (None, "auto")
    version = next_version(here.place)
    passing: list[tuple[Split, ...]] = []
    refused: list[tuple[str, Split]] = []
    for choice in split_choices(grounds, options, known):
        recipes = [choice] if choice.folds is None else [replace(choice, fold=i) for i in range(choice.folds)]
        splits = tuple(_drawn(grounds, one, version, notes) for one in recipes)
        if missing := [(side, split) for split in splits if (side := empty_side(here, split))]:
            refused.append(missing[0])
            continue
        passing.append(splits)
        if _farthest(splits) <= NEAR or choice in known or not is_open:
            break
    if not passing:
        raise InvalidInputError(empty_message(here, *refused[0], grounds))
    best = min(passing, key=_farthest)
    for split in best:
        check(grounds, split.scenes)
    return best


def _drawn(grounds: Grounds, recipe: Recipe, version: int, notes: str) -> Split:
    scenes = assign(grounds, recipe, version=version)
    units = fixed_units(grounds, scenes, recipe)
    return Split(
        version=version, recipe=recipe, scenes=scenes, fixed_units=units, created_at=utc_now(), notes=notes
    )


def _farthest(splits: Sequence[Split]) -> float:
    """Return the largest of the `distance_from_shares` of some splits."""
    return max(map(distance_from_shares, splits))


def _same_or_refused(newest: Split, wanted: Split) -> Split:
    if newest.recipe != wanted.recipe:
        raise SplitExistsError(
            f"the recipe of {newest.name} was expected, got another one. Its validation never changes: use it as it "
            "is, or pass fresh=True (--fresh) to begin a new one beside it."
        )
    if waiting := [s.scene for s in wanted.scenes if s.scene not in newest.by_scene]:
        raise SplitExistsError(
            f"the scenes of {newest.name} were expected, got {len(waiting)} more ({', '.join(waiting[:3])}). "
            "Call extend_split (`sarzarr split extend STORE`)."
        )
    return newest


def _no_scenes(store: Store) -> str:
    """Return the message about a store without scenes, which may hold chips."""
    from sarzarr.store.samples import sample_sets

    sets = sample_sets(store)
    if not sets:
        return f"scenes to split were expected in {store.place.name!r}, got none. Ingest some first."
    return (
        f"scenes to split were expected in {store.place.name!r}, got none beside chips ({', '.join(sets)}). "
        f"These have no ground and are split by their ids, in Python: sarzarr.SplitManager({str(store.place)!r})"
        f".create_initial_split({sets[0]!r}, val_ratio=0.2)."
    )


@dataclass(frozen=True, kw_only=True)
class Pending:
    """The scenes that a version does not know as they are now."""

    new: tuple[str, ...]
    """Scenes that came after it."""
    changed: tuple[str, ...]
    """Scenes that were replaced on another grid: their memberships hold no more."""
    gone: tuple[str, ...]
    """Scenes that it knows and that left the store."""


def pending(store: AnyStore, version: int | None = None) -> Pending:
    """Return the scenes that a version, the newest if left out, does not know; all where there is none."""
    here = open_store(store).anew()
    if not versions(here.place):
        return Pending(new=here.scenes, changed=(), gone=())
    return pending_of(grounds_of(here), read_split(here.place, version))


def pending_of(grounds: Grounds, split: Split) -> Pending:
    """Return the scenes that a split does not know, or knew otherwise."""
    grids = {g.scene: g.placement.fingerprint for g in grounds.scenes}
    known = {s.scene: s.grid for s in split.scenes}
    return Pending(
        new=tuple(s for s in grids if s not in known),
        changed=tuple(s for s, grid in grids.items() if known.get(s, grid) != grid),
        gone=tuple(s for s in known if s not in grids),
    )


def extend_split(store: AnyStore, *, sites: Sites | None = None, notes: str = "") -> Split:
    """Write a version that knows every scene, and return it; the newest one where nothing is pending.

    Codes (rows, columns) that are known stay as they are. New ground goes where the lattice says, or, where the
    version was made with ``fixed_val``, to training alone. A scene that was replaced on another grid is new. Of
    folds, each gets a version more, and that of the last one is returned. Where
    whole scenes or sites were drawn, ground of scenes that left the store is not known: a warning says so.
    `NotInStoreError` without a version to extend, `InvalidInputError` where the ground of a new scene is unknown,
    `SplitLeakError` where ground would be on two sides, `SplitExistsError` where another process was first.
    """
    here = open_store(store).anew()
    newest = read_split(here.place)
    folds = () if newest.recipe.folds is None else fold_versions(here.place).values()
    for version in folds:
        newest = _extended(here, read_split(here.place, version), sites, notes)
    return newest if folds else _extended(here, newest, sites, notes)


def _extended(here: Store, parent: Split, sites: Sites | None, notes: str) -> Split:
    """Write the version that extends another one, and return it; that one where nothing is pending."""
    version = next_version(here.place)
    grounds = grounds_of(here, sites, known=parent)
    waiting = pending_of(grounds, parent)
    if not waiting.new and not waiting.changed:
        return parent
    known = tuple(s for s in parent.scenes if s.scene not in waiting.changed)
    _check_places(grounds, known)
    recipe, units = parent.recipe, parent.fixed_units
    if recipe.fixed_val:
        fresh = assign_to_train(grounds, known, units, recipe, version=version)
    else:
        fresh = assign(grounds, recipe, version=version, known=known)
        units = np.union1d(units, fixed_units(grounds, fresh, recipe))
    scenes = tuple(sorted((*known, *fresh), key=lambda s: s.scene))
    check(grounds, scenes)
    _warn_of_unknown_ground(parent, waiting)
    split = replace(
        parent,
        version=version,
        scenes=scenes,
        fixed_units=units,
        parent=parent.version,
        created_at=utc_now(),
        notes=notes,
    )
    return write_split(here, split)


def _check_places(grounds: Grounds, known: tuple[SceneCells, ...]) -> None:
    """Refuse new scenes that would make a known place ambiguous."""
    for s in known:
        place = grounds.places.get(s.scene, s.place)
        if place != s.place:
            raise SplitLeakError(
                f"the ground of {s.scene!r} to stay {s.place!r} was expected, got {place!r} with the new scenes. "
                "Give them the name of another site, or begin a new split with fresh=True (--fresh)."
            )


def _warn_of_unknown_ground(parent: Split, waiting: Pending) -> None:
    """Say which scenes new ones could not be compared with. Blocks of ground are known whoever is there."""
    gone = [s for s in waiting.gone if parent.by_scene[s].codes.any()]
    if parent.recipe.by != "ground" and gone:
        log.warning(
            "new scenes were not compared with the ground of %d that left the store (%s): if they come back, "
            "run check_split (`sarzarr split check STORE`)",
            len(gone),
            ", ".join(gone[:3]) + (", ..." if len(gone) > 3 else ""),
        )
