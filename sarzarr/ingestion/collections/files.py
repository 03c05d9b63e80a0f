"""Files of an archive of chips: which are one chip's, and which are layers of it, by their names and stamps alone.

No header is read here. A name is its words: those of the folders below what was given, and of the file. Words of
polarizations do not count: files that differ in them alone are one chip's. A layer's file is that of the chip with
the same words, but for those that all files of the layer have and no chip, or all chips and no file of the layer.
"""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.conventions import POLARIZATIONS
from sarzarr.errors import RasterNotFoundError
from sarzarr.ingestion.layers.layer import Layer
from sarzarr.zips import SUFFIXES as ARCHIVES
from sarzarr.zips import is_archive, is_compressed, members, status_of
from sarzarr.zips.zarrs import chips_in, is_zarr

SUFFIXES: Final = (".tif", ".tiff")
_POLARIZATION: Final = re.compile(
    rf"(?<![A-Za-z0-9])(?:{'|'.join(POLARIZATIONS)})(?![A-Za-z0-9])", re.IGNORECASE
)
_WORD: Final = re.compile(r"[A-Za-z0-9]+")
_NUMBER: Final = re.compile(r"\d+(?:t\d+)?")
"""A word that is a number or a date: it tells chips apart."""
MOST_FAMILIES: Final = 64
"""Kinds of folders up to which files in them are of different kinds: of more, each chip has a folder of its own."""


@dataclass(frozen=True)
class File:
    """A file of an archive, with its stamp."""

    path: str
    """Its absolute path."""
    source: str
    """Its path below the folder that holds what was given, which is its name in the store."""
    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970 of its last change; of a file in an archive, of that archive's."""

    @property
    def stem(self) -> str:
        """Its source without the suffix."""
        return self.source.rpartition(".")[0]


def rasters_below(given: Iterable[str | Path]) -> list[File]:
    """Return the TIFF files of folders, of the folders in them and of archives, sorted by their sources."""
    found: dict[str, File] = {}
    for path in map(Path, given):
        base = Path(os.path.abspath(path))  # noqa: PTH100 - lexical: links keep the name that was given
        above = len(str(base.parent)) + (base.parent != base.parent.parent)
        for file in _rasters(base):
            size, modified = file[1:]
            found[file[0]] = File(file[0], file[0][above:].replace(os.sep, "/"), size, modified)
    return sorted(found.values(), key=lambda file: file.source)


def _rasters(path: Path) -> Iterable[tuple[str, int, int]]:
    if path.is_dir():
        waiting = [str(path)]
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif _is_raster(entry.name):
                        status = entry.stat()
                        yield entry.path, status.st_size, status.st_mtime_ns
                    elif entry.name.lower().endswith(ARCHIVES):
                        yield from _rasters(Path(entry.path))
    elif is_zarr(path) and path.is_file():
        yield from _chips_of_zarr(path)
    elif is_archive(path) or is_compressed(path):
        modified = path.stat().st_mtime_ns
        for name, info in members(path).items():
            if is_zarr(name) and path.suffix.lower() == ".tar":
                yield from _chips_of_zarr(path / name)
            elif _is_raster(name):
                yield f"{path}/{name}", info.file_size, modified
    elif _is_raster(path.name) and path.is_file():
        status = path.stat()
        yield str(path), status.st_size, status.st_mtime_ns


def _chips_of_zarr(path: Path) -> Iterable[tuple[str, int, int]]:
    chips, modified = chips_in(path), status_of(path).st_mtime_ns
    for name in chips.places:
        yield f"{path}/{name}", chips.nbytes, modified


