"""Selections of patches: queries over the patch table and the catalog, which never touch a pixel."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, NothingChosenError, NotInStoreError
from sarzarr.grids.region import GroundRegion
from sarzarr.patches.index import spec_of
from sarzarr.patches.period import moments_of
from sarzarr.patches.shares import with_shares
from sarzarr.store.chunks import (
    ArrayLayout,
    ChunkTable,
    expected_chunk_table,
    read_chunk_table,
    read_layout,
)
from sarzarr.store.codecs import CODECS
from sarzarr.store.conditions import columns_of
from sarzarr.store.documents import Encoding, named
from sarzarr.store.store import Store
from sarzarr.text import listed

log = logging.getLogger(__name__)
_MAX_PIXEL: Final = 1 << 21
"""Rows and columns below this are packed into one integer to match patches across arrays."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """Conditions on the patches of an index."""

    index: str = cv.DEFAULT_INDEX
    """The patch index."""
    split: str | None = None
    """``train``, ``val`` or ``test`` of the newest split version, ``v2:val`` of another; all if left out."""
    scenes: Sequence[str] | None = None
    """Ids of scenes; all if left out."""
    groups: tuple[Array, ...] | None = None
    """Rows of the catalog whose arrays become the channels of one patch, (channels,) each, equally many: a patch
    is what all of them have at one place. In the place of ``polarizations``."""
    polarizations: Sequence[str] | None = None
    """Polarizations or names of arrays. Several become channels, of the scenes that have them all."""
    min_valid: float | None = 1.0
    """Least share of valid pixels among a patch's own, in each channel: padding is none of them. None asks for any
    above 0; 0 takes patches without a valid pixel, too."""
    min_unsaturated: float = 0.9
    """Least share of a patch's valid pixels that are strictly inside 1 % and 99 % of the recommended clip. Above 0
    it leaves out patches without a valid pixel."""
    where: str | None = None
    """A condition on columns of the index and of the catalog, in each channel; see `sarzarr.store.conditions`."""
    rows: Array | Sequence[int] | None = None
    """Rows of the index to choose from; all if left out."""
    regions: tuple[GroundRegion, ...] = ()
    """Regions of the world that a patch's ground, its padding apart, must meet, each of them."""
    within: bool = False
    """Whether it must lie wholly in one part of each of them."""
    period: tuple[np.datetime64, np.datetime64] | None = None
    """First and last moment (UTC) at which a patch was acquired."""
    dates: int = 0
    """`Selection.dates` of ``groups``."""
    at_most: int | None = None
    """Most patches that are taken, drawn by ``seed``."""
    seed: int = 0
    """The seed of the draw."""

    def __post_init__(self) -> None:
        for name in ("scenes", "polarizations"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, (given,))
            elif given is not None and not len(given):
                raise InvalidInputError(f"{name} must name at least one, got none. Leave it out for all.")
        for name in ("min_valid", "min_unsaturated"):
            if (least := getattr(self, name)) is not None and not 0 <= least <= 1:
                raise InvalidInputError(f"{name} must be in 0..1, got {least}.")


@dataclass(frozen=True, eq=False, kw_only=True)
class Selection:
    """The patches of a query, as numbers."""

    catalog_row: Array
    """(arrays,) int64: the row in the catalog of each array that is read."""
    array: Array
    """(n, channels) int32: the array of each channel, by its place in ``catalog_row``."""
    row: Array
    """(n,) int32: first row, pixels."""
    col: Array
    """(n,) int32: first column, pixels."""
    table_row: Array
    """(n,) int64: the row in the patch table (of the first channel)."""
    id: Array
    """(n,) int64, 0 or more: the stable id of each patch (of its first channel)."""
    shape: tuple[int, int]
    """Rows and columns of a patch."""
    is_padded: bool = False
    """Whether patches may reach beyond their scene."""
    dates: int = 0
    """Dates of a patch of a stack, whose channels are those of one date after another; 0 of another patch."""
    span: Array | None = None
    """(n,) int32: rows and columns of the window that a patch is scaled from; None where all are of ``shape``."""
    stamps: tuple[str, ...] = ()
    """What the table says of the pixels that patches of each array of ``catalog_row`` were measured on: 8 digits of
    its manifest's checksum, 8 of its flags', and the clip (dB)."""

    def __len__(self) -> int:
        return len(self.row)


