"""GeoTIFFs to a store: what goes in, what stands there, and that nothing depends on how it was cut."""

import json
from pathlib import Path

import dask
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
import zarr
from conftest import REAL, read_band, speckle, tree_hash, write_band
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.errors import SceneExistsError, UnsupportedRasterError
from sarzarr.grids.georeference import Georeference

STEP = (cv.DB_CEILING - cv.DB_FLOOR) / cv.STEPS


def stored(store, scene, name):
    return zarr.open_array(store.root / "scenes" / scene / name, mode="r")[:]


def expected_flags(raw, nodata, representation):
    """The flags of a raster as the design words them, from the raster as a whole."""
    invalid = ~np.isfinite(raw)
    if nodata is not None and not np.isnan(nodata):
        invalid |= raw == nodata
    power = np.abs(raw) if representation in ("amplitude", "complex") else raw
    dark = np.zeros(raw.shape, bool) if representation == "db" else power <= 0
    if representation == "amplitude":
        invalid |= raw < 0
    elif representation == "db":
        invalid |= (raw < -100) | (raw > 100) | (raw == -99)
        is_repeated = np.count_nonzero(raw == 0) > raw.size / 1000 > 0.1
        invalid |= (raw == 0) & (nodata is None or np.isnan(nodata) or is_repeated)
    if nodata is None or np.isnan(nodata):
        regions, _ = ndimage.label((raw == 0) & ~invalid)
        edge = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
        invalid |= np.isin(regions, np.unique(edge[edge > 0]))
    flags = np.zeros(raw.shape, np.uint8)
    flags[dark] = cv.Flag.NONPOSITIVE
    flags[invalid] = cv.Flag.NODATA
    return flags


def db_of(raw, representation):
    """Raw values in dB, float64, by the textbook; what is not positive becomes NaN."""
    values = np.abs(raw).astype(np.float64) if np.iscomplexobj(raw) else raw.astype(np.float64)
    if representation == "db":
        return values
    power = values**2 if representation in ("amplitude", "complex") else values
    return np.where(power > 0, 10 * np.log10(np.where(power > 0, power, 1)), np.nan)


def check_scene(store, scene, sources):
    """Hold every array of a scene against its file: flags exactly, values within half a code."""
    for name, (path, band, representation, nodata) in sources.items():
        raw = read_band(path, band)
        flags = stored(store, scene, name + "_flags")
        np.testing.assert_array_equal(
            flags, expected_flags(raw, nodata, representation), err_msg=f"{scene} {name}"
        )
        db = store.db(scene, name).values
        assert db.dtype == np.float32
        assert (np.isnan(db) == (flags >= cv.Flag.NODATA)).all()
        assert (db[flags == cv.Flag.NONPOSITIVE] == cv.DB_FLOOR).all()
        assert ((stored(store, scene, name) == 0) == (flags >= cv.Flag.NODATA)).all()
        lit = flags == cv.Flag.VALID
        truth = np.clip(db_of(raw, representation)[lit], *cv.STORED_RANGE)
        np.testing.assert_allclose(db[lit], truth, rtol=0, atol=STEP / 2 + 2e-5)


# ------------------------------------------------------------------ real scenes
def test_real_scenes_are_understood_as_what_they_are(real_store):
    catalog = real_store.catalog
    found = {
        (s, n): (q, r)
        for s, n, q, r in zip(
            *(catalog[k].values for k in ("scene", "name", "quantity", "source_representation")), strict=True
        )
    }
    assert found == {
        ("s1_db_utm_nodata0", "vv"): ("power", "db"),
        ("s1_db_utm_nodata0", "vh"): ("power", "db"),
        ("S1_IW_GRD_panama_700_amp", "vv"): ("dn", "amplitude"),
        ("S1_IW_GRD_panama_700_amp", "vh"): ("dn", "amplitude"),
        ("s1_sigma0_linear_snap", "vh"): ("sigma0", "power"),
        ("Spain_7370579_S1Hand", "vv"): ("power", "db"),
        ("Spain_7370579_S1Hand", "vh"): ("power", "db"),
        **{
            (f"s1_timeseries_nogeo_{d}", "band_1"): ("power", "power")
            for d in (20190428, 20190510, 20190522, 20190603, 20190615)
        },
    }
    assert len(real_store.scenes) == 9
    assert real_store.patches().sizes["patch"] == 68


