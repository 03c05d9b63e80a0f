"""Flips and quarter turns: eight operations, for pixels and boxes alike."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.errors import InvalidInputError
from sarzarr.pixels.turns import Turner, apply, apply_to_boxes, inverse
from sarzarr.reader.augment import AUGMENTATIONS, AugmentationName
from sarzarr.reader.options import ReadOptions


def drawn_turns(kind, n, **options):
    return AUGMENTATIONS[kind].drawn(np.arange(n), **options).turns


def test_d4_is_the_eight_symmetries_of_a_square():
    image = np.arange(9).reshape(3, 3)
    quarter_turns = {np.rot90(m, k).tobytes() for m in (image, image.T) for k in range(4)}
    assert {apply(op, image).tobytes() for op in AUGMENTATIONS["d4"].turns} == quarter_turns
    flips = {image.tobytes(), image[::-1].tobytes(), image[:, ::-1].tobytes(), image[::-1, ::-1].tobytes()}
    assert {apply(op, image).tobytes() for op in AUGMENTATIONS["flips"].turns} == flips
    assert {apply(op, image).tobytes() for op in AUGMENTATIONS["azimuth"].turns} == {
        image.tobytes(),
        image[::-1].tobytes(),
    }


@pytest.mark.parametrize("operation", range(8))
def test_an_operation_and_its_inverse_are_nothing(operation):
    image = np.arange(2 * 5 * 5).reshape(2, 5, 5)
    np.testing.assert_array_equal(apply(inverse(operation), apply(operation, image)), image)


@settings(deadline=None)
@given(
    st.integers(0, 7),
    st.sampled_from(["uint8", "uint16", "float16", "float32"]),
    st.sampled_from([1, 2, 3, 4, 6, 8, 12, 17, 256]),
    st.booleans(),
)
def test_copies_are_what_the_views_are(operation, dtype, size, is_spaced):
    values = np.random.default_rng(size).integers(0, 2 ** (8 * np.dtype(dtype).itemsize), (size, size + 2))
    bits = values.astype(f"u{np.dtype(dtype).itemsize}")
    image = (bits[:, :size] if is_spaced else bits[:, :size].copy()).view(dtype)
    out = np.empty((size, size), dtype)
    turner = Turner((size, size), dtype)
    turner.copy(image[::-1], 5, out)  # whose memory the next one must not see
    turner.copy(image, operation, out)
    assert np.array_equal(out.view(bits.dtype), apply(operation, image).copy().view(bits.dtype))


@settings(deadline=None)
@given(st.integers(0, 7), st.data())
def test_boxes_move_with_their_pixels(operation, data):
    size = 16
    x = sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True)))
    y = sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True)))
    image = np.zeros((size, size))
    image[y[0] : y[1], x[0] : x[1]] = 1
    ((x0, y0, x1, y1),) = apply_to_boxes(operation, [[x[0], y[0], x[1], y[1]]], shape=(size, size))
    expected = np.zeros((size, size))
    expected[y0:y1, x0:x1] = 1
    np.testing.assert_array_equal(apply(operation, image), expected)


def test_no_boxes_stay_no_boxes():
    assert apply_to_boxes(7, np.empty((0, 4), np.float32), shape=(9, 9)).shape == (0, 4)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_draws_are_even_and_the_same_for_a_seed_and_epoch(kind):
    turns = drawn_turns(kind, 8000, seed=5, epoch=2)
    np.testing.assert_array_equal(turns, drawn_turns(kind, 8000, seed=5, epoch=2))
    assert (turns != drawn_turns(kind, 8000, seed=5, epoch=3)).any()
    assert (turns != drawn_turns(kind, 8000, seed=6, epoch=2)).any()
    counts = np.bincount(turns, minlength=8)[list(AUGMENTATIONS[kind].turns)]
    assert counts.sum() == 8000
    np.testing.assert_allclose(counts, 8000 / len(counts), rtol=0.1)


def test_a_longer_epoch_begins_alike():
    longer = drawn_turns("d4", 1000, seed=1, epoch=1)
    np.testing.assert_array_equal(drawn_turns("d4", 10, seed=1, epoch=1), longer[:10])


@pytest.mark.parametrize(
    ("kind", "turns"),
    [
        ("d4", [6, 3, 0, 5, 5, 1, 5, 2]),
        ("flips", [3, 1, 0, 2, 2, 0, 2, 1]),
        ("azimuth", [2, 0, 0, 2, 2, 0, 2, 0]),
    ],
)
def test_draws_stay_what_they_were_in_every_version(kind, turns):
    assert drawn_turns(kind, 8, seed=3, epoch=1).tolist() == turns


def test_an_unknown_kind_is_refused():
    with pytest.raises(InvalidInputError, match="augment must be one of d4, flips, azimuth"):
        ReadOptions(augment="rotate")


def test_the_names_that_are_offered_are_those_registered():
    assert get_args(AugmentationName) == tuple(AUGMENTATIONS)
