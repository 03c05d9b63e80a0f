#!/usr/bin/env bash
# GDAL 3.12.2 (in rasterio 1.5.2) reads the CRS of a Zarr array from the grid mapping that rioxarray 0.23.0 writes, and not
# the GeoTransform that stands in the same attributes. Of a raster that is not turned nothing is lost, since x and y tell it.
# A turned one, of which there are no x and y, opens with its CRS and, as rasterio warns, without a geotransform: the
# identity is returned, and a pixel of 10 m is taken for one of 1 m at the origin of the CRS.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"  # of Python 3.12 or later, which rasterio 1.5 needs
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    "rasterio==1.5.2" "rioxarray==0.23.0" "xarray==2026.9.0" "zarr==3.1.6" "numcodecs==0.16.6" "numpy==2.4.6" \
    "pandas==3.1.1" 2>/dev/null
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import numpy as np
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
from rasterio.transform import Affine

warnings.simplefilter("error")
turned = Affine(8.0, -6.0, 500_000.0, -6.0, -8.0, 5_000_000.0)
array = xr.DataArray(np.arange(600, dtype="float32").reshape(20, 30), dims=("y", "x"), name="v")
array = array.rio.write_crs("EPSG:32633").rio.write_transform(turned)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of consolidated metadata, which is not in the specification yet
    array.to_dataset().to_zarr("t.zarr", zarr_format=3)
    back = xr.open_zarr("t.zarr", decode_coords="all").v
print("rioxarray:", tuple(back.rio.transform())[:6])
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    dataset = rasterio.open('ZARR:"t.zarr":/v')
assert ["no geotransform" in str(one.message) for one in said] == [True]
with dataset:
    print(f"GDAL {rasterio.__gdal_version__}:", dataset.crs.to_epsg(), tuple(dataset.transform)[:6])
    assert dataset.crs.to_epsg() == 32633
    assert dataset.transform == Affine.identity()
    assert (dataset.read(1) == array.values).all()
assert back.rio.transform() == turned
assert rasterio.__gdal_version__.startswith("3.12.2")
PY
