"""Text and pictures from strangers, and what older tools left: bounded, and nothing of it is run."""

import ast
import io
import pickle
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from chip_folders import write_picture
from limited import forked
from tiffs import speckle, write

import sarzarr
import sarzarr as sz
from sarzarr.errors import InvalidInputError
from sarzarr.ingestion.annotations import (
    parse_classes,
    parse_coco,
    parse_csv,
    parse_geojson,
    parse_voc,
    parse_yolo,
)
from sarzarr.ingestion.boxes import import_boxes
from sarzarr.ingestion.chips.pictures import import_chips
from sarzarr.ingestion.chips.read import read_sample
from sarzarr.scenes.probe import probe_file
from sarzarr.scenes.products.xml import MAX_XML, parse_xml
from sarzarr.splits.exchange import from_json, import_split
from sarzarr.splits.samples.manager import SplitManager
from sarzarr.store.limits import MAX_TEXT

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of forked processes are Linux's")
LEVELS = 10**6


def within(function, *args, memory=2**30):
    """Return the outcome of a call in little memory and time."""
    return forked(function, *args, memory=memory, cpu=20)


# ------------------------------------------------------------------ text
DEEP = {
    "COCO": lambda: parse_coco("[" * LEVELS, "a.json"),
    "COCO, whole": lambda: parse_coco(
        '{"images": ' + "[" * 50_000 + "]" * 50_000 + ', "annotations": []}', "a.json"
    ),
    "GeoJSON": lambda: parse_geojson('{"a":' * LEVELS, "a.json"),
    "GeoJSON, whole": lambda: parse_geojson(_collections(900), "a.json"),
    "a split": lambda: from_json("[" * LEVELS),
    "VOC": lambda: parse_voc(
        b"<annotation>" + b"<object>" * 100_000 + b"</object>" * 100_000 + b"</annotation>", "a.xml"
    ),
    "XML": lambda: parse_voc(b"<a>" * LEVELS, "a.xml"),
    "YAML": lambda: parse_classes("names: " + "[" * 100_000, "data.yaml"),
    "YAML, whole": lambda: parse_classes("names: " + "[" * 3000 + "]" * 3000, "data.yaml"),
}


def _collections(levels):
    """Return a document of geometries within geometries."""
    begin, end = '{"type": "GeometryCollection", "geometries": [', "]}"
    return '{"type": "Feature", "geometry": ' + begin * levels + end * levels + "}"


@linux
@pytest.mark.parametrize("what", DEEP)
def test_a_million_levels_are_refused(what):
    outcome = within(DEEP[what])
    assert (outcome.kind, outcome.code) == ("refused", 2), outcome


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(3)
)


@linux
@pytest.mark.parametrize(
    "text", [LAUGHS + "names: *d", LAUGHS + "names: [*d]", "a: &a {x: 1}\nnames: {<<: [*a, *a]}"]
)
def test_yaml_that_repeats_itself_is_refused(text):
    outcome = within(parse_classes, text, "data.yaml")
    assert outcome.kind == "refused"
    assert "repeats parts of itself" in outcome.said


def test_classes_of_an_ordinary_folder_are_read():
    assert parse_classes("nc: 2\nnames: [ship, buoy]", "data.yaml") == ("ship", "buoy")


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (
            parse_csv,
            "scene,x_min,y_min,x_max,y_max\na,1,1,2," + "9" * 200_000,
            "field larger than field limit",
        ),
        (parse_csv, 'scene,x_min,y_min,x_max,y_max\n"' + "a\n" * 100_000, "field larger than field limit"),
        (
            parse_geojson,
            '{"type": "Feature", "geometry": {"type": "Point", "coordinates": "' + "x" * 10**6 + '"}}',
            "feature 1",
        ),
        (
            parse_geojson,
            '{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1e999, 1]}}',
            "finite",
        ),
        (parse_coco, '{"images": [], "annotations": ' + "9" * 5000 + "}", "COCO"),
        (parse_classes, "x" * (2**18 + 1), "at most 262144 characters"),
    ],
    ids=["long field", "long quote", "long text", "infinite", "long number", "long list"],
)
def test_text_that_is_out_of_bounds_is_refused(parse, text, said):
    with pytest.raises(InvalidInputError, match=said) as refused:
        parse(text, "a.yaml" if parse is parse_classes else "a.txt")
    assert len(str(refused.value)) < 600


