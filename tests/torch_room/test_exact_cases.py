"""Single cases of exact epochs: looks, seeds of torch, set_epoch after a state, ranks by hand, `reader[i]`."""

import copy
import logging
import os
import pickle
import subprocess
import sys
import time
from itertools import chain, islice

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from loader_stores import SMALL, small_store  # noqa: E402
from scans import lattice  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

import sarzarr as sz  # noqa: E402
from sarzarr.errors import InvalidInputError  # noqa: E402
from sarzarr.ptychography import PtychoConfig  # noqa: E402
from sarzarr.torch import PatchLoader, ZarrPatchDataset  # noqa: E402
from sarzarr.torch.epochs import board  # noqa: E402
from sarzarr.torch.epochs.group import Group  # noqa: E402


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("cases"))


@pytest.fixture(scope="module")
def truth(store):
    reader = sz.PatchReader(store, **SMALL, batch_size=2)
    return [ids(reader) for _ in range(4)]


def ids(batches):
    return [batch["id"].tolist() for batch in batches]


def made(store, kind=ZarrPatchDataset, **options):
    return kind(store, **SMALL, **{"batch_size": 2, **options})


# ------------------------------------------------------------------ where the next iteration begins
@pytest.mark.parametrize("kind", [sz.PatchReader, ZarrPatchDataset])
def test_a_look_moves_nobody(store, truth, kind):
    data = made(store, kind)
    for _ in range(2):
        assert next(iter(data))["id"].tolist() == truth[0][0]
    assert ids(islice(data, 1)) == truth[0][:1]
    assert data.epoch == 0
    assert ids(data) == truth[0]
    assert ids(islice(data, 2)) == truth[1][:2]
    assert ids(data) == truth[2]


@pytest.mark.parametrize("kind", [sz.PatchReader, ZarrPatchDataset, PatchLoader])
def test_a_state_saved_after_a_look_has_lost_nothing(store, truth, kind):
    def fresh():
        return PatchLoader(made(store)) if kind is PatchLoader else made(store, kind)

    data, again = fresh(), fresh()
    next(iter(data))
    again.load_state_dict(data.state_dict())
    assert ids(again) == truth[0]
    batches = iter(data)
    next(batches)  # and of a loop in its course it is a batch
    again.load_state_dict(data.state_dict())
    again.set_epoch(0)
    assert ids(again) == truth[0][1:]
    del batches
    again.load_state_dict(data.state_dict())
    again.set_epoch(0)
    assert ids(again) == truth[0]


def test_an_epoch_of_one_batch_moves_on_when_it_is_asked_again(store):
    data = made(store, sz.PatchReader, batch_size=12)
    assert [len(batch["id"]) for batch in islice(data, 1)] == [12]
    assert data.epoch == 0
    assert len(ids(data)) == 1
    assert data.epoch == 1


def test_a_look_that_goes_on_after_another_iteration_is_refused(store, truth):
    data = made(store)
    look = iter(data)
    next(look)
    assert ids(data) == truth[0]
    with pytest.raises(InvalidInputError, match="one iteration at a time"):
        next(look)
    with pytest.raises(InvalidInputError, match="one iteration at a time"):
        list(zip(data, data, strict=True))


def test_peek_moves_nobody_with_workers(store, truth):
    data = made(store)
    loader = DataLoader(data, batch_size=None, num_workers=1)
    assert data.peek()["id"].tolist() == truth[0][0]
    assert ids(loader) == truth[0]
    assert data.peek()["id"].tolist() == truth[1][0]
    assert ids(loader) == truth[1]


def test_seeding_torch_before_each_epoch_repeats_none(store, truth):
    """Workers that are made anew with one base seed are told apart all the same."""
    data = made(store)
    for epoch in range(3):
        torch.manual_seed(0)
        assert (
            ids(DataLoader(data, batch_size=None, num_workers=2, worker_init_fn=first_is_late))
            == truth[epoch]
        )


def first_is_late(worker):
    time.sleep(0.3 if worker == 0 else 0)


