"""Warping: any window is that part of the whole, the whole is GDAL's, and power is what is resampled."""

import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from rasterio.shutil import copy
from tiffs import DATA, needs_data, speckle
from warps import KIND, ORIGIN, UTM32, gdal_whole, grid, make_source, ramps, source_for

from sarzarr.errors import InvalidInputError, RasterNotFoundError, UnsupportedRasterError
from sarzarr.grids.crs import crs_wkt, transform_points
from sarzarr.grids.georeference import Georeference, covering, locate, project
from sarzarr.grids.grid import Grid
from sarzarr.grids.warp.plan import FAST_TOLERANCE, GCP_TOLERANCE, Passthrough, WarpSource, plan_warp
from sarzarr.grids.warp.read import TILE, read_warped, read_warped_counted
from sarzarr.rasters import read_window
from sarzarr.scenes.probe import probe_file

PLACES = {
    "finer": ("EPSG:32632", 7.0),
    "coarser": ("EPSG:32632", 25.0),
    "zone": ("EPSG:32633", 10.0),
    "degrees": ("EPSG:4326", 4e-4),
}
"""Grids to warp onto: two of the source's own CRS, two of another."""
SHAPE = (160, 2300)
"""Long enough for two tiles wherever the grid is not coarser."""
ROWS = 40
"""Rows of the grids: a strip across the middle of the source."""


def read(plan, *, row=0, col=0, height=None, width=None):
    return read_warped(
        plan, row=row, col=col, height=height or plan.grid.height, width=width or plan.grid.width
    )


def same(one, other):
    """Whether two arrays have the same bits, NaN where NaN."""
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Return a function that plans a method onto one of `PLACES`: speckle with a hole in it."""
    folder = tmp_path_factory.mktemp("planned")
    pixels = speckle(SHAPE, power=1.0)
    pixels[60:100, 300:340], pixels[80, 1000] = np.nan, np.nan

    @lru_cache
    def plan(method, place, exact=True):
        path = folder / f"{KIND[method]}.tif"
        source = source_for(method, path, pixels)
        cover = covering([source.georeference], crs=PLACES[place][0], pixel_size=PLACES[place][1])
        first = max(0, cover.height // 2 - ROWS // 2)
        strip = cover.window(row=first, col=0, height=min(ROWS, cover.height), width=cover.width)
        return plan_warp(source, strip, method=method, kind=KIND[method], exact=exact)

    return plan


@pytest.fixture(scope="module")
def whole(planned):
    """Return a function that reads all of what `planned` plans, at once."""
    return lru_cache(lambda *key: read(planned(*key)))


# ---------------------------------------------------------------- any window is part of the whole
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "fast"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", KIND)
def test_any_window_is_that_part_of_the_whole(planned, whole, method, place, exact):
    plan, everything = planned(method, place, exact), whole(method, place, exact)
    height, width = plan.grid.shape

    @settings(
        max_examples=4,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.data())
    def check(data):
        row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        rows, cols = data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col))
        window = read(plan, row=row, col=col, height=rows, width=cols)
        assert same(window, everything[row : row + rows, col : col + cols])

    check()


def test_the_property_sees_more_than_one_tile(planned):
    assert planned("average", "zone").grid.width > TILE


@pytest.mark.parametrize("method", ["average", "bilinear", "nearest", "sum"])
def test_windows_of_every_order_and_thread_give_the_same_bits(planned, whole, method):
    plan = planned(method, "zone", False)
    cols = list(range(0, plan.grid.width, 300))
    np.random.default_rng(3).shuffle(cols)
    with ThreadPoolExecutor(3) as pool:
        parts = pool.map(lambda c: read(plan, col=c, width=min(300, plan.grid.width - c)), cols)
        for col, part in zip(cols, parts, strict=True):
            assert same(part, whole(method, "zone", False)[:, col : col + 300])


def far_away(plan):
    return read_warped(plan, row=3, col=1900, height=20, width=400)


def farther_away(plan):
    """Read here, then in a forked child, which must not go on with the handles that are open here."""
    far_away(plan)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(far_away, plan).result()


@pytest.mark.parametrize("reads", [far_away, farther_away])
def test_a_plan_is_read_in_another_process(planned, whole, reads):
    """Spawned: of a process whose threads read at that moment a fork would inherit PROJ's locks as they are."""
    expected = whole("average", "zone", False)[3:23, 1900:2300]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert same(pool.submit(reads, planned("average", "zone", False)).result(), expected)


def test_a_plan_is_its_own_copy(planned):
    for plan in (planned("average", "zone"), planned("sum", "coarser")):
        assert pickle.loads(pickle.dumps(plan)) == plan


# ---------------------------------------------------------------- the whole is GDAL's
@pytest.mark.compat
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", [m for m in KIND if m != "sum"])
def test_the_whole_is_gdals_own_warp(planned, whole, method, place):
    """To the bit: tiles leave no trace. Overshoot is raised to zero by sarzarr alone.

    Within one CRS WarpedVRT still interpolates along rows, and is off by a rounding.
    """
    plan = planned(method, place)
    expected = gdal_whole(plan)
    if plan.overshoots:
        expected[expected < 0] = 0
    if PLACES[place][0] == "EPSG:32632":
        assert np.allclose(whole(method, place), expected, rtol=3e-7, atol=0, equal_nan=True)
    else:
        assert same(whole(method, place), expected)
    assert np.isfinite(expected).mean() > 0.7


