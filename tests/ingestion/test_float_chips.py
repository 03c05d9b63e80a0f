"""Floats that are no pictures: each is delivered in [0, 1], or refused with the way to go on."""

import numpy as np
import pytest
from chip_folders import write_picture
from conftest import speckle
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.crs import CRS

import sarzarr as sz
from sarzarr.conventions import Flag
from sarzarr.errors import UnsupportedRasterError

GROUND = {"crs": CRS.from_epsg(32633), "transform": Affine(10, 0, 5e5, 0, -10, 5.4e6)}


def chip(path, pixels, **options):
    """Write float32 pixels."""
    return write_picture(path, pixels.astype(np.float32), "GTiff", **options)


def db(power):
    return 10 * np.log10(power)


SPECKLE = speckle((64, 64))
HOLED = np.where(np.add.outer(np.arange(64), np.arange(64)) < 20, np.nan, SPECKLE)


@pytest.mark.parametrize(
    ("name", "pixels", "options"),
    [
        ("db", db(SPECKLE), {}),
        ("nan", db(HOLED), GROUND),
        ("sentinel", np.where(np.isnan(HOLED), -9999, db(SPECKLE)), {}),
        ("nodata", np.where(np.isnan(HOLED), -9999, db(SPECKLE)), {"nodata": -9999}),
        ("numbers", 100 * SPECKLE, {}),
        ("on_the_ground", SPECKLE / 10, GROUND),
        ("Sigma0_VV", SPECKLE / 10, {}),
        ("power", np.where(np.isnan(HOLED), -32768, SPECKLE / 10), {}),
    ],
)
def test_backscatter_is_refused_with_the_way_to_go_on(tmp_path, name, pixels, options):
    chip(tmp_path / "chips" / f"{name}.tif", pixels, **options)
    with pytest.raises(
        UnsupportedRasterError, match=rf"'{name}.tif'.*`sarzarr ingest FOLDER --collection NAME`"
    ):
        sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")


@pytest.mark.parametrize("folder", ["s1_floods_db_mask", "s1_rtc_db_float64"])
def test_real_chips_of_db_are_refused(real_data, tmp_path, folder):
    with pytest.raises(UnsupportedRasterError, match="`sarzarr ingest FOLDER --collection NAME`"):
        sz.import_chips(real_data / folder, tmp_path / "s.zarr")


@settings(max_examples=8)
@given(
    seed=st.integers(0, 2**20),
    spread=st.sampled_from([0.0, 0.3, 1.0, 1.0 + 9e-7, 1.001, 30.0]),
    shift=st.sampled_from([0.0, -9e-7, -1e-3, -20.0]),
    holes=st.booleans(),
    options=st.sampled_from([{}, GROUND, {"nodata": -9999}]),
)
def test_what_is_delivered_is_in_0_to_1(tmp_path_factory, seed, spread, shift, holes, options):
    folder = tmp_path_factory.mktemp("floats")
    pixels = np.random.default_rng(seed).random((16, 16)) * spread + shift
    pixels[0, 0], pixels[0, 1] = shift, spread + shift
    if holes:
        pixels[3:5] = options.get("nodata", np.nan)
    chip(folder / "chips" / "a.tif", pixels, **options)
    try:
        sz.import_chips(folder / "chips", folder / "s.zarr")
    except UnsupportedRasterError:
        assert shift < -1e-6 or spread > 1 + 1e-6 or options == GROUND
        return
    ((images, flags),) = sz.SampleReader(folder / "s.zarr", "chips", flags=True)
    assert 0 <= images.min() <= images.max() <= 1
    assert (flags[0, 0, 3:5] == Flag.NODATA).all() == holes
    assert (images[flags >= Flag.NODATA] == 0).all()


def test_dark_and_named_pictures_of_floats_are_taken(tmp_path):
    """What a dark picture looks like, and a name that says dB of pixels from 0 to 1, prove nothing."""
    dark = np.clip(SPECKLE / SPECKLE.max(), 0, 1)
    for name in ("dark", "chip_vv_db"):
        chip(tmp_path / "chips" / f"{name}.tif", dark)
    made, report = sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    assert report.samples == 2
    np.testing.assert_array_equal(made.image(0), dark.astype(np.float32))
