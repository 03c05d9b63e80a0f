"""Facts of a store, as a report shows them: few numbers of each scene, gathered one scene after the other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import CorruptStoreError
from sarzarr.grids.crs import crs_name
from sarzarr.patches.selection import Query, passing
from sarzarr.pixels.bounds import BIN_WIDTH_DB, Histogram
from sarzarr.splits.versions import patches_of
from sarzarr.store.boxes import box_tables
from sarzarr.store.place import Place
from sarzarr.store.samples import open_samples, sample_sets
from sarzarr.store.split_table import Split
from sarzarr.store.store import BoundsEntry, Store
from sarzarr.text import counted, size_text

PERCENTS: Final = (5, 50, 95)
"""Percentiles of the patches' mean dB that are told."""
FACTS: Final = {
    "time": "acquired", "platform": "platform", "mode": "mode", "product": "product", "orbit_state": "orbit",
    "relative_orbit": "relative orbit", "absolute_orbit": "absolute orbit", "look_side": "looks to the",
    "incidence": "incidence angle, degrees", "looks": "equivalent looks", "burst": "burst",
    "source_representation": "source values", "source_hash": "source hash",
}  # fmt: skip
"""The catalog's columns that a scene's facts list, and their names for people."""


@dataclass(frozen=True, kw_only=True)
class PixelShare:
    """The pixels of an array, or of a group of arrays, and shares of them."""

    pixels: int
    """All of them."""
    valid: float
    """The share of them that was measured, in [0, 1]."""
    below: float
    """The share of the valid ones below the clip, nonpositive ones among them; NaN where none is valid."""
    above: float
    """The share of the valid ones above the clip."""
    median: float
    """dB; NaN where none has a dB."""


def share_of(histogram: Histogram, bounds: BoundsEntry) -> PixelShare:
    """Return what a histogram says of its pixels, as shares in [0, 1]; a bin counts where its centre, dB, lies."""
    centres = cv.DB_FLOOR + BIN_WIDTH_DB * np.arange(cv.HISTOGRAM_BINS)
    counted_ones, lit = histogram.n_valid, histogram.n_valid + histogram.nonpositive
    low, high = np.searchsorted(
        centres, (bounds.clip_vmin - BIN_WIDTH_DB / 2, bounds.clip_vmax + BIN_WIDTH_DB / 2)
    )
    below = int(histogram.counts[:low].sum()) + histogram.nonpositive
    return PixelShare(
        pixels=lit + histogram.nodata,
        valid=lit / max(lit + histogram.nodata, 1),
        below=below / lit if lit else float("nan"),
        above=int(histogram.counts[high:].sum()) / lit if lit else float("nan"),
        median=histogram.percentile(50) if counted_ones else float("nan"),
    )


@dataclass(frozen=True, kw_only=True)
class ArrayFacts:
    """An array of a scene."""

    name: str
    """``vv``."""
    key: str
    """Its group, by `bounds_key`."""
    stored: str
    """Its dtype and codec."""
    share: PixelShare | None
    """Its pixels; None where its histogram is damaged."""


@dataclass(kw_only=True)
class SceneFacts:
    """A scene: what the catalog, its histograms and a split say."""

    scene: str
    """Its id."""
    height: int
    """Rows."""
    width: int
    """Columns."""
    arrays: list[ArrayFacts]
    """Those of backscatter, sorted by name."""
    facts: list[tuple[str, str]]
    """What else is known, by name."""
    layers: tuple[str, ...]
    """Names of its layers."""
    cells: str
    """Its cells on each side of the split, for people."""
    damage: list[str] = field(default_factory=list)
    """What could not be read of it."""

    @property
    def _shares(self) -> list[PixelShare]:
        return [a.share for a in self.arrays if a.share is not None]

    @property
    def valid(self) -> float:
        """The least share of measured pixels among its arrays, in [0, 1]; NaN where none is known."""
        return min((s.valid for s in self._shares), default=float("nan"))

    @property
    def below(self) -> float:
        """The largest share of valid pixels below the clip among its arrays, in [0, 1]; NaN where none is known."""
        return max((s.below for s in self._shares if s.below == s.below), default=float("nan"))

    @property
    def above(self) -> float:
        """The largest share above the clip, likewise."""
        return max((s.above for s in self._shares if s.above == s.above), default=float("nan"))


