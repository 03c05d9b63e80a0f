"""Detections on patches as polygons on the map: GeoJSON, or GeoPackage."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, MissingExtraError, RasterNotFoundError
from sarzarr.export.place_patches import Placing, placed
from sarzarr.files import scratch_folder, take_name, whole_file
from sarzarr.grids.crs import LONLAT, is_same_crs
from sarzarr.grids.georeference import Georeference, check_placed, project
from sarzarr.grids.region import clipped_ring
from sarzarr.pixels.rotated import (
    apply_to_points,
    corners_of_boxes,
    corners_of_rotated,
    ring_areas,
    rotated_boxes,
    shared_areas,
)
from sarzarr.pixels.turns import inverse
from sarzarr.store.place import local_folder
from sarzarr.store.store import AnyStore, Store, open_store

DIGITS: Final = 8
"""Decimals of degrees in GeoJSON: a millimetre."""
INSIDE: Final = 0.8
"""Share of a box that its patch's edge cuts from which on it is a part of the better box that it lies in."""
_PARTS: Final = ("boxes", "scores", "labels")
_ROTATED: Final = ("cx", "cy", "w", "h", "angle")


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """Boxes in the pixels of one scene, half open ``x_min y_min x_max y_max``, or rotated."""

    boxes: Array
    """(n, 4) float64, within the scene; of rotated ones the upright ones around them."""
    scores: Array
    """(n,) float64."""
    labels: Array
    """(n,) int64: the class of each."""
    is_cut: Array
    """(n,) bool: whether a box reaches an edge of its patch that is none of the scene."""
    rings: Array | None = None
    """(n, 4, 2) float64: x, y of the corners of rotated ones, whole; None where all are upright."""

    def taken(self, rows: Array) -> "Detections":
        """Return some of them, by number."""
        parts = {name: part[rows] for name, part in vars(self).items() if part is not None}
        return Detections(**parts)

    def shared(self, best: int, others: Array) -> tuple[float, Array, Array]:
        """Return the area of a box, those of others, and those that they share with it (n,), pixels."""
        if self.rings is None:
            box, boxes = self.boxes[best], self.boxes[others]
            sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
            own, areas = (box[2:] - box[:2]).prod(), (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
            return float(own), areas, np.clip(sides, 0, None).prod(axis=1)
        x, y, w, h, angle = rotated_boxes(self.rings[[best]])[0].tolist()
        cos, sin = math.cos(angle), math.sin(angle)
        laid = (self.rings[others] - (x, y)) @ np.array(
            [[cos, -sin], [sin, cos]]
        )  # so that the box is upright
        frame = np.tile(np.array([-w, -h, w, h]) / 2, (len(laid), 1))
        return w * h, ring_areas(laid), shared_areas(laid, frame)


def export_detections(
    detections: Any,
    table: Any,
    path: str | Path,
    *,
    store: AnyStore,
    classes: Mapping[int, str] | Sequence[str] | None = None,
    iou: float = 0.5,
    min_score: float = 0.0,
) -> Path:
    """Write boxes that were found on patches as polygons in map coordinates, whole or not at all; return the path.

    ``x.geojson`` is in longitude and latitude (RFC 7946), cut at 180 degrees; ``x.gpkg`` in the CRS of its scenes, if
    they have one in common (``pip install 'sarzarr[vector]'``). A feature is a box's outline through its scene's
    affine or the spline through its ground control points, with ``scene``, ``time`` (UTC), ``label``, ``class``,
    ``score``, and ``x_min y_min x_max y_max`` in pixels of the scene; of a rotated box it is that of its four
    corners, with ``cx cy w h angle`` too. Boxes of patches that overlap are merged: of each scene and class the best
    is kept, and what overlaps it by more than ``iou`` (intersection over union) goes; boxes that are cut by their
    patch's edge stand behind whole ones, and go too where 80 % of them lie in one that is kept.

    Parameters
    ----------
    detections
        A dict for each patch: ``boxes`` (n, 4) half-open xyxy in its pixels, or rotated (n, 5) ``cx, cy, w, h,
        angle`` in pixels and radians, as `sarzarr.pixels.rotated` has them, ``scores`` (n,), ``labels`` (n,), arrays
        or tensors on the CPU; or an iterable of lists of them; or, with ``table`` None, of pairs of a list and its
        batch's dict, as in `sarzarr.stitch`. Boxes of patches that were delivered turned are turned back.
    table
        A row for each patch with ``scene``, ``row`` and ``col``; or the id of a scene, in whose pixels all boxes are.
    path
        The file: ``.geojson``, ``.json`` or ``.gpkg``; what is there is replaced.
    store
        The store that the patches are from.
    classes
        The name of each label; without it ``class`` is the label's number.
    iou
        Intersection over union, above 0 to 1; 1 keeps all whole boxes.
    min_score
        Lowest score that is written.

    Raises `InvalidInputError` where boxes are not as said, the suffix is unknown or a label has no name,
    `UnsupportedRasterError` where nothing places a scene on the ground, `NotInStoreError` of an unknown scene.
    """
    opened, place = open_store(store), local_folder(path, "a file of detections").absolute()
    write = {".geojson": _write_geojson, ".json": _write_geojson, ".gpkg": _write_geopackage}.get(
        place.suffix.lower()
    )
    if write is None:
        raise InvalidInputError(
            f"a file .geojson, .json or .gpkg was expected, got {place.name!r}. Name it so."
        )
    if not 0 < iou <= 1:
        raise InvalidInputError(f"iou must be above 0, and 1 at most, got {iou}.")
    if isinstance(table, str):
        given = [detections] if isinstance(detections, Mapping) else list(detections)
        detections, table = (
            given,
            {"scene": [table] * len(given), "row": [0] * len(given), "col": [0] * len(given)},
        )
    found = dict[str, list[Detections]]()
    for result, where in placed(detections, table):
        found.setdefault(where.scene, []).append(_in_scene(opened, result, where, min_score))
    features = [
        feature
        for scene, parts in sorted(found.items())
        for feature in _features(opened, scene, merged(_joined(parts), iou=iou), _names(classes))
    ]
    place.parent.mkdir(parents=True, exist_ok=True)
    write(place, features)
    return place


@dataclass(frozen=True, kw_only=True, eq=False)
class _Feature:
    """One box of a scene that is placed."""

    place: Georeference
    """The scene's place."""
    rows: Array
    """(4,) rows of its corners, counter-clockwise where the scene is north up."""
    cols: Array
    """(4,) their columns."""
    facts: Mapping[str, Any]
    """What is said of it, by column."""

    def ring(self, crs: str) -> Array:
        """Return its corners (4, 2) x, y in a CRS, counter-clockwise."""
        ring = np.stack(project(self.place, crs, self.rows, self.cols), axis=1)
        x, y = (ring - ring[0]).T
        return ring if (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() >= 0 else ring[::-1]


def _in_scene(store: Store, result: Any, where: Placing, min_score: float) -> Detections:
    """Return the boxes of a patch in pixels of its scene, cut at the scene's edges."""
    if not isinstance(result, Mapping) or (lacking := [name for name in _PARTS if name not in result]):
        got = type(result).__name__ if not isinstance(result, Mapping) else f"none named {lacking[0]!r}"
        raise InvalidInputError(
            f"dicts of boxes, scores and labels were expected, one for each patch, got {got}."
        )
    boxes = np.asarray(result["boxes"], np.float64)
    is_rotated = boxes.ndim == 2 and boxes.shape[1] == 5
    boxes = boxes if is_rotated else boxes.reshape(-1, 4)
    scores, labels = np.asarray(result["scores"], np.float64).ravel(), np.asarray(result["labels"]).ravel()
    if not len(boxes) == len(scores) == len(labels) or not np.isfinite(boxes).all() or np.isnan(scores).any():
        raise InvalidInputError(
            f"finite boxes (n, 4) or (n, 5) with n scores and n labels were expected, got {boxes.shape}, "
            f"{scores.shape} and {labels.shape}. Give each box its own."
        )
    shape = where.shape
    if where.turn and shape is None:
        raise InvalidInputError(
            "the patches' image beside their turn was expected, got none. Pass the whole batch's dict."
        )
    is_there = (scores >= min_score) & (is_rotated | (boxes[:, 2:4] > boxes[:, :2]).all(axis=1))
    rings = corners_of_rotated(boxes) if is_rotated else corners_of_boxes(boxes)
    if shape is not None:
        rings = apply_to_points(inverse(where.turn), rings, shape=shape)
        shape = shape[::-1] if where.turn & 4 else shape
    grid = store.grid(where.scene)
    rings = rings + np.array([where.col, where.row])
    boxes = np.concatenate([rings.min(axis=1), rings.max(axis=1)], axis=1)
    is_cut = np.zeros(len(boxes), bool)
    if shape is not None:
        first, last = (where.col, where.row), (where.col + shape[1], where.row + shape[0])
        for axis, size in enumerate((grid.width, grid.height)):
            is_cut |= (boxes[:, axis] <= first[axis] + 1) & (first[axis] > 0)
            is_cut |= (boxes[:, axis + 2] >= last[axis] - 1) & (last[axis] < size)
    boxes = np.clip(boxes, 0, [grid.width, grid.height] * 2)
    is_there &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if is_rotated:
        is_there &= shared_areas(rings, np.tile([0.0, 0, grid.width, grid.height], (len(rings), 1))) > 0
    whole = Detections(
        boxes=boxes,
        scores=scores,
        labels=labels.astype(np.int64),
        is_cut=is_cut,
        rings=rings if is_rotated else None,
    )
    return whole.taken(np.flatnonzero(is_there))


def _joined(parts: Sequence[Detections]) -> Detections:
    """Return the boxes of all patches (n, 4); if some are rotated, upright ones have the corners that they have."""
    if any(p.rings is not None for p in parts):
        parts = [replace(p, rings=corners_of_boxes(p.boxes)) if p.rings is None else p for p in parts]
    names = [name for name, part in vars(parts[0]).items() if part is not None]
    return Detections(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


def merged(found: Detections, *, iou: float) -> Detections:
    """Return the boxes (n, 4) that are left of those of a scene, best first, as `export_detections` says."""
    order = np.lexsort((*found.boxes.T, -found.scores, found.is_cut))
    kept = list[int]()
    for label in np.unique(found.labels).tolist():
        left = order[found.labels[order] == label]
        while left.size:
            best, left = int(left[0]), left[1:]
            kept.append(best)
            own, areas, shared = found.shared(best, left)
            goes = (shared > iou * (own + areas - shared)) | (found.is_cut[left] & (shared >= INSIDE * areas))
            left = left[~goes]
    rows = np.array(kept, np.int64)
    return found.taken(rows[np.argsort(-found.scores[rows], kind="stable")])


def _names(classes: Mapping[int, str] | Sequence[str] | None) -> Mapping[int, str] | None:
    return classes if classes is None or isinstance(classes, Mapping) else dict(enumerate(classes))


def _features(
    store: Store, scene: str, found: Detections, names: Mapping[int, str] | None
) -> Iterator[_Feature]:
    """Yield the boxes of a scene with what is said of them."""
    place = replace(store.placements[scene], name=scene)
    check_placed(place, LONLAT)
    time = str(store.facts(scene)[0]["time"])
    rings = corners_of_boxes(found.boxes) if found.rings is None else found.rings
    turned = [()] * len(rings) if found.rings is None else rotated_boxes(rings).tolist()
    for ring, turn, box, score, label in zip(
        rings, turned, found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
    ):
        if names is not None and label not in names:
            raise InvalidInputError(
                f"a name of each label among {', '.join(map(str, names))} was expected, got label {label}. Add it "
                "to classes=."
            )
        facts = {"scene": scene, "time": time or None, "label": label}
        facts |= {"class": str(label if names is None else names[label]), "score": score}
        facts |= dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True))
        facts |= dict(zip(_ROTATED, turn, strict=False))
        cols, rows = ring[[0, 3, 2, 1]].T
        yield _Feature(place=place, rows=rows, cols=cols, facts=facts)


def _write_geojson(path: Path, features: Sequence[_Feature]) -> None:
    listed = [
        {"type": "Feature", "geometry": _geometry(feature.ring(LONLAT)), "properties": dict(feature.facts)}
        for feature in features
    ]
    with whole_file(path) as partial:
        partial.write_text(
            json.dumps({"type": "FeatureCollection", "features": listed}, allow_nan=False), "utf-8"
        )


def _geometry(ring: Array) -> dict[str, Any]:
    """Return a convex ring (n, 2) in degrees as GeoJSON: in two parts where it goes across 180 degrees (3.1.9)."""
    ring = ring - [360 * math.floor((ring[:, 0].min() + 180) / 360), 0]
    if ring[:, 0].max() <= 180:
        return {"type": "Polygon", "coordinates": [_closed(ring)]}
    east, west = (clipped_ring(ring, (low, -90), (low + 360, 90)) for low in (-180, 180))
    return {"type": "MultiPolygon", "coordinates": [[_closed(east)], [_closed(west - [360, 0])]]}


def _closed(ring: Array) -> list[list[float]]:
    points: list[list[float]] = np.round(ring, DIGITS).tolist()
    return [*points, points[0]]


def _write_geopackage(path: Path, features: Sequence[_Feature]) -> None:
    """Write features in the CRS that their scenes have in common, else in longitude and latitude."""
    try:
        from pyogrio.raw import write
        from shapely import polygons, to_wkb
    except ImportError:
        raise MissingExtraError(
            "pyogrio and shapely were expected, got none. Install them: pip install 'sarzarr[vector]', or "
            "write a .geojson."
        ) from None
    own = [feature.place.crs_wkt for feature in features]
    is_one = bool(own) and all(is_same_crs(own[0], wkt) for wkt in own)
    crs = str(own[0]) if is_one else "EPSG:4326"
    rings = [feature.ring(crs if is_one else LONLAT) for feature in features]
    shapes = to_wkb(polygons(np.array(rings).reshape(-1, 4, 2)), byte_order=1)
    columns = {
        **dict.fromkeys(("scene", "time", "class"), object),
        **dict.fromkeys(("score", "x_min", "y_min", "x_max", "y_max"), np.float64),
        "label": np.int64,
    }
    columns |= dict.fromkeys(_ROTATED, np.float64) if any("angle" in f.facts for f in features) else {}
    data = [np.array([f.facts.get(name) for f in features], dtype) for name, dtype in columns.items()]
    with scratch_folder(path) as folder:
        made = folder / "made.gpkg"
        write(
            made,
            shapes,
            data,
            list(columns),
            layer="detections",
            driver="GPKG",
            geometry_type="Polygon",
            crs=crs,
        )
        take_name(made, path)


def read_detections(path: str | Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return detections and their table as `export_detections` takes them, from a file of JSON.

    It is a list of objects, one a patch: ``scene``, ``row``, ``col`` (0 if left out: pixels of the scene), ``size``
    (rows and columns of the patch, if known), ``boxes`` (n, 4) or rotated (n, 5), ``scores`` and ``labels`` (n,).

    Raises `RasterNotFoundError` where there is no such file, `InvalidInputError` where it is something else.
    """
    file = Path(path)
    if not file.is_file():
        raise RasterNotFoundError(
            f"a file of detections was expected, got {str(path)!r}, which is not there."
        )
    try:
        patches = json.loads(file.read_text("utf-8"))
        table: dict[str, Any] = {name: [patch.get(name, 0) for patch in patches] for name in ("row", "col")}
        table["scene"] = [patch["scene"] for patch in patches]
        sizes = {int(patch["size"]) for patch in patches if "size" in patch}
        found = [{name: patch[name] for name in _PARTS} for patch in patches]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"JSON of scene, row, col, boxes, scores and labels was expected, got {file.name!r} "
            f"({error!r:.80}). See docs/way_back.md."
        ) from None
    if len(sizes) > 1:
        raise InvalidInputError(
            f"patches of one size were expected, got {sorted(sizes)}. Write a file for each."
        )
    if sizes:
        table["image"] = np.empty((0, *(sizes.pop(),) * 2))
    return found, table
