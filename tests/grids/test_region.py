"""Windows of a raster that share ground with a region: in any CRS, by control points, over 180 degrees and poles."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polygons import write_by_gdal
from pyproj import Transformer
from warps import UTM33, georeference

from sarzarr.errors import InvalidInputError, MissingExtraError, RasterNotFoundError
from sarzarr.grids.burn import burn
from sarzarr.grids.crs import crs_wkt
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.region import GroundRegion


def windows(place, size=64):
    """Return rows and cols (2, n), from and to, of the windows of a lattice."""
    starts = (np.arange(0, n, size) for n in place.grid.shape)
    first = [v.ravel() for v in np.meshgrid(*starts, indexing="ij")]
    return tuple(np.stack([f, np.minimum(f + size, n)]) for f, n in zip(first, place.grid.shape, strict=True))


def utm(height=640, width=640, *, x=500_000.0, y=5_400_000.0, size=10.0, epsg=32633):
    return georeference(
        height=height, width=width, transform=(size, 0, x, 0, -size, y), crs_wkt=crs_wkt(f"EPSG:{epsg}")
    )


def by_control_points(place, *, crs="EPSG:4326", points=9):
    """Return the same place, told by control points alone."""
    rows, cols = np.meshgrid(*(np.linspace(0, n, points) for n in place.grid.shape), indexing="ij")
    xs, ys = place.grid.to_xy(rows, cols)
    lon, lat = Transformer.from_crs(place.grid.crs_wkt, crs, always_xy=True).transform(xs, ys)
    values = (v.ravel().tolist() for v in (rows, cols, lon, lat, 0 * lon))
    gcps = tuple(zip(*values, strict=True))
    height, width = place.grid.shape
    return georeference(height=height, width=width, gcps=gcps, gcps_crs=crs_wkt(crs))


def degrees(place, rows, cols):
    xs, ys = place.grid.to_xy(rows, cols)
    return Transformer.from_crs(place.grid.crs_wkt, "EPSG:4326", always_xy=True).transform(xs, ys)


def sampled(place, inside, rows, cols, n=17):
    """Return (windows, n * n) bool: whether ``inside(lon, lat)`` holds at points of each window and its edges."""
    t = np.linspace(0, 1, n)
    down = rows[0][:, None, None] + (rows[1] - rows[0])[:, None, None] * t[None, :, None]
    across = cols[0][:, None, None] + (cols[1] - cols[0])[:, None, None] * t[None, None, :]
    return inside(*degrees(place, *np.broadcast_arrays(down, across))).reshape(rows.shape[1], -1)


def check(place, region, inside, *, seen=None):
    """Hold the choice against points: a window with one inside is chosen; one that is chosen has some, or touches."""
    rows, cols = windows(place)
    points = sampled(seen or place, inside, rows, cols)
    core = points.reshape(-1, 17, 17)[:, 1:-1, 1:-1].reshape(len(points), -1)
    meets, within = (region.chosen(place, rows, cols, within=w) for w in (False, True))
    assert meets[core.any(axis=1)].all()
    assert not within[~core.all(axis=1)].any()
    assert within[points.all(axis=1)].all()
    grown = np.stack([rows[0] - 4, rows[1] + 4]), np.stack([cols[0] - 4, cols[1] + 4])
    assert sampled(seen or place, inside, *grown).any(axis=1)[meets].all()
    assert (within <= meets).all()
    return meets, within


def box(left, bottom, right, top):
    return lambda lon, lat: (
        (((lon - left) % 360) <= (right - left) % 360.0001) & (lat >= bottom) & (lat <= top)
    )


# ------------------------------------------------------------------ geometry, exactly
def clipped_area(ring, low, high):
    """Return the area of a simple ring within a box, by clipping it side by side and the shoelace formula."""
    for axis in (0, 1):
        for sign, bound in ((1, low[axis]), (-1, high[axis])):
            kept = []
            for p, q in zip(ring, ring[1:] + ring[:1], strict=True):
                dp, dq = sign * (p[axis] - bound), sign * (q[axis] - bound)
                if dp >= 0:
                    kept.append(p)
                if (dp >= 0) != (dq >= 0):
                    kept.append(tuple(a + (b - a) * dp / (dp - dq) for a, b in zip(p, q, strict=True)))
            ring = kept
    pairs = zip(ring, ring[1:] + ring[:1], strict=True)
    return abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in pairs)) / 2


@settings(max_examples=60)
@given(
    radii=st.lists(st.floats(20, 300), min_size=3, max_size=9),
    middle=st.tuples(st.floats(-50, 700), st.floats(-50, 700)),
    hole=st.floats(0, 0.9),
    size=st.sampled_from([64, 100, 256]),
)
def test_a_window_is_chosen_by_the_area_that_it_shares(radii, middle, hole, size):
    """Of stars with holes, on pixels: any area is to meet, all of it is to be within."""
    place = utm()
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    star = [
        (middle[0] + r * np.sin(a), middle[1] + r * np.cos(a)) for r, a in zip(radii, angles, strict=True)
    ]
    inner = [tuple(middle[i] + hole * (p[i] - middle[i]) for i in (0, 1)) for p in star]
    rings = [star, inner] if hole > 0.05 else [star]
    corners = [[place.grid.to_xy(row, col) for row, col in ring] for ring in rings]
    region = GroundRegion.of_polygon(({"type": "Polygon", "coordinates": corners}, "EPSG:32633"))
    rows, cols = windows(place, size)
    meets, within = (region.chosen(place, rows, cols, within=w) for w in (False, True))
    for i, (top, bottom, left, right) in enumerate(zip(*rows, *cols, strict=True)):
        first, *holes = (clipped_area(ring, (top, left), (bottom, right)) for ring in rings)
        area, whole = first - sum(holes), (bottom - top) * (right - left)
        if 1 < area < whole - 1:
            assert meets[i]
            assert not within[i]
        elif area < 1e-6 and not any(holes):
            assert not meets[i]
        elif area > whole - 1e-6:
            assert within[i]


def test_what_only_touches_does_not_meet():
    place = utm(256, 256)
    rows, cols = windows(place)
    corner = (
        500_000 + 640,
        5_400_000 - 1280,
        500_000 + 1280,
        5_400_000 - 640,
    )  # the window of row 64, col 64
    region = GroundRegion.of_bounds((corner, "EPSG:32633"))
    for within in (False, True):
        chosen = region.chosen(place, rows, cols, within=within)
        assert list(zip(rows[0][chosen], cols[0][chosen], strict=True)) == [(64, 64)]


# ------------------------------------------------------------------ the world
@pytest.mark.parametrize("points", [False, True])
def test_a_box_of_degrees_on_a_utm_scene(points):
    place = utm()
    bounds = (15.02, 48.70, 15.05, 48.73)
    seen = by_control_points(place) if points else place
    meets, within = check(seen, GroundRegion.of_bounds(bounds), box(*bounds), seen=place)
    assert 0 < within.sum() < meets.sum() < len(meets)


@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("epsg", [32601, 32660, 3832])
def test_a_scene_across_180_degrees(epsg, points):
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True).transform(179.97, -16.0)
    place = utm(x=x, y=y, epsg=epsg)
    seen = by_control_points(place) if points else place
    over = (179.99, -16.04, -179.99, -16.01)
    wanted, _ = check(seen, GroundRegion.of_bounds(over), box(*over), seen=place)
    again = GroundRegion.of_bounds((179.99, -16.04, 180.01, -16.01))
    parts = [
        [[(a, -16.04), (b, -16.04), (b, -16.01), (a, -16.01), (a, -16.04)]]
        for a, b in ((179.99, 180), (-180, -179.99))
    ]
    cut = GroundRegion.of_polygon({"type": "MultiPolygon", "coordinates": parts})  # as RFC 7946 cuts it
    rows, cols = windows(place)
    for other in (again, cut):
        for within in (False, True):
            expected = GroundRegion.of_bounds(over).chosen(seen, rows, cols, within=within)
            assert np.array_equal(other.chosen(seen, rows, cols, within=within), expected)
    assert 0 < wanted.sum() < len(wanted)


def test_scenes_in_degrees_meet_whatever_turn_they_count():
    grids = [
        georeference(
            height=256, width=256, transform=(0.01, 0, x, 0, -0.01, 1.0), crs_wkt=crs_wkt("EPSG:4326")
        )
        for x in (179.0, -181.0)
    ]
    rows, cols = windows(grids[0])
    bounds = (179.5, -0.5, -179.5, 0.5)
    chosen = [GroundRegion.of_bounds(bounds).chosen(place, rows, cols) for place in grids]
    assert np.array_equal(*chosen)
    meets, _ = check(grids[0], GroundRegion.of_bounds(bounds), box(*bounds))
    assert 0 < meets.sum() < len(meets)
    world = georeference(
        height=256, width=512, transform=(360 / 512, 0, -180, 0, -180 / 256, 90), crs_wkt=crs_wkt("EPSG:4326")
    )
    check(world, GroundRegion.of_bounds((170, -10, -170, 10)), box(170, -10, 190, 10))


@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize(("epsg", "sign"), [(3413, 1), (3031, -1)])
def test_a_scene_about_a_pole(epsg, sign, points):
    """The seam at 180 degrees, and the pole as an edge, are none: GeoJSON's cap of the world is a disk."""
    place = utm(x=-320_000.0, y=320_000.0, size=1000.0, epsg=epsg)
    seen = by_control_points(place, points=17) if points else place
    south, north = sorted((sign * 88.0, sign * 90.0))
    cap = GroundRegion.of_bounds((-180, south, 180, north))
    meets, within = check(seen, cap, lambda lon, lat: sign * lat >= 88, seen=place)
    assert 4 < within.sum() < meets.sum() < len(meets)
    south, north = sorted((sign * 85.0, sign * 89.5))
    check(seen, GroundRegion.of_bounds((20, south, 60, north)), box(20, south, 60, north), seen=place)


