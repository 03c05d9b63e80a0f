"""The verification of a whole store: documents, pixels and tables, and on demand what is counted from pixels."""

import shlex
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from sarzarr import conventions as cv
from sarzarr.errors import (
    CorruptStoreError,
    InvalidInputError,
    NotInStoreError,
    StoreChangedError,
    StoreNotFoundError,
)
from sarzarr.ingestion.verification.recount import check_indices, recount_histograms
from sarzarr.store.copies import consolidate
from sarzarr.store.place import Folder, Place
from sarzarr.store.seals import Document
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.store.verify.chip_boxes import check_chip_boxes
from sarzarr.store.verify.collections import check_collections
from sarzarr.store.verify.findings import ROOT, Findings, Verification
from sarzarr.store.verify.overviews import check_overviews
from sarzarr.store.verify.pixels import check_pixels, read_manifests
from sarzarr.store.verify.tables import check_tables
from sarzarr.store.verify.tree import Tree, check_small_arrays, read_tree
from sarzarr.tasks import Progress


def verify(
    store: AnyStore,
    *,
    scenes: Collection[str] | None = None,
    deep: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Verification:
    """Return the findings on a store: every file is looked at, every byte of pixels is read, nothing is changed.

    Each shard must be there, of the right size, each chunk match its checksum and be the one that belongs there, each
    index say what its manifest does, each document and table be as it was sealed and agree with the others, and
    nothing be there that no document lists.

    Parameters
    ----------
    store
        The store; damage does not keep it from being looked at.
    scenes
        The scenes whose pixels are read; all, and samples, if left out. All else of the store is looked at anyway.
    deep
        Whether histograms, the columns of patch tables, and overviews are made again from the pixels.
    progress
        Called with the bytes of files that are done.

    Raises `StoreNotFoundError` where there is no store; `StoreSchemaError` where it is of another schema;
    `NotInStoreError` where it has no such scene; `StoreChangedError` where it was written to meanwhile.
    """
    place, scenes = place_of(store), [scenes] if isinstance(scenes, str) else scenes
    before = _stamps(place)
    found = Findings(shlex.quote(str(place)))
    tree, size = examine(place, found, scenes=scenes, deep=deep, progress=progress)
    if found.by_file and _stamps(place) != before:
        raise StoreChangedError(
            f"a store that nobody writes to was expected, got {place.name!r}, which was changed while it was looked "
            "at. Run this again."
        )
    ordered = tuple(sorted(found.by_file.values()))
    return Verification(store=str(place), findings=ordered, files=len(tree.files), size=size, is_deep=deep)


def examine(
    place: Place,
    found: Findings,
    *,
    scenes: Collection[str] | None = None,
    deep: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Tree, int]:
    """Look at a store as `verify`, add what is found, and return what is in it, and the bytes of pixels read."""
    tree = read_tree(place, found)
    known = {node.split("/")[1] for node in tree.documents if node.startswith(f"{cv.SCENES}/")}
    if unknown := sorted(set(scenes or ()) - known):
        raise NotInStoreError(
            f"scenes of {place.name} were expected, got {', '.join(unknown)}. `sarzarr info STORE` lists them; files "
            "that it was made of are given with --from."
        )
    check_small_arrays(tree, found)
    arrays = read_manifests(tree, found)
    size = check_pixels(place, arrays, found, scenes=scenes, progress=progress)
    if check_tables(tree, found) and "" in tree.documents:
        check_indices(Store(place), found, deep=deep)
        if deep:
            recount_histograms(Store(place), found, scenes)
        check_overviews(tree, found, deep=deep, scenes=scenes)
    if scenes is None and not found.touches(cv.COLLECTIONS):
        check_collections(tree, found)
        check_chip_boxes(tree, found)
    return tree, size


def place_of(store: AnyStore) -> Place:
    """Return the place of a store, were it damaged: errors of its root's document are for others to tell."""
    if isinstance(store, Store):
        return store.place
    place = Folder(Path(store)) if isinstance(store, str | Path) else store
    try:
        return open_store(place).place
    except StoreNotFoundError:
        if place.head(ROOT) is not None or not {f"{cv.SCENES}/", f"{cv.CATALOG}/"} & {*place.children()}:
            raise
    except CorruptStoreError:
        pass
    return place


def folder_of(store: AnyStore) -> Folder:
    """Return the place of a store that is to be changed, which must be a folder."""
    place = place_of(store)
    if not isinstance(place, Folder):
        raise InvalidInputError(
            f"a store in a folder was expected, got one in {place}. Copy it into a folder first."
        )
    return place


def _stamps(place: Place) -> tuple[object, ...]:
    return place.head(ROOT), place.head(f"{cv.CATALOG}/{ROOT}")


def gather_documents(place: Folder, copies: Mapping[str, Document]) -> None:
    """Gather the documents of every node, and keep the copies of those that are lost."""
    lost = {node: copy for node, copy in copies.items() if place.head(f"{node}/{ROOT}") is None}
    consolidate(Store(place), lost)
