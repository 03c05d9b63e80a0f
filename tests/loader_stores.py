"""Stores that the loader's tests read, made by the real ingest."""

import numpy as np
import zarr
from conftest import speckle, write_band

import sarzarr as sz

SHARD = 512


def make_store(folder, *, name="s.zarr", **options):
    """Ingest two scenes: ``a`` (VV, VH; with nodata and dark water) and ``b`` (VV alone)."""
    folder.mkdir(parents=True, exist_ok=True)
    vv = speckle((1100, 1300), seed=5)
    vv[:300, :270] = 0  # fill at the edge: nodata
    vv[700:760, 700:760] = 0  # dark water: valid
    write_band(folder / "a_vv.tif", vv, tiles=128)
    write_band(folder / "a_vh.tif", speckle((1100, 1300), seed=6, mean=0.01), tiles=128)
    write_band(folder / "b_vv.tif", speckle((600, 800), seed=7, mean=0.1), tiles=128, crs="EPSG:32634")
    files = sorted(folder.glob("*.tif"))
    settings = {"quantity": "sigma0", "representation": "power", "shard": SHARD} | options
    return sz.ingest(sz.plan_ingest(files, folder / name, strict=True, **settings))


def codes(store, scene, array):
    """Return an array as stored, read by zarr-python."""
    return zarr.open_array(store.root / "scenes" / scene / array, mode="r")[...]


def expected(store, scene, array, clip=None):
    """Return a whole array as the loader must deliver it, in float64: 0 where flags say that nothing was measured."""
    row = store.rows(scene)
    at = row["name"].values.tolist().index(array)
    vmin, vmax = (float(row[k].values[at]) for k in ("vmin", "vmax"))
    low, high = clip or tuple(store.bounds[row["bounds_key"].values[at]].clip)
    stored = codes(store, scene, array)
    z = (stored - 1.0) / 65534 if stored.dtype == np.uint16 else stored.astype(np.float64)
    out = np.clip((z * (vmax - vmin) + vmin - low) / (high - low), 0, 1)
    out[codes(store, scene, array + "_flags") >= 2] = 0
    return out


def places(reader):
    """Return (scene, arrays, row, col) of each patch of a reader's selection."""
    catalog, chosen = reader.store.catalog, reader.selection
    rows = chosen.catalog_row[chosen.array]
    return list(
        zip(
            catalog["scene"].values[rows[:, 0]].tolist(),
            map(tuple, catalog["name"].values[rows].tolist()),
            chosen.row.tolist(),
            chosen.col.tolist(),
            strict=True,
        )
    )


def numbered(reader):
    """Return a function that names the patches of a batch, by their first pixels."""
    whole = reader.__class__(reader.store, **vars(reader.options) | {"shuffle": False, "augment": None})
    images = np.concatenate([b if isinstance(b, np.ndarray) else b[0] for b in whole])
    known = {image.tobytes(): i for i, image in enumerate(images)}
    assert len(known) == len(images)
    return lambda batch: [known[np.asarray(image).tobytes()] for image in batch]


SMALL = {"patch_size": 32, "shuffle": True, "seed": 7, "min_unsaturated": 0, "with_meta": True}
"""Options of a reader of `small_store`."""


def small_store(folder, patches=(3, 4)):
    """Ingest one scene of so many rows and columns of patches of 32 pixels, and index them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_band(folder / "a_vv.tif", speckle(tuple(32 * n for n in patches), seed=5))
    settings = {"quantity": "sigma0", "representation": "power"}
    store = sz.ingest(sz.plan_ingest([folder / "a_vv.tif"], folder / "small.zarr", strict=True, **settings))
    sz.PatchReader(store, **SMALL)
    return store
