"""The PyTorch face: every patch exactly once, for any ranks, workers, start method and resume point."""

import copy
import os
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from conftest import speckle, write_band  # noqa: E402
from loader_stores import make_store, numbered, places  # noqa: E402
from torch.utils.data import DataLoader, IterableDataset  # noqa: E402

import sarzarr as sz  # noqa: E402
import sarzarr.torch as sarzarr_torch  # noqa: E402
from sarzarr.conventions import Membership  # noqa: E402
from sarzarr.errors import InvalidInputError, MixedBoundsError  # noqa: E402
from sarzarr.patches.clips import recommend_clips  # noqa: E402
from sarzarr.splits.make import make_split, plan_split  # noqa: E402
from sarzarr.store.boxes import Boxes, write_boxes  # noqa: E402
from sarzarr.torch import ZarrPatchDataset  # noqa: E402

# Four workers on a machine of two cores are what some tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
VV = {"polarizations": "vv", "batch_size": 3, "shuffle": True, "seed": 4}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("torch"))


@pytest.fixture(scope="module")
def numbers(store):
    return numbered(sz.PatchReader(store, polarizations="vv"))


@pytest.fixture(scope="module")
def truth(store, numbers):
    """Return the batches of epochs 0 to 3, as numbers."""
    reader = sz.PatchReader(store, **VV)
    return [[numbers(batch) for batch in reader] for _ in range(4)]


def loader(dataset, workers=0, **options):
    return DataLoader(dataset, batch_size=None, num_workers=workers, **options)


# ------------------------------------------------------------------ what is delivered
def test_batches_are_tensors_in_0_1_of_the_advertised_shape(store):
    dataset = ZarrPatchDataset(store.root, batch_size=8)
    batches = list(loader(dataset))
    assert len(batches) == len(dataset)
    assert batches[0].shape == (8, 1, 256, 256)
    for batch in batches:
        assert batch.dtype == torch.float32
        assert batch.is_contiguous()
        assert batch.min() >= 0
        assert batch.max() <= 1
    both = ZarrPatchDataset(store, polarizations=["vv", "vh"], batch_size=4)
    assert next(iter(loader(both))).shape == (4, 2, 256, 256)


@pytest.mark.parametrize("workers", [0, 1])
def test_flags_metadata_and_transform_come_through_a_loader(store, workers):
    flagged = ZarrPatchDataset(store, flags=True, batch_size=4)
    images, flags = next(iter(loader(flagged, workers)))
    assert (images.dtype, flags.dtype) == (torch.float32, torch.uint8)
    described = ZarrPatchDataset(store, with_meta=True, batch_size=4)
    batch = next(iter(loader(described, workers)))
    assert batch["image"].shape == batch["flags"].shape
    assert batch["scene"] == ["a"] * 4
    assert batch["transform"].shape == (4, 6)
    doubled = ZarrPatchDataset(store, batch_size=4, transform=lambda b: b * 2)
    plain = ZarrPatchDataset(store, batch_size=4)
    torch.testing.assert_close(next(iter(loader(doubled))), 2 * next(iter(loader(plain))))


def test_the_bounds_of_the_batches_are_known(store):
    entry = store.bounds["vv/sigma0"]
    dataset = ZarrPatchDataset(store, polarizations="vv")
    assert dataset.preprocessing_params == {"vmin": entry.clip_vmin, "vmax": entry.clip_vmax}
    with pytest.raises(MixedBoundsError):
        _ = ZarrPatchDataset(store).preprocessing_params


def test_one_channel_is_delivered_as_three_without_copies(store):
    dataset = ZarrPatchDataset(store, channels=3, flags=True, batch_size=4)
    images, flags = next(iter(loader(dataset)))
    assert images.shape == (4, 3, 256, 256)
    assert images.stride(1) == 0
    assert flags.shape == (4, 1, 256, 256)
    assert next(iter(ZarrPatchDataset(store, channels=3, with_meta=True)))["image"].shape[1] == 3
    assert next(iter(ZarrPatchDataset(store, channels=3))).shape[1] == 3
    with pytest.raises(InvalidInputError, match="one channel"):
        ZarrPatchDataset(store, channels=3, polarizations=["vv", "vh"])


