"""`Board`: where ranks say which iteration of a dataset they begin, and see that they agree."""

import json
import logging
import time
import zlib
from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Any, Final

from sarzarr.errors import InvalidInputError
from sarzarr.reader.cursor import NOBODY
from sarzarr.text import listed
from sarzarr.torch.epochs.group import Group

log = logging.getLogger(__name__)
TOLD_AFTER_S: Final = 10.0
"""Seconds that a rank waits for others before it says so."""
PATIENCE_S: Final = 1800.0
"""Seconds that a rank waits for others, which is also how long gloo waits."""
GROUP, ORDINAL, BEGUN, LEFT = range(4)
"""Words of a page: the group, the dataset among its like, iterations begun in that group, and left."""
_REMEDY: Final = (
    "Iterate alike on all ranks, look at a batch with peek(), and pass ranks=1 where one rank is to read "
    "everything."
)


@dataclass(frozen=True, kw_only=True)
class RankPosition:
    """The position at which a rank begins an iteration, and what makes its order: the same on all ranks."""

    epoch: int
    """The epoch."""
    start: int
    """Patches of it that are behind all ranks."""
    skip: int = 0
    """Batches of the first worker that are behind it."""
    order: dict[str, Any]
    """What the order and its deal depend on, by name."""

    def text(self, other: "RankPosition") -> str:
        """Return the position, and what of its order is not the other's, for people."""
        skipped = f" and {self.skip} batches" if self.skip else ""
        order = ", ".join(f"{k} {v}" for k, v in self.order.items() if other.order.get(k) != v)
        return f"epoch {self.epoch} from patch {self.start}{skipped} on{f' ({order})' if order else ''}"


@dataclass(frozen=True, kw_only=True)
class Board:
    """The page of one dataset in the store of a process group.

    No collective is called, so that a rank may look at a batch alone. An iteration is compared when the cursor moves
    on; none begins before all ranks have left the one before it, and none ends before all ranks have begun it. A rank
    that waits says so after 10 seconds, and gives up after 30 minutes.
    """

    group: Group
    """The process group."""
    dataset: str
    """What the dataset is, the same on all ranks, whatever its order."""

    def compare(self, words: MutableSequence[int], mine: RankPosition) -> int:
        """Return the number of an iteration in this group, once no rank that has begun it is at another position.

        `InvalidInputError` that names both where one does. ``words`` (4,) are the page.
        """
        try:
            if (store := self.group.connect()) is None:
                return NOBODY
            self._turn_to(store, words)
            number = int(words[BEGUN])
            if number:
                if words[LEFT] < number:
                    self._leave(store, words)
                self._wait(
                    store,
                    f"{self._key(words, number - 1)}/left",
                    f"left the iteration before epoch {mine.epoch}",
                )
            key, written = self._key(words, number), json.dumps([self.group.rank, vars(mine)], default=float)
            rank, theirs = json.loads(store.compare_set(key, "", written))
            if theirs != json.loads(written)[1]:
                one, other = mine.text(RankPosition(**theirs)), RankPosition(**theirs).text(mine)
                said = (
                    f"all ranks at one position were expected, got rank {self.group.rank} at {one} and rank {rank} "
                    f"at {other}. Call set_epoch() or load the same state on all ranks, iterate alike on all, and "
                    "look at a batch with peek()."
                )
                store.set(f"{self._base(words)}/refused", said)
                raise InvalidInputError(said)
            words[BEGUN] = number + 1
            self._tick(store, f"{key}/begun")
        except RuntimeError as error:
            log.warning(
                "ranks were not compared at epoch %d: their store does not answer (%s).", mine.epoch, error
            )
            return NOBODY
        return number

    def end(self, words: MutableSequence[int], number: int) -> None:
        """Say that this rank is at the end of that iteration, and wait until all ranks have begun it."""
        if number == NOBODY or words[LEFT] > number:
            return
        try:
            if (store := self.group.connect()) is not None:
                self._leave(store, words)
                self._wait(
                    store, f"{self._key(words, number)}/begun", "begun the iteration that is at its end here"
                )
        except RuntimeError as error:
            log.info("the store of ranks does not answer at the end of an iteration (%s).", error)

    def _turn_to(self, store: Any, words: MutableSequence[int]) -> None:
        """Open the dataset's page in this group, among those of others that are like it."""
        group = zlib.crc32(self.group.id.encode()) + 1
        if words[GROUP] != group:
            like = store.add(f"sarzarr/{self.group.id}/{self.dataset}/{self.group.rank}", 1)
            words[GROUP], words[ORDINAL], words[BEGUN], words[LEFT] = group, like, 0, 0

    def _base(self, words: MutableSequence[int]) -> str:
        return f"sarzarr/{self.group.id}/{self.dataset}-{words[ORDINAL]}"

    def _key(self, words: MutableSequence[int], number: int) -> str:
        return f"{self._base(words)}/{number}"

    def _leave(self, store: Any, words: MutableSequence[int]) -> None:
        words[LEFT] = words[BEGUN]
        self._tick(store, f"{self._key(words, words[BEGUN] - 1)}/left")

    def _tick(self, store: Any, key: str) -> None:
        store.set(f"{key}/{self.group.rank}", "1")
        store.add(key, 1)

    def _wait(self, store: Any, key: str, done: str) -> None:
        """Return when all ranks have ticked ``key``."""
        since, pause, said = time.monotonic(), 0.001, ""
        refused = f"{key.rsplit('/', 2)[0]}/refused"
        while store.add(key, 0) < self.group.ranks:
            if store.check([refused]):
                raise InvalidInputError(store.get(refused).decode())
            waited = time.monotonic() - since
            if not said and waited > min(TOLD_AFTER_S, PATIENCE_S):
                others = [str(r) for r in range(self.group.ranks) if not store.check([f"{key}/{r}"])]
                said = (
                    f"all ranks were expected to have {done}, got nothing of rank {listed(others)} "
                    f"for {waited:.0f} s. {_REMEDY}"
                )
                log.warning("%s", said)
            if waited > PATIENCE_S:
                raise InvalidInputError(said)
            self.group.pause(pause)
            pause = min(2 * pause, 0.25)