def test_the_oracle_can_differ(planned, whole):
    other = replace(planned("bilinear", "zone"), scale=(0.5, 0.5))
    assert not same(gdal_whole(other), whole("bilinear", "zone"))


@pytest.mark.parametrize("place", PLACES)
def test_sums_are_gdals_of_a_whole_raster(tmp_path, place):
    """Of a whole one alone: of a part, GDAL loses pixels, or spreads them over rows where they are not."""
    pixels = np.random.default_rng(0).poisson(3, (60, 80)).astype(np.float32)
    pixels[20:30, 20:40] = np.nan
    source = make_source(tmp_path / "a.tif", pixels, representation="layer")
    cover = covering([source.georeference], crs=PLACES[place][0], pixel_size=PLACES[place][1])
    wide = cover.window(row=-2, col=-2, height=cover.height + 4, width=cover.width + 4)
    plan = plan_warp(source, wide, kind="counts")
    assert np.allclose(read(plan), gdal_whole(plan), rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("place", ["zone", "degrees"])
@pytest.mark.parametrize("method", ["bilinear", "average", "rms", "cubic", "lanczos"])
def test_the_fast_mode_is_within_its_bound(planned, whole, method, place):
    """Positions within 1e-4 pixels: values within 4e-4 of the range. GDAL's own default is 0.1 of it off."""
    exact, fast = whole(method, place, True), whole(method, place, False)
    assert np.array_equal(np.isnan(exact), np.isnan(fast))
    spread = np.nanmax(exact) - np.nanmin(exact)
    assert 0 < np.nanmax(np.abs(exact - fast)) < 4 * FAST_TOLERANCE * spread


@pytest.mark.parametrize("place", ["zone", "degrees"])
@pytest.mark.parametrize("method", ["nearest", "mode", "min", "max", "med"])
def test_the_fast_mode_takes_few_other_pixels(planned, whole, method, place):
    exact, fast = whole(method, place, True), whole(method, place, False)
    other = ~((exact == fast) | (np.isnan(exact) & np.isnan(fast)))
    assert other.mean() < 10 * FAST_TOLERANCE


@pytest.mark.parametrize("place", ["finer", "coarser"])
def test_within_one_crs_it_is_exact_anyway(planned, place):
    assert planned("bilinear", place, False).is_exact
    assert planned("bilinear", place, False) == planned("bilinear", place, True)
    assert not planned("bilinear", "zone", False).is_exact


# ---------------------------------------------------------------- totals
@pytest.fixture
def counts(tmp_path):
    pixels = np.random.default_rng(2).poisson(3, (40, 1000)).astype(np.uint16)
    pixels[10:30, 100:140] = 65535
    source = make_source(tmp_path / "counts.tif", pixels, representation="layer", nodata=65535)
    return source, float(pixels[pixels != 65535].sum())


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "fast"])
@pytest.mark.parametrize("size", [3.7, 10.0, 15.0, 61.0])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:32633"])
def test_sum_conserves_the_total(counts, crs, size, exact):
    source, total = counts
    target = covering([source.georeference], crs=crs, pixel_size=size)
    target = target.window(row=-2, col=-2, height=target.height + 4, width=target.width + 4)
    plan = plan_warp(source, target, kind="counts", exact=exact)
    if crs == "EPSG:32632" and size == 10.0:
        assert isinstance(plan, Passthrough)
        values = read(plan)
        assert values[values != 65535].sum() == total
        return
    assert plan.method == "sum"
    assert abs(np.nansum(read(plan)) / total - 1) < 1e-12


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:32633"])
def test_sums_of_neighbouring_grids_add_up(counts, crs):
    """What reaches over a grid's edge is shared out between both sides, and lost on neither."""
    source, total = counts
    target = covering([source.georeference], crs=crs, pixel_size=17.0)
    halves = [
        target.window(row=-1, col=-1, height=target.height + 2, width=300),
        target.window(row=-1, col=299, height=target.height + 2, width=target.width),
    ]
    parts = [np.nansum(read(plan_warp(source, half, kind="counts"))) for half in halves]
    assert min(parts) > 0.1 * total
    assert abs(sum(parts) / total - 1) < 1e-12


# ---------------------------------------------------------------- power is what is resampled
def forms(power):
    """Return the same scene written in each representation; phases are random."""
    amplitude = np.sqrt(power)
    phase = np.random.default_rng(1).uniform(0, 2 * np.pi, power.shape)
    return {
        "power": power,
        "amplitude": amplitude,
        "db": 10 * np.log10(power),
        "complex": (amplitude * np.exp(1j * phase)).astype(np.complex64),
    }


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:32633"])
@pytest.mark.parametrize("representation", ["power", "amplitude", "db", "complex", "dn"])
def test_power_is_what_is_averaged(tmp_path, representation, crs):
    """Averaging dB at one look would be 2.5 dB low, averaging amplitudes 1.05 dB."""
    power = speckle((900, 900), looks=1, power=0.05)
    if representation == "dn":
        pixels = np.sqrt(power * 4e6).astype(np.uint16)
        truth, representation = np.mean(pixels.astype(np.float64) ** 2), "amplitude"
    else:
        pixels, truth = forms(power)[representation], power.mean(dtype=np.float64)
    source = make_source(tmp_path / "one.tif", pixels, representation=representation)
    plan = plan_warp(source, covering([source.georeference], crs=crs, pixel_size=50.0))
    assert plan.method == "average"
    values = read(plan)
    assert values.dtype == np.float32
    assert abs(10 * np.log10(np.mean(values[25:-25, 25:-25], dtype=np.float64) / truth)) < 0.02


