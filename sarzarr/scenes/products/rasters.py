"""Products and their rasters: a row a product, as its maker documents it. Data; `content_of` reads it.

A row is the pattern of a file's stem, with the groups ``layer`` (the token that says which raster of the product it
is) and, where the name encodes them, ``quantity`` and ``representation``. Where the stem alone says nothing, the
pattern of the folder must match, too. A product that is missing is one row here and one row of
``tests/scenes/test_products.py``.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sarzarr.conventions import Quantity, Representation
from sarzarr.scenes.products.family import Calibrator, constant_calibration
from sarzarr.scenes.words import tokens

POL: Final = "vv|vh|hh|hv"
TO_DEGREES: Final = 57.29577951308232
UNTOLD: Final = math.nan
"""The factor of an angle of which nothing tells whether it is in degrees or radians."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """The content of a raster: backscatter, or what is delivered beside it."""

    companion: str = ""
    """The raster in words, where it is no backscatter: ``a layover and shadow map``."""
    layer: str | None = None
    """The layer's name in a store; None for backscatter, and for a companion that is not kept by itself."""
    kind: str | None = None
    """``classes`` or ``continuous`` of a layer; None where the dtype decides."""
    units: str | None = None
    """CF name of a layer's unit; None where it has none, or nothing tells."""
    factor: float = 1.0
    """Pixels times this are the layer's values: degrees of radians. Of digital numbers, their power times this is
    ``calibrated``."""
    calibrated: Quantity | None = None
    """The quantity that digital numbers become by ``factor``; None where the product has no constant."""
    quantity: Quantity | None = None
    """The quantity of backscatter; None where the product does not say."""
    representation: Representation | None = None
    """Its representation (power, amplitude, dB), likewise."""


def _backscatter(representation: Representation | None = None, quantity: Quantity | None = None) -> Content:
    return Content(quantity=quantity, representation=representation)


_ANY: Final = _backscatter()
_AMPLITUDE: Final = _backscatter(Representation.AMPLITUDE)
_DN: Final = _backscatter(Representation.AMPLITUDE, Quantity.DN)
_POWER: Final = _backscatter(Representation.POWER)
_DB: Final = _backscatter(Representation.DB)
_RTC: Final = _backscatter(Representation.POWER, Quantity.GAMMA0_RTC)
_PALSAR: Final = replace(_DN, factor=10**-8.3, calibrated=Quantity.SIGMA0)
"""JAXA: sigma0 in dB is 10 log10(DN^2) - 83.0; of what is corrected for slopes, gamma0."""
_PALSAR_RTC: Final = replace(_PALSAR, calibrated=Quantity.GAMMA0_RTC)

INCIDENCE: Final = Content(companion="an angle", layer="incidence_angle", kind="continuous", units="degree")
LOCAL_INCIDENCE: Final = replace(INCIDENCE, layer="local_incidence_angle")
ANGLE: Final = Content(companion="an angle")
LAYOVER_SHADOW: Final = Content(companion="a layover and shadow map", layer="layover_shadow", kind="classes")
MASK: Final = Content(companion="a mask or a label", layer="mask", kind="classes")
LABEL: Final = Content(companion="a mask or a label")
DEM: Final = Content(companion="an elevation", layer="dem", kind="continuous")
AREA: Final = Content(companion="a scattering area", layer="area", kind="continuous")
FACTOR: Final = Content(companion="a factor between backscatter conventions")
LOOKS: Final = Content(companion="a number of looks")
NOISE: Final = Content(companion="a noise power")
COHERENCE: Final = Content(companion="a coherence")
PHASE: Final = Content(companion="an interferometric phase")
DISPLACEMENT: Final = Content(companion="a displacement")
WIND: Final = Content(companion="a wind")
DEPTH: Final = Content(companion="a bathymetry")
DATE: Final = Content(companion="a date")
PICTURE: Final = Content(companion="a picture")
OPTICAL: Final = Content(companion="an optical image")
ELEMENT: Final = Content(companion="an element of a covariance or coherency matrix")


