"""Cell sizes tried until both sides of a split get their share."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import zip_longest
from typing import Any, Final

from sarzarr import conventions as cv
from sarzarr.errors import SplitLeakError
from sarzarr.grids.world import parse_length
from sarzarr.splits.assign import WORLD, Grounds, assign, check
from sarzarr.splits.versions import patches_of
from sarzarr.store.split_table import Recipe, Split
from sarzarr.store.store import Store
from sarzarr.text import counted

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


def distance_from_shares(split: Split) -> float:
    """Return the factor, 1 or more, between the shares in [0, 1] of validation that there are and were asked for."""
    ratio = split.val_ratio / split.recipe.val_fraction
    return max(ratio, 1 / ratio)


def split_choices(grounds: Grounds, options: Mapping[str, Any], newest: Sequence[Recipe]) -> Iterator[Recipe]:
    """Yield the recipe that is asked for; where its block is left open, the ones to try in turn.

    First what the ``newest`` version has, so that the same call means the same split when the store has grown. Then
    10 km (doubled until a few cells of the coarsest scene fit in), 8, 6.3, 5 km and so on down to what hardly holds a
    cell, and 1024, 512 and 256 pixels; then the same with more blocks drawn. What no scene needs, metres or pixels,
    stays at its default. A block that is given is kept, and no more are drawn: stores that are told the same agree.
    """
    left_open = [k for k in ("block", "pixel_block") if options.get(k) in (None, "auto")]
    options = {k: v for k, v in options.items() if k not in left_open}
    lengths = {k: parse_length(options[k]) for k in ("block", "guard") if options.get(k) is not None}
    recipe = Recipe(**{**options, **lengths})
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
    for more in MORE_DRAWN if "block" in left_open and recipe.folds is None else (1,):
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


def empty_side(store: Store, split: Split) -> str:
    """Return the name of a side that would have no cell, or no valid patch in the default index."""
    wanted = ["train", "val"] + ["test"] * (split.recipe.test_fraction > 0)
    if empty := [name for name in wanted if not split.counts[name]]:
        return empty[0]
    if cv.DEFAULT_INDEX not in store.patch_indices:
        return ""
    table = store.patch_columns()
    seen = table["valid_fraction"].values > 0
    empty = [n for n in wanted if seen.any() and not (patches_of(store, split, table, n) & seen).any()]
    return empty[0] if empty else ""


def empty_message(store: Store, side: str, split: Split, grounds: Grounds) -> str:
    """Return what a split lacks, why (in metres), and its remedy: a change is named only where it was tried."""
    recipe, cells = split.recipe, counted(sum(split.counts.values()), "cell")
    none = "none with a valid patch" if split.counts[side] else "none"
    drawn = f"blocks of {' and '.join(split.blocks)}" if split.blocks else f"whole {recipe.by}s"
    text = (
        f"ground on every side was expected, got {none} for {side!r} from {counted(len(split.scenes), 'scene')} by "
        f"{recipe.by} ({drawn}, seed {recipe.seed}; {split.held_back_share:.0%} of {cells} are held back)."
    )
    cell = _largest_cell(grounds)
    if is_small := recipe.by == "ground" and recipe.block < cell:
        text += (
            f" A cell of {cv.CELL} pixels is {cell:.0f} m here, more than a block of {recipe.block:g} m, and what "
            "touches blocks of two sides is held back."
        )
    for name, value in _other_choices(recipe, cell):
        if _is_divided(store, split, grounds, replace(recipe, **{name: value})):
            why = "larger than a cell" if is_small else "many, and hold several cells"
            advice = f": blocks should be {why}" if name in ("block", "pixel_block") else ""
            return (
                f"{text} There would be some with {name}={value if name == 'by' else f'{value:g}'}{advice}."
            )
    if recipe.by == "ground":
        return f"{text} No other block or seed that was tried divides it: add scenes of other ground."
    return f"{text} No other seed or val_fraction that was tried gives one: split by ground, or add scenes."


def _is_divided(store: Store, split: Split, grounds: Grounds, recipe: Recipe) -> bool:
    """Return whether another recipe would give every side something, and leak nothing."""
    other = replace(split, recipe=recipe, scenes=assign(grounds, recipe, version=1))
    with suppress(SplitLeakError):
        if not empty_side(store, other):
            check(grounds, other.scenes)
            return True
    return False


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
