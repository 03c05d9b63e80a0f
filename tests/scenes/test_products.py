"""What products deliver is known by name and tags: a row a raster."""

import json
from pathlib import Path

import numpy as np
import pytest
from identify_corpus import corpus, judged
from tiffs import speckle, write

from sarzarr.scenes.probe import probe_file
from sarzarr.scenes.products.rasters import ROWS, content_of

HYP3 = "S1A_IW_20180128T161201_DVP_RTC30_G_{}_FD6A"
INSAR = "S1AB_20171111T150004_20171117T145926_VVP006_INT80_G_ueF_4D09"
BURST = "S1_136231_IW2_20200604_20200616_VV_INT80_663F"
OPERA = "OPERA_L2_RTC-S1_T115-245714-IW1_20250418T141628Z_20250419T010229Z_S1A_30_v1.0"
STATIC = "OPERA_L2_RTC-S1-STATIC_T115-245714-IW1_20140403_S1A_30_v1.0"
NRB = "s1a-iw-nrb-20220721t051225-044194-05465e-33tul"
DEA = "s1_rtc_0340AE_N13E025_2018_01_04"
SINERGISE = "S1A_20200103_17RMJ_ASC"
JAXA = "N10E100_20_sl_{}_F02DAR"
ALOS = "ALOS2300100500-191219_WWDR2.2GUA"
RCM = "RCM1_OK1234567_PK1234568_1_SC50MA_20200506_013122_HH_HV_GRD"
RS2 = "RS2_OK1_PK05_DK1_FQ5_20120305_060113_HH_HV_SLC"
TSX = "TSX1_SAR__MGD_SE___SM_S_SRA_20200105T171512_20200105T171520"
UAVSAR = "SanAnd_05024_18038_006_180730_L090{}_CX_01"
BIOMASS = "bio_s2_dgm__1s_20260101t010203_20260101t010223_t_g01_m01_c01_t001_f001_01_d12345"
BEN = "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_65_63"
RTC, POWER, DB, AMPLITUDE = "gamma0_rtc", "power", "db", "amplitude"

