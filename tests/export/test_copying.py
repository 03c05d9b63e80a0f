"""A copy holds what ingest would have written so; what is damaged is never copied; there is a whole copy or none."""

import json
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import NO_PORT, speckle, tree_hash, write_band
from dask.callbacks import Callback
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError, InvalidInputError, StoreExistsError
from sarzarr.export.copy_store import copy_store
from sarzarr.export.recode import CopyJob, copy_shards
from sarzarr.splits.make import make_split
from sarzarr.store.codecs import CODECS
from sarzarr.store.copies import consolidate
from sarzarr.store.documents import Encoding, cf_attributes, read_node
from sarzarr.store.place import Folder
from sarzarr.store.tables import write_table

pytestmark = pytest.mark.slow

KNOWN = {"quantity": "sigma0", "representation": "power"}
ENCODINGS = [
    {"dtype": d, "codec": c, "shard": s}
    for d in ("uint16", "float32", "float16")
    for c in CODECS
    for s in (0, 256, 768, 2048)
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two scenes: one with edge chunks, empty chunks, an empty shard, nodata and dark water; one hardly a chunk."""
    folder = tmp_path_factory.mktemp("raw")
    raw = speckle((900, 1100), seed=5)
    raw[:600, :530] = 0  # fill at the edge: whole chunks of it
    raw[700:720, 700:730] = 0  # dark water
    raw[500:520, 900:930] = np.nan
    write_band(folder / "a_vv.tif", raw)
    write_band(folder / "a_vh.tif", speckle((900, 1100), seed=6, mean=0.01))
    write_band(
        folder / "b_vv.tif", speckle((300, 300), seed=7), transform=from_origin(700_000, 5_300_000, 10, 10)
    )
    return sorted(folder.glob("*.tif"))


@pytest.fixture(scope="module")
def ingested(files, tmp_path_factory):
    """Return a function that gives the store of the files with these options, each ingested once."""
    made = {}

    def get(**options):
        key = tuple(sorted(options.items()))
        if key not in made:
            root = tmp_path_factory.mktemp("store") / "s.zarr"
            made[key] = sz.ingest(sz.plan_ingest(files, root, **KNOWN, **options))
            sz.index_patches(made[key], size=100, stride=75, edge="pad", name="small")
            consolidate(made[key])
        return sz.open_store(made[key].root)

    return get


@pytest.fixture
def store(ingested, tmp_path):
    """Return a store of one's own, with shards of 512 pixels."""
    shutil.copytree(ingested(shard=512).root, tmp_path / "s.zarr")
    return sz.open_store(tmp_path / "s.zarr")


def contents(root):
    """Everything below a store by its path: documents parsed, since the order of attributes tells nothing."""
    return {
        p.relative_to(root).as_posix(): json.loads(p.read_bytes()) if p.suffix == ".json" else p.read_bytes()
        for p in sorted(Path(root).rglob("*"))
        if p.is_file()
    }


def same(one, other):
    one, other = contents(one.root), contents(other.root)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def pixels(store, scene, name):
    return zarr.open_array(store.root / "scenes" / scene / name, mode="r")[:]


# ------------------------------------------------------------------ what a copy holds
@pytest.mark.parametrize(
    "options", [{"shard": 512}, {"dtype": "float32", "shard": 768}, {"codec": "zstd", "shard": 0}], ids=str
)
def test_a_copy_with_the_same_options_is_the_same_bytes(ingested, tmp_path, options):
    store = ingested(**options)
    copy = copy_store(store, tmp_path / "new.zarr")
    assert tree_hash(copy.root) == tree_hash(store.root)
    again = copy_store(copy.root, str(tmp_path / "again.zarr"), **options)  # said, not left out
    assert tree_hash(again.root) == tree_hash(store.root)


def check_codes(ingested, folder, source, target):
    """Hold a copy against what ingest writes; from float32 too, whose nearest codes are the same."""
    same(copy_store(ingested(**source), folder / "new.zarr", **target), ingested(**target))


def check_floats(ingested, folder, source, target):
    """Hold the pixels of a copy, its flags, attributes and patch tables against those of the source."""
    store = ingested(**source)
    copy = copy_store(store, folder / "new.zarr", **target)
    for row in range(copy.catalog.sizes["array"]):
        scene, name = (str(copy.catalog[k].values[row]) for k in ("scene", "name"))
        old, new = pixels(store, scene, name), pixels(copy, scene, name)
        assert new.dtype == target["dtype"]
        truth = sz.from_codes(old) if old.dtype == np.uint16 else old
        np.testing.assert_array_equal(new, truth.astype(target["dtype"]))
        flags = f"{name}_flags"
        np.testing.assert_array_equal(pixels(copy, scene, flags), pixels(store, scene, flags))
        assert {k: str(copy.catalog[k].values[row]) for k in target} == {k: str(v) for k, v in target.items()}
        before, after = (read_node(s.place, f"scenes/{scene}/{name}")["attributes"] for s in (store, copy))
        assert ("scale_factor" in before) == (old.dtype == np.uint16)
        assert after == {k: v for k, v in before.items() if k not in cv.CODED} | cf_attributes(
            Encoding(dtype=target["dtype"])
        )
    for name in ("default", "small"):
        told = copy.patch_columns(name)
        cut = {k: told.attrs[k] for k in ("size", "stride", "edge")}
        xr.testing.assert_identical(copy.patches(name), sz.index_patches(copy, name="fresh", **cut))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ({"shard": 512}, {"codec": "zstd", "shard": 0}),
        ({"codec": "zstd", "shard": 0}, {"codec": "none", "shard": 512}),
        ({"codec": "zstd", "shard": 0}, {"codec": "zstd", "shard": 768}),
        ({"dtype": "float32", "shard": 768}, {"dtype": "uint16", "codec": "none", "shard": 512}),
    ],
    ids=str,
)
def test_a_copy_to_codes_is_what_ingest_writes(ingested, tmp_path, source, target):
    check_codes(ingested, tmp_path, source, target)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ({"shard": 512}, {"dtype": "float32", "codec": "blosc-lz4", "shard": 512}),
        ({"codec": "zstd", "shard": 0}, {"dtype": "float16", "codec": "none", "shard": 768}),
        ({"dtype": "float32", "shard": 768}, {"dtype": "float16", "codec": "zstd", "shard": 0}),
        ({"dtype": "float32", "shard": 768}, {"dtype": "float32", "codec": "none", "shard": 256}),
    ],
    ids=str,
)
def test_floats_are_those_of_the_codes(ingested, tmp_path, source, target):
    check_floats(ingested, tmp_path, source, target)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(source=st.sampled_from(ENCODINGS), target=st.sampled_from(ENCODINGS))
