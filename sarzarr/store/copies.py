"""Copies of documents: one that xarray reads, and one that mends what is lost.

The group of a scene, of its histograms and of its overviews holds consolidated metadata of what is below it, where
xarray looks for it. That of the root is empty, which zarr-python takes for none, and xarray for some: so nothing that
a scene changes grows with the store, and nobody is warned. Written here and not by zarr-python, which warns that
consolidated metadata is not part of the Zarr v3 specification; readers that do not know it ignore it.

A second copy of each document is in the folder of the array ``documents``, where no reader of Zarr looks: of all that
are of a scene in ``scenes/<scene>.json``, of the others in ``rest.json``. Tables that grow have none: they are made
again of what they tell of.

The node above the histograms of scenes is a scalar array, too, and no group: xarray takes a millisecond and more for
each group of a tree, and would make one for each scene's histograms. Who names one opens it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError
from sarzarr.store.documents import (
    Document,
    Encoding,
    array_document,
    has_node,
    json_bytes,
    nodes_below,
    read_json,
    read_node,
    read_sealed,
    write_node,
)
from sarzarr.store.place import Place

OF_SCENES: Final = (cv.SCENES, cv.HISTOGRAMS, cv.OVERVIEWS)
"""Groups with a group for each scene."""
GROWING: Final = (cv.CATALOG, cv.PATCHES, cv.SHARES)
"""Groups of tables that are made again where they are lost."""


class InPlace(Protocol):
    """A store, open, or what else has a place."""

    @property
    def place(self) -> Place:
        """The bytes of it."""


@dataclass(frozen=True)
class _At:
    place: Place


def _scene_of(key: str) -> str:
    """Return the scene that a key is below the group of; empty where it is of none."""
    top, _, rest = key.partition("/")
    name = rest.partition("/")[0]
    return name if top in OF_SCENES and name != "zarr.json" else ""


def copies_key(scene: str = "") -> str:
    """Return the key of the file with the copies of a scene's documents, or of those that are of none."""
    return f"{cv.DOCUMENTS}/{f'{cv.SCENES}/{scene}' if scene else 'rest'}.json"


def holders(node: str) -> tuple[str, ...]:
    """Return the keys of the files that hold a copy of a node's document; none where there is no copy."""
    top, *rest = node.split("/")
    if top in (cv.CATALOG, cv.DOCUMENTS, "") or (top in (cv.PATCHES, cv.SHARES) and rest):
        return ()
    if top not in OF_SCENES or not rest:
        return (copies_key(),)
    own = (f"{top}/{rest[0]}/zarr.json",) if len(rest) > 1 else ()
    return (*own, copies_key(rest[0]))


def gather_changed(place: Place, changed: Iterable[str]) -> None:
    """Gather the documents of what changed, by the keys that did; of a store with all of them in its root, of all."""
    root = read_json(place, "zarr.json")
    if root.get(cv.CONSOLIDATED):
        consolidate(_At(place))
        return
    _put(place, "zarr.json", {**root, cv.CONSOLIDATED: {}})
    _hide_histograms(place)
    keys = sorted(changed)
    for scene in sorted({_scene_of(key) for key in keys} - {""}):
        _gather_scene(place, scene, {})
    if any(map(_tells_of_rest, keys)):
        _gather_rest(place, {})


def _tells_of_rest(key: str) -> bool:
    """Return whether a change at a key changes a document that ``documents`` holds a copy of."""
    top, *rest = key.split("/")
    is_index = top == cv.PATCHES and len(rest) == 1
    return is_index or not (
        top in GROWING or _scene_of(key) or key in ("zarr.json", f"{cv.DOCUMENTS}/zarr.json")
    )


def consolidate(store: InPlace, lost: Mapping[str, Document] | None = None) -> None:
    """Gather the documents of every node; copies of those that are ``lost``, by node, stay."""
    place, known = store.place, lost or {}
    if lost is None or not has_node(place, cv.HISTOGRAMS):
        _hide_histograms(place)
    scenes = {name for group in OF_SCENES for name in nodes_below(place, group)}
    for scene in sorted(scenes):
        _gather_scene(place, scene, known)
    _gather_rest(place, known, keep_cuts=lost is not None)
    _put(place, "zarr.json", {**read_json(place, "zarr.json"), cv.CONSOLIDATED: {}})


