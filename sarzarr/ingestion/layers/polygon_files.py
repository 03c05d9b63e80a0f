"""Files of polygons: GeoJSON, and GeoPackage, which is SQLite; their rings, CRS and classes."""

import json
import sqlite3
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, RasterNotFoundError
from sarzarr.grids.burn import Rings
from sarzarr.grids.crs import LONLAT, crs_wkt
from sarzarr.store.limits import MAX_TEXT, read_text
from sarzarr.text import listed, size_text

SUFFIXES: Final = (".geojson", ".json", ".gpkg")
MAX_CLASS: Final = 65534
"""The highest value of a class: 65535 is no data."""
_ENVELOPES: Final = (0, 32, 48, 48, 64)
_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7


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
    """Return the polygons of a GeoJSON file, or of a table of a GeoPackage.

    ``column`` is the property, or the column, that has the class of a feature; ``table`` the one of a GeoPackage that
    has several.

    Raises `RasterNotFoundError` where there is no such file; `InvalidInputError` where it is none of the two, a
    feature is no polygon, has no class, or a position of it is no finite number.
    """
    if not path.is_file():
        raise RasterNotFoundError(f"expected a file of polygons at {str(path)!r}, got none. Check the path.")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInputError(
            f"expected a file of polygons ({', '.join(SUFFIXES)}), got {path.name!r}. Convert it: ogr2ogr "
            "OUT.gpkg IN."
        )
    if suffix == ".gpkg":
        crs, features = _of_geopackage(path, column, table)
    else:
        if table is not None:
            raise InvalidInputError(
                f"expected a GeoPackage for table {table!r}, got {path.name!r}. Leave it out."
            )
        crs, features = _of_geojson(path, column)
    polygons, labels = [], []
    for number, (parts, label) in enumerate(features, start=1):
        for rings in parts:
            if not all(np.isfinite(ring).all() for ring in rings):
                raise InvalidInputError(
                    f"expected positions of finite numbers in feature {number} of {path.name!r}, got others. Mend it "
                    "or take it out."
                )
            polygons.append(rings)
            labels.append(_label(label, column, number, path.name))
    if not polygons:
        raise InvalidInputError(f"expected polygons in {path.name!r}, got none. Give a file that has some.")
    return PolygonFile(crs=crs, polygons=tuple(polygons), labels=tuple(labels))


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


def _unlike(name: str, error: object) -> InvalidInputError:
    return InvalidInputError(
        f"expected polygons in {name!r}, got {error!s:.200}. Mend the file, or take the part out."
    )


# ------------------------------------------------------------------ GeoJSON
def _of_geojson(path: Path, column: str | None) -> tuple[str, list[tuple[list[Rings], Any]]]:
    try:
        document = json.loads(read_text(path, "a GeoJSON file of text"))
        features = document["features"] if document["type"] == "FeatureCollection" else [document]
        declared = document.get("crs")
        crs = str(declared["properties"]["name"]) if declared else LONLAT
        facts = [feature.get("properties") or {} for feature in features]
        _check_column(column, sorted({str(key) for about in facts for key in about}), path.name)
        found = [
            (list(_json_parts(feature.get("geometry", feature))), about.get(column))
            for feature, about in zip(features, facts, strict=True)
        ]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise _unlike(path.name, f"{type(error).__name__}: {error}") from None
    return crs_wkt(crs), found


def _json_parts(geometry: Mapping[str, Any] | None) -> Iterator[Rings]:
    if geometry is None:
        return
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for one in geometry["geometries"]:
            yield from _json_parts(one)
        return
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"a {kind}, which has no area")
    for polygon in [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]:
        if polygon:
            yield tuple(_ring(np.array([position[:2] for position in ring], np.float64)) for ring in polygon)


def _ring(points: Array) -> Array:
    """Return a ring (n, 2) without its first point again."""
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise ValueError(f"a ring of shape {points.shape}")
    is_closed = len(points) > 3 and bool((points[0] == points[-1]).all())
    return points[:-1] if is_closed else points


def _check_column(column: str | None, known: Sequence[str], name: str) -> None:
    if column is not None and column not in known:
        raise InvalidInputError(
            f"expected a column of {name!r} among {', '.join(known) or 'none'}, got {column!r}. Name one of these, "
            "or leave it out."
        )


