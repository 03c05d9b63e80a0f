"""What each way to write a chunk costs and gives: one table a dtype, one run, as ratios.

Chunks are 256 x 256 pixels of a synthetic scene: fields, sea and towns under gamma speckle. Candidates take
turns round by round, and medians are shown; seconds are those of the one thread on its processor, so that what
else the machine does counts less. Decoding is into a slot that is there already; checksums are checked where
there are any.

Usage: python benchmarks/bench_codecs.py [--rounds 15] [--seed 0]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numcodecs import blosc, zstd

from sarzarr import conventions as cv
from sarzarr.conventions import Flag
from sarzarr.errors import CorruptStoreError
from sarzarr.pixels.kernels import codes_from_half, db_kernel, half_codes_kernel, normalize_kernel
from sarzarr.scenes.synthetic.scenes import write_synthetic_scenes
from sarzarr.store.codecs import CODECS, DEFAULT_CODECS, Codec, blosc_lz4

Pixels = np.ndarray[Any, Any]
SIDE = 2048
"""Pixels of the scene's side: 64 chunks, more than the caches near a core hold."""
FLIPS = 200


@dataclass(frozen=True)
class Candidate:
    """One chain of codecs."""

    name: str
    encode: Callable[[Pixels], bytes]
    decode_into: Callable[[bytes, Pixels], None]


def ours(name: str, codec: Codec) -> Candidate:
    """A chain that sarzarr can write: closed by a CRC-32C."""

    def encode(chunk: Pixels) -> bytes:
        payload, crc = codec.encode(chunk)
        return bytes(payload) + crc

    return Candidate(name, encode, codec.decode_into)


def with_crc(name: str, encode: Callable[[Pixels], bytes], decode: Callable[[Any, Pixels], Any]) -> Candidate:
    """A chain that sarzarr cannot write, closed by a CRC-32C."""
    closed = CODECS["none"]

    def encode_closed(chunk: Pixels) -> bytes:
        payload = encode(chunk)
        return payload + closed.encode(np.frombuffer(payload, np.uint8))[1]

    def decode_closed(stored: bytes, out: Pixels) -> None:
        decode(closed.decode(stored), out)

    return Candidate(name, encode_closed, decode_closed)


def bare(name: str, encode: Callable[[Pixels], bytes], decode: Callable[[Any, Pixels], Any]) -> Candidate:
    """A chain without a CRC-32C."""
    return Candidate(name, encode, decode)


def copy_bytes(stored: bytes, out: Pixels) -> None:
    out.reshape(-1).view(np.uint8)[:] = np.frombuffer(stored, np.uint8)


def blosc_encoder(cname: bytes, level: int, shuffle: int, blocksize: int = 0) -> Callable[[Pixels], bytes]:
    return lambda chunk: bytes(blosc.compress(chunk, cname, level, shuffle, blocksize))


def candidates() -> list[Candidate]:
    """Every chain, the reference first."""
    bits, byte, none = blosc.BITSHUFFLE, blosc.SHUFFLE, blosc.NOSHUFFLE
    return [
        ours("none + crc32c", CODECS["none"]),
        bare("none", lambda chunk: chunk.tobytes(), copy_bytes),
        ours("blosc lz4 noshuffle + crc32c", blosc_lz4("", none)),
        ours("blosc lz4 shuffle + crc32c", blosc_lz4("", byte)),
        ours("blosc lz4 bitshuffle + crc32c", blosc_lz4("", bits)),
        bare("blosc lz4 shuffle", blosc_encoder(b"lz4", 5, byte), blosc.decompress),
        with_crc("blosc zstd shuffle, level 1 + crc32c", blosc_encoder(b"zstd", 1, byte), blosc.decompress),
        with_crc("blosc zstd bitshuffle, level 1 + crc32c", blosc_encoder(b"zstd", 1, bits), blosc.decompress),
        bare("zstd", lambda chunk: bytes(zstd.compress(chunk, 1)), zstd.decompress),
        bare("zstd, own checksum", lambda chunk: bytes(zstd.compress(chunk, 1, True)), zstd.decompress),
        ours("zstd + crc32c", CODECS["zstd"]),
    ]  # fmt: skip


def default_row(dtype: str) -> str:
    """Return the name of the chain that sarzarr writes a dtype with."""
    said = [d.get("configuration", {}) for d in CODECS[DEFAULT_CODECS[dtype]].documents(np.dtype(dtype))]
    chain = next((f"blosc {c['cname']} {c['shuffle']}" for c in said if "cname" in c), DEFAULT_CODECS[dtype])
    return f"{chain} + crc32c"


