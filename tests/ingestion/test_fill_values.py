"""Fill values: in every kind of array no pixel that was measured has it, and tools that go by it are right."""

import warnings

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from chip_folders import write_picture
from conftest import speckle, tree_hash, write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.errors import IngestError, InvalidInputError
from sarzarr.ingestion import run
from sarzarr.ingestion.chips.find import ChipOptions
from sarzarr.pixels.stretch import Stretch
from sarzarr.pixels.turns import apply
from sarzarr.store.codecs import get_codec
from sarzarr.store.documents import read_node
from sarzarr.store.place import Folder
from sarzarr.store.shards import EMPTY, read_chunks, read_index

SHAPE = (600, 520)
HOLE = slice(0, 256), slice(256, 512)
KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 512}


def labels(codes, shape=SHAPE, *, dtype="uint8", hole=None, seed=0):
    """Return random classes, the hole all of one."""
    out = np.random.default_rng(seed).choice(np.array(codes, dtype), shape)
    if hole is not None:
        out[HOLE] = hole
    return out


def heights(nodata):
    out = (300 + 40 * np.sin(np.indices(SHAPE)[0] / 70)).astype(np.float32)
    out[HOLE] = nodata
    return out


LAYERS = {
    "cover": (labels((1, 4, 9), hole=255), 255, "uint8", 255),
    "depth:continuous": (labels((-7, 0, 300), dtype="int16", hole=-9999), -9999, "int16", -9999),
    "dem": (heights(-9999), -9999, "float32", -9999.0),
    "angle": (heights(np.nan), None, "float32", np.nan),
    "mask": (labels((0, 3), hole=0), None, "uint8", 255),
    "water": (labels((0, 255), hole=255), None, "uint8", 254),
    "signed": (labels((-128, 5), dtype="int8", hole=5), None, "int8", -127),
    "every": (labels(range(256), hole=255), None, "uint16", 256),
    "wide": (labels((0, 2**32 - 1), dtype="uint32"), None, "int64", 2**32),
    "counts:counts": (labels((0, 65535), dtype="uint16", hole=7), None, "uint16", 65534),
}
"""Values, nodata, and the dtype and fill that are stored."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("fills")
    power = speckle(SHAPE, seed=1)
    power[HOLE] = -1
    write_band(place / "s_vv.tif", power, tiles=128, nodata=-1)
    for name, (values, nodata, *_) in LAYERS.items():
        write_band(place / f"{name.split(':')[0]}.tif", values, tiles=128, nodata=nodata)
    return place


def plan(folder, root, names=LAYERS, **options):
    layers = {name: folder / f"{name.split(':')[0]}.tif" for name in names}
    return sz.plan_ingest(folder / "s_vv.tif", root, **KNOWN | {"layers": layers} | options)


@pytest.fixture(scope="module", params=["uint16", "float32"])
def store(request, folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("store") / "s.zarr"
    return sz.ingest(plan(folder, root, dtype=request.param))


def kinds(store):
    """Yield the name of each kind of array with the dtype and fill that it has."""
    dtype = str(store.catalog["dtype"].values[0])
    yield "vv", dtype, 0 if dtype == "uint16" else np.nan
    yield "vv_flags", "uint8", cv.FLAGS_FILL
    for name, (_, _, stored, fill) in LAYERS.items():
        yield name.split(":")[0], stored, fill


def stored_chunks(store, array):
    """Yield (row, col, whole chunk) of what stands in the one shard of (rows, columns), and which are left out."""
    document = read_node(store.place, f"scenes/s/{array}")
    sharding = document["codecs"][0]["configuration"]
    codec = next(
        name
        for name in ("none", "blosc-lz4")
        if [c["name"] for c in get_codec(name).documents(np.dtype(document["data_type"]))]
        == [c["name"] for c in sharding["codecs"]]
    )
    like = np.empty((256, 256), document["data_type"])
    for i in range(2):
        for j in range(2):
            key = f"scenes/s/{array}/c/{i}/{j}"
            for row, col, chunk in read_chunks(store.place, key, (2, 2), get_codec(codec), like):
                yield 2 * i + row, 2 * j + col, chunk


@pytest.mark.compat
def test_fill_value_is_what_no_pixel_has_or_the_nodata_and_padding_is_it(store):
    opened = zarr.open_group(store.root, mode="r")["scenes/s"]
    for name, dtype, fill in kinds(store):
        assert (name, str(opened[name].dtype)) == (name, dtype)
        np.testing.assert_equal((name, opened[name].fill_value.item()), (name, fill))
        padded = 0
        for row, col, chunk in stored_chunks(store, name):
            height, width = SHAPE[0] - 256 * row, SHAPE[1] - 256 * col
            np.testing.assert_equal(np.unique(np.append(chunk[height:], fill)), fill)
            np.testing.assert_equal(np.unique(np.append(chunk[:, width:], fill)), fill)
            padded += height < 256 or width < 256
        assert padded == 5, name


def test_chunks_are_left_out_where_they_are_fill_and_nowhere_else(store):
    opened = zarr.open_group(store.root, mode="r")["scenes/s"]
    with_hole = {"vv", "cover", "depth", "dem", "angle"}
    for name, _, fill in kinds(store):
        index, _ = read_index(store.place, f"scenes/s/{name}/c/0/0", (2, 2))
        assert (index[:, 0] == EMPTY).tolist() == [False, name in with_hole, False, False], name
        if name in with_hole:
            np.testing.assert_equal(np.unique(opened[name][HOLE]), fill)


@pytest.mark.compat
def test_pixels_are_those_of_the_files_in_every_tool(store, folder):
    opened = zarr.open_group(store.root, mode="r")["scenes/s"]
    raw = xr.open_zarr(store.root, group="scenes/s", consolidated=False, mask_and_scale=False)
    decoded = xr.open_zarr(store.root, group="scenes/s", consolidated=False)
    for name, (values, nodata, dtype, _) in ((k.split(":")[0], v) for k, v in LAYERS.items()):
        np.testing.assert_array_equal(opened[name][:], values)
        np.testing.assert_array_equal(raw[name], values)
        attrs = opened[name].attrs
        assert attrs.get("nodata") == nodata
        is_float = np.dtype(dtype).kind == "f"
        has_cf = is_float or (nodata is not None and attrs["layer_kind"] != "classes")
        assert ("_FillValue" in attrs) == has_cf, name
        if has_cf:
            np.testing.assert_array_equal(np.isnan(decoded[name]), (values == nodata) | (values != values))
        else:
            assert decoded[name].dtype == dtype
            np.testing.assert_array_equal(decoded[name], values)
    assert "_FillValue" not in opened["vv_flags"].attrs
    np.testing.assert_array_equal(np.isnan(decoded["vv"]), decoded["vv_flags"] >= cv.Flag.NODATA)
    assert int(np.isnan(decoded["vv"]).sum()) == 256 * 256


def test_readers_deliver_the_stored_dtype_and_know_declared_nodata_alone(store):
    names = [name.split(":")[0] for name in LAYERS]
    reader = sz.PatchReader(
        store,
        polarizations=["vv"],
        layers=names,
        batch_size=8,
        min_valid=0,
        min_unsaturated=0,
        with_meta=True,
    )
    declared = {name.split(":")[0]: nodata for name, (_, nodata, *_) in LAYERS.items()} | {"angle": np.nan}
    np.testing.assert_equal(reader.layer_nodata, declared)
    (batch,) = reader
    for key, (values, _, dtype, _) in LAYERS.items():
        got = batch["layers"][key.split(":")[0]]
        assert got.dtype == dtype
        for patch, row, col in zip(got[:, 0], batch["row"], batch["col"], strict=True):
            np.testing.assert_array_equal(patch, values[row : row + 256, col : col + 256])
    sz.index_patches(store, size=300, stride=300, edge="pad", name="over")
    over = {"polarizations": ["vv"], "index": "over", "min_valid": 0, "min_unsaturated": 0}
    for name in ("mask", "every"):
        with pytest.raises(InvalidInputError, match=f"nodata value for the pixels of layer '{name}' beyond"):
            sz.PatchReader(store, layers=[name], **over)


def test_a_copy_keeps_fills(store, tmp_path):
    other = "float32" if store.catalog["dtype"].values[0] == "uint16" else "uint16"
    copied = sz.copy_store(store, tmp_path / "c.zarr", dtype=other)
    for name, dtype, fill in kinds(copied):
        array = zarr.open_array(copied.root / "scenes" / "s" / name, mode="r")
        np.testing.assert_equal((str(array.dtype), array.fill_value.item()), (dtype, fill))
        if name not in ("vv", "vv_flags"):
            before, after = (tree_hash(s.root / "scenes" / "s" / name) for s in (store, copied))
            assert before == after


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_scenes_of_which_one_needed_a_wider_dtype_are_delivered_together(folder, tmp_path, dtype):
    every = np.resize(np.arange(np.iinfo(dtype).max + 1, dtype=dtype), SHAPE)
    layers = {"a": every, "b": every // 2}
    for i, (name, values) in enumerate(layers.items()):
        place = {
            "transform": rasterio.transform.from_origin(500_000 + 20_000 * i, 5_400_000, 10, 10),
            "tiles": 128,
        }
        write_band(tmp_path / f"{name}_vv.tif", speckle(SHAPE, seed=i), **place)
        write_band(tmp_path / f"{name}_pixels.tif", values, **place)
    asked = {"pixels:continuous": tmp_path / "*_pixels.tif"}
    store = sz.ingest(
        sz.plan_ingest(sorted(tmp_path.glob("*_vv.tif")), tmp_path / "s.zarr", **KNOWN, layers=asked)
    )
    stored = {s: zarr.open_array(store.root / "scenes" / s / "pixels", mode="r") for s in layers}
    wider = {"uint8": "uint16", "uint16": "uint32"}[dtype]
    assert {s: (str(a.dtype), a.attrs.get("source_dtype")) for s, a in stored.items()} == {
        "a": (wider, dtype),
        "b": (dtype, None),
    }
    reader = sz.PatchReader(
        store, polarizations=["vv"], layers=["pixels"], batch_size=8, augment="d4", with_meta=True
    )
    for batch in reader:
        assert batch["layers"]["pixels"].dtype == wider
        each = zip(
            batch["layers"]["pixels"][:, 0],
            batch["scene"],
            batch["row"],
            batch["col"],
            batch["turn"],
            strict=True,
        )
        for patch, scene, row, col, turn in each:
            window = layers[scene][row : row + 256, col : col + 256]
            np.testing.assert_array_equal(patch, apply(int(turn), window))


# ------------------------------------------------------------------ runs
TAKEN = ("mask", "water", "every", "dem")


@pytest.fixture(scope="module")
def reference(folder, tmp_path_factory):
    with dask.config.set(scheduler="synchronous"):
        return sz.ingest(plan(folder, tmp_path_factory.mktemp("ref") / "s.zarr", TAKEN))


def test_layers_whose_fill_was_taken_are_the_same_in_any_run(folder, reference, tmp_path):
    with dask.config.set(scheduler="threads", num_workers=4):
        assert tree_hash(sz.ingest(plan(folder, tmp_path / "s.zarr", TAKEN)).root) == tree_hash(
            reference.root
        )
    sz.ingest(plan(folder, tmp_path / "t.zarr", ()))
    added = plan(folder, tmp_path / "t.zarr", TAKEN)
    assert [scene.only_layers for scene in added.scenes] == [True]
    assert tree_hash(sz.ingest(added).root) == tree_hash(reference.root)
    assert not plan(folder, tmp_path / "t.zarr", TAKEN).scenes


def test_progress_counts_pixels_once(folder, tmp_path):
    seen = []
    sz.ingest(plan(folder, tmp_path / "s.zarr", TAKEN), progress=seen.append)
    assert seen[-1].done == seen[-1].total == max(p.done for p in seen)


@pytest.mark.parametrize("after", [1, 4, 5, 6, 7])
def test_stopped_at_any_block_and_run_again_gives_the_same_bytes(
    folder, reference, tmp_path, monkeypatch, after
):
    leave, left = run.leave_receipt, []

    def stop(job, receipt):
        leave(job, receipt)
        left.append(job)
        if len(left) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "leave_receipt", stop)
    with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
        sz.ingest(plan(folder, tmp_path / "s.zarr", TAKEN))
    monkeypatch.undo()
    assert {job.layer.name for job in left[5:]} <= {"water", "every"}  # again, with other fills
    assert tree_hash(sz.ingest(plan(folder, tmp_path / "s.zarr", TAKEN)).root) == tree_hash(reference.root)


def test_a_layer_that_can_have_no_fill_fails_its_scene_and_says_so(folder, tmp_path):
    ends = np.iinfo("int64")
    write_band(tmp_path / "id.tif", labels((ends.min, ends.max), dtype="int64"), tiles=128)
    asked = sz.plan_ingest(
        folder / "s_vv.tif", tmp_path / "s.zarr", **KNOWN, layers={"id": tmp_path / "id.tif"}
    )
    with pytest.raises(
        IngestError, match="layer id: a value that no pixel has was expected among the ends of int64"
    ):
        sz.ingest(asked)
    words = {"id:nodata7": tmp_path / "id.tif"}
    assert sz.ingest(
        sz.plan_ingest(folder / "s_vv.tif", tmp_path / "s.zarr", **KNOWN, layers=words)
    ).scenes == ("s",)


# ------------------------------------------------------------------ samples
@settings(deadline=None)
@given(fill=st.integers(0, 65535), white=st.sampled_from([255, 65535]), has_ends=st.booleans())
def test_a_stretch_delivers_its_fill_as_zero_and_all_else_as_without(fill, white, has_ends):
    ends = (0, white) if has_ends else None
    law, plain = (Stretch(scale=1 / white, offset=0.0, ends=ends, **f) for f in ({"fill": fill}, {}))
    codes = np.arange(65536, dtype=np.uint16)
    for stored in (codes, codes.astype(np.uint32)):
        got, right = np.empty((2, 1, 65536), np.float32)
        for stretch, out in ((law, got), (plain, right)):
            stretch(stored.reshape(1, -1), out, np.empty(65536, np.float32))
        right[0, fill] = 0
        np.testing.assert_array_equal(got, right)


def chips(folder, pictures, **options):
    for i, picture in enumerate(pictures):
        write_picture(folder / f"c{i:03}.tif", picture, driver="GTiff", **options)
    return folder


def noise(dtype, low, high, shape=(260, 90), seed=0):
    """Return a picture that has every value from low to high."""
    out = np.random.default_rng(seed).integers(low, high + 1, shape).astype(dtype)
    return out if dtype == "float32" else np.resize(np.arange(low, high + 1, dtype=dtype), shape)


SAMPLES = {
    "clipped": ([noise("uint8", 0, 200), noise("uint8", 0, 255, (9, 12))[:, :3]], "uint8", 255),
    "white": ([noise("uint8", 0, 200), np.full((30, 30), 255, np.uint8)], "uint8", 254),
    "black": ([noise("uint8", 1, 255)], "uint8", 0),
    "all": ([noise("uint8", 0, 255), noise("uint8", 3, 9)], "uint16", 256),
    "deep": ([noise("uint16", 9, 9_000), np.full((30, 30), 65535, np.uint16)], "uint16", 65534),
    "deepest": ([noise("uint16", 0, 65535, (256, 257))], "uint32", 65536),
    "unit": ([noise("float32", 0, 1), np.full((300, 300), 0.5, np.float32)], "float32", np.nan),
}
"""Pictures, and the dtype and fill that they are stored with."""


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sets_fill_is_no_pixels_and_batches_are_black_there(tmp_path, name):
    pictures, dtype, fill = SAMPLES[name]
    samples, _ = sz.import_chips(chips(tmp_path / name, pictures), tmp_path / "s.zarr")
    image, flags = (zarr.open_array(samples.folder / array, mode="r") for array in ("image", "image_flags"))
    assert (str(image.dtype), str(flags.dtype), flags.fill_value) == (dtype, "uint8", cv.FLAGS_FILL)
    np.testing.assert_equal(image.fill_value.item(), fill)
    assert not {"_FillValue", "scale_factor", "add_offset"} & {*image.attrs, *flags.attrs}
    own = pictures[0].dtype
    white = 1 if own == np.float32 else np.iinfo(own).max
    assert image.attrs["source_dtype"] == own
    assert image.attrs.get("nodata") == (None if own == np.float32 else fill)
    opened = xr.open_zarr(tmp_path / "s.zarr", group=samples.key, consolidated=False)
    assert opened["image"].dtype == dtype  # a scale would have made floats of padding
    images, said = next(iter(sz.SampleReader(tmp_path / "s.zarr", name, batch_size=8, flags=True)))
    assert images.shape == (len(pictures), 1, *image.shape[1:])
    for i, picture in enumerate(pictures):
        height, width = picture.shape
        is_padding = np.ones(image.shape[1:], bool)
        is_padding[:height, :width] = False
        np.testing.assert_array_equal(samples.image(i), picture)
        assert samples.image(i).dtype == own
        whole = opened["image"].values[i]
        np.testing.assert_array_equal(whole[:height, :width], picture)
        np.testing.assert_equal(np.unique(whole[is_padding[: whole.shape[0], : whole.shape[1]]]), fill)
        assert not (whole[:height, :width] == fill).any()
        np.testing.assert_array_equal(said[i, 0] == cv.Flag.NODATA, is_padding)
        assert not images[i, 0][is_padding].any()
        np.testing.assert_allclose(images[i, 0, :height, :width], picture / np.float32(white), rtol=1e-6)
        np.testing.assert_array_equal(images[i, 0, :height, :width] == 1, picture == white)
    assert samples.verify() == []


def test_chunks_of_padding_alone_have_no_pixels(tmp_path):
    pictures = [noise("uint8", 0, 255, (20, 30)), noise("uint8", 0, 99, (300, 400))]
    samples, _ = sz.import_chips(chips(tmp_path / "chips", pictures), tmp_path / "s.zarr")
    for array, left_out in (("image", [1, 2, 3]), ("image_flags", [])):
        index, _ = read_index(Folder(samples.folder), f"{array}/c/0/0/0", samples.layout.grid)
        assert np.flatnonzero(index[:8, 0] == EMPTY).tolist() == left_out


@pytest.mark.parametrize("last", [noise("uint8", 0, 199), noise("uint8", 0, 255)], ids=["free", "taken"])
def test_a_fill_that_a_later_shard_has_is_found(tmp_path, monkeypatch, last):
    monkeypatch.setattr("sarzarr.store.samples.MOST_IN_SHARD", 2)
    pictures = [
        noise("uint8", 0, 99),
        noise("uint8", 5, 100),
        noise("uint8", 7, 9),
        noise("uint8", 255, 255),
        last,
    ]
    samples, _ = sz.import_chips(chips(tmp_path / "chips", pictures), tmp_path / "s.zarr")
    assert samples.layout.fill == (254 if last.max() < 255 else 256)
    for i, picture in enumerate(pictures):
        np.testing.assert_array_equal(samples.image(i), picture)
    # any other shards, so that others come first
    monkeypatch.setattr("sarzarr.store.samples.MOST_IN_SHARD", 1)
    other, _ = sz.import_chips(tmp_path / "chips", tmp_path / "t.zarr", options=ChipOptions(name="chips"))
    assert (other.layout.stored, other.layout.fill) == (samples.layout.stored, samples.layout.fill)


def mask_rows(path, shape, rows):
    """Give a TIFF an internal mask, 0 in its first rows."""
    is_measured = np.ones(shape, bool)
    is_measured[:rows] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
            out.write_mask(is_measured)


@pytest.mark.parametrize("way", ["nan", "tag", "mask", "infinite"])
def test_pixels_of_pictures_that_nobody_measured_are_flagged_and_black(tmp_path, way):
    picture = np.random.default_rng(0).uniform(0.1, 1, (128, 90)).astype(np.float32)
    if way == "mask":
        picture = np.resize(np.arange(256, dtype=np.uint8), (128, 90))
    unmeasured = {"nan": np.nan, "tag": -9999, "mask": 200, "infinite": np.inf}[way]
    picture[:20] = unmeasured
    path = write_picture(
        tmp_path / "chips" / "a.tif", picture, driver="GTiff", nodata=-9999 if way == "tag" else None
    )
    if way == "mask":
        mask_rows(path, picture.shape, 20)
    samples, _ = sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    expected = picture.copy()
    expected[:20] = 0 if picture.dtype == np.uint8 else np.nan
    np.testing.assert_array_equal(samples.image(0), expected)
    images, flags = next(iter(sz.SampleReader(tmp_path / "s.zarr", "chips", batch_size=1, flags=True)))
    is_measured = np.zeros((128, 90), bool)
    is_measured[20:] = True
    np.testing.assert_array_equal(cv.Flag.is_valid(flags[0, 0]), is_measured)
    assert not images[0, 0][~is_measured].any()
    white = 255 if picture.dtype == np.uint8 else 1
    np.testing.assert_allclose(images[0, 0, 20:128, :90], picture[20:] / np.float32(white), rtol=1e-6)
    stored = zarr.open_array(samples.folder / "image", mode="r")
    np.testing.assert_equal(np.unique(stored[0][~is_measured]), stored.fill_value)
