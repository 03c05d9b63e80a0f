"""Code 0, and NaN of floats, stand where nothing was measured, and nowhere else: in files, in xarray, in batches."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import speckle, write_band
from loader_stores import expected, places

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.pixels.compiled.when import SWITCH, loops
from sarzarr.store.manifest import read_manifest
from sarzarr.store.place import Folder

pytestmark = pytest.mark.slow

SHAPE = (700, 900)
OUTSIDE = np.s_[:300, :290]
"""At the edge; one chunk is all of it."""
HOLE = np.s_[600:630, 300:340]
DARK = np.s_[256:512, 512:768]
"""A whole chunk inside the scene."""


def speckle_with(outside, hole, dark):
    """Return power with values at the edge, in a hole and in a whole chunk."""
    power = speckle(SHAPE, seed=3)
    power[OUTSIDE], power[HOLE], power[DARK] = outside, hole, dark
    return power


def in_db(power):
    """Return dB whose zeros are those of the power."""
    with np.errstate(divide="ignore"):
        return np.where(power == 0, 0, 10 * np.log10(power)).astype(np.float32)


RASTERS = {
    "tag": (speckle_with(-9999, -9999, 0), "power", -9999.0, {"hole": False, "dark": True}),
    "nan": (speckle_with(np.nan, np.inf, -speckle((256, 256))), "power", None, {"hole": False, "dark": True}),
    "zeros": (speckle_with(0, 0, 0), "power", None, {"hole": True, "dark": True}),
    "amplitude": (np.sqrt(speckle_with(0, 0, 0)), "amplitude", np.nan, {"hole": True, "dark": True}),
    "dn": (
        np.sqrt(speckle_with(0, 0, 0) * 1e6).astype(np.uint16),
        "amplitude",
        0.0,
        {"hole": False, "dark": False},
    ),
    "dB": (in_db(speckle_with(0, 0, 0)), "db", None, {"hole": False, "dark": False}),
    "dB, tag": (in_db(speckle_with(0, 0, 0)), "db", 0.0, {"hole": False, "dark": False}),
    "complex": (
        np.sqrt(speckle_with(0, 0, 0)).astype(np.complex64) * np.complex64(1j),
        "complex",
        None,
        {"hole": True, "dark": True},
    ),
}
STORES = [
    {},
    {"shard": 0},
    {"dtype": "float32", "codec": "none"},
    {"dtype": "float32", "shard": 0},
    {"dtype": "float16"},
    {"border": 3},
    {"border": 3, "dtype": "float32"},
    {"bounds": "fixed"},
    {"bounds": "percentile", "dtype": "float32"},
    {"codec": "zstd", "bounds": "fixed", "vmin": -15.0, "vmax": -5.0},
    {"crs": "EPSG:32632", "pixel_size": 10.0, "resampling": "nearest"},
    {"crs": "EPSG:32632", "pixel_size": 25.0, "dtype": "float32"},
]
EVERY = [(kind, options) for kind in ("zeros", "dB") for options in STORES] + [
    (kind, STORES[i]) for kind in RASTERS for i in (0, 3, 5) if kind not in ("zeros", "dB")
]


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Return a function that gives the store of a raster with these options, each ingested once."""
    made = {}

    def get(kind, **options):
        key = kind, *sorted(options.items())
        if key not in made:
            values, representation, nodata, _ = RASTERS[kind]
            folder = tmp_path_factory.mktemp("made")
            path = write_band(folder / "a_vv.tif", values, nodata=nodata, tiles=128)
            settings = {"quantity": "sigma0", "representation": representation, "shard": 512} | options
            made[key] = sz.ingest(sz.plan_ingest(path, folder / "s.zarr", **settings))
        return made[key]

    return get


def raw(store, name):
    return zarr.open_array(store.root / "scenes/a" / name, mode="r")


def missing(values):
    """Return where stored values say that nothing was measured."""
    return values == 0 if values.dtype == np.uint16 else np.isnan(values)


