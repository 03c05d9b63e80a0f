"""Windows cover every pixel, and what they become adds up to what a model was given."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.errors import InvalidInputError
from sarzarr.prediction.windows import BLENDS, WindowBand, WindowGrid, axis_weights, starts

blends = st.sampled_from(BLENDS)


@st.composite
def cuts(draw, most=70):
    size = draw(st.integers(1, 40))
    return draw(st.integers(1, most)), size, draw(st.integers(0, size - 1))


@given(cuts(most=400), blends)
def test_weights_of_a_pixel_sum_to_one(cut, blend):
    length, size, overlap = cut
    begins = starts(length, size, overlap)
    assert begins[0] == 0
    assert begins[-1] == max(length - size, 0)
    assert all(other - one <= size - overlap for one, other in pairwise(begins))
    total = np.zeros(max(length, size))
    weights = axis_weights(begins, size, blend)
    for begin, row in zip(begins, weights, strict=True):
        total[begin : begin + size] += row
    np.testing.assert_allclose(total, 1, atol=3e-7)
    assert weights.min() >= 0
    if blend == "nearest":
        assert set(np.unique(weights)) <= {0, 1}


@settings(max_examples=150)
@given(cuts(), st.integers(1, 90), blends, st.integers(1, 2), st.data())
def test_a_model_that_returns_what_it_is_given_returns_the_scene(cut, width, blend, channels, data):
    """Also where the windows begin in the middle, as those of a prediction that goes on."""
    height, size, overlap = cut
    grid = WindowGrid(shape=(height, width), size=size, overlap=overlap, blend=blend)
    scene = np.random.default_rng(height * width).random((channels, height, width), "float32")
    padded = np.zeros((channels, max(height, size), max(width, size)), "float32")
    padded[:, :height, :width] = scene
    from_row = data.draw(st.integers(0, height - 1))
    first = grid.first_from(from_row)
    band, parts, tops = WindowBand(grid, channels, "float32", first), [], []
    for number in range(first, len(grid)):
        row, col = grid.places[number].tolist()
        while band.row < number // len(grid.cols):
            tops.append(band.top)
            parts.append(band.finished())
        band.add(number, padded[:, row : row + size, col : col + size])
    tops.append(band.top)
    parts.append(band.finished())
    made = np.concatenate(parts, axis=1)
    assert tops[0] + made.shape[1] == height
    per_pixel = (-(-size // (size - overlap)) + 1) ** 2  # windows that are added up, each rounded
    np.testing.assert_allclose(
        made[:, from_row - tops[0] :], scene[:, from_row:], atol=6e-8 * (2 + per_pixel)
    )
    if blend == "nearest":
        assert np.array_equal(made[:, from_row - tops[0] :], scene[:, from_row:])


def test_a_seam_is_a_ramp():
    """Two windows of 0 and 1: the step between them is spread over the overlap."""
    grid = WindowGrid(shape=(8, 24), size=16, overlap=8)
    band = WindowBand(grid, 1, "float32")
    for number in range(2):
        band.add(number, np.full((1, 16, 16), number, "float32"))
    row = band.finished()[0, 0]
    assert np.array_equal(row[:8], np.zeros(8))
    assert np.array_equal(row[16:], np.ones(8))
    steps = np.diff(row[7:17])
    assert (steps > 0).all()
    assert steps.max() < 0.2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 0}, "patch_size must be"),
        ({"overlap": 16}, "an overlap below the patch size of 16"),
        ({"overlap": -1}, "overlap must be"),
        ({"blend": "sharp"}, "blend must be cosine, linear, nearest"),
    ],
)
def test_windows_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(InvalidInputError, match=said):
        WindowGrid(**{"shape": (8, 8), "size": 16, "overlap": 4} | wrong)
