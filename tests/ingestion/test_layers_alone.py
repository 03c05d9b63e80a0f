"""Scenes of layers alone: plain rasters go in without backscatter, and whatever asks for backscatter is told."""

import numpy as np
import pytest
import xarray as xr
from conftest import speckle, tree_hash, write_band
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr.cli.app import app
from sarzarr.errors import (
    InvalidInputError,
    NotInStoreError,
    SceneExistsError,
    SceneIdError,
    UnsupportedRasterError,
)
from sarzarr.ingestion.waiting import waiting
from sarzarr.splits.versions import grounds_of

SHAPE = (300, 400)
GRID = {"crs": "EPSG:32633", "pixel_size": 20}


def counts(shape=SHAPE, *, seed=0, high=40):
    """Return small whole numbers with true zeros, int16; -1 is no data."""
    out = np.random.default_rng(seed).integers(0, high, shape).astype(np.int16)
    out[100:140, 60:100] = 0
    out[20:40, 30:90] = -1
    return out


@pytest.fixture
def rasters(tmp_path):
    folder = tmp_path / "rasters"
    folder.mkdir()
    write_band(folder / "richness.tif", counts(), nodata=-1)
    write_band(
        folder / "cover.tif",
        np.kron(counts((30, 40), high=4).clip(0), np.ones((10, 10), np.int16)).astype(np.uint8),
    )
    return folder


@pytest.fixture
def store(rasters, tmp_path):
    layers = {"richness:counts": rasters / "richness.tif", "cover": rasters / "cover.tif"}
    return sz.ingest(sz.plan_ingest([], tmp_path / "s.zarr", layers=layers))


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def command(rasters, root, *words):
    return ["ingest", "--layer", f"richness:counts={rasters / 'richness.tif'}", "-o", root, *words]


def test_one_command_makes_a_scene_of_counts_with_their_totals(rasters, tmp_path):
    done = run(*command(rasters, tmp_path / "s.zarr", "--crs", "EPSG:32633", "--pixel-size", 20))
    assert done.exit_code == 0, done.output
    assert "layers alone" in done.output
    assert "layers: richness (counts, sum)" in run("info", tmp_path / "s.zarr").output
    plain = xr.open_zarr(tmp_path / "s.zarr", group="scenes/richness", decode_coords="all").richness
    own = counts().astype(float)
    assert float(plain.sum()) == pytest.approx(own[own >= 0].sum())
    assert int((plain == 0).sum()) > 0  # zeros are counts
    assert plain.rio.crs.to_epsg() == 32633
    assert plain.rio.resolution() == (20, -20)
    assert float(plain.y[0]) == 5_399_990  # a centre


def test_without_a_grid_it_keeps_its_own_to_the_bit(store):
    assert store.scenes == ("richness",)
    assert store.layers("richness") == ("cover", "richness")
    plain = xr.open_zarr(store.root, group="scenes/richness", decode_coords="all", mask_and_scale=False)
    np.testing.assert_array_equal(plain.richness.values, counts())
    opened = store.open_scene("richness")
    assert set(opened.data_vars) == {"cover", "richness"}
    np.testing.assert_array_equal(opened.richness.fillna(-1).values, counts())
    assert opened.cover.dtype == np.uint8
    assert store.grid("richness").shape == SHAPE
    assert xr.open_datatree(store.root, engine="zarr")["scenes/richness"].cover.shape == SHAPE


def test_a_grid_resamples_as_gdal_does(rasters, tmp_path):
    layers = {"cover": rasters / "cover.tif"}
    store = sz.ingest(sz.plan_ingest([], tmp_path / "s.zarr", layers=layers, **GRID))
    import rasterio

    with rasterio.open(rasters / "cover.tif") as file:
        target = {
            "crs": "EPSG:32633",
            "transform": from_origin(500_000, 5_400_000, 20, 20),
            "width": 200,
            "height": 150,
        }
        with WarpedVRT(file, resampling=Resampling.mode, **target) as expected:
            np.testing.assert_array_equal(store.open_scene("cover").cover.values, expected.read(1))


