"""One GeoTIFF to one store: sarzarr beside what people would write instead, as ratios within one run.

    make bench-ingest BENCH_ARGS="--size 16384 --folder /dev/shm"

Every contestant does the same job (linear power -> dB -> [0, 1] over [-60, 100] dB -> stored pixels) in a
process of its own, started after its imports, in turns, so that a drifting machine hits all of them. sarzarr
besides writes flags, histogram, clip bounds, manifest, catalog and patch index, and checks what it reads.
Pixels are synthesised speckle. The peers store what sarzarr's default stores: uint16 codes without compression.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

LOW, HIGH = -60.0, 100.0


# ------------------------------------------------------------------ the contestants
def rioxarray_chunks_of_256(source, out):
    """What a tutorial shows: 256-pixel Dask chunks, to_zarr."""
    _through_xarray(source, out, {"x": 256, "y": 256}, {"chunks": (256, 256)}, lock=None)


def rioxarray_shard_aligned(source, out):
    """The same by someone who knows: Dask chunks of whole shards, no lock."""
    _through_xarray(
        source, out, {"x": 2048, "y": 2048}, {"chunks": (256, 256), "shards": (2048, 2048)}, lock=False
    )


def _through_xarray(source, out, chunks, encoding, *, lock):
    import numpy as np
    import rioxarray

    power = rioxarray.open_rasterio(source, chunks=chunks, lock=lock)[0].drop_vars("band")
    z = ((10 * np.log10(power) - np.float32(LOW)) / np.float32(HIGH - LOW)).clip(0, 1)
    codes = (z * np.float32(65535)).round().astype("uint16")
    codes.attrs, codes.encoding = {}, {}
    dataset = codes.to_dataset(name="vv").drop_vars("spatial_ref")
    dataset.to_zarr(
        out, zarr_format=3, consolidated=False, encoding={"vv": {**encoding, "compressors": None}}
    )


def rasterio_threads_zarr(source, out):
    """Plain windowed reads in two threads, zarr-python writing whole shards."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import local

    import numpy as np
    import rasterio
    import zarr
    from rasterio.windows import Window

    with rasterio.open(source) as file:
        height, width = file.shape
    array = zarr.create_array(
        out, shape=(height, width), chunks=(256, 256), shards=(2048, 2048), dtype="uint16", compressors=None
    )
    mine = local()

    def block(at):
        if not hasattr(mine, "file"):
            mine.file = rasterio.open(source)
        row, col = at
        power = mine.file.read(1, window=Window(col, row, min(2048, width - col), min(2048, height - row)))
        z = (10 * np.log10(power) - np.float32(LOW)) * np.float32(1 / (HIGH - LOW))
        codes = (np.clip(z, 0, 1) * np.float32(65535) + np.float32(0.5)).astype("uint16")
        array[row : row + codes.shape[0], col : col + codes.shape[1]] = codes

    with rasterio.Env(GDAL_CACHEMAX=128 * 2**20), ThreadPoolExecutor(2) as pool:
        list(pool.map(block, [(r, c) for r in range(0, height, 2048) for c in range(0, width, 2048)]))


def reading_alone(source, out):
    """Read the file and do nothing with it, one thread."""
    import rasterio
    from rasterio.windows import Window

    with rasterio.Env(GDAL_CACHEMAX=128 * 2**20), rasterio.open(source) as file:
        for row in range(0, file.height, 512):
            file.read(1, window=Window(0, row, file.width, min(512, file.height - row)))


def _sarzarr(source, out, **options):
    import sarzarr as sz

    sz.ingest(sz.plan_ingest(source, out, quantity="sigma0", representation="power", **options))


def sarzarr_default(source, out):
    _sarzarr(source, out)


def sarzarr_float32_fixed(source, out):
    _sarzarr(source, out, dtype="float32", bounds="fixed")


def sarzarr_fixed(source, out):
    _sarzarr(source, out, bounds="fixed")


def sarzarr_percentile(source, out):
    _sarzarr(source, out, bounds="percentile")


