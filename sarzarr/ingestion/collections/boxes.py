"""Boxes that are drawn on the chips of a collection, or on the ground that they show, on their way into a store."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypedDict, Unpack

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, RasterNotFoundError
from sarzarr.grids.crs import crs_wkt
from sarzarr.grids.footprint import degrees_of
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.world import Extents
from sarzarr.ingestion.annotations import (
    Annotation,
    Region,
    coco_classes,
    is_dota,
    parse_coco,
    parse_csv,
    parse_dota,
    parse_geojson,
    parse_voc,
    parse_yolo,
)
from sarzarr.ingestion.boxes import (
    LONGITUDE_LATITUDE,
    check_table_name,
    drawn_regions,
    merged_boxes,
    why_left_out,
)
from sarzarr.ingestion.chips.find import CLASS_FILES, LABELS, NAMED, folder_classes, numbered_classes
from sarzarr.keywords import shows_options
from sarzarr.scenes.products.xml import MAX_XML
from sarzarr.splits.chips.make import chip_grounds
from sarzarr.splits.overlap import touching
from sarzarr.store.boxes import MIN_VISIBLE, Boxes, Drawn, Policy, write_boxes
from sarzarr.store.chip_boxes import chip_box_tables, chip_grids, read_chip_boxes
from sarzarr.store.chip_names import chip_rows
from sarzarr.store.classes import MovedClass, read_classes
from sarzarr.store.collections import Collection, open_collection
from sarzarr.store.commit import changing
from sarzarr.store.limits import read_text, read_within
from sarzarr.store.store import AnyStore, open_store
from sarzarr.text import counted

log = logging.getLogger(__name__)
FORMATS: Final = ("auto", "coco", "yolo", "voc", "dota", "geojson", "csv")
OWNERS: Final = ("chip", "scene", "image", "file", "filename", "file_name")
"""Properties, or columns, that say the chip of a box."""
_YOLO: Final = re.compile(r"\s*\d{1,9}(\s+[-+.\deE]+){4,}\s*")
_MARGIN: Final = 1e-6
"""Degrees by which the extent of a feature is widened: a point has one, too."""


@dataclass(frozen=True, kw_only=True)
class ChipBoxOptions:
    """Options of an import of boxes on chips."""

    name: str = cv.DEFAULT_INDEX
    """The table's name."""
    annotations: str = "auto"
    """``coco``, ``yolo``, ``voc``, ``dota``, ``geojson`` or ``csv``; ``auto`` takes the one that is there."""
    label_key: str | None = None
    """The property of GeoJSON, or the column of CSV, that is the label; ``label`` if left out."""
    policy: Policy = "repair"
    """Policy for boxes that are not inside their chip; see `sarzarr.store.boxes.check_boxes`."""
    one_based: bool = False
    """VOC coordinates count pixels from 1 and name the last one."""
    leave_unmatched: bool = False
    """Leave out annotations of chips that are not there; else they stop the import."""

    def __post_init__(self) -> None:
        check_table_name(self.name)
        if self.annotations not in FORMATS:
            raise InvalidInputError(
                f"annotations must be one of {', '.join(FORMATS)}, got {self.annotations!r}."
            )


class ChipBoxKeywords(TypedDict, total=False):
    """Fields of `ChipBoxOptions`; boxes are in pixel edges."""

    name: str
    annotations: str
    label_key: str | None
    policy: Policy
    one_based: bool
    leave_unmatched: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class ImportedBoxes:
    """Boxes that were taken in."""

    boxes: Boxes
    """The table, (n, 4) pixels, as it now is."""
    counts: Mapping[str, int]
    """What became of the boxes that were given: `sarzarr.store.boxes.CheckedBoxes.counts`."""
    chips: int
    """Chips that the file annotates, those that it gives no box, too."""
    elsewhere: int = 0
    """Features that lie on no chip, or with less than `MIN_VISIBLE` of their box."""
    unmatched: tuple[str, ...] = ()
    """The names of annotations without a chip, which were left out."""
    moved: tuple[MovedClass, ...] = ()
    """The classes that have another number in the store than in the list of the file."""


