"""The laws of radiometry: inverses, dtypes, invalid pixels, and the same bits for every memory layout."""

import math
import pickle
from itertools import pairwise

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import sarzarr as sz
from sarzarr import conventions as c
from sarzarr.conventions import STORED_RANGE
from sarzarr.errors import InvalidInputError
from sarzarr.pixels import kernels
from sarzarr.pixels import radiometry as r

FLOATS = ("float32", "float64")
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1e-10, 1e-12, 1e-44, 3e38, 1.0, 1e-6, 1e10)


def spread_db(n, dtype, seed, low=-60.0, high=100.0):
    return np.random.default_rng(seed).uniform(low, high, n).astype(dtype)


def spread_power(n, dtype, seed, low=-60.0, high=100.0):
    return (10 ** (spread_db(n, "float64", seed, low, high) / 10)).astype(dtype)


def with_specials(values, seed):
    rng = np.random.default_rng(seed)
    out = values.copy()
    at = rng.integers(0, out.size, min(out.size, 3 * len(SPECIAL)))
    out.flat[at] = rng.choice(np.asarray(SPECIAL), at.size).astype(out.dtype)
    return out


bounds = st.tuples(st.floats(-200, 200), st.floats(0.1, 300)).map(lambda b: (b[0], b[0] + b[1]))
searched = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(FLOATS)


# ---------------------------------------------------------------- inverses
@searched
@given(dtypes, seeds, bounds)
def test_denormalize_undoes_normalize_but_for_the_clip(dtype, seed, pair):
    db = spread_db(500, dtype, seed, -250, 550)
    back = r.denormalize(r.normalize(db, pair), pair)
    assert back.dtype == db.dtype
    scale = max(abs(pair[0]), abs(pair[1]), pair[1] - pair[0])
    allowed = 2e-6 if dtype == "float64" else 4e-7 * scale
    # vmin as the pixels' own dtype holds it: half a float32 step of 200 dB is 7.6e-6 dB
    expected = np.clip(db.astype(np.float64), *pair)
    assert np.abs(back - expected).max() <= allowed


@pytest.mark.parametrize(("dtype", "allowed"), [("float64", 1e-13), ("float32", 2e-5)])
def test_denormalize_undoes_normalize_on_the_stored_range(dtype, allowed):
    db = spread_db(1_000_000, dtype, 0)
    back = r.denormalize(r.normalize(db, STORED_RANGE), STORED_RANGE)
    assert np.abs(back.astype(np.float64) - db).max() <= allowed


@pytest.mark.parametrize(
    ("dtype", "reach", "allowed"),
    [("float64", 100.0, 2e-14), ("float32", 60.0, 2e-6), ("float32", 100.0, 4e-6)],
)
def test_from_db_undoes_to_db(dtype, reach, allowed):
    # a float32 dB near 100 has a step of 7.6e-6 dB, which alone is 9e-7 of the power, twice rounded
    power = spread_power(1_000_000, dtype, 1, -min(reach, 99.0), reach)
    back = r.from_db(r.to_db(power))
    assert back.dtype == power.dtype
    assert np.abs(back.astype(np.float64) / power - 1).max() <= allowed


@pytest.mark.parametrize(("dtype", "allowed"), [("float64", 1e-13), ("float32", 2e-5)])
def test_to_db_is_ten_log10(dtype, allowed):
    power = spread_power(200_000, dtype, 2)
    assert np.abs(r.to_db(power) - 10 * np.log10(power.astype(np.float64))).max() <= allowed


def test_every_code_survives_the_way_back():
    codes = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(r.to_codes(r.from_codes(codes)), codes)
    assert np.array_equal(r.to_codes(r.from_codes(codes).astype(np.float64)), codes)
    assert r.to_codes(np.array([0.0, 1.0, np.nan])).tolist() == [1, 65535, 0]
    np.testing.assert_array_equal(r.from_codes(codes[[0, 1, -1]]), [np.nan, 0, 1])


