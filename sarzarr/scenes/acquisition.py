"""The facts of an acquisition: when, by whom, from which orbit, as names and tags say it.

Every fact is in STAC's spelling and absent where nothing says it; nothing here opens a file.
"""

import json
import re
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from sarzarr import conventions as cv


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """The facts of one acquisition; a fact that nothing told is None."""

    datetime: str | None = None
    """Start of the acquisition, ISO 8601 UTC: ``2018-07-16T00:40:42Z``; midnight where only a day is told."""
    platform: str | None = None
    """``sentinel-1a``, ..."""
    instrument_mode: str | None = None
    """``IW``, ``EW``, ``WV``, ``SM``."""
    product_type: str | None = None
    """``GRD``, ``SLC``, ..."""
    observation_direction: str | None = None
    """``left`` or ``right``: the side of the track that the antenna looks to."""
    looks_equivalent_number: float | None = None
    """Equivalent number of looks; azimuth looks times range looks are not it."""
    orbit_state: str | None = None
    """``ascending`` or ``descending``."""
    relative_orbit: int | None = None
    """Relative orbit (track), 1 to 175 for Sentinel-1."""
    absolute_orbit: int | None = None
    """Absolute orbit."""
    incidence_angle: float | None = None
    """Incidence angle at the scene's middle, degrees."""
    burst: str | None = None
    """Burst of Sentinel-1: track, number and swath, ``t115_245714_iw1``; ``245714_iw1`` without the track."""

    def attrs(self) -> dict[str, str | int | float]:
        """Return the known facts (UTC, degrees) under their attribute keys, in the order of `ACQUISITION_KEYS`."""
        values = (getattr(self, field.name) for field in fields(self))
        return {key: v for key, v in zip(cv.ACQUISITION_KEYS, values, strict=True) if v is not None}


_STAMP: Final = re.compile(
    r"(?<!\d)((?:19|20)\d{2})([-_.]?)(\d{2})\2(\d{2})"
    r"(?:[T_ -]?([01]\d|2[0-3])([-_:]?)([0-5]\d)\6([0-5]\d)|T([01]\d|2[0-3])([0-5]\d))?(?!\d)",
    re.IGNORECASE,
)
_ONE_TAKE: Final = timedelta(minutes=30)
"""Two times in a name that lie no further apart are start and stop: no data take of an imaging radar is longer."""
ONE_PASS: Final = timedelta(minutes=3)
"""Times by which two acquisitions of one place may differ to be of one pass: adjacent tracks of Sentinel-1 lie some 8
minutes of the day apart."""
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_FIRST_ORBITS: Final = (
    ("sentinel-1a", 1, 73),
    ("sentinel-1b", 1, 27),
    ("sentinel-1c", 8019, 99),
    ("sentinel-1c", 1681, 172),
    ("sentinel-1d", 1, 42),
)
"""Unit, absolute orbit from which a rule holds, and an absolute orbit of relative orbit 1. Earlier orbits of
Sentinel-1C were flown on other tracks while it was brought into place. (P. Meadows, ESA Mission Performance Centre;
isce2 and s1-reader for C and D.)"""
_ORBITS_A_CYCLE: Final = 175
_UNKNOWN: Final = 99999.0
"""The number that SNAP writes for one that it does not know."""
_JSON_TAGS: Final = ("TIFFTAG_IMAGEDESCRIPTION", "ICEYE_PROPERTIES")
"""Tags in which makers (Capella, ICEYE) put their metadata as JSON."""
MAX_JSON: Final = 2**20
"""Bytes of JSON that are read."""
_SPELLINGS: Final = {
    cv.DATETIME: (
        "start_datetime", cv.DATETIME, "first_line_time", "startTime", "safe:startTime", "ACQUISITION_DATETIME",
        "ACQUISITION_START_UTC", "ZERO_DOPPLER_START_TIME", "MPH_SENSING_START", "collect.start_timestamp",
    ),
    cv.PLATFORM: (cv.PLATFORM, "MISSION", "missionId", "SATELLITE_NAME", "collect.platform"),
    cv.INSTRUMENT_MODE: (cv.INSTRUMENT_MODE, "ACQUISITION_MODE", "mode", "collect.mode"),
    cv.PRODUCT_TYPE: (cv.PRODUCT_TYPE, "PRODUCT_TYPE", "productType", "PRODUCT_LEVEL"),
    cv.OBSERVATION_DIRECTION: (
        cv.OBSERVATION_DIRECTION, "antenna_pointing", "LOOK_SIDE", "LOOK_DIRECTION", "collect.radar.pointing",
    ),
    cv.LOOKS_EQUIVALENT_NUMBER: (cv.LOOKS_EQUIVALENT_NUMBER,),
    cv.ORBIT_STATE: (
        cv.ORBIT_STATE, "PASS", "s1:pass", "ORBIT_DIRECTION", "ORBIT_PASS_DIRECTION", "SPH_PASS",
        "collect.state.direction", "orbitProperties_pass",
    ),
    cv.RELATIVE_ORBIT: (
        cv.RELATIVE_ORBIT, "REL_ORBIT", "relativeOrbitNumber", "safe:relativeOrbitNumber", "TRACK_NUMBER",
        "MPH_REL_ORBIT", "relativeOrbitNumber_start",
    ),
    cv.ABSOLUTE_ORBIT: (
        cv.ABSOLUTE_ORBIT, "ABS_ORBIT", "absoluteOrbitNumber", "safe:orbitNumber", "ABSOLUTE_ORBIT_NUMBER",
        "MPH_ABS_ORBIT", "orbitNumber_start",
    ),
    cv.INCIDENCE_ANGLE: (
        cv.INCIDENCE_ANGLE, "incidenceAngleMidSwath", "INCIDENCE_CENTER",
        "collect.image.center_pixel.incidence_angle",
    ),
    cv.BURST: (cv.BURST, "BURST_ID"),
}  # fmt: skip
"""The names of each fact, the first that says something wins: STAC's, SNAP's, SAFE's, OPERA's, ICEYE's, ASAR's (MPH
and SPH), Capella's, Earth Engine's."""


