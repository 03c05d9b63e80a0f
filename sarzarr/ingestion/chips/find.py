"""What a folder of chips holds: its pictures, their headers, and the annotations that speak of them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.ingestion.annotations import Annotation, parse_coco, parse_voc, parse_yolo
from sarzarr.ingestion.chips.pictures import SUFFIXES, PictureProbe, probe_picture
from sarzarr.store.boxes import Policy
from sarzarr.store.samples import SampleLayout
from sarzarr.tasks import compute
from sarzarr.text import problems_text

FORMATS: Final = ("auto", "voc", "coco", "yolo", "none")
PROBES_A_TASK: Final = 256
"""Headers that one task looks at."""
IMAGES: Final = "images"
LABELS: Final = "labels"
"""Folders beside each other, of the same below them, as YOLO has it."""
CLASS_FILES: Final = ("classes.txt", "obj.names")
"""Where YOLO folders name their classes, a line each."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


def safe_stem(text: str) -> str:
    """Return a name that a group can have, as near to ``text`` as can be."""
    return _UNSAFE.sub("_", text).lstrip("._")[:128] or "chips"


@dataclass(frozen=True, kw_only=True)
class ChipOptions:
    """How chips are taken in."""

    name: str | None = None
    """Of the set; the folder's name if left out."""
    annotations: str = "auto"
    """``voc``, ``coco``, ``yolo``, ``none``; ``auto`` takes the one that is there."""
    policy: Policy = "repair"
    """What is done about boxes that are not inside; see `sarzarr.store.boxes.check_boxes`."""
    one_based: bool = False
    """VOC coordinates count from 1 and name the last pixel."""
    replace: bool = False
    """Put the set in the place of one of that name."""

    def __post_init__(self) -> None:
        if self.annotations not in FORMATS:
            raise InvalidInputError(
                f"annotations must be one of {', '.join(FORMATS)}, got {self.annotations!r}."
            )


@dataclass(frozen=True, kw_only=True)
class ChipSource:
    """One picture that is to be packed."""

    id: str
    """Its id in the set."""
    source: str
    """Its path below the folder, with forward slashes."""
    stamp: tuple[int, int]
    """Size and modification time of its file."""
    height: int = 0
    """Rows."""
    width: int = 0
    """Columns."""
    dtype: str = ""
    """As in its file."""