def test_a_circle_of_latitude_between_two_caps_is_no_edge():
    place = utm(x=-320_000.0, y=320_000.0, size=1000.0, epsg=3413)
    caps = [[[(-180, a), (180, a), (180, b), (-180, b)]] for a, b in ((60, 88), (88, 90))]
    region = GroundRegion.of_polygon({"type": "MultiPolygon", "coordinates": caps})
    assert region.chosen(place, *windows(place), within=True).all()


def test_a_region_in_a_projection_that_reaches_over_the_pole():
    place = utm(x=500_000.0, y=8_800_000.0, size=100.0, epsg=32633)
    disk = [(1.2e6 * np.cos(a), 1.2e6 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 200)]
    region = GroundRegion.of_polygon(({"type": "Polygon", "coordinates": [disk]}, "EPSG:3413"))
    to_polar = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True)
    check(place, region, lambda lon, lat: np.hypot(*to_polar.transform(lon, lat)) <= 1.2e6)


def test_far_away_is_not_met():
    rows, cols = windows(utm())
    for bounds in ((-100, 20, -90, 30), (15, -49, 16, -48), (-165.0, 48.6, -164.9, 48.8)):
        assert not GroundRegion.of_bounds(bounds).chosen(utm(), rows, cols).any()
    assert GroundRegion.of_bounds((-180, -90, 180, 90)).chosen(utm(), rows, cols, within=True).all()


