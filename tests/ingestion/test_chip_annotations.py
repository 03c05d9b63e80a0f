"""Boxes of chips: one for each that is given, or an error; and classes whose numbers stay."""

import json
import math

import numpy as np
import pytest
from chip_folders import chip_folder, voc, write_picture
from conftest import speckle, write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import sarzarr as sz
from sarzarr.cli.output import summary
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.ingestion.annotations import coco_classes, parse_classes, parse_voc, parse_yolo
from sarzarr.ingestion.chips.find import ChipOptions
from sarzarr.store.boxes import read_boxes


def pictures(folder, names=("a", "b", "c"), side=64):
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(1, 255, (side, side)).astype("u1")
        write_picture(folder / f"{name}.png", pixels)
    return folder


def coco(folder, shown, kinds, *, slash="/", below=""):
    """Write a box (10, 20, 40, 30) for each of ``shown``, by the name of its picture."""
    images = [{"id": i, "file_name": f"{below}{slash if below else ''}{n}.png"} for i, n in enumerate(shown)]
    boxes = [
        {"image_id": i, "category_id": kinds.index(k), "bbox": [10, 20, 30, 10]}
        for i, k in enumerate(shown.values())
    ]
    categories = [{"id": i, "name": k} for i, k in enumerate(kinds)]
    folder.mkdir(exist_ok=True)
    document = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "all.json").write_text(json.dumps(document))


def labels(samples):
    """Return the class and its number of each box."""
    return {(samples.boxes.classes[k - 1], int(k)) for k in samples.boxes.label}


# ------------------------------------------------------------------ found
@pytest.mark.parametrize("slash", ["/", "\\"])
@pytest.mark.parametrize("below", ["", "images", "D:/data/images"])
def test_file_names_of_any_system_find_their_picture(tmp_path, slash, below):
    pictures(tmp_path / "ships" / "images")
    coco(
        tmp_path / "ships",
        dict.fromkeys("abc", "ship"),
        ["ship"],
        slash=slash,
        below=below.replace("/", slash),
    )
    made, report = sz.import_chips(tmp_path / "ships", tmp_path / "s.zarr")
    assert [made.target(i)[0].tolist() for i in range(3)] == [[[10, 20, 40, 30]]] * 3
    assert report.annotated == 3


def test_annotations_of_no_picture_are_refused(tmp_path):
    pictures(tmp_path / "ships")
    coco(tmp_path / "ships", dict.fromkeys("xyz", "ship"), ["ship"])
    with pytest.raises(
        InvalidInputError,
        match=r"got 3 of others: 'x.png', 'y.png', 'z.png'; a picture is 'a.png'.*annotations none to",
    ):
        sz.import_chips(tmp_path / "ships", tmp_path / "s.zarr")
    options = ChipOptions(annotations="none")
    assert sz.import_chips(tmp_path / "ships", tmp_path / "s.zarr", options=options)[1].annotated == 0


def test_boxes_of_which_none_is_inside_are_refused(tmp_path):
    pictures(tmp_path / "ships")
    for name in "abc":
        (tmp_path / "ships" / f"{name}.xml").write_text(voc([(100, 100, 120, 120)]))
    with pytest.raises(InvalidInputError, match="got none among 3"):
        sz.import_chips(tmp_path / "ships", tmp_path / "s.zarr")


def test_a_picture_that_lost_its_boxes_is_not_annotated_as_empty(tmp_path):
    pictures(tmp_path / "ships")
    for name, box in zip("abc", ([(1, 1, 5, 5)], [(100, 100, 120, 120)], []), strict=True):
        (tmp_path / "ships" / f"{name}.xml").write_text(voc(box))
    made, report = sz.import_chips(tmp_path / "ships", tmp_path / "s.zarr")
    assert made.table["annotated"].values.tolist() == [1, 0, 1]
    assert report.annotated == 2
    assert report.boxes["left_out"] == 1


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".json", '{"shapes": []}'),
        (".csv", "x,y"),
        (".xml", "<gml/>"),
        (".xml", "<annotation><object><name>ship</name><circle/></object></annotation>"),
    ],
)
def test_annotations_that_are_not_read_are_refused(tmp_path, suffix, text):
    pictures(tmp_path / "ships")
    (tmp_path / "ships" / f"a{suffix}").write_text(text)
    with pytest.raises(InvalidInputError, match=f"a{suffix}"):
        sz.import_chips(tmp_path / "ships", tmp_path / "s.zarr")
    sz.import_chips(tmp_path / "ships", tmp_path / "s.zarr", options=ChipOptions(annotations="none"))


