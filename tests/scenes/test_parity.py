"""`open_scene` hands out what `rioxarray.open_rasterio` does, but for the differences that docs/lazy.md lists."""

import re
import warnings
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rioxarray.rioxarray import affine_to_coords
from tiffs import DATA, composed, needs_data, speckle, write

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.grids.grid import Grid
from sarzarr.pixels.radiometry import (
    denormalize,
    from_codes,
    from_db,
    normalize,
    restretch,
    to_codes,
    to_db,
    to_power,
)
from sarzarr.scenes.header import tag_attributes
from sarzarr.scenes.probe import probe_file
from sarzarr.scenes.scene import open_scene

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "lazy.md"
OURS = {cv.QUANTITY, cv.REPRESENTATION, cv.REASON, cv.SOURCE_NODATA, cv.SAR_POLARIZATIONS, cv.GEOLOCATION}
OURS |= {cv.UNITS, *cv.ACQUISITION_KEYS}
ALWAYS = {"attributes of ours", "encoding"}
TURNED_ONES = ALWAYS | {"spatial_ref", "WKT"}
PLACED = TURNED_ONES | {"axes", "GeoTransform"}
UNPLACED = ALWAYS | {"no CRS", "axes"}
GCPS = [GroundControlPoint(row=r, col=c, x=10 + c / 99, y=50 - r / 99, z=7) for r in (0, 99) for c in (0, 99)]
RPCS = RPC(
    **{f"{k}_{end}": 1.0 for k in ("height", "lat", "line", "long", "samp") for end in ("off", "scale")},
    **{f"{k}_{end}_coeff": [1.0] * 20 for k in ("line", "samp") for end in ("num", "den")},
)
TAGS = {
    "TIFFTAG_IMAGEDESCRIPTION": "an image",
    "ORBIT": "165",
    "LOOKS": "4.4",
    "CORNERS": "{1,2.5,-3}",
    "JSON": '{"a": [1, 2]}',
    "DAY": "20180716",
    "NOTHING": "nan",
    "NC_GLOBAL#title": "a title",
}
FEW, MANY = speckle((1, 20, 30)), speckle((3, 20, 30))
DN = (FEW * 1000).astype("uint16")
DEGREES = {
    "crs": "EPSG:4326",
    "transform": Affine(8.983152841195215e-05, 0, 12.3, 0, -8.983152841195215e-05, 45.6),
}
TURNED = composed(Affine.translation(5e5, 5e6), Affine.rotation(30), Affine.scale(10, -10))
KINDS = {
    "integers without nodata": (DN, {}, PLACED),
    "integers, nodata": (DN, {"nodata": 0}, PLACED),
    "integers below zero, nodata": (DN.astype("int16"), {"nodata": -32768}, PLACED),
    "floats, nodata": (FEW, {"nodata": -9999.0}, PLACED),
    "floats, nodata NaN": (FEW, {"nodata": np.nan}, PLACED),
    "floats without nodata": (FEW, {}, PLACED | {"NaN"}),
    "doubles": (FEW.astype("float64"), {"nodata": -3.4e38}, PLACED),
    "complex": (FEW * np.complex64(1 + 2j), {}, PLACED),
    "complex, nodata": (FEW * np.complex64(1 + 2j), {"nodata": 0}, PLACED),
    "bands, named and tagged": (
        MANY,
        {"nodata": 0, "names": ["Sigma0_VV", "Sigma0_VH", "Sigma0_HH"], "tags": TAGS}
        | {"band_tags": [{"LOOKS": str(i), "STATISTICS_MEAN": "0.05"} for i in range(3)]},
        PLACED | {"names"},
    ),
    "bands left out": (
        MANY,
        {"nodata": 0, "names": ["VV", "VH", "elevation"]},
        PLACED | {"names", "bands left out"},
    ),
    "tags on storage": (
        DN,
        {"tags": {"nodata": "7", "grid_mapping": "crs", "scale_factor": "1"}},
        PLACED | {"tags on storage"},
    ),
    "a tag of ours": (DN, {"tags": {"quantity": "dn"}}, PLACED),
    "a number of more than 64 bits": (DN, {"tags": {"ID": "9" * 30}}, PLACED | {"numbers"}),
    "degrees": (DN, DEGREES, PLACED),
    "longitudes from 0 to 360": (
        DN,
        {**DEGREES, "transform": Affine(1e-4, 0, 250.6, 0, -1e-4, 33.3)},
        PLACED,
    ),
    "across 180 degrees": (DN, {**DEGREES, "transform": Affine(1e-3, 0, 179.985, 0, -1e-3, -17.0)}, PLACED),
    "feet": (DN, {"crs": "EPSG:2263"}, PLACED),
    "upside down": (DN, {"transform": Affine(4.5, 0, 592317.86, 0, 3.3, 5.7e6 / 7)}, PLACED),
    "one row": (DN[:, :1], {}, PLACED - {"GeoTransform"} | {"one row or column"}),
    "one column": (DN[:, :, :1], {}, PLACED - {"GeoTransform"} | {"one row or column"}),
    "rotated": (DN, {"transform": TURNED}, TURNED_ONES | {"xc, yc"}),
    "skewed by millionths of a degree": (
        DN,
        {**DEGREES, "transform": Affine(9e-5, 4e-6, 12.3, 0, -9e-5, 45.6)},
        TURNED_ONES | {"small turns"},
    ),
    "GCPs": (DN, {"crs": "EPSG:4326", "transform": None, "gcps": GCPS}, UNPLACED - {"axes"} | {"GCPs"}),
    "RPCs": (DN, {"crs": None, "transform": None, "rpcs": RPCS}, UNPLACED),
    "no backscatter": ((FEW > 0.05).astype("uint8"), {"names": ["mask"]}, {"refused"}),
    "nowhere": (DN, {"crs": None, "transform": None}, UNPLACED),
    "an affine without CRS": (DN, {"crs": None}, ALWAYS | {"axes", "no CRS"}),
}
GCPS_ALONE = UNPLACED - {"axes"} | {"GCPs"}
REAL = {
    "hollow_large_grd/*.tiff": UNPLACED | {"names"},
    "s1_db_utm_nodata0/V?.tif": PLACED | {"names"},
    "s1_floods_db_mask/*_S1Hand.tif": PLACED | {"names"},
    "s1_grd_amplitude/*.tif": PLACED | {"names", "NaN"},
    "s1_grd_dn_gcp_safe/*/measurement/*.tiff": GCPS_ALONE | {"names"},
    "s1_grd_tc_db/*.tif": PLACED | {"names"},
    "s1_rtc_db_float64/*.tif": PLACED | {"NaN"},
    "s1_sigma0_linear_snap/VH.tif": PLACED | {"names", "the product's nodata"},
    "s1_slc_gcp/slc.tif": GCPS_ALONE,
    "s1_timeseries_nogeo/*.tif": UNPLACED | {"NaN"},
    "xband_db_nan_unset/sar_masked.tif": PLACED | {"NaN"},
    "*": {"refused"},
}
"""The differences of each real file, by the first pattern that it fits."""


