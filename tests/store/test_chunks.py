"""The direct engine against zarr-python, byte for byte; and what it says of damage."""

import json
import os
import pickle
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec
from zarr.registry import get_codec_class

from sarzarr.errors import CorruptStoreError, InvalidInputError, MissingFileError, StoreChangedError
from sarzarr.pixels.compiled.when import SWITCH, loops
from sarzarr.pixels.stretch import Stretch
from sarzarr.pixels.turns import apply
from sarzarr.reader.engine import BatchFiller
from sarzarr.reader.fetch import ChunkFetcher
from sarzarr.reader.sources import Address, Source
from sarzarr.store.chunks import ArrayLayout, described_layout, read_chunk_table, read_layout
from sarzarr.store.codecs import CODECS, get_codec
from sarzarr.store.manifest import ShardRecord, write_manifest
from sarzarr.store.place import Folder
from sarzarr.store.shards import ShardWriter, record_of

CHUNK = 32


@pytest.fixture(autouse=True)
def _numpy_alone(monkeypatch):
    """Reads are counted where NumPy does the work, whatever tests before have loaded."""
    monkeypatch.setenv(SWITCH, "0")
    loops.cache_clear()
    yield
    loops.cache_clear()


def foreign(root):
    """Return a folder whose arrays are of another program."""
    return Folder(root, is_sealed=False)


def pixels(shape, dtype, seed=0):
    """Return values that do not compress, with a hole of zeros."""
    random = np.random.default_rng(seed)
    values = random.integers(1, 200, shape) if dtype == "uint8" else random.uniform(0.01, 1, shape)
    values = (values * 60000).astype(dtype) if dtype == "uint16" else values.astype(dtype)
    values[..., CHUNK : 3 * CHUNK, : 2 * CHUNK] = 0
    return values


def write(
    root, name, values, *, codec="none", shard=4 * CHUNK, chunk=CHUNK, compressors=None, fill=0, **options
):
    """Write an array with zarr-python: the independent half of these tests."""
    chunks = (1,) * (values.ndim - 2) + (chunk, chunk)
    shards = None if shard is None else (3,) * (values.ndim - 2) + (shard, shard)
    theirs = (get_codec_class(d["name"]).from_dict(d) for d in CODECS[codec].compressors(values.dtype))
    closed = () if CODECS[codec].checks_itself else (Crc32cCodec(),)
    made = zarr.create_array(
        root / name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks,
        shards=shards,
        compressors=(*theirs, *closed) if compressors is None else compressors,
        fill_value=fill,
        **options,
    )
    made[...] = values
    return read_layout(foreign(root), name)


def source(root, *layouts, size=CHUNK, stretch=None):
    table = read_chunk_table(foreign(root), layouts)
    return Source(table=table, stretches=(stretch,) * len(layouts), shape=(size, size))


def take(what, rows, cols, *, arrays=0, operations=None, planes=None, dtype=None):
    """Return patches through the engine."""
    rows, cols = np.atleast_1d(rows), np.atleast_1d(cols)
    address = Address(
        array=np.broadcast_to(arrays, rows.shape).astype(np.int64),
        row=rows.astype(np.int64),
        col=cols.astype(np.int64),
        plane=None if planes is None else np.asarray(planes, np.int64),
    )
    stored = what.table.layouts[0].dtype if dtype is None else dtype
    out = np.full((rows.size, *what.shape), 7, stored)
    with closing(ChunkFetcher(what)) as reader:
        BatchFiller(reader).fill(lambda: address, out, operations)
    return out


def window(values, row, col, size):
    """Return a window, zero beyond the edge."""
    out = np.zeros((size, size), values.dtype)
    inside = values[row : row + size, col : col + size]
    out[: inside.shape[0], : inside.shape[1]] = inside
    return out


