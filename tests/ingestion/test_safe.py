"""Sentinel-1 from SAFE: folders and archives, calibrated by their annotation."""

import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from conftest import tree_hash
from safes import Safe, write_measurement, write_safe, zip_product

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr import zips
from sarzarr.errors import InvalidInputError, UnsupportedRasterError

pytestmark = pytest.mark.slow

GRD = Safe(polarizations=("vv", "vh"))
SLC = Safe(type="SLC")
STEP = 160 / 65534


def put(paths, store, **options):
    return sz.ingest(sz.plan_ingest(paths, store, **options))


def measurements(root):
    return sorted((root / "measurement").iterdir())


def values(text):
    """The numbers as the XML has them: seven digits."""
    return np.array([float(f"{v:.6e}") for v in text])


def codes_of(store, array):
    return zarr.open_array(store.root / "scenes" / store.scenes[0] / array, mode="r")[:]


def table_at(safe, name, row, col):
    lines = []
    for line in safe.lines:
        sigma = safe.sigma(line)
        made = {"sigma0": sigma, "gamma0": sigma * 0.93, "beta0": np.full(len(sigma), 474.0)}[name]
        lines.append(np.interp(col, safe.pixels, values(made)))
    return np.interp(row, safe.lines, lines)


def noise_at(safe, row, col):
    across = safe.noise_across()
    at = [np.interp(col, p[v > 0], values(v[v > 0])) for _, p, v in across]
    eta = np.interp(row, [line for line, *_ in across], at)
    for (top, bottom, left, right), lines, factors in safe.noise_along() if safe.noise_ipf_290 else ():
        if top <= row <= bottom and left <= col <= right:
            eta *= np.interp(row, lines, values(factors))
    return eta


def expected(safe, quantity, *, denoise=False):
    """Linear power, pixel by pixel, in plain Python on some pixels of the first file: rows, columns, values."""
    rng = np.random.default_rng(3)
    rows, cols = rng.integers(0, safe.shape[0], 400), rng.integers(4, safe.shape[1], 400)
    dn = np.abs(safe.dn(1).astype(np.complex128)) ** 2
    out = []
    for row, col in zip(rows, cols, strict=True):
        eta = noise_at(safe, row, col) if denoise else 0
        out.append((dn[row, col] - eta) / table_at(safe, quantity, row, col) ** 2)
    return rows, cols, np.array(out)


@pytest.mark.parametrize("safe", [GRD, SLC, replace(GRD, mode="EW"), Safe(noise_ipf_290=False, ipf="002.72")])
@pytest.mark.parametrize("options", [{}, {"calibrate": "gamma0"}, {"calibrate": "beta0"}, {"denoise": True}])
def test_what_is_stored_is_calibrated_pixel_by_pixel(tmp_path, safe, options):
    root = write_safe(tmp_path, safe)
    store = put(root, tmp_path / "s.zarr", **options)
    (scene,) = store.scenes
    quantity = options.get("calibrate", "sigma0")
    assert set(store.rows(scene)["quantity"].values.tolist()) == {quantity}
    rows, cols, want = expected(safe, quantity, denoise=options.get("denoise", False))
    db = store.db(scene)["vv_db"].values[rows, cols]
    np.testing.assert_allclose(db, np.clip(10 * np.log10(np.maximum(want, 1e-10)), -60, None), atol=STEP)
    is_dark = codes_of(store, "vv_flags")[rows, cols] == cv.Flag.NONPOSITIVE
    np.testing.assert_array_equal(is_dark, want <= 0)
    attrs = store.node_attrs(scene, "vv")
    assert attrs[cv.CALIBRATED_BY] == f"calibration-{safe.stem(1)}.xml"
    assert attrs.get(cv.DENOISED_BY) == (f"noise-{safe.stem(1)}.xml" if options.get("denoise") else None)
    assert f"{quantity} by calibration-{safe.stem(1)}.xml" in attrs[cv.REASON]


