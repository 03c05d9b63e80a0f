"""What delivers training batches, and how fast: sarzarr beside its peers, in turns, as ratios within one run.

    make bench-loader                                        # the table
    make bench-loader BENCH_ARGS="--patches 16384 --batch 64 --folder /dev/shm"
    make bench-loader BENCH_ARGS="--training"                # where to put the loader: docs/training.md
    make bench-loader BENCH_ARGS="--opening"                 # 700,000 patches to the first batch; ten epochs
    make bench-loader BENCH_ARGS="--mixing"                  # what each order mixes
    make bench-loader BENCH_ARGS="--passes"                  # what single steps cost
    make bench-loader BENCH_ARGS="--groups"                  # groups of diffraction frames (N, C, 64, 64)

Every contender delivers the same patches, shuffled, in batches of one size, with the page cache warm. sarzarr
checks checksums and stretches to the clip. Each peer is tuned in good faith: arrays are opened once a worker,
workers are 0 or 2, whichever is best, and tensorstore reads ahead into batches that exist already. Contenders
take turns for several rounds, and each is compared with the gather that ran beside it.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import zarr
from torch.utils.data import DataLoader, Dataset

import sarzarr as sz
from sarzarr.pixels.compiled.when import loops
from sarzarr.torch import ZarrPatchDataset

SIZE = 256
KEY = "vv/sigma0"
OPTIONS = {"shuffle": True, "seed": 0, "min_unsaturated": 0, "polarizations": "vv"}


# ------------------------------------------------------------------ what is read
@dataclass(frozen=True, kw_only=True)
class Material:
    """The same patches in every form that a contender wants."""

    codes: sz.Store
    """The default store: uint16 codes, no codec, checksums."""
    floats: sz.Store
    """The float32 store: no codec, checksums."""
    packed: sz.Store
    """uint16 codes, blosc-lz4, checksums."""
    memory: np.ndarray
    """(n, 256, 256) float32 in RAM."""
    npy: Path
    """The same as a .npy file."""
    stored: Path
    """What the float32 store holds, as a .npy file: [0, 1] of the stored range."""


def make_material(folder, patches):
    """Ingest speckle scenes of 8192 pixels, 1,024 patches each, as codes and as float32."""
    import rasterio
    from rasterio.transform import from_origin

    random = np.random.default_rng(0)
    tile = (random.gamma(4.4, 1 / 4.4, (4096, 4096)) * 0.05).astype(np.float32)
    files = []
    for i in range(-(-patches // 1024)):
        files.append(folder / f"s{i:03d}_vv.tif")
        profile = {
            "driver": "GTiff",
            "height": 8192,
            "width": 8192,
            "count": 1,
            "dtype": "float32",
            "tiled": True,
            "blockxsize": 256,
            "blockysize": 256,
            "crs": "EPSG:32633",
            "transform": from_origin(500_000 + 90_000 * i, 5_400_000, 10, 10),
        }
        with rasterio.open(files[-1], "w", **profile) as out:
            for row in (0, 4096):
                window = rasterio.windows.Window(0, row, 8192, 4096)
                out.write(
                    np.concatenate([np.roll(tile, 31 * i + row, 0), np.roll(tile, 17 * i, 1)], 1),
                    1,
                    window=window,
                )
    stores = {}
    kinds = {"codes": {}, "floats": {"dtype": "float32"}, "packed": {"codec": "blosc-lz4"}}
    for name, kind in kinds.items():
        plan = sz.plan_ingest(
            files, folder / f"{name}.zarr", quantity="sigma0", representation="power", **kind
        )
        stores[name] = sz.ingest(plan)
    for file in files:
        file.unlink()
    in_order = OPTIONS | {"shuffle": False, "batch_size": 256}
    memory = np.concatenate(list(sz.PatchReader(stores["codes"], **in_order)))[:, 0]
    np.save(folder / "patches.npy", memory)
    whole = np.concatenate(list(sz.PatchReader(stores["floats"], clip=(-60, 100), **in_order)))[:, 0]
    np.save(folder / "stored.npy", whole)
    return Material(**stores, memory=memory, npy=folder / "patches.npy", stored=folder / "stored.npy")


# ------------------------------------------------------------------ the contenders
def epochs_of(batches):
    """Return a function that takes an epoch and says how many patches it had and how long it took."""

    def run():
        taken, start = 0, time.perf_counter()
        for batch in batches():
            taken += len(batch)
        return taken / (time.perf_counter() - start)

    return run


def gather(material, batch):
    """Fancy indexing of a float32 array in RAM, one thread: what a dataset that fits into memory does."""
    patches, random = material.memory, np.random.default_rng(0)

    def batches():
        order = random.permutation(len(patches))
        for i in range(0, len(order), batch):
            yield patches[order[i : i + batch]]

    return epochs_of(batches)


def copy_into(material, batch):
    """A copy and nothing else, one thread: `torch.index_select` into a buffer that is used again."""
    patches = torch.from_numpy(material.memory)
    buffer, random = torch.empty(batch, SIZE, SIZE), torch.Generator().manual_seed(0)

    def batches():
        order = torch.randperm(len(patches), generator=random)
        for i in range(0, len(order) - batch + 1, batch):
            torch.index_select(patches, 0, order[i : i + batch], out=buffer)
            yield buffer

    return epochs_of(batches)


def npy_into(path, batch, clip=None):
    """Patches gathered from a .npy memory map into a reused buffer, one thread; stretched there to a clip, if any."""
    patches, buffer = np.load(path, mmap_mode="r"), np.empty((batch, SIZE, SIZE), np.float32)
    random = np.random.default_rng(0)
    scale, offset = (
        (1, 0) if clip is None else (160 / (clip[1] - clip[0]), (-60 - clip[0]) / (clip[1] - clip[0]))
    )

    def batches():
        order = random.permutation(len(patches))
        for i in range(0, len(order) - batch + 1, batch):
            np.take(patches, order[i : i + batch], axis=0, out=buffer, mode="clip")
            if clip is not None:
                np.multiply(buffer, np.float32(scale), out=buffer)
                np.add(buffer, np.float32(offset), out=buffer)
                np.fmax(buffer, np.float32(0), out=buffer)
                np.minimum(buffer, np.float32(1), out=buffer)
            yield buffer

    return epochs_of(batches)


def reader(store, batch, **options):
    """sarzarr as NumPy, threads of this process."""
    made = sz.PatchReader(store, **OPTIONS | {"batch_size": batch} | options)
    images = options.get("flags")
    return epochs_of(lambda: (b[0] for b in made) if images else iter(made))


def dataset(store, batch, workers, **options):
    """sarzarr through a DataLoader."""
    made = ZarrPatchDataset(store, **OPTIONS | {"batch_size": batch} | options)
    loader = DataLoader(made, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    return epochs_of(lambda: iter(loader))


class ZarrPatches(Dataset):
    """zarr-python, one chunk at a time, each array opened once a worker."""

    def __init__(self, store):
        table = store.patches()
        columns = (table[c].values.tolist() for c in ("scene", "array", "row", "col"))
        self.places = list(zip(*columns, strict=True))
        self.root = store.root
        self.clip = tuple(store.bounds[KEY].clip)
        self.arrays = {}

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        scene, name, row, col = self.places[index]
        array = self.arrays.get((scene, name))
        if array is None:
            array = self.arrays[scene, name] = zarr.open_array(f"{self.root}/scenes/{scene}/{name}", mode="r")
        return stretched(array[row : row + SIZE, col : col + SIZE], self.clip)[None]


def stretched(stored, clip):
    """Return the stored values as a batch holds them."""
    low, high = clip
    scale, offset = 160 / (high - low), (-60 - low) / (high - low)
    if stored.dtype == np.uint16:  # code 1 is -60 dB; 0, which was not measured, is below any clip
        scale /= 65534
        offset -= scale
    out = stored.astype(np.float32)
    out *= np.float32(scale)
    out += np.float32(offset)
    return np.clip(out, 0, 1, out=out)


def zarr_python(store, batch, workers):
    """zarr-python and a DataLoader."""
    loader = DataLoader(
        ZarrPatches(store), batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return epochs_of(lambda: iter(loader))


class NpyPatches(Dataset):
    """A .npy memory map of finished float32 patches, opened once a worker or once an item."""

    def __init__(self, path, *, once):
        self.path, self.once = path, once
        self.patches = None
        self.n = len(np.load(path, mmap_mode="r"))

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if self.patches is None or not self.once:
            self.patches = np.load(self.path, mmap_mode="r")
        return torch.from_numpy(np.array(self.patches[index]))[None]


def npy(material, batch, workers, *, once):
    """The memory map and a DataLoader."""
    loader = DataLoader(
        NpyPatches(material.npy, once=once),
        batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return epochs_of(lambda: iter(loader))


def xbatcher(store, batch, workers):
    """xbatcher over one xarray dataset a scene, and a DataLoader."""
    from torch.utils.data import ConcatDataset
    from xbatcher import BatchGenerator
    from xbatcher.loaders.torch import MapDataset

    parts = []
    for scene in store.scenes:
        opened = xr.open_zarr(store.root, group=f"scenes/{scene}", consolidated=False, chunks=None)
        window = BatchGenerator(opened[["vv"]], input_dims={"y": SIZE, "x": SIZE}, preload_batch=False)
        parts.append(
            MapDataset(window, transform=lambda d: torch.from_numpy(d["vv"].values.astype(np.float32)))
        )
    loader = DataLoader(
        ConcatDataset(parts), batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return epochs_of(lambda: iter(loader))


def tensorstore(store, batch, *, cache, together, ahead=3):
    """tensorstore: one open array a scene, chunks read ahead into batches that exist already.

    It delivers the stored values as they are: neither stretched nor as float32, which is less work than ours.
    """
    import tensorstore as ts

    table = store.patches()
    columns = (table[c].values.tolist() for c in ("scene", "row", "col"))
    places = list(zip(*columns, strict=True))
    context = ts.Context({"cache_pool": {"total_bytes_limit": cache}})
    opened = {}
    for scene in store.scenes:
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{store.root}/scenes/{scene}/vv/"},
            "recheck_cached_data": False,
            "recheck_cached_metadata": False,
        }
        opened[scene] = ts.open(spec, context=context, open=True, read=True).result()
    dtype = next(iter(opened.values())).dtype.numpy_dtype
    blocks = deque(np.zeros((batch, SIZE, SIZE), dtype) for _ in range(ahead + 1))
    slots = {id(block): [ts.array(image) for image in block] for block in blocks}
    random = np.random.default_rng(0)

    def start(some):
        block = blocks.popleft()
        blocks.append(block)
        group = ts.Batch() if together else None
        futures = []
        for slot, index in zip(slots[id(block)], some, strict=False):
            scene, row, col = places[index]
            source = opened[scene][row : row + SIZE, col : col + SIZE]
            futures.append(slot.write(source[ts.d[:].translate_to[0]], batch=group))
        if group is not None:
            group.submit()
        return futures, block[: len(some)]

    def finished(futures, block):
        for future in futures:
            future.result()
        return block

    def batches():
        order = random.permutation(len(places))
        waiting = deque()
        for i in range(0, len(order), batch):
            waiting.append(start(order[i : i + batch].tolist()))
            if len(waiting) > ahead:
                yield finished(*waiting.popleft())
        while waiting:
            yield finished(*waiting.popleft())

    return epochs_of(batches)


# ------------------------------------------------------------------ the table
def contenders(material, batch):
    """Return what takes part, by name: (function, which of several settings of one contender it is)."""
    codes, floats, packed, n = material.codes, material.floats, material.packed, len(material.memory)
    windows, anywhere = (
        {"patch_size": SIZE, "stride": 128, "max_patches": n},
        {"crops": "random", "per_epoch": n},
    )
    snapped = tuple(-60 + 160 * round((v + 60) / 160 * 65534) / 65534 for v in codes.bounds[KEY].clip)
    out = {
        "sarzarr, default store": reader(codes, batch),
        "  clip that ends at codes": reader(codes, batch, clip=snapped),
        "  codes, not stretched": reader(codes, batch, dtype="uint16"),
        "  with flags": reader(codes, batch, flags=True),
        '  augment="d4"': reader(codes, batch, augment="d4"),
        "  stride 128": reader(codes, batch, **windows),
        "  stride 128, with flags": reader(codes, batch, flags=True, **windows),
        '  dtype="bfloat16"': reader(codes, batch, dtype="bfloat16"),
        '  dtype="float16"': reader(codes, batch, dtype="float16"),
        "  random crops": reader(codes, batch, **anywhere),
        "  the same, scale=(0.5, 2)": reader(codes, batch, scale=(0.5, 2), **anywhere),
        '  check="always"': reader(codes, batch, check="always"),
        "  ZarrPatchDataset, 0 workers": dataset(codes, batch, 0),
        "  ZarrPatchDataset, 2 workers": dataset(codes, batch, 2),
        "sarzarr, float32 store": reader(floats, batch),
        "  random crops of floats": reader(floats, batch, **anywhere),
        "sarzarr, blosc-lz4 codes": reader(packed, batch),
        "  random crops, chunks kept decoded": reader(packed, batch, **anywhere, cache=n * SIZE * SIZE * 3),
        "  random crops, 256 MB kept": reader(packed, batch, **anywhere),
        "  random crops, cache=0": reader(packed, batch, **anywhere, cache=0),
        ".npy memory map into a reused buffer": npy_into(material.npy, batch),
        ".npy of stored floats, stretched": npy_into(material.stored, batch, codes.bounds[KEY].clip),
    }
    peers = {
        "tensorstore, default store": [lambda s=s: tensorstore(codes, batch, **s) for s in TENSORSTORE],
        "tensorstore, float32 store": [lambda s=s: tensorstore(floats, batch, **s) for s in TENSORSTORE],
        ".npy memory map, opened once": [lambda w=w: npy(material, batch, w, once=True) for w in (0, 2)],
        ".npy memory map, opened an item": [lambda w=w: npy(material, batch, w, once=False) for w in (0, 2)],
        "zarr-python, default store": [lambda w=w: zarr_python(codes, batch, w) for w in (0, 2)],
        "zarr-python, float32 store": [lambda w=w: zarr_python(floats, batch, w) for w in (0, 2)],
        "xbatcher, default store": [lambda w=w: xbatcher(codes, batch, w) for w in (0, 2)],
    }
    return out, peers


TENSORSTORE = [
    {"cache": cache, "together": together} for cache in (0, 1 << 24, 1 << 26) for together in (False, True)
]
"""Without a cache the shard indices are read again and again; with a large one this is no reading at all."""


def best_setting(name, settings):
    """Return the fastest of a peer's settings, by two epochs each."""
    made = [s() for s in settings]
    rates = [max(run() for _ in range(2)) for run in made]
    best = int(np.argmax(rates))
    return made[best], f"{name}, {2 * best} workers" if len(made) == 2 else name