def select(store: Store, query: Query) -> Selection:
    """Return the patches that a query asks for, (n, channels), in the order of the table.

    Raises `NotInStoreError` where the index, split, a scene or a polarization is not in the store;
    `NothingChosenError` where nothing is left.
    """
    table = store.patch_columns(query.index)
    catalog = _catalog_rows(store, table)
    keep, left = _kept(store, table, catalog, query)
    if query.groups is None:
        rows = _channels(store, table, catalog, np.flatnonzero(keep), query)
    else:
        rows = _shared(table, catalog, np.flatnonzero(keep), query.groups)
    if query.at_most is not None and query.at_most < len(rows):
        rows = rows[drawn_of(len(rows), query.at_most, query.seed)]
    if not len(rows):
        if query.polarizations is not None or query.groups is not None:
            left.append("0 in every channel asked for")
        raise NothingChosenError(
            f"at least one patch was expected, got none: {', then '.join(left)}. "
            + (
                "Ask for less where the last ones go."
                if table.sizes["patch"]
                else f"Scenes are smaller than {table.attrs['size']} pixels: pass patch_size=, or edge='pad'."
                if store.catalog.sizes["array"]
                else "The store has no backscatter: ingest scenes, or open its layers with Store.open_scene."
            )
        )
    owners, size = table["owner"].values[rows], int(table.attrs["size"])
    catalog_row, first, array = np.unique(catalog[owners], return_index=True, return_inverse=True)
    return Selection(
        catalog_row=catalog_row,
        array=array.reshape(rows.shape).astype(np.int32),
        row=table["row"].values[rows[:, 0]],
        col=table["col"].values[rows[:, 0]],
        table_row=rows[:, 0],
        id=table["id"].values[rows[:, 0]],
        shape=(size, size),
        is_padded=table.attrs["edge"] == "pad",
        dates=query.dates,
        stamps=tuple(table["owner_stamp"].values[owners.reshape(-1)[first]].tolist()),
    )


def drawn_of(n: int, most: int, seed: int) -> Array:
    """Return ``most`` of the numbers ``0..n-1``, (most,) int64, ascending, drawn by a seed."""
    return np.sort(np.random.default_rng((seed, n)).permutation(n)[:most])


def passing(store: Store, query: Query) -> Array:
    """Return (patches,) bool: the rows of the table that a query asks for, where it names no channels."""
    table = store.patch_columns(query.index)
    return _kept(store, table, _catalog_rows(store, table), query)[0]


def _catalog_rows(store: Store, table: xr.Dataset) -> Array:
    """Return the catalog row of each owner of a patch table."""
    named = zip(store.catalog["scene"].values.tolist(), store.catalog["name"].values.tolist(), strict=True)
    rows = {key: i for i, key in enumerate(named)}
    owners = zip(table["owner_scene"].values.tolist(), table["owner_array"].values.tolist(), strict=True)
    return np.array([rows.get((str(s), str(a)), -1) for s, a in owners], np.int64)


def _kept(store: Store, table: xr.Dataset, catalog: Array, query: Query) -> tuple[Array, list[str]]:
    """Return (patches,) bool, which patches meet every condition; and in words, how many each condition leaves."""
    keep, left = np.ones(table.sizes["patch"], np.bool_), [f"{table.sizes['patch']} in index {query.index!r}"]
    for condition, passes in _filters(store, table, catalog, query):
        keep &= passes
        left.append(f"{np.count_nonzero(keep)} with {condition}")
    # Of what is left alone it is asked when and where: what the others leave out need not be known of.
    if query.period is not None:
        keep &= _acquired(store, table, catalog, keep, query.period)
        left.append(f"{np.count_nonzero(keep)} in time {query.period[0]} to {query.period[1]}")
    for region in query.regions:
        keep[keep] = _on_ground(store, table, np.flatnonzero(keep), region, within=query.within)
        left.append(
            f"{np.count_nonzero(keep)} {'within' if query.within else 'on ground of'} bounds or polygon"
        )
    return keep, left


