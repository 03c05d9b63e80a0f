"""Clip bounds of a store: recommended by its histograms, and set.

A clip is a number in the metadata that is applied while a patch is read. Setting one touches no pixel.
Validation must not decide how training batches are stretched: of a split, the pixels of one side can be counted
alone, in one pass over its codes. The pass is integer counts, which add up in any order.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.patches.chip_histograms import chip_arrays, chip_histogram
from sarzarr.patches.index import update_indices
from sarzarr.patches.stored_array import StoredArray
from sarzarr.pixels.bounds import Histogram, clip_bounds_from_histogram, count_half_codes
from sarzarr.pixels.kernels import half_codes_kernel, normalize_kernel
from sarzarr.pixels.radiometry import denormalize
from sarzarr.store.catalog import catalog_rows
from sarzarr.store.commit import changing, put_in_order, write_bounds
from sarzarr.store.shard_job import job_side, rectangles
from sarzarr.store.split_table import Split, read_side
from sarzarr.store.store import AnyStore, BoundsEntry, Store, open_store
from sarzarr.tasks import gather

BATCHES: Final = 32
"""Tasks per group: each brings back one histogram of a megabyte."""
Side = str | tuple[Split, cv.Membership]
"""One side of a split: ``train``, ``v2:train``, or a split and a membership."""
_Part = tuple[StoredArray, dict[str, Any], Array]
"""An array, a rectangle of it as `rectangles` yields them, and (rows, columns) bool: its cells that are counted."""


def recommend_clips(
    store: Store,
    keys: set[str],
    *,
    split: Side | None = None,
    among: Iterable[Mapping[str, Any]] | None = None,
    **method: Any,
) -> dict[str, BoundsEntry]:
    """Return groups with the clip (dB) that their histograms recommend; nothing is written.

    Every scene and chip of a group, by `bounds_key`, counts, pixel by pixel; with ``split`` (``train``, ``v2:train``,
    or a split of scenes and a membership) the ground of one side alone, of chips by the split of their collection,
    in one pass over its codes. ``among`` are the rows of the catalog that the groups have, where not all are to be
    looked at. ``method`` are arguments of `clip_bounds_from_histogram`: by default percentiles 1 and 99 of the pixels
    that are valid and positive.

    Raises `InvalidInputError` where a group is not in the store, or has no valid pixel on that side.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in catalog_rows(store.catalog) if among is None else among:
        rows.setdefault(row["bounds_key"], []).append(dict(row))
    chips = {} if isinstance(split, tuple) else chip_arrays(store, keys)
    if unknown := keys - set(rows) - set(chips):
        known, got = ", ".join(sorted({*rows, *store.bounds})), ", ".join(sorted(unknown))
        raise InvalidInputError(f"groups must be among {known}, got {got}. Name some of these.")
    of_scenes = keys & set(rows)
    of_split = None if split is None or not of_scenes else split_histograms(store, split, of_scenes)
    entries = {}
    for key in sorted(keys):
        if split is None:
            parts = (store.histogram(row["scene"], row["name"]) for row in rows.get(key, ()))
            histogram = sum(parts, start=Histogram.empty())
        else:
            histogram = (of_split or {}).get(key, Histogram.empty())
        side = split if isinstance(split, str) else None
        for made, array in chips.get(key, ()):
            histogram = histogram + chip_histogram(made, array, side)
        if split is not None and not histogram.n_valid:
            raise InvalidInputError(
                f"valid pixels of {key} in {_name(split)!r} were expected, got none. "
                "Name the other groups, or extend the split."
            )
        clip = clip_bounds_from_histogram(histogram, **method)
        entries[key] = BoundsEntry(
            vmin=float(rows[key][0]["vmin"]) if key in rows else chips[key][0][1].vmin,
            vmax=float(rows[key][0]["vmax"]) if key in rows else chips[key][0][1].vmax,
            clip_vmin=clip.vmin,
            clip_vmax=clip.vmax,
            clip_method=(clip.description or clip.method) + ("" if split is None else f" of {_name(split)}"),
        )
    return entries


