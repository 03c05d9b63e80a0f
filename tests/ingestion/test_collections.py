"""A chip in a collection means what the same file means as a scene, and an archive goes in whole and once."""

import zipfile
from dataclasses import replace

import dask
import numpy as np
import pytest
import rasterio
from conftest import tree_hash
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from tiffs import DATA, needs_data, speckle, write

import sarzarr as sz
from sarzarr.errors import (
    CorruptStoreError,
    InvalidInputError,
    NotInStoreError,
    PartialIngestError,
    RasterNotFoundError,
    SarzarrError,
)
from sarzarr.ingestion.blocks.jobs import ArraySource, BlockJob
from sarzarr.ingestion.blocks.tiles import FastPath, TileEncoder
from sarzarr.rasters import FileStamp
from sarzarr.store.documents import Encoding


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
    name = {"db": "sigma0_db_{}.tif", "power": "sigma0_{}.tif"}.get(
        kind, "S1A_IW_GRDH_1SDV_20200101T000000_amp_{}.tif"
    )
    return values, options, mask, name


@settings(max_examples=4)
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
    except SarzarrError:
        with pytest.raises(SarzarrError):
            ingested(folder / "a", folder / "chips.zarr", collection="archive")
        return
    chips = ingested(folder / "a", folder / "chips.zarr", collection="archive")
    collection = sz.open_collection(chips, "archive")
    (scene,) = scenes.scenes
    assert len(collection) == 1
    assert collection.arrays == scenes.arrays(scene)[::-1] == ("vv", "vh")
    for array in collection.arrays:
        for which in (array, f"{array}_flags"):
            np.testing.assert_array_equal(
                collection.stored(0, which), stored_scene(scenes, scene, which), which
            )
        own, theirs = collection.histogram(array), scenes.histogram(scene, array)
        assert np.array_equal(own.counts, theirs.counts)
        for other in ("under", "over", "nonpositive", "nodata"):
            assert getattr(own, other) == getattr(theirs, other), other
    assert chips.bounds == scenes.bounds
    assert collection.grid(0) == scenes.grid(scene)


def test_an_archive_goes_in_with_its_masks_once_and_grows(tmp_path):
    folder, store = archive(tmp_path / "chips", 5, masks=True), tmp_path / "s.zarr"
    opened = ingested(folder, store, collection="floods", layers={"mask": "_mask"})
    collection = sz.open_collection(opened, "floods")
    assert collection.ids == tuple(f"chip_{i}" for i in range(5))
    assert collection.layer("mask").nodata == -1
    assert collection.layer("mask").kind == "classes"
    for i in range(5):
        with rasterio.open(folder / "masks" / f"chip_{i}_mask.tif") as mask:
            np.testing.assert_array_equal(collection.stored(i, "mask"), mask.read(1))
            assert collection.grid(i).transform == mask.transform[:6]
    before = tree_hash(store)
    plan = sz.plan_ingest(folder, store, collection="floods", layers={"mask": "_mask"})
    assert plan.collections[0].present == 5
    sz.ingest(plan)
    assert tree_hash(store) == before

    archive(folder, 8, masks=True)  # the first five are written anew with the same bytes, and other times
    plan = sz.plan_ingest(folder, store, collection="floods", layers={"mask": "_mask"})
    assert (len(plan.collections[0].chips), plan.collections[0].present) == (3, 5)
    grown = sz.open_collection(sz.ingest(plan), "floods")
    assert grown.ids == tuple(f"chip_{i}" for i in range(8))
    assert [part.count for part in grown.contents.parts] == [8]
    assert sz.verify(store)
    ingested(folder, tmp_path / "anew.zarr", collection="floods", layers={"mask": "_mask"})
    anew = sz.open_collection(tmp_path / "anew.zarr", "floods")
    for i in range(8):
        for array in ("vv", "vh_flags", "mask"):
            np.testing.assert_array_equal(grown.stored(i, array), anew.stored(i, array))
    assert np.array_equal(grown.histogram("vv").counts, anew.histogram("vv").counts)


