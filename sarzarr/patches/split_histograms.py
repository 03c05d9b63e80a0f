"""Histograms of one side of a split, from one pass over its codes: what a clip without leak is made of.

Validation must not tell how training batches are stretched, so its pixels may not be counted. The pass is
integer counts a file of chunks; they add up in any order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.pixels.bounds import Histogram, count_half_codes
from sarzarr.pixels.kernels import half_codes_kernel, normalize_kernel
from sarzarr.pixels.radiometry import denormalize
from sarzarr.store.codecs import get_codec
from sarzarr.store.documents import Encoding
from sarzarr.store.membership import parse_choice
from sarzarr.store.shards import read_chunks
from sarzarr.store.split_table import Split, placements, read_split
from sarzarr.store.store import Store
from sarzarr.tasks import gather

BATCHES: Final = 32
"""Tasks a group: each brings back one histogram of a megabyte."""


@dataclass(frozen=True, kw_only=True)
class _File:
    """Some chunks of one file of an array, as a worker counts them."""

    codes: Path
    """The file of codes; it is absent where all are 0."""
    flags: Path
    """The file of flags; it is absent where all pixels are valid."""
    wanted: frozenset[tuple[int, int]]
    """(row, column) in the file of the chunks to count."""
    first: tuple[int, int]
    """(row, column) in the array of the file's first chunk."""
    shape: tuple[int, int]
    """Pixels of the array."""
    encoding: Encoding
    """Of the codes."""
    stored: tuple[float, float]
    """dB of 0 and 1."""


def split_histograms(store: Store, split: str = "train") -> dict[str, Histogram]:
    """Return the dB histogram of each group over the cells of one side of a split, by `bounds_key`.

    Pixels are counted that are valid and positive; the dB of a code is taken to be its middle. A group
    without a cell on that side is not there.

    Raises
    ------
    NotInStoreError
        There is no such version.
    CorruptStoreError
        A file is absent or short, or a chunk fails its checksum.
    """
    version, wanted = parse_choice(split)
    record = read_split(store.root, version)
    files: dict[str, list[_File]] = {}
    for i, key in enumerate(store.catalog["bounds_key"].values.tolist()):
        files.setdefault(key, []).extend(_files(store, i, record, wanted))
    for scene in store.scenes:
        store.check_files(scene)
    tasks = [(key, some[i::BATCHES]) for key, some in files.items() for i in range(min(BATCHES, len(some)))]
    out: dict[str, Histogram] = {}
    parts = gather([(_count_all, (batch,)) for _, batch in tasks])
    for (key, _), part in zip(tasks, parts, strict=True):
        out[key] = out.get(key, Histogram.empty()) + part
    return out


def _count_all(files: list[_File]) -> Histogram:
    return sum((_count(f) for f in files), start=Histogram.empty())


