"""Loaders of one store, or of one archive of ``.npy`` files: a LightningDataModule where Lightning is installed.

Importing this module imports Lightning. `sarzarr.torch` imports it when `SARDataModule` is asked for.
"""

import copy
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Unpack, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from sarzarr.arrays import Array
from sarzarr.conventions import Membership
from sarzarr.errors import InvalidInputError, MixedBoundsError
from sarzarr.ingestion.archives.rows import ArchivePatches
from sarzarr.keywords import shows_options
from sarzarr.patches.clips import recommend_clips
from sarzarr.patches.selection import drawn_of
from sarzarr.reader.collections import Size
from sarzarr.reader.options import CropKeywords, ReadKeywords, ReadOptions, SideKeywords
from sarzarr.reader.reader import PatchReader
from sarzarr.splits.make import plan_split
from sarzarr.splits.samples.products import divide_products, origins_of_table
from sarzarr.store.samples import open_samples
from sarzarr.store.split_table import Split, read_side
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.torch.chips import chip_sides
from sarzarr.torch.dataset import ZarrPatchDataset
from sarzarr.torch.loader import PatchLoader
from sarzarr.torch.mapstyle import PatchItems, TurnedPatches, open_archive, refuse_options

LIGHTNING: Final = ("lightning.pytorch", "pytorch_lightning")
"""Packages that have a Trainer; each takes data modules of its own class alone."""
_OF_CROPS: Final = tuple(CropKeywords.__annotations__)


def lightning_bases() -> tuple[type, ...]:
    """Return the class LightningDataModule of every package that is imported, else of the first that is installed."""
    imported = [name for name in LIGHTNING if sys.modules.get(name) is not None]
    installed = [name for name in LIGHTNING if find_spec(name.split(".")[0]) is not None]
    return tuple(import_module(name).LightningDataModule for name in imported or installed[:1])


