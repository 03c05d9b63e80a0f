"""Clip bounds of a store: what its histograms recommend, and how another clip is set.

A clip is a number in the metadata that is applied while a patch is read. Setting one touches no pixel.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from sarzarr.errors import InvalidInputError
from sarzarr.patches.index import update_indices
from sarzarr.patches.split_histograms import split_histograms
from sarzarr.pixels.bounds import Histogram, clip_bounds_from_histogram
from sarzarr.store.commit import consolidate, write_bounds
from sarzarr.store.store import BoundsEntry, Store, open_store


def recommend_clips(
    store: Store, keys: set[str], *, split: str | None = None, **method: Any
) -> dict[str, BoundsEntry]:
    """Return groups with the clip that their histograms recommend.

    Parameters
    ----------
    store
        The store; every scene of a group counts, pixel by pixel.
    keys
        Which groups, by `bounds_key`.
    split
        Count the ground of one side alone, in one pass over its codes: ``train``, or ``v2:train``.
    method
        Arguments of `clip_bounds_from_histogram`: by default percentiles 1 and 99 of the pixels
        that are valid and positive.
    """
    there = set(store.catalog["bounds_key"].values.tolist())
    if unknown := keys - there:
        known, got = ", ".join(sorted(there)), ", ".join(sorted(unknown))
        raise InvalidInputError(f"groups must be among {known}, got {got}.")
    out = {}
    catalog = store.catalog
    counted = None if split is None else split_histograms(store, split)
    for key in sorted(keys):
        rows = np.flatnonzero(catalog["bounds_key"].values == key)
        if counted is not None:
            histogram = counted.get(key, Histogram.empty())
            _check_counted(histogram, key, str(split))
        else:
            histogram = sum(
                (store.histogram(catalog["scene"].values[i], catalog["name"].values[i]) for i in rows),
                start=Histogram.empty(),
            )
        clip = clip_bounds_from_histogram(histogram, **method)
        out[key] = BoundsEntry(
            vmin=float(catalog["vmin"].values[rows[0]]),
            vmax=float(catalog["vmax"].values[rows[0]]),
            clip_vmin=clip.vmin,
            clip_vmax=clip.vmax,
            clip_method=(clip.description or clip.method) + (f" of {split}" if split else ""),
        )
    return out


def _check_counted(histogram: Histogram, key: str, split: str) -> None:
    if not histogram.n_valid:
        raise InvalidInputError(
            f"valid pixels of {key} in {split!r} were expected, got none. Name the other groups, or extend the split."
        )


def clip_from_split(
    store: Store, split: str = "train", groups: Iterable[str] | None = None, **method: Any
) -> dict[str, BoundsEntry]:
    """Return the clip of groups from the ground of one side of a split alone; nothing is written.

    Parameters
    ----------
    store
        The store.
    split
        ``train`` of the newest version, or ``v2:train``.
    groups, method
        As in `set_clip`.
    """
    keys = set(store.bounds) if groups is None else set(groups)
    return recommend_clips(store, keys, split=split, **method)


def set_clip(
    store: Store, groups: Iterable[str] | None = None, *, split: str | None = None, **method: Any
) -> Store:
    """Set the clip of groups, and bring what depends on it up to date: attrs and patch indices.

    Parameters
    ----------
    store
        The store.
    groups
        Which groups, by `bounds_key` (``vv/sigma0``); all of them if left out.
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
    return open_store(store.root)
