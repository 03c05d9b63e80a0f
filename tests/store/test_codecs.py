"""Chunk bytes: any Zarr reader decodes them, every flipped bit is seen, every wrong size is an error."""

import json

import numpy as np
import pytest
import tensorstore
import zarr
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numcodecs import blosc, zstd
from zarr.core.buffer.cpu import Buffer
from zarr.storage import MemoryStore

from sarzarr.errors import CorruptStoreError, InvalidInputError
from sarzarr.store.codecs import CODECS, CRC_BYTES, DEFAULT_CODECS, UNSHARDED_CODEC, blosc_lz4, get_codec
from sarzarr.store.documents import Encoding, array_document, write_json
from sarzarr.store.place import Folder

DTYPES = ("uint8", "uint16", "float16", "float32")
every_codec = pytest.mark.parametrize("name", sorted(CODECS))
CLOSED = sorted(name for name, codec in CODECS.items() if not codec.checks_itself)
"""The codecs that a CRC-32C closes, which sees every flip; zstd's own checksum sees those that move a pixel."""
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def chunk_of(dtype, *, side=64, seed=0):
    """Pixels that half compress: noise above, a plain below."""
    noise = np.random.default_rng(seed).normal(0.4, 0.05, (side, side)).clip(0, 1)
    noise[side // 2 :] = 0.25
    scale = {"uint8": 3, "uint16": 65535}.get(dtype, 1)
    return (noise * scale).astype(dtype)


def stored(codec, chunk):
    payload, crc = codec.encode(chunk)
    return bytes(payload) + crc


def with_crc(payload):
    """Close a payload as `Codec.encode` does: what reaches the decoder is intact, whatever it is."""
    return payload + crc32c(payload).to_bytes(4, "little")


chunks = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=1, max_dims=3, max_side=40))
)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(CODECS)), chunk=chunks)
def test_decoding_gives_the_chunk_back_to_the_bit(name, chunk):
    codec, out = get_codec(name), np.full_like(chunk, 77)
    data = stored(codec, chunk)
    codec.decode_into(data, out)
    assert out.tobytes() == codec.decode(data) == chunk.tobytes()
    codec.decode_into(np.frombuffer(data, np.uint8), out)  # an array of bytes, as the loader has them
    assert out.tobytes() == chunk.tobytes()


@pytest.mark.compat
@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(CLOSED), chunk=chunks, data=st.data())
def test_zarr_python_reads_every_codec_and_both_see_a_flipped_byte(name, chunk, data):
    document = array_document(
        chunk.shape, Encoding(dtype=str(chunk.dtype), codec=name, shard=0), dims=tuple("abc"[: chunk.ndim])
    )
    document["chunk_grid"]["configuration"]["chunk_shape"] = list(chunk.shape)
    whole = stored(get_codec(name), chunk)
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    key = "/".join("c" + "0" * chunk.ndim)

    def theirs(content):
        files = {"zarr.json": json.dumps(document).encode(), key: content}
        held = MemoryStore({name: Buffer.from_bytes(bytes(value)) for name, value in files.items()})
        return zarr.open_array(held, mode="r")[...]

    assert theirs(whole).tobytes() == chunk.tobytes()
    with pytest.raises(ValueError, match="checksum"):
        theirs(damaged)
    with pytest.raises(CorruptStoreError, match="CRC-32C"):
        get_codec(name).decode_into(bytes(damaged), np.empty_like(chunk))


@pytest.mark.compat
@every_codec
@every_dtype
def test_the_documents_are_the_codecs_for_any_zarr_reader(tmp_path, name, dtype):
    chunk = chunk_of(dtype)
    encoding = Encoding(dtype=dtype, codec=name, chunk=64, shard=0)
    write_json(Folder(tmp_path), "zarr.json", array_document((64, 64), encoding, dims=("y", "x")))
    place = tmp_path / "c" / "0" / "0"
    place.parent.mkdir(parents=True)
    place.write_bytes(stored(get_codec(name), chunk))
    np.testing.assert_array_equal(zarr.open_array(tmp_path, mode="r")[:], chunk)
    other = tensorstore.open({"driver": "zarr3", "kvstore": f"file://{tmp_path}/"}, read=True).result()
    np.testing.assert_array_equal(other.read().result(), chunk)
    damaged = bytearray(place.read_bytes())
    damaged[-1] ^= 1
    place.write_bytes(damaged)
    with pytest.raises((ValueError, RuntimeError), match=r"checksum|decompression error"):
        zarr.open_array(tmp_path, mode="r")[:]


@pytest.mark.compat
@every_codec
@every_dtype
def test_chunks_that_tensorstore_wrote_are_decoded(tmp_path, name, dtype):
    """Its zstd frames are not those of numcodecs: they may leave out the size."""
    chunk = chunk_of(dtype)
    encoding = Encoding(dtype=dtype, codec=name, chunk=64, shard=0)
    metadata = array_document((64, 64), encoding, dims=("y", "x"))
    metadata.pop("storage_transformers")
    spec = {"driver": "zarr3", "kvstore": f"file://{tmp_path}/", "metadata": metadata}
    tensorstore.open(spec, create=True).result().write(chunk).result()
    out = np.empty_like(chunk)
    get_codec(name).decode_into((tmp_path / "c" / "0" / "0").read_bytes(), out)
    np.testing.assert_array_equal(out, chunk)


@pytest.mark.parametrize("name", CLOSED)
def test_every_flipped_bit_is_seen(name):
    codec, chunk = get_codec(name), chunk_of("uint16", side=16)
    data, out = stored(codec, chunk), np.empty_like(chunk)
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptStoreError, match="CRC-32C"):
            codec.decode_into(bytes(damaged), out)


