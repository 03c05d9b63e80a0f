"""How fast `sarzarr.verify` reads a store, beside CRC-32C over the same files in two processes.

The store has scenes of speckle in the default encoding, and is in the page cache. Both take turns; medians and the
median of the pairs' ratios are shown. The other side reads each file whole and sums it up; starting its processes is
not counted, what `verify` does besides reading is.

Usage: python benchmarks/bench_verify.py [--scenes 6] [--side 8192] [--pairs 7]
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from crc32c import crc32c
from rasterio.transform import from_origin

import sarzarr as sz


def make_store(folder: Path, scenes: int, side: int) -> Path:
    """Ingest scenes of gamma speckle, and return the store's path; their files are removed."""
    tile = (np.random.default_rng(0).gamma(4.4, 1 / 4.4, (1024, 1024)) * 0.05).astype(np.float32)
    profile = {
        "driver": "GTiff",
        "height": side,
        "width": side,
        "count": 1,
        "dtype": "float32",
        "tiled": True,
    }
    for i in range(scenes):
        path = folder / f"s{i}_vv.tif"
        where = from_origin(500_000 + i * 2 * 10 * side, 5_400_000, 10, 10)
        with rasterio.open(path, "w", **profile, crs="EPSG:32633", transform=where) as out:
            out.write(np.tile(tile, (-(-side // 1024),) * 2)[:side, :side], 1)
        sz.ingest(sz.plan_ingest(path, folder / "s.zarr", representation="power"))
        path.unlink()
    return folder / "s.zarr"


def sum_up(paths: list[Path]) -> int:
    """Return the bytes of files, each of which was read and summed up."""
    total = 0
    for path in paths:
        content = path.read_bytes()
        crc32c(content)
        total += len(content)
    return total


def other_side(files: list[Path]) -> tuple[int, float]:
    """Return the bytes of files, and the seconds in which two processes, which are there already, sum them up."""
    with multiprocessing.get_context("spawn").Pool(
        2
    ) as pool:  # gone before verify, which forks where it is alone
        pool.map(sum_up, [[], []])
        began = time.perf_counter()
        size = sum(pool.map(sum_up, [files[::2], files[1::2]]))
        return size, time.perf_counter() - began


def main() -> None:
    """Print the rates of both, and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--pairs", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), given.scenes, given.side)
        files = sorted(path for path in store.rglob("*") if path.is_file())
        rates: dict[str, list[float]] = {"verify": [], "crc32c": []}
        for _ in range(given.pairs):
            size, seconds = other_side(files)
            rates["crc32c"].append(size / seconds / 1e9)
            began = time.perf_counter()
            assert sz.verify(store)
            rates["verify"].append(size / (time.perf_counter() - began) / 1e9)
    for name, some in rates.items():
        print(f"{name:<8} {statistics.median(some):6.2f} GB/s")
    ratios = [a / b for a, b in zip(rates["verify"], rates["crc32c"], strict=True)]
    shown = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
    print(f"verify / crc32c: {statistics.median(ratios):.2f} ({shown})")


if __name__ == "__main__":
    main()
