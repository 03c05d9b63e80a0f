"""The iterable dataset over a store's patches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack, cast

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from sarzarr.errors import InvalidInputError
from sarzarr.keywords import shows_options
from sarzarr.reader.epochs import EpochReader
from sarzarr.reader.groups import GroupReader
from sarzarr.reader.moments import ChannelMoments
from sarzarr.reader.options import GroupKeywords, ReadKeywords, ReadOptions, SampleKeywords
from sarzarr.reader.order import Position, Share
from sarzarr.reader.reader import PatchReader
from sarzarr.reader.samples import SampleReader
from sarzarr.store.store import AnyStore
from sarzarr.torch.epoch_counter import EpochCounter

_WIDER = {"uint16": "int32", "uint32": "int64"}
"""The dtype of layers whose own torch can hold, but hardly compute with."""


@shows_options(ReadOptions, ReadKeywords)
class ZarrPatchDataset(IterableDataset[Any]):
    """A store's patches as batches: pass it to ``DataLoader(dataset, batch_size=None)``.

    Yields (N, C, size, size) float32 tensors in [0, 1]; with ``flags``, ``boxes``, ``layers`` or ``with_meta``
    what `sarzarr.PatchReader` then yields, in tensors; layers of uint16 come as int32, of uint32 as int64. Each
    iteration is the next epoch, whose order is a function of ``(seed, epoch)``. Ranks of ``torch.distributed`` get
    disjoint batches, equally many; those of DataLoader workers come in the order in which one process makes them.

    Parameters
    ----------
    store
        A `Store`, or its path; a list of them, read as one; or a reader: `sarzarr.PatchReader` says more.
    samples
        Name of a set of samples, delivered in the place of patches of scenes; see `sarzarr.SampleReader`.
    groups
        A `sarzarr.PtychoConfig`, or any object with its attributes: deliver groups (N, C, rows, columns) of frames
        of a scan; see `sarzarr.GroupReader`.
    transform
        Called with each batch, after augmentation.
    channels
        Deliver one channel as so many equal ones, which cost no memory: detectors ask for 3.
    pin_memory
        Make batches in page-locked memory, from which ``.to("cuda", non_blocking=True)`` does not wait, where there
        are no workers; with them it is the DataLoader that pins.
    **options
        The fields of `sarzarr.reader.options.ReadOptions`; of samples, those that `sarzarr.SampleReader` takes.
    """

    def __init__(
        self,
        store: AnyStore | EpochReader | Sequence[Any],
        *,
        samples: str | None = None,
        groups: Any = None,
        transform: Callable[[Any], Any] | None = None,
        channels: int | None = None,
        pin_memory: bool = False,
        **options: Unpack[ReadKeywords],
    ) -> None:
        super().__init__()
        if channels is not None and channels < 1:
            raise InvalidInputError(f"channels must be at least 1, got {channels}.")
        if pin_memory and not torch.cuda.is_available():
            raise InvalidInputError("pin_memory=True needs CUDA, got a machine without. Leave it out.")
        self.reader = _reader_of(store, samples, groups, options)
        self.transform = transform
        self.channels = channels
        self.pin_memory = pin_memory
        if channels is not None and self.reader.recipe.images.array.shape[1] != 1:
            raise InvalidInputError("channels= needs patches of one channel, got several. Leave it out.")
        self._counter = EpochCounter()
        self._ranks = (0, 1)
        self._rounds = 0
        self._worker_state: dict[str, Any] | None = None
        self._resume: Mapping[str, Any] | None = None

    @property
    def preprocessing_params(self) -> dict[str, Any]:
        """``{"vmin", "vmax"}`` in dB of the batches; `MixedBoundsError` where the selection has several."""
        return self.reader.preprocessing_params

    def statistics(self) -> ChannelMoments:
        """Return mean and std of each channel, as `PatchReader.statistics`, before any ``transform``."""
        return self._patches("statistics").statistics()

    def plot(self, batch: Any, *, patches: int = 8) -> Any:
        """Return a matplotlib figure of a batch as this dataset delivers it, as `PatchReader.plot`."""
        return self._patches("plot").plot(batch, patches=patches)

    def __or__(self, other: "ZarrPatchDataset") -> "ZarrPatchDataset":
        """Return a dataset of the patches of both, each once, delivered as those of this one."""
        return self._of(self._patches("|") | other._patches("|"))

    def __and__(self, other: "ZarrPatchDataset") -> "ZarrPatchDataset":
        """Return a dataset of the patches that both deliver, delivered as those of this one."""
        return self._of(self._patches("&") & other._patches("&"))

    def _of(self, reader: PatchReader) -> "ZarrPatchDataset":
        return ZarrPatchDataset(
            reader, transform=self.transform, channels=self.channels, pin_memory=self.pin_memory
        )

    def _patches(self, what: str) -> PatchReader:
        if isinstance(self.reader, PatchReader):
            return self.reader
        raise InvalidInputError(
            f"patches of scenes were expected for {what}, got {self.reader!r}. Leave out samples=."
        )

    @property
    def layer_nodata(self) -> dict[str, float | int | None]:
        """The value of pixels that are "no data", by layer: the ``ignore_index`` of a loss."""
        return self.reader.layer_nodata

    @property
    def left_out(self) -> int:
        """Number of patches that an epoch does not deliver; others in each epoch if shuffled."""
        return self.reader.deal(ranks=self._rank()[1]).left_out

    def __len__(self) -> int:
        return self.reader.deal(ranks=self._rank()[1]).steps

    def __iter__(self) -> Iterator[Any]:
        info, (rank, ranks) = get_worker_info(), self._rank()
        share = Share(rank=rank, ranks=ranks)
        if info is None:
            if self.pin_memory:
                self.reader.memory(make=_pinned_buffer)
            for batch in self._batches(self._counter.take(), share):
                self._counter.count()
                yield batch
            return
        begin, skip = self._begin_worker(info)
        whose = {"worker": info.id, "workers": info.num_workers, "skip": skip}
        self._worker_state = self.reader.state_at(begin) | whose
        for batch in self._batches(begin, replace(share, **whose)):
            self._worker_state["skip"] += 1
            yield batch

    def _batches(self, begin: Position, share: Share) -> Iterator[Any]:
        for parts in self.reader.parts(begin, share):
            for name, values in parts.get("layers", {}).items():
                parts["layers"][name] = values.astype(_WIDER.get(str(values.dtype), values.dtype), copy=False)
            tensors = _as_tensors(parts)
            if self.channels is not None:
                tensors["image"] = tensors["image"].expand(-1, self.channels, -1, -1)
            batch = self.reader.packed(tensors)
            yield batch if self.transform is None else self.transform(batch)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration delivers."""
        return self._counter.upcoming.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration deliver ``epoch`` from its beginning, in workers that live on, too."""
        self._counter.set(Position(epoch=epoch))

    def _begin_worker(self, info: Any) -> tuple[Position, int]:
        """Return where the iteration that begins now starts, and how many of this worker's batches to skip."""
        self._rounds += 1
        skip = 0
        if self._resume is not None:
            skip = int(self._resume["skip"])
            self._counter.set(self.reader.position_of(self._resume))
            self._resume = None
        return self._counter.agree(info.seed - info.id, self._rounds, is_first=info.id == 0), skip

    def _rank(self) -> tuple[int, int]:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            self._ranks = distributed.get_rank(), distributed.get_world_size()
        return self._ranks

    def state_dict(self, taken: int | None = None) -> dict[str, Any]:
        """Return the position of training: batches that were taken are behind it, on every rank.

        The state may be loaded by any number of ranks and workers. Within a worker (of a loader that keeps a state
        per worker) it is that worker's, and goes to the same worker among as many. ``taken`` counts the batches of
        this iteration that the training loop has had: `InvalidInputError` without it where DataLoader workers make
        them, since they are ahead of the loop.
        """
        if get_worker_info() is not None and self._worker_state is not None:
            return dict(self._worker_state)
        begin, counted = self._counter.current
        if begin is None:
            return self.reader.state_at(self._counter.upcoming)
        if counted is None and taken is None:
            raise InvalidInputError(
                "the number of batches taken was expected, got none: DataLoader workers are ahead of the loop. "
                "Pass state_dict(taken=...), counted from the beginning of this iteration."
            )
        done = counted if taken is None else taken
        return self.reader.state_at(begin, taken=done or 0, ranks=self._rank()[1])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration go on where ``state`` was taken."""
        position = self.reader.position_of(state)
        info = get_worker_info()
        if "worker" not in state:
            self._counter.set(position)
            return
        mine = None if info is None else (info.id, info.num_workers)
        if mine != (state["worker"], state["workers"]):
            raise InvalidInputError(
                f"the state of worker {state['worker']} of {state['workers']} was expected to go to the same, "
                f"got {mine}. Take it in the training process to resume with other workers."
            )
        self._resume = dict(state)

    def __repr__(self) -> str:
        return f"ZarrPatchDataset({self.reader!r})"

    def __getstate__(self) -> dict[str, Any]:
        self._rank()  # a spawned worker knows no process group
        return self.__dict__


def _reader_of(store: Any, samples: str | None, groups: Any, options: ReadKeywords) -> EpochReader:
    """Return the reader of what is asked for: patches of scenes, of stores or readers, samples, or groups."""
    if isinstance(store, EpochReader):
        if given := [*options, *["samples"] * (samples is not None), *["groups"] * (groups is not None)]:
            raise InvalidInputError(
                f"a reader alone was expected, got {', '.join(given)} too. Pass it to the reader."
            )
        return store
    if isinstance(store, list | tuple) and not samples is groups is None:
        raise InvalidInputError(
            f"one store was expected for samples= and groups=, got {len(store)}. Make a dataset of each."
        )
    if groups is not None:
        return GroupReader(store, samples, config=groups, **cast("GroupKeywords", options))
    if samples is None:
        return PatchReader(store, **options)
    return SampleReader(store, samples, **cast("SampleKeywords", options))


def _as_tensors(part: Any) -> Any:
    """Return a part of a batch, or a dict or list of them, with tensors that share the memory of its arrays."""
    if isinstance(part, np.ndarray):
        return torch.from_numpy(part)
    if isinstance(part, list):
        return [_as_tensors(one) for one in part]
    if isinstance(part, dict):
        return {key: _as_tensors(one) for key, one in part.items()}
    return part


def _pinned_buffer(nbytes: int) -> memoryview:
    buffer: memoryview = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy().data
    return buffer
