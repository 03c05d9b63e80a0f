"""Splits checked, and exchanged as JSON documents."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, SplitExistsError, SplitLeakError
from sarzarr.files import whole_file
from sarzarr.splits.assign import check
from sarzarr.splits.make import pending_of
from sarzarr.splits.samples.backends import SampleSplit
from sarzarr.splits.samples.products import leaking
from sarzarr.splits.versions import get_split, grounds_of, write_split
from sarzarr.store import split_table
from sarzarr.store.limits import read_text
from sarzarr.store.samples import SampleSet, open_samples
from sarzarr.store.split_table import SceneCells, Split, read_split, versions
from sarzarr.store.store import AnyStore, open_store
from sarzarr.text import listed

log = logging.getLogger(__name__)
DOCUMENT: Final = "sarzarr_split"
"""The key of a JSON document that holds its format's number."""
FORMAT: Final = 1
SCENE: Final = ("scene", "grid", "place", "site", "since")
"""The facts of a scene, beside its codes."""


def check_split(store: AnyStore, split: Split | SampleSplit, *, samples: str | None = None) -> None:
    """Raise `SplitLeakError` unless no ground, in cells of 256 x 256 pixels, is on two sides, as the store now is.

    Of a set of ``samples`` that `sarzarr.import_npy` took in, where positions are gone: unless no product is on two
    sides, and no patch that trains shares a quarter, by its hash, with one of validation. `InvalidInputError` where
    the set has no hashes.
    """
    if isinstance(split, SampleSplit):
        if samples is None:
            raise InvalidInputError("the name of a set was expected with its split, got none. Pass samples=.")
        _check_samples(open_samples(store, samples), split)
        return
    grounds = grounds_of(open_store(store).anew(), known=split)
    stale = set(pending_of(grounds, split).changed)
    check(grounds, [s for s in split.scenes if s.scene not in stale])


def _check_samples(made: SampleSet, split: SampleSplit) -> None:
    ids = np.array(made.ids)
    train, val = (np.flatnonzero(np.isin(ids, some)) for some in (split.train_samples, split.val_samples))
    shared, rows = leaking(made.table, train, val, (made.layout.height, made.layout.width))
    if len(rows):
        raise SplitLeakError(
            f"patches that share nothing with validation were expected in v{split.version} of {made.name!r}, got "
            f"{len(rows)} that share {shared}: {listed(ids[rows].tolist())}. Make another with "
            "SplitManager.create_initial_split(..., force=True)."
        )


def export_split(store: AnyStore, path: str | Path, version: int | None = None) -> Path:
    """Write a version as JSON, codes (rows, columns) in digits, the newest if left out; return the path.

    `NotInStoreError` where there is no such version, `InvalidInputError` where nothing can be written to the path.
    """
    place, text = Path(path), to_json(get_split(store, version))
    try:
        with whole_file(place) as partial:
            partial.write_text(text)
    except OSError as error:
        raise InvalidInputError(
            f"a path that a file can be written to was expected, got {str(place)!r} ({error.strerror}). "
            "Give a file in a folder that is there."
        ) from None
    log.info("wrote %s", place)
    return place


def import_split(store: AnyStore, path: str | Path) -> Split:
    """Write the version that a JSON document holds, codes (rows, columns) uint8, into a store; return it.

    It keeps its number, and scenes that the store does not hold keep their memberships, should they come.
    `SplitExistsError` where the store has another version of that number, `SplitLeakError` where ground would be on
    two sides, `InvalidInputError` where there is no such document, or a scene of the store has another grid.
    """
    here = open_store(store).anew()
    try:
        text = read_text(Path(path), "a split that `sarzarr split export` wrote")
    except OSError as error:
        raise InvalidInputError(
            f"a split that `sarzarr split export` wrote was expected at {str(path)!r}, got nothing that can be "
            f"read as text ({error.strerror}). Give the path of one."
        ) from None
    split = from_json(text)
    if split.version in versions(here.place):
        known = read_split(here.place, split.version)
        if known.fingerprint == split.fingerprint:
            return known
        raise SplitExistsError(
            f"a store without {split.name} was expected, got one with another {split.name}. "
            "Versions never change: import into a store that has none of that number."
        )
    grounds = grounds_of(here)
    if changed := pending_of(grounds, split).changed:
        raise InvalidInputError(
            f"the grid that {split.name} knows was expected for {changed[0]!r}, got another. "
            "Import it into the store that it was made for."
        )
    cells = {g.scene: g.placement.cells for g in grounds.scenes}
    for s in split.scenes:
        if (wanted := cells.get(s.scene)) not in (None, s.codes.shape):
            raise InvalidInputError(
                f"{wanted} cells were expected for {s.scene!r}, got {s.codes.shape}. "
                "Export the version anew from the store that it was made in."
            )
    check_split(here, split)
    return write_split(here, split)


def to_json(split: Split) -> str:
    """Return a split as JSON, codes (rows, columns) as a line of digits per row; the inverse of `from_json`."""
    scenes = [
        {**{k: getattr(s, k) for k in SCENE}, "codes": ["".join(map(str, row)) for row in s.codes.tolist()]}
        for s in split.scenes
    ]
    units = [f"{u:016x}" for u in split.fixed_units.tolist()]
    document = {DOCUMENT: FORMAT, **split_table.facts_of(split), "fixed_units": units, "scenes": scenes}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Split:
    """Return the split that `to_json` wrote, its codes (rows, columns) uint8.

    `InvalidInputError` where it is no such document, `CorruptStoreError` where it lacks the fingerprint that it says.
    """
    try:
        facts = json.loads(text)
        if facts[DOCUMENT] != FORMAT:
            raise InvalidInputError(
                f"a split of format {FORMAT} was expected, got {facts[DOCUMENT]!r}. Export it anew."
            )
        split = Split(
            version=int(facts["version"]),
            recipe=split_table.recipe_of(facts),
            scenes=tuple(_scene_of(s) for s in facts["scenes"]),
            fixed_units=np.array([int(u, 16) for u in facts["fixed_units"]], np.uint64),
            parent=facts["parent"],
            created_at=str(facts["created_at"]),
            notes=str(facts["notes"]),
        )
        fingerprint = str(facts["fingerprint"])
    except InvalidInputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"a split that `sarzarr split export` wrote was expected, got another document ({error})."
        ) from None
    return split_table.with_fingerprint(split, fingerprint)


def _scene_of(facts: Mapping[str, Any]) -> SceneCells:
    codes = np.array([[int(c) for c in row] for row in facts["codes"]], np.uint8)
    if codes.ndim != 2 or codes.max(initial=0) > max(cv.Membership):
        raise InvalidInputError(
            f"rows of digits 0 to {max(cv.Membership)} were expected for {facts['scene']!r}. Export it anew."
        )
    return SceneCells(codes=codes, **{k: facts[k] for k in SCENE})
