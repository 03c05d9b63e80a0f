"""Boxes in a store: tables ``boxes/<name>``, on scenes or on samples, and what patches show of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.annotations import DEFAULT_LABEL, Region, parse_csv, parse_geojson
from sarzarr.augment import apply_to_boxes
from sarzarr.boxes import (
    MIN_VISIBLE,
    CheckedBoxes,
    PatchBoxes,
    Policy,
    Windows,
    area,
    as_boxes,
    boxes_in_windows,
    check_boxes,
)
from sarzarr.documents import group_document, write_json
from sarzarr.errors import InvalidInputError, NotInStoreError, SceneIdError
from sarzarr.footprint import Placement
from sarzarr.grid import Grid
from sarzarr.naming import check_scene_id
from sarzarr.split_record import placements
from sarzarr.store import Store
from sarzarr.tables import read_table, write_table

Array = np.ndarray[Any, Any]
ON_SCENES: Final = cv.SCENES
"""What a table's boxes are on: scenes, or ``samples/<name>``."""
COORDINATES: Final = "pixel edges from the upper left corner, half-open: x_min, y_min, x_max, y_max"


@dataclass(frozen=True, eq=False, kw_only=True)
class Boxes:
    """A table of boxes."""

    on: str = ON_SCENES
    """``scenes``, or ``samples/<name>``."""
    owners: tuple[str, ...]
    """Ids of the scenes that have boxes; of every sample of the set, in its order."""
    owner: Array
    """(n,) int32: whose each box is, by its number in ``owners``; ascending."""
    boxes: Array
    """(n, 4) float32 ``x_min, y_min, x_max, y_max``: pixel edges, half-open."""
    label: Array
    """(n,) int32: the class of each box, from 1; 0 is what detectors call background."""
    classes: tuple[str, ...]
    """Name of class 1, 2, ..."""
    grids: tuple[str, ...] = ()
    """Of boxes on scenes, the fingerprint of each owner's placement: they are pixels of that grid alone. Empty
    where it is not known."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What became of the boxes that were given: `sarzarr.boxes.CheckedBoxes.counts`."""

    @classmethod
    def gathered(
        cls, parts: Mapping[str, tuple[Array, Sequence[str]]], sizes: Mapping[str, tuple[int, int]], *,
        on: str = ON_SCENES, policy: Policy = "repair",
    ) -> "Boxes":  # fmt: skip
        """Return the table of boxes by owner, checked against each owner's (rows, columns).

        Raises
        ------
        InvalidInputError
            A box is refused; the message names its owner.
        """
        owners = tuple(sizes) if on != ON_SCENES else tuple(sorted(parts))
        classes = tuple(sorted({label for _, labels in parts.values() for label in labels}))
        number = {name: i + 1 for i, name in enumerate(classes)}
        given = [(i, parts[o]) for i, o in enumerate(owners) if o in parts]
        owner = np.repeat([i for i, _ in given], [len(p[0]) for _, p in given]).astype(np.int32)
        boxes = np.concatenate([np.empty((0, 4)), *(as_boxes(p[0]) for _, p in given)])
        label = np.array([number[name] for _, p in given for name in p[1]], np.int32)
        limits = np.array([sizes[o] for o in owners], np.int64).reshape(-1, 2)[owner]
        try:
            checked = check_boxes(boxes, height=limits[:, 0], width=limits[:, 1], policy=policy)
        except InvalidInputError as error:
            for i, (some, _) in given:  # again one by one, to say whose it is
                try:
                    check_boxes(some, height=sizes[owners[i]][0], width=sizes[owners[i]][1], policy=policy)
                except InvalidInputError as his:
                    raise InvalidInputError(f"{owners[i]}: {his}") from error
            raise
        return cls(
            on=on,
            owners=owners,
            owner=owner[checked.kept],
            boxes=checked.boxes,
            label=label[checked.kept],
            classes=classes,
            counts=checked.counts,
        )

    def __len__(self) -> int:
        return len(self.owner)

    def rows_of(self, owner: int) -> slice:
        """Return where the boxes of an owner are."""
        first, end = np.searchsorted(self.owner, (owner, owner + 1))
        return slice(int(first), int(end))


