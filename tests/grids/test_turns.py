"""A longitude is an angle: positions that differ by a whole turn are the same ground, wherever 180 degrees lie."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiffs import speckle
from warps import make_source, source_for

from sarzarr.errors import UnsupportedRasterError
from sarzarr.grids.crs import crs_wkt, first_turn, turn_of, turned, turns_onto
from sarzarr.grids.footprint import footprint_of
from sarzarr.grids.georeference import (
    Georeference,
    bbox_in,
    covering,
    in_turn_of,
    locate,
    moved_by,
    on_earth,
    project,
)
from sarzarr.grids.grid import Grid
from sarzarr.grids.warp.plan import Passthrough, plan_warp
from sarzarr.grids.warp.read import read_warped

DEGREES, MERCATOR = crs_wkt("EPSG:4326"), crs_wkt("EPSG:3857")
FINE = 2.0**-12
"""Degrees of a pixel, about 20 m: whole turns are added to its multiples without rounding."""
SHAPE = (90, 120)


def degrees(west, north=40.0, *, shape=SHAPE, size=FINE):
    return Grid(height=shape[0], width=shape[1], transform=(size, 0, west, 0, -size, north), crs_wkt=DEGREES)


def utm(zone, *, x=754_500.0, y=4_432_000.0, shape=SHAPE, size=20.0):
    wkt = crs_wkt(f"EPSG:{32600 + zone}")
    return Grid(height=shape[0], width=shape[1], transform=(size, 0, x, 0, -size, y), crs_wkt=wkt)


def read(plan):
    return read_warped(plan, row=0, col=0, height=plan.grid.height, width=plan.grid.width)


def same(one, other, *, within=0.0):
    np.testing.assert_array_equal(np.isfinite(one), np.isfinite(other))
    np.testing.assert_allclose(one, other, rtol=within, atol=within)


# ------------------------------------------------------------------ numbers
@given(st.integers(-(2**20), 2**20), st.integers(-3, 3), st.floats(-720, 720))
def test_a_turn_more_or_less_is_the_same_position(units, turns, near):
    x = units * FINE
    one, other = turned(DEGREES, np.array([x, x + 360 * turns]), near=near)
    assert abs(one - near) <= 180 + 1e-9
    assert abs(one - other) in (0, 360)  # half a turn away, both ends are as near
    assert (one - x) % 360 == 0


@given(st.floats(-400, 400), st.floats(0.01, 300), st.floats(-400, 400), st.floats(0.01, 300))
def test_moves_are_all_that_bring_a_span_onto_another(west, wide, left, broad):
    own, other = (west, west + wide), (left, left + broad)
    tried = [360.0 * k for k in range(-6, 7)]
    meet = tuple(m for m in tried if own[0] + m < other[1] - 1e-9 and own[1] + m > other[0] + 1e-9)
    found = turns_onto(DEGREES, own, other)
    assert set(meet) <= set(found)
    assert len(found) - len(meet) <= 1 or not meet
    _, meets = first_turn(DEGREES, np.array([own[0]]), np.array([own[1]]), left=left, right=left + broad)
    assert meets[0] == bool(found)


@pytest.mark.parametrize(
    ("crs", "turn"),
    [
        ("EPSG:4326", 360),
        ("EPSG:4807", 400),  # grads
        ("EPSG:3857", 40_075_016.69),
        ("EPSG:6933", 34_735_060.89),  # EASE-Grid 2.0
        ("EPSG:32660", None),
        ("EPSG:3413", None),
        ("ESRI:54009", None),  # Mollweide: meridians are not even
        ("EPSG:3832", 40_075_016.69),  # Mercator about 150 degrees
    ],
)
def test_what_has_a_turn(crs, turn):
    found = turn_of(crs_wkt(crs))
    assert found is None if turn is None else found == pytest.approx(turn, abs=1)


# ------------------------------------------------------------------ places
@pytest.mark.parametrize("west", [-109.5, 0.0, 179.984375, -180.0])
def test_cells_of_a_scene_are_the_same_in_any_turn(west):
    prints = [footprint_of(Georeference(grid=degrees(west + t, shape=(600, 700)))) for t in (0, 360, -360)]
    for other in prints[1:]:
        for name in ("south", "north", "west", "east"):
            assert getattr(prints[0].extents, name).tobytes() == getattr(other.extents, name).tobytes()
        assert prints[0].pixel == other.pixel


@given(st.integers(-2, 1), st.integers(-180, 179), st.floats(0, 90), st.floats(0, 120))
def test_positions_go_there_and_back_in_any_turn(turns, west, row, col):
    place = Georeference(grid=degrees(west + 360.0 * turns))
    zone = (west + 180) // 6 + 1
    target = Grid(height=9, width=9, transform=(20, 0, 500_000, 0, -20, 4_400_000), crs_wkt=utm(zone).crs_wkt)
    x, y = project(place, target.crs_wkt, np.array([row]), np.array([col]))
    back = locate(place, target, *target.to_pixels(x, y))
    assert np.abs(np.array(back)[:, 0] - (row, col)).max() < 1e-4


def test_a_box_across_180_degrees_is_as_wide_as_its_scene():
    west, _, east, _ = bbox_in(Georeference(grid=utm(60)), DEGREES)
    assert east - west < 0.1
    one = covering([Georeference(grid=utm(60))], crs="EPSG:4326", pixel_size=FINE)
    beyond = covering([Georeference(grid=utm(1, x=245_000.0))], crs="EPSG:4326", pixel_size=FINE)
    assert -180 <= beyond.bbox[0] < 180
    both = covering([Georeference(grid=utm(60)), Georeference(grid=beyond)], crs="EPSG:4326", pixel_size=FINE)
    assert max(one.width, beyond.width) <= both.width < 300
    flat = covering([Georeference(grid=utm(60))], crs="EPSG:3857", pixel_size=30)
    assert flat.width < 200


@given(st.integers(-3, 3), st.integers(-3, 3))
def test_a_grid_beside_another_is_the_same_ground(one, other):
    grid = degrees(179.984375 + 360.0 * one)
    target = degrees(179.984375 + 360.0 * other, shape=(40, 50))
    assert in_turn_of(grid, target).transform[2] == target.transform[2]
    assert in_turn_of(utm(60), utm(60)) == utm(60)


@pytest.mark.parametrize(
    "grid",
    [
        Grid(height=512, width=600, transform=(0.87, 0, 0, 0, 0.9966, 0), crs_wkt=DEGREES),
        Grid(height=10, width=10, transform=(1, 0, 0, 0, -1, 100), crs_wkt=DEGREES),
        Grid(height=10, width=10, transform=(10, 0, 500_000, 0, -10, 4_000_000), crs_wkt=DEGREES),
        Grid(height=10, width=500, transform=(1, 0, -180, 0, -1, 5), crs_wkt=DEGREES),
        Grid(height=10, width=10, transform=(10, 0, 1e9, 0, -10, 1e9), crs_wkt=utm(33).crs_wkt),
    ],
)
def test_a_place_beyond_the_earth_is_none(grid):
    place = on_earth(Georeference(grid=grid))
    assert place.grid == replace(grid, crs_wkt=None)
    assert place.geolocation == "none"
    assert "no place on earth" in place.unplaced
    with pytest.raises(UnsupportedRasterError, match="no place on earth"):
        covering([place], crs="EPSG:32633", pixel_size=10)


@pytest.mark.parametrize(
    "grid",
    [
        degrees(-180.25, 90.25, shape=(361, 720), size=0.5),  # pixel centres on the poles
        degrees(0.0, 90.0, shape=(180, 360), size=1.0),
        degrees(179.9),
        degrees(250.6),
        degrees(-181.0),
        degrees(539.9),
        utm(60),
        Grid(
            height=80,
            width=160,
            transform=(225_000, 0, -18e6, 0, -225_000, 9e6),
            crs_wkt=crs_wkt("ESRI:54009"),
        ),
    ],
)
def test_a_place_on_earth_is_kept(grid):
    assert on_earth(Georeference(grid=grid)).grid == grid


def test_control_points_beyond_the_earth_are_none():
    gcps = tuple((float(r), float(c), 10.0 + c, 100.0 + r, 0.0) for r in (0, 9) for c in (0, 9))
    place = on_earth(Georeference(grid=Grid(height=10, width=10), gcps=gcps, gcps_crs=DEGREES))
    assert place.gcps == ()
    assert place.geolocation == "none"


# ------------------------------------------------------------------ warps
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("method", ["nearest", "bilinear", "average", "mode", "sum"])
def test_a_warp_is_the_same_in_any_turn_and_across_180_degrees(tmp_path, method, exact):
    """Zones are alike: six degrees to the west, in zone 59, nothing is near 180 degrees."""
    pixels = speckle(SHAPE, power=1.0)
    there = source_for(method, tmp_path / "a.tif", pixels, place=degrees(173.984375))
    kind = {"method": method, "exact": exact} | ({} if not there.is_layer else {"kind": KINDS[method]})
    right = read(plan_warp(there, utm(59), **kind))
    assert np.isfinite(right).mean() > 0.3
    for turn in (0.0, 360.0, -360.0):
        place = replace(there.georeference, grid=degrees(179.984375 + turn))
        same(read(plan_warp(replace(there, georeference=place), utm(60), **kind)), right, within=2e-4)


KINDS = {"mode": "classes", "sum": "counts"}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("method", ["nearest", "bilinear", "average", "sum"])
def test_a_warp_to_degrees_across_180_is_that_of_another_zone(tmp_path, method, exact):
    pixels = speckle(SHAPE, power=1.0)
    one = source_for(method, tmp_path / "a.tif", pixels, place=utm(59))
    kind = {"method": method, "exact": exact} | ({} if not one.is_layer else {"kind": KINDS[method]})
    west = covering([one.georeference], crs="EPSG:4326", pixel_size=FINE)
    right = read(plan_warp(one, west, **kind))
    other = replace(one, georeference=replace(one.georeference, grid=utm(60)))
    for turn in (6.0, 366.0, -354.0):
        same(read(plan_warp(other, moved_by(west, turn), **kind)), right, within=2e-4)


def test_within_degrees_a_turn_changes_no_pixel(tmp_path):
    pixels = speckle(SHAPE, power=1.0)
    source = make_source(tmp_path / "a.tif", pixels, place=degrees(250.5))
    window = degrees(-109.5 + 20 * FINE, shape=(60, 70))
    plan = plan_warp(source, window)
    assert isinstance(plan, Passthrough)
    np.testing.assert_array_equal(read(plan), pixels[:60, 20:90])
    half = degrees(-109.5 + 20.5 * FINE, shape=(60, 70))
    for method in ("nearest", "bilinear", "lanczos"):
        same(
            read(plan_warp(source, half, method=method)),
            read(plan_warp(source, moved_by(half, 360.0), method=method)),
        )
    with pytest.raises(UnsupportedRasterError, match="touches the grid"):
        plan_warp(source, degrees(70.5 + FINE / 2))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("method", ["nearest", "mode", "bilinear", "sum"])
@pytest.mark.parametrize("first", [-180.0, 0.0])
def test_a_raster_of_the_whole_earth_has_no_seam(tmp_path, method, exact, first):
    """What lies at both of its ends is seen as one; a raster that begins elsewhere says what is right."""
    pixels = speckle((40, 1440), power=1.0)
    if method == "mode":
        pixels = (pixels > 1).astype("u1")
    kinds = {"nearest": "continuous", "bilinear": "continuous", **KINDS}
    place = degrees(first, 45.0, shape=pixels.shape, size=0.25)
    world = source_for(method, tmp_path / "a.tif", pixels, place=place)
    kind = (
        {"method": method, "exact": exact, "kind": kinds[method]}
        if world.is_layer
        else {"method": method, "exact": exact}
    )
    turned_by = degrees(first + 90.0, 45.0, shape=pixels.shape, size=0.25)
    rolled = source_for(method, tmp_path / "b.tif", np.roll(pixels, -360, axis=1), place=turned_by)
    target = degrees(first - 1.1, 43.1, shape=(30, 60), size=0.1)
    seam, right = (read(plan_warp(one, target, **kind)) for one in (world, rolled))
    inside = np.ones(seam.shape, bool)
    if method == "bilinear":  # at either end a kernel has only one side
        inside[:, 9:14] = False
    if method == "mode":  # of a pixel that is half in two, either may count
        assert (seam == right).mean() > 0.99
    else:
        np.testing.assert_allclose(seam[inside], right[inside], rtol=1e-4, atol=1e-4)


def test_beyond_the_end_of_a_cylinder(tmp_path):
    turn = turn_of(MERCATOR)
    pixels = speckle(SHAPE, power=1.0)
    grid = Grid(height=90, width=120, transform=(30, 0, 19_000_000.0, 0, -30, 4_870_000.0), crs_wkt=MERCATOR)
    source = make_source(tmp_path / "a.tif", pixels, place=grid)
    target = covering([source.georeference], crs="EPSG:32659", pixel_size=30)
    right = read(plan_warp(source, target))
    moved = replace(source, georeference=Georeference(grid=moved_by(grid, -turn)))
    same(read(plan_warp(moved, target)), right)
    across = replace(
        source, georeference=Georeference(grid=moved_by(grid, turn / 2 - 19_001_500), name="a.tif")
    )
    with pytest.raises(UnsupportedRasterError, match=r"one side of the end of EPSG:3857, got 'a.tif'"):
        plan_warp(across, utm(60))
