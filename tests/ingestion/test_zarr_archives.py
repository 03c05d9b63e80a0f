"""A chip of a Zarr archive, as SSL4EO-S12 v1.1 publishes them, is the chip of a GeoTIFF with the same pixels."""

import gc
import json
import tarfile
import zipfile

import numcodecs
import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from rasterio.transform import from_origin
from tiffs import speckle, write

import sarzarr as sz
from sarzarr import rasters
from sarzarr.errors import UnsupportedRasterError
from sarzarr.zips import zarrs

BANDS = {"S1GRD": ["vv", "vh"], "S2L2A": ["B02", "B03", "B04"], "DEM": ["DEM"]}
DTYPES = {"S1GRD": "float16", "S2L2A": "int16", "DEM": "float32"}
EPSG = (32632, 32733)


def published(modality, *, samples=2, times=2, size=(24, 26), seed=0):
    """Return a dataset laid out as SSL4EO-S12 v1.1: samples in zones of their own, times, bands, rows, columns."""
    rng, (rows, cols) = np.random.default_rng(seed), size
    shape = (samples, times, len(BANDS[modality]), rows, cols)
    if modality == "S1GRD":
        pixels = 10 * np.log10(speckle((samples * times * 2, rows, cols), seed=seed)).reshape(shape)
    else:
        pixels = rng.integers(0, 3000, shape)
    step = 10.0 * np.arange(max(size))
    east, north = (
        500_000 + 9000.0 * np.arange(samples)[:, None],
        5_100_000 + 9000.0 * np.arange(samples)[:, None],
    )
    days = np.datetime64("2020-03-01T05:30:11", "ns") + np.timedelta64(90, "D") * np.arange(samples * times)
    return xr.Dataset(
        {"bands": (("sample", "time", "band", "y", "x"), pixels.astype(DTYPES[modality]))},
        coords={
            "band": BANDS[modality],
            "sample": [f"{i:07d}" for i in range(100 + seed, 100 + seed + samples)],
            "x": (("sample", "x"), east + step[None, :cols] + 5),
            "y": (("sample", "y"), north - step[None, :rows] - 5),
            "crs": ("sample", np.array([EPSG[i % 2] for i in range(samples)])),
            "time": (("sample", "time"), days.reshape(samples, times)),
            "file_id": (
                ("sample", "time"),
                [[f"{modality}_{i}_{t}" for t in range(times)] for i in range(samples)],
            ),
            "center_lat": ("sample", np.full(samples, 46.0)),
            "center_lon": ("sample", np.full(samples, 9.0)),
        },
    )


def pack(path, dataset, *, form=2, chunks=None, **encoding):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zarr.storage.ZipStore(path, mode="w") as store:
        named = {"bands": encoding | ({"chunks": chunks} if chunks else {})}
        dataset.to_zarr(store, zarr_format=form, encoding=named, consolidated=False)
    return path


def as_tiffs(folder, dataset, modality):
    """Write the same chips as GeoTIFFs."""
    for i, sample in enumerate(dataset["sample"].values):
        for t in range(dataset.sizes["time"]):
            one = dataset.isel(sample=i, time=t)
            x, y = one["x"].values, one["y"].values
            pixels = one["bands"].values
            write(
                folder / modality / f"{sample}_t{t}.tif",
                pixels.astype("f4") if pixels.dtype == "f2" else pixels,
                names=BANDS[modality],
                crs=f"EPSG:{int(one['crs'])}",
                transform=from_origin(x[0] - 5, y[0] + 5, 10, 10),
            )


pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),
    pytest.mark.filterwarnings("ignore:Duplicate name"),  # xarray writes the document of the root twice
]
CHUNKS = {"whole": (2, 2, 2, 24, 26), "uneven": (1, 2, 1, 9, 26), "chips": (1, 1, 2, 24, 26)}