def test_targets_are_tensors_that_detectors_take(tmp_path):
    made = make_store(tmp_path)
    parts = {"a": (np.array([[600, 600, 620, 640]], np.float32), ["ship"])}
    write_boxes(made, Boxes.gathered(parts, {"a": (1100, 1300)}))
    for workers in (0, 1):
        dataset = ZarrPatchDataset(made, boxes=True, channels=3, augment="d4", scenes=["a"], batch_size=4)
        targets = [target for _, some in loader(dataset, workers) for target in some]
        assert sum(len(t["boxes"]) for t in targets) == 2  # in VV and in VH
        for target in targets:
            assert target["boxes"].dtype == torch.float32
            assert target["boxes"].shape == (len(target["labels"]), 4)
            assert target["labels"].dtype == torch.int64


def test_codes_come_as_uint16(store):
    batch = next(iter(loader(ZarrPatchDataset(store, dtype="uint16"))))
    assert batch.dtype == torch.uint16


def test_pinning_without_cuda_is_refused_and_the_loaders_own_is_not(store):
    if torch.cuda.is_available():
        dataset = ZarrPatchDataset(store, pin_memory=True)
        assert all(batch.is_pinned() for batch in dataset)
        return
    with pytest.raises(InvalidInputError, match="CUDA"):
        ZarrPatchDataset(store, pin_memory=True)


# ------------------------------------------------------------------ workers and epochs
@pytest.mark.parametrize("workers", [0, 1, 2, 3, 4])
def test_workers_deliver_the_batches_of_one_process_in_order(store, numbers, truth, workers):
    found = loader(ZarrPatchDataset(store, **VV), workers)
    for epoch in range(2):
        assert [numbers(batch) for batch in found] == truth[epoch]


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_every_start_method_delivers_the_same(store, numbers, truth, method):
    found = loader(ZarrPatchDataset(store, **VV), 2, multiprocessing_context=method)
    assert [numbers(batch) for batch in found] == truth[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_set_epoch_reaches_workers_that_live_on(store, numbers, truth, workers):
    dataset = ZarrPatchDataset(store, **VV)
    options = {"persistent_workers": True} if workers else {}
    found = loader(dataset, workers, **options)
    for epoch in (0, 1):
        assert [numbers(b) for b in found] == truth[epoch]
    assert dataset.epoch == 2
    for epoch in (3, 0):
        dataset.set_epoch(epoch)
        assert [numbers(b) for b in found] == truth[epoch]
    assert [numbers(b) for b in found] == truth[1]


def test_two_iterations_at_once_are_two_epochs(store, numbers, truth):
    found = loader(ZarrPatchDataset(store, **VV), 2)
    both = list(zip(found, found, strict=True))
    assert sorted([[numbers(b) for b in side] for side in zip(*both, strict=True)]) == sorted(truth[:2])


def test_an_iteration_that_is_given_up_counts_as_its_epoch(store, numbers, truth):
    for workers in (0, 2):
        found = loader(ZarrPatchDataset(store, **VV), workers)
        taken = [numbers(batch) for batch, _ in zip(found, range(2), strict=False)]
        assert taken == truth[0][:2]
        assert [numbers(b) for b in found] == truth[1]


@pytest.mark.parametrize(
    "augment", ["d4", ("d4", sz.Speckle(looks=2), sz.Gain(std_db=1))], ids=["turns", "values"]
)
def test_augmentation_does_not_depend_on_workers(store, augment):
    options = VV | {"augment": augment, "shuffle": True}
    alone = list(loader(ZarrPatchDataset(store, **options)))
    shared = list(loader(ZarrPatchDataset(store, **options), 3))
    for a, b in zip(alone, shared, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_dataset_copies_and_pickles(store, numbers, truth):
    dataset = ZarrPatchDataset(store, **VV)
    taken = iter(dataset)
    next(taken), next(taken)
    for other in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert [numbers(b) for b in loader(other)] == truth[1]
        assert [numbers(b) for b in loader(other, 2)] == truth[2]
    assert dataset.epoch == 1


# ------------------------------------------------------------------ ranks
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("ranks", "workers"), [(2, 0), (3, 2), (4, 1)])
def test_ranks_are_disjoint_and_equal(store, numbers, ranks, workers, drop_last):
    datasets = [ZarrPatchDataset(store, rank=r, ranks=ranks, **VV, drop_last=drop_last) for r in range(ranks)]
    found = [[numbers(b) for b in loader(d, workers)] for d in datasets]
    assert {len(batches) for batches in found} == {len(datasets[0])}
    seen = sorted(i for batches in found for batch in batches for i in batch)
    assert len(seen) == len(set(seen)) == len(places(datasets[0].reader)) - datasets[0].left_out


def test_what_is_left_out_differs_from_epoch_to_epoch(store, numbers):
    options = VV | {"drop_last": True, "batch_size": 5}
    dataset = ZarrPatchDataset(store, **options)
    assert dataset.left_out == 2
    everything = set(range(len(places(dataset.reader))))
    left = [everything - {i for batch in loader(dataset) for i in numbers(batch)} for _ in range(5)]
    assert {len(out) for out in left} == {2}
    assert len(set(map(frozenset, left))) > 1


GLOO = """
    import json, sys
    import torch.distributed as dist
    from torch.utils.data import DataLoader
    from sarzarr.torch import ZarrPatchDataset

    def main(root, rank, ranks, file, method, state):
        before = ZarrPatchDataset(root, polarizations="vv", batch_size=3, shuffle=True, seed=4)
        dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=ranks)
        if state:
            before.load_state_dict(state)
        loader = DataLoader(before, batch_size=None, num_workers=1, multiprocessing_context=method)
        sums = [[float(image.double().sum()) for image in batch] for batch in loader]
        dist.barrier()
        print(json.dumps({"sums": sums, "state": before.state_dict(taken=2), "len": len(before)}))
        dist.destroy_process_group()

    if __name__ == "__main__":
        root, rank, ranks, file, method, state = sys.argv[1:]
        main(root, int(rank), int(ranks), file, method, json.loads(state))
"""


def run_ranks(tmp_path, store, ranks, method, state=None):
    """Run real processes that form a gloo group, and return what each printed."""
    import json

    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(GLOO))
    meeting = tmp_path / f"meeting-{ranks}-{method}-{state is None}"
    arguments = [str(store.root), str(ranks), str(meeting), method, json.dumps(state)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), arguments[0], str(rank), *arguments[1:]],
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in range(ranks)
    ]
    out = [p.communicate(timeout=240)[0] for p in processes]
    assert [p.returncode for p in processes] == [0] * ranks
    return [json.loads(o) for o in out]


