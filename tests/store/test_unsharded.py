"""Stores without shards: what GDAL 3.11 and 3.12 read, and no flipped bit moves a pixel."""

import json

import numpy as np
import pytest
import rasterio
from tiffs import speckle, write

import sarzarr as sz
from sarzarr.errors import CorruptStoreError
from sarzarr.store.codecs import UNSHARDED_CODEC

KNOWN = {"quantity": "sigma0", "representation": "power"}
GDAL = tuple(int(n) for n in rasterio.__gdal_version__.split(".")[:2])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    pixels = speckle((1, 300, 310))
    pixels[:, :, :30] = np.nan
    classes = np.arange(300 * 310, dtype=np.uint8).reshape(1, 300, 310) % 3
    return write(folder / "a_VV.tif", pixels, nodata=np.nan), write(folder / "mask.tif", classes, nodata=255)


@pytest.fixture(scope="module")
def stores(files, tmp_path_factory):
    """(sharded, without shards, a copy of the first without shards)."""
    folder = tmp_path_factory.mktemp("stores")
    scene, layer = files
    plans = [
        sz.plan_ingest(scene, folder / name, layers={"mask": str(layer)}, **KNOWN, **options)
        for name, options in (("sharded.zarr", {}), ("plain.zarr", {"shard": 0}))
    ]
    sharded, plain = map(sz.ingest, plans)
    return sharded, plain, sz.copy_store(sharded, folder / "copy.zarr", shard=0)


def test_every_array_of_a_scene_is_a_frame_that_checks_itself(stores):
    for store in stores[1:]:
        documents = [json.loads(p.read_text()) for p in (store.root / "scenes").rglob("zarr.json")]
        chains = [d["codecs"] for d in documents if d["node_type"] == "array"]
        assert len(chains) == 6  # vv, vv_flags, mask, y, x, spatial_ref
        for chain in chains:
            assert [codec["name"] for codec in chain] == ["bytes", "zstd"]
            assert chain[1]["configuration"]["checksum"] is True
        assert store.catalog["codec"].values.tolist() == [UNSHARDED_CODEC]
    assert "zstd-checksum" not in str(stores[0].catalog["codec"].values)


def test_a_copy_is_an_ingest_and_values_are_those_of_shards(stores):
    sharded, plain, copy = stores
    for one in (p for p in (plain.root / "scenes").rglob("*") if p.is_file()):
        assert (copy.root / one.relative_to(plain.root)).read_bytes() == one.read_bytes()
    np.testing.assert_array_equal(plain.db("a").vv_db.values, sharded.db("a").vv_db.values)
    read = [patches_of(store) for store in stores]
    np.testing.assert_array_equal(read[0], read[1])
    np.testing.assert_array_equal(read[0], read[2])


def patches_of(store):
    return np.concatenate([np.asarray(batch) for batch in sz.PatchReader(store, patch_size=64)])


def test_no_flipped_byte_moves_a_pixel_of_any_reader(stores):
    plain = stores[1]
    place = plain.root / "scenes" / "a" / "vv" / "c" / "0" / "0"
    whole = place.read_bytes()
    readers = {
        "patches": (patches_of, patches_of(plain)),
        "db": (lambda store: store.db("a").vv_db.values, plain.db("a").vv_db.values),
    }
    middle = range(12, len(whole) - 4, len(whole) // 6)
    refused = dict.fromkeys(readers, 0)
    try:
        for byte in [*range(12), *middle, *range(len(whole) - 4, len(whole))]:
            damaged = bytearray(whole)
            damaged[byte] ^= 1 << byte % 8
            place.write_bytes(damaged)
            for name, (read, truth) in readers.items():
                try:
                    np.testing.assert_array_equal(read(plain), truth)
                except CorruptStoreError:
                    refused[name] += 1
    finally:
        place.write_bytes(whole)
    assert min(refused.values()) > 16  # of 22; a bit that no decoder reads is among them


def test_a_codec_that_is_asked_for_is_written_as_asked(files, tmp_path):
    store = sz.ingest(sz.plan_ingest(files[0], tmp_path / "s.zarr", shard=0, codec="none", **KNOWN))
    chain = json.loads((store.root / "scenes" / "a" / "vv" / "zarr.json").read_text())["codecs"]
    assert [codec["name"] for codec in chain] == ["bytes", "crc32c"]


@pytest.mark.compat
@pytest.mark.skipif(GDAL < (3, 11), reason=f"GDAL {rasterio.__gdal_version__} knows a draft of Zarr v3 alone")
def test_gdal_reads_pixels_mask_crs_and_transform(stores):
    sharded, plain, _ = stores
    with rasterio.open(f'ZARR:"{plain.root}":/scenes/a/vv') as array:
        db = sharded.db("a").vv_db
        codes = array.read(1)
        np.testing.assert_array_equal(array.read_masks(1) > 0, np.isfinite(db.values))
        np.testing.assert_array_equal(sz.from_codes(codes) * 160 - 60, db.values)
        assert array.crs.to_epsg() == 32633
        assert array.transform.almost_equals(db.rio.transform())