TARGETS = [
    ("sarzarr, default store", "gather", 0.9),
    ("sarzarr, default store", "zarr-python, default store", 20),
    ("sarzarr, default store", ".npy memory map, opened an item", 4),
    ("sarzarr, default store", ".npy memory map, opened once", None),
    ("sarzarr, default store", "tensorstore, default store", 2.5),
    ("sarzarr, float32 store", "zarr-python, float32 store", 12),
    ("sarzarr, float32 store", ".npy memory map, opened an item", 2),
    ("sarzarr, float32 store", ".npy memory map, opened once", None),
    ("sarzarr, float32 store", ".npy memory map into a reused buffer", None),
    ("sarzarr, float32 store", ".npy of stored floats, stretched", 1.0),
    ('  augment="d4"', "sarzarr, default store", 0.7),
]


def table(material, batch, rounds):
    """Run everything in turns and print the table."""
    ours, peers = contenders(material, batch)
    runs, titles = dict(ours), {name: name for name in ours}
    for name, settings in peers.items():
        runs[name], titles[name] = best_setting(name, settings)
    torch.set_num_threads(1)
    references = gather(material, batch), copy_into(material, batch)
    rates = {name: [] for name in runs}
    beside = {name: [] for name in runs}
    for name in ours:
        runs[name]()  # the first epoch finds cold memory
    for _ in range(rounds):
        for name, run in runs.items():
            before = [reference() for reference in references]
            rates[name].append(run())
            after = [reference() for reference in references]
            beside[name].append([(a + b) / 2 for a, b in zip(before, after, strict=True)])
    every = np.array([pair for some in beside.values() for pair in some])
    ratios, copies = (
        {n: statistics.median(r / pair[i] for r, pair in zip(rates[n], beside[n], strict=True)) for n in runs}
        for i in range(2)
    )
    ratios["gather"] = 1.0
    with_numba = "with Numba" if loops() else "NumPy alone"
    print(
        f"\n{len(material.memory)} patches of {SIZE}x{SIZE}, batches of {batch}, {rounds} rounds, "
        f"page cache warm, {with_numba}"
    )
    print(f"{'':46}{'patches/s':>10}{'best':>9}{'x gather':>10}{'x copy':>9}")
    gathered, copied = np.median(every, axis=0)
    title = "gather X[idx] of float32 in RAM, one thread"
    print(f"{title:46}{gathered:10,.0f}{every[:, 0].max():9,.0f}{1:10.2f}{gathered / copied:9.2f}")
    title = "copy into a reused buffer, one thread"
    print(f"{title:46}{copied:10,.0f}{every[:, 1].max():9,.0f}{copied / gathered:10.2f}{1:9.2f}")
    for name, some in rates.items():
        print(
            f"{titles[name]:46}{statistics.median(some):10,.0f}{max(some):9,.0f}{ratios[name]:10.2f}{copies[name]:9.2f}"
        )
    print(f"\n{'':75}{'ratio':>7}{'asked':>7}")
    for ours_name, other, asked in TARGETS:
        ratio, wanted = ratios[ours_name] / ratios[other], f"{asked:7.1f}" if asked else ""
        print(f"{ours_name.strip():>32} / {titles.get(other, other):40}{ratio:7.2f}{wanted}")