# ------------------------------------------------------------------ ways to say it
SQUARE = {
    "type": "Polygon",
    "coordinates": [[[15.0, 48.7], [15.1, 48.7], [15.1, 48.8], [15.0, 48.8], [15.0, 48.7]]],
}
UTM_SQUARE = {
    "type": "Polygon",
    "coordinates": [[[500_000, 5_399_000], [501_000, 5_399_000], [501_000, 5_398_000]]],
}


class Shape:
    """What shapely and geopandas hand out."""

    def __init__(self, geometry, crs=None):
        self.__geo_interface__ = geometry
        self.crs = crs


def test_the_same_polygon_said_in_many_ways(tmp_path):
    (tmp_path / "a.geojson").write_text(json.dumps(SQUARE))
    feature = {"type": "Feature", "geometry": SQUARE, "properties": {}}
    place = utm(2048, 2048)
    rows, cols = windows(place)
    expected = GroundRegion.of_polygon(SQUARE).chosen(place, rows, cols)
    assert 0 < expected.sum() < len(expected)
    for said in (
        feature,
        {"type": "FeatureCollection", "features": [feature]},
        {"type": "GeometryCollection", "geometries": [SQUARE]},
        {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"]]},
        Shape(SQUARE),
        tmp_path / "a.geojson",
        str(tmp_path / "a.geojson"),
        (SQUARE, "EPSG:4326"),
    ):
        assert np.array_equal(GroundRegion.of_polygon(said).chosen(place, rows, cols), expected)
    told = {**UTM_SQUARE, "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}}
    regions = [
        GroundRegion.of_polygon(g)
        for g in ((UTM_SQUARE, "EPSG:32633"), Shape(UTM_SQUARE, "EPSG:32633"), told)
    ]
    assert len({region.chosen(place, rows, cols).tobytes() for region in regions}) == 1
    assert regions[0].chosen(place, rows, cols).any()


def test_a_geopackage_is_read_in_its_own_crs(tmp_path):
    drawn = {"type": "Feature", "properties": {}, "geometry": UTM_SQUARE}
    write_by_gdal(tmp_path / "a.gpkg", [drawn], crs="EPSG:32633", tables=("one",))
    place = utm()
    rows, cols = windows(place)
    wanted = GroundRegion.of_polygon((UTM_SQUARE, "EPSG:32633")).chosen(place, rows, cols)
    assert np.array_equal(GroundRegion.of_polygon(tmp_path / "a.gpkg").chosen(place, rows, cols), wanted)
    write_by_gdal(tmp_path / "a.gpkg", [drawn], crs="EPSG:32633", tables=("two",))
    with pytest.raises(InvalidInputError, match=r"among one, two, got none. Write one to a file of its own"):
        GroundRegion.of_polygon(tmp_path / "a.gpkg")


def test_without_pyogrio_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyogrio", None)
    (tmp_path / "a.gpkg").write_bytes(b"SQLite format 3\0")
    with pytest.raises(MissingExtraError, match=r"pip install 'sarzarr\[vector\]'"):
        GroundRegion.of_polygon(tmp_path / "a.gpkg")


def test_parts_of_a_multipolygon_may_overlap():
    """As they do where they are burnt: what several are around is inside."""
    place = utm(640, 640)
    rows, cols = windows(place)
    parts = [[(0, 0), (0, 320), (320, 320), (320, 0)], [(192, 192), (512, 192), (512, 512), (192, 512)]]
    hole = [(400, 400), (400, 500), (500, 500), (500, 400)]
    for turned in (parts, [ring[::-1] for ring in parts], [parts[0], parts[1][::-1]], [parts[0], *parts]):
        rings = [
            [tuple(map(float, place.grid.to_xy(*corner))) for corner in ring] for ring in [*turned, hole]
        ]
        drawn = {"type": "MultiPolygon", "coordinates": [*([ring] for ring in rings[:-2]), rings[-2:]]}
        region = GroundRegion.of_polygon((drawn, "EPSG:32633"))
        polygons = [tuple(np.array(ring) for ring in polygon) for polygon in drawn["coordinates"]]
        made = burn(polygons, [1] * len(polygons), UTM33, place, dtype="uint8", all_touched=False)
        burnt = made.window(row=0, col=0, height=640, width=640)
        shares = [
            burnt[top:bottom, left:right].mean()
            for top, bottom, left, right in zip(*rows, *cols, strict=True)
        ]
        assert np.array_equal(region.chosen(place, rows, cols), np.array(shares) > 0)
        within = region.chosen(place, rows, cols, within=True)
        assert within.sum() >= 20
        assert not (within & (np.array(shares) < 1)).any()


@pytest.mark.parametrize(
    ("make", "given", "says"),
    [
        (GroundRegion.of_bounds, (1, 2, 3), "left, bottom, right, top"),
        (GroundRegion.of_bounds, (1, 2), "left, bottom, right, top"),
        (GroundRegion.of_bounds, ("1", "2"), "left, bottom, right, top"),
        (GroundRegion.of_bounds, 5, "left, bottom, right, top"),
        (GroundRegion.of_bounds, (1, 5, 3, 2), "bottom below top"),
        (GroundRegion.of_bounds, (1, 2, 1, 3), "left, bottom, right, top"),
        (GroundRegion.of_bounds, (float("nan"), 2, 1, 3), "left, bottom, right, top"),
        (GroundRegion.of_bounds, "15,48,16,49", "left, bottom, right, top"),
        (GroundRegion.of_bounds, (500_000, 5_000_000, 510_000, 5_010_000), "Say the CRS beside"),
        (GroundRegion.of_bounds, ((5, 0, 1, 1), "EPSG:32633"), "left, bottom, right, top"),
        (GroundRegion.of_bounds, ((1, 2, 3, 4), "EPSG:nope"), "expected a CRS"),
        (GroundRegion.of_polygon, UTM_SQUARE, "Say the CRS beside"),
        (GroundRegion.of_polygon, {"type": "Point", "coordinates": [1, 2]}, "Buffer points"),
        (
            GroundRegion.of_polygon,
            {"type": "FeatureCollection", "features": []},
            "a Polygon, a MultiPolygon.* got none",
        ),
        (GroundRegion.of_polygon, 5, "GeoJSON or __geo_interface__, got 5"),
        (GroundRegion.of_polygon, {"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}, "3 finite corners"),
    ],
)
def test_what_is_no_region_is_refused_with_a_remedy(make, given, says):
    with pytest.raises(InvalidInputError, match=says):
        make(given)


def test_a_file_that_is_no_geojson_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InvalidInputError, match=r"GeoJSON in .*a\.json"):
        GroundRegion.of_polygon(tmp_path / "a.json")
    with pytest.raises(RasterNotFoundError, match="got nothing at"):
        GroundRegion.of_polygon("nothing.geojson")


def test_a_rotated_scene_is_met_where_it_lies():
    turned = Georeference(
        grid=utm().grid.__class__(
            height=640, width=640, transform=(7, 7, 500_000, 7, -7, 5_400_000), crs_wkt=UTM33
        )
    )
    bounds = (15.05, 48.73, 15.09, 48.76)
    meets, _ = check(turned, GroundRegion.of_bounds(bounds), box(*bounds))
    assert 0 < meets.sum() < len(meets)
