"""Names of Sentinel-1 products: ESA's, pyroSAR's, and those that begin as ESA's do."""

import re
from typing import Final

from sarzarr.scenes.acquisition import Acquisition, only_stamp, spelled_facts, time_stamp

_SENTINEL: Final = re.compile(
    r"(?<![A-Z0-9])S1(?P<unit>[A-D])_(?P<mode>IW|EW|WV|S[1-6]|SM)_(?P<type>SLC|GRD|RAW|OCN)[FHM_]_\dS[A-Z]{2}_"
    r"(?P<start>\d{8}T\d{6})_\d{8}T\d{6}_(?P<orbit>\d{6})"
)
"""ESA's product names (Sentinel-1 product specification, S1-RS-MDA-52-7441)."""
_MEASUREMENT: Final = re.compile(
    r"(?<![a-z0-9])s1(?P<unit>[a-d])-(?P<mode>iw|ew|wv|s[1-6])[1-5]?-(?P<type>slc|grd|raw|ocn)-(?:vv|vh|hh|hv)-"
    r"(?P<start>\d{8}t\d{6})-\d{8}t\d{6}-(?P<orbit>\d{6})"
)
"""ESA's measurement files."""
_PYROSAR: Final = re.compile(
    r"(?<![A-Z0-9])S1(?P<unit>[A-D])_+(?P<mode>IW|EW|WV|S[1-6]|SM)_+(?P<state>[AD])_(?P<start>\d{8}T\d{6})(?!\d)"
)
"""pyroSAR's names, which tell the orbit's direction."""
_UNIT_MODE: Final = re.compile(r"(?<![A-Z0-9])S1(?P<unit>[A-D])_(?P<mode>IW|EW|WV|S[1-6]|SM)(?![A-Z0-9])")
"""ASF's and others' names, which begin as ESA's do."""
_DESCRIPTION: Final = re.compile(
    r"Sentinel-1(?P<unit>[A-D]) (?P<mode>IW|EW|WV|SM) (?P<type>SLC|GRD|RAW|OCN)\b"
)
"""The image description in ESA's measurement files."""


def facts_from_name(text: str) -> Acquisition:
    """Return what a file's, folder's or product's name says.

    >>> facts_from_name("S1A_IW_GRDH_1SDV_20180716T004042_20180716T004107_022812_02792A_FD5B").relative_orbit
    165
    >>> facts_from_name("S1A__IW___A_20150309T173017_VV_grd_mli").orbit_state
    'ascending'
    >>> facts_from_name("20190428").datetime, facts_from_name("20180106-20180130_ifg").datetime
    ('2019-04-28T00:00:00Z', None)
    """
    patterns = (_SENTINEL, _MEASUREMENT, _PYROSAR, _UNIT_MODE, _DESCRIPTION)
    found = next((match for pattern in patterns if (match := pattern.search(text))), None)
    said = found.groupdict() if found else {}
    return spelled_facts(
        platform=f"sentinel-1{said['unit']}" if "unit" in said else None,
        mode=said.get("mode"),
        product_type=said.get("type"),
        state=said.get("state"),
        absolute_orbit=said.get("orbit"),
        when=time_stamp(said["start"]) if "start" in said else only_stamp(text),
    )
