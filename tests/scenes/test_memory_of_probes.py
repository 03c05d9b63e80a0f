"""What is remembered of a file is what reading it anew says, and a file that changed is read anew."""

import json
import os

import numpy as np
import pytest
from conftest import REAL, speckle, write_band

import sarzarr as sz
from sarzarr.scenes import memory
from sarzarr.scenes.survey import survey_files


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Remember probes in a folder of this test, those of files that were just made, too."""
    monkeypatch.setenv(memory.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "SETTLED", -1.0)
    return tmp_path / "cache"


@pytest.fixture
def read(monkeypatch):
    """The names of files that are probed, in order."""
    names, probe = [], memory.probe_file

    def told(path, **options):
        names.append(path.name)
        return probe(path, **options)

    monkeypatch.setattr(memory, "probe_file", told)
    return names


def folder_of(tmp_path, *names, seed=0):
    folder = tmp_path / "raw"
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        write_band(folder / f"{name}_sigma0_vv.tif", speckle((64, 70), seed=seed + i), nodata=np.nan)
    return folder


def test_the_second_survey_is_the_first_and_reads_nothing(tmp_path, cache, read):
    folder = folder_of(tmp_path, "a", "b", "c")
    first = survey_files([folder])
    assert len(read) == 3
    second = survey_files([folder])
    assert len(read) == 3
    assert repr(second) == repr(first)
    survey_files([folder], nodata=0.0)
    assert len(read) == 6  # asked otherwise
    survey_files([folder], full_hash=True)
    survey_files([folder], full_hash=True)
    assert len(read) == 12  # every byte was asked for


def test_real_files_are_remembered_as_they_are_read(real_data, cache, read):
    files = [real_data / name for name in REAL]
    first = survey_files(files)
    count = len(read)
    second = survey_files(files)
    assert len(read) < count + len(files) // 2
    assert repr(second) == repr(first)


def test_a_file_that_changed_is_read_anew_and_the_others_are_not(tmp_path, cache, read):
    folder = folder_of(tmp_path, "a", "b")
    survey_files([folder])
    changed = folder / "b_sigma0_vv.tif"
    before = changed.stat()
    data = bytearray(changed.read_bytes())
    data[-40:] = bytes(40)
    changed.write_bytes(data)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if nothing had been written
    found = survey_files([folder])
    assert read[2:] == ["b_sigma0_vv.tif"]
    assert found.scenes[1].source_hash == sz.probe_file(changed).source_hash or len(found.scenes) == 2
    (folder / "b_sigma0_vv.tif.msk").write_bytes(b"no mask")
    survey_files([folder])
    assert len(read) == 5  # what lies beside may say something of both


def test_a_plan_of_known_files_sees_the_one_that_is_another(tmp_path, cache):
    folder, store = folder_of(tmp_path, "a", "b"), tmp_path / "s.zarr"
    known = {"quantity": "sigma0", "representation": "power"}
    sz.ingest(sz.plan_ingest(folder, store, **known))
    assert sz.plan_ingest(folder, store, **known).present == ("a_sigma0", "b_sigma0")
    write_band(folder / "b_sigma0_vv.tif", speckle((64, 70), seed=9), nodata=np.nan)
    plan = sz.plan_ingest(folder, store, **known)
    assert plan.present == ("a_sigma0",)
    assert "with other pixels" in str(plan)


def test_what_changed_a_moment_ago_is_not_remembered(tmp_path, cache, read, monkeypatch):
    monkeypatch.setattr(memory, "SETTLED", 60.0)
    folder = folder_of(tmp_path, "a")
    survey_files([folder])
    survey_files([folder])
    assert len(read) == 2
    assert not cache.exists()


def test_nothing_is_written_where_nothing_is_to_be_remembered(tmp_path, cache, read, monkeypatch):
    monkeypatch.setenv(memory.CACHE, "")
    folder = folder_of(tmp_path, "a")
    survey_files([folder])
    survey_files([folder])
    assert len(read) == 2
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '{"a_sigma0_vv.tif": 3}', "stamp", "deep"])
def test_a_document_that_is_none_is_as_if_it_were_not_there(tmp_path, cache, read, content):
    folder = folder_of(tmp_path, "a")
    first = survey_files([folder])
    (document,) = cache.rglob("*.json")
    entry = json.loads(document.read_text())["a_sigma0_vv.tif"]
    if content == "stamp":
        content = json.dumps({"a_sigma0_vv.tif": {"stamp": entry["stamp"], "probe": {"path": 3}}})
    document.write_text("[" * 100_000 if content == "deep" else content)
    assert repr(survey_files([folder])) == repr(first)
    assert len(read) == 2
    assert repr(survey_files([folder])) == repr(first)
    assert len(read) == 2


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, cache, read):
    cache.write_text("a file")
    folder = folder_of(tmp_path, "a")
    assert len(survey_files([folder]).scenes) == len(survey_files([folder]).scenes) == 1
