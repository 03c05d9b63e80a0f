"""The samples in a folder: its pictures, their headers, and the annotations of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sarzarr.errors import InvalidInputError, RasterNotFoundError, UnsupportedRasterError
from sarzarr.ingestion.annotations import (
    Annotation,
    coco_classes,
    parse_classes,
    parse_coco,
    parse_voc,
    parse_yolo,
)  # fmt: skip
from sarzarr.ingestion.chips.read import SUFFIXES, probe_sample
from sarzarr.scenes.products.xml import MAX_XML
from sarzarr.scenes.refusals import Refusals
from sarzarr.store.boxes import Policy
from sarzarr.store.limits import read_text, read_within
from sarzarr.store.samples import SampleLayout
from sarzarr.tasks import gather, worker_name

FORMATS: Final = ("auto", "voc", "coco", "yolo", "none")
PROBES_A_TASK: Final = 256
"""Headers that one task looks at."""
IMAGES: Final = "images"
LABELS: Final = "labels"
"""Folders beside each other, of the same below them, as YOLO has it."""
CLASS_FILES: Final = ("classes.txt", "obj.names", "*.yaml", "*.yml")
"""Files of YOLO folders that name classes: a line each, or ``names`` in YAML."""
_TEXTS: Final = (".xml", ".json", ".txt", ".csv")
"""Suffixes that annotations of a picture may have, in formats that are not read, too."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


def safe_stem(text: str) -> str:
    """Return a name that a group can have, as near to ``text`` as can be: at most 128 bytes of ASCII."""
    return _UNSAFE.sub("_", text).lstrip("._")[:128] or "chips"


@dataclass(frozen=True, kw_only=True)
class ChipOptions:
    """Options of an import of samples."""

    name: str | None = None
    """The set's name; the folder's if left out."""
    annotations: str = "auto"
    """``voc``, ``coco``, ``yolo``, ``none``; ``auto`` takes the one that is there."""
    policy: Policy = "repair"
    """Policy for boxes that are not inside; see `sarzarr.store.boxes.check_boxes`."""
    one_based: bool = False
    """VOC coordinates count pixels from 1 and name the last one."""
    replace: bool = False
    """Put the set in the place of one of that name."""
    strict: bool = False
    """Write nothing where a picture cannot be read; else the others go in."""

    def __post_init__(self) -> None:
        if self.annotations not in FORMATS:
            raise InvalidInputError(
                f"annotations must be one of {', '.join(FORMATS)}, got {self.annotations!r}."
            )


@dataclass(frozen=True, kw_only=True)
class SampleSource:
    """One picture of (height, width) pixels that is to be packed."""

    id: str
    """Its id in the set."""
    source: str
    """Its path below the folder, with forward slashes."""
    stamp: tuple[int, int]
    """Size and modification time (ns) of its file."""
    height: int = 0
    """Rows."""
    width: int = 0
    """Columns."""
    dtype: str = ""
    """As in its file."""

    def below(self, base: Path) -> Path:
        """Return the path of its file below a folder; `UnsupportedRasterError` where that is not as it was found."""
        path = base / self.source
        try:
            stat = path.stat()
            got = f"another of {stat.st_size}"
            if (stat.st_size, stat.st_mtime_ns) == self.stamp:
                return path
        except FileNotFoundError:
            got = "none"
        on = f" on {worker_name()}" if worker_name() else ""
        raise UnsupportedRasterError(
            f"a picture of {self.stamp[0]} bytes was expected at {str(path)!r}, got {got}{on}. Import it again "
            "where it changed; on a cluster, let every worker see the same files under the same paths."
        )


