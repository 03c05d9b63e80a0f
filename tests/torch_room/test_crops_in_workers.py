"""Crops through the dataset: each window of an epoch once, whatever workers and processes deliver it."""

import pickle

import numpy as np
import pytest
from loader_stores import make_store

import sarzarr as sz

torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
from sarzarr.torch import SARDataModule, ZarrPatchDataset  # noqa: E402

OPTIONS = {
    "crops": "random",
    "patch_size": 64,
    "min_unsaturated": 0,
    "seed": 3,
    "batch_size": 5,
    "polarizations": ["vv"],
}


@pytest.mark.parametrize(("workers", "more"), [(0, {}), (2, {"scale": (0.5, 2), "area": "ground"})])
def test_each_crop_of_an_epoch_comes_once(tmp_path, workers, more):
    store = make_store(tmp_path)
    reader = sz.PatchReader(store, **OPTIONS, **more)
    loader = torch.utils.data.DataLoader(
        pickle.loads(pickle.dumps(ZarrPatchDataset(store, **OPTIONS, **more))),
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    seen = []
    for epoch in range(2):
        of_epoch = reader.in_epoch(epoch)
        known = sorted(image.tobytes() for image in of_epoch.read(np.arange(len(of_epoch.selection))))
        assert sorted(image.numpy().tobytes() for batch in loader for image in batch) == known
        seen.append(known)
    assert seen[0] != seen[1]


@pytest.mark.parametrize("scale", [None, (0.5, 2)])
def test_boxes_move_with_crops(tmp_path, scale):
    from sarzarr.store.boxes import Boxes, write_boxes

    store = make_store(tmp_path)
    corners = np.random.default_rng(0).uniform(300, 1000, (40, 2))
    boxes = {"a": (np.concatenate([corners, corners + 20], axis=1), ["ship"] * 40)}
    write_boxes(store, Boxes.gathered(boxes, {"a": (1100, 1300)}))
    dataset = ZarrPatchDataset(
        store.anew(),
        **OPTIONS,
        scenes=["a"],
        boxes=True,
        with_meta=True,
        min_visible=1.0,
        per_epoch=200,
        scale=scale,
    )
    shown = 0
    for _ in range(2):
        for batch in dataset:
            spans = batch.get("span", torch.full((len(batch["row"]),), 64))
            for target, row, col, span in zip(
                batch["target"], batch["row"].tolist(), batch["col"].tolist(), spans.tolist(), strict=True
            ):
                at = np.array([col, row, col, row], np.float64)
                own = corners[((corners >= at[:2]) & (corners + 20 <= at[:2] + span)).all(axis=1)]
                wanted = (np.concatenate([own, own + 20], axis=1) - at) * 64 / span
                order = np.lexsort(np.asarray(target["boxes"]).T)
                np.testing.assert_allclose(
                    np.asarray(target["boxes"])[order], wanted[np.lexsort(wanted.T)], atol=1e-3
                )
                shown += len(own)
    assert shown > 20


def test_a_data_module_trains_on_crops_of_its_split_and_validates_on_patches(tmp_path):
    store = make_store(tmp_path)
    made = sz.make_split(store, val_fraction=0.3, block=6000, guard=0, seed=3)
    options = {"crops": "random", "scale": (0.5, 2), "per_epoch": 12, "patch_size": 64, "min_unsaturated": 0}
    module = SARDataModule(store.anew(), split="v1", batch_size=4, polarizations=["vv"], **options)
    assert made is not None
    epochs = [[batch.numpy() for batch in module.train_dataloader()] for _ in range(2)]
    assert [len(epoch) for epoch in epochs] == [3, 3]
    assert not np.array_equal(epochs[0][0], epochs[1][0])
    val = [np.concatenate([batch.numpy() for batch in module.val_dataloader()]) for _ in range(2)]
    np.testing.assert_array_equal(*val)
    assert len(val[0]) == module.val_size > 0
    for wrong, says in (
        ({"split": None}, "needs a stored split"),
        ({"lazy": False}, "got lazy=False"),
        ({"max_samples": 10}, "got max_samples=10"),
    ):
        with pytest.raises(sz.errors.InvalidInputError, match=says):
            SARDataModule(store.anew(), **{"split": "v1", **options, **wrong})