# ------------------------------------------------------------------ pixels
def scene_chunks(seed: int) -> dict[str, dict[str, list[Pixels]]]:
    """Return chunks by dtype and kind of area: ``speckle``, ``half empty`` and ``empty``."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_synthetic_scenes(
            folder, count=1, shape=(SIDE, SIDE), polarizations=["VV"], seed=seed, border=0
        )[0]
        with rasterio.open(path) as file:
            power = np.ascontiguousarray(file.read(1))
    z = normalize_kernel(db_kernel(power), cv.STORED_RANGE)
    lit = np.tri(cv.CHUNK, dtype=bool)  # a slanted edge of the scene
    dark = np.random.default_rng(seed).random((SIDE, SIDE)) < 0.05  # calm water after noise removal
    flags = np.where(dark, np.uint8(Flag.NONPOSITIVE), np.uint8(Flag.VALID))
    images = {
        "uint16": codes_from_half(half_codes_kernel(z)),
        "float32": z,
        "float16": z.astype(np.float16),
        "uint8": flags,
    }
    out = {}
    for dtype, image in images.items():
        outside = np.full((cv.CHUNK, cv.CHUNK), Flag.NODATA if dtype == "uint8" else 0, dtype)
        full = tiles(image)
        out[dtype] = {
            "speckle": full,
            "half empty": [np.where(lit, tile, outside) for tile in full[:16]],
            "empty": [outside],
        }
    return out


def tiles(image: Pixels) -> list[Pixels]:
    n, chunk = SIDE // cv.CHUNK, cv.CHUNK
    cut = image.reshape(n, chunk, n, chunk).swapaxes(1, 2).reshape(-1, chunk, chunk)
    return [np.ascontiguousarray(tile) for tile in cut]


# ------------------------------------------------------------------ measures
def seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def encode_all(candidate: Candidate, chunks: list[Pixels]) -> None:
    for chunk in chunks:
        candidate.encode(chunk)


def decode_all(candidate: Candidate, stored: list[bytes], slots: Pixels) -> None:
    for data, slot in zip(stored, slots, strict=True):
        candidate.decode_into(data, slot)


def size_ratio(candidate: Candidate, chunks: list[Pixels]) -> float:
    """Return how many times smaller the stored bytes are."""
    return sum(c.nbytes for c in chunks) / sum(len(candidate.encode(c)) for c in chunks)


def flips_seen(candidate: Candidate, stored: list[bytes], slot: Pixels, seed: int) -> int:
    """Return how many of `FLIPS` flipped bits, anywhere in the stored bytes, end in an error."""
    rng = np.random.default_rng([seed, 9])
    seen = 0
    for i in range(FLIPS):
        data = bytearray(stored[i % len(stored)])
        bit = int(rng.integers(len(data) * 8))
        data[bit // 8] ^= 1 << bit % 8
        try:
            candidate.decode_into(bytes(data), slot)
        except (CorruptStoreError, RuntimeError, ValueError):
            seen += 1
    return seen


def measure(dtype: str, areas: dict[str, list[Pixels]], rounds: int, seed: int) -> None:
    """Print the table of one dtype."""
    chunks, them = areas["speckle"], candidates()
    slots = np.empty((len(chunks), cv.CHUNK, cv.CHUNK), dtype)
    stored = {c.name: [c.encode(chunk) for chunk in chunks] for c in them}
    for candidate in them:
        slots[:] = 0
        decode_all(candidate, stored[candidate.name], slots)
        if not np.array_equal(slots, np.stack(chunks)):
            raise SystemExit(f"{candidate.name} does not give the pixels back")
    decoding: dict[str, list[float]] = {c.name: [] for c in them}
    encoding: dict[str, list[float]] = {c.name: [] for c in them}
    for number in range(rounds):
        for candidate in them[number % len(them) :] + them[: number % len(them)]:
            data = stored[candidate.name]
            decoding[candidate.name].append(seconds(lambda c=candidate, d=data: decode_all(c, d, slots)))
            encoding[candidate.name].append(seconds(lambda c=candidate: encode_all(c, chunks)))
    patches = {name: len(chunks) / statistics.median(times) for name, times in decoding.items()}
    megabytes = sum(c.nbytes for c in chunks) / 1e6
    rates = {name: megabytes / statistics.median(times) for name, times in encoding.items()}
    first = them[0].name
    what = "flags" if dtype == "uint8" else "speckle"
    print(
        f"\n{dtype}: default {DEFAULT_CODECS[dtype]} (*); ratios to {first}; sizes: times smaller than raw\n"
    )
    print(
        f"| codec | decode patches/s | ratio | encode MB/s | ratio | {what} | half empty | empty | flips of {FLIPS} |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for c in them:
        mark = " *" if c.name == default_row(dtype) else ""
        sizes = [size_ratio(c, areas[area]) for area in ("speckle", "half empty", "empty")]
        seen = flips_seen(c, stored[c.name], slots[0], seed)
        print(
            f"| {c.name}{mark} | {patches[c.name]:,.0f} | {patches[c.name] / patches[first]:.2f} "
            f"| {rates[c.name]:,.0f} | {rates[c.name] / rates[first]:.2f} "
            f"| {sizes[0]:.2f} | {sizes[1]:.2f} | {sizes[2]:,.0f} | {seen} |"
        )


def main() -> None:
    """Measure every dtype."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    blosc.use_threads = False  # one thread each; a chunk is one block anyway
    for dtype, areas in scene_chunks(asked.seed).items():
        measure(dtype, areas, asked.rounds, asked.seed)


if __name__ == "__main__":
    main()
