"""A store from a stranger is read as far as it is one, or refused with the reason, before memory is taken."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from strangers import EDITS

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of forked processes are Linux's")


@pytest.fixture(scope="module")
def said():
    """Return, by edit, what each reader said."""
    command = [sys.executable, TESTS / "strangers.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_store_that_is_edited_is_read_by_all(said):
    assert said["nothing"] == dict.fromkeys(said["nothing"], [0, ""])


@pytest.mark.parametrize("edit", EDITS)
def test_no_reader_takes_memory_for_it_and_one_says_what_is_wrong(said, edit):
    codes = {reader: code for reader, (code, _) in said[edit].items()}
    assert set(codes.values()) <= {0, 1, 2, 4}, said[edit]
    refusals = [text for code, text in said[edit].values() if code]
    assert refusals
    assert all("expected" in text or "must be" in text for text in refusals), refusals
    assert all(len(text) < 1500 for text in refusals), refusals


@pytest.mark.parametrize(
    ("edit", "reader"),
    [
        ("a_codec_that_runs_code", "patches"), ("a_codec_that_runs_code", "scene"), ("an_array_of_objects", "patches"),
        ("a_chunk_of_terabytes", "patches"), ("a_chunk_of_terabytes", "scene"), ("an_array_of_exabytes", "scene"),
        ("a_layer_of_exabytes", "patches"), ("a_layer_of_exabytes", "copy"), ("a_layer_in_chunks_of_a_pixel", "patches"),
        ("chips_of_exabytes", "chips"), ("chips_of_exabytes", "info"), ("a_box_around_the_world", "boxes"),
        ("a_scene_id_that_climbs", "info"), ("a_scene_id_that_climbs", "copy"), ("boxes_on_another_folder", "boxes"),
        ("cells_of_no_side", "split"), ("patches_before_the_first_pixel", "patches"), ("patches_of_nobody", "patches"),
        ("a_shard_that_is_a_link", "patches"), ("a_shard_that_is_a_link", "scene"), ("a_shard_that_is_a_link", "copy"),
        ("a_scene_that_is_a_link", "patches"), ("a_link_among_the_rest", "copy"), ("coordinates_that_are_a_link", "scene"),
        ("a_document_that_is_a_pipe", "copy"), ("a_shard_that_is_a_device", "patches"),
    ],
)  # fmt: skip
def test_a_reader_refuses_what_it_would_read(said, edit, reader):
    code, text = said[edit][reader]
    assert code, said[edit]
    if "link" in edit or "pipe" in edit or "device" in edit:
        assert "inside of the store were expected" in text
