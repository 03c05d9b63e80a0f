"""Who reads what: opens one store of every kind with other tools, compares with sarzarr, and prints a table.

It prints Markdown, with ``--table`` the table alone; `make interop` writes docs/interop.md. A tool that is not
installed stands there as such: the table is what ran.
"""

import importlib
import math
import sys
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr import conventions as cv

warnings.simplefilter("ignore")
SHAPE = (600, 700)
TOOLS = {}
"""Functions from (store, scene, array) to (values in dB with NaN, whether CRS and transform were told), by tool."""


def tool(name, package):
    def register(function):
        TOOLS[name] = package, function
        return function

    return register


def write(path, values, *, nodata=None, **place):
    options = {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "count": 1, "dtype": values.dtype}
    with rasterio.open(
        path, "w", nodata=nodata, tiled=True, blockxsize=256, blockysize=256, **options, **place
    ) as out:
        out.write(values, 1)
    return path


def make_stores(folder):
    """Return (label, store, scene) of each kind: with nodata, floor pixels, and a place of its kind."""
    rng = np.random.default_rng(0)
    power = (rng.gamma(4.4, 0.05 / 4.4, SHAPE)).astype(np.float32)
    power[:300, :280], power[400:420, 400:430] = np.nan, 1e-9  # not measured; below the floor
    corner = from_origin(500_000, 5_400_000, 10, 10)
    gcps = [
        GroundControlPoint(r, c, 500_000 + 10 * c, 5_400_000 - 10 * r) for r in (0, 599) for c in (0, 699)
    ]
    kinds = {
        "plain": {"crs": "EPSG:32633", "transform": corner},
        "rotated": {"crs": "EPSG:32633", "transform": corner * rasterio.Affine.rotation(20)},
        "gcps": {"gcps": gcps, "crs": "EPSG:32633"},
        "nowhere": {},
    }
    settings = {"quantity": "sigma0", "representation": "power", "shard": 512}
    for kind, place in kinds.items():
        file = write(folder / f"{kind}_vv.tif", power, nodata=math.nan, **place)
        store = sz.ingest(sz.plan_ingest(file, folder / f"{kind}.zarr", **settings))
        yield kind, store, store.scenes[0]
    for label, options in (("float32", {"dtype": "float32"}), ("no shards", {"shard": 0})):
        file = folder / "plain_vv.tif"
        store = sz.ingest(sz.plan_ingest(file, folder / f"{label}.zarr", **{**settings, **options}))
        yield label, store, store.scenes[0]


def to_db(z, attrs):
    return np.asarray(z, np.float64) * (attrs[cv.VMAX] - attrs[cv.VMIN]) + attrs[cv.VMIN]


def decoded(raw, attrs, fill):
    raw = np.asarray(raw)
    z = raw.astype(np.float64) * attrs.get(cv.SCALE_FACTOR, 1) + attrs.get(cv.ADD_OFFSET, 0)
    return to_db(np.where(np.isnan(raw) if fill != fill else raw == fill, np.nan, z), attrs)


@tool("xarray", "xarray")
def by_xarray(store, scene, array):
    import xarray as xr

    opened = xr.open_zarr(store.root, group=f"scenes/{scene}", chunks=None)[array]
    return to_db(opened.values, opened.attrs), None


@tool("xarray, datatree", "xarray")
def by_datatree(store, scene, array):
    import xarray as xr

    with xr.open_datatree(store.root, engine="zarr", chunks={}) as tree:
        opened = tree[f"scenes/{scene}/{array}"]
        return to_db(opened.values, opened.attrs), None


@tool("rioxarray", "rioxarray")
def by_rioxarray(store, scene, array):
    import rioxarray  # noqa: F401
    import xarray as xr

    opened = xr.open_zarr(store.root, group=f"scenes/{scene}", decode_coords="all")[array]
    grid = store.grid(scene)
    told = opened.rio.crs is not None and np.allclose(
        tuple(opened.rio.transform())[:6], grid.transform, rtol=1e-9
    )
    return to_db(opened.values, opened.attrs), told


@tool("zarr-python", "zarr")
def by_zarr(store, scene, array):
    import zarr

    opened = zarr.open_array(store.root, path=f"scenes/{scene}/{array}", mode="r")
    return decoded(opened[...], dict(opened.attrs), opened.fill_value), None


