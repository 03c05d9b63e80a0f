"""Plans of warps: what is passed through, which method suits, what is refused, and what a plan says."""

import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warps import UTM32, UTM33, grid

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, UnsupportedRasterError
from sarzarr.grids.crs import crs_name, crs_wkt, is_same_crs
from sarzarr.grids.georeference import Georeference, bbox_in, covering
from sarzarr.grids.grid import Grid
from sarzarr.grids.warp.plan import FAST_TOLERANCE, METHODS, Passthrough, WarpPlan, WarpSource, plan_warp


def source(place=None, *, representation="power", dtype="float32", nodata=None, **more):
    """Return a source that no file backs: plans open none."""
    path = "/nowhere/s1_vv.tif"
    return WarpSource(
        path=path,
        band=1,
        representation=representation,
        dtype=dtype,
        nodata=nodata,
        georeference=Georeference(grid=place or grid(100, 120), name=path, **more),
    )


# ---------------------------------------------------------------- what is passed through
@given(st.integers(-300, 300), st.integers(-300, 300), st.floats(-0.9e-3, 0.9e-3), st.integers(1, 90))
def test_whole_pixel_offsets_are_passed_through(row, col, fraction, size):
    place = grid(100, 120)
    target = place.window(row=row, col=col, height=size, width=size + 1)
    a, b, c, d, e, f = target.transform
    moved = replace(target, transform=(a, b, c + 10 * fraction, d, e, f - 10 * fraction))
    plan = plan_warp(source(place), moved)
    assert isinstance(plan, Passthrough)
    assert (plan.row, plan.col) == (row, col)


@given(st.floats(0.0015, 0.5))
def test_the_same_pixel_size_at_a_fraction_of_a_pixel_is_a_warp(fraction):
    target = grid(50, 50, x=600_000 + 10 * fraction)
    assert isinstance(plan_warp(source(), target), WarpPlan)


def test_two_spellings_of_one_crs_are_one():
    """WKT1 as GDAL reads it from a file, WKT2 as a code gives it."""
    old = (
        'PROJCS["WGS 84 / UTM zone 32N",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,'
        '298.257223563,AUTHORITY["EPSG","7030"]],AUTHORITY["EPSG","6326"]],PRIMEM["Greenwich",0],'
        'UNIT["degree",0.0174532925199433],AUTHORITY["EPSG","4326"]],PROJECTION["Transverse_Mercator"],'
        'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",9],PARAMETER["scale_factor",0.9996],'
        'PARAMETER["false_easting",500000],PARAMETER["false_northing",0],UNIT["metre",1],'
        'AUTHORITY["EPSG","32632"]]'
    )
    assert is_same_crs(old, UTM32)
    assert not is_same_crs(old, UTM33)
    assert not is_same_crs(old, None)
    assert is_same_crs(None, None)
    assert isinstance(plan_warp(source(grid(100, 120, wkt=old)), grid(100, 120)), Passthrough)
    assert isinstance(plan_warp(source(), grid(100, 120, wkt=UTM33, x=128_500, y=5_010_000)), WarpPlan)


def test_without_any_georeferencing_pixels_are_compared():
    """A co-registered series has no CRS: its own grid is passed through."""
    bare = Grid(height=40, width=50)
    assert plan_warp(source(bare), bare).is_identity
    assert plan_warp(source(bare), bare.window(row=3, col=4, height=5, width=6)).row == 3
    with pytest.raises(InvalidInputError, match="expected a grid with a CRS"):
        plan_warp(source(bare), Grid(height=40, width=50, transform=(2.0, 0, 0, 0, 2.0, 0)))


def test_gcps_keep_their_own_grid_untouched():
    bare = Grid(height=40, width=50)
    gcps = ((0.0, 0.0, 9.0, 45.0, 0.0), (0.0, 50.0, 9.1, 45.0, 0.0), (40.0, 0.0, 9.0, 44.9, 0.0))
    plan = plan_warp(source(bare, gcps=gcps, gcps_crs=crs_wkt("EPSG:4326")), bare)
    assert isinstance(plan, Passthrough)
    assert plan.geolocation == "none"


