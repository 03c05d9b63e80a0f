"""One lock, which one holds at a time, whatever the system locks with; and what locks and swaps leave behind."""

import errno
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import ModuleType

import pytest
from chip_folders import chip_folder

from sarzarr.files import (
    LOCK,
    SILENCE,
    Holder,
    beside,
    holder_of,
    locked,
    mark_new,
    move_in,
    remove_tree,
    swap_in,
    swap_out,
    whole_folder,
)


def hide_fcntl():
    """Lock as on Windows: without ``fcntl``, and with a ``msvcrt`` that locks a byte of a file, and does not wait."""
    import fcntl

    def locking(handle, mode, nbytes):
        assert (mode, nbytes) == (msvcrt.LK_NBLCK, 1)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "locked") from None

    msvcrt = ModuleType("msvcrt")
    msvcrt.LK_NBLCK, msvcrt.locking = 2, locking
    sys.modules |= {"fcntl": None, "msvcrt": msvcrt}


def hide_both():
    """Lock without any lock of the system's."""
    sys.modules |= {"fcntl": None, "msvcrt": None}


def grant_all():
    """Lock as on a network file system that grants every lock: two hold it."""
    _lie(lambda handle, mode: None)


def grant_none():
    """Lock as on a network file system that has no locks."""

    def flock(handle, mode):
        raise OSError(errno.ENOLCK, "No locks available")

    _lie(flock)


def _lie(flock):
    fcntl = ModuleType("fcntl")
    fcntl.flock, fcntl.LOCK_EX, fcntl.LOCK_NB = flock, 2, 4
    sys.modules["fcntl"] = fcntl


LOCKS = {"fcntl": int, "msvcrt": hide_fcntl, "neither": hide_both, "all": grant_all, "none": grant_none}


@pytest.fixture(params=LOCKS.values(), ids=LOCKS)
def prepare(request, monkeypatch):
    """Return what another process does first, to lock as this one does."""
    for name in ("fcntl", "msvcrt"):
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name))
    import fcntl  # noqa: F401

    request.param()
    return request.param


def count_up(prepare, folder, counter, times):
    prepare()
    for _ in range(times):
        with locked(folder):
            before = int(counter.read_text())
            time.sleep(0.0005)
            counter.write_text(str(before + 1))


def hold(prepare, folder, pipe):
    prepare()
    with locked(folder):
        pipe.send("held")
        time.sleep(60)


