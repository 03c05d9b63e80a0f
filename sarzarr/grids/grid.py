"""A grid: CRS, affine transform and shape; where pixels are on the ground.

Everything here is arithmetic on one lattice or between two lattices of the same CRS. Whether two CRSs
are the same, and where a pixel of one lies in another, is `sarzarr.grids.georeference`.
"""

import math
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError

Transform = tuple[float, float, float, float, float, float]
"""Affine order (a, b, c, d, e, f): ``x = a col + b row + c``, ``y = d col + e row + f``."""
WHOLE_PIXEL: Final = 1e-3
"""Pixels by which every corner of a grid may miss another's lattice and still lie on it."""
_EDGE: Final = 1e-6
"""Pixels by which a bound may overshoot an edge of the lattice through rounding, without a further pixel."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """CRS + transform + shape. The transform is in affine order, of the corner of pixel (0, 0)."""

    height: int
    """Rows."""
    width: int
    """Columns."""
    transform: Transform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    """``x = a col + b row + c``, ``y = d col + e row + f``, at pixel corners."""
    crs_wkt: str | None = None
    """WKT2 of the CRS; None where pixels are not tied to the ground by an affine."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InvalidInputError(f"a grid needs at least one pixel, got {self.height} x {self.width}.")
        if len(self.transform) != 6 or not all(math.isfinite(v) for v in self.transform):
            raise InvalidInputError(f"transform must be six finite numbers, got {self.transform}.")

    @classmethod
    def from_bounds(
        cls,
        *,
        x_min: float,
        y_min: float,
        x_max: float,
        y_max: float,
        pixel_size: float | tuple[float, float],
        crs_wkt: str | None,
        snap: bool = True,
    ) -> Self:
        """Return the smallest north-up grid that covers the bounds, which are in CRS units.

        ``pixel_size`` is width and height of a pixel in CRS units: one number where they are equal, or both.
        ``snap`` puts the edges on multiples of it: grids made so, of whatever bounds, are windows of one lattice.
        False anchors the grid at (x_min, y_max); its shape is then ``ceil(extent / pixel_size)``.

        Raises `InvalidInputError` where the bounds are empty or not finite, or a pixel size is not positive.

        >>> grid = Grid.from_bounds(x_min=3, y_min=12, x_max=58, y_max=41, pixel_size=10, crs_wkt=None)
        >>> grid.shape, grid.bbox
        ((4, 6), (0.0, 10.0, 60.0, 50.0))
        """
        dx, dy = np.broadcast_to(pixel_size, 2).astype(float).tolist()
        bounds = (x_min, y_min, x_max, y_max)
        if not all(math.isfinite(v) for v in bounds) or x_min >= x_max or y_min >= y_max:
            raise InvalidInputError(
                f"expected finite bounds with x_min < x_max and y_min < y_max, got {bounds}. "
                "Give them in the units of the grid's CRS."
            )
        if not (0 < dx < math.inf and 0 < dy < math.inf):
            raise InvalidInputError(f"expected a positive pixel size, got {dx} x {dy}. Give it in CRS units.")
        if snap:
            left, top = math.floor(x_min / dx + _EDGE), math.ceil(y_max / dy - _EDGE)
            right, bottom = math.ceil(x_max / dx - _EDGE), math.floor(y_min / dy + _EDGE)
            origin, shape = (left * dx, top * dy), (top - bottom, right - left)
        else:
            origin = (float(x_min), float(y_max))
            shape = (math.ceil((y_max - y_min) / dy - _EDGE), math.ceil((x_max - x_min) / dx - _EDGE))
        transform = (dx, 0.0, origin[0], 0.0, -dy, origin[1])
        return cls(height=max(shape[0], 1), width=max(shape[1], 1), transform=transform, crs_wkt=crs_wkt)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.height, self.width

    @property
    def is_georeferenced(self) -> bool:
        """Whether a CRS ties the pixels to the ground."""
        return self.crs_wkt is not None

    @property
    def is_rotated(self) -> bool:
        """Whether rows and columns are not the axes of the CRS."""
        return self.transform[1] != 0.0 or self.transform[3] != 0.0

    @property
    def pixel_size(self) -> tuple[float, float]:
        """(x, y) size of a pixel in CRS units, both positive."""
        a, b, _, d, e, _ = self.transform
        return math.hypot(a, d), math.hypot(b, e)

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """(x, y) of the outer corners: upper left, upper right, lower right, lower left."""
        a, b, c, d, e, f = self.transform
        pixels = ((0, 0), (0, self.width), (self.height, self.width), (self.height, 0))
        return tuple((a * col + b * row + c, d * col + e * row + f) for row, col in pixels)

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """(x_min, y_min, x_max, y_max) of the outer corners, in CRS units."""
        xs, ys = zip(*self.corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def coordinates(self) -> tuple[Array, Array]:
        """Return (y, x) of pixel centres, float64, to the bit as rioxarray has them; index + 0.5 of a rotated grid.

        Coordinates that differ in their last bit are not joined by xarray: rows would be lost in silence.
        """
        a, _, c, _, e, f = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0) if self.is_rotated else self.transform
        return (0.5 * e + f) + e * np.arange(self.height), (0.5 * a + c) + a * np.arange(self.width)

    @property
    def inverse(self) -> Transform:
        """The transform from CRS units to pixels: ``col = a x + b y + c``, ``row = d x + e y + f``.

        Raises `InvalidInputError` where rows and columns are parallel, so that there is none.
        """
        a, b, c, d, e, f = self.transform
        det = a * e - b * d
        if det == 0 or not math.isfinite(1.0 / det):
            raise InvalidInputError(
                f"expected a transform whose rows and columns are not parallel, got {self.transform}. "
                "Georeference the raster again."
            )
        if not self.is_rotated:  # in one division each, as GDAL does: the last bit is the same
            return 1.0 / a, 0.0, -c / a, 0.0, 1.0 / e, -f / e
        inv = 1.0 / det
        return e * inv, -b * inv, (b * f - c * e) * inv, -d * inv, a * inv, (c * d - a * f) * inv

    def to_xy(self, rows: Array, cols: Array) -> tuple[Array, Array]:
        """Return (x, y) in CRS units of pixel positions (0, 0 is the outer corner). Inverse: `to_pixels`."""
        a, b, c, d, e, f = self.transform
        return a * cols + b * rows + c, d * cols + e * rows + f

    def to_pixels(self, xs: Array, ys: Array) -> tuple[Array, Array]:
        """Return (rows, cols), fractional, of positions in CRS units. Inverse: `to_xy`."""
        a, b, c, d, e, f = self.inverse
        return d * xs + e * ys + f, a * xs + b * ys + c

    def window(self, *, row: int, col: int, height: int, width: int) -> Self:
        """Return the grid of a pixel window; it may reach beyond this grid on any side.

        >>> grid = Grid(height=9, width=9, transform=(10, 0, 500, 0, -10, 900))
        >>> grid.window(row=2, col=-1, height=3, width=4)
        Grid(height=3, width=4, transform=(10, 0, 490.0, 0, -10, 880.0), crs_wkt=None)
        """
        a, b, _, d, e, _ = self.transform
        xs, ys = self.to_xy(np.array([row]), np.array([col]))
        return replace(self, height=height, width=width, transform=(a, b, float(xs[0]), d, e, float(ys[0])))

    def whole_pixel_offset(self, other: "Grid", *, tolerance: float = WHOLE_PIXEL) -> tuple[int, int] | None:
        """Return (row, col) in this grid of the other's pixel (0, 0), where both share one lattice.

        They do where all four corners of ``other``, taken to be in the same CRS, are within ``tolerance`` pixels
        of one whole-pixel offset: pixel size and rotation are then the same too. None where they do not.

        >>> ten = Grid(height=5, width=5, transform=(10, 0, 500, 0, -10, 900))
        >>> ten.whole_pixel_offset(Grid(height=9, width=9, transform=(10, 0, 480, 0, -10, 910)))
        (-1, -2)
        >>> ten.whole_pixel_offset(Grid(height=9, width=9, transform=(10, 0, 485, 0, -10, 910))) is None
        True
        """
        xs, ys = (np.array(v) for v in zip(*other.corners, strict=True))
        rows, cols = self.to_pixels(xs, ys)
        rows -= np.array([0, 0, other.height, other.height])
        cols -= np.array([0, other.width, other.width, 0])
        row, col = round(float(rows[0])), round(float(cols[0]))
        off = max(np.abs(rows - row).max(), np.abs(cols - col).max())
        return (row, col) if off <= tolerance else None

    def aligned_to(self, other: "Grid") -> Self:
        """Return the smallest grid of the other's pixels that covers this one; both are taken to be in one CRS.

        >>> lattice = Grid(height=1, width=1, transform=(20, 0, 0, 0, -20, 0))
        >>> Grid(height=3, width=3, transform=(10, 0, 15, 0, -10, 95)).aligned_to(lattice).bbox
        (0.0, 60.0, 60.0, 100.0)
        """
        xs, ys = (np.array(v) for v in zip(*self.corners, strict=True))
        rows, cols = other.to_pixels(xs, ys)
        row, col = math.floor(rows.min() + _EDGE), math.floor(cols.min() + _EDGE)
        height, width = math.ceil(rows.max() - _EDGE) - row, math.ceil(cols.max() - _EDGE) - col
        lattice = other.window(row=row, col=col, height=max(height, 1), width=max(width, 1))
        return replace(self, height=lattice.height, width=lattice.width, transform=lattice.transform)
