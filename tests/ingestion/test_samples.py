"""Chips in a store: every picture, every box, in few files, however often it was interrupted."""

import json
import logging
import math
import multiprocessing
import os
import re
import shutil
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from chip_folders import chip_folder, voc, write_picture
from conftest import tree_hash, write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.errors import (
    CorruptStoreError,
    InvalidInputError,
    NotInStoreError,
    RasterNotFoundError,
    StoreNotFoundError,
    UnsupportedRasterError,
)
from sarzarr.ingestion.boxes import import_boxes
from sarzarr.ingestion.chips.find import ChipOptions
from sarzarr.ingestion.chips.pictures import import_chips
from sarzarr.ingestion.chips.read import read_sample
from sarzarr.patches.index import index_patches
from sarzarr.pixels.turns import apply
from sarzarr.reader.augment import AUGMENTATIONS
from sarzarr.reader.reader import PatchReader
from sarzarr.reader.targets import patch_targets
from sarzarr.store.boxes import Boxes, Windows, area, read_boxes, write_boxes
from sarzarr.store.samples import SampleLayout, open_samples
from sarzarr.store.store import create_store


# ------------------------------------------------------------------ in and out
def test_every_picture_and_every_box_comes_back(tmp_path):
    pictures = chip_folder(tmp_path / "chips")
    done = []
    made, report = import_chips(
        tmp_path / "chips", tmp_path / "s.zarr", progress=lambda n, of: done.append((n, of))
    )
    assert done[-1] == (7, 7)
    assert made.ids == tuple(sorted(pictures))
    for i, name in enumerate(made.ids):
        pixels, boxes = pictures[name]
        assert np.array_equal(made.image(i), pixels)
        got, labels = made.target(i)
        assert got.tolist() == [list(map(float, b)) for b in boxes]
        assert got.shape == (len(boxes), 4)
        assert got.dtype == np.float32
        assert labels.tolist() == [1] * len(boxes)
        for x0, y0, x1, y1 in got.astype(int):
            assert (made.image(i)[y0:y1, x0:x1] == 255).all()
    assert report.samples == report.annotated == 7
    assert report.boxes | {"given": 6, "kept": 6, "repaired": 0, "left_out": 0} == report.boxes
    assert made.verify() == []
    assert not list(tmp_path.glob("*.samples-*"))


@pytest.mark.compat
def test_zarr_and_xarray_read_what_was_packed(tmp_path):
    pictures = chip_folder(tmp_path / "chips")
    made, _ = import_chips(tmp_path / "chips", tmp_path / "s.zarr", options=ChipOptions(name="many"))
    array = zarr.open_array(made.folder / "image", mode="r")
    flags = zarr.open_array(made.folder / "image_flags", mode="r")[:]
    assert array.chunks == (1, *(min(n, 256) for n in array.shape[1:]))
    sizes = zip(*(pixels.shape for pixels, _ in pictures.values()), strict=True)
    assert array.shape[1:] == tuple(map(max, sizes))
    for i, name in enumerate(made.ids):
        height, width = pictures[name][0].shape
        assert np.array_equal(array[i, :height, :width], pictures[name][0])
        assert (array[i, height:] == array.fill_value).all()
        assert (array[i, :, width:] == array.fill_value).all()
        assert (flags[i] < cv.Flag.NODATA).sum() == height * width
        assert (flags[i, :height, :width] == cv.Flag.VALID).all()
    group = xr.open_datatree(tmp_path / "s.zarr", engine="zarr")["samples/many"]
    assert group["image"].dims == ("sample", "y", "x")
    assert group["image"].dtype == np.uint8
    assert group["id"].values.tolist() == list(made.ids)
    assert set(group["folder"].values.tolist()) == {"images"}
    assert group["height"].values.tolist() == [pictures[n][0].shape[0] for n in made.ids]
    attrs = json.loads((made.folder / "image" / "zarr.json").read_text())["attributes"]
    assert attrs["nodata"] == array.fill_value
    assert attrs["ancillary_variables"] == "image_flags"


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 8192),
    width=st.integers(1, 8192),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
)
def test_shards_hold_whole_samples_and_few_files_hold_many(height, width, dtype):
    layout = SampleLayout.of(count=100_000, height=height, width=width, dtype=dtype)
    assert (layout.height, layout.width) == (height, width)
    assert layout.chunk == (min(height, 256), min(width, 256))
    assert layout.shards * layout.per_shard >= 100_000
    pixels = math.prod(n * c for n, c in zip(layout.chunks, layout.chunk, strict=True))
    picture = pixels * np.dtype(dtype).itemsize
    assert layout.per_shard * picture <= max(2**25, picture)
    if max(height, width) <= 512 and dtype == "uint8":
        assert layout.shards < 1000


