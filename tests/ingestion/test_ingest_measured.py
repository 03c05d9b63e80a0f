"""What was not measured is not valid in a store, however a file tells it, through every way into the store."""

import logging

import numpy as np
import pytest
import rasterio
import zarr
from conftest import speckle, write_band

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.conventions import Flag
from sarzarr.errors import IngestError, SarzarrError, UnsupportedRasterError
from sarzarr.ingestion.chips.find import ChipOptions
from sarzarr.pixels.compiled.when import SWITCH, loops
from sarzarr.pixels.kernels import is_sentinel
from sarzarr.scenes.header import read_header, sample_places

pytestmark = pytest.mark.slow

KNOWN = {"quantity": "sigma0", "shard": 512}
SHAPE = (600, 700)
HOLE = np.s_[200:400, 100:300]
LOWEST = float(np.finfo(np.float32).min)


def holed(values, value):
    values = values.copy()
    values[HOLE] = value
    return values


def hole():
    return holed(np.zeros(SHAPE, bool), True)


def mask_onto(path, missing, *, internal=True):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as file:
        file.write_mask(np.where(missing, 0, 255).astype(np.uint8))
    return path


def take(path, root, **options):
    return sz.ingest(sz.plan_ingest(path, root, **{**KNOWN, **options}))


def flags_of(store):
    (scene,) = store.scenes
    return zarr.open_array(store.root / "scenes" / scene / "vv_flags", mode="r")[:]


def in_form(representation):
    power = speckle(SHAPE)
    return {"power": power, "amplitude": np.sqrt(power), "db": 10 * np.log10(power)}[representation]


@pytest.mark.parametrize("representation", ["power", "amplitude", "db"])
@pytest.mark.parametrize("value", [-9999, -999, -99, -32768, LOWEST, 65535, 7.25])
@pytest.mark.parametrize("loops_too", [False, True])
def test_fill_that_no_tag_declares_is_never_valid(tmp_path, monkeypatch, representation, value, loops_too):
    monkeypatch.setenv(SWITCH, "1" if loops_too else "0")
    loops.cache_clear()
    path = write_band(tmp_path / "a_vv.tif", holed(in_form(representation), value), tiles=128)
    store = take(path, tmp_path / "s.zarr", representation=representation)
    np.testing.assert_array_equal(flags_of(store) == Flag.NODATA, hole())
    said = "-3402823" if value == LOWEST else f"{value:g}"
    assert f"pixels of {said}" in store.open_scene("a")["vv"].attrs[cv.REASON]


def test_zeros_in_db_are_nodata_wherever_they_are(tmp_path):
    path = write_band(tmp_path / "a_vv.tif", holed(in_form("db"), 0), tiles=128)
    np.testing.assert_array_equal(
        flags_of(take(path, tmp_path / "s.zarr", representation="db")) == Flag.NODATA, hole()
    )


def test_who_says_nodata_has_said_what_fill_is(tmp_path):
    """0 dB and a repeated value are measured; given again, the same command finds nothing to do."""
    values = holed(in_form("db"), 0)
    values[:60, :60], values[0, 0] = -17.25, np.nan
    path = write_band(tmp_path / "a_vv.tif", values, tiles=128)
    options = {"representation": "db", "nodata": float("nan")}
    flags = flags_of(take(path, tmp_path / "s.zarr", **options))
    assert np.count_nonzero(flags) == 1
    plan = sz.plan_ingest(path, tmp_path / "s.zarr", **KNOWN, **options)
    assert (plan.present, plan.notes) == (("a",), ())


@pytest.mark.parametrize("representation", ["amplitude", "db"])
def test_what_the_sample_does_not_see_is_flagged_and_said(tmp_path, caplog, representation):
    """A hole between the sample's windows, of a value that no radar measures."""
    values = np.tile(in_form(representation), (3, 3))
    values[1000:1020, 900:950] = -1234.5
    path = write_band(tmp_path / "a_vv.tif", values, tiles=128)
    plan = sz.plan_ingest(path, tmp_path / "s.zarr", representation=representation, **KNOWN)
    assert "sampled pixels)" not in str(plan)
    with caplog.at_level(logging.WARNING):
        store = sz.ingest(plan)
    assert "1,000 pixels of a value that no radar measures" in caplog.text.replace("1000", "1,000")
    assert "no radar measures" in store.open_scene("a")["vv"].attrs[cv.REASON]
    flags = flags_of(store)
    assert (flags[1000:1020, 900:950] == Flag.NODATA).all()
    assert np.count_nonzero(flags) == 1000


def test_a_value_that_is_repeated_where_no_sample_looks_is_said_with_its_remedy(tmp_path, caplog):
    values = np.tile(speckle((1024, 1024)), (2, 2))
    path = write_band(tmp_path / "a_vv.tif", values, tiles=128)
    seen = np.zeros(values.shape, bool)
    for p in sample_places(read_header(path)):
        seen[p.row : p.row + p.height, p.col : p.col + p.width] = True
    values[~seen & (np.indices(values.shape)[0] % 40 < 2)] = np.float32(0.03125)
    write_band(path, values, tiles=128)
    with caplog.at_level(logging.WARNING):
        take(path, tmp_path / "s.zarr", representation="power")
    assert "all of -15.05" in caplog.text
    assert "--nodata" in caplog.text
    store = take(path, tmp_path / "s.zarr", representation="power", nodata=0.03125, replace=True)
    np.testing.assert_array_equal(flags_of(store) == Flag.NODATA, is_sentinel(values, 0.03125))


