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

_SLOTS: Final = 64
_PATIENCE_S: Final = 600.0


class ZarrPatchDataset(IterableDataset[Any]):
    """A store's patches as batches: pass it to ``DataLoader(dataset, batch_size=None)``.

    Yields (N, C, size, size) float32 tensors in [0, 1]; with ``flags`` a pair of tensors. Every keyword of
    `sarzarr.reader.ReadOptions` is accepted. Each iteration is the next epoch; ranks of
    ``torch.distributed`` and DataLoader workers get disjoint batches, ranks equally many.

    Parameters
    ----------
    store
        A `Store`, or its path.
    transform
        Called with each batch, after augmentation.
    **options
        The fields of `sarzarr.reader.ReadOptions`: split, scenes, polarizations, batch_size, shuffle, ...
    """

    def __init__(
        self, store: Store | str | Path, *, transform: Callable[[Any], Any] | None = None, **options: Any
    ) -> None:
        super().__init__()
        self.reader = PatchReader(store, **options)
        self.transform = transform
        self._clock = _Clock()
        self._ranks = (0, 1)
        self._rounds = 0
        self._behind: dict[str, int] | None = None
        self._resume: Mapping[str, int] | None = None

    # -------------------------------------------------------------- what is delivered
    @property
    def preprocessing_params(self) -> dict[str, float]:
        """``{"vmin", "vmax"}`` in dB of the batches; `MixedBoundsError` where the selection has several."""
        return self.reader.preprocessing_params

    def __len__(self) -> int:
        return self.reader.deal(ranks=self._rank()[1]).steps

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        rank, ranks = self._rank()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        begin, skip = self._begin(info)
        share = Share(rank=rank, ranks=ranks, worker=worker, workers=workers, skip=skip)
        self._behind = {"epoch": begin.epoch, "start": begin.start, "taken": skip}
        if workers > 1:
            self._behind |= {"worker": worker, "workers": workers}
        for batch in self.reader.batches(begin, share):
            self._behind["taken"] += 1
            tensors = _as_tensors(batch)
            yield tensors if self.transform is None else self.transform(tensors)

    # -------------------------------------------------------------- epochs, ranks and workers
    @property
    def epoch(self) -> int:
        """The epoch that the next iteration delivers."""
        return self._clock.upcoming.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration deliver ``epoch`` from its beginning, in workers that live on, too."""
        self._clock.upcoming = Position(epoch=epoch)

    def _begin(self, info: Any) -> tuple[Position, int]:
        """Return where an iteration that begins now starts, and how many batches of it to skip."""
        if info is None:
            return self._clock.take(), 0
        self._rounds += 1
        # The loader draws a new base seed for each set of workers; workers that live on count rounds.
        key = (info.seed - info.id + self._rounds * 0x9E3779B97F4A7C15) & 0x7FFFFFFFFFFFFFFF
        if info.id == 0:
            self._clock.announce(key)
        return self._clock.wait(key), 0

    def _rank(self) -> tuple[int, int]:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            self._ranks = distributed.get_rank(), distributed.get_world_size()
        return self._ranks

    def __getstate__(self) -> dict[str, Any]:
        self._rank()  # a spawned worker knows no process group
        return self.__dict__


class _Clock:
    """What the next iteration delivers, shared by a dataset's processes.

    In a multi-process loader the first worker takes the epoch, and tells the others under a key that only
    the workers of one iteration know: all of one iteration agree, whenever each of them comes to begin.
    """

    def __init__(self) -> None:
        self._cells = torch.zeros(2 + 3 * _SLOTS, dtype=torch.int64)
        self._cells.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def upcoming(self) -> Position:
        """Where the next iteration begins."""
        return Position(epoch=int(self._cells[0]), start=int(self._cells[1]))

    @upcoming.setter
    def upcoming(self, at: Position) -> None:
        self._cells[0], self._cells[1] = at.epoch, at.start

    def take(self) -> Position:
        """Return where an iteration begins, and make the next one begin an epoch later."""
        at = self.upcoming
        self.upcoming = Position(epoch=at.epoch + 1)
        return at

    def announce(self, key: int) -> None:
        """Take, and let the workers that know ``key`` know."""
        at, slot = self.take(), self._slot(key)
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
        slot: torch.Tensor = self._cells[2:].view(_SLOTS, 3)[key % _SLOTS]
        return slot


def _as_tensors(batch: Any) -> Any:
    if isinstance(batch, tuple):
        return tuple(_as_tensors(part) for part in batch)
    return torch.from_numpy(batch) if isinstance(batch, np.ndarray) else batch
