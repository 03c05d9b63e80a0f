"""Overviews held against the scenes that they were made of."""

from collections.abc import Collection
from pathlib import Path

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError
from sarzarr.store.overviews.average import count_differing
from sarzarr.store.overviews.levels import level_pixels, levels_key, told_levels
from sarzarr.store.overviews.make import arrays_of, first_jobs
from sarzarr.store.store import Store
from sarzarr.store.verify.findings import Findings, derived
from sarzarr.store.verify.tree import Tree
from sarzarr.tasks import Task, gather


def overviews_told(tree: Tree) -> list[str]:
    """Return the scenes of which documents tell levels, sorted."""
    nodes = (node.split("/") for node in {*tree.documents, *tree.copies})
    return sorted({parts[1] for parts in nodes if parts[0] == cv.OVERVIEWS and len(parts) > 1})


def check_overviews(
    tree: Tree, found: Findings, *, deep: bool = False, scenes: Collection[str] | None = None
) -> None:
    """Add levels (rows, columns) of scenes that are not here, or have other pixels or another place now.

    ``deep``, those of some ``scenes`` are counted again from the pixels: a code may be off by one.
    """
    store, again = Store(tree.place), derived(found.store)
    for scene in overviews_told(tree):
        key = levels_key(scene)
        if scene not in store.scenes:
            found.add(key, "the catalog does not list its scene", again)
        if found.touches(key) or found.touches(f"{cv.SCENES}/{scene}"):
            continue
        try:
            levels = store.levels(scene)[1:]
        except (CorruptStoreError, KeyError) as error:
            found.add(key, f"it cannot be held against its scene ({type(error).__name__})", again)
            continue
        about = tree.attributes(key)
        wanted = {f"{key}/{n}/{name}" for n in told_levels(about) for name in about[cv.MADE_OF]["arrays"]}
        for array in (array for array in tree.arrays if array.startswith(f"{key}/")):
            if array not in wanted:
                found.add(array, "its scene's levels do not list it", again)
        if not levels:
            found.add(key, "it was made of other pixels than its scene has", again)
        elif deep and (scenes is None or scene in scenes):
            _count_again(store, scene, levels, found)


def _count_again(store: Store, scene: str, levels: tuple[int, ...], found: Findings) -> None:
    """Add the levels of a scene that its pixels do not give."""
    for row in arrays_of(store, scene):
        name = str(row["name"])
        stored = tuple(level_pixels(store.place, scene, level, name) for level in levels)
        tasks: list[Task] = [(count_differing, (job, stored)) for job in first_jobs(store, row, Path())]
        if wrong := sum(gather(tasks)):
            what = f"{wrong} pixels of {name} are not what the pixels of its scene give"
            found.add(levels_key(scene), what, derived(found.store))
