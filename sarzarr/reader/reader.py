"""`PatchReader`: patches of a store's scenes as NumPy batches."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import Any, Unpack

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, MixedBoundsError, StoreChangedError
from sarzarr.keywords import shows_options
from sarzarr.patches.index import spec_of
from sarzarr.patches.selection import layouts, patch_facts, select
from sarzarr.patches.stacks.find import catalog_groups, choose_stacks
from sarzarr.patches.stacks.stack import Stack
from sarzarr.pixels.stretch import Stretch
from sarzarr.reader.epochs import EpochReader
from sarzarr.reader.layers import layer_recipes
from sarzarr.reader.options import ReadKeywords, ReadOptions
from sarzarr.reader.order import Indices
from sarzarr.reader.prefetch import BatchRecipe
from sarzarr.reader.targets import PatchTargets, patch_targets
from sarzarr.store.boxes import ON_SCENES, Windows, check_grids, read_boxes
from sarzarr.store.store import AnyStore


@shows_options(ReadOptions, ReadKeywords)
class PatchReader(EpochReader):
    """Iterate over a store's patches: ``(N, C, size, size)`` float32 in [0, 1], one array per batch.

    Each iteration is the next epoch. Pixels that are not valid are 0. With ``flags`` a batch is ``(images, flags)``,
    with ``boxes`` ``(images, targets)``, with both all three: a target is the dict of
    `sarzarr.reader.targets.PatchTargets.target`. Each of ``layers`` comes last, in their order: (N, 1, size, size) as
    stored, its nodata beyond the edges. All are turned alike. With ``with_meta`` a batch is a dict of ``image``,
    ``flags``, ``target`` and ``layers`` by name if any, ``turn`` (the operation of `sarzarr.pixels.turns`, 0 for
    none), ``scene``, ``array``, ``row``, ``col``, ``id``, ``crs`` (WKT), ``transform`` (of the patch before it was
    turned, in affine order) and the catalog's acquisition columns. With ``stack`` images and flags are
    ``(N, T, C, size, size)``, layers ``(N, T, 1, size, size)``: a patch passes on every date, is turned alike on all,
    and its dict says ``scene``, ``time``, ``seconds`` (since 1970, UTC) and the acquisition columns per date.
    Nothing is open between iterations: a reader pickles, and may be forked.

    Parameters
    ----------
    store
        A `Store`, or its path.
    **options
        The fields of `sarzarr.reader.options.ReadOptions`.

    Raises `CorruptStoreError` on opening where a shard is absent or short or its index fails its checksum, and on
    reading where a chunk does: no batch holds such a patch.
    """

    def __init__(self, store: AnyStore, **options: Unpack[ReadKeywords]) -> None:
        super().__init__(store, ReadOptions(**options))

    def _choose(self) -> None:
        o = self.options
        self.index = o.index_in(self.store)
        self.stacks: tuple[Stack, ...] = ()
        query = o.query(self.index)
        if o.stack is not False:
            self.stacks = choose_stacks(
                self.store, o.stack, scenes=o.scenes, polarizations=o.polarizations, length=o.stack_length
            )
            groups = catalog_groups(self.store, self.stacks)
            query = replace(query, scenes=None, polarizations=None, groups=groups, dates=len(self.stacks[0]))
        self.selection = select(self.store, query)
        self.recipe = self._recipe(is_all_valid=query.min_valid == 1 and not self.selection.is_padded)
        self._check_index()
        self._stack_of = {stack.id: stack for stack in self.stacks}
        self.targets = self._targets() if o.boxes else None

    def _check_index(self) -> None:
        """Raise `StoreChangedError` where the index was measured on other pixels than an array now has."""
        arrays = zip(self._column("scene"), self._column("name"), strict=True)
        for array, stamp, crc in zip(
            arrays, self.selection.stamps, self.recipe.images.source.table.crcs, strict=True
        ):
            if crc is not None and not stamp.startswith(f"{crc:08x}"):
                spec = spec_of(self.store, self.index)
                raise StoreChangedError(
                    f"patches of the pixels that {'/'.join(array)} now has were expected in index {spec.name!r}, got "
                    "those of others, which were replaced. Bring it up to date: "
                    f"sarzarr.index_patches({str(self.store.place)!r}, name={spec.name!r}, size={spec.size}, "
                    f"stride={spec.stride}, edge={spec.edge!r})."
                )

    def _recipe(self, *, is_all_valid: bool) -> BatchRecipe:
        chosen, options = self.selection, self.options
        arrays = layouts(self.store, chosen.catalog_row)
        if options.dtype == "uint16" and any(x.dtype != "uint16" for x in arrays):
            raise InvalidInputError("dtype 'uint16' needs arrays of codes, got others. Leave out dtype=.")
        laws: tuple[Stretch | None, ...] = (None,) * len(arrays)
        if options.dtype == "float32":
            laws = tuple(map(cache(Stretch.between), self._column("dtype"), self._stored(), self._clips()))
        masks = (
            options.augmentation.apply is not None and not is_all_valid
        )  # only flags tell what it may not change
        flags = None
        if options.delivers_flags or masks:
            of_flags = layouts(self.store, chosen.catalog_row, flags=True)
            flags = self._part("flags", of_flags, (None,) * len(laws), "uint8", cv.Flag.NODATA)
        return BatchRecipe(
            images=self._part("image", arrays, laws, options.dtype),
            row=chosen.row,
            col=chosen.col,
            flags=flags,
            dates=chosen.dates,
            layers=layer_recipes(self.store, options.layers, chosen) if options.layers else (),
            masks=masks,
        )

    def _targets(self) -> PatchTargets:
        name = cv.DEFAULT_INDEX if self.options.boxes is True else str(self.options.boxes)
        boxes = read_boxes(self.store, name)
        if boxes.on != ON_SCENES:
            raise InvalidInputError(
                f"boxes on scenes were expected, got {name!r}, which are on {boxes.on}. Read those with samples=."
            )
        scenes, chosen = self._column("scene"), self.selection
        check_grids(self.store, boxes, set(scenes))
        windows = Windows(owner=chosen.array[:, 0], row=chosen.row, col=chosen.col, size=chosen.shape[0])
        return patch_targets(boxes, scenes, windows, chosen.id, min_visible=self.options.min_visible)

    @property
    def bounds_keys(self) -> set[str]:
        """The groups of the arrays that are read, ``vv/sigma0``, each with a clip (dB) of its own."""
        return set(self._column("bounds_key"))

    @property
    def preprocessing_params(self) -> dict[str, Any]:
        """``{"vmin", "vmax"}`` in dB of 0 and 1 of the batches: two numbers, or two lists where channels differ.

        `MixedBoundsError` where the clips of groups within a channel differ.
        """
        clips, used = self._clips(), self.selection.array
        pairs = [{clips[i] for i in np.unique(used[:, channel]).tolist()} for channel in range(used.shape[1])]
        if max(map(len, pairs)) > 1:
            raise MixedBoundsError(
                f"one clip for each channel was expected, got {max(map(len, pairs))} in "
                f"{', '.join(sorted(self.bounds_keys))}. Select one group with polarizations= or scenes=, or pass "
                "clip=."
            )
        vmin, vmax = zip(*(pair for one in pairs for pair in one), strict=True)
        if len({*vmin}) == len({*vmax}) == 1:
            return {"vmin": vmin[0], "vmax": vmax[0]}
        return {"vmin": list(vmin), "vmax": list(vmax)}

    def _column(self, name: str) -> list[Any]:
        """Return a column of the catalog for each array that is read."""
        values: list[Any] = self.store.catalog[name].values[self.selection.catalog_row].tolist()
        return values

    def _stored(self) -> list[tuple[float, float]]:
        return list(zip(self._column("vmin"), self._column("vmax"), strict=True))

    def _clips(self) -> list[tuple[float, float]]:
        """Return the pair that each array is delivered with, dB."""
        if self.options.dtype == "uint16":
            return self._stored()
        clip, keys = self.options.clip, self._column("bounds_key")
        if isinstance(clip, Mapping):
            if missing := set(keys) - set(clip):
                raise InvalidInputError(
                    f"clips for {', '.join(sorted(set(keys)))} were expected, got none for "
                    f"{', '.join(sorted(missing))}. Name them in clip=."
                )
            return [clip[key] for key in keys]
        if clip is not None:
            return [clip] * len(keys)
        bounds = self.store.bounds
        return [(bounds[key].clip_vmin, bounds[key].clip_vmax) for key in keys]

    @cached_property
    def shards(self) -> Indices:
        """(n,) int64: the number of the file that each patch of the selection begins in."""
        chosen, table = self.selection, self.recipe.images.source.table
        array = chosen.array[:, 0].astype(np.int64)
        row, col = chosen.row // table.chunk[array, 1], chosen.col // table.chunk[array, 2]
        chunk = table.first_chunk[array] + row * table.grid[array, 2] + col
        file: Indices = table.entries["file"][chunk].astype(np.int64)
        return file

    def _described(self, patches: Array) -> dict[str, Any]:
        facts = patch_facts(self.store, self.selection, patches)
        if self.stacks:
            scenes = self._column("scene")
            stacks = [self._stack_of[scenes[i]] for i in self.selection.array[patches, 0].tolist()]
            facts["time"] = [[f"{stamp}Z" for stamp in stack.stamps] for stack in stacks]
            facts["seconds"] = np.array([stack.seconds for stack in stacks])
        return facts

    def __repr__(self) -> str:
        return f"<sarzarr.PatchReader {self.store.place.name!r}: {len(self.selection)} patches>"