@pytest.mark.parametrize("safe", [GRD, SLC])
@pytest.mark.parametrize("options", [{}, {"denoise": True}])
def test_the_lazy_chain_gives_the_codes_that_ingest_wrote(tmp_path, safe, options):
    root = write_safe(tmp_path, safe)
    store = put(root, tmp_path / "s.zarr", **options)
    scene = sz.open_scene(root, **options)
    assert scene.vv.attrs[cv.QUANTITY] == "dn"
    np.testing.assert_array_equal(scene.vv.values, safe.dn(1))
    power = sz.to_power(scene)
    assert power.vv.attrs[cv.QUANTITY] == "sigma0"
    assert set(power.coords) == {"y", "x"}
    codes = sz.to_codes(sz.normalize(sz.to_db(power.vv), cv.STORED_RANGE)).values
    stored = codes_of(store, "vv")
    measured = stored > 0
    np.testing.assert_array_equal(codes[measured], stored[measured])
    part = sz.to_power(scene.vv[40:200:3, 100:300]).values
    np.testing.assert_array_equal(part, power.vv.values[40:200:3, 100:300])


def test_digital_numbers_are_kept_where_that_is_asked_for(tmp_path):
    root = write_safe(tmp_path, GRD)
    scene = sz.open_scene(measurements(root), calibrate="none")
    assert set(scene.coords) == {"y", "x"}
    np.testing.assert_array_equal(sz.to_power(scene).vv.values, GRD.dn(1).astype(np.float32) ** 2)
    store = put(root, tmp_path / "s.zarr", calibrate="none")
    assert set(store.bounds) == {"vv/dn-sentinel-1-iw-grd", "vh/dn-sentinel-1-iw-grd"}
    said = sz.plan_ingest(root, tmp_path / "t.zarr", quantity="dn")
    assert {a.quantity for a in said.scenes[0].probe.arrays} == {"dn"}


def test_a_coordinate_that_was_dropped_is_missed(tmp_path):
    scene = sz.open_scene(measurements(write_safe(tmp_path, Safe())))
    with pytest.raises(InvalidInputError, match="expected the coordinate 'vv_gain'"):
        sz.to_power(scene.drop_vars("vv_gain"))


def test_scenes_stored_as_digital_numbers_stay_and_are_calibrated_on_demand(tmp_path):
    root = write_safe(tmp_path, GRD)
    put(root, tmp_path / "s.zarr", calibrate="none")
    plan = sz.plan_ingest(root, tmp_path / "s.zarr")
    assert not plan.scenes
    assert re.search(r"kept as stored: quantity dn, not sigma0\. Pass --replace", plan.notes[0])
    store = put(root, tmp_path / "s.zarr", replace=True)
    assert set(store.rows(store.scenes[0])["quantity"].values.tolist()) == {"sigma0"}
    assert not sz.plan_ingest(root, store.root).notes


def test_what_was_calibrated_by_choice_stays_so_and_is_changed_on_demand(tmp_path):
    root = write_safe(tmp_path, Safe())
    put(root, tmp_path / "s.zarr", calibrate="gamma0", denoise=True)
    assert not sz.plan_ingest(root, tmp_path / "s.zarr").notes
    store = put(root, tmp_path / "s.zarr", dtype="float32", replace=True)
    attrs = store.node_attrs(store.scenes[0], "vv")
    assert (attrs[cv.QUANTITY], attrs[cv.DENOISED_BY]) == ("gamma0", f"noise-{Safe().stem(1)}.xml")
    plan = sz.plan_ingest(root, tmp_path / "s.zarr", calibrate="sigma0")
    assert "quantity gamma0, not sigma0" in plan.notes[0]
    assert sz.plan_ingest(root, tmp_path / "s.zarr", calibrate="none").notes[0].count("not dn")


