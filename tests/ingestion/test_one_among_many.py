"""One file among many: what is refused, or fails on the way, is listed with its reason, and the others go in."""

import logging
import shutil

import numpy as np
import pytest
import xarray as xr
from conftest import speckle, tree_hash, write_band
from rasterio import Affine
from tiffs import write

import sarzarr as sz
from sarzarr.errors import (
    CorruptStoreError,
    IngestError,
    InvalidInputError,
    PartialIngestError,
    RasterNotFoundError,
    SceneExistsError,
    SceneIdError,
    UnsupportedRasterError,
)
from sarzarr.scenes.survey import survey_files

KNOWN = {"quantity": "sigma0", "representation": "power"}
SHAPE = (256, 256)


def good(folder, name, seed=0, **options):
    folder.mkdir(parents=True, exist_ok=True)
    return write_band(folder / name, speckle(SHAPE, seed=seed), **options)


def unreadable_later(path):
    """A GeoTIFF whose sampled pixels can be read, and whose last block cannot."""
    write_band(path, speckle((2048, 512)), tiles=256, compress="deflate")
    path.write_bytes(path.read_bytes()[:-50_000])
    return path


@pytest.fixture
def many(tmp_path):
    """A folder of good scenes, and every kind of file that cannot be taken; the names that each is refused with."""
    raw = tmp_path / "raw"
    for i in range(5):
        good(raw, f"s{i}_vv.tif", seed=i)
    (raw / "empty_vv.tif").write_bytes(b"")
    (raw / "junk_vv.tif").write_text("no TIFF")
    (raw / "cut_vv.tif").write_bytes((raw / "s0_vv.tif").read_bytes()[:3000])
    write(raw / "unit_vv.tif", speckle(SHAPE), tags={"REPRESENTATION": "normalized"})
    good(raw, "ü_vv.tif")
    good(raw, "two_vv.tif")
    shutil.copy(raw / "two_vv.tif", raw / "two_VV.tiff")
    good(raw, "grids_vv.tif")
    good(raw, "grids_vh.tif", transform=Affine(10, 0, 0, 0, -10, 0))
    good(raw, "half_vv.tif")
    (raw / "half_vh.tif").write_bytes(b"")
    return raw


REFUSED = {
    None: {"empty_vv.tif", "junk_vv.tif", "half_vh.tif", "ü_vv.tif"},
    "cut": {"cut_vv.tif"},
    "unit": {"unit_vv.tif"},
    "two": {"two_vv.tif", "two_VV.tiff"},
    "grids": {"grids_vv.tif", "grids_vh.tif"},
    "half": {"half_vv.tif"},
}


def by_scene(refused):
    out = {}
    for refusal in refused:
        assert refusal.reason
        out.setdefault(refusal.scene, set()).update(file.name for file in refusal.files)
    return out


@pytest.fixture
def warned():
    """Texts that are logged of what is refused, whatever filters a command line has left on pytest's handlers."""
    texts, log = [], logging.getLogger("sarzarr.scenes.refusals")
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())
    log.addHandler(handler)
    yield texts
    log.removeHandler(handler)


def test_the_others_go_in_and_each_refused_one_is_listed(many, tmp_path, warned):
    plan = sz.plan_ingest(many, tmp_path / "s.zarr", **KNOWN)
    assert [s.id for s in plan.scenes] == [f"s{i}" for i in range(5)]
    assert by_scene(plan.refused) == REFUSED
    store = sz.ingest(plan)
    assert store.scenes == tuple(f"s{i}" for i in range(5))
    (text,) = warned
    names = set().union(*REFUSED.values())
    assert all(name in text and name in str(plan) for name in names)
    alone = sz.ingest(sz.plan_ingest(sorted(many.glob("s?_vv.tif")), tmp_path / "alone.zarr", **KNOWN))
    assert tree_hash(store.root) == tree_hash(alone.root)
    again = sz.plan_ingest(many, store.root, **KNOWN)
    assert (len(again.present), by_scene(again.refused)) == (5, REFUSED)


