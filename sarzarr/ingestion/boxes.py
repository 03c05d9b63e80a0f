"""Boxes that are drawn on scenes, or on the ground, on their way into a store."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, RasterNotFoundError
from sarzarr.grids.crs import crs_wkt, transform_points, turned
from sarzarr.grids.georeference import Georeference
from sarzarr.ingestion.annotations import Region, parse_csv, parse_geojson
from sarzarr.pixels.rotated import least_rectangle
from sarzarr.store.boxes import ROTATED, Boxes, Drawn, Policy, box_tables, read_boxes, write_boxes
from sarzarr.store.classes import Classes
from sarzarr.store.commit import changing
from sarzarr.store.limits import read_text
from sarzarr.store.store import Store
from sarzarr.text import counted

log = logging.getLogger(__name__)
LONGITUDE_LATITUDE = "OGC:CRS84"
"""The CRS of GeoJSON that names none."""


def import_boxes(
    store: Store, path: str | Path, *, name: str = cv.DEFAULT_INDEX, scene: str | None = None,
    label_key: str | None = None, policy: Policy = "repair",
) -> Boxes:  # fmt: skip
    """Put the boxes of a file onto scenes; those that the file's scenes had are replaced.

    The file is GeoJSON in map coordinates (longitude and latitude, or the CRS that it names), each feature's box
    being what its geometry reaches, with the four corners of a polygon, or of the least rectangle around it; or CSV
    ``scene,x_min,y_min,x_max,y_max[,label]`` in pixels. ``name`` is the table's, ``scene`` the one that features
    without a property ``scene`` are on, ``label_key`` the property, or the column, that is the label (``label`` if
    left out), ``policy`` as in `sarzarr.store.boxes.check_boxes`. Labels have the numbers of the store's classes.

    A file with a mistake in it changes nothing. Boxes that are only outside or without area are left out and
    counted, unless they are all there is.

    Raises `NotInStoreError` where a scene is not in the store; `InvalidInputError` where there is no such file, it
    says no box that can be put on, a number cannot be read, a feature has no scene or none has the label that was
    named, or a scene has no place that map coordinates reach.
    """
    check_table_name(name)
    place = Path(path)
    text = _text_of(place)
    if place.suffix.lower() == ".csv":
        regions, crs = parse_csv(text, place.name, label_key=label_key), ""
    else:
        regions, declared = parse_geojson(text, place.name, label_key=label_key)
        crs = declared or LONGITUDE_LATITUDE
    by_scene: dict[str, list[Region]] = {}
    for region in regions:
        if not (owner := region.scene or scene):
            raise InvalidInputError(
                f"a scene for each feature was expected, got one without in {place.name!r}. Name it with --scene, "
                "or in each feature's property 'scene'."
            )
        by_scene.setdefault(owner, []).append(region)
    with changing(store) as draft:
        classes = tuple(dict.fromkeys(region.label for region in regions))
        return _put_on(draft, place.name, by_scene, crs, name=name, policy=policy, classes=classes)


def check_table_name(name: str) -> None:
    """Raise `InvalidInputError` where readers take a table's name for the form of boxes, (n, 5)."""
    if name == ROTATED or name.startswith(f"{ROTATED}:"):
        raise InvalidInputError(
            f"a table's name other than {ROTATED!r} was expected, got {name!r}: readers take that for the form of "
            "boxes. Choose another with --name."
        )


def _put_on(
    store: Store, file: str, by_scene: Mapping[str, list[Region]], crs: str, *, name: str, policy: Policy,
    classes: tuple[str, ...],
) -> Boxes:  # fmt: skip
    """Put regions onto scenes of a draft, in the place of those that the scenes had; return all, (n, 4) pixels."""
    placed = store.placements
    for owner in by_scene:
        store.rows(owner)  # raises, and says which there are
    parts = {owner: drawn_regions(some, placed[owner], owner, crs) for owner, some in by_scene.items()}
    shapes = {s: p.grid.shape for s, p in placed.items()}
    fresh = Boxes.gathered(parts, shapes, policy=policy, classes=classes)
    fresh = replace(fresh, grids=tuple(placed[owner].fingerprint for owner in fresh.owners))
    if not len(fresh):
        raise InvalidInputError(
            f"boxes that can be put on scenes were expected in {file!r}, got none among {fresh.counts['given']}"
            f"{why_left_out(fresh.counts)}. Nothing was changed."
        )
    old = read_boxes(store, name) if name in box_tables(store) else None
    merged = write_boxes(store, merged_boxes(old, fresh), name, source=file)
    log.info("%s, boxes/%s: %s put on", store.place.name, name, counted(len(fresh), "box"))
    return replace(merged, counts=fresh.counts)


def _text_of(place: Path) -> str:
    """Return the text of a file of boxes, without the mark that spreadsheets put before it."""
    try:
        return read_text(place, "a GeoJSON or CSV file of text")
    except OSError as error:
        raise RasterNotFoundError(
            f"a file of boxes was expected at {str(place)!r}, got none that can be read ({error.strerror}). "
            "Give the path of a GeoJSON or CSV file."
        ) from None