@pytest.mark.parametrize("order", [("mask", "height"), ("height", "mask")])
def test_a_chip_has_the_layers_that_it_has_in_whatever_order_they_are_named(tmp_path, order):
    archive(tmp_path / "a", 4, masks=True)
    place = {"transform": from_origin(500000, 5000000, 10, 10)}
    write(tmp_path / "a" / "dem" / "chip_0_dem.tif", np.full((40, 48), 7, "f4"), **place)
    patterns = {"mask": "mask=*_mask.tif", "height": "height=*_dem.tif"}
    made = ingested(
        tmp_path / "a", tmp_path / "s.zarr", collection="x", layers=[patterns[name] for name in order]
    )
    for layer, count in (("mask", 4), ("height", 1)):
        batches = list(sz.CollectionReader(made, "x", layers=[layer], batch_size=1))
        assert len(batches) == count


def test_a_collection_grows_by_an_array_and_by_layers(tmp_path):
    files = archive(tmp_path / "a", 3, masks=True, name="first_{}_VV.tif")
    for path in [*files.glob("*.tif")]:  # VV alone
        with rasterio.open(path) as dataset:
            band, profile = dataset.read(1), {"transform": dataset.transform}
        write(path, band, names=("VV",), **profile)
    first = ["mask=*_mask.tif"]
    ingested(files, tmp_path / "s.zarr", collection="x", layers=first)
    before = sz.open_collection(tmp_path / "s.zarr", "x").table
    archive(tmp_path / "a", 5, masks=True, seed=9, name="later_{}.tif")
    place = {"transform": from_origin(500000, 5000000, 10, 10)}
    write(tmp_path / "a" / "alpha" / "later_0_alpha.tif", np.full((40, 48), 3, "u1"), **place)
    store = ingested(files, tmp_path / "s.zarr", collection="x", layers=[*first, "alpha=*_alpha.tif"])
    made = sz.open_collection(store, "x")
    assert made.arrays == ("vv", "vh")
    for name in ("id", "valid_vv", "layers", "sha", "transform"):
        assert np.array_equal(made.table[name].values[:3], before[name].values)
    assert (made.table["valid_vh"].values >= 0).tolist() == [False] * 3 + [True] * 5
    assert sz.verify(store)
    assert len(list(sz.CollectionReader(store, "x", polarizations=["vv"], batch_size=1))) == 8
    assert len(list(sz.CollectionReader(store, "x", layers=["mask"], batch_size=1))) == 5
    ((images, alpha),) = sz.CollectionReader(store, "x", layers=["alpha"], batch_size=8)
    assert images.shape == (1, 2, 40, 48)
    assert (alpha == 3).all()


def test_a_new_array_is_in_the_part_of_chips_of_another_size_too(tmp_path):
    place = {"transform": from_origin(500000, 5000000, 10, 10)}
    for i, size in enumerate([(12, 12), (12, 12), (9, 14)]):
        db = 10 * np.log10(speckle(size, seed=i)).astype("f4")
        write(tmp_path / "a" / f"chip_{i}_VV.tif", db, names=("VV",), **place)
    ingested(tmp_path / "a", tmp_path / "s.zarr", collection="x")
    archive(tmp_path / "a", 1, size=(12, 12), name="later_{}.tif")
    made = sz.open_collection(ingested(tmp_path / "a", tmp_path / "s.zarr", collection="x"), "x")
    assert made.arrays == ("vv", "vh")
    assert (made.stored("chip_2", "vh") == 0).all()
    assert sz.verify(made.store)


def test_the_bytes_are_the_same_for_one_thread_and_several(tmp_path):
    folder = archive(tmp_path / "chips", 6)
    with dask.config.set(scheduler="sync"):
        ingested(folder, tmp_path / "one.zarr", collection="chips")
    ingested(folder, tmp_path / "two.zarr", collection="chips")
    assert tree_hash(tmp_path / "one.zarr") == tree_hash(tmp_path / "two.zarr")


def test_files_of_one_polarization_each_are_one_chip(tmp_path):
    for i in range(3):
        db = 10 * np.log10(speckle((2, 30, 30), seed=i))
        for band, name in zip(db, ("VV", "VH"), strict=True):
            write(tmp_path / "a" / name.lower() / f"patch_{i}_{name}.tif", band.astype("f4"))
    collection = sz.open_collection(
        ingested(tmp_path / "a", tmp_path / "s.zarr", collection="patches"), "patches"
    )
    assert (collection.ids, collection.arrays) == (("patch_0", "patch_1", "patch_2"), ("vv", "vh"))
    assert collection.table["source"].values[1] == "a/vh/patch_1_VH.tif\na/vv/patch_1_VV.tif"


