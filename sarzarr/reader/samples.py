"""`SampleReader`: a set of samples as NumPy batches, by the engine and in the order of `sarzarr.PatchReader`."""

from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, MixedBoundsError
from sarzarr.patches.cut import sample_ids
from sarzarr.patches.selection import Selection
from sarzarr.pixels.stretch import Stretch
from sarzarr.reader.crew import Recipe
from sarzarr.reader.options import ReadOptions
from sarzarr.reader.order import Indices
from sarzarr.reader.places import Source
from sarzarr.reader.reader import PatchReader
from sarzarr.reader.targets import PatchTargets
from sarzarr.splits.samples.manager import SplitManager
from sarzarr.store.chunks import read_layout, read_table
from sarzarr.store.membership import parse_choice
from sarzarr.store.samples import IMAGE, WHITE, open_samples
from sarzarr.store.store import Store

KEYWORDS: Final = frozenset(
    (
        "split",
        "max_patches",
        "flags",
        "with_meta",
        "boxes",
        "min_visible",
        "batch_size",
        "shuffle",
        "window",
        "augment",
        "drop_last",
        "seed",
        "threads",
        "read_ahead",
    )
)
"""Fields of `ReadOptions` that say something of samples."""


class SampleReader(PatchReader):
    """Iterate over a set of samples: ``(N, 1, size, size)`` float32 in [0, 1], one array a batch.

    Pictures are delivered whole, at the upper left of a square as large as the largest needs; the rest is 0. White
    (255, 65535, or 1 of floats) is 1. With ``flags`` a batch is ``(images, flags)``, which say what is padding; with
    ``boxes`` it is ``(images, targets)``; with ``with_meta`` a dict of these and of ``id``, ``source``, ``height``
    and ``width`` of each, and ``turn``. Order, epochs, ranks, resuming and augmentation are those of `PatchReader`.

    Parameters
    ----------
    store
        A `Store`, or its path.
    samples
        Name of the set.
    **options
        Those fields of `sarzarr.reader.options.ReadOptions` that are in `KEYWORDS`. ``split`` is a side of a version
        that `sarzarr.SplitManager` made: ``train`` or ``val`` of the active one, ``v2:val`` of another.

    Raises
    ------
    NotInStoreError
        There is no such set.
    SplitNotFoundError
        There is no split of it, or none of that version.
    CorruptStoreError
        As of `PatchReader`.
    """

    def __init__(self, store: Store | str | Path, samples: str, **options: Any) -> None:
        plain = ReadOptions()
        for field in fields(said := ReadOptions.of(options)):
            if field.name not in KEYWORDS and getattr(said, field.name) != getattr(plain, field.name):
                raise InvalidInputError(
                    f"with samples, options must be among {', '.join(sorted(KEYWORDS))}, got {field.name!r}."
                )
        self._name = samples
        super().__init__(store, **options)

    def _choose(self) -> None:
        self.samples = open_samples(self.store, self._name)
        layout, root = self.samples.layout, self.store.root
        chosen = self._rows()
        n, size, place = len(chosen), max(layout.height, layout.width), f"{cv.SAMPLES}/{self._name}/{IMAGE}"
        nowhere = np.zeros(n, np.int32)
        ids = [self.samples.ids[i] for i in chosen.tolist()]
        self.index, self.stacks = "", ()
        self.selection = Selection(
            catalog_row=np.zeros(0, np.int64),
            array=np.zeros((n, 1), np.int32),
            row=nowhere,
            col=nowhere,
            table_row=chosen,
            id=sample_ids(f"{cv.SAMPLES}/{self._name}", ids, size),
            size=size,
        )

        def source(path: str, law: Stretch | None) -> Source:
            return Source(table=read_table(root, [read_layout(root, path)]), stretches=(law,), size=size)

        white = WHITE[layout.dtype]
        ends = (0, int(white)) if layout.dtype == "uint16" else None
        self.recipe = Recipe(
            images=source(place, Stretch(scale=1 / white, offset=0.0, ends=ends)),
            array=self.selection.array,
            row=nowhere,
            col=nowhere,
            plane=chosen.astype(np.int32),
            flags=source(place + cv.FLAGS_SUFFIX, None) if self.options.delivers_flags else None,
        )
        self.targets = self._targets() if self.options.boxes else None

    def _rows(self) -> Array:
        """Return the numbers of the samples that are asked for, ascending."""
        rows = np.arange(len(self.samples))
        if self.options.split is not None:
            version, side = parse_choice(self.options.split)
            split = SplitManager(self.store).read(self._name, version)
            sides = {cv.Membership.TRAIN: split.train_samples, cv.Membership.VAL: split.val_samples}
            rows = np.flatnonzero(np.isin(self.samples.ids, sides.get(cv.Membership(side), ())))
        if not len(rows):
            raise InvalidInputError(
                f"at least one sample was expected, got none of {len(self.samples)} with split "
                f"{self.options.split!r}. Name another side, or leave it out."
            )
        if (most := self.options.max_patches) is not None and most < len(rows):
            drawn = np.random.default_rng((self.options.seed, len(rows))).permutation(len(rows))[:most]
            rows = rows[np.sort(drawn)]
        return rows

    def _targets(self) -> PatchTargets:
        return self._targets_of(self.samples.boxes, self.samples.ids, self.selection.table_row)

    @property
    def preprocessing_params(self) -> dict[str, float]:
        """Pictures have no dB: `MixedBoundsError`."""
        raise MixedBoundsError(
            f"patches of scenes were expected, got the pictures of {self._name!r}: they have no dB."
        )

    @cached_property
    def shards(self) -> Indices:
        """The number of the file that each sample is in."""
        return self.selection.table_row // self.samples.layout.per_shard

    def _described(self, patches: Array) -> dict[str, Any]:
        table, rows = self.samples.table, self.selection.table_row[patches]
        words = {name: table[name].values[rows].tolist() for name in ("id", "source")}
        return {**words, **{name: table[name].values[rows] for name in ("height", "width")}}

    def __repr__(self) -> str:
        return f"<sarzarr.SampleReader {self._name!r}: {len(self.selection)} samples>"
