"""The grammars of products' names: a row a product, and what a name must not say."""

from datetime import UTC, datetime
from operator import attrgetter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.scenes.acquisition import facts_from_fields, is_one_pass, only_stamp
from sarzarr.scenes.grammars import (
    GRAMMARS,
    _found,
    facts_from_name,
    facts_named,
    polarization_named,
    without_named_polarization,
)

NAMES = [
    (
        "OPERA_L2_RTC-S1_T115-245714-IW1_20250418T141628Z_20250419T010229Z_S1A_30_v1.0_VV",
        {"datetime": "2025-04-18T14:16:28Z", "platform": "sentinel-1a", "burst": "t115_245714_iw1"},
    ),
    (
        "OPERA_L2_RTC-S1-STATIC_T115-245714-IW1_20140403_S1A_30_v1.0_incidence_angle",
        {"datetime": None, "platform": None, "relative_orbit": 115, "burst": "t115_245714_iw1"},
    ),
    (
        "s1a-iw-nrb-20200103t170705-030639-0382d5-32tns-vv-g-lin",
        {"datetime": "2020-01-03T17:07:05Z", "absolute_orbit": 30639, "relative_orbit": 117},
    ),
    (
        "S1A_IW_NRB__1SDV_20200103T170705_030639_0382D5_32TNS_8090",
        {"datetime": "2020-01-03T17:07:05Z", "instrument_mode": "IW", "absolute_orbit": 30639},
    ),
    (
        "D20160214_171512--_SIG0-----_S1AIWGRDH1VVA_015_A0105_EU010M_E048N015T1",
        {"datetime": "2016-02-14T17:15:12Z", "orbit_state": "ascending", "relative_orbit": 15},
    ),
    (
        "SIG0_20200102T050000__VV_D095_E048N018T3_EU010M_V1M1R2_S1BIWGRDH_TUWIEN",
        {"datetime": "2020-01-02T05:00:00Z", "platform": "sentinel-1b", "orbit_state": "descending"},
    ),
    (
        "S1B_20161121_12SYJ_DSC",
        {"datetime": "2016-11-21T00:00:00Z", "platform": "sentinel-1b", "orbit_state": "descending"},
    ),
    (
        "Subset_S1A_20190212_Cal_TC",
        {"datetime": "2019-02-12T00:00:00Z", "platform": "sentinel-1a", "orbit_state": None},
    ),
    ("s1_rtc_0340AE_N13E025_2018_01_04_VV", {"datetime": "2018-01-04T00:00:00Z"}),
    (
        "IMG-HH-ALOS2015976960-140909-FBDR1.5GUA",
        {
            "datetime": "2014-09-09T00:00:00Z",
            "platform": "alos-2",
            "absolute_orbit": 1597,
            "orbit_state": "ascending",
        },
    ),
    ("ALOS2015976960-160512", {"datetime": "2016-05-12T00:00:00Z", "observation_direction": None}),
    ("2024-02-10-14-05-12_UMBRA-05_GEC", {"datetime": "2024-02-10T14:05:12Z", "platform": "umbra-05"}),
    (
        "ICEYE_X7_GRD_SLH_2155625_20220427T215124",
        {
            "datetime": "2022-04-27T21:51:24Z",
            "platform": "iceye-x7",
            "instrument_mode": "SLH",
            "product_type": "GRD",
        },
    ),
    (
        "ICEYE_u4pruy_20250427T215124Z_2155625_X11_SLF_GRD",
        {"datetime": "2025-04-27T21:51:24Z", "platform": "iceye-x11", "instrument_mode": "SLF"},
    ),
    (
        "CAPELLA_C02_SM_GEO_HH_20210119154519_20210119154523",
        {
            "datetime": "2021-01-19T15:45:19Z",
            "platform": "capella-2",
            "instrument_mode": "SM",
            "product_type": "GEO",
        },
    ),
    (
        "TDX1_SAR__MGD_SE___SM_S_SRA_20140203T051122_20140203T051130",
        {"datetime": "2014-02-03T05:11:22Z", "platform": "tandem-x", "instrument_mode": "SM"},
    ),
    (
        "TSX1_SAR__SSC______HS_D_SRA_20140203T051122_20140203T051130",
        {"platform": "terrasar-x", "instrument_mode": "HS"},
    ),
    (
        "CSKS1_DGM_B_HI_05_HH_RA_SF_20110312052154_20110312052201",
        {"datetime": "2011-03-12T05:21:54Z", "observation_direction": "right", "orbit_state": "ascending"},
    ),
    (
        "RS2_OK1_PK05_DK1_FQ5_20120305_060113_HH_HV_SLC",
        {
            "datetime": "2012-03-05T06:01:13Z",
            "platform": "radarsat-2",
            "instrument_mode": "FQ5",
            "product_type": "SLC",
        },
    ),
    (
        "RCM1_OK1234567_PK1234568_1_SC50MA_20200506_013122_HH_HV_GRD_HH",
        {"datetime": "2020-05-06T01:31:22Z", "platform": "rcm-1", "product_type": "GRD"},
    ),
    (
        "ASA_IMP_1PNDPA20080115_092142_000000162065_00151_30725_1234",
        {
            "datetime": "2008-01-15T09:21:42Z",
            "platform": "envisat",
            "relative_orbit": 151,
            "absolute_orbit": 30725,
        },
    ),
    (
        "winnip_31604_12061_004_120717_L090HHHH_CX_01.grd",
        {"datetime": "2012-07-17T00:00:00Z", "platform": "uavsar"},
    ),
    (
        "NISAR_L2_PR_GCOV_001_005_A_219_4020_SHNA_A_20240609T045403_20240609T045413_P01101_F_J_001",
        {"datetime": "2024-06-09T04:54:03Z", "relative_orbit": 5, "orbit_state": "ascending"},
    ),
    (
        "BIO_S1_DGM__1S_20170101T060309_20170101T060330_I_G03_M03_C03_T010_F001_01_ACZ976_i_abs",
        {"datetime": "2017-01-01T06:03:09Z", "platform": "biomass", "relative_orbit": 10},
    ),
    (
        "S1B_IW_GRDH_1SDV_20211223T051122_20211223T051147_030148_039993_5371",
        {"datetime": "2021-12-23T05:11:22Z", "product_type": "GRD", "relative_orbit": 22},
    ),
    (
        "s1a-iw2-slc-vh-20200101t000102-20200101t000104-030600-038100-002",
        {"datetime": "2020-01-01T00:01:02Z", "product_type": "SLC", "instrument_mode": "IW"},
    ),
    ("S1A__IW___A_20150309T173017_VV_grd_mli", {"platform": "sentinel-1a", "orbit_state": "ascending"}),
    (
        "S1A_IW_20180128T161201_DVP_RTC30_G_gpuned_FD6A",
        {"datetime": "2018-01-28T16:12:01Z", "platform": "sentinel-1a", "instrument_mode": "IW"},
    ),
    (
        "S1_136231_IW2_20200604T022312_VV_7C85-BURST",
        {"datetime": "2020-06-04T02:23:12Z", "burst": "136231_iw2", "instrument_mode": "IW"},
    ),
    ("Sentinel-1A IW SLC L1", {"datetime": None, "platform": "sentinel-1a", "product_type": "SLC"}),
]


