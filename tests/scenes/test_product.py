"""Product metadata is read within bounds, and nothing in it is executed, fetched or expanded."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiffs import DATA, needs_data, speckle, write

from sarzarr.conventions import Quantity, Representation
from sarzarr.errors import InvalidInputError
from sarzarr.scenes.acquisition import Acquisition, facts_from_fields, merge_facts
from sarzarr.scenes.grammars import facts_from_name, facts_named
from sarzarr.scenes.probe import probe_file
from sarzarr.scenes.products import table
from sarzarr.scenes.products.family import BandMetadata, Family, Product
from sarzarr.scenes.products.snap import SNAP_TAG, read_tag
from sarzarr.scenes.products.table import FAMILIES, read_product, scene_of
from sarzarr.scenes.products.xml import MAX_XML, parse_xml, texts_of

DIMAP = """<?xml version="1.0" encoding="ISO-8859-1"?>
<Dimap_Document><Image_Interpretation>{bands}</Image_Interpretation>
<Dataset_Sources><MDElem name="Abstracted_Metadata">
<MDATTR name="PASS">DESCENDING</MDATTR><MDATTR name="REL_ORBIT">7</MDATTR>
<MDATTR name="incidence_near">99999.0</MDATTR><MDATTR name="incidence_far">40</MDATTR>
</MDElem><MDElem name="Slave_Metadata"><MDATTR name="PASS">ASCENDING</MDATTR></MDElem></Dataset_Sources>
</Dimap_Document>"""
BAND = """<Spectral_Band_Info><BAND_INDEX>0</BAND_INDEX><BAND_NAME>{name}</BAND_NAME>
<PHYSICAL_UNIT>{unit}</PHYSICAL_UNIT><SCALING_FACTOR>{scale}</SCALING_FACTOR>
<SCALING_OFFSET>0.0</SCALING_OFFSET><LOG10_SCALED>{log}</LOG10_SCALED>
<NO_DATA_VALUE_USED>{used}</NO_DATA_VALUE_USED><NO_DATA_VALUE>0.0</NO_DATA_VALUE></Spectral_Band_Info>"""


def dimap(**changes: str) -> bytes:
    said = {
        "name": "Sigma0_HV",
        "unit": "intensity",
        "scale": "1.0",
        "log": "false",
        "used": "true",
        **changes,
    }
    return DIMAP.format(bands=BAND.format(**said)).encode()


def tiff_with_tag(content: bytes, *, order: str = "<", is_big: bool = False, kind: int = 2) -> bytes:
    """Return the smallest file that holds one directory with one tag."""
    mark = b"II" if order == "<" else b"MM"
    if is_big:
        head = struct.pack(f"{order}2sHHHQ", mark, 43, 8, 0, 16)
        directory = struct.pack(f"{order}QHHQ", 1, SNAP_TAG, kind, len(content))
        at, word = len(head) + len(directory) + 8 + 8, "Q"
    else:
        head = struct.pack(f"{order}2sHI", mark, 42, 8)
        directory = struct.pack(f"{order}HHHI", 1, SNAP_TAG, kind, len(content))
        at, word = len(head) + len(directory) + 4 + 4, "I"
    size = struct.calcsize(word)
    if len(content) <= size:
        return head + directory + content.ljust(size, b"\0") + bytes(size)
    return head + directory + struct.pack(f"{order}{word}", at) + bytes(size) + content


def snap_file(path: Path, document: bytes) -> Path:
    """Write a TIFF and put SNAP's tag into its directory, in the place of the software tag."""
    write(path, speckle(), tags={"TIFFTAG_SOFTWARE": "x" * 40})
    content = bytearray(path.read_bytes())
    (directory,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", content, entry)[0] == 305:
            kept = content[directory + 2 : entry] + content[entry + 12 : directory + 2 + 12 * entries]
            kept += struct.pack("<HHII", SNAP_TAG, 2, len(document), len(content))
            content[directory + 2 : directory + 2 + 12 * entries] = kept
    path.write_bytes(bytes(content) + document)
    return path


# ---------------------------------------------------------------- the tag


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.parametrize("content", [b"<a/>", b"<a>" + b"x" * 1000 + b"</a>"])
def test_a_tag_is_read_in_every_kind_of_tiff(tmp_path, order, is_big, content):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_with_tag(content + b"\0", order=order, is_big=is_big))
    assert read_tag(path, SNAP_TAG) == content
    assert read_tag(path, 65001) is None


