"""Training and validation loaders of one store."""

import copy
from contextlib import suppress
from typing import Any, Unpack, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from sarzarr.conventions import Membership
from sarzarr.errors import InvalidInputError, MixedBoundsError
from sarzarr.keywords import shows_options
from sarzarr.reader.options import PatchKeywords, ReadKeywords, ReadOptions
from sarzarr.splits.make import plan_split
from sarzarr.store.store import AnyStore, Store, open_store
from sarzarr.torch.dataset import ZarrPatchDataset
from sarzarr.torch.mapstyle import TurnedPatches


@shows_options(ReadOptions, PatchKeywords)
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
        Further fields of `sarzarr.reader.options.ReadOptions`, for both sides.
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
        **options: Unpack[PatchKeywords],
    ) -> None:
        if options.get("layers") and not lazy:
            raise InvalidInputError("layers= needs batches as they are read, got lazy=False. Leave that out.")
        self.store = open_store(patches_path)
        self.num_workers = num_workers
        self.batch_size = batch_size
        common = cast("ReadKeywords", {**options, "batch_size": batch_size, "seed": seed})
        train, val = _sides(self.store, split, common, val_fraction)
        if max_samples is not None:
            for_val = int(max_samples * val_fraction)
            train["max_patches"], val["max_patches"] = max(max_samples - for_val, 1), max(for_val, 1)
        train["shuffle"] = train["drop_last"] = True
        train["augment"] = "d4" if augment_train and lazy else None
        self._train = ZarrPatchDataset(self.store, **train)
        self._val = ZarrPatchDataset(self.store, **val)
        turned = ((self._train, augment_train), (self._val, False))
        self._in_memory = (
            None
            if lazy
            else [
                TurnedPatches(data.reader.read(np.arange(len(data.reader.selection))), augment)
                for data, augment in turned
            ]
        )

    @property
    def preprocessing_params(self) -> dict[str, float] | None:
        """``{"vmin", "vmax"}`` in dB that both sides' batches are made with; None where there are several."""
        with suppress(MixedBoundsError):
            params = self._train.preprocessing_params
            return params if params == self._val.preprocessing_params else None
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
        """Return shuffled batches (N, C, size, size) float32 of one size N, anew each epoch."""
        if self._in_memory is not None:
            return self._loader(self._in_memory[0], batch_size=self.batch_size, shuffle=True, drop_last=True)
        return self._loader(self._train, batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return every validation patch in order, in batches (N, C, size, size) float32."""
        if self._in_memory is not None:
            return self._loader(self._in_memory[1], batch_size=self.batch_size)
        return self._loader(self._val, batch_size=None)

    def get_sample_batch(self, split: str = "train") -> Any:
        """Return one float32 batch (N, C, size, size) of ``train`` or ``val``; training goes on as if it had not."""
        if split not in ("train", "val"):
            raise InvalidInputError(f"split must be 'train' or 'val', got {split!r}.")
        return next(iter(copy.deepcopy(self._train if split == "train" else self._val)))

    def _loader(self, dataset: Any, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            **options,
        )


def _sides(
    store: Store, split: str | None, common: ReadKeywords, val_fraction: float
) -> tuple[ReadKeywords, ReadKeywords]:
    """Return the options of training, and of validation."""
    if split is not None:
        return {**common, "split": f"{split}:train"}, {**common, "split": f"{split}:val"}
    options = ReadOptions(**common)
    planned = plan_split(store, val_fraction=val_fraction, seed=options.seed)
    table = store.patch_columns(options.index_in(store))
    sides = (planned.patch_mask(table, side, store.grids) for side in (Membership.TRAIN, Membership.VAL))
    train, val = (np.flatnonzero(mask) for mask in sides)
    if options.rows is not None:
        train, val = (np.intersect1d(rows, options.rows) for rows in (train, val))
    return {**common, "rows": train}, {**common, "rows": val}
