"""What the product around a raster says: SNAP's XML inside the TIFF, a SAFE folder around it.

Every file and tag is read up to a fixed size, and XML with a document type is refused: entities
cannot expand, and nothing outside is fetched.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final
from xml.parsers import expat

from sarzarr.acquisition import Acquisition, facts_from_fields

SNAP_TAG: Final = 65000
"""The TIFF tag that SNAP writes its whole product description to."""
MAX_XML: Final = 16 * 2**20
"""Bytes of XML that are read; a covariance product of three dates has 2.3 MB."""
MAX_JSON: Final = 2**20
"""Bytes of JSON that are read."""
_MAX_ENTRIES: Final = 4096
_MAX_ELEMENTS: Final = 300_000


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


@dataclass(frozen=True, kw_only=True)
class Product:
    """What the product of a raster says."""

    folder: str | None = None
    """Name of the product folder, for a file in ``measurement/``."""
    bands: tuple[BandMetadata, ...] = ()
    """Its bands, in the order of the file."""
    facts: Acquisition = field(default_factory=Acquisition)
    """Its acquisition."""


def read_product(path: Path) -> Product:
    """Return what the TIFF's own product tag and the folder around it say; what is malformed says nothing."""
    bands, facts = _snap(path)
    folder = path.parent.parent if path.parent.name.lower() == "measurement" else None
    if folder is not None:
        facts = facts.or_else(_product_info(folder / "productInfo.json"))
        facts = facts.or_else(_annotation(folder / "annotation" / f"{path.stem}.xml"))
    return Product(folder=folder.name if folder else None, bands=bands, facts=facts)


def xml_leaves(data: bytes) -> list[tuple[str, str, str]]:
    """Return (element, its ``name`` attribute or "", text) of every element of a document, in closing order.

    Raises
    ------
    ValueError
        The XML is malformed, has a document type, which is where entities are declared, or more than
        `_MAX_ELEMENTS` elements.
    """
    leaves: list[tuple[str, str, str]] = []
    stack: list[tuple[str, str, list[str]]] = []

    def refuse(*_: Any) -> None:
        raise ValueError("expected XML without a document type, got one.")

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(leaves) + len(stack) >= _MAX_ELEMENTS:
            raise ValueError(f"expected at most {_MAX_ELEMENTS} elements, got more.")
        stack.append((tag, attributes.get("name", ""), []))

    def end(_: str) -> None:
        tag, name, text = stack.pop()
        leaves.append((tag, name, "".join(text).strip()))

    def characters(text: str) -> None:
        stack[-1][2].append(text)

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"expected well-formed XML, got {error}.") from error
    return leaves


# ---------------------------------------------------------------- SNAP


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


def _snap(path: Path) -> tuple[tuple[BandMetadata, ...], Acquisition]:
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


# ---------------------------------------------------------------- SAFE


def _product_info(path: Path) -> Acquisition:
    """Return the facts of the ``productInfo.json`` that mirrors of Sentinel-1 put beside ``measurement/``."""
    try:
        document = json.loads(_read(path, MAX_JSON))
    except (OSError, ValueError, RecursionError):
        return Acquisition()
    if not isinstance(document, dict):
        return Acquisition()
    return facts_from_fields({k: str(v) for k, v in document.items() if isinstance(v, str | int | float)})


def _annotation(path: Path) -> Acquisition:
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