def test_a_tag_that_is_too_long_or_of_another_type_is_not_read(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_with_tag(b"x" * (MAX_XML + 1)))
    assert read_tag(path, SNAP_TAG) is None
    path.write_bytes(tiff_with_tag(b"x" * 100, kind=12))
    assert read_tag(path, SNAP_TAG) is None


@pytest.mark.parametrize("at", [2**63, 2**64 - 1, 2**40])
def test_a_directory_or_a_value_beyond_the_file_is_no_tag(tmp_path, at):
    path = tmp_path / "a.tif"
    path.write_bytes(struct.pack("<2sHHHQ", b"II", 43, 8, 0, at))
    assert read_tag(path, SNAP_TAG) is None
    content = bytearray(tiff_with_tag(b"<a>hello</a>", is_big=True))
    content[36:44] = struct.pack("<Q", at)  # where the value is
    path.write_bytes(bytes(content))
    assert not read_tag(path, SNAP_TAG)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_bytes_for_a_tiff_give_a_tag_or_none(tmp_path_factory, data):
    whole = tiff_with_tag(
        b"<a>hello</a>", is_big=data.draw(st.booleans()), order=data.draw(st.sampled_from("<>"))
    )
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    changed = bytearray(cut)
    for at in data.draw(st.lists(st.integers(0, max(0, len(cut) - 1)), max_size=4)) if cut else ():
        changed[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("x") / "a.tif"
    path.write_bytes(bytes(changed))
    assert isinstance(read_tag(path, SNAP_TAG), bytes | None)


# ---------------------------------------------------------------- the XML

LAUGHS = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'
OUTSIDE = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'


@pytest.mark.parametrize(
    "document",
    [
        LAUGHS,
        OUTSIDE,
        b'<!DOCTYPE x SYSTEM "http://example.com/x.dtd"><x/>',
        LAUGHS.decode().encode("utf-16"),
        b'<?xml version="1.0" encoding="cp037"?>'.decode().encode("cp037") + LAUGHS.decode().encode("cp037"),
        b"<x>&undeclared;</x>",
        b"<x>",
        b"",
        b"\0\0\0",
        b"<x>" + b"<a/>" * 300_001 + b"</x>",
        b"<x>" + b" " * MAX_XML + b"</x>",
        b'<?xml version="1.0" encoding="nonsense"?><x/>',
    ],
    ids=[
        *("laughs", "outside", "DTD", "utf-16", "ebcdic", "undeclared"),
        *("open", "empty", "binary", "many", "large", "encoding"),
    ],
)
def test_xml_that_declares_or_breaks_is_refused(document):
    with pytest.raises(ValueError, match="expected"):
        parse_xml(document)


def test_xml_is_a_tree_whose_names_are_as_written_and_whose_first_texts_count():
    root = parse_xml(b'<a xmlns="x"><b name="n"> 1 </b><c><d>3</d></c><p:b>4</p:b><b>5</b></a>')
    assert [e.tag for e in root.iter()] == ["a", "b", "c", "d", "p:b", "b"]
    assert root[0].get("name") == "n"
    assert texts_of(root) == {"b": "1", "d": "3", "p:b": "4"}


# ---------------------------------------------------------------- SNAP


def test_snap_declares_name_unit_nodata_and_orbit(tmp_path):
    path = snap_file(tmp_path / "a.tif", dimap())
    probe = probe_file(path)
    assert probe.refusal is None
    assert [(a.name, a.quantity, a.representation, a.nodata) for a in probe.arrays] == [
        ("hv", "sigma0", "power", 0)
    ]
    assert (probe.acquisition.orbit_state, probe.acquisition.relative_orbit) == ("descending", 7)
    assert probe.acquisition.incidence_angle is None  # 99999 means unknown


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scale": "0.5"}, "got scale [0.5, 1.0]"),
        ({"log": "true"}, "LOG10_SCALED"),
        ({"unit": "phase"}, "an interferometric phase"),
        ({"unit": "real"}, "one part of a complex number"),
        ({"name": "localIncidenceAngle", "unit": "deg"}, "an angle"),
    ],
)
def test_snap_bands_that_are_not_their_values_or_no_backscatter_are_refused(tmp_path, changes, said):
    assert said in probe_file(snap_file(tmp_path / "a.tif", dimap(**changes))).refusal


