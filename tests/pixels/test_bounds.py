"""Clip bounds against NumPy, and the histogram: exact to add, within a bin to read."""

import math

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr import conventions as c
from sarzarr.errors import InvalidInputError
from sarzarr.pixels import kernels, radiometry
from sarzarr.pixels.bounds import (
    BIN_WIDTH_DB,
    ClipBounds,
    Histogram,
    clip_bounds_from_histogram,
    compute_clip_bounds,
    count_half_codes,
)

searched = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)
percents = st.one_of(st.floats(0, 100), st.sampled_from([0, 1, 2, 25, 50, 99, 100]))
METHODS = ("percentile", "sigma")


def speckle_db(shape, seed=0, dtype=np.float32):
    power = 0.05 * np.random.default_rng(seed).gamma(4.4, 1 / 4.4, shape)
    return radiometry.to_db(power.astype(dtype))


def heavy_tail(rng, n):
    """A town: most pixels dark, a Pareto tail of bright ones, up to beyond the stored range."""
    return np.minimum(-15 + 3 * rng.pareto(0.7, n), 140)


DISTRIBUTIONS = {
    "speckle": lambda rng, n: speckle_db(n, int(rng.integers(1 << 30))),
    "constant": lambda rng, n: np.full(n, rng.uniform(-70, 110)),
    "two spikes": lambda rng, n: rng.choice([-59.9, 99.9], n),
    "two modes and a gap": lambda rng, n: np.where(
        rng.random(n) < 0.5, rng.normal(-28, 1, n), rng.normal(-8, 1, n)
    ),
    "heavy tail": heavy_tail,
    "whole range": lambda rng, n: rng.uniform(-80, 120, n),
    "edges": lambda rng, n: rng.choice([-60.0, 100.0, -60 + 1e-4, 100 - 1e-4, -99.9, 150.0], n),
    "bin edges": lambda rng, n: -60 + BIN_WIDTH_DB * rng.integers(0, c.HISTOGRAM_BINS, n),
}
distributions = st.sampled_from(sorted(DISTRIBUTIONS))
sizes = st.one_of(st.integers(1, 5), st.integers(1, 3000))
dtypes = st.sampled_from(["float32", "float64"])


def draw(name, n, seed, dtype="float64"):
    return np.asarray(DISTRIBUTIONS[name](np.random.default_rng(seed), n)).astype(dtype)


# ---------------------------------------------------------------- the histogram
@searched
@given(distributions, sizes, seeds, dtypes, percents)
def test_percentile_is_within_a_bin_of_numpy(name, n, seed, dtype, q):
    db = draw(name, n, seed, dtype)
    exact = np.percentile(np.clip(db.astype(np.float64), *c.STORED_RANGE), q)
    # float32 pixels meet the bins in float32: an eighth of a bin more on the far side of the range
    assert abs(Histogram.from_db(db).percentile(q) - exact) <= BIN_WIDTH_DB


@searched
@given(distributions, sizes, seeds)
def test_moments_are_within_half_a_bin_of_numpy(name, n, seed):
    db = draw(name, n, seed)
    clipped, histogram = np.clip(db, *c.STORED_RANGE), Histogram.from_db(db)
    assert abs(histogram.mean - clipped.mean()) <= BIN_WIDTH_DB / 2 + 1e-9
    assert abs(histogram.std - clipped.std()) <= BIN_WIDTH_DB / 2 + 1e-6


@searched
@given(seeds, st.lists(st.integers(0, 400), max_size=6), st.randoms())
def test_histograms_add_up_whatever_the_cut_and_the_order(seed, cuts, random):
    db = np.concatenate([draw(name, 50, seed) for name in sorted(DISTRIBUTIONS)])
    db[::7], db[3::31], db[5::13] = np.nan, np.inf, -100
    parts = [Histogram.from_db(part) for part in np.split(db, sorted(cuts))]
    random.shuffle(parts)
    merged = parts[0]
    for part in parts[1:]:
        merged = part + merged
    whole = Histogram.from_db(db)
    assert merged == whole
    assert merged + Histogram.empty() == whole
    assert whole != whole + whole
    assert all(
        type(v) is int for v in (merged.under, merged.over, merged.nonpositive, merged.nodata, merged.n_valid)
    )


