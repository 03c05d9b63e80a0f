"""The PyTorch face of `sarzarr.reader`: the one module that imports torch."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sarzarr.augment import OPERATIONS, apply
from sarzarr.clock import Clock, key_of
from sarzarr.conventions import Membership
from sarzarr.errors import InvalidInputError, MissingExtraError, MixedBoundsError
from sarzarr.order import Position, Share
from sarzarr.read_options import ReadOptions
from sarzarr.reader import PatchReader
from sarzarr.sample_reader import SampleReader
from sarzarr.split_record import placements
from sarzarr.splits import plan_split
from sarzarr.store import Store, open_store

try:
    import torch
except ImportError:
    raise MissingExtraError(
        "PyTorch was expected, got no module named 'torch'. Install it with `pip install 'sarzarr[torch]'`."
    ) from None
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

Array = np.ndarray[Any, Any]
_WIDER = {"uint16": "int32", "uint32": "int64"}
"""What layers become whose dtype torch can hold, but hardly compute with."""


class ZarrPatchDataset(IterableDataset[Any]):
    """A store's patches as batches: pass it to ``DataLoader(dataset, batch_size=None)``.

    Yields (N, C, size, size) float32 tensors in [0, 1]; with ``flags``, ``boxes``, ``layers`` or ``with_meta``
    what `sarzarr.PatchReader` then yields, in tensors; layers of uint16 come as int32, of uint32 as int64. Each
    iteration is the next epoch, whose order is a function of ``(seed, epoch)``. Ranks of ``torch.distributed``
    get disjoint batches, equally many; so do DataLoader workers, whose batches come in the order in which one
    process would make them.

    Parameters
    ----------
    store
        A `Store`, or its path.
    samples
        Name of a set of samples: its pictures are delivered, and not the patches of scenes; see
        `sarzarr.SampleReader`.
    transform
        Called with each batch, after augmentation.
    channels
        Deliver one channel as so many equal ones, which cost no memory: detectors ask for 3.
    pin_memory
        Make batches in page-locked memory, from which ``.to("cuda", non_blocking=True)`` does not wait. For
        ``num_workers=0``; with workers it is the DataLoader that pins.
    **options
        The fields of `sarzarr.read_options.ReadOptions`: split, scenes, polarizations, batch_size, shuffle, ...
    """

    def __init__(
        self,
        store: Store | str | Path,
        *,
        samples: str | None = None,
        transform: Callable[[Any], Any] | None = None,
        channels: int | None = None,
        pin_memory: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if channels is not None and channels < 1:
            raise InvalidInputError(f"channels must be at least 1, got {channels}.")
        if pin_memory and not torch.cuda.is_available():
            raise InvalidInputError("pin_memory=True needs CUDA, got a machine without. Leave it out.")
        self.reader = (
            PatchReader(store, **options) if samples is None else SampleReader(store, samples, **options)
        )
        self.transform = transform
        self.channels = channels
        self.pin_memory = pin_memory
        if channels is not None and self.reader.recipe.array.shape[1] != 1:
            raise InvalidInputError("channels= needs patches of one channel, got several. Leave it out.")
        self._clock = Clock()
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
    def layer_nodata(self) -> dict[str, float | int | None]:
        """What stands for "no data" in each layer: the ``ignore_index`` of a loss."""
        return self.reader.layer_nodata

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
            self._clock.count()
            yield batch

    def _made(self, begin: Position, share: Share) -> Iterator[Any]:
        for batch in self.reader.batches(begin, share):
            tensors = self._spread(_as_tensors(self._widened(batch)))
            yield tensors if self.transform is None else self.transform(tensors)

    def _widened(self, batch: Any) -> Any:
        """Return a batch with its layers in dtypes that torch computes with."""
        count = len(self.reader.recipe.layers)
        if not count:
            return batch
        if isinstance(batch, dict):
            return batch | {"layers": {name: _wide(values) for name, values in batch["layers"].items()}}
        return *batch[:-count], *(_wide(values) for values in batch[-count:])

    def _spread(self, batch: Any) -> Any:
        """Repeat the channel of a batch's images, where that was asked for."""
        if self.channels is None:
            return batch
        if isinstance(batch, dict):
            return batch | {"image": self._spread(batch["image"])}
        if isinstance(batch, tuple):
            return self._spread(batch[0]), *batch[1:]
        return batch.expand(-1, self.channels, -1, -1)

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
        key = key_of(info.seed - info.id, self._rounds)
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

    def __repr__(self) -> str:
        return f"ZarrPatchDataset({self.reader!r})"

    def __getstate__(self) -> dict[str, Any]:
        self._rank()  # a spawned worker knows no process group
        return self.__dict__


