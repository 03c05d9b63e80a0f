"""Statistics against NumPy, and looks against speckle whose looks are known."""

import json
import math
import os
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr

from sarzarr import conventions as c
from sarzarr.errors import InvalidInputError
from sarzarr.pixels.statistics import PERCENTILES, equivalent_looks, scene_statistics
from sarzarr.scenes.synthetic.ground import Ground, speckle

DATA = Path(os.environ.get("SARZARR_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def textured(looks, *, polarization="VV", seed=0, size=700):
    """Fields, forest, sea, a town with a heavy tail of bright targets, ships: under speckle."""
    ground = Ground(height=size, width=size, seed=seed)
    rows = np.arange(size)
    power = 10 ** (ground.levels_db(rows, polarization=polarization) / 10)
    power *= speckle(power.shape, np.random.default_rng(seed + 100), looks=looks)
    ground.add_ships(power, rows, date=0, polarization=polarization)
    return power


@pytest.mark.parametrize("window", [5, 9, 15])
@pytest.mark.parametrize("looks", [1, 4.4, 10])
def test_looks_of_speckle_alone(looks, window):
    power = 0.05 * speckle((900, 900), np.random.default_rng(1), looks=looks)
    assert equivalent_looks(power, window=window) == pytest.approx(looks, rel=0.04)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("polarization", ["VV", "VH"])
@pytest.mark.parametrize("looks", [1, 4.4, 10])
def test_looks_of_a_textured_scene_with_bright_targets(looks, polarization, seed):
    power = textured(looks, polarization=polarization, seed=seed)
    assert power.mean() ** 2 / power.var() < 0.2  # what 1/CV^2 of the whole scene would say
    assert equivalent_looks(power) == pytest.approx(looks, rel=0.12)


def test_looks_ignore_nodata_zeros_and_constant_areas():
    power = textured(4.4)
    power[:200], power[200:300, :300], power[300:400, :300], power[400:410] = np.nan, 0, 0.25, np.inf
    assert equivalent_looks(power) == pytest.approx(4.4, rel=0.12)


def test_looks_are_unknown_where_there_is_no_homogeneous_ground():
    for nothing in (
        np.full((300, 300), np.nan),
        np.full((300, 300), 0.3),
        np.zeros((300, 300)),
        np.ones((20, 20)),
    ):
        assert math.isnan(equivalent_looks(nothing))


def test_looks_do_not_depend_on_scale_or_dtype():
    power = textured(4.4, size=400)
    looks = equivalent_looks(power)
    assert equivalent_looks(power * 1e6) == pytest.approx(looks, rel=1e-3)
    assert equivalent_looks(power.astype(np.float64)) == pytest.approx(looks, rel=1e-3)


def test_moments_and_percentiles_are_numpys():
    power = textured(4.4, size=300).astype(np.float64)
    power[:30], power[30:40] = np.nan, 0
    found = scene_statistics(power)
    valid = power[30:]
    db = 10 * np.log10(power[40:])
    assert found.n_pixels == 90_000
    assert found.invalid_fraction == pytest.approx(0.1)
    assert found.nonpositive_fraction == pytest.approx(10 / 300)
    for distribution, values in ((found.linear, valid), (found.db, db)):
        assert distribution.min == pytest.approx(values.min())
        assert distribution.max == pytest.approx(values.max())
        assert distribution.mean == pytest.approx(values.mean())
        assert distribution.std == pytest.approx(values.std())
        assert distribution.median == pytest.approx(np.median(values))
        assert distribution.percentiles == pytest.approx(np.percentile(values, PERCENTILES))
    assert found.cv == pytest.approx(valid.std() / valid.mean())
    assert found.dynamic_range_db == pytest.approx(np.ptp(db))
    assert np.isnan(power[:30]).all()


def test_the_dictionary_is_json_with_named_percentiles():
    found = json.loads(json.dumps(scene_statistics(textured(4.4, size=200)).to_dict()))
    assert list(found["db"]) == [
        "min",
        "max",
        "mean",
        "std",
        "median",
        "p0.5",
        "p1",
        "p5",
        "p50",
        "p95",
        "p99",
        "p99.5",
    ]
    assert found["db"]["p50"] == found["db"]["median"]
    shares = {"n_pixels", "invalid_fraction", "nonpositive_fraction"}
    assert set(found) == shares | {"linear", "db", "cv", "dynamic_range_db", "equivalent_looks"}


def test_xarray_and_dask_say_the_same():
    power = textured(4.4, size=300)
    expected = scene_statistics(power)
    assert scene_statistics(da.from_array(power, chunks=77)) == expected
    assert scene_statistics(xr.DataArray(power, dims=("y", "x")).chunk(100)) == expected
    db = xr.DataArray(
        10 * np.log10(power), dims=("y", "x"), attrs={c.REPRESENTATION: "db", c.SOURCE_NODATA: -99}
    )
    db[:, :150] = -99
    found = scene_statistics(db)
    assert found.invalid_fraction == 0.5
    assert found.linear.mean == pytest.approx(power[:, 150:].mean(), rel=1e-4)


def test_an_image_without_a_valid_pixel_has_no_statistics():
    for image in (np.full((50, 50), np.nan), np.empty((0, 3))):
        found = scene_statistics(image)
        assert math.isnan(found.linear.mean)
        assert math.isnan(found.db.percentiles[0])
        assert math.isnan(found.equivalent_looks)
    dark = scene_statistics(np.zeros((50, 50)))
    assert (dark.invalid_fraction, dark.nonpositive_fraction, dark.linear.max) == (0.0, 1.0, 0.0)
    assert math.isnan(dark.cv)


def test_what_is_no_image_is_refused():
    with pytest.raises(InvalidInputError, match="two dimensions, got 3"):
        scene_statistics(np.ones((2, 9, 9)))
    with pytest.raises(InvalidInputError, match="3 pixels or more, got 2"):
        scene_statistics(np.ones((9, 9)), window=2)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # true of the SLC
@pytest.mark.parametrize(
    ("name", "band", "representation", "low", "high"),
    [
        ("s1_grd_amplitude/S1_IW_GRD_panama_700_amp_VV_VH.tif", 1, "amplitude", 4, 7),
        ("s1_floods_db_mask/Spain_7370579_S1Hand.tif", 1, "db", 4, 7),
        ("s1_slc_gcp/slc.tif", 1, "complex", 0.5, 1.2),
    ],
)
def test_looks_of_real_scenes(name, band, representation, low, high):
    """IW GRDH has 4.4 looks and an SLC one; resampling to a map raises them."""
    if not (DATA / name).exists():
        pytest.skip(f"needs the real raster {name} below ../shared/data or $SARZARR_TEST_DATA")
    with rasterio.open(DATA / name) as file:
        raw, nodata = file.read(band), file.nodata
    attrs = {c.REPRESENTATION: representation}
    if nodata is not None:
        attrs[c.SOURCE_NODATA] = nodata
    found = scene_statistics(xr.DataArray(raw, dims=("y", "x"), attrs=attrs))
    assert low < found.equivalent_looks < high
    assert 1 / found.cv**2 < 0.5
