"""TIFFs that tests make, and where the real ones are."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

DATA = Path(os.environ.get("SARZARR_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no real rasters: set SARZARR_TEST_DATA")


def composed(*transforms: Affine) -> Affine:
    """Return the product of affines, the last one applied first: affine 2 has no ``@``, and 3 warns of ``*``."""
    product = np.linalg.multi_dot([np.eye(3), *(np.reshape([*t], (3, 3)) for t in transforms)])
    return Affine(*product[:2].ravel())


def write(
    path: Path, pixels: np.ndarray, *, names=(), tags=None, band_tags=(), scale=None, **options
) -> Path:
    """Write (bands, rows, columns), or one band, as a TIFF in UTM, with rasterio's creation options."""
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    count, height, width = pixels.shape
    made = {"crs": "EPSG:32633", "transform": from_origin(500000, 5000000, 10, 10), **options}
    made = {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": pixels.dtype,
        **made,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # some are meant to have no place
        with rasterio.open(path, "w", **made) as dataset:
            dataset.write(pixels)
            for band, name in enumerate(names, 1):
                dataset.set_band_description(band, name)
            for band, said in enumerate(band_tags, 1):
                dataset.update_tags(band, **said)
            if tags:
                dataset.update_tags(**tags)
            if scale is not None:
                dataset.scales, dataset.offsets = [scale[0]] * count, [scale[1]] * count
    return path


def speckle(shape=(1, 120, 130), *, looks=4, power=0.05, seed=0, dtype="float32") -> np.ndarray:
    """Return gamma-distributed power of a given mean."""
    rng = np.random.default_rng(seed)
    return (rng.gamma(looks, power / looks, shape)).astype(dtype)
