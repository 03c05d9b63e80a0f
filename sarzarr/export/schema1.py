"""Schema 1, as far as a copy must know it: what its values, documents and histograms meant.

Codes 0 to 65535 were 0.0 to 1.0, and 0 was also what had not been measured: flags alone told. Every fill value was 0,
chunks of flags whose every pixel was valid were left out, and histograms had two bins to a step of those codes.
"""

import base64
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from crc32c import crc32c

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.grids.grid import Grid
from sarzarr.patches.clips import recommend_clips
from sarzarr.pixels.bounds import BIN_WIDTH_DB
from sarzarr.pixels.kernels import HALF_CODES
from sarzarr.pixels.radiometry import to_codes
from sarzarr.store.commit import write_bounds
from sarzarr.store.documents import (
    Document,
    Encoding,
    cf_attributes,
    cf_fill,
    named,
    read_json,
    spatial_attributes,
)
from sarzarr.store.free_values import free_value
from sarzarr.store.manifest import ShardRecord
from sarzarr.store.place import Place
from sarzarr.store.shards import EMPTY
from sarzarr.store.store import Store

STEPS: Final = 65535
"""Steps of its codes from 0.0 to 1.0, and the code of 1.0."""
_CLIP: Final = (cv.CLIP_VMIN, cv.CLIP_VMAX, cv.CLIP_METHOD)
_PLACE: Final = ("proj:", "spatial:", "zarr_conventions")
"""Beginnings of attributes that told every array's place, and today tell the scene's."""


@dataclass(frozen=True)
class OlderRecord:
    """The record of one file in a manifest of schema 1."""

    size: int
    """Bytes of the file; 0 where every chunk is all fill value and there is no file."""
    digest: int
    """CRC-32C of the file's index followed by its chunks' checksums in C order of the chunks."""
    chunks: int
    """Chunks that the file holds."""

    def lists(self, record: ShardRecord, *, is_sharded: bool) -> bool:
        """Return whether it is the record of a file that claims to hold what ``record`` says."""
        entries, held = record.entries, record.entries["size"] > 0
        index = np.full((len(entries), 2), EMPTY, "<u8")
        index[held] = np.stack([entries["offset"][held], entries["size"][held]], axis=1)
        begin = crc32c(index.tobytes()) if is_sharded else 0
        return (self.size, self.digest) == (record.size, crc32c(entries["crc"][held].tobytes(), begin))


def older_records(place: Place, array: str) -> dict[str, OlderRecord]:
    """Return the records of an array's files by key.

    Raises `CorruptStoreError` where the manifest is no JSON of that kind, `MissingFileError` without one.
    """
    name = f"{array}/{cv.MANIFEST}"
    with named(place, name):
        return {key: OlderRecord(*record) for key, record in read_json(place, name)["shards"].items()}


def as_schema_2(values: Array, dtype: str) -> Array:
    """Return the values of pixels that were measured, uint16 codes or floats in [0, 1], as ``dtype`` of today.

    >>> as_schema_2(np.array([0, 32767, 32768, 65535], np.uint16), "uint16")
    array([    1, 32768, 32768, 65535], dtype=uint16)
    """
    if values.dtype == np.uint16 and dtype == "uint16":
        return values + (values <= STEPS // 2)  # the nearest of one step fewer
    floats = values
    if values.dtype == np.uint16:
        floats = np.multiply(values, 1 / STEPS, dtype=np.float32)
    if dtype == "uint16":
        return to_codes(floats.astype(np.float32, copy=False))
    return floats.astype(dtype)


def rebinned(counts: Array) -> Array:
    """Return (131069,) int64: the counts (131071,) of its histograms in the bins of today, each by its middle."""
    middles = 2 * np.arange(counts.size, dtype=np.int64) + 1
    out = np.zeros(cv.HISTOGRAM_BINS, np.int64)
    np.add.at(out, middles * HALF_CODES // (4 * STEPS), counts)
    return out


def attributes_of(old: Mapping[str, Any], encoding: Encoding, *, is_coded: bool, is_placed: bool) -> Document:
    """Return the attributes of backscatter (``is_coded``), flags or a layer as of an ingest; the clip follows."""
    gone = (cv.GRID_MAPPING, cv.COORDINATES, *_CLIP, *(cv.CODED if is_coded else ()))
    placed = {cv.GRID_MAPPING: cv.SPATIAL_REF, cv.COORDINATES: cv.SPATIAL_REF} if is_placed else {}
    about: Document = {}
    for key, value in old.items():
        if key not in gone and not key.startswith(_PLACE):
            about[key] = cf_fill(encoding.fill) if key == cv.FILL_VALUE else value
        about |= placed if key == cv.ANCILLARY else {}
    return about | placed | (cf_attributes(encoding) if is_coded else {})


def layer_encoding(stored: Encoding, attributes: Mapping[str, Any], values: Callable[[], Array]) -> Encoding:
    """Return a layer's encoding: its fill is its nodata, or, of integers without, what none of ``values`` (n,) is."""
    told = attributes.get(cv.FILL_VALUE)
    if isinstance(told, str):
        (told,) = struct.unpack("<d", base64.standard_b64decode(told))
    nodata = attributes.get(cv.NODATA, told)
    if nodata is not None:
        return replace(stored, nodata=nodata)
    dtype, fill = free_value(stored.dtype, values())
    return replace(stored, dtype=dtype, nodata=fill)


def scene_document(document: Document, grid: Grid) -> Document:
    """Return the document of a scene's group as of today: names sorted, GCPs flat, the place as it is written now."""
    about: Document = {}
    for key, value in document["attributes"].items():
        if key in (cv.SOURCE_FILES, cv.LAYERS):
            about[key] = sorted(value)
        elif key == cv.GCPS:
            about[key] = np.ravel(value).tolist()
        elif not key.startswith(_PLACE):
            about[key] = value
        about |= spatial_attributes(grid) if key == cv.GEOLOCATION else {}
    return document | {"attributes": about}


def write_clips(copy: Store) -> None:
    """Write the clips (dB) onto a copy's arrays: those that its histograms recommend within a bin are found anew."""
    groups = set(copy.bounds) & set(copy.catalog["bounds_key"].values.tolist())
    clips = dict(copy.bounds)
    for key, advised in recommend_clips(copy, groups).items():
        ends = zip(clips[key].clip, advised.clip, strict=True)
        is_near = all(abs(old - new) < 2 * BIN_WIDTH_DB for old, new in ends)
        if is_near and clips[key].clip_method == advised.clip_method:
            clips[key] = advised
    write_bounds(copy, clips)