def _acquired(
    store: Store, table: xr.Dataset, catalog: Array, keep: Array, period: tuple[np.datetime64, np.datetime64]
) -> Array:
    """Return (patches,) bool: those that were acquired within a period; none of those kept may lack a time."""
    moments = moments_of(store.catalog["time"].values[catalog])
    if (owners := np.unique(table["owner"].values[keep & np.isnat(moments)[table["owner"].values]])).size:
        named = sorted(set(table["owner_scene"].values[owners].tolist()))
        raise InvalidInputError(
            f"expected scenes whose time is known for time=, got {len(named)} without ({listed(named)}). Leave them "
            "out with scenes=, or where=\"time != ''\"."
        )
    is_within = np.asarray((moments >= period[0]) & (moments <= period[1]))
    return np.asarray(is_within[table["owner"].values])


def _on_ground(store: Store, table: xr.Dataset, rows: Array, region: GroundRegion, *, within: bool) -> Array:
    """Return (k,) bool: which ``rows`` of a table meet a region; what lies on one grid is looked at once."""
    owner, size = table["owner"].values[rows], int(table.attrs["size"])
    names = table["owner_scene"].values
    scenes = {str(names[i]) for i in np.unique(owner).tolist()}
    if unplaced := sorted(scene for scene in scenes if not store.placements[scene].is_located):
        raise InvalidInputError(
            f"expected scenes with a place on the ground for bounds= and polygon=, got {len(unplaced)} without "
            f"({listed(unplaced)}). Leave them out with scenes=, or where=\"geolocation != 'none'\"."
        )
    grids: dict[str, list[str]] = {}
    for scene in scenes:
        grids.setdefault(store.grids[scene], []).append(scene)
    number = {scene: i for i, some in enumerate(grids.values()) for scene in some}
    grid = np.array([number.get(str(name), -1) for name in names])[owner]
    order = np.argsort(grid, kind="stable")
    out = np.zeros(len(rows), bool)
    for i, some in enumerate(grids.values()):
        mine = order[slice(*np.searchsorted(grid, (i, i + 1), sorter=order))]
        place = store.placements[some[0]]
        spans = [
            np.stack([first, np.minimum(first + size, end)])
            for first, end in zip(
                (table[k].values[rows[mine]] for k in ("row", "col")), place.grid.shape, strict=True
            )
        ]
        out[mine] = region.chosen(place, *spans, within=within)
    return out


def _filters(store: Store, table: xr.Dataset, catalog: Array, query: Query) -> Iterator[tuple[str, Array]]:
    """Yield each condition on a patch, in words and as (patches,) bool."""
    if gone := sorted({str(table["owner_scene"].values[i]) for i in np.flatnonzero(catalog < 0)}):
        named = listed(gone)
        log.warning(
            "index %r has patches of scenes that the catalog does not: %s, left out", query.index, named
        )
        yield "arrays in the catalog", (catalog >= 0)[table["owner"].values]
    valid = table["valid_fraction"].values
    if query.min_valid is None:
        yield "a valid pixel", valid > 0
    else:
        enough = np.float32(query.min_valid) * _inside(store, table, catalog)
        yield f"min_valid {query.min_valid}", valid >= enough
    if (least := query.min_unsaturated) > 0:
        unsaturated = table["unsaturated_fraction"].values
        yield f"min_unsaturated {least}", (valid > 0) & (unsaturated >= np.float32(least) * valid)
    if query.scenes is not None:
        is_wanted = np.isin(store.catalog["scene"].values[catalog], _known_scenes(store, query.scenes))
        yield f"scenes {list(query.scenes)}", is_wanted[table["owner"].values]
    if query.split is not None:
        yield f"split {query.split!r}", store.split_mask(table, query.split)
    if query.where is not None:
        yield (
            f"where {query.where!r}",
            store.where_mask(with_shares(store, table, query.index, query.where), query.where),
        )
    if query.rows is not None:
        yield "rows given", np.isin(np.arange(len(valid)), np.asarray(query.rows))


def _inside(store: Store, table: xr.Dataset, catalog: Array) -> Array:
    """Return (patches,) float32: the share of each patch's pixels that are its scene's, and not padding."""
    size, owner = int(table.attrs["size"]), table["owner"].values
    if table.attrs["edge"] != "pad":
        return np.ones(len(owner), np.float32)
    rows, cols = (
        np.minimum(store.catalog[side].values[catalog[owner]] - table[first].values, size).astype(np.int64)
        for side, first in (("height", "row"), ("width", "col"))
    )
    return np.asarray(rows * cols / size**2, np.float32)


