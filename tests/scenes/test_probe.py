"""A probe says what a file is, or refuses it with the remedy."""

import json
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine, from_origin
from tiffs import DATA, composed, needs_data, speckle, write

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, RasterNotFoundError, UnsupportedRasterError
from sarzarr.scenes.header import _within_one
from sarzarr.scenes.probe import probe_file

REMEDY = "--quantity and --representation, or store the raster as it is with --layer"


def found(path: Path, **said) -> tuple[str | None, str | None]:
    probe = probe_file(path, **said)
    return probe.quantity, probe.representation


# ---------------------------------------------------------------- real files


def documented() -> list[list[str]]:
    """Return the rows of the table of real files in docs/inputs.md."""
    page = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text()
    table = page.split("## Real files")[1]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    return rows[2:]


@needs_data
@pytest.mark.parametrize("row", documented(), ids=lambda row: row[0])
def test_real_files_come_out_as_documented(row):
    pattern, outcome, arrays, quantity, representation, because = row
    files = [f for f in sorted(DATA.rglob("*.tif*")) if fnmatch(str(f.relative_to(DATA)), pattern.strip("`"))]
    assert files
    for file in files:
        probe = probe_file(file)
        assert because in probe.reason
        if outcome == "refused":
            assert "expected backscatter, got" in probe.refusal
            assert "--layer" in probe.refusal
            assert probe.arrays == ()
        else:
            assert probe.refusal is None
            assert [array.name for array in probe.arrays] == arrays.split()
            assert (probe.quantity, probe.representation) == (quantity, representation)
            assert all((a.quantity, a.representation) == (quantity, representation) for a in probe.arrays)


@needs_data
def test_every_real_file_is_documented():
    patterns = [row[0].strip("`") for row in documented()]
    files = [str(file.relative_to(DATA)) for file in DATA.rglob("*.tif*")]
    assert files
    assert all(sum(fnmatch(file, pattern) for pattern in patterns) == 1 for file in files)


@needs_data
def test_real_refusals_and_bands_give_way_to_what_the_user_says():
    ships = DATA / "s1_mostly_nan" / "sentinel1_vv_panama.tif"
    assert [a.name for a in probe_file(ships, representation="db").arrays] == ["vv"]
    for tile in (DATA / "s1_rtc_db_float64").glob("*.tif"):
        arrays = probe_file(tile, polarizations=("VV", "VH")).arrays
        assert [(a.name, a.polarization) for a in arrays] == [("vv", "VV"), ("vh", "VH")]
    matrix = probe_file(DATA / "s1_c2_snap" / "slc.tif", representation="power")
    assert [a.name for a in matrix.arrays] == ["c11", "c22"]
    assert [a.band for a in matrix.arrays] == [1, 4]
    assert len(matrix.left_out) == 2
    phase = probe_file(next((DATA / "s1_ifg_nodata_mismatch").glob("*.tif")), representation="power")
    assert "interferometric phase" in phase.refusal


@needs_data
def test_whole_numbers_of_db_are_no_digital_numbers(tmp_path):
    pixels = np.round(10 * np.log10(speckle()) - 5).astype("int16")
    probe = probe_file(write(tmp_path / "a.tif", pixels), representation="db")
    assert (probe.quantity, probe.representation) == ("power", "db")


def test_a_real_snap_export_tells_its_acquisition():
    probe = probe_file(DATA / "s1_sigma0_linear_snap" / "VH.tif")
    assert probe.acquisition.attrs() == {
        cv.DATETIME: "2019-02-12T08:42:29.667762Z",
        cv.PLATFORM: "sentinel-1b",
        cv.INSTRUMENT_MODE: "IW",
        cv.PRODUCT_TYPE: "GRD",
        cv.OBSERVATION_DIRECTION: "right",
        cv.ORBIT_STATE: "ascending",
        cv.RELATIVE_ORBIT: 9,
        cv.ABSOLUTE_ORBIT: 14910,
        cv.INCIDENCE_ANGLE: pytest.approx(38.06, abs=0.01),
    }
    assert probe.arrays[0].nodata == 0


