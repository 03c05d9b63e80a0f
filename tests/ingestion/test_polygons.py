"""Polygons burnt into a layer: which pixels they cover, whatever CRS, cut of the work and file they come in."""

import shutil
import sys
from itertools import product

import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from conftest import speckle, tree_hash, write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from polygons import feature, write_by_gdal, write_geojson

import sarzarr as sz
from sarzarr.cli import main
from sarzarr.errors import InvalidInputError, RasterNotFoundError, SceneExistsError, UnsupportedRasterError
from sarzarr.grids.burn import burn
from sarzarr.grids.crs import LONLAT, crs_wkt, transform_points
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.grid import Grid

LL = crs_wkt(LONLAT)
KNOWN = {"quantity": "sigma0", "representation": "power"}


def place(crs="EPSG:32633", shape=(60, 80), transform=(400, 0, 480_000, 0, -400, 6_000_000)):
    return Georeference(grid=Grid(height=shape[0], width=shape[1], crs_wkt=crs_wkt(crs), transform=transform))


def burnt(polygons, where, values=None, crs=LL, **options):
    values = values or [1] * len(polygons)
    rings = [tuple(np.array(ring, float) for ring in polygon) for polygon in polygons]
    made = burn(rings, values, crs, where, **({"dtype": "uint8", "all_touched": False} | options))
    height, width = where.grid.shape
    return made, made.window(row=0, col=0, height=height, width=width)


def covers(polygon, xs, ys):
    """Return where points lie in a polygon: by how many edges are right of them, in its own CRS."""
    inside = np.zeros(xs.shape, bool)
    for ring in polygon:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                meets = (y0 > ys) != (y1 > ys)
                inside ^= meets & (xs < x0 + (ys - y0) / (y1 - y0) * (x1 - x0))
    return inside


def truth(polygons, values, where):
    """Return the value of each pixel's centre, and whether it is the same everywhere within 0.1 pixels of it."""
    rows, cols = np.indices(where.grid.shape) + 0.5
    every = []
    around = np.linspace(-0.1, 0.1, 5)
    for down, right in [(0, 0), *product(around, around)]:
        xs, ys = where.grid.to_xy(rows + down, cols + right)
        xs, ys = transform_points(where.grid.crs_wkt, LL, xs, ys)
        out = np.zeros(rows.shape, int)
        for polygon, value in zip(polygons, values, strict=True):
            out[covers(polygon, xs, ys)] = value
        every.append(out)
    return every[0], np.all(np.array(every) == every[0], axis=0)


def star(random, x, y, reach, corners):
    """Return a ring around a middle that sees all of it: concave, simple, and around its smaller copies."""
    angles = (np.arange(corners) + random.uniform(0, 0.9, corners)) * 2 * np.pi / corners
    far = random.uniform(0.2, 1, corners)[:, None] * reach
    return np.array([x, y]) + far * np.stack([np.cos(angles), np.sin(angles)], axis=1)


PLACES = [
    place(),
    place(transform=(300, 80, 480_000, 80, -300, 6_000_000)),
    place("EPSG:4326", transform=(0.004, 0, 14.7, 0, -0.003, 54.2)),
    place("EPSG:3413", transform=(5_000, 0, -199_000, 0, -5_000, 150_700)),  # the pole is in it
    place("EPSG:32660", transform=(4_000, 0, 560_000, 0, -4_000, 6_000_000)),  # 180 degrees are in it
]


