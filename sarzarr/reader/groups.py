"""`GroupReader`: groups of a scan's frames as NumPy batches."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, Unpack

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.grouping import group_positions, subsampled
from sarzarr.keywords import shows_options
from sarzarr.patches.selection import Selection
from sarzarr.pixels.stretch import Stretch
from sarzarr.ptychography.config import PtychoConfig
from sarzarr.ptychography.grouped import frame_scale
from sarzarr.ptychography.stored import ENERGY, open_scan
from sarzarr.reader.augment import Draws
from sarzarr.reader.options import GroupKeywords, ReadOptions
from sarzarr.reader.order import Indices, Position, Share
from sarzarr.reader.prefetch import BatchRecipe, PrefetchThreads
from sarzarr.reader.samples import SampleReader
from sarzarr.store.manifest import was_changed
from sarzarr.store.samples import IMAGE
from sarzarr.store.store import AnyStore

HOLD: Final = 2**30
"""Bytes of frames that are held: 65,536 of 64 x 64."""
AT_ONCE: Final = 64
"""Frames that are read together into what is held."""


@shows_options(ReadOptions, GroupKeywords)
class GroupReader(SampleReader):
    """Iterate over groups of a scan's frames: ``X_full`` (N, C, rows, columns) float32, one array per batch.

    All are multiplied by one number, `scale`, which follows from the energies of all groups: no frame is read for
    it. With ``with_meta`` a batch is a dict of ``image``; ``nn_indices`` (N, C) int64, numbers of the frames in the
    set; ``coords_relative`` (N, C, 1, 2) float32 and ``coords_offsets`` (N, 1, 1, 2) float64, x before y, pixels.

    Parameters
    ----------
    store
        A `Store`, or its path.
    samples
        Name of the set that `sarzarr.import_ptychography` made; None where the store has one scan.
    config
        A `PtychoConfig`, or any object with its attributes: the groups.
    hold
        Bytes of frames that a process keeps in memory, where all that groups need are no more: each is then read and
        checked once, and batches are gathered. Of more, each batch is read anew, which takes many times longer.
    split
        The side that groups are drawn of; see `SampleReader`.
    seed
        Of the draw of groups; and with the epoch, what their order depends on.
    **options
        Fields of `sarzarr.reader.options.ReadOptions`, as far as groups have them.

    Raises `InvalidInputError` where the set is no scan, N is not that of its frames, or positions do not do.
    """

    def __init__(
        self,
        store: AnyStore,
        samples: str | None = None,
        *,
        config: Any,
        hold: int = HOLD,
        **options: Unpack[GroupKeywords],
    ) -> None:
        self.config, self.hold = PtychoConfig.of(config), hold
        self._frames: Array | None = None
        super().__init__(store, samples or "", **options)

    def _choose(self) -> None:
        self.samples = open_scan(self.store, self._name or None)
        self._name, key = self.samples.name, self.samples.key
        before = self.store.place.head(f"{key}/zarr.json")
        layout, table, config = self.samples.layout, self.samples.table, self.config
        if (layout.height, layout.width) != (config.N, config.N):
            raise InvalidInputError(
                f"expected frames of {config.N} x {config.N} pixels, got {layout.height} x {layout.width}. "
                "Mend N of the config."
            )
        rows = self._rows()
        chosen = subsampled(len(rows), config.n_subsample, config.subsample_seed)
        rows = rows if chosen is None else rows[chosen]
        x, y = (table[name].values[rows] for name in ("xcoords", "ycoords"))
        recipe = config.recipe(len(rows), seed=self.options.seed)
        self.groups = rows[group_positions(x, y, recipe)]
        self.scale = frame_scale(table[ENERGY].values[self.groups], config.N)
        nowhere = np.zeros(len(self.groups), np.int32)
        self.selection = Selection(
            catalog_row=np.zeros(0, np.int64),
            array=np.zeros(self.groups.shape, np.int32),
            row=nowhere,
            col=nowhere,
            table_row=self.groups[:, 0],
            id=np.arange(len(self.groups)),
            shape=(config.N, config.N),
        )
        law = Stretch(scale=float(self.scale), offset=0.0, fill=layout.fill, is_open=True)
        of_frames = self._table(f"{key}/{IMAGE}")
        self.recipe = BatchRecipe(
            images=self._part("image", of_frames, (law,), "float32"),
            row=nowhere,
            col=nowhere,
            plane=self.groups.astype(np.int32),
        )
        self.targets = None
        if self.store.place.head(f"{key}/zarr.json") != before:
            raise was_changed(self.store.place, key)

    @cached_property
    def shards(self) -> Indices:
        """(n,) int64: the number of the file that the first frame of each group is in."""
        return self.groups[:, 0] // self.samples.layout.per_shard

    def parts(self, begin: Position, share: Share) -> Iterator[dict[str, Any]]:
        """See `EpochReader.parts`; ``image`` is (N, C, rows, columns) float32."""
        self._hold_frames()
        return super().parts(begin, share)

    def read(self, patches: Sequence[int] | Array, turns: Sequence[int] | Array | None = None) -> Any:
        """See `EpochReader.read`; groups are never turned."""
        if turns is not None:
            raise InvalidInputError("expected groups as they are, got turns=. Leave it out.")
        self._hold_frames()
        return super().read(patches)

    def _hold_frames(self) -> None:
        """Read every frame of the groups once, scaled, where they are within `hold`."""
        if self._frames is not None:
            return
        rows, back = np.unique(self.groups, return_inverse=True)
        if len(rows) * self.config.N**2 * 4 > self.hold:
            return
        nowhere = np.zeros(len(rows), np.int32)
        each = replace(self.recipe.images, array=nowhere[:, None])
        recipe = BatchRecipe(images=each, row=nowhere, col=nowhere, plane=rows.astype(np.int32))
        frames = np.empty((len(rows), self.config.N, self.config.N), np.float32)
        starts = range(0, len(rows), AT_ONCE)
        with closing(PrefetchThreads(recipe, self.memory(4), threads=2, ahead=1)) as threads:

            def make(start: int) -> Array:
                some = np.arange(start, min(start + AT_ONCE, len(rows)))
                return threads.batch(some, Draws(turns=np.zeros(len(some), np.uint8)))[0][:, 0]

            for start, some in zip(starts, threads.run(make, starts), strict=True):
                frames[start : start + AT_ONCE] = some
        self._frames, self._places = frames, back.reshape(self.groups.shape)

    def _parts(self, patches: Array, draws: Draws, prefetch: PrefetchThreads) -> dict[str, Any]:
        if self._frames is None:
            images = prefetch.batch(patches, draws)[0]
        else:
            places = self._places[patches]
            images = self.memory().take((*places.shape, *self._frames.shape[1:]), "float32", 0)
            np.take(self._frames, places, axis=0, out=images, mode="clip")
        parts: dict[str, Any] = {"image": images}
        return parts | self._described(patches) if self.options.with_meta else parts

    def _described(self, patches: Array) -> dict[str, Any]:
        groups, table = self.groups[patches], self.samples.table
        centers = np.stack([table[f"{axis}coords"].values[groups] for axis in "xy"], axis=-1)[:, :, None]
        offsets = centers.mean(axis=1, keepdims=True)
        relative = (offsets - centers).astype(np.float32)
        return {"nn_indices": groups, "coords_relative": relative, "coords_offsets": offsets}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_frames": None}

    def __repr__(self) -> str:
        return f"<sarzarr.GroupReader {self._name!r}: {len(self.selection)} groups of {self.groups.shape[1]} frames>"
