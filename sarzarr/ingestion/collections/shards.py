"""Shards of a collection as units of work: each is written once, whole, and not again after an interruption."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from sarzarr.files import Lock
from sarzarr.store.journal import NO_ROOM
from sarzarr.tasks import compute, wave_size


class Shard(Protocol):
    """One shard: an address and files, as a worker gets them; nothing open."""

    @property
    def folder(self) -> str:
        """The folder of the part's arrays beside the store."""
        ...


_Work = TypeVar("_Work", bound=Shard)
_Receipt = TypeVar("_Receipt")


def done_once(
    works: Sequence[_Work],
    intact: Callable[[_Work], _Receipt | None],
    write: Callable[[_Work], _Receipt],
    lock: Lock,
    report: Callable[[_Work], None],
) -> list[_Receipt]:
    """Return the receipts of shards, in order: what is ``intact`` is there, the others are written by workers.

    ``report`` is called for each that is done. Raises `OSError` where the disk is full.
    """
    receipts: dict[int, _Receipt] = {}

    def take(result: tuple[int, Any, OSError | None]) -> None:
        at, receipt, error = result
        lock.show_life()
        if receipt is None:
            raise error or OSError("no receipt")
        receipts[at] = receipt
        report(works[at])

    left = []
    for at, work in enumerate(works):
        receipt = intact(work)
        if receipt is None:
            left.append((_done, (at, work, intact, write)))
        else:
            take((at, receipt, None))
    wave = wave_size()
    for first in range(0, len(left), wave):
        compute(left[first : first + wave], take)
    return [receipts[at] for at in range(len(works))]


def _done(
    at: int,
    work: _Work,
    intact: Callable[[_Work], _Receipt | None],
    write: Callable[[_Work], _Receipt],
) -> tuple[int, _Receipt | None, OSError | None]:
    """Write a shard on a worker; return its number and receipt, or why the disk failed."""
    try:
        receipt = intact(work) or write(work)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return at, None, OSError(error.errno, error.strerror, error.filename or work.folder)
    return at, receipt, None
