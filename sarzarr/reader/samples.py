"""`SampleReader`: a set of samples as NumPy batches."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Unpack

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, MixedBoundsError
from sarzarr.keywords import shows_options
from sarzarr.patches.cut import sample_ids
from sarzarr.patches.selection import Selection
from sarzarr.pixels.kernels import check_bounds
from sarzarr.pixels.stretch import Stretch
from sarzarr.pixels.turns import TRANSPOSE
from sarzarr.reader.epochs import EpochReader
from sarzarr.reader.options import ReadOptions, SampleKeywords
from sarzarr.reader.order import Indices
from sarzarr.reader.prefetch import BatchRecipe
from sarzarr.reader.targets import patch_targets, table_asked
from sarzarr.splits.samples.manager import SplitManager
from sarzarr.store.boxes import Windows
from sarzarr.store.manifest import was_changed
from sarzarr.store.membership import parse_choice
from sarzarr.store.samples import IMAGE, WHITE, SampleLayout, open_samples
from sarzarr.store.store import AnyStore


@shows_options(ReadOptions, SampleKeywords)
class SampleReader(EpochReader):
    """Iterate over a set of samples: ``(N, 1, height, width)`` float32 in [0, 1], one array per batch.

    Pictures are delivered whole, at the upper left of a frame as large as the tallest and the widest need (square,
    where quarter turns are drawn); the rest, and what was not measured, is 0. White (255, 65535, or 1 of floats) is
    1, other values of uint8 are divided by 255; of patches that `sarzarr.import_npy` took in, 0 and 1 are their vmin
    and vmax, or those of ``clip``, which must be within. With ``flags`` a batch is ``(images, flags)``, which say
    where; with ``boxes`` it is ``(images, targets)``; with ``with_meta`` a dict of these and of ``id``, ``source``,
    ``height`` and ``width`` of each, and ``turn``. All else is as of `PatchReader`.

    Parameters
    ----------
    store
        A `Store`, or its path.
    samples
        Name of the set.
    split
        A side of a version that `sarzarr.SplitManager` made: ``train`` or ``val`` of the active one, ``v2:val`` of
        another; all samples if left out.
    boxes
        Deliver the boxes on each sample: True for upright ones (n, 4), ``rotated`` for (n, 5).
    **options
        Fields of `sarzarr.reader.options.ReadOptions`, as far as samples have them.

    Raises `NotInStoreError` where there is no such set; `SplitNotFoundError` where there is no split of it, or none
    of that version.
    """

    def __init__(self, store: AnyStore, samples: str, **options: Unpack[SampleKeywords]) -> None:
        self._name = samples
        super().__init__(store, ReadOptions(**options))

    def _choose(self) -> None:
        self.samples = open_samples(self.store, self._name)
        before = self.store.place.head(f"{self.samples.key}/zarr.json")
        layout, chosen, shape = self.samples.layout, self._rows(), self.samples.largest
        place, size = f"{cv.SAMPLES}/{self._name}/{IMAGE}", max(shape)
        # Ids are made of whole chunks, which sets were padded to once: they stay what they were.
        in_chunks = -(-size // cv.CHUNK) * cv.CHUNK
        if any(turn & TRANSPOSE for turn in self.options.augmentation.turns):
            shape = size, size
        nowhere = np.zeros(len(chosen), np.int32)
        self.selection = Selection(
            catalog_row=np.zeros(0, np.int64),
            array=nowhere[:, None],
            row=nowhere,
            col=nowhere,
            table_row=chosen,
            id=sample_ids(self.samples.key, [self.samples.ids[i] for i in chosen.tolist()], in_chunks),
            shape=shape,
        )
        law, flags = self._law(layout), None
        changes_values = bool(self.options.augmentation.changes)
        if self.options.delivers_flags or changes_values:
            of_flags = self._table(place + cv.FLAGS_SUFFIX)
            flags = self._part("flags", of_flags, (None,), "uint8", cv.Flag.NODATA)
        self.recipe = BatchRecipe(
            images=self._part("image", self._table(place), (law,), "float32"),
            row=nowhere,
            col=nowhere,
            plane=chosen.astype(np.int32),
            flags=flags,
            masks=changes_values,
            ranges=self._ranges if self.options.augmentation.is_in_power else None,
        )
        self.targets = None
        if self.options.boxes:
            windows, ids = Windows(owner=chosen, row=nowhere, col=nowhere, size=size), self.selection.id
            visible, owners = self.options.min_visible, self.samples.ids
            rotated = table_asked(self.options.boxes)[1]
            targets = patch_targets(
                self.samples.boxes, owners, windows, ids, min_visible=visible, rotated=rotated
            )
            self.targets = replace(targets, shape=shape)
        if self.store.place.head(f"{self.samples.key}/zarr.json") != before:
            raise was_changed(self.store.place, self.samples.key)

    def _law(self, layout: SampleLayout) -> Stretch:
        """Return the law from stored values to [0, 1]: of pictures by their white, of normalized patches by dB."""
        stored, clip = self._stored, self.options.clip
        if stored is None:
            if clip is not None:
                raise InvalidInputError(
                    f"samples with dB were expected for clip=, got the pictures of {self._name!r}. Leave it out."
                )
            white = WHITE[layout.dtype]
            ends = (0, int(white)) if layout.dtype == "uint16" else None
            whole = int(white) if layout.dtype == "uint8" else None
            return Stretch(scale=1 / white, offset=0.0, ends=ends, fill=layout.fill, white=whole)
        low, high = self._clip or stored
        if low < stored[0] or high > stored[1]:
            raise InvalidInputError(
                f"a clip within {stored[0]:g} to {stored[1]:g} dB, which {self._name!r} was normalized to, was "
                f"expected, got {low:g} to {high:g}: what lay beyond is gone. Pass a narrower one, or leave it out."
            )
        return Stretch.between(layout.dtype, stored, (low, high))

    @cached_property
    def _stored(self) -> tuple[float, float] | None:
        """(vmin, vmax): the dB that 0 and 1 of normalized patches stand for; None of pictures."""
        facts = self.samples.table.attrs
        if facts.get(cv.REPRESENTATION) != cv.Representation.NORMALIZED:
            return None
        return check_bounds((facts[cv.VMIN], facts[cv.VMAX]))

    @property
    def _ranges(self) -> Array:
        """(1, 4) float64 dB: what 0 and 1 stand for of stored values, and of delivered ones."""
        if self._stored is None:
            raise InvalidInputError(
                f"samples with dB were expected for augment={self.options.augment!r}, got the pictures of "
                f"{self._name!r}: they have no power. Give a function (images, rngs) of values in [0, 1]."
            )
        return np.array([(*self._stored, *(self._clip or self._stored))])

    @property
    def _clip(self) -> tuple[float, float] | None:
        if isinstance(clip := self.options.clip, Mapping):
            raise InvalidInputError(
                f"one clip (vmin, vmax) was expected for {self._name!r}, got {clip!r}. Samples have no groups."
            )
        return clip

    def _rows(self) -> Array:
        """Return the numbers of the samples that are asked for, ascending."""
        rows = np.arange(len(self.samples))
        if self.options.rows is not None:
            rows = np.intersect1d(rows, self.options.rows)
        if self.options.split is not None:
            version, side = parse_choice(self.options.split)
            split = SplitManager(self.store).read(self._name, version)
            sides = {cv.Membership.TRAIN: split.train_samples, cv.Membership.VAL: split.val_samples}
            on_side = np.flatnonzero(np.isin(self.samples.ids, sides.get(cv.Membership(side), ())))
            rows = np.intersect1d(rows, on_side)
        if not len(rows):
            raise InvalidInputError(
                f"at least one sample was expected, got none of {len(self.samples)} with split "
                f"{self.options.split!r}. Name another side, or leave it out."
            )
        if (most := self.options.max_patches) is not None and most < len(rows):
            drawn = np.random.default_rng((self.options.seed, len(rows))).permutation(len(rows))[:most]
            rows = rows[np.sort(drawn)]
        return rows

    @property
    def preprocessing_params(self) -> dict[str, Any]:
        """``{"vmin", "vmax"}`` in dB of 0 and 1 of normalized patches; pictures have none: `MixedBoundsError`."""
        if self._stored is None:
            raise MixedBoundsError(
                f"patches of scenes were expected, got the pictures of {self._name!r}: they have no dB."
            )
        vmin, vmax = self._clip or self._stored
        return {"vmin": vmin, "vmax": vmax}

    @cached_property
    def shards(self) -> Indices:
        """(n,) int64: the number of the file that each sample is in."""
        return self.selection.table_row // self.samples.layout.per_shard

    def _described(self, patches: Array) -> dict[str, Any]:
        table, rows = self.samples.table, self.selection.table_row[patches]
        words = {name: table[name].values[rows].tolist() for name in ("id", "source")}
        return {**words, **{name: table[name].values[rows] for name in ("height", "width")}}

    def __repr__(self) -> str:
        return f"<sarzarr.SampleReader {self._name!r}: {len(self.selection)} samples>"
