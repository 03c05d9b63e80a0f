"""Receipts: the results of blocks, handed to whoever asked for them and left beside the store as JSON."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from numcodecs import zstd

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.ingestion.blocks.regions import BlockRegions
from sarzarr.pixels.bounds import Histogram
from sarzarr.store.manifest import ShardRecord

_OTHERS: Final = ("under", "over", "nonpositive", "nodata")
_SIDES: Final = ("top", "bottom", "left", "right")


@dataclass(frozen=True, kw_only=True)
class ArrayReceipt:
    """The result of one array in one block."""

    shards: dict[str, ShardRecord]
    """Files of codes, by key."""
    flag_shards: dict[str, ShardRecord]
    """Files of flags, by key."""
    histogram: Histogram
    """dB counts of the pixels that are valid and positive, and the counts of the others."""
    regions: BlockRegions | None
    """Regions of undecided zeros, where there are any."""
    impossible: int = 0
    """Pixels that are not valid for their value alone: no radar measures it."""
    values: Array = field(default_factory=partial(np.empty, 0, "u1"))
    """What pixels of a layer without nodata have, of their dtype: `sarzarr.store.free_values.values_of`."""


Receipt = dict[str, ArrayReceipt]
"""The results of one block, by the array's name."""


def files_of(receipt: Receipt) -> Iterator[tuple[str, dict[str, ShardRecord]]]:
    """Yield the name of each array of a block, codes (rows, columns) and flags, and the records of its files."""
    for name, array in receipt.items():
        yield name, array.shards
        yield name + cv.FLAGS_SUFFIX, array.flag_shards


def receipt_to_json(receipt: Receipt) -> str:
    """Return a receipt as JSON, arrays as compressed int32 and int64; `receipt_from_json` is the inverse."""
    arrays = {}
    for name, array in receipt.items():
        counts, regions = array.histogram.counts, array.regions
        used = np.flatnonzero(counts)
        arrays[name] = {
            "shards": {k: r.to_json() for k, r in array.shards.items()},
            "flag_shards": {k: r.to_json() for k, r in array.flag_shards.items()},
            "bins": _packed(used, "<i4"),
            "counts": _packed(counts[used], "<i8"),
            "others": [getattr(array.histogram, k) for k in _OTHERS],
            "regions": regions
            and {"count": regions.count, **{k: _packed(getattr(regions, k), "<i4") for k in _SIDES}},
            "impossible": array.impossible,
            "values": [_packed(array.values, array.values.dtype.str), array.values.dtype.str],
        }
    return json.dumps({"arrays": arrays})


def receipt_from_json(text: str) -> Receipt:
    """Return the receipt that `receipt_to_json` wrote, with int64 counts and int32 labels."""
    receipt = {}
    for name, a in json.loads(text)["arrays"].items():
        counts = np.zeros(cv.HISTOGRAM_BINS, np.int64)
        counts[_unpacked(a["bins"], "<i4")] = _unpacked(a["counts"], "<i8")
        sides = {k: _unpacked(a["regions"][k], "<i4") for k in _SIDES} if a["regions"] else {}
        receipt[name] = ArrayReceipt(
            shards={k: ShardRecord.from_json(r) for k, r in a["shards"].items()},
            flag_shards={k: ShardRecord.from_json(r) for k, r in a["flag_shards"].items()},
            histogram=Histogram(counts=counts, **dict(zip(_OTHERS, a["others"], strict=True))),
            regions=BlockRegions(count=a["regions"]["count"], **sides) if sides else None,
            impossible=a["impossible"],
            values=_unpacked(*a["values"]),
        )
    return receipt


def _packed(values: Array, dtype: str) -> str:
    """Return values as text; of none the empty text: what zstd makes of nothing, it cannot read."""
    return base64.b64encode(zstd.compress(values.astype(dtype), 1)).decode() if values.size else ""


def _unpacked(text: str, dtype: str) -> Array:
    return np.frombuffer(zstd.decompress(base64.b64decode(text)) if text else b"", dtype)