def _gather_scene(place: Place, scene: str, lost: Mapping[str, Document]) -> None:
    copies = dict[str, Document]()
    for group in OF_SCENES:
        node = f"{group}/{scene}"
        below = {key: copy for key, copy in lost.items() if key.startswith(f"{node}/")}
        below |= _documents_below(place, node)
        if has_node(place, node):
            copies[node] = _consolidated(place, node, below)
        elif node in lost:
            copies[node] = lost[node]
        copies |= below
    if copies:
        _put(place, copies_key(scene), dict(sorted(copies.items())))
    elif place.head(copies_key(scene)):
        place.delete(copies_key(scene))


def _consolidated(place: Place, node: str, below: Mapping[str, Document]) -> Document:
    """Write a group's document with those below it, if it is another one then; return it without them."""
    metadata = {key.removeprefix(f"{node}/"): copy for key, copy in sorted(below.items())}
    inline = {"kind": "inline", "must_understand": False, "metadata": metadata}
    own = _alone(read_json(place, f"{node}/zarr.json"))
    _put(place, f"{node}/zarr.json", {**own, cv.CONSOLIDATED: inline})
    return own


def _put(place: Place, key: str, document: Mapping[str, Any]) -> None:
    content = json_bytes(document)
    if place.head(key) is None or place.get(key) != content:
        place.put(key, content)


def _gather_rest(place: Place, lost: Mapping[str, Document], *, keep_cuts: bool = False) -> None:
    """Write the copies of documents that are of no scene, and into the group of patch indices how each is cut."""
    if not has_node(place, cv.DOCUMENTS):
        write_node(place, cv.DOCUMENTS, _scalar())
    if has_node(place, cv.PATCHES):
        _tell_cuts(place, keep=keep_cuts)
    copies = {node: copy for node, copy in lost.items() if copies_key() in holders(node)}
    for name in place.children():
        top = name.rstrip("/")
        if name.endswith("/") and not name.startswith(".") and top not in (cv.CATALOG, cv.DOCUMENTS):
            with suppress(FileNotFoundError):
                copies[top] = read_json(place, f"{top}/zarr.json")
            if top not in (*OF_SCENES, *GROWING):
                copies |= _documents_below(place, top)
    _put(
        place, copies_key(), {node: _alone(copy) for node, copy in sorted(copies.items()) if _is_sealed(copy)}
    )


def _scalar(attributes: Mapping[str, Any] | None = None) -> Document:
    """Return the document of an array of one number, of which there is no file."""
    encoding = Encoding(dtype="uint8", chunk=1, shard=0)
    return array_document((), encoding, dims=(), attributes=attributes)


def _hide_histograms(place: Place) -> None:
    """Have the node above the histograms of scenes be an array, below which no reader looks; its attributes stay."""
    about, free = dict[str, Any](), frozenset[str]()
    if has_node(place, cv.HISTOGRAMS):
        try:
            document, free = read_sealed(place, cv.HISTOGRAMS)
        except CorruptStoreError:
            return  # verify tells, and repair mends it
        if document.get("node_type") == "array":
            return
        about = document["attributes"]
    write_node(place, cv.HISTOGRAMS, _scalar(about), free)


def _tell_cuts(place: Place, *, keep: bool) -> None:
    document, free = read_sealed(place, cv.PATCHES)
    names = nodes_below(place, cv.PATCHES)
    about = {name: read_node(place, f"{cv.PATCHES}/{name}")["attributes"] for name in names}
    cuts = {
        name: {k: told[k] for k in ("size", "stride", "edge") if k in told} for name, told in about.items()
    }
    known = document["attributes"].get(cv.CUTS, {})
    cuts = known | cuts if keep else cuts
    if known != cuts:
        attributes = {**document["attributes"], cv.CUTS: cuts}
        write_node(place, cv.PATCHES, {**document, "attributes": attributes}, free)


def _is_sealed(document: Document) -> bool:
    return cv.SEAL in document.get("attributes", {})


def _alone(document: Document) -> Document:
    return {key: value for key, value in document.items() if key != cv.CONSOLIDATED}


def _documents_below(place: Place, group: str) -> Iterator[tuple[str, Document]]:
    """Yield the nodes below a group and their documents; what is half made is hidden, and chunks are in ``c``."""
    for name in place.children(group):
        if name.endswith("/") and name != "c/" and not name.startswith("."):
            node = f"{group}/{name[:-1]}".lstrip("/")
            with suppress(FileNotFoundError):  # taken out or replaced meanwhile: whoever does it gathers anew
                yield node, read_json(place, f"{node}/zarr.json")
            yield from _documents_below(place, node)