def test_a_dataset_that_workers_copy_counts_in_each(store, truth):
    loader = DataLoader(made(store), batch_size=None, num_workers=2, worker_init_fn=copies_its_dataset)
    assert ids(loader) == truth[0]


def copies_its_dataset(worker):
    info = torch.utils.data.get_worker_info()
    info.dataset._counter = copy.deepcopy(info.dataset._counter)


@pytest.mark.parametrize("kind", [sz.PatchReader, ZarrPatchDataset])
def test_set_epoch_keeps_a_loaded_position_of_that_epoch_and_says_what_it_drops(store, truth, kind, caplog):
    first = made(store, kind)
    assert ids(islice(first, 2)) == truth[0][:2]
    state = first.state_dict()
    again = made(store, kind)
    again.load_state_dict(state)
    again.set_epoch(0)
    assert ids(again) == truth[0][2:]
    again.load_state_dict(state)
    with caplog.at_level(logging.WARNING):
        again.set_epoch(2)
    assert "epoch 0 from patch 4 on, is dropped: set_epoch(2)" in caplog.text
    assert ids(again) == truth[2]


def test_a_set_epoch_amid_a_look_is_where_the_next_begins(store, truth):
    data = made(store)
    batches = iter(data)
    next(batches)
    data.set_epoch(3)
    assert ids(batches) == truth[0][1:]
    assert ids(data) == truth[3]


SPAWNS_FIRST = """
import sys
from torch.utils.data import DataLoader
from sarzarr.torch import ZarrPatchDataset

if __name__ == "__main__":
    made = ZarrPatchDataset(sys.argv[1], patch_size=32, min_unsaturated=0)
    loader = DataLoader(made, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert [sum(map(len, loader)) for _ in range(2)] == [12, 12]
    assert made.epoch == 2
"""


@pytest.mark.slow
def test_workers_may_be_spawned_before_anything_else(tmp_path, store):
    """Shared memory that is first made while a process is pickled is refused by Python."""
    (tmp_path / "train.py").write_text(SPAWNS_FIRST)
    command = [sys.executable, str(tmp_path / "train.py"), str(store.root)]
    assert subprocess.run(command, check=False, timeout=200).returncode == 0


# ------------------------------------------------------------------ ranks
def test_ranks_that_are_given_share_an_epoch(store, truth):
    ranks = [made(store, rank=rank, ranks=2) for rank in range(2)]
    readers = [made(store, sz.PatchReader).for_rank(rank, 2) for rank in range(2)]
    for epoch in range(2):
        came = [ids(data) for data in ranks]
        assert came == [ids(reader) for reader in readers]
        assert [len(data) for data in (*ranks, *readers)] == [3] * 4
        assert sorted(chain(*chain(*came))) == sorted(chain(*truth[epoch]))
    assert ids(made(store, ranks=1)) == truth[0]
    for wrong in ({"rank": 0}, {"ranks": 2}, {"rank": 2, "ranks": 2}, {"rank": -1, "ranks": 2}):
        with pytest.raises(InvalidInputError, match="rank and ranks"):
            made(store, **wrong)
    with pytest.raises(InvalidInputError, match="below their numbers"):
        readers[0].for_rank(2, 2)


class GroupOfTests(Group):
    """A group whose store is at hand."""

    def connect(self):
        return self.store


def grouped(store, shared, rank, ranks=2, **options):
    data = made(store, **options)
    data._group = GroupOfTests(rank=rank, ranks=ranks, id="g", pid=os.getpid())
    vars(data._group)["store"] = shared
    return data


@pytest.mark.parametrize("other", [{"seed": 8}, {"batch_size": 3}, {"shuffle": "window"}, "epoch", "state"])
def test_ranks_that_disagree_are_both_named(store, other):
    shared = torch.distributed.HashStore()
    first = grouped(store, shared, 0)
    list(islice(first, 2))
    second = ZarrPatchDataset(
        store, **{**SMALL, "batch_size": 2, **(other if isinstance(other, dict) else {})}
    )
    second._group = copy.copy(first._group)
    vars(second._group).update(rank=1, store=shared)
    if other == "epoch":
        second.set_epoch(3)
    if other == "state":
        second.load_state_dict(first.state_dict())
    batches = iter(second)
    next(batches)
    with pytest.raises(
        InvalidInputError, match=r"got rank 1 at epoch .* and rank 0 at epoch 0 from patch 0 on"
    ):
        next(batches)
    with pytest.raises(InvalidInputError, match="got rank 1 at epoch"):  # the other one is told, too
        list(first)


