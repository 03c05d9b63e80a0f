"""Shards and chunk files: zarr-python and tensorstore read what we write and write what we read; no damage passes."""

import shutil
from contextlib import suppress
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tensorstore
import zarr
from crc32c import crc32c
from disks import files_below, no_file_beyond
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.errors import CorruptStoreError
from sarzarr.store.codecs import CODECS, CRC_BYTES
from sarzarr.store.documents import Encoding, array_document, write_json
from sarzarr.store.manifest import ShardRecord
from sarzarr.store.place import Folder
from sarzarr.store.shards import (
    EMPTY,
    ArrayFiles,
    ShardWriter,
    index_bytes,
    is_as_listed,
    parse_index,
    read_chunks,
    read_stored,
    record_of,
    write_chunk_file,
)

CHUNK = 16
ENCODINGS = st.builds(
    Encoding,
    dtype=st.sampled_from(["uint8", "uint16", "float16", "float32"]),
    codec=st.sampled_from(sorted(CODECS)),
    chunk=st.just(CHUNK),
    shard=st.sampled_from([0, CHUNK, 2 * CHUNK, 3 * CHUNK]),
    nodata=st.sampled_from([None, 0, 7]),
)
SHAPES = st.tuples(st.integers(1, 110), st.integers(1, 110))
every_codec = pytest.mark.parametrize("codec", [CODECS[n] for n in sorted(CODECS)], ids=lambda c: c.name)


def image_of(shape, encoding, seed):
    """Noise with empty chunks, and with a corner of empty shards."""
    rng = np.random.default_rng(seed)
    noise = rng.random(shape)
    image = (noise if encoding.dtype.startswith("float") else noise * 251).astype(encoding.dtype)
    for row in range(0, shape[0], CHUNK):
        for col in range(0, shape[1], CHUNK):
            if rng.random() < 0.3 or row + col >= 7 * CHUNK:
                image[row : row + CHUNK, col : col + CHUNK] = encoding.fill
    return image


def chunks_of(image, fill=0):
    """Yield (row, column, whole chunk padded with the fill value) in C order."""
    rows, cols = (-(-n // CHUNK) for n in image.shape)
    padded = np.full((rows * CHUNK, cols * CHUNK), fill, image.dtype)
    padded[: image.shape[0], : image.shape[1]] = image
    for row in range(rows):
        for col in range(cols):
            at = slice(row * CHUNK, (row + 1) * CHUNK), slice(col * CHUNK, (col + 1) * CHUNK)
            yield row, col, np.ascontiguousarray(padded[at])


def write_array(folder, image, encoding):
    """Write an array as ingest does; return its records."""
    write_json(Folder(folder), "zarr.json", array_document(image.shape, encoding, dims=("y", "x")))
    with ArrayFiles(folder, encoding) as files:
        for row, col, chunk in chunks_of(image, encoding.fill):
            files.write(row, col, chunk)
        return files.close()


def read_array(folder, encoding, shape, window=None):
    window = window or (slice(0, shape[0]), slice(0, shape[1]))
    return read_stored(Folder(folder.parent), folder.name, encoding, window)


# ------------------------------------------------------------------ other readers and writers
@pytest.mark.compat
@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, encoding=ENCODINGS, seed=st.integers(0, 2**32 - 1))
def test_zarr_python_and_tensorstore_read_what_is_written(tmp_path_factory, shape, encoding, seed):
    with TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as name:
        folder = tmp_path_factory.getbasetemp() / name
        image = image_of(shape, encoding, seed)
        records = write_array(folder, image, encoding)
        np.testing.assert_array_equal(zarr.open_array(folder, mode="r")[:], image)
        other = tensorstore.open({"driver": "zarr3", "kvstore": f"file://{folder}/"}, read=True).result()
        np.testing.assert_array_equal(other.read().result(), image)
        np.testing.assert_array_equal(read_array(folder, encoding, shape), image)
        assert files_below(folder) == {key for key, record in records.items() if record.size}
        for key, record in records.items():
            assert (
                record_of(Folder(folder), key, encoding.grid) == record
                if record.size
                else not (folder / key).exists()
            )
            assert record.size == ((folder / key).stat().st_size if record.chunks else 0)
        assert sum(r.chunks for r in records.values()) == sum(
            not np.array_equal(c, np.full_like(c, encoding.fill), equal_nan=c.dtype.kind == "f")
            for *_, c in chunks_of(image, encoding.fill)
        )


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES,
    encoding=ENCODINGS,
    seed=st.integers(0, 2**32 - 1),
    writer=st.sampled_from(["zarr", "zarr, empty chunks too", "tensorstore"]),
    data=st.data(),
)
def test_any_window_of_what_others_write_is_read(tmp_path_factory, shape, encoding, seed, writer, data):
    with TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as name:
        folder = tmp_path_factory.getbasetemp() / name
        image = image_of(shape, encoding, seed)
        write_json(Folder(folder), "zarr.json", array_document(shape, encoding, dims=("y", "x")))
        if writer == "tensorstore":
            spec = {"driver": "zarr3", "kvstore": f"file://{folder}/"}
            tensorstore.open(spec, open=True).result().write(image).result()
        else:
            with zarr.config.set({"array.write_empty_chunks": writer != "zarr"}):
                zarr.open_array(folder, mode="r+")[:] = image
        top, left = (data.draw(st.integers(0, n - 1)) for n in shape)
        bottom, right = (data.draw(st.integers(a + 1, n)) for a, n in zip((top, left), shape, strict=True))
        window = slice(top, bottom), slice(left, right)
        np.testing.assert_array_equal(read_array(folder, encoding, shape, window), image[window])


