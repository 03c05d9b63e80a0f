"""Spectrograms in .npz and .json: into a store and back, with everything that their files say."""

import io
import json
import logging
import os
import shutil
import struct
import zipfile

import numpy as np
import pytest
from conftest import tree_hash
from hypothesis import given, settings
from hypothesis import strategies as st
from spectrogram_folders import PICTURE, add_sample, signal_folder, write_version
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr.cli import app
from sarzarr.errors import InvalidInputError, RasterNotFoundError, UnsupportedRasterError
from sarzarr.ingestion.chips.npz import read_sample_json, read_spectrogram


@pytest.mark.parametrize("pointer", ["link", "copy", "text", "none"])
def test_everything_comes_in_and_goes_out_again(tmp_path, pointer):
    folder = signal_folder(tmp_path, pointer=pointer)
    done = CliRunner().invoke(app, ["import", "npz", str(folder), "-o", str(tmp_path / "s.zarr")])
    assert done.exit_code == 0, done.output
    active = 3 if pointer == "none" else 1
    assert f"4 spectrograms; versions 1, 3, v{active} active" in done.output
    made = sz.open_samples(tmp_path / "s.zarr", "beep")
    assert made.ids == ("a", "b", "c", "d")
    assert made.layout.chunk == (256, 256)
    for i, name in enumerate(made.ids):
        with np.load(folder / "samples" / f"{name}.npz") as stored:
            assert np.array_equal(made.image(i), stored["spectrogram"])
    assert made.boxes.classes == ("whistle", "object")
    assert made.target(0)[0].tolist() == [[1, 2, 30, 40], [0, 0, 1023.5, 7]]
    assert made.target(3)[0].shape == (0, 4)
    splits, older = sz.SplitManager(made.store), sz.SplitManager(tmp_path)
    assert splits.get_versions("beep") == [1, 3]
    assert splits.get_active_split_version("beep") == older.get_active_split_version("beep") == active
    for version in (1, 3):
        assert splits.get_split("beep", version) == older.get_split("beep", version)
    assert not sz.verify(made.store).findings
    out = tmp_path / "again" / "signals" / "beep"
    done = CliRunner().invoke(app, ["export", "npz", str(tmp_path / "s.zarr"), "beep", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert_same(folder, out)
    assert sz.SplitManager(tmp_path / "again").get_active_split_version("beep") == active
    again, _ = sz.import_npz(out, tmp_path / "t.zarr")
    assert tree_hash(again.folder) == tree_hash(made.folder)
    with pytest.raises(InvalidInputError, match="new folder"):
        sz.export_npz(made.store, "beep", out)


def assert_same(folder, out):
    names = sorted(p.name for p in (folder / "samples").iterdir())
    assert sorted(p.name for p in (out / "samples").iterdir()) == names
    for name in names:
        one, other = folder / "samples" / name, out / "samples" / name
        if name.endswith(".json"):
            assert json.loads(one.read_text()) == json.loads(other.read_text())
        else:
            with np.load(one) as a, np.load(other) as b:
                assert a["spectrogram"].dtype == b["spectrogram"].dtype == np.uint8
                assert np.array_equal(a["spectrogram"], b["spectrogram"])
    for path in (folder / "splits").glob("v*.json"):
        told, got = (json.loads(p.read_text()) for p in (path, out / "splits" / path.name))
        assert got == {**got, **told}


NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
CORNER = st.integers(-5, 1100) | st.floats(-5, 1100)
BOX = st.fixed_dictionaries(
    dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), CORNER),
    optional={"label": st.text(max_size=5) | st.none(), "confidence": st.floats(0, 1), "extra": VALUES},
)
DOCUMENT = st.builds(
    lambda own, boxes: {**own, **boxes},
    st.dictionaries(st.text(), VALUES, max_size=3).filter(lambda own: "boxes" not in own),
    st.fixed_dictionaries({}, optional={"boxes": st.lists(BOX, max_size=3)}),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(DOCUMENT, min_size=1, max_size=3), st.randoms(use_true_random=False), st.integers(1, 9))
