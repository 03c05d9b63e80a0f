"""`PatchReader`: patches of a store's scenes as NumPy batches."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from hashlib import blake2b
from typing import Any, Final, Self, Unpack, cast

import numpy as np
import pandas as pd

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import (
    InvalidInputError,
    MixedBoundsError,
    NothingChosenError,
    NotInStoreError,
)
from sarzarr.keywords import shows_options
from sarzarr.patches.index import spec_of
from sarzarr.patches.selection import (
    chunk_table,
    drawn_of,
    patch_columns,
    patch_facts,
    select,
    weights_of,
)
from sarzarr.patches.stacks.find import catalog_groups, choose_stacks
from sarzarr.patches.stacks.stack import Stack
from sarzarr.pixels.stretch import Stretch
from sarzarr.reader.crops import Crops, moved_recipe
from sarzarr.reader.epochs import EpochReader
from sarzarr.reader.layers import layer_recipes
from sarzarr.reader.moments import ChannelMoments, CountedArray, channel_moments
from sarzarr.reader.options import ReadKeywords, ReadOptions, clips_of
from sarzarr.reader.order import Indices, drawn
from sarzarr.reader.picture import batch_parts, plot_parts
from sarzarr.reader.prefetch import BatchRecipe
from sarzarr.reader.scales import Scaling, scaled_targets
from sarzarr.reader.several import (
    check_alike,
    joined_recipe,
    joined_selection,
    joined_targets,
    taken_recipe,
    taken_selection,
    taken_targets,
)
from sarzarr.reader.targets import PatchTargets, patch_targets, table_asked
from sarzarr.store.boxes import ON_SCENES, Windows, check_grids, read_boxes
from sarzarr.store.chunks import ArrayLayout
from sarzarr.store.place import Folder
from sarzarr.store.store import AnyStore, Store
from sarzarr.text import listed

log = logging.getLogger(__name__)
_ORDER: Final = (
    "batch_size",
    "shuffle",
    "window",
    "weights",
    "max_patches",
    "drop_last",
    "seed",
    "threads",
    "read_ahead",
    "check",
    "cache",
)
"""Options of what joins readers; all others are of each."""
_OF_ALL: Final = ("weights", "max_patches", "drop_last")
"""Options that are of the patches of all stores together."""


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
        A `Store`, or its path; or a list of them, whose patches are delivered as those of one: each once an
        epoch, with ids that are the first store's own and distinct from them in others, and in dicts ``store``,
        its path. A list of readers joins what each has chosen; ``one | other`` and ``one & other`` are the
        patches of either, and of both.
    **options
        The fields of `sarzarr.reader.options.ReadOptions`.

    Raises `CorruptStoreError` where a shard is absent or short, a manifest is not as it was written, or a chunk fails
    its checksum: of 64 arrays, spread over all, files and manifests are looked at on opening, of the others when a
    batch first touches them. No batch holds such a patch.
    """

    crops: Crops | None = None
    """The ground that windows are drawn from; None of a reader of patches of a cut."""
    _latest: "PatchReader | None" = None
    members: "tuple[PatchReader, ...]" = ()
    """The readers of several stores or selections, whose patches are joined; none of a reader of one store."""

    def __init__(
        self,
        store: "AnyStore | PatchReader | Sequence[AnyStore | PatchReader]",
        **options: Unpack[ReadKeywords],
    ) -> None:
        if isinstance(store, PatchReader | list | tuple):
            self._join(store if isinstance(store, list | tuple) else (store,), options)
        else:
            super().__init__(cast("AnyStore", store), ReadOptions(**options))
        if self.weights is not None:  # made once, and refused at once where they cannot be drawn by
            drawn(self.weights, seed=0, epoch=0)

    def _join(self, given: Sequence[Any], options: ReadKeywords) -> None:
        """Open a reader per store, or take those given, and join their patches."""
        self.members, made = _members(given, options)
        super().__init__(self.members[0].store, made)
        del self.store  # there are several: see `members`

    def _choose(self) -> None:
        if self.members:
            self._choose_from_members()
            return
        o = self.options
        self.index = (o.of_cells if o.crops == "random" else o).index_in(self.store)
        self.stacks: tuple[Stack, ...] = ()
        query = o.query(self.index)
        if o.stack is not False:
            self.stacks = choose_stacks(
                self.store, o.stack, scenes=o.scenes, polarizations=o.polarizations, length=o.stack_length
            )
            groups = catalog_groups(self.store, self.stacks)
            query = replace(query, scenes=None, polarizations=None, groups=groups, dates=len(self.stacks[0]))
        if o.crops == "random":
            self.crops = Crops.random(self.store, query, o)
        elif o.crops == "jitter":
            on_cells = replace(query, index=o.of_cells.index_in(self.store), rows=None, at_most=None)
            reach = spec_of(self.store, self.index).stride // 2
            self.crops = Crops.jitter(self.store, query, on_cells, reach)
        self._drawn_for = 0
        chosen = None if self.crops is None else self.crops.selection(self.store, o.seed, 0)
        self.selection = select(self.store, query) if chosen is None else chosen
        self.recipe = self._recipe(is_all_valid=query.min_valid == 1 and not self.selection.is_padded)
        self._stack_of = {stack.id: stack for stack in self.stacks}
        self.targets = self._targets() if o.boxes else None

    def in_epoch(self, epoch: int) -> Self:
        """Return the reader whose `selection` is that of an epoch: another one of crops, which are drawn anew."""
        if self.crops is None or epoch == self._drawn_for:
            return self
        if self._latest is None or self._latest._drawn_for != epoch:
            self.memory()
            other = copy.copy(self)
            for name in ("shards", "weights", "_digest"):
                vars(other).pop(name, None)
            other.selection = self.crops.selection(self.store, self.options.seed, epoch)
            owners = self.store.catalog["scene"].values[other.selection.catalog_row].astype(str)
            scenes = np.unique(owners, return_inverse=True)[1]
            other.recipe = moved_recipe(self.recipe, other.selection, scenes)
            other._drawn_for, other._own, other._orders, other._latest = epoch, {}, None, None
            other.targets = other._targets() if self.options.boxes else None
            self._latest = other
        return cast("Self", self._latest)

    def _choose_from_members(self) -> None:
        members = self.members
        if any(member.crops is not None for member in members):
            raise InvalidInputError(
                "patches of a cut were expected of readers that are joined, got crops. Read their batches in turns."
            )
        check_alike([str(m.store.place) for m in members], [m._facts for m in members])
        places = [_address(m.store) for m in members]
        stores = [list(dict.fromkeys(places)).index(place) for place in places]
        self.selection = joined_selection([m.selection for m in members], stores)
        if twice := len(self.selection) - len(np.unique(self.selection.id)):
            raise InvalidInputError(
                f"each patch once was expected, got {twice} of one store twice. Name a store once, and join readers "
                "of one as one | other."
            )
        self.recipe = joined_recipe([m.recipe for m in members])
        sizes = [len(m.selection) for m in members]
        self._member = np.repeat(np.arange(len(members)), sizes)
        self._number = np.concatenate([np.arange(size) for size in sizes])
        targets = {
            f"{i} {m.store.place.name}": m.targets for i, m in enumerate(members, 1) if m.targets is not None
        }
        self.targets = joined_targets(targets, self.selection.id) if targets else None
        most = self.options.max_patches
        if most is not None and most < len(self.selection):
            self._keep(drawn_of(len(self.selection), most, self.options.seed))

    def _keep(self, rows: Array) -> None:
        """Keep the patches ``rows`` (k,) of the selection alone."""
        self.selection = taken_selection(self.selection, rows)
        self.recipe = taken_recipe(self.recipe, rows)
        self.targets = None if self.targets is None else taken_targets(self.targets, rows)
        if self.members:
            self._member, self._number = self._member[rows], self._number[rows]

    def _among(self, other: "PatchReader") -> Array:
        """Return (n,) bool: which patches of this reader, of one store, another delivers, too."""
        ids = [m.selection.id for m in other.members or (other,) if _address(m.store) == _address(self.store)]
        return np.isin(self.selection.id, np.concatenate([np.zeros(0, np.int64), *ids]))

    def __or__(self, other: "PatchReader") -> "PatchReader":
        """Return a reader of the patches of both, each once; order and batches are this one's, without weights."""
        more = []
        for member in other.members or (other,):
            rows = np.flatnonzero(~member._among(self))
            if rows.size:
                more.append(_part_of(member, rows))
        return PatchReader([*(self.members or (self,)), *more])

    def __and__(self, other: "PatchReader") -> "PatchReader":
        """Return a reader of the patches that both deliver, as this one does; `NothingChosenError` of none."""
        parts = []
        for member in self.members or (self,):
            rows = np.flatnonzero(member._among(other))
            if rows.size:
                parts.append(_part_of(member, rows))
        if not parts:
            raise NothingChosenError(
                f"at least one patch in both selections was expected, got none of {len(self.selection)} and "
                f"{len(other.selection)}. Choose selections of one store and one cut that overlap."
            )
        return PatchReader(parts)

    @property
    def _facts(self) -> dict[str, Any]:
        """What readers must agree in to be joined, by what it is called."""
        o, recipe = self.options, self.recipe
        return {
            "size of patches": self.selection.shape,
            "number of channels": recipe.images.array.shape[1] // max(recipe.dates, 1),
            "number of dates": recipe.dates,
            "list of polarizations": o.polarizations and [p.lower() for p in o.polarizations],
            "dtype": o.dtype,
            "delivery of flags": (o.flags, o.with_meta, recipe.flags is not None),
            "augmentation": o.augment,
            "layers, with their dtypes and nodata values": [
                (p.name, p.dtype, p.outside) for p in recipe.layers
            ],
            "form of boxes": self.targets and f"(n, {self.targets.boxes.boxes.shape[1]})",
        }

    def _recipe(self, *, is_all_valid: bool) -> BatchRecipe:
        chosen, options = self.selection, self.options
        arrays = chunk_table(self.store, self.index, chosen)
        if options.dtype == "uint16" and any(x.dtype != "uint16" for x in arrays.layouts):
            raise InvalidInputError("dtype 'uint16' needs arrays of codes, got others. Leave out dtype=.")
        laws: tuple[Stretch | None, ...] = (None,) * len(arrays.layouts)
        if options.dtype != "uint16":
            half = None if options.dtype == "float32" else options.dtype
            law = cache(partial(Stretch.between, half=half))
            laws = tuple(map(law, self._column("dtype"), self._stored(), self._clips()))
        # Only flags tell what an augmentation of values may not change.
        masks = bool(options.augmentation.changes) and not is_all_valid
        flags = None
        if options.delivers_flags or masks:
            of_flags = chunk_table(self.store, self.index, chosen, flags=True)
            flags = self._part("flags", of_flags, (None,) * len(laws), "uint8", cv.Flag.NODATA)
        return BatchRecipe(
            images=self._part("image", arrays, laws, options.dtype),
            row=chosen.row,
            col=chosen.col,
            flags=flags,
            dates=chosen.dates,
            layers=layer_recipes(self.store, options.layers, chosen) if options.layers else (),
            masks=masks,
            scaling=self._scaling(arrays.layouts),
            ranges=np.array(
                [(*stored, *clip) for stored, clip in zip(self._stored(), self._clips(), strict=True)]
            )
            if options.augmentation.is_in_power
            else None,
        )

    def _scaling(self, arrays: Sequence[ArrayLayout]) -> Scaling | None:
        """Return how windows of several scales become patches; None where pixels are delivered as they are."""
        if self.selection.span is None:
            return None
        dtypes = tuple(layout.dtype for layout in arrays)
        return Scaling(
            span=self.selection.span, dtypes=dtypes, stored=tuple(self._stored()), clip=tuple(self._clips())
        )

    def _targets(self) -> PatchTargets:
        name, rotated = table_asked(self.options.boxes)
        boxes = read_boxes(self.store, name)
        if boxes.on != ON_SCENES:
            raise InvalidInputError(
                f"boxes on scenes were expected, got {name!r}, which are on {boxes.on}. Read those with samples=."
            )
        scenes, chosen = self._column("scene"), self.selection
        check_grids(self.store, boxes, set(scenes))
        size = chosen.shape[0] if chosen.span is None else chosen.span
        windows = Windows(owner=chosen.array[:, 0], row=chosen.row, col=chosen.col, size=size)
        visible = self.options.min_visible
        made = patch_targets(boxes, scenes, windows, chosen.id, min_visible=visible, rotated=rotated)
        return made if chosen.span is None else scaled_targets(made, chosen.span, chosen.shape)

    @property
    def bounds_keys(self) -> set[str]:
        """The groups of the arrays that are read, ``vv/sigma0``, each with a clip (dB) of its own."""
        return set(self._column("bounds_key"))

    @property
    def preprocessing_params(self) -> dict[str, Any]:
        """``{"vmin", "vmax"}`` in dB of 0 and 1 of the batches: two numbers, or two lists where channels differ.

        `MixedBoundsError` where the clips of groups within a channel differ.
        """
        clips, used = self._clips(), self._used
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

    def statistics(self) -> ChannelMoments:
        """Return mean and standard deviation of each channel as delivered, from the histograms; no pixel is read.

        They are of every valid pixel of the arrays that patches are chosen from: of whole scenes, also where a split
        or a condition takes a part of their ground. Augmentation and weights do not count.
        """
        channels = self.selection.array.shape[1] // max(self.selection.dates, 1)
        arrays = self._counted()
        # Members of one store have the same arrays: each counts once.
        used = [
            dict(arrays[i] for i in np.unique(self._used[:, channel::channels]).tolist())
            for channel in range(channels)
        ]
        scenes = {key[:2] for one in used for key in one}
        return channel_moments([list(one.values()) for one in used], len(scenes))

    def plot(self, batch: Any, *, patches: int = 8) -> Any:
        """Return a `matplotlib.figure.Figure` of a batch as this reader delivers it, or as tensors of it.

        A column is a patch, ``patches`` at most; rows are channels (of stacks date after date) from 0, black, to 1,
        white, with boxes outlined, then flags and layers. Raises `InvalidInputError` where it is no such batch,
        `MissingExtraError` where matplotlib is not installed.
        """
        o = self.options
        names = ["image", *["flags"] * o.flags, *["target"] * bool(o.boxes)]
        return plot_parts(batch_parts(batch, names, o.layers), nodata=self.layer_nodata, patches=patches)

    @property
    def _used(self) -> Array:
        """(n, channels) the arrays that patches are of: in any epoch, of crops."""
        return self.selection.array if self.crops is None else self.crops.base.array

    def _counted(self) -> list[tuple[tuple[Any, ...], CountedArray]]:
        """Return each array that is read: store, scene, name and clip, that tell it from others, and its pixels."""
        if self.members:
            return [one for member in self.members for one in member._counted()]
        columns = (self._column(name) for name in ("scene", "name", "dtype"))
        is_coded, found = self.options.dtype == "uint16", []
        for scene, name, dtype, stored, clip in zip(*columns, self._stored(), self._clips(), strict=True):
            counts, given = self.store.histogram(scene, name), None if is_coded else clip
            array = CountedArray(histogram=counts, dtype=dtype, stored=stored, clip=given)
            found.append(((_address(self.store), scene, name, given), array))
        return found

    def _column(self, name: str) -> list[Any]:
        """Return a column of the catalog for each array that is read."""
        if self.members:
            return [value for member in self.members for value in member._column(name)]
        values: list[Any] = self.store.catalog[name].values[self.selection.catalog_row].tolist()
        return values

    def _stored(self) -> list[tuple[float, float]]:
        return list(zip(self._column("vmin"), self._column("vmax"), strict=True))

    def _clips(self) -> list[tuple[float, float]]:
        """Return the pair that each array is delivered with, dB."""
        if self.members:
            return [clip for member in self.members for clip in member._clips()]
        if self.options.dtype == "uint16":
            return self._stored()
        return clips_of(self.store, self._column("bounds_key"), self.options.clip)

    @cached_property
    def shards(self) -> Indices:
        """(n,) int64: the number of the file that each patch of the selection begins in."""
        chosen, table = self.selection, self.recipe.images.source.table
        array = chosen.array[:, 0].astype(np.int64)
        return table.files_at(array, chosen.row.astype(np.int64), chosen.col.astype(np.int64))

    def _columns(self) -> dict[str, Callable[[], Array]]:
        """Return what makes each column (n,) of the selection."""
        if not self.members:
            return patch_columns(self.store, self.index, self.selection)
        parts = [member._columns() for member in self.members]
        starts = np.cumsum([0, *(len(m.selection) for m in self.members)])
        rows = starts[self._member] + self._number

        def joined(name: str) -> Array:
            return np.asarray(np.concatenate([part[name]() for part in parts])[rows])

        shared = [name for name in parts[0] if all(name in part for part in parts)]
        places = np.array([str(m.store.place) for m in self.members], object)
        return {name: partial(joined, name) for name in shared} | {"store": lambda: places[self._member]}

    def table(self) -> pd.DataFrame:
        """Return the selection as a `pandas.DataFrame`, a row a patch, in the order of the patches' numbers.

        Columns are those of the index (``row``, ``col``, ``mean_db``, ...) and of the catalog (``scene``, ``time``,
        ``incidence``, ...), of the first channel; ``id`` is the reader's, and of several stores ``store`` its path.
        Of crops ``row`` and ``col`` are the window's, ``span`` its side if they are scaled, and measures its cell's.
        """
        columns, chosen = {name: make() for name, make in self._columns().items()}, self.selection
        columns |= {"row": chosen.row, "col": chosen.col}  # of crops not those of their cells
        columns |= {} if chosen.span is None else {"span": chosen.span}
        return pd.DataFrame(columns | {"id": chosen.id})

    @cached_property
    def weights(self) -> Array | None:
        """(n,) float64: how often each patch is drawn, against the others; None where all are once."""
        given = self.options.weights
        if given is None:
            return None
        if isinstance(given, Mapping):
            known = {scene for m in self.members or (self,) for scene in m.store.scenes}
            if unknown := sorted(set(given) - known):
                raise NotInStoreError(
                    f"weights of {len(known)} scenes were expected, got {listed(unknown)}. Leave them out."
                )
        if isinstance(given, Mapping | str):
            return weights_of(self._columns(), given)
        values = np.asarray(given(self.table()) if callable(given) else given, np.float64)
        if values.shape != (len(self.selection),):
            raise InvalidInputError(
                f"one weight for each of {len(self.selection)} patches was expected, got shape {values.shape}. "
                "Return one per row of PatchReader.table()."
            )
        self.options = replace(self.options, weights=values)  # which pickles, and of which a state can tell
        return values

    def _described(self, patches: Array) -> dict[str, Any]:
        if self.members:
            return self._described_by_members(patches)
        facts = patch_facts(self.store, self.selection, patches)
        if self.stacks:
            scenes = self._column("scene")
            stacks = [self._stack_of[scenes[i]] for i in self.selection.array[patches, 0].tolist()]
            facts["time"] = [[f"{stamp}Z" for stamp in stack.stamps] for stack in stacks]
            facts["seconds"] = np.array([stack.seconds for stack in stacks])
        return facts

    def _described_by_members(self, patches: Array) -> dict[str, Any]:
        """Return the facts of some patches as their members tell them, with the path of each one's ``store``."""
        owners, number = self._member[patches], self._number[patches]
        parts = {i: self.members[i]._described(number[owners == i]) for i in np.unique(owners).tolist()}
        order = np.argsort(np.argsort(owners, kind="stable"))
        facts: dict[str, Any] = {"store": [str(self.members[i].store.place) for i in owners.tolist()]}
        for name, first in next(iter(parts.values()), {}).items():
            values = [part[name] for part in parts.values()]
            if isinstance(first, np.ndarray):
                facts[name] = np.concatenate(values)[order]
            else:
                flat = [one for value in values for one in value]
                facts[name] = [flat[i] for i in order.tolist()]
        return facts | {"id": self.selection.id[patches]}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that the order of an epoch depends on, besides the epoch; of several stores, what they hold."""
        rows = self.selection.shape[0]
        o, crops = self.options, dict[str, str]()
        if self.crops is not None:
            by_area = " by ground" if o.area == "ground" else ""
            scaled = f" at scales {o.scale[0]:g} to {o.scale[1]:g}" if o.scale is not None else ""
            crops = {"crops": f"{o.crops} of {rows} pixels{by_area}{scaled}"}
        return super().fingerprint | ({"stores": self._digest} if self.members else {}) | crops

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_latest": None}

    @cached_property
    def _digest(self) -> str:
        """What tells the patches and pixels of these stores, in this order, from others, wherever they lie."""
        manifests = repr(self.recipe.images.source.table.crcs).encode()
        return blake2b(self.selection.id.tobytes() + manifests, digest_size=8).hexdigest()

    def __repr__(self) -> str:
        names = [m.store.place.name for m in self.members or (self,)]
        return f"<sarzarr.PatchReader {', '.join(map(repr, names))}: {len(self.selection)} patches>"


def _address(store: Store) -> str:
    """Return what tells a store from any other, however its path is written."""
    return str(store.place.path.resolve()) if isinstance(store.place, Folder) else str(store.place)


def _part_of(reader: PatchReader, rows: Array) -> PatchReader:
    """Return a reader of the patches ``rows`` (k,) of one store's reader, to be joined with others."""
    part = copy.copy(reader)
    vars(part).pop("weights", None)
    vars(part).pop("shards", None)
    part._keep(rows)
    return part