@needs_data
def test_a_real_safe_folder_tells_its_acquisition():
    probe = probe_file(next(DATA.rglob("s1-vh.tiff")))
    assert probe.acquisition.attrs() == {
        cv.DATETIME: "2023-08-09T02:07:29Z",
        cv.PLATFORM: "sentinel-1a",
        cv.INSTRUMENT_MODE: "SM",
        cv.PRODUCT_TYPE: "GRD",
        cv.OBSERVATION_DIRECTION: "right",
        cv.RELATIVE_ORBIT: 20,
        cv.ABSOLUTE_ORBIT: 49792,
    }


@needs_data
def test_real_geolocations():
    def geolocation(pattern: str) -> str:
        return probe_file(next(DATA.rglob(pattern))).geolocation

    assert geolocation("s1_db_utm_nodata0/VV.tif") == "affine"
    assert geolocation("iw-vv.tiff") == "gcps"
    assert geolocation("20190428.tif") == "none"
    grd = probe_file(next(DATA.rglob("iw-vv.tiff")))
    assert grd.grid.crs_wkt is None  # rioxarray calls it EPSG:4326
    assert len(grd.georeference.gcps) == 210
    assert 'ID["EPSG",4326]' in grd.georeference.gcps_crs
    with rasterio.open(grd.path) as dataset:
        last = dataset.gcps[0][-1]
    assert grd.georeference.gcps[-1] == (last.row, last.col, last.x, last.y, last.z)


@needs_data
def test_a_hollow_giant_is_probed_without_reading_it():
    probe = probe_file(next(DATA.glob("hollow_large_grd/*.tiff")))
    assert probe.declared_bytes == 16705 * 26102 * 2
    assert probe.block_bytes == 26102 * 2
    assert probe.file_size < 500_000


# ---------------------------------------------------------------- by value


@settings(max_examples=25, deadline=None)
@given(
    mean=st.floats(-30, 4),
    looks=st.sampled_from([1, 4.4, 30]),
    kind=st.sampled_from(["power", "db", "dn", "float dn", "complex"]),
    seed=st.integers(0, 9),
)
def test_speckle_is_told_by_its_values(tmp_path_factory, mean, looks, kind, seed):
    power = speckle((1, 64, 64), looks=looks, power=10 ** (mean / 10), seed=seed)
    pixels, expected = {
        "power": (power, ("power", "power")),
        "db": (10 * np.log10(power), ("power", "db")),
        "dn": ((3000 * np.sqrt(power)).astype("uint16") + 30, ("dn", "amplitude")),
        "float dn": (300 * np.sqrt(power) + 20, ("dn", "amplitude")),
        "complex": (np.sqrt(power).astype("complex64"), ("power", "complex")),
    }[kind]
    path = write(tmp_path_factory.mktemp("x") / ("a_sar.tif" if kind == "dn" else "a.tif"), pixels)
    if kind == "db" and np.median(pixels) >= -1.5:
        return  # too bright to be told: another test
    if kind == "power" and (np.median(pixels) > 6 or (np.median(pixels) > 0.2 and pixels.max() <= 1)):
        return  # as bright as digital numbers, or within [0, 1] as a coherence is
    assert found(path) == expected


LAKES = np.kron(np.random.default_rng(1).random((8, 8)) < 0.3, np.ones((8, 8)))
MOUNTAINS = 1000 + 150 * np.add.outer(np.sin(np.arange(64) / 9), np.cos(np.arange(64) / 7))


@pytest.mark.parametrize(
    ("pixels", "what"),
    [
        (np.random.default_rng(0).uniform(-3.14, 3.14, (64, 64)), "neither power nor dB"),
        (np.linspace(30, 45, 64 * 64).reshape(64, 64), "no speckle"),
        (1000 + np.add.outer(np.arange(64.0), np.arange(64.0)), "no speckle"),
        (np.random.default_rng(0).integers(-1, 2, (64, 64)).astype("int16"), "negative"),
        (np.random.default_rng(0).integers(0, 3, (64, 64)).astype("uint8"), "labels"),
        (np.full((64, 64), np.nan), "no pixel in the sample"),
        (np.zeros((64, 64), "float32"), "no pixel in the sample"),
        (
            np.round(100 * np.random.default_rng(0).normal(-11, 3, (64, 64))).astype("int16"),
            "like dB times 100",
        ),
        (LAKES.astype("uint8"), "labels"),
        (LAKES.astype("uint8") * 255, "labels"),
        (LAKES.astype("float32"), "labels"),
        (np.repeat(np.linspace(39, 38, 64)[:, None], 64, 1), "no speckle"),
        (np.repeat(np.linspace(39, 38, 64)[None], 64, 0), "no speckle"),
        ((150 + 40 * np.sin(np.add.outer(np.arange(64), np.arange(64)) / 90)).astype("int16"), "no speckle"),
        (MOUNTAINS.astype("float32"), "no speckle"),
        (np.random.default_rng(0).beta(5, 3, (64, 64)).astype("float32"), "like a coherence"),
        (np.sqrt(0.1 * np.random.default_rng(0).gamma(4.4, 1 / 4.4, (64, 64))).clip(0, 1), "an amplitude"),
    ],
    ids=[
        *(
            "phase",
            "angle",
            "elevation",
            "signed labels",
            "labels",
            "all NaN",
            "all zero",
            "hundredths of dB",
            "mask",
            "mask of 255",
        ),
        *("mask of floats", "latitudes", "longitudes", "whole metres", "mountains", "coherence", "amplitude"),
    ],
)
def test_what_does_not_look_like_backscatter_is_refused(tmp_path, pixels, what):
    probe = probe_file(write(tmp_path / "a.tif", pixels))
    assert what in probe.refusal
    assert REMEDY in probe.refusal
    assert (probe.arrays, probe.quantity, probe.representation) == ((), None, None)


