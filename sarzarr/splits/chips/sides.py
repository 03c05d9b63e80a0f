"""The sides of chips: whole groups that share ground are drawn, with shares of chips, and of classes, that are kept.

Where one group is most of an archive, as of tiles that overlap all over a country, it is cut along blocks of the
world, and chips that train and lie on ground of another side are held back.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.conventions import Membership
from sarzarr.errors import InvalidInputError
from sarzarr.grids.world import METRES_PER_DEGREE
from sarzarr.splits.chips.ground import (
    ChipGrounds,
    block_groups,
    ground_groups,
    joined_groups,
    named_groups,
    overlapping,
)
from sarzarr.text import counted, listed

BLOCKS: Final = (1.0, 0.5, 0.25, 0.125, 0.0625)
"""Sides of the blocks that cut large groups, as shares of the ground that chips span, tried in turn."""
LARGE: Final = 0.5
"""Share of the smallest side above which a group is large."""
NEAR: Final = 2.0
"""Factor by which a side may be off before large groups are cut."""


@dataclass(frozen=True, kw_only=True)
class ChipRecipe:
    """The settings that, with the ground and the classes of chips, decide their sides."""

    val_fraction: float = 0.1
    """Share of the chips that is validation."""
    test_fraction: float = 0.0
    """Share of them that is test."""
    seed: int = 42
    """Another seed is another split."""
    balance: str | None = None
    """A column of the chips, or a set of labels on them, whose classes each side has in like shares."""
    group_by: str | None = None
    """A regular expression: chips whose names agree in what its first group, or all of it, finds stay together."""
    folds: int | None = None
    """Number of folds, each of which is the validation of one version; None where there are none."""
    fold: int | None = None
    """The fold, from 0, that is validation here."""

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1 or not 0 <= self.test_fraction < 1 - self.val_fraction:
            raise InvalidInputError(
                "fractions of validation above 0, of test from 0, and of both below 1 were expected, "
                f"got {self.val_fraction} and {self.test_fraction}."
            )
        if self.folds is not None and self.folds < 2:
            raise InvalidInputError(f"at least 2 folds were expected, got {self.folds}.")
        try:
            re.compile(self.group_by or "")
        except re.error as error:
            raise InvalidInputError(
                f"a regular expression was expected for group_by, got {self.group_by!r} ({error}). Try '^([^_]+)_'."
            ) from None

    @property
    def settings(self) -> dict[str, Any]:
        """Its fields by name, those that are None left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def shares(self) -> list[float]:
        """The share of each part that is drawn: train, val and test; or fold by fold, and test at the end."""
        if self.folds is not None:
            return [(1 - self.test_fraction) / self.folds] * self.folds + [self.test_fraction]
        return [1 - self.val_fraction - self.test_fraction, self.val_fraction, self.test_fraction]

    def codes_of(self, part: Array) -> Array:
        """Return the `Membership` (n,) uint8 of parts that were drawn."""
        if self.folds is None:
            return (part + int(Membership.TRAIN)).astype(np.uint8)
        codes = np.full(len(part), Membership.TRAIN, np.uint8)
        codes[part == self.fold] = Membership.VAL
        codes[part == self.folds] = Membership.TEST
        return codes


@dataclass(frozen=True, eq=False, kw_only=True)
class DividedChips:
    """Chips in parts, before folds become sides."""

    part: Array
    """(n,) int64: the number of each chip's share in `ChipRecipe.shares`."""
    block: float | None
    """Metres of a side of the blocks that large groups were cut along; None where groups are whole."""
    conflicts: Array
    """(pairs, 2) int64: chips of different parts that share ground; none where groups are whole."""

    def codes(self, recipe: ChipRecipe) -> Array:
        """Return the `Membership` (n,) uint8 of each chip: of two that share ground and differ one is held back.

        It is the one that trains; of validation and test the one of test.
        """
        codes = recipe.codes_of(self.part)
        for keeps, gives in ((Membership.VAL, Membership.TEST), (None, Membership.TRAIN)):
            a, b = np.concatenate([self.conflicts, self.conflicts[:, ::-1]]).T
            other = (
                np.isin(codes[b], (Membership.VAL, Membership.TEST)) if keeps is None else codes[b] == keeps
            )
            codes[a[(codes[a] == gives) & other]] = Membership.HELD_BACK
        return codes


