"""Files become scenes by name and grid, and open lazily with the values that they hold."""

import multiprocessing
import pickle
import re
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from tiffs import DATA, composed, needs_data, speckle, write

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, SceneIdError, UnsupportedRasterError
from sarzarr.scenes.names import check_scene_id, safe_scene_id, scene_name
from sarzarr.scenes.probe import probe_file
from sarzarr.scenes.scene import block_chunks, group_scenes, open_scene


def ids(paths, **said) -> list[tuple[str, list[str]]]:
    return [(s.id, [a.name for a in s.arrays]) for s in group_scenes([probe_file(p) for p in paths], **said)]


# ---------------------------------------------------------------- ids


@pytest.mark.parametrize(
    ("stem", "folder", "product", "expected"),
    [
        ("S1_IW_GRD_panama_700_amp_VV_VH", "x", None, "S1_IW_GRD_panama_700_amp"),
        ("VV_dB", "05bc615a9b0aaaaav", None, "05bc615a9b0aaaaav"),
        ("Gamma0_VH", "S1A_20200103_17RMJ_ASC", None, "S1A_20200103_17RMJ_ASC"),
        ("imagery_HV", "RS2_OK1_PK05_HH_HV_SLC", None, "RS2_OK1_PK05_HH_HV_SLC"),
        ("Amplitude_VV", "Aarhus", None, "Aarhus"),
        ("lake_Amplitude_VV", "Aarhus", None, "lake_Amplitude"),
        ("Gamma0_2020-01-03_VV", "Aarhus", None, "Aarhus_2020-01-03"),
        ("VV", "20200103", "Aarhus", "Aarhus_20200103"),
        ("12", "VV", "Aarhus", "Aarhus_12"),
        ("sigma0_vv", "data", "Aarhus", "Aarhus"),
        ("IMAGE_HH_SRA_strip_007", "IMAGEDATA", "TSX1_SAR__MGD", "TSX1_SAR__MGD_SRA_strip_007"),
        (
            "D20160214_171512--_SIG0_S1AIWGRDH1VHA_015_A",
            "x",
            None,
            "D20160214_171512--_SIG0_S1AIWGRDH1A_015_A",
        ),
        ("VV", "s1_db_utm_nodata0", None, "s1_db_utm_nodata0"),
        ("vv_VH", "lake", None, "lake"),
        ("sentinel1_vv_panama", "x", None, "sentinel1_panama"),
        ("VV_20190101", "x", None, "x_20190101"),
        ("overview", "x", None, "overview"),
        ("iw-vh", "measurement", "S1A_IW_GRDH_1SDV.SAFE", "S1A_IW_GRDH_1SDV"),
        ("s1a-iw-grd-vh-x-002", "measurement", "S1A_IW_GRDH_1SDV", "S1A_IW_GRDH_1SDV"),
        ("s1a-iw2-slc-vh-x-005", "measurement", "S1A_IW_SLC__1SDV", "S1A_IW_SLC__1SDV_iw2"),
        ("s1a-iw2-slc-vh-x-005", "measurement", "S1A_IW_SLC__1SDV.SAFE", "S1A_IW_SLC__1SDV_iw2"),
        (
            "s1b-iw-grd-vh-20211223t051122-20211223t051147-030148-039993-002",
            "x",
            None,
            "s1b-iw-grd-20211223t051122-20211223t051147-030148-039993",
        ),
        ("Baltic sea (1)", "x", None, "Baltic_sea_1_"),
        ("_private", "x", None, "private"),
        ("a" * 300, "x", None, "a" * 128),
    ],
)
def test_scene_names(stem, folder, product, expected):
    assert scene_name(Path(product or "raw") / folder / f"{stem}.tif") == expected


WORD = st.sampled_from(
    ["Aarhus", "VV", "20200103", "Gamma0", "dB", "raw", "imagery", "IMAGEDATA", "7", "lake_VH"]
)


@settings(max_examples=200)
@given(folders=st.lists(WORD, max_size=4), stem=WORD, above=st.lists(WORD, max_size=3))
def test_an_id_is_of_the_path_and_of_no_more_of_it_than_it_takes(folders, stem, above):
    """Names further up than the one that tells do not count, so that a store is the same wherever files stand."""
    name = scene_name(Path("/site", *folders, f"{stem}.tif"))
    assert name == scene_name(Path("/", *above, "site", *folders, f"{stem}.tif"))
    assert check_scene_id(name) == name
    assert scene_name(Path("/site", *folders, f"{stem}_HV.tif")) == name  # another polarization


