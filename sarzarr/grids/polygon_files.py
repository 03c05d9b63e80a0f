"""Polygons of GeoJSON, GeoPackage, shapefile and FlatGeobuf: their rings, CRS, and a column of their features."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, MissingExtraError, RasterNotFoundError
from sarzarr.grids.crs import LONLAT, crs_wkt, parse_crs
from sarzarr.text import listed

GEOJSON: Final = (".geojson", ".json")
_BEGINNINGS: Final = {".gpkg": b"SQLite format 3\0", ".shp": b"\0\0\x27\x0a", ".fgb": b"fgb"}
"""The first bytes of formats that GDAL reads: it goes by content, and has formats that name files and hosts."""
SUFFIXES: Final = (*GEOJSON, *_BEGINNINGS)
Rings = tuple[Array, ...]
"""A polygon: its outer ring and its holes, each (n, 2) float64 x, y, without its first point again."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PolygonFeatures:
    """Features that are drawn as polygons, with straight edges in one CRS."""

    crs_wkt: str
    """WKT2 of the CRS."""
    shapes: tuple[tuple[tuple[Rings, ...], ...], ...]
    """Of each feature, its polygons (of one) and multipolygons (of several); those of a feature may be none."""
    labels: tuple[Any, ...]
    """The value of each feature in the column that was named; None where none was, or it has none."""


def geojson_polygons(
    geojson: Any, *, column: str | None = None, crs: str | None = None, where: str = "GeoJSON"
) -> PolygonFeatures:
    """Return the polygons of a GeoJSON mapping in ``crs``, else the one that it names, else longitude and latitude.

    Features without a geometry have none. Raises `InvalidInputError`, which says ``where``, unless there are
    polygons, nothing else, with finite rings of 3 corners or more, and one that has the property ``column``.
    """
    shapes = list[tuple[tuple[Rings, ...], ...]]()
    try:
        if not isinstance(geojson, Mapping):
            raise ValueError(f"{geojson!r:.120}")
        told = geojson.get("crs")  # GeoJSON of 2008, which GDAL still writes
        wkt = crs_wkt(crs or (str(told["properties"]["name"]) if told else LONLAT))
        features = geojson["features"] if geojson["type"] == "FeatureCollection" else [geojson]
        facts = [feature.get("properties") or {} for feature in features]
        for feature in features:
            is_feature = feature["type"] == "Feature"
            shapes.append(tuple(_shapes(feature["geometry"] if is_feature else feature)))
        known = {str(name): None for about in facts for name in about}
        labels = tuple(about.get(column) for about in facts)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, InvalidInputError):
            raise
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise _unlike(
            where, f"{reason:.200} (after {len(shapes)} others)" if shapes else f"{reason:.200}"
        ) from None
    if not any(shapes):
        raise _unlike(where, "none")
    _check_column(column, known, where)
    return PolygonFeatures(crs_wkt=wkt, shapes=tuple(shapes), labels=labels)


def _check_column(column: str | None, known: Collection[str], where: str) -> None:
    if column is not None and column not in known:
        raise InvalidInputError(
            f"expected a column of {where} among {listed(known, most=20) or 'none'}, got {column!r}. Name one of "
            "these, or leave it out."
        )


def _unlike(where: str, got: str) -> InvalidInputError:
    return InvalidInputError(
        f"expected a Polygon, a MultiPolygon, or features or collections of them in {where}, got {got}. Buffer "
        "points and lines, and mend or take out what has no area."
    )


def _shapes(geometry: Any) -> Iterator[tuple[Rings, ...]]:
    kind = "GeometryCollection" if geometry is None else geometry["type"]
    if kind == "GeometryCollection":
        for one in geometry["geometries"] if geometry else ():
            yield from _shapes(one)
    elif kind in ("Polygon", "MultiPolygon"):
        polygons = [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]
        if shape := tuple(tuple(map(_ring, rings)) for rings in polygons if rings):
            yield shape
    else:
        raise ValueError(f"a {kind}, which has no area")


