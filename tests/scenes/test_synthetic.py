"""Synthetic scenes look, read and repeat as they promise."""

import tracemalloc
from datetime import date

import numpy as np
import pytest
import rasterio

from sarzarr.errors import InvalidInputError
from sarzarr.pixels.statistics import equivalent_looks
from sarzarr.scenes.acquisition import facts_from_fields
from sarzarr.scenes.synthetic.ground import Ground, speckle
from sarzarr.scenes.synthetic.scenes import CALIBRATION, write_synthetic_scenes


def pixels(path):
    with rasterio.open(path) as file:
        return file.read(1)


def db(power):
    return 10 * np.log10(power)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    paths = write_synthetic_scenes(tmp_path_factory.mktemp("scenes"), count=2, shape=(600, 700), seed=3)
    return {path.name: path for path in paths}


def test_files_are_named_by_date_and_polarization_in_order(scenes):
    assert list(scenes) == [
        "s1_20260101_vv.tif",
        "s1_20260101_vh.tif",
        "s1_20260113_vv.tif",
        "s1_20260113_vh.tif",
    ]
    folder = next(iter(scenes.values())).parent
    assert sorted(p.name for p in folder.iterdir()) == sorted(scenes)  # nothing partial is left


def test_files_are_tiled_deflated_utm_rasters_with_tags_that_can_be_read(scenes):
    for name, path in scenes.items():
        with rasterio.open(path) as file:
            assert file.profile["dtype"] == "float32"
            assert np.isnan(file.nodata)
            assert file.crs.to_epsg() == 32633
            assert file.res == (10.0, 10.0)
            assert file.block_shapes == [(512, 512)]
            assert file.compression.name == "deflate"
            assert file.descriptions == (f"Sigma0_{name[-6:-4].upper()}",)
            tags = file.tags()
        facts = facts_from_fields(tags)
        assert facts.platform == "sentinel-1a"
        assert facts.instrument_mode == "IW"
        assert facts.product_type == "GRD"
        assert facts.orbit_state == "descending"
        assert facts.relative_orbit == 44
        assert facts.incidence_angle == 38.9
        assert facts.datetime.startswith(str(date.fromisoformat(name[3:11])))
        assert (facts.absolute_orbit - 73) % 175 + 1 == facts.relative_orbit  # sentinel-1a's law


def test_the_same_arguments_give_the_same_pixels_and_another_seed_others(scenes, tmp_path):
    again = write_synthetic_scenes(tmp_path, count=1, shape=(600, 700), seed=3)
    for path in again:
        np.testing.assert_array_equal(pixels(path), pixels(scenes[path.name]))
    other = write_synthetic_scenes(
        tmp_path / "other", count=1, shape=(600, 700), polarizations=["VV"], seed=4
    )
    assert not np.allclose(pixels(other[0]), pixels(again[0]), equal_nan=True)


def test_without_changes_dates_differ_by_independent_speckle_alone(tmp_path):
    paths = write_synthetic_scenes(tmp_path, count=2, shape=(500, 600), seed=3, border=0, changes=False)
    ground = Ground(height=500, width=600, seed=3)
    for first, second, name in ((paths[0], paths[2], "VV"), (paths[1], paths[3], "VH")):
        level = 10 ** (ground.levels_db(np.arange(500), date=0, polarization=name) / 10)
        ground.add_ships(level, np.arange(500), date=0, polarization=name)
        without_ships = level == 10 ** (ground.levels_db(np.arange(500), date=0, polarization=name) / 10)
        ratios = [(pixels(path) / level)[without_ships] for path in (first, second)]
        for ratio in ratios:
            assert ratio.mean() == pytest.approx(1, abs=0.01)
            assert ratio.var() == pytest.approx(1 / 4.4, rel=0.02)
        assert abs(np.corrcoef(*ratios)[0, 1]) < 0.01


def test_acquisitions_share_the_ground_and_not_the_speckle(scenes):
    first, second = (db(pixels(scenes[f"s1_2026{day}_vv.tif"])) for day in ("0101", "0113"))

    def smooth(image):
        return image[:595, 100:600].reshape(119, 5, 100, 5).mean(axis=(1, 3))

    assert np.corrcoef(smooth(first).ravel(), smooth(second).ravel())[0, 1] > 0.9
    levels = [Ground(height=600, width=700, seed=3).levels_db(np.arange(600), date=d) for d in range(2)]
    noise = [
        (image - level)[:, 100:600].ravel() for image, level in zip((first, second), levels, strict=True)
    ]
    assert abs(np.corrcoef(*noise)[0, 1]) < 0.05
    assert np.array_equal(np.isnan(first), np.isnan(second))
    alone = first - levels[0]
    assert (
        abs(np.corrcoef(alone[:88, 100:600].ravel(), alone[512:, 100:600].ravel())[0, 1]) < 0.05
    )  # band by band


