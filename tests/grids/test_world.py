"""The lattice of the ground, where cells lie on it, which patches touch which cells, and shared ground."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from warps import georeference

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.grids.footprint import GCP_GUARD, footprint_of
from sarzarr.grids.world import (
    EARTH_RADIUS,
    METRES_PER_DEGREE,
    Draw,
    Extents,
    WorldLattice,
    judge,
    parse_length,
    touched_ids,
)
from sarzarr.splits.overlap import Cells, shared_ground, touching
from sarzarr.store.membership import CellTable, count_memberships, parse_choice, patch_mask

HELD, TRAIN, VAL, TEST = cv.Membership
DRAW = Draw(seed=7, val_fraction=0.3, test_fraction=0.2)
blocks = st.sampled_from([700.0, 10_000.0, 123_456.0, 2_000_000.0])


def extents_of(south, north, west, east):
    return Extents(**{k: np.asarray(v, float) for k, v in locals().items()})


# ------------------------------------------------------------------ the world
@settings(deadline=None)
@given(block=blocks, lon=st.floats(-540, 540), lat=st.floats(-90, 90))
def test_a_position_is_within_the_block_that_holds_it(block, lon, lat):
    lattice = WorldLattice(block=block)
    band, column = lattice.block_of(np.array([lon]), np.array([lat]))
    e = lattice.bounds_of(band, column)
    assert e.south[0] - 1e-9 <= lat <= e.north[0] + 1e-9
    assert (lon - e.west[0]) % 360 <= e.east[0] - e.west[0] + 1e-9 or (e.west[0] - lon) % 360 < 1e-9


@pytest.mark.parametrize("block", [500.0, 10_000.0])
def test_blocks_are_as_wide_and_high_at_every_latitude(block):
    lattice = WorldLattice(block=block)
    lats = np.array([-84, -60, -33.3, 0, 12, 48, 71, 84.0])
    e = lattice.bounds_of(*lattice.block_of(np.full(8, 13.0), lats))
    high = (e.north - e.south) * METRES_PER_DEGREE
    wide = (e.east - e.west) * METRES_PER_DEGREE * np.cos(np.radians((e.south + e.north) / 2))
    assert np.allclose(high, block, rtol=1e-6)
    assert np.allclose(wide, block, rtol=0.01)
    area = (e.east - e.west) * (math.pi / 180) * EARTH_RADIUS**2
    area *= np.sin(np.radians(e.north)) - np.sin(np.radians(e.south))
    assert np.allclose(area, block**2, rtol=0.01)


def test_the_columns_of_a_band_close_around_the_world():
    lattice = WorldLattice(block=300_000.0)
    lons = np.linspace(-180, 180, 4001)
    band, column = lattice.block_of(lons, np.full(lons.shape, 40.0))
    assert set(column) == set(range(int(lattice.columns(band)[0])))
    assert column[0] == column[-1]


@settings(max_examples=60, deadline=None)
@given(
    block=blocks,
    south=st.floats(-89, 88),
    high=st.floats(0.001, 0.9),
    west=st.floats(-200, 200),
    wide=st.floats(0.001, 30),
    data=st.data(),
)
def test_every_block_that_an_extent_touches_is_found(block, south, high, west, wide, data):
    lattice = WorldLattice(block=block)
    e = extents_of([south], [south + high], [west], [west + wide])
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    lat, lon = south + high * rng.random(500), west + wide * rng.random(500)
    inside = set(lattice.ids(*lattice.block_of(lon, lat)).tolist())
    code = int(judge(e, lattice, DRAW)[0])
    found = set(touched_ids(e, lattice).tolist())
    if not found:  # it is too large for its blocks, and held back
        assert code == HELD
        return
    assert inside <= found
    sides = {int(c) for c in DRAW(np.array(sorted(found), np.uint64))}
    assert code == (sides.pop() if len(sides) == 1 else HELD)


def test_an_extent_without_a_place_is_held_back():
    e = extents_of([np.nan, 10, 89.9, 10], [10, 11, 90.2, 11], [0, 0, 0, 0], [1, 1, 1, 300])
    codes = judge(e, WorldLattice(block=2e6), lambda ids: np.full(len(ids), VAL, np.uint8))
    assert codes.tolist() == [HELD, VAL, HELD, HELD]


def splitmix(value):
    """The finalizer of splitmix64, in Python's integers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % 2**64
    return value ^ (value >> 31)


def digest(text):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def test_the_side_of_a_block_is_what_integers_say():
    lattice = WorldLattice(block=10_000.0)
    band, column = np.indices((40, 50)).reshape(2, -1)
    sides = DRAW(lattice.ids(band, column))
    for b, c, side in zip(band.tolist(), column.tolist(), sides.tolist(), strict=True):
        block = splitmix((b << 32) ^ c ^ digest("world/10000.0"))
        u = (splitmix(block ^ digest("seed/7")) >> 11) / 2**53
        assert side == (VAL if u < 0.3 else TEST if u < 0.5 else TRAIN)


