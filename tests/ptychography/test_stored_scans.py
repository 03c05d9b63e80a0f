"""Scans in a store: a set of samples that is verified, grouped and delivered like the file that it came from."""

import logging
import pickle
import shutil

import numpy as np
import pytest
from conftest import tree_hash
from scans import arguments, lattice
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr.cli import app
from sarzarr.errors import CorruptStoreError, InvalidInputError, NotInStoreError
from sarzarr.ptychography import PtychoConfig, RawDataTorch
from sarzarr.store.place import Folder
from sarzarr.store.tables import write_table

CONFIG = PtychoConfig(64, 2, n_groups=12, neighbor_count=6)


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "lattice.npz"
    np.savez(path, **lattice(), xcoords_start=np.arange(100.0), ycoords_start=np.zeros(100))
    return path


@pytest.fixture(scope="module")
def store(scan_file, tmp_path_factory):
    root = tmp_path_factory.mktemp("store") / "scans.zarr"
    return sz.import_ptychography(scan_file, root).store


def test_a_scan_becomes_a_set_with_all_that_it_has(store):
    samples, arrays = sz.open_samples(store, "lattice"), lattice()
    assert (samples.layout.count, samples.layout.height, samples.layout.width) == (100, 64, 64)
    assert samples.layout.chunk == (64, 64)
    frames = np.array([samples.image(i) for i in range(100)])
    np.testing.assert_array_equal(frames, arrays["diffraction"])
    table = samples.table
    for name in ("xcoords", "ycoords", "scan_index"):
        np.testing.assert_array_equal(table[name], arrays[name])
    np.testing.assert_array_equal(table["xcoords_start"], np.arange(100.0))
    np.testing.assert_array_equal(table["energy"], (frames.astype(float) ** 2).sum((1, 2)))
    assert table["energy"].dtype == np.float64
    for name in ("probe", "object"):
        parts = table[name].values
        assert parts.dtype == np.float32
        np.testing.assert_array_equal(parts[..., 0] + 1j * parts[..., 1], arrays[f"{name}Guess"])


def test_every_flipped_byte_of_probe_object_and_energy_is_damage(scan_file, tmp_path):
    made = sz.import_ptychography(scan_file, tmp_path / "s.zarr")
    assert not sz.verify(made.store).findings
    for name in ("probe", "object", "energy"):
        (chunk,) = (p for p in (made.folder / name / "c").rglob("*") if p.is_file())
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 1
        whole = chunk.read_bytes()
        chunk.write_bytes(data)
        assert any(name in str(finding) for finding in sz.verify(made.store).findings), name
        chunk.write_bytes(whole)


def test_a_damaged_frame_is_repaired_from_the_file(scan_file, tmp_path):
    made = sz.import_ptychography(scan_file, tmp_path / "s.zarr")
    before = tree_hash(tmp_path / "s.zarr")
    shard = made.folder / "image" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[5000] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptStoreError):
        made.image(0)
    assert sz.verify(made.store).findings
    sz.repair(tmp_path / "s.zarr", scan_file.parent)
    assert tree_hash(tmp_path / "s.zarr") == before


@pytest.mark.parametrize("form", ["as it is", "compressed", "older axes", "intensities"])
def test_imports_of_any_form_are_the_same_bytes(scan_file, store, tmp_path, form):
    arrays = lattice()
    arrays |= {"xcoords_start": np.arange(100.0), "ycoords_start": np.zeros(100)}
    if form == "older axes":
        arrays["diffraction"] = np.ascontiguousarray(np.moveaxis(arrays["diffraction"], 0, -1))
    if form == "intensities":
        counts = np.random.default_rng(0).integers(0, 65536, (100, 64, 64)).astype(np.uint16)
        arrays["diffraction"] = counts
    (np.savez_compressed if form == "compressed" else np.savez)(tmp_path / "lattice.npz", **arrays)
    made = sz.import_ptychography(tmp_path / "lattice.npz", tmp_path / "s.zarr")
    assert not list(tmp_path.glob("*.samples-*"))
    if form == "intensities":
        expected = np.sqrt(counts.astype(float)).astype(np.float32)
        np.testing.assert_array_equal([made.image(i) for i in range(100)], expected)
    else:
        assert tree_hash(made.folder) == tree_hash(store.root / "samples" / "lattice")


