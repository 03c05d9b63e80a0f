"""The epoch that comes next, in memory that the processes of one dataset share.

A dataset is copied into each worker of a loader, and workers may outlive an epoch or be made anew for each: the
next one must be the same for all of them, and be known to the training process.
"""

import time
from multiprocessing import RawArray
from multiprocessing.context import get_spawning_popen
from typing import Any, Final

from sarzarr.errors import InvalidInputError
from sarzarr.reader.order import Position

_SLOTS: Final = 64
_PATIENCE_S: Final = 600.0
_NEXT, _CURRENT, _TAKEN, _HEAD = 0, 2, 4, 5
_NONE, _BY_WORKERS = -1, -2


class EpochCounter:
    """The position at which the next iteration begins, and the batches taken of the last one, in int64 words.

    Shared with a process that is forked or spawned with it; a copy of it, or a pickle, is another counter.
    """

    def __init__(self) -> None:
        self._words: Any = RawArray("q", _HEAD + 3 * _SLOTS)
        self._words[_TAKEN] = _NONE

    def __getstate__(self) -> Any:
        return list(self._words) if get_spawning_popen() is None else self._words

    def __setstate__(self, words: Any) -> None:
        self._words = RawArray("q", words) if isinstance(words, list) else words

    @property
    def upcoming(self) -> Position:
        """The position at which the next iteration begins."""
        return self._position(_NEXT)

    @property
    def current(self) -> tuple[Position | None, int | None]:
        """The position at which the last iteration began, and its batches taken; None for what is not known."""
        taken = int(self._words[_TAKEN])
        return None if taken == _NONE else self._position(_CURRENT), taken if taken >= 0 else None

    def count(self) -> None:
        """Count one more batch as taken, of an iteration in this process."""
        self._words[_TAKEN] += 1

    def set(self, begin: Position) -> None:
        """Make the next iteration begin there; the last one is forgotten."""
        self._words[_NEXT : _NEXT + 2] = (begin.epoch, begin.start)
        self._words[_TAKEN] = _NONE

    def take(self, *, by_workers: bool = False) -> Position:
        """Return where an iteration begins, and make the next one begin an epoch later."""
        begin = self.upcoming
        self.set(Position(epoch=begin.epoch + 1))
        self._words[_CURRENT : _CURRENT + 2] = (begin.epoch, begin.start)
        self._words[_TAKEN] = _BY_WORKERS if by_workers else 0
        return begin

    def agree(self, base_seed: int, rounds: int, *, is_first: bool) -> Position:
        """Return where this iteration begins in every worker of a loader, whenever each comes to begin.

        The first worker takes the position, and the others wait for it, 600 seconds at the most. They know each other
        by a key: the base seed that the loader drew for them, and the number of rounds that they have begun.
        """
        key = (base_seed + rounds * 0x9E3779B97F4A7C15) & 0x7FFFFFFFFFFFFFFF
        slot, until = _HEAD + 3 * (key % _SLOTS), time.monotonic() + _PATIENCE_S
        if is_first:
            begin = self.take(by_workers=True)
            self._words[slot + 1 : slot + 3] = (begin.epoch, begin.start)
            self._words[slot] = key  # last: it is what the others wait for
        while self._words[slot] != key:
            if time.monotonic() > until:
                raise InvalidInputError(
                    f"the first worker was expected to begin within {_PATIENCE_S:.0f} s, got nothing of it. "
                    "Start the loader again."
                )
            time.sleep(0.001)
        return self._position(slot + 1)

    def _position(self, word: int) -> Position:
        return Position(epoch=int(self._words[word]), start=int(self._words[word + 1]))
