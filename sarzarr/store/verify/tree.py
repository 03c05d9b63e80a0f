"""The documents of a store, each held against its seal and its copy in the root, and the files that they tell of."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError, InvalidInputError
from sarzarr.store.copies import OF_SCENES, holders
from sarzarr.store.documents import chunk_keys, file_bytes, json_bytes, read_small_array
from sarzarr.store.limits import check_array
from sarzarr.store.place import Place
from sarzarr.store.seals import Document, unsealed
from sarzarr.store.tables import COLUMNS, EMPTY
from sarzarr.store.verify.findings import ROOT, Findings, derived, with_folders

UNLISTED: Final = "nothing lists it"
TAKE_AWAY: Final = "Look at it, and take it away: no reader reads it."
_CHANGED: Final = "it is damaged, stands in the place of another, or was changed by hand"
DEEPEST: Final = 12
"""Folders within one another that are looked into; a store has at most six."""


@dataclass(frozen=True, eq=False)
class Tree:
    """All that is in a store, by name."""

    place: Place
    """The store."""
    files: frozenset[str]
    """Keys of its files, but for hidden ones."""
    documents: dict[str, Document] = field(default_factory=dict)
    """Documents by node, without their seals: those that are damaged from their copies; "" is the root."""
    copies: dict[str, Document] = field(default_factory=dict)
    """Intact copies of documents, by node, with their seals."""
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Copies of documents as they are, by the file that holds them and their node."""
    seals: dict[str, Any] = field(default_factory=dict)
    """Seals of documents that are there and intact, by node."""
    lost: set[str] = field(default_factory=set)
    """Keys of files that must be there, and are not."""

    @cached_property
    def _folders(self) -> frozenset[str]:
        return frozenset(folder for file in self.files for folder in with_folders(file))

    @cached_property
    def chunks(self) -> dict[str, set[str]]:
        """Keys of the files of chunks, by the node that they are of."""
        out: dict[str, set[str]] = {}
        for file in self.files:
            node, is_chunk, _ = file.rpartition("/c/")
            if is_chunk:
                out.setdefault(node.partition("/c/")[0], set()).add(file)
        return out

    @cached_property
    def small(self) -> dict[str, tuple[str, ...]]:
        """Keys of the chunks of each array that no manifest lists and that has values, by node."""
        out = dict[str, tuple[str, ...]]()
        for node, document in self.documents.items():
            is_small = document.get("node_type") == "array" and cv.CHUNK_CRC in document["attributes"]
            if is_small and 0 not in document["shape"]:
                out[node] = ()  # of one that says what cannot be, reading tells
                with suppress(InvalidInputError):
                    check_array(document, is_column=True)
                    out[node] = tuple(chunk_keys(node, document))
        return out

    def has(self, key: str) -> bool:
        """Return whether there is a file at or below a key."""
        return key in self._folders

    def is_array(self, node: str) -> bool:
        """Return whether a node is an array of pixels, whose files a manifest lists."""
        document = self.documents.get(node, {})
        is_array = document.get("node_type") == "array" and bool(document.get("shape"))
        return is_array and cv.CHUNK_CRC not in document["attributes"]

    @property
    def arrays(self) -> list[str]:
        """The arrays of pixels, sorted."""
        return sorted(filter(self.is_array, self.documents))

    @property
    def tables(self) -> list[str]:
        """The tables, sorted."""
        return sorted(node for node, doc in self.documents.items() if COLUMNS in doc["attributes"])

    def attributes(self, node: str) -> Mapping[str, Any]:
        """Return the attributes of a node; none where its document is lost."""
        found: Mapping[str, Any] = self.documents.get(node, {}).get("attributes", {})
        return found


def read_tree(place: Place, found: Findings) -> Tree:
    """Read the documents of a store; add what is wrong with them, and with the copies of them in the root."""
    files = frozenset(_files_below(place, "", found))
    tree = Tree(place, files)
    _read_root(tree, found)
    _read_copies(tree, found)
    for copies in tree.told.values():
        for node, copy in copies.items():
            is_safe = all(part and not part.startswith(".") for part in node.split("/")) and "\\" not in node
            if is_safe and _is_as_sealed(copy, node):
                tree.copies.setdefault(node, copy)
    on_disk = {key.removesuffix("/zarr.json") for key in files if key.endswith("/zarr.json")}
    foreign = list[str]()
    for node in sorted(on_disk | tree.copies.keys()):
        if any(node.startswith(f"{other}/") for other in foreign):
            continue
        if not _read_node(tree, node, found):
            foreign.append(node)
    _expect(tree, found)
    _check_copies(tree, found)
    _find_unlisted(tree, foreign, found)
    return tree


