"""PatchReader: what is delivered, in which order, and that nothing is lost, repeated or overwritten."""

import gc
import multiprocessing
import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_stores import codes, expected, make_store, numbered, places

import sarzarr as sz
from sarzarr.errors import (
    CorruptStoreError,
    InvalidInputError,
    MixedBoundsError,
    NotInStoreError,
    StoreNotFoundError,
)
from sarzarr.pixels.compiled.when import loops
from sarzarr.pixels.turns import apply
from sarzarr.reader.memory import BatchMemory, available_cores, available_handles
from sarzarr.reader.order import Position, Share
from sarzarr.splits.make import make_split
from sarzarr.store.boxes import Boxes, write_boxes


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="module")
def numbers(store):
    """Return a function that names the patches of the VV reader by their pixels."""
    return numbered(sz.PatchReader(store, polarizations="vv"))


def patch(image, row, col, size):
    """Return a window, 0 beyond the edge."""
    out = np.zeros((size, size), image.dtype)
    inside = image[row : row + size, col : col + size]
    out[: inside.shape[0], : inside.shape[1]] = inside
    return out


def check(reader, *, clip=None, atol=2e-6):
    """Compare every patch of an unshuffled reader with the law."""
    truth = {}
    delivered = np.concatenate([b[0] if isinstance(b, tuple) else b for b in reader])
    where = places(reader)
    assert delivered.shape == (len(where), len(where[0][1]), *reader.selection.shape)
    assert delivered.dtype == np.float32
    for image, (scene, arrays, row, col) in zip(delivered, where, strict=True):
        for channel, array in zip(image, arrays, strict=True):
            if (scene, array) not in truth:
                truth[scene, array] = expected(reader.store, scene, array, clip)
            np.testing.assert_allclose(
                channel, patch(truth[scene, array], row, col, reader.selection.shape[0]), atol=atol
            )


# ------------------------------------------------------------------ what is delivered
@pytest.mark.parametrize("dtype", ["uint16", "float32", "float16"])
@pytest.mark.parametrize("shard", [512, 0])
def test_every_patch_is_what_the_law_says(tmp_path, dtype, shard):
    made = make_store(tmp_path, dtype=dtype, shard=shard)
    reader = sz.PatchReader(made, batch_size=7)
    check(reader)
    assert [len(b) for b in reader][:-1] == [7] * (len(reader) - 1)
    assert len(reader.selection) == 4 * 5 * 2 - 2 + 2 * 3 - 2  # less two with nodata, and by the counts below


def test_an_explicit_clip_is_applied_and_said(store):
    reader = sz.PatchReader(store, clip=(-30, 2.5), min_unsaturated=0)
    check(reader, clip=(-30, 2.5))
    assert reader.preprocessing_params == {"vmin": -30.0, "vmax": 2.5}


def test_the_bounds_delivered_bring_back_db(store):
    reader = sz.PatchReader(store, polarizations=["vv"], clip=(-60, 100))
    bounds = reader.preprocessing_params
    image = np.concatenate(list(reader))[3, 0]
    scene, (array,), row, col = places(reader)[3]
    db = sz.denormalize(image, (bounds["vmin"], bounds["vmax"]))
    truth = store.db(scene, array).values[row : row + 256, col : col + 256]
    np.testing.assert_allclose(db, truth, atol=2e-5)


def test_a_selection_with_several_clips_is_delivered_and_has_no_single_pair(store):
    reader = sz.PatchReader(store)
    with pytest.raises(MixedBoundsError, match=r"vh/sigma0, vv/sigma0.*polarizations="):
        _ = reader.preprocessing_params
    single = sz.PatchReader(store, polarizations=["VH"]).preprocessing_params
    entry = store.bounds["vh/sigma0"]
    assert single == {"vmin": entry.clip_vmin, "vmax": entry.clip_vmax}


def test_codes_are_handed_over_as_stored(store):
    reader = sz.PatchReader(store, dtype="uint16", batch_size=50)
    (batch,) = reader
    assert batch.dtype == np.uint16
    for image, (scene, (array,), row, col) in zip(batch, places(reader), strict=True):
        np.testing.assert_array_equal(image[0], codes(store, scene, array)[row : row + 256, col : col + 256])
    assert sz.PatchReader(store, dtype="uint16").preprocessing_params == {"vmin": -60.0, "vmax": 100.0}