def test_levels_are_those_of_sea_fields_and_town():
    rows = np.arange(1024)
    for polarization, sea, fields, town in (("VV", -22, -12, -2), ("VH", -28, -18, -8)):
        levels = Ground(height=1024, width=1024).levels_db(rows, polarization=polarization)
        assert levels.dtype == np.float32
        assert levels[:, :150].mean() == pytest.approx(sea, abs=1.5)
        assert np.median(levels[100:150, 450:700]) == pytest.approx(fields, abs=3)
        assert db(np.mean(10 ** (levels[600:670, 640:710] / 10))) == pytest.approx(town, abs=2)


def test_speckle_has_the_looks_of_a_ground_range_product(scenes):
    assert equivalent_looks(pixels(scenes["s1_20260101_vv.tif"])) == pytest.approx(4.4, rel=0.12)
    drawn = speckle((500, 500), np.random.default_rng(0), looks=2)
    assert drawn.dtype == np.float32
    assert drawn.mean() == pytest.approx(1, abs=0.01)
    assert drawn.var() == pytest.approx(1 / 2, rel=0.02)


def test_ships_are_bright_points_on_the_sea():
    ground = Ground(height=800, width=800)
    rows = np.arange(800)
    calm = np.zeros((800, 800), np.float32)
    ground.add_ships(calm, rows, date=0, polarization="VV")
    inland = ground.inland(rows.astype(np.float32), np.arange(800, dtype=np.float32))
    assert calm.max() > 1
    assert inland[calm > 0.5].max() < 0
    split = np.zeros((800, 800), np.float32)
    for top in range(0, 800, 160):  # a ship on the edge of a band is whole
        ground.add_ships(split[top : top + 160], rows[top : top + 160], date=0, polarization="VV")
    np.testing.assert_array_equal(split, calm)


def test_the_ground_does_not_depend_on_the_rows_that_are_asked_for():
    ground = Ground(height=500, width=300, seed=2)
    whole = ground.levels_db(np.arange(500), date=1, polarization="VH")
    np.testing.assert_array_equal(
        ground.levels_db(np.arange(130, 180), date=1, polarization="VH"), whole[130:180]
    )
    some = ground.levels_db(np.arange(500), date=1, polarization="VH", columns=np.arange(50, 90))
    np.testing.assert_allclose(some, whole[:, 50:90], atol=1e-4)


def test_the_border_is_slanted_nodata_and_can_be_left_out(scenes, tmp_path):
    holes = np.isnan(pixels(scenes["s1_20260101_vv.tif"]))
    assert 0.01 < holes.mean() < 0.2
    left = holes.argmin(axis=1)
    assert left[0] > 20
    assert left[-1] == 0
    assert (np.diff(left) <= 0).all()
    bare = write_synthetic_scenes(tmp_path, count=1, shape=(300, 300), border=0)
    assert not np.isnan(pixels(bare[0])).any()


def test_every_representation_is_of_the_same_ground_and_speckle(scenes, tmp_path):
    power = pixels(scenes["s1_20260101_vv.tif"])
    forms = {}
    for representation in ("amplitude", "db", "dn"):
        (path,) = write_synthetic_scenes(
            tmp_path / representation,
            count=1,
            shape=(600, 700),
            polarizations=["vv"],
            seed=3,
            representation=representation,
        )
        forms[representation] = path
    np.testing.assert_allclose(pixels(forms["amplitude"]) ** 2, power, rtol=1e-6)
    np.testing.assert_allclose(pixels(forms["db"]), db(power), atol=1e-4)
    with rasterio.open(forms["dn"]) as file:
        dn = file.read(1)
        assert (file.dtypes, file.nodata, file.descriptions) == (("uint16",), 0, ("Amplitude_VV",))
    with rasterio.open(forms["db"]) as file:
        assert file.descriptions == ("Sigma0_VV_db",)
    assert np.array_equal(dn == 0, np.isnan(power))
    inside = dn > 0
    expected = np.maximum(CALIBRATION * np.sqrt(power[inside]), 1)
    assert np.abs(dn[inside] - expected).max() <= 0.51


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (513, 2)])
def test_any_shape(shape, tmp_path):
    paths = write_synthetic_scenes(tmp_path, count=1, shape=shape, polarizations=["HH", "HV"], border=0)
    assert [p.name for p in paths] == ["s1_20260101_hh.tif", "s1_20260101_hv.tif"]
    for path in paths:
        assert pixels(path).shape == shape
        assert (pixels(path) > 0).all()


@pytest.mark.slow
def test_memory_does_not_grow_with_a_scene(tmp_path):
    def peak(rows):
        tracemalloc.start()
        write_synthetic_scenes(tmp_path, count=1, shape=(rows, 2048), polarizations=["VV"], border=0)
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(512)  # imports
    assert peak(4096) - peak(1024) < 2048 * 512 * 4  # less than one band, for six more of them


def test_what_is_unknown_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="VV, VH, HH or HV, got 'XX'"):
        write_synthetic_scenes(tmp_path, polarizations=["XX"])
    with pytest.raises(InvalidInputError, match="one of power, amplitude, db, dn, got 'sigma'"):
        write_synthetic_scenes(tmp_path, representation="sigma")
    for wrong in ({"count": 0}, {"shape": (0, 5)}, {"border": 0.6}):
        with pytest.raises(InvalidInputError, match="expected a scene of pixels"):
            write_synthetic_scenes(tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []
