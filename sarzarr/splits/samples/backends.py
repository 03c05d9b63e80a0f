"""Backends of splits of samples: a store, or the older folder layout, in which their versions are kept.

A version is created once; a pointer says which one is active. Both are written beside their place and put there in
one step, so that a killed process leaves what was there before. The two backends have the same methods.
"""

import contextlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, MissingFileError, SplitExistsError
from sarzarr.files import flush, locked, whole_file
from sarzarr.store.commit import changed_once
from sarzarr.store.documents import ensure_groups, has_node, read_node, update_node
from sarzarr.store.journal import PATIENCE, writing
from sarzarr.store.limits import read_text
from sarzarr.store.samples import open_samples, sample_sets
from sarzarr.store.split_table import LAST, last_version, versions
from sarzarr.store.store import Store
from sarzarr.store.tables import read_table, write_table

log = logging.getLogger(__name__)
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_VERSION: Final = re.compile(r"v([1-9][0-9]*)")
ACTIVE: Final = "active"
"""The pointer: ``active.json`` in a folder, an attribute in a store."""


def checked_name(text: str, what: str) -> str:
    """Return a name, 128 bytes at most, that cannot lead out of its folder; `InvalidInputError` otherwise."""
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise InvalidInputError(
            f"{what} of letters, digits, '.', '_' or '-' was expected, got {str(text)[:200]!r}. Rename it."
        )
    return text


