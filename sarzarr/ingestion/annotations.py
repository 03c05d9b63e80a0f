"""Annotations: boxes of VOC XML, COCO JSON, YOLO and DOTA text, GeoJSON and CSV. Text in, numbers out.

Nothing here opens a file. Boxes come out as they are written, as half-open pixel edges; whether they are
inside their picture is for `sarzarr.store.boxes.check_boxes` to check.
"""

import csv
import io
import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.pixels.rotated import corners_of_rotated, least_rectangle
from sarzarr.scenes.products.xml import parse_xml
from sarzarr.store.boxes import DEFAULT_LABEL, Drawn

log = logging.getLogger(__name__)
MAX_CLASSES: Final = 2**18
"""Characters of a list of the names of classes."""
MAX_YAML_LEVELS: Final = 20
"""Lists and mappings within one another in such a list, if it is YAML: a parser takes minutes for thousands."""
LABEL_KEY: Final = "label"
"""The property, or column, that is a label where none is named."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Annotation:
    """The boxes of one picture."""

    boxes: Array
    """(n, 4) float64 ``x_min, y_min, x_max, y_max``; of rotated ones the upright ones around them."""
    labels: tuple[str, ...]
    """(n,) the label of each box."""
    corners: Array
    """(n, 4, 2) float64 x, y of those that are rotated, NaN of others."""
    difficult: tuple[bool, ...]
    """(n,) whether each is called difficult."""

    @classmethod
    def of(
        cls,
        boxes: Sequence[Sequence[float]] | Array,
        labels: Iterable[str],
        corners: Sequence[Any] = (),
        difficult: Sequence[bool] = (),
    ) -> "Annotation":
        """Return the annotation of lists: (n, 4) boxes, (n,) labels, (n, 4, 2) corners or None, (n,) difficult."""
        upright = np.full((4, 2), np.nan)
        rings = [upright if c is None else c for c in corners or [None] * len(boxes)]
        return cls(
            boxes=np.array(boxes, np.float64).reshape(-1, 4),
            labels=tuple(labels),
            corners=np.array(rings, np.float64).reshape(-1, 4, 2),
            difficult=tuple(difficult or [False] * len(boxes)),
        )

    @property
    def drawn(self) -> Drawn:
        """The same as a table of boxes (n, 4) takes it."""
        has_corners = bool(np.isfinite(self.corners).all(axis=(1, 2)).any())
        return Drawn(
            self.boxes,
            self.labels,
            self.corners if has_corners else None,
            self.difficult if any(self.difficult) else None,
        )


def _refused(what: str, name: str, error: object) -> InvalidInputError:
    return InvalidInputError(
        f"{what} was expected, got {name!r}, which is not ({error}). Mend it or take it out."
    )


def _number(text: Any) -> float:
    """Return a number that was written; NaN of any other text, to be left out and counted later."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def parse_voc(text: bytes, name: str, *, one_based: bool = False) -> Annotation:
    """Return the annotation (pixels) of one Pascal VOC document, of the file ``name``.

    One that declares a type is refused: with it come entities, which can grow without end. Coordinates are edges
    counted from 0, as the tools that SAR chips are made with write them; ``one_based``, they count from 1 and name
    the last pixel, as the VOC challenge has them.
    """
    try:
        root = parse_xml(text)
    except ValueError as error:
        raise _refused("VOC XML", name, error) from None
    if root.tag != "annotation":
        raise _refused("VOC XML", name, f"it is of {root.tag[:80]!r}")
    boxes, labels, rings, difficult = [], [], [], []
    for number, item in enumerate(root.iter("object"), start=1):
        ring = _voc_ring(item)
        if item.find(".//bndbox") is not None:
            box = [_number(item.findtext(f".//bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")]
        elif ring is not None:
            box = _around(ring)
        else:
            held = ", ".join(part.tag for part in item) or "nothing"
            raise _refused("VOC XML whose objects have a box", name, f"object {number} has {held[:80]}")
        if one_based:
            box[0], box[1] = box[0] - 1, box[1] - 1
            ring = None if ring is None else ring - 0.5
        boxes.append(box)
        labels.append((item.findtext("name") or DEFAULT_LABEL).strip())
        rings.append(ring)
        difficult.append((item.findtext("difficult") or "0").strip() in ("1", "true", "True"))
    return Annotation.of(boxes, labels, rings, difficult)


def _voc_ring(item: Any) -> Array | None:
    """Return the corners (4, 2) of the rotated box of a VOC object, pixels; None where it has none.

    The angle of a ``robndbox`` turns from the axis of columns to that of rows, as roLabelImg writes it.
    """
    texts = {part.tag: part.text for part in item.iter() if not len(part)}
    if {"cx", "cy", "w", "h", "angle"} <= texts.keys():  # of roLabelImg: radians
        turned = [_number(texts[k]) for k in ("cx", "cy", "w", "h", "angle")]
        if abs(turned[4]) > 2 * math.pi:
            return None  # degrees, or no angle
        ring: Array = corners_of_rotated(turned)[0]
        return ring
    if {f"{axis}{i}" for axis in "xy" for i in range(1, 5)} <= texts.keys():
        numbers = [_number(texts[f"{axis}{i}"]) for i in range(1, 5) for axis in "xy"]
        return np.array(numbers, np.float64).reshape(4, 2)
    return None


def _around(points: Array) -> list[float]:
    """Return the upright box (4,) around points (n, 2): NaN where one of their numbers is."""
    box: list[float] = np.concatenate([points.min(axis=0), points.max(axis=0)]).tolist()
    return box


def coco_classes(text: bytes | str, name: str) -> tuple[str, ...]:
    """Return the names of a COCO document's categories, by their ids: whole numbers in order, others as listed."""
    try:
        categories = [(c["id"], str(c["name"])) for c in json.loads(text).get("categories", ())]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _refused("COCO JSON whose categories have id and name", name, error) from None
    if all(isinstance(number, int) for number, _ in categories):
        categories.sort(key=lambda one: one[0])
    return tuple(dict.fromkeys(kind for _, kind in categories))


def parse_classes(text: str, name: str) -> tuple[str, ...]:
    r"""Return the class names of a file of YOLO, in their order: a name per line, or YAML with ``names``; else none.

    >>> parse_classes("nc: 2\nnames: {1: buoy, 0: ship}", "data.yaml")
    ('ship', 'buoy')
    """
    import yaml

    if len(text) > MAX_CLASSES:
        raise _refused(f"a list of classes of at most {MAX_CLASSES} characters", name, f"it has {len(text)}")
    if not name.lower().endswith((".yaml", ".yml")):
        return tuple(filter(None, map(str.strip, text.splitlines())))
    try:
        depth = 0
        for event in yaml.parse(text):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it repeats parts of itself, which can grow without end")
            if depth > MAX_YAML_LEVELS:
                raise ValueError(f"it has more than {MAX_YAML_LEVELS} levels")
        document = yaml.safe_load(text)
        names = document.get("names", ()) if isinstance(document, dict) else ()
        if isinstance(names, dict):
            if sorted(names) != list(range(len(names))):
                raise ValueError(f"its names are numbered {', '.join(map(str, names))[:80]}")
            names = [names[i] for i in range(len(names))]
        return tuple(str(one) for one in names)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise _refused("YAML with the names of classes", name, error) from None


def parse_coco(text: bytes | str, name: str) -> dict[str, Annotation]:
    """Return the annotations (pixels) of one COCO document, by the file name of each of its pictures.

    Names of files have forward slashes, whatever system wrote them.
    """
    try:
        document = json.loads(text)
        names = {str(c["id"]): str(c["name"]) for c in document.get("categories", ())}
        files = {str(i["id"]): str(i["file_name"]).replace("\\", "/") for i in document["images"]}
        drawn: dict[str, tuple[list[list[float]], list[str]]] = {f: ([], []) for f in files.values()}
        single = [a for a in document["annotations"] if not a.get("iscrowd")]
        for a in single:
            x, y, w, h = (_number(v) for v in a["bbox"])
            boxes, labels = drawn[files[str(a["image_id"])]]
            boxes.append([x, y, x + w, y + h])
            labels.append(names.get(str(a.get("category_id")), DEFAULT_LABEL))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _refused("COCO JSON with images, annotations and their bbox", name, error) from None
    if crowds := len(document["annotations"]) - len(single):
        log.warning("%s: %d crowds left out, since none of them is one object", name, crowds)
    return {file: Annotation.of(*some) for file, some in drawn.items()}


def parse_yolo(text: str, name: str, *, height: int, width: int, classes: Sequence[str] = ()) -> Annotation:
    """Return the annotation of one YOLO text: ``class x_centre y_centre width height`` per line, as shares in [0, 1].

    A line ``class x1 y1 x2 y2 x3 y3 x4 y4`` is a rotated box; one of other points an outline, and its rotated box the
    least rectangle around it. Labels are taken from ``classes`` by number; without them they are ``class_0``,
    ``class_1``, ...
    """
    boxes, labels, rings = [], [], []
    for number, line in enumerate(filter(str.strip, text.splitlines()), start=1):
        words = line.split()
        is_outline = len(words) > 6 and len(words) % 2 == 1
        if not (len(words) in (5, 6) or is_outline) or not re.fullmatch("[0-9]{1,9}", words[0]):
            raise _refused(
                "YOLO lines of a class and four shares", name, f"line {number} reads {line[:80]!r}"
            )
        kind, ring = int(words[0]), None
        if is_outline:
            points = np.array([_number(v) for v in words[1:]]).reshape(-1, 2) * (width, height)
            box, ring = _around(points), least_rectangle(points)
        else:
            x, y, w, h = (_number(v) for v in words[1:5])
            box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        boxes.append(box)
        rings.append(ring)
        labels.append(classes[kind] if kind < len(classes) else f"class_{kind}")
    return Annotation.of(boxes, labels, rings)


DOTA_HEADS: Final = re.compile(r"\s*(imagesource|acquisition dates|gsd)\s*:", re.IGNORECASE)
"""The lines above the boxes of a DOTA text: where the picture is from, and the size of its pixels."""


def is_dota(text: str) -> bool:
    r"""Return whether text is DOTA's: its first line is a head of it, or eight numbers and then a word.

    >>> is_dota("gsd:0.5\n"), is_dota("1 2 3 4 5 6 7 8 ship 0"), is_dota("0 .1 .1 .2 .1 .2 .2 .1 .2")
    (True, True, False)
    """
    first = next(filter(str.strip, text.splitlines()), "")
    words = first.split()
    is_box = len(words) in (9, 10) and not any(math.isnan(_number(word)) for word in words[:8])
    return bool(DOTA_HEADS.match(first)) or (is_box and (len(words) == 10 or math.isnan(_number(words[8]))))


def parse_dota(text: str, name: str) -> Annotation:
    """Return the annotation (pixels) of one DOTA text: ``x1 y1 x2 y2 x3 y3 x4 y4 class difficult`` per line.

    Lines ``imagesource:`` and ``gsd:`` above them are passed over; without the flag a box is not difficult.
    Raises `InvalidInputError` where a line is another one.
    """
    boxes, labels, rings, difficult = [], [], [], []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or DOTA_HEADS.match(line):
            continue
        ring = np.array([_number(word) for word in words[:8]])
        if len(words) not in (9, 10) or np.isnan(ring).any() or words[9:] not in ([], ["0"], ["1"], ["2"]):
            raise _refused(
                "DOTA lines of four corners, a class and 0 or 1", name, f"line {number} reads {line[:80]!r}"
            )
        boxes.append(_around(ring.reshape(4, 2)))
        rings.append(ring.reshape(4, 2))
        labels.append(words[8])
        difficult.append(words[9:] not in ([], ["0"]))
    return Annotation.of(boxes, labels, rings, difficult)


@dataclass(frozen=True, eq=False, kw_only=True)
class Region:
    """One feature that was drawn on the ground or on a scene."""

    scene: str
    """The scene that it names; empty where it names none."""
    label: str
    """Its label."""
    points: Array
    """(n, 2) float64: positions (x, y) that its box must hold."""
    is_area: bool = False
    """Whether they are the corners of polygons, which may be rotated."""

    @classmethod
    def of(
        cls,
        facts: Mapping[str, Any],
        keys: tuple[str, str | None],
        points: Array,
        *,
        is_area: bool = False,
    ) -> "Region":
        """Return the region of a feature's properties, or of a row, around (n, 2) points.

        ``keys`` are those of its scene and of its label.
        """
        values = (facts.get(k) for k in (keys[0], keys[1] or LABEL_KEY))
        scene, label = ("" if v is None else str(v).strip() for v in values)
        return cls(scene=scene, label=label or DEFAULT_LABEL, points=points, is_area=is_area)


def parse_geojson(
    text: bytes | str, name: str, *, label_key: str | None = None, owners: Sequence[str] = ("scene",)
) -> tuple[list[Region], str | None]:
    """Return the features of a GeoJSON document, and its CRS; None is longitude and latitude in degrees.

    The scene is a feature's property ``scene``, or the first of ``owners`` that it has, the label ``label_key``:
    ``label`` where that is left out.

    Raises `InvalidInputError` where it is no such document, a feature has no position or one that is no number, or
    none has the property that was named; the message has the feature's number, or the properties there are.
    """
    try:
        document = json.loads(text)
        features = document["features"] if document["type"] == "FeatureCollection" else [document]
        crs = document.get("crs") or {}
        about = [f.get("properties") or {} for f in features]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _refused("GeoJSON features", name, error) from None
    _check_label(label_key, sorted({str(k) for a in about for k in a}), bool(about), name)
    regions = []
    for number, (feature, facts) in enumerate(zip(features, about, strict=True), start=1):
        if feature.get("geometry", feature) is None:
            raise InvalidInputError(
                f"GeoJSON features with a place were expected in {name!r}, got feature {number} whose geometry is "
                "null. Give it one, or take it out."
            )
        try:
            points = np.array(list(_positions(feature["geometry"])), np.float64).reshape(-1, 2)
        except (KeyError, TypeError, ValueError, AttributeError, LookupError, RecursionError) as error:
            said = f"the geometry of feature {number}: {str(error)[:200]}"
            raise _refused("GeoJSON features", name, said) from None
        if not points.size or not np.isfinite(points).all():
            shown = json.dumps(feature["geometry"])[:80]
            raise InvalidInputError(
                f"positions of finite numbers were expected in feature {number} of {name!r}, got {shown}. "
                "Mend it or take it out."
            )
        is_area = str(feature["geometry"]["type"]).endswith("Polygon")
        owner = next((key for key in owners if facts.get(key) is not None), owners[0])
        regions.append(Region.of(facts, (owner, label_key), points, is_area=is_area))
    declared = crs.get("properties", {}).get("name") if isinstance(crs, dict) else None
    return regions, declared


def _check_label(label_key: str | None, known: Sequence[str], is_any: bool, name: str) -> None:
    if is_any and label_key is not None and label_key not in known:
        raise InvalidInputError(
            f"a property among {', '.join(known) or 'none'} was expected as the label of what is in {name!r}, got "
            f"{label_key!r}. Name one of these with --label, or leave it out."
        )


def _positions(geometry: Mapping[str, Any]) -> Iterable[tuple[float, float]]:
    if geometry["type"] == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _positions(part)
        return
    stack = [geometry["coordinates"]]
    while stack:
        part = stack.pop()
        if not isinstance(part, list):
            raise ValueError(f"a position [x, y] has {part!r:.80}")
        if part and isinstance(part[0], int | float):
            yield float(part[0]), float(part[1])
        else:
            stack.extend(part)


def parse_csv(
    text: str, name: str, *, label_key: str | None = None, owners: Sequence[str] = ("scene",)
) -> list[Region]:
    """Return the rows of a table ``scene,x_min,y_min,x_max,y_max[,label]`` of boxes in pixels.

    The scene is in the first of the columns ``owners`` that there is, the label in ``label_key``: ``label`` where
    that is left out. Raises `InvalidInputError` where a column is missing, or a coordinate is no finite number; the
    message has its line and its text.
    """
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        owner = next((key for key in owners if key in (rows.fieldnames or ())), owners[0])
        wanted = (owner, "x_min", "y_min", "x_max", "y_max")
        return _regions(rows, wanted, name, label_key)
    except csv.Error as error:  # such as a field of more than 131,072 characters
        raise _refused("a table of boxes", name, f"line {rows.line_num}: {error}") from None


def _regions(rows: Any, wanted: Sequence[str], name: str, label_key: str | None) -> list[Region]:
    columns = rows.fieldnames or ()
    if missing := [k for k in wanted if k not in columns]:
        raise _refused(f"a table with columns {', '.join(wanted)}", name, f"it lacks {missing[0]}")
    _check_label(label_key, [k for k in columns if k not in wanted], True, name)
    out = []
    for row in rows:
        corners = [_number(row[k]) for k in wanted[1:]]
        for column, value in zip(wanted[1:], corners, strict=True):
            if not math.isfinite(value):
                raise InvalidInputError(
                    f"a finite number as {column} was expected in line {rows.line_num} of {name!r}, got "
                    f"{row[column] or 'nothing'!r} for a box on {row[wanted[0]]!r}. Mend it or take it out."
                )
        out.append(Region.of(row, (wanted[0], label_key), np.array(corners).reshape(2, 2)))
    return out