def test_another_calibration_is_another_work(tmp_path):
    root = write_safe(tmp_path, Safe())
    plans = [
        sz.plan_ingest(root, tmp_path / "s.zarr", **options).scenes[0].fingerprint
        for options in ({}, {"calibrate": "none"}, {"calibrate": "beta0"}, {"denoise": True})
    ]
    assert len(set(plans)) == 4


def test_a_calibrated_scene_is_warped_in_sigma0(tmp_path):
    root = write_safe(tmp_path, Safe())
    options = {"crs": "EPSG:4326", "pixel_size": 1e-4, "resampling": "nearest"}
    one = put(root, tmp_path / "a.zarr", **options)
    raw = put(root, tmp_path / "b.zarr", calibrate="none", **options)
    (scene,) = one.scenes
    gains = one.db(scene)["vv_db"].values - raw.db(scene)["vv_db"].values
    valid = np.isfinite(gains)
    assert valid.mean() > 0.9
    low, high = np.nanmin(gains), np.nanmax(gains)
    assert -20 * np.log10(665) - 0.01 < low < high < -20 * np.log10(558) + 0.01


def test_compiled_loops_give_the_same_store(tmp_path):
    """Work enough for compiled loops is tests' own: the switch says so, in a process of its own."""
    root = write_safe(tmp_path, Safe(shape=(520, 700)))
    digests = []
    for switch in ("0", "1"):
        program = "import sys, sarzarr as sz; sz.ingest(sz.plan_ingest([sys.argv[1]], sys.argv[2]))"
        command = [sys.executable, "-c", program, str(root), str(tmp_path / f"{switch}.zarr")]
        subprocess.run(command, check=True, env={**os.environ, "SARZARR_NUMBA": switch})
        digests.append(tree_hash(tmp_path / f"{switch}.zarr" / "scenes"))
    assert digests[0] == digests[1]


# ------------------------------------------------------------------ border noise
def noisy_edge(safe, root):
    """Give a measurement 30 columns of border noise at its left, and a dark lake inside."""
    dn = safe.dn(1)
    dn[:, :40] = np.random.default_rng(0).integers(1, 9, (safe.shape[0], 40))
    dn[:, :10] = 0
    dn[100:140, 200:260] = 5
    write_measurement(measurements(root)[0], dn, ipf=safe.ipf)
    return dn


@pytest.mark.parametrize("options", [{}, {"denoise": True}, {"calibrate": "none"}])
@pytest.mark.parametrize("ipf", ["002.82", "002.90"])
def test_border_noise_of_old_products_is_border_and_a_dark_lake_is_not(tmp_path, ipf, options):
    safe = Safe(ipf=ipf, noise_ipf_290=False)
    root = write_safe(tmp_path, safe)
    dn = noisy_edge(safe, root)
    store = put(root, tmp_path / "s.zarr", border_noise=True, **options)
    flags, codes = codes_of(store, "vv_flags"), codes_of(store, "vv")
    is_old = ipf == "002.82"
    assert (flags[:, :10] == cv.Flag.NODATA).all()
    edge = flags[:, 10:40]
    assert (edge == cv.Flag.BORDER).all() if is_old else (edge < cv.Flag.NODATA).all()
    assert ((codes == 0) == (flags >= cv.Flag.NODATA)).all()
    lake = cv.Flag.NONPOSITIVE if "denoise" in options else cv.Flag.VALID
    assert (flags[100:140, 200:260] == lake).all()
    assert np.mean(flags[:, 45:] == cv.Flag.BORDER) < 0.01
    assert (dn[flags == cv.Flag.BORDER] > 0).all()
    attrs = store.node_attrs(store.scenes[0], "vv")
    assert attrs.get(cv.BORDER_NOISE) == (f"noise-{safe.stem(1)}.xml" if is_old else None)
    histogram = store.histogram(store.scenes[0], "vv")
    assert histogram.nodata == np.count_nonzero(flags >= cv.Flag.NODATA)