@searched
@given(dtypes, seeds)
def test_codes_are_within_half_a_code(dtype, seed):
    z = np.random.default_rng(seed).random(2000).astype(dtype)
    coded = r.to_codes(z)
    assert coded.dtype == np.uint16
    in_codes = 1e-9 if dtype == "float64" else 131068 * 2.0**-24  # the product is rounded to float32
    assert np.abs((coded - 1.0) / 65534 - z.astype(np.float64)).max() <= (0.5 + in_codes) / 65534
    assert np.abs(r.from_codes(coded).astype(np.float64) - z).max() <= 7.71e-6


@searched
@given(dtypes, seeds, bounds)
def test_restretch_is_denormalize_then_normalize(dtype, seed, clip):
    z = np.random.default_rng(seed).random(500).astype(dtype)
    fast = r.restretch(z, STORED_RANGE, clip)
    slow = r.normalize(r.denormalize(z.astype(np.float64), STORED_RANGE), clip)
    assert fast.dtype == z.dtype
    scale = max(160.0, abs(clip[0]), abs(clip[1])) / (clip[1] - clip[0])
    assert np.abs(fast - slow).max() <= scale * (1e-15 if dtype == "float64" else 4e-7) * 4


def test_half_codes_are_bins_of_half_a_code():
    z = np.array([0, 1 / 131068 - 1e-9, 1 / 131068 + 1e-9, 0.5, 1 - 1e-9, 1.0, np.nan])
    half = kernels.half_codes_kernel(z)
    assert half.dtype == np.int32
    assert half.tolist() == [0, 0, 1, 65534, 131067, 131068, 0]
    assert kernels.codes_from_half(half).tolist() == [1, 1, 2, 32768, 65535, 65535, 1]
    assert np.isnan(z[-1])


# ---------------------------------------------------------------- what values mean
@pytest.mark.parametrize("dtype", FLOATS)
def test_nonpositive_power_is_at_the_noise_floor_and_nan_stays(dtype):
    db = r.to_db(np.array([0, -0.0, -5, -np.inf, 1e-12, np.nan, np.inf], dtype))
    assert np.allclose(db[:5], -100, rtol=0, atol=1e-5)
    assert np.isnan(db[5])
    assert db[6] == np.inf


@pytest.mark.parametrize("dtype", FLOATS)
def test_normalize_clips_and_keeps_nan(dtype):
    z = r.normalize(np.array([-np.inf, -30, -20, -10, 0, 7, np.inf, np.nan], dtype), (-20, 0))
    np.testing.assert_array_equal(z, np.array([0, 0, 0, 0.5, 1, 1, 1, np.nan], dtype))


def test_codes_of_nan_are_zero_and_values_outside_are_clipped():
    assert r.to_codes(np.array([np.nan, -1, -np.inf, 2, np.inf])).tolist() == [0, 1, 1, 65535, 65535]


@pytest.mark.parametrize(
    ("raw", "representation", "power"),
    [
        (np.array([1.0, 0.25, -1e-5]), "power", [1.0, 0.25, -1e-5]),
        (np.array([3, 0, 65535], np.uint16), "amplitude", [9.0, 0.0, 65535.0**2]),
        (np.array([-10.0, 20.0, -np.inf]), "db", [0.1, 100.0, np.nan]),
        (np.array([3 + 4j, 0j], np.complex64), "complex", [25.0, 0.0]),
        (np.array([3 + 4j, 0j], np.complex128), None, [25.0, 0.0]),
    ],
)
def test_to_power_of_each_representation(raw, representation, power):
    np.testing.assert_allclose(r.to_power(raw, representation), power, rtol=3e-7)


def test_power_says_nan_for_what_is_not_finite_overflows_or_is_masked():
    assert np.isnan(r.to_power(np.array([np.inf, -np.inf, np.nan]), "power")).all()
    assert np.isnan(r.to_power(np.array([1e30], np.float32), "amplitude")).all()
    assert np.isnan(r.to_power(np.array([500.0], np.float32), "db")).all()
    masked = np.ma.MaskedArray(np.array([2, 3], np.int16), [False, True])
    np.testing.assert_array_equal(r.to_power(masked, "power"), np.array([2, np.nan], np.float32))
    masked = np.ma.MaskedArray(np.array([2j, 3j]), [False, True])
    np.testing.assert_array_equal(r.to_power(masked, "complex"), [4, np.nan])


