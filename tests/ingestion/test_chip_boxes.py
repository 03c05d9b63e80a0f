"""Boxes on the chips of a collection: those of the same picture as a patch of a scene, under every turn."""

import json
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from chip_collections import ids_of, make_chips
from conftest import write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr.cli.output import summary
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.pixels.rotated import corners_of_rotated
from sarzarr.reader.targets import patch_targets
from sarzarr.store.boxes import Boxes, Drawn, Windows, write_boxes
from sarzarr.store.chip_boxes import boxes_on_chips, chip_grids, read_chip_boxes
from sarzarr.store.commit import changing

SIDE = 16
KINDS = ("ship", "buoy", "tank")


@pytest.fixture
def store(tmp_path):
    return make_chips(tmp_path / "s.zarr", sizes=((SIDE, SIDE),) * 9)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("untouched") / "s.zarr", sizes=((SIDE, SIDE),) * 2, masks=False)


def coco(path, shown, kinds=KINDS):
    """Write boxes (x_min, y_min, x_max, y_max, kind) by the name of their picture."""
    images = [{"id": i, "file_name": name} for i, name in enumerate(shown)]
    boxes = [
        {"image_id": i, "category_id": kinds.index(kind) + 1, "bbox": [x, y, right - x, bottom - y]}
        for i, some in enumerate(shown.values())
        for x, y, right, bottom, kind in some
    ]
    categories = [{"id": i, "name": kind} for i, kind in enumerate(kinds, 1)]
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return path


def targets(store, **options):
    """Return (boxes, names of classes) of each chip, by its id."""
    reader = sz.CollectionReader(store, "floods", with_meta=True, **{"boxes": True, **options})
    out = {}
    for batch in reader:
        for chip, target in zip(batch["chip"], batch["target"], strict=True):
            kinds = [reader.targets.classes[k - 1] for k in target["labels"]]
            out[chip] = target["boxes"].tolist(), kinds
    return out


# ------------------------------------------------------------------ one law
def drawn_on(seed, count, side, rotated):
    """Return what is drawn on some pictures by their number: boxes that reach outside among them."""
    rng = np.random.default_rng(seed)
    out = {}
    for i in range(count):
        n = int(rng.integers(0, 4))
        turned = np.stack(
            [
                *rng.uniform(-1, side + 1, (2, n)),
                *rng.uniform(2, side / 2, (2, n)),
                rng.uniform(-1.5, 1.5, n),
            ],
            1,
        )
        corners = corners_of_rotated(turned).astype(np.float32)
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        out[i] = Drawn(boxes, [KINDS[k] for k in rng.integers(0, 3, n)], corners if rotated else None)
    return out


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6), rotated=st.booleans(), asked=st.booleans(), frame=st.integers(0, 9),
    visible=st.sampled_from([0.0, 0.3, 0.9]),
)  # fmt: skip
def test_a_chips_boxes_are_those_of_the_same_picture_as_a_patch(seed, rotated, asked, frame, visible):
    """As a window of an image of that size, under each of eight turns; in a larger frame none moves."""
    drawn = {f"c{i}": one for i, one in drawn_on(seed, 4, SIDE, rotated).items()}
    sizes, ids = {f"c{i}": (SIDE, SIDE) for i in range(5)}, np.arange(5)
    boxes = Boxes.gathered(drawn, sizes, on="collections/c", classes=KINDS)
    same = Boxes.gathered(drawn, sizes, classes=KINDS)
    nowhere = np.zeros(5, np.int64)
    windows = Windows(owner=ids, row=nowhere, col=nowhere, size=SIDE)
    patches = patch_targets(same, [*sizes], windows, ids, min_visible=visible, rotated=asked)
    sides = np.array([*sizes.values()])
    shown = boxes_on_chips(boxes, [*sizes], sides, min_visible=visible, rotated=asked)
    chips = replace(patches, boxes=shown, label=boxes.label[shown.source].astype(np.int64))
    for turn, i in product(range(8), range(5)):
        mine, other = chips.target(i, turn), patches.target(i, turn)
        for key in mine:
            assert mine[key].dtype == other[key].dtype
            np.testing.assert_array_equal(mine[key], other[key])
    padded = replace(chips, shape=(SIDE + frame, SIDE + frame))
    for i in range(5):
        np.testing.assert_array_equal(padded.target(i)["boxes"], chips.target(i)["boxes"])


