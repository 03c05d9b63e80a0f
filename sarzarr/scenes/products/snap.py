"""SNAP: the product description that it embeds in a GeoTIFF."""

import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final
from xml.etree.ElementTree import Element

from sarzarr.scenes.acquisition import facts_from_fields
from sarzarr.scenes.products.family import BandMetadata, Family, Product
from sarzarr.scenes.products.xml import MAX_XML, parse_xml, texts_of
from sarzarr.zips import CORRUPT, open_file
from sarzarr.zips.zarrs import zarr_chip_at

SNAP_TAG: Final = 65000
"""The TIFF tag that SNAP writes its whole product description to."""
_MAX_ENTRIES: Final = 4096
_MAX_BANDS: Final = 1000
"""Bands that are looked at; a file of more than 64 is refused."""


def read_tag(path: Path, number: int) -> bytes | None:
    """Return the bytes of an ASCII or byte tag of a TIFF's first directory, without trailing NULs.

    None where the file has no such tag, is no TIFF, or where the tag is longer than `MAX_XML`.
    Both byte orders, classic TIFF and BigTIFF. rasterio exposes only the tags that GDAL knows.
    """
    if zarr_chip_at(path) is not None:  # it is no file, and has no tags of SNAP
        return None
    with open_file(path) as file:
        try:
            return next(_values(file, number), None)
        # an offset may be any 64-bit number
        except (*CORRUPT, struct.error, OSError, ValueError, OverflowError):
            return None


def _values(file: BinaryIO, wanted: int) -> Iterator[bytes]:
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
    for start in range(0, len(directory) - entry + 1, entry):
        tag, kind, count = struct.unpack_from(f"{order}HH{word}", directory, start)
        if tag != wanted or kind not in (1, 2, 7) or count > MAX_XML:
            continue
        value = directory[start + entry - inline : start + entry]
        if count > inline:
            file.seek(struct.unpack(f"{order}{word}", value)[0])
            value = file.read(count)
        yield value[:count].rstrip(b"\0")


def read_snap(path: Path) -> Product:
    """Return the bands and facts of a SNAP export; nothing for any other TIFF."""
    try:
        root = parse_xml(read_tag(path, SNAP_TAG) or b"")
    except ValueError:
        return Product()
    fields: dict[str, str] = {}
    for element in root.iter("MDATTR"):  # the first is the product's own; later ones are its sources'
        fields.setdefault(element.get("name", ""), (element.text or "").strip())
    bands = tuple(_band(element) for element in islice(root.iter("Spectral_Band_Info"), _MAX_BANDS))
    return Product(bands=bands, facts=facts_from_fields(fields))


def _band(element: Element) -> BandMetadata:
    texts = texts_of(element)
    has_nodata = texts.get("NO_DATA_VALUE_USED") == "true"
    return BandMetadata(
        name=texts.get("BAND_NAME", ""),
        unit=texts.get("PHYSICAL_UNIT", ""),
        scale=_number(texts.get("SCALING_FACTOR"), 1.0),
        offset=_number(texts.get("SCALING_OFFSET"), 0.0),
        is_log=texts.get("LOG10_SCALED") == "true",
        nodata=_number(texts.get("NO_DATA_VALUE"), None) if has_nodata else None,
    )


def _number(text: str | None, otherwise: Any) -> Any:
    try:
        return float(text) if text is not None else otherwise
    except ValueError:
        return otherwise


FAMILY: Final = Family(name="SNAP", read=read_snap)