@pytest.mark.parametrize("method", ["average", "bilinear", "nearest"])
def test_every_representation_of_a_scene_gives_the_same(tmp_path, method):
    results = []
    for representation, pixels in forms(speckle((120, 130), looks=1)).items():
        source = make_source(tmp_path / f"{representation}.tif", pixels, representation=representation)
        target = covering([source.georeference], crs="EPSG:32633", pixel_size=16.0)
        results.append(read(plan_warp(source, target, method=method)))
    for other in results[1:]:
        assert np.allclose(results[0], other, rtol=3e-6, equal_nan=True)


# ---------------------------------------------------------------- where things are
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic", "lanczos", "average", "rms"])
def test_a_corner_reflector_stays_where_it_is(tmp_path, method, place):
    """Within one pixel of the coarser of both grids, 30 dB above everything around."""
    pixels = np.full((120, 140), 0.01, np.float32)
    at = (71, 48)
    if method == "nearest":  # of pixels that the grid is too coarse for, nearest may leave this one out
        pixels[at[0] - 2 : at[0] + 3, at[1] - 2 : at[1] + 3] = 5.0
    pixels[at] = 10.0
    source = make_source(tmp_path / "corner.tif", pixels)
    crs, size = PLACES[place]
    plan = plan_warp(source, covering([source.georeference], crs=crs, pixel_size=size), method=method)
    found = np.array(np.unravel_index(np.nanargmax(read(plan)), plan.grid.shape)) + 0.5
    xs, ys = project(source.georeference, plan.grid.crs_wkt, np.array([at[0] + 0.5]), np.array([at[1] + 0.5]))
    rows, cols = plan.grid.to_pixels(xs, ys)
    allowed = max(1.0, *plan.scale) * (3 if method == "nearest" else 1)
    assert abs(found[0] - rows[0]) <= allowed
    assert abs(found[1] - cols[0]) <= allowed


@pytest.mark.parametrize("angle", [13.0, 90.0, 194.0])
def test_a_rotated_raster_lands_where_its_affine_says(tmp_path, angle):
    cos, sin = 10 * np.cos(np.radians(angle)), 10 * np.sin(np.radians(angle))
    place = Grid(height=90, width=110, transform=(cos, sin, 6e5, sin, -cos, 5e6), crs_wkt=UTM32)
    source = WarpSource(
        path="", band=1, representation="power", dtype="float32", georeference=Georeference(grid=place)
    )
    for layer, axis in zip(ramps(tmp_path, source), (0, 1), strict=True):
        target = covering([layer.georeference], crs="EPSG:32633", pixel_size=10.0)
        got = read(plan_warp(layer, target, kind="continuous", method="nearest", exact=True))
        expected = np.floor(locate(layer.georeference, target, *(np.indices(target.shape) + 0.5))[axis])
        assert (got == expected)[np.isfinite(got)].all()
        assert np.isfinite(got).sum() == pytest.approx(90 * 110, rel=0.01)


def test_a_rotated_grid_is_filled(tmp_path):
    source = make_source(tmp_path / "a.tif", speckle((200, 200), power=1.0))
    turned = Grid(height=60, width=60, transform=(8, 6, 6.007e5, 6, -8, 4.9991e6), crs_wkt=UTM32)
    plan = plan_warp(source, turned, method="bilinear")
    assert plan.geolocation == "rotated_affine"
    assert np.allclose(read(plan), gdal_whole(plan), rtol=3e-7, atol=0)


@pytest.fixture(scope="module")
def holed(tmp_path_factory):
    """Return a source of power with a hole, of two tiles' width."""
    pixels = speckle((70, 2100))
    pixels[20:30, 500:520] = np.nan
    return make_source(tmp_path_factory.mktemp("holed") / "h.tif", pixels)


@settings(max_examples=40)
@given(data=st.data())
def test_nearest_within_one_crs_is_gdals_to_the_bit(holed, data):
    """It is copied along the axes, without GDAL: over any offset, ratio and direction, and beyond every edge."""
    down, across = (data.draw(st.sampled_from([10.0, -10.0, 7.3, 15.0, 20.0, 33.0])) for _ in range(2))
    x, y = (data.draw(st.sampled_from([0.0, 5.0, -137.0, 250.1]) | st.floats(-300, 300)) for _ in range(2))
    left = x if across > 0 else 21_000 + x
    top = y if down > 0 else -700 + y
    shape = data.draw(st.tuples(st.integers(1, 90), st.sampled_from([3, 900, 2200])))
    target = Grid(
        height=shape[0],
        width=shape[1],
        transform=(across, 0.0, ORIGIN[0] + left, 0.0, -down, ORIGIN[1] + top),
        crs_wkt=UTM32,
    )
    try:
        plan = plan_warp(holed, target, method="nearest")
    except UnsupportedRasterError:  # it is wholly beside the source
        reject()
    assume(not isinstance(plan, Passthrough))
    np.testing.assert_array_equal(read(plan), gdal_whole(plan))