# ------------------------------------------------------------------ map-style
class _Turned(Dataset[torch.Tensor]):
    """What the map-style datasets share: an item is a copy, turned, transformed, with its channel in front."""

    augment: bool
    transform: Callable[[Any], Any] | None

    def _item(self, image: Array) -> torch.Tensor:
        """Return the float32 tensor (C, rows, columns) of an image (C, rows, columns) of the caller's own."""
        if self.augment:
            # torch's generator: seeded by torch.manual_seed, and apart in each worker, rank and epoch.
            kind = "d4" if image.shape[-1] == image.shape[-2] else "flips"
            drawn = int(torch.randint(len(OPERATIONS[kind]), ()))
            image = np.ascontiguousarray(apply(OPERATIONS[kind][drawn], image))
        if self.transform is None:
            return torch.from_numpy(image)
        # A transform is given (rows, columns) where there is one channel, and may return a tensor.
        result = torch.as_tensor(self.transform(image[0] if len(image) == 1 else image), dtype=torch.float32)
        return result[None] if result.ndim == 2 else result


class SARPatchDataset(_Turned):
    """Patches in memory, as items (1, H, W) float32.

    Parameters
    ----------
    patches
        (N, H, W) in [0, 1], kept as float32.
    augment
        Turn each item by one of the flips and quarter turns, anew each time; flips alone where H is not W.
    transform
        Called with each (H, W) array after that; returns an array or a tensor.

    Raises
    ------
    InvalidInputError
        Another number of dimensions, or values outside of [0, 1]. It is a ValueError.
    """

    def __init__(
        self, patches: Any, augment: bool = True, transform: Callable[[Any], Any] | None = None
    ) -> None:
        values = np.asarray(patches)
        if values.ndim != 3:
            raise InvalidInputError(f"patches must have shape (N, H, W), got {values.shape}.")
        if values.size and not (values.min() >= 0 and values.max() <= 1):  # false for NaN, too
            raise InvalidInputError(
                f"patches must be in [0, 1], got {values.min()} to {values.max()}. Normalize them first."
            )
        self.patches = np.ascontiguousarray(values, np.float32)
        self.augment = augment
        self.transform = transform

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._item(self.patches[index][None].copy())


