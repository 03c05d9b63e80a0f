"""What a product delivers beside its backscatter is a layer of its scene, or left out with a sentence."""

import math

import numpy as np
import pytest
import xarray as xr
from tiffs import speckle, write
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr.cli import app
from sarzarr.errors import UnsupportedRasterError
from sarzarr.scenes import companions
from sarzarr.scenes.products import rasters

HYP3 = "S1A_IW_20180128T161201_DVP_RTC30_G_gpuned_FD6A"
OPERA = "OPERA_L2_RTC-S1_T115-245714-IW1_{}_20250419T010229Z_S1A_30_v1.0"
STATIC = "OPERA_L2_RTC-S1-STATIC_T115-245714-IW1_20140403_S1A_30_v1.0"
SHAPE = (1, 300, 280)
ANGLES = np.linspace(0.5, 0.8, 280, dtype="float32") + np.zeros(SHAPE, "float32")


def ingest(files, store, **options):
    return sz.ingest(sz.plan_ingest(files, store, **options))


STEEP = np.random.default_rng(0).choice(np.array([1, 5, 17], "uint8"), SHAPE)


def hyp3(folder, name=HYP3):
    for seed, pol in enumerate(("VV", "VH")):
        write(folder / f"{name}_{pol}.tif", speckle(SHAPE, seed=seed), nodata=0)
    write(folder / f"{name}_ls_map.tif", STEEP, nodata=0)
    angles = ANGLES.copy()
    angles[0, :5] = 0
    write(folder / f"{name}_inc_map.tif", angles, nodata=0)
    write(folder / f"{name}_rgb.tif", np.concatenate([STEEP] * 3), photometric="RGB")
    return folder


def test_a_products_companions_are_layers_of_its_scene(tmp_path):
    plan = sz.plan_ingest(hyp3(tmp_path / "raw"), tmp_path / "s.zarr")
    assert [(s.id, [a.name for a in s.probe.arrays]) for s in plan.scenes] == [(HYP3, ["vv", "vh"])]
    assert not plan.refused
    assert any("rgb" in note and "a picture" in note for note in plan.notes)
    store = sz.ingest(plan)
    assert sorted(store.layers(HYP3)) == ["layover_shadow", "local_incidence_angle"]
    scene = xr.open_zarr(tmp_path / "s.zarr", group=f"scenes/{HYP3}", consolidated=False)
    angle = scene["local_incidence_angle"]
    assert angle.attrs["units"] == "degree"
    np.testing.assert_allclose(angle.values[5:], np.degrees(ANGLES[0, 5:]), rtol=1e-6)
    assert np.isnan(angle.values[:5]).all()
    np.testing.assert_array_equal(scene["layover_shadow"].values, STEEP[0])


def test_companions_are_left_out_where_that_is_asked(tmp_path):
    store = ingest(hyp3(tmp_path / "raw"), tmp_path / "s.zarr", companions="skip")
    assert store.layers(HYP3) == ()
    plan = sz.plan_ingest(tmp_path / "raw", tmp_path / "t.zarr", companions="skip")
    assert sum("is left out, since it is" in note for note in plan.notes) == 3


def test_companions_that_come_later_are_added(tmp_path):
    folder = hyp3(tmp_path / "raw")
    ingest(folder, tmp_path / "s.zarr", companions="skip")
    store = ingest(folder, tmp_path / "s.zarr")
    assert sorted(store.layers(HYP3)) == ["layover_shadow", "local_incidence_angle"]


def test_a_layer_that_is_there_from_another_file_stays_and_stops_nothing(tmp_path):
    folder, own = hyp3(tmp_path / "raw"), tmp_path / "own.tif"
    write(own, np.degrees(ANGLES), nodata=0)
    ingest(folder, tmp_path / "s.zarr", layers={"local_incidence_angle": own})
    hyp3(folder, HYP3.replace("20180128", "20180209"))
    plan = sz.plan_ingest(folder, tmp_path / "s.zarr")
    assert (len(plan.scenes), plan.present, len(plan.refused)) == (1, (HYP3,), 0)
    assert any("has another layer 'local_incidence_angle'. Pass --replace" in note for note in plan.notes)
    store = ingest(folder, tmp_path / "s.zarr", replace=True)
    assert store.layer_attrs(HYP3, "local_incidence_angle")["source_files"] == [f"{HYP3}_inc_map.tif"]