@pytest.mark.parametrize("size", [20.0, 40.0])
def test_nearest_does_not_waver_where_two_pixels_are_as_near(tmp_path, size):
    """At even factors each centre lies on the border of two pixels: rounding must not choose, now this, now that."""
    source = WarpSource(
        path="",
        band=1,
        representation="power",
        dtype="float32",
        georeference=Georeference(grid=grid(400, 4200)),
    )
    for layer, axis in zip(ramps(tmp_path, source), (0, 1), strict=True):
        n = int(size // 10)
        values = read(
            plan_warp(layer, grid(400 // n, 4200 // n, size=size), kind="continuous", method="nearest")
        )
        steps = np.diff(values, axis=axis)
        assert set(np.unique(steps)) == {n}
        assert set(np.unique(np.diff(values, axis=1 - axis))) == {0}


# ---------------------------------------------------------------- passthrough
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(-80, 130), st.integers(-80, 130), st.integers(1, 200), st.integers(1, 200), st.data())
def test_passing_through_is_a_window_copy(passed, row, col, height, width, data):
    source, pixels = passed
    plan = plan_warp(source, source.grid.window(row=row, col=col, height=height, width=width))
    assert isinstance(plan, Passthrough)
    padded = np.pad(pixels, 400, constant_values=7)
    expected = padded[400 + row : 400 + row + height, 400 + col : 400 + col + width]
    r, c = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    got = read(plan, row=r, col=c, height=height - r, width=width - c)
    assert same(got, expected[r:, c:])


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(8, 60_000, (100, 120)).astype(np.uint16)
    path = tmp_path_factory.mktemp("passed") / "dn.tif"
    return make_source(path, pixels, representation="amplitude", nodata=7), pixels


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64", "complex64"])
def test_its_own_grid_gives_the_very_same_pixels(tmp_path, dtype):
    pixels = (speckle((60, 70), power=100.0) - (1j if dtype == "complex64" else 0)).astype(dtype)
    source = make_source(
        tmp_path / "a.tif", pixels, representation="complex" if dtype == "complex64" else "amplitude"
    )
    plan = plan_warp(source, source.grid)
    assert isinstance(plan, Passthrough)
    assert plan.is_identity
    whole = read_window(source.path, band=1, row=0, col=0, height=60, width=70)
    assert read(plan).tobytes() == whole.tobytes() == pixels.tobytes()


@pytest.mark.parametrize(
    ("dtype", "nodata", "fill"),
    [("float32", None, np.nan), ("float32", -99.0, -99.0), ("uint16", None, 0), ("complex64", None, 0)],
)
def test_outside_of_the_source_nothing_is_known(tmp_path, dtype, nodata, fill):
    form = "complex" if dtype == "complex64" else "amplitude"
    source = make_source(tmp_path / "a.tif", np.ones((20, 20), dtype), representation=form, nodata=nodata)
    plan = plan_warp(source, source.grid.window(row=-5, col=30, height=10, width=10))
    assert same(read(plan), np.full((10, 10), fill, dtype))


# ---------------------------------------------------------------- what is not valid
@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic", "lanczos", "average", "rms"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -99.0])
def test_what_is_not_valid_does_not_bleed(tmp_path, method, bad):
    """Kernels go on with the pixels that are left; a sentinel is never mixed in."""
    pixels = np.full((60, 60), 10.0, np.float32)
    pixels[20:30, 20:30] = bad
    source = make_source(tmp_path / "a.tif", pixels, representation="db", nodata=-99.0)
    plan = plan_warp(
        source, covering([source.georeference], crs="EPSG:32633", pixel_size=14.0), method=method
    )
    values = read(plan)
    assert np.allclose(values[np.isfinite(values)], 10.0, rtol=1e-5)
    rows, cols = locate(source.georeference, plan.grid, *(np.indices(plan.grid.shape) + 0.5))
    deep = (np.abs(rows - 25) < 1) & (np.abs(cols - 25) < 1)
    assert deep.any()
    assert np.isnan(values[deep]).all()


@pytest.mark.parametrize("representation", ["amplitude", "complex"])
def test_zeros_are_nodata_where_they_are_said_to_be(tmp_path, representation):
    pixels = np.full((60, 60), 3, np.complex64 if representation == "complex" else np.uint16)
    pixels[:, :20] = 0
    path = tmp_path / "a.tif"
    source = make_source(path, pixels, representation=representation)
    target = covering([source.georeference], crs="EPSG:32633", pixel_size=20.0)
    dark = read(plan_warp(source, target))
    told = read(plan_warp(replace(source, nodata=0.0), target))
    assert 0 < np.isfinite(told).sum() < np.isfinite(dark).sum()
    assert np.allclose(told[np.isfinite(told)], 9.0)
    assert np.nanmin(dark) == 0


def test_nonpositive_power_stays(tmp_path):
    """Noise removal makes it; it was measured, and belongs in every mean."""
    pixels = np.where(np.indices((40, 40)).sum(axis=0) % 2, 3.0, -1.0).astype(np.float32)
    source = make_source(tmp_path / "a.tif", pixels)
    values = read(plan_warp(source, grid(20, 20, size=20.0)))
    assert np.allclose(values, 1.0)
    nearest = read(plan_warp(source, grid(80, 80, size=5.0), method="nearest"))
    assert set(np.unique(nearest)) == {-1.0, 3.0}


@pytest.mark.parametrize("method", ["cubic", "lanczos"])
def test_overshoot_below_zero_is_raised_and_counted(tmp_path, method):
    pixels = np.full((60, 60), 0.001, np.float32)
    pixels[30, 30] = 1e4
    source = make_source(tmp_path / "a.tif", pixels)
    plan = plan_warp(source, grid(120, 120, size=4.9), method=method)
    assert plan.overshoots
    values, raised = read_warped_counted(plan, row=0, col=0, height=120, width=120)
    assert values.min() == 0
    assert raised == np.count_nonzero(values == 0) == np.count_nonzero(gdal_whole(plan) < 0) > 0
    parts = [read_warped_counted(plan, row=0, col=c, height=120, width=60)[1] for c in (0, 60)]
    assert sum(parts) == raised
    bilinear = plan_warp(source, grid(120, 120, size=4.9), method="bilinear")
    assert not bilinear.overshoots
    assert read(bilinear).min() > 0


# ---------------------------------------------------------------- layers
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
)
def test_a_layer_keeps_its_dtype_and_its_nodata(tmp_path, dtype):
    pixels = np.random.default_rng(0).integers(0, 5, (80, 90)).astype(dtype)
    pixels[:20] = 100
    source = make_source(tmp_path / "m.tif", pixels, representation="layer", nodata=100)
    target = covering([source.georeference], crs="EPSG:32633", pixel_size=30.0)
    plan = plan_warp(source, target, kind="classes")
    values = read(plan)
    assert values.dtype == dtype
    assert set(np.unique(values)) == {0, 1, 2, 3, 4, 100}
    assert (values[0] == 100).all()


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
)
@pytest.mark.parametrize("method", ["mode", "min", "max", "med", "nearest"])
def test_order_statistics_are_numpys(tmp_path, method, dtype):
    """Of 3 x 3 pixels each; the flood masks' -1 among them, which GDAL's mode of int16 passes over."""
    low = 0 if dtype.startswith("u") else -2
    pixels = np.random.default_rng(0).integers(low, low + 4, (60, 90)).astype(dtype)
    source = make_source(tmp_path / "m.tif", pixels, representation="layer", nodata=100)
    kind = "classes" if method == "mode" else "continuous"
    values = read(plan_warp(source, grid(20, 30, size=30.0), kind=kind, method=method))
    nine = pixels.reshape(20, 3, 30, 3).transpose(0, 2, 1, 3).reshape(20, 30, 9)
    if method == "mode":
        votes = (nine[..., None] == np.arange(low, low + 4)).sum(axis=2)
        clear = np.sort(votes, axis=-1)[..., -1] > np.sort(votes, axis=-1)[..., -2]
        assert clear.mean() > 0.5
        assert (values == votes.argmax(axis=-1) + low)[clear].all()
        assert (
            np.take_along_axis(votes, (values.astype(int) - low)[..., None], 2)[..., 0] == votes.max(-1)
        ).all()
        return
    expected = {"min": nine.min(-1), "max": nine.max(-1), "med": np.median(nine, -1), "nearest": nine[..., 4]}
    assert np.array_equal(values, expected[method].astype(dtype))


