"""Opening a reader costs the same for any number of scenes: manifests are read when patches of their arrays are."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import speckle, write_band
from memory_place import MemoryPlace
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr.cli.output import summary
from sarzarr.errors import CorruptStoreError, StoreChangedError
from sarzarr.store import chunks

KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 256}
ANY = {"min_valid": 0, "min_unsaturated": 0, "shuffle": False}
SCENES = "abde"


def file_of(folder, name, seed):
    place = from_origin(500_000 + 20_000 * ord(name), 5_400_000, 10, 10)
    folder.mkdir(exist_ok=True)
    return write_band(folder / f"{name}_vv.tif", speckle((512, 256), seed=seed), tiles=128, transform=place)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of four scenes of two patches each."""
    folder = tmp_path_factory.mktemp("opening")
    files = [file_of(folder / "raw", name, i) for i, name in enumerate(SCENES)]
    return sz.ingest(sz.plan_ingest(files, folder / "s.zarr", **KNOWN)).root


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "s.zarr"))


@pytest.fixture
def few(monkeypatch):
    """Let readers read no more than one manifest when they are opened."""
    monkeypatch.setattr(chunks, "AT_ONCE", 1)


def manifests(place):
    return {key.split("/")[1] for key in place.asked if key.endswith("manifest.json")}


def test_a_manifest_is_read_when_a_patch_of_its_array_is(made, few):
    place = MemoryPlace.of(made)
    reader = sz.PatchReader(place, **ANY)
    assert manifests(place) == {"a"}
    reader.read([6])
    assert manifests(place) == {"a", "e"}
    reader.read([0, 7])
    assert manifests(place) == {"a", "e"}
    assert max(place.asked[key] for key in place.asked if "manifest" in key) == 1


@pytest.mark.parametrize(
    "options", [{}, {"flags": True}, {"crops": "random"}, {"patch_size": 100, "edge": "pad"}]
)
def test_batches_are_the_same_whenever_manifests_are_read(made, options, tmp_path, monkeypatch):
    stores = [Path(shutil.copytree(made, tmp_path / f"{n}.zarr")) for n in range(2)]
    found = []
    for most, store in zip((1, 100), stores, strict=True):
        monkeypatch.setattr(chunks, "AT_ONCE", most)
        batches = list(sz.PatchReader(store, batch_size=3, **{"seed": 1, **ANY, **options}))
        found.append(
            [np.concatenate(part) for part in zip(*batches, strict=True)] if options.get("flags") else batches
        )
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_of_layers_documents_are_read_and_manifests_when_a_patch_is(made, few, tmp_path):
    root, mask = Path(shutil.copytree(made, tmp_path / "s.zarr")), tmp_path / "mask"
    for i, name in enumerate(SCENES):
        place = from_origin(500_000 + 20_000 * ord(name), 5_400_000, 10, 10)
        mask.mkdir(exist_ok=True)
        write_band(mask / f"{name}.tif", np.full((512, 256), i, np.uint8), transform=place)
    sz.ingest(sz.plan_ingest(made.parent / "raw", root, layers={"mask": mask}, **KNOWN))
    place = MemoryPlace.of(root)
    sz.PatchReader(place, layers=["mask"], **ANY)
    own = {key.partition("/")[2] for key in place.asked if key.startswith("scenes/e/")}
    assert own == {"e/mask/zarr.json", "e/mask/manifest.json"}
    (root / "scenes/e/mask/c/0/0").unlink()
    reader = sz.PatchReader(root, layers=["mask"], **ANY)
    _, masks = reader.read(range(6))
    assert np.array_equal(masks[:, 0, 0, 0], [0, 0, 1, 1, 2, 2])
    with pytest.raises(CorruptStoreError, match="scenes/e/mask"):
        reader.read([6])
    manifest = root / "scenes/d/mask/manifest.json"
    manifest.write_text(manifest.read_text().replace('"sizes": "', '"sizes": "A'))
    reader = sz.PatchReader(root, layers=["mask"], **ANY)
    with pytest.raises(CorruptStoreError, match="scenes/d/mask"):
        reader.read([4])
    manifest.unlink()
    with pytest.raises(CorruptStoreError, match="a manifest was expected"):
        sz.PatchReader(root, layers=["mask"], **ANY)