@pytest.mark.parametrize(
    ("raw", "nodata"),
    [
        (np.array([0, 7], np.uint16), 0.0),
        (np.array([-9999, 7], np.int32), -9999.0),
        (np.array([1e-5, 7], np.float32), 1e-5),
        (np.array([-3.4028234663852886e38, 7], np.float32), -3.4028234663852886e38),
        (np.array([1e-5, 7], np.float32), np.float64(1e-5)),
        (np.array([0j, 7], np.complex64), 0.0),
        (np.array([np.nan, 7], np.float32), np.nan),
    ],
)
def test_nodata_is_compared_in_the_pixels_own_dtype(raw, nodata):
    representation = "complex" if raw.dtype.kind == "c" else "power"
    power = kernels.power_kernel(raw, representation, nodata=nodata)
    assert np.isnan(power).tolist() == [True, False]


def test_a_sentinel_that_the_dtype_cannot_hold_matches_nothing():
    raw = np.array([0, 255], np.uint8)
    for nodata in (-9999.0, 256.0, 0.5, np.inf, 1e300):
        assert not np.isnan(kernels.power_kernel(raw, "power", nodata=nodata)).any()


@pytest.mark.parametrize(
    ("given", "worked"),
    [
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("uint8", "float32"),
        ("int8", "float32"),
        ("uint16", "float32"),
        ("int16", "float32"),
        ("int32", "float64"),
        ("uint32", "float64"),
        ("int64", "float64"),
        (">f4", "float32"),
        (">u2", "float32"),
        (">f8", "float64"),
    ],
)
def test_dtype_law(given, worked):
    x = np.ones(3, given)
    for out in (
        r.to_power(x, "power"),
        r.to_db(x),
        r.from_db(x),
        r.normalize(x, (0, 1)),
        r.handle_invalid_values(x),
    ):
        assert out.dtype == np.dtype(worked)


def test_bounds_as_numpy_float64_do_not_widen_the_pixels():
    pair = np.array([-20.0, 0.0])
    z = r.normalize(np.zeros(3, np.float32), pair)
    assert z.dtype == r.denormalize(z, pair).dtype == r.restretch(z, pair, (-1, 1)).dtype == np.float32


def test_inputs_are_left_untouched():
    x = spread_power(50, "float32", 3)
    before = x.copy()
    for step in (r.handle_invalid_values, r.to_db, r.from_db, r.to_codes, lambda v: r.normalize(v, (-1, 1))):
        step(x)
    r.to_power(x, "amplitude")
    r.restretch(x, (0, 1), (0, 2))
    assert np.array_equal(x, before)


def test_numbers_and_empty_arrays():
    assert r.to_db(0.1) == pytest.approx(-10.0)
    assert r.to_power(20.0, "amplitude") == 400.0
    assert r.to_power(3 + 4j) == 25.0
    assert r.to_codes(1.0) == 65535
    assert r.to_db(np.empty((0, 4), np.float32)).shape == (0, 4)
    assert r.to_codes(np.empty((3, 0))).dtype == np.uint16
    assert isinstance(r.to_db(np.array(2.0)), np.ndarray)


@pytest.mark.parametrize("dtype", FLOATS)
def test_handle_invalid_values_replaces_what_is_not_finite_and_positive(dtype):
    image = np.array([[1.0, 0.0, -2.0], [np.nan, np.inf, -np.inf]], dtype)
    out = r.handle_invalid_values(image)
    assert out.dtype == image.dtype
    np.testing.assert_array_equal(out, np.array([[1, 1e-10, 1e-10], [1e-10] * 3], dtype))
    assert r.handle_invalid_values(image, noise_floor=0.5)[0, 1] == 0.5


