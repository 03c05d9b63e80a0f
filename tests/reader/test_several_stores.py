"""Several stores, or selections, as one: each patch once an epoch, the same pixels, ids that stay distinct."""

import pickle

import numpy as np
import pytest
from conftest import speckle, write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_stores import make_store

import sarzarr as sz
from sarzarr.errors import (
    CorruptStoreError,
    InvalidInputError,
    MixedBoundsError,
    NothingChosenError,
    NotInStoreError,
)
from sarzarr.reader.order import Position, Share
from sarzarr.splits.make import make_split
from sarzarr.store.boxes import Boxes, write_boxes

CLIP = {"clip": (-30, 5)}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Return two stores with scenes of the same ids and other files, and in the second other codecs and shards."""
    folder = tmp_path_factory.mktemp("several")
    one = make_store(folder / "one", name="one.zarr")
    other = sz.copy_store(one, folder / "other.zarr", codec="zstd", shard=256)
    return one, other


def everything(readers, **options):
    """Return {(store, scene, arrays, row, col): image bytes} of readers, one by one."""
    out = {}
    for store in readers:
        for batch in sz.PatchReader(store, with_meta=True, batch_size=7, **options):
            arrays = batch["array"]
            for i, image in enumerate(batch["image"]):
                key = (
                    str(store.place),
                    batch["scene"][i],
                    tuple(arrays[i]),
                    int(batch["row"][i]),
                    int(batch["col"][i]),
                )
                out[key] = image.tobytes()
    return out


class Doubled(sz.PowerChange):
    """Twice the power."""

    def __call__(self, power, rngs):
        return 2 * power


@pytest.mark.parametrize(
    "options",
    [
        CLIP,
        {"polarizations": ["vv", "vh"], **CLIP},
        {"patch_size": 100, "edge": "pad", **CLIP},
        {"augment": Doubled(), **CLIP},
    ],
)
def test_an_epoch_over_two_stores_is_what_each_delivers(stores, options):
    apart = everything(stores, **options)
    reader = sz.PatchReader(list(stores), with_meta=True, shuffle=True, seed=3, batch_size=5, **options)
    for _ in range(2):
        seen, ids = {}, []
        for batch in reader:
            ids += batch["id"].tolist()
            assert batch["id"].dtype == np.int64
            for i, image in enumerate(batch["image"]):
                key = (
                    batch["store"][i],
                    batch["scene"][i],
                    tuple(batch["array"][i]),
                    int(batch["row"][i]),
                    int(batch["col"][i]),
                )
                assert key not in seen
                seen[key] = image.tobytes()
        assert seen == apart
        assert len(set(ids)) == len(ids) == len(reader.selection)
        assert min(ids) >= 0
    assert reader.preprocessing_params == {"vmin": -30.0, "vmax": 5.0}
    mixes = [len(set(batch["store"])) for batch in reader]
    assert max(mixes) == 2  # shuffled over the union, not store by store


def test_ids_are_the_first_stores_own_and_do_not_change_with_the_selection(stores):
    one, other = stores
    own = sz.PatchReader(one).selection.id
    joined = sz.PatchReader([one, other]).selection.id
    assert np.array_equal(joined[: len(own)], own)
    again = sz.PatchReader([one, other], polarizations=["vv"]).selection.id
    assert np.isin(again, joined).all()


@settings(max_examples=15, deadline=None)
@given(
    ranks=st.integers(1, 3),
    workers=st.integers(1, 2),
    taken=st.integers(0, 6),
    later=st.integers(1, 3),
    weights=st.sampled_from([None, "scene", {"a": 3.0}]),
    shuffle=st.sampled_from([True, "window", False]),
)
def test_each_patch_comes_once_for_any_ranks_and_workers_and_after_a_stop(
    stores, ranks, workers, taken, later, weights, shuffle
):
    reader = sz.PatchReader(
        list(stores), batch_size=4, shuffle=shuffle, with_meta=True, weights=weights, window=3, **CLIP
    )
    reader = pickle.loads(pickle.dumps(reader))
    expected = sorted(reader.selection.id[reader.order(2)].tolist())

    def ids(begin, ranks, workers, most):
        found = []
        for rank in range(ranks):
            parts = [
                [
                    b["id"].tolist()
                    for b in reader.batches(begin, Share(rank=rank, ranks=ranks, worker=w, workers=workers))
                ]
                for w in range(workers)
            ]
            mine = [parts[i % workers][i // workers] for i in range(sum(map(len, parts)))]
            found += [one for batch in mine[:most] for one in batch]
        return found

    begin = Position(epoch=2)
    first = ids(begin, ranks, workers, taken)
    rest = ids(reader.position_of(reader.state_at(begin, taken=taken, ranks=ranks)), later, workers, None)
    if taken >= reader.deal(ranks=ranks).steps:
        return
    missing = len(expected) - len(first) - len(rest)
    assert 0 <= missing < later
    if weights is None:
        assert len(set(first + rest)) == len(first + rest)
    assert sorted(first + rest) == expected or missing


def test_a_state_of_other_stores_is_refused(stores):
    one, other = stores
    state = sz.PatchReader([one, other]).state_dict()
    assert sz.PatchReader([one, other]).position_of(state) == Position()
    some = sz.PatchReader(one, max_patches=5)
    for wrong in (
        sz.PatchReader(one),
        sz.PatchReader([other]),
        sz.PatchReader([other, one]),
        sz.PatchReader([some, sz.PatchReader(other)]),
    ):
        with pytest.raises(InvalidInputError, match=r"a state with .* was expected"):
            wrong.position_of(state)


def test_clips_are_each_stores_own_unless_given(stores, tmp_path):
    one, _ = stores
    changed = sz.set_clip(sz.copy_store(one, tmp_path / "c.zarr"), method="fixed", vmin=-21.0, vmax=1.0)
    reader = sz.PatchReader(
        [one, changed], polarizations=["vv"], min_unsaturated=0, with_meta=True, batch_size=999
    )
    with pytest.raises(MixedBoundsError, match=r"got 2 in vv/sigma0.*clip="):
        _ = reader.preprocessing_params
    (batch,) = reader
    for store in (one, changed):
        mine = [i for i, place in enumerate(batch["store"]) if place == str(store.place)]
        (alone,) = sz.PatchReader(store, polarizations=["vv"], min_unsaturated=0, batch_size=999, flags=True)
        assert np.array_equal(batch["image"][mine], alone[0])


def test_splits_are_named_alike_or_store_by_store(stores):
    one, other = stores
    for store in stores:
        make_split(store, val_fraction=0.3, seed=1)
    make_split(other, val_fraction=0.3, seed=2, fresh=True)
    readers = [
        sz.PatchReader(one, split="train", batch_size=3),
        sz.PatchReader(other.anew(), split="v1:train"),
    ]
    joined = sz.PatchReader(readers, batch_size=9, shuffle=True)
    assert len(joined.selection) == sum(len(r.selection) for r in readers)
    assert (joined.options.batch_size, joined.options.shuffle) == (9, True)
    newest = sz.PatchReader([one, other.anew()], split="train")
    v2 = sz.PatchReader(other.anew(), split="v2:train")
    assert len(newest.selection) == len(readers[0].selection) + len(v2.selection)
    with pytest.raises(InvalidInputError, match=r"got split\. Pass it to each reader"):
        sz.PatchReader(readers, split="val")


def test_boxes_flags_and_layers_come_along(stores, tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for i in range(2):
        store = make_store(tmp_path / str(i))
        corners = rng.integers(0, 500, (40, 2)).astype(float)
        boxes = Boxes(
            boxes=np.concatenate([corners, corners + 20], axis=1), owner=np.repeat([0, 1], 20),
            label=np.ones(40, np.int64),
            owners=("a", "b"), grids=(store.grids["a"], store.grids["b"]), on="scenes", classes=("ship",),
        )  # fmt: skip
        write_boxes(store, boxes)
        made.append(store.anew())
    options = {"boxes": True, "flags": True, "with_meta": True, "batch_size": 6}
    reader = sz.PatchReader(made, shuffle=True, augment="d4", **options)
    alone = {}
    for store in made:
        for batch in sz.PatchReader(store, **options):
            for i, target in enumerate(batch["target"]):
                alone[str(store.place), int(batch["id"][i])] = (batch["flags"][i].sum(), len(target["boxes"]))
    seen = set()
    own = np.concatenate([sz.PatchReader(store, **options).selection.id for store in made])
    for batch in reader:
        for i, target in enumerate(batch["target"]):
            number = int(np.flatnonzero(reader.selection.id == batch["id"][i])[0])
            key = batch["store"][i], int(own[number])
            assert target["image_id"].tolist() == [batch["id"][i]]
            assert alone[key] == (batch["flags"][i].sum(), len(target["boxes"]))
            seen.add(key)
    assert seen == set(alone)


def test_classes_of_other_stores_are_mapped_by_name_and_told(tmp_path, caplog):
    made = []
    for i, kinds in enumerate((("ship", "buoy"), ("crane", "ship"))):
        store = make_store(tmp_path / str(i))
        boxes = np.array([[10.0, 10, 40, 40], [60, 60, 90, 90]])
        write_boxes(store, Boxes.gathered({"a": (boxes, kinds)}, {"a": (600, 600)}))
        made.append(store.anew())
    reader = sz.PatchReader(made, boxes=True)
    assert reader.targets.classes == ("ship", "buoy", "crane")
    assert sorted(reader.targets.label.tolist()) == [1, 1, 2, 3]
    assert "class 1 of reader 2 s.zarr is 'crane', 3 here" in caplog.text
    with pytest.raises(InvalidInputError, match=r"one form of boxes in all stores, got \(n, 4\)"):
        sz.PatchReader([sz.PatchReader(made[0], boxes=True), sz.PatchReader(made[1], boxes="rotated")])


def test_layers_and_stacks_come_along(tmp_path):
    made = []
    for i in range(2):
        folder = tmp_path / str(i)
        folder.mkdir()
        for day in "12":
            write_band(folder / f"lake_2020010{day}_vv.tif", speckle((300, 300), seed=int(day) + 5 * i))
        write_band(folder / "mask.tif", np.full((300, 300), 7 + i, np.uint8), nodata=255)
        files, known = sorted(folder.glob("lake*.tif")), {"quantity": "sigma0", "representation": "power"}
        plan = sz.plan_ingest(files, folder / "s.zarr", layers={"mask": str(folder / "mask.tif")}, **known)
        made.append(sz.ingest(plan))
    layered = sz.PatchReader(made, layers=["mask"], min_unsaturated=0, batch_size=9, with_meta=True)
    (batch,) = layered
    for i, store in enumerate(made):
        mine = [place == str(store.place) for place in batch["store"]]
        assert (batch["layers"]["mask"][mine] == 7 + i).all()
    stacks = [sz.make_stack(store, store.scenes, mixed=True) for store in made]
    readers = [
        sz.PatchReader(s, stack=k, min_unsaturated=0, with_meta=True)
        for s, k in zip(made, stacks, strict=True)
    ]
    (both,) = sz.PatchReader(readers)
    (one,), (other,) = readers
    assert both["image"].shape == (2, 2, 1, 256, 256)
    assert np.array_equal(both["image"], np.concatenate([one["image"], other["image"]]))
    assert both["scene"] == one["scene"] + other["scene"]
    assert np.array_equal(both["seconds"], np.concatenate([one["seconds"], other["seconds"]]))
    found = sz.PatchReader(readers).statistics()
    assert found.pixels.tolist() == [4 * 300 * 300]


@pytest.mark.parametrize(
    ("each", "says"),
    [
        (({"patch_size": 128}, {}), r"one size of patches in all stores, got \(128, 128\).*\(256, 256\)"),
        (({"polarizations": ["vv"]}, {"polarizations": ["vv", "vh"]}), "one number of channels"),
        (({"polarizations": ["vv"]}, {"polarizations": ["vh"]}), "one list of polarizations"),
        (({"dtype": "uint16"}, {}), "one dtype in all stores"),
        (({"flags": True}, {}), "one delivery of flags"),
        (({"augment": "d4"}, {}), "one augmentation"),
    ],
)
def test_what_does_not_fit_into_one_batch_is_refused(stores, each, says):
    readers = [sz.PatchReader(store, **options) for store, options in zip(stores, each, strict=True)]
    with pytest.raises(InvalidInputError, match=says):
        sz.PatchReader(readers)


def test_other_misuses_are_refused_with_a_remedy(stores):
    one, other = stores
    with pytest.raises(InvalidInputError, match="one at least, were expected"):
        sz.PatchReader([])
    with pytest.raises(InvalidInputError, match="one store was expected, got a list of 2"):
        sz.SampleReader([one, other], "chips")
    with pytest.raises(InvalidInputError, match="Make a PatchReader of each"):
        sz.PatchReader([one, sz.PatchReader(other)])
    with pytest.raises(InvalidInputError, match=r"PatchReader\(store, rows=\.\.\.\)"):
        sz.PatchReader([one, other], rows=[1, 2])
    for twice in ([one, one.root], [sz.PatchReader(one), sz.PatchReader(one, max_patches=3)]):
        with pytest.raises(
            InvalidInputError, match=r"each patch once was expected, got \d+ of one store twice"
        ):
            sz.PatchReader(twice)
    with pytest.raises(NotInStoreError, match="weights of 2 scenes were expected, got nope"):
        sz.PatchReader([one, other], weights={"nope": 2.0})
    with pytest.raises(NothingChosenError, match="patches of 2 stores were expected, got none"):
        sz.PatchReader([one, other], where="mean_db > 90")


def test_a_store_of_which_nothing_is_chosen_is_left_out_and_named(stores, tmp_path, caplog):
    one, other = stores
    assert len(sz.PatchReader([one, other], max_patches=5, seed=4).selection) == 5
    without = sz.remove_scene(sz.copy_store(one, tmp_path / "without.zarr"), ["a"])
    reader = sz.PatchReader([without, other], where="scene == 'a'")
    assert "without.zarr: no patch of it is chosen" in caplog.text
    assert len(reader.selection) == len(sz.PatchReader(other, scenes=["a"]).selection)


def test_damage_names_the_store_that_has_it(stores, tmp_path):
    one, other = stores
    copied = sz.copy_store(one, tmp_path / "hurt.zarr")
    reader = sz.PatchReader([other, copied], batch_size=2)
    shard = copied.root / "scenes/a/vv/c/1/1"
    raw = bytearray(shard.read_bytes())
    raw[:-2000] = bytes(255 - byte for byte in raw[:-2000])
    shard.write_bytes(raw)
    with pytest.raises(CorruptStoreError, match=r"hurt\.zarr/scenes/a/vv/c/"):
        list(reader)


# ------------------------------------------------------------------ unions and intersections
def test_either_and_both_of_two_selections(stores):
    one, other = stores
    dark, left = (
        sz.PatchReader(one, where="mean_db < -14", **CLIP),
        sz.PatchReader(one, where="col < 600", **CLIP),
    )
    a, b = set(dark.selection.id.tolist()), set(left.selection.id.tolist())
    assert a & b
    assert a - b
    assert b - a
    for made, wanted in ((dark | left, a | b), (dark & left, a & b)):
        assert sorted(made.selection.id.tolist()) == sorted(wanted)
        images = np.concatenate(list(made))
        again = {}
        for reader in (dark, left):
            again |= dict(zip(reader.selection.id.tolist(), np.concatenate(list(reader)), strict=True))
        for number, image in zip(made.selection.id.tolist(), images, strict=True):
            assert np.array_equal(image, again[number])
    across = dark | sz.PatchReader(other, **CLIP)
    assert len(across.selection) == len(a) + len(sz.PatchReader(other).selection)
    assert sorted((across & left).selection.id.tolist()) == sorted(a & b)
    assert len((across | dark).selection) == len(across.selection)
    with pytest.raises(NothingChosenError, match="in both selections was expected, got none"):
        sz.PatchReader(one, where="col < 256") & sz.PatchReader(one, where="col >= 256")
