"""Lists of names by which an archive says its split: CSV, TXT or JSON, kept as a version and checked for leaks."""

import csv
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.splits.chips.ground import ChipGrounds
from sarzarr.splits.chips.make import chip_grounds, shared_ground_by_pair
from sarzarr.splits.versions import utc_now
from sarzarr.store.chip_names import chip_rows
from sarzarr.store.chip_splits import ChipSplit, chip_keys, next_chip_split, write_chip_split
from sarzarr.store.collections import open_collection
from sarzarr.store.limits import read_text
from sarzarr.store.store import AnyStore
from sarzarr.text import listed

log = logging.getLogger(__name__)
SIDES: Final[Mapping[str, cv.Membership]] = {
    "train": cv.Membership.TRAIN,
    "training": cv.Membership.TRAIN,
    "val": cv.Membership.VAL,
    "valid": cv.Membership.VAL,
    "validate": cv.Membership.VAL,
    "validation": cv.Membership.VAL,
    "dev": cv.Membership.VAL,
    "test": cv.Membership.TEST,
    "testing": cv.Membership.TEST,
    "holdout": cv.Membership.TEST,
}
"""Words for sides."""
_COLUMNS: Final = ("split", "subset", "set", "partition", "fold", "side")
"""Columns that say a side."""
_NAMES: Final = ("id", "chip", "name", "file", "filename", "file_name", "image", "patch", "patch_id", "path")
"""Columns that say a chip."""
_WHAT: Final = "a list of names"


@dataclass(frozen=True, eq=False, kw_only=True)
class ImportedSplit:
    """A version that lists decided."""

    split: ChipSplit
    """The version."""
    unknown: tuple[str, ...]
    """Names that are no chip of the collection."""
    unlisted: int
    """Chips that are on no list: held back."""

    @property
    def lines(self) -> list[str]:
        """Sentences for people: counts of chips, of names that are none, and ground that is on two sides."""
        counts = self.split.counts
        out = [f"{counts['train']} train, {counts['val']} val, {counts['test']} test"]
        if self.unlisted:
            out.append(f"{self.unlisted} on no list, held back")
        if self.unknown:
            out.append(f"{len(self.unknown)} names that are no chip here: {listed(self.unknown)}")
        return out + (
            self.split.told or ["no ground is on two sides" if self._is_checked else self._unchecked]
        )

    @property
    def _is_checked(self) -> bool:
        return not self.split.recipe.get("adrift")

    @property
    def _unchecked(self) -> str:
        return f"{self.split.recipe['adrift']} chips have no georeference: whether they share ground is not known"


def import_split_lists(
    store: AnyStore,
    collection: str,
    lists: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
    *,
    notes: str = "",
) -> ImportedSplit:
    """Keep the split that lists of names say as a version of a collection's; return it, with chips and m² that leak.

    A leak is told, and never mended: results are comparable with those of others on the same lists.

    Parameters
    ----------
    store
        A `Store`, or its path.
    collection
        Name of the collection.
    lists
        Files: CSV with a column of sides (``split``, ``subset``, ...), JSON of lists by side or of sides by name, or
        TXT and CSV of names whose side stands in the file's name (``flood_valid_data.csv``); or files by side. Names
        are ids or files of chips, as `sarzarr.store.chip_names.chip_rows` reads them.
    notes
        Kept with the version.

    Raises `InvalidInputError` where a file is none of these, none of its names is a chip, or a chip is on two sides.
    """
    made = open_collection(store, collection)
    if isinstance(lists, Mapping):
        given: list[tuple[Path, cv.Membership | None]]
        given = [(Path(path), _side(side)) for side, path in lists.items()]
    else:
        paths = [lists] if isinstance(lists, str | Path) else lists
        given = [_sided(str(path)) for path in paths]
    said = [pair for path, side in given for pair in read_list(path, side)]
    rows = chip_rows(made, [name for name, _ in said])
    codes = np.zeros(len(made), np.uint8)
    for (name, side), row in zip(said, rows.tolist(), strict=True):
        if row >= 0 and codes[row] not in (0, side):
            one, other = (cv.Membership(int(code)).name.lower() for code in (codes[row], side))
            raise InvalidInputError(
                f"each chip on one side was expected, got {made.ids[row]!r} on {one} and {other} ({name!r}). Take it "
                "out of a list."
            )
        if row >= 0:
            codes[row] = side
    unknown = tuple(
        dict.fromkeys(name for (name, _), row in zip(said, rows.tolist(), strict=True) if row < 0)
    )
    if not codes.any():
        raise InvalidInputError(
            f"names of chips of {collection!r}, such as {listed(made.ids, most=2)}, were expected, got none among "
            f"{len(said)}: {listed(unknown, most=3)}. Give lists of these chips."
        )
    grounds = chip_grounds(made)
    split = ChipSplit(
        version=next_chip_split(made),
        codes=codes,
        keys=chip_keys(made),
        recipe={"kind": "lists", "files": [path.name for path, _ in given]} | _adrift(grounds),
        created_at=utc_now(),
        notes=notes,
        shared=shared_ground_by_pair(grounds, codes),
    )
    write_chip_split(made, split)
    for line in split.told:
        log.warning("%s, split %s of %s: %s", made.store.place.name, split.name, collection, line)
    return ImportedSplit(split=split, unknown=unknown, unlisted=int(np.count_nonzero(codes == 0)))