@pytest.mark.slow
def test_readers_of_chips_and_scenes_deliver_one_target(pair):
    """Of stores: rotated boxes that reach outside, upright and rotated, turned, and padded."""
    chips, scenes = pair
    drawn, ids, shape = drawn_on(3, 3, SIDE, True), chips_ids(chips), (SIDE, SIDE)
    with changing(chips) as draft:
        made = sz.open_collection(draft, "floods")
        some = Boxes.gathered(
            {ids[i]: one for i, one in drawn.items()}, dict.fromkeys(ids, shape), on=made.key, classes=KINDS
        )
        rows = [made.numbers[owner] for owner in some.owners]
        write_boxes(draft, replace(some, grids=chip_grids(made, rows)))
    with changing(scenes) as draft:
        parts = {f"s{i}": one for i, one in drawn.items()}
        write_boxes(draft, Boxes.gathered(parts, dict.fromkeys(parts, shape), classes=KINDS))
    chips, scenes = chips.anew(), scenes.anew()
    for boxes in (True, "rotated"):
        one = sz.CollectionReader(chips, "floods", rows=[0, 1, 2], boxes=boxes)
        two = sz.PatchReader(
            scenes, patch_size=SIDE, min_valid=0, min_unsaturated=0, index="small", boxes=boxes
        )
        padded = sz.CollectionReader(chips, "floods", size="pad", boxes=boxes)
        assert padded.selection.shape == (SIDE + 8, SIDE + 8)
        for turn in (0, 3, 5):
            mine, others = (r.read([0, 1, 2], [turn] * 3)[1] for r in (one, two))
            assert sum(len(one["boxes"]) for one in mine) > 2
            for i, key in product(range(3), ("boxes", "labels", "area", "iscrowd")):
                np.testing.assert_array_equal(mine[i][key], others[i][key])
        for i in range(3):
            np.testing.assert_array_equal(padded.read([i])[1][0]["boxes"], one.read([i])[1][0]["boxes"])


def chips_ids(store):
    return sz.open_collection(store, "floods").ids


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return a store of chips, the last ones larger, and one of three scenes of a chip's size."""
    folder = tmp_path_factory.mktemp("pair")
    chips = make_chips(
        folder / "c.zarr", sizes=((SIDE, SIDE),) * 4 + ((SIDE + 8, SIDE + 8),) * 2, masks=False
    )
    for i in range(3):
        pixels = np.full((SIDE, SIDE), 0.1 + i / 10, np.float32)
        pixels[0] = np.linspace(0.01, 1, SIDE)
        write_band(folder / f"s{i}_VV.tif", pixels, transform=from_origin(4e5 + 1e4 * i, 5e6, 10, 10))
    plan = sz.plan_ingest(
        sorted(folder.glob("s?_VV.tif")),
        folder / "s.zarr",
        quantity="sigma0",
        representation="power",
        scenes=True,
    )
    scenes = sz.ingest(plan)
    assert list(scenes.scenes) == ["s0", "s1", "s2"]
    return chips, scenes


