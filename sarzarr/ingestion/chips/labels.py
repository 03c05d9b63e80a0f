"""Labels on whole chips, from CSV or JSON: one class a chip, or several."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.store.chip_labels import ChipLabels, label_sets, read_labels, write_labels
from sarzarr.store.chip_names import chip_rows
from sarzarr.store.classes import MovedClass
from sarzarr.store.collections import Collection, open_collection
from sarzarr.store.limits import read_text
from sarzarr.store.store import AnyStore
from sarzarr.text import listed

NAMES: Final = ("id", "chip", "name", "file", "filename", "file_name", "image", "patch", "patch_id", "path")
"""Columns that say a chip."""
_LABELS: Final = ("label", "labels", "class", "classes", "category", "target")
_BETWEEN: Final = re.compile(r"\s*[;|]\s*")
"""Marks between the classes of one cell."""
Given = tuple[str, list[str]]
"""A name, and the classes that it is given."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ImportedLabels:
    """Labels that were taken in."""

    labels: ChipLabels
    """The set, as it now is."""
    unknown: tuple[str, ...]
    """Names that are no chip of the collection."""
    moved: tuple[MovedClass, ...] = ()
    """Classes that have another number in the set than in the list that was given, both from 0."""


def import_labels(
    store: AnyStore,
    collection: str,
    file: str | Path,
    *,
    name: str = cv.DEFAULT_INDEX,
    column: str | None = None,
    classes: Sequence[str] | None = None,
    multi: bool | None = None,
) -> ImportedLabels:
    """Put labels on the chips of a collection, as int64 or float32 targets of ``labels=``; return them.

    Chips that the set labels already keep their labels where the file has none for them. Classes get numbers from 0,
    in the order of ``classes``, or else of arrival; those of a set that is there stay, and new ones follow: a list in
    another order is mapped by name, and told.

    Parameters
    ----------
    store, collection
        The store, or its path, and the collection's name.
    file
        CSV with a column of names and one of classes (several of a chip between ``;`` or ``|``, or on several
        lines), or a column of 0 and 1 for each class; or JSON: classes by name, or records of such columns. Names
        are ids or files of chips.
    name
        Of the set.
    column
        The column, or key, of classes; ``label``, ``class``, ``category`` or ``labels`` if left out.
    classes
        All names of classes, in the order of their numbers.
    multi
        Whether a chip may have several; left out, whether one has several, or none.

    Raises `InvalidInputError` where it is no such file, none of its names is a chip, a class is not among
    ``classes``, or a chip has several classes in a set of one each; `NotInStoreError` where there is no such
    collection.
    """
    made, path = open_collection(store, collection), Path(file)
    given, columns = _read(path, column)
    rows = chip_rows(made, [one for one, _ in given]).tolist()
    known = read_labels(made, name) if name in label_sets(made) else None
    held = _held(known)
    found: dict[int, list[str]] = {}
    for (_, kinds), row in zip(given, rows, strict=True):
        if row >= 0:
            found[row] = list(dict.fromkeys([*found.get(row, []), *kinds]))
    unknown = tuple(dict.fromkeys(one for (one, _), row in zip(given, rows, strict=True) if row < 0))
    if not found:
        raise InvalidInputError(
            f"names of chips of {collection!r}, such as {listed(made.ids, most=2)}, were expected in {path.name!r}, "
            f"got none: {listed(unknown, most=3)}. Give labels of these chips."
        )
    order = list(dict.fromkeys([*(known.classes if known else ()), *(classes or columns)]))
    fresh = [kind for kinds in found.values() for kind in kinds if kind not in order]
    if classes is not None and fresh:
        raise InvalidInputError(
            f"classes among {listed(order)} were expected, got {fresh[0]!r}. Name it in classes=, or mend the file."
        )
    order = list(dict.fromkeys([*order, *fresh]))
    is_multi = multi if multi is not None else _is_multi(known, found, bool(columns))
    if not is_multi:
        _check_single(made, found)
    labels = {**held, **found}
    made_labels = write_labels(made, name, labels, order, is_multi=is_multi)
    moved = tuple(
        MovedClass(
            name=kind, among=path.name if classes is None else "classes", there=there, here=order.index(kind)
        )
        for there, kind in enumerate(dict.fromkeys(classes or columns))
        if order.index(kind) != there
    )
    return ImportedLabels(labels=made_labels, unknown=unknown, moved=moved)


