"""A split as a JSON document: what travels between stores, and what a person can read."""

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.split_record import SceneCells, Split, checked, facts_of, recipe_of

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
