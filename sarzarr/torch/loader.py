"""The loader that training frameworks leave as it is."""

from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.data import DataLoader

from sarzarr.errors import InvalidInputError
from sarzarr.torch.dataset import ZarrPatchDataset


class PatchLoader:
    """A dataset's whole batches, an epoch an iteration, that no framework cuts, shuffles or shares out once more.

    It is no DataLoader: Lightning, Accelerate and their like wrap those, and hand any other iterable on. Its state
    counts the batches that the training loop has taken, with DataLoader workers, too.

    Parameters
    ----------
    dataset
        A `ZarrPatchDataset`, which knows its rank by itself.
    num_workers
        As of a DataLoader; they live on from epoch to epoch. Without, threads of this process read ahead.
    begins
        Called with this loader as an iteration asks for its first batch: the last moment for `set_epoch`.
    **options
        Further options of a DataLoader.
    """

    def __init__(
        self,
        dataset: ZarrPatchDataset,
        num_workers: int = 0,
        *,
        begins: Callable[["PatchLoader"], None] | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(dataset, ZarrPatchDataset) or options.get("batch_size") is not None:
            raise InvalidInputError(
                f"a dataset of whole batches was expected, got {type(dataset).__name__} and batch_size="
                f"{options.get('batch_size')}. Pass a ZarrPatchDataset, and the batch size to it."
            )
        options = {
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": num_workers > 0,
            **options,
        }
        self.source = dataset
        self._batches: DataLoader[Any] = DataLoader(
            dataset, num_workers=num_workers, **options | {"batch_size": None}
        )
        self._begins = begins
        self._taken: int | None = None
        self._loaded_epoch = -1
        self._is_over = False

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Any]:
        # A generator: it begins with the first batch that is asked for. An iterator that is left moves nobody.
        if self._begins is not None:
            self._begins(self)
        if self._is_over:
            self._is_over = False
            return
        self._taken = 0
        for batch in self._batches:
            self._taken += 1
            try:
                yield batch
            except GeneratorExit:
                if self._taken == 1 and not self._batches.num_workers:  # it was a look
                    self._taken = None
                raise

    @property
    def dataset(self) -> Any:
        """Nothing: who takes a loader's dataset reads it anew, and would skip by reading."""
        raise AttributeError(
            "a loader that is read as it is was expected, got a request for its dataset. Call load_state_dict() of "
            "PatchLoader in the place of skipping batches; HF Trainer then takes ignore_data_skip=True."
        )

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration delivers."""
        return self.source.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration deliver ``epoch``, of one that a loaded state is in what is left.

        Of epochs that the loaded state has behind it that is nothing: ``for epoch in range(n)`` goes on where it was.
        """
        self._is_over = epoch < self._loaded_epoch
        if self._is_over:
            return
        self._loaded_epoch, self._taken = -1, 0
        self.source.set_epoch(epoch)

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """An object whose ``sampler`` is this loader: Lightning tells the epoch to that of whatever it is given."""
        return SimpleNamespace(sampler=self)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of training: the batches that the loop has taken are behind it, on every rank."""
        return self.source.state_dict(taken=self._taken)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration go on where ``state`` was taken, by any number of ranks and workers."""
        self.source.load_state_dict(state)
        self._taken, self._is_over, self._loaded_epoch = None, False, int(state["epoch"])

    def __repr__(self) -> str:
        return f"PatchLoader({self.source!r}, num_workers={self._batches.num_workers})"
