"""What the tests of grids and warps share: sources on disk, and GDAL's own warp of a whole raster."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from tiffs import write

from sarzarr.grids.crs import crs_wkt
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.grid import Grid
from sarzarr.grids.warp.plan import WarpSource

UTM32, UTM33 = crs_wkt("EPSG:32632"), crs_wkt("EPSG:32633")
ORIGIN = (600_000.0, 5_000_000.0)
"""(x, y) of the corner of every test raster: 24 km from the edge of zone 32, turned by 2 degrees in zone 33."""
KIND = dict.fromkeys(("nearest", "bilinear", "cubic", "lanczos", "average", "rms"), "backscatter") | {
    "mode": "classes",
    "min": "continuous",
    "max": "continuous",
    "med": "continuous",
    "sum": "counts",
}
"""Every method, and a kind of data that it suits."""


def grid(height, width, *, size=10.0, x=ORIGIN[0], y=ORIGIN[1], wkt=UTM32):
    return Grid(height=height, width=width, transform=(size, 0.0, x, 0.0, -size, y), crs_wkt=wkt)


def georeference(*, height, width, crs_wkt=None, transform=Grid.transform, **more) -> Georeference:
    """Return the place of a raster of that shape, by an affine or by GCPs."""
    return Georeference(grid=Grid(height=height, width=width, transform=transform, crs_wkt=crs_wkt), **more)


def make_source(path: Path, pixels, *, representation="power", place=None, nodata=None, **more) -> WarpSource:
    """Write a raster and return it as a source; ``place`` is its grid, `ORIGIN` at 10 m by default."""
    place = place or grid(*pixels.shape)
    georeferenced = {"crs": place.crs_wkt, "transform": Affine(*place.transform)}
    if place.crs_wkt is None:
        georeferenced = {"crs": None, "transform": Affine.identity()}
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64} | georeferenced
    write(path, pixels, nodata=nodata, **options)
    return WarpSource(
        path=str(path),
        band=1,
        representation=representation,
        dtype=str(pixels.dtype),
        georeference=Georeference(grid=place, name=str(path), **more),
        nodata=nodata,
    )


def source_for(method, path, pixels, **more):
    """Return a source that suits a method: power for backscatter, else a layer of whole numbers."""
    if KIND[method] == "backscatter":
        return make_source(path, pixels, **more)
    whole = np.round(pixels * 4).astype(np.float32)
    return make_source(path, whole, representation="layer", **more)


def gdal_whole(plan):
    """Return GDAL's own warp of the whole raster: rasterio's WarpedVRT, read at once.

    Its kernel scale is pinned to the plan's: left to itself GDAL takes it from the shape of what is read.
    """
    target = plan.grid
    extra = {} if plan.method == "sum" else {"XSCALE": plan.scale[0], "YSCALE": plan.scale[1]}
    with (
        rasterio.open(plan.source.path) as file,
        WarpedVRT(
            file,
            crs=target.crs_wkt,
            transform=Affine(*target.transform),
            height=target.height,
            width=target.width,
            src_nodata=np.nan,
            nodata=np.nan,
            resampling=Resampling[plan.method],
            tolerance=1e-30,  # in effect none; 0 makes rasterio fail
            warp_mem_limit=2000,
            dtype=plan.dtype,
            **extra,
        ) as whole,
    ):
        return whole.read(1)


def ramps(path: Path, source: WarpSource) -> tuple[WarpSource, WarpSource]:
    """Return layers in a source's place whose pixels are their own row and column."""
    height, width = source.grid.shape
    rows, cols = np.indices((height, width)).astype(np.float64)
    layers = []
    for name, values in (("rows", rows), ("cols", cols)):
        file = write(path / f"{name}.tif", values, crs=None, transform=Affine.identity())
        layers.append(
            replace(source, path=str(file), representation="layer", dtype="float64", nodata=None, band=1)
        )
    return layers[0], layers[1]