@pytest.mark.compat
@pytest.mark.parametrize("shard", [None, 2 * CHUNK])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
def test_every_chunk_is_what_zarr_python_reads(tmp_path, dtype, codec, shard):
    values = pixels((3 * CHUNK + 9, 4 * CHUNK + 1), dtype)
    layout = write(tmp_path, "a", values, codec=codec, shard=shard)
    assert layout.codec == codec
    assert layout.shard == (None if shard is None else (shard, shard))
    rows, cols = (c.ravel() for c in np.mgrid[0 : values.shape[0] : CHUNK, 0 : values.shape[1] : CHUNK])
    oracle = zarr.open_array(tmp_path / "a", mode="r")[...]
    found = take(source(tmp_path, layout), rows, cols)
    for patch, row, col in zip(found, rows, cols, strict=True):
        assert patch.tobytes() == window(oracle, row, col, CHUNK).tobytes()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_windows_of_any_arrays_are_what_zarr_python_reads(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("w")
    layouts, oracles = [], []
    for i in range(data.draw(st.integers(1, 3))):
        shape = tuple(data.draw(st.integers(1, 100)) for _ in range(2))
        chunk, shard = data.draw(st.sampled_from([(16, None), (16, 64), (24, 24), (64, 128)]))
        codec = data.draw(st.sampled_from(list(CODECS)))
        oracles.append(pixels(shape, "uint16", seed=i))
        layouts.append(write(root, f"a{i}", oracles[-1], codec=codec, shard=shard, chunk=chunk))
    size = data.draw(st.sampled_from([1, 16, 24, 40, 64, 130]))
    count = data.draw(st.integers(1, 20))
    arrays = np.array(data.draw(st.lists(st.integers(0, len(layouts) - 1), min_size=count, max_size=count)))
    places = st.floats(0, 0.999)
    rows, cols = (
        np.array([int(data.draw(places) * oracles[a].shape[axis]) for a in arrays]) for axis in (0, 1)
    )
    operations = data.draw(
        st.none() | st.lists(st.integers(0, 7), min_size=count, max_size=count).map(np.array)
    )
    found = take(source(root, *layouts, size=size), rows, cols, arrays=arrays, operations=operations)
    for i, patch in enumerate(found):
        expected = window(oracles[arrays[i]], rows[i], cols[i], size)
        np.testing.assert_array_equal(patch, apply(0 if operations is None else operations[i], expected))


@pytest.mark.parametrize("shard", [None, 2 * CHUNK])
@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize(
    ("dtype", "fill"),
    [("uint8", 255), ("uint16", 3), ("float32", np.nan), ("float16", np.nan), ("float32", -1)],
)
def test_what_is_left_out_and_what_lies_beyond_the_edge_is_the_fill_value(
    tmp_path, dtype, fill, codec, shard
):
    values = pixels((3 * CHUNK + 9, 4 * CHUNK + 1), dtype)
    values[CHUNK : 3 * CHUNK, : 2 * CHUNK] = fill
    layout = write(tmp_path, "a", values, codec=codec, shard=shard, fill=fill)
    what = source(tmp_path, layout, size=CHUNK)
    assert (what.table.entries["size"] == 0).sum() == 4
    assert np.array_equal(layout.fill, fill, equal_nan=True)
    rows, cols = np.array([0, 32, 64, 96, 20, 90]), np.array([0, 32, 0, 128, 40, 120])
    for patch, row, col in zip(take(what, rows, cols), rows, cols, strict=True):
        truth = np.full((CHUNK, CHUNK), fill, dtype)
        inside = values[row : row + CHUNK, col : col + CHUNK]
        truth[: inside.shape[0], : inside.shape[1]] = inside
        np.testing.assert_array_equal(patch, truth)


def test_arrays_of_different_dtypes_and_clips_share_a_batch(tmp_path):
    values = {d: pixels((2 * CHUNK, 2 * CHUNK), d) for d in ("uint16", "float32", "float16")}
    layouts = [write(tmp_path, d, v, codec="blosc-lz4") for d, v in values.items()]
    clips = [(-25.0, 5.0), (-20.0, 0.0), (-60.0, 100.0)]
    laws = [Stretch.between(d, (-60.0, 100.0), clip) for d, clip in zip(values, clips, strict=True)]
    what = Source(
        table=read_chunk_table(foreign(tmp_path), layouts), stretches=tuple(laws), shape=(CHUNK, CHUNK)
    )
    arrays = np.array([0, 1, 2, 2, 1, 0])
    found = take(what, [0] * 6, [0, 0, 0, 32, 32, 32], arrays=arrays, dtype="float32")
    for i, (array, col) in enumerate(zip(arrays, [0, 0, 0, 32, 32, 32], strict=True)):
        z = list(values.values())[array][:32, col : col + 32].astype(np.float64)
        z = np.where(z == 0, np.nan, (z - 1) / 65534) if array == 0 else z
        low, high = clips[array]
        truth = np.nan_to_num(np.clip((z * 160 - 60 - low) / (high - low), 0, 1))
        np.testing.assert_allclose(found[i], truth, atol=2e-6)


@pytest.mark.parametrize("shard", [None, CHUNK])
def test_packed_pictures_are_read_by_the_same_engine(tmp_path, shard):
    values = pixels((7, CHUNK, CHUNK), "uint16")
    layout = write(tmp_path, "samples", values, codec="zstd", shard=shard)
    order = np.array([3, 0, 6, 6, 2])
    found = take(source(tmp_path, layout), np.zeros(5), np.zeros(5), planes=order)
    np.testing.assert_array_equal(found, values[order])
    larger = pixels((4, 2 * CHUNK, 3 * CHUNK), "uint16")
    layout = write(tmp_path, "larger", larger, shard=shard and 2 * CHUNK)
    found = take(source(tmp_path, layout, size=40), [5, 24], [50, 0], planes=[3, 1])
    np.testing.assert_array_equal(found[0], larger[3, 5:45, 50:90])
    np.testing.assert_array_equal(found[1], larger[1, 24:64, :40])


def test_a_shard_of_ours_and_a_shard_of_zarrs_are_read_alike(tmp_path):
    values = pixels((128, 128), "uint16")
    layout = write(tmp_path, "theirs", values, codec="blosc-lz4", shard=128)
    (tmp_path / "ours" / "c" / "0").mkdir(parents=True)
    (tmp_path / "ours" / "zarr.json").write_bytes((tmp_path / "theirs" / "zarr.json").read_bytes())
    with ShardWriter(tmp_path / "ours" / "c" / "0" / "0", (4, 4), get_codec("blosc-lz4")) as writer:
        for i, j in np.ndindex(4, 4):
            at = slice(32 * i, 32 * i + 32), slice(32 * j, 32 * j + 32)
            writer.append(i, j, np.ascontiguousarray(values[at]))
        writer.close()
    ours = read_layout(foreign(tmp_path), "ours")
    rows, cols = (c.ravel() for c in np.mgrid[0:128:32, 0:128:32])
    np.testing.assert_array_equal(
        take(source(tmp_path, ours), rows, cols), take(source(tmp_path, layout), rows, cols)
    )


# ------------------------------------------------------------------ what only zarr-python knows
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"compressors": (GzipCodec(),)}, "a codec"),
        ({"compressors": ()}, "no checksum"),
        ({"compressors": (Crc32cCodec(), ZstdCodec())}, "another order"),
        ({"filters": (TransposeCodec(order=(1, 0)),)}, "a transposition"),
        ({"chunk_key_encoding": {"name": "v2", "separator": "."}}, "other file names"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_the_engine_does_not_know_goes_through_zarr_python(tmp_path, options, why, caplog):
    values = pixels((2 * CHUNK + 3, CHUNK + 5), "uint16")
    layout = write(tmp_path, "a", values, **options)
    assert layout.codec is None, why
    what = source(tmp_path, layout)
    with caplog.at_level("WARNING", "sarzarr"):
        found = take(what, [0, 32, 64, 0], [0, 0, 32, 32])
        take(what, [0], [0])
    for patch, row, col in zip(found, [0, 32, 64, 0], [0, 0, 32, 32], strict=True):
        np.testing.assert_array_equal(patch, window(values, row, col, CHUNK))


def test_reading_through_zarr_python_is_said_once(tmp_path, caplog):
    layouts = [write(tmp_path, n, pixels((40, 40), "uint16"), compressors=(GzipCodec(),)) for n in "ab"]
    with caplog.at_level("WARNING", "sarzarr"):
        read_chunk_table(foreign(tmp_path), layouts)
    (record,) = caplog.records
    assert "zarr-python" in record.getMessage()
    assert "'a' and 1 more" in record.getMessage()


def test_a_document_of_another_kind_is_not_guessed_at(tmp_path):
    write(tmp_path, "a", pixels((40, 40), "uint16"))
    document = json.loads((tmp_path / "a" / "zarr.json").read_text())
    assert described_layout("a", document).codec == "none"
    for change in (
        {"data_type": "complex64"},
        {"fill_value": None},
        {"fill_value": [0, 0]},
        {"storage_transformers": [{"name": "x"}]},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}},
    ):
        assert described_layout("a", document | change).codec is None
    sharding = document["codecs"][0]["configuration"]
    for change in (
        {"index_location": "start"},
        {"index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "crc32c"}]},
    ):
        codecs = [{"name": "sharding_indexed", "configuration": sharding | change}]
        assert described_layout("a", document | {"codecs": codecs}).codec is None
    with pytest.raises(InvalidInputError, match="two or three dimensions"):
        ArrayLayout(path="a", shape=(4,), dtype="uint16", chunk=(4,))


# ------------------------------------------------------------------ the table
def test_a_table_is_twenty_bytes_a_chunk_and_pickles(tmp_path):
    layout = write(tmp_path, "scenes/s/vv", pixels((4 * 128, 4 * 128), "uint16"))
    what = source(tmp_path, layout)
    assert what.table.entries.nbytes == 20 * 256
    assert len(pickle.dumps(what)) < 20 * 256 + 4000
    again = pickle.loads(pickle.dumps(what))
    np.testing.assert_array_equal(take(again, [64], [96]), take(what, [64], [96]))


def test_chunks_that_are_all_fill_value_have_no_bytes(tmp_path):
    values = pixels((4 * CHUNK, 4 * CHUNK), "uint16")
    table = read_chunk_table(foreign(tmp_path), [write(tmp_path, "a", values)])
    sizes = table.entries["size"].reshape(4, 4)
    np.testing.assert_array_equal(sizes[1:3, :2], 0)
    assert (sizes > 0).sum() == 12


def open_handles():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc to count handles in")
def test_handles_are_bounded_and_closed(tmp_path):
    values = pixels((10 * CHUNK, 10 * CHUNK), "uint16")
    layout = write(tmp_path, "a", values, shard=None)
    rows, cols = (c.ravel() for c in np.mgrid[0 : 10 * CHUNK : CHUNK, 0 : 10 * CHUNK : CHUNK])
    address = Address(array=np.zeros(100, np.int64), row=rows, col=cols)
    out = np.empty((100, CHUNK, CHUNK), np.uint16)
    before = open_handles()
    reader = ChunkFetcher(source(tmp_path, layout), handles=5)
    BatchFiller(reader).fill(lambda: address, out)
    assert open_handles() == before + 5
    reader.close()
    assert open_handles() == before


def test_neighbours_are_read_in_one_call(tmp_path, monkeypatch):
    values = pixels((4 * CHUNK, 4 * CHUNK), "uint16")
    values[values == 0] = 1
    layout = write(tmp_path, "a", values)
    what, calls = source(tmp_path, layout), []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: calls.append(len(views)) or preadv(fd, views, at))
    entries = what.table.entries
    ordered = np.argsort(entries["offset"])[:8]  # written one behind another
    rows, cols = ordered // 4 * CHUNK, ordered % 4 * CHUNK
    shuffled = np.array([3, 0, 7, 5, 1, 2, 6, 4])
    take(what, rows[shuffled], cols[shuffled])
    assert calls == [8]