@pytest.mark.slow
def test_real_ranks_share_an_epoch_and_others_take_up_the_rest(tmp_path, store):
    images = np.concatenate(list(sz.PatchReader(store, polarizations="vv")))
    number = {float(torch.from_numpy(i).double().sum()): n for n, i in enumerate(images)}
    first = run_ranks(tmp_path, store, 2, "fork")
    order = sz.PatchReader(store, **VV).order(0).tolist()
    assert {len(r["sums"]) for r in first} == {r["len"] for r in first} == {-(-len(order) // 6)}
    seen = [[[number[s] for s in batch] for batch in r["sums"]] for r in first]
    assert sorted(i for rank in seen for batch in rank for i in batch) == list(range(len(order)))
    assert first[0]["state"] == first[1]["state"]
    second = run_ranks(tmp_path, store, 3, "fork", first[0]["state"])
    rest = [number[s] for r in second for batch in r["sums"] for s in batch]
    taken = [i for rank in seen for batch in rank[:2] for i in batch]
    assert sorted(taken + rest) == list(range(len(order)))


# ------------------------------------------------------------------ resuming
@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 3), (2, 0), (3, 2)])
@pytest.mark.parametrize("taken", [1, 4, 7])
def test_training_resumes_in_the_middle_with_other_workers(store, numbers, truth, before, after, taken):
    dataset = ZarrPatchDataset(store, **VV)
    dataset.set_epoch(1)
    found = iter(loader(dataset, before))
    batches = [numbers(next(found)) for _ in range(taken)]
    assert batches == truth[1][:taken]
    state = dataset.state_dict(taken=taken if before else None)
    del found
    resumed = ZarrPatchDataset(store, **VV)
    resumed.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert resumed.state_dict() == state
    again = loader(resumed, after)
    assert [numbers(b) for b in again] == truth[1][taken:]
    assert [numbers(b) for b in again] == truth[2]