def test_any_copy_of_any_store(ingested, tmp_path_factory, source, target):
    folder = tmp_path_factory.mktemp("copy")
    if target["dtype"] != "uint16":
        check_floats(ingested, folder, source, target)
    elif source["dtype"] != "float16":  # which does not hold every code
        check_codes(ingested, folder, source, target)
    shutil.rmtree(folder)


def test_to_floats_and_back_is_the_identity(ingested, tmp_path):
    store = ingested(shard=512)
    there = copy_store(store, tmp_path / "floats.zarr", dtype="float32", shard=0)
    assert set(there.catalog["codec"].values) == {"zstd-checksum"}
    same(copy_store(there, tmp_path / "codes.zarr", dtype="uint16", shard=512), store)


def test_every_code_survives_float32():
    from sarzarr.export.recode import converted

    codes = np.arange(65536, dtype=np.uint16)
    z = converted(codes, "float32")
    truth = np.where(codes == 0, np.nan, (codes - 1.0) / 65534)
    np.testing.assert_allclose(z, truth, rtol=0, atol=6e-8)
    assert (z[1], z[-1]) == (0, 1)
    np.testing.assert_array_equal(converted(z, "uint16"), codes)
    half = converted(codes, "float16").astype(np.float64)
    assert np.isnan(half[0])
    assert np.nanmax(np.abs(half - truth)) * 160 < 0.04


@pytest.mark.parametrize(("dtype", "within"), [("float32", 2e-6), ("float16", 2e-3)])
def test_what_readers_see_agrees(ingested, tmp_path, dtype, within):
    store = ingested(shard=512)
    copy = copy_store(store, tmp_path / "new.zarr", dtype=dtype)
    assert copy.bounds == store.bounds
    assert copy.scenes == store.scenes
    for scene in store.scenes:
        for name, db in store.db(scene).data_vars.items():
            np.testing.assert_allclose(
                copy.db(scene)[name], db, rtol=0, atol=0 if dtype == "float32" else 0.04
            )
        assert copy.open_scene(scene).spatial_ref.attrs == store.open_scene(scene).spatial_ref.attrs
    options = {"batch_size": 4, "min_valid": 0, "min_unsaturated": 0, "index": "default"}
    batches = zip(sz.PatchReader(store, **options), sz.PatchReader(copy, **options), strict=True)
    count = 0
    for one, other in batches:
        np.testing.assert_allclose(other, one, rtol=0, atol=within)
        count += len(one)
    assert count == 25  # four of them have no valid pixel
    with xr.open_datatree(copy.root, engine="zarr") as tree:  # through the consolidated metadata
        np.testing.assert_array_equal(tree["scenes/b/vv"].values, copy.open_scene("b").vv.values)


