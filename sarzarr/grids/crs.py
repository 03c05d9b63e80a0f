"""Coordinate reference systems: parsed, named, compared, transformed, and their turns.

A longitude is an angle: two positions that differ by a whole turn are the same ground, in whatever units.
"""

import math
from functools import lru_cache
from typing import Final

import numpy as np
import rasterio.warp
from rasterio.crs import CRS
from rasterio.errors import CRSError

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError

LONLAT: Final = "OGC:CRS84"
"""Longitude and latitude of WGS 84, in degrees."""


@lru_cache(maxsize=64)
def parse_crs(wkt: str) -> CRS:
    """Return the CRS that a text says: WKT, ``EPSG:32633``, PROJ; raises `InvalidInputError` where it says none."""
    try:
        return CRS.from_user_input(wkt)
    except (CRSError, ValueError) as error:  # ValueError: a code that is no number
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
    xs = turned(source, np.asarray(xs), near=0.0)  # PROJ refuses more than one and a half turns
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


@lru_cache(maxsize=64)
def turn_of(wkt: str | None) -> float | None:
    """Return a whole turn about the earth, in units of x: 360 for degrees; None where x is no longitude.

    It is one where meridians lie at equal steps of x at every latitude: in geographic and in cylindrical CRSs.

    >>> turn_of(crs_wkt("EPSG:4326")), turn_of(crs_wkt("EPSG:32660")), round(turn_of(crs_wkt("EPSG:3857")))
    (360.0, None, 40075017)
    """
    if wkt is None:
        return None
    crs = parse_crs(wkt)
    if crs.is_geographic:
        return round(2 * math.pi / float(crs.units_factor[1]), 9)
    lons, lats = np.meshgrid([-135.0, -45.0, 45.0, 135.0], [-50.0, 0.0, 50.0])
    xs, _ = transform_points(LONLAT, wkt, lons, lats)
    if not np.isfinite(xs).all():
        return None
    steps = np.diff(xs, axis=1)
    turn = 4 * float(np.median(steps))
    is_even = np.isclose(steps, turn / 4, rtol=1e-9) | np.isclose(steps, turn / 4 - turn, rtol=1e-9)
    return abs(turn) if turn and is_even.all() and np.ptp(xs, axis=0).max() < 1e-9 * abs(turn) else None


def turned(wkt: str | None, xs: Array, near: float) -> Array:
    """Return x (float64, any shape), each moved by whole turns to within half a turn of ``near``.

    Unchanged, to the last bit, where it is there already, the CRS has no turn or ``near`` is not finite.

    >>> turned(crs_wkt("EPSG:4326"), np.array([-109.5, 250.5, 20.0]), near=250.0)
    array([250.5, 250.5, 380. ])
    """
    turn = turn_of(wkt)
    if turn is None or not math.isfinite(near):
        return xs
    with np.errstate(invalid="ignore"):
        moved: Array = xs - turn * np.rint((xs - near) / turn)
    return np.where(np.isfinite(xs), moved, xs)


def first_turn(wkt: str | None, low: Array, high: Array, *, left: float, right: float) -> tuple[Array, Array]:
    """Return the least whole turns (float64) that bring spans ``low`` to ``high`` of x onto one, and whether any do.

    Where the CRS has no turn they are 0. Spans that only touch do not meet.
    """
    turn = turn_of(wkt)
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if turn is None:
        return np.zeros(low.shape), (low < right) & (high > left)
    turns = np.floor((left - high) / turn) + 1
    return turns, turns < (right - low) / turn


def turns_onto(wkt: str | None, own: tuple[float, float], other: tuple[float, float]) -> tuple[float, ...]:
    """Return the moves of x, whole turns, that bring a span (low, high) onto another: none, one or, at a seam, more.

    >>> turns_onto(crs_wkt("EPSG:4326"), (250.0, 251.0), (-110.0, -109.5))
    (-360.0,)
    >>> turns_onto(crs_wkt("EPSG:4326"), (-180.0, 180.0), (179.0, 181.0))
    (0.0, 360.0)
    """
    turns, meets = first_turn(wkt, np.array(own[0]), np.array(own[1]), left=other[0], right=other[1])
    if not meets:
        return ()
    turn = turn_of(wkt)
    if turn is None:
        return (0.0,)
    last = math.ceil((other[1] - own[0]) / turn)
    return tuple(k * turn for k in range(int(turns), last))