@settings(max_examples=20)
@given(st.sampled_from(PLACES), st.integers(0, 10**6))
def test_pixels_whose_centres_polygons_cover_have_their_value(where, seed):
    random = np.random.default_rng(seed)
    middles = where.grid.to_xy(*random.uniform(-10, 90, (2, 4)))
    xs, ys = transform_points(where.grid.crs_wkt, LL, *middles)
    polygons = []
    for x, y in zip(xs, np.clip(ys, -80, 80), strict=True):
        reach = np.array([6.0, 3.0]) * random.choice([0.05, 0.3, 1])
        outer = star(random, x, y, reach, 9)
        polygons.append((outer, (outer - (x, y)) * 0.4 + (x, y)))
    ends = np.concatenate([polygon[0][:, 0] for polygon in polygons])
    if ends.max() > 180 or ends.min() < -180:  # the oracle knows no turns
        polygons = [tuple(np.clip(ring, (-180, -90), (180, 90)) for ring in polygon) for polygon in polygons]
    values = [3, 1, 2, 7]
    made, found = burnt(polygons, where, values)
    expected, is_sure = truth(polygons, values, where)
    np.testing.assert_array_equal(found[is_sure], expected[is_sure])
    row, col = random.integers(0, 40, 2).tolist()
    height, width = random.integers(1, 20, 2).tolist()
    part = made.window(row=row, col=col, height=height, width=width)
    np.testing.assert_array_equal(part, found[row : row + height, col : col + width])


def test_a_window_of_a_large_grid_is_that_part_of_the_whole():
    where = place(shape=(700, 4500), transform=(10, 0, 480_000, 0, -10, 6_000_000))
    random = np.random.default_rng(0)
    xs, ys = where.grid.to_xy(random.uniform(0, 700, 30), random.uniform(0, 4500, 30))
    polygons = [(star(random, x, y, 2500, 40),) for x, y in zip(xs, ys, strict=True)]
    made, found = burnt(polygons, where, list(range(1, 31)), crs=where.grid.crs_wkt)
    assert len(np.unique(found)) > 20
    for row, col in ((0, 0), (255, 2047), (300, 1900), (690, 4490)):
        part = made.window(row=row, col=col, height=300, width=2200)
        held = found[row : row + 300, col : col + 2200]
        np.testing.assert_array_equal(part[: held.shape[0], : held.shape[1]], held)


def test_polygons_of_the_whole_earth_are_cut_before_they_are_projected():
    world = [[-180, -90], [180, -90], [180, 90], [-180, 90]]
    for where in PLACES:
        assert burnt([(world,)], where)[1].all()
    hole = [[10, 50], [20, 50], [20, 60], [10, 60]]  # all of the scene lies in it
    assert not burnt([(world, hole)], PLACES[0])[1].any()


def test_an_edge_is_straight_in_longitude_and_latitude():
    """And not on the map: along 54 degrees, 3 degrees long, that is 300 m."""
    where = place(shape=(40, 500), transform=(400, 0, 400_000, 0, -40, 5_984_800))
    polygon = ([[13.4, 54.0], [16.5, 54.0], [16.5, 53.0], [13.4, 53.0]],)
    found = burnt([polygon], where)[1]
    expected, is_sure = truth([[np.array(ring) for ring in polygon]], [1], where)
    np.testing.assert_array_equal(found[is_sure], expected[is_sure])
    first = found.argmax(axis=0)
    assert np.ptp(first) >= 5


def test_touched_pixels_are_more_and_hold_the_others():
    sliver = ([[15.0, 53.95], [15.3, 54.0], [15.3, 54.0005], [15.0, 53.9505]],)
    few, many = (burnt([sliver], PLACES[0], all_touched=touched)[1] for touched in (False, True))
    assert many.sum() > few.sum()
    assert (many >= few).all()
    assert not burnt([sliver], place(transform=(400, 0, 900_000, 0, -400, 6_000_000)), all_touched=True)[
        1
    ].any()


def test_an_edge_across_180_degrees_is_refused():
    with pytest.raises(InvalidInputError, match=r"cut at 180 degrees .RFC 7946.*wrapdateline"):
        burnt([([[179, 50], [-179, 50], [-179, 56], [179, 56]],)], PLACES[4])


