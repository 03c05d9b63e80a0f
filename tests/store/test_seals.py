"""Seals: what is sarzarr's in a document is sealed, what is the user's is free, and what is meant is accepted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import speckle, tree_hash, write_band
from hypothesis import given
from hypothesis import strategies as st

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError
from sarzarr.export.copy_store import copy_store
from sarzarr.store.accept import accept
from sarzarr.store.documents import group_document, read_node, update_node, write_node
from sarzarr.store.place import Folder
from sarzarr.store.seals import sealed, unsealed
from sarzarr.store.tables import read_table, write_table

KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 512}
NODES = ["", "scenes/a", "scenes/a/vv", "scenes/a/vv_flags", "scenes/a/mask", "patches/default", "catalog"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seals")
    pixels = speckle((600, 530))
    write_band(folder / "a_vv.tif", pixels, tiles=128)
    write_band(folder / "mask.tif", (pixels > 0.05).astype("uint8"), tiles=128, nodata=255)
    plan = sz.plan_ingest(
        folder / "a_vv.tif", folder / "s.zarr", layers={"mask": folder / "mask.tif"}, **KNOWN
    )
    return sz.ingest(plan)


@pytest.fixture
def store(made, tmp_path):
    return sz.open_store(shutil.copytree(made.root, tmp_path / "s.zarr"))


def batches(store):
    return list(sz.PatchReader(store.root, layers=["mask"], flags=True, min_unsaturated=0))


def edited(root, node, change):
    path = Path(root, node, "zarr.json")
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


# ------------------------------------------------------------------ the law
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.text(st.characters(exclude_characters=" ", exclude_categories=["Cs"]), min_size=1).filter(
    lambda n: n != cv.SEAL
)


@given(st.dictionaries(names, json_values), st.dictionaries(names, json_values), st.data())
def test_a_seal_covers_its_own_attributes_and_the_key_and_nothing_else(own, free, data):
    free = {k: v for k, v in free.items() if k not in own}
    document = json.loads(json.dumps(sealed(group_document(own | free), "a/zarr.json", free)))
    assert unsealed(document, "a/zarr.json", "") == (group_document(own | free), frozenset(free))
    with pytest.raises(CorruptStoreError):
        unsealed(document, "b/zarr.json", "")
    more = {
        **document,
        "attributes": {**document["attributes"], **dict.fromkeys(free, "changed"), " mine": 1},
    }
    assert unsealed(more, "a/zarr.json", "")[1] == {*free, " mine"}
    if own:
        name = data.draw(st.sampled_from(sorted(own)))
        for other in (
            {k: v for k, v in document["attributes"].items() if k != name},
            {**document["attributes"], name: "?!"},
        ):
            with pytest.raises(CorruptStoreError):
                unsealed({**document, "attributes": other}, "a/zarr.json", "")
    with pytest.raises(CorruptStoreError):
        unsealed(group_document(own), "a/zarr.json", "")


# ------------------------------------------------------------------ the user's own
MINE = {"project": [1, None], "gain": 2.5}


@pytest.mark.compat
@pytest.mark.parametrize("node", NODES)
def test_attributes_of_the_users_own_are_free_and_stay(store, node, tmp_path):
    """zarr-python writes the whole document anew: what it spells otherwise is still what was sealed."""
    before = batches(store)
    opened = zarr.open_array if "data_type" in read_node(store.place, node) else zarr.open_group
    opened(store.root / node, mode="r+").attrs["mine"] = MINE
    for _ in range(2):
        after = batches(store)
        assert all(
            np.array_equal(x, y)
            for a, b in zip(before, after, strict=True)
            for x, y in zip(a, b, strict=True)
        )
        again = sz.set_clip(store.anew(), ["vv/sigma0"], method="fixed", vmin=-30, vmax=0)
        before = batches(again)
    if node not in ("patches/default", "catalog"):  # those are written anew as a whole
        assert opened(again.root / node, mode="r").attrs["mine"] == MINE
        opened(again.root / node, mode="r+").attrs["mine"] = 2
        batches(again)
        copy = copy_store(again, tmp_path / "copy.zarr", dtype="float32")
        if node != "scenes/a":
            opened(copy.root / node, mode="r+").attrs["mine"] = 3
        batches(copy)


@pytest.mark.parametrize("node", NODES)
def test_numbers_that_json_does_not_have_are_free_too(store, node):
    """Other programs write NaN and Infinity into attributes; zarr-python 3.1 refuses to."""
    before = batches(store)
    path = store.root / node / "zarr.json"
    document = json.loads(path.read_bytes())
    document["attributes"]["mine"] = {"gain": [float("inf"), float("nan")]}
    path.write_text(json.dumps(document))
    assert "Infinity" in path.read_text()
    after = batches(store.anew())
    assert all(
        np.array_equal(x, y) for a, b in zip(before, after, strict=True) for x, y in zip(a, b, strict=True)
    )
    batches(sz.set_clip(store.anew(), ["vv/sigma0"], method="fixed", vmin=-30, vmax=0))


def test_no_seal_is_handed_out(store):
    for data in (
        store.open_scene("a"),
        store.db("a"),
        store.power("a", "vv").to_dataset(name="vv"),
        store.patches(),
    ):
        for about in (data.attrs, *(v.attrs for v in data.variables.values())):
            assert not {cv.SEAL, cv.CHUNK_CRC} & about.keys()
    assert cv.SEAL not in store.attrs


# ------------------------------------------------------------------ sarzarr's
CHANGES = {
    "a clip": ("", lambda d: d["attributes"]["bounds"]["vv/sigma0"].update(clip_vmin=-38.0)),
    "a patch size": ("patches/default", lambda d: d["attributes"].update(size=128)),
    "a layer less": ("scenes/a", lambda d: d["attributes"].update(layers=[])),
    "a layer's nodata": ("scenes/a/mask", lambda d: d["attributes"].update(nodata=1)),
    "a shape": ("scenes/a/mask", lambda d: d.update(shape=[600, 500])),
    "no seal": ("patches/default", lambda d: d["attributes"].pop(cv.SEAL)),
    "another version": ("", lambda d: d["attributes"]["sarzarr"].update(version=1)),
    "no document": ("scenes/a", lambda d: d.clear()),
}  # fmt: skip


@pytest.mark.parametrize("change", list(CHANGES))
def test_what_is_changed_by_hand_is_named_with_the_remedy(store, change):
    path = edited(store.root, *CHANGES[change])
    with pytest.raises(CorruptStoreError, match=r"verify STORE --accept") as error:
        batches(store)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("change", ["a clip", "a layer less", "a layer's nodata"])
def test_what_is_meant_is_accepted(store, change):
    node, work = CHANGES[change]
    zarr.open_group(store.root, mode="r+").attrs["mine"] = 1
    edited(store.root, node, work)
    assert accept(store.place) == (f"{node}/zarr.json".lstrip("/"),)
    assert accept(store.place) == ()
    again = sz.open_store(store.root)
    list(sz.PatchReader(again, min_unsaturated=0))
    zarr.open_group(store.root, mode="r+").attrs["mine"] = 2
    sz.open_store(store.root)


def test_nothing_is_accepted_where_nothing_was_changed(store):
    before = tree_hash(store.root)
    assert accept(store.place) == ()
    assert tree_hash(store.root) == before


def test_a_column_that_is_written_by_another_program_is_named_until_it_is_accepted(store):
    column = zarr.open_group(store.root / "patches/default", mode="r+")["valid_fraction"]
    column[:] = np.linspace(0.5, 1, column.shape[0], dtype="f4")
    with pytest.raises(CorruptStoreError, match="valid_fraction"):
        store.anew().patches()
    assert accept(store.place) == ("patches/default/valid_fraction/zarr.json", "patches/default/zarr.json")
    np.testing.assert_array_equal(store.anew().patches()["valid_fraction"], column[:])


def test_damage_is_not_accepted(store):
    path = store.root / "patches/default/id/c/0"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptStoreError, match="patches/default/id"):
        accept(store.place)


def test_columns_of_two_states_of_a_table_are_no_table(tmp_path):
    place = Folder(tmp_path)
    for state in (1, 2):
        table = xr.Dataset({k: ("row", np.full(4, state, "i4")) for k in "ab"})
        write_table(place, "t", table)
        shutil.copytree(tmp_path / "t", tmp_path / f"t{state}")
    shutil.rmtree(tmp_path / "t/b")
    shutil.copytree(tmp_path / "t1/b", tmp_path / "t/b")  # an older one, intact, of the same key
    with pytest.raises(CorruptStoreError, match=r"t/b/zarr.json.*written with its table"):
        read_table(place, "t")


def test_a_document_of_a_part_is_bound_to_where_it_will_be(tmp_path):
    write_node(Folder(tmp_path / "staged", "scenes/a"), "vv", group_document({"x": 1}))
    (tmp_path / "scenes").mkdir()
    (tmp_path / "staged").rename(tmp_path / "scenes/a")
    update_node(Folder(tmp_path), "scenes/a/vv", {"y": 2}, without=["x"])
    assert read_node(Folder(tmp_path), "scenes/a/vv")["attributes"] == {"y": 2}
    (tmp_path / "scenes/a").rename(tmp_path / "scenes/b")
    with pytest.raises(CorruptStoreError, match=r"scenes/b/vv/zarr.json"):
        read_node(Folder(tmp_path), "scenes/b/vv")
