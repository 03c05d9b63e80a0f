"""A collection that gets files again: what was refused stays, ids stay, and what is doubtful is said or refused."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin
from tiffs import speckle, write

import sarzarr as sz
from sarzarr.errors import InvalidInputError


def chip(path, i, *, seed=0, size=(12, 12), bands=("VV", "VH")):
    db = 10 * np.log10(speckle((len(bands), *size), seed=100 * seed + i))
    place = from_origin(500_000 + 500 * i, 5_000_000, 10, 10)
    write(path, db.astype("f4"), names=bands, transform=place)
    return path


def mask(path, i, value=1, *, size=(12, 12), dtype="i2", **options):
    place = from_origin(500_000 + 500 * i, 5_000_000, 10, 10)
    write(path, np.full(size, value, dtype), transform=place, **options)
    return path


def ingested(given, root, *layers, **options):
    plan = sz.plan_ingest(given, root, collection="x", layers=list(layers), **options)
    return plan, sz.open_collection(sz.ingest(plan), "x")


@pytest.fixture
def chips(tmp_path):
    for i in range(3):
        chip(tmp_path / "in" / f"a_chip_{i}_S1.tif", i)
    return tmp_path / "in"


def test_a_chip_whose_new_file_is_refused_stays(tmp_path, chips):
    _, before = ingested(chips, tmp_path / "s.zarr")
    held = {name: before.stored(name, "vv") for name in before.ids}
    chip(chips / "a_chip_1_S1.tif", 1, seed=1)
    chip(chips / "a_chip_2_S1.tif", 2, seed=1)
    data = (chips / "a_chip_2_S1.tif").read_bytes()
    (chips / "a_chip_2_S1.tif").write_bytes(data[:100])
    plan = sz.plan_ingest(chips, tmp_path / "s.zarr", collection="x", replace=True)
    sz.ingest(plan)
    after = sz.open_collection(tmp_path / "s.zarr", "x")
    assert sorted(after.ids) == sorted(before.ids)
    changed = {name for name, pixels in held.items() if not np.array_equal(after.stored(name, "vv"), pixels)}
    assert changed == {"a_chip_1_S1"}
    assert not sz.verify(tmp_path / "s.zarr", deep=True).findings


def test_a_chip_that_is_written_anew_keeps_its_id(tmp_path):
    files = [chip(tmp_path / folder / "s1" / "chip_1_S1.tif", i) for i, folder in enumerate("AB")]
    _, before = ingested(tmp_path, tmp_path / "s.zarr")
    chip(files[1], 1, seed=1)
    _, after = ingested(tmp_path, tmp_path / "s.zarr", replace=True)
    assert sorted(after.ids) == sorted(before.ids)


@pytest.mark.parametrize(
    ("names", "masks", "count"),
    [
        ("t{}_20200101_S1", "t{}_20200201_mask", 0),
        ("t{}_20200101_S1", "t{}_20200101_mask", 3),
        ("t{}_20200101_S1", "t{}_mask", 3),
        ("t{}_S1", "t{}_20200101_mask", 3),
        ("t{}_20200101_S1", "t{}_20200101T053000_mask", 0),
    ],
)
def test_a_mask_of_another_date_is_no_chips(tmp_path, names, masks, count):
    for i in range(3):
        chip(tmp_path / "in" / f"{names.format(i)}.tif", i)
        mask(tmp_path / "out" / f"{masks.format(i)}.tif", i)
    _, made = ingested(tmp_path / "in", tmp_path / "s.zarr", f"mask={tmp_path / 'out'}")
    assert int((made.table["layers"].values != 0).sum()) == count
    _, later = ingested(tmp_path / "in", tmp_path / "t.zarr")
    plan = sz.plan_ingest(
        tmp_path / "in", later.store.root, collection="x", layers=[f"mask={tmp_path / 'out'}"]
    )
    assert len(plan.collections[0].later) == count


def test_one_chip_and_one_mask_of_other_numbers_are_not_of_each_other(tmp_path):
    chip(tmp_path / "in" / "a_1_S1.tif", 0)
    mask(tmp_path / "out" / "b_7_mask.tif", 0)
    _, made = ingested(tmp_path / "in", tmp_path / "s.zarr", f"mask={tmp_path / 'out'}")
    assert made.table["layers"].values.tolist() == [0]


@pytest.mark.parametrize("what", ["mask", "chip"])
def test_a_change_of_few_pixels_is_seen(tmp_path, what):
    """Of a long file every byte counts, where its time differs and its size does not."""
    size = (512, 512)
    path = chip(tmp_path / "in" / "a_1_S1.tif", 0, size=size)
    marks = mask(tmp_path / "out" / "a_1_mask.tif", 0, 0, size=size)
    ingested(tmp_path / "in", tmp_path / "s.zarr", f"mask={tmp_path / 'out'}")
    edited = {"mask": marks, "chip": path}[what]
    data = bytearray(edited.read_bytes())
    at = len(data) // 2 + 20_000
    data[at : at + 2] = b"\x01\x00" if what == "mask" else data[at + 4 : at + 6]
    edited.write_bytes(data)
    os.utime(edited, ns=(0, edited.stat().st_mtime_ns + 10**9))
    layers = [f"mask={tmp_path / 'out'}"]
    plan = sz.plan_ingest(tmp_path / "in", tmp_path / "s.zarr", collection="x", replace=True, layers=layers)
    own = plan.collections[0]
    assert (len(own.chips), len(own.later)) == ((0, 1) if what == "mask" else (1, 0))


def test_a_hash_of_samples_of_an_earlier_ingest_is_known(tmp_path, monkeypatch):
    from sarzarr.ingestion.collections import read

    path = chip(tmp_path / "in" / "a_1_S1.tif", 0, size=(512, 512))
    whole = read.files_hash
    monkeypatch.setattr(read, "files_hash", lambda paths: whole(paths, sampled=True))
    ingested(tmp_path / "in", tmp_path / "s.zarr")
    monkeypatch.undo()
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    plan = sz.plan_ingest(tmp_path / "in", tmp_path / "s.zarr", collection="x")
    assert (plan.collections[0].present, len(plan.collections[0].chips)) == (1, 0)


def test_the_same_chips_from_elsewhere_are_said(tmp_path, chips, caplog):
    ingested(chips, tmp_path / "s.zarr")
    shutil.copytree(chips, tmp_path / "other" / "place")
    for path in (tmp_path / "other").rglob("*.tif"):
        path.rename(path.with_name(path.name.replace("a_", "x_")))
    with caplog.at_level(logging.WARNING):
        _, made = ingested(tmp_path / "other", tmp_path / "s.zarr")
    assert len(made) == 6
    assert (
        "3 chips have the pixels and the place of one that is there: 'x_chip_0_S1' those of 'a_chip_0_S1'"
        in (caplog.text)
    )


def test_a_polarization_that_comes_later_is_refused(tmp_path):
    for i in range(2):
        chip(tmp_path / "in" / f"c{i}_VV.tif", i, bands=("VV",))
    ingested(tmp_path / "in", tmp_path / "s.zarr")
    chip(tmp_path / "in" / "c0_VH.tif", 0, bands=("VH",))
    plan = sz.plan_ingest(tmp_path / "in", tmp_path / "s.zarr", collection="x")
    assert len(plan.collections[0].chips) == 0
    assert "it belongs to chip 'c0'" in str(plan)
    again = sz.plan_ingest(tmp_path / "in", tmp_path / "s.zarr", collection="both")
    assert sz.open_collection(sz.ingest(again), "both").arrays == ("vv", "vh")


def test_words_on_a_layer_that_is_there_are_not_passed_over(tmp_path, chips):
    for i in range(3):
        mask(tmp_path / "marks" / f"a_chip_{i}_mask.tif", i, -1)
        mask(tmp_path / "opt" / f"a_chip_{i}_opt.tif", i, 5, size=(2, 12, 12), dtype="u2")
    marks, opt = tmp_path / "marks", tmp_path / "opt"
    ingested(chips, tmp_path / "s.zarr", f"mask={marks}", f"s2={opt}")
    with pytest.raises(InvalidInputError, match="nodata None"):
        sz.plan_ingest(chips, tmp_path / "s.zarr", collection="x", layers=[f"mask:nodata-1={marks}"])
    with pytest.raises(InvalidInputError, match="band of a layer"):
        sz.plan_ingest(chips, tmp_path / "s.zarr", collection="x", layers=[f"s2_1={marks}"])
    with pytest.raises(InvalidInputError, match="one --layer mask was expected"):
        sz.plan_ingest(chips, tmp_path / "s.zarr", collection="x", layers=[f"mask={marks}", f"mask={opt}"])


def test_a_chip_that_is_written_anew_without_its_layer_is_said(tmp_path, chips):
    for i in range(3):
        mask(tmp_path / "marks" / f"a_chip_{i}_mask.tif", i)
    ingested(chips, tmp_path / "s.zarr", f"mask={tmp_path / 'marks'}")
    chip(chips / "a_chip_1_S1.tif", 1, seed=1)
    plan = sz.plan_ingest(chips, tmp_path / "s.zarr", collection="x", replace=True)
    assert "1 chip written anew without layer mask" in str(plan)
    layers = [f"mask={tmp_path / 'marks'}"]
    plan = sz.plan_ingest(chips, tmp_path / "s.zarr", collection="x", replace=True, layers=layers)
    assert "without layer" not in str(plan)
    assert sz.open_collection(sz.ingest(plan), "x").table["layers"].values.tolist() == [1, 1, 1]


def test_the_remedy_for_a_damaged_collection_mends_it(tmp_path, chips):
    ingested(chips, tmp_path / "s.zarr")
    shard = next(Path(tmp_path / "s.zarr").rglob("vv/c/0/0/0"))
    shard.write_bytes(shard.read_bytes()[:-50])
    said = str(sz.verify(tmp_path / "s.zarr"))
    assert "sarzarr remove" in said
    assert "--collection x" in said
    sz.remove_collection(tmp_path / "s.zarr", "x")
    ingested(chips, tmp_path / "s.zarr")
    assert not sz.verify(tmp_path / "s.zarr", deep=True).findings