@dataclass(frozen=True, kw_only=True)
class ProductRow:
    """A product: the grammar of its files' names, and what each of its rasters holds."""

    name: str
    """Its name, for people: ``ASF HyP3 RTC``."""
    stem: str
    """Pattern of the whole stem of a file, case ignored; its group ``layer`` chooses among ``layers``."""
    folder: str = ""
    """Pattern that is found in a folder above the file, where the stem alone does not tell."""
    is_static: bool = False
    """Whether its rasters are of no date: they hold for all scenes of their ``place``."""
    layers: Mapping[str, Content] = field(default_factory=dict)
    """Content by pattern of the whole token ``layer``, case ignored."""
    codes: Mapping[str, Quantity | Representation] = field(default_factory=dict)
    """Meaning of the tokens ``quantity`` and ``representation`` of a name, in lower case."""


ROWS: Final[tuple[ProductRow, ...]] = (
    ProductRow(
        name="Sentinel-2",
        stem=r"(?:L2A_)?T\d{2}[A-Z]{3}_\d{8}T\d{6}_(?P<layer>B\d[0-9A]|TCI|SCL|AOT|WVP|CLD|SNW)(?:_\d0m)?",
        layers={"scl|cld|snw": LABEL, r"\w+": OPTICAL},
    ),
    ProductRow(
        name="Sentinel-2 of data sets",
        stem=r"(?:S2[A-C]?|Sentinel-?2[A-C]?)[_-](?!(?:.*[^A-Z])?(?:VV|VH|HH|HV)(?:[^A-Z]|$))(?P<layer>.+)",
        layers={".+": OPTICAL},
    ),
    ProductRow(
        name="SEN12MS",
        stem=r"ROIs\d+_[a-z]+_(?P<layer>s1|s2|lc)_\d+_p\d+",
        layers={"s1": _DB, "s2": OPTICAL, "lc": LABEL},
    ),
    ProductRow(
        name="SpaceNet 6",
        stem=r"SN6_\w+_(?P<layer>PAN|PS-RGB|PS-RGBNIR|RGBNIR)_\d{14}_\d{14}_tile_\d+",
        layers={r"[\w-]+": OPTICAL},
    ),
    ProductRow(
        name="Landsat",
        stem=r"L[COTEM]\d{2}_L\w{3}_\d{6}_\d{8}_\d{8}_\d{2}_\w{2}_(?P<layer>\w+)",
        layers={r"qa_\w+|\w+_qa": LABEL, r"\w+": OPTICAL},
    ),
    ProductRow(
        name="ASF HyP3 RTC",  # RTC product guide of 2026-04
        stem=(
            r"(?:S1[A-D]_\w\w_\d{8}T\d{6}_[DS][VH][PRO]_RTC\d+|S1_\d+_[IE]W\d_\d{8}T\d{6}_(?:VV|VH|HH|HV)_RTC\d*)_[A-Z]_"
            r"(?P<quantity>[gs])(?P<representation>[pda])[uwm][nf][ecd][dm](?:_[0-9A-Z]{4})?_(?P<layer>\w+)"
        ),
        layers={
            POL: _ANY,
            "ls_map": LAYOVER_SHADOW,
            "inc_map": replace(LOCAL_INCIDENCE, factor=TO_DEGREES),
            "area": AREA,
            "dem": DEM,
            r"rgb|\w*browse|thumbnail": PICTURE,
        },
        codes={
            "g": Quantity.GAMMA0_RTC,
            "s": Quantity.SIGMA0,
            "p": Representation.POWER,
            "d": Representation.DB,
            "a": Representation.AMPLITUDE,
        },
    ),
    ProductRow(
        name="ASF HyP3 InSAR",  # InSAR product guide; bursts begin with S1_ and name the burst
        stem=r"S1(?:[A-D]{2})?_.*_INT\d+_(?:[A-Z]_\w+?_)?[0-9A-Z]{4}_(?P<layer>[a-z]\w*)",
        layers={
            "amp": _AMPLITUDE,
            "corr": COHERENCE,
            r"(un)?w\w*_phase|\w*phase": PHASE,
            r"\w+_disp": DISPLACEMENT,
            r"lv_theta|lv_phi": ANGLE,
            "inc_map": replace(LOCAL_INCIDENCE, factor=TO_DEGREES),
            "inc_map_ell": replace(INCIDENCE, factor=TO_DEGREES),
            "dem": DEM,
            "water_mask": replace(MASK, layer="water_mask"),
        },
    ),
    ProductRow(
        name="OPERA RTC-S1",  # OPERA RTC product specification
        stem=r"OPERA_L2_RTC-S1_(?P<place>T\d{3}-\d{6}-IW\d)_\w+Z_\w+Z_S1[A-D]_\d+_v[\d.]+_(?P<layer>\w+)",
        layers={
            POL: _RTC,
            "mask": LAYOVER_SHADOW,
            "local_incidence_angle": LOCAL_INCIDENCE,
            "incidence_angle": INCIDENCE,
            "number_of_looks": LOOKS,
            r"rtc_anf_\w+": FACTOR,
            r"\w*browse\w*": PICTURE,
        },
    ),
    ProductRow(
        name="OPERA RTC-S1-STATIC",
        is_static=True,
        stem=r"OPERA_L2_RTC-S1-STATIC_(?P<place>T\d{3}-\d{6}-IW\d)_\d{8}_S1[A-D]_\d+_v[\d.]+_(?P<layer>\w+)",
        layers={
            "local_incidence_angle": LOCAL_INCIDENCE,
            "incidence_angle": INCIDENCE,
            "mask": LAYOVER_SHADOW,
            "number_of_looks": LOOKS,
            r"rtc_anf_\w+": FACTOR,
            r"\w*browse\w*": PICTURE,
        },
    ),
    ProductRow(
        name="S1-NRB",  # CEOS ARD for SAR as s1ard writes it
        stem=(
            r"s1[a-d]-(?:iw|ew|s\d)-(?:nrb|orb)-\d{8}t\d{6}(?:-[0-9a-z]+){3}-"
            r"(?P<layer>(?:vv|vh|hh|hv)-[gs]-(?:lin|log)|[a-z]{2}|np-(?:vv|vh|hh|hv)|cc-[gs]-(?:lin|log)|vv-s-lin-wn)"
        ),
        layers={
            rf"(?:{POL})-g-lin": _RTC,
            rf"(?:{POL})-g-log": _backscatter(Representation.DB, Quantity.GAMMA0_RTC),
            rf"(?:{POL})-s-lin": _backscatter(Representation.POWER, Quantity.SIGMA0),
            rf"(?:{POL})-s-log": _backscatter(Representation.DB, Quantity.SIGMA0),
            "vv-s-lin-wn": WIND,
            r"cc-\w-\w+": PICTURE,
            "dm": LAYOVER_SHADOW,
            "ei": INCIDENCE,
            "li": LOCAL_INCIDENCE,
            "em": DEM,
            "lc": AREA,
            "gs|sg": FACTOR,
            "id": LABEL,
            "ld|lr": ANGLE,
            rf"np-(?:{POL})": NOISE,
        },
    ),
    ProductRow(
        name="Planetary Computer sentinel-1-rtc",
        stem=rf"(?:iw|ew|s\d)-(?P<layer>{POL})\.rtc",
        layers={POL: _RTC},
    ),
    ProductRow(
        name="Digital Earth Africa s1_rtc",
        stem=r"s1_rtc_[0-9A-Z]+_[NS]\d+[EW]\d+_\d{4}_\d\d_\d\d_(?P<layer>[A-Z]+)",
        layers={POL: _RTC, "angle": LOCAL_INCIDENCE, "area": AREA, "mask": MASK},
    ),
    ProductRow(
        name="Sinergise RTC",
        stem=r"(?P<layer>gamma0_(?:vv|vh|hh|hv)|local_incident_angle|shadow_mask)",
        folder=r"S1[A-D]_\d{8}_[0-9A-Z]{5}_(?:ASC|DSC)",
        layers={r"gamma0_\w\w": _RTC, "local_incident_angle": LOCAL_INCIDENCE, "shadow_mask": LAYOVER_SHADOW},
    ),
    ProductRow(
        name="PALSAR mosaic of JAXA",
        stem=r"[NS]\d{2}[EW]\d{3}_\d{2}(?P<part>_sl)?_(?P<layer>[a-z]+)(?:_F\d{2}[A-Z]{3})?",
        layers={
            "hh|hv": _PALSAR_RTC,
            "mask": MASK,
            "linci": LOCAL_INCIDENCE,
            "date": DATE,
            "c": LABEL,  # forest, non-forest, water
        },
    ),
    ProductRow(
        name="ALOS-2 PALSAR-2 L1.5, L2.1",
        stem=rf"IMG-(?P<layer>{POL})-ALOS2\d{{9}}-\d{{6}}-\w+(?:1\.5|2\.1|3\.1)\w+",
        layers={POL: _PALSAR},
    ),
    ProductRow(
        name="ALOS-2 PALSAR-2 L2.2",
        stem=r"ALOS2\d{9}-\d{6}_\w+2\.2\w+_(?P<layer>[A-Z]{2,3})",
        layers={
            POL: _PALSAR_RTC,
            "lin": ANGLE,
            "msk": MASK,
        },
    ),
    ProductRow(
        name="RADARSAT Constellation",
        stem=rf"RCM\d_OK\d+_PK\d+_\d+_\w+?_\d{{8}}_\d{{6}}_\w+_(?P<layer>{POL}|CH|CV|RH|RV|XC)",
        layers={f"{POL}|ch|cv|rh|rv|xc": Content(quantity=Quantity.DN)},
    ),
    ProductRow(
        name="RADARSAT-2",
        stem=rf"imagery_(?P<layer>{POL})",
        folder=r"RS2_",
        layers={POL: Content(quantity=Quantity.DN)},
    ),
    ProductRow(
        name="TerraSAR-X, TanDEM-X, PAZ",
        stem=rf"IMAGE_(?P<layer>{POL})_\w+",
        folder=r"(?:TSX|TDX|PAZ)1?_",
        layers={POL: Content(quantity=Quantity.DN)},
    ),
    ProductRow(
        name="UAVSAR",  # polarimetric products, JPL
        stem=r"\w+_\d{5}_\d{5}_\d{3}_\d{6}_[LP]\d{3}(?P<layer>[HV]{4}|)_\w\w_\d\d(?:\.grd|\.mlc)?",
        layers={"hhhh|hvhv|vvvv|vhvh": _POWER, "[hv]{4}": ELEMENT, "": _ANY},
    ),
    ProductRow(
        name="NISAR GCOV",
        stem=r"NISAR_L2_\w+_GCOV_\w+_(?P<layer>[HV]{4})",
        layers={"hhhh|hvhv|vvvv|vhvh": _RTC, "[hv]{4}": ELEMENT},
    ),
    ProductRow(
        name="BIOMASS",
        stem=r"bio_s\d_\w+__\w+_(?P<layer>i_abs|i_phase)",
        layers={"i_abs": _AMPLITUDE, "i_phase": PHASE},
    ),
    ProductRow(
        name="xView3",
        stem=r"(?P<layer>(?:VV|VH)_dB|bathymetry|owi\w+)",
        layers={r"v[vh]_db": _DB, "bathymetry": DEPTH, "owimask": LABEL, r"owi\w+": WIND},
    ),
    ProductRow(
        name="Sen1Floods11",
        stem=r"[A-Za-z-]+_\d+_(?P<layer>S1Hand|S1Weak|S2Hand|S2Weak|JRCWaterHand|\w*Label\w*)",
        layers={"s1hand|s1weak": _DB, "s2hand|s2weak": OPTICAL, r"jrcwaterhand|\w*label\w*": LABEL},
    ),
    ProductRow(
        name="BigEarthNet-S1",
        stem=rf"S1[AB]_IW_GRDH_1S\w\w_\d{{8}}T\d{{6}}_\d{{2}}[A-Z]{{3}}_\d+_\d+_(?P<layer>{POL})",
        layers={POL: _DB},
    ),
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The product of a file, and the content that its name tells."""

    product: str
    """The product's name, for people."""
    content: Content
    """Which of its rasters it is."""
    base: str
    """The stem without the token of the raster: the same for all rasters of a product."""
    subject: str
    """``base`` less the group ``part``, which only some rasters of a product have in their names."""
    place: str | None
    """The place in the name, such as a burst; None where it has none."""
    is_static: bool
    """Whether it is of no date, and holds for all of its ``place``."""
    token: str
    """The token that says which raster it is, as written."""
    needs_folder: bool
    """Whether the folder tells the product, so that ``base`` does not."""

    @property
    def calibrations(self) -> Mapping[str, Calibrator]:
        """The calibration by the product's constant; empty where it has none."""
        content = self.content
        if content.calibrated is None:
            return {}
        return constant_calibration(
            content.calibrated, content.factor, f"{self.product}: {content.factor:.4g}"
        )


def content_of(path: Path) -> Found | None:
    """Return the product of a file and its content, by its name and folders; None where no row knows it."""
    stem = path.stem
    for row in ROWS:
        match = re.fullmatch(row.stem, stem, re.IGNORECASE)
        if match is None or (row.folder and not _is_in(path, row.folder)):
            continue
        token = match["layer"]
        for pattern, content in row.layers.items():
            if re.fullmatch(pattern, token, re.IGNORECASE):
                base = stem[: match.start("layer")].rstrip("-_.") + stem[match.end("layer") :]
                part = match.groupdict().get("part") or ""
                coded: dict[str, Any] = {
                    key: row.codes[code.lower()]
                    for key, code in match.groupdict().items()
                    if key in ("quantity", "representation") and not content.companion
                }
                return Found(
                    product=row.name,
                    content=replace(content, **coded),
                    base=base.lstrip("-_."),
                    subject=base.lstrip("-_.").replace(part, "", 1),
                    place=match.groupdict().get("place"),
                    is_static=row.is_static,
                    token=token,
                    needs_folder=bool(row.folder),
                )
    return None


_BY_WORDS: Final = {
    "an angle": ANGLE,
    "an elevation": DEM,
    "a layover and shadow map": LAYOVER_SHADOW,
    "a mask or a label": LABEL,
}


def companion_of(what: str, name: str) -> Content:
    """Return the companion that words declare (`sarzarr.scenes.words.not_backscatter_in`), in a name of no product.

    >>> companion_of("a mask or a label", "water_mask").layer, companion_of("a coherence", "coh").layer
    ('mask', None)
    """
    content = _BY_WORDS.get(what, Content(companion=what))
    words = tokens(name)
    if content is LABEL and any("mask" in word for word in words):
        return MASK
    if content is DEM and any(
        re.fullmatch(r"canopy|trees?|vegetation|waves?|buildings?", word) for word in words
    ):
        return Content(companion=what)
    if content is ANGLE and not any("projected" in word for word in words):
        if any(re.fullmatch(r"lia|linci|\w*localincidence\w*|local", word) for word in words):
            return replace(LOCAL_INCIDENCE, factor=UNTOLD)
        if any(re.fullmatch(r"inc|inci|incidence\w*|incident", word) for word in words):
            return replace(INCIDENCE, factor=UNTOLD)
    return content


def _is_in(path: Path, folder: str) -> bool:
    return any(re.search(folder, part, re.IGNORECASE) for part in path.parts[-4:-1])
