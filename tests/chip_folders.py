"""Folders of chips with their annotations."""

import warnings

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning


def write_picture(path, pixels, driver="PNG", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a picture has no place
        with rasterio.open(
            path, "w", driver=driver, count=len(pixels), height=pixels.shape[1], width=pixels.shape[2],
            dtype=pixels.dtype, **options,
        ) as out:  # fmt: skip
            out.write(pixels)
    path.with_name(path.name + ".aux.xml").unlink(missing_ok=True)
    return path


def voc(boxes, label="ship"):
    objects = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    return f"<annotation>{objects}</annotation>"


def chip_folder(folder, count=7, *, seed=0):
    """Write chips of many sizes whose boxes are brighter than all else."""
    rng = np.random.default_rng(seed)
    pictures = {}
    for i in range(count):
        height, width = rng.integers(40, 600, 2)
        pixels = rng.integers(0, 200, (height, width)).astype(np.uint8)
        x0, y0 = rng.integers(0, width - 20), rng.integers(0, height - 20)
        box = (x0, y0, x0 + rng.integers(5, 20), y0 + rng.integers(5, 20))
        pixels[box[1] : box[3], box[0] : box[2]] = 255
        write_picture(folder / "images" / f"chip_{i}.png", pixels)
        (folder / "xml").mkdir(exist_ok=True)
        (folder / "xml" / f"chip_{i}.xml").write_text(voc([box] if i != 2 else []))
        pictures[f"chip_{i}"] = (pixels, [box] if i != 2 else [])
    return pictures
