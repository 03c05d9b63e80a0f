"""Chips that a collection has already, against the files that are given: what is known, what changed, what is new.

A chip is known by the names of its files of backscatter, and by their bytes and times; where these differ, by its
hash. Where a folder above or below is given, names begin otherwise, and bytes and times have to be the same. The file
of a layer is known by its own; a chip that has no such layer may get it later.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sarzarr.arrays import Array
from sarzarr.ingestion.collections.files import Chips, File, by_folder
from sarzarr.ingestion.collections.read import files_hash, layer_hash
from sarzarr.store.collections import ABSENT, STAMP, Collection


@dataclass
class ChipsThere:
    """The chips of a collection, and what files that are given say of them."""

    collection: Collection | None
    """The collection; None where there is none yet."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows of files that are as they were, by their sources."""
    changed: dict[int, list[File]] = field(default_factory=dict)
    """Files of chips that changed, by their rows."""
    others: dict[int, list[File]] = field(default_factory=dict)
    """Files of layers that chips have from other pixels, by their rows."""
    present: set[int] = field(default_factory=set)
    """Rows of chips of which files are given that are there."""

    def take(self, files: Sequence[File]) -> None:
        """Look for files among those of the chips."""
        if self.collection is None:
            return
        table, by_source = self.collection.table, {file.source: file for file in files}
        by_name: dict[str, list[File]] = {}
        for file in files:
            by_name.setdefault(file.source.rpartition("/")[2], []).append(file)
        columns = (table[k].values.tolist() for k in ("source", "bytes", "modified"))
        for row, (sources, size, modified) in enumerate(zip(*columns, strict=True)):
            every = _lines(sources)
            lines = [path for layer, path in every if not (layer and self._has_stamp(row, layer))]
            if not any(path in by_source for layer, path in every if not layer):
                again = [one for line in lines if (one := _elsewhere(line, by_name)) is not None]
                if len(again) == len(lines) and self._is_same(row, again, size, modified):
                    self.rows.update({file.source: row for file in again})
                    self.present.add(row)
                continue
            own = [by_source[line] for line in lines if line in by_source]
            if len(own) == len(lines) and self._is_same(row, own, size, modified):
                self.rows.update(dict.fromkeys(lines, row))
                self.present.add(row)
            else:
                self.changed[row] = own

    def _is_same(self, row: int, files: Sequence[File], size: int, modified: int) -> bool:
        """Whether files are those of a chip: of its bytes and time, or of its bytes and hash."""
        own_size, own_modified = _stamp(files)
        if self.collection is None or own_size != size:
            return False
        return own_modified == modified or _has_hash(
            files, self.collection.table["source_hash"].values[row].tobytes()
        )

    @property
    def sources(self) -> list[dict[int, str]]:
        """The source of each chip by its row: of those whose files are given, and of the others by their folders."""
        if self.collection is None:
            return [{}]
        every = self.collection.table["source"].values.tolist()
        first = {row: source.partition("\n")[0] for row, source in enumerate(every)}
        given = {row: first[row] for row in (*self.present, *self.changed)}
        return [given, *by_folder({row: source for row, source in first.items() if row not in given})]

    def later(self, found: Mapping[int, Mapping[str, File]], *, replaces: bool) -> Chips:
        """Return the chips that get layers, with the files of these; those with another are in `others`.

        ``found`` are files of layers by the rows of chips. With ``replaces`` those of `others` are returned, too.
        """
        chips: list[tuple[str, Sequence[File], Mapping[str, File]]] = []
        for row, files in sorted(found.items()):
            new: dict[str, File] = {}
            for name, file in files.items():
                state = self._state(row, name, file)
                if state is None:
                    self.others.setdefault(row, []).append(file)
                if state or (state is None and replaces):
                    new[name] = file
            self.present.add(row)
            if new and self.collection is not None:
                chips.append((self.collection.ids[row], (), new))
        return Chips.of(chips, {name for *_, own in chips for name in own})

    def layers_of(self, rows: Iterable[int]) -> list[str]:
        """Return the layers, by the names of their files, that one of some chips has."""
        if self.collection is None:
            return []
        sources = self.collection.table["source"].values
        return sorted({layer for row in rows for layer, _ in _lines(str(sources[row])) if layer})

    def shards_of(self, ids: Sequence[str]) -> tuple[int, int]:
        """Return in how many shards chips of some ids are, and how many pixels they have."""
        if self.collection is None or not ids:
            return 0, 0
        table, parts = self.collection.table, self.collection.contents.parts
        rows = [self.collection.numbers[name] for name in ids]
        part, row, height, width = (table[k].values[rows] for k in ("part", "row", "height", "width"))
        per = np.array([one.per_shard for one in parts])[part]
        shards = np.unique(np.stack([part, row // per]), axis=1)
        return shards.shape[1], int((height * width).sum())

    def _state(self, row: int, name: str, file: File) -> bool | None:
        """Return whether the file of a layer is new to a chip; None where the chip has that layer of other pixels."""
        if self.collection is None:
            return True
        table = self.collection.table
        held = dict(_lines(str(table["source"].values[row]))).get(name)
        if held is None:
            return True
        if not self._has_stamp(row, name):  # it is told with the chip's own
            return False if self.rows.get(file.source) == row else None
        size, modified, digest = (int(column[row]) for column in self._stamps[name])
        if held == file.source and (size, modified) == (file.size, file.modified):
            return False
        hashes = (layer_hash(file.path, sampled=way) for way in (False, True))
        is_same = size == file.size and any(one == digest for one in hashes)
        return False if is_same else None

    def _has_stamp(self, row: int, layer: str) -> bool:
        return layer in self._stamps and self._stamps[layer][0][row] != ABSENT

    @cached_property
    def _stamps(self) -> dict[str, tuple[Array, ...]]:
        """The columns of each layer's file."""
        if self.collection is None:
            return {}
        table = self.collection.table
        names = self.collection.contents.stamps
        return {name: tuple(table[f"{what}_{name}"].values for what in STAMP) for name in names}


def _has_hash(files: Sequence[File], held: bytes) -> bool:
    """Whether files have a hash: of all their bytes, or, of chips that came in earlier, of samples."""
    paths = [file.path for file in files]
    return any(files_hash(paths, sampled=way) == held for way in (False, True))


def _stamp(files: Sequence[File]) -> tuple[int, int]:
    return sum(file.size for file in files), max((file.modified for file in files), default=0)


def _elsewhere(line: str, by_name: Mapping[str, Sequence[File]]) -> File | None:
    """Return the file of a name in the store where a folder above, or below, is given this time; None without."""
    for file in by_name.get(line.rpartition("/")[2], ()):
        if file.source.endswith(f"/{line}") or line.endswith(f"/{file.source}"):
            return file
    return None


def _lines(sources: str) -> list[tuple[str, str]]:
    """Return the files of a chip, each with the name of the layer that it is of, which is empty of backscatter."""
    pairs = (line.rpartition("\t") for line in sources.split("\n"))
    return [(layer, path) for layer, _, path in pairs]
