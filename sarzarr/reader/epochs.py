"""`EpochReader`: batches of a selection, epoch after epoch, dealt to ranks and taken up again anywhere."""

import copy
import os
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from hashlib import blake2b
from operator import index
from typing import Any, Final, Self, SupportsIndex, cast

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError, InvalidInputError, StoreChangedError
from sarzarr.patches.selection import Selection
from sarzarr.pixels.stretch import Stretch
from sarzarr.pixels.turns import TRANSPOSE
from sarzarr.reader.augment import Draws
from sarzarr.reader.cursor import Cursor
from sarzarr.reader.fetch import Work
from sarzarr.reader.memory import MAX_THREADS, BatchMemory, available_cores
from sarzarr.reader.options import ReadOptions
from sarzarr.reader.order import Deal, Indices, Position, Share, drawn, shuffled, shuffled_in_window
from sarzarr.reader.prefetch import BatchRecipe, PartRecipe, PrefetchThreads
from sarzarr.reader.sources import Source
from sarzarr.reader.targets import PatchTargets
from sarzarr.store.chunks import ChunkTable, read_chunk_table, read_layout
from sarzarr.store.store import AnyStore, Store, open_store

_ALL: Final = Share()
OPENING_TRIES: Final = 3
"""How often a store that is changed while it is opened is opened."""
OPENING_PAUSE: Final = 0.2
"""Seconds between."""
Laws = tuple[Stretch | None, ...]


