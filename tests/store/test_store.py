"""A store says what is wrong with it, and its tables see every flipped bit."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import speckle, write_band

import sarzarr as sz
from sarzarr.errors import (
    CorruptStoreError,
    InvalidInputError,
    MixedBoundsError,
    NotInStoreError,
    StoreNotFoundError,
    StoreSchemaError,
)
from sarzarr.store.catalog import catalog_of, catalog_rows
from sarzarr.store.documents import update_node
from sarzarr.store.place import Folder
from sarzarr.store.tables import read_table, write_table


@pytest.fixture
def store(tmp_path):
    write_band(tmp_path / "a_vv.tif", speckle((300, 300)))
    write_band(tmp_path / "b_vh.tif", speckle((300, 300), seed=1, mean=0.3))
    files = sorted(tmp_path.glob("*.tif"))
    return sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", quantity="sigma0", representation="power"))


def test_what_is_no_store_says_so(tmp_path, store):
    with pytest.raises(StoreNotFoundError, match="got nothing there"):
        sz.open_store(tmp_path / "nowhere.zarr")
    for other, got in ((tmp_path, "another folder"), (tmp_path / "a_vv.tif", "a file")):
        with pytest.raises(StoreNotFoundError, match=f"got {got}"):
            sz.open_store(other)
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(StoreNotFoundError, match="another Zarr hierarchy"):
        sz.open_store(tmp_path / "other.zarr")
    with pytest.raises(StoreNotFoundError, match="local directory"):
        sz.open_store("s3://bucket/s.zarr")
    update_node(store.place, "", {"sarzarr": {"version": 99}})
    with pytest.raises(StoreSchemaError, match=r"got 99.*Upgrade"):
        sz.open_store(store.root)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    plan = sz.plan_ingest(tmp_path / "a_vv.tif", tmp_path / "full", quantity="sigma0", representation="power")
    with pytest.raises(InvalidInputError, match="other files"):
        sz.ingest(plan)


def test_unknown_scenes_and_arrays_name_those_there_are(store):
    with pytest.raises(NotInStoreError, match=r"2 \(a, b\), got 'c'"):
        store.db("c")
    with pytest.raises(KeyError, match="must be one of vv"):
        store.db("a", "vh")


@pytest.mark.parametrize("damage", [os.unlink, lambda path: os.truncate(path, 100)], ids=["gone", "cut"])
@pytest.mark.parametrize("array", ["vv", "vv_flags"])
def test_what_reads_through_zarr_sees_a_file_that_is_gone(tmp_path, array, damage):
    """To zarr-python it is all fill value: pixels that are valid, at the stored floor."""
    for name in ("a", "b"):
        raw = speckle((300, 300))
        raw[:40, :40] = np.nan
        write_band(tmp_path / f"{name}_vv.tif", raw)
    files = sorted(tmp_path.glob("*.tif"))
    plan = sz.plan_ingest(files, tmp_path / "s.zarr", quantity="sigma0", representation="power")
    store = sz.ingest(plan)
    damage(store.root / "scenes/a" / array / "c/0/0")
    for read in (
        lambda: store.db("a"),
        lambda: store.power("a", "vv"),
        lambda: store.open_scene("a"),
        lambda: sz.index_patches(store, size=64, stride=64, name="small"),
        lambda: sz.PatchReader(store, flags=True),
    ):
        with pytest.raises(CorruptStoreError, match=f"scenes/a/{array}/c/0/0.*sarzarr remove"):
            read()
    store.db("b")


def test_a_scene_smaller_than_a_patch_gives_none_and_says_so(tmp_path):
    write_band(tmp_path / "a_vv.tif", speckle((200, 300)))
    plan = sz.plan_ingest(
        tmp_path / "a_vv.tif", tmp_path / "s.zarr", quantity="sigma0", representation="power"
    )
    with pytest.raises(
        InvalidInputError, match=r"0 in index 'default'.*smaller than 256 pixels: pass patch_size="
    ):
        sz.PatchReader(sz.ingest(plan))


def test_params_of_groups_that_differ_are_refused(store):
    with pytest.raises(MixedBoundsError, match=r"2 .*vh/sigma0"):
        _ = store.preprocessing_params


@pytest.mark.compat
def test_db_and_power_are_one_scene_in_two_forms(store):
    db, power = store.db("a"), store.power("a")
    assert list(db.data_vars) == ["vv_db"]
    assert db.vv_db.attrs["units"] == "dB"
    assert db.vv_db.dtype == power.vv.dtype == np.float32
    np.testing.assert_allclose(sz.to_db(power.vv).values, db.vv_db.values, atol=2e-5)
    assert db.vv_db.chunks == ((300,), (300,))


@pytest.mark.compat
def test_tables_round_trip_and_open_with_plain_xarray(tmp_path, store):
    rows = catalog_rows(store.catalog)
    xr.testing.assert_identical(catalog_of(rows), store.catalog.drop_attrs())
    opened = xr.open_zarr(store.root, group="catalog", consolidated=False)
    assert opened["scene"].values.tolist() == ["a", "b"]
    empty = xr.Dataset({"n": ("row", np.empty(0, np.int32)), "s": ("row", np.empty(0, object))})
    write_table(Folder(tmp_path), "t", empty)
    assert read_table(Folder(tmp_path), "t").sizes == {"row": 0}
    text = xr.Dataset({"s": ("row", np.array(["", "é", "x" * 1000], dtype=object))})
    write_table(Folder(tmp_path), "t", text)
    assert read_table(Folder(tmp_path), "t")["s"].values.tolist() == ["", "é", "x" * 1000]


def test_every_flipped_bit_of_a_table_is_seen(tmp_path):
    write_table(Folder(tmp_path), "t", xr.Dataset({"n": ("row", np.arange(50))}))
    chunk = tmp_path / "t" / "n" / "c" / "0"
    whole = chunk.read_bytes()
    for at in range(len(whole)):
        chunk.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(CorruptStoreError):
            read_table(Folder(tmp_path), "t")


def test_a_copied_store_is_the_store(store, tmp_path):
    shutil.copytree(store.root, tmp_path / "copy.zarr")
    shutil.rmtree(store.root)
    copy = sz.open_store(tmp_path / "copy.zarr")
    assert copy.db("a").vv_db.notnull().all()
    assert copy.patches().sizes["patch"] == 2


RACE = """
import sys
import sarzarr as sz
from sarzarr.store.commit import changing

