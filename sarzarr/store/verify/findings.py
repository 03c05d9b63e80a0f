"""Findings: the files of a store that are not what they must be, and what to do about each."""

from dataclasses import dataclass, field
from typing import Any, Final

from sarzarr import conventions as cv
from sarzarr.text import counted, size_text

ROOT: Final = "zarr.json"
"""The key of the root's document, which holds copies of all others: the consolidated metadata."""


@dataclass(frozen=True, kw_only=True, order=True)
class Finding:
    """One file, or folder, of a store that is not what it must be."""

    file: str
    """Its key in the store."""
    wrong: str
    """The damage, in words."""
    remedy: str
    """The command that mends it, or the advice where none can."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of `sarzarr.verify`: the files of a store that were looked at, and the findings."""

    store: str
    """The store's address."""
    findings: tuple[Finding, ...]
    """What is wrong, sorted by file; none where the store is as it was written."""
    files: int
    """Files that were looked at."""
    size: int
    """Bytes of pixels that were held against their checksums."""
    is_deep: bool = False
    """Whether histograms and patch tables were counted again from the pixels."""
    mended: tuple[str, ...] = ()
    """Keys of the files that were repaired, or sealed."""
    left: tuple[str, ...] = field(default=())
    """Sentences on what could not be repaired, and why."""

    def __bool__(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def __str__(self) -> str:
        held = f"{counted(self.files, 'file')}, {size_text(self.size)} of pixels"
        deep = ", counted again" if self.is_deep else ""
        if not self.findings:
            return f"{self.store}: nothing is wrong ({held}{deep})"
        lines = [
            f"{self.store}: {counted(len(self.findings), 'file')} damaged or out of place ({held}{deep})"
        ]
        groups: dict[str, list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault(finding.remedy, []).append(finding)
        for remedy, some in groups.items():
            lines += [f"  {finding.file}: {finding.wrong}" for finding in some]
            lines.append(f"    {remedy}")
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it: ``files`` and ``bytes`` as counts."""
        return {
            "store": self.store,
            "files": self.files,
            "bytes": self.size,
            "deep": self.is_deep,
            "findings": [vars(finding) for finding in self.findings],
            "mended": list(self.mended),
            "left": list(self.left),
        }


@dataclass(frozen=True)
class Findings:
    """Findings as they are gathered: of each file the first counts."""

    store: str
    """The store's address, as commands take it."""
    by_file: dict[str, Finding] = field(default_factory=dict)
    """They, by the file's key."""
    _above: set[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_above", {folder for file in self.by_file for folder in with_folders(file)})

    def add(self, file: str, wrong: object, remedy: str = "") -> None:
        """Add a finding; without a ``remedy`` it is the one of all files of that kind."""
        if file not in self.by_file:
            text = remedy or remedy_of(self.store, file)
            self.by_file[file] = Finding(file=file, wrong=str(wrong), remedy=text)
            self._above.update(with_folders(file))

    def covers(self, key: str) -> bool:
        """Return whether there is one of a file, or of a folder that it is in."""
        return any(folder in self.by_file for folder in with_folders(key))

    def touches(self, key: str) -> bool:
        """Return whether there is one of a file at, below or above a key."""
        return key in self._above or self.covers(key)


def with_folders(key: str) -> list[str]:
    """Return a key and those of the folders that it is in."""
    parts = key.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def scene_in(key: str) -> str:
    """Return the scene that a file is of; empty where it is of none."""
    top, *rest = key.split("/")
    return rest[0] if top in (cv.SCENES, cv.HISTOGRAMS, cv.OVERVIEWS) and rest and rest[0] != ROOT else ""


def remedy_of(store: str, key: str) -> str:
    """Return what to do about a damaged file of a store, whose address is as commands take it."""
    top, *rest = key.split("/")
    name = rest[0] if rest else ""
    if key.endswith(ROOT):
        return (
            f"Repair it: `sarzarr verify {store} --repair`. Or seal what was changed on purpose: "
            f"`sarzarr verify {store} --accept`."
        )
    if (scene := scene_in(key)) and top != cv.OVERVIEWS:
        own = f"`sarzarr verify {store} --repair {scene} --from FILES`"
        return f"Repair it with the files that the scene was made of: {own}."
    if top == cv.SAMPLES and name:
        own = f"`sarzarr verify {store} --repair --from FOLDER`"
        again = f"`sarzarr import FORMAT FILES -o {store} --name {name} --replace`"
        return f"Repair it with the folder of its files: {own}. Or import them again: {again}."
    if top == cv.COLLECTIONS and name:
        if rest[1:2] == [cv.BOXES]:
            own = f"`sarzarr import boxes FILE -o {store} --collection {name} --name {''.join(rest[2:3])}`"
            return f"Import them again: {own}."
        gone = f"`sarzarr remove {store} --collection {name}`"
        again = f"`sarzarr ingest FOLDER -o {store} --collection {name}`"
        return (
            f"Remove it, with its boxes, labels and splits, and ingest its files again: {gone}, then {again}."
        )
    if top == cv.BOXES and name:
        own = f"`sarzarr import boxes FILE -o {store} --name {name}`"
        return f"Import them again: {own}. Those of pictures are repaired with the folder of these."
    if top == cv.SPLITS:
        return (
            f"Repair it: `sarzarr verify {store} --repair`. Or import an exported one: "
            f"`sarzarr split import {store} FILE`."
        )
    return derived(store)


def derived(store: str) -> str:
    """Return what to do about what follows from other things in a store."""
    return f"Repair it: `sarzarr verify {store} --repair`."
