"""The samples in a folder: its pictures, their headers, and the annotations of them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from sarzarr.errors import InvalidInputError, RasterNotFoundError, UnsupportedRasterError
from sarzarr.ingestion.annotations import (
    Annotation,
    coco_classes,
    is_dota,
    parse_classes,
    parse_coco,
    parse_dota,
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

FORMATS: Final = ("auto", "voc", "coco", "yolo", "dota", "none")
PROBES_A_TASK: Final = 256
"""Headers that one task looks at."""
IMAGES: Final = "images"
LABELS: Final = ("labels", "labeltxt")
"""Folders beside each other, of the same below them, as YOLO and DOTA have it; in lower case."""
CLASS_FILES: Final = ("classes.txt", "obj.names", "*.yaml", "*.yml")
"""Files that name classes in the order of their numbers: a line each, or ``names`` in YAML."""
NAMED: Final = 10
"""Annotations without a picture that are named."""
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
    """``voc``, ``coco``, ``yolo``, ``dota``, ``none``; ``auto`` takes the one that is there."""
    leave_unmatched: bool = False
    """Leave out annotations of pictures that are not there; else they stop the import."""
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
    classes_from: str = ""
    """The file of that list."""


def sample_annotations(
    base: Path, samples: Sequence[SampleSource], options: ChipOptions, left_out: Sequence[str] = ()
) -> FoundAnnotations:
    """Return the annotations of samples below a folder.

    Those of pictures that are ``left_out``, paths below it, go with them. Raises `InvalidInputError` where they are
    of several formats, of none that is read, two are of one picture, some are of pictures that are not there, unless
    these are left out as asked, or lists of classes differ.
    """
    pictures = {*(s.source for s in samples), *left_out}
    stems = {PurePosixPath(picture).stem for picture in pictures}
    files: dict[str, list[Path]] = {"voc": [], "coco": [], "yolo": [], "dota": []}
    others = []
    for path in sorted(p for p in base.rglob("*") if p.is_file()):
        if kind := _format_of(path, path.relative_to(base), stems):
            files[kind].append(path)
        elif path.suffix.lower() in _TEXTS and path.stem in stems:
            others.append(path)
    if files["dota"]:  # an empty text is of either
        files["dota"] += [path for path in files["yolo"] if not path.stat().st_size]
        files["yolo"] = [path for path in files["yolo"] if path.stat().st_size]
    kind, kinds = options.annotations, [k for k, paths in files.items() if paths]
    if kind == "auto" and len(kinds) > 1:
        raise InvalidInputError(
            f"annotations of one format were expected, got {' and '.join(kinds)}. Choose with --annotations."
        )
    if kind == "auto" and others and not kinds:
        raise InvalidInputError(
            f"annotations as VOC XML, COCO JSON, YOLO or DOTA text were expected, got {others[0].name!r} and "
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
    finder = PictureFinder(sorted(pictures))
    parsed, classes, named_in = _parsed(kind, base, files[kind], (finder, samples), options)
    by_id, unmatched = _matched(samples, finder, parsed)
    if unmatched and not (options.leave_unmatched and by_id):
        shown = ", ".join(repr(name) for name in unmatched[:NAMED])
        more = f" and {len(unmatched) - NAMED} more" if len(unmatched) > NAMED else ""
        remedy = "Give the folder of both, or pass --annotations none to take the pictures alone."
        if by_id:
            remedy = "Pass --leave-unmatched to leave these out, or give the folder of both."
        raise InvalidInputError(
            f"annotations of pictures that are there were expected, got {len(unmatched)} of others: {shown}{more}; a "
            f"picture is {samples[0].source!r}. {remedy}"
        )
    return FoundAnnotations(by_id=by_id, unmatched=unmatched, classes=classes, classes_from=named_in)


def _matched(
    samples: Sequence[SampleSource],
    finder: "PictureFinder",
    parsed: Sequence[tuple[str, Annotation | None]],
) -> tuple[dict[str, Annotation], tuple[str, ...]]:
    """Return annotations by the id of the picture that each calls its own, and the names of those without one."""
    ids = {sample.source: sample.id for sample in samples}
    annotations: dict[str, Annotation] = {}
    unmatched = []
    for key, annotation in parsed:
        picture = finder.find(key)
        if picture is None:
            unmatched.append(key)
        elif annotation is None or picture not in ids:
            continue  # of a picture that is refused
        elif ids[picture] in annotations:
            raise InvalidInputError(
                f"one annotation of each picture was expected, got two of {picture!r}. Take one out."
            )
        else:
            annotations[ids[picture]] = annotation
    return annotations, tuple(sorted(unmatched))


class PictureFinder:
    """Finds pictures by what annotations call them: names of other systems, below other roots, in other cases."""

    def __init__(self, pictures: Sequence[str]) -> None:
        self._known: dict[Names, list[str]] = {}
        for picture in pictures:
            path = PurePosixPath(picture)
            names = (*_whole(path), *_tails(path), *_with_any_folder(path))
            for name in dict.fromkeys(names):
                self._known.setdefault(name, []).append(picture)
            for name in dict.fromkeys(map(_folded, names)):
                self._known.setdefault(name, []).append(picture)

    def find(self, key: str) -> str | None:
        """Return the one picture that ``key`` names; None where there is none, or several that it may name.

        It is the one of that path; or the one that shares most folders with it, counted from its name, with or
        without a suffix; or the one whose path differs in the name of one folder, as ``Annotations/a`` and
        ``JPEGImages/a`` do; or the one of these in other cases.
        """
        path = PurePosixPath(key.replace("\\", "/"))
        beside = PurePosixPath(*(IMAGES if part.lower() in LABELS else part for part in path.parts))
        ways = [*_whole(path), *_whole(beside), *_tails(path), *_tails(beside), *_with_any_folder(path)]
        for name in (*ways, *map(_folded, ways)):
            if len(found := self._known.get(name, [])) == 1:
                return found[0]
        return None


Names = tuple[str, ...]
"""The folders of a path, and its name."""


def _bare(path: PurePosixPath) -> Names:
    """Return the parts of a path without the suffix of a picture."""
    return (*path.parts[:-1], path.stem) if path.suffix.lower() in SUFFIXES else path.parts


def _whole(path: PurePosixPath) -> tuple[Names, ...]:
    return ("/", *path.parts), ("/", *_bare(path))


def _tails(path: PurePosixPath) -> Iterator[Names]:
    """Yield a path from each of its folders on, the longest first, also without a picture's suffix."""
    for at in range(len(path.parts)):
        yield path.parts[at:]
        yield _bare(path)[at:]