BACKSCATTER = [  # product, path, quantity and representation that the product says, base
    ("ASF HyP3 RTC", f"{HYP3.format('gpuned')}_VV", RTC, POWER, HYP3.format("gpuned")),
    ("ASF HyP3 RTC", f"{HYP3.format('sduncm')}_HH", "sigma0", DB, HYP3.format("sduncm")),
    ("ASF HyP3 RTC", f"{HYP3.format('sawned')}_VH", "sigma0", AMPLITUDE, HYP3.format("sawned")),
    ("ASF HyP3 InSAR", f"{INSAR}_amp", None, AMPLITUDE, INSAR),
    ("OPERA RTC-S1", f"{OPERA}_VH", RTC, POWER, OPERA),
    ("S1-NRB", f"{NRB}-vv-g-lin", RTC, POWER, NRB),
    ("S1-NRB", f"{NRB}-vh-s-log", "sigma0", DB, NRB),
    ("Planetary Computer sentinel-1-rtc", "S1A_x_rtc/measurement/iw-vv.rtc", RTC, POWER, "iw.rtc"),
    ("Digital Earth Africa s1_rtc", f"{DEA}_VV", RTC, POWER, DEA),
    ("Sinergise RTC", f"{SINERGISE}/Gamma0_VH", RTC, POWER, ""),
    ("SEN12MS", "ROIs1158_spring_s1_1_p30", None, DB, None),
    ("PALSAR mosaic of JAXA", JAXA.format("HH"), "dn", AMPLITUDE, "N10E100_20_sl_F02DAR"),
    ("ALOS-2 PALSAR-2 L1.5, L2.1", "IMG-HV-ALOS2014410740-140829-UBDR1.5RUD", "dn", AMPLITUDE, None),
    ("ALOS-2 PALSAR-2 L2.2", f"{ALOS}_HH", "dn", AMPLITUDE, ALOS),
    ("RADARSAT Constellation", f"{RCM}/imagery/{RCM}_HV", "dn", None, RCM),
    ("RADARSAT-2", f"{RS2}/imagery_HV", "dn", None, "imagery"),
    ("TerraSAR-X, TanDEM-X, PAZ", f"{TSX}/IMAGEDATA/IMAGE_HH_SRA_stripFar_008", "dn", None, None),
    ("UAVSAR", f"{UAVSAR.format('HVHV')}.grd", None, POWER, f"{UAVSAR.format('')}.grd"),
    ("NISAR GCOV", "NISAR_L2_PR_GCOV_001_030_A_019_2800_SHNA_HHHH", RTC, POWER, None),
    ("BIOMASS", f"{BIOMASS}_i_abs", None, AMPLITUDE, BIOMASS),
    ("xView3", "05bc615a9b0aaaaav/VV_dB", None, DB, ""),
    ("Sen1Floods11", "Spain_7370579_S1Hand", None, DB, "Spain_7370579"),
    ("BigEarthNet-S1", f"{BEN}_VH", None, DB, BEN),
]
COMPANIONS = [  # product, path, what it is, layer
    ("ASF HyP3 RTC", "S1_136231_IW2_20200604T021226_VV_RTC_G_gpuned_663F_area", "a scattering area", "area"),
    ("OPERA RTC-S1", f"{OPERA}_number_of_looks", "a number of looks", None),
    ("PALSAR mosaic of JAXA", "N10E100_20_C_F02DAR", "a mask or a label", None),
    ("SEN12MS", "ROIs1158_spring_s2_1_p30", "an optical image", None),
    ("SEN12MS", "ROIs1158_spring_lc_1_p30", "a mask or a label", None),
    (
        "SpaceNet 6",
        "SN6_Train_AOI_11_Rotterdam_PS-RGB_20190823162315_20190823162606_tile_1",
        "an optical image",
        None,
    ),
    ("Sentinel-2 of data sets", "S2_2019-02-04_B4", "an optical image", None),
    *(
        ("ASF HyP3 RTC", f"{HYP3.format('gpuned')}_{token}", what, layer)
        for token, what, layer in (
            ("ls_map", "a layover and shadow map", "layover_shadow"),
            ("inc_map", "an angle", "local_incidence_angle"),
            ("area", "a scattering area", "area"),
            ("dem", "an elevation", "dem"),
            ("rgb", "a picture", None),
        )
    ),
    *(
        ("ASF HyP3 InSAR", f"{name}_{token}", what, layer)
        for name in (INSAR, BURST)
        for token, what, layer in (
            ("corr", "a coherence", None),
            ("unw_phase", "an interferometric phase", None),
            ("wrapped_phase", "an interferometric phase", None),
            ("los_disp", "a displacement", None),
            ("lv_theta", "an angle", None),
            ("lv_phi", "an angle", None),
            ("inc_map_ell", "an angle", "incidence_angle"),
            ("dem", "an elevation", "dem"),
            ("water_mask", "a mask or a label", "water_mask"),
        )
    ),
    ("OPERA RTC-S1", f"{OPERA}_mask", "a layover and shadow map", "layover_shadow"),
    *(
        ("OPERA RTC-S1-STATIC", f"{STATIC}_{token}", what, layer)
        for token, what, layer in (
            ("local_incidence_angle", "an angle", "local_incidence_angle"),
            ("incidence_angle", "an angle", "incidence_angle"),
            ("mask", "a layover and shadow map", "layover_shadow"),
            ("number_of_looks", "a number of looks", None),
            ("rtc_anf_gamma0_to_beta0", "a factor between backscatter conventions", None),
            ("rtc_anf_gamma0_to_sigma0", "a factor between backscatter conventions", None),
        )
    ),
    *(
        ("S1-NRB", f"{NRB}-{token}", what, layer)
        for token, what, layer in (
            ("dm", "a layover and shadow map", "layover_shadow"),
            ("ei", "an angle", "incidence_angle"),
            ("li", "an angle", "local_incidence_angle"),
            ("em", "an elevation", "dem"),
            ("lc", "a scattering area", "area"),
            ("gs", "a factor between backscatter conventions", None),
            ("np-vh", "a noise power", None),
        )
    ),
    ("Digital Earth Africa s1_rtc", f"{DEA}_ANGLE", "an angle", "local_incidence_angle"),
    ("Digital Earth Africa s1_rtc", f"{DEA}_AREA", "a scattering area", "area"),
    ("Digital Earth Africa s1_rtc", f"{DEA}_MASK", "a mask or a label", "mask"),
    ("Sinergise RTC", f"{SINERGISE}/local_incident_angle", "an angle", "local_incidence_angle"),
    ("PALSAR mosaic of JAXA", JAXA.format("mask"), "a mask or a label", "mask"),
    ("PALSAR mosaic of JAXA", JAXA.format("linci"), "an angle", "local_incidence_angle"),
    ("PALSAR mosaic of JAXA", JAXA.format("date"), "a date", None),
    ("ALOS-2 PALSAR-2 L2.2", f"{ALOS}_LIN", "an angle", None),
    ("ALOS-2 PALSAR-2 L2.2", f"{ALOS}_MSK", "a mask or a label", "mask"),
    ("UAVSAR", UAVSAR.format("HHVV"), "an element of a covariance or coherency matrix", None),
    ("BIOMASS", f"{BIOMASS}_i_phase", "an interferometric phase", None),
    ("xView3", "05bc615a9b0aaaaav/bathymetry", "a bathymetry", None),
    ("xView3", "05bc615a9b0aaaaav/owiWindSpeed", "a wind", None),
    ("xView3", "05bc615a9b0aaaaav/owiMask", "a mask or a label", None),
    ("Sentinel-2", "T33UUP_20200105T101021_B8A", "an optical image", None),
    ("Sentinel-2", "T33UUP_20200105T101021_SCL_20m", "a mask or a label", None),
    ("Landsat", "LC08_L2SP_191027_20200105_20200823_02_T1_SR_B4", "an optical image", None),
    ("Landsat", "LC08_L2SP_191027_20200105_20200823_02_T1_QA_PIXEL", "a mask or a label", None),
    ("Sen1Floods11", "Spain_7370579_LabelHand", "a mask or a label", None),
    ("Sen1Floods11", "Spain_7370579_S2Hand", "an optical image", None),
]


