"""Grammars of products' names: a row a product, as its maker documents it. Data; `facts_named` reads them.

The named groups of a row's pattern are facts: ``start`` (6, 8 or 14 digits of YYYYMMDDHHMMSS with anything between),
``mode``, ``type``, ``side`` (L, R), ``state`` (A, ASC, D, DSC, ...), ``track`` (the relative orbit), ``orbit`` (the
absolute one), ``burst`` and ``polarization``. ``platform`` is a text that may hold other groups. A row without
``start`` says that the dates in such a name are no times of acquisition. A product that is missing is one row here
and one row of ``tests/scenes/test_grammars.py``.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sarzarr import conventions as cv
from sarzarr.scenes.acquisition import Acquisition, facts_from_fields, only_stamp


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """The grammar of one product's names."""

    product: str
    """The product, for people: ``OPERA RTC-S1``."""
    pattern: str
    """Pattern that is found in a name, case ignored; its groups are facts."""
    platform: str = ""
    """Platform, with groups in braces: ``sentinel-1{unit}``; empty where the name does not tell."""
    is_dated: bool = False
    """Whether the one time that the name holds, however it is spelled, is the start."""


_S1: Final = "sentinel-1{unit}"
_MODES: Final = "(?P<mode>IW|EW|WV|S[1-6]|SM)"
_POL: Final = "(?P<polarization>VV|VH|HH|HV)"

