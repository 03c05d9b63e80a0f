"""The input of a model: windows of one scene as training batches have them, and which pixels were measured."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.patches.selection import Selection, layouts, of_polarization
from sarzarr.pixels.stretch import Stretch
from sarzarr.prediction.options import PredictOptions
from sarzarr.prediction.windows import WindowGrid
from sarzarr.reader.augment import Draws
from sarzarr.reader.layers import layer_recipes
from sarzarr.reader.memory import BatchMemory
from sarzarr.reader.options import clips_of
from sarzarr.reader.prefetch import BatchRecipe, PartRecipe, PrefetchThreads
from sarzarr.reader.sources import Source
from sarzarr.store.chunks import read_chunk_table
from sarzarr.store.store import Store
from sarzarr.store.stored_pixels import StoredPixels

AHEAD = 2
"""Batches that are read while the model works."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SceneInput:
    """One scene as a model sees it; holds nothing open."""

    store: Store
    """The store."""
    scene: str
    """The scene's id."""
    arrays: tuple[str, ...]
    """Names of the arrays that are channels."""
    layers: tuple[str, ...]
    """Names of the layers that are further channels."""
    clips: tuple[tuple[float, float], ...]
    """(vmin, vmax) of each array, dB."""
    grid: WindowGrid
    """The windows."""
    recipe: BatchRecipe
    """Batches of them."""
    flags: tuple[StoredPixels, ...]
    """The flags of each array."""

    @property
    def stamps(self) -> list[Any]:
        """The checksums of the manifests of all that is read: other pixels have others."""
        parts = [*self.recipe.images.source.table.crcs, *(flags.crc for flags in self.flags)]
        return [*parts, *(crc for layer in self.recipe.layers for crc in layer.source.table.crcs)]

    def batches(self, numbers: Iterable[Array]) -> Iterator[Array]:
        """Yield batches (n, C, size, size) float32 of windows by number, read ahead by a thread of its own."""
        memory = BatchMemory(AHEAD + 3)
        with closing(PrefetchThreads(self.recipe, memory, threads=1, ahead=AHEAD)) as prefetch:

            def make(windows: Array) -> Array:
                images, *layers = prefetch.batch(windows, Draws(turns=np.zeros(len(windows), np.uint8)))
                if not layers:
                    return images
                return np.concatenate(
                    [images, *(layer.astype(np.float32, copy=False) for layer in layers)], 1
                )

            yield from prefetch.run(make, numbers)


def scene_input(store: Store, scene: str, options: PredictOptions) -> SceneInput:
    """Return the input that options choose of a scene: channels (n, C, size, size) float32.

    Raises `NotInStoreError` and `InvalidInputError` where the scene has not these arrays and layers;
    `CorruptStoreError` where files of them are absent or short.
    """
    rows = _rows(store, scene, options)
    columns = {
        name: store.catalog[name].values[rows].tolist() for name in ("name", "flags", "dtype", "bounds_key")
    }
    stored = list(zip(*(store.catalog[name].values[rows].tolist() for name in ("vmin", "vmax")), strict=True))
    clips = tuple(clips_of(store, columns["bounds_key"], options.clip))
    arrays = layouts(store, rows)
    grid = WindowGrid(
        shape=store.grid(scene).shape, size=options.patch_size, overlap=options.overlap, blend=options.blend
    )
    n, places, size = len(grid), grid.places, grid.size
    chosen = Selection(
        catalog_row=rows,
        array=np.broadcast_to(np.arange(len(rows), dtype=np.int32), (n, len(rows))),
        row=places[:, 0],
        col=places[:, 1],
        table_row=np.arange(n),
        id=np.arange(n),
        shape=(size, size),
        is_padded=True,
    )
    laws = tuple(map(Stretch.between, columns["dtype"], stored, clips))
    source = Source(table=read_chunk_table(store.place, arrays), stretches=laws, shape=(size, size))
    images = PartRecipe(name="image", source=source, array=chosen.array, dtype="float32")
    layers = layer_recipes(store, options.layers, chosen) if options.layers else ()
    return SceneInput(
        store=store,
        scene=scene,
        arrays=tuple(columns["name"]),
        layers=tuple(options.layers),
        clips=clips,
        grid=grid,
        recipe=BatchRecipe(images=images, row=chosen.row, col=chosen.col, layers=layers),
        flags=tuple(store.pixels(scene, name) for name in columns["flags"]),
    )


def _rows(store: Store, scene: str, options: PredictOptions) -> Array:
    """Return (channels,) rows of the catalog: the scene's arrays that were asked for, in their order."""
    held = store.rows(scene)["name"].values.tolist()
    of_scene = store.catalog["scene"].values == scene
    if options.polarizations is None:
        if len(held) > 1:
            raise InvalidInputError(
                f"the arrays of {scene!r} that are the model's channels were expected, got none named of "
                f"{', '.join(held)}. Pass polarizations={held}, in the order that it was trained with."
            )
        return np.flatnonzero(of_scene)
    rows = []
    for wanted in options.polarizations:
        found = np.flatnonzero(of_scene & of_polarization(store, wanted))
        if len(found) != 1:
            raise InvalidInputError(
                f"one array {wanted!r} of scene {scene!r} was expected, got {len(found)} among {', '.join(held)}. "
                "Name its arrays in polarizations=, or leave the scene out."
            )
        rows.append(int(found[0]))
    return np.array(rows, np.int64)


@dataclass(eq=False)
class ValidRows:
    """Which pixels of a scene were measured in every array, read a row of chunks at a time and forgotten again."""

    flags: tuple[StoredPixels, ...]
    """The flags of each array."""
    first: int = 0
    """The first row that is wanted."""
    _parts: dict[int, Array] = field(default_factory=dict, init=False)

    @cached_property
    def _step(self) -> int:
        return self.flags[0].encoding.chunk

    def rows(self, begin: int, end: int) -> Array:
        """Return (rows, columns) bool of rows from ``begin`` to ``end``, within the scene."""
        height, width = self.flags[0].shape
        end, step = min(end, height), self._step
        parts = []
        for at in range(begin // step * step, end, step):
            if at not in self._parts:
                window = slice(at, min(at + step, height)), slice(0, width)
                valid = np.ones((window[0].stop - at, width), bool)
                for flags in self.flags:
                    valid &= cv.Flag.is_valid(flags.read(window))
                self._parts[at] = valid
            part = self._parts[at]
            parts.append(part[max(begin - at, 0) : end - at])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def forget_above(self, row: int) -> None:
        """Forget what lies wholly above a row."""
        for at in [at for at in list(self._parts) if at + self._step <= row]:  # another thread adds to them
            del self._parts[at]