def test_strict_names_all_of_them_and_writes_nothing(many, tmp_path):
    with pytest.raises(UnsupportedRasterError) as raised:
        sz.plan_ingest(many, tmp_path / "s.zarr", strict=True, **KNOWN)
    assert all(name in str(raised.value) for name in set().union(*REFUSED.values()))
    assert not list(tmp_path.glob("s.zarr*"))
    shutil.rmtree(many)
    for i in range(2):
        good(many, f"s{i}_vv.tif", seed=i)
    assert not sz.plan_ingest(many, tmp_path / "s.zarr", strict=True, **KNOWN).refused


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda f: [f / "nowhere.tif", f / "elsewhere.tif"], RasterNotFoundError),
        (lambda f: [good(f, "ü_vv.tif")], SceneIdError),
        (lambda f: [good(f / x, "a_vv.tif") for x in "12"], SceneIdError),
        (lambda f: [good(f, "a_vv.tif", transform=Affine(10, 0, 0, 0, -10, 0)), good(f, "a_vh.tif")],
         UnsupportedRasterError),
        (lambda f: [f / "nowhere.tif", good(f, "ü_vv.tif")], UnsupportedRasterError),
    ],
    ids=["absent", "bad id", "one id twice", "grids", "two kinds"],
)  # fmt: skip
def test_where_nothing_goes_in_it_is_an_error_of_its_kind_that_names_all(tmp_path, make, kind):
    files = make(tmp_path)
    with pytest.raises(kind) as raised:
        sz.plan_ingest(files, tmp_path / "s.zarr", **KNOWN)
    assert type(raised.value) is kind
    assert all(f"{file.parent.name}/{file.name}" in str(raised.value) for file in files)


def test_a_name_that_zarr_keeps_for_itself_gets_a_word_before_it(tmp_path):
    store = sz.ingest(
        sz.plan_ingest([good(tmp_path, "c_vv.tif"), good(tmp_path, "d_vv.tif")], tmp_path / "s.zarr")
    )
    assert store.scenes == ("d", "scene_c")
    with xr.open_datatree(store.root, engine="zarr") as tree:  # it does not see a group that is called c
        assert set(tree["scenes"].children) == {"d", "scene_c"}


def test_one_bad_name_under_one_id_is_said_once(many, tmp_path):
    with pytest.raises(SceneIdError) as raised:
        sz.plan_ingest(many, tmp_path / "s.zarr", id="a b")
    assert ".tif" not in str(raised.value)


def test_options_that_hold_of_one_scene_leave_it_out(tmp_path):
    files = [good(tmp_path, "a_vv.tif"), good(tmp_path, "b_vv.tif", crs=None)]
    plan = sz.plan_ingest(files, tmp_path / "s.zarr", crs="EPSG:32632", pixel_size=20, **KNOWN)
    assert ([s.id for s in plan.scenes], by_scene(plan.refused)) == (["a"], {"b": {"b_vv.tif"}})
    with pytest.raises(InvalidInputError, match="a pixel size was expected"):
        sz.plan_ingest(files, tmp_path / "s.zarr", crs="EPSG:32632", **KNOWN)


@pytest.mark.slow
def test_a_scene_that_does_not_fit_the_memory_is_left_out(tmp_path):
    giant = tmp_path / "g_vv.tif"
    write_band(giant, speckle((6000, 6000)), blockysize=6000, compress="deflate")
    options = {"memory": 600_000_000, **KNOWN}
    plan = sz.plan_ingest([giant, good(tmp_path, "b_vv.tif")], tmp_path / "s.zarr", **options)
    assert ([s.id for s in plan.scenes], by_scene(plan.refused)) == (["b"], {"g": {"g_vv.tif"}})
    with pytest.raises(UnsupportedRasterError, match="g: a worker within 600 MB was expected"):
        sz.plan_ingest([giant], tmp_path / "s.zarr", **options)


def test_a_scene_that_is_there_with_other_pixels_is_left_out(tmp_path):
    files = [good(tmp_path, f"{x}_vv.tif", seed=ord(x)) for x in "ab"]
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", **KNOWN))
    good(tmp_path, "b_vv.tif", seed=1)
    plan = sz.plan_ingest([*files, good(tmp_path, "d_vv.tif")], store.root, **KNOWN)
    assert (plan.present, [s.id for s in plan.scenes]) == (("a",), ["d"])
    (refusal,) = plan.refused
    assert (refusal.scene, refusal.kind) == ("b", SceneExistsError)


def test_damage_of_the_store_is_no_refusal(tmp_path):
    files = [good(tmp_path, f"{x}_vv.tif", seed=ord(x)) for x in "ab"]
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", **KNOWN))
    document = store.root / "scenes" / "a" / "zarr.json"
    for damage in (lambda: document.write_text("{"), document.unlink):
        damage()
        with pytest.raises(CorruptStoreError, match="scenes/a"):
            sz.plan_ingest(files, store.root, dtype="float32", **KNOWN)


# ------------------------------------------------------------------ layers
def beside_one_another(folder):
    """Return files of two scenes of which one lies east of the other, and a folder for labels."""
    (folder / "labels").mkdir()
    east = {"a": 0, "b": 9000}
    files = [good(folder, f"{x}_vv.tif", transform=Affine(10, 0, at, 0, -10, 0)) for x, at in east.items()]
    return files, folder / "labels"


