"""Readers beside a writer: each scene as it was or as it is, never another's pixels, or a word that it changed."""

import shutil
from collections import Counter
from threading import Thread

import numpy as np
import pytest
import zarr
from conftest import speckle, write_band
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr.errors import CorruptStoreError, StoreChangedError

KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 256}
SHAPE = (512, 512)
STATES = 3


def files_of(folder, state):
    """Write the rasters of scene ``b`` in a state: other pixels, of one shape."""
    place = from_origin(500_000, 5_400_000, 10, 10)
    return write_band(
        folder / str(state) / "b_vv.tif", speckle(SHAPE, seed=state), tiles=128, transform=place
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of three scenes, and ``b`` in other states beside it."""
    place = tmp_path_factory.mktemp("company")
    for i, name in enumerate("abd"):
        (place / "0").mkdir(exist_ok=True)
        at = from_origin(500_000 + 20_000 * (i - 1), 5_400_000, 10, 10)
        write_band(
            place / "0" / f"{name}_vv.tif",
            speckle(SHAPE, seed=10 * i * (name != "b")),
            tiles=128,
            transform=at,
        )
    for state in range(1, STATES):
        (place / str(state)).mkdir()
        files_of(place, state)
    for state in range(STATES):
        sz.ingest(
            sz.plan_ingest(sorted((place / str(state)).glob("*.tif")), place / f"{state}.zarr", **KNOWN)
        )
    return place


@pytest.fixture(scope="module")
def truth(folder):
    """The codes of each state of each scene."""
    stores = [sz.open_store(folder / f"{state}.zarr") for state in range(STATES)]
    return {
        scene: [
            zarr.open_array(s.root / "scenes" / scene / "vv", mode="r")[:]
            for s in stores
            if scene in s.scenes
        ]
        for scene in "abd"
    }


def opened(root):
    return sz.PatchReader(root, dtype="uint16", with_meta=True, min_valid=0, min_unsaturated=0, batch_size=2)


def states_of(reader, truth):
    """Return which states of each scene an epoch showed, with the patches of each."""
    seen = Counter()
    for batch in reader:
        for image, scene, row, col in zip(*(batch[k] for k in ("image", "scene", "row", "col")), strict=True):
            window = np.s_[row : row + 256, col : col + 256]
            fits = [i for i, codes in enumerate(truth[scene]) if np.array_equal(image[0], codes[window])]
            assert len(fits) == 1, f"pixels that {scene} never had, at {row}, {col}"
            seen[scene, fits[0]] += 1
    return seen


def is_whole(seen):
    """Whether scenes that nobody touches are there, and of the other, one state, all of it or nothing."""
    others = {key: count for key, count in seen.items() if key[0] == "b"}
    return (seen["a", 0], seen["d", 0]) == (4, 4) and list(others.values()) in ([], [4])


@pytest.mark.slow
def test_a_reader_beside_a_writer_shows_whole_scenes_or_says_that_the_store_changed(folder, truth, tmp_path):
    root = tmp_path / "s.zarr"
    shutil.copytree(folder / "0.zarr", root)
    errors = []

    def write():
        try:
            for turn in range(2 * STATES):
                sz.remove_scene(root, "b")
                sz.ingest(sz.plan_ingest(folder / str((turn + 1) % STATES) / "b_vv.tif", root, **KNOWN))
        except Exception as error:
            errors.append(error)

    writer, said, kept = Thread(target=write), Counter(), opened(root)
    before = states_of(kept, truth)
    writer.start()
    while writer.is_alive():
        try:
            kept = kept or opened(root)
            readers = kept, opened(root)
            assert all(is_whole(states_of(reader, truth)) for reader in readers)
            said["whole"] += 1
        except StoreChangedError:
            said["changed"] += 1
            kept = None
    writer.join()
    assert not errors
    assert is_whole(before)
    assert said["whole"] > 0
    assert is_whole(states_of(opened(root), truth))


def test_a_reader_that_is_open_says_that_a_scene_was_replaced(folder, truth, tmp_path):
    root = tmp_path / "s.zarr"
    shutil.copytree(folder / "0.zarr", root)
    reader, store = opened(root), sz.open_store(root)
    lazy = store.open_scene("b")
    sz.ingest(sz.plan_ingest(folder / "1" / "b_vv.tif", root, replace=True, **KNOWN))
    for read in (lambda: list(reader), lambda: lazy.vv.values):
        with pytest.raises(StoreChangedError, match=r"scenes/b/vv.*Open the store anew"):
            read()
    assert states_of(opened(root), truth)["b", 1] == 4


def test_an_index_of_other_pixels_is_not_read(folder, truth, tmp_path):
    """A writer that was stopped between a scene and its patches leaves this."""
    root = tmp_path / "s.zarr"
    shutil.copytree(folder / "0.zarr", root)
    shutil.copytree(root / "patches", tmp_path / "patches")
    sz.ingest(sz.plan_ingest(folder / "1" / "b_vv.tif", root, replace=True, **KNOWN))
    shutil.rmtree(root / "patches")
    shutil.copytree(tmp_path / "patches", root / "patches")
    with pytest.raises(StoreChangedError, match=r"b/vv .* sarzarr.index_patches\(") as error:
        opened(root)
    eval(str(error.value).split("Bring it up to date: ")[1].split(". If")[0], {"sarzarr": sz})
    assert states_of(opened(root), truth)["b", 1] == 4


def test_patches_of_a_scene_that_is_gone_are_left_out(folder, truth, tmp_path, caplog):
    root = tmp_path / "s.zarr"
    shutil.copytree(folder / "0.zarr", root)
    shutil.copytree(root / "patches", tmp_path / "patches")
    sz.remove_scene(root, "b")
    shutil.rmtree(root / "patches")
    shutil.copytree(tmp_path / "patches", root / "patches")
    with caplog.at_level("WARNING", "sarzarr"):
        assert states_of(opened(root), truth) == {("a", 0): 4, ("d", 0): 4}
    assert "does not: b, left out" in caplog.text
    shutil.rmtree(root / "scenes" / "a")
    with pytest.raises(CorruptStoreError, match="scenes/a/vv"):
        opened(root)
