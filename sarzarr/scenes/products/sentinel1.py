"""Sentinel-1: SAFE folders, and names that ESA, pyroSAR and those who begin as ESA does give."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element

from sarzarr.scenes.acquisition import (
    MAX_JSON,
    Acquisition,
    facts_from_fields,
    json_object,
    merge_facts,
)
from sarzarr.scenes.products.annotation import SafeFiles
from sarzarr.scenes.products.family import Family, Product
from sarzarr.scenes.products.safe import safe_border_noise, safe_calibrations, safe_fields
from sarzarr.scenes.products.xml import MAX_XML, parse_xml, texts_of
from sarzarr.scenes.words import tokens
from sarzarr.zips import read_bytes

_MEASUREMENT: Final = re.compile(
    r"(s1[a-d]-\w+-\w+)-(?:vv|vh|hh|hv)-(\d{8}t\d{6}-\d{8}t\d{6}-\d{6}-[0-9a-f]{6})-\d{3}", re.IGNORECASE
)
"""ESA's measurement files: the last number counts polarizations, so it is no part of the scene's name."""


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


FAMILY: Final = Family(name="SAFE", read=read_safe, scene_of=sentinel1_scene)