def test_neighbours_anywhere_in_a_batch_are_brought_together(tmp_path, monkeypatch):
    values = pixels((8 * CHUNK, 8 * CHUNK), "uint16")
    values[values == 0] = 1
    what, calls = source(tmp_path, write(tmp_path, "a", values, shard=8 * CHUNK)), []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: calls.append(len(views)) or preadv(fd, views, at))
    shuffled = np.random.default_rng(0).permutation(64)
    rows, cols = shuffled // 8 * CHUNK, shuffled % 8 * CHUNK
    for patch, row, col in zip(take(what, rows, cols), rows, cols, strict=True):
        np.testing.assert_array_equal(patch, window(values, row, col, CHUNK))
    assert calls == [8] * 8


def test_without_preadv_the_same_is_read(tmp_path, monkeypatch):
    values = pixels((4 * CHUNK, 4 * CHUNK), "uint16")
    what = source(tmp_path, write(tmp_path, "a", values))
    monkeypatch.delattr(os, "preadv")
    rows, cols = (c.ravel() for c in np.mgrid[0:4, 0:4] * CHUNK)
    for patch, row, col in zip(take(what, rows, cols), rows, cols, strict=True):
        np.testing.assert_array_equal(patch, window(values, row, col, CHUNK))


def test_a_chunk_is_decoded_once_a_batch(tmp_path, monkeypatch):
    layout = write(tmp_path, "a", pixels((4 * CHUNK, 4 * CHUNK), "uint16"), codec="zstd")
    what, loaded = source(tmp_path, layout, size=CHUNK), []
    groups = ChunkFetcher.groups
    monkeypatch.setattr(
        ChunkFetcher, "groups", lambda s, kind, chunks: loaded.extend(chunks) or groups(s, kind, chunks)
    )
    rows, cols = (c.ravel() for c in np.mgrid[0 : 3 * CHUNK : 8, 0 : 3 * CHUNK : 8])
    take(what, rows, cols)
    assert sorted(loaded) == list(range(16))