def _known_scenes(store: Store, scenes: Sequence[str]) -> list[str]:
    for scene in scenes:
        store.rows(scene)  # raises, and says which there are
    return list(scenes)


def _channels(store: Store, table: xr.Dataset, catalog: Array, rows: Array, query: Query) -> Array:
    """Return (n, channels) rows of the table: those that pass, and where several are asked for, in all."""
    if query.polarizations is None:
        return rows[:, None]
    wanted = [of_polarization(store, p)[catalog] for p in query.polarizations]
    owner = table["owner"].values[rows]
    parts = [rows[has[owner]] for has in wanted]
    if len(parts) == 1:
        return np.asarray(parts[0])[:, None]
    _, scene = np.unique(store.catalog["scene"].values[catalog].astype(str), return_inverse=True)
    places = scene[table["owner"].values].astype(np.int64) * _MAX_PIXEL**2 + _place(table, slice(None))
    common = places[parts[0]]
    for part in parts[1:]:
        common = common[np.isin(common, places[part])]
    columns = []
    for part in parts:
        order = np.argsort(places[part], kind="stable")
        columns.append(part[order[np.searchsorted(places[part], common, sorter=order)]])
    return np.stack(columns, axis=1)


def _shared(table: xr.Dataset, catalog: Array, rows: Array, groups: Sequence[Array]) -> Array:
    """Return (n, channels) rows of the table: those that pass in every array of a group, group by group."""
    array = catalog[table["owner"].values[rows]]
    order = np.argsort(array, kind="stable")  # of one array, patches stay in the order of the table
    places, place = np.unique(_place(table, rows), return_inverse=True)
    shared = []
    for group in groups:
        matched = np.full((len(places), len(group)), -1, np.int64)
        for channel, wanted in enumerate(group.tolist()):
            first, last = np.searchsorted(array, (wanted, wanted + 1), sorter=order)
            mine = order[first:last]
            matched[place[mine], channel] = rows[mine]
        shared.append(matched[(matched >= 0).all(1)])
    return np.concatenate(shared)


def of_polarization(store: Store, wanted: str) -> Array:
    """Return (catalog rows,) bool: the arrays of a name, or where there is none, of a polarization.

    Raises `NotInStoreError` where there is neither.
    """
    names = np.array([str(n).lower() for n in store.catalog["name"].values])
    polarizations = np.array([str(p).lower() for p in store.catalog["polarization"].values])
    for column in (names, polarizations):
        is_wanted: Array = column == wanted.lower()
        if is_wanted.any():
            return is_wanted
    raise NotInStoreError(f"polarizations must be among {', '.join(sorted(set(names)))}, got {wanted!r}.")


def _place(table: xr.Dataset, rows: Array | slice) -> Array:
    """Return an integer per patch that is equal where row and column are."""
    row, col = (table[k].values[rows].astype(np.int64) for k in ("row", "col"))
    return np.asarray(row * _MAX_PIXEL + col)


def patch_columns(store: Store, index: str, chosen: Selection) -> dict[str, Callable[[], Array]]:
    """Return what makes each column (n,) of a selection: of the index, and of the catalog by first channel."""
    columns, rows = columns_of(store.patch_columns(index), store.catalog), chosen.table_row

    def of_patches(values: Array) -> Array:
        return values[rows]

    def of_arrays(values: Array) -> Array:
        return values[columns.owner[rows]]

    made: dict[str, Callable[[], Array]] = {
        name: partial(of_arrays, values) for name, values in columns.array.items()
    }
    return made | {name: partial(of_patches, values) for name, values in columns.patch.items()}


def weights_of(columns: Mapping[str, Callable[[], Array]], weights: Mapping[str, float] | str) -> Array:
    """Return (n,) float64: the weight of each patch in a draw, of a selection with these columns.

    A mapping weighs the patches of scenes, 1 where a scene is not named. A column of numbers is the weight; of
    a column of words, each word weighs as much as any other. `NotInStoreError` where there is no such column.
    """
    if not isinstance(weights, str):
        return np.array([float(weights.get(scene, 1.0)) for scene in columns["scene"]().tolist()])
    if weights not in columns:
        raise NotInStoreError(
            f"weights must be a column among {', '.join(sorted(columns))}, got {weights!r}."
        )
    values = columns[weights]()
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    word, words = pd.factorize(values)
    return np.asarray(1.0 / np.bincount(word, minlength=len(words))[word])


