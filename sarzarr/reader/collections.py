"""`CollectionReader`: the chips of a collection as NumPy batches, at the size that they have."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, Final, Literal, Unpack

import numpy as np
import pandas as pd

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, NothingChosenError
from sarzarr.keywords import shows_options
from sarzarr.patches.chip_shares import chip_shares
from sarzarr.patches.cut import sample_ids
from sarzarr.patches.period import parse_period
from sarzarr.patches.selection import Selection
from sarzarr.pixels.stretch import Stretch
from sarzarr.pixels.turns import TRANSPOSE
from sarzarr.reader.chip_ground import chips_in_region
from sarzarr.reader.chip_weights import chip_table_of, chip_weights
from sarzarr.reader.epochs import EpochReader, Laws
from sarzarr.reader.moments import ChannelMoments, CountedArray, channel_moments
from sarzarr.reader.options import Bounds, DeliveredDtype, ReadOptions, SampleKeywords, Weights, clips_of
from sarzarr.reader.order import Indices, drawn
from sarzarr.reader.picture import batch_parts, plot_parts
from sarzarr.reader.prefetch import BatchRecipe, PartRecipe
from sarzarr.reader.sources import Source
from sarzarr.reader.targets import PatchTargets, table_asked
from sarzarr.store.boxes import DEFAULT_LABEL, safe_name
from sarzarr.store.chip_boxes import boxes_on_chips, check_chip_grids, read_chip_boxes
from sarzarr.store.chip_columns import chip_columns, chip_times
from sarzarr.store.chip_labels import ChipLabels, read_labels
from sarzarr.store.chip_splits import chip_side
from sarzarr.store.chunks import read_chunk_table
from sarzarr.store.collections import ABSENT, ChipArray, open_collection
from sarzarr.store.conditions import Columns, names_in, where_mask
from sarzarr.store.manifest import was_changed
from sarzarr.store.store import AnyStore
from sarzarr.text import counted

log = logging.getLogger(__name__)
Size = int | str | tuple[int, int]
"""Pixels of a side, ``"264x264"``, or (rows, columns)."""
PAD: Final = "pad"


@dataclass(frozen=True, kw_only=True)
class CollectionOptions(ReadOptions):
    """Every keyword of `CollectionReader`, with its default."""

    size: Size | None = None
    """Of a collection of several sizes, the chips of one: 264, ``"264x256"`` or (rows, columns). ``"pad"``: all, at
    the upper left of a frame as large as the tallest and the widest need; the rest is 0, flagged as nodata, and of
    layers their nodata."""
    labels: bool | str = False
    """Deliver the classes of each chip, of the set of labels ``default`` or of that name: (N,) int64, or of a set of
    many (N, classes) float32 of 0 and 1. Chips without are left out."""


class CollectionKeywords(SampleKeywords, total=False):
    """Fields that chips of a collection have: sizes in pixels, clips in dB."""

    size: Size | None
    labels: bool | str
    polarizations: Sequence[str] | None
    dtype: DeliveredDtype
    layers: Sequence[str]
    min_valid: float | None
    where: str | None
    bounds: Bounds | None
    polygon: Any
    predicate: Literal["intersects", "within"]
    time: Any
    weights: Weights | None


@shows_options(CollectionOptions, CollectionKeywords)
class CollectionReader(EpochReader):
    """Iterate over the chips of a collection: ``(N, C, height, width)`` float32 in [0, 1], one array per batch.

    Chips come whole, at the size that they have, never padded unless ``size="pad"`` asks for it. Channels are the
    collection's arrays of backscatter, or ``polarizations``; a chip that lacks one of them, or one of ``layers``, or
    has no valid pixel in a channel, is left out. Pixels that are not valid are 0. With ``flags`` a batch is
    ``(images, flags)``, with ``boxes`` ``(images, targets)``, dicts as of `PatchReader`, with ``labels``
    ``(images, labels)``, with several in that order; layers come last, each (N, 1, height, width) as stored,
    its nodata where a pixel has none (`layer_nodata`: the ``ignore_index`` of a loss). All are turned alike. With
    ``with_meta`` a batch is a dict of these and of ``turn``, ``chip`` (its id), ``source``, ``id`` (int64, stable),
    ``crs`` (WKT), ``transform`` ((N, 6) in affine order, of the chip before it is turned), ``time`` (ISO 8601, UTC),
    ``height``, ``width`` and the facts of the acquisition. All else is as of `PatchReader`.

    Parameters
    ----------
    store
        A `Store`, or its path.
    collection
        Name of the collection.
    split
        A side of a version: ``train`` of the newest, ``v2:val`` of another, ``fold0:train``; all chips if left out.
    where
        A condition on columns of the chips, ``valid_vv > 0.9 and pass == 'ascending'``, and on shares of a layer,
        ``mask_fraction > 0.05``, or of a class of it, ``mask_2 == 0``.
    min_valid
        Least share of valid pixels of a chip, in each channel; anything above 0 unless given, and 0 takes all.
    weights
        Weights by which chips are drawn: a column, such as ``label`` of labels that are delivered, each of whose
        words counts alike; by class of the labels; a function, called once, from `table` to (n,) weights; or these.
    boxes
        Deliver the boxes on each chip, of the table ``default`` or of that name: True for upright ones (n, 4),
        ``rotated`` for (n, 5). Chips without have (0, 4); with ``size="pad"`` none is moved.
    **options
        Fields of `sarzarr.reader.options.ReadOptions`, as far as chips have them.

    Raises `NotInStoreError` where there is no such collection, array, layer, split, table of boxes or set of labels;
    `NothingChosenError` where no chip is left; `InvalidInputError` where those that are left have several sizes, or
    another size or place than their boxes were put on.
    """

    options: CollectionOptions
    """The options."""
    labels: ChipLabels | None
    """The labels that are delivered, with their classes; None where none are."""

    def __init__(self, store: AnyStore, collection: str, **options: Unpack[CollectionKeywords]) -> None:
        self._name = safe_name(collection)
        super().__init__(store, CollectionOptions(**options))
        if self.weights is not None:  # refused at once where they cannot be drawn by
            drawn(self.weights, seed=0, epoch=0)

    def _choose(self) -> None:
        self.collection = made = open_collection(self.store, self._name)
        before = self.store.place.head(f"{made.key}/zarr.json")
        o, wanted = self.options, self.options.labels
        self._labels = (
            read_labels(made, cv.DEFAULT_INDEX if wanted is True else str(wanted)) if wanted else None
        )
        self.labels = self._labels
        names = [o.polarizations] if isinstance(o.polarizations, str) else o.polarizations
        self.arrays: tuple[ChipArray, ...] = (
            made.contents.arrays if names is None else tuple(self._array(name) for name in names)
        )
        chosen = self._rows()
        table, parts = made.table, made.contents.parts
        number, part = np.unique(table["part"].values[chosen], return_inverse=True)
        shape = self._shape([(parts[i].height, parts[i].width) for i in number.tolist()], part)
        if any(turn & TRANSPOSE for turn in o.augmentation.turns) and shape[0] != shape[1]:
            raise InvalidInputError(
                f"augment={o.augment!r} turns by quarters, which needs squares, got chips of {shape[0]} x {shape[1]} "
                "pixels. Pass augment='flips'."
            )
        nowhere = np.zeros(len(chosen), np.int32)
        channels = len(self.arrays)
        self.selection = Selection(
            catalog_row=np.zeros(0, np.int64),
            array=(part[:, None] * channels + np.arange(channels)).astype(np.int32),
            row=nowhere,
            col=nowhere,
            table_row=chosen,
            id=sample_ids(made.key, [made.ids[i] for i in chosen.tolist()], max(shape)),
            shape=shape,
            is_padded=len(number) > 1,
        )
        self.targets = self._targets() if o.boxes else None
        laws, flags = self._laws(len(number)), None
        changes_values = bool(o.augmentation.changes)
        if o.delivers_flags or changes_values:
            none: Laws = (None,) * len(laws)
            flags = self._of_parts(
                "flags", [a.flags for a in self.arrays], number, none, "uint8", cv.Flag.NODATA
            )
        clips = np.tile(np.array([(a.vmin, a.vmax, *clip) for a, clip in self._clips()]), (len(number), 1))
        self.recipe = BatchRecipe(
            images=self._of_parts("image", [a.name for a in self.arrays], number, laws, o.dtype),
            row=nowhere,
            col=nowhere,
            plane=table["row"].values[chosen].astype(np.int32),
            flags=flags,
            layers=tuple(self._layer(name, number, part) for name in o.layers),
            masks=changes_values,
            ranges=clips if o.augmentation.is_in_power else None,
        )
        if self.store.place.head(f"{made.key}/zarr.json") != before:
            raise was_changed(self.store.place, made.key)

    def _targets(self) -> PatchTargets:
        """Return the boxes on the chips of the selection."""
        made, chosen, (name, rotated) = self.collection, self.selection, table_asked(self.options.boxes)
        boxes = read_chip_boxes(made, name)
        check_chip_grids(made, boxes, chosen.table_row)
        names = [made.ids[row] for row in chosen.table_row.tolist()]
        if without := len(names) - len({*names} & {*boxes.owners}):
            log.info("%s: %d of %d chips are not annotated in boxes %s", made.name, without, len(names), name)
        sizes = np.stack([made.table[side].values[chosen.table_row] for side in ("height", "width")], axis=1)
        visible = self.options.min_visible
        shown = boxes_on_chips(boxes, names, sizes, min_visible=visible, rotated=rotated)
        return PatchTargets(
            boxes=shown,
            label=boxes.label[shown.source].astype(np.int64),
            image_id=chosen.id,
            shape=chosen.shape,
            classes=boxes.classes or (DEFAULT_LABEL,),
        )

    def _array(self, name: str) -> ChipArray:
        """Return the array of that name, or of that polarization."""
        same = [a for a in self.collection.contents.arrays if (a.polarization or "").lower() == name.lower()]
        return same[0] if len(same) == 1 else self.collection.array(name)

    def _shape(self, sizes: list[tuple[int, int]], part: Array) -> tuple[int, int]:
        """Return (rows, columns) of what is delivered; `InvalidInputError` where several sizes are there, unasked."""
        if len(sizes) > 1 and self.options.size != PAD:
            counts = np.bincount(part).tolist()
            known = ", ".join(f"{h}x{w} ({n})" for (h, w), n in zip(sizes, counts, strict=True))
            (height, width), _ = max(zip(sizes, counts, strict=True), key=lambda one: one[1])
            raise InvalidInputError(
                f"chips of one size were expected in {self._name!r}, got {known}. Choose with "
                f"size='{height}x{width}', or pass size='pad'."
            )
        return max(h for h, _ in sizes), max(w for _, w in sizes)

    def _of_parts(
        self,
        name: str,
        arrays: Sequence[str],
        parts: Array,
        laws: Laws,
        dtype: str,
        outside: int | None = None,
    ) -> PartRecipe:
        """Return the recipe of channels, read from each part's arrays of these names."""
        found = [self.collection.layout(i, array) for i in parts.tolist() for array in arrays]
        table = read_chunk_table(self.store.place, found)
        return self._part(name, table, laws, dtype, outside)

    def _layer(self, name: str, parts: Array, part: Array) -> PartRecipe:
        layer = self.collection.layer(name)
        if len(parts) > 1 and layer.nodata is None:
            raise InvalidInputError(
                f"a nodata value for the pixels of layer {name!r} beyond a chip's edge was expected for size='pad', "
                "got none. Choose one size, or leave the layer out."
            )
        layouts = [self.collection.layout(i, name) for i in parts.tolist()]
        table = read_chunk_table(self.store.place, layouts)
        source = Source(table=table, stretches=(None,) * len(layouts), shape=self.selection.shape)
        return PartRecipe(
            name=name,
            source=source,
            array=part[:, None].astype(np.int32),
            dtype=layer.dtype,
            outside=layer.nodata,
        )

    def _laws(self, parts: int) -> Laws:
        """Return the law of each array of each part: from stored values to [0, 1] of its clip."""
        dtype = self.options.dtype
        if dtype == "uint16":
            if any(a.dtype != "uint16" for a in self.arrays):
                raise InvalidInputError("dtype 'uint16' needs arrays of codes, got others. Leave out dtype=.")
            return (None,) * (len(self.arrays) * parts)
        half = None if dtype == "float32" else dtype
        law = cache(partial(Stretch.between, half=half))
        return tuple(law(a.dtype, (a.vmin, a.vmax), clip) for a, clip in self._clips()) * parts

    def _clips(self) -> list[tuple[ChipArray, tuple[float, float]]]:
        """Return each array with the pair (vmin, vmax) in dB that it is delivered with."""
        if self.options.dtype == "uint16":
            return [(a, (a.vmin, a.vmax)) for a in self.arrays]
        clips = clips_of(self.store, [a.bounds_key for a in self.arrays], self.options.clip)
        return list(zip(self.arrays, clips, strict=True))

    def _rows(self) -> Array:
        """Return the rows of the table of the chips that are asked for, ascending."""
        made, o, n = self.collection, self.options, len(self.collection)
        keep, left = np.ones(n, bool), [counted(n, "chip")]

        def ask(what: str, mask: Array) -> None:
            nonlocal keep
            before = int(keep.sum())
            keep &= mask
            left.append(f"{int(keep.sum())} with {what}")
            if what.startswith("the ") and before > keep.sum():
                log.info("%s: %d of %d chips have not %s", made.name, before - keep.sum(), before, what)

        if o.rows is not None:
            ask("rows= given", np.isin(np.arange(n), o.rows))
        if o.size not in (None, PAD):
            height, width = parse_size(o.size)
            is_of_size = (made.table["height"].values == height) & (made.table["width"].values == width)
            ask(f"size {height}x{width}", is_of_size)
        if o.split is not None:
            ask(f"split {o.split!r}", chip_side(made, o.split))
        if o.where is not None:
            known = chip_columns(made)
            shares = chip_shares(made, names_in(o.where) - known.keys())
            columns = Columns(patch={**known, **shares}, array={}, owner=np.zeros(n, np.int64))
            ask(f"where {o.where!r}", where_mask(o.where, columns))
        if o.time is not None:
            first, last = parse_period(o.time)
            time = made.table["time"].values
            ask(f"time {o.time!r}", (time >= first) & (time <= last))
        for region in o.query(cv.DEFAULT_INDEX).regions:
            ask("ground asked for", chips_in_region(made, region, keep, within=o.predicate == "within"))
        for array in self.arrays:
            ask(f"the array {array.name}", self._enough(array))
        bits = made.table["layers"].values
        for name in o.layers:
            bit = made.layers.index(made.layer(name).name)
            ask(f"the layer {name}", (bits >> bit) & 1 == 1)
        if self._labels is not None:
            ask(f"the labels {self._labels.name}", self._labels.known)
        rows = np.flatnonzero(keep)
        if not len(rows):
            raise NothingChosenError(
                f"at least one chip of {self._name!r} was expected, got none: {', then '.join(left)}. Ask for less "
                "where the last ones go."
            )
        if o.max_patches is not None and o.max_patches < len(rows):
            some = np.random.default_rng((o.seed, len(rows))).permutation(len(rows))[: o.max_patches]
            rows = rows[np.sort(some)]
        return rows

    def _enough(self, array: ChipArray) -> Array:
        """Return (n,) bool: the chips that have an array, and enough valid pixels in it."""
        table, least = self.collection.table, self.options.min_valid
        valid = table[f"valid_{array.name}"].values
        if least is None:
            return np.asarray(valid > 0)
        if not 0 <= least <= 1:
            raise InvalidInputError(f"min_valid must be in 0..1, got {least}.")
        pixels = table["height"].values * table["width"].values
        return np.asarray((valid != ABSENT) & (valid >= least * pixels))

    @property
    def preprocessing_params(self) -> dict[str, Any]:
        """``{"vmin", "vmax"}`` in dB of 0 and 1 of the batches: two numbers, or two lists where channels differ."""
        vmin, vmax = zip(*(clip for _, clip in self._clips()), strict=True)
        if len({*vmin}) == len({*vmax}) == 1:
            return {"vmin": vmin[0], "vmax": vmax[0]}
        return {"vmin": list(vmin), "vmax": list(vmax)}

    def statistics(self) -> ChannelMoments:
        """Return mean and standard deviation of each channel as delivered, of all chips; no pixel is read.

        They are of every valid pixel of the collection, also where a split or a condition takes some chips.
        """
        is_coded = self.options.dtype == "uint16"
        counted_arrays = [
            CountedArray(
                histogram=self.collection.histogram(array.name),
                dtype=array.dtype,
                stored=(array.vmin, array.vmax),
                clip=None if is_coded else clip,
            )
            for array, clip in self._clips()
        ]
        return channel_moments([[one] for one in counted_arrays], len(self.collection))

    def table(self) -> pd.DataFrame:
        """Return the selection as a `pandas.DataFrame`, a row a chip, in the order of the chips' numbers.

        Columns are those of `sarzarr.store.chip_columns.chip_columns`, and ``label``, the class's name, of labels
        that are delivered; of sets of many ``label_<class>`` each, bool.
        """
        return chip_table_of(self.collection, self.selection.table_row, self._labels)

    @cached_property
    def weights(self) -> Array | None:
        """(n,) float64: how often each chip is drawn, against the others; None where all are once."""
        if (given := self.options.weights) is None:
            return None
        table = self.table()
        if isinstance(given, str) and given not in table:
            shares = chip_shares(self.collection, [given])
            table = table.assign(**{name: one[self.selection.table_row] for name, one in shares.items()})
        values = chip_weights(table, self._labels, given)
        self.options = replace(self.options, weights=values)  # which pickles, and of which a state can tell
        return values

    def plot(self, batch: Any, *, patches: int = 8) -> Any:
        """Return a `matplotlib.figure.Figure` of a batch as this reader delivers it, or as tensors of it.

        It is as of `PatchReader.plot`: a column is a chip, ``patches`` at most, with its class above.
        """
        o = self.options
        names = ["image", *["flags"] * o.flags, *["target"] * bool(o.boxes), *["label"] * bool(o.labels)]
        classes = () if self._labels is None else self._labels.classes
        channels = [array.name for array in self.arrays]
        parts = batch_parts(batch, names, o.layers)
        return plot_parts(
            {"array": [channels], **parts}, nodata=self.layer_nodata, patches=patches, kinds=classes
        )

    @cached_property
    def shards(self) -> Indices:
        """(n,) int64: the number of the file that each chip is in."""
        array, table = self.selection.array[:, 0].astype(np.int64), self.recipe.images.source.table
        chunk = table.first_chunk[array] + np.asarray(self.recipe.plane)
        file: Indices = table.entries["file"][chunk].astype(np.int64)
        return file

    def _parts(self, *given: Any) -> dict[str, Any]:
        parts = super()._parts(*given)
        if self._labels is None:
            return parts
        layers = parts.pop("layers", None)  # they come last
        parts["label"] = self._labels.targets[self.selection.table_row[given[0]]]
        return parts if layers is None else {**parts, "layers": layers}

    def _described(self, patches: Array) -> dict[str, Any]:
        made, rows = self.collection, self.selection.table_row[patches]
        table = made.table.isel(chip=rows)
        crs = (*made.contents.crs, "")
        out: dict[str, Any] = {
            "chip": table["id"].values.tolist(),
            "source": table["source"].values.tolist(),
            "id": self.selection.id[patches],
            "crs": [crs[i] for i in table["crs"].values.tolist()],
            "transform": table["transform"].values,
            "time": chip_times(table["time"].values).tolist(),
            "height": table["height"].values,
            "width": table["width"].values,
        }
        facts = [made.contents.facts[i] for i in table["facts"].values.tolist()]
        for name in sorted({key for one in made.contents.facts for key in one} - set(out)):
            out[name] = [one.get(name) for one in facts]
        return out

    def __repr__(self) -> str:
        height, width = self.selection.shape
        return (
            f"<sarzarr.CollectionReader {self._name!r}: {len(self.selection)} chips of {height} x {width}, "
            f"{'+'.join(a.name for a in self.arrays)}>"
        )


def parse_size(size: Any) -> tuple[int, int]:
    """Return (rows, columns) of a size in pixels.

    >>> parse_size(264), parse_size("264x256"), parse_size((120, 120))
    ((264, 264), (264, 256), (120, 120))

    Raises `InvalidInputError` where it is none.
    """
    try:
        if isinstance(size, str):
            size = [int(side) for side in size.lower().split("x")]
        sides = [int(side) for side in ([size] if isinstance(size, int) else size)]
        height, width = sides * 2 if len(sides) == 1 else sides
        if min(height, width) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"a size such as 264, '264x256' or (264, 256), or 'pad', was expected, got {size!r:.100}."
        ) from None
    return height, width
