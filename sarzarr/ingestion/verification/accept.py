"""The seal on documents that were changed on purpose."""

import json

from sarzarr import conventions as cv
from sarzarr.ingestion.staging import only_writer
from sarzarr.ingestion.verification.verify import folder_of, verify
from sarzarr.store.commit import consolidate
from sarzarr.store.documents import write_node
from sarzarr.store.place import Folder
from sarzarr.store.seals import Document
from sarzarr.store.store import AnyStore, Store
from sarzarr.store.verify.findings import ROOT, Findings, Verification
from sarzarr.store.verify.tree import CONSOLIDATED, read_tree, seal_of, sealed_content


def accept_changes(store: AnyStore) -> Verification:
    """Seal the documents that were changed by hand, and return what is then wrong; ``mended`` names what was sealed.

    Attributes alone are taken. A document that says another shape, dtype or codec than its copy in the root, or of
    another chunk, is not: pixels are never accepted, nor is a document that has no copy.
    """
    place, left, done = folder_of(store), list[str](), list[str]()
    with only_writer(place.path):
        tree = read_tree(place, Findings(str(place)))
        for key in sorted(file for file in tree.files if file.endswith(ROOT)):
            node = key.removesuffix(ROOT).rstrip("/")
            document = _changed(place, key, node, tree.copies.get(node))
            if document is None:
                continue
            if isinstance(document, str):
                left.append(f"{key}: {document}")
                continue
            document, free = _unsealed_by_hand(document)
            write_node(place, node, document, free)
            done.append(key)
        if done:
            consolidate(Store(place))
    after = verify(place)
    return Verification(**{**vars(after), "mended": tuple(done), "left": tuple(left)})


def _changed(place: Folder, key: str, node: str, copy: Document | None) -> Document | str | None:
    """Return a document whose seal does not fit; why it is not taken; None where it fits, or is not sarzarr's."""
    try:
        document = json.loads(place.get(key))
        attributes = document["attributes"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return "a document with attributes was expected, got none. Repair it with `sarzarr verify --repair`."
    if sealed_content(document, key) is not None or (node and copy is None and seal_of(document) is None):
        return None
    if node == "":
        is_same = document.get("node_type") == "group"
    else:
        is_same = copy is not None and _pixels_told(document) == _pixels_told(copy)
    if not isinstance(attributes, dict) or not is_same:
        return "other attributes alone were expected, got another array. Repair it with `sarzarr verify --repair`."
    return document  # type: ignore[no-any-return]


def _pixels_told(document: Document) -> Document:
    """Return what a document says of bytes: all but its attributes, and of those the checksums of chunks."""
    told = {k: v for k, v in document.items() if k not in ("attributes", CONSOLIDATED) and v not in (None, [])}
    return told | {cv.CHUNK_CRC: document["attributes"].get(cv.CHUNK_CRC)}


def _unsealed_by_hand(document: Document) -> tuple[Document, set[str]]:
    """Return a document without its seal, and the attributes that are free: those that it did not cover."""
    attributes = dict(document["attributes"])
    _, *covered = str(attributes.pop(cv.SEAL, "")).split(" ")
    kept = {k: v for k, v in document.items() if k != CONSOLIDATED}
    return {**kept, "attributes": attributes}, set(attributes) - set(covered)