# ------------------------------------------------------------------ tables
def safe_name(name: str) -> str:
    """Return a name that a table or a set of samples can have: it becomes the name of a group."""
    try:
        return check_scene_id(name)
    except SceneIdError:
        raise InvalidInputError(
            "a name of letters, digits, '.', '_' or '-' that begins with a letter or digit, other than 'c', was "
            f"expected, got {name[:200]!r}."
        ) from None


def write_boxes(store: Store, boxes: Boxes, name: str = cv.DEFAULT_INDEX) -> None:
    """Put a table in the place of the one of that name, whole."""
    folder = store.root / cv.BOXES
    if not (folder / "zarr.json").exists():
        write_json(folder / "zarr.json", group_document())
    columns: dict[str, Any] = {"owner": ("box", boxes.owner.astype(np.int32))}
    for i, column in enumerate(("x_min", "y_min", "x_max", "y_max")):
        columns[column] = ("box", np.ascontiguousarray(boxes.boxes[:, i], np.float32))
    columns["label"] = ("box", boxes.label.astype(np.int32))
    columns["class_name"] = ("class", np.array(boxes.classes, dtype="T"))
    if boxes.on == ON_SCENES:
        columns["owner_scene"] = ("scene", np.array(boxes.owners, dtype="T"))
        columns["owner_grid"] = ("scene", np.array(boxes.grids or [""] * len(boxes.owners), dtype="T"))
    attrs = {"on": boxes.on, "coordinates_are": COORDINATES, **boxes.counts}
    write_table(folder / safe_name(name), xr.Dataset(columns, attrs=attrs))


def read_boxes(store: Store, name: str = cv.DEFAULT_INDEX) -> Boxes:
    """Return a table of boxes.

    Raises
    ------
    NotInStoreError
        There is no table of that name.
    CorruptStoreError
        A column fails its checksum.
    """
    folder = store.root / cv.BOXES
    known = sorted(p.parent.name for p in folder.glob("*/zarr.json"))
    if name not in known:
        raise NotInStoreError(
            f"a table of boxes among {', '.join(known) or 'none'} was expected, got {name!r}."
        )
    table = read_table(folder / name)
    on = str(table.attrs["on"])
    owners = table["owner_scene"] if on == ON_SCENES else read_table(store.root / on)["id"]
    corners = [table[k].values for k in ("x_min", "y_min", "x_max", "y_max")]
    return Boxes(
        on=on,
        owners=tuple(map(str, owners.values.tolist())),
        owner=table["owner"].values,
        boxes=np.stack(corners, axis=1),
        label=table["label"].values,
        classes=tuple(map(str, table["class_name"].values.tolist())),
        grids=tuple(map(str, table["owner_grid"].values.tolist())) if "owner_grid" in table else (),
        counts={k: int(table.attrs[k]) for k in CheckedBoxes.COUNTED if k in table.attrs},
    )


# ------------------------------------------------------------------ onto scenes
def import_boxes(
    store: Store, path: str | Path, *, name: str = cv.DEFAULT_INDEX, scene: str | None = None,
    label_key: str | None = None, policy: Policy = "repair",
) -> Boxes:  # fmt: skip
    """Put the boxes of a file onto scenes; those that the file's scenes had are replaced.

    A file with a mistake in it changes nothing. Boxes that are only outside or without area are left out and
    counted, unless they are all there is.

    Parameters
    ----------
    store
        The store.
    path
        GeoJSON in map coordinates (longitude and latitude, or the CRS that it names), each feature's box
        being what its geometry reaches; or CSV ``scene,x_min,y_min,x_max,y_max[,label]`` in pixels.
    name
        Of the table.
    scene
        The scene that features without a property ``scene`` are on.
    label_key
        The property, or the column, that is the label; ``label``, where there is one, if left out.
    policy
        As in `sarzarr.boxes.check_boxes`.

    Raises
    ------
    NotInStoreError
        A scene is not in the store.
    InvalidInputError
        There is no such file, it says no box that can be put on, a number cannot be read, a feature has no
        scene or none has the label that was named, or a scene has no place that map coordinates reach.
    """
    place = Path(path)
    text = _text_of(place)
    is_map = place.suffix.lower() != ".csv"
    regions, crs = (
        parse_geojson(text, place.name, label_key=label_key)
        if is_map
        else (parse_csv(text, place.name, label_key=label_key), None)
    )
    by_scene: dict[str, list[Region]] = {}
    for region in regions:
        if not (owner := region.scene or scene):
            raise InvalidInputError(
                f"a scene for each feature was expected, got one without in {place.name!r}. Name it with --scene, "
                "or in each feature's property 'scene'."
            )
        by_scene.setdefault(owner, []).append(region)
    placed = placements(store.root, store.catalog)
    for owner in by_scene:
        store.rows(owner)  # raises, and says which there are
    parts = {
        owner: (_pixel_boxes(some, placed[owner], owner, crs if is_map else ""), [r.label for r in some])
        for owner, some in by_scene.items()
    }
    fresh = Boxes.gathered(parts, {s: (p.height, p.width) for s, p in placed.items()}, policy=policy)
    fresh = replace(fresh, grids=tuple(placed[owner].fingerprint for owner in fresh.owners))
    if not len(fresh):
        raise InvalidInputError(
            f"boxes that can be put on scenes were expected in {place.name!r}, got none among {len(regions)}"
            f"{why_left_out(fresh.counts)}. Nothing was changed."
        )
    known = sorted(p.parent.name for p in (store.root / cv.BOXES).glob("*/zarr.json"))
    merged = _merged(read_boxes(store, name), fresh) if name in known else fresh
    write_boxes(store, merged, name)
    return replace(merged, counts=fresh.counts)


