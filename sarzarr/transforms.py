"""Transforms of (image, target) pairs for detectors: images (C, H, W), boxes half-open pixel ``xyxy``.

They take torch tensors and NumPy arrays alike, and import neither's framework. What came in is not changed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from sarzarr.errors import InvalidInputError

Target = Mapping[str, Any]
Pair = tuple[Any, dict[str, Any]]
ROWS: Final = 1
COLUMNS: Final = 2


def collate_fn(batch: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Return (images, targets) as lists, unstacked: what torchvision's detectors take.

    >>> collate_fn([("image", {"boxes": 0}), ("other", {"boxes": 1})])
    (['image', 'other'], [{'boxes': 0}, {'boxes': 1}])
    """
    return [image for image, _ in batch], [target for _, target in batch]


class _RandomFlip:
    """Flip image and boxes with probability ``p``; the draws are a function of the seed and their number."""

    axis: int
    low: int

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
        boxes = _copied(target["boxes"])
        boxes[:, self.low] = size - target["boxes"][:, high]
        boxes[:, high] = size - target["boxes"][:, self.low]
        return _flipped(image, self.axis), {**target, "boxes": boxes}


class RandomHorizontalFlip(_RandomFlip):
    """Swap left and right: ``x' = width - x``, with minimum and maximum exchanged.

    Times or ranges are then reversed: only for symmetric signals does a label stay true.
    """

    axis = COLUMNS
    low = 0


class RandomVerticalFlip(_RandomFlip):
    """Swap top and bottom: ``y' = height - y``, with minimum and maximum exchanged."""

    axis = ROWS
    low = 1


class Compose:
    """Apply transforms one after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any, Any], Pair]]) -> None:
        self.transforms = tuple(transforms)

    def __call__(self, image: Any, target: Target) -> Pair:
        """Return the pair after the last transform."""
        pair: Pair = (image, dict(target))
        for transform in self.transforms:
            pair = transform(*pair)
        return pair


def _flipped(image: Any, axis: int) -> Any:
    if isinstance(image, np.ndarray):
        return np.ascontiguousarray(np.flip(image, axis))
    return image.flip(axis)


def _copied(values: Any) -> Any:
    return values.copy() if isinstance(values, np.ndarray) else values.clone()
