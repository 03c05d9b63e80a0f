"""What is put on scenes is the same in any turn of longitude, and across 180 degrees."""

import json

import numpy as np
import pytest
from conftest import read_band, speckle, write_band
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

import sarzarr as sz
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.splits.make import make_split
from sarzarr.store.boxes import read_boxes

pytestmark = pytest.mark.slow

FINE = 2.0**-12
SHAPE = (300, 320)


def write_degrees(path, values, west, *, north=40.0, **more):
    transform = Affine(FINE, 0, west, 0, -FINE, north)
    return write_band(path, values, crs="EPSG:4326", transform=transform, **more)


def store_of(folder, west, turns=(0, 360), shape=SHAPE, **options):
    """Ingest two dates of one ground, whose longitudes differ by a turn."""
    folder.mkdir(parents=True)
    paths = [
        write_degrees(folder / f"s1_2026010{i + 1}_vv.tif", speckle(shape, seed=i), west + t)
        for i, t in enumerate(turns)
    ]
    known = {"quantity": "sigma0", "representation": "power"}
    return sz.ingest(sz.plan_ingest(paths, folder / "s.zarr", **known, **options))


@pytest.mark.parametrize("west", [-109.5, 179.96875])
def test_two_dates_of_one_ground_are_a_stack_on_one_side(tmp_path, west):
    options = {"val_fraction": 0.4, "block": 15_000, "seed": 0}
    store = store_of(tmp_path / "a", west, shape=(1500, 1500))
    assert sz.make_stack(store, store.scenes).scenes == store.scenes
    split = make_split(store, **options)
    one, two = split.scenes
    np.testing.assert_array_equal(one.codes, two.codes)
    elsewhere = store_of(tmp_path / "b", west, turns=(-360, 0), shape=(1500, 1500))
    np.testing.assert_array_equal(one.codes, make_split(elsewhere, **options).scenes[0].codes)


@pytest.fixture(scope="module")
def around(tmp_path_factory):
    """Stores of one ground each, that many whole turns and degrees to the east."""
    return {
        west: store_of(tmp_path_factory.mktemp("around") / "one", west, turns=(0,))
        for west in (-109.5, 250.5, 179.96875, -180.03125)
    }


def square(lon, lat, side):
    ring = [(lon, lat), (lon + side, lat), (lon + side, lat - side), (lon, lat - side), (lon, lat)]
    return [[[x, y] for x, y in ring]]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    west=st.sampled_from([-109.5, 250.5, 179.96875, -180.03125]),
    col=st.integers(0, 299),
    row=st.integers(0, 279),
    turn=st.sampled_from([0, 360, -360]),
    is_split=st.booleans(),
)
def test_a_box_is_on_its_pixels_in_any_turn(around, tmp_path, west, col, row, turn, is_split):
    """However its longitudes are counted: going on beyond 180, or each vertex brought back into -180..180."""
    store = around[west]
    rings = square(west + col * FINE + turn, 40.0 - row * FINE, 20 * FINE)
    if is_split:
        rings = [[[(x + 180) % 360 - 180, y] for x, y in ring] for ring in rings]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": rings}}
    path = tmp_path / "boxes.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    sz.import_boxes(store, path, scene=store.scenes[0])
    assert np.allclose(read_boxes(store).boxes, [[col, row, min(col + 20, 320), row + 20]], atol=1e-3)


def test_a_box_on_the_other_side_of_the_earth_covers_nothing(around, tmp_path):
    """Read as numbers, its vertices lie on both sides of the scene, and the box would be all of it."""
    place = square(70.5 - 10 * FINE, 40.0 - 10 * FINE, 20 * FINE)
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": place}}
    path = tmp_path / "boxes.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    for west in (-109.5, 250.5):
        with pytest.raises(InvalidInputError, match="1 outside their scene"):
            sz.import_boxes(around[west], path, scene=around[west].scenes[0])


@pytest.mark.parametrize("beside", [0, 360, -360])
@pytest.mark.parametrize("west", [-109.5, 179.96875])
def test_a_layer_lies_on_its_scene_in_any_turn(tmp_path, west, beside):
    heights = np.add.outer(np.arange(340.0), 3.0 * np.arange(360)).astype(np.float32)
    dem = write_degrees(tmp_path / "dem.tif", heights, west - 20 * FINE + beside, north=40.0 + 10 * FINE)
    store = store_of(tmp_path / "a", west, turns=(0,), layers={"dem": str(dem)})
    np.testing.assert_array_equal(store.open_scene(store.scenes[0])["dem"].values, heights[10:310, 20:340])
    zone = "EPSG:32612" if west < 0 else "EPSG:32660"
    store = store_of(tmp_path / "b", west, turns=(0,), layers={"dem": str(dem)}, crs=zone, pixel_size=20)
    values = store.open_scene(store.scenes[0])
    lacking = np.isnan(values["dem"].values) & (values["vv_flags"].values == 0)
    assert not lacking.any()


def test_a_small_layer_across_180_degrees_is_found(tmp_path):
    """A file that the grid's own sampled points miss, and whose longitudes are of another turn."""
    mask = write_degrees(
        tmp_path / "m.tif", np.ones((3, 4), "u1"), -180 - 2 * FINE, north=40 - 100 * FINE, nodata=255
    )
    store = store_of(tmp_path / "a", 179.96875, turns=(0,), layers={"m": str(mask)})
    values = store.open_scene(store.scenes[0])["m"].values
    rows, cols = np.nonzero(values == 1)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (100, 102, 126, 129)


@pytest.mark.parametrize("turn", [0, 360, -360])
def test_a_grid_like_a_scenes_is_the_same_in_any_turn(tmp_path, turn):
    store = store_of(tmp_path / "a", -109.5, turns=(0,))
    raw = speckle((250, 260), seed=5)
    other = write_degrees(tmp_path / "b_vv.tif", raw, -109.5 + 50 * FINE + turn, north=40 - 30 * FINE)
    known = {"quantity": "sigma0", "representation": "power"}
    store = sz.ingest(sz.plan_ingest(other, store.root, like=store.scenes[0], **known))
    assert store.grid("b") == store.grid(store.scenes[1])
    got = store.power("b", "vv").values
    np.testing.assert_allclose(got[30:280, 50:310], raw, rtol=2e-3)
    assert np.isnan(got[:30]).all()


def test_a_place_beyond_the_earth_is_said_by_the_plan(tmp_path):
    path = write_band(
        tmp_path / "a_hh.tif",
        speckle((300, 300)),
        crs="EPSG:4326",
        transform=Affine(0.87, 0, 0, 0, 0.9966, 0),
    )
    known = {"quantity": "sigma0", "representation": "power"}
    plan = sz.plan_ingest(path, tmp_path / "s.zarr", **known)
    assert "no place on earth: its EPSG:4326 has x 0 to 261, y 0 to 298.98" in str(plan)
    store = sz.ingest(plan)
    assert store.grid("a").crs_wkt is None
    assert "spatial_ref" not in store.open_scene("a").variables
    np.testing.assert_allclose(store.power("a", "hh").values, read_band(path, 1), rtol=2e-3)
    with pytest.raises(UnsupportedRasterError, match=r"a_hh.tif' with no place on earth"):
        sz.plan_ingest(path, tmp_path / "t.zarr", crs="EPSG:32633", pixel_size=10, **known)
