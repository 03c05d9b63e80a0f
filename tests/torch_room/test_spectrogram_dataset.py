"""Spectrograms as torch takes them: the same from their files and from a store."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from chip_folders import write_picture
from spectrogram_folders import PICTURE, add_sample, signal_folder

import sarzarr as sz
from sarzarr.errors import CorruptStoreError, InvalidInputError, UnsupportedRasterError

torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
from sarzarr.torch import SpectrogramDataset, create_data_loaders  # noqa: E402


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("signals")
    folder = signal_folder(root)
    samples, _ = sz.import_npz(folder, root / "s.zarr")
    return {
        "folder": (folder / "samples", root),
        "store": (root / "s.zarr" / "samples" / "beep", root / "s.zarr"),
        "set": (samples, samples.store),
    }


@pytest.mark.parametrize("kind", ["folder", "store", "set"])
def test_an_item_is_what_detectors_take(places, kind, caplog):
    place, _ = places[kind]
    with caplog.at_level(logging.WARNING):
        data = SpectrogramDataset(place, ["d", "nowhere", "a"])
    assert "beep: left out, without both files: nowhere" in caplog.text
    assert data.sample_ids == ("d", "a")
    assert len(data) == 2
    image, target = data[1]
    assert (image.shape, image.dtype) == ((3, 1024, 1024), torch.float32)
    for channel in image:
        assert channel.numpy().tobytes() == (PICTURE.astype(np.float32) / np.float32(255)).tobytes()
    assert target["boxes"].tolist() == [[1, 2, 30, 40], [0, 0, 1023.5, 7]]
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [1, 1]
    assert target["labels"].dtype == target["image_id"].dtype == torch.int64
    assert set(target) == {"boxes", "labels", "image_id"}
    _, without = data[0]
    assert (without["boxes"].shape, without["boxes"].dtype) == ((0, 4), torch.float32)
    assert (without["labels"].shape, without["labels"].dtype) == ((0,), torch.int64)
    alone = SpectrogramDataset(place, ["a"])
    assert alone[0][1]["image_id"].tolist() == target["image_id"].tolist()
    assert target["image_id"].shape == (1,)
    with pytest.raises(IndexError):
        data[2]
    with pytest.raises(InvalidInputError, match="an id"):
        SpectrogramDataset(place, ["../a"])


def test_ids_are_the_same_wherever_they_are_read(places):
    numbers = {
        kind: [SpectrogramDataset(place, ["a", "b"])[i][1]["image_id"].item() for i in (0, 1)]
        for kind, (place, _) in places.items()
    }
    reader = sz.SampleReader(places["store"][1], "beep")
    assert len({tuple(n) for n in numbers.values()}) == 1
    assert reader.selection.id[:2].tolist() == numbers["set"]


def test_a_transform_comes_last(places):
    place, _ = places["folder"]
    seen = []

    def transform(image, target):
        seen.append(image.dtype)
        return image[:1], {**target, "more": 1}

    image, target = SpectrogramDataset(place, ["a"], transform)[0]
    assert seen == [torch.float32]
    assert image.shape == (1, 1024, 1024)
    assert target["more"] == 1


@pytest.mark.parametrize("kind", ["folder", "store", "set"])
@pytest.mark.parametrize(("version", "train"), [(None, {"c", "a"}), (3, {"c", "a", "d"})])
def test_loaders_read_the_sides_of_a_version(places, kind, version, train):
    _, place = places[kind]
    loaders = create_data_loaders("beep", place, version, batch_size=2)
    assert set(loaders[0].dataset.sample_ids) == train
    assert loaders[1].dataset.sample_ids == ("b",)
    count = 0
    for images, targets in loaders[0]:
        assert isinstance(images, list)
        assert isinstance(targets, list)
        assert images[0].shape == (3, 1024, 1024)
        count += len(images)
    assert count == len(train)
    assert isinstance(loaders[0].sampler, torch.utils.data.RandomSampler)
    assert isinstance(loaders[1].sampler, torch.utils.data.SequentialSampler)


def test_workers_read_what_this_process_reads(places):
    for kind in ("folder", "store"):
        _, val = create_data_loaders("beep", places[kind][1], num_workers=1)
        ((images, targets),) = val
        image, target = val.dataset[0]
        assert torch.equal(images[0], image)
        assert torch.equal(targets[0]["boxes"], target["boxes"])


def test_without_a_split_or_a_sample_it_says_so(tmp_path):
    folder = tmp_path / "signals" / "beep"
    add_sample(folder, "a", PICTURE, {})
    add_sample(folder, "b", PICTURE, {})
    with pytest.raises(FileNotFoundError, match="No splits found for 'beep'"):
        create_data_loaders("beep", tmp_path)
    sz.SplitManager(tmp_path).create_initial_split("beep")
    (train,) = sz.SplitManager(tmp_path).get_split("beep")[0]
    (folder / "samples" / f"{train}.npz").unlink()
    with pytest.raises(InvalidInputError, match="samples for training"):
        create_data_loaders("beep", tmp_path)


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    signal_folder(tmp_path / "training_data")
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "docs"}
    page = (Path(__file__).parents[2] / "docs/spectrograms.md").read_text()
    for piece in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(piece, "spectrograms.md", "exec"), space)
    assert len(space["images"]) == 2
    assert len(space["data"]) == 2
    assert Path("exported/signals/beep/splits/active.json").exists()


def test_pictures_of_another_kind_are_refused(tmp_path):
    write_picture(tmp_path / "chips" / "a.png", PICTURE.astype(np.uint16))
    sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    with pytest.raises(InvalidInputError, match="got uint16"):
        SpectrogramDataset(tmp_path / "s.zarr/samples/chips", ["a"])


def test_damage_is_an_error(tmp_path):
    folder = signal_folder(tmp_path)
    samples, _ = sz.import_npz(folder, tmp_path / "s.zarr")
    (folder / "samples" / "a.npz").write_bytes(b"not an archive")
    with pytest.raises(UnsupportedRasterError, match=r"a\.npz"):
        SpectrogramDataset(folder / "samples", ["a"])[0]
    shard = samples.folder / "image" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[50] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(CorruptStoreError):
        [SpectrogramDataset(samples, samples.ids)[i] for i in range(4)]
