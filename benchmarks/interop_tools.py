"""Tools that read a store, without sarzarr: compares what each makes of each case with the truth; prints JSON.

``python interop_tools.py FOLDER TOOL`` reads ``FOLDER/cases.json``, which `interop.py` wrote. Values of backscatter
are [0, 1] until the comparison, which is in dB; of all else they are the numbers themselves.
"""

import importlib
import json
import re
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

TOOLS = {}
"""(package, what the tool tells, function) by the tool's name. A function takes the store's path and the path of an
array in it; it returns (values with NaN where nodata, CRS or None, affine of six numbers or None)."""
VALUES, PLACE, AFFINE, TILES = (
    "values, mask",
    "values, mask, CRS, transform",
    "values, mask, transform",
    "tiles: values, mask",
)


def tool(name, package, tells=VALUES):
    def register(function):
        TOOLS[name] = package, tells, function
        return function

    return register


def attributes(store, node):
    return json.loads(Path(store, node, "zarr.json").read_text())["attributes"]


def without(values, nodata):
    """Return float64 with NaN for nodata; None is nothing."""
    values = np.asarray(values)
    out = values.astype(np.float64)
    return out if nodata is None else np.where(values == nodata, np.nan, out)


def decoded(raw, store, node, fill):
    """Return what CF's attributes make of stored numbers; ``fill`` is nodata but where pixels have none: flags."""
    attrs = attributes(store, node)
    scale, offset = attrs.get("scale_factor", 1), attrs.get("add_offset", 0)
    return without(raw, None if fill != fill else fill) * scale + offset


# ------------------------------------------------------------------ xarray and what stands on it
def group_of(node):
    return node.rsplit("/", 1)


def by_xarray(opened):
    """Return an array of xarray: NaN where it is float; of integers the value that ``nodata`` names is none."""
    return without(opened.values, opened.attrs.get("nodata") if opened.dtype.kind in "iu" else None)


def placed(opened):
    """Return a DataArray's CRS and affine as rioxarray takes them."""
    import rioxarray  # noqa: F401

    crs = opened.rio.crs
    return by_xarray(opened), crs and crs.to_wkt(), crs and tuple(opened.rio.transform())[:6]


@tool("xarray", "xarray")
def xarray_alone(store, node):
    import xarray as xr

    group, name = group_of(node)
    return by_xarray(xr.open_zarr(store, group=group, chunks=None)[name]), None, None


@tool("xarray, Dask", "xarray")
def xarray_dask(store, node):
    import xarray as xr

    group, name = group_of(node)
    opened = xr.open_zarr(store, group=group, chunks={})[name]
    assert opened.chunks
    return by_xarray(opened.compute()), None, None


@tool("xarray, datatree", "xarray")
def xarray_tree(store, node):
    import xarray as xr

    with xr.open_datatree(store, engine="zarr", chunks={}) as tree:
        return by_xarray(tree[node].compute()), None, None


@tool("rioxarray", "rioxarray", PLACE)
def rioxarray_coords(store, node):
    import xarray as xr

    group, name = group_of(node)
    return placed(xr.open_zarr(store, group=group, decode_coords="all")[name])


@tool("odc-geo", "odc.geo", PLACE)
def odc_geo(store, node):
    import odc.geo.xr  # noqa: F401
    import xarray as xr

    group, name = group_of(node)
    opened = xr.open_zarr(store, group=group, decode_coords="all")[name]
    box = opened.odc.geobox
    crs = box and box.crs
    return by_xarray(opened), crs and crs.to_wkt(), crs and tuple(box.transform)[:6]


@tool("rasterix", "rasterix", AFFINE)
def rasterix_index(store, node):
    import rasterix
    import xarray as xr

    group, name = group_of(node)
    opened = rasterix.assign_index(xr.open_zarr(store, group=group, decode_coords="all"))
    index = next(i for i in opened.xindexes.values() if isinstance(i, rasterix.RasterIndex))
    return by_xarray(opened[name]), None, tuple(index.transform())[:6]


# ------------------------------------------------------------------ Zarr itself
def by_zarr(source, store, node):
    import zarr

    opened = zarr.open_array(source, path=node, mode="r")
    return decoded(opened[...], store, node, opened.fill_value), None, None


