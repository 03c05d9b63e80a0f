"""Pickles of older pipelines are read without anything in them being run."""

import collections
import io
import pathlib
import pickle
import pickletools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.errors import InvalidInputError
from sarzarr.ingestion.archives import pickles
from sarzarr.ingestion.archives.npy import read_bounds
from sarzarr.ingestion.archives.pickles import read_pickled

FACTS = {
    "vmin": np.float64(14.77), "vmax": np.float32(24.5), "patch_size": 256, "share": 0.9, "yes": True, "none": None,
    "index": [("C:\\a\\b_patches.npy", 3), ("/c/d.npy", np.int64(4))], "text": "Grüße", "bytes": b"\x00\xff",
    "numbers": np.arange(6.0).reshape(2, 3), "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "texts": np.array(["a", "bcd"]), "mixed": np.array([1, "x", None], object),
    "turned": np.arange(3, dtype=">i4"), "flags": np.array([True, False]), "complex": np.complex64(1 + 2j),
}  # fmt: skip


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found[key], value)
            assert found[key].dtype == value.dtype.newbyteorder("=")
        else:
            assert found[key] == value


@pytest.mark.parametrize(
    "protocol", range(pickle.HIGHEST_PROTOCOL)
)  # 5 has arrays as buffers, which numpy.save never
def test_what_numpy_and_pickle_write_is_read(tmp_path, protocol):
    path = tmp_path / "metadata.npy"
    path.write_bytes(pickle.dumps(FACTS, protocol))
    assert_same(read_pickled(path), FACTS)
    np.save(path, FACTS, allow_pickle=True)
    assert_same(read_pickled(path), FACTS)


def test_pickles_of_numpy_1_and_2_are_read(tmp_path):
    written = pickle.dumps(FACTS, 2)
    for old, new in ((b"numpy._core.", b"numpy.core."), (b"numpy.core.", b"numpy._core.")):
        path = tmp_path / "metadata.npy"
        path.write_bytes(written.replace(old, new))
        assert_same(read_pickled(path), FACTS)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (pathlib.PurePosixPath("a"), r"pathlib\S*\.PurePosixPath"),
        (np.random.default_rng, r"numpy.random\S*.default_rng"),
        (np.datetime64("2020-01-01"), r"dtype 'M8'"),
        (np.zeros(1, [("a", "f4")]), r"dtype 'V4'|dtype V4"),
        (len, "builtins.len|__builtin__.len"),
        ({1, 2}, "builtins.set|ADDITEMS|EMPTY_SET|__builtin__.set"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_is_refused_is_named_and_not_imported(tmp_path, value, name, protocol):
    path = tmp_path / "metadata.npy"
    path.write_bytes(pickle.dumps({"a": value}, protocol))
    with pytest.raises(InvalidInputError, match=name) as error:
        read_pickled(path)
    assert "'metadata.npy'" in str(error.value)
    assert "Nothing of it was run" in str(error.value)


def test_a_module_that_a_pickle_names_is_not_imported(tmp_path):
    (tmp_path / "metadata.npy").write_bytes(b"cthis_is_no_module\nnor_a_name\n.")
    with pytest.raises(InvalidInputError, match=r"this_is_no_module\.nor_a_name"):
        read_pickled(tmp_path / "metadata.npy")
    assert "this_is_no_module" not in sys.modules


def test_persistent_ids_and_registered_codes_are_refused(tmp_path):
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return "7" if obj == "elsewhere" else None

    for protocol in (0, 2):
        stream = io.BytesIO()
        Pickler(stream, protocol).dump({"a": "elsewhere"})
        path = tmp_path / "metadata.npy"
        path.write_bytes(stream.getvalue())
        with pytest.raises(InvalidInputError, match="PERSID"):
            read_pickled(path)
    path.write_bytes(b"\x80\x02\x82\x01.")
    with pytest.raises(InvalidInputError, match="EXT1"):
        read_pickled(path)


def test_more_than_64_mb_is_refused_unread(tmp_path):
    path = tmp_path / "metadata.npy"
    with path.open("wb") as stream:
        stream.truncate(pickles.MAX_PICKLE + 1)
    path.chmod(0)
    with pytest.raises(
        InvalidInputError, match=r"at most 64(\.0)? MB was expected in 'metadata.npy', got 64"
    ):
        read_pickled(path)
    with pytest.raises(InvalidInputError, match="no regular file"):
        read_pickled(tmp_path)


def test_memory_is_taken_for_what_a_file_holds(tmp_path):
    """An array, a place to remember or a text that says it is large, and is not."""
    array = pickle.dumps({"a": np.zeros(5, np.uint8)}, 2).replace(b"K\x05\x85", b"J\xff\xff\xff\x7f\x85")
    objects = pickle.dumps({"a": np.array([None], object)}, 2).replace(b"K\x01\x85", b"J\xff\xff\xff\x7f\x85")
    for written in (
        array,
        objects,
        b"\x80\x02}r\xff\xff\xff\x7f.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x00.",
    ):
        (tmp_path / "metadata.npy").write_bytes(written)
        with pytest.raises(InvalidInputError, match=r"number of values|to remember|expected"):
            read_pickled(tmp_path / "metadata.npy")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_ends_as_a_dict_or_a_refusal(tmp_path_factory, data):
    written = bytearray(pickle.dumps(FACTS, data.draw(st.sampled_from([0, 2, 4]))))
    for _ in range(data.draw(st.integers(1, 3))):
        written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    path.write_bytes(bytes(written[: data.draw(st.integers(1, len(written)))]))
    try:
        found = read_pickled(path)
    except InvalidInputError as error:
        found = {"refused": str(error)}
    assert isinstance(found, dict)
    assert "'damaged.npy'" in found.get("refused", "'damaged.npy'")


def test_every_name_that_is_known_is_the_list_of_the_issue():
    numpy = ("numpy.core.multiarray", "numpy._core.multiarray")
    wanted = {(module, name) for module in numpy for name in ("_reconstruct", "scalar")}
    assert set(pickles._KNOWN) == wanted | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
    refused = {step.name for step in pickletools.opcodes if not pickles._STEP.fullmatch(step.name)}
    assert refused == {
        "ADDITEMS", "BINPERSID", "BYTEARRAY8", "DUP", "EMPTY_SET", "EXT1", "EXT2", "EXT4", "FROZENSET", "INST",
        "NEWOBJ", "NEWOBJ_EX", "NEXT_BUFFER", "OBJ", "PERSID", "READONLY_BUFFER",
    }  # fmt: skip


def test_bounds_are_read(tmp_path):
    facts = {"vmin": 14.77, "vmax": 24.54, "all_vmins": [14.0, 15.0], "all_vmaxs": [24.0, 25.0]}
    np.save(tmp_path / "global_bounds.npy", facts)
    assert read_bounds(tmp_path / "global_bounds.npy") == (14.77, 24.54)
    np.save(tmp_path / "global_bounds.npy", {"vmin": 1.0})
    with pytest.raises(InvalidInputError, match=r"vmax, a number, was expected in 'global_bounds\.npy'"):
        read_bounds(tmp_path / "global_bounds.npy")
    np.save(tmp_path / "global_bounds.npy", np.zeros(3))
    with pytest.raises(InvalidInputError, match=r"an array \(3,\) of float64"):
        read_bounds(tmp_path / "global_bounds.npy")