@pytest.mark.compat
@pytest.mark.parametrize("dtype", FLOATS)
def test_extreme_values_raise_no_warning(dtype):
    info = np.finfo(dtype)
    x = np.array(
        [info.max, info.min, info.tiny, info.smallest_subnormal, -info.tiny, np.inf, -np.inf, np.nan], dtype
    )
    for step in (r.handle_invalid_values, r.to_db, r.from_db, r.to_codes):
        step(x)
    for pair in ((-60, 100), (-1e-29, 1e-29), (-1e29, 1e29)):
        r.normalize(x, pair)
        r.denormalize(x, pair)
        r.restretch(x, STORED_RANGE, pair)
        r.restretch(x, pair, STORED_RANGE)
    for representation in ("power", "amplitude", "db"):
        assert not np.isinf(r.to_power(x, representation)).any()
    assert not np.isinf(r.to_power(x[:-3] * (1 + 1j), "complex")).any()


# ---------------------------------------------------------------- the same bits, however memory lies
def layouts(x):
    """Views and copies of equal values: strided, reversed, transposed, Fortran, unaligned, foreign-endian."""
    wide = np.zeros((x.shape[0] * 2, x.shape[1] * 3), x.dtype)
    wide[::2, ::3] = x
    yield wide[::2, ::3]
    yield x[::-1, ::-1].copy()[::-1, ::-1]
    yield x.T.copy().T
    yield np.asfortranarray(x)
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    unaligned[:] = x
    yield unaligned
    yield x.astype(x.dtype.newbyteorder(">"))
    yield np.broadcast_to(x[None], (1, *x.shape))[0]


def chain(x):
    power = r.to_power(x, "amplitude")
    db = r.to_db(power)
    z = r.normalize(db, STORED_RANGE)
    back = r.denormalize(z, STORED_RANGE)
    return (
        power,
        db,
        z,
        r.to_codes(z),
        r.from_db(back),
        r.restretch(z, STORED_RANGE, (-25, 5)),
        r.from_codes(r.to_codes(z)),
    )


@searched
@given(dtypes, seeds, st.integers(1, 40), st.integers(1, 67))
def test_bits_do_not_depend_on_memory_layout(dtype, seed, height, width):
    x = with_specials(spread_power(height * width, dtype, seed, -40, 40), seed).reshape(height, width)
    expected = chain(x)
    for other in layouts(x):
        for a, b in zip(chain(other), expected, strict=True):
            assert a.dtype == b.dtype
            assert a.flags.c_contiguous
            assert a.tobytes() == b.tobytes()


@searched
@given(dtypes, seeds, st.data())
def test_bits_do_not_depend_on_the_cut_into_blocks(dtype, seed, data):
    x = with_specials(spread_power(60 * 70, dtype, seed, -40, 40), seed).reshape(60, 70)
    expected = chain(x)
    cuts = [sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=5))) for n in x.shape]
    rows, cols = ([0, *cut, n] for cut, n in zip(cuts, x.shape, strict=True))
    step = data.draw(st.sampled_from([1, 2, 3]))
    for top, bottom in pairwise(rows):
        for left, right in pairwise(cols):
            window = (slice(top, bottom, step), slice(left, right, step))
            for a, b in zip(chain(x[window]), expected, strict=True):
                assert a.tobytes() == b[window].tobytes()
    chunks = tuple(tuple(np.diff(edges).tolist()) for edges in (rows, cols))
    lazy = chain(da.from_array(x, chunks=chunks))
    with dask.config.set(scheduler="synchronous"):
        computed = dask.compute(*lazy)
    for plan, a, b in zip(lazy, computed, expected, strict=True):
        assert plan.dtype == a.dtype == b.dtype
        assert plan.chunks == chunks
        assert a.tobytes() == b.tobytes()


