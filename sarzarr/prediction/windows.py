"""Windows over a scene, and the weights by which what a model makes of them is put together.

Along each axis the weights of all windows that cover a pixel sum to 1, so a model that returns what it is given
returns the scene. Rows and columns are independent: the weight of a pixel is that of its row times that of its
column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError

BLENDS: Final = ("cosine", "linear", "nearest")
"""Ways in which windows that overlap are put together: the weight falls as a cosine or a line over the overlap, or
each pixel is taken from the window whose centre is nearest."""


def starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    """Return the first pixel of each window along an axis of ``length`` pixels; the last one is shifted to its end.

    >>> starts(600, 256, 32), starts(100, 256, 32)
    ((0, 224, 344), (0,))
    """
    last = length - size
    return (0,) if last <= 0 else (*range(0, last, size - overlap), last)


def axis_weights(begins: Sequence[int], size: int, blend: str) -> Array:
    """Return (windows, size) float32: the weight of each pixel of each window; of one pixel they sum to 1.

    The ramp is as long as the overlap of two neighbours, ``sin(pi / 2 * t)**2`` or ``t`` from 0 to 1 over it.
    """
    length = begins[-1] + size
    if blend == "nearest":
        return _nearest(begins, size, length)
    raw = np.ones((len(begins), size))
    for i, (one, other) in enumerate(pairwise(begins)):
        shared = max(one + size - other, 0)
        t = (np.arange(shared) + 0.5) / max(shared, 1)
        ramp = np.sin(np.pi / 2 * t) ** 2 if blend == "cosine" else t
        raw[i + 1, :shared] *= ramp
        raw[i, size - shared :] *= 1 - ramp
    total = np.zeros(length)
    for begin, row in zip(begins, raw, strict=True):
        total[begin : begin + size] += row
    return np.stack([row / total[b : b + size] for b, row in zip(begins, raw, strict=True)]).astype("f4")


def _nearest(begins: Sequence[int], size: int, length: int) -> Array:
    """Return (windows, size) float32: 1 where a window's centre is the nearest, 0 elsewhere."""
    edges = [0, *((one + other + size + 1) // 2 for one, other in pairwise(begins)), length]
    at = np.arange(size)
    return np.stack(
        [(at >= low - b) & (at < high - b) for b, (low, high) in zip(begins, pairwise(edges), strict=True)]
    ).astype("f4")


@dataclass(frozen=True, kw_only=True)
class WindowGrid:
    """All windows of a scene, a row of windows after another."""

    shape: tuple[int, int]
    """(rows, columns) of the scene, pixels."""
    size: int
    """Rows and columns of a window, pixels."""
    overlap: int
    """Pixels that neighbours share, at least."""
    blend: str = "cosine"
    """One of `BLENDS`."""

    def __post_init__(self) -> None:
        for name, value, least in (("patch_size", self.size, 1), ("overlap", self.overlap, 0)):
            if not (isinstance(value, int | np.integer) and value >= least):
                raise InvalidInputError(f"{name} must be a whole number, at least {least}, got {value!r}.")
        if self.overlap >= self.size:
            raise InvalidInputError(
                f"an overlap below the patch size of {self.size} pixels was expected, got {self.overlap}. Pass "
                f"overlap={self.size // 8}, say."
            )
        if self.blend not in BLENDS:
            raise InvalidInputError(
                f"blend must be {', '.join(BLENDS)}, got {self.blend!r}. Name one of these."
            )

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """First row of each row of windows."""
        return starts(self.shape[0], self.size, self.overlap)

    @cached_property
    def cols(self) -> tuple[int, ...]:
        """First column of each column of windows."""
        return starts(self.shape[1], self.size, self.overlap)

    @cached_property
    def places(self) -> Array:
        """(windows, 2) int32: first row and column of each, in their order."""
        return np.array([(row, col) for row in self.rows for col in self.cols], np.int32)

    def first_from(self, row: int) -> int:
        """Return the number of the first window of the first row of windows that reaches a row of pixels."""
        first = next(i for i, begin in enumerate(self.rows) if begin + self.size > row)
        return first * len(self.cols)

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)


class WindowBand:
    """The rows of pixels that one row of windows covers: what windows make of them is added up here.

    It is as high as a window and as wide as the scene, whatever the scene's height.
    """

    def __init__(self, grid: WindowGrid, channels: int, dtype: str, first: int = 0) -> None:
        """Begin at window ``first``, the first of its row; values are (channels, rows, columns) of ``dtype``."""
        self.grid, self.row = grid, first // len(grid.cols)
        self._down, self._kind_down = _kinds(axis_weights(grid.rows, grid.size, grid.blend))
        self._across, self._kind_across = _kinds(axis_weights(grid.cols, grid.size, grid.blend))
        self._weights: dict[tuple[int, int], Array] = {}
        width = grid.cols[-1] + grid.size
        self.values = np.zeros((channels, grid.size, width), dtype)
        self._scratch = np.empty((channels, grid.size, grid.size), dtype)

    @property
    def top(self) -> int:
        """The scene's row that the band's first one is."""
        return self.grid.rows[self.row]

    def add(self, window: int, values: Array) -> None:
        """Add what a window of this row became, (channels, size, size)."""
        i, j = divmod(window, len(self.grid.cols))
        kind = self._kind_down[i], self._kind_across[j]
        mine = self.values[:, :, self.grid.cols[j] : self.grid.cols[j] + self.grid.size]
        if self.grid.blend == "nearest":
            rows, cols = (np.flatnonzero(w) for w in (self._down[kind[0]], self._across[kind[1]]))
            if rows.size and cols.size:
                own = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
                mine[:, *own] = values[:, *own]
            return
        if kind not in self._weights:
            self._weights[kind] = np.multiply.outer(self._down[kind[0]], self._across[kind[1]])
        np.multiply(values, self._weights[kind], out=self._scratch)
        mine += self._scratch

    def finished(self) -> Array:
        """Return the rows (channels, rows, columns) that no later window reaches, and go on to the next row."""
        height, width = self.grid.shape
        is_last = self.row + 1 == len(self.grid.rows)
        count = (height if is_last else self.grid.rows[self.row + 1]) - self.top
        done = self.values[:, :count, :width].copy()
        if not is_last:
            kept = self.grid.size - count
            self.values[:, :kept] = self.values[:, count:].copy()
            self.values[:, kept:] = 0
            self.row += 1
        return done


def _kinds(weights: Array) -> tuple[Array, list[int]]:
    """Return the weights (kinds, size) that differ, and the kind of each window: most are alike."""
    kinds, number = np.unique(weights, axis=0, return_inverse=True)
    return kinds, number.reshape(-1).tolist()
