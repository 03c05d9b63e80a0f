"""Shard jobs: the units of work that write arrays, each a rectangle of whole shards.

A job crosses process boundaries, so it holds addresses and nothing open.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sarzarr import conventions as cv
from sarzarr.errors import CorruptStoreError
from sarzarr.store.documents import Encoding
from sarzarr.store.manifest import ShardRecord
from sarzarr.store.place import Folder
from sarzarr.store.shards import is_as_listed

NO_FILE: Final = ShardRecord()
"""The record of a file of which every chunk is zero, and which is not there."""


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """One rectangle of whole shards of some arrays of a scene, read from a source and written into a folder."""

    scene: str
    """The scene's id."""
    folder: str
    """The scene group that is written into: each array has a folder of its name in it."""
    encoding: Encoding
    """The encoding of the written pixels."""
    row: int
    """First row: a multiple of a file's."""
    col: int
    """First column, likewise."""
    height: int
    """Rows; fewer than whole shards only at the scene's edge."""
    width: int
    """Columns, likewise."""
    band_rows: int
    """Rows that are read at once: a multiple of the chunk."""

    @property
    def at(self) -> tuple[int, int]:
        """(row, column) of the first pixel: the job's name within its arrays."""
        return self.row, self.col

    @property
    def bands(self) -> tuple[tuple[int, int], ...]:
        """(first row, rows) of each band that is read at once."""
        end = self.row + self.height
        return tuple((row, min(self.band_rows, end - row)) for row in range(self.row, end, self.band_rows))

    def every_file(self, records: Mapping[str, ShardRecord]) -> dict[str, ShardRecord]:
        """Return a record of each file (``c/0/0``) of an array in the rectangle: `NO_FILE` of one of 0 bytes."""
        size = self.encoding.file_size
        keys = (
            f"c/{row // size}/{col // size}"
            for row in range(self.row, self.row + self.height, size)
            for col in range(self.col, self.col + self.width, size)
        )
        return {key: records.get(key, NO_FILE) for key in keys}


def check_written(
    folder: Path, records: Mapping[str, ShardRecord], grid: tuple[int, int], *, by: str = ""
) -> None:
    """Hold the files of an array's folder against the records of whoever wrote them, ``by`` name; sizes are bytes.

    ``grid`` is (rows, columns) of chunks in a file. Chunks are not read: see `is_as_listed`.

    Raises `CorruptStoreError` where one is absent or has other bytes: its worker saw another disk, or wrote it twice.
    """
    place = Folder(folder)
    for key, record in records.items():
        if not is_as_listed(place, key, grid, record):
            head = place.head(key)
            got = "none" if head is None else f"one of {head.size} that is another"
            raise CorruptStoreError(
                f"a file of {record.size} bytes was expected at {folder / key}, as {by or 'its writer'} said, "
                f"got {got}. Workers must write into the same file system, under the same path; run the same "
                "command again."
            )


def job_side(file_size: int) -> int:
    """Return the least rows and columns of a job: whole files, of about a default shard where they are small.

    >>> [job_side(size) for size in (256, 512, 768, 4096)]
    [2048, 2048, 1536, 4096]
    """
    return file_size * max(cv.SHARD // file_size, 1)


def rectangles(shape: tuple[int, int], size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Yield ``row``, ``col``, ``height``, ``width`` of the rectangles of ``size`` that cover ``shape``, in C order.

    >>> [(r["row"], r["height"]) for r in rectangles((5, 3), (2, 3))]
    [(0, 2), (2, 2), (4, 1)]
    """
    for row in range(0, shape[0], size[0]):
        for col in range(0, shape[1], size[1]):
            height, width = min(size[0], shape[0] - row), min(size[1], shape[1] - col)
            yield {"row": row, "col": col, "height": height, "width": width}
