"""Splits of a store's ground: made, extended, checked before they are written, and never changed after."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError, InvalidInputError, SplitExistsError, SplitLeakError
from sarzarr.split_json import from_json, to_json
from sarzarr.split_plan import WORLD, Grounds, assign, assign_to_train, check, fixed_units
from sarzarr.split_record import Recipe, SceneCells, Split, read_split, versions
from sarzarr.split_versions import Sites, get_split, grounds_of, next_version, opened, patches_of, write_split
from sarzarr.store import Store
from sarzarr.whole_files import whole_file
from sarzarr.world import parse_length

SHARES: Final = (1, 0.8, 0.63, 0.5, 0.4, 0.32, 0.25, 0.2, 0.16, 0.125, 0.1, 0.08, 0.063, 0.05, 0.04, 0.032)
"""Sizes of a block that are tried where none is given, as shares of the largest."""
LEAST_CELLS: Final = 1.2
"""Sides of the largest cell that fit into a block which is still worth trying."""
CELLS_IN_BLOCK: Final = 3.5
"""Sides of the largest cell that fit into the block that is tried first, at least."""
MORE_DRAWN: Final = (1, 1.5, 2, 3)
"""Shares of the blocks that are drawn, as multiples of what is asked for."""
NEAR: Final = 2.0
"""Factor by which the share of validation may be off, where the block is left open, and still be taken at once."""
log = logging.getLogger(__name__)


# ------------------------------------------------------------------ making
def make_split(
    store: Store | str | Path,
    *,
    sites: Sites | None = None,
    notes: str = "",
    fresh: bool = False,
    **recipe: Any,
) -> Split:
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
    **recipe
        The fields of `Recipe`: ``val_fraction=0.1, test_fraction=0.0, seed=42, block="10km",
        by="ground", guard=None, fixed_val=False, pixel_block=1024``. A block that is left out, or
        ``"auto"``, becomes smaller until little ground, too, has every side.

    Raises
    ------
    InvalidInputError
        An argument is out of range, it cannot be known which scenes share ground, or a side would be
        empty; the message names a remedy.
    SplitLeakError
        Ground would be on two sides.
    SplitExistsError
        There is a split of another recipe or of fewer scenes.
    """
    here = opened(store)
    split = plan_split(here, sites=sites, notes=notes, fresh=fresh, **recipe)
    there = versions(here.root)
    if there and not fresh:
        return _same_or_refused(read_split(here.root, there[-1]), split)
    return write_split(here, split)


def plan_split(
    store: Store | str | Path,
    *,
    sites: Sites | None = None,
    notes: str = "",
    fresh: bool = False,
    **recipe: Any,
) -> Split:
    """Return the split that `make_split` would write, checked; nothing is written."""
    here = opened(store)
    if not here.scenes:
        raise InvalidInputError(_no_scenes(here))
    grounds = grounds_of(here, sites)
    newest = () if fresh else versions(here.root)[-1:]
    found: list[Split] = []
    refused: list[tuple[str, Split]] = []
    known = [read_split(here.root, v).recipe for v in newest]
    for choice in _choices(grounds, recipe, known):
        split = _planned(here, grounds, choice, notes)
        if missing := _empty_side(here, split):
            refused.append((missing, split))
            continue
        found.append(split)
        if _off(split) <= NEAR or choice in known or recipe.get("block", "auto") not in (None, "auto"):
            break
    if not found:
        raise InvalidInputError(_empty_message(here, *refused[0], grounds))
    best = min(found, key=_off)
    check(grounds, best.scenes)
    return best


def _off(split: Split) -> float:
    """Return by what factor the share of validation is off what was asked for."""
    ratio = split.val_ratio / split.recipe.val_fraction
    return max(ratio, 1 / ratio)


def _planned(store: Store, grounds: Grounds, recipe: Recipe, notes: str) -> Split:
    version = next_version(store.root)
    scenes = assign(grounds, recipe, version=version)
    units = fixed_units(grounds, scenes, recipe)
    return Split(
        version=version, recipe=recipe, scenes=scenes, fixed_units=units, created_at=_now(), notes=notes
    )