def test_an_empty_or_constant_digital_number_is_still_one(tmp_path):
    assert found(write(tmp_path / "a_sar.tif", np.zeros((64, 64), "uint16"))) == ("dn", "amplitude")
    assert found(write(tmp_path / "b_sar.tif", np.full((64, 64), 9, "uint16"))) == ("dn", "amplitude")
    assert "no speckle shows" in probe_file(write(tmp_path / "b.tif", np.full((64, 64), 9, "uint16"))).refusal


def test_nodata_and_zeros_do_not_vote(tmp_path):
    pixels = 10 * np.log10(speckle())
    pixels[0, :80] = 9999  # most of it
    assert found(write(tmp_path / "a.tif", pixels, nodata=9999)) == ("power", "db")
    pixels[0, :80] = 0
    assert found(write(tmp_path / "b.tif", pixels)) == ("power", "db")
    pixels[0, :80] = np.nan
    assert found(write(tmp_path / "c.tif", pixels)) == ("power", "db")


def test_the_bands_of_a_file_are_judged_together(tmp_path):
    bright = np.concatenate([speckle(power=0.5, seed=1), speckle(power=0.001, seed=2)])
    both = probe_file(write(tmp_path / "a.tif", 10 * np.log10(bright)))
    assert {a.representation for a in both.arrays} == {"db"}
    assert "31200 sampled pixels" in both.reason


def test_a_sample_of_a_large_raster_is_small_and_always_the_same(tmp_path):
    path = write(tmp_path / "a.tif", speckle((1, 1500, 1500)), tiled=True, blockxsize=256, blockysize=256)
    assert probe_file(path) == probe_file(path)
    assert f"{16 * 64 * 256} sampled pixels" in probe_file(path).reason


# ---------------------------------------------------------------- by what is declared


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scene_VV_sigma0", ("sigma0", "power")),
        ("scene_VV_Gamma0", ("gamma0", "power")),
        ("scene_vv_beta0_lin", ("beta0", "power")),
        ("iw-vv.rtc", ("gamma0_rtc", "power")),
        ("S1A_x_VV_gamma0-rtc", ("gamma0_rtc", "power")),
        ("S1A_IW_20200101T120000_DVP_RTC30_G_gpuned_ABCD_VV", ("gamma0_rtc", "power")),
        ("S1A_IW_20200101T120000_DVP_RTC30_G_saunem_ABCD_VV", ("sigma0", "amplitude")),
        ("scene_amp", ("power", "amplitude")),
    ],
)
def test_names_declare(tmp_path, name, expected):
    assert found(write(tmp_path / f"{name}.tif", speckle())) == expected


def test_a_folder_declares_for_a_file_named_by_its_polarization_only(tmp_path):
    assert found(write(tmp_path / "lake_amplitude" / "VV.tif", speckle())) == ("power", "amplitude")
    assert found(write(tmp_path / "lake_amplitude" / "x_VV.tif", speckle())) == ("power", "power")


