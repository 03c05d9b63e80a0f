"""Periods of time, as pandas and xarray read them: both ends belong to them, and ``2026-02`` is the whole month."""

import re
from datetime import UTC, date, datetime
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError

_CALENDAR: Final = re.compile(r"\d{4}(-\d\d){0,2}")
"""A year, a month or a day."""
_UNIT: Final = "us"


def parse_period(time: Any) -> tuple[np.datetime64, np.datetime64]:
    """Return the first and the last moment (datetime64[us], UTC) of a period.

    It is a pair or slice of ends, None where it is open, or one text for the year, month or day that it says.
    Ends are ISO 8601 text, `datetime`, `date` or ``datetime64``, UTC unless they say another zone.

    >>> [str(end) for end in parse_period(("2026-01-31T05:00", "2026-02"))]
    ['2026-01-31T05:00:00.000000', '2026-02-28T23:59:59.999999']

    Raises `InvalidInputError` where it is none, or its last moment comes before its first.
    """
    ends = (time.start, time.stop) if isinstance(time, slice) else time
    if isinstance(ends, str | date | np.datetime64):
        ends = ends, ends
    try:
        if isinstance(time, slice) and time.step is not None:
            raise ValueError
        first, last = ends
        period = _moments(first)[0], _moments(last)[1]
    except (TypeError, ValueError):
        period = None
    if period is None or period[0] > period[1]:
        raise InvalidInputError(
            f"expected a period (first, last) in ISO 8601, got {time!r:.100}. Write it as "
            "('2026-01-31T05:00', '2026-03'), or '2026-03' for a month; None leaves an end open."
        )
    return period


def _moments(end: Any) -> tuple[np.datetime64, np.datetime64]:
    """Return the first and last moment of what an end says; of None those of all time."""
    if end is None:
        return np.datetime64("0001-01-01", _UNIT), np.datetime64("9999-12-31T23:59:59.999999", _UNIT)
    if isinstance(end, str) and _CALENDAR.fullmatch(end):
        end = np.datetime64(end)
    elif isinstance(end, date) and not isinstance(end, datetime):
        end = np.datetime64(end, "D")
    if isinstance(end, np.datetime64):
        if np.isnat(end):
            raise ValueError
        is_calendar = np.datetime_data(end)[0] in ("Y", "M", "D")
        first = end.astype(f"datetime64[{_UNIT}]")
        unit: Any = np.datetime_data(end.dtype)
        after = end + np.timedelta64(1, unit)
        last = after.astype(first.dtype) - np.timedelta64(1, _UNIT)
        return first, last if is_calendar else first
    when = end if isinstance(end, datetime) else datetime.fromisoformat(end)
    moment = np.datetime64(when if when.tzinfo is None else when.astimezone(UTC).replace(tzinfo=None), _UNIT)
    return moment, moment


def moments_of(stamps: Array) -> Array:
    """Return (n,) datetime64[us] of times as a catalog has them, ISO 8601 UTC; NaT of those that are not known."""
    return np.array([text.removesuffix("Z") or "NaT" for text in stamps.tolist()], f"datetime64[{_UNIT}]")
