"""A store of schema 1, made from one of today: codes to 65535 from 0, fill 0 everywhere, a place on every array."""

import json
import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import zarr
from crc32c import crc32c

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.store.catalog import catalog_rows, encoding_of
from sarzarr.store.documents import (
    Encoding,
    array_document,
    group_document,
    read_node,
    write_json,
    write_node,
    write_small_array,
)
from sarzarr.store.place import Folder
from sarzarr.store.sample_files import append_picture, sample_writers, write_sample_documents
from sarzarr.store.samples import SampleLayout, sample_sets
from sarzarr.store.shards import ArrayFiles
from sarzarr.store.tables import read_table, write_table

STEPS = 65535
PLACE = {
    "zarr_conventions": [{"name": "proj:"}],
    "proj:code": "EPSG:32633",
    "spatial:bbox": [0.0, 0.0, 1.0, 1.0],
}


def as_schema_1(source, root, *, dtype="float32", codec=None):
    """Write a store of float32 as schema 1 would hold it at ``root``, and return its path."""
    shutil.copytree(source.root, root)
    place, store = Folder(root), sz.open_store(root)
    rows = catalog_rows(store.catalog)
    clips = {}
    for row in rows:
        key, scene = f"scenes/{row['scene']}/{row['name']}", row["scene"]
        z = zarr.open_array(root / key, mode="r")[:]
        flags = zarr.open_array(root / f"{key}_flags", mode="r")[:]
        kind = replace(encoding_of(row), dtype=dtype, codec=codec or str(row["codec"]), nodata=0)
        stored = np.where(cv.Flag.is_valid(flags), z, np.float32(0))
        if dtype == "uint16":
            stored = ((stored * np.float32(2 * STEPS)).astype(np.int32) + 1 >> 1).astype(np.uint16)
        _write(place, key, stored.astype(dtype), kind, is_coded=True)
        _write(place, f"{key}_flags", flags, replace(kind.of_flags, nodata=0))
        half = (z[flags == cv.Flag.VALID] * np.float32(2 * STEPS)).astype(np.int32)
        counts = np.bincount(half, minlength=2 * STEPS + 1)
        node = f"histograms/{scene}/{row['name']}"
        write_small_array(place, node, counts, ("bin",), read_node(place, node)["attributes"])
        clips[row["bounds_key"]] = clips.get(row["bounds_key"], 0) + counts
        for layer in store.layers(scene):
            layout = read_node(place, f"scenes/{scene}/{layer}")
            values = zarr.open_array(root / f"scenes/{scene}/{layer}", mode="r")[:]
            layer_dtype = layout["attributes"].get(cv.SOURCE_DTYPE, layout["data_type"])
            layer_kind = Encoding(dtype=layer_dtype, codec=cv.BESIDE_CODEC, shard=kind.shard, nodata=0)
            _write(place, f"scenes/{scene}/{layer}", values.astype(layer_dtype), layer_kind)
    clips = {k: (percentile(c, 1), percentile(c, 99)) for k, c in clips.items()}
    table = store.catalog.assign(dtype=("array", np.full(len(rows), dtype, object)))
    if codec:
        table["codec"] = ("array", np.full(len(rows), codec, object))
    write_table(place, "catalog", table)
    for name in store.patch_indices:
        table = read_table(place, f"patches/{name}")
        write_table(place, f"patches/{name}", table.assign(id=table["id"].astype(np.uint64)))
    write_node(place, "histograms", group_document())
    for path in root.rglob("zarr.json"):
        _rewrite(path, clips)
    _gather_in_root(root)
    return root


def _gather_in_root(root):
    """Gather all documents in the root's, and nowhere else."""
    shutil.rmtree(root / "documents", ignore_errors=True)
    documents = {path.parent: json.loads(path.read_text()) for path in sorted(root.rglob("zarr.json"))}
    for folder, document in documents.items():
        if document.pop("consolidated_metadata", None) is not None:
            (folder / "zarr.json").write_text(json.dumps(document))
    held = {f.relative_to(root).as_posix(): document for f, document in documents.items() if f != root}
    whole = {"kind": "inline", "must_understand": False, "metadata": held}
    (root / "zarr.json").write_text(json.dumps(documents[root] | {"consolidated_metadata": whole}))


