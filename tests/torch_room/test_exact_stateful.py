"""torchdata's StatefulDataLoader: whenever a state is saved, what is resumed is what would have come."""

import copy
from itertools import chain, islice

import pytest

pytest.importorskip("torch")
stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
from loader_stores import SMALL, small_store  # noqa: E402

import sarzarr as sz  # noqa: E402
from sarzarr.errors import InvalidInputError  # noqa: E402
from sarzarr.torch import ZarrPatchDataset  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata calls it
]
BATCHES = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("stateful"))


@pytest.fixture(scope="module")
def truth(store):
    reader = sz.PatchReader(store, **SMALL, batch_size=2)
    return [[batch["id"].tolist() for batch in reader] for _ in range(6)]


def loader_of(store, workers, *, persistent=False, dataset=None):
    dataset = dataset or ZarrPatchDataset(store, **SMALL, batch_size=2)
    return stateful.StatefulDataLoader(
        dataset, batch_size=None, num_workers=workers, persistent_workers=persistent and workers > 0
    )


def taken(batches):
    return [batch["id"].tolist() for batch in batches]


def saved(loader, epoch, moment):
    """Return the state of a loader at a moment of an epoch: before it, begun, after so many batches, at its end."""
    for _ in range(epoch):
        taken(loader)
    if moment == "before":
        return copy.deepcopy(loader.state_dict())
    batches = iter(loader)
    if moment != "begun":
        taken(batches if moment == "end" else islice(batches, moment))
    return copy.deepcopy(loader.state_dict())


def check(store, truth, workers, persistent, epoch, moment):
    state = saved(loader_of(store, workers, persistent=persistent), epoch, moment)
    resumed = loader_of(store, workers, persistent=persistent)
    resumed.load_state_dict(state)
    came = [taken(resumed) for _ in range(3)]
    done = {"before": 0, "begun": 0, "end": BATCHES}.get(moment, moment)
    batches = list(chain(*came))
    assert batches == list(chain(*truth[epoch:]))[done:][: len(batches)]
    assert len(batches) >= 2 * BATCHES  # of the iteration that was resumed nothing may be left


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize(("workers", "moment"), [(0, 3), (1, "before"), (2, 1), (2, 4), (2, "end")])
def test_a_resumed_loader_gives_what_would_have_come(store, truth, workers, persistent, moment):
    check(store, truth, workers, persistent, 0, moment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epoch", "moments"), [(0, ("before", "begun", *range(1, BATCHES + 1), "end")), (1, ("begun", 2, "end"))]
)
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("workers", range(4))
def test_a_loader_resumes_at_any_moment(store, truth, workers, persistent, epoch, moments):
    for moment in moments:
        check(store, truth, workers, persistent, epoch, moment)


@pytest.mark.parametrize("persistent", [False, True])
def test_a_loader_that_loads_its_own_state_goes_back(store, truth, persistent):
    """Its workers are begun with the seed of those that saved it."""
    loader = loader_of(store, 2, persistent=persistent)
    batches = iter(loader)
    assert taken(islice(batches, 2)) == truth[0][:2]
    state = copy.deepcopy(loader.state_dict())
    assert taken(batches) == truth[0][2:]
    assert [taken(loader) for _ in range(2)] == truth[1:3]
    loader.load_state_dict(state)
    assert taken(loader) == truth[0][2:]
    loader.dataset.set_epoch(3)
    assert taken(loader) == truth[3]


@pytest.mark.slow
def test_a_state_of_workers_goes_to_no_others(store):
    state = saved(loader_of(store, 2), 0, 3)
    other = loader_of(store, 2, dataset=ZarrPatchDataset(store, **SMALL, batch_size=3))
    other.load_state_dict(state)
    with pytest.raises(InvalidInputError, match="'batch_size': 3"):
        taken(other)
    resumed = loader_of(store, 2)
    resumed.load_state_dict(state)
    next(iter(resumed))
    with pytest.raises(InvalidInputError, match=r"state_dict\(\) of the loader"):
        resumed.dataset.state_dict(taken=1)
