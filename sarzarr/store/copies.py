"""Copies of documents: one that xarray reads, and one that mends what is lost.

The group of a scene, of its histograms and of its overviews holds consolidated metadata of what is below it, where
xarray looks for it. That of the root is empty, which zarr-python takes for none, and xarray for some: so nothing that
a scene changes grows with the store, and nobody is warned. Written here and not by zarr-python, which warns that
consolidated metadata is not part of the Zarr v3 specification; readers that do not know it ignore it.

The histograms' group also holds a copy of each document of its scene and of its overviews, and the group
``documents`` one of each that is of no scene. Tables that grow have none: they are made again of what they tell of.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from sarzarr import conventions as cv
from sarzarr.store.documents import (
    Document,
    group_document,
    has_node,
    json_bytes,
    key_in_store,
    nodes_below,
    read_json,
    read_node,
    read_sealed,
    write_node,
)
from sarzarr.store.place import Place
from sarzarr.store.seals import sealed
from sarzarr.store.store import Store

OF_SCENES: Final = (cv.SCENES, cv.HISTOGRAMS, cv.OVERVIEWS)
"""Groups with a group for each scene."""
GROWING: Final = (cv.CATALOG, cv.PATCHES, cv.SHARES)
"""Groups of tables that are made again where they are lost."""


def scene_of(key: str) -> str:
    """Return the scene that a key is below the group of; empty where it is of none."""
    top, _, rest = key.partition("/")
    name = rest.partition("/")[0]
    return name if top in OF_SCENES and name != "zarr.json" else ""


def holders(node: str) -> tuple[str, ...]:
    """Return the groups whose documents hold a copy of a node's; none where there is no copy."""
    top, *rest = node.split("/")
    if top in (cv.CATALOG, cv.DOCUMENTS, "") or (top in GROWING and rest):
        return ()
    if top not in OF_SCENES or not rest:
        return (cv.DOCUMENTS,)
    own = (f"{top}/{rest[0]}",) if len(rest) > 1 else ()
    return own if top == cv.HISTOGRAMS else (*own, f"{cv.HISTOGRAMS}/{rest[0]}")


def gather(place: Place, changed: Iterable[str]) -> None:
    """Gather the documents of what changed, by the keys that did; of a store with all of them in its root, of all."""
    root = read_json(place, "zarr.json")
    if root.get(cv.CONSOLIDATED):
        consolidate(Store(place))
        return
    _put(place, "", {**root, cv.CONSOLIDATED: {}})
    keys = sorted(changed)
    for scene in sorted({scene_of(key) for key in keys} - {""}):
        _gather_scene(place, scene, {})
    if any(map(_tells_of_rest, keys)):
        _gather_rest(place, {})


def _tells_of_rest(key: str) -> bool:
    """Return whether a change at a key changes a document that ``documents`` holds a copy of."""
    top, *rest = key.split("/")
    is_index = top == cv.PATCHES and len(rest) == 1
    return is_index or not (
        top in GROWING or scene_of(key) or key in ("zarr.json", f"{cv.DOCUMENTS}/zarr.json")
    )


def consolidate(store: Store, lost: Mapping[str, Document] | None = None) -> None:
    """Gather the documents of every node; copies of those that are ``lost``, by node, stay."""
    place, known = store.place, lost or {}
    scenes = {name for group in OF_SCENES for name in nodes_below(place, group)}
    for scene in sorted(scenes):
        _gather_scene(place, scene, known)
    _gather_rest(place, known)
    _put(place, "", {**read_json(place, "zarr.json"), cv.CONSOLIDATED: {}})