@searched
@given(seeds, st.integers(1, 9), st.integers(1, 9))
def test_any_dask_chunking_gives_the_same_histogram(seed, rows, cols):
    db = draw("heavy tail", 30 * 40, seed, "float32").reshape(30, 40)
    db[:2], db[5, :7] = np.nan, -100
    with dask.config.set(scheduler="synchronous"):
        assert Histogram.from_db(da.from_array(db, chunks=(rows * 4, cols * 5))) == Histogram.from_db(db)


def test_every_pixel_is_accounted_for():
    db = np.array(
        [[np.nan, np.inf, -np.inf, -100.0], [-99.99999, -70.0, -60.0, 0.0], [100.0, 100.1, 150.0, -30.0]]
    )
    histogram = Histogram.from_db(db)
    assert (histogram.nodata, histogram.nonpositive) == (3, 2)
    assert (histogram.under, histogram.over) == (1, 2)
    assert histogram.n_valid == 7
    assert histogram.counts[0] == 2
    assert histogram.counts[-1] == 3
    assert histogram.n_valid + histogram.nodata + histogram.nonpositive == db.size


def test_float32_nonpositive_power_is_not_counted():
    db = radiometry.to_db(np.array([0, -1, 1e-10, 1], np.float32))
    assert Histogram.from_db(db).nonpositive == 3


def test_counting_half_codes_is_the_histogram():
    db = speckle_db((300, 311))
    counts = np.zeros(c.HISTOGRAM_BINS, np.int64)
    for row in range(0, 300, 64):  # as ingest does: block by block, in place
        z = kernels.normalize_kernel(db[row : row + 64].copy(), c.STORED_RANGE)
        count_half_codes(kernels.half_codes_kernel(z), counts)
    assert np.array_equal(counts, Histogram.from_db(db).counts)


def test_a_bin_is_half_a_code():
    z = np.random.default_rng(0).random(10_000)
    histogram = Histogram.from_db(radiometry.denormalize(z, c.STORED_RANGE))
    half = np.flatnonzero(histogram.counts)
    codes = kernels.codes_from_half(half.astype(np.int32))
    # denormalize and normalize may move a value over the edge of its bin, not further
    assert set(codes.tolist()) <= {int(v) + k for v in radiometry.to_codes(z) for k in (-1, 0, 1)}
    assert histogram.counts.sum() == z.size


def test_more_pixels_than_a_block_and_any_shape():
    db = np.broadcast_to(speckle_db(601), (1000, 601))
    tall = Histogram.from_db(db)
    assert tall == Histogram.from_db(db.T.reshape(601, 10, 100))
    assert np.array_equal(tall.counts, 1000 * Histogram.from_db(speckle_db(601)).counts)


def test_saturated_pixels_read_as_exactly_the_ceiling():
    histogram = Histogram.from_db(np.array([100.0, 130.0]))
    assert (histogram.percentile(0), histogram.percentile(100), histogram.mean) == (100.0, 100.0, 100.0)


def test_an_empty_histogram_has_no_percentile():
    empty = Histogram.empty()
    assert math.isnan(empty.percentile(50))
    assert math.isnan(empty.mean)
    assert math.isnan(empty.std)
    assert empty == Histogram.from_db(np.empty((0, 5)))
    assert Histogram.from_db(da.zeros((0, 5))) == empty


def test_a_histogram_cannot_be_changed_or_misshapen():
    histogram = Histogram.empty()
    with pytest.raises(ValueError, match="read-only"):
        histogram.counts[0] = 1
    with pytest.raises(InvalidInputError, match="shape"):
        Histogram(counts=np.zeros(5, np.int64))
    with pytest.raises(InvalidInputError, match=r"0\.\.100"):
        histogram.percentile(101)
    with pytest.raises(TypeError, match="unhashable"):
        hash(histogram)