@dataclass(eq=False, kw_only=True)
class _Found:
    """Annotations as files have them, and what they call their classes."""

    drawn: list[tuple[str, Annotation | str]] = field(default_factory=list)
    """The name of its picture, and what is drawn on it: text of YOLO, which needs the size."""
    regions: list[Region] = field(default_factory=list)
    """Features."""
    crs: str = ""
    """The CRS of features; empty for pixels."""
    classes: tuple[str, ...] = ()
    """Names of classes in the order of a list, if there is one."""
    classes_from: str = ""
    """The file of that list."""


@shows_options(ChipBoxOptions, ChipBoxKeywords)
def import_chip_boxes(
    store: AnyStore, collection: str, path: str | Path, **options: Unpack[ChipBoxKeywords]
) -> ImportedBoxes:
    """Put the boxes of a file, or of a folder of them, onto the chips of a collection; return what was done.

    COCO JSON, YOLO, VOC XML and DOTA text and CSV (``chip,x_min,y_min,x_max,y_max[,label]``, pixels) name the picture
    of each box: an id or a file of a chip, as `sarzarr.store.chip_names.chip_rows` reads names. Features of GeoJSON
    that name a chip (in a property ``chip``, ``scene``, ``image``, ``file`` or ``filename``) are on that; others are
    put onto every chip whose ground they lie on with at least 0.3 of their box. Boxes that chips had in the table are
    replaced; those of other chips stay. Rotated boxes keep their corners, and labels have the numbers of the store's
    classes.

    A file with a mistake in it changes nothing. Boxes that are only outside or without area are left out and counted;
    a chip all of whose boxes are is not annotated.

    Parameters
    ----------
    store, collection
        The store, or its path, and the collection's name.
    path
        A file, or a folder with files of one format at any depth; names of classes are read from ``classes.txt`` or
        YAML in it or in the folder that it is in.
    **options
        The fields of `ChipBoxOptions`.

    Raises `NotInStoreError` where there is no such collection; `RasterNotFoundError` where there is no such file;
    `InvalidInputError` where files are of no format that is read or of several, annotations have no chip, or more
    than one, a chip has two, a number cannot be read, or no box can be put on.
    """
    wanted, place = ChipBoxOptions(**options), Path(path)
    found = _read(place, wanted)
    opened = open_store(store)
    with changing(opened) as draft:
        made = open_collection(draft, collection)
        parts, unmatched, elsewhere = _matched(made, found, wanted, place.name)
        fresh = _fresh(made, parts, found, wanted)
        if not len(fresh) and (fresh.counts["given"] or elsewhere or not parts):
            raise InvalidInputError(
                f"boxes that can be put on chips of {collection!r} were expected in {place.name!r}, got none among "
                f"{fresh.counts['given'] + elsewhere}{why_left_out(fresh.counts)}. Nothing was changed."
            )
        old = read_chip_boxes(made, wanted.name) if wanted.name in chip_box_tables(made) else None
        merged = write_boxes(draft, merged_boxes(old, fresh), wanted.name, source=place.name)
        moved = read_classes(draft.place).moved(found.classes, found.classes_from)
    log.info("%s, collections/%s: %s put on", opened.place.name, collection, counted(len(fresh), "box"))
    return ImportedBoxes(
        boxes=merged,
        counts=fresh.counts,
        chips=len(fresh.owners),
        elsewhere=elsewhere,
        unmatched=unmatched,
        moved=moved,
    )


def _fresh(made: Collection, parts: Mapping[str, Drawn], found: _Found, options: ChipBoxOptions) -> Boxes:
    """Return the table of what is drawn on chips by id, (n, 4) pixels, without chips that only lost boxes."""
    table, rows = made.table, {name: made.numbers[name] for name in parts}
    sizes = {n: (int(table["height"].values[r]), int(table["width"].values[r])) for n, r in rows.items()}
    fresh = Boxes.gathered(parts, sizes, on=made.key, policy=options.policy, classes=found.classes)
    held = np.bincount(fresh.owner, minlength=len(fresh.owners)) > 0
    keep = np.array([has or not len(parts[o].boxes) for o, has in zip(fresh.owners, held, strict=True)], bool)
    owners = tuple(o for o, kept in zip(fresh.owners, keep.tolist(), strict=True) if kept)
    number = (np.cumsum(keep) - 1).astype(np.int32)
    owner = number[fresh.owner] if len(fresh) else fresh.owner
    return replace(fresh, owners=owners, owner=owner, grids=chip_grids(made, [rows[o] for o in owners]))


