"""The averages of blocks of pixels, in linear power: the pixels of levels, a rectangle of whole files at a time.

A job reads its rectangle of the scene once, in bands, and gives the pixels of every level in it: blocks of all levels
lie in it whole. Those of the first level are whole files; those of the others are kept in parts, of which later jobs
make whole files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.files import whole_file
from sarzarr.pixels.radiometry import denormalize, from_db, normalize, to_codes, to_db
from sarzarr.pixels.scaling import powers_of_codes
from sarzarr.store.manifest import ShardRecord
from sarzarr.store.shard_job import ShardJob, job_side
from sarzarr.store.shards import ArrayFiles
from sarzarr.store.stored_pixels import StoredPixels

TOLERANCE: Final = {"uint16": 1.0, "float32": 1 / cv.STEPS, "float16": 2.0**-10}
"""The difference of stored values, by dtype, that the rounding of another machine may make: a code, about."""


@dataclass(frozen=True, kw_only=True)
class LevelJob(ShardJob):
    """A rectangle of whole files of one level of an array; rows and columns are the level's."""

    name: str
    """The array's name."""
    level: int
    """The level that is written; the first one's jobs read the scene."""
    levels: int
    """The last level."""
    values: StoredPixels
    """The array's codes in its scene."""
    coverage: StoredPixels | None
    """Its flags; None where they say of no pixel that its power is nonpositive."""
    stored: tuple[float, float]
    """dB that 0 and 1 stand for."""
    parts: str
    """The folder of the parts of levels that jobs of the first one leave."""

    @property
    def part(self) -> int:
        """Rows and columns of a part of its level."""
        return job_side(self.encoding.file_size) >> (self.level - 1)

    def part_path(self, level: int, row: int, col: int) -> Path:
        """Return the file of the part of a level whose first pixel is at (row, column) of it."""
        return Path(self.parts, f"{self.name}-{level}-{row}-{col}.npy")


Written = tuple[LevelJob, dict[str, ShardRecord] | Exception]
"""A job, and the records of the files of its rectangle, or what went wrong."""


def write_level(job: LevelJob) -> Written:
    """Write the files of a job, and of the first level the parts of the others; an error is a value."""
    try:
        with ArrayFiles(Path(job.folder, str(job.level), job.name), job.encoding) as files:
            if job.level > 1:
                _write_chunks(files, _joined(job), job.row, job.col)
            else:
                for level, row, codes in averaged(job):
                    if level == 1:
                        _write_chunks(files, codes, row, job.col)
                        continue
                    with (
                        whole_file(job.part_path(level, row, job.col >> (level - 1))) as partial,
                        partial.open("wb") as out,
                    ):
                        np.save(out, codes)
            return job, job.every_file(files.close())
    except Exception as error:
        return job, error


def averaged(job: LevelJob) -> Iterator[tuple[int, int, Array]]:
    """Yield (level, first row, stored values (rows, columns)) of the levels of a first level's rectangle.

    The first level comes in bands. Raises `CorruptStoreError` where the scene is damaged.
    """
    height, width = job.values.shape
    columns, above = slice(2 * job.col, min(2 * (job.col + job.width), width)), list[Array]()
    for row, rows in job.bands:
        sums = halved(_sums(job, (slice(2 * row, min(2 * (row + rows), height)), columns)))
        yield 1, row, _stored(sums, job)
        if job.levels > 1:
            above.append(halved(sums))
    if not above:
        return
    sums = np.concatenate(above, axis=1)
    above.clear()
    for level in range(2, job.levels + 1):
        yield level, job.row >> (level - 1), _stored(sums, job)
        sums = halved(sums)


def _sums(job: LevelJob, window: tuple[slice, slice]) -> Array:
    """Return (2, rows, columns) float32 of a window of the scene: linear power, 0 where not valid, and validity."""
    values = job.values.read(window)
    sums = power_and_validity(values, job.stored)
    if job.coverage is not None:
        sums[0][job.coverage.read(window) == cv.Flag.NONPOSITIVE] = 0
    return sums


