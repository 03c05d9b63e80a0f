"""Compressed chunks are decoded once while they are kept, in bounded memory, and never in place of a check."""

import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest
from conftest import speckle, write_band
from hypothesis import given
from hypothesis import strategies as st

import sarzarr as sz
from sarzarr.errors import CorruptStoreError, InvalidInputError
from sarzarr.pixels.compiled.when import SWITCH, loops
from sarzarr.reader.cache import VALUES, ChunkCache
from sarzarr.store.codecs import Codec

CHUNKS, CODES, BYTE = 16, 2 * 256 * 256, 256 * 256
WINDOWS = {"patch_size": 256, "stride": 128, "min_valid": 0, "min_unsaturated": 0, "batch_size": 7}
WHOLE = WINDOWS | {"stride": 256}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of one scene of 4 x 4 chunks of compressed codes, whose flags are all one value."""
    folder = tmp_path_factory.mktemp("packed")
    write_band(folder / "a_vv.tif", speckle((1024, 1024), seed=1), tiles=256)
    given = {"quantity": "sigma0", "representation": "power", "codec": "blosc-lz4", "shard": 1024}
    store = sz.ingest(sz.plan_ingest(folder / "a_vv.tif", folder / "s.zarr", **given))
    sz.PatchReader(store, **WINDOWS)  # whose cut is kept in the store
    return store


@pytest.fixture(params=["1", "0"], ids=["loops", "NumPy"])
def store(made, monkeypatch, request):
    monkeypatch.setenv(SWITCH, request.param)
    loops.cache_clear()
    yield sz.open_store(made.root)
    loops.cache_clear()


@pytest.fixture
def decoded(monkeypatch):
    """The bytes of each chunk that is decoded, by dtype size, in a list."""
    found, decode = [], Codec.decode_into

    def counting(self, stored, out):
        found.append(out.nbytes)
        decode(self, stored, out)

    monkeypatch.setattr(Codec, "decode_into", counting)
    return found


def epoch(reader, decoded):
    """Return the images of an epoch, and how many chunks of codes were decoded for it, and of flags."""
    decoded.clear()
    batches = [batch[0].copy() if isinstance(batch, tuple) else batch.copy() for batch in reader]
    return np.concatenate(batches), (decoded.count(CODES), decoded.count(BYTE))


def test_a_chunk_is_decoded_once_for_all_windows_of_all_epochs(store, decoded):
    kept, none, always = (
        sz.PatchReader(store, threads=1, **WINDOWS | more) for more in ({}, {"cache": 0}, {"check": "always"})
    )
    images, counts = epoch(kept, decoded)
    assert counts == (CHUNKS, 0)
    again, counts = epoch(kept, decoded)
    assert counts == (0, 0)
    for other in (none, always):
        anew, (codes, _) = epoch(other, decoded)
        np.testing.assert_array_equal(anew, images)
        assert codes > CHUNKS
    np.testing.assert_array_equal(again, images)


def test_whole_chunks_are_kept_where_that_is_asked(store, decoded):
    by_default, asked = (sz.PatchReader(store, threads=1, **WHOLE | c) for c in ({}, {"cache": "4MB"}))
    for counts in ((CHUNKS, 0), (CHUNKS, 0)):
        assert epoch(by_default, decoded)[1] == counts
    for counts in ((CHUNKS, 0), (0, 0)):
        assert epoch(asked, decoded)[1] == counts


@pytest.mark.parametrize("options", [WINDOWS, WHOLE], ids=["windows", "whole chunks"])
def test_flags_of_one_value_are_decoded_once_whatever_is_kept(store, decoded, options):
    reader = sz.PatchReader(store, threads=1, flags=True, **options)
    assert epoch(reader, decoded)[1][1] == CHUNKS
    assert epoch(reader, decoded)[1][1] == 0


@pytest.mark.parametrize("chunks", [5, 9, 12])
def test_what_is_kept_is_bounded_and_batches_are_the_same(store, decoded, chunks):
    options = WINDOWS | {"shuffle": True, "seed": 3, "batch_size": 2, "augment": "d4"}
    few = sz.PatchReader(store, threads=3, cache=chunks * CODES, **options)
    none = sz.PatchReader(store, threads=1, cache=0, **options)
    for _ in range(2):
        images, (codes, _) = epoch(few, decoded)
        expected, (most, _) = epoch(none, decoded)
        np.testing.assert_array_equal(images, expected)
        assert codes <= most
    caches = few._work._caches.values()
    assert [c.cells.nbytes for c in caches] in ([], [(chunks + VALUES) * CODES])


def test_what_is_kept_is_not_pickled(store, decoded):
    reader = sz.PatchReader(store, threads=1, **WINDOWS)
    epoch(reader, decoded)
    other = pickle.dumps(reader)
    assert len(other) < CHUNKS * CODES / 8
    anew, counts = epoch(pickle.loads(other), decoded)
    assert counts == (CHUNKS, 0)
    np.testing.assert_array_equal(anew, epoch(reader, decoded)[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_who_was_forked_keeps_its_own(store):
    reader = sz.PatchReader(store, threads=1, **WINDOWS)
    images = np.concatenate([batch.copy() for batch in reader])
    ((kept, _),) = [(cache, cache._lock.acquire()) for cache in reader._work._caches.values()]
    with multiprocessing.get_context("fork").Pool(1, initializer=_take, initargs=(reader,)) as pool:
        found = pool.apply_async(_epoch).get(
            timeout=60
        )  # though a thread of the other process holds the lock
    kept._lock.release()
    np.testing.assert_array_equal(found, images)


def _take(reader):
    globals()["READER"] = reader


def _epoch():
    return np.concatenate([batch.copy() for batch in globals()["READER"]])


def test_damage_is_found_before_its_first_pixel_and_in_a_file_that_is_another(store, tmp_path):
    store = sz.open_store(shutil.copytree(store.root, tmp_path / "s.zarr"))
    reader = sz.PatchReader(store, threads=1, **WINDOWS)
    list(reader)
    (file,) = (store.root / "scenes").glob("*/vv/c/0/0")
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        byte = opened.read(1)
        opened.seek(-1, 1)
        opened.write(bytes([byte[0] ^ 16]))
    for one in (sz.PatchReader(store, **WINDOWS), reader):
        with pytest.raises(CorruptStoreError, match="CRC-32C"):
            list(one)


def test_how_much_is_kept_is_said_in_bytes(store):
    assert sz.PatchReader(store, cache="2MB").options.cache == 2_000_000
    assert sz.PatchReader(store, cache=0, check="always").options.cache == 0
    for wrong in (-1, 1.5, "much"):
        with pytest.raises(InvalidInputError, match=r"512MB|1GB"):
            sz.PatchReader(store, cache=wrong)
    with pytest.raises(InvalidInputError, match="check='always'"):
        sz.PatchReader(store, cache="2MB", check="always")


steps = st.lists(
    st.tuples(st.integers(0, 2), st.sets(st.integers(0, 19), min_size=1, max_size=4)), max_size=40
)


@given(steps, st.integers(1, 10))
def test_rows_are_of_one_user_at_a_time_and_hold_what_was_decoded(steps, rows):
    """Three users take and give back in turns; chunks 0 to 9 have one value, of five."""
    cache, users = ChunkCache(20, 64, rows), {}
    truth = np.arange(20, dtype=np.uint8)[:, None] + np.arange(64, dtype=np.uint8)
    truth[:10] = np.arange(10, dtype=np.uint8)[:, None] % 5
    for user, wanted in steps:
        if user in users:
            chunks, at, taken = users.pop(user)
            np.testing.assert_array_equal(cache.cells[at], truth[chunks])
            cache.give_back(taken)
            continue
        chunks = np.array(sorted(wanted))
        if (found := cache.take(chunks)) is None:
            assert users or len(chunks) > rows
            continue
        taken, missing = found
        at = taken.copy()
        others = [row for _, _, theirs in users.values() for row in theirs]
        assert not set(taken[missing].tolist()) & set(others)
        cache.cells[taken[missing]] = truth[chunks[missing]]
        at[missing] = cache.put(chunks[missing].tolist(), taken[missing].tolist(), "uint8")
        users[user] = chunks, at, taken
        for held, where, _ in users.values():
            np.testing.assert_array_equal(cache.cells[where], truth[held])
    for _, _, taken in users.values():
        cache.give_back(taken)
    assert not cache._users.any()