@pytest.mark.parametrize(("name", "told"), NAMES)
def test_the_name_of_a_product_tells_its_facts(name, told):
    facts = facts_named(name)
    assert {key: getattr(facts, key) for key in told} == told
    assert facts_from_name(name) == facts


def test_every_grammar_has_a_name():
    read = {_found(name)[0].product for name, _ in NAMES}
    assert read == {row.product for row in GRAMMARS}


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("lake_2020-01-03", "2020-01-03T00:00:00Z"),
        ("lake_2020.01.03_a", "2020-01-03T00:00:00Z"),
        ("2020-01-03_051122", "2020-01-03T05:11:22Z"),
        ("lake_20200103051122_VV", "2020-01-03T05:11:22Z"),
        ("lake_20200103T0511", "2020-01-03T05:11:00Z"),
        ("20200103/20200103T051122", "2020-01-03T05:11:22Z"),  # a day and a time of it
        ("a_20200103T051122_20200103T051147", "2020-01-03T05:11:22Z"),  # start and stop
        ("a_20200103T051147_20200103T051122", "2020-01-03T05:11:22Z"),
        ("a_20200103T235950_20200104T000015", "2020-01-03T23:59:50Z"),
        ("s1_2017-01-01_2018-12-31_vv", None),  # a composite
        ("s1_vv_2019-06-01_2019-08-31", None),
        ("S1AA_20200101T051122_20200113T051122_VVP012_INT80_G_ueF_1234", None),  # a pair
        ("S1_136231_IW2_20200604_20200616_VV_INT80_10C1", None),
        ("x_20250418T141628Z_20250419T010229Z", None),  # which one is of what, nobody says
        ("a_20200101_20200113T051122", None),
        ("tile_20201399", None),
        ("plot_200101", None),
        ("v2.2020.01.3", None),
    ],
)
def test_a_name_of_nobodys_tells_one_time_or_none(name, time):
    assert only_stamp(name) == time


