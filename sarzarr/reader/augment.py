"""Augmentations of batches: turns by name, changes of values; and transforms of (image, target) pairs.

A new name is an entry of `AUGMENTATIONS` and its name, and nothing else. Boxes are half-open pixel ``xyxy``.
"""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.pixels.turns import COLUMNS, ROWS

_TURNS, _NUMBERS = 2, 3  # streams of (seed, epoch) apart from those of `sarzarr.reader.order`
_NEPERS: Final = np.float32(np.log(10) / 10)
"""The natural logarithm of power for each dB."""
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
        if boxes.shape[-1] == 5:  # rotated
            boxes[:, low] = image.shape[self.axis] - target["boxes"][:, low]
            boxes[:, 4] = -target["boxes"][:, 4]
        else:
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


Change = Callable[[Array, Sequence[np.random.Generator]], Array]
"""Returns new values of images (n, ..., rows, columns) float32, as turned, drawn from one generator per image."""


class PowerChange(ABC):
    """A change of linear power: called with power (n, ..., rows, columns) float32 and a generator per patch.

    Pixels come from the stored range, so that what a clip hides has its own power; they are stretched to it after.
    """

    @abstractmethod
    def __call__(self, power: Array, rngs: Sequence[np.random.Generator]) -> Array:
        """Return the new power, of the same shape; what is not above 0 becomes 0 of the clip."""


@dataclass(frozen=True)
class Speckle(PowerChange):
    """Multiplicative speckle: power times a gamma variate of mean 1 and variance 1 / looks, for each pixel.

    Speckle of L1 looks becomes speckle of 1 / (1/L1 + 1/L2 + 1/(L1 L2)) looks (Lee and Pottier, 2009, section 4.2).
    """

    looks: float
    """Its number of looks L2, above 0."""

    def __post_init__(self) -> None:
        _check_above_0(self, "looks")

    def __call__(self, power: Array, rngs: Sequence[np.random.Generator]) -> Array:
        """Return the speckled power (n, ..., rows, columns); the expected mean is that of ``power``."""
        for image, rng in zip(power, rngs, strict=True):
            image *= _of_mean_1(rng, self.looks, image.shape)
        return power


@dataclass(frozen=True)
class Gain(PowerChange):
    """A wrong calibration: one factor per patch, of which the dB are normal around 0."""

    std_db: float
    """Standard deviation, dB, above 0."""

    def __post_init__(self) -> None:
        _check_above_0(self, "std_db")

    def __call__(self, power: Array, rngs: Sequence[np.random.Generator]) -> Array:
        """Return the power (n, ..., rows, columns) times the factor of each patch."""
        for image, rng in zip(power, rngs, strict=True):
            image *= np.float32(10 ** (self.std_db * rng.standard_normal() / 10))
        return power


@dataclass(frozen=True)
class AdditiveNoise(PowerChange):
    """Thermal noise: power is added to each pixel, a gamma variate with the noise's mean and looks."""

    nesz_db: float
    """Mean of the power that is added, dB: a noise equivalent sigma zero."""
    looks: float = 1.0
    """Number of looks, above 0; 1 is the exponential law of a single look."""

    def __post_init__(self) -> None:
        _check_above_0(self, "looks")
        if not np.isfinite(self.nesz_db):
            raise InvalidInputError(f"expected a finite nesz_db, got {self.nesz_db!r}. Give dB, such as -25.")

    def __call__(self, power: Array, rngs: Sequence[np.random.Generator]) -> Array:
        """Return the power (n, ..., rows, columns) with noise: its expected mean is higher by that of the noise."""
        for image, rng in zip(power, rngs, strict=True):
            image += np.float32(10 ** (self.nesz_db / 10)) * _of_mean_1(rng, self.looks, image.shape)
        return power


def _of_mean_1(rng: np.random.Generator, looks: float, shape: tuple[int, ...]) -> Array:
    """Return gamma variates, float32, of mean 1 and variance 1 / looks."""
    values = rng.standard_gamma(looks, shape, dtype=np.float32)
    return np.divide(values, np.float32(looks), out=values)