@settings(max_examples=30, deadline=None)
@given(chunk=chunks)
def test_no_flipped_bit_of_a_frame_that_checks_itself_moves_a_pixel(chunk):
    """Some say nothing: a bit that no decoder reads, tables that give the same symbols."""
    codec, out = get_codec(UNSHARDED_CODEC), np.empty_like(chunk)
    data = stored(codec, chunk)
    silent = 0
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        out.view(np.uint8)[...] = 77
        try:
            codec.decode_into(bytes(damaged), out)
        except CorruptStoreError:
            continue
        silent += 1
        assert out.tobytes() == chunk.tobytes()
    assert silent < len(data) * 8 / 20 + 3


@every_codec
def test_every_shorter_or_longer_chunk_is_seen(name):
    codec, chunk = get_codec(name), chunk_of("uint16", side=16)
    data, out = stored(codec, chunk), np.empty_like(chunk)
    for size in range(len(data)):
        with pytest.raises(CorruptStoreError):
            codec.decode_into(data[:size], out)
    with pytest.raises(CorruptStoreError):
        codec.decode_into(data + b"\0", out)


@every_codec
@pytest.mark.parametrize("side", [8, 15, 17, 32])
def test_an_intact_chunk_of_another_size_is_corrupt_and_never_part_of_a_slot(name, side):
    codec = get_codec(name)
    data = stored(codec, chunk_of("float32", side=side))
    with pytest.raises(CorruptStoreError, match=f"1024 bytes, got {side * side * 4}"):
        codec.decode_into(data, np.empty((16, 16), np.float32))


@pytest.mark.compat
@pytest.mark.parametrize("name", ["zstd", UNSHARDED_CODEC])
def test_a_header_that_tells_of_a_terabyte_is_corrupt_before_it_is_decoded(name):
    payload = b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + bytes(8)
    data = payload if name == UNSHARDED_CODEC else with_crc(payload)
    with pytest.raises(CorruptStoreError, match=f"64 bytes, got {1 << 40} of codec {name}"):
        get_codec(name).decode_into(data, np.empty((8, 8), np.uint8))


@pytest.mark.parametrize("name", [name for name in CLOSED if not CODECS[name].is_plain])
@pytest.mark.parametrize("payload", [b"", b"abc", bytes(16), bytes(range(64))], ids=len)
def test_intact_bytes_that_are_no_chunk_are_corrupt(name, payload):
    with pytest.raises(CorruptStoreError, match=name):
        get_codec(name).decode_into(with_crc(payload), np.empty((8, 8), np.uint8))
    with pytest.raises(CorruptStoreError, match=name):
        get_codec(name).decode(with_crc(payload))


def test_a_zstd_chunk_of_two_frames_is_not_cut_at_the_first():
    frame = bytes(zstd.compress(np.zeros(64, np.uint8), 1))
    with pytest.raises(CorruptStoreError):
        get_codec("zstd").decode_into(with_crc(frame + frame), np.empty((8, 8), np.uint8))


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_535, 65_791, 65_792, 70_000])
def test_zstd_sizes_on_both_sides_of_each_width_of_the_header(size):
    """A size stands in 1, 2 (less 256), 4 or 8 bytes of a frame's header."""
    codec, chunk = get_codec("zstd"), np.arange(size, dtype=np.uint32).astype(np.uint8)
    data, out = stored(codec, chunk), np.zeros_like(chunk)
    codec.decode_into(data, out)
    np.testing.assert_array_equal(out, chunk)
    for other in {size - 1, size + 1, size + 256, max(size - 256, 0)} - {size}:
        with pytest.raises(CorruptStoreError, match=f"{other} bytes, got {size}"):
            codec.decode_into(data, np.zeros(other, np.uint8))


def test_chunk_bytes_do_not_depend_on_the_thread_that_writes_them():
    """Blosc with threads of its own puts its blocks in the order in which they are done; a chunk is one block."""
    from threading import Thread

    chunk = np.random.default_rng(0).normal(0.4, 0.05, (256, 256)).astype(np.float32)
    codec, found = get_codec("blosc-lz4"), set()
    found.update(stored(codec, chunk) for _ in range(5))
    worker = Thread(target=lambda: found.update(stored(codec, chunk) for _ in range(5)))
    worker.start()
    worker.join()
    assert len(found) == 1
    assert int.from_bytes(found.pop()[8:12], "little") == chunk.nbytes  # blosc's header: the size of a block


def test_shuffles_are_those_that_were_measured():
    said = {
        dtype: json.dumps(get_codec(DEFAULT_CODECS[dtype]).documents(np.dtype(dtype))) for dtype in DTYPES
    }
    assert "blosc" not in said["uint16"] + said["float32"]
    assert '"shuffle": "shuffle"' in json.dumps(get_codec("blosc-lz4").documents(np.dtype("float32")))
    assert '"shuffle": "bitshuffle"' in said["float16"]
    assert '"shuffle": "bitshuffle"' in said["uint8"]
    for shuffle in (blosc.NOSHUFFLE, blosc.SHUFFLE, blosc.BITSHUFFLE):  # whatever a chunk was shuffled with
        chunk, out = chunk_of("float32"), np.empty((64, 64), np.float32)
        get_codec("blosc-lz4").decode_into(stored(blosc_lz4("other", shuffle), chunk), out)
        np.testing.assert_array_equal(out, chunk)


def test_an_unknown_codec_names_those_there_are():
    with pytest.raises(InvalidInputError, match=f"{', '.join(CODECS)}, got 'nonesuch'"):
        get_codec("nonesuch")
    assert set(DEFAULT_CODECS.values()) <= set(CODECS)
    assert CRC_BYTES == 4