# ---------------------------------------------------------------- bounds
@searched
@given(seeds, dtypes, st.floats(0, 40), st.floats(60, 100))
def test_percentile_bounds_are_numpys_over_the_valid_pixels(seed, dtype, low, high):
    db = speckle_db((40, 50), seed, np.dtype(dtype).type)
    valid = db.copy()
    db = np.concatenate(
        [db, np.full((30, 50), np.nan), np.full((30, 50), -100.0), np.full((2, 50), np.inf)]
    ).astype(dtype)
    bounds = compute_clip_bounds(db, low_pct=low, high_pct=high)
    assert tuple(bounds) == pytest.approx(np.percentile(valid.astype(np.float64), [low, high]), abs=1e-5)


def test_the_documented_methods_and_their_defaults():
    db = speckle_db((200, 300), dtype=np.float64)
    assert tuple(compute_clip_bounds(db)) == pytest.approx(np.percentile(db, [1, 99]), abs=1e-12)
    assert tuple(compute_clip_bounds(db, "fixed")) == (-25.0, 5.0)
    assert tuple(compute_clip_bounds(db, method="fixed", vmin=-30, vmax=0)) == (-30.0, 0.0)
    sigma = compute_clip_bounds(db, "sigma")
    assert tuple(sigma) == pytest.approx((db.mean() - 3 * db.std(), db.mean() + 3 * db.std()), abs=1e-9)
    assert tuple(compute_clip_bounds(db, "sigma", k=1)) == pytest.approx(
        (db.mean() - db.std(), db.mean() + db.std())
    )
    described = [compute_clip_bounds(db, m) for m in ("percentile", "fixed", "sigma")]
    assert [b.method for b in described] == ["percentile", "fixed", "sigma"]
    assert [b.description for b in described] == ["percentile 1..99", "fixed -25..5 dB", "sigma 3"]


@pytest.mark.parametrize("method", METHODS)
def test_nodata_beyond_one_percent_does_not_drag_vmin_down(method):
    db = speckle_db((100, 100))
    holed = db.copy()
    holed[:20], holed[20:30] = -100, np.nan
    assert tuple(compute_clip_bounds(holed, method)) == pytest.approx(
        tuple(compute_clip_bounds(db[30:], method))
    )
    assert compute_clip_bounds(holed).vmin > -30


@pytest.mark.compat
@pytest.mark.parametrize("method", METHODS)
def test_numpy_dask_xarray_lists_and_histograms_agree(method):
    db = speckle_db((120, 130))
    db[:10] = np.nan
    exact = compute_clip_bounds(db, method)
    array = xr.DataArray(db, dims=("y", "x"), attrs={c.REPRESENTATION: "db"})
    scene = xr.Dataset({"vv_db": array, "mask": (("y", "x"), np.full(db.shape, 7.0))})
    for same in (array, scene, [db[:50], db[50:]], (db[:50].T, array[50:]), iter([db])):
        assert tuple(compute_clip_bounds(same, method)) == pytest.approx(tuple(exact), abs=1e-6)
    histogram = Histogram.from_db(db)
    expected = clip_bounds_from_histogram(histogram, method)
    assert tuple(expected) == pytest.approx(
        tuple(exact), abs=3.5 * BIN_WIDTH_DB if method == "sigma" else BIN_WIDTH_DB
    )
    with dask.config.set(scheduler="synchronous"):
        for lazy in (
            da.from_array(db, chunks=37),
            array.chunk(41),
            scene.chunk(41),
            [db[:50], da.from_array(db[50:])],
        ):
            assert compute_clip_bounds(lazy, method) == expected


