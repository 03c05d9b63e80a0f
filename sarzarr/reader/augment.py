"""Augmentations: which flips and quarter turns a batch gets, and transforms of (image, target) pairs.

Images are (C, H, W), boxes half-open pixel ``xyxy``.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from sarzarr.errors import InvalidInputError
from sarzarr.pixels.turns import COLUMNS, ROWS

Target = Mapping[str, Any]
Pair = tuple[Any, dict[str, Any]]


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

    axis = 2
    low = 0


class RandomVerticalFlip(_RandomFlip):
    """Swap top and bottom: ``y' = height - y``, with minimum and maximum exchanged."""

    axis = 1
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


Kind = Literal["d4", "flips", "azimuth"]
OPERATIONS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "d4": tuple(range(8)),
        "flips": (0, COLUMNS, ROWS, COLUMNS | ROWS),
        "azimuth": (0, ROWS),
    }
)
"""Operations of each kind, drawn with equal chance. ``azimuth`` reverses the lines alone, so that the radar
still looks from the same side; the others also turn shadow and layover round."""
_STREAM: Final = 2  # apart from the streams of `sarzarr.reader.order`


def check_kind(kind: str | None) -> None:
    """Raise `InvalidInputError` unless ``kind`` is None or a key of `OPERATIONS`."""
    if kind is not None and kind not in OPERATIONS:
        raise InvalidInputError(f"augment must be one of {', '.join(OPERATIONS)} or None, got {kind!r}.")


def draw(kind: str, n: int, *, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the operation (n,) of each position of an epoch, whoever delivers it."""
    check_kind(kind)
    operations = np.array(OPERATIONS[kind], np.uint8)
    return operations[np.random.default_rng((seed, epoch, _STREAM)).integers(len(operations), size=n)]
