"""A level of a scene is the mean power of its valid pixels, is fresh or is not there, and is read by any reader."""

import json
import shutil
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import dask
import numpy as np
import pytest
import xarray as xr
from conftest import speckle, tree_hash, write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from safes import write_measurement

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr import tasks
from sarzarr.errors import CorruptStoreError, NotInStoreError
from sarzarr.store.catalog import catalog_rows
from sarzarr.store.documents import Encoding
from sarzarr.store.overviews import average, levels, make

KNOWN = {"quantity": "sigma0", "representation": "power"}
CODE_DB = (cv.DB_CEILING - cv.DB_FLOOR) / cv.STEPS
WITHIN = {"uint16": 0.51 * CODE_DB, "float32": 1e-4, "float16": 0.05}
"""dB that rounding to a dtype may take."""


def oracle(power, level):
    """Return the mean power over the valid pixels of blocks, float64, in dB of the stored range; plain NumPy."""
    side = 2**level
    rows, cols = (-(-n // side) for n in power.shape)
    padded = np.full((rows * side, cols * side), np.nan)
    padded[: power.shape[0], : power.shape[1]] = power
    blocks = padded.reshape(rows, side, cols, side).swapaxes(1, 2).reshape(rows, cols, -1)
    count = np.isfinite(blocks).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(blocks, axis=-1) / count
        return np.clip(10 * np.log10(mean), cv.DB_FLOOR, cv.DB_CEILING)


def check_law(store, scene, count):
    assert store.levels(scene) == tuple(range(count + 1))
    for row in catalog_rows(store.rows(scene)):
        power = store.power(scene, row["name"]).values
        for level in range(1, count + 1):
            got, want = store.db(scene, row["name"], level=level).values, oracle(power, level)
            assert got.shape == want.shape
            assert got.dtype == np.float32
            np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
            np.testing.assert_allclose(got, want, rtol=0, atol=WITHIN[row["dtype"]])


def scene_of(shape, seed, holes):
    """Return speckle with nodata at its edge, NaN inside, and dark water: zeros that are measured."""
    rng = np.random.default_rng(seed)
    power = speckle(shape, seed=seed) * 10 ** rng.uniform(-3, 3)
    for kind in holes:
        top, left = (int(rng.integers(n)) for n in shape)
        window = np.s_[top : top + rng.integers(1, 60), left : left + rng.integers(1, 60)]
        power[window] = np.nan if kind == "hole" else 0
    return power


@settings(max_examples=12)
@given(
    shape=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    seed=st.integers(0, 2**16),
    holes=st.lists(st.sampled_from(["hole", "dark"]), max_size=6),
    dtype=st.sampled_from(["uint16", "uint16", "float32", "float16"]),
)
def test_a_level_is_the_mean_of_the_valid_pixels_of_its_blocks(shape, seed, holes, dtype):
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels, "SMALLEST", 8)  # levels of scenes that are quickly written
        file = write_band(Path(folder, "a_vv.tif"), scene_of(shape, seed, holes), nodata=float("nan"))
        store = sz.ingest(sz.plan_ingest(file, Path(folder, "s.zarr"), dtype=dtype, **KNOWN))
        made = sz.make_overviews(store)
        check_law(made, "a", levels.count_levels(shape, Encoding()))


@pytest.mark.parametrize(
    "options", [{"shard": 256}, {"shard": 0}, {"shard": 768, "codec": "zstd"}, {}], ids=str
)
def test_and_of_scenes_of_several_files_and_jobs(tmp_path, options):
    """8,200 columns are three jobs; the files of level 2 are made of the parts of several of them."""
    power = scene_of((560, 8200), 3, ["hole", "dark"] * 4)
    power[:, :700] = 0  # fill at the edge: chunks of which nothing is valid
    store = sz.ingest(sz.plan_ingest(write_band(tmp_path / "a_vv.tif", power, tiles=256), tmp_path / "s.zarr",
                                     **KNOWN, **options))  # fmt: skip
    made = sz.make_overviews(store)
    check_law(made, "a", 5)
    assert not sz.verify(made, deep=True).findings
    kept = made.catalog["codec"].values[0], made.catalog["shard"].values[0]
    opened = levels.level_pixels(made.place, "a", 1, "vv").encoding
    assert (opened.codec, opened.shard) == kept


# ------------------------------------------------------------------ a store of three scenes
@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Two scenes of two polarizations and of one, and a smaller one that has no levels."""
    folder = tmp_path_factory.mktemp("raw")
    for i, name in enumerate(("a_vv", "a_vh", "b_vv")):
        place = from_origin(500_000 + 90_000 * (i // 2), 5_400_000, 10, 10)
        write_band(
            folder / f"{name}.tif", scene_of((1101, 700), i, ["hole", "dark"]), transform=place, tiles=256
        )
    write_band(folder / "d_vv.tif", speckle((300, 512)), transform=from_origin(800_000, 5_400_000, 10, 10))
    return folder


@pytest.fixture(scope="module")
def made(raw, tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "s.zarr"
    return sz.make_overviews(sz.ingest(sz.plan_ingest(sorted(raw.glob("*.tif")), root, **KNOWN)))


@pytest.fixture
def store(made, tmp_path):
    shutil.copytree(made.root, tmp_path / "s.zarr")
    return sz.open_store(tmp_path / "s.zarr")


def test_levels_end_at_512_pixels_and_those_that_are_not_there_are_named(made):
    assert [made.levels(scene) for scene in made.scenes] == [(0, 1, 2), (0, 1, 2), (0,)]
    assert made.grid("a", level=2).shape == (276, 175)
    with pytest.raises(
        NotInStoreError, match=r"one of 0, 1, 2, got 3 of s\.zarr a.*`sarzarr overview s\.zarr a`"
    ):
        made.db("a", level=3)
    with pytest.raises(NotInStoreError, match="one of 0, got 1"):
        made.power("d", "vv", level=1)
    with pytest.raises(NotInStoreError, match="array of 'a' must be one of vh, vv"):
        made.db("a", "hh", level=1)
    with pytest.raises(NotInStoreError, match=r"scenes of s\.zarr were expected, got nowhere"):
        sz.make_overviews(made, ["nowhere"])


def test_any_reader_opens_levels_where_they_lie(made):
    tree = xr.open_datatree(made.root, engine="zarr")
    for level in (1, 2):
        group = f"overviews/a/{level}"
        plain = xr.open_zarr(made.root, group=group, decode_coords="all")
        np.testing.assert_array_equal(plain["y"], tree[group]["y"])
        ours, size = made.db("a", level=level), 10 * 2**level
        for there in (plain["vv"], ours["vv_db"]):
            assert there.rio.crs.to_epsg() == 32633
            assert tuple(there.rio.transform())[:6] == (size, 0, 500_000, 0, -size, 5_400_000)
        db = sz.denormalize(plain["vv"].astype("f4"), (cv.DB_FLOOR, cv.DB_CEILING))
        np.testing.assert_allclose(db.values, ours["vv_db"].values, atol=1e-4, rtol=0)
        assert plain.attrs["proj:code"] == "EPSG:32633"
        assert plain.attrs["spatial:shape"] == list(made.grid("a", level).shape) == [*plain["vv"].shape]
    assert made.power("a", "vv", level=1).attrs == made.power("a", "vv").attrs


def test_the_group_says_its_levels_as_the_multiscales_convention_has_it(made):
    about = json.loads((made.root / "overviews" / "a" / "zarr.json").read_text())["attributes"]
    conventions = {one["name"]: one["uuid"] for one in about["zarr_conventions"]}
    assert conventions["multiscales"] == "d35379db-88df-4056-af3a-620245f8e347"
    assert conventions.keys() == {"multiscales", "proj:", "spatial:"}
    assert about["multiscales"]["resampling_method"] == "average"
    first, second = about["multiscales"]["layout"]
    assert first == {
        "asset": "1",
        "spatial:shape": [551, 350],
        "spatial:transform": [20, 0, 500_000, 0, -20, 5_400_000],
    }
    assert second.pop("transform") == {"scale": [2, 2], "translation": [0, 0]}
    assert second == {
        "asset": "2", "derived_from": "1", "spatial:shape": [276, 175],
        "spatial:transform": [40, 0, 500_000, 0, -40, 5_400_000],
    }  # fmt: skip


def test_ground_control_points_are_in_pixels_of_the_level(tmp_path):
    pixels = np.random.default_rng(0).integers(50, 900, (1100, 600)).astype(np.uint16)
    write_measurement(tmp_path / "a_vv.tif", pixels)
    plan = sz.plan_ingest(
        tmp_path / "a_vv.tif", tmp_path / "s.zarr", representation="amplitude", quantity="dn"
    )
    made = sz.make_overviews(sz.ingest(plan))
    whole, level = (json.loads((made.root / key / "zarr.json").read_text())["attributes"]
                    for key in ("scenes/a", "overviews/a/2"))  # fmt: skip
    points, scaled = (np.reshape(about["gcps"], (-1, 5)) for about in (whole, level))
    np.testing.assert_array_equal(scaled, points * [0.25, 0.25, 1, 1, 1])
    assert points[:, 0].max() == 1099
    assert level["gcps_crs"] == whole["gcps_crs"]
    np.testing.assert_array_equal(made.db("a", level=2)["y"][:2], [2, 6])  # pixels of the scene
    check_law(made, "a", 2)


# ------------------------------------------------------------------ fresh, or not there
def test_levels_that_are_there_are_not_made_again(store):
    before = tree_hash(store.root), (store.root / "overviews/a/1/vv/manifest.json").stat().st_ino
    sz.make_overviews(store)
    assert (tree_hash(store.root), (store.root / "overviews/a/1/vv/manifest.json").stat().st_ino) == before


def test_what_changes_pixels_takes_their_levels_away(store, raw, caplog):
    files = sorted(raw.glob("a_*.tif"))
    sz.ingest(sz.plan_ingest(files, store.root, border=2, replace=True, **KNOWN))
    assert "overviews of a were of other pixels, and are gone" in caplog.text
    now = store.anew()
    assert [now.levels(scene) for scene in now.scenes] == [(0,), (0, 1, 2), (0,)]
    assert not (store.root / "overviews" / "a").exists()
    now = sz.remove_scene(now, "b")
    assert [path.name for path in (store.root / "overviews").iterdir()] == ["zarr.json"]
    assert not sz.verify(now).findings
    sz.ingest(
        sz.plan_ingest(files, store.root, border=2, overviews=True, **KNOWN)
    )  # it is there: levels alone
    check_law(store.anew(), "a", 2)


def test_a_clip_and_a_layer_leave_levels_as_they_are(store, raw):
    sz.set_clip(store, method="fixed", vmin=-20, vmax=2)
    sz.ingest(sz.plan_ingest(sorted(raw.glob("b*.tif")), store.root, layers={"m": raw / "b_vv.tif"}, **KNOWN))
    assert store.anew().levels("b") == (0, 1, 2)
    assert not sz.verify(store, deep=True).findings


@pytest.mark.parametrize("what", ["pixels", "place"])
def test_levels_of_other_pixels_or_another_place_are_never_shown(store, raw, tmp_path, what):
    old = shutil.copytree(store.root / "overviews" / "b", tmp_path / "old")
    values = speckle((1101, 700), seed=9) if what == "pixels" else scene_of((1101, 700), 2, ["hole", "dark"])
    moved = from_origin(500_000 + 90_000 + 10 * (what == "place"), 5_400_000, 10, 10)
    other = write_band(tmp_path / "b_vv.tif", values, transform=moved, tiles=256)
    sz.ingest(sz.plan_ingest(other, store.root, replace=True, **KNOWN))
    shutil.copytree(old, store.root / "overviews" / "b")
    now = store.anew()
    assert now.levels("b") == (0,)
    with pytest.raises(NotInStoreError, match="one of 0, got 1"):
        now.db("b", level=1)
    found = {finding.file: finding for finding in sz.verify(now).findings}
    assert "made of other pixels" in found["overviews/b"].wrong
    assert "--repair" in found["overviews/b"].remedy
    assert not sz.repair(store.root).findings
    check_law(store.anew(), "b", 2)


@pytest.mark.parametrize(
    "options", [{}, {"dtype": "float32"}, {"shard": 0}, {"dtype": "float16", "shard": 256}], ids=str
)
def test_a_copy_has_levels_of_its_own_pixels(store, tmp_path, options):
    copy = sz.copy_store(store, tmp_path / "n.zarr", **options)
    check_law(copy, "a", 2)
    assert copy.levels("d") == (0,)
    assert not sz.verify(copy).findings
    assert {path.name for path in tmp_path.iterdir()} == {"s.zarr", "n.zarr"}
    if not options:
        assert tree_hash(copy.root / "overviews") == tree_hash(store.root / "overviews")


# ------------------------------------------------------------------ damage
def test_deep_makes_levels_again_and_repair_writes_them(store, monkeypatch):
    right = tree_hash(store.root)
    with monkeypatch.context() as patch:
        mean = average.mean_power
        patch.setattr(average, "mean_power", lambda sums: 1.01 * mean(sums))  # 0.04 dB, 18 codes
        with make.writing(store.root):
            make.write_overviews(store.anew(), ["b"], again=True)
    assert not sz.verify(store).findings
    assert not sz.verify(store, scenes=["a"], deep=True).findings
    (finding,) = sz.verify(store, deep=True).findings
    assert (finding.file, "pixels of vv are not what" in finding.wrong) == ("overviews/b", True)
    assert sz.repair(store, deep=True).mended == ("overviews/b",)
    assert tree_hash(store.root) == right


def test_levels_are_not_made_of_damaged_pixels_and_the_others_are(store):
    shutil.rmtree(store.root / "overviews")
    shard = store.root / "scenes/a/vv/c/0/0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CorruptStoreError, match=r"overviews of a were not made: .*scenes/a/vv/c/0/0"):
        sz.make_overviews(store)
    assert [store.anew().levels(scene) for scene in store.scenes] == [(0,), (0, 1, 2), (0,)]
    assert {path.name for path in store.root.parent.iterdir()} == {"s.zarr"}


# ------------------------------------------------------------------ how the work is done
@pytest.mark.parametrize("how", ["threads", "forked", "synchronous"])
def test_the_bytes_are_the_same_whoever_does_the_work(store, how, monkeypatch):
    right = tree_hash(store.root / "overviews")
    shutil.rmtree(store.root / "overviews")
    if how == "forked":
        monkeypatch.setattr(tasks, "PROCESS_WORTH", 0)
    done = []
    with dask.config.set(scheduler="synchronous" if how == "synchronous" else None):
        sz.make_overviews(store, progress=done.append)
    assert tree_hash(store.root / "overviews") == right
    assert done[-1].done == done[-1].total == 3 * 1101 * 700 * 2


@pytest.mark.slow
def test_a_cluster_does_the_work_if_there_is_one(store):
    right = tree_hash(store.root / "overviews")
    shutil.rmtree(store.root / "overviews")
    with tasks.cluster(workers=2):
        sz.make_overviews(store)
    assert tree_hash(store.root / "overviews") == right


def test_an_interrupted_run_goes_on_with_the_scenes_that_are_left(store, monkeypatch):
    shutil.rmtree(store.root / "overviews" / "a")
    shutil.rmtree(store.root / "overviews" / "b")

    def stop_at_b(progress):
        if progress.scene == "b":
            raise KeyboardInterrupt

    monkeypatch.setattr(make, "wave_size", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        sz.make_overviews(store, ["b", "a"], progress=stop_at_b)
    with monkeypatch.context() as patch:
        patch.setattr(make, "_enter", stop_entering)
        with pytest.raises(KeyboardInterrupt):
            sz.make_overviews(store, ["a"])
    assert store.anew().levels("a") == (0,)
    again = []
    sz.make_overviews(store, progress=lambda progress: again.append(progress.scene))
    assert set(again) == {"b"}  # that of a was whole beside the store
    assert {path.name for path in store.root.parent.iterdir()} == {"s.zarr"}
    assert [store.anew().levels(scene) for scene in store.scenes] == [(0, 1, 2), (0, 1, 2), (0,)]
    assert not sz.verify(store, deep=True).findings


def stop_entering(*_):
    raise KeyboardInterrupt


def test_what_an_interrupted_run_left_is_cleaned(store):
    shutil.rmtree(store.root / "overviews")

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sz.make_overviews(store, progress=stop)
    assert [path.name for path, _ in sz.clean(store).removed] == [".overviews"]
    assert {path.name for path in store.root.parent.iterdir()} == {"s.zarr"}


def test_memory_is_flat_as_scenes_grow_taller(tmp_path):
    """A job of 4,096 x 4,096 pixels holds bands of them, however many jobs there are."""
    peaks = []
    for rows in (4096, 12_288):
        file = write_band(
            tmp_path / f"a{rows}_vv.tif", np.full((rows, 4096), 90, np.uint16), tiles=512, compress="zstd"
        )
        store = sz.ingest(
            sz.plan_ingest(file, tmp_path / f"{rows}.zarr", representation="amplitude", quantity="dn")
        )
        tracemalloc.start()
        with dask.config.set(scheduler="synchronous"):
            sz.make_overviews(store)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[0] < 4096**2 * 4  # as float32 it would be held whole
