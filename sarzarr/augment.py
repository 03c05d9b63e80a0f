"""Flips and quarter turns: the augmentations that leave what a SAR pixel measured untouched.

An operation is one of eight codes, a sum of three bits applied in this order: 4 transposes, 2 reverses
the rows, 1 reverses the columns. Boxes and pixels move by the same code.
"""

from collections.abc import Callable, Mapping
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
_LINE: Final = 64  # bytes of a cache line
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


def copy_turned(image: Array, operation: int, out: Array, memory: Callable[..., Array]) -> None:
    """Write ``apply(operation, image)`` of a square image into the contiguous ``out`` of its dtype.

    NumPy moves such views element by element, and rows that are a power of two apart fight for the same
    cache lines; so pixels move in words, out of rows with a gap between them. ``memory(name, shape, dtype)``
    gives scratch memory.
    """
    if not operation & (TRANSPOSE | COLUMNS):
        np.copyto(out, image[::-1] if operation & ROWS else image)
    elif operation & TRANSPOSE:
        source = image[::-1] if operation & COLUMNS else image
        _copy_transposed(source, out[::-1] if operation & ROWS else out, memory)
    else:
        _copy_mirrored(image[::-1] if operation & ROWS else image, out, memory)


def _copy_transposed(image: Array, out: Array, memory: Callable[..., Array]) -> None:
    rows, columns = image.shape
    has_pairs = image.dtype.itemsize == 2 and columns % 2 == 0
    words = image.view(np.uint32) if has_pairs else image
    gap = _LINE // words.dtype.itemsize
    spaced = memory("spaced", (rows, words.shape[1] + gap), words.dtype)[:, : words.shape[1]]
    np.copyto(spaced, words)
    if not has_pairs:
        np.copyto(out, spaced.T)
        return
    pairs = memory("pairs", (words.shape[1], rows), words.dtype)
    np.copyto(pairs, spaced.T)  # each holds two columns' pixels of one row, the left one low
    codes = out.view(np.uint16)
    np.copyto(codes[::2], pairs, casting="unsafe")
    np.right_shift(pairs, np.uint32(16), out=pairs)
    np.copyto(codes[1::2], pairs, casting="unsafe")


def _copy_mirrored(image: Array, out: Array, memory: Callable[..., Array]) -> None:
    if image.dtype.itemsize != 2 or image.shape[1] % 4:
        np.copyto(out, image[:, ::-1])
        return
    words = memory("words", (image.shape[0], image.shape[1] // 4), np.dtype(np.uint64))
    # Reversing bytes reverses the four pixels of a word, and each pixel's bytes: those are turned back.
    np.copyto(words, image.view(">u8")[:, ::-1])
    np.copyto(out.view(np.uint16), words.view(">u2"))


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