@pytest.mark.parametrize("layout", ["{site}/VV_dB.tif", "{site}/20200103/VV.tif", "{site}/20200103_vv.tif"])
def test_two_sites_of_one_stem_are_two_scenes(tmp_path, layout):
    paths = [tmp_path / layout.format(site=site) for site in ("Aarhus", "Bergen")]
    for path in paths:
        write(path, speckle())
    both = [scene for scene, _ in ids(paths)]
    assert len(set(both)) == 2
    assert both == [scene for path in paths for scene, _ in ids([path])]  # each alone has the same


def test_a_folder_a_polarization_is_one_scene(tmp_path):
    paths = [write(tmp_path / "lake" / p / "tile_12.tif", speckle()) for p in ("VV", "VH")]
    assert ids(paths) == [("tile_12", ["vv", "vh"])]


def test_a_file_of_which_no_name_is_left_is_named(tmp_path):
    paths = [write(tmp_path / "ä" / "ü.tif", speckle())]
    with pytest.raises(SceneIdError, match=r"ü\.tif: expected a scene id .* Ingest it alone with --id"):
        ids(paths)
    assert ids(paths, scene_id="u") == [("u", ["band_1"])]
    assert ids([write(tmp_path / "c_VV.tif", speckle())]) == [("scene_c", ["vv"])]


@pytest.mark.parametrize(
    "bad", ["", ".", "..", ".a", "_a", "a/b", "a b", "zarr.json", "c", "ä", "a\n", "a" * 129]
)
def test_an_id_that_a_store_cannot_hold_is_refused(bad):
    with pytest.raises(SceneIdError, match="--id"):
        check_scene_id(bad)


@pytest.mark.parametrize("nothing_left", ["", "...", "___", "äöü"])
def test_a_name_of_which_nothing_is_left_is_refused(nothing_left):
    with pytest.raises(SceneIdError, match="Ingest it alone with --id"):
        safe_scene_id(nothing_left)


@settings(max_examples=100)
@given(st.text(max_size=200))
@example("é/..\\..\0")
@example("../../etc")
def test_any_name_is_a_safe_id_or_refused(name):
    try:
        made = safe_scene_id(name)
    except SceneIdError:
        return
    assert re.fullmatch(r"[A-Za-z0-9-][A-Za-z0-9._-]{0,127}", made)
    assert check_scene_id(made) == made
    assert safe_scene_id(made) == made or made.endswith(".SAFE")


# ---------------------------------------------------------------- groups


def test_polarizations_of_one_scene_come_together_in_one_order(tmp_path):
    paths = [
        write(tmp_path / f"{name}.tif", speckle()) for name in ("a_VH", "b_VV", "a_VV", "d", "b_HH", "a_HV")
    ]
    expected = [("a", ["vv", "vh", "hv"]), ("b", ["vv", "hh"]), ("d", ["band_1"])]
    assert ids(paths) == expected
    assert sorted(ids(paths[::-1])) == expected
    one, other = (
        next(s for s in group_scenes(map(probe_file, p)) if s.id == "a") for p in (paths, paths[::-1])
    )
    assert one.arrays == other.arrays
    assert one.source_hash == other.source_hash


def test_esa_measurement_files_outside_their_folder_come_together(tmp_path):
    stamp = "20211223t051122-20211223t051147-030148-039993"
    paths = [
        write(tmp_path / f"s1b-iw-grd-{p}-{stamp}-00{n}.tif", speckle()) for n, p in ((1, "vv"), (2, "vh"))
    ]
    assert ids(paths) == [(f"s1b-iw-grd-{stamp}", ["vv", "vh"])]


def test_one_id_in_two_folders_is_a_collision(tmp_path):
    paths = [write(tmp_path / folder / "a.tif", speckle()) for folder in ("x", "y")]
    with pytest.raises(
        SceneIdError, match=r"got 'a' for x/a\.tif and y/a\.tif\. Ingest one of them with --id"
    ):
        ids(paths)
    assert ids(paths[:1], scene_id="other") == [("other", ["band_1"])]
    assert ids(paths, scene_id="{folder}_{name}") == [("x_a", ["band_1"]), ("y_a", ["band_1"])]


def test_two_files_for_one_array_are_a_collision(tmp_path):
    paths = [write(tmp_path / name, speckle()) for name in ("a.tif", "a.tiff")]
    with pytest.raises(SceneIdError, match=r"one file for 'band_1' of scene 'a', got a\.tif and a\.tiff"):
        ids(paths)


