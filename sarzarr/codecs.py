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
    shuffle: int = blosc.NOSHUFFLE
    """Blosc's shuffle, where ``kind`` is ``blosc``."""

    def documents(self, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
        """Return the Zarr v3 codec list for chunks of ``dtype``."""
        endian = {} if dtype.itemsize == 1 else {"configuration": {"endian": "little"}}
        out: list[dict[str, Any]] = [{"name": "bytes", **endian}]
        if self.kind == "blosc":
            shuffle = {blosc.NOSHUFFLE: "noshuffle", blosc.SHUFFLE: "shuffle", blosc.BITSHUFFLE: "bitshuffle"}
            out.append(
                {
                    "name": "blosc",
                    "configuration": {
                        "typesize": dtype.itemsize,
                        "cname": "lz4",
                        "clevel": 5,
                        "shuffle": shuffle[self.shuffle],
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
            payload = blosc.compress(chunk, b"lz4", 5, self.shuffle)
        elif self.kind == "zstd":
            payload = zstd.compress(chunk, 1)
        else:
            payload = chunk.reshape(-1).view(np.uint8)
        return payload, crc32c(payload).to_bytes(CRC_BYTES, "little")

    def decode_into(self, stored: Any, out: np.ndarray[Any, Any]) -> None:
        """Check and decode the bytes of one chunk into ``out`` (C-contiguous, the whole chunk).

        Raises
        ------
        CorruptStoreError
            The checksum does not match, or the bytes do not decode to the size of ``out``.
        """
        payload = checked(stored)
        flat = out.reshape(-1).view(np.uint8)
        if self.kind == "blosc":
            blosc.decompress(payload, flat)
        elif self.kind == "zstd":
            zstd.decompress(payload, flat)
        elif len(payload) == flat.size:
            flat[:] = np.frombuffer(payload, np.uint8)
        else:
            raise CorruptStoreError(f"expected a chunk of {flat.size} bytes, got {len(payload)}.")

    def decode(self, stored: Any) -> bytes:
        """Check and decode the bytes of one chunk whose decoded size is not known."""
        payload = checked(stored)
        if self.kind == "blosc":
            return bytes(blosc.decompress(payload))
        return bytes(zstd.decompress(payload)) if self.kind == "zstd" else bytes(payload)


def checked(stored: Any) -> memoryview:
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
            Codec("blosc-lz4", "blosc", blosc.BITSHUFFLE),
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
