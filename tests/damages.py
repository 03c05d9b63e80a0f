"""Damages of a store: seeded, of every kind of file and of loss, each with the files that it is in."""

import json
import shutil

import numpy as np
from chip_folders import chip_folder
from conftest import speckle, write_band
from crc32c import crc32c
from rasterio import Affine

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.store.chunks import manifest_of, read_layout
from sarzarr.store.shards import EMPTY
from sarzarr.store.store import open_store

SOURCES = ("raw", "labels", "chips")
"""The folders beside a store of `make_store` that its scenes were made of."""


def east(metres):
    return Affine(10, 0, 500_000 + metres, 0, -10, 5_400_000)


def make_store(folder):
    """Make a store of five scenes in as many encodings, with all else that a store can have."""
    raw, store = folder / "raw", folder / "s.zarr"
    for name in SOURCES[:2]:
        (folder / name).mkdir(parents=True)
    dark = speckle((600, 700), seed=1)
    dark[:200, :150] = 0  # fill at the edge: nodata
    dark[400:440, 500:540] = 0  # dark water: valid
    scenes = {"a_vv": dark, "a_vh": speckle((600, 700), seed=2), "e_vv": dark[:520]}
    scenes |= {f"{name}_vv": speckle((513, 600), seed=i) for i, name in enumerate(("b", "k", "d"))}
    for i, (name, values) in enumerate(scenes.items()):
        write_band(raw / f"{name}.tif", values, transform=east(90_000 * (i // 2 if i < 2 else i)), tiles=128)
    mask = np.random.default_rng(0).integers(0, 5, (600, 700)).astype("uint8")
    write_band(folder / "labels" / "mask.tif", mask, transform=east(0))
    asked = {
        "a": {"layers": {"mask": str(folder / "labels" / "mask.tif")}},
        "b": {"dtype": "float32"},
        "k": {"dtype": "float16", "codec": "zstd"},
        "d": {"shard": 0},
        "e": {"border": 3, "codec": "blosc-lz4"},
    }
    for name, options in asked.items():
        options = {"representation": "power", "quantity": "sigma0", "shard": 512} | options
        sz.ingest(sz.plan_ingest(sorted(raw.glob(f"{name}_*.tif")), store, **options))
    sz.index_patches(store, size=128, stride=96, edge="pad", name="small")
    sz.make_split(store, by="scene", val_fraction=0.4)
    chip_folder(folder / "chips", count=3)
    sz.import_chips(folder / "chips", store)
    (folder / "boxes.csv").write_text("scene,x_min,y_min,x_max,y_max\na,1,2,30,40\n")
    sz.import_boxes(sz.open_store(store), folder / "boxes.csv")
    sz.make_overviews(store)
    return store


def contents(root):
    """Return the bytes of every file of a store, by key."""
    return {key: (root / key).read_bytes() for key in files_of(root)}


def restore(root, wanted):
    """Bring a store back to its contents."""
    have = contents(root)
    for key in have.keys() - wanted.keys():
        (root / key).unlink()
    for key in (key for key, data in wanted.items() if have.get(key) != data):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(wanted[key])


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
    return [
        key
        for key in files_of(root)
        if (root / key.partition("/c/")[0] / cv.MANIFEST).exists() and "/c/" in key
    ]


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
    """Exchange two chunks of a shard, and write an index that says so: every reader of Zarr takes it."""
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
    some = [
        key for key in files_of(root) if key.rsplit("/", 1)[-1] in ("zarr.json", cv.MANIFEST) and "/" in key
    ]
    one = some[rng.integers(len(some))]
    name = one.rsplit("/", 1)[-1]
    like = [
        key
        for key in some
        if key.rsplit("/", 1)[-1] == name and (root / key).read_bytes() != (root / one).read_bytes()
    ]
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
    """Put a chunk, with its own right checksum, in the place of another table's: as a careless copy would."""
    marked = [key for key in files_of(root) if "/c/" in key]
    small = [
        key for key in marked if cv.CHUNK_CRC in (root / key.partition("/c/")[0] / "zarr.json").read_text()
    ]
    while True:
        one, other = (small[i] for i in rng.choice(len(small), 2, replace=False))
        if (root / one).read_bytes() != (root / other).read_bytes():
            shutil.copy(root / other, root / one)
            return [one]


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