def _files_below(place: Place, group: str, found: Findings) -> Iterator[str]:
    """Yield the keys of the files below a group. What is hidden no reader sees: what killed runs left is told."""
    for name in place.children(group):
        key = f"{group}/{name}".strip("/")
        if name.startswith("."):
            if key.endswith(".partial"):
                what = "a run that was killed left it"
                found.add(key, what, f"Remove it: `sarzarr clean {found.store}`.")
        elif name.endswith("/"):
            if key.count("/") < DEEPEST:  # a link may lead back
                yield from _files_below(place, key, found)
        else:
            yield key


def _read_root(tree: Tree, found: Findings) -> None:
    """Take up the root's document, and the copies of others that one of an older sarzarr holds."""
    try:
        raw = file_bytes(tree.place, ROOT)
        document = json.loads(raw)
        if inline := document.get(cv.CONSOLIDATED):
            tree.told[ROOT] = _copies_in(inline.get("metadata"))
    except FileNotFoundError:
        found.add(ROOT, "it is absent")
        return
    except (CorruptStoreError, ValueError, AttributeError, RecursionError) as error:
        found.add(ROOT, f"it is no document ({error})")
        return
    content = _sealed_content(document, ROOT)
    if content is None:
        found.add(ROOT, _CHANGED)
    else:
        tree.documents[""] = content
        content.pop(cv.CONSOLIDATED, None)
        _check_spelling(raw, document, ROOT, found)


def _copies_in(metadata: Any) -> dict[str, Any]:
    held = metadata.items() if isinstance(metadata, dict) else ()
    return {str(node): copy for node, copy in held if isinstance(copy, dict)}


def _read_copies(tree: Tree, found: Findings) -> None:
    """Take up the copies that files hold; those of an older sarzarr hold none."""
    for key in sorted(tree.files):
        top, *rest = key.split("/")
        is_whole = _is_of_copies(key)
        if not is_whole and not (top in OF_SCENES and len(rest) == 2 and rest[1] == ROOT):
            continue
        try:
            raw = file_bytes(tree.place, key)
            document = json.loads(raw)
            if is_whole:
                tree.told[key] = _copies_in(document)
                if json_bytes(document) != raw:
                    found.add(key, "a byte of it is another one, which means the same", derived(found.store))
            elif inline := document.get(cv.CONSOLIDATED):
                below = _copies_in(inline.get("metadata"))
                tree.told[key] = {f"{key.removesuffix(ROOT)}{name}": copy for name, copy in below.items()}
        except (CorruptStoreError, ValueError, AttributeError, RecursionError) as error:
            if is_whole:
                found.add(key, f"it is no document ({error})", derived(found.store))


def _is_of_copies(key: str) -> bool:
    return key.startswith(f"{cv.DOCUMENTS}/") and key.endswith(".json") and key != f"{cv.DOCUMENTS}/{ROOT}"


def _sealed_content(document: Any, key: str) -> Document | None:
    """Return a document without its seal; None where that does not fit."""
    try:
        return unsealed(document, key, key)[0]
    except (CorruptStoreError, AttributeError, TypeError, KeyError, ValueError):
        return None


def _seal_of(document: Any) -> Any:
    attributes = document.get("attributes") if isinstance(document, dict) else None
    return attributes.get(cv.SEAL) if isinstance(attributes, dict) else None


_KEYS = frozenset(
    "zarr_format node_type shape data_type chunk_grid chunk_key_encoding fill_value codecs attributes "
    f"dimension_names storage_transformers {cv.CONSOLIDATED}".split()
)
"""The keys of a document of Zarr v3; those that are empty no seal covers."""
_SPELT = re.compile(rb"[0-9]E|\\u[0-9a-f]{0,3}[A-F]")
"""Numbers and letters as JSON may spell them, and Python does not."""


def _check_spelling(raw: bytes, document: Document, key: str, found: Findings) -> None:
    """Tell a byte that is another and means the same: other programs that write a document change its length."""
    if _KEYS.issuperset(document) and not _SPELT.search(raw):
        return
    written = json.dumps(document, indent=1).encode()
    if not _KEYS.issuperset(document) or (len(raw) == len(written) and raw != written):
        found.add(key, "a byte of it is another one, which means the same")


def _read_node(tree: Tree, node: str, found: Findings) -> bool:
    """Take up a document, or its copy where it is damaged; return whether it is a node of sarzarr's."""
    key = f"{node}/{ROOT}"
    raw, document, content = b"", None, None
    if key in tree.files:
        try:
            raw = file_bytes(tree.place, key)
            document = json.loads(raw)
            content = _sealed_content(document, key)
        except (CorruptStoreError, ValueError, RecursionError):
            pass
    intact, copies = tree.copies.get(node), [held[node] for held in tree.told.values() if node in held]
    is_anothers = document is not None and {_seal_of(document), *map(_seal_of, copies)} == {None}
    if is_anothers and intact is None and all(copy == document for copy in copies):
        return False
    if content is not None:
        content.pop(cv.CONSOLIDATED, None)
        tree.documents[node], tree.seals[node] = content, _seal_of(document)
        _check_spelling(raw, document or {}, key, found)
        return True
    if intact is not None:
        tree.documents[node] = _sealed_content(intact, key) or {}
    if key in tree.files:
        found.add(key, _CHANGED if document is not None else "it is no document")
    else:
        tree.lost.add(key)
    return True