@searched
@given(dtypes, seeds)
def test_kernels_in_place_are_the_public_functions(dtype, seed):
    x = with_specials(spread_power(777, dtype, seed, -40, 40), seed)
    power, db, z, codes, *_ = chain(x)
    work = kernels.power_kernel(x, "amplitude")
    assert work.flags.c_contiguous
    assert work.flags.owndata
    assert work.tobytes() == power.tobytes()
    out = np.empty_like(work)
    assert kernels.db_kernel(work, out=out) is out
    assert out.tobytes() == db.tobytes()
    assert work.tobytes() == power.tobytes()
    assert kernels.normalize_kernel(out, STORED_RANGE) is out
    assert out.tobytes() == z.tobytes()
    of_half = kernels.codes_from_half(kernels.half_codes_kernel(out))
    assert np.where(np.isnan(out), np.uint16(0), of_half).tobytes() == codes.tobytes()


def test_lazy_results_are_lazy_keyed_by_content_and_picklable():
    x = da.from_array(np.ones((8, 8), np.float32), chunks=4)
    a, b = (r.normalize(r.to_db(x), (-20, 0)) for _ in range(2))
    assert a.name == b.name
    assert a.name != r.normalize(r.to_db(x), (-20, 1)).name
    assert len(a.dask.layers) == 3  # the array and two steps: nothing else enters the graph
    assert np.array_equal(
        pickle.loads(pickle.dumps(a)).compute(scheduler="sync"), a.compute(scheduler="sync")
    )


# ---------------------------------------------------------------- xarray
def scene(**arrays):
    out = {}
    for name, (values, attrs) in arrays.items():
        out[name] = xr.DataArray(values, dims=("y", "x"), attrs=attrs)
    coords = {"y": [2.5, 1.5], "x": [0.5, 1.5], "spatial_ref": ((), 0, {"crs_wkt": "LOCAL_CS"})}
    return xr.Dataset(out, coords=coords, attrs={"platform": "sentinel-1a"})


def dn(nodata=0):
    attrs = {
        c.REPRESENTATION: "amplitude",
        c.QUANTITY: "dn",
        c.SOURCE_NODATA: nodata,
        c.LONG_NAME: "VV",
        c.GRID_MAPPING: "spatial_ref",
        "_FillValue": nodata,
        "STATISTICS_MAXIMUM": "20",
    }
    return np.array([[0, 10], [20, 3]], np.uint16), attrs


def test_the_chain_of_an_xarray_scene_keeps_its_labels_true():
    source = scene(vv=dn(), mask=(np.ones((2, 2), np.int16), {}))
    source.vv.encoding["_FillValue"] = 0
    power = r.to_power(source)
    assert power.vv.attrs == {
        c.REPRESENTATION: "power",
        c.SOURCE_REPRESENTATION: "amplitude",
        c.QUANTITY: "dn",
        c.LONG_NAME: "VV",
        c.GRID_MAPPING: "spatial_ref",
        c.UNITS: "1",
    }
    assert power.vv.encoding == {c.FILL_VALUE: np.nan}
    assert power.mask.identical(source.mask)
    np.testing.assert_array_equal(power.vv, np.array([[np.nan, 100], [400, 9]], np.float32))
    assert power.attrs == source.attrs
    assert power.vv.spatial_ref.attrs == {"crs_wkt": "LOCAL_CS"}
    assert source.vv.attrs[c.REPRESENTATION] == "amplitude"
    assert source.vv.encoding == {"_FillValue": 0}

    db = r.to_db(power)
    assert list(db.data_vars) == ["vv_db", "mask"]
    assert db.vv_db.attrs[c.UNITS] == "dB"
    assert db.vv_db.attrs[c.REPRESENTATION] == "db"
    z = r.normalize(db.vv_db, (-20, 20))
    assert z.name == "vv"
    assert (z.attrs[c.VMIN], z.attrs[c.VMAX], z.attrs[c.UNITS]) == (-20.0, 20.0, "1")
    assert z.attrs[c.REPRESENTATION] == "normalized"
    back = r.denormalize(z)  # the attrs are the message to the inverse
    assert back.name == "vv_db"
    assert c.VMIN not in back.attrs
    np.testing.assert_allclose(back, np.minimum(db.vv_db, 20), atol=1e-5)
    assert r.from_db(back).name == "vv"