def test_what_ends_beyond_the_range_says_so(tmp_path, caplog):
    values = np.tile(speckle((1024, 1024)), (2, 2)) * np.float32(1e12)
    path = write_band(tmp_path / "a_vv.tif", values, tiles=128)
    for p in sample_places(read_header(path)):
        values[p.row : p.row + p.height, p.col : p.col + p.width] *= np.float32(1e-12)
    write_band(path, values, tiles=128)
    with caplog.at_level(logging.WARNING):
        take(path, tmp_path / "s.zarr", representation="power")
    assert "valid pixels lie beyond the stored range" in caplog.text


# ------------------------------------------------------------------ masks
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("strips", [0, 128])
def test_a_mask_is_nodata_in_any_layout(tmp_path, dtype, internal, strips):
    values = holed(in_form("amplitude") * 1000, 20).astype(dtype)
    path = mask_onto(write_band(tmp_path / "a_vv.tif", values, tiles=strips), hole(), internal=internal)
    store = take(path, tmp_path / "s.zarr", representation="amplitude")
    np.testing.assert_array_equal(flags_of(store) == Flag.NODATA, hole())
    whole = write_band(tmp_path / "b_vv.tif", values, tiles=strips)
    truth = take(whole, tmp_path / "t.zarr", representation="amplitude").db("b", "vv").values
    np.testing.assert_array_equal(store.db("a", "vv").values[~hole()], truth[~hole()])
    lazy = sz.to_db(sz.to_power(sz.open_scene(path, representation="amplitude", quantity="sigma0")))
    codes = sz.to_codes(sz.normalize(lazy["vv_db"], cv.STORED_RANGE)).values
    np.testing.assert_array_equal(codes, zarr.open_array(store.root / "scenes/a/vv", mode="r")[:])


def test_zeros_under_no_mask_are_measured(tmp_path):
    """A mask says which pixels count: zeros that it lets through are dark, wherever they are."""
    values = speckle(SHAPE)
    values[:, :30] = 0
    path = mask_onto(write_band(tmp_path / "a_vv.tif", values, tiles=128), hole())
    flags = flags_of(take(path, tmp_path / "s.zarr", representation="power"))
    assert (flags[:, :30] == Flag.NONPOSITIVE).all()
    np.testing.assert_array_equal(flags == Flag.NODATA, hole())


def test_a_mask_that_changed_is_another_file(tmp_path):
    path = mask_onto(write_band(tmp_path / "a_vv.tif", speckle(SHAPE), tiles=128), hole(), internal=False)
    take(path, tmp_path / "s.zarr", representation="power")
    mask_onto(path, ~hole(), internal=False)
    with pytest.raises(SarzarrError, match="other pixels"):
        take(path, tmp_path / "s.zarr", representation="power")
    store = take(path, tmp_path / "s.zarr", representation="power", replace=True)
    np.testing.assert_array_equal(flags_of(store) == Flag.NODATA, ~hole())


@pytest.mark.parametrize("method", ["average", "nearest", "cubic"])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_a_masked_pixel_weighs_nothing_on_another_grid(tmp_path, method, dtype):
    """As if the pixels below the mask were NaN, which weigh nothing."""
    power = speckle(SHAPE)
    values = holed(np.sqrt(power) * 1000, 60000).astype(dtype)
    options = {"representation": "amplitude", "crs": "EPSG:32633", "pixel_size": 20.0, "resampling": method}
    mask_onto(write_band(tmp_path / "a_vv.tif", values, tiles=128), hole())
    write_band(tmp_path / "b_vv.tif", holed(values.astype(np.float32), np.nan), tiles=128)
    masked, truth = (
        take(tmp_path / f"{name}_vv.tif", tmp_path / f"{name}.zarr", **options).db(name, "vv").values
        for name in "ab"
    )
    np.testing.assert_array_equal(masked, truth)
    assert np.isnan(masked[105:195, 55:145]).all()


def test_an_amplitude_below_zero_weighs_nothing_on_another_grid(tmp_path):
    values = holed(in_form("amplitude"), -9999)
    options = {"representation": "amplitude", "crs": "EPSG:32633", "pixel_size": 20.0}
    db = (
        take(write_band(tmp_path / "a_vv.tif", values, tiles=128), tmp_path / "s.zarr", **options)
        .db("a", "vv")
        .values
    )
    assert np.isnan(db[100:200, 50:150]).all()
    assert np.nanmax(db) < 20


