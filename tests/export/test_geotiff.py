"""A scene goes out as a GeoTIFF: its numbers, its place, its overviews, and nothing half."""

import math
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from conftest import find_real_data, speckle, write_band
from disks import no_file_beyond
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_place import MemoryPlace
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning

import sarzarr as sz
from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, NoRoomError, NotInStoreError, UnsupportedRasterError
from sarzarr.export import cog
from sarzarr.grids.crs import is_same_crs
from sarzarr.rasters import open_raster

HALF = (cv.DB_CEILING - cv.DB_FLOOR) / cv.STEPS / 2
ROUNDING = 4e-5
"""dB by which float32 takes a hundred dB to power and back."""
REPRESENTATIONS = ("db", "power", "amplitude", "normalized")
DATA = find_real_data()


def rasters():
    """Return the real GeoTIFFs, as paths in their folder, but the hollow one of 400 Mpx."""
    found = sorted(p for s in ("*.tif", "*.tiff") for p in DATA.rglob(s)) if DATA else []
    names = [p.relative_to(DATA).as_posix() for p in found]
    return [name for name in names if not name.startswith(("hollow", "ship", "ptycho"))]


def opened(path):
    """Return what GDAL says of a file, its pixels and its masks."""
    with open_raster(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        about = {"crs": file.crs, "transform": file.transform, "gcps": file.gcps, "shape": file.shape}
        about |= {"names": file.descriptions, "tags": file.tags(), "nodata": file.nodata, "units": file.units}
        about |= {"band_tags": [file.tags(i) for i in file.indexes], "overviews": file.overviews(1)}
        return about, file.read(), file.read_masks()


def ingested(files, folder, **options):
    return sz.ingest(sz.plan_ingest(files, folder / "s.zarr", **options))


def check_round_trip(source, store, scene, path, **options):
    """Hold a dB file against its source: place to the bit, dB to half a code, valid where the store says."""
    sz.export_geotiff(store, scene, path)
    about, pixels, masks = opened(path)
    with open_raster(source) as file:
        assert file.shape == about["shape"]
        assert file.transform == about["transform"]
        assert (file.crs is None) == (about["crs"] is None)
        assert file.crs is None or is_same_crs(file.crs.to_wkt(), about["crs"].to_wkt())
        ours, theirs = (
            [(g.row, g.col, g.x, g.y, g.z or 0.0) for g in f] for f in (about["gcps"][0], file.gcps[0])
        )
        assert ours == (theirs if file.crs is None else [])
        assert not ours or about["gcps"][1] == file.gcps[1]
    wanted = sz.to_db(sz.to_power(sz.open_scene(source, **options)))
    for i, name in enumerate(about["names"]):
        db = wanted[f"{name}_db"].values
        stored = store.db(scene, name).values
        np.testing.assert_array_equal(pixels[i], stored)
        np.testing.assert_array_equal(masks[i], np.where(np.isnan(stored), 0, 255))
        is_valid = ~np.isnan(stored)
        assert (
            np.abs(np.clip(db[is_valid], *cv.STORED_RANGE) - stored[is_valid]).max(initial=0)
            <= HALF + ROUNDING
        )
    return about


@pytest.mark.parametrize("name", rasters() or [pytest.param(None, marks=pytest.mark.skip("no real rasters"))])
def test_a_real_raster_comes_back(name, tmp_path):
    source = DATA / name
    if refusal := sz.probe_file(source).refusal:
        pytest.skip(f"it is not taken: {refusal[:60]}")
    store = ingested([source], tmp_path)
    check_round_trip(source, store, store.scenes[0], tmp_path / "out.tif")


AFFINES = {
    "north up": ("EPSG:32633", Affine(10, 0, 400_000.5, 0, -10, 6_000_000.25)),
    "south up": ("EPSG:32633", Affine(10, 0, 400_000, 0, 10, 5_000_000)),
    "rotated": ("EPSG:32633", Affine(9.1, 3.3, 400_000, 3.2, -9.4, 6_000_000)),
    "lon lat": (
        "EPSG:4326",
        Affine(8.983152841194299e-05, 0, -79.58845894098772, 0, -8.98e-05, 8.976091262170945),
    ),
    "polar": ("EPSG:3413", Affine(40, 0, -1_000_000, 0, -40, -500_000)),
    "no CRS": (None, Affine(10, 0, 5, 0, -10, 7)),
    "nothing": (None, Affine.identity()),
    "gcps": (None, None),
}


@st.composite
def _scenes(draw):
    shape = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)) | st.just((530, 21)) | st.just((15, 1100)))
    return {
        "shape": shape,
        "place": draw(st.sampled_from(list(AFFINES))),
        "form": draw(st.sampled_from(("power", "amplitude", "db"))),
        "missing": draw(st.sampled_from((0.0, 0.3, 1.0))),
        "zeros": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
    }


