"""A store does not tell in which order it was made, and every tool sees at once what a command wrote."""

import json
from itertools import permutations

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from conftest import speckle, tree_hash, write_band
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr.ingestion.run import remove_scene
from sarzarr.store.store import create_store
from sarzarr.store.tables import read_table

KNOWN = {"quantity": "sigma0", "representation": "power"}


@pytest.fixture
def raw(tmp_path):
    """Two dates of two polarizations, two layers of them, and boxes on one."""
    for i, (date, pol) in enumerate((d, p) for d in ("a", "b") for p in ("vv", "vh")):
        place = from_origin(500_000 + 50_000 * (date == "b"), 5_400_000, 10, 10)
        pixels = speckle((300, 310), seed=i, mean=0.1 / (i + 1))
        write_band(tmp_path / f"{date}_{pol}.tif", pixels, transform=place)
    for i, name in enumerate(("mask", "dem")):
        write_band(tmp_path / f"{name}.tif", np.full((300, 310), i, np.uint8), nodata=9)
    (tmp_path / "boxes.csv").write_text("scene,x_min,y_min,x_max,y_max\na,10,10,20,20\n")
    return tmp_path


def ingest(raw, root, names, **options):
    return sz.ingest(sz.plan_ingest([raw / f"{name}.tif" for name in names], root, **KNOWN, **options))


def test_files_may_be_named_in_any_order(raw, tmp_path):
    hashes, layers = set(), {name: raw / f"{name}.tif" for name in ("mask", "dem")}
    for i, names in enumerate(permutations(("a_vv", "a_vh", "b_vv"))):
        given = dict(list(layers.items())[:: -1 if i % 2 else 1])
        hashes.add(tree_hash(ingest(raw, tmp_path / f"{i}.zarr", names, layers=given).root))
    assert len(hashes) == 1


def test_layers_may_come_in_any_order(raw, tmp_path):
    told = []
    for i, names in enumerate((("mask", "dem"), ("dem", "mask"))):
        for name in names:
            layers = {name: raw / f"{name}.tif"}
            store = ingest(raw, tmp_path / f"{i}.zarr", ("a_vv",), layers=layers)
        told.append(tree_hash(store.root))
    assert told[0] == told[1]


def test_a_scene_that_is_added_says_what_the_first_one_says(raw, tmp_path):
    """All but its clip, which is that of the group: decided when the group appeared."""
    store = ingest(raw, tmp_path / "s.zarr", ("a_vv", "a_vh"))
    clips = {k: tuple(v.clip) for k, v in store.bounds.items()}
    store = ingest(raw, store.root, ("b_vv", "b_vh"))
    assert {k: tuple(v.clip) for k, v in store.bounds.items()} == clips
    for name in ("vv", "vh"):
        one, other = (
            zarr.open_array(store.root / "scenes" / scene / name, mode="r").attrs.asdict()
            for scene in ("a", "b")
        )
        assert list(one) == list(other)
        for said in (one, other):
            assert (said["clip_vmin"], said["clip_vmax"]) == clips[f"{name}/sigma0"]
    at_once = ingest(raw, tmp_path / "at_once.zarr", ("a_vv", "a_vh", "b_vv", "b_vh"))
    fixed = {"method": "fixed", "vmin": -20.0, "vmax": 5.0}
    assert tree_hash(sz.set_clip(store, **fixed).root) == tree_hash(sz.set_clip(at_once, **fixed).root)


def check_documents(root):
    """Hold the consolidated metadata of a store's groups against the documents on the disk; return all their keys."""
    written = {
        path.parent.relative_to(root).as_posix(): json.loads(path.read_text())
        for path in root.rglob("zarr.json")
        if path.parent != root
    }
    own = {
        node: {k: v for k, v in said.items() if k != "consolidated_metadata"}
        for node, said in written.items()
    }
    for group in ("scenes", "histograms", "overviews"):
        for scene in (root / group).glob("*/"):
            node = f"{group}/{scene.name}"
            told = written[node]["consolidated_metadata"]["metadata"]
            below = {
                key.removeprefix(f"{node}/"): said for key, said in own.items() if key.startswith(f"{node}/")
            }
            assert told == below
    copies = {}
    for path in (root / "documents").rglob("*.json"):
        if path.name != "zarr.json":
            copies |= json.loads(path.read_text())
    assert copies == {node: own[node] for node in copies}
    of_scenes = {node for node in own if node.startswith(("scenes/", "histograms/", "overviews/"))}
    assert of_scenes <= set(copies)
    assert json.loads((root / "zarr.json").read_text())["consolidated_metadata"] == {}
    return set(written), set(copies)