def test_polarizations_on_different_grids_are_refused_by_name(tmp_path):
    paths = [write(tmp_path / "a_VV.tif", speckle()), write(tmp_path / "a_VH.tif", speckle((1, 100, 130)))]
    with pytest.raises(UnsupportedRasterError, match=r"a_VV\.tif on 120 x 130 .* a_VH\.tif on 100 x 130"):
        ids(paths)


def test_an_id_makes_one_scene_of_all_files(tmp_path):
    paths = [write(tmp_path / name, speckle()) for name in ("lake_VV.tif", "sea_VH.tif")]
    assert ids(paths, scene_id="both") == [("both", ["vv", "vh"])]
    with pytest.raises(SceneIdError):
        ids(paths, scene_id="../x")


def test_a_refused_file_refuses_its_scene_with_the_reason(tmp_path):
    write(tmp_path / "a_VV.tif", speckle())
    write(tmp_path / "a_VH.tif", np.zeros((1, 120, 130), "float32"))
    scene = group_scenes(map(probe_file, sorted(tmp_path.glob("*.tif"))))[0]
    assert "no pixel in the sample" in scene.refusal
    with pytest.raises(UnsupportedRasterError, match=r"a_VV\.tif, a_VH\.tif: expected backscatter"):
        open_scene(sorted(tmp_path.glob("*.tif")))


def test_the_hash_of_a_scene_changes_with_any_of_its_files(tmp_path):
    paths = [write(tmp_path / "a_VV.tif", speckle()), write(tmp_path / "a_VH.tif", speckle(seed=1))]
    probes = [probe_file(p) for p in paths]
    before = group_scenes(probes)[0].source_hash
    assert before.startswith("sha256-sampled:")
    assert (
        group_scenes(
            [probes[0], replace(probes[1], stamp=replace(probes[1].stamp, hash="sha256-sampled:0"))]
        )[0].source_hash
        != before
    )


@needs_data
def test_real_scenes():
    files = [f for f in sorted(DATA.rglob("*.tif*")) if f.parent.name != "s1_c2_snap"]  # another slc.tif
    scenes = {s.id: [a.name for a in s.arrays] for s in group_scenes(map(probe_file, files)) if not s.refusal}
    assert scenes == {
        "s1b-iw-grd-20211223t051122-20211223t051147-030148-039993": ["vv"],
        "s1_db_utm_nodata0": ["vv", "vh"],
        "Spain_7370579_S1Hand": ["vv", "vh"],
        "S1_IW_GRD_panama_700_amp": ["vv", "vh"],
        "S1A_IW_GRDH_1SDV_20180716T004042_20180716T004107_022812_02792A_FD5B": ["vv", "vh"],
        "S1A_S1_GRDH_1SDV_20230809T020729_20230809T020754_049792_05FCE6_1175": ["vh"],
        "S1A__IW___A_20150309T173017_grd_mli_geo_norm_db": ["vv"],
        "38D_378R_2_3": ["band_1", "band_2"],
        "637U_59R_1_3": ["band_1", "band_2"],
        "s1_sigma0_linear_snap": ["vh"],
        "slc": ["band_1"],
        **{
            f"s1_timeseries_nogeo_{date}": ["band_1"]
            for date in ("20190428", "20190510", "20190522", "20190603", "20190615")
        },
        "sar_masked": ["band_1", "band_2", "band_3", "band_4"],
    }


# ---------------------------------------------------------------- opening


