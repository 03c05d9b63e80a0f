"""Where scenes lie to membership, without a pixel: random places, CRSs, turns and sizes, searched by points."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from warps import georeference

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError, SplitLeakError
from sarzarr.splits.assign import Grounds, SceneGround, assign, assign_to_train, check, fixed_units
from sarzarr.store.split_table import Recipe, SceneCells

HELD, TRAIN, VAL, TEST = cv.Membership
MIDDLES = {
    "zones meet": ((12.0, 50.0), (32632, 32633, 4326, 3035, 3857)),
    "date line": ((180.0, -17.0), (32701, 32760, 3832, 4326)),
    "far north": ((15.0, 82.0), (32633, 3413, 3575, 4326)),
    "the pole": ((40.0, -89.7), (3031, 3031, 3031)),
}
WKT = {epsg: CRS.from_epsg(epsg).to_wkt() for _, some in MIDDLES.values() for epsg in some}


@st.composite
def placements(draw, place):
    """Return a scene about the middle of a place: its placement, and degrees to pixels."""
    (lon, lat), some = MIDDLES[place]
    epsg = draw(st.sampled_from(some))
    pixel, turn = draw(st.sampled_from([5.0, 10.0, 37.0])), draw(st.sampled_from([0.0, 0.0, 0.4, 2.2]))
    height, width = draw(st.integers(200, 3000)), draw(st.integers(200, 3000))
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    unit = (1 / 111_000 / max(math.cos(math.radians(lat)), 0.1), 1 / 111_000) if epsg == 4326 else (1.0, 1.0)
    east, north = draw(st.floats(-20_000, 20_000)), draw(st.floats(-20_000, 20_000))
    a, b = pixel * math.cos(turn), pixel * math.sin(turn)
    transform = (a * unit[0], b * unit[0], x + east * unit[0], b * unit[1], -a * unit[1], y + north * unit[1])
    return georeference(
        height=height, width=width, crs_wkt=WKT[epsg], transform=transform, geolocation="affine"
    ), epsg


def sides_at(scenes, cells, lon, lat):
    """Return (scenes, points) the membership of each point in each scene; 0 where it is outside."""
    out = np.zeros((len(scenes), len(lon)), np.uint8)
    for i, ((placement, epsg), s) in enumerate(zip(scenes, cells, strict=True)):
        x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
        a, b, c, d, e, f = placement.grid.transform
        if epsg == 4326:
            x = c + (x - c + 180) % 360 - 180
        col, row = np.linalg.solve([[a, b], [d, e]], np.stack([x - c, y - f]))
        inside = (row >= 0) & (col >= 0) & (row < placement.grid.height) & (col < placement.grid.width)
        out[i, inside] = s.codes[(row[inside] // 256).astype(int), (col[inside] // 256).astype(int)]
    return out


def points(rng, place, n=6000):
    (lon, lat), _ = MIDDLES[place]
    away = rng.uniform(-80_000, 80_000, (2, n)) / 111_000
    if place == "the pole":
        x, y = Transformer.from_crs(4326, 3031, always_xy=True).transform(lon, lat)
        spread = rng.uniform(-60_000, 60_000, (2, n))
        return Transformer.from_crs(3031, 4326, always_xy=True).transform(x + spread[0], y + spread[1])
    return lon + away[0] / math.cos(math.radians(lat)), np.clip(lat + away[1], -90, 90)


def assert_no_point_on_two_sides(scenes, cells, place, seed):
    lon, lat = points(np.random.default_rng(seed), place)
    found = sides_at(scenes, cells, lon, lat)
    for one, other in ((TRAIN, VAL), (TRAIN, TEST), (VAL, TEST)):
        assert not ((found == one).any(0) & (found == other).any(0)).any()
    return found


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(), place=st.sampled_from(sorted(MIDDLES)), block=st.sampled_from([3000.0, 8000.0, 20_000.0])
)
def test_no_point_of_the_ground_is_on_two_sides(data, place, block):
    scenes = data.draw(st.lists(placements(place), min_size=2, max_size=4))
    seed = data.draw(st.integers(0, 2**20))
    grounds = Grounds(tuple(SceneGround(scene=f"s{i}", placement=p) for i, (p, _) in enumerate(scenes)))
    recipe = Recipe(val_fraction=0.4, test_fraction=0.2, seed=seed, block=block)
    cells = assign(grounds, recipe, version=1)
    check(grounds, cells)
    assert_no_point_on_two_sides(scenes, cells, place, seed)
    alone = assign(Grounds(grounds.scenes[:1]), recipe, version=1)
    assert (alone[0].codes == cells[0].codes).all()


@settings(max_examples=15, deadline=None)
@given(
    data=st.data(),
    place=st.sampled_from(["zones meet", "date line", "far north"]),
    by=st.sampled_from(["ground", "scene"]),
)
def test_ground_that_comes_after_validation_was_fixed_touches_none_of_it(data, place, by):
    scenes = data.draw(st.lists(placements(place), min_size=2, max_size=5))
    seed = data.draw(st.integers(0, 2**20))
    named = tuple(SceneGround(scene=f"s{i}", placement=p) for i, (p, _) in enumerate(scenes))
    recipe = Recipe(val_fraction=0.4, seed=seed, block=8000.0, by=by, fixed_val=True)
    first = Grounds(named[:1])
    known = assign(first, recipe, version=1)
    fixed = fixed_units(first, known, recipe)
    for version, count in enumerate(range(2, len(named) + 1), start=2):
        grounds = Grounds(named[:count])
        new = assign_to_train(grounds, known, fixed, recipe, version=version)
        assert [s.scene for s in new] == [named[count - 1].scene]
        assert set(np.unique(new[0].codes)) <= {HELD, TRAIN}
        known = (*known, *new)
        check(grounds, known)
    assert_no_point_on_two_sides(scenes, known, place, seed)


@settings(max_examples=15, deadline=None)
@given(data=st.data(), place=st.sampled_from(["zones meet", "date line", "far north"]))
def test_the_check_finds_every_leak_that_points_find(data, place):
    scenes = data.draw(st.lists(placements(place), min_size=2, max_size=3))
    grounds = Grounds(tuple(SceneGround(scene=f"s{i}", placement=p) for i, (p, _) in enumerate(scenes)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    cells = tuple(
        SceneCells(
            scene=g.scene,
            grid=g.placement.fingerprint,
            place="world",
            since=1,
            codes=np.where(rng.random(g.placement.cells) < 0.9, TRAIN if i else VAL, HELD).astype(np.uint8),
        )
        for i, g in enumerate(grounds.scenes)
    )
    found = sides_at(scenes, cells, *points(rng, place, 20_000))
    leaks = ((found == TRAIN).any(0) & (found == VAL).any(0)).sum()
    if leaks:
        with pytest.raises(SplitLeakError, match="share no ground"):
            check(grounds, cells)


def test_tiles_side_by_side_are_no_leak():
    crs = CRS.from_epsg(32633).to_wkt()
    grounds = Grounds(
        tuple(
            SceneGround(
                scene=f"s{i}",
                placement=georeference(
                    height=700, width=700, crs_wkt=crs, transform=(10, 0, 4e5 + 7000 * i, 0, -10, 5.5e6)
                ),
            )
            for i in range(3)
        )
    )
    sides = [np.full((3, 3), m, np.uint8) for m in (TRAIN, VAL, TEST)]
    cells = [
        SceneCells(scene=g.scene, grid=g.placement.fingerprint, place="world", since=1, codes=c)
        for g, c in zip(grounds.scenes, sides, strict=True)
    ]
    check(grounds, cells)


def test_control_points_and_an_affine_of_one_place_agree():
    """A scene that only control points place, over one with an affine, three hundred metres off."""
    crs = CRS.from_epsg(32633).to_wkt()
    degrees = CRS.from_epsg(4326).to_wkt()
    affine = georeference(
        height=3000, width=3000, crs_wkt=crs, transform=(10, 0, 4e5, 0, -10, 5.5e6), geolocation="affine"
    )
    to_degrees = Transformer.from_crs(32633, 4326, always_xy=True).transform
    gcps = tuple(
        (r, c, *to_degrees(4e5 + 10 * c + 300, 5.5e6 - 10 * r), 0.0)
        for r in np.linspace(0, 3000, 6).tolist()
        for c in np.linspace(0, 3000, 6).tolist()
    )
    by_points = georeference(height=3000, width=3000, geolocation="gcps", gcps=gcps, gcps_crs=degrees)
    scenes = (SceneGround(scene="a", placement=affine), SceneGround(scene="b", placement=by_points))
    recipe = Recipe(val_fraction=0.4, block=12_000.0, seed=2)
    one, other = assign(Grounds(scenes), recipe, version=1)
    assert (other.codes == HELD).sum() > (one.codes == HELD).sum()
    both = (one.codes != HELD) & (other.codes != HELD)
    assert both.any()
    assert (one.codes[both] == other.codes[both]).all()


@pytest.mark.parametrize(
    ("shapes", "sites", "places"),
    [
        ([(300, 300), (300, 300)], ["", ""], ["pixels/300x300"] * 2),
        ([(300, 300), (300, 301)], ["", ""], None),
        ([(300, 300), None], ["", ""], None),
        ([(300, 300), None], ["a", ""], ["pixels/a", "world"]),
        ([(300, 300), (300, 301)], ["a", "b"], ["pixels/a", "pixels/b"]),
        ([(300, 300), (300, 301)], ["a", "a"], ["whole/a", "whole/a"]),
        ([(300, 300), None], ["a", "a"], ["whole/a", "whole/a"]),
        ([None, None], ["a", "b"], ["world", "world"]),
        ([(300, 300), (300, 300)], ["a", ""], None),
    ],
)
def test_which_scenes_may_share_ground(shapes, sites, places):
    located = georeference(
        height=300, width=300, crs_wkt=CRS.from_epsg(32633).to_wkt(), transform=(10, 0, 4e5, 0, -10, 5.5e6)
    )
    scenes = tuple(
        SceneGround(
            scene=f"s{i}",
            placement=located if shape is None else georeference(height=shape[0], width=shape[1]),
            site=site,
        )
        for i, (shape, site) in enumerate(zip(shapes, sites, strict=True))
    )
    grounds = Grounds(scenes)
    if places is None:
        with pytest.raises(InvalidInputError, match="--site"):
            _ = grounds.places
    else:
        assert list(grounds.places.values()) == places


def test_one_piece_of_ground_may_not_be_on_two_sides():
    scenes = tuple(
        SceneGround(scene=f"s{i}", placement=georeference(height=300 + i, width=300), site="a")
        for i in range(2)
    )
    grounds = Grounds(scenes)
    cells = [
        SceneCells(scene=g.scene, grid="", place="whole/a", since=1, codes=np.full((2, 2), code, np.uint8))
        for g, code in zip(scenes, (TRAIN, VAL), strict=True)
    ]
    with pytest.raises(SplitLeakError):
        check(grounds, cells)
    check(grounds, cells[:1])