def test_any_json_and_any_version_come_back(tmp_path_factory, documents, random, version):
    base = tmp_path_factory.mktemp("any")
    folder = base / "signals" / "beep"
    ids = [f"s{i}" for i in range(len(documents))]
    for one, document in zip(ids, documents, strict=True):
        add_sample(folder, one, np.roll(PICTURE, random.randrange(99)), document)
    random.shuffle(ids)
    write_version(folder, version, ids, ["gone"])
    made, report = sz.import_npz(folder, base / "s.zarr")
    assert report.boxes["given"] == sum(len(document.get("boxes", ())) for document in documents)
    assert_same(folder, sz.export_npz(made.store, "beep", base / "out"))
    assert sz.SplitManager(made.store).get_split("beep", version) == (ids, ["gone"])


def test_what_lacks_a_file_or_cannot_be_read_is_named_and_the_others_go_in(tmp_path):
    folder = signal_folder(tmp_path)
    (folder / "samples" / "a.json").unlink()
    (folder / "samples" / "b.npz").unlink()
    (folder / "samples" / "c.json").write_text('{"boxes": [{"x_min": "1"}]}')
    done = CliRunner().invoke(app, ["import", "npz", str(folder), "-o", str(tmp_path / "s.zarr")])
    assert done.exit_code == 3
    for name in ("a.npz", "b.json", "c.npz"):
        assert f"samples/{name}" in done.output
    assert sz.open_samples(tmp_path / "s.zarr", "beep").ids == ("d",)
    with pytest.raises((InvalidInputError, UnsupportedRasterError), match=r"a\.npz"):
        sz.import_npz(folder, tmp_path / "t.zarr", strict=True)
    assert not (tmp_path / "t.zarr").exists()
    with pytest.raises(InvalidInputError, match="--replace"):
        sz.import_npz(folder, tmp_path / "s.zarr")
    with pytest.raises(RasterNotFoundError, match="signals/NAME"):
        sz.import_npz(tmp_path, tmp_path / "s.zarr")


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"boxes": 3}', '{"boxes": [1]}', '{"boxes": [{"x_min": 1}]}', "[" * 10**5,
        '{"boxes": [{"x_min": true, "y_min": 1, "x_max": 2, "y_max": 3}]}',
        '{"boxes": [{"x_min": 0, "y_min": 1, "x_max": 2, "y_max": 1' + "0" * 400 + "}]}",
        '{"boxes": [{"x_min": 0, "y_min": 1, "x_max": 2, "y_max": 3, "label": "\\ud800"}]}',
    ],
)  # fmt: skip
def test_json_that_says_no_boxes_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InvalidInputError, match=r"a\.json"):
        read_sample_json(tmp_path / "a.json")


def test_a_version_never_changes_when_a_set_is_replaced(tmp_path):
    folder = signal_folder(tmp_path)
    made, _ = sz.import_npz(folder, tmp_path / "s.zarr")
    add_sample(folder, "e", PICTURE, {})
    made, _ = sz.import_npz(folder, made.store, replace=True)
    assert len(made) == 5
    write_version(folder, 3, ["e"], ["a"])
    with pytest.raises(InvalidInputError, match="Versions never change"):
        sz.import_npz(folder, made.store, replace=True)
    assert sz.SplitManager(made.store).get_split("beep", 3) == (["c", "a", "d"], ["b"])