# ------------------------------------------------------------------ files and stores
SHAPE = (600, 700)
CORNERS = {"a": (500_000, "EPSG:32633"), "b": (503_000, "EPSG:32633"), "far": (500_000, "EPSG:32640")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of two scenes that share ground, one elsewhere, and one in image geometry."""
    folder = tmp_path_factory.mktemp("made")
    for i, (name, (x, crs)) in enumerate(CORNERS.items()):
        corner = Affine(10, 0, x, 0, -10, 6_000_000)
        write_band(folder / f"{name}_vv.tif", speckle(SHAPE, seed=i), transform=corner, crs=crs)
    gcps = [
        rasterio.control.GroundControlPoint(r, c, 15 + c / 1e4, 54 - r / 1e4)
        for r in (0, 600)
        for c in (0, 700)
    ]
    with rasterio.open(
        folder / "tilted_vv.tif", "w", driver="GTiff", height=600, width=700, count=1, dtype="float32", gcps=gcps,
        crs="EPSG:4326",
    ) as file:  # fmt: skip
        file.write(speckle(SHAPE, seed=9), 1)
    return sz.ingest(sz.plan_ingest(sorted(folder.glob("*.tif")), folder / "s.zarr", shard=256, **KNOWN)).root


@pytest.fixture
def store(made, tmp_path):
    shutil.copytree(made, tmp_path / "s.zarr")
    return sz.open_store(tmp_path / "s.zarr")


def corners(row, col, side, crs=LL):
    """Return a ring around pixels of scene a, in longitude and latitude."""
    rows, cols = np.array([row, row, row + side, row + side]), np.array([col, col + side, col + side, col])
    xs, ys = 500_000 + 10.0 * cols, 6_000_000 - 10.0 * rows
    return np.stack(transform_points(crs_wkt("EPSG:32633"), crs, xs, ys), axis=1)


def pixels(store, scene, layer="water"):
    return zarr.open_array(store.root / "scenes" / scene / layer, mode="r")[...]


PLACED = ["a", "b", "far"]
WATER = feature(corners(100, 350, 100), kind="water", code=7)
ICE = feature(corners(150, 400, 200), kind="ice", code=2)


def right(scene, first=1, second=2):
    """Return the layer of WATER under ICE: whose values they are depends on their names."""
    whole = np.zeros((600, 1000), np.uint8)
    whole[100:200, 350:450] = first
    whole[150:350, 400:600] = second
    return {"a": whole[:, :700], "b": whole[:, 300:], "far": np.zeros(SHAPE, np.uint8)}[scene]


def test_a_file_becomes_a_layer_of_every_scene_on_its_ground(store, tmp_path):
    file = write_geojson(tmp_path / "areas.geojson", [WATER, ICE])
    done = sz.import_polygons(store, file, layer="water", column="kind", scenes=PLACED)
    assert done.classes == {1: "ice", 2: "water"}
    assert (done.written, done.empty, list(done.refused)) == (("a", "b", "far"), ("far",), [])
    fresh = sz.open_store(store.root)
    for scene in PLACED:
        np.testing.assert_array_equal(pixels(fresh, scene), right(scene, 2, 1))
        attrs = fresh.layer_attrs(scene, "water")
        assert attrs["classes"] == {"0": "background", "1": "ice", "2": "water"}
        assert (attrs["nodata"], attrs["all_touched"], attrs["source_files"]) == (
            255,
            False,
            ["areas.geojson"],
        )
    assert not sz.verify(fresh).findings
    before = tree_hash(store.root)
    again = sz.import_polygons(fresh, file, layer="water", column="kind", scenes=PLACED)
    assert (again.written, again.present) == ((), ("a", "b", "far"))
    assert tree_hash(store.root) == before
    (_, mask) = next(
        iter(sz.PatchReader(fresh, scenes=["a"], layers=["water"], patch_size=600, batch_size=1))
    )
    np.testing.assert_array_equal(mask[0, 0], right("a", 2, 1)[:, :600])
    padded = sz.PatchReader(fresh, scenes=["a"], layers=["water"], edge="pad", patch_size=1024, batch_size=1)
    assert (next(iter(padded))[1][0, 0, 600:] == 255).all()
    assert padded.layer_nodata == {"water": 255}


def test_scenes_in_image_geometry_are_refused_and_the_others_go_in(store, tmp_path):
    file = write_geojson(tmp_path / "areas.geojson", [WATER])
    done = sz.import_polygons(store, file, layer="water")
    assert done.written == ("a", "b", "far")
    (refusal,) = done.refused
    assert refusal.scene == "tilted"
    assert "in image geometry. Ingest it onto the ground first: --crs" in refusal.reason
    with pytest.raises(UnsupportedRasterError, match="in image geometry"):
        sz.import_polygons(store, file, layer="other", scenes="tilted")


def test_whole_numbers_are_values_and_without_a_column_all_is_1(store, tmp_path):
    file = write_geojson(tmp_path / "areas.json", [WATER, ICE])
    sz.import_polygons(store, file, layer="coded", column="code", scenes=["a"])
    sz.import_polygons(store, file, layer="plain", scenes=["a"])
    np.testing.assert_array_equal(pixels(store, "a", "coded"), right("a", 7, 2))
    np.testing.assert_array_equal(pixels(store, "a", "plain"), right("a", 1, 1))
    many = write_geojson(tmp_path / "many.json", [feature(corners(0, 0, 9), code=300.0)])
    sz.import_polygons(store, many, layer="many", column="code", scenes=["a"])
    assert pixels(store, "a", "many").dtype == np.uint16
    assert pixels(store, "a", "many")[4, 4] == 300
    assert sz.open_store(store.root).layer_attrs("a", "many")["nodata"] == 65535


def test_names_keep_their_numbers_from_file_to_file(store, tmp_path):
    one = write_geojson(tmp_path / "one.json", [WATER])
    two = write_geojson(tmp_path / "two.json", [ICE, WATER])
    sz.import_polygons(store, one, layer="water", column="kind", scenes=["a"])
    done = sz.import_polygons(sz.open_store(store.root), two, layer="water", column="kind", scenes=["b"])
    assert done.classes == {1: "water", 2: "ice"}
    reader = sz.PatchReader(store.root, scenes=["a", "b"], layers=["water"])
    assert reader.layer_nodata == {"water": 255}
    clash = write_geojson(tmp_path / "clash.json", [feature(corners(0, 0, 300), code=2)])
    with pytest.raises(InvalidInputError, match="expected class 2 to be 'ice', as in the store"):
        sz.import_polygons(sz.open_store(store.root), clash, layer="water", column="code", scenes=["far"])


def test_another_layer_of_that_name_is_written_over_on_demand_alone(store, tmp_path):
    one = write_geojson(tmp_path / "one.json", [WATER])
    sz.import_polygons(store, one, layer="water", scenes=["a"])
    two = write_geojson(tmp_path / "two.json", [ICE])
    with pytest.raises(SceneExistsError, match="Pass --replace to write the layer anew"):
        sz.import_polygons(store, two, layer="water", scenes=["a"])
    fresh = sz.open_store(store.root)
    sz.import_polygons(fresh, two, layer="water", scenes=["a"], replace=True)
    np.testing.assert_array_equal(pixels(store, "a"), right("a", 0, 1))


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "fgb"])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32634"])
def test_a_file_that_gdal_reads_is_what_the_same_geojson_is(store, tmp_path, suffix, crs):
    own = crs_wkt(crs)
    rings = corners(100, 350, 100, own), corners(150, 400, 200, own)
    water, ice = (feature(ring, kind=kind) for ring, kind in zip(rings, ("water", "ice"), strict=True))
    told = {"type": "name", "properties": {"name": crs.replace("EPSG:", "urn:ogc:def:crs:EPSG::")}}
    if suffix == "gpkg":  # nothing, several at once, and heights
        high = [[*corner, 9.0] for corner in ice["geometry"]["coordinates"][0]]
        ice["geometry"] = {"type": "MultiPolygon", "coordinates": [[high]]}
    features = [water, {"type": "Feature", "properties": {"kind": "none"}, "geometry": None}, ice]
    one = write_geojson(tmp_path / "areas.json", features, crs=told)
    two = write_by_gdal(tmp_path / f"areas.{suffix}", features, crs=crs)
    for layer, path in (("one", one), ("two", two)):
        sz.import_polygons(store, path, layer=layer, column="kind", scenes=["a", "b"])
        for scene in "ab":
            np.testing.assert_array_equal(pixels(store, scene, layer), right(scene, 2, 1))


def test_an_interrupted_run_is_taken_up_and_ends_in_the_same_bytes(store, tmp_path):
    shutil.copytree(store.root, tmp_path / "whole.zarr")
    file = write_geojson(tmp_path / "areas.json", [WATER, ICE])
    options = {"layer": "water", "column": "kind", "scenes": ["a", "b"]}
    sz.import_polygons(tmp_path / "whole.zarr", file, **options)

    def stop(progress):
        if progress.done > progress.total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sz.import_polygons(store, file, **options, progress=stop)
    assert "water" not in sz.open_store(store.root).layers("b")
    receipts = list((tmp_path / "s.zarr.ingest").rglob("receipts/*.json"))
    assert receipts
    sz.import_polygons(store.root, file, **options)
    assert tree_hash(store.root) == tree_hash(tmp_path / "whole.zarr")


def test_a_damaged_layer_is_made_again_from_its_polygons(made, store, tmp_path):
    file = write_geojson(tmp_path / "areas.json", [WATER, ICE])
    sz.import_polygons(store, file, layer="water", column="kind", scenes=["a"], all_touched=True)
    whole = tree_hash(store.root)
    shard = next(p for p in (store.root / "scenes/a/water/c").rglob("*") if p.is_file())
    shard.unlink()
    done = sz.repair(store.root, [tmp_path, made.parent])
    assert not done.left
    assert tree_hash(store.root) == whole


TRIANGLE = [[15, 54], [15.1, 54], [15, 53.9], [15, 54]]


def geometry(kind, coordinates):
    return {"type": "Feature", "properties": {}, "geometry": {"type": kind, "coordinates": coordinates}}


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (
            [geometry("Point", [15, 54])],
            {},
            "in 'x.json', got a Point, which has no area. Buffer points and lines",
        ),
        ([geometry("Polygon", [TRIANGLE[:2]])], {}, "got a ring of 2 corners, not 3"),
        ([geometry("Polygon", [[[15, "x"], *TRIANGLE]])], {}, "in 'x.json', got could not convert"),
        ([geometry("Polygon", [[[15, 1e999], *TRIANGLE]])], {}, "not 3 finite corners or more"),
        ([], {}, "collections of them in 'x.json', got none"),
        (
            [geometry("Polygon", [TRIANGLE])],
            {"column": "kind"},
            "a column of 'x.json' among none, got 'kind'",
        ),
        (
            [WATER, geometry("Polygon", [TRIANGLE])],
            {"column": "kind"},
            "a text or a whole number as 'kind' of feature 2",
        ),
        ([feature(TRIANGLE, kind=0)], {"column": "kind"}, "expected classes from 1 to 65534, got 0"),
        ([feature(TRIANGLE, kind=1), WATER], {"column": "kind"}, "all texts or all whole numbers"),
        ([WATER], {"table": "x"}, "expected a GeoPackage for table 'x'"),
        ([WATER], {"layer": "vv"}, "expected a layer's name"),
        ([WATER], {"scenes": ["far"]}, "expected polygons on the ground of a scene, got none of 1"),
    ],
)
def test_a_file_that_says_no_polygons_is_refused_and_changes_nothing(
    store, tmp_path, features, options, message
):
    file = write_geojson(tmp_path / "x.json", features)
    before = tree_hash(store.root)
    with pytest.raises(InvalidInputError, match=message):
        sz.import_polygons(store, file, **({"layer": "water", "scenes": ["a"]} | options))
    assert tree_hash(store.root) == before


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"type": "FeatureCollection"}', b"[" * 100_000, b"\xff\xfe"]
)
def test_what_is_no_geojson_is_refused(store, tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match="expected"):
        sz.import_polygons(store, tmp_path / "x.json", layer="water")


def test_what_is_no_file_of_polygons_is_refused(store, tmp_path):
    def refused(file, message, **options):
        with pytest.raises(InvalidInputError, match=message):
            sz.import_polygons(store, tmp_path / file, layer="water", **options)

    with pytest.raises(RasterNotFoundError, match="Check the path"):
        sz.import_polygons(store, tmp_path / "none.gpkg", layer="water")
    (tmp_path / "x.kml").write_text("<kml/>")
    refused(
        "x.kml",
        r"\.json, \.gpkg, \.shp, \.fgb\), got 'x.kml', which is none. Convert it: ogr2ogr OUT\.gpkg IN",
    )
    (tmp_path / "x.shp").write_text("<OGRVRTDataSource/>")  # what GDAL would go by, and may name another host
    refused("x.shp", "got 'x.shp', which is none")
    whole = write_by_gdal(tmp_path / "x.gpkg", [WATER], tables=("one", "two"))
    refused("x.gpkg", "among one, two, got none. Name one with --table")
    refused("x.gpkg", "among one, two, got 'three'", table="three")
    refused("x.gpkg", "a column of 'x.gpkg' among kind, code, got 'name'", table="one", column="name")
    (tmp_path / "cut.gpkg").write_bytes(whole.read_bytes()[:30_000])
    refused("cut.gpkg", "in 'cut.gpkg', got DataSourceError")
    flat = write_by_gdal(tmp_path / "x.fgb", [WATER])
    (tmp_path / "cut.fgb").write_bytes(flat.read_bytes()[:-40])
    refused("cut.fgb", "in 'cut.fgb', got FeatureError")
    write_by_gdal(
        tmp_path / "point.gpkg", [WATER, geometry("Point", [15, 54]) | {"properties": WATER["properties"]}]
    )
    refused("point.gpkg", "got a Point, which has no area")
    local = 'ENGCRS["x",EDATUM["x"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    write_by_gdal(tmp_path / "local.gpkg", [WATER], crs=local)
    refused("local.gpkg", "expected the CRS of 'local.gpkg', got none. Assign it: ogr2ogr -a_srs")


def test_another_class_in_a_shapefile_is_another_layer(store, tmp_path):
    for kind, message in (("water", ""), ("ice", "Pass --replace to write the layer anew")):
        file = write_by_gdal(tmp_path / "x.shp", [feature(corners(100, 350, 100), kind=kind)])
        options = {"layer": "water", "column": "kind", "scenes": ["a"]}
        if message:
            with pytest.raises(SceneExistsError, match=message):
                sz.import_polygons(store.root, file, **options)
        else:
            sz.import_polygons(store.root, file, **options)


def test_the_command_says_what_became_of_them(store, tmp_path, monkeypatch, capsys):
    write_by_gdal(tmp_path / "areas.gpkg", [WATER], tables=("one", "two"))
    line = f"import polygons {tmp_path}/areas.gpkg -o {store.root} --layer water --column kind --table two"
    monkeypatch.setattr(sys, "argv", ["sarzarr", *line.split(), "--all-touched"])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert stop.value.code == 3
    assert "layer water: 1 polygon burnt into 3 scenes; 0 is background, 1 water" in said.out
    assert "no polygon lies on far: 0 throughout" in said.out
    assert "1 scene refused, the others have the layer" in said.out + said.err