# ------------------------------------------------------------------ layers
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("pixel_size", [None, 20.0])
def test_a_masked_layer_gets_a_nodata_value(tmp_path, dtype, pixel_size):
    write_band(tmp_path / "a_vv.tif", speckle(SHAPE), tiles=128)
    classes = np.random.default_rng(0).integers(1, 4, SHAPE).astype(dtype)
    mask_onto(write_band(tmp_path / "label.tif", holed(classes, 0), tiles=128), hole())
    grid = {} if pixel_size is None else {"crs": "EPSG:32633", "pixel_size": pixel_size}
    layers = {"label:nearest": str(tmp_path / "label.tif")}
    store = take(tmp_path / "a_vv.tif", tmp_path / "s.zarr", representation="power", layers=layers, **grid)
    step = 1 if pixel_size is None else 2
    held = zarr.open_array(store.root / "scenes/a/label", mode="r")[:]
    nodata = store.open_scene("a")["label"].rio.nodata
    is_nodata = np.isnan(held) if dtype == "float32" else held == nodata
    np.testing.assert_array_equal(is_nodata, hole()[step // 2 :: step, step // 2 :: step])
    assert (held[~is_nodata] > 0).all()


def test_a_value_that_a_measured_pixel_of_a_layer_has_is_no_nodata_and_the_remedy_works(tmp_path):
    write_band(tmp_path / "a_vv.tif", speckle(SHAPE), tiles=128)
    classes = np.random.default_rng(0).integers(0, 256, SHAPE).astype("uint8")
    classes[classes == 7] = 8
    mask_onto(write_band(tmp_path / "label.tif", classes, tiles=128), hole())
    layers = {"label": str(tmp_path / "label.tif")}
    with pytest.raises(IngestError, match="--layer NAME:nodataVALUE=FILE"):
        take(tmp_path / "a_vv.tif", tmp_path / "s.zarr", representation="power", layers=layers)
    layers = {"label:nodata7": str(tmp_path / "label.tif")}
    store = take(tmp_path / "a_vv.tif", tmp_path / "s.zarr", representation="power", layers=layers)
    np.testing.assert_array_equal(zarr.open_array(store.root / "scenes/a/label", mode="r")[:] == 7, hole())


# ------------------------------------------------------------------ pictures
def test_float_chips_outside_of_the_unit_are_refused_all_at_once(tmp_path):
    (tmp_path / "chips").mkdir()
    for i in range(3):
        write_band(tmp_path / "chips" / f"{i}.tif", np.full((64, 64), (i + 1) / 4, np.float32))
        write_band(tmp_path / "chips" / f"db{i}.tif", 10 * np.log10(speckle((64, 64))))
    with pytest.raises(UnsupportedRasterError, match=r"db0\.tif[^#]*db2\.tif"):
        sz.import_chips(tmp_path / "chips", tmp_path / "c.zarr", options=ChipOptions(strict=True))
    made, report = sz.import_chips(tmp_path / "chips", tmp_path / "c.zarr")
    assert made.ids == ("0", "1", "2")
    assert [one.files[0].name for one in report.refused] == [f"db{i}.tif" for i in range(3)]


def test_a_mask_beside_a_chip_counts(tmp_path):
    missing = np.zeros((64, 64), bool)
    missing[:10] = True
    (tmp_path / "chips").mkdir()
    path = write_band(tmp_path / "chips" / "a.tif", np.full((64, 64), 0.5, np.float32))
    mask_onto(path, missing, internal=False)
    sz.import_chips(tmp_path / "chips", tmp_path / "c.zarr")
    images, flags = next(iter(sz.SampleReader(tmp_path / "c.zarr", "chips", batch_size=1, flags=True)))
    images, flags = (np.squeeze(a)[:64, :64] for a in (images, flags))
    np.testing.assert_array_equal(flags >= 2, missing)
    assert not images[missing].any()


def test_dark_pixels_do_not_keep_a_patch_out(tmp_path):
    """8-bit SAR has zeros inside: valid, dark, and no stretch's doing."""
    dark = np.random.default_rng(0).normal(20, 25, (768, 768)).clip(0, 255).astype(np.uint8)
    dark[[0, -1]] = dark[:, [0, -1]] = 1
    store = take(write_band(tmp_path / "a_vv.tif", dark), tmp_path / "s.zarr", representation="amplitude")
    assert sum(len(batch) for batch in sz.PatchReader(store, batch_size=4)) == 9


def test_a_patch_without_a_lit_pixel_is_kept_out(tmp_path):
    values = speckle((768, 768))
    values[256:512, 256:512] = -1e-3
    store = take(write_band(tmp_path / "a_vv.tif", values), tmp_path / "s.zarr", representation="power")
    assert sum(len(batch) for batch in sz.PatchReader(store, batch_size=4)) == 8


def test_db_times_a_hundred_is_refused_and_names_the_file(tmp_path):
    path = write_band(tmp_path / "a_vv.tif", np.round(in_form("db") * 100).astype(np.int16), nodata=-9999)
    with pytest.raises(UnsupportedRasterError, match=r"a_vv\.tif.*end of the stored range"):
        sz.plan_ingest(path, tmp_path / "s.zarr", representation="db")
