"""Damages of a store: seeded, of every kind of file and of loss, each with the files that it is in."""

import json
import shutil

import numpy as np

from sarzarr import conventions as cv
from sarzarr.store.manifest import CHUNK
from sarzarr.store.shards import EMPTY
from sarzarr.store.store import open_store
from sarzarr.store.chunks import manifest_of, read_layout
from crc32c import crc32c


def files_of(root):
    """Return the keys of a store's files, sorted."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def class_of(key):
    """Return the kind of a file: its part of the store, and what it is there."""
    top, *rest = key.split("/")
    what = "shard" if "/c/" in key else key.rsplit("/", 1)[-1]
    return f"{top}/{what}" if rest else "root"


def shards_of(root):
    """Return the keys of the files of chunks of pixels: their array has a manifest."""
    return [key for key in files_of(root) if (root / key.partition("/c/")[0] / cv.MANIFEST).exists() and "/c/" in key]


def choose(root, rng):
    """Return a file: each kind as often as every other."""
    kinds = {}
    for key in files_of(root):
        kinds.setdefault(class_of(key), []).append(key)
    some = sorted(kinds)[rng.integers(len(kinds))]
    return kinds[some][rng.integers(len(kinds[some]))]


def flip(root, rng):
    key = choose(root, rng)
    content = bytearray((root / key).read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    (root / key).write_bytes(content)
    return [key]


def truncate(root, rng):
    key = choose(root, rng)
    content = (root / key).read_bytes()
    (root / key).write_bytes(content[: rng.integers(1, len(content))])
    return [key]


def empty(root, rng):
    key = choose(root, rng)
    (root / key).write_bytes(b"")
    return [key]


def zeros(root, rng):
    key = choose(root, rng)
    content = bytearray((root / key).read_bytes())
    first = int(rng.integers(len(content)))
    content[first : first + 4096] = bytes(len(content[first : first + 4096]))
    if content == (root / key).read_bytes():
        return zeros(root, rng)
    (root / key).write_bytes(content)
    return [key]


def delete(root, rng):
    key = choose(root, rng)
    (root / key).unlink()
    return [key]


def delete_folder(root, rng):
    folders = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir())
    depths = sorted({key.count("/") for key in folders})
    depth = depths[rng.integers(len(depths))]
    some = [key for key in folders if key.count("/") == depth]
    key = some[rng.integers(len(some))]
    shutil.rmtree(root / key)
    return [key]


def exchange_shards(root, rng):
    some = shards_of(root)
    while True:
        one, other = (some[i] for i in rng.choice(len(some), 2, replace=False))
        if (root / one).read_bytes() != (root / other).read_bytes():
            return exchange(root, one, other)


def exchange(root, one, other):
    content = (root / one).read_bytes()
    (root / one).write_bytes((root / other).read_bytes())
    (root / other).write_bytes(content)
    return [one, other]


def exchange_chunks(root, rng):
    """Exchange two chunks of a shard, and write an index that says so: the shard is valid for every reader of Zarr."""
    place = open_store(root).place
    some = [key for key in shards_of(root) if not key.startswith(cv.SAMPLES)]
    while True:
        key = some[rng.integers(len(some))]
        array, _, _ = key.partition("/c/")
        layout = read_layout(place, array)
        manifest = manifest_of(place, layout)
        entries = manifest.chunks[manifest.keys.index(key.removeprefix(f"{array}/"))].copy()
        held = np.flatnonzero(entries["size"])
        if layout.shard is None or len(held) < 2:
            continue
        one, other = rng.choice(held, 2, replace=False)
        if entries["crc"][one] == entries["crc"][other]:
            continue
        entries[[one, other]] = entries[[other, one]]
        index = np.full((len(entries), 2), EMPTY, "<u8")
        index[held, 0], index[held, 1] = entries["offset"][held], entries["size"][held]
        content = (root / key).read_bytes()
        tail = index.tobytes()
        (root / key).write_bytes(content[: -len(tail) - 4] + tail + crc32c(tail).to_bytes(4, "little"))
        return [key]


def exchange_documents(root, rng):
    some = [key for key in files_of(root) if key.rsplit("/", 1)[-1] in ("zarr.json", cv.MANIFEST) and "/" in key]
    one = some[rng.integers(len(some))]
    name = one.rsplit("/", 1)[-1]
    like = [key for key in some if key.rsplit("/", 1)[-1] == name and (root / key).read_bytes() != (root / one).read_bytes()]
    return exchange(root, one, like[rng.integers(len(like))])


def change_attribute(root, rng):
    some = [key for key in files_of(root) if key.endswith("zarr.json")]
    while True:
        key = some[rng.integers(len(some))]
        document = json.loads((root / key).read_text())
        names = sorted(name for name in document["attributes"] if name != cv.SEAL)
        if not names:
            continue
        name = names[rng.integers(len(names))]
        value = document["attributes"][name]
        document["attributes"][name] = value + 1 if isinstance(value, int | float) else "another"
        (root / key).write_text(json.dumps(document, indent=1))
        return [key]


def change_column(root, rng):
    """Change one number of a table and its checksums, but not those of the table: as a careful hand would."""
    tables = [p for p in root.rglob("c") if cv.CHUNK_CRC in (p.parent / "zarr.json").read_text()]
    one, other = (tables[i].parent for i in rng.choice(len(tables), 2, replace=False))
    name = "c"
    if [*one.rglob("c/*")] == [] or one.name == other.name:
        return change_column(root, rng)
    shutil.rmtree(one / name)
    shutil.copytree(other / name, one / name)
    return [one.relative_to(root).as_posix()]


DAMAGES = (
    *(flip,) * 6, truncate, empty, zeros, delete, delete_folder, exchange_shards, exchange_chunks,
    exchange_documents, change_attribute, change_column,
)  # fmt: skip
"""Kinds of damage: flips as often as six others."""


def damage(root, seed):
    """Damage a store by a seed; return the kind and the keys of the files, or folders, that are not as they were."""
    rng = np.random.default_rng(seed)
    kind = DAMAGES[seed % len(DAMAGES)]
    return kind.__name__, kind(root, rng)
