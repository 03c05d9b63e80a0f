"""Sentinel-1: SAFE folders, and names that ESA, pyroSAR and those who begin as ESA does give."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element

from sarzarr import conventions as cv
from sarzarr.scenes.acquisition import (
    MAX_JSON,
    Acquisition,
    facts_from_fields,
    json_object,
    merge_facts,
    only_stamp,
)
from sarzarr.scenes.products.family import Family, Product
from sarzarr.scenes.products.safe import SafeFiles, safe_border_noise, safe_calibrations, safe_fields
from sarzarr.scenes.products.xml import MAX_XML, parse_xml, texts_of
from sarzarr.scenes.words import tokens
from sarzarr.zips import read_bytes

_MODES: Final = "(?P<mode>IW|EW|WV|S[1-6]|SM)"
_NAMES: Final = (
    # ESA's products (Sentinel-1 product specification, S1-RS-MDA-52-7441)
    (
        rf"(?<![A-Z0-9])S1(?P<unit>[A-D])_{_MODES}_(?P<type>SLC|GRD|RAW|OCN)[FHM_]_\dS[A-Z]{{2}}_"
        r"(?P<start>\d{8}T\d{6})_\d{8}T\d{6}_(?P<orbit>\d{6})"
    ),
    # ESA's measurement files
    (
        r"(?<![a-z0-9])s1(?P<unit>[a-d])-(?P<mode>iw|ew|wv|s[1-6])[1-5]?-(?P<type>slc|grd|raw|ocn)-(?:vv|vh|hh|hv)-"
        r"(?P<start>\d{8}t\d{6})-\d{8}t\d{6}-(?P<orbit>\d{6})"
    ),
    # pyroSAR's, which tell the orbit's direction
    rf"(?<![A-Z0-9])S1(?P<unit>[A-D])_+{_MODES}_+(?P<state>[AD])_(?P<start>\d{{8}}T\d{{6}})(?!\d)",
    # ASF's and others', which begin as ESA's do
    rf"(?<![A-Z0-9])S1(?P<unit>[A-D])_{_MODES}(?![A-Z0-9])",
    # the image description in ESA's measurement files
    r"Sentinel-1(?P<unit>[A-D]) (?P<mode>IW|EW|WV|SM) (?P<type>SLC|GRD|RAW|OCN)\b",
)
_FIELDS: Final = {
    "mode": cv.INSTRUMENT_MODE,
    "type": cv.PRODUCT_TYPE,
    "state": cv.ORBIT_STATE,
    "orbit": cv.ABSOLUTE_ORBIT,
    "start": cv.DATETIME,
}
_MEASUREMENT: Final = re.compile(
    r"(s1[a-d]-\w+-\w+)-(?:vv|vh|hh|hv)-(\d{8}t\d{6}-\d{8}t\d{6}-\d{6}-[0-9a-f]{6})-\d{3}", re.IGNORECASE
)
"""ESA's measurement files: the last number counts polarizations, so it is no part of the scene's name."""


def sentinel1_facts(text: str) -> Acquisition | None:
    """Return the facts in a name; times are UTC, to seconds.

    >>> sentinel1_facts("S1A_IW_GRDH_1SDV_20180716T004042_20180716T004107_022812_02792A_FD5B").relative_orbit
    165
    >>> sentinel1_facts("S1A__IW___A_20150309T173017_VV_grd_mli").orbit_state
    'ascending'
    """
    match = next((match for pattern in _NAMES if (match := re.search(pattern, text))), None)
    if match is None:
        return None
    groups = match.groupdict()
    fields = {_FIELDS[key]: value for key, value in groups.items() if key in _FIELDS}
    fields[cv.PLATFORM] = f"sentinel-1{groups['unit']}"
    fields.setdefault(cv.DATETIME, only_stamp(text) or "")
    return facts_from_fields(fields)


def _product_folder(path: Path) -> Path | None:
    return path.parent.parent if path.parent.name.lower() == "measurement" else None


def sentinel1_scene(path: Path) -> str | None:
    """Return the name of its product and sub-swath, or of a measurement file that stands alone.

    Of wave mode each file is a vignette of its own, and its number is part of the name.
    """
    folder, stem = _product_folder(path), path.stem
    if folder is not None:
        words = tokens(stem)
        swaths = [word for word in words if re.fullmatch(r"(iw|ew)[1-5]|s[1-6]|wv[12]", word)]
        swaths += [word for word in words[-1:] if swaths and swaths[0] in ("wv1", "wv2") and word.isdigit()]
        burst = "_".join(word for word in swaths if word not in tokens(folder.name))
        product = folder.name.removesuffix(".zip").removesuffix(".SAFE")
        return f"{product}_{burst}" if burst else product
    measurement = _MEASUREMENT.fullmatch(stem)
    return f"{measurement[1]}-{measurement[2]}" if measurement else None


def read_safe(path: Path) -> Product:
    """Return the name and facts of the SAFE folder around a file.

    Those of its ``manifest.safe``, then of its ``productInfo.json``, then of the file's annotation.
    """
    folder = _product_folder(path)
    if folder is None:
        return Product()
    files = SafeFiles(measurement=path)
    declared = _facts_of(files.manifest, MAX_XML, lambda data: _manifest(parse_xml(data)))
    annotated = _facts_of(files.product, MAX_XML, lambda data: texts_of(parse_xml(data)))
    named = _facts_of(folder / "productInfo.json", MAX_JSON, _product_info)
    return Product(
        folder=folder.name,
        facts=merge_facts([declared, named, annotated]),
        calibrations=safe_calibrations(files),
        fields=safe_fields(files),
        border_noise=safe_border_noise(files),
    )


def _facts_of(path: Path, limit: int, fields: Callable[[bytes], dict[str, str]]) -> Acquisition:
    """Return the facts in the fields of a regular file of at most so many bytes; none where it is malformed."""
    try:
        data = read_bytes(path, limit)
        return Acquisition() if data is None else facts_from_fields(fields(data))
    except (ValueError, RecursionError):
        return Acquisition()


def _manifest(root: Element) -> dict[str, str]:
    """Return the orbits, at the start, and the pass of a ``manifest.safe``."""
    starts = {e.tag: e.text or "" for e in root.iter() if e.get("type") == "start"}
    return {**starts, "s1:pass": texts_of(root).get("s1:pass", "")}


def _product_info(data: bytes) -> dict[str, str]:
    """Return the fields of the document that mirrors of Sentinel-1 put beside ``measurement/``."""
    return {k: str(v) for k, v in json_object(data).items() if isinstance(v, str | int | float)}


FAMILY: Final = Family(name="SAFE", read=read_safe, facts_from_name=sentinel1_facts, scene_of=sentinel1_scene)
