"""XML from strangers, read with limits and without entities."""

from typing import Any, Final
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

MAX_XML: Final = 16 * 2**20
"""Bytes of XML that are read; a covariance product of three dates has 2.3 MB."""
_MAX_ELEMENTS: Final = 300_000
_MAX_DEPTH: Final = 100
"""Elements within one another; annotation of Sentinel-1 has 8."""


def parse_xml(data: bytes) -> Element:
    """Return the root of a document, prefixes of names kept as they are written.

    Raises `ValueError` where the XML is malformed, in an unknown encoding, of more than `MAX_XML` bytes or
    `_MAX_ELEMENTS` elements or `_MAX_DEPTH` levels, or has a document type, which is where entities are declared.
    """
    if len(data) > MAX_XML:
        raise ValueError(f"expected XML of at most {MAX_XML} bytes, got {len(data)}")
    builder = TreeBuilder()
    count = depth = 0

    def refuse(*_: Any) -> None:
        raise ValueError("expected XML without a document type, got one")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal count, depth
        count, depth = count + 1, depth + 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"expected XML of at most {_MAX_DEPTH} levels, got more")
        if count > _MAX_ELEMENTS:
            raise ValueError(f"expected XML of at most {_MAX_ELEMENTS} elements, got more")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError) as error:  # LookupError: an encoding that is unknown
        raise ValueError(f"expected well-formed XML, got {error}") from error
    return builder.close()


def texts_of(root: Element) -> dict[str, str]:
    """Return the stripped text of the first element of each name, without those that hold elements alone."""
    texts: dict[str, str] = {}
    for element in root.iter():
        if text := (element.text or "").strip():
            texts.setdefault(element.tag, text)
    return texts
