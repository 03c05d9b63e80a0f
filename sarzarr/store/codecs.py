"""Chunk bytes: the codecs that a store is written with, each closed by a CRC-32C.

A codec here is the chain inside a shard. Its bytes are those of the Zarr v3 codecs that
``documents`` names, so any Zarr v3 reader decodes them, and every flipped bit is seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from crc32c import crc32c
from numcodecs import blosc, zstd

from sarzarr.errors import CorruptStoreError, InvalidInputError

CRC_BYTES: Final = 4


@dataclass(frozen=True)
class Codec:
    """One way to write a chunk; ``encode`` and ``decode_into`` are inverse to the bit."""

    name: str
    """As it stands in the catalog and behind ``--codec``."""
    kind: str
    """``bytes`` (none), ``blosc`` or ``zstd``."""
    shuffle: int | None = None
    """Blosc's shuffle, where ``kind`` is ``blosc``; None: the measured best of the dtype."""

    def documents(self, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
        """Return the Zarr v3 codec list for chunks of ``dtype``."""
        endian = {} if dtype.itemsize == 1 else {"configuration": {"endian": "little"}}
        out: list[dict[str, Any]] = [{"name": "bytes", **endian}]
        if self.kind == "blosc":
            names = {blosc.NOSHUFFLE: "noshuffle", blosc.SHUFFLE: "shuffle", blosc.BITSHUFFLE: "bitshuffle"}
            out.append(
                {
                    "name": "blosc",
                    "configuration": {
                        "typesize": dtype.itemsize,
                        "cname": "lz4",
                        "clevel": 5,
                        "shuffle": names[self._shuffle(dtype)],
                        "blocksize": 0,
                    },
                }
            )
        elif self.kind == "zstd":
            out.append({"name": "zstd", "configuration": {"level": 1, "checksum": False}})
        out.append({"name": "crc32c"})
        return out

    def encode(self, chunk: np.ndarray[Any, Any]) -> tuple[Any, bytes]:
        """Return (payload, checksum) of a C-contiguous little-endian chunk; their bytes follow each other.

        The payload of ``none`` is a view of ``chunk``: write it before the array changes.
        """
        payload: Any
        if self.kind == "blosc":
            payload = blosc.compress(chunk, b"lz4", 5, self._shuffle(chunk.dtype))
        elif self.kind == "zstd":
            payload = zstd.compress(chunk, 1)
        else:
            payload = chunk.reshape(-1).view(np.uint8)
        return payload, crc32c(payload).to_bytes(CRC_BYTES, "little")

    def _shuffle(self, dtype: np.dtype[Any]) -> int:
        """Of 32-bit floats whole bytes are shuffled: bits make them 4 % smaller, and take twice the time to read."""
        if self.shuffle is not None:
            return self.shuffle
        return int(blosc.SHUFFLE if dtype.itemsize == 4 else blosc.BITSHUFFLE)

    def decode_into(self, stored: Any, out: np.ndarray[Any, Any]) -> None:
        """Check and decode the bytes of one chunk into ``out`` (C-contiguous, the whole chunk).

        Raises
        ------
        CorruptStoreError
            The checksum does not match, or the bytes do not decode to the size of ``out``.
        """
        payload = payload_of(stored)
        flat = out.reshape(-1).view(np.uint8)
        if self._said_size(payload) == flat.size:
            self._decompress(payload, flat)
            return
        content = payload if self.kind == "bytes" else self._decompress(payload)
        if len(content) != flat.size:
            raise CorruptStoreError(f"expected a chunk of {flat.size} bytes, got {len(content)}.")
        flat[:] = np.frombuffer(content, np.uint8)

    def view(self, stored: Any, like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Check the bytes of one chunk that nothing encodes, and return them as the read-only chunk they are.

        Raises
        ------
        CorruptStoreError
            As `decode_into`.
        """
        payload = payload_of(stored)
        if len(payload) != like.nbytes:
            raise CorruptStoreError(f"expected a chunk of {like.nbytes} bytes, got {len(payload)}.")
        return np.frombuffer(payload, like.dtype).reshape(like.shape)

    def _said_size(self, payload: memoryview) -> int | None:
        """Return the decoded size that a payload's header says; None where it does not say.

        numcodecs fills a place that is larger than that in part, and reports nothing. For zstd see RFC 8878,
        3.1.1.1: a descriptor, a window unless all is one segment, a dictionary's id, and the size.
        """
        if self.kind == "blosc":
            return int.from_bytes(payload[4:8], "little")
        if self.kind == "bytes" or len(payload) < 5:
            return None
        descriptor = payload[4]
        one_segment = descriptor >> 5 & 1
        width = (one_segment, 2, 4, 8)[descriptor >> 6]
        first = 5 + (1 - one_segment) + (0, 1, 2, 4)[descriptor & 3]
        size = int.from_bytes(payload[first : first + width], "little") + 256 * (width == 2)
        return size if width else None

    def decode(self, stored: Any) -> bytes:
        """Check and decode the bytes of one chunk whose decoded size is not known.

        Raises
        ------
        CorruptStoreError
            As `decode_into`.
        """
        payload = payload_of(stored)
        return bytes(payload if self.kind == "bytes" else self._decompress(payload))

    def _decompress(self, payload: memoryview, out: np.ndarray[Any, Any] | None = None) -> Any:
        decompress = blosc.decompress if self.kind == "blosc" else zstd.decompress
        try:
            return decompress(payload, out)
        except (RuntimeError, ValueError) as error:
            raise CorruptStoreError(f"expected a chunk of codec {self.name}, got {error}.") from None


def payload_of(stored: Any) -> memoryview:
    """Return the payload of a chunk whose trailing CRC-32C matches; else `CorruptStoreError`."""
    view = memoryview(stored).cast("B")
    payload = view[:-CRC_BYTES]
    if len(view) < CRC_BYTES or crc32c(payload) != int.from_bytes(view[-CRC_BYTES:], "little"):
        raise CorruptStoreError("expected a chunk whose CRC-32C matches, got flipped or missing bytes.")
    return payload


CODECS: Final[Mapping[str, Codec]] = MappingProxyType(
    {
        c.name: c
        for c in (
            Codec("none", "bytes"),
            Codec("blosc-lz4", "blosc"),
            Codec("zstd", "zstd"),
        )
    }
)
"""The codecs that a store may be written with, by name."""
DEFAULT_CODECS: Final[Mapping[str, str]] = MappingProxyType(
    {"uint16": "none", "float32": "blosc-lz4", "float16": "blosc-lz4", "uint8": "blosc-lz4"}
)
"""The codec of each stored dtype unless another is asked for."""


def get_codec(name: str) -> Codec:
    """Return the codec called ``name``; `InvalidInputError` names the ones there are."""
    try:
        return CODECS[name]
    except KeyError:
        raise InvalidInputError(f"codec must be one of {', '.join(CODECS)}, got {name!r}.") from None
