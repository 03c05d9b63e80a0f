"""Crops through the dataset: each window of an epoch once, whatever workers and processes deliver it."""

import numpy as np
import pytest
from loader_stores import make_store

import sarzarr as sz

torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
from sarzarr.torch import ZarrPatchDataset  # noqa: E402

OPTIONS = {
    "crops": "random",
    "patch_size": 64,
    "min_unsaturated": 0,
    "seed": 3,
    "batch_size": 5,
    "polarizations": ["vv"],
}


@pytest.mark.parametrize("workers", [0, 2])
def test_each_crop_of_an_epoch_comes_once(tmp_path, workers):
    store = make_store(tmp_path)
    reader = sz.PatchReader(store, **OPTIONS)
    loader = torch.utils.data.DataLoader(
        ZarrPatchDataset(store, **OPTIONS),
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="forkserver" if workers else None,
    )
    seen = []
    for epoch in range(2):
        of_epoch = reader.in_epoch(epoch)
        known = sorted(image.tobytes() for image in of_epoch.read(np.arange(len(of_epoch.selection))))
        assert sorted(image.numpy().tobytes() for batch in loader for image in batch) == known
        seen.append(known)
    assert seen[0] != seen[1]


def test_boxes_move_with_crops(tmp_path):
    from sarzarr.store.boxes import Boxes, write_boxes

    store = make_store(tmp_path)
    corners = np.random.default_rng(0).uniform(300, 1000, (40, 2))
    boxes = {"a": (np.concatenate([corners, corners + 20], axis=1), ["ship"] * 40)}
    write_boxes(store, Boxes.gathered(boxes, {"a": (1100, 1300)}))
    dataset = ZarrPatchDataset(
        store.anew(), **OPTIONS, scenes=["a"], boxes=True, with_meta=True, min_visible=1.0, per_epoch=200
    )
    shown = 0
    for _ in range(2):
        for batch in dataset:
            for target, row, col in zip(batch["target"], batch["row"], batch["col"], strict=True):
                at = np.array([col, row, col, row], np.float64)
                own = corners[((corners >= at[:2]) & (corners + 20 <= at[:2] + 64)).all(axis=1)]
                wanted = np.concatenate([own, own + 20], axis=1) - at
                order = np.lexsort(np.asarray(target["boxes"]).T)
                np.testing.assert_allclose(
                    np.asarray(target["boxes"])[order], wanted[np.lexsort(wanted.T)], atol=1e-3
                )
                shown += len(own)
    assert shown > 20
