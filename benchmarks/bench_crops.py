"""Random crops: sarzarr's store beside torchgeo's RandomGeoSampler over the GeoTIFFs themselves, in one run.

    make bench-crops
    make bench-crops BENCH_ARGS="--scenes 4 --crops 1024 --environment build/torchgeo"

Both draw as many windows of 256 x 256 pixels, anywhere in the same scenes, in batches of one size, on the CPU.
torchgeo delivers linear power as the files have it; sarzarr checks checksums and delivers [0, 1] of the clip.
torchgeo is tuned in good faith: files are tiled, with a codec and without, all on one grid so that nothing is warped,
their handles are kept, GDAL may cache every tile, and workers are 0 or 2, whichever is best. Contenders take turns,
with the page cache warm; ratios are medians over the rounds.

torchgeo needs torchvision, which the tests do without: an environment over this one is made for it, in FOLDER or a
temporary one, with the versions of ``crops/requirements.txt``.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SIZE = 256
SIDE = 4096
CODECS = ("none", "deflate")
WORKERS = (0, 2)


def make_scenes(folder, scenes, codec):
    """Write scenes of speckle, 4096 x 4096 float32 in tiles of 256, side by side on one grid."""
    import rasterio
    from rasterio.transform import from_origin

    random = np.random.default_rng(0)
    tile = (random.gamma(4.4, 1 / 4.4, (SIDE, SIDE)) * 0.05).astype(np.float32)
    compress = {} if codec == "none" else {"compress": codec, "predictor": 3}
    folder.mkdir()
    for i in range(scenes):
        place = from_origin(300_000 + 10 * SIDE * i, 5_400_000, 10, 10)
        with rasterio.open(
            folder / f"s{i:03d}_vv.tif",
            "w",
            driver="GTiff",
            height=SIDE,
            width=SIDE,
            count=1,
            dtype="float32",
            tiled=True,
            blockxsize=SIZE,
            blockysize=SIZE,
            crs="EPSG:32633",
            transform=place,
            **compress,
        ) as out:
            out.write(np.roll(tile, 31 * i, 0), 1)
    return folder


def rate_of(batches):
    """Return the crops per second of an epoch, and how many there were."""
    taken, start = 0, time.perf_counter()
    for batch in batches:
        taken += len(batch["image"] if isinstance(batch, dict) else batch)
    return taken / (time.perf_counter() - start), taken


def of_torchgeo(folder, crops, batch, workers):
    """RandomGeoSampler over the files, and a DataLoader."""
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import RandomGeoSampler

    class Power(RasterDataset):
        filename_glob = "*.tif"

    dataset = Power(str(folder), cache=True)
    loader = DataLoader(
        dataset,
        batch_size=batch,
        sampler=RandomGeoSampler(dataset, SIZE, length=crops),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=stack_samples,
    )
    return lambda: rate_of(loader)


def of_store(store, crops, batch, **options):
    """Random crops of the store, threads of this process, as tensors."""
    from sarzarr.torch import ZarrPatchDataset

    fixed = {"crops": "random", "patch_size": SIZE, "min_unsaturated": 0, "seed": 0}
    made = ZarrPatchDataset(store, **fixed, batch_size=batch, per_epoch=crops, **options)
    return lambda: rate_of(made)


def measure(given, place):
    """Run every contender in turns and print the table."""
    sys.path.insert(0, str(HERE / "frameworks"))
    from counts import name_operators

    name_operators()
    import torch

    import sarzarr as sz
    from sarzarr.pixels.compiled.when import loops

    torch.set_num_threads(1)
    folders = {codec: make_scenes(place / codec, given.scenes, codec) for codec in CODECS}
    plan = sz.plan_ingest(
        sorted(folders["none"].glob("*.tif")),
        place / "s.zarr",
        quantity="sigma0",
        representation="power",
    )
    store = sz.ingest(plan)
    loops()  # long trainings start them
    runs = {
        'sarzarr, `crops="random"`': of_store(store, given.crops, given.batch),
        "the same, `scale=(0.5, 2)`": of_store(store, given.crops, given.batch, scale=(0.5, 2)),
    }
    for codec, folder in folders.items():
        tried = {}
        for workers in WORKERS:
            run = of_torchgeo(folder, given.crops, given.batch, workers)
            run()  # workers start, and handles are opened
            tried[workers] = run, run()[0]
        best = max(tried, key=lambda workers: tried[workers][1])
        files = "uncompressed files" if codec == "none" else f"files with {codec}"
        runs[f"torchgeo, {files}, {best} workers"] = tried[best][0]
    rates = {name: [] for name in runs}
    for name in list(runs)[:2]:
        run = runs[name]
        run()
    for _ in range(given.rounds):
        for name, run in runs.items():
            rate, taken = run()
            if taken != given.crops:
                raise RuntimeError(f"{name}: {given.crops} crops were expected, got {taken}")
            rates[name].append(rate)
    geo = [name for name in runs if name.startswith("torchgeo")]
    best = max(geo, key=lambda name: statistics.median(rates[name]))
    print(
        f"{given.crops} random crops of {SIZE} x {SIZE} from {given.scenes} scenes of {SIDE} x {SIDE}, batches of"
    )
    print(f"{given.batch}, {os.cpu_count()} cores, medians of {given.rounds} rounds\n")
    print("| | crops/s | x torchgeo's best |")
    print("|---|---|---|")
    for name, some in rates.items():
        ratios = [a / b for a, b in zip(some, rates[best], strict=True)]
        print(f"| {name} | {statistics.median(some):,.0f} | {statistics.median(ratios):.1f} |")


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--scenes", type=int, default=4)
    options.add_argument("--crops", type=int, default=1024)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--environment", type=Path, help="where torchgeo is, or will be installed")
    options.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    warnings.simplefilter("ignore")
    if given.inside is not None:
        measure(given, given.inside)
        return
    sys.path.insert(0, str(HERE))
    from run_frameworks import make_environment

    with tempfile.TemporaryDirectory(prefix="bench-crops-") as name:
        folder = given.environment or Path(name, "environment")
        python = make_environment(folder, HERE / "crops" / "requirements.txt", "--no-deps")
        place = Path(name, "scenes")
        place.mkdir()
        paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        alone = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        alone |= {"GDAL_CACHEMAX": "2048", "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
        command = [python, "-W", "ignore", __file__, *sys.argv[1:], "--inside", place]
        sys.exit(subprocess.run(command, env=alone, check=False).returncode)


if __name__ == "__main__":
    main()