def _ring(corners: Any) -> Array:
    ring = np.array([corner[:2] for corner in corners], np.float64).reshape(-1, 2)
    ring = ring[:-1] if len(ring) and (ring[0] == ring[-1]).all() else ring
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError(f"a ring of {len(ring)} corners, not 3 finite corners or more")
    return ring


def read_polygon_features(
    path: Path,
    *,
    column: str | None = None,
    table: str | None = None,
    crs: str | None = None,
    many: str = "Name one with --table.",
) -> PolygonFeatures:
    """Return the polygons of a file, or of a table of it, as `geojson_polygons` does, in the CRS that the file says.

    ``many`` is the remedy where there are several tables, and none is named.

    Raises `RasterNotFoundError` where there is no such file, `MissingExtraError` where it is no GeoJSON and pyogrio
    is not installed, `InvalidInputError` where it is of another format, or has no such table or no CRS.
    """
    name, suffix = repr(path.name), path.suffix.lower()
    if not path.is_file():
        raise RasterNotFoundError(
            f"expected a file of polygons, got nothing at {str(path)!r}. Check the path."
        )
    if suffix not in GEOJSON:
        with path.open("rb") as file:
            if suffix not in _BEGINNINGS or not file.read(16).startswith(_BEGINNINGS[suffix]):
                raise InvalidInputError(
                    f"expected a file of polygons ({', '.join(SUFFIXES)}), got {name}, which is none. Convert it: "
                    "ogr2ogr OUT.gpkg IN."
                )
        return _by_gdal(path, column, table, crs, many)
    if table is not None:
        raise InvalidInputError(f"expected a GeoPackage for table {table!r}, got {name}. Leave it out.")
    try:
        geojson = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"expected GeoJSON in {name}, got text that is none ({error}). Write it again: ogr2ogr OUT.geojson IN."
        ) from None
    return geojson_polygons(geojson, column=column, crs=crs, where=name)


def _by_gdal(
    path: Path, column: str | None, table: str | None, crs: str | None, many: str
) -> PolygonFeatures:
    name = repr(path.name)
    try:
        import pyogrio
        import shapely
    except ImportError:
        raise MissingExtraError(
            f"pyogrio and shapely were expected to read {name}, got none. Install them: "
            "pip install 'sarzarr[vector]', or convert it: ogr2ogr OUT.geojson IN."
        ) from None
    try:
        tables = [str(one) for one, kind in pyogrio.list_layers(path) if kind is not None]
        table = tables[0] if table is None and len(tables) == 1 else table
        if table not in tables:
            raise InvalidInputError(
                f"expected a table of features of {name} among {listed(tables, most=20) or 'none'}, got "
                f"{'none' if table is None else repr(table)}. {many}"
            )
        _check_column(column, pyogrio.read_info(path, layer=table)["fields"].tolist(), name)
        about, _, blobs, values = pyogrio.raw.read(path, layer=table, columns=[column] if column else [])
        shapes = [None if shape is None else shape.__geo_interface__ for shape in shapely.from_wkb(blobs)]
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        shapely.errors.ShapelyError,
    ) as error:
        raise _unlike(name, f"{type(error).__name__}: {error!s:.200}") from None
    told = about["crs"]
    if crs is None and (told is None or '"Undefined' in told or not _has_ground(told)):
        raise InvalidInputError(
            f"expected the CRS of {name}, got none. Assign it: ogr2ogr -a_srs EPSG:CODE OUT.gpkg IN."
        )
    labels = values[0].tolist() if column else [None] * len(shapes)
    features = [
        {"type": "Feature", "properties": {column: label}, "geometry": shape}
        for label, shape in zip(labels, shapes, strict=True)
    ]
    whole = {"type": "FeatureCollection", "features": features}
    return geojson_polygons(whole, column=column, crs=crs or told, where=name)


def _has_ground(crs: str) -> bool:
    return bool(parse_crs(crs).is_geographic or parse_crs(crs).is_projected)
