"""Versions of a collection's split: tables ``splits/collections/<name>/vN``, a code a chip, written once.

A version knows the chips that were there when it was made, by a digest of their ids; those that came later are held
back in it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import NotInStoreError, SplitExistsError, StoreChangedError
from sarzarr.store.collections import Collection
from sarzarr.store.commit import changing
from sarzarr.store.documents import ensure_groups, named, read_node, update_node
from sarzarr.store.limits import check_within
from sarzarr.store.membership import parse_choice
from sarzarr.store.split_table import LAST, last_version, versions
from sarzarr.store.tables import read_table, write_table
from sarzarr.text import counted

_FACTS: Final = ("created_at", "recipe", "digest", "parent", "notes", "shared")


@dataclass(frozen=True, eq=False, kw_only=True)
class ChipSplit:
    """One version of the split of a collection."""

    version: int
    """1, 2, ...; never used again."""
    codes: Array
    """(n,) uint8 of `sarzarr.conventions.Membership`, by row of the table of chips; later ones are held back."""
    digest: str
    """What tells the ids of its chips from others."""
    recipe: Mapping[str, Any]
    """What decided it: ``kind`` is ``ground`` or ``lists``, and the settings of that."""
    created_at: str
    """UTC, ISO 8601 with Z."""
    parent: int | None = None
    """The version that this one extends."""
    notes: str = ""
    """What its maker wrote."""
    shared: Mapping[str, Any] = field(default_factory=dict)
    """Ground on two sides, where lists decided: by pair, ``val/train``, ``chips``, ``of`` and ``area`` in m²."""

    @property
    def name(self) -> str:
        """``v1``."""
        return f"v{self.version}"

    @cached_property
    def counts(self) -> dict[str, int]:
        """Chips of each membership, by name."""
        found = np.bincount(self.codes, minlength=len(cv.Membership))
        return {m.name.lower(): int(found[m]) for m in cv.Membership}

    def mask(self, side: int, chips: int) -> Array:
        """Return (chips,) bool: which chips of the table are of one membership."""
        codes = np.zeros(chips, np.uint8)
        codes[: len(self.codes)] = self.codes
        mask: Array = codes == side
        return mask

    @property
    def told(self) -> list[str]:
        """Sentences about ground that is on two sides, none where no ground is."""
        return [leak_text(pair, **facts) for pair, facts in self.shared.items() if facts["chips"]]

    def __repr__(self) -> str:
        said = ", ".join(f"{n} {k.replace('_', ' ')}" for k, n in self.counts.items())
        return f"<sarzarr.ChipSplit {self.name}: {counted(len(self.codes), 'chip')}: {said}>"


_WORDS: Final = {"train": "training", "val": "validation", "test": "test"}


def leak_text(pair: str, *, chips: int, of: int, area: float) -> str:
    """Return the sentence that says how much ground, in square metres, chips of two sides share.

    >>> leak_text("val/train", chips=37, of=504, area=12.4e6)
    '37 of 504 validation chips share ground with training chips (12.4 km²)'
    """
    one, other = (_WORDS[side] for side in pair.split("/"))
    size = f"{area / 1e6:.3g} km²" if area >= 1e4 else f"{area:.3g} m²"
    verb = "shares" if chips == 1 else "share"
    return f"{chips} of {of} {one} chips {verb} ground with {other} chips ({size})"


def ids_digest(collection: Collection, chips: int | None = None) -> str:
    """Return what tells the ids of the first so many chips of a collection, or of all, from others: 32 hex digits."""
    return blake2b("\n".join(collection.ids[:chips]).encode(), digest_size=16).hexdigest()


def _key(name: str) -> str:
    return f"{cv.SPLITS}/{cv.COLLECTIONS}/{name}"


def chip_split_versions(collection: Collection) -> tuple[int, ...]:
    """Return the versions of a collection's split, ascending."""
    return versions(collection.store.place, _key(collection.name))


