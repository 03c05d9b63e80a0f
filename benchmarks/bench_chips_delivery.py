"""Delivery of chips of a collection, against a gather of the same batches from RAM.

    make bench-chips-delivery BENCH_ARGS="--folder /dev/shm"
    python benchmarks/bench_chips_delivery.py [--chips 1000] [--sizes 120 256 264 512] [--seconds 1]

A chip is one channel of codes of speckle, stored as an ingest stores them. Rows are chips per second of
`ZarrPatchDataset` (shuffled, batches of 32, float32) and of ``torch.index_select(X, 0, idx, out=buffer)``, in pairs
that take turns, and the median of their ratios.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from chip_collections import VV, make_chips

from sarzarr.torch import ZarrPatchDataset

BATCH = 32


def delivered(dataset, most):
    """Return chips per second of a dataset's epochs, over ``most`` seconds."""
    begin, chips = time.perf_counter(), 0
    while time.perf_counter() - begin < most:
        for batch in dataset:
            chips += len(batch)
    return chips / (time.perf_counter() - begin)


def gathered(images, most):
    """Return chips per second of gathers of random batches from ``images`` (n, 1, rows, columns), over seconds."""
    out = torch.empty((BATCH, *images.shape[1:]))
    begin, chips = time.perf_counter(), 0
    while time.perf_counter() - begin < most:
        for some in torch.randperm(len(images)).split(BATCH):
            if len(some) == BATCH:
                torch.index_select(images, 0, some, out=out)
                chips += BATCH
    return chips / (time.perf_counter() - begin)


def main():
    """Print a row for each size of chips, pixels of a side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[120, 256, 264, 512])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)  # a thread of torch that waits for another spins, and takes the loader's core
    for size in given.sizes:
        count = min(given.chips, int(2e8 / size**2))
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            shapes = ((size, size),) * count
            store = make_chips(Path(folder) / "s.zarr", sizes=shapes, masks=False, arrays=(VV,), per=1024)
            dataset = ZarrPatchDataset(
                store, collection="floods", shuffle=True, batch_size=BATCH, drop_last=True
            )
            images = torch.cat([batch.clone() for batch in dataset])
            delivered(dataset, 0.1)
            pairs = [
                (delivered(dataset, given.seconds), gathered(images, given.seconds))
                for _ in range(given.pairs)
            ]
        ours, ram = (statistics.median(each) for each in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        print(
            f"{size} px, {count} chips: {ours:8.0f} chips/s, RAM gather {ram:8.0f}, ratio {ratio:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