def test_a_float_layer_marks_nan_as_its_nodata(tmp_path):
    pixels = np.full((40, 40), 2.5, np.float32)
    pixels[:10], pixels[10:20] = np.nan, -32768
    source = make_source(tmp_path / "dem.tif", pixels, representation="layer", nodata=-32768)
    values = read(plan_warp(source, grid(40, 40, size=9.0), kind="continuous"))
    assert set(np.unique(values)) == {2.5, -32768.0}
    bare = make_source(tmp_path / "bare.tif", pixels, representation="layer")
    assert np.isnan(read(plan_warp(bare, grid(40, 40, size=9.0), kind="continuous"))[0]).all()


def test_an_integer_layer_without_nodata_must_cover_the_grid(tmp_path):
    pixels = np.random.default_rng(0).integers(-1, 2, (100, 100)).astype(np.int16)
    source = make_source(tmp_path / "m.tif", pixels, representation="layer")
    inside = grid(30, 30, size=17.0, x=600_200.0, y=4_999_800.0)
    assert set(np.unique(read(plan_warp(source, inside, kind="classes")))) == {-1, 0, 1}
    with pytest.raises(UnsupportedRasterError, match=r"expected a nodata value .* Pass nodata="):
        plan_warp(source, covering([source.georeference], crs="EPSG:32633", pixel_size=10.0), kind="classes")
    with pytest.raises(UnsupportedRasterError, match="expected a nodata value"):
        plan_warp(source, source.grid.window(row=-1, col=0, height=50, width=50), kind="classes")
    assert isinstance(plan_warp(source, source.grid, kind="classes"), Passthrough)