def test_snap_units_tell_the_representation(tmp_path):
    db = probe_file(snap_file(tmp_path / "a.tif", dimap(unit="intensity_db")))
    assert db.representation == "db"
    amplitude = probe_file(
        snap_file(tmp_path / "b.tif", dimap(unit="amplitude", name="Amplitude_VV", used="false"))
    )
    assert (amplitude.representation, amplitude.arrays[0].nodata) == ("amplitude", None)


@pytest.mark.parametrize("document", [LAUGHS, OUTSIDE, b"<broken", dimap()[:-9]])
def test_snap_xml_that_cannot_be_read_says_nothing(tmp_path, document):
    path = snap_file(tmp_path / "a.tif", document)
    assert read_product(path).bands == ()
    assert probe_file(path).representation == "power"  # by its values


@needs_data
def test_the_real_tag_is_the_whole_document():
    document = read_tag(DATA / "s1_sigma0_linear_snap" / "VH.tif", SNAP_TAG)
    assert document.startswith(b"<?xml")
    assert document.endswith(b"</Dimap_Document>")


# ---------------------------------------------------------------- SAFE


@pytest.mark.parametrize(
    "content", [b"[1, 2]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"startTime": {"a": 1}}', b" " * (2**20 + 1)]
)
def test_a_product_info_that_cannot_be_read_says_nothing(tmp_path, content):
    path = write(tmp_path / "p" / "measurement" / "vv.tif", speckle())
    (tmp_path / "p" / "productInfo.json").write_bytes(content)
    assert read_product(path).facts == Acquisition()


def test_an_annotation_with_entities_says_nothing(tmp_path):
    path = write(tmp_path / "p" / "measurement" / "vv.tif", speckle())
    (tmp_path / "p" / "annotation").mkdir()
    (tmp_path / "p" / "annotation" / "vv.xml").write_bytes(OUTSIDE)
    assert read_product(path).facts == Acquisition()


# ---------------------------------------------------------------- families


def test_no_family_says_anything_of_a_strangers_file(tmp_path):
    path = write(tmp_path / "lake" / "scene_vv.tif", speckle())
    for family in FAMILIES:
        assert family.read(path) == Product()
        assert family.scene_of(path) is None
    assert facts_named(path.stem) is None
    assert scene_of(path) is None


@pytest.fixture
def acme(monkeypatch):
    """A vendor's family, known for the time of a test: gamma0 amplitude, which no word and no pixel says."""

    gamma0 = BandMetadata(quantity=Quantity.GAMMA0, representation=Representation.AMPLITUDE)

    def register(*bands):
        def read(path):
            own = Product(bands=bands or (gamma0,), facts=Acquisition(platform="acme-1"))
            return own if path.name.startswith("ACME_") else Product()

        family = Family(name="ACME", read=read)
        monkeypatch.setattr(table, "FAMILIES", (*FAMILIES, family))

    return register


def test_a_familys_quantity_and_representation_come_first_and_are_the_reason(tmp_path, acme):
    path = write(
        tmp_path / "ACME_20260102_VH_gamma0.tif", speckle(), tags={"UNITS": "dB", "quantity": "beta0"}
    )
    assert (probe_file(path).quantity, probe_file(path).representation) == ("beta0", "db")
    acme()
    probe = probe_file(path)
    (array,) = probe.arrays
    assert (array.name, array.quantity, array.representation) == ("vh", "gamma0", "amplitude")
    assert probe.reason == "band 1 is gamma0 amplitude by its ACME metadata"
    assert (probe.acquisition.datetime, probe.acquisition.platform) == ("2026-01-02T00:00:00Z", "acme-1")
    told = probe_file(path, quantity="sigma0", representation="power")
    assert (told.quantity, told.representation) == ("sigma0", "power")


def test_what_a_family_does_not_say_is_told_by_names_and_pixels(tmp_path, acme):
    acme(BandMetadata(quantity=Quantity.GAMMA0_RTC))
    probe = probe_file(write(tmp_path / "ACME_20260102_VV_gamma0.tif", speckle()))
    assert (probe.quantity, probe.representation) == ("gamma0_rtc", "power")
    assert probe.reason.startswith("by value: ")
    assert probe.reason.endswith("; band 1 is gamma0_rtc by its ACME metadata")
    acme(BandMetadata(representation=Representation.AMPLITUDE))
    probe = probe_file(write(tmp_path / "ACME_20260102_VV_gamma0_dem.tif", speckle()))  # no elevation
    assert (probe.quantity, probe.representation) == ("gamma0", "amplitude")
    assert probe.reason.startswith("band 1 is amplitude by its ACME metadata; the file is named")


def test_a_family_does_not_outweigh_pixels_or_units(tmp_path, acme):
    acme()
    db = write(tmp_path / "ACME_20260102_VV_gamma0.tif", 10 * np.log10(speckle()))
    assert "although band 1 is gamma0 amplitude by its ACME metadata" in probe_file(db).refusal
    phase = write(tmp_path / "ACME_20260103_VV_gamma0.tif", speckle(), tags={"UNITS": "radians"})
    assert "an interferometric phase (tag UNITS is 'radians')" in probe_file(phase).refusal
    acme(BandMetadata(unit="phase"))
    assert "an interferometric phase (band 1 is in 'phase')" in probe_file(db).refusal
    with pytest.raises(InvalidInputError, match=r"expected a quantity of sigma0, .*, got 'gamma'"):
        BandMetadata(quantity="gamma")


def test_metadata_of_another_number_of_bands_is_said_and_not_used(tmp_path, acme):
    acme(BandMetadata(quantity=Quantity.BETA0), BandMetadata(quantity=Quantity.BETA0))
    probe = probe_file(write(tmp_path / "ACME_20260102_VV_gamma0.tif", speckle()))
    assert (probe.quantity, probe.refusal) == ("gamma0", None)
    assert probe.left_out == (
        "ACME_20260102_VV_gamma0.tif: ACME metadata of 2 bands is left out, since the file has 1.",
    )


# ---------------------------------------------------------------- facts


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "s1b-iw-grd-vv-20211223t051122-20211223t051147-030148-039993-001",
            ("2021-12-23T05:11:22Z", "sentinel-1b", "IW", "GRD", None, 22, 30148),
        ),
        (
            "s1a-iw2-slc-vh-20200101t000102-20200101t000104-030600-038100-002",
            ("2020-01-01T00:01:02Z", "sentinel-1a", "IW", "SLC", None, 78, 30600),
        ),
        (
            "S1C_EW_GRDM_1SDH_20250401T000000_20250401T000001_001234_001234_ABCD",
            ("2025-04-01T00:00:00Z", "sentinel-1c", "EW", "GRD", None, None, 1234),
        ),
        (
            "S1A__IW___D_20150309T173017_VV_grd",
            ("2015-03-09T17:30:17Z", "sentinel-1a", "IW", None, "descending", None, None),
        ),
        ("Sentinel-1A IW SLC L1", (None, "sentinel-1a", "IW", "SLC", None, None, None)),
        ("lake_2020-02-30", (None,) * 7),
        ("lake_20200229_120000", ("2020-02-29T12:00:00Z", *(None,) * 6)),
        ("lake_20200229_20200312", (None,) * 7),
        ("tile_12345678901", (None,) * 7),
    ],
)
def test_facts_of_names(name, expected):
    facts = facts_from_name(name)
    assert (
        facts.datetime,
        facts.platform,
        facts.instrument_mode,
        facts.product_type,
        facts.orbit_state,
        facts.relative_orbit,
        facts.absolute_orbit,
    ) == expected