def _is_raster(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


@dataclass(frozen=True, kw_only=True, eq=False)
class Chips:
    """The files of chips, a chip a row, as few columns: they cross to a process, and a million fit in memory."""

    ids: tuple[str, ...]
    """Ids."""
    paths: tuple[str, ...]
    """Absolute paths of a chip's files of backscatter, a line each."""
    sources: tuple[str, ...]
    """All of its files, a line each: ``below/x_VV.tif``, of layers the name and a tab before it."""
    layers: Mapping[str, tuple[str, ...]]
    """Of each layer, the absolute path of its file; empty of a chip that has none."""
    stamps: Array
    """(chips, 2) int64: bytes of its files of backscatter, nanoseconds since 1970 of the last change of one."""
    layer_stamps: Mapping[str, Array]
    """Of each layer, (chips, 2) int64: the same of its file; zeros of a chip that has none."""

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, rows: Array | slice) -> "Chips":
        """Return some rows of it."""
        chosen = np.arange(len(self))[rows].tolist()
        return Chips(
            ids=tuple(self.ids[i] for i in chosen),
            paths=tuple(self.paths[i] for i in chosen),
            sources=tuple(self.sources[i] for i in chosen),
            layers={name: tuple(files[i] for i in chosen) for name, files in self.layers.items()},
            stamps=self.stamps[rows],
            layer_stamps={name: stamps[rows] for name, stamps in self.layer_stamps.items()},
        )

    @classmethod
    def of(
        cls, rows: Sequence[tuple[str, Sequence[File], Mapping[str, File]]], layers: Iterable[str]
    ) -> "Chips":
        """Return chips by id, files of backscatter, and the file of each of the ``layers`` that they have."""
        names = sorted(layers)
        return cls(
            ids=tuple(row[0] for row in rows),
            paths=tuple("\n".join(file.path for file in own) for _, own, _ in rows),
            sources=tuple(
                "\n".join(
                    [
                        *(f.source for f in own),
                        *(f"{name}\t{beside[name].source}" for name in names if name in beside),
                    ]
                )
                for _, own, beside in rows
            ),
            layers={
                name: tuple(beside[name].path if name in beside else "" for _, _, beside in rows)
                for name in names
            },
            stamps=_stamps([own for _, own, _ in rows]),
            layer_stamps={
                name: _stamps([[beside[name]] if name in beside else [] for _, _, beside in rows])
                for name in names
            },
        )


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Files, and whose they are."""

    chips: Chips
    """Chips that are not known, sorted by id."""
    known: Mapping[int, Mapping[str, File]]
    """Of chips that are known, by their rows, the files of layers."""
    left: Mapping[str, Sequence[File]]
    """Of each layer, the files that are no chip's."""


def chips_of(
    files: Sequence[File],
    layers: Mapping[str, Sequence[File]],
    known: Sequence[Mapping[int, str]] = (),
) -> Matched:
    """Return the chips that files make, and whose the files of each layer are.

    ``layers`` are the files of each layer, which are none of the others. ``known`` are the sources of chips that are
    in the collection, by their rows: files are looked for among the first with those of ``files``, and what is left
    among the others, one after the other.
    """
    groups: dict[str, list[File]] = {}
    for file in files:
        groups.setdefault(_bare(file.stem).lower(), []).append(file)
    ids = _ids([own[0].stem for own in groups.values()])
    own_words = [_words(key) for key in groups]
    beside: dict[int, dict[str, File]] = {}
    of_known: dict[int, dict[str, File]] = {}
    left = {}
    among = [([*some], [_words(bare_source(one)) for one in some.values()]) for some in known or ({},)]
    for name, of_layer in layers.items():
        rest: Sequence[File] = of_layer
        for step, (rows, theirs) in enumerate(among if of_layer else ()):
            first = own_words if not step else []
            found, rest = _matched([*first, *theirs], rest)
            for at, file in found.items():
                if at < len(first):
                    beside.setdefault(at, {})[name] = file
                else:
                    of_known.setdefault(rows[at - len(first)], {})[name] = file
            if not rest:
                break
        left[name] = rest
    members_of = list(groups.values())
    order = sorted(range(len(ids)), key=ids.__getitem__)
    chips = [(ids[i], members_of[i], beside.get(i, {})) for i in order]
    return Matched(chips=Chips.of(chips, layers), known=of_known, left=left)


def by_folder(sources: Mapping[int, str]) -> list[dict[int, str]]:
    """Return sources by their folders, in which digits count as alike; of many kinds of folders all together."""
    out: dict[str, dict[int, str]] = {}
    for row, source in sources.items():
        out.setdefault(re.sub(r"[0-9]+", "#", source.rpartition("/")[0]), {})[row] = source
    return list(out.values()) if len(out) <= MOST_FAMILIES else [dict(sources)]


def _stamps(files: Sequence[Sequence[File]]) -> Array:
    """Return (chips, 2) int64 of the files of each: bytes of all, and the time of the last change of one."""
    stamps = [(sum(f.size for f in own), max((f.modified for f in own), default=0)) for own in files]
    return np.array(stamps, np.int64).reshape(-1, 2)


def _bare(stem: str) -> str:
    """Return a path's stem without polarizations, and the separators that they leave.

    >>> _bare("a/S1_VV_20200101"), _bare("vh/x"), _bare("chip-VV")
    ('a/S1_20200101', 'x', 'chip')
    """
    if not _POLARIZATION.search(stem):
        return stem
    parts = (re.sub(r"[._-]{2,}", "_", _POLARIZATION.sub("", part)).strip("._- ") for part in stem.split("/"))
    return "/".join(part for part in parts if part)


def bare_source(sources: str) -> str:
    """Return the name of a chip's files, a line each, less polarizations and suffix: ``a/x`` of ``a/x_VV.tif``."""
    return _bare(sources.partition("\n")[0].rpartition(".")[0])


def _words(key: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(key.lower()))


