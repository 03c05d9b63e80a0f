"""The versions of a store's split: each a group ``splits/vN``, written whole and once.

A version is made beside its place and renamed, which fails where there is one: of two writers one wins, and a
reader sees a version whole or not at all.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, SplitExistsError
from sarzarr.splits.assign import Grounds, SceneGround
from sarzarr.store.commit import changing
from sarzarr.store.documents import ensure_groups, update_node
from sarzarr.store.membership import SPLITS
from sarzarr.store.place import Place
from sarzarr.store.split_table import LAST, Split, last_version, read_split, to_table, versions
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.store.tables import write_table

log = logging.getLogger(__name__)
Sites = Mapping[str, str]
"""Names of sites by scene id or pattern (``2019*``)."""


def utc_now(timespec: str = "seconds") -> str:
    """Return the time in UTC, ISO 8601 with Z, to seconds or what ``timespec`` says.

    >>> utc_now()[10::9]
    'TZ'
    """
    return datetime.now(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def list_splits(store: AnyStore) -> tuple[Split, ...]:
    """Return every version, codes (rows, columns) uint8 per scene, oldest first."""
    place = open_store(store).place
    return tuple(read_split(place, v) for v in versions(place))


def get_split(store: AnyStore, version: int | None = None) -> Split:
    """Return a version, codes (rows, columns) uint8 per scene, the newest if left out; as of `read_split`."""
    return read_split(open_store(store).place, version)


def grounds_of(store: Store, sites: Sites | None = None, known: Split | None = None) -> Grounds:
    """Return the scenes of a store with their placements and sites: of patterns the first that fits counts.

    Those of layers alone, of which nothing is trained on, are left out. Without a name in ``sites`` the ``known``
    version's holds. `InvalidInputError` where a pattern fits no scene.
    """
    trained = {*store.catalog["scene"].values.tolist()}
    placed = {scene: place for scene, place in store.placements.items() if scene in trained}
    named = {s.scene: s.site for s in known.scenes} if known else {}
    for pattern, name in reversed(list((sites or {}).items())):
        fitting = [scene for scene in placed if fnmatchcase(scene, pattern)]
        if not fitting:
            near = ", ".join(list(placed)[:5])
            raise InvalidInputError(
                f"sites of scenes in the store ({near}, ...) were expected, got {pattern!r}. Mend the pattern."
            )
        named |= dict.fromkeys(fitting, name)
    return Grounds(tuple(SceneGround(scene=s, placement=p, site=named.get(s, "")) for s, p in placed.items()))


def patches_of(store: Store, split: Split, table: Any, name: str) -> Array:
    """Return (n,) bool: the patches of a `Store.patch_columns` table that are on one side of a split."""
    return split.patch_mask(table, SPLITS[name], store.grids)


def next_version(place: Place) -> int:
    """Return a number that no version had, not even one that was removed."""
    return max((last_version(place), *versions(place))) + 1


def write_split(store: Store, split: Split) -> Split:
    """Write a version, codes uint8, as ``splits/vN`` and return it; `SplitExistsError` where it is there."""
    with changing(store) as draft:
        ensure_groups(draft.place, cv.SPLITS)
        try:
            write_table(draft.place, f"{cv.SPLITS}/{split.name}", to_table(split), once=True)
        except FileExistsError:
            raise SplitExistsError(
                f"a new version was expected, got {split.name}, which another process wrote first. Run this again: "
                "it takes that version up."
            ) from None
        update_node(draft.place, cv.SPLITS, {LAST: next_version(draft.place) - 1})
    log.info("%s: wrote %r", store.place.name, split)
    return split