def find_samples(base: Path) -> tuple[list[SampleSource], Refusals]:
    """Return the pictures below a folder with their sizes in pixels and dtypes, sorted by id.

    With them those that cannot be read, or are not taken.

    Raises `RasterNotFoundError` where there is no folder; `InvalidInputError` where it has no picture, or two claim
    one id.
    """
    if not base.is_dir():
        raise RasterNotFoundError(
            f"a folder of pictures was expected, got {str(base)!r}. Give the folder itself."
        )
    paths = sorted(p for p in base.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise InvalidInputError(
            f"pictures ({', '.join(SUFFIXES)}) were expected below {base.name!r}, got none. Check the folder."
        )
    is_plain = len({p.stem for p in paths}) == len(paths)
    owners: dict[str, SampleSource] = {}
    for path in paths:
        below, stat = path.relative_to(base), path.stat()
        name = path.stem if is_plain else "_".join(below.with_suffix("").parts)
        sample = SampleSource(
            id=_UNSAFE.sub("_", name)[-128:], source=below.as_posix(), stamp=(stat.st_size, stat.st_mtime_ns)
        )
        if other := owners.get(sample.id):
            raise InvalidInputError(
                f"an id for each picture was expected, got {sample.id!r} for {other.source!r} and "
                f"{sample.source!r}. Rename one of them."
            )
        owners[sample.id] = sample
    samples = [owners[i] for i in sorted(owners)]
    starts = range(0, len(samples), PROBES_A_TASK)
    parts = gather([(_probe_some, (base, samples[i : i + PROBES_A_TASK])) for i in starts])
    probed = [sample for part in parts for sample in part]
    refused = Refusals()
    for sample, one in zip(samples, probed, strict=True):
        if isinstance(one, str):
            refused.add([base / sample.source], one)
    return [sample for sample in probed if isinstance(sample, SampleSource)], refused


def _probe_some(base: Path, samples: Sequence[SampleSource]) -> list[SampleSource | str]:
    """Return the samples with their headers' facts; in the place of one that is not taken, the reason."""
    out: list[SampleSource | str] = []
    for sample in samples:
        try:
            height, width, dtype = probe_sample(sample.below(base))
            out.append(replace(sample, height=height, width=width, dtype=dtype))
        except UnsupportedRasterError as error:
            out.append(str(error))
    return out


def sample_layout(samples: Sequence[SampleSource]) -> SampleLayout:
    """Return the layout of a set, in pixels; `UnsupportedRasterError` where its pictures are of several dtypes."""
    dtypes = sorted({s.dtype for s in samples})
    if len(dtypes) > 1:
        examples = "; ".join(f"{d}: {next(s.source for s in samples if s.dtype == d)}" for d in dtypes)
        raise UnsupportedRasterError(
            f"pictures of one dtype were expected, got {examples}. Import them apart."
        )
    height, width = max(s.height for s in samples), max(s.width for s in samples)
    return SampleLayout.of(count=len(samples), height=height, width=width, dtype=dtypes[0])


@dataclass(frozen=True, eq=False, kw_only=True)
class FoundAnnotations:
    """The annotations (pixels) in a folder, and what they call their classes."""

    by_id: Mapping[str, Annotation]
    """By id of their sample."""
    unmatched: tuple[str, ...] = ()
    """The names of those without a picture, sorted."""
    classes: tuple[str, ...] = ()
    """Names of classes in the order of the list that the folder has; empty where it has none."""


def sample_annotations(base: Path, samples: Sequence[SampleSource], options: ChipOptions) -> FoundAnnotations:
    """Return the annotations of samples below a folder.

    Raises `InvalidInputError` where they are of several formats, of none that is read, two are of one picture, none
    of them is of a picture that is there, or lists of classes differ.
    """
    stems = {Path(s.source).stem for s in samples}
    files: dict[str, list[Path]] = {"voc": [], "coco": [], "yolo": []}
    others = []
    for path in sorted(p for p in base.rglob("*") if p.is_file()):
        if kind := _format_of(path, path.relative_to(base), stems):
            files[kind].append(path)
        elif path.suffix.lower() in _TEXTS and path.stem in stems:
            others.append(path)
    kind, kinds = options.annotations, [k for k, paths in files.items() if paths]
    if kind == "auto" and len(kinds) > 1:
        raise InvalidInputError(
            f"annotations of one format were expected, got {' and '.join(kinds)}. Choose with --annotations."
        )
    if kind == "auto" and others and not kinds:
        raise InvalidInputError(
            f"annotations as VOC XML, COCO JSON or YOLO text were expected, got {others[0].name!r} and "
            f"{len(others) - 1} more that are none of these. Convert them, or pass --annotations none."
        )
    if kind == "auto":
        kind = kinds[0] if kinds else "none"
    if kind == "none":
        return FoundAnnotations(by_id={})
    if not files[kind]:
        raise InvalidInputError(
            f"annotations as {kind} were expected below {base.name!r}, got none. Choose with --annotations."
        )
    return _matched(samples, *_parsed(kind, base, files[kind], samples, options))


def _matched(
    samples: Sequence[SampleSource], parsed: Sequence[tuple[str, Annotation | None]], classes: tuple[str, ...]
) -> FoundAnnotations:
    """Return annotations by the picture that each calls its own."""
    by_key = _by_key(samples)
    annotations: dict[str, Annotation] = {}
    unmatched = []
    for key, annotation in parsed:
        owner = _sample_of(key, by_key)
        if owner is None or annotation is None:
            unmatched.append(key)
        elif owner.id in annotations:
            raise InvalidInputError(
                f"one annotation of each picture was expected, got two of {owner.source!r}. Take one out."
            )
        else:
            annotations[owner.id] = annotation
    if unmatched and not annotations:
        raise InvalidInputError(
            f"annotations of the pictures were expected, got {len(unmatched)} of others, such as {unmatched[0]!r}; "
            f"a picture is {samples[0].source!r}. Give the folder of both, or pass --annotations none."
        )
    return FoundAnnotations(by_id=annotations, unmatched=tuple(sorted(unmatched)), classes=classes)


def _by_key(samples: Sequence[SampleSource]) -> dict[str, SampleSource]:
    """Return the samples by all that names one of them alone."""
    owners: dict[str, list[SampleSource]] = {}
    for sample in samples:
        path = Path(sample.source)
        for key in {sample.source, path.name, path.stem, path.with_suffix("").as_posix()}:
            owners.setdefault(key, []).append(sample)
    return {key: some[0] for key, some in owners.items() if len(some) == 1}


def _format_of(path: Path, below: Path, stems: set[str]) -> str:
    """Return the format of a file of annotations, ``below`` the folder; empty where it is of another kind."""
    name = path.name.lower()
    if name.endswith(".json") and b'"annotations"' in read_within(path, "a file of annotations"):
        return "coco"
    if name.endswith(".xml"):
        return "" if name.endswith(".aux.xml") else "voc"
    is_label = path.name not in CLASS_FILES and (path.stem in stems or LABELS in below.parts)
    return "yolo" if name.endswith(".txt") and is_label else ""


def _sample_of(key: str, by_key: Mapping[str, SampleSource]) -> SampleSource | None:
    """Return the picture that an annotation calls so, with a picture's suffix or without one."""
    path = Path(key)
    name = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    # As YOLO lays folders out: labels/train/a.txt belongs to images/train/a.png.
    beside = Path(*(IMAGES if part == LABELS else part for part in name.parts)).as_posix()
    return next((by_key[k] for k in (key, name.as_posix(), beside, name.name) if k in by_key), None)


def _parsed(
    kind: str, base: Path, files: Sequence[Path], samples: Sequence[SampleSource], options: ChipOptions
) -> tuple[list[tuple[str, Annotation | None]], tuple[str, ...]]:
    """Return (what it calls its picture, annotation; None where only its picture could tell) of each, and classes."""
    parsed: list[tuple[str, Annotation | None]] = []
    classes = _yolo_classes(base) if kind == "yolo" else ()
    by_key = _by_key(samples)
    for path in files:
        below = path.relative_to(base).as_posix()
        key = Path(below).with_suffix("").as_posix()
        if kind == "coco":
            data = read_within(path, "a file of annotations")
            parsed += parse_coco(data, below).items()
            classes = tuple(dict.fromkeys((*classes, *coco_classes(data, below))))
        elif kind == "voc":
            data = read_within(path, "VOC XML", limit=MAX_XML)
            parsed.append((key, parse_voc(data, below, one_based=options.one_based)))
        elif (sample := _sample_of(key, by_key)) is None:
            parsed.append((key, None))
        else:
            size = {"height": sample.height, "width": sample.width}
            parsed.append(
                (key, parse_yolo(read_text(path, "text", limit=MAX_XML), below, **size, classes=classes))
            )
    if kind == "yolo":  # a class without a name has the number that it is written with
        drawn = [label for _, one in parsed if one is not None for label in one.labels]
        last = max((int(c[6:]) for c in drawn if re.fullmatch(r"class_\d{1,4}", c)), default=-1)
        classes += tuple(f"class_{i}" for i in range(len(classes), last + 1))
    return parsed, classes


def _yolo_classes(base: Path) -> tuple[str, ...]:
    """Return the names of classes that a folder lists; `InvalidInputError` where two of its lists differ."""
    lists: dict[tuple[str, ...], Path] = {}
    for path in sorted(path for pattern in CLASS_FILES for path in base.rglob(pattern)):
        if names := parse_classes(read_text(path, "text", limit=MAX_XML), path.name):
            lists.setdefault(names, path)
    if len(lists) > 1:
        shown = " and ".join(f"{p.relative_to(base).as_posix()} ({', '.join(n)})" for n, p in lists.items())
        raise InvalidInputError(
            f"one list of classes was expected below {base.name!r}, got {shown}. Take one out, or import them apart."
        )
    return next(iter(lists), ())
