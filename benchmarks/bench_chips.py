"""An archive of chips to one collection: sarzarr beside reading the files with rasterio, as ratios within one run.

    make bench-chips BENCH_ARGS="--chips 1000 --folder /dev/shm"
    make bench-chips BENCH_ARGS="--many --folder /dev/shm"

Chips of 512 pixels, two polarizations of dB, deflate, each with a mask; with ``--many`` 100,000 of 120 pixels
without.

Reading is ``rasterio.open(file).read()`` in two threads, nothing done with the pixels. Turns alternate, so that a
drifting machine hits both; processor time is told beside wall time, for machines that others use, too. The ingest of
today before collections (``--scenes``) is measured on a twentieth of the chips.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

DISTINCT = 2000
"""Files that are written; those beyond are further names (hard links) of these."""
WORK = {
    "rasterio": """
from concurrent.futures import ThreadPoolExecutor
import rasterio
files = sorted(folder.rglob("*.tif"))
def read(file):
    with rasterio.open(file) as raster:
        return raster.read().nbytes
def work():
    with ThreadPoolExecutor(2) as pool:
        sum(pool.map(read, files, chunksize=16))
""",
    "collection": """
import sarzarr as sz
def work():
    layers = {"mask": "_mask"} if (folder / "masks").is_dir() else {}
    sz.ingest(sz.plan_ingest(folder, store, collection="chips", layers=layers))
""",
    "again": """
import sarzarr as sz
def work():
    layers = {"mask": "_mask"} if (folder / "masks").is_dir() else {}
    sz.ingest(sz.plan_ingest(folder, store, collection="chips", layers=layers))
""",
    "first batch": """
from sarzarr.torch import ZarrPatchDataset
def work():
    next(iter(ZarrPatchDataset(store, collection="chips", shuffle=True, batch_size=32)))
""",
    "scenes": """
import sarzarr as sz
def work():
    files = sorted(folder.glob("*.tif"))[:few]
    sz.ingest(sz.plan_ingest(files, store, scenes=True))
""",
}
TIMED = """
import json, os, resource, sys, time
from pathlib import Path
folder, store, few = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
{work}
def spent():
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(r.ru_utime + r.ru_stime for r in used)
cpu, began = spent(), time.perf_counter()
work()
wall, cpu = time.perf_counter() - began, spent() - cpu
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({{"wall": wall, "cpu": cpu, "peak": peak * 1024}}))
"""


def write_chips(folder, count, size, *, masks):
    """Write chips of dB side by side, those of a mask with smooth classes beside them."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin
    from scipy import ndimage

    rng = np.random.default_rng(0)
    files = []
    (folder / "masks").mkdir(parents=True) if masks else folder.mkdir(parents=True)
    profile = {"driver": "GTiff", "height": size, "width": size, "crs": "EPSG:32633", "compress": "deflate"}
    for i in range(count):
        name = f"S1A_2020{1 + i % 12:02}{1 + i % 28:02}_chip_{i:06}"
        if i >= DISTINCT and not masks:
            os.link(files[i % DISTINCT], folder / f"{name}.tif")
            continue
        place = from_origin(300_000 + 10 * size * (i % 100), 5_900_000 - 10 * size * (i // 100 % 100), 10, 10)
        db = (10 * np.log10(rng.gamma(4.4, 0.1 / 4.4, (2, size, size)))).astype("f4")
        files.append(folder / f"{name}.tif")
        with rasterio.open(files[-1], "w", count=2, dtype="float32", transform=place, **profile) as out:
            out.write(db)
            out.descriptions = ("VV", "VH")
        if masks:
            field = ndimage.zoom(rng.normal(size=(9, 9)), size / 9, order=3)
            classes = np.where(field > 0.5, 1, np.where(field < -1.5, -1, 0)).astype("i2")
            with rasterio.open(
                folder / "masks" / f"{name}_mask.tif",
                "w",
                count=1,
                dtype="int16",
                nodata=-1,
                transform=place,
                **profile,
            ) as out:
                out.write(classes, 1)


def run(what, folder, store, few):
    """Do one job in a process of its own, and return its seconds and its peak."""
    script = TIMED.format(work=WORK[what])
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(store), str(few)],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Make the chips, take turns, and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chips", type=int, default=0)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--many", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    asked = parser.parse_args()
    count, size = asked.chips or (100_000 if asked.many else 1000), asked.size or (120 if asked.many else 512)
    base = asked.folder / "bench-chips"
    shutil.rmtree(base, ignore_errors=True)
    chips, store, few = base / "chips", base / "s.zarr", max(count // 20, 10)
    try:
        write_chips(chips, count, size, masks=not asked.many)
        found = {"rasterio": [], "collection": []}
        for _ in range(1 if asked.many else asked.turns):
            found["rasterio"].append(run("rasterio", chips, store, few))
            shutil.rmtree(store, ignore_errors=True)
            found["collection"].append(run("collection", chips, store, few))
        files = sum(len(names) for _, _, names in os.walk(store))
        again = run("again", chips, store, few)
        first = run("first batch", chips, store, few)
        typical = {
            what: {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
            for what, turns in found.items()
        }
        ours, theirs = typical["collection"], typical["rasterio"]
        print(
            f"{count:,} chips of {size} px, two polarizations, deflate{'' if asked.many else ', with masks'}"
        )
        for what, own in typical.items():
            times = f"{own['wall']:8.2f} s, {own['cpu']:8.2f} s of processors"
            print(f"  {what:<12}{times}, peak {own['peak'] / 1e6:.0f} MB")
        wall, cpu = (ours[key] / theirs[key] for key in ("wall", "cpu"))
        print(f"  collection / rasterio: {wall:.2f}, of processor time {cpu:.2f}")
        print(f"  a second run: {again['wall']:.2f} s, {again['wall'] / ours['wall']:.3f} of the first")
        print(f"  opening to the first batch: {first['wall']:.2f} s, {first['cpu']:.2f} s of processors")
        print(f"  files in the store: {files}")
        if not asked.many:
            scenes = run("scenes", chips, base / "scenes.zarr", few)
            per = {"scenes": scenes["cpu"] / few, "collection": ours["cpu"] / count}
            print(f"  as scenes / collection, processor time a chip: {per['scenes'] / per['collection']:.1f}")
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