def facts_from_fields(fields: Mapping[str, str]) -> Acquisition:
    """Return the facts in named fields: TIFF tags, SNAP's metadata, a SAFE annotation, ``productInfo.json``.

    Names as those write them, in any case, and STAC's, of which TIFF tags hold ``sat_orbit_state``: GDAL ends a
    tag's name at a colon. JSON in a tag is read, too. What cannot be understood says nothing, and times of processing
    are not looked at. Angles are in degrees, times UTC.
    """
    known = tuple(fields.items())
    return (_known_facts if sum(map(len, fields.values())) <= _SHORT else _facts)(known)


def _facts(fields: tuple[tuple[str, str], ...]) -> Acquisition:
    known: dict[str, str] = {}
    for key, value in _unfolded(dict(fields)):
        if value not in ("", "-"):
            known.setdefault(key.lower(), value)

    def first(fact: str) -> str:
        spelled = (s.lower() for name in _SPELLINGS[fact] for s in (name, name.replace(":", "_")))
        return next((known[name] for name in spelled if name in known), "")

    platform = _platform(first(cv.PLATFORM))
    absolute, relative = _integer(first(cv.ABSOLUTE_ORBIT)), _integer(first(cv.RELATIVE_ORBIT))
    mode = first(cv.INSTRUMENT_MODE).upper()
    side = {"l": "left", "r": "right"}.get(first(cv.OBSERVATION_DIRECTION).lower()[:1])
    if side is None and (platform or "").startswith("sentinel-1"):
        side = "right"  # it looks to no other
    looks, angle = _number(first(cv.LOOKS_EQUIVALENT_NUMBER)), _number(first(cv.INCIDENCE_ANGLE))
    near, far = _number(known.get("incidence_near", "")), _number(known.get("incidence_far", ""))
    if angle is None and near is not None and far is not None:
        angle = (near + far) / 2
    return Acquisition(
        datetime=time_stamp(first(cv.DATETIME)),
        platform=platform,
        instrument_mode="SM" if re.fullmatch(r"S[1-6]|STRIPMAP", mode) else mode or None,
        product_type=first(cv.PRODUCT_TYPE).upper() or None,
        observation_direction=side,
        looks_equivalent_number=looks if looks and looks > 0 else None,
        orbit_state=orbit_state(first(cv.ORBIT_STATE)),
        relative_orbit=_track(platform, absolute) if relative is None else relative,
        absolute_orbit=absolute,
        incidence_angle=angle,
        burst=_burst(first(cv.BURST)),
    )


_SHORT: Final = 4096
"""Characters of fields of which the facts are kept: files of one archive say the same, most of them."""
_known_facts: Final = lru_cache(maxsize=256)(_facts)


def _burst(text: str) -> str | None:
    """Return a burst of Sentinel-1 as OPERA spells it in tags; its file names have ``T115-245714-IW1``."""
    found = re.fullmatch(r"(t\d{3}_)?(\d{6})_([ie]w\d)", text.lower().replace("-", "_"))
    return found and "".join((found[1] or "", found[2], "_", found[3]))