def check_grids(store: Store, boxes: Boxes, scenes: Iterable[str]) -> None:
    """Raise `InvalidInputError` where a scene has another grid than its boxes were put on."""
    there = {scene: place.fingerprint for scene, place in placements(store.root, store.catalog).items()}
    drawn = dict(zip(boxes.owners, boxes.grids, strict=False))
    for scene in scenes:
        if drawn.get(scene, "") not in ("", there[scene]):
            raise InvalidInputError(
                f"boxes on the grid that {scene!r} has were expected, got some that were put on another. "
                "Import them again with `sarzarr import boxes`."
            )


def _text_of(place: Path) -> str:
    """Return the text of a file of boxes, without the mark that spreadsheets put before it."""
    try:
        return place.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInputError(
            f"a file of boxes was expected at {str(place)!r}, got none that can be read ({error.strerror}). "
            "Give the path of a GeoJSON or CSV file."
        ) from None
    except UnicodeDecodeError:
        raise InvalidInputError(
            f"a GeoJSON or CSV file of text in UTF-8 was expected, got {place.name!r}, which is not."
        ) from None


def why_left_out(counts: Mapping[str, int]) -> str:
    """Return why boxes that were given are not kept, in brackets; nothing where all are.

    >>> why_left_out({"without_area": 2, "outside": 1})
    ' (2 without area, such as points and lines; 1 outside their scene)'
    """
    reasons = {
        "without_area": "without area, such as points and lines",
        "outside": "outside their scene",
        "not_finite": "where the CRS of their scene does not reach",
    }
    said = "; ".join(f"{counts[k]} {reason}" for k, reason in reasons.items() if counts.get(k))
    return f" ({said})" if said else ""


def _pixel_boxes(regions: Sequence[Region], placement: Placement, scene: str, crs: str | None) -> Array:
    """Return (n, 4) pixel boxes of what regions reach; ``crs`` is None for degrees, empty for pixels."""
    if crs == "":
        return np.stack([r.points.reshape(4) for r in regions])
    if not placement.crs_wkt:
        raise InvalidInputError(
            f"a scene with a CRS and a transform was expected for map coordinates, got {scene!r}. "
            "Give its boxes in pixels, as CSV."
        )
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        to_scene = Transformer.from_crs(crs or "OGC:CRS84", placement.crs_wkt, always_xy=True)
    except ProjError as error:
        raise InvalidInputError(f"a CRS that is known was expected, got {crs!r} ({error}).") from None
    a, b, c, d, e, f = placement.transform
    grid = Grid(height=placement.height, width=placement.width, transform=(a, b, c, d, e, f))
    out = np.empty((len(regions), 4))
    for i, region in enumerate(regions):
        rows, cols = grid.to_pixels(*to_scene.transform(*region.points.T))
        out[i] = cols.min(), rows.min(), cols.max(), rows.max()
    return out


