"""Seconds and memory of splitting a store whose patch index has a million rows. No pixels are made.

Usage: python benchmarks/bench_split.py [--patches 1000000] [--folder /dev/shm]
"""

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from rasterio.crs import CRS

from sarzarr.patches.cut import IndexSpec, patch_ids, positions
from sarzarr.splits.make import make_split
from sarzarr.splits.versions import patches_of
from sarzarr.store.catalog import catalog_of
from sarzarr.store.commit import write_bounds
from sarzarr.store.place import Folder
from sarzarr.store.store import BoundsEntry, create_store, open_store
from sarzarr.store.tables import write_table

SIDE = 25_600
"""Pixels of a scene's side: 100 x 100 patches."""


def make_store(root: Path, patches: int) -> None:
    """Write a catalog and a patch index of overlapping scenes in three UTM zones."""
    store, count = create_store(root), -(-patches // 10_000)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        zone = 32631 + i % 3
        left, top = 3e5 + rng.integers(0, 20_000) * 10, 5.6e6 + rng.integers(0, 60_000) * 10
        rows.append(
            {
                "scene": f"scene_{i:04}", "name": "vv", "flags": "vv_flags", "polarization": "VV",
                "quantity": "sigma0", "source_representation": "power", "dtype": "uint16", "codec": "none",
                "height": SIDE, "width": SIDE, "chunk": 256, "shard": 2048, "vmin": -60.0, "vmax": 100.0,
                "bounds_key": "vv/sigma0", "crs_wkt": CRS.from_epsg(zone).to_wkt(),
                "transform": (10.0, 0.0, left, 0.0, -10.0, top), "geolocation": "affine", "source_hash": str(i),
            }
        )  # fmt: skip
    write_table(Folder(root), "catalog", catalog_of(rows))
    bounds = BoundsEntry(vmin=-60, vmax=100, clip_vmin=-25, clip_vmax=5)
    starts = positions(SIDE, IndexSpec())
    row, col = (v.reshape(-1) for v in np.meshgrid(starts, starts, indexing="ij"))
    columns = {
        "owner": np.repeat(np.arange(count, dtype=np.int32), len(row)),
        "row": np.tile(row, count),
        "col": np.tile(col, count),
        "id": np.concatenate([patch_ids(f"scene_{i:04}", "vv", 256, row, col) for i in range(count)]),
    }
    columns |= {k: np.ones(count * len(row), np.float32) for k in ("valid_fraction", "unsaturated_fraction")}
    columns |= {k: np.zeros(count * len(row), np.float32) for k in ("mean_db", "std_db")}
    table = xr.Dataset({k: ("patch", v) for k, v in columns.items()})
    named = {"scene": [f"scene_{i:04}" for i in range(count)], "array": ["vv"] * count}
    for name, values in (named | {"stamp": [""] * count}).items():
        table[f"owner_{name}"] = ("array", np.array(values, dtype="T"))
    table.attrs = {"size": 256, "stride": 256, "edge": "drop", "dropped": 0}
    write_table(Folder(root), "patches/default", table)
    _ = store, bounds, write_bounds


def main() -> None:
    """Make the store in one process, split it in this one, and print what that took."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--patches", type=int, default=1_000_000)
    options.add_argument("--folder", type=Path, default=None)
    asked = options.parse_args()
    root = Path(tempfile.mkdtemp(dir=asked.folder)) / "million.zarr"
    try:
        from multiprocessing import get_context

        worker = get_context("spawn").Process(target=make_store, args=(root, asked.patches))
        worker.start()
        worker.join()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began = time.perf_counter()
        split = make_split(root)
        made = time.perf_counter() - began
        store = open_store(root)
        began = time.perf_counter()
        table = store.patch_columns()
        counts = {name: int(patches_of(store, split, table, name).sum()) for name in ("train", "val")}
        read = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{split}, {split.held_back_share:.1%} held back")
        print(f"{table.sizes['patch']} patches: {counts}")
        print(f"split made, checked and written in {made:.2f} s; patches of two sides found in {read:.2f} s")
        print(f"peak memory {peak:.0f} MB, of which {before:.0f} MB before it began")
    finally:
        shutil.rmtree(root.parent)


if __name__ == "__main__":
    main()
