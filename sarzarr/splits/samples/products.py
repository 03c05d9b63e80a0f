"""Splits of patches whose positions are gone: by product, never by number; the quarters of patches tell neighbours.

Where an image gives a patch every half of its side, a patch shares one of its quarters, pixel for pixel, with each of
its neighbours. A hash of each quarter so tells which patches have pixels in common.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError

log = logging.getLogger(__name__)
HASHES: Final = ("hash_0", "hash_1", "hash_2", "hash_3")
"""Columns of a set of samples: hashes of the upper left, upper right, lower left and lower right quarter."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchOrigins:
    """The origins of patches, a row each."""

    product: Array
    """(n,) of texts: the product, which all of its polarizations share."""
    file: Array
    """(n,): the file, which is one image; patches of a file follow each other as in the image, row by row."""
    size: tuple[int, int]
    """(rows, columns) of a patch."""
    stride: int | None
    """Pixels from one patch to the next; None where nothing says so."""
    hashes_of: Callable[[], Array]
    """Gives (n, 4) uint64: a hash of each quarter; 0 where it tells nothing."""
    is_hashed: bool
    """Whether hashes are at hand, without reading any pixels."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ProductSides:
    """The rows of each side, ascending; no pixel is on two of them."""

    train: Array
    """(k,) int64: rows for training."""
    val: Array
    """(m,) int64: rows for validation."""
    left_out: Array
    """(h,) int64: rows that would train and show pixels of validation."""


def divide_products(origins: PatchOrigins, *, val_fraction: float, seed: int) -> ProductSides:
    """Return the rows (n,) of each side: whole products; of one file a run of it, and what shares nothing with it.

    Products are shuffled by ``seed`` and taken for validation until it has ``val_fraction`` of the rows; one at least
    trains. Of a single file validation is one run of rows, and ``seed`` says where it begins.

    Raises `InvalidInputError` where there are fewer than two rows, the fraction is not between 0 and 1, one product
    has several files (its polarizations show one ground, and positions are gone), or patches of one file overlap by
    other than half, which hashes of quarters do not show.
    """
    n = len(origins.product)
    if n < 2 or not 0 < val_fraction < 1:
        raise InvalidInputError(
            f"at least two patches and a share between 0 and 1 were expected, got {n} and {val_fraction}. "
            "Try val_fraction=0.1."
        )
    wanted = max(1, int(n * val_fraction))
    random = np.random.default_rng(seed)
    names, product = _numbered(origins.product)
    if len(names) > 1:
        sizes = np.bincount(product)
        order = random.permutation(len(names))[:-1]  # one at least trains
        before = np.cumsum(sizes[order]) - sizes[order]
        is_val = np.isin(product, order[before < wanted])
        if origins.is_hashed:  # one image may have come under two names
            return without_shared(is_val.astype(np.uint8), origins.hashes_of())
        rows = np.arange(n)
        return ProductSides(train=rows[~is_val], val=rows[is_val], left_out=rows[:0])
    check_hashes_tell(origins)
    begin = int(random.integers(n - wanted + 1))
    is_val = (np.arange(n) >= begin) & (np.arange(n) < begin + wanted)
    sides = without_shared(np.where(is_val, 1, 0), origins.hashes_of())
    if not len(sides.train):
        raise InvalidInputError(
            f"patches that share no pixel with validation were expected in the one file of {names[0]!r}, got none of "
            f"{n}. Ask for a smaller val_fraction, or add files of other products."
        )
    return sides


def _numbered(product: Array) -> tuple[list[str], Array]:
    """Return the names, sorted, and (n,) int64: the place of each row's name among them."""
    texts = [str(name) for name in product.tolist()]
    names = sorted(set(texts))
    place = {name: i for i, name in enumerate(names)}
    return names, np.array([place[text] for text in texts], np.int64)


def without_shared(codes: Array, hashes: Array) -> ProductSides:
    """Return the rows of codes (n,) 0 (train) and 1 (val), less those that train and share a hash (n, 4) with val."""
    rows = np.arange(len(codes))
    is_val = codes == 1
    shown = np.isin(hashes, np.setdiff1d(hashes[is_val], np.zeros(1, hashes.dtype))).any(axis=1)
    return ProductSides(train=rows[~is_val & ~shown], val=rows[is_val], left_out=rows[~is_val & shown])


def check_hashes_tell(origins: PatchOrigins) -> None:
    """Refuse a single product that no hash of quarters can divide: `InvalidInputError`."""
    files = len(np.unique(origins.file))
    if files > 1:
        raise InvalidInputError(
            f"patches of two products, or of one file, were expected, got one product with {files} files: they show "
            "the same ground, and where each patch lies is not known. Give one of its files alone."
        )
    stride = origins.stride
    if stride is None:
        log.warning(
            "nothing says how far apart patches were cut: those that overlap by other than half of their side "
            "are not told from others"
        )
    if stride is not None and any(stride < n and 2 * stride != n for n in origins.size):
        raise InvalidInputError(
            f"patches of one file that overlap by half of their side were expected, got {origins.size[0]} x "
            f"{origins.size[1]} pixels every {stride}: which of them share pixels cannot be told. Add files of other "
            "products."
        )


def origins_of_table(table: Any, size: tuple[int, int]) -> PatchOrigins | None:
    """Return the origins in the columns of a set of samples of (rows, columns) pixels; None of a set without them."""
    if not {"product", "file", *HASHES} <= set(table.variables):
        return None
    stride = table.attrs.get("stride")
    return PatchOrigins(
        product=table["product"].values,
        file=table["file"].values,
        size=size,
        stride=None if stride is None else int(stride),
        hashes_of=lambda: np.stack([table[name].values for name in HASHES], axis=1),
        is_hashed=True,
    )


def leaking(table: Any, train: Array, val: Array, size: tuple[int, int]) -> tuple[str, Array]:
    """Return a word for what samples of both sides share, and the rows (k,) that train and share it; none is well.

    ``train`` and ``val`` are rows of the columns of a set of (rows, columns) pixels. `InvalidInputError` where the
    set has no hashes.
    """
    origins = origins_of_table(table, size)
    if origins is None:
        raise InvalidInputError(
            "patches with hashes of their quarters were expected, got samples without. Split those by groups="
        )
    names, product = _numbered(origins.product)
    both = train[np.isin(product[train], product[val])]
    if len(names) > 1 and len(both):
        return "a product", both
    codes = np.full(len(product), 2, np.uint8)
    codes[train], codes[val] = 0, 1
    sides = without_shared(codes, origins.hashes_of())
    return "pixels", np.intersect1d(sides.left_out, train)