def test_a_thousand_chips_are_a_few_files(tmp_path):
    small = np.arange(36, dtype=np.uint8).reshape(6, 6)
    first = write_picture(tmp_path / "chips" / "c0000.png", small)
    for i in range(1, 1000):
        os.link(first, tmp_path / "chips" / f"c{i:04}.png")
    made, _ = import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    assert len(made) == 1000
    assert sum(p.is_file() for p in made.folder.rglob("*")) < 30
    assert np.array_equal(made.image(999), small)


@pytest.mark.parametrize(("driver", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("GTiff", "tif")])
@pytest.mark.parametrize("channels", [1, 3])
def test_formats_and_channels(tmp_path, driver, suffix, channels):
    grey = np.tile(np.arange(64, dtype=np.uint8), (48, 1)) * 3
    path = write_picture(
        tmp_path / f"a.{suffix}",
        np.stack([grey] * channels),
        driver,
        **({"quality": 100} if driver == "JPEG" else {}),
    )
    got = read_sample(path)
    assert not got.is_coloured
    assert np.abs(got.values.astype(int) - grey).max() <= (2 if driver == "JPEG" else 0)


def test_a_coloured_picture_becomes_its_middle_channel(tmp_path):
    rgb = np.stack([np.full((20, 20), v, np.uint8) for v in (10, 200, 90)])
    rgb[:, 5] = 7
    got = read_sample(write_picture(tmp_path / "a.png", rgb))
    assert got.is_coloured
    assert np.unique(got.values).tolist() == [7, 90]
    rgba = np.concatenate([np.repeat(rgb[1:2], 3, 0), np.full((1, 20, 20), 128, np.uint8)])
    assert np.array_equal(read_sample(write_picture(tmp_path / "b.png", rgba)).values, rgb[1])


def test_16_bits_and_floats_are_kept(tmp_path):
    for dtype, driver, suffix in (("uint16", "PNG", "png"), ("float32", "GTiff", "tif")):
        folder = tmp_path / dtype
        pixels = (np.random.default_rng(0).random((300, 280)) * 60_000).astype(dtype) / (
            1 if dtype == "uint16" else 60_000
        )
        pixels = pixels.astype(dtype)
        write_picture(folder / f"a.{suffix}", pixels, driver)
        made, _ = import_chips(folder, tmp_path / f"{dtype}.zarr")
        assert np.array_equal(made.image(0), pixels)
        assert np.array_equal(zarr.open_array(made.folder / "image", mode="r")[0, :300, :280], pixels)


