"""Versions of a collection's split: tables ``splits/collections/<name>/vN``, a code a chip, written once.

A version knows the chips that were there when it was made by their ids, sizes and places; those that came later, or
were replaced by others of another place, are held back in it.
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
from sarzarr.errors import NotInStoreError, SplitExistsError
from sarzarr.grids.world import key_of, mix
from sarzarr.store.collections import Collection
from sarzarr.store.commit import changing
from sarzarr.store.documents import ensure_groups, named, read_node, update_node
from sarzarr.store.limits import check_within
from sarzarr.store.membership import parse_choice
from sarzarr.store.split_table import LAST, last_version, versions
from sarzarr.store.tables import read_table, write_table
from sarzarr.text import counted

_FACTS: Final = ("created_at", "recipe", "parent", "notes", "shared")


@dataclass(frozen=True, eq=False, kw_only=True)
class ChipSplit:
    """One version of the split of a collection."""

    version: int
    """1, 2, ...; never used again."""
    codes: Array
    """(n,) uint8 of `sarzarr.conventions.Membership`, in the order of ``keys``."""
    keys: Array
    """(n,) uint64: `chip_keys` of its chips."""
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

    def codes_of(self, keys: Array) -> Array:
        """Return the membership (chips,) uint8 of chips by their keys (chips,); held back where unknown."""
        order = np.argsort(self.keys)
        at = np.minimum(np.searchsorted(self.keys, keys, sorter=order), max(len(order) - 1, 0))
        found = order[at] if len(order) else at
        known = self.keys[found] == keys if len(order) else np.zeros(len(keys), bool)
        codes: Array = np.where(known, self.codes[found], cv.Membership.HELD_BACK).astype(np.uint8)
        return codes

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


def chip_keys(collection: Collection) -> Array:
    """Return (n,) uint64: what tells each chip of a collection from others: a hash of its id, size and place."""
    table = collection.table
    digests = b"".join(blake2b(name.encode(), digest_size=8).digest() for name in collection.ids)
    keys = np.frombuffer(digests, "<u8").astype(np.uint64)
    crs = np.array([key_of(wkt) for wkt in (*collection.contents.crs, "")], np.uint64)[table["crs"].values]
    columns = [table[name].values.astype(np.int64) for name in ("height", "width")]
    for values in (crs, *columns, *(table["transform"].values.T + 0.0)):
        keys = mix(keys ^ np.ascontiguousarray(values).view(np.uint64))
    return keys


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
        {"key": ("chip", split.keys), "code": ("chip", split.codes)},
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

    Raises `NotInStoreError` where there is no such version; `CorruptStoreError` as `read_table`.
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
        return ChipSplit(
            version=int(facts["version"]),
            codes=codes.astype(np.uint8),
            keys=table["key"].values.astype(np.uint64),
            **{name: facts[name] for name in _FACTS},
        )


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
    mask: Array = read_chip_split(collection, version).codes_of(chip_keys(collection)) == wanted
    return mask