@pytest.mark.parametrize(("product", "path", "quantity", "representation", "base"), BACKSCATTER)
def test_the_backscatter_of_a_product_is_known(tmp_path, product, path, quantity, representation, base):
    found = content_of(tmp_path / f"{path}.tif")
    assert (found.product, found.content.companion) == (product, "")
    assert (found.content.quantity, found.content.representation) == (quantity, representation)
    assert base is None or found.base == base


@pytest.mark.parametrize(("product", "path", "what", "layer"), COMPANIONS)
def test_a_companion_of_a_product_is_refused_whatever_its_pixels_look_like(
    tmp_path, product, path, what, layer
):
    found = content_of(tmp_path / f"{path}.tif")
    assert (found.product, found.content.companion, found.content.layer) == (product, what, layer)
    file = tmp_path / f"{path}.tif"
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, speckle())  # as bright and as rough as backscatter
    for said in ({}, {"representation": "power"}):
        probe = probe_file(file, **said)
        assert probe.companion.companion == what
        assert what in probe.refusal
        assert "--layer" in probe.refusal


def test_every_product_has_its_rows():
    assert {row.name for row in ROWS} == {product for product, *_ in BACKSCATTER + COMPANIONS}


def test_every_product_stands_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text()
    told = {
        line.split("|")[1].strip()
        for line in page.split("## Products")[1].splitlines()
        if line.startswith("|")
    }
    assert {row.name for row in ROWS} <= told


def test_rasters_of_one_product_have_one_base(tmp_path):
    bases = {
        content_of(tmp_path / f"{HYP3.format('gpuned')}_{t}.tif").base for t in ("VV", "VH", "ls_map", "area")
    }
    assert bases == {HYP3.format("gpuned")}


