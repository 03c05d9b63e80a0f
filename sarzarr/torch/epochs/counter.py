"""`EpochCounter`: a cursor that a training process and its DataLoader workers share, and nobody else."""

import os
import threading
import time
from collections.abc import MutableSequence
from functools import cache
from multiprocessing import RawArray
from multiprocessing.context import get_spawning_popen
from typing import Any, Final, cast
from weakref import WeakSet

from torch.utils.data import get_worker_info

from sarzarr.errors import InvalidInputError
from sarzarr.reader.cursor import HEAD, Cursor, Iteration
from sarzarr.reader.order import Position
from sarzarr.torch.epochs.group import current_group

_CURRENT, _BY, _PAGE, _SLOTS_AT = HEAD, HEAD + 2, HEAD + 3, HEAD + 7
"""Where words begin: of the last iteration of workers, of who began it, of `sarzarr.torch.epochs.board`, of slots."""
_SLOTS: Final = 64
_PATIENCE_S: Final = 600.0
_NOBODY, _WORKERS, _LOADED = range(3)


def _shared(head: list[int]) -> Any:
    """Return shared words (n,) int64 that begin so.

    The first array of a length may not be made while a process is pickled, which does not know its kind yet.
    """
    return RawArray("q", [*head, *[0] * (_SLOTS_AT + 3 * _SLOTS - len(head))])


class EpochCounter(Cursor):
    """A cursor in memory that a process shares with its DataLoader workers.

    Workers are made anew for each iteration, or live on, and each must know where it begins: the first worker takes
    the position and moves on at once, for nobody knows how many batches the loop has taken of those that workers make
    ahead. Any other process that gets it, be it forked or spawned, and a copy, have a cursor of their own, which
    begins where this one stood.
    """

    def __init__(self) -> None:
        self._last = None
        self._own: MutableSequence[int] | list[int] = _shared([])
        self._parents: MutableSequence[int] | None = None
        self._births: dict[int, int] = {}
        self._birth = (0, 0)
        self._enrol()

    def _enrol(self) -> None:
        _watch_forks()
        _living.add(self)

    @property
    def words(self) -> MutableSequence[int]:
        """The words (n,) int64: in a worker those of its training process, else this process's own."""
        if self._parents is not None and get_worker_info() is not None:
            return self._parents
        if isinstance(self._own, list):  # of a process that was forked, and is no worker
            self._own = _shared(self._own)
        return self._own

    @property
    def page(self) -> MutableSequence[int]:
        """The words (4,) of `sarzarr.torch.epochs.board.Board`."""
        page: Any = memoryview(cast("Any", self.words)).cast("B").cast("q")[_PAGE:_SLOTS_AT]
        return cast("MutableSequence[int]", page)

    @property
    def of_workers(self) -> Position | None:
        """The position at which workers began the last iteration, None where this process did or nobody has.

        `InvalidInputError` where workers resumed states of their own.
        """
        words = self.words
        if words[_BY] == _LOADED:
            raise InvalidInputError(
                "a state of the whole iteration was expected, got workers that go on from states of their own. Call "
                "state_dict() of the loader that has them."
            )
        begin = Position(epoch=int(words[_CURRENT]), start=int(words[_CURRENT + 1]))
        return begin if words[_BY] == _WORKERS else None

    def set(self, begin: Position) -> None:
        """Make the next iteration begin there; the last one is forgotten."""
        super().set(begin)
        self.words[_BY] = _NOBODY

    def _begin(self) -> Iteration:
        self.words[_BY] = _NOBODY
        return super()._begin()

    def take(self) -> Position:
        """Return where the iteration of some workers begins, and move on."""
        begin = self.upcoming
        self._take(begin, _WORKERS)
        return begin

    def go_on_after(self, begin: Position) -> None:
        """Make the next iteration begin an epoch after one that workers resume, each from a state of its own."""
        self._take(begin, _LOADED)

    def _take(self, begin: Position, by: int) -> None:
        self.move(begin)
        self.words[_CURRENT : _CURRENT + 2] = (begin.epoch, begin.start)
        self.words[_BY] = by

    def agree(self, worker: int, rounds: int) -> Position:
        """Return where this iteration begins in every worker of a loader, whenever each comes to begin.

        The first worker takes the position, and the others wait for it, 600 seconds at the most. They know each other
        by a key: the number of the process that was begun for the first of them, and of rounds that they have begun.
        """
        if self._parents is None:  # made in the worker: each counts for itself, and alike
            return self.take()
        words, (thread, birth) = self.words, self._birth
        key = hash((thread, birth - worker, rounds)) & 0x7FFFFFFFFFFFFFFF or 1
        slot, until = _SLOTS_AT + 3 * (key % _SLOTS), time.monotonic() + _PATIENCE_S
        if worker == 0:
            begin = self.take()
            words[slot + 1 : slot + 3] = (begin.epoch, begin.start)
            words[slot] = key  # last: it is what the others wait for
        while words[slot] != key:
            if time.monotonic() > until:
                raise InvalidInputError(
                    f"the first worker was expected to begin within {_PATIENCE_S:.0f} s, got nothing of it. "
                    "Start the loader again."
                )
            time.sleep(0.001)
        return Position(epoch=int(words[slot + 1]), start=int(words[slot + 2]))

    def before_birth(self) -> tuple[int, int]:
        """Make ready for a process that is begun now; return its number, among those that this thread begins."""
        thread = threading.get_ident()
        self._births[thread] = self._births.get(thread, 0) + 1
        _ = self.words
        return thread, self._births[thread]

    def after_fork(self) -> None:
        """Stand apart from the process that this one was forked from, unless this is to be a worker of it."""
        if get_worker_info() is None:
            thread = threading.get_ident()
            self._birth = thread, self._births.get(thread, 0)
            self._own, self._parents = self._copied(self._own), self._own

    @staticmethod
    def _copied(words: MutableSequence[int]) -> list[int]:
        return list(words[:_PAGE])  # the page is of one dataset on one rank

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "head": self._copied(self.words),
            "last": self._last,
            "parents": None,
            "birth": (0, 0),
        }
        if get_spawning_popen() is not None:
            state |= {"birth": self.before_birth(), "parents": self.words}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._own, self._last, self._births = _shared(state["head"]), state["last"], {}
        self._parents, self._birth = state["parents"], state["birth"]
        self._enrol()


_living: WeakSet[EpochCounter] = WeakSet()


def _before_fork() -> None:
    if counters := list(_living):
        current_group()
    for counter in counters:
        counter.before_birth()


def _after_fork() -> None:
    for counter in list(_living):
        counter.after_fork()


@cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