# ------------------------------------------------------------------ damage
def damaged(tmp_path, codec, shard=2 * CHUNK):
    values = pixels((4 * CHUNK, 4 * CHUNK), "uint16")
    values[values == 0] = 1
    layout = write(tmp_path, "scenes/s1/vv", values, codec=codec, shard=shard)
    return values, layout


def flip(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x10
    path.write_bytes(raw)


@pytest.mark.parametrize("group", [1, 8])
@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_bit_is_named_and_never_delivered(tmp_path, codec, group):
    values, layout = damaged(tmp_path, codec)
    what = source(tmp_path, layout)
    victim = 4 * 2 + 3  # chunk row 2, column 3
    entry = what.table.entries[victim]
    file = tmp_path / "scenes/s1/vv/c/1/1"
    assert str(tmp_path / what.table.at(int(entry["file"]))[1]) == str(file)
    flip(file, int(entry["offset"]) + int(entry["size"]) // 2)
    rows, cols = (c.ravel()[-group:] for c in np.mgrid[0:3, 0:4] * CHUNK)
    with pytest.raises(CorruptStoreError) as caught:
        take(what, rows, cols)
    for part in (
        "scene 's1'",
        "array 'vv'",
        f"row {2 * CHUNK}",
        f"col {3 * CHUNK}",
        str(file),
        "sarzarr remove",
    ):
        assert part in str(caught.value)
    np.testing.assert_array_equal(take(what, [0], [32])[0], values[:32, 32:64])


@pytest.mark.parametrize("codec", CODECS)
def test_a_checksum_that_is_wrong_itself_is_seen(tmp_path, codec):
    _, layout = damaged(tmp_path, codec)
    what = source(tmp_path, layout)
    entry = what.table.entries[0]
    flip(tmp_path / "scenes/s1/vv/c/0/0", int(entry["offset"]) + int(entry["size"]) - 1)
    with pytest.raises(CorruptStoreError, match="row 0, col 0"):
        take(what, [0], [0])


def test_every_single_flip_among_cells_of_a_group_is_seen(tmp_path):
    """The one checksum over a group of cells must see what a checksum of each would."""
    _, layout = damaged(tmp_path, "none")
    what = source(tmp_path, layout)
    file = tmp_path / "scenes/s1/vv/c/0/0"
    good = file.read_bytes()
    for at in np.random.default_rng(0).integers(0, 4 * (CHUNK * CHUNK * 2 + 4), 40).tolist():
        flip(file, at)
        with pytest.raises(CorruptStoreError):
            take(what, [0, 0, 32, 32], [0, 32, 0, 32])
        file.write_bytes(good)
    take(what, [0, 0, 32, 32], [0, 32, 0, 32])


def test_a_shard_that_vanishes_after_opening_is_named(tmp_path):
    _, layout = damaged(tmp_path, "none")
    what = source(tmp_path, layout)
    (tmp_path / "scenes/s1/vv/c/1/0").unlink()
    with pytest.raises(CorruptStoreError, match=r"no such file.*scene 's1', array 'vv', row 64, col 0"):
        take(what, [64], [0])


def test_a_shard_cut_short_after_opening_is_named(tmp_path):
    _, layout = damaged(tmp_path, "none")
    what = source(tmp_path, layout)
    os.truncate(tmp_path / "scenes/s1/vv/c/1/0", 100)
    with pytest.raises(CorruptStoreError, match=r"end of the file.*row 64, col 0"):
        take(what, [64], [0])


def listed(tmp_path, shard=2 * CHUNK, **changes):
    """Write the manifest of the array, and return its layout as a store of sarzarr has it."""
    grid, place, n = (0, 0) if shard is None else (2, 2), Folder(tmp_path), 128 // (shard or CHUNK)
    keys = [f"c/{i}/{j}" for i in range(n) for j in range(n)]
    records = {key: record_of(place, f"scenes/s1/vv/{key}", grid) for key in keys}
    write_manifest(place, "scenes/s1/vv", records | changes)


def ours(tmp_path, layout):
    table = read_chunk_table(Folder(tmp_path), [layout])
    return Source(table=table, stretches=(None,), shape=(CHUNK, CHUNK))


def test_the_manifest_says_what_is_absent_on_purpose(tmp_path):
    _, layout = damaged(tmp_path, "none")
    listed(tmp_path, **{"c/1/0": ShardRecord()})
    (tmp_path / "scenes/s1/vv/c/1/0").unlink()
    assert (take(ours(tmp_path, layout), [64], [0]) == 0).all()


@pytest.mark.parametrize("shard", [2 * CHUNK, None])
def test_a_file_that_the_manifest_lists_must_be_there(tmp_path, shard):
    _, layout = damaged(tmp_path, "none", shard=shard)
    listed(tmp_path, shard)
    (tmp_path / "scenes/s1/vv/c/1/0").unlink()
    with pytest.raises(CorruptStoreError, match=r"no (such )?file"):
        take(ours(tmp_path, layout), [CHUNK], [0])


def test_an_array_without_a_manifest_or_with_another_is_damage(tmp_path):
    """Nothing tells fill value from what is lost."""
    _, layout = damaged(tmp_path, "none")
    with pytest.raises(MissingFileError, match=r"manifest was expected at .*s1/vv/manifest.json"):
        read_chunk_table(Folder(tmp_path), [layout])
    listed(tmp_path)
    shutil.copytree(tmp_path / "scenes/s1", tmp_path / "scenes/s2")
    with pytest.raises(CorruptStoreError, match=r"manifest of 'scenes/s2/vv' was expected .*another's"):
        read_chunk_table(Folder(tmp_path), [replace(layout, path="scenes/s2/vv")])
    with pytest.raises(CorruptStoreError, match=r"files \(3, 3\) of 4 chunks .*s1/vv/manifest.json"):
        read_chunk_table(Folder(tmp_path), [replace(layout, shape=(129, 129))])


@pytest.mark.parametrize("codec", CODECS)
def test_chunks_that_changed_places_are_never_delivered(tmp_path, codec):
    """Each is intact: only the manifest knows which belongs where. Shards, and chunks within one."""
    values, layout = damaged(tmp_path, codec)
    listed(tmp_path)
    one, two = (tmp_path / "scenes/s1/vv/c" / name for name in ("0/1", "1/0"))
    what, whole = ours(tmp_path, layout), (one.read_bytes(), two.read_bytes())
    take(what, [0, 32], [64, 96])
    one.write_bytes(whole[1])
    two.write_bytes(whole[0])
    for row, col in [(0, 64), (32, 96), (64, 0)]:
        with pytest.raises(CorruptStoreError, match=f"row {row}, col {col}"):
            take(what, [row], [col])
    one.write_bytes(whole[0])
    first, second = what.table.entries[[2, 3]]
    if first["size"] == second["size"]:
        content = bytearray(whole[0])
        a, b = (slice(int(e["offset"]), int(e["offset"]) + int(e["size"])) for e in (first, second))
        content[a], content[b] = content[b], content[a]
        one.write_bytes(content)
        with pytest.raises(CorruptStoreError, match="row 0, col 64"):
            take(what, [0, 0], [64, 96])
    assert values.shape == (128, 128)


@pytest.mark.parametrize("change", [-1, +1, -1000])
def test_a_shard_of_another_length_is_refused_on_opening(tmp_path, change):
    _, layout = damaged(tmp_path, "none")
    listed(tmp_path)
    file = tmp_path / "scenes/s1/vv/c/0/1"
    os.truncate(file, file.stat().st_size + change)
    with pytest.raises(CorruptStoreError, match=str(file)):
        read_chunk_table(Folder(tmp_path), [layout])


def test_an_array_that_is_replaced_while_it_is_read_is_said_to_have_changed(tmp_path):
    _, layout = damaged(tmp_path, "none")
    listed(tmp_path)
    what = ours(tmp_path, layout)
    one, two = (tmp_path / "scenes/s1/vv/c" / name for name in ("0/1", "1/0"))
    two.write_bytes(one.read_bytes())
    listed(tmp_path)
    with pytest.raises(StoreChangedError, match="Open the store anew"):
        take(what, [64], [0])


def test_an_index_that_points_beyond_its_file_is_refused(tmp_path):
    """A chunk as long as an index ends in a checksum of its own: a file cut there has a tail that holds."""
    _, layout = damaged(tmp_path, "none")
    file = tmp_path / "scenes/s1/vv/c/0/1"
    tail = file.read_bytes()[-68:]
    file.write_bytes(tail)
    with pytest.raises(CorruptStoreError, match="c/0/1"):
        read_chunk_table(foreign(tmp_path), [layout])


def test_a_damaged_index_is_refused_on_opening(tmp_path):
    _, layout = damaged(tmp_path, "none")
    flip(tmp_path / "scenes/s1/vv/c/0/1", -20)
    with pytest.raises(CorruptStoreError, match="c/0/1"):
        read_chunk_table(foreign(tmp_path), [layout])


def test_without_a_manifest_what_is_not_there_is_fill_value_as_zarr_has_it(tmp_path):
    values, layout = damaged(tmp_path, "none")
    (tmp_path / "scenes/s1/vv/c/1/0").unlink()
    oracle = zarr.open_array(tmp_path / "scenes/s1/vv", mode="r")
    found = take(source(tmp_path, layout), [64, 0], [0, 0])
    np.testing.assert_array_equal(found[0], oracle[64:96, :32])
    assert not found[0].any()
    np.testing.assert_array_equal(found[1], values[:32, :32])


def test_a_chunk_of_an_impossible_size_is_named(tmp_path):
    _, layout = damaged(tmp_path, "none")
    what = source(tmp_path, layout)
    what.table.entries["size"][5] = 99
    with pytest.raises(CorruptStoreError, match="chunk of 2052 bytes"):
        take(what, [32], [32])