def test_groups_of_a_store_are_those_of_the_arrays(store):
    expected = RawDataTorch(**arguments(lattice()), config=CONFIG).generate_grouped_data(seed=5)
    found = sz.MemmapDatasetBridge(store.root, CONFIG).get_grouped_data(seed=5)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
        assert np.asarray(found[name]).dtype == np.asarray(value).dtype


def test_a_reader_delivers_all_groups_with_one_scale(store):
    expected = RawDataTorch(**arguments(lattice()), config=CONFIG).generate_grouped_data(
        seed=5, layout="nchw"
    )
    reader = sz.GroupReader(store, config=CONFIG, batch_size=5, seed=5, with_meta=True)
    batches = list(reader)
    assert [len(batch["image"]) for batch in batches] == [5, 5, 2]
    found = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert found["image"].dtype == np.float32
    np.testing.assert_array_equal(found["image"], expected["X_full"])
    np.testing.assert_array_equal(found["nn_indices"], expected["nn_indices"])
    np.testing.assert_array_equal(found["coords_relative"], expected["coords_relative"].astype(np.float32))
    np.testing.assert_array_equal(found["coords_offsets"], expected["coords_offsets"])
    shuffled = np.concatenate(list(sz.GroupReader(store, config=CONFIG, batch_size=5, seed=5, shuffle=True)))
    assert not np.array_equal(shuffled, found["image"])
    np.testing.assert_array_equal(np.sort(shuffled.sum((1, 2, 3))), np.sort(found["image"].sum((1, 2, 3))))
    assert "12 groups of 4 frames" in repr(reader)


def test_groups_are_the_same_whether_frames_are_held_or_not(store):
    held, anew = (
        sz.GroupReader(store, config=CONFIG, batch_size=5, seed=5, hold=hold) for hold in (2**30, 0)
    )
    for one, other in zip(held, anew, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(held.read([3, 1]), anew.read([3, 1]))
    size = len(pickle.dumps(sz.GroupReader(store, config=CONFIG, batch_size=5, seed=5)))
    assert abs(len(pickle.dumps(held)) - size) < 10_000  # what is held does not cross to a worker
    with pytest.raises(InvalidInputError, match="turns"):
        held.read([0], [1])


def test_the_scale_of_groups_is_known_without_a_frame(scan_file, tmp_path):
    made = sz.import_ptychography(scan_file, tmp_path / "s.zarr")
    expected = sz.GroupReader(made.store, config=CONFIG, seed=5).scale
    for shard in (made.folder / "image" / "c").glob("*/0/0"):
        shard.write_bytes(bytes(shard.stat().st_size))
    reader = sz.GroupReader(tmp_path / "s.zarr", config=CONFIG, seed=5)
    assert reader.scale == expected
    assert reader.scale.dtype == np.float32
    with pytest.raises(CorruptStoreError):
        next(iter(reader))


def test_a_reader_draws_from_one_side_and_a_subsample(store):
    sz.SplitManager(store).create_initial_split("lattice", val_ratio=0.4, random_seed=1)
    config = PtychoConfig(64, 1, n_groups=None, n_subsample=20, subsample_seed=3)
    reader = sz.GroupReader(store, "lattice", config=config, split="val")
    val = set(sz.SplitManager(store).read("lattice").val_samples)
    ids = sz.open_samples(store, "lattice").ids
    assert reader.groups.shape == (20, 1)
    assert {ids[i] for i in reader.groups[:, 0]} <= val
    chosen = np.flatnonzero(np.isin(ids, list(val)))
    expected = chosen[np.sort(np.random.RandomState(3).choice(len(chosen), 20, False))]
    np.testing.assert_array_equal(reader.groups[:, 0], expected)


@pytest.mark.parametrize(
    ("config", "options", "what"),
    [
        (PtychoConfig(32, 2), {}, "32 x 32"),
        (PtychoConfig(64, 2, n_groups=1000), {}, "OVERSAMPLING-001"),
        (CONFIG, {"augment": "d4"}, "augment"),
        (CONFIG, {"flags": True}, "flags"),
    ],
)
def test_what_groups_cannot_be_is_refused(store, config, options, what):
    with pytest.raises(InvalidInputError, match=what):
        sz.GroupReader(store, config=config, **options)


def test_a_scan_is_found_by_name_or_as_the_only_one(store, scan_file, tmp_path):
    with pytest.raises(NotInStoreError, match="lattice"):
        sz.GroupReader(store, "other", config=CONFIG)
    for name in ("one", "two"):
        sz.import_ptychography(scan_file, tmp_path / "s.zarr", name=name)
    with pytest.raises(InvalidInputError, match="one, two"):
        sz.MemmapDatasetBridge(tmp_path / "s.zarr", CONFIG)
    assert sz.MemmapDatasetBridge(tmp_path / "s.zarr", CONFIG, samples="two").raw_data.scan.size == 64


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("energy", np.full(100, np.nan)),
        ("energy", np.full(100, -1.0)),
        ("xcoords", np.zeros((100, 2))),
        ("ycoords", np.array(["a"] * 100, object)),
        ("scan_index", np.zeros(100)),
        ("probe", np.zeros((64, 64), np.float32)),
        ("object", np.zeros((64, 64, 3), np.float32)),
    ],
)
def test_columns_that_are_none_of_a_scan_are_damage(scan_file, tmp_path, name, values):
    made = sz.import_ptychography(scan_file, tmp_path / "s.zarr")
    table = made.table.drop_vars(name)
    dims = ("sample", "two") if name == "xcoords" and values.ndim == 2 else ("sample", "b", "c")
    table[name] = (dims[: values.ndim] if len(values) == 100 else ("a", "b", "c")[: values.ndim], values)
    write_table(Folder(tmp_path / "new", made.key), "", table)
    for entry in (tmp_path / "new").iterdir():
        target = made.folder / entry.name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        shutil.move(entry, target)
    with pytest.raises(CorruptStoreError, match=name):
        sz.GroupReader(tmp_path / "s.zarr", config=CONFIG)
    with pytest.raises(CorruptStoreError, match=name):
        sz.MemmapDatasetBridge(tmp_path / "s.zarr", CONFIG)


