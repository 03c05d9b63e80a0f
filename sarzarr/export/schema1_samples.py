"""Sample sets of schema 1, packed anew: they were padded with 0, which is also what black pixels are."""

from pathlib import Path

import numpy as np

from sarzarr.arrays import Array
from sarzarr.export.schema1 import older_records
from sarzarr.store.chunks import check_size
from sarzarr.store.free_values import values_of
from sarzarr.store.manifest import ShardRecord
from sarzarr.store.place import Folder
from sarzarr.store.sample_files import ARRAYS, append_picture, sample_writers, write_sample_documents
from sarzarr.store.samples import IMAGE, SampleLayout, SampleSet
from sarzarr.store.shard_job import check_written
from sarzarr.tasks import gather


def copy_samples(old: SampleSet, staging: Path) -> None:
    """Write the pictures (rows, columns) of a set of schema 1, and their flags, with a fill that no pixel has.

    A task writes a shard and holds a picture at a time. Raises `CorruptStoreError` where a chunk is damaged.
    """
    told, (height, width), folder = old.layout, old.largest, staging / old.key
    for key, record in older_records(old.store.place, f"{old.key}/{IMAGE}").items():
        if record.size:
            check_size(old.store.place, f"{old.key}/{IMAGE}/{key}", record.size)
    layout = SampleLayout.of(count=told.count, height=height, width=width, dtype=told.dtype)
    taken = gather([(_values, (old, part)) for part in np.array_split(np.arange(told.count), told.shards)])
    layout = layout.filled(np.concatenate(taken))
    records: list[tuple[ShardRecord, ShardRecord]] = gather(
        [(_pack, (old, folder, layout, shard)) for shard in range(layout.shards)]
    )
    for array, own in zip(ARRAYS, zip(*records, strict=True), strict=True):
        check_written(folder / array, {f"c/{i}/0/0": r for i, r in enumerate(own)}, layout.grid)
    write_sample_documents(Folder(folder, old.key), layout, records)


def _values(old: SampleSet, samples: Array) -> Array:
    """Return the values (n,) of the pixels of some samples: `values_of`; none of floats, which have NaN."""
    values = np.empty(0, old.layout.dtype)
    for sample in samples.tolist() if values.dtype.kind == "u" else ():
        values = values_of(np.concatenate([values, values_of(old.image(sample))]))
    return values


def _pack(old: SampleSet, folder: Path, layout: SampleLayout, shard: int) -> tuple[ShardRecord, ShardRecord]:
    image, flags = writers = sample_writers(folder, layout, shard)
    first = shard * layout.per_shard
    with image, flags:
        for row, sample in enumerate(range(first, min(first + layout.per_shard, layout.count))):
            values = old.image(sample)
            append_picture(writers, row, values, np.isfinite(values), layout)
        return image.close(), flags.close()
