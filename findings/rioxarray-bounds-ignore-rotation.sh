#!/usr/bin/env bash
# rioxarray 0.19.0 opens a raster whose affine is turned by 30 degrees, keeps that affine, and computes its bounds from
# pixel sizes alone: a box of 1000 m to the north of the upper left corner. The raster itself lies in a box of 1366 m,
# mostly to the south of it, as rasterio 1.4.3 says of the same file. Whoever asks rio.bounds() which scenes meet a
# region looks for the raster where it is not. No error is raised.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    "rioxarray==0.19.0" "xarray==2025.6.1" "rasterio==1.4.3" "affine==2.4.0" "numpy==2.2.6" 2>/dev/null
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import numpy as np
import rasterio
import rioxarray

warnings.simplefilter("ignore")
turned = rasterio.Affine.translation(500_000, 5_400_000) * rasterio.Affine.rotation(30) * rasterio.Affine.scale(10, -10)
options = {"driver": "GTiff", "height": 100, "width": 100, "count": 1, "dtype": "float32", "crs": "EPSG:32633"}
with rasterio.open("turned.tif", "w", transform=turned, **options) as file:
    file.write(np.ones((100, 100), "float32"), 1)
corners = np.array([turned * (c, r) for c in (0, 100) for r in (0, 100)])
truth = (*corners.min(axis=0), *corners.max(axis=0))
with rasterio.open("turned.tif") as file:
    by_rasterio = tuple(file.bounds)
by_rioxarray = rioxarray.open_rasterio("turned.tif").rio.bounds()
for name, box in (("corners", truth), ("rasterio", by_rasterio), ("rioxarray", by_rioxarray)):
    print(f"{name:9}", *(f"{v:.1f}" for v in box), f"{(box[2] - box[0]):.0f} m wide")
assert np.allclose(by_rasterio, truth)
assert np.allclose(by_rioxarray, (500_000, 5_400_000, 501_000, 5_401_000))
PY