def _check_above_0(change: PowerChange, name: str) -> None:
    value = getattr(change, name)
    if not (np.isfinite(value) and value > 0):
        raise InvalidInputError(
            f"expected {name} of {type(change).__name__} above 0, got {value!r}. Leave it out for no change."
        )


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A random change of each patch: a turn of pixels, flags, layers and boxes alike, and new float32 values."""

    turns: tuple[int, ...] = (0,)
    """Operations of `sarzarr.pixels.turns`, drawn with equal chance; nothing is turned if left out."""
    changes: tuple[Change, ...] = ()
    """Changes of values, one after another: those of power first, then those of [0, 1], whose results are cut to
    [0, 1], NaN to 0. What is not valid stays 0."""

    def __post_init__(self) -> None:
        kinds = [isinstance(change, PowerChange) for change in self.changes]
        if kinds != sorted(kinds, reverse=True):
            raise InvalidInputError(
                "expected changes of power before those of [0, 1], got another order. Give Speckle, Gain, "
                "AdditiveNoise and others of power first."
            )

    @property
    def is_in_power(self) -> bool:
        """Whether a change is of linear power."""
        return any(isinstance(change, PowerChange) for change in self.changes)

    def drawn(self, ids: Array, *, seed: int, epoch: int) -> "Draws":
        """Return the draws of patches with ``ids`` (n,) in the order of an epoch.

        A turn depends on (seed, epoch, place in the order), a change of values on (seed, epoch, id), and on how
        often the patch came before in this epoch.
        """
        operations = np.array(self.turns, np.uint8)
        turns = np.random.default_rng((seed, epoch, _TURNS)).integers(len(operations), size=len(ids))
        patches = np.stack([ids, _times_before(ids)], axis=1) if self.changes else None
        return Draws(turns=operations[turns], changes=self.changes, key=(seed, epoch), patches=patches)


@dataclass(frozen=True, eq=False, kw_only=True)
class Draws:
    """The draws of an augmentation for some patches, whoever delivers them."""

    turns: Array
    """(n,) uint8, operations of `sarzarr.pixels.turns`; 0 where nothing is turned."""
    changes: tuple[Change, ...] = ()
    """Those of the augmentation."""
    key: tuple[int, int] = (0, 0)
    """Seed and epoch."""
    patches: Array | None = None
    """(n, 2) int64: the id of each patch, and how often it came before in the epoch; None where values stay."""

    def __getitem__(self, some: slice) -> "Draws":
        patches = None if self.patches is None else self.patches[some]
        return replace(self, turns=self.turns[some], patches=patches)

    def change(self, images: Array, ranges: Array | None = None) -> None:
        """Change the values of images (n, ..., size, size) float32 in place, where the augmentation does so.

        ``ranges`` (n, ..., 4) are (vmin, vmax), in dB, that each plane's values come in and those that they are
        delivered in; they are needed by changes of power.
        """
        if self.patches is None:
            return
        rngs = [np.random.default_rng((*self.key, _NUMBERS, *patch)) for patch in self.patches.tolist()]
        in_power = [change for change in self.changes if isinstance(change, PowerChange)]
        for i in range(len(images) if in_power else 0):  # one at a time stays in cache
            one = slice(i, i + 1)
            _change_power(images[one], in_power, rngs[one], np.asarray(ranges)[one])
        for change in self.changes[len(in_power) :]:
            _cut(_changed(change, images, rngs), out=images)


def _change_power(
    images: Array, changes: Sequence[Change], rngs: Sequence[np.random.Generator], ranges: Array
) -> None:
    """Bring images from [0, 1] of one range (dB) to power, change it, and bring it to [0, 1] of the other."""
    vmin, vmax, low, high = np.moveaxis(ranges.astype(np.float32), -1, 0)[..., None, None]
    np.multiply(images, (vmax - vmin) * _NEPERS, out=images)
    np.add(images, vmin * _NEPERS, out=images)
    power = np.exp(images, out=images)
    for change in changes:
        power = _changed(change, power, rngs)
    np.fmax(power, np.finfo(np.float32).tiny, out=images)
    np.log(images, out=images)
    np.subtract(images, low * _NEPERS, out=images)
    _cut(np.divide(images, (high - low) * _NEPERS, out=images), out=images)


def _changed(change: Change, images: Array, rngs: Sequence[np.random.Generator]) -> Array:
    """Return what a change makes of images (n, ..., rows, columns)."""
    result = change(images, rngs)
    if not isinstance(result, np.ndarray) or result.shape != images.shape:
        got = f"shape {result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
        raise InvalidInputError(
            f"expected an array of shape {images.shape} from the augmentation {change!r}, got {got}. "
            "Return the new values of every image."
        )
    return result


def _cut(values: Array, out: Array) -> None:
    """Write float32 values cut to [0, 1], NaN to 0."""
    np.fmin(np.fmax(values, np.float32(0)), np.float32(1), out=out, casting="same_kind")


def _times_before(ids: Array) -> Array:
    """Return (n,) int64: how often each id came before.

    >>> _times_before(np.array([7, 5, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
    times = np.empty(len(ids), np.int64)
    times[order] = np.arange(len(ids)) - np.repeat(starts, np.diff(starts, append=len(ids)))
    return times


AugmentationName = Literal["d4", "flips", "azimuth"]
AUGMENTATIONS: Final[dict[AugmentationName, Augmentation]] = {
    "d4": Augmentation(turns=tuple(range(8))),
    "flips": Augmentation(turns=(0, COLUMNS, ROWS, COLUMNS | ROWS)),
    "azimuth": Augmentation(turns=(0, ROWS)),
}
"""The augmentation of each name. ``azimuth`` reverses the lines alone, so that the radar still looks from the same
side; the others also turn shadow and layover round."""
Augment = AugmentationName | Augmentation | Change | Sequence[AugmentationName | Augmentation | Change]
"""An augmentation, however it is given: a name, an `Augmentation`, a `PowerChange` or other `Change`, or several."""


def augmentation_of(given: Augment | None) -> Augmentation:
    """Return the augmentation that is given; one that does nothing for None.

    Raises `InvalidInputError` where a name is not known, two turn pixels, or power comes after [0, 1].

    >>> augmentation_of(("azimuth", Speckle(looks=4))).turns
    (0, 2)
    """
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    parts = [_augmentation(one) for one in several if one is not None]
    turning = [part.turns for part in parts if part.turns != (0,)]
    if len(turning) > 1:
        raise InvalidInputError(
            f"expected one of {', '.join(AUGMENTATIONS)} in augment, got {given!r}. Keep one."
        )
    changes = tuple(change for part in parts for change in part.changes)
    return Augmentation(turns=turning[0] if turning else (0,), changes=changes)


def _augmentation(one: Any) -> Augmentation:
    if isinstance(one, Augmentation):
        return one
    if isinstance(one, str) and one in AUGMENTATIONS:
        return AUGMENTATIONS[one]
    if callable(one) and not isinstance(one, type):
        return Augmentation(changes=(one,))
    raise InvalidInputError(
        f"augment must be one of {', '.join(AUGMENTATIONS)}, an Augmentation, a function (images, rngs), several of "
        f"these, or None, got {one!r}."
    )