def test_earlier_facts_win_and_gaps_are_filled():
    merged = merge_facts([Acquisition(platform="a"), Acquisition(platform="b", relative_orbit=3)])
    assert merged == Acquisition(platform="a", relative_orbit=3)


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["PASS", "REL_ORBIT", "MISSION", "datetime", "mode", "range_looks"]), st.text()
    )
)
def test_any_fields_give_facts_or_nothing(said):
    attrs = facts_from_fields(said).attrs()
    assert attrs.get("sat:orbit_state", "ascending") in ("ascending", "descending")
    assert attrs.get("sat:relative_orbit", 1) > 0


@settings(max_examples=100)
@given(st.text())
def test_any_name_gives_facts_or_nothing(name):
    assert set(facts_from_name(name).attrs().values()).isdisjoint({None, ""})


# ---------------------------------------------------------------- manifest.safe
MANIFEST = """<?xml version="1.0"?><xfdu:XFDU xmlns:xfdu="urn" xmlns:safe="urn" xmlns:s1="urn"><metadataSection>
<safe:orbitReference><safe:orbitNumber type="start">638</safe:orbitNumber>
<safe:orbitNumber type="stop">639</safe:orbitNumber>
<safe:relativeOrbitNumber type="stop">16</safe:relativeOrbitNumber>
<safe:relativeOrbitNumber type="start">15</safe:relativeOrbitNumber>
<s1:pass>DESCENDING</s1:pass></safe:orbitReference></metadataSection></xfdu:XFDU>"""