CONTESTANTS = {
    "sarzarr (default)": sarzarr_default,
    "sarzarr (float32, fixed bounds)": sarzarr_float32_fixed,
    "sarzarr (classic: fixed bounds)": sarzarr_fixed,
    "sarzarr (classic: percentile)": sarzarr_percentile,
    "rioxarray, 256 chunks, to_zarr": rioxarray_chunks_of_256,
    "rioxarray + Dask, whole shards": rioxarray_shard_aligned,
    "rasterio threads + zarr-python": rasterio_threads_zarr,
    "reading alone, one thread": reading_alone,
}
FILES = {
    "tiled deflate": {"tiled": True, "compress": "deflate"},
    "tiled raw": {"tiled": True, "compress": None},
    "strips raw": {"tiled": False, "compress": None},
}


def write_scene(path, size, *, tiled, compress):
    """Write (size, size) float32 speckle on ground of two levels, which deflates as a scene does."""
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    rng, columns = np.random.default_rng(0), np.arange(size)
    pool = rng.gamma(4.4, 0.05 / 4.4, (1 << 22) + size).astype(np.float32)
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512} if tiled else {"blockysize": 1}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 400_000, 0, -10, 6_000_000)}
    with rasterio.open(
        path, "w", driver="GTiff", height=size, width=size, count=1, dtype="float32", compress=compress,
        num_threads="ALL_CPUS", bigtiff="IF_SAFER", **layout, **place,
    ) as file:  # fmt: skip
        for top in range(0, size, 512):
            rows = np.arange(top, min(top + 512, size))
            starts = rng.integers(0, 1 << 22, rows.size)
            power = np.stack([pool[start : start + size] for start in starts])
            power[(rows[:, None] // 300 + columns // 500) % 3 == 0] *= 0.05  # water
            file.write(power, 1, window=Window(0, top, size, rows.size))


# ------------------------------------------------------------------ the run
def child(name, source, out):
    """Run one contestant and print its seconds and its peak memory, children included."""
    function = CONTESTANTS[name]
    import numpy as np  # noqa: F401
    import rasterio  # noqa: F401
    import rioxarray  # noqa: F401
    import xarray  # noqa: F401
    import zarr  # noqa: F401

    if name.startswith("sarzarr"):
        import sarzarr.ingestion  # noqa: F401
    began = time.perf_counter()
    function(source, out)
    seconds = time.perf_counter() - began
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"seconds": seconds, "peak_mb": max(peaks) / 1000}))


def measure(name, source, folder):
    out = folder / "bench-out.zarr"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(f"{out}.ingest", ignore_errors=True)
    command = [sys.executable, "-W", "ignore", __file__, "--child", name, str(source), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree(out, ignore_errors=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=16384, help="rows and columns of the file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, default=Path("/dev/shm"), help="tmpfs, or a disk for the record"
    )
    parser.add_argument("--files", nargs="*", default=list(FILES), choices=list(FILES))
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS), help="contestants")
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    megabytes = arguments.size**2 * 4 / 1e6
    print(
        f"{arguments.size} x {arguments.size} float32 ({megabytes:.0f} MB), "
        f"{os.cpu_count()} cores, in {arguments.folder.name}"
    )
    for label in arguments.files:
        source = arguments.folder / "bench_vv.tif"
        write_scene(source, arguments.size, **FILES[label])
        found = {name: [] for name in arguments.only}
        for _ in range(arguments.rounds):
            for name in arguments.only:
                found[name].append(measure(name, source, arguments.folder))
        source.unlink()
        report(label, found, megabytes)


def report(label, found, megabytes):
    seconds = {name: statistics.median(r["seconds"] for r in runs) for name, runs in found.items()}
    peers = {"rioxarray, 256 chunks, to_zarr": "256 chunks", "rioxarray + Dask, whole shards": "whole shards"}
    against = [name for name in peers if name in seconds]
    heads = "".join(f"{'x ' + peers[name]:>18}" for name in against)
    print(f"\n{label:<34}{'MB/s':>8}{'seconds':>9}{'peak MB':>9}{heads}")
    for name, runs in found.items():
        peak = max(r["peak_mb"] for r in runs)
        ratios = "".join(f"{seconds[a] / seconds[name]:>18.2f}" for a in against)
        print(f"{name:<34}{megabytes / seconds[name]:>8.0f}{seconds[name]:>9.2f}{peak:>9.0f}{ratios}")
    if {"sarzarr (classic: percentile)", "sarzarr (classic: fixed bounds)"} <= set(seconds):
        ratio = seconds["sarzarr (classic: percentile)"] / seconds["sarzarr (classic: fixed bounds)"]
        print(f"classic percentile takes {ratio:.2f} times as long as fixed bounds")


if __name__ == "__main__":
    main()
