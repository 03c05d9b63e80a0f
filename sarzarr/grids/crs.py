"""Coordinate reference systems: parsed, named, compared, transformed."""

from functools import lru_cache

import numpy as np
import rasterio.warp
from rasterio.crs import CRS
from rasterio.errors import CRSError

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError


@lru_cache(maxsize=64)
def parse_crs(wkt: str) -> CRS:
    """Return the CRS that a text says: WKT, ``EPSG:32633``, PROJ; raises `InvalidInputError` where it says none."""
    try:
        return CRS.from_user_input(wkt)
    except CRSError as error:
        raise InvalidInputError(
            f"expected a CRS, got {wkt[:80]!r}. Give a code such as EPSG:32633, or WKT."
        ) from error


def crs_wkt(crs: str) -> str:
    """Return the WKT2 of a CRS given as a code (``EPSG:32633``), PROJ string or WKT; raises as `parse_crs` does.

    >>> crs_wkt("EPSG:32633")[:30]
    'PROJCRS["WGS 84 / UTM zone 33N'
    """
    return str(parse_crs(crs).to_wkt(version="WKT2_2019"))


def crs_name(wkt: str | None) -> str:
    """Return ``EPSG:32633`` for a CRS, its WKT's name where it has no code, ``no CRS`` for None."""
    if wkt is None:
        return "no CRS"
    crs = parse_crs(wkt)
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else wkt.split('"')[1] if '"' in wkt else str(crs)


def is_same_crs(one: str | None, other: str | None) -> bool:
    """Whether two WKTs describe one CRS, however they spell it; None is the same as None alone."""
    if one is None or other is None:
        return one is other
    return one == other or bool(parse_crs(one) == parse_crs(other))


def transform_points(source: str, target: str, xs: Array, ys: Array) -> tuple[Array, Array]:
    """Return positions in another CRS, float64, shapes kept; Inf where a position has none there."""
    if is_same_crs(source, target):
        return np.array(xs, np.float64), np.array(ys, np.float64)
    pairs = _transformed(parse_crs(source), parse_crs(target), np.ravel(xs), np.ravel(ys))
    return pairs[0].reshape(np.shape(xs)), pairs[1].reshape(np.shape(ys))


def _transformed(source: CRS, target: CRS, xs: Array, ys: Array) -> Array:
    """Return a (2, n) array; rasterio fails for all where one point fails, hence the halving."""
    try:
        return np.array(rasterio.warp.transform(source, target, xs, ys)[:2], np.float64)
    except Exception:  # rasterio raises GDAL's error as a class that it does not export
        if xs.size <= 1:
            return np.full((2, xs.size), np.inf)
    halves = zip(np.array_split(xs, 2), np.array_split(ys, 2), strict=True)
    return np.concatenate([_transformed(source, target, *half) for half in halves], axis=1)