def test_border_noise_without_a_word_of_noise_is_refused(tmp_path):
    safe = Safe(ipf="002.36", noise_ipf_290=False)
    with pytest.raises(UnsupportedRasterError, match=r"--border N"):
        sz.plan_ingest(write_safe(tmp_path, safe), tmp_path / "s.zarr", border_noise=True)
    file = write_measurement(tmp_path / "P.SAFE" / "measurement" / "iw-vv.tiff", GRD.dn(1))
    with pytest.raises(UnsupportedRasterError, match=r"--border N"):
        sz.plan_ingest(file, tmp_path / "s.zarr", border_noise=True)
    with pytest.raises(InvalidInputError, match=r"--border N"):
        sz.IngestOptions(border_noise=True, crs="EPSG:4326", pixel_size=1e-4)


def test_border_noise_stays_marked_and_is_marked_on_demand(tmp_path):
    safe = Safe(ipf="002.82", noise_ipf_290=False)
    root = write_safe(tmp_path, safe)
    noisy_edge(safe, root)
    put(root, tmp_path / "s.zarr")
    plan = sz.plan_ingest(root, tmp_path / "s.zarr", border_noise=True)
    assert "border noise kept, not marked" in plan.notes[0]
    marked = put(root, tmp_path / "s.zarr", border_noise=True, replace=True)
    put(root, tmp_path / "s.zarr", dtype="float32", replace=True)
    assert cv.BORDER_NOISE in sz.open_store(marked.root).node_attrs(marked.scenes[0], "vv")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"border_noise": True}, {"denoise": True}),
        ({"denoise": True, "border_noise": True}, {"calibrate": "gamma0"}),
        ({"calibrate": "gamma0"}, {"denoise": True}),
        ({"denoise": True, "border_noise": True}, {"calibrate": "none"}),
    ],
)
def test_what_a_replacement_does_not_name_stays_as_it_is_stored(tmp_path, first, then):
    safe = Safe(ipf="002.82", noise_ipf_290=False)
    root = write_safe(tmp_path, safe)
    noisy_edge(safe, root)
    put(root, tmp_path / "s.zarr", **first)
    store = put(root, tmp_path / "s.zarr", replace=True, **then)
    whole = put(root, tmp_path / "whole.zarr", **(first | then | {"denoise": then != {"calibrate": "none"}}))
    named = (cv.QUANTITY, cv.DENOISED_BY, cv.BORDER_NOISE, cv.REASON)
    for array in ("vv", "vv_flags"):
        np.testing.assert_array_equal(codes_of(store, array), codes_of(whole, array))
    old, new = (one.node_attrs(one.scenes[0], "vv") for one in (store, whole))
    assert {key: old.get(key) for key in named} == {key: new.get(key) for key in named}


def test_marks_of_border_noise_are_not_taken_onto_another_grid(tmp_path):
    safe = Safe(ipf="002.82", noise_ipf_290=False)
    root = write_safe(tmp_path, safe)
    noisy_edge(safe, root)
    put(root, tmp_path / "s.zarr", border_noise=True)
    grid = {"crs": "EPSG:4326", "pixel_size": 1e-4, "replace": True}
    with pytest.raises(InvalidInputError, match=r"--border N, or take the scene out first \(`sarzarr remove"):
        sz.plan_ingest(root, tmp_path / "s.zarr", **grid)
    store = put(root, tmp_path / "s.zarr", border=1, **grid)
    assert cv.BORDER_NOISE not in store.node_attrs(store.scenes[0], "vv")
    assert np.mean(codes_of(store, "vv_flags") < cv.Flag.NODATA) > 0.9


def test_fill_stays_fill_where_noise_is_subtracted_before_a_warp(tmp_path):
    store = put(
        write_safe(tmp_path, Safe()), tmp_path / "s.zarr", denoise=True, crs="EPSG:4326", pixel_size=1e-4
    )
    flags = codes_of(store, "vv_flags")
    rows, cols, want = expected(Safe(), "sigma0", denoise=True)
    assert (flags[:, :3] == cv.Flag.NODATA).all()
    assert np.count_nonzero(flags == cv.Flag.NODATA) == 3 * 300
    np.testing.assert_array_equal(flags[rows, cols] == cv.Flag.NONPOSITIVE, want <= 0)