def oracle(path) -> xr.DataArray:
    """Return what rioxarray reads, eagerly."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", NotGeoreferencedWarning
        )  # that there is no place is the point of some
        return rioxarray.open_rasterio(path, driver="GTiff").load()


OPENED = [
    "s1_grd_amplitude/S1_IW_GRD_panama_700_amp_VV_VH.tif",
    "s1_rtc_db_float64/38D_378R_2_3.tif",
    "s1_sigma0_linear_snap/VH.tif",
    "s1_grd_tc_db/S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif",
    "xband_db_nan_unset/sar_masked.tif",
    "s1_slc_gcp/slc.tif",
    "s1_timeseries_nogeo/20190428.tif",
]


@pytest.mark.compat
@needs_data
@pytest.mark.parametrize("name", OPENED)
def test_a_real_scene_opens_as_rioxarray_reads_it(name):
    expected, opened = oracle(DATA / name), open_scene(DATA / name)
    assert len(opened.data_vars) == expected.sizes["band"]
    for variable, band in zip(opened.data_vars.values(), expected, strict=True):
        assert variable.dims == ("y", "x")
        assert variable.chunks is not None
        np.testing.assert_array_equal(variable.values, band.values, strict=True)
    if expected.rio.crs is not None and "slc" not in name:
        assert opened.rio.crs == expected.rio.crs
        np.testing.assert_allclose(opened.rio.transform()[:6], expected.rio.transform()[:6], rtol=1e-11)
        np.testing.assert_allclose(opened.y, expected.y, rtol=1e-14)
        np.testing.assert_allclose(opened.x, expected.x, rtol=1e-14)
    else:
        assert opened.rio.crs is None
        assert cv.SPATIAL_REF not in opened.coords
        np.testing.assert_array_equal(opened.y, np.arange(opened.sizes["y"]) + 0.5)


@needs_data
def test_the_polarizations_of_a_real_scene_open_together():
    folder = DATA / "s1_db_utm_nodata0"
    opened = open_scene([folder / "VH.tif", folder / "VV.tif"])
    assert list(opened) == ["vv", "vh"]
    assert opened.vv.attrs == {
        cv.QUANTITY: "power",
        cv.REPRESENTATION: "db",
        cv.REASON: "the folder is named 's1_db_utm_nodata0'",
        cv.SOURCE_NODATA: 0.0,
        cv.FILL_VALUE: 0.0,
        cv.SCALE_FACTOR: 1.0,
        cv.ADD_OFFSET: 0.0,
        cv.SAR_POLARIZATIONS: ["VV"],
        cv.UNITS: "dB",
    }
    assert opened.attrs[cv.SAR_POLARIZATIONS] == ["VV", "VH"]
    assert opened.vv.rio.crs.to_epsg() == 32633


@needs_data
def test_a_real_gcp_scene_keeps_its_gcps_and_its_facts():
    opened = open_scene(sorted(DATA.rglob("iw-*.tiff")))
    assert opened.attrs[cv.GEOLOCATION] == "gcps"
    assert len(probe_file(min(DATA.rglob("iw-*.tiff"))).georeference.gcps) == 210
    assert cv.GCPS not in opened.attrs  # their rows and columns are wrong of a part
    assert opened.attrs[cv.RELATIVE_ORBIT] == 165
    assert opened.rio.crs is None


def test_the_attrs_and_keys_hold_no_absolute_path(tmp_path):
    opened = open_scene(write(tmp_path / "amplitude" / "VV.tif", speckle()))
    assert str(tmp_path) not in repr(
        (opened.attrs, opened.vv.attrs, opened.vv.encoding, opened.spatial_ref.attrs)
    )
    assert str(tmp_path) not in opened.vv.data.name


@pytest.mark.compat
def test_a_rotated_affine_is_where_rioxarray_reads_it(tmp_path):
    rotated = composed(Affine.translation(5e5, 5e6), Affine.rotation(30), Affine.scale(10, -10))
    opened = open_scene(write(tmp_path / "a.tif", speckle(), transform=rotated))
    assert opened.attrs[cv.GEOLOCATION] == "rotated_affine"
    assert opened.rio.transform().almost_equals(rotated)
    assert opened.rio.crs.to_epsg() == 32633
    assert list(opened.coords) == [cv.SPATIAL_REF]


def test_gcps_made_here_open_without_a_crs(tmp_path):
    points = [GroundControlPoint(row=r, col=c, x=10 + c, y=50 - r, z=0) for r in (0, 99) for c in (0, 99)]
    path = write(tmp_path / "a.tif", speckle(), crs="EPSG:4326", transform=None, gcps=points)
    opened = open_scene(path)
    assert opened.rio.crs is None
    assert float(opened.x[0]) == 0.5
    assert probe_file(path).georeference.gcps == tuple((p.row, p.col, p.x, p.y, 0.0) for p in points)


def test_files_of_two_scenes_do_not_open_as_one(tmp_path):
    paths = [write(tmp_path / f"{name}.tif", speckle()) for name in "ab"]
    with pytest.raises(InvalidInputError, match="got 2: a, b"):
        open_scene(paths)
    with pytest.raises(InvalidInputError, match="got 0: none"):
        open_scene([])


# ---------------------------------------------------------------- lazily


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_selection_is_the_selection_of_the_whole(tmp_path_factory, data):
    pixels = (
        np.random.default_rng(0).permutation(np.arange(1, 1 + 90 * 70, dtype="uint16")).reshape(1, 90, 70)
    )
    path = tmp_path_factory.getbasetemp() / "selection" / "a_sar.tif"
    opened = open_scene(
        path if path.exists() else write(path, pixels, tiled=True, blockxsize=16, blockysize=32)
    )
    small = opened.band_1.chunk(y=32, x=16)
    rows = data.draw(st.slices(90))
    cols = data.draw(st.slices(70))
    for variable in (opened.band_1, small):
        np.testing.assert_array_equal(variable[rows, cols].values, pixels[0][rows, cols])


@pytest.mark.parametrize(
    ("shape", "block", "chunks"),
    [
        ((16705, 26102), (1, 26102), (256, 26102)),  # a GRD's strips: full width, whole rows
        ((10000, 10000), (512, 512), (2048, 2048)),
        ((10000, 10000), (256, 256), (2048, 2048)),
        ((10000, 10000), (1000, 1000), (2000, 2000)),
        ((25000, 25000), (25000, 25000), (25000, 25000)),  # one strip: one block
        ((25000, 25000), (4096, 4096), (4096, 4096)),
        ((100, 300), (64, 64), (100, 300)),
        ((5000, 1000), (8, 1000), (4192, 1000)),
    ],
)
def test_chunks_are_whole_blocks(shape, block, chunks):
    assert block_chunks(shape, block) == chunks
    for chunk, step, size in zip(chunks, block, shape, strict=True):
        assert chunk % step == 0 or chunk == size


def test_two_openings_of_one_file_do_not_share_keys_unless_they_are_one(tmp_path):
    both = write(tmp_path / "a.tif", np.concatenate([speckle(seed=1), speckle(seed=2)]))
    one, again = open_scene(both), open_scene(both, representation="amplitude", polarizations=["VV", "VH"])
    names = {variable.data.name for opened in (one, again) for variable in opened.data_vars.values()}
    assert len(names) == 4
    with rasterio.open(both) as dataset:
        expected = dataset.read()
    together = dask.compute(one.band_1.data, one.band_2.data, again.vv.data, again.vh.data)
    for got, band in zip(together, [*expected, *expected], strict=True):
        np.testing.assert_array_equal(got, band)


def test_a_rewritten_file_has_other_keys(tmp_path):
    path = write(tmp_path / "a.tif", speckle(seed=1))
    before = open_scene(path)
    write(tmp_path / "b.tif", speckle(seed=2)).replace(path)
    after = open_scene(path)
    assert before.band_1.data.name != after.band_1.data.name
    np.testing.assert_array_equal(after.band_1.values, speckle(seed=2)[0])


def test_one_task_a_chunk(tmp_path):
    pixels = np.ones((1, 4096, 4096), "uint8")
    opened = open_scene(
        write(tmp_path / "a_sar.tif", pixels, tiled=True, blockxsize=512, blockysize=512, compress="deflate")
    )
    (optimized,) = dask.optimize(opened.band_1.data)
    assert len([key for key in optimized.dask if isinstance(key, tuple)]) == 4


def compute(array):
    return array.compute(scheduler="threads", num_workers=2)


def test_a_scene_pickles_and_computes_in_a_spawned_process(tmp_path):
    opened = open_scene(write(tmp_path / "a.tif", speckle()))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened)).band_1.values, speckle()[0])
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(compute, opened.band_1).result().values, speckle()[0])


def test_a_sidecar_that_comes_after_opening_changes_nothing(tmp_path):
    path = write(tmp_path / "a.tif", speckle())
    opened = open_scene(path)
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>")
    write(tmp_path / "b.tif", speckle(seed=9)).rename(tmp_path / "a.tif.ovr")
    np.testing.assert_array_equal(compute(opened.band_1).values, speckle()[0])
    assert open_scene(path).rio.crs.to_epsg() == 32633


def test_a_vrt_called_tif_does_not_open(tmp_path):
    (tmp_path / "evil.tif").write_text('<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>')
    with pytest.raises(UnsupportedRasterError, match=r"expected a TIFF file, got 'evil\.tif'"):
        open_scene(tmp_path / "evil.tif")


def test_complex_integers_come_as_complex(tmp_path):
    pixels = np.array([[[1 + 2j, -3 - 4j], [0, 5j]]], "complex64")
    opened = open_scene(write(tmp_path / "a_VV.tif", pixels, dtype="complex_int16"))
    np.testing.assert_array_equal(opened.vv.values, pixels[0], strict=True)
    assert (opened.vv.attrs[cv.QUANTITY], opened.vv.attrs[cv.REPRESENTATION]) == ("dn", "complex")
