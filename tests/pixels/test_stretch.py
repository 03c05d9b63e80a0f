"""The loader's law is the radiometric law, for every stored dtype and any clip."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.pixels.compiled.when import loops
from sarzarr.pixels.stretch import Stretch


@pytest.fixture(autouse=True, scope="module")
def _not_started():
    yield
    loops.cache_clear()


CODES = np.arange(65536, dtype=np.uint16)
Z = np.where(CODES == 0, np.nan, (CODES - 1.0) / 65534)
ranges = st.tuples(st.floats(-120, 100), st.floats(0.5, 200)).map(lambda r: (r[0], r[0] + r[1]))


def delivered(stretch, stored):
    """Return what is delivered of a row of values; compiled loops give NumPy's bits."""
    cells, scratch = stored.copy().reshape(1, -1), np.empty(stored.size, np.float32)
    passes = np.full(cells.shape, np.nan, np.float32)
    stretch(cells, passes, scratch)
    is_code = stored.dtype == np.uint16
    if (is_code and not stretch.lights_fill) or (stored.dtype == np.float32 and stretch.is_line):
        law, n = stretch.law_of_codes if is_code else stretch.law_of_floats, stored.size
        out, room = np.full((n, 1, 1), np.nan, np.float32), [np.empty((k, 1), stored.dtype) for k in (32, 1)]
        parts = np.tile(np.array([0, 0, 1, 1], np.int32), (n, 1))
        pieces = np.arange(n), parts, np.arange(1, n + 1), (1, 1), 0  # images of one pixel
        places = np.arange(n), np.zeros(n, np.uint8)
        assert loops().deliver(cells.reshape(n, 1), None, pieces, places, tuple(room), out, law) == n
        np.testing.assert_array_equal(out.reshape(1, n), passes)
    return passes[0]


def expected(stored, z, clip):
    """Return the law in float64; what is NaN was not measured, and is 0."""
    (vmin, vmax), (low, high) = stored, clip
    return np.nan_to_num(np.clip((z.astype(np.float64) * (vmax - vmin) + vmin - low) / (high - low), 0, 1))


@settings(deadline=None)
@given(ranges, ranges)
def test_codes_become_the_clipped_range(stored, clip):
    found = delivered(Stretch.between("uint16", stored, clip), CODES)
    # Half an ulp of the code where the clip begins, seen through the clip.
    tolerance = 2e-6 + 6e-8 * (stored[1] - stored[0]) / (clip[1] - clip[0])
    np.testing.assert_allclose(found, expected(stored, Z, clip), atol=tolerance)
    assert found[0] == 0
    assert found.min() >= 0
    assert found.max() <= 1


@settings(deadline=None)
@given(st.integers(1, 65534), st.data())
def test_a_clip_that_ends_at_codes_is_exact_at_its_ends(low, data):
    high = data.draw(st.integers(low + 1, 65535))
    clip = tuple(-60 + 160 * (code - 1) / 65534 for code in (low, high))
    stretch = Stretch.between("uint16", (-60.0, 100.0), clip)
    assert stretch.ends == (low, high)
    found = delivered(stretch, CODES)
    assert found[low] == 0
    assert found[high] >= np.nextafter(np.float32(1), np.float32(0))
    assert found.max() <= 1
    np.testing.assert_allclose(found, expected((-60.0, 100.0), Z, clip), atol=3e-7)


@settings(deadline=None)
@given(ranges, ranges, st.sampled_from(["float32", "float16"]))
def test_floats_become_the_clipped_range(stored, clip, dtype):
    z = np.linspace(0, 1, 4097).astype(dtype)
    found = delivered(Stretch.between(dtype, stored, clip), z)
    gain = max((stored[1] - stored[0]), abs(stored[0] - clip[0])) / (clip[1] - clip[0])
    np.testing.assert_allclose(found, expected(stored, z, clip), atol=1e-6 + 3e-7 * gain)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float16"])
def test_the_stored_range_itself_changes_nothing(dtype):
    z = CODES if dtype == "uint16" else np.append(np.linspace(0, 1, 1000), np.nan).astype(dtype)
    found = delivered(Stretch.between(dtype, (-60.0, 100.0), (-60.0, 100.0)), z)
    np.testing.assert_allclose(found, np.nan_to_num(Z if dtype == "uint16" else z), atol=6e-8)


def test_what_was_not_measured_is_0_where_the_clip_reaches_below_the_stored_range():
    below = Stretch.between("uint16", (-20.0, 0.0), (-25.0, 5.0))
    assert delivered(below, np.array([0, 1, 65535], np.uint16)) == pytest.approx([0, 1 / 6, 5 / 6])


@pytest.mark.parametrize("clip", [(-25.0, 5.0), (-90.0, 120.0), (-60.0, 100.0)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_nan_is_delivered_as_0(dtype, clip):
    z = np.array([np.nan, 0, 1, 0.25, np.nan], dtype)
    found = delivered(Stretch.between(dtype, (-60.0, 100.0), clip), z)
    np.testing.assert_allclose(found, expected((-60.0, 100.0), z, clip), atol=1e-6)


def test_what_follows_the_pixels_of_a_cell_is_left_alone():
    cells = np.random.default_rng(0).integers(0, 65536, (3, 16 * 16 + 2), dtype=np.uint16)
    out, scratch = np.zeros((3, 16 * 16), np.float32), np.empty(3 * 16 * 16, np.float32)
    stretch = Stretch.between("uint16", (-60.0, 100.0), (-25.0, 5.0))
    stretch(cells, out, scratch)
    for found, cell in zip(out, cells, strict=True):
        np.testing.assert_array_equal(found, delivered(stretch, cell[:-2]))