@every_codec
def test_chunks_come_in_c_order_and_only_those_wanted(tmp_path, codec):
    image = image_of((3 * CHUNK, 3 * CHUNK), Encoding(chunk=CHUNK), 1)
    chunks = {(row, col): chunk for row, col, chunk in chunks_of(image)}
    writer = ShardWriter(tmp_path / "0", (3, 3), codec)
    for at in sorted(chunks, reverse=True):  # the index is in C order, whatever the order of writing
        writer.append(*at, chunks[at])
    writer.close()
    like = np.empty((CHUNK, CHUNK), np.uint16)
    held = [at for at in sorted(chunks) if chunks[at].any()]
    assert [at[:2] for at in read_chunks(Folder(tmp_path), "0", (3, 3), codec, like)] == held
    wanted = {held[1], held[-1], (9, 9)}
    for row, col, chunk in read_chunks(Folder(tmp_path), "0", (3, 3), codec, like, wanted):
        np.testing.assert_array_equal(chunk, chunks[row, col])
        wanted.remove((row, col))
    assert wanted == {(9, 9)}


# ------------------------------------------------------------------ damage
def small_shard(folder, codec, *, sharded=True, seed=0):
    """Write a shard of 2 x 2 chunks of 8 x 8 pixels, one of them empty; or a file of one chunk."""
    chunks = np.random.default_rng(seed).integers(0, 4, (2, 2, 8, 8), np.uint8)
    path = folder / "0"
    if not sharded:
        return path, write_chunk_file(path, codec, chunks[0, 0])
    with ShardWriter(path, (2, 2), codec) as writer:
        for row, col in ((0, 0), (0, 1), (1, 1)):
            writer.append(row, col, chunks[row, col])
        return path, writer.close()


def read_all(path, codec, *, sharded=True):
    grid = (2, 2) if sharded else (0, 0)
    return [
        c.copy()
        for *_, c in read_chunks(Folder(path.parent), path.name, grid, codec, np.empty((8, 8), np.uint8))
    ]


@every_codec
@pytest.mark.parametrize("sharded", [True, False])
def test_every_flipped_bit_is_seen(tmp_path, codec, sharded):
    path, record = small_shard(tmp_path, codec, sharded=sharded)
    whole = path.read_bytes()
    intact = read_all(path, codec, sharded=sharded)
    assert len(intact) == record.chunks
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        if codec.checks_itself:  # or it moves no pixel: see test_codecs
            with suppress(CorruptStoreError):
                np.testing.assert_equal(read_all(path, codec, sharded=sharded), intact)
            continue
        with pytest.raises(CorruptStoreError):
            read_all(path, codec, sharded=sharded)


@every_codec
def test_a_flipped_index_or_checksum_changes_the_record(tmp_path, codec):
    """`record_of` reads no payload: it tells which bytes a file claims, and what it reads it sees every bit of."""
    path, record = small_shard(tmp_path, codec)
    whole = path.read_bytes()
    index = parse_index(whole, 4)
    ends = [int(offset + size) for offset, size in index if offset != EMPTY]
    claimed = [b for end in ends for b in range(end - CRC_BYTES, end)]
    claimed += range(len(whole) - index_bytes(4), len(whole))
    for byte in claimed:
        damaged = bytearray(whole)
        damaged[byte] ^= 16
        path.write_bytes(damaged)
        assert not is_as_listed(Folder(path.parent), path.name, (2, 2), record)