@given(
    when=st.datetimes(datetime(1978, 1, 1), datetime(2099, 12, 31)).map(lambda t: t.replace(microsecond=0)),
    spelling=st.sampled_from(
        [
            "%Y%m%dT%H%M%S",
            "%Y-%m-%d-%H-%M-%S",
            "%Y-%m-%dT%H:%M:%S",
            "%Y%m%d_%H%M%S",
            "%Y_%m_%d_%H_%M_%S",
            "%Y%m%d%H%M%S",
        ]
    ),
    around=st.sampled_from([("", ""), ("S1_", "_VV"), ("lake-", "Z"), ("a ", " (1)")]),
)
def test_a_time_comes_back_however_it_is_spelled(when, spelling, around):
    text = f"{around[0]}{when.strftime(spelling)}{around[1]}"
    assert only_stamp(text) == when.replace(tzinfo=UTC).isoformat().replace("+00:00", "Z")


@given(
    first=st.dates(datetime(1978, 1, 1).date(), datetime(2099, 12, 31).date()),
    second=st.dates(datetime(1978, 1, 1).date(), datetime(2099, 12, 31).date()),
    form=st.sampled_from(["%Y%m%d", "%Y-%m-%d", "%Y_%m_%d"]),
    between=st.sampled_from(["_", "-", "_to_", "--", " "]),
)
def test_a_range_of_days_never_gives_another_moment(first, second, form, between):
    told = only_stamp(f"s1_{first.strftime(form)}{between}{second.strftime(form)}_vv")
    assert told == (None if first != second else f"{first}T00:00:00Z")


def test_polarizations_that_are_glued_to_other_words():
    name = "D20160214_171512--_SIG0-----_S1AIWGRDH1{}A_015_A0105_EU010M_E048N015T1"
    assert polarization_named(name.format("VH")) == "vh"
    assert len({without_named_polarization(name.format(p)) for p in ("VV", "VH")}) == 1
    assert without_named_polarization(
        "SIG0_20200102T050000__VV_D095_E048N018T3_EU010M_V1M1R2_S1BIWGRDH_TUWIEN"
    ) == ("SIG0_20200102T050000_D095_E048N018T3_EU010M_V1M1R2_S1BIWGRDH_TUWIEN")
    assert (polarization_named("lake_VV"), without_named_polarization("lake_VV")) == (None, "lake_VV")


@settings(max_examples=200)
@given(
    st.one_of(
        st.text(), st.sampled_from([n for n, _ in NAMES]).flatmap(lambda n: st.permutations(n).map("".join))
    )
)
def test_any_name_is_read_or_left(name):
    facts = facts_named(name)
    assert facts is None or set(facts.attrs().values()).isdisjoint({None, ""})