# ------------------------------------------------------------------ GeoPackage
def _of_geopackage(
    path: Path, column: str | None, table: str | None
) -> tuple[str, list[tuple[list[Rings], Any]]]:
    """Read a table of features with the statements below alone: no view, trigger or function of the file's runs."""
    try:
        source = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(source, uri=True)) as file:
            file.execute("PRAGMA trusted_schema=OFF")
            name, geometry, crs = _table_of(file.execute, path.name, table)
            columns = [str(row[1]) for row in file.execute(f"PRAGMA table_info({_quoted(name)})")]
            _check_column(column, [one for one in columns if one != geometry], path.name)
            size = file.execute(f"SELECT sum(length({_quoted(geometry)})) FROM {_quoted(name)}").fetchone()[0]
            if (size or 0) > MAX_TEXT:
                raise InvalidInputError(
                    f"expected polygons of at most {size_text(MAX_TEXT)}, got {size_text(size)} in {path.name!r}. "
                    "Divide it into several."
                )
            label = "NULL" if column is None else _quoted(column)
            rows = file.execute(f"SELECT {_quoted(geometry)}, {label} FROM {_quoted(name)} ORDER BY rowid")
            found = [([] if blob is None else list(_blob_parts(bytes(blob))), value) for blob, value in rows]
    except (sqlite3.Error, struct.error, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise _unlike(path.name, f"{type(error).__name__}: {error}") from None
    return crs, found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _table_of(execute: Callable[..., sqlite3.Cursor], file: str, wanted: str | None) -> tuple[str, str, str]:
    """Return the name, the column of geometry and the CRS (WKT2) of the table of features that is asked for."""
    found = {
        str(row[0]): row[1:]
        for row in execute(
            "SELECT g.table_name, g.column_name, s.organization, s.organization_coordsys_id, s.definition "
            "FROM gpkg_geometry_columns g JOIN gpkg_spatial_ref_sys s ON g.srs_id = s.srs_id "
            "JOIN sqlite_master m ON m.name = g.table_name AND m.type = 'table' AND m.rootpage > 0 "
            "ORDER BY g.table_name"
        )
    }
    if wanted is None and len(found) == 1:
        wanted = next(iter(found))
    if wanted not in found:
        raise InvalidInputError(
            f"expected a table of features of {file!r} among {', '.join(found) or 'none'}, got "
            f"{'none' if wanted is None else repr(wanted)}. Name one with --table."
        )
    column, organization, number, definition = found[wanted]
    if str(organization).upper() == "NONE" or str(definition) == "undefined":
        raise InvalidInputError(
            f"expected the CRS of table {wanted!r} of {file!r}, got an undefined one. Assign it: ogr2ogr -a_srs."
        )
    is_epsg = str(organization).upper() == "EPSG"
    return wanted, str(column), crs_wkt(f"EPSG:{int(number)}" if is_epsg else str(definition))


def _blob_parts(blob: bytes) -> Iterator[Rings]:
    """Yield the polygons of a GeoPackage geometry: a header (clause 2.1.3 of the standard) and well-known binary."""
    if blob[:2] != b"GP":
        raise ValueError("a geometry that is no GeoPackage binary")
    flags = blob[3]
    envelope = flags >> 1 & 7
    if flags >> 5 & 1 or envelope >= len(_ENVELOPES):
        raise ValueError("an extended geometry")
    if not flags >> 4 & 1:
        parts, _ = _wkb(blob, 8 + _ENVELOPES[envelope])
        yield from parts


def _wkb(blob: bytes, at: int, depth: int = 0) -> tuple[list[Rings], int]:
    """Return the polygons of a well-known binary that begins at a byte, and where it ends."""
    order = "<" if blob[at] else ">"
    kind, count = struct.unpack_from(f"{order}II", blob, at + 1)
    has_z, has_m = bool(kind & 0x80000000), bool(kind & 0x40000000)
    kind &= 0x0FFFFFFF
    dimensions = 2 + has_z + has_m + (0, 1, 1, 2)[min(kind // 1000, 3)]
    kind, at = kind % 1000, at + 9
    if depth > 8 or kind not in (_POLYGON, _MULTIPOLYGON, _COLLECTION):
        raise ValueError(f"a geometry of type {kind}, which is no polygon")
    parts: list[Rings] = []
    if kind != _POLYGON:
        for _ in range(count):
            some, at = _wkb(blob, at, depth + 1)
            parts += some
        return parts, at
    rings = []
    for _ in range(count):
        (points,) = struct.unpack_from(f"{order}I", blob, at)
        values = np.frombuffer(blob, f"{order}f8", points * dimensions, at + 4)
        rings.append(_ring(values.reshape(points, dimensions)[:, :2].astype(np.float64)))
        at += 4 + 8 * points * dimensions
    return ([tuple(rings)] if rings else []), at