@pytest.mark.parametrize(
    ("form", "chunks"), [(2, "uneven"), pytest.param(2, "whole", marks=pytest.mark.slow), (3, "chips")]
)
def test_a_chip_of_a_zarr_archive_is_that_of_a_geotiff(tmp_path, form, chunks):
    dataset = published("S1GRD")
    archive = tmp_path / "a" / "S1GRD" / "ssl4eos12_val_seasonal_data_000001.zarr.zip"
    pack(archive, dataset, form=form, chunks=CHUNKS[chunks])
    as_tiffs(tmp_path / "b", dataset, "S1GRD")
    made = []
    for name in "ab":
        plan = sz.plan_ingest(tmp_path / name, tmp_path / f"{name}.zarr", collection="x")
        made.append(sz.open_collection(sz.ingest(plan), "x"))
        assert (
            sz.plan_ingest(tmp_path / name, tmp_path / f"{name}.zarr", collection="x").collections[0].present
            == 4
        )
    one, other = made
    assert one.ids == other.ids == ("0000100_t0", "0000100_t1", "0000101_t0", "0000101_t1")
    assert one.arrays == other.arrays == ("vv", "vh")
    for name in ("sha", "transform", "valid_vv", "valid_vh"):
        assert np.array_equal(one.table[name], other.table[name]), name
    for chip in one.ids:
        assert one.grid(chip) == other.grid(chip)
        for array in one.contents.stored:
            np.testing.assert_array_equal(one.stored(chip, array), other.stored(chip, array))
    assert rasterio.CRS.from_wkt(one.grid(2).crs_wkt).to_epsg() == EPSG[1]
    assert one.table["time"].values.tolist() == dataset["time"].values.reshape(-1).tolist()
    assert np.array_equal(one.histogram("vv").counts, other.histogram("vv").counts)
    assert sz.verify(one.store)


@pytest.mark.slow
def test_other_modalities_beside_it_are_layers_at_once_and_later(tmp_path):
    for modality in BANDS:
        for number in (1, 2):
            pack(
                tmp_path / "a" / modality / f"shard_{number:06d}.zarr.zip",
                published(modality, seed=10 * number),
            )
    layers = {"s2": "S2L2A", "dem": "DEM"}
    once = sz.ingest(sz.plan_ingest(tmp_path / "a", tmp_path / "once.zarr", collection="x", layers=layers))
    sz.ingest(sz.plan_ingest(tmp_path / "a/S1GRD", tmp_path / "s.zarr", collection="x"))
    plan = sz.plan_ingest(
        [tmp_path / "a/S2L2A", tmp_path / "a/DEM"], tmp_path / "s.zarr", collection="x", layers=layers
    )
    assert "layer s2_3: int16 continuous, no nodata, of 8 chips that are there" in str(plan)
    later = sz.open_collection(sz.ingest(plan), "x")
    once = sz.open_collection(once, "x")
    assert once.layers == ("dem", "s2_1", "s2_2", "s2_3")
    wanted = published("S2L2A", seed=20)["bands"].values
    np.testing.assert_array_equal(once.stored("0000121_t1", "s2_2"), wanted[1, 1, 1])
    for chip in once.ids:
        for array in once.contents.stored:
            np.testing.assert_array_equal(once.stored(chip, array), later.stored(chip, array))
    assert np.array_equal(once.table["sha"], later.table["sha"])


def test_one_sample_without_times_is_a_chip(tmp_path):
    dataset = published("S1GRD", samples=1, times=1).isel(sample=0, time=0, drop=True)
    archive = pack(tmp_path / "a" / "S1GRD" / "0000007.zarr.zip", dataset)
    made = sz.open_collection(sz.ingest(sz.plan_ingest(archive, tmp_path / "s.zarr", collection="x")), "x")
    assert made.ids == ("0000007",)
    assert np.isnat(made.table["time"].values).all()


