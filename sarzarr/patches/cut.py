"""Positions and ids of the patches that a scene is cut into."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError

EDGES: Final = ("drop", "shift", "pad")


@dataclass(frozen=True, kw_only=True)
class IndexSpec:
    """The cut of arrays into patches: a name, and numbers of pixels."""

    name: str = cv.DEFAULT_INDEX
    """The table's name in ``patches/``."""
    size: int = cv.CHUNK
    """Rows and columns of a patch."""
    stride: int = cv.CHUNK
    """Pixels from one patch to the next."""
    edge: str = "drop"
    """Remainders at right and bottom: ``drop`` them, ``shift`` the last patch inward, or ``pad`` it."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.stride < 1:
            raise InvalidInputError(f"size and stride must be at least 1, got {self.size} and {self.stride}.")
        if self.edge not in EDGES:
            raise InvalidInputError(f"edge must be one of {', '.join(EDGES)}, got {self.edge!r}.")


def positions(length: int, spec: IndexSpec) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return the first pixels of the patches along an axis of ``length`` pixels, ascending.

    >>> positions(700, IndexSpec()).tolist()
    [0, 256]
    >>> positions(700, IndexSpec(edge="shift")).tolist()
    [0, 256, 444]
    >>> positions(700, IndexSpec(edge="pad")).tolist()
    [0, 256, 512]
    """
    starts = list(range(0, length - spec.size + 1, spec.stride))
    covered = starts[-1] + spec.size if starts else 0
    if covered < length and spec.edge == "shift" and length >= spec.size:
        starts.append(length - spec.size)
    elif spec.edge == "pad":
        following = starts[-1] + spec.stride if starts else 0
        starts += [following] if covered < length and following < length else []
    return np.array(starts, np.int32)


def patch_ids(
    scene: str, array: str, size: int, row: Array, col: Array
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return (n,) int64, 0 or more: stable ids of patches, a hash of scene, array, size, row and column."""
    return _ids((row.astype(np.uint64) << np.uint64(32)) ^ col.astype(np.uint64) ^ _seed(scene, array, size))


def sample_ids(place: str, ids: Iterable[str], size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return (n,) int64, ids of whole samples: `patch_ids` of each as if it were an array, at row and column 0."""
    return _ids(np.array([_seed(place, one, size) for one in ids], np.uint64))


def ids_of_store(
    ids: np.ndarray[Any, np.dtype[np.int64]], number: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the ids (n,) int64 of the store of that number among several: the first one's stay as they are.

    Exclusive or with 63 bits of a hash of the number: its own inverse, so that ids which differ in a store
    differ here, and those of two stores with the same scenes coincide by chance alone, one pair in 2**63.
    """
    key = np.int64(int(_seed("stores", str(number), 0)) & (2**63 - 1)) if number else np.int64(0)
    return ids ^ key


def _seed(scene: str, array: str, size: int) -> np.uint64:
    digest = blake2b(f"{scene}/{array}/{size}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _ids(mixed: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    # The finalizer of splitmix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195): a bijection.
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed & np.uint64(2**63 - 1)).astype(np.int64)  # without the bit that would be a sign