def test_codes_of_a_float_store_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="needs arrays of codes"):
        sz.PatchReader(make_store(tmp_path, dtype="float32"), dtype="uint16")


@pytest.mark.compat
def test_several_polarizations_become_channels_of_the_scenes_that_have_them(store):
    reader = sz.PatchReader(store, polarizations=["vh", "VV"])
    assert {scene for scene, *_ in places(reader)} == {"a"}
    assert {arrays for _, arrays, *_ in places(reader)} == {("vh", "vv")}
    check(reader)
    single = {p[2:] for p in places(sz.PatchReader(store, polarizations="vv", scenes=["a"]))}
    other = {p[2:] for p in places(sz.PatchReader(store, polarizations="vh", scenes=["a"]))}
    assert {p[2:] for p in places(reader)} == single & other
    assert single < other  # VV has nodata where VH has none


def test_min_valid_and_min_unsaturated_choose_patches(store):
    table = store.patches()
    for valid, lit in [(1.0, 0.9), (0.5, 0.9), (0.0, 0.0), (1.0, 0.985)]:
        reader = sz.PatchReader(store, min_valid=valid, min_unsaturated=lit)
        v, u = table["valid_fraction"].values, table["unsaturated_fraction"].values
        wanted = (v >= valid) & ((lit == 0) | (v > 0)) & (u >= np.float32(lit) * v)
        np.testing.assert_array_equal(reader.selection.table_row, np.flatnonzero(wanted))
    assert len(sz.PatchReader(store).selection) == len(sz.PatchReader(store, min_valid=1.0).selection)
    assert len(sz.PatchReader(store, flags=True).selection) > len(sz.PatchReader(store).selection)