GRAMMARS: Final[tuple[Grammar, ...]] = (
    Grammar(
        product="OPERA RTC-S1-STATIC",  # its date is a placeholder
        pattern=r"OPERA_L2_RTC-S1-STATIC_(?P<burst>T(?P<track>\d{3})-\d{6}-(?P<mode>IW|EW)\d)_\d{8}_",
    ),
    Grammar(
        product="OPERA RTC-S1",  # start, then the time of processing
        pattern=(
            r"OPERA_L2_RTC-S1_(?P<burst>T(?P<track>\d{3})-\d{6}-(?P<mode>IW|EW)\d)_(?P<start>\d{8}T\d{6})Z_"
            r"\d{8}T\d{6}Z_S1(?P<unit>[A-D])_"
        ),
        platform=_S1,
    ),
    Grammar(
        product="S1-NRB",
        pattern=(
            r"s1(?P<unit>[a-d])-(?P<mode>iw|ew|s[1-6])-(?:nrb|orb)-(?P<start>\d{8}t\d{6})-(?P<orbit>\d{6})-"
        ),
        platform=_S1,
    ),
    Grammar(
        product="S1-NRB folder",
        pattern=(
            r"S1(?P<unit>[A-D])_(?P<mode>IW|EW|S[1-6])_(?:NRB|ORB)__1S[A-Z]{2}_(?P<start>\d{8}T\d{6})_(?P<orbit>\d{6})_"
        ),
        platform=_S1,
    ),
    Grammar(
        product="Sentinel-1 of TU Wien (Equi7, 2016)",
        pattern=(
            r"D(?P<start>\d{8}_\d{6})--_.*_S1(?P<unit>[A-D])(?P<mode>IW|EW|SM|WV)(?P<type>GRD|SLC)[FHM_]\d"
            rf"{_POL}(?P<state>[AD])_(?P<track>\d{{3}})_"
        ),
        platform=_S1,
    ),
    Grammar(
        product="Sentinel-1 of TU Wien and EODC (Equi7, 2020)",
        pattern=(
            rf"_(?P<start>\d{{8}}T\d{{6}})_[\dT]*_{_POL}_(?P<state>[AD])(?P<track>\d{{3}})_E\d{{3}}N\d{{3}}T\d_"
            r"\w+_S1(?P<unit>[A-D])(?P<mode>IW|EW|SM)(?P<type>GRD)[FHM]"
        ),
        platform=_S1,
    ),
    Grammar(
        product="Sinergise RTC",
        pattern=r"(?<![A-Z0-9])S1(?P<unit>[A-D])_(?P<start>\d{8})_[0-9A-Z]{5}_(?P<state>ASC|DSC|DES)",
        platform=_S1,
    ),
    Grammar(
        product="Sentinel-1 by unit and date",
        pattern=r"(?<![A-Z0-9])S1(?P<unit>[A-D])(?=_\d{8}(?!\d))",
        platform=_S1,
        is_dated=True,
    ),
    Grammar(
        product="Digital Earth Africa s1_rtc",
        pattern=r"s1_rtc_[0-9A-Z]+_[NS]\d+[EW]\d+_(?P<start>\d{4}_\d\d_\d\d)",
    ),
    Grammar(
        product="ALOS-2 PALSAR-2",  # orbit and frame, date, mode, look side, level, projection, pass
        pattern=(
            r"ALOS2(?P<orbit>\d{5})\d{4}-(?P<start>\d{6})(?:-(?P<mode>[A-Z]{3})(?P<side>[LR])\d\.\d"
            r"(?:[GR_][A-Z_](?P<state>[AD]))?)?"
        ),
        platform="alos-2",
    ),
    Grammar(
        product="Umbra",
        pattern=r"(?P<start>\d{4}(?:-\d\d){5})_UMBRA-(?P<number>\d+)",
        platform="umbra-{number}",
    ),
    Grammar(
        product="ICEYE",
        pattern=r"ICEYE_X(?P<number>\d+)_(?P<type>GRD|SLC)_(?P<mode>[A-Z]+)_\d+_(?P<start>\d{8}T\d{6})",
        platform="iceye-x{number}",
    ),
    Grammar(
        product="ICEYE of 2025",
        pattern=r"ICEYE_\w+?_(?P<start>\d{8}T\d{6})Z?_\d+_X(?P<number>\d+)_(?P<mode>[A-Z]+)_(?P<type>[A-Z]+)",
        platform="iceye-x{number}",
    ),
    Grammar(
        product="Capella",
        pattern=(
            r"CAPELLA_C0*(?P<number>\d+)_(?P<mode>[A-Z]{2})_(?P<type>[A-Z]+)_"
            rf"{_POL}_(?P<start>\d{{14}})_\d{{14}}"
        ),
        platform="capella-{number}",
    ),
    Grammar(
        product="TerraSAR-X, TanDEM-X, PAZ",
        pattern=(
            r"(?P<satellite>TSX|TDX|PAZ)1_SAR__(?P<type>[A-Z]{3})_\w+?_(?P<mode>[A-Z]{2})_[A-Z]_[SDTQ]RA_"
            r"(?P<start>\d{8}T\d{6})_\d{8}T\d{6}"
        ),
        platform="{satellite}",
    ),
    Grammar(
        product="COSMO-SkyMed",  # polarization, look side and pass, start and stop
        pattern=(
            r"CSKS(?P<number>\d)_(?P<type>[A-Z]{3})_[A-Z]_(?P<mode>[A-Z0-9]{2})_[0-9A-Z]{2}_[A-Z]{2}_"
            r"(?P<side>[LR])(?P<state>[AD])_[SF][FN]_(?P<start>\d{14})_\d{14}"
        ),
        platform="cosmo-skymed-{number}",
    ),
    Grammar(
        product="RADARSAT-2",
        pattern=(
            r"RS2_OK\w+_PK\w+_DK\w+_(?P<mode>[0-9A-Z]+)_(?P<start>\d{8}_\d{6})_(?:[HV]{2}_)+(?P<type>[A-Z]{3})"
        ),
        platform="radarsat-2",
    ),
    Grammar(
        product="RADARSAT Constellation Mission",
        pattern=(
            r"RCM(?P<number>\d)_OK\w+_PK\w+_\d+_(?P<mode>[0-9A-Z]+)_(?P<start>\d{8}_\d{6})_"
            r"(?:[A-Z]{2}_)+(?P<type>[A-Z]{3})"
        ),
        platform="rcm-{number}",
    ),
    Grammar(
        product="Envisat ASAR",
        pattern=(
            r"ASA_(?P<mode>IM|AP|WS|GM|WV)[A-Z]_\d[A-Z]{5}(?P<start>\d{8}_\d{6})_\d{12}_(?P<track>\d{5})_(?P<orbit>\d{5})_"
        ),
        platform="envisat",
    ),
    Grammar(
        product="UAVSAR",
        pattern=r"_\d{5}_\d{5}_\d{3}_(?P<start>\d{6})_[LP]\d{3}",
        platform="uavsar",
    ),
    Grammar(
        product="NISAR",
        pattern=(
            r"NISAR_L\d_[A-Z]{2}_(?P<type>[A-Z]{4})_\d{3}_(?P<track>\d{3})_(?P<state>[AD])_\d{3}_\w{4}_\w{4}_[A-Z]_"
            r"(?P<start>\d{8}T\d{6})_\d{8}T\d{6}"
        ),
        platform="nisar",
    ),
    Grammar(
        product="BIOMASS",
        pattern=(
            r"BIO_S\d_(?P<type>[A-Z]{3})__1S_(?P<start>\d{8}T\d{6})_\d{8}T\d{6}_\w_\w{3}_\w{3}_\w{3}_T(?P<track>\d{3})_"
        ),
        platform="biomass",
    ),
    Grammar(
        product="Sentinel-1 of ESA",  # product specification, S1-RS-MDA-52-7441
        pattern=(
            rf"S1(?P<unit>[A-D])_{_MODES}_(?P<type>SLC|GRD|RAW|OCN)[FHM_]_\dS[A-Z]{{2}}_(?P<start>\d{{8}}T\d{{6}})_"
            r"\d{8}T\d{6}_(?P<orbit>\d{6})"
        ),
        platform=_S1,
    ),
    Grammar(
        product="measurement file of ESA",
        pattern=(
            r"s1(?P<unit>[a-d])-(?P<mode>iw|ew|wv|s[1-6])[1-5]?-(?P<type>slc|grd|raw|ocn)-(?:vv|vh|hh|hv)-"
            r"(?P<start>\d{8}t\d{6})-\d{8}t\d{6}-(?P<orbit>\d{6})"
        ),
        platform=_S1,
    ),
    Grammar(
        product="Sentinel-1 of pyroSAR",
        pattern=rf"S1(?P<unit>[A-D])_+{_MODES}_+(?P<state>[AD])_(?P<start>\d{{8}}T\d{{6}})(?!\d)",
        platform=_S1,
    ),
    Grammar(
        product="Sentinel-1 of ASF and others, whose names begin as ESA's",
        pattern=rf"(?-i:(?<![A-Z0-9])S1(?P<unit>[A-D])_{_MODES}(?![A-Z0-9]))",  # case tells where it begins
        platform=_S1,
        is_dated=True,
    ),
    Grammar(
        product="Sentinel-1 burst of ASF",
        pattern=(
            r"(?<![a-z0-9])S1_(?P<burst>\d{6}_(?P<mode>IW|EW)\d)_(?P<start>\d{8}T\d{6})_(?:VV|VH|HH|HV)_"
            r"[0-9A-F]{4}-BURST"
        ),
    ),
    Grammar(
        product="image description in a measurement file of ESA",
        pattern=r"Sentinel-1(?P<unit>[A-D]) (?P<mode>IW|EW|WV|SM) (?P<type>SLC|GRD|RAW|OCN)\b",
        platform=_S1,
        is_dated=True,
    ),
)
"""The products whose names tell facts; the first row that is found in a name reads it."""
_COMPILED: Final = tuple((row, re.compile(row.pattern, re.IGNORECASE)) for row in GRAMMARS)
_SATELLITES: Final = {"TSX": "terrasar-x", "TDX": "tandem-x", "PAZ": "paz"}
_FACTS: Final = {
    "mode": cv.INSTRUMENT_MODE,
    "type": cv.PRODUCT_TYPE,
    "side": cv.OBSERVATION_DIRECTION,
    "state": cv.ORBIT_STATE,
    "track": cv.RELATIVE_ORBIT,
    "orbit": cv.ABSOLUTE_ORBIT,
    "burst": cv.BURST,
}


