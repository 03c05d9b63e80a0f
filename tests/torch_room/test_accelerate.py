"""Accelerate: each patch once over all processes, or an error with the setting that does it."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed (sarzarr[frameworks])")
from loader_stores import make_store  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

import sarzarr as sz  # noqa: E402
from sarzarr.errors import InvalidInputError  # noqa: E402
from sarzarr.torch import PatchLoader, ZarrPatchDataset  # noqa: E402

VV = {"polarizations": "vv", "batch_size": 3, "shuffle": True, "seed": 4, "with_meta": True}
pytestmark = pytest.mark.filterwarnings("ignore:.set_vital. is deprecated")  # torchdata calls it
OPTIONS = {**VV, "min_unsaturated": 0.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("accelerate"))


@pytest.fixture(scope="module")
def truth(store):
    """Return the ids of the batches of epochs 0 to 2."""
    reader = sz.PatchReader(store, **OPTIONS)
    return [[batch["id"].tolist() for batch in reader] for _ in range(3)]


def ids(batches):
    return [batch["id"].tolist() for batch in batches]


def accelerator(**options):
    return accelerate.Accelerator(cpu=True, dataloader_config=accelerate.DataLoaderConfiguration(**options))


# ------------------------------------------------------------------ one process
@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("make", [PatchLoader, lambda dataset: DataLoader(dataset, batch_size=None)])
def test_one_process_gets_the_batches_of_each_epoch(store, truth, make, stateful):
    if stateful:
        pytest.importorskip("torchdata", reason="torchdata is not installed (sarzarr[frameworks])")
    loader = accelerator(use_stateful_dataloader=stateful).prepare(make(ZarrPatchDataset(store, **OPTIONS)))
    assert [ids(loader) for _ in range(3)] == truth


@pytest.mark.parametrize("make", [PatchLoader, lambda dataset: DataLoader(dataset, batch_size=None)])
def test_skipped_batches_are_those_that_were_had(store, truth, make):
    dataset = ZarrPatchDataset(store, **OPTIONS)
    one = accelerator()
    loader = one.prepare(make(dataset))
    found = ids(loader)
    assert found == truth[0]
    if isinstance(loader, PatchLoader):
        loader.load_state_dict({**loader.state_dict(), "epoch": 1, "start": 6})
        assert ids(loader) == truth[1][2:]
        with pytest.raises(AttributeError, match="in the place of skipping batches"):
            one.skip_first_batches(loader, 2)
    else:
        assert ids(one.skip_first_batches(loader, 2)) == truth[1][2:]


def test_the_state_of_a_loader_goes_into_a_checkpoint(store, truth, tmp_path):
    one = accelerator()
    loader = one.prepare(PatchLoader(ZarrPatchDataset(store, **OPTIONS), num_workers=1))
    one.register_for_checkpointing(loader)
    batches = iter(loader)
    before = ids([next(batches), next(batches)])
    one.save_state(tmp_path)
    other = accelerator()
    again = other.prepare(PatchLoader(ZarrPatchDataset(store, **OPTIONS)))
    other.register_for_checkpointing(again)
    other.load_state(tmp_path)
    assert before + ids(again) == truth[0]
    assert ids(again) == truth[1]


def test_batches_that_would_be_stacked_are_refused(store):
    dataset = ZarrPatchDataset(store, **OPTIONS)
    for workers in (0, 1):
        with pytest.raises(InvalidInputError, match="batch_size=None"):
            next(iter(DataLoader(dataset, num_workers=workers)))
    joined = DataLoader(
        dataset, batch_size=2, collate_fn=lambda parts: np.concatenate([p["id"] for p in parts])
    )
    assert len(next(iter(joined))) == 6