def test_companions_alone_are_refused_with_the_remedy(tmp_path):
    path = hyp3(tmp_path / "raw") / f"{HYP3}_ls_map.tif"
    with pytest.raises(UnsupportedRasterError, match=r"a layover and shadow map.*--layer NAME=FILE"):
        sz.plan_ingest(path, tmp_path / "s.zarr")


def test_each_scene_of_a_folder_has_its_own_companions(tmp_path):
    other = HYP3.replace("20180128T161201", "20180209T161201")
    hyp3(tmp_path / "raw")
    hyp3(tmp_path / "raw", other)
    plan = sz.plan_ingest(tmp_path / "raw", tmp_path / "s.zarr")
    assert {s.id: sorted(layer.path.name for layer in s.layers) for s in plan.scenes} == {
        name: [f"{name}_inc_map.tif", f"{name}_ls_map.tif"] for name in (HYP3, other)
    }


def test_a_static_layer_is_every_dates(tmp_path):
    dates = ("20250418T141628Z", "20250430T141628Z")
    for date in dates:
        write(tmp_path / f"{OPERA.format(date)}_VV.tif", speckle(SHAPE), nodata=math.nan)
        write(tmp_path / f"{OPERA.format(date)}_mask.tif", STEEP, nodata=255)
    write(tmp_path / f"{STATIC}_local_incidence_angle.tif", np.degrees(ANGLES), nodata=math.nan)
    write(tmp_path / f"{STATIC}_mask.tif", STEEP, nodata=255)
    plan = sz.plan_ingest(tmp_path, tmp_path / "s.zarr")
    layers = {s.id: {layer.name: layer.path.name for layer in s.layers} for s in plan.scenes}
    assert layers == {
        OPERA.format(date): {
            "layover_shadow": f"{OPERA.format(date)}_mask.tif",
            "local_incidence_angle": f"{STATIC}_local_incidence_angle.tif",
        }
        for date in dates
    }


def test_a_companion_on_another_grid_is_left_out_and_said(tmp_path):
    write(tmp_path / "raw" / "VV_dB.tif", 10 * np.log10(speckle(SHAPE)))
    write(tmp_path / "raw" / "site_dem.tif", 300 + ANGLES[:, :30, :28])
    plan = sz.plan_ingest(tmp_path / "raw", tmp_path / "s.zarr")
    assert plan.scenes[0].layers == ()
    assert any("site_dem.tif is left out, since it is an elevation on another grid" in n for n in plan.notes)


def test_what_could_be_of_several_scenes_is_of_none(tmp_path):
    for date in ("20260101", "20260113"):
        write(tmp_path / "raw" / f"lake_{date}_VV.tif", speckle(SHAPE))
    write(tmp_path / "raw" / "dem.tif", 300 + ANGLES)
    plan = sz.plan_ingest(tmp_path / "raw", tmp_path / "s.zarr")
    assert [s.layers for s in plan.scenes] == [(), ()]
    assert any("dem.tif is left out" in note and "--layer" in note for note in plan.notes)


@pytest.mark.parametrize(("name", "angles"), [("lake_lia", ANGLES), ("lake_incidence", np.degrees(ANGLES))])
def test_angles_of_incidence_are_in_degrees_whatever_the_file_says(tmp_path, name, angles):
    write(tmp_path / "raw" / "lake_VV.tif", speckle(SHAPE))
    write(tmp_path / "raw" / f"{name}.tif", angles)
    ingest(tmp_path / "raw", tmp_path / "s.zarr")
    layer = "local_incidence_angle" if "lia" in name else "incidence_angle"
    scene = xr.open_zarr(tmp_path / "s.zarr", group="scenes/lake", consolidated=False)
    np.testing.assert_allclose(scene[layer].values, np.degrees(ANGLES[0]), rtol=1e-6)