def _write(place, key, values, kind, *, is_coded=False):
    """Write an array with zeros beyond its edges, its zero chunks left out, and a place in its attributes."""
    document, size = read_node(place, key), kind.chunk
    shutil.rmtree(place.path / key / "c", ignore_errors=True)
    padded = np.pad(values, [(0, -n % size) for n in values.shape])
    with ArrayFiles(place.path / key, kind) as files:
        for row, col in product(*(range(n // size) for n in padded.shape)):
            window = np.s_[row * size : (row + 1) * size, col * size : (col + 1) * size]
            files.write(row, col, np.ascontiguousarray(padded[window]))
        write_older_manifest(place, key, files.close(), is_sharded=bool(kind.shard))
    about = {
        k: v
        for k, v in document["attributes"].items()
        if k != cv.SOURCE_DTYPE and not (is_coded and k in cv.CODED)
    }
    about |= {cv.SCALE_FACTOR: 1 / STEPS} if kind.dtype == "uint16" and is_coded else {}
    dims = tuple(document["dimension_names"])
    write_node(place, key, array_document(values.shape, kind, dims=dims, attributes=PLACE | about))


def write_older_manifest(place, key, records, *, is_sharded=True):
    """Write a manifest as schema 1 had it: size, digest of index and checksums, and chunks of each file."""
    listed = {}
    for name, record in records.items():
        entries, held = record.entries, record.entries["size"] > 0
        index = np.full((len(entries), 2), 2**64 - 1, "<u8")
        index[held] = np.stack([entries["offset"][held], entries["size"][held]], axis=1)
        begin = crc32c(index.tobytes()) if is_sharded else 0
        digest = crc32c(entries["crc"][held].tobytes(), begin) if record.size else 0
        listed[name] = record.size, digest, record.chunks
    place.put(f"{key}/manifest.json", json.dumps({"shards": listed}).encode())


def _rewrite(path, clips):
    """Make a document one of schema 1: unsealed, fill 0.0 of floats, unsorted names, GCPS by fives, its clips."""
    document = json.loads(path.read_text())
    about = document["attributes"]
    for name in (cv.SEAL, cv.CHUNK_CRC):
        about.pop(name, None)
    for name in ("source_files", "layers"):
        if name in about and document["node_type"] == "group":
            about[name] = about[name][::-1]
    if "gcps" in about:
        about["gcps"] = np.reshape(about["gcps"], (-1, 5)).tolist()
    if str(document.get("data_type")).startswith("float"):
        document["fill_value"] = 0.0
    if "sarzarr" in about:
        about["sarzarr"]["version"] = 1
        for key, (low, high) in clips.items():
            if about["bounds"][key]["clip_method"] == "percentile 1..99":
                about["bounds"][key] |= {"clip_vmin": low, "clip_vmax": high}
    write_json(Folder(path.parent), "zarr.json", document)


def percentile(counts, q):
    """Return the dB of a percentile of a histogram of schema 1."""
    n, summed = counts.sum(), np.cumsum(counts)
    rank = q / 100 * (n - 1)
    below = min(int(rank), n - 1)
    ends = np.searchsorted(summed, (below, min(below + 1, n - 1)), side="right")
    low, high = np.where(ends == counts.size - 1, 100.0, -60 + (ends + 0.5) * 160 / (2 * STEPS))
    return float(low + (high - low) * (rank - below))


def samples_as_schema_1(source, root):
    """Write a store of sample sets as schema 1 would hold it at ``root``: padded with zeros, which are left out."""
    shutil.copytree(source.root, root)
    place = Folder(root)
    for name in sample_sets(source):
        samples = sz.open_samples(source, name)
        layout = replace(samples.layout, stored=samples.layout.dtype, fill=0)
        first = SampleLayout.of(count=1, height=layout.height, width=layout.width, dtype=layout.dtype)
        layout, records = replace(layout, per_shard=first.per_shard), []
        shutil.rmtree(root / samples.key / "image" / "c")
        shutil.rmtree(root / samples.key / "image_flags" / "c")
        for shard in range(layout.shards):
            writers = sample_writers(root / samples.key, layout, shard)
            for writer in writers:
                writer.fill = 0
            with writers[0], writers[1]:
                for row, sample in enumerate(
                    range(len(samples))[shard * layout.per_shard :][: layout.per_shard]
                ):
                    values = samples.image(sample)
                    append_picture(writers, row, values, np.ones(values.shape, bool), layout)
                records.append(tuple(writer.close() for writer in writers))
        write_sample_documents(Folder(root / samples.key, samples.key), layout, records)
        for i, array in enumerate(("image", "image_flags")):
            files = {f"c/{shard}/0/0": pair[i] for shard, pair in enumerate(records)}
            write_older_manifest(place, f"{samples.key}/{array}", files)
            document = read_node(place, f"{samples.key}/{array}") | {"fill_value": 0}
            document["attributes"].pop(cv.SOURCE_DTYPE, None)
            write_node(place, f"{samples.key}/{array}", document)
    for path in root.rglob("zarr.json"):
        _rewrite(path, {})
    _gather_in_root(root)
    return root
