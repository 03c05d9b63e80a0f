"""Augmentations of values: functions of images in [0, 1] and of linear power, and readers do all else."""

import pickle

import numpy as np
import pytest
from loader_stores import make_store
from PIL import Image
from tiffs import write

import sarzarr as sz
from sarzarr.conventions import Flag
from sarzarr.errors import InvalidInputError
from sarzarr.pixels.turns import apply, apply_to_boxes, inverse
from sarzarr.reader.augment import (
    AdditiveNoise,
    Augmentation,
    Gain,
    PowerChange,
    Speckle,
)
from sarzarr.reader.order import Position, Share
from sarzarr.store.boxes import Boxes, write_boxes

OPTIONS = {
    "polarizations": "vv",
    "min_valid": 0,
    "min_unsaturated": 0,
    "edge": "pad",
    "batch_size": 3,
    "seed": 4,
}


def gain(images, rngs):
    factors = [rng.uniform(0.5, 2) for rng in rngs]
    return images * np.array(factors, np.float32).reshape(-1, *[1] * (images.ndim - 1))


def noise(images, rngs):
    """Add what differs by pixel, and lifts a 0."""
    made = [rng.uniform(0.1, 0.2, image.shape) for image, rng in zip(images, rngs, strict=True)]
    return images + np.array(made, np.float32)


