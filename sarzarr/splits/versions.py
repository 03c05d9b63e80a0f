"""The versions of a store's split: each a group ``splits/vN``, written whole and once.

A version is made beside its place and renamed, which fails where there is one: of two writers one wins, and a
reader sees a version whole or not at all.
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, SplitExistsError
from sarzarr.splits.assign import Grounds, SceneGround
from sarzarr.store.commit import consolidate
from sarzarr.store.documents import group_document, read_json, write_json
from sarzarr.store.membership import SPLITS
from sarzarr.store.split_table import (
    SceneCells,
    Split,
    checked,
    facts_of,
    placements,
    read_split,
    recipe_of,
    to_table,
    versions,
)
from sarzarr.store.store import Store, open_store
from sarzarr.store.tables import write_table

Sites = Mapping[str, str]
LAST: Final = "last_version"
"""Attribute of ``splits``: the highest version there ever was."""


def opened(store: Store | str | Path) -> Store:
    """Return a store as it is now, whatever an open one remembers."""
    return open_store(store.root if isinstance(store, Store) else store)


# ------------------------------------------------------------------ reading
def list_splits(store: Store | str | Path) -> tuple[Split, ...]:
    """Return every version, oldest first."""
    root = opened(store).root
    return tuple(read_split(root, v) for v in versions(root))


def get_split(store: Store | str | Path, version: int | None = None) -> Split:
    """Return a version, the newest if left out; `NotInStoreError` where there is none."""
    return read_split(opened(store).root, version)


def grounds_of(store: Store, sites: Sites | None = None, known: Split | None = None) -> Grounds:
    """Return the scenes of a store with their placements.

    Parameters
    ----------
    store
        The store.
    sites
        Names of sites by scene id or pattern (``2019*``); the first that fits counts.
    known
        A version whose names of sites hold where ``sites`` has none.

    Raises
    ------
    InvalidInputError
        A pattern fits no scene.
    """
    placed = placements(store.root, store.catalog)
    named = {s.scene: s.site for s in known.scenes} if known else {}
    for pattern in sites or {}:
        if not any(fnmatchcase(s, pattern) for s in placed):
            near = ", ".join(list(placed)[:5])
            raise InvalidInputError(
                f"sites of scenes in the store ({near}, ...) were expected, got {pattern!r}."
            )
    return Grounds(
        tuple(
            SceneGround(
                scene=scene, placement=placement, site=_site(scene, sites or {}) or named.get(scene, "")
            )
            for scene, placement in placed.items()
        )
    )


def _site(scene: str, sites: Sites) -> str:
    return next((name for pattern, name in sites.items() if fnmatchcase(scene, pattern)), "")


def patches_of(store: Store, split: Split, table: Any, name: str) -> Array:
    """Return (n,) bool: the patches of a `Store.patch_columns` table that are on one side of a split."""
    grids = {s: p.fingerprint for s, p in placements(store.root, store.catalog).items()}
    return split.patch_mask(table, SPLITS[name], grids)


# ------------------------------------------------------------------ writing
def next_version(root: Path) -> int:
    """Return a number that no version had, not even one that was removed."""
    document = root / cv.SPLITS / "zarr.json"
    last = read_json(document)["attributes"].get(LAST, 0) if document.exists() else 0
    return max((last, *versions(root))) + 1


def write_split(store: Store, split: Split) -> Split:
    """Write a version as ``splits/vN``, whole and once; return it.

    Raises
    ------
    SplitExistsError
        That version is there: it never changes.
    """
    folder = store.root / cv.SPLITS
    if not (folder / "zarr.json").exists():
        write_json(folder / "zarr.json", group_document())
    try:
        write_table(folder / split.name, to_table(split), once=True)
    except FileExistsError:
        raise SplitExistsError(
            f"a new version was expected, got {split.name}, which another process wrote first. Run this again: "
            "it takes that version up."
        ) from None
    write_json(folder / "zarr.json", group_document({LAST: next_version(store.root) - 1}))
    consolidate(store)
    return split


DOCUMENT: Final = "sarzarr_split"
"""The key of a JSON document that holds its format's number."""
FORMAT: Final = 1


def to_json(split: Split) -> str:
    """Return a split as JSON, a line of digits a row of cells; the inverse of `from_json`."""
    scenes = [
        {
            **{k: getattr(s, k) for k in ("scene", "grid", "place", "site", "since")},
            "codes": ["".join(map(str, row)) for row in s.codes.tolist()],
        }
        for s in split.scenes
    ]
    units = [f"{u:016x}" for u in split.fixed_units.tolist()]
    document = {DOCUMENT: FORMAT, **facts_of(split), "fixed_units": units, "scenes": scenes}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Split:
    """Return the split that `to_json` wrote.

    Raises
    ------
    InvalidInputError
        It is no such document.
    CorruptStoreError
        It does not have the fingerprint that it says.
    """
    try:
        facts = json.loads(text)
        if facts[DOCUMENT] != FORMAT:
            raise InvalidInputError(f"a split of format {FORMAT} was expected, got {facts[DOCUMENT]!r}.")
        split = Split(
            version=int(facts["version"]),
            recipe=recipe_of(facts),
            scenes=tuple(_scene_of(s) for s in facts["scenes"]),
            fixed_units=np.array([int(u, 16) for u in facts["fixed_units"]], np.uint64),
            parent=facts["parent"],
            created_at=str(facts["created_at"]),
            notes=str(facts["notes"]),
        )
        fingerprint = str(facts["fingerprint"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"a split that `sarzarr split STORE export` wrote was expected, got another document ({error})."
        ) from None
    return checked(split, fingerprint)


def _scene_of(said: Mapping[str, Any]) -> SceneCells:
    codes = np.array([[int(c) for c in row] for row in said["codes"]], np.uint8)
    if codes.ndim != 2 or codes.max(initial=0) > max(cv.Membership):
        raise InvalidInputError(
            f"rows of digits 0 to {max(cv.Membership)} were expected for {said['scene']!r}."
        )
    return SceneCells(codes=codes, **{k: said[k] for k in ("scene", "grid", "place", "site", "since")})
