"""Folders instead of files, and a file that is given twice."""

import shutil

import pytest
from conftest import speckle, write_band

import sarzarr as sz
from sarzarr.errors import RasterNotFoundError, SceneIdError
from sarzarr.zips.listing import raster_files

KNOWN = {"quantity": "sigma0", "representation": "power"}


@pytest.fixture
def folder(tmp_path):
    """Two scenes, a file that is none, and what a file manager leaves."""
    place = tmp_path / "raw"
    place.mkdir()
    write_band(place / "b_vv.tif", speckle((256, 256), seed=1))
    write_band(place / "a_vv.tif", speckle((256, 256), seed=2))
    shutil.copy(place / "a_vv.tif", place / "A_vh.TIFF")
    (place / "._a_vv.tif").write_bytes(b"junk")
    (place / "notes.txt").write_text("notes")
    return place


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


# ------------------------------------------------------------------ folders
def test_a_folder_means_the_tiffs_in_it(folder):
    assert names(raster_files([folder]), folder) == ["A_vh.TIFF", "a_vv.tif", "b_vv.tif"]
    assert raster_files([folder / "x.tif"]) == [folder / "x.tif"]


def test_a_safe_folder_means_its_measurements(tmp_path):
    safe = tmp_path / "S1A_IW_GRDH_1SDV_20180716T004042_20180716T004107_022812_02792A_FD5B.SAFE"
    for place in ("measurement/iw1", "preview", "annotation"):
        (safe / place).mkdir(parents=True)
        write_band(safe / place / "iw-vv.tiff", speckle((256, 256)))
    expected = [safe / "measurement" / "iw1" / "iw-vv.tiff"]
    assert raster_files([safe]) == raster_files([tmp_path]) == expected
    renamed = safe.rename(tmp_path / "product")
    assert names(raster_files([renamed]), renamed) == ["measurement/iw1/iw-vv.tiff"]


def test_a_real_product_folder_is_one_scene(real_data):
    product = next((real_data / "s1_grd_dn_gcp_safe" / "2018").rglob("measurement")).parent
    (scene,) = sz.plan_ingest(product, product / "x.zarr").scenes
    assert scene.id == product.name
    assert {a.name for a in scene.probe.arrays} == {"vv", "vh"}


def test_a_folder_without_tiffs_is_an_error(tmp_path):
    (tmp_path / "empty.SAFE").mkdir()
    for place in (tmp_path, tmp_path / "empty.SAFE"):
        with pytest.raises(RasterNotFoundError, match=r"which holds no \.tif or \.tiff"):
            sz.plan_ingest(place, tmp_path / "s.zarr")


def test_a_folder_of_folders_names_those_that_hold_tiffs(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RasterNotFoundError, match=rf"Name those in it that do: {folder.name}\.$"):
        raster_files([tmp_path])


# ------------------------------------------------------------------ given twice
def test_a_file_that_is_given_twice_is_taken_once(folder, tmp_path):
    (tmp_path / "link_vv.tif").symlink_to(folder / "b_vv.tif")
    twice = [folder / "b_vv.tif", folder / ".." / "raw" / "b_vv.tif", tmp_path / "link_vv.tif"]
    plan = sz.plan_ingest(twice, tmp_path / "s.zarr", **KNOWN)
    assert [s.id for s in plan.scenes] == ["b"]
    assert plan.notes == (
        "b_vv.tif is given twice, and taken once.",
        "link_vv.tif is given twice, and taken once.",
    )


def test_ids_of_the_scenes_of_many_sites_take_their_folders_in(tmp_path):
    """The remedy of two sites whose files are called alike."""
    files = [tmp_path / f"{name}.tif" for name in ("Aarhus/S1_VV", "Aarhus/S1_VH", "Bergen/S1_VV")]
    for seed, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        write_band(file, speckle((64, 64), seed=seed))
    with pytest.raises(SceneIdError, match=r"--id '\{folder\}_\{name\}'"):
        sz.plan_ingest(files, tmp_path / "s.zarr")
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", id="{folder}_{name}"))
    assert store.scenes == ("Aarhus_S1", "Bergen_S1")
    assert sz.plan_ingest(files[::-1], store.root, id="{folder}_{name}").present == store.scenes[::-1]
    with pytest.raises(SceneIdError, match="expected a scene id"):
        sz.plan_ingest(files, tmp_path / "t.zarr", id="{site}")