def test_arrays_that_differ_keep_what_is_left_out(files, tmp_path):
    sz.ingest(sz.plan_ingest(files[:2], tmp_path / "s.zarr", **KNOWN, codec="zstd"))
    store = sz.ingest(sz.plan_ingest(files[2:], tmp_path / "s.zarr", **KNOWN, dtype="float32", shard=0))
    copy = copy_store(store, tmp_path / "new.zarr", shard=512)
    rows = zip(*(copy.catalog[k].values.tolist() for k in ("dtype", "codec", "shard")), strict=True)
    assert list(rows) == [("uint16", "zstd", 512)] * 2 + [("float32", "none", 512)]
    copy = copy_store(store, tmp_path / "halves.zarr", dtype="float32")
    rows = zip(*(copy.catalog[k].values.tolist() for k in ("dtype", "codec", "shard")), strict=True)
    assert list(rows) == [("float32", "none", 2048)] * 2 + [("float32", "zstd-checksum", 0)]


def test_all_else_comes_along_and_what_is_half_written_does_not(store, tmp_path):
    make_split(store, val_fraction=0.5, by="scene", seed=43)
    write_table(store.place, "boxes", xr.Dataset({"x_min": ("box", np.arange(5, dtype=np.float32))}))
    chips = np.random.default_rng(0).random((3, 64, 64))
    zarr.open_group(store.root / "samples", mode="w").create_array("chips", data=chips, chunks=(1, 64, 64))
    (store.root / "README.txt").write_text("mine")
    for left in (".catalog.0.partial", "boxes/.c.old", "scenes/.c.0.old", "scenes/b/vv/c/0/0.1.partial"):
        (store.root / left).mkdir(parents=True)
    copy = copy_store(store, tmp_path / "new.zarr", dtype="float32")
    assert not [p for p in copy.root.rglob("*") if p.name.startswith(".") or p.suffix == ".partial"]
    for place in (
        "splits",
        "boxes",
        "samples",
        "README.txt",
        "histograms",
        "scenes/a/x",
    ):
        one, other = store.root / place, copy.root / place
        if one.is_file():
            assert one.read_bytes() == other.read_bytes()
        else:
            shutil.rmtree(one / ".c.old", ignore_errors=True)
            assert tree_hash(one) == tree_hash(other), place
    attributes = [
        json.loads((made.root / "scenes" / "a" / "zarr.json").read_text())["attributes"]
        for made in (store, copy)
    ]
    assert attributes[0] == attributes[1]
    for side in ("train", "val"):
        columns = ["scene", "array", "row", "col", "id", "valid_fraction"]
        xr.testing.assert_equal(
            copy.patches(split=f"v1:{side}")[columns], store.patches(split=f"v1:{side}")[columns]
        )
    known = json.loads((copy.root / "scenes" / "a" / "zarr.json").read_text())["consolidated_metadata"]
    assert known["metadata"]["vv"]["data_type"] == "float32"
    rest = json.loads((copy.root / "documents" / "rest.json").read_text())
    assert {"boxes", "splits/v1", "patches"} <= set(rest)  # samples here are another program's
    assert read_node(copy.place, "patches")["attributes"]["cuts"]["small"]["size"] > 0


def test_a_store_without_scenes_is_copied(tmp_path):
    from sarzarr.store.store import create_store

    store = create_store(tmp_path / "s.zarr")
    copy = copy_store(store, tmp_path / "deep" / "new.zarr", dtype="float32")
    assert copy.scenes == ()


# ------------------------------------------------------------------ damage
def flip(path, byte):
    data = bytearray(path.read_bytes())
    data[byte] ^= 64
    path.write_bytes(data)


def truncate(path, size):
    path.write_bytes(path.read_bytes()[:size])


