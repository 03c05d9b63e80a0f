"""Patches without positions are divided by product, and by the hashes of their quarters."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sarzarr.errors import InvalidInputError
from sarzarr.splits.samples.products import PatchOrigins, divide_products, leaking


def origins(product, *, file=None, hashes=None, stride=128, size=(256, 256), is_hashed=True):
    n = len(product)
    found = (
        np.arange(1, 4 * n + 1, dtype=np.uint64).reshape(n, 4)
        if hashes is None
        else np.asarray(hashes, np.uint64)
    )
    return PatchOrigins(
        product=np.array(product, object),
        file=np.array(product if file is None else file, object),
        size=size,
        stride=stride,
        hashes_of=lambda: found,
        is_hashed=is_hashed,
    )


@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=8),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_every_row_is_on_one_side_and_every_product_whole(sizes, share, seed):
    product = [f"p{i}" for i, n in enumerate(sizes) for _ in range(n)]
    sides = divide_products(origins(product), val_fraction=share, seed=seed)
    assert sorted([*sides.train, *sides.val]) == list(range(len(product)))
    assert not len(sides.left_out)
    assert len(sides.train)
    assert len(sides.val)
    names = [{product[i] for i in rows} for rows in (sides.train, sides.val)]
    assert not names[0] & names[1]
    again = divide_products(origins(product, is_hashed=False), val_fraction=share, seed=seed)
    assert again.val.tolist() == sides.val.tolist()


@given(n=st.integers(3, 60), share=st.floats(0.01, 0.3), seed=st.integers(0, 99), wide=st.integers(1, 7))
def test_one_file_is_cut_once_and_neighbours_are_left_out(n, share, seed, wide):
    """Patches in rows of ``wide``, whose quarters are numbers of a lattice: neighbours share some."""
    row, col = np.divmod(np.arange(n), wide)
    hashes = np.stack([(row + i) * 100 + col + j + 1 for i in (0, 1) for j in (0, 1)], axis=1)
    try:
        sides = divide_products(origins(["one"] * n, hashes=hashes), val_fraction=share, seed=seed)
    except InvalidInputError:
        assert wide + 1 + max(1, int(n * share)) > n // 2  # a small image is all neighbours
        return
    assert sides.val.tolist() == list(range(sides.val[0], sides.val[-1] + 1))
    assert not {*hashes[sides.train].ravel()} & {*hashes[sides.val].ravel()}
    assert sorted([*sides.train, *sides.val, *sides.left_out]) == list(range(n))
    assert all({*hashes[i]} & {*hashes[sides.val].ravel()} for i in sides.left_out)


def test_one_image_under_two_names_is_left_out_where_hashes_are_at_hand():
    hashes = np.arange(1, 17).reshape(4, 4)
    hashes[3, 1] = hashes[0, 0]
    sides = divide_products(origins(["a", "a", "b", "b"], hashes=hashes), val_fraction=0.3, seed=0)
    assert len(sides.left_out) == 1
    assert len(sides.train) == 1


def test_a_hash_of_0_tells_nothing():
    sides = divide_products(origins(["a", "b"], hashes=np.zeros((2, 4))), val_fraction=0.5, seed=0)
    assert not len(sides.left_out)


def test_what_cannot_be_told_apart_is_refused():
    refused = [
        (origins(["a"] * 4, file=["v", "v", "h", "h"]), "one product with 2 files"),
        (origins(["a"] * 4, stride=64), "256 x 256 pixels every 64"),
        (origins(["a"]), "at least two patches"),
        (origins(["a"] * 4, hashes=np.ones((4, 4))), "share no pixel with validation"),
    ]
    for given_, why in refused:
        with pytest.raises(InvalidInputError, match=why):
            divide_products(given_, val_fraction=0.25, seed=0)
    for stride in (None, 256, 300):
        assert len(divide_products(origins(["a"] * 4, stride=stride), val_fraction=0.25, seed=0).val) == 1
    with pytest.raises(InvalidInputError, match="val_fraction"):
        divide_products(origins(["a", "b"]), val_fraction=1.0, seed=0)
    with pytest.raises(InvalidInputError, match="hashes"):
        leaking(xr.Dataset({"id": ("sample", ["a"])}), np.arange(1), np.arange(1), (8, 8))