def _with_any_folder(path: PurePosixPath) -> Iterator[Names]:
    """Yield a path with any name in the place of one folder's, the last one first."""
    bare = _bare(path)
    return ((*bare[:at], "*", *bare[at + 1 :]) for at in reversed(range(len(bare) - 1)))


def _folded(name: Names) -> Names:
    return ("", *(part.casefold() for part in name))


def _format_of(path: Path, below: Path, stems: set[str]) -> str:
    """Return the format of a file of annotations, ``below`` the folder; empty where it is of another kind."""
    name = path.name.lower()
    if name.endswith(".json") and b'"annotations"' in read_within(path, "a file of annotations"):
        return "coco"
    if name.endswith(".xml"):
        return "" if name.endswith(".aux.xml") else "voc"
    folders = {part.lower() for part in below.parts[:-1]}
    is_label = path.name not in CLASS_FILES and (path.stem in stems or not folders.isdisjoint(LABELS))
    if not name.endswith(".txt") or not is_label:
        return ""
    return "dota" if is_dota(read_text(path, "text", limit=MAX_XML)) else "yolo"


def _parsed(
    kind: str,
    base: Path,
    files: Sequence[Path],
    pictures: tuple[PictureFinder, Sequence[SampleSource]],
    options: ChipOptions,
) -> tuple[list[tuple[str, Annotation | None]], tuple[str, ...], str]:
    """Return (name of its picture, annotation; None where only the picture could tell) of each; classes; file."""
    finder, by_source = pictures[0], {sample.source: sample for sample in pictures[1]}
    parsed: list[tuple[str, Annotation | None]] = []
    classes, named_in = ((), "") if kind == "coco" else folder_classes(base)
    for path in files:
        below = path.relative_to(base).as_posix()
        key = Path(below).with_suffix("").as_posix()
        if kind == "coco":
            data = read_within(path, "a file of annotations")
            parsed += parse_coco(data, below).items()
            classes = tuple(dict.fromkeys((*classes, *coco_classes(data, below))))
            named_in = named_in or below
        elif kind == "voc":
            data = read_within(path, "VOC XML", limit=MAX_XML)
            parsed.append((key, parse_voc(data, below, one_based=options.one_based)))
        elif kind == "dota":
            parsed.append((key, parse_dota(read_text(path, "text", limit=MAX_XML), below)))
        elif (sample := by_source.get(finder.find(key) or "")) is None:
            parsed.append((key, None))
        else:
            size = {"height": sample.height, "width": sample.width}
            parsed.append(
                (key, parse_yolo(read_text(path, "text", limit=MAX_XML), below, **size, classes=classes))
            )
    if kind == "yolo":
        classes = numbered_classes(classes, [one for _, one in parsed if one is not None])
    return parsed, classes, named_in


def numbered_classes(classes: tuple[str, ...], drawn: Sequence[Annotation]) -> tuple[str, ...]:
    """Return classes (n,), and then those without a name of YOLO's boxes: they have the number that is written."""
    labels = [label for one in drawn for label in one.labels]
    last = max((int(c[6:]) for c in labels if re.fullmatch(r"class_\d{1,4}", c)), default=-1)
    return (*classes, *(f"class_{i}" for i in range(len(classes), last + 1)))


def folder_classes(base: Path, *, deep: bool = True) -> tuple[tuple[str, ...], str]:
    """Return the names of classes (n,) that a folder lists, and the list; `InvalidInputError` where two lists differ.

    Folders in it are looked into where ``deep``.
    """
    lists: dict[tuple[str, ...], Path] = {}
    look = base.rglob if deep else base.glob
    for path in sorted(path for pattern in CLASS_FILES for path in look(pattern)):
        if names := parse_classes(read_text(path, "text", limit=MAX_XML), path.name):
            lists.setdefault(names, path)
    if len(lists) > 1:
        shown = " and ".join(f"{p.relative_to(base).as_posix()} ({', '.join(n)})" for n, p in lists.items())
        raise InvalidInputError(
            f"one list of classes was expected below {base.name!r}, got {shown}. Take one out, or import them apart."
        )
    return next(((names, p.relative_to(base).as_posix()) for names, p in lists.items()), ((), ""))
