"""Clip bounds of a store: recommended by its histograms, and set.

A clip is a number in the metadata that is applied while a patch is read. Setting one touches no pixel.
"""

from collections.abc import Iterable
from typing import Any

from sarzarr.errors import InvalidInputError
from sarzarr.patches.index import update_indices
from sarzarr.patches.split_histograms import split_histograms
from sarzarr.pixels.bounds import Histogram, clip_bounds_from_histogram
from sarzarr.store.catalog import catalog_rows
from sarzarr.store.commit import consolidate, write_bounds
from sarzarr.store.store import BoundsEntry, Store


def recommend_clips(
    store: Store, keys: set[str], *, split: str | None = None, **method: Any
) -> dict[str, BoundsEntry]:
    """Return groups with the clip (dB) that their histograms recommend; nothing is written.

    Parameters
    ----------
    store
        The store; every scene of a group counts, pixel by pixel.
    keys
        The groups, by `bounds_key`.
    split
        Count the ground of one side alone, in one pass over its codes: ``train``, or ``v2:train``.
    method
        Arguments of `clip_bounds_from_histogram`: by default percentiles 1 and 99 of the pixels
        that are valid and positive.

    Raises
    ------
    InvalidInputError
        A group is not in the store, or has no valid pixel on that side.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in catalog_rows(store.catalog):
        rows.setdefault(row["bounds_key"], []).append(row)
    if unknown := keys - set(rows):
        known, got = ", ".join(sorted(rows)), ", ".join(sorted(unknown))
        raise InvalidInputError(f"groups must be among {known}, got {got}. Name some of these.")
    of_split = None if split is None else split_histograms(store, split)
    entries = {}
    for key in sorted(keys):
        if of_split is None:
            parts = [store.histogram(row["scene"], row["name"]) for row in rows[key]]
        else:
            parts = [of_split[key]] if key in of_split else []
        histogram = sum(parts, start=Histogram.empty())
        if split and not histogram.n_valid:
            raise InvalidInputError(
                f"valid pixels of {key} in {split!r} were expected, got none. "
                "Name the other groups, or extend the split."
            )
        clip = clip_bounds_from_histogram(histogram, **method)
        entries[key] = BoundsEntry(
            vmin=float(rows[key][0]["vmin"]),
            vmax=float(rows[key][0]["vmax"]),
            clip_vmin=clip.vmin,
            clip_vmax=clip.vmax,
            clip_method=(clip.description or clip.method) + (f" of {split}" if split else ""),
        )
    return entries


def set_clip(
    store: Store, groups: Iterable[str] | None = None, *, split: str | None = None, **method: Any
) -> Store:
    """Set the clip of groups, and bring all that depends on it up to date: attrs and patch indices.

    Parameters
    ----------
    store
        The store.
    groups
        The groups, by `bounds_key` (``vv/sigma0``); all of them if left out.
    split
        Count the ground of one side of a split alone, so that validation does not leak: ``train``.
    method
        Arguments of `clip_bounds_from_histogram`: ``method="percentile"`` with ``low_pct`` and
        ``high_pct``, ``"fixed"`` with ``vmin`` and ``vmax``, or ``"sigma"`` with ``k``.

    Returns
    -------
    Store
        The store, opened anew.
    """
    keys = set(store.bounds) if groups is None else set(groups)
    changed = write_bounds(store, recommend_clips(store, keys, split=split, **method))
    update_indices(changed)
    consolidate(changed)
    return changed.anew()