def test_a_state_after_the_last_batch_is_the_next_epoch(store):
    dataset = ZarrPatchDataset(store, **VV)
    list(loader(dataset))
    state = dataset.state_dict()
    assert (state["epoch"], state["start"]) == (1, 0)


def test_a_state_with_workers_must_be_told_how_many_batches_were_taken(store):
    dataset = ZarrPatchDataset(store, **VV)
    assert dataset.state_dict()["epoch"] == 0
    found = iter(loader(dataset, 1))
    next(found)
    with pytest.raises(InvalidInputError, match="taken="):
        dataset.state_dict()
    assert dataset.state_dict(taken=1)["start"] == 3
    del found


class KeepsAStateAWorker(IterableDataset):
    """What a loader that keeps a state a worker does with a dataset, in the worker."""

    def __init__(self, dataset, states=None):
        self.dataset = dataset
        self.states = states

    def __iter__(self):
        worker = torch.utils.data.get_worker_info().id
        if self.states is not None:
            self.dataset.load_state_dict(self.states[worker])
        for batch in self.dataset:
            yield worker, batch, self.dataset.state_dict()


def test_a_state_a_worker_resumes_each_worker(store, numbers, truth):
    found = iter(loader(KeepsAStateAWorker(ZarrPatchDataset(store, **VV)), 2))
    states, batches = {}, []
    for _ in range(5):
        worker, batch, states[worker] = next(found)
        batches.append(numbers(batch))
    del found
    resumed = loader(KeepsAStateAWorker(ZarrPatchDataset(store, **VV), states), 2)
    rest = sorted(numbers(batch) for _, batch, _ in resumed)
    assert sorted(batches + rest) == sorted(truth[0])
    other = iter(loader(KeepsAStateAWorker(ZarrPatchDataset(store, **VV), [states[1]]), 1))
    with pytest.raises(InvalidInputError, match="worker 1 of 2"):
        next(other)
    with pytest.raises(InvalidInputError, match="worker 1 of 2"):
        ZarrPatchDataset(store, **VV).load_state_dict(states[1])


# ------------------------------------------------------------------ map-style datasets
def test_patches_in_memory_are_items_with_a_channel():
    patches = np.random.default_rng(0).uniform(0, 1, (5, 16, 16))
    dataset = sarzarr_torch.SARPatchDataset(patches, augment=False)
    assert len(dataset) == 5
    assert dataset[2].shape == (1, 16, 16)
    assert dataset[2].dtype == torch.float32
    np.testing.assert_allclose(dataset[2][0], patches[2], rtol=1e-6)
    dataset[2][:] = 7
    np.testing.assert_array_equal(dataset[2], dataset[2])
    np.testing.assert_allclose(dataset[2][0], patches[2], rtol=1e-6)


@pytest.mark.parametrize(
    ("patches", "says"),
    [
        (np.zeros((4, 4)), "N, H, W"),
        (np.full((1, 4, 4), 1.5), r"\[0, 1\]"),
        (np.full((1, 4, 4), -0.1), r"\[0, 1\]"),
        (np.full((1, 4, 4), np.nan), r"\[0, 1\]"),
    ],
)
def test_patches_that_are_none_are_refused(patches, says):
    with pytest.raises(ValueError, match=says):
        sarzarr_torch.SARPatchDataset(patches)


def test_augmented_items_are_symmetries_and_follow_torchs_seed():
    image = np.arange(9.0).reshape(1, 3, 3) / 9
    symmetries = {np.rot90(m, k).astype("f4").tobytes() for m in (image[0], image[0].T) for k in range(4)}
    dataset = sarzarr_torch.SARPatchDataset(image)
    torch.manual_seed(3)
    found = [dataset[0].numpy().tobytes() for _ in range(200)]
    assert set(found) == symmetries
    torch.manual_seed(3)
    assert [dataset[0].numpy().tobytes() for _ in range(200)] == found
    oblong = sarzarr_torch.SARPatchDataset(np.zeros((1, 2, 3)))
    assert {oblong[0].shape for _ in range(20)} == {(1, 2, 3)}


