"""Areas of pixels are those of the ground, whatever the CRS."""

import numpy as np
import pytest
from pyproj import Geod

from sarzarr.grids.areas import pixel_areas
from sarzarr.grids.crs import crs_wkt
from sarzarr.grids.footprint import positions_of
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.grid import Grid

MIDDLE = np.array([256.0, 900.0])
PLACES = {
    "EPSG:32633": (10, 0, 500_000, 0, -10, 6_000_000),
    "EPSG:3857": (20, 0, 1_500_000, 0, -20, 8_400_000),
    "EPSG:4326": (1e-4, 0, 15, 0, -1e-4, 60),
    "EPSG:3413": (40, 0, -12_000, 0, -40, 11_000),
    "EPSG:2263": (30, 0, 900_000, 0, -30, 250_000),
}


@pytest.mark.parametrize("crs", PLACES)
def test_areas_are_those_of_polygons_on_the_ellipsoid(crs):
    """Of a UTM zone, Web Mercator at 60 degrees, degrees, about the pole, and US feet."""
    grid = Grid(height=1200, width=1200, transform=PLACES[crs], crs_wkt=crs_wkt(crs))
    place = Georeference(grid=grid)
    areas = pixel_areas(place, MIDDLE, MIDDLE)
    for middle, area in zip(MIDDLE, areas, strict=True):
        corners = middle + 8 * np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])
        lon, lat, _ = positions_of(place, *corners.T)
        expected, _ = Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)
        assert area == pytest.approx(abs(expected) / 256, rel=1e-3)


def test_what_control_points_place_has_the_area_between_them():
    gcps = tuple(
        (row, col, 15 + col * 1e-4, 50 - row * 1e-4) for row in (0, 500, 999) for col in (0, 500, 999)
    )
    placed = Georeference(grid=Grid(height=1000, width=1000), gcps=gcps, gcps_crs=crs_wkt("EPSG:4326"))
    grid = Grid(height=1000, width=1000, transform=(1e-4, 0, 15, 0, -1e-4, 50), crs_wkt=crs_wkt("EPSG:4326"))
    rows = np.array([500.0])
    np.testing.assert_allclose(
        pixel_areas(placed, rows, rows), pixel_areas(Georeference(grid=grid), rows, rows), rtol=1e-3
    )
