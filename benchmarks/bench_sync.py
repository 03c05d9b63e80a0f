"""The cost of data that is on the disk before the document that says so: flushes of an ingest, and their seconds.

``python benchmarks/bench_sync.py FOLDER`` ingests synthetic scenes into a folder of the file system in question.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import sarzarr as sz


def main() -> None:
    """Ingest once, with every flush counted and timed, and print them beside the whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", nargs="?", default=None, help="where the store is made; the temporary folder if left out"
    )
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--size", type=int, default=4096)
    given = parser.parse_args()
    fsync, calls = os.fsync, list[float]()

    def timed(handle: int) -> None:
        began = time.perf_counter()
        fsync(handle)
        calls.append(time.perf_counter() - began)

    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        files = sz.write_synthetic_scenes(
            Path(folder) / "raw", count=given.scenes, shape=(given.size, given.size)
        )
        plan = sz.plan_ingest(files, Path(folder) / "s.zarr")
        os.fsync = timed
        began = time.perf_counter()
        store = sz.ingest(plan)
        seconds = time.perf_counter() - began
        shards = sum(path.stat().st_size > 0 for path in store.root.glob("scenes/*/*/c/*/*"))
        written = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
    print(f"{given.scenes} scenes, {shards} shards, {written / 1e6:.0f} MB in {seconds:.2f} s")
    print(f"{len(calls)} flushes, {sum(calls):.2f} s, {sum(calls) / seconds:.0%} of it")


if __name__ == "__main__":
    main()
