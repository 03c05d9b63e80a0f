"""What an interrupted run leaves, who is told of it, and how it goes; and disks that are full or fail."""

import errno
import os
import shutil
import subprocess
import sys
from contextlib import suppress

import dask
import numpy as np
import pytest
from conftest import speckle, tree_hash, write_band
from disks import no_file_beyond
from rasterio.transform import from_origin
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr import tasks
from sarzarr.cli import app
from sarzarr.errors import CorruptStoreError, NoRoomError, SceneExistsError, StoreNotFoundError
from sarzarr.ingestion.waiting import waiting
from sarzarr.store.journal import beside_store, writing

KNOWN = {"quantity": "sigma0", "representation": "power", "shard": 256}
NAMES = ("a", "b", "d", "e")


@pytest.fixture
def files(tmp_path):
    """Four scenes of one group and four files each of one shard row."""
    (tmp_path / "raw").mkdir()
    for i, name in enumerate(NAMES):
        place = from_origin(500_000 + 50_000 * i, 5_400_000, 10, 10)
        write_band(tmp_path / "raw" / f"{name}_vv.tif", speckle((300, 310), seed=i), transform=place)
    return sorted((tmp_path / "raw").glob("*.tif"))


@pytest.fixture
def one_by_one(monkeypatch):
    """Let scenes come in one after another, in this thread."""
    monkeypatch.setattr(tasks, "wave_size", lambda: 1)
    monkeypatch.setattr("sarzarr.ingestion.run.wave_size", lambda: 1)
    with dask.config.set(scheduler="synchronous"):
        yield


def ingest(files, root, progress=None, **options):
    return sz.ingest(sz.plan_ingest(files, root, **KNOWN | options), progress=progress)


def interrupt_after(count):
    """Return a progress that is Ctrl-C after so many blocks."""
    seen = []

    def said(progress):
        seen.append(progress)
        if len(seen) == count:
            raise KeyboardInterrupt

    return said


def run(*words):
    done = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


# ------------------------------------------------------------------ interrupted, and told
def test_an_interrupted_ingest_is_told_and_cleaned_or_resumed(files, tmp_path, one_by_one):
    root = ingest(files[:1], tmp_path / "s.zarr").root
    with pytest.raises(KeyboardInterrupt):
        ingest(files, root, interrupt_after(2), border=2, replace=True)
    assert sz.open_store(root).scenes == ("a",)
    told = waiting(sz.open_store(root))
    assert (told.scenes, told.holder) == (4, None)
    assert told.staged in (1, 2)  # the next one's first pass may have come before
    assert told.size > 10_000
    said = run("info", root)
    assert f"{told.staged} of 4 scenes wait beside this store" in said
    assert "run the same ingest again, or `sarzarr clean s.zarr`" in said
    before = tree_hash(tmp_path)
    said = run("clean", root, "--dry-run")
    assert "s.zarr.ingest/b" in said
    assert "would be removed" in said
    assert tree_hash(tmp_path) == before
    kept = tree_hash(root)
    assert " removed" in run("clean", root)
    assert tree_hash(root) == kept
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw", "s.zarr"]
    assert waiting(sz.open_store(root)) is None
    assert "wait" not in run("info", root)
    assert run("clean", root) == "s.zarr: 0 leftovers, 0 B removed\n"


def test_clean_takes_what_killed_runs_left_and_nothing_that_a_living_one_writes(files, tmp_path):
    root = ingest(files[:1], tmp_path / "s.zarr").root
    kept = tree_hash(root)
    for place in (
        root / ".catalog.0123.partial" / "zarr.json",
        root / "scenes" / "a" / "vv" / "c" / "0" / ".0.0123.partial",
        tmp_path / ".s.zarr.0123.partial" / "catalog" / "zarr.json",
        tmp_path / "s.zarr.samples-chips" / "arrays" / "c",
        tmp_path / ".other.zarr.0123.partial" / "zarr.json",
    ):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bytes(7))
    with writing(root):
        (beside_store(root) / "b").mkdir()
        left = sz.clean(root)
        assert (beside_store(root) / "b").is_dir()
    assert [size for _, size in left.removed] == [7]
    assert len(left.kept) == 1
    assert f"process {os.getpid()} on" in left.kept[0]
    assert not (tmp_path / "s.zarr.samples-chips").exists()
    done = sz.clean(root)
    assert sorted(size for _, size in done.removed) == [0, 7, 7]
    assert tree_hash(root) == kept
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.zarr.0123.partial", "raw", "s.zarr"]
    with pytest.raises(StoreNotFoundError, match="nothere"):
        sz.clean(tmp_path / "nothere")