# ---------------------------------------------------------------- defaults
@pytest.mark.parametrize(
    ("kind", "size", "method"),
    [
        ("backscatter", 20.0, "average"),
        ("backscatter", 11.0, "average"),
        ("backscatter", 10.02, "nearest"),
        ("backscatter", 5.0, "nearest"),
        ("classes", 20.0, "mode"),
        ("classes", 5.0, "mode"),
        ("continuous", 20.0, "average"),
        ("continuous", 5.0, "bilinear"),
        ("counts", 20.0, "sum"),
        ("counts", 5.0, "sum"),
    ],
)
def test_each_kind_has_its_default(kind, size, method):
    made = source() if kind == "backscatter" else source(representation="layer", dtype="float32")
    assert plan_warp(made, grid(50, 60, size=size, x=600_003), kind=kind).method == method


def test_another_zone_at_the_same_size_is_not_coarser():
    """Its pixels are 0.1 % larger or smaller: no reason to average, and to change the looks."""
    target = covering([source().georeference], crs="EPSG:32633", pixel_size=10.0)
    assert plan_warp(source(), target).method == "nearest"


@pytest.mark.parametrize("kind", METHODS)
def test_a_method_that_does_not_suit_is_refused(kind):
    made = source() if kind == "backscatter" else source(representation="layer")
    every = {m for methods in METHODS.values() for m in methods} | {"median", "gauss", ""}
    for method in every:
        if method in METHODS[kind]:
            assert plan_warp(made, grid(50, 60, size=20.0), kind=kind, method=method).method == method
        else:
            with pytest.raises(
                InvalidInputError, match=rf"expected a method for {kind} of .*, got '{method}'"
            ):
                plan_warp(made, grid(50, 60, size=20.0), kind=kind, method=method)


# ---------------------------------------------------------------- what a plan says
def test_attrs_say_what_was_done():
    plan = plan_warp(source(), covering([source().georeference], crs="EPSG:32633", pixel_size=20.0))
    assert plan.attrs == {
        cv.RESAMPLING: "average",
        cv.RESAMPLING_TOLERANCE: FAST_TOLERANCE,
        cv.RESAMPLING_LOOKS: "unknown",
        cv.GEOLOCATION: "affine",
    }
    nearest = plan_warp(source(), grid(50, 60, size=20.0), method="nearest")
    assert nearest.attrs[cv.RESAMPLING_LOOKS] == "unchanged"
    assert nearest.attrs[cv.RESAMPLING_TOLERANCE] == 0
    layer = plan_warp(source(representation="layer"), grid(50, 60, size=20.0), kind="continuous")
    assert cv.RESAMPLING_LOOKS not in layer.attrs
    assert plan_warp(source(), grid(100, 120)).attrs == {}


def test_plans_print_what_they_will_do():
    warped = plan_warp(source(), covering([source().georeference], crs="EPSG:32633", pixel_size=20.0))
    assert str(warped) == (
        "s1_vv.tif band 1: warped from EPSG:32632 to EPSG:32633 at 20, average, within 0.0001 px, looks unknown"
    )
    assert str(plan_warp(source(), grid(50, 60, size=5.0))) == (
        "s1_vv.tif band 1: warped from EPSG:32632 to EPSG:32632 at 5, nearest, exact"
    )
    assert str(plan_warp(source(), grid(100, 120))) == "s1_vv.tif band 1: passed through, its own grid"
    moved = plan_warp(source(), grid(100, 120, x=600_100))
    assert str(moved) == "s1_vv.tif band 1: passed through, a window from row 0, column 10"


def test_plans_cross_process_borders():
    for target in (grid(100, 120), grid(50, 60, size=20.0)):
        plan = plan_warp(source(nodata=float("nan")), target)
        copy = pickle.loads(pickle.dumps(plan))
        assert copy == plan
        assert hash(copy) == hash(plan)


def test_the_kernel_scale_is_one_for_the_whole_grid():
    """Taken from the raster, not from the window: the same for a part of the grid."""
    target = covering([source().georeference], crs="EPSG:32633", pixel_size=25.0)
    part = target.window(row=3, col=5, height=10, width=10)
    assert plan_warp(source(), target).scale == pytest.approx(plan_warp(source(), part).scale, abs=1e-6)
    assert plan_warp(source(), grid(40, 40, size=25.0)).scale == (0.4, 0.4)


# ---------------------------------------------------------------- refusals
def refused(error, message, *args, **kwargs):
    with pytest.raises(error) as caught:
        plan_warp(*args, **kwargs)
    assert re.search(message, str(caught.value))
    assert re.match(r"expected .+, got .+\. \S.+\.$", str(caught.value), re.DOTALL)


