"""Archives in the layout of the older patch pipeline: ``<stem>_patches.npy`` beside a pickled ``metadata.npy``."""

import numpy as np

VMIN, VMAX = 14.77, 24.54
WINDOWS = "C:\\Users\\someone\\SAR\\patches\\"
"""The folder that paths in the index begin with, on the machine that wrote it."""


def patches_of(image, size=256, stride=128):
    """Return the patches of an image, row by row, float32."""
    rows, cols = ((n - size) // stride + 1 for n in image.shape)
    starts = [(i * stride, j * stride) for i in range(rows) for j in range(cols)]
    return np.stack([image[y : y + size, x : x + size] for y, x in starts]).astype(np.float32)


def an_image(shape, seed=0):
    """Return an image in [0, 1], no two pixels alike but by chance."""
    return np.random.default_rng(seed).random(shape, np.float32)


def write_archive(folder, files, *, size=256, stride=128, prefix=WINDOWS, **facts):
    """Write an archive of (stem: patches) and return the path of its metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for stem, patches in sorted(files.items()):
        np.save(folder / f"{stem}_patches.npy", patches)
        index.append((f"{prefix}{stem}_patches.npy", len(patches)))
    metadata = {
        "vmin": np.float64(VMIN), "vmax": np.float64(VMAX), "patch_size": size, "stride": stride, "min_valid": 0.9,
        "num_patches": sum(n for _, n in index), "file_index": index, **facts,
    }  # fmt: skip
    np.save(folder / "metadata.npy", metadata)
    return folder / "metadata.npy"


def products(*names, count=6, size=256):
    """Return files of random patches: a product's name with each polarization."""
    return {name: an_image((count, size, size), seed=i) for i, name in enumerate(names)}
