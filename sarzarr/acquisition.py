"""What a name or a tag says of an acquisition: when, by whom, from which orbit.

Every fact is in STAC's spelling and absent where nothing says it; nothing here opens a file.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Final

from sarzarr import conventions as cv


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """The facts of one acquisition; a fact that nothing told is None."""

    datetime: str | None = None
    """Start of the acquisition, ISO 8601 UTC: ``2018-07-16T00:40:42Z``; midnight where only a date is told."""
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
        """Return the known facts under their attribute keys, in the order of `ACQUISITION_KEYS`."""
        values = (getattr(self, field.name) for field in fields(self))
        return {key: v for key, v in zip(cv.ACQUISITION_KEYS, values, strict=True) if v is not None}

    def or_else(self, other: "Acquisition") -> "Acquisition":
        """Return these facts, and the other's where these say nothing."""
        gaps = {f.name: getattr(other, f.name) for f in fields(self) if getattr(self, f.name) is None}
        return replace(self, **gaps)
