"""Groups of scan positions that lie together: seeds are drawn first, then C of the neighbours of each.

Every number comes from one legacy `numpy.random.RandomState`, whose streams NumPy keeps as they are, and neighbours
from `scipy.spatial.cKDTree`: the same positions and recipe give the same groups on every machine.
"""

import math
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
from scipy.spatial import cKDTree

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class GroupRecipe:
    """The number of groups, their size, and the draw that makes them; nothing else decides."""

    gridsize: int
    """Positions along a side of a group: a group has C = gridsize * gridsize."""
    nsamples: int
    """Groups. Of more than there are positions, standard sampling gives one per position."""
    neighbors: int = 4
    """Nearest neighbours K of a seed that its group is drawn from; at least C where C is above 1."""
    seed: int | None = None
    """Of the draw; None is another one each time. Sequential sampling draws from seed 0 whatever stands here."""
    sequential_sampling: bool = False
    """Take the first positions as seeds, in their order."""
    enable_oversampling: bool = False
    """Allow more groups of C above 1 than there are positions."""
    neighbor_pool_size: int | None = None
    """The K of oversampling; ``neighbors`` if left out."""

    def __post_init__(self) -> None:
        for name in ("gridsize", "nsamples", "neighbors"):
            check_count(name, getattr(self, name))
        if self.neighbor_pool_size is not None:
            check_count("neighbor_pool_size", self.neighbor_pool_size)

    @property
    def size(self) -> int:
        """Positions of a group, C."""
        return self.gridsize**2


def check_count(name: str, value: object) -> None:
    """Refuse what is not a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InvalidInputError(f"expected {name} as a whole number from 1 on, got {value!r}. Mend {name}=.")


def group_positions(x: Array, y: Array, recipe: GroupRecipe) -> Array:
    """Return groups (B, C) of positions by number, in random order within a group.

    ``x`` and ``y`` (n,) are pixels, without NaN. int64 where C is 1 and of oversampling, else int32. With C above 1
    a seed is normally not in its own group: that is drawn from its K nearest others.

    Raises `InvalidInputError`, in this order: more groups than positions without ``enable_oversampling``;
    K below C in oversampling; fewer positions than C; K below C.
    """
    points = _points(x, y)
    n, size, k = len(points), recipe.size, recipe.neighbors
    is_oversampled = recipe.nsamples > n and size > 1
    if is_oversampled and not recipe.enable_oversampling:
        raise InvalidInputError(
            f"expected at most {n} groups of {n} positions, got nsamples={recipe.nsamples} (OVERSAMPLING-001). "
            "Pass enable_oversampling=True, or ask for fewer groups."
        )
    if is_oversampled:
        k = recipe.neighbor_pool_size or k
        _check_neighbors(k, size, "neighbor_pool_size")
    if n < size:
        raise InvalidInputError(
            f"expected at least {size} positions for gridsize={recipe.gridsize}, got {n}. Ask for a smaller gridsize."
        )
    _check_neighbors(k, size, "K")
    if is_oversampled:
        return _oversampled(points, recipe, k)
    draw = np.random.RandomState(0 if recipe.sequential_sampling else recipe.seed)
    count = min(recipe.nsamples, n)
    seeds = np.arange(count) if recipe.sequential_sampling else _seeds(draw, n, count)
    if size == 1:
        return seeds[:, None]
    near = cKDTree(points).query(points[seeds], k=min(k + 1, n))[1]
    near = (
        near[:, 1:] if near.shape[1] > k else near
    )  # the first is the seed, where another has not its place
    chosen = [draw.choice(near.shape[1], size, replace=False) for _ in range(count)]
    return np.take_along_axis(near, np.array(chosen), axis=1).astype(np.int32)


def subsampled(n: int, count: int | None, seed: int | None) -> Array | None:
    """Return the numbers (m,) int64 of ``count`` positions among n, ascending; None where all are taken."""
    if count is None or count >= n:
        return None
    check_count("n_subsample", count)
    return np.sort(np.random.RandomState(seed).choice(n, count, replace=False))


def _points(x: Array, y: Array) -> Array:
    if x.ndim != 1 or x.shape != y.shape:
        raise InvalidInputError(
            f"expected x and y (n,) of one length, got shapes {x.shape} and {y.shape}. Give one of each per position."
        )
    points = np.column_stack([x, y]).astype(np.float64, copy=False)
    if not np.isfinite(points).all():
        first = int(np.argmin(np.isfinite(points).all(1)))
        raise InvalidInputError(
            f"expected finite positions in pixels, got {points[first].tolist()} at number {first}. Leave it out."
        )
    return points


def _check_neighbors(k: int, size: int, name: str) -> None:
    if k < size:
        raise InvalidInputError(
            f"expected {name} of at least {size} to choose {size} neighbours from, got {k}. Raise it."
        )


def _seeds(draw: np.random.RandomState, n: int, count: int) -> Array:
    """Return ``count`` of n positions; all of them are taken in their order, without a draw."""
    return draw.choice(n, count, replace=False) if count < n else np.arange(n)


def _oversampled(points: Array, recipe: GroupRecipe, k: int) -> Array:
    """Return groups (B, C) int64, drawn from all that the K neighbours of some seeds can form."""
    draw, n, size, wanted = np.random.RandomState(recipe.seed), len(points), recipe.size, recipe.nsamples
    count = min(2 * max(1, math.ceil(wanted / math.comb(k, size))), n)
    seeds = np.arange(count) if recipe.sequential_sampling else _seeds(draw, n, count)
    each = min(k, n - 1)
    table = np.array(list(islice(combinations(range(each), size), 2 * wanted)), np.int64).reshape(-1, size)
    if not len(table):
        raise InvalidInputError(
            f"expected more than {size} positions to draw groups of neighbours from, got {n}. Add positions."
        )
    seeds = seeds[: math.ceil(2 * wanted / len(table))]
    near = cKDTree(points).query(points[seeds], k=each + 1)[1]
    is_other = near != seeds[:, None]
    is_other[is_other.all(1), -1] = False  # at one place lie more positions than were asked for
    pool: Array = near[is_other].reshape(len(seeds), each)[:, table].reshape(-1, size)[: 2 * wanted]
    return pool[draw.choice(len(pool), wanted, replace=wanted > len(pool))].astype(np.int64)