@tool("zarr-python", "zarr")
def zarr_python(store, node):
    return by_zarr(store, store, node)


@tool("zarr-python, fused pipeline", "zarr")
def zarr_fused(store, node):
    import zarr

    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline"}):
        return by_zarr(store, store, node)


@tool("zarrs pipeline of zarr-python", "zarrs")
def zarrs(store, node):
    import zarr
    import zarrs  # noqa: F401

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return by_zarr(store, store, node)


@tool("obstore, ObjectStore", "obstore")
def obstore_local(store, node):
    from obstore.store import LocalStore
    from zarr.storage import ObjectStore

    return by_zarr(ObjectStore(LocalStore(str(store)), read_only=True), store, node)


@tool("tensorstore", "tensorstore")
def tensorstore(store, node):
    import tensorstore as ts

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(Path(store, node))}}
    opened = ts.open(spec, open=True).result()
    return decoded(opened.read().result(), store, node, opened.fill_value), None, None


@tool("zarrita (node)", "")
def zarrita(store, node):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "raw")
        script = Path(store).parent / "zarrita" / "read.mjs"
        run = subprocess.run(["node", script, store, node, out], capture_output=True, text=True, check=False)
        if run.returncode:
            errors = [line for line in run.stderr.splitlines() if "Error" in line]
            raise RuntimeError(errors[0] if errors else run.stderr[-200:])
        about = json.loads(run.stdout)
        raw = np.fromfile(out, about["dtype"]).reshape(about["shape"])
        fill = about["fill"]
        return decoded(raw, store, node, float("nan") if fill is None else fill), None, None


# ------------------------------------------------------------------ virtual
def as_parsed(store, group):
    """Return what VirtualiZarr's parser makes of a group of a store in a folder, and the registry."""
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import ZarrParser

    registry = ObjectStoreRegistry({"file://": LocalStore()})
    return ZarrParser(group=group), registry, Path(store).resolve().as_uri()


@tool("VirtualiZarr", "virtualizarr")
def virtualizarr(store, node):
    import xarray as xr

    group, name = group_of(node)
    parser, registry, url = as_parsed(store, group)
    with xr.open_zarr(parser(url, registry), consolidated=False, zarr_format=3) as opened:
        return by_xarray(opened[name].compute()), None, None


@tool("icechunk, copied", "icechunk")
def icechunk_copied(store, node):
    import icechunk
    import xarray as xr
    from icechunk.xarray import to_icechunk

    group, name = group_of(node)
    session = icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main")
    with xr.open_zarr(store, group=group, chunks=None) as opened:
        to_icechunk(opened[[name]], session)
    with xr.open_zarr(session.store, consolidated=False) as again:
        return by_xarray(again[name].compute()), None, None


@tool("icechunk, virtual", "icechunk")
def icechunk_virtual(store, node):
    import icechunk
    import virtualizarr as vz
    import xarray as xr

    group, name = group_of(node)
    parser, registry, url = as_parsed(store, group)
    config = icechunk.RepositoryConfig.default()
    prefix = Path(store).resolve().as_uri() + "/"
    files = icechunk.local_filesystem_store(str(Path(store).resolve()))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, files))
    access = getattr(icechunk.Credentials, "LocalFileSystemAccess", lambda: None)()  # before 2.0 it is None
    repository = icechunk.Repository.create(
        icechunk.in_memory_storage(), config, authorize_virtual_chunk_access={prefix: access}
    )
    session = repository.writable_session("main")
    vz.open_virtual_dataset(url, registry, parser, loadable_variables=[]).vz.to_icechunk(session.store)
    with xr.open_zarr(session.store, consolidated=False) as again:
        return by_xarray(again[name].compute()), None, None


# ------------------------------------------------------------------ GDAL and tiles
@tool("GDAL of rasterio", "rasterio", PLACE)
def gdal_of_rasterio(store, node):
    import rasterio

    with rasterio.open(f'ZARR:"{store}":/{node}') as file:
        values = file.read(masked=True) if file.count > 1 else file.read(1, masked=True)
        scale, offset = file.scales[0], file.offsets[0]
        crs, affine = file.crs, tuple(file.transform)[:6]
    attrs = attributes(store, node)
    if (scale, offset) == (1, 0):
        scale, offset = attrs.get("scale_factor", 1), attrs.get("add_offset", 0)
    values = np.ma.filled(values.astype(np.float64) * scale + offset, np.nan)
    return values, crs and crs.to_wkt(), crs and affine