def test_no_store_says_on_which_machine_it_was_made(files, tmp_path):
    root = ingest(files, tmp_path / "s.zarr").root
    assert not [p for p in root.rglob("*") if p.is_file() and b'"machine"' in p.read_bytes()]
    assert not list(root.rglob(".lock"))


# ------------------------------------------------------------------ when scenes become visible
def test_scenes_of_a_known_group_enter_at_once_and_those_of_a_new_one_together(files, tmp_path, one_by_one):
    root, seen = tmp_path / "s.zarr", []

    def look(progress):
        store = sz.open_store(root)
        patches = store.patches()["scene"].values.tolist() if store.patch_indices else []
        assert set(patches) == set(store.scenes)
        seen.append("".join(store.scenes))

    ingest(files[:2], root, look)
    assert seen == ["", ""]
    whole = ingest(files, tmp_path / "w.zarr").root
    clips = sz.open_store(root).bounds
    ingest(files, root, look)
    assert seen[2:] == ["ab", "abd"]
    assert sz.open_store(root).scenes == NAMES
    assert sz.open_store(root).bounds == clips
    assert tree_hash(root / "scenes" / "e" / "vv" / "c") == tree_hash(whole / "scenes" / "e" / "vv" / "c")


# ------------------------------------------------------------------ switched off
def test_after_the_machine_was_switched_off_only_what_was_flushed_is_taken_up(files, tmp_path, one_by_one):
    """A receipt does not say that the disk has its files; that of a whole scene is flushed."""
    root = tmp_path / "s.zarr"
    with pytest.raises(KeyboardInterrupt):
        ingest(files, root, interrupt_after(3))
    beside = beside_store(root)
    flushed = {p.parent.name for p in beside.glob("*/flushed")}
    begun = {p.parent.name for p in beside.glob("*/receipts") if any(p.iterdir())}
    assert flushed
    assert begun - flushed
    for boot in beside.glob("*/boot"):
        boot.write_text("before")
    kept = []
    with pytest.raises(KeyboardInterrupt):
        ingest(files, root, lambda progress: kept.append(progress.scene) or interrupt_after(1)(progress))
    assert set(kept) <= flushed
    assert tree_hash(ingest(files, root).root) == tree_hash(ingest(files, tmp_path / "t" / "s.zarr").root)


# ------------------------------------------------------------------ full and failing disks
def test_a_plan_is_held_against_the_free_space(files, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=50_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    wanted = r"expected .*MB of free space for what s.zarr may take at the most, got 50.*kB.*--ignore-space"
    with pytest.raises(NoRoomError, match=wanted):
        ingest(files, tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr" / "scenes" / "a").exists()
    assert not beside_store(tmp_path / "s.zarr").exists()
    assert ingest(files, tmp_path / "s.zarr", ignore_space=True).scenes == NAMES


def test_a_file_that_finds_no_room_is_named_and_what_is_done_stays(files, tmp_path, one_by_one):
    root = tmp_path / "s.zarr"
    ingest(files[:1], root)
    kept = tree_hash(root)
    with no_file_beyond(60_000), pytest.raises(NoRoomError) as raised:
        ingest(files, root)
    said = str(raised.value)
    assert "s.zarr.ingest/b/scene/vv/c/0/0" in said
    assert "File too large" in said
    assert "What is done stays: make room (`sarzarr clean s.zarr`" in said
    assert "then run the same command again" in said
    assert tree_hash(root) == kept
    assert not list(tmp_path.rglob("*.partial"))
    again = ingest(files, root).root
    ingest(files[:1], tmp_path / "t" / "s.zarr")
    assert tree_hash(again) == tree_hash(ingest(files, tmp_path / "t" / "s.zarr").root)


COMMANDS = {
    "bounds": lambda root: sz.set_clip(sz.open_store(root), method="sigma"),
    "index": lambda root: sz.index_patches(root, size=64, stride=64, name="small"),
    "split": lambda root: sz.make_split(root, val_fraction=0.5, by="scene", seed=43),
    "remove": lambda root: sz.remove_scene(root, "a"),
    "copy": lambda root: sz.copy_store(root, root.with_name("n.zarr")),
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("at", [1, 3])
def test_a_disk_that_fails_changes_nothing(files, tmp_path, name, at, monkeypatch):
    root, calls, fsync = ingest(files[:2], tmp_path / "s.zarr").root, [], os.fsync
    kept = tree_hash(tmp_path)

    def failing(handle):
        calls.append(handle)
        if len(calls) == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(NoRoomError, match=r"Input/output error.*run the same command again"):
            COMMANDS[name](root)
    assert len(calls) == at
    assert tree_hash(tmp_path) == kept
    COMMANDS[name](root)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name not in ("raw", "n.zarr")) == ["s.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")], ids=["Ctrl-C", "EIO"]
)
def test_what_is_raised_in_the_middle_of_a_change_leaves_the_old_or_the_new(
    files, tmp_path, error, monkeypatch
):
    """At each flush and removal of it, however far it has come: whoever opens the store next sees no mixture."""
    before, after = ingest(files[:2], tmp_path / "b" / "s.zarr").root, tmp_path / "a" / "s.zarr"
    shutil.copytree(before, after)
    COMMANDS["bounds"](after)
    states, seen, real = {tree_hash(before): "old", tree_hash(after): "new"}, [], (os.fsync, os.unlink)

    def failing_at(number, function):
        def call(*args, **kwargs):
            calls.append(function)
            if len(calls) == number:
                raise error
            return function(*args, **kwargs)

        return call

    for number in range(1, 1000, 3):
        calls, root = [], tmp_path / f"{number}" / "s.zarr"
        shutil.copytree(before, root)
        with monkeypatch.context() as patch:
            for function in real:
                patch.setattr(os, function.__name__, failing_at(number, function))
            with suppress(KeyboardInterrupt, NoRoomError):
                COMMANDS["bounds"](root)
        if len(calls) < number:
            break
        sz.open_store(root)
        seen.append(states.get(tree_hash(root), "a mixture"))
        COMMANDS["bounds"](root)
        assert tree_hash(root) == tree_hash(after)
        assert sorted(p.name for p in root.parent.iterdir()) == ["s.zarr"]
        shutil.rmtree(root.parent)
    assert len(seen) > 8
    assert sorted(seen, reverse=True) == seen
    assert set(seen) == {"old", "new"}