class EpochReader(ABC):
    """Batches of whatever a subclass selects, float32 or as stored, in an order made of ``(seed, epoch)`` alone.

    Each iteration is the next epoch; one that is left after its first batch was a look, and moves nothing. Nothing is
    open between iterations: a reader pickles, and may be forked.
    """

    selection: Selection
    """The patches that are delivered."""
    recipe: BatchRecipe
    """The arrays that batches are made of."""
    targets: PatchTargets | None
    """The targets of the selection, where they are delivered."""
    share: Share
    """The part of an epoch that is this reader's: all of it, unless `for_rank` made it."""

    def __init__(self, store: AnyStore, options: ReadOptions) -> None:
        self.options = options
        self._open(store)
        if options.drop_last and len(self.selection) < options.batch_size:
            raise InvalidInputError(
                f"drop_last needs patches for a batch of {options.batch_size}, got {len(self.selection)}. "
                "Ask for smaller batches, or leave it out."
            )
        self._cursor = Cursor()
        self.share = _ALL
        self._orders: tuple[int, Indices, Draws] | None = None
        self._memory: BatchMemory | None = None
        self._work = Work(checks_once=options.check == "once", cache=cast("int | None", options.cache))
        self._own: dict[tuple[int, bool], PrefetchThreads] = {}

    def _open(self, store: AnyStore) -> None:
        """Choose from a store as it is; of one at a path that a writer changes meanwhile, from what it then is."""
        for more in range(0 if isinstance(store, Store) else OPENING_TRIES - 1, -1, -1):
            self.store = open_store(store)
            try:
                self._choose()
            except (CorruptStoreError, StoreChangedError) as error:
                if not (self.store.has_changed or isinstance(error, StoreChangedError)):
                    raise
                if not more:
                    raise StoreChangedError(
                        f"{self.store.place} as it was when it was opened was expected, got a changed one: {error} "
                        "If a writer is at work, open the store anew when it is done."
                    ) from None
                time.sleep(OPENING_PAUSE)
            else:
                return

    @abstractmethod
    def _choose(self) -> None:
        """Set `selection`, `recipe` and `targets`."""

    @abstractmethod
    def _described(self, patches: Array) -> dict[str, Any]:
        """Return what is known of some patches, for ``with_meta``."""

    @cached_property
    @abstractmethod
    def shards(self) -> Indices:
        """(n,) int64: the number of the file that each patch of the selection begins in."""

    @cached_property
    def weights(self) -> Array | None:
        """(n,) float64: how often each patch is drawn, against the others; None where all are once."""
        return None

    @property
    @abstractmethod
    def preprocessing_params(self) -> dict[str, Any]:
        """``{"vmin", "vmax"}`` in dB: what 0 and 1 of the batches stand for."""

    @property
    def layer_nodata(self) -> dict[str, float | int | None]:
        """The value of pixels that are "no data", by layer that is delivered; None where it has none."""
        return {layer.name: layer.outside for layer in self.recipe.layers}

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration delivers."""
        return self._cursor.upcoming.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration deliver ``epoch``: what a loaded state left of it, else from its beginning."""
        self._cursor.set_epoch(epoch)

    def for_rank(self, rank: int, ranks: int) -> Self:
        """Return a reader of the batches that are ``rank``'s, of ``ranks`` processes that train together.

        All ranks get equally many, and together each patch once an epoch. It begins where this one does.
        """
        other = copy.copy(self)
        other.share = Share(rank=rank, ranks=ranks)
        other._cursor = copy.deepcopy(self._cursor)
        return other

    def in_epoch(self, epoch: int) -> Self:
        """Return the reader whose selection is that of an epoch: this one, unless crops are drawn anew in each."""
        return self

    def deal(self, start: int = 0, ranks: int = 1) -> Deal:
        """Return the batches of an epoch as positions in its order (n,), from ``start`` on, for so many ranks."""
        o, n = self.options, len(self.selection)
        return Deal(n=n, batch_size=o.batch_size, ranks=ranks, drop_last=o.drop_last, start=start)

    def __len__(self) -> int:
        return self.deal(ranks=self.share.ranks).steps

    def __getitem__(self, number: SupportsIndex) -> Any:
        """Return a batch of the epoch that comes next, by its number among those that the iteration will give.

        It is read now and in this thread, moves nobody, and is what ``list(reader)[number]`` would be.
        """
        begin, share = self._cursor.upcoming, self.share
        deal, step = self.deal(begin.start, share.ranks), index(number)
        if not -deal.steps <= step < deal.steps:
            raise IndexError(
                f"a batch in {-deal.steps}..{deal.steps - 1} of what epoch {begin.epoch} has left was expected, "
                f"got {step}. Ask for one of them, or call set_epoch()."
            )
        chosen = self.in_epoch(begin.epoch)
        if self._orders is None or self._orders[0] != begin.epoch:
            order = chosen.order(begin.epoch)
            self._orders = begin.epoch, order, chosen.draws(begin.epoch, order)
        _, order, draws = self._orders
        a, b = deal.share(step % deal.steps, share.rank)
        return self.packed(chosen._parts(order[a:b], draws[a:b], chosen._own_threads(changes=True)))

    def order(self, epoch: int) -> Indices:
        """Return the patches of the selection, (n,) int64, in the order of an epoch."""
        o, n = self.options, len(self.selection)
        patches = np.arange(n) if self.weights is None else drawn(self.weights, seed=o.seed, epoch=epoch)
        if o.shuffle == "window":
            shards = self.shards[patches]
            return patches[shuffled_in_window(shards, seed=o.seed, epoch=epoch, window=o.window)]
        return patches[shuffled(n, seed=o.seed, epoch=epoch)] if o.shuffle else patches

    def draws(self, epoch: int, order: Indices) -> Draws:
        """Return the draws (n,) of the augmentation for each place in the order (n,) of an epoch."""
        return self.options.augmentation.drawn(self.selection.id[order], seed=self.options.seed, epoch=epoch)

    def __iter__(self) -> Iterator[Any]:
        return self._cursor.iterate(lambda begin: self.batches(begin, self.share))

    def batches(self, begin: Position, share: Share = _ALL) -> Generator[Any, None, None]:
        """Yield a share of what is left of an epoch: images (N, C, size, size) float32, or what `packed` returns."""
        return (self.packed(parts) for parts in self.parts(begin, share))

    def parts(self, begin: Position, share: Share) -> Iterator[dict[str, Any]]:
        """Yield the same as parts by name: ``image`` (N, C, size, size) float32, ``flags`` uint8, and so on."""
        deal, chosen = self.deal(begin.start, share.ranks), self.in_epoch(begin.epoch)
        order = chosen.order(begin.epoch)
        draws = chosen.draws(begin.epoch, order)
        threads = self.options.threads or max(min(MAX_THREADS, available_cores() // share.workers), 1)
        ahead = self.options.read_ahead
        memory = self.memory(threads + ahead + 2)
        with closing(
            PrefetchThreads(chosen.recipe.unclipped, memory, threads, ahead, self._work)
        ) as prefetch:

            def make(step: int) -> dict[str, Any]:
                a, b = deal.share(step, share.rank)
                return chosen._parts(order[a:b], draws[a:b], prefetch)

            yield from prefetch.run(make, deal.worker_steps(share.worker, share.workers)[share.skip :])

    def packed(self, parts: dict[str, Any]) -> Any:
        """Return a batch as delivered: a dict ``with_meta``, else images (N, C, size, size) float32, or all parts."""
        if self.options.with_meta:
            return parts
        layers = parts.pop("layers", {})
        every = (*parts.values(), *layers.values())
        return every if len(every) > 1 else every[0]

    def read(self, patches: Sequence[int] | Array, turns: Sequence[int] | Array | None = None) -> Any:
        """Return one batch of patches (n,) of the selection by number, read now and in this thread.

        ``turns`` (n,) are operations of `sarzarr.pixels.turns`; values are not augmented. Files stay open
        until the reader is gone.
        """
        chosen = np.asarray(patches, np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self.selection)):
            raise IndexError(f"patches must be in 0..{len(self.selection) - 1}, got {chosen.tolist()}.")
        turned = np.zeros(len(chosen), np.uint8) if turns is None else np.asarray(turns)
        is_one_each = turned.shape == chosen.shape and turned.dtype.kind in "iu"
        if not (is_one_each and np.isin(turned, range(8)).all()):
            raise InvalidInputError(
                f"{len(chosen)} operations from 0 to 7 were expected, got {turned.tolist()}. Mend turns=."
            )
        rows, cols = self.selection.shape
        if rows != cols and (turned & TRANSPOSE).any():
            raise InvalidInputError(
                f"operations from 0 to 3 were expected for images of {rows} x {cols} pixels, got {turned.tolist()}: "
                "a quarter turn needs a square. Pass augment='d4', which delivers one."
            )
        return self.packed(self._parts(chosen, Draws(turns=turned.astype(np.uint8)), self._own_threads()))

    def _own_threads(self, *, changes: bool = False) -> PrefetchThreads:
        """Return what reads in this thread, ``changes`` of values to be made or none.

        Who was forked from the process that opened the files opens its own.
        """
        key = os.getpid(), changes and self.recipe.ranges is not None
        if key not in self._own:
            recipe = self.recipe.unclipped if changes else self.recipe
            self._own[key] = PrefetchThreads(recipe, self.memory(2), threads=1, ahead=0, work=self._work)
            weakref.finalize(self, self._own[key].close)
        return self._own[key]

    def memory(self, keep: int = 0, kind: type[BatchMemory] | None = None) -> BatchMemory:
        """Return this process's memory of batches; made anew where another ``kind`` is asked for."""
        if self._memory is None or (kind is not None and type(self._memory) is not kind):
            self._memory = (kind or BatchMemory)(keep)
        self._memory.keep = max(self._memory.keep, keep)
        return self._memory

    def _table(self, array: str) -> ChunkTable:
        """Return the table of one array by its key; its manifest is read now."""
        return read_chunk_table(self.store.place, [read_layout(self.store.place, array)])

    def _part(
        self, name: str, table: ChunkTable, laws: Laws, dtype: str, outside: int | None = None
    ) -> PartRecipe:
        """Return the recipe of a part, read from the arrays of a table by the law of each."""
        source = Source(table=table, stretches=laws, shape=self.selection.shape)
        return PartRecipe(name=name, source=source, array=self.selection.array, dtype=dtype, outside=outside)

    def _parts(self, patches: Array, draws: Draws, prefetch: PrefetchThreads) -> dict[str, Any]:
        images, *others = prefetch.batch(patches, draws)
        parts: dict[str, Any] = {"image": images}
        if self.options.delivers_flags:
            parts["flags"] = others[0]
        if self.targets is not None:
            each = zip(patches.tolist(), draws.turns.tolist(), strict=True)
            parts["target"] = [self.targets.target(patch, operation) for patch, operation in each]
        if names := [layer.name for layer in self.recipe.layers]:
            parts["layers"] = dict(zip(names, others[-len(names) :], strict=True))
        if self.options.with_meta:
            parts |= {"turn": draws.turns, **self._described(patches)}
        return parts

    def state_dict(self) -> dict[str, Any]:
        """Return the position of this reader: batches that were taken of the last iteration are behind it."""
        begin, taken = self._cursor.standing
        return self.state_at(begin, taken=taken, ranks=self.share.ranks)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration go on where ``state`` was taken."""
        self._cursor.set(self.position_of(state))

    def state_at(self, begin: Position, *, taken: int = 0, ranks: int = 1) -> dict[str, Any]:
        """Return the state in which ``taken`` batches per rank were taken of an iteration."""
        deal = self.deal(begin.start, ranks)
        is_over = taken >= max(deal.steps, 1)
        start = 0 if is_over else deal.edge(taken)
        return {"epoch": begin.epoch + int(is_over), "start": start, **self.fingerprint}

    def position_of(self, state: Mapping[str, Any]) -> Position:
        """Return the place that a state says; `InvalidInputError` where its order was another."""
        for key, mine in self.fingerprint.items():
            if state.get(key) != mine:
                raise InvalidInputError(
                    f"a state with {key} {mine!r} was expected, got {state.get(key)!r}. "
                    "Resume with the selection, seed and shuffling that the state was taken with."
                )
        return Position(epoch=state["epoch"], start=state["start"])

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that the order of an epoch depends on, besides the epoch."""
        o = self.options
        shuffle = f"window {o.window}" if o.shuffle == "window" else bool(o.shuffle)
        weights: Any = dict(o.weights) if isinstance(o.weights, Mapping) else o.weights
        if isinstance(weights, np.ndarray):
            weights = blake2b(weights.tobytes(), digest_size=8).hexdigest()
        return {"patches": len(self.selection), "seed": o.seed, "shuffle": shuffle, "weights": weights}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_memory": None, "_own": {}, "_orders": None}
