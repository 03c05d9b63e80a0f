"""XML from strangers, read with limits and without entities."""

from typing import Any, Final
from xml.parsers import expat

MAX_XML: Final = 16 * 2**20
"""Bytes of XML that are read; a covariance product of three dates has 2.3 MB."""
_MAX_ELEMENTS: Final = 300_000


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
