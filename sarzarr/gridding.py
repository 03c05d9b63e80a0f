"""The grid that a scene is asked onto, and how each of its arrays comes there."""

import math

from sarzarr import conventions as cv
from sarzarr.errors import InvalidInputError
from sarzarr.georeference import WarpSource, covering, crs_wkt, is_same_crs
from sarzarr.grid import Grid
from sarzarr.options import IngestOptions
from sarzarr.probe import ArrayProbe
from sarzarr.resampling import Passthrough, WarpPlan, plan_warp
from sarzarr.scene import SceneProbe
from sarzarr.store import Store


def onto_grid(
    scene: SceneProbe, store: Store | None, options: IngestOptions
) -> tuple[WarpPlan | Passthrough, ...]:
    """Return how each array of a scene comes onto the grid that was asked for; nothing if none was.

    Raises
    ------
    InvalidInputError
        What was asked for does not name a grid.
    UnsupportedRasterError
        Nothing places the scene on the ground, or it does not touch the grid.
    """
    if not (options.crs or options.pixel_size or options.like):
        return ()
    sources = [
        WarpSource(
            path=str(a.path),
            band=a.band,
            representation=str(a.representation),
            dtype=a.dtype,
            grid=scene.grid,
            nodata=_fill_of(a),
            gcps=scene.gcps,
            gcps_crs_wkt=scene.gcps_crs_wkt,
        )
        for a in scene.arrays
    ]
    grid = _target_grid(scene, sources[0], store, options)
    return tuple(plan_warp(s, grid, method=options.resampling, exact=options.exact) for s in sources)


def _fill_of(array: ArrayProbe) -> float | None:
    """Return a file's sentinel; on dB without one, 0: fill to the last bit, and a power of 1 if it were kept."""
    untagged = array.nodata is None or math.isnan(array.nodata)
    return 0.0 if untagged and array.representation == cv.Representation.DB else array.nodata


def _target_grid(scene: SceneProbe, source: WarpSource, store: Store | None, options: IngestOptions) -> Grid:
    """Return the grid that a scene goes onto."""
    if options.like:
        if store is None:
            raise InvalidInputError(
                f"a store with scene {options.like!r} was expected, got a new store. Ingest that scene first."
            )
        return store.grid(options.like)
    crs = options.crs or source.crs_wkt
    if crs is None:
        raise InvalidInputError(f"a CRS was expected for {scene.id!r}, got none. Pass --crs.")
    if options.pixel_size is None:
        if is_same_crs(scene.grid.crs_wkt, crs_wkt(crs)):
            return scene.grid
        raise InvalidInputError(
            f"a pixel size was expected to bring {scene.id!r} to {options.crs}, got none. Pass --pixel-size."
        )
    return covering([source], crs=crs, pixel_size=options.pixel_size)
