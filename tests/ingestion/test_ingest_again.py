"""A second ingest into a store: what is there already, what would be lost, and what was asked for otherwise."""

import numpy as np
import pytest
import zarr
from conftest import speckle, write_band

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, SceneExistsError

KNOWN = {"quantity": "sigma0", "representation": "power"}


@pytest.fixture
def files(tmp_path):
    return [
        write_band(tmp_path / f"a_{name}.tif", speckle((512, 512), seed=i), tiles=256)
        for i, name in enumerate(("vv", "vh"))
    ]


def put(files, store, **options):
    plan = sz.plan_ingest(files, store, **{**KNOWN, **options})
    return plan, sz.ingest(plan)


# ------------------------------------------------------------------ arrays that would be lost
def test_replacing_a_scene_never_drops_an_array(files, tmp_path):
    _, store = put(files[:1], tmp_path / "s.zarr")
    for replace in (False, True):
        with pytest.raises(
            SceneExistsError, match=r"got vh alone: s\.zarr holds vv too, which would be lost"
        ) as no:
            sz.plan_ingest(files[1:], store.root, replace=replace, **KNOWN)
        assert "--replace" not in str(no.value)
        assert "sarzarr remove s.zarr a" in str(no.value)
    with pytest.raises(SceneExistsError, match="Pass --replace"):
        sz.plan_ingest(files, store.root, **KNOWN)
    _, store = put(files, store.root, replace=True)
    assert store.rows("a")["name"].values.tolist() == ["vh", "vv"]


# ------------------------------------------------------------------ stored in another way
OTHERWISE = [
    ({"dtype": "float32"}, "dtype uint16, not float32"),
    ({"codec": "zstd"}, "codec none, not zstd"),
    ({"shard": 512}, "shard 2048, not 512"),
    ({"border": 5}, "border 0, not 5"),
    ({"quantity": "gamma0"}, "quantity sigma0, not gamma0"),
    ({"polarizations": ["HH"]}, "arrays vv, not hh"),
]


@pytest.mark.parametrize(("asked", "said"), OTHERWISE)
def test_what_is_asked_for_otherwise_is_said_and_done_on_demand(files, tmp_path, asked, said):
    _, store = put(files[:1], tmp_path / "s.zarr")
    if "codec" in asked:
        said = said.replace("none", str(store.rows("a")["codec"].values[0]))
    plan, _ = put(files[:1], store.root, **asked)
    assert (plan.scenes, plan.present) == ((), ("a",))
    assert plan.notes == (f"a is kept as stored: {said}. Pass --replace to change it.",)
    plan, store = put(files[:1], store.root, replace=True, **asked)
    assert [s.id for s in plan.scenes] == ["a"]
    for again in (True, False):  # now it is stored so
        plan = sz.plan_ingest(files[:1], store.root, **{**KNOWN, **asked, "replace": again})
        assert (plan.scenes, plan.present, plan.notes) == ((), ("a",), ())


def test_what_is_not_asked_for_stays_as_it_is_stored(files, tmp_path):
    values = speckle((512, 512))
    values[:, :20] = np.nan
    path = write_band(tmp_path / "n_vv.tif", values, nodata=np.nan, tiles=256)
    _, store = put(path, tmp_path / "s.zarr", dtype="float32", shard=512, border=4)
    plan, _ = put(path, store.root, replace=True)
    assert (plan.scenes, plan.notes) == ((), ())
    plan, store = put(path, store.root, replace=True, codec="zstd")
    assert "stored as float32, codec zstd, chunks of 256, shards of 512" in str(plan)
    flags = zarr.open_array(store.root / "scenes" / "n" / "vv_flags", mode="r")[:]
    assert (flags[:, 20:24] == cv.Flag.BORDER).all()
    assert (flags[:, 24:] == cv.Flag.VALID).all()


def test_the_resampling_of_a_known_scene_is_compared(files, tmp_path):
    grid = {"crs": "EPSG:32632", "pixel_size": 20}
    _, store = put(files[:1], tmp_path / "s.zarr", **grid)
    assert sz.plan_ingest(files[:1], store.root, **grid, **KNOWN).notes == ()
    plan = sz.plan_ingest(files[:1], store.root, resampling="cubic", **grid, **KNOWN)
    assert plan.notes == ("a is kept as stored: resampling average, not cubic. Pass --replace to change it.",)
    plan = sz.plan_ingest(files[:1], store.root, resampling="cubic", replace=True, **grid, **KNOWN)
    assert [s.id for s in plan.scenes] == ["a"]


def test_many_kept_scenes_are_one_line(tmp_path):
    files = [write_band(tmp_path / f"s{i}_vv.tif", speckle((256, 256), seed=i)) for i in range(5)]
    _, store = put(files, tmp_path / "s.zarr")
    plan = sz.plan_ingest(files, store.root, dtype="float16", **KNOWN)
    assert plan.notes == (
        "s0, s1, s2 and 2 more are kept as stored: dtype uint16, not float16. Pass --replace to change it.",
    )


# ------------------------------------------------------------------ asked for in vain
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resampling": "cubic"}, "a grid to resample onto was expected"),
        ({"exact": True}, "a grid to place pixels on was expected"),
        ({"bounds": "fixed", "vmin": 5, "vmax": -25}, "vmin < vmax, got"),
        ({"bounds": "percentile", "low": 99, "high": 1}, "percentiles must be"),
        ({"bounds": "sigma", "k": -1}, "k must be a positive number"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_there_is_a_store(files, tmp_path, options, said):
    with pytest.raises(InvalidInputError, match=said):
        sz.plan_ingest(files, tmp_path / "s.zarr", **options, **KNOWN)


def test_a_replacement_says_what_was_said_of_the_file_and_is_not_said_again(tmp_path):
    path = write_band(tmp_path / "a_vv.tif", speckle((300, 300)))
    said = {"quantity": "sigma0", "nodata": 5.0}
    sz.ingest(sz.plan_ingest(path, tmp_path / "s.zarr", **said))
    (note,) = sz.plan_ingest(path, tmp_path / "s.zarr", dtype="float32", replace=True).notes
    assert note.startswith("'a' was stored with nodata 5.0, quantity sigma0, which nothing says now")
    assert not sz.plan_ingest(path, tmp_path / "s.zarr", dtype="float32", replace=True, **said).notes
