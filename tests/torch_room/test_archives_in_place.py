"""Archives of ``.npy`` files as datasets and loaders, read in place."""

import pickle
import sys

import numpy as np
import pytest
from archives import VMAX, VMIN, an_image, patches_of, products, write_archive

torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
from torch.utils.data import DataLoader  # noqa: E402

import sarzarr as sz  # noqa: E402
from sarzarr.errors import InvalidInputError  # noqa: E402
from sarzarr.ingestion.archives.rows import quadrant_hashes  # noqa: E402
from sarzarr.torch import LazyPatchDataset, SARDataModule, ZarrPatchDataset  # noqa: E402

NAMES = ("a_vh", "a_vv", "b_vv", "c_vv", "d_vv")


@pytest.fixture
def files():
    return products(*NAMES, count=5, size=16)


@pytest.fixture
def archive(tmp_path, files):
    return write_archive(tmp_path / "patches", files, size=16, stride=8)


def test_items_are_the_patches_in_the_known_order(archive, files):
    every = np.concatenate([files[name] for name in sorted(files)])
    plain = LazyPatchDataset(archive, augment=False, shuffle_seed=None)
    assert len(plain) == 25
    assert plain[0].shape == (1, 16, 16)
    assert plain[0].dtype == torch.float32
    for i in range(25):
        np.testing.assert_array_equal(plain[i][0], every[i])
    shuffled = LazyPatchDataset(str(archive), augment=False)
    order = np.random.default_rng(42).permutation(25)
    np.testing.assert_array_equal(torch.stack([shuffled[i] for i in range(25)])[:, 0], every[order])
    assert torch.equal(shuffled[3], shuffled[3])
    assert shuffled.preprocessing_params == {"vmin": VMIN, "vmax": VMAX}
    with pytest.raises(IndexError):
        shuffled[25]


def test_one_file_is_a_dataset_too(archive, files):
    one = LazyPatchDataset(archive.parent / "b_vv_patches.npy", augment=False, shuffle_seed=None)
    np.testing.assert_array_equal(torch.stack([one[i] for i in range(5)])[:, 0], files["b_vv"])


def test_turned_items_are_turned_patches(archive, files):
    data = LazyPatchDataset(archive, shuffle_seed=None)
    torch.manual_seed(0)
    found = {data[0].numpy().tobytes() for _ in range(100)}
    assert len(found) == 8
    assert files["a_vh"][0].tobytes() in found


@pytest.fixture
def opened(tmp_path):
    """Return the names of files below the folder that are opened, as they are."""
    names, is_on = [], [True]

    def told(event, args):
        if is_on and event == "open" and str(args[0]).startswith(str(tmp_path)):
            names.append(str(args[0]))

    sys.addaudithook(told)  # for good: nobody can take it away
    yield names
    is_on.clear()


def test_each_file_is_opened_once_a_process(archive, opened):
    data = LazyPatchDataset(archive)
    opened.clear()
    for _ in range(3):
        for i in range(len(data)):
            data[i]
    assert sorted(opened) == sorted({*opened})
    assert len(opened) == 5


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_deliver_the_same(archive, context):
    if context not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {context} here")
    data = LazyPatchDataset(archive, augment=False)
    here = torch.stack([data[i] for i in range(25)])
    workers = 2 if context == "fork" else 1  # each that is spawned imports torch
    loader = DataLoader(data, batch_size=4, num_workers=workers, multiprocessing_context=context)
    torch.testing.assert_close(torch.cat(list(loader)), here, rtol=0, atol=0)


def test_a_dataset_of_a_million_patches_pickles_in_100_kb(tmp_path):
    folder, count = tmp_path / "large", 1 << 20
    archive = write_archive(folder, {"a": np.zeros((1, 2, 2), np.float32)}, size=2, stride=2)
    with (folder / "a_patches.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (count, 2, 2)}
        )
        stream.truncate(stream.tell() + count * 16)
    facts = np.load(archive, allow_pickle=True).item()
    np.save(archive, {**facts, "file_index": [("a_patches.npy", count)]})
    data = LazyPatchDataset(archive)
    assert data[count - 1].shape == (1, 2, 2)
    raw = pickle.dumps(data)
    assert len(raw) < 100_000
    assert len(pickle.loads(raw)) == count


