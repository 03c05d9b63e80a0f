"""Chunk bytes: the codecs that a store is written with, each closed by a checksum of four bytes.

A codec here is the chain inside a shard, or of a file that is one chunk. Its bytes are those of the Zarr v3
codecs that ``documents`` names, so any Zarr v3 reader decodes them, and flipped bits are seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from crc32c import crc32c
from numcodecs import blosc, zstd

from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, InvalidInputError

CRC_BYTES: Final = 4
UNSHARDED_CODEC: Final = "zstd-checksum"
"""The codec of stores without shards, all of it: GDAL before 3.13 reads it, and knows no ``crc32c``."""


@dataclass(frozen=True, kw_only=True)
class Codec:
    """One way to write a chunk; ``encode`` and ``decode_into`` are inverse to the bit."""

    name: str
    """As it stands in the catalog and behind ``--codec``."""
    compressors: Callable[[np.dtype[Any]], list[dict[str, Any]]]
    """From a dtype, the Zarr v3 codecs between ``bytes`` and ``crc32c``, or the end."""
    compress: Callable[[Array], Any]
    """From a C-contiguous little-endian chunk, the payload."""
    decompress: Callable[[memoryview, Array | None], Any]
    """From a payload, its bytes, in a (bytes,) uint8 where given; `RuntimeError` or `ValueError` where it cannot."""
    decoded_size: Callable[[memoryview], int | None]
    """From a payload, the bytes that it decodes to; where it is None, ``decompress`` is given no place for them."""
    is_plain: bool = False
    """Whether a payload is the chunk as it is in memory."""
    checks_itself: bool = False
    """Whether a payload ends in 4 bytes of its own that ``decompress`` holds it against: there is no CRC-32C then."""

    def documents(self, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
        """Return the Zarr v3 codec list for chunks of ``dtype``."""
        endian = {} if dtype.itemsize == 1 else {"configuration": {"endian": "little"}}
        chain = [{"name": "bytes", **endian}, *self.compressors(dtype)]
        return chain if self.checks_itself else [*chain, {"name": "crc32c"}]

    def encode(self, chunk: Array) -> tuple[Any, bytes]:
        """Return (payload, checksum) of a C-contiguous little-endian chunk; their bytes follow each other.

        A plain payload is a view of ``chunk``: write it before the array changes.
        """
        payload = self.compress(chunk)
        if self.checks_itself:
            return payload[:-CRC_BYTES], bytes(payload[-CRC_BYTES:])
        return payload, crc32c(payload).to_bytes(CRC_BYTES, "little")

    def decode_into(self, stored: Any, out: Array) -> None:
        """Check and decode the bytes of one chunk into ``out`` (C-contiguous, the whole chunk).

        Raises `CorruptStoreError` where the checksum does not match, or the bytes do not decode to its size.
        """
        payload = self.payload_of(stored)
        flat = out.reshape(-1).view(np.uint8)
        size = self.decoded_size(payload)
        if size == flat.size:
            self._decompress(payload, flat)
            return
        if size is None:  # else not decoded: a flipped bit may tell of terabytes
            content = self._decompress(payload)
            size = len(content)
        if size != flat.size:
            raise CorruptStoreError(
                f"expected a chunk of {flat.size} bytes, got {size} of codec {self.name}."
            )
        flat[:] = np.frombuffer(content, np.uint8)

    def view(self, stored: Any, like: Array) -> Array:
        """Check the bytes of one plain chunk as `decode_into`, and return them as the read-only chunk they are."""
        payload = self.payload_of(stored)
        if len(payload) != like.nbytes:
            raise CorruptStoreError(f"expected a chunk of {like.nbytes} bytes, got {len(payload)}.")
        return np.frombuffer(payload, like.dtype).reshape(like.shape)

    def decode(self, stored: Any, limit: int | None = None) -> bytes:
        """Check and decode a chunk; raises `CorruptStoreError` as `decode_into`, `InvalidInputError` as `decoded`."""
        return self.decoded(self.payload_of(stored), limit)

    def decoded(self, payload: Any, limit: int | None = None) -> bytes:
        """Decode a payload whose checksum is known; `InvalidInputError` where it says more than ``limit`` bytes."""
        if limit is not None and ((size := self.decoded_size(payload)) is None or size > limit):
            raise InvalidInputError(f"at most {limit} bytes were expected, got a frame that says {size}")
        return bytes(self._decompress(payload))

    def _decompress(self, payload: memoryview, out: Array | None = None) -> Any:
        try:
            return self.decompress(payload, out)
        except (RuntimeError, ValueError) as error:
            raise CorruptStoreError(f"expected a chunk of codec {self.name}, got {error}.") from None

    def payload_of(self, stored: Any) -> memoryview:
        """Return the payload, bytes, of a chunk whose trailing CRC-32C matches; else `CorruptStoreError`.

        One that checks itself is all payload, and is checked when it is decoded.
        """
        view = memoryview(stored).cast("B")
        if self.checks_itself:
            return view
        payload = view[:-CRC_BYTES]
        if len(view) < CRC_BYTES or crc32c(payload) != int.from_bytes(view[-CRC_BYTES:], "little"):
            raise CorruptStoreError("expected a chunk whose CRC-32C matches, got flipped or missing bytes.")
        return payload


def blosc_lz4(name: str, shuffle: int | None = None) -> Codec:
    """Return a codec of Blosc's LZ4 blocks; a shuffle of None is the measured best of the dtype.

    Of 32-bit floats whole bytes are shuffled: bits make them 4 % smaller, and take twice the time to read.
    """
    names = {blosc.NOSHUFFLE: "noshuffle", blosc.SHUFFLE: "shuffle", blosc.BITSHUFFLE: "bitshuffle"}

    def chosen(dtype: np.dtype[Any]) -> int:
        measured = blosc.SHUFFLE if dtype.itemsize == 4 else blosc.BITSHUFFLE
        return int(measured if shuffle is None else shuffle)

    def compressors(dtype: np.dtype[Any]) -> list[dict[str, Any]]:
        parameters = {
            "typesize": dtype.itemsize,
            "cname": "lz4",
            "clevel": 5,
            "shuffle": names[chosen(dtype)],
        }
        return [{"name": "blosc", "configuration": {**parameters, "blocksize": 0}}]

    return Codec(
        name=name,
        compressors=compressors,
        compress=lambda chunk: blosc.compress(chunk, b"lz4", 5, chosen(chunk.dtype)),
        decompress=_blosc_decompress,
        decoded_size=lambda payload: int.from_bytes(payload[4:8], "little"),
    )


def _blosc_decompress(payload: memoryview, out: Array | None = None) -> Any:
    """Return the bytes of a Blosc frame of its own length: the library reads as far as a frame says that it goes."""
    if len(payload) < 16 or int.from_bytes(payload[12:16], "little") != len(payload):
        raise ValueError(f"a frame of another length than its {len(payload)} bytes")
    return blosc.decompress(payload, out)


def _zstd_size(payload: memoryview) -> int | None:
    """Return the size in a frame's header: numcodecs fills a larger place in part, and reports nothing.

    RFC 8878, 3.1.1.1: a descriptor, a window unless all is one segment, a dictionary's id, and the size.
    """
    if len(payload) < 5:
        return None
    descriptor = payload[4]
    one_segment = descriptor >> 5 & 1
    width = (one_segment, 2, 4, 8)[descriptor >> 6]
    first = 5 + (1 - one_segment) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(payload[first : first + width], "little") + 256 * (width == 2)
    return size if width else None


_CODECS: Final = (
    Codec(
        name="none",
        compressors=lambda _: [],
        compress=lambda chunk: chunk.reshape(-1).view(np.uint8),
        decompress=lambda payload, _: payload,
        decoded_size=lambda _: None,
        is_plain=True,
    ),
    blosc_lz4("blosc-lz4"),
    Codec(
        name="zstd",
        compressors=lambda _: [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}],
        compress=lambda chunk: zstd.compress(chunk, 1),
        decompress=zstd.decompress,
        decoded_size=_zstd_size,
    ),
    Codec(
        name=UNSHARDED_CODEC,
        compressors=lambda _: [{"name": "zstd", "configuration": {"level": 1, "checksum": True}}],
        compress=lambda chunk: zstd.compress(chunk, 1, True),
        decompress=zstd.decompress,
        decoded_size=_zstd_size,
        checks_itself=True,
    ),
)
CODECS: Final[Mapping[str, Codec]] = MappingProxyType({codec.name: codec for codec in _CODECS})
"""The codecs that a store may be written with, by name."""
DEFAULT_CODECS: Final[Mapping[str, str]] = MappingProxyType(
    {"uint16": "none", "float32": "none", "float16": "blosc-lz4", "uint8": "blosc-lz4"}
)
"""The codec of each stored dtype unless another is asked for."""


def default_codec(dtype: str, shard: int) -> str:
    """Return the codec of pixels of ``dtype`` in shards of so many rows and columns; 0: a file a chunk."""
    return DEFAULT_CODECS[dtype] if shard else UNSHARDED_CODEC


def get_codec(name: str) -> Codec:
    """Return the codec called ``name``; `InvalidInputError` names the ones there are."""
    if name not in CODECS:
        raise InvalidInputError(f"codec must be one of {', '.join(CODECS)}, got {name!r}.")
    return CODECS[name]