def test_a_class_of_a_thousand_digits_is_refused():
    with pytest.raises(InvalidInputError, match="line 1 reads"):
        parse_yolo("9" * 5000 + " 0.5 0.5 0.1 0.1", "a.txt", height=10, width=10)


def test_xml_of_more_levels_than_any_product_has_is_refused():
    assert parse_xml(b"<a>" * 100 + b"</a>" * 100).tag == "a"
    with pytest.raises(ValueError, match="at most 100 levels"):
        parse_xml(b"<a>" * 101 + b"</a>" * 101)


# ------------------------------------------------------------------ files of gigabytes
def hollow(path, size):
    """Make a file of so many bytes, none of which takes room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    path = write(folder / "lake_sigma0_vv.tif", speckle((1, 600, 600)))
    return sz.ingest(sz.plan_ingest([path], folder / "s.zarr", representation="power", quantity="sigma0"))


@linux
@pytest.mark.parametrize("name", ["boxes.csv", "boxes.geojson"])
def test_boxes_of_gigabytes_are_refused(store, tmp_path, name):
    outcome = within(import_boxes, store, hollow(tmp_path / name, 2**33))
    assert outcome.kind == "refused"
    assert "at most 268 MB was expected, got 8.59 GB" in outcome.said


@linux
def test_a_split_of_gigabytes_is_refused(store, tmp_path):
    outcome = within(import_split, store, hollow(tmp_path / "split.json", 2**33))
    assert outcome.kind == "refused"
    assert "at most 268 MB" in outcome.said


@linux
@pytest.mark.parametrize("name", ["coco.json", "chip_0.xml", "chip_0.txt", "classes.txt", "data.yaml"])
def test_annotations_of_gigabytes_are_refused(tmp_path, name):
    write_picture(tmp_path / "chips" / "chip_0.png", np.zeros((40, 40), np.uint8))
    if name in ("classes.txt", "data.yaml"):
        (tmp_path / "chips" / "chip_0.txt").write_text("0 0.5 0.5 0.1 0.1")
    hollow(tmp_path / "chips" / name, MAX_TEXT + 1)
    outcome = within(import_chips, tmp_path / "chips", tmp_path / "s.zarr")
    assert outcome.kind == "refused", outcome
    assert "at most" in outcome.said
    assert not (tmp_path / "s.zarr").exists()


@linux
def test_annotation_of_a_product_of_gigabytes_says_nothing(tmp_path):
    """A file beside the pixels that is too large for one is not read: the pixels stay digital numbers."""
    folder = tmp_path / "S1A_IW_GRDH_1SDV_20180716T004042_20180716T004107_022812_02792A_FD5B.SAFE"
    name = "s1a-iw-grd-vv-20180716t004042-20180716t004107-022812-02792a-001"
    path = write(folder / "measurement" / f"{name}.tiff", (speckle((1, 60, 60)) * 1000).astype("uint16"))
    for place in (f"annotation/{name}.xml", f"annotation/calibration/calibration-{name}.xml", "manifest.safe",
                  f"annotation/calibration/noise-{name}.xml", "productInfo.json"):  # fmt: skip
        hollow(folder / place, 2**33)
    outcome = within(lambda: probe_file(path).quantity)
    assert (outcome.kind, outcome.said) == ("done", "dn")


@linux
def test_annotation_of_a_million_vectors_is_refused_or_read_in_bounds(tmp_path):
    vectors = (
        b"<calibrationVector><line>1</line><pixel>0</pixel><sigmaNought>1</sigmaNought></calibrationVector>"
    )
    data = b"<calibration>" + vectors * (MAX_XML // len(vectors) - 1) + b"</calibration>"
    outcome = within(lambda: len(list(parse_xml(data))))
    assert (
        (outcome.kind == "done" and outcome.said < 100_000)
        or outcome.said == 1
        or "at most" in str(outcome.said)
    )


# ------------------------------------------------------------------ pictures
def png(height, width, data=b""):
    """Return the bytes of a PNG, 8 bits grey, that says it has so many rows and columns."""

    def part(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", data) + part(b"IEND", b"")


@linux
@pytest.mark.parametrize("sides", [(2**31 - 1, 2**31 - 1), (60_000, 60_000), (8193, 8)])
def test_a_picture_that_says_it_is_large_is_refused_by_its_header(tmp_path, sides):
    path = tmp_path / "a.png"
    path.write_bytes(png(*sides, zlib.compress(bytes(1000))))
    outcome = within(lambda: read_sample(path).values.shape)
    assert outcome.is_good, outcome
    assert outcome.kind == "refused"


@linux
def test_a_picture_that_holds_less_than_it_says_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(4000, 4000, zlib.compress(bytes(4001))))
    outcome = within(lambda: read_sample(path).values.shape)
    assert outcome.kind == "refused", outcome
    assert "intact" in outcome.said


@linux
@pytest.mark.parametrize("side", [65520, 2**20])
def test_a_chip_in_a_giant_tile_is_refused_before_its_memory_is_taken(tmp_path, side):
    from mutations import set_tag

    path = write(
        tmp_path / "a.tif",
        np.full((1, 64, 64), 7, np.uint8),
        compress="deflate",
        tiled=True,
        blockxsize=64,
        blockysize=64,
    )
    data = set_tag(set_tag(path.read_bytes(), 322, kind=4, value=side), 323, kind=4, value=side)
    path.write_bytes(data)
    outcome = within(lambda: read_sample(path).values.shape)
    assert outcome.kind == "refused", outcome


# ------------------------------------------------------------------ archives
def archive(path, files, *, lie=None):
    """Write a ZIP archive, deflated; ``lie`` changes the records of its list of files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    if lie is not None:
        data = bytearray(path.read_bytes())
        at = data.find(b"PK\x01\x02")
        while at >= 0:
            lie(data, at)
            at = data.find(b"PK\x01\x02", at + 4)
        path.write_bytes(data)
    return path


