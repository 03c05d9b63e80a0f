"""Scans for tests: real positions with simulated diffraction, small lattices, and the slow twin of grouping."""

from itertools import combinations

import numpy as np
from scipy.spatial import cKDTree


def window(image, x, y, size):
    """Return the object at a whole position, as plain slicing cuts it."""
    top, left = int(y) - size // 2, int(x) - size // 2
    return image[top : top + size, left : left + size]


def diffraction(probe, image, x, y):
    """Return (n, N, N) float32 amplitudes: sqrt(fftshift(|FFT2(P O)|**2) / N**2), of positions rounded to pixels."""
    size = len(probe)
    frames = [
        np.fft.fftshift(np.abs(np.fft.fft2(probe * window(image, round(a), round(b), size)))) / size
        for a, b in zip(x, y, strict=True)
    ]
    return np.array(frames, np.float32)


def lattice(n=100, size=64, seed=0):
    """Return the arrays of a scan on a lattice of 10 columns, by their keys in an NPZ file."""
    draw = np.random.default_rng(seed)
    y, x = np.divmod(np.arange(n), 10)
    wide = size + 44
    image = np.exp(1j * draw.uniform(-1, 1, (wide, wide))).astype(np.complex64)
    return {
        "diffraction": draw.uniform(0, 1, (n, size, size)).astype(np.float32),
        "xcoords": size / 2 + 4.0 * x,
        "ycoords": size / 2 + 4.0 * y,
        "probeGuess": np.exp(1j * draw.uniform(-1, 1, (size, size))).astype(np.complex64),
        "objectGuess": image,
        "scan_index": np.zeros(n, np.int64),
    }


def arguments(arrays):
    """Return the arguments of `RawDataTorch` for arrays by key."""
    names = {"diffraction": "diff3d"}
    return {names.get(key, key): value for key, value in arrays.items()}


def slow_groups(x, y, recipe):
    """Return groups a seed at a time, as the text says: the oracle of `group_positions`."""
    n, size, wanted = len(x), recipe.gridsize**2, recipe.nsamples
    points = np.column_stack([x, y])
    tree = cKDTree(points)
    if wanted > n and size > 1:
        k = recipe.neighbor_pool_size or recipe.neighbors
        draw = np.random.RandomState(recipe.seed)
        per = len(list(combinations(range(k), size)))
        count = min(2 * max(1, -(-wanted // per)), n)
        if recipe.sequential_sampling:
            seeds = np.arange(count)
        else:
            seeds = draw.choice(n, count, replace=False) if count < n else np.arange(n)
        pool = []
        for seed in seeds:
            row = [i for i in tree.query(points[seed], k=min(k + 1, n))[1] if i != seed][:k]
            for group in combinations(row, size):
                if len(pool) < 2 * wanted:
                    pool.append(group)
        chosen = draw.choice(len(pool), wanted, replace=wanted > len(pool))
        return np.array([pool[i] for i in chosen], np.int64)
    draw = np.random.RandomState(0 if recipe.sequential_sampling else recipe.seed)
    count = min(wanted, n)
    if recipe.sequential_sampling or count == n:
        seeds = np.arange(count)
    else:
        seeds = draw.choice(np.arange(n), count, replace=False)
    if size == 1:
        return seeds[:, None].astype(np.int64)
    groups = []
    for seed in seeds:
        row = tree.query(points[seed], k=min(recipe.neighbors + 1, n))[1]
        candidates = row[1:] if len(row) > recipe.neighbors else row[: recipe.neighbors]
        if len(candidates) < size:
            candidates = np.concatenate([[seed], candidates])
        groups.append(draw.choice(candidates, size, replace=len(candidates) < size))
    return np.array(groups, np.int32)
