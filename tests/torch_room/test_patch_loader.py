"""The loader that frameworks leave as it is."""

import pytest

torch = pytest.importorskip("torch")
from loader_stores import make_store, numbered  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

import sarzarr as sz  # noqa: E402
from sarzarr.errors import InvalidInputError  # noqa: E402
from sarzarr.torch import LazyPatchDataset, PatchLoader, ZarrPatchDataset  # noqa: E402

VV = {"polarizations": "vv", "batch_size": 3, "shuffle": True, "seed": 4}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("loader"))


@pytest.fixture(scope="module")
def numbers(store):
    return numbered(sz.PatchReader(store, polarizations="vv"))


@pytest.fixture(scope="module")
def truth(store, numbers):
    reader = sz.PatchReader(store, **VV)
    return [[numbers(batch) for batch in reader] for _ in range(4)]


@pytest.mark.parametrize("workers", [0, 2])
def test_its_state_counts_what_the_loop_has_had(store, numbers, truth, workers):
    loader = PatchLoader(ZarrPatchDataset(store, **VV), workers)
    assert not isinstance(loader, DataLoader)
    assert len(loader) == len(truth[0])
    assert [numbers(batch) for batch in loader] == truth[0]
    for taken in (0, 1, 4, len(loader)):
        loader.set_epoch(1)
        batches = iter(loader)
        before = [numbers(next(batches)) for _ in range(taken)]
        state = loader.state_dict()
        batches.close()
        other = PatchLoader(ZarrPatchDataset(store, **VV))
        other.load_state_dict(state)
        after = []
        for epoch in range(3):  # the loop as it was written, from the beginning
            other.set_epoch(epoch)
            after += [numbers(batch) for batch in other]
        assert before + after == [*truth[1], *truth[2]], taken


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterator_that_is_left_moves_nobody(store, numbers, truth, workers):
    loader = PatchLoader(ZarrPatchDataset(store, **VV), workers)
    _ = iter(loader), iter(loader)
    assert loader.epoch == 0
    assert [[numbers(batch) for batch in loader] for _ in range(2)] == truth[:2]
    loader.set_epoch(3)
    assert loader.state_dict()["epoch"] == 3
    assert [numbers(batch) for batch in loader] == truth[3]


def test_what_has_no_whole_batches_is_refused(store):
    for wrong in (
        lambda: PatchLoader(LazyPatchDataset(store)),
        lambda: PatchLoader(ZarrPatchDataset(store), batch_size=2),
    ):
        with pytest.raises(InvalidInputError, match="a dataset of whole batches was expected"):
            wrong()