def test_a_dask_image_is_never_whole_in_memory():
    seen = []

    def block(block_info=None):
        seen.append(block_info[None]["chunk-location"])
        return speckle_db((500, 500), len(seen))

    lazy = da.map_blocks(
        block, chunks=((500,) * 6, (500,) * 5), dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    with dask.config.set(scheduler="synchronous"):
        compute_clip_bounds(lazy)
    assert len(seen) == len(set(seen)) == 30  # each block is made once, and counted before the next


@pytest.mark.parametrize("value", [-10.0, 0.0, 42.5, -99.0, 120.0])
@pytest.mark.parametrize("method", METHODS)
def test_a_constant_image_normalizes_to_one_half(method, value):
    for dtype in (np.float32, np.float64):
        image = np.full((9, 9), value, dtype)
        bounds = compute_clip_bounds(image, method)
        assert bounds.vmax - bounds.vmin == pytest.approx(0.1)
        np.testing.assert_allclose(radiometry.normalize(image, bounds), 0.5, atol=1e-4)


def test_a_constant_dask_image_normalizes_to_one_half():
    image = da.full((9, 9), -10.0, chunks=4)
    z = radiometry.normalize(image, compute_clip_bounds(image))
    np.testing.assert_allclose(z.compute(scheduler="sync"), 0.5, atol=0.01)


@pytest.mark.parametrize("method", ["percentile", "fixed", "sigma"])
@pytest.mark.parametrize("image", [np.full((3, 3), np.nan), np.full((3, 3), -100.0), np.empty((0, 4)), []])
def test_no_valid_pixel_gives_the_fixed_default(method, image):
    bounds = compute_clip_bounds(image, method)
    assert tuple(bounds) == (-25.0, 5.0)
    assert bounds.method == "fixed"
    assert tuple(clip_bounds_from_histogram(Histogram.empty(), method)) == (-25.0, 5.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("method", ["percentile", "fixed", "sigma"])
def test_bounds_are_python_floats(method, dtype):
    bounds = compute_clip_bounds(
        speckle_db((20, 20)).astype(dtype), method, vmin=np.float64(-20), vmax=np.float32(3)
    )
    assert type(bounds.vmin) is float
    assert type(bounds.vmax) is float
    vmin, vmax = bounds
    assert (vmin, vmax) == (bounds.vmin, bounds.vmax)
    assert radiometry.normalize(speckle_db((4, 4)), bounds).dtype == np.float32


def test_masked_pixels_are_not_valid():
    db = speckle_db((50, 50))
    masked = np.ma.MaskedArray(np.where(db > -13, 90, db), db > -13)
    assert compute_clip_bounds(masked).vmax < -12
    assert Histogram.from_db(masked).nodata == np.count_nonzero(db > -13)


def test_what_cannot_be_is_refused():
    with pytest.raises(InvalidInputError, match=r"^Unknown method: minmax"):
        compute_clip_bounds(np.zeros(3), "minmax")
    with pytest.raises(ValueError, match=r"^Unknown method: "):
        clip_bounds_from_histogram(Histogram.empty(), "minmax")
    for wrong in (
        {"low_pct": -1},
        {"high_pct": 101},
        {"low_pct": 60, "high_pct": 40},
        {"k": 0},
        {"k": math.nan},
    ):
        with pytest.raises(InvalidInputError, match="must be"):
            compute_clip_bounds(np.zeros(3), **wrong)
    with pytest.raises(InvalidInputError, match="vmin < vmax"):
        compute_clip_bounds(np.zeros(3), "fixed", vmin=5, vmax=5)
    with pytest.raises(InvalidInputError, match="vmin < vmax"):
        ClipBounds(1, math.nan)
    with pytest.raises(InvalidInputError, match="Call to_db first"):
        compute_clip_bounds(xr.DataArray(np.ones(3), attrs={c.REPRESENTATION: "power"}))


def test_bounds_are_what_the_tuple_of_older_code_was():
    bounds = compute_clip_bounds(np.linspace(-30.0, 0.0, 101), method="fixed")
    vmin, vmax = bounds
    assert (bounds[0], bounds[1], bounds[-1], len(bounds)) == (vmin, vmax, vmax, 2)
    assert bounds[:] == (vmin, vmax) == bounds == tuple(bounds)
    assert bounds != (vmin, vmax + 1)
    assert bounds != [vmin, vmax]  # nor was the tuple a list
    assert hash(bounds) == hash((vmin, vmax))
    assert np.array(bounds).tolist() == [-25.0, 5.0]
    with pytest.raises(IndexError):
        bounds[2]