def test_real_scenes_come_back_within_half_a_code(real_store, real_data):
    for name in REAL:
        path = real_data / name
        scene = sz.group_scenes([sz.probe_file(path)])[0].id
        rows = real_store.rows(scene)
        probed = {a.name: a for a in sz.probe_file(path).arrays}
        sources = {
            n: (path, probed[n].band, r, probed[n].nodata)
            for n, r in zip(rows["name"].values, rows["source_representation"].values, strict=True)
            if n in probed
        }
        assert sources
        check_scene(real_store, scene, sources)


@pytest.mark.compat
def test_every_reader_opens_the_store_and_agrees(real_store):
    import tensorstore

    root = real_store.root
    tree = xr.open_datatree(root, engine="zarr")
    for scene in real_store.scenes:
        alone = xr.open_zarr(root, group=f"scenes/{scene}", decode_coords="all")
        for name in real_store.rows(scene)["name"].values:
            codes = stored(real_store, scene, name)
            z = np.where(codes == 0, np.nan, (codes - 1.0) / 65534)
            np.testing.assert_allclose(tree[f"scenes/{scene}/{name}"].values, z, rtol=0, atol=1e-12)
            np.testing.assert_allclose(alone[name].values, z, rtol=0, atol=1e-12)
            spec = {"driver": "zarr3", "kvstore": f"file://{root}/scenes/{scene}/{name}/"}
            opened = tensorstore.open(spec, read=True, open=True).result()
            np.testing.assert_array_equal(opened.read().result(), codes)


@pytest.mark.compat
def test_rioxarray_finds_crs_and_transform_unrepaired(real_store, real_data):
    for scene, path in {
        "s1_db_utm_nodata0": "s1_db_utm_nodata0/VV.tif",
        "S1_IW_GRD_panama_700_amp": "s1_grd_amplitude/S1_IW_GRD_panama_700_amp_VV_VH.tif",
        "s1_sigma0_linear_snap": "s1_sigma0_linear_snap/VH.tif",
        "Spain_7370579_S1Hand": "s1_floods_db_mask/Spain_7370579_S1Hand.tif",
    }.items():
        with rasterio.open(real_data / path) as file:
            opened = xr.open_zarr(real_store.root, group=f"scenes/{scene}", decode_coords="all")
            for name in real_store.rows(scene)["name"].values:
                assert opened[name].rio.crs == file.crs
                assert opened[name].rio.transform().almost_equals(file.transform, precision=1e-9)
                assert xr.open_zarr(real_store.root, group=f"scenes/{scene}")[name].rio.crs == file.crs
            assert real_store.db(scene).rio.crs == file.crs
    plain = xr.open_zarr(real_store.root, group="scenes/s1_timeseries_nogeo_20190428", decode_coords="all")
    assert plain.rio.crs is None
    assert "spatial_ref" not in plain
    np.testing.assert_array_equal(plain.y[:2], [0.5, 1.5])


def test_the_lazy_chain_computes_the_codes_that_ingest_wrote(real_store, real_data):
    for name in REAL:
        path = real_data / name
        scene = sz.open_scene(path)
        scene_id = sz.group_scenes([sz.probe_file(path)])[0].id
        power = sz.to_power(scene)
        for array in power.data_vars:
            entry = real_store.bounds[f"{array}/{scene[array].attrs[cv.QUANTITY]}"]
            z = sz.normalize(sz.to_db(power[array]), (entry.vmin, entry.vmax))
            np.testing.assert_array_equal(sz.to_codes(z).values, stored(real_store, scene_id, array))


def test_the_clip_is_within_a_bin_of_numpy(real_store, real_data):
    for key in real_store.bounds:
        catalog = real_store.catalog
        rows = np.flatnonzero(catalog["bounds_key"].values == key)
        parts = []
        for i in rows:
            scene, name = catalog["scene"].values[i], catalog["name"].values[i]
            db = real_store.db(scene, name).values
            parts.append(db[stored(real_store, scene, name + "_flags") == cv.Flag.VALID])
        low, high = np.percentile(np.concatenate(parts), [1, 99])
        entry = real_store.bounds[key]
        assert abs(entry.clip_vmin - low) <= STEP  # a bin, and the half code that the store rounds to
        assert abs(entry.clip_vmax - high) <= STEP