def _ids(stems: Sequence[str]) -> list[str]:
    """Return an id for each stem: the file's name less its polarizations, with folders where names are not enough."""
    bare = [_bare(stem) for stem in stems]
    names = [one.rpartition("/")[2] for one in bare]
    for depth in range(2, 12):
        counts = Counter(names)
        if len(counts) == len(names):
            break
        names = [
            "_".join(one.split("/")[-depth:]) if counts[name] > 1 else name
            for name, one in zip(names, bare, strict=True)
        ]
    return [name or stem for name, stem in zip(names, stems, strict=True)]


def files_of_layer(layer: Layer, files: Sequence[File]) -> list[File]:
    """Return the files of a layer, which are named by a path, or by a pattern among the files of an archive.

    ``LabelHand`` is a word that their names hold, ``*_mask.tif`` and ``labels/*`` are patterns of them.

    Raises `RasterNotFoundError` where there is none.
    """
    place = Path(layer.path)
    if place.exists():
        return rasters_below([place])
    pattern = layer.path.lower()
    if any(sign in pattern for sign in "*?["):
        own = [f for f in files if fnmatch.fnmatch(f.source.lower(), f"*{pattern.lstrip('*')}")]
        return own or rasters_below(layer.files())
    own = [file for file in files if pattern in file.source.lower()]
    if not own:
        raise RasterNotFoundError(
            f"expected a path, or a pattern of the names of files, for layer {layer.name!r}, got {layer.path!r}, "
            "which no file has in its name. Check it with --dry-run."
        )
    return own


def _matched(chips: Sequence[tuple[str, ...]], files: Sequence[File]) -> tuple[dict[int, File], list[File]]:
    """Return the file of each chip by its number, and the files that are no chip's."""
    words = [_words(_bare(file.stem)) for file in files]
    theirs, ours = _common(words), _common(chips)
    drop_theirs = theirs - set().union(*chips) if theirs else set()
    drop_ours = ours - set().union(*words) if ours else set()
    told, said = (set(filter(_NUMBER.fullmatch, some)) for some in (drop_theirs, drop_ours))
    if told and said:  # a date of one side, and another of the other: they are not of each other
        drop_theirs, drop_ours = drop_theirs - told, drop_ours - said
    numbers: dict[tuple[str, ...], int] = {}
    for number, own in enumerate(chips):
        numbers.setdefault(tuple(word for word in own if word not in drop_ours), number)
    found: dict[int, File] = {}
    left = []
    for file, own in zip(files, words, strict=True):
        chip = numbers.get(tuple(word for word in own if word not in drop_theirs))
        if chip is None or chip in found:
            left.append(file)
        else:
            found[chip] = file
    return found, left


def _common(words: Sequence[tuple[str, ...]]) -> set[str]:
    """Return the words that all names have."""
    if not words:
        return set()
    common = set(words[0])
    for own in words[1:]:
        common.intersection_update(own)
        if not common:
            break
    return common


def pattern_of(names: Sequence[str]) -> str:
    """Return what names have in common, for people: what they begin and end with, and ``*`` between.

    >>> pattern_of(["a/Spain_1_S1Hand.tif", "a/Ghana_2_S1Hand.tif"])
    'a/*_S1Hand.tif'
    """
    if not names:
        return ""
    if len(names) == 1:
        return names[0]
    first, last = min(names), max(names)
    begin = _common_start(first, last)
    turned = [name[::-1] for name in names]
    end = _common_start(min(turned), max(turned))[::-1]
    cut = max(begin.rfind(sign) for sign in "/_-. ") + 1
    starts = [end.find(sign) for sign in "/_-. " if sign in end]
    return begin[:cut] + "*" + (end[min(starts) :] if starts else "")


def _common_start(one: str, other: str) -> str:
    """Return the characters that two texts both begin with."""
    count = next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    return one[: min(len(one), len(other)) if count is None else count]


def families(files: Sequence[File]) -> dict[str, list[File]]:
    """Return files by what their names have in common: their last word if it is no number, and their folder's words.

    Those of one family are of one kind as far as names tell: chips, or masks. Digits count as alike, and
    polarizations as none.
    """
    keys = [_family(file) for file in files]
    has_few = len(set(keys)) <= MOST_FAMILIES
    out: dict[str, list[File]] = {}
    for (folder, last), file in zip(keys, files, strict=True):
        out.setdefault(f"{folder if has_few else '**'}/*{last}", []).append(file)
    return out


def _family(file: File) -> tuple[str, str]:
    folder, _, name = _bare(file.stem).rpartition("/")
    words = _WORD.findall(name)
    is_kind = len(words) > 1 and re.fullmatch(r"[A-Za-z]+\d?[A-Za-z]+", words[-1])
    return re.sub(r"[0-9]+", "#", folder), f"_{words[-1]}" if is_kind else ""
