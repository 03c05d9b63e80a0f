"""The chips of a collection that share ground with a region of the world."""

from typing import Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.grids.crs import LONLAT, crs_wkt, transform_points
from sarzarr.grids.georeference import Georeference
from sarzarr.grids.region import GroundRegion
from sarzarr.grids.world import Extents
from sarzarr.splits.chips.make import chip_grounds
from sarzarr.splits.overlap import touching
from sarzarr.store.collections import Collection

STEPS: Final = 16
"""Steps in which an edge of a region is followed."""


def chips_in_region(
    collection: Collection, region: GroundRegion, among: Array, *, within: bool = False
) -> Array:
    """Return (n,) bool: the chips, of those of ``among`` (n,) bool, that share ground with a region of the world.

    With ``within`` those that lie wholly in one of its parts. Boxes in longitude and latitude leave few chips, which
    are then judged one by one, pixel by pixel.
    """
    out = np.zeros(len(collection), bool)
    grounds = chip_grounds(collection)
    rows = np.flatnonzero(among & grounds.is_placed)
    if not rows.size:
        return out
    chips, boxes = grounds.extents[rows], _boxes(region)
    names = ("south", "north", "west", "east")
    both = Extents(**{k: np.concatenate([getattr(boxes, k), getattr(chips, k)]) for k in names})
    of_boxes = np.arange(len(boxes))
    near = [pairs[:, 1] for pairs in touching(both, of_boxes, np.arange(len(boxes), len(both)))]
    for i in np.unique(np.concatenate([np.empty(0, np.int64), *near])).tolist():
        row = int(rows[i - len(boxes)])
        grid = collection.grid(row)
        whole = np.array([[0], [grid.height]]), np.array([[0], [grid.width]])
        out[row] = region.chosen(Georeference(grid=grid), *whole, within=within)[0]
    return out


def _boxes(region: GroundRegion) -> Extents:
    """Return (rings,) boxes in degrees that hold a region's rings, with a margin; about a pole the whole band."""
    corners = []
    for ring in (ring for part in region.parts for ring in part):
        share = np.linspace(0, 1, STEPS, endpoint=False)[:, None, None]
        edges = ring * (1 - share) + np.roll(ring, -1, axis=0) * share
        lon, lat = transform_points(region.crs_wkt, crs_wkt(LONLAT), *edges.reshape(-1, 2).T)
        sure = np.isfinite(lon) & np.isfinite(lat)
        if not sure.all():
            corners.append((-89.9, 89.9, -180.0, -1.0))
            corners.append((-89.9, 89.9, -1.0, 178.0))
            continue
        lon = lon[0] + np.unwrap(lon - lon[0], period=360)
        margin = 0.02 + 0.05 * max(np.ptp(lon), np.ptp(lat))
        south, north = max(lat.min() - margin, -89.9), min(lat.max() + margin, 89.9)
        west, east = lon.min() - margin, lon.max() + margin
        middle = (west + east) / 2
        halves = [(west, east)] if east - west < 170 else [(west, middle), (middle, east)]
        corners.extend((south, north, *half) for half in halves)
    south, north, west, east = np.array(corners).T
    return Extents(south=south, north=north, west=west, east=east)