def test_what_gdal_leaves_beside_a_picture_is_no_annotation(tmp_path):
    pictures(tmp_path / "ships")
    (tmp_path / "ships" / "a.png.aux.xml").write_text("<PAMDataset/>")
    assert sz.import_chips(tmp_path / "ships", tmp_path / "s.zarr")[1].annotated == 0


# ------------------------------------------------------------------ rotated
@given(
    x=st.floats(0, 500),
    y=st.floats(0, 500),
    w=st.floats(1, 90),
    h=st.floats(1, 90),
    angle=st.floats(-6.2, 6.2),
)
def test_a_rotated_box_has_the_upright_one_around_it(x, y, w, h, angle):
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2 @ turn.T + (x, y)
    right = [*corners.min(0), *corners.max(0)]
    told = {"cx": x, "cy": y, "w": w, "h": h, "angle": angle}
    named = {
        f"{axis}{i + 1}": v for i, point in enumerate(corners) for axis, v in zip("xy", point, strict=True)
    }
    for tag, parts in (("robndbox", told), ("polygon", named), ("rotated_bndbox", named)):
        inside = "".join(f"<{k}>{float(v)!r}</{k}>" for k, v in parts.items())
        text = f"<annotation><object><name>ship</name><{tag}>{inside}</{tag}></object></annotation>"
        np.testing.assert_allclose(parse_voc(text.encode(), "a.xml").boxes, [right], atol=1e-6)
    line = " ".join(["3", *(repr(float(v)) for v in (corners / 1000).ravel())])
    np.testing.assert_allclose(parse_yolo(line, "a.txt", height=1000, width=1000).boxes, [right], atol=1e-6)


def test_a_turn_in_degrees_is_refused():
    box = "<robndbox><cx>9</cx><cy>9</cy><w>4</w><h>2</h><angle>45</angle></robndbox>"
    with pytest.raises(InvalidInputError, match="object 1 has robndbox"):
        parse_voc(f"<annotation><object>{box}</object></annotation>".encode(), "a.xml")


# ------------------------------------------------------------------ classes
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "ship\nbuoy\n"),
        ("obj.names", "ship\r\nbuoy\r\n"),
        ("data.yaml", "nc: 2\nnames: ['ship', 'buoy']\n"),
        ("ships.yml", "names:\n  1: buoy\n  0: ship\n"),
    ],
)
def test_classes_are_those_of_the_list_in_its_order(tmp_path, file, text, mark):
    for side in ("train", "valid"):
        pictures(tmp_path / "ships" / side / "images", [f"{side}_{n}" for n in "ab"])
        (tmp_path / "ships" / side / "labels").mkdir()
        for name, kind in (("a", 1), ("b", 0)):
            line = f"{mark}{kind} 0.5 0.5 0.25 0.125\n"
            (tmp_path / "ships" / side / "labels" / f"{side}_{name}.txt").write_text(line, encoding="utf-8")
    (tmp_path / "ships" / file).write_text(mark + text, encoding="utf-8")
    made, _ = sz.import_chips(tmp_path / "ships", tmp_path / "s.zarr")
    assert made.boxes.classes == ("ship", "buoy")
    assert [made.target(i)[1].tolist() for i in range(4)] == [[2], [1], [2], [1]]
    (tmp_path / "ships" / "train" / "labels" / "classes.txt").write_text("buoy\nship\n")
    with pytest.raises(InvalidInputError, match=r"one list of classes.*buoy, ship"):
        sz.import_chips(tmp_path / "ships", tmp_path / "t.zarr")


def test_a_class_without_a_name_has_the_number_it_is_written_with(tmp_path):
    pictures(tmp_path / "ships", "ab")
    for name, kind in (("a", 10), ("b", 2)):
        (tmp_path / "ships" / f"{name}.txt").write_text(f"{kind} 0.5 0.5 0.25 0.125\n")
    made, _ = sz.import_chips(tmp_path / "ships", tmp_path / "s.zarr")
    assert labels(made) == {("class_10", 11), ("class_2", 3)}


