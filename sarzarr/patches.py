"""Patch indices: a table of what can be trained on, found once, so that filters never touch pixels.

A patch is a window of one array. Its row holds where it is and what four counts over its pixels say;
the counts are integers of codes, so a table does not depend on how the work was cut.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.codecs import get_codec
from sarzarr.compiled import Loops
from sarzarr.documents import Encoding
from sarzarr.errors import InvalidInputError
from sarzarr.fused import loops_for
from sarzarr.radiometry import denormalize
from sarzarr.scheduling import Task, gather
from sarzarr.shards import read_stored
from sarzarr.store import Store, consolidate, open_store
from sarzarr.tables import read_table, write_table

Pixels = np.ndarray[Any, Any]
EDGES: Final = ("drop", "shift", "pad")
SATURATED: Final = (0.01, 0.99)
"""A pixel is unsaturated strictly between these values of the clipped [0, 1]."""
SLAB_COLUMNS: Final = 2048
"""Columns that are worked on at once: what bounds the memory of a task."""
TASK_PIXELS: Final = 2**25
"""Pixels that one task looks at, about."""


@dataclass(frozen=True, kw_only=True)
class IndexSpec:
    """How an index cuts arrays into patches."""

    name: str = cv.DEFAULT_INDEX
    """The table's name in ``patches/``."""
    size: int = cv.CHUNK
    """Rows and columns of a patch."""
    stride: int = cv.CHUNK
    """Pixels from one patch to the next."""
    edge: str = "drop"
    """Remainders at right and bottom: ``drop`` them, ``shift`` the last patch inward, or ``pad`` it."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.stride < 1:
            raise InvalidInputError(f"size and stride must be at least 1, got {self.size} and {self.stride}.")
        if self.edge not in EDGES:
            raise InvalidInputError(f"edge must be one of {', '.join(EDGES)}, got {self.edge!r}.")


def positions(length: int, spec: IndexSpec) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return the first pixels of the patches along an axis of ``length`` pixels, ascending.

    >>> positions(700, IndexSpec()).tolist()
    [0, 256]
    >>> positions(700, IndexSpec(edge="shift")).tolist()
    [0, 256, 444]
    >>> positions(700, IndexSpec(edge="pad")).tolist()
    [0, 256, 512]
    """
    whole = range(0, length - spec.size + 1, spec.stride)
    starts = list(whole)
    covered = starts[-1] + spec.size if starts else 0
    if covered < length and spec.edge == "shift" and length >= spec.size:
        starts.append(length - spec.size)
    elif spec.edge == "pad":
        following = starts[-1] + spec.stride if starts else 0
        starts += [following] if covered < length and following < length else []
    return np.array(starts, np.int32)


def patch_ids(
    scene: str, array: str, size: int, row: Pixels, col: Pixels
) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return stable 64-bit ids of patches: a hash of scene, array, size, row and column, the same everywhere."""
    return _mixed(
        (row.astype(np.uint64) << np.uint64(32)) ^ col.astype(np.uint64) ^ _seed(scene, array, size)
    )


def sample_ids(place: str, ids: Iterable[str], size: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return those of whole samples: `patch_ids` of each as if it were an array, at row and column 0."""
    return _mixed(np.array([_seed(place, one, size) for one in ids], np.uint64))


