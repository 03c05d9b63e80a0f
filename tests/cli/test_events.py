"""Whoever has logging on sees the events that a terminal shows; and progress has the units that it says."""

import logging
import re

import numpy as np
import pytest
from chip_folders import chip_folder
from conftest import speckle, write_band
from rasterio import Affine
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr.cli.app import app
from sarzarr.errors import Exit
from sarzarr.splits.assign import Grounds
from sarzarr.splits.samples.backends import SampleSplit
from sarzarr.splits.versions import grounds_of
from sarzarr.text import logged


@pytest.fixture
def files(tmp_path):
    return [
        write_band(
            tmp_path / f"s{i}_vv.tif",
            speckle((600, 600), seed=i),
            transform=Affine(10, 0, 500_000 + 9_000 * i, 0, -10, 5_400_000),
            tiles=256,
        )
        for i in range(4)
    ]


@pytest.fixture
def events(caplog):
    """Return a function that runs the command line and gives (its output, the lines that were logged)."""
    caplog.set_level(logging.INFO, logger="sarzarr")

    def call(*words, code=Exit.DONE):
        caplog.clear()
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == code, result.output
        records = [r for r in caplog.records if r.name.startswith("sarzarr.")]
        assert all(r.levelno == logging.INFO for r in records)
        return result.output, [r.getMessage() for r in records]

    return call


def test_a_plan_is_logged_as_it_is_shown(events, files, tmp_path):
    (tmp_path / "text.tif").write_text("no TIFF")
    words = ("ingest", *files[:2], tmp_path / "text.tif", "-o", tmp_path / "s.zarr", "--dry-run")
    shown, lines = events(*words, code=Exit.PARTLY)
    assert shown.splitlines() == lines
    assert lines[0] == "s.zarr: 2 scenes to write, 0 already there"
    assert any("text.tif: expected a TIFF file" in line for line in lines)


def test_an_ingest_logs_its_plan_and_what_came_of_it(events, files, tmp_path):
    store = tmp_path / "s.zarr"
    shown, lines = events("ingest", *files[:1], "-o", store)
    shown_at = [shown.splitlines().index(line) for line in lines if line in shown.splitlines()]
    assert shown_at == list(range(len(shown_at))), "the plan, line by line"
    assert len(shown_at) >= 5
    assert "s.zarr: 1 scene committed: s0" in lines
    (clip,) = [
        line for line in lines if "clip of vv/sigma0 set to" in line or "clip of vv/power set to" in line
    ]
    assert re.search(r"to (\S+ to \S+ dB \(.+\))$", clip)[1] in shown
    shown, lines = events("ingest", *files[:2], "-o", store, "-q")
    assert shown == ""
    assert lines[0] == "s.zarr: 1 scene to write, 1 already there"
    assert "s.zarr: 1 scene committed: s1" in lines
    _, lines = events("ingest", *files[:2], "-o", store)
    assert lines[0] == "s.zarr: 0 scenes to write, 2 already there"
    assert not any("committed" in line for line in lines)


def test_a_library_user_sees_the_lines_of_a_cli_user(events, files, tmp_path, caplog):
    _, lines = events("ingest", *files[:2], "-o", tmp_path / "a" / "s.zarr")
    caplog.clear()
    sz.ingest(sz.plan_ingest(files[:2], tmp_path / "b" / "s.zarr"))
    assert [r.getMessage() for r in caplog.records] == lines


def test_changes_of_a_store_are_logged(events, files, tmp_path):
    pytest.importorskip("matplotlib")
    root = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr")).root
    (key,) = sz.open_store(root).bounds
    shown, lines = events("bounds", root, "--method", "fixed", "--vmin", "-20", "--vmax", "0")
    assert "-20.00 to 0.00" in shown
    assert f"s.zarr: clip of {key} set to -20.00 to 0.00 dB (fixed -20..0 dB)" in lines
    _, lines = events("copy", root, tmp_path / "t.zarr", "-q")
    assert lines[-1] == f"s.zarr copied to {tmp_path / 't.zarr'}"
    shown, lines = events("quicklook", root, "-o", tmp_path / "q.png")
    assert shown.splitlines() == lines == [f"wrote {tmp_path / 'q.png'}"]
    _, lines = events("remove", root, "s3")
    assert "s.zarr: s3 removed" in lines
    _, lines = events("info", root)
    assert not lines


