"""The store: its documents, its tables, and how a scene enters it all at once.

Metadata documents are plain Zarr v3 JSON, written by this module: a scene's directory is made
beside the store and renamed into ``scenes/``, a table's likewise, so a reader sees the old state
or the new one. Nothing here reads or writes pixels; see `sarzarr.shards` and `sarzarr.chunks`.
"""

import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numcodecs import VLenUTF8

from sarzarr import conventions as cv
from sarzarr.bounds import ClipBounds, Histogram
from sarzarr.codecs import get_codec
from sarzarr.errors import (
    InvalidInputError,
    MixedBoundsError,
    NotInStoreError,
    StoreNotFoundError,
    StoreSchemaError,
)
from sarzarr.grid import Grid
from sarzarr.radiometry import denormalize, from_codes, from_db

Document = dict[str, Any]
COLUMNS: Final = "columns"
"""Attribute of a table: the names of its columns, in order."""
TABLE_READ_TRIES: Final = 20
"""How often a table that is being replaced is looked for again, 50 ms apart."""


# ------------------------------------------------------------------ documents
def group_document(attributes: Mapping[str, Any] | None = None) -> Document:
    """Return the ``zarr.json`` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How an array's pixels become bytes."""

    dtype: str = "uint16"
    """``uint16`` (codes of [0, 1]), ``float32``, ``float16``; ``uint8`` for flags."""
    codec: str = "none"
    """A name in `sarzarr.codecs.CODECS`."""
    chunk: int = cv.CHUNK
    """Rows and columns of a chunk."""
    shard: int = cv.SHARD
    """Rows and columns of a shard; 0 writes a file a chunk."""

    def __post_init__(self) -> None:
        get_codec(self.codec)
        if self.chunk < 1 or self.shard % self.chunk:
            raise InvalidInputError(
                f"shard must be a multiple of the {self.chunk}-pixel chunk (or 0), got {self.shard}."
            )

    @property
    def file_size(self) -> int:
        """Rows and columns of one file: the shard, or the chunk where there are no shards."""
        return self.shard or self.chunk

    @property
    def grid(self) -> tuple[int, int]:
        """Chunks of a shard, (rows, columns); (0, 0) where there are no shards."""
        n = self.shard // self.chunk
        return n, n


def array_document(
    shape: tuple[int, ...],
    encoding: Encoding,
    *,
    dims: tuple[str, ...],
    attributes: Mapping[str, Any] | None = None,
) -> Document:
    """Return the ``zarr.json`` of an array whose fill value is 0."""
    dtype = np.dtype(encoding.dtype)
    inner = get_codec(encoding.codec).documents(dtype)
    codecs: list[Document] = inner
    if encoding.shard:
        codecs = [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [encoding.chunk] * len(shape),
                    "codecs": inner,
                    "index_codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        {"name": "crc32c"},
                    ],
                    "index_location": "end",
                },
            }
        ]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": encoding.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [encoding.file_size] * len(shape)},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0 if dtype.kind in "iu" else 0.0,
        "codecs": codecs,
        "attributes": dict(attributes or {}),
        "dimension_names": list(dims),
        "storage_transformers": [],
    }


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document beside its place and rename it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    partial.write_text(json.dumps(document, indent=1, allow_nan=False))
    partial.replace(path)


def read_json(path: Path) -> Document:
    """Read a JSON document."""
    document: Document = json.loads(path.read_text())
    return document


# ------------------------------------------------------------------ a scene's documents
def spatial_attributes(grid: Grid) -> Document:
    """Return the ``proj:`` and ``spatial:`` attributes of a grid; none where it has no CRS."""
    if grid.crs_wkt is None:
        return {}
    from rasterio.crs import CRS

    authority = CRS.from_wkt(grid.crs_wkt).to_authority()
    crs = {cv.PROJ_CODE: ":".join(authority)} if authority else {cv.PROJ_WKT2: grid.crs_wkt}
    return {
        cv.ZARR_CONVENTIONS: [dict(c) for c in cv.ZARR_CONVENTIONS_DOCUMENT],
        **crs,
        cv.SPATIAL_DIMENSIONS: ["y", "x"],
        cv.SPATIAL_TRANSFORM: list(grid.transform),
        cv.SPATIAL_SHAPE: list(grid.shape),
        cv.SPATIAL_BBOX: list(grid.bbox),
    }