def test_the_more_specific_source_wins(tmp_path):
    path = write(tmp_path / "x_amplitude.tif", speckle(), names=["Sigma0_VV"], tags={"UNITS": "power"})
    assert found(path) == ("sigma0", "power")
    path = write(
        tmp_path / "x_sigma0.tif", speckle(), tags={"quantity": "gamma0_rtc", "representation": "amplitude"}
    )
    assert found(path) == ("gamma0_rtc", "amplitude")
    assert found(path, quantity="dn", representation="power") == ("dn", "power")


def test_each_band_is_what_its_own_name_says(tmp_path):
    both = np.concatenate([speckle(seed=1), speckle(seed=2)])
    arrays = probe_file(write(tmp_path / "a.tif", both, names=["Sigma0_VV", "Gamma0_VV"])).arrays
    assert [(a.name, a.polarization, a.quantity) for a in arrays] == [
        ("sigma0_vv", "VV", "sigma0"),
        ("gamma0_vv", "VV", "gamma0"),
    ]


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("x_db", 3000 * np.sqrt(speckle())),
        ("x_power", 10 * np.log10(speckle())),
        ("x_sigma0", 300 * np.sqrt(speckle())),
    ],
)
def test_pixels_that_contradict_a_name_are_refused(tmp_path, name, pixels):
    probe = probe_file(write(tmp_path / f"{name}.tif", pixels))
    assert f"although the file is named '{name}'" in probe.refusal


@pytest.mark.parametrize(
    "name",
    [
        "x_phase",
        "20180106-20180130_ifg",
        "x_coh_vv",
        "x_inc_map",
        "lia",
        "dem",
        "LabelHand",
        "x_mask",
        "C12_real",
    ],
)
def test_names_of_other_rasters_are_refused_until_the_user_says(tmp_path, name):
    path = write(tmp_path / f"{name}.tif", speckle())
    assert REMEDY in probe_file(path).refusal
    assert found(path, representation="power") == ("power", "power")


def test_a_unit_outweighs_the_user(tmp_path):
    for number, tags in enumerate(
        ({"UNITS": "radians"}, {"DATA_TYPE": "UNWRAPPED_IFG"}, {"units": "degrees"})
    ):
        path = write(tmp_path / f"{number}.tif", speckle(), tags=tags)
        refusal = probe_file(path, quantity="sigma0", representation="power").refusal
        assert refusal.endswith("Store the raster as it is with --layer NAME=FILE.")


def test_an_angle_beside_backscatter_is_left_out_and_said(tmp_path):
    pixels = np.concatenate([10 * np.log10(speckle((2, 64, 64))), np.full((1, 64, 64), 38, "float32")])
    probe = probe_file(write(tmp_path / "gee.tif", pixels, names=["VV", "VH", "angle"]))
    assert [(a.name, a.band, a.representation) for a in probe.arrays] == [("vv", 1, "db"), ("vh", 2, "db")]
    assert probe.left_out == ("gee.tif: band 3 'angle' is left out, since it is an angle.",)
    alone = probe_file(write(tmp_path / "b.tif", pixels[2:], names=["angle"]), representation="power")
    assert "an angle" in alone.refusal


def test_parts_of_complex_numbers_are_refused_together(tmp_path):
    probe = probe_file(
        write(tmp_path / "a.tif", speckle((3, 64, 64)), names=["i_VV", "q_VV", "Intensity_VV"])
    )
    assert "one part of a complex number" in probe.refusal
    assert probe.left_out == ()


def test_a_user_who_says_what_does_not_exist_or_fit_is_told(tmp_path):
    path = write(tmp_path / "a.tif", speckle((2, 64, 64)))
    with pytest.raises(InvalidInputError, match="expected a quantity of sigma0, beta0"):
        probe_file(path, quantity="sigma")
    with pytest.raises(InvalidInputError, match="expected a representation of power, amplitude, db, complex"):
        probe_file(path, representation="normalized")
    with pytest.raises(InvalidInputError, match="each of the 2 bands"):
        probe_file(path, polarizations=["VV"])
    assert "called complex" in probe_file(path, representation="complex").refusal


# ---------------------------------------------------------------- bands


