"""Boxes that were found on patches go back to the map, each once."""

import json

import numpy as np
import pytest
from conftest import speckle, write_band
from hypothesis import given
from hypothesis import strategies as st
from rasterio import Affine
from test_geotiff import write_scene

import sarzarr as sz
from sarzarr.errors import InvalidInputError, NotInStoreError, RasterNotFoundError, UnsupportedRasterError
from sarzarr.export.detections import Detections, merged, read_detections
from sarzarr.grids.crs import LONLAT, crs_wkt, transform_points
from sarzarr.pixels.rotated import apply_to_rotated, corners_of_rotated
from sarzarr.pixels.turns import apply_to_boxes


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Scenes of one CRS (a north up, b south up, one rotated), across 180 degrees, of GCPs, without a place."""
    folder = tmp_path_factory.mktemp("found")
    affines = {
        "a_20260101": Affine(10, 0, 500_000, 0, -10, 5_400_000),
        "b": Affine(10, 0, 500_000, 0, 10, 5_400_000),
        "turned": Affine(9.1, 3.3, 500_000, 3.2, -9.4, 5_400_000),
    }
    files = [write_band(folder / f"{n}_vv.tif", speckle((300, 400)), transform=t) for n, t in affines.items()]
    files.append(
        write_band(
            folder / "d_vv.tif",
            speckle((300, 400)),
            crs="EPSG:4326",
            transform=Affine(0.01, 0, 178, 0, -0.01, 2),
        )
    )
    shared = {"shape": (300, 400), "form": "power", "missing": 0, "zeros": False, "seed": 0}
    files += [
        write_scene(folder / f"{n}_vv.tif", place=p, **shared) for n, p in (("g", "gcps"), ("n", "nothing"))
    ]
    return sz.ingest(sz.plan_ingest(files, folder / "s.zarr", representation="power"))


def found(*boxes, label=1, score=0.5):
    return {"boxes": np.array(boxes, float), "scores": [score] * len(boxes), "labels": [label] * len(boxes)}


def written(tmp_path, *args, **options):
    path = sz.export_detections(args[0], args[1], tmp_path / "x.geojson", **options)
    document = json.loads(path.read_text())
    assert document["type"] == "FeatureCollection"
    assert "crs" not in document  # RFC 7946: longitude and latitude, always
    return document["features"]


def area(ring):
    x, y = np.array(ring).T
    return ((x[:-1] * y[1:]) - (x[1:] * y[:-1])).sum() / 2


@pytest.mark.parametrize("scene", ["a_20260101", "b", "turned", "g"])
def test_a_box_is_a_ring_on_the_ground(store, tmp_path, scene):
    (feature,) = written(tmp_path, found([10, 20, 50, 60]), scene, store=store, classes={1: "ship"})
    ring = feature["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    assert area(ring) > 0  # counter-clockwise
    corners = np.array([(20, 10), (60, 10), (60, 50), (20, 50)], float)  # row, column
    if scene == "g":
        wanted = [(10 + c / 900, 50 - r / 901 + c / 9000) for r, c in corners]
    else:
        xs, ys = store.grid(scene).to_xy(*corners.T)
        wanted = np.stack(transform_points(crs_wkt("EPSG:32633"), LONLAT, xs, ys), axis=1)
    np.testing.assert_allclose(
        sorted(ring[:-1]), sorted(map(list, wanted)), atol=2e-6 if scene == "g" else 2e-8
    )
    about = {"scene": scene, "label": 1, "class": "ship", "score": 0.5}
    about |= {"x_min": 10, "y_min": 20, "x_max": 50, "y_max": 60}
    about["time"] = "2026-01-01T00:00:00Z" if scene.startswith("a") else None
    assert feature["properties"] == about


def test_a_box_across_180_degrees_is_cut(store, tmp_path):
    boxes = found([300, 0, 310, 10], [10, 0, 20, 10], [190, 0, 210, 10])
    features = written(tmp_path, boxes, "d", store=store)
    near, across, far = sorted(features, key=lambda feature: feature["properties"]["x_min"])
    assert far["geometry"]["coordinates"][0][0] == [-179.0, 2.0]
    assert near["geometry"]["coordinates"][0][0] == [178.1, 2.0]
    assert across["geometry"]["type"] == "MultiPolygon"
    east, west = (part[0] for part in across["geometry"]["coordinates"])
    assert {x for x, _ in east} == {179.9, 180.0}
    assert {x for x, _ in west} == {-180.0, -179.9}
    assert area(east) + area(west) == pytest.approx(0.2 * 0.1)


@pytest.mark.parametrize("turn", range(8))
def test_boxes_of_turned_patches_lie_where_they_were(store, tmp_path, turn):
    boxes = np.array([[3.0, 4, 20, 10]])
    batch = {"scene": ["b"], "row": [100], "col": [200], "turn": [turn], "image": np.zeros((1, 1, 64, 64))}
    detected = found(*apply_to_boxes(turn, boxes, shape=(64, 64)))
    (feature,) = written(tmp_path, iter([([detected], batch)]), None, store=store)
    about = feature["properties"]
    assert [about[k] for k in ("x_min", "y_min", "x_max", "y_max")] == [203, 104, 220, 110]


def test_overlapping_patches_give_each_object_once(store, tmp_path):
    """Patches of 64 every 32: an object is seen by up to four, whole or cut; what is beyond is cut off."""
    objects = np.array(
        [[30, 30, 50, 42], [100, 100, 120, 130], [100, 100, 121, 131], [380, 280, 420, 320]], float
    )
    labels, rows = np.array([1, 1, 2, 1]), [(r, c) for r in range(0, 300, 32) for c in range(0, 400, 32)]
    patches = []
    rng = np.random.default_rng(0)
    for row, col in rows:
        own = objects - [col, row, col, row]
        cut = np.clip(own, 0, 64)
        seen = (cut[:, 2] - cut[:, 0] > 2) & (cut[:, 3] - cut[:, 1] > 2)
        patches.append({"boxes": cut[seen], "scores": rng.random(seen.sum()), "labels": labels[seen]})
    table = {"scene": ["a_20260101"] * len(rows), "row": [r for r, _ in rows], "col": [c for _, c in rows]}
    table["image"] = np.zeros((len(rows), 1, 64, 64))
    features = written(tmp_path, patches, table, store=store)
    kept = {(*(f["properties"][k] for k in ("x_min", "y_min", "x_max", "y_max", "label")),) for f in features}
    wanted = {
        (*box, label) for box, label in zip(np.minimum(objects, [400, 300] * 2).tolist(), labels, strict=True)
    }
    assert kept == wanted
    assert len(features) == 4


@given(st.integers(0, 999), st.floats(0.05, 1))
def test_what_is_kept_does_not_overlap_and_what_goes_does(seed, iou):
    rng = np.random.default_rng(seed)
    corner, side = rng.integers(0, 40, (30, 2)), rng.integers(1, 20, (30, 2))
    given_ = Detections(
        boxes=np.hstack([corner, corner + side]).astype(float), scores=rng.random(30),
        labels=rng.integers(0, 2, 30), is_cut=np.zeros(30, bool),
    )  # fmt: skip
    kept = merged(given_, iou=iou)
    assert (np.diff(kept.scores) <= 0).all()

    def overlap(one, other):
        sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
        return sides / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - sides)

    chosen = {*kept.scores.tolist()}
    for box, score, label in zip(given_.boxes, given_.scores, given_.labels, strict=True):
        better = [overlap(box, b) for b, s, own in zip(kept.boxes, kept.scores, kept.labels, strict=True)
                  if own == label and s > score]  # fmt: skip
        assert (score in chosen) == (max(better, default=0) <= iou)


def test_a_geopackage_is_in_the_crs_of_its_scenes(store, tmp_path):
    pyogrio = pytest.importorskip("pyogrio", reason="pyogrio is not installed (sarzarr[vector])")
    path = tmp_path / "x.gpkg"
    sz.export_detections([found([10, 20, 50, 60])], "a_20260101", path, store=store)
    meta, _, shapes, columns = pyogrio.raw.read(path)
    about = dict(zip(meta["fields"], columns, strict=True))
    assert meta["crs"] == "EPSG:32633"
    assert (about["scene"][0], about["class"][0], about["label"][0]) == ("a_20260101", "1", 1)
    ring = np.frombuffer(shapes[0][13:], "<f8").reshape(-1, 2)
    assert sorted(map(tuple, ring[:-1].tolist())) == [
        (500_100, 5_399_400), (500_100, 5_399_800), (500_500, 5_399_400), (500_500, 5_399_800)
    ]  # fmt: skip
    table = {"scene": ["b", "g"], "row": [0, 0], "col": [0, 0]}
    sz.export_detections([found([1, 2, 3, 4])] * 2, table, path, store=store)
    assert pyogrio.read_info(path)["crs"] == "EPSG:4326"
    assert pyogrio.read_info(path)["features"] == 2
    sz.export_detections([found()], "b", path, store=store)
    assert pyogrio.read_info(path)["features"] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["x.gpkg"]


def test_files_of_detections_are_read(store, tmp_path):
    patches = [
        {"scene": "b", "row": 5, "col": 9, "size": 64, **found([1, 2, 30, 40])},
        {"scene": "turned", **found()},
    ]
    text = json.dumps(patches, default=np.ndarray.tolist)
    (tmp_path / "f.json").write_text(text)
    detections, table = read_detections(tmp_path / "f.json")
    (feature,) = written(tmp_path, detections, table, store=store)
    assert (feature["properties"]["x_min"], feature["properties"]["y_max"]) == (10, 45)
    assert len(written(tmp_path, detections, table, store=store, min_score=0.95)) == 0
    (tmp_path / "f.json").write_text('[{"boxes": []}]')
    with pytest.raises(InvalidInputError, match=r"docs/way_back\.md"):
        read_detections(tmp_path / "f.json")
    with pytest.raises(RasterNotFoundError):
        read_detections(tmp_path / "none.json")


def test_what_cannot_be_placed_is_refused(store, tmp_path):
    path = tmp_path / "x.geojson"
    for error, args, options, words in (
        (UnsupportedRasterError, (found([1, 2, 3, 4]), "n"), {}, "ground control points"),
        (NotInStoreError, (found([1, 2, 3, 4]), "z"), {}, "scene must be one of"),
        (InvalidInputError, ([{"boxes": []}], "a_20260101"), {}, "'scores'"),
        (InvalidInputError, ([found([1, 2, 3, np.nan])], "a_20260101"), {}, "finite boxes"),
        (InvalidInputError, ([found([1, 2, 3, 4])], "a_20260101"), {"classes": ["water"]}, "label 1"),
        (InvalidInputError, ([found([1, 2, 3, 4])], "a_20260101"), {"iou": 0}, "above 0"),
        (
            InvalidInputError,
            ([found()], {"scene": ["b"], "row": [0], "col": [0], "turn": [4]}),
            {},
            "whole batch",
        ),
    ):
        with pytest.raises(error, match=words):
            sz.export_detections(*args, path, store=store, **options)
    with pytest.raises(InvalidInputError, match="gpkg"):
        sz.export_detections([], "a_20260101", tmp_path / "x.shp", store=store)
    assert not path.exists()


@pytest.mark.parametrize("turn", range(8))
def test_rotated_boxes_go_to_the_map_as_their_four_corners(store, tmp_path, turn):
    """Those of a patch that was delivered turned are turned back; upright ones beside them stay upright."""
    drawn = np.array([[30, 40, 40, 8, 0.6]])
    in_patch = apply_to_rotated(turn, drawn, shape=(128, 128))
    result = {"boxes": in_patch, "scores": [0.9], "labels": [1]}
    where = {"scene": ["a_20260101"] * 2, "row": [10, 10], "col": [20, 20], "turn": [turn, 0]}
    where["image"] = np.zeros((2, 1, 128, 128))
    features = written(tmp_path, [result, found([90, 90, 120, 110], score=0.3)], where, store=store)
    assert len(features) == 2
    grid, right = store.grid("a_20260101"), corners_of_rotated(drawn)[0] + np.array([20, 10])
    xs, ys = grid.to_xy(right[:, 1], right[:, 0])
    wanted = np.stack(transform_points(crs_wkt("EPSG:32633"), LONLAT, xs, ys), axis=1)
    ring = features[0]["geometry"]["coordinates"][0]
    assert area(ring) > 0
    np.testing.assert_allclose(sorted(ring[:-1]), sorted(map(list, wanted)), atol=2e-8)
    facts = features[0]["properties"]
    np.testing.assert_allclose(
        [facts[k] for k in ("cx", "cy", "w", "h", "angle")], [50, 50, 40, 8, 0.6], atol=1e-9
    )
    np.testing.assert_allclose(facts["x_min"], right[:, 0].min())


@given(seed=st.integers(0, 2**20))
def test_rotated_boxes_are_merged_by_the_area_of_their_polygons(seed):
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [rng.uniform(0, 40, (12, 2)), rng.uniform(5, 30, (12, 2)), rng.uniform(-1.5, 1.5, (12, 1))], 1
    )
    rings = corners_of_rotated(drawn)
    hulls = np.concatenate([rings.min(axis=1), rings.max(axis=1)], axis=1)
    scores = rng.permutation(12) / 12
    some = Detections(
        boxes=hulls, scores=scores, labels=np.ones(12, np.int64), is_cut=np.zeros(12, bool), rings=rings
    )
    polygons, kept = shapely.polygons(rings), []
    for i in np.argsort(-scores).tolist():
        shared = [shapely.intersection(polygons[i], polygons[j]).area for j in kept]
        union = [polygons[i].area + polygons[j].area - s for j, s in zip(kept, shared, strict=True)]
        if all(s <= 0.4 * u for s, u in zip(shared, union, strict=True)):
            kept.append(i)
    np.testing.assert_array_equal(merged(some, iou=0.4).scores, scores[kept])