def test_a_layers_file_that_cannot_be_read_leaves_the_scenes_alone(tmp_path):
    files, labels = beside_one_another(tmp_path)
    write_band(labels / "a.tif", np.ones(SHAPE, np.uint8), transform=Affine(10, 0, 0, 0, -10, 0))
    (labels / "b.tif").write_text("no TIFF")
    plan = sz.plan_ingest(files, tmp_path / "s.zarr", layers={"label": labels}, **KNOWN)
    assert by_scene(plan.refused) == {None: {"b.tif"}}
    store = sz.ingest(plan)
    assert store.scenes_with("label") == ("a",)
    (labels / "a.tif").unlink()
    with pytest.raises(UnsupportedRasterError, match=r"labels/b\.tif: expected a TIFF"):
        sz.plan_ingest(files, store.root, layers={"label": labels}, **KNOWN)


def test_a_scene_whose_layer_cannot_be_told_is_left_out(tmp_path):
    files, labels = beside_one_another(tmp_path)
    for name, x in (("1", 0), ("2", 0), ("3", 9000)):
        write_band(labels / f"{name}.tif", np.ones(SHAPE, np.uint8), transform=Affine(10, 0, x, 0, -10, 0))
    plan = sz.plan_ingest(files, tmp_path / "s.zarr", layers={"label": labels}, **KNOWN)
    assert ([s.id for s in plan.scenes], by_scene(plan.refused)) == (["b"], {"a": {"a_vv.tif"}})
    assert [layer.name for layer in plan.scenes[0].layers] == ["label"]


# ------------------------------------------------------------------ on the way
@pytest.mark.parametrize("bounds", ["stored", "percentile"])
def test_a_scene_that_fails_on_the_way_does_not_take_the_others_down(tmp_path, bounds):
    files = [good(tmp_path, f"{x}_vv.tif", seed=ord(x)) for x in "ad"]
    bad = unreadable_later(tmp_path / "b_vv.tif")
    options = {"bounds": bounds, **KNOWN}
    plan = sz.plan_ingest([bad, *files], tmp_path / "s.zarr", **options)
    assert len(plan.scenes) == 3
    store = sz.ingest(plan)
    assert store.scenes == ("a", "d")
    assert by_scene(plan.refused) == {"b": {"b_vv.tif"}}
    alone = sz.ingest(sz.plan_ingest(files, tmp_path / "alone.zarr", **options))
    assert tree_hash(store.root) == tree_hash(alone.root)
    with pytest.raises(IngestError, match=r"b_vv\.tif: b, block at row"):
        sz.ingest(sz.plan_ingest([bad], tmp_path / "t.zarr", **options))
    strict = sz.plan_ingest([bad, *files], tmp_path / "u.zarr", strict=True, **options)
    with pytest.raises(
        PartialIngestError if bounds == "stored" else IngestError, match=r"b_vv\.tif: b, block at row"
    ):
        sz.ingest(strict)
    assert sz.open_store(tmp_path / "u.zarr").scenes == (("a", "d") if bounds == "stored" else ())


def test_documents_that_cannot_be_written_fail_their_scene_alone(tmp_path):
    files = [good(tmp_path, f"{x}_vv.tif", seed=ord(x)) for x in "ab"]
    plan = sz.plan_ingest(files, tmp_path / "s.zarr", **KNOWN)
    in_the_way = tmp_path / "s.zarr.ingest" / "b"
    in_the_way.parent.mkdir()
    in_the_way.write_text("a file where the folder of a scene is to be")
    store = sz.ingest(plan)
    assert store.scenes == ("a",)
    assert by_scene(plan.refused) == {"b": {"b_vv.tif"}}
    in_the_way.unlink()
    assert sz.ingest(sz.plan_ingest(files, store.root, **KNOWN)).scenes == ("a", "b")


# ------------------------------------------------------------------ the same of the same file
@pytest.mark.slow
def test_identify_and_ingest_say_the_same_of_the_same_file(many, tmp_path, real_data):
    """Each file alone, and all together: the same are taken, and the others refused with the same words."""
    write(many / "scaled_vv.tif", speckle(SHAPE), scale=(2, 1))
    write(many / "dem.tif", np.linspace(100, 900, 65536, dtype="float32").reshape(SHAPE))
    files = [*sorted(many.iterdir()), *sorted(real_data.rglob("*.tif*"))]
    assert len(files) > 30
    for number, given in enumerate([[file] for file in files] + [files]):
        survey = survey_files(given)
        store = tmp_path / f"{number}.zarr"
        if survey.scenes:
            plan = sz.plan_ingest(given, store, memory=10**12)
            assert [s.id for s in plan.scenes] == [s.id for s in survey.scenes]
            assert plan.refused == survey.refused
        else:
            with pytest.raises(sz.errors.SarzarrError) as raised:
                sz.plan_ingest(given, store)
            assert str(raised.value) == "\n".join(survey.refused.lines())