def known(path, *, band_as_variable=True):
    """Return what rioxarray's users get: a variable a band, or all in one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no place is the point of some
        return rioxarray.open_rasterio(path, band_as_variable=band_as_variable)


def same(one, other):
    one, other = np.asarray(one), np.asarray(other)
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")


def sampled(array):
    """Return the pixels of an array, of a large one those of a window."""
    return (array if array.size < 2**22 else array[5000:5100, 7000:8000]).values


def attributes(ours, theirs):
    """Yield in which attributes theirs are not ours, and whether ours are more."""
    for key, value in theirs.items():
        if key in ours and same(ours[key], value):
            continue
        if key not in ours:
            yield f"tags on storage{'' if key.split('#')[-1] not in tag_attributes({key: ''}) else ': ' + key}"
        elif isinstance(value, int | float) and abs(value) >= 2**63:
            yield "numbers"
        else:
            yield "attributes of ours" if key in OURS else f"{key}: {ours[key]!r} for {value!r}"
    more = ours.keys() - theirs.keys()
    yield from (
        (["attributes of ours"] if more <= OURS else [f"more attributes: {more - OURS}"]) if more else []
    )


def coordinates(ours, theirs, georeference):
    """Yield in which coordinates they differ."""
    skipped = set()
    if georeference.grid.is_rotated:
        skipped = set(theirs.coords) - {cv.SPATIAL_REF}
        yield "xc, yc" if skipped == {"xc", "yc"} else "small turns"
    for name in set(theirs.coords) - skipped:
        if name not in ours.coords:
            yield "no CRS"
            continue
        one, other = ours[name], theirs[name]
        if not same(one.values.ravel(), other.values.astype(one.dtype).ravel()):
            yield f"{name} differs"
        if name == cv.SPATIAL_REF:
            yield from ["spatial_ref"] if one.dtype != other.dtype else []
            missing = other.attrs.keys() - one.attrs.keys()
            yield from missing
            yield from (
                spatial_ref_word(k, one.attrs[k], v) for k, v in other.attrs.items() if k not in missing
            )
        elif one.attrs.keys() - other.attrs.keys():
            yield "axes"
    yield from ["GCPs"] if set(ours.coords) - set(theirs.coords) else []


def spatial_ref_word(key, one, other):
    if "wkt" in key or key == cv.SPATIAL_REF:
        return "WKT" if CRS.from_wkt(one) == CRS.from_wkt(other) else "another CRS"
    return "spatial_ref" if one == other else f"{key} of spatial_ref"


def placed_alike(one, other, georeference) -> list[str]:
    """Return in which of rioxarray's facts on the place of an array they differ."""
    if georeference.gcps:
        return ["GCPs"] if one.rio.crs is None and one.rio.get_gcps() is None else ["a CRS of GCPs"]
    facts = [
        name
        for name in ("crs", "shape", "width", "height")
        if getattr(one.rio, name) != getattr(other.rio, name)
    ]
    close = {"rtol": 1e-9, "atol": 1e-9 * max(map(abs, other.rio.transform()[:6]))}
    if (
        georeference.grid.is_rotated
    ):  # bounds and resolution leave the turn out; of a small one the transform does
        is_small = max(map(abs, georeference.grid.transform[1:4:2])) < 1e-5
        return facts if is_small or one.rio.transform() == other.rio.transform() else [*facts, "transform"]
    for name in ("transform", "bounds", "resolution"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pair = [np.array(getattr(a.rio, name)(), float)[:6] for a in (one, other)]
        facts += [] if np.allclose(*pair, **close) else [name]
    return facts


def differences(path) -> set[str]:
    """Return in what `open_scene` and rioxarray differ on a file, by the names in docs/lazy.md."""
    theirs, probe = known(path), probe_file(path)
    if probe.refusal:
        with pytest.raises(UnsupportedRasterError):
            open_scene(path)
        return {"refused"}
    ours = open_scene(path)
    found = {*attributes(ours.attrs, theirs.attrs), *coordinates(ours, theirs, probe.georeference)}
    found |= {"bands left out"} if len(ours) < len(theirs) else set()
    for array in probe.arrays:
        one, other = ours[array.name], theirs[f"band_{array.band}"]
        if one.ndim > other.ndim:
            found.add("one row or column")
            other = known(path, band_as_variable=False)[array.band - 1].rename(other.name)
            other.attrs = {k: v for k, v in other.attrs.items() if k not in theirs.attrs}
        found |= {"names"} if one.name != other.name else set()
        if not same(sampled(one), sampled(other)) or one.dtype != other.dtype or one.dims != other.dims:
            found.add("pixels")
        declared = {**other.attrs}
        is_told = probe.header.nodata is not None
        if not is_told and array.nodata is not None:
            found.add("the product's nodata")
            declared[cv.FILL_VALUE] = one.attrs[cv.FILL_VALUE]
        found |= set(attributes(one.attrs, declared))
        if not same(one.rio.nodata, other.rio.nodata) and array.nodata is None:
            found.add("NaN" if np.isnan(one.rio.nodata) and one.rio.encoded_nodata is not None else "nodata")
        elif is_told and not same(one.rio.nodata, other.rio.nodata):
            found.add("nodata")
        found |= set(placed_alike(one, other, probe.georeference))
        absent = other.encoding.keys() - one.encoding.keys() - {cv.GRID_MAPPING}
        found |= {"encoding"} if absent == {"preferred_chunks", "source", "rasterio_dtype"} else absent
        if cv.SPATIAL_REF in ours.coords and one.encoding[cv.GRID_MAPPING] != other.encoding[cv.GRID_MAPPING]:
            found.add("grid mapping")
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:The given matrix is equal to Affine.identity")
def test_a_scene_is_as_rioxarray_has_it_but_for_what_is_listed(tmp_path, kind):
    pixels, options, expected = KINDS[kind]
    assert differences(write(tmp_path / "a_sar.tif", pixels, **options)) == expected


@needs_data
@pytest.mark.parametrize(
    "path",
    sorted(DATA.rglob("*.tif*")),
    ids=lambda path: "/".join(path.parts[-2:]) if isinstance(path, Path) else None,
)
def test_a_real_scene_is_as_rioxarray_has_it_but_for_what_is_listed(path):
    expected = next(said for name, said in REAL.items() if fnmatch(path.relative_to(DATA).as_posix(), name))
    assert differences(path) == expected


def test_the_page_lists_these_differences_and_no_others():
    listed = re.findall(r"^\| \*\*(.+?)\*\* \|", PAGE.read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    tested = set().union(*(expected for *_, expected in KINDS.values()), *REAL.values())
    assert set(listed) == tested | {
        "sidecars",
        "several files",
        "masks",
        "calibration",
    }  # tests below, and of SAFE


@settings(max_examples=200)
@given(
    size=st.floats(1e-6, 1e4),
    step=st.floats(-1e4, -1e-6),
    x=st.floats(-1e7, 1e7),
    y=st.floats(-1e7, 1e7),
    n=st.integers(1, 50),
)
def test_coordinates_are_those_of_rioxarray_to_the_bit(size, step, x, y, n):
    affine = Affine(size, 0, x, 0, step, y)
    rows, cols = Grid(height=n, width=2 * n, transform=affine[:6]).coordinates()
    theirs = affine_to_coords(affine, 2 * n, n)
    np.testing.assert_array_equal(rows, theirs["y"], strict=True)
    np.testing.assert_array_equal(cols, theirs["x"], strict=True)


def test_rows_of_ours_and_rioxarrays_join(tmp_path):
    path = write(tmp_path / "a_sar.tif", DN, **DEGREES)
    ours, theirs = open_scene(path).band_1, known(path).band_1
    xr.align(ours, theirs, join="exact")
    assert float(abs(ours.astype(float) - theirs).max()) == 0


def test_a_sidecar_places_the_pixels_for_rioxarray_alone(tmp_path):
    path = write(tmp_path / "a_sar.tif", DN)
    (tmp_path / "a_sar.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>")
    assert (open_scene(path).rio.crs.to_epsg(), known(path).rio.crs.to_epsg()) == (32633, 4326)


def test_pixels_that_a_mask_leaves_out_are_nan_and_rioxarrays_are_as_they_were(tmp_path):
    path = write(tmp_path / "a_sar.tif", DN)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(np.arange(20)[:, None].repeat(30, axis=1) >= 4)
    ours, theirs = open_scene(path).band_1, known(path).band_1
    assert ours.isnull().sum() == 4 * 30
    assert theirs.dtype == np.uint16
    np.testing.assert_array_equal(ours[4:], theirs[4:])
    assert np.isnan(ours.rio.encoded_nodata)


def test_tags_that_the_files_of_a_scene_share_are_the_scenes_others_their_variables(tmp_path):
    for name in ("VV", "VH"):
        write(tmp_path / f"a_sar_{name}.tif", DN, tags={"ORBIT": "165", "POL": name})
    opened = open_scene(sorted(tmp_path.glob("*.tif")))
    assert opened.attrs["ORBIT"] == 165
    assert "POL" not in opened.attrs
    assert (opened.vv.attrs["POL"], opened.vh.attrs["POL"]) == ("VV", "VH")


def test_tags_do_not_hinder_writing(tmp_path):
    pixels, options, _ = KINDS["bands, named and tagged"]
    opened = open_scene(write(tmp_path / "a_sar.tif", pixels, **options))
    written = [opened, to_db(to_power(opened))]
    for i, data in enumerate(written):
        data.to_netcdf(tmp_path / f"{i}.nc", engine="h5netcdf")
        data.to_zarr(tmp_path / f"{i}.zarr", zarr_format=3, consolidated=False)
        data[next(iter(data))].rio.to_raster(tmp_path / f"{i}.tif")


# ------------------------------------------------------------------ the chain


STEPS = {
    "to_power": to_power,
    "to_db": lambda scene: to_db(to_power(scene)),
    "from_db": lambda scene: from_db(to_db(to_power(scene))),
    "normalize": lambda scene: normalize(to_db(to_power(scene)), (-30, 0)),
    "denormalize": lambda scene: denormalize(normalize(to_db(to_power(scene)), (-30, 0))),
    "restretch": lambda scene: restretch(normalize(to_db(to_power(scene)), (-30, 0)), (-30, 0), (-20, 0)),
    "from_codes": lambda scene: from_codes(to_codes(normalize(to_db(to_power(scene)), (-30, 0)))),
}
PARTS = {
    "all": lambda data: data,
    "isel": lambda data: data.isel(y=slice(3, 17), x=slice(2, None)),
    "steps": lambda data: data.isel(y=slice(None, None, 2), x=slice(1, None, 3)),
    "coarsen": lambda data: data.coarsen(y=2, x=3).mean(),
    "reproject": lambda data: data.rio.reproject("EPSG:3857"),
    "clip": lambda data: data.rio.clip_box(*data.isel(y=slice(2, 18), x=slice(2, 28)).rio.bounds()),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("part", PARTS)
def test_each_step_keeps_place_and_nodata_through_every_part(tmp_path, step, part):
    pixels = FEW.copy()
    pixels[:, :8] = -9999
    opened = open_scene(
        write(tmp_path / "a_sar.tif", pixels, nodata=-9999), representation="power", quantity="sigma0"
    )
    whole, data = STEPS[step](opened), PARTS[part](STEPS[step](opened))
    array = data[next(iter(data))]
    assert whole.rio.transform() == opened.rio.transform()
    assert array.rio.crs.to_epsg() == (3857 if part == "reproject" else 32633)
    assert np.isnan(array.rio.nodata)
    assert np.isnan(array.rio.encoded_nodata)
    array.rio.to_raster(tmp_path / "b_sar.tif")
    data.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with rasterio.open(tmp_path / "b_sar.tif") as written:
        assert np.isnan(written.nodata)
        np.testing.assert_array_equal(written.read_masks(1) > 0, np.isfinite(array.values))
        assert 0.3 < (written.read_masks(1) > 0).mean() < 0.8
        np.testing.assert_allclose(written.transform[:6], array.rio.transform()[:6])


def test_codes_have_zero_as_their_nodata(tmp_path):
    opened = open_scene(write(tmp_path / "a_sar.tif", FEW))
    assert to_codes(normalize(to_db(to_power(opened)), (-30, 0))).band_1.rio.nodata == 0


def test_arithmetic_of_one_array_loses_nodata_and_the_page_says_how_it_comes_back(tmp_path):
    array = to_db(to_power(open_scene(write(tmp_path / "a_sar.tif", FEW)))).band_1_db
    doubled = array + 3
    assert doubled.rio.nodata is None
    assert np.isnan(doubled.rio.write_nodata(np.nan, encoded=True).rio.encoded_nodata)
    assert "rio.write_nodata(np.nan, encoded=True)" in PAGE.read_text()


# ------------------------------------------------------------------ what rioxarray opened


def test_power_of_what_rioxarray_opened_is_unpacked_and_masked(tmp_path):
    path = write(tmp_path / "a_sar.tif", np.array([[0, 100, 300]] * 2, "uint16"), nodata=0, scale=(0.1, -5.0))
    packed = known(path, band_as_variable=False)[0]
    np.testing.assert_allclose(to_power(packed, "power"), [[np.nan, 5, 25]] * 2)
    centidecibel = write(
        tmp_path / "b_sar.tif", np.full((2, 2), -999, "int16"), nodata=-9999, scale=(0.01, 0.0)
    )
    np.testing.assert_allclose(to_power(known(centidecibel), "db").band_1, 10**-0.999, rtol=1e-6)
    np.testing.assert_allclose(to_power(packed, "amplitude"), [[np.nan, 25, 625]] * 2)
    np.testing.assert_allclose(
        to_power(known(path), "db").band_1, [[np.nan, 10**0.5, 10**2.5]] * 2, rtol=1e-6
    )
    unpacked = rioxarray.open_rasterio(path, mask_and_scale=True)[0]
    np.testing.assert_allclose(to_power(unpacked, "power"), [[np.nan, 5, 25]] * 2, rtol=1e-6)


def test_bands_of_unlike_scales_in_one_array_are_refused_with_the_remedy(tmp_path):
    path = write(tmp_path / "a_sar.tif", MANY)
    with rasterio.open(path, "r+") as file:
        file.scales = (1.0, 2.0, 3.0)
    with pytest.raises(InvalidInputError, match="band_as_variable=True"):
        to_power(known(path, band_as_variable=False), "power")
    np.testing.assert_allclose(to_power(known(path), "power").band_3, MANY[2] * 3, rtol=1e-6)
