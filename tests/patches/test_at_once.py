"""Several processes that index one store at once: none takes away what another has measured."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import speckle, tree_hash, trials, write_band

import sarzarr as sz
from sarzarr.patches.cut import IndexSpec
from sarzarr.patches.index import ensure_index

KNOWN = {"quantity": "sigma0", "representation": "power"}


@pytest.fixture
def files(tmp_path):
    return [write_band(tmp_path / f"{n}_vv.tif", speckle((700, 900), seed=i)) for i, n in enumerate("abd")]


def scenes_of(store, name):
    return set(store.anew().patches(name)["scene"].values.tolist())


def test_an_index_is_made_of_what_the_store_holds_now_not_when_it_was_opened(files, tmp_path):
    early = sz.ingest(sz.plan_ingest(files[0], tmp_path / "s.zarr", **KNOWN))
    early.anew()
    assert early.scenes == ("a",)
    late = sz.ingest(sz.plan_ingest(files[1], early.root, **KNOWN))
    sz.index_patches(late, size=128, name="small")
    sz.index_patches(late, size=100, name="other")
    before = tree_hash(early.root)
    ensure_index(early, IndexSpec())
    ensure_index(early, IndexSpec(name="small", size=128, stride=256))
    ensure_index(early, IndexSpec(name="other", size=100, stride=256))
    assert tree_hash(early.root) == before
    assert {*map(frozenset, (scenes_of(late, name) for name in ("default", "small", "other")))} == {
        frozenset(("a", "b"))
    }


TOGETHER = """
import sys, time
from pathlib import Path
import sarzarr as sz
verb, root, file, at = sys.argv[1:]
def go():
    if verb == "ingest":
        sz.ingest(sz.plan_ingest(file, root, quantity="sigma0", representation="power"))
    elif verb == "read":
        assert len(sz.PatchReader(root, patch_size=90, min_unsaturated=0).selection)
    else:
        sz.index_patches(root, size=int(verb), name=f"of_{verb}")
store = sz.open_store(root)
store.catalog, store.bounds
print("ready", flush=True)
sys.stdin.read(1)
go()
"""


@pytest.mark.slow
def test_processes_that_index_and_append_at_once_leave_every_index_whole(files, tmp_path):
    store = sz.ingest(sz.plan_ingest(files[:2], tmp_path / "s.zarr", **KNOWN))
    for _ in range(trials(2)):
        verbs = ("ingest", "64", "100", "128", "128", "read", "read")
        command = [sys.executable, "-c", TOGETHER]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        at_once = [
            subprocess.Popen([*command, v, str(store.root), str(files[2]), ""], **pipes) for v in verbs
        ]
        for one in at_once:
            assert one.stdout.readline() == "ready\n"
        for one in at_once:
            one.stdin.write("!")
            one.stdin.flush()
        for one in at_once:
            _, said = one.communicate(timeout=200)
            assert one.returncode == 0, said
        store = store.anew()
        assert set(store.patch_indices) == {"default", "of_64", "of_100", "of_128", "90-90-drop"}
        assert store.scenes == ("a", "b", "d")
        for name in store.patch_indices:
            assert scenes_of(store, name) == {"a", "b", "d"}, name
            ids = store.patches(name)["id"].values
            assert len(np.unique(ids)) == len(ids)
        store = sz.remove_scene(store, "d")
        for name in ("of_64", "of_100", "of_128", "90-90-drop"):
            assert scenes_of(store, name) == {"a", "b"}
            store.place.delete(f"patches/{name}")