def power_and_validity(values: Array, stored: tuple[float, float]) -> Array:
    """Return (2, rows, columns) float32 of stored values: linear power, 0 where not valid, and 1 where it is."""
    sums = np.empty((2, *values.shape), np.float32)
    if values.dtype == np.uint16:
        np.take(_powers(stored), values, out=sums[0], mode="wrap")  # no code is out of it: no check, no copy
        np.not_equal(values, cv.NOT_MEASURED, out=sums[1])
    else:
        sums[0] = from_db(denormalize(values.astype(np.float32), stored))
        np.isfinite(sums[0], out=sums[1])
        np.nan_to_num(sums[0], copy=False)
    return sums


@lru_cache(maxsize=8)
def _powers(stored: tuple[float, float]) -> Array:
    """Return (65536,) float32: the linear power of each code, 0 of what was not measured."""
    return np.nan_to_num(powers_of_codes(stored))


def halved(sums: Array) -> Array:
    """Return (planes, rows, columns) added up over blocks of 2 x 2; the last row and column add what is there.

    >>> halved(np.arange(6.0).reshape(1, 2, 3))
    array([[[8., 7.]]])
    """
    _, rows, columns = sums.shape
    if rows % 2 or columns % 2:
        sums = np.pad(sums, ((0, 0), (0, rows % 2), (0, columns % 2)))
    tall = sums[:, ::2] + sums[:, 1::2]
    out: Array = tall[:, :, ::2] + tall[:, :, 1::2]
    return out


def mean_power(sums: Array) -> Array:
    """Return the mean power (rows, columns) of (2, rows, columns) of its sums and counts; NaN where none is valid."""
    with np.errstate(invalid="ignore"):
        mean: Array = sums[0] / sums[1]
    return mean


def _stored(sums: Array, job: LevelJob) -> Array:
    z = normalize(to_db(mean_power(sums)), job.stored)
    return to_codes(z) if job.encoding.dtype == "uint16" else z.astype(job.encoding.dtype)


def _joined(job: LevelJob) -> Array:
    """Return the pixels of a job of a higher level, of the parts that lie in it."""
    out = np.full((job.height, job.width), job.encoding.fill)
    for row in range(job.row, job.row + job.height, job.part):
        for col in range(job.col, job.col + job.width, job.part):
            with job.part_path(job.level, row, col).open("rb") as file:
                part = np.lib.format.read_array(file, allow_pickle=False)
            top, left = row - job.row, col - job.col
            out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out


def _write_chunks(files: ArrayFiles, codes: Array, row: int, col: int) -> None:
    """Write the chunks of pixels whose first one is at (row, column), the first of a chunk."""
    size, fill = files.encoding.chunk, files.encoding.fill
    for top in range(0, codes.shape[0], size):
        for left in range(0, codes.shape[1], size):
            part, chunk = codes[top : top + size, left : left + size], np.full((size, size), fill)
            chunk[: part.shape[0], : part.shape[1]] = part
            files.write((row + top) // size, (col + left) // size, chunk)
        files.close_above((row + top) // size + 1)


def count_differing(job: LevelJob, levels: tuple[StoredPixels, ...]) -> int:
    """Return how many pixels of levels, in the rectangle of a job of the first one, are not what the scene gives.

    A stored value may be off by `TOLERANCE`. Raises `CorruptStoreError` where one of both is damaged.
    """
    wrong, most = 0, TOLERANCE[job.encoding.dtype]
    for level, row, codes in averaged(job):
        col = job.col >> (level - 1)
        window = slice(row, row + codes.shape[0]), slice(col, col + codes.shape[1])
        kept = levels[level - 1].read(window)
        told, given = _measured(kept), _measured(codes)
        far = np.abs(told.astype(np.float32) - given) > most
        wrong += int(np.count_nonzero(far | (np.isnan(told) != np.isnan(given))))
    return wrong


def _measured(values: Array) -> Any:
    """Return stored values as float32, NaN where not measured."""
    out = values.astype(np.float32)
    if values.dtype == np.uint16:
        out[values == cv.NOT_MEASURED] = np.nan
    return out
