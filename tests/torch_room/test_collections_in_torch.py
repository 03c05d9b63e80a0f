"""Chips of a collection as tensors: one dataset class for scenes and chips, workers and ranks too."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")

import torch
from chip_collections import codes_of, ids_of, make_chips, mask_of
from torch.utils.data import DataLoader

import sarzarr as sz
from sarzarr.errors import InvalidInputError
from sarzarr.torch import SARDataModule, ZarrPatchDataset


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


# ------------------------------------------------------------------ boxes and loaders of all sides
@pytest.fixture(scope="module")
def detected(tmp_path_factory):
    """Return a store whose chips with an even number have a box, as large as their number says, and a class each."""
    folder = tmp_path_factory.mktemp("boxes")
    store = make_chips(folder / "s.zarr", sizes=((16, 16),) * 30)
    lines = [
        f"{chip},0,0,{1 + i // 2},2,{'ab'[i % 4 // 2]}" for i, chip in enumerate(ids_of(30)) if i % 2 == 0
    ]
    (folder / "b.csv").write_text("\n".join(["chip,x_min,y_min,x_max,y_max,label", *lines]))
    sz.import_chip_boxes(store, "floods", folder / "b.csv")
    (folder / "l.csv").write_text(
        "\n".join(["name,label", *(f"{c},{'xy'[i % 2]}" for i, c in enumerate(ids_of(30)))])
    )
    sz.import_labels(store, "floods", folder / "l.csv")
    sz.split_collection(store, "floods", val_fraction=0.2, test_fraction=0.2)
    return store.anew()


@pytest.mark.slow
def test_targets_are_those_of_the_reader_in_workers_too(detected):
    options = {"boxes": True, "augment": "d4", "shuffle": True, "batch_size": 4, "with_meta": True}
    reader = list(sz.CollectionReader(detected, "floods", **options))
    dataset = ZarrPatchDataset(detected, collection="floods", **options)
    for workers in (0, 2):
        dataset.set_epoch(0)
        for batch, other in zip(
            DataLoader(dataset, batch_size=None, num_workers=workers), reader, strict=True
        ):
            assert batch["chip"] == other["chip"]
            for target, expected in zip(batch["target"], other["target"], strict=True):
                assert target.keys() == expected.keys()
                assert all((target[key].numpy() == expected[key]).all() for key in target)
    sizes = [len(target["boxes"]) for batch in reader for target in batch["target"]]
    assert sorted(sizes) == [0] * 15 + [1] * 15  # those without are kept


def test_a_data_module_has_every_side_of_a_collection(detected):
    options = {"boxes": True, "labels": True, "layers": ["mask"], "with_meta": True, "batch_size": 3}
    module = SARDataModule(detected, collection="floods", split="v1", **options)
    made = sz.open_collection(detected, "floods")
    from sarzarr.store.chip_splits import chip_side

    seen = {}
    for side in ("train", "val", "test"):
        loader = getattr(module, f"{side}_dataloader")()
        seen[side] = [chip for batch in loader for chip in batch["chip"]]
        rows = chip_side(made, f"v1:{side}").nonzero()[0]
        known = {made.ids[row] for row in rows if row % 7}  # the others have no mask
        missing = len(known) % 3 if side == "train" else 0  # batches of training are of one size
        assert set(seen[side]) <= known
        assert len(seen[side]) == len(known) - missing
    everything = [chip for batch in module.predict_dataloader() for chip in batch["chip"]]
    assert sorted(everything) == sorted(chip for row, chip in enumerate(ids_of(30)) if row % 7)
    batch = module.get_sample_batch("val")
    assert set(batch) >= {"image", "target", "label", "layers", "chip"}
    assert isinstance(batch["target"][0]["boxes"], torch.Tensor)


def test_the_clip_of_a_data_module_is_of_its_training_chips(detected):
    """Planned as `split_collection` plans it, and written nowhere; of the pixels of its training side alone."""
    from sarzarr.pixels.bounds import Histogram, clip_bounds_from_histogram

    module = SARDataModule(
        detected, collection="floods", val_fraction=0.3, batch_size=4, polarizations=["vv"]
    )
    assert (module.train_size, module.val_size, module.left_out) == (21, 9, 0)
    assert next(iter(module.train_dataloader())).shape == (4, 1, 16, 16)
    rows = module._readers[0].selection.table_row
    assert not set(rows) & set(module._readers[1].selection.table_row)
    codes = np.concatenate([codes_of(row, 0, (16, 16)).ravel() for row in rows]).astype(np.float64)
    db = np.where(codes > 0, (codes - 1) / 65534 * 160 - 60, np.nan)
    clip = clip_bounds_from_histogram(Histogram.from_db(db))
    assert module.preprocessing_params == pytest.approx({"vmin": clip.vmin, "vmax": clip.vmax}, abs=0.002)
    assert (
        len(sz.open_store(detected.root).place.children("splits/collections/floods")) == 2
    )  # v1, and its document
    balanced = SARDataModule(
        detected, collection="floods", split="v1", labels=True, weights="label", batch_size=4
    )
    assert balanced._train.reader.weights is not None
    assert balanced._val.reader.weights is None


def test_a_data_module_of_a_collection_says_what_to_do(detected, tmp_path):
    for wrong, said in (
        ({"samples": "x"}, "samples= or collection= was expected"),
        ({"boxes": True, "lazy": False}, "boxes= needs batches"),
        ({"crops": "random", "split": "v1"}, "needs scenes, got collection='floods'"),
        ({"patch_size": 8}, "patch_size"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            SARDataModule(detected, collection="floods", **wrong)
    with pytest.raises(InvalidInputError, match=r"split_collection\(store, 'floods', test_fraction=0.1\)"):
        SARDataModule(detected, collection="floods").test_dataloader()
    with pytest.raises(InvalidInputError, match="collection="):
        SARDataModule(detected, labels=True)
    adrift = make_chips(tmp_path / "s.zarr", sizes=((16, 16),) * 6, places=[(-1, (1, 0, 0, 0, 1, 0))] * 6)
    with pytest.raises(InvalidInputError, match="pass its name as split="):
        SARDataModule(adrift, collection="floods")
    loaded = SARDataModule(detected, collection="floods", lazy=False, batch_size=4)
    assert next(iter(loaded.train_dataloader())).shape == (4, 2, 16, 16)