def test_what_nothing_places_is_refused():
    bare = Grid(height=40, width=50)
    refused(
        UnsupportedRasterError,
        "neither. Georeference it, or leave out crs=",
        source(bare),
        grid(9, 9, size=20.0),
    )
    rpc = source(bare, geolocation="rpcs")
    refused(UnsupportedRasterError, r"RPC.*Orthorectify it with a DEM first", rpc, grid(9, 9, size=20.0))
    with pytest.raises(UnsupportedRasterError, match="Orthorectify"):
        covering([rpc.georeference], crs="EPSG:32632", pixel_size=10)


@pytest.mark.parametrize(
    "gcps",
    [
        ((0.0, 0.0, 9.0, 45.0, 0.0), (0.0, 50.0, 9.1, 45.0, 0.0)),
        ((0.0, 0.0, 9.0, 45.0, 0.0), (5.0, 5.0, 9.1, 45.1, 0.0), (9.0, 9.0, 9.18, 45.18, 0.0)),
        ((0.0, 0.0, 9.0, 45.0, 0.0), (0.0, 50.0, 9.1, 45.0, 0.0), (40.0, 0.0, float("nan"), 44.9, 0.0)),
    ],
    ids=["two", "in a line", "nan"],
)
def test_gcps_that_no_spline_goes_through_are_refused(gcps):
    bare = source(Grid(height=40, width=50), gcps=gcps, gcps_crs=crs_wkt("EPSG:4326"))
    refused(UnsupportedRasterError, "at least 3 ground control points", bare, grid(9, 9, size=20.0))


def test_a_raster_beside_the_grid_is_refused():
    beside = grid(10, 10, size=20.0, x=700_000)
    refused(UnsupportedRasterError, "touches the grid", source(), beside)


def test_kinds_and_representations_must_agree():
    refused(InvalidInputError, "got 'classes' for 'power'", source(), grid(9, 9), kind="classes")
    layer = source(representation="layer")
    refused(InvalidInputError, "got 'backscatter' for 'layer'", layer, grid(9, 9))
    refused(InvalidInputError, "expected a kind of", layer, grid(9, 9), kind="elevation")


def test_complex_is_never_a_layer_and_codes_are_never_warped():
    with pytest.raises(InvalidInputError, match="Complex is never warped: its power is"):
        source(representation="layer", dtype="complex64")
    with pytest.raises(InvalidInputError, match="Denormalize normalized values first"):
        source(representation="normalized")


def test_layers_of_dtypes_that_gdal_cannot_warp_exactly_are_refused():
    wide = source(representation="layer", dtype="int64", nodata=-1)
    refused(UnsupportedRasterError, "got int64", wide, grid(9, 9, size=20.0), kind="classes")
    assert isinstance(plan_warp(wide, grid(100, 120), kind="classes"), Passthrough)


def test_a_grid_coarser_than_memory_allows_is_refused():
    wide = source(grid(60_000, 60_000))
    refused(UnsupportedRasterError, "Coarsen the raster in two steps", wide, grid(3, 3, size=200_000.0))


def test_an_unknown_crs_is_refused():
    for crs in ("EPSG:99999", "somewhere", ""):
        with pytest.raises(InvalidInputError, match="expected a CRS"):
            covering([source().georeference], crs=crs, pixel_size=10)


# ---------------------------------------------------------------- covering grids
def test_a_covering_grid_holds_every_source():
    one, other = source(), source(grid(80, 80, x=650_000, y=5_030_000))
    both = covering([one.georeference, other.georeference], crs="EPSG:32633", pixel_size=30.0)
    for made in (one, other):
        x_min, y_min, x_max, y_max = bbox_in(made.georeference, UTM33)
        left, bottom, right, top = both.bbox
        assert left <= x_min < x_max <= right
        assert bottom <= y_min < y_max <= top
        assert (
            both.whole_pixel_offset(covering([made.georeference], crs="EPSG:32633", pixel_size=30.0))
            is not None
        )
    with pytest.raises(InvalidInputError, match="at least one raster"):
        covering([], crs="EPSG:32633", pixel_size=30.0)


def test_a_crs_has_a_short_name():
    assert crs_name(UTM33) == "EPSG:32633"
    assert crs_name(None) == "no CRS"
    local = crs_wkt("+proj=laea +lat_0=45.3 +lon_0=9.7 +datum=WGS84 +type=crs")
    assert crs_name(local) == "unknown"
    assert np.isfinite(bbox_in(source().georeference, local)).all()
