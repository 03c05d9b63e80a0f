"""A layer that comes later is the one that came at once: pixels, rows and files, in any order and interrupted."""

from contextlib import suppress

import numpy as np
import pytest
import rasterio
from conftest import tree_hash
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from tiffs import speckle, write

import sarzarr as sz
from sarzarr.errors import CorruptStoreError, UnsupportedRasterError
from sarzarr.ingestion.collections import pack

LAYERS = ("dem", "mask", "optical")
SIZES = [(12, 12)] * 5 + [(9, 14)] * 2
"""Of chips 0 to 6: two parts, of 3 shards and one."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(pack, "LEAST_IN_SHARD", 2)


def place(i):
    return {"transform": from_origin(500000 + 500 * i, 5000000, 10, 10)}


def make(folder, *, count=None, without=(), seed=0):
    """Write chips, and of each layer the files of those that are not in ``without``: (layer, chip)."""
    for i, size in enumerate(SIZES[:count]):
        db = 10 * np.log10(speckle((2, *size), seed=i))
        write(folder / "s1" / f"chip_{i}_S1.tif", db.astype("f4"), names=("VV", "VH"), **place(i))
        rng = np.random.default_rng((seed, i))
        pixels = {
            "dem": rng.normal(300, 9, size).astype("f4"),
            "mask": rng.integers(-1, 2, size).astype("i2"),
            "optical": rng.integers(0, 3000, (2, *size)).astype("u2"),
        }
        for layer in LAYERS:
            if (layer, i) not in without:
                options = place(i) | ({"nodata": -1} if layer == "mask" else {})
                write(folder / layer / f"chip_{i}_{layer}.tif", pixels[layer], **options)
    return folder


def patterns(names):
    return [f"{name}=*_{name}.tif" for name in names]


def ingested(given, store, names, **options):
    return sz.ingest(sz.plan_ingest(given, store, collection="x", layers=patterns(names), **options))


def row_of(made, chip, *, files=True):
    """Return all that the row of a chip says, but for where it is."""
    table, at = made.table, made.number(chip)
    bits = int(table["layers"].values[at])
    row = {str(name): table[name].values[at] for name in table.data_vars}
    row = {name: v.tobytes().hex() if getattr(v, "ndim", 0) else v for name, v in row.items()}
    row["layers"] = sorted(layer for i, layer in enumerate(made.layers) if bits >> i & 1)
    row["time"] = str(row["time"])
    left_out = {"part", "row", "facts", "crs"} | (set() if files else {"source", "modified", "modified_mask"})
    return {name: value for name, value in row.items() if name not in left_out and value != -1}


def hold_equal(one, other, *, files=True):
    """Hold two collections against one another, chip by chip."""
    one, other = sz.open_collection(one, "x"), sz.open_collection(other, "x")
    assert sorted(one.ids) == sorted(other.ids)
    assert sorted(one.contents.stored) == sorted(other.contents.stored)
    assert sz.verify(one.store)
    for chip in one.ids:
        rows = [row_of(made, chip, files=files) for made in (one, other)]
        assert {k: (v, rows[1].get(k)) for k, v in rows[0].items() if v != rows[1].get(k)} == {}
        assert rows[0].keys() == rows[1].keys()
        for array in one.contents.stored:
            np.testing.assert_array_equal(one.stored(chip, array), other.stored(chip, array))
    return one, other


@pytest.mark.slow
@settings(max_examples=2)
@given(data=st.data())
def test_layers_in_any_order_and_interrupted_are_those_that_came_at_once(data, tmp_path_factory):
    base = tmp_path_factory.mktemp("later")
    gaps = st.sets(st.tuples(st.sampled_from(LAYERS), st.integers(0, len(SIZES) - 1)), max_size=6)
    folder = make(base / "a", without=data.draw(gaps))
    once = ingested(folder, base / "once.zarr", LAYERS)
    order = data.draw(st.permutations(LAYERS))
    cut = data.draw(st.integers(0, 2))
    for names in (order[:cut], order[cut:]):
        plan = sz.plan_ingest(folder, base / "s.zarr", collection="x", layers=patterns(names))
        if data.draw(st.booleans()):

            def stop(progress):
                raise KeyboardInterrupt

            with suppress(KeyboardInterrupt):
                sz.ingest(plan, progress=stop)
        sz.ingest(sz.plan_ingest(folder, base / "s.zarr", collection="x", layers=patterns(names)))
    later, whole = hold_equal(base / "s.zarr", once)
    for part in whole.contents.parts:
        for array in whole.contents.stored:
            shards = f"{whole.key}/{part.name}/{array}/c"
            have = [(store.root / shards).exists() for store in (later.store, whole.store)]
            assert have[0] == have[1]
            if have[0]:
                assert tree_hash(later.store.root / shards) == tree_hash(whole.store.root / shards)
    before = tree_hash(later.store.root)
    plan = sz.plan_ingest(folder, later.store.root, collection="x", layers=patterns(LAYERS))
    assert (len(plan.collections[0].later), plan.collections[0].present) == (0, len(SIZES))
    sz.ingest(plan)
    assert tree_hash(later.store.root) == before


def test_labels_alone_go_to_the_chips_that_are_there_and_backscatter_is_not_written(tmp_path):
    folder = make(tmp_path / "a")
    once = ingested(folder, tmp_path / "once.zarr", ["mask"])
    store = ingested([*(folder / "s1").glob("*.tif")], tmp_path / "s.zarr", [])
    parts = [store.root / "collections/x" / size for size in ("12x12", "9x14")]
    files = [
        file for part in parts for array in ("vv", "vh_flags") for file in part.rglob(f"{array}/c/*/0/0")
    ]
    before = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}
    assert before
    labels = folder / "mask"
    plan = sz.plan_ingest(labels, store.root, collection="x", layers={"mask": "_mask"})
    assert "layer mask: int16 classes, nodata -1, of 7 chips that are there: mask/chip_*_mask.tif" in str(
        plan
    )
    assert (plan.tasks, plan.bytes_out) == (4, 2 * (5 * 12 * 12 + 2 * 9 * 14))
    made = sz.ingest(plan)
    assert {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files} == before
    hold_equal(made, once, files=False)
    (batch,) = sz.CollectionReader(made, "x", layers=["mask"], batch_size=9, size=12)
    assert len(batch[1]) == 5
    plan = sz.plan_ingest([], store.root, collection="x", layers={"mask": str(labels)})
    assert (len(plan.collections[0].later), plan.collections[0].present) == (0, 7)


@pytest.mark.slow
def test_chips_and_labels_of_older_ones_come_together(tmp_path):
    folder = make(tmp_path / "a", count=3)
    ingested(folder, tmp_path / "s.zarr", [])
    make(folder)
    store = ingested(folder, tmp_path / "s.zarr", ["mask"])
    hold_equal(store, ingested(folder, tmp_path / "once.zarr", ["mask"]), files=False)


@pytest.mark.slow
def test_a_layer_of_other_pixels_is_refused_unless_it_is_to_be_replaced(tmp_path):
    folder = make(tmp_path / "a")
    ingested(folder, tmp_path / "s.zarr", ["mask"])
    make(folder, seed=5, without={("mask", i) for i in range(1, 7)})
    before = tree_hash(tmp_path / "s.zarr")
    plan = sz.plan_ingest(folder, tmp_path / "s.zarr", collection="x", layers=patterns(["mask"]))
    assert [file.name for refusal in plan.refused for file in refusal.files] == ["chip_0_mask.tif"]
    assert "--replace" in plan.refused[0].reason
    sz.ingest(plan)
    assert tree_hash(tmp_path / "s.zarr") == before
    ingested(folder, tmp_path / "s.zarr", ["mask"], replace=True)
    hold_equal(tmp_path / "s.zarr", ingested(folder, tmp_path / "once.zarr", ["mask"]), files=False)


@pytest.mark.slow
def test_one_bad_label_is_reported_and_the_others_come(tmp_path):
    folder = make(tmp_path / "a", without={("mask", 3)})
    ingested(folder, tmp_path / "s.zarr", [])
    write(folder / "mask" / "chip_3_mask.tif", np.zeros((12, 12), "i2"), nodata=-1, **place(9))
    plan = sz.plan_ingest(folder / "mask", tmp_path / "s.zarr", collection="x", layers=patterns(["mask"]))
    made = sz.open_collection(sz.ingest(plan), "x")
    assert [refusal.scene for refusal in plan.refused] == ["chip_3_S1"]
    assert "in the place of its chip" in plan.refused[0].reason
    assert (made.table["layers"].values == 1).tolist() == [i != 3 for i in range(7)]
    assert sz.verify(made.store)


@pytest.mark.slow
def test_chips_are_known_where_the_folder_above_or_below_is_given(tmp_path):
    folder = make(tmp_path / "a")
    ingested(folder / "s1", tmp_path / "s.zarr", [])
    plan = sz.plan_ingest(folder, tmp_path / "s.zarr", collection="x", layers=patterns(["mask"]))
    assert [len(some) for some in (plan.collections[0].chips, plan.collections[0].later)] == [0, 7]
    sz.ingest(plan)
    for root in (folder, folder / "s1", tmp_path):
        plan = sz.plan_ingest(root, tmp_path / "s.zarr", collection="x")
        assert (len(plan.collections[0].chips), plan.collections[0].present) == (0, 7)


def test_labels_without_a_collection_to_go_to_are_refused(tmp_path):
    folder = make(tmp_path / "a")
    with pytest.raises(UnsupportedRasterError, match="chips of backscatter were expected"):
        ingested(folder / "mask", tmp_path / "s.zarr", ["mask"])


@pytest.mark.slow
def test_a_chip_whose_pixels_are_damaged_gets_no_new_hash(tmp_path):
    folder = make(tmp_path / "a")
    ingested(folder, tmp_path / "s.zarr", [])
    shard = tmp_path / "s.zarr/collections/x/12x12/vv/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[50] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CorruptStoreError, match="chip_0_S1"):
        ingested(folder, tmp_path / "s.zarr", ["mask"])


@pytest.mark.slow
def test_a_second_mask_of_the_same_pixels_from_another_folder_is_there_already(tmp_path):
    folder = make(tmp_path / "a")
    ingested(folder, tmp_path / "s.zarr", ["mask"])
    copies = tmp_path / "b" / "again"
    for file in (folder / "mask").iterdir():
        with rasterio.open(file) as mask:
            write(copies / file.name, mask.read(1), nodata=-1, transform=mask.transform)
    plan = sz.plan_ingest(copies, tmp_path / "s.zarr", collection="x", layers=patterns(["mask"]))
    assert (len(plan.collections[0].later), plan.collections[0].present) == (0, 7)
    assert not plan.refused
