"""Boxes and labels of the patches of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.pixels.rotated import apply_to_rotated
from sarzarr.pixels.turns import apply_to_boxes
from sarzarr.store.boxes import (
    DEFAULT_LABEL,
    MIN_VISIBLE,
    ROTATED,
    Boxes,
    PatchBoxes,
    Windows,
    area,
    boxes_in_windows,
    rotated_in_windows,
)


def table_asked(boxes: bool | str) -> tuple[str, bool]:
    """Return the table of boxes that the option asks for, and whether it asks for rotated ones (n, 5).

    >>> table_asked(True), table_asked("ships"), table_asked("rotated"), table_asked("rotated:ships")
    (('default', False), ('ships', False), ('default', True), ('ships', True))
    """
    if boxes is True:
        return cv.DEFAULT_INDEX, False
    word, _, name = str(boxes).partition(":")
    return (name or cv.DEFAULT_INDEX, True) if word == ROTATED else (str(boxes), False)


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchTargets:
    """The targets of a selection of patches. Holds numbers alone: it pickles, and may be forked."""

    boxes: PatchBoxes
    """Boxes by patch, pixels."""
    label: Array
    """(m,) int64: class of each of them, from 1."""
    image_id: Array
    """(patches,) int64: a number that stays with a patch, whatever is selected beside it."""
    shape: tuple[int, int]
    """Rows and columns of a patch."""
    classes: tuple[str, ...]
    """Name of class 1, 2, ..."""

    def __len__(self) -> int:
        return len(self.image_id)

    def target(self, patch: int, operation: int = 0) -> dict[str, Array]:
        """Return the target of a patch under an operation of `sarzarr.pixels.turns`, as torchvision names it.

        ``boxes`` (n, 4) float32, ``labels`` (n,) int64 from 1, ``area`` (n,) float32, ``iscrowd`` (n,) int64
        zeros, and ``image_id`` (1,) int64. A patch without boxes has n = 0. Rotated ``boxes`` are (n, 5), as
        `sarzarr.pixels.rotated` has them.
        """
        own = self.boxes.of(patch)
        given = self.boxes.boxes[own]
        is_rotated = given.shape[1] == 5
        boxes = (apply_to_rotated if is_rotated else apply_to_boxes)(operation, given, shape=self.shape)
        return {
            "boxes": boxes,
            "labels": self.label[own].copy(),
            "area": boxes[:, 2] * boxes[:, 3] if is_rotated else area(boxes),
            "iscrowd": np.zeros(len(boxes), np.int64),
            "image_id": self.image_id[patch : patch + 1].copy(),
        }


def patch_targets(
    boxes: Boxes,
    owners: Sequence[str],
    windows: Windows,
    ids: Array,
    *,
    min_visible: float = MIN_VISIBLE,
    rotated: bool = False,
) -> PatchTargets:
    """Return what patches show of the boxes on their scenes, or samples of the boxes on them.

    ``owners`` are the ids of scenes or samples, which ``windows``, the patches, name by number. ``ids`` (n,) int64
    are the patches' in the index, and their image ids. A box is shown with ``min_visible`` of its area or more, a
    share in [0, 1]: upright and cut to the patch, or ``rotated`` (n, 5) and whole.
    """
    number = {owner: i for i, owner in enumerate(boxes.owners)}
    owner = np.array([number.get(name, -1) for name in owners], np.int64)[windows.owner]
    cut, given = (rotated_in_windows, boxes.polygons) if rotated else (boxes_in_windows, boxes.boxes)
    shown = cut(given, boxes.owner, replace(windows, owner=owner), min_visible=min_visible)
    return PatchTargets(
        boxes=shown,
        label=boxes.label[shown.source].astype(np.int64),
        image_id=np.asarray(ids, np.int64),
        shape=(int(np.max(windows.size, initial=1)),) * 2,
        classes=boxes.classes or (DEFAULT_LABEL,),
    )