def archive(path, *, name="spectrogram.npy", data=None, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as out:
        out.writestr(name, data)
    return path


def npy(values, shape=None, descr=None):
    out = io.BytesIO()
    np.lib.format.write_array(out, values, allow_pickle=True)
    data = out.getvalue()
    if shape is None:
        return data
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def crowd(path):
    with zipfile.ZipFile(path, "w") as out:
        for i in range(20_000):
            out.writestr(f"{i}.npy", b"")
        out.writestr("spectrogram.npy", npy(PICTURE))


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("ran",)


HOSTILE = {
    "a bomb": lambda path: archive(path, data=bytes(2**28)),
    "a header of terabytes": lambda path: archive(path, data=npy(PICTURE, (2**20, 2**20), "|u1")),
    "a header of more than there is": lambda path: archive(path, data=npy(PICTURE, (1024, 1024), "|u1")),
    "objects": lambda path: archive(path, data=npy(np.array([Bomb()], object))),
    "floats": lambda path: archive(path, data=npy(PICTURE.astype(np.float32)[:256])),
    "another size": lambda path: archive(path, data=npy(PICTURE[:512])),
    "no such key": lambda path: archive(path, name="data.npy", data=npy(PICTURE)),
    "no header": lambda path: archive(path, data=b"\x93NUMPY\x09\x00"),
    "many files": lambda path: crowd(path),
    "no archive": lambda path: path.write_bytes(b"PK" * 50),
    "nothing": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives_are_refused_and_nothing_runs(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    HOSTILE[what](tmp_path / "x.npz")
    with pytest.raises(UnsupportedRasterError, match=r"expected uint8 \(1024, 1024\).*x\.npz"):
        read_spectrogram(tmp_path / "x.npz")
    assert not (tmp_path / "ran").exists()


def test_a_lie_about_the_length_is_read_no_further_than_it_says(tmp_path):
    path = archive(tmp_path / "x.npz", data=bytes(2**26))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 1000)
    path.write_bytes(bytes(data))
    with pytest.raises(UnsupportedRasterError):
        read_spectrogram(path)


def test_columns_first_and_other_arrays(tmp_path, caplog):
    folder = tmp_path / "beep"
    add_sample(folder, "a", np.asfortranarray(PICTURE), {}, times=np.arange(3))
    with caplog.at_level(logging.WARNING):
        made, _ = sz.import_npz(folder, tmp_path / "s.zarr")
    assert "not taken: times" in caplog.text
    assert np.array_equal(made.image(0), PICTURE)


def test_an_interrupted_import_ends_in_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("sarzarr.store.samples.MOST_IN_SHARD", 1)
    folder = signal_folder(tmp_path)
    whole, _ = sz.import_npz(folder, tmp_path / "whole.zarr")

    def stop(done, of):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sz.import_npz(folder, tmp_path / "s.zarr", progress=stop)
    assert not (tmp_path / "s.zarr" / "samples").exists()
    made, _ = sz.import_npz(folder, tmp_path / "s.zarr")
    for part in ("samples", "boxes", "splits"):
        assert tree_hash(made.store.root / part) == tree_hash(whole.store.root / part)


def test_damage_is_mended_from_the_folder(tmp_path):
    folder = signal_folder(tmp_path)
    made, _ = sz.import_npz(folder, tmp_path / "s.zarr")
    before = tree_hash(made.folder)
    shard = made.folder / "image" / "c" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-9])
    assert sz.repair(tmp_path / "s.zarr", sources=[folder]).mended
    assert tree_hash(made.folder) == before
    assert not sz.verify(tmp_path / "s.zarr").findings


def test_chips_of_that_size_go_out_with_their_boxes(tmp_path):
    from chip_folders import voc, write_picture

    write_picture(tmp_path / "chips" / "a.png", PICTURE)
    (tmp_path / "chips" / "a.xml").write_text(voc([(1, 2, 30, 40)]))
    made, _ = sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    out = sz.export_npz(made.store, "chips", tmp_path / "out")
    box = {"x_min": 1, "y_min": 2, "x_max": 30, "y_max": 40, "label": "ship"}
    assert json.loads((out / "samples" / "a.json").read_text()) == {"boxes": [box]}
    shutil.rmtree(tmp_path / "chips")
    write_picture(tmp_path / "chips" / "a.png", PICTURE[:512])
    made, _ = sz.import_chips(tmp_path / "chips", tmp_path / "t.zarr")
    with pytest.raises(InvalidInputError, match="512 x 1024"):
        sz.export_npz(made.store, "chips", tmp_path / "other")
    assert not (tmp_path / "other").exists()
