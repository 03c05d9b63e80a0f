"""The iterable dataset over a store's patches."""

import weakref
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Unpack, cast

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from sarzarr.errors import InvalidInputError
from sarzarr.keywords import shows_options
from sarzarr.reader.collections import CollectionKeywords, CollectionReader, Size
from sarzarr.reader.cursor import NOBODY
from sarzarr.reader.epochs import EpochReader
from sarzarr.reader.groups import GroupReader
from sarzarr.reader.memory import BatchMemory
from sarzarr.reader.moments import ChannelMoments
from sarzarr.reader.options import GroupKeywords, ReadKeywords, ReadOptions, SampleKeywords
from sarzarr.reader.order import Position, Share
from sarzarr.reader.reader import PatchReader
from sarzarr.reader.samples import SampleReader
from sarzarr.store.store import AnyStore
from sarzarr.torch.callers import refuse_sharing, refuse_stacking
from sarzarr.torch.epochs.board import Board, RankPosition
from sarzarr.torch.epochs.counter import EpochCounter
from sarzarr.torch.epochs.group import Group, current_group
from sarzarr.torch.slots import SlotMemory, forget_the_dead

_COMPARED = (
    "rows", "seed", "shuffle", "window", "batch_size", "drop_last", "threads", "read_ahead", "check", "cache",
)  # fmt: skip
"""Options that ranks compare, or that each may choose."""
_WIDER = {"uint16": "int32", "uint32": "int64"}
"""The dtype of layers whose own torch can hold, but hardly compute with."""


