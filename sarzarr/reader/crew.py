"""The threads that fill batches ahead of their use, and the memory that batches live in.

One task makes one batch. What is delivered belongs to its user: memory is used again only when no array
looks into it any more.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from threading import local
from typing import Any, Self

import numpy as np

from sarzarr.arrays import Array
from sarzarr.conventions import Flag
from sarzarr.pixels.turns import apply, inverse
from sarzarr.reader.engine import MAX_HANDLES, Filler, Work
from sarzarr.reader.memory import BatchMemory, available_handles
from sarzarr.reader.places import Address, Source


# ------------------------------------------------------------------ threads
@dataclass(frozen=True, eq=False, kw_only=True)
class Companion:
    """A layer that is delivered beside patches, of the same windows and turned alike."""

    name: str
    """The layer's name."""
    source: Source
    """Where it comes from; values are as stored."""
    array: Array
    """(n, dates) int32: number in ``source`` of the array of each patch, on each of its dates."""
    dtype: str
    """Of what is delivered."""
    nodata: float | int | None
    """What stands beyond the edges; None where no patch reaches there."""

    @property
    def key(self) -> str:
        """What it is known by beside images and flags."""
        return f"layer {self.name}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Recipe:
    """What a batch is made of. Holds nothing open: it pickles."""

    images: Source
    """Where pixels come from."""
    array: Array
    """(n, channels) int32: number of each channel's array in ``images``."""
    row: Array
    """(n,) int32: first row of each patch, pixels."""
    col: Array
    """(n,) int32: first column."""
    plane: Array | None = None
    """(n,) int32: picture within a packed array; 0 if left out."""
    dtype: str = "float32"
    """Of the batches."""
    flags: Source | None = None
    """Where flags come from: each array's flags under the array's number. None where they are not needed."""
    dates: int = 0
    """Dates of a stack: channels are those of one date after another, and a batch has an axis more. 0: none."""
    layers: tuple[Companion, ...] = ()
    """What is delivered besides."""
    masks: bool = False
    """Whether what is not valid must be made 0: it was stored as 0, and is delivered above it."""

    @property
    def size(self) -> int:
        """Rows and columns of a patch."""
        return self.images.size

    def shape(self, patches: int) -> tuple[int, ...]:
        """Return the shape of a batch of so many patches."""
        channels = self.array.shape[1]
        axes = (self.dates, channels // self.dates) if self.dates else (channels,)
        return (patches, *axes, self.size, self.size)

    def address(self, patches: Array | slice, layer: Companion | None = None) -> Address:
        """Return where the planes of some patches come from, channel by channel; those of a layer date by date."""
        array = (self.array if layer is None else layer.array)[patches]
        channels = array.shape[1]

        def each(column: Array) -> Array:
            return np.repeat(column[patches].astype(np.int64), channels)

        return Address(
            array=array.reshape(-1).astype(np.int64),
            row=each(self.row),
            col=each(self.col),
            plane=None if self.plane is None else each(self.plane),
        )

    @cached_property
    def chunks(self) -> Mapping[str, Array]:
        """`Source.chunks` of all patches, (n, channels): worked out once, since a batch takes microseconds."""
        everything = self.address(slice(None))
        sources = {"images": self.images} | ({} if self.flags is None else {"flags": self.flags})
        found = {
            name: source.chunks(everything).reshape(self.array.shape) for name, source in sources.items()
        }
        for layer in self.layers:
            where = self.address(slice(None), layer)
            found[layer.key] = layer.source.chunks(where).reshape(layer.array.shape)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "chunks"}


