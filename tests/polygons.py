"""Files of polygons that tests make: GeoJSON, and what pyogrio writes."""

import json

import numpy as np
import pytest


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


def write_by_gdal(path, features, *, crs="EPSG:4326", tables=(None,)):
    """Write features, all with the same properties, as tables of a file; those without a geometry have None."""
    pyogrio = pytest.importorskip("pyogrio", reason="pyogrio is not installed (sarzarr[vector])")
    shapely = pytest.importorskip("shapely", reason="shapely is not installed (sarzarr[vector])")
    shapes = [one["geometry"] and shapely.to_wkb(shapely.geometry.shape(one["geometry"])) for one in features]
    columns = features[0]["properties"]
    for table in tables:
        pyogrio.raw.write(
            path,
            geometry=np.array(shapes, object),
            field_data=[np.array([one["properties"][name] for one in features]) for name in columns],
            fields=list(columns),
            geometry_type="Unknown",
            crs=crs,
            append=table is not None and path.exists(),
            **({} if table is None else {"layer": table}),
            **({"SPATIAL_INDEX": "NO"} if path.suffix == ".fgb" else {}),  # which has an order of its own
        )
    return path
