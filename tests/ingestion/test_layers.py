"""Layers: kept as they are beside backscatter, delivered with the patch, and never taken for a polarization."""

import signal
import subprocess
import sys

import dask
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr
import zarr
from conftest import read_band, speckle, tree_hash, write_band
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.cli.app import app
from sarzarr.errors import InvalidInputError, NotInStoreError, SceneExistsError, UnsupportedRasterError
from sarzarr.ingestion.layers.layer import Layer, layers_of, parse_layer
from sarzarr.ingestion.staging import Staged
from sarzarr.pixels.turns import apply
from sarzarr.store.chunks import read_layout

KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 512}
SHAPE = (700, 900)
PLACE = from_origin(500_000, 5_400_000, 10, 10)


def classes(shape=SHAPE, *, dtype="uint8", seed=0, codes=(0, 3, 7, 255), cell=16):
    """Return patches of codes, of which no interpolation is another code."""
    rng = np.random.default_rng(seed)
    small = rng.choice(np.array(codes, dtype), tuple(-(-n // cell) for n in shape))
    return np.kron(small, np.ones((cell, cell), dtype))[: shape[0], : shape[1]]


def heights(shape=SHAPE, *, seed=0):
    """Return a smooth float32 surface with a hole of NaN."""
    rows, cols = np.indices(shape, dtype=np.float32)
    out = 300 + 40 * np.sin(rows / 70 + seed) * np.cos(cols / 50)
    out[100:140, 200:230] = np.nan
    return out.astype(np.float32)


def stored(store, scene, array):
    return zarr.open_array(store.root / "scenes" / scene / array, mode="r")[...]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two scenes that do not touch, a mask each, and a DEM over both in another CRS and pixel size."""
    place = tmp_path_factory.mktemp("layers")
    east = from_origin(520_000, 5_400_000, 10, 10)
    write_band(place / "a_vv.tif", speckle(SHAPE, seed=1), tiles=128)
    write_band(place / "a_vh.tif", speckle(SHAPE, seed=2), tiles=128)
    write_band(place / "b_vv.tif", speckle((600, 520), seed=3), tiles=128, transform=east)
    (place / "labels").mkdir()
    write_band(place / "labels" / "one.tif", classes(), tiles=256, nodata=255)
    write_band(
        place / "labels" / "two.tif", classes((600, 520), seed=1), tiles=256, nodata=255, transform=east
    )
    dem = heights((1100, 1400))
    lonlat = {"crs": "EPSG:4326", "transform": from_origin(14.98, 48.76, 2.5e-4, 1.7e-4)}
    write_band(place / "dem.tif", dem, tiles=256, **lonlat)
    return place


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    """The store of both scenes, with both layers. Read only."""
    root = tmp_path_factory.mktemp("store") / "s.zarr"
    return sz.ingest(plan(folder, root))


def plan(folder, root, **options):
    layers = {"mask": folder / "labels", "dem": folder / "dem.tif"}
    return sz.plan_ingest(sorted(folder.glob("*_v?.tif")), root, **KNOWN | {"layers": layers} | options)


# ------------------------------------------------------------------ what is said of a layer
def test_words_before_the_first_equals_sign_are_ours():
    said = parse_layer("mask:nodata-1:band2:nearest:classes=odd=name:1.tif")
    assert said == Layer(
        name="mask", path="odd=name:1.tif", kind="classes", method="nearest", band=2, nodata=-1.0
    )
    assert [layer.path for layer in layers_of({"m": ["a", "b"], "d:sum": "c"})] == ["a", "b", "c"]
    assert layers_of([said, "m=a"])[0] is said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mask", "mask=FILE, got 'mask'"),
        ("vv=a.tif", "no polarization, .* got 'vv'"),
        ("Y=a.tif", "coordinate, .* got 'Y'"),
        ("a_flags=a.tif", "got 'a_flags'"),
        ("band_2=a.tif", "got 'band_2'"),
        ("../a=a.tif", "got '../a'"),
        ("m:cubism=a.tif", "got 'cubism'"),
        ("m:nodatax=a.tif", "got 'nodatax'"),
        ("m:mode:sum=a.tif", "one method .* got a second"),
        ("m:classes:cubic=a.tif", "mode, nearest, min, max, got 'cubic'"),
        ("m:band0=a.tif", "from 1 on, got 0"),
    ],
)
def test_what_cannot_be_meant_is_an_error(text, said):
    with pytest.raises(InvalidInputError, match=said):
        parse_layer(text)


# ------------------------------------------------------------------ the real mask
def test_the_real_mask_comes_with_its_patches(real_data, tmp_path):
    place = real_data / "s1_floods_db_mask"
    label = place / "Spain_7370579_LabelHand.tif"
    plan = sz.plan_ingest(
        place / "Spain_7370579_S1Hand.tif", tmp_path / "s.zarr", layers={"mask:nodata-1": label}
    )
    assert "layer mask: int16 classes, nodata -1; Spain_7370579_LabelHand.tif band 1: passed through" in str(
        plan
    )
    store = sz.ingest(plan)
    reader = sz.PatchReader(store, polarizations=["vv", "vh"], layers=["mask"], min_unsaturated=0, flags=True)
    images, flags, mask = reader.read(np.arange(len(reader.selection)))
    whole = read_band(label, 1)
    assert images.shape == flags.shape == (4, 2, 256, 256)
    assert (mask.shape, mask.dtype, reader.layer_nodata) == ((4, 1, 256, 256), np.int16, {"mask": -1})
    for patch, row, col in zip(mask, reader.selection.row, reader.selection.col, strict=True):
        np.testing.assert_array_equal(patch[0], whole[row : row + 256, col : col + 256])
    opened = xr.open_datatree(store.root, engine="zarr")["scenes/Spain_7370579_S1Hand"].to_dataset()
    assert (opened.mask.dtype, opened.mask.rio.nodata) == (np.int16, -1)
    np.testing.assert_array_equal(opened.mask, whole)


# ------------------------------------------------------------------ what is stored
def test_each_scene_takes_the_files_on_its_ground(store, folder):
    assert store.layers("a") == store.layers("b") == ("dem", "mask")
    assert store.scenes_with("mask") == ("a", "b")
    np.testing.assert_array_equal(stored(store, "a", "mask"), read_band(folder / "labels" / "one.tif", 1))
    np.testing.assert_array_equal(stored(store, "b", "mask"), read_band(folder / "labels" / "two.tif", 1))
    assert store.layer_attrs("a", "mask")[cv.SOURCE_FILES] == ["one.tif"]


@pytest.mark.parametrize("scene", ["a", "b"])
def test_a_dem_on_another_grid_is_gdals_own_warp(store, folder, scene):
    grid = store.grid(scene)
    with (
        rasterio.open(folder / "dem.tif") as file,
        WarpedVRT(
            file,
            crs=grid.crs_wkt,
            transform=rasterio.Affine(*grid.transform),
            height=grid.height,
            width=grid.width,
            src_nodata=np.nan,
            nodata=np.nan,
            resampling=Resampling.bilinear,
            tolerance=1e-9,
        ) as warped,
    ):
        wanted = warped.read(1)
    got = stored(store, scene, "dem")
    assert got.dtype == np.float32
    assert store.layer_attrs(scene, "dem")[cv.RESAMPLING] == "bilinear"
    same = np.isnan(got) == np.isnan(wanted)
    assert same.mean() > 0.9999
    assert np.isnan(got).any()  # a hole in one, and it does not reach all of the other
    off = np.abs(got - wanted)[same & ~np.isnan(wanted)]
    assert off.size > 0.8 * got.size
    assert off.max() < 0.05  # positions within 1e-4 source pixels of a surface that climbs 1 m a pixel


def test_a_layer_is_no_polarization_anywhere(store):
    names = {"vv", "vh"}
    assert set(store.catalog["name"].values.tolist()) == names
    assert set(store.patches()["array"].values.tolist()) == names
    assert set(store.bounds) == {"vv/sigma0", "vh/sigma0"}
    assert set(store.db("a")) == {"vv_db", "vh_db"}
    assert not list((store.root / "histograms").rglob("mask"))
    group = zarr.open_group(store.root / "scenes" / "a", mode="r").attrs
    assert group[cv.SAR_POLARIZATIONS] == ["VV", "VH"]
    said = store.layer_attrs("a", "mask")
    assert not {cv.SCALE_FACTOR, cv.VMIN, cv.VMAX, cv.CLIP_VMIN, cv.QUANTITY, cv.ANCILLARY} & set(said)
    with pytest.raises(NotInStoreError):
        sz.PatchReader(store, polarizations=["mask"])
    with pytest.raises(NotInStoreError, match="layer of 'a' must be one of dem, mask, got 'vv'"):
        store.layer_attrs("a", "vv")


def test_chunks_shards_and_manifests_are_like_those_beside_it(store):
    for name in ("dem", "mask"):
        layout, beside = (read_layout(store.place, f"scenes/a/{n}") for n in (name, "vv"))
        assert (layout.chunk, layout.shard, layout.shape) == (beside.chunk, beside.shard, beside.shape)
        assert layout.codec == cv.BESIDE_CODEC
    assert sorted(p.name for p in (store.root / "scenes/a/mask").iterdir()) == [
        "c",
        "manifest.json",
        "zarr.json",
    ]


DTYPES = [
    ("uint8", 255, None),
    ("int16", -9999, None),
    ("int16", -9999, "continuous"),
    ("uint16", 0, "counts"),
    ("int32", None, None),
    ("uint32", 7, None),
    ("int64", -1, None),
    ("float32", None, None),
    ("float32", -9999.0, None),
    ("float64", float("nan"), "classes"),
]


@pytest.mark.compat
@pytest.mark.parametrize(("dtype", "nodata", "kind"), DTYPES)
def test_dtype_nodata_and_every_bit_are_kept(tmp_path, dtype, nodata, kind):
    values = (np.arange(300 * 270).reshape(300, 270) % 251 - 100 * (np.dtype(dtype).kind != "u")).astype(
        dtype
    )
    values[:256, :256] = (
        -0.0 if np.dtype(dtype).kind == "f" else 0
    )  # a chunk that numbers alone would leave out
    hole = np.nan if nodata is None and np.dtype(dtype).kind == "f" else nodata
    if hole is not None:
        values[280:290, 20:40] = hole
    write_band(tmp_path / "s_vv.tif", speckle((300, 270)), tiles=128)
    write_band(tmp_path / "layer.tif", values, nodata=nodata)
    words = f"layer:{kind}" if kind else "layer"
    plan = sz.plan_ingest(
        tmp_path / "s_vv.tif", tmp_path / "s.zarr", **KNOWN, layers={words: tmp_path / "layer.tif"}
    )
    store = sz.ingest(plan)
    assert stored(store, "s", "layer").tobytes() == values.tobytes()
    raw = xr.open_zarr(
        store.root, group="scenes/s", consolidated=False, mask_and_scale=False, decode_coords="all"
    )
    assert raw.layer.dtype == dtype
    assert raw.layer.rio.crs.to_epsg() == 32633
    assert raw.layer.rio.transform() == PLACE
    opened = xr.open_zarr(store.root, group="scenes/s", consolidated=False, decode_coords="all").layer
    is_masked = np.dtype(dtype).kind == "f" or (nodata is not None and kind is not None)
    if is_masked:
        missing = np.isnan(values) if hole is None or np.isnan(hole) else values == hole
        np.testing.assert_array_equal(np.isnan(opened), missing)
        assert missing.any()
        assert np.isnan(opened.rio.nodata)
    else:
        assert opened.dtype == dtype
        assert opened.rio.nodata == nodata
        np.testing.assert_array_equal(opened, values)


def test_classes_keep_only_codes_that_exist(tmp_path):
    codes = (-9999, 0, 11, 41, 95)
    write_band(tmp_path / "s_vv.tif", speckle((300, 300)), tiles=128)
    cover = classes((260, 260), dtype="int16", codes=codes, cell=3)
    elsewhere = from_origin(500_103, 5_399_897, 14, 14)
    write_band(tmp_path / "cover.tif", cover, nodata=-9999, transform=elsewhere)
    plan = sz.plan_ingest(
        tmp_path / "s_vv.tif", tmp_path / "s.zarr", **KNOWN, layers={"cover": tmp_path / "cover.tif"}
    )
    assert "warped from EPSG:32633 to EPSG:32633 at 10, mode" in str(plan)
    got = stored(sz.ingest(plan), "s", "cover")
    assert set(np.unique(got).tolist()) == set(codes)
    assert (got[0] == -9999).all()  # the raster begins 10 pixels further in


def test_an_integer_layer_that_does_not_cover_needs_a_nodata_value(tmp_path):
    write_band(tmp_path / "s_vv.tif", speckle((300, 300)), tiles=128)
    write_band(tmp_path / "m.tif", classes((100, 100)))
    files = {"store": tmp_path / "s.zarr", **KNOWN}
    with pytest.raises(
        UnsupportedRasterError, match=r"layer 'm' of scene 's': .*--layer NAME:nodata255=FILE"
    ):
        sz.plan_ingest(tmp_path / "s_vv.tif", layers={"m": tmp_path / "m.tif"}, **files)
    with pytest.raises(InvalidInputError, match="that uint8 can hold, got -1"):
        sz.plan_ingest(tmp_path / "s_vv.tif", layers={"m:nodata-1": tmp_path / "m.tif"}, **files)
    plan = sz.plan_ingest(tmp_path / "s_vv.tif", layers={"m:nodata9": tmp_path / "m.tif"}, **files)
    assert "on 1" in str(plan)  # % of the scene
    got = stored(sz.ingest(plan), "s", "m")
    np.testing.assert_array_equal(got[:100, :100], classes((100, 100)))
    assert (got[100:] == 9).all()
    assert (got[:, 100:] == 9).all()


# ------------------------------------------------------------------ which file is whose
def scenes_alike(folder, count=2):
    for i in range(count):
        write_band(folder / f"day{i}_vv.tif", speckle((300, 280), seed=i), tiles=128)
        write_band(folder / f"label_day{i}.tif", classes((300, 280), seed=i), nodata=255)
    return sorted(folder.glob("day*_vv.tif"))


def test_of_files_on_the_same_ground_the_one_with_the_scenes_name_is_its(tmp_path):
    files = scenes_alike(tmp_path)
    store = sz.ingest(
        sz.plan_ingest(files, tmp_path / "s.zarr", **KNOWN, layers={"m": tmp_path / "label_*.tif"})
    )
    for i in range(2):
        np.testing.assert_array_equal(stored(store, f"day{i}", "m"), classes((300, 280), seed=i))
    for i in range(2):
        (tmp_path / f"label_day{i}.tif").rename(tmp_path / f"label_{i}.tif")
    with pytest.raises(
        InvalidInputError, match=r"one file of layer 'm' for scene 'day0', got 2 .*label_0.tif, label_1"
    ):
        sz.plan_ingest(files, tmp_path / "t.zarr", **KNOWN, layers={"m": tmp_path / "label_*.tif"})


@pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning"
)  # written without a place on purpose
def test_a_file_without_a_place_goes_by_its_shape_and_only_where_one_scene_has_it(tmp_path):
    files = scenes_alike(tmp_path)
    nowhere = {"crs": None, "transform": rasterio.Affine.identity()}
    write_band(tmp_path / "plain.tif", classes((300, 280)), **nowhere)
    write_band(tmp_path / "small.tif", classes((30, 28)), **nowhere)
    with pytest.raises(InvalidInputError, match=r"says no place, got 2: day0, day1\. Ingest its scene alone"):
        sz.plan_ingest(files, tmp_path / "s.zarr", **KNOWN, layers={"m": tmp_path / "plain.tif"})
    with pytest.raises(
        InvalidInputError, match="30 x 28 pixels without a CRS, and has another shape than 'day0'"
    ):
        sz.plan_ingest(files[0], tmp_path / "s.zarr", **KNOWN, layers={"m": tmp_path / "small.tif"})
    store = sz.ingest(
        sz.plan_ingest(files[0], tmp_path / "s.zarr", **KNOWN, layers={"m": tmp_path / "plain.tif"})
    )
    np.testing.assert_array_equal(stored(store, "day0", "m"), classes((300, 280)))
    # brought onto a grid, the file goes where its scene goes
    words = {
        "layers": {"m:nodata255:nearest": tmp_path / "plain.tif"},
        "pixel_size": 20.0,
        "resampling": "nearest",
    }
    grid = sz.ingest(sz.plan_ingest(files[0], tmp_path / "g.zarr", **KNOWN, **words))
    assert stored(grid, "day0", "m").shape == grid.grid("day0").shape == (150, 140)


def test_who_goes_without_is_said_and_nobody_is_an_error(folder, tmp_path):
    files = sorted(folder.glob("*_vv.tif"))
    plan = sz.plan_ingest(files, tmp_path / "s.zarr", **KNOWN, layers={"mask": folder / "labels" / "one.tif"})
    assert "note: no file of layer 'mask' lies on b: stored without it." in str(plan)
    store = sz.ingest(plan)
    assert (store.layers("a"), store.layers("b")) == (("mask",), ())
    with pytest.raises(
        InvalidInputError, match=r"'mask' in every scene .* 1 of 2 without \(b; .*scenes_with\('mask'\)"
    ):
        sz.PatchReader(store, layers=["mask"])
    assert len(sz.PatchReader(store, layers=["mask"], scenes=store.scenes_with("mask")).selection) == 6
    away = write_band(
        tmp_path / "away.tif", classes((50, 50)), transform=from_origin(700_000, 100_000, 10, 10)
    )
    with pytest.raises(InvalidInputError, match=r"'away\.tif' shares no ground with 'a'"):
        sz.plan_ingest(files, tmp_path / "t.zarr", **KNOWN, layers={"mask": away})
    both = sz.plan_ingest(
        files[0], tmp_path / "t.zarr", **KNOWN, layers={"mask": [folder / "labels/one.tif", away]}
    )
    assert "note: layer 'mask': away.tif lie on no scene" in str(both)
    with pytest.raises(sz.errors.RasterNotFoundError, match="for layer 'mask', got 'nothing/"):
        sz.plan_ingest(files, tmp_path / "t.zarr", layers={"mask": "nothing/*.tif"})


def test_what_is_no_layer_is_refused_with_a_remedy(folder, tmp_path):
    files = folder / "a_vv.tif"
    with rasterio.open(
        tmp_path / "two.tif", "w", driver="GTiff", height=700, width=900, count=2, dtype="uint8", crs="EPSG:32633",
        transform=PLACE,
    ) as out:  # fmt: skip
        out.write(classes(), 2)
    with pytest.raises(InvalidInputError, match=r"expected one band in 'two\.tif' .* --layer m:band1=FILE"):
        sz.plan_ingest(files, tmp_path / "s.zarr", layers={"m": tmp_path / "two.tif"})
    store = sz.ingest(
        sz.plan_ingest(files, tmp_path / "s.zarr", **KNOWN, layers={"m:band2": tmp_path / "two.tif"})
    )
    np.testing.assert_array_equal(stored(store, "a", "m"), classes())
    write_band(tmp_path / "c.tif", np.ones(SHAPE, np.complex64))
    with pytest.raises(UnsupportedRasterError, match=r"got complex64 in 'c\.tif'\. Write its real part"):
        sz.plan_ingest(files, tmp_path / "t.zarr", **KNOWN, layers={"m": tmp_path / "c.tif"})


# ------------------------------------------------------------------ runs
@pytest.fixture(scope="module")
def reference(folder, tmp_path_factory):
    """The bytes that a run without threads writes."""
    with dask.config.set(scheduler="synchronous"):
        return tree_hash(sz.ingest(plan(folder, tmp_path_factory.mktemp("ref") / "s.zarr")).root)


def test_order_and_workers_do_not_change_a_byte(folder, reference, tmp_path, monkeypatch):
    order, plain = np.random.default_rng(1), Staged.jobs

    def shuffled(self):
        jobs = list(plain(self))
        return iter([jobs[i] for i in order.permutation(len(jobs))])

    monkeypatch.setattr(Staged, "jobs", shuffled)
    with dask.config.set(scheduler="threads", num_workers=4):
        assert tree_hash(sz.ingest(plan(folder, tmp_path / "s.zarr")).root) == reference


RUN = """
import os, signal, sys, dask, sarzarr as sz
from pathlib import Path
folder, root = Path(sys.argv[1]), sys.argv[2]
layers = {"mask": folder / "labels", "dem": folder / "dem.tif"}
plan = sz.plan_ingest(sorted(folder.glob("*_v?.tif")), root, quantity="sigma0", representation="power", shard=512,
                      layers=layers)
def die(progress):
    if any(Path(root + ".ingest").rglob("receipts/layer-*.json")):  # tasks come in any order
        os.kill(os.getpid(), signal.SIGKILL)
with dask.config.set(scheduler="synchronous"):
    sz.ingest(plan, progress=die)
"""


def test_killed_and_run_again_gives_the_same_bytes(folder, reference, tmp_path):
    root = tmp_path / "s.zarr"
    child = subprocess.run([sys.executable, "-c", RUN, str(folder), str(root)], check=False)
    assert child.returncode == -signal.SIGKILL
    staging = root.with_name("s.zarr.ingest")
    staged = [p for name in ("dem", "mask") for p in staging.rglob(f"{name}/c/*/*")]
    staged[0].write_bytes(staged[0].read_bytes()[:-10])  # what is torn is done again
    assert tree_hash(sz.ingest(plan(folder, root)).root) == reference


def test_borders_and_copies_leave_layers_as_they_are(folder, store, tmp_path):
    bordered = sz.ingest(plan(folder, tmp_path / "b.zarr", border=4))
    np.testing.assert_array_equal(stored(bordered, "a", "mask"), stored(store, "a", "mask"))
    copied = sz.copy_store(store, tmp_path / "c.zarr", dtype="float32", shard=256)
    for name in ("dem", "mask"):
        np.testing.assert_array_equal(stored(copied, "b", name), stored(store, "b", name))
        assert read_layout(copied.place, f"scenes/b/{name}").shard == (256, 256)
    _, mask = next(iter(sz.PatchReader(copied, polarizations=["vv"], layers=["mask"], batch_size=2)))
    assert mask.dtype == np.uint8


def test_layers_are_added_to_a_scene_that_is_there_and_nothing_else_is_written(folder, reference, tmp_path):
    root = tmp_path / "s.zarr"
    before = sz.ingest(plan(folder, root, layers={}))
    pixels = {p: p.stat().st_mtime_ns for p in (root / "scenes").rglob("v[vh]*/c/*/*")}
    assert pixels
    assert before.layers("a") == ()
    added = plan(folder, root, border=0)
    assert "a: is there, and gets layers alone, 2 tasks" in str(added)
    assert added.bytes_in == (700 * 900 + 600 * 520) * 5
    store = sz.ingest(added)
    assert {p: p.stat().st_mtime_ns for p in pixels} == pixels
    assert tree_hash(store.root) == reference
    assert plan(folder, root).present == plan(folder, root, layers={}).present == ("a", "b")


def test_a_layer_that_is_there_is_written_anew_on_request_alone(folder, store, tmp_path):
    root = sz.copy_store(store, tmp_path / "s.zarr", shard=256).root
    mended = {"mask": write_band(tmp_path / "mended.tif", classes(seed=8), nodata=255)}
    (refusal,) = plan(folder, root, layers=mended).refused
    assert (refusal.scene, refusal.kind) == ("a", SceneExistsError)
    assert "'mask' of 'a', which s.zarr holds from another file" in refusal.reason
    again = plan(folder, root, layers=mended, replace=True, shard=None)
    assert [(s.id, s.only_layers) for s in again.scenes] == [("a", True)]
    changed = sz.ingest(again)
    np.testing.assert_array_equal(stored(changed, "a", "mask"), classes(seed=8))
    np.testing.assert_array_equal(stored(changed, "b", "mask"), stored(store, "b", "mask"))
    assert changed.layers("a") == ("dem", "mask")
    assert read_layout(changed.place, "scenes/a/mask").shard == (256, 256)  # as the arrays beside it
    files = [write_band(tmp_path / f"a_{p}.tif", speckle(SHAPE, seed=9), tiles=128) for p in ("vv", "vh")]
    other = sz.plan_ingest(files, root, **KNOWN, layers=mended, replace=True)
    assert "note: 'a' loses its layers dem: give them again to keep them." in str(other)


def test_progress_ends_where_it_says(folder, tmp_path):
    said = []
    sz.ingest(plan(folder, tmp_path / "s.zarr", pixel_size=20.0), progress=said.append)
    assert [p.done for p in said] == sorted({p.done for p in said})
    assert {p.total for p in said} == {said[-1].done}


def test_a_name_that_an_array_has_is_refused(folder, tmp_path):
    ground = write_band(tmp_path / "ground.tif", speckle(SHAPE), tiles=128)
    with pytest.raises(InvalidInputError, match="that no array of scene 'ground' has, got 'Odd'"):
        sz.plan_ingest(
            ground, tmp_path / "s.zarr", **KNOWN, polarizations=("odd",), layers={"Odd": folder / "dem.tif"}
        )


# ------------------------------------------------------------------ delivery
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.sampled_from([(256, 256, "drop"), (256, 128, "shift"), (192, 192, "pad"), (300, 300, "pad")]),
    augment=st.sampled_from([None, "d4", "flips", "azimuth"]),
    seed=st.integers(0, 3),
    threads=st.integers(1, 3),
)
def test_layers_are_the_same_windows_turned_alike(store, cut, augment, seed, threads):
    size, stride, edge = cut
    reader = sz.PatchReader(
        store, patch_size=size, stride=stride, edge=edge, augment=augment, seed=seed, threads=threads, shuffle=True,
        layers=["dem", "mask"], with_meta=True, batch_size=5, min_unsaturated=0,
    )  # fmt: skip
    whole = {(s, n): stored(store, s, n) for s in store.scenes for n in ("dem", "mask")}
    outside = {"dem": np.float32(np.nan), "mask": np.uint8(255)}
    for batch in reader:
        assert batch["layers"]["dem"].dtype == np.float32
        assert batch["layers"]["mask"].dtype == np.uint8
        for i, scene in enumerate(batch["scene"]):
            row, col, turn = (int(batch[k][i]) for k in ("row", "col", "turn"))
            for name, values in batch["layers"].items():
                part = whole[scene, name][row : row + size, col : col + size]
                wanted = np.full((size, size), outside[name])
                wanted[: part.shape[0], : part.shape[1]] = part
                np.testing.assert_array_equal(values[i, 0], apply(turn, wanted))


def test_of_a_stack_each_date_has_its_own_layer(tmp_path):
    files = sz.write_synthetic_scenes(tmp_path / "raw", count=2, shape=(512, 512))
    labels = {day: classes((512, 512), seed=i) for i, day in enumerate(("s1_20260101", "s1_20260113"))}
    with rasterio.open(files[0]) as first:
        place = {"crs": first.crs, "transform": first.transform}
    for day, values in labels.items():
        write_band(tmp_path / f"label_{day}.tif", values, **place)
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", layers={"m": tmp_path / "label_*.tif"}))
    reader = sz.PatchReader(
        store, stack=True, layers=["m"], augment="d4", with_meta=True, min_unsaturated=0, batch_size=4
    )
    batch = next(iter(reader))
    assert batch["image"].shape == (4, 2, 2, 256, 256)
    for i, dates in enumerate(batch["scene"]):
        row, col, turn = (int(batch[k][i]) for k in ("row", "col", "turn"))
        for date, day in enumerate(dates):
            wanted = apply(turn, labels[day][row : row + 256, col : col + 256])
            np.testing.assert_array_equal(batch["layers"]["m"][i, date, 0], wanted)


def test_batches_outlive_each_other(store):
    reader = sz.PatchReader(store, layers="mask", batch_size=1, min_unsaturated=0, threads=2)
    kept = list(reader)
    again = [reader.read([i]) for i in range(len(kept))]
    for (_, one), (_, other) in zip(kept, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_layer_without_nodata_has_nothing_to_stand_beyond_the_edge(tmp_path):
    write_band(tmp_path / "s_vv.tif", speckle((300, 300)), tiles=128)
    write_band(tmp_path / "m.tif", classes((300, 300)))
    store = sz.ingest(
        sz.plan_ingest(tmp_path / "s_vv.tif", tmp_path / "s.zarr", **KNOWN, layers={"m": tmp_path / "m.tif"})
    )
    with pytest.raises(InvalidInputError, match=r"nodata value .* layer 'm' beyond .*edge='shift'"):
        sz.PatchReader(store, layers=["m"], patch_size=256, edge="pad", min_valid=0, min_unsaturated=0)
    shift = sz.PatchReader(store, layers=["m"], patch_size=256, edge="shift", min_unsaturated=0)
    assert (shift.read([0])[1].shape, shift.layer_nodata) == ((1, 1, 256, 256), {"m": None})


def test_scenes_that_disagree_in_a_layer_are_not_mixed(tmp_path):
    files = scenes_alike(tmp_path)
    write_band(tmp_path / "label_day1.tif", classes((300, 280), dtype="int16"), nodata=-1)
    store = sz.ingest(
        sz.plan_ingest(files, tmp_path / "s.zarr", **KNOWN, layers={"m": tmp_path / "label_*.tif"})
    )
    with pytest.raises(
        InvalidInputError, match="one dtype for layer 'm' in all scenes, got int16 in 'day1'; uint8"
    ):
        sz.PatchReader(store, layers=["m"], min_unsaturated=0)


def test_torch_gets_layers_as_further_tensors(store, tmp_path):
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader

    from sarzarr.torch import LazyPatchDataset, SARDataModule, ZarrPatchDataset

    train = ZarrPatchDataset(
        store,
        polarizations=["vv"],
        layers=["mask", "dem"],
        channels=3,
        augment="d4",
        min_unsaturated=0,
        batch_size=4,
    )
    for workers in (0, 1):
        images, mask, dem = next(iter(DataLoader(train, batch_size=None, num_workers=workers)))
        assert images.shape == (4, 3, 256, 256)
        assert (mask.dtype, dem.dtype, mask.shape) == (torch.uint8, torch.float32, (4, 1, 256, 256))
    assert train.layer_nodata["mask"] == 255
    loss = torch.nn.CrossEntropyLoss(ignore_index=train.layer_nodata["mask"])
    assert loss(torch.zeros(4, 8, 256, 256), mask[:, 0].long()).isfinite()
    for refused in (LazyPatchDataset, lambda *a, **k: SARDataModule(*a, lazy=False, **k)):
        with pytest.raises(InvalidInputError, match="layers="):
            refused(store, layers=["mask"])
    write_band(tmp_path / "s_vv.tif", speckle((256, 256)), tiles=128)
    write_band(tmp_path / "n.tif", np.full((256, 256), 65535, np.uint16))
    wide = sz.ingest(
        sz.plan_ingest(tmp_path / "s_vv.tif", tmp_path / "s.zarr", **KNOWN, layers={"n": tmp_path / "n.tif"})
    )
    _, numbers = next(iter(ZarrPatchDataset(wide, layers=["n"], min_unsaturated=0)))
    assert (numbers.dtype, int(numbers.min())) == (torch.int32, 65535)


# ------------------------------------------------------------------ the command line
def test_the_command_line_plans_writes_and_shows_layers(folder, tmp_path):
    root = tmp_path / "s.zarr"
    said = [
        "ingest",
        str(folder / "a_vv.tif"),
        "-o",
        str(root),
        "--quantity",
        "sigma0",
        "--representation",
        "power",
    ]
    said += ["--layer", f"mask={folder}/labels/*.tif", "--layer", f"dem:average={folder}/dem.tif"]
    run = CliRunner()
    shown = run.invoke(app, [*said, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert (
        "layer mask: uint8 classes, nodata 255; one.tif band 1: passed through, its own grid" in shown.output
    )
    assert "layer dem: float32 continuous, nodata nan; dem.tif band 1: warped from EPSG:4326" in shown.output
    assert not root.exists()
    done = run.invoke(app, said)
    assert done.exit_code == 0, done.output
    assert (
        "layers: dem (continuous, average), mask (classes, nodata 255)"
        in run.invoke(app, ["info", str(root)]).output
    )


def test_the_plan_counts_layers(folder, tmp_path):
    without, with_layers = plan(folder, tmp_path / "s.zarr", layers={}), plan(folder, tmp_path / "s.zarr")
    pixels = [700 * 900, 600 * 520]
    assert with_layers.bytes_in - without.bytes_in == sum(n * (1 + 4) for n in pixels)
    assert with_layers.bytes_out > without.bytes_out
    assert with_layers.tasks - without.tasks == 4
    assert with_layers.peak_memory > without.peak_memory  # one is warped