def test_chips_of_other_sizes_are_parts_of_their_own(tmp_path):
    archive(tmp_path / "a", 4)
    archive(tmp_path / "a", 2, size=(24, 31), name="small_{}.tif")
    store = tmp_path / "s.zarr"
    collection = sz.open_collection(ingested(tmp_path / "a", store, collection="mixed"), "mixed")
    assert {part.name: part.count for part in collection.contents.parts} == {"40x48": 4, "24x31": 2}
    assert collection.stored("small_1", "vv").shape == (24, 31)
    assert (collection.stored("small_1", "vv") > 0).all()
    assert sz.verify(store)


@pytest.mark.slow
def test_one_bad_chip_is_reported_and_the_others_go_in(tmp_path):
    folder, store = archive(tmp_path / "a", 6, masks=True), tmp_path / "s.zarr"
    whole = (folder / "chip_3.tif").read_bytes()
    (folder / "chip_3.tif").write_bytes(whole[:-3000])
    power = speckle((2, 40, 48)) + 1
    write(folder / "chip_4.tif", power, names=("VV", "VH"))
    plan = sz.plan_ingest(folder, store, collection="floods", layers={"mask": "_mask"})
    collection = sz.open_collection(sz.ingest(plan), "floods")
    assert collection.ids == ("chip_0", "chip_1", "chip_2", "chip_5")
    assert [file.name for refusal in plan.refused for file in refusal.files] == ["chip_3.tif", "chip_4.tif"]
    assert "none of them negative" in plan.refused[1].reason
    assert sz.verify(store)
    assert collection.histogram("vv").n_valid == 4 * 40 * 48
    strict = sz.plan_ingest(
        folder, tmp_path / "strict.zarr", collection="floods", layers={"mask": "_mask"}, strict=True
    )
    with pytest.raises(PartialIngestError, match="chip_3"):
        sz.ingest(strict)
    (folder / "chip_3.tif").write_bytes(whole)
    mended = sz.open_collection(
        ingested(folder, store, collection="floods", layers={"mask": "_mask"}), "floods"
    )
    assert mended.ids[-1] == "chip_3"


def test_a_mask_that_lies_elsewhere_keeps_its_chip_out(tmp_path):
    folder = archive(tmp_path / "a", 3, masks=True)
    write(folder / "masks" / "chip_1_mask.tif", np.zeros((40, 48), "i2"), transform=from_origin(0, 0, 10, 10))
    plan = sz.plan_ingest(folder, tmp_path / "s.zarr", collection="floods", layers={"mask": "_mask"})
    assert len(sz.open_collection(sz.ingest(plan), "floods")) == 2
    assert "in the place of its chip" in plan.refused[0].reason


@pytest.mark.slow
def test_fifty_small_files_of_one_kind_are_packed_and_fewer_are_scenes(tmp_path):
    folder, store = archive(tmp_path / "a", 49, size=(16, 16), masks=True), tmp_path / "s.zarr"
    assert len(sz.plan_ingest(folder, store).scenes) == 49
    archive(folder, 50, size=(16, 16), masks=True)
    plan = sz.plan_ingest(folder, store)
    assert not plan.scenes
    assert (plan.collections[0].name, len(plan.collections[0].chips)) == ("a", 50)
    assert "50 files a/masks/chip_*_mask.tif left out" in str(plan)
    assert "--layer NAME=mask" in str(plan)
    assert not sz.plan_ingest(folder, store, scenes=True).collections


def test_the_plan_says_which_file_is_which_chips_what(tmp_path):
    plan = sz.plan_ingest(
        archive(tmp_path / "a", 3, masks=True),
        tmp_path / "s.zarr",
        collection="floods",
        layers={"mask": "_mask"},
    )
    assert plan.collections[0].patterns == {
        "vv": "a/chip_*.tif",
        "vh": "a/chip_*.tif",
        "mask": "a/masks/chip_*_mask.tif",
    }
    assert "layer mask: int16 classes, nodata -1, of 3 chips: a/masks/chip_*_mask.tif" in str(plan)


