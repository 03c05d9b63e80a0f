"""Stores of small scenes at places in the world, made in a moment."""

import numpy as np
from conftest import speckle, write_band
from pyproj import Transformer
from rasterio import Affine

import sarzarr as sz
from sarzarr.grids.crs import crs_wkt
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.grid import Grid


def crs_at(lon, lat):
    """Return the code of the UTM zone, or of the polar projection, of a place in degrees."""
    if abs(lat) > 80:
        return "EPSG:3413" if lat > 0 else "EPSG:3031"
    return f"EPSG:{(32600 if lat >= 0 else 32700) + int((lon + 180) // 6) % 60 + 1}"


def corner_at(lon, lat, shape, pixel=10.0):
    """Return the CRS and the transform of a raster whose middle is there."""
    crs = crs_at(lon, lat)
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    return crs, Affine(pixel, 0, x - shape[1] * pixel / 2, 0, -pixel, y + shape[0] * pixel / 2)


def placement_at(lon, lat, shape=(1024, 1024), pixel=10.0):
    """Return the georeference of a raster whose middle is there."""
    crs, affine = corner_at(lon, lat, shape, pixel)
    grid = Grid(height=shape[0], width=shape[1], transform=tuple(affine)[:6], crs_wkt=crs_wkt(crs))
    return Georeference(grid=grid)


def store_at(folder, places, shape=(512, 512), name="s.zarr"):
    """Ingest a scene of speckle at each (lon, lat), a seventh of it not measured, and return the store."""
    files = []
    for i, (lon, lat) in enumerate(places):
        values = speckle(shape, seed=i % 16)
        values[:, : shape[1] // 7] = np.nan
        crs, affine = corner_at(lon, lat, shape)
        path = folder / f"s{i:04d}_sigma0_vv.tif"
        files.append(write_band(path, values, nodata=np.nan, crs=crs, transform=affine))
    return sz.ingest(sz.plan_ingest(files, folder / name, representation="power", quantity="sigma0"))