def _held(known: ChipLabels | None) -> dict[int, list[str]]:
    """Return the classes of each chip that a set has."""
    held: dict[int, list[str]] = {}
    if known is not None:
        held = {int(row): [] for row in known.known.nonzero()[0].tolist()}
        for chip, label in zip(known.chip.tolist(), known.label.tolist(), strict=True):
            held[chip].append(known.classes[label])
    return held


def _is_multi(known: ChipLabels | None, found: dict[int, list[str]], has_columns: bool) -> bool:
    return known.is_multi if known is not None else has_columns or any(len(k) != 1 for k in found.values())


def _check_single(made: Collection, found: dict[int, list[str]]) -> None:
    for row, kinds in found.items():
        if len(kinds) != 1:
            raise InvalidInputError(
                f"one class for each chip was expected, got {listed(kinds) or 'none'} for {made.ids[row]!r}. Pass "
                "multi=True (--multi) in a set of another name."
            )


def _read(path: Path, column: str | None) -> tuple[list[Given], list[str]]:
    """Return what a file gives each name, and the classes that are columns of it."""
    try:
        text = read_text(path, "labels of chips")
    except OSError as error:
        raise InvalidInputError(
            f"labels of chips were expected at {str(path)!r}, got nothing that can be read ({error.strerror}). Mend "
            "the path."
        ) from None
    if path.suffix.lower() == ".json":
        try:
            return list(_of_json(json.loads(text), column)), []
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidInputError(
                f'classes by name, {{"chip_1": "water", "chip_2": ["land", "water"]}}, or records of them were '
                f"expected in {path.name!r}, got {error}."
            ) from None
    mark = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = [row for row in csv.reader(text.splitlines(), delimiter=mark) if any(row)]
    return _of_rows(path, rows, column)


def _of_rows(path: Path, rows: list[list[str]], column: str | None) -> tuple[list[Given], list[str]]:
    head = [cell.strip() for cell in rows[0]] if rows else []
    if not head:
        raise InvalidInputError(
            f"names of chips and their classes were expected in {path.name!r}, got an empty file. Check the path."
        )
    lower = [cell.lower() for cell in head]
    named = next((lower.index(name) for name in NAMES if name in lower), 0)
    at = _column_of(lower, column)
    if at is None and column is not None:
        raise InvalidInputError(
            f"a column among {listed(head)} was expected in {path.name!r}, got {column!r}."
        )
    if wrong := next((row for row in rows if len(row) != len(head)), None):
        raise InvalidInputError(f"{len(head)} columns were expected in {path.name!r}, got {wrong!r:.200}.")
    if at is not None:
        return [(row[named].strip(), _kinds(row[at])) for row in rows[1:]], []
    others = [i for i in range(len(head)) if i != named]
    ones = {"1", "1.0", "true"}
    cells = {row[i].strip().lower() for row in rows[1:] for i in others}
    if len(rows) > 1 and others and cells <= ones | {"0", "0.0", "false", ""}:
        given = [
            (row[named].strip(), [head[i] for i in others if row[i].strip().lower() in ones])
            for row in rows[1:]
        ]
        return given, [head[i] for i in others]
    if len(head) == 2:  # a file without a head
        return [(row[0].strip(), _kinds(row[1])) for row in rows], []
    raise InvalidInputError(
        f"a column of classes ({', '.join(_LABELS[:3])}) was expected in {path.name!r}, got {listed(head)}. Say "
        "which: --column."
    )


def _column_of(lower: list[str], column: str | None) -> int | None:
    wanted = (column.lower(),) if column is not None else _LABELS
    return next((lower.index(name) for name in wanted if name in lower), None)


def _kinds(cell: str) -> list[str]:
    """Return the classes of a cell.

    >>> _kinds("water; land"), _kinds("")
    (['water', 'land'], [])
    """
    return [kind for kind in _BETWEEN.split(cell.strip()) if kind]


def _of_json(document: Any, column: str | None) -> Iterator[Given]:
    if isinstance(document, dict):
        for name, said in document.items():
            yield str(name), _listed(said[column] if column is not None and isinstance(said, dict) else said)
        return
    for record in document:
        lower = {str(key).lower(): value for key, value in record.items()}
        name = next(lower[key] for key in NAMES if key in lower)
        key = next(key for key in ((column.lower(),) if column else _LABELS) if key in lower)
        yield str(name), _listed(lower[key])


def _listed(said: Any) -> list[str]:
    if isinstance(said, dict):
        if not {*said.values()} <= {0, 1}:
            raise ValueError(f"{said!r:.100}")
        return [str(kind) for kind, has in said.items() if has]
    return [str(kind) for kind in said] if isinstance(said, list) else _kinds(str(said))