def _unfolded(fields: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield fields, and those of JSON in tags: ``collect.state.direction``."""
    for key, value in fields.items():
        if key in _JSON_TAGS:
            with suppress(RecursionError):
                yield from _leaves("", json_object(value))
        else:
            yield key, value.strip()


def json_object(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object; an empty one where the text is none, or longer than `MAX_JSON` bytes."""
    try:
        document = json.loads(text) if len(text) <= MAX_JSON else None
    except (ValueError, RecursionError):
        document = None
    return document if isinstance(document, dict) else {}


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts and numbers of a JSON object, by the names on the way to them."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(f"{path}.{key}" if path else key, below)
    elif isinstance(value, str | int | float):
        yield path, str(value).strip()


def orbit_state(text: str) -> str | None:
    """Return ``ascending`` or ``descending``, of ``ASC``, ``D``, ``DSC`` and the like; None for another text.

    >>> orbit_state("DSC"), orbit_state("Ascending"), orbit_state("daily")
    ('descending', 'ascending', None)
    """
    match = re.fullmatch(r"(a|asc|ascending)|d|dsc|des|desc|descending", text.strip().lower())
    return None if match is None else "ascending" if match[1] else "descending"


def _track(platform: str | None, absolute: int | None) -> int | None:
    """Return the relative orbit of a Sentinel-1 on an absolute one; None where that is not known for sure."""
    if absolute is None:
        return None
    firsts = (first for unit, since, first in _FIRST_ORBITS if unit == platform and absolute >= since)
    first = next(firsts, None)
    return None if first is None else (absolute - first) % _ORBITS_A_CYCLE + 1


def merge_facts(several: Iterable[Acquisition]) -> Acquisition:
    """Return the facts of several sources, the earlier ones first."""
    known = [{f.name: v for f in fields(one) if (v := getattr(one, f.name)) is not None} for one in several]
    return Acquisition(**ChainMap({}, *known))


def _platform(text: str) -> str | None:
    """Return ``sentinel-1a`` for ``S1A``, ``SENTINEL-1A`` and the like; another platform in lower case."""
    short = re.fullmatch(r"(?:s|sentinel-?)1([a-d])", text.strip().lower())
    return f"sentinel-1{short[1]}" if short else re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < _UNKNOWN else None


def _integer(text: str) -> int | None:
    """Return an orbit's number; None where it is none, 0 or unknown."""
    return int(text) if re.fullmatch(r"\+?\d{1,9}", text) and text != "99999" and int(text) > 0 else None


def is_one_pass(one: str, other: str) -> bool:
    """Return whether two times, ISO 8601 UTC, are within `ONE_PASS`; of one day, where one tells only a day.

    >>> is_one_pass("2026-01-01T05:11:22Z", "2026-01-01T00:00:00Z")
    True
    >>> is_one_pass("2026-01-01T05:11:22Z", "2026-01-01T16:58:02Z")
    False
    """
    first, second = datetime.fromisoformat(one), datetime.fromisoformat(other)
    if any((t.hour, t.minute, t.second, t.microsecond) == (0, 0, 0, 0) for t in (first, second)):
        return first.date() == second.date()
    return abs(first - second) <= ONE_PASS


def only_stamp(text: str) -> str | None:
    """Return the one time, UTC to seconds, that a name holds: the start, of a start and a stop.

    None where it holds several days, as the name of a pair or a composite does. A day and a time of it are one.

    >>> only_stamp("lake_2024-02-10-14-05-12"), only_stamp("lake_2020_01_03"), only_stamp("2017-01-01_2018-12-31")
    ('2024-02-10T14:05:12Z', '2020-01-03T00:00:00Z', None)
    """
    days, moments = set[datetime](), set[datetime]()
    for match in _STAMP.finditer(text):
        year, _, month, day, hour, _, minute, second, short_hour, short_minute = match.groups()
        clock = (hour, minute, second) if hour else (short_hour, short_minute, "00")
        told = ":".join(clock) if clock[0] else "00:00:00"
        try:
            when = datetime.fromisoformat(f"{year}-{month}-{day}T{told}+00:00")
        except ValueError:
            continue
        (moments if clock[0] else days).add(when)
    if moments:
        starts = {moment.replace(hour=0, minute=0, second=0) for moment in moments}
        is_one = days <= starts and max(moments) - min(moments) <= _ONE_TAKE
        return _iso(min(moments)) if is_one else None
    return _iso(days.pop()) if len(days) == 1 else None


def time_stamp(text: str) -> str | None:
    """Return a time, ISO 8601 UTC to 1e-6 seconds, from ISO, compact ISO and SNAP's ``12-FEB-2019 08:42:29.6``."""
    snap = re.fullmatch(
        r"(\d{2})-([A-Z]{3})-(\d{4}) (\d{2}:\d{2}:\d{2})(\.\d{1,6})?\d*", text.strip().upper()
    )
    if snap and snap[2] in _MONTHS:
        text = f"{snap[3]}-{_MONTHS.index(snap[2]) + 1:02d}-{snap[1]}T{snap[4]}{snap[5] or ''}"
    text = re.sub(r"(\.\d{6})\d+", r"\1", text.strip().upper().replace("_", "T"))
    try:
        when = datetime.fromisoformat(text)
        return _iso(when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC))
    except (ValueError, OverflowError):  # the second where another zone's time is no date in UTC
        return None


def _iso(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")
