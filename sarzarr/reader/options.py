"""`ReadOptions`: the keywords of a reader, checked, and the patches of an index that they ask for."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any, Final, Literal, SupportsIndex, TypedDict, get_args

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.grids.region import GroundRegion
from sarzarr.patches.cut import IndexSpec
from sarzarr.patches.index import ensure_index, spec_of
from sarzarr.patches.period import parse_period
from sarzarr.patches.selection import Query
from sarzarr.patches.stacks.stack import Stack
from sarzarr.pixels.bounds import ClipBounds
from sarzarr.reader.augment import Augment, Augmentation, augmentation_of
from sarzarr.reader.order import WINDOW_SHARDS
from sarzarr.store.boxes import MIN_VISIBLE
from sarzarr.store.store import Store
from sarzarr.text import parse_bytes

_FROM_0: Final = ("seed", "read_ahead")
_FROM_1: Final = (
    "patch_size",
    "stride",
    "max_patches",
    "stack_length",
    "batch_size",
    "window",
    "threads",
    "per_epoch",
)
_OF_THE_CUT: Final = ("stride", "edge", "index", "rows", "max_patches", "weights")
"""Options that random crops know nothing of."""
log = logging.getLogger(__name__)
Edge = Literal["drop", "shift", "pad"]
DeliveredDtype = Literal["float32", "float16", "bfloat16", "uint16"]
"""Dtypes of delivered images (n, channels, rows, columns)."""
Clip = tuple[float, float] | Mapping[str, tuple[float, float]]
"""(vmin, vmax) in dB, or such a pair by group."""
Weights = Mapping[str, float] | str | Callable[[Any], Any] | Array
"""Weights of patches: by scene, a column, a function of the table of the selection, or (n,)."""
Box = tuple[float, float, float, float]
"""(left, bottom, right, top)."""
Bounds = Box | tuple[Box, str]
"""A box in longitude and latitude, or one and its CRS."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Every keyword of `PatchReader`, with its default."""

    split: str | None = None
    """``train``, ``val`` or ``test`` of the newest split version, ``v2:val`` of another; all if left out."""
    scenes: Sequence[str] | None = None
    """Ids of scenes; all if left out."""
    polarizations: Sequence[str] | None = None
    """Polarizations or names of arrays. Several become channels, of the scenes that have them all."""
    stack: Stack | str | bool = False
    """Deliver the dates of a stack together: (N, T, C, size, size). A `sarzarr.Stack`, the id of any scene of one,
    or True for all of the store; with ``scenes`` for the one that those make."""
    stack_length: int | None = None
    """Dates of a patch of a stack: every run of so many that follow one another; all if left out."""
    index: str | None = None
    """The patch index; ``default`` unless ``patch_size``, ``stride`` or ``edge`` is given."""
    patch_size: int | None = None
    """Rows and columns of a patch, pixels. A cut that no index of the store has is indexed first, and kept
    there, or by the reader alone where the store cannot be written to."""
    stride: int | None = None
    """Pixels from one patch to the next; ``patch_size`` if left out."""
    edge: Edge | None = None
    """Treatment of the remainders at right and bottom; see `sarzarr.index_patches`."""
    min_valid: float | None = None
    """Least share of valid pixels among those that are no padding: 1 unless given, or with flags anything above 0.
    0, with ``min_unsaturated=0``, takes every window, those without a valid pixel too."""
    min_unsaturated: float = 0.9
    """Least share of the valid pixels strictly inside 1 % and 99 % of the store's recommended clip (with ``clip``,
    too: that is what the index knows). 0 takes every patch, however dark or bright."""
    where: str | None = None
    """A condition on columns of the index and of the catalog: ``incidence < 40 and mean_db > -20``."""
    bounds: Bounds | None = None
    """``(left, bottom, right, top)`` in longitude and latitude, ``left`` above ``right`` across the antimeridian; or
    such a tuple and the CRS that it is in. Patches whose ground it meets, whatever their scenes' CRS."""
    polygon: Any = None
    """Ground in polygons, in longitude and latitude, or ``(polygon, crs)``: a GeoJSON mapping, an object with
    ``__geo_interface__`` (shapely, geopandas), or the path of a file (GeoJSON, GeoPackage, shapefile, FlatGeobuf)."""
    predicate: Literal["intersects", "within"] = "intersects"
    """Patches that share ground with ``bounds`` and ``polygon``, or that lie wholly within (one of its polygons)."""
    time: Any = None
    """When patches were acquired: a pair or slice of ISO text or datetimes, both ends included, None for an open one;
    ``"2026-03"`` is all of that month. UTC."""
    crops: Literal["random", "jitter"] | None = None
    """``random``: windows anywhere on the cells of 256 x 256 pixels that the conditions choose, drawn anew each epoch
    by (seed, epoch), each place with equal chance, and none that touches another cell. ``jitter``: the patches of
    the cut, each moved by up to half a stride. ``min_valid`` is of a window's own pixels. None: the cut's patches."""
    per_epoch: int | None = None
    """Random crops of an epoch; as many as the chosen cells have pixels for if left out."""
    area: Literal["pixels", "ground"] = "pixels"
    """What random crops are uniform over: ``pixels``, so that each place of a window has an equal chance; or
    ``ground``, each by the square metres of a pixel there, whatever the CRS. Scenes then must have a place."""
    scale: tuple[float, float] | None = None
    """(least, most) scales of random crops, from 1/16 to 16: a window of ``scale * patch_size`` pixels a side becomes
    ``patch_size`` in linear power, averaged where the scale is above 1, bilinear below. Each crop's is drawn by
    (seed, epoch) from 17 steps of equal ratio. None: 1, the pixels themselves."""
    rows: Array | Sequence[int] | None = None
    """Rows (k,) of the index to choose from, where a query of one's own has chosen; all if left out."""
    max_patches: int | None = None
    """Most patches of the selection that are taken, drawn by ``seed``."""
    clip: Clip | None = None
    """(vmin, vmax) in dB that batches are stretched to, or such a pair for each group, by its name (``vv/sigma0``);
    the recommended one of each array if left out."""
    dtype: DeliveredDtype = "float32"
    """``float32`` in [0, 1]; ``float16`` or ``bfloat16``, each the nearest of 16 bits to the float32, halfway to even
    (NumPy has no bfloat16: its bits are uint16 there, and a tensor's in `sarzarr.torch`); or the ``uint16`` codes as
    stored."""
    flags: bool = False
    """Deliver the flags, uint8 of the images' shape, too: a batch is (images, flags)."""
    layers: Sequence[str] = ()
    """Deliver these layers too, each (N, 1, size, size) as stored, of the same windows; scenes must have them."""
    with_meta: bool = False
    """Deliver where each patch is from: a batch is a dict, see `PatchReader`. It holds the flags, so that
    ``min_valid`` is what it is with them."""
    boxes: bool | str = False
    """Deliver what each patch shows of a table of boxes on scenes, ``default`` or of that name: upright boxes (n, 4),
    cut to the patch. ``rotated``, or ``rotated:NAME``: (n, 5) ``cx, cy, w, h, angle`` in pixels and radians, whole,
    as `sarzarr.pixels.rotated` has them."""
    min_visible: float = MIN_VISIBLE
    """Share of a box's area, of a rotated one's polygon, that must be in a patch for the patch to show it."""
    batch_size: int = 8
    """Patches of a batch."""
    shuffle: bool | Literal["window"] = False
    """True: any patch anywhere in the epoch. ``window``: a few shards at a time. False: the table's order."""
    window: int = WINDOW_SHARDS
    """Shards that ``shuffle="window"`` mixes."""
    weights: Weights | None = None
    """Weights by which patches are drawn, one per scene (1 where not named), or a column of the index or the catalog.
    A column of numbers is the weight; of a column of words, each word counts alike. Or a function, called once, from
    `PatchReader.table` to (n,) weights; or these. Draws repeat patches."""
    augment: Augment | None = None
    """Drawn for each patch anew each epoch: ``d4``, ``flips`` or ``azimuth``; a `Speckle`, `Gain` or other
    `sarzarr.reader.augment.PowerChange`; a function ``(images, rngs)`` of float32 in [0, 1] and a generator per
    patch; or several of these. None if left out."""
    drop_last: bool = False
    """Leave out what does not fill a batch for every rank."""
    seed: int = 0
    """With the epoch, what order and augmentation depend on."""
    threads: int | None = None
    """Threads that fill batches: the cores that this process may use, 4 at most, unless given."""
    read_ahead: int = 2
    """Batches that are made before they are asked for, besides one per thread."""
    check: Literal["once", "always"] = "once"
    """``once``: a chunk is checked when a process first reads it, before a pixel of it is delivered; later, where it
    is not compressed, the rows that are needed are read alone, as long as its file is the same. ``always``: it is
    checked each time, as compressed chunks that are not kept are in any case."""
    cache: int | str | None = None
    """Most bytes of compressed chunks that a process keeps decoded, for all of its threads: a number, or ``"512MB"``.
    If left out 256 MB for windows that are no whole chunks, of which several need each chunk, and 32 MB for flags and
    layers beside images that are; 0 keeps none, as ``check="always"`` does."""

    def __post_init__(self) -> None:
        changes_values = bool(self.augmentation.changes)
        for name in (*_FROM_1, *_FROM_0):
            value, least = getattr(self, name), int(name in _FROM_1)
            if value is not None and not (isinstance(value, SupportsIndex) and index(value) >= least):
                raise InvalidInputError(f"{name} must be a whole number, at least {least}, got {value!r}.")
        if self.shuffle not in (True, False, "window"):
            raise InvalidInputError(f"shuffle must be True, False or 'window', got {self.shuffle!r}.")
        self._check_crops()
        if self.check not in ("once", "always"):
            raise InvalidInputError(f"check must be once or always, got {self.check!r}.")
        if self.cache is not None:
            self._check_cache()
        if self.predicate not in ("intersects", "within"):
            raise InvalidInputError(f"predicate must be intersects or within, got {self.predicate!r}.")
        if self.dtype not in get_args(DeliveredDtype):
            raise InvalidInputError(
                f"dtype must be {', '.join(get_args(DeliveredDtype))}, got {self.dtype!r}."
            )
        if self.stack is False and self.stack_length is not None:
            raise InvalidInputError("stack_length= needs stack=, got none. Pass stack=True, or leave it out.")
        if self.stack is not False and self.boxes:
            raise InvalidInputError("boxes= needs patches of one date, got stack=. Leave one out.")
        if self.stack is not False and self.time is not None:
            raise InvalidInputError(
                "time= needs patches of one date, got stack=. Pass dates of it: stack=STACK.window(first, length)."
            )
        if isinstance(self.layers, str):
            object.__setattr__(self, "layers", (self.layers,))
        if self.clip is not None:
            clip: Clip
            if isinstance(self.clip, Mapping):
                clip = {key: _pair(one) for key, one in self.clip.items()}
            else:
                clip = _pair(self.clip)
            object.__setattr__(self, "clip", clip)
        if self.dtype == "uint16" and (self.clip is not None or changes_values):
            given = f"augment={self.augment!r}" if self.clip is None else f"clip={self.clip}"
            raise InvalidInputError(
                f"{given} needs dtype='float32', got 'uint16': codes come as they are stored. Leave one out."
            )
        if self.dtype in ("float16", "bfloat16") and changes_values:
            raise InvalidInputError(
                f"augment={self.augment!r} needs dtype='float32', got {self.dtype!r}: values are changed as float32. "
                "Leave dtype= out, and cast the batch."
            )

    def _check_cache(self) -> None:
        cache = parse_bytes(self.cache) if isinstance(self.cache, str) else self.cache
        if not (isinstance(cache, SupportsIndex) and index(cache) >= 0):
            raise InvalidInputError(
                f"cache must be bytes, at least 0, or a size such as '512MB', got {cache!r}."
            )
        if index(cache) and self.check == "always":
            raise InvalidInputError(
                f"cache={self.cache!r} keeps chunks that were checked, got check='always'. Leave one out."
            )
        object.__setattr__(self, "cache", index(cache))

    def _check_crops(self) -> None:
        if self.crops not in (None, "random", "jitter"):
            raise InvalidInputError(f"crops must be random, jitter or None, got {self.crops!r}.")
        if self.per_epoch is not None and self.crops != "random":
            raise InvalidInputError(
                f"per_epoch= needs crops='random', got crops={self.crops!r}. Leave it out."
            )
        if self.area not in ("pixels", "ground"):
            raise InvalidInputError(f"area must be pixels or ground, got {self.area!r}.")
        if (self.area != "pixels" or self.scale is not None) and self.crops != "random":
            name = "scale=" if self.scale is not None else "area='ground'"
            raise InvalidInputError(f"{name} needs crops='random', got crops={self.crops!r}. Leave it out.")
        if self.scale is not None:
            object.__setattr__(self, "scale", _scales(self.scale))
        cut = [name for name in _OF_THE_CUT if getattr(self, name) is not None]
        if self.crops == "random" and cut:
            raise InvalidInputError(
                f"crops='random' lie anywhere, got {cut[0]}=, which is of a cut. Leave it out; patch_size= and "
                "per_epoch= say how large they are, and how many."
            )
        if self.crops == "jitter" and (self.edge == "pad" or self.weights is not None):
            name = "edge='pad'" if self.edge == "pad" else "weights="
            raise InvalidInputError(
                f"crops='jitter' moves patches within their scenes, got {name}. Leave it out."
            )

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation that is given; one that does nothing where it is left out."""
        return augmentation_of(self.augment)

    @property
    def delivers_flags(self) -> bool:
        """Whether a user can tell which pixels are not valid."""
        return self.flags or self.with_meta

    def index_in(self, store: Store) -> str:
        """Return the name of the index with the asked cut in pixels, and make it where there is none."""
        if (self.patch_size, self.stride, self.edge) == (None, None, None):
            return self.index or cv.DEFAULT_INDEX
        size, edge = self.patch_size or cv.CHUNK, self.edge or "drop"
        stride = self.stride or size
        name = self.index or f"{size}-{stride}-{edge}"
        wanted = IndexSpec(name=name, size=size, stride=stride, edge=edge)
        for known in store.patch_indices:
            if self.index in (None, known) and spec_of(store, known) == replace(wanted, name=known):
                return known
        log.info("indexing %s: patches of %d pixels every %d, edge %s", store.place, size, stride, edge)
        ensure_index(store, wanted)
        return name

    @property
    def of_cells(self) -> "ReadOptions":
        """The same of the cells of 256 x 256 pixels that crops lie on, those at the edges of scenes too."""
        return replace(
            self,
            crops=None,
            per_epoch=None,
            area="pixels",
            scale=None,
            patch_size=cv.CELL,
            stride=cv.CELL,
            edge="pad",
            index=None,
        )

    def query(self, index: str) -> Query:
        """Return the conditions on patches of an index that these options make; shares are in [0, 1]."""
        same = ("split", "scenes", "polarizations", "min_unsaturated", "where", "rows", "seed")
        least = None if self.delivers_flags else 1.0
        return Query(
            index=index,
            min_valid=least if self.min_valid is None else self.min_valid,
            at_most=self.max_patches,
            regions=tuple(
                make(given)
                for make, given in (
                    (GroundRegion.of_bounds, self.bounds),
                    (GroundRegion.of_polygon, self.polygon),
                )
                if given is not None
            ),
            within=self.predicate == "within",
            period=None if self.time is None else parse_period(self.time),
            **{name: getattr(self, name) for name in same},
        )


def clips_of(store: Store, keys: Sequence[str], clip: Clip | None) -> list[tuple[float, float]]:
    """Return the pair (vmin, vmax) in dB that arrays of groups are delivered with, by their keys: ``vv/sigma0``.

    `InvalidInputError` where pairs by group are given, and one of these has none.
    """
    if clip is None:
        return [(store.bounds[key].clip_vmin, store.bounds[key].clip_vmax) for key in keys]
    if not isinstance(clip, Mapping):
        return [clip] * len(keys)
    if missing := set(keys) - set(clip):
        raise InvalidInputError(
            f"clips for {', '.join(sorted(set(keys)))} were expected, got none for {', '.join(sorted(missing))}. "
            "Name them in clip=."
        )
    return [clip[key] for key in keys]


def _pair(clip: Any) -> tuple[float, float]:
    """Return (vmin, vmax) in dB; `InvalidInputError` where it is not two numbers that differ."""
    try:
        low, high = map(float, clip)
    except (TypeError, ValueError):
        raise InvalidInputError(f"clip must be two numbers (vmin, vmax) in dB, got {clip!r}.") from None
    bounds = ClipBounds(low, high)
    return bounds.vmin, bounds.vmax


def _scales(given: Any) -> tuple[float, float]:
    """Return (least, most) scales; `InvalidInputError` where they are not two numbers in order, within 1/16 to 16."""
    try:
        least, most = map(float, given)
    except (TypeError, ValueError):
        least = most = math.nan
    if not 1 / 16 <= least <= most <= 16:
        raise InvalidInputError(
            f"scale must be two numbers from 1/16 to 16, the smaller first, got {given!r}. Pass (0.5, 2), say."
        )
    return least, most


class _SharedKeywords(TypedDict, total=False):
    """Fields of `ReadOptions` that every reader takes."""

    rows: Array | Sequence[int] | None
    clip: Clip | None
    flags: bool
    with_meta: bool
    boxes: bool | str
    min_visible: float
    window: int
    threads: int | None
    read_ahead: int
    check: Literal["once", "always"]
    cache: int | str | None


class _ChoiceKeywords(TypedDict, total=False):
    """Fields that choose a side, and how many of it."""

    split: str | None
    max_patches: int | None
    seed: int


class PatchKeywords(_SharedKeywords, total=False):
    """Fields that only patches of scenes have: sizes in pixels, clips in dB."""

    scenes: Sequence[str] | None
    polarizations: Sequence[str] | None
    stack: Stack | str | bool
    stack_length: int | None
    index: str | None
    patch_size: int | None
    stride: int | None
    edge: Edge | None
    min_valid: float | None
    min_unsaturated: float
    where: str | None
    bounds: Bounds | None
    polygon: Any
    predicate: Literal["intersects", "within"]
    time: Any
    dtype: DeliveredDtype
    layers: Sequence[str]
    weights: Weights | None


class SampleKeywords(_SharedKeywords, _ChoiceKeywords, total=False):
    """Fields that samples have, too."""

    batch_size: int
    shuffle: bool | Literal["window"]
    augment: Augment | None
    drop_last: bool


class GroupKeywords(TypedDict, total=False):
    """Fields that groups of frames have."""

    split: str | None
    seed: int
    with_meta: bool
    batch_size: int
    shuffle: bool | Literal["window"]
    window: int
    drop_last: bool
    threads: int | None
    read_ahead: int
    check: Literal["once", "always"]


class ItemKeywords(PatchKeywords, _ChoiceKeywords, total=False):
    """Fields that say which patches there are, and not in which batch: sizes in pixels, clips in dB."""


class CropKeywords(TypedDict, total=False):
    """Fields of windows that are drawn."""

    crops: Literal["random", "jitter"] | None
    per_epoch: int | None
    area: Literal["pixels", "ground"]
    scale: tuple[float, float] | None


class SideKeywords(PatchKeywords, CropKeywords, total=False):
    """Fields of patches, and of crops in their place: sizes in pixels, clips in dB."""


class ReadKeywords(ItemKeywords, SampleKeywords, CropKeywords, total=False):
    """All fields: sizes in pixels, clips in dB."""