def _members(given: Sequence[Any], options: ReadKeywords) -> tuple[tuple[PatchReader, ...], ReadOptions]:
    """Return the readers whose patches are joined, and the options of what joins them."""
    readers = [one for one in given if isinstance(one, PatchReader)]
    if not given or len(readers) not in (0, len(given)):
        raise InvalidInputError(
            f"stores, or readers of them, one at least, were expected, got {len(given) - len(readers)} stores and "
            f"{len(readers)} readers. Make a PatchReader of each."
        )
    if readers:
        if own := sorted(set(options) - {*_ORDER}):
            raise InvalidInputError(
                f"{', '.join(_ORDER)} were expected for readers, got {', '.join(own)}. Pass it to each reader."
            )
        if shared := [reader.share for reader in readers if reader.share.ranks > 1]:
            raise InvalidInputError(
                f"readers of all ranks were expected, got one of {shared[0].ranks}. Call for_rank() of what joins "
                "them."
            )
        members = tuple(member for reader in readers for member in reader.members or (reader,))
        anew: ReadKeywords = {"weights": None, "max_patches": None, **options}
        return members, replace(members[0].options, **anew)
    if options.get("rows") is not None:
        raise InvalidInputError(
            "rows= of one store were expected, got several stores. Join readers: PatchReader([PatchReader(store, "
            "rows=...), ...])."
        )
    each = cast("ReadKeywords", {k: v for k, v in options.items() if k not in _OF_ALL})
    made, empty = [], ""
    for store in given:
        try:
            made.append(PatchReader(store, **each))
        except NothingChosenError as error:
            empty = f"{getattr(store, 'place', store)}: {error}"
            log.warning("%s: no patch of it is chosen", getattr(store, "place", store))
    if not made:
        raise NothingChosenError(f"patches of {len(given)} stores were expected, got none. {empty}")
    return tuple(made), ReadOptions(**options)