@pytest.mark.parametrize(
    ("stem", "options", "expected"),
    [
        ("VV", {}, ["vv"]),
        ("iw-vh", {}, ["vh"]),
        ("s1b-iw-grd-vv-20211223t051122-20211223t051147-030148-039993-001", {}, ["vv"]),
        ("S1_IW_GRD_panama_700_VV_VH", {}, ["vv", "vh"]),
        ("x_VH_VV", {}, ["vh", "vv"]),
        ("overview", {}, ["band_1"]),
        ("x_VV_VH", {"bands": 1}, ["band_1"]),
        ("x", {"names": ["Sigma0_HH", "Sigma0_HV"]}, ["hh", "hv"]),
        ("x", {"names": ["bands", "bands"]}, ["band_1", "band_2"]),
        ("x", {"names": ["First band!", "Second"]}, ["first_band", "second"]),
        ("x", {"names": ["x", "9lives"]}, ["band_1", "b_9lives"]),
        ("x", {"names": ["my_flags", "spatial_ref"]}, ["band_1", "band_2"]),
        ("x", {"band_tags": [{"POLARIZATION": "HH"}, {"POLARIZATION": "VV"}]}, ["hh", "vv"]),
        ("x", {"bands": 1, "tags": {"polarisation": "HV"}}, ["hv"]),
        ("VV", {"names": ["VH"]}, ["vh"]),
    ],
)
def test_array_names(tmp_path, stem, options, expected):
    bands = options.pop("bands", len(expected))
    path = write(tmp_path / f"{stem}.tif", speckle((bands, 64, 64)), **options)
    assert [a.name for a in probe_file(path).arrays] == expected


def test_the_user_names_bands(tmp_path):
    path = write(tmp_path / "a.tif", speckle((3, 64, 64)), names=["HH", "HV", "x"])
    arrays = probe_file(path, polarizations=["vv", "VH", "odd one"]).arrays
    assert [(a.name, a.polarization) for a in arrays] == [("vv", "VV"), ("vh", "VH"), ("odd_one", None)]


# ---------------------------------------------------------------- refused whatever the numbers


def test_scaled_pixels_are_refused(tmp_path):
    for scale in ((0.01, 0.0), (1.0, -30.0)):
        refusal = probe_file(write(tmp_path / "a.tif", speckle(), scale=scale), representation="db").refusal
        assert f"got scale [{scale[0]}] and offset [{scale[1]}]" in refusal
        assert "-unscale" in refusal


def test_pages_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", speckle())
    write(path, speckle(), APPEND_SUBDATASET="YES")
    assert "got 2 pages" in probe_file(path).refusal


def test_pictures_are_refused_until_the_user_says(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 255, (3, 64, 64)).astype("uint8")
    path = write(tmp_path / "a.tif", rgb, photometric="RGB")
    assert "a colour picture" in probe_file(path).refusal
    assert found(path, representation="amplitude") == ("dn", "amplitude")


def test_a_colour_table_that_colours_nothing_is_none(tmp_path):
    pixels = np.clip(150 * np.sqrt(speckle()), 1, 255).astype("uint8")
    path = write(tmp_path / "TDX1_20200105_HH.tif", pixels)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (i, i, i, 255) for i in range(256)})
    assert found(path) == ("dn", "amplitude")


def test_an_opacity_is_left_out(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 64)).astype("uint8")
    probe = probe_file(write(tmp_path / "a_sar.tif", pixels, ALPHA="YES"))
    assert [a.name for a in probe.arrays] == ["band_1"]
    assert "an opacity" in probe.left_out[0]


def test_normalized_values_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", speckle(), tags={"representation": "normalized"})
    assert "got normalized ones" in probe_file(path).refusal


def test_too_many_bands_are_refused(tmp_path):
    assert "at most 64 bands, got 65" in probe_file(write(tmp_path / "a.tif", speckle((65, 8, 8)))).refusal