def test_a_rank_that_reads_alone_is_told_who_is_missing(store, monkeypatch, caplog):
    monkeypatch.setattr(board, "PATIENCE_S", 0.05)
    alone = grouped(store, torch.distributed.HashStore(), 0, ranks=3)
    next(iter(alone))
    with pytest.raises(InvalidInputError, match=r"got nothing of rank 1, 2 for .*ranks=1"):
        list(alone)
    assert "nothing of rank 1, 2" in caplog.text


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    np.savez(folder / "lattice.npz", **lattice())
    return sz.import_ptychography(folder / "lattice.npz", folder / "scans.zarr").store


@pytest.mark.parametrize("kind", ["weights", "samples", "groups"])
def test_every_dataset_follows_the_law(store, scans, kind):
    options = {"seed": 5, "batch_size": 4, "shuffle": True}
    if kind == "weights":
        options = {**SMALL, **options, "weights": {"a": 2.0}, "with_meta": False}
    else:
        config = PtychoConfig(64, 2, n_groups=12, neighbor_count=6)
        store, options = (
            scans,
            {**options, **({"samples": "lattice"} if kind == "samples" else {"groups": config})},
        )
    alone = ZarrPatchDataset(store, **options)
    truth = [sorted(image.numpy().tobytes() for batch in alone for image in batch) for _ in range(2)]
    shared, ranks = torch.distributed.HashStore(), []
    for rank in range(2):
        ranks.append(ZarrPatchDataset(store, **options))
        ranks[-1]._group = GroupOfTests(rank=rank, ranks=2, id="g", pid=os.getpid())
        vars(ranks[-1]._group)["store"] = shared
    next(iter(ranks[0]))
    for epoch in truth:
        came = [
            image.numpy().tobytes() for pair in zip(*ranks, strict=True) for batch in pair for image in batch
        ]
        assert sorted(came) == epoch
    ranks[0].set_epoch(0)
    with pytest.raises(InvalidInputError, match=r"got rank 1 at epoch 2 .* and rank 0 at epoch 0"):
        list(zip(*ranks, strict=True))


# ------------------------------------------------------------------ batches by number
@settings(max_examples=20, deadline=None)
@given(
    batch_size=st.integers(1, 13), ranks=st.integers(1, 3), taken=st.integers(0, 6), epoch=st.integers(0, 2),
    more=st.sampled_from([
        {}, {"weights": "polarization"}, {"shuffle": "window"}, {"augment": ("d4", sz.Speckle(looks=4))},
    ]),
)  # fmt: skip
def test_a_batch_by_number_is_that_of_the_list(store, batch_size, ranks, taken, epoch, more):
    reader = sz.PatchReader(store, **{**SMALL, "batch_size": batch_size, **more}).for_rank(ranks - 1, ranks)
    reader.set_epoch(epoch)
    list(islice(reader, taken))
    reader.load_state_dict(pickle.loads(pickle.dumps(reader.state_dict())))
    numbered = []
    while True:
        try:
            numbered.append(reader[len(numbered)])
        except IndexError:
            break
    backwards = [reader[-i] for i in range(1, len(numbered) + 1)]
    listed = list(reader)
    assert len(listed) == len(numbered)
    for a, b, c in zip(listed, numbered, reversed(backwards), strict=True):
        for key in ("image", "id", "turn"):
            np.testing.assert_array_equal(a[key], b[key])
            np.testing.assert_array_equal(a[key], c[key])
    with pytest.raises(IndexError, match="Ask for one of them"):
        reader[-len(reader) - 1]
    with pytest.raises(TypeError):
        reader["0"]
