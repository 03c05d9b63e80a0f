"""Crops are slices of the store, on the chosen ground alone, anew each epoch, and counted like any other patches."""

import pickle

import numpy as np
import pytest
from conftest import speckle, write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_stores import codes, expected, places

import sarzarr as sz
from sarzarr.errors import InvalidInputError, NothingChosenError
from sarzarr.reader.order import Share
from sarzarr.store.split_table import read_side


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Scenes ``a`` (VV, VH, a mask; nodata in a corner and inside) and ``b`` (VV), with a split by ground."""
    folder = tmp_path_factory.mktemp("crops")
    vv = speckle((1100, 1300), seed=5)
    vv[:300, :270] = np.nan
    vv[700:720, 900:930] = np.nan
    write_band(folder / "a_vv.tif", vv, tiles=128)
    write_band(folder / "a_vh.tif", speckle((1100, 1300), seed=6, mean=0.01), tiles=128)
    write_band(folder / "labels.tif", (np.nan_to_num(vv) > 0.05).astype("uint8"), tiles=128)
    write_band(folder / "b_vv.tif", speckle((600, 800), seed=7, mean=0.1), tiles=128, crs="EPSG:32634")
    known = {"quantity": "sigma0", "representation": "power", "shard": 512, "strict": True}
    files = [folder / "a_vv.tif", folder / "a_vh.tif"]
    layers = {"mask": folder / "labels.tif"}
    sz.ingest(sz.plan_ingest(files, folder / "s.zarr", layers=layers, **known))
    made = sz.ingest(sz.plan_ingest([folder / "b_vv.tif"], folder / "s.zarr", **known))
    sz.make_split(made, val_fraction=0.3, block=6000, guard=0, seed=3)
    sz.PatchReader(made, **OPTIONS)  # what crops are measured by is indexed
    return made.anew()


OPTIONS = {"crops": "random", "min_unsaturated": 0, "batch_size": 7, "seed": 1}
kinds = st.sampled_from(["random", "jitter"])


def every(reader):
    batches = list(reader)
    return np.concatenate([b if isinstance(b, np.ndarray) else b[0] for b in batches])


@settings(max_examples=10)
@given(
    st.sampled_from([17, 100, 256, 300]),
    kinds,
    st.sampled_from([None, ["vv"], ["vv", "vh"]]),
    st.integers(0, 3),
    st.sampled_from([1.0, 0.5]),
)
def test_crops_are_slices_of_the_store(store, size, kind, polarizations, epoch, least):
    reader = sz.PatchReader(
        store, **OPTIONS | {"crops": kind}, patch_size=size, polarizations=polarizations, min_valid=least
    )
    reader.set_epoch(epoch)
    images, of_epoch = every(reader), reader.in_epoch(epoch)
    assert len(images) == len(reader.selection) > 0
    whole = {
        (s, a): (expected(store, s, a), codes(store, s, f"{a}_flags") < 2)
        for s in store.scenes
        for a in store.arrays(s)
    }
    for image, (scene, arrays, row, col) in zip(images, places(of_epoch), strict=True):
        for plane, array in zip(image, arrays, strict=True):
            pixels, valid = (values[row : row + size, col : col + size] for values in whole[scene, array])
            assert pixels.shape == (size, size)
            assert valid.mean() >= least
            np.testing.assert_allclose(plane, pixels, atol=2e-6)


def test_epochs_differ_and_are_functions_of_seed_and_epoch(store):
    reader, same, other = (sz.PatchReader(store, **OPTIONS | {"seed": seed}) for seed in (1, 1, 2))
    first, second = every(reader), every(reader)
    assert not np.array_equal(first, second)
    same.set_epoch(1)
    np.testing.assert_array_equal(every(same), second)
    assert not np.array_equal(every(other), first)


@pytest.mark.parametrize("side", ["train", "val"])
@pytest.mark.parametrize("kind", ["random", "jitter"])
def test_no_crop_touches_a_cell_of_another_side(store, side, kind):
    record, wanted = read_side(store.place, side)
    sides = {scene.scene: scene.codes for scene in record.scenes}
    assert all(len(np.unique(held)) > 1 for held in sides.values())
    reader = sz.PatchReader(store, **OPTIONS | {"crops": kind}, split=side, patch_size=100)
    for epoch in range(3):
        for scene, _, row, col in places(reader.in_epoch(epoch)):
            touched = sides[scene][row // 256 : (row + 99) // 256 + 1, col // 256 : (col + 99) // 256 + 1]
            assert (touched == wanted).all()


def test_every_place_has_an_equal_chance(store):
    """Of 60 x 60 pixels on scene b: corners as often as the middle, by a chi-square of 24 regions of places."""
    reader = sz.PatchReader(store, **OPTIONS, scenes=["b"], patch_size=60, per_epoch=24_000)
    chosen = reader.selection
    assert chosen.row.min() < 5
    assert chosen.col.max() > 800 - 60 - 5
    rows, cols = np.linspace(0, 541, 5), np.linspace(0, 741, 7)
    counts, _, _ = np.histogram2d(chosen.row, chosen.col, [rows, cols])
    areas = np.outer(*(np.diff(np.ceil(edges)) for edges in (rows, cols)))
    wanted = areas / areas.sum() * 24_000
    assert ((counts - wanted) ** 2 / wanted).sum() < 50  # 23 degrees of freedom: 1 in 1,000 by chance


def test_crops_are_as_many_as_the_ground_has_pixels_for(store):
    assert len(sz.PatchReader(store, **OPTIONS, scenes=["b"]).selection) == 600 * 800 // 256**2
    assert len(sz.PatchReader(store, **OPTIONS, scenes=["b"], patch_size=64).selection) == 600 * 800 // 64**2
    assert len(sz.PatchReader(store, **OPTIONS, scenes=["b"], per_epoch=50).selection) == 50


def test_windows_beside_what_was_not_measured_are_taken_where_they_miss_it(store):
    """The corner's nodata ends within cells: windows up to its edge are valid, and come."""
    reader = sz.PatchReader(
        store, **OPTIONS, polarizations=["vv"], scenes=["a"], patch_size=32, per_epoch=4000
    )
    row, col = reader.selection.row, reader.selection.col
    assert not ((row < 300) & (col < 270)).any()
    assert ((row >= 300) & (row < 512) & (col < 256)).any()
    assert not ((row > 700 - 32) & (row < 720) & (col > 900 - 32) & (col < 930)).any()
    assert ((row >= 720) & (row + 32 <= 768) & (col >= 868) & (col < 960)).any()


