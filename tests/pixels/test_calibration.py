"""Calibration: a law over pixels that any window of a raster gives to the bit."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.pixels.calibration import AzimuthBlock, Calibration, Noise, knots

WHOLE = {"row": 0, "col": 0, "height": 40, "width": 50}


def naive(lines, pixels, values, row, col):
    """Interpolate at one pixel in plain Python: along each line on its own pixels, then between the lines."""
    at = [np.interp(col, p, v) for p, v in zip(pixels, values, strict=True)]
    return np.interp(row, lines, at)


@st.composite
def fields(draw):
    """Lines, some outside of the raster, with pixels of their own."""
    lines = sorted(draw(st.sets(st.integers(-20, 60), min_size=1, max_size=5)))
    numbers = st.floats(0.5, 2000, allow_nan=False)
    pixels, values = [], []
    for _ in lines:
        some = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=6)))
        pixels.append(some)
        values.append(draw(st.lists(numbers, min_size=len(some), max_size=len(some))))
    return lines, pixels, values


@st.composite
def windows(draw):
    row, col = draw(st.integers(0, 39)), draw(st.integers(0, 49))
    return {
        "row": row,
        "col": col,
        "height": draw(st.integers(1, 40 - row)),
        "width": draw(st.integers(1, 50 - col)),
    }


@given(fields(), windows())
def test_a_field_is_linear_between_its_knots_and_a_window_is_that_part_of_the_whole(field, window):
    table = knots(*field)
    whole = np.broadcast_to(table.window(**WHOLE), (40, 50))
    rows, cols = np.mgrid[:40, :50]
    want = np.vectorize(lambda r, c: naive(*field, r, c))(rows, cols)
    np.testing.assert_allclose(whole, want, rtol=1e-6)
    row, col, height, width = window.values()
    part = np.broadcast_to(table.window(**window), (height, width))
    np.testing.assert_array_equal(part, whole[row : row + height, col : col + width])


@given(fields(), fields(), windows())
def test_a_calibrated_window_is_that_part_of_the_whole(table, noise, window):
    factors = knots([0], [[0, 17, 39]], [[1.0, 1.2, 1.1]])
    block = AzimuthBlock(first_line=5, last_line=30, first_pixel=10, last_pixel=33, factors=factors)
    eta = Noise(source="noise.xml", across=knots(*noise), along=(block,))
    law = Calibration(quantity="sigma0", source="x", table=knots(*table), noise=eta)
    power = np.random.default_rng(0).gamma(4, 200, (40, 50)).astype(np.float32)
    power[3, 4] = np.nan
    whole = law.apply(power.copy(), row=0, col=0)
    assert np.isnan(whole[3, 4])
    row, col, height, width = window.values()
    part = power[row : row + height, col : col + width].copy()
    np.testing.assert_array_equal(
        law.apply(part, row=row, col=col), whole[row : row + height, col : col + width]
    )


def test_the_number_of_the_calibration_note():
    """S1B IW GRDH VV of 2021-12-23: DN 100 at (8000, 10000), where sigmaNought is 610.8944."""
    law = Calibration(
        quantity="sigma0", source="x", table=knots([0], [[9960, 10000, 10040]], [[610.7, 610.8944, 611.1]])
    )
    sigma0 = law.apply(np.full((1, 1), 100.0**2, np.float32), row=8000, col=10_000)
    assert sigma0[0, 0] == pytest.approx(0.0267959, abs=5e-8)


@pytest.mark.parametrize("factor", [0, -1.0, "nan", float("inf"), "much", ""])
def test_a_constant_that_is_no_positive_number_is_refused(factor):
    with pytest.raises(
        UnsupportedRasterError, match=r"positive calibration factors in tag CF.*--calibrate none"
    ):
        Calibration.constant(factor, quantity="sigma0", source="tag CF")


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan])
def test_a_table_with_a_value_that_divides_nothing_is_refused(value):
    table = knots([0, 9], [[0, 5], [0, 5]], [[1.0, 2.0], [1.0, value]])
    with pytest.raises(UnsupportedRasterError, match=r"positive calibration factors in cal\.xml"):
        Calibration(quantity="sigma0", source="cal.xml", table=table)


def test_a_quantity_that_there_is_not_is_refused():
    with pytest.raises(InvalidInputError, match="expected a quantity of sigma0"):
        Calibration.constant(1, quantity="sigma", source="x")


@pytest.mark.parametrize("pixels", [[[0, 5, 5]], [[0, 5]], [[]]])
def test_knots_that_do_not_ascend_or_do_not_match_are_refused(pixels):
    with pytest.raises(UnsupportedRasterError, match="as many values as pixels"):
        knots([0], pixels, [[1.0, 2.0, 3.0]] if pixels != [[]] else [[]])


def test_lines_that_are_alike_are_one_row_and_it_pickles_small():
    pixels, values = np.arange(0, 26_000, 40), np.linspace(558, 665, 650)
    law = Calibration(
        quantity="sigma0", source="x", table=knots(range(0, 17_000, 668), [pixels] * 26, [values] * 26)
    )
    assert law.is_plain
    assert len(pickle.dumps(law)) < 12_000
    again = pickle.loads(pickle.dumps(law))
    assert again == law
    assert hash(again) == hash(law)
    assert law.gain(**WHOLE).shape == (1, 50)