def why_left_out(counts: Mapping[str, int]) -> str:
    """Return the reasons for which boxes (pixels) are not kept, in brackets; nothing where all are.

    >>> why_left_out({"without_area": 2, "outside": 1})
    ' (2 without area, such as points and lines; 1 outside their scene)'
    """
    reasons = {
        "without_area": "without area, such as points and lines",
        "outside": "outside their scene",
        "not_finite": "where the CRS of their scene does not reach",
    }
    text = "; ".join(f"{counts[k]} {reason}" for k, reason in reasons.items() if counts.get(k))
    return f" ({text})" if text else ""


def drawn_regions(regions: Sequence[Region], placement: Georeference, scene: str, crs: str) -> Drawn:
    """Return the boxes (n, 4) of regions in pixels, and corners of polygons; ``crs`` is theirs, empty for pixels."""
    labels = [region.label for region in regions]
    if not crs:
        return Drawn(np.stack([r.points.reshape(4) for r in regions]), labels)
    if not placement.grid.crs_wkt:
        raise InvalidInputError(
            f"a scene with a CRS and a transform was expected for map coordinates, got {scene!r}. "
            "Give its boxes in pixels, as CSV."
        )
    wkt, own = crs_wkt(crs), placement.grid.crs_wkt
    xs, ys = transform_points(wkt, own, *np.concatenate([r.points for r in regions]).T)
    out, corners = np.empty((len(regions), 4)), np.full((len(regions), 4, 2), np.nan)
    ends = np.cumsum([len(r.points) for r in regions])
    for i, part in enumerate(np.split(np.arange(ends[-1]), ends[:-1])):
        x = turned(own, xs[part], near=float(xs[part[0]]))  # a region across 180 degrees is in one piece
        with np.errstate(invalid="ignore"):
            middle = (x.min() + x.max()) / 2
            x = x + (turned(own, middle, near=placement.middle) - middle)
            rows, cols = placement.grid.to_pixels(x, ys[part])
        out[i] = cols.min(), rows.min(), cols.max(), rows.max()
        if regions[i].is_area:
            ring = np.stack([cols, rows], axis=1)
            is_closed = bool((regions[i].points[0] == regions[i].points[-1]).all())
            corners[i] = least_rectangle(ring[:-1] if is_closed else ring)
    return Drawn(out, labels, corners)


def _are_same(one: Boxes, other: Boxes) -> bool:
    """Whether two tables have the same boxes, (n, 4) pixels, with the same labels on the same scenes."""
    names = ("owners", "classes", "grids")
    arrays = ("owner", "boxes", "label", "polygons")
    return all(getattr(one, n) == getattr(other, n) for n in names) and all(
        np.array_equal(getattr(one, n), getattr(other, n)) for n in arrays
    )


def merged_boxes(old: Boxes | None, new: Boxes) -> Boxes:
    """Return both tables' boxes (n, 4), those of ``new`` alone on the scenes or chips that it has."""
    if old is None:
        return new
    made = _merged(old, new)
    # The file was put on before, by a run that was interrupted perhaps.
    return replace(made, counts=old.counts) if _are_same(made, old) else made


def _merged(old: Boxes, new: Boxes) -> Boxes:
    if old.on != new.on:
        raise InvalidInputError(
            f"a table of boxes on {new.on} was expected, got one on {old.on}. Name another."
        )
    owners = tuple(sorted({*old.owners, *new.owners}))
    number = {owner: i for i, owner in enumerate(owners)}
    both = Classes(old.classes).having(new.classes, "")
    parts, rings, difficult = [], [], []
    for table, skip in ((old, set(new.owners)), (new, set[str]())):
        keep = np.array([table.owners[o] not in skip for o in table.owner.tolist()], bool)
        owner = np.array([number[o] for o in table.owners], np.int32)[table.owner[keep]]
        parts.append((owner, table.boxes[keep], both.numbers_of(table.classes)[table.label[keep]]))
        rings.append(table.polygons[keep])
        difficult.append((np.zeros(len(table), bool) if table.difficult is None else table.difficult)[keep])
    owner, boxes, label = (np.concatenate(v) for v in zip(*parts, strict=True))
    grids = dict(zip(old.owners, old.grids, strict=False)) | dict(zip(new.owners, new.grids, strict=False))
    order = np.argsort(owner, kind="stable")
    counts = {k: old.counts.get(k, 0) + new.counts.get(k, 0) for k in new.counts}
    made = Boxes(
        on=new.on, owners=owners, owner=owner[order], boxes=boxes[order], label=label[order], classes=both.names,
        corners=np.concatenate(rings)[order], difficult=np.concatenate(difficult)[order],
        grids=tuple(grids.get(o, "") for o in owners), counts={**counts, "kept": len(owner)},
    )  # fmt: skip
    return made.plain()