@tool("tensorstore", "tensorstore")
def by_tensorstore(store, scene, array):
    import tensorstore as ts

    path = store.root / "scenes" / scene / array
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    opened = ts.open(spec, open=True).result()
    return decoded(opened.read().result(), store.node_attrs(scene, array), opened.fill_value), None


@tool("GDAL of rasterio", "rasterio")
def by_gdal(store, scene, array):
    with rasterio.open(f'ZARR:"{store.root}":/scenes/{scene}/{array}') as file:
        values, grid = file.read(1, masked=True), store.grid(scene)
        scale, offset = file.scales[0], file.offsets[0]
        told = file.crs is not None and np.allclose(tuple(file.transform)[:6], grid.transform, rtol=1e-9)
    attrs = store.node_attrs(scene, array)
    if (scale, offset) == (1, 0):
        scale, offset = attrs.get(cv.SCALE_FACTOR, 1), attrs.get(cv.ADD_OFFSET, 0)
    return to_db(np.ma.filled(values.astype(np.float64) * scale + offset, np.nan), attrs), told


@tool("rio-tiler", "rio_tiler")
def by_rio_tiler(store, scene, array):
    import rioxarray  # noqa: F401
    import xarray as xr
    from rio_tiler.io.xarray import XarrayReader

    opened = xr.open_zarr(store.root, group=f"scenes/{scene}", decode_coords="all")[array]
    with XarrayReader(opened) as reader:
        image = reader.part(
            reader.bounds, dst_crs=reader.crs, bounds_crs=reader.crs, height=SHAPE[0], width=SHAPE[1]
        )
    return to_db(np.ma.filled(image.array[0].astype(np.float64), np.nan), opened.attrs), True


@tool("odc-geo", "odc.geo")
def by_odc(store, scene, array):
    import odc.geo.xr  # noqa: F401
    import xarray as xr

    opened = xr.open_zarr(store.root, group=f"scenes/{scene}", decode_coords="all")[array]
    box, grid = opened.odc.geobox, store.grid(scene)
    told = box is not None and box.crs is not None and np.allclose(tuple(box.transform)[:6], grid.transform)
    return to_db(opened.values, opened.attrs), told


def verdict(function, store, scene):
    """Return one cell of the table."""
    truth = store.db(scene, "vv").values
    try:
        values, told = function(store, scene, "vv")
    except Exception as error:
        return f"no: {type(error).__name__}: {' '.join(str(error).split())[:70]}".replace("|", "/")
    if values.shape != truth.shape or (np.isnan(values) != np.isnan(truth)).any():
        return f"opens; another mask ({np.isnan(values).sum()} of {np.isnan(truth).sum()})"
    if not np.allclose(values, truth, atol=0.003, equal_nan=True):
        return f"opens; other values (mean {np.nanmean(values):.2f}, not {np.nanmean(truth):.2f} dB)"
    place = {None: "", True: ", place", False: ", no place" if store.grid(scene).crs_wkt else ""}
    return "pixels, mask" + place[told]


def main():
    with tempfile.TemporaryDirectory() as folder:
        stores = list(make_stores(Path(folder)))
        if "--table" not in sys.argv:
            print("# Who reads what\n")
            print(
                "Made by `make interop`: each tool opens one scene of each kind; values in dB, the mask of what was\n"
                "measured, and CRS and transform (place) are compared with `Store.db` and `Store.grid`.\n"
                "GDAL before 3.13 has no `sharding_indexed`: for it a store is written with `--no-shards`.\n"
            )
        print(f"## Python {sys.version_info.major}.{sys.version_info.minor}\n")
        print("| tool | version | " + " | ".join(label for label, *_ in stores) + " |")
        print("|---" * (2 + len(stores)) + "|")
        for name, (package, function) in TOOLS.items():
            try:
                importlib.import_module(package)
                number = version({"odc.geo": "odc-geo", "rio_tiler": "rio-tiler"}.get(package, package))
            except (ImportError, PackageNotFoundError):
                print(f"| {name} | not installed | " + " | ".join("" for _ in stores) + " |")
                continue
            if name.startswith("GDAL"):
                number = f"{rasterio.__gdal_version__} (rasterio {number})"
            print(
                f"| {name} | {number} | " + " | ".join(verdict(function, s, i) for _, s, i in stores) + " |"
            )
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