# ------------------------------------------------------------------ formats
@pytest.mark.slow
def test_every_format_puts_the_same_boxes_on(store, tmp_path):
    ids = ids_of(9)
    shown = {ids[0]: [(2, 3, 9, 8, "ship"), (0, 0, 4, 4, "tank")], ids[4]: [(1, 1, 3, 6, "buoy")], ids[5]: []}
    wanted = {
        chip: (
            [list(map(float, box[:4])) for box in shown.get(chip, ())],
            [box[4] for box in shown.get(chip, ())],
        )
        for chip in ids
    }
    formats = {
        "coco": coco(tmp_path / "all.json", {f"D:\\data\\{name}.tif": boxes for name, boxes in shown.items()})
    }
    for kind in ("voc", "yolo", "dota"):
        formats[kind] = tmp_path / kind / "labels"
        formats[kind].mkdir(parents=True)
    (tmp_path / "yolo" / "data.yaml").write_text(f"names: [{', '.join(KINDS)}]")
    (tmp_path / "voc" / "classes.txt").write_text("\n".join(KINDS))
    lines = ["chip,x_min,y_min,x_max,y_max,label"]
    for name, boxes in shown.items():
        objects = "".join(
            f"<object><name>{k}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
            "</object>"
            for a, b, c, d, k in boxes
        )
        (formats["voc"] / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
        shares = [
            (KINDS.index(k), *(v / SIDE for v in ((a + c) / 2, (b + d) / 2, c - a, d - b)))
            for a, b, c, d, k in boxes
        ]
        (formats["yolo"] / f"{name}.txt").write_text("\n".join(" ".join(map(str, one)) for one in shares))
        (formats["dota"] / f"{name}.txt").write_text(
            "".join(f"{a} {b} {c} {b} {c} {d} {a} {d} {k} 0\n" for a, b, c, d, k in boxes)
        )
        lines += [f"{name}.tif,{a},{b},{c},{d},{k}" for a, b, c, d, k in boxes]
    formats["csv"] = tmp_path / "all.csv"
    formats["csv"].write_text("\n".join(lines))
    for kind, path in formats.items():
        done = sz.import_chip_boxes(store, "floods", path, name=kind)
        assert (done.counts["kept"], done.chips) == (3, 2 if kind == "csv" else 3)
        assert targets(store.anew(), boxes=kind) == wanted, kind
    assert sz.store_classes(store).names == KINDS
    for again in formats.values():  # once more: nothing changes
        before = sz.import_chip_boxes(store, "floods", again, name="coco").boxes
        assert len(before) == 3
    found = sz.verify(store.anew())
    assert not found.findings


def test_rotated_boxes_keep_their_corners_and_difficult_ones_their_flag(store, tmp_path):
    chip = ids_of(9)[2]
    (tmp_path / f"{chip}.txt").write_text("gsd:1\n8 2 14 8 8 14 2 8 ship 1\n1 1 3 1 3 3 1 3 buoy 0\n")
    done = sz.import_chip_boxes(store, "floods", tmp_path / f"{chip}.txt")
    assert done.boxes.turned == 1
    assert done.boxes.difficult.tolist() == [True, False]
    np.testing.assert_array_equal(done.boxes.polygons[0], [(8, 2), (14, 8), (8, 14), (2, 8)])
    turned = targets(store.anew(), boxes="rotated")[chip][0]
    np.testing.assert_allclose(np.abs(turned[0]), (8, 8, 72**0.5, 72**0.5, np.pi / 4), atol=1e-5)
    assert targets(store.anew())[chip][0][0] == [2, 2, 14, 14]


def test_features_without_a_chip_go_onto_every_chip_that_shows_them(store, tmp_path):
    """In longitude and latitude: of a box over an edge only what is mostly on the chip; others are counted."""
    back = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True)
    made, ids = sz.open_collection(store, "floods"), ids_of(9)

    def feature(row, left, top, right, bottom, **facts):
        grid = made.grid(row)
        xs, ys = grid.to_xy(np.array([top, top, bottom, bottom]), np.array([left, right, right, left]))
        ring = np.stack(back.transform(xs, ys), axis=1).tolist()
        geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        return {"type": "Feature", "properties": facts, "geometry": geometry}

    features = [
        feature(3, 2, 3, 9, 8, label="ship"),
        feature(3, 12, 4, 18, 8, label="ship"),  # two thirds of it
        feature(3, 15, 4, 25, 8, label="ship"),  # a tenth
        feature(3, 40, 40, 50, 50, label="ship"),
        feature(6, 1, 1, 4, 4, label="buoy", chip=ids[6]),
        feature(6, 2, 2, 9, 9, label="tank"),
    ]
    file = tmp_path / "ships.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    done = sz.import_chip_boxes(store, "floods", file)
    assert (done.elsewhere, done.counts["kept"], done.chips) == (2, 4, 2)
    found = targets(store.anew())
    np.testing.assert_allclose(found[ids[3]][0], [(2, 3, 9, 8), (12, 4, 16, 8)], atol=1e-3)
    np.testing.assert_allclose(found[ids[6]][0], [(1, 1, 4, 4), (2, 2, 9, 9)], atol=1e-3)
    assert found[ids[6]][1] == ["buoy", "tank"]
    assert not sz.verify(store.anew()).findings