def write_scene(path, *, shape, place, form, missing, zeros, seed):
    power = speckle(shape, seed=seed)
    rng = np.random.default_rng(seed)
    if zeros:
        power[rng.random(shape) < 0.1] = 0
    with np.errstate(divide="ignore"):
        values = {"power": power, "amplitude": np.sqrt(power), "db": 10 * np.log10(np.maximum(power, 1e-5))}[
            form
        ]
    values = np.where(rng.random(shape) < missing, np.nan, values).astype(np.float32)
    crs, transform = AFFINES[place]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        write_band(path, values, nodata=math.nan, crs=crs, transform=transform)
        if place == "gcps":
            with rasterio.open(path, "r+") as file:
                corners = [(r, c) for r in (0, shape[0] / 3, shape[0]) for c in (0, shape[1] / 7, shape[1])]
                points = [
                    GroundControlPoint(r, c, 10 + c / 900, 50 - r / 901 + c / 9000, 1 / 3) for r, c in corners
                ]
                file.gcps = points, "EPSG:4326"
    return path


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(scene=_scenes())
def test_any_raster_comes_back(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    source = write_scene(folder / "x_vv.tif", **scene)
    said = {"representation": scene["form"]}
    store = ingested([source], folder, **said)
    check_round_trip(source, store, "x", folder / "out.tif", **said)


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A store of a scene of two polarizations with a border, zeros and layers of three dtypes, and its folder."""
    folder = tmp_path_factory.mktemp("held")
    vv, vh = speckle((700, 1300), seed=1), speckle((700, 1300), seed=2, mean=0.01)
    for values in (vv, vh):
        values[:, :37] = np.nan
        values[300:310, 500:520] = 0
    files = [write_band(folder / f"a_{n}.tif", v, nodata=math.nan) for n, v in (("vv", vv), ("vh", vh))]
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, (700, 1300)).astype("int16")
    height = np.add.outer(np.arange(700.0), np.arange(1300)).astype("float32")
    height[:5] = -9999
    layers = {
        "mask": write_band(folder / "mask.tif", classes, nodata=-1),
        "dem": write_band(folder / "dem.tif", height, nodata=-9999),
        "few": write_band(folder / "few.tif", classes.astype("uint8")),
    }
    return ingested(files, folder, representation="power", quantity="sigma0", layers=layers), folder


def test_each_representation_says_what_its_numbers_are(held, tmp_path):
    store, _ = held
    flags = store.open_scene("a")["vv_flags"].values
    db, power = store.db("a", "vv").values, store.power("a", "vv").values
    entry = store.bounds["vv/sigma0"]
    wanted = {
        "db": db,
        "power": power,
        "amplitude": np.sqrt(power),
        "normalized": sz.normalize(db, entry.clip),
    }
    for form, values in wanted.items():
        about, pixels, masks = opened(sz.export_geotiff(store, "a", tmp_path / "x.tif", representation=form))
        own = about["names"].index("vv")
        np.testing.assert_array_equal(pixels[own], values)
        np.testing.assert_array_equal(masks[own] > 0, flags < cv.Flag.NODATA)
        dark = {"db": cv.DB_FLOOR}.get(form, 0)
        assert (flags == cv.Flag.NONPOSITIVE).sum() == 200
        assert set(pixels[own][flags == cv.Flag.NONPOSITIVE].tolist()) == {dark}
        tags = about["band_tags"][own]
        assert (tags["QUANTITY"], tags["REPRESENTATION"], tags["POLARIZATION"]) == ("sigma0", form, "VV")
        assert about["tags"]["REPRESENTATION"] == form
        assert math.isnan(about["nodata"])
        assert about["units"][own] == ("dB" if form == "db" else "1")
        clip = (tags.get("VMIN"), tags.get("VMAX"))
        is_normalized = form == "normalized"
        assert clip == ((repr(entry.clip_vmin), repr(entry.clip_vmax)) if is_normalized else (None, None))


def test_an_exported_file_is_taken_in_again_with_the_same_codes(held, tmp_path):
    store, _ = held
    for form in REPRESENTATIONS:
        path = sz.export_geotiff(store, "a", tmp_path / f"{form}.tif", representation=form)
        if form == "normalized":
            assert "Export them as dB" in sz.probe_file(path).refusal
            with pytest.raises(UnsupportedRasterError, match="normalized"):
                sz.open_scene(path, representation="db")
            continue
        again = ingested([path], tmp_path / form)
        assert [(p.name, p.quantity, p.representation) for p in sz.probe_file(path).arrays] == [
            (name, "sigma0", form) for name in ("vh", "vv")
        ]
        for name in ("vv", "vh"):
            ours, theirs = (s.pixels(s.scenes[0], name)[:, :] for s in (store, again))
            np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 999),
    mean=st.sampled_from((3e-6, 1e-3, 0.3, 40.0)),
    form=st.sampled_from(("db", "power")),
)
def test_codes_survive_any_number_of_ways(seed, mean, form, tmp_path_factory):
    folder = tmp_path_factory.mktemp("again")
    values = speckle((40, 50), seed=seed, mean=mean, looks=1)
    source = write_band(folder / "a_vv.tif", values)
    store = ingested([source], folder, representation="power", quantity="sigma0")
    path = sz.export_geotiff(store, "a", folder / "b_vv.tif", representation=form)
    again = ingested([path], folder / "two", quantity="sigma0")
    np.testing.assert_array_equal(again.pixels("b", "vv")[:, :], store.pixels("a", "vv")[:, :])


def test_overviews_are_means_of_power(held, tmp_path):
    """GDAL's own average of dB is below them by what `log_bias` says of the looks, 0.5 dB here."""
    store, _ = held
    power = store.power("a", "vv").values
    for form in REPRESENTATIONS:
        path = sz.export_geotiff(store, "a", tmp_path / "x.tif", representation=form)
        about, _, _ = opened(path)
        assert about["overviews"] == [2, 4]
        for level in (1, 2):
            step = 2**level
            padded = np.pad(power, [(0, -n % step) for n in power.shape], constant_values=np.nan).astype(
                float
            )
            blocks = padded.reshape(padded.shape[0] // step, step, -1, step)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                mean = np.nanmean(blocks, axis=(1, 3))
            with np.errstate(divide="ignore"):
                db = np.maximum(10 * np.log10(mean), cv.DB_FLOOR)
            clip = store.bounds["vv/sigma0"].clip
            wanted = {"power": mean, "amplitude": np.sqrt(mean), "db": db}
            wanted["normalized"] = np.clip((db - clip.vmin) / (clip.vmax - clip.vmin), 0, 1)
            with rasterio.open(path, overview_level=level - 1) as file:
                np.testing.assert_allclose(file.read(2), wanted[form], rtol=1e-5, atol=2e-5)
    naive = np.nanmean(store.db("a", "vv").values[:, 600:][:700, :700])
    true = 10 * np.log10(np.nanmean(power[:, 600:][:700, :700]))
    assert true - naive == pytest.approx(10 * math.log10(4.4) - 10 / math.log(10) * _digamma(4.4), abs=0.02)


def _digamma(x):
    from scipy.special import digamma

    return float(digamma(x))


def test_layers_go_out_as_they_are(held, tmp_path):
    store, folder = held
    for name, nodata in (("mask", -1), ("few", None), ("dem", math.nan)):
        about, (pixels,), (mask,) = opened(sz.export_geotiff(store, "a", tmp_path / "x.tif", arrays=name))
        with rasterio.open(folder / f"{name}.tif") as file:
            wanted, is_data = file.read(1), file.read_masks(1)
        assert (about["nodata"] == nodata) or (math.isnan(nodata) and math.isnan(about["nodata"]))
        assert pixels.dtype == wanted.dtype
        np.testing.assert_array_equal(mask, is_data)
        np.testing.assert_array_equal(pixels[is_data > 0], wanted[is_data > 0])
        assert "REPRESENTATION" not in about["tags"]
        with rasterio.open(tmp_path / "x.tif", overview_level=0) as file:
            small = file.read(1)
        if name == "dem":
            assert small[200, 300] == wanted[400:402, 600:602].mean()
        else:  # labels are not averaged
            np.testing.assert_array_equal(small, wanted[1::2, 1::2])


def test_what_does_not_fit_one_file_is_refused_with_the_remedy(held, tmp_path):
    store, _ = held
    path = tmp_path / "x.tif"
    with pytest.raises(InvalidInputError, match=r"mask int16.*arrays=\['vv'\] and arrays=\['mask'\]"):
        sz.export_geotiff(store, "a", path, arrays=["vv", "mask"])
    sz.export_geotiff(store, "a", path, arrays=["dem", "vv"])
    for options, words in (
        ({"arrays": "hh"}, "vh, vv, dem, few, mask, got 'hh'"),
        ({"arrays": []}, "one at least"),
        ({"arrays": ["vv", "vv"]}, "each once"),
        ({"representation": "dn"}, "normalized"),
        ({"clip": (-20, 0)}, "representation='normalized'"),
        ({"looks": 4.4}, "measured pixels"),
        ({"looks": 4.4, "arrays": "dem"}, "no representation"),
        ({"compress": "jpeg"}, "deflate"),
        ({"window": (0, 0, 701, 5)}, "700 x 1300"),
        ({"window": (-1, 0, 5, 5)}, "Rows go from 0 to 699"),
        ({"window": (0, 0, 5)}, "4 whole numbers"),
        ({"window": (0, 0, 5, 5), "bounds": (0, 0, 1, 1)}, "got both"),
        ({"bounds": (0, 0, 1, 1)}, r"reaches from 15, 48\.\d+"),
    ):
        with pytest.raises((InvalidInputError, NotInStoreError), match=words):
            sz.export_geotiff(store, "a", path, **options)
    with pytest.raises(NotInStoreError, match="nope"):
        sz.export_geotiff(store, "nope", path)


def test_predictions_say_their_representation_and_are_written_like_backscatter(tmp_path):
    """Of a mean in dB the dB of the mean power is `log_bias` higher, in every representation."""
    rng = np.random.default_rng(0)
    z = rng.random((60, 70)).astype(np.float32)
    z[:3] = np.nan
    source, layer = (
        write_band(tmp_path / f"{n}.tif", v, nodata=math.nan)
        for n, v in (("a_vv", speckle(z.shape)), ("p", z))
    )
    store = ingested([source], tmp_path, representation="power", layers={"prediction": layer})
    said = zarr.open_array(store.root / "scenes/a/prediction", mode="r+")
    said.attrs.update({"representation": "normalized", "vmin": -30.0, "vmax": 5.0})
    store = sz.open_store(store.root)
    path = tmp_path / "x.tif"
    for looks in (None, 4.4):
        db = sz.denormalize(z, (-30, 5), looks=looks)
        power = sz.from_db(db)
        wanted = {
            "db": db,
            "power": power,
            "amplitude": np.sqrt(power),
            "normalized": sz.normalize(db, (-30, 5)),
        }
        for form, values in wanted.items():
            options = {"arrays": "prediction", "representation": form, "looks": looks}
            about, (pixels,), _ = opened(sz.export_geotiff(store, "a", path, **options))
            np.testing.assert_allclose(pixels, values, atol=2e-5, rtol=2e-5)
            assert about["band_tags"][0]["REPRESENTATION"] == form
            assert about["band_tags"][0].get("MEAN_OF_POWER_FOR_LOOKS") == (None if looks is None else "4.4")
    sz.export_geotiff(store, "a", path, arrays=["vv", "prediction"])
    said.attrs.update({"representation": "power"})
    with pytest.raises(InvalidInputError, match="a mean in dB was expected"):
        sz.export_geotiff(store.anew(), "a", path, arrays="prediction", looks=2)


def test_a_window_is_that_part_of_the_whole(held, tmp_path):
    store, _ = held
    whole = store.db("a", "vv").values
    about, (pixels,), _ = opened(
        sz.export_geotiff(store, "a", tmp_path / "x.tif", arrays=["vv"], window=(11, 30, 600, 777))
    )
    np.testing.assert_array_equal(pixels, whole[11:611, 30:807])
    assert about["transform"] == Affine(10, 0, 500_000 + 300, 0, -10, 5_400_000 - 110)
    assert about["tags"]["sarzarr_window"] == "11,30,600,777"
    box = (500_305, 5_399_000, 501_000, 5_399_890)
    about, (pixels,), _ = opened(
        sz.export_geotiff(store, "a", tmp_path / "x.tif", arrays=["vv"], bounds=(box, "EPSG:32633"))
    )
    np.testing.assert_array_equal(pixels, whole[11:100, 30:100])


def test_ground_control_points_move_with_a_window(tmp_path):
    source = write_scene(
        tmp_path / "x_vv.tif", shape=(200, 300), place="gcps", form="power", missing=0, zeros=False, seed=1
    )
    store = ingested([source], tmp_path, representation="power")
    about, (pixels,), _ = opened(sz.export_geotiff(store, "x", tmp_path / "o.tif", window=(20, 30, 50, 60)))
    with open_raster(source) as file:
        moved = [(g.row - 20, g.col - 30, g.x, g.y, g.z) for g in file.gcps[0]]
    assert [(g.row, g.col, g.x, g.y, g.z) for g in about["gcps"][0]] == moved
    np.testing.assert_array_equal(pixels, store.db("x", "vv").values[20:70, 30:90])
    lon, lat = 10 + 100 / 900, 50 - 90 / 901 + 100 / 9000  # of row 90, column 100
    about, _, _ = opened(
        sz.export_geotiff(
            store, "x", tmp_path / "o.tif", bounds=(lon - 1e-5, lat - 1e-5, lon + 1e-5, lat + 1e-5)
        )
    )
    assert about["tags"]["sarzarr_window"] == "89,99,2,2"


def test_each_chunk_is_read_once(held, tmp_path):
    _, folder = held
    place = MemoryPlace.of(folder / "s.zarr")
    asked = []
    object.__setattr__(place, "get_ranges", _counting(place, asked))
    sz.export_geotiff(sz.open_store(place), "a", tmp_path / "x.tif", arrays=["vv"])
    chunks = [(key, span) for key, ranges in asked for span in ranges]
    assert len(chunks) == len(set(chunks))
    of_values = [c for c in chunks if "/vv/" in c[0]]
    asked.clear()
    sz.export_geotiff(
        sz.open_store(place), "a", tmp_path / "x.tif", arrays=["vv"], window=(10, 300, 100, 200)
    )
    part = [span for key, ranges in asked if "/vv/" in key for span in ranges]
    assert len(part) == 1
    assert 15 <= len(of_values) <= 18  # 3 x 6 chunks, without those of the border


def _counting(place, asked):
    def get_ranges(key, ranges):
        ranges = [tuple(span) for span in ranges]
        asked.append((key, ranges))
        return type(place).get_ranges(place, key, ranges)

    return get_ranges


def test_a_failure_leaves_what_was_there(held, tmp_path, monkeypatch):
    store, _ = held
    path = tmp_path / "x.tif"
    path.write_text("mine")
    monkeypatch.setattr(cog, "_read_back", lambda *_: [])
    with pytest.raises(NoRoomError, match="not what was written"):
        sz.export_geotiff(store, "a", path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.tif"]
    assert path.read_text() == "mine"


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.99, 0.9999])
def test_a_full_disk_leaves_nothing(held, tmp_path, share):
    """GDAL writes a short file without an error at some of these."""
    store, _ = held
    path = tmp_path / "x.tif"
    size = sz.export_geotiff(store, "a", path).stat().st_size
    before = path.read_bytes()
    for limit in (int(size * share), int(700 * 1300 * 8 * share)):
        with no_file_beyond(limit), suppress(NoRoomError):  # it may just fit
            sz.export_geotiff(store, "a", path)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["x.tif"]


KILLED = """
import os, sys
import sarzarr as sz
from sarzarr.export import cog
copy = cog._copy
def dies(*args):
    copy(*args)
    os._exit(9)
cog._copy = dies
sz.export_geotiff(sys.argv[1], "a", sys.argv[2])
"""


def test_a_process_that_is_killed_leaves_no_half_file(held, tmp_path):
    _, folder = held
    done = subprocess.run([sys.executable, "-c", KILLED, folder / "s.zarr", tmp_path / "x.tif"], check=False)
    assert done.returncode == 9
    assert all(p.name.endswith(".partial") and p.name.startswith(".x.tif.") for p in tmp_path.iterdir())


MEMORY = """
import sys
import sarzarr as sz
store = sz.open_store(sys.argv[1])
sz.export_geotiff(store, store.scenes[0], sys.argv[2], arrays=["vv"], compress="none", window=(0, 0, 512, 512))
first = peak = None
def own():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
small = own()
sz.export_geotiff(store, store.scenes[0], sys.argv[2])
print(own() - small)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from Linux")
def test_memory_does_not_grow_with_the_scene(tmp_path):
    """512 MB of pixels of two bands, held a block at a time."""
    rows = 8192
    files = []
    for name in ("vv", "vh"):
        tile = speckle((512, 8192), seed=len(name))
        profile = {
            "driver": "GTiff",
            "height": rows,
            "width": 8192,
            "count": 1,
            "dtype": "float32",
            "tiled": True,
        }
        profile |= {"crs": "EPSG:32633", "transform": Affine(10, 0, 0, 0, -10, 0)}
        files.append(tmp_path / f"big_{name}.tif")
        with rasterio.open(files[-1], "w", **profile) as file:
            for row in range(0, rows, 512):
                file.write(tile, 1, window=((row, row + 512), (0, 8192)))
    ingested(files, tmp_path, representation="power")
    command = [sys.executable, "-c", MEMORY, tmp_path / "s.zarr", tmp_path / "x.tif"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout)
    print(f"{grown / 1e6:.0f} MB more than a small window takes")
    assert grown < 400e6
    assert Path(tmp_path / "x.tif").stat().st_size > 100e6
