"""Rectangles of pixels: the parts that they share, and the tiles that they are cut into."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A rectangle of pixels; it may lie anywhere, also beyond the array that it is a window of."""

    row: int
    """First row."""
    col: int
    """First column."""
    height: int
    """Rows."""
    width: int
    """Columns."""

    @classmethod
    def of(cls, height: int, width: int) -> Self:
        """Return the window that is all of a (height, width) array."""
        return cls(row=0, col=0, height=height, width=width)

    @property
    def slices(self) -> tuple[slice, slice]:
        """(rows, columns) of it in the array that it is a window of."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)

    @property
    def is_empty(self) -> bool:
        """Whether it has no pixel."""
        return self.height < 1 or self.width < 1

    def moved(self, rows: int, cols: int) -> Self:
        """Return it that many rows and columns further on."""
        return replace(self, row=self.row + rows, col=self.col + cols)

    def grown(self, by: int) -> Self:
        """Return it with ``by`` more pixels on each side."""
        return replace(self.moved(-by, -by), height=self.height + 2 * by, width=self.width + 2 * by)

    def intersection(self, other: "Window") -> Self:
        """Return the pixels that both have in common; it is empty where there are none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        bottom = min(self.row + self.height, other.row + other.height)
        right = min(self.col + self.width, other.col + other.width)
        return type(self)(row=row, col=col, height=bottom - row, width=right - col)

    def within(self, other: "Window") -> tuple[slice, slice]:
        """Return where it lies in an array that holds the other's pixels."""
        return self.moved(-other.row, -other.col).slices

    def halves(self) -> tuple[Self, Self]:
        """Return it cut across its longer side.

        >>> Window.of(2, 5).halves()
        (Window(row=0, col=0, height=2, width=2), Window(row=0, col=2, height=2, width=3))
        """
        if self.height >= self.width:
            n = self.height // 2
            return replace(self, height=n), replace(self, row=self.row + n, height=self.height - n)
        n = self.width // 2
        return replace(self, width=n), replace(self, col=self.col + n, width=self.width - n)


def tiles_of(whole: Window, window: Window, *, side: int) -> Iterator[Window]:
    """Yield the tiles of ``whole``, ``side`` x ``side`` from (0, 0) on, that a window of it touches, row by row.

    >>> [(t.row, t.col, t.height, t.width) for t in tiles_of(Window.of(5, 9), Window.of(2, 6), side=4)]
    [(0, 0, 4, 4), (0, 4, 4, 4)]
    """
    for row in range(window.row // side * side, window.row + window.height, side):
        for col in range(window.col // side * side, window.col + window.width, side):
            yield Window(row=row, col=col, height=side, width=side).intersection(whole)