def scene_facts(store: Store, split: Split | None) -> Iterator[SceneFacts]:
    """Yield the facts of each scene, sorted by id; of its arrays' histograms one is in memory at a time."""
    catalog = {str(name): column.values for name, column in store.listing.items()}
    rows: dict[str, list[int]] = {}
    for i, scene in enumerate(catalog["scene"].tolist()):
        rows.setdefault(scene, []).append(i)
    for scene, mine in rows.items():
        damage: list[str] = []
        arrays = [
            ArrayFacts(
                name=str(catalog["name"][i]),
                key=str(catalog["bounds_key"][i]),
                stored=f"{catalog['dtype'][i]}, {catalog['codec'][i]}",
                share=_share(store, scene, str(catalog["name"][i]), str(catalog["bounds_key"][i]), damage),
            )
            for i in mine
            if catalog["name"][i]
        ]
        row = {name: column[mine[0]] for name, column in catalog.items()}
        yield SceneFacts(
            scene=scene,
            height=int(row["height"]),
            width=int(row["width"]),
            arrays=arrays,
            facts=_facts(row),
            layers=_layers(store, scene, damage),
            cells=_cells(split, scene, store.grids[scene]),
            damage=damage,
        )


def _share(store: Store, scene: str, array: str, key: str, damage: list[str]) -> PixelShare | None:
    try:
        return share_of(store.histogram(scene, array), store.bounds[key])
    except CorruptStoreError as error:
        damage.append(str(error))
        return None


def _layers(store: Store, scene: str, damage: list[str]) -> tuple[str, ...]:
    try:
        return store.layers(scene)
    except CorruptStoreError as error:
        damage.append(str(error))
        return ()


def _facts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    a, b, _, d, e, _ = (float(v) for v in row["transform"])
    out = [("placed by", str(row["geolocation"]).replace("_", " "))]
    if row["crs_wkt"]:
        out.append(("CRS", crs_name(str(row["crs_wkt"]))))
        out.append(("pixel", f"{np.hypot(a, d):.6g} x {np.hypot(b, e):.6g} of the CRS's units"))
    for column, name in FACTS.items():
        value = row[column]
        text = f"{value:g}" if isinstance(value, float) and value == value else str(value)
        if text not in ("", "nan"):
            out.append((name, text))
    return out


def _cells(split: Split | None, scene: str, grid: str) -> str:
    if split is None or scene not in split.by_scene or split.by_scene[scene].grid != grid:
        return "" if split is None else "in no split"
    counts = np.bincount(split.by_scene[scene].codes.reshape(-1), minlength=4).tolist()
    names = ((counts[m], m.name.lower().replace("_", " ")) for m in (1, 2, 3, 0) for m in [cv.Membership(m)])
    return ", ".join(f"{n} {name}" for n, name in names if n)


# ------------------------------------------------------------------ the whole store
def group_histograms(store: Store) -> Iterator[tuple[str, int, Histogram]]:
    """Yield (group, arrays, the int64 histogram of them all) of each group, by name; damaged ones are left out."""
    rows: dict[str, list[tuple[str, str]]] = {}
    columns = (store.catalog[k].values.tolist() for k in ("bounds_key", "scene", "name"))
    for key, scene, array in zip(*columns, strict=True):
        rows.setdefault(key, []).append((scene, array))
    for key in sorted(rows):
        total = Histogram.empty()
        for scene, array in rows[key]:
            try:
                total += store.histogram(scene, array)
            except CorruptStoreError:
                continue  # its scene tells
        yield key, len(rows[key]), total