# ------------------------------------------------------------------ names
def test_annotations_without_a_chip_stop_the_import_and_ten_are_named(store, tmp_path):
    names = [f"nobody{i:02d}" for i in range(12)]
    file = coco(tmp_path / "a.json", {name: [(1, 1, 5, 5, "ship")] for name in (ids_of(9)[0], *names)})
    with pytest.raises(
        InvalidInputError, match=r"got 12 .*'nobody00'.*'nobody09' and 2 more; a chip is 'site0"
    ) as e:
        sz.import_chip_boxes(store, "floods", file)
    assert "nobody10" not in str(e.value)
    assert not sz.open_store(store.root).place.children("collections/floods/boxes")
    done = sz.import_chip_boxes(store, "floods", file, leave_unmatched=True)
    assert (done.chips, done.unmatched) == (1, tuple(names))
    twice = {ids_of(9)[0]: [(1, 1, 5, 5, "ship")], "site0_00000.png": [(1, 1, 5, 5, "ship")]}
    coco(tmp_path / "b.json", twice)
    with pytest.raises(InvalidInputError, match="two of 'site0_00000_S1'"):
        sz.import_chip_boxes(store, "floods", tmp_path / "b.json")


def test_a_date_that_is_not_there_is_no_other_dates_chip(tmp_path):
    """Names may end otherwise as masks' do; dates and numbers tell chips apart."""
    from sarzarr.store.chip_names import chip_rows

    sources = ["t/a_20240101.tif", "t/b_20240105.tif", "mask\tv/c_Mask.tif\nu/c_S1_x.tif"]
    chips = SimpleNamespace(
        ids=("a_20240101", "b_20240105", "c_S1_x"), table={"source": xr.DataArray(sources)}
    )
    found = chip_rows(
        chips, ["a_20240301", "t/a_20240101.png", "b_20240105_Label", "root/t/b_20240105", "c_Mask", "c"]
    )
    assert found.tolist() == [-1, 0, 1, 1, 2, -1]
    assert chip_rows(chips, ["a_20240101_crop1", "a_20240101_crop2"]).tolist() == [-1, -1]