@pytest.mark.parametrize("text", ["names: {0: ship, 2: buoy}", "names: [a", "names: 3"])
def test_other_yaml_is_refused(text):
    with pytest.raises(InvalidInputError, match=r"names of classes was expected, got 'data.yaml'"):
        parse_classes(text, "data.yaml")


def test_categories_are_in_the_order_of_their_ids():
    listed = [{"id": 10, "name": "tank"}, {"id": 2, "name": "ship"}, {"id": 3, "name": "ship"}]
    assert coco_classes(json.dumps({"categories": listed}), "a.json") == ("ship", "tank")
    assert parse_classes("train: here\n", "other.yaml") == ()


KINDS = ["ship", "aircraft", "tank"]


@settings(max_examples=12)
@given(
    shown=st.lists(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3), min_size=1, max_size=3),
    as_coco=st.booleans(),
)
def test_a_class_has_one_number_in_a_store(tmp_path_factory, shown, as_coco):
    """Whatever each set shows, and whether it has a list of all classes or not."""
    folder, numbers = tmp_path_factory.mktemp("sets"), {}
    for i, kinds in enumerate(shown):
        base = pictures(folder / f"set_{i}", [f"{n}" for n in range(len(kinds))], side=32)
        if as_coco:
            coco(base, {str(n): kind for n, kind in enumerate(kinds)}, KINDS)
        else:
            for n, kind in enumerate(kinds):
                (base / f"{n}.xml").write_text(voc([(1, 1, 9, 9)], label=kind))
        made, _ = sz.import_chips(base, folder / "s.zarr")
        for kind, number in labels(made):
            assert numbers.setdefault(kind, number) == number
        assert not as_coco or list(made.boxes.classes) == KINDS


def test_the_number_of_a_class_stays_when_others_come(tmp_path):
    paths = [write_band(tmp_path / f"{n}_vv.tif", speckle((256, 256))) for n in "pq"]
    store = sz.ingest(sz.plan_ingest(paths, tmp_path / "s.zarr", quantity="sigma0", representation="power"))
    head, file = "scene,x_min,y_min,x_max,y_max,label\n", tmp_path / "b.csv"
    for rows, right in (
        ("p,10,10,20,20,ship", ("ship",)),
        ("q,10,10,20,20,buoy", ("ship", "buoy")),
        ("p,10,10,20,20,anchor", ("ship", "buoy", "anchor")),
    ):
        file.write_text(head + rows + "\n")
        sz.import_boxes(store, file)
        assert read_boxes(store).classes == right
    base = pictures(tmp_path / "chips", "a")
    (base / "a.xml").write_text(voc([(1, 1, 9, 9)], label="buoy"))
    assert labels(sz.import_chips(base, store)[0]) == {("buoy", 2)}


# ------------------------------------------------------------------ a store of chips is a store
def test_a_store_of_chips_without_boxes_is_shown(tmp_path):
    pictures(tmp_path / "ships")
    made, _ = sz.import_chips(tmp_path / "ships", tmp_path / "s.zarr")
    assert "0 boxes in 0 classes" in summary(made.store)
    with pytest.raises(NotInStoreError, match=r"samples alone \(ships\)"):
        sz.PatchReader(made.store)


def test_a_picture_of_chips_shows_them_and_their_boxes(tmp_path):
    pytest.importorskip("matplotlib")
    chip_folder(tmp_path / "chips", count=5)
    made, _ = sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    shown = np.asarray(Image.open(sz.write_quicklook(made.store, tmp_path / "q.png")).convert("RGB")).astype(
        int
    )
    assert shown.std() > 10
    assert (np.abs(shown - [255, 176, 0]).max(axis=-1) < 40).sum() > 20  # outlines
    named = sz.write_quicklook(made.store, tmp_path / "r.png", scenes=["chips"])
    np.testing.assert_array_equal(np.asarray(Image.open(named)), np.asarray(Image.open(tmp_path / "q.png")))
    with pytest.raises(NotInStoreError):
        sz.write_quicklook(made.store, tmp_path / "q.png", scenes=["others"])