def test_a_torch_dataset_delivers_groups(store):
    torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
    from sarzarr.torch import ZarrPatchDataset

    expected = np.concatenate(list(sz.GroupReader(store, config=CONFIG, batch_size=4, seed=5)))
    made = ZarrPatchDataset(store, groups=CONFIG, batch_size=4, seed=5)
    loader = torch.utils.data.DataLoader(made, batch_size=None, num_workers=2)
    batches = list(loader)
    assert [tuple(batch.shape) for batch in batches] == [(4, 4, 64, 64)] * 3
    np.testing.assert_array_equal(torch.cat(batches).numpy(), expected)


def test_the_command_imports_a_scan(scan_file, tmp_path):
    done = CliRunner().invoke(app, ["import", "ptychography", str(scan_file), "-o", str(tmp_path / "s.zarr")])
    assert done.exit_code == 0, done.output
    assert "samples/lattice: 100 frames of 64 x 64" in done.output
    again = ["import", "ptychography", str(scan_file), "-o", str(tmp_path / "s.zarr")]
    assert CliRunner().invoke(app, again).exit_code != 0
    assert CliRunner().invoke(app, [*again, "--replace"]).exit_code == 0


def test_frames_that_are_no_amplitudes_leave_no_set(tmp_path, caplog):
    for name, frames in {
        "nan": np.full((100, 64, 64), np.nan),
        "negative": np.full((100, 64, 64), -1.0),
    }.items():
        np.savez(tmp_path / f"{name}.npz", **lattice() | {"diffraction": frames})
        with pytest.raises(InvalidInputError, match="amplitudes of 0 or more"):
            sz.import_ptychography(tmp_path / f"{name}.npz", tmp_path / "s.zarr")
        assert name not in sz.store.samples.sample_sets(sz.open_store(tmp_path / "s.zarr"))
    np.savez(tmp_path / "counts.npz", **lattice() | {"diffraction": np.full((100, 64, 64), 500.0)})
    with caplog.at_level(logging.WARNING):
        sz.import_ptychography(tmp_path / "counts.npz", tmp_path / "s.zarr")
    assert "square root of intensities" in caplog.text