@dataclass(frozen=True, kw_only=True)
class SampleSplit:
    """One version of a split of samples."""

    version: int
    """1, 2, ...; never used again."""
    created_at: str
    """UTC, ISO 8601 with Z."""
    train_samples: Sequence[str]
    """Ids, in their order."""
    val_samples: Sequence[str]
    """Ids, in their order; the same in every version that descends from this one."""
    val_ratio: float
    """The share that was asked for, in [0, 1]."""
    random_seed: int | None
    """The seed of the shuffle; None in a document that does not say."""
    notes: str = ""
    """Its maker's words."""
    parent_version: int | None = None
    """The version that this one extends."""
    samples_added: int = 0
    """Samples that it has more than its parent."""
    held_back_samples: Sequence[str] = ()
    """Ids that came later and share a group with validation."""

    @property
    def effective_val_ratio(self) -> float:
        """Share of the samples on both sides that is validation, in [0, 1]."""
        return len(self.val_samples) / max(len(self.train_samples) + len(self.val_samples), 1)

    def __repr__(self) -> str:
        train, val, held = map(len, (self.train_samples, self.val_samples, self.held_back_samples))
        return f"<SampleSplit v{self.version}: {train} train, {val} val, {held} held back>"

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it: ids as lists, counts, ratios in [0, 1]; what was not the case is left out."""
        train, val, held = map(list, (self.train_samples, self.val_samples, self.held_back_samples))
        parent = {"parent_version": self.parent_version, "samples_added": self.samples_added}
        return {
            "version": self.version,
            "created_at": self.created_at,
            "total_samples": len(train) + len(val),
            "train_samples": train,
            "val_samples": val,
            "train_count": len(train),
            "val_count": len(val),
            "val_ratio": self.val_ratio,
            "random_seed": self.random_seed,
            "notes": self.notes,
            **(parent if self.parent_version is not None else {}),
            **({"held_back_samples": held} if held else {}),
            "effective_val_ratio": self.effective_val_ratio,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any], name: str) -> "SampleSplit":
        """Return the version that a document says; `InvalidInputError` where it is none."""
        try:
            return cls(
                version=int(document["version"]),
                created_at=str(document.get("created_at", "")),
                train_samples=tuple(map(str, document["train_samples"])),
                val_samples=tuple(map(str, document["val_samples"])),
                val_ratio=float(document.get("val_ratio") or 0),
                random_seed=document.get("random_seed"),
                notes=str(document.get("notes") or ""),
                parent_version=document.get("parent_version"),
                samples_added=int(document.get("samples_added") or 0),
                held_back_samples=tuple(map(str, document.get("held_back_samples", ()))),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"a split was expected in {name!r}, got another document ({error}). Mend it, or take it away."
            ) from None


@dataclass(frozen=True)
class FolderBackend:
    """``signals/<name>/samples/<id>.npz`` and ``.json``, ``splits/v<n>.json``, ``splits/active.json``."""

    root: Path
    """The folder that holds ``signals``, or that folder itself."""

    def folder(self, signal: str) -> Path:
        """Return the folder of a signal, with ``samples`` and ``splits``."""
        base = self.root / "signals"
        return (base if base.is_dir() else self.root) / checked_name(signal, "a signal's name")

    def _document(self, signal: str, name: str) -> Path:
        return self.folder(signal) / "splits" / f"{name}.json"

    def samples(self, signal: str) -> list[str]:
        """Return the ids that have both files and a name that is safe, sorted; none of what is not there."""
        return self.samples_in(self.folder(signal) / "samples")

    @staticmethod
    def samples_in(folder: Path) -> list[str]:
        """Return those of a folder."""
        arrays, documents = ({p.stem for p in folder.glob(f"*.{kind}")} for kind in ("npz", "json"))
        return sorted(i for i in arrays & documents if _NAME.fullmatch(i))

    def versions(self, signal: str) -> list[int]:
        """Return the versions of the files that are named as versions are, ascending."""
        names = (_VERSION.fullmatch(p.stem) for p in (self.folder(signal) / "splits").glob("v*.json"))
        return sorted(int(name[1]) for name in names if name)

    def read(self, signal: str, version: int) -> SampleSplit:
        """Return a version that is there."""
        place = self._document(signal, f"v{version}")
        try:
            document = json.loads(read_text(place, "a version of a split"))
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(
                f"JSON was expected in {place.name!r}, got {error}. Mend it, or take it away."
            ) from None
        split = SampleSplit.of(document, place.name)
        if split.version != version:  # a fault of older writers, which wrote through links
            log.warning(
                "%s: %s says that it is v%d; it is read as v%d", signal, place.name, split.version, version
            )
        return replace(split, version=version)

    def alone(self, signal: str) -> contextlib.AbstractContextManager[Any]:
        """Wait until no other process decides on these splits: lock the signal's folder, if there is one."""
        folder = self.folder(signal)
        return locked(folder) if folder.is_dir() else contextlib.nullcontext()

    def create(self, signal: str, split: SampleSplit) -> None:
        """Write ``v<n>.json`` once, and use it; `SplitExistsError` where there is one."""
        place = self._document(signal, f"v{split.version}")
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole_file(place, once=True) as partial:
                partial.write_text(_json(split))
        except FileExistsError:
            raise _taken(signal, split.version) from None
        self.activate(signal, split.version)

    def pointer(self, signal: str) -> tuple[int, int]:
        """Return the version that ``active.json`` names, and 0; 0 for none.

        It is a link to a version, a copy of one, or the text that a link becomes where there are none: ``v1.json``.
        """
        place = self._document(signal, ACTIVE)
        if not os.path.lexists(place):
            return 0, 0
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            text = read_text(place, "a pointer").strip()
            if named := _VERSION.fullmatch(re.split(r"[/\\]", text)[-1].removesuffix(".json")):
                return int(named[1]), 0
            return int(json.loads(text)["version"]), 0
        log.warning(
            "%s: a link to a version, a copy of one or the text 'v1.json' was expected in %s, got neither: the "
            "highest version is used. Call SplitManager.set_active.",
            signal, place.name,
        )  # fmt: skip
        return 0, 0

    def activate(self, signal: str, version: int) -> None:
        """Put a copy of a version in the place of ``active.json``; a link there is replaced, not followed."""
        with whole_file(self._document(signal, ACTIVE)) as partial:
            partial.write_text(_json(self.read(signal, version)))
            flush(partial)


def _json(split: SampleSplit) -> str:
    return json.dumps(split.document(), indent=1, allow_nan=False)


