"""What annotation formats say of boxes, and what is refused."""

import json

import numpy as np
import pytest

from sarzarr.errors import InvalidInputError
from sarzarr.ingestion.annotations import parse_coco, parse_csv, parse_geojson, parse_voc, parse_yolo

VOC = b"""<annotation><size><width>402</width></size>
<object><name> ship </name><bndbox><xmin>155</xmin><ymin>63</ymin><xmax>184.5</xmax><ymax>180</ymax></bndbox></object>
<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>ten</xmax></bndbox></object></annotation>"""


def test_voc():
    said = parse_voc(VOC, "a.xml")
    assert said.boxes[0].tolist() == [155, 63, 184.5, 180]
    assert np.isnan(said.boxes[1]).tolist() == [False, False, True, True]
    assert said.labels == ("ship", "object")
    assert parse_voc(VOC, "a.xml", one_based=True).boxes[0].tolist() == [154, 62, 184.5, 180]
    assert parse_voc(b"<annotation/>", "b.xml").boxes.shape == (0, 4)


BOMB = """<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">]><annotation>&c;</annotation>"""


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<annotation>",
        b"boxes",
        BOMB.encode(),
        b'<?xml version="1.0" encoding="UTF-16"?>'.decode().encode("utf-16") + BOMB.encode("utf-16-le"),
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>',
        b'<?xml version="1.0" encoding="nonsense"?><annotation/>',
        b"<a>" + b" " * (16 * 2**20 + 1) + b"</a>",
    ],
)
def test_other_xml_is_refused(text):
    with pytest.raises(InvalidInputError, match=r"'a\.xml'"):
        parse_voc(text, "a.xml")


def test_coco():
    document = {
        "images": [{"id": 7, "file_name": "x/a.png"}, {"id": "8", "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [10, 20, 5, 6]},
            {"image_id": 7, "category_id": 9, "bbox": [0, 0, "x", 1]},
        ],
    }
    said = parse_coco(json.dumps(document), "instances.json")
    assert said["x/a.png"].boxes[0].tolist() == [10, 20, 15, 26]
    assert said["x/a.png"].labels == ("ship", "object")
    assert said["b.png"].boxes.shape == (0, 4)
    document["annotations"][0]["image_id"] = 99
    with pytest.raises(InvalidInputError, match="COCO"):
        parse_coco(json.dumps(document), "instances.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": [], "annotations": [{}]}', '{"images": 3}'])
def test_other_json_is_refused(text):
    with pytest.raises(InvalidInputError, match="COCO"):
        parse_coco(text, "a.json")


def test_yolo():
    said = parse_yolo(
        "0 0.5 0.5 0.2 0.4\n\n3 0.1 0.1 0.2 0.2 0.9\n", "a.txt", height=100, width=200, classes=["ship"]
    )
    assert np.allclose(said.boxes, [[80, 30, 120, 70], [0, 0, 40, 20]])
    assert said.labels == ("ship", "class_3")
    for text in ("ship 1 2 3 4", "0 1 2 3", "-1 0 0 0 0", "² 0 0 0 0"):
        with pytest.raises(InvalidInputError, match="line 1"):
            parse_yolo(text, "a.txt", height=10, width=10)


def test_geojson():
    square = {"type": "Polygon", "coordinates": [[[0, 1], [2, 1], [2, 3], [0, 1]]]}
    features = [
        {"type": "Feature", "geometry": square, "properties": {"scene": "s", "kind": "ship"}},
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [5, 6, 7]}, "properties": None},
        {
            "type": "Feature",
            "geometry": {"type": "GeometryCollection", "geometries": [square]},
            "properties": {},
        },
    ]
    regions, crs = parse_geojson(
        json.dumps({"type": "FeatureCollection", "features": features}), "a.geojson", label_key="kind"
    )
    assert crs is None
    assert [(r.scene, r.label) for r in regions] == [("s", "ship"), ("", "object"), ("", "object")]
    assert regions[0].points.max(0).tolist() == [2, 3]
    assert regions[1].points.tolist() == [[5, 6]]
    named = {
        "type": "FeatureCollection",
        "features": [],
        "crs": {"type": "name", "properties": {"name": "EPSG:32633"}},
    }
    assert parse_geojson(json.dumps(named), "b.geojson") == ([], "EPSG:32633")
    for text in ("", "[]", '{"type": "FeatureCollection"}', '{"type": "Feature", "geometry": null}'):
        with pytest.raises(InvalidInputError, match="GeoJSON"):
            parse_geojson(text, "a.geojson")


def test_csv():
    text = "scene,x_min,y_min,x_max,y_max,label\na,1,2,3,4,ship\n b ,1,2,3,4,\n"
    one, two = parse_csv(text, "boxes.csv")
    assert (one.scene, one.label, one.points.tolist()) == ("a", "ship", [[1, 2], [3, 4]])
    assert (two.scene, two.label) == ("b", "object")
    with pytest.raises(InvalidInputError, match="lacks x_max"):
        parse_csv("scene,x_min,y_min\n", "boxes.csv")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("b,1,2,x,4,ship", r"x_max was expected in line 3 of 'boxes\.csv', got 'x' for a box on 'b'"),
        ("b,1,2,nan,4,ship", "x_max was expected in line 3.*'nan'"),
        ("b,1,2,inf,4,ship", "x_max was expected in line 3.*'inf'"),
        ("b,1,2", "x_max was expected in line 3.*'nothing'"),
    ],
)
def test_a_number_that_cannot_be_read_is_named(row, said):
    with pytest.raises(InvalidInputError, match=said):
        parse_csv(f"scene,x_min,y_min,x_max,y_max,label\na,1,2,3,4,ship\n{row}\n", "boxes.csv")


@pytest.mark.parametrize(
    "coordinates",
    [[], ["12.5", "54.2"], [12.5, "x"], [12.5], [12.5, None], [float("nan"), 54.2], "12.5", None],
)
def test_a_position_that_cannot_be_read_is_named(coordinates):
    features = [
        {"type": "Feature", "properties": None, "geometry": {"type": "Point", "coordinates": at}}
        for at in ([1, 2], coordinates)
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    with pytest.raises(InvalidInputError, match=r"feature 2\b"):
        parse_geojson(text, "a.geojson")


def test_a_label_that_nothing_has_is_refused():
    feature = {
        "type": "Feature",
        "properties": {"kind": 0, "scene": "s"},
        "geometry": {"type": "Point", "coordinates": [1, 2]},
    }
    text = json.dumps(feature)
    assert parse_geojson(text, "a.geojson", label_key="kind")[0][0].label == "0"
    assert parse_geojson(text, "a.geojson")[0][0].label == "object"
    for wrong in ("nokind", "label"):
        with pytest.raises(InvalidInputError, match=f"among kind, scene was expected .* got '{wrong}'"):
            parse_geojson(text, "a.geojson", label_key=wrong)
    table = "scene,x_min,y_min,x_max,y_max,kind\na,1,2,3,4,ship\n"
    assert parse_csv(table, "a.csv", label_key="kind")[0].label == "ship"
    with pytest.raises(InvalidInputError, match=r"among kind was expected .* got 'nokind'"):
        parse_csv(table, "a.csv", label_key="nokind")
