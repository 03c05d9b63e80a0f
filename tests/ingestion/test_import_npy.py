"""Patches in ``.npy`` files become one set of samples: exact, streamed, resumable."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from archives import VMAX, VMIN, an_image, patches_of, products, write_archive

import sarzarr as sz
from sarzarr.errors import (
    InvalidInputError,
    MixedBoundsError,
    RasterNotFoundError,
    SplitLeakError,
    StoreExistsError,
)
from sarzarr.ingestion.archives.npy import read_archive
from sarzarr.ingestion.archives.patches import PatchOptions
from sarzarr.ingestion.archives.rows import quadrant_hashes
from sarzarr.splits.samples.products import HASHES

NAMES = ("a_vh", "a_vv", "b_vv", "c_vv")


@pytest.fixture
def files():
    return products(*NAMES, count=5, size=32)


@pytest.fixture
def archive(tmp_path, files):
    return write_archive(tmp_path / "patches", files, size=32, stride=16)


def every(files):
    return np.concatenate([files[name] for name in sorted(files)])


def test_float32_is_as_it_was_and_columns_say_where_from(tmp_path, archive, files):
    made = sz.import_npy(archive, tmp_path / "s.zarr")
    assert made.name == "patches"
    found = np.stack([made.image(i) for i in range(len(made))])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, every(files))
    table = made.table
    assert table["file"].values.tolist() == [
        f"{name}_patches.npy" for name in sorted(files) for _ in range(5)
    ]
    assert table["row"].values.tolist() == list(range(5)) * 4
    assert table["product"].values.tolist() == [name[0] for name in sorted(files) for _ in range(5)]
    hashes = np.stack([table[name].values for name in HASHES], axis=1)
    assert hashes.dtype == np.uint64
    np.testing.assert_array_equal(hashes, [quadrant_hashes(patch) for patch in every(files)])
    wanted = {
        "vmin": VMIN, "vmax": VMAX, "stride": 16, "min_valid": 0.9, "representation": "normalized",
        "db_convention": "10 log10(DN)",
    }  # fmt: skip
    assert wanted.items() <= table.attrs.items()
    assert sz.open_store(tmp_path / "s.zarr").place.name == "s.zarr"
    assert sz.verify(tmp_path / "s.zarr").findings == ()


def test_codes_are_within_half_a_step(tmp_path, archive, files):
    made = sz.import_npy(archive, tmp_path / "s.zarr", options=PatchOptions(dtype="uint16", name="coded"))
    found = sz.from_codes(np.stack([made.image(i) for i in range(len(made))]))
    assert np.abs(found.astype(np.float64) - every(files)).max() <= 7.63e-6
    assert sz.verify(tmp_path / "s.zarr").findings == ()
    batch = next(iter(sz.SampleReader(made.store, "coded", batch_size=20)))
    assert np.abs(batch[:, 0].astype(np.float64) - every(files)).max() <= 7.7e-6


def test_batches_are_the_patches_and_a_clip_restretches_them(tmp_path, archive, files):
    made = sz.import_npy(archive, tmp_path / "s.zarr")
    reader = sz.SampleReader(made.store, "patches", batch_size=20)
    np.testing.assert_array_equal(next(iter(reader))[:, 0], every(files))
    assert reader.preprocessing_params == {"vmin": VMIN, "vmax": VMAX}
    low, high = 16.0, 20.0
    clipped = sz.SampleReader(made.store, "patches", batch_size=20, clip=(low, high))
    assert clipped.preprocessing_params == {"vmin": low, "vmax": high}
    db = every(files).astype(np.float64) * (VMAX - VMIN) + VMIN
    np.testing.assert_allclose(next(iter(clipped))[:, 0], np.clip((db - low) / (high - low), 0, 1), atol=1e-6)
    for wide in ((14.0, 20.0), (16.0, 25.0)):
        with pytest.raises(InvalidInputError, match=r"a clip within 14.77 to 24.54 dB"):
            sz.SampleReader(made.store, "patches", clip=wide)


def test_the_set_is_replaced_only_when_asked_for(tmp_path, archive):
    sz.import_npy(archive, tmp_path / "s.zarr", options=PatchOptions(name="x"))
    with pytest.raises(InvalidInputError, match="--replace"):
        sz.import_npy(archive, tmp_path / "s.zarr", options=PatchOptions(name="x"))
    again = sz.import_npy(
        archive, tmp_path / "s.zarr", options=PatchOptions(name="x", dtype="uint16", replace=True)
    )
    assert again.layout.dtype == "uint16"


def test_an_archive_with_a_cut_file_is_refused_and_named(tmp_path, archive):
    path = archive.parent / "b_vv_patches.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InvalidInputError, match=r"'b_vv_patches\.npy'.*it was cut"):
        sz.import_npy(archive, tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_a_copy_of_the_store_says_the_same(tmp_path, archive, dtype):
    made = sz.import_npy(archive, tmp_path / "s.zarr", options=PatchOptions(dtype=dtype))
    copied = sz.copy_store(made.store, tmp_path / "t.zarr")
    one, other = (sz.SampleReader(store, "patches", batch_size=20) for store in (made.store, copied))
    np.testing.assert_array_equal(next(iter(one)), next(iter(other)))
    assert one.preprocessing_params == other.preprocessing_params
    assert other.samples.table.identical(one.samples.table)


# ------------------------------------------------------------------ the way back
def test_the_old_layout_comes_back_byte_for_byte(tmp_path, archive, files):
    made = sz.import_npy(archive, tmp_path / "s.zarr")
    metadata = sz.export_npy(made.store, "patches", tmp_path / "back")
    for name in files:
        wanted = (archive.parent / f"{name}_patches.npy").read_bytes()
        assert (tmp_path / "back" / f"{name}_patches.npy").read_bytes() == wanted
    one, other = read_archive(archive), read_archive(metadata)
    assert (one.vmin, one.vmax, one.stride, one.min_valid) == (
        other.vmin,
        other.vmax,
        other.stride,
        other.min_valid,
    )
    facts, back = (np.load(path, allow_pickle=True).item() for path in (archive, metadata))
    assert facts.keys() == back.keys()
    assert [(p.rpartition("\\")[2], n) for p, n in facts["file_index"]] == back["file_index"]
    assert {k: facts[k] for k in facts if k != "file_index"} == {
        k: back[k] for k in back if k != "file_index"
    }
    assert sz.verify_patch_files(metadata) == []
    with pytest.raises(StoreExistsError, match="a new folder"):
        sz.export_npy(made.store, "patches", tmp_path / "back")


def test_codes_come_back_as_float32(tmp_path, archive, files):
    made = sz.import_npy(archive, tmp_path / "s.zarr", options=PatchOptions(dtype="uint16"))
    sz.export_npy(made.store, "patches", tmp_path / "back")
    found = np.load(tmp_path / "back" / "c_vv_patches.npy")
    assert found.dtype == np.float32
    assert np.abs(found.astype(np.float64) - files["c_vv"]).max() <= 7.7e-6


# ------------------------------------------------------------------ files without metadata
def test_what_the_values_are_is_told_or_refused(tmp_path, files):
    folder = tmp_path / "plain"
    write_archive(folder, files, size=32).unlink()
    with pytest.raises(InvalidInputError, match="--representation"):
        sz.import_npy(folder, tmp_path / "s.zarr")
    normalized = PatchOptions(representation="normalized")
    with pytest.raises(InvalidInputError, match="--vmin and --vmax"):
        sz.import_npy(folder, tmp_path / "s.zarr", options=normalized)
    np.save(folder / "global_bounds.npy", {"vmin": 1.0, "vmax": 2.0, "all_vmins": [1.0], "all_vmaxs": [2.0]})
    made = sz.import_npy(folder, tmp_path / "s.zarr", options=normalized)
    assert (made.name, made.table.attrs["vmin"], made.table.attrs["vmax"]) == ("plain", 1.0, 2.0)
    assert "db_convention" not in made.table.attrs
    assert len(made) == 20
    np.save(folder / "d.npy", np.full((2, 32, 32), -12, np.float32))
    with pytest.raises(InvalidInputError, match=r"'d\.npy'.*--representation db"):
        sz.import_npy(
            folder, tmp_path / "s.zarr", options=PatchOptions(representation="normalized", replace=True)
        )
    with pytest.raises(RasterNotFoundError):
        sz.import_npy(tmp_path / "none", tmp_path / "s.zarr")


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4"])
@pytest.mark.parametrize("representation", ["db", "power"])
def test_db_and_power_are_normalized_to_the_stored_range(tmp_path, representation, dtype):
    folder = tmp_path / "plain"
    folder.mkdir()
    db = np.random.default_rng(0).uniform(-30, 10, (4, 16, 16))
    db[0, 0, :3] = np.nan
    values = 10 ** (db / 10) if representation == "power" else db
    np.save(folder / "lake_vv.npy", values.astype(dtype))
    made = sz.import_npy(folder, tmp_path / "s.zarr", options=PatchOptions(representation=representation))
    reader = sz.SampleReader(made.store, "plain", batch_size=4, clip=(-30, 10), flags=True)
    images, flags = next(iter(reader))
    np.testing.assert_allclose(images[:, 0], np.nan_to_num((db + 30) / 40, nan=0), atol=2e-6)
    np.testing.assert_array_equal(flags[:, 0] == 0, np.isfinite(db))
    narrow = PatchOptions(representation=representation, name="narrow", vmin=-25.0, vmax=5.0)
    made = sz.import_npy(folder / "lake_vv.npy", tmp_path / "s.zarr", options=narrow)
    assert sz.SampleReader(made.store, "narrow").preprocessing_params == {"vmin": -25.0, "vmax": 5.0}


def test_masks_beside_files_say_what_was_not_measured(tmp_path):
    folder, values = tmp_path / "plain", an_image((3, 8, 8))
    folder.mkdir()
    is_valid = np.random.default_rng(1).random((3, 8, 8)) > 0.5
    told = {"vmin": 0.0, "vmax": 1.0, "representation": "normalized"}
    for i, (end, mask, extra) in enumerate(
        [
            ("_valid", is_valid, {}),
            ("_valid_mask", is_valid.astype(np.uint8) * 255, {}),
            ("_invalid", ~is_valid, {}),
            ("_mask", is_valid, {"masks": "valid"}),
            ("_mask", ~is_valid, {"masks": "invalid"}),
        ]
    ):
        np.save(folder / "a.npy", values)
        np.save(folder / f"a{end}.npy", mask)
        for path in (folder, folder / "a.npy"):
            options = PatchOptions(name=f"s{i}{path.suffix[1:]}", **told, **extra)
            made = sz.import_npy(path, tmp_path / "s.zarr", options=options)
            images, flags = next(iter(sz.SampleReader(made.store, made.name, flags=True)))
            np.testing.assert_array_equal(images[:, 0], np.where(is_valid, values, 0))
            np.testing.assert_array_equal(flags[:, 0] == 0, is_valid)
        (folder / f"a{end}.npy").unlink()
    np.save(folder / "a_mask.npy", is_valid)
    with pytest.raises(InvalidInputError, match="--masks valid or invalid"):
        sz.import_npy(folder, tmp_path / "s.zarr", options=PatchOptions(name="t", **told))
    np.save(folder / "a_valid.npy", is_valid)
    with pytest.raises(InvalidInputError, match=r"one mask of 'a\.npy'"):
        sz.import_npy(folder, tmp_path / "s.zarr", options=PatchOptions(name="t", **told))
    (folder / "a_mask.npy").unlink()
    np.save(folder / "a_valid.npy", is_valid[:2])
    with pytest.raises(InvalidInputError, match="a mask of 3 x 8 x 8"):
        sz.import_npy(folder, tmp_path / "s.zarr", options=PatchOptions(name="t", **told))


def test_options_that_cannot_be_are_refused(tmp_path, archive):
    for given in (
        {"dtype": "uint8"},
        {"representation": "amplitude"},
        {"masks": "true"},
        {"vmin": 1.0},
        {"vmin": 2.0, "vmax": 1.0},
    ):
        with pytest.raises(InvalidInputError):
            PatchOptions(**given)
    for given in ({"stride": 4}, {"representation": "db"}, {"vmin": 1.0, "vmax": 2.0}):
        with pytest.raises(InvalidInputError, match="the metadata says it"):
            sz.import_npy(archive, tmp_path / "s.zarr", options=PatchOptions(**given))


# ------------------------------------------------------------------ splits
def test_a_split_of_products_has_each_on_one_side(tmp_path, archive):
    store = sz.import_npy(archive, tmp_path / "s.zarr").store
    splits = sz.SplitManager(store)
    splits.create_initial_split("patches", val_ratio=0.3)
    train, val = splits.get_split("patches")
    assert len(train) + len(val) == 20
    assert not {i[0] for i in train} & {i[0] for i in val}
    sz.check_split(store, splits.read("patches"), samples="patches")


def test_a_split_of_one_file_shares_no_pixel(tmp_path):
    side = 24 * 4 + 4
    image = np.arange(side * side, dtype=np.float32).reshape(side, side) / side**2
    archive = write_archive(tmp_path / "one", {"only_vv": patches_of(image, 8, 4)}, size=8, stride=4)
    store = sz.import_npy(archive, tmp_path / "s.zarr").store
    splits = sz.SplitManager(store)
    splits.create_initial_split("one", val_ratio=0.1)
    split = splits.read("one")
    assert len(split.val_samples) == 57
    assert 0 < len(split.held_back_samples) <= 54
    assert len(split.train_samples) + 57 + len(split.held_back_samples) == 576
    sides = [
        {v for batch in sz.SampleReader(store, "one", split=f"v1:{name}") for v in batch.ravel().tolist()}
        for name in ("train", "val")
    ]
    assert sides[0].isdisjoint(sides[1])
    sz.check_split(store, split, samples="one")


def test_check_compares_hashes(tmp_path, archive):
    """A split by number, as the older pipeline made it, is told with the patches that leak."""
    image = an_image((96, 96))
    archive = write_archive(tmp_path / "one", {"only_vv": patches_of(image, 32, 16)}, size=32, stride=16)
    store = sz.import_npy(archive, tmp_path / "s.zarr").store
    splits = sz.SplitManager(store)
    splits.create_initial_split("one", val_ratio=0.2, groups=lambda sample: sample)
    with pytest.raises(SplitLeakError, match=r"only_vv-\d+"):
        sz.check_split(store, splits.read("one"), samples="one")
    chips = write_archive(tmp_path / "many", products("a_vv", "b_vv", size=32), size=32)
    sz.import_npy(chips, store)
    splits.create_initial_split("many", val_ratio=0.2, groups=lambda sample: sample)
    with pytest.raises(SplitLeakError, match="product"):
        sz.check_split(store, splits.read("many"), samples="many")


# ------------------------------------------------------------------ kills and memory
KILLED = """
import os, sys
import sarzarr as sz
def progress(done, total):
    if done >= total // 2:
        os._exit(9)