def _choices(grounds: Grounds, options: Mapping[str, Any], newest: Sequence[Recipe]) -> Iterator[Recipe]:
    """Yield the recipe that is asked for; where its block is left open, the ones to try in turn.

    Those are 10 km (or twice that, and so on, until a few cells of the coarsest scene fit in), 8, 6.3, 5 km and
    so on down to what hardly holds a cell, and 1024, 512 and 256 pixels; then the same with more blocks drawn.
    What no scene needs, metres or pixels, stays at its default. A block that is given is kept, and no more
    of them are drawn: stores that are told the same agree. Before them comes what the ``newest`` version has,
    so that the same call means the same split when the store has grown.
    """
    known = list(Recipe.__dataclass_fields__)
    for name in options:
        if name not in known:
            raise InvalidInputError(f"options among {', '.join(known)} were expected, got {name!r}.")
    options = {
        k: v for k, v in options.items() if not (k in ("block", "pixel_block") and v in (None, "auto"))
    }
    lengths = {k: parse_length(options[k]) for k in ("block", "guard") if options.get(k) is not None}
    recipe = Recipe(**{**options, **lengths})
    left_open = [k for k in ("block", "pixel_block") if k not in options]
    if not left_open:
        yield recipe
        return
    for before in newest:
        drawn = before.drawn if "block" in left_open else None
        yield replace(recipe, drawn=drawn, **{k: getattr(before, k) for k in left_open})
    cell = _largest_cell(grounds)
    on_pixels = any(place != WORLD for place in grounds.places.values())
    block = recipe.block
    while "block" in left_open and block < CELLS_IN_BLOCK * cell:
        block *= 2
    for more in MORE_DRAWN if "block" in left_open else (1,):
        drawn = min(more * recipe.val_fraction, (1 - recipe.test_fraction) / 2)
        for i, share in enumerate(SHARES if recipe.by == "ground" else (1,)):
            if i < 3 or (cell and block * share >= LEAST_CELLS * cell):
                sizes: dict[str, Any] = {
                    "block": block * share if cell else recipe.block,
                    "pixel_block": max(recipe.pixel_block >> i, cv.CELL) if on_pixels else recipe.pixel_block,
                }
                yield replace(recipe, drawn=None if more == 1 else drawn, **{k: sizes[k] for k in left_open})


def _largest_cell(grounds: Grounds) -> float:
    """Return the largest side of a cell that has a place in the world, in metres; 0 where none has."""
    located = [grounds.footprint(g).pixel for g in grounds.scenes if grounds.places[g.scene] == WORLD]
    return cv.CELL * max((p for p in located if math.isfinite(p)), default=0.0)


def _same_or_refused(there: Split, wanted: Split) -> Split:
    known = {s.scene for s in there.scenes}
    if there.recipe != wanted.recipe:
        raise SplitExistsError(
            f"the recipe of {there.name} was expected, got another one. Its validation never changes: use it as it "
            "is, or pass fresh=True (--fresh) to begin a new one beside it."
        )
    if pending := [s.scene for s in wanted.scenes if s.scene not in known]:
        raise SplitExistsError(
            f"the scenes of {there.name} were expected, got {len(pending)} more ({', '.join(pending[:3])}). "
            "Call extend_split (`sarzarr split STORE extend`)."
        )
    return there


def _empty_side(store: Store, split: Split) -> str:
    """Return the name of a side that would have no cell, or no valid patch in the default index."""
    wanted = ["train", "val"] + ["test"] * (split.recipe.test_fraction > 0)
    if empty := [name for name in wanted if not split.counts[name]]:
        return empty[0]
    if not (store.root / cv.PATCHES / cv.DEFAULT_INDEX / "zarr.json").is_file():
        return ""
    table = store.patch_columns()
    seen = table["valid_fraction"].values > 0
    masks = {name: patches_of(store, split, table, name) for name in wanted}
    return next((name for name in wanted if seen.any() and not (masks[name] & seen).any()), "")


def _no_scenes(store: Store) -> str:
    """Return the message about a store without scenes, which may hold chips."""
    from sarzarr.sample_sets import sample_sets

    sets = sample_sets(store)
    if not sets:
        return f"scenes to split were expected in {store.root.name!r}, got none. Ingest some first."
    return (
        f"scenes to split were expected in {store.root.name!r}, got none beside chips ({', '.join(sets)}). "
        f"These have no ground and are split by their ids, in Python: sarzarr.SplitManager({str(store.root)!r})"
        f".create_initial_split({sets[0]!r}, val_ratio=0.2)."
    )