def test_a_file_that_cannot_be_decoded_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", speckle(), compress="deflate")
    content = bytearray(path.read_bytes())
    content[-len(content) // 2 :] = bytes(len(content) // 2 + len(content) % 2)
    path.write_bytes(content)
    assert "expected intact pixels in 'a.tif'" in probe_file(path).refusal


def test_what_is_no_tiff_raises(tmp_path):
    (tmp_path / "a.tif").write_text("not a TIFF")
    with pytest.raises(UnsupportedRasterError, match="expected a TIFF file"):
        probe_file(tmp_path / "a.tif")
    with pytest.raises(RasterNotFoundError):
        probe_file(tmp_path / "b.tif")


def test_a_giant_strip_is_reported_and_never_decoded(tmp_path):
    path = tmp_path / "a.tif"
    options = {"driver": "GTiff", "count": 1, "dtype": "float32", "compress": "deflate", "SPARSE_OK": "TRUE"}
    place = {"crs": "EPSG:32633", "transform": from_origin(0, 0, 10, 10)}
    with rasterio.open(path, "w", height=25000, width=25000, blockysize=25000, **options, **place):
        pass
    started = time.process_time()
    probe = probe_file(path)
    assert time.process_time() - started < 2  # decoding it would write 2.5 GB
    assert probe.block_bytes == 25000 * 25000 * 4
    assert "25000 x 25000 pixels, too large to look into" in probe.refusal
    assert probe_file(path, representation="power").refusal is None  # the plan decides over memory


def test_a_declared_bomb_shows_in_the_probe(tmp_path):
    path = tmp_path / "a.tif"
    options = {"driver": "GTiff", "count": 1, "dtype": "uint16", "compress": "deflate", "SPARSE_OK": "TRUE"}
    tiles = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "BIGTIFF": "YES"}
    place = {"crs": "EPSG:32633", "transform": from_origin(0, 0, 10, 10)}
    with rasterio.open(path, "w", height=200_000, width=200_000, **options, **tiles, **place):
        pass
    probe = probe_file(path)
    assert probe.declared_bytes == 80_000_000_000
    assert probe.declared_bytes > 100_000 * probe.file_size


# ---------------------------------------------------------------- where


def test_geolocation_of_an_affine_a_rotated_one_and_none(tmp_path):
    plain = probe_file(write(tmp_path / "a.tif", speckle()))
    assert (plain.geolocation, plain.grid.transform) == ("affine", (10, 0, 500000, 0, -10, 5000000))
    assert plain.grid.crs_wkt.startswith("PROJCRS[")  # WKT2
    rotated = composed(Affine.translation(5e5, 5e6), Affine.rotation(30), Affine.scale(10, -10))
    turned = probe_file(write(tmp_path / "b.tif", speckle(), transform=rotated))
    assert turned.geolocation == "rotated_affine"
    assert turned.grid.transform == pytest.approx(rotated[:6])
    nowhere = probe_file(write(tmp_path / "c.tif", speckle(), crs=None, transform=None))
    assert (nowhere.geolocation, nowhere.grid.crs_wkt) == ("none", None)
    no_crs = probe_file(write(tmp_path / "d.tif", speckle(), crs=None))
    assert (no_crs.geolocation, no_crs.grid.transform) == ("none", plain.grid.transform)


def test_gcps_are_kept_and_are_no_crs(tmp_path):
    points = [
        GroundControlPoint(row=r, col=c, x=10 + c / 99, y=50 - r / 99, z=7) for r in (0, 99) for c in (0, 99)
    ]
    path = write(tmp_path / "a.tif", speckle(), crs="EPSG:4326", transform=None, gcps=points)
    probe = probe_file(path)
    assert (probe.geolocation, probe.grid.crs_wkt) == ("gcps", None)
    assert probe.georeference.gcps == tuple((p.row, p.col, p.x, p.y, 7.0) for p in points)
    assert probe.georeference.gcps_crs.startswith("GEOGCRS[")


def test_a_hostile_sidecar_changes_nothing(tmp_path):
    path = write(tmp_path / "a_sigma0.tif", speckle(), nodata=-1)
    true = probe_file(path)
    (tmp_path / "a_sigma0.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:4326</SRS><GeoTransform>1,2,0,3,0,4</GeoTransform>"
        '<Metadata><MDI key="UNITS">radians</MDI></Metadata>'
        '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue><Description>Phase</Description></PAMRasterBand>'
        "</PAMDataset>"
    )
    assert probe_file(path) == true


# ---------------------------------------------------------------- when


def test_a_safe_folders_metadata_is_read_from_beside_measurement(tmp_path):
    folder = tmp_path / "S1A_IW_GRDH_1SDV_20180716T004042_20180716T004107_022812_02792A_FD5B.SAFE"
    path = write(folder / "measurement" / "iw-vv.tiff", speckle())
    named = probe_file(path).acquisition
    assert (named.absolute_orbit, named.relative_orbit, named.orbit_state) == (22812, 165, None)
    (folder / "annotation").mkdir()
    annotation = (
        "<product><pass>Descending</pass><incidenceAngleMidSwath>38.9</incidenceAngleMidSwath></product>"
    )
    (folder / "annotation" / "iw-vv.xml").write_text(annotation)
    (folder / "productInfo.json").write_text(json.dumps({"startTime": "2018-07-16T00:40:43", "mode": "IW"}))
    told = probe_file(path).acquisition
    assert (told.orbit_state, told.incidence_angle) == ("descending", 38.9)
    assert told.datetime == "2018-07-16T00:40:43Z"
    assert told.absolute_orbit == 22812


