"""Documents and tables that were changed on purpose, sealed anew."""

from collections.abc import Iterator

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError
from sarzarr.store.codecs import CRC_BYTES
from sarzarr.store.copies import consolidate
from sarzarr.store.documents import (
    Document,
    chunk_keys,
    crc_of_crcs,
    has_node,
    named,
    read_json,
    read_sealed,
    read_small_array,
    write_node,
)
from sarzarr.store.place import Place
from sarzarr.store.store import Store
from sarzarr.store.tables import COLUMNS, EMPTY


def accept(place: Place) -> tuple[str, ...]:
    """Seal a store's documents as they are, with the columns of its tables; return the keys of those that differed.

    Attributes that a seal does not name stay free. Where one that it names is gone, all are sealed. Pixels are not
    accepted: a shard that is not as its manifest lists it stays damage.

    Raises `CorruptStoreError` where a document is no JSON, or a column fails its own checksum.
    """
    changed = [node for node in _nodes(place, "") if _accepted(place, node)]
    if changed:
        consolidate(Store(place))
    return tuple(f"{node}/zarr.json".lstrip("/") for node in changed)


def _nodes(place: Place, group: str) -> Iterator[str]:
    """Yield the keys of all groups and arrays, each after those below it; chunks are in ``c``."""
    for name in place.children(group):
        if name.endswith("/") and name != "c/" and not name.startswith("."):
            yield from _nodes(place, f"{group}/{name[:-1]}".lstrip("/"))
    if has_node(place, group):
        yield group


def _accepted(place: Place, node: str) -> bool:
    """Seal a document that is not as it was sealed, or whose columns are others; return whether it was so."""
    document = read_json(place, f"{node}/zarr.json".lstrip("/"))
    with named(place, f"{node}/zarr.json"):
        attributes = document["attributes"]
        if cv.SEAL not in attributes:
            return False  # of another program
        told = attributes | _crcs(place, node, document)
        try:
            read_sealed(place, node)
            if attributes == told:
                return False
        except CorruptStoreError:
            pass
        covered = set(str(attributes[cv.SEAL]).split(" ")[1:])
        free = attributes.keys() - covered if covered <= attributes.keys() else set()
        write_node(place, node, {**document, "attributes": told}, free)
    return True


def _crcs(place: Place, node: str, document: Document) -> Document:
    """Return the attributes with the checksums of a small array's chunks, or of a table's columns, as they are."""
    attributes = document["attributes"]
    if COLUMNS in attributes:
        empty = {text.split()[0] for text in attributes.get(EMPTY, ())}
        crcs = [0 if name in empty else _crc_of(place, f"{node}/{name}") for name in attributes[COLUMNS]]
        return {cv.CHUNK_CRC: crcs}
    if cv.CHUNK_CRC not in attributes:
        return {}
    read_small_array(place.unsealed(), node)  # its chunks are intact
    ends = [place.get(key)[-CRC_BYTES:] for key in chunk_keys(node, document)]
    if cv.CRC_BEFORE_LAST in attributes:
        return {cv.CHUNK_CRC: crc_of_crcs(ends), cv.CRC_BEFORE_LAST: crc_of_crcs(ends[:-1])}
    return {cv.CHUNK_CRC: int.from_bytes(b"".join(ends), "little")}


def _crc_of(place: Place, node: str) -> int:
    """Return the checksum of a column, whose document is sealed as it is."""
    return int(read_json(place, f"{node}/zarr.json")["attributes"][cv.CHUNK_CRC])
