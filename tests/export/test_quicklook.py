"""Pictures are upright, of the right colours, in the right place, and read no scene whole."""

import numpy as np
import pytest
from conftest import speckle, write_band
from rasterio import Affine

import sarzarr as sz
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.export.pictures.scene_panels import RATIO_DB
from sarzarr.export.pictures.stack_sheet import StackOverTime
from sarzarr.store.boxes import Boxes, write_boxes

pytest.importorskip("matplotlib", reason="matplotlib is not installed (sarzarr[plot])")
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from sarzarr.export.pictures.panels import NODATA_COLOUR

KNOWN = {"quantity": "sigma0", "representation": "power", "strict": True}
UTM = Affine(10, 0, 500_000, 0, -10, 5_400_000)
NORTH_UP = {
    "north up": (UTM, lambda v: v),
    "south up": (Affine(10, 0, 500_000, 0, 10, 5_400_000), lambda v: v[::-1]),
    "mirrored": (Affine(-10, 0, 500_000, 0, -10, 5_400_000), lambda v: v[:, ::-1]),
    "turned a quarter": (Affine(0, 10, 500_000, -10, 0, 5_400_000), lambda v: v.T),
}


def corner(shape=(300, 300)):
    """Return power that is bright in the north-west corner of the picture, as it is to be drawn."""
    values = speckle(shape, mean=0.01)
    values[: shape[0] // 4, : shape[1] // 4] *= 100
    return values


def made(folder, files, name="s.zarr", **options):
    folder.mkdir(exist_ok=True)
    for file, values, place in files:
        write_band(folder / file, values, **place)
    return sz.ingest(sz.plan_ingest([folder / f for f, *_ in files], folder / name, **KNOWN | options))


def panels(figure):
    """Return the axes that hold a picture with a title."""
    return [axis for axis in figure.axes if axis.images and axis.get_title()]


def texts(figure):
    drawn = [text.get_text() for axis in figure.axes for text in axis.texts]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return " ".join([*drawn, *legends, *(text.get_text() for text in figure.texts)])


@pytest.mark.parametrize("lies", NORTH_UP)
def test_a_scene_is_drawn_upright_however_its_file_lies(tmp_path, lies):
    transform, stored = NORTH_UP[lies]
    place = {"transform": transform, "crs": "EPSG:32633"}
    store = made(tmp_path, [("a_vv.tif", np.ascontiguousarray(stored(corner())), place)])
    (axis,) = panels(sz.quicklook(store))
    drawn = axis.images[0]
    assert drawn.origin == "upper"
    left, right, bottom, top = drawn.get_extent()
    assert left < right
    assert top < bottom
    values = np.asarray(drawn.get_array())
    quarters = [part.mean() for half in np.array_split(values, 2) for part in np.array_split(half, 2, axis=1)]
    assert np.argmax(quarters) == 0
    assert ("drawn upright" in axis.get_title()) == (lies != "north up")


def test_a_bar_has_a_length_on_the_ground_and_pixels_have_ticks_without_one(tmp_path):
    placed = made(tmp_path / "a", [("a_vv.tif", corner(), {"transform": UTM, "crs": "EPSG:32633"})])
    figure = sz.quicklook(placed)
    (axis,) = panels(figure)
    assert "500 m" in texts(figure)
    bar = axis.lines[0].get_xdata()
    assert bar[1] - bar[0] == pytest.approx(50, rel=0.01)  # of 10 m; the scale of UTM is 0.9996 there
    degrees = Affine(0.0001, 0, 15, 0, -0.0001, 60)
    figure = sz.quicklook(
        made(tmp_path / "b", [("a_vv.tif", corner(), {"transform": degrees, "crs": "EPSG:4326"})])
    )
    bar = panels(figure)[0].lines[0].get_xdata()
    assert "500 m" in texts(figure)
    assert (bar[1] - bar[0]) * 0.0001 * 111_320 * np.cos(np.radians(60)) == pytest.approx(500, rel=0.01)
    nowhere = made(tmp_path / "c", [("a_vv.tif", corner(), {"crs": None})])
    (axis,) = panels(sz.quicklook(nowhere))
    assert not axis.lines
    assert len(axis.get_xticks()) > 2


def test_invalid_pixels_have_a_colour_of_their_own_and_the_clip_is_black_to_white(tmp_path):
    values = corner()
    values[150:, :] = np.nan
    store = made(tmp_path, [("a_vv.tif", values, {"transform": UTM, "crs": "EPSG:32633"})])
    figure = sz.quicklook(store)
    shown = panels(figure)[0].images[0]
    clip = store.bounds["vv/sigma0"].clip
    assert (shown.norm.vmin, shown.norm.vmax) == (clip.vmin, clip.vmax)
    np.testing.assert_array_equal(np.ma.getmaskarray(shown.get_array())[150:], True)
    picture = imread(sz.write_quicklook(store, tmp_path / "q.png"))[..., :3]
    blue = np.abs(picture - np.array(to_rgb(NODATA_COLOUR))).max(axis=-1) < 0.01
    rows = np.flatnonzero(blue.any(axis=1))
    assert blue[rows[0] + 5 :].mean() > 0.2
    assert rows[0] > 0.4 * len(picture)


def test_colours_are_like_cross_and_their_ratio(tmp_path):
    """Four stripes: both dark, VV alone bright, VH alone bright, and both bright."""
    vv, vh = np.full((2, 400, 400), 1e-3, np.float32)
    vv[:, 100:200], vh[:, 200:300] = 1.0, 1.0
    vv[:, 300:], vh[:, 300:] = 1.0, 1.0
    place = {"transform": UTM, "crs": "EPSG:32633"}
    store = made(tmp_path, [("a_vv.tif", vv, place), ("a_vh.tif", vh, place)])
    figure = sz.quicklook(store, rgb=True)
    (axis,) = panels(figure)
    colours = np.asarray(axis.images[0].get_array())[200, 50::100, :3]
    clips = [store.bounds[f"{name}/sigma0"].clip for name in ("vv", "vh")]
    for colour, db in zip(colours, [(-30, -30), (0, -30), (-30, 0), (0, 0)], strict=True):
        planes = [*zip(db, clips, strict=True), (db[0] - db[1], RATIO_DB)]
        wanted = [np.clip((value - low) / (high - low), 0, 1) for value, (low, high) in planes]
        np.testing.assert_allclose(colour, wanted, atol=0.01)
    legend = texts(figure)
    assert all(part in legend for part in ("red: VV sigma0", "green: VH sigma0", "blue: VV / VH, 0 to 15 dB"))


def test_patches_are_those_that_a_reader_delivers(tmp_path):
    vv = speckle((1100, 1300), seed=2)
    store = made(tmp_path, [("a_vv.tif", vv, {"transform": UTM, "crs": "EPSG:32633"})])
    batch = next(iter(sz.PatchReader(store, batch_size=5, shuffle=True, seed=3)))
    axes = panels(sz.quicklook(store, patches=5, seed=3))
    assert len(axes) == 5
    for axis, image in zip(axes, batch, strict=True):
        np.testing.assert_array_equal(np.asarray(axis.images[0].get_array()), image[0])


def test_boxes_and_layers_lie_where_they_are(tmp_path):
    mask = np.zeros((512, 512), np.uint8)
    mask[100:200, 300:400] = 1
    place = {"transform": Affine(10, 0, 500_000, 0, 10, 5_400_000), "crs": "EPSG:32633"}  # south up
    write_band(tmp_path / "mask.tif", mask, **place)
    store = made(tmp_path, [("a_vv.tif", corner((512, 512)), place)], layers={"mask": tmp_path / "mask.tif"})
    boxes = {"a": (np.array([[300.0, 100.0, 400.0, 200.0]]), ["ship"])}
    write_boxes(store, Boxes.gathered(boxes, {"a": (512, 512)}))
    figure = sz.quicklook(store.anew(), layer="mask", boxes=True)
    (axis,) = panels(figure)
    over = axis.images[1]
    assert over.get_alpha() == 0.5
    drawn = ~np.ma.getmaskarray(over.get_array())
    rows, cols = np.nonzero(drawn)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (312, 411, 300, 399)  # turned upside down
    outline = axis.collections[0].get_paths()[0].vertices
    assert outline.min(axis=0).tolist() == [300, 312]
    assert outline.max(axis=0).tolist() == [400, 412]
    assert "box: ship" in texts(figure)
    with pytest.raises(NotInStoreError, match=r"expected \(mask\), got 'water'"):
        sz.quicklook(store, layer="water")


def test_a_stack_has_its_mean_in_power_and_its_variation(tmp_path):
    days = [f"s1a_iw_grdh_1sdv_202601{day:02}t050000_a_vv.tif" for day in (1, 13, 25)]
    values = [speckle((300, 260), seed=i) for i in range(3)]
    values[0][:40] = np.nan
    values[1][:20] = np.nan
    values[2][:20] = np.nan
    tags = {"transform": UTM, "crs": "EPSG:32633"}
    store = made(tmp_path, [(name, v, tags) for name, v in zip(days, values, strict=True)])
    (stack,) = sz.find_stacks(store)
    over = StackOverTime(store=store, stack=stack, array="vv")
    mean, varies = over.moments
    power = np.stack([store.power(scene, "vv").values for scene in stack.scenes]).astype(np.float64)
    held = np.isfinite(power).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        wanted = np.where(held > 0, np.nansum(power, axis=0) / held, np.nan)
        spread = np.sqrt(np.nansum((power - wanted) ** 2, axis=0) / held) / wanted
    np.testing.assert_allclose(mean, 10 * np.log10(wanted), atol=1e-4)
    np.testing.assert_allclose(varies, np.where(held > 1, spread, np.nan), atol=1e-4)
    assert np.isnan(varies[20:40]).sum() == 0
    figure = sz.quicklook(store, stack=True)
    titles = [axis.get_title() for axis in panels(figure)]
    assert len(titles) == 5
    assert titles[-2:] == ["VV mean over time", "VV coefficient of variation"]
    assert [title for title in titles[:3] if "2026-01-" in title] == titles[:3]


def test_more_scenes_than_panels_are_pages(tmp_path):
    place = {"transform": UTM, "crs": "EPSG:32633"}
    store = made(tmp_path, [(f"s{i:02}_vv.tif", corner((64, 64)), place) for i in range(26)])
    first, second = (sz.quicklook(store, page=page) for page in (1, 2))
    assert (len(panels(first)), len(panels(second))) == (24, 2)
    with pytest.raises(InvalidInputError, match="a page from 1 to 2 was expected, got 3"):
        sz.quicklook(store, page=3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rgb": True, "patches": 4}, "one of rgb, patches and stack"),
        ({"split": "train"}, "patches were expected with split"),
        ({"patches": 65}, "1 to 64 patches"),
        ({"page": 0}, "a page from 1 on"),
        ({"rgb": True}, "VV and VH, or HH and HV"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_remedy(tmp_path, options, says):
    store = made(tmp_path, [("a_vv.tif", corner(), {"transform": UTM, "crs": "EPSG:32633"})])
    with pytest.raises(InvalidInputError, match=says):
        sz.quicklook(store, **options)


def test_a_large_scene_is_read_from_its_overviews(tmp_path, monkeypatch):
    """Of 3,000 x 3,000 pixels level 1 alone, a quarter: level 2 would be coarser than the picture."""
    from sarzarr.store import stored_pixels

    store = made(tmp_path, [("a_vv.tif", corner((3000, 3000)), {"transform": UTM, "crs": "EPSG:32633"})])
    sz.make_overviews(store)
    read, real = [], stored_pixels.read_stored

    def counted(place, path, encoding, window, *others):
        read.append((path, (window[0].stop - window[0].start) * (window[1].stop - window[1].start)))
        return real(place, path, encoding, window, *others)

    monkeypatch.setattr(stored_pixels, "read_stored", counted)
    panels(sz.quicklook(store.anew()))
    assert {path.split("/")[0] for path, _ in read} == {"overviews"}
    assert sum(pixels for _, pixels in read) == 1500**2