def test_a_layer_that_is_given_outweighs_a_companion(tmp_path):
    folder = hyp3(tmp_path / "raw")
    mine = write(tmp_path / "mine.tif", STEEP + np.uint8(1))
    plan = sz.plan_ingest(folder, tmp_path / "s.zarr", layers={"layover_shadow": mine})
    (scene,) = plan.scenes
    assert {layer.name: layer.path.name for layer in scene.layers}["layover_shadow"] == "mine.tif"


def test_the_command_line_says_what_became_of_each(tmp_path):
    folder = hyp3(tmp_path / "raw")
    shown = CliRunner().invoke(app, ["ingest", str(folder), "-o", str(tmp_path / "s.zarr"), "--dry-run"])
    assert shown.exit_code == 0
    assert "layer local_incidence_angle" in shown.output
    identified = CliRunner().invoke(app, ["identify", str(folder)])
    assert identified.exit_code == 0
    assert f"an angle beside backscatter: layer local_incidence_angle of {HYP3}" in identified.output
    assert "a picture beside backscatter: left out" in identified.output
    skipped = [*("ingest", str(folder), "-o", str(tmp_path / "s.zarr")), "--companions", "skip"]
    assert "is left out, since it is an angle" in CliRunner().invoke(app, skipped).output


def layers_of(folder, store):
    plan = sz.plan_ingest(folder, store)
    return {s.id: sorted(layer.path.name for layer in s.layers) for s in plan.scenes}, plan.notes


def test_a_companion_of_one_date_is_never_put_on_another(tmp_path):
    raw = tmp_path / "raw"
    write(raw / "S1_20200101_VV.tif", speckle(SHAPE))
    write(raw / "mask_20190505.tif", STEEP)
    layers, notes = layers_of(raw, tmp_path / "s.zarr")
    assert layers == {"S1_20200101": []}
    assert any("mask_20190505.tif" in note and "of 2019-05-05" in note for note in notes)
    write(raw / "water_mask_20200101.tif", STEEP)
    write(raw / "dem_20110211.tif", 300 + ANGLES)  # of every date
    layers, _ = layers_of(raw, tmp_path / "s.zarr")
    assert layers == {"S1_20200101": ["dem_20110211.tif", "water_mask_20200101.tif"]}


def test_a_date_tells_whose_a_companion_is(tmp_path):
    raw = tmp_path / "raw"
    for date in ("20200101", "20200113"):
        write(raw / f"S1_{date}_VV.tif", speckle(SHAPE))
    write(raw / "mask_20200113.tif", STEEP)
    layers, _ = layers_of(raw, tmp_path / "s.zarr")
    assert layers == {"S1_20200101": [], "S1_20200113": ["mask_20200113.tif"]}


def test_a_products_companion_is_of_no_other_product(tmp_path):
    raw = tmp_path / "raw"
    for year in ("19", "20"):
        dn = np.clip(3000 * np.sqrt(speckle(SHAPE)), 1, 65535).astype("uint16")
        write(raw / f"N10E100_{year}_sl_HH_F02DAR.tif", dn)
    write(raw / "N10E100_20_mask_F02DAR.tif", STEEP)
    layers, _ = layers_of(raw, tmp_path / "s.zarr")
    assert layers == {"N10E100_19_sl_F02DAR": [], "N10E100_20_sl_F02DAR": ["N10E100_20_mask_F02DAR.tif"]}
    (raw / "N10E100_20_sl_HH_F02DAR.tif").unlink()
    layers, notes = layers_of(raw, tmp_path / "s.zarr")
    assert layers == {"N10E100_19_sl_F02DAR": []}
    assert any("of another scene" in note for note in notes)