@tool("GDAL of osgeo", "osgeo", PLACE)
def gdal_of_osgeo(store, node):
    from osgeo import gdal

    gdal.UseExceptions()
    file = gdal.Open(f'ZARR:"{store}":/{node}')
    band = file.GetRasterBand(1)
    attrs = attributes(store, node)
    scale, offset = band.GetScale(), band.GetOffset()
    scale = attrs.get("scale_factor", 1) if scale is None else scale
    offset = attrs.get("add_offset", 0) if offset is None else offset
    values = np.where(band.GetMaskBand().ReadAsArray() > 0, band.ReadAsArray() * scale + offset, np.nan)
    crs, gt = file.GetSpatialRef(), file.GetGeoTransform()
    return values, crs and crs.ExportToWkt(), crs and (gt[1], gt[2], gt[0], gt[4], gt[5], gt[3])


@tool("rio-tiler", "rio_tiler", PLACE)
def rio_tiler(store, node):
    import rioxarray  # noqa: F401
    import xarray as xr
    from rio_tiler.io.xarray import XarrayReader

    group, name = group_of(node)
    opened = xr.open_zarr(store, group=group, decode_coords="all")[name]
    height, width = opened.shape[-2:]
    with XarrayReader(opened) as reader:
        image = reader.part(
            reader.bounds, dst_crs=reader.crs, bounds_crs=reader.crs, height=height, width=width
        )
        crs, affine = reader.crs.to_wkt(), tuple(image.transform)[:6]
    return np.ma.filled(np.ma.squeeze(image.array, 0).astype(np.float64), np.nan), crs, affine


@tool("rioxarray, a part", "rioxarray", PLACE)
def rioxarray_part(store, node, row=100, col=50, step=2):
    """Return all values, and the affine of the whole that the affine of every second pixel of a part says."""
    import xarray as xr
    from affine import Affine

    group, name = group_of(node)
    opened = xr.open_zarr(store, group=group, decode_coords="all")[name]
    _, crs, affine = placed(opened.isel(y=slice(row, None, step), x=slice(col, None, step)))
    centre = Affine.translation(0.5, 0.5)
    part_of_whole = Affine.translation(col, row) * centre * Affine.scale(step) * ~centre
    return by_xarray(opened), crs, affine and tuple(Affine(*affine) * ~part_of_whole)[:6]


@tool("titiler-xarray", "titiler.xarray", TILES)
def titiler_xarray(store, node, zoom=13):
    """Return the tiles that cover a scene: (values, affine in EPSG:3857) of each, nearest pixels."""
    import rasterio.warp
    from titiler.xarray.io import Reader

    group, name = group_of(node)
    with Reader(str(store), name, group=group) as reader:
        if reader.crs.to_epsg() == 4326:
            raise RuntimeError("an array without CRS is taken to lie in EPSG:4326")
        bounds = rasterio.warp.transform_bounds(reader.crs, "EPSG:4326", *reader.bounds)
        images = [
            reader.tile(tile.x, tile.y, tile.z, reproject_method="nearest")
            for tile in reader.tms.tiles(*bounds, zoom)
        ]
    return [
        (np.ma.filled(image.array[0].astype(np.float64), np.nan), tuple(image.transform)[:6])
        for image in images
    ]


# ------------------------------------------------------------------ the comparison
def epsg(wkt):
    codes = re.findall(r'(?:ID|AUTHORITY)\["EPSG",\s*"?(\d+)"?\]', wkt or "")
    return int(codes[-1]) if codes else None


def differs(values, truth):
    """Return the sentence for values that are not the truth, or None."""
    if values.shape != truth.shape:
        return f"shape {values.shape}, not {truth.shape}"
    got, right = np.isnan(values), np.isnan(truth)
    if (got != right).any():
        return f"another mask: {got.sum()} pixels are not valid, not {right.sum()}"
    if not np.allclose(values, truth, rtol=0, atol=1e-3, equal_nan=True):
        return f"other values: mean {np.nanmean(values):.3f}, not {np.nanmean(truth):.3f}"
    return None