def test_each_file_of_the_first_layer_is_a_scene(tmp_path):
    for i, name in enumerate(("north", "south")):
        write_band(
            tmp_path / f"{name}.tif",
            counts(seed=i),
            nodata=-1,
            transform=from_origin(0, 9_000 * (i + 1), 10, 10),
        )
    write_band(
        tmp_path / "dem.tif",
        np.random.default_rng(0).random((4000, 900)).astype("f4"),
        transform=from_origin(0, 20_000, 10, 10),
    )
    plan = sz.plan_ingest(
        [],
        tmp_path / "s.zarr",
        layers={"n": [tmp_path / "north.tif", tmp_path / "south.tif"], "dem": tmp_path / "dem.tif"},
    )
    store = sz.ingest(plan)
    assert store.scenes == ("north", "south")
    assert all(store.layers(scene) == ("dem", "n") for scene in store.scenes)
    with pytest.raises(SceneIdError, match="one file of layer 'n' for scene 'x', got 2"):
        sz.plan_ingest(
            [], tmp_path / "t.zarr", layers={"n": [tmp_path / "north.tif", tmp_path / "south.tif"]}, id="x"
        )


# ------------------------------------------------------------------ again
def test_the_same_command_again_does_nothing_and_a_layer_is_added(rasters, store, tmp_path):
    before = tree_hash(store.root)
    again = sz.plan_ingest([], store.root, layers={"richness:counts": rasters / "richness.tif"})
    assert (again.scenes, again.present) == ((), ("richness",))
    sz.ingest(again)
    assert tree_hash(store.root) == before
    write_band(rasters / "dem.tif", speckle(SHAPE))
    added = sz.plan_ingest([], store.root, layers={"dem": rasters / "dem.tif"}, id="richness")
    assert "gets layers alone" in str(added)
    assert sz.ingest(added).layers("richness") == ("cover", "dem", "richness")
    assert sz.verify(store.root, deep=True)


def test_another_file_or_grid_is_refused_unless_it_replaces(rasters, store):
    write_band(rasters / "richness.tif", counts(seed=5), nodata=-1)
    layers = {"richness:counts": rasters / "richness.tif"}
    with pytest.raises(SceneExistsError, match="from another file"):
        sz.plan_ingest([], store.root, layers=layers)
    sz.ingest(sz.plan_ingest([], store.root, layers=layers, replace=True))
    np.testing.assert_array_equal(
        store.anew().open_scene("richness").richness.fillna(-1).values, counts(seed=5)
    )
    with pytest.raises(SceneExistsError, match="on another grid"):
        sz.plan_ingest([], store.root, layers=layers, **GRID)
    made = sz.ingest(sz.plan_ingest([], store.root, layers=layers, replace=True, shard=512, **GRID))
    assert made.grid("richness").shape == (150, 200)
    assert made.layers("richness") == ("richness",)
    assert sz.verify(store.root, deep=True)


def test_a_scene_of_layers_is_not_one_of_backscatter(rasters, store, tmp_path):
    scene = write_band(tmp_path / "sigma0_vv.tif", speckle(SHAPE))
    with pytest.raises(SceneExistsError, match="holds as layers alone"):
        sz.plan_ingest(scene, store.root, id="richness")
    sz.ingest(sz.plan_ingest(scene, store.root, id="sar"))
    with pytest.raises(SceneExistsError, match=r"holds as backscatter \(vv\); to add layers, give its files"):
        sz.plan_ingest([], store.root, layers={"cover": rasters / "cover.tif"}, id="sar")


