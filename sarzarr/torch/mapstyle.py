"""Map-style datasets: patches by number, in memory, over a store, or over `.npy` files in place."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
import torch
from torch.utils.data import Dataset

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.ingestion.archives.npy import METADATA, read_archive, read_one
from sarzarr.ingestion.archives.rows import ArchivePatches
from sarzarr.keywords import shows_options
from sarzarr.pixels.turns import apply
from sarzarr.reader.augment import AUGMENTATIONS
from sarzarr.reader.epochs import EpochReader
from sarzarr.reader.options import ItemKeywords, ReadOptions, SampleKeywords
from sarzarr.reader.reader import PatchReader
from sarzarr.reader.samples import SampleReader
from sarzarr.store.store import AnyStore


class TurnedPatches(Dataset[torch.Tensor]):
    """Images (N, C, rows, columns) in memory; an item is a copy, turned and transformed, as float32."""

    def __init__(self, images: Array, augment: bool, transform: Callable[[Any], Any] | None = None) -> None:
        self.images = images
        self.augment = augment
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._item(self.images[index].copy())

    def _item(self, image: Array) -> torch.Tensor:
        """Return the float32 tensor (C, rows, columns) of an image (C, rows, columns) of the caller's own."""
        if self.augment:
            # torch's generator: seeded by torch.manual_seed, and apart in each worker, rank and epoch.
            turns = AUGMENTATIONS["d4" if image.shape[-1] == image.shape[-2] else "flips"].turns
            image = np.ascontiguousarray(apply(turns[int(torch.randint(len(turns), ()))], image))
        if self.transform is None:
            return torch.from_numpy(image)
        # A transform is given (rows, columns) where there is one channel, and may return a tensor.
        result = torch.as_tensor(self.transform(image[0] if len(image) == 1 else image), dtype=torch.float32)
        return result[None] if result.ndim == 2 else result


class SARPatchDataset(TurnedPatches):
    """Patches in memory, as items (1, H, W) float32.

    Parameters
    ----------
    patches
        (N, H, W) in [0, 1], kept as float32; others raise `InvalidInputError`, a ValueError.
    augment
        Turn each item by one of the flips and quarter turns, anew each time; flips alone where H is not W.
    transform
        Called with each (H, W) array after that; returns an array or a tensor.
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
        super().__init__(self.patches[:, None], augment, transform)


class PatchItems(TurnedPatches):
    """Patches of a reader by number, as items (C, rows, columns) float32, read when they are asked for.

    Pickles without its order: that is made of the runs in ``rows`` and of ``seed`` where it is needed.
    """

    def __init__(
        self,
        reader: EpochReader | ArchivePatches,
        augment: bool,
        transform: Callable[[Any], Any] | None = None,
        *,
        rows: Array | None = None,
        seed: int | None = None,
    ) -> None:
        """Take ``rows`` (k,) int64 of a reader, ascending, or all; shuffled by ``seed``, if any."""
        super().__init__(np.empty(0), augment, transform)
        self.reader = reader
        rows = np.arange(_count(reader)) if rows is None else rows
        edges = np.flatnonzero(np.diff(rows, prepend=-2, append=np.iinfo(np.int64).max) != 1)
        self._runs = np.stack([rows[edges[:-1]], np.diff(edges)], axis=1)
        self._seed = seed

    @cached_property
    def numbers(self) -> Array:
        """(n,) int64: the number in the reader of each item."""
        parts = [np.arange(first, first + count) for first, count in self._runs.tolist()]
        rows: Array = np.concatenate([np.zeros(0, np.int64), *parts])
        if self._seed is not None:
            rows = np.random.default_rng(self._seed).permutation(rows)
        return rows

    @property
    def preprocessing_params(self) -> dict[str, Any]:
        """``{"vmin", "vmax"}`` in dB of the items; `MixedBoundsError` where the selection has several."""
        return self.reader.preprocessing_params

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """Return items read together: what a DataLoader calls for a batch."""
        return [self._item(image) for image in self.reader.read(self.numbers[np.asarray(indices)])]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "numbers"}


@shows_options(ReadOptions, ItemKeywords)
class LazyPatchDataset(PatchItems):
    """Patches of a store or of ``.npy`` files by number, as items (C, size, size) float32, read when asked for.

    For samplers and tools that want a map-style dataset; `ZarrPatchDataset` of a store is many times faster.

    Parameters
    ----------
    metadata_path
        A store; or the ``metadata.npy`` of an archive, or one ``.npy`` file (n, rows, columns) in [0, 1], which are
        read in place: nothing of them is loaded whole, and each file is opened once a process.
    augment, transform
        As of `SARPatchDataset`.
    shuffle_seed
        Item i is patch ``default_rng(shuffle_seed).permutation(len)[i]``; None leaves the order as it is.
    samples
        Name of a set of samples of the store, in the place of patches of scenes.
    **options
        The fields of `sarzarr.reader.options.ReadOptions` that say which patches; none of them for ``.npy`` files.
    """

    def __init__(
        self,
        metadata_path: AnyStore,
        augment: bool = True,
        shuffle_seed: int | None = 42,
        transform: Callable[[Any], Any] | None = None,
        *,
        samples: str | None = None,
        **options: Unpack[ItemKeywords],
    ) -> None:
        if options.get("layers"):
            raise InvalidInputError(
                f"LazyPatchDataset has images alone as its items, got layers={options['layers']!r}. "
                "Take ZarrPatchDataset, or PatchReader.read."
            )
        reader: EpochReader | ArchivePatches
        if (archive := open_archive(metadata_path)) is not None:
            refuse_options("LazyPatchDataset", {**options, **({"samples": samples} if samples else {})})
            reader = archive
        elif samples is not None:
            reader = SampleReader(metadata_path, samples, **cast("SampleKeywords", options))
        else:
            reader = PatchReader(metadata_path, **options)
        super().__init__(reader, augment, transform, seed=shuffle_seed)


def open_archive(path: AnyStore) -> ArchivePatches | None:
    """Return the patches (n, rows, columns) of a ``metadata.npy`` or of one ``.npy`` file; None of another path."""
    if not isinstance(path, str | Path) or Path(path).suffix.lower() != ".npy":
        return None
    return ArchivePatches(read_archive(path) if Path(path).name == METADATA else read_one(path))


def refuse_options(taker: str, options: Mapping[str, Any]) -> None:
    """Refuse options that ``.npy`` files, patches (n, rows, columns), do not have: `InvalidInputError`."""
    if options:
        raise InvalidInputError(
            f"a store was expected for {', '.join(options)} of {taker}, got a .npy file, which has patches and "
            "nothing else. Leave them out, or bring it into a store with `sarzarr import npy`."
        )


def _count(reader: EpochReader | ArchivePatches) -> int:
    return len(reader) if isinstance(reader, ArchivePatches) else len(reader.selection)