def test_our_own_tags_are_read_back(tmp_path):
    tags = {cv.DATETIME: "2020-01-02T03:04:05Z", cv.PLATFORM: "sentinel-1a", cv.ORBIT_STATE: "ascending"}
    tags |= {cv.RELATIVE_ORBIT: "44", cv.LOOKS_EQUIVALENT_NUMBER: "4.4", cv.INCIDENCE_ANGLE: "39.5"}
    spelled = {key.replace(":", "_"): value for key, value in tags.items()}  # GDAL ends a name at a colon
    facts = probe_file(write(tmp_path / "20200909.tif", speckle(), tags=spelled)).acquisition
    assert {key: str(value) for key, value in facts.attrs().items() if key in tags} == tags


def test_a_processing_time_is_no_acquisition_time(tmp_path):
    path = write(tmp_path / "a.tif", speckle(), tags={"TIFFTAG_DATETIME": "2020:07:08 05:05:14"})
    assert probe_file(path).acquisition.attrs() == {}


def test_nothing_that_is_said_holds_the_place_of_the_file(tmp_path):
    probe = probe_file(write(tmp_path / "amplitudes" / "VV.tif", speckle()))
    assert str(tmp_path) not in f"{probe.reason}{probe.left_out}{probe.refusal}{probe.acquisition}"


# ---------------------------------------------------------------- names that are told


@pytest.mark.parametrize(("told", "name"), [("HH", "hh"), ("XX", "xx"), ("RH", "rh"), ("co pol", "co_pol")])
def test_a_name_that_is_told_outweighs_what_the_file_is_called(tmp_path, told, name):
    path = write(tmp_path / "VV.tif", speckle((1, 64, 64)), tags={"POLARIZATION": "VV"})
    (array,) = probe_file(path, polarizations=[told]).arrays
    assert array.name == name
    assert array.polarization == (told if told in ("HH", "RH") else None)


@pytest.mark.parametrize(
    "told", [("VV", "VV"), ("vv", "VV"), ("VV", ""), ("VV", "band_7"), ("a b", "a-b"), ("VV", "x")]
)
def test_names_that_two_bands_cannot_have_are_refused(tmp_path, told):
    path = write(tmp_path / "a.tif", speckle((2, 64, 64)))
    with pytest.raises(InvalidInputError, match=r"expected a name of its own for each band of 'a\.tif', got"):
        probe_file(path, polarizations=told)


@given(first=st.integers(0, 5000), length=st.integers(1, 600), block=st.integers(1, 1100))
def test_a_sampled_window_lies_within_one_block_where_it_fits(first, length, block):
    moved = _within_one(first, length, block)
    assert 0 <= moved <= first
    assert first - moved < length
    if length <= block:
        assert moved // block == (moved + length - 1) // block
    else:
        assert moved == first


# ---------------------------------------------------------------- each band by itself


FIELD = np.linspace(30, 45, 130, dtype="float32") + np.zeros((1, 120, 130), "float32")
CLASSES = np.kron(np.random.default_rng(0).integers(0, 2, (12, 13)), np.ones((10, 10))).astype("float32")[
    None
]


@pytest.mark.parametrize(
    ("beside", "what"),
    [
        (FIELD, "no speckle"),
        (10 * FIELD, "no speckle"),
        (CLASSES, "labels"),
        (speckle(power=30), "beside power"),
    ],
)
@pytest.mark.parametrize("names", [(), ("VV", "VH")])
def test_a_band_without_a_name_is_judged_by_its_own_pixels(tmp_path, beside, what, names):
    pixels = np.concatenate([speckle(), speckle(seed=1), beside])
    probe = probe_file(write(tmp_path / "chip_001.tif", pixels, names=names))
    assert [array.band for array in probe.arrays] == [1, 2]
    assert (probe.quantity, probe.representation) == ("power", "power")
    assert what in probe.left_out[0]
    told = probe_file(write(tmp_path / "chip_001.tif", pixels, names=names), representation="power")
    assert [array.band for array in told.arrays] == [1, 2, 3]


