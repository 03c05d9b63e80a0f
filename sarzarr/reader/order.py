"""The order of patches: index arithmetic, a function of ``(seed, epoch)`` and nothing else.

An epoch is an order of ``n`` patches, dealt in steps; in each step every rank gets one batch. How a step is cut
depends on how many patches remain alone: an epoch taken up again anywhere, by any ranks, deals what remains.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sarzarr.errors import InvalidInputError

Indices = np.ndarray[Any, np.dtype[np.int64]]
_DRAW: Final = 1  # stream of (seed, epoch), apart from the order's; 2 and 3 are `sarzarr.reader.augment`'s
WINDOW_SHARDS: Final = 16
"""Shards that ``shuffle="window"`` mixes at a time, unless told otherwise."""


def shuffled(n: int, *, seed: int, epoch: int) -> Indices:
    """Return ``0..n-1``, (n,) int64, each anywhere in the epoch with equal chance."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def shuffled_in_window(shards: Indices, *, seed: int, epoch: int, window: int = WINDOW_SHARDS) -> Indices:
    """Return ``0..n-1``, (n,) int64, so that about ``window`` of the ``shards`` (n,) are being read at any time.

    Shards stand in random order, one unit apart; a patch lies a uniform distance below ``window`` units behind
    the start of its shard.
    """
    if window < 1:
        raise InvalidInputError(f"window must be at least 1 shard, got {window}.")
    random = np.random.default_rng((seed, epoch))
    _, shard = np.unique(shards, return_inverse=True)
    place = random.permutation(int(shard.max(initial=-1)) + 1)
    return np.argsort(place[shard] + random.uniform(0, window, shard.size), kind="stable")


def drawn(weights: np.ndarray[Any, Any], *, seed: int, epoch: int) -> Indices:
    """Return ``n`` indices, sorted: each as often as its share of ``weights`` (n,), rounded up or down.

    Systematic sampling: patch i is drawn floor or ceil of ``n w_i / sum(w)`` times, that often on average.
    `InvalidInputError` where a weight is negative or not finite, or all are zero.
    """
    weights = np.asarray(weights, np.float64)
    total = weights.sum()
    if not (np.isfinite(total) and total > 0 and weights.min() >= 0):
        raise InvalidInputError("weights must be finite, not negative and not all zero.")
    n = weights.size
    share = np.cumsum(weights) * (n / total)
    share[-1] = n  # whatever the sum was rounded to
    upto = np.floor(share + np.random.default_rng((seed, epoch, _DRAW)).uniform()).astype(np.int64)
    return np.repeat(np.arange(n), np.diff(upto, prepend=0))


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place in the endless sequence of epochs."""

    epoch: int = 0
    """The epoch, from 0."""
    start: int = 0
    """Number of its patches that are behind all ranks."""

    def __post_init__(self) -> None:
        if self.epoch < 0 or self.start < 0:
            raise InvalidInputError(f"epoch and start must not be negative, got {self}.")


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of an epoch that is one's own: each batch of a rank, of which a worker makes each ``workers``-th."""

    rank: int = 0
    """This process among those that train together."""
    ranks: int = 1
    """Their number."""
    worker: int = 0
    """This worker of the rank."""
    workers: int = 1
    """Their number."""
    skip: int = 0
    """Batches of this share to leave out at its beginning."""

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.ranks and 0 <= self.worker < self.workers and self.skip >= 0):
            raise InvalidInputError(f"rank and worker must be below their numbers, got {self}.")


@dataclass(frozen=True, kw_only=True)
class Deal:
    """The batches of an epoch, as positions in its order (n,); ``start`` of them are behind us already."""

    n: int
    """Patches of the epoch."""
    batch_size: int
    """Patches of a batch; the last batches may hold fewer."""
    ranks: int = 1
    """Number of processes that train together."""
    drop_last: bool = False
    """Leave out what does not fill a batch for every rank."""
    start: int = 0
    """Patches of the epoch that were delivered before."""

    def __post_init__(self) -> None:
        for name, least in (("n", 0), ("batch_size", 1), ("ranks", 1), ("start", 0)):
            if getattr(self, name) < least:
                raise InvalidInputError(f"{name} must be at least {least}, got {getattr(self, name)}.")

    @property
    def _dealt(self) -> int:
        """Patches that the steps from here deliver."""
        remaining = max(self.n - self.start, 0)
        full, rest = divmod(remaining, self.batch_size * self.ranks)
        if self.drop_last:
            return remaining - rest
        # Fewer than one a rank cannot be a step of their own: the step before gives up some of its own.
        is_last_step = rest >= self.ranks or (full > 0 and self.batch_size > 1)
        return remaining if is_last_step else remaining - rest

    @property
    def steps(self) -> int:
        """Batches that each rank gets from here."""
        return -(-self._dealt // (self.batch_size * self.ranks))

    @property
    def left_out(self) -> int:
        """Patches not delivered: with ``drop_last`` less than a step; else fewer than there are ranks."""
        return max(self.n - self.start, 0) - self._dealt

    def edge(self, step: int) -> int:
        """Return the number of patches of the order (n,) that are behind us after ``step`` steps from ``start``."""
        if step >= self.steps:
            return self.start + self._dealt
        return self.start + min(step * self.batch_size * self.ranks, self._dealt - self.ranks)

    def share(self, step: int, rank: int) -> tuple[int, int]:
        """Return the positions [a, b) of the order (n,) of the epoch that are the batch of ``rank`` in ``step``."""
        a, b = self.edge(step), self.edge(step + 1)
        return a + (b - a) * rank // self.ranks, a + (b - a) * (rank + 1) // self.ranks

    def worker_steps(self, worker: int, workers: int) -> range:
        """Return the steps of one worker: taken in turns, the workers' batches are the rank's in order."""
        return range(worker, self.steps, workers)