# ------------------------------------------------------------------ annotations
def test_coco_and_yolo_say_the_same_as_voc(tmp_path):
    pictures = chip_folder(tmp_path / "voc", count=4)
    images, annotations = [], []
    for kind in ("coco", "yolo"):
        shutil.copytree(tmp_path / "voc" / "images", tmp_path / kind / "images")
    (tmp_path / "yolo" / "labels").mkdir()
    (tmp_path / "yolo" / "classes.txt").write_text("ship\n")
    for i, (name, (pixels, boxes)) in enumerate(pictures.items()):
        images.append({"id": i, "file_name": f"{name}.png"})
        height, width = pixels.shape
        lines = []
        for x0, y0, x1, y1 in (tuple(map(int, b)) for b in boxes):
            annotations.append({"image_id": i, "category_id": 3, "bbox": [x0, y0, x1 - x0, y1 - y0]})
            shares = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
            lines.append(" ".join(["0", *(f"{v:.9f}" for v in shares)]))
        (tmp_path / "yolo" / "labels" / f"{name}.txt").write_text("\n".join(lines))
    document = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "ship"}]}
    (tmp_path / "coco" / "instances.json").write_text(json.dumps(document))
    sets = {k: import_chips(tmp_path / k, tmp_path / "s.zarr")[0] for k in ("voc", "coco", "yolo")}
    for other in ("coco", "yolo"):
        assert np.allclose(sets[other].boxes.boxes, sets["voc"].boxes.boxes, atol=1e-3)
        assert sets[other].boxes.classes == ("ship",)
    assert {s.name for s in sets.values()} == {"voc", "coco", "yolo"}


def test_boxes_are_never_dropped_in_silence(tmp_path):
    folder = tmp_path / "chips"
    write_picture(folder / "a.png", np.ones((50, 60), np.uint8))
    (folder / "a.xml").write_text(voc([(1, 1, 5, 5), (55, 40, 80, 80), (9, 9, 9, 12), ("x", 1, 2, 3)]))
    (folder / "gone.xml").write_text(voc([(1, 1, 2, 2)]))
    made, report = import_chips(folder, tmp_path / "s.zarr", options=ChipOptions(leave_unmatched=True))
    assert report.boxes | {"given": 4, "kept": 2, "repaired": 1, "left_out": 2} == report.boxes
    assert report.unmatched == ("gone",)
    assert made.boxes.counts == report.boxes
    assert made.target(0)[0].tolist() == [[1, 1, 5, 5], [55, 40, 60, 50]]
    with pytest.raises(InvalidInputError, match=r"a: boxes inside 50 x 60"):
        import_chips(
            folder,
            tmp_path / "s.zarr",
            options=ChipOptions(name="strict", policy="refuse", leave_unmatched=True),
        )
    asked = ChipOptions(name="one", one_based=True, leave_unmatched=True)
    one, _ = import_chips(folder, tmp_path / "s.zarr", options=asked)
    assert one.target(0)[0].tolist()[0] == [0, 0, 5, 5]


def test_without_annotations_there_are_no_boxes(tmp_path):
    write_picture(tmp_path / "chips" / "a.png", np.ones((50, 60), np.uint8))
    made, report = import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    assert made.target(0)[0].shape == (0, 4)
    assert report.annotated == 0
    assert made.table["annotated"].values.tolist() == [0]


