"""Crops of an epoch: windows that are drawn, or patches that are moved, by (seed, epoch) alone."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import NothingChosenError
from sarzarr.patches.crops import CropGround, Fit, drawn_crops
from sarzarr.patches.cut import patch_ids
from sarzarr.patches.selection import Query, Selection, chunk_table, select
from sarzarr.reader.engine import BatchFiller
from sarzarr.reader.fetch import ChunkFetcher
from sarzarr.reader.prefetch import BatchRecipe, PartRecipe
from sarzarr.reader.sources import Address, Source
from sarzarr.store.store import Store

_STREAM: Final = 4
"""The stream of (seed, epoch) that crops are drawn from, apart from those of orders and augmentations."""
_MOVES: Final = 8
"""How often a place is drawn for a patch that is moved, before it stays."""
_LOOKED_AT: Final = 2**26
"""Bytes of flags that are looked at together."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Crops:
    """The ground that crops of a reader lie on, and the patches that they are made of."""

    ground: CropGround
    """The places where they may lie."""
    base: Selection
    """The cells that they are drawn from, or the patches that are moved."""
    number: Array
    """(base,) int64: the group of the ground that each of ``base`` is in; -1 where it is in none."""
    reach: int | None
    """Pixels that a patch is moved by at most; None where windows are drawn."""
    count: int
    """Crops of an epoch."""
    least: float | None
    """Least share of valid pixels in each channel; None asks for any above 0."""
    flags: Source | None
    """The flags of the arrays of ``base``; None where no window need be looked at."""

    @classmethod
    def random(cls, store: Store, query: Query, size: int, per_epoch: int | None) -> "Crops":
        """Return crops of ``size`` pixels, anywhere on the cells (of an index of cells) that a query chooses."""
        cells, ground = _ground(store, query, size)
        count = per_epoch or max(_pixels(ground) // size**2, 1)
        return _with_flags(store, ground, cells, ground.group, None, count, query)

    @classmethod
    def jitter(cls, store: Store, query: Query, cells: Query, reach: int) -> "Crops":
        """Return the patches that ``query`` chooses, to be moved on the ground that ``cells`` does."""
        base = select(store, query)
        chosen, ground = _ground(store, cells, base.shape[0])
        group = {
            tuple(key): number
            for key, number in zip(
                chosen.catalog_row[chosen.array].tolist(), ground.group.tolist(), strict=True
            )
        }
        keys = map(tuple, base.catalog_row[base.array].tolist())
        number = np.array([group.get(key, -1) for key in keys], np.int64)
        return _with_flags(store, ground, base, number, reach, len(base), query)

    def selection(self, store: Store, seed: int, epoch: int) -> Selection:
        """Return the crops (n,) of an epoch; `NothingChosenError` where hardly a window is valid enough."""
        rng = np.random.default_rng((seed, epoch, _STREAM))
        if self.reach is not None:
            row, col = self._moved(rng)
            return self._placed(store, np.arange(len(self.base)), row, col)
        base, row, col = drawn_crops(self.ground, self.count, rng, self._look)
        if len(base) < self.count:
            raise NothingChosenError(
                f"{self.count} windows of {self.ground.size} x {self.ground.size} pixels were expected on the chosen "
                f"ground, got {len(base)} of {self.ground.windows} places that there are, most of them not valid "
                "enough. Pass a smaller patch_size=, min_valid=, or choose more ground."
            )
        return self._placed(store, base, row, col)

    def _moved(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return (n,) rows and columns of the patches, each moved where that is allowed within a few draws."""
        row, col = self.base.row.astype(np.int64), self.base.col.astype(np.int64)
        left = np.flatnonzero(self.number >= 0)
        for _ in range(_MOVES):
            down, right = rng.integers(-(self.reach or 0), (self.reach or 0) + 1, (2, len(left)))
            r, c = self.base.row[left] + down, self.base.col[left] + right
            fits = self.ground.fit(self.number[left], r, c)
            may, seen = fits == Fit.YES, np.flatnonzero(fits == Fit.LOOK)
            if seen.size:
                may[seen] = self._look(left[seen], r[seen], c[seen])
            row[left[may]], col[left[may]] = r[may], c[may]
            left = left[~may]
        return row, col

    def _look(self, base: Array, row: Array, col: Array) -> Array:
        """Return (k,) bool: whether enough pixels of windows are valid, in each channel."""
        if self.flags is None:
            return np.ones(len(base), bool)
        (height, width), array = self.flags.shape, self.base.array
        filler = BatchFiller(ChunkFetcher(self.flags))
        enough = np.empty(len(base), bool)
        step = max(_LOOKED_AT // (height * width * array.shape[1]), 1)
        try:
            for first in range(0, len(base), step):
                some = slice(first, first + step)
                channels = array[base[some]].astype(np.int64)
                rows, cols = (np.repeat(values[some], channels.shape[1]) for values in (row, col))
                flags = np.empty((channels.size, height, width), np.uint8)
                filler.fill(partial(Address, array=channels.reshape(-1), row=rows, col=cols), flags)
                share = cv.Flag.is_valid(flags).mean(axis=(1, 2)).reshape(channels.shape).min(axis=1)
                enough[some] = share > 0 if self.least is None else share >= self.least
        finally:
            filler.fetcher.close()
        return enough

    def _placed(self, store: Store, base: Array, row: Array, col: Array) -> Selection:
        chosen = self.base
        array, size = chosen.array[base], self.ground.size
        first, ids = array[:, 0], np.empty(len(base), np.int64)
        for number in np.unique(first).tolist():
            at, mine = chosen.catalog_row[number], first == number
            scene, name = (str(store.catalog[k].values[at]) for k in ("scene", "name"))
            ids[mine] = patch_ids(scene, name, size, row[mine], col[mine])
        return replace(
            chosen,
            array=array,
            row=row.astype(np.int32),
            col=col.astype(np.int32),
            table_row=chosen.table_row[base],
            id=ids,
            shape=(size, size),
            is_padded=False,
        )


def moved_recipe(recipe: BatchRecipe, chosen: Selection, scenes: Array) -> BatchRecipe:
    """Return a recipe for other windows of the same arrays; ``scenes`` (arrays,) tells whose layers go with each."""
    channels = chosen.array.shape[1] // max(chosen.dates, 1)

    def moved(part: PartRecipe, array: Array) -> PartRecipe:
        return replace(part, array=array)

    return replace(
        recipe,
        images=moved(recipe.images, chosen.array),
        row=chosen.row,
        col=chosen.col,
        flags=None if recipe.flags is None else moved(recipe.flags, chosen.array),
        layers=tuple(
            moved(layer, scenes[chosen.array[:, ::channels]].astype(np.int32)) for layer in recipe.layers
        ),
    )


def _ground(store: Store, query: Query, size: int) -> tuple[Selection, CropGround]:
    """Return the cells that a query chooses, valid or not, and the windows of ``size`` that lie on them."""
    anyhow = replace(query, min_valid=0 if query.min_valid == 0 else None)
    cells = select(store, anyhow)
    clear = cells.id if query.min_valid == 0 else _ids_of(store, replace(query, min_valid=1.0))
    catalog = store.catalog
    shape = np.stack([catalog[k].values[cells.catalog_row] for k in ("height", "width")], axis=1)
    ground = CropGround.of(
        size=size,
        array=cells.array,
        row=cells.row,
        col=cells.col,
        is_clear=np.isin(cells.id, clear),
        shape=shape,
    )
    if not ground.windows:
        raise NothingChosenError(
            f"ground for a window of {size} x {size} pixels was expected, got none on {len(cells)} cells of "
            f"{cv.CELL} x {cv.CELL}. Pass a smaller patch_size=, or choose more ground."
        )
    return cells, ground


def _ids_of(store: Store, query: Query) -> Array:
    try:
        return select(store, query).id
    except NothingChosenError:
        return np.empty(0, np.int64)


def _pixels(ground: CropGround) -> int:
    """Return the pixels of the chosen cells, those beyond the edge of a scene apart."""
    height, width = ground.shape[ground.group].T
    rows, cols = np.minimum(height - ground.row, cv.CELL), np.minimum(width - ground.col, cv.CELL)
    return int((rows * cols).sum())


def _with_flags(
    store: Store,
    ground: CropGround,
    base: Selection,
    number: Array,
    reach: int | None,
    count: int,
    query: Query,
) -> Crops:
    flags = None
    if not ground.is_clear.all():
        table = chunk_table(store, query.index, base, flags=True)
        flags = Source(table=table, stretches=(None,) * len(table.layouts), shape=(ground.size,) * 2)
    return Crops(
        ground=ground, base=base, number=number, reach=reach, count=count, least=query.min_valid, flags=flags
    )