# ------------------------------------------------------------------ files
def _read(place: Path, options: ChipBoxOptions) -> _Found:
    """Return what the files at a path say."""
    if not place.exists():
        raise RasterNotFoundError(
            f"annotations were expected at {str(place)!r}, got nothing. Give the path of a file, or of a folder "
            "of them."
        )
    base = place if place.is_dir() else place.parent
    files: dict[str, list[Path]] = {}
    for path in sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]:
        for kind in _formats(path, path.relative_to(base)):
            files.setdefault(kind, []).append(path)
    kinds = [kind for kind in FORMATS if files.get(kind)]
    if options.annotations != "auto":
        kinds = [kind for kind in kinds if kind == options.annotations]
    elif "dota" in kinds and "yolo" in kinds and {*files["yolo"]} <= {*files["dota"]}:
        kinds.remove("yolo")  # texts without a line are of either
    elif "dota" in kinds and "yolo" in kinds and {*files["dota"]} <= {*files["yolo"]}:
        kinds.remove("dota")
    if len(kinds) > 1:
        raise InvalidInputError(
            f"annotations of one format were expected, got {' and '.join(kinds)}. Choose with --annotations."
        )
    if not kinds:
        named = "" if options.annotations == "auto" else f" as {options.annotations}"
        raise InvalidInputError(
            f"annotations{named} were expected in {place.name!r}, got none as COCO JSON, YOLO, VOC XML or DOTA text, "
            "GeoJSON, or CSV chip,x_min,y_min,x_max,y_max. Mend the path, or choose with --annotations."
        )
    found = _Found()
    if kinds[0] in ("yolo", "voc", "dota"):
        found.classes, found.classes_from = folder_classes(base, deep=place.is_dir())
        if not found.classes and place.is_dir():
            found.classes, found.classes_from = folder_classes(base.resolve().parent, deep=False)
    for path in files[kinds[0]]:
        _read_one(kinds[0], path, path.relative_to(base).as_posix(), found, options)
    return found


def _read_one(kind: str, path: Path, below: str, found: _Found, options: ChipBoxOptions) -> None:
    """Add what one file says, which is at ``below`` in its folder."""
    key = Path(below).with_suffix("").as_posix()
    if kind == "coco":
        data = read_within(path, "a file of annotations")
        found.drawn += parse_coco(data, below).items()
        found.classes = tuple(dict.fromkeys((*found.classes, *coco_classes(data, below))))
        found.classes_from = found.classes_from or below
    elif kind == "voc":
        data = read_within(path, "VOC XML", limit=MAX_XML)
        found.drawn.append((key, parse_voc(data, below, one_based=options.one_based)))
    elif kind == "dota":
        found.drawn.append((key, parse_dota(read_text(path, "text", limit=MAX_XML), below)))
    elif kind == "yolo":
        found.drawn.append((key, read_text(path, "text", limit=MAX_XML)))
    elif kind == "csv":
        text = read_text(path, "a CSV file of text")
        found.regions += parse_csv(text, below, label_key=options.label_key, owners=OWNERS)
    else:
        text = read_text(path, "a GeoJSON file of text")
        regions, declared = parse_geojson(text, below, label_key=options.label_key, owners=OWNERS)
        crs = declared or LONGITUDE_LATITUDE
        if found.crs not in ("", crs):
            raise InvalidInputError(
                f"features in one CRS were expected, got {found.crs} and {crs} in {below!r}. Import them apart."
            )
        found.regions, found.crs = [*found.regions, *regions], crs