class LazyPatchDataset(_Turned):
    """A store's patches by number, as items (C, size, size) float32, read when they are asked for.

    For samplers and tools that want a map-style dataset; `ZarrPatchDataset` is many times faster. Nothing
    is open when it pickles.

    Parameters
    ----------
    metadata_path
        A store.
    augment, transform
        As of `SARPatchDataset`.
    shuffle_seed
        Item i is patch ``default_rng(shuffle_seed).permutation(len)[i]``; None leaves the order as it is.
    **options
        The fields of `sarzarr.read_options.ReadOptions` that say which patches, and how they are stretched.
    """

    def __init__(
        self,
        metadata_path: Store | str | Path,
        augment: bool = True,
        shuffle_seed: int | None = 42,
        transform: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        if options.get("layers"):
            raise InvalidInputError(
                f"LazyPatchDataset has images alone as its items, got layers={options['layers']!r}. "
                "Take ZarrPatchDataset, or PatchReader.read."
            )
        self.reader = PatchReader(metadata_path, **options)
        self.augment = augment
        self.transform = transform
        n = len(self.reader.selection)
        self._order = (
            np.arange(n) if shuffle_seed is None else np.random.default_rng(shuffle_seed).permutation(n)
        )

    @property
    def preprocessing_params(self) -> dict[str, float]:
        """``{"vmin", "vmax"}`` in dB of the items; `MixedBoundsError` where the selection has several."""
        return self.reader.preprocessing_params

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """Return items read together: what a DataLoader calls for a batch."""
        images = self.reader.read(self._order[np.asarray(indices)])
        return [self._item(image) for image in images]


class SARDataModule:
    """Training and validation loaders of one store, split by ground: no pixel is on both sides.

    Parameters
    ----------
    patches_path
        A store.
    val_fraction, seed
        Share of the ground that is for validation, and what its choice depends on. The split is planned as
        `sarzarr.make_split` plans it, and written nowhere; a stored one is read with ``split``.
    batch_size, num_workers
        As of a DataLoader. Without workers, threads of this process read ahead.
    augment_train
        Turn training patches by flips and quarter turns. Validation patches are never turned.
    lazy
        Read patches when they are needed; False reads all of them into memory first.
    max_samples
        Most patches that are taken, both sides together.
    split
        A version of the store's splits, ``"v2"``, in the place of a planned one.
    **options
        Further fields of `sarzarr.read_options.ReadOptions`, for both sides.
    """

    def __init__(
        self,
        patches_path: Store | str | Path,
        val_fraction: float = 0.1,
        batch_size: int = 8,
        num_workers: int = 0,
        augment_train: bool = True,
        seed: int = 42,
        lazy: bool = True,
        max_samples: int | None = None,
        *,
        split: str | None = None,
        **options: Any,
    ) -> None:
        if options.get("layers") and not lazy:
            raise InvalidInputError("layers= needs batches as they are read, got lazy=False. Leave that out.")
        self.store = patches_path if isinstance(patches_path, Store) else open_store(patches_path)
        self.num_workers = num_workers
        self.batch_size = batch_size
        common = {**options, "batch_size": batch_size, "seed": seed}
        train, val = _sides(self.store, split, common, val_fraction)
        if max_samples is not None:
            for_val = int(max_samples * val_fraction)
            train["max_patches"], val["max_patches"] = max(max_samples - for_val, 1), max(for_val, 1)
        train |= {"augment": "d4" if augment_train and lazy else None, "shuffle": True, "drop_last": True}
        self._train = ZarrPatchDataset(self.store, **common, **train)
        self._val = ZarrPatchDataset(self.store, **common, **val)
        self._in_memory = (
            None if lazy else (self._loaded(self._train, augment_train), self._loaded(self._val, False))
        )

    @staticmethod
    def _loaded(dataset: ZarrPatchDataset, augment: bool) -> _Turned:
        images = dataset.reader.read(np.arange(len(dataset.reader.selection)))
        return _Loaded(images, augment)

    @property
    def preprocessing_params(self) -> dict[str, float] | None:
        """``{"vmin", "vmax"}`` in dB that both sides' batches are made with; None where there are several."""
        try:
            params = self._train.preprocessing_params
            return params if params == self._val.preprocessing_params else None
        except MixedBoundsError:
            return None

    @property
    def train_size(self) -> int:
        """Patches for training."""
        return len(self._train.reader.selection)

    @property
    def val_size(self) -> int:
        """Patches for validation."""
        return len(self._val.reader.selection)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled batches of one size, anew each epoch."""
        if self._in_memory is not None:
            return self._loader(self._in_memory[0], batch_size=self.batch_size, shuffle=True, drop_last=True)
        return self._loader(self._train, batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return every validation patch, in order."""
        if self._in_memory is not None:
            return self._loader(self._in_memory[1], batch_size=self.batch_size)
        return self._loader(self._val, batch_size=None)

    def get_sample_batch(self, split: str = "train") -> Any:
        """Return one batch of ``train`` or ``val``; training goes on as if it had not been taken."""
        if split not in ("train", "val"):
            raise InvalidInputError(f"split must be 'train' or 'val', got {split!r}.")
        dataset = copy.deepcopy(self._train if split == "train" else self._val)
        return next(iter(dataset))

    def _loader(self, dataset: Any, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            **options,
        )


class _Loaded(_Turned):
    """Images (N, C, H, W) in memory."""

    def __init__(self, images: Array, augment: bool) -> None:
        self.images = images
        self.augment = augment
        self.transform = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._item(self.images[index].copy())


def _sides(
    store: Store, split: str | None, options: Mapping[str, Any], val_fraction: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that choose the patches of training, and of validation."""
    if split is not None:
        return {"split": f"{split}:train"}, {"split": f"{split}:val"}
    planned = plan_split(store, val_fraction=val_fraction, seed=options["seed"])
    table = store.patch_columns(ReadOptions.of(options).index_in(store))
    grids = {scene: place.fingerprint for scene, place in placements(store.root, store.catalog).items()}
    train, val = (
        {"rows": np.flatnonzero(planned.patch_mask(table, side, grids))}
        for side in (Membership.TRAIN, Membership.VAL)
    )
    return train, val


# ------------------------------------------------------------------ tensors
def _wide(values: Array) -> Array:
    return values.astype(_WIDER.get(str(values.dtype), values.dtype), copy=False)


def _as_tensors(batch: Any) -> Any:
    if isinstance(batch, np.ndarray):
        return torch.from_numpy(batch)
    if isinstance(batch, tuple):
        return tuple(_as_tensors(part) for part in batch)
    if isinstance(batch, list):
        return [_as_tensors(part) for part in batch]
    if isinstance(batch, dict):
        return {key: _as_tensors(part) for key, part in batch.items()}
    return batch


def _pinned_block(nbytes: int) -> memoryview:
    block: memoryview = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy().data
    return block
