"""What calls return, as other tools take it: placed, masked and writable, sliced or not, whatever was imported."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import product

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.windows import Window
from tiffs import composed, speckle, write

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.store.documents import write_small_array
from sarzarr.store.place import Folder

SHAPE = (60, 70)
NODATA = -9999.0
PLAIN = Affine(10, 0, 500000, 0, -10, 5000000)
TURNED = composed(Affine.translation(5e5, 5e6), Affine.rotation(30), Affine.scale(10, -10))
GCPS = [
    GroundControlPoint(row=r, col=c, x=10 + c / 100, y=50 - r / 100, z=0) for r in (0, 60) for c in (0, 70)
]
KINDS = {
    "plain": {"transform": PLAIN},
    "rotated": {"transform": TURNED},
    "geographic": {"transform": Affine(9e-5, 0, 12.3, 0, -9e-5, 45.6), "crs": "EPSG:4326"},
    "gcps": {"transform": None, "crs": "EPSG:4326", "gcps": GCPS},
    "none": {"transform": None, "crs": None},
}
CALLS = ("db", "power", "scene", "file", "stack")
PLACED = ("plain", "rotated", "geographic")
HAS_NETCDF = find_spec("h5netcdf") is not None
pytestmark = [
    pytest.mark.filterwarnings("ignore:Transform that is non-rectilinear or with rotation found:UserWarning"),
    pytest.mark.filterwarnings("ignore:Dataset has no geotransform"),
    pytest.mark.filterwarnings("ignore:The given matrix is equal to Affine.identity"),
    pytest.mark.filterwarnings("ignore:Object at manifest.json is not recognized"),
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store per kind of place, of two dates, a third of each not measured and some pixels at the floor."""
    made = {}
    for kind, place in KINDS.items():
        folder = tmp_path_factory.mktemp(kind)
        for i, day in enumerate(("0101", "0113")):
            pixels = speckle((1, *SHAPE), seed=i)
            pixels[:, :20] = NODATA
            pixels[:, 30, 30:40] = 0
            write(folder / f"s1_2026{day}_VV.tif", pixels, nodata=NODATA, **place)
        plan = sz.plan_ingest(
            sorted(folder.glob("*.tif")), folder / "s.zarr", quantity="sigma0", representation="power"
        )
        made[kind] = sz.ingest(plan)
    return made


def opened(stores, kind, call):
    store = stores[kind]
    scene = store.scenes[0]
    if call == "file":
        return sz.open_scene(store.root.parent / f"{scene}_VV.tif")
    if call == "stack":
        return sz.open_stack(store, scene)  # named: names that tell a day alone are a guess
    return {"db": store.db, "power": store.power, "scene": store.open_scene}[call](scene)


def pixels_of(call):
    return "vv_db" if call in ("db", "stack") else "vv"


def part_of(data, kind, window):
    """Return a part; of a rotated grid as rioxarray takes it, which moves the affine along."""
    row, col, height, width = window
    if kind == "rotated":
        return data.rio.isel_window(Window(col, row, width, height))
    return data.isel(y=slice(row, row + height), x=slice(col, col + width))


def transform_of(kind, window):
    whole = KINDS[kind]["transform"] if kind in PLACED else Affine.identity()
    return composed(whole, Affine.translation(window[1], window[0]))


def assert_placed(data, kind, window):
    if kind in PLACED:
        assert data.rio.crs == rasterio.crs.CRS.from_user_input(KINDS[kind].get("crs", "EPSG:32633"))
    else:
        assert data.rio.crs is None
    np.testing.assert_allclose(
        data.rio.transform()[:6], transform_of(kind, window)[:6], rtol=1e-9, atol=1e-12
    )


def masked(values, nodata):
    """Return values with NaN for nodata: what a reader makes of it."""
    return values if nodata is None or nodata != nodata else np.where(values == nodata, np.nan, values)


def assert_same(again, data, kind, window):
    assert set(again.data_vars) == set(data.data_vars)
    for name, array in data.data_vars.items():
        nodata = array.rio.nodata
        np.testing.assert_array_equal(again[name].values, masked(array.values, nodata))
    assert_placed(again[next(iter(data.data_vars))], kind, window)