def _formats(path: Path, below: Path) -> tuple[str, ...]:
    """Return the formats that a file of annotations may be of, none of another; texts without a line are of two."""
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return () if path.name.lower().endswith(".aux.xml") else ("voc",)
    if suffix == ".geojson":
        return ("geojson",)
    if suffix == ".json":
        data = read_within(path, "a file of annotations")
        if b'"annotations"' in data:
            return ("coco",)
        return ("geojson",) if b'"Feature' in data and b'"geometry"' in data else ()
    if suffix == ".csv":
        head = read_text(path, "a CSV file of text").partition("\n")[0]
        return ("csv",) if "x_min" in head else ()
    if suffix != ".txt" or path.name in CLASS_FILES:
        return ()
    text = read_text(path, "text", limit=MAX_XML)
    if not text.strip():
        return ("yolo", "dota")
    if is_dota(text):
        return ("dota",)
    first = next(filter(str.strip, text.splitlines()))
    is_label = not {part.lower() for part in below.parts[:-1]}.isdisjoint(LABELS)
    return ("yolo",) if is_label or _YOLO.fullmatch(first) else ()


# ------------------------------------------------------------------ chips
def _matched(
    made: Collection, found: _Found, options: ChipBoxOptions, file: str
) -> tuple[dict[str, Drawn], tuple[str, ...], int]:
    """Return what is drawn on each chip by its id, the names without one, and how many features lie on none."""
    owners = list(dict.fromkeys(region.scene for region in found.regions if region.scene))
    names = [*(name for name, _ in found.drawn), *owners]
    rows = chip_rows(made, names)
    unmatched = tuple(sorted({name for name, row in zip(names, rows.tolist(), strict=True) if row < 0}))
    if unmatched and not (options.leave_unmatched and (rows >= 0).any()):
        _refuse_unmatched(made, unmatched, is_any=bool((rows >= 0).any()))
    parts: dict[str, Drawn] = {}
    drawn: list[Annotation] = []
    table = made.table
    for (name, given), row in zip(found.drawn, rows.tolist(), strict=False):
        if row < 0:
            continue
        if isinstance(given, str):
            size = {side: int(table[side].values[row]) for side in ("height", "width")}
            given = parse_yolo(given, name, **size, classes=found.classes)
            drawn.append(given)
        if made.ids[row] in parts:
            raise InvalidInputError(
                f"one annotation of each chip was expected, got two of {made.ids[row]!r}, the other one is {name!r}. "
                "Take one out."
            )
        parts[made.ids[row]] = given.drawn
    if drawn:
        found.classes = numbered_classes(found.classes, drawn)
    row_of = dict(zip(owners, rows[len(found.drawn) :].tolist(), strict=True))
    by_row: dict[int, list[Region]] = {}
    free = []
    for region in found.regions:
        if not region.scene:
            free.append(region)
        elif row_of[region.scene] >= 0:
            by_row.setdefault(row_of[region.scene], []).append(region)
    if free and not found.crs:
        raise InvalidInputError(
            f"the chip of each box was expected in {file!r}, got a line without. Name it in the column 'chip'."
        )
    for row, some in by_row.items():
        parts[made.ids[row]] = _on_chip(made, row, some, found.crs)
    elsewhere = 0
    if free:
        elsewhere = len(free) - _put_on_ground(made, free, found.crs, parts)
    return parts, unmatched if options.leave_unmatched else (), elsewhere


def _refuse_unmatched(made: Collection, unmatched: Sequence[str], *, is_any: bool) -> None:
    shown = ", ".join(f"{name!r:.200}" for name in unmatched[:NAMED])
    more = f" and {len(unmatched) - NAMED} more" if len(unmatched) > NAMED else ""
    remedy = "Mend their names, or name the collection that they are of."
    if is_any:
        remedy = "Mend their names, or pass --leave-unmatched (leave_unmatched=True) to leave these out."
    raise InvalidInputError(
        f"annotations of chips of {made.name!r} were expected, got {len(unmatched)} whose names mean none, or "
        "more than "
        f"one: {shown}{more}; a chip is {made.ids[0]!r}. {remedy}"
    )