def test_processes_that_wait_for_a_lock_lose_nothing(tmp_path, prepare):
    """The folder comes and goes with its lock: nobody holds the lock of one that was taken away."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("spawn")
    several = [
        context.Process(target=count_up, args=(prepare, tmp_path / "a", counter, 30)) for _ in range(3)
    ]
    for process in several:
        process.start()
    for process in several:
        process.join()
    assert counter.read_text() == "90"
    assert [p.name for p in tmp_path.iterdir()] == ["counter"]


def test_another_that_holds_it_is_told_and_a_killed_one_holds_nothing(tmp_path, prepare):
    folder = tmp_path / "a"
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    other = context.Process(target=hold, args=(prepare, folder, there))
    other.start()
    assert here.recv() == "held"
    with pytest.raises(KeyError, match=f"process {other.pid} on .* since 20"), locked(folder, busy=KeyError):
        pass
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    assert [p.name for p in folder.iterdir()] == [".lock"]
    with locked(folder, busy=KeyError), pytest.raises(KeyError), locked(folder, busy=KeyError):
        pass
    assert not folder.exists()


def test_who_holds_it_elsewhere_lives_until_it_shows_no_life(tmp_path, prepare):
    folder, own = tmp_path / "a", platform.node()
    folder.mkdir()
    told = {"process": 7, "machine": own + "-other", "since": "2026-11-29T12:00:00Z", "began": ""}
    lock = folder / LOCK
    lock.write_bytes(b"\0" + json.dumps(told).encode())
    text = f"process 7 on {own}-other since 2026-11-29T12:00:00Z .if it is dead, delete .*{LOCK}"
    with pytest.raises(KeyError, match=text), locked(folder, busy=KeyError):
        pass
    os.utime(lock, (0, time.time() - SILENCE - 1))
    with locked(folder, busy=KeyError) as held:
        assert held.left_by == Holder(**told)
        assert holder_of(folder).process == os.getpid()
        os.utime(lock, (0, 0))
        held.show_life()
        assert time.time() - lock.stat().st_mtime < SILENCE
    assert not folder.exists()


def test_a_lock_that_names_nobody_was_left_by_nobody_that_lives(tmp_path, prepare):
    """An older release left such ones."""
    lock = tmp_path / LOCK
    lock.touch()
    with pytest.raises(KeyError, match="another process"), locked(tmp_path, busy=KeyError):
        pass
    os.utime(lock, (0, 0))
    with locked(tmp_path, busy=KeyError) as held:
        assert held.left_by is not None


def test_a_later_process_of_the_same_number_is_another(tmp_path):
    with locked(tmp_path):
        own = holder_of(tmp_path)
    if not own.began:
        pytest.skip("this system does not say when a process began")
    assert not own.is_dead
    assert replace(own, began="another boot 1").is_dead
    assert not replace(own, began="another boot 1", machine="another").is_dead


def test_a_lock_leaves_a_folder_as_it_was(tmp_path, prepare):
    (tmp_path / "mine").touch()
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


# ------------------------------------------------------------------ folders
def filled(folder, text):
    folder.mkdir()
    (folder / "file").write_text(text)
    return folder


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path, exchanges, monkeypatch):
    if not exchanges:
        monkeypatch.setattr(sys, "platform", "another")
    for text in ("one", "two"):
        swap_in(filled(tmp_path / "new", text), tmp_path / "deep" / "place")
        assert [p.name for p in tmp_path.iterdir()] == ["deep"]
        assert [p.name for p in (tmp_path / "deep").iterdir()] == ["place"]
        assert (tmp_path / "deep" / "place" / "file").read_text() == text
    swap_out(tmp_path / "deep" / "place")
    assert not list((tmp_path / "deep").iterdir())


@pytest.mark.parametrize("there", ["a file", "a folder"])
def test_what_is_made_once_takes_no_place_of_another(tmp_path, there):
    place = tmp_path / "place"
    place.write_text("mine") if there == "a file" else filled(place, "mine")
    with pytest.raises(FileExistsError), whole_folder(place, once=True) as new:
        (new / "file").write_text("other")
    assert [p.name for p in tmp_path.iterdir()] == ["place"]
    assert (place if there == "a file" else place / "file").read_text() == "mine"


@pytest.mark.parametrize("once", [True, False])
def test_what_is_raised_on_the_way_leaves_what_was_there(tmp_path, once):
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "place", once=once) as new:
        filled(new / "half", str(1 / (tmp_path / "place").exists()))
    assert not list(tmp_path.iterdir())


def test_names_beside_are_hidden_and_differ(tmp_path):
    names = {beside(tmp_path / "a").name for _ in range(9)}
    assert len(names) == 9
    assert all(name.startswith(".a.") and name.endswith(".partial") for name in names)


def test_a_folder_that_is_not_there_is_removed_already(tmp_path):
    remove_tree(tmp_path / "nowhere")


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("times", [1, 3])
def test_what_moves_in_again_after_a_kill_moves_in_once(tmp_path, exchanges, times, monkeypatch):
    if not exchanges:
        monkeypatch.setattr(sys, "platform", "another")
    place = tmp_path / "place"
    for text in ("one", "two"):
        new = filled(tmp_path / f"new {text}", text)
        mark_new(new)
        for _ in range(times):
            move_in(new, place)
            assert [(p.name, p.read_text()) for p in place.iterdir()] == [("file", text)]
    new = tmp_path / "document"
    new.write_text("three")
    for _ in range(times):
        move_in(new, tmp_path / "deep" / "document")
    assert (tmp_path / "deep" / "document").read_text() == "three"


WITHOUT_FCNTL = """
import sys
sys.modules["fcntl"] = None
from pathlib import Path
import sarzarr as sz
from sarzarr.ingestion.chips.find import ChipOptions
place = Path(sys.argv[1])
files = sz.write_synthetic_scenes(place / "raw", count=1, shape=(300, 300))
store = sz.ingest(sz.plan_ingest(files, place / "s.zarr"))
assert sz.verify(sz.remove_scene(store, store.scenes[0]).root)
sz.import_chips(place / "chips", place / "s.zarr", options=ChipOptions(name="ships"))
for signal, root in (("beep", place), ("ships", place / "s.zarr")):
    manager = sz.SplitManager(root)
    assert manager.create_initial_split(signal) == 1
    assert len(manager.get_split(signal)[0]) > len(manager.get_split(signal)[1]) > 0
assert not list(place.rglob(".lock"))
"""


def test_an_ingest_an_import_and_a_split_work_without_fcntl(tmp_path):
    chip_folder(tmp_path / "chips", 5)
    samples = tmp_path / "signals" / "beep" / "samples"
    samples.mkdir(parents=True)
    for i in range(5):
        (samples / f"{i}.npz").write_bytes(b"")
        (samples / f"{i}.json").write_text('{"boxes": []}')
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FCNTL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