# ------------------------------------------------------------------ layers that annotation tells
def test_incidence_of_one_row_is_the_same_after_a_warp(tmp_path):
    root = write_safe(tmp_path, Safe())
    own = put(root, tmp_path / "own.zarr", annotation=["incidence_angle"])
    store = put(root, tmp_path / "s.zarr", annotation=["incidence_angle"], crs="EPSG:4326", pixel_size=1e-4)
    want = codes_of(own, "incidence_angle")
    np.testing.assert_allclose(codes_of(store, "incidence_angle"), want, atol=1e-3)


def test_incidence_and_nesz_are_layers_on_request(tmp_path):
    root = write_safe(tmp_path, GRD)
    store = put(root, tmp_path / "s.zarr", annotation=("incidence_angle", "nesz"))
    (scene,) = store.scenes
    assert store.layers(scene) == ("incidence_angle", "nesz_vh", "nesz_vv")
    cols = np.arange(420)
    angle, nesz = codes_of(store, "incidence_angle"), codes_of(store, "nesz_vv")
    known = np.unique(np.linspace(0, 419, 21).round().astype(int))
    np.testing.assert_allclose(
        angle, np.tile(np.interp(cols, known, 30 + 16 * known / 420), (300, 1)), atol=6e-4
    )
    for row, col in ((0, 0), (150, 210), (299, 419), (77, 400)):
        want = 10 * np.log10(noise_at(GRD, row, col) / table_at(GRD, "sigma0", row, col) ** 2)
        assert nesz[row, col] == pytest.approx(want, abs=6e-4)
    attrs = store.layer_attrs(scene, "incidence_angle")
    assert (attrs[cv.UNITS], attrs[cv.SOURCE_FILES]) == ("degree", [f"{GRD.stem(1)}.xml"])
    assert store.layer_attrs(scene, "nesz_vv")[cv.UNITS] == "dB"
    assert not sz.plan_ingest(root, store.root, annotation=("incidence_angle",)).scenes


def test_incidence_is_warped_with_its_scene_and_read_from_an_archive(tmp_path):
    archive = zip_product(write_safe(tmp_path / "in", Safe()), tmp_path / "p.zip")
    store = put(
        archive, tmp_path / "s.zarr", crs="EPSG:4326", pixel_size=2e-4, annotation=("incidence_angle",)
    )
    angle, flags = codes_of(store, "incidence_angle"), codes_of(store, "vv_flags")
    inside = flags == cv.Flag.VALID
    assert np.isfinite(angle[inside]).mean() > 0.98
    assert 30 <= np.nanmin(angle) < 31
    assert 45 < np.nanmax(angle) <= 46


def test_annotation_that_is_not_there_cannot_be_a_layer(tmp_path):
    file = write_measurement(tmp_path / "P.SAFE" / "measurement" / "iw-vv.tiff", GRD.dn(1))
    with pytest.raises(UnsupportedRasterError, match="leave out --annotation"):
        sz.plan_ingest(file, tmp_path / "s.zarr", annotation=("incidence_angle",))
    with pytest.raises(InvalidInputError, match="expected annotation of incidence_angle, nesz"):
        sz.IngestOptions(annotation=("angle",))
    with pytest.raises(InvalidInputError, match="by --layer and --annotation"):
        sz.IngestOptions(annotation=("nesz",)).changed(layers={"nesz_vv": "n.tif"})


# ------------------------------------------------------------------ refusals
def change(path: Path, pattern: str, by: str, count: int = 0) -> None:
    text = path.read_text()
    changed = re.sub(pattern, by, text, count=count)
    assert changed != text
    path.write_text(changed)