def patch_facts(store: Store, chosen: Selection, patches: Array) -> dict[str, Any]:
    """Return the facts of some patches of a selection: lists of words, arrays of numbers, one per patch.

    ``array`` lists the channels. ``transform`` is the patch's, before it is turned, (n, 6) in affine order. Of a
    stack, ``scene``, ``time`` and all facts of an acquisition are per date, (n, dates). Where patches are scaled,
    ``span`` is how many of the scene's pixels a side is, and the transform is of the patch's own pixels.
    """
    array = chosen.array[patches]
    catalog, rows = store.catalog, chosen.catalog_row[array]
    first = seen = rows[:, 0]
    if chosen.dates:
        rows = rows.reshape(len(rows), chosen.dates, -1)
        seen, rows = rows[:, :, 0], rows[:, 0]
    row, col = chosen.row[patches].astype(np.int64), chosen.col[patches].astype(np.int64)
    transform = catalog["transform"].values[first].copy()
    transform[:, 2] += transform[:, 0] * col + transform[:, 1] * row
    transform[:, 5] += transform[:, 3] * col + transform[:, 4] * row
    out: dict[str, Any] = {
        "scene": catalog["scene"].values[seen].tolist(),
        "array": catalog["name"].values[rows].tolist(),
        "row": row,
        "col": col,
        "id": chosen.id[patches],
        "crs": catalog["crs_wkt"].values[first].tolist(),
        "transform": transform,
    }
    if chosen.span is not None:
        out["span"] = chosen.span[patches].astype(np.int64)
        transform[:, [0, 1, 3, 4]] *= (out["span"] / chosen.shape[0])[:, None]
    for name in cv.CATALOG_COLUMNS.values():
        values = catalog[name].values[seen]
        out[name] = values if values.dtype.kind in "if" else values.tolist()
    return out


def layouts(store: Store, catalog_row: Array, *, flags: bool = False) -> tuple[ArrayLayout, ...]:
    """Return the layouts of catalog rows, or of their flags, without opening an array."""
    columns = ("scene", "flags" if flags else "name", "dtype", "codec", "height", "width", "chunk", "shard")
    rows = zip(*(store.catalog[c].values[catalog_row].tolist() for c in columns), strict=True)
    out, known = [], dict[tuple[Any, ...], ArrayLayout]()
    for scene, name, *cut in rows:
        path, (dtype, codec, height, width, chunk, shard) = f"{cv.SCENES}/{scene}/{name}", cut
        if codec not in CODECS:
            out.append(read_layout(store.place, path))
            continue
        if (alike := known.get(tuple(cut))) is None:
            kind = Encoding(dtype=dtype, codec=codec, chunk=chunk, shard=shard)
            alike = ArrayLayout.of(path, (height, width), kind.of_flags if flags else kind)
            known[tuple(cut)] = alike
        out.append(alike.at(path))
    return tuple(out)


def chunk_table(store: Store, index: str, chosen: Selection, *, flags: bool = False) -> ChunkTable:
    """Return the chunks of a selection's arrays, or of their flags, as they were when the patches were measured.

    Raises `StoreChangedError`, here or when a chunk is asked for, where an array is another one by now.
    """
    arrays = layouts(store, chosen.catalog_row, flags=flags)
    if not store.place.is_sealed:
        return read_chunk_table(store.place, arrays)
    digits = slice(8, 16) if flags else slice(8)
    with named(store.place, f"{cv.PATCHES}/{index}/zarr.json"):
        crcs = [int(stamp[digits], 16) for stamp in chosen.stamps]
        cut = spec_of(store, index)
    remedy = (
        f"If it says so again, the patches in its index {index!r} are of other pixels. Bring it up to date: "
        f"sarzarr.index_patches({str(store.place)!r}, name={index!r}, size={cut.size}, stride={cut.stride}, "
        f"edge={cut.edge!r})."
    )
    return expected_chunk_table(store.place, arrays, crcs, remedy=remedy)
