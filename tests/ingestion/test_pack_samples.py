"""Any rows of pictures as a sample set: measured columns, attributes, and the same bytes after any kill."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr
import zarr
from chip_folders import write_picture
from conftest import tree_hash

import sarzarr as sz
from sarzarr.errors import InvalidInputError
from sarzarr.ingestion.chips.pack import SamplePack, UnreadableSamplesError, pack_samples
from sarzarr.ingestion.chips.read import Pixels
from sarzarr.store.boxes import Boxes
from sarzarr.store.samples import SampleLayout


@dataclass(frozen=True)
class Frames:
    """Frames (64, 64) float32 that follow from their number."""

    pause: float = 0
    broken: tuple[int, ...] = ()
    measures = {"energy": "float64", "key": "uint64", "count": "int16"}  # noqa: RUF012

    def pixels(self, start, stop):
        for row in range(start, stop):
            time.sleep(self.pause)
            values = frame(row)
            yield (
                f"row {row} is lost"
                if row in self.broken
                else Pixels(values=np.nan_to_num(values), is_measured=np.isfinite(values), is_coloured=False)
            )

    def measure(self, pixels):
        values = pixels.values.astype(np.float64)
        return {"energy": (values**2).sum(), "key": 2**64 - 1 - int(values[0, 0] * 1000), "count": -3}


def frame(row):
    values = np.random.default_rng(row).random((64, 64), np.float32)
    if row % 5 == 1:
        values[3:9, 60:] = np.nan
    return values


def pack(count=50, **more):
    columns = {
        "id": np.array([f"f{i:04}" for i in range(count)], object),
        "source": np.array(["frames.npz"] * count, object),
        "height": np.full(count, 64, np.int32),
        "width": np.full(count, 64, np.int32),
        "row": np.arange(count, dtype=np.uint64) + np.uint64(2**63),
    }
    table = xr.Dataset({name: ("sample", values) for name, values in columns.items()})
    layout = SampleLayout.of(count=count, height=64, width=64, dtype="float32")
    given = {"source": Frames(), "about": {"representation": "normalized", "vmin": -25.0, "vmax": 5.0}} | more
    return SamplePack(name="frames", layout=layout, table=table, fingerprint="1", **given)


def test_columns_and_attributes_are_kept_with_the_pixels(tmp_path):
    made = pack_samples(tmp_path / "s.zarr", pack())
    array = zarr.open_array(made.folder / "image", mode="r")
    assert (array.shape, array.chunks) == ((50, 64, 64), (1, 64, 64))
    for i in range(50):
        np.testing.assert_array_equal(made.image(i), frame(i))
    measured = [np.nan_to_num(frame(i)).astype(np.float64) for i in range(50)]
    assert made.table["energy"].dtype == np.float64
    assert made.table["energy"].values.tolist() == [float((v**2).sum()) for v in measured]
    assert made.table["key"].dtype == made.table["row"].dtype == np.uint64
    assert made.table["key"].values.tolist() == [2**64 - 1 - int(v[0, 0] * 1000) for v in measured]
    assert made.table["row"].values.tolist() == list(range(2**63, 2**63 + 50))
    assert set(made.table["count"].values.tolist()) == {-3}
    for attrs in (array.attrs, made.table.attrs):
        assert (attrs["representation"], attrs["vmin"], attrs["vmax"]) == ("normalized", -25, 5)
    assert len(made.boxes) == 0
    (batch, *_) = sz.SampleReader(made.store, "frames", batch_size=50)
    np.testing.assert_array_equal(batch[:, 0], np.nan_to_num(np.stack([frame(i) for i in range(50)])))
    with pytest.raises(InvalidInputError, match="--replace"):
        pack_samples(made.store, pack())
    boxes = Boxes.gathered(
        {"f0001": ([[1, 2, 3, 4]], ["ship"])}, dict.fromkeys(made.ids, (64, 64)), on=made.key
    )
    again = pack_samples(made.store, pack(replace=True, boxes=boxes))
    assert again.target(1)[0].tolist() == [[1, 2, 3, 4]]
    with pytest.raises(InvalidInputError, match="50 rows of id"):
        pack_samples(made.store, short())


def short():
    whole = pack(replace=True)
    return SamplePack(
        **{**{k: getattr(whole, k) for k in whole.__dataclass_fields__}, "table": pack(49).table}
    )


def test_rows_that_cannot_be_read_are_all_named(tmp_path, monkeypatch):
    monkeypatch.setattr("sarzarr.store.samples.MOST_IN_SHARD", 50)
    with pytest.raises(UnreadableSamplesError, match="2 others, the first row 7: row 7 is lost") as caught:
        pack_samples(tmp_path / "s.zarr", pack(source=Frames(broken=(7, 40))))
    assert sorted(caught.value.rows) == [7, 40]
    assert not (tmp_path / "s.zarr" / "samples").exists()


def test_a_picture_larger_than_its_set_is_refused(tmp_path):
    small = SampleLayout.of(count=50, height=64, width=63, dtype="float32")
    given = {k: getattr(pack(), k) for k in SamplePack.__dataclass_fields__} | {"layout": small}
    with pytest.raises(UnreadableSamplesError, match="at most 64 x 63 pixels"):
        pack_samples(tmp_path / "s.zarr", SamplePack(**given))


def _pack_slowly(store):
    pack_samples(store, pack(600, source=Frames(pause=0.002)))


@pytest.mark.parametrize("after", [0, 1])
def test_killed_anywhere_it_ends_in_the_same_bytes(tmp_path, after):
    whole = pack_samples(tmp_path / "whole.zarr", pack(600))
    assert whole.layout.shards == 2
    process = multiprocessing.get_context("spawn").Process(target=_pack_slowly, args=(tmp_path / "s.zarr",))
    process.start()
    staging, deadline = tmp_path / "s.zarr.samples-frames", time.monotonic() + 120
    while len(list(staging.glob("receipts/*.json"))) < after and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "s.zarr" / "samples").exists()
    made = pack_samples(tmp_path / "s.zarr", pack(600))
    assert tree_hash(made.folder) == tree_hash(whole.folder)
    assert not staging.exists()


@pytest.mark.parametrize("shape", [(64, 64), (300, 500), (5, 300)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_sets_of_any_cut_are_verified_repaired_and_copied(tmp_path, shape, dtype):
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
        write_picture(tmp_path / "chips" / f"{i}.png", pixels)
    made, _ = sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    assert not sz.verify(made.store).findings
    before = tree_hash(made.folder)
    shard = made.folder / "image" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[9] ^= 1
    shard.write_bytes(bytes(data))
    (made.folder / "image_flags" / "zarr.json").unlink()
    assert {f.file for f in sz.verify(tmp_path / "s.zarr").findings} >= {"samples/chips/image/c/0/0/0"}
    sz.repair(tmp_path / "s.zarr", sources=[tmp_path / "chips"])
    assert not sz.verify(tmp_path / "s.zarr").findings
    assert tree_hash(made.folder) == before
    copied = sz.copy_store(tmp_path / "s.zarr", tmp_path / "copy.zarr")
    assert tree_hash(copied.root / "samples") == tree_hash(made.store.root / "samples")
    assert not sz.verify(copied).findings


def test_a_set_of_an_older_release_is_delivered_unpadded(tmp_path):
    """Such a set has chunks of 256 x 256, and an array of whole chunks."""
    made = pack_samples(tmp_path / "s.zarr", pack())
    old = SampleLayout(
        count=50, height=256, width=256, chunk=(256, 256), dtype="float32", stored="float32",
        fill=float("nan"), per_shard=128,
    )  # fmt: skip
    whole = pack(replace=True)
    given = {k: getattr(whole, k) for k in whole.__dataclass_fields__} | {"layout": old}
    older = pack_samples(made.store, SamplePack(**given))
    document = json.loads((older.folder / "image" / "zarr.json").read_text())
    assert document["shape"] == [50, 256, 256]
    assert not sz.verify(older.store).findings
    for augment in (None, "d4"):
        (batch,) = sz.SampleReader(older.store, "frames", batch_size=50, augment=augment)
        assert batch.shape == (50, 1, 64, 64)
    (batch,) = sz.SampleReader(older.store, "frames", batch_size=50)
    np.testing.assert_array_equal(batch[:, 0], np.nan_to_num(np.stack([frame(i) for i in range(50)])))
