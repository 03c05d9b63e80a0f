"""The store: what its documents and tables say, and how scenes enter it all at once.

A scene's directory is made beside the store and renamed into ``scenes/``, so a reader sees the old
state or the new one. Nothing here reads or writes pixels.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.errors import (
    CorruptStoreError,
    InvalidInputError,
    NotInStoreError,
    StoreNotFoundError,
    StoreSchemaError,
)
from sarzarr.files import whole_folder
from sarzarr.grids.dataset import handed_out
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.grid import Grid
from sarzarr.pixels.bounds import Histogram
from sarzarr.pixels.radiometry import from_codes
from sarzarr.store.catalog import (
    CATALOG_ROWS,
    catalog_of,
    is_clear,
    is_in_order,
    order_of,
    patches_in_order,
    read_histogram,
)
from sarzarr.store.chunks import check_links, read_layout
from sarzarr.store.conditions import columns_of, where_mask
from sarzarr.store.copies import consolidate
from sarzarr.store.documents import (
    Document,
    ensure_groups,
    has_node,
    named,
    nodes_below,
    read_json,
    read_node,
    read_small_array,
    root_document,
    stored_coordinates,
    without_seal,
    write_node,
)
from sarzarr.store.group_bounds import BoundsEntry as BoundsEntry
from sarzarr.store.group_bounds import GroupBounds, single_clip
from sarzarr.store.group_bounds import bounds_key as bounds_key
from sarzarr.store.journal import settle
from sarzarr.store.layer_shares import layer_stamp, share_columns, shares_key
from sarzarr.store.limits import check_array, check_catalog, check_patches
from sarzarr.store.manifest import REMEDY
from sarzarr.store.overviews.levels import fresh_levels, is_known, open_level, scaled, scene_values
from sarzarr.store.place import Folder, Place, local_folder
from sarzarr.store.rows import RowsOfScenes
from sarzarr.store.shown import store_html
from sarzarr.store.split_table import placements, read_side
from sarzarr.store.stored_pixels import StoredPixels
from sarzarr.store.tables import read_table, write_table
from sarzarr.text import counted


@dataclass(frozen=True)
class Store:
    """An open store: a place, and what its documents said when they were first asked for. Holds no handle."""

    place: Place
    """Where its bytes are."""

    @property
    def root(self) -> Path:
        """The ``.zarr`` directory; `InvalidInputError` where the store is not in a folder."""
        if isinstance(self.place, Folder):
            return self.place.path
        raise InvalidInputError(
            f"a store in a folder was expected, got one in {self.place}. Copy it into a folder first."
        )

    def anew(self) -> "Store":
        """Return the store as it now is: nothing of it is read yet."""
        return Store(self.place)

    @cached_property
    def attrs(self) -> Document:
        """Attributes of the root group."""
        attributes: Document = read_node(self.place, "")["attributes"]
        return attributes

    @property
    def schema(self) -> int | None:
        """The number of the schema that it is written in; None where its attributes say none."""
        told = self.attrs.get(cv.SARZARR)
        version = told.get("version") if isinstance(told, dict) else None
        return version if type(version) is int else None

    @cached_property
    def arrived(self) -> xr.Dataset:
        """The `listing` as it is stored: scenes in the order in which they came in."""
        vars(self)["_stamp"] = self.place.head(f"{cv.CATALOG}/zarr.json")
        arrived = read_table(self.place, cv.CATALOG)
        with named(self.place, f"{cv.CATALOG}/zarr.json"):
            check_catalog(arrived)
        return arrived

    @cached_property
    def listing(self) -> xr.Dataset:
        """The `catalog` with a row, of no ``name``, for each scene of layers alone."""
        return self.arrived if is_in_order(self.arrived) else self.arrived.isel(array=order_of(self.arrived))

    @cached_property
    def catalog(self) -> xr.Dataset:
        """One row a (scene, array), over the dimension ``array``, sorted by scene and array."""
        is_array = self.listing["name"].values != ""
        return self.listing if is_array.all() else self.listing.isel(array=np.flatnonzero(is_array))

    @property
    def has_changed(self) -> bool:
        """Whether scenes came in or left since the catalog was read."""
        return "_stamp" in vars(self) and vars(self)["_stamp"] != self.place.head(f"{cv.CATALOG}/zarr.json")

    @cached_property
    def by_scene(self) -> RowsOfScenes:
        """The rows of the `listing`, found by scene: ``scene in store.by_scene`` whatever their number."""
        return RowsOfScenes(self.listing)

    @property
    def scenes(self) -> tuple[str, ...]:
        """Ids of the scenes, sorted; those of layers alone among them."""
        return self.by_scene.scenes

    def has_scene(self, scene: str) -> bool:
        """Whether a scene of that id is here; of one of which there is nothing, the catalog is not read."""
        folders = (f"{group}/{scene}" for group in (cv.SCENES, cv.HISTOGRAMS))
        return any(self.place.head(folder) for folder in folders) and scene in self.by_scene

    @cached_property
    def placements(self) -> Mapping[str, Georeference]:
        """The tie of each scene's pixels to the ground, by scene id."""
        return placements(self.place, self.listing)

    @cached_property
    def grids(self) -> Mapping[str, str]:
        """Fingerprint of each scene's placement: what a split, and boxes, hold for."""
        return {scene: placement.fingerprint for scene, placement in self.placements.items()}

    @cached_property
    def bounds(self) -> Mapping[str, BoundsEntry]:
        """Stored range and clip of each group in dB, by `bounds_key`."""
        known = {f.name for f in fields(BoundsEntry)}
        with named(self.place, "zarr.json"):
            return GroupBounds(
                (key, BoundsEntry(**{k: v for k, v in entry.items() if k in known}))
                for key, entry in self.attrs[cv.BOUNDS].items()
            )

    @property
    def preprocessing_params(self) -> dict[str, float]:
        """``{"vmin", "vmax"}``: the clip that batches of this store are made with, in dB.

        Raises `MixedBoundsError` where the store has groups with different clips; ask a dataset that selects one of
        them.
        """
        return single_clip(self.bounds)

    def entries(self, scene: str) -> xr.Dataset:
        """Return the rows of a scene in the `listing`, one at least; `NotInStoreError` where it is not here."""
        return self.listing.isel(array=self.by_scene[scene])

    def facts(self, scene: str) -> list[dict[str, Any]]:
        """Return the `entries` of a scene as a dict each, in no time however many scenes there are."""
        return self.by_scene.dicts(scene)

    def arrays(self, scene: str) -> tuple[str, ...]:
        """Return the names of a scene's arrays of backscatter, sorted; none of a scene of layers alone."""
        return tuple(filter(None, (str(row["name"]) for row in self.facts(scene))))

    def rows(self, scene: str) -> xr.Dataset:
        """Return the catalog rows of a scene; `NotInStoreError` where there is none, or it has no backscatter."""
        if not self.arrays(scene):
            raise NotInStoreError(
                f"backscatter of scene {scene!r} was expected, got layers alone ({', '.join(self.layers(scene))}). "
                f"Open them with sarzarr.open_store(STORE).open_scene({scene!r}), or name another scene."
            )
        return self.entries(scene)

    def grid(self, scene: str, level: int = 0) -> Grid:
        """Return the grid of a scene, or of a level of it (see `levels`)."""
        whole = self.by_scene.grid(scene)
        return scaled(whole, 2**level) if level and self._has_level(scene, level) else whole

    def levels(self, scene: str) -> tuple[int, ...]:
        """Return the levels of a scene: 0 is itself, n has a pixel for 2^n x 2^n of its pixels (`make_overviews`).

        Levels of pixels that it no longer has are left out.
        """
        rows = self.facts(scene)
        if not has_node(self.place, f"{cv.OVERVIEWS}/{scene}"):
            return (0,)
        return (0, *fresh_levels(self.place, scene, rows, self.grids[scene]))

    def _has_level(self, scene: str, level: int) -> bool:
        return is_known(level, self.levels(scene), f"{self.place.name} {scene}")

    def layers(self, scene: str) -> tuple[str, ...]:
        """Return the names of a scene's layers: rasters on its grid that are kept as they are."""
        return tuple(self.node_attrs(scene).get(cv.LAYERS, ()))

    def node_attrs(self, scene: str, array: str = "") -> Document:
        """Return the attributes of a scene's group, or of an array or layer of it, as they now are."""
        node = f"{cv.SCENES}/{scene}/{array}".rstrip("/")
        try:
            attributes: Document = read_node(self.place, node)["attributes"]
        except FileNotFoundError:
            raise CorruptStoreError(
                f"the document of {node} was expected in {self.place}, got none. Take the scene out "
                f"(`sarzarr remove {self.place.name} {scene}`), and ingest it again."
            ) from None
        return attributes

    def layer_attrs(self, scene: str, layer: str) -> Document:
        """Return the attributes of a layer; `NotInStoreError` where the scene has none of that name."""
        self.facts(scene)
        if layer not in (known := self.layers(scene)):
            raise NotInStoreError(
                f"layer of {scene!r} must be one of {', '.join(known) or 'none'}, got {layer!r}."
            )
        return self.node_attrs(scene, layer)

    def scenes_with(self, layer: str) -> tuple[str, ...]:
        """Return the ids of the scenes that have a layer of that name, sorted."""
        return tuple(scene for scene in self.scenes if layer in self.layers(scene))

    def pixels(self, scene: str, array: str) -> StoredPixels:
        """Return the stored pixels of an array, of its flags or of a layer of a scene, as Dask takes them.

        Raises `CorruptStoreError` where its document or manifest is absent or not as it was sealed, or a file is
        absent or of another length.
        """
        return StoredPixels.of(self.place, read_layout(self.place, f"{cv.SCENES}/{scene}/{array}"))

    def open_scene(self, scene: str) -> xr.Dataset:
        """Open a scene lazily: float32 in [0, 1], NaN where not measured, flags and layers; a Dask chunk a shard.

        Raises `CorruptStoreError` where a file of it is absent or short or a document is not as it was sealed, and
        while pixels are read where a chunk fails its checksum or is not the one that belongs there.
        """
        opened = self._open(scene)
        coded = {name: from_codes(opened[name]) for name in self._coded(scene)}
        for name, values in coded.items():
            values.attrs = {k: v for k, v in opened[name].attrs.items() if k not in cv.CODED}
        others = xr.decode_cf(opened.drop_vars(coded), decode_times=False, decode_coords=False)
        return handed_out(others.assign(coded)[sorted(map(str, opened.data_vars))])

    def _coded(self, scene: str) -> list[str]:
        """Return the names of a scene's arrays that are stored as uint16 codes."""
        return [str(row["name"]) for row in self.facts(scene) if row["dtype"] == "uint16"]

    def _open(self, scene: str) -> xr.Dataset:
        """Return a scene's arrays in their stored dtypes, and its coordinates.

        Arrays that others have put beside those of sarzarr are read by zarr-python.
        """
        rows, group, grid = self.facts(scene), f"{cv.SCENES}/{scene}", self.grid(scene)
        shard = int(rows[0]["shard"]) or cv.SHARD
        names = {*(row[k] for row in rows for k in ("name", "flags")), *self.layers(scene)} - {""}
        pixels = {name: self.pixels(scene, name) for name in sorted(names)}
        coordinates = stored_coordinates(grid)
        for name, variable in coordinates.items():
            (read_small_array if variable.ndim else read_node)(self.place, f"{group}/{name}")
        for name, stored in pixels.items():
            if stored.shape != grid.shape:
                raise CorruptStoreError(
                    f"{grid.height} x {grid.width} pixels were expected of {self.place}/{group}/{name}, got "
                    f"{stored.shape}. {REMEDY}"
                )
        for name in {*nodes_below(self.place, group)} - {*names, *coordinates}:
            self._check_other(f"{group}/{name}")
        opened: xr.Dataset = xr.open_zarr(
            self.place.zarr(),
            group=group,
            chunks={"y": shard, "x": shard},
            consolidated=False,
            decode_coords="all",
            mask_and_scale=False,
        )
        for name, stored in pixels.items():
            opened[name] = opened[name].copy(data=stored.lazy(shard))
        for about in (opened.attrs, *(variable.attrs for variable in opened.variables.values())):
            about.pop(cv.SEAL, None)
        return opened.assign_coords(coordinates)

    def _check_other(self, node: str) -> None:
        """Refuse what others put into a scene where zarr-python would take gigabytes, or leave the store."""
        with named(self.place, f"{node}/zarr.json"):
            document = read_json(self.place, f"{node}/zarr.json")
            if document["node_type"] == "array":
                check_array(document)
        check_links(self.place, node)

    def db(self, scene: str, array: str | None = None, *, level: int = 0) -> Any:
        """Return a scene in dB, float32, NaN where not valid; nonpositive power is at the stored floor.

        Parameters
        ----------
        scene
            Its id.
        array
            One array (a DataArray); all of them (a Dataset) if left out.
        level
            One of its `levels`: means of power over 2^level x 2^level pixels, those that are valid.
        """
        return self._values(scene, array, level, power=False)

    def power(self, scene: str, array: str | None = None, *, level: int = 0) -> Any:
        """Return a scene as linear power, as `db`; nonpositive is 0, on levels where all is, the stored floor."""
        return self._values(scene, array, level, power=True)

    def _values(self, scene: str, array: str | None, level: int, *, power: bool) -> Any:
        self.rows(scene)  # raises where it has no backscatter
        rows = self.facts(scene)
        names = [str(row["name"]) for row in rows]
        if array is not None and array not in names:
            raise NotInStoreError(f"array of {scene!r} must be one of {', '.join(names)}, got {array!r}.")
        grid, some = self.grid(scene, level), names if array is None else [array]
        opened = open_level(self.place, scene, level, grid, some) if level else self._open(scene)
        return scene_values(opened, rows, array, power=power)

    def histogram(self, scene: str, array: str) -> Histogram:
        """Return the dB histogram of one array of a scene."""
        return read_histogram(self.place, f"{cv.HISTOGRAMS}/{scene}/{array}")

    def is_clear(self, scene: str, array: str) -> bool:
        """Whether every pixel of an array is valid and positive: its histogram's document says it, without counts."""
        return is_clear(self.place, f"{cv.HISTOGRAMS}/{scene}/{array}")

    def patches(
        self, name: str = cv.DEFAULT_INDEX, split: str | None = None, where: str | None = None
    ) -> xr.Dataset:
        """Return a patch table: one row a patch, with its ``scene`` and ``array`` by name.

        Parameters
        ----------
        name
            Which index.
        split
            ``train``, ``val`` or ``test`` of the newest split version, ``v2:val``, or ``fold0:val``; all if left
            out.
        where
            A condition on columns of the index and of the catalog, ``incidence < 40 and mean_db > -20``;
            see `sarzarr.store.conditions`.

        Returns
        -------
        xarray.Dataset
            Columns over ``patch``: scene, array, row, col (top-left pixel), id, valid_fraction,
            unsaturated_fraction, mean_db, std_db; and the shares of layers that are known
            (`sarzarr.index_layers`).
        """
        table = self.patch_columns(name)
        unwritten = (layer for index, layer in self.unwritten_shares if index == name)
        layers = sorted({*nodes_below(self.place, f"{cv.SHARES}/{name}"), *unwritten})
        table = self.with_shares(table, name, [layer for layer in layers if self.has_shares(name, layer)])
        if split is not None:
            table = table.isel(patch=np.flatnonzero(self.split_mask(table, split)))
        if where is not None:
            table = table.isel(patch=np.flatnonzero(self.where_mask(table, where)))
        owner = table["owner"].values
        named = {
            column: ("patch", table[f"owner_{column}"].values[owner].astype(object))
            for column in ("scene", "array")
        }
        return xr.Dataset(named, attrs=table.attrs).assign(
            {k: v for k, v in table.data_vars.items() if v.dims == ("patch",) and k != "owner"}
        )

    @cached_property
    def unwritten(self) -> dict[str, xr.Dataset]:
        """Patch tables by name that were made for a store that cannot be written to: they live as long as this."""
        return {}

    @cached_property
    def unwritten_shares(self) -> dict[tuple[str, str], xr.Dataset]:
        """Tables of shares by (index, layer), likewise."""
        return {}

    def kept_shares(self, index: str, layer: str) -> xr.Dataset | None:
        """Return the table of a layer's shares in the patches of an index; None where none is intact."""
        if (index, layer) in self.unwritten_shares:
            return self.unwritten_shares[index, layer]
        try:
            return (
                read_table(self.place, key) if has_node(self.place, key := shares_key(index, layer)) else None
            )
        except CorruptStoreError:
            return None  # it is found again

    def layer_stamps(self, index: str, layer: str) -> dict[str, str]:
        """Return what the shares of a layer depend on, of each scene with backscatter that has it."""
        known = self.unwritten.get(index)
        about = read_node(self.place, f"{cv.PATCHES}/{index}")["attributes"] if known is None else known.attrs
        cut = " ".join(str(about[k]) for k in ("size", "stride", "edge"))
        scenes = dict.fromkeys(self.catalog["scene"].values.tolist())
        held = {scene: self.node_attrs(scene, layer) for scene in scenes if layer in self.layers(scene)}
        return {s: f"{layer_stamp(self.place, s, layer, attrs)} {cut}" for s, attrs in held.items()}

    def has_shares(self, index: str, layer: str) -> bool:
        """Whether the shares of a layer in the patches of an index are known, of the pixels that it now has."""
        shares = self.kept_shares(index, layer)
        if shares is None:
            return False
        known = zip(shares["owner_scene"].values.tolist(), shares["owner_stamp"].values.tolist(), strict=True)
        return self.layer_stamps(index, layer).items() <= dict(known).items()

    def with_shares(self, table: xr.Dataset, index: str, layers: Sequence[str]) -> xr.Dataset:
        """Return a `patch_columns` table with the shares of layers that are known; NaN in scenes without one."""
        columns = dict[str, Array]()
        for layer in layers:
            if (shares := self.kept_shares(index, layer)) is not None:
                columns = share_columns(table, shares) | columns
        own = set(columns_of(table, self.catalog).names) if columns else set()
        return table.assign({name: ("patch", column) for name, column in columns.items() if name not in own})

    @property
    def patch_indices(self) -> tuple[str, ...]:
        """Names of the patch indices, sorted."""
        return tuple(sorted({*nodes_below(self.place, cv.PATCHES), *self.unwritten}))

    def patch_columns(self, name: str = cv.DEFAULT_INDEX) -> xr.Dataset:
        """Return a patch table: ``owner`` indexes ``owner_scene`` and ``owner_array``, which are sorted."""
        if name in self.unwritten:
            return patches_in_order(self.unwritten[name])
        if not has_node(self.place, f"{cv.PATCHES}/{name}"):
            known, sets = self.patch_indices, nodes_below(self.place, cv.SAMPLES)
            if sets and not self.scenes:
                raise NotInStoreError(
                    f"scenes were expected in {self.place.name}, got samples alone ({', '.join(sets)}). Read them "
                    f"with sarzarr.SampleReader(store, samples={sets[0]!r})."
                )
            raise NotInStoreError(f"patch index must be one of {', '.join(known) or 'none'}, got {name!r}.")
        table = read_table(self.place, f"{cv.PATCHES}/{name}")
        with named(self.place, f"{cv.PATCHES}/{name}/zarr.json"):
            check_patches(table, self.catalog)
        return patches_in_order(table)

    def split_mask(self, table: xr.Dataset, split: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return (patches,) bool: which of a `patch_columns` table touch only cells of one side of a split.

        ``split`` is as in `patches`. Patches of scenes that the version does not know are on no side.

        Raises `NotInStoreError` where there is no such version.
        """
        record, wanted = read_side(self.place, split)
        return record.patch_mask(table, wanted, self.grids)

    def where_mask(self, table: xr.Dataset, where: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return (patches,) bool: for which of a `patch_columns` table a condition holds (`store.conditions`)."""
        return where_mask(where, columns_of(table, self.catalog))

    def __repr__(self) -> str:
        held = f"{counted(len(self.scenes), 'scene')}, {counted(self.catalog.sizes['array'], 'array')}"
        return f"<sarzarr.Store {self.place.name!r}: {held}>"

    _repr_html_ = store_html


AnyStore = Store | Place | str | Path
"""A store as every call takes it: open, or its place, or its path."""


def open_store(store: AnyStore) -> Store:
    """Open a store for reading: at a path, or in another place. An open one is given back as it is.

    Raises `StoreNotFoundError` where there is no Zarr store there, or it is not a sarzarr store; `StoreSchemaError`
    where it was written by another schema, with the remedy: `sarzarr.export.copy_store` brings schema 1 over.
    """
    if isinstance(store, Store):
        return store
    opened = open_older(store)
    if opened.schema != cv.SCHEMA_VERSION:
        raise StoreSchemaError(
            f"schema {cv.SCHEMA_VERSION} was expected, got {opened.schema} in {opened.place.name!r}. "
            f"Bring it over: `sarzarr copy {shlex.quote(str(opened.place))} NEW`."
        )
    return opened


def open_older(store: AnyStore) -> Store:
    """Open a store as `open_store`, or one of schema 1, which a copy alone can read."""
    if isinstance(store, Store):
        return store
    if isinstance(store, list | tuple):
        raise InvalidInputError(
            f"one store was expected, got a list of {len(store)}. PatchReader and ZarrPatchDataset read several."
        )
    if isinstance(store, str | Path) and "://" in str(store):
        raise StoreNotFoundError(
            f"a store must be a local directory, got {store!r}. Copy it to this machine first."
        )
    place = Folder(Path(store)) if isinstance(store, str | Path) else store
    if isinstance(place, Folder):
        settle(place.path)
    try:
        document = read_json(place, "zarr.json")
    except FileNotFoundError:
        raise StoreNotFoundError(
            f"a sarzarr store was expected at {str(place)!r}, got {_what_is_in(place)}. "
            "Make one with `sarzarr ingest SCENES... -o STORE`."
        ) from None
    attributes = document.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    if cv.SEAL not in attributes and not isinstance(attributes.get(cv.SARZARR), dict):
        raise StoreNotFoundError(
            f"a sarzarr store was expected at {str(place)!r}, got another Zarr hierarchy. Open that with xarray."
        )
    if cv.SEAL not in attributes:
        if attributes[cv.SARZARR].get("version") == cv.SCHEMA_VERSION:
            raise StoreSchemaError(
                f"a seal was expected in {place}/zarr.json, got none: this is a trial store of schema "
                f"{cv.SCHEMA_VERSION} from before documents had seals. Make the store again from its rasters."
            )
        place = place.unsealed()
    opened = Store(place)
    vars(opened)["attrs"] = without_seal(place, "", document)[0]["attributes"]
    if opened.schema not in (cv.COPIED_SCHEMA, cv.SCHEMA_VERSION):
        is_newer = (opened.schema or 0) > cv.SCHEMA_VERSION
        remedy = "Upgrade sarzarr" if is_newer else "Make the store again from its rasters"
        version = attributes[cv.SARZARR].get("version")
        raise StoreSchemaError(
            f"schema {cv.SCHEMA_VERSION} was expected, got {version!r} in {place.name!r}. {remedy}."
        )
    return opened


def _what_is_in(place: Place) -> str:
    if isinstance(place, Folder) and place.path.is_file():
        return "a file"
    return "another folder" if place.children() or place.head("") else "nothing there"


def create_store(path: str | Path) -> Store:
    """Create an empty store, whole or not at all, or open the one that is there; the caller is in `writing`."""
    place = Folder(local_folder(path, "a store"))
    if place.head("zarr.json"):
        return open_store(place)
    if place.children():
        raise InvalidInputError(
            f"a new or empty directory was expected at {str(path)!r}, got one with other files in it. "
            "Name another place for the store."
        )
    with whole_folder(place.path.resolve(), once=True) as folder:
        new = Folder(folder)
        ensure_groups(new, cv.SCENES, cv.PATCHES)
        write_table(new, cv.CATALOG, catalog_of(()), rows_per_chunk=CATALOG_ROWS)
        schema = {"schema": cv.SCHEMA, "version": cv.SCHEMA_VERSION}
        write_node(new, "", root_document({cv.SARZARR: schema, cv.BOUNDS: {}}))
        consolidate(Store(new))
    return Store(place)