CAPELLA = {
    "collect": {
        "image": {
            "scale_factor": 1e-3,
            "radiometry": "sigma_nought",
            "center_pixel": {"incidence_angle": 34.2},
        },
        "radar": {"transmit_polarization": "H", "receive_polarization": "V"},
    }
}
ICEYE = {
    "iceye:calibration_factor": 1e-7,
    "sar:polarizations": ["VV"],
    "sar:product_type": "GRD",
    "sar:instrument_mode": "SPOTLIGHT",
}


@pytest.mark.parametrize(
    ("tags", "expected", "polarization"),
    [
        ({"TIFFTAG_IMAGEDESCRIPTION": json.dumps(CAPELLA)}, ("sigma0", AMPLITUDE), "HV"),
        ({"ICEYE_PROPERTIES": json.dumps(ICEYE)}, ("sigma0", AMPLITUDE), "VV"),
        ({"ICEYE_PROPERTIES": json.dumps({**ICEYE, "sar:product_type": "SLC"})}, ("beta0", AMPLITUDE), "VV"),
        ({"ICEYE_PROPERTIES": json.dumps({**ICEYE, "sar:instrument_mode": "SCAN"})}, ("dn", AMPLITUDE), "VV"),
        (
            {"CALIBRATION_FACTOR": "1.1e-07", "SATELLITE_NAME": "ICEYE-X7", "POLARIZATION": "VV"},
            ("sigma0", AMPLITUDE),
            "VV",
        ),
        (
            {"MPH_PRODUCT": "ASA_IMP_1PNDPA20080115_092142", "SPH_MDS1_TX_RX_POLAR": "H/H"},
            ("dn", AMPLITUDE),
            "HH",
        ),
    ],
)
def test_tags_of_a_product_tell_what_the_pixels_are(tmp_path, tags, expected, polarization):
    pixels = np.clip(1e3 * np.sqrt(speckle()), 1, 65535).astype("uint16")
    probe = probe_file(write(tmp_path / "a.tif", pixels, tags=tags))
    assert (probe.quantity, probe.representation) == expected
    assert [a.polarization for a in probe.arrays] == [polarization]


@pytest.mark.parametrize(
    ("path", "quantity"),
    [(JAXA.format("HH"), RTC), ("IMG-HV-ALOS2014410740-140829-UBDR1.5RUD", "sigma0"), (f"{ALOS}_HH", RTC)],
)
def test_palsars_digital_numbers_become_backscatter_by_jaxas_constant(tmp_path, path, quantity):
    pixels = np.clip(1e3 * np.sqrt(speckle()), 1, 65535).astype("uint16")
    (array,) = probe_file(write(tmp_path / f"{path}.tif", pixels)).arrays
    assert (array.quantity, array.calibration.factor) == (quantity, pytest.approx(10**-8.3))
    (kept,) = probe_file(tmp_path / f"{path}.tif", calibrate="none").arrays
    assert (kept.quantity, kept.calibration) == ("dn", None)


@pytest.mark.parametrize("factor", [0, -1e-3, float("nan"), "many", None])
def test_a_constant_that_is_no_positive_number_is_refused(tmp_path, factor):
    collect = {"image": {**CAPELLA["collect"]["image"], "scale_factor": factor}}
    pixels = np.clip(1e3 * np.sqrt(speckle()), 1, 65535).astype("uint16")
    tags = {"TIFFTAG_IMAGEDESCRIPTION": json.dumps({"collect": collect})}
    probe = probe_file(write(tmp_path / "a.tif", pixels, tags=tags))
    assert "Capella's scale factor" in probe.refusal
    assert probe_file(tmp_path / "a.tif", calibrate="none").refusal is None


def test_a_word_in_a_long_text_is_no_evidence(tmp_path):
    text = json.dumps({"angle": 30, "mask": True, "unit": "radians"})
    path = write(tmp_path / "a.tif", speckle(), tags={"TIFFTAG_IMAGEDESCRIPTION": text})
    assert probe_file(path).refusal is None