CHUNK_BYTES = 256 * 256 * 2 + 4
VH = "scenes/a/vh/c/1/1"  # chunks (2, 2), (2, 3), (3, 2), (3, 3) of an array of 4 x 5
DAMAGE = {
    "the first byte": (lambda root: flip(root / VH, 0), r"array 'vh', chunk at row 512, col 512 \("),
    "in the third chunk": (
        lambda root: flip(root / VH, 2 * CHUNK_BYTES + 999),
        r"array 'vh', chunk at row 768, col 512 \(",
    ),
    "a chunk's checksum": (
        lambda root: flip(root / VH, 2 * CHUNK_BYTES - 1),
        r"array 'vh', chunk at row 512, col 768 \(",
    ),
    "the index": (lambda root: flip(root / VH, -9), r"shard index .* array 'vh' \(file .*c/1/1"),
    "cut": (lambda root: truncate(root / VH, 3 * CHUNK_BYTES), r"array 'vh' \(file .*c/1/1"),
    "cut to nothing": (lambda root: truncate(root / VH, 0), r"array 'vh' \(file .*c/1/1"),
    "no file": (lambda root: (root / VH).unlink(), r"got none: .*array 'vh' \(file .*c/1/1"),
    "another shard": (
        lambda root: shutil.copy(root / "scenes/a/vh/c/0/0", root / VH),
        r"another that is intact: .*array 'vh' \(file .*c/1/1",
    ),
    "no manifest": (
        lambda root: (root / "scenes/a/vh/manifest.json").unlink(),
        r"manifest was expected, got none at .*scenes/a/vh/manifest.json",
    ),
    "a broken manifest": (
        lambda root: truncate(root / "scenes/a/vh/manifest.json", 40),
        r"no such document .*array 'vh' \(file .*manifest.json",
    ),
    "another manifest": (
        lambda root: shutil.copy(root / "scenes/a/vv/manifest.json", root / "scenes/a/vh/manifest.json"),
        r"another's.*array 'vh' \(file .*manifest.json",
    ),
    "flags": (lambda root: flip(root / "scenes/a/vv_flags/c/0/0", 7), r"array 'vv_flags', chunk at row 0, col 0"),
}  # fmt: skip


@pytest.mark.parametrize("options", [{"shard": 0}, {"dtype": "float32"}], ids=str)
@pytest.mark.parametrize("damage", list(DAMAGE))
def test_damage_is_named_and_never_copied(store, tmp_path, damage, options):
    work, where = DAMAGE[damage]
    work(store.root)
    with pytest.raises(
        CorruptStoreError, match=f"scene 'a', {where}" if where.startswith("array") else where
    ):
        copy_store(store, tmp_path / "new.zarr", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("options", [{"codec": "zstd"}, {"shard": 512}], ids=str)
def test_damage_of_chunk_files_is_named(ingested, tmp_path, options):
    shutil.copytree(ingested(shard=0).root, tmp_path / "s.zarr")
    path = tmp_path / "s.zarr" / "scenes" / "a" / "vh" / "c" / "2" / "1"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:99] + b"?" + whole[100:], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        with pytest.raises(CorruptStoreError, match=r"scene 'a', array 'vh', chunk at row 512, col 256 \("):
            copy_store(tmp_path / "s.zarr", tmp_path / "new.zarr", **options)
    path.write_bytes((path.parent / "2").read_bytes())
    with pytest.raises(CorruptStoreError, match="another that is intact"):
        copy_store(tmp_path / "s.zarr", tmp_path / "new.zarr", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


# ------------------------------------------------------------------ whole or not at all
@pytest.mark.parametrize("after", [1, 3, 5])
def test_an_interrupted_copy_leaves_nothing(store, tmp_path, after):
    class Interrupt(Callback):
        left = after

        def _posttask(self, *_):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), dask.config.set(scheduler="sync"), Interrupt():
        copy_store(store, tmp_path / "new.zarr", dtype="float32")
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]
    assert copy_store(store, tmp_path / "new.zarr").scenes == store.scenes


KILLED = """
import os, signal, sys
import dask
from dask.callbacks import Callback
from sarzarr.export.copy_store import copy_store

class Kill(Callback):
    left = 3
    def _posttask(self, *_):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

with Kill():
    copy_store(sys.argv[1], sys.argv[2])
"""


def test_a_killed_copy_is_no_store_and_keeps_no_other_from_its_place(store, tmp_path):
    place = tmp_path / "new.zarr"
    done = subprocess.run([sys.executable, "-c", KILLED, store.root, place], check=False)
    assert done.returncode == -9
    assert not place.exists()
    assert list(tmp_path.iterdir()) != [store.root]
    assert tree_hash(copy_store(store, place).root) == tree_hash(store.root)
    assert sorted(tmp_path.iterdir()) == sorted([store.root, place])


