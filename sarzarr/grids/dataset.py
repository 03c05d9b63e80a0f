"""Datasets on a grid as xarray's users get them: placed where rioxarray reads it, and writable to other formats."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from sarzarr import conventions as cv
from sarzarr.grids.crs import parse_crs
from sarzarr.grids.grid import Grid

_ENCODING: Final = ("dtype", cv.FILL_VALUE, cv.SCALE_FACTOR, cv.ADD_OFFSET, cv.GRID_MAPPING, "fill_value")
"""What stays of an encoding: chunks, shards and codecs are those of the file that was read."""
_GEO_TRANSFORM: Final = "GeoTransform"
_PROJECTED: Final = ("projection_y_coordinate", "projection_x_coordinate")


def spatial_ref_attributes(grid: Grid) -> dict[str, Any]:
    """Return the CF grid mapping of a grid as rioxarray writes it.

    Its affine, in CRS units, is among it where ``y`` and ``x`` do not tell it (it is rotated, or has one row or
    column): rioxarray takes it before those, and so it is wrong of every second pixel and of means.
    """
    import rioxarray  # noqa: F401  (registers .rio)
    from affine import Affine

    written = xr.Dataset().rio.write_crs(grid.crs_wkt)
    if grid.is_rotated or 1 in grid.shape:
        written = written.rio.write_transform(Affine(*grid.transform))
    return {
        k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in written[cv.SPATIAL_REF].attrs.items()
    }


def grid_coordinates(grid: Grid) -> dict[str, xr.Variable]:
    """Return ``y`` (rows,), ``x`` (columns,) float64 of pixel centres and, with a CRS, ``spatial_ref`` () uint8.

    A rotated grid with a CRS has no ``y`` and ``x``: no row has one y, and tools would take indices for places.
    Without a CRS they are where the affine puts them, and index + 0.5 where there is none or it is rotated.
    """
    placed = {}
    named: list[dict[str, str]] = [{}, {}]
    if grid.is_georeferenced:
        placed[cv.SPATIAL_REF] = xr.Variable((), np.uint8(0), spatial_ref_attributes(grid))
        if grid.is_rotated:
            return placed
        named = _axes(str(grid.crs_wkt))
    elif grid.is_rotated or grid.transform == Grid.transform:
        named = [{cv.LONG_NAME: f"pixel centre, {axis}", cv.UNITS: "1"} for axis in ("row", "column")]
    return {
        dim: xr.Variable(dim, np.asarray(values, np.float64), {**about, "axis": dim.upper()})
        for dim, values, about in zip("yx", grid.coordinates(), named, strict=True)
    } | placed


def _axes(wkt: str) -> list[dict[str, str]]:
    """Return the CF name and unit of ``y`` and ``x`` in a CRS: its own unit, and nothing of a local one."""
    crs = parse_crs(wkt)
    if crs.is_geographic:
        names, units = ("latitude", "longitude"), ("degrees_north", "degrees_east")
    elif crs.is_projected:
        unit, metres = crs.linear_units_factor
        names, units = _PROJECTED, (("m", "m") if metres == 1 else (str(unit), str(unit)))
    else:
        return [{}, {}]
    return [{cv.STANDARD_NAME: n, cv.UNITS: u} for n, u in zip(names, units, strict=True)]


def value_attributes(about: Mapping[str, Any], representation: str) -> dict[str, Any]:
    """Return the attributes of values in dB or power: their units, representation, quantity and polarizations.

    The last two are those of ``about``. `Store.db`, `Store.power` and `open_stack` return values that have them.
    """
    kept = {k: about[k] for k in (cv.QUANTITY, cv.SAR_POLARIZATIONS) if k in about}
    units = "dB" if representation == cv.Representation.DB else "1"
    return {**kept, cv.REPRESENTATION: str(representation), cv.UNITS: units}


def handed_out(opened: xr.Dataset) -> xr.Dataset:
    """Return a dataset of (..., y, x) arrays as users get it; ``.rio`` is there, whatever was imported.

    CRS and transform stand in ``spatial_ref``, and nowhere else: attributes that say where a scene lies are wrong of
    a part of it. Of a grid that is not rotated rioxarray has the transform from ``y`` and ``x``, which follow every
    slice; one of a single row or column keeps it. Floats without a nodata value have NaN, which GDAL is told.
    """
    import rioxarray  # noqa: F401  (registers .rio)

    placed = ("spatial:", "proj:")
    attributes = {k: v for k, v in opened.attrs.items() if not str(k).startswith(placed)}
    out = opened.copy()
    out.attrs = {k: v for k, v in attributes.items() if k not in (cv.GCPS, cv.GCPS_CRS)}
    out.encoding = {}
    for name, variable in out.variables.items():
        variable.encoding = {k: v for k, v in variable.encoding.items() if k in _ENCODING}
        if name in out.coords:
            continue
        if cv.SPATIAL_REF in out.coords:
            variable.encoding[cv.GRID_MAPPING] = cv.SPATIAL_REF
        if variable.dtype.kind == "f" and cv.FILL_VALUE not in {**variable.attrs, **variable.encoding}:
            variable.encoding[cv.FILL_VALUE] = np.nan
    if (
        cv.SPATIAL_REF in out.coords
        and {"y", "x"} <= set(out.coords)
        and min(out.sizes["y"], out.sizes["x"]) > 1
    ):
        out[cv.SPATIAL_REF].attrs.pop(_GEO_TRANSFORM, None)
    return out