def test_splits_are_logged_when_they_are_written(events, files, tmp_path):
    root = sz.ingest(sz.plan_ingest(files[:3], tmp_path / "s.zarr")).root
    options = ("--by", "scene", "--val", "0.4", "--seed", _dividing_seed(root))
    _, lines = events("split", "create", root, *options, "--dry-run")
    assert not lines
    shown, lines = events("split", "create", root, *options)
    (line,) = lines
    assert line.startswith("s.zarr: wrote <sarzarr.Split v1: 3 scenes, cells: ")
    for count in re.findall(r"\d+ (?:train|val|held back)", line):
        assert count in shown
    sz.ingest(sz.plan_ingest(files, root))
    shown, lines = events("split", "extend", root)
    assert "extends v1" in shown
    assert [line[:35] for line in lines] == ["s.zarr: wrote <sarzarr.Split v2: 4 "]
    shown, lines = events("split", "export", root, tmp_path / "v.json")
    assert shown.splitlines() == lines == [f"wrote {tmp_path / 'v.json'}"]
    _, lines = events("split", "extend", root)
    assert not lines


def _dividing_seed(root):
    from sarzarr.splits.make import plan_split

    for seed in range(50):
        try:
            plan_split(root, by="scene", val_fraction=0.4, seed=seed)
        except sz.errors.InvalidInputError:
            continue
        return seed
    raise AssertionError


def test_chips_and_boxes_are_logged(events, files, tmp_path):
    chip_folder(tmp_path / "chips", count=3)
    shown, lines = events("import", "chips", tmp_path / "chips", "-o", tmp_path / "s.zarr")
    assert "s.zarr, samples/chips: 3 chips" in shown
    assert "s.zarr, samples/chips: 3 samples committed" in lines
    sz.ingest(sz.plan_ingest(files[:1], tmp_path / "s.zarr"))
    (tmp_path / "b.csv").write_text("scene,x_min,y_min,x_max,y_max\ns0,1,2,30,40\n")
    shown, lines = events("import", "boxes", tmp_path / "b.csv", "-o", tmp_path / "s.zarr")
    assert "boxes/default: 1 box of 1 put on" in shown
    assert "s.zarr, boxes/default: 1 box put on" in lines
    manager = sz.SplitManager(tmp_path / "s.zarr")
    _, lines = events("info", tmp_path / "s.zarr")
    assert not lines
    assert "SplitManager" in repr(manager)


def test_nothing_is_shown_to_whoever_did_not_ask(files, tmp_path, capsys):
    sz.ingest(sz.plan_ingest(files[:1], tmp_path / "s.zarr"))
    assert capsys.readouterr() == ("", "")


def test_a_text_is_not_made_where_nobody_listens():
    class Loud:
        def __str__(self):
            raise AssertionError

    quiet = logging.getLogger("sarzarr.quiet")
    quiet.setLevel(logging.WARNING)
    value = Loud()
    assert logged(quiet, value) is value


# ------------------------------------------------------------------ progress, keywords, texts
def test_progress_counts_bytes_and_ends_at_all_of_them(files, tmp_path):
    reports = []
    labels = write_band(tmp_path / "labels_0.tif", np.ones((600, 600), np.uint8))  # a layer of s0
    plan = sz.plan_ingest(files[:2], tmp_path / "s.zarr", layers={"labels": labels})
    store = sz.ingest(plan, progress=reports.append)
    pixels = 600 * 600
    assert reports[-1].done == reports[-1].total == (2 * 4 + 1) * pixels
    copied = []
    sz.copy_store(store, tmp_path / "t.zarr", dtype="float32", progress=copied.append)
    assert copied[-1].done == copied[-1].total
    assert copied[-1].total % pixels == 0
    for several in (reports, copied):
        assert [r.done for r in several] == sorted(r.done for r in several)
        assert {r.total for r in several} == {several[-1].total}


def test_progress_of_chips_counts_chips(tmp_path):
    chip_folder(tmp_path / "chips", count=3)
    calls = []
    sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr", progress=lambda *count: calls.append(count))
    assert calls[-1] == (3, 3)


def test_the_keyword_is_id_where_the_option_is_id(events, files, tmp_path):
    plan = sz.plan_ingest(files[:1], tmp_path / "s.zarr", id="lake")
    assert [scene.id for scene in plan.scenes] == ["lake"]
    shown, _ = events("ingest", files[0], "-o", tmp_path / "s.zarr", "--id", "lake", "--dry-run")
    assert shown.splitlines() == str(plan).splitlines()


def test_a_repr_is_one_line(files, tmp_path):
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr"))
    grounds = grounds_of(store)
    split = SampleSplit(
        version=2, created_at="", train_samples=["a", "b"], val_samples=["c"], val_ratio=0.3, random_seed=1
    )
    assert isinstance(grounds, Grounds)
    assert repr(grounds) == "<Grounds: 4 scenes>"
    assert repr(split) == "<SampleSplit v2: 2 train, 1 val, 0 held back>"
    assert repr(sz.SplitManager(store)) == "<sarzarr.SplitManager: StoreBackend(store=" + repr(store) + ")>"
