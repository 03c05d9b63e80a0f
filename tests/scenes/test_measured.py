"""Which pixels were measured, as a probe finds it: tags, masks, and values that stand for nothing."""

import re

import dask
import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from tiffs import speckle, write

import sarzarr as sz
from sarzarr.errors import UnsupportedRasterError
from sarzarr.pixels.kernels import impossible, is_sentinel, power_kernel
from sarzarr.rasters import BandMask, Unmeasured, band_masks, open_raster, source_hash
from sarzarr.scenes import header, measured
from sarzarr.scenes.measured import fills_of, is_repeated

HOLE = np.s_[40:80, 30:90]
LOWEST = float(np.finfo(np.float32).min)
N = (120, 130)


def db(power):
    return (10 * np.log10(power)).astype(power.dtype)


def holed(pixels, value):
    pixels = np.array(pixels).reshape(N)
    pixels[HOLE] = value
    return pixels


def missing():
    return holed(np.zeros(N, bool), True)


def write_masked(path, pixels, mask, *, internal=True, **options):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        write(path, pixels, **options)
        with rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    return path


# ------------------------------------------------------------------ nodata, as a tag spells it
@given(
    value=st.floats(2.0**-90, 2.0**90, width=32) | st.floats(-(2.0**90), -(2.0**-90), width=32),
    digits=st.integers(8, 17),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_a_tag_may_have_fewer_digits_than_the_pixels(value, digits, dtype):
    said = float(f"{value:.{digits}g}")
    pixels = np.array([value, value * (1 + 1e-5), 0, np.nan], dtype)
    assert is_sentinel(pixels, said).tolist() == [True, False, False, False]


@pytest.mark.parametrize("nodata", [LOWEST, -3.402823e38, 3.402823e38, -3.40282346638529e38, -9999.9, 0.1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_pixel_is_nodata_where_gdal_says_so(tmp_path, nodata, dtype):
    within, other = (
        np.nextafter(np.float32(nodata), np.float32(0)),
        np.float32(nodata * 0.9999 if abs(nodata) < 1e38 else 2),
    )
    near = [np.float32(nodata), within, other, np.float32(1)]
    path = write(tmp_path / "a.tif", np.resize(np.array(near, dtype), N), nodata=nodata)
    with rasterio.open(path) as file:
        raw, truth = file.read(1), file.read_masks(1) == 0
        np.testing.assert_array_equal(is_sentinel(raw, file.nodata), truth)


@pytest.mark.parametrize("nodata", [-1.0, 256.0, 7.5, np.nan, np.inf, None])
def test_no_pixel_is_a_value_that_it_cannot_have(nodata):
    assert not is_sentinel(np.arange(256, dtype=np.uint8), nodata).any()


# ------------------------------------------------------------------ what no radar measures
@pytest.mark.parametrize(
    ("representation", "values", "measured_ones"),
    [
        (
            "db",
            [-9999, -999, -99, -32768, LOWEST, -100.1, 100.1, 3e38, np.inf, -np.inf],
            [-100, -99.5, 0, 100],
        ),
        ("amplitude", [-9999, -1e-6, -99, LOWEST], [0, 1e-6, 65535]),
        ("power", [-9999, -999, -99, -32768, LOWEST], [-98.9, -9998, -1e-3, 0, 1e10]),
    ],
)
def test_what_no_radar_measures_is_not_power(representation, values, measured_ones):
    raw = np.array([*values, *measured_ones], np.float32)
    power = power_kernel(raw, representation)
    assert np.isnan(power).tolist() == [True] * len(values) + [False] * len(measured_ones)
    wrong = impossible(np.array(measured_ones, np.float32), representation)
    assert wrong is None or not wrong.any()


def test_integers_below_zero_are_no_amplitude():
    power = power_kernel(np.array([-9999, -1, 0, 300], np.int16), "amplitude")
    np.testing.assert_array_equal(power, [np.nan, np.nan, 0, 90000])


# ------------------------------------------------------------------ values that stand for nothing
@pytest.mark.parametrize("value", [-9999, -999, -99, -32768, 65535, LOWEST, 0.02, -17.25])
def test_a_value_that_is_repeated_stands_for_nothing(value):
    pixels = holed(db(speckle()), value)
    (fill,) = fills_of([pixels], is_float=True)
    assert (fill.value, fill.count, fill.of) == (np.float32(value), missing().sum(), pixels.size)


@pytest.mark.parametrize("step", [0.01, 0.1, 0.5])
def test_what_is_quantised_repeats_all_of_its_values(step):
    assert fills_of([np.round(db(speckle((400, 400))) / step) * np.float32(step)], is_float=True) == ()


def test_of_integers_only_listed_values_stand_for_nothing():
    dn = (np.sqrt(speckle()) * 300).astype(np.int16).reshape(N)
    assert fills_of([holed(dn, 7)], is_float=False) == ()
    assert [f.value for f in fills_of([holed(dn, -9999)], is_float=False)] == [-9999]
    assert [f.value for f in fills_of([holed(dn.astype(np.uint16), 65535)], is_float=False)] == [65535]


def test_a_saturated_target_is_none(tmp_path):
    dn = (np.sqrt(speckle()) * 300).astype(np.uint16).reshape(N)
    dn[50, 50:60] = 65535
    assert fills_of([dn], is_float=False) == ()


def test_a_value_stands_out_among_those_next_to_it():
    values = np.arange(5.0)
    assert is_repeated(values, np.array([1, 1, 500, 1, 1])).tolist() == [False, False, True, False, False]
    assert not is_repeated(values, np.array([10, 11, 500, 11, 10])).any()
    assert not is_repeated(values[:1], np.array([500])).any()


def test_a_plan_says_value_and_count(tmp_path):
    path = write(tmp_path / "s1_vv_db.tif", holed(db(speckle()), -17.25))
    probe = sz.probe_file(path)
    assert "-17.25 (2,400 of 15,600 sampled pixels)" in probe.arrays[0].reason
    assert any("-17.25 (2,400" in note for note in probe.left_out)
    assert probe.arrays[0].unmeasured == Unmeasured(values=(-17.25, 0.0))


def test_who_says_nodata_knows(tmp_path):
    path = write(tmp_path / "s1_vv_db.tif", holed(db(speckle()), -17.25))
    (array,) = sz.probe_file(path, nodata=float("nan")).arrays
    assert array.unmeasured is None or -17.25 not in array.unmeasured.values
    assert "sampled pixels)" not in array.reason


def test_two_bands_have_their_own(tmp_path):
    pixels = np.stack([holed(db(speckle(seed=s)), v) for s, v in ((0, -17.25), (1, -20.5))])
    arrays = sz.probe_file(write(tmp_path / "s1_VV_VH_db.tif", pixels)).arrays
    assert [a.unmeasured.values for a in arrays] == [(-17.25, 0.0), (-20.5, 0.0)]


# ------------------------------------------------------------------ masks
def test_masks_are_found_wherever_gdal_has_them(tmp_path):
    pixels, mask = speckle()[0], np.where(missing(), 0, 255).astype(np.uint8)
    inside = write_masked(tmp_path / "in.tif", pixels, mask)
    beside = write_masked(tmp_path / "beside.tif", pixels, mask, internal=False)
    values = write(
        tmp_path / "values.tif", np.stack([holed(pixels, 7), holed(pixels, 9)]), tags={"NODATA_VALUES": "7 9"}
    )
    alpha = write(tmp_path / "alpha.tif", np.stack([pixels.astype("u2"), mask.astype("u2")]), alpha="YES")
    for path, first in ((inside, None), (beside, f"{beside}.msk"), (values, None), (alpha, None)):
        with open_raster(path) as dataset:
            assert band_masks(dataset, path)[0] == BandMask(
                path=first or str(path), band=1, is_beside=bool(first)
            )
        power = sz.to_power(
            sz.open_scene(path, representation="power", polarizations=["VV", "VH"][: _bands(path)])
        )
        assert np.isnan(power["vv"].values)[missing()].all(), path
        assert not np.isnan(power["vv"].values)[~missing()].any(), path


def _bands(path):
    with rasterio.open(path) as file:
        return file.count


def test_a_mask_beside_is_part_of_the_hash_and_has_the_same_shape(tmp_path):
    mask = np.where(missing(), 0, 255).astype(np.uint8)
    path = write_masked(tmp_path / "a_vv.tif", speckle()[0], mask, internal=False)
    known = source_hash(path)
    write(tmp_path / "a_vv.tif.msk", np.full(N, 255, np.uint8))
    assert source_hash(path) != known
    write(tmp_path / "a_vv.tif.msk", np.full((5, 5), 255, np.uint8))
    with pytest.raises(
        UnsupportedRasterError, match=r"a mask of 120 x 130 pixels in 'a_vv\.tif\.msk', got 5 x 5"
    ):
        sz.probe_file(path)


def test_masked_pixels_take_no_part_in_the_sample(tmp_path):
    """Under the mask lie numbers of another kind: none of them is looked at."""
    mask = np.where(missing(), 0, 255).astype(np.uint8)
    path = write_masked(tmp_path / "a.tif", holed(speckle(), 5e4), mask)
    (array,) = sz.probe_file(path).arrays
    assert array.representation == "power"
    assert "its mask tells" in array.reason


def test_lazy_chunks_are_masked_alike(tmp_path):
    mask = np.where(missing(), 0, 255).astype(np.uint8)
    path = write_masked(tmp_path / "a_vv.tif", (speckle()[0] * 1e4).astype("u2"), mask)
    scene = sz.open_scene(path)
    assert scene["vv"].dtype == np.float32
    part = scene["vv"][35:100:3, 20:100:7]
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(np.isnan(part.values), missing()[35:100:3, 20:100:7])


# ------------------------------------------------------------------ where the sample finds nothing
@pytest.mark.parametrize(
    "options", [{"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}, {}]
)
def test_a_corner_of_data_is_found_with_bounded_reads(tmp_path, monkeypatch, options):
    pixels = np.full((2048, 2048), np.nan, np.float32)
    pixels[-200:, -200:] = speckle((200, 200))
    path = write(tmp_path / "a_vv.tif", pixels, **options)
    reads = []
    read = measured.read_window
    monkeypatch.setattr(measured, "read_window", lambda *a, **k: reads.append(k) or read(*a, **k))
    assert [a.name for a in sz.probe_file(path).arrays] == ["vv"]
    assert len(reads) <= (18 if options else 16 + header.LOOKS)


def test_a_raster_without_any_pixel_is_refused_after_as_many_reads(tmp_path, monkeypatch):
    path = write(tmp_path / "a_vv.tif", np.full((2048, 2048), np.nan, np.float32), tiled=True)
    reads = []
    read = measured.read_window
    monkeypatch.setattr(measured, "read_window", lambda *a, **k: reads.append(k) or read(*a, **k))
    assert "no pixel" in sz.probe_file(path).refusal
    assert len(reads) <= 16 + header.LOOKS


# ------------------------------------------------------------------ the end of the stored range, and scales
@pytest.mark.parametrize(
    ("pixels", "representation"),
    [
        (np.round(100 * db(speckle())), "db"),
        (db(speckle()), "power"),
        (db(speckle()), "amplitude"),
        (speckle() * np.float32(1e-9), "power"),
        (speckle() * np.float32(1e15), "power"),
    ],
)
def test_pixels_at_the_end_of_the_range_are_refused_whoever_says_what_they_are(
    tmp_path, pixels, representation
):
    probe = sz.probe_file(write(tmp_path / "a_vv.tif", pixels), representation=representation)
    assert re.search("end of the stored range", probe.refusal)


def test_the_remedy_of_that_refusal_works(tmp_path):
    path = write(tmp_path / "a_vv.tif", db(speckle()))
    assert sz.probe_file(path, representation="power").refusal
    assert sz.probe_file(path, representation="db").refusal is None


@pytest.mark.parametrize(
    "tags", [{"scale_factor": "100"}, {"SCALE_FACTOR": "0.01"}, {"add_offset": "-30"}, {"scale_factor": "x"}]
)
@pytest.mark.parametrize("representation", [None, "db"])
def test_a_scale_in_a_tag_is_refused(tmp_path, tags, representation):
    path = write(tmp_path / "a_vv.tif", db(speckle()), tags=tags)
    assert next(iter(tags)) in sz.probe_file(path, representation=representation).refusal
    write(path, db(speckle()))
    assert sz.probe_file(path, representation=representation).refusal is None


def test_a_scale_of_one_is_none(tmp_path):
    path = write(tmp_path / "a_vv.tif", db(speckle()), tags={"scale_factor": "1.0", "add_offset": "0.0"})
    assert sz.probe_file(path).refusal is None