@settings(deadline=None)
@given(seed=st.integers(0, 2**40), val=st.floats(0.05, 0.5), test=st.floats(0, 0.4))
def test_a_draw_keeps_its_fractions(seed, val, test):
    ids = np.arange(20_000).astype(np.uint64)
    codes = Draw(seed=seed, val_fraction=val, test_fraction=test)(ids)
    assert abs((codes == VAL).mean() - val) < 0.02
    assert abs((codes == TEST).mean() - test) < 0.02
    assert not (codes == HELD).any()
    without = Draw(seed=seed, val_fraction=val)(ids)
    assert ((without == VAL) == (codes == VAL)).all()


def test_another_seed_is_another_draw():
    ids = np.arange(5000).astype(np.uint64)
    one, other = (Draw(seed=s, val_fraction=0.5)(ids) for s in (1, 2))
    assert 0.4 < (one == other).mean() < 0.6


@pytest.mark.parametrize("fractions", [(0, 0), (1, 0), (-0.1, 0), (0.6, 0.4), (0.5, -0.1), (math.nan, 0)])
def test_fractions_out_of_range_are_refused(fractions):
    with pytest.raises(InvalidInputError, match="fractions"):
        Draw(seed=1, val_fraction=fractions[0], test_fraction=fractions[1])


@pytest.mark.parametrize("text", ["", "ten", "10 miles", "-5km", "1e3", "km", "nan", "inf"])
def test_what_is_no_length_is_refused(text):
    with pytest.raises(InvalidInputError, match="length"):
        parse_length(text)


@pytest.mark.parametrize("block", [0, -5, 1e8, math.nan])
def test_a_block_out_of_range_is_refused(block):
    with pytest.raises(InvalidInputError, match="block"):
        WorldLattice(block=block)


# ------------------------------------------------------------------ footprints
PLACES = [
    (32633, (10, 0, 4e5, 0, -10, 6e6)),
    (32601, (100, 0, 3e5, 0, -100, 7e6)),
    (4326, (1e-4, 0, 179.95, 0, -1e-4, 48)),
    (4326, (2e-4, 3e-5, -4, 3e-5, -1e-4, -48)),
    (3413, (1000, 0, -7e5, 0, -1000, 9e5)),
    (3031, (40, 0, -2e4, 0, -40, 1e4)),
    (32633, (7, 7, 4e5, 7, -7, 8e6)),
    (3857, (40, 0, 1e6, 0, -40, 1.1e7)),
    (2193, (5, 0, 1.6e6, 0, -5, 5.4e6)),
]


@settings(max_examples=60, deadline=None)
@given(
    place=st.sampled_from(PLACES),
    height=st.integers(1, 1400),
    width=st.integers(1, 1400),
    seed=st.integers(0, 2**20),
)
def test_a_cells_extent_holds_every_point_of_the_cell(place, height, width, seed):
    epsg, (a, b, c, d, e, f) = place
    placement = georeference(
        height=height, width=width, crs_wkt=CRS.from_epsg(epsg).to_wkt(), transform=(a, b, c, d, e, f)
    )
    footprint = footprint_of(placement)
    assert footprint.lon.shape == tuple(n + 1 for n in placement.cells)
    rng = np.random.default_rng(seed)
    row, col = height * rng.random(3000), width * rng.random(3000)
    edges = np.rint(row[:1000] / 256) * 256  # where cells bulge
    row[:1000] = edges.clip(1e-6, height) - 1e-6
    cell = row // 256 * placement.cells[1] + (col // 256)
    extents = footprint.extents[cell.astype(int)]
    lon, lat = Transformer.from_crs(epsg, 4326, always_xy=True).transform(
        a * col + b * row + c, d * col + e * row + f
    )
    placed = extents.is_placed
    inside = (lat >= extents.south) & (lat <= extents.north)
    inside &= (lon - extents.west) % 360 <= extents.east - extents.west
    assert inside[placed].all()
    about_pole = np.abs(lat) > 89.5
    assert placed[~about_pole & (footprint.pixel < 500)].all()


def test_a_footprint_is_tight():
    placement = georeference(
        height=900, width=900, crs_wkt=CRS.from_epsg(32633).to_wkt(), transform=(10, 0, 5e5, 0, -10, 5e6)
    )
    e = footprint_of(placement).extents[:1]
    assert 2560 <= (e.north - e.south)[0] * METRES_PER_DEGREE < 2575
    assert footprint_of(placement).pixel == pytest.approx(10, rel=0.01)
    grown = e.grown(100.0)
    assert (grown.north - grown.south)[0] * METRES_PER_DEGREE == pytest.approx(
        (e.north - e.south)[0] * METRES_PER_DEGREE + 200
    )