def write_chip_split(collection: Collection, split: ChipSplit) -> ChipSplit:
    """Write a version, codes (n,) uint8, once, and return it; `SplitExistsError` where it is there."""
    key = _key(collection.name)
    facts = {name: getattr(split, name) for name in _FACTS} | {"recipe": dict(split.recipe)}
    table = xr.Dataset(
        {"code": ("chip", split.codes)},
        attrs={
            **facts,
            "version": split.version,
            "counts": split.counts,
            "code_meanings": " ".join(m.name.lower() for m in cv.Membership),
        },
    )
    with changing(collection.store) as draft:
        ensure_groups(draft.place, cv.SPLITS, f"{cv.SPLITS}/{cv.COLLECTIONS}", key)
        try:
            write_table(draft.place, f"{key}/{split.name}", table, once=True)
        except FileExistsError:
            raise SplitExistsError(
                f"a new version of the split of {collection.name!r} was expected, got {split.name}, which another "
                "process wrote first. Run this again: it takes that version up."
            ) from None
        update_node(draft.place, key, {LAST: max(split.version, last_version(draft.place, key))})
    return split


def next_chip_split(collection: Collection) -> int:
    """Return a number that no version of a collection's split had."""
    place, key = collection.store.place, _key(collection.name)
    return max((last_version(place, key), *versions(place, key))) + 1


def read_chip_split(collection: Collection, version: int | None = None) -> ChipSplit:
    """Return a version, codes (n,) uint8, the newest if left out.

    Raises `NotInStoreError` where there is no such version; `StoreChangedError` where other chips are in the place of
    those that it knows; `CorruptStoreError` as `read_table`.
    """
    known = chip_split_versions(collection)
    if not known:
        raise NotInStoreError(
            f"a split of {collection.name!r} must be made before one is read, got none. Make one with "
            f"`sarzarr split create STORE --collection {collection.name}`, or leave out split=."
        )
    if version is not None and version not in known:
        names = ", ".join(f"v{v}" for v in known)
        raise NotInStoreError(f"a split version among {names} was expected, got v{version}.")
    key = f"{_key(collection.name)}/v{known[-1] if version is None else version}"
    table = read_table(collection.store.place, key)
    with named(collection.store.place, f"{key}/zarr.json"):
        codes, facts = table["code"].values, table.attrs
        check_within(codes, 0, max(cv.Membership), "code")
        split = ChipSplit(
            version=int(facts["version"]),
            codes=codes.astype(np.uint8),
            **{name: facts[name] for name in _FACTS},
        )
    if len(codes) > len(collection) or ids_digest(collection, len(codes)) != split.digest:
        raise StoreChangedError(
            f"the chips that split {split.name} of {collection.name!r} was made of were expected, got others: the "
            f"collection was replaced. Make another: sarzarr split create STORE --collection {collection.name}."
        )
    return split


def chip_folds(collection: Collection) -> dict[int, int]:
    """Return the newest version of each fold of the newest recipe with folds, by fold."""
    out: dict[int, int] = {}
    wanted: dict[str, Any] | None = None
    for version in reversed(chip_split_versions(collection)):
        node = read_node(collection.store.place, f"{_key(collection.name)}/v{version}")
        recipe = dict(node["attributes"]["recipe"])
        fold = recipe.pop("fold", None)
        if fold is None:
            continue
        wanted = recipe if wanted is None else wanted
        if recipe == wanted:
            out.setdefault(int(fold), version)
    return dict(sorted(out.items()))


def chip_side(collection: Collection, text: str) -> Array:
    """Return (chips,) bool: the chips of a side that a user asks for: ``train``, ``v2:val``, ``fold0:train``.

    Raises as `parse_choice` and `read_chip_split`; `NotInStoreError` where there is no such fold.
    """
    fold, _, side = text.partition(":")
    if re.fullmatch(r"fold[0-9]{1,9}", fold):
        known, (_, wanted) = chip_folds(collection), parse_choice(side)
        if (number := int(fold.removeprefix("fold"))) not in known:
            names = ", ".join(f"fold{n}" for n in known) or "none"
            raise NotInStoreError(
                f"a fold among {names} was expected, got {fold!r}. Make some with `sarzarr split create STORE "
                f"--collection {collection.name} --folds 5`."
            )
        version: int | None = known[number]
    else:
        version, wanted = parse_choice(text)
    return read_chip_split(collection, version).mask(wanted, len(collection))