def test_options_of_scenes_are_refused_with_a_collection(tmp_path):
    folder = archive(tmp_path / "a", 2)
    with pytest.raises(InvalidInputError, match="got border"):
        sz.plan_ingest(folder, tmp_path / "s.zarr", collection="chips", border=3)
    with pytest.raises(InvalidInputError, match="collection or scenes"):
        sz.plan_ingest(folder, tmp_path / "s.zarr", collection="chips", scenes=True)


def test_remedies_of_chips_that_were_left_out(tmp_path):
    folder, store = archive(tmp_path / "a", 3, masks=True), tmp_path / "s.zarr"
    with pytest.raises(RasterNotFoundError, match="--dry-run"):
        sz.plan_ingest(folder, store, collection="one", layers={"mask": "label"})
    write(folder / "chip_1.tif", speckle((2, 40, 48)), names=("Gamma0_VV", "Gamma0_VH"))
    (folder / "masks" / "chip_1_mask.tif").unlink()
    write(folder / "large.tif", speckle((2, 20, 1030)), names=("VV", "VH"))
    place = from_origin(500000 + 2 * 480, 5000000, 10, 10)
    write(folder / "masks" / "chip_2_mask.tif", np.zeros((40, 48), "i2"), nodata=9, transform=place)
    plan = sz.plan_ingest(folder, store, collection="one", layers={"mask": "_mask"})
    chips = sz.open_collection(sz.ingest(plan), "one")
    assert chips.ids == ("chip_0",)
    said = " ".join(refusal.reason for refusal in plan.refused)
    for remedy in ("of its own with --collection NAME", "--scenes", "--layer mask:nodata9=..."):
        assert remedy in said
    assert len(sz.open_collection(ingested(folder / "chip_1.tif", store, collection="two"), "two")) == 1
    assert ingested(folder / "large.tif", store, scenes=True).scenes == ("large",)


def test_a_zip_archive_is_read_in_place(tmp_path):
    folder = archive(tmp_path / "chips", 3, masks=True)
    with zipfile.ZipFile(tmp_path / "chips.zip", "w") as packed:
        for file in sorted(folder.rglob("*.tif")):
            packed.write(file, file.relative_to(folder))
    options = {"collection": "floods", "layers": {"mask": "_mask"}}
    zipped = sz.open_collection(ingested(tmp_path / "chips.zip", tmp_path / "z.zarr", **options), "floods")
    plain = sz.open_collection(ingested(folder, tmp_path / "f.zarr", **options), "floods")
    assert zipped.ids == plain.ids
    assert np.array_equal(zipped.table["sha"], plain.table["sha"])
    assert sz.plan_ingest(tmp_path / "chips.zip", tmp_path / "z.zarr", **options).collections[0].present == 3


def test_a_collection_leaves_with_its_groups(tmp_path):
    store = tmp_path / "s.zarr"
    ingested(archive(tmp_path / "a", 2), store, collection="one")
    assert list(sz.remove_collection(store, "one").bounds) == []
    assert sz.verify(store)
    with pytest.raises(NotInStoreError, match="'one'"):
        sz.remove_collection(store, "one")


def test_damage_of_a_chip_and_of_its_row_is_found(tmp_path):
    store = tmp_path / "s.zarr"
    ingested(archive(tmp_path / "a", 4), store, collection="one")
    shard = store / "collections/one/40x48/vv/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    assert [finding.file for finding in sz.verify(store).findings] == ["collections/one/40x48/vv/c/0/0/0"]
    with pytest.raises(CorruptStoreError):
        sz.open_collection(store, "one").stored(0, "vv")


@needs_data
def test_the_real_flood_chip_and_its_mask_come_back_within_half_a_code(tmp_path):
    folder, store = DATA / "s1_floods_db_mask", tmp_path / "s.zarr"
    ingested(folder, store, collection="floods", layers=["mask:nodata-1=LabelHand"])
    collection = sz.open_collection(store, "floods")
    assert collection.layer("mask").nodata == -1
    with rasterio.open(folder / "Spain_7370579_S1Hand.tif") as chip:
        _comes_back(collection, 0, chip)
    with rasterio.open(folder / "Spain_7370579_LabelHand.tif") as mask:
        np.testing.assert_array_equal(collection.stored(0, "mask"), mask.read(1))
    assert sz.verify(store)