def spatial_ref_attributes(grid: Grid) -> Document:
    """Return the CF grid mapping of a grid, as rioxarray writes it."""
    import rioxarray  # noqa: F401  (registers .rio)
    from affine import Affine

    written = xr.Dataset().rio.write_crs(grid.crs_wkt).rio.write_transform(Affine(*grid.transform))
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in written[cv.SPATIAL_REF].attrs.items()}


def write_coordinates(folder: Path, grid: Grid) -> None:
    """Write ``y``, ``x`` and, where there is a plain affine, ``spatial_ref`` into a scene's folder."""
    geographic = False
    if grid.is_georeferenced and not grid.is_rotated:
        from rasterio.crs import CRS

        geographic = bool(CRS.from_wkt(grid.crs_wkt).is_geographic)
        scalar = array_document((), Encoding(dtype="uint8", chunk=1, shard=0), dims=())
        write_json(folder / cv.SPATIAL_REF / "zarr.json", {**scalar, "attributes": spatial_ref_attributes(grid)})
        names = ("latitude", "longitude") if geographic else ("projection_y_coordinate", "projection_x_coordinate")
        units = ("degrees_north", "degrees_east") if geographic else ("m", "m")
        about = [{cv.STANDARD_NAME: n, cv.UNITS: u} for n, u in zip(names, units, strict=True)]
    else:
        about = [{cv.LONG_NAME: f"pixel centre, {axis}", cv.UNITS: "1"} for axis in ("row", "column")]
    for dim, values, attributes in zip("yx", grid.coordinates(), about, strict=True):
        encoding = Encoding(dtype="float64", codec="zstd", chunk=len(values), shard=0)
        write_json(
            folder / dim / "zarr.json",
            array_document((len(values),), encoding, dims=(dim,), attributes={**attributes, "axis": dim.upper()}),
        )
        payload, crc = get_codec(encoding.codec).encode(np.ascontiguousarray(values, "<f8"))
        (folder / dim / "c").mkdir(exist_ok=True)
        (folder / dim / "c" / "0").write_bytes(bytes(payload) + crc)


# ------------------------------------------------------------------ bounds
@dataclass(frozen=True, kw_only=True)
class BoundsEntry:
    """What 0 and 1 stand for in one (polarization, quantity) group, stored and delivered."""

    vmin: float
    """dB that 0 stands for in the stored arrays."""
    vmax: float
    """dB that 1 stands for in the stored arrays."""
    clip_vmin: float
    """dB that 0 stands for in a training batch."""
    clip_vmax: float
    """dB that 1 stands for in a training batch."""
    clip_method: str = "percentile"
    """How the clip was found, with its parameters."""

    @property
    def stored(self) -> ClipBounds:
        """The stored range."""
        return ClipBounds(self.vmin, self.vmax)

    @property
    def clip(self) -> ClipBounds:
        """The recommended clip."""
        return ClipBounds(self.clip_vmin, self.clip_vmax)


def bounds_key(array: str, quantity: str) -> str:
    """Return the name of the group that shares clip bounds: ``vv/sigma0``."""
    return f"{array}/{quantity}"


