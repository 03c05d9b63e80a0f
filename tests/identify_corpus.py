"""A corpus of names and tags over all products, and what each file is: ``make identify-corpus``.

Every file holds pixels that look like backscatter, whatever it is called, so that only names and tags can tell.
An error is silent where a file is taken as what it is not; a refusal of backscatter is an error, too, but says so.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tiffs import speckle, write

from sarzarr.scenes.probe import probe_file

ACCEPTED, REFUSED = "backscatter", "refused"


@dataclass(frozen=True)
class Entry:
    """One file, and what it is."""

    product: str
    path: str
    pixels: str  # power, amplitude, db, dn, byte
    expected: str  # ACCEPTED or REFUSED
    quantity: str | None = None
    """None where nothing tells it: it is called power."""
    polarization: str | None = None
    names: tuple[str, ...] = ()
    tags: dict[str, Any] = field(default_factory=dict)


RTC30 = "S1{}_IW_20180128T161201_D{}P_RTC30_G_{}_FD6A"
S2 = "T33UUP_20200105T101021"


def hyp3() -> Iterator[Entry]:
    quantity = {"g": "gamma0_rtc", "s": "sigma0"}
    pixels = {"p": "power", "d": "db", "a": "amplitude"}
    for code in ("gpuned", "gpwned", "gdunem", "gaufed", "spuned", "sdunem", "sawned", "gpuncm"):
        name = RTC30.format("A", "V", code)
        for pol in ("VV", "VH"):
            yield Entry("HyP3 RTC", f"{name}/{name}_{pol}", pixels[code[1]], ACCEPTED, quantity[code[0]], pol)
    name = RTC30.format("C", "H", "gpuned")
    for pol in ("HH", "HV"):
        yield Entry("HyP3 RTC", f"{name}_{pol}", "power", ACCEPTED, "gamma0_rtc", pol)
    for token in ("ls_map", "inc_map", "area", "dem", "rgb"):
        yield Entry("HyP3 RTC", f"{name}_{token}", "power", REFUSED)
    for insar in (
        "S1AB_20171111T150004_20171117T145926_VVP006_INT80_G_ueF_4D09",
        "S1_136231_IW2_20200604_20200616_VV_INT80_663F",
    ):
        tokens = "corr unw_phase wrapped_phase los_disp vert_disp lv_theta lv_phi inc_map inc_map_ell dem water_mask"
        for token in tokens.split():
            yield Entry("HyP3 InSAR", f"{insar}_{token}", "power", REFUSED)
        pol = "VV" if "_VV_" in insar else None
        yield Entry("HyP3 InSAR", f"{insar}_amp", "amplitude", ACCEPTED, polarization=pol)


def opera() -> Iterator[Entry]:
    name = "OPERA_L2_RTC-S1_T115-245714-IW1_20250418T141628Z_20250419T010229Z_S1A_30_v1.0"
    for pol in ("VV", "VH", "HH", "HV"):
        yield Entry("OPERA RTC-S1", f"{name}_{pol}", "power", ACCEPTED, "gamma0_rtc", pol)
    yield Entry("OPERA RTC-S1", f"{name}_mask", "byte", REFUSED)
    static = "OPERA_L2_RTC-S1-STATIC_T115-245714-IW1_20140403_S1A_30_v1.0"
    tokens = "local_incidence_angle incidence_angle mask number_of_looks rtc_anf_gamma0_to_beta0"
    tokens += " rtc_anf_gamma0_to_sigma0 rtc_anf_sigma0_to_beta0 rtc_anf_beta0_to_beta0"
    for token in tokens.split():
        yield Entry("OPERA RTC-S1-STATIC", f"{static}_{token}", "power", REFUSED)


def ard() -> Iterator[Entry]:
    nrb = "s1a-iw-nrb-20220721t051225-044194-05465e-33tul"
    for pol in ("vv", "vh"):
        for token, pixels, quantity in (("g-lin", "power", "gamma0_rtc"), ("s-lin", "power", "sigma0")):
            yield Entry(
                "S1-NRB", f"{nrb}/measurement/{nrb}-{pol}-{token}", pixels, ACCEPTED, quantity, pol.upper()
            )
        yield Entry("S1-NRB", f"{nrb}-{pol}-g-log", "db", ACCEPTED, "gamma0_rtc", pol.upper())
    for token in ["dm", "ei", "em", "gs", "sg", "id", "lc", "ld", "li", "np-vv", "np-vh"]:
        yield Entry("S1-NRB", f"{nrb}/annotation/{nrb}-{token}", "power", REFUSED)
    product = "S1A_IW_GRDH_1SDV_20200103T233556_20200103T233621_030643_0382F7_rtc"
    for pol in ("vv", "vh"):
        path = f"{product}/measurement/iw-{pol}.rtc"
        yield Entry("Planetary Computer", path, "power", ACCEPTED, "gamma0_rtc", pol.upper())
    dea = "s1_rtc_0340AE_N13E025_2018_01_04"
    for pol in ("VV", "VH"):
        yield Entry("DE Africa", f"{dea}_{pol}", "power", ACCEPTED, "gamma0_rtc", pol)
        path = f"S1A_20200103_17RMJ_ASC/Gamma0_{pol}"
        yield Entry("Sinergise", path, "power", ACCEPTED, "gamma0_rtc", pol)
    for token in ("ANGLE", "AREA", "MASK"):
        yield Entry("DE Africa", f"{dea}_{token}", "power", REFUSED)
    yield Entry("Sinergise", "S1A_20200103_17RMJ_ASC/local_incident_angle", "power", REFUSED)


def safe() -> Iterator[Entry]:
    for mode, swath in (("IW_GRDH", "iw-grd"), ("EW_GRDM", "ew-grd"), ("S4_GRDH", "s4-grd")):
        product = f"S1A_{mode}_1SDV_20221130T014342_20221130T014407_046117_058549_0001.SAFE"
        stem = f"s1a-{swath}-vv-20221130t014342-20221130t014407-046117-058549-001"
        yield Entry("SAFE", f"{product}/measurement/{stem}", "dn", ACCEPTED, "dn", "VV")
        yield Entry("SAFE", stem, "dn", ACCEPTED, "dn", "VV")
        yield Entry("COG_SAFE", f"{product}/measurement/{stem}-cog", "dn", ACCEPTED, "dn", "VV")
    esa = "S1A_IW_GRDH_1SDV_20200103T233556_20200103T233621_030643_0382F7_C795"
    yield Entry("SNAP", f"{esa}_Orb_NR_Cal_TF_TC", "power", ACCEPTED, "gamma0_rtc", "VV", names=("VV",))
    yield Entry("SNAP", "a", "power", ACCEPTED, "sigma0", "VV", names=("Sigma0_VV",))
    yield Entry("SNAP", "a", "db", ACCEPTED, "sigma0", "VH", names=("Sigma0_VH_db",))
    yield Entry("SNAP", "a", "power", ACCEPTED, "beta0", "VV", names=("Beta0_VV",))
    yield Entry("SNAP", "a", "amplitude", ACCEPTED, None, "VV", names=("Amplitude_VV",))
    normalised = ("Sigma0_VV_use_inci_angle_from_ellipsoid", "Sigma0_VV_use_local_inci_angle_from_dem")
    for name in (*normalised, "Sigma0_VV_use_projected_local_inci_angle_from_dem"):
        yield Entry("SNAP", "a", "power", ACCEPTED, "sigma0", "VV", names=(name,))
    layers = "localIncidenceAngle projectedLocalIncidenceAngle incidenceAngleFromEllipsoid layoverShadowMask"
    layers += " elevation coh_VV_12Feb2019_24Feb2019 Phase_ifg_VV_12Feb2019 i_VV q_VV"
    for name in layers.split():
        yield Entry("SNAP", "a", "power", REFUSED, names=(name,))
    yield Entry("SNAP", "a", "power", ACCEPTED, "sigma0", "VV", names=("Sigma0_VV_mst_12Feb2019",))
    pyrosar = "S1A__IW___A_20150309T173017"
    yield Entry("pyroSAR", f"{pyrosar}_VV_gamma0-rtc", "power", ACCEPTED, "gamma0_rtc", "VV")
    yield Entry("pyroSAR", f"{pyrosar}_VV_gamma0-rtc_db", "db", ACCEPTED, "gamma0_rtc", "VV")
    yield Entry("pyroSAR", f"{pyrosar}_VH_NR_Orb_Cal_ML_TF_TC_dB", "db", ACCEPTED, "gamma0_rtc", "VH")
    tokens = "localIncidenceAngle incidenceAngleFromEllipsoid layoverShadowMask scatteringArea"
    for token in tokens.split():
        yield Entry("pyroSAR", f"{pyrosar}_{token}", "power", REFUSED)
    yield Entry("GAMMA", "20200101-20200113_VV_8rlks_eqa_cc", "amplitude", REFUSED)
    yield Entry("GAMMA", "20200101_lsmap", "byte", REFUSED)
    yield Entry("GAMMA", "20200101_inc", "power", REFUSED)


def others() -> Iterator[Entry]:
    for pol in ("HH", "HV"):
        jaxa, level15 = f"N10E100_20_sl_{pol}_F02DAR", f"IMG-{pol}-ALOS2014410740-140829-UBDR1.5RUD"
        yield Entry("JAXA mosaic", jaxa, "dn", ACCEPTED, "gamma0_rtc", pol)
        yield Entry("ALOS-2", level15, "dn", ACCEPTED, "sigma0", pol)
        rcm = "RCM1_OK1234567_PK1234568_1_SC50MA_20200506_013122_HH_HV_GRD"
        yield Entry("RCM", f"{rcm}/imagery/{rcm}_{pol}", "dn", ACCEPTED, "dn", pol)
        rs2 = "RS2_OK1_PK05_DK1_FQ5_20120305_060113_HH_HV_SGF"
        yield Entry("RADARSAT-2", f"{rs2}/imagery_{pol}", "dn", ACCEPTED, "dn", pol)
        tsx = "TSX1_SAR__MGD_SE___SM_S_SRA_20200105T171512_20200105T171520"
        yield Entry("TerraSAR-X", f"{tsx}/IMAGEDATA/IMAGE_{pol}_SRA_strip_008", "dn", ACCEPTED, "dn", pol)
    for token in ("mask", "linci", "date"):
        yield Entry("JAXA mosaic", f"N10E100_20_sl_{token}_F02DAR", "dn", REFUSED)
    for token in ("LIN", "MSK"):
        yield Entry("ALOS-2", f"ALOS2300100500-191219_WWDR2.2GUA_{token}", "dn", REFUSED)
    yield Entry("RCM", "RCM2_OK1_PK2_3_CP_20200506_013122_CH_CV_GRD_CV", "dn", ACCEPTED, "dn", "CV")
    uavsar = "SanAnd_05024_18038_006_180730_L090{}_CX_01.grd"
    for pol in ("HH", "HV", "VV"):
        yield Entry("UAVSAR", uavsar.format(pol * 2), "power", ACCEPTED, None, pol)
        nisar = f"NISAR_L2_PR_GCOV_001_030_A_019_2800_SHNA_{pol * 2}"
        yield Entry("NISAR", nisar, "power", ACCEPTED, "gamma0_rtc", pol)
    for element in ("HHHV", "HHVV", "HVVV"):
        yield Entry("UAVSAR", uavsar.format(element), "power", REFUSED)
    biomass = "bio_s2_dgm__1s_20260101t010203_20260101t010223_t_g01_m01_c01_t001_f001_01_d12345"
    yield Entry("BIOMASS", f"{biomass}_i_abs", "amplitude", ACCEPTED)
    yield Entry("BIOMASS", f"{biomass}_i_phase", "power", REFUSED)
    capella = {
        "image": {
            "scale_factor": 1e-3,
            "radiometry": "sigma_nought",
            "center_pixel": {"incidence_angle": 34},
        },
        "radar": {"transmit_polarization": "H", "receive_polarization": "H"},
    }
    for kind in ("GEO", "GEC"):
        path = f"CAPELLA_C02_SM_{kind}_HH_20210119154519_20210119154523"
        tags = {"TIFFTAG_IMAGEDESCRIPTION": json.dumps({"collect": capella})}
        yield Entry("Capella", path, "dn", ACCEPTED, "sigma0", "HH", tags=tags)
    iceye = {"iceye:calibration_factor": 1e-7, "sar:polarizations": ["VV"], "view:incidence_angle": 29.5}
    for mode, quantity in (("SPOTLIGHT", "sigma0"), ("STRIPMAP", "sigma0"), ("SCAN", "dn")):
        tags = {"ICEYE_PROPERTIES": json.dumps({**iceye, "sar:instrument_mode": mode})}
        yield Entry(
            "ICEYE",
            f"ICEYE_u4pruyd_20260105T101530Z_1_X11_{mode}_GRD",
            "dn",
            ACCEPTED,
            quantity,
            "VV",
            tags=tags,
        )
    asar = {"MPH_PRODUCT": "ASA_IMP_1PNDPA20080115", "SPH_MDS1_TX_RX_POLAR": "V/V"}
    yield Entry("ASAR", "ASA_IMP_1PNDPA20080115_092142", "dn", ACCEPTED, "dn", "VV", tags=asar)
    yield Entry("Umbra", "2024-02-10-14-05-12_UMBRA-05_GEC", "byte", ACCEPTED, "dn")


def chips_and_exports() -> Iterator[Entry]:
    for pol in ("VV", "VH"):
        yield Entry("xView3", f"05bc615a9b0aaaaav/{pol}_dB", "db", ACCEPTED, None, pol)
        ben = "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_65_63"
        yield Entry("BigEarthNet", f"{ben}/{ben}_{pol}", "db", ACCEPTED, None, pol)
    for token in ("bathymetry", "owiMask", "owiWindSpeed", "owiWindDirection", "owiWindQuality"):
        yield Entry("xView3", f"05bc615a9b0aaaaav/{token}", "power", REFUSED)
    yield Entry("Sen1Floods11", "Spain_7370579_S1Hand", "db", ACCEPTED)
    for token in ("LabelHand", "JRCWaterHand", "S2Hand", "S1OtsuLabelHand"):
        yield Entry("Sen1Floods11", f"Spain_7370579_{token}", "dn", REFUSED)
    yield Entry("SEN12MS", "ROIs1158_spring_s1_1_p30", "db", ACCEPTED)
    for token in ("s2", "lc"):
        yield Entry("SEN12MS", f"ROIs1158_spring_{token}_1_p30", "dn", REFUSED)
    spacenet = "SN6_Train_AOI_11_Rotterdam_{}_20190823162315_20190823162606_tile_1"
    yield Entry("SpaceNet 6", spacenet.format("SAR-Intensity"), "power", ACCEPTED)
    for token in ("PAN", "PS-RGB", "PS-RGBNIR", "RGBNIR"):
        yield Entry("SpaceNet 6", spacenet.format(token), "dn", REFUSED)
    yield Entry("Sentinel-2 of data sets", "S2_2019-02-04_B4", "dn", REFUSED)
    yield Entry("Earth Engine", "S1_export", "db", ACCEPTED, None, "VV", names=("VV",))
    for name in ("angle", "epoch"):
        yield Entry("Earth Engine", "S1_export", "power", REFUSED, names=(name,))
    for bands in (("B2", "B3", "B4"), ("B02", "B8A", "B11"), ("red", "green", "blue", "nir")):
        yield Entry("Sentinel-2", f"{S2}_stack", "dn", REFUSED, names=bands)
    for token in ("B04_10m", "B8A", "TCI", "SCL_20m"):
        yield Entry("Sentinel-2", f"{S2}_{token}", "dn", REFUSED)
    for token in ("SR_B4", "ST_B10", "QA_PIXEL", "B8"):
        yield Entry("Landsat", f"LC08_L2SP_191027_20200105_20200823_02_T1_{token}", "dn", REFUSED)
    tokens = "NDVI NDWI NBR ratio RVI coherence lia slope dem mask label noise"
    for token in tokens.split():
        yield Entry("by words", f"lake_20200105_{token}", "power", REFUSED)
    yield Entry("Copernicus DEM", "Copernicus_DSM_COG_10_N45_00_E010_00_DEM", "power", REFUSED)
    yield Entry("WorldCover", "ESA_WorldCover_10m_2021_v200_N45E009_Map", "byte", REFUSED)
    yield Entry("Hansen", "Hansen_GFC-2023-v1.11_treecover2000_50N_010E", "byte", REFUSED)
    for stem in ("S1_20200105_VV_no_mask", "class_1_20200106_VV", "alpha_site_20200107_VV"):
        yield Entry("by bands", stem, "db", ACCEPTED, "sigma0", "VV", names=("Sigma0_VV_db",))
    for stem, pixels in (("lake_VV", "power"), ("lake_VH_dB", "db"), ("lake_HH_amp", "amplitude")):
        yield Entry("by words", stem, pixels, ACCEPTED, None, stem.split("_")[1])


def corpus() -> tuple[Entry, ...]:
    """Return all entries, of which no two are alike."""
    return (*hyp3(), *opera(), *ard(), *safe(), *others(), *chips_and_exports())


def pixels_of(entry: Entry) -> np.ndarray:
    """Return pixels (bands, 64, 64) that look like backscatter."""
    power = speckle((max(1, len(entry.names)), 64, 64), looks=4.4, power=0.05)
    return {
        "power": power,
        "amplitude": np.sqrt(power),
        "db": 10 * np.log10(power),
        "dn": np.clip(3000 * np.sqrt(power), 1, 65535).astype("uint16"),
        "byte": np.clip(400 * np.sqrt(power), 1, 255).astype("uint8"),
    }[entry.pixels]


def judged(entry: Entry, folder: Path) -> str:
    """Return how a probe sees an entry: ``right``, or ``silent: ...`` or ``refused: ...``."""
    path = write(folder / f"{entry.path}.tif", pixels_of(entry), names=entry.names, tags=entry.tags)
    probe = probe_file(path)
    if probe.refusal:
        return "right" if entry.expected == REFUSED else f"refused: {probe.refusal}"
    (array,) = probe.arrays[:1]
    got = f"{array.polarization} {probe.quantity} as {probe.representation}"
    if entry.expected == REFUSED:
        return f"silent: taken as {got}"
    is_right = (probe.quantity, array.polarization) == (entry.quantity or "power", entry.polarization)
    shown = {"dn": "amplitude", "byte": "amplitude"}.get(entry.pixels, entry.pixels)
    return "right" if is_right and probe.representation == shown else f"silent: {got}, right is {entry}"


def main() -> int:
    """Print a line a product, and one for each file that is not seen right."""
    wrong, counts = 0, dict[str, int]()
    with tempfile.TemporaryDirectory() as place:
        for number, entry in enumerate(corpus()):
            verdict = judged(entry, Path(place) / str(number))
            counts[entry.product] = counts.get(entry.product, 0) + 1
            if verdict != "right":
                wrong += 1
                print(f"{entry.path} {' '.join(entry.names)}: {verdict}")
    print(*(f"{product:22}{count:4}" for product, count in counts.items()), sep="\n")
    print(f"{sum(counts.values())} files, {wrong} not seen right")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