def sizes(place: Place) -> dict[str, int]:
    """Return the bytes below each name at the top of a store, the largest first."""
    out: dict[str, int] = {}
    waiting = [(name.rstrip("/"), name) for name in place.children()]
    while waiting:
        top, key = waiting.pop()
        if key.endswith("/"):
            waiting += [(top, f"{key}{name}") for name in place.children(key.rstrip("/"))]
        elif (head := place.head(key)) is not None:
            out[top] = out.get(top, 0) + head.size
    return dict(sorted(out.items(), key=lambda item: -item[1]))


def overview(store: Store, by_room: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return what a store holds, by name, for people; sizes in bytes."""
    catalog = store.catalog
    written = {f"{d}, {c}" for d, c in zip(catalog["dtype"].values, catalog["codec"].values, strict=True)}
    cuts = {(int(c), int(s)) for c, s in zip(catalog["chunk"].values, catalog["shard"].values, strict=True)}
    pixels = int((catalog["height"].values * catalog["width"].values).sum())
    rooms = ", ".join(f"{name} {size_text(size)}" for name, size in list(by_room.items())[:4])
    out = [
        ("scenes", str(len(store.scenes))),
        ("arrays", f"{catalog.sizes['array']}, {pixels / 1e6:,.2f} million pixels"),
        ("size on disk", f"{size_text(sum(by_room.values()))} ({rooms})"),
        ("schema", str(store.schema)),
        ("stored as", "; ".join(sorted(written)) or "nothing"),
        (
            "chunks",
            "; ".join(f"{c} x {c}" + (f" in shards of {s} x {s}" if s else "") for c, s in sorted(cuts)),
        ),
    ]
    for name in sample_sets(store):
        cut = open_samples(store, name).layout
        out.append(
            (f"samples/{name}", f"{counted(cut.count, 'sample')} of {cut.height} x {cut.width} at most")
        )
    out += [("boxes", name) for name in box_tables(store)]
    return [(name, text) for name, text in out if text]


def patch_rows(store: Store, index: str, split: Split | None) -> tuple[str, list[dict[str, str]]]:
    """Return the cut of an index for people, and a row of text per group: patches, means and deviations in dB."""
    table = store.patch_columns(index)
    a = table.attrs
    cut = f"{a['size']} x {a['size']} pixels, stride {a['stride']}, remainders at edges: {a['edge']}"
    named = zip(store.catalog["scene"].values.tolist(), store.catalog["name"].values.tolist(), strict=True)
    keys = dict(zip(named, store.catalog["bounds_key"].values.tolist(), strict=True))
    owners = zip(table["owner_scene"].values.tolist(), table["owner_array"].values.tolist(), strict=True)
    owner_key = np.array([keys.get(owner, "") for owner in owners], object)
    taken = passing(store, Query(index=index))
    sides = {s: patches_of(store, split, table, s) for s in ("train", "val", "test")} if split else {}
    out = []
    for key in sorted({*owner_key.tolist()} - {""}):
        mine = np.isin(table["owner"].values, np.flatnonzero(owner_key == key))
        out.append(_patch_row(table, key, mine, taken) | {s: f"{(m & mine).sum()}" for s, m in sides.items()})
    return cut, out


def _patch_row(table: Any, key: str, mine: Array, taken: Array) -> dict[str, str]:
    means = table["mean_db"].values[mine]
    stds = table["std_db"].values[mine]
    low, middle, high = np.nanpercentile(means, PERCENTS) if np.isfinite(means).any() else [float("nan")] * 3
    return {
        "group": key,
        "patches": f"{mine.sum()}",
        "wholly valid": f"{(table['valid_fraction'].values[mine] == 1).sum()}",
        "taken by default": f"{(taken & mine).sum()}",
        "mean dB, percentiles 5, 50, 95": f"{low:.1f}, {middle:.1f}, {high:.1f}" if middle == middle else "-",
        "median of the standard deviation, dB": f"{np.nanmedian(stds):.2f}"
        if np.isfinite(stds).any()
        else "-",
    }
