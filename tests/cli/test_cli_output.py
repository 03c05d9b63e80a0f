"""What `info` says of a store: everything in it, and how much of it is read."""

import numpy as np
from chip_folders import chip_folder
from conftest import speckle, write_band

import sarzarr as sz
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