# ------------------------------------------------------------------ groups of frames
def groups_of_frames(place, frames, batch, rounds, size=64):
    """Print what delivers shuffled groups of 4 frames, beside a gather of the same frames in RAM."""
    random = np.random.default_rng(0)
    x, y = random.uniform(size, size + 2 * frames**0.5, (2, frames))
    held = random.gamma(1, 0.1, (frames, size, size)).astype(np.float32)
    probe, image = np.ones((size, size), np.complex64), np.ones((4 * size, 4 * size), np.complex64)
    np.savez(place / "scan.npz", diffraction=held, xcoords=x, ycoords=y, probeGuess=probe, objectGuess=image)
    store = sz.import_ptychography(place / "scan.npz", place / "scans.zarr").store
    config = sz.PtychoConfig(size, 2, n_groups=None, neighbor_count=7)
    options = {"batch_size": batch, "shuffle": True, "seed": 0}
    numbers = sz.GroupReader(store, config=config, seed=0).groups

    def gathered():
        order = random.permutation(len(numbers))
        for i in range(0, len(order), batch):
            yield held[numbers[order[i : i + batch]]]

    def of_torch(workers):
        made = ZarrPatchDataset(store, groups=config, **options)
        loader = DataLoader(made, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
        return epochs_of(lambda: iter(loader))

    made, anew = (sz.GroupReader(store, config=config, **options, **more) for more in ({}, {"hold": 0}))
    runs = {
        "sarzarr, GroupReader": epochs_of(lambda: iter(made)),
        "  hold=0: read anew for each batch": epochs_of(lambda: iter(anew)),
        "  ZarrPatchDataset, 0 workers": of_torch(0),
        "  ZarrPatchDataset, 2 workers": of_torch(2),
    }
    reference = epochs_of(gathered)
    rates, ratios = ({name: [] for name in runs} for _ in range(2))
    for run in (reference, *runs.values()):
        run()  # the first epoch finds cold memory
    beside = []
    for _ in range(rounds):
        for name, run in runs.items():
            before = reference()
            rates[name].append(run())
            beside.append((before + reference()) / 2)
            ratios[name].append(rates[name][-1] / beside[-1])
    print(
        f"\n{len(numbers)} groups of 4 frames of {size}x{size}, batches of {batch}, {rounds} rounds, cache warm"
    )
    print(f"{'':46}{'groups/s':>10}{'x gather':>10}")
    print(f"{'gather frames[groups] of float32 in RAM':46}{statistics.median(beside):10,.0f}{1:10.2f}")
    for name in runs:
        print(f"{name:46}{statistics.median(rates[name]):10,.0f}{statistics.median(ratios[name]):10.2f}")


# ------------------------------------------------------------------ training
def small_network():
    """Return a small convolutional network: enough to keep a CPU busy, and nothing else."""
    layers = torch.nn.Sequential(
        torch.nn.AvgPool2d(4),
        torch.nn.Conv2d(1, 8, 5, stride=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 1),
    )
    return layers, torch.optim.SGD(layers.parameters(), 1e-2)


def train(batches, limit):
    """Return (patches a second, share of the time that training waited for data)."""
    network, optimizer = small_network()
    taken, waited, begin = 0, 0.0, time.perf_counter()
    source = iter(batches)
    while taken < limit:
        asked = time.perf_counter()
        batch = next(source, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        optimizer.zero_grad()
        (network(batch) - batch.mean((1, 2, 3))[:, None]).square().mean().backward()
        optimizer.step()
        taken += len(batch)
    total = time.perf_counter() - begin
    return taken / total, waited / total


def training(material, batch, rounds):
    """Print what a training step gets from each placement of the loader."""
    torch.set_num_threads(1)  # a thread of torch that waits for another spins, and takes the loader's core
    limit = len(material.memory)
    store = material.codes
    placements = {
        "the batch is in memory already": None,
        "sarzarr, threads of this process": 0,
        "sarzarr, 1 DataLoader worker": 1,
        "sarzarr, 2 DataLoader workers": 2,
    }
    loaders = {}
    for name, workers in placements.items():
        if workers is None:
            image = torch.from_numpy(material.memory[:batch, None].copy())
            loaders[name] = [image] * (limit // batch)
        else:
            made = ZarrPatchDataset(store, **OPTIONS, batch_size=batch)
            loaders[name] = DataLoader(
                made, batch_size=None, num_workers=workers, persistent_workers=workers > 0
            )
    zarr_loader = DataLoader(ZarrPatches(store), batch, shuffle=True, num_workers=2, persistent_workers=True)
    loaders["zarr-python, 2 DataLoader workers"] = zarr_loader
    rates = {name: [] for name in loaders}
    for _ in range(rounds):
        for name, batches in loaders.items():
            rates[name].append(train(batches, limit))
    print(f"\na training step of a small convolutional network, one thread of torch, batches of {batch}")
    print(f"{'':40}{'patches/s':>10}{'waits':>8}")
    for name, some in rates.items():
        rate, waits = (statistics.median(column) for column in zip(*some, strict=True))
        print(f"{name:40}{rate:10,.0f}{waits:8.1%}")


# ------------------------------------------------------------------ opening and memory
def resident():
    """Return the megabytes of RAM that belong to this process alone."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) / 1024


def opening(folder, patches, batch):
    """Print what opening a large store costs, and what ten epochs do to memory."""
    made = hollow_store(folder / "hollow.zarr", patches)
    before, start = resident(), time.perf_counter()
    reader = sz.PatchReader(made, batch_size=batch, shuffle=True, min_unsaturated=0)
    opened = time.perf_counter() - start
    first = next(iter(reader))
    print(f"{len(reader.selection):,} patches of {len(reader.recipe.images.source.table.layouts):,} arrays")
    print(f"opened in {opened:.2f} s, first batch of {len(first)} after {time.perf_counter() - start:.2f} s")
    print(f"memory above the imports: {resident() - before:.0f} MB")


def hollow_store(root, patches):
    """Return a store of many scenes, all of them hard links to one: what is large is its index."""
    from sarzarr.store.catalog import catalog_of, catalog_rows
    from sarzarr.store.place import Folder
    from sarzarr.store.tables import write_table

    made = make_material(root.parent, 1024).codes
    made.root.rename(root)
    made = sz.open_store(root)
    (only,) = made.scenes
    rows, columns, attrs = catalog_rows(made.catalog), made.patch_columns(), made.patch_columns().attrs
    count = -(-patches // columns.sizes["patch"])
    names = [only, *(f"scene_{i:05d}" for i in range(1, count))]
    for name in names[1:]:
        shutil.copytree(root / "scenes" / only, root / "scenes" / name, copy_function=os.link)
    write_table(
        Folder(root), "catalog", catalog_of([row | {"scene": name} for name in names for row in rows])
    )
    tiled = {k: ("patch", np.tile(v.values, count)) for k, v in columns.items() if v.dims == ("patch",)}
    tiled["owner"] = ("patch", np.repeat(np.arange(count, dtype=np.int32), columns.sizes["patch"]))
    owners = {k: (v.dims, np.repeat(v.values, count)) for k, v in columns.items() if v.dims != ("patch",)}
    owners["owner_scene"] = (owners["owner_scene"][0], np.array(sorted(names), dtype=object))
    write_table(Folder(root), "patches/default", xr.Dataset(tiled | owners, attrs=attrs))
    return sz.open_store(root)


def epochs(material, batch):
    """Print how memory goes over ten epochs."""
    reader = sz.PatchReader(material.codes, **OPTIONS, batch_size=batch, augment="d4")
    seen = []
    for _ in range(10):
        for _ in reader:
            pass
        seen.append(resident())
    print("memory after each of ten epochs, MB:", " ".join(f"{m:.0f}" for m in seen))


# ------------------------------------------------------------------ mixing
def mixing(material, batch):
    """Print how well each order mixes a batch, and how many files it keeps in use."""
    print(
        f"\nbatches of {batch}: distinct scenes, mean distance on the ground, shards in use over 16 batches"
    )
    print(f"{'':28}{'scenes':>8}{'km':>8}{'shards':>8}")
    settings = {"shuffle=False": {"shuffle": False}, "shuffle=True": {"shuffle": True}}
    settings |= {f'shuffle="window", {w}': {"shuffle": "window", "window": w} for w in (4, 16, 32)}
    for name, chosen in settings.items():
        reader = sz.PatchReader(
            material.codes, **OPTIONS | chosen, batch_size=batch, with_meta=True, min_valid=1.0
        )
        order = reader.order(0)
        catalog, selection = reader.store.catalog, reader.selection
        array = selection.array[order, 0]
        affine = catalog["transform"].values[selection.catalog_row[array]]
        x = affine[:, 2] + affine[:, 0] * selection.col[order]
        y = affine[:, 5] + affine[:, 4] * selection.row[order]
        whole = len(order) // batch * batch
        scenes = [len(set(some)) for some in array[:whole].reshape(-1, batch).tolist()]
        places = np.stack([x, y], axis=1)[:whole].reshape(-1, batch, 2)
        apart = np.linalg.norm(places[:, :, None] - places[:, None], axis=3).sum((1, 2)) / (
            batch * (batch - 1)
        )
        shards = reader.shards[order][: whole // (16 * batch) * 16 * batch].reshape(-1, 16 * batch)
        used = np.mean([len(set(some)) for some in shards.tolist()])
        print(f"{name:28}{np.mean(scenes):8.1f}{np.mean(apart) / 1000:8.1f}{used:8.1f}")


# ------------------------------------------------------------------ single passes
def passes(folder, group=8):
    """Print what single steps cost a patch, one thread: the smallest of many short runs."""
    from crc32c import crc32c

    from sarzarr.pixels.stretch import Stretch
    from sarzarr.pixels.turns import Turner, apply

    random = np.random.default_rng(0)
    codes = random.integers(14_000, 28_000, (group, SIZE, SIZE), dtype=np.uint16)
    cells = random.integers(0, 255, (group, 2 * SIZE * SIZE + 4), dtype=np.uint8)
    work, out = codes.copy(), np.empty((group, SIZE, SIZE), np.float32)
    scratch, turner = np.empty(out.size, np.float32), Turner((SIZE, SIZE), "uint16")

    def each(function):
        return lambda: [function(i) for i in range(group)]

    at_codes = Stretch.between("uint16", (-60, 100), [-60 + 160 * (c - 1) / 65534 for c in (14_000, 27_000)])
    anywhere = Stretch.between("uint16", (-60, 100), (-25, 5))
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(cells.tobytes())
        file.flush()
        steps = {
            "read, a call each": each(
                lambda i: os.preadv(file.fileno(), [cells[i].data], i * cells.shape[1])
            ),
            "checksum, a call each": each(lambda i: crc32c(cells[i])),
            "checksum, one call": lambda: crc32c(cells),
            "clip, subtract (uint16)": lambda: (
                np.clip(codes, np.uint16(14_000), np.uint16(27_000), out=work),
                np.subtract(work, np.uint16(14_000), out=work),
            ),
            "cast, then multiply in place": lambda: (
                np.copyto(out, codes),
                np.multiply(out, np.float32(1e-4), out=out),
            ),
            "multiply, cast by NumPy's buffers": lambda: np.multiply(codes, np.float32(1e-4), out=out),
            "stretch, clip that ends at codes": lambda: at_codes(work, out, scratch),
            "stretch, any clip": lambda: anywhere(work, out, scratch),
            "65,536-entry table": lambda: np.take(scratch[:65536], codes, out=out),
            "transpose, a NumPy view": each(lambda i: np.copyto(work[i], apply(4, codes[i]))),
            "transpose, in words": each(lambda i: turner.copy(codes[i], 4, work[i])),
            "mirror, a NumPy view": each(lambda i: np.copyto(work[i], apply(1, codes[i]))),
            "mirror, in words": each(lambda i: turner.copy(codes[i], 1, work[i])),
        }
        print(f"\nmicroseconds a patch, one thread, {group} patches a group")
        for name, step in steps.items():
            found = []
            for _ in range(300):
                begin = time.perf_counter()
                step()
                found.append(time.perf_counter() - begin)
            print(f"{name:40}{np.percentile(found, 5) / group * 1e6:8.1f}")


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--patches", type=int, default=4096)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument(
        "--folder", type=Path, default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    )
    options.add_argument("--training", action="store_true", help="a training step instead of the table")
    options.add_argument("--opening", action="store_true", help="opening and memory instead of the table")
    options.add_argument("--mixing", action="store_true", help="what each order mixes instead of the table")
    options.add_argument("--passes", action="store_true", help="what single steps cost instead of the table")
    options.add_argument("--groups", action="store_true", help="groups of frames instead of the table")
    chosen = options.parse_args()
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    torch.manual_seed(0)
    if chosen.passes:
        passes(chosen.folder)
        return
    place = Path(tempfile.mkdtemp(prefix="bench-loader-", dir=chosen.folder))
    try:
        if chosen.groups:
            groups_of_frames(place, 2 * chosen.patches, chosen.batch, chosen.rounds)
            return
        if chosen.opening:
            opening(place, 700_000, chosen.batch)
        material = make_material(place, chosen.patches)
        if chosen.training:
            training(material, chosen.batch, chosen.rounds)
        elif chosen.mixing:
            mixing(material, chosen.batch)
        elif chosen.opening:
            epochs(material, chosen.batch)
        else:
            table(material, chosen.batch, chosen.rounds)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
