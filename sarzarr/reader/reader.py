"""`PatchReader`: a store's patches as NumPy batches, in an order that is a function of ``(seed, epoch)``."""

import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, MixedBoundsError
from sarzarr.patches.selection import Query, Selection, layouts, patch_facts, select, weights_of
from sarzarr.patches.stacks.find import catalog_groups, choose_stacks
from sarzarr.patches.stacks.stack import Stack
from sarzarr.pixels.stretch import Stretch
from sarzarr.pixels.turns import codes_of
from sarzarr.reader.augment import draw
from sarzarr.reader.crew import Crew, Recipe
from sarzarr.reader.engine import Work
from sarzarr.reader.layers import Places, companions
from sarzarr.reader.memory import MAX_THREADS, BatchMemory, available_cores
from sarzarr.reader.options import ReadOptions
from sarzarr.reader.order import Deal, Indices, Position, Share, drawn, shuffled, shuffled_in_window
from sarzarr.reader.places import Source
from sarzarr.reader.targets import PatchTargets, patch_targets
from sarzarr.store.boxes import ON_SCENES, Boxes, check_grids, read_boxes
from sarzarr.store.chunks import read_table
from sarzarr.store.store import Store, open_store

_ALL: Final = Share()


class PatchReader:
    """Iterate over a store's patches: ``(N, C, size, size)`` float32 in [0, 1], one array a batch.

    Each iteration is the next epoch. Pixels that are not valid are 0. With ``flags`` a batch is
    ``(images, flags)``, with ``boxes`` it is ``(images, targets)`` and with both all three: a target is the
    dict of `sarzarr.reader.targets.PatchTargets.target`, turned with its pixels. Each of ``layers`` comes last, in
    their order: (N, 1, size, size) as stored, its nodata beyond the edges, turned with its pixels. With
    ``with_meta`` a batch is a dict of ``image``, ``flags``, ``target`` if any, ``layers`` by name if any,
    ``turn`` (the operation of `sarzarr.pixels.turns`, 0 for none), ``scene``, ``array``, ``row``, ``col``, ``id``,
    ``crs`` (WKT), ``transform`` (of the patch before it was turned, in affine order) and the catalog's
    acquisition columns. With ``stack`` images and flags are ``(N, T, C, size, size)``, layers ``(N, T, 1, size,
    size)``: a patch passes on every date, is turned alike on all, and its dict says ``scene``, ``time``,
    ``seconds`` (since 1970, UTC) and the acquisition columns a date.
    Nothing is open between iterations: a reader pickles, and may be forked.

    Parameters
    ----------
    store
        A `Store`, or its path.
    **options
        The fields of `sarzarr.reader.options.ReadOptions`.

    Raises
    ------
    CorruptStoreError
        On opening: a shard is absent or short, or its index fails its checksum. While reading: a chunk
        does; no batch holds such a patch.
    """

    def __init__(self, store: Store | str | Path, **options: Any) -> None:
        self.options = ReadOptions.of(options)
        self.store = store if isinstance(store, Store) else open_store(store)
        self._choose()
        if self.options.drop_last and len(self.selection) < self.options.batch_size:
            raise InvalidInputError(
                f"drop_last needs patches for a batch of {self.options.batch_size}, got {len(self.selection)}. "
                "Ask for smaller batches, or leave it out."
            )
        self._next = Position()
        self._taken = 0
        self._now: Position | None = None
        self._memory: BatchMemory | None = None
        self._work = Work()
        self._own: tuple[int, Crew] | None = None

    def _choose(self) -> None:
        """Find out which patches are delivered, where they lie, and what is said of them."""
        self.index = self.options.index_in(self.store)
        self.stacks = self._stacks()
        self.selection: Selection = select(self.store, self._query())
        self.recipe = self._recipe()
        self.targets = self._targets() if self.options.boxes else None

    def _stacks(self) -> tuple[Stack, ...]:
        """Return the runs of dates that are delivered together; none where each date is."""
        o = self.options
        if o.stack is False:
            return ()
        return choose_stacks(
            self.store, o.stack, scenes=o.scenes, polarizations=o.polarizations, length=o.stack_length
        )

    def _query(self) -> Query:
        query = self.options.query(self.index)
        if not self.stacks:
            return query
        groups = catalog_groups(self.store, self.stacks)
        return replace(query, scenes=None, polarizations=None, groups=groups, dates=len(self.stacks[0]))

    def _recipe(self) -> Recipe:
        chosen, options = self.selection, self.options
        images = layouts(self.store, chosen.catalog_row)
        if options.dtype == "uint16" and any(x.dtype != "uint16" for x in images):
            raise InvalidInputError("dtype 'uint16' needs arrays of codes, got others. Leave out dtype=.")
        root, size, laws = self.store.root, chosen.size, self._stretches()
        # Where a stored 0 is delivered above 0, only flags tell what is not valid.
        is_lit = any(law is not None and law.dark > 0 for law in laws) and not self._is_all_valid
        flags = None
        if options.delivers_flags or is_lit:
            table = read_table(root, layouts(self.store, chosen.catalog_row, flags=True))
            flags = Source(table=table, stretches=(None,) * len(laws), size=size)
        return Recipe(
            images=Source(table=read_table(root, images), stretches=laws, size=size),
            array=chosen.array,
            row=chosen.row,
            col=chosen.col,
            dtype=options.dtype,
            flags=flags,
            dates=chosen.dates,
            layers=companions(self.store, options.layers, self._places) if options.layers else (),
            masks=is_lit,
        )

    @property
    def _places(self) -> Places:
        """Where the patches lie: what stands for a date is its first channel."""
        chosen = self.selection
        channels = chosen.array.shape[1] // max(chosen.dates, 1)
        return Places(
            scenes=self.store.catalog["scene"].values[chosen.catalog_row].tolist(),
            array=chosen.array[:, ::channels],
            row=chosen.row,
            col=chosen.col,
            size=chosen.size,
        )

    def _targets(self) -> PatchTargets:
        name = cv.DEFAULT_INDEX if self.options.boxes is True else str(self.options.boxes)
        chosen, boxes = self.selection, read_boxes(self.store, name)
        if boxes.on != ON_SCENES:
            raise InvalidInputError(
                f"boxes on scenes were expected, got {name!r}, which are on {boxes.on}. Read those with samples=."
            )
        scenes = self.store.catalog["scene"].values[chosen.catalog_row].tolist()
        check_grids(self.store, boxes, set(scenes))
        return self._targets_of(boxes, scenes, chosen.array[:, 0])

    def _targets_of(self, boxes: Boxes, owners: Sequence[str], owner: Array) -> PatchTargets:
        """Return what the patches show; ``owner`` (n,) is the number of each one's scene or sample."""
        chosen = self.selection
        return patch_targets(
            boxes,
            scenes=owners,
            scene=owner,
            row=chosen.row,
            col=chosen.col,
            ids=chosen.id,
            size=chosen.size,
            min_visible=self.options.min_visible,
        )

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
            keys = self.store.catalog["bounds_key"].values[self.selection.catalog_row].tolist()
            raise MixedBoundsError(
                f"one clip for the selection was expected, got {len(pairs)} in "
                f"{', '.join(sorted(set(keys)))}. Select one group with polarizations= or scenes=, or pass clip=."
            )
        vmin, vmax = pairs.pop()
        return {"vmin": vmin, "vmax": vmax}

    @property
    def layer_nodata(self) -> dict[str, float | int | None]:
        """What stands for "no data" in each layer that is delivered; None where nothing does."""
        return {layer.name: layer.nodata for layer in self.recipe.layers}

    @property
    def _is_all_valid(self) -> bool:
        return self.options.query(self.index).min_valid >= 1

    def _stored(self) -> list[tuple[float, float]]:
        catalog, rows = self.store.catalog, self.selection.catalog_row
        vmin, vmax = (catalog[k].values[rows].tolist() for k in ("vmin", "vmax"))
        return list(zip(vmin, vmax, strict=True))

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
        laws = list(zip(dtypes, self._stored(), self._clips(), strict=True))
        made = {law: Stretch.between(*law) for law in set(laws)}
        return tuple(made[law] for law in laws)

    # -------------------------------------------------------------- the epoch
    @property
    def epoch(self) -> int:
        """The epoch that the next iteration delivers."""
        return self._next.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration deliver ``epoch``, from its beginning."""
        self._next, self._now = Position(epoch=epoch), None

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
        patches: Indices = np.arange(n)
        if self._weights is not None:
            patches = drawn(self._weights, seed=o.seed, epoch=epoch)
        if o.shuffle == "window":
            shards = self.shards[patches]
            return patches[shuffled_in_window(shards, seed=o.seed, epoch=epoch, window=o.window)]
        return patches[shuffled(n, seed=o.seed, epoch=epoch)] if o.shuffle else patches

    def turns(self, epoch: int) -> Array | None:
        """Return the operation of each place in the order of an epoch; None without augmentation."""
        o = self.options
        return None if o.augment is None else draw(o.augment, len(self.selection), seed=o.seed, epoch=epoch)

    @cached_property
    def _weights(self) -> Array | None:
        if self.options.weights is None:
            return None
        return weights_of(self.store, self.selection, self.options.weights)

    @cached_property
    def shards(self) -> Indices:
        """The number of the file that each patch of the selection begins in."""
        chosen, table = self.selection, self.recipe.images.table
        array = chosen.array[:, 0].astype(np.int64)
        row, col = chosen.row // table.chunk[array, 1], chosen.col // table.chunk[array, 2]
        chunk = table.first_chunk[array] + row * table.grid[array, 2] + col
        file: Indices = table.entries["file"][chunk].astype(np.int64)
        return file

    def __iter__(self) -> Iterator[Any]:
        begin, self._next = self._next, Position(epoch=self._next.epoch + 1)
        self._now, self._taken = begin, 0
        for batch in self.batches(begin):
            self._taken += 1
            yield batch

    def batches(self, begin: Position, share: Share = _ALL) -> Iterator[Any]:
        """Yield one share of what is left of an epoch."""
        deal = self.deal(begin.start, share.ranks)
        order, turns = self.order(begin.epoch), self.turns(begin.epoch)
        threads = self.options.threads or max(min(MAX_THREADS, available_cores() // share.workers), 1)
        ahead = self.options.read_ahead
        memory = self.memory(threads + ahead + 2)
        with Crew(self.recipe, memory, threads=threads, ahead=ahead, work=self._work) as crew:

            def make(step: int) -> Any:
                a, b = deal.share(step, share.rank)
                turned = None if turns is None else turns[a:b]
                return self._batch(order[a:b], turned, crew)

            yield from crew.run(
                make, islice(deal.worker_steps(share.worker, share.workers), share.skip, None)
            )

    def read(self, patches: Sequence[int] | Array, turns: Sequence[int] | Array | None = None) -> Any:
        """Return one batch of patches of the selection by number, read now and in this thread.

        ``turns`` are operations of `sarzarr.pixels.turns`, one a patch. Files stay open, bounded in number, until
        the reader is gone.
        """
        chosen = np.asarray(patches, np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self.selection)):
            raise IndexError(f"patches must be in 0..{len(self.selection) - 1}, got {chosen.tolist()}.")
        codes = None if turns is None else codes_of(turns, len(chosen))
        return self._batch(chosen, codes, self._here)

    @property
    def _here(self) -> Crew:
        """The crew of this process for `read`: one that was forked from it makes its own."""
        if self._own is None or self._own[0] != os.getpid():
            crew = Crew(self.recipe, self.memory(2), threads=1, ahead=0, work=self._work)
            weakref.finalize(self, crew.close)
            self._own = os.getpid(), crew
        return self._own[1]

    def memory(self, keep: int = 0, make: Callable[[int], memoryview] | None = None) -> BatchMemory:
        """Return this process's memory of batches."""
        if self._memory is None:
            self._memory = BatchMemory(keep) if make is None else BatchMemory(keep, make)
        self._memory.keep = max(self._memory.keep, keep)
        return self._memory

    def _batch(self, patches: Array, turns: Array | None, crew: Crew) -> Any:
        images, flags = crew.batch(patches, turns)
        turn = np.zeros(len(patches), np.uint8) if turns is None else turns
        parts: dict[str, Any] = {"image": images}
        if self.options.delivers_flags:
            parts["flags"] = flags
        if self.targets is not None:
            each = zip(patches.tolist(), turn.tolist(), strict=True)
            parts["target"] = [self.targets.target(patch, operation) for patch, operation in each]
        layers = crew.layers(patches, turns)
        if self.options.with_meta:
            return {
                **parts,
                **({"layers": layers} if layers else {}),
                "turn": turn,
                **self._described(patches),
            }
        every = (*parts.values(), *layers.values())
        return every if len(every) > 1 else images

    def _described(self, patches: Array) -> dict[str, Any]:
        """Return what is known of some patches, for ``with_meta``."""
        return patch_facts(self.store, self.selection, patches) | self._times(patches)

    def _times(self, patches: Array) -> dict[str, Any]:
        """Return the times of the dates of some patches of stacks: as text, and in seconds since 1970."""
        if not self.stacks:
            return {}
        chosen = self.selection
        rows = chosen.catalog_row[chosen.array[patches, 0]]
        scenes = self.store.catalog["scene"].values[rows].tolist()
        stacks = [self._stack_of[scene] for scene in scenes]
        return {
            "time": [[f"{stamp}Z" for stamp in stack.stamps] for stack in stacks],
            "seconds": np.array([stack.seconds for stack in stacks]),
        }

    @cached_property
    def _stack_of(self) -> dict[str, Stack]:
        """The run of dates that begins with a scene."""
        return {stack.id: stack for stack in self.stacks}

    # -------------------------------------------------------------- resuming
    def state_dict(self) -> dict[str, Any]:
        """Return where this reader is: batches that were taken are behind it."""
        if self._now is None:
            return self.state_at(self._next)
        return self.state_at(self._now, taken=self._taken)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration go on where ``state`` was taken."""
        self._next, self._now = self.position_of(state), None

    def state_at(self, begin: Position, *, taken: int = 0, ranks: int = 1) -> dict[str, Any]:
        """Return the state in which ``taken`` batches a rank were taken of an iteration."""
        deal = self.deal(begin.start, ranks)
        is_over = taken >= deal.steps and taken > 0
        at = (
            Position(epoch=begin.epoch + 1)
            if is_over
            else Position(epoch=begin.epoch, start=deal.edge(taken))
        )
        return {"epoch": at.epoch, "start": at.start, **self._fingerprint}

    def position_of(self, state: Mapping[str, Any]) -> Position:
        """Return the place that a state says; `InvalidInputError` where its order was another."""
        for key, mine in self._fingerprint.items():
            if state.get(key) != mine:
                raise InvalidInputError(
                    f"a state with {key} {mine!r} was expected, got {state.get(key)!r}. "
                    "Resume with the selection, seed and shuffling that the state was taken with."
                )
        return Position(epoch=state["epoch"], start=state["start"])

    @property
    def _fingerprint(self) -> dict[str, Any]:
        """What the order of an epoch depends on, besides the epoch."""
        o = self.options
        shuffle = f"window {o.window}" if o.shuffle == "window" else bool(o.shuffle)
        weights = dict(o.weights) if isinstance(o.weights, Mapping) else o.weights
        return {"patches": len(self.selection), "seed": o.seed, "shuffle": shuffle, "weights": weights}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_memory": None, "_own": None}

    def __repr__(self) -> str:
        return f"<sarzarr.PatchReader {self.store.root.name!r}: {len(self.selection)} patches>"