@pytest.mark.parametrize(("epsg", "top"), [(32633, 1e300), (3857, 1e300), (4326, 100.0), (4326, 1e300)])
def test_where_a_crs_has_no_ground_cells_have_no_place(epsg, top):
    placement = georeference(
        height=600, width=600, crs_wkt=CRS.from_epsg(epsg).to_wkt(), transform=(1e-3, 0, 5, 0, -1e-3, top)
    )
    assert not footprint_of(placement).extents.is_placed.any()


def make_gcps(*, height, width, rows, cols, bend=0.0):
    """Return control points of a scene whose rows run north to south in UTM 33, bent by a parabola."""
    to_degrees = Transformer.from_crs(32633, 4326, always_xy=True).transform
    out = []
    for r in np.linspace(0, height, rows):
        for c in np.linspace(0, width, cols):
            lon, lat = to_degrees(4e5 + 10 * c + bend * (r / height) ** 2, 6e6 - 10 * r)
            out.append((float(r), float(c), lon, lat, 0.0))
    return tuple(out)


@pytest.mark.parametrize(
    ("rows", "cols", "bend"), [(2, 2, 0.0), (3, 3, 0.0), (10, 21, 3000.0), (5, 5, 500.0)]
)
def test_control_points_place_cells_within_their_doubt(rows, cols, bend):
    height, width = 2000, 2600
    gcps = make_gcps(height=height, width=width, rows=rows, cols=cols, bend=bend)
    placement = georeference(
        height=height, width=width, geolocation="gcps", gcps=gcps, gcps_crs=CRS.from_epsg(4326).to_wkt()
    )
    assert placement.is_located
    footprint = footprint_of(placement)
    assert GCP_GUARD <= footprint.doubt < GCP_GUARD + 300
    rng = np.random.default_rng(0)
    row, col = height * rng.random(2000), width * rng.random(2000)
    lon, lat = Transformer.from_crs(32633, 4326, always_xy=True).transform(
        4e5 + 10 * col + bend * (row / height) ** 2, 6e6 - 10 * row
    )
    cell = (row // 256 * placement.cells[1] + col // 256).astype(int)
    extents = footprint.extents.grown(footprint.doubt)[cell]
    assert ((lat >= extents.south) & (lat <= extents.north)).all()
    assert ((lon >= extents.west) & (lon <= extents.east)).all()


def test_three_control_points_place_nothing():
    gcps = make_gcps(height=500, width=500, rows=2, cols=2)[:3]
    placement = georeference(height=500, width=500, gcps=gcps, gcps_crs=CRS.from_epsg(4326).to_wkt())
    assert not placement.is_located


def test_a_wild_control_point_widens_the_doubt():
    gcps = [*make_gcps(height=2000, width=2000, rows=6, cols=6)]
    gcps[14] = (*gcps[14][:3], gcps[14][3] + 0.1, 0.0)
    placement = georeference(height=2000, width=2000, gcps=tuple(gcps), gcps_crs=CRS.from_epsg(4326).to_wkt())
    assert footprint_of(placement).doubt > 11_000


# ------------------------------------------------------------------ patches and cells
@settings(max_examples=60, deadline=None)
@given(
    heights=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3),
    size=st.integers(1, 9),
    seed=st.integers(0, 2**20),
)
def test_a_patch_belongs_where_every_pixel_of_it_does(heights, size, seed):
    rng, cell = np.random.default_rng(seed), 3
    codes = [rng.choice(4, shape, p=[0.1, 0.6, 0.2, 0.1]).astype(np.uint8) for shape in heights]
    scene = rng.integers(-1, len(codes), 40)
    limits = np.array([c.shape for c in codes])[scene] * cell
    row, col = (rng.integers(0, limits[:, i]) for i in (0, 1))
    for wanted in cv.Membership:
        got = patch_mask(
            CellTable(codes=codes), scene=scene, row=row, col=col, size=size, wanted=wanted, cell=cell
        )
        for i, s in enumerate(scene):
            if s < 0:
                assert not got[i]
                continue
            painted = np.kron(codes[s], np.ones((cell, cell), int))  # a pixel a pixel
            touched = painted[row[i] : row[i] + size, col[i] : col[i] + size]
            assert got[i] == (touched == wanted).all()


def test_no_patches_belong_to_nothing():
    none = np.empty(0, np.int64)
    got = patch_mask(CellTable(codes=[]), scene=none, row=none, col=none, size=256, wanted=TRAIN)
    assert got.shape == (0,)
    assert got.dtype == bool
    assert count_memberships([]) == {"held_back": 0, "train": 0, "val": 0, "test": 0}


