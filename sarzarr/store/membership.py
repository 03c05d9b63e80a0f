"""Which patches belong to a split: a patch does if every cell that it touches does.

Membership stands a cell of 256 x 256 pixels of a scene's own lattice, so it holds for patches of any size,
stride, edge policy and polarization.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError

SPLITS: Final = {m.name.lower(): m for m in cv.Membership}
"""Memberships by the name that a user gives."""


def parse_choice(text: str) -> tuple[int | None, cv.Membership]:
    """Return (version or None for the newest, membership) of what a user asks for.

    >>> parse_choice("v2:val")
    (2, <Membership.VAL: 2>)
    >>> parse_choice("train")
    (None, <Membership.TRAIN: 1>)

    Raises `InvalidInputError` where it is not ``train``, ``val``, ``test`` or ``held_back``, perhaps with a version
    before it.
    """
    version, colon, name = text.rpartition(":")
    number = version.removeprefix("v")
    if name not in SPLITS or (
        colon and not (version.startswith("v") and number.isascii() and number.isdigit())
    ):
        raise InvalidInputError(
            f"a split such as 'train', 'val', 'test' or 'v2:val' was expected, got {text!r}."
        )
    return (int(number) if colon else None), SPLITS[name]


@dataclass(frozen=True, eq=False, kw_only=True)
class CellTable:
    """The memberships of the cells of some scenes, by the scene's number."""

    codes: Sequence[Array]
    """A (rows, columns) uint8 array of `sarzarr.conventions.Membership` a scene."""
    first: Array = field(init=False)
    """(scenes,) int64: where each scene's cells begin in `flat`."""
    shape: Array = field(init=False)
    """(scenes, 2) int64: rows and columns of cells."""
    flat: Array = field(init=False)
    """All codes, scene by scene, in C order."""

    def __post_init__(self) -> None:
        sizes = [c.size for c in self.codes]
        empty = np.empty(0, np.uint8)
        first = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))[:-1].astype(np.int64)
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "shape", np.array([c.shape for c in self.codes], np.int64).reshape(-1, 2))
        object.__setattr__(self, "flat", np.concatenate([empty, *(c.reshape(-1) for c in self.codes)]))


def patch_mask(
    cells: CellTable, *, scene: Array, row: Array, col: Array, size: int, wanted: int, cell: int = cv.CELL
) -> Array:
    """Return (n,) bool: which patches touch only cells of one membership.

    Parameters
    ----------
    cells
        Memberships.
    scene
        (n,) the number of each patch's scene in ``cells``; -1 for a scene that is not in it, whose
        patches belong to nothing.
    row, col
        (n,) first pixel of each patch.
    size
        Rows and columns of a patch. What reaches beyond a scene's last cells touches nothing there.
    wanted
        The membership.
    cell
        Rows and columns of a cell.
    """
    found = np.flatnonzero(scene >= 0)
    out = np.zeros(len(scene), bool)
    if not found.size:
        return out
    owner = scene[found]
    shape = cells.shape[owner]
    (top, bottom), (left, right) = (
        (at[found] // cell, np.minimum((at[found] + size - 1) // cell, shape[:, axis] - 1))
        for axis, at in enumerate((row.astype(np.int64), col.astype(np.int64)))
    )
    belongs = np.ones(found.size, bool)
    for down in range(int((bottom - top).max()) + 1):
        for across in range(int((right - left).max()) + 1):
            r, c = np.minimum(top + down, bottom), np.minimum(left + across, right)
            belongs &= cells.flat[cells.first[owner] + r * shape[:, 1] + c] == wanted
    out[found] = belongs
    return out


def count_memberships(codes: Sequence[Array]) -> dict[str, int]:
    """Return the number of cells of each membership, by name; ``codes`` are (rows, columns) uint8 of each scene."""
    total = sum(
        (np.bincount(c.reshape(-1), minlength=len(cv.Membership)) for c in codes), np.zeros(4, np.int64)
    )
    return {m.name.lower(): int(total[m]) for m in cv.Membership}
