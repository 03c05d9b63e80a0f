"""A grid: CRS, affine transform and shape; where pixels are on the ground."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sarzarr.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class Grid:
    """CRS + transform + shape. The transform is in affine order, of the corner of pixel (0, 0)."""

    height: int
    """Rows."""
    width: int
    """Columns."""
    transform: tuple[float, float, float, float, float, float] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    """``x = a col + b row + c``, ``y = d col + e row + f``, at pixel corners."""
    crs_wkt: str | None = None
    """WKT2 of the CRS; None where pixels are not tied to the ground by an affine."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InvalidInputError(f"a grid needs at least one pixel, got {self.height} x {self.width}.")
        if len(self.transform) != 6 or not all(math.isfinite(v) for v in self.transform):
            raise InvalidInputError(f"transform must be six finite numbers, got {self.transform}.")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.height, self.width

    @property
    def is_georeferenced(self) -> bool:
        """Whether a CRS ties the transform to the ground."""
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
        at = ((0, 0), (0, self.width), (self.height, self.width), (self.height, 0))
        return tuple((a * col + b * row + c, d * col + e * row + f) for row, col in at)

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """(x_min, y_min, x_max, y_max) of the outer corners, in CRS units."""
        xs, ys = zip(*self.corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def coordinates(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return (y, x) of pixel centres, float64; index + 0.5 where there is no plain affine."""
        rows, cols = np.arange(self.height) + 0.5, np.arange(self.width) + 0.5
        if not self.is_georeferenced or self.is_rotated:
            return rows, cols
        a, _, c, _, e, f = self.transform
        return f + e * rows, c + a * cols
