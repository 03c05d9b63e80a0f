"""Augmentations of batches, by name, and transforms of (image, target) pairs.

A new one is an entry of `AUGMENTATIONS` and its name, and nothing else. Boxes are half-open pixel ``xyxy``.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.pixels.turns import COLUMNS, ROWS

_TURNS, _NUMBERS = 2, 3  # streams of (seed, epoch) apart from those of `sarzarr.reader.order`
Target = Mapping[str, Any]
Pair = tuple[Any, dict[str, Any]]


def collate_fn(batch: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Return images (C, height, width) float32 and targets as lists, unstacked: what torchvision's detectors take.

    >>> collate_fn([("image", {"boxes": 0}), ("other", {"boxes": 1})])
    (['image', 'other'], [{'boxes': 0}, {'boxes': 1}])
    """
    return [image for image, _ in batch], [target for _, target in batch]


class _RandomFlip:
    """Flip image and boxes with probability ``p``.

    Without a seed a tensor is flipped by torch's own generator, which a ``DataLoader`` seeds anew for each worker and
    epoch; an array, or anything with a seed, by a generator of the process's own, in a worker by the worker's seed.
    """

    axis: int  # of an image (..., rows, columns)
    low: int  # column of the boxes' minimum along it

    def __init__(self, p: float = 0.5, *, seed: int | None = None) -> None:
        if not 0 <= p <= 1:
            raise InvalidInputError(f"p must be a probability from 0 to 1, got {p}.")
        self.p, self.seed = p, seed
        self._own: tuple[Any, np.random.Generator] | None = None

    def _draw(self, *, is_tensor: bool) -> float:
        """Return a number in [0, 1)."""
        if is_tensor and self.seed is None:
            return float(sys.modules["torch"].rand(()))
        data = sys.modules.get("torch.utils.data")
        worker = data.get_worker_info() if data is not None else None
        key = os.getpid(), worker and worker.seed
        if self._own is None or self._own[0] != key:  # a copy of another process's would draw the same
            seeds = [] if self.seed is None else [self.seed]
            seeds += [worker.seed, -self.axis] if worker else []  # the two flips of a worker are not the same
            self._own = key, np.random.default_rng(seeds or None)
        return self._own[1].random()

    def __call__(self, image: Any, target: Target) -> Pair:
        """Return the pair, flipped or as it is; twice flipped is as it was."""
        is_tensor = not isinstance(image, np.ndarray)
        if self._draw(is_tensor=is_tensor) >= self.p:
            return image, dict(target)
        low, high = self.low, self.low + 2
        boxes = target["boxes"] + 0  # a copy, of an array and of a tensor
        boxes[:, [low, high]] = image.shape[self.axis] - target["boxes"][:, [high, low]]
        turned = image.flip(self.axis) if is_tensor else np.flip(image, self.axis).copy()
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


@dataclass(frozen=True, eq=False, kw_only=True)
class Draws:
    """The draws of an augmentation for some patches, whoever delivers them."""

    turns: Array
    """(n,) uint8, operations of `sarzarr.pixels.turns`; 0 where nothing is turned."""
    numbers: Array | None = None
    """(n,), of `Augmentation.draw`; None where values stay."""
    apply: Callable[[Array, Array], Array] | None = None
    """That of the augmentation."""

    def __getitem__(self, some: slice) -> "Draws":
        numbers = None if self.numbers is None else self.numbers[some]
        return Draws(turns=self.turns[some], numbers=numbers, apply=self.apply)

    def change(self, images: Array) -> None:
        """Change the values of images (n, ..., size, size) float32 in place, where the augmentation does so."""
        if self.apply is not None and self.numbers is not None:
            numbers = self.numbers.reshape(-1, *[1] * (images.ndim - 1))
            np.clip(self.apply(images, numbers), 0, 1, out=images)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A random change of each patch: a turn of pixels, flags, layers and boxes alike, and new float32 values."""

    turns: tuple[int, ...] = (0,)
    """Operations of `sarzarr.pixels.turns`, drawn with equal chance; nothing is turned if left out."""
    draw: Callable[[np.random.Generator, int], Array] = lambda random, n: random.integers(1 << 63, size=n)
    """Returns the numbers (n,) of so many patches, say gains; seeds, for what differs by pixel, if left out."""
    apply: Callable[[Array, Array], Array] | None = None
    """Returns the values of images (n, ..., size, size) in [0, 1], as turned, by numbers (n, ..., 1, 1). They are cut
    to [0, 1], and 0 where not valid. None: values stay."""

    def drawn(self, n: int, *, seed: int, epoch: int) -> Draws:
        """Return the draws (n,) of each position of an epoch."""
        turns, numbers = (np.random.default_rng((seed, epoch, stream)) for stream in (_TURNS, _NUMBERS))
        operations = np.array(self.turns, np.uint8)
        return Draws(
            turns=operations[turns.integers(len(operations), size=n)],
            numbers=None if self.apply is None else self.draw(numbers, n),
            apply=self.apply,
        )


AugmentationName = Literal["d4", "flips", "azimuth"]
AUGMENTATIONS: Final[dict[AugmentationName, Augmentation]] = {
    "d4": Augmentation(turns=tuple(range(8))),
    "flips": Augmentation(turns=(0, COLUMNS, ROWS, COLUMNS | ROWS)),
    "azimuth": Augmentation(turns=(0, ROWS)),
}
"""The augmentation of each name. ``azimuth`` reverses the lines alone, so that the radar still looks from the same
side; the others also turn shadow and layover round."""
