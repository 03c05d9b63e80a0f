"""Patches go back in place: what a reader delivers, stitched, is the scene."""

import numpy as np
import pytest
from conftest import speckle, write_band
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sarzarr as sz
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.patches.cut import IndexSpec, positions


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two scenes of two polarizations, 300 x 410 and 290 x 333, with a border that was not measured."""
    folder = tmp_path_factory.mktemp("stitch")
    files = []
    for i, (name, shape) in enumerate((("a", (300, 410)), ("b", (290, 333)))):
        for j, band in enumerate(("vv", "vh")):
            values = speckle(shape, seed=2 * i + j)
            values[:, :20] = np.nan
            files.append(write_band(folder / f"{name}_{band}.tif", values, nodata=np.nan))
    store = sz.ingest(sz.plan_ingest(files, folder / "s.zarr", representation="power"))
    for size, stride, edge in ((64, 64, "pad"), (64, 48, "shift"), (100, 30, "pad"), (128, 128, "drop")):
        sz.index_patches(store, name=f"i{size}_{stride}", size=size, stride=stride, edge=edge)
    return sz.open_store(store.root)


def normalized(store, scene, name):
    return sz.normalize(store.db(scene, name), (-40, 10)).values


@pytest.mark.parametrize("index", ["i64_64", "i64_48", "i100_30"])
@pytest.mark.parametrize("augment", [None, "d4"])
def test_what_a_reader_delivers_is_the_scene(store, index, augment):
    """Whatever the stride, the edge, the order and the turns; bit for bit as the reader's own numbers."""
    reader = sz.PatchReader(
        store, index=index, polarizations=["vv", "vh"], batch_size=7, min_valid=0, min_unsaturated=0, flags=True,
        with_meta=True, clip=(-40, 10), shuffle=True, augment=augment, seed=3,
    )  # fmt: skip
    made = sz.stitch(((batch["image"], batch) for batch in reader), store=store)
    assert sorted(made) == ["a", "b"]
    for scene, array in made.items():
        assert array.dims == ("channel", "y", "x")
        assert array.dtype == np.float32
        assert array.rio.crs == "EPSG:32633"
        assert array.rio.transform() == store.db(scene).rio.transform()
        for i, name in enumerate(("vv", "vh")):
            np.testing.assert_allclose(array.values[i], normalized(store, scene, name), atol=3e-6, rtol=0)
            np.testing.assert_array_equal(np.isnan(array.values[i]), np.isnan(store.db(scene, name).values))


