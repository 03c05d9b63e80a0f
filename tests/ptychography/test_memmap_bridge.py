"""`MemmapDatasetBridge`: the same groups from an NPZ file that stays on the disk, and nothing hostile in it."""

import io
import json
import logging
import pickle
import tracemalloc
import zipfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scans import arguments, lattice

import sarzarr as sz
from sarzarr.errors import InvalidInputError, MissingKeyError, SarzarrError, StoreChangedError
from sarzarr.ptychography import MemmapDatasetBridge, PtychoConfig, RawDataTorch

CALL = {"N": 64, "K": 4, "nsamples": 10, "gridsize": 2}


def write(path, arrays, *, compressed=False, **changes):
    """Write arrays as an NPZ file; those that are None are left out."""
    kept = {key: value for key, value in (arrays | changes).items() if value is not None}
    (np.savez_compressed if compressed else np.savez)(path, **kept)
    return path


@pytest.fixture
def bridge(tmp_path):
    """Return a function that opens a lattice, changed, as a bridge."""

    def make(name="scan.npz", *, config=None, compressed=False, **changes):
        path = write(tmp_path / name, lattice(), compressed=compressed, **changes)
        return MemmapDatasetBridge(path, config, tmp_path / "memmap")

    return make


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
        assert np.asarray(found[name]).dtype == np.asarray(value).dtype