def _on_chip(made: Collection, row: int, regions: Sequence[Region], crs: str) -> Drawn:
    grid, name = made.grid(row), made.ids[row]
    if crs and grid.crs_wkt is None:
        raise InvalidInputError(
            f"a chip with a CRS and a transform was expected for map coordinates, got {name!r}. Give its boxes in "
            "pixels, as COCO or CSV."
        )
    return drawn_regions(regions, Georeference(grid=grid), name, crs)


def _put_on_ground(made: Collection, regions: Sequence[Region], crs: str, parts: dict[str, Drawn]) -> int:
    """Put features onto every chip whose ground they lie on, beside what is there; return how many lie on one."""
    found = np.zeros(len(regions), bool)
    for row, numbers in _near(made, regions, crs):
        drawn = _on_chip(made, row, [regions[i] for i in numbers], crs)
        grid = made.grid(row)
        low, high = drawn.boxes[:, :2], drawn.boxes[:, 2:]
        limit = np.array([grid.width, grid.height], np.float64)
        with np.errstate(invalid="ignore"):
            inside = np.clip(high, 0, limit) - np.clip(low, 0, limit)
            shared, whole = inside.prod(axis=1), (high - low).prod(axis=1)
            is_point = (whole == 0) & ((low < limit) & (high >= 0)).all(axis=1)
            shown = np.flatnonzero(((shared > 0) & (shared >= MIN_VISIBLE * whole)) | is_point)
        if shown.size:
            found[np.array(numbers)[shown]] = True
            parts[made.ids[row]] = _joined(parts.get(made.ids[row]), _taken(drawn, shown))
    return int(found.sum())


def _near(made: Collection, regions: Sequence[Region], crs: str) -> Iterator[tuple[int, list[int]]]:
    """Yield the row of each chip that features may lie on, and the numbers of these."""
    grounds = chip_grounds(made)
    lon, lat = degrees_of(crs_wkt(crs), *np.concatenate([region.points for region in regions]).T)
    boxes = []
    with np.errstate(invalid="ignore"):  # where the CRS does not reach
        for own in np.split(np.arange(len(lon)), np.cumsum([len(r.points) for r in regions])[:-1]):
            x = lon[own[0]] + (lon[own] - lon[own[0]] + 180) % 360 - 180
            boxes.append((lat[own].min(), lat[own].max(), x.min(), x.max()))
    south, north, west, east = np.array(boxes).T
    names, chips = ("south", "north", "west", "east"), np.flatnonzero(grounds.is_placed)
    wide = (south - _MARGIN, north + _MARGIN, west - _MARGIN, east + _MARGIN)
    features = np.flatnonzero(np.isfinite(wide).all(axis=0))
    if not (features.size and chips.size):
        return
    extents = grounds.extents[chips]
    both = {
        n: np.concatenate([one[features], getattr(extents, n)]) for n, one in zip(names, wide, strict=True)
    }
    of_chips = np.arange(len(features), len(features) + len(chips))
    pairs = [np.empty((0, 2), np.int64), *touching(Extents(**both), np.arange(len(features)), of_chips)]
    by_row: dict[int, list[int]] = {}
    for feature, chip in np.concatenate(pairs).tolist():
        by_row.setdefault(int(chips[chip - len(features)]), []).append(int(features[feature]))
    for row in sorted(by_row):
        yield row, sorted(by_row[row])


def _taken(drawn: Drawn, rows: Array) -> Drawn:
    corners = None if drawn.corners is None else drawn.corners[rows]
    return Drawn(drawn.boxes[rows], [drawn.labels[i] for i in rows.tolist()], corners)


def _joined(one: Drawn | None, other: Drawn) -> Drawn:
    """Return the boxes (n, 4) of features that name a chip, and of those that lie on it."""
    if one is None:
        return other
    none = np.full((len(one.boxes), 4, 2), np.nan), np.full((len(other.boxes), 4, 2), np.nan)
    corners = [
        given if given is not None else nan
        for given, nan in zip((one.corners, other.corners), none, strict=True)
    ]
    return Drawn(
        np.concatenate([one.boxes, other.boxes]), [*one.labels, *other.labels], np.concatenate(corners)
    )