CALIBRATION = "annotation/calibration/calibration-{}.xml"
NOISE = "annotation/calibration/noise-{}.xml"
REFUSED = [
    (CALIBRATION, r"5\.580000e\+02", "0.0", {}, "positive calibration factors"),
    (CALIBRATION, r"5\.580000e\+02", "-1.0", {}, "positive calibration factors"),
    (CALIBRATION, r"5\.580000e\+02", "NaN", {}, "positive calibration factors"),
    (CALIBRATION, r"5\.580000e\+02", "x", {}, "expected numbers for sigmaNought"),
    (CALIBRATION, r"5\.580000e\+02 ", "", {}, "as many values as pixels"),
    (CALIBRATION, "<polarisation>VV", "<polarisation>VH", {}, "of another one: polarisation VH"),
    (CALIBRATION, "<missionDataTakeId>235857", "<missionDataTakeId>1", {}, "of another one: missionDataTakeId 1"),
    (CALIBRATION, "<startTime>2021-12-23T05:11:22", "<startTime>2021-12-23T05:10:57", {}, "another one: startTime"),
    (CALIBRATION, "calibrationVector>", "vector>", {}, "expected vectors calibrationVector"),
    (CALIBRATION, "</calibration>", "", {}, "well-formed"),
    ("annotation/{}.xml", "<numberOfSamples>420", "<numberOfSamples>421", {}, "annotated image of 300 x 421"),
    (NOISE, "<polarisation>VV", "<polarisation>VH", {"denoise": True}, "of another one"),
    ("annotation/{}.xml", "Performed>false", "Performed>true", {"denoise": True}, "Leave out --denoise"),
    ("manifest.safe", r"003\.40", "002.36", {"denoise": True}, r"IPF 2\.36"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "pattern", "by", "options", "said"), REFUSED)
def test_annotation_that_cannot_be_right_is_refused_with_a_remedy_that_works(
    tmp_path, file, pattern, by, options, said
):
    safe = Safe()
    root = write_safe(tmp_path, safe)
    change(root / file.format(safe.stem(1)), pattern, by)
    with pytest.raises(UnsupportedRasterError, match=said) as no:
        sz.plan_ingest(root, tmp_path / "s.zarr", **options)
    assert "--denoise" in str(no.value) if options else "--calibrate none" in str(no.value)
    plan = sz.plan_ingest(root, tmp_path / "s.zarr", **({} if options else {"calibrate": "none"}))
    assert len(plan.scenes) == 1


def test_a_table_shorter_than_the_image_is_refused(tmp_path):
    root = write_safe(tmp_path, replace(SLC, shape=(300, 420)))
    other = write_safe(tmp_path / "other", replace(SLC, shape=(300, 260)))
    stem = SLC.stem(1)
    (root / CALIBRATION.format(stem)).write_text((other / CALIBRATION.format(stem)).read_text())
    with pytest.raises(
        UnsupportedRasterError, match=r"table of 300 x 420 pixels, got one of lines -45 to .* to 259"
    ):
        sz.plan_ingest(root, tmp_path / "s.zarr")


@pytest.mark.parametrize(("by", "said"), [("e-10", "not scaled"), ("e-400", "zeros alone")])
def test_noise_that_is_none_is_refused_whatever_the_version_says(tmp_path, by, said):
    root = write_safe(tmp_path, Safe())
    change(root / NOISE.format(Safe().stem(1)), r"e\+0[23]", by)
    with pytest.raises(UnsupportedRasterError, match=said):
        sz.plan_ingest(root, tmp_path / "s.zarr", denoise=True)


@pytest.mark.parametrize("options", [{"calibrate": "sigma0"}, {"denoise": True}])
def test_a_calibration_that_is_not_there_is_refused(tmp_path, options):
    file = write_measurement(tmp_path / "P.SAFE" / "measurement" / "iw-vv.tiff", GRD.dn(1))
    with pytest.raises(UnsupportedRasterError, match="Give the product whole"):
        sz.plan_ingest(file, tmp_path / "s.zarr", **options)
    assert sz.probe_file(file).quantity == "dn"