@needs_data
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035"])
def test_a_real_flood_mask_keeps_its_three_classes(crs):
    """-1 is not looked at, 0 dry, 1 flooded: int16, and it must line up with its scene."""
    probe = next(DATA.glob("s1_floods_db_mask/*[Ll]abel*.tif"), None)
    assert probe is not None
    with rasterio.open(probe) as file:
        pixels = file.read(1)
        place = Grid(
            height=file.height,
            width=file.width,
            transform=tuple(file.transform)[:6],
            crs_wkt=file.crs.to_wkt(),
        )
    source = WarpSource(
        path=str(probe),
        band=1,
        representation="layer",
        dtype="int16",
        georeference=Georeference(grid=place),
        nodata=-9,
    )
    size = 30.0 if crs == "EPSG:3035" else 3 * place.pixel_size[0]
    plan = plan_warp(source, covering([source.georeference], crs=crs, pixel_size=size), kind="classes")
    values = read(plan)
    assert values.dtype == np.int16
    inside = values[values != -9]
    assert set(np.unique(inside)) == set(np.unique(pixels))
    for value in np.unique(pixels):
        assert abs((inside == value).mean() - (pixels == value).mean()) < 0.02


# ---------------------------------------------------------------- ground control points
def gcp_source(path):
    probe = probe_file(path)
    array = probe.arrays[0]
    return WarpSource(
        path=str(array.path),
        band=array.band,
        representation=str(array.representation),
        dtype=array.dtype,
        georeference=probe.georeference,
        nodata=0.0,
    )


GCP_SCENES = {
    "grd": "s1_grd_dn_gcp_safe/2018/**/iw-vv.tiff",
    "stripmap": "s1_grd_dn_gcp_safe/2023/**/s1-vh.tiff",
    "slc": "s1_slc_gcp/slc.tif",
}


@pytest.fixture(params=GCP_SCENES)
def gcp_scene(request):
    return gcp_source(next(DATA.glob(GCP_SCENES[request.param])))


@pytest.mark.slow
@needs_data
def test_every_gcp_lands_where_it_should(gcp_scene, tmp_path):
    """A fitted affine is kilometres off; the spline goes through every point."""
    gcps = np.array(gcp_scene.georeference.gcps)
    size = 1000.0 if "slc" in gcp_scene.path else 400.0
    rows_layer, cols_layer = ramps(tmp_path, gcp_scene)
    target = covering([gcp_scene.georeference], crs="EPSG:3857", pixel_size=size)
    xs, ys = transform_points(str(gcp_scene.georeference.gcps_crs), target.crs_wkt, gcps[:, 2], gcps[:, 3])
    at = tuple(np.floor(v).astype(int) for v in target.to_pixels(xs, ys))
    inside = (at[0] > 0) & (at[1] > 0) & (at[0] < target.height - 1) & (at[1] < target.width - 1)
    assert inside.sum() > 150
    for layer, known in ((rows_layer, gcps[:, 0]), (cols_layer, gcps[:, 1])):
        plan = plan_warp(layer, target, kind="continuous", method="nearest")
        assert plan.tolerance == GCP_TOLERANCE
        got = read(plan)[at[0][inside], at[1][inside]]
        valid = np.isfinite(got)
        assert valid.mean() > 0.7  # the others are the frame's own edge
        assert np.abs(got + 0.5 - known[inside])[valid].max() < 0.5 + max(1.0, *(1 / s for s in plan.scale))


@needs_data
def test_an_affine_through_the_gcps_would_be_kilometres_off(gcp_scene):
    gcps = np.array(gcp_scene.georeference.gcps)
    one = np.column_stack([gcps[:, 0], gcps[:, 1], np.ones(len(gcps))])
    fitted = one @ np.linalg.lstsq(one, gcps[:, 2:4], rcond=None)[0]
    metres = np.hypot(*((fitted - gcps[:, 2:4]) * [111_000 * np.cos(np.radians(gcps[0, 3])), 111_000]).T)
    assert metres.max() > 50  # IW GRD 300 m in this frame, 5 km in a whole one


@needs_data
def test_positions_are_those_of_gdals_warper(gcp_scene, tmp_path):
    """Of two splines through the same points, which differ by 0.6 pixels on the SLC, it is the same one."""
    target = covering([gcp_scene.georeference], crs="EPSG:3857", pixel_size=2500.0)
    rows, cols = locate(gcp_scene.georeference, target, *(np.indices(target.shape) + 0.5))
    for layer, expected in zip(ramps(tmp_path, gcp_scene), (rows, cols), strict=True):
        plan = replace(
            plan_warp(layer, target, kind="continuous", method="bilinear", exact=True), scale=(1.0, 1.0)
        )
        height, width = layer.grid.shape
        inside = (rows > 1) & (cols > 1) & (rows < height - 1) & (cols < width - 1)
        assert np.abs(read(plan) + 0.5 - expected)[inside].max() < 1e-5