sz.import_npy(sys.argv[1], sys.argv[2], progress=progress if len(sys.argv) > 3 else None)
"""


def digest(root):
    paths = sorted(p for p in root.rglob("*") if p.is_file())
    return [(str(p.relative_to(root)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in paths]


@pytest.mark.slow
def test_an_import_that_was_killed_ends_in_the_same_bytes(tmp_path):
    archive = write_archive(
        tmp_path / "patches", products("a_vv", "b_vv", "c_vv", count=600, size=16), size=16, stride=8
    )

    def run(store, *more):
        command = [sys.executable, "-c", KILLED, str(archive), str(tmp_path / store), *more]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("whole/s.zarr").returncode == 0
    assert run("killed/s.zarr", "kill").returncode == 9
    assert (tmp_path / "killed" / "s.zarr.samples-patches" / "receipts").is_dir()
    assert run("killed/s.zarr").returncode == 0
    assert not (tmp_path / "killed" / "s.zarr.samples-patches").exists()
    one, other = (digest(tmp_path / name / "s.zarr" / "samples") for name in ("whole", "killed"))
    assert one == other


PEAK = """
import resource, sys
import sarzarr as sz
made = sz.import_npy(sys.argv[1], sys.argv[2])
assert len(made) == int(sys.argv[3])
# Its own from the status: ru_maxrss of a process begins where that of its parent was.
(own,) = (int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
def test_an_import_takes_less_than_a_gigabyte(tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc to read memory from")
    folder, count = tmp_path / "large", 5000
    archive = write_archive(folder, {"a": np.zeros((1, 256, 256), np.float32)})
    with (folder / "a_patches.npy").open("wb") as stream:  # 1.3 GB that take no room on the disk
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (count, 256, 256)}
        )
        stream.truncate(stream.tell() + count * 256 * 256 * 4)
    np.save(archive, {**np.load(archive, allow_pickle=True).item(), "file_index": [("a_patches.npy", count)]})
    command = [sys.executable, "-c", PEAK, str(archive), str(tmp_path / "s.zarr"), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert max(map(int, done.stdout.split())) * 1024 < 10**9


def test_pictures_without_db_have_no_clip(tmp_path, archive):
    store = sz.import_npy(archive, tmp_path / "s.zarr").store
    from PIL import Image

    (tmp_path / "chips").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "chips" / "a.png")
    sz.import_chips(tmp_path / "chips", store)
    with pytest.raises(InvalidInputError, match="clip"):
        sz.SampleReader(store, "chips", clip=(0, 1))
    with pytest.raises(MixedBoundsError):
        _ = sz.SampleReader(store, "chips").preprocessing_params


