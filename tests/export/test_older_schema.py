"""A store of schema 1 is copied into what an ingest writes today; any other schema is refused with its remedy."""

import json
import re
import shlex
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import zarr
from conftest import speckle, write_band
from hypothesis import given
from hypothesis import strategies as st
from older_store import PLACE, as_schema_1, samples_as_schema_1
from rasterio.transform import from_origin
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.cli import app
from sarzarr.errors import CorruptStoreError, StoreSchemaError
from sarzarr.export.copy_store import copy_store
from sarzarr.export.recode import CopyJob, copy_shards
from sarzarr.export.schema1 import as_schema_2, rebinned
from sarzarr.store.documents import Encoding
from sarzarr.store.place import Folder

pytestmark = pytest.mark.slow

KNOWN = {"quantity": "sigma0", "representation": "power"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two scenes, one with nodata at an edge, dark water and layers of every kind of nodata."""
    folder, rng = tmp_path_factory.mktemp("raw"), np.random.default_rng(0)
    raw = speckle((600, 700), seed=5)
    raw[:300, :260] = 0  # a whole chunk of fill
    raw[400:420, 500:530] = 0  # dark water
    raw[330:350, 300:330] = np.nan
    write_band(folder / "a_vv.tif", raw)
    write_band(folder / "a_vh.tif", speckle((600, 700), seed=6, mean=0.01))
    write_band(
        folder / "b_vv.tif", speckle((300, 300), seed=7), transform=from_origin(700_000, 5_300_000, 10, 10)
    )
    write_band(folder / "cover.tif", rng.integers(0, 5, (600, 700)).astype(np.uint8), nodata=4)
    write_band(folder / "full.tif", rng.integers(0, 256, (600, 700)).astype(np.uint8))
    write_band(folder / "dem.tif", rng.integers(-9, 9, (600, 700)).astype(np.int16))
    write_band(folder / "wind.tif", np.where(raw > 0.05, raw, -1).astype(np.float32), nodata=-1)
    return folder


@pytest.fixture(scope="module")
def ingested(files, tmp_path_factory):
    """Return a function that gives the store of the files with these options, each ingested once."""
    made = {}

    def get(**options):
        key = tuple(sorted(options.items()))
        if key not in made:
            root = tmp_path_factory.mktemp("store") / "s.zarr"
            layers = {name: files / f"{name}.tif" for name in ("cover", "full", "dem", "wind")}
            rasters = [files / f"{name}.tif" for name in ("a_vh", "a_vv", "b_vv")]
            store = sz.ingest(sz.plan_ingest(rasters, root, **KNOWN, layers=layers, **options))
            (files / "boxes.csv").write_text("scene,x_min,y_min,x_max,y_max\na,300,310,340,350\n")
            sz.import_boxes(store, files / "boxes.csv")
            made[key] = sz.index_patches(store, size=100, stride=75, edge="pad", name="small") and store
        return sz.open_store(made[key].root)

    return get


def contents(root):
    """Everything below a store by its path: documents parsed, since the order of attributes tells nothing."""
    return {
        p.relative_to(root).as_posix(): json.loads(p.read_bytes()) if p.suffix == ".json" else p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


FLOATS = {"dtype": "float32", "codec": "blosc-lz4", "shard": 512}
"""As stores of schema 1 held floats."""


def differing(one, other):
    one, other = contents(one.root), contents(other.root)
    assert one.keys() == other.keys()
    return [name for name in one if one[name] != other[name]]


@pytest.mark.parametrize("options", [{"shard": 512}, {"codec": "zstd", "shard": 0}, {}], ids=str)
def test_floats_are_those_of_an_ingest_to_the_byte(ingested, tmp_path, options):
    fresh = ingested(dtype="float32", **options)
    old = as_schema_1(fresh, tmp_path / "old.zarr")
    assert PLACE.items() <= zarr.open_array(old / "scenes/a/vv", mode="r").attrs.asdict().items()
    assert differing(copy_store(old, tmp_path / "new.zarr"), fresh) == []


def test_old_floats_become_the_codes_of_an_ingest(ingested, tmp_path):
    old = as_schema_1(ingested(dtype="float32", shard=512), tmp_path / "old.zarr")
    copy = copy_store(old, tmp_path / "new.zarr", dtype="uint16", codec="zstd", shard=768)
    assert differing(copy, ingested(dtype="uint16", codec="zstd", shard=768)) == []


def test_halves_are_those_of_an_ingest_and_their_histograms_are_a_bin_off_at_the_most(ingested, tmp_path):
    fresh = ingested(dtype="float16", shard=512)
    old = as_schema_1(ingested(**FLOATS), tmp_path / "old.zarr", dtype="float16")
    copy = copy_store(old, tmp_path / "new.zarr")
    assert all("histograms/" in k or k.endswith(".json") or "patches/" in k for k in differing(copy, fresh))
    check_counts(copy, fresh)


def check_counts(one, other):
    """Hold histograms within a bin of each other, and clips within two."""
    for scene, name in (("a", "vv"), ("a", "vh"), ("b", "vv")):
        new, truth = one.histogram(scene, name), other.histogram(scene, name)
        assert (new.n_valid, new.nodata, new.nonpositive) == (truth.n_valid, truth.nodata, truth.nonpositive)
        summed, exact = np.cumsum(new.counts), np.cumsum(truth.counts)
        assert (summed[1:] >= exact[:-1]).all()
        assert (summed[:-1] <= exact[1:]).all()
    for key, entry in one.bounds.items():
        np.testing.assert_allclose(tuple(entry.clip), tuple(other.bounds[key].clip), rtol=0, atol=0.0025)


@pytest.mark.parametrize("options", [{}, {"dtype": "float32"}, {"codec": "blosc-lz4", "shard": 256}], ids=str)
def test_codes_are_a_step_off_at_the_most_and_the_same_pixels_are_valid(ingested, tmp_path, options):
    fresh = ingested(shard=512)
    old = as_schema_1(
        ingested(dtype="float32", shard=512), tmp_path / "old.zarr", dtype="uint16", codec="none"
    )
    copy = copy_store(old, tmp_path / "new.zarr", **options)
    check_counts(copy, fresh)
    for scene, name in (("a", "vv"), ("a", "vh"), ("b", "vv")):
        got, truth = (zarr.open_array(s.root / "scenes" / scene / name, mode="r")[:] for s in (copy, fresh))
        if options.get("dtype"):
            got = sz.to_codes(got)
        np.testing.assert_array_equal(got == cv.NOT_MEASURED, truth == cv.NOT_MEASURED)
        assert np.abs(got.astype(int) - truth.astype(int)).max() <= 1
        for other in (f"{name}_flags", *copy.layers(scene)):
            arrays = [zarr.open_array(s.root / "scenes" / scene / other, mode="r") for s in (copy, fresh)]
            np.testing.assert_array_equal(arrays[0][:], arrays[1][:])
            assert len({str(a.fill_value) for a in arrays}) == len({a.dtype for a in arrays}) == 1
    reader = {"patch_size": 100, "min_valid": 0, "min_unsaturated": 0, "batch_size": 4}
    for one, other in zip(sz.PatchReader(copy, **reader), sz.PatchReader(fresh, **reader), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=4e-4)


@given(st.floats(0, 1, width=32))
def test_an_old_code_becomes_one_that_is_within_a_step_of_a_new_one(z):
    old = np.array([int(np.float32(z) * np.float32(131070)) + 1 >> 1], np.uint16)
    codes = as_schema_2(old, "uint16").astype(int)
    assert abs(codes - sz.to_codes(np.array([z], np.float32)).astype(int)) <= 1


def test_every_old_code_becomes_the_nearest_and_floats_of_it_are_exact():
    old = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(as_schema_2(old, "uint16"), 1 + np.rint(old * (65534 / 65535)))
    np.testing.assert_allclose(as_schema_2(old, "float32"), old / 65535, rtol=1e-6)
    counts = np.arange(131071)
    assert rebinned(counts).sum() == counts.sum()
    assert rebinned(np.eye(1, 131071, 131070, dtype=int)[0])[-1] == 1


def test_a_clip_that_somebody_set_stays(ingested, tmp_path):
    old = as_schema_1(ingested(dtype="float32", shard=512), tmp_path / "old.zarr")
    document = json.loads((old / "zarr.json").read_text())
    entry = document["attributes"]["bounds"]["vv/sigma0"]
    for clip in (
        (-21.5, 3.25, "fixed -21.5..3.25 dB"),
        (-20.0, 1.0, "percentile 1..99"),
    ):  # of another day's scenes
        entry |= dict(zip(("clip_vmin", "clip_vmax", "clip_method"), clip, strict=True))
        (old / "zarr.json").write_text(json.dumps(document))
        copy = copy_store(old, tmp_path / f"{clip[0]}.zarr")
        assert (*copy.bounds["vv/sigma0"].clip, copy.bounds["vv/sigma0"].clip_method) == clip
        said = zarr.open_array(copy.root / "scenes/b/vv", mode="r").attrs
        assert (said["clip_vmin"], said["clip_vmax"]) == clip[:2]
        assert copy.bounds["vh/sigma0"] == ingested(dtype="float32", shard=512).bounds["vh/sigma0"]


@pytest.mark.parametrize("array", ["vv", "vv_flags", "cover"])
def test_damage_of_an_old_store_is_named(ingested, tmp_path, array):
    old = as_schema_1(ingested(dtype="float32", shard=512), tmp_path / "old.zarr")
    path = old / "scenes/a" / array / "c/0/0"
    data = bytearray(path.read_bytes())
    data[7] ^= 64
    path.write_bytes(data)
    with pytest.raises(CorruptStoreError, match=f"scene 'a', array '{array}', chunk at row"):
        copy_store(old, tmp_path / "new.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["old.zarr"]


def test_a_task_of_an_old_store_holds_a_few_chunks(ingested, tmp_path):
    old = as_schema_1(ingested(**FLOATS), tmp_path / "old.zarr")
    (tmp_path / "token").touch()
    job = CopyJob.of(
        (600, 700),
        scene="a",
        folder=str(tmp_path),
        encoding=Encoding(dtype="float32", shard=2048),
        name="vv",
        source=Folder(old),
        listed="",
        token=str(tmp_path / "token"),
        stored=Encoding(dtype="float32", codec="blosc-lz4", shard=512),
        is_older=True,
        old_flags="vv_flags",
        is_counted=True,
    )
    job = replace(job, listed=job.digest)
    copy_shards(job)  # what is imported or kept by libraries at first use
    tracemalloc.start()
    _, _, counts = copy_shards(job)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.sum() == ingested(**FLOATS).histogram("a", "vv").n_valid
    assert peak < 20 * 256 * 256 * 4  # with counts, and what is added to them


def test_what_is_said_about_an_old_store_works_when_it_is_done(ingested, files, tmp_path):
    folder = tmp_path / "it's $HOME; two"
    folder.mkdir()
    old = as_schema_1(ingested(dtype="float32", shard=512), folder / "old.zarr")
    raster = files / "b_vv.tif"
    for use in (lambda: sz.plan_ingest(raster, old, **KNOWN), lambda: sz.PatchReader(old)):
        with pytest.raises(StoreSchemaError):
            use()
    with pytest.raises(StoreSchemaError, match=r"schema 2 was expected, got 1 in 'old\.zarr'") as error:
        sz.open_store(old)
    command = re.search(r"`(sarzarr copy .* NEW)`", str(error.value))[1]
    words = [str(tmp_path / "new.zarr") if word == "NEW" else word for word in shlex.split(command)]
    assert CliRunner().invoke(app, words[1:]).exit_code == 0
    assert sz.open_store(tmp_path / "new.zarr").scenes == ("a", "b")


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        (3, "Upgrade"),
        (99, "Upgrade"),
        (0, "Make"),
        (None, "Make"),
        ("2", "Make"),
        (1.0, "Make"),
        (True, "Make"),
    ],
)
def test_a_schema_that_is_not_known_is_refused_by_all(ingested, tmp_path, version, remedy):
    old = as_schema_1(ingested(dtype="float32", shard=512), tmp_path / "old.zarr")
    document = json.loads((old / "zarr.json").read_text())
    document["attributes"]["sarzarr"]["version"] = version
    (old / "zarr.json").write_text(json.dumps(document))
    for use in (lambda: sz.open_store(old), lambda: copy_store(old, tmp_path / "new.zarr")):
        with pytest.raises(
            StoreSchemaError, match=f"schema 2 was expected, got {version!r} in 'old.zarr'. {remedy}"
        ):
            use()


@pytest.mark.parametrize(("dtype", "most"), [("uint8", 9), ("uint8", 256), ("uint16", 9), ("float32", 1)])
def test_sample_sets_are_those_of_an_import_to_the_byte(tmp_path, dtype, most):
    folder, rng = tmp_path / "chips", np.random.default_rng(0)
    folder.mkdir()
    for i, shape in enumerate(((300, 40), (20, 30), (64, 64))):
        values = rng.random(shape) if dtype == "float32" else rng.integers(0, most, shape)
        write_band(folder / f"{i}.tif", values.astype(dtype))
        (folder / f"{i}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    samples, _ = sz.import_chips(folder, tmp_path / "fresh.zarr")
    old = samples_as_schema_1(samples.store, tmp_path / "old.zarr")
    copy = copy_store(old, tmp_path / "new.zarr")
    assert differing(copy, samples.store) == []
    assert sz.open_samples(copy, "chips").layout.stored == ("uint16" if most == 256 else dtype)