def test_scenes_smaller_than_a_chunk_go_in_and_give_no_patch(real_data, tmp_path):
    files = sorted((real_data / "s1_rtc_db_float64").glob("*.tif"))
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "a.zarr", polarizations=("VV", "VH")))
    assert store.catalog["name"].values.tolist() == ["vh", "vv"] * 2
    table = store.patches()
    assert table.sizes["patch"] == 0
    assert table.attrs["dropped"] == 4
    padded = sz.index_patches(store, edge="pad", name="padded")
    assert padded.sizes["patch"] == 4
    np.testing.assert_allclose(padded["valid_fraction"], (224 / 256) ** 2)
    for path in files:
        check_scene(store, path.stem, {"vv": (path, 1, "db", None), "vh": (path, 2, "db", None)})


def test_gcps_zero_borders_complex_and_nan_are_flagged_as_the_design_says(real_data, tmp_path):
    grd = sorted((real_data / "s1_grd_dn_gcp_safe").rglob("iw-v?.tiff"))
    slc = real_data / "s1_slc_gcp" / "slc.tif"
    nan = real_data / "xband_db_nan_unset" / "sar_masked.tif"
    store = sz.ingest(sz.plan_ingest([*grd, slc, nan], tmp_path / "a.zarr"))
    product = grd[0].parents[1].name
    check_scene(store, product, {p.stem[-2:]: (p, 1, "amplitude", None) for p in grd})
    check_scene(store, "slc", {"band_1": (slc, 1, "complex", None)})
    check_scene(store, "sar_masked", {f"band_{i}": (nan, i, "db", None) for i in range(1, 5)})
    group = zarr.open_group(store.root / "scenes" / product, mode="r")
    assert len(group.attrs[cv.GCPS]) == 5 * 210
    assert group.attrs[cv.GEOLOCATION] == "gcps"
    assert (stored(store, product, "vv_flags") == cv.Flag.NODATA).mean() == pytest.approx(0.0201, abs=1e-4)


