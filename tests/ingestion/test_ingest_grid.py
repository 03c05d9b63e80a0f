"""Scenes brought onto a grid on the way in: untouched where they fit, warped in power where they do not."""

import numpy as np
import pytest
import zarr
from conftest import read_band, speckle, tree_hash, write_band
from rasterio.transform import from_origin

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, SceneExistsError

KNOWN = {"quantity": "sigma0", "representation": "power"}


def pixels(store, scene):
    return store.open_scene(scene)["vv"].values


def test_a_grid_that_fits_writes_the_same_bytes_as_none(tmp_path):
    path = write_band(tmp_path / "a_vv.tif", speckle((1200, 900)))
    plain = sz.ingest(sz.plan_ingest(path, tmp_path / "p" / "s.zarr", **KNOWN))
    plan = sz.plan_ingest(path, tmp_path / "g" / "s.zarr", crs="EPSG:32633", pixel_size=10, **KNOWN)
    assert "passthrough" in str(plan)
    assert "its own grid" in str(plan)
    assert tree_hash(sz.ingest(plan).root) == tree_hash(plain.root)


def test_a_whole_pixel_offset_is_a_window_copy(tmp_path):
    raw = speckle((700, 900))
    first = write_band(tmp_path / "a_vv.tif", raw)
    moved = from_origin(500_000 + 50 * 10, 5_400_000 - 30 * 10, 10, 10)
    store = sz.ingest(sz.plan_ingest(first, tmp_path / "s.zarr", **KNOWN))
    other = write_band(tmp_path / "b_vv.tif", raw[30:, 50:].copy(), transform=moved)
    store = sz.ingest(sz.plan_ingest(other, store.root, like="a", **KNOWN))
    assert store.grid("b") == store.grid("a")
    np.testing.assert_array_equal(pixels(store, "b")[30:, 50:], pixels(store, "a")[30:, 50:])
    flags = store.open_scene("b")["vv_flags"].values
    assert (flags[:30] == cv.Flag.NODATA).all()
    assert (flags[30:, 50:] == cv.Flag.VALID).all()


def test_the_same_grid_in_another_zone_is_a_warp_of_power_on_one_lattice(tmp_path):
    raw = speckle((1000, 1000), seed=2)
    power = write_band(tmp_path / "a_vv.tif", raw)
    db = write_band(tmp_path / "b_vv.tif", (10 * np.log10(raw)).astype(np.float32))
    amplitude = write_band(tmp_path / "d_vv.tif", np.sqrt(raw))
    means = {}
    for path, form in ((power, "power"), (db, "db"), (amplitude, "amplitude")):
        plan = sz.plan_ingest(
            path, tmp_path / "s.zarr", quantity="sigma0", representation=form, crs="EPSG:32632", pixel_size=30
        )
        assert "average" in str(plan)
        assert "looks unknown" in str(plan)
        store = sz.ingest(plan)
        means[form] = float(store.power(path.stem[0], "vv").mean())
    truth = 10 * np.log10(raw.mean())
    for mean in means.values():
        assert abs(10 * np.log10(mean) - truth) < 0.02
    grid = store.grid("a")
    assert grid == store.grid("b") == store.grid("d")
    assert all(abs(v / 30 - round(v / 30)) < 1e-9 for v in (grid.transform[2], grid.transform[5]))
    attrs = store.open_scene("a")["vv"].attrs
    assert attrs[cv.RESAMPLING] == "average"
    assert attrs[cv.RESAMPLING_LOOKS] == "unknown"
    assert store.db("a").rio.crs.to_epsg() == 32632


@pytest.mark.parametrize("shard", [512, 2048])
def test_a_warped_store_does_not_depend_on_its_blocks(tmp_path, shard):
    raw = speckle((2600, 2300), seed=3)
    raw[:, :200] = 0
    raw[1200:1260, 1200:1260] = 0
    path = write_band(tmp_path / "a_vv.tif", raw, tiles=256)
    options = {"crs": "EPSG:32632", "pixel_size": 10, "resampling": "nearest", **KNOWN}
    store = sz.ingest(sz.plan_ingest(path, tmp_path / "s.zarr", shard=shard, **options))
    flags, codes = store.open_scene("a")["vv_flags"].values, pixels(store, "a")
    dark = flags == cv.Flag.NONPOSITIVE
    assert 3000 < dark.sum() < 4200
    np.testing.assert_array_equal(np.isnan(codes), flags >= cv.Flag.NODATA)
    whole = sz.ingest(sz.plan_ingest(path, tmp_path / "w.zarr", shard=4096, **options))
    np.testing.assert_array_equal(whole.open_scene("a")["vv_flags"].values, flags)
    np.testing.assert_array_equal(pixels(whole, "a"), codes)
    assert 0.9 < (flags == cv.Flag.VALID).sum() / ((raw > 0).sum()) < 1.1


