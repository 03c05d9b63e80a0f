"""What `info` says of a store: everything in it, and how much of it is read."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from chip_folders import chip_folder
from conftest import speckle, write_band

import sarzarr as sz
from sarzarr.cli import main
from sarzarr.cli.output import summary
from sarzarr.store.store import create_store


def test_patches_are_counted_as_readers_take_them(tmp_path):
    power = speckle((1100, 1300), seed=1)
    power[:300, :300] = np.nan
    power[520:620, 520:620] *= 1e4  # saturated
    store = sz.ingest(
        sz.plan_ingest([write_band(tmp_path / "a_vv.tif", power, nodata=np.nan)], tmp_path / "s.zarr")
    )
    taken, said = len(sz.PatchReader(store).selection), summary(store)
    whole = int((store.patches()["valid_fraction"].values == 1).sum())
    assert 0 < taken < whole < store.patches().sizes["patch"]
    assert f"{whole} valid in every pixel; readers take {taken} by default" in said
    assert "splits" not in said


def test_everything_in_a_store_is_named(tmp_path):
    chip_folder(tmp_path / "chips", count=5)
    made, report = sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    said = summary(create_store(tmp_path / "s.zarr"))
    assert f"samples/chips: 5 samples of {made.layout.height} x {made.layout.width} at most, uint8" in said
    assert f"{report.boxes['kept']} boxes in 1 class" in said
    assert "split" not in said
    sz.SplitManager(tmp_path / "s.zarr").create_initial_split("chips")
    assert "    split: v1" in summary(create_store(tmp_path / "s.zarr"))
    store = sz.ingest(
        sz.plan_ingest([write_band(tmp_path / "a_vv.tif", speckle((2048, 2048)))], tmp_path / "s.zarr")
    )
    (tmp_path / "boxes.csv").write_text("scene,x_min,y_min,x_max,y_max\na,1,2,3,4\n")
    sz.import_boxes(store, tmp_path / "boxes.csv", name="drawn")
    split = sz.make_split(store, val_fraction=0.3)
    sz.make_split(store, val_fraction=0.2, fresh=True)
    said = summary(store)
    assert "samples/chips" in said
    assert "  boxes/drawn: 1 box in 1 class on 1 scene" in said
    assert "boxes/chips" not in said
    assert "  splits: v1, v2; cells of v2: " in said
    assert sum(split.counts.values()) == 64


def test_layers_are_counted_by_name(tmp_path):
    for i in range(2):
        scene = write_band(tmp_path / f"s{i}_vv.tif", speckle((300, 300), seed=i))
        labels = write_band(tmp_path / f"labels_{i}.tif", np.ones((300, 300), np.uint8))
        store = sz.ingest(sz.plan_ingest([scene], tmp_path / "s.zarr", layers={"labels": labels}))
    assert "  layers: labels of 2 scenes" in summary(store)


def test_patches_says_what_a_choice_delivers(tmp_path, monkeypatch, capsys):
    """Every option narrows the choice as its keyword does, of one store and of two; ``-o`` draws a batch."""
    for name in "ab":
        write_band(tmp_path / f"{name}_vv.tif", speckle((600, 600), seed=ord(name)))
    files = sorted(tmp_path.glob("*.tif"))
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", quantity="sigma0", representation="power"))
    sz.copy_store(store, tmp_path / "t.zarr")
    monkeypatch.chdir(tmp_path)
    square = [[15.0, 48.72], [15.02, 48.72], [15.02, 48.76], [15.0, 48.76]]
    Path("p.json").write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["sarzarr", "patches", *words])
        try:
            main()
        except SystemExit as stop:
            return stop.code or 0, *capsys.readouterr()
        return 0, *capsys.readouterr()

    def count(**options):
        return len(sz.PatchReader(store, **options).selection)

    metres = (500_000.0, 5_397_500.0, 502_500.0, 5_400_000.0)
    for line, options in {
        "": {},
        "--where row>0": {"where": "row>0"},
        "--bounds 15,48.7,15.02,48.76": {"bounds": (15, 48.7, 15.02, 48.76)},
        "--bounds 500000,5397500,502500,5400000 --bounds-crs EPSG:32633": {"bounds": (metres, "EPSG:32633")},
        "--polygon p.json": {"polygon": "p.json"},
        "--polygon p.json --within --patch-size 64": {
            "polygon": "p.json",
            "predicate": "within",
            "patch_size": 64,
        },
        "--min-valid 0 --min-unsaturated 0 --polarizations VV": {"min_valid": 0, "min_unsaturated": 0},
    }.items():
        code, said, _ = run("s.zarr", *line.split())
        assert code == 0
        assert f"s.zarr: {count(**options)} patches of" in said
        assert "mean and std of 720,000 pixels, valid ones of 2 whole arrays of 2 scenes" in said
    assert f"s.zarr, t.zarr: {2 * count()} patches of 256 x 256 pixels" in run("s.zarr", "t.zarr")[1]
    for line, says in {
        "--time 2026-01,": "scenes whose time is known for time=",
        "--bounds 1,2": "left, bottom, right, top",
        "--bounds-crs EPSG:32633": "--bounds-crs needs --bounds",
    }.items():
        code, _, said = run("s.zarr", *line.split())
        assert (code, says in said) == (2, True), said
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (sarzarr[plot])")
    assert "wrote q.png" in run("s.zarr", "-o", "q.png")[1]
    assert run("s.zarr", "-o", "q.nope")[0] == 2