# ------------------------------------------------------------------ tags
CAPELLA = (
    '{"product_type": "GEO", "collect": {"start_timestamp": "2021-01-19T15:45:19.123456789Z", '
    '"stop_timestamp": "2021-01-19T15:45:23Z", "platform": "capella-2", "mode": "stripmap", '
    '"image": {"center_pixel": {"incidence_angle": 34.2}, "processing_time": "2022-01-01T00:00:00Z"}, '
    '"radar": {"pointing": "left"}, "state": {"direction": "descending"}}}'
)
ICEYE = (
    '{"start_datetime": "2025-04-27T21:51:24Z", "datetime": null, "platform": "ICEYE-X11", '
    '"sat:orbit_state": "ascending", "sar:observation_direction": "right", "view:incidence_angle": 29.5, '
    '"created": "2026-01-01T00:00:00Z", "sar:polarizations": ["VV"]}'
)


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        (
            {
                "ABSOLUTE_ORBIT_NUMBER": "58812",
                "TRACK_NUMBER": "115",
                "PLATFORM": "Sentinel-1A",
                "ORBIT_PASS_DIRECTION": "descending",
                "ZERO_DOPPLER_START_TIME": "2025-04-18T14:16:28.123456Z",
                "PROCESSING_DATETIME": "2025-05-01T01:02:29.0Z",
            },
            ("2025-04-18T14:16:28.123456Z", "sentinel-1a", "descending", "right", 115, None),
        ),
        (
            {
                "ACQUISITION_START_UTC": "2022-04-27T21:51:24.123456",
                "LOOK_SIDE": "left",
                "ORBIT_DIRECTION": "ASCENDING",
                "SATELLITE_NAME": "ICEYE-X7",
                "INCIDENCE_CENTER": "29.5",
            },
            ("2022-04-27T21:51:24.123456Z", "iceye-x7", "ascending", "left", None, 29.5),
        ),
        (
            {"ICEYE_PROPERTIES": ICEYE},
            ("2025-04-27T21:51:24Z", "iceye-x11", "ascending", "right", None, 29.5),
        ),
        (
            {"TIFFTAG_IMAGEDESCRIPTION": CAPELLA},
            ("2021-01-19T15:45:19.123456Z", "capella-2", "descending", "left", None, 34.2),
        ),
        (
            {
                "MPH_SENSING_START": "15-JAN-2008 09:21:42.409059",
                "MPH_REL_ORBIT": "+00151",
                "SPH_PASS": "ASCENDING",
            },
            ("2008-01-15T09:21:42.409059Z", None, "ascending", None, 151, None),
        ),
        (
            {"TIFFTAG_IMAGEDESCRIPTION": '{"a": ' * 50_000, "azimuth_looks": "1", "range_looks": "5"},
            (None,) * 6,
        ),
        ({"TIFFTAG_DATETIME": "2022:01:01 00:00:00", "PASS": "daily", "LOOK_SIDE": "up"}, (None,) * 6),
    ],
)
def test_tags_of_products_tell_their_facts(tags, told):
    facts = facts_from_fields(tags)
    names = (
        "datetime",
        "platform",
        "orbit_state",
        "observation_direction",
        "relative_orbit",
        "incidence_angle",
    )
    assert attrgetter(*names)(facts) == told
    assert facts.looks_equivalent_number is None


@pytest.mark.parametrize(
    ("platform", "absolute", "relative"),
    [
        ("S1A", 22812, 165),
        ("S1B", 30148, 22),
        ("S1C", 1680, None),  # on its way to its track
        ("S1C", 1681, 110),
        ("S1C", 8018, (8018 - 172) % 175 + 1),
        ("S1C", 8019, (8019 - 99) % 175 + 1),
        ("S1D", 2389, 73),
        ("ALOS-2", 1597, None),
    ],
)
def test_the_track_of_an_absolute_orbit(platform, absolute, relative):
    facts = facts_from_fields({"platform": platform, "sat_absolute_orbit": str(absolute)})
    assert facts.relative_orbit == relative
    told = facts_from_fields({"platform": platform, "sat_absolute_orbit": str(absolute), "REL_ORBIT": "7"})
    assert told.relative_orbit == 7


@pytest.mark.parametrize(
    ("one", "other", "is_one"),
    [
        ("2026-01-01T05:11:22Z", "2026-01-01T05:14:22Z", True),
        ("2026-01-01T05:11:22Z", "2026-01-01T05:14:23Z", False),
        ("2026-01-01T23:59:00Z", "2026-01-02T00:01:00Z", True),
        ("2026-01-01T00:00:00Z", "2026-01-01T23:59:00Z", True),
        ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", False),
    ],
)
def test_times_of_one_pass(one, other, is_one):
    assert is_one_pass(one, other) is is_one_pass(other, one) is is_one