def _found(name: str) -> tuple[Grammar, re.Match[str]] | None:
    """Return the first grammar that reads a name, and its match."""
    return next(((row, match) for row, pattern in _COMPILED if (match := pattern.search(name))), None)


@lru_cache(maxsize=1024)
def facts_named(name: str) -> Acquisition | None:
    """Return the facts that the name of a known product tells, UTC; None for a name of no known product.

    >>> facts_named("S1A_IW_GRDH_1SDV_20180716T004042_20180716T004107_022812_02792A_FD5B").relative_orbit
    165
    >>> facts_named("IMG-HH-ALOS2015976960-140909-FBDR1.5GUA").orbit_state, facts_named("lake_20200101")
    ('ascending', None)
    """
    found = _found(name)
    if found is None:
        return None
    row, match = found
    groups = {key: value for key, value in match.groupdict().items() if value}
    fields = {_FACTS[key]: value for key, value in groups.items() if key in _FACTS}
    platform = row.platform.format(**groups)
    fields[cv.PLATFORM] = _SATELLITES.get(platform.upper(), platform)
    digits = re.sub(r"\D", "", groups.get("start", ""))
    digits = f"20{digits}" if len(digits) == 6 else digits
    fields[cv.DATETIME] = f"{digits[:8]}T{digits[8:]}" if len(digits) > 8 else digits
    if row.is_dated:
        fields[cv.DATETIME] = only_stamp(name) or ""
    return facts_from_fields(fields)


@lru_cache(maxsize=1024)
def facts_from_name(text: str) -> Acquisition:
    """Return the facts, UTC, in a file's, folder's or product's name: of a known product, else the one time in it.

    >>> facts_from_name("20190428").datetime, facts_from_name("20180106-20180130_ifg").datetime
    ('2019-04-28T00:00:00Z', None)
    """
    return facts_named(text) or Acquisition(datetime=only_stamp(text))


def polarization_named(name: str) -> str | None:
    """Return the polarization that the name of a known product glues to other words; None elsewhere.

    >>> polarization_named("D20160214_171512--_SIG0-----_S1AIWGRDH1VHA_015_A0105_EU010M_E048N015T1")
    'vh'
    """
    found = _found(name)
    polarization = found[1].groupdict().get("polarization") if found else None
    return polarization.lower() if polarization else None


def without_named_polarization(name: str) -> str:
    """Return a name without the polarization that `polarization_named` finds in it."""
    found = _found(name)
    if found is None or not found[1].groupdict().get("polarization"):
        return name
    first, last = found[1].span("polarization")
    return (name[:first].rstrip("_-") if name[last : last + 1] in ("", "_", "-") else name[:first]) + name[
        last:
    ]
