"""The samples in a folder: its pictures, their headers, and the annotations of them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.ingestion.annotations import Annotation, parse_coco, parse_voc, parse_yolo
from sarzarr.ingestion.chips.read import SUFFIXES, probe_sample
from sarzarr.store.boxes import Policy
from sarzarr.store.samples import SampleLayout
from sarzarr.tasks import gather
from sarzarr.text import problems_text

FORMATS: Final = ("auto", "voc", "coco", "yolo", "none")
PROBES_A_TASK: Final = 256
"""Headers that one task looks at."""
IMAGES: Final = "images"
LABELS: Final = "labels"
"""Folders beside each other, of the same below them, as YOLO has it."""
CLASS_FILES: Final = ("classes.txt", "obj.names")
"""Files of YOLO folders that name classes, a line each."""
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


def find_samples(base: Path) -> list[SampleSource]:
    """Return the pictures below a folder with their sizes in pixels and dtypes, sorted by id.

    Raises `InvalidInputError` where there is no folder or no picture, or two claim one id;
    `UnsupportedRasterError`, which names the first ones, where some cannot be read, or are not taken.
    """
    if not base.is_dir():
        raise InvalidInputError(
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
    if problems := sorted(p for p in probed if isinstance(p, str)):
        raise UnsupportedRasterError(problems_text("pictures that can be read", problems))
    return [sample for sample in probed if isinstance(sample, SampleSource)]


def _probe_some(base: Path, samples: Sequence[SampleSource]) -> list[SampleSource | str]:
    """Return the samples with their headers' facts; in the place of one that is not taken, the reason."""
    out: list[SampleSource | str] = []
    for sample in samples:
        try:
            height, width, dtype = probe_sample(base / sample.source)
            out.append(replace(sample, height=height, width=width, dtype=dtype))
        except UnsupportedRasterError as error:
            out.append(f"{sample.source}: {error}")
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


def sample_annotations(
    base: Path, samples: Sequence[SampleSource], options: ChipOptions
) -> tuple[dict[str, Annotation], tuple[str, ...]]:
    """Return the annotations (pixels) by id of their sample, and the names of those without one."""
    stems = {Path(s.source).stem for s in samples}
    files: dict[str, list[Path]] = {"voc": [], "coco": [], "yolo": []}
    for path in sorted(p for p in base.rglob("*") if p.is_file()):
        if kind := _format_of(path, path.relative_to(base), stems):
            files[kind].append(path)
    kind, kinds = options.annotations, [k for k, paths in files.items() if paths]
    if kind == "auto" and len(kinds) > 1:
        raise InvalidInputError(
            f"annotations of one format were expected, got {' and '.join(kinds)}. Choose with --annotations."
        )
    if kind == "auto":
        kind = kinds[0] if kinds else "none"
    if kind == "none":
        return {}, ()
    if not files[kind]:
        raise InvalidInputError(
            f"annotations as {kind} were expected below {base.name!r}, got none. Choose with --annotations."
        )
    owners: dict[str, list[SampleSource]] = {}
    for sample in samples:
        path = Path(sample.source)
        for key in {sample.source, path.name, path.stem, str(path.with_suffix(""))}:
            owners.setdefault(key, []).append(sample)
    by_key = {key: some[0] for key, some in owners.items() if len(some) == 1}  # what names one sample alone
    annotations: dict[str, Annotation] = {}
    unmatched = []
    for key, annotation in _parsed(kind, base, files[kind], by_key, options):
        owner = _sample_of(key, by_key)
        if owner is None or annotation is None:
            unmatched.append(key)
        elif owner.id in annotations:
            raise InvalidInputError(
                f"one annotation of each picture was expected, got two of {owner.source!r}. Take one out."
            )
        else:
            annotations[owner.id] = annotation
    return annotations, tuple(sorted(unmatched))


def _format_of(path: Path, below: Path, stems: set[str]) -> str:
    """Return the format of a file of annotations, ``below`` the folder; empty where it is of another kind."""
    suffix = path.suffix.lower()
    if suffix == ".json" and b'"annotations"' in path.read_bytes():
        return "coco"
    is_label = path.name not in CLASS_FILES and (path.stem in stems or LABELS in below.parts)
    return "voc" if suffix == ".xml" else "yolo" if suffix == ".txt" and is_label else ""


def _sample_of(key: str, by_key: Mapping[str, SampleSource]) -> SampleSource | None:
    """Return the picture that an annotation calls so, with a picture's suffix or without one."""
    path = Path(key)
    name = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    # As YOLO lays folders out: labels/train/a.txt belongs to images/train/a.png.
    beside = Path(*(IMAGES if part == LABELS else part for part in name.parts)).as_posix()
    return next((by_key[k] for k in (key, name.as_posix(), beside, name.name) if k in by_key), None)


def _parsed(
    kind: str, base: Path, files: Sequence[Path], by_key: Mapping[str, SampleSource], options: ChipOptions
) -> Iterator[tuple[str, Annotation | None]]:
    """Yield (what the annotation calls its picture, annotation; None where only its picture could tell)."""
    names = next((p for n in CLASS_FILES for p in sorted(base.rglob(n))), None)
    classes = list(filter(None, map(str.strip, names.read_text().splitlines() if names else [])))
    for path in files:
        below = path.relative_to(base).as_posix()
        key = Path(below).with_suffix("").as_posix()
        if kind == "coco":
            yield from parse_coco(path.read_bytes(), below).items()
        elif kind == "voc":
            yield key, parse_voc(path.read_bytes(), below, one_based=options.one_based)
        elif (sample := _sample_of(key, by_key)) is None:
            yield key, None
        else:
            text, size = path.read_text(), {"height": sample.height, "width": sample.width}
            yield key, parse_yolo(text, below, **size, classes=classes)