def test_what_a_command_writes_is_in_the_tree_at_once(raw, tmp_path):
    root, chips = tmp_path / "s.zarr", tmp_path / "chips"
    chips.mkdir()
    for i in range(4):
        write_band(chips / f"{i}.tif", np.full((40, 50), i, np.uint8))

    def splits_of_samples():
        sz.SplitManager(root).create_initial_split("chips", 0.5)

    for command, group in (
        (lambda: ingest(raw, root, ("a_vv", "b_vv")), "scenes/b/vv_flags"),
        (lambda: sz.import_boxes(sz.open_store(root), raw / "boxes.csv"), "boxes/default"),
        (lambda: sz.index_patches(root, size=64, stride=64, name="small"), "patches/small"),
        (lambda: sz.make_split(sz.open_store(root), val_fraction=0.5, by="scene", seed=43), "splits/v1"),
        (lambda: ingest(raw, root, ("a_vh", "a_vv"), replace=True), "scenes/a/vh"),
        (lambda: sz.extend_split(sz.open_store(root)), "splits"),
        (lambda: sz.set_clip(sz.open_store(root), method="sigma"), "scenes/a/vv"),
        (lambda: ingest(raw, root, ("a_vv", "a_vh"), layers={"dem": raw / "dem.tif"}), "scenes/a/dem"),
        (lambda: sz.import_chips(chips, root), "samples/chips/image"),
        (splits_of_samples, "splits/samples/chips/v1"),
        (lambda: remove_scene(root, "b"), "scenes/a"),
        (lambda: sz.copy_store(root, tmp_path / "copy.zarr"), "samples/chips"),
    ):
        command()
        written, copied = check_documents(root)
        assert group in written
        assert group in copied or group.startswith(("scenes", "patches"))
    check_documents(tmp_path / "copy.zarr")
    with xr.open_datatree(root, engine="zarr") as tree:
        assert {"boxes", "samples", "scenes", "splits"} <= set(tree.children)
        assert tree["boxes/default"].sizes["box"] == 1


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", ["empty", "samples", "small"])
def test_no_array_has_length_0(raw, tmp_path, kind):
    """GDAL opens no group with one in it ("Invalid content for shape"); tables read as they were all the same."""
    root = tmp_path / "s.zarr"
    if kind == "empty":
        create_store(root)
    elif kind == "samples":
        write_band(tmp_path / "chips.tif", np.full((40, 50), 3, np.uint8))
        sz.import_chips(_folder_of(tmp_path / "chips.tif"), root)
    else:
        write_band(tmp_path / "tiny_vv.tif", speckle((100, 90)))
        ingest(tmp_path, root, ("tiny_vv",))
    for path in root.rglob("zarr.json"):
        document = json.loads(path.read_text())
        if document["node_type"] == "array":
            assert 0 not in document["shape"]
            assert 0 not in document["chunk_grid"]["configuration"]["chunk_shape"]
    if kind != "empty":
        rasterio.open(f'ZARR:"{root}"').close()
    store = sz.open_store(root)
    assert store.catalog["scene"].dims == ("array",)
    assert store.catalog["transform"].shape == (len(store.scenes), 6)
    assert store.catalog["height"].dtype == np.int64
    if kind == "small":
        table = store.patch_columns()
        assert (table.sizes["patch"], table["id"].dtype, table["row"].dtype) == (0, np.int64, np.int32)
    if kind == "samples":
        table = read_table(store.place, "boxes/chips")
        assert (table.sizes["box"], table["x_min"].dtype) == (0, np.float32)
        assert len(sz.open_samples(store, "chips").boxes) == 0


def _folder_of(picture):
    folder = picture.parent / "chips"
    folder.mkdir()
    picture.rename(folder / picture.name)
    return folder


def test_ids_are_numbers_that_torch_knows(raw, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
    store = ingest(raw, tmp_path / "s.zarr", ("a_vv", "a_vh"))
    batch = next(iter(sz.PatchReader(store, with_meta=True, patch_size=64, min_valid=0, min_unsaturated=0)))
    ids = torch.from_numpy(batch["id"])
    assert ids.dtype == torch.int64
    assert (ids >= 0).all()
    assert len(torch.unique(ids)) == len(ids) == int(torch.isin(ids, ids).sum())