# ------------------------------------------------------------------ what lasts
@pytest.mark.slow
def test_boxes_of_a_chip_that_was_replaced_elsewhere_are_refused(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()

    def chip(name, left, side=32):
        pixels = np.random.default_rng(side).gamma(2, 0.1, (side, side)).astype(np.float32)
        write_band(raw / f"{name}_VV.tif", pixels, transform=from_origin(left, 5e6, 10, 10))

    def pack(**options):
        plan = sz.plan_ingest(
            [raw], tmp_path / "s.zarr", collection="floods", representation="power", **options
        )
        return sz.ingest(plan)

    chip("a", 4e5), chip("b", 5e5)
    store = pack()
    shown = {"a": [(1, 1, 5, 5, "ship")], "b": [(2, 2, 6, 6, "ship")]}
    sz.import_chip_boxes(store, "floods", coco(tmp_path / "a.json", shown))
    assert [boxes for boxes, _ in targets(store.anew()).values()] == [[[1, 1, 5, 5]], [[2, 2, 6, 6]]]
    chip("c", 6e5)
    assert [boxes for boxes, _ in targets(pack()).values()] == [[[1, 1, 5, 5]], [[2, 2, 6, 6]], []]
    chip("b", 7e5)
    store = pack(replace=True)
    assert not sz.verify(store).findings
    assert targets(store, where="id != 'b'").keys() == {"a", "c"}
    with pytest.raises(InvalidInputError, match=r"some of 1 that were replaced .*: b\. Import their"):
        targets(store)
    sz.import_chip_boxes(store, "floods", coco(tmp_path / "b.json", {"b.tif": [(3, 3, 7, 7, "ship")]}))
    assert targets(store.anew())["b"][0] == [[3, 3, 7, 7]]
    copied = sz.copy_store(store.root, tmp_path / "t.zarr")
    assert targets(copied) == targets(store.anew())
    assert "boxes/default: 2 boxes in 1 class on 2 annotated chips" in summary(copied)
    sz.remove_collection(copied, "floods")
    assert not list((tmp_path / "t.zarr").rglob("boxes"))
    with pytest.raises(NotInStoreError, match="import boxes FILE"):
        targets(store, boxes="none")


@pytest.mark.slow
def test_a_damaged_column_is_found_and_classes_are_made_again(store, tmp_path):
    chip = ids_of(9)[1]
    sz.import_chip_boxes(store, "floods", coco(tmp_path / "a.json", {chip: [(1, 1, 5, 5, "buoy")]}))
    table = store.root / "classes" / "name" / "c" / "0"
    table.write_bytes(table.read_bytes()[:-1] + b"\0")
    assert {f.file for f in sz.verify(store.anew()).findings} == {"classes/name/c/0"}
    sz.repair(store.root)
    assert sz.store_classes(store.root).names == KINDS
    column = store.root / "collections" / "floods" / "boxes" / "default" / "x_min" / "c" / "0"
    column.write_bytes(column.read_bytes()[:-1] + b"\0")
    assert {f.file for f in sz.verify(store.root).findings} == {"collections/floods/boxes/default/x_min/c/0"}


def test_boxes_beyond_their_chip_are_found(tmp_path):
    store = make_chips(tmp_path / "s.zarr", sizes=((SIDE, SIDE), (SIDE + 8, SIDE + 8)), masks=False)
    chip = ids_of(2)[0]
    sz.import_chip_boxes(store, "floods", coco(tmp_path / "a.json", {chip: [(1, 1, 5, 5, "buoy")]}))
    boxes = read_chip_boxes(sz.open_collection(store.anew(), "floods"))
    with changing(store) as draft:
        write_boxes(draft, replace(boxes, boxes=boxes.boxes * 4))
    (found,) = sz.verify(store.anew()).findings
    assert found.file == "collections/floods/boxes/default"
    assert found.wrong == "its boxes do not lie in the pixels of their chips"


def test_a_list_that_knows_other_numbers_is_mapped_by_name_and_told(store, tmp_path):
    chip = ids_of(9)[1]
    sz.import_chip_boxes(store, "floods", coco(tmp_path / "a.json", {chip: [(1, 1, 5, 5, "buoy")]}))
    other = coco(tmp_path / "b.json", {chip: [(1, 1, 5, 5, "buoy")]}, kinds=("buoy", "pier"))
    done = sz.import_chip_boxes(store, "floods", other, name="other")
    assert list(map(str, done.moved)) == [
        "class 1 of b.json is 'buoy', 2 here", "class 2 of b.json is 'pier', 4 here",
    ]  # fmt: skip
    assert (
        done.boxes.label.tolist()
        == read_chip_boxes(sz.open_collection(store.anew(), "floods")).label.tolist()
        == [2]
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "chip,x_min,y_min,x_max,y_max\n{0},1,1,nan,5\n", "a finite number as x_max"),
        ("a.csv", "chip,x_min,y_min,x_max,y_max\n{0},20,20,30,30\n", "got none among 1 .1 outside"),
        ("a.csv", "chip,x_min,y_min,x_max,y_max\n,1,1,3,3\n", "got a line without"),
        ("a.txt", "no numbers\n", "got none as COCO"),
        ("a.json", "{}", "got none as COCO"),
    ],
)  # fmt: skip
def test_files_that_say_no_box_change_nothing(untouched, tmp_path, name, text, said):
    (tmp_path / name).write_text(text.replace("{0}", ids_of(9)[0]))
    with pytest.raises(InvalidInputError, match=said):
        sz.import_chip_boxes(untouched, "floods", tmp_path / name)
    assert not list(untouched.root.glob("collections/floods/boxes/*"))
