"""Sharing by area conserves totals, and gives each pixel exactly what falls into it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.grids.warp.areas import share_by_area


def corners(height, width, *, size, angle=0.0, row=0.0, col=0.0, bend=0.0):
    """Return (rows, cols) of the corners of a turned, shifted and bent raster."""
    i, j = np.mgrid[: height + 1, : width + 1].astype(float)
    cols = size * (np.cos(angle) * j - np.sin(angle) * i) + col
    rows = size * (np.sin(angle) * j + np.cos(angle) * i) + row
    return rows, cols + bend * rows**2


def overlaps(count, target, *, size, first):
    """Return the (target, count) lengths that intervals have in common: the oracle."""
    low = first + size * np.arange(count)
    cells = np.arange(target)[:, None]
    return np.clip(np.minimum(low + size, cells + 1) - np.maximum(low, cells), 0, None) / size


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.floats(0.03, 4.0),
    st.floats(-20, 20),
    st.floats(-20, 20),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_upright_rasters_share_by_the_overlap_of_intervals(height, width, size, row, col, shape):
    values = np.random.default_rng(0).random((height, width))
    sums, covered = share_by_area(
        [(values, *corners(height, width, size=size, row=row, col=col))], height=shape[0], width=shape[1]
    )
    down = overlaps(height, shape[0], size=size, first=row)
    across = overlaps(width, shape[1], size=size, first=col)
    assert np.allclose(sums, down @ values @ across.T, atol=1e-14 * values.size + 1e-12)
    assert np.allclose(covered, np.outer(down.sum(1), across.sum(1)) * size**2, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.floats(0.03, 4.0),
    st.floats(0, 7),
    st.floats(0, 1e-3),
    st.booleans(),
    st.integers(0, 30),
)
def test_totals_are_conserved_however_the_raster_lies(height, width, size, angle, bend, mirrored, cut):
    """And however the target is cut, and the source."""
    values = np.random.default_rng(0).random((height, width))
    values[height // 2, width // 2] = np.nan
    rows, cols = corners(height, width, size=size, angle=angle, bend=bend)
    if mirrored:
        cols = -cols
    rows, cols = rows - np.floor(rows.min()), cols - np.floor(cols.min())
    shape = int(rows.max()) + 1, int(cols.max()) + 1
    half = height // 2
    parts = [(values[:half], rows[: half + 1], cols[: half + 1]), (values[half:], rows[half:], cols[half:])]
    sums, covered = share_by_area(parts, height=shape[0], width=shape[1])
    assert sums.sum() == pytest.approx(np.nansum(values), rel=1e-11, abs=1e-12)
    assert covered.max() < 1 + 1e-9
    cut = min(cut, shape[1])
    left, _ = share_by_area([(values, rows, cols)], height=shape[0], width=max(cut, 1))
    right, _ = share_by_area([(values, rows, cols - cut)], height=shape[0], width=max(shape[1] - cut, 1))
    together = np.concatenate([left[:, :cut], right[:, : shape[1] - cut]], axis=1)
    assert np.allclose(together, sums, atol=1e-11)


def test_a_diamond_in_one_corner():
    """A square on its tip, of side sqrt(2), about the corner of four pixels: a quarter for each."""
    rows, cols = np.array([[0.0, 1.0], [1.0, 2.0]]), np.array([[1.0, 2.0], [0.0, 1.0]])
    sums, covered = share_by_area([(np.array([[8.0]]), rows, cols)], height=2, width=2)
    assert np.allclose(sums, 2.0)
    assert np.allclose(covered, 0.5)


def test_what_has_no_place_is_left_out():
    rows, cols = corners(3, 3, size=1.0)
    rows[0, 0], cols[3, 3] = np.inf, np.nan
    sums, covered = share_by_area([(np.ones((3, 3)), rows, cols)], height=3, width=3)
    assert np.allclose(sums, covered)
    assert np.allclose(covered, [[0, 1, 1], [1, 1, 1], [1, 1, 0]])