def test_options_of_stores_and_values_of_other_kinds_are_refused(archive, tmp_path):
    for options in ({"scenes": ["a"]}, {"samples": "a"}, {"clip": (0, 1)}):
        with pytest.raises(InvalidInputError, match="a store was expected"):
            LazyPatchDataset(archive, **options)
    for values in (-12.5, 1.5, np.nan):
        np.save(tmp_path / "db.npy", np.full((3, 4, 4), values, np.float32))
        with pytest.raises(InvalidInputError, match=r"patches in \[0, 1\] were expected"):
            _ = LazyPatchDataset(tmp_path / "db.npy")[0]
    np.save(tmp_path / "double.npy", np.zeros((3, 4, 4)))
    with pytest.raises(InvalidInputError, match="float32"):
        LazyPatchDataset(tmp_path / "double.npy")


# ------------------------------------------------------------------ the data module
def rows_of(items, files):
    """Return (name, row) of each patch that is delivered."""
    known = {patch.tobytes(): (name, i) for name, patches in files.items() for i, patch in enumerate(patches)}
    return [known[patch.numpy().tobytes()] for patch in items]


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_module_divides_by_product(archive, files, lazy, workers):
    module = SARDataModule(
        archive, val_fraction=0.3, batch_size=2, num_workers=workers, lazy=lazy, augment_train=False
    )
    train, val = (list(loader) for loader in (module.train_dataloader(), module.val_dataloader()))
    assert {batch.shape for batch in train} == {(2, 1, 16, 16)}
    assert {batch.dtype for batch in train} == {torch.float32}
    sides = [rows_of(torch.cat(side)[:, 0], files) for side in (train, val)]
    products_of = [{name.split("_")[0] for name, _ in side} for side in sides]
    assert not products_of[0] & products_of[1]
    assert module.train_size + module.val_size == 25
    assert len(sides[1]) == module.val_size >= int(0.3 * 25)
    assert sides[1] == sorted(sides[1])
    assert module.preprocessing_params == {"vmin": VMIN, "vmax": VMAX}
    assert module.get_sample_batch().shape == module.get_sample_batch("val").shape == (2, 1, 16, 16)
    again = SARDataModule(archive, val_fraction=0.3, lazy=lazy)
    assert rows_of(torch.cat(list(again.val_dataloader()))[:, 0], files) == sides[1]


def test_other_seeds_are_other_splits(archive, files):
    found = {
        tuple(rows_of(torch.cat(list(SARDataModule(archive, seed=seed).val_dataloader()))[:, 0], files))
        for seed in range(8)
    }
    assert len(found) > 1


@pytest.mark.parametrize("most", [2, 3, 7, 10])
def test_max_samples_is_never_exceeded(archive, most):
    module = SARDataModule(archive, val_fraction=0.2, max_samples=most)
    assert module.train_size + module.val_size == most
    assert module.val_size >= 1
    with pytest.raises(InvalidInputError, match="at least 2"):
        SARDataModule(archive, max_samples=1)


def shared_pixels(train, val):
    """Return how many training patches have a pixel of validation: every value of the image is another."""
    seen = {value for patch in val for value in patch.ravel().tolist()}
    return sum(not seen.isdisjoint(patch.ravel().tolist()) for patch in train)


@pytest.mark.parametrize("seed", range(4))
def test_no_pixel_of_one_image_is_on_both_sides(tmp_path, seed):
    """Stride 128: half of each patch is its neighbour's. By number, 288 of 501 would share pixels."""
    side = 24 * 4 + 4
    image = np.arange(side * side, dtype=np.float32).reshape(side, side) / side**2
    patches = patches_of(image, size=8, stride=4)
    assert len(patches) == 576
    for path in (
        write_archive(tmp_path / "archive", {"only_vv": patches}, size=8, stride=4),
        tmp_path / "archive" / "only_vv_patches.npy",
    ):
        module = SARDataModule(path, seed=seed, augment_train=False, batch_size=1)
        train, val = (
            torch.cat(list(loader)).numpy() for loader in (module.train_dataloader(), module.val_dataloader())
        )
        assert len(val) == 57
        assert shared_pixels(train, val) == 0
        assert module.train_size + module.val_size + module.left_out == 576
        assert 0 < module.left_out <= 2 * 27


