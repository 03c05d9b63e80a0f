"""Clip bounds from the training ground alone: every pixel of it, and none of the others."""

import contextlib
import json

import numpy as np
import pytest
from conftest import speckle, write_band

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError, InvalidInputError
from sarzarr.patches.clips import recommend_clips, set_clip, split_histograms
from sarzarr.splits.make import make_split
from sarzarr.splits.versions import get_split


def levels_store(tmp_path, *, dtype="uint16", **options):
    """Return a store whose values tell where they are, with fill, zeros and ragged edges."""
    power = speckle((1100, 1370), seed=3) + np.linspace(0.01, 3, 1370, dtype=np.float32)
    power[:300, :500] = np.nan
    power[700:720, 900:960] = -1.0
    path = write_band(tmp_path / "levels_vv.tif", power, nodata=np.nan, tiles=256)
    options = sz.IngestOptions(dtype=dtype, quantity="sigma0", representation="power", **options)
    return sz.ingest(sz.plan_ingest([path], tmp_path / "levels.zarr", options=options))


def divide(store):
    """Split little ground with the first seed that gives both sides some."""
    for seed in range(50):
        with contextlib.suppress(InvalidInputError):
            return make_split(store, val_fraction=0.4, seed=seed, block="4km")
    raise AssertionError("no seed gave both sides ground")


def db_of(store, split, name="vv"):
    """Return the dB of the valid, positive pixels of one side, through xarray."""
    record = get_split(store)
    (scene,) = record.scenes
    side = np.kron(scene.codes == cv.Membership[split.upper()], np.ones((256, 256), bool))
    opened = store.open_scene(scene.scene)
    db = store.db(scene.scene, name).values
    lit = opened[f"{name}_flags"].values == 0
    return db[lit & side[: db.shape[0], : db.shape[1]]]


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("shard", [2048, 512, 0])
def test_a_clip_from_training_ground_counts_that_alone(tmp_path, dtype, shard):
    store = levels_store(tmp_path, dtype=dtype, shard=shard)
    divide(store)
    histograms = split_histograms(store, "train")
    db = db_of(store, "train")
    (key,) = histograms
    assert histograms[key].n_valid == db.size
    (entry,) = recommend_clips(store, set(store.bounds), split="train", low_pct=2, high_pct=98).values()
    want = np.percentile(db.astype(float), (2, 98))
    assert (entry.clip_vmin, entry.clip_vmax) == pytest.approx(want, abs=0.005)
    whole = next(iter(store.bounds.values()))
    assert (entry.vmin, entry.vmax) == (whole.vmin, whole.vmax)


def test_sides_add_up_to_the_whole(tmp_path):
    store = levels_store(tmp_path)
    divide(store)
    parts = [split_histograms(store, side) for side in ("train", "val", "held_back")]
    (key,) = parts[0]
    total = sum((p[key] for p in parts if key in p), start=sz.Histogram.empty())
    whole = store.histogram("levels", "vv")
    assert (total.n_valid, total.nonpositive, total.nodata) == (
        whole.n_valid,
        whole.nonpositive,
        whole.nodata,
    )
    assert total.percentile(50) == pytest.approx(whole.percentile(50), abs=0.003)


def test_a_clip_of_the_training_ground_is_written_and_said(tmp_path):
    store = levels_store(tmp_path)
    divide(store)
    before = store.preprocessing_params
    changed = set_clip(store, split="v1:train", low_pct=5, high_pct=95)
    assert changed.preprocessing_params != before
    (entry,) = changed.bounds.values()
    assert entry.clip_method.endswith("of v1:train")
    array = json.loads((store.root / "scenes" / "levels" / "vv" / "zarr.json").read_text())["attributes"]
    assert array["clip_vmin"] == entry.clip_vmin
    with pytest.raises(InvalidInputError, match="none"):
        recommend_clips(changed, set(changed.bounds), split="test")


def test_a_flipped_bit_on_training_ground_is_seen(tmp_path):
    store = levels_store(tmp_path)
    divide(store)
    shard = store.root / "scenes" / "levels" / "vv" / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    for at in range(1000, len(data) - 2000, 131_076):
        data[at] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(CorruptStoreError):
        split_histograms(store)


def test_a_classic_store_is_counted_in_its_own_decibels(tmp_path):
    store = levels_store(tmp_path, bounds="fixed", vmin=-15.0, vmax=2.0)
    divide(store)
    (histogram,) = split_histograms(store).values()
    db = db_of(store, "train")
    assert histogram.n_valid == db.size
    assert histogram.percentile(40) == pytest.approx(np.percentile(db.astype(float), 40), abs=0.005)