# ------------------------------------------------------------------ refusals
def test_what_cannot_be_taken_is_refused_with_its_name(tmp_path):
    with pytest.raises(RasterNotFoundError, match="folder of pictures"):
        import_chips(tmp_path / "nowhere", tmp_path / "s.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="got none"):
        import_chips(tmp_path / "empty", tmp_path / "s.zarr")
    mixed = tmp_path / "mixed"
    write_picture(mixed / "a.png", np.ones((5, 6), np.uint8))
    write_picture(mixed / "b.png", np.ones((5, 6), np.uint16))
    with pytest.raises(UnsupportedRasterError, match=r"uint16: b\.png"):
        import_chips(mixed, tmp_path / "s.zarr")
    twice = tmp_path / "twice"
    write_picture(twice / "a b.png", np.ones((5, 6), np.uint8))
    write_picture(twice / "a_b.png", np.ones((5, 6), np.uint8))
    with pytest.raises(InvalidInputError, match="'a_b'"):
        import_chips(twice, tmp_path / "s.zarr")
    two = tmp_path / "two"
    write_picture(two / "a.png", np.ones((5, 6), np.uint8))
    (two / "a.xml").write_text(voc([]))
    (two / "a.txt").write_text("")
    with pytest.raises(InvalidInputError, match="voc and yolo"):
        import_chips(two, tmp_path / "s.zarr")
    with pytest.raises(InvalidInputError, match="as coco"):
        import_chips(two, tmp_path / "s.zarr", options=ChipOptions(annotations="coco"))
    for name in ("../evil", "/etc", ".hidden", "a/b", ""):
        with pytest.raises(InvalidInputError):
            import_chips(two, tmp_path / "s.zarr", options=ChipOptions(name=name or "..", annotations="voc"))
    assert not (tmp_path / "s.zarr" / "samples").exists()


def test_pictures_of_one_name_in_two_folders_keep_their_folders_names(tmp_path):
    for sub, value in (("a", 1), ("b", 2)):
        write_picture(tmp_path / "chips" / sub / "x.png", np.full((5, 6), value, np.uint8))
    made, _ = import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    assert made.ids == ("a_x", "b_x")
    assert [int(made.image(i).max()) for i in (0, 1)] == [1, 2]


def test_a_set_that_is_there_is_not_overwritten_unless_asked(tmp_path):
    chip_folder(tmp_path / "chips", count=2)
    made, _ = import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    before = tree_hash(made.folder)
    with pytest.raises(InvalidInputError, match="--replace"):
        import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    write_picture(tmp_path / "chips" / "images" / "more.png", np.full((5, 6), 9, np.uint8))
    assert tree_hash(made.folder) == before
    again, _ = import_chips(tmp_path / "chips", tmp_path / "s.zarr", options=ChipOptions(replace=True))
    assert len(again) == 3
    assert len(again.boxes.owners) == 3


@pytest.mark.parametrize("kept", [3000, 20])  # the header is whole, or is not
def test_a_picture_that_cannot_be_read_is_named_and_the_others_go_in(tmp_path, caplog, kept):
    rng = np.random.default_rng(0)
    folder, pixels = tmp_path / "chips", rng.integers(0, 255, (3, 300, 300)).astype(np.uint8)
    for i in range(3):
        write_picture(folder / f"{i}.jpg", pixels[i : i + 1], "JPEG")
    path = folder / "1.jpg"
    good = path.read_bytes()
    path.write_bytes(good[:kept])
    with pytest.raises(UnsupportedRasterError, match=r"chips/1\.jpg: "):
        import_chips(folder, tmp_path / "strict.zarr", options=ChipOptions(strict=True))
    with caplog.at_level(logging.WARNING):
        made, report = import_chips(folder, tmp_path / "s.zarr")
    assert made.ids == ("0", "2")
    assert [[file.name for file in one.files] for one in report.refused] == [["1.jpg"]]
    assert "chips/1.jpg" in caplog.text
    assert made.verify() == []
    assert not sz.verify(tmp_path / "s.zarr").findings
    assert not list(tmp_path.glob("s.zarr.samples-*"))
    path.write_bytes(good)
    made, report = import_chips(folder, tmp_path / "s.zarr", options=ChipOptions(replace=True))
    assert (len(made), report.refused) == (3, [])


def test_where_no_picture_can_be_read_nothing_goes_in(tmp_path):
    (tmp_path / "chips").mkdir()
    for i in range(2):
        (tmp_path / "chips" / f"{i}.png").write_bytes(b"not a picture at all")
    with pytest.raises(UnsupportedRasterError, match=r"chips/0\.png: a PNG, JPEG or TIFF .*\nchips/1\.png: "):
        import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_a_flipped_bit_and_a_missing_shard_are_seen(tmp_path):
    chip_folder(tmp_path / "chips", count=2)
    made, _ = import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    shard = made.folder / "image" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(CorruptStoreError):
        [made.image(i) for i in range(2)]
    shard.unlink()
    with pytest.raises(CorruptStoreError, match=r"no such file \(file .*image/c/0/0/0"):
        made.image(0)
    assert made.verify() == ["image/c/0/0/0: absent, short or another"]


# ------------------------------------------------------------------ resuming
def _import_slowly(folder, store):
    import_chips(folder, store)


def test_killed_while_packing_it_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("sarzarr.store.samples.MOST_IN_SHARD", 2)
    chip_folder(tmp_path / "chips", count=9)
    import_chips(tmp_path / "chips", tmp_path / "whole.zarr")
    seen = []

    class Stopped(Exception):  # noqa: N818
        pass

    def stop(done, of):
        seen.append(done)
        if len(seen) == 3:  # the first shard's was for its fill: 255 is white
            raise Stopped

    with pytest.raises(Stopped):
        import_chips(tmp_path / "chips", tmp_path / "s.zarr", progress=stop)
    staging = tmp_path / "s.zarr.samples-chips"
    receipts = (staging / "receipts").glob("uint8-254-*.json")
    stamps = {p.stem.removeprefix("uint8-254-"): p.stat().st_mtime_ns for p in receipts}
    kept = {p.relative_to(staging): p.stat().st_mtime_ns for p in (staging / "arrays").rglob("c/*/0/0")}
    assert stamps
    torn = staging / "arrays" / "image" / "c" / min(stamps) / "0" / "0"
    torn.write_bytes(torn.read_bytes()[:-5])
    resumed = []
    import_chips(tmp_path / "chips", tmp_path / "s.zarr", progress=lambda done, of: resumed.append(done))
    assert 1 <= len(resumed) <= 5 - len(stamps) + 1  # the torn one is done again
    new = tmp_path / "s.zarr" / "samples" / "chips"
    assert not list(new.rglob("*.partial"))
    done = {*stamps} - {min(stamps)}
    for k, stamp in kept.items():
        if k.parts[3] in done:
            assert (new / k.relative_to("arrays")).stat().st_mtime_ns == stamp
    assert done
    assert tree_hash(new) == tree_hash(tmp_path / "whole.zarr" / "samples" / "chips")
    assert not staging.exists()


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_no_set_and_the_next_one_makes_it(tmp_path):
    first = write_picture(
        tmp_path / "chips" / "c000.png",
        np.random.default_rng(0).integers(0, 255, (700, 700)).astype(np.uint8),
    )
    for i in range(1, 150):
        os.link(first, tmp_path / "chips" / f"c{i:03}.png")
    process = multiprocessing.get_context("spawn").Process(
        target=_import_slowly, args=(tmp_path / "chips", tmp_path / "s.zarr")
    )
    process.start()
    staging = tmp_path / "s.zarr.samples-chips"
    deadline = time.monotonic() + 60
    while not list(staging.glob("receipts/*.json")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    made, _ = import_chips(tmp_path / "chips", tmp_path / "t.zarr")
    if not (tmp_path / "s.zarr" / "samples" / "chips").exists():
        with pytest.raises(NotInStoreError):
            open_samples(sz.open_store(tmp_path / "s.zarr"), "chips")
        again, _ = import_chips(tmp_path / "chips", tmp_path / "s.zarr")
        assert tree_hash(again.folder) == tree_hash(made.folder)


# ------------------------------------------------------------------ the real chips
def test_the_real_chips_come_back_with_every_box_drawn_in_its_place(real_data, tmp_path):
    folder = real_data / "ship_chips" / "ssdd"
    made, report = import_chips(folder, tmp_path / "s.zarr")
    texts = {p.stem: p.read_text() for p in (folder / "Annotations").glob("*.xml")}
    assert report.samples == report.annotated == len(texts) == 39
    assert report.boxes["given"] == report.boxes["kept"] == sum(t.count("<object>") for t in texts.values())
    brighter = 0
    for i, name in enumerate(made.ids):
        image, (boxes, labels) = made.image(i).astype(float), made.target(i)
        assert len(boxes) == texts[name].count("<object>") == len(labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(folder / str(made.table["source"].values[i])) as file:
                assert np.array_equal(np.median(file.read(), axis=0), image)
        for x0, y0, x1, y1 in boxes.astype(int):
            brighter += image[y0:y1, x0:x1].mean() > np.median(image) + 10
    assert brighter > 0.95 * report.boxes["kept"]  # ships shine
    sheet = contact_sheet(made)
    kept = os.environ.get("SARZARR_CONTACT_SHEET")
    write_picture(tmp_path / "sheet.png", sheet)
    if kept:
        shutil.copy(tmp_path / "sheet.png", kept)
    assert (sheet == [[[255]], [[60]], [[60]]]).all(axis=0).sum() > 5000


def contact_sheet(made, across=8, size=260):
    """Return (3, rows, columns): every sample with its boxes in red."""
    down = -(-len(made) // across)
    sheet = np.zeros((3, down * size, across * size), np.uint8)
    for i in range(len(made)):
        image = made.image(i)
        step = max(image.shape) / (size - 4)
        rows, cols = ((np.arange(int(n / step)) * step).astype(int) for n in image.shape)
        small = np.repeat(image[np.ix_(rows, cols)][None], 3, 0)
        for x0, y0, x1, y1 in (made.target(i)[0] / step).round().astype(int):
            x1, y1 = min(x1, small.shape[2] - 1), min(y1, small.shape[1] - 1)
            for line in (np.s_[:, y0 : y1 + 1, [x0, x1]], np.s_[:, [y0, y1], x0 : x1 + 1]):
                small[line] = np.array([255, 60, 60])[:, None, None]
        top, left = i // across * size, i % across * size
        sheet[:, top : top + small.shape[1], left : left + small.shape[2]] = small
    return sheet


# ------------------------------------------------------------------ boxes on scenes, with patches
@pytest.fixture(scope="module")
def scene_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    files = sz.write_synthetic_scenes(folder, count=2, shape=(700, 900), polarizations=("VV", "VH"))
    store = sz.ingest(sz.plan_ingest(files, folder / "s.zarr"))
    index_patches(store, size=200, stride=120, edge="shift", name="shifted")
    index_patches(store, size=300, stride=300, edge="pad", name="padded")
    return sz.open_store(store.root)


def scene_boxes(store, n=30, seed=0):
    rng = np.random.default_rng(seed)
    parts = {}
    for scene in store.scenes:
        low = np.stack([rng.integers(0, 860, n), rng.integers(0, 660, n)], 1)
        parts[scene] = (
            np.concatenate([low, low + rng.integers(1, 40, (n, 2))], 1).astype(float),
            ["ship", "buoy"] * (n // 2),
        )
    return parts


@pytest.mark.parametrize("index", ["default", "shifted", "padded"])
def test_boxes_follow_their_pixels_through_any_patch_and_turn(scene_store, index):
    parts = scene_boxes(scene_store)
    boxes = Boxes.gathered(parts, dict.fromkeys(scene_store.scenes, (700, 900)))
    write_boxes(scene_store, boxes, "painted")
    boxes = read_boxes(scene_store, "painted")
    assert boxes.classes == ("ship", "buoy")
    table = scene_store.patch_columns(index)
    size = int(table.attrs["size"])
    scenes = table["owner_scene"].values.tolist()
    windows = Windows(
        owner=table["owner"].values, row=table["row"].values, col=table["col"].values, size=size
    )
    targets = patch_targets(boxes, scenes, windows, table["id"].values, min_visible=0.5)
    assert len(targets) == table.sizes["patch"]
    assert len(set(targets.image_id.tolist())) == len(targets)
    shown = 0
    for patch in range(0, len(targets), 3):
        scene = scenes[int(table["owner"].values[patch])]
        row, col = int(table["row"].values[patch]), int(table["col"].values[patch])
        operation = AUGMENTATIONS["d4"].turns[patch % 8]
        target = targets.target(patch, operation)
        painted = []
        for box in parts[scene][0].astype(int):
            image = np.zeros((1200, 1300), bool)
            image[box[1] : box[3], box[0] : box[2]] = True
            cut = image[row : row + size, col : col + size]
            if cut.sum() >= 0.5 * image.sum():
                painted.append(apply(operation, cut))
        assert len(painted) == len(target["boxes"])
        for wanted, (x0, y0, x1, y1) in zip(painted, target["boxes"].astype(int), strict=True):
            got = np.zeros((size, size), bool)
            got[y0:y1, x0:x1] = True
            assert np.array_equal(got, wanted)
            shown += 1
        assert np.array_equal(target["area"], area(target["boxes"]))
        assert target["labels"].dtype == target["image_id"].dtype == np.int64
        assert target["image_id"].tolist() == [table["id"].values[patch]]
        assert target["iscrowd"].shape == target["labels"].shape
        assert set(target["labels"].tolist()) <= {1, 2}
    assert shown > 10


@pytest.mark.parametrize("index", ["shifted", "padded"])
def test_what_the_reader_delivers_is_bright_where_its_targets_are(tmp_path, index):
    rng = np.random.default_rng(4)
    power = np.full((700, 900), 0.01, np.float32)
    low = np.stack([rng.integers(0, 870, 25), rng.integers(0, 670, 25)], 1)
    drawn = np.concatenate([low, low + rng.integers(3, 30, (25, 2))], 1)
    for x0, y0, x1, y1 in drawn:
        power[y0:y1, x0:x1] = 5.0
    path = write_band(tmp_path / "ships_vv.tif", power, tiles=256)
    store = sz.ingest(sz.plan_ingest([path], tmp_path / "s.zarr", quantity="sigma0", representation="power"))
    cut = (
        {"size": 200, "stride": 120, "edge": "shift"}
        if index == "shifted"
        else {"size": 300, "stride": 300, "edge": "pad"}
    )
    index_patches(store, name=index, **cut)
    store = sz.open_store(store.root)
    write_boxes(store, Boxes.gathered({"ships": (drawn, ["ship"] * 25)}, {"ships": (700, 900)}))
    reader = PatchReader(
        store, index=index, batch_size=4, shuffle=True, augment="d4", seed=3, clip=(-20, 6.9), min_valid=0.1,
        min_unsaturated=0,
    )  # fmt: skip
    selection = reader.selection
    table = store.patch_columns(index)
    windows = Windows(
        owner=selection.array[:, 0], row=selection.row, col=selection.col, size=selection.shape[0]
    )
    scenes = store.catalog["scene"].values[selection.catalog_row].tolist()
    ids = table["id"].values[selection.table_row]
    targets = patch_targets(read_boxes(store), scenes, windows, ids, min_visible=0)
    order, turns = reader.order(0), reader.draws(0, reader.order(0)).turns
    images = np.concatenate([batch.copy() for batch in reader])
    assert len(images) == len(order)
    boxes = 0
    for image, patch, turn in zip(images, order, turns, strict=True):
        painted = np.zeros(image.shape[1:], bool)
        for x0, y0, x1, y1 in targets.target(int(patch), int(turn))["boxes"].astype(int):
            painted[y0:y1, x0:x1] = True
            boxes += 1
        assert np.array_equal(image[0] > 0.9, painted)
    assert boxes > 20
    assert len(set(turns.tolist())) > 3


def test_targets_pickle_and_an_empty_patch_is_well_formed(scene_store):
    import pickle

    none = Boxes.gathered({}, {})
    table = scene_store.patch_columns()
    windows = Windows(owner=table["owner"].values, row=table["row"].values, col=table["col"].values, size=256)
    targets = patch_targets(none, table["owner_scene"].values.tolist(), windows, table["id"].values)
    target = pickle.loads(pickle.dumps(targets)).target(3, 5)
    assert target["boxes"].shape == (0, 4)
    assert target["boxes"].dtype == np.float32
    assert target["labels"].shape == (0,)
    assert (target["image_id"] >= 0).all()


def test_geojson_lands_on_its_pixels(scene_store, tmp_path):
    from pyproj import Transformer

    scene = scene_store.scenes[0]
    row = scene_store.rows(scene).isel(array=0)
    a, _, c, _, e, f = row["transform"].values
    to_degrees = Transformer.from_crs("EPSG:32633", 4326, always_xy=True).transform
    wanted = [[100, 200, 130, 215], [0, 0, 5, 900]]
    for crs, project in (("EPSG:32633", lambda x, y: (x, y)), (None, to_degrees)):
        features = []
        for x0, y0, x1, y1 in [*wanted, [5000, 5000, 5010, 5010]]:
            ring = [
                project(c + a * x, f + e * y) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))
            ]
            features.append(
                {
                    "type": "Feature",
                    "properties": {"kind": "ship"},
                    "geometry": {"type": "Polygon", "coordinates": [ring]},
                }
            )
        document = {"type": "FeatureCollection", "features": features}
        if crs:
            document["crs"] = {"type": "name", "properties": {"name": crs}}
        path = tmp_path / "boxes.geojson"
        path.write_text(json.dumps(document))
        with pytest.raises(InvalidInputError, match="--scene"):
            import_boxes(scene_store, path, name="drawn")
        made = import_boxes(scene_store, path, name="drawn", scene=scene, label_key="kind")
        assert [made.counts[k] for k in ("given", "kept", "repaired", "left_out", "outside")] == [
            3,
            2,
            1,
            1,
            1,
        ]
        got = read_boxes(scene_store, "drawn")
        assert np.allclose(got.boxes, [[100, 200, 130, 215], [0, 0, 5, 700]], atol=0.01)
        assert {got.classes[k - 1] for k in got.label} == {"ship"}


def test_boxes_of_other_scenes_stay(scene_store, tmp_path):
    one, two = scene_store.scenes
    path = tmp_path / "boxes.csv"
    path.write_text(f"scene,x_min,y_min,x_max,y_max,label\n{one},1,2,3,4,ship\n{two},5,6,7,8,buoy\n")
    import_boxes(scene_store, path, name="kept")
    path.write_text(f"scene,x_min,y_min,x_max,y_max,label\n{one},10,20,30,40,crane\n")
    import_boxes(scene_store, path, name="kept")
    got = read_boxes(scene_store, "kept")
    assert got.owners == (one, two)
    assert got.boxes.tolist() == [[10, 20, 30, 40], [5, 6, 7, 8]]
    assert [got.classes[k - 1] for k in got.label] == ["crane", "buoy"]
    path.write_text("scene,x_min,y_min,x_max,y_max\nnowhere,1,2,3,4\n")
    with pytest.raises(NotInStoreError, match="nowhere"):
        import_boxes(scene_store, path, name="kept")
    with pytest.raises(NotInStoreError, match="among"):
        read_boxes(scene_store, "missing")


def test_a_store_of_samples_alone_says_so(tmp_path):
    chip_folder(tmp_path / "chips", count=2)
    import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    store = create_store(tmp_path / "s.zarr")
    assert store.scenes == ()
    with pytest.raises(NotInStoreError, match="among chips"):
        open_samples(store, "others")


def test_a_number_without_a_sample_is_refused_and_a_path_opens(tmp_path):
    chip_folder(tmp_path / "chips", count=3)
    made, _ = import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    for place in (tmp_path / "s.zarr", str(tmp_path / "s.zarr")):
        assert np.array_equal(open_samples(place, "chips").image(2), made.image(2))
    for wrong in (-1, 3):
        with pytest.raises(IndexError, match="from 0 to 2 of 'chips'"):
            made.image(wrong)
        with pytest.raises(IndexError, match="from 0 to 2"):
            made.target(wrong)
    with pytest.raises(StoreNotFoundError):
        open_samples(str(tmp_path / "none.zarr"), "chips")


def test_the_first_code_on_chips_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "boxes.md").read_text()
    piece = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    chip_folder(tmp_path / "SSDD", count=5)
    import_chips(tmp_path / "SSDD", tmp_path / "stores" / "ships.zarr")
    monkeypatch.chdir(tmp_path)
    space = {}
    exec(compile(piece, "boxes.md", "exec"), space)
    assert space["image"].ndim == 2
    assert space["boxes"].shape == (len(space["labels"]), 4)
    assert space["ships"].boxes.classes == ("ship",)