def _merged(old: Boxes, new: Boxes) -> Boxes:
    """Return both tables' boxes, those of ``new`` alone on the scenes that it has."""
    if old.on != new.on:
        raise InvalidInputError(
            f"a table of boxes on {new.on} was expected, got one on {old.on}. Name another."
        )
    owners = tuple(sorted({*old.owners, *new.owners}))
    classes = tuple(sorted({*old.classes, *new.classes}))
    parts = []
    for table, skip in ((old, set(new.owners)), (new, set[str]())):
        keep = np.array([table.owners[o] not in skip for o in table.owner.tolist()], bool)
        owner = np.array([owners.index(o) for o in table.owners], np.int32)[table.owner[keep]]
        label = np.array([0, *(classes.index(n) + 1 for n in table.classes)], np.int32)[table.label[keep]]
        parts.append((owner, table.boxes[keep], label))
    owner, boxes, label = (np.concatenate(v) for v in zip(*parts, strict=True))
    grids = dict(zip(old.owners, old.grids, strict=False)) | dict(zip(new.owners, new.grids, strict=False))
    order = np.argsort(owner, kind="stable")
    counts = {k: old.counts.get(k, 0) + new.counts.get(k, 0) for k in new.counts}
    return Boxes(
        on=new.on, owners=owners, owner=owner[order], boxes=boxes[order], label=label[order], classes=classes,
        grids=tuple(grids.get(o, "") for o in owners), counts={**counts, "kept": len(owner)},
    )  # fmt: skip


# ------------------------------------------------------------------ with patches
@dataclass(frozen=True, eq=False, kw_only=True)
class PatchTargets:
    """The targets of a selection of patches. Holds numbers alone: it pickles, and may be forked."""

    found: PatchBoxes
    """Boxes by patch."""
    label: Array
    """(m,) int64: of each box in ``found``."""
    image_id: Array
    """(patches,) int64: a number that stays with a patch, whatever is selected beside it."""
    size: int
    """Rows and columns of a patch."""
    classes: tuple[str, ...]
    """Name of class 1, 2, ..."""

    def __len__(self) -> int:
        return len(self.image_id)

    def target(self, patch: int, operation: int = 0) -> dict[str, Array]:
        """Return the target of a patch under an operation of `sarzarr.augment`, as torchvision names it.

        ``boxes`` (n, 4) float32, ``labels`` (n,) int64 from 1, ``area`` (n,) float32, ``iscrowd`` (n,) int64
        zeros, and ``image_id`` (1,) int64. A patch without boxes has n = 0.
        """
        at = self.found.of(patch)
        boxes = apply_to_boxes(operation, self.found.boxes[at], size=self.size)
        return {
            "boxes": boxes,
            "labels": self.label[at].copy(),
            "area": area(boxes),
            "iscrowd": np.zeros(len(boxes), np.int64),
            "image_id": self.image_id[patch : patch + 1].copy(),
        }


def image_ids(patch_ids: Array) -> Array:
    """Return int64 numbers of uint64 patch ids: all but their first bit, for torch has no unsigned ones."""
    return (patch_ids & np.uint64(0x7FFF_FFFF_FFFF_FFFF)).astype(np.int64)


def patch_targets(
    boxes: Boxes, *, scenes: Iterable[str], scene: Array, row: Array, col: Array, ids: Array, size: int,
    min_visible: float = MIN_VISIBLE,
) -> PatchTargets:  # fmt: skip
    """Return what patches show of the boxes on their scenes, or samples of the boxes on them.

    Parameters
    ----------
    boxes
        A table of boxes.
    scenes
        Ids of scenes or samples, by number.
    scene, row, col, ids
        (n,) of each patch: the number of its scene, its first pixel, and its id in the patch index.
    size
        Rows and columns of a patch.
    min_visible
        Share of a box's area that must be in a patch for the patch to show it.
    """
    number = {owner: i for i, owner in enumerate(boxes.owners)}
    owner = np.array([number.get(s, -1) for s in scenes], np.int64)
    windows = Windows(owner=owner[scene], row=row, col=col, size=size)
    found = boxes_in_windows(boxes.boxes, boxes.owner, windows, min_visible=min_visible)
    return PatchTargets(
        found=found,
        label=boxes.label[found.source].astype(np.int64),
        image_id=image_ids(np.asarray(ids, np.uint64)),
        size=size,
        classes=boxes.classes or (DEFAULT_LABEL,),
    )