def _seed(scene: str, array: str, size: int) -> np.uint64:
    digest = blake2b(f"{scene}/{array}/{size}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _mixed(mixed: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    # The finalizer of splitmix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195): a bijection.
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


# ------------------------------------------------------------------ one array
@dataclass(frozen=True, kw_only=True)
class _Owner:
    """One array of a scene, as a worker looks at it."""

    root: str
    scene: str
    array: str
    shape: tuple[int, int]
    encoding: Encoding
    stored: tuple[float, float]
    clip: tuple[float, float]

    def window(self, name: str, codec: str, window: tuple[slice, slice], out: Pixels) -> None:
        """Read a window of the codes or the flags into ``out``, 0 beyond the array's right and bottom edge."""
        rows, cols = window
        bottom, right = min(rows.stop, self.shape[0]), min(cols.stop, self.shape[1])
        height, width = bottom - rows.start, right - cols.start
        out[height:], out[:, width:] = 0, 0
        read_stored(
            Path(self.root) / cv.SCENES / self.scene / name,
            grid=self.encoding.grid,
            codec=get_codec(codec),
            like=np.empty((self.encoding.chunk, self.encoding.chunk), out.dtype),
            window=(slice(rows.start, bottom), slice(cols.start, right)),
            out=out[:height, :width],
        )


class _Room:
    """Arrays that a task works in, one slab after another: see `sarzarr.tiles`, which does the same."""

    def __init__(self, dtype: str, height: int, width: int, fast: Loops | None) -> None:
        self.fast = fast
        self.codes = np.empty((height, width), dtype)
        self.flags = np.empty((height, width), np.uint8)
        self.values = np.empty((height, width), np.float64)
        self.shifted = np.empty((height, width), dtype)
        self.mask = np.empty((height, width), bool)


def _row_of_patches(owner: _Owner, spec: IndexSpec, row: int, cols: Pixels, room: _Room) -> Pixels:
    """Return (5, patches): pixels that are valid, unsaturated and lit; sum and sum of squares of lit values.

    Lit is valid and positive. Columns are added up first, over many patches in one call, and each
    patch is a difference of running totals. Codes are integers whose sums of squares stay below 2**53,
    so that float64 is exact and no order of adding changes them.
    """
    between = _unsaturated_values(owner)
    out = np.empty((5, len(cols)), np.float64)
    rows = slice(row, row + spec.size)
    per_slab = _per_slab(spec)
    for first in range(0, len(cols), per_slab):
        some = cols[first : first + per_slab]
        columns = slice(int(some[0]), int(some[-1]) + spec.size)
        width = columns.stop - columns.start
        flags = room.flags[:, :width]
        owner.window(owner.array, owner.encoding.codec, (rows, columns), room.codes[:, :width])
        owner.window(owner.array + cv.FLAGS_SUFFIX, cv.FLAGS_CODEC, (rows, columns), flags)
        flags[max(owner.shape[0] - row, 0) :] = cv.Flag.NODATA
        flags[:, max(owner.shape[1] - columns.start, 0) :] = cv.Flag.NODATA
        totals = np.zeros((5, width + 1), np.float64)
        np.cumsum(_columns(room, width, between), axis=1, out=totals[:, 1:])
        at = some - columns.start
        out[:, first : first + len(some)] = totals[:, at + spec.size] - totals[:, at]
    return out


def _per_slab(spec: IndexSpec) -> int:
    """Return how many patches side by side are worked on at once."""
    return max(SLAB_COLUMNS // spec.stride, 1)


def _columns(room: _Room, width: int, between: tuple[Any, Any]) -> Pixels:
    """Return the counts and sums of `_row_of_patches` of each of the first ``width`` columns of ``room``."""
    codes, flags, values, unsaturated, shifted = (
        array[:, :width] for array in (room.codes, room.flags, room.values, room.mask, room.shifted)
    )
    out = np.empty((5, width), np.float64)
    low, span = between
    is_clean = not flags.any()
    fast = room.fast if is_clean and len(codes) < 2**16 else None
    if fast is not None:
        out[0] = out[2] = codes.shape[0]
        if codes.dtype == np.uint16:
            out[1], out[3], out[4] = fast.column_sums(room.codes, width, low, span)
            return out
        if codes.dtype == np.float32:
            out[1], out[3], out[4] = fast.float_column_sums(room.codes, width, low, span)
            return out
    if codes.dtype.kind == "u":
        np.less_equal(np.subtract(codes, low, out=shifted), span, out=unsaturated)
    else:
        np.greater(codes, low, out=unsaturated)
        unsaturated &= codes < span
    np.copyto(values, codes)
    if not is_clean:
        lit = flags == cv.Flag.VALID
        unsaturated &= lit
        values *= lit
        out[0], out[2] = _true(flags < cv.Flag.NODATA), _true(lit)
    else:
        out[0] = out[2] = codes.shape[0]
    out[1] = _true(unsaturated)
    np.add.reduce(values, axis=0, out=out[3])
    np.add.reduce(np.square(values, out=values), axis=0, out=out[4])
    return out


def _true(mask: Pixels) -> Pixels:
    """Return how many are True in each column: added up in bytes, 255 rows at a time, which is fastest."""
    counts = (
        np.add.reduce(mask[i : i + 255].view(np.uint8), dtype=np.uint8) for i in range(0, len(mask), 255)
    )
    return sum(counts, start=np.zeros(mask.shape[1], np.int64))


def _unsaturated_values(owner: _Owner) -> tuple[Any, Any]:
    """Return what stored values lie strictly between 1 % and 99 % of the clip.

    For codes (first, last - first), so that one wrapping subtraction and one comparison tell; for
    floats the two ends.
    """
    (vmin, vmax), (low, high) = owner.stored, owner.clip
    at = [(low + share * (high - low) - vmin) / (vmax - vmin) for share in SATURATED]
    if owner.encoding.dtype != "uint16":
        return at[0], at[1]
    first = min(max(math.floor(at[0] * cv.MAX_CODE) + 1, 0), cv.MAX_CODE)
    last = min(max(math.ceil(at[1] * cv.MAX_CODE) - 1, first), cv.MAX_CODE)
    return np.uint16(first), np.uint16(last - first)


def _measure(owner: _Owner, spec: IndexSpec, rows: Pixels, cols: Pixels) -> dict[str, Pixels]:
    """Return the columns of the patches at every (row, col), row by row."""
    room = _Room(
        owner.encoding.dtype,
        spec.size,
        (_per_slab(spec) - 1) * spec.stride + spec.size,
        loops_for(len(rows) * len(cols) * spec.size**2),
    )
    counted = np.concatenate([_row_of_patches(owner, spec, int(r), cols, room) for r in rows], axis=1)
    valid, unsaturated, lit, total, squares = counted
    pixels = spec.size * spec.size
    with np.errstate(invalid="ignore", divide="ignore"):  # a patch without a lit pixel has no mean
        mean = total / lit
        std = np.sqrt(np.maximum(squares / lit - mean * mean, 0))
    scale = cv.MAX_CODE if owner.encoding.dtype == "uint16" else 1.0
    vmin, vmax = owner.stored
    row, col = (v.reshape(-1) for v in np.meshgrid(rows, cols, indexing="ij"))
    return {
        "row": row.astype(np.int32),
        "col": col.astype(np.int32),
        "id": patch_ids(owner.scene, owner.array, spec.size, row, col),
        "valid_fraction": (valid / pixels).astype(np.float32),
        "unsaturated_fraction": (unsaturated / pixels).astype(np.float32),
        "mean_db": denormalize(mean / scale, owner.stored).astype(np.float32),
        "std_db": (std / scale * (vmax - vmin)).astype(np.float32),
    }


# ------------------------------------------------------------------ the table
COLUMNS: Final[Mapping[str, str]] = {
    "row": "i4",
    "col": "i4",
    "id": "u8",
    "valid_fraction": "f4",
    "unsaturated_fraction": "f4",
    "mean_db": "f4",
    "std_db": "f4",
}
"""The columns over ``patch``, besides ``owner``, and their dtypes."""


def index_patches(
    store: Store | str | Path,
    *,
    size: int = cv.CHUNK,
    stride: int = cv.CHUNK,
    edge: str = "drop",
    name: str = cv.DEFAULT_INDEX,
) -> xr.Dataset:
    """Make, or bring up to date, a patch index in one pass over codes and flags; return its table.

    Parameters
    ----------
    store
        The store.
    size, stride
        Pixels of a patch, and from one to the next.
    edge
        ``drop`` the remainders at right and bottom (they are counted in the attrs), ``shift`` the last
        patch inward, or ``pad`` it: its pixels beyond the edge are not valid.
    name
        The table's name. A table of that name with another size, stride or edge is replaced.

    Returns
    -------
    xarray.Dataset
        `Store.patches` of it: scene, array, row, col, id, valid_fraction, unsaturated_fraction (of all
        pixels, strictly inside 1 % and 99 % of the clip), mean_db and std_db (of the valid, positive
        pixels; NaN where there is none).
    """
    opened = store if isinstance(store, Store) else open_store(store)
    update_index(opened, IndexSpec(name=name, size=size, stride=stride, edge=edge))
    consolidate(opened)
    return open_store(opened.root).patches(name)


def update_index(store: Store, spec: IndexSpec) -> None:
    """Index the arrays that the table does not know, or knows with other pixels or another clip."""
    place = store.root / cv.PATCHES / spec.name
    old = _same_cut(place, spec)
    known = {} if old is None else _by_owner(old)
    wanted = {_stamp(store, i): i for i in range(store.catalog.sizes["array"])}
    if old is not None and list(known) == list(wanted):
        return
    fresh = _measure_all(store, spec, {s: i for s, i in wanted.items() if s not in known})
    parts = {stamp: known.get(stamp) or fresh[stamp] for stamp in wanted}
    lost = sum(_lost(store, i, spec) for i in range(store.catalog.sizes["array"]))
    write_table(place, _table(parts, spec, lost))


def update_indices(store: Store) -> None:
    """Bring every index up to date, the default one too where there is none."""
    for name in sorted({cv.DEFAULT_INDEX, *store.patch_indices}):
        folder = store.root / cv.PATCHES / name
        update_index(store, spec_of(folder) if folder.exists() else IndexSpec(name=name))


def spec_of(folder: Path) -> IndexSpec:
    """Return how the table at ``folder`` was cut."""
    cut = read_table(folder).attrs
    return IndexSpec(name=folder.name, size=cut["size"], stride=cut["stride"], edge=cut["edge"])


def _stamp(store: Store, row: int) -> tuple[str, str, str]:
    """(scene, array, what its statistics depend on: its own and its flags' files, and the clip) of a catalog row."""
    scene, name, flags, key = (
        str(store.catalog[k].values[row]) for k in ("scene", "name", "flags", "bounds_key")
    )
    clip, folder = store.bounds[key], store.root / cv.SCENES / scene
    files = hashlib.blake2b(digest_size=8)
    for array in (name, flags):
        files.update((folder / array / cv.MANIFEST).read_bytes())
    return scene, name, f"{files.hexdigest()} {clip.clip_vmin!r} {clip.clip_vmax!r}"


def _same_cut(place: Path, spec: IndexSpec) -> xr.Dataset | None:
    """Return the table at ``place`` if it was cut the same way."""
    if not (place / "zarr.json").exists():
        return None
    table = read_table(place)
    cut = {k: table.attrs.get(k) for k in ("size", "stride", "edge")}
    return table if cut == {"size": spec.size, "stride": spec.stride, "edge": spec.edge} else None


def _by_owner(table: xr.Dataset) -> dict[tuple[str, str, str], dict[str, Pixels]]:
    """Return a table's columns by owner."""
    ends = np.searchsorted(table["owner"].values, np.arange(table.sizes["array"] + 1))
    stamps = zip(*(table[f"owner_{k}"].values.tolist() for k in ("scene", "array", "stamp")), strict=True)
    return {
        stamp: {k: table[k].values[ends[i] : ends[i + 1]] for k in COLUMNS} for i, stamp in enumerate(stamps)
    }


def _measure_all(
    store: Store, spec: IndexSpec, rows: Mapping[tuple[str, str, str], int]
) -> dict[tuple[str, str, str], dict[str, Pixels]]:
    """Measure the patches of some catalog rows, in parallel."""
    tasks: list[Task] = []
    names = []
    for scene in sorted({scene for scene, *_ in rows}):
        store.check_files(scene)
    for stamp, i in rows.items():
        owner = _owner(store, i)
        tops, lefts = (positions(n, spec) for n in owner.shape)
        if not len(tops) or not len(lefts):
            continue
        per_task = max(TASK_PIXELS // (owner.shape[1] * spec.size), 1)
        for part in np.array_split(tops, math.ceil(len(tops) / per_task)):
            tasks.append((_measure, (owner, spec, part, lefts)))
            names.append(stamp)
    out: dict[tuple[str, str, str], list[dict[str, Pixels]]] = {stamp: [] for stamp in rows}
    for stamp, part in zip(names, gather(tasks), strict=True):
        out[stamp].append(part)
    return {stamp: _concatenated(parts) for stamp, parts in out.items()}


def _concatenated(parts: list[dict[str, Pixels]]) -> dict[str, Pixels]:
    return {k: np.concatenate([np.empty(0, t), *(p[k] for p in parts)]).astype(t) for k, t in COLUMNS.items()}


def _owner(store: Store, i: int) -> _Owner:
    row = {k: store.catalog[k].values[i] for k in cv.CATALOG_SCHEMA}
    clip = store.bounds[row["bounds_key"]]
    return _Owner(
        root=str(store.root),
        scene=str(row["scene"]),
        array=str(row["name"]),
        shape=(int(row["height"]), int(row["width"])),
        encoding=Encoding(
            dtype=str(row["dtype"]), codec=str(row["codec"]), chunk=int(row["chunk"]), shard=int(row["shard"])
        ),
        stored=(float(row["vmin"]), float(row["vmax"])),
        clip=(clip.clip_vmin, clip.clip_vmax),
    )


def _lost(store: Store, i: int, spec: IndexSpec) -> int:
    """Return how many patches of an array, the ragged ones, the table leaves out."""
    shape = (int(store.catalog[k].values[i]) for k in ("height", "width"))
    padded = IndexSpec(size=spec.size, stride=spec.stride, edge="pad")
    counts = [(len(positions(n, padded)), len(positions(n, spec))) for n in shape]
    return math.prod(c[0] for c in counts) - math.prod(c[1] for c in counts)


def _table(parts: Mapping[tuple[str, str, str], dict[str, Pixels]], spec: IndexSpec, lost: int) -> xr.Dataset:
    lengths = [len(p["row"]) for p in parts.values()]
    owner = np.repeat(np.arange(len(parts), dtype=np.int32), lengths)
    columns: dict[str, Any] = {"owner": ("patch", owner)}
    columns |= {k: ("patch", v) for k, v in _concatenated(list(parts.values())).items()}
    for at, name in enumerate(("scene", "array", "stamp")):
        columns[f"owner_{name}"] = ("array", _text([stamp[at] for stamp in parts]))
    attrs = {"size": spec.size, "stride": spec.stride, "edge": spec.edge, "dropped": lost}
    return xr.Dataset(columns, attrs=attrs)


def _text(values: Iterable[str]) -> Pixels:
    return np.array(list(values), dtype="T")
