"""The seam for storage: whatever is read of a store in a folder is read, byte for byte, of one in any other place."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from chip_folders import chip_folder
from conftest import write_band
from loader_stores import make_store
from memory_place import MemoryPlace

import sarzarr as sz
from sarzarr.errors import CorruptStoreError, InvalidInputError, StoreNotFoundError
from sarzarr.splits.versions import get_split
from sarzarr.store.place import Folder
from sarzarr.store.tables import read_table, write_table


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Return a store with scenes, a layer, boxes, a split and samples: in a folder, and in memory."""
    folder = tmp_path_factory.mktemp("place")
    mask = np.add.outer(np.arange(1100), np.arange(1300)) % 7
    (folder / "masks").mkdir()
    write_band(folder / "masks" / "a.tif", mask.astype(np.uint8), tiles=128)
    write_band(folder / "masks" / "b.tif", mask[:600, :800].astype(np.uint8), tiles=128, crs="EPSG:32634")
    store = make_store(folder, layers={"mask": folder / "masks"}, codec="zstd")
    (folder / "boxes.csv").write_text("scene,x_min,y_min,x_max,y_max\na,300,300,420,390\nb,10,20,60,80\n")
    sz.import_boxes(store, folder / "boxes.csv")
    sz.make_split(store, val_fraction=0.5, by="scene", seed=2)
    chip_folder(folder / "chips")
    sz.import_chips(folder / "chips", store)
    sz.SplitManager(store).create_initial_split("chips")
    sz.PatchReader(store, patch_size=192, stride=100)  # its index is made and kept
    memory = sz.open_store(MemoryPlace.of(store.root))
    return sz.open_store(store.root), memory


def leaves(batch):
    """Return the arrays of a batch, whatever it is made of."""
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        return [leaf for part in batch for leaf in leaves(part)]
    return [np.asarray(batch)]


def alike(ours, theirs):
    """Hold one pass of two readers against each other; return the batches."""
    batches = 0
    for a, b in zip(ours, theirs, strict=True):
        batches += 1
        for left, right in zip(leaves(a), leaves(b), strict=True):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
    return batches


@pytest.mark.compat
@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": True, "augment": "d4", "seed": 3},
        {"flags": True, "layers": ["mask"], "with_meta": True, "polarizations": ["vv"]},
        {"boxes": True, "split": "train"},
        {"patch_size": 192, "stride": 100, "min_valid": 0, "min_unsaturated": 0},
        {"dtype": "uint16", "shuffle": "window"},
    ],
    ids=lambda options: "-".join(options),
)
def test_a_reader_delivers_of_memory_what_it_delivers_of_a_folder(stores, options):
    readers = [sz.PatchReader(store, batch_size=5, **options) for store in stores]
    for _ in range(2):  # epochs
        assert alike(*readers) > 1
    resumed = pickle.loads(pickle.dumps(readers[1]))
    assert alike(readers[0], resumed) > 1


def test_samples_are_read_of_memory_too(stores):
    options = {"flags": True, "boxes": True, "shuffle": True, "split": "train"}
    assert alike(*(sz.SampleReader(store, "chips", batch_size=3, **options) for store in stores)) > 0
    sets = [sz.open_samples(store, "chips") for store in stores]
    for i in range(len(sets[0])):
        np.testing.assert_array_equal(*(s.image(i) for s in sets))


@pytest.mark.compat
def test_every_table_and_every_scene_is_the_same(stores):
    folder, memory = stores
    assert memory.catalog.identical(folder.catalog)
    assert memory.patches(split="val", where="mean_db > -30").identical(
        folder.patches(split="val", where="mean_db > -30")
    )
    assert memory.patch_indices == folder.patch_indices
    for scene in folder.scenes:
        assert memory.db(scene).compute().identical(folder.db(scene).compute())
        assert memory.layers(scene) == folder.layers(scene)
    assert memory.bounds == folder.bounds
    assert get_split(memory).fingerprint == get_split(folder).fingerprint
    assert "memory.zarr" in repr(memory)


def test_a_trip_reads_each_document_once(stores):
    place = MemoryPlace(stores[1].place.objects)
    store = sz.open_store(place)
    first = place.asked["zarr.json"]
    reader = sz.PatchReader(store, split="train", flags=True)
    sz.PatchReader(store, split="val")
    next(iter(reader))
    assert (first, place.asked["zarr.json"]) == (1, 1)
    columns = {key: n for key, n in place.asked.items() if re.match(r"catalog/\w+/c/", key)}
    assert set(columns.values()) == {1}


def test_damage_is_named_by_its_key(stores):
    objects = dict(stores[1].place.objects)
    key = "scenes/a/vv/c/0/0"
    objects[key] = objects[key][:99] + bytes([objects[key][99] ^ 1]) + objects[key][100:]
    reader = sz.PatchReader(MemoryPlace(objects), min_valid=0, min_unsaturated=0)
    with pytest.raises(CorruptStoreError, match=rf"scene 'a', array 'vv', .*memory://memory.zarr/{key}"):
        list(reader)
    del objects[key]
    with pytest.raises(CorruptStoreError, match=f"no file memory://memory.zarr/{key}"):
        sz.PatchReader(MemoryPlace(objects))


def test_what_needs_a_folder_says_so(stores):
    with pytest.raises(InvalidInputError, match="a store in a folder was expected, got one in memory:"):
        _ = stores[1].root
    with pytest.raises(StoreNotFoundError, match="nothing there"):
        sz.open_store(MemoryPlace({}))


def test_a_folder_keeps_the_protocol(tmp_path):
    place = Folder(tmp_path)
    place.put("a/b", b"12345")
    assert place.get("a/b") == b"12345"
    assert place.get_ranges("a/b", [(1, 2), (3, 9), (9, 1)]) == [b"23", b"45", b""]
    assert place.head("a/b").size == 5
    assert (place.head("a/c"), place.head("a/b/c")) == (None, None)
    stamp = place.head("a/b")
    place.put("a/b", b"54321")
    assert place.head("a/b") != stamp
    assert (place.children(), place.children("a"), place.children("none")) == (["a/"], ["b"], [])
    for ask in (place.get, place.descriptor, lambda key: place.get_ranges(key, [(0, 1)])):
        with pytest.raises(FileNotFoundError):
            ask("a/c")
    with place.whole("t") as new:
        Path(new, "x").write_bytes(b"x")
        assert place.children("t") == []
    assert place.children("t") == ["x"]
    place.delete("t")
    assert place.children() == ["a/"]
    assert pickle.loads(pickle.dumps(place)).get("a/b") == b"54321"


def test_a_table_that_is_read_from_a_place_is_the_one_that_was_written(stores, tmp_path):
    table = stores[0].catalog
    write_table(Folder(tmp_path), "catalog", table)
    assert read_table(MemoryPlace.of(tmp_path), "catalog").identical(table)