def _files(store: Store, i: int, split: Split, wanted: int) -> list[_File]:
    """Return the files of a catalog row that hold cells of a membership."""
    row: Mapping[str, Any] = {k: store.catalog[k].values[i] for k in cv.CATALOG_SCHEMA}
    known = split.by_scene.get(str(row["scene"]))
    now = placements(store.root, store.catalog.isel(array=[i]))[str(row["scene"])]
    if known is None or known.grid != now.fingerprint:
        return []
    encoding = Encoding(
        dtype=str(row["dtype"]), codec=str(row["codec"]), chunk=int(row["chunk"]), shard=int(row["shard"])
    )
    per = encoding.file_size // encoding.chunk
    chunks = np.argwhere(_chunks_within(known.codes == wanted, encoding.chunk, (now.height, now.width)))
    by_file: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for r, c in chunks.tolist():
        by_file.setdefault((r // per, c // per), set()).add((r % per, c % per))
    folder = store.root / cv.SCENES / str(row["scene"])
    return [
        _File(
            codes=folder / str(row["name"]) / "c" / str(r) / str(c),
            flags=folder / str(row["flags"]) / "c" / str(r) / str(c),
            wanted=frozenset(within),
            first=(r * per, c * per),
            shape=(now.height, now.width),
            encoding=encoding,
            stored=(float(row["vmin"]), float(row["vmax"])),
        )
        for (r, c), within in by_file.items()
    ]


def _chunks_within(cells: Array, chunk: int, shape: tuple[int, int]) -> Array:
    """Return which chunks lie in wanted cells alone; chunks are cells, unless a store says otherwise."""
    if chunk == cv.CELL:
        return cells
    lines = [(np.arange(0, n, chunk), np.minimum(np.arange(0, n, chunk) + chunk, n) - 1) for n in shape]
    missing = np.pad(np.cumsum(np.cumsum(~cells, axis=0), axis=1), ((1, 0), (1, 0)))
    (top, bottom), (left, right) = ((a // cv.CELL, b // cv.CELL + 1) for a, b in lines)
    corners = (np.ix_(bottom, right), np.ix_(top, right), np.ix_(bottom, left), np.ix_(top, left))
    counts = [missing[at] for at in corners]
    none: Array = counts[0] - counts[1] - counts[2] + counts[3] == 0
    return none


def _count(file: _File) -> Histogram:
    """Count the wanted chunks of one file."""
    chunk, wanted = file.encoding.chunk, set(file.wanted)
    flags = dict(
        _chunks(file.flags, file, get_codec(cv.FLAGS_CODEC), np.zeros((chunk, chunk), np.uint8), wanted)
    )
    counts = np.zeros(cv.HISTOGRAM_BINS, np.int64)
    nodata = nonpositive = 0
    like = np.zeros((chunk, chunk), file.encoding.dtype)
    to_half = _half_codes(file)
    codes = _chunks(file.codes, file, get_codec(file.encoding.codec), like, wanted)
    seen: set[tuple[int, int]] = set()
    for at, values in codes:
        seen.add(at)
        _add(counts, to_half(values), flags.get(at), file, at)
    for at in wanted - seen:  # chunks of zeros are not stored
        _add(counts, np.zeros((chunk, chunk), np.int32), flags.get(at), file, at)
    for at, coded in flags.items():
        inside = coded[
            : file.shape[0] - (file.first[0] + at[0]) * chunk,
            : file.shape[1] - (file.first[1] + at[1]) * chunk,
        ]
        nonpositive += int(np.count_nonzero(inside == cv.Flag.NONPOSITIVE))
        nodata += int(np.count_nonzero(inside >= cv.Flag.NODATA))
    return Histogram(counts=counts, nonpositive=nonpositive, nodata=nodata)


def _chunks(path: Path, file: _File, codec: Any, like: Array, wanted: set[tuple[int, int]]) -> Any:
    """Yield ((row, column), values) of the wanted chunks of a file that it holds; values are fresh."""
    if path.exists():
        for row, col, values in read_chunks(path, file.encoding.grid, codec, like, wanted):
            yield (row, col), values.copy() if like.dtype == np.uint8 else values


def _add(counts: Array, half: Array, flags: Array | None, file: _File, at: tuple[int, int]) -> None:
    """Count the pixels of a chunk that are within the array, valid and positive."""
    chunk = file.encoding.chunk
    rows, cols = (n - (f + a) * chunk for n, f, a in zip(file.shape, file.first, at, strict=True))
    half = half[:rows, :cols]
    count_half_codes(half if flags is None else half[flags[:rows, :cols] == cv.Flag.VALID], counts)


def _half_codes(file: _File) -> Any:
    """Return the function from stored values to histogram bins (int32)."""
    is_whole = file.stored == cv.STORED_RANGE
    if file.encoding.dtype == "uint16":
        codes = np.arange(cv.MAX_CODE + 1, dtype=np.int32)
        table = 2 * codes
        if not is_whole:
            db = denormalize(codes.astype(np.float32) / np.float32(cv.MAX_CODE), file.stored)
            table = half_codes_kernel(normalize_kernel(db, cv.STORED_RANGE))
        return table.__getitem__

    def from_floats(values: Array) -> Array:
        z = values.astype(np.float32)
        return half_codes_kernel(
            z if is_whole else normalize_kernel(denormalize(z, file.stored), cv.STORED_RANGE)
        )

    return from_floats