# ------------------------------------------------------------------ the store
@dataclass(frozen=True)
class Store:
    """An open store: a path, and what its documents and tables say. Holds no handle."""

    root: Path
    """The ``.zarr`` directory."""

    @cached_property
    def attrs(self) -> Document:
        """Attributes of the root group."""
        attributes: Document = read_json(self.root / "zarr.json")["attributes"]
        return attributes

    @cached_property
    def catalog(self) -> xr.Dataset:
        """One row a (scene, array), over the dimension ``array``, sorted by scene and array."""
        return read_table(self.root / cv.CATALOG)

    @property
    def scenes(self) -> tuple[str, ...]:
        """Ids of the scenes, sorted."""
        return tuple(dict.fromkeys(self.catalog["scene"].values.tolist()))

    @cached_property
    def bounds(self) -> Mapping[str, BoundsEntry]:
        """Stored range and clip of each group, by `bounds_key`."""
        known = {f.name for f in fields(BoundsEntry)}
        return {
            key: BoundsEntry(**{k: v for k, v in entry.items() if k in known})
            for key, entry in self.attrs[cv.BOUNDS].items()
        }

    @property
    def preprocessing_params(self) -> dict[str, float]:
        """``{"vmin", "vmax"}``: the clip that batches of this store are made with, in dB.

        Raises
        ------
        MixedBoundsError
            The store has groups with different clips; ask a dataset that selects one of them.
        """
        return single_clip(self.bounds)

    def rows(self, scene: str) -> xr.Dataset:
        """Return the catalog rows of a scene; `NotInStoreError` where there is none."""
        found = self.catalog.isel(array=np.flatnonzero(self.catalog["scene"].values == scene))
        if not found.sizes["array"]:
            near = ", ".join(self.scenes[:5]) + (", ..." if len(self.scenes) > 5 else "")
            raise NotInStoreError(f"scene must be one of {len(self.scenes)} ({near}), got {scene!r}.")
        return found

    def open_scene(self, scene: str) -> xr.Dataset:
        """Open a scene's group as stored: codes scaled to [0, 1] and flags, lazy, a Dask chunk a shard."""
        shard = int(self.rows(scene)["shard"].values[0]) or cv.SHARD
        return xr.open_zarr(
            self.root,
            group=f"{cv.SCENES}/{scene}",
            chunks={"y": shard, "x": shard},
            consolidated=False,
            decode_coords="all",
        )

    def db(self, scene: str, array: str | None = None) -> Any:
        """Return a scene in dB, float32, NaN where not valid; nonpositive power is at the stored floor.

        Parameters
        ----------
        scene
            Its id.
        array
            One array (a DataArray); all of them (a Dataset) if left out.
        """
        return self._values(scene, array, power=False)

    def power(self, scene: str, array: str | None = None) -> Any:
        """Return a scene as linear power, float32, NaN where not valid; nonpositive power is 0."""
        return self._values(scene, array, power=True)

    def _values(self, scene: str, array: str | None, *, power: bool) -> Any:
        rows = self.rows(scene)
        names = rows["name"].values.tolist()
        if array is not None and array not in names:
            raise NotInStoreError(f"array of {scene!r} must be one of {', '.join(names)}, got {array!r}.")
        shard = int(rows["shard"].values[0]) or cv.SHARD
        opened = xr.open_zarr(
            self.root,
            group=f"{cv.SCENES}/{scene}",
            chunks={"y": shard, "x": shard},
            consolidated=False,
            decode_coords="all",
            mask_and_scale=False,
        )
        out = {}
        for i, name in enumerate(names):
            if array not in (None, name):
                continue
            stored, flags = opened[name], opened[name + cv.FLAGS_SUFFIX]
            z = from_codes(stored) if stored.dtype == np.uint16 else stored.astype(np.float32)
            db = denormalize(z, (float(rows["vmin"].values[i]), float(rows["vmax"].values[i])))
            values = from_db(db).where(flags != cv.Flag.NONPOSITIVE, 0) if power else db
            values = values.where(flags < cv.Flag.NODATA)
            values.attrs = {
                k: v for k, v in stored.attrs.items() if k in (cv.QUANTITY, cv.GRID_MAPPING, cv.SAR_POLARIZATIONS)
            }
            values.attrs |= {
                cv.REPRESENTATION: str(cv.Representation.POWER if power else cv.Representation.DB),
                cv.UNITS: "1" if power else "dB",
            }
            out[name] = values.rename(name if power else f"{name}_db")
        if array is not None:
            return out[array]
        named = {v.name: v for v in out.values()}
        return xr.Dataset(named, attrs=opened.attrs)

    def histogram(self, scene: str, array: str) -> Histogram:
        """Return the dB histogram of one array of a scene."""
        return read_histogram(self.root / cv.HISTOGRAMS / scene / array)

    def patches(self, name: str = cv.DEFAULT_INDEX, split: str | None = None) -> xr.Dataset:
        """Return a patch table: one row a patch, with its ``scene`` and ``array`` by name.

        Parameters
        ----------
        name
            Which index.
        split
            ``train``, ``val`` or ``test`` of the newest split version, or ``v2:val``; all if left out.

        Returns
        -------
        xarray.Dataset
            Columns over ``patch``: scene, array, row, col (top-left pixel), id, valid_fraction,
            unsaturated_fraction, mean_db, std_db.
        """
        table = self.patch_columns(name)
        if split is not None:
            table = table.isel(patch=np.flatnonzero(self.split_mask(table, split)))
        owner = table["owner"].values
        named = {
            column: ("patch", table[f"owner_{column}"].values[owner].astype(object))
            for column in ("scene", "array")
        }
        return xr.Dataset(named, attrs=table.attrs).assign(
            {k: v for k, v in table.data_vars.items() if v.dims == ("patch",) and k != "owner"}
        )

    def patch_columns(self, name: str = cv.DEFAULT_INDEX) -> xr.Dataset:
        """Return a patch table as stored: ``owner`` indexes ``owner_scene`` and ``owner_array``."""
        folder = self.root / cv.PATCHES / name
        if not (folder / "zarr.json").is_file():
            known = sorted(p.name for p in (self.root / cv.PATCHES).glob("*") if p.is_dir())
            raise NotInStoreError(f"patch index must be one of {', '.join(known) or 'none'}, got {name!r}.")
        return read_table(folder)

    def split_mask(self, table: xr.Dataset, split: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which patches of a `patch_columns` table belong to a split."""
        raise NotInStoreError(f"a split must be made before one is read, got {split!r}. Leave out split=.")

    def __repr__(self) -> str:
        return f"<sarzarr.Store {self.root.name!r}: {len(self.scenes)} scenes, {self.catalog.sizes['array']} arrays>"


def single_clip(bounds: Mapping[str, BoundsEntry]) -> dict[str, float]:
    """Return the one clip that all of ``bounds`` share as ``{"vmin", "vmax"}``; else `MixedBoundsError`."""
    pairs = {(b.clip_vmin, b.clip_vmax) for b in bounds.values()}
    if len(pairs) != 1:
        listed = "; ".join(f"{k}: {b.clip_vmin:.2f} to {b.clip_vmax:.2f} dB" for k, b in sorted(bounds.items()))
        raise MixedBoundsError(
            f"one clip for the selection was expected, got {len(pairs)} ({listed}). "
            "Select one group with polarizations= or scenes=, or pass clip=."
        )
    vmin, vmax = pairs.pop()
    return {"vmin": vmin, "vmax": vmax}


def open_store(path: str | Path) -> Store:
    """Open a store for reading.

    Raises
    ------
    StoreNotFoundError
        There is no Zarr store there, or it is not a sarzarr store.
    StoreSchemaError
        It was written by a newer schema.
    """
    if "://" in str(path):
        raise StoreNotFoundError(f"a store must be a local directory, got {path!r}. Copy it to this machine first.")
    root = Path(path)
    try:
        attributes = read_json(root / "zarr.json").get("attributes", {})
    except (FileNotFoundError, NotADirectoryError):
        raise StoreNotFoundError(
            f"a sarzarr store was expected at {str(path)!r}, got nothing there. "
            "Make one with `sarzarr ingest SCENES... -o STORE`."
        ) from None
    schema = attributes.get(cv.SARZARR)
    if not isinstance(schema, dict):
        raise StoreNotFoundError(
            f"a sarzarr store was expected at {str(path)!r}, got another Zarr hierarchy. Open that with xarray."
        )
    if schema.get("version") != cv.SCHEMA_VERSION:
        raise StoreSchemaError(
            f"schema version {cv.SCHEMA_VERSION} was expected, got {schema.get('version')!r}. Upgrade sarzarr."
        )
    return Store(root)


def create_store(path: str | Path) -> Store:
    """Create an empty store, or open the one that is there."""
    root = Path(path)
    if (root / "zarr.json").exists():
        return open_store(root)
    if root.exists() and any(root.iterdir()):
        raise InvalidInputError(
            f"a new or empty directory was expected at {str(path)!r}, got one with other files in it. "
            "Name another place for the store."
        )
    for group in (cv.SCENES, cv.HISTOGRAMS, cv.PATCHES):
        write_json(root / group / "zarr.json", group_document())
    write_table(root / cv.CATALOG, empty_catalog())
    schema = {"schema": cv.SCHEMA, "version": cv.SCHEMA_VERSION}
    write_json(root / "zarr.json", group_document({cv.SARZARR: schema, cv.BOUNDS: {}}))
    return open_store(root)


# ------------------------------------------------------------------ tables
def write_table(folder: Path, table: xr.Dataset) -> None:
    """Put a table of columns in the place of the one at ``folder``, whole; every column is checksummed."""
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    attributes = {**table.attrs, COLUMNS: [str(name) for name in table.data_vars]}
    for name, column in table.data_vars.items():
        _write_column(new / str(name), column.dims, column.values)
    write_json(new / "zarr.json", group_document(attributes))
    swap_in(new, folder)


def _write_column(folder: Path, dims: tuple[Any, ...], values: np.ndarray[Any, Any]) -> None:
    """Write one column as one chunk; text as Zarr's variable-length UTF-8."""
    zipped, is_text = get_codec("zstd"), values.dtype.kind in "OTU"
    dtype = "string" if is_text else values.dtype.name
    encoding = Encoding(dtype="uint8" if is_text else dtype, codec="zstd", chunk=1, shard=0)
    document = array_document(values.shape, encoding, dims=tuple(map(str, dims)))
    document["chunk_grid"]["configuration"]["chunk_shape"] = [max(n, 1) for n in values.shape]
    raw: Any = np.ascontiguousarray(values)
    if is_text:
        document |= {"data_type": "string", "fill_value": ""}
        document["codecs"][0] = {"name": "vlen-utf8"}
        raw = np.frombuffer(VLenUTF8().encode(values.astype(object)), np.uint8)
    write_json(folder / "zarr.json", document)
    if values.size:
        payload, crc = zipped.encode(raw)
        place = folder.joinpath("c", *["0"] * values.ndim)
        place.parent.mkdir(parents=True)
        place.write_bytes(bytes(payload) + crc)


def _read_column(folder: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    document = read_json(folder / "zarr.json")
    shape = tuple(document["shape"])
    is_text = document["data_type"] == "string"
    if not math.prod(shape):
        return document["dimension_names"], np.empty(shape, object if is_text else document["data_type"])
    stored = folder.joinpath("c", *["0"] * len(shape)).read_bytes()
    if is_text:
        return document["dimension_names"], VLenUTF8().decode(get_codec("zstd").decode(stored)).reshape(shape)
    values = np.empty(shape, document["data_type"])
    get_codec("zstd").decode_into(stored, values)
    return document["dimension_names"], values


def swap_in(new: Path, place: Path) -> None:
    """Rename a directory into its place; what was there is removed after."""
    old = place.with_name(f".{place.name}.{uuid.uuid4().hex}.old")
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def read_table(folder: Path) -> xr.Dataset:
    """Read a table into memory; one that is being replaced is waited for.

    Raises
    ------
    CorruptStoreError
        A column fails its checksum.
    """
    for attempt in range(TABLE_READ_TRIES):
        try:
            before = (folder / "zarr.json").stat().st_ino
            attributes = read_json(folder / "zarr.json")["attributes"]
            columns = {name: _read_column(folder / name) for name in attributes.pop(COLUMNS)}
            if (folder / "zarr.json").stat().st_ino == before:
                break
        except FileNotFoundError:
            if attempt == TABLE_READ_TRIES - 1:
                raise
        time.sleep(0.05)
    return xr.Dataset(columns, attrs=attributes)


def empty_catalog() -> xr.Dataset:
    """Return a catalog without rows."""
    return catalog_of(())


def catalog_of(rows: Iterable[Mapping[str, Any]]) -> xr.Dataset:
    """Return the catalog that holds ``rows``, sorted by scene and array name.

    Text that is not known is empty, a number that is not known is NaN.
    """
    ordered = sorted(rows, key=lambda r: (r["scene"], r["name"]))
    columns: dict[str, Any] = {}
    for name, kind in cv.CATALOG_SCHEMA.items():
        values = [row.get(name) for row in ordered]
        if kind == "text":
            columns[name] = ("array", np.array(["" if v is None else str(v) for v in values], dtype="T"))
        elif kind == "affine":
            columns[name] = (("array", "affine"), np.array(values, dtype="f8").reshape(len(ordered), 6))
        elif kind == "integer":
            columns[name] = ("array", np.array(values, dtype="i8"))
        else:
            columns[name] = ("array", np.array([np.nan if v is None else v for v in values], dtype="f8"))
    return xr.Dataset(columns)


def catalog_rows(catalog: xr.Dataset) -> list[dict[str, Any]]:
    """Return a catalog's rows; the inverse of `catalog_of`."""
    values = {name: catalog[name].values for name in cv.CATALOG_SCHEMA}
    return [{name: column[i] for name, column in values.items()} for i in range(catalog.sizes["array"])]


# ------------------------------------------------------------------ histograms
def write_histogram(folder: Path, histogram: Histogram) -> None:
    """Write one array's histogram: int64 counts over the stored range, and four counts in its attrs."""
    encoding = Encoding(dtype="int64", codec="zstd", chunk=cv.HISTOGRAM_BINS, shard=0)
    counts = {k: getattr(histogram, k) for k in ("under", "over", "nonpositive", "nodata")}
    attributes = {cv.VMIN: cv.DB_FLOOR, cv.VMAX: cv.DB_CEILING, cv.UNITS: "dB", **counts}
    payload, crc = get_codec(encoding.codec).encode(np.ascontiguousarray(histogram.counts, "<i8"))
    (folder / "c").mkdir(parents=True, exist_ok=True)
    (folder / "c" / "0").write_bytes(bytes(payload) + crc)
    document = array_document((cv.HISTOGRAM_BINS,), encoding, dims=("bin",), attributes=attributes)
    write_json(folder / "zarr.json", document)


def read_histogram(folder: Path) -> Histogram:
    """Read what `write_histogram` wrote."""
    attributes = read_json(folder / "zarr.json")["attributes"]
    counts = np.empty(cv.HISTOGRAM_BINS, np.int64)
    get_codec("zstd").decode_into((folder / "c" / "0").read_bytes(), counts)
    named = {k: int(attributes[k]) for k in ("under", "over", "nonpositive", "nodata")}
    return Histogram(counts=counts, **named)


# ------------------------------------------------------------------ commit
def sync_tree(folder: Path) -> None:
    """Flush every file below ``folder`` to the disk, so that a rename never precedes its data."""
    for at, _, names in os.walk(folder):
        for path in (Path(at), *(Path(at) / n for n in names)):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def commit_scenes(store: Store, staged: Mapping[str, Path], rows: Iterable[Mapping[str, Any]]) -> None:
    """Make staged scenes visible: directories are renamed into the store, then they enter the catalog.

    Each folder of ``staged`` holds ``scene/`` (the group) and ``histograms/``; ``rows`` are their
    catalog rows. A scene of the same id is replaced.
    """
    for scene, folder in staged.items():
        sync_tree(folder)
        swap_in(folder / "histograms", store.root / cv.HISTOGRAMS / scene)
        swap_in(folder / "scene", store.root / cv.SCENES / scene)
    kept = [r for r in catalog_rows(read_table(store.root / cv.CATALOG)) if r["scene"] not in staged]
    write_table(store.root / cv.CATALOG, catalog_of([*kept, *rows]))


def write_bounds(store: Store, bounds: Mapping[str, BoundsEntry]) -> Store:
    """Write the bounds of groups into the root's attrs and onto every array of those groups."""
    document = read_json(store.root / "zarr.json")
    attributes = document["attributes"]
    merged = {**attributes[cv.BOUNDS], **{k: asdict(b) for k, b in bounds.items()}}
    attributes[cv.BOUNDS] = dict(sorted(merged.items()))
    ranges = {(b["vmin"], b["vmax"]) for b in merged.values()}
    for key in (cv.VMIN, cv.VMAX):
        attributes.pop(key, None)
    if len(ranges) == 1:
        attributes[cv.VMIN], attributes[cv.VMAX] = ranges.pop()
    catalog = read_table(store.root / cv.CATALOG)
    for scene, name, key in zip(
        catalog["scene"].values, catalog["name"].values, catalog["bounds_key"].values, strict=True
    ):
        if key in bounds:
            place = store.root / cv.SCENES / scene / name / "zarr.json"
            array = read_json(place)
            clip = {
                cv.CLIP_VMIN: bounds[key].clip_vmin,
                cv.CLIP_VMAX: bounds[key].clip_vmax,
                cv.CLIP_METHOD: bounds[key].clip_method,
            }
            if any(array["attributes"].get(k) != v for k, v in clip.items()):
                array["attributes"] |= clip
                write_json(place, array)
    write_json(store.root / "zarr.json", document)
    return open_store(store.root)


def consolidate(store: Store) -> None:
    """Gather the documents of every node into the root's, where xarray looks for them.

    Written here and not by zarr-python, which warns that consolidated metadata is not part of
    the Zarr v3 specification; readers that do not know it ignore it (``must_understand: false``).
    """
    root = read_json(store.root / "zarr.json")
    found: dict[str, Document] = {}
    for place in sorted(store.root.rglob("zarr.json")):
        name = place.parent.relative_to(store.root).as_posix()
        if name != "." and not any(part.startswith(".") for part in name.split("/")):
            found[name] = read_json(place)
    root["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": found}
    write_json(store.root / "zarr.json", root)


Edge = Literal["drop", "shift", "pad"]