def test_a_band_whose_copy_was_given_up_writes_nothing(store, tmp_path):
    array = array_copy(store.root / "scenes" / "a" / "vh", tmp_path / "gone" / "vh")
    Path(array.token).unlink()
    assert copy_shards(array) == (tmp_path / "gone" / "vh", {}, None)
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("there", ["a file", "a folder", "a link to nowhere", "the store itself"])
def test_what_is_there_is_not_overwritten(store, tmp_path, there):
    place = tmp_path / "new.zarr"
    if there == "a file":
        place.write_text("thesis")
    elif there == "a folder":
        place.mkdir()
    elif there == "a link to nowhere":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place = store.root
    before = tree_hash(tmp_path)
    with pytest.raises(
        StoreExistsError, match=r"a place where there is nothing .*, got .*, which exists\. Name"
    ):
        copy_store(store, place)
    assert tree_hash(tmp_path) == before
    assert issubclass(StoreExistsError, FileExistsError)


def test_options_out_of_range_are_refused_before_anything_is_written(store, tmp_path):
    for options, said in (
        ({"dtype": "int8"}, "uint16, float32, float16, got 'int8'"),
        ({"codec": "nonesuch"}, f"{', '.join(CODECS)}, got 'nonesuch'"),
        ({"shard": 1000}, "multiple of the 256-pixel chunk"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            copy_store(store, tmp_path / "new.zarr", **options)
    for place, said in (("s3://bucket/new.zarr", "local directory"), (store.root / "new.zarr", "outside")):
        with pytest.raises(InvalidInputError, match=said):
            copy_store(store, place)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


# ------------------------------------------------------------------ where it runs
def array_copy(source, target, *, dtype="float32", shard=0):
    shape = zarr.open_array(source, mode="r").shape
    token = source / ".copying"
    token.touch()
    job = CopyJob.of(
        shape,
        scene="a",
        folder=str(target.parent),
        encoding=Encoding(dtype=dtype, codec="blosc-lz4", shard=shard),
        name=target.name,
        source=Folder(source.parents[2]),
        listed="",
        token=str(token),
        stored=Encoding(shard=512),
    )
    return replace(job, listed=job.digest)


def test_a_task_is_a_band_and_holds_a_chunk_or_two(store, tmp_path):
    for shard, rows in ((0, [0]), (256, [0]), (512, [0]), (768, [0, 1536]), (2048, [0]), (4096, [0])):
        array = array_copy(store.root / "scenes" / "a" / "vh", tmp_path / "vh", shard=shard)
        tall = replace(array, height=1800, width=500)
        assert [part.row for part in tall.parts] == rows
    array.target.mkdir()
    copy_shards(array)  # what is imported or kept by libraries at first use
    tracemalloc.start()
    copy_shards(array)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (
        peak < 8 * 256 * 256 * 4
    )  # of 900 x 1100: stored bytes, codes, floats, encoded bytes; not a shard of them


def test_order_and_threads_change_no_byte(store, tmp_path):
    hashes = set()
    for i, scheduler in enumerate(("sync", "threads")):
        with dask.config.set(scheduler=scheduler):
            copy = copy_store(store, tmp_path / f"{i}.zarr", dtype="float32", shard=256)
        hashes.add(tree_hash(copy.root))
    assert len(hashes) == 1


@pytest.mark.compat
@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes_and_names_damage(store, tmp_path):
    from distributed import Client, LocalCluster

    expected = copy_store(store, tmp_path / "here.zarr", dtype="float32", shard=256)
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs=NO_PORT,
        ) as cluster,
        Client(cluster),
    ):
        copy = copy_store(store, tmp_path / "there.zarr", dtype="float32", shard=256)
        assert tree_hash(copy.root) == tree_hash(expected.root)
        flip(store.root / VH, 0)
        with pytest.raises(CorruptStoreError, match="scene 'a', array 'vh', chunk at row 512, col 512"):
            copy_store(store, tmp_path / "damaged.zarr", codec="zstd")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here.zarr", "s.zarr", "there.zarr"]


def test_how_far_a_copy_is_is_told(ingested, tmp_path):
    store, told = ingested(), []
    copy_store(store, tmp_path / "new.zarr", shard=256, progress=told.append)
    done = [p.done for p in told]
    assert done == sorted(done)
    assert done[0] < done[-1] == told[0].total
    assert {p.scene for p in told} == set(store.scenes)