# ------------------------------------------------------------------ laws
def hostile(shape, seed, kind):
    """A raster with everything in it: speckle, NaN, Inf, zeros at the edge and inside, negatives, extremes."""
    rng = np.random.default_rng(seed)
    raw = speckle(shape, seed=seed)
    raw[rng.random(shape) < 0.02] = np.nan
    raw[rng.random(shape) < 0.005] = np.inf
    raw[rng.random(shape) < 0.02] = 0
    raw[: rng.integers(0, shape[0] // 2 + 1), : rng.integers(0, shape[1] // 2 + 1)] = 0
    raw[:, shape[1] - int(rng.integers(0, shape[1] // 3 + 1)) :] = 0
    if raw.size > 1:  # a single pixel at the end of the stored range is refused; one value many times is fill
        for extreme in (1e-9, 1e12):
            few = rng.random(shape) < 0.01
            raw[few] = extreme * rng.uniform(0.5, 1.5, np.count_nonzero(few))
    if kind == "power":
        raw[rng.random(shape) < 0.01] *= -1
    if kind == "db":
        with np.errstate(divide="ignore"):
            dark = raw == 0
            raw = (10 * np.log10(np.abs(raw))).astype(np.float32)
            raw[dark] = 0
    if kind == "dn":
        raw = (
            np.nan_to_num(raw * 1000, nan=0, posinf=65535)
            .clip(0, rng.uniform(6e4, 65535, shape))
            .astype(np.uint16)
        )
    return raw


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["power", "amplitude", "db", "dn"]),
    shape=st.sampled_from([(1, 1), (255, 257), (256, 256), (300, 700), (1025, 513)]),
    tiles=st.sampled_from([0, 16, 128, 512]),
    shard=st.sampled_from([0, 256, 512, 2048]),
    nodata=st.sampled_from([None, np.nan, 0.0, 1e12]),
)
def test_flags_values_and_counts_hold_for_any_layout(
    tmp_path_factory, seed, kind, shape, tiles, shard, nodata
):
    folder = tmp_path_factory.mktemp("any")
    raw = hostile(shape, seed, kind)
    if raw.dtype == np.uint16 and nodata is not None:
        nodata = 0.0
    write_band(folder / "a_vv.tif", raw, nodata=nodata, tiles=tiles)
    representation = "amplitude" if kind == "dn" else kind
    plan = sz.plan_ingest(
        folder / "a_vv.tif", folder / "a.zarr", representation=representation, quantity="sigma0", shard=shard
    )
    store = sz.ingest(plan)
    check_scene(store, "a", {"vv": (folder / "a_vv.tif", 1, representation, nodata)})
    flags, histogram = stored(store, "a", "vv_flags"), store.histogram("a", "vv")
    assert histogram.nodata == (flags == cv.Flag.NODATA).sum()
    assert histogram.nonpositive == (flags == cv.Flag.NONPOSITIVE).sum()
    assert histogram.counts.sum() == (flags == cv.Flag.VALID).sum()
    codes = stored(store, "a", "vv")[flags == cv.Flag.VALID]
    of_half = np.repeat(np.arange(cv.HISTOGRAM_BINS), histogram.counts)
    np.testing.assert_array_equal(np.sort(codes), 1 + ((of_half + 1) >> 1))


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float16"])
def test_the_store_is_the_same_for_any_layout_scheduler_and_order(tmp_path, dtype):
    raw = hostile((1300, 1100), 3, "power")
    hashes = set()
    for tiles, scheduler in ((0, "synchronous"), (16, "threads"), (256, "threads"), (512, "synchronous")):
        folder = tmp_path / f"{tiles}"
        folder.mkdir()
        write_band(folder / "a_vv.tif", raw, tiles=tiles)
        with dask.config.set(scheduler=scheduler):
            plan = sz.plan_ingest(
                folder / "a_vv.tif",
                folder / "a.zarr",
                representation="power",
                quantity="sigma0",
                dtype=dtype,
                shard=512,
            )
            store = sz.ingest(plan)
        hashes.add(
            tree_hash(store.root / "scenes" / "a" / "vv")
            + tree_hash(store.root / "scenes" / "a" / "vv_flags")
        )
        hashes.add(tree_hash(store.root / "histograms"))
    assert len(hashes) == 2


@pytest.mark.parametrize("shard", [768, 1280])
def test_a_shard_that_no_default_shard_is_made_of_is_written_by_one_block(tmp_path, shard):
    raw = speckle((2700, 300))
    write_band(tmp_path / "a_vv.tif", raw, tiles=128)
    options = {"quantity": "sigma0", "representation": "power"}
    store, plain = (
        sz.ingest(sz.plan_ingest(tmp_path / "a_vv.tif", tmp_path / f"{s}.zarr", shard=s, **options))
        for s in (shard, 512)
    )
    np.testing.assert_array_equal(stored(store, "a", "vv"), stored(plain, "a", "vv"))
    for job in (
        sz.plan_ingest(tmp_path / "a_vv.tif", tmp_path / "t.zarr", shard=shard, **options).scenes[0].jobs("")
    ):
        assert job.row % shard == job.col % shard == 0


def test_a_plan_is_one_line_until_it_is_printed(write_tiff, tmp_path):
    files = [write_tiff(f"{name}_vv.tif", speckle((300, 300))) for name in "ab"]
    plan = sz.plan_ingest(files, tmp_path / "s.zarr", quantity="sigma0", representation="power")
    assert repr(plan) == "<sarzarr.IngestPlan 's.zarr': 2 scenes to write, 0 already there, 2 tasks>"
    assert repr(plan.scenes[0]) == "<sarzarr.ScenePlan 'a': 300 x 300, vv>"
    assert len(str(plan).splitlines()) > 5
    assert str(plan.scenes[1]) in str(plan)


def test_db_amplitude_and_power_of_one_place_give_one_store(real_data, write_tiff, tmp_path):
    power = read_band(real_data / "s1_sigma0_linear_snap" / "VH.tif", 1).astype(np.float32)
    forms = {"power": power, "amplitude": np.sqrt(power), "db": (10 * np.log10(power)).astype(np.float32)}
    codes = {}
    for form, values in forms.items():
        path = write_tiff(f"{form}/s_vh.tif", values)
        plan = sz.plan_ingest(path, tmp_path / f"{form}.zarr", representation=form, quantity="sigma0")
        codes[form] = stored(sz.ingest(plan), "s", "vh").astype(int)
    assert np.abs(codes["power"] - codes["amplitude"]).max() <= 1
    assert np.abs(codes["power"] - codes["db"]).max() <= 1


# ------------------------------------------------------------------ appending, failing, plans
@pytest.mark.compat
def test_appending_touches_no_other_scene_and_a_known_file_is_skipped(write_tiff, tmp_path):
    first = write_tiff("a_vv.tif", speckle((600, 600)))
    second = write_tiff("b_vv.tif", speckle((600, 600), seed=1, mean=0.5))
    options = {"quantity": "sigma0", "representation": "power"}
    store = sz.ingest(sz.plan_ingest(first, tmp_path / "s.zarr", **options))
    before, bounds = tree_hash(store.root / "scenes" / "a"), store.bounds
    again = sz.plan_ingest([first, second], store.root, **options)
    assert again.present == ("a",)
    assert [s.id for s in again.scenes] == ["b"]
    store = sz.ingest(again)
    assert store.scenes == ("a", "b")
    assert tree_hash(store.root / "scenes" / "a") == before
    assert store.bounds == bounds
    assert not store.root.with_name("s.zarr.ingest").exists()
    both = sz.ingest(sz.plan_ingest([second, first], tmp_path / "t.zarr", **options))
    assert tree_hash(both.root / "scenes" / "b" / "vv" / "c") == tree_hash(
        store.root / "scenes" / "b" / "vv" / "c"
    )


def test_a_changed_file_under_a_known_name_says_replace(write_tiff, tmp_path):
    path = write_tiff("a_vv.tif", speckle((300, 300)))
    options = {"quantity": "sigma0", "representation": "power"}
    store = sz.ingest(sz.plan_ingest(path, tmp_path / "s.zarr", **options))
    old = stored(store, "a", "vv")
    write_tiff("a_vv.tif", speckle((300, 300), seed=9))
    with pytest.raises(SceneExistsError, match="--replace"):
        sz.plan_ingest(path, store.root, **options)
    plan = sz.plan_ingest(path, store.root, replace=True, **options)
    assert "replaces" in str(plan)
    store = sz.ingest(plan)
    assert (stored(store, "a", "vv") != old).any()
    assert store.patches().sizes["patch"] == 1


def test_one_failing_scene_does_not_keep_the_others_out(write_tiff, tmp_path):
    good = write_tiff("a_vv.tif", speckle((600, 600)), compress="deflate")
    bad = write_tiff("b_vv.tif", speckle((600, 600), seed=1), compress="deflate")
    options = {"quantity": "sigma0", "representation": "power"}
    plan = sz.plan_ingest([bad, good], tmp_path / "s.zarr", **options)
    bad.write_bytes(bad.read_bytes()[:-50_000])  # cut short after it was probed
    store = sz.ingest(plan)
    assert store.scenes == ("a",)
    (refusal,) = plan.refused
    assert (refusal.files, refusal.scene) == ((bad,), "b")
    assert "b, block at row 0, column 0" in refusal.reason
    write_tiff("b_vv.tif", speckle((600, 600), seed=1), compress="deflate")
    assert sz.ingest(sz.plan_ingest([bad, good], store.root, **options)).scenes == ("a", "b")


def test_what_cannot_fit_the_memory_is_refused_with_the_number(write_tiff, tmp_path):
    giant = write_tiff("a_vv.tif", speckle((3000, 3000)), tiles=0, blockysize=3000, compress="deflate")
    with pytest.raises(UnsupportedRasterError, match=r"3000 x 3000.*--memory"):
        sz.plan_ingest(
            giant, tmp_path / "s.zarr", quantity="sigma0", representation="power", memory=300_000_000
        )
    assert not (tmp_path / "s.zarr").exists()


def test_every_attribute_is_read_back(real_store):
    root = real_store.root
    top = json.loads((root / "zarr.json").read_text())["attributes"]
    assert top[cv.SARZARR] == {"schema": "sarzarr", "version": cv.SCHEMA_VERSION}
    assert (top[cv.VMIN], top[cv.VMAX]) == cv.STORED_RANGE
    assert set(top[cv.BOUNDS]["vv/dn"]) == {"vmin", "vmax", "clip_vmin", "clip_vmax", "clip_method"}
    group = zarr.open_group(root / "scenes" / "s1_sigma0_linear_snap", mode="r")
    assert group.attrs["id"] == "s1_sigma0_linear_snap"
    assert group.attrs[cv.PROJ_CODE] == "EPSG:4326"
    assert group.attrs[cv.SPATIAL_DIMENSIONS] == ["y", "x"]
    assert group.attrs[cv.SPATIAL_SHAPE] == [517, 545]
    assert len(group.attrs[cv.SPATIAL_TRANSFORM]) == 6
    assert group.attrs[cv.SPATIAL_BBOX][0] < group.attrs[cv.SPATIAL_BBOX][2]
    assert group.attrs[cv.PLATFORM] == "sentinel-1b"
    assert group.attrs[cv.ORBIT_STATE] == "ascending"
    assert group.attrs[cv.RELATIVE_ORBIT] == 9
    assert group.attrs[cv.SAR_POLARIZATIONS] == ["VH"]
    assert group.attrs[cv.GEOLOCATION] == "affine"
    assert group.attrs[cv.SOURCE_FILES] == ["VH.tif"]
    array = group["vh"]
    assert array.fill_value == array.attrs[cv.FILL_VALUE] == 0
    assert (array.attrs[cv.SCALE_FACTOR], array.attrs[cv.ADD_OFFSET]) == (1 / 65534, -1 / 65534)
    assert array.attrs[cv.UNITS] == "1"
    assert "sigma0" in array.attrs[cv.LONG_NAME]
    assert array.attrs[cv.QUANTITY] == "sigma0"
    assert array.attrs[cv.REPRESENTATION] == "normalized"
    assert array.attrs[cv.SOURCE_REPRESENTATION] == "power"
    assert "Sigma0_VH" in array.attrs[cv.REASON]
    assert array.attrs[cv.ANCILLARY] == "vh_flags"
    assert array.attrs[cv.GRID_MAPPING] == array.attrs[cv.COORDINATES] == "spatial_ref"
    entry = real_store.bounds["vh/sigma0"]
    assert (array.attrs[cv.VMIN], array.attrs[cv.VMAX]) == (entry.vmin, entry.vmax)
    assert (array.attrs[cv.CLIP_VMIN], array.attrs[cv.CLIP_VMAX]) == (entry.clip_vmin, entry.clip_vmax)
    assert array.attrs[cv.CLIP_METHOD] == entry.clip_method == "percentile 1..99"
    flags = group["vh_flags"]
    assert flags.fill_value == 255
    assert cv.FILL_VALUE not in flags.attrs
    assert flags.attrs[cv.FLAG_VALUES] == [0, 1, 2, 3]
    assert flags.attrs[cv.FLAG_MEANINGS].split() == ["valid", "nonpositive", "nodata", "border"]
    tagged = zarr.open_group(root / "scenes" / "s1_db_utm_nodata0", mode="r")["vv"]
    assert tagged.attrs[cv.SOURCE_NODATA] == 0.0
    for path in root.rglob("*.json"):
        assert str(Path.home()) not in path.read_text()
        assert "shared/data" not in path.read_text()


def test_setting_another_clip_touches_no_pixel(write_tiff, tmp_path):
    path = write_tiff("a_vv.tif", speckle((600, 600)))
    store = sz.ingest(sz.plan_ingest(path, tmp_path / "s.zarr", quantity="sigma0", representation="power"))
    codes = tree_hash(store.root / "scenes" / "a" / "vv" / "c")
    assert store.preprocessing_params == {
        "vmin": store.bounds["vv/sigma0"].clip_vmin, "vmax": store.bounds["vv/sigma0"].clip_vmax
    }  # fmt: skip
    before = store.patches()["unsaturated_fraction"].values
    store = sz.set_clip(store, method="fixed", vmin=-14, vmax=-13)
    assert store.preprocessing_params == {"vmin": -14.0, "vmax": -13.0}
    assert tree_hash(store.root / "scenes" / "a" / "vv" / "c") == codes
    assert (store.patches()["unsaturated_fraction"].values < before).all()
    assert zarr.open_array(store.root / "scenes" / "a" / "vv", mode="r").attrs["clip_vmin"] == -14.0


def test_a_plan_of_700_000_patches_is_small(write_tiff, tmp_path):
    import pickle
    from dataclasses import replace

    path = write_tiff("a_vv.tif", speckle((600, 600)))
    (scene,) = sz.plan_ingest(path, tmp_path / "s.zarr", quantity="sigma0", representation="power").scenes
    for block_shape in ((512, 512), (1, 16384)):
        array = replace(scene.probe.arrays[0], block_shape=block_shape)
        georeference = Georeference(grid=sz.Grid(height=16384, width=16384))
        large = replace(scene, probe=replace(scene.probe, arrays=(array,), georeference=georeference))
        scenes = 171
        assert large.patches * scenes > 700_000
        jobs = list(large.jobs("/folder/of/the/store.zarr.ingest/a/scene"))
        assert len(jobs) * scenes < 3000
        assert sum(len(pickle.dumps(job)) for job in jobs) * scenes < 4_000_000
        assert large.peak_memory(2) < 1e9
        covered = np.zeros((16384 // 256, 16384 // 256), int)
        for job in jobs:
            covered[
                job.row // 256 : (job.row + job.height) // 256, job.col // 256 : (job.col + job.width) // 256
            ] += 1
        assert (covered == 1).all()