def test_options_that_contradict_one_another_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="Leave one of them out"):
        sz.IngestOptions(calibrate="none", denoise=True)
    with pytest.raises(InvalidInputError, match="expected a calibration of sigma0, beta0, gamma0, none"):
        sz.IngestOptions(calibrate="sigma")


# ------------------------------------------------------------------ names, folders, archives
@pytest.mark.parametrize("safe", [replace(GRD, suffix="-cog"), replace(GRD, short_names=True)])
def test_the_names_of_cog_safe_and_of_mirrors_find_their_annotation(tmp_path, safe):
    store = put(write_safe(tmp_path, safe), tmp_path / "s.zarr")
    assert set(store.rows(store.scenes[0])["quantity"].values.tolist()) == {"sigma0"}


def test_an_archive_is_the_folder_that_it_holds(tmp_path):
    root = write_safe(tmp_path / "whole", GRD)
    (tmp_path / "zipped").mkdir()
    archive = zip_product(root, tmp_path / "zipped" / f"{root.stem}.zip")
    one = put(root, tmp_path / "a.zarr", denoise=True)
    two = put(archive, tmp_path / "b.zarr", denoise=True)
    three = put(archive.parent, tmp_path / "c.zarr", denoise=True)
    assert tree_hash(one.root) == tree_hash(two.root) == tree_hash(three.root)
    assert sz.plan_ingest(archive, one.root).present == one.scenes
    assert str(tmp_path) not in (one.root / "zarr.json").read_text()


def test_a_product_that_is_there_unpacked_and_zipped_is_taken_once(tmp_path):
    root = write_safe(tmp_path / "in", GRD)
    archive = zip_product(root, tmp_path / "in" / f"{root.stem}.zip")
    for given in (tmp_path / "in", [root, archive], [archive, root]):
        plan = sz.plan_ingest(given, tmp_path / "s.zarr")
        assert [array.path.parent.parent for array in plan.scenes[0].probe.arrays] == [root, root]