def test_a_transform_may_return_an_array_or_a_tensor():
    patches = np.full((1, 4, 4), 0.25)
    for transform in (lambda x: x * 2, lambda x: torch.from_numpy(x) * 2, lambda x: x[None] * 2):
        item = sarzarr_torch.SARPatchDataset(patches, augment=False, transform=transform)[0]
        torch.testing.assert_close(item, torch.full((1, 4, 4), 0.5))


def test_a_store_is_a_map_style_dataset_in_a_shuffled_order(store, numbers):
    dataset = sarzarr_torch.LazyPatchDataset(store.root, augment=False, polarizations="vv")
    n = len(places(sz.PatchReader(store, polarizations="vv")))
    assert len(dataset) == n
    assert dataset[0].shape == (1, 256, 256)
    order = np.random.default_rng(42).permutation(n).tolist()
    assert [numbers(dataset[i][None])[0] for i in range(n)] == order
    plain = sarzarr_torch.LazyPatchDataset(store, augment=False, shuffle_seed=None, polarizations="vv")
    assert numbers(torch.stack([plain[i] for i in range(n)])) == list(range(n))
    raw = pickle.dumps(dataset)
    assert len(raw) < 200_000
    for workers in (0, 2):
        found = DataLoader(pickle.loads(raw), batch_size=4, num_workers=workers)
        assert [i for batch in found for i in numbers(batch)] == order


def test_the_reference_shuffle_is_the_known_one():
    expected = [978, 933, 859, 916, 127, 608, 856, 260, 147, 810]
    assert np.random.default_rng(42).permutation(1000)[:10].tolist() == expected


