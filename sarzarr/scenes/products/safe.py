"""SAFE folders: annotations, and ``productInfo.json``."""

import json
from pathlib import Path
from typing import Final

from sarzarr.scenes.acquisition import Acquisition, facts_from_fields
from sarzarr.scenes.products.xml import MAX_XML, xml_leaves

MAX_JSON: Final = 2**20
"""Bytes of JSON that are read."""


def read_product_info(path: Path) -> Acquisition:
    """Return the facts of the ``productInfo.json`` that mirrors of Sentinel-1 put beside ``measurement/``."""
    try:
        document = json.loads(_read(path, MAX_JSON))
    except (OSError, ValueError, RecursionError):
        return Acquisition()
    if not isinstance(document, dict):
        return Acquisition()
    return facts_from_fields({k: str(v) for k, v in document.items() if isinstance(v, str | int | float)})


def read_annotation(path: Path) -> Acquisition:
    """Return the facts of a SAFE product's annotation."""
    try:
        leaves = xml_leaves(_read(path, MAX_XML))
    except (OSError, ValueError):
        return Acquisition()
    facts: dict[str, str] = {}
    for tag, _, text in leaves:
        facts.setdefault(tag, text)
    return facts_from_fields(facts)


def _read(path: Path, limit: int) -> bytes:
    """Return the bytes of a small regular file."""
    if not path.is_file() or path.stat().st_size > limit:
        raise ValueError(f"expected a file of at most {limit} bytes at {path.name}.")
    with path.open("rb") as file:
        return file.read(limit)
