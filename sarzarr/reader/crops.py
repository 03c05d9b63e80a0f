"""Crops of an epoch: windows that are drawn, or patches that are moved, by (seed, epoch) alone."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, NothingChosenError
from sarzarr.grids.areas import pixel_areas
from sarzarr.patches.crops import CropGround, Fit, drawn_crops
from sarzarr.patches.cut import patch_ids
from sarzarr.patches.selection import Query, Selection, chunk_table, select
from sarzarr.reader.engine import BatchFiller
from sarzarr.reader.fetch import ChunkFetcher
from sarzarr.reader.options import ReadOptions
from sarzarr.reader.prefetch import BatchRecipe, PartRecipe
from sarzarr.reader.sources import Address, Source
from sarzarr.store.store import Store
from sarzarr.text import listed

_STREAM: Final = 4
"""The stream of (seed, epoch) that crops are drawn from, apart from those of orders and augmentations."""
_SCALES: Final = 5
"""The stream that their scales are drawn from."""
SCALE_STEPS: Final = 17
"""Scales that are drawn from, of equal ratio: so many tables of places are kept, and a batch has few sizes."""
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
    scaled: tuple[CropGround, ...] = ()
    """The places of windows of each scale, from least to most; none where all windows are of the crops' size."""

    @classmethod
    def random(cls, store: Store, query: Query, options: ReadOptions) -> "Crops":
        """Return crops of ``patch_size``, anywhere on the cells (of an index of cells) that a query chooses."""
        size = options.patch_size or cv.CHUNK
        sizes = [] if options.scale is None else scaled_sizes(size, options.scale)
        cells, largest = _ground(store, query, max(sizes, default=size), is_by_area=options.area == "ground")
        ground = largest.of_size(size) if sizes else largest
        count = options.per_epoch or max(_pixels(ground) // size**2, 1)
        made = _with_flags(store, ground, cells, ground.group, None, count, query)
        by_size = {each: largest.of_size(each) for each in sizes}
        return replace(made, scaled=tuple(by_size[each] for each in sizes))

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
        if not self.scaled:
            return self._placed(store, *self._drawn(self.ground, self.count, rng))
        step = np.random.default_rng((seed, epoch, _SCALES)).integers(len(self.scaled), size=self.count)
        base, row, col = np.empty((3, self.count), np.int64)
        for number in np.unique(step).tolist():
            mine = np.flatnonzero(step == number)
            base[mine], row[mine], col[mine] = self._drawn(self.scaled[number], len(mine), rng)
        span = np.array([ground.size for ground in self.scaled], np.int32)[step]
        return self._placed(store, base, row, col, span)

    def _drawn(self, ground: CropGround, count: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Return cell, row and column (count,) of windows; `NothingChosenError` where hardly one is valid enough."""
        found = drawn_crops(ground, count, rng, partial(self._look, size=ground.size))
        if len(found[0]) < count:
            raise NothingChosenError(
                f"{count} windows of {ground.size} x {ground.size} pixels were expected on the chosen "
                f"ground, got {len(found[0])} of {ground.windows} places that there are, most of them not valid "
                "enough. Pass a smaller patch_size=, scale= or min_valid=, or choose more ground."
            )
        return found

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
                may[seen] = self._look(left[seen], r[seen], c[seen], size=self.ground.size)
            row[left[may]], col[left[may]] = r[may], c[may]
            left = left[~may]
        return row, col

    def _look(self, base: Array, row: Array, col: Array, size: int) -> Array:
        """Return (k,) bool: whether enough pixels of windows of a size are valid, in each channel."""
        if self.flags is None:
            return np.ones(len(base), bool)
        (height, width), array = (size, size), self.base.array
        filler = BatchFiller(ChunkFetcher(replace(self.flags, shape=(size, size))))
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

    def _placed(
        self, store: Store, base: Array, row: Array, col: Array, span: Array | None = None
    ) -> Selection:
        chosen = self.base
        array, size = chosen.array[base], self.ground.size
        ids = np.empty(len(base), np.int64)
        spans = np.full(len(base), size) if span is None else span
        order = np.lexsort((spans, array[:, 0]))
        kinds = np.stack([array[:, 0], spans], axis=1)[order]
        begins = np.flatnonzero(np.any(kinds[1:] != kinds[:-1], axis=1)) + 1
        scenes, names = (store.catalog[k].values[chosen.catalog_row] for k in ("scene", "name"))
        for mine in np.split(order, begins):
            first, side = int(array[mine[0], 0]), int(spans[mine[0]])
            scene, name = str(scenes[first]), str(names[first])
            ids[mine] = patch_ids(scene, name, side, row[mine], col[mine])
        return replace(
            chosen,
            array=array,
            row=row.astype(np.int32),
            col=col.astype(np.int32),
            table_row=chosen.table_row[base],
            id=ids,
            shape=(size, size),
            span=span,
            is_padded=False,
        )


def scaled_sizes(size: int, scale: tuple[float, float]) -> list[int]:
    """Return rows and columns of the windows of each scale that crops of ``size`` pixels are drawn at.

    >>> scaled_sizes(64, (0.5, 2.0))[::4], scaled_sizes(64, (1.0, 1.0))
    ([32, 45, 64, 91, 128], [64])
    """
    scales = np.unique(np.geomspace(*scale, SCALE_STEPS))
    return [max(round(size * each), 1) for each in scales.tolist()]


def moved_recipe(recipe: BatchRecipe, chosen: Selection, scenes: Array) -> BatchRecipe:
    """Return a recipe for other windows of the same arrays; ``scenes`` (arrays,) tells whose layers go with each."""
    channels = chosen.array.shape[1] // max(chosen.dates, 1)

    scaling = recipe.scaling
    if scaling is not None and chosen.span is not None:
        scaling = replace(scaling, span=chosen.span)

    def moved(part: PartRecipe, array: Array) -> PartRecipe:
        return replace(part, array=array)

    return replace(
        recipe,
        images=moved(recipe.images, chosen.array),
        row=chosen.row,
        col=chosen.col,
        scaling=scaling,
        flags=None if recipe.flags is None else moved(recipe.flags, chosen.array),
        layers=tuple(
            moved(layer, scenes[chosen.array[:, ::channels]].astype(np.int32)) for layer in recipe.layers
        ),
    )


def _ground(
    store: Store, query: Query, size: int, *, is_by_area: bool = False
) -> tuple[Selection, CropGround]:
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
        area=_areas(store, cells) if is_by_area else None,
    )
    if not ground.windows:
        raise NothingChosenError(
            f"ground for a window of {size} x {size} pixels was expected, got none on {len(cells)} cells of "
            f"{cv.CELL} x {cv.CELL}. Pass a smaller patch_size= or scale=, or choose more ground."
        )
    return cells, ground


def _areas(store: Store, cells: Selection) -> Array:
    """Return (cells,) float64: square metres of a pixel in the middle of each cell; all of a grid at once."""
    first = cells.array[:, 0]
    scenes = store.catalog["scene"].values[cells.catalog_row].astype(str)[first]
    used = np.unique(scenes).tolist()
    if unplaced := [scene for scene in used if not store.placements[scene].is_located]:
        raise InvalidInputError(
            f"expected scenes with a place on the ground for area='ground', got {len(unplaced)} without "
            f"({listed(unplaced)}). Leave them out with scenes=, or where=\"geolocation != 'none'\", or pass "
            "area='pixels'."
        )
    areas, by_grid = np.empty(len(cells)), np.array([store.grids[scene] for scene in used])
    grid = by_grid[np.searchsorted(used, scenes)]
    for name in np.unique(by_grid).tolist():
        mine = np.flatnonzero(grid == name)
        middle = cells.row[mine] + cv.CELL / 2, cells.col[mine] + cv.CELL / 2
        areas[mine] = pixel_areas(store.placements[str(scenes[mine[0]])], *middle)
    if not (np.isfinite(areas) & (areas > 0)).all():
        lost = sorted(set(scenes[~(np.isfinite(areas) & (areas > 0))].tolist()))
        raise InvalidInputError(
            f"expected cells with an area for area='ground', got {len(lost)} scenes that reach where their CRS "
            f"does not ({listed(lost)}). Leave them out with scenes=, or pass area='pixels'."
        )
    return areas


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
