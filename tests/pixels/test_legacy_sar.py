"""The old names do what they promised, without the faults that they had."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.errors import InvalidInputError
from sarzarr.pixels.legacy import extract_patches, inverse_preprocess, preprocess_sar_complete

searched = settings(deadline=None, max_examples=50)


def speckled(shape, seed=0, dtype=np.float32):
    return (0.05 * np.random.default_rng(seed).gamma(4.4, 1 / 4.4, shape)).astype(dtype)


# ---------------------------------------------------------------- preprocess and its inverse
@searched
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]), st.booleans())
def test_the_inverse_restores_unclipped_pixels_and_the_invalid_mask(seed, dtype, fixed):
    image = speckled((40, 50), seed, dtype)
    invalid = np.random.default_rng(seed).random(image.shape) < 0.1
    image[invalid] = np.resize([0, -1, np.nan, np.inf, -np.inf], int(invalid.sum()))
    before = image.copy()
    z, params = preprocess_sar_complete(image, -40 if fixed else None, 20 if fixed else None)
    np.testing.assert_array_equal(image, before)
    assert z.dtype == dtype
    assert np.isfinite(z).all()
    assert z.min() >= 0
    assert z.max() <= 1
    assert (z[invalid] == 0).all()
    np.testing.assert_array_equal(params["invalid_mask"], invalid)
    back = inverse_preprocess(z, params)
    assert back.dtype == dtype
    np.testing.assert_array_equal(np.isnan(back), invalid)
    inside = ~invalid & (z > 0) & (z < 1)
    assert inside.any()
    np.testing.assert_allclose(back[inside], image[inside], rtol=1e-5 if dtype == np.float32 else 1e-12)


def test_bounds_are_percentiles_of_the_valid_pixels():
    image = speckled((200, 200), dtype=np.float64)
    db = 10 * np.log10(image[60:])
    image[:40], image[40:60] = np.nan, 0  # 30 % invalid: they used to drag vmin to -100
    _, params = preprocess_sar_complete(image)
    assert (params["vmin"], params["vmax"]) == pytest.approx(np.percentile(db, [1, 99]))
    _, params = preprocess_sar_complete(image, clip_percentiles=(5, 90))
    assert (params["vmin"], params["vmax"]) == pytest.approx(np.percentile(db, [5, 90]))
    _, params = preprocess_sar_complete(image, vmin=-50)
    assert (params["vmin"], params["vmax"]) == pytest.approx((-50, np.percentile(db, 99)))
    assert set(params) == {"vmin", "vmax", "invalid_mask"}


def test_the_formula_is_the_documented_one():
    image = np.array([[1e-3, 1e-2, 1e-1, 1.0, 10.0]])
    z, _ = preprocess_sar_complete(image, vmin=-20, vmax=0)
    np.testing.assert_allclose(z, [[0, 0, 0.5, 1, 1]], atol=1e-12)


def test_numpy_float64_bounds_leave_float32_pixels_float32():
    image = speckled((30, 30))
    z, params = preprocess_sar_complete(image, np.float64(-25), np.float64(5))
    assert z.dtype == np.float32
    assert type(params["vmin"]) is type(params["vmax"]) is float
    assert inverse_preprocess(z, {"vmin": np.float64(-25), "vmax": np.float64(5)}).dtype == np.float32


def test_a_constant_image_is_one_half_and_comes_back():
    z, params = preprocess_sar_complete(np.full((9, 9), 0.25))
    np.testing.assert_allclose(z, 0.5, atol=1e-9)
    np.testing.assert_allclose(inverse_preprocess(z, params), 0.25)


def test_an_image_without_a_valid_pixel_has_the_fixed_bounds():
    z, params = preprocess_sar_complete(np.zeros((4, 4), np.float32))
    assert (params["vmin"], params["vmax"]) == (-25.0, 5.0)
    assert params["invalid_mask"].all()
    assert not z.any()
    assert np.isnan(inverse_preprocess(z, params)).all()


def test_masked_and_integer_images():
    image = np.ma.MaskedArray(np.array([[30, 100, 284]], np.uint16), [[False, True, False]])
    z, params = preprocess_sar_complete(image, 10, 30)
    assert z.dtype == np.float32
    assert params["invalid_mask"].tolist() == [[False, True, False]]


def test_what_cannot_be_undone_is_refused():
    image = speckled((5, 5))
    with pytest.raises(InvalidInputError, match="vmin < vmax"):
        preprocess_sar_complete(image, 5, 5)
    with pytest.raises(InvalidInputError, match="percentiles"):
        preprocess_sar_complete(image, clip_percentiles=(99, 1))
    z, params = preprocess_sar_complete(image)
    with pytest.raises(InvalidInputError, match=r"shape \(4, 5\), got \(5, 5\)"):
        inverse_preprocess(z[:4], params)
    with pytest.raises(InvalidInputError, match="must hold vmin and vmax"):
        inverse_preprocess(z, {"vmin": 0.0})


# ---------------------------------------------------------------- patches
def walked(image, size, stride, min_valid):
    """The definition, window by window."""
    patches, positions = [], []
    for y in range(0, image.shape[0] - size + 1, stride):
        for x in range(0, image.shape[1] - size + 1, stride):
            patch = image[y : y + size, x : x + size]
            if np.mean((patch > 0.01) & (patch < 0.99)) >= min_valid:
                patches.append(patch)
                positions.append((y, x))
    return patches, positions


@searched
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(1, 15),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.9, 1.0]),
)
def test_patches_are_the_windows_that_are_not_saturated(seed, height, width, size, stride, min_valid):
    rng = np.random.default_rng(seed)
    image = rng.choice(np.array([0, 0.01, 0.5, 0.6, 0.7, 0.99, 1, np.nan], np.float32), (height, width))
    patches, positions = extract_patches(image, size, stride, min_valid)
    expected, places = walked(image, size, stride, min_valid)
    assert patches.shape == (len(expected), size, size)
    assert patches.dtype == np.float32
    assert positions.shape == (len(places), 2)
    assert positions.tolist() == [list(place) for place in places]
    for patch, window in zip(patches, expected, strict=True):
        np.testing.assert_array_equal(patch, window)


def test_patches_are_copies_that_survive_the_image():
    image = np.full((256, 384), 0.5, np.float32)
    patches, positions = extract_patches(image)
    image[:] = 0
    assert (patches == 0.5).all()
    assert positions.tolist() == [[0, 0], [0, 128]]


def test_no_patch_has_the_shape_of_none():
    for image in (np.zeros((300, 300), np.float32), np.full((255, 900), 0.5, np.float32)):
        patches, positions = extract_patches(image)
        assert patches.shape == (0, 256, 256)
        assert patches.dtype == np.float32
        assert positions.shape == (0, 2)


def test_what_is_no_patch_is_refused():
    for wrong in ({"patch_size": 0}, {"stride": 0}, {"min_valid": 1.1}):
        with pytest.raises(InvalidInputError, match="expected a 2-D image"):
            extract_patches(np.zeros((9, 9)), **wrong)
    with pytest.raises(InvalidInputError, match="expected a 2-D image"):
        extract_patches(np.zeros((2, 9, 9)))
