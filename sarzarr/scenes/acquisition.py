"""The facts of an acquisition: when, by whom, from which orbit, as names and tags say it.

Every fact is in STAC's spelling and absent where nothing says it; nothing here opens a file.
"""

import re
from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Final

from sarzarr import conventions as cv


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """The facts of one acquisition; a fact that nothing told is None."""

    datetime: str | None = None
    """Start of the acquisition, ISO 8601 UTC: ``2018-07-16T00:40:42Z``; midnight where only a date is."""
    platform: str | None = None
    """``sentinel-1a``, ..."""
    instrument_mode: str | None = None
    """``IW``, ``EW``, ``WV``, ``SM``."""
    product_type: str | None = None
    """``GRD``, ``SLC``, ..."""
    observation_direction: str | None = None
    """``left`` or ``right``: the side of the track that the antenna looks to."""
    looks_equivalent_number: float | None = None
    """Looks; where only a product of azimuth and range looks is told, that product."""
    orbit_state: str | None = None
    """``ascending`` or ``descending``."""
    relative_orbit: int | None = None
    """Relative orbit (track), 1 to 175 for Sentinel-1."""
    absolute_orbit: int | None = None
    """Absolute orbit."""
    incidence_angle: float | None = None
    """Incidence angle at the scene's middle, degrees."""

    def attrs(self) -> dict[str, str | int | float]:
        """Return the known facts (UTC, degrees) under their attribute keys, in the order of `ACQUISITION_KEYS`."""
        values = (getattr(self, field.name) for field in fields(self))
        return {key: v for key, v in zip(cv.ACQUISITION_KEYS, values, strict=True) if v is not None}


_STAMP: Final = re.compile(
    r"(?<!\d)((?:19|20)\d{2})-?(\d{2})-?(\d{2})(?:[T_](\d{2})-?(\d{2})-?(\d{2}))?(?!\d)", re.IGNORECASE
)
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_FIRST_ORBITS: Final = {"a": 73, "b": 27}
"""Absolute orbit at which each unit flew relative orbit 1 (P. Meadows, ESA Mission Performance Centre)."""
_ORBITS_A_CYCLE: Final = 175
_UNKNOWN: Final = 99999.0
"""What SNAP writes for a number that it does not know."""


def facts_from_fields(fields: Mapping[str, str]) -> Acquisition:
    """Return the facts in named fields: TIFF tags, SNAP's metadata, a SAFE annotation, ``productInfo.json``.

    Names as those write them, and STAC's, of which TIFF tags hold ``sat_orbit_state``: GDAL ends a
    tag's name at a colon. What cannot be understood says nothing. Angles are in degrees, times UTC.
    """

    def first(*names: str) -> str:
        spelled = (spelling for name in names for spelling in (name, name.replace(":", "_")))
        texts = (fields.get(name, "").strip() for name in spelled)
        return next((text for text in texts if text not in ("", "-")), "")

    platform = _platform(first(cv.PLATFORM, "MISSION", "missionId"))
    unit = platform[-1] if platform and platform.startswith("sentinel-1") else ""
    absolute = _integer(first(cv.ABSOLUTE_ORBIT, "ABS_ORBIT", "absoluteOrbitNumber"))
    relative = _integer(first(cv.RELATIVE_ORBIT, "REL_ORBIT"))
    if relative is None and absolute is not None and unit in _FIRST_ORBITS:
        relative = (absolute - _FIRST_ORBITS[unit]) % _ORBITS_A_CYCLE + 1
    mode = first(cv.INSTRUMENT_MODE, "ACQUISITION_MODE", "mode").upper()
    side = first(cv.OBSERVATION_DIRECTION, "antenna_pointing").lower()
    side = side or ("right" if unit else "")  # Sentinel-1 looks to the right only
    state = first(cv.ORBIT_STATE, "PASS", "pass").lower()[:1]
    looks = _number(first(cv.LOOKS_EQUIVALENT_NUMBER))
    azimuth, across = _number(first("azimuth_looks")), _number(first("range_looks"))
    if looks is None and azimuth is not None and across is not None:
        looks = azimuth * across
    angle = _number(first(cv.INCIDENCE_ANGLE, "incidenceAngleMidSwath"))
    near, far = _number(first("incidence_near")), _number(first("incidence_far"))
    if angle is None and near is not None and far is not None:
        angle = (near + far) / 2
    start = first(cv.DATETIME, "first_line_time", "startTime", "DATETIME", "ACQUISITION_DATETIME")
    return Acquisition(
        datetime=time_stamp(start),
        platform=platform,
        instrument_mode="SM" if re.fullmatch(r"S[1-6]", mode) else mode or None,
        product_type=first(cv.PRODUCT_TYPE, "PRODUCT_TYPE", "productType").upper() or None,
        observation_direction=side if side in ("left", "right") else None,
        looks_equivalent_number=looks if looks and looks > 0 else None,
        orbit_state={"a": "ascending", "d": "descending"}.get(state),
        relative_orbit=relative,
        absolute_orbit=absolute,
        incidence_angle=angle,
    )


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
    return int(text) if re.fullmatch(r"\d{1,9}", text) and text != "99999" and int(text) > 0 else None


def only_stamp(text: str) -> str | None:
    """Return the one date, UTC to seconds, that a name holds; None where it holds several, as a pair's does."""
    stamps = {stamp for match in _STAMP.finditer(text) if (stamp := time_stamp(match[0]))}
    return stamps.pop() if len(stamps) == 1 else None


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
    except ValueError:
        return None
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.isoformat().replace("+00:00", "Z")