def test_what_no_patch_covers_is_nodata(store):
    rows = store.patches("i128_128", where="name == 'vv' and scene == 'a'")
    patches = np.ones((rows.sizes["patch"], 128, 128), np.float32)
    (array,) = sz.stitch(patches, rows, store=store).values()
    assert np.isnan(array.values[256:]).all()
    assert (array.values[:256, :384] == 1).all()
    classes = sz.stitch(patches.astype(np.uint8), rows, store=store)["a"]
    assert (classes.values[256:] == 255).all()
    assert classes.attrs["nodata"] == classes.rio.nodata == 255
    classes = sz.stitch([patches[:2] > 0, patches[2:] > 0], rows, store=store, nodata=9)["a"]
    assert set(np.unique(classes)) == {1, 9}


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    size=st.integers(3, 90), stride=st.integers(1, 90), edge=st.sampled_from(("drop", "shift", "pad")),
    channels=st.integers(0, 3), seed=st.integers(0, 99), kind=st.sampled_from(("float32", "float64", "int16")),
)  # fmt: skip
def test_any_cut_of_an_array_is_stitched_to_it(store, size, stride, edge, channels, seed, kind):
    rng = np.random.default_rng(seed)
    shape, stride = store.grid("b").shape, max(stride, size // 4)
    values = rng.integers(0, 5, ((channels,) if channels else ()) + shape).astype(kind)
    if kind != "int16":
        values += rng.random(values.shape).astype(kind)
    spec = IndexSpec(size=size, stride=stride, edge=edge)
    at = [(r, c) for r in positions(shape[0], spec).tolist() for c in positions(shape[1], spec).tolist()]
    padded = np.pad(values, [(0, 0)] * (values.ndim - 2) + [(0, size)] * 2, constant_values=7)
    patches = [padded[..., r : r + size, c : c + size] for r, c in at]
    table = {"scene": ["b"] * len(at), "row": [r for r, _ in at], "col": [c for _, c in at]}
    halves = (np.stack(patches[i::2]) for i in (0, 1) if patches[i::2])  # batches
    order = [*range(0, len(at), 2), *range(1, len(at), 2)]
    table = {k: [v[i] for i in order] for k, v in table.items()}
    (array,) = sz.stitch(halves, table, store=store).values()
    covered = np.zeros(shape, bool)
    for r, c in at:
        covered[r : r + size, c : c + size] = True
    ours, theirs = array.values[..., covered], values[..., covered]
    np.testing.assert_allclose(ours, theirs, rtol=1e-14 if kind == "float64" else 0)
    rest = array.values[..., ~covered]
    assert np.isnan(rest).all() if kind != "int16" else (rest == -32768).all()


def test_overlaps_are_averaged_voted_or_overwritten(store):
    table = {"scene": ["a"] * 3, "row": [0, 0, 0], "col": [0, 2, 2]}
    patches = np.stack([np.full((4, 4), v, np.float32) for v in (1, 2, 6)])
    assert sz.stitch(patches, table, store=store)["a"].values[0, :6].tolist() == [1, 1, 3, 3, 4, 4]
    assert sz.stitch(patches, table, store=store, blend="last")["a"].values[0, :6].tolist() == [
        1,
        1,
        6,
        6,
        6,
        6,
    ]
    votes = np.stack([np.full((4, 4), v, np.uint8) for v in (3, 1, 3)])
    assert sz.stitch(votes, table, store=store)["a"].values[0, :6].tolist() == [3, 3, 3, 3, 1, 1]
    patches[2, 0, 0] = np.nan  # says nothing
    assert sz.stitch(patches, table, store=store)["a"].values[0, :3].tolist() == [1, 1, 1.5]


def test_what_does_not_fit_is_refused(store):
    one = np.zeros((1, 4, 4), np.float32)
    table = {"scene": ["a"], "row": [0], "col": [0]}
    for patches, rows, options, words in (
        (np.zeros((2, 4, 4)), table, {}, "more patches than rows"),
        (one, {k: v * 2 for k, v in table.items()}, {}, "fewer patches than rows"),
        (one, {"scene": ["a"], "row": [0]}, {}, "'col'"),
        (one, {**table, "row": [300]}, {}, "300 x 410"),
        (one, table, {"blend": "max"}, "majority"),
        (one, table, {"blend": "majority"}, "mean"),
        (one.astype(np.uint8), table, {"blend": "mean"}, "majority"),
        (np.full((1, 4, 4), 255, np.uint8), table, {}, "nodata=255"),
        (one.astype(complex), table, {}, "real numbers"),
        (one, None, {}, "pairs of results"),
        (np.zeros((0, 4, 4)), {k: [] for k in table}, {}, "at least one patch"),
        (np.zeros((2, 4, 4)), {k: v * 2 for k, v in table.items()} | {"array": ["vv", "vh"]}, {}, "polarizations="),
        (np.zeros((2, 4, 4)), {k: v * 2 for k, v in table.items()} | {"store": ["x", "y"]}, {}, "one store"),
        (one, {**table, "scene": [["a", "b"]]}, {}, "each date"),
        (one, store.patches("i64_64").isel(patch=[0]), {}, "64 x 64"),
        ([np.zeros((1, 4, 4)), np.zeros((1, 2, 4, 4))], {k: v * 2 for k, v in table.items()}, {}, "1 channels"),
    ):  # fmt: skip
        with pytest.raises(InvalidInputError, match=words):
            sz.stitch(patches, rows, store=store, **options)
    reader = sz.PatchReader(
        store, index="i64_64", batch_size=1, min_valid=0, min_unsaturated=0, with_meta=True
    )
    with pytest.raises(InvalidInputError, match=r"\['v.'\] and \['v.'\]"):  # in batches of their own
        sz.stitch(((b["image"], b) for b in reader), store=store)
    with pytest.raises(NotInStoreError):
        sz.stitch(one, {**table, "scene": ["z"]}, store=store)