@pytest.mark.slow
def test_gcps_are_georeferenced_by_spline_and_say_so(real_data, tmp_path):
    grd = sorted((real_data / "s1_grd_dn_gcp_safe").rglob("iw-v?.tiff"))
    plan = sz.plan_ingest(grd, tmp_path / "s.zarr")
    assert "--crs and --pixel-size georeference it" in str(plan)
    store = sz.ingest(sz.plan_ingest(grd, tmp_path / "s.zarr", crs="EPSG:4326", pixel_size=0.002))
    (scene,) = store.scenes
    opened = store.open_scene(scene)
    assert opened.attrs[cv.GEOLOCATION] == "gcp_tps_no_dem"
    assert opened.vv.attrs[cv.GEOLOCATION] == "gcp_tps_no_dem"
    assert cv.GCPS not in opened.attrs
    assert opened.rio.crs.to_epsg() == 4326
    lit = store.open_scene(scene)["vv_flags"].values == cv.Flag.VALID
    assert 0.3 < lit.mean() < 0.98
    source = read_band(grd[1], 1).astype(float)
    mean = 10 * np.log10((source[source > 0] ** 2).mean())
    assert abs(10 * np.log10(float(store.power(scene, "vv").mean())) - mean) < 1


def test_what_names_no_grid_says_what_does(tmp_path, real_data):
    path = write_band(tmp_path / "a_vv.tif", speckle((300, 300)))
    with pytest.raises(InvalidInputError, match="--pixel-size"):
        sz.plan_ingest(path, tmp_path / "s.zarr", crs="EPSG:32632", **KNOWN)
    with pytest.raises(InvalidInputError, match="Ingest that scene first"):
        sz.plan_ingest(path, tmp_path / "s.zarr", like="b", **KNOWN)
    with pytest.raises(InvalidInputError, match="Leave one out"):
        sz.plan_ingest(path, tmp_path / "s.zarr", like="b", crs="EPSG:32632", **KNOWN)
    store = sz.ingest(sz.plan_ingest(path, tmp_path / "s.zarr", **KNOWN))
    with pytest.raises(SceneExistsError, match="on another grid"):
        sz.plan_ingest(path, store.root, crs="EPSG:32633", pixel_size=20, **KNOWN)


@pytest.mark.parametrize(
    ("crs", "pixel_size", "unit", "hint"),
    [
        (None, 0.0001, "metres, the unit of EPSG:32633", "Pass --pixel-size 10,"),
        ("EPSG:32632", 0.0001, "metres, the unit of EPSG:32632", "times as fine"),
        ("EPSG:4326", 10, "degrees, the unit of EPSG:4326", "larger than the whole scene"),
    ],
)
def test_a_pixel_size_of_another_unit_is_refused_at_once(tmp_path, crs, pixel_size, unit, hint):
    path = write_band(tmp_path / "a_vv.tif", speckle((700, 700)))
    with pytest.raises(InvalidInputError) as refusal:
        sz.plan_ingest(path, tmp_path / "s.zarr", crs=crs, pixel_size=pixel_size, **KNOWN)
    assert unit in str(refusal.value)
    assert hint in str(refusal.value)


@pytest.mark.parametrize(("crs", "pixel_size"), [(None, 0.5), (None, 500), ("EPSG:4326", 0.0001)])
def test_a_finer_or_coarser_pixel_of_the_same_unit_is_taken(tmp_path, crs, pixel_size):
    path = write_band(tmp_path / "a_vv.tif", speckle((700, 700)))
    plan = sz.plan_ingest(path, tmp_path / "s.zarr", crs=crs, pixel_size=pixel_size, **KNOWN)
    assert plan.scenes[0].grid.pixel_size == (pixel_size, pixel_size)


def test_percentiles_that_an_interrupted_run_found_are_of_its_grid_alone(tmp_path):
    path = write_band(tmp_path / "a_vv.tif", speckle((600, 600)))
    classic = KNOWN | {"bounds": "percentile", "crs": "EPSG:32633"}

    def stop(progress):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sz.ingest(sz.plan_ingest(path, tmp_path / "s.zarr", pixel_size=20, **classic), progress=stop)
    store = sz.ingest(sz.plan_ingest(path, tmp_path / "s.zarr", pixel_size=80, **classic))
    whole = sz.ingest(sz.plan_ingest(path, tmp_path / "whole.zarr", pixel_size=80, **classic))
    assert store.bounds == whole.bounds


@pytest.mark.parametrize("form", ["power", "amplitude", "complex"])
@pytest.mark.parametrize("options", [{}, {"resampling": "bilinear"}, {"border": 1}])
def test_zeros_that_a_tag_or_a_mask_lets_through_are_dark_after_a_warp(tmp_path, options, form):
    raw = speckle((300, 300))
    raw[:, :20], raw[:, 200:] = 0, 7
    if form == "complex":
        raw = raw.astype(np.complex64)
    path = write_band(tmp_path / "a_vv.tif", raw, nodata=7)
    known = KNOWN | {"representation": form, "crs": "EPSG:32633", "pixel_size": 20}
    store = sz.ingest(sz.plan_ingest(path, tmp_path / "s.zarr", **known, **options))
    flags, codes = (zarr.open_array(store.root / "scenes/a" / name)[:] for name in ("vv_flags", "vv"))
    assert (flags[:, :9] == cv.Flag.NONPOSITIVE).all()
    assert (codes[:, :9] == 1).all()
    assert (flags[:, 101:] == cv.Flag.NODATA).all()
    assert store.histogram("a", "vv").nonpositive == np.count_nonzero(flags == cv.Flag.NONPOSITIVE)
