"""Collections of chips leaving a store."""

from pathlib import Path

from sarzarr import conventions as cv
from sarzarr.errors import NotInStoreError
from sarzarr.store.collections import collection_names, open_collection
from sarzarr.store.commit import changing
from sarzarr.store.documents import read_node, update_node
from sarzarr.store.store import Store, open_store
from sarzarr.text import listed


def remove_collection(store: Store | str | Path, name: str) -> Store:
    """Take a collection of chips, with its histograms (131,069 int64 each), splits and labels, out of a store.

    Groups that nothing else in the store has lose their clips with it.

    Raises `NotInStoreError` where there is no collection of that name.
    """
    opened = open_store(store)
    with changing(opened) as draft:
        known = collection_names(draft)
        if name not in known:
            raise NotInStoreError(
                f"a collection among {listed(known) or 'none'} was expected, got {name!r}. Nothing was removed; "
                "`sarzarr info STORE` lists them."
            )
        for group in (cv.COLLECTIONS, f"{cv.SPLITS}/{cv.COLLECTIONS}", cv.CHIP_LABELS):
            draft.place.delete(f"{group}/{name}")
        used = {*map(str, draft.catalog["bounds_key"].values.tolist())}
        for other in collection_names(draft):
            used |= {array.bounds_key for array in open_collection(draft, other).contents.arrays}
        bounds = read_node(draft.place, "")["attributes"][cv.BOUNDS]
        kept = {key: entry for key, entry in bounds.items() if key in used}
        ranges = {(entry[cv.VMIN], entry[cv.VMAX]) for entry in kept.values()}
        whole = dict(zip((cv.VMIN, cv.VMAX), ranges.pop(), strict=True)) if len(ranges) == 1 else {}
        update_node(draft.place, "", {cv.BOUNDS: kept, **whole}, without=(cv.VMIN, cv.VMAX))
    return opened.anew()