def test_an_interrupted_run_ends_with_the_same_bytes(rasters, store, tmp_path, monkeypatch):
    from sarzarr.ingestion import run as running

    plan = sz.plan_ingest(
        [],
        tmp_path / "t.zarr",
        layers={"richness:counts": rasters / "richness.tif", "cover": rasters / "cover.tif"},
    )
    with monkeypatch.context() as patched:
        patched.setattr(running, "_enter", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sz.ingest(plan)
    assert waiting(sz.open_store(tmp_path / "t.zarr")).staged == 1
    assert tree_hash(sz.ingest(plan).root) == tree_hash(store.root)


# ------------------------------------------------------------------ what there is none of
def test_whatever_reads_backscatter_says_that_there_is_none(store):
    with pytest.raises(
        NotInStoreError, match=r"backscatter of scene 'richness' .* got layers alone \(cover, richness\)"
    ):
        store.db("richness")
    with pytest.raises(NotInStoreError, match="layers alone"):
        store.power("richness")
    with pytest.raises(NotInStoreError, match="layers alone"):
        sz.PatchReader(store, scenes=["richness"])
    with pytest.raises(InvalidInputError, match="The store has no backscatter"):
        sz.PatchReader(store)
    with pytest.raises(InvalidInputError, match="a store without backscatter"):
        sz.write_quicklook(store, store.root.with_name("x.png"))
    with pytest.raises(NotInStoreError, match="layers alone"):
        sz.find_stacks(store, scenes=["richness"])
    with pytest.raises(NotInStoreError, match="scenes with an array were expected, got none"):
        sz.find_stacks(store)
    assert store.catalog.sizes["array"] == store.patches().sizes["patch"] == 0
    with pytest.raises(Exception, match="scenes"):
        sz.make_split(store)


def test_it_takes_no_part_in_what_backscatter_does(store, tmp_path):
    write_band(
        tmp_path / "sigma0_vv.tif", speckle((600, 700)), transform=from_origin(500_000, 5_400_000, 100, 100)
    )
    mixed = sz.ingest(sz.plan_ingest(tmp_path / "sigma0_vv.tif", store.root, id="sar"))
    assert mixed.scenes == ("richness", "sar")
    batch = next(iter(sz.PatchReader(mixed, batch_size=2, min_unsaturated=0)))
    assert batch.shape == (2, 1, 256, 256)
    grounds = grounds_of(mixed)
    assert [ground.scene for ground in grounds.scenes] == ["sar"]
    assert "sar" in run("stacks", store.root).output
    assert sz.write_quicklook(mixed, tmp_path / "x.png").exists()
    assert sz.verify(store.root, deep=True)


@pytest.mark.parametrize(
    "option",
    [{"quantity": "sigma0"}, {"border": 4}, {"dtype": "float32"}, {"bounds": "fixed"}, {"nodata": 0.0}],
)
def test_an_option_of_backscatter_is_refused(rasters, tmp_path, option):
    with pytest.raises(
        InvalidInputError, match=f"expected scenes for --{next(iter(option))}, got layers alone"
    ):
        sz.plan_ingest([], tmp_path / "s.zarr", layers={"n": rasters / "richness.tif"}, **option)


def test_nothing_at_all_is_still_an_error(tmp_path):
    done = run("ingest", "-o", tmp_path / "s.zarr")
    assert done.exit_code != 0
    with pytest.raises(InvalidInputError, match=r"at least one GeoTIFF .* --layer NAME=FILE"):
        sz.plan_ingest([], tmp_path / "s.zarr")


def test_a_raster_that_lies_nowhere_near_is_refused_by_its_scene(rasters, tmp_path):
    write_band(rasters / "nowhere.tif", counts(), crs=None, transform=from_origin(0, 0, 2, 2))
    with pytest.raises(UnsupportedRasterError, match=r"nowhere.tif: expected a raster with a CRS"):
        sz.plan_ingest([], tmp_path / "s.zarr", layers={"n": rasters / "nowhere.tif"}, **GRID)


# ------------------------------------------------------------------ kept, copied, taken out, mended
def test_it_is_copied_and_removed(store, tmp_path):
    copy = sz.copy_store(store, tmp_path / "copy.zarr", dtype="float32", shard=512)
    assert sz.verify(copy, deep=True)
    xr.testing.assert_identical(copy.open_scene("richness").load(), store.open_scene("richness").load())
    flat = sz.copy_store(store, tmp_path / "flat.zarr", shard=0)
    assert sz.verify(flat, deep=True)
    assert sz.verify(sz.copy_store(flat, tmp_path / "back.zarr", shard=2048), deep=True)
    assert sz.remove_scene(copy, "richness").scenes == ()
    assert sz.verify(copy.anew(), deep=True)


@pytest.mark.parametrize(
    "damaged",
    [
        "scenes/richness/richness/c/0/0",
        "catalog/name/c/0",
        "catalog/chunk/c/0",
        "scenes/richness/y/c/0",
        "scenes/richness/zarr.json",
    ],
)
def test_damage_is_found_and_repaired(rasters, store, damaged):
    before = tree_hash(store.root)
    place = store.root / damaged
    raw = bytearray(place.read_bytes())
    raw[len(raw) // 2] ^= 1
    place.write_bytes(raw)
    assert not sz.verify(store.root)
    mended = sz.repair(store.root, [rasters])
    assert mended, mended
    assert tree_hash(store.root) == before