@needs_data
def test_real_chips_of_float64_come_back_within_half_a_code(tmp_path):
    folder, store = DATA / "s1_rtc_db_float64", tmp_path / "s.zarr"
    ingested(folder, store, collection="rtc", polarizations=("VV", "VH"), quantity="gamma0_rtc")
    collection = sz.open_collection(store, "rtc")
    for number, name in enumerate(("38D_378R_2_3.tif", "637U_59R_1_3.tif")):
        assert collection.ids[number] == name.removesuffix(".tif")
        with rasterio.open(folder / name) as chip:
            _comes_back(collection, number, chip)


def _comes_back(collection, number, chip):
    """Hold codes against the dB of a file, and where it lies."""
    assert collection.grid(number).transform == chip.transform[:6]
    assert rasterio.crs.CRS.from_wkt(collection.grid(number).crs_wkt) == chip.crs
    for band, array in enumerate(("vv", "vh"), 1):
        codes, flags, db = (
            collection.stored(number, array),
            collection.stored(number, f"{array}_flags"),
            chip.read(band),
        )
        measured = flags == 0
        assert measured.mean() > 0.9
        back = -60 + (codes[measured].astype(float) - 1) / 65534 * 160
        assert np.abs(back - np.clip(db[measured], -60, 100)).max() <= 0.5 * 160 / 65534 + 1e-5


@pytest.mark.parametrize("odd", [None, np.nan, -9999.0, -9.0, 0.0, 101.0, -99.5])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_loops_give_db_the_bits_of_numpy(odd, dtype):
    loops = pytest.importorskip("sarzarr.pixels.compiled.loops")
    db = (10 * np.log10(speckle((64, 90), seed=3))).astype("f4")
    if odd is not None:
        db[5, 7:9] = odd
    shared = {"name": "vv", "band": 1, "representation": "db", "itemsize": 4, "vmin": -60.0, "vmax": 100.0}
    source = ArraySource(file=FileStamp(path="", size=0, modified=0, hash=""), nodata=-9.0, **shared)
    place = {"row": 0, "col": 0, "height": 64, "width": 90, "band_rows": 64}
    encoding = Encoding(dtype=dtype, codec="none")
    job = BlockJob(scene="", folder="", encoding=encoding, arrays=(source,), shape=(64, 90), **place)
    slow, fast = (TileEncoder(job, source, db.dtype) for _ in range(2))
    slow.fast = None
    fast.fast = fast.fast or FastPath.of(replace(job, workload=2**40), source, db.dtype)
    assert fast.fast is not None
    assert fast.fast.loops is loops
    (one, flags), (other, same) = slow.encode(db, 0, 0), fast.encode(db, 0, 0)
    np.testing.assert_array_equal(one, other)
    assert (flags is None) == (same is None)
    assert flags is None or np.array_equal(flags, same)
    assert np.array_equal(slow.counts.counts, fast.counts.counts)
    assert slow.counts.freeze().n_valid == fast.counts.freeze().n_valid


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_shards_that_are_done_are_kept(tmp_path):
    folder, store = archive(tmp_path / "a", 530, size=(12, 12)), tmp_path / "s.zarr"

    def stop(progress):
        raise KeyboardInterrupt

    with dask.config.set(scheduler="sync"):
        with pytest.raises(KeyboardInterrupt):
            sz.ingest(sz.plan_ingest(folder, store), progress=stop)
        assert not sz.open_store(store).bounds
        receipts = [*tmp_path.glob("s.zarr.ingest/collection-a/receipts/*")]
        shards = {path: path.stat().st_mtime_ns for path in tmp_path.glob("s.zarr.ingest/*/12x12/vv/c/*/0/0")}
        assert receipts
        assert shards
        done = []
        sz.ingest(sz.plan_ingest(folder, store), progress=done.append)
        assert done[-1].done == done[-1].total
        kept = {(path.stat().st_mtime_ns) for path in store.glob("collections/a/12x12/vv/c/*/0/0")}
        assert set(shards.values()) <= kept
        ingested(folder, tmp_path / "whole.zarr")
    assert tree_hash(store) == tree_hash(tmp_path / "whole.zarr")