@pytest.mark.parametrize("options", [{"flags": True}, {"with_meta": True}, {"edge": "pad", "flags": True}])
def test_every_window_comes_where_nothing_is_asked_of_its_pixels(store, options):
    """For a map of predictions: wholly empty windows too, which no other selection has."""
    dense = sz.PatchReader(store, min_valid=0, min_unsaturated=0, **options)
    step = 256 if "edge" in options else 1
    shapes = {(s, a): codes(store, s, a).shape for s in ("a", "b") for a in store.arrays(s)}
    assert len(dense.selection) == sum(
        -(-h // 256) * -(-w // 256) if step == 256 else (h // 256) * (w // 256) for h, w in shapes.values()
    )
    table = store.patch_columns(dense.index)
    assert (table["valid_fraction"].values[dense.selection.table_row] == 0).sum() == 1
    for sparse in ({"min_unsaturated": 0}, {"min_valid": 0}):  # either limit leaves out what has no pixel
        reader = sz.PatchReader(store, **options, **sparse)
        assert (table["valid_fraction"].values[reader.selection.table_row] > 0).all()
    empty = np.flatnonzero(table["valid_fraction"].values[dense.selection.table_row] == 0)
    batch = dense.read(empty)
    image, flags = (batch["image"], batch["flags"]) if isinstance(batch, dict) else batch
    assert not image.any()
    assert (flags >= 2).all()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"scenes": ["nope"]}, NotInStoreError, "nope"),
        ({"polarizations": ["hh"]}, NotInStoreError, "'hh'"),
        ({"index": "other"}, NotInStoreError, "patch index"),
        (
            {"min_unsaturated": 1.0},
            InvalidInputError,
            r"index 'default', then \d+ with min_valid 1.0, then 0 with min_un",
        ),
        ({"polarizations": []}, InvalidInputError, "at least one, got none"),
        ({"min_valid": 1.5}, InvalidInputError, "min_valid"),
        ({"batch_size": 2.5}, InvalidInputError, "whole number"),
        ({"seed": "a"}, InvalidInputError, "whole number"),
        ({"patch_size": 0}, InvalidInputError, "patch_size"),
        ({"stride": 0}, InvalidInputError, "stride"),
        ({"clip": 5}, InvalidInputError, "two numbers"),
        ({"clip": "auto"}, InvalidInputError, "two numbers"),
        ({"clip": (-25, 5), "dtype": "uint16"}, InvalidInputError, "codes"),
        ({"batch_size": 10_000, "drop_last": True}, InvalidInputError, "a batch of 10000, got"),
        ({"batch_size": 0}, InvalidInputError, "batch_size"),
        ({"threads": 0}, InvalidInputError, "threads"),
        ({"shuffle": "yes"}, InvalidInputError, "shuffle"),
        ({"dtype": "float64"}, InvalidInputError, "dtype"),
        ({"augment": "elastic"}, InvalidInputError, "d4, flips, azimuth"),
        ({"clip": (5, -25)}, InvalidInputError, "vmin < vmax"),
        ({"batchsize": 3}, InvalidInputError, "'batchsize'"),
        ({"weights": {"nope": 2.0}}, NotInStoreError, "nope"),
        ({"weights": "nope"}, NotInStoreError, "nope"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_remedy(store, options, error, says):
    with pytest.raises(error, match=says):
        next(iter(sz.PatchReader(store, **options)))


def test_a_remote_store_is_refused():
    with pytest.raises(StoreNotFoundError, match="local directory"):
        sz.PatchReader("s3://bucket/s.zarr")


# ------------------------------------------------------------------ flags and edges
@pytest.mark.parametrize("augment", [None, "d4"])
@pytest.mark.parametrize("clip", [None, (-80.0, 5.0)])
def test_flags_come_along_and_what_is_not_valid_is_zero(store, augment, clip):
    reader = sz.PatchReader(
        store, polarizations="vv", flags=True, min_unsaturated=0, edge="pad", clip=clip, augment=augment
    )
    turns = reader.draws(0, reader.order(0)).turns
    where = places(reader)
    images, flags = (np.concatenate(part) for part in zip(*reader, strict=True))
    assert flags.dtype == np.uint8
    assert flags.shape == images.shape
    for i, (scene, (array,), row, col) in enumerate(where):
        turn = turns[i]
        known = codes(store, scene, array + "_flags")
        truth = patch(known + 1, row, col, 256)
        truth = np.where(truth == 0, 2, truth - 1)  # beyond the edge: nodata
        np.testing.assert_array_equal(flags[i, 0], apply(turn, truth))
        z = patch(expected(store, scene, array, clip), row, col, 256)
        np.testing.assert_allclose(images[i, 0], apply(turn, z), atol=2e-6)
        assert not images[i][flags[i] >= 2].any()
    assert {(row + 256 > 1100 or col + 256 > 1300) for s, _, row, col in where if s == "a"} == {True, False}
    assert len(np.unique(flags)) == 3


@settings(max_examples=8, deadline=None)
@given(
    size=st.sampled_from([64, 200, 256, 512]),
    stride=st.sampled_from([128, 200]),
    edge=st.sampled_from(["drop", "shift", "pad"]),
)
def test_other_sizes_and_strides_are_windows_over_chunks(store, size, stride, edge):
    reader = sz.PatchReader(
        store, scenes=["b"], patch_size=size, stride=stride, edge=edge, min_valid=0.2, min_unsaturated=0
    )
    assert reader.selection.shape == (size, size)
    check(reader)


def test_an_index_of_the_asked_cut_is_made_once_and_kept(store):
    made = sz.PatchReader(store, patch_size=300, stride=100, edge="shift")
    assert made.index == "300-100-shift"
    before = (store.root / "patches" / made.index / "zarr.json").stat().st_mtime_ns
    again = sz.PatchReader(store, patch_size=300, stride=100, edge="shift")
    assert (store.root / "patches" / again.index / "zarr.json").stat().st_mtime_ns == before
    assert sz.PatchReader(store, patch_size=256).index == "default"


# ------------------------------------------------------------------ order
@settings(max_examples=20, deadline=None)
@given(batch_size=st.integers(1, 40), seed=st.integers(0, 5), kind=st.sampled_from([True, False, "window"]))
def test_an_epoch_holds_every_patch_once_in_an_order_of_seed_and_epoch(
    store, numbers, batch_size, seed, kind
):
    reader = sz.PatchReader(store, polarizations="vv", batch_size=batch_size, seed=seed, shuffle=kind)
    epochs = [[i for batch in reader for i in numbers(batch)] for _ in range(2)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(len(reader.selection)))
    assert epochs[0] == reader.order(0).tolist()
    assert (epochs[0] != epochs[1]) == bool(kind)
    again = sz.PatchReader(store, polarizations="vv", batch_size=3, seed=seed, shuffle=kind)
    again.set_epoch(1)
    assert [i for batch in again for i in numbers(batch)] == epochs[1]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_shares_are_disjoint_and_resuming_loses_and_repeats_nothing(store, numbers, data):
    options = {
        "polarizations": "vv",
        "shuffle": True,
        "batch_size": data.draw(st.integers(1, 9)),
        "drop_last": data.draw(st.booleans()),
        "threads": data.draw(st.integers(1, 3)),
        "read_ahead": data.draw(st.integers(0, 3)),
    }
    reader = sz.PatchReader(store, **options)
    ranks, workers = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    epoch = data.draw(st.integers(0, 3))
    whole = []
    for rank in range(ranks):
        parts = [
            list(
                reader.batches(
                    Position(epoch=epoch), Share(rank=rank, ranks=ranks, worker=w, workers=workers)
                )
            )
            for w in range(workers)
        ]
        whole.append([parts[i % workers][i // workers] for i in range(sum(map(len, parts)))])
    deal = reader.deal(ranks=ranks)
    assert [len(batches) for batches in whole] == [deal.steps] * ranks
    seen = sorted(i for batches in whole for batch in batches for i in numbers(batch))
    assert len(seen) == len(set(seen)) == len(reader.selection) - deal.left_out

    step = data.draw(st.integers(0, deal.steps))
    state = reader.state_at(Position(epoch=epoch), taken=step, ranks=ranks)
    others = data.draw(st.integers(1, 4))
    resumed = sz.PatchReader(store, **options)
    begin = resumed.position_of(state)
    taken = [i for batches in whole for batch in batches[:step] for i in numbers(batch)]
    if begin.epoch == epoch:
        rest = [
            i
            for rank in range(others)
            for batch in resumed.batches(begin, Share(rank=rank, ranks=others))
            for i in numbers(batch)
        ]
        assert not set(rest) & set(taken)
        assert len(rest) == len(set(rest))
        assert len(taken) + len(rest) + resumed.deal(begin.start, others).left_out == len(reader.selection)
        same = [numbers(b) for b in resumed.batches(begin, Share(rank=0, ranks=ranks))]
        assert same == [numbers(b) for b in whole[0][step:]]
    else:
        assert (begin.epoch, begin.start, step) == (epoch + 1, 0, deal.steps)


def test_a_reader_resumes_in_the_middle_and_goes_on_with_the_next_epoch(store, numbers):
    options = {"polarizations": "vv", "batch_size": 4, "shuffle": True, "augment": "d4", "seed": 3}
    reader = sz.PatchReader(store, **options)
    truth = [[b.copy() for b in reader] for _ in range(2)]
    first = sz.PatchReader(store, **options)
    taken = iter(first)
    for _ in range(3):
        next(taken)
    state = pickle.loads(pickle.dumps(first.state_dict()))
    second = sz.PatchReader(store, **options)
    second.load_state_dict(state)
    assert second.state_dict() == state
    for expected_batch, batch in zip(truth[0][3:], second, strict=True):
        np.testing.assert_array_equal(batch, expected_batch)
    assert second.state_dict()["epoch"] == 1
    for expected_batch, batch in zip(truth[1], second, strict=True):
        np.testing.assert_array_equal(batch, expected_batch)


@pytest.mark.parametrize("other", [{"seed": 1}, {"shuffle": "window"}, {"polarizations": "vh"}])
def test_the_state_of_another_order_is_refused(store, other):
    mine = {"polarizations": "vv", "shuffle": True}
    state = sz.PatchReader(store, **mine).state_dict()
    with pytest.raises(InvalidInputError, match="Resume with"):
        sz.PatchReader(store, **mine | other).load_state_dict(state)


def test_ranks_and_workers_beyond_their_number_are_refused():
    with pytest.raises(InvalidInputError, match="below their numbers"):
        Share(rank=2, ranks=2)


@pytest.mark.parametrize(("augment", "turns"), [("d4", 8), ("flips", 4), ("azimuth", 2)])
def test_augmentation_turns_the_pixels_and_nothing_else(store, augment, turns):
    plain = np.concatenate(list(sz.PatchReader(store)))
    reader = sz.PatchReader(store, augment=augment)
    epochs = [np.concatenate(list(reader)) for _ in range(2)]
    for epoch, images in enumerate(epochs):
        drawn = reader.draws(epoch, reader.order(epoch)).turns
        assert len(set(drawn.tolist())) == turns
        for image, original, turn in zip(images, plain, drawn, strict=True):
            np.testing.assert_array_equal(image, apply(turn, original))
    assert (epochs[0] != epochs[1]).any()


def test_weights_draw_scenes_more_often(store, numbers):
    where = places(sz.PatchReader(store, polarizations="vv"))
    counts = {}
    reader = sz.PatchReader(store, polarizations="vv", weights={"b": 5.0}, shuffle=True)
    for _ in range(20):
        for i in (i for batch in reader for i in numbers(batch)):
            counts[where[i][0]] = counts.get(where[i][0], 0) + 1
    n = {s: sum(w[0] == s for w in where) for s in "ab"}
    assert counts["b"] / counts["a"] == pytest.approx(5 * n["b"] / n["a"], rel=0.06)
    alike = sz.PatchReader(store, polarizations="vv", weights="scene")
    drawn = [where[i][0] for batch in alike for i in numbers(batch)]
    assert abs(drawn.count("a") - drawn.count("b")) <= 1
    ones = sz.PatchReader(store, polarizations="vv", weights="chunk")
    assert [i for batch in ones for i in numbers(batch)] == list(range(len(where)))


def test_a_split_is_what_the_store_says(tmp_path):
    made = make_store(tmp_path)
    make_split(made, val_fraction=0.5, by="scene", seed=2)
    sides = {side: sz.PatchReader(made, split=side, polarizations="vv") for side in ("train", "val")}
    found = {side: {tuple(map(str, p)) for p in places(reader)} for side, reader in sides.items()}
    assert found["train"]
    assert found["val"]
    assert not found["train"] & found["val"]
    for side in sides:
        mask = made.split_mask(made.patch_columns(), side)
        assert mask[sides[side].selection.table_row].all()


# ------------------------------------------------------------------ where a patch is from
def test_metadata_says_where_each_patch_is_from(store):
    reader = sz.PatchReader(store, with_meta=True, shuffle=True, batch_size=5, augment="flips")
    table = store.patches()
    for batch, turns in zip(
        reader, np.array_split(reader.draws(0, reader.order(0)).turns, range(5, 200, 5)), strict=False
    ):
        np.testing.assert_array_equal(batch["turn"], turns)
        n = len(batch["image"])
        assert batch["flags"].shape == batch["image"].shape
        for i in range(n):
            (at,) = np.flatnonzero(table["id"].values == batch["id"][i])
            assert (table["scene"].values[at], table["array"].values[at]) == (
                batch["scene"][i],
                *batch["array"][i],
            )
            assert (table["row"].values[at], table["col"].values[at]) == (batch["row"][i], batch["col"][i])
            opened = store.open_scene(batch["scene"][i])
            a, _, c, _, e, f = batch["transform"][i]
            assert opened["x"].values[batch["col"][i]] == pytest.approx(c + a / 2)
            assert opened["y"].values[batch["row"][i]] == pytest.approx(f + e / 2)
            assert ("34N" in batch["crs"][i]) == (batch["scene"][i] == "b")
        assert {len(batch[k]) for k in batch} == {n}
        assert {"time", "platform", "orbit_state", "incidence"} <= set(batch)


# ------------------------------------------------------------------ memory, threads, processes
def test_a_batch_belongs_to_its_user_and_memory_is_used_again(store):
    reader = sz.PatchReader(store, batch_size=2, read_ahead=1, threads=2)
    kept = [batch[0, 0, :5] for batch in reader]  # views
    fresh = [batch[0, 0, :5].copy() for batch in sz.PatchReader(store, batch_size=2, threads=1)]
    for view, copy in zip(kept, fresh, strict=True):
        np.testing.assert_array_equal(view, copy)
    del kept, view
    gc.collect()
    blocks = set()
    for _ in range(4):
        for batch in reader:
            blocks.add(batch.ctypes.data)
            del batch
    assert len(blocks) <= 2 + 1 + 2


def test_memory_is_given_back_only_when_nothing_looks_into_it():
    memory = BatchMemory(keep=2)
    first = memory.take((4, 4), "f4")
    address, view = first.ctypes.data, first[1:, 2:]
    del first
    second = memory.take((4, 4), "f4")
    assert second.ctypes.data != address
    del view
    assert memory.take((2, 4), "f4").ctypes.data == address
    del second
    larger = memory.take((64, 64), "f4")
    assert larger.shape == (64, 64)


def test_a_reader_pickles_small_and_delivers_the_same(store):
    reader = sz.PatchReader(store, shuffle=True, seed=9)
    batches = list(reader)
    raw = pickle.dumps(reader)
    assert len(raw) < 200_000
    again = pickle.loads(raw)
    again.set_epoch(0)
    for a, b in zip(batches, again, strict=True):
        np.testing.assert_array_equal(a, b)


def total(reader):
    return float(sum(batch.sum(dtype=np.float64) for batch in reader))


@pytest.mark.compat
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_reader_works_in_another_process(store, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform does not {method}")
    reader = sz.PatchReader(store, batch_size=4)
    here = iter(reader)
    next(here)  # threads are running, handles are open
    with multiprocessing.get_context(method).Pool(1) as pool:
        there = pool.apply(total, (sz.PatchReader(store, batch_size=4),))
    here.close()
    assert there == total(sz.PatchReader(store, batch_size=4))


def test_an_iteration_that_is_given_up_leaves_no_thread_and_no_handle(store):
    handles = Path("/proc/self/fd")
    before = (threading.active_count(), len(list(handles.iterdir())) if handles.is_dir() else 0)
    taken = iter(sz.PatchReader(store, batch_size=2))
    next(taken)
    assert threading.active_count() > before[0]
    taken.close()
    assert (threading.active_count(), len(list(handles.iterdir())) if handles.is_dir() else 0) == before


def test_damage_is_raised_where_its_batch_would_have_been(tmp_path):
    made = make_store(tmp_path)
    reader = sz.PatchReader(made, batch_size=2)
    victim = 5
    scene, (array,), row, col = places(reader)[victim]
    table = reader.recipe.images.source.table
    grid_row = table.first_chunk[reader.selection.array[victim, 0]]
    chunk = grid_row + row // 256 * table.grid[reader.selection.array[victim, 0], 2] + col // 256
    entry = table.entries[chunk]
    file = made.root / table.at(int(entry["file"]))[1]
    raw = bytearray(file.read_bytes())
    raw[int(entry["offset"]) + 1000] ^= 1
    file.write_bytes(raw)
    taken = iter(reader)
    next(taken)
    next(taken)
    with pytest.raises(CorruptStoreError, match=f"scene '{scene}', array '{array}', row {row}, col {col} "):
        next(taken)


def test_opening_reads_no_document_of_a_scene(tmp_path):
    made = make_store(tmp_path)
    truth = total(sz.PatchReader(made))
    for document in (made.root / "scenes").rglob("zarr.json"):
        document.unlink()
    assert total(sz.PatchReader(made.root)) == truth


def test_a_store_that_moved_is_read_where_it_is(tmp_path):
    made = make_store(tmp_path / "one")
    truth = total(sz.PatchReader(made))
    shutil.move(made.root, tmp_path / "two.zarr")
    assert total(sz.PatchReader(str(tmp_path / "two.zarr"))) == truth


def test_cores_and_handles_are_what_the_process_has():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    assert available_handles() >= 1


# ------------------------------------------------------------------ patches by number
def test_patches_are_read_by_number(store):
    reader = sz.PatchReader(store, with_meta=True)
    plain = np.concatenate(list(sz.PatchReader(store, min_valid=0)))
    batch = reader.read([4, 0, 4], turns=np.array([0, 3, 5]))
    for image, original, turn in zip(batch["image"], plain[[4, 0, 4]], [0, 3, 5], strict=True):
        np.testing.assert_array_equal(image, apply(turn, original))
    for wrong in ([len(reader.selection)], [-1]):
        with pytest.raises(IndexError, match="patches must be in"):
            reader.read(wrong)
    for wrong in ([1], [0, 8], [0, -1], [0.0, 1.0]):
        with pytest.raises(InvalidInputError, match="2 operations from 0 to 7 were expected, got"):
            reader.read([0, 1], turns=wrong)


def read_first(reader):
    return reader.read([0]).tobytes()


def test_reading_by_number_survives_a_fork(store):
    reader = sz.PatchReader(store)
    here = read_first(reader)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(read_first, [reader] * 4) == [here] * 4


def test_handles_of_a_reader_close_with_it(store):
    reader = sz.PatchReader(store)
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader.read([0])
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    del reader
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_selection_is_narrowed_by_rows_and_by_number(store):
    whole = sz.PatchReader(store)
    rows = whole.selection.table_row[::3]
    np.testing.assert_array_equal(sz.PatchReader(store, rows=rows).selection.table_row, rows)
    few = [sz.PatchReader(store, max_patches=7, seed=s).selection.table_row for s in (0, 0, 1)]
    assert [len(f) for f in few] == [7, 7, 7]
    np.testing.assert_array_equal(few[0], few[1])
    assert (few[0] != few[2]).any()
    assert set(few[0]) <= set(whole.selection.table_row)
    assert len(sz.PatchReader(store, max_patches=10**6).selection) == len(whole.selection)


# ------------------------------------------------------------------ conditions and boxes
def test_a_condition_chooses_patches(store):
    table = store.patches()
    reader = sz.PatchReader(store, where="mean_db > -14 and scene != 'b'", min_unsaturated=0)
    wanted = (
        (table["mean_db"].values > -14)
        & (table["scene"].values != "b")
        & (table["valid_fraction"].values == 1)
    )
    np.testing.assert_array_equal(reader.selection.table_row, np.flatnonzero(wanted))
    both = sz.PatchReader(store, where="row >= 512 and std_db > 0", polarizations=["vv", "vh"])
    assert {p[2] for p in places(both)} == {512, 768}


@pytest.fixture
def boxed(tmp_path):
    """Return a store with boxes that are painted into its pixels: 1 inside, 0 around."""
    folder = tmp_path / "raw"
    folder.mkdir()
    random = np.random.default_rng(2)
    power = np.full((800, 900), 10 ** (-3.0), np.float32)
    boxes, taken = [], np.zeros(power.shape, bool)
    while len(boxes) < 60:
        (top, left), (height, width) = random.integers(0, (760, 860)), random.integers(4, 40, 2)
        at = slice(top, top + height), slice(left, left + width)
        if not taken[at].any():
            taken[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1] = True
            power[at] = 10 ** (2.0)
            boxes.append((left, top, left + width, top + height))
    write_band(folder / "a_vv.tif", power, tiles=128)
    made = sz.ingest(
        sz.plan_ingest([folder / "a_vv.tif"], tmp_path / "s.zarr", quantity="sigma0", representation="power")
    )
    parts = {"a": (np.array(boxes, np.float32), ["ship"] * len(boxes))}
    write_boxes(made, Boxes.gathered(parts, {"a": power.shape}))
    return made


@pytest.mark.parametrize("augment", [None, "d4"])
@pytest.mark.parametrize(
    ("size", "stride", "edge"), [(256, None, None), (128, 100, "shift"), (300, 256, "pad")]
)
def test_boxes_and_pixels_stay_together(boxed, augment, size, stride, edge):
    reader = sz.PatchReader(
        boxed, boxes=True, min_visible=1e-6, patch_size=size, stride=stride, edge=edge, clip=(-30, 20),
        min_valid=0, min_unsaturated=0, augment=augment, shuffle=True,
    )  # fmt: skip
    seen = 0
    for images, targets in reader:
        for image, target in zip(images[:, 0], targets, strict=True):
            painted = np.zeros_like(image)
            for x0, y0, x1, y1 in target["boxes"].astype(int):
                painted[y0:y1, x0:x1] = 1
            np.testing.assert_array_equal(painted, image > 0.5)
            assert len(target["labels"]) == len(target["boxes"])
            seen += len(target["boxes"])
    assert seen >= 40


def test_boxes_flags_and_metadata_come_together(boxed):
    images, flags, targets = next(iter(sz.PatchReader(boxed, boxes="default", flags=True, min_unsaturated=0)))
    assert len(images) == len(flags) == len(targets)
    batch = next(iter(sz.PatchReader(boxed, boxes=True, with_meta=True, min_unsaturated=0)))
    assert [t["image_id"][0] for t in batch["target"]] == batch["id"].tolist()
    assert batch["id"].dtype == np.int64
    assert batch["id"].min() >= 0
    with pytest.raises(NotInStoreError):
        sz.PatchReader(boxed, boxes="other", min_unsaturated=0)


def test_memory_is_flat_over_epochs(store):
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc to read memory from")

    def resident():
        return int(status.read_text().split("RssAnon:")[1].split()[0])

    loops()  # which are loaded once so much has been read, and take 30 MB
    reader = sz.PatchReader(store, batch_size=8, shuffle=True, augment="d4", flags=True)
    seen = []
    for _ in range(50):
        for _ in reader:
            pass
        seen.append(resident())
    # A batch that leaked in each epoch would be 2.6 MB of 20 epochs; the allocator alone moves by some MB.
    assert max(seen[30:]) - max(seen[10:30]) < 25 * 1024
