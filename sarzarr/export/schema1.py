"""Schema 1, as far as a copy must know it: what its values, documents and histograms meant.

Codes 0 to 65535 were 0.0 to 1.0, and 0 was also what had not been measured: flags alone told. Every fill value was 0,
chunks of flags whose every pixel was valid were left out, and histograms had two bins to a step of those codes.
"""

import base64
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.patches.clips import recommend_clips
from sarzarr.pixels.bounds import BIN_WIDTH_DB
from sarzarr.pixels.kernels import HALF_CODES
from sarzarr.pixels.radiometry import to_codes
from sarzarr.store.commit import write_bounds
from sarzarr.store.documents import Document, Encoding, cf_attributes, cf_fill
from sarzarr.store.store import Store

STEPS: Final = 65535
"""Steps of its codes from 0.0 to 1.0, and the code of 1.0."""
_CLIP: Final = (cv.CLIP_VMIN, cv.CLIP_VMAX, cv.CLIP_METHOD)


def as_schema_2(values: Array, dtype: str) -> Array:
    """Return the values of pixels that were measured, uint16 codes or floats in [0, 1], as ``dtype`` of schema 2.

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
    """Return (131069,) int64: the counts (131071,) of its histograms in the bins of schema 2, each by its middle."""
    middles = 2 * np.arange(counts.size, dtype=np.int64) + 1
    out = np.zeros(cv.HISTOGRAM_BINS, np.int64)
    np.add.at(out, middles * HALF_CODES // (4 * STEPS), counts)
    return out


def attributes_of(old: Mapping[str, Any], encoding: Encoding, *, is_coded: bool) -> Document:
    """Return the attributes of an array, or a layer or flags, as an ingest writes them; the clip comes later."""
    kept = {k: v for k, v in old.items() if k not in (*cv.CODED, *_CLIP)}
    if is_coded:
        return kept | cf_attributes(encoding)
    if cv.FILL_VALUE not in old:
        return kept
    return {k: cf_fill(encoding.fill) if k == cv.FILL_VALUE else v for k, v in old.items()}


def layer_encoding(stored: Encoding, attributes: Mapping[str, Any]) -> Encoding:
    """Return the encoding of a layer, whose fill value is its nodata: of floats as CF has it, NaN if need be."""
    told = attributes.get(cv.FILL_VALUE)
    if isinstance(told, str):
        (told,) = struct.unpack("<d", base64.standard_b64decode(told))
    return replace(stored, nodata=attributes.get(cv.NODATA, told))


def document_of(key: str, document: Document) -> Document:
    """Return a document as it is written today: names in a scene's group sorted, fill values of float columns NaN."""
    about, group = document["attributes"], key.split("/")[0]
    if group == cv.SCENES and document["node_type"] == "group":
        names = (cv.SOURCE_FILES, cv.LAYERS)
        about = {k: sorted(v) if k in names else v for k, v in about.items()}
    is_column = str(document.get("data_type")).startswith("float") and group in (
        cv.SCENES,
        cv.SPLITS,
        cv.BOXES,
    )
    return document | {"attributes": about} | ({"fill_value": "NaN"} if is_column else {})


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
