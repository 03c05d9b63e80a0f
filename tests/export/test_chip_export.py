"""Chips as GeoTIFFs again, and drawn: the same pixels within half a code, at the same place."""

import numpy as np
import pytest
import rasterio
from chip_collections import CRSS, MASK, codes_of, ids_of, make_chips, mask_of
from pyproj import CRS

import sarzarr as sz
from sarzarr.errors import InvalidInputError, NotInStoreError

HALF_A_CODE = 160 / 65534 / 2


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    sizes = [((16, 16), (12, 20))[i % 2] for i in range(8)]
    places = [(i % 3, (10.0, 0, 400_000.0 + i, 0, -10.0, 5_200_000.0)) for i in range(8)]
    places = [(c, t if c < 2 else (1e-4, 0, 12.5, 0, -1e-4, 47.0)) for c, t in places]
    return make_chips(tmp_path_factory.mktemp("chips") / "s.zarr", sizes=tuple(sizes), places=places)


def test_a_chip_comes_back_as_it_is_with_its_place(store, tmp_path):
    for chip in range(1, 7):
        path = sz.export_chip(store, "floods", ids_of(8)[chip], tmp_path / f"{chip}.tif")
        with rasterio.open(path) as file:
            assert file.crs == CRS.from_user_input(CRSS[chip % 3])
            assert tuple(file.transform)[:6] == sz.open_collection(store, "floods").grid(chip).transform
            assert file.descriptions == ("vv", "vh")
            assert file.tags()["sarzarr_chip"] == ids_of(8)[chip]
            pixels = file.read()
        for k in range(2):
            codes = codes_of(chip, k, ((16, 16), (12, 20))[chip % 2])
            db = (codes - 1.0) / 65534 * 160 - 60
            np.testing.assert_array_equal(np.isnan(pixels[k]), codes == 0)
            np.testing.assert_allclose(pixels[k][codes > 0], db[codes > 0], atol=1e-4)
    path = sz.export_chip(store, "floods", 2, tmp_path / "mask.tif", arrays="mask")
    with rasterio.open(path) as file:
        assert (file.nodata, file.dtypes) == (MASK.nodata, ("int16",))
        np.testing.assert_array_equal(file.read(1), mask_of(2, (16, 16)))
    power = sz.export_chip(store, "floods", 2, tmp_path / "p.tif", arrays=["vv"], representation="power")
    with rasterio.open(power) as file:
        np.testing.assert_allclose(
            10 * np.log10(file.read(1)), (codes_of(2, 0, (16, 16)) - 1.0) / 65534 * 160 - 60, atol=1e-3
        )


def test_what_a_chip_has_not_is_refused(store, tmp_path):
    with pytest.raises(NotInStoreError, match="a chip of 'floods'"):
        sz.export_chip(store, "floods", "nobody", tmp_path / "x.tif")
    with pytest.raises(NotInStoreError, match="are vv, vh, got 'mask'"):
        sz.export_chip(store, "floods", 0, tmp_path / "x.tif", arrays="mask")
    with pytest.raises(InvalidInputError, match="each once"):
        sz.export_chip(store, "floods", 0, tmp_path / "x.tif", arrays=[])
    with pytest.raises(InvalidInputError, match="one dtype"):
        sz.export_chip(store, "floods", 1, tmp_path / "x.tif", arrays=["vv", "mask"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["s1_floods_db_mask", "s1_rtc_db_float64"])
def test_real_chips_come_back_within_half_a_code(real_data, tmp_path, folder):
    layers = {"layers": {"mask": "LabelHand"}} if "mask" in folder else {}
    files = sorted((real_data / folder).glob("*.tif"))
    made = sz.ingest(sz.plan_ingest([real_data / folder], tmp_path / "s.zarr", collection="real", **layers))
    chips = sz.open_collection(made, "real")
    for number, chip in enumerate(chips.ids):
        source = next(f for f in files if chip in (f.stem, f.name))
        path = sz.export_chip(made, "real", chip, tmp_path / "out.tif")
        with rasterio.open(source) as before, rasterio.open(path) as after:
            assert (after.crs, after.transform, after.shape) == (before.crs, before.transform, before.shape)
            want, got = before.read().astype(np.float64), after.read().astype(np.float64)
        inside = np.isfinite(want) & (want > -60)
        assert inside.mean() > 0.9
        assert np.abs(got - want)[inside].max() <= HALF_A_CODE + 1e-5
        if layers:
            sz.export_chip(made, "real", number, tmp_path / "mask.tif", arrays="mask")
            with rasterio.open(tmp_path / "mask.tif") as after, rasterio.open(files[0]) as before:
                np.testing.assert_array_equal(after.read(), before.read())


def test_a_sheet_shows_chips_with_their_masks(store, tmp_path):
    pytest.importorskip("matplotlib")
    figure = sz.quicklook(store, collection="floods", patches=3, layer="mask")
    assert len([axis for axis in figure.axes if axis.get_title()]) == 6
    path = sz.write_quicklook(store, tmp_path / "q.png", collection="floods")
    assert path.stat().st_size > 10_000
    with pytest.raises(InvalidInputError, match="1 to 64"):
        sz.quicklook(store, collection="floods", patches=65)
    with pytest.raises(InvalidInputError, match="boxes over chips"):
        sz.quicklook(store, collection="floods", rgb=True)
    with pytest.raises(InvalidInputError, match="chips of 'floods'"):
        sz.quicklook(store, ["a"], collection="floods")


@pytest.mark.slow
def test_a_sheet_shows_the_boxes_of_chips_as_they_were_drawn(store, tmp_path):
    """Rotated where the table has rotated ones; each class with its colour in the legend."""
    pytest.importorskip("matplotlib")
    chip = sz.open_collection(store, "floods").ids[1]
    (tmp_path / f"{chip}.txt").write_text("8 2 14 8 8 14 2 8 ship 0\n1 1 3 1 3 3 1 3 buoy 0\n")
    sz.import_chip_boxes(store, "floods", tmp_path / f"{chip}.txt")
    figure = sz.quicklook(store.anew(), collection="floods", patches=8, boxes=True)
    drawn = [path for axis in figure.axes for one in axis.collections for path in one.get_paths()]
    assert len(drawn) == 4  # two boxes, on two polarizations
    corners = sorted(map(tuple, drawn[0].vertices[:4].round(3).tolist()))
    assert corners == [(2, 8), (8, 2), (8, 14), (14, 8)]
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert {"box: ship", "box: buoy"} <= set(texts)
