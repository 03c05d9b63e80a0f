"""An augmentation of values is one entry of `AUGMENTATIONS`, and readers do all else."""

import numpy as np
import pytest
from loader_stores import make_store
from PIL import Image

import sarzarr as sz
from sarzarr.conventions import Flag
from sarzarr.errors import InvalidInputError
from sarzarr.pixels.turns import apply, apply_to_boxes
from sarzarr.reader.augment import AUGMENTATIONS, Augmentation, Draws
from sarzarr.store.boxes import Boxes, write_boxes

OPTIONS = {
    "polarizations": "vv",
    "min_valid": 0,
    "min_unsaturated": 0,
    "edge": "pad",
    "batch_size": 3,
    "seed": 4,
}


def gains(random, n):
    return random.uniform(0.5, 2, n).astype(np.float32)


def noise(images, seeds):
    """Add what differs by pixel, and lifts a 0."""
    made = [
        np.random.default_rng(seed).uniform(0.1, 0.2, image.shape)
        for image, seed in zip(images, seeds.flat, strict=True)
    ]
    return images + np.array(made, np.float32)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Register augmentations for the time of a test, as `augment.py` would."""
    monkeypatch.setitem(AUGMENTATIONS, "gain", Augmentation(draw=gains, apply=np.multiply))
    monkeypatch.setitem(AUGMENTATIONS, "noise", Augmentation(apply=noise))
    turned = Augmentation(turns=AUGMENTATIONS["d4"].turns, draw=gains, apply=np.multiply)
    monkeypatch.setitem(AUGMENTATIONS, "turned_gain", turned)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = make_store(tmp_path_factory.mktemp("values"))
    boxes = np.array([[400, 300, 440, 333], [900, 700, 950, 720]], np.float32)
    write_boxes(made, Boxes.gathered({"a": (boxes, ["ship"] * 2)}, {"a": (1100, 1300)}))
    return made


def whole(reader):
    return np.concatenate(list(reader))


@pytest.mark.parametrize("kind", ["gain", "noise", "turned_gain"])
def test_values_change_and_flags_and_boxes_do_not(store, kind):
    both = {"flags": True, "boxes": True, "with_meta": True, "scenes": ["a"]}
    plain = list(sz.PatchReader(store, **OPTIONS, **both))
    reader = sz.PatchReader(store, **OPTIONS, **both, augment=kind)
    for epoch in range(2):
        draws, position, seen = reader.draws(epoch), 0, 0
        assert len(set(draws.numbers.tolist())) == len(draws.numbers)
        for before, after in zip(plain, reader, strict=True):
            for i, image in enumerate(before["image"]):
                turn = int(draws.turns[position])
                assert after["turn"][i] == turn
                truth = AUGMENTATIONS[kind].apply(apply(turn, image)[None], draws.numbers[[position]])[0]
                flags = apply(turn, before["flags"][i])
                truth = np.where(Flag.is_valid(flags), np.clip(truth, 0, 1), 0)
                np.testing.assert_array_equal(after["image"][i], truth)
                np.testing.assert_array_equal(after["flags"][i], flags)
                boxes = apply_to_boxes(turn, before["target"][i]["boxes"], shape=(256, 256))
                np.testing.assert_array_equal(after["target"][i]["boxes"], boxes)
                position, seen = position + 1, seen + len(boxes)
        assert seen >= 2
        assert position == len(draws.numbers)
    assert (reader.draws(0).numbers != reader.draws(1).numbers).all()


@pytest.mark.parametrize("kind", ["gain", "noise", "turned_gain"])
def test_values_depend_on_seed_and_epoch_alone(store, kind):
    options = OPTIONS | {"augment": kind, "shuffle": True}
    one, four = (sz.PatchReader(store, **options, threads=threads) for threads in (1, 4))
    truth = [[batch.copy() for batch in one] for _ in range(2)]
    for epoch in truth:
        np.testing.assert_array_equal(whole(four), np.concatenate(epoch))
    assert (np.concatenate(truth[0])[:, 0, 0, 0] != np.concatenate(truth[1])[:, 0, 0, 0]).any()
    four.set_epoch(0)
    taken = iter(four)
    for _ in range(2):
        next(taken)
    resumed = sz.PatchReader(store, **options)
    resumed.load_state_dict(four.state_dict())
    np.testing.assert_array_equal(whole(resumed), np.concatenate(truth[0][2:]))
    np.testing.assert_array_equal(whole(resumed), np.concatenate(truth[1]))


def test_what_was_not_measured_stays_0_where_no_flags_are_asked(store):
    flags = np.concatenate([flags for _, flags in sz.PatchReader(store, **OPTIONS, flags=True)])
    images = whole(sz.PatchReader(store, **OPTIONS, augment="noise"))
    is_valid = Flag.is_valid(flags)
    assert not is_valid.all()
    assert not images[~is_valid].any()
    assert images[is_valid].min() >= np.float32(0.1)
    assert images.max() <= 1


def test_values_of_samples_change_and_their_padding_stays_0(tmp_path):
    (tmp_path / "chips").mkdir()
    for i, shape in enumerate([(40, 60), (256, 256), (30, 256)]):
        Image.fromarray(np.full(shape, 51, np.uint8)).save(tmp_path / "chips" / f"p{i}.png")
    sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    images = whole(sz.SampleReader(tmp_path / "s.zarr", "chips", augment="noise"))
    for image, (height, width) in zip(images[:, 0], [(40, 60), (256, 256), (30, 256)], strict=True):
        assert image[:height, :width].min() >= np.float32(0.3)
        image[:height, :width] = 0
        assert not image.any()


def test_numbers_meet_every_axis_of_a_patch():
    images = np.full((2, 3, 1, 4, 4), 0.25, np.float32)  # a stack of three dates
    draws = Draws(turns=np.zeros(2, np.uint8), numbers=np.array([2, 5], np.float32), apply=np.multiply)
    draws.change(images)
    assert (images[0] == 0.5).all()
    assert (images[1] == 1).all()
    assert draws[1:].numbers.tolist() == [5]


def test_codes_are_refused_with_a_remedy(store):
    with pytest.raises(
        InvalidInputError, match=r"augment='gain' needs dtype='float32', got 'uint16'.*Leave one out"
    ):
        sz.PatchReader(store, augment="gain", dtype="uint16")
    assert whole(sz.PatchReader(store, augment="d4", dtype="uint16")).dtype == np.uint16


@pytest.mark.parametrize("kind", [None, "d4", "flips", "azimuth"])
def test_an_augmentation_that_only_turns_costs_neither_flags_nor_a_copy(store, kind):
    reader = sz.PatchReader(store, **OPTIONS, augment=kind)
    assert reader.recipe.flags is None
    assert not reader.recipe.masks
    draws = reader.draws(0)
    assert draws.numbers is None
    assert draws.turns.any() == (kind is not None)
    images = np.full((1, 1, 4, 4), 7, np.float32)  # no value of a batch: neither cut nor written
    images.flags.writeable = False
    draws.change(images)
    assert (images == 7).all()