def _empty_message(store: Store, side: str, split: Split, grounds: Grounds) -> str:
    """Return what a split lacks, why, and what would mend it: a change is named only where it was tried."""
    recipe, cells = split.recipe, sum(split.counts.values())
    none = "none with a valid patch" if split.counts[side] else "none"
    drawn = f"blocks of {' and '.join(split.blocks)}" if split.blocks else f"whole {recipe.by}s"
    said = (
        f"ground on every side was expected, got {none} for {side!r} from {len(split.scenes)} scenes by {recipe.by} "
        f"({drawn}, seed {recipe.seed}; {split.held_back_share:.0%} of {cells} cells are held back)."
    )
    cell = _largest_cell(grounds)
    if is_small := recipe.by == "ground" and recipe.block < cell:
        said += (
            f" A cell of {cv.CELL} pixels is {cell:.0f} m here, more than a block of {recipe.block:g} m, and what "
            "touches blocks of two sides is held back."
        )
    for name, value in _other_choices(recipe, cell):
        if _is_divided(store, split, grounds, replace(recipe, **{name: value})):
            why = "larger than a cell" if is_small else "many, and hold several cells"
            advice = f": blocks should be {why}" if name in ("block", "pixel_block") else ""
            return (
                f"{said} There would be some with {name}={value if name == 'by' else f'{value:g}'}{advice}."
            )
    if recipe.by != "ground":
        return (
            f"{said} No other seed or val_fraction that was tried gives one: split by ground, or add scenes."
        )
    return f"{said} No other block or seed that was tried divides it: add scenes of other ground."


def _is_divided(store: Store, split: Split, grounds: Grounds, recipe: Recipe) -> bool:
    """Return whether another recipe would give every side something, and leak nothing."""
    other = replace(split, recipe=recipe, scenes=assign(grounds, recipe, version=1))
    if _empty_side(store, other):
        return False
    try:
        check(grounds, other.scenes)
    except SplitLeakError:
        return False
    return True


def _other_choices(recipe: Recipe, cell: float) -> Iterator[tuple[str, Any]]:
    """Yield what might divide little ground better, the smallest change first; ``cell`` is a side in metres."""
    if recipe.by == "ground" and recipe.block < cell:
        fitting = max(Recipe().block, CELLS_IN_BLOCK * cell)
        yield from (("block", 100.0 * round(fitting * share / 100)) for share in SHARES[:5])
        return
    if recipe.by == "ground" and recipe.pixel_block > cv.CELL:
        yield "pixel_block", cv.CELL
    halves = [recipe.block / 2**k for k in range(1, 6) if recipe.block / 2**k >= 1]
    doubles = [recipe.block * 2**k for k in range(1, 6) if recipe.block * 2**k <= 5e6]
    if recipe.by == "ground":
        yield from (("block", b) for pair in zip_longest(halves, doubles) for b in pair if b)
    yield from (("seed", recipe.seed + k) for k in range(1, 9))
    yield from (
        ("val_fraction", v) for v in (0.2, 0.3, 0.5) if recipe.val_fraction < v < 1 - recipe.test_fraction
    )
    if recipe.by != "ground":
        yield "by", "ground"


# ------------------------------------------------------------------ extending
@dataclass(frozen=True, kw_only=True)
class Pending:
    """What the newest version does not know."""

    new: tuple[str, ...]
    """Scenes that came after it."""
    changed: tuple[str, ...]
    """Scenes that were replaced on another grid: their memberships hold no more."""
    gone: tuple[str, ...]
    """Scenes that it knows and that left the store."""


def pending(store: Store | str | Path, version: int | None = None) -> Pending:
    """Return what a version, the newest if left out, does not know; everything is new to no version."""
    here = opened(store)
    if not versions(here.root):
        return Pending(new=here.scenes, changed=(), gone=())
    return _pending(grounds_of(here), read_split(here.root, version))


def _pending(grounds: Grounds, split: Split) -> Pending:
    there = {g.scene: g.placement.fingerprint for g in grounds.scenes}
    known = {s.scene: s.grid for s in split.scenes}
    return Pending(
        new=tuple(s for s in there if s not in known),
        changed=tuple(s for s, grid in there.items() if known.get(s, grid) != grid),
        gone=tuple(s for s in known if s not in there),
    )


