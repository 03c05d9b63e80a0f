"""Crops: windows anywhere on chosen ground, drawn by chance and never reaching beyond it.

Chosen ground is whole cells of 256 x 256 pixels, as an index and a split have them. A window may lie where every cell
that it touches is chosen, and it ends within its scene.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import Final, Self

import numpy as np

from sarzarr.arrays import Array
from sarzarr.conventions import CELL

_CLASSES: Final = 4
"""Rectangles of offsets in a cell that touch the same cells: few or one more below, few or one more to the right."""


Look = Callable[[Array, Array, Array], Array]
"""From cell, row and column of windows, (k,) each, to (k,) bool: which may be taken."""


class Fit(IntEnum):
    """Whether a window may be taken."""

    NO = 0
    YES = 1
    LOOK = 2
    """It touches cells with pixels that were not measured: its flags must be looked at."""


@dataclass(frozen=True, eq=False, kw_only=True)
class CropGround:
    """The places where windows of one size may lie, in groups of arrays that lie on one grid each."""

    size: int
    """Rows and columns of a window, pixels."""
    group: Array
    """(cells,) int64: the group of each chosen cell."""
    row: Array
    """(cells,) int64: its first row, pixels, a multiple of `CELL`."""
    col: Array
    """(cells,) int64: its first column, pixels."""
    is_clear: Array
    """(cells,) bool: whether any window of it may be taken unseen."""
    shape: Array
    """(groups, 2) int64: rows and columns of each group's scene, pixels."""
    area: Array | None = None
    """(cells,) float64: square metres of a pixel, which a window that begins in the cell counts; None: all alike."""

    def of_size(self, size: int) -> Self:
        """Return the places of windows of another size on the same ground."""
        other = replace(self, size=size)
        vars(other)["_grids"] = self._grids  # where cells are chosen does not depend on it
        return other

    @cached_property
    def _grids(self) -> tuple[Array, Array, Array]:
        """(groups,) where each group's table begins, (groups,) its columns, and the tables of running totals.

        A table has a row and a column of zeros first; the last axis counts chosen cells and clear ones.
        """
        cells = -(-self.shape // CELL) + 1
        starts = np.concatenate([[0], np.cumsum(cells.prod(axis=1))])
        totals = np.zeros((int(starts[-1]), 2), np.int32)
        at = starts[self.group] + (self.row // CELL + 1) * cells[self.group, 1] + self.col // CELL + 1
        totals[at, 0], totals[at, 1] = 1, self.is_clear
        for first, last, columns in zip(starts, starts[1:], cells[:, 1], strict=False):
            table = totals[first:last].reshape(-1, int(columns), 2)
            np.cumsum(np.cumsum(table, axis=0, dtype=np.int32), axis=1, out=table)
        return starts[:-1], cells[:, 1], totals

    def fit(self, group: Array, row: Array, col: Array) -> Array:
        """Return (n,) uint8 of `Fit`: whether windows with their first pixels there may be taken."""
        starts, columns, totals = self._grids
        height, width = self.shape[group].T
        inside = (row >= 0) & (col >= 0) & (row + self.size <= height) & (col + self.size <= width)
        top, left = np.where(inside, row, 0) // CELL, np.where(inside, col, 0) // CELL
        bottom, right = ((np.where(inside, n, 0) + self.size - 1) // CELL + 1 for n in (row, col))
        bottom = np.minimum(bottom, -(-height // CELL))
        right = np.minimum(right, -(-width // CELL))

        def total(i: Array, j: Array) -> Array:
            return np.asarray(totals[starts[group] + i * columns[group] + j])

        touched = (bottom - top) * (right - left)
        chosen, clear = (total(bottom, right) - total(top, right) - total(bottom, left) + total(top, left)).T
        fits = np.where(clear == touched, Fit.YES, Fit.LOOK)
        out: Array = np.where(inside & (chosen == touched), fits, Fit.NO).astype(np.uint8)
        return out

    @cached_property
    def _edges(self) -> tuple[Array, Array]:
        """(2,) offsets in a cell from which windows touch few cells along an axis, and one more; and their ends."""
        more = CELL * -(-self.size // CELL) - self.size + 1
        return np.array([0, more]), np.array([more, CELL])

    def _rectangles(self, cell: Array) -> tuple[Array, Array, Array, Array]:
        """Return (n, 4) each: first and end row, first and end column of rectangles of windows that begin in cells.

        Their windows end within the scene; a rectangle may be empty.
        """
        lows, highs = self._edges
        limits = self.shape[self.group[cell]] - self.size + 1
        spans = []
        for axis, first in enumerate((self.row[cell], self.col[cell])):
            low = first[:, None] + lows
            high = np.clip(first[:, None] + highs, low, np.maximum(limits[:, axis, None], low))
            spans.append((low, high))
        (top, bottom), (left, right) = spans
        down, across = np.repeat([0, 1], 2), np.tile([0, 1], 2)
        return top[:, down], bottom[:, down], left[:, across], right[:, across]

    def _counts(self, cell: Array) -> Array:
        """Return (n, 4) int64: the windows that may begin in each rectangle of cells."""
        top, bottom, left, right = self._rectangles(cell)
        group = np.broadcast_to(self.group[cell][:, None], top.shape)
        fits = self.fit(group.reshape(-1), top.reshape(-1), left.reshape(-1)).reshape(top.shape)
        return np.where(fits == Fit.NO, 0, (bottom - top) * (right - left))

    @cached_property
    def _totals(self) -> Array:
        """(cells,) int64: running totals of the windows that may begin in cells."""
        return np.cumsum(self._counts(np.arange(len(self.row))).sum(axis=1))

    @cached_property
    def _areas(self) -> Array:
        """(cells,) float64: running totals of their square metres."""
        return np.cumsum(np.diff(self._totals, prepend=0) * self.area)

    @property
    def windows(self) -> int:
        """Windows that may be taken, or must be looked at."""
        return int(self._totals[-1]) if len(self._totals) else 0

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Return cell, row and column, (n,) int64 each, of windows, each of `windows` with equal chance.

        By ``area``, where there is one: a window counts as much as a pixel of the cell that it begins in.
        """
        if self.area is None:
            number = rng.integers(0, self.windows, n)
            cell = np.searchsorted(self._totals, number, "right")
            counts = self._counts(cell)
            number -= self._totals[cell] - counts.sum(axis=1)  # among those of its cell
        else:
            last = np.searchsorted(self._areas, self._areas[-1])  # rounding may lead to the end itself
            cell = np.searchsorted(self._areas, rng.random(n) * self._areas[-1], "right")
            cell = np.minimum(cell, last)
            counts = self._counts(cell)
            number = rng.integers(0, counts.sum(axis=1))
        ends = np.cumsum(counts, axis=1)
        part = (number[:, None] >= ends).sum(axis=1)
        rows = np.arange(n)
        number -= (ends - counts)[rows, part]
        top, _, left, right = (edge[rows, part] for edge in self._rectangles(cell))
        width = right - left
        return cell, top + number // width, left + number % width

    @classmethod
    def of(
        cls,
        *,
        size: int,
        array: Array,
        row: Array,
        col: Array,
        is_clear: Array,
        shape: Array,
        area: Array | None = None,
    ) -> Self:
        """Return the ground of cells of arrays (cells, channels), by the shape (arrays, 2) of each array's scene."""
        order = np.lexsort(array.T[::-1])
        sorted_arrays = array[order]
        is_new = np.any(sorted_arrays[1:] != sorted_arrays[:-1], axis=1)
        number = np.empty(len(array), np.int64)
        number[order] = np.concatenate([[0], np.cumsum(is_new)])[: len(array)]
        firsts = order[np.concatenate([[True], is_new])[: len(array)]]
        return cls(
            size=size,
            group=number,
            row=row.astype(np.int64),
            col=col.astype(np.int64),
            is_clear=is_clear,
            shape=shape[array[firsts, 0]].astype(np.int64),
            area=area,
        )


def drawn_crops(
    ground: CropGround, n: int, rng: np.random.Generator, look: Look
) -> tuple[Array, Array, Array]:
    """Return cell, row and column, (n,) int64 each, of windows that may be taken, each with equal chance.

    ``look(cell, row, col)`` returns (k,) bool: which of the windows that must be looked at may be taken. What may not
    is drawn again. Fewer come where hardly any may: the caller says so.
    """
    found: list[tuple[Array, Array, Array]] = []
    missing, tried = n, 0
    while missing > 0 and ground.windows and tried <= 100 * n + 10_000:
        some = ground.draw(missing + missing // 8 + 16, rng)
        cell, row, col = some
        fits = ground.fit(ground.group[cell], row, col)
        keep, seen = fits == Fit.YES, np.flatnonzero(fits == Fit.LOOK)
        if seen.size:
            keep[seen] = look(cell[seen], row[seen], col[seen])
        kept = np.flatnonzero(keep)[:missing]
        found.append((cell[kept], row[kept], col[kept]))
        missing -= len(kept)
        tried += len(cell)
    parts = zip(*found, strict=True) if found else ((),) * 3
    cell, row, col = (np.concatenate([np.empty(0, np.int64), *part]) for part in parts)
    return cell, row, col
