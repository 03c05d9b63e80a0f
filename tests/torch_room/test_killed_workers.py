"""DataLoader workers that are killed: an error that says so, nobody waits, and the next epoch is whole."""

import subprocess
import sys

import pytest

pytest.importorskip("torch")
from conftest import tree_hash
from loader_stores import make_store

BEGIN = """
import os, signal, sys, time
import torch
from torch.utils.data import DataLoader
import sarzarr as sz
from sarzarr.torch import LazyPatchDataset, ZarrPatchDataset

OPTIONS = {"polarizations": "vv", "batch_size": 3, "shuffle": True, "seed": 4, "min_unsaturated": 0}
root, victim, persistent = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "persistent"

def epoch_of(batches):
    return sorted(hash(patch.numpy().tobytes()) for batch in batches for patch in batch)

def said_of(call):
    # torch raises it wherever this process is when it sees that the worker ended
    try:
        try:
            call()
        except (ConnectionError, EOFError):  # a batch was on its way
            pass
        time.sleep(60)
    except RuntimeError as error:
        assert "DataLoader worker" in str(error), error
        return
    raise AssertionError("nothing was said of a killed worker")

expected = epoch_of(map(torch.from_numpy, sz.PatchReader(root, **OPTIONS)))
dataset = ZarrPatchDataset(root, **OPTIONS)
options = {"batch_size": None, "num_workers": 2, "persistent_workers": persistent, "prefetch_factor": 1}
"""
AMID = """
loader = DataLoader(dataset, **options)
batches = iter(loader)
next(batches)

def kill():
    os.kill(batches._workers[victim].pid, signal.SIGKILL)
    list(batches)

said_of(kill)
del batches, loader
for _ in range(2):
    assert epoch_of(DataLoader(dataset, **options)) == expected
"""
AT_FIRST = """
def kill_one(worker):  # the others wait for the first to say which epoch begins
    if worker == victim:
        os.kill(os.getpid(), signal.SIGKILL)

said_of(lambda: list(DataLoader(dataset, worker_init_fn=kill_one, **options)))
assert epoch_of(DataLoader(dataset, **options)) == expected
"""
MAP_STYLE = """
items = LazyPatchDataset(root, augment=False, polarizations="vv", min_unsaturated=0)
loader = DataLoader(items, batch_size=2, num_workers=2, prefetch_factor=1)
batches = iter(loader)
next(batches)

def kill():
    os.kill(batches._workers[victim].pid, signal.SIGKILL)
    list(batches)

said_of(kill)
del batches
assert epoch_of(loader) == expected
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("killed"))


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("workers", ["anew", pytest.param("persistent", marks=pytest.mark.slow)])
def test_a_killed_worker_is_said_and_the_next_loader_is_whole(workers, victim, store):
    """Amid an epoch, at first, and map-style; one after the other in a process that is fresh."""
    before = tree_hash(store.root)
    command = [
        sys.executable,
        "-c",
        BEGIN + AMID + AT_FIRST + MAP_STYLE,
        str(store.root),
        str(victim),
        workers,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert tree_hash(store.root) == before