@needs_data
def test_the_gcp_frame_keeps_its_mean_power_and_says_what_was_done(gcp_scene):
    target = covering([gcp_scene.georeference], crs="EPSG:3857", pixel_size=2000.0)
    plan = plan_warp(gcp_scene, target)
    values = read(plan)
    raw = read_window(
        gcp_scene.path, band=1, row=0, col=0, height=gcp_scene.grid.height, width=gcp_scene.grid.width
    )
    power = np.abs(raw.astype(np.complex128)) ** 2
    assert abs(10 * np.log10(np.nanmean(values) / power[power > 0].mean())) < 0.5
    assert plan.attrs["geolocation"] == "gcp_tps_no_dem"
    assert plan.attrs["resampling"] == "average"
    assert plan.attrs["resampling_looks"] == "unknown"
    assert "thin-plate spline, no terrain" in str(plan)


def synthetic_gcps(longitude, height=90, width=120):
    """Return a 5 x 5 lattice of GCPs of a slightly bent frame that begins at a longitude."""
    rows, cols = np.meshgrid(np.linspace(0, height, 5), np.linspace(0, width, 5), indexing="ij")
    lon = longitude + 1e-3 * cols + 2e-7 * rows * cols
    lat = -17.0 - 1e-3 * rows + 1e-7 * cols**2
    lon = (lon + 180) % 360 - 180
    return tuple(
        (float(r), float(c), float(x), float(y), 0.0)
        for r, c, x, y in zip(rows.flat, cols.flat, lon.flat, lat.flat, strict=True)
    )


def test_gcps_across_the_antimeridian_are_one_frame(tmp_path):
    """The same frame, 1 degree to the west, lies in one piece: so must this one."""
    pixels = speckle((90, 120), power=1.0)
    place = Grid(height=90, width=120)
    common = {"place": place, "gcps_crs": crs_wkt("EPSG:4326")}
    crossing = make_source(tmp_path / "a.tif", pixels, gcps=synthetic_gcps(179.95), **common)
    target = covering([crossing.georeference], crs="EPSG:32660", pixel_size=100.0)
    assert target.width < 150
    values = read(plan_warp(crossing, target, method="nearest"))
    assert np.isfinite(values).mean() > 0.8
    assert np.isin(np.unique(values[np.isfinite(values)]), pixels).all()
    degrees = covering([crossing.georeference], crs="EPSG:4326", pixel_size=1e-3)
    assert degrees.width < 300
    assert degrees.bbox[0] < 180 < degrees.bbox[2]
    for exact in (False, True):
        values = read(plan_warp(crossing, degrees, method="nearest", exact=exact))
        assert np.isfinite(values).mean() > 0.7


def test_the_edge_of_a_gcp_frame_is_windowed_alike(tmp_path):
    pixels = speckle((90, 120), power=1.0)
    source = make_source(
        tmp_path / "a.tif",
        pixels,
        place=Grid(height=90, width=120),
        gcps=synthetic_gcps(10.0),
        gcps_crs=crs_wkt("EPSG:4326"),
    )
    target = covering([source.georeference], crs="EPSG:32632", pixel_size=5.0)
    assert target.width > TILE
    plan = plan_warp(source, target, method="bilinear")
    whole = read(plan)
    for col in range(0, target.width, 777):
        part = read(plan, row=50, col=col, height=target.height - 50, width=min(777, target.width - col))
        assert same(part, whole[50:, col : col + 777])


# ---------------------------------------------------------------- real scenes
@needs_data
@pytest.mark.parametrize("name", ["637U_59R_1_3.tif", "38D_378R_2_3.tif"])
@pytest.mark.parametrize("method", ["nearest", "bilinear", "average"])
def test_a_real_scene_crosses_into_the_next_zone(name, method, tmp_path):
    probe = probe_file(DATA / "s1_rtc_db_float64" / name)
    array = probe.arrays[0]
    source = WarpSource(
        path=str(array.path), band=1, representation="db", dtype=array.dtype, georeference=probe.georeference
    )
    zone = "EPSG:32633" if name.startswith("637U") else "EPSG:32737"
    target = covering([source.georeference], crs=zone, pixel_size=20.0)
    plan = plan_warp(source, target, method=method, exact=True)
    raw = read_window(source.path, band=1, row=0, col=0, height=224, width=224)
    power = 10 ** (raw / 10)
    ours = read(plan)
    as_power = make_source(tmp_path / "power.tif", power.astype(np.float32), place=source.grid)
    expected = gdal_whole(replace(plan, source=as_power))
    assert np.array_equal(np.isnan(ours), np.isnan(expected))
    assert np.nanmax(np.abs(ours / expected - 1)) < 1e-5
    # (the pixels at the frame's turned edge hold less than a whole pixel, and count as one)
    limit = 0.1 if method == "average" else 0.3
    assert abs(10 * np.log10(np.nanmean(ours, dtype=np.float64) / np.nanmean(power))) < limit


