#!/usr/bin/env bash
# xarray 2026.9.0 documents use_zarr_fill_value_as_mask=True of open_zarr and open_dataset: the fill_value of a Zarr array
# is taken for missing data. Its Zarr backend takes the argument and passes None on, which means False of format 3: integers
# come back with the fill value among them, and a mean counts it. A Zarr array of format 2 with the same numbers is masked,
# and with False given it is masked too. No error is raised.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    "xarray==2026.9.0" "zarr==3.1.6" "numcodecs==0.16.6" "numpy==2.4.6" "pandas==3.1.1" 2>/dev/null
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import numpy as np
import xarray as xr
import zarr

warnings.simplefilter("ignore")
for version in (2, 3):
    group = zarr.open_group(f"v{version}.zarr", mode="w", zarr_format=version)
    names = {"dimension_names": ["x"]} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": ["x"]}}
    array = group.create_array("a", shape=(4,), chunks=(4,), dtype="uint8", fill_value=255, **names)
    array[:] = np.array([1, 2, 3, 255], "uint8")
means = {}
for version in (2, 3):
    for asked in (None, True, False):
        opened = xr.open_zarr(f"v{version}.zarr", consolidated=False, use_zarr_fill_value_as_mask=asked).a
        means[version, asked] = float(opened.mean())
        print(f"format {version}, use_zarr_fill_value_as_mask={asked!s:5}: {opened.dtype}, mean {means[version, asked]}")
assert {asked: mean for (version, asked), mean in means.items() if version == 2} == {None: 2, True: 2, False: 2}
assert {asked: mean for (version, asked), mean in means.items() if version == 3} == {None: 65.25, True: 65.25, False: 65.25}
PY