def test_readers_that_are_joined_read_what_each_of_them_would(made, tmp_path, few):
    other = Path(shutil.copytree(made, tmp_path / "other.zarr"))
    joined = sz.PatchReader([made, other], **ANY)
    assert joined.recipe.images.source.table.unread.sum() == 6
    images = np.concatenate(list(joined))
    np.testing.assert_array_equal(images[:8], images[8:])
    assert not joined.recipe.images.source.table.unread.any()
    whole = sz.PatchReader(made, **ANY)
    assert np.array_equal(whole.shards, np.arange(8))
    np.testing.assert_array_equal(np.concatenate(list(whole)), images[:8])


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damage_of_a_scene_is_said_when_it_is_read_and_delivers_nothing_else(root, few, damage):
    manifest, shard = root / "scenes/e/vv/manifest.json", root / "scenes/e/vv/c/0/0"
    if damage == "flip":
        manifest.write_text(manifest.read_text().replace('"sizes": "', '"sizes": "A'))
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        manifest.unlink()
    reader = sz.PatchReader(root, **ANY)
    assert reader.read(range(6)).shape == (6, 1, 256, 256)
    with pytest.raises(CorruptStoreError, match="scenes/e/vv"):
        reader.read([6])


def test_of_a_store_of_few_scenes_damage_is_found_when_it_is_opened(root):
    (root / "scenes/e/vv/c/0/0").unlink()
    with pytest.raises(CorruptStoreError, match="scenes/e/vv"):
        sz.PatchReader(root, **ANY)


def test_a_scene_that_was_replaced_or_removed_before_it_is_read_has_changed(root, few, tmp_path):
    replaced, removed = (sz.PatchReader(root, **ANY) for _ in range(2))
    sz.ingest(sz.plan_ingest(file_of(tmp_path / "new", "e", 99), root, replace=True, **KNOWN))
    with pytest.raises(StoreChangedError, match=r"scenes/e/vv .*Open the store anew.*index_patches\("):
        replaced.read([6])
    sz.remove_scene(root, "e")
    with pytest.raises(StoreChangedError, match=r"scenes/e/vv .*Open the store anew"):
        removed.read([6])
    assert removed.read([0]).shape == (1, 1, 256, 256)


@pytest.mark.slow
def test_what_is_read_to_open_and_to_show_does_not_grow_with_the_scenes(tmp_path, monkeypatch):
    """Of tables, which are read whole, a scene adds its rows, less than a kilobyte."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    from growth_stores import grown

    monkeypatch.setattr(chunks, "AT_ONCE", 8)
    opened = []

    def told(event, args):
        if event == "open" and opened and str(args[0]).startswith(str(tmp_path)):
            opened.append(str(args[0]))

    sys.addaudithook(told)
    counts = {}
    for scenes in (10, 300):
        root = grown(tmp_path / f"{scenes}.zarr", scenes).root
        place = MemoryPlace.of(root)
        sz.PatchReader(place)
        read = sum(len(place.objects[key]) * times for key, times in place.asked.items())
        opened.append("begin")
        summary(sz.open_store(root))
        in_scenes = [path for path in opened if "/scenes/" in path]
        opened.clear()
        counts[scenes] = sum(place.asked.values()), read, len(in_scenes)
    (files, read, shown), (many_files, many_read, many_shown) = counts[10], counts[300]
    assert many_files <= files + 80  # chunks of rows of the tables
    assert many_read - read < 290 * 1000
    assert shown <= 2 * 10 + 12
    assert many_shown <= 2 * 200 + 12
    assert len(sz.open_tree(tmp_path / "300.zarr")) == 300
