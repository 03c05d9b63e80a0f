"""Counts, sizes and lists, for people."""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from sarzarr.errors import InvalidInputError, SarzarrError

T = TypeVar("T")


def logged(log: logging.Logger, value: T) -> T:
    """Return a value, and log each line of its text at INFO."""
    if log.isEnabledFor(logging.INFO):
        for line in str(value).splitlines():
            log.info("%s", line)
    return value


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return names for people: the first ``most``, and the number of the others.

    >>> listed("abc"), listed("abcdefgh", most=3)
    ('a, b, c', 'a, b, c and 5 more')
    """
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def shortened(name: str, most: int = 38) -> str:
    """Return a name in ``most`` characters: of a longer one the beginning and the end.

    >>> shortened("s1a_iw_grdh_20260101", most=11)
    's1a_...0101'
    """
    kept = most - 3
    return name if len(name) <= most else f"{name[: kept - kept // 2]}...{name[-(kept // 2) :]}"


def error_text(error: Exception) -> str:
    """Return an error for people; the operating system's, with the place and what may help."""
    if isinstance(error, SarzarrError) or not isinstance(error, OSError):
        return str(error)
    places = [repr(str(place)) for place in (error.filename, error.filename2) if place is not None]
    return (
        f"a place that can be read and written was expected, got {' and '.join(places) or 'an error'}: "
        f"{error.strerror or error}. Check the path, its rights and the room on the disk."
    )


def problems_text(wanted: str, problems: Sequence[str]) -> str:
    """Return the message of an error that has many causes, a line per cause: the first five."""
    shown = "\n".join(f"  {p}" for p in problems[:5])
    more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
    return (
        f"{wanted} were expected, got {len(problems)} that cannot. Take them out or mend them:\n{shown}{more}"
    )


def parse_bytes(text: str) -> int:
    """Return a size that a person wrote (``1GB``, ``800MB``) in bytes."""
    units = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "KB": 1e3, "B": 1.0}
    size = text.strip().upper().replace("IB", "B")
    unit = next((unit for unit in units if size.endswith(unit)), "")
    try:
        return int(float(size.removesuffix(unit)) * units[unit])
    except (KeyError, ValueError):
        raise InvalidInputError(
            f"expected a size such as 1GB or 800MB, got {text!r}. Give a number and its unit."
        ) from None


def size_text(count: float) -> str:
    """Return a count of bytes for people.

    >>> size_text(1234567)
    '1.23 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def nodata_text(value: float | None) -> str:
    """Return a nodata value for people.

    >>> nodata_text(-9999.0), nodata_text(None), nodata_text(0.5)
    ('-9999', 'none', '0.5')
    """
    if value is None:
        return "none"
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


def counted(count: int, noun: str) -> str:
    """Return a count and its noun.

    >>> counted(1, "scene"), counted(2, "scene"), counted(0, "box")
    ('1 scene', '2 scenes', '0 boxes')
    """
    plural = "es" if noun.endswith(("s", "x", "ch")) else "s"
    return f"{count} {noun}{'' if count == 1 else plural}"