@dataclass(eq=False)
class Crew:
    """Some threads and their fillers. A context manager: threads end and handles close on the way out."""

    recipe: Recipe
    """What batches are made of."""
    memory: BatchMemory
    """Where they are put."""
    threads: int
    """How many there are."""
    ahead: int
    """Batches that are made before they are asked for, besides one a thread."""
    work: Work = field(default_factory=Work)
    """What was delivered, by this crew and those before it."""
    _own: local = field(default_factory=local, init=False)
    _fillers: list[Filler] = field(default_factory=list, init=False)

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="sarzarr")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self.close()

    def close(self) -> None:
        """Close every handle."""
        for filler in self._fillers:
            filler.close()

    def run(self, make: Callable[..., Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield ``make(task)`` of each task, in order, made ahead."""
        waiting: deque[Future[Any]] = deque()
        for task in tasks:
            waiting.append(self._pool.submit(make, task))
            if len(waiting) > self.threads + self.ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def batch(self, patches: Array, turns: Array | None = None) -> tuple[Array, Array | None]:
        """Return (images, flags) of some patches, `Recipe.shape` each, turned by ``turns`` (n,).

        Pixels that are not valid are 0. Flags are None where the recipe has none.
        """
        recipe = self.recipe
        address = cache(lambda: recipe.address(patches))
        channels = recipe.array.shape[1]
        planes = None if turns is None else np.repeat(turns, channels)
        shape = recipe.shape(len(patches))
        images = self.memory.take(shape, recipe.dtype)
        self._fill("images", recipe.images, address, patches, images, planes)
        if recipe.flags is None:
            return images, None
        flags = self.memory.apart("flags").take(shape, np.uint8)
        self._fill("flags", recipe.flags, address, patches, flags, planes)
        _mark_outside(recipe.flags, address(), _flat(flags), planes, value=Flag.NODATA)
        if recipe.masks:
            np.copyto(images, 0, where=~Flag.is_valid(flags))
        return images, flags

    def layers(self, patches: Array, turns: Array | None = None) -> dict[str, Array]:
        """Return the layers of some patches by name, (n, 1, size, size) or (n, dates, 1, size, size) as stored."""
        recipe, out = self.recipe, {}
        for layer in recipe.layers:
            address = cache(partial(recipe.address, patches, layer))
            planes = None if turns is None else np.repeat(turns, layer.array.shape[1])
            dates = layer.array.shape[1:] if recipe.dates else ()
            shape = (len(patches), *dates, 1, recipe.size, recipe.size)
            values = self.memory.apart(layer.key).take(shape, layer.dtype)
            self._fill(layer.key, layer.source, address, patches, values, planes)
            if layer.nodata is not None:
                _mark_outside(layer.source, address(), _flat(values), planes, value=layer.nodata)
            out[layer.name] = values
        return out

    def _fill(
        self,
        name: str,
        source: Source,
        address: Callable[[], Address],
        patches: Array,
        out: Array,
        turns: Array | None,
    ) -> None:
        chunks = self.recipe.chunks[name][patches].reshape(-1)
        self._filler(name, source).fill(address, _flat(out), turns, chunks)

    def _filler(self, name: str, source: Source) -> Filler:
        """Return this thread's own filler."""
        filler: Filler | None = getattr(self._own, name, None)
        if filler is None:
            sources = 2 + len(self.recipe.layers)
            handles = max(min(available_handles() // (sources * self.threads), MAX_HANDLES), 1)
            filler = Filler(source, handles=handles, work=self.work)
            setattr(self._own, name, filler)
            self._fillers.append(filler)
        return filler


def _flat(batch: Array) -> Array:
    return batch.reshape(-1, *batch.shape[-2:])


def _mark_outside(
    source: Source, address: Address, planes: Array, turns: Array | None, *, value: float
) -> None:
    """Put ``value`` where planes lie beyond an array's right and bottom edge: nothing was stored there."""
    shape = source.table.shape[address.array]
    below, right = shape[:, 1] - address.row, shape[:, 2] - address.col
    for i in np.flatnonzero((below < source.size) | (right < source.size)).tolist():
        view = planes[i] if turns is None else apply(inverse(int(turns[i])), planes[i])
        view[max(int(below[i]), 0) :] = value
        view[:, max(int(right[i]), 0) :] = value
