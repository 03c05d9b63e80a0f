"""Seconds to group a scan, beside a plain loop of as many `cKDTree.query` calls; and the peak of memory.

    make bench-grouping

Both build their tree. They take turns for several rounds; each figure is the median, and the ratio that of pairs.
"""

import argparse
import statistics
import time
import tracemalloc

import numpy as np
from scipy.spatial import cKDTree

from sarzarr.grouping import GroupRecipe, group_positions


def loop(x, y, recipe):
    """Ask for the neighbours of one seed after another, and draw nothing."""
    points = np.column_stack([x, y])
    tree = cKDTree(points)
    for seed in np.random.RandomState(recipe.seed).choice(len(x), recipe.nsamples, replace=False):
        tree.query(points[seed], k=recipe.neighbors + 1)


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    print("| groups | positions | K | grouping, ms | loop of queries, ms | ratio | peak, MB |")
    print("|---|---|---|---|---|---|---|")
    for groups, n, k in (
        (10, 100, 4),
        (256, 2_500, 4),
        (512, 10_000, 4),
        (512, 10_000, 7),
        (10_000, 100_000, 4),
    ):
        x, y = np.random.default_rng(0).uniform(0, 10 * n**0.5, (2, n))
        recipe = GroupRecipe(gridsize=2, nsamples=groups, neighbors=k, seed=0)
        pairs = [(seconds(group_positions, x, y, recipe), seconds(loop, x, y, recipe)) for _ in range(rounds)]
        ours, plain = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        tracemalloc.start()
        group_positions(x, y, recipe)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        print(f"| {groups:,} | {n:,} | {k} | {ours:.1f} | {plain:.1f} | {ratio:.2f} | {peak:.1f} |")


if __name__ == "__main__":
    main()
