#!/usr/bin/env bash
# A Zarr v3 group may hold consolidated metadata of what is below it, without its root having any. xarray 2026.9.0 looks in the
# root alone: open_zarr(STORE, group=GROUP) says that it failed to open the store with consolidated metadata, and to consolidate
# it, though GROUP is consolidated; open_zarr(STORE/GROUP) of the same group says nothing. An empty object as the consolidated
# metadata of the root, which tells of no node, is enough to silence it, and the values are the same. No error is raised.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    "xarray==2026.9.0" "zarr==3.1.6" "numcodecs==0.16.6" "numpy==2.4.6" "pandas==3.1.1" 2>/dev/null
cd "$folder"
venv/bin/python - <<'PY'
import json
import pathlib
import warnings

import numpy as np
import xarray as xr
import zarr

store = pathlib.Path("scenes.zarr")
group = "scenes/a"
values = np.arange(16, dtype="float32").reshape(4, 4)
xr.Dataset({"vv": (("y", "x"), values)}).to_zarr(store, group=group, zarr_format=3, consolidated=False)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # zarr-python: consolidated metadata is no part of the specification
    zarr.consolidate_metadata(store, path=group)


def said(*path, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert (xr.open_zarr(*path, **options).vv.values == values).all()
    return [str(one.message).split(",")[0] for one in caught]


held = {key: "consolidated_metadata" in json.loads((store / key / "zarr.json").read_text()) for key in ("", group)}
by_group, by_path = said(store, group=group), said(store / group)
root = json.loads((store / "zarr.json").read_text())
(store / "zarr.json").write_text(json.dumps({**root, "consolidated_metadata": {}}))
with_empty = said(store, group=group)
print(f"consolidated metadata: of the root {held['']}, of the group {held[group]}")
print(f"open_zarr(store, group=): {by_group}")
print(f"open_zarr(store/group):   {by_path}")
print(f"with an empty one in the root, open_zarr(store, group=): {with_empty}")
assert held == {"": False, group: True}
assert by_group == ["Failed to open Zarr store with consolidated metadata"]
assert by_path == []
assert with_empty == []
PY
