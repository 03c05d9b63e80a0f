"""Rotated boxes from files to batches: the same four corners, whatever wrote them down."""

import json

import numpy as np
import pytest
from chip_folders import write_picture
from conftest import speckle, write_band
from rasterio import Affine
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr.cli import app
from sarzarr.errors import InvalidInputError
from sarzarr.ingestion.annotations import parse_dota, parse_voc, parse_yolo
from sarzarr.ingestion.chips.find import ChipOptions, PictureFinder
from sarzarr.pixels.rotated import apply_to_points, corners_of_boxes, corners_of_rotated
from sarzarr.store.boxes import read_boxes

SHIP = np.array([[40.0, 30, 24, 6, 0.6], [12, 60, 15, 4, -1.2]])
RINGS = corners_of_rotated(SHIP)
SIZE = (80, 100)


def painted(path, shape=SIZE):
    """Write a picture that is bright where a pixel's middle lies in one of the boxes."""
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    bright = np.zeros(shape, bool)
    for x, y, w, h, angle in SHIP:
        along = (cols - x) * np.cos(angle) + (rows - y) * np.sin(angle)
        across = (rows - y) * np.cos(angle) - (cols - x) * np.sin(angle)
        bright |= (np.abs(along) <= w / 2) & (np.abs(across) <= h / 2)
    return write_picture(path, np.where(bright, 255, 20).astype(np.uint8))


def as_voc(named):
    def ring(i):
        return "".join(
            f"<{a}{k + 1}>{v!r}</{a}{k + 1}>"
            for k, p in enumerate(RINGS[i].tolist())
            for a, v in zip("xy", p, strict=True)
        )

    def turned(i):
        return "".join(
            f"<{k}>{v!r}</{k}>"
            for k, v in zip(("cx", "cy", "w", "h", "angle"), SHIP[i].tolist(), strict=True)
        )

    tag, inside = ("robndbox", turned) if named else ("polygon", ring)
    objects = (
        f"<object><name>ship</name><difficult>{i}</difficult><{tag}>{inside(i)}</{tag}></object>"
        for i in (0, 1)
    )
    return f"<annotation>{''.join(objects)}</annotation>"


def as_dota():
    lines = [" ".join([*(f"{v:.6f}" for v in RINGS[i].ravel()), "ship", str(i)]) for i in (0, 1)]
    return "\n".join(["imagesource:GoogleEarth", "gsd:0.146343590398", *lines, ""])


def as_yolo():
    return "\n".join(" ".join(["0", *(f"{v:.9f}" for v in (ring / SIZE[::-1]).ravel())]) for ring in RINGS)


def write_all(folder, kind):
    """Write two pictures, the first with both ships, in a format."""
    text, place = {
        "voc": (as_voc(True), "Annotations/a.xml"),
        "corners": (as_voc(False), "Annotations/a.xml"),
        "dota": (as_dota(), "labelTxt/a.txt"),
        "yolo": (as_yolo(), "labels/a.txt"),
    }[kind]
    painted(folder / "images" / "a.png")
    write_picture(folder / "images" / "b.png", np.full(SIZE, 20, np.uint8))
    (folder / place).parent.mkdir(parents=True)
    (folder / place).write_text(text)
    if kind == "dota":
        (folder / "labelTxt" / "b.txt").write_text("imagesource:GoogleEarth\ngsd:null\n")
    if kind == "yolo":
        (folder / "classes.txt").write_text("ship\n")
    return folder