# ---------------------------------------------------------------- limits and failures
def test_a_window_beyond_the_grid_is_refused(planned):
    plan = planned("average", "coarser")
    for window in ((-1, 0, 2, 2), (0, 0, plan.grid.height + 1, 2), (0, 0, 0, 2), (0, plan.grid.width, 1, 1)):
        row, col, height, width = window
        with pytest.raises(InvalidInputError, match=r"expected a window inside .* Clip it to the grid"):
            read_warped(plan, row=row, col=col, height=height, width=width)


def test_a_file_that_changed_is_read_anew(tmp_path):
    path = tmp_path / "a.tif"
    source = make_source(path, np.ones((50, 50), np.float32))
    plan = plan_warp(source, grid(20, 20, size=20.0))
    assert read(plan, height=5, width=5).max() == 1
    make_source(tmp_path / "b.tif", np.full((50, 50), 4, np.float32))
    (tmp_path / "b.tif").replace(path)
    assert read(plan, height=5, width=5).min() == 4
    path.unlink()
    with pytest.raises(RasterNotFoundError):
        read(plan, height=5, width=5)


def test_nothing_but_a_tiff_is_opened(tmp_path):
    """A virtual raster under another name could read any file of this machine."""
    source = make_source(tmp_path / "real.tif", np.ones((50, 50), np.float32))
    evil = tmp_path / "evil.tif"
    with rasterio.open(source.path) as file:
        copy(file, evil, driver="VRT")
    assert evil.read_bytes().startswith(b"<VRT")
    plan = plan_warp(replace(source, path=str(evil)), grid(20, 20, size=20.0))
    with pytest.raises(UnsupportedRasterError, match="expected a TIFF file"):
        read(plan)


def test_text_of_a_file_cannot_enter_a_document(tmp_path):
    """A CRS's name is the file's own words."""
    hostile = UTM32.replace("WGS 84 / UTM zone 32N", 'x</SRS><Y>&"" & <b>')
    source = make_source(tmp_path / "a.tif", speckle((60, 60), power=1.0))
    place = Georeference(grid=replace(source.grid, crs_wkt=hostile))
    named = replace(source, georeference=place)
    plan = plan_warp(
        named, covering([source.georeference], crs="EPSG:32633", pixel_size=10.0), method="bilinear"
    )
    plain = plan_warp(source, plan.grid, method="bilinear")
    assert same(read(plan), read(plain))


@pytest.mark.parametrize("size", [50.0, 2000.0])
def test_tiles_with_too_many_source_pixels_are_cut(tmp_path, size):
    """A few target pixels hold the whole source: it is read in parts, with nothing lost between them."""
    pixels = np.random.default_rng(0).integers(1, 250, (2000, 2200)).astype(np.float64)
    source = make_source(tmp_path / "big.tif", pixels, representation="layer", nodata=0)
    target = grid(20_000 // int(size), 22_000 // int(size), size=size)
    n = int(size // 10)
    blocks = pixels.reshape(target.height, n, target.width, n)
    for kind, expected in (("continuous", blocks.mean(axis=(1, 3))), ("counts", blocks.sum(axis=(1, 3)))):
        plan = plan_warp(source, target, kind=kind)
        assert pixels.size > plan.source_pixels
        assert np.allclose(read(plan), expected, rtol=1e-12)


PEAK = """
import sys
import numpy as np
from sarzarr.grids.crs import crs_wkt
from sarzarr.grids.georeference import Georeference, covering
from sarzarr.grids.grid import Grid
from sarzarr.grids.warp.plan import WarpSource, plan_warp
from sarzarr.grids.warp.read import read_warped
n, size = int(sys.argv[2]), float(sys.argv[3])
place = Grid(height=n, width=n, transform=(10., 0., 6e5, 0., -10., 5e6), crs_wkt=crs_wkt("EPSG:32632"))
place = Georeference(grid=place)
source = WarpSource(path=sys.argv[1], band=1, representation="amplitude", dtype="uint16", georeference=place)
grid = covering([source.georeference], crs="EPSG:32633", pixel_size=size)
plan = plan_warp(source, grid, method="average" if size > 10 else "bilinear")
row = col = 0
for k in range(int(sys.argv[4])):
    height, width = min(2048, grid.height - row), min(2048, grid.width - col)
    read_warped(plan, row=row, col=col, height=height, width=width)
    col += 2048
    if col >= grid.width:
        row, col = row + 2048, 0
    if row >= grid.height:
        break
# From the status: ru_maxrss of a process begins where that of its parent was.
print(*(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("size", "blocks"), [(2.5, 6), (10.0, 9), (40.0, 99), (640.0, 99)])
def test_memory_does_not_grow_with_the_raster(tmp_path, size, blocks):
    """Up- and downsampling of a raster of 20,000 x 20,000 pixels, in a process of its own."""
    path = tmp_path / "sparse.tif"
    options = {"crs": UTM32, "transform": rasterio.Affine(10, 0, 6e5, 0, -10, 5e6)}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "SPARSE_OK": True}
    with rasterio.open(
        path, "w", driver="GTiff", height=20_000, width=20_000, count=1, dtype="uint16", **options, **layout
    ) as file:
        file.write(np.ones((512, 20_000), np.uint16), 1, window=((0, 512), (0, 20_000)))
    command = [sys.executable, "-c", PEAK, str(path), "20000", str(size), str(blocks)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000