@shows_options(ReadOptions, ReadKeywords)
class ZarrPatchDataset(IterableDataset[Any]):
    """A store's patches as batches: pass it to ``DataLoader(dataset, batch_size=None)``.

    Yields (N, C, size, size) float32 tensors in [0, 1]; with ``flags``, ``boxes``, ``layers`` or ``with_meta``
    what `sarzarr.PatchReader` then yields, in tensors; layers of uint16 come as int32, of uint32 as int64. Each
    iteration is the next epoch, whose order is a function of ``(seed, epoch)``; one that is left after its first
    batch was a look, and moves nothing, except where DataLoader workers make batches ahead: see `peek`. Ranks of
    ``torch.distributed`` get disjoint batches, equally many, and an error where they are not at one position; those
    of DataLoader workers come in the order in which one process makes them.

    Parameters
    ----------
    store
        A `Store`, or its path; a list of them, read as one; or a reader: `sarzarr.PatchReader` says more.
    samples
        Name of a set of samples, delivered in the place of patches of scenes; see `sarzarr.SampleReader`.
    collection
        Name of a collection of chips, delivered in the place of patches of scenes, each whole at its own size; see
        `sarzarr.CollectionReader`, which takes ``size`` and ``labels``, too.
    groups
        A `sarzarr.PtychoConfig`, or any object with its attributes: deliver groups (N, C, rows, columns) of frames
        of a scan; see `sarzarr.GroupReader`.
    size, labels
        Of a collection: the chips of one size, or ``"pad"``; and a set of labels on chips, delivered as targets:
        (N,) int64, or (N, classes) float32 of sets of many.
    transform
        Called with each batch, after augmentation.
    keys
        Deliver a dict of ``image`` and of layers under the names that others look for, ``{"mask": "water"}``: those
        of integers as (N, rows, columns) int64, as losses take them, others (N, 1, rows, columns).
    channels
        Deliver one channel as so many equal ones, which cost no memory: detectors ask for 3.
    pin_memory
        Make batches in page-locked memory, from which ``.to("cuda", non_blocking=True)`` does not wait, where there
        are no workers; with them it is the DataLoader that pins.
    rank, ranks
        This process's number and theirs, where it is not ``torch.distributed`` that knows (JAX, launchers of one's
        own); these are compared with nobody. ``ranks=1`` delivers everything.
    **options
        The fields of `sarzarr.reader.options.ReadOptions`; of samples, those that `sarzarr.SampleReader` takes.
    """

    def __init__(
        self,
        store: AnyStore | EpochReader | Sequence[Any],
        *,
        samples: str | None = None,
        collection: str | None = None,
        size: Size | None = None,
        labels: bool | str = False,
        groups: Any = None,
        transform: Callable[[Any], Any] | None = None,
        keys: Mapping[str, str] | None = None,
        channels: int | None = None,
        pin_memory: bool = False,
        rank: int | None = None,
        ranks: int | None = None,
        **options: Unpack[ReadKeywords],
    ) -> None:
        super().__init__()
        if channels is not None and channels < 1:
            raise InvalidInputError(f"channels must be at least 1, got {channels}.")
        if pin_memory and not torch.cuda.is_available():
            raise InvalidInputError("pin_memory=True needs CUDA, got a machine without. Leave it out.")
        if keys is not None:
            of_reader = (
                [layer.name for layer in store.recipe.layers] if isinstance(store, EpochReader) else None
            )
            wanted = _layers_of(keys, of_reader or options.get("layers") or ())
            if of_reader is None:
                options["layers"] = wanted
            elif set(wanted) != set(of_reader):
                raise InvalidInputError(
                    f"a reader of the layers {sorted(wanted)} was expected for keys=, got one of "
                    f"{sorted(of_reader)}. Pass layers= to the reader."
                )
        if collection is None:
            if size is not None or labels:
                raise InvalidInputError(
                    "size= and labels= need collection=, got none. Name it, or leave them out."
                )
            self.reader = _reader_of(store, samples, groups, options)
        else:
            of_chips = cast("CollectionKeywords", {"size": size, "labels": labels, **options})
            self.reader = _chips_of(store, collection, samples, groups, of_chips)
        self.transform = transform
        self.keys = None if keys is None else dict(keys)
        self.channels = channels
        self.pin_memory = pin_memory
        if channels is not None and self.reader.recipe.images.array.shape[1] != 1:
            raise InvalidInputError("channels= needs patches of one channel, got several. Leave it out.")
        shared = self.reader.share
        if rank is None and ranks is None and shared.ranks > 1:
            rank, ranks = shared.rank, shared.ranks
        self._given = _given_rank(rank, ranks)
        self._group: Group | None = None
        self._counter = EpochCounter()
        self._rounds = 0
        self._worker_state: dict[str, Any] | None = None
        self._resume: dict[str, Any] | None = None
        weakref.finalize(self, forget_the_dead).atexit = False

    @property
    def preprocessing_params(self) -> dict[str, Any]:
        """``{"vmin", "vmax"}`` in dB of the batches; `MixedBoundsError` where the selection has several."""
        return self.reader.preprocessing_params

    def statistics(self) -> ChannelMoments:
        """Return mean and std of each channel, as `PatchReader.statistics`, before any ``transform``."""
        if isinstance(self.reader, CollectionReader):
            return self.reader.statistics()
        return self._patches("statistics").statistics()

    def plot(self, batch: Any, *, patches: int = 8) -> Any:
        """Return a matplotlib figure of a batch as this dataset delivers it, as `PatchReader.plot`."""
        if isinstance(self.reader, CollectionReader):
            return self.reader.plot(batch, patches=patches)
        return self._patches("plot").plot(batch, patches=patches)

    def __or__(self, other: "ZarrPatchDataset") -> "ZarrPatchDataset":
        """Return a dataset of the patches of both, each once, delivered as those of this one."""
        return self._of(self._patches("|") | other._patches("|"))

    def __and__(self, other: "ZarrPatchDataset") -> "ZarrPatchDataset":
        """Return a dataset of the patches that both deliver, delivered as those of this one."""
        return self._of(self._patches("&") & other._patches("&"))

    def _of(self, reader: PatchReader) -> "ZarrPatchDataset":
        rank, ranks = self._given or (None, None)
        same = {name: getattr(self, name) for name in ("transform", "keys", "channels", "pin_memory")}
        return ZarrPatchDataset(reader, rank=rank, ranks=ranks, **same)

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
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of ``labels``, by number from 0; none where no labels of chips are delivered."""
        labels = getattr(self.reader, "labels", None)
        return labels.classes if labels is not None else ()

    @property
    def left_out(self) -> int:
        """Number of patches that an epoch does not deliver; others in each epoch if shuffled."""
        return self.reader.deal(ranks=self._rank()[1]).left_out

    def __len__(self) -> int:
        return self.reader.deal(ranks=self._rank()[1]).steps

    def __iter__(self) -> Iterator[Any]:
        refuse_stacking()
        info = get_worker_info()
        if info is None:
            if self.pin_memory:
                self.reader.memory(kind=_PinnedMemory)
            return self._counter.iterate(
                lambda begin: self._batches(begin, self._share), self._compare, self._end
            )
        self._worker_state, self._resume = self._resume, None
        self._rounds += 1
        self.reader.memory(kind=SlotMemory)
        return self._worker_batches(info, self._rounds, self._worker_state)

    def peek(self) -> Any:
        """Return the first batch that the next iteration will give this rank; nothing moves, workers or not."""
        begin = self._counter.upcoming
        with closing(self._batches(begin, self._share)) as batches:
            for batch in batches:
                return batch
        raise InvalidInputError(f"a batch was expected, got none that is left of {begin}. Call set_epoch().")

    def _worker_batches(self, info: Any, rounds: int, resume: dict[str, Any] | None) -> Iterator[Any]:
        """Yield a worker's batches: from where all workers begin, or go on."""
        skip = 0 if resume is None else int(resume["skip"])
        begin = self._counter.agree(info.id, rounds) if resume is None else self.reader.position_of(resume)
        number = self._compare(begin, skip) if info.id == 0 else NOBODY
        state = self._worker_state = self._state_of_worker(info, begin, skip)
        for batch in self._batches(
            begin, replace(self._share, worker=info.id, workers=info.num_workers, skip=skip)
        ):
            state["skip"] += 1
            self._worker_state = state
            yield batch
        self._end(number)

    def _batches(self, begin: Position, share: Share) -> Generator[Any, None, None]:
        for parts in self.reader.parts(begin, share):
            for name, values in parts.get("layers", {}).items():
                parts["layers"][name] = values.astype(_WIDER.get(str(values.dtype), values.dtype), copy=False)
            tensors = _as_tensors(parts)
            if self.reader.options.dtype == "bfloat16":
                tensors["image"] = tensors["image"].view(torch.bfloat16)  # NumPy has the bits
            if self.channels is not None:
                tensors["image"] = tensors["image"].expand(-1, self.channels, -1, -1)
            batch = self.reader.packed(tensors) if self.keys is None else _under_keys(tensors, self.keys)
            yield batch if self.transform is None else self.transform(batch)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration delivers."""
        return self._counter.upcoming.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration deliver ``epoch``, in workers that live on, too.

        It delivers what a loaded state left of that epoch, else all of it.
        """
        refuse_sharing(self._rank()[1])
        self._counter.set_epoch(epoch)

    def _rank(self) -> tuple[int, int]:
        if self._given is not None:
            return self._given
        self._group = current_group() or self._group
        return (0, 1) if self._group is None else (self._group.rank, self._group.ranks)

    @property
    def _share(self) -> Share:
        rank, ranks = self._rank()
        return Share(rank=rank, ranks=ranks)

    def _compare(self, begin: Position, skip: int = 0) -> int:
        """Return the number of an iteration among those of all ranks, once they agree where it begins."""
        _, ranks = self._rank()
        if self._given is not None or ranks == 1 or self._group is None:
            return NOBODY
        o, ids = self.reader.options, np.ascontiguousarray(self.reader.selection.id)
        order = {
            **self.reader.fingerprint,
            "batch_size": o.batch_size,
            "drop_last": o.drop_last,
            "ranks": ranks,
        }
        order["checksum of ids"] = zlib.crc32(ids.view(np.uint8).data)
        position = RankPosition(epoch=begin.epoch, start=begin.start, skip=skip, order=order)
        return Board(group=self._group, dataset=self._kind).compare(self._counter.page, position)

    def _end(self, number: int) -> None:
        if number != NOBODY and self._group is not None:
            Board(group=self._group, dataset=self._kind).end(self._counter.page, number)

    @property
    def _kind(self) -> str:
        """The class of datasets that this is of, whatever their seed and batches."""
        options = {k: v for k, v in vars(self.reader.options).items() if k not in _COMPARED and _is_plain(v)}
        return f"{type(self.reader).__name__}-{zlib.crc32(repr(sorted(options.items())).encode()):08x}"

    def state_dict(self, taken: int | None = None) -> dict[str, Any]:
        """Return the position of training: batches that were taken are behind it, on every rank.

        The state may be loaded by any number of ranks and workers. Within a worker (of a loader that keeps a state
        per worker) it is that worker's, and goes to the same worker among as many, of as many ranks. ``taken`` counts
        the batches of this iteration that the training loop has had: `InvalidInputError` without it where DataLoader
        workers make them, since they are ahead of the loop.
        """
        if (info := get_worker_info()) is not None:
            state = self._worker_state or self._resume
            return self._state_of_worker(info, self._counter.upcoming, 0) if state is None else dict(state)
        if (begin := self._counter.of_workers) is None:
            begin, counted = self._counter.standing
            taken = taken if taken is not None and counted else counted
        if taken is None:
            raise InvalidInputError(
                "the number of batches taken was expected, got none: DataLoader workers are ahead of the loop. "
                "Pass state_dict(taken=...), counted from the beginning of this iteration."
            )
        return self.reader.state_at(begin, taken=taken, ranks=self._rank()[1])

    def _state_of_worker(self, info: Any, begin: Position, skip: int) -> dict[str, Any]:
        whose = {"worker": info.id, "workers": info.num_workers, "skip": skip}
        return self.reader.state_at(begin) | whose | self._dealt

    @property
    def _dealt(self) -> dict[str, Any]:
        """What a number of batches depends on."""
        return {"ranks": self._rank()[1], "batch_size": self.reader.options.batch_size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration go on where ``state`` was taken."""
        position = self.reader.position_of(state)
        info = get_worker_info()
        if "worker" not in state:
            if info is None or info.id == 0:  # one worker moves them all
                self._counter.set(position)
            return
        me = None if info is None else (info.id, info.num_workers)
        if me != (state["worker"], state["workers"]):
            raise InvalidInputError(
                f"the state of worker {state['worker']} of {state['workers']} was expected to go to the same, "
                f"got {me}. Take it in the training process to resume with other workers."
            )
        if (
            state["skip"]
            and (dealt := {name: state.get(name, mine) for name, mine in self._dealt.items()}) != self._dealt
        ):
            raise InvalidInputError(
                f"a worker's state of {self._dealt} was expected, got one of {dealt}. Take it in the training "
                "process to resume with others."
            )
        if me == (0, state["workers"]):
            self._counter.go_on_after(position)
        self._resume, self._worker_state = dict(state), None

    def __repr__(self) -> str:
        return f"ZarrPatchDataset({self.reader!r})"

    def __getstate__(self) -> dict[str, Any]:
        self._rank()  # a spawned worker knows no process group
        return self.__dict__


def _given_rank(rank: int | None, ranks: int | None) -> tuple[int, int] | None:
    """Return the rank that was given among how many, None where none was."""
    if rank is None and ranks is None:
        return None
    if rank is None and ranks == 1:
        rank = 0
    if rank is None or ranks is None or not 0 <= rank < ranks:
        raise InvalidInputError(
            f"rank and ranks, with 0 <= rank < ranks, were expected, got {rank} and {ranks}. Give both, or neither."
        )
    return rank, ranks


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) or (
        isinstance(value, tuple | list) and all(map(_is_plain, value))
    )


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


def _chips_of(
    store: Any, collection: str, samples: str | None, groups: Any, options: CollectionKeywords
) -> CollectionReader:
    """Return the reader of the chips of a collection of one store."""
    if samples is not None or groups is not None or isinstance(store, EpochReader | list | tuple):
        raise InvalidInputError(
            f"one store alone was expected for collection={collection!r}, got samples=, groups=, a reader or several "
            "stores, too. Leave out one."
        )
    return CollectionReader(store, collection, **options)


def _layers_of(keys: Mapping[str, str], layers: Sequence[str]) -> list[str]:
    """Return the layers to read for ``keys``; `InvalidInputError` where they leave one without a key."""
    names = list(dict.fromkeys(keys.values()))
    if "image" in keys or len(names) < len(keys) or not set(layers) <= set(names):
        raise InvalidInputError(
            f"a key of its own, and not 'image', for each of the layers {sorted({*layers, *names})} was expected, "
            f"got keys={dict(keys)}. Pass {{'mask': NAME}} for a layer NAME."
        )
    return names


def _under_keys(tensors: dict[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """Return the parts of a batch in one dict, each layer under its key."""
    layers = tensors.pop("layers", {})
    named = {key: layers[name] for key, name in keys.items()}
    return tensors | {
        key: layer if layer.is_floating_point() else layer.squeeze(-3).long() for key, layer in named.items()
    }


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


@dataclass(eq=False)
class _PinnedMemory(BatchMemory):
    make: Callable[[int], memoryview] = _pinned_buffer