def test_restretch_and_codes_of_xarray_say_the_bounds_that_hold():
    z = r.normalize(r.to_db(r.to_power(scene(vv=dn()).vv)), STORED_RANGE)
    codes = r.to_codes(z)
    assert codes.dtype == np.uint16
    said = {c.SCALE_FACTOR: 1 / 65534, c.ADD_OFFSET: -1 / 65534, c.FILL_VALUE: 0}
    assert {k: codes.attrs[k] for k in said} == said
    assert (codes.attrs[c.VMIN], codes.attrs[c.VMAX]) == STORED_RANGE
    values = r.from_codes(codes)
    assert not said.keys() & values.attrs.keys()
    assert (values.attrs[c.VMIN], values.attrs[c.VMAX]) == STORED_RANGE
    clipped = r.restretch(values, STORED_RANGE, (0, 30))
    assert (clipped.attrs[c.VMIN], clipped.attrs[c.VMAX]) == (0.0, 30.0)
    np.testing.assert_allclose(r.to_power(values.fillna(0)), r.from_db(r.denormalize(values.fillna(0))))


@pytest.mark.compat
def test_xarray_over_dask_stays_lazy_and_equals_numpy():
    source = scene(vv=dn())
    eager = r.normalize(r.to_db(r.to_power(source)), (0, 30))
    lazy = r.normalize(r.to_db(r.to_power(source.chunk({"y": 1}))), (0, 30))
    assert lazy.vv.chunks == ((1, 1), (2,))
    xr.testing.assert_identical(lazy.compute(scheduler="sync"), eager)


def test_to_power_twice_is_to_power_once():
    source = scene(vv=(np.array([[0.0, 1.0], [2.0, 3.0]]), {c.REPRESENTATION: "db", c.SOURCE_NODATA: 1.0}))
    once = r.to_power(source)
    xr.testing.assert_identical(r.to_power(once), once)  # 0 dB is a power of 1, no longer a sentinel
    assert np.isnan(once.vv.values).tolist() == [[False, True], [False, False]]


def test_a_scene_that_says_its_representation_says_the_new_one():
    source = scene(vv=dn()).assign_attrs({c.REPRESENTATION: "amplitude"})
    assert r.to_power(source).attrs[c.REPRESENTATION] == "power"
    assert r.to_db(r.to_power(source)).attrs[c.REPRESENTATION] == "db"


def test_an_unlabelled_dataset_can_be_told_its_representation_and_flags_stay_flags():
    flags = (np.zeros((2, 2), np.uint8), {c.FLAG_VALUES: [0, 1, 2, 3]})
    source = scene(vv=(np.full((2, 2), 10.0), {}), vv_flags=flags)
    power = r.to_power(source, "db")
    np.testing.assert_allclose(power.vv, 10, rtol=1e-14)
    assert power.vv_flags.identical(source.vv_flags)


def test_handle_invalid_values_keeps_xarray_labels():
    x = scene(vv=(np.array([[0.0, 1.0], [np.nan, 2.0]]), {"a": 1})).vv
    out = r.handle_invalid_values(x)
    assert out.attrs == {"a": 1}
    assert out.name == "vv"
    assert out.values.tolist() == [[1e-10, 1.0], [1e-10, 2.0]]


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    "pair", [(1, 1), (2, 1), (np.nan, 1), (0, np.inf), (-np.inf, 0), (0, 1e-40), (1,), (1, 2, 3)]
)
def test_bounds_that_are_no_range_are_refused(pair):
    for step in (
        r.normalize,
        r.denormalize,
        lambda x, b: r.restretch(x, b, (0, 1)),
        lambda x, b: r.restretch(x, (0, 1), b),
    ):
        with pytest.raises(InvalidInputError, match="vmin < vmax"):
            step(np.zeros(3), pair)


