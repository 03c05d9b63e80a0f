"""Map-style datasets: patches by number, in memory or over a store."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch.utils.data import Dataset

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.keywords import shows_options
from sarzarr.pixels.turns import apply
from sarzarr.reader.augment import AUGMENTATIONS
from sarzarr.reader.options import ItemKeywords, ReadOptions
from sarzarr.reader.reader import PatchReader
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


@shows_options(ReadOptions, ItemKeywords)
class LazyPatchDataset(TurnedPatches):
    """A store's patches by number, as items (C, size, size) float32, read when they are asked for.

    For samplers and tools that want a map-style dataset; `ZarrPatchDataset` is many times faster.

    Parameters
    ----------
    metadata_path
        A store.
    augment, transform
        As of `SARPatchDataset`.
    shuffle_seed
        Item i is patch ``default_rng(shuffle_seed).permutation(len)[i]``; None leaves the order as it is.
    **options
        The fields of `sarzarr.reader.options.ReadOptions` that say which patches.
    """

    def __init__(
        self,
        metadata_path: AnyStore,
        augment: bool = True,
        shuffle_seed: int | None = 42,
        transform: Callable[[Any], Any] | None = None,
        **options: Unpack[ItemKeywords],
    ) -> None:
        if options.get("layers"):
            raise InvalidInputError(
                f"LazyPatchDataset has images alone as its items, got layers={options['layers']!r}. "
                "Take ZarrPatchDataset, or PatchReader.read."
            )
        self.reader = PatchReader(metadata_path, **options)
        super().__init__(np.empty(0), augment, transform)
        self._order = np.arange(len(self.reader.selection))
        if shuffle_seed is not None:
            self._order = np.random.default_rng(shuffle_seed).permutation(self._order)

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
        return [self._item(image) for image in self.reader.read(self._order[np.asarray(indices)])]
