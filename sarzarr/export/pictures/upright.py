"""The way a scene lies: the turn that draws it upright, metres of a pixel on the ground, and north."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import UnsupportedRasterError
from sarzarr.grids.crs import LONLAT
from sarzarr.grids.georeference import Georeference, project
from sarzarr.pixels.turns import COLUMNS, ROWS, TRANSPOSE

_AXIS_M: Final = 6_378_137.0
_E2: Final = 0.00669437999014
"""Semi-major axis in metres, and squared eccentricity, of WGS 84."""
POLE: Final = 89.0
"""Degrees of latitude beyond which east is no direction that a picture has."""
NORTH: Final = 3.0
"""Degrees by which north may miss the upper edge before an arrow tells it."""


@dataclass(frozen=True, kw_only=True)
class Upright:
    """The way a scene is drawn: upright, to scale, or as its pixels lie."""

    turn: int = 0
    """The operation of `sarzarr.pixels.turns` that brings its pixels upright."""
    metres: float = math.nan
    """Metres on the ground of a column, as drawn, in its middle; NaN where nothing ties pixels to the ground."""
    aspect: float = 1.0
    """Height of a pixel on the ground by its width, as drawn."""
    north: float = math.nan
    """Degrees from the upper edge to north, clockwise, as drawn; NaN as above."""
    words: str = ""
    """How its file lies, where it is not north-up."""


def upright(place: Georeference) -> Upright:
    """Return how a scene is drawn: mirrored where its affine is, turned where it is rotated or placed by GCPs.

    Lengths are those of WGS 84 in the middle of the scene, whatever the units of its CRS: of degrees they are those
    at its latitude, of a projection what its scale is there. An affine along the axes of its CRS keeps them; others
    get the flips and quarter turns that bring north nearest to the upper edge, and east to the right.
    """
    ground = _metres_per_pixel(place)
    if place.grid.is_georeferenced and not place.grid.is_rotated:
        turn = (COLUMNS if place.grid.transform[0] < 0 else 0) | (ROWS if place.grid.transform[4] > 0 else 0)
    elif ground is None:
        return Upright(words="pixels as stored, not placed on the ground")
    else:
        turn = max(range(8), key=lambda operation: _score(_turned(ground, operation)))
    flips = {0: "", COLUMNS: "mirrored", ROWS: "south up", COLUMNS | ROWS: "upside down"}
    lies = flips.get(turn, "turned a quarter")
    kind = "placed by control points" if place.uses_gcps else "rotated" if place.grid.is_rotated else ""
    words = ", ".join(filter(None, (kind, f"stored {lies}, drawn upright" if lies else "")))
    if ground is None:
        return Upright(turn=turn, words=words)
    (right, down) = _turned(ground, turn).T
    wide, high = math.hypot(*right), math.hypot(*down)
    across, along = np.linalg.solve(np.stack([right, down], axis=1), [0.0, 1.0])
    return Upright(
        turn=turn,
        metres=wide,
        aspect=min(max(high / wide, 0.2), 5.0),
        north=math.degrees(math.atan2(across * wide, -along * high)),
        words=words,
    )


def _metres_per_pixel(place: Georeference) -> Array | None:
    """Return (2, 2) metres to the east and north of a column and a row in the middle; None where not known."""
    if not place.is_located:
        return None
    height, width = place.grid.shape
    rows = height / 2 + height / 16 * np.array([0, 0, -1, 1])
    cols = width / 2 + width / 16 * np.array([-1, 1, 0, 0])
    try:
        lon, lat = project(place, LONLAT, rows, cols)
    except UnsupportedRasterError:  # control points that contradict each other place nothing
        return None
    middle = math.radians(float(np.mean(lat)))
    if not np.isfinite([lon, lat]).all() or abs(math.degrees(middle)) > POLE:
        return None
    curve = 1 - _E2 * math.sin(middle) ** 2
    east = np.radians(lon) * _AXIS_M / math.sqrt(curve) * math.cos(middle)
    north = np.radians(lat) * _AXIS_M * (1 - _E2) / curve**1.5
    steps = np.array([width / 8, height / 8])
    ground: Array = np.array([(v[1] - v[0], v[3] - v[2]) for v in (east, north)]) / steps
    return ground if abs(np.linalg.det(ground)) > 0 else None


def _turned(ground: Array, operation: int) -> Array:
    """Return (2, 2) metres to the east and north of a column and a row of pixels that are turned."""
    right, down = ground.T[::-1] if operation & TRANSPOSE else ground.T
    right = -right if operation & COLUMNS else right
    return np.stack([right, -down if operation & ROWS else down], axis=1)


def _score(ground: Array) -> float:
    right, down = ground.T
    return float(right[0] / math.hypot(*right) - down[1] / math.hypot(*down))


def draw_scale(axis: Any, lies: Upright, width: int, height: int) -> None:
    """Draw a bar of a round length below a picture (rows, columns); ticks in pixels where no length is known.

    An arrow tells north where it is not up.
    """
    if not math.isfinite(lies.metres):
        for which, size in (("x", width), ("y", height)):
            axis.tick_params(axis=which, labelsize=7, length=2)
            getattr(axis, f"set_{which}ticks")([0, size // 2, size])
        axis.set_xlabel("pixels", fontsize=7, labelpad=1)
        return
    from matplotlib.transforms import offset_copy

    metres = round_length(width * lies.metres * 0.3)
    across = metres / lies.metres
    below = offset_copy(axis.get_xaxis_transform(), fig=axis.figure, y=-6, units="points")
    axis.plot(
        [0, across],
        [0, 0],
        color="black",
        linewidth=2.5,
        solid_capstyle="butt",
        transform=below,
        clip_on=False,
    )
    text = offset_copy(below, fig=axis.figure, x=4, units="points")
    axis.text(across, 0, length_text(metres), fontsize=8, va="center", transform=text)
    axis.set(xticks=[], yticks=[])
    if abs(lies.north) > NORTH:
        _draw_north(axis, math.radians(lies.north))


def _draw_north(axis: Any, angle: float) -> None:
    """Draw an arrow to north in the upper right corner, ``angle`` radians clockwise from up."""
    from matplotlib.text import OffsetFrom

    corner = OffsetFrom(axis, (1, 1), unit="points")
    way = np.array([math.sin(angle), math.cos(angle)])
    style = {"color": "#ffb000", "fontsize": 9, "fontweight": "bold", "ha": "center", "va": "center"}
    axis.annotate(
        "N", xy=tuple(-22 - 16 * way), xytext=tuple(-22 + 12 * way), xycoords=corner, textcoords=corner,
        arrowprops={"arrowstyle": "-", "color": "#ffb000", "linewidth": 1.5}, **style,
    )  # fmt: skip


def round_length(metres: float) -> float:
    """Return the greatest length of 1, 2 or 5 times a power of ten metres that is at most as long.

    >>> round_length(1536), round_length(0.7), round_length(50)
    (1000.0, 0.5, 50.0)
    """
    power = 10.0 ** math.floor(math.log10(metres))
    return float(
        max((step * power for step in (1, 2, 5) if step * power <= metres * (1 + 1e-9)), default=power)
    )


def length_text(metres: float) -> str:
    """Return a length for people.

    >>> length_text(20000), length_text(500), length_text(0.5)
    ('20 km', '500 m', '0.5 m')
    """
    return f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
