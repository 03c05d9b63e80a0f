"""Patches of an archive by number, read in place: each file is opened once a process, and none is loaded."""

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, MixedBoundsError
from sarzarr.ingestion.archives.npy import PatchArchive, PatchFile
from sarzarr.splits.samples.products import PatchOrigins
from sarzarr.store.place import read_at

STEP_BYTES: Final = 1 << 24
"""Bytes that are read at once where a file is read through."""


class ArchivePatches:
    """The patches of an archive by number, in the order of its files. Pickles without its open files."""

    def __init__(self, archive: PatchArchive) -> None:
        self.archive = archive
        self._begin()

    def _begin(self) -> None:
        self._handles: dict[int, int] = {}
        weakref.finalize(self, _close, self._handles)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def _starts(self) -> Array:
        """(files + 1,) int64: the number of each file's first patch, and of all."""
        return np.concatenate([[0], np.cumsum(self.archive.counts)]).astype(np.int64)

    def read(self, numbers: Sequence[int] | Array) -> Array:
        """Return patches (n, 1, rows, columns) float32 in [0, 1], new memory.

        Raises `IndexError` where there is no such patch; `InvalidInputError` where a value is not in [0, 1], or a
        file was cut since its header was read.
        """
        chosen = np.asarray(numbers, np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise IndexError(f"patches must be in 0..{len(self) - 1}, got {chosen.tolist()}.")
        files = np.searchsorted(self._starts[1:], chosen, "right")
        rows = chosen - self._starts[files]
        out = np.empty((len(chosen), 1, *self.archive.shape), "<f4")
        for place, file, row in zip(out, files.tolist(), rows.tolist(), strict=True):
            self._fill(place, file, row)
        if out.size and not (out.min() >= 0 and out.max() <= 1):  # false for NaN, too
            name = self.archive.files[int(files[0])].path.name
            raise InvalidInputError(
                f"patches in [0, 1] were expected, got {out.min():.4g} to {out.max():.4g} in {name!r} or another. "
                "Bring them into a store with `sarzarr import npy --representation db`, which normalizes them."
            )
        return out.astype(np.float32, copy=False)

    def _fill(self, place: Array, number: int, row: int) -> None:
        file = self.archive.files[number]
        view = place.reshape(-1).view(np.uint8).data
        with self._lock:  # a handle belongs to one thread where reads have no offset of their own
            if number not in self._handles:
                self._handles[number] = os.open(file.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            done, begin = 0, file.offset + row * file.patch_bytes
            while done < len(view):
                got = read_at(self._handles[number], [view[done:]], begin + done)
                if not got:
                    raise InvalidInputError(
                        f"{file.count} patches were expected in {file.path.name!r}, got fewer: it was cut while "
                        "it was read. Make it anew."
                    )
                done += got

    @property
    def origins(self) -> PatchOrigins:
        """The product and file of each patch; hashes are taken when they are asked for, and read every file."""
        files, counts = self.archive.files, self.archive.counts
        return PatchOrigins(
            product=np.repeat(np.array([file.product for file in files], object), counts),
            file=np.repeat(np.arange(len(files)), counts),
            size=self.archive.shape,
            stride=self.archive.stride,
            hashes_of=self._hashes,
            is_hashed=False,
        )

    def _hashes(self) -> Array:
        """Return (patches, 4) uint64: `quadrant_hashes` of every patch."""
        found = [quadrant_hashes(patch) for file in self.archive.files for patch in patches_of_file(file)]
        return np.array(found, np.uint64).reshape(-1, 4)

    @property
    def preprocessing_params(self) -> dict[str, float]:
        """``{"vmin", "vmax"}`` in dB of 0 and 1; `MixedBoundsError` where no metadata says so."""
        vmin, vmax = self.archive.vmin, self.archive.vmax
        if vmin is None or vmax is None:
            raise MixedBoundsError(
                f"vmin and vmax in dB were expected beside {self.archive.files[0].path.name!r}, got no metadata.npy. "
                "Read the patches by their metadata.npy."
            )
        return {"vmin": vmin, "vmax": vmax}

    def __getstate__(self) -> dict[str, Any]:
        return {"archive": self.archive}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.archive = state["archive"]
        self._begin()

    def __repr__(self) -> str:
        return f"<sarzarr.ArchivePatches: {len(self)} in {len(self.archive.files)} files>"


def _close(handles: dict[int, int]) -> None:
    for handle in handles.values():
        os.close(handle)


def patches_of_file(file: PatchFile, start: int = 0, stop: int | None = None) -> Iterator[Array]:
    """Yield the patches (rows, columns) of a file in its dtype, from ``start`` to before ``stop``, a few at a time.

    Raises `InvalidInputError` where the file has fewer: it was cut since its header was read.
    """
    stop = file.count if stop is None else stop
    step = max(STEP_BYTES // file.patch_bytes, 1)
    with file.path.open("rb", buffering=0) as stream:
        stream.seek(file.offset + start * file.patch_bytes)
        for first in range(start, stop, step):
            count = min(step, stop - first)
            values = np.fromfile(stream, file.dtype, count * file.height * file.width)
            if len(values) < count * file.height * file.width:
                raise InvalidInputError(
                    f"{file.count} patches were expected in {file.path.name!r}, got fewer: it was cut while it was "
                    "read. Make it anew."
                )
            yield from values.reshape(count, file.height, file.width)


def quadrant_hashes(patch: Array) -> tuple[int, int, int, int]:
    """Return uint64 hashes of the upper left, upper right, lower left and lower right quarter of (rows, columns).

    BLAKE2b of the values, little-endian: patches of one image that overlap by half of their side share one at least.
    A quarter of one value tells nothing of where it is, and has 0.
    """
    high, wide = (max(n // 2, 1) for n in patch.shape)
    quarters = (patch[:high, :wide], patch[:high, -wide:], patch[-high:, :wide], patch[-high:, -wide:])
    a, b, c, d = map(_hash, quarters)
    return a, b, c, d


def _hash(quarter: Array) -> int:
    values = np.ascontiguousarray(quarter)
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    if values.min() == values.max() or (values.dtype.kind == "f" and np.isnan(values).all()):
        return 0
    return int.from_bytes(blake2b(values.tobytes(), digest_size=8).digest(), "little")