# ------------------------------------------------------------------ pictures
def find_chips(base: Path) -> list[ChipSource]:
    """Return the pictures below a folder, sorted by id."""
    if not base.is_dir():
        raise InvalidInputError(
            f"a folder of pictures was expected, got {str(base)!r}. Give the folder itself."
        )
    paths = sorted(p for p in base.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise InvalidInputError(
            f"pictures ({', '.join(SUFFIXES)}) were expected below {base.name!r}, got none."
        )
    stems = [p.stem for p in paths]
    is_plain = len(set(stems)) == len(stems)
    owners: dict[str, ChipSource] = {}
    for path in paths:
        below = path.relative_to(base)
        identity = _UNSAFE.sub("_", path.stem if is_plain else "_".join(below.with_suffix("").parts))[-128:]
        stat = path.stat()
        chip = ChipSource(id=identity, source=below.as_posix(), stamp=(stat.st_size, stat.st_mtime_ns))
        if identity in owners:
            raise InvalidInputError(
                f"an id for each picture was expected, got {identity!r} for {owners[identity].source!r} and "
                f"{chip.source!r}. Rename one of them."
            )
        owners[identity] = chip
    return [owners[i] for i in sorted(owners)]


def probe_chips(base: Path, chips: Sequence[ChipSource]) -> list[ChipSource]:
    """Return the chips with what their headers say."""
    found: dict[str, PictureProbe] = {}
    starts = range(0, len(chips), PROBES_A_TASK)
    tasks = [(_probe_some, (str(base), [c.source for c in chips[i : i + PROBES_A_TASK]])) for i in starts]
    problems: list[str] = []

    def take(result: "tuple[dict[str, PictureProbe], list[str]]") -> None:
        found.update(result[0])
        problems.extend(result[1])

    compute(tasks, take)
    if problems:
        raise UnsupportedRasterError(problems_text("pictures that can be read", sorted(problems)))
    return [ChipSource(**{**asdict(c), "stamp": c.stamp, **asdict(found[c.source])}) for c in chips]


def _probe_some(base: str, names: Sequence[str]) -> tuple[dict[str, PictureProbe], list[str]]:
    found, problems = {}, []
    for name in names:
        try:
            found[name] = probe_picture(Path(base) / name)
        except UnsupportedRasterError as error:
            problems.append(f"{name}: {error}")
    return found, problems


def layout_of(chips: Sequence[ChipSource]) -> SampleLayout:
    """Return how pictures are packed; `UnsupportedRasterError` where they are of several dtypes."""
    dtypes = sorted({c.dtype for c in chips})
    if len(dtypes) > 1:
        examples = "; ".join(f"{d}: {next(c.source for c in chips if c.dtype == d)}" for d in dtypes)
        raise UnsupportedRasterError(
            f"pictures of one dtype were expected, got {examples}. Import them apart."
        )
    height, width = max(c.height for c in chips), max(c.width for c in chips)
    return SampleLayout.of(count=len(chips), height=height, width=width, dtype=dtypes[0])


# ------------------------------------------------------------------ annotations
def chip_annotations(
    base: Path, chips: Sequence[ChipSource], options: ChipOptions
) -> tuple[dict[str, Annotation], tuple[str, ...]]:
    """Return the annotations by id of their chip, and those of no chip."""
    by_suffix: dict[str, list[Path]] = {}
    for path in sorted(p for p in base.rglob("*") if p.is_file()):
        by_suffix.setdefault(path.suffix.lower(), []).append(path)
    stems = {Path(c.source).stem for c in chips}
    files = {
        "voc": by_suffix.get(".xml", []),
        "coco": [p for p in by_suffix.get(".json", []) if b'"annotations"' in p.read_bytes()],
        "yolo": [
            p
            for p in by_suffix.get(".txt", [])
            if p.name not in CLASS_FILES and _is_yolo(p.relative_to(base), stems)
        ],
    }
    kind = options.annotations
    if kind == "auto":
        there = [k for k, found in files.items() if found]
        if len(there) > 1:
            raise InvalidInputError(
                f"annotations of one format were expected, got {' and '.join(there)}. Choose with --annotations."
            )
        kind = there[0] if there else "none"
    if kind == "none":
        return {}, ()
    if not files[kind]:
        raise InvalidInputError(f"annotations as {kind} were expected below {base.name!r}, got none.")
    by_key = _keys(chips)
    said: dict[str, Annotation] = {}
    unmatched = []
    for key, annotation in _parsed(kind, base, files[kind], by_key, options):
        chip = _chip_of(key, by_key)
        if chip is None or annotation is None:
            unmatched.append(key)
        elif chip.id in said:
            raise InvalidInputError(
                f"one annotation of each picture was expected, got two of {chip.source!r}."
            )
        else:
            said[chip.id] = annotation
    return said, tuple(sorted(unmatched))


def _is_yolo(path: Path, stems: set[str]) -> bool:
    """Return whether a text is one of labels, and not of something else: it has a picture, or lies among labels."""
    return path.stem in stems or LABELS in path.parts


def _chip_of(key: str, by_key: Mapping[str, ChipSource]) -> ChipSource | None:
    """Return the picture that an annotation calls so, with a picture's suffix or without one."""
    path = Path(key)
    name = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    # As YOLO lays folders out: labels/train/a.txt belongs to images/train/a.png.
    beside = Path(*(IMAGES if part == LABELS else part for part in name.parts)).as_posix()
    return next((by_key[k] for k in (key, name.as_posix(), beside, name.name) if k in by_key), None)


def _keys(chips: Sequence[ChipSource]) -> dict[str, ChipSource]:
    """Return chips by what annotations call them: path, file name or stem, where it is one chip's alone."""
    out: dict[str, ChipSource] = {}
    twice: set[str] = set()
    for chip in chips:
        path = Path(chip.source)
        for key in {chip.source, path.name, path.stem, str(path.with_suffix(""))}:
            if key in out:
                twice.add(key)
            out[key] = chip
    return {k: c for k, c in out.items() if k not in twice}


def _parsed(
    kind: str, base: Path, files: Sequence[Path], by_key: Mapping[str, ChipSource], options: ChipOptions
) -> Iterator[tuple[str, Annotation | None]]:
    """Yield (what the annotation calls its picture, annotation; None where only its picture could tell)."""
    names = next((p for n in CLASS_FILES for p in sorted(base.rglob(n))), None)
    lines = names.read_text().splitlines() if names else []
    classes = [line.strip() for line in lines if line.strip()]
    for path in files:
        below = path.relative_to(base).as_posix()
        key = Path(below).with_suffix("").as_posix()
        if kind == "coco":
            yield from parse_coco(path.read_bytes(), below).items()
        elif kind == "voc":
            yield key, parse_voc(path.read_bytes(), below, one_based=options.one_based)
        elif (chip := _chip_of(key, by_key)) is None:
            yield key, None
        else:
            size = {"height": chip.height, "width": chip.width}
            yield key, parse_yolo(path.read_text(), below, **size, classes=classes)