def _gather_scene(place: Place, scene: str, lost: Mapping[str, Document]) -> None:
    copies = dict[str, Document]()
    for group in (cv.SCENES, cv.OVERVIEWS):
        node = f"{group}/{scene}"
        below = _with_lost(dict(_documents_below(place, node)), node, lost)
        if has_node(place, node):
            below[node] = _consolidated(place, node, read_json(place, f"{node}/zarr.json"), below)
        elif node in lost:
            below[node] = lost[node]
        copies |= below
    node = f"{cv.HISTOGRAMS}/{scene}"
    if has_node(place, node):
        document, free = read_sealed(place, node)
        attributes = {**document["attributes"], cv.COPIES: dict(sorted(copies.items()))}
        below = _with_lost(dict(_documents_below(place, node)), node, lost)
        whole = sealed({**document, "attributes": attributes}, key_in_store(place, f"{node}/zarr.json"), free)
        _consolidated(place, node, whole, below)


def _with_lost(below: dict[str, Document], node: str, lost: Mapping[str, Document]) -> dict[str, Document]:
    return {key: copy for key, copy in lost.items() if key.startswith(f"{node}/")} | below


def _consolidated(place: Place, node: str, document: Document, below: Mapping[str, Document]) -> Document:
    """Write a group's document with those below it, if it is another one then; return it without them."""
    metadata = {key.removeprefix(f"{node}/"): copy for key, copy in sorted(below.items())}
    inline = {"kind": "inline", "must_understand": False, "metadata": metadata}
    own = {key: value for key, value in document.items() if key != cv.CONSOLIDATED}
    _put(place, node, {**own, cv.CONSOLIDATED: inline})
    return own


def _put(place: Place, node: str, document: Mapping[str, Any]) -> None:
    key, content = f"{node}/zarr.json".lstrip("/"), json_bytes(document)
    if place.get(key) != content:
        place.put(key, content)


def _gather_rest(place: Place, lost: Mapping[str, Document]) -> None:
    """Write the group ``documents``, and into the group of patch indices how each is cut."""
    if has_node(place, cv.PATCHES):
        _tell_cuts(place)
    copies = {node: copy for node, copy in lost.items() if cv.DOCUMENTS in holders(node)}
    for name in place.children():
        top = name.rstrip("/")
        if name.endswith("/") and not name.startswith(".") and top not in (cv.CATALOG, cv.DOCUMENTS):
            with suppress(FileNotFoundError):
                copies[top] = read_json(place, f"{top}/zarr.json")
            if top not in (*OF_SCENES, *GROWING):
                copies |= _documents_below(place, top)
    whole = {node: _without_others(copy) for node, copy in sorted(copies.items()) if _is_sealed(copy)}
    if (
        not has_node(place, cv.DOCUMENTS)
        or read_node(place, cv.DOCUMENTS)["attributes"].get(cv.COPIES) != whole
    ):
        write_node(place, cv.DOCUMENTS, group_document({cv.COPIES: whole}))


def _tell_cuts(place: Place) -> None:
    document, free = read_sealed(place, cv.PATCHES)
    names = nodes_below(place, cv.PATCHES)
    about = {name: read_node(place, f"{cv.PATCHES}/{name}")["attributes"] for name in names}
    cuts = {
        name: {k: told[k] for k in ("size", "stride", "edge") if k in told} for name, told in about.items()
    }
    if document["attributes"].get(cv.CUTS, {}) != cuts:
        attributes = {**document["attributes"], cv.CUTS: cuts}
        write_node(place, cv.PATCHES, {**document, "attributes": attributes}, free)


def _is_sealed(document: Document) -> bool:
    return cv.SEAL in document.get("attributes", {})


def _without_others(document: Document) -> Document:
    return {key: value for key, value in document.items() if key != cv.CONSOLIDATED}


def _documents_below(place: Place, group: str) -> Iterator[tuple[str, Document]]:
    """Yield the nodes below a group and their documents; what is half made is hidden, and chunks are in ``c``."""
    for name in place.children(group):
        if name.endswith("/") and name != "c/" and not name.startswith("."):
            node = f"{group}/{name[:-1]}".lstrip("/")
            with suppress(FileNotFoundError):  # taken out or replaced meanwhile: whoever does it gathers anew
                yield node, read_json(place, f"{node}/zarr.json")
            yield from _documents_below(place, node)