def misplaced(tells, crs, affine, case):
    """Return the sentence for CRS and affine that are not the scene's, or None."""
    if tells == PLACE and epsg(crs) != case["epsg"]:
        return f"{'no CRS' if crs is None else epsg(crs) or 'a CRS without code'}, not {case['epsg']}"
    if case["epsg"] and not np.allclose(affine, case["affine"], rtol=1e-9):
        return "another transform: " + ", ".join(f"{n:.6g}" for n in affine)
    return None


def tiles_differ(tiles, truth, case):
    """Return the sentence for tiles that are not the nearest pixels, or None; borders of pixels are left out."""
    from affine import Affine
    from pyproj import Transformer

    to_scene = Transformer.from_crs(3857, case["epsg"], always_xy=True)
    inverse, kinds = ~Affine(*case["affine"]), np.zeros(3, int)
    for values, affine in tiles:
        rows, cols = np.mgrid[: values.shape[0], : values.shape[1]] + 0.5
        x, y = to_scene.transform(*(Affine(*affine) * (cols, rows)))
        col, row = inverse * (x, y)
        sure = (np.abs(col - np.round(col)) > 0.2) & (np.abs(row - np.round(row)) > 0.2)
        inside = (col >= 0) & (col < truth.shape[1]) & (row >= 0) & (row < truth.shape[0])
        right = np.full(values.shape, np.nan)
        right[inside] = truth[row[inside].astype(int), col[inside].astype(int)]
        if wrong := differs(np.where(sure, values, 0), np.where(sure, right, 0)):
            return wrong
        kinds += [(~np.isnan(right)).sum(), (np.isnan(right) & inside).sum(), (~inside).sum()]
    if not kinds[0] or not kinds[2] or (np.isnan(truth).any() and not kinds[1]):
        return f"tiles without valid, nodata and edge ground: {kinds}"
    return None


def in_case(values, case):
    low, high = case["range"] or (0, 1)
    return values * (high - low) + low


def verdict(name, case, folder):
    """Return "same", "" where there is nothing to ask, or the reason why not."""
    _, tells, read = TOOLS[name]
    truth = np.load(Path(folder, case["truth"]))
    try:
        if tells == TILES:
            if len(case["nodes"]) > 1 or truth.ndim > 2:
                return ""
            tiles = [(in_case(v, case), a) for v, a in read(Path(folder, case["store"]), *case["nodes"])]
            return tiles_differ(tiles, truth, case) or "same"
        got = [read(Path(folder, case["store"]), node) for node in case["nodes"]]
    except Exception as error:
        first = (" ".join(str(error).split()) or "no words").replace(str(folder), "").replace("|", "/")
        return f"{type(error).__name__}: {first[:110]}"
    values = np.stack([v for v, _, _ in got]) if len(got) > 1 else got[0][0]
    wrong = differs(in_case(values, case), truth)
    if tells in (PLACE, AFFINE) and not wrong:
        wrong = next(filter(None, (misplaced(tells, crs, affine, case) for _, crs, affine in got)), None)
    return wrong or "same"


def number_of(name, package, folder):
    if name.startswith("zarrita"):
        return json.loads(Path(folder, "zarrita/node_modules/zarrita/package.json").read_text())["version"]
    module = importlib.import_module(package)
    if package == "osgeo" and importlib.import_module("osgeo.gdal").GetDriverByName("Zarr") is None:
        raise SystemExit(f"GDAL {module.__version__} of the wheel gdal-wheel has no Zarr driver")
    names = {"odc.geo": "odc-geo", "rio_tiler": "rio-tiler", "titiler.xarray": "titiler-xarray"}
    number = version(names.get(package, "gdal-wheel" if package == "osgeo" else package))
    if package == "rasterio":
        import rasterio

        return f"{rasterio.__gdal_version__} (rasterio {number})"
    return number


def main():
    warnings.simplefilter("ignore")
    folder, name, layout = sys.argv[1:]
    cases = json.loads(Path(folder, "cases.json").read_text())[layout]
    row = {"version": number_of(name, TOOLS[name][0], folder), "tells": TOOLS[name][1]}
    print(json.dumps(row | {"cells": {case["kind"]: verdict(name, case, folder) for case in cases}}))


if __name__ == "__main__":
    main()
