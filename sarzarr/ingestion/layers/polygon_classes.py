"""The classes of polygons that become a layer: values, by the names that a column of their file has."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sarzarr.errors import InvalidInputError
from sarzarr.grids.polygon_files import GEOJSON, Rings, read_polygon_features
from sarzarr.store.limits import MAX_FILE, MAX_TEXT
from sarzarr.text import listed, size_text

MAX_CLASS: Final = 65534
"""The highest value of a class: 65535 is no data."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PolygonFile:
    """The polygons of a file."""

    crs: str
    """WKT2 of the CRS that they are drawn in."""
    polygons: tuple[Rings, ...]
    """The rings of each, in the order of the file; parts of several are polygons of their own."""
    labels: tuple[Any, ...]
    """What the column that was named says of each: text or a whole number; None where none was named."""

    def classes(self, known: Mapping[int, str]) -> dict[int, str]:
        """Return the name of each value: those ``known``, then those of the labels.

        Whole numbers are values themselves. Texts get the next free ones, in the order of the alphabet; without a
        column all is 1. Raises `InvalidInputError` where a label can be no value, or has another name already.
        """
        found, table = set(self.labels), dict(known)
        numbers = {label for label in found if isinstance(label, int)}
        if numbers and len(numbers) < len(found):
            raise InvalidInputError(
                f"expected classes that are all texts or all whole numbers, got {listed(map(repr, found))}. "
                "Write them alike."
            )
        if wrong := [n for n in sorted(numbers) if not 1 <= n <= MAX_CLASS]:
            raise InvalidInputError(
                f"expected classes from 1 to {MAX_CLASS}, got {listed(map(str, wrong))}: 0 is where no polygon "
                "lies. Number them from 1, or write texts."
            )
        for number in sorted(numbers):
            if table.setdefault(number, str(number)) != str(number):
                raise InvalidInputError(
                    f"expected class {number} to be {table[number]!r}, as in the store, got the number itself. Write "
                    "the names of classes, or give the layer another name."
                )
        for name in sorted({self._name(label) for label in found - numbers} - set(table.values())):
            table[max(table, default=0) + 1] = name
        return table

    def values(self, classes: Mapping[int, str]) -> tuple[int, ...]:
        """Return the value of each polygon by the table of `classes`."""
        number = {name: value for value, name in classes.items()}
        return tuple(label if isinstance(label, int) else number[self._name(label)] for label in self.labels)

    @staticmethod
    def _name(label: str | None) -> str:
        return "inside" if label is None else label


def read_polygons(path: Path, *, column: str | None = None, table: str | None = None) -> PolygonFile:
    """Return the polygons of a file, or of a table of one that has several; ``column`` has the class of a feature.

    Raises as `sarzarr.grids.polygon_files.read_polygon_features`; `InvalidInputError` where the file is larger than
    `MAX_FILE` bytes (GeoJSON: `MAX_TEXT`), or a feature has no class.
    """
    limit = MAX_TEXT if path.suffix.lower() in GEOJSON else MAX_FILE
    if path.is_file() and path.stat().st_size > limit:
        raise InvalidInputError(
            f"expected a file of polygons of at most {size_text(limit)}, got {size_text(path.stat().st_size)} at "
            f"{path.name!r}. Divide it into several."
        )
    found = read_polygon_features(path, column=column, table=table)
    polygons, labels = list[Rings](), list[str | int | None]()
    for number, (shapes, label) in enumerate(zip(found.shapes, found.labels, strict=True), start=1):
        mine = [rings for shape in shapes for rings in shape]
        polygons += mine
        labels += [_label(label, column, number, path.name)] * len(mine) if mine else []
    return PolygonFile(crs=found.crs_wkt, polygons=tuple(polygons), labels=tuple(labels))


def _label(value: Any, column: str | None, number: int, name: str) -> str | int | None:
    """Return the class that a feature says: a text, or a whole number."""
    if column is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidInputError(
        f"expected a text or a whole number as {column!r} of feature {number} of {name!r}, got {value!r:.80}. Mend "
        "it, or leave out --column."
    )