@every_codec
@pytest.mark.parametrize("sharded", [True, False])
def test_truncation_at_every_length_is_seen(tmp_path, codec, sharded):
    path, record = small_shard(tmp_path, codec, sharded=sharded)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert not is_as_listed(Folder(path.parent), path.name, (2, 2) if sharded else (0, 0), record)
        with pytest.raises(CorruptStoreError):
            read_all(path, codec, sharded=sharded)
    path.unlink()
    assert not is_as_listed(Folder(path.parent), path.name, (2, 2), record)
    assert is_as_listed(Folder(path.parent), path.name, (2, 2), ShardRecord())


@every_codec
@pytest.mark.parametrize("sharded", [True, False])
def test_exchanged_files_have_another_record_though_their_crcs_are_one(tmp_path, codec, sharded):
    grid = (2, 2) if sharded else (0, 0)
    made = []
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        made.append(small_shard(tmp_path / str(seed), codec, sharded=sharded, seed=seed))
    (first, record), (second, other) = made
    assert record != other
    if codec.is_plain:  # the layout is one: sizes and the checksums of the files tell nothing
        assert record.size == other.size
        assert crc32c(first.read_bytes()) == crc32c(second.read_bytes())
    shutil.copy(second, first)
    assert record_of(Folder(first.parent), first.name, grid) == other != record


def test_two_chunks_that_change_places_in_a_shard_have_another_record(tmp_path):
    codec = CODECS["none"]
    one, two = (np.full((8, 8), n, np.uint8) for n in (1, 2))
    records = []
    for name, chunks in (("a", (one, two)), ("b", (two, one))):
        with ShardWriter(tmp_path / name, (1, 2), codec) as writer:
            for col, chunk in enumerate(chunks):
                writer.append(0, col, chunk)
            records.append(writer.close())
    assert records[0].size == records[1].size
    assert records[0] != records[1]


# ------------------------------------------------------------------ whole or not at all
def test_a_shard_has_its_name_only_when_it_is_whole(tmp_path):
    path, record = small_shard(tmp_path, CODECS["none"])
    before = path.read_bytes()
    chunk = np.full((8, 8), 7, np.uint8)
    with ShardWriter(path, (2, 2), CODECS["none"]) as writer:
        writer.append(0, 0, chunk)
        assert record_of(Folder(path.parent), path.name, (2, 2)) == record
        assert path.read_bytes() == before
        assert len(files_below(tmp_path)) == 2
        made = writer.close()
    assert files_below(tmp_path) == {"0"}
    assert record_of(Folder(path.parent), path.name, (2, 2)) == made != record


@pytest.mark.parametrize(
    ("shard", "limit"),
    [(16, n) for n in (0, 30, 64, 66, 100, 150, 250, 270, 338)] + [(0, n) for n in (0, 30, 64, 66)],
)
def test_an_error_on_the_way_leaves_no_file(tmp_path, shard, limit):
    """A full disk at every stage: in the first payload, in a checksum, between chunks, in the index."""
    chunks = np.random.default_rng(0).integers(1, 9, (2, 2, 8, 8), np.uint8)
    names = {"c/0/0"} if shard else {"c/0/0", "c/0/1", "c/1/0", "c/1/1"}

    def write():
        with ArrayFiles(tmp_path, Encoding(dtype="uint8", chunk=8, shard=shard)) as files:
            for row in range(2):
                for col in range(2):
                    files.write(row, col, chunks[row, col])
            files.close()

    with no_file_beyond(limit), pytest.raises(OSError, match="too large"):
        write()
    assert files_below(tmp_path) == set()
    write()
    assert files_below(tmp_path) == names


def test_an_exception_between_chunks_leaves_what_was_there(tmp_path):
    path, record = small_shard(tmp_path, CODECS["none"])

    def interrupted():
        with ShardWriter(path, (2, 2), CODECS["none"]) as writer:
            writer.append(0, 0, np.full((8, 8), 7, np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert files_below(tmp_path) == {"0"}
    assert record_of(Folder(path.parent), path.name, (2, 2)) == record


@pytest.mark.parametrize("shard", [16, 0])
@pytest.mark.parametrize(
    ("dtype", "nodata", "values"),
    [
        ("uint8", None, (5, 0)),
        ("uint8", 255, (0, 255)),
        ("float32", None, (0, np.nan)),
        ("float16", -1, (np.nan, -1)),
    ],
)
def test_what_becomes_empty_has_no_file(tmp_path, shard, dtype, nodata, values):
    encoding = Encoding(dtype=dtype, chunk=8, shard=shard, nodata=nodata)
    for value, expected in zip(values, (1, 0), strict=True):
        with ArrayFiles(tmp_path, encoding) as files:
            files.write(0, 0, np.full((8, 8), value, dtype))
            record = files.close()["c/0/0"]
        assert len(files_below(tmp_path)) == record.chunks == expected
    assert record == ShardRecord()