def _grown(data, at):
    struct.pack_into("<I", data, at + 24, 2**32 - 2)  # bytes unpacked


def _shrunk(data, at):
    struct.pack_into("<I", data, at + 24, 100)


def _moved(data, at):
    struct.pack_into("<I", data, at + 42, 2**31)  # where the file begins


def _stored(data, at):
    struct.pack_into("<H", data, at + 10, 99)  # a method that nobody knows


@linux
@pytest.mark.parametrize("lie", [_grown, _shrunk, _moved, _stored])
def test_an_archive_that_lies_about_its_files_is_refused(tmp_path, lie):
    inner = write(tmp_path / "a_sigma0_vv.tif", speckle((1, 200, 200)))
    path = archive(tmp_path / "p.zip", {"measurement/a_sigma0_vv.tif": inner.read_bytes()}, lie=lie)
    outcome = within(lambda: len(sz.open_scene(path, representation="power", quantity="sigma0").vv.values))
    assert outcome.is_good, outcome
    assert outcome.kind == "refused" or lie is _grown, outcome


@linux
def test_a_file_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    """No annotation is read beyond its limit, and of a raster GDAL reads what it needs."""
    inner = write(tmp_path / "a_sigma0_vv.tif", speckle((1, 60, 60)))
    bomb = bytes(2**28)  # 256 KiB in the archive
    files = {"x.SAFE/measurement/a_sigma0_vv.tif": inner.read_bytes(), "x.SAFE/manifest.safe": bomb}
    files |= {"x.SAFE/annotation/a_sigma0_vv.xml": bomb}
    path = archive(tmp_path / "x.zip", files)
    assert path.stat().st_size < 2**20
    outcome = within(
        lambda: probe_file(path / "x.SAFE/measurement/a_sigma0_vv.tif").grid.height, memory=2**28
    )
    assert (outcome.kind, outcome.said) == ("done", 60)