def with_padding(store, name, folder):
    """Return an array with what its files hold beyond its edges."""
    shutil.copytree(store.root / "scenes/a" / name, folder / name)
    document = json.loads((folder / name / "zarr.json").read_text())
    file = document["chunk_grid"]["configuration"]["chunk_shape"]
    document["shape"] = [-(-n // size) * size for n, size in zip(document["shape"], file, strict=True)]
    (folder / name / "zarr.json").write_text(json.dumps(document))
    return zarr.open_array(folder / name, mode="r")[...]


# ------------------------------------------------------------------ files
@pytest.mark.parametrize(("kind", "options"), EVERY, ids=str)
def test_it_stands_exactly_where_flags_say_nodata_or_border(make, kind, options):
    store = make(kind, **options)
    stored, flags = raw(store, "vv")[...], raw(store, "vv_flags")[...]
    assert set(np.unique(flags)) <= set(cv.Flag)
    np.testing.assert_array_equal(missing(stored), ~cv.Flag.is_valid(flags))
    assert missing(stored).any()
    floor = stored[flags == cv.Flag.NONPOSITIVE]
    assert (floor == (cv.FIRST_CODE if stored.dtype == np.uint16 else 0)).all()
    if "crs" not in options:
        measured, margin = RASTERS[kind][3], options.get("border", 0)
        assert missing(stored[OUTSIDE]).all()
        assert missing(stored[HOLE]).all() != measured["hole"]
        assert missing(stored[DARK]).all() != measured["dark"]
        assert (flags == cv.Flag.BORDER).any() == bool(margin)


@pytest.mark.parametrize("options", [o for o in STORES if "crs" not in o], ids=str)
@pytest.mark.parametrize("kind", ["zeros", "dB"])
def test_padding_and_chunks_that_are_left_out_are_fill(make, tmp_path, kind, options):
    store = make(kind, **options)
    for name, is_fill in (("vv", missing), ("vv_flags", lambda values: values == 255)):
        padded = with_padding(store, name, tmp_path)
        beyond = np.ones(padded.shape, bool)
        beyond[: SHAPE[0], : SHAPE[1]] = False
        assert beyond.any()
        assert is_fill(padded[beyond]).all()
    records = read_manifest(Folder(store.root), "scenes/a/vv").records
    stored = with_padding(store, "vv", tmp_path / "again")
    chunks = missing(stored[:768, :1024]).reshape(3, 256, 4, 256).all((1, 3))
    assert chunks[0, 0]
    assert sum(r.chunks for r in records.values()) == (~chunks).sum()


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float16"])
@pytest.mark.parametrize("shard", [256, 0])
@pytest.mark.parametrize(("kind", "db"), [("zeros", -60.0), ("amplitude", -60.0)])
def test_a_whole_chunk_of_dark_ground_is_there(make, kind, db, dtype, shard):
    """It was taken for fill until the scene was known."""
    store = make(kind, dtype=dtype, shard=shard)
    np.testing.assert_allclose(store.db("a", "vv").values[DARK], db, atol=0.05)
    assert read_manifest(Folder(store.root), "scenes/a/vv").records["c/1/2"].chunks == 1
    assert read_manifest(Folder(store.root), "scenes/a/vv").records["c/0/0"].chunks == 0


# ------------------------------------------------------------------ other readers
@pytest.mark.compat
@pytest.mark.parametrize("options", STORES, ids=str)
def test_plain_xarray_gives_nan_there_and_the_mean_of_db(make, options):
    store = make("zeros", **options)
    opened = xr.open_zarr(store.root, group="scenes/a", consolidated=False)
    z, flags, db = (
        opened["vv"].load(),
        opened["vv_flags"],
        store.db("a", "vv").load(),
    )  # a chunk is all NaN: Dask warns
    assert flags.dtype == np.uint8
    measured = cv.Flag.is_valid(flags.values)
    assert 0 < measured.sum() < measured.size
    np.testing.assert_array_equal(np.isfinite(z.values), measured)
    np.testing.assert_array_equal(np.isfinite(db.values), measured)
    assert 0 <= float(z.min()) <= float(z.max()) <= 1
    vmin, vmax = z.attrs[cv.VMIN], z.attrs[cv.VMAX]
    mean = float(z.astype(np.float64).mean()) * (vmax - vmin) + vmin
    assert mean == pytest.approx(float(db.astype(np.float64).mean()), abs=0.5 * (vmax - vmin) / cv.STEPS)
    truth = 10 * np.log10(np.maximum(RASTERS["zeros"][0], 1e-6), dtype=np.float64)
    if not options.keys() & {"crs", "bounds", "border"}:
        assert mean == pytest.approx(
            truth[measured].mean(), abs=0.01 if options.get("dtype") == "float16" else 1e-3
        )


@pytest.mark.compat
def test_what_stands_in_the_documents(make):
    nan = "AAAAAAAA+H8="  # of a little-endian double
    for dtype, fill, attributes in (
        ("uint16", 0, {"scale_factor": 1 / 65534, "add_offset": -1 / 65534, "_FillValue": 0}),
        ("float32", "NaN", {"_FillValue": nan}),
        ("float16", "NaN", {"_FillValue": nan}),
    ):
        store = make("zeros", dtype=dtype)
        document = json.loads((store.root / "scenes/a/vv/zarr.json").read_text())
        assert document["fill_value"] == fill
        assert {k: v for k, v in document["attributes"].items() if k in cv.CODED} == attributes
        flags = json.loads((store.root / "scenes/a/vv_flags/zarr.json").read_text())
        assert flags["fill_value"] == 255
        assert not flags["attributes"].keys() & cv.CODED.keys()


# ------------------------------------------------------------------ batches
@pytest.fixture
def switched(monkeypatch):
    """Return a function that has compiled loops take part ("1"), or not ("0")."""

    def switch(value):
        monkeypatch.setenv(SWITCH, value)
        loops.cache_clear()

    yield switch
    loops.cache_clear()


@pytest.mark.parametrize("clip", [None, (-25.0, 5.0), (-60.0, 100.0), (-90.0, 120.0), (-61.5, -1.0)], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"shard": 0, "codec": "blosc-lz4"}, {"dtype": "float32"}, {"dtype": "float16"}, {"bounds": "fixed"}],
    ids=str,
)
def test_what_was_not_measured_is_delivered_as_0_without_a_look_at_flags(make, switched, options, clip):
    store = make("zeros", **options)
    found = []
    for switch in "10":
        switched(switch)
        for cut in ({}, {"edge": "pad", "stride": 200}, {"augment": "d4"}):
            reader = sz.PatchReader(store, clip=clip, min_valid=0, min_unsaturated=0, batch_size=5, **cut)
            assert reader.recipe.flags is None
            batches = np.concatenate([b.copy() for b in reader])
            found.append(batches)
            if cut.keys() == {"augment"}:
                continue
            truth = np.zeros((1200, 1400))
            truth[: SHAPE[0], : SHAPE[1]] = expected(store, "a", "vv", clip)
            for (image,), (_, _, row, col) in zip(batches, places(reader), strict=True):
                np.testing.assert_allclose(image, truth[row : row + 256, col : col + 256], atol=3e-6)
    for fast, slow in zip(found[:3], found[3:], strict=True):
        np.testing.assert_array_equal(fast, slow)
    assert (found[0] == 0).any()


def test_codes_that_are_delivered_as_stored_are_0_there(make):
    store = make("zeros")
    reader = sz.PatchReader(
        store, dtype="uint16", flags=True, edge="pad", stride=200, min_unsaturated=0, batch_size=50
    )
    ((codes, flags),) = reader
    np.testing.assert_array_equal(codes == 0, ~cv.Flag.is_valid(flags))
    assert set(np.unique(flags)) == {cv.Flag.VALID, cv.Flag.NONPOSITIVE, cv.Flag.NODATA}
