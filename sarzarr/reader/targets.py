"""Boxes and labels of the patches of a batch."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sarzarr.arrays import Array
from sarzarr.pixels.turns import apply_to_boxes
from sarzarr.store.boxes import DEFAULT_LABEL, MIN_VISIBLE, Boxes, PatchBoxes, Windows, area, boxes_in_windows


# ------------------------------------------------------------------ with patches
@dataclass(frozen=True, eq=False, kw_only=True)
class PatchTargets:
    """The targets of a selection of patches. Holds numbers alone: it pickles, and may be forked."""

    found: PatchBoxes
    """Boxes by patch."""
    label: Array
    """(m,) int64: of each box in ``found``."""
    image_id: Array
    """(patches,) int64: a number that stays with a patch, whatever is selected beside it."""
    size: int
    """Rows and columns of a patch."""
    classes: tuple[str, ...]
    """Name of class 1, 2, ..."""

    def __len__(self) -> int:
        return len(self.image_id)

    def target(self, patch: int, operation: int = 0) -> dict[str, Array]:
        """Return the target of a patch under an operation of `sarzarr.pixels.turns`, as torchvision names it.

        ``boxes`` (n, 4) float32, ``labels`` (n,) int64 from 1, ``area`` (n,) float32, ``iscrowd`` (n,) int64
        zeros, and ``image_id`` (1,) int64. A patch without boxes has n = 0.
        """
        at = self.found.of(patch)
        boxes = apply_to_boxes(operation, self.found.boxes[at], size=self.size)
        return {
            "boxes": boxes,
            "labels": self.label[at].copy(),
            "area": area(boxes),
            "iscrowd": np.zeros(len(boxes), np.int64),
            "image_id": self.image_id[patch : patch + 1].copy(),
        }


def image_ids(patch_ids: Array) -> Array:
    """Return int64 numbers of uint64 patch ids: all but their first bit, for torch has no unsigned ones."""
    return (patch_ids & np.uint64(0x7FFF_FFFF_FFFF_FFFF)).astype(np.int64)


def patch_targets(
    boxes: Boxes, *, scenes: Iterable[str], scene: Array, row: Array, col: Array, ids: Array, size: int,
    min_visible: float = MIN_VISIBLE,
) -> PatchTargets:  # fmt: skip
    """Return what patches show of the boxes on their scenes, or samples of the boxes on them.

    Parameters
    ----------
    boxes
        A table of boxes.
    scenes
        Ids of scenes or samples, by number.
    scene, row, col, ids
        (n,) of each patch: the number of its scene, its first pixel, and its id in the patch index.
    size
        Rows and columns of a patch.
    min_visible
        Share of a box's area that must be in a patch for the patch to show it.
    """
    number = {owner: i for i, owner in enumerate(boxes.owners)}
    owner = np.array([number.get(s, -1) for s in scenes], np.int64)
    windows = Windows(owner=owner[scene], row=row, col=col, size=size)
    found = boxes_in_windows(boxes.boxes, boxes.owner, windows, min_visible=min_visible)
    return PatchTargets(
        found=found,
        label=boxes.label[found.source].astype(np.int64),
        image_id=image_ids(np.asarray(ids, np.uint64)),
        size=size,
        classes=boxes.classes or (DEFAULT_LABEL,),
    )
