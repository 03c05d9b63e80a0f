#!/usr/bin/env bash
# xarray 2026.9.0 makes a Zarr node first and gives it its attributes after. In a folder the second document replaces the first; a
# ZIP archive (zarr 3.1.6, ZipStore) cannot, so Dataset.to_zarr leaves two files of one name for the root and for every array.
# Of format 3 the first has no attributes, of format 2 the first .zattrs has no names of dimensions either. Readers that take the last
# one see a whole store, xarray too; whoever takes the first loses those. Python's zipfile warns of each ("Duplicate name"), so
# that with warnings as errors the same call on the same data fails for a ZIP archive alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    "xarray==2026.9.0" "zarr==3.1.6" "numcodecs==0.16.6" "numpy==2.4.6" "pandas==3.1.1" 2>/dev/null
cd "$folder"
venv/bin/python - <<'PY'
import json
import warnings
import zipfile
from collections import defaultdict

import numpy as np
import xarray as xr
from zarr.storage import ZipStore

data = xr.Dataset({"vv": (("y", "x"), np.ones((4, 4), "float32"))}, attrs={"orbit": "ascending"})


def write(path, form):
    with ZipStore(path, mode="w") as store:
        data.to_zarr(store, zarr_format=form, consolidated=False)


found = {}
for form in (2, 3):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write(f"{form}.zip", form)
    held = defaultdict(list)
    with zipfile.ZipFile(f"{form}.zip") as archive:
        for entry in archive.infolist():
            if "/c/" not in entry.filename and not entry.filename.endswith("/0.0"):
                held[entry.filename].append(json.loads(archive.open(entry).read()))
    twice = sorted(name for name, documents in held.items() if len(documents) == 2)
    print(f"format {form}: twice {twice}; warnings: {sorted({str(one.message)[:14] for one in caught})}")
    for name in twice:
        print(f"    {name}: attributes {[d.get('attributes', d if name.endswith('.zattrs') else '-') for d in held[name]]}")
    found[form] = twice, held
    with ZipStore(f"{form}.zip", mode="r") as store:
        again = xr.open_zarr(store, consolidated=False)
        assert again.attrs == data.attrs and again.vv.dims == ("y", "x")

try:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write("strict.zip", 3)
    failed = "nothing"
except UserWarning as error:
    failed = str(error)
print(f"with warnings as errors: {failed}")
assert found[3][0] == ["vv/zarr.json", "zarr.json"]
assert [d["attributes"] for d in found[3][1]["zarr.json"]] == [{}, {"orbit": "ascending"}]
assert {"vv/.zarray", "vv/.zattrs"} <= set(found[2][0])
assert [d.get("_ARRAY_DIMENSIONS") for d in found[2][1]["vv/.zattrs"]] == [None, ["y", "x"]]
assert failed.startswith("Duplicate name")
PY
