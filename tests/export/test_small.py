"""A scene in few pixels is its mean power, whatever it is read from, and is read from few bytes where levels are."""

import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import dask
import numpy as np
import pytest
from conftest import speckle, write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_place import MemoryPlace

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError, NotInStoreError
from sarzarr.export.pictures.small import small_db

KNOWN = {"quantity": "sigma0", "representation": "power"}


class CountingPlace(MemoryPlace):
    """A place that counts the bytes of pixels that it is asked for."""

    def get_ranges(self, key, ranges):
        data = super().get_ranges(key, ranges)
        self.asked["bytes"] += sum(map(len, data))
        return data


def ingest(folder, values, **options):
    file = write_band(Path(folder, "a_vv.tif"), values, tiles=256, **options)
    return sz.ingest(sz.plan_ingest(file, Path(folder, "s.zarr"), **KNOWN))


@settings(max_examples=8)
@given(
    shape=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    pixels=st.integers(1, 700),
    seed=st.integers(0, 2**16),
)
def test_each_pixel_is_the_mean_power_of_what_is_valid_in_it(shape, pixels, seed):
    power = speckle(shape, seed=seed)
    power[: shape[0] // 3, : shape[1] // 2] = np.nan
    with TemporaryDirectory() as folder:
        store = ingest(folder, power)
        got, base = small_db(store, "a", "vv", pixels=pixels), store.power("a", "vv").values
    step = -(-max(shape) // pixels)
    tops, lefts = (range(0, n, step) for n in shape)
    assert got.dtype == np.float32
    assert got.shape == (len(tops), len(lefts))
    assert max(got.shape) <= pixels
    rows, cols = got.shape
    padded = np.full((rows * step, cols * step), np.nan)
    padded[: shape[0], : shape[1]] = base
    blocks = padded.reshape(rows, step, cols, step)
    with np.errstate(invalid="ignore"):
        mean = np.nansum(blocks, axis=(1, 3)) / np.isfinite(blocks).sum(axis=(1, 3))
    np.testing.assert_allclose(got.values, 10 * np.log10(mean), atol=1e-3, rtol=0)
    np.testing.assert_allclose(got["x"], 500_000 + 10 * step * (np.arange(len(lefts)) + 0.5))
    np.testing.assert_allclose(got["y"], 5_400_000 - 10 * step * (np.arange(len(tops)) + 0.5))


def test_levels_give_the_same_picture_of_a_hundredth_of_the_bytes(tmp_path):
    store = ingest(tmp_path, speckle((2048, 4096)))
    place = CountingPlace.of(store.root)
    whole = small_db(sz.open_store(place), "a", "vv", pixels=256)
    once = place.asked["bytes"]
    size = 2048 * 4096 * 2
    assert size <= once < 1.01 * size  # every chunk, once
    sz.make_overviews(store)
    place = CountingPlace.of(store.root)
    fewer = small_db(sz.open_store(place), "a", "vv", pixels=256)
    assert place.asked["bytes"] < once / 50
    np.testing.assert_allclose(fewer.values, whole.values, atol=0.003, rtol=0)  # a code
    np.testing.assert_array_equal(fewer["x"], whole["x"])
    assert fewer.attrs == whole.attrs == {**store.db("a", "vv").attrs}
    assert fewer.rio.transform() == whole.rio.transform()


def test_memory_holds_bands_of_a_scene_never_all_of_it(tmp_path):
    store = ingest(tmp_path, np.full((8192, 2048), 0.1, np.float32))
    tracemalloc.start()
    with dask.config.set(scheduler="synchronous"):
        small_db(store, "a", "vv", pixels=500)
    assert tracemalloc.get_traced_memory()[1] < 8192 * 2048
    tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_without_a_place_pixels_are_counted_in_those_of_the_scene(tmp_path):
    store = ingest(tmp_path, speckle((1100, 900)), crs=None, transform=None)
    for made in (store, sz.make_overviews(store)):
        small = small_db(made, "a", "vv", pixels=275)
        np.testing.assert_array_equal(small["y"], 4 * (np.arange(275) + 0.5))


def test_what_is_damaged_or_not_there_is_said(tmp_path):
    store = ingest(tmp_path, speckle((600, 600)))
    with pytest.raises(NotInStoreError, match="array of 'a' must be one of vv, got 'vh'"):
        small_db(store, "a", "vh", pixels=50)
    shard = store.root / cv.SCENES / "a/vv/c/0/0"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CorruptStoreError, match="scenes/a/vv/c/0/0"):
        small_db(store, "a", "vv", pixels=50)