@pytest.mark.parametrize("text", ["", "validation", "v1", "v:val", "1:val", "v1:", "v²:val", "val:v1"])
def test_what_is_no_split_is_refused(text):
    with pytest.raises(InvalidInputError, match="a split such as"):
        parse_choice(text)


# ------------------------------------------------------------------ shared ground
def turned_square(lon, lat, size, angle):
    """Return (4, 2) corners of a square of ``size`` degrees of latitude, turned about its middle."""
    at = np.array([(-1, 1), (1, 1), (1, -1), (-1, -1)]) * size / 2
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return at @ turn / [math.cos(math.radians(lat)), 1] + [lon, lat]


def cells_of(corners, codes, tolerance=0.0):
    corners = np.array(corners)
    lon, lat = corners[..., 0], corners[..., 1]
    return Cells(
        extents=extents_of(lat.min(1), lat.max(1), lon.min(1), lon.max(1)),
        codes=np.array(codes, np.uint8),
        corners=lambda rows: corners[rows],
        tolerance=np.full(len(corners), tolerance),
    )


def reaches(one, two, steps=60):
    """Whether any of many points of one quadrilateral lies clearly inside the other."""
    u, v = np.meshgrid(np.linspace(0, 1, steps), np.linspace(0, 1, steps))
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], -1).reshape(-1, 4)
    points = weights @ one
    edges = np.roll(two, -1, axis=0) - two
    side = np.stack(
        [e[0] * (points[:, 1] - p[1]) - e[1] * (points[:, 0] - p[0]) for e, p in zip(edges, two, strict=True)]
    )
    return bool(((side < -1e-9).all(0) | (side > 1e-9).all(0)).any())


@settings(max_examples=100, deadline=None)
@given(
    away=st.tuples(st.floats(-0.03, 0.03), st.floats(-0.03, 0.03)),
    angles=st.tuples(st.floats(0, 3), st.floats(0, 3)),
    sizes=st.tuples(st.floats(0.005, 0.03), st.floats(0.005, 0.03)),
    lat=st.floats(-70, 70),
)
def test_squares_on_one_another_are_found_and_others_are_not(away, angles, sizes, lat):
    lon = 179.99
    one = turned_square(lon, lat, sizes[0], angles[0])
    two = turned_square(lon + away[0], lat + away[1], sizes[1], angles[1])
    turned = two - np.array([360, 0]) if away[0] > 0 else two
    pairs = shared_ground(cells_of([one, turned], [TRAIN, VAL]))
    if reaches(one, two) or reaches(two, one):
        assert pairs.tolist() in ([[0, 1]], [[1, 0]])
    smaller = [np.mean(s, axis=0) + 1.02 * (s - np.mean(s, axis=0)) for s in (one, two)]
    if not (reaches(smaller[0], smaller[1]) or reaches(smaller[1], smaller[0])):
        assert not len(pairs)


def test_neighbours_and_those_held_back_share_nothing():
    row = [turned_square(10 + 0.01 * i, 0.005, 0.01, 0) for i in range(4)]
    assert not len(shared_ground(cells_of(row, [TRAIN, VAL, TEST, TRAIN], tolerance=0.01)))
    both = [row[0], row[0], row[0]]
    assert not len(shared_ground(cells_of(both, [TRAIN, HELD, TRAIN])))
    assert len(shared_ground(cells_of(both, [TRAIN, HELD, TEST]))) == 1
    apart = cells_of([row[0], row[2]], [TRAIN, VAL], tolerance=-2000.0)
    grown = Cells(
        extents=apart.extents.grown(2000.0),
        codes=apart.codes,
        corners=apart.corners,
        tolerance=apart.tolerance,
    )
    assert len(shared_ground(grown)) == 1  # 1.1 km apart, where 2 km are in doubt


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), scale=st.sampled_from([0.01, 1.0]))
def test_extents_that_touch_are_those_that_a_plain_loop_finds(seed, scale):
    rng, n = np.random.default_rng(seed), 120
    south = rng.uniform(-60, -60 + 40 * scale, n)
    west = rng.uniform(175, 175 + 20 * scale, n) + 360 * rng.integers(-1, 2, n)
    high, wide = (rng.choice([0.1, 1, 5], n) * scale * rng.uniform(0.5, 2, n) for _ in range(2))
    e = extents_of(south, south + high, west, west + wide)
    one, two = np.arange(n // 3), np.arange(n // 3, n)
    got = [tuple(p) for pairs in touching(e, one, two) for p in pairs.tolist()]
    want = set()
    for i in one:
        for j in two:
            off = (west[i] - west[j] + 180) % 360 - 180
            if south[i] < e.north[j] and south[j] < e.north[i] and off < wide[j] and -off < wide[i]:
                want.add((int(i), int(j)))
    assert set(got) == want