# ------------------------------------------------------------------ the data module
@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return a store with room for a split: four scenes of one place."""
    folder = tmp_path_factory.mktemp("module")
    for i in range(2):
        write_band(folder / f"s{i}_vv.tif", speckle((2600, 2600), seed=i), tiles=256)
    files = sorted(folder.glob("*.tif"))
    return sz.ingest(sz.plan_ingest(files, folder / "s.zarr", quantity="sigma0", representation="power"))


def test_training_and_validation_share_no_pixel(large):
    module = sarzarr_torch.SARDataModule(large.root, val_fraction=0.2)
    sides = (module._train, module._val)
    ground = [{(row, col) for _, _, row, col in places(dataset.reader)} for dataset in sides]
    assert ground[0]
    assert ground[1]
    assert not ground[0] & ground[1]
    assert module.train_size == len(places(module._train.reader))
    assert module.val_size == len(places(module._val.reader))
    again = sarzarr_torch.SARDataModule(large.root, val_fraction=0.2)
    other = sarzarr_torch.SARDataModule(large.root, val_fraction=0.2, seed=1)
    assert places(again._val.reader) == places(module._val.reader)
    assert places(other._val.reader) != places(module._val.reader)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_of_the_module(large, lazy, workers):
    module = sarzarr_torch.SARDataModule(
        large, val_fraction=0.2, batch_size=4, num_workers=workers, lazy=lazy
    )
    train, val = module.train_dataloader(), module.val_dataloader()
    assert {len(batch) for batch in train} == {4}
    assert len(list(train)) == module.train_size // 4
    assert sum(len(batch) for batch in val) == module.val_size
    first, second = (torch.cat(list(val)) for _ in range(2))
    torch.testing.assert_close(first, second)
    shuffled, again = (torch.cat(list(train)) for _ in range(2))
    assert not torch.equal(shuffled, again)
    for batch in (next(iter(train)), module.get_sample_batch(), module.get_sample_batch("val")):
        assert batch.shape == (4, 1, 256, 256)
        assert batch.dtype == torch.float32
        assert batch.min() >= 0
        assert batch.max() <= 1
    planned = plan_split(large, val_fraction=0.2, seed=42)
    clip = recommend_clips(large, {"vv/sigma0"}, split=(planned, Membership.TRAIN))["vv/sigma0"]
    assert module.preprocessing_params == {"vmin": clip.clip_vmin, "vmax": clip.clip_vmax}
    assert module.preprocessing_params != large.preprocessing_params
    with pytest.raises(InvalidInputError, match="'train' or 'val'"):
        module.get_sample_batch("test")


def test_a_sample_batch_takes_nothing_from_training(large):
    modules = [sarzarr_torch.SARDataModule(large, val_fraction=0.2) for _ in range(2)]
    modules[0].get_sample_batch()
    first, second = (next(iter(m.train_dataloader())) for m in modules)
    torch.testing.assert_close(first, second)


def test_the_clip_is_the_training_sides_unless_it_is_given(large):
    """The one default that differs from PatchReader: what validation holds decides nothing."""
    made = make_split(large, val_fraction=0.2)
    module = sarzarr_torch.SARDataModule(large, split=made.name)
    clip = recommend_clips(large.anew(), {"vv/sigma0"}, split=f"{made.name}:train")["vv/sigma0"]
    assert module.preprocessing_params == {"vmin": clip.clip_vmin, "vmax": clip.clip_vmax}
    given = sarzarr_torch.SARDataModule(large, split=made.name, clip=(-20, 0))
    assert given.preprocessing_params == {"vmin": -20, "vmax": 0}
    each = sz.PatchReader(large, clip={"vv/sigma0": (-20, 0)}, batch_size=2)
    np.testing.assert_array_equal(
        next(iter(each)), next(iter(sz.PatchReader(large, clip=(-20, 0), batch_size=2)))
    )
    with pytest.raises(InvalidInputError, match="clips for vv/sigma0 were expected"):
        sz.PatchReader(large, clip={"hh/sigma0": (-20, 0)})


def test_parameters_are_a_pair_or_a_list_of_each_channel(tmp_path):
    made = make_store(tmp_path)
    reader = sz.PatchReader(made, polarizations=("vv", "vh"))
    bounds = [made.bounds[key] for key in ("vv/sigma0", "vh/sigma0")]
    assert reader.preprocessing_params == {
        "vmin": [one.clip_vmin for one in bounds], "vmax": [one.clip_vmax for one in bounds]
    }  # fmt: skip
    alike = sz.PatchReader(made, polarizations=("vv", "vh"), clip=(-25, 5))
    assert alike.preprocessing_params == {"vmin": -25, "vmax": 5}
    with pytest.raises(MixedBoundsError, match="one clip for each channel was expected, got 2"):
        _ = sz.PatchReader(made).preprocessing_params


@pytest.mark.parametrize("most", [2, 3, 5])
def test_max_samples_is_never_exceeded(large, most):
    module = sarzarr_torch.SARDataModule(large, val_fraction=0.2, max_samples=most, batch_size=1)
    assert module.train_size + module.val_size == most
    with pytest.raises(InvalidInputError, match="at least 2"):
        sarzarr_torch.SARDataModule(large, max_samples=1)


def test_max_samples_narrows_both_sides(large):
    module = sarzarr_torch.SARDataModule(large, val_fraction=0.2, max_samples=20, batch_size=2)
    assert (module.train_size, module.val_size) == (16, 4)


def test_a_stored_split_is_used_when_asked_for(tmp_path):
    made = make_store(tmp_path)
    make_split(made, val_fraction=0.5, by="scene", seed=2)
    module = sarzarr_torch.SARDataModule(made, split="v1", batch_size=2)
    scenes = [{p[0] for p in places(d.reader)} for d in (module._train, module._val)]
    assert sorted(map(sorted, scenes)) == [["a"], ["b"]]
    with pytest.raises(MixedBoundsError):  # VV and VH have clips of their own
        _ = module.preprocessing_params


def test_the_page_on_training_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = sz.write_synthetic_scenes(tmp_path / "raw", count=1, shape=(1024, 1024))
    sz.ingest(sz.plan_ingest(raw, tmp_path / "stores" / "baltic.zarr"))
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    space = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "training.md", "exec"), space)
    assert space["train"].epoch == 2


def test_each_fold_of_scenes_is_validation_once(tmp_path):
    made = make_store(tmp_path)
    make_split(made, folds=2, by="scene", seed=2)
    modules = [sarzarr_torch.SARDataModule(made, split=f"fold{i}", batch_size=2) for i in (0, 1)]
    scenes = [[{p[0] for p in places(d.reader)} for d in (m._train, m._val)] for m in modules]
    assert scenes[0] == scenes[1][::-1]
    assert sorted(map(sorted, scenes[0])) == [["a"], ["b"]]
