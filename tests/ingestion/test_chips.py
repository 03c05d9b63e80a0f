"""Which picture an annotation speaks of: by its path first, by its name where that is one picture's alone."""

import json

import numpy as np
import pytest
from conftest import speckle, write_band
from PIL import Image

import sarzarr as sz
from sarzarr.errors import InvalidInputError
from sarzarr.ingestion.boxes import import_boxes
from sarzarr.ingestion.chips.find import ChipOptions
from sarzarr.store.boxes import read_boxes

BOX = [1.0, 2.0, 10.0, 12.0]
VOC = (
    "<annotation><object><name>ship</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10</xmax><ymax>12</ymax>"
    "</bndbox></object></annotation>"
)
YOLO = f"0 {5.5 / 64} {7 / 64} {9 / 64} {10 / 64}\n"


def write(folder, **files):
    """Write pictures (None) and texts, by path with ``__`` for a slash."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_xml", ".xml").replace("_XML", ".XML").replace(
            "_txt", ".txt"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.fromarray(np.full((64, 64), 9, np.uint8)).save(path.with_suffix(".png"))
        else:
            path.write_text(text)


def boxes_of(folder, **options):
    samples, report = sz.import_chips(folder, folder.with_name("s.zarr"), options=ChipOptions(**options))
    return {name: samples.target(i)[0].tolist() for i, name in enumerate(samples.ids)}, report


@pytest.mark.parametrize(
    ("files", "found", "unmatched"),
    [
        ({"train__a": None, "val__a": None, "train__a_xml": VOC, "val__a_xml": VOC}, 2, ()),
        ({"images__train__a": None, "images__val__a": None, "labels__train__a_txt": YOLO, "labels__val__a_txt": YOLO},
         2, ()),
        ({"images__a": None, "labels__a_txt": YOLO, "labels__gone_txt": YOLO}, 1, ("labels/gone",)),
        ({"JPEGImages__a": None, "Annotations__a_xml": VOC}, 1, ()),
        ({"a": None, "a_XML": VOC}, 1, ()),
        ({"a": None, "readme_txt": "nothing of labels"}, 0, ()),
        ({"a": None, "b": None, "a_txt": YOLO}, 1, ()),
    ],
    ids=["VOC beside", "YOLO folders", "labels alone", "VOC folders", "capitals", "text", "YOLO"],
)  # fmt: skip
def test_annotations_find_their_picture_or_are_said_to_have_none(tmp_path, files, found, unmatched):
    write(tmp_path / "chips", **files)
    if unmatched:
        with pytest.raises(InvalidInputError, match=r"got 1 of others: 'labels/gone'; .*--leave-unmatched"):
            boxes_of(tmp_path / "chips")
    boxes, report = boxes_of(tmp_path / "chips", leave_unmatched=bool(unmatched))
    assert report.unmatched == unmatched
    assert [np.round(b, 3).tolist() for b in boxes.values() if b] == [[BOX]] * found


def test_crowds_are_no_objects(tmp_path, caplog):
    write(tmp_path / "chips", a=None)
    said = [
        {"image_id": 1, "bbox": [1, 2, 9, 10], "iscrowd": 0},
        {"image_id": 1, "bbox": [0, 0, 60, 60], "iscrowd": 1},
    ]
    document = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": said}
    (tmp_path / "chips/a.json").write_text(json.dumps(document))
    assert boxes_of(tmp_path / "chips")[0] == {"a": [BOX]}
    assert "1 crowds left out" in caplog.text


@pytest.fixture
def scene(tmp_path):
    write_band(tmp_path / "a_vv.tif", speckle((1024, 1024)), tiles=256)
    plan = sz.plan_ingest(
        tmp_path / "a_vv.tif", tmp_path / "s.zarr", quantity="sigma0", representation="power"
    )
    store = sz.ingest(plan)
    (tmp_path / "b.csv").write_text("scene,x_min,y_min,x_max,y_max\na,300,400,340,440\n")
    import_boxes(store, tmp_path / "b.csv")
    return store


def test_a_set_of_samples_does_not_take_the_name_of_boxes_on_scenes(tmp_path, scene):
    write(tmp_path / "default", a=None, a_xml=VOC)
    with pytest.raises(InvalidInputError, match="whose boxes are on scenes"):
        sz.import_chips(tmp_path / "default", scene)
    assert len(read_boxes(scene)) == 1


def test_boxes_are_not_shown_on_another_grid(tmp_path, scene):
    """Pixels of the old grid say nothing on a new one."""
    assert sum(len(t["boxes"]) for _, ts in sz.PatchReader(scene, boxes=True) for t in ts) == 1
    store = sz.ingest(
        sz.plan_ingest(
            tmp_path / "a_vv.tif", scene.root, quantity="sigma0", representation="power",
            crs="EPSG:32633", pixel_size=20.0, replace=True,
        )
    )  # fmt: skip
    with pytest.raises(InvalidInputError, match=r"put on another.*import boxes"):
        sz.PatchReader(store, boxes=True)
    (tmp_path / "b.csv").write_text("scene,x_min,y_min,x_max,y_max\na,150,200,170,220\n")
    import_boxes(store, tmp_path / "b.csv")
    assert sum(len(t["boxes"]) for _, ts in sz.PatchReader(store, boxes=True) for t in ts) == 1
