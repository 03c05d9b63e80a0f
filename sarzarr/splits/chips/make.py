"""Splits of a collection: made by ground, and checked before they are written."""

import logging
from dataclasses import replace
from itertools import combinations
from typing import Any, TypedDict, Unpack

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, SplitExistsError, SplitLeakError
from sarzarr.keywords import shows_options
from sarzarr.splits.chips.ground import ChipGrounds, overlapping, shared_ground_of
from sarzarr.splits.chips.sides import ChipRecipe, divide_chips, groups_by_name
from sarzarr.splits.versions import utc_now
from sarzarr.store.chip_columns import chip_columns
from sarzarr.store.chip_labels import label_sets, read_labels
from sarzarr.store.chip_splits import (
    ChipSplit,
    chip_folds,
    chip_keys,
    chip_split_versions,
    next_chip_split,
    read_chip_split,
    write_chip_split,
)
from sarzarr.store.collections import Collection, open_collection
from sarzarr.store.store import AnyStore
from sarzarr.text import counted

log = logging.getLogger(__name__)


class ChipSplitKeywords(TypedDict, total=False):
    """Fields of `ChipRecipe` that are asked for."""

    val_fraction: float
    test_fraction: float
    seed: int
    balance: str | None
    group_by: str | None
    folds: int | None


def chip_grounds(collection: Collection) -> ChipGrounds:
    """Return where the chips of a collection lie: CRSs, transforms (n, 6), and shapes (n, 2) in pixels."""
    table = collection.table
    return ChipGrounds(
        crs=collection.contents.crs,
        number=table["crs"].values.astype(np.int64),
        transform=table["transform"].values,
        shape=np.stack([table["height"].values, table["width"].values], axis=1).astype(np.int64),
    )


@shows_options(ChipRecipe, ChipSplitKeywords)
def split_collection(
    store: AnyStore,
    collection: str,
    *,
    notes: str = "",
    fresh: bool = False,
    dry_run: bool = False,
    **recipe: Unpack[ChipSplitKeywords],
) -> tuple[ChipSplit, ...]:
    """Split the chips of a collection so that no ground is on two sides, and write it as a new version; return it.

    Chips that show common ground, on any date and in any CRS, are on one side; shares are of chips. Where nearly all
    of them hang together, they are cut along blocks of the world, and those that train and reach onto validation or
    test are held back. The same call on the same chips returns what is there. With ``folds`` it returns as many
    versions, each with another fold as validation; ``split="fold0:train"`` reads one.

    Parameters
    ----------
    store
        A `Store`, or its path.
    collection
        Name of the collection.
    notes
        Kept with the version.
    fresh
        Begin anew, with a validation of its own, where there are versions already. They stay.
    dry_run
        Write nothing.
    **recipe
        The fields of `ChipRecipe`.

    Raises `InvalidInputError` where chips have no georeference and ``group_by`` does not say which show the same
    ground, or a side would be empty; `SplitExistsError` where there is a split of another recipe or of fewer chips;
    `NotInStoreError` where there is no such collection.
    """
    made = open_collection(store, collection)
    wanted = ChipRecipe(**recipe)
    grounds, keys = chip_grounds(made), chip_keys(made)
    if not fresh and (known := _known(made, wanted, keys)):
        return known
    classes = None if wanted.balance is None else _classes(made, wanted.balance)
    divided = divide_chips(grounds, made.ids, wanted, classes)
    out: list[ChipSplit] = []
    for fold in range(wanted.folds) if wanted.folds is not None else (None,):
        one = replace(wanted, fold=fold)
        settings: dict[str, Any] = {"kind": "ground", **one.settings}
        if divided.block is not None:
            settings["block"] = divided.block
        split = ChipSplit(
            version=next_chip_split(made) + (len(out) if dry_run else 0),
            codes=divided.codes(one),
            keys=keys,
            recipe=settings,
            created_at=utc_now(),
            notes=notes,
        )
        _check(grounds, split)
        out.append(split if dry_run else write_chip_split(made, split))
        log.info("%s, collections/%s: %r", made.store.place.name, collection, split)
    return tuple(out)