def extend_split(store: Store | str | Path, *, sites: Sites | None = None, notes: str = "") -> Split:
    """Write a version that knows every scene, and return it; the newest one where nothing is pending.

    What is known stays as it is. New ground goes where the lattice says, or, where the version was made
    with ``fixed_val``, to training alone. A scene that was replaced on another grid is new. Where whole
    scenes or sites were drawn, ground of scenes that left the store is not known: a warning says so.

    Raises
    ------
    NotInStoreError
        There is no version to extend.
    InvalidInputError
        It cannot be known where a new scene lies.
    SplitLeakError
        Ground would be on two sides.
    SplitExistsError
        Another process wrote the next version first.
    """
    here = opened(store)
    parent = read_split(here.root)
    version = next_version(here.root)
    grounds = grounds_of(here, sites, known=parent)
    waiting = _pending(grounds, parent)
    if not waiting.new and not waiting.changed:
        return parent
    known = tuple(s for s in parent.scenes if s.scene not in waiting.changed)
    _check_places(grounds, known)
    if parent.recipe.fixed_val:
        fresh = assign_to_train(grounds, known, parent.fixed_units, parent.recipe, version=version)
    else:
        old = {s.scene for s in known}
        fresh = tuple(s for s in assign(grounds, parent.recipe, version=version) if s.scene not in old)
    scenes = tuple(sorted((*known, *fresh), key=lambda s: s.scene))
    check(grounds, scenes)
    _warn_of_unknown_ground(parent, waiting)
    units = np.union1d(parent.fixed_units, fixed_units(grounds, fresh, parent.recipe))
    return write_split(
        here,
        Split(
            version=version,
            recipe=parent.recipe,
            scenes=scenes,
            fixed_units=parent.fixed_units if parent.recipe.fixed_val else units,
            parent=parent.version,
            created_at=_now(),
            notes=notes,
        ),
    )


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
            "run check_split (`sarzarr split STORE check`)",
            len(gone),
            ", ".join(gone[:3]) + (", ..." if len(gone) > 3 else ""),
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# ------------------------------------------------------------------ checking, and JSON
def check_split(store: Store | str | Path, split: Split) -> None:
    """Raise `SplitLeakError` unless a split shares no ground between its sides, as the store now is."""
    grounds = grounds_of(opened(store), known=split)
    stale = set(_pending(grounds, split).changed)
    check(grounds, [s for s in split.scenes if s.scene not in stale])


def export_split(store: Store | str | Path, path: str | Path, version: int | None = None) -> Path:
    """Write a version as a JSON document, the newest if left out; return its path.

    Raises
    ------
    NotInStoreError
        There is no such version.
    InvalidInputError
        Nothing can be written to that path.
    """
    place = Path(path)
    text = to_json(get_split(store, version))
    try:
        with whole_file(place) as partial:
            partial.write_text(text)
    except OSError as error:
        raise InvalidInputError(
            f"a path that a file can be written to was expected, got {str(place)!r} ({error.strerror}). "
            "Give a file in a folder that is there."
        ) from None
    return place


def import_split(store: Store | str | Path, path: str | Path) -> Split:
    """Write the version that a JSON document holds into a store, under its own number; return it.

    Scenes that the store does not hold keep their memberships, should they come.

    Raises
    ------
    SplitExistsError
        The store has another version of that number.
    SplitLeakError
        With the store's scenes, ground would be on two sides.
    InvalidInputError
        There is no such document, or a scene of the store has another grid than it says.
    """
    here = opened(store)
    try:
        split = from_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, CorruptStoreError):
            raise
        raise InvalidInputError(
            f"a split that `sarzarr split STORE export` wrote was expected at {str(path)!r}, got nothing that can be "
            f"read as text ({getattr(error, 'strerror', None) or 'it is not UTF-8'}). Give the path of one."
        ) from None
    if split.version in versions(here.root):
        there = read_split(here.root, split.version)
        if there.fingerprint == split.fingerprint:
            return there
        raise SplitExistsError(
            f"a store without {split.name} was expected, got one with another {split.name}."
        )
    grounds = grounds_of(here)
    if changed := _pending(grounds, split).changed:
        raise InvalidInputError(
            f"the grid that {split.name} knows was expected for {changed[0]!r}, got another. "
            "Import it into the store that it was made for."
        )
    cells = {g.scene: g.placement.cells for g in grounds.scenes}
    for scene in split.scenes:
        if (wanted := cells.get(scene.scene)) not in (None, scene.codes.shape):
            raise InvalidInputError(
                f"{wanted} cells were expected for {scene.scene!r}, got {scene.codes.shape}. "
                "Export the version anew from the store that it was made in."
            )
    check_split(here, split)
    return write_split(here, split)
