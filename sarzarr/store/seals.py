"""Seals: the checksum of a JSON document, bound to its key in the store.

A seal of a Zarr document is one attribute: a CRC-32C and the names of the attributes that it covers, apart by
spaces. It covers those, all else of the document but consolidated metadata, and the document's key: one that is
changed, or stands in another's place, is seen. Attributes that it does not name are free: they are the user's.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from crc32c import crc32c

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError

Document = dict[str, Any]


def crc_of(content: Any, key: str) -> int:
    """Return the CRC-32C of JSON content and of the key that it belongs to: spelling and order do not matter.

    Raises `ValueError` where a number in it is NaN or infinite, which JSON does not have.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return int(crc32c(f"{key}\0{text}".encode()))


def sealed(document: Mapping[str, Any], key: str, free: Collection[str] = ()) -> Document:
    """Return a Zarr document with its seal, which covers all attributes but those that are ``free``."""
    attributes = {k: v for k, v in document.get("attributes", {}).items() if k != cv.SEAL}
    covered = sorted(attributes.keys() - set(free))
    crc = crc_of(_content({**document, "attributes": attributes}, covered), key)
    return {**document, "attributes": {**attributes, cv.SEAL: " ".join((f"{crc:08x}", *covered))}}


def unsealed(document: Mapping[str, Any], key: str, where: str) -> tuple[Document, frozenset[str]]:
    """Return a document without its seal, which must fit, and the names of the attributes that are free.

    Raises `CorruptStoreError`, which names ``where`` the document is, where it has no seal, or another one.
    """
    attributes = document.get("attributes")
    seal = attributes.get(cv.SEAL) if isinstance(attributes, dict) else None
    crc, *covered = seal.split(" ") if isinstance(seal, str) else ("",)
    if not isinstance(attributes, dict) or not attributes.keys() >= set(covered):
        raise broken(where)
    if crc != f"{crc_of(_content(document, covered), key):08x}":
        raise broken(where)
    own = {k: v for k, v in attributes.items() if k != cv.SEAL}
    return {**document, "attributes": own}, frozenset(own) - set(covered)


def broken(where: str) -> CorruptStoreError:
    """Return the error of a document that is not as it was sealed."""
    return CorruptStoreError(
        f"the document that sarzarr wrote was expected, got another at {where}: it is damaged, stands in another's "
        "place, or was changed by hand. Restore it from a copy, or seal what was changed on purpose with "
        "`sarzarr verify STORE --accept`."
    )


def _content(document: Mapping[str, Any], covered: Collection[str]) -> Document:
    """Return what a seal covers. Other programs leave out what is empty when they write a document anew."""
    kept = {k: v for k, v in document.items() if k not in ("attributes", cv.CONSOLIDATED)}
    kept = {k: v for k, v in kept.items() if v not in (None, [])}
    attributes = document.get("attributes", {})
    return kept | {"attributes": {k: attributes[k] for k in covered}}
