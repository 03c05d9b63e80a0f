"""A file has its name only when it is whole."""

import contextlib

import pytest
from disks import files_below, no_file_beyond

from sarzarr.files import whole_file


@pytest.mark.parametrize("before", [None, "earlier"])
@pytest.mark.parametrize("limit", [0, 5])
def test_a_full_disk_leaves_what_was_there(tmp_path, before, limit):
    path = tmp_path / "a.json"
    if before:
        path.write_text(before)
    with pytest.raises(OSError, match="File too large"), no_file_beyond(limit), whole_file(path) as partial:
        partial.write_text("longer than that")
    assert files_below(tmp_path) == ({"a.json"} if before else set())
    assert not before or path.read_text() == before


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("earlier")
    with whole_file(path) as partial:
        partial.write_text("all of it")
        assert path.read_text() == "earlier"
    assert path.read_text() == "all of it"
    assert files_below(tmp_path) == {"a.json"}


def test_a_file_that_is_made_once_takes_no_place_of_another(tmp_path):
    path = tmp_path / "v1.json"
    for text in ("first", "second"):
        with (
            contextlib.nullcontext() if text == "first" else pytest.raises(FileExistsError),
            whole_file(path, once=True) as partial,
        ):
            partial.write_text(text)
    assert path.read_text() == "first"
    assert files_below(tmp_path) == {"v1.json"}
