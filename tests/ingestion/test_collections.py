"""A chip in a collection means what the same file means as a scene, and an archive goes in whole, once, in any order."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import tree_hash
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from tiffs import DATA, needs_data, speckle, write

import sarzarr as sz
from sarzarr.errors import Exit, InvalidInputError, PartialIngestError
from sarzarr.grids.window import Window  # noqa: F401
from sarzarr.store.collections import open_collection
from sarzarr.store.shards import read_stored
from sarzarr.store.store import open_store


def archive(folder, count=6, *, size=(40, 48), masks=False, seed=0, name="chip_{}.tif", **options):
    """Write chips of two bands of dB, side by side, with masks of three classes if they are wanted."""
    for i in range(count):
        db = 10 * np.log10(speckle((2, *size), seed=seed + i))
        place = {"transform": from_origin(500000 + 10 * size[1] * i, 5000000, 10, 10)} | options
        write(folder / name.format(i), db.astype("f4"), names=("VV", "VH"), **place)
        if masks:
            classes = np.random.default_rng(seed + i).integers(-1, 2, size).astype("i2")
            write(folder / "masks" / name.format(i).replace(".tif", "_mask.tif"), classes, nodata=-1, **place)
    return folder


def ingested(folder, store, **options):
    return sz.ingest(sz.plan_ingest(folder, store, **options))


def stored_scene(store, scene, array):
    """Return the codes of a scene, or its flags, as they are stored."""
    pixels = store.pixels(scene, array)
    return pixels.read((slice(0, pixels.shape[0]), slice(0, pixels.shape[1])))


FILLS = (-9999.0, -77.25, 0.0, np.nan)


@st.composite
def bands(draw):
    """Return two bands of one representation, some of their pixels not measured, and how the file says so."""
    kind = draw(st.sampled_from(["power", "db", "dn", "float-dn"]))
    size = draw(st.tuples(st.integers(20, 60), st.integers(20, 60))) if draw(st.booleans()) else (40, 530)
    power = speckle((2, *size), seed=draw(st.integers(0, 9)), power=draw(st.sampled_from([0.02, 0.3])))
    dtype = draw(st.sampled_from(["f4", "f8"]))
    if kind == "db":
        values = (10 * np.log10(power)).astype(dtype)
    elif kind == "power":
        values = power.astype(dtype)
    else:
        values = np.sqrt(power * 4e5).astype("u2" if kind == "dn" else dtype)
    options = {}
    for _ in range(draw(st.integers(0, 2))):
        top, left = draw(st.integers(0, size[0] - 10)), draw(st.integers(0, size[1] - 10))
        fill = draw(st.sampled_from(FILLS))
        if values.dtype.kind != "f":
            fill = draw(st.sampled_from([0, 65535]))
        if kind == "power" and fill == -77.25:
            fill = -0.001
        values[:, top : top + draw(st.integers(1, 9)), left : left + 9] = fill
        if draw(st.booleans()) and np.isfinite(fill):
            options["nodata"] = fill
    mask = draw(st.booleans())
    name = {"db": "sigma0_db_{}.tif", "power": "sigma0_{}.tif"}.get(kind, "S1A_IW_GRDH_1SDV_20200101T000000_amp_{}.tif")
    return values, options, mask, name


@settings(max_examples=25, phases=(Phase.generate,))
@given(drawn=bands())
def test_a_chip_has_the_codes_flags_and_counts_of_the_same_file_as_a_scene(drawn, tmp_path_factory):
    values, options, mask, name = drawn
    folder = tmp_path_factory.mktemp("chips")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write(folder / "a" / name.format(7), values, names=("VV", "VH"), **options)
        if mask:
            with rasterio.open(path, "r+") as out:
                measured = np.ones(values.shape[1:], bool)
                measured[3:6, 2:9] = False
                out.write_mask(measured)
    try:
        scenes = ingested(folder / "a", folder / "scenes.zarr", scenes=True)
    except sz.SarzarrError:
        with pytest.raises(sz.SarzarrError):
            ingested(folder / "a", folder / "chips.zarr", collection="archive")
        return
    chips = ingested(folder / "a", folder / "chips.zarr", collection="archive")
    collection = open_collection(chips, "archive")
    (scene,) = scenes.scenes
    assert len(collection) == 1
    assert collection.arrays == scenes.arrays(scene)[::-1] == ("vv", "vh")
    for array in collection.arrays:
        for which in (array, f"{array}_flags"):
            np.testing.assert_array_equal(collection.stored(0, which), stored_scene(scenes, scene, which), which)
        own, theirs = collection.histogram(array), scenes.histogram(scene, array)
        assert np.array_equal(own.counts, theirs.counts)
        for other in ("under", "over", "nonpositive", "nodata"):
            assert getattr(own, other) == getattr(theirs, other), other
    assert chips.bounds == scenes.bounds
    assert collection.grid(0) == scenes.grid(scene)
