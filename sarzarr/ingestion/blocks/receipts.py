"""Receipts: what became of a block, handed to whoever asked for it and left beside the store as JSON."""

import base64
import json
from dataclasses import asdict, dataclass

import numpy as np
from numcodecs import zstd

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.ingestion.blocks.regions import BlockRegions
from sarzarr.pixels.bounds import Histogram
from sarzarr.store.shards import ShardRecord


@dataclass(kw_only=True)
class ArrayReceipt:
    """What became of one array in one block."""

    shards: dict[str, ShardRecord]
    """Files of codes, by key."""
    flag_shards: dict[str, ShardRecord]
    """Files of flags, by key."""
    histogram: Histogram
    """dB counts of the pixels that are valid and positive, and the counts of the others."""
    regions: BlockRegions | None
    """Regions of undecided zeros, where there are any."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of one block."""

    scene: str
    """The scene's id."""
    at: tuple[int, int]
    """(row, column) of the block's first pixel."""
    arrays: dict[str, ArrayReceipt]
    """By array name."""


def receipt_to_json(receipt: Receipt) -> str:
    """Return a receipt as JSON, arrays compressed; `receipt_from_json` is the inverse."""

    def packed(values: Array) -> str:
        if not values.size:
            return ""  # what zstd makes of nothing, it cannot read
        return base64.b64encode(zstd.compress(np.ascontiguousarray(values), 1)).decode()

    arrays = {}
    for name, a in receipt.arrays.items():
        used = np.flatnonzero(a.histogram.counts)
        h = a.histogram
        arrays[name] = {
            "shards": {k: [r.size, r.digest, r.chunks] for k, r in a.shards.items()},
            "flag_shards": {k: [r.size, r.digest, r.chunks] for k, r in a.flag_shards.items()},
            "bins": packed(used.astype("<i4")),
            "counts": packed(h.counts[used].astype("<i8")),
            "others": [h.under, h.over, h.nonpositive, h.nodata],
            "regions": None
            if a.regions is None
            else {
                k: v if isinstance(v, int) else packed(v.astype("<i4")) for k, v in asdict(a.regions).items()
            },
        }
    return json.dumps({"scene": receipt.scene, "at": list(receipt.at), "arrays": arrays})


def receipt_from_json(text: str) -> Receipt:
    """Return the receipt that `receipt_to_json` wrote."""

    def unpacked(value: str, dtype: str) -> Array:
        return np.frombuffer(zstd.decompress(base64.b64decode(value)) if value else b"", dtype)

    document = json.loads(text)
    arrays = {}
    for name, a in document["arrays"].items():
        counts = np.zeros(cv.HISTOGRAM_BINS, np.int64)
        counts[unpacked(a["bins"], "<i4")] = unpacked(a["counts"], "<i8")
        under, over, nonpositive, nodata = a["others"]
        regions = a["regions"] and BlockRegions(
            count=a["regions"]["count"],
            **{side: unpacked(a["regions"][side], "<i4") for side in ("top", "bottom", "left", "right")},
        )
        arrays[name] = ArrayReceipt(
            shards={k: ShardRecord(*r) for k, r in a["shards"].items()},
            flag_shards={k: ShardRecord(*r) for k, r in a["flag_shards"].items()},
            histogram=Histogram(
                counts=counts, under=under, over=over, nonpositive=nonpositive, nodata=nodata
            ),
            regions=regions,
        )
    return Receipt(scene=document["scene"], at=tuple(document["at"]), arrays=arrays)