def _taken(signal: str, version: int) -> SplitExistsError:
    return SplitExistsError(
        f"a new version of the split of {signal!r} was expected, got v{version}, which another process wrote first. "
        "Run this again: it takes that version up."
    )


_SIDES: Final = {
    "train_samples": cv.Membership.TRAIN,
    "val_samples": cv.Membership.VAL,
    "held_back_samples": cv.Membership.HELD_BACK,
}


@dataclass(frozen=True)
class StoreBackend:
    """Sample sets of a store; versions are tables ``splits/samples/<name>/v<n>`` of ids and uint8 codes."""

    store: Store
    """The store."""

    def _key(self, signal: str) -> str:
        return "/".join((cv.SPLITS, cv.SAMPLES, checked_name(signal, "a set's name")))

    def samples(self, signal: str) -> list[str]:
        """Return the ids of a set, sorted; none of what is not there."""
        return sorted(open_samples(self.store, signal).ids) if signal in sample_sets(self.store) else []

    def versions(self, signal: str) -> list[int]:
        """Return the versions of a set's split, ascending."""
        return list(versions(self.store.place, self._key(signal)))

    def read(self, signal: str, version: int) -> SampleSplit:
        """Return a version that is there, from its ids and uint8 codes (samples,)."""
        name = f"v{version}"
        table = read_table(self.store.place, f"{self._key(signal)}/{name}")
        ids, codes = np.array(table["id"].values, object), table["code"].values
        lists = {k: ids[codes == side].tolist() for k, side in _SIDES.items()}
        return SampleSplit.of({**table.attrs, **lists}, name)

    def alone(self, signal: str) -> contextlib.AbstractContextManager[Any]:
        """Wait until no other process writes the store."""
        return writing(self.store.root, patience=PATIENCE)

    def create(self, signal: str, split: SampleSplit) -> None:
        """Write a version once, and use it; `SplitExistsError` where it is there."""
        with changed_once(self.store) as draft:
            StoreBackend(draft).enter(signal, split)

    def enter(self, signal: str, split: SampleSplit) -> None:
        """Do as `create` in a draft, as a table of ids and uint8 codes (samples,)."""
        lists = [getattr(split, name) for name in _SIDES]
        ids = np.array([i for part in lists for i in part], dtype=object)
        codes = np.repeat(np.array(list(_SIDES.values()), np.uint8), [len(part) for part in lists])
        facts = {k: v for k, v in split.document().items() if not isinstance(v, list)}
        table = xr.Dataset(
            {"id": ("sample", ids), "code": ("sample", codes)},
            attrs={**facts, "code_meanings": " ".join(m.name.lower() for m in cv.Membership)},
        )
        place = self.store.place
        ensure_groups(place, cv.SPLITS, f"{cv.SPLITS}/{cv.SAMPLES}", self._key(signal))
        try:
            write_table(place, f"{self._key(signal)}/v{split.version}", table, once=True)
        except FileExistsError:
            raise _taken(signal, split.version) from None
        self.point_at(signal, split.version)

    def pointer(self, signal: str) -> tuple[int, int]:
        """Return the active version and the highest there ever was, of the group's attributes; 0 for none.

        Raises `MissingFileError` where the active one is not there.
        """
        place, key = self.store.place, self._key(signal)
        if not (last := last_version(place, key)):
            return 0, 0
        active = int(read_node(place, key)["attributes"].get(ACTIVE, 0))
        if active and not has_node(place, f"{key}/v{active}"):
            raise MissingFileError(
                f"the active split of {signal!r} was expected at {place}/{key}/v{active}, got none. Restore it from "
                "a copy, or make another one active with SplitManager.set_active."
            )
        return active, last

    def activate(self, signal: str, version: int) -> None:
        """Name a version in the group's attributes."""
        with changed_once(self.store) as draft:
            StoreBackend(draft).point_at(signal, version)

    def point_at(self, signal: str, version: int) -> None:
        """Do as `activate` in a draft."""
        place, key = self.store.place, self._key(signal)
        last = max(version, last_version(place, key), *self.versions(signal))
        update_node(place, key, {ACTIVE: version, LAST: last})