def test_zarr_archives_in_a_tar_are_read_where_they_lie(tmp_path):
    with tarfile.open(tmp_path / "S1GRD_shard_000001.tar", "w") as tar:
        for number in (1, 2):
            dataset = published("S1GRD", samples=1, times=1, seed=number).isel(sample=0, time=0, drop=True)
            archive = pack(tmp_path / "a" / f"majortom_{number:07d}.zarr.zip", dataset)
            tar.add(archive, archive.name)
    made = []
    for name, given in (("tar", "S1GRD_shard_000001.tar"), ("folder", "a")):
        plan = sz.plan_ingest(tmp_path / given, tmp_path / f"{name}.zarr", collection="x")
        made.append(sz.open_collection(sz.ingest(plan), "x"))
        again = sz.plan_ingest(tmp_path / given, tmp_path / f"{name}.zarr", collection="x").collections[0]
        assert (again.present, len(again.chips)) == (2, 0)
    assert made[0].ids == made[1].ids == ("majortom_0000001", "majortom_0000002")
    for name in ("sha", "source_hash", "transform", "bytes"):
        assert np.array_equal(made[0].table[name], made[1].table[name]), name


def spoiled(archive, kind):
    """Change the document of ``bands`` in an archive; nothing in it does harm."""
    with zipfile.ZipFile(archive) as held:
        files = {name: held.read(name) for name in held.namelist()}
    document = json.loads(files["bands/.zarray"])
    if kind == "pickle":
        document["filters"] = [{"id": "pickle", "protocol": 5}]
    elif kind == "object":
        document["dtype"] = "|O"
    elif kind == "giant":
        document["chunks"] = [2**20] * 5
    elif kind == "negative":
        document["shape"][0] = -2
    elif kind == "dimensions":
        files["bands/.zattrs"] = b'{"_ARRAY_DIMENSIONS": ["x", "y", "band", "time", "sample"]}'
    elif kind == "no bands":
        files = {name: data for name, data in files.items() if not name.startswith("bands/")}
    elif kind == "no document":
        document = None
    if kind != "no bands":
        files["bands/.zarray"] = json.dumps(document).encode()
    if kind == "chunk":
        files = {k: v[: len(v) // 2] if k.startswith("bands/0") else v for k, v in files.items()}
    with zipfile.ZipFile(archive, "w") as out:
        for name, data in files.items():
            out.writestr(name, data)
    if kind == "climbs":
        with zipfile.ZipFile(archive, "a") as out:
            out.writestr("../x", b"")


@pytest.mark.parametrize(
    "kind",
    ["pickle", "object", "giant", "negative", "dimensions", "no bands", "no document", "chunk", "climbs"],
)
def test_a_hostile_zarr_archive_is_refused_and_named(tmp_path, kind):
    archive = pack(tmp_path / "S1GRD_bad.zarr.zip", published("S1GRD", samples=1, times=1))
    spoiled(archive, kind)
    with pytest.raises(UnsupportedRasterError, match=r"bad\.zarr\.zip"):
        sz.plan_ingest(archive, tmp_path / "s.zarr", collection="x")


@pytest.mark.parametrize("name", ["blosc", "zstd", "lz4", "zlib", "gzip"])
@pytest.mark.parametrize("size", [1, 255, 256, 65_791, 65_792, 300_000])
def test_a_chunk_is_decoded_no_further_than_its_array_is_long(name, size):
    pixels = speckle((size,)).astype("f4").view("u1")[:size]
    data = numcodecs.get_codec({"id": name}).encode(pixels)
    assert bytes(zarrs._decoded(data, {"id": name}, size)) == pixels.tobytes()
    with pytest.raises(ValueError, match="decoded"):
        zarrs._decoded(data, {"id": name}, size - 1)


def test_texts_are_no_more_than_a_coordinate_may_have():
    texts = numcodecs.VLenUTF8().encode(np.array(["a", "b"], object))
    assert zarrs._decoded(texts, {"id": "vlen-utf8"}, 64).tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="decoded"):
        zarrs._decoded(texts, {"id": "vlen-utf8"}, 15)


@pytest.mark.parametrize("odd", ["crs", "units", "spacing"])
def test_a_chip_whose_place_or_time_is_no_such_thing_is_refused(tmp_path, odd):
    dataset = published("S1GRD", samples=1, times=1)
    if odd == "crs":
        dataset["crs"] = ("sample", np.array([999_999]))
    elif odd == "units":
        dataset = dataset.assign_coords(
            time=(("sample", "time"), np.array([[7]]), {"units": "moons since then"})
        )
    else:
        dataset["x"] = ("sample", "x"), dataset["x"].values + 4.0 * (np.arange(26) == 7)
    archive = pack(tmp_path / "S1GRD.zarr.zip", dataset)
    (name,) = zarrs.chips_in(archive).places
    with pytest.raises(UnsupportedRasterError), rasters.open_raster(archive / name):
        pass


@pytest.mark.parametrize("form", [2, 3])
def test_the_fill_value_that_an_archive_says_is_not_measured(tmp_path, form):
    dataset = published("S1GRD", samples=1, times=1)
    dataset["bands"] = dataset["bands"].astype("f4")
    dataset["bands"][..., :3, :4] = np.nan
    archive = pack(tmp_path / "S1GRD.zarr.zip", dataset, form=form, _FillValue=np.float32(-40))
    made = sz.open_collection(sz.ingest(sz.plan_ingest(archive, tmp_path / "s.zarr", collection="x")), "x")
    flags = made.stored(made.ids[0], "vv_flags")
    assert int((flags != 0).sum()) == 12
    assert (flags[:3, :4] != 0).all()


def test_packed_numbers_of_an_archive_are_refused_as_those_of_a_file(tmp_path):
    dataset = published("S1GRD", samples=1, times=1)
    dataset["bands"] = 10 ** (dataset["bands"].astype("f4") / 10)
    archive = pack(
        tmp_path / "S1GRD.zarr.zip", dataset, dtype="u2", scale_factor=1e-4, _FillValue=np.uint16(65535)
    )
    with pytest.raises(UnsupportedRasterError, match="scale"):
        sz.plan_ingest(
            archive, tmp_path / "s.zarr", collection="x", quantity="sigma0", representation="power"
        )


def test_numbers_of_another_byte_order_are_the_same(tmp_path):
    dataset = published("S1GRD", samples=1, times=1)
    want = dataset["bands"].values[0, 0].astype("f4")
    archive = pack(tmp_path / "S1GRD.zarr.zip", dataset.assign(bands=dataset["bands"].astype(">f4")))
    (name,) = zarrs.chips_in(archive).places
    with rasters.open_raster(archive / name) as opened:
        np.testing.assert_array_equal(opened.read(), want)


def test_memory_of_a_chip_is_freed_when_it_is_closed(tmp_path):
    archive = pack(tmp_path / "S1GRD.zarr.zip", published("S1GRD"), chunks=CHUNKS["whole"])
    names = []
    for name in zarrs.chips_in(archive).places:
        with rasters.open_raster(archive / name) as dataset:
            names.append(dataset.name)
            assert rasterio.open(dataset.name).count == 2
        del dataset
        gc.collect()
        with pytest.raises(rasterio.errors.RasterioIOError):
            rasterio.open(names[-1])
    assert len(set(names)) == 4


def test_a_chunk_of_many_samples_is_decoded_once(tmp_path, monkeypatch):
    archive = pack(tmp_path / "S1GRD.zarr.zip", published("S1GRD"), chunks=CHUNKS["whole"])
    opened = []
    real = zarrs.open_file
    monkeypatch.setattr(zarrs, "open_file", lambda path: opened.append(path.name) or real(path))
    chips = zarrs.chips_in(archive)
    for name in chips.places:
        assert chips.read(name).pixels.shape == (2, 24, 26)
    assert opened.count("0.0.0.0.0") == 1