def set_clip(
    store: AnyStore, groups: Iterable[str] | None = None, *, split: str | None = None, **method: Any
) -> Store:
    """Set the clip (dB) of groups, bring attrs and patch indices up to date, and return the store, opened anew.

    Groups are named by `bounds_key` (``vv/sigma0``); all of them if left out. With ``split`` (``train``) the ground
    of one side is counted alone, so that validation does not leak. ``method`` are arguments of
    `clip_bounds_from_histogram`: ``method="percentile"`` with ``low_pct`` and ``high_pct``, ``"fixed"`` with ``vmin``
    and ``vmax``, or ``"sigma"`` with ``k``.
    """
    opened = open_store(store)
    with changing(opened) as draft:
        keys = set(draft.bounds) if groups is None else set(groups)
        clips = recommend_clips(draft, keys, split=split, **method)
        put_in_order(draft)
        other = {key for key, clip in clips.items() if draft.bounds.get(key) != clip}
        rows = [row for row in catalog_rows(draft.catalog) if row["bounds_key"] in other] if other else ()
        update_indices(write_bounds(draft, clips, rows))
    return opened.anew()


def _name(side: Side) -> str:
    return side if isinstance(side, str) else side[1].name.lower()


def split_histograms(
    store: Store, split: Side = "train", keys: set[str] | None = None
) -> dict[str, Histogram]:
    """Return the dB histogram of each group, or of those of ``keys``, over the cells of one side of a split.

    Pixels are counted that are valid and positive; the dB of a code is taken to be its middle. A group
    without a cell on that side is not there.

    Raises `NotInStoreError` where there is no such version; `CorruptStoreError` where a file is absent or short, or a
    chunk fails its checksum.
    """
    if isinstance(split, str):
        record, wanted = read_side(store.place, split)
    else:
        record, wanted = split
    parts: dict[str, list[_Part]] = {}
    for row in catalog_rows(store.catalog):
        cells = record.by_scene.get(str(row["scene"]))
        is_wanted = keys is None or row["bounds_key"] in keys
        if is_wanted and cells is not None and cells.grid == store.grids[str(row["scene"])]:
            array = StoredArray.of(store.place, row)
            parts.setdefault(row["bounds_key"], []).extend(_parts(array, cells.codes == wanted))
    tasks = [(key, some[i::BATCHES]) for key, some in parts.items() for i in range(min(BATCHES, len(some)))]
    out: dict[str, Histogram] = {}
    counted = gather([(_count_all, (batch,)) for _, batch in tasks])
    for (key, _), histogram in zip(tasks, counted, strict=True):
        out[key] = out.get(key, Histogram.empty()) + histogram
    return out


def _parts(array: StoredArray, cells: Array) -> Iterator[_Part]:
    """Yield the rectangles of an array, of whole files and whole cells, that hold any of the wanted ``cells``."""
    side = math.lcm(job_side(array.encoding.file_size), cv.CELL)
    for place in rectangles(array.shape, (side, side)):
        row, col = place["row"] // cv.CELL, place["col"] // cv.CELL
        wanted = cells[row : row + side // cv.CELL, col : col + side // cv.CELL]
        if wanted.any():
            yield array, place, wanted


def _count_all(parts: list[_Part]) -> Histogram:
    return sum((_count(*part) for part in parts), start=Histogram.empty())


def _count(array: StoredArray, place: dict[str, Any], cells: Array) -> Histogram:
    row, col = place["row"], place["col"]
    window = slice(row, row + place["height"]), slice(col, col + place["width"])
    values, flags = array.codes(window), array.flags(window)
    to_half = _half_codes(array)
    counts = np.zeros(cv.HISTOGRAM_BINS, np.int64)
    nodata = nonpositive = 0
    for top, left in (np.argwhere(cells) * cv.CELL).tolist():
        cell = np.s_[top : top + cv.CELL, left : left + cv.CELL]
        coded = flags[cell]
        count_half_codes(to_half(values[cell][coded == cv.Flag.VALID]), counts)
        nonpositive += int(np.count_nonzero(coded == cv.Flag.NONPOSITIVE))
        nodata += int(np.count_nonzero(~cv.Flag.is_valid(coded)))
    return Histogram(counts=counts, nonpositive=nonpositive, nodata=nodata)


def _half_codes(array: StoredArray) -> Callable[[Array], Array]:
    """Return the function from stored values to histogram bins (int32)."""

    def of_floats(z: Array) -> Array:
        if array.stored != cv.STORED_RANGE:
            z = normalize_kernel(denormalize(z, array.stored), cv.STORED_RANGE)
        return half_codes_kernel(z)

    if array.encoding.dtype != "uint16":
        return lambda values: of_floats(values.astype(np.float32))
    steps = np.arange(cv.MAX_CODE + 1, dtype=np.int32) - cv.FIRST_CODE
    is_whole = array.stored == cv.STORED_RANGE
    table = 2 * steps if is_whole else of_floats(steps.astype(np.float32) / np.float32(cv.STEPS))
    return lambda values: table[values]
