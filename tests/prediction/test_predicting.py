"""A prediction is the model's answer to what training saw, for every measured pixel, in layers of the scene."""

import tracemalloc

import numpy as np
import pytest
from conftest import speckle, tree_hash, write_band
from hypothesis import given, settings
from hypothesis import strategies as st
from predictions import Counting, as_delivered, brighter, predicted_store, same

import sarzarr as sz
from sarzarr.errors import CorruptStoreError, InvalidInputError, NotInStoreError, SceneExistsError
from sarzarr.prediction.inputs import ValidRows, scene_input
from sarzarr.prediction.layers import ArrayRows
from sarzarr.prediction.options import PredictOptions
from sarzarr.prediction.over_scene import predict_rows
from sarzarr.prediction.windows import BLENDS


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A store that tests read, and write into arrays of their own."""
    return predicted_store(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def store(tmp_path):
    return predicted_store(tmp_path)


BOTH = {"polarizations": ["vv", "vh"]}


def made(store, scene="a"):
    return sz.open_store(store.root).open_scene(scene)


# ------------------------------------------------------------------ what a model sees
@pytest.mark.parametrize(("clip", "layers"), [(None, ()), ((-20.0, 1.0), ("dem", "mask"))])
def test_a_model_sees_what_a_training_batch_has(store, clip, layers):
    size, overlap = 96, 40
    cut = {
        "patch_size": size,
        "stride": size - overlap,
        "edge": "shift",
        "min_valid": 0,
        "min_unsaturated": 0,
    }
    reader = sz.PatchReader(store, scenes=["a"], clip=clip, layers=layers, with_meta=True, **BOTH, **cut)
    seen = {}
    grid = scene_input(store, "a", PredictOptions(**BOTH, patch_size=size, overlap=overlap)).grid
    number = iter(range(len(grid)))

    def watch(batch):
        for window in batch:
            seen[tuple(grid.places[order[next(number)]].tolist())] = window.copy()
        return batch[:, :1]

    valid = ValidRows(scene_input(store, "a", PredictOptions(**BOTH)).flags).rows(0, 600)
    order = [i for i, (r, c) in enumerate(grid.places.tolist()) if valid[r : r + size, c : c + size].any()]
    out = np.empty((600, 500), "f4")
    done = sz.predict_scene(
        watch,
        store,
        "a",
        **BOTH,
        clip=clip,
        layers=layers,
        patch_size=size,
        overlap=overlap,
        out=out,
        batch_size=3,
    )
    assert done.patches == len(seen)
    assert done.skipped == len(grid) - len(seen) > 0
    trained = 0
    for batch in reader:
        others = [batch["layers"][name].astype("f4") for name in layers]
        for i, window in enumerate(np.concatenate([batch["image"], *others], axis=1)):
            place = int(batch["row"][i]), int(batch["col"][i])
            if place in seen:
                assert np.array_equal(window, seen[place], equal_nan=True), place
                trained += 1
    assert trained == len(seen)


@settings(max_examples=15, deadline=None)
@given(st.integers(70, 700), st.data(), st.sampled_from(BLENDS), st.integers(1, 5))
def test_a_model_that_returns_what_it_is_given_returns_the_scene(kept, size, data, blend, batch_size):
    overlap = data.draw(st.integers(0, min(size - 1, size // 2 + 5)))
    out = np.empty((2, 600, 500), "f4")
    options = {"patch_size": size, "overlap": overlap, "blend": blend, "batch_size": batch_size}
    sz.predict_scene(same, kept, "a", **BOTH, out=out, **options)
    vv, vh = as_delivered(kept, "a", "vv"), as_delivered(kept, "a", "vh")
    measured = ~np.isnan(vv) & ~np.isnan(vh)
    assert 0 < measured.sum() < measured.size
    for channel, whole in zip(out, (vv, vh), strict=True):
        assert np.array_equal(~np.isnan(channel), measured)
        np.testing.assert_allclose(channel[measured], whole[measured], atol=3e-6)


def test_nothing_but_windows_with_a_valid_pixel_is_predicted(kept):
    model, out = Counting(), np.empty((600, 500), "f4")
    done = sz.predict_scene(model, kept, "a", polarizations=["vv"], patch_size=100, overlap=0, out=out)
    assert (done.patches, done.skipped, model.windows) == (24, 6, 24)  # of the upper left 3 x 2 are nodata


# ------------------------------------------------------------------ what becomes of it
def test_layers_say_what_they_are(store):
    reports = []
    done = sz.predict_scene(same, store, "a", **BOTH, kind="normalized", progress=reports.append)
    assert done.layers == ("prediction_1", "prediction_2")
    assert [r.done for r in reports] == sorted(r.done for r in reports)
    assert (reports[-1].done, reports[-1].total, reports[-1].scene) == (9, 9, "a")
    assert not sz.verify(store.root).findings
    opened, entry = made(store), store.bounds["vh/sigma0"]
    layer = opened["prediction_2"]
    assert layer.dtype == np.float32
    about = layer.attrs
    assert (about["model"], about["model_inputs"], about["layer_kind"]) == (
        "same",
        ["vv", "vh"],
        "continuous",
    )
    assert (about["vmin"], about["vmax"]) == (entry.clip_vmin, entry.clip_vmax)
    assert about["model_clips"][2:] == [entry.clip_vmin, entry.clip_vmax]
    assert (about["representation"], about["quantity"]) == ("normalized", "sigma0")
    db = sz.denormalize(layer, (about["vmin"], about["vmax"]))
    want = np.clip(store.db("a", "vh").values, entry.clip_vmin, entry.clip_vmax)
    inside = ~np.isnan(layer.values)
    np.testing.assert_allclose(db.values[inside], want[inside], atol=1e-4)
    assert sz.open_store(store.root).layers("a") == ("dem", "mask", "prediction_1", "prediction_2")
    copied = sz.copy_store(store, store.root.with_name("copy.zarr"))
    assert np.array_equal(
        sz.open_store(copied).open_scene("a")["prediction_2"].values, layer.values, equal_nan=True
    )


def scores(batch):
    """Three classes: dark, bright, and what is near the middle."""
    x = batch[:, :1]
    return np.concatenate([1 - x, x, 1.2 - 2 * np.abs(x - 0.5)], axis=1)


def test_classes_are_the_highest_score_or_whole_numbers(store):
    vv = as_delivered(store, "a", "vv")
    sz.predict_scene(
        scores, store, "a", polarizations=["vv"], classes=["dark", "bright", "grey"], names="of_scores"
    )
    sz.predict_scene(brighter, store, "a", polarizations=["vv"], names="of_labels")
    opened = made(store)
    measured = ~np.isnan(vv)
    stacked = scores(vv[None, None])[0]
    clear = measured & (np.diff(np.sort(stacked, axis=0)[-2:], axis=0)[0] > 1e-5)
    best = opened["of_scores"]
    assert best.dtype == opened["of_labels"].dtype == np.uint8
    assert np.array_equal(best.values[clear], stacked.argmax(0)[clear])
    assert (best.values[~measured] == 255).all()
    assert best.attrs["nodata"] == 255
    assert best.attrs["classes"] == {"0": "dark", "1": "bright", "2": "grey"}
    clear = measured & (np.abs(vv - 0.5) > 1e-5)
    assert np.array_equal(opened["of_labels"].values[clear], (vv > 0.5)[clear])
    assert not sz.verify(store.root).findings


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (lambda b: b[:, :, ::2, ::2], {}, r"\(\d, K, 256, 256\) of .* got \(\d, 1, 128, 128\)"),
        (lambda b: b[0], {}, "was expected of the model, got"),
        (lambda b: b > 0, {"kind": "continuous"}, "floats were expected for kind='continuous', got uint8"),
        (lambda b: b, {"kind": "classes"}, "scores of two classes at least"),
        (scores, {"classes": ["a", "b"]}, "scores of 2 classes were expected, got 3"),
        (scores, {"kind": "normalized"}, "a channel for each of 1 arrays"),
        (scores, {"names": ["p", "q"]}, "3 names were expected"),
        (lambda b: np.full(b.shape, 255), {}, "classes from 0 to 254 were expected"),
        (lambda b: b.astype(complex), {}, "floats or whole numbers"),
        (same, {"names": "dem"}, "which was not predicted"),
        (same, {"names": "band", "polarizations": ["vv", "vh"]}, "a layer's name"),
        (same, {"names": "vv_flags"}, "a layer's name"),
        (same, {"layers": ["nope"]}, "expected layer 'nope' in every scene"),
        (same, {"polarizations": None}, r"Pass polarizations=\['vh', 'vv'\]"),
        (same, {"polarizations": ["hh"]}, "polarizations must be among"),
        (same, {"patch_size": 64, "overlap": 64}, "Pass overlap=8"),
        (same, {"kind": "nice"}, "kind must be continuous"),
        (same, {"clip": (3, 3)}, "vmin < vmax"),
        (same, {"classes": {300: "x"}}, "names of classes 0 to 254"),
        (same, {"batch_size": 0}, "batch_size must be"),
        (same, {"units": "dB", "kind": "classes"}, "Leave one out"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_changes_nothing(kept, model, options, said):
    before = tree_hash(kept.root)
    with pytest.raises((InvalidInputError, SceneExistsError, NotInStoreError), match=said):
        sz.predict_scene(model, kept, "a", **{"polarizations": ["vv"]} | options)
    assert tree_hash(kept.root) == before


def test_a_small_scene_is_padded_and_an_empty_one_is_nodata(tmp_path):
    write_band(tmp_path / "s_vv.tif", speckle((40, 30)))
    write_band(tmp_path / "e_vv.tif", np.full((300, 300), np.nan, "f4"), nodata=np.nan)
    plan = sz.plan_ingest(
        [tmp_path / "s_vv.tif", tmp_path / "e_vv.tif"], tmp_path / "s.zarr", representation="power"
    )
    store, shapes = sz.ingest(plan), []

    def model(batch):
        shapes.append(batch.shape)
        return batch

    report = sz.predict_scenes(model, store)
    assert [(one.scene, one.patches, one.skipped) for one in report.scenes] == [("e", 0, 4), ("s", 1, 0)]
    assert set(shapes) == {(1, 1, 256, 256)}
    assert np.isnan(made(store, "e")["prediction"].values).all()
    np.testing.assert_allclose(
        made(store, "s")["prediction"].values, as_delivered(store, "s", "vv"), atol=1e-6
    )
    assert not sz.verify(store.root).findings


# ------------------------------------------------------------------ again, and elsewhere
def test_the_same_prediction_is_made_once_and_another_replaces_it_where_that_is_asked(store):
    model = Counting()
    first = sz.predict_scene(model, store, "b", model_name="v1")
    windows, bytes_then = model.windows, tree_hash(store.root)
    again = sz.predict_scene(model, store, "b", model_name="v1")
    assert (first.is_present, again.is_present, model.windows) == (False, True, windows)
    assert tree_hash(store.root) == bytes_then
    for other in ({"model_name": "v2"}, {"model_name": "v1", "overlap": 8}, {}):
        with pytest.raises(SceneExistsError, match="--overwrite"):
            sz.predict_scene(model, store, "b", **other)
    assert tree_hash(store.root) == bytes_then
    sz.predict_scene(lambda b: b * 2, store, "b", model_name="v2", overwrite=True)
    np.testing.assert_allclose(
        made(store, "b")["prediction"].values, 2 * as_delivered(store, "b", "vv"), atol=2e-6
    )
    assert not sz.verify(store.root).findings


def test_a_damaged_prediction_is_made_again_and_nothing_else_can_mend_it(store):
    sz.predict_scene(same, store, "b", model_name="v1")
    whole = tree_hash(store.root)
    for array in ("prediction", "vv"):
        shard = next((store.root / "scenes" / "b" / array / "c").rglob("*/*"))
        damaged = bytearray(shard.read_bytes())
        damaged[len(damaged) // 3] ^= 0xFF
        shard.write_bytes(damaged)
    assert {f.file for f in sz.verify(store.root).findings} == {
        f"scenes/b/{n}/c/0/0" for n in ("prediction", "vv")
    }
    mended = sz.repair(store.root, sources=[store.root.parent])
    assert [text.split(":")[0] for text in mended.left] == ["scenes/b/prediction"]
    assert "--overwrite" in mended.left[0]
    with pytest.raises(CorruptStoreError):
        made(store, "b")["prediction"].values  # noqa: B018 - it is read
    assert not sz.predict_scene(same, store, "b", model_name="v1", overwrite=True).is_present
    assert tree_hash(store.root) == whole
    assert sz.predict_scene(same, store, "b", model_name="v1", overwrite=True).is_present


def test_other_pixels_make_another_prediction(store):
    sz.predict_scene(same, store, "b", model_name="v1")
    sz.set_clip(store, method="fixed", vmin=-20, vmax=0)
    with pytest.raises(SceneExistsError):
        sz.predict_scene(same, store, "b", model_name="v1")


def tall(folder, rows=4300):
    folder.mkdir()
    write_band(folder / "t_vv.tif", speckle((rows, 150), seed=4), tiles=128)
    return sz.ingest(
        sz.plan_ingest([folder / "t_vv.tif"], folder / "s.zarr", representation="power", shard=256)
    )


@pytest.mark.parametrize("blend", BLENDS)
def test_an_interrupted_prediction_goes_on_and_gives_the_same_bytes(tmp_path, blend):
    options = {"patch_size": 64, "overlap": 16, "batch_size": 1, "model_name": "v1", "blend": blend}
    whole = tall(tmp_path / "whole")
    once = sz.predict_scene(same, whole, "t", **options).patches
    store = tall(tmp_path / "broken")
    before = tree_hash(store.root)
    with pytest.raises(RuntimeError, match="the power went"):
        sz.predict_scene(Counting(fail_after=once - 10), store, "t", **options)
    assert tree_hash(store.root) == before
    assert "prediction" not in sz.open_store(store.root).layers("t")
    rest = Counting()
    sz.predict_scene(rest, store, "t", **options)
    assert 10 < rest.windows < once * 0.06  # the last of three rows of shards, and those that reach into it
    assert tree_hash(store.root) == tree_hash(whole.root)
    assert not store.root.with_name("s.zarr.ingest").exists()


def test_another_model_begins_anew(tmp_path):
    store = tall(tmp_path / "s")
    options = {"patch_size": 64, "overlap": 0}
    for name in ("v1", None, "v2"):
        with pytest.raises(RuntimeError):
            sz.predict_scene(Counting(fail_after=200), store, "t", model_name=name, **options)
    model = Counting()
    sz.predict_scene(model, store, "t", model_name="v3", **options)
    assert model.windows == 3 * -(-4300 // 64)
    again = Counting()
    sz.predict_scene(
        again, store, "t", overwrite=True, **options
    )  # of no name: nothing tells that it is the same
    assert again.windows == model.windows


def test_what_is_left_beside_the_store_is_cleaned(tmp_path):
    store = tall(tmp_path / "s")
    with pytest.raises(RuntimeError):
        sz.predict_scene(Counting(fail_after=200), store, "t", patch_size=64, overlap=0, model_name="v1")
    assert sz.clean(store.root).size > 100_000
    assert not store.root.with_name("s.zarr.ingest").exists()


def test_scenes_without_what_is_asked_for_are_left_out(store):
    report = sz.predict_scenes(same, store, polarizations=["vv", "vh"], names=["p", "q"])
    assert [one.scene for one in report.scenes] == ["a"]
    assert [one.scene for one in report.refused] == ["b"]
    with pytest.raises(InvalidInputError, match="one array 'vh' of scene 'b'"):
        sz.predict_scenes(same, store, ["b"], polarizations=["vv", "vh"])
    with pytest.raises(NotInStoreError):
        sz.predict_scenes(same, store, ["nope"])


def test_a_prediction_goes_into_another_store_with_the_scene(store):
    other = sz.copy_store(store, store.root.with_name("other.zarr"))
    before = tree_hash(store.root)
    sz.predict_scene(same, store, "b", out=other)
    assert tree_hash(store.root) == before
    layer = sz.open_store(other).open_scene("b")["prediction"]
    np.testing.assert_allclose(layer.values, as_delivered(store, "b", "vv"), atol=1e-6)
    small = sz.ingest(
        sz.plan_ingest(
            [store.root.parent / "a_vv.tif"], store.root.with_name("n.zarr"), representation="power"
        )
    )
    with pytest.raises(InvalidInputError, match=r"on the same grid was expected in n\.zarr"):
        sz.predict_scene(same, store, "b", out=small)


def test_an_array_must_have_the_shape(kept):
    with pytest.raises(InvalidInputError, match=r"out= of shape \(1, 300, 260\) was expected"):
        sz.predict_scene(same, kept, "b", out=np.empty((300, 261)))


# ------------------------------------------------------------------ memory
def test_memory_does_not_grow_with_the_height(tmp_path):
    peaks = []
    for rows in (2100, 4300):
        given = scene_input(tall(tmp_path / str(rows), rows), "t", PredictOptions(patch_size=64, overlap=16))

        class Nowhere(ArrayRows):
            def begin(self, output):
                pass

            def write(self, top, values):
                assert values.shape[1] <= 64

        sink = Nowhere(None, given.grid.shape)
        predict_rows(same, given, PredictOptions(), sink)  # what is loaded once is loaded
        tracemalloc.start()
        predict_rows(same, given, PredictOptions(), sink)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    low, high = peaks
    assert high < 1.15 * low