@pytest.mark.parametrize(
    "name", ["slope", "aspect", "canopy_height", "italia_theta", "projectedLocalIncidenceAngle"]
)
def test_what_only_sounds_like_a_layer_is_none(tmp_path, name):
    write(tmp_path / "raw" / "lake_VV.tif", speckle(SHAPE))
    write(tmp_path / "raw" / f"{name}.tif", 10 + ANGLES)
    layers, notes = layers_of(tmp_path / "raw", tmp_path / "s.zarr")
    assert layers == {"lake": []}
    assert any(f"{name}.tif is left out" in note for note in notes)


def test_folders_of_one_stem_do_not_collide_where_one_alone_is_backscatter(tmp_path):
    write(tmp_path / "s1_raw" / "EMSR107-0-0.tif", speckle(SHAPE))
    for folder in ("mask", "hydro"):
        write(tmp_path / folder / "EMSR107-0-0.tif", STEEP)
    plan = sz.plan_ingest([tmp_path / f for f in ("hydro", "mask", "s1_raw")], tmp_path / "s.zarr")
    assert [s.probe.paths[0].parent.name for s in plan.scenes] == ["s1_raw"]
    assert len(plan.refused) == 2


def test_fill_of_a_companion_that_no_tag_declares_is_nodata(tmp_path):
    raw = tmp_path / "raw"
    write(raw / "lake_VV.tif", speckle(SHAPE))
    tilted = ANGLES + np.linspace(0, 0.1, 300, dtype="float32")[:, None]  # of as many values as pixels
    for name, field, fill in (("lia", ANGLES, -9999), ("inc", tilted, 90), ("dem", 300 + ANGLES, -9999)):
        pixels = field.copy()
        pixels[0, :10] = fill
        write(raw / f"lake_{name}.tif", pixels)
    ingest(raw, tmp_path / "s.zarr")
    scene = xr.open_zarr(tmp_path / "s.zarr", group="scenes/lake", consolidated=False)
    for layer, right in (
        ("local_incidence_angle", np.degrees(ANGLES)),
        ("incidence_angle", np.degrees(tilted)),
        ("dem", 300 + ANGLES),
    ):
        assert np.isnan(scene[layer].values[:10]).all()
        np.testing.assert_allclose(scene[layer].values[10:], right[0, 10:], rtol=1e-6)


@pytest.mark.parametrize(
    "pixels", [5000 * ANGLES, (1000 * ANGLES).astype("int16"), (2 * ANGLES).astype("uint8")]
)
def test_an_angle_in_no_known_unit_is_left_out(tmp_path, pixels):
    write(tmp_path / "raw" / "lake_VV.tif", speckle(SHAPE))
    write(tmp_path / "raw" / "lake_inc.tif", pixels)
    layers, notes = layers_of(tmp_path / "raw", tmp_path / "s.zarr")
    assert layers == {"lake": []}
    assert any("neither in degrees nor in radians" in note for note in notes)


def test_radians_in_whole_numbers_are_left_out(tmp_path):
    folder = hyp3(tmp_path / "raw")
    write(folder / f"{HYP3}_inc_map.tif", (100 * ANGLES).astype("uint8"), nodata=0)
    layers, notes = layers_of(folder, tmp_path / "s.zarr")
    assert layers == {HYP3: [f"{HYP3}_ls_map.tif"]}
    assert any("in whole numbers, which radians are not" in note for note in notes)


def test_names_are_read_once_a_file_however_many_scenes_there_are(tmp_path, monkeypatch):
    asked = []

    def content_of(path):
        asked.append(path.name)
        return rasters.content_of(path)

    monkeypatch.setattr(companions, "content_of", content_of)
    for i in range(30):
        name = HYP3.replace("161201", f"1612{i:02}")
        write(tmp_path / "raw" / f"{name}_VV.tif", speckle((1, 64, 64), seed=i), nodata=0)
        write(tmp_path / "raw" / f"{name}_ls_map.tif", STEEP[:, :64, :64], nodata=0)
    layers, _ = layers_of(tmp_path / "raw", tmp_path / "s.zarr")
    assert layers == {scene: [f"{scene}_ls_map.tif"] for scene in layers}
    assert len(asked) == len(set(asked)) == 60