def test_the_commands_do_it_all(tmp_path, archive, files):
    from typer.testing import CliRunner

    from sarzarr.cli import app

    def run(*arguments):
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output
        return done.output

    store = tmp_path / "s.zarr"
    assert "every file is as listed" in run("import", "npy", archive, "--check")
    said = run("import", "npy", archive, "-o", store, "--name", "x", "--dtype", "uint16")
    assert (
        "samples/x: 20 patches of 32 x 32 in uint16 from 4 files of 3 products; 0 and 1 are 14.77 and 24.54 dB"
        in said
    )
    run("import", "npy", archive, "-o", store, "--name", "x", "--replace")
    assert sz.open_samples(store, "x").layout.dtype == "float32"
    assert "samples/x, v1: " in run("split", "create", store, "--samples", "x", "--val", "0.3")
    assert "v1: no product and no pixels are on two sides" in run("split", "check", store, "--samples", "x")
    assert "metadata.npy" in run("export", "npy", store, "x", "-o", tmp_path / "back")
    assert sz.verify_patch_files(tmp_path / "back" / "metadata.npy") == []
    (archive.parent / "a_vv_patches.npy").unlink()
    done = CliRunner().invoke(app, ["import", "npy", str(archive), "--check"])
    assert done.exit_code == 4
    assert (
        "a_vv_patches.npy: Expected 'a_vv_patches.npy' beside the metadata, got no such file" in done.output
    )
    assert "1 file not as listed" in done.output
    assert isinstance(CliRunner().invoke(app, ["import", "npy", str(archive)]).exception, InvalidInputError)
