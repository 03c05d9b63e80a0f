"""The metadata documents of a store: plain Zarr v3 JSON, written whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.files import whole_file
from sarzarr.grids.grid import Grid
from sarzarr.store.codecs import get_codec

Document = dict[str, Any]


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
    """A name in `sarzarr.store.codecs.CODECS`."""
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
    with whole_file(path) as partial:
        partial.write_text(json.dumps(document, indent=1, allow_nan=False))


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
    return {
        k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in written[cv.SPATIAL_REF].attrs.items()
    }


def write_coordinates(folder: Path, grid: Grid) -> None:
    """Write ``y``, ``x`` and, where there is a plain affine, ``spatial_ref`` into a scene's folder."""
    geographic = False
    if grid.is_georeferenced and not grid.is_rotated:
        from rasterio.crs import CRS

        geographic = bool(CRS.from_wkt(grid.crs_wkt).is_geographic)
        scalar = array_document((), Encoding(dtype="uint8", chunk=1, shard=0), dims=())
        write_json(
            folder / cv.SPATIAL_REF / "zarr.json", {**scalar, "attributes": spatial_ref_attributes(grid)}
        )
        names = (
            ("latitude", "longitude")
            if geographic
            else ("projection_y_coordinate", "projection_x_coordinate")
        )
        units = ("degrees_north", "degrees_east") if geographic else ("m", "m")
        about = [{cv.STANDARD_NAME: n, cv.UNITS: u} for n, u in zip(names, units, strict=True)]
    else:
        about = [{cv.LONG_NAME: f"pixel centre, {axis}", cv.UNITS: "1"} for axis in ("row", "column")]
    for dim, values, attributes in zip("yx", grid.coordinates(), about, strict=True):
        encoding = Encoding(dtype="float64", codec="zstd", chunk=len(values), shard=0)
        write_json(
            folder / dim / "zarr.json",
            array_document(
                (len(values),), encoding, dims=(dim,), attributes={**attributes, "axis": dim.upper()}
            ),
        )
        payload, crc = get_codec(encoding.codec).encode(np.ascontiguousarray(values, "<f8"))
        (folder / dim / "c").mkdir(exist_ok=True)
        (folder / dim / "c" / "0").write_bytes(bytes(payload) + crc)