@shows_options(ReadOptions, SideKeywords)
class SARDataModule(*lightning_bases()):  # type: ignore[misc]
    """Loaders for training, validation, test and prediction of one store, split by ground: no pixel is on two sides.

    Where lightning or pytorch_lightning is installed it is a LightningDataModule: ``Trainer.fit(model, module)``
    delivers the epoch that the trainer counts, each patch once over all ranks, and a checkpoint in the middle of an
    epoch goes on with the next batch.

    One default differs from `sarzarr.PatchReader`: without ``clip`` both sides are stretched to what the pixels of
    the training side alone recommend, in one pass over its codes, so that validation decides nothing. Groups that
    training has nothing of keep the clip of the store.

    Parameters
    ----------
    patches_path
        A store; or the ``metadata.npy`` of an archive, or one ``.npy`` file of patches, which are read in place and
        divided by product as `sarzarr.splits.samples.products.divide_products` says, since positions are gone.
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
        Most patches that are taken, both sides together; at least 2.
    split
        A version of the store's splits, ``"v2"``, or a fold, ``"fold0"``, in the place of a planned one.
    samples
        Name of a set of samples of the store, in the place of patches of scenes; divided by product likewise.
    collection, size, labels
        Name of a collection of chips of the store, in the place of patches of scenes, and what `CollectionReader`
        takes of them; divided by the ground that chips share, as `sarzarr.split_collection` plans it.
    keys
        As of `ZarrPatchDataset`: batches are dicts of ``image`` and of layers, ``{"mask": "water"}``.
    **options
        Further fields of `sarzarr.reader.options.ReadOptions`, for both sides; ``crops``, ``per_epoch``, ``area`` and
        ``scale`` for training alone, of a stored ``split``.
    """

    def __init__(
        self,
        patches_path: AnyStore,
        val_fraction: float = 0.1,
        batch_size: int = 8,
        num_workers: int = 0,
        augment_train: bool = True,
        seed: int = 42,
        lazy: bool = True,
        max_samples: int | None = None,
        *,
        split: str | None = None,
        samples: str | None = None,
        collection: str | None = None,
        size: Size | None = None,
        labels: bool | str = False,
        keys: Mapping[str, str] | None = None,
        **options: Unpack[SideKeywords],
    ) -> None:
        super().__init__()
        of_chips = {"collection": collection, "size": size, "labels": labels}
        self._delivered: dict[str, Any] = {"samples": samples, "keys": keys, **of_chips}
        _check_delivered(self._delivered, options, lazy=lazy)
        self.num_workers = num_workers
        self.batch_size = batch_size
        most = _most_of_sides(max_samples, val_fraction)
        self._split = split
        self._training: PatchLoader | None = None
        self._resumed: Mapping[str, Any] | None = None
        self._items: list[TurnedPatches] | None = None
        if (archive := open_archive(patches_path)) is not None:
            asked = {"split": split, **self._delivered}
            named = {name: given for name, given in asked.items() if given}
            refuse_options("SARDataModule", {**options, **named})
            rows = divide_products(archive.origins, val_fraction=val_fraction, seed=seed)
            pairs = zip((rows.train, rows.val), (augment_train, False), most, strict=True)
            sides = [PatchItems(archive, turned, rows=_drawn(some, n, seed)) for some, turned, n in pairs]
            self._items = list(sides)
            self._readers: Any = [archive] * 2
            self.left_out = len(rows.left_out)
            if not lazy:
                self._items = [TurnedPatches(side.reader.read(side.numbers), side.augment) for side in sides]
            return
        self.store = open_store(patches_path)
        others = {name: self._delivered[name] for name in ("samples", "collection")}
        drawn = _crops_of(options, split, lazy=lazy, max_samples=max_samples, others=others)
        fixed = {name: value for name, value in options.items() if name not in _OF_CROPS}
        common = cast("ReadKeywords", {**fixed, "batch_size": batch_size, "seed": seed})
        if collection is not None:
            weights = common.pop("weights", None)  # of training alone
            train, val, self.left_out = chip_sides(self.store, of_chips, split, common, val_fraction)
            train["weights"] = weights
        elif samples is None:
            train, val = _sides(self.store, split, common, val_fraction)
            self.left_out = 0
        else:
            train, val, self.left_out = _sample_sides(self.store, samples, split, common, val_fraction)
        for side, n in zip((train, val), most, strict=True):
            if n is not None:
                side["max_patches"] = n
        train.update(drawn)
        train["shuffle"] = train["drop_last"] = True
        train["augment"] = train.get("augment", "d4") if augment_train and lazy else None
        self._train = ZarrPatchDataset(self.store, **self._delivered, **train)
        self._val = ZarrPatchDataset(self.store, **self._delivered, **val)
        clip: ReadKeywords = {"clip": val["clip"]} if "clip" in val else {}
        self._common: ReadKeywords = {**common, **clip}
        self._readers = [self._train.reader, self._val.reader]
        if not lazy:
            turned = ((self._train, augment_train), (self._val, False))
            self._items = [
                TurnedPatches(data.reader.read(np.arange(len(data.reader.selection))), augment)
                for data, augment in turned
            ]

    @property
    def preprocessing_params(self) -> dict[str, Any] | None:
        """``{"vmin", "vmax"}`` in dB that both sides' batches are made with: numbers, or a list per channel.

        None of ``.npy`` files of which nothing says so; `MixedBoundsError` where groups within a channel differ.
        """
        with suppress(MixedBoundsError) if isinstance(self._readers[0], ArchivePatches) else nullcontext():
            params, others = (reader.preprocessing_params for reader in self._readers)
            if params != others:
                raise MixedBoundsError(
                    f"one clip for both sides was expected, got {params} for training and {others} for validation. "
                    "Select one group with polarizations= or scenes=, or pass clip=."
                )
            return cast("dict[str, Any]", params)
        return None

    @property
    def train_size(self) -> int:
        """Patches for training."""
        return self._size(0)

    @property
    def val_size(self) -> int:
        """Patches for validation."""
        return self._size(1)

    def _size(self, side: int) -> int:
        return len(self._items[side]) if self._items is not None else len(self._readers[side].selection)

    def train_dataloader(self) -> Any:
        """Return shuffled batches (N, C, size, size) float32 of one size N, anew each epoch.

        A DataLoader; within a Trainer a `PatchLoader`, which no trainer wraps.
        """
        if self._items is not None:
            return self._loader(self._items[0], batch_size=self.batch_size, shuffle=True, drop_last=True)
        loader = self._whole(self._train, self._begin_training)
        if self.trainer is not None and self._resumed is not None and not self.trainer.overfit_batches:
            loader.load_state_dict(self._resumed)
        return loader

    def val_dataloader(self) -> Any:
        """Return every validation patch in order, in batches (N, C, size, size) float32."""
        if self._items is not None:
            return self._loader(self._items[1], batch_size=self.batch_size)
        return self._whole(self._val)

    def test_dataloader(self) -> Any:
        """Return every test patch of a stored split in order, in batches (N, C, size, size) float32."""
        if self._items is not None or self._split is None:
            name = self._delivered["collection"]
            maker = "make_split(store, " if name is None else f"split_collection(store, {name!r}, "
            raise InvalidInputError(
                "a stored split was expected for test patches, got one of training and validation alone. "
                f"Make one with sarzarr.{maker}test_fraction=0.1), and pass its name as split=."
            )
        options: ReadKeywords = {**self._common, "split": f"{self._split}:test"}
        return self._whole(ZarrPatchDataset(self.store, **self._delivered, **options))

    def predict_dataloader(self) -> Any:
        """Return the patches of all sides in order, in batches (N, C, size, size) float32, never turned."""
        if isinstance(self._readers[0], ArchivePatches):
            return self._loader(PatchItems(self._readers[0], False), batch_size=self.batch_size)
        return self._whole(ZarrPatchDataset(self.store, **self._delivered, **self._common))

    def get_sample_batch(self, split: str = "train") -> Any:
        """Return one float32 batch (N, C, size, size) of ``train`` or ``val``; training goes on as if it had not."""
        if split not in ("train", "val"):
            raise InvalidInputError(f"split must be 'train' or 'val', got {split!r}.")
        if self._items is None:
            return next(iter(copy.deepcopy(self._train if split == "train" else self._val)))
        items = self._items[split == "val"]
        with torch.random.fork_rng(devices=[]):
            return torch.stack([items[i] for i in range(min(self.batch_size, len(items)))])

    @property
    def trainer(self) -> Any:
        """The Trainer that this module is attached to; None outside of one."""
        return vars(self).get("_trainer")

    @trainer.setter
    def trainer(self, trainer: Any) -> None:
        package = type(trainer).__module__.split(".")[0]
        mine = {base.__module__.split(".")[0] for base in type(self).__mro__}
        if package in {name.split(".")[0] for name in LIGHTNING} - mine:
            raise InvalidInputError(
                f"a data module of {package} was expected, got one that is none, since {package} was imported later. "
                f"Import {package} before SARDataModule is first imported from sarzarr.torch."
            )
        self._trainer = trainer

    def state_dict(self, taken: int | None = None) -> dict[str, Any]:
        """Return the position of training, on every rank the same: what Lightning puts into a checkpoint.

        In a loop of one's own with DataLoader workers, ``taken`` counts the batches that the loop has had of this
        epoch. Empty where patches are in memory or in ``.npy`` files: their order is torch's own.
        """
        if self._items is not None:
            return {}
        loader = self._training
        state = self._train.state_dict(taken) if loader is None or taken is not None else loader.state_dict()
        return {"train": state, "ranks": self._ranks, "batch_size": self.batch_size}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Make training go on where the state was taken; in a Trainer with as many ranks, unless an epoch begins.

        `InvalidInputError` otherwise: a Trainer ends an epoch by counting its steps.
        """
        if self._items is not None or not state_dict:
            return
        state = state_dict["train"]
        mine = {"ranks": self._ranks, "batch_size": self.batch_size}
        for name, here in mine.items():
            if self.trainer is not None and state["start"] and state_dict[name] != here:
                raise InvalidInputError(
                    f"{name} {state_dict[name]} was expected, as of the state in the middle of an epoch, got {here}: "
                    "the Trainer counts steps, and would leave patches out. Go on with as many, or from a state "
                    "between two epochs."
                )
        self._train.load_state_dict(state)
        self._training, self._resumed = None, state

    def __repr__(self) -> str:
        return f"SARDataModule({self._readers[0]!r}, {self.train_size} for training, {self.val_size} for validation)"

    def __str__(self) -> str:
        return repr(self)  # Lightning's own reads every loader

    @property
    def _ranks(self) -> int:
        return 1 if self.trainer is None else int(self.trainer.world_size)

    def _begin_training(self, loader: PatchLoader) -> None:
        self._training, self._resumed = loader, None
        loader.set_epoch(0 if self.trainer.overfit_batches else int(self.trainer.current_epoch))

    def _whole(self, dataset: ZarrPatchDataset, begins: Any = None) -> Any:
        """Return a loader of whole batches: always of epoch 0 within a Trainer, unless ``begins`` says otherwise."""
        if self.trainer is None:
            return self._loader(dataset, batch_size=None)
        return PatchLoader(dataset, self.num_workers, begins=begins or _first_epoch)

    def _loader(self, dataset: Any, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            **options,
        )


def _first_epoch(loader: PatchLoader) -> None:
    """Make validation the same each time, whatever was looked at before."""
    loader.set_epoch(0)


def _check_delivered(delivered: Mapping[str, Any], options: SideKeywords, *, lazy: bool) -> None:
    """Raise `InvalidInputError` where what is asked for is not delivered together."""
    samples, collection = delivered["samples"], delivered["collection"]
    layers = options.get("layers") or delivered["keys"]
    beside = {"layers": layers, "labels": delivered["labels"], "boxes": options.get("boxes")}
    if not lazy and (given := [name for name, asked in beside.items() if asked]):
        raise InvalidInputError(
            f"{given[0]}= needs batches as they are read, got lazy=False. Leave that out."
        )
    if collection is None and (delivered["size"] is not None or delivered["labels"]):
        raise InvalidInputError("size= and labels= need collection=, got none. Name it, or leave them out.")
    if samples is not None and collection is not None:
        raise InvalidInputError(
            f"samples= or collection= was expected, got {samples!r} and {collection!r}. Leave one out."
        )


def _most_of_sides(max_samples: int | None, val_fraction: float) -> tuple[int | None, int | None]:
    """Return the most patches for training, and for validation: one at least each, ``max_samples`` together."""
    if max_samples is None:
        return None, None
    if max_samples < 2:
        raise InvalidInputError(
            f"max_samples of at least 2, one for each side, was expected, got {max_samples}. Pass more."
        )
    for_val = min(max(int(max_samples * val_fraction), 1), max_samples - 1)
    return max_samples - for_val, for_val


def _crops_of(
    options: SideKeywords,
    split: str | None,
    *,
    lazy: bool,
    max_samples: int | None,
    others: Mapping[str, str | None],
) -> ReadKeywords:
    """Return the options of crops, which are of the training side alone; `InvalidInputError` where none can be.

    ``others`` are what may be read in the place of scenes, by the keyword.
    """
    drawn = cast("ReadKeywords", {name: value for name, value in options.items() if name in _OF_CROPS})
    if drawn.get("crops") is None:
        return drawn
    kind = f"crops={drawn['crops']!r}"
    if instead := [f"{name}={one!r}" for name, one in others.items() if one is not None]:
        raise InvalidInputError(f"{kind} needs scenes, got {instead[0]}. Leave one out.")
    if split is None:
        raise InvalidInputError(
            f"{kind} needs a stored split, whose ground no crop leaves, got none. Make one with "
            "sarzarr.make_split(store), and pass its name as split=."
        )
    if not lazy or max_samples is not None:
        given = "lazy=False" if not lazy else f"max_samples={max_samples}"
        raise InvalidInputError(
            f"{kind} are drawn anew each epoch, got {given}. Leave it out; per_epoch= says how many there are."
        )
    return drawn


def _drawn(rows: Array, most: int | None, seed: int) -> Array:
    """Return at most so many of ``rows`` (k,), drawn by a seed, in their order."""
    if most is None or most >= len(rows):
        return rows
    drawn: Array = rows[drawn_of(len(rows), most, seed)]
    return drawn


def _sample_sides(
    store: Store, samples: str, split: str | None, common: ReadKeywords, val_fraction: float
) -> tuple[ReadKeywords, ReadKeywords, int]:
    """Return the options of training, and of validation, of a set of samples; and how many are on no side."""
    if split is not None:
        return {**common, "split": f"{split}:train"}, {**common, "split": f"{split}:val"}, 0
    made = open_samples(store, samples)
    origins = origins_of_table(made.table, (made.layout.height, made.layout.width))
    if origins is None:
        raise InvalidInputError(
            f"patches that say their product were expected in {samples!r}, got samples without. Make a split of them "
            "with SplitManager, and name it with split=."
        )
    sides = divide_products(origins, val_fraction=val_fraction, seed=int(common["seed"]))
    return {**common, "rows": sides.train}, {**common, "rows": sides.val}, len(sides.left_out)


def _sides(
    store: Store, split: str | None, common: ReadKeywords, val_fraction: float
) -> tuple[ReadKeywords, ReadKeywords]:
    """Return the options of training, and of validation, with the clip of the training side."""
    options = ReadOptions(**common)
    planned: Split
    if split is not None:
        train: ReadKeywords = {**common, "split": f"{split}:train"}
        val: ReadKeywords = {**common, "split": f"{split}:val"}
        planned, _ = read_side(store.place, f"{split}:train")
    else:
        planned = plan_split(store, val_fraction=val_fraction, seed=options.seed)
        table = store.patch_columns(options.index_in(store))
        masks = (planned.patch_mask(table, side, store.grids) for side in (Membership.TRAIN, Membership.VAL))
        rows = [np.flatnonzero(mask) for mask in masks]
        if options.rows is not None:
            rows = [np.intersect1d(some, options.rows) for some in rows]
        train, val = {**common, "rows": rows[0]}, {**common, "rows": rows[1]}
    if options.clip is None and options.dtype != "uint16":
        keys = PatchReader(store, **train).bounds_keys
        found = {**store.bounds, **recommend_clips(store, keys, split=(planned, Membership.TRAIN))}
        train["clip"] = val["clip"] = {key: (one.clip_vmin, one.clip_vmax) for key, one in found.items()}
    return train, val
