"""Augmentations of batches, by name, and transforms of (image, target) pairs.

A new one is registered in `AUGMENTATIONS`, by the name that ``augment=`` of every reader then takes. None changes
values yet: one that does (speckle, gain) is applied in `PrefetchThreads.batch`. Boxes are half-open pixel ``xyxy``.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.pixels.turns import COLUMNS, ROWS

Target = Mapping[str, Any]
Pair = tuple[Any, dict[str, Any]]


def collate_fn(batch: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Return images (C, height, width) float32 and targets as lists, unstacked: what torchvision's detectors take.

    >>> collate_fn([("image", {"boxes": 0}), ("other", {"boxes": 1})])
    (['image', 'other'], [{'boxes': 0}, {'boxes': 1}])
    """
    return [image for image, _ in batch], [target for _, target in batch]


class _RandomFlip:
    """Flip image and boxes with probability ``p``; the draws are a function of the seed and their number."""

    axis: int  # of an image (..., rows, columns)
    low: int  # column of the boxes' minimum along it

    def __init__(self, p: float = 0.5, *, seed: int | None = None) -> None:
        if not 0 <= p <= 1:
            raise InvalidInputError(f"p must be a probability from 0 to 1, got {p}.")
        self.p = p
        self.random = np.random.default_rng(seed)

    def __call__(self, image: Any, target: Target) -> Pair:
        """Return the pair, flipped or as it is; twice flipped is as it was."""
        if self.random.random() >= self.p:
            return image, dict(target)
        size, high = image.shape[self.axis], self.low + 2
        boxes = target["boxes"] + 0  # a copy, of an array and of a tensor
        boxes[:, self.low] = size - target["boxes"][:, high]
        boxes[:, high] = size - target["boxes"][:, self.low]
        is_array = isinstance(image, np.ndarray)
        turned = np.ascontiguousarray(np.flip(image, self.axis)) if is_array else image.flip(self.axis)
        return turned, {**target, "boxes": boxes}


class RandomHorizontalFlip(_RandomFlip):
    """Swap left and right of an image (..., rows, columns): ``x' = width - x``, minimum and maximum exchanged.

    Times or ranges are then reversed: only for symmetric signals does a label stay true.
    """

    axis = -1
    low = 0


class RandomVerticalFlip(_RandomFlip):
    """Swap top and bottom of an image (..., rows, columns): ``y' = height - y``, minimum and maximum exchanged."""

    axis = -2
    low = 1


class Compose:
    """Apply transforms of an image (..., rows, columns) and its target one after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any, Any], Pair]]) -> None:
        self.transforms = tuple(transforms)

    def __call__(self, image: Any, target: Target) -> Pair:
        """Return the pair after the last transform."""
        pair: Pair = (image, dict(target))
        for transform in self.transforms:
            pair = transform(*pair)
        return pair


Augmentation = Literal["d4", "flips", "azimuth"]
AUGMENTATIONS: Final[Mapping[Augmentation, tuple[int, ...]]] = MappingProxyType(
    {"d4": tuple(range(8)), "flips": (0, COLUMNS, ROWS, COLUMNS | ROWS), "azimuth": (0, ROWS)}
)
"""Operations of `sarzarr.pixels.turns` of each augmentation, drawn with equal chance. ``azimuth`` reverses the lines
alone, so that the radar still looks from the same side; the others also turn shadow and layover round."""
_STREAM: Final = 2  # apart from the streams of `sarzarr.reader.order`


def drawn_operations(name: Augmentation, n: int, *, seed: int, epoch: int) -> Array:
    """Return the operation (n,) uint8 of each position of an epoch, whoever delivers it."""
    operations = np.array(AUGMENTATIONS[name], np.uint8)
    return operations[np.random.default_rng((seed, epoch, _STREAM)).integers(len(operations), size=n)]
