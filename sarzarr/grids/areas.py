"""Ground that pixels cover, in square metres, whatever their CRS says of its units."""

from typing import Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.grids.footprint import positions_of
from sarzarr.grids.georeference import Georeference

_AXIS: Final = 6_378_137.0
"""Metres: half the equatorial diameter of WGS 84."""
_SQUARED_ECCENTRICITY: Final = 0.00669437999014
_REACH: Final = 64
"""Pixels to each side between which a pixel's area is measured: a quarter of a cell."""


def pixel_areas(place: Georeference, rows: Array, cols: Array) -> Array:
    """Return (n,) float64: square metres of ground that a pixel at positions (rows, cols) of a located scene covers.

    Of the ellipsoid WGS 84, from the Earth-centred positions of points 64 pixels away: so degrees, feet, a projection
    that enlarges (Web Mercator does, fourfold at 60 degrees), control points and poles are alike. Heights are left
    aside. Not finite where a position has none; raises as `sarzarr.grids.footprint.footprint_of` does.
    """
    down, across = (
        _earth_centred(place, rows + _REACH * i, cols + _REACH * j)
        - _earth_centred(place, rows - _REACH * i, cols - _REACH * j)
        for i, j in ((1, 0), (0, 1))
    )
    areas: Array = np.linalg.norm(np.cross(down, across), axis=-1) / (2 * _REACH) ** 2
    return areas


def _earth_centred(place: Georeference, rows: Array, cols: Array) -> Array:
    """Return (n, 3) metres: positions on the ellipsoid, from the Earth's centre."""
    lon, lat, _ = positions_of(place, rows.astype(np.float64), cols.astype(np.float64))
    with np.errstate(invalid="ignore"):
        lam, phi = np.radians(lon), np.radians(lat)
        normal = _AXIS / np.sqrt(1 - _SQUARED_ECCENTRICITY * np.sin(phi) ** 2)
        x, y = normal * np.cos(phi) * np.cos(lam), normal * np.cos(phi) * np.sin(lam)
        return np.stack([x, y, normal * (1 - _SQUARED_ECCENTRICITY) * np.sin(phi)], axis=-1)
