"""The files of a sample set as they are written: shards of pictures and of their flags, manifests and documents."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sarzarr import conventions as cv
from sarzarr.arrays import Array
from sarzarr.store.codecs import get_codec
from sarzarr.store.documents import write_node
from sarzarr.store.manifest import ShardRecord, write_manifest
from sarzarr.store.place import Place
from sarzarr.store.samples import IMAGE, SampleLayout
from sarzarr.store.shards import ShardWriter

ARRAYS = (IMAGE, IMAGE + cv.FLAGS_SUFFIX)
"""The arrays of a set: pictures, and their flags."""


def sample_writers(folder: Path, layout: SampleLayout, shard: int) -> tuple[ShardWriter, ShardWriter]:
    """Return the writers of a shard of pictures (samples, rows, columns) and of their flags, uint8, in a folder."""
    image, flags = (
        ShardWriter(folder / name / f"c/{shard}/0/0", layout.grid, get_codec(encoding.codec), encoding.fill)
        for name, encoding in zip(ARRAYS, (layout.encoding, layout.encoding.of_flags), strict=True)
    )
    return image, flags


def append_picture(
    writers: tuple[ShardWriter, ShardWriter],
    row: int,
    values: Array,
    is_measured: Array,
    layout: SampleLayout,
) -> None:
    """Add a picture (rows, columns), bool of it, padded to whole chunks with the fill, to the writers of its shard.

    What is padding alone has no pixels, only flags. ``row`` is the sample's in the shard.
    """
    image, flags = writers
    fill, size = layout.encoding.fill, layout.chunk
    stored = np.where(is_measured, values, fill).astype(layout.stored, copy=False)
    coded = np.where(is_measured, cv.Flag.VALID, cv.Flag.NODATA).astype(np.uint8)
    for at in range(math.prod(layout.chunks)):
        top, left = (n * c for n, c in zip(divmod(at, layout.chunks[1]), size, strict=True))
        window = slice(top, top + size[0]), slice(left, left + size[1])
        edges = [(0, c - n) for n, c in zip(stored[window].shape, size, strict=True)]
        image.append(row, at, np.ascontiguousarray(np.pad(stored[window], edges, constant_values=fill)))
        flags.append(row, at, np.pad(coded[window], edges, constant_values=cv.Flag.NODATA))


def write_sample_documents(
    group: Place,
    layout: SampleLayout,
    records: Sequence[tuple[ShardRecord, ShardRecord]],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write the manifests and documents of a set's pictures, (samples, rows, columns), and of their flags.

    ``about`` are more attributes of the pictures.
    """
    for i, array in enumerate(ARRAYS):
        write_manifest(group, array, {f"c/{shard}/0/0": pair[i] for shard, pair in enumerate(records)})
        write_node(group, array, layout.document(flags=i == 1, about=about))