def hostile(archive, kind, root):
    """Write an archive that a stranger might send."""
    tiff = measurements(root)[0].read_bytes()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("P.SAFE/measurement/iw-vv.tiff", tiff)
        if kind == "climbs":
            out.writestr("../measurement/iw-vh.tiff", tiff)
        elif kind == "absolute":
            out.writestr("/tmp/iw-vh.tiff", tiff)
        elif kind == "backslash":
            out.writestr("..\\iw-vh.tiff", tiff)
        elif kind == "twice":
            out.writestr("P.SAFE/measurement/iw-vv.tiff", tiff)
        elif kind == "many":
            for i in range(1001):
                out.writestr(f"{i}", b"")
    data = bytearray(archive.read_bytes())
    if kind == "cut":
        archive.write_bytes(data[: len(data) // 2])
    elif kind == "flipped":
        data[len(tiff) // 2] ^= 1
        archive.write_bytes(data)
    elif kind == "encrypted":
        data[data.rindex(b"PK\x01\x02") + 8] |= 1
        archive.write_bytes(data)
    elif kind == "giant":
        at = data.rindex(b"PK\x01\x02")
        data[at + 24 : at + 28] = (0xFFFFFFFE).to_bytes(4, "little")
        archive.write_bytes(data)
    elif kind == "list":
        at = data.rindex(b"PK\x05\x06")
        data[at + 12 : at + 16] = (0x7FFFFFFF).to_bytes(4, "little")
        archive.write_bytes(data)
    elif kind == "none":
        archive.write_bytes(b"no archive")
    return archive


@pytest.mark.parametrize(
    "kind",
    [
        "climbs",
        "absolute",
        "backslash",
        "twice",
        "many",
        "cut",
        "flipped",
        "encrypted",
        "giant",
        "list",
        "none",
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_archive_is_refused_and_named(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(zips, "MAX_MEMBERS", 1000)
    archive = hostile(tmp_path / "bad.zip", kind, write_safe(tmp_path, Safe()))
    with pytest.raises((UnsupportedRasterError, InvalidInputError), match=r"bad\.zip|iw-vv\.tiff"):
        sz.plan_ingest(archive, tmp_path / "s.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == [Safe().name, "bad.zip"]


# ------------------------------------------------------------------ modes
def test_each_vignette_of_wave_mode_is_a_scene(tmp_path):
    folder = tmp_path / "S1B_WV_SLC__1SSV_20210403T083025_20210403T084452_026300_032390_D542.SAFE"
    for n, (swath, start) in enumerate((("wv1", 25), ("wv2", 40), ("wv1", 54)), 1):
        name = f"s1b-{swath}-slc-vv-20210403t0830{start}-20210403t0830{start + 3}-026300-032390-{n:03d}.tiff"
        write_measurement(folder / "measurement" / name, SLC.dn(1))
    plan = sz.plan_ingest(folder, tmp_path / "s.zarr")
    product = folder.name.removesuffix(".SAFE")
    assert [s.id for s in plan.scenes] == [f"{product}_{n}" for n in ("wv1_001", "wv1_003", "wv2_002")]
    assert len({s.probe.acquisition.datetime for s in plan.scenes}) == 3


def test_digital_numbers_of_modes_do_not_share_a_clip(tmp_path):
    for mode, kind in (("IW", "GRDH"), ("EW", "GRDM"), ("S4", "GRDH")):
        product = f"S1A_{mode}_{kind}_1SDH_20221130T014342_20221130T014407_046117_058549_A000.SAFE"
        write_measurement(tmp_path / product / "measurement" / "hh.tiff", GRD.dn(1))
    other = "S1B_IW_GRDH_1SDH_20221206T014342_20221206T014407_036117_058549_A000.SAFE"
    write_measurement(tmp_path / other / "measurement" / "hh.tiff", GRD.dn(2))
    with rasterio.open(tmp_path / "amp_HH.tif", "w", driver="GTiff", width=420, height=300, count=1, dtype="uint16",
                       crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0)) as out:  # fmt: skip
        out.write(GRD.dn(3), 1)
    store = put([tmp_path], tmp_path / "s.zarr")
    modes = {f"hh/dn-sentinel-1-{mode}-grd" for mode in ("iw", "ew", "sm")}
    assert set(store.bounds) == {*modes, "hh/dn"}
    put(tmp_path / "amp_HH.tif", store.root, representation="power", quantity="dn", id="as_power")
    assert set(sz.open_store(store.root).bounds) == {*modes, "hh/dn", "hh/dn-power"}


# ------------------------------------------------------------------ beside another reader
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("safe", [GRD, SLC])
@pytest.mark.parametrize(
    ("quantity", "name"), [("sigma0", "sigmaNought"), ("beta0", "betaNought"), ("gamma0", "gamma")]
)
def test_xarray_sentinel_gives_the_same_within_a_hundredth_of_a_decibel(tmp_path, safe, quantity, name):
    reader = pytest.importorskip(
        "xarray_sentinel.sentinel1", reason="no other reader: pip install xarray-sentinel"
    )
    root = write_safe(tmp_path, safe)
    tables = reader.open_calibration_dataset(str(root / CALIBRATION.format(safe.stem(1))))
    dims = {"line": np.arange(safe.shape[0]), "pixel": np.arange(safe.shape[1])}
    dn = xr.DataArray(safe.dn(1), dims=("line", "pixel"), coords=dims)
    other = reader.calibrate_intensity(dn, tables[name]).values
    ours = sz.to_power(sz.open_scene(root, calibrate=quantity)).vv.values
    measured = ours > 0
    within = slice(0, safe.shape[0] - safe.line_step)  # beyond the last line of an SLC it has NaN
    np.testing.assert_allclose(10 * np.log10(ours[within][measured[within]]),
                               10 * np.log10(other[within][measured[within]]), atol=0.01)  # fmt: skip