def test_what_cannot_be_is_refused_with_a_remedy():
    with pytest.raises(InvalidInputError, match="Pass power, amplitude, db or complex"):
        r.to_power(np.zeros(3))
    with pytest.raises(InvalidInputError, match="got 'sigma'"):
        r.to_power(np.zeros(3), "sigma")
    with pytest.raises(InvalidInputError, match="belongs to complex"):
        r.to_power(np.zeros(3), "complex")
    with pytest.raises(InvalidInputError, match="belongs to complex"):
        r.to_power(np.zeros(3, np.complex64), "amplitude")
    with pytest.raises(InvalidInputError, match="Call to_power first"):
        r.to_db(np.zeros(3, np.complex64))
    with pytest.raises(InvalidInputError, match="Denormalize"):
        r.to_power(np.zeros(3), "normalized")
    with pytest.raises(InvalidInputError, match="must be numbers"):
        r.to_db(np.array(["a"]))
    with pytest.raises(InvalidInputError, match="must be integers"):
        r.from_codes(np.zeros(3))
    with pytest.raises(InvalidInputError, match="needs bounds"):
        r.denormalize(np.zeros(3))
    for floor in (0, -1, math.nan, math.inf):
        with pytest.raises(InvalidInputError, match="noise_floor"):
            r.handle_invalid_values(np.zeros(3), floor)


def test_a_step_on_the_wrong_representation_is_refused():
    amplitude = scene(vv=dn())
    with pytest.raises(InvalidInputError, match=r"expected representation 'power' in 'vv', got 'amplitude'"):
        r.to_db(amplitude)
    with pytest.raises(InvalidInputError, match="Call to_db first"):
        r.normalize(r.to_power(amplitude), (-20, 0))
    with pytest.raises(InvalidInputError, match="say their representation"):
        r.to_power(scene(mask=(np.zeros((2, 2)), {})))


@pytest.mark.parametrize("looks", [1, 4.4, 30])
def test_a_mean_in_db_becomes_the_db_of_the_mean_power(looks):
    """Of a million pixels of gamma speckle: within 4 standard errors of the two means."""
    power = np.random.default_rng(0).gamma(looks, 0.02 / looks, 1_000_000)
    z = sz.normalize(sz.to_db(power), (-60.0, 100.0))
    error = 10 / np.log(10) * np.sqrt(special.polygamma(1, looks) + 1 / looks) / 1000
    assert sz.denormalize(z.mean(), (-60, 100), looks=looks) == pytest.approx(
        sz.to_db(power.mean()), abs=4 * error
    )
    gap = sz.denormalize(z.mean(), (-60, 100)) - sz.to_db(power.mean())
    assert -gap == pytest.approx(
        10 * np.log10(looks) - 10 / np.log(10) * special.digamma(looks), abs=4 * error
    )


def test_looks_shift_every_kind_of_array_alike():
    z = np.array([[0.0, 0.25], [np.nan, 1.0]], np.float32)
    shift = np.float32(10 * np.log10(4.4) - 10 / np.log(10) * special.digamma(4.4))
    wanted = sz.denormalize(z, (-20, 0)) + shift
    ours = sz.denormalize(z, (-20, 0), looks=4.4)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, wanted)
    np.testing.assert_array_equal(
        sz.denormalize(da.from_array(z, chunks=1), (-20, 0), looks=4.4).compute(), wanted
    )
    about = {"representation": "normalized", "vmin": -20.0, "vmax": 0.0}
    labelled = xr.DataArray(z, dims=("y", "x"), name="vv", attrs=about)
    made = sz.denormalize(labelled, looks=4.4)
    assert (made.name, made.attrs["representation"]) == ("vv_db", "db")
    np.testing.assert_array_equal(made.values, wanted)
    np.testing.assert_array_equal(sz.denormalize(labelled.to_dataset(), looks=4.4).vv_db.values, wanted)
    for looks in (0, -1, np.nan, np.inf):
        with pytest.raises(InvalidInputError, match="looks must be a positive"):
            sz.denormalize(z, (-20, 0), looks=looks)