WINDOWS = st.tuples(st.integers(0, 40), st.integers(0, 50), st.integers(2, 20), st.integers(2, 20))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(list(KINDS)), call=st.sampled_from(CALLS), window=WINDOWS)
def test_a_part_is_written_and_read_back_with_its_values_mask_and_place(
    stores, tmp_path_factory, kind, call, window
):
    if call == "stack" and kind not in PLACED:
        return
    data = part_of(opened(stores, kind, call), kind, window)
    folder = tmp_path_factory.mktemp("w")
    assert_placed(data, kind, window)
    if HAS_NETCDF:
        data.to_netcdf(folder / "a.nc", engine="h5netcdf")
        with xr.open_dataset(folder / "a.nc", engine="h5netcdf", decode_coords="all") as again:
            assert_same(again, data, kind, window)
    data.to_zarr(folder / "a.zarr", zarr_format=3, consolidated=False)
    with xr.open_zarr(folder / "a.zarr", consolidated=False, decode_coords="all") as again:
        assert_same(again, data, kind, window)
    for name, array in data.data_vars.items():
        array.rio.to_raster(folder / f"{name}.tif")
        with rasterio.open(folder / f"{name}.tif") as written:
            values = written.read().reshape(array.shape)
            valid = written.read_masks().reshape(array.shape) > 0
            np.testing.assert_array_equal(values, array.values)
            truth = np.isfinite(masked(array.values, array.rio.nodata))
            np.testing.assert_array_equal(valid, truth)
            assert written.crs == array.rio.crs
            np.testing.assert_allclose(
                written.transform[:6], transform_of(kind, window)[:6], rtol=1e-9, atol=1e-12
            )