def _check_copies(tree: Tree, found: Findings) -> None:
    """Hold the copies of documents against these."""
    for node, seal in tree.seals.items():
        for holder in (ROOT,) if ROOT in tree.told else holders(node):
            if found.covers(holder) or (holder.endswith(ROOT) and holder in tree.lost):
                continue
            copy, remedy = tree.told.get(holder, {}).get(node), derived(found.store)
            if holder not in tree.files:
                add_absent(tree, holder, found)
            elif copy is None:
                found.add(holder, f"it holds no copy of {node}/{ROOT}", remedy)
            elif not _is_as_sealed(copy, node) or _seal_of(copy) != seal:
                found.add(holder, f"its copy of {node}/{ROOT} is another document", remedy)


def _is_as_sealed(copy: Document, node: str) -> bool:
    """Return whether a copy is of its seal, and has no other keys: what is empty no seal covers."""
    return _KEYS.issuperset(copy) and _sealed_content(copy, f"{node}/{ROOT}") is not None


def _expect(tree: Tree, found: Findings) -> None:
    """Add the findings of files that documents tell of, and that are not there: of a whole folder one."""
    needed = [cv.SCENES, cv.HISTOGRAMS, cv.PATCHES, cv.CATALOG]
    if ROOT not in tree.told:
        cuts = tree.attributes(cv.PATCHES).get(cv.CUTS, {})
        needed += [cv.DOCUMENTS, *(f"{cv.PATCHES}/{name}" for name in cuts)]
    for table in tree.tables:
        attributes = tree.attributes(table)
        empty = {words.split()[0] for words in attributes.get(EMPTY, ())}
        needed += [f"{table}/{name}" for name in attributes[COLUMNS] if name not in empty]
    for node in tree.documents:
        if node.startswith(f"{cv.SCENES}/") and node.count("/") == 1:
            needed += [f"{node}/{layer}" for layer in tree.attributes(node).get(cv.LAYERS, ())]
        if node.startswith(f"{cv.OVERVIEWS}/") and node.count("/") == 1:
            about = tree.attributes(node)
            for level in about[cv.MULTISCALES]["layout"]:
                group = f"{node}/{level['asset']}"
                needed += [group, *(f"{group}/{name}" for name in about[cv.MADE_OF]["arrays"])]
    tree.lost.update(f"{node}/{ROOT}" for node in needed if node not in tree.documents)
    manifests = {f"{array}/{cv.MANIFEST}" for array in tree.arrays}
    tree.lost.update(manifests - tree.files)
    tree.lost.update(key for keys in tree.small.values() for key in keys if key not in tree.files)
    for key in sorted(tree.lost):
        add_absent(tree, key, found)


def add_absent(tree: Tree, key: str, found: Findings) -> None:
    """Add the finding of a file that is not there, or of the uppermost folder that is not."""
    parts = key.split("/")
    for depth in range(1, len(parts)):
        folder = "/".join(parts[:depth])
        if not tree.has(folder):
            found.add(folder, "the folder is absent")
            return
    found.add(key, "it is absent")


def check_small_arrays(tree: Tree, found: Findings) -> None:
    """Read columns and coordinates and histograms; add those that are damaged."""
    for node, keys in sorted(tree.small.items()):
        if found.touches(f"{node}/{ROOT}") or not tree.files.issuperset(keys):
            continue
        try:
            read_small_array(tree.place, node)
        except CorruptStoreError as error:
            damaged = [key for key in keys if len(keys) == 1 or f"/{key}." in str(error)]
            found.add(damaged[0] if damaged else f"{node}/c", _first_sentence(error))


def _first_sentence(error: Exception) -> str:
    return str(error).partition(" at /")[0].partition(". ")[0].rstrip(".")


def _find_unlisted(tree: Tree, foreign: list[str], found: Findings) -> None:
    """Add the files that no document tells of, but for shards: manifests tell of those."""
    for key in sorted(tree.files):
        folder, _, name = key.rpartition("/")
        node, _, _ = key.rpartition("/c/")
        if any(key.startswith(f"{other}/") for other in foreign):
            continue
        is_document = name == ROOT and (folder == "" or folder in tree.documents or key in found.by_file)
        is_manifest = name == cv.MANIFEST and (tree.is_array(folder) or folder not in tree.documents)
        is_chunk = key in tree.small.get(node, ())
        is_shard = tree.is_array(node) or (node not in tree.documents and node != key and "/c/" in key)
        if not (is_document or is_manifest or is_chunk or is_shard or _is_of_copies(key)):
            found.add(key, UNLISTED, TAKE_AWAY)