def _adrift(grounds: ChipGrounds) -> dict[str, int]:
    count = int(np.count_nonzero(~grounds.is_placed))
    return {"adrift": count} if count else {}


def _sided(text: str) -> tuple[Path, cv.Membership | None]:
    """Return the file and the side of ``train=FILE``, or of a file whose name says it, None where neither does."""
    word, equals, path = text.partition("=")
    if equals and word.lower() in SIDES:
        return Path(path), SIDES[word.lower()]
    words = re.split(r"[^a-z]+", Path(text).stem.lower())
    found = {SIDES[word] for word in words if word in SIDES}
    return Path(text), found.pop() if len(found) == 1 else None


def _side(text: str) -> cv.Membership:
    try:
        return SIDES[text.strip().lower()]
    except KeyError:
        raise InvalidInputError(f"a side among {', '.join(SIDES)} was expected, got {text!r:.100}.") from None


def read_list(path: Path, side: cv.Membership | None) -> Iterator[tuple[str, cv.Membership]]:
    """Yield the names in a file, each with its side; ``side`` is that of a file that says none itself.

    Raises `InvalidInputError` where it is no list of names, or says no side.
    """
    try:
        text = read_text(path, _WHAT)
    except OSError as error:
        raise InvalidInputError(
            f"{_WHAT} was expected at {str(path)!r}, got nothing that can be read ({error.strerror}). Mend the path."
        ) from None
    ending = path.suffix.lower()
    if ending in (".json", ".geojson"):
        yield from _of_json(path, text, side)
    elif ending in (".csv", ".tsv"):
        yield from _of_csv(path, text, side, "\t" if ending == ".tsv" else ",")
    else:
        names = [line.strip() for line in text.splitlines()]
        for name in names:
            if name and not name.startswith("#"):
                yield name, _sure(path, side)


def _sure(path: Path, side: cv.Membership | None) -> cv.Membership:
    if side is None:
        raise InvalidInputError(
            f"a side for the names in {path.name!r} was expected, got none in its name, and no column of one. Say "
            f"train={path.name}."
        )
    return side


def _of_csv(
    path: Path, text: str, side: cv.Membership | None, mark: str
) -> Iterator[tuple[str, cv.Membership]]:
    rows = [row for row in csv.reader(text.splitlines(), delimiter=mark) if any(cell.strip() for cell in row)]
    if not rows:
        raise InvalidInputError(f"names were expected in {path.name!r}, got none.")
    head = [cell.strip().lower() for cell in rows[0]]
    column = next((head.index(name) for name in _COLUMNS if name in head), None)
    named = next((head.index(name) for name in _NAMES if name in head), None)
    if column is None:
        for row in rows[0 if named is None else 1 :]:
            yield row[named or 0].strip(), _sure(path, side)
        return
    at = named if named is not None else next(i for i in range(len(head)) if i != column or len(head) == 1)
    for row in rows[1:]:
        if len(row) <= max(at, column):
            raise InvalidInputError(f"{len(head)} columns were expected in {path.name!r}, got {row!r:.200}.")
        yield row[at].strip(), _side(row[column])


def _of_json(path: Path, text: str, side: cv.Membership | None) -> Iterator[tuple[str, cv.Membership]]:
    try:
        document = json.loads(text)
        yield from _of_document(path, document, side)
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f'lists of names by side, {{"train": [...], "val": [...]}}, were expected in {path.name!r}, got {error}.'
        ) from None


def _of_document(
    path: Path, document: Any, side: cv.Membership | None
) -> Iterator[tuple[str, cv.Membership]]:
    if isinstance(document, list):
        for one in document:
            if isinstance(one, str):
                yield one, _sure(path, side)
            else:
                name = next((one[key] for key in _NAMES if key in one), None)
                said = next((one[key] for key in _COLUMNS if key in one), None)
                if not isinstance(name, str):
                    raise ValueError(f"an entry without a name: {one!r:.100}")
                yield name, _sure(path, side) if said is None else _side(str(said))
        return
    if all(isinstance(value, str) for value in document.values()):
        for name, said in document.items():
            yield name, _side(said)
        return
    for word, names in document.items():
        if str(word).strip().lower() in SIDES:
            yield from _of_document(path, list(names), _side(word))