def divide_chips(
    grounds: ChipGrounds, names: Sequence[str], recipe: ChipRecipe, classes: Array | None = None
) -> DividedChips:
    """Return chips (n,) in parts whose shares are a recipe's; ``classes`` (n,) int64, or (n, k) bool, are balanced.

    Raises `InvalidInputError` where chips have no place and nothing says which show the same ground, or a side would
    be empty.
    """
    group = _groups(grounds, names, recipe)
    n = len(group)
    weights = _class_weights(classes, n)
    made = DividedChips(
        part=drawn_parts(group, weights, recipe), block=None, conflicts=np.empty((0, 2), np.int64)
    )
    tried = [made]
    if recipe.group_by is None and _distance(made, recipe) > NEAR:
        least = LARGE * n * min(share for share in recipe.shares if share)
        large = np.bincount(group)[group] > least
        for block in _block_sizes(grounds, large):
            # Within a large group, what lies in one block is drawn as one.
            inner = block_groups(grounds, block) + group.max() + 1
            cut = np.unique(np.where(large, inner, group), return_inverse=True)[1].reshape(-1)
            tried.append(_cut(grounds, drawn_parts(cut, weights, recipe), large, block))
            if _distance(tried[-1], recipe) <= NEAR:
                break
    best = min(tried, key=partial(_distance, recipe=recipe))
    if math.isinf(_distance(best, recipe)):
        raise InvalidInputError(
            f"ground for every side was expected, got {counted(n, 'chip')} in "
            f"{counted(len(np.unique(group)), 'group')} that share none, and no cut along blocks gives each side a "
            "chip. Ask for other fractions, or add chips of other ground."
        )
    return best


def _groups(grounds: ChipGrounds, names: Sequence[str], recipe: ChipRecipe) -> Array:
    """Return (n,) int64: chips that must be on one side have one number."""
    adrift = np.flatnonzero(~grounds.is_placed)
    if adrift.size and recipe.group_by is None:
        raise InvalidInputError(
            f"chips whose ground is known were expected, got {adrift.size} of {len(names)} without georeference "
            f"({listed([names[i] for i in adrift.tolist()])}). Say by a regular expression which names show one "
            "ground: --group-by '^([^_]+)_', in Python group_by=."
        )
    group = ground_groups(grounds)
    return group if recipe.group_by is None else joined_groups(group, groups_by_name(names, recipe.group_by))


def groups_by_name(names: Sequence[str], group_by: str) -> Array:
    """Return (n,) int64: chips whose names agree in what `ChipRecipe.group_by` finds have one number.

    Raises `InvalidInputError` where it finds nothing in a name.
    """
    pattern = re.compile(group_by)

    def of_name(name: str) -> str:
        found = pattern.search(name)
        if found is None:
            raise InvalidInputError(
                f"a name that {group_by!r} finds something in was expected, got {name!r}. Mend --group-by, in Python "
                "group_by=."
            )
        return found[1] if pattern.groups and found[1] is not None else found[0]

    return named_groups(list(names), of_name)


def _class_weights(classes: Array | None, n: int) -> Array:
    """Return (n, k) float64: 1 for the classes of each chip, one column of ones where none are asked for."""
    if classes is None:
        return np.ones((n, 1))
    if classes.ndim == 2:
        return np.concatenate([classes.astype(np.float64), np.ones((n, 1))], axis=1)
    values, number = np.unique(classes, return_inverse=True)
    return np.asarray(number.reshape(-1, 1) == np.arange(len(values)), np.float64)


def drawn_parts(group: Array, weights: Array, recipe: ChipRecipe) -> Array:
    """Return (n,) int64: the part of each chip, one for all of a group (n,), drawn so that shares are met.

    ``weights`` (n, k) are the classes of chips. Larger groups are drawn first, each to a part by what that lacks;
    chips that are alone fill up what is left.
    """
    shares = np.array(recipe.shares)
    random = np.random.default_rng((recipe.seed, len(group)))
    wanted = shares[:, None] * weights.sum(axis=0)
    sizes = np.bincount(group)
    out = np.empty(len(group), np.int64)
    alone = sizes[group] == 1
    together = np.flatnonzero(~alone)
    if together.size:
        together = together[np.argsort(group[together], kind="stable")]
        numbers, first = np.unique(group[together], return_index=True)
        ends = np.append(first[1:], len(together))
        counts = np.add.reduceat(weights[together], first, axis=0)
        order = random.permutation(len(numbers))
        order = order[np.argsort(-sizes[numbers[order]], kind="stable")]
        for i in order.tolist():
            lack = np.maximum(wanted, 0) @ counts[i]
            fits = (wanted.sum(axis=1) >= counts[i].sum()) & (shares > 0)
            odds = np.where(fits, lack, 0)
            part = int(
                random.choice(len(shares), p=odds / odds.sum())
                if odds.sum() > 0
                else np.argmax(np.where(shares > 0, lack, -1))
            )
            wanted[part] -= counts[i]
            out[together[first[i] : ends[i]]] = part
    _fill_up(out, np.flatnonzero(alone), weights, np.maximum(wanted, 0), random)
    return out