KINDS = {
    "gain": gain,
    "noise": noise,
    "turned_gain": ("d4", gain),
    "both": Augmentation(turns=(0, 3), changes=(gain, noise)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = make_store(tmp_path_factory.mktemp("values"))
    boxes = np.array([[400, 300, 440, 333], [900, 700, 950, 720]], np.float32)
    write_boxes(made, Boxes.gathered({"a": (boxes, ["ship"] * 2)}, {"a": (1100, 1300)}))
    return made


def whole(reader):
    return np.concatenate(list(reader))


@pytest.mark.parametrize("kind", KINDS)
def test_values_change_and_flags_and_boxes_do_not(store, kind):
    both = {"flags": True, "boxes": True, "with_meta": True, "scenes": ["a"]}
    plain = list(sz.PatchReader(store, **OPTIONS, **both))
    reader = sz.PatchReader(store, **OPTIONS, **both, augment=KINDS[kind])
    changes = reader.options.augmentation.changes
    for epoch in range(2):
        draws, position, seen = reader.draws(epoch, reader.order(epoch)), 0, 0
        for before, after in zip(plain, reader, strict=True):
            for i, image in enumerate(before["image"]):
                turn = int(draws.turns[position])
                assert after["turn"][i] == turn
                truth = apply(turn, image)[None]
                rng = np.random.default_rng((OPTIONS["seed"], epoch, 3, int(before["id"][i]), 0))
                for change in changes:
                    truth = np.clip(change(truth, [rng]), 0, 1)
                flags = apply(turn, before["flags"][i])
                np.testing.assert_array_equal(after["image"][i], np.where(Flag.is_valid(flags), truth[0], 0))
                np.testing.assert_array_equal(after["flags"][i], flags)
                boxes = apply_to_boxes(turn, before["target"][i]["boxes"], shape=(256, 256))
                np.testing.assert_array_equal(after["target"][i]["boxes"], boxes)
                position, seen = position + 1, seen + len(boxes)
        assert seen >= 2
        assert position == len(draws.turns)


@pytest.mark.parametrize("kind", KINDS)
def test_values_depend_on_seed_and_epoch_alone(store, kind):
    options = OPTIONS | {"augment": KINDS[kind], "shuffle": True}
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
    images = whole(sz.PatchReader(store, **OPTIONS, augment=noise))
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
    images = whole(sz.SampleReader(tmp_path / "s.zarr", "chips", augment=noise))
    for image, (height, width) in zip(images[:, 0], [(40, 60), (256, 256), (30, 256)], strict=True):
        assert image[:height, :width].min() >= np.float32(0.3)
        image[:height, :width] = 0
        assert not image.any()


def test_codes_are_refused_with_a_remedy(store):
    with pytest.raises(InvalidInputError, match=r"needs dtype='float32', got 'uint16'.*Leave one out"):
        sz.PatchReader(store, augment=gain, dtype="uint16")
    assert whole(sz.PatchReader(store, augment="d4", dtype="uint16")).dtype == np.uint16


@pytest.mark.parametrize("kind", [None, "d4", "flips", "azimuth"])
def test_an_augmentation_that_only_turns_costs_neither_flags_nor_a_copy(store, kind):
    reader = sz.PatchReader(store, **OPTIONS, augment=kind)
    assert reader.recipe.flags is None
    assert not reader.recipe.masks
    draws = reader.draws(0, reader.order(0))
    assert draws.patches is None
    assert draws.turns.any() == (kind is not None)
    images = np.full((1, 1, 4, 4), 7, np.float32)  # no value of a batch: neither cut nor written
    images.flags.writeable = False
    draws.change(images)
    assert (images == 7).all()


# ------------------------------------------------------------------ linear power
SCENE = (512, 768)
CLIP = (-30.0, 10.0)


@pytest.fixture(scope="module")
def speckled(tmp_path_factory):
    """A store of speckle of 4 looks around 1, with what was not measured at its right."""
    folder = tmp_path_factory.mktemp("speckled")
    rng = np.random.default_rng(1)
    for pol in ("vv", "vh"):
        power = rng.gamma(4, 1 / 4, SCENE).astype(np.float32)
        power[:, 640:] = np.nan
        write(folder / f"a_{pol}.tif", power)
    options = {"quantity": "sigma0", "representation": "power"}
    return sz.ingest(sz.plan_ingest(folder, folder / "s.zarr", **options))


def power_of(reader):
    """Return the power of each valid pixel, patch by patch (n, C, 256, 256), NaN where not valid."""
    images, flags = (np.concatenate(part) for part in zip(*reader, strict=True))
    assert images.min() >= 0
    assert images.max() <= 1
    assert not images[~Flag.is_valid(flags)].any()
    vmin, vmax = reader.preprocessing_params.values()
    power = sz.from_db(images.astype(float) * (vmax - vmin) + vmin)
    return np.where(Flag.is_valid(flags), power, np.nan)


def reader_of(store, augment, **options):
    wide = {"clip": (-60, 40), "flags": True, "min_unsaturated": 0, "min_valid": 0.1, "seed": 2}
    return sz.PatchReader(store, augment=augment, **(wide | options))


def looks_of(power):
    return np.nanmean(power) ** 2 / np.nanvar(power)


@pytest.mark.parametrize("looks", [1, 2.5, 10])
def test_speckle_keeps_the_mean_of_power_and_lowers_its_looks(speckled, looks):
    before, after = (power_of(reader_of(speckled, a)) for a in (None, Speckle(looks=looks)))
    assert np.nanmean(after) == pytest.approx(np.nanmean(before), rel=0.005)
    old = looks_of(before)
    assert old == pytest.approx(4, rel=0.02)
    assert looks_of(after) == pytest.approx(1 / (1 / old + 1 / looks + 1 / (old * looks)), rel=0.02)
    ratio = (after / before)[np.isfinite(before)]
    assert ratio.var() == pytest.approx(1 / looks, rel=0.03)


def test_a_gain_is_one_factor_for_a_patch(speckled):
    before, after = (power_of(reader_of(speckled, a)) for a in (None, Gain(std_db=2)))
    factors = (after / before).reshape(len(before), -1)
    np.testing.assert_allclose(np.nanmax(factors, 1), np.nanmin(factors, 1), rtol=1e-4)
    ids = np.arange(4000, dtype=np.int64)
    images = np.full((len(ids), 1, 1, 1), 0.5, np.float32)
    draws = Augmentation(changes=(Gain(std_db=2),)).drawn(ids, seed=0, epoch=0)
    draws.change(images, np.broadcast_to([-60.0, 40.0, -60.0, 40.0], (len(ids), 1, 4)))
    db = images.astype(float) * 100 - 60
    assert db.mean() == pytest.approx(-10, abs=0.1)
    assert db.std() == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("looks", [1, 5])
def test_additive_noise_adds_its_mean_and_its_variance(speckled, looks):
    noise = AdditiveNoise(nesz_db=-3, looks=looks)
    before, after = (power_of(reader_of(speckled, a)) for a in (None, noise))
    added = (after - before)[np.isfinite(before)]
    mean = 10**-0.3
    assert added.min() > -1e-4
    assert added.mean() == pytest.approx(mean, rel=0.01)
    assert added.var() == pytest.approx(mean**2 / looks, rel=0.05)


@pytest.mark.parametrize("store_dtype", ["uint16", "float32"])
def test_power_is_that_of_the_stored_pixels_and_not_of_the_clipped_ones(tmp_path, store_dtype):
    power = np.random.default_rng(3).gamma(4, 1 / 4, (256, 256)).astype(np.float32)
    path = write(tmp_path / "a_vv.tif", power)
    options = {"quantity": "sigma0", "representation": "power", "dtype": store_dtype}
    made = sz.ingest(sz.plan_ingest(path, tmp_path / "s.zarr", **options))

    reader = reader_of(made, Halved(), clip=(-3, 0), flags=False)
    stored = whole(reader_of(made, None, clip=(-60, 100), flags=False)).astype(float)
    db = stored * 160 - 60 - 10 * np.log10(2)
    np.testing.assert_allclose(whole(reader), np.clip((db + 3) / 3, 0, 1), atol=2e-5)
    plain = whole(reader_of(made, None, clip=(-3, 0), flags=False))
    np.testing.assert_array_equal(reader.read([0]), plain)  # by number: as it is


class Halved(PowerChange):
    def __call__(self, power, rngs):
        return power / 2


def test_channels_of_two_clips_each_have_their_own(speckled):
    clips = {key: (-20 - i, 15) for i, key in enumerate(sorted(speckled.bounds))}
    options = {"polarizations": ["vv", "vh"], "flags": False, "clip": clips, "min_valid": 1}
    truth = [whole(reader_of(speckled, Halved(), **options | {"polarizations": pol})) for pol in ("vv", "vh")]
    np.testing.assert_array_equal(
        whole(reader_of(speckled, Halved(), **options)), np.concatenate(truth, axis=1)
    )


def test_the_same_patch_in_the_same_epoch_gets_the_same_draw(speckled):
    augment = ("d4", Speckle(looks=3), Gain(std_db=1), AdditiveNoise(nesz_db=-10), noise)
    options = {"augment": augment, "with_meta": True, "flags": False, "batch_size": 3}

    def by_id(reader, epoch=0):
        reader.set_epoch(epoch)
        return {int(i): apply_to(batch, k) for batch in reader for k, i in enumerate(batch["id"].tolist())}

    def apply_to(batch, k):
        return apply(inverse(int(batch["turn"][k])), batch["image"][k]).copy()

    same = options | {"augment": augment[1:]}
    one = by_id(reader_of(speckled, **same))
    for other in ({"shuffle": True}, {"threads": 4, "batch_size": 2}, {"polarizations": "vv"}):
        for patch, image in by_id(reader_of(speckled, **same | other)).items():
            np.testing.assert_array_equal(image, one[patch])
    for other in (by_id(reader_of(speckled, **same), 1), by_id(reader_of(speckled, **same | {"seed": 3}))):
        assert all((other[patch] != image).any() for patch, image in one.items())
    shared = reader_of(speckled, **same | {"shuffle": True})
    for rank in range(2):
        for batch in shared.batches(Position(), Share(rank=rank, ranks=2)):
            for k, patch in enumerate(batch["id"].tolist()):
                np.testing.assert_array_equal(apply_to(batch, k), one[patch])
    reader = pickle.loads(pickle.dumps(reader_of(speckled, **options, shuffle=True)))
    truth = [batch["image"].copy() for batch in reader]
    reader.set_epoch(0)
    taken = iter(reader)
    next(taken)
    resumed = reader_of(speckled, **options, shuffle=True, threads=1)
    resumed.load_state_dict(reader.state_dict())
    np.testing.assert_array_equal(
        np.concatenate([batch["image"] for batch in resumed]), np.concatenate(truth[1:])
    )


def test_a_patch_that_is_drawn_again_is_drawn_anew(store):
    options = {"with_meta": True, "weights": {"a": 0.1, "b": 1}, "polarizations": "vv", "batch_size": 1}
    seen: dict[int, list] = {}
    for batch in reader_of(store, Speckle(looks=1), **options):
        seen.setdefault(int(batch["id"][0]), []).append(batch["image"].tobytes())
    assert max(map(len, seen.values())) > 1
    assert all(len(set(images)) == len(images) for images in seen.values())


def test_pictures_have_no_power(tmp_path):
    (tmp_path / "chips").mkdir()
    Image.fromarray(np.full((40, 60), 51, np.uint8)).save(tmp_path / "chips" / "p.png")
    sz.import_chips(tmp_path / "chips", tmp_path / "s.zarr")
    with pytest.raises(InvalidInputError, match=r"with dB were expected.*no power. Give a function"):
        sz.SampleReader(tmp_path / "s.zarr", "chips", augment=Speckle(looks=4))


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("elastic", "augment must be one of d4, flips, azimuth"),
        (("d4", "flips"), r"expected one of d4, flips, azimuth.*Keep one"),
        ((noise, Speckle(looks=2)), "expected changes of power before"),
        (Speckle, "augment must be one of"),
        (3, "augment must be one of"),
    ],
)
def test_what_is_no_augmentation_is_refused(store, augment, message):
    with pytest.raises(InvalidInputError, match=message):
        sz.PatchReader(store, augment=augment)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Speckle(looks=0),
        lambda: Gain(std_db=-1),
        lambda: AdditiveNoise(nesz_db=-20, looks=np.nan),
        lambda: AdditiveNoise(nesz_db=np.inf),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make):
    with pytest.raises(InvalidInputError, match="expected"):
        make()


@pytest.mark.parametrize("change", [lambda images, rngs: None, lambda images, rngs: images[:, :, 1:]])
def test_a_function_that_returns_something_else_is_refused(store, change):
    with pytest.raises(InvalidInputError, match=r"expected an array of shape .* Return the new values"):
        next(iter(sz.PatchReader(store, augment=change)))
