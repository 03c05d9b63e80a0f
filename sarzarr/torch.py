"""The PyTorch face of `sarzarr.reader`: the one module that imports torch."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr.errors import InvalidInputError, MissingExtraError
from sarzarr.reader import PatchReader, Position, Share
from sarzarr.store import Store

try:
    import torch
except ImportError:
    raise MissingExtraError(
        "PyTorch was expected, got no module named 'torch'. Install it with `pip install 'sarzarr[torch]'`."
    ) from None
from torch.utils.data import IterableDataset, get_worker_info


class ZarrPatchDataset(IterableDataset[Any]):
    """A store's patches as batches: pass it to ``DataLoader(dataset, batch_size=None)``.

    Yields (N, C, size, size) float32 tensors in [0, 1]; with ``flags`` a pair of tensors, with ``with_meta``
    a dict, as `sarzarr.PatchReader`. Each iteration is the next epoch, whose order is a function of
    ``(seed, epoch)``. Ranks of ``torch.distributed`` get disjoint batches, equally many; so do DataLoader
    workers, whose batches come in the order in which one process would make them.

    Parameters
    ----------
    store
        A `Store`, or its path.
    transform
        Called with each batch, after augmentation.
    pin_memory
        Make batches in page-locked memory, from which ``.to("cuda", non_blocking=True)`` does not wait. For
        ``num_workers=0``; with workers it is the DataLoader that pins.
    **options
        The fields of `sarzarr.reader.ReadOptions`: split, scenes, polarizations, batch_size, shuffle, ...
    """

    def __init__(
        self,
        store: Store | str | Path,
        *,
        transform: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if pin_memory and not torch.cuda.is_available():
            raise InvalidInputError("pin_memory=True needs CUDA, got a machine without. Leave it out.")
        self.reader = PatchReader(store, **options)
        self.transform = transform
        self.pin_memory = pin_memory
        self._clock = _Clock()
        self._ranks = (0, 1)
        self._rounds = 0
        self._worker_state: dict[str, Any] | None = None
        self._resume: Mapping[str, Any] | None = None

    # -------------------------------------------------------------- what is delivered
    @property
    def preprocessing_params(self) -> dict[str, float]:
        """``{"vmin", "vmax"}`` in dB of the batches; `MixedBoundsError` where the selection has several."""
        return self.reader.preprocessing_params

    @property
    def left_out(self) -> int:
        """How many patches an epoch does not deliver; which ones differs from epoch to epoch if shuffled."""
        return self.reader.deal(ranks=self._rank()[1]).left_out

    def __len__(self) -> int:
        return self.reader.deal(ranks=self._rank()[1]).steps

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        if info is None:
            if self.pin_memory:
                self.reader.memory(make=_pinned_block)
            yield from self._counted(self._clock.take(by_workers=False), Share(**self._mine))
            return
        begin, skip = self._begin_worker(info)
        share = Share(**self._mine, worker=info.id, workers=info.num_workers, skip=skip)
        self._worker_state = {
            **self.reader.state_at(begin),
            "worker": info.id,
            "workers": info.num_workers,
            "skip": skip,
        }
        for batch in self._made(begin, share):
            self._worker_state["skip"] += 1
            yield batch

    def _counted(self, begin: Position, share: Share) -> Iterator[Any]:
        for batch in self._made(begin, share):
            self._clock.taken += 1
            yield batch

    def _made(self, begin: Position, share: Share) -> Iterator[Any]:
        for batch in self.reader.batches(begin, share):
            tensors = _as_tensors(batch)
            yield tensors if self.transform is None else self.transform(tensors)

    # -------------------------------------------------------------- epochs, ranks and workers
    @property
    def epoch(self) -> int:
        """The epoch that the next iteration delivers."""
        return self._clock.upcoming.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration deliver ``epoch`` from its beginning, in workers that live on, too."""
        self._clock.set(Position(epoch=epoch))

    def _begin_worker(self, info: Any) -> tuple[Position, int]:
        """Return where the iteration that begins now starts, and how many of this worker's batches to skip."""
        self._rounds += 1
        # The loader draws a new base seed for each set of workers; workers that live on count rounds.
        key = (info.seed - info.id + self._rounds * 0x9E3779B97F4A7C15) & 0x7FFFFFFFFFFFFFFF
        skip = 0
        if self._resume is not None:
            skip = int(self._resume["skip"])
            self._clock.set(self.reader.position_of(self._resume))
            self._resume = None
        if info.id == 0:
            self._clock.announce(key)
        return self._clock.wait(key), skip

    @property
    def _mine(self) -> dict[str, int]:
        rank, ranks = self._rank()
        return {"rank": rank, "ranks": ranks}

    def _rank(self) -> tuple[int, int]:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            self._ranks = distributed.get_rank(), distributed.get_world_size()
        return self._ranks

    # -------------------------------------------------------------- resuming
    def state_dict(self, taken: int | None = None) -> dict[str, Any]:
        """Return where training is: batches that were taken are behind it, on every rank.

        The state may be loaded by any number of ranks and workers. Within a worker (of a loader that keeps
        a state a worker) it is that worker's, and goes to the same worker among as many.

        Parameters
        ----------
        taken
            How many batches of this iteration the training loop has taken. Needed where DataLoader workers
            make them: they are ahead of it.

        Raises
        ------
        InvalidInputError
            ``taken`` is needed, and was left out.
        """
        if get_worker_info() is not None and self._worker_state is not None:
            return dict(self._worker_state)
        begin, counted = self._clock.current
        if begin is None:
            return self.reader.state_at(self._clock.upcoming)
        if counted is None and taken is None:
            raise InvalidInputError(
                "the number of batches taken was expected, got none: DataLoader workers are ahead of the loop. "
                "Pass state_dict(taken=...), counted from the beginning of this iteration."
            )
        done = taken if taken is not None else counted
        return self.reader.state_at(begin, taken=done or 0, ranks=self._rank()[1])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration go on where ``state`` was taken."""
        at = self.reader.position_of(state)
        info = get_worker_info()
        if "worker" not in state:
            self._clock.set(at)
            return
        mine = None if info is None else (info.id, info.num_workers)
        if mine != (state["worker"], state["workers"]):
            raise InvalidInputError(
                f"the state of worker {state['worker']} of {state['workers']} was expected to go to the same, "
                f"got {mine}. Take it in the training process to resume with other workers."
            )
        self._resume = dict(state)

    def __getstate__(self) -> dict[str, Any]:
        self._rank()  # a spawned worker knows no process group
        return self.__dict__


# ------------------------------------------------------------------ what the processes of a dataset share
_SLOTS: Final = 64
_PATIENCE_S: Final = 600.0
_NEXT, _CURRENT, _TAKEN, _HEAD = slice(0, 2), slice(2, 4), 4, 5
_NONE, _BY_WORKERS = -1, -2


class _Clock:
    """What the next iteration delivers, in memory that a dataset's processes share.

    In a multi-process loader the first worker takes the epoch, and tells the others under a key that only
    the workers of one iteration know: they all agree, whenever each of them comes to begin.
    """

    def __init__(self) -> None:
        self._cells = torch.zeros(_HEAD + 3 * _SLOTS, dtype=torch.int64)
        self._cells[_TAKEN] = _NONE
        self._cells.share_memory_()  # type: ignore[no-untyped-call]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        self._cells.share_memory_()  # type: ignore[no-untyped-call]  # no more than a look if it is shared

    @property
    def upcoming(self) -> Position:
        """Where the next iteration begins."""
        epoch, start = self._cells[_NEXT].tolist()
        return Position(epoch=epoch, start=start)

    @property
    def current(self) -> tuple[Position | None, int | None]:
        """Where the last iteration began and how many batches were taken; None for what is not known."""
        taken = int(self._cells[_TAKEN])
        epoch, start = self._cells[_CURRENT].tolist()
        return (
            None if taken == _NONE else Position(epoch=epoch, start=start),
            None if taken in (_NONE, _BY_WORKERS) else taken,
        )

    @property
    def taken(self) -> int:
        """Batches taken of the iteration in this process."""
        return int(self._cells[_TAKEN])

    @taken.setter
    def taken(self, count: int) -> None:
        self._cells[_TAKEN] = count

    def set(self, at: Position) -> None:
        """Make the next iteration begin at ``at``; the last one is forgotten."""
        self._cells[_NEXT] = torch.tensor([at.epoch, at.start])
        self._cells[_TAKEN] = _NONE

    def take(self, *, by_workers: bool) -> Position:
        """Return where an iteration begins, and make the next one begin an epoch later."""
        at = self.upcoming
        self.set(Position(epoch=at.epoch + 1))
        self._cells[_CURRENT] = torch.tensor([at.epoch, at.start])
        self._cells[_TAKEN] = _BY_WORKERS if by_workers else 0
        return at

    def announce(self, key: int) -> None:
        """Take, and let the workers that know ``key`` know."""
        at, slot = self.take(by_workers=True), self._slot(key)
        slot[1], slot[2] = at.epoch, at.start
        slot[0] = key  # last: it is what the others wait for

    def wait(self, key: int) -> Position:
        """Return what was announced under ``key``, as soon as it was."""
        slot, until = self._slot(key), time.monotonic() + _PATIENCE_S
        while int(slot[0]) != key:
            if time.monotonic() > until:
                raise InvalidInputError(
                    f"the first worker was expected to begin within {_PATIENCE_S:.0f} s, got nothing of it. "
                    "Start the loader again."
                )
            time.sleep(0.001)
        return Position(epoch=int(slot[1]), start=int(slot[2]))

    def _slot(self, key: int) -> torch.Tensor:
        slot: torch.Tensor = self._cells[_HEAD:].view(_SLOTS, 3)[key % _SLOTS]
        return slot


# ------------------------------------------------------------------ tensors
def _as_tensors(batch: Any) -> Any:
    if isinstance(batch, np.ndarray):
        return torch.from_numpy(batch)
    if isinstance(batch, tuple):
        return tuple(_as_tensors(part) for part in batch)
    if isinstance(batch, dict):
        return {key: _as_tensors(part) for key, part in batch.items()}
    return batch


def _pinned_block(nbytes: int) -> memoryview:
    block: memoryview = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy().data
    return block