@pytest.fixture(scope="module", params=["voc", "corners", "dota", "yolo"])
def chips(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, *sz.import_chips(write_all(folder / "chips", request.param), folder / "s.zarr")


def test_every_format_gives_the_same_corners(chips):
    kind, made, report = chips
    np.testing.assert_allclose(made.boxes.corners, RINGS, atol=2e-4)
    np.testing.assert_allclose(made.target(0)[0][:, :2], RINGS.min(axis=1), atol=2e-4)  # the hulls, as ever
    np.testing.assert_allclose(made.target(0)[0][:, 2:], RINGS.max(axis=1), atol=2e-4)
    boxes, labels = made.target(0, rotated=True)
    np.testing.assert_allclose(boxes, SHIP, atol=2e-4)
    assert (boxes.dtype, boxes.shape, labels.tolist()) == (np.float32, (2, 5), [1, 1])
    assert made.target(1, rotated=True)[0].shape == (0, 5)
    assert (report.rotated, report.difficult) == (2, 0 if kind == "yolo" else 1)
    assert report.annotated == (2 if kind == "dota" else 1)
    assert sz.verify(made.store).findings == ()


def test_what_the_reader_delivers_is_bright_in_its_rotated_boxes(chips):
    _, made, _ = chips
    reader = sz.SampleReader(
        made.store,
        made.name,
        boxes="rotated",
        augment="d4",
        seed=5,
        batch_size=1,
        shuffle=True,
        min_visible=0.1,
    )
    seen = set()
    for epoch in range(6):
        reader.set_epoch(epoch)
        for images, (target,) in reader:
            assert target["boxes"].shape == (len(target["labels"]), 5)
            assert (images.max() > 0.9) == (len(target["boxes"]) == 2)
            np.testing.assert_allclose(target["area"], [144, 60][: len(target["area"])], atol=0.05)
            rows, cols = np.mgrid[: images.shape[2], : images.shape[3]] + 0.5
            inside = np.zeros(images.shape[2:], bool)
            for x, y, w, h, angle in target["boxes"].astype(float):
                along = (cols - x) * np.cos(angle) + (rows - y) * np.sin(angle)
                across = (rows - y) * np.cos(angle) - (cols - x) * np.sin(angle)
                inside |= (np.abs(along) <= w / 2 - 0.01) & (np.abs(across) <= h / 2 - 0.01)
            assert (images[0, 0][inside] > 0.9).all()
            seen.update(np.round(target["boxes"][:, 4], 3).tolist())
    assert len(seen) > 4


@pytest.mark.parametrize("form", ["ring", "many points"])
def test_polygons_on_scenes_are_rotated_boxes(tmp_path, form):
    ground = Affine(10, 0, 5e5, 0, -10, 5.4e6)
    path = write_band(tmp_path / "p_vv.tif", speckle((300, 300)), transform=ground, crs="EPSG:32633")
    store = sz.ingest(sz.plan_ingest(path, tmp_path / "s.zarr", quantity="sigma0", representation="power"))
    rings = np.concatenate([RINGS + np.array([100, 90]), corners_of_boxes(np.array([[10.0, 10, 40, 22]]))])
    drawn = (
        rings
        if form == "ring"
        else np.concatenate([(rings + np.roll(rings, -1, 1)) / 2, rings], 1)[:, [4, 0, 5, 1, 6, 2, 7, 3]]
    )
    features = [
        {
            "type": "Feature",
            "properties": {"label": "ship"},
            "geometry": {"type": "Polygon", "coordinates": [[list(ground * p) for p in [*ring, ring[0]]]]},
        }
        for ring in drawn.tolist()
    ]
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    file = tmp_path / "ships.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    made = sz.import_boxes(store, file, scene="p")
    assert made.turned == 2
    got = read_boxes(sz.open_store(store.root))
    for ring, right in zip(got.polygons, rings, strict=True):
        assert np.abs(ring[:, None] - right[None]).max(-1).min(1).max() < 1e-3
    reader = sz.PatchReader(
        store, boxes="rotated", patch_size=128, min_valid=0, min_unsaturated=0, augment="d4", min_visible=0
    )
    chosen = reader.selection
    order, turns = reader.order(0), reader.draws(0, reader.order(0)).turns
    targets = [target for _, some in reader for target in some]
    shown = 0
    for patch, turn, target in zip(order, turns, targets, strict=True):
        corner = (chosen.col[patch], chosen.row[patch])
        all_of = [apply_to_points(int(turn), ring - corner, shape=(128, 128)) for ring in got.polygons]
        for ring in corners_of_rotated(target["boxes"]):
            assert min(np.abs(ring[:, None] - o[None]).max(-1).min(1).max() for o in all_of) < 0.01
        shown += len(target["boxes"])
    assert shown >= 3
    again = sz.import_boxes(store, file, scene="p")
    np.testing.assert_array_equal(again.polygons, got.polygons)
    with pytest.raises(InvalidInputError, match="rotated"):
        sz.import_boxes(store, file, scene="p", name="rotated")


def test_a_picture_of_rotated_boxes_has_slanted_outlines(tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    made, _ = sz.import_chips(write_all(tmp_path / "chips", "dota"), tmp_path / "s.zarr")
    assert (
        "2 boxes in 1 class, 2 rotated" in CliRunner().invoke(app, ["info", str(tmp_path / "s.zarr")]).output
    )
    drawn = np.asarray(Image.open(sz.write_quicklook(made.store, tmp_path / "q.png")).convert("RGB")).astype(
        int
    )
    orange = np.argwhere(np.abs(drawn - [230, 159, 0]).max(axis=-1) < 60)
    assert len(orange) > 50
    rows = np.bincount(orange[:, 0])
    assert rows.max() < 40  # an upright outline would have whole rows of it


def test_texts_that_are_wrong_are_refused_by_their_line():
    with pytest.raises(InvalidInputError, match="line 2 reads '1 2 3 4 5 6 7 ship 0'"):
        parse_dota("gsd:1\n1 2 3 4 5 6 7 ship 0\n", "a.txt")
    with pytest.raises(InvalidInputError, match="line 1"):
        parse_dota("1 2 3 4 5 6 7 8 ship hard\n", "a.txt")
    assert parse_dota("", "a.txt").boxes.shape == (0, 4)
    outline = parse_yolo("0 .1 .1 .3 .1 .3 .2 .2 .25 .1 .2", "a.txt", height=100, width=100)
    np.testing.assert_allclose(outline.corners[0].min(axis=0), [10, 10], atol=1e-9)
    both = as_voc(True).replace(
        "<robndbox>", "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox><robndbox>"
    )
    told = parse_voc(both.encode(), "a.xml")
    assert told.boxes.tolist() == [[1, 2, 9, 8]] * 2  # what the file calls the upright box
    np.testing.assert_allclose(told.corners, RINGS)
    assert told.difficult == (False, True)


# ------------------------------------------------------------------ names of pictures
@pytest.mark.parametrize(
    ("pictures", "key", "right"),
    [
        (["a.png"], "D:\\data\\images\\a.png", "a.png"),
        (["a.PNG"], "A.png", "a.PNG"),
        (["train/a.png", "val/a.png"], "C:\\x\\val\\a.png", "val/a.png"),
        (["train/a.png", "val/a.png"], "a.png", None),
        (["JPEGImages/train/a.jpg", "JPEGImages/val/a.jpg"], "Annotations/val/a", "JPEGImages/val/a.jpg"),
        (["train/JPEGImages/a.jpg", "val/JPEGImages/a.jpg"], "val/Annotations/a", "val/JPEGImages/a.jpg"),
        (["images/a.png", "other/a.png"], "labels/a", "images/a.png"),
        (["a.png", "sub/a.png"], "a.png", "a.png"),
        (["a.png", "a.tif"], "a.tif", "a.tif"),
        (["a.png", "a.tif"], "a", None),
        (["a.png", "b.png"], "/mnt/c.png", None),
    ],
)
def test_a_name_finds_the_one_picture_that_it_may_mean(pictures, key, right):
    assert PictureFinder(pictures).find(key) == right


def test_annotations_without_a_picture_stop_the_import_with_ten_names(tmp_path):
    painted(tmp_path / "chips" / "a.png")
    documents = [{"id": i, "file_name": f"lost_{i:02d}.png"} for i in range(12)] + [
        {"id": 99, "file_name": "a.png"}
    ]
    said = {"images": documents, "annotations": [], "categories": []}
    (tmp_path / "chips" / "all.json").write_text(json.dumps(said))
    run = CliRunner().invoke(
        app, ["import", "chips", str(tmp_path / "chips"), "-o", str(tmp_path / "s.zarr")]
    )
    assert run.exit_code
    with pytest.raises(
        InvalidInputError, match=r"got 12 of others: 'lost_00.png', .*'lost_09.png' and 2 more; a"
    ):
        sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    _, report = sz.import_chips(
        tmp_path / "chips", tmp_path / "s.zarr", options=ChipOptions(leave_unmatched=True)
    )
    assert (len(report.unmatched), report.annotated) == (12, 1)


def test_an_annotation_of_a_picture_that_cannot_be_read_goes_with_it(tmp_path):
    write_all(tmp_path / "chips", "voc")
    (tmp_path / "chips" / "images" / "b.png").write_bytes(b"no picture")
    (tmp_path / "chips" / "Annotations" / "b.xml").write_text("<annotation/>")
    _, report = sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    assert (report.samples, report.annotated, len(report.refused), report.unmatched) == (1, 1, 1, ())
