"""A store from a stranger is read as far as it is one, or refused with the reason, before memory is taken."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c
from limited import forked
from strangers import EDITS

from sarzarr.errors import CorruptStoreError, InvalidInputError
from sarzarr.store.codecs import CODECS, get_codec
from sarzarr.store.place import Folder

TESTS = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits of forked processes are Linux's"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def said(once):
    """Return, by edit, what each reader said."""

    def run():
        command = [sys.executable, TESTS / "strangers.py"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS, timeout=1200)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return once("strangers", run)


@pytest.mark.slow
def test_the_store_that_is_edited_is_read_by_all(said):
    assert {code for code, _ in said["nothing"].values()} == {0}


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_no_reader_takes_memory_for_it_and_one_says_what_is_wrong(said, edit):
    codes = {reader: code for reader, (code, _) in said[edit].items()}
    assert set(codes.values()) <= {0, 1, 2, 4}, said[edit]
    refusals = [text for code, text in said[edit].values() if code]
    assert refusals
    assert all("expected" in text or "must be" in text for text in refusals), refusals
    assert all(len(text) < 1500 for text in refusals), refusals


REFUSED_BY = {
    "patches": """
        a_codec_that_runs_code an_array_of_objects a_chunk_of_terabytes
        a_layer_of_exabytes a_layer_in_chunks_of_a_pixel patches_before_the_first_pixel
        patches_of_nobody a_shard_that_is_a_link a_scene_that_is_a_link
        a_shard_that_is_a_device
    """,
    "scene": """
        a_codec_that_runs_code a_chunk_of_terabytes an_array_of_exabytes
        a_shard_that_is_a_link coordinates_that_are_a_link
    """,
    "copy": """
        a_layer_of_exabytes a_scene_id_that_climbs a_shard_that_is_a_link
        a_link_among_the_rest a_document_that_is_a_pipe
    """,
    "chips": """
        chips_of_exabytes
    """,
    "info": """
        chips_of_exabytes a_scene_id_that_climbs
    """,
    "histograms": """
        a_histogram_of_exabytes a_histogram_without_counts
    """,
    "boxes": """
        a_box_around_the_world boxes_on_another_folder
    """,
    "split": """
        cells_of_no_side
    """,
}
"""Edits by a reader that would read what they are about."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "reader"),
    [(edit, reader) for reader, edits in REFUSED_BY.items() for edit in edits.split()],
)
def test_a_reader_refuses_what_it_would_read(said, edit, reader):
    code, text = said[edit][reader]
    assert code, said[edit]
    if "link" in edit or "pipe" in edit or "device" in edit:
        assert "inside of the store were expected" in text


# ------------------------------------------------------------------ chunks that lie
def _decode_lies(name, seed):
    """Decode 3,000 frames with changed bytes, and checksums that are right; return how many decode."""
    rng, codec, decoded = np.random.default_rng(seed), get_codec(name), 0
    chunk = (rng.gamma(4, 1, (64, 64)) * 1000).astype("uint16")
    payload, _ = codec.encode(chunk)
    good = np.frombuffer(bytes(payload), np.uint8)
    for _ in range(3000):
        frame = good.copy()
        places = rng.integers(0, min(len(frame), rng.choice([8, 24, 100, len(frame)])), rng.integers(1, 5))
        frame[places] = rng.integers(0, 256, len(places))
        frame = frame[: rng.integers(len(frame) // 2, len(frame) + 1)] if rng.random() < 0.3 else frame
        stored = frame.tobytes() + crc32c(frame.tobytes()).to_bytes(4, "little")
        for read in (
            lambda stored: codec.decode_into(stored, np.empty_like(chunk)),
            lambda stored: codec.decode(stored, 2**20),
        ):
            try:
                read(stored)
                decoded += 1
            except (CorruptStoreError, InvalidInputError):
                pass
    return decoded


@pytest.mark.parametrize("name", sorted(CODECS))
def test_frames_that_lie_decode_or_are_refused(name):
    """Their checksums are right: a stranger can compute those."""
    outcome = forked(_decode_lies, name, 1, memory=2**29)
    assert outcome.kind == "done", outcome


@pytest.mark.parametrize("change", [-1, 1])
def test_a_blosc_frame_of_another_length_than_it_says_is_refused(change):
    """The library reads as far as a frame says, beyond the bytes that are there."""
    codec, chunk = get_codec("blosc-lz4"), np.arange(4096, dtype="float32")
    frame = bytearray(bytes(codec.encode(chunk)[0]))
    told = int.from_bytes(frame[12:16], "little")
    assert told == len(frame)
    frame[12:16] = ((told + change) % 2**32).to_bytes(4, "little")
    with pytest.raises(CorruptStoreError, match="another length"):
        codec.decode_into(bytes(frame) + crc32c(bytes(frame)).to_bytes(4, "little"), np.empty_like(chunk))


# ------------------------------------------------------------------ keys
@pytest.mark.parametrize("key", ["../x", "a/../../x", "a/..", "..", "a/../b/../../x/y"])
def test_a_key_that_leads_out_of_a_store_is_refused_by_every_door(tmp_path, key):
    place = Folder(tmp_path / "s.zarr")
    place.put("a/b", b"1")
    for door in (
        place.head, place.get, place.descriptor, place.children, place.delete, lambda k: place.put(k, b"2"),
        lambda k: place.whole(k).__enter__(), lambda k: place.swap(tmp_path, k),
        lambda k: place.get_ranges(k, [(0, 1)]),
    ):  # fmt: skip
        with pytest.raises(CorruptStoreError, match="inside of the store"):
            door(key)
    assert {p.name for p in tmp_path.iterdir()} == {"s.zarr"}


def test_an_absolute_key_is_within_the_store(tmp_path):
    place = Folder(tmp_path / "s.zarr")
    place.put("/etc/passwd", b"1")
    assert (tmp_path / "s.zarr/etc/passwd").read_bytes() == place.get("/etc/passwd") == b"1"


def test_nothing_is_written_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr/scenes").symlink_to(outside)
    with pytest.raises(CorruptStoreError, match="inside of the store"):
        Folder(tmp_path / "s.zarr").put("scenes/x/zarr.json", b"{}")
    assert not list(outside.iterdir())


def test_a_store_behind_a_link_is_a_store(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "s.zarr").symlink_to(tmp_path / "far")
    place = Folder(tmp_path / "s.zarr")
    place.put("a/b", b"1")
    assert (place.get("a/b"), place.children("a")) == (b"1", ["b"])
