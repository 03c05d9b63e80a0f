"""`Cursor`: the position at which the next iteration begins, and the law by which it moves on."""

import logging
from collections.abc import Callable, Generator, Iterator, MutableSequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sarzarr.errors import InvalidInputError
from sarzarr.reader.order import Position

T = TypeVar("T")
log = logging.getLogger(__name__)
EPOCH, START, MOVES, SETS, HEAD = range(5)
"""Words of a cursor: the position, how often an iteration moved it, how often it was set; their number."""
NOBODY: Final = -1
"""The number of an iteration that was compared with no other rank's."""


@dataclass
class Iteration:
    """An iteration in its course."""

    begin: Position
    """The position at which it began."""
    moves: int
    """Moves of the cursor before it."""
    sets: int
    """Settings of the cursor before it."""
    taken: int = 0
    """Batches that were taken of it."""


def compare_nothing(begin: Position) -> int:
    """Return `NOBODY`: of the only process there is."""
    return NOBODY


def end_nothing(number: int) -> None:
    """Do nothing at the end of an iteration."""


class Cursor:
    """The position at which the next iteration begins.

    It moves on to the next epoch when an iteration is asked for its second batch, or comes to its end: a look at one
    batch moves nobody. An iteration is at its first batch when the cursor is where it began, else it is refused.
    """

    def __init__(self) -> None:
        self._words: MutableSequence[int] = [0] * HEAD
        self._last: Iteration | None = None

    @property
    def words(self) -> MutableSequence[int]:
        """The words (n,) that this process reads and writes."""
        return self._words

    @property
    def upcoming(self) -> Position:
        """The position at which the next iteration begins."""
        return Position(epoch=int(self.words[EPOCH]), start=int(self.words[START]))

    @property
    def standing(self) -> tuple[Position, int]:
        """The position at which the last iteration began, and its batches taken; of none, the upcoming one and 0."""
        return (self.upcoming, 0) if self._last is None else (self._last.begin, self._last.taken)

    def set(self, begin: Position) -> None:
        """Make the next iteration begin there; the last one is forgotten."""
        if begin != self.upcoming:
            self.words[EPOCH], self.words[START] = begin.epoch, begin.start
            self.words[SETS] += 1
        self._last = None

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration deliver ``epoch``: what a loaded state left of it, else from its beginning."""
        upcoming, wanted = self.upcoming, Position(epoch=epoch)
        if upcoming.epoch == epoch:
            wanted = upcoming
        elif upcoming.start:
            log.warning(
                "the loaded position, epoch %d from patch %d on, is dropped: set_epoch(%d) begins another epoch. "
                "Call set_epoch() before load_state_dict(), or with the epoch of the state.",
                upcoming.epoch, upcoming.start, epoch,
            )  # fmt: skip
        self.set(wanted)

    def move(self, begin: Position) -> None:
        """Make the next iteration begin an epoch after one that began there."""
        self.words[EPOCH], self.words[START] = begin.epoch + 1, 0
        self.words[MOVES] += 1

    def iterate(
        self,
        batches: Callable[[Position], Generator[T, None, None]],
        compare: Callable[[Position], int] = compare_nothing,
        end: Callable[[int], None] = end_nothing,
    ) -> Iterator[T]:
        """Return an iterator over ``batches`` from the position that is the upcoming one at its first batch.

        ``compare`` is called with it before the cursor moves on, and ``end`` with what that returned at the end.
        """
        self._last = None
        return self._iterate(batches, compare, end)

    def _iterate(self, batches: Any, compare: Any, end: Any) -> Iterator[Any]:
        now, number = self._begin(), NOBODY
        with closing(batches(now.begin)) as source:  # an error ends its threads, whoever keeps the error
            for batch in source:
                now.taken += 1
                self._last = now
                try:
                    yield batch
                except GeneratorExit:
                    if now.taken == 1 and self._last is now:  # it was a look
                        self._last = None
                    raise
                if now.taken == 1:
                    number = self._settle(now, compare)
        if not now.taken:
            number = self._settle(now, compare)
        end(number)

    def _begin(self) -> Iteration:
        self._last = Iteration(self.upcoming, int(self.words[MOVES]), int(self.words[SETS]))
        return self._last

    def _settle(self, now: Iteration, compare: Callable[[Position], int]) -> int:
        if self.words[MOVES] != now.moves:
            raise InvalidInputError(
                f"one iteration at a time was expected, got two that began at epoch {now.begin.epoch}: another one "
                "has gone on since this one gave its first batch. Begin a new one, or make a dataset for each."
            )
        number = compare(now.begin)
        if self.words[SETS] == now.sets:
            self.move(now.begin)
        else:  # somebody said since where the next one begins
            self.words[MOVES] += 1
        return number
