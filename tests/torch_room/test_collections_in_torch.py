"""Chips of a collection as tensors: one dataset class for scenes and chips, workers and ranks too."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")

import torch
from chip_collections import ids_of, make_chips, mask_of
from torch.utils.data import DataLoader

import sarzarr as sz
from sarzarr.errors import InvalidInputError
from sarzarr.torch import ZarrPatchDataset


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("chips") / "s.zarr", sizes=((16, 16),) * 30)


def test_a_dataset_delivers_what_the_reader_does(store):
    options = {"layers": ["mask"], "seed": 3, "shuffle": True, "augment": "d4", "batch_size": 4}
    reader = list(sz.CollectionReader(store, "floods", **options))
    dataset = ZarrPatchDataset(store, collection="floods", **options)
    for batch, expected in zip(dataset, reader, strict=True):
        for one, other in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(one.numpy(), other)
    assert dataset.layer_nodata == {"mask": -1}
    assert dataset.statistics().mean.shape == (2,)
    keyed = next(iter(ZarrPatchDataset(store, collection="floods", keys={"mask": "mask"}, batch_size=2)))
    assert keyed["mask"].dtype == torch.int64
    np.testing.assert_array_equal(keyed["mask"][0].numpy(), mask_of(1, (16, 16)))


def test_sides_labels_and_workers(store, tmp_path):
    sz.split_collection(store, "floods", val_fraction=0.3)
    (tmp_path / "l.csv").write_text(
        "name,label\n" + "".join(f"{n},{'ab'[i % 2]}\n" for i, n in enumerate(ids_of(30)))
    )
    sz.import_labels(store, "floods", tmp_path / "l.csv")
    train, val = (
        ZarrPatchDataset(store, collection="floods", split=side, labels=True, with_meta=True, batch_size=4)
        for side in ("train", "val")
    )
    seen = {}
    for side, dataset in (("train", train), ("val", val)):
        seen[side] = [
            chip for batch in DataLoader(dataset, batch_size=None, num_workers=2) for chip in batch["chip"]
        ]
    assert sorted(seen["train"] + seen["val"]) == sorted(ids_of(30))
    assert len(seen["val"]) == 9
    assert train.classes == ("a", "b")
    batch = train.peek()
    assert batch["label"].tolist() == [ids_of(30).index(chip) % 2 for chip in batch["chip"]]
    halves = [
        ZarrPatchDataset(store, collection="floods", rank=rank, ranks=2, batch_size=5) for rank in (0, 1)
    ]
    assert sum(len(batch) for half in halves for batch in half) == 30


def test_options_of_chips_need_a_collection(store):
    with pytest.raises(InvalidInputError, match="collection="):
        ZarrPatchDataset(store, labels=True)
    with pytest.raises(InvalidInputError, match="one store alone"):
        ZarrPatchDataset([store], collection="floods")
    with pytest.raises(InvalidInputError, match="patch_size"):
        ZarrPatchDataset(store, collection="floods", patch_size=8)
