"""Flips and quarter turns: the augmentations that leave what a SAR pixel measured untouched.

An operation is one of eight codes, a sum of three bits applied in this order: 4 transposes, 2 reverses
the rows, 1 reverses the columns. Boxes and pixels move by the same code.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from sarzarr.errors import InvalidInputError

Array = np.ndarray[Any, Any]
Kind = Literal["d4", "flips", "azimuth"]
COLUMNS: Final = 1
ROWS: Final = 2
TRANSPOSE: Final = 4
OPERATIONS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "d4": tuple(range(8)),
        "flips": (0, COLUMNS, ROWS, COLUMNS | ROWS),
        "azimuth": (0, ROWS),
    }
)
"""Operations of each kind, drawn with equal chance. ``azimuth`` reverses the lines alone, so that the radar
still looks from the same side; the others also turn shadow and layover round."""
_STREAM: Final = 2  # apart from the streams of `sarzarr.order`


def check_kind(kind: str | None) -> None:
    """Raise `InvalidInputError` unless ``kind`` is None or a key of `OPERATIONS`."""
    if kind is not None and kind not in OPERATIONS:
        raise InvalidInputError(f"augment must be one of {', '.join(OPERATIONS)} or None, got {kind!r}.")


def draw(kind: str, n: int, *, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the operation (n,) of each position of an epoch, whoever delivers it."""
    check_kind(kind)
    operations = np.array(OPERATIONS[kind], np.uint8)
    return operations[np.random.default_rng((seed, epoch, _STREAM)).integers(len(operations), size=n)]


def apply(operation: int, image: Array) -> Array:
    """Return a view of ``image`` (..., rows, columns) under an operation; shapes turn with a transpose."""
    if operation & TRANSPOSE:
        image = image.swapaxes(-1, -2)
    if operation & ROWS:
        image = image[..., ::-1, :]
    return image[..., ::-1] if operation & COLUMNS else image


def inverse(operation: int) -> int:
    """Return the operation that undoes ``operation``: a transpose makes row flips of column flips."""
    if operation & TRANSPOSE and (operation & (ROWS | COLUMNS)) in (ROWS, COLUMNS):
        return operation ^ (ROWS | COLUMNS)
    return operation


def apply_to_boxes(operation: int, boxes: Array, *, size: int) -> Array:
    """Return half-open pixel boxes (n, 4) ``x_min y_min x_max y_max`` under an operation; the patch is square."""
    x_min, y_min, x_max, y_max = np.asarray(boxes).reshape(-1, 4).T
    if operation & TRANSPOSE:
        x_min, y_min, x_max, y_max = y_min, x_min, y_max, x_max
    if operation & ROWS:
        y_min, y_max = size - y_max, size - y_min
    if operation & COLUMNS:
        x_min, x_max = size - x_max, size - x_min
    return np.stack([x_min, y_min, x_max, y_max], axis=1)
