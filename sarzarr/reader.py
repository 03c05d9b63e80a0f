"""`PatchReader`: a store's patches as NumPy batches, in an order that is a function of ``(seed, epoch)``.

Batches are filled by a few threads, one task a batch, ahead of whoever takes them. What is delivered
belongs to its user: memory is used again only when nothing looks into it any more.
"""

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import local
from typing import Any, Final, Literal

import numpy as np

from sarzarr import conventions as cv
from sarzarr.augment import apply, check_kind, draw, inverse
from sarzarr.bounds import ClipBounds
from sarzarr.chunks import read_table
from sarzarr.engine import Address, Filler, Source
from sarzarr.errors import InvalidInputError, MixedBoundsError
from sarzarr.order import WINDOW_SHARDS, Deal, Indices, shuffled, shuffled_in_window
from sarzarr.selection import Query, layouts, select
from sarzarr.store import Store, open_store
from sarzarr.stretch import Stretch

Array = np.ndarray[Any, Any]
MAX_THREADS: Final = 4
"""Threads that fill batches, unless told otherwise: more hand each other the GIL more often than they work."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Every keyword of `PatchReader`."""

    split: str | None = None
    """``train``, ``val`` or ``test`` of the newest split version, ``v2:val`` of another; all if left out."""
    scenes: Sequence[str] | None = None
    """Ids of scenes; all if left out."""
    polarizations: Sequence[str] | None = None
    """Polarizations or names of arrays. Several become channels, of the scenes that have them all."""
    index: str = cv.DEFAULT_INDEX
    """The patch index."""
    min_valid: float | None = None
    """Least share of valid pixels: 1, or with ``flags`` anything above 0, unless given."""
    min_unsaturated: float = 0.9
    """Least share of the valid pixels strictly inside 1 % and 99 % of the recommended clip."""
    clip: tuple[float, float] | None = None
    """(vmin, vmax) in dB that batches are stretched to; the recommended one of each array if left out."""
    dtype: Literal["float32", "uint16"] = "float32"
    """``float32`` in [0, 1], or the ``uint16`` codes as stored."""
    flags: bool = False
    """Deliver the flags too."""
    batch_size: int = 8
    """Patches of a batch."""
    shuffle: bool | Literal["window"] = False
    """True: any patch anywhere in the epoch. ``window``: a few shards at a time. False: in the table's order."""
    window: int = WINDOW_SHARDS
    """Shards that ``shuffle="window"`` mixes."""
    augment: Literal["d4", "flips", "azimuth"] | None = None
    """Flips and quarter turns, drawn anew each epoch."""
    drop_last: bool = False
    """Leave out what does not fill a batch for every rank."""
    seed: int = 0
    """With the epoch, what order and augmentation depend on."""
    threads: int | None = None
    """Threads that fill batches: the cores that this process may use, 4 at most, unless given."""
    read_ahead: int = 2
    """Batches that are made before they are asked for, besides one a thread."""

    def __post_init__(self) -> None:
        check_kind(self.augment)
        for name, least in (("batch_size", 1), ("window", 1), ("read_ahead", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise InvalidInputError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if self.shuffle not in (True, False, "window"):
            raise InvalidInputError(f"shuffle must be True, False or 'window', got {self.shuffle!r}.")
        if self.dtype not in ("float32", "uint16"):
            raise InvalidInputError(f"dtype must be float32 or uint16, got {self.dtype!r}.")
        if self.clip is not None:
            object.__setattr__(self, "clip", tuple(ClipBounds(*self.clip)))

    @property
    def query(self) -> Query:
        """Which patches these options ask for."""
        default = 0.0 if self.flags else 1.0
        return Query(
            index=self.index,
            split=self.split,
            scenes=self.scenes,
            polarizations=self.polarizations,
            min_valid=default if self.min_valid is None else self.min_valid,
            min_unsaturated=self.min_unsaturated,
        )


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place in the endless sequence of epochs."""

    epoch: int = 0
    """The epoch, from 0."""
    start: int = 0
    """How many of its patches are behind all ranks."""

    def __post_init__(self) -> None:
        if self.epoch < 0 or self.start < 0:
            raise InvalidInputError(f"epoch and start must not be negative, got {self}.")


@dataclass(frozen=True, kw_only=True)
class Share:
    """Whose part of an epoch is read: every batch of ``rank``, of which ``worker`` makes each ``workers``-th."""

    rank: int = 0
    """This process among those that train together."""
    ranks: int = 1
    """How many there are."""
    worker: int = 0
    """This worker of the rank."""
    workers: int = 1
    """How many there are."""
    skip: int = 0
    """Batches of this share to leave out at its beginning."""


class PatchReader:
    """Iterate over a store's patches: ``(N, C, size, size)`` float32 in [0, 1], one array a batch.

    Each iteration is the next epoch. With ``flags`` a batch is ``(images, flags)``; pixels that are not
    valid are 0. Nothing is open between iterations: a reader pickles, and may be forked.

    Parameters
    ----------
    store
        A `Store`, or its path.
    **options
        The fields of `ReadOptions`.

    Raises
    ------
    CorruptStoreError
        A shard is absent, short or fails its checksum; on opening for an index, else when its chunk is read.
    """

    def __init__(self, store: Store | str | Path, **options: Any) -> None:
        self.store = store if isinstance(store, Store) else open_store(store)
        self.options = _options(options)
        self.selection = select(self.store, self.options.query)
        rows = self.selection.catalog_row
        images = layouts(self.store, rows)
        if self.options.dtype == "uint16" and any(x.dtype != "uint16" for x in images):
            raise InvalidInputError("dtype 'uint16' needs arrays of codes, got others. Leave out dtype=.")
        self.source = Source(
            table=read_table(self.store.root, images), stretches=self._stretches(), size=self.selection.size
        )
        self.flags: Source | None = None
        if self.options.flags or self._is_dark_lit():
            table = read_table(self.store.root, layouts(self.store, rows, flags=True))
            self.flags = Source(table=table, stretches=(None,) * len(rows), size=self.selection.size)
        self._next = Position()

    # -------------------------------------------------------------- what is delivered
    @property
    def preprocessing_params(self) -> dict[str, float]:
        """``{"vmin", "vmax"}`` in dB: what 0 and 1 of the batches stand for.

        Raises
        ------
        MixedBoundsError
            The selection spans groups whose clips differ.
        """
        pairs = set(self._clips())
        if len(pairs) != 1:
            keys = self.store.catalog["bounds_key"].values[self.selection.catalog_row]
            raise MixedBoundsError(
                f"one clip for the selection was expected, got {len(pairs)} in {', '.join(sorted(set(keys)))}. "
                "Select one group with polarizations= or scenes=, or pass clip=."
            )
        vmin, vmax = pairs.pop()
        return {"vmin": vmin, "vmax": vmax}

    def _stored(self) -> list[tuple[float, float]]:
        catalog, rows = self.store.catalog, self.selection.catalog_row
        return list(
            zip(catalog["vmin"].values[rows].tolist(), catalog["vmax"].values[rows].tolist(), strict=True)
        )

    def _clips(self) -> list[tuple[float, float]]:
        """Return the pair that each array is delivered with."""
        if self.options.dtype == "uint16":
            return self._stored()
        keys = self.store.catalog["bounds_key"].values[self.selection.catalog_row].tolist()
        if self.options.clip is not None:
            return [self.options.clip] * len(keys)
        bounds = {key: self.store.bounds[key].clip for key in set(keys)}
        return [(bounds[key].vmin, bounds[key].vmax) for key in keys]

    def _stretches(self) -> tuple[Stretch | None, ...]:
        rows = self.selection.catalog_row
        if self.options.dtype == "uint16":
            return (None,) * len(rows)
        dtypes = self.store.catalog["dtype"].values[rows].tolist()
        laws = zip(dtypes, self._stored(), self._clips(), strict=True)
        known: dict[Any, Stretch] = {}
        return tuple(known.setdefault(law, Stretch.between(*law)) for law in laws)

    def _is_dark_lit(self) -> bool:
        """Return whether a stored 0 is delivered above 0, so that only flags tell what is not valid."""
        lit = any(s is not None and s.dark > 0 for s in self.source.stretches)
        return lit and self.options.query.min_valid < 1

    # -------------------------------------------------------------- the epoch
    @property
    def epoch(self) -> int:
        """The epoch that the next iteration delivers."""
        return self._next.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration deliver ``epoch``, from its beginning."""
        self._next = Position(epoch=epoch)

    def deal(self, start: int = 0, ranks: int = 1) -> Deal:
        """Return how an epoch becomes batches, from ``start`` patches on, for so many ranks."""
        o = self.options
        return Deal(
            n=len(self.selection), batch_size=o.batch_size, ranks=ranks, drop_last=o.drop_last, start=start
        )

    def __len__(self) -> int:
        return self.deal().steps

    def order(self, epoch: int) -> Indices:
        """Return the patches of the selection in the order of an epoch."""
        o, n = self.options, len(self.selection)
        if o.shuffle == "window":
            return shuffled_in_window(self._shards, seed=o.seed, epoch=epoch, window=o.window)
        return shuffled(n, seed=o.seed, epoch=epoch) if o.shuffle else np.arange(n)

    @cached_property
    def _shards(self) -> Indices:
        """The number of the file that each patch begins in."""
        s, t = self.selection, self.source.table
        array = s.array[:, 0].astype(np.int64)
        row, col = s.row // t.chunk[array, 1], s.col // t.chunk[array, 2]
        chunk = t.first_chunk[array] + row * t.grid[array, 2] + col
        file: Indices = t.entries["file"][chunk].astype(np.int64)
        return file

    def __iter__(self) -> Iterator[Any]:
        begin, self._next = self._next, Position(epoch=self._next.epoch + 1)
        return self.batches(begin)

    def batches(self, begin: Position = Position(), share: Share = Share()) -> Iterator[Any]:
        """Yield one share of what is left of an epoch."""
        deal = self.deal(begin.start, share.ranks)
        sequence = self.order(begin.epoch)
        kind, seed = self.options.augment, self.options.seed
        turns = None if kind is None else draw(kind, sequence.size, seed=seed, epoch=begin.epoch)

        def make(step: int, crew: "_Crew") -> Any:
            a, b = deal.share(step, share.rank)
            return crew.make(sequence[a:b], None if turns is None else turns[a:b])

        steps = deal.worker_steps(share.worker, share.workers)
        return self._ahead(make, islice(steps, share.skip, None))

    def _ahead(self, make: Callable[[int, "_Crew"], Any], steps: Iterable[int]) -> Iterator[Any]:
        """Yield what ``make`` gives for each step, made by threads ahead of their use."""
        threads = self.options.threads or min(MAX_THREADS, available_cores())
        crew = _Crew(self, threads)
        waiting: deque[Future[Any]] = deque()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="sarzarr")
        try:
            for step in steps:
                waiting.append(pool.submit(make, step, crew))
                if len(waiting) > threads + self.options.read_ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            crew.close()

    def __repr__(self) -> str:
        return f"<sarzarr.PatchReader {self.store.root.name!r}: {len(self.selection)} patches>"


def _options(options: dict[str, Any]) -> ReadOptions:
    known = [f.name for f in fields(ReadOptions)]
    for name in options:
        if name not in known:
            raise InvalidInputError(f"options must be among {', '.join(known)}, got {name!r}.")
    return ReadOptions(**options)


def available_cores() -> int:
    """Return how many cores this process may use: the smaller of its affinity and its cgroup's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(min(cores, int(quota) // int(period)), 1)
    except (OSError, ValueError):  # no such file, or "max"
        return max(cores, 1)


# ------------------------------------------------------------------ who makes the batches
@dataclass(eq=False)
class _Crew:
    """The threads of one iteration: their fillers, and the memory that batches are made in."""

    reader: PatchReader
    """What is read."""
    threads: int
    """How many there are."""
    _own: local = field(default_factory=local, init=False)
    _fillers: list[Filler] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.pool = BatchMemory(keep=self.threads + self.reader.options.read_ahead + 2)

    def _filler(self, name: str, source: Source) -> Filler:
        filler: Filler | None = getattr(self._own, name, None)
        if filler is None:
            filler = Filler(source)
            setattr(self._own, name, filler)
            self._fillers.append(filler)
        return filler

    def make(self, patches: Indices, turns: Array | None) -> Any:
        """Return the batch of some patches of the selection."""
        reader, selection = self.reader, self.reader.selection
        array = selection.array[patches]
        n, channels = array.shape
        address = Address(
            array=array.reshape(-1).astype(np.int64),
            row=np.repeat(selection.row[patches].astype(np.int64), channels),
            col=np.repeat(selection.col[patches].astype(np.int64), channels),
        )
        turned = None if turns is None else np.repeat(turns, channels)
        shape = (n, channels, selection.size, selection.size)
        images = self.pool.take(shape, np.dtype(reader.options.dtype))
        flat = images.reshape(-1, selection.size, selection.size)
        self._filler("images", reader.source).fill(address, flat, turned)
        if reader.flags is None:
            return images
        flags = self.pool.take(shape, np.dtype(np.uint8))
        marked = flags.reshape(flat.shape)
        self._filler("flags", reader.flags).fill(address, marked, turned)
        _mark_outside(reader.flags, address, marked, turned)
        np.copyto(images, 0, where=flags >= cv.Flag.NODATA)
        return (images, flags) if reader.options.flags else images

    def close(self) -> None:
        """Close every handle."""
        for filler in self._fillers:
            filler.close()


def _mark_outside(source: Source, address: Address, flags: Array, turns: Array | None) -> None:
    """Flag what lies beyond an array's right and bottom edge."""
    shape = source.table.shape[address.array]
    over = np.flatnonzero(
        (address.row + source.size > shape[:, 1]) | (address.col + source.size > shape[:, 2])
    )
    for i in over.tolist():
        view = flags[i] if turns is None else apply(inverse(int(turns[i])), flags[i])
        view[max(int(shape[i, 1] - address.row[i]), 0) :] = cv.Flag.NODATA
        view[:, max(int(shape[i, 2] - address.col[i]), 0) :] = cv.Flag.NODATA


@dataclass(eq=False)
class BatchMemory:
    """Memory of batches, used again once no array looks into it."""

    keep: int
    """Blocks that are kept for use again; more are made when they are needed."""
    _free: deque[memoryview] = field(default_factory=deque, init=False)
    _refs: dict[int, Any] = field(default_factory=dict, init=False)

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array whose values are arbitrary."""
        wanted = int(np.prod(shape)) * dtype.itemsize
        block = self._take_block(wanted)
        out: Array = np.ndarray(shape, dtype, buffer=block)
        # Every view of `out`, and every tensor made of it, holds `out` itself: its base is no array.
        free, refs, keep = self._free, self._refs, self.keep

        def give_back(ref: Any) -> None:
            del refs[id(ref)]
            if len(free) < keep:
                free.append(block)

        watch = weakref.ref(out, give_back)
        refs[id(watch)] = watch  # a weak reference that is itself forgotten calls nobody
        return out

    def _take_block(self, wanted: int) -> memoryview:
        """Return the block that came back last, which is likeliest to be in cache still, or a new one."""
        while self._free:
            try:
                block = self._free.pop()
            except IndexError:  # another thread was quicker
                break
            if wanted <= block.nbytes:
                return block
        return np.empty(wanted, np.uint8).data
