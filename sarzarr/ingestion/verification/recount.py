"""Patch tables and histograms held against the pixels that they were counted from."""

from collections.abc import Collection
from typing import Any

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, SarzarrError
from sarzarr.patches.cut import IndexSpec, patch_ids, positions
from sarzarr.patches.index import measured_table, spec_of, stamp_of
from sarzarr.patches.stored_array import StoredArray
from sarzarr.pixels.kernels import codes_from_half, half_codes_kernel
from sarzarr.store.catalog import catalog_rows, patches_in_order
from sarzarr.store.shard_job import job_side, rectangles
from sarzarr.store.store import Store
from sarzarr.store.verify.findings import Findings
from sarzarr.tasks import Task, gather

Counted = tuple[Array, int, int, int]
"""Pixels by stored value, nonpositive ones, invalid ones, and those whose value does not fit their flag."""


def check_indices(store: Store, found: Findings, *, deep: bool) -> None:
    """Hold patch tables against the catalog, manifests and bounds; ``deep``, their columns against the pixels."""
    for name in store.patch_indices:
        key = f"{cv.PATCHES}/{name}"
        if found.touches(key):
            continue
        try:
            spec = spec_of(store, name)
            wrong = _stale(store, spec)
            if not wrong and deep and not _pixels_are_damaged(found):
                wrong = _measured_otherwise(store, spec)
        except (SarzarrError, KeyError, OSError) as error:
            if isinstance(error, InvalidInputError) or not found.by_file:
                found.add(key, f"it cannot be read ({error})")
            continue
        if wrong:
            found.add(key, wrong)


def _pixels_are_damaged(found: Findings) -> bool:
    return any(file.startswith(f"{cv.SCENES}/") for file in found.by_file)


def _stale(store: Store, spec: IndexSpec) -> str:
    """Return how a patch table is not the one of these arrays, clips and cut; nothing where it is."""
    table = store.patch_columns(spec.name)
    rows = catalog_rows(store.catalog)
    owners = zip(*(table[f"owner_{k}"].values.tolist() for k in ("scene", "array", "stamp")), strict=True)
    if [*owners] != [stamp_of(store, row) for row in rows]:
        return "it is not of the arrays and clips that the store holds"
    ends = np.searchsorted(table["owner"].values, np.arange(len(rows) + 1))
    for i, row in enumerate(rows):
        tops, lefts = (positions(int(row[k]), spec) for k in ("height", "width"))
        some = slice(int(ends[i]), int(ends[i + 1]))
        top, left = (v.reshape(-1) for v in np.meshgrid(tops, lefts, indexing="ij"))
        ids = patch_ids(str(row["scene"]), str(row["name"]), spec.size, top, left)
        for column, wanted in (("row", top), ("col", left), ("id", ids)):
            if not np.array_equal(table[column].values[some], wanted):
                return f"its {column} of {row['scene']}/{row['name']} is not that of its cut"
    return ""


def _measured_otherwise(store: Store, spec: IndexSpec) -> str:
    """Return which column of a patch table the pixels do not give; nothing where they give all."""
    table, fresh = store.patch_columns(spec.name), patches_in_order(measured_table(store, spec))
    for name in map(str, fresh.data_vars):
        if not fresh[name].identical(table[name]):
            return f"its {name} is not what the pixels give"
    return "" if fresh.attrs == table.attrs else "its attributes are not what the pixels give"


def recount_histograms(store: Store, found: Findings, scenes: Collection[str] | None) -> None:
    """Count the pixels of arrays again; add the histograms that say otherwise, and flags that do not fit values."""
    tasks, owners = list[Task](), list[int]()
    rows = catalog_rows(store.catalog)
    for i, row in enumerate(rows):
        scene, name = str(row["scene"]), str(row["name"])
        parts = (
            f"{cv.SCENES}/{scene}/{name}",
            f"{cv.SCENES}/{scene}/{row['flags']}",
            f"{cv.HISTOGRAMS}/{scene}/{name}",
        )
        if (scenes is not None and scene not in scenes) or any(map(found.touches, parts)):
            continue
        array = StoredArray.of(store.place, row)
        side = 2 * job_side(array.encoding.file_size)
        for place in rectangles(array.shape, (side, side)):
            tasks.append((count_pixels, (array, place)))
            owners.append(i)
    totals: dict[int, Counted] = {}
    for i, part in zip(owners, gather(tasks), strict=True):
        old = totals.get(i)
        totals[i] = part if old is None else tuple(a + b for a, b in zip(old, part, strict=True))
    for i, total in totals.items():
        _compare(store, rows[i], total, found)


def count_pixels(array: StoredArray, place: dict[str, int]) -> Counted:
    """Return the counts of a rectangle of an array: of codes by value (65536,) int64, of floats by half-code."""
    row, col = place["row"], place["col"]
    window = slice(row, row + place["height"]), slice(col, col + place["width"])
    values, flags = array.codes(window), array.flags(window)
    is_valid, lit = cv.Flag.is_valid(flags), values[flags == cv.Flag.VALID]
    if values.dtype == np.uint16:
        counts, is_filled = np.bincount(lit, minlength=cv.MAX_CODE + 1), values == cv.NOT_MEASURED
    else:
        half = half_codes_kernel(lit.astype(np.float32))
        counts, is_filled = np.bincount(half, minlength=cv.HISTOGRAM_BINS), np.isnan(values)
    dark, invalid = (int(np.count_nonzero(mask)) for mask in (flags == cv.Flag.NONPOSITIVE, ~is_valid))
    return counts.astype(np.int64), dark, invalid, int(np.count_nonzero(is_filled == is_valid))


def _compare(store: Store, row: dict[str, Any], total: Counted, found: Findings) -> None:
    """Add what an array's histogram, or its flags, say otherwise than its pixels do.

    A histogram has two bins a code; of float16, which is rounded, and of a classic store, whose values are clipped,
    the sums alone can be compared.
    """
    scene, name, (counts, dark, invalid, misfits) = row["scene"], row["name"], total
    told = store.histogram(scene, name)
    wanted = told.counts
    if row["dtype"] == "uint16":
        codes = codes_from_half(np.arange(cv.HISTOGRAM_BINS, dtype=np.int32))
        wanted = np.zeros(cv.MAX_CODE + 1, np.int64)
        np.add.at(wanted, codes, told.counts)
    is_exact = row["dtype"] != "float16" and (row["vmin"], row["vmax"]) == cv.STORED_RANGE
    same = np.array_equal(wanted, counts) if is_exact else wanted.sum() == counts.sum()
    if not same or (told.nonpositive, told.nodata) != (dark, invalid):
        found.add(f"{cv.HISTOGRAMS}/{scene}/{name}", "it is not what the pixels give")
    if misfits:
        what = f"{misfits} of its flags say otherwise than its values whether a pixel was measured"
        found.add(f"{cv.SCENES}/{scene}/{row['flags']}", what)
