"""The law: a patch's row says what NumPy says of its pixels, for any size, stride and edge."""

import numpy as np
import pytest
from conftest import speckle, write_band
from hypothesis import given, settings
from hypothesis import strategies as st

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.patches.cut import IndexSpec, patch_ids, positions, sample_ids


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patches")
    raw = speckle((700, 900), seed=5)
    raw[:90, :300] = 0  # fill at the edge
    raw[400:420, 400:420] = 0  # dark water
    raw[500:520, 100:130] = np.nan
    write_band(folder / "a_vv.tif", raw, tiles=128)
    write_band(folder / "a_vh.tif", speckle((700, 900), seed=6, mean=0.01), tiles=128)
    write_band(folder / "b_vv.tif", speckle((100, 300), seed=7), tiles=128)
    files = sorted(folder.glob("*.tif"))
    return sz.ingest(
        sz.plan_ingest(files, folder / "s.zarr", quantity="sigma0", representation="power", shard=512)
    )


@settings(max_examples=15, deadline=None)
@given(
    size=st.sampled_from([1, 31, 128, 256, 300, 1000]),
    stride=st.sampled_from([64, 128, 200, 256, 400]),
    edge=st.sampled_from(["drop", "shift", "pad"]),
)
def test_every_column_is_what_numpy_says(store, size, stride, edge):
    if size == 1:
        stride = 400
    table = sz.index_patches(store, size=size, stride=stride, edge=edge, name="any").to_dataframe()
    assert table["id"].is_unique
    expected = 0
    for scene in store.scenes:
        for name in store.rows(scene)["name"].values:
            db = store.db(scene, name).values.astype(np.float64)
            flags = store.open_scene(scene)[name + "_flags"].values
            entry = store.bounds[f"{name}/sigma0"]
            low, high = (entry.clip_vmin + s * (entry.clip_vmax - entry.clip_vmin) for s in (0.01, 0.99))
            mine = table[(table["scene"] == scene) & (table["array"] == name)]
            spec = IndexSpec(size=size, stride=stride, edge=edge)
            expected += len(positions(db.shape[0], spec)) * len(positions(db.shape[1], spec))
            for row in mine.itertuples():
                window = slice(row.row, row.row + size), slice(row.col, row.col + size)
                lit = flags[window] == cv.Flag.VALID
                values = db[window][lit]
                assert row.valid_fraction == np.float32((flags[window] < cv.Flag.NODATA).sum() / size**2)
                inside = ((values > low) & (values < high)).sum()
                of_each = row.valid_fraction / max(values.size, 1)  # dark pixels are no stretch's doing
                assert (
                    abs(row.unsaturated_fraction - inside * of_each) <= 2.01 * of_each
                )  # a value on the line
                if values.size:
                    assert row.mean_db == pytest.approx(values.mean(), abs=1e-4)
                    assert row.std_db == pytest.approx(values.std(), abs=2e-3)
                else:
                    assert np.isnan(row.mean_db)
    assert len(table) == expected


@given(length=st.integers(1, 3000), size=st.integers(1, 600), stride=st.integers(1, 600))
def test_positions_cover_what_the_edge_says(length, size, stride):
    drop, shift, pad = (
        positions(length, IndexSpec(size=size, stride=stride, edge=e)) for e in ("drop", "shift", "pad")
    )
    assert (np.diff(shift) > 0).all()
    assert (np.diff(pad) > 0).all()
    assert (drop + size <= length).all()
    assert (shift + size <= length).all()
    assert drop.tolist() == shift[: len(drop)].tolist() == pad[: len(drop)].tolist()
    assert pad[-1] + size >= length or stride > size
    if length >= size:
        assert shift[-1] + size == length or stride > size
    assert (pad < length).all()


def test_ids_are_the_same_everywhere_and_differ_by_place():
    rows, cols = np.meshgrid(np.arange(0, 40000, 256), np.arange(0, 40000, 256))
    ids = patch_ids("s1_20260101", "vv", 256, rows.ravel(), cols.ravel())
    assert len(np.unique(ids)) == ids.size
    assert ids.dtype == np.int64
    assert ids.min() >= 0
    assert (ids != patch_ids("s1_20260101", "vh", 256, rows.ravel(), cols.ravel())).all()


def test_ids_stay_what_they_were():
    """Lists of hard patches that a user keeps hold them; the sign bit is left out."""
    nowhere = np.zeros(1, np.int32)
    ids = patch_ids("s1_20260101", "vv", 256, np.array([0, 512]), np.array([0, 256]))
    assert ids.tolist() == [3708402699995141379, 1130717226612477242]
    whole = sample_ids("samples/ssdd", ["000001", "000002"], 500)
    assert whole[0] == patch_ids("samples/ssdd", "000001", 500, nowhere, nowhere)[0] == 8364308316566479932
    assert whole[1] == patch_ids("samples/ssdd", "000002", 500, nowhere, nowhere)[0]


def test_ragged_edges_are_counted(store):
    assert store.patches().attrs["dropped"] == 2 * (3 * 4 - 2 * 3) + 2


def test_an_unknown_index_names_those_there_are(store):
    with pytest.raises(NotInStoreError, match="default"):
        store.patches("nope")
    with pytest.raises(InvalidInputError, match="drop, shift, pad"):
        sz.index_patches(store, edge="wrap")


def _plan(folder, names, **options):
    files = [folder / f"{name}_vv.tif" for name in names]
    return sz.plan_ingest(
        files, folder / "s.zarr", quantity="sigma0", representation="power", shard=512, **options
    )


def test_every_index_follows_the_scenes(tmp_path):
    for name, side in (("a", 600), ("b", 520), ("c", 400)):
        write_band(tmp_path / f"{name}_vv.tif", speckle((side, side), seed=side), tiles=128)
    store = sz.ingest(_plan(tmp_path, "a"))
    sz.index_patches(store, size=128, stride=128, name="small")
    store = sz.ingest(_plan(tmp_path, "b"))
    assert set(store.patches("small")["scene"].values) == {"a", "b"}
    write_band(tmp_path / "a_vv.tif", speckle((300, 300), seed=1), tiles=128)
    store = sz.ingest(_plan(tmp_path, "a", replace=True))
    for index, size in (("default", 256), ("small", 128)):
        table = store.patches(index).to_dataframe()
        for scene, side in (("a", 300), ("b", 520)):
            assert (table["scene"] == scene).sum() == (side // size) ** 2
    store = sz.remove_scene(store, "a")
    assert set(store.patches("small")["scene"].values) == {"b"}


@pytest.mark.parametrize(
    "options", [{"crs": "EPSG:32633", "pixel_size": 20.0}, {"border": 30}, {"dtype": "float16"}], ids=str
)
def test_an_index_follows_pixels_that_come_anew_from_the_same_file(tmp_path, options):
    raw = speckle((1024, 1024))
    raw[:, :100] = 0
    write_band(tmp_path / "a_vv.tif", raw, tiles=128)
    sz.ingest(_plan(tmp_path, "a"))
    store = sz.ingest(_plan(tmp_path, "a", replace=True, **options))
    there = store.patches().to_dataframe()
    anew = sz.index_patches(store, name="anew").to_dataframe()
    np.testing.assert_array_equal(there.drop(columns="array"), anew.drop(columns="array"))