def test_the_manifest_tells_the_track_first(tmp_path):
    product = "S1C_IW_GRDH_1SDV_20250105T051122_20250105T051147_000638_000A5B_ABCD.SAFE"
    path = write(tmp_path / product / "measurement" / "iw-vv.tif", speckle())
    assert probe_file(path).acquisition.relative_orbit is None  # of that orbit no formula is sure
    (tmp_path / product / "manifest.safe").write_text(MANIFEST)
    facts = probe_file(path).acquisition
    assert (facts.relative_orbit, facts.absolute_orbit, facts.orbit_state) == (15, 638, "descending")
    assert facts.datetime == "2025-01-05T05:11:22Z"
    (tmp_path / product / "manifest.safe").write_bytes(LAUGHS)
    assert probe_file(path).acquisition.relative_orbit is None


def test_a_date_in_a_description_is_no_time_of_acquisition(tmp_path):
    text = {"TIFFTAG_IMAGEDESCRIPTION": "written on 2024-05-06 by a script"}
    assert probe_file(write(tmp_path / "lake_VV.tif", speckle(), tags=text)).acquisition == Acquisition()
    told = {"TIFFTAG_IMAGEDESCRIPTION": "Sentinel-1A IW SLC L1"}
    assert (
        probe_file(write(tmp_path / "sea_VV.tif", speckle(), tags=told)).acquisition.platform == "sentinel-1a"
    )


def test_a_folder_tells_where_the_file_says_nothing_of_its_own(tmp_path):
    path = write(tmp_path / "S1B_20161121_12SYJ_DSC" / "Gamma0_VV.tif", speckle())
    facts = probe_file(path).acquisition
    assert (facts.datetime, facts.platform) == ("2016-11-21T00:00:00Z", "sentinel-1b")
    assert facts.orbit_state == "descending"
    assert probe_file(write(tmp_path / "20200101" / "lake_VV.tif", speckle())).acquisition == Acquisition()
