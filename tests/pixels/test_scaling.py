"""Windows brought to another size keep the mean of power; the compiled loop gives NumPy's bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.pixels.scaling import Taps, powers_of_codes
from sarzarr.store.overviews.average import power_and_validity

POWERS = powers_of_codes((-60.0, 100.0))
sides = st.integers(1, 70)
holes = st.sampled_from([0.0, 0.3, 1.0])


def codes_of(side, seed, share):
    rng = np.random.default_rng(seed)
    codes = rng.integers(14_000, 28_000, (side, side)).astype(np.uint16)
    codes[rng.random((side, side)) < share] = 0
    return codes


@given(sides, st.integers(0, 99), holes)
def test_a_window_of_the_size_itself_is_as_it_was(side, seed, share):
    power = POWERS[codes_of(side, seed, share)]
    np.testing.assert_array_equal(Taps.between(side, side).mean(power), power)


@given(st.integers(1, 20), st.sampled_from([2, 3, 4, 7]), st.integers(0, 99), holes)
def test_a_whole_multiple_is_the_mean_of_blocks_as_of_overviews(side, factor, seed, share):
    codes = codes_of(side * factor, seed, share)
    sums = power_and_validity(codes, (-60.0, 100.0)).astype(np.float64)
    power, valid = sums.reshape(2, side, factor, side, factor).sum(axis=(2, 4))
    with np.errstate(invalid="ignore"):
        expected = power / valid
    np.testing.assert_allclose(Taps.between(side * factor, side).mean(POWERS[codes]), expected, rtol=2e-6)


@given(sides, sides, st.floats(1e-6, 1e3), holes, st.integers(0, 99))
def test_what_is_constant_stays_so(window, side, value, share, seed):
    power = np.where(np.random.default_rng(seed).random((window, window)) < share, np.nan, value).astype("f4")
    made = Taps.between(window, side).mean(power)
    np.testing.assert_allclose(made[~np.isnan(made)], np.float32(value), rtol=1e-6)
    assert made.shape == (side, side)


@given(sides, sides, st.integers(0, 99))
def test_averages_keep_the_mean_power_and_interpolation_its_range(window, side, seed):
    power = POWERS[codes_of(window, seed, 0)]
    made = Taps.between(window, side).mean(power)
    assert power.min() * (1 - 1e-6) <= made.min() <= made.max() <= power.max() * (1 + 1e-6)
    if window >= side or side % window == 0:
        np.testing.assert_allclose(made.mean(), power.mean(dtype=np.float64), rtol=1e-5)


@given(sides, sides, st.integers(0, 99), holes)
def test_flags_are_valid_where_pixels_are(window, side, seed, share):
    codes, taps = codes_of(window, seed, share), Taps.between(window, side)
    flags = np.where(codes == 0, 2, 0).astype(np.uint8)
    np.testing.assert_array_equal(taps.lowest(flags) < 2, ~np.isnan(taps.mean(POWERS[codes])))


def test_a_slope_is_interpolated_between_the_middles_of_pixels():
    slope = np.broadcast_to(np.arange(4, dtype=np.float32), (4, 4))
    made = Taps.between(4, 8).mean(slope)
    np.testing.assert_allclose(made[0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])


@settings(max_examples=60)
@given(sides, sides, st.integers(0, 99), holes)
def test_the_loop_gives_the_bits_of_numpy(window, side, seed, share):
    scaling = pytest.importorskip("sarzarr.pixels.compiled.scaling")
    codes, taps = codes_of(window, seed, share), Taps.between(window, side)
    out = np.empty((side, side), np.float32)
    scratch = (np.empty((window, window), "f4"), np.empty((side, side), "f4"), np.empty(window, "f4"))
    scaling.scaled_power(codes, POWERS, taps, scratch, out)
    np.testing.assert_array_equal(out, taps.mean(POWERS[codes]))