@pytest.mark.compat
@pytest.mark.parametrize(("kind", "call"), list(product(("plain", "geographic"), CALLS)))
def test_what_is_reprojected_is_written_with_its_mask(stores, tmp_path, kind, call):
    data = opened(stores, kind, call).isel(y=slice(10, 50))
    moved = data[pixels_of(call)].rio.reproject("EPSG:3857")
    assert moved.rio.crs.to_epsg() == 3857
    if HAS_NETCDF:
        moved.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    moved.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    moved.rio.to_raster(tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as written:
        truth = np.isfinite(masked(moved.values, moved.rio.nodata))
        np.testing.assert_array_equal(written.read_masks().reshape(moved.shape) > 0, truth)
        assert 0.4 < truth.mean() < 0.9


@pytest.mark.parametrize(("kind", "call"), list(product(KINDS, ("db", "power", "scene", "file"))))
def test_no_attribute_says_a_place_and_each_is_text_numbers_or_lists_of_them(stores, kind, call):
    data = opened(stores, kind, call)
    for owner in (data, *data.variables.values()):
        assert not [k for k in owner.attrs if k.startswith(("spatial:", "proj:", "gcps"))]
        for value in owner.attrs.values():
            for item in value if isinstance(value, list) else [value]:
                assert isinstance(item, str | int | float | np.number)
        assert not {"chunks", "shards", "compressors", "preferred_chunks"} & set(
            getattr(owner, "encoding", ())
        )


@pytest.mark.compat
@pytest.mark.parametrize("kind", ["plain", "geographic"])
@pytest.mark.parametrize("call", CALLS)
def test_a_transform_follows_every_step_and_coarsening(stores, kind, call):
    data = opened(stores, kind, call)[[pixels_of(call)]]
    place = KINDS[kind]["transform"]
    every = data.isel(y=slice(None, None, 3), x=slice(5, None, 2)).rio.transform()
    assert every.almost_equals(
        composed(place, Affine.translation(5, 0), Affine.translation(-0.5, -1), Affine.scale(2, 3)), 1e-4
    )
    rough = data.coarsen(y=4, x=5).mean().rio.transform()
    assert rough.almost_equals(composed(place, Affine.scale(5, 4)), 1e-4)


PARTS = {
    "steps": lambda data: data.isel(y=slice(None, None, 2), x=slice(1, None, 3)),
    "coarsen": lambda data: data.coarsen(y=4, x=5).mean(),
    "clip": lambda data: data.rio.clip_box(*data.isel(y=slice(5, 55), x=slice(5, 65)).rio.bounds()),
}


@pytest.mark.parametrize(("part", "call"), list(product(PARTS, ("db", "power", "stack"))))
def test_nodata_of_every_part_is_nan_and_gdal_is_told(stores, tmp_path, part, call):
    array = PARTS[part](opened(stores, "geographic", call))[pixels_of(call)]
    assert np.isnan(array.rio.nodata)
    array.rio.to_raster(tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as written:
        truth = np.isfinite(array.values)
        np.testing.assert_array_equal(written.read_masks().reshape(array.shape) > 0, truth)
        assert 0 < truth.mean() < 1


@pytest.mark.parametrize("kind", ["plain", "geographic", "gcps", "none"])
def test_what_the_store_and_the_file_give_join_row_by_row(stores, kind):
    """xarray leaves out, in silence, what coordinates that differ in their last bit do not share."""
    store = stores[kind]
    file = opened(stores, kind, "file")
    for call in ("db", "power", "scene"):
        xr.align(file, opened(stores, kind, call), join="exact")
    xr.align(file, xr.open_zarr(store.root, group=f"scenes/{store.scenes[0]}"), join="exact")


def test_a_scene_of_an_older_release_joins_those_of_this_one(stores, tmp_path):
    """Its coordinates were computed in another order of operations, and differ in their last bit."""
    root = shutil.copytree(stores["geographic"].root, tmp_path / "s.zarr")
    scene = stores["geographic"].scenes[0]
    older = 45.6 - 9e-5 * (np.arange(SHAPE[0]) + 0.5)
    write_small_array(Folder(root), f"scenes/{scene}/y", older, ("y",))
    store = sz.open_store(root)
    assert not np.array_equal(older, store.db(scene).y)
    xr.align(store.db(scene), store.db(store.scenes[1]), join="exact")


@pytest.mark.parametrize("call", CALLS)
def test_rio_is_there_in_a_fresh_interpreter(stores, call):
    root = str(stores["plain"].root)
    code = {
        "file": f"sz.open_scene({str(stores['plain'].root.parent / 's1_20260101_VV.tif')!r})",
        "stack": f"sz.open_stack({root!r}, 's1_20260101')",
        "scene": f"sz.open_store({root!r}).open_scene('s1_20260101')",
    }.get(call, f"sz.open_store({root!r}).{call}('s1_20260101')")
    made = f"import sarzarr as sz; d = {code}; print(d.rio.crs, d[{pixels_of(call)!r}].rio.nodata)"
    said = subprocess.run(
        [sys.executable, "-c", made], capture_output=True, text=True, check=True
    ).stdout.split()
    assert said == ["EPSG:32633", str(NODATA) if call == "file" else "nan"]


# ------------------------------------------------------------------ opened without us
@pytest.mark.compat
@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_open_is_normalized_nan_where_not_measured_and_writable(stores, tmp_path, kind):
    store = stores[kind]
    scene = store.scenes[0]
    plain = xr.open_zarr(store.root, group=f"scenes/{scene}")
    assert plain.vv.dtype == np.float64  # see docs/decisions/0071
    np.testing.assert_allclose(plain.vv.values * 160 - 60, store.db(scene).vv_db.values, atol=1e-4)
    assert int(plain.vv.isnull().sum()) == 20 * SHAPE[1]
    if HAS_NETCDF:
        plain.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    placed = xr.open_zarr(store.root, group=f"scenes/{scene}", decode_coords="all")
    assert_placed(placed.vv, kind, (0, 0, *SHAPE))
    placed.vv.rio.to_raster(tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as written:
        assert int((written.read_masks(1) == 0).sum()) == 20 * SHAPE[1]


@pytest.mark.compat
@pytest.mark.parametrize("kind", KINDS)
def test_the_place_stands_once_on_the_group_as_the_conventions_have_it(stores, kind):
    store = stores[kind]
    scene = store.scenes[0]
    about = store.node_attrs(scene)
    said = {k: v for k, v in about.items() if k.startswith(("spatial:", "proj:"))}
    if kind not in PLACED:
        assert not said
    else:
        assert said[cv.SPATIAL_TRANSFORM] == pytest.approx(KINDS[kind]["transform"][:6])
        assert said[cv.SPATIAL_SHAPE] == list(SHAPE)
        assert said[cv.SPATIAL_DIMENSIONS] == ["y", "x"]
        assert said[cv.PROJ_CODE] == KINDS[kind].get("crs", "EPSG:32633")
    for array in ("vv", "vv_flags"):
        attrs = store.node_attrs(scene, array)
        assert not [k for k in attrs if k.startswith(("spatial:", "proj:", "zarr_conventions"))]
        assert (attrs.get(cv.GRID_MAPPING) == cv.SPATIAL_REF) == (kind in PLACED)
    names = set(xr.open_zarr(store.root, group=f"scenes/{scene}", decode_coords="all").coords)
    both = {"x", "y"} if kind != "rotated" else set()
    assert names == both | ({cv.SPATIAL_REF} if kind in PLACED else set())


@pytest.mark.compat
def test_rioxarray_believes_the_grid_mapping_alone(stores):
    """0.19 knows no convention; 0.22 and 0.23 want them registered, under names that v0.1 does not have."""
    store = stores["plain"]
    opened = xr.open_zarr(store.root, group=f"scenes/{store.scenes[0]}", decode_coords="all")
    assert opened.attrs[cv.PROJ_CODE] == "EPSG:32633"
    assert opened.rio.crs.to_epsg() == 32633
    assert opened.drop_vars(cv.SPATIAL_REF).rio.crs is None
    part = opened.isel(x=slice(30, None))
    assert part.rio.transform().almost_equals(composed(PLAIN, Affine.translation(30, 0)))
