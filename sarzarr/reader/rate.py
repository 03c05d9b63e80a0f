"""The rate at which this machine delivers a store, beside that of a plain copy of the same batches."""

import statistics
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Final, Unpack

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.keywords import shows_options
from sarzarr.pixels.compiled.when import loops
from sarzarr.reader.memory import MAX_THREADS, available_cores
from sarzarr.reader.options import ReadKeywords, ReadOptions
from sarzarr.reader.reader import PatchReader
from sarzarr.store.store import AnyStore

_ROUND_S: Final = 0.25
_KEPT_BYTES: Final = 1 << 28


@dataclass(frozen=True, kw_only=True)
class DeliveryRate:
    """The result of `measure_delivery`; prints as a small table."""

    patches: int
    """Patches of the selection."""
    batch_shape: tuple[int, ...]
    """Shape of a whole batch, (N, C, rows, columns)."""
    threads: int
    """Threads that filled batches."""
    opening_s: float
    """Time from the path to the first batch, seconds."""
    delivered: float
    """Patches per second, shuffled, checked and stretched; the median of the rounds."""
    copied: float
    """Patches per second that one thread copies from memory to memory, in the same rounds."""
    patch_bytes: int
    """Bytes of a delivered patch."""
    is_compiled: bool
    """Whether compiled loops took part."""

    def __str__(self) -> str:
        megabytes = self.patch_bytes / 1e6
        how = "compiled loops" if self.is_compiled else "NumPy alone"
        return (
            f"{self.patches:,} patches, batches of {self.batch_shape}, {self.threads} threads, {how}\n"
            f"first batch after  {self.opening_s:10.2f} s\n"
            f"delivered          {self.delivered:10,.0f} patches/s {self.delivered * megabytes:10,.0f} MB/s\n"
            f"copied in memory   {self.copied:10,.0f} patches/s {self.copied * megabytes:10,.0f} MB/s\n"
            f"delivered / copied {self.delivered / self.copied:10.2f}"
        )


@shows_options(ReadOptions, ReadKeywords, batch_size=32, shuffle=True)
def measure_delivery(
    store: AnyStore, *, seconds: float = 5.0, **options: Unpack[ReadKeywords]
) -> DeliveryRate:
    """Return how many patches and MB come per second, in turns with a plain copy of the same batches.

    Parameters
    ----------
    store
        The store, or its path. Where it fits into memory, it is the page cache that is measured.
    seconds
        How long to measure, about.
    **options
        The fields of `sarzarr.reader.options.ReadOptions`.
    """
    if not 0 < seconds < 3600:
        raise InvalidInputError(
            f"seconds above 0 and below 3600 were expected, got {seconds:g}. 5 are enough."
        )
    begin = time.perf_counter()
    reader = PatchReader(store, **options)
    batches = _images(reader)
    first = next(batches)
    opening = time.perf_counter() - begin
    kept = [first.copy()]
    loops()  # long trainings start them, so what they bring is measured, and what their start takes is not
    until = time.perf_counter() + seconds / 2
    while time.perf_counter() < until and sum(b.nbytes for b in kept) < _KEPT_BYTES:
        kept.append(next(batches).copy())
    rates: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or not rates:
        rates.append((_rate(batches), _rate(_copies(kept))))
    batches.close()
    delivered, copied = (statistics.median(column) for column in zip(*rates, strict=True))
    return DeliveryRate(
        patches=len(reader.selection),
        batch_shape=first.shape,
        threads=reader.options.threads or min(MAX_THREADS, available_cores()),
        opening_s=opening,
        delivered=delivered,
        copied=copied,
        patch_bytes=first[0].nbytes,
        is_compiled=loops() is not None,
    )


def _images(reader: PatchReader) -> Generator[Array, None, None]:
    """Yield the images of every batch, epoch after epoch."""
    while True:
        for batch in reader:
            first = batch["image"] if isinstance(batch, dict) else batch
            yield first[0] if isinstance(first, tuple) else first


def _copies(batches: list[Array]) -> Iterator[Array]:
    out = np.empty_like(batches[0])
    for batch in cycle(batches):
        np.copyto(out[: len(batch)], batch)
        yield batch


def _rate(batches: Iterator[Array]) -> float:
    taken, begin = 0, time.perf_counter()
    while (passed := time.perf_counter() - begin) < _ROUND_S:
        taken += len(next(batches))
    return taken / passed