def _fill_up(out: Array, chips: Array, weights: Array, wanted: Array, random: np.random.Generator) -> None:
    """Deal chips that are alone to the parts, class by class (of several by the rarest), as they are wanted."""
    if not chips.size:
        return
    rarity = np.where(weights[chips] > 0, weights.sum(axis=0), np.inf).argmin(axis=1)
    for kind in np.unique(rarity).tolist():
        mine = random.permutation(chips[rarity == kind])
        lack = wanted[:, kind] if wanted[:, kind].sum() > 0 else wanted.sum(axis=1)
        share = lack / lack.sum() if lack.sum() > 0 else np.eye(len(lack))[0]
        # Ends are rounded at random, so that classes of few chips are not all rounded one way.
        ends = np.floor(np.cumsum(share)[:-1] * len(mine) + random.random()).astype(np.int64)
        for part, some in enumerate(np.split(mine, np.clip(ends, 0, len(mine)))):
            out[some] = part


def _block_sizes(grounds: ChipGrounds, large: Array) -> list[float]:
    """Return sides of blocks in metres to be tried: from an eighth of what large groups span to a chip and a bit."""
    boxes = grounds[large & grounds.is_placed].extents
    if not len(boxes):
        return []
    middle = math.radians(float(boxes.north.max() + boxes.south.min()) / 2)
    turn = math.cos(middle)
    span = max(boxes.north.max() - boxes.south.min(), (boxes.east.max() - boxes.west.min()) * turn)
    chip = max(float(np.median(boxes.north - boxes.south)), float(np.median(boxes.east - boxes.west)) * turn)
    sizes = [span * share / 8 for share in BLOCKS]
    found = [size for size in sizes if size > 1.2 * chip] or [1.2 * chip]
    return [float(np.clip(size * METRES_PER_DEGREE, 1, 5e6)) for size in found]


def _cut(grounds: ChipGrounds, part: Array, large: Array, block: float) -> DividedChips:
    """Return parts whose groups were cut, with the chips of different parts that so share ground."""
    rows = np.flatnonzero(large)
    some = grounds[rows]
    first, place = some.places
    near = overlapping(some[first], np.arange(len(first)), np.arange(len(first)))
    # Chips of one place are dates of it: they are in one block, and so in one part.
    of_place = part[rows[first]]
    near = near[of_place[near[:, 0]] != of_place[near[:, 1]]]
    order = np.argsort(place, kind="stable")
    begin = np.searchsorted(place[order], np.arange(len(first) + 1))
    pairs = [np.empty((0, 2), np.int64)]
    for a, b in near.tolist():
        one, two = rows[order[begin[a] : begin[a + 1]]], rows[order[begin[b] : begin[b + 1]]]
        pairs.append(np.stack([np.repeat(one, len(two)), np.tile(two, len(one))], axis=1))
    return DividedChips(part=part, block=block, conflicts=np.concatenate(pairs))


def _distance(made: DividedChips, recipe: ChipRecipe) -> float:
    """Return the factor, 1 or more, by which a share of chips is furthest from what was asked for."""
    shares = recipe.shares
    if recipe.folds is not None:
        counts = np.bincount(made.part, minlength=len(shares)).astype(float)
    else:
        counts = np.bincount(made.codes(recipe), minlength=4)[1:].astype(float)
    wanted = np.array(shares) * len(made.part)
    asked = np.flatnonzero(np.array(shares) > 0)
    if (counts[asked] == 0).any():
        return math.inf
    ratio = counts[asked] / wanted[asked]
    return float(np.maximum(ratio, 1 / ratio).max())