# ------------------------------------------------------------------ what older tools left
class Harmless:
    """What a pickle would run: it writes a file beside it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def _npy(header):
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


OLD = {
    "metadata.npy": lambda mark: _saved(np.array([Harmless(mark)], object)),
    "state.npz": lambda mark: _zipped({"a.npy": _saved(np.array([Harmless(mark)], object))}),
    "model.pkl": lambda mark: pickle.dumps(Harmless(mark)),
    "giant.npy": lambda _: _npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976,)}\n"
    ),
    "bomb.npz": lambda _: _zipped({"a.npy": bytes(2**27)}),
}


def _saved(values):
    held = io.BytesIO()
    np.save(held, values, allow_pickle=True)
    return held.getvalue()


def _zipped(files):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return held.getvalue()


@linux
@pytest.mark.parametrize("suffix", ["", ".tif"])
@pytest.mark.parametrize("name", OLD)
def test_arrays_and_pickles_are_not_opened_whatever_they_are_called(tmp_path, name, suffix):
    mark = tmp_path / "ran"
    path = tmp_path / "old" / f"{name}{suffix}"
    path.parent.mkdir()
    path.write_bytes(OLD[name](mark))
    for read in (
        lambda: sz.ingest(sz.plan_ingest([path], tmp_path / "s.zarr")) and 0,
        lambda: sz.ingest(sz.plan_ingest([path.parent], tmp_path / "s.zarr")) and 0,
        lambda: import_chips(path.parent, tmp_path / "c.zarr") and 0,
        lambda: sz.open_store(path.parent) and 0,
    ):
        outcome = within(read)
        assert outcome.is_good, outcome
        assert outcome.kind == "refused"
    assert not mark.exists()
    assert {p.name for p in tmp_path.iterdir()} == {"old"}


@linux
def test_a_folder_of_older_samples_is_listed_and_its_arrays_are_not_opened(tmp_path):
    mark, folder = tmp_path / "ran", tmp_path / "signals" / "ships" / "samples"
    folder.mkdir(parents=True)
    for i in range(4):
        (folder / f"s{i}.npz").write_bytes(OLD["state.npz"](mark))
        (folder / f"s{i}.json").write_text("[" * LEVELS)
    (folder.parent / "splits").mkdir()
    (folder.parent / "splits/v1.json").write_text("[" * LEVELS)
    (folder.parent / "splits/active.json").symlink_to("/dev/zero")
    outcome = within(lambda: len(SplitManager(tmp_path).backend.samples("ships")))
    assert (outcome.kind, outcome.said) == ("done", 4)
    outcome = within(lambda: str(SplitManager(tmp_path).read("ships", 1)))
    assert (outcome.kind, outcome.code) == ("refused", 2), outcome
    outcome = within(lambda: SplitManager(tmp_path).backend.pointer("ships"))
    assert (outcome.kind, outcome.said) == ("done", [0, 0]), outcome
    assert not mark.exists()


RUNS = {"eval", "exec", "compile", "__import__", "np.load", "pickle.load", "pickle.loads", "marshal.loads",
        "yaml.load",
        "torch.load", "os.system", "shelve.open", "np.fromregex", "joblib.load", "dill.load"}  # fmt: skip
"""What runs what a file says, or may."""


def test_nothing_of_the_package_runs_what_a_file_says():
    found = {}
    for path in Path(sarzarr.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in RUNS:
                found.setdefault(path.name, set()).add(called)
            if (
                isinstance(node, ast.keyword)
                and node.arg in ("allow_pickle", "shell")
                and ast.unparse(node.value) != "False"
            ):
                found.setdefault(path.name, set()).add(node.arg)
    assert found == {
        "npy.py": {"allow_pickle"}
    }  # of `numpy.save`, which writes an index as older programs read it
