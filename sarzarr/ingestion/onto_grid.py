"""The grid that a scene is asked onto, and the way of each of its arrays onto it."""

import math
from typing import Final

from rasterio.crs import CRS

from sarzarr.errors import InvalidInputError
from sarzarr.grids.crs import crs_name, crs_wkt, is_same_crs
from sarzarr.grids.georeference import bbox_in, check_placed, covering
from sarzarr.grids.grid import Grid
from sarzarr.grids.warp.plan import Passthrough, WarpPlan, WarpSource, plan_warp
from sarzarr.ingestion.options import IngestOptions
from sarzarr.scenes.scene import SceneProbe
from sarzarr.store.store import Store

FINEST: Final = 64
"""Pixels of a grid along a pixel of its source, at most: a finer size is of another unit."""


def onto_grid(
    scene: SceneProbe, store: Store | None, options: IngestOptions
) -> tuple[WarpPlan | Passthrough, ...]:
    """Return the way of each array of a scene onto the grid that was asked for; nothing if none was.

    Raises `InvalidInputError` where what was asked for does not name a grid, or its pixel size is of another unit
    than its CRS; `UnsupportedRasterError` where nothing places the scene on the ground, or it does not touch the
    grid.
    """
    if not options.has_grid:
        return ()
    plans, grid = [], target_grid(scene, store, options)
    for array in scene.arrays:
        source = WarpSource(
            path=str(array.path),
            band=array.band,
            representation=str(array.representation),
            dtype=array.dtype,
            georeference=scene.georeference,
            nodata=array.nodata,
            unmeasured=array.unmeasured,
            calibration=array.calibration,
        )
        plans.append(plan_warp(source, grid, method=options.resampling, exact=options.exact))
    return tuple(plans)


def target_grid(scene: SceneProbe, store: Store | None, options: IngestOptions) -> Grid:
    """Return the grid (rows, columns) that is asked for: a scene's, or the one of a CRS that covers this scene.

    Errors are those of `onto_grid`.
    """
    if options.like:
        if store is None:
            raise InvalidInputError(
                f"a store with scene {options.like!r} was expected, got a new store. Ingest that scene first."
            )
        return store.grid(options.like)
    crs = options.crs or scene.georeference.crs_wkt
    if crs is None:
        raise InvalidInputError(
            f"a place on the ground was expected for {scene.id!r}, which pixels of {options.pixel_size:g} are asked "
            "for, got none. Leave --pixel-size out, or georeference it."
        )
    if options.pixel_size is None:
        if is_same_crs(scene.grid.crs_wkt, crs_wkt(crs)):
            return scene.grid
        raise InvalidInputError(
            f"a pixel size was expected to bring {scene.id!r} to {options.crs}, got none. Pass --pixel-size."
        )
    _check_unit(scene, crs, options.pixel_size)
    return covering([scene.georeference], crs=crs, pixel_size=options.pixel_size)


def _check_unit(scene: SceneProbe, crs: str, pixel_size: float) -> None:
    """Refuse a pixel size that can only be of another unit: far finer than the scene's, or larger than it."""
    wkt = crs_wkt(crs)
    check_placed(scene.georeference, wkt)
    left, bottom, right, top = bbox_in(scene.georeference, wkt)
    own = math.sqrt((right - left) / scene.grid.width * ((top - bottom) / scene.grid.height))
    if own / FINEST <= pixel_size <= max(right - left, top - bottom):
        return
    unit = str(CRS.from_user_input(wkt).units_factor[0])
    unit += "" if unit.endswith("s") else "s"
    near = float(f"{own:.1g}")
    got = "larger than the whole scene" if pixel_size > own else f"{own / pixel_size:,.0f} times as fine"
    raise InvalidInputError(
        f"a pixel size in {unit}, the unit of {crs_name(wkt)}, was expected for {scene.id!r}, whose pixels are of "
        f"about {own:.3g} {unit}, got {pixel_size:g}, which is {got}. "
        f"Pass --pixel-size {near:g}, or --crs with a CRS of the unit that you meant."
    )
