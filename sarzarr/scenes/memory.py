"""Probes of files that are remembered between runs, so that a folder which is given again is not read again.

A file is the same while its path, size, inode and both times (last change of its bytes, and of its inode) are, and
what lies beside it that is no TIFF is of the same names, sizes and times. Nothing else is trusted: of files in
archives, of products with metadata around them, and of those that changed a moment ago, nothing is remembered.
Probes are JSON in the user's cache folder, one document per folder of files, and may be deleted at any time.
"""

import json
import logging
import os
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import numpy as np

import sarzarr
from sarzarr.files import whole_file
from sarzarr.scenes.probe import RasterProbe, probe_file
from sarzarr.scenes.products.table import read_product

log = logging.getLogger(__name__)
CACHE: Final = "SARZARR_CACHE"
"""Environment variable: the folder of what is remembered; nothing is, where it is empty."""
SETTLED: Final = 2.0
"""Seconds that a file must be unchanged to be remembered: a change within one tick of a clock leaves no mark."""
MAX_REMEMBERED: Final = 256 * 2**20
"""Bytes of a document of probes that is read, and written."""
_RASTERS: Final = (".tif", ".tiff")


def cache_folder() -> Path | None:
    """Return the folder of what is remembered between runs; None where nothing is to be."""
    if (told := os.environ.get(CACHE)) is not None:
        return Path(told) if told else None
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sarzarr"


@cache
def _code() -> str:
    """Return a digest of the package's files: another version may see a file otherwise."""
    root = Path(sarzarr.__file__).parent
    stats = ((path.relative_to(root), path.stat()) for path in sorted(root.rglob("*.py")))
    return _digest([[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats])


def _digest(content: Any) -> str:
    return blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def kept_at(kind: str, *what: str) -> Path | None:
    """Return the document of what this package remembers of something; None where nothing is to be remembered."""
    folder = cache_folder()
    return None if folder is None else folder / kind / f"{_digest([_code(), *what])}.json"


def remembered(document: Path) -> dict[str, Any]:
    """Return what a document of a run before says; nothing where it is none."""
    try:
        if document.stat().st_size > MAX_REMEMBERED:
            return {}
        found = json.loads(document.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(document: Path, content: Mapping[str, Any]) -> None:
    """Write a document for the next run, where that is possible."""
    text = json.dumps(content)
    if len(text) > MAX_REMEMBERED:
        return
    try:
        document.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(document) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        log.debug("%s is not written: %s", document, error)


class ProbeMemory:
    """Probes of files by the options that they are probed with; `save` keeps what is new for the next run."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)
        # who asks for a hash of every byte wants them read
        self.folder = None if options.get("full_hash") else cache_folder()
        self._told = repr(sorted(self.options.items()))
        self._known: dict[Path, dict[str, Any]] = {}
        self._new: dict[Path, dict[str, tuple[list[Any], RasterProbe]]] = {}
        self._beside: dict[Path, str] = {}

    def probe(self, path: Path) -> RasterProbe:
        """Return `probe_file` of a file, as it is remembered where the file is the same; errors are those of it."""
        stamp = self._stamp(path)
        if stamp is not None:
            entry = self._of_folder(path.parent).get(path.name)
            if isinstance(entry, dict) and entry.get("stamp") == stamp:
                try:
                    probe: RasterProbe = _maker(RasterProbe)(entry["probe"])
                    return probe
                except (LookupError, TypeError, ValueError, AttributeError) as error:
                    log.debug("what is remembered of %s is no probe: %s", path, error)
        probe = probe_file(path, **self.options)
        if stamp is not None and stamp == self._stamp(path):
            self._new.setdefault(path.parent, {})[path.name] = stamp, probe
        return probe

    def save(self) -> None:
        """Keep the probes that are new, where that is possible."""
        for folder, probes in self._new.items():
            new = {name: entry for name, p in probes.items() if (entry := self._entry(folder / name, *p))}
            if not new:
                continue
            remember(self._document(folder), {**self._of_folder(folder), **new})
        self._new = {}

    def _entry(self, path: Path, stamp: list[Any], probe: RasterProbe) -> dict[str, Any] | None:
        """Return what is kept of a file; None of one whose probe depends on more than itself and what lies beside."""
        product = read_product(path)
        if product.family or product.folder or probe.companion:
            return None
        plain = _plain(probe)
        try:
            text = json.dumps(plain)
            if json.dumps(_plain(_maker(RasterProbe)(json.loads(text)))) != text:
                return None
        except (LookupError, TypeError, ValueError, AttributeError, NameError):
            return None
        return {"stamp": stamp, "probe": plain}

    def _document(self, folder: Path) -> Path:
        return kept_at("probes", str(folder), self._told) or Path()

    def _of_folder(self, folder: Path) -> dict[str, Any]:
        """Return what is remembered of the files of a folder, by name."""
        if folder not in self._known:
            self._known[folder] = remembered(self._document(folder))
        return self._known[folder]

    def _stamp(self, path: Path) -> list[Any] | None:
        """Return what tells a file, as it is, from any other; None where nothing is to be remembered of it."""
        if self.folder is None or path.suffix.lower() not in _RASTERS:
            return None
        try:
            stat = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
            beside = self._around(path.parent)
        except OSError:
            return None
        if time.time() - max(stat.st_mtime, stat.st_ctime) < SETTLED:
            return None
        return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev, beside]

    def _around(self, folder: Path) -> str:
        """Return a digest of what lies in a folder that is no TIFF: metadata, masks, folders."""
        if folder not in self._beside:
            found = []
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.lower().endswith(_RASTERS):
                        stat = entry.stat()
                        found.append([entry.name, stat.st_size, stat.st_mtime_ns])
            self._beside[folder] = _digest(sorted(found))
        return self._beside[folder]


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; `_maker` has the inverse, of the fields of a dataclass by their types."""
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.init}
    if isinstance(value, Path | np.dtype):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return dict(value) if isinstance(value, Mapping) else value


def _same(value: Any) -> Any:
    return value


@cache
def _maker(hint: Any) -> Callable[[Any], Any]:
    """Return the function that makes a value of a type of what `_plain` made of it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        one = _maker(next(t for t in inner if t is not type(None)))
        return one if one is _same else lambda value: None if value is None else one(value)
    if origin is tuple and inner[1:] == (...,):
        each = _maker(inner[0])
        return tuple if each is _same else lambda value: tuple(map(each, value))
    if origin is tuple:
        makers = tuple(map(_maker, inner))
        return lambda value: tuple(make(one) for make, one in zip(makers, value, strict=True))
    if hint is Path:
        return Path
    if hint is np.dtype or origin is np.dtype:
        return np.dtype
    return _maker_of(hint) if isinstance(hint, type) and is_dataclass(hint) else _same


def _maker_of(cls: Any) -> Callable[[Any], Any]:
    makers = {name: one for name, hint in get_type_hints(cls).items() if (one := _maker(hint)) is not _same}

    def made(value: Mapping[str, Any]) -> Any:
        return cls(**{**value, **{name: make(value[name]) for name, make in makers.items() if name in value}})

    return made
