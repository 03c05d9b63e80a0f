"""What is read and written when a scene enters a store does not depend on how many scenes are there."""

import os
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import speckle, write_band
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr.ingestion.run import remove_scene
from sarzarr.store.copies import consolidate
from sarzarr.store.documents import group_document, read_node, write_coordinates, write_node
from sarzarr.store.place import Folder

KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 256}
opened = Counter()


def _count(event, arguments):
    if event == "open" and opened is not None and isinstance(arguments[0], str | bytes | os.PathLike):
        opened[os.fsdecode(arguments[0])] += 1


sys.addaudithook(_count)


def scenes(folder, names, side=260):
    """Write a scene of one polarization for each name, apart on the ground."""
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        place = from_origin(500_000 + 10_000 * i, 5_400_000, 10, 10)
        write_band(folder / f"{name}_vv.tif", speckle((side, side), seed=i), transform=place)
    return folder


def enter(root, files):
    sz.ingest(sz.plan_ingest(files, root, scenes=True, **KNOWN))


@contextmanager
def counted():
    """Give a counter of bytes that this process reads and writes, and of the files of a store that it opens."""

    def bytes_so_far():
        told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(told["rchar"]), int(told["wchar"])

    out = Counter()
    opened.clear()
    before = bytes_so_far()
    yield out
    out["read"], out["written"] = (now - then for now, then in zip(bytes_so_far(), before, strict=True))
    out["opened"] = sum(n for path, n in opened.items() if ".zarr" in path)


def entering(tmp_path, sizes):
    """Return what it takes for a scene to enter stores of so many scenes."""
    told, new = [], scenes(tmp_path / "new", ["warm", "last"])
    for size in sizes:
        root = tmp_path / f"{size}.zarr"
        enter(root, scenes(tmp_path / str(size), [f"s{i:04}" for i in range(size)]))
        enter(root, new / "warm_vv.tif")
        with counted() as told_now:
            enter(root, new / "last_vv.tif")
        told.append(told_now)
        assert len((root / "zarr.json").read_bytes()) < 1000
        assert len(sz.open_store(root).scenes) == size + 2
    return told


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system does not count a process's bytes")
@pytest.mark.parametrize(
    "sizes", [(2, 8), pytest.param((10, 500), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_scene_enters_a_large_store_as_it_enters_a_small_one(tmp_path, sizes):
    few, many = entering(tmp_path, sizes)
    print(few, many)
    for what in ("read", "written", "opened"):
        assert many[what] == pytest.approx(few[what], rel=0.2), what


def scenes_opened():
    """Return the scenes of a store of which a file was opened since counting began, less those beside it."""
    parts = (Path(path).parts for path in opened)
    inside = (p[p.index("scenes") :] for p in parts if "scenes" in p and any(x.endswith(".zarr") for x in p))
    return {part[1].removesuffix(".json") for part in inside if len(part) > 1 and part[1] != "zarr.json"}


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """A folder of a store of four scenes, two of which have been given before the others."""
    folder = tmp_path_factory.mktemp("four")
    files = scenes(folder / "raw", ["a", "b", "d", "e"])
    enter(folder / "s.zarr", [files / "d_vv.tif", files / "e_vv.tif"])
    enter(folder / "s.zarr", files)
    return folder


def test_a_scene_that_leaves_or_is_replaced_has_no_other_opened(four, tmp_path):
    root = sz.copy_store(four / "s.zarr", tmp_path / "s.zarr").root
    with counted():
        remove_scene(root, "b")
    assert scenes_opened() <= {"b"}
    other = write_band(
        tmp_path / "d_vv.tif", speckle((260, 260), seed=9), transform=from_origin(900_000, 5_400_000, 10, 10)
    )
    plan = sz.plan_ingest(other, root, scenes=True, replace=True, **KNOWN)
    with counted():
        sz.ingest(plan)
    assert scenes_opened() == {"d"}
    before = sz.open_store(root).patches()
    assert before.equals(sz.index_patches(root))  # of which every manifest is read
    assert not sz.verify(root).findings


def test_a_clip_that_stays_has_no_scene_opened(four):
    sz.set_clip(four / "s.zarr", method="percentile")
    with counted():
        sz.set_clip(four / "s.zarr", method="percentile")
    assert scenes_opened() == set()
    with counted():
        sz.set_clip(four / "s.zarr", method="fixed", vmin=-20.0, vmax=5.0)
    assert scenes_opened() == {"a", "b", "d", "e"}


# ------------------------------------------------------------------ what plain readers walk through
def as_it_was(root):
    """Make a store as they were: coordinates by zstd, histograms in a group, with an attribute that is the user's."""
    store = sz.open_store(root)
    for scene in store.scenes:
        write_coordinates(Folder(root / "scenes" / scene, f"scenes/{scene}"), store.grid(scene), "zstd")
    write_node(store.place, "histograms", group_document({"mine": 1}), {"mine"})
    consolidate(store, {})
    return root


def test_a_tree_has_a_group_for_each_scene_and_none_for_its_histograms(four):
    root = four / "s.zarr"
    with xr.open_datatree(root, engine="zarr") as tree:
        assert {node.path for node in tree.subtree if node.path.count("/") == 2} >= {"/scenes/a", "/scenes/e"}
        assert "histograms" not in tree.children
    with xr.open_dataset(root, group="histograms/a", engine="zarr") as counts:
        assert np.array_equal(counts["vv"], sz.open_store(root).histogram("a", "vv").counts)


def test_a_store_with_a_group_of_histograms_is_as_good(four, tmp_path):
    root = as_it_was(sz.copy_store(four / "s.zarr", tmp_path / "s.zarr").root)
    assert not sz.verify(root).findings
    with xr.open_datatree(root, engine="zarr") as tree:
        assert set(tree["histograms"].children) == {"a", "b", "d", "e"}
    batches = list(sz.PatchReader(root))
    assert np.array_equal(batches, list(sz.PatchReader(four / "s.zarr")))
    damaged = [root / "histograms/zarr.json", root / "scenes/d/x/c/0"]
    held = [path.read_bytes() for path in damaged]
    for path in damaged:
        path.unlink()
    assert not sz.repair(root).findings
    assert [path.read_bytes() for path in damaged] == held
    new = sz.copy_store(root, tmp_path / "new.zarr").root
    enter(root, scenes(tmp_path / "more", ["f"]))
    for store in (root, new):
        about = read_node(Folder(store), "histograms")
        assert (about["node_type"], about["attributes"]) == ("array", {"mine": 1})
        assert not sz.verify(store).findings
    assert sz.open_store(root).scenes == ("a", "b", "d", "e", "f")