FORMS = {
    "as it is": {},
    "compressed": {"compressed": True},
    "older key": {"diffraction": None, "diff3d": lattice()["diffraction"]},
    "older axes": {"diffraction": np.ascontiguousarray(np.moveaxis(lattice()["diffraction"], 0, -1))},
    "older axes, compressed": {
        "diffraction": np.ascontiguousarray(np.moveaxis(lattice()["diffraction"], 0, -1)), "compressed": True,
    },
    "a last axis of 1": {"diffraction": lattice()["diffraction"][..., None]},
    "Fortran's order": {"diffraction": np.asfortranarray(lattice()["diffraction"])},
    "older axes in Fortran's order": {"diffraction": np.asfortranarray(np.moveaxis(lattice()["diffraction"], 0, -1))},
    "other bytes first": {"diffraction": lattice()["diffraction"].astype(">f4")},
    "a config": {"config": PtychoConfig(64, 2, n_subsample=60, subsample_seed=1)},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_memmap_groups_are_those_of_raw_data(bridge, form):
    config = FORMS[form].get("config")
    expected = RawDataTorch(**arguments(lattice()), config=config)
    check_equal(
        bridge(**FORMS[form]).get_grouped_data(**CALL, seed=3), expected.generate_grouped_data(**CALL, seed=3)
    )


def test_memmap_frames_of_16_bits_are_intensities(bridge):
    counts = np.random.default_rng(0).integers(0, 65536, (100, 64, 64)).astype(np.uint16)
    found = bridge(diffraction=counts).get_grouped_data(**CALL, seed=3)
    expected = np.sqrt(counts.astype(float)).astype(np.float32)[found["nn_indices"]]
    np.testing.assert_array_equal(np.moveaxis(found["diffraction"], -1, 1), expected)


def test_memmap_same_seed_same_groups_in_a_new_instance(bridge):
    first, again, other = (bridge().get_grouped_data(**CALL, seed=seed) for seed in (3, 3, 4))
    check_equal(again, first)
    assert not np.array_equal(first["nn_indices"], other["nn_indices"])


def test_memmap_object_at_each_position_is_read_by_number(bridge, caplog):
    patches = np.exp(1j * np.random.default_rng(0).uniform(size=(100, 64, 64))).astype(np.complex64)
    for form in ({}, {"compressed": True}):
        found = bridge(Y=patches[..., None], **form).get_grouped_data(**CALL, seed=3)
        np.testing.assert_array_equal(np.moveaxis(found["Y"], -1, 1), patches[found["nn_indices"]])
    with caplog.at_level(logging.WARNING):
        check_equal(
            bridge(Y=patches[:9]).get_grouped_data(**CALL, seed=3), bridge().get_grouped_data(**CALL, seed=3)
        )
    assert "left out" in caplog.text


def test_memmap_scan_index_counts_where_there_is_none(bridge):
    np.testing.assert_array_equal(bridge(scan_index=None).raw_data.scan_index, np.arange(100))
    assert "100 positions" in repr(bridge())
    assert "scan.npz" in repr(bridge())
    assert sz.MemmapDatasetBridge is MemmapDatasetBridge


@pytest.mark.parametrize("name", ["diffraction", "xcoords", "ycoords", "probeGuess", "objectGuess"])
def test_memmap_missing_keys_are_named_with_those_that_are_there(bridge, name):
    with pytest.raises(KeyError) as caught:
        bridge(**{name: None})
    assert isinstance(caught.value, MissingKeyError)
    assert repr(name) in str(caught.value)
    assert all(key in str(caught.value) for key in lattice() if key != name)


# ------------------------------------------------------------------ what is read
def bytes_read():
    io_file = Path("/proc/self/io")
    if not io_file.exists():
        pytest.skip("this system does not count the bytes that a process reads")
    return int(io_file.read_text().split("rchar:")[1].split()[0])


def test_memmap_ten_groups_read_their_frames_and_little_more(tmp_path):
    arrays = lattice(n=2000, size=64)
    arrays["objectGuess"] = arrays["objectGuess"][:50, :50]
    path = write(tmp_path / "large.npz", arrays)
    MemmapDatasetBridge(path).get_grouped_data(**CALL, seed=1)
    before = bytes_read()
    tracemalloc.start()
    found = MemmapDatasetBridge(path).get_grouped_data(**CALL, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    frames = len(np.unique(found["nn_indices"])) * 64 * 64 * 4
    assert frames <= bytes_read() - before <= frames + 200_000
    assert peak < 8e6 < path.stat().st_size / 4


def test_memmap_conversion_takes_little_memory(tmp_path):
    arrays = lattice(n=3000, size=64)
    arrays["diffraction"] = np.ascontiguousarray(np.moveaxis(arrays["diffraction"], 0, -1))
    path = write(tmp_path / "large.npz", arrays, compressed=True)
    del arrays
    tracemalloc.start()
    MemmapDatasetBridge(path, memmap_dir=tmp_path / "memmap")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25e6 < 3000 * 64 * 64 * 4


def test_memmap_file_that_changes_is_not_read_as_it_was(tmp_path):
    path = write(tmp_path / "scan.npz", lattice())
    made = MemmapDatasetBridge(path)
    write(path, lattice(), diffraction=np.ones((100, 64, 64), np.float32), probeGuess=np.ones((60, 64)))
    with pytest.raises(StoreChangedError, match="Open it again"):
        made.get_grouped_data(**CALL)


# ------------------------------------------------------------------ what is kept
def times(folder):
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.iterdir()}


def test_cache_reuse_of_a_converted_file(bridge, tmp_path):
    """A compressed file is converted once: the second bridge finds the first one's file, by hash, untouched."""
    first = bridge(compressed=True).get_grouped_data(**CALL, seed=3)
    before = times(tmp_path / "memmap")
    assert len(before) == 1
    again = bridge("a_copy.npz", compressed=True)
    check_equal(again.get_grouped_data(**CALL, seed=3), first)
    assert times(tmp_path / "memmap") == before
    bridge("other.npz", compressed=True, scan_index=np.ones(100, int))
    assert len(times(tmp_path / "memmap")) == 2


def test_cache_reuse_needs_no_file_where_nothing_is_converted(bridge, tmp_path):
    """Groups are made anew, the same each time; no file is written beside the data or below ``memmap_dir``."""
    made = bridge()
    before = times(tmp_path)
    first, again = (made.get_grouped_data(**CALL, seed=3) for _ in range(2))
    check_equal(again, first)
    made.raw_data.generate_grouped_data(**CALL, seed=3, dataset_path=tmp_path / "scan.npz")
    assert times(tmp_path) == before
    assert before.keys() == {"scan.npz"}


def test_cache_reuse_by_numpy_and_torch(bridge):
    """Arrays and tensors of one call share their memory: nothing is made twice."""
    pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
    made = bridge()
    found = made.get_grouped_data(**CALL, seed=3)
    tensors = sz.PtychoDataContainerTorch(found, made.raw_data.probeGuess)
    assert np.shares_memory(tensors.X.numpy(), found["X_full"])
    np.testing.assert_array_equal(
        tensors.nn_indices.numpy(), bridge().get_grouped_data(**CALL, seed=3)["nn_indices"]
    )


def test_cache_reuse_not_of_a_file_that_was_cut(bridge, tmp_path):
    first = bridge(compressed=True).get_grouped_data(**CALL, seed=3)
    (kept,) = (tmp_path / "memmap").iterdir()
    kept.write_bytes(kept.read_bytes()[:-5])
    check_equal(bridge(compressed=True).get_grouped_data(**CALL, seed=3), first)


# ------------------------------------------------------------------ what strangers write
def member(header, data=b"", *, shown=None):
    """Return the bytes of a .npy with a header of one's own."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False} | header)
    return out.getvalue() + data


def write_members(path, members, compression=zipfile.ZIP_STORED):
    """Write the bytes of members in the place of those of a lattice."""
    write(path, {k: v for k, v in lattice().items() if k not in members})
    with zipfile.ZipFile(path, "a", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


LIES = {
    "more than there is": member({"shape": (100, 64, 64)}, b"\0" * 1000),
    "terabytes": member({"shape": (100, 2**20, 2**20)}, b"\0" * 1000),
    "less than nothing": member({"shape": (-100, -64, 64)}, b"\0" * 1000),
    "objects": member({"shape": (100, 64, 64), "descr": "|O"}, pickle.dumps(np.zeros((100, 64, 64), object))),
    "no header": b"\x93NUMPY\x01\0" + b"\xff" * 100,
    "nothing": b"",
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("key", ["diffraction", "xcoords"])
def test_memmap_headers_that_lie_are_refused_before_memory_is_taken(tmp_path, lie, compression, key):
    path = write_members(tmp_path / "scan.npz", {key: LIES[lie]}, compression)
    tracemalloc.start()
    with pytest.raises(InvalidInputError, match="NPZ file"):
        MemmapDatasetBridge(path, memmap_dir=tmp_path / "memmap")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_memmap_bombs_are_refused_before_memory_is_taken(tmp_path):
    path = write(tmp_path / "scan.npz", lattice(), xcoords=None)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("xcoords.npy", "w", force_zip64=True) as out,
    ):
        out.write(member({"shape": (2**25 + 2**20,), "descr": "<f8"}))
        for _ in range(2**25 + 2**20 >> 17):
            out.write(bytes(2**20))
    assert path.stat().st_size < 5e6
    tracemalloc.start()
    with pytest.raises(InvalidInputError, match=r"NPZ file.*277 MB"):
        MemmapDatasetBridge(path, memmap_dir=tmp_path / "memmap")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_memmap_flipped_bytes_of_a_compressed_file_are_seen(tmp_path):
    path = write(tmp_path / "scan.npz", lattice(), compressed=True)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("diffraction.npy")
    data = bytearray(path.read_bytes())
    data[info.header_offset + 5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match="damage"):
        MemmapDatasetBridge(path, memmap_dir=tmp_path / "memmap")
    assert not list((tmp_path / "memmap").iterdir())


def test_memmap_metadata_is_read_without_unpickling(bridge, tmp_path):
    told = json.dumps({"physics_parameters": {"nphotons": 1e6}, "N": 64, "why": "x" * 300})
    for form in (
        np.array(told, object),
        np.array(told),
        np.array({"physics_parameters": 1}, object),
        np.array(3),
    ):
        found = bridge(_metadata=form).get_grouped_data(**CALL, seed=3)
        assert found["nphotons"] == (1e6 if form.dtype.kind == "U" or form.item() == told else 1e9)
        made = sz.PtychoDataContainerTorch(found, lattice()["probeGuess"])
        assert made.norm_Y_I == pytest.approx(np.sqrt(found["nphotons"]) / 32, rel=1e-6)
    given = PtychoConfig(64, 2, nphotons=1e4)
    assert bridge(_metadata=np.array(told, object), config=given).get_grouped_data(**CALL)["nphotons"] == 1e4


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_memmap_pickles_run_nothing(bridge, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = bridge(_metadata=np.array(Bomb(), object)).get_grouped_data(**CALL)
    assert found["nphotons"] == 1e9
    with pytest.raises(InvalidInputError, match="never unpickled"):
        bridge(scan_index=np.array([Bomb()] * 100, object))
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    """The bytes of a small scan, stored and compressed, and a folder to change them in."""
    folder = tmp_path_factory.mktemp("flips")
    arrays = lattice(n=20, size=8) | {"_metadata": np.array(json.dumps({"N": 8}), object)}
    files = [write(folder / f"{c}.npz", arrays, compressed=c).read_bytes() for c in (False, True)]
    return files, folder


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_memmap_any_changed_bytes_are_refused_by_an_error_of_ours(small_files, data):
    files, folder = small_files
    changed = bytearray(data.draw(st.sampled_from(files)))
    parts = [(0, len(changed)), (len(changed) - 700, len(changed))]  # the listing is at the end
    parts += [
        (at, at + 160) for at in (changed.find(b"PK\3\4", i) for i in range(0, len(changed), 3000)) if at >= 0
    ]
    for _ in range(data.draw(st.integers(1, 4))):
        low, high = data.draw(st.sampled_from(parts))
        changed[data.draw(st.integers(low, min(high, len(changed)) - 1))] = data.draw(st.integers(0, 255))
    path = folder / f"{sha256(changed).hexdigest()}.npz"  # the listing of a file is kept, by its times
    path.write_bytes(changed)
    with suppress(SarzarrError):
        MemmapDatasetBridge(path, memmap_dir=folder / "memmap").get_grouped_data(8, 4, 5, 2)


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive at all" * 100])
def test_memmap_of_no_archive_is_refused(tmp_path, data):
    (tmp_path / "scan.npz").write_bytes(data)
    with pytest.raises(InvalidInputError, match="expected an NPZ file"):
        MemmapDatasetBridge(tmp_path / "scan.npz")
    with pytest.raises(FileNotFoundError):
        MemmapDatasetBridge(tmp_path / "nothing.npz")