@pytest.mark.slow
def test_a_small_disk_that_fills_up_and_is_made_larger(files, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        command = [
            sys.executable,
            "-m",
            "sarzarr",
            "ingest",
            *files,
            "-o",
            disk / "s.zarr",
            "--ignore-space",
            "-q",
        ]
        command += ["--shard", "256", "--quantity", "sigma0", "--representation", "power"]
        full = subprocess.run(command, capture_output=True, text=True, check=False)
        assert full.returncode == 1
        assert "No space left on device" in full.stderr
        assert "run the same command again" in full.stderr
        assert not list((disk / "s.zarr" / "scenes").glob("*/vv"))
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        subprocess.run(command, check=True)
        assert tree_hash(disk / "s.zarr") == tree_hash(ingest(files, tmp_path / "s.zarr").root)
    finally:
        subprocess.run(["umount", disk], check=True)


# ------------------------------------------------------------------ given again after damage
def test_files_of_a_damaged_scene_that_are_given_again_make_it_whole(files, tmp_path):
    root = ingest(files[:2], tmp_path / "s.zarr").root
    catalog, pixels = sz.open_store(root).catalog, tree_hash(root / "scenes")
    kept, shard = tree_hash(root), root / "scenes" / "a" / "vv" / "c" / "0" / "0"
    for damage in (
        shard.unlink,
        lambda: os.truncate(shard, 100),
        lambda: (root / "scenes" / "a" / "vv_flags" / "manifest.json").unlink(),
        lambda: shutil.rmtree(root / "scenes" / "a" / "vv" / "c"),
    ):
        damage()
        plan = sz.plan_ingest(files[:2], root, **KNOWN)
        assert plan.present == ("b",)
        assert "'a' is damaged, and written anew" in str(plan)
        assert tree_hash(sz.ingest(plan).root) == kept
    shutil.rmtree(root / "scenes" / "a" / "vv")
    with pytest.raises(CorruptStoreError, match=r"Take the scene out .*, and ingest it again"):
        ingest(files[:2], root)
    sz.remove_scene(root, "a")
    came_last = ingest(files[:2], root)
    assert tree_hash(root / "scenes") == pixels  # rows of tables are in the order of arrival
    assert came_last.catalog.identical(catalog)


def test_a_damaged_scene_does_not_lose_its_layers_in_silence(files, tmp_path):
    mask = write_band(tmp_path / "mask.tif", np.ones((300, 310), np.uint8))
    layers = {"mask": mask}
    root = ingest(files[:1], tmp_path / "s.zarr", layers=layers).root
    kept = tree_hash(root)
    (root / "scenes" / "a" / "vv" / "c" / "0" / "0").unlink()
    with pytest.raises(SceneExistsError, match=r"damage .*give its layers mask in the same command"):
        ingest(files[:1], root)
    assert tree_hash(ingest(files[:1], root, layers=layers).root) == kept
    (root / "scenes" / "a" / "vv" / "c" / "0" / "0").unlink()
    assert ingest(files[:1], root, replace=True).layers("a") == ()