def test_the_angle_beside_bands_of_db_is_left_out(tmp_path):
    db = 10 * np.log10(np.concatenate([speckle(), speckle(seed=1)]))
    probe = probe_file(write(tmp_path / "chip_001.tif", np.concatenate([db, FIELD])))
    assert [array.representation for array in probe.arrays] == ["db", "db"]
    ratio = speckle(looks=100, power=5, seed=3)
    probe = probe_file(write(tmp_path / "chip_002.tif", np.concatenate([db, ratio])))
    assert [array.band for array in probe.arrays] == [1, 2]
    assert "no negative pixel" in probe.left_out[0]


@pytest.mark.parametrize(
    "name", ["VV_VH", "VV/VH", "VVminusVH", "VVVH_ratio", "VV_stdDev", "VV_count", "Sigma0_VV_GLCMMean"]
)
def test_bands_made_of_backscatter_are_left_out(tmp_path, name):
    pixels = np.concatenate([speckle(seed=i) for i in range(3)])
    probe = probe_file(write(tmp_path / "s1.tif", pixels, names=("VV", "VH", name)))
    assert [array.name for array in probe.arrays] == ["vv", "vh"]


@pytest.mark.parametrize(
    "stem", ["filt_fine.cor", "20200101.pix", "20200101.sim_sar", "area", "S1_rtc_area", "x_VVdivVH", "x_CR"]
)
def test_more_of_what_is_no_backscatter_is_told_by_words(tmp_path, stem):
    assert probe_file(write(tmp_path / f"{stem}.tif", speckle())).companion is not None


@pytest.mark.parametrize("stem", ["study_area_VV", "study_area", "S1_terrain_corr_VV", "count_lake_VV"])
def test_words_that_mean_other_things_refuse_nothing(tmp_path, stem):
    assert probe_file(write(tmp_path / f"{stem}.tif", speckle())).refusal is None


def test_integers_of_pictures_are_no_calibrated_backscatter(tmp_path):
    byte = np.clip(255 * np.sqrt(speckle()), 1, 255).astype("uint8")
    for stem, what in (
        ("S1_VV_decibel_gamma0", "none is negative"),
        ("S1_VV_linear_gamma0", "too bright for gamma0"),
        ("S1_VV_sigma0", "too bright for sigma0"),
    ):
        assert what in probe_file(write(tmp_path / f"{stem}.tif", byte)).refusal
    db = np.round(10 * np.log10(speckle())).astype("int8")
    assert found(write(tmp_path / "S1_VV_dB.tif", db))[1] == "db"


def test_a_coherence_that_is_often_low_is_refused(tmp_path):
    coherence = np.random.default_rng(0).beta(2, 5, (1, 160, 150)).astype("float32")
    assert "like a coherence" in probe_file(write(tmp_path / "20200101_20200113.tif", coherence)).refusal


def test_bands_of_several_days_have_no_time(tmp_path):
    stem = "S1A_IW_GRDH_1SDV_20190212T084229_20190212T084254_025900_02E2A5_A1B2_Stack"
    names = ("Sigma0_VV_mst_12Feb2019", "Sigma0_VV_slv1_24Feb2019")
    probe = probe_file(
        write(tmp_path / f"{stem}.tif", np.concatenate([speckle(), speckle(seed=1)]), names=names)
    )
    assert (probe.acquisition.datetime, probe.acquisition.relative_orbit) == (None, 103)
    assert "several days" in probe.left_out[0]
    one = probe_file(write(tmp_path / f"{stem}.tif", speckle(), names=names[:1]))
    assert one.acquisition.datetime == "2019-02-12T08:42:29Z"


def test_snap_calls_flattened_gamma0_gamma0(tmp_path):
    stem = "S1A_IW_GRDH_1SDV_20180716T004042_20180716T004107_022812_02792A_FD5B_Orb_Cal_TF_TC"
    assert found(write(tmp_path / f"{stem}.tif", speckle(), names=("Gamma0_VV",)))[0] == "gamma0_rtc"
    assert found(write(tmp_path / "a_Orb_Cal_TC.tif", speckle(), names=("Gamma0_VV",)))[0] == "gamma0"


def test_bright_bands_are_kept_beside_dim_ones(tmp_path):
    pixels = np.concatenate([speckle(power=9), speckle(power=0.5, seed=1)])
    assert [array.band for array in probe_file(write(tmp_path / "city.tif", pixels)).arrays] == [1, 2]
