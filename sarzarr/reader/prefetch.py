"""The threads that fill batches ahead of their use, and the recipe that they fill them by.

One task makes one batch, which belongs to its user: memory is used again only when no array looks into it any more.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from threading import get_ident
from typing import Any

import numpy as np

from sarzarr.arrays import Array
from sarzarr.conventions import Flag
from sarzarr.pixels.stretch import Stretch
from sarzarr.pixels.turns import apply, inverse
from sarzarr.reader.augment import Draws
from sarzarr.reader.cache import cache_rows
from sarzarr.reader.engine import BatchFiller
from sarzarr.reader.fetch import ChunkFetcher, Work
from sarzarr.reader.memory import MAX_HANDLES, BatchMemory, available_handles
from sarzarr.reader.scales import ScaledPart, Scaling
from sarzarr.reader.sources import Address, Source


@dataclass(frozen=True, eq=False, kw_only=True)
class PartRecipe:
    """One array of a batch: its images, their flags, or a layer. All are of the same windows, and turned alike."""

    name: str
    """``image``, ``flags``, or the layer's name."""
    source: Source
    """The arrays that its planes are read from."""
    array: Array
    """(n, planes) int32: number in ``source`` of the array of each plane, a channel or a date of a patch."""
    dtype: str
    """The dtype that is delivered: float32, float16, bfloat16 (its bits, uint16), or the stored one."""
    outside: float | int | None = None
    """The value beyond an array's right and bottom edge; its fill value if None."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchRecipe:
    """The arrays that a batch is made of, and the windows of its patches. Holds nothing open: it pickles."""

    images: PartRecipe
    """The images; their planes are channels, of a stack those of one date after another."""
    row: Array
    """(n,) int32: first row of each patch, pixels."""
    col: Array
    """(n,) int32: first column, pixels."""
    plane: Array | None = None
    """(n,) int32, or (n, planes) where they differ: picture within a packed array; 0 if left out."""
    flags: PartRecipe | None = None
    """The flags, each array's under the array's number; None where they are not needed."""
    layers: tuple[PartRecipe, ...] = ()
    """The layers that are delivered beside; their planes are dates."""
    dates: int = 0
    """Dates of a stack: a batch has an axis more. 0: none."""
    masks: bool = False
    """Whether what is not valid must be made 0: an augmentation lifts it above 0."""
    ranges: Array | None = None
    """(arrays, 4) float64, where an augmentation changes power: the stored (vmin, vmax) of each array of the images,
    and those that it is delivered with, dB."""
    scaling: Scaling | None = None
    """Where patches are scaled: the windows that they are made of; None where those are of the patches' size."""

    @property
    def unclipped(self) -> "BatchRecipe":
        """The recipe whose images come in [0, 1] of the stored range, where ``ranges`` are there."""
        if self.ranges is None:
            return self
        source = self.images.source
        pairs = zip(source.table.layouts, self.ranges[:, :2].tolist(), strict=True)
        laws = tuple(Stretch.between(layout.dtype, stored, stored) for layout, stored in pairs)
        scaling = None if self.scaling is None else self.scaling.unclipped
        return replace(
            self, images=replace(self.images, source=replace(source, stretches=laws)), scaling=scaling
        )

    @property
    def parts(self) -> tuple[PartRecipe, ...]:
        """Every part: images, flags (uint8) if any, layers."""
        return (self.images, *([] if self.flags is None else [self.flags]), *self.layers)

    def shape(self, part: PartRecipe, patches: int) -> tuple[int, ...]:
        """Return the shape of a part of so many patches: (patches, planes, rows, columns), by dates if any."""
        planes = part.array.shape[1]
        axes = (self.dates, planes // self.dates) if self.dates else (planes,)
        return (patches, *axes, *self.images.source.shape)

    def address(self, part: PartRecipe, patches: Array | slice) -> Address:
        """Return the addresses of a part's planes, int64 (patches * planes,), of some patches."""
        array = part.array[patches]

        def each(column: Array) -> Array:
            return np.repeat(column[patches].astype(np.int64), array.shape[1])

        return Address(
            array=array.reshape(-1).astype(np.int64),
            row=each(self.row),
            col=each(self.col),
            plane=None if self.plane is None else self._planes(part, patches),
        )

    def _planes(self, part: PartRecipe, patches: Array | slice) -> Array:
        """Return the picture (patches * planes,) of each plane, one for all of a patch or one for each."""
        plane = np.asarray(self.plane)[patches].astype(np.int64)
        shape = len(plane), part.array.shape[1]
        return np.broadcast_to(plane.reshape(len(plane), -1), shape).reshape(-1)

    @cached_property
    def chunks(self) -> tuple[Array, ...]:
        """`Source.chunks` of all patches, (n, planes) a part: worked out once, since a batch takes microseconds."""
        return tuple(
            part.source.chunks(self.address(part, slice(None))).reshape(part.array.shape)
            for part in self.parts
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "chunks"}


@dataclass(eq=False)
class PrefetchThreads:
    """Some threads, which start with their first batch, and their fillers."""

    recipe: BatchRecipe
    """The batches that they fill."""
    memory: BatchMemory
    """The memory that batches live in."""
    threads: int
    """Their number."""
    ahead: int
    """Batches that are made before they are asked for, besides one per thread."""
    work: Work = field(default_factory=Work)
    """Count of pixels that were delivered, by these threads and those before them."""
    _fillers: dict[tuple[int, int, int], BatchFiller] = field(default_factory=dict, init=False)
    _unscaled: dict[tuple[int, int], Source] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="sarzarr")

    def close(self) -> None:
        """End the threads, and close every handle."""
        self._pool.shutdown(cancel_futures=True)
        for filler in self._fillers.values():
            filler.fetcher.close()

    def run(self, make: Callable[..., Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield ``make(task)`` of each task, in order, made ahead."""
        waiting: deque[Future[Any]] = deque()
        for task in tasks:
            waiting.append(self._pool.submit(make, task))
            if len(waiting) > self.threads + self.ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def batch(self, patches: Array, draws: Draws) -> list[Array]:
        """Return the parts of some patches (n,), augmented by theirs; pixels of images that are not valid are 0."""
        parts = [self._filled(i, part, patches, draws.turns) for i, part in enumerate(self.recipe.parts)]
        ranges = self.recipe.ranges
        if ranges is not None:
            ranges = ranges[self.recipe.images.array[patches]].reshape(*parts[0].shape[:-2], 4)
        draws.change(parts[0], ranges)
        if self.recipe.masks:
            np.copyto(parts[0], 0, where=~Flag.is_valid(parts[1]))
        return parts

    def _filled(self, number: int, part: PartRecipe, patches: Array, turns: Array) -> Array:
        kept = "uint16" if part.dtype == "bfloat16" else part.dtype  # NumPy has no such dtype: its bits
        out = self.memory.take(self.recipe.shape(part, len(patches)), kept, number)
        planes = out.reshape(-1, *out.shape[-2:])
        if (scaling := self.recipe.scaling) is not None:
            each = part.array.shape[1]
            scaled = ScaledPart(
                scaling=scaling,
                kind="image" if number == 0 else "flags" if part is self.recipe.flags else "layer",
                dtype=part.dtype,
                outside=part.outside,
                address=self.recipe.address(part, patches),
                span=np.repeat(scaling.span[patches], each),
                turns=np.repeat(turns, each),
            )
            scaled.fill(lambda span: self._filler(number, part.source, span), planes)
            return out
        operations = np.repeat(turns, part.array.shape[1]) if turns.any() else None
        address = cache(lambda: self.recipe.address(part, patches))
        chunks = self.recipe.chunks[number][patches].reshape(-1)
        self._filler(number, part.source).fill(address, planes, operations, chunks)
        if (
            part.outside is not None
        ):  # the value beyond an array's right and bottom edge, where nothing is stored
            shape, (rows, cols) = part.source.table.shape[address().array], part.source.shape
            below, right = shape[:, 1] - address().row, shape[:, 2] - address().col
            for i in np.flatnonzero((below < rows) | (right < cols)).tolist():
                view = planes[i] if operations is None else apply(inverse(int(operations[i])), planes[i])
                view[max(int(below[i]), 0) :] = part.outside
                view[:, max(int(right[i]), 0) :] = part.outside
        return out

    @cached_property
    def _keeps(self) -> list[tuple[int, int]]:
        sources = [part.source for part in self.recipe.parts]
        return cache_rows(sources, self.work.cache, is_whole=bool((self.recipe.chunks[0] >= 0).all()))

    def _filler(self, number: int, source: Source, span: int = 0) -> BatchFiller:
        """Return this thread's own filler of a part; with ``span``, of windows of that size, as they are stored."""
        key = get_ident(), number, span
        if span and key not in self._fillers:
            same = copy.copy(self._filler(number, source).fetcher)  # its files and memory, too
            same.source = self._stored(number, source, span)
            self._fillers[key] = BatchFiller(same)
        if key not in self._fillers:
            sources = 2 + len(self.recipe.layers)
            handles = max(min(available_handles() // (sources * self.threads), MAX_HANDLES), 1)
            fetcher = ChunkFetcher(source, handles, self.work, number, self._keeps[number])
            self._fillers[key] = BatchFiller(fetcher)
        return self._fillers[key]

    def _stored(self, number: int, source: Source, span: int) -> Source:
        """Return the source of windows of a size, neither turned nor stretched."""
        if (number, span) not in self._unscaled:
            plain = (None,) * len(source.stretches)
            self._unscaled[number, span] = replace(source, stretches=plain, shape=(span, span))
        return self._unscaled[number, span]