def test_what_cannot_be_divided_is_refused(tmp_path):
    both = write_archive(tmp_path / "both", products("a_vv", "a_vh", size=16), size=16, stride=8)
    with pytest.raises(InvalidInputError, match="one product with 2 files"):
        SARDataModule(both)
    other = write_archive(tmp_path / "other", products("a_vv", size=16), size=16, stride=5)
    with pytest.raises(InvalidInputError, match="16 x 16 pixels every 5"):
        SARDataModule(other)
    assert (
        SARDataModule(
            write_archive(tmp_path / "apart", products("a_vv", size=16), size=16, stride=16)
        ).left_out
        == 0
    )
    with pytest.raises(InvalidInputError, match="at least two patches"):
        SARDataModule(write_archive(tmp_path / "one", products("a_vv", size=16, count=1), size=16))


def test_hashes_are_those_of_the_patches(archive, files):
    origins = SARDataModule(archive)._readers[0].origins
    every = [quadrant_hashes(patch) for name in sorted(files) for patch in files[name]]
    np.testing.assert_array_equal(origins.hashes_of(), np.array(every, np.uint64))
    assert sorted(set(origins.product.tolist())) == ["a", "b", "c", "d"]
    assert an_image((2, 2)).dtype == np.float32


# ------------------------------------------------------------------ the same patches in a store
@pytest.fixture
def store(archive, tmp_path):
    return sz.import_npy(archive, tmp_path / "s.zarr").store


def test_a_set_of_a_store_is_the_same_dataset(store, archive):
    in_place, stored = (
        LazyPatchDataset(archive, augment=False),
        LazyPatchDataset(store.root, augment=False, samples="patches"),
    )
    assert len(stored) == len(in_place) == 25
    for i in range(25):
        torch.testing.assert_close(stored[i], in_place[i], rtol=0, atol=0)
    assert stored.preprocessing_params == in_place.preprocessing_params == {"vmin": VMIN, "vmax": VMAX}
    clipped = LazyPatchDataset(store, samples="patches", clip=(16, 20))
    assert clipped.preprocessing_params == {"vmin": 16, "vmax": 20}
    with pytest.raises(InvalidInputError, match="a keyword of SampleReader"):
        LazyPatchDataset(store, samples="patches", scenes=["a"])


def test_batches_of_a_set(store, files):
    data = ZarrPatchDataset(store, samples="patches", batch_size=25)
    every = np.concatenate([files[name] for name in sorted(files)])
    np.testing.assert_array_equal(next(iter(data))[:, 0], every)
    assert data.preprocessing_params == {"vmin": VMIN, "vmax": VMAX}
    with pytest.raises(InvalidInputError, match="a clip within"):
        ZarrPatchDataset(store, samples="patches", clip=(-60, 100))


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_module_of_a_set_has_the_sides_of_the_archive(store, archive, files, lazy, workers):
    options = {"val_fraction": 0.3, "batch_size": 2, "augment_train": False}
    module = SARDataModule(store, samples="patches", lazy=lazy, num_workers=workers, **options)
    old = SARDataModule(archive, **options)
    sides = [
        [
            sorted(rows_of(torch.cat(list(loader))[:, 0], files))
            for loader in (one.train_dataloader(), one.val_dataloader())
        ]
        for one in (module, old)
    ]
    assert sides[0][1] == sides[1][1]
    assert (module.train_size, module.val_size, module.left_out) == (old.train_size, old.val_size, 0)
    assert not {name[0] for name, _ in sides[0][0]} & {name[0] for name, _ in sides[0][1]}
    assert module.preprocessing_params == {"vmin": VMIN, "vmax": VMAX}
    assert module.get_sample_batch().shape == (2, 1, 16, 16)
    few = SARDataModule(store, samples="patches", max_samples=5, **options)
    assert few.train_size + few.val_size == 5


def test_a_written_split_of_a_set_is_used_when_asked_for(store, files):
    splits = sz.SplitManager(store)
    splits.create_initial_split("patches", val_ratio=0.3)
    module = SARDataModule(store, samples="patches", split="v1", batch_size=1, augment_train=False)
    train, val = splits.get_split("patches")
    assert (module.train_size, module.val_size) == (len(train), len(val))
    found = rows_of(torch.cat(list(module.val_dataloader()))[:, 0], files)
    assert sorted(f"{name}-{row:07d}" for name, row in found) == sorted(val)