def extend_chip_split(store: AnyStore, collection: str, *, notes: str = "") -> ChipSplit:
    """Write a version that knows chips which came since, codes (n,) uint8; return it, or the newest if none came.

    What is known stays as it is. New chips train; those that lie on ground of validation or test are held back, and
    so are those without a place, and those whose names are grouped with one of validation or test. Raises
    `NotInStoreError` where there is no version to extend.
    """
    made = open_collection(store, collection)
    parent = read_chip_split(made)
    keys = chip_keys(made)
    fresh = np.flatnonzero(~np.isin(keys, parent.keys))
    if not fresh.size:
        return parent
    grounds, codes = chip_grounds(made), parent.codes_of(keys)
    closed = np.flatnonzero(np.isin(codes, (cv.Membership.VAL, cv.Membership.TEST)))
    codes[fresh[grounds.is_placed[fresh]]] = cv.Membership.TRAIN
    codes[overlapping(grounds, fresh, closed)[:, 0]] = cv.Membership.HELD_BACK
    if (group_by := parent.recipe.get("group_by")) is not None:
        group = groups_by_name(made.ids, group_by)
        codes[fresh[np.isin(group[fresh], group[closed])]] = cv.Membership.HELD_BACK
    split = ChipSplit(
        version=next_chip_split(made),
        codes=codes,
        keys=keys,
        recipe=parent.recipe,
        created_at=utc_now(),
        parent=parent.version,
        notes=notes,
        shared=parent.shared,
    )
    return write_chip_split(made, split)


def _known(made: Collection, wanted: ChipRecipe, keys: Array) -> tuple[ChipSplit, ...]:
    """Return the versions that the same call on the same chips wrote, none where there are none, or refuse."""
    folds = chip_folds(made) if wanted.folds is not None else {}
    numbers = [*folds.values()] or [*chip_split_versions(made)[-1:]]
    found = tuple(read_chip_split(made, number) for number in numbers)
    same = {"kind": "ground", **wanted.settings}
    for one in found:
        if {k: v for k, v in one.recipe.items() if k not in ("block", "fold")} != same:
            raise SplitExistsError(
                f"the recipe of {one.name} of {made.name!r} was expected, got another one. Use it as it is, or pass "
                "fresh=True (--fresh) to begin a new one beside it."
            )
        if not np.array_equal(np.sort(one.keys), np.sort(keys)):
            raise SplitExistsError(
                f"the {len(one.codes)} chips of {one.name} were expected, got {len(made)}. Call extend_chip_split "
                f"(`sarzarr split extend STORE --collection {made.name}`)."
            )
    return found if len(found) == (wanted.folds or 1) else ()


def _classes(made: Collection, name: str) -> Array:
    """Return (n,) int64 or (n, k) bool: the classes of chips, of a set of labels, a column or a fact."""
    if name in label_sets(made):
        targets = read_labels(made, name).targets
        return targets > 0 if targets.ndim == 2 else targets
    columns = chip_columns(made)
    if name not in columns:
        known = ", ".join(sorted({*columns, *label_sets(made)}))
        raise InvalidInputError(f"labels or a column among {known} were expected for balance, got {name!r}.")
    values = columns[name]
    texts = values.astype(str) if values.dtype.kind == "O" else values
    return np.unique(texts, return_inverse=True)[1].reshape(-1)


def shared_ground_by_pair(grounds: ChipGrounds, codes: Array) -> dict[str, dict[str, Any]]:
    """Return, for each two sides with chips, how many of the first share ground with the second, and m² of it."""
    out = {}
    for one, other in combinations((cv.Membership.VAL, cv.Membership.TEST, cv.Membership.TRAIN), 2):
        rows = [np.flatnonzero(codes == side) for side in (one, other)]
        if len(rows[0]) and len(rows[1]):
            found = shared_ground_of(grounds, *rows)
            pair = f"{one.name.lower()}/{other.name.lower()}"
            out[pair] = {"chips": len(found.chips), "of": len(rows[0]), "area": found.area}
    return out


def check_chip_split(store: AnyStore, collection: str, version: int | None = None) -> ChipSplit:
    """Return a version, the newest if left out; `SplitLeakError`, with chips and km², where sides share ground."""
    made = open_collection(store, collection)
    split = read_chip_split(made, version)
    shared = shared_ground_by_pair(chip_grounds(made), split.codes_of(chip_keys(made)))
    _refuse(split, shared)
    return split


def _check(grounds: ChipGrounds, split: ChipSplit) -> None:
    """Raise `SplitLeakError` where chips of two sides share ground."""
    for one, other in combinations((cv.Membership.VAL, cv.Membership.TEST, cv.Membership.TRAIN), 2):
        rows = [np.flatnonzero(split.codes == side) for side in (one, other)]
        if len(overlapping(grounds, *rows)):
            _refuse(split, shared_ground_by_pair(grounds, split.codes))


def _refuse(split: ChipSplit, shared: dict[str, dict[str, Any]]) -> None:
    if told := replace(split, shared=shared).told:
        raise SplitLeakError(
            f"a split of {counted(len(split.codes), 'chip')} whose sides share no ground was expected, got "
            f"{split.name}, where {'; '.join(told)}. Make another by ground: split_collection(..., fresh=True)."
        )
