"""Patches of several readers as those of one: their selections, recipes and targets, one behind another.

What is joined must be of one shape: a batch may hold patches of all of them.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.patches.cut import ids_of_store
from sarzarr.patches.selection import Selection
from sarzarr.reader.prefetch import BatchRecipe, PartRecipe
from sarzarr.reader.targets import PatchTargets
from sarzarr.store.boxes import PatchBoxes
from sarzarr.store.chunks import ChunkTable
from sarzarr.store.classes import Classes

log = logging.getLogger(__name__)


def joined_selection(selections: Sequence[Selection], stores: Sequence[int]) -> Selection:
    """Return the patches of selections, one behind another; ``stores`` is the number of each one's store.

    Ids are those of the store with number 0, and of others distinct from them: see `ids_of_store`.
    """
    arrays = _starts([len(one.catalog_row) for one in selections])
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in selections])
        for name in ("catalog_row", "row", "col", "table_row")
    }
    return replace(
        selections[0],
        **columns,
        array=np.concatenate([one.array + np.int32(at) for one, at in zip(selections, arrays, strict=True)]),
        id=np.concatenate(
            [ids_of_store(one.id, store) for one, store in zip(selections, stores, strict=True)]
        ),
        stamps=tuple(stamp for one in selections for stamp in one.stamps),
        is_padded=any(one.is_padded for one in selections),
    )


def taken_selection(selection: Selection, rows: Array) -> Selection:
    """Return the patches ``rows`` (k,) of a selection, in that order."""
    names = ("array", "row", "col", "table_row", "id")
    return replace(selection, **{name: getattr(selection, name)[rows] for name in names})


def joined_recipe(recipes: Sequence[BatchRecipe]) -> BatchRecipe:
    """Return the recipe of the patches of all recipes, one behind another."""
    flags = [one.flags for one in recipes if one.flags is not None]
    ranges = [one.ranges for one in recipes if one.ranges is not None]
    return replace(
        recipes[0],
        images=_joined_part([one.images for one in recipes]),
        row=np.concatenate([one.row for one in recipes]),
        col=np.concatenate([one.col for one in recipes]),
        flags=_joined_part(flags) if flags else None,
        layers=tuple(map(_joined_part, zip(*(one.layers for one in recipes), strict=True))),
        masks=any(one.masks for one in recipes),
        ranges=np.concatenate(ranges) if ranges else None,
    )


def _joined_part(parts: Sequence[PartRecipe]) -> PartRecipe:
    sources = [part.source for part in parts]
    starts = _starts([len(source.table.layouts) for source in sources])
    source = replace(
        sources[0],
        table=ChunkTable.joined([source.table for source in sources]),
        stretches=tuple(law for source in sources for law in source.stretches),
    )
    array = np.concatenate([part.array + np.int32(at) for part, at in zip(parts, starts, strict=True)])
    return replace(parts[0], source=source, array=array)


def taken_recipe(recipe: BatchRecipe, rows: Array) -> BatchRecipe:
    """Return the recipe of the patches ``rows`` (k,) of another, in that order."""

    def taken(part: PartRecipe) -> PartRecipe:
        return replace(part, array=part.array[rows])

    return replace(
        recipe,
        images=taken(recipe.images),
        row=recipe.row[rows],
        col=recipe.col[rows],
        flags=None if recipe.flags is None else taken(recipe.flags),
        layers=tuple(map(taken, recipe.layers)),
    )


def joined_targets(given: Mapping[str, PatchTargets], ids: Array) -> PatchTargets:
    """Return the targets of all patches, one behind another, with ``ids`` (n,) int64 for their image ids.

    Classes have the numbers that the first knows, and those of others follow: labels are mapped by name, and it is
    told which of a reader, by its name in ``given``, have another number there.
    """
    known, targets = Classes(), list[PatchTargets]()
    for name, one in given.items():
        known = known.having(one.classes, name)
        for moved in known.moved(one.classes, f"reader {name}"):
            log.warning("%s", moved)
        targets.append(replace(one, label=known.numbers_of(one.classes)[one.label].astype(np.int64)))
    boxes = [one.boxes for one in targets]
    first = _starts([len(one.boxes) for one in boxes])
    ends = [one.first[1:] + at for one, at in zip(boxes, first, strict=True)]
    # numbers of the given boxes, table behind table
    sources = _starts([int(one.source.max(initial=-1)) + 1 for one in boxes])
    together = PatchBoxes(
        first=np.concatenate([np.zeros(1, np.int64), *ends]),
        boxes=np.concatenate([one.boxes for one in boxes]),
        source=np.concatenate([one.source + at for one, at in zip(boxes, sources, strict=True)]),
        visible=np.concatenate([one.visible for one in boxes]),
    )
    label = np.concatenate([one.label for one in targets])
    return replace(targets[0], boxes=together, label=label, image_id=ids, classes=known.names)


def taken_targets(targets: PatchTargets, rows: Array) -> PatchTargets:
    """Return the targets of the patches ``rows`` (k,) of others, in that order."""
    boxes = targets.boxes
    counts = np.diff(boxes.first)[rows]
    kept = np.concatenate(
        [np.zeros(0, np.int64), *(np.arange(*boxes.first[i : i + 2]) for i in rows.tolist())]
    )
    own = replace(
        boxes,
        first=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        **{name: getattr(boxes, name)[kept] for name in ("boxes", "source", "visible")},
    )
    return replace(targets, boxes=own, label=targets.label[kept], image_id=targets.image_id[rows])


def check_alike(names: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> None:
    """Raise `InvalidInputError` where patches of readers, named by their stores, do not fit into one batch.

    ``facts`` of each, by what they are called, must be equal.
    """
    for name, others in zip(names[1:], facts[1:], strict=True):
        for what, value in facts[0].items():
            if repr(others[what]) != repr(value):  # NaN is itself
                raise InvalidInputError(
                    f"expected one {what} in all stores, got {value} in {names[0]!r} and {others[what]} in {name!r}. "
                    "Choose what they share (polarizations=, patch_size=, layers=, boxes=), or read them apart."
                )


def _starts(counts: Sequence[int]) -> list[int]:
    """Return where each of some runs begins, one behind another."""
    starts: list[int] = np.cumsum([0, *counts])[:-1].tolist()
    return starts
