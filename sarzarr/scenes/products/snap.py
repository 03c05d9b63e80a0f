"""Metadata that SNAP embeds in a GeoTIFF."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from sarzarr.scenes.acquisition import Acquisition, facts_from_fields
from sarzarr.scenes.products.xml import MAX_XML, xml_leaves

SNAP_TAG: Final = 65000
"""The TIFF tag that SNAP writes its whole product description to."""
_MAX_ENTRIES: Final = 4096


@dataclass(frozen=True, kw_only=True)
class BandMetadata:
    """What a product says of one band."""

    name: str
    """Its name: ``Sigma0_VH``."""
    unit: str = ""
    """``intensity``, ``amplitude``, ``intensity_db``, ``phase``, ``real``, ``deg``, ..."""
    scale: float = 1.0
    """Declared scale."""
    offset: float = 0.0
    """Declared offset."""
    is_log: bool = False
    """Whether the pixels are stored as logarithms of the values."""
    nodata: float | None = None
    """Declared nodata value, where it is in use."""


def read_tag(path: Path, number: int) -> bytes | None:
    """Return the bytes of an ASCII or byte tag of a TIFF's first directory, without trailing NULs.

    None where the file has no such tag, is no TIFF, or where the tag is longer than `MAX_XML`.
    Both byte orders, classic TIFF and BigTIFF. rasterio exposes only the tags that GDAL knows.
    """
    with path.open("rb") as file:
        try:
            return next((value for tag, value in _tags(file, number) if tag == number), None)
        except (struct.error, OSError, ValueError, OverflowError):  # an offset may be any 64-bit number
            return None


def _tags(file: BinaryIO, wanted: int) -> Iterator[tuple[int, bytes]]:
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        return
    is_big = struct.unpack_from(f"{order}H", head, 2)[0] == 43
    word, counter, entry = ("Q", "Q", 20) if is_big else ("I", "H", 12)
    file.seek(struct.unpack_from(f"{order}{word}", head, 8 if is_big else 4)[0])
    (entries,) = struct.unpack(f"{order}{counter}", file.read(struct.calcsize(counter)))
    directory = file.read(entry * min(entries, _MAX_ENTRIES))
    inline = struct.calcsize(word)
    for at in range(0, len(directory) - entry + 1, entry):
        tag, kind, count = struct.unpack_from(f"{order}HH{word}", directory, at)
        if tag != wanted or kind not in (1, 2, 7) or count > MAX_XML:
            continue
        value = directory[at + entry - inline : at + entry]
        if count > inline:
            file.seek(struct.unpack(f"{order}{word}", value)[0])
            value = file.read(count)
        yield tag, value[:count].rstrip(b"\0")


def read_snap(path: Path) -> tuple[tuple[BandMetadata, ...], Acquisition]:
    """Return the bands and facts of a SNAP export; nothing for any other TIFF."""
    document = read_tag(path, SNAP_TAG)
    if not document:
        return (), Acquisition()
    try:
        leaves = xml_leaves(document)
    except ValueError:
        return (), Acquisition()
    facts: dict[str, str] = {}
    for tag, name, text in leaves:
        if tag == "MDATTR":
            facts.setdefault(name, text)  # the first is the product's own; later ones are its sources'
    return tuple(_snap_bands(leaves)), facts_from_fields(facts)


def _snap_bands(leaves: list[tuple[str, str, str]]) -> Iterator[BandMetadata]:
    said: dict[str, str] = {}
    for tag, _, text in leaves:
        if tag == "Spectral_Band_Info":
            yield BandMetadata(
                name=said.get("BAND_NAME", ""),
                unit=said.get("PHYSICAL_UNIT", ""),
                scale=_number(said.get("SCALING_FACTOR"), 1.0),
                offset=_number(said.get("SCALING_OFFSET"), 0.0),
                is_log=said.get("LOG10_SCALED") == "true",
                nodata=(
                    _number(said.get("NO_DATA_VALUE"), None)
                    if said.get("NO_DATA_VALUE_USED") == "true"
                    else None
                ),
            )
            said = {}
        else:
            said[tag] = text


def _number(text: str | None, otherwise: Any) -> Any:
    try:
        return float(text) if text is not None else otherwise
    except ValueError:
        return otherwise
