"""Files of polygons that tests make: GeoJSON, and GeoPackages by the text of their standard."""

import json
import sqlite3
import struct

import numpy as np


def feature(ring, **properties):
    closed = [[*map(float, p)] for p in [*ring, ring[0]]]
    return {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": "Polygon", "coordinates": [closed]},
    }


def write_geojson(path, features, **more):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}))
    return path


def wkb(ring, order="<", kind=3):
    """Return well-known binary of a ring; of kind 1003 with a third number."""
    points = np.array([*ring, ring[0]], float)
    if kind > 1000:
        points = np.insert(points, 2, 9.0, axis=1)
    head = struct.pack(f"{order}BII", order == "<", kind, 1) + struct.pack(f"{order}I", len(points))
    return head + points.astype(f"{order}f8").tobytes()


def multi(*parts, order=">"):
    return struct.pack(f"{order}BII", order == "<", 6, len(parts)) + b"".join(parts)


def write_geopackage(path, rows, *, crs=("EPSG", 4326, "GEOGCS"), envelope=0, tables=("areas",)):
    """Write rows of (well-known binary, class) as tables of features, by the standard (OGC 12-128r18)."""
    with sqlite3.connect(path) as file:
        file.execute(
            "CREATE TABLE gpkg_spatial_ref_sys (srs_name, srs_id, organization, organization_coordsys_id, definition)"
        )
        file.execute("INSERT INTO gpkg_spatial_ref_sys VALUES ('x', 7, ?, ?, ?)", crs)
        file.execute(
            "CREATE TABLE gpkg_geometry_columns (table_name, column_name, geometry_type_name, srs_id, z, m)"
        )
        for table in tables:
            file.execute(f'CREATE TABLE "{table}" (fid INTEGER PRIMARY KEY, geom BLOB, kind TEXT)')
            file.execute("INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', 'GEOMETRY', 7, 0, 0)", [table])
            head = (
                b"GP\0"
                + bytes([1 | envelope << 1])
                + struct.pack("<i", 7)
                + bytes([0, 32, 48, 48, 64][envelope])
            )
            for blob, kind in rows:
                file.execute(
                    f'INSERT INTO "{table}" (geom, kind) VALUES (?, ?)', [blob and head + blob, kind]
                )
    return path