@pytest.mark.parametrize("kind", ["random", "jitter"])
def test_ranks_share_an_epoch_and_others_take_up_the_rest(store, kind):
    reader = sz.PatchReader(store, **OPTIONS | {"crops": kind, "batch_size": 3}, patch_size=100, shuffle=True)
    reader.set_epoch(2)
    begin = reader.position_of(reader.state_at(reader._cursor.upcoming, taken=2, ranks=2))
    of_epoch = reader.in_epoch(2)
    known = {image.tobytes(): i for i, image in enumerate(of_epoch.read(np.arange(len(of_epoch.selection))))}
    taken = [
        known[image.tobytes()]
        for rank in range(2)
        for batch in list(reader.batches(reader._cursor.upcoming, Share(rank=rank, ranks=2)))[:2]
        for image in batch
    ]
    rest = [
        known[image.tobytes()]
        for batch in pickle.loads(pickle.dumps(reader)).batches(begin)
        for image in batch
    ]
    assert sorted(taken + rest) == sorted(known.values())
    batches = list(reader.batches(reader._cursor.upcoming))
    np.testing.assert_array_equal(reader[1], batches[1])


def test_flags_layers_metadata_and_turns_are_of_the_same_windows(store):
    options = {
        "layers": ["mask"],
        "with_meta": True,
        "augment": "d4",
        "scenes": ["a"],
        "polarizations": ["vv"],
    }
    reader = sz.PatchReader(store, **OPTIONS, **options, patch_size=64, min_valid=0.2)
    mask, whole, flags = codes(store, "a", "mask"), expected(store, "a", "vv"), codes(store, "a", "vv_flags")
    list(reader)
    for batch in reader:  # of epoch 1
        for i, (row, col) in enumerate(zip(batch["row"].tolist(), batch["col"].tolist(), strict=True)):
            window = np.s_[row : row + 64, col : col + 64]
            turn = int(batch["turn"][i])
            image = sz.pixels.turns.apply(turn, whole[window])
            np.testing.assert_allclose(batch["image"][i, 0], image, atol=2e-6)
            np.testing.assert_array_equal(
                batch["layers"]["mask"][i, 0], sz.pixels.turns.apply(turn, mask[window])
            )
            np.testing.assert_array_equal(batch["flags"][i, 0], sz.pixels.turns.apply(turn, flags[window]))
            assert (flags[window] < 2).mean() >= 0.2


def test_a_patch_is_moved_by_half_a_stride_at_most_and_stays_where_it_cannot(store):
    still = sz.PatchReader(store, min_unsaturated=0, seed=1)
    moved = sz.PatchReader(store, **OPTIONS | {"crops": "jitter"})
    assert len(still.selection) == len(moved.selection)
    for epoch in range(2):
        chosen = moved.in_epoch(epoch).selection
        distances = np.stack([chosen.row - still.selection.row, chosen.col - still.selection.col])
        assert np.abs(distances).max() <= 128
        assert (distances != 0).any(axis=0).mean() > 0.5
    assert len({*moved.in_epoch(5).selection.id.tolist()} & {*still.selection.id.tolist()}) < len(
        still.selection
    )


def test_preprocessing_and_statistics_are_of_all_the_ground(store):
    few, all_ = sz.PatchReader(store, **OPTIONS, per_epoch=1), sz.PatchReader(store, min_unsaturated=0)
    np.testing.assert_array_equal(few.statistics().mean, all_.statistics().mean)


def test_a_state_of_other_crops_is_refused(store):
    state = sz.PatchReader(store, **OPTIONS, per_epoch=10).state_dict()
    with pytest.raises(InvalidInputError, match="crops"):
        sz.PatchReader(store, **OPTIONS, per_epoch=10, patch_size=64).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"stride": 128}, InvalidInputError, "got stride="),
        ({"weights": "mean_db"}, InvalidInputError, "got weights="),
        ({"crops": "any"}, InvalidInputError, "crops must be random, jitter or None"),
        ({"crops": None, "per_epoch": 4}, InvalidInputError, "needs crops='random'"),
        ({"crops": "jitter", "edge": "pad"}, InvalidInputError, "got edge='pad'"),
        ({"patch_size": 700, "scenes": ["b"]}, NothingChosenError, "a window of 700 x 700"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_remedy(store, options, error, says):
    with pytest.raises(error, match=says):
        sz.PatchReader(store, **OPTIONS | options)


def test_readers_of_crops_are_not_joined(store):
    with pytest.raises(InvalidInputError, match="got crops"):
        _ = sz.PatchReader(store, **OPTIONS) | sz.PatchReader(store, **OPTIONS)
