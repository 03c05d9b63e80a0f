"""Boxes in a store, in pixel edges: tables ``boxes/<name>``, of chips ``collections/<collection>/boxes/<name>``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal, NamedTuple

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, NotInStoreError, SceneIdError
from sarzarr.pixels.rotated import (
    as_float32,
    corners_of_boxes,
    ring_areas,
    rotated_boxes,
    shared_areas,
    simple_rings,
)
from sarzarr.scenes.header import MAX_SIDE
from sarzarr.scenes.names import check_scene_id
from sarzarr.store.classes import Classes, enter_classes, stored_classes
from sarzarr.store.documents import ensure_groups, named, nodes_below
from sarzarr.store.limits import check_boxes_within, check_within
from sarzarr.store.store import Store
from sarzarr.store.tables import read_table, write_table

Policy = Literal["repair", "refuse"]
MIN_VISIBLE: Final = 0.3
"""Share of a box's area that must lie in a patch for the patch to show it."""
ROUNDED: Final = 1e-9
"""Share of an area that sums of products may lose."""


def as_boxes(values: Any) -> Array:
    """Return boxes as (n, 4) float64; nothing at all is (0, 4)."""
    boxes = np.asarray(values, np.float64)
    if boxes.size == 0:
        return np.empty((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InvalidInputError(f"boxes of shape (n, 4) were expected, got {boxes.shape}.")
    return boxes


def area(boxes: Array) -> Array:
    """Return (n,) the area of boxes in pixels, in their dtype."""
    out: Array = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return out


@dataclass(frozen=True, eq=False, kw_only=True)
class CheckedBoxes:
    """Boxes that can be kept, and the reasons why others cannot."""

    COUNTED: ClassVar = ("given", "kept", "repaired", "left_out", "not_finite", "without_area", "outside")
    """The keys of `counts`."""
    boxes: Array
    """(kept, 4) float32, finite, of positive area and inside."""
    kept: Array
    """(kept,) int64: which of the given ones they are."""
    repaired: int = 0
    """Among the kept: how many had their corners swapped or reached outside."""
    not_finite: int = 0
    """How many were left out because a corner is no finite number."""
    without_area: int = 0
    """How many were left out because they have none as given: points and lines."""
    outside: int = 0
    """How many were left out because all of their area is outside."""

    @property
    def left_out(self) -> int:
        """The number of boxes that could not be kept."""
        return self.not_finite + self.without_area + self.outside

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of boxes by outcome; ``given`` = ``kept`` + ``left_out``, and this is the sum of the last three."""
        kept, lost = len(self.kept), (self.not_finite, self.without_area, self.outside)
        values = (kept + self.left_out, kept, self.repaired, self.left_out, *lost)
        return dict(zip(self.COUNTED, values, strict=True))


def check_boxes(
    boxes: Any, *, height: Any, width: Any, policy: Policy = "repair", corners: Array | None = None
) -> CheckedBoxes:
    """Return the boxes that lie in an image of ``height`` by ``width`` pixels, counted by what befell them.

    Parameters
    ----------
    boxes
        (n, 4) numbers.
    height, width
        Of the image; or (n,) of each box's image.
    policy
        ``repair``: sort swapped corners, cut what reaches outside, and leave out what has no area then.
        ``refuse``: raise for any of these.
    corners
        (n, 4, 2) of those that are rotated, NaN of others: they must have an area, and share some with the image.

    Raises `InvalidInputError` where the shape is another, or a box is refused; the message has its number and its
    values.
    """
    given = as_boxes(boxes)
    if policy not in ("repair", "refuse"):
        raise InvalidInputError(f"policy must be 'repair' or 'refuse', got {policy!r}.")
    finite = np.isfinite(given).all(axis=1)
    limit = np.stack(np.broadcast_arrays(width, height, np.empty(len(given)))[:2], axis=1).astype(np.float64)
    low, high = np.minimum(given[:, :2], given[:, 2:]), np.maximum(given[:, :2], given[:, 2:])
    low, high = np.clip(low, 0, limit), np.clip(high, 0, limit)
    mended = np.concatenate([low, high], axis=1).astype(np.float32)
    with np.errstate(invalid="ignore"):
        good = finite & (area(mended) > 0)
        if corners is not None and (turned := np.isfinite(corners).all(axis=(1, 2))).any():
            ends = np.concatenate([np.zeros_like(limit), limit], axis=1)
            good[turned] &= shared_areas(corners[turned], ends[turned]) > 0
        changed = good & (mended != given.astype(np.float32)).any(axis=1)
    if policy == "refuse" and (wrong := np.flatnonzero(~good | changed)).size:
        i = int(wrong[0])
        raise InvalidInputError(
            f"boxes inside {limit[i, 1]:g} x {limit[i, 0]:g} pixels with x_min < x_max and y_min < y_max were "
            f"expected, got {given[i].tolist()} as number {i} and {wrong.size - 1} more. Mend them, or repair them "
            "with policy='repair'."
        )
    flat = finite & ~good & (given[:, :2] == given[:, 2:]).any(axis=1)
    if corners is not None:
        flat |= finite & ~good & (ring_areas(simple_rings(corners)) == 0)
    return CheckedBoxes(
        boxes=mended[good],
        kept=np.flatnonzero(good),
        repaired=int(np.count_nonzero(changed)),
        not_finite=int(np.count_nonzero(~finite)),
        without_area=int(np.count_nonzero(flat)),
        outside=int(np.count_nonzero(finite & ~good & ~flat)),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchBoxes:
    """The boxes of many patches, patch by patch: those of patch i are at ``first[i] : first[i + 1]``."""

    first: Array
    """(patches + 1,) int64."""
    boxes: Array
    """(m, 4) float32 in pixels of the patch, cut to it; rotated ones (m, 5), whole."""
    source: Array
    """(m,) int64: which of the given boxes each is part of."""
    visible: Array
    """(m,) float32: share of the given box's area that is in the patch."""

    def __len__(self) -> int:
        return len(self.first) - 1

    def of(self, patch: int) -> slice:
        """Return the rows of a patch's boxes as a slice; an empty one where it has none."""
        return slice(int(self.first[patch]), int(self.first[patch + 1]))


@dataclass(frozen=True, eq=False, kw_only=True)
class Windows:
    """Square windows of images: patches."""

    owner: Array
    """(n,) int64: number of each window's image; -1 for one without boxes."""
    row: Array
    """(n,) first row."""
    col: Array
    """(n,) first column."""
    size: int | Array
    """Rows and columns; (n,) where they differ."""


def check_visible(min_visible: float) -> None:
    """Raise `InvalidInputError` where the least share of a box that shows it is not in [0, 1]."""
    if not 0 <= min_visible <= 1:
        raise InvalidInputError(f"min_visible must be in 0..1, got {min_visible}.")


def boxes_in_windows(
    boxes: Array, owner: Array, windows: Windows, *, min_visible: float = MIN_VISIBLE
) -> PatchBoxes:
    """Return the boxes that each window shows, cut to it and in its own pixels.

    A window shows a box of its image where at least ``min_visible`` of the box's area is inside, and any of
    it. Within a window boxes keep the order in which they were given.

    Parameters
    ----------
    boxes
        (m, 4) in pixels of their images; finite, of positive area.
    owner
        (m,) number of each box's image.
    windows
        The patches.
    min_visible
        0 to 1.
    """
    check_visible(min_visible)
    window, box = _candidates(boxes, owner, windows)
    corner = np.stack([windows.col, windows.row, windows.col, windows.row], axis=1).astype(np.float32)
    whole = boxes[box].astype(np.float32)
    size = np.broadcast_to(np.asarray(windows.size, np.float32), len(windows.owner))
    cut = np.clip(whole - corner[window], 0, size[window][:, None])
    visible = area(cut) / area(whole)
    # A box on whole pixels is cut without rounding, so a share of exactly min_visible is enough.
    shown = (area(cut) > 0) & (visible >= np.float32(min_visible))
    first = np.searchsorted(window[shown], np.arange(len(windows.owner) + 1))
    return PatchBoxes(
        first=first.astype(np.int64),
        boxes=cut[shown],
        source=box[shown],
        visible=visible[shown].astype(np.float32),
    )


def rotated_in_windows(
    corners: Array, owner: Array, windows: Windows, *, min_visible: float = MIN_VISIBLE
) -> PatchBoxes:
    """Return the rotated boxes (m, 5) that each window shows, whole and in its own pixels.

    A window shows one of its image, of ``corners`` (n, 4, 2), where at least ``min_visible`` of the polygon's area is
    inside, and any of it. All else is as of `boxes_in_windows`.
    """
    check_visible(min_visible)
    hulls = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    window, box = _candidates(np.maximum(hulls, 0), owner, windows)  # windows begin at 0
    corner = np.stack([windows.col, windows.row], axis=1).astype(np.float64)[window]
    near = ((hulls[box, :2] < corner + windows.size) & (hulls[box, 2:] > corner)).all(axis=1)
    window, box, corner = window[near], box[near], corner[near]
    rings = corners[box].astype(np.float64) - corner[:, None]
    frame = np.array([0, 0, windows.size, windows.size], np.float64)
    shared, whole = shared_areas(rings, np.tile(frame, (len(rings), 1))), ring_areas(simple_rings(rings))
    shown = (shared > 0) & (shared >= (min_visible - ROUNDED) * whole)
    first = np.searchsorted(window[shown], np.arange(len(windows.owner) + 1))
    return PatchBoxes(
        first=first.astype(np.int64),
        boxes=stored_rotated(rings[shown]),
        source=box[shown],
        visible=(shared[shown] / whole[shown]).astype(np.float32),
    )


def stored_rotated(corners: Array) -> Array:
    """Return (n, 5) float32 ``cx, cy, w, h, angle`` of corners (n, 4, 2), as `sarzarr.pixels.rotated` has them."""
    boxes = rotated_boxes(corners)
    out = boxes.astype(np.float32)
    out[:, 4] = as_float32(boxes[:, 4])
    return out


def _candidates(boxes: Array, owner: Array, windows: Windows) -> tuple[Array, Array]:
    """Return (windows, boxes) that share a tile of the largest window's size: sorted pairs, each once.

    A window touches at most 2 x 2 tiles of its own size, a box as many as it is large; both are listed a
    tile, and the lists are joined.
    """
    size = int(np.max(windows.size, initial=1))
    low = np.floor(boxes[:, :2] / size).astype(np.int64)
    high = np.floor(np.nextafter(boxes[:, 2:], 0) / size).astype(np.int64)
    box, across, down = _spread(low, np.maximum(high, low))
    first = np.stack([windows.col, windows.row], axis=1).astype(np.int64)
    known = np.flatnonzero(windows.owner >= 0)
    window, x, y = _spread(first[known] // size, (first[known] + size - 1) // size)
    window = known[window]
    most = int(max(across.max(initial=0), x.max(initial=0))) + 1
    tall = int(max(down.max(initial=0), y.max(initial=0))) + 1
    keys = (owner[box].astype(np.int64) * tall + down) * most + across
    wanted = (windows.owner[window].astype(np.int64) * tall + y) * most + x
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    begin = np.searchsorted(keys, wanted, "left")
    count = np.searchsorted(keys, wanted, "right") - begin
    total = int(count.sum())
    within = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
    found = box[order[np.repeat(begin, count) + within]]
    pairs = np.unique(np.repeat(window, count) * max(len(boxes), 1) + found)
    return np.divmod(pairs, max(len(boxes), 1))


def _spread(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Return (things, x, y): every tile from ``low`` to ``high`` (n, 2), a row each."""
    span = high - low + 1
    count = span[:, 0] * span[:, 1]
    thing = np.repeat(np.arange(len(low)), count)
    within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    y, x = np.divmod(within, span[thing, 0]) if len(thing) else (within, within)
    return thing, low[thing, 0] + x, low[thing, 1] + y


DEFAULT_LABEL: Final = "object"
"""The label of a box that has none."""
ROTATED: Final = "rotated"
"""The option ``boxes`` that delivers rotated boxes, (n, 5); ``rotated:NAME`` those of the table of that name."""
ON_SCENES: Final = cv.SCENES
"""What a table's boxes are on: scenes, or ``samples/<name>``, or ``collections/<name>``."""
CORNERS: Final = ("x_min", "y_min", "x_max", "y_max")
COORDINATES: Final = f"pixel edges from the upper left corner, half-open: {', '.join(CORNERS)}"
POLYGON: Final = tuple(f"{axis}_{i}" for i in range(1, 5) for axis in "xy")
"""Columns of the corners of rotated boxes, of tables that have some."""
DIFFICULT: Final = "difficult"
"""The column of boxes that whoever drew them calls difficult, of tables that have some."""
_UPRIGHT: Final = 1e-3
"""Pixels by which the corners of an upright box may lie beside its own."""


class Drawn(NamedTuple):
    """The boxes of one picture or scene, as they are given."""

    boxes: Array
    """(n, 4) ``x_min, y_min, x_max, y_max``."""
    labels: Sequence[str]
    """(n,) the label of each."""
    corners: Array | None = None
    """(n, 4, 2) x, y of those that are rotated, NaN of others; None where none is."""
    difficult: Sequence[bool] | None = None
    """(n,) whether each is called difficult; None where none is."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Boxes:
    """A table of boxes."""

    on: str = ON_SCENES
    """``scenes``, or ``samples/<name>``, or ``collections/<name>``."""
    owners: tuple[str, ...]
    """Ids of the scenes that have boxes; of the chips of a collection that were annotated; of every sample of a set,
    in its order."""
    owner: Array
    """(n,) int32: whose each box is, by its number in ``owners``; ascending."""
    boxes: Array
    """(n, 4) float32 ``x_min, y_min, x_max, y_max``: pixel edges, half-open."""
    label: Array
    """(n,) int32: the class of each box, from 1; 0 is what detectors call background."""
    classes: tuple[str, ...]
    """Name of class 1, 2, ..."""
    corners: Array | None = None
    """(n, 4, 2) float32 x, y of each box's corners, whole; None where all boxes are upright."""
    difficult: Array | None = None
    """(n,) bool; None where none is difficult."""
    grids: tuple[str, ...] = ()
    """Of boxes on scenes and chips, the fingerprint of each owner's placement: they are pixels of that grid alone.
    Empty where it is not known."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What became of the boxes that were given: `sarzarr.store.boxes.CheckedBoxes.counts`."""

    @classmethod
    def gathered(
        cls, parts: Mapping[str, Drawn | tuple[Array, Sequence[str]]], sizes: Mapping[str, tuple[int, int]], *,
        on: str = ON_SCENES, policy: Policy = "repair", classes: Sequence[str] = (),
    ) -> "Boxes":  # fmt: skip
        """Return the table of boxes by owner, checked against each owner's (rows, columns).

        ``classes`` have the first numbers; others follow them in the order in which they come.

        Raises `InvalidInputError` where a box is refused; the message names its owner.
        """
        owners = tuple(sizes) if _listing(on) is None else tuple(sorted(parts))
        given = [(i, Drawn(*parts[o])) for i, o in enumerate(owners) if o in parts]
        came = (label for part in parts.values() for label in Drawn(*part).labels)
        classes = tuple(dict.fromkeys((*classes, *came)))
        number = {name: i + 1 for i, name in enumerate(classes)}
        owner = np.repeat([i for i, _ in given], [len(p.boxes) for _, p in given]).astype(np.int32)
        boxes = np.concatenate([np.empty((0, 4)), *(as_boxes(p.boxes) for _, p in given)])
        label = np.array([number[name] for _, p in given for name in p.labels], np.int32)
        limits = np.array([sizes[o] for o in owners], np.int64).reshape(-1, 2)[owner]
        corners = _joined_corners([p for _, p in given])
        told = {"height": limits[:, 0], "width": limits[:, 1], "corners": corners}
        try:
            checked = check_boxes(boxes, **told, policy=policy)
        except InvalidInputError as error:
            for i, part in given:  # again one by one, to say whose it is
                try:
                    own = {"height": sizes[owners[i]][0], "width": sizes[owners[i]][1]}
                    check_boxes(part.boxes, **own, corners=part.corners, policy=policy)
                except InvalidInputError as his:
                    raise InvalidInputError(f"{owners[i]}: {his}") from error
            raise
        made = cls(
            on=on,
            owners=owners,
            owner=owner[checked.kept],
            boxes=checked.boxes,
            label=label[checked.kept],
            classes=classes,
            corners=None if corners is None else corners[checked.kept],
            difficult=np.array(
                [bool(d) for _, p in given for d in p.difficult or [False] * len(p.boxes)], bool
            )[checked.kept],
            counts=checked.counts,
        )
        return made.plain()

    def plain(self) -> "Boxes":
        """Return the same, (n, 4), with the corners of upright boxes, and without what no box of it has."""
        corners, difficult = self.corners, self.difficult
        if corners is not None:
            own = corners_of_boxes(self.boxes)
            corners = np.where(np.isfinite(corners), corners, own).astype(np.float32)
            if not len(own) or np.abs(_sorted_corners(corners) - _sorted_corners(own)).max() <= _UPRIGHT:
                corners = None
        return replace(
            self, corners=corners, difficult=None if difficult is None or not difficult.any() else difficult
        )

    @property
    def polygons(self) -> Array:
        """(n, 4, 2) float32 x, y of each box's corners: of upright ones their own."""
        return corners_of_boxes(self.boxes) if self.corners is None else self.corners

    @property
    def turned(self) -> int:
        """The number of boxes whose corners are not those of an upright one."""
        if self.corners is None:
            return 0
        beside = np.abs(_sorted_corners(self.corners) - _sorted_corners(corners_of_boxes(self.boxes)))
        return int((beside.max(axis=(1, 2)) > _UPRIGHT).sum())

    def __len__(self) -> int:
        return len(self.owner)

    def rows_of(self, owner: int) -> slice:
        """Return the rows of an owner's boxes as a slice."""
        first, end = np.searchsorted(self.owner, (owner, owner + 1))
        return slice(int(first), int(end))


def _joined_corners(parts: Sequence[Drawn]) -> Array | None:
    """Return (n, 4, 2) the corners of boxes, NaN of upright ones; None where all are."""
    if all(part.corners is None for part in parts):
        return None
    all_of = [np.full((len(p.boxes), 4, 2), np.nan) if p.corners is None else p.corners for p in parts]
    return np.concatenate(all_of)


def _sorted_corners(corners: Array) -> Array:
    """Return corners (n, 4, 2) from the upper left one on, whatever theirs was the first."""
    order = np.lexsort((np.round(corners[..., 0], 2), np.round(corners[..., 1], 2)))
    return np.take_along_axis(corners, order[..., None], axis=1)


def safe_name(name: str) -> str:
    """Return a name that a table or a set of samples can have: it becomes the name of a group."""
    try:
        return check_scene_id(name)
    except SceneIdError:
        raise InvalidInputError(
            "a name of letters, digits, '.', '_' or '-' that begins with a letter or digit, other than 'c', was "
            f"expected, got {name[:200]!r}."
        ) from None


def write_boxes(store: Store, boxes: Boxes, name: str = cv.DEFAULT_INDEX, *, source: str = "") -> Boxes:
    """Put a table in the place of the one of that name, whole; return it with the numbers of the store's classes.

    New classes enter the store's table: ``source`` says where they are from, the table itself if left out.
    """
    safe_name(name)
    key = f"{boxes_group(boxes.on)}/{name}"
    known = enter_classes(store.place, boxes.classes, source or key, first=key)
    boxes = _numbered(boxes, known)
    columns: dict[str, Any] = {"owner": ("box", boxes.owner.astype(np.int32))}
    for i, column in enumerate(CORNERS):
        columns[column] = ("box", np.ascontiguousarray(boxes.boxes[:, i], np.float32))
    columns["label"] = ("box", boxes.label.astype(np.int32))
    if boxes.corners is not None:
        for i, column in enumerate(POLYGON):
            columns[column] = ("box", np.ascontiguousarray(boxes.corners.reshape(-1, 8)[:, i], np.float32))
    if boxes.difficult is not None:
        columns[DIFFICULT] = ("box", boxes.difficult.astype(np.uint8))
    columns["class_name"] = ("class", np.array(boxes.classes, dtype=object))
    if (listing := _listing(boxes.on)) is not None:
        dim, owner, grid = listing
        columns[owner] = (dim, np.array(boxes.owners, dtype=object))
        columns[grid] = (dim, np.array(boxes.grids or [""] * len(boxes.owners), dtype=object))
    attrs = {"on": boxes.on, "coordinates_are": COORDINATES, **boxes.counts}
    ensure_groups(store.place, boxes_group(boxes.on))
    write_table(store.place, key, xr.Dataset(columns, attrs=attrs))
    return boxes


def boxes_group(on: str = ON_SCENES) -> str:
    """Return the group of tables of boxes on scenes and samples, or of those on the chips of a collection.

    >>> boxes_group(), boxes_group("collections/floods")
    ('boxes', 'collections/floods/boxes')
    """
    return f"{on}/{cv.BOXES}" if on.startswith(f"{cv.COLLECTIONS}/") else cv.BOXES


def _listing(on: str) -> tuple[str, str, str] | None:
    """Return the dimension and the columns of owners that a table lists; None of a set of samples, which has them."""
    if on == ON_SCENES:
        return "scene", "owner_scene", "owner_grid"
    return ("chip", "owner_chip", "owner_grid") if boxes_group(on) != cv.BOXES else None


def _numbered(boxes: Boxes, known: Classes) -> Boxes:
    """Return boxes with the numbers that their classes have in a store that knows these."""
    if boxes.classes == known.names:
        return boxes
    known = known.having(boxes.classes, "")
    return replace(boxes, label=known.numbers_of(boxes.classes)[boxes.label], classes=known.names)


def box_tables(store: Store) -> list[str]:
    """Return the names of a store's tables of boxes, sorted."""
    return nodes_below(store.place, cv.BOXES)


def read_boxes(
    store: Store, name: str = cv.DEFAULT_INDEX, *, always: bool = False, as_stored: bool = False
) -> Boxes:
    """Return a table of boxes, with the numbers of the store's classes; of stores without these, with its own.

    ``as_stored`` it has its own in any case, and the classes that it lists.

    Raises `NotInStoreError` where there is no table of that name, or, of one that is ``always`` there, as that of
    a set of samples, `MissingFileError`; `CorruptStoreError` as `read_table`.
    """
    if name not in (known := box_tables(store)) and not always:
        raise NotInStoreError(
            f"a table of boxes among {', '.join(known) or 'none'} was expected, got {name!r}."
        )
    table = read_table(store.place, f"{cv.BOXES}/{name}")
    with named(store.place, f"{cv.BOXES}/{name}/zarr.json"):
        on = str(table.attrs["on"])
        sizes = store.catalog if on == ON_SCENES else read_table(store.place, on)
        boxes = boxes_of_table(table, on, sizes)
    return boxes if as_stored else with_store_numbers(store, boxes)


def with_store_numbers(store: Store, boxes: Boxes) -> Boxes:
    """Return boxes (n, 4) with the numbers of a store's classes; with their own in stores without these."""
    classes = stored_classes(store.place)
    return boxes if classes is None else _numbered(boxes, classes)


def boxes_of_table(table: xr.Dataset, on: str, sizes: xr.Dataset) -> Boxes:
    """Return the boxes (n, 4) of a table; ``sizes`` has the height and width, pixels, of what they are on."""
    listing = _listing(on)
    owners = sizes["id"] if listing is None else table[listing[1]]
    corners = {k: table[k].values for k in ("x_min", "y_min", "x_max", "y_max")}
    check_boxes_within(corners, sizes)
    check_within(table["owner"].values, 0, owners.size - 1, "owner")
    check_within(table["label"].values, 1, table["class_name"].size, "label")
    has_corners = POLYGON[0] in table
    if has_corners:
        rings = np.stack([table[k].values for k in POLYGON], axis=1)
        check_within(rings, -MAX_SIDE, 2 * MAX_SIDE, "corners")
    return Boxes(
        on=on,
        owners=tuple(map(str, owners.values.tolist())),
        owner=table["owner"].values,
        boxes=np.stack([*corners.values()], axis=1),
        label=table["label"].values,
        classes=tuple(map(str, table["class_name"].values.tolist())),
        corners=rings.reshape(-1, 4, 2) if has_corners else None,
        difficult=table[DIFFICULT].values.astype(bool) if DIFFICULT in table else None,
        grids=tuple(map(str, table["owner_grid"].values.tolist())) if "owner_grid" in table else (),
        counts={k: int(table.attrs[k]) for k in CheckedBoxes.COUNTED if k in table.attrs},
    )


def check_grids(store: Store, boxes: Boxes, scenes: Iterable[str]) -> None:
    """Raise `InvalidInputError` where a scene has another grid than its boxes were put on."""
    drawn = dict(zip(boxes.owners, boxes.grids, strict=False))
    for scene in scenes:
        if drawn.get(scene, "") not in ("", store.grids[scene]):
            raise InvalidInputError(
                f"boxes on the grid that {scene!r} has were expected, got some that were put on another. "
                "Import them again with `sarzarr import boxes`."
            )