@pytest.mark.parametrize(
    "stem", ["S1_20200105_VV_no_mask", "class_1_20200106_VV", "alpha_site_20200107_VV", "a_dem"]
)
def test_a_bands_own_name_outweighs_the_files(tmp_path, stem):
    path = write(tmp_path / f"{stem}.tif", 10 * np.log10(speckle()), names=["Sigma0_VV_db"])
    probe = probe_file(path)
    assert (probe.quantity, probe.representation) == ("sigma0", "db")


@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("Sigma0_VV_use_inci_angle_from_ellipsoid", "sigma0"),
        ("Sigma0_VV_use_local_inci_angle_from_dem", "sigma0"),
        ("Gamma0_VV_use_projected_local_inci_angle_from_dem", "gamma0"),
    ],
)
def test_backscatter_that_snap_normalised_is_no_angle(tmp_path, name, quantity):
    probe = probe_file(write(tmp_path / "a.tif", speckle(), names=[name]))
    assert (probe.quantity, probe.arrays[0].name) == (quantity, "vv")


@pytest.mark.parametrize(
    "names", [["B2", "B3", "B4"], ["B02", "B8A", "B11", "B12"], ["red", "green", "blue", "nir"]]
)
def test_bands_of_an_optical_sensor_are_refused(tmp_path, names):
    probe = probe_file(write(tmp_path / "a.tif", speckle((len(names), 64, 64)), names=names))
    assert "an optical image" in probe.refusal


def test_channels_of_a_matrix_are_known(tmp_path):
    names = ["HHHH", "HVHV", "VVVV", "HHHV_re", "HHHV_im", "HHVV_re"]
    path = write(tmp_path / "a.tif", speckle((6, 64, 64)), names=names)
    assert "complex number" in probe_file(path).refusal
    arrays = probe_file(path, representation="power").arrays
    assert [(a.name, a.polarization) for a in arrays] == [("hh", "HH"), ("hv", "HV"), ("vv", "VV")]


@pytest.mark.parametrize("product", sorted({entry.product for entry in corpus()}))
def test_no_file_of_the_corpus_is_taken_as_what_it_is_not(tmp_path, product):
    entries = [entry for entry in corpus() if entry.product == product]
    verdicts = [(entry, judged(entry, tmp_path / str(i))) for i, entry in enumerate(entries)]
    assert not [(entry.path, entry.names, verdict) for entry, verdict in verdicts if verdict != "right"]


def test_the_corpus_is_of_150_files_or_more():
    assert len(corpus()) >= 150


def test_a_file_derived_from_a_product_is_not_calibrated_twice(tmp_path):
    tags = {"CALIBRATION_FACTOR": "1e-6", "SATELLITE_NAME": "ICEYE-X7"}
    for name, told in (("N10E100_21_sl_HH_F02DAR", {}), ("ICEYE_X7_GRD_SLH_2155625_20220427T215124", tags)):
        assert "got 0 of" in probe_file(write(tmp_path / f"{name}.tif", speckle(), tags=told)).refusal
    opera = {
        "PRODUCT_TYPE": "RTC-S1",
        "PROCESSING_INFORMATION_OUTPUT_BACKSCATTER_NORMALIZATION_CONVENTION": "gamma0",
        "PROCESSING_INFORMATION_OUTPUT_BACKSCATTER_EXPRESSION_CONVENTION": "linear backscatter intensity",
    }
    amplitude = probe_file(write(tmp_path / "burst_VV_amp.tif", np.sqrt(speckle()), tags=opera))
    assert "amplitude by the file's name, and power by OPERA RTC-S1 tags" in amplitude.refusal
    angle = probe_file(write(tmp_path / "burst_inc.tif", speckle(), tags=opera))
    assert "an angle" in angle.refusal
    derived = probe_file(write(tmp_path / f"{HYP3.format('gpuned')}_VV_amp.tif", np.sqrt(speckle())))
    assert derived.representation == "amplitude"