store = sz.open_store(sys.argv[1])
print("begun", flush=True)
for number in range(60):
    with changing(store) as draft:
        draft.place.put("other.json", str(number).encode())
"""


@pytest.mark.slow
def test_changes_of_the_root_do_not_undo_each_other(store):
    """Two processes change one document: what one writes, the other has read."""
    with subprocess.Popen([sys.executable, "-c", RACE, str(store.root)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"begun\n"
        low = -20.0
        while other.poll() is None or low > -25:
            low -= 1.0
            sz.set_clip(store, ["vv/sigma0"], method="fixed", vmin=low, vmax=5.0)
            assert sz.open_store(store.root).bounds["vv/sigma0"].clip_vmin == low
    assert other.returncode == 0


def test_stamp_of_a_document_changes_though_its_number_is_given_again(store):
    """A table read between two swaps looks whether it was replaced: file systems give a freed number to the next."""
    both = [read_table(store.place, "catalog"), catalog_of(())]
    stamps = []
    for _ in range(10):
        for table in both:
            write_table(store.place, "catalog", table)
        stamps.append(store.place.head("catalog/zarr.json").stamp)
    assert len(set(stamps)) == len(stamps)


SWAPS = """
import sys
import time
from pathlib import Path
from sarzarr.store.catalog import catalog_of
from sarzarr.store.place import Folder
from sarzarr.store.tables import read_table, write_table

place = Folder(Path(sys.argv[1]))
both = [read_table(place, "catalog"), catalog_of(())]
print("begun", flush=True)
while True:
    for table in both:
        write_table(place, "catalog", table)
        time.sleep(0.01)
"""


@pytest.mark.slow
def test_a_table_is_there_whole_while_it_is_replaced_and_when_that_is_killed(store):
    rows = read_table(store.place, "catalog").sizes["array"]
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", SWAPS, str(store.root)], stdout=subprocess.PIPE
        ) as other:
            try:
                assert other.stdout.readline() == b"begun\n"
                seen = {read_table(store.place, "catalog").sizes["array"] for _ in range(60)}
            finally:
                other.kill()
        assert seen <= {0, rows}
        assert read_table(store.place, "catalog").sizes["array"] in (0, rows)
        write_table(store.place, "catalog", catalog_of(catalog_rows(store.catalog)))
