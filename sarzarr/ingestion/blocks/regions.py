"""Regions of a mask, 4-connected, found block by block: which of them reach the scene's edge.

Exact zeros without a nodata tag are fill where they reach the edge of a scene as a region, and
dark water where they do not. A region can wind through many blocks, and no process holds a
scene: each block hands on the regions along its own perimeter, and `reaching_edge` joins them.
The answer is the same for any block layout.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Labels = np.ndarray[Any, np.dtype[np.int32]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class BlockRegions:
    """The regions of one block, as its neighbours need to know them; 0 is no region."""

    count: int
    """Regions of the block, labelled 1 to ``count``."""
    top: Labels
    """(width,) labels along the first row."""
    bottom: Labels
    """(width,) labels along the last row."""
    left: Labels
    """(height,) labels along the first column."""
    right: Labels
    """(height,) labels along the last column."""


@dataclass
class RegionTracker:
    """Label the bands (rows, width) of one block from top to bottom without holding the block."""

    _next: int = 1
    _joined: list[Labels] = field(default_factory=list)
    _edges: list[tuple[Labels, Labels]] = field(default_factory=list)
    _first: Labels | None = None
    _last: Labels | None = None

    def add(self, mask: Mask) -> Labels:
        """Return labels of the next band, int32 of its shape: distinct from those of the bands before, 0 outside."""
        if mask.any():
            from scipy import ndimage  # takes a sixth of a second, which files without such zeros do without

            band_labels, count = ndimage.label(mask)
            labels: Labels = band_labels.astype(np.int32, copy=False)
            np.add(labels, self._next - 1, out=labels, where=mask)
            self._next += int(count)
        else:
            labels = np.zeros(mask.shape, np.int32)
        if self._last is None:
            self._first = labels[0].copy()
        else:
            touching = (self._last > 0) & (labels[0] > 0)
            self._joined.append(np.unique(np.stack([self._last[touching], labels[0][touching]], 1), axis=0))
        self._last = labels[-1].copy()
        self._edges.append((labels[:, 0].copy(), labels[:, -1].copy()))
        return labels

    @property
    def has_regions(self) -> bool:
        """Whether any band had pixels of a region."""
        return self._next > 1

    def names(self) -> Labels:
        """Return the region of each label given by `add`, int32, to index with labels; 0 stays 0."""
        pairs = np.concatenate(self._joined) if self._joined else np.empty((0, 2), np.int32)
        return _components(pairs, self._next)

    def finish(self) -> BlockRegions:
        """Return the block's regions, int32 labels along its edges, once all its bands are in.

        Raises `ValueError` where there is no band yet.
        """
        if self._first is None or self._last is None:
            raise ValueError("at least one band was expected, got none. Call add() first.")
        names = self.names()
        left, right = (np.concatenate(side) for side in zip(*self._edges, strict=True))
        edges = {"top": self._first, "bottom": self._last, "left": left, "right": right}
        return BlockRegions(count=int(names.max(initial=0)), **{k: names[v] for k, v in edges.items()})


def reaching_edge(blocks: Mapping[tuple[int, int], BlockRegions | None]) -> dict[tuple[int, int], Mask]:
    """Return the regions of each block that belong to one that reaches the edge of the scene.

    ``blocks`` are regions by their block's (row, column) in the scene's rectangle of blocks; None where one has
    none. Of each that has some, (count + 1,) bool by label, 0 to its count, is returned.
    """
    rows, cols = (1 + max(at[axis] for at in blocks) for axis in (0, 1))
    known = {at: b for at, b in blocks.items() if b is not None}
    offset, total = {}, 1
    for at, block in known.items():
        offset[at], total = total - 1, total + block.count

    def shifted(at: tuple[int, int], labels: Labels) -> np.ndarray[Any, Any]:
        return np.where(labels > 0, labels.astype(np.int64) + offset[at], 0)

    pairs, seeds = [], []
    for (i, j), block in known.items():
        for neighbour, mine, theirs in (((i + 1, j), "bottom", "top"), ((i, j + 1), "right", "left")):
            if neighbour in known:
                a = shifted((i, j), getattr(block, mine))
                b = shifted(neighbour, getattr(known[neighbour], theirs))
                touching = (a > 0) & (b > 0)
                pairs.append(np.stack([a[touching], b[touching]], 1))
        on_edge = {"top": i == 0, "bottom": i == rows - 1, "left": j == 0, "right": j == cols - 1}
        seeds += [shifted((i, j), getattr(block, side)) for side, outer in on_edge.items() if outer]
    names = _components(np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64), total)
    reaches = np.zeros(names.max(initial=0) + 1, bool)
    for seed in seeds:
        reaches[names[seed]] = True
    reaches[0] = False
    return {
        at: np.concatenate([[False], reaches[names[offset[at] + 1 : offset[at] + 1 + block.count]]])
        for at, block in known.items()
    }


def _components(pairs: np.ndarray[Any, Any], size: int) -> Labels:
    """Return a dense name (1, 2, ...) for each of the labels 1 to size - 1, equal where pairs join them; 0 of 0."""
    if size == 1:
        return np.zeros(1, np.int32)
    ends = pairs[:, 0] - 1, pairs[:, 1] - 1
    from scipy import sparse

    graph = sparse.coo_array((np.ones(len(pairs), np.int8), ends), shape=(size - 1, size - 1))
    _, names = sparse.csgraph.connected_components(graph, directed=False)
    return np.concatenate([[0], names + 1]).astype(np.int32)
