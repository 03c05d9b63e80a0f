import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarzarr.errors import InvalidInputError
from sarzarr.grids.grid import Grid

SIZES = st.sampled_from([10.0, 20.0, 4.5, 0.3, 1e-4])
INTS = st.integers(-3000, 3000)


def ten(height: int = 50, width: int = 40, x: float = 500_000.0, y: float = 5_000_000.0) -> Grid:
    return Grid(height=height, width=width, transform=(10.0, 0.0, x, 0.0, -10.0, y), crs_wkt="32632")


@st.composite
def rotated(draw: st.DrawFn) -> Grid:
    """A grid with any rotation, mirrored or not, and pixels of any shape."""
    angle = draw(st.floats(0, 2 * math.pi))
    dx, dy = draw(SIZES), draw(SIZES) * draw(st.sampled_from([-1, 1]))
    turned = (dx * math.cos(angle), -dy * math.sin(angle), dx * math.sin(angle), dy * math.cos(angle))
    return Grid(
        height=draw(st.integers(1, 3000)),
        width=draw(st.integers(1, 3000)),
        transform=(turned[0], turned[1], draw(INTS) * dx, turned[2], turned[3], draw(INTS) * dx),
    )


# ---------------------------------------------------------------- from bounds
@given(SIZES, INTS, INTS, st.floats(0.01, 400), st.floats(0.01, 400), st.booleans())
def test_a_grid_from_bounds_covers_them_and_no_more(
    size: float, i: int, j: int, w: float, h: float, snap: bool
) -> None:
    bounds = {"x_min": i * size * 0.73, "y_min": j * size * 0.91}
    bounds |= {"x_max": bounds["x_min"] + w * size, "y_max": bounds["y_min"] + h * size}
    grid = Grid.from_bounds(**bounds, pixel_size=size, crs_wkt=None, snap=snap)
    slack = 2e-6 * size
    left, bottom, right, top = grid.bbox
    assert left <= bounds["x_min"] + slack
    assert bottom <= bounds["y_min"] + slack
    assert right >= bounds["x_max"] - slack
    assert top >= bounds["y_max"] - slack
    # a row or a column less would not cover: what sticks out is less than a pixel on each side
    assert bounds["x_min"] - left < size * 1.00001
    assert right - bounds["x_max"] < size * 1.00001
    assert bounds["y_min"] - bottom < size * 1.00001
    assert top - bounds["y_max"] < size * 1.00001


@given(SIZES, INTS, INTS, INTS, INTS)
def test_snapped_grids_are_windows_of_one_lattice(size: float, a: int, b: int, c: int, d: int) -> None:
    one, other = (
        Grid.from_bounds(
            x_min=x * 0.37 * size,
            y_min=y * 0.61 * size,
            x_max=(x * 0.37 + 7.3) * size,
            y_max=(y * 0.61 + 4.9) * size,
            pixel_size=size,
            crs_wkt=None,
        )
        for x, y in ((a, b), (c, d))
    )
    assert one.whole_pixel_offset(other) is not None


def test_an_edge_on_the_lattice_gains_no_pixel() -> None:
    tenth = Grid.from_bounds(x_min=0.1, y_min=0.2, x_max=0.7, y_max=0.9, pixel_size=0.1, crs_wkt=None)
    assert tenth.shape == (7, 6)  # 0.7 / 0.1 is 6.999..., 0.1 + 0.2 is 0.3000...04


def test_without_snapping_it_is_anchored_and_its_shape_is_the_ceiling() -> None:
    grid = Grid.from_bounds(
        x_min=3.0, y_min=12.0, x_max=58.0, y_max=41.0, pixel_size=10, crs_wkt=None, snap=False
    )
    assert grid.transform == (10.0, 0.0, 3.0, 0.0, -10.0, 41.0)
    assert grid.shape == (math.ceil(29 / 10), math.ceil(55 / 10))


def test_pixels_need_not_be_square() -> None:
    grid = Grid.from_bounds(x_min=0, y_min=0, x_max=60, y_max=60, pixel_size=(20, 15), crs_wkt=None)
    assert grid.shape == (4, 3)
    assert grid.pixel_size == (20.0, 15.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_max": 0.0}, "expected finite bounds"),
        ({"y_min": math.nan}, "expected finite bounds"),
        ({"y_max": math.inf}, "expected finite bounds"),
        ({"pixel_size": 0.0}, "expected a positive pixel size"),
        ({"pixel_size": -10.0}, "expected a positive pixel size"),
        ({"pixel_size": math.nan}, "expected a positive pixel size"),
    ],
)
def test_impossible_bounds_are_refused(change: dict[str, float], message: str) -> None:
    good = {"x_min": 0.0, "y_min": 0.0, "x_max": 100.0, "y_max": 100.0, "pixel_size": 10.0}
    with pytest.raises(InvalidInputError, match=message):
        Grid.from_bounds(**(good | change), crs_wkt=None)  # type: ignore[arg-type]


# ---------------------------------------------------------------- pixels and CRS units
@given(rotated(), st.floats(-10, 5000), st.floats(-10, 5000))
def test_to_pixels_undoes_to_xy(grid: Grid, row: float, col: float) -> None:
    rows, cols = grid.to_pixels(*grid.to_xy(np.array([row]), np.array([col])))
    assert abs(rows[0] - row) < 1e-6
    assert abs(cols[0] - col) < 1e-6


def test_parallel_rows_and_columns_have_no_inverse() -> None:
    grid = Grid(height=2, width=2, transform=(1, 2, 0, 2, 4, 0))
    with pytest.raises(InvalidInputError, match="not parallel"):
        _ = grid.inverse


# ---------------------------------------------------------------- one lattice
@given(rotated(), INTS, INTS, st.integers(1, 3000), st.integers(1, 3000))
def test_a_window_is_at_its_own_offset(grid: Grid, row: int, col: int, height: int, width: int) -> None:
    window = grid.window(row=row, col=col, height=height, width=width)
    assert window.shape == (height, width)
    assert grid.whole_pixel_offset(window) == (row, col)
    assert window.whole_pixel_offset(grid) == (-row, -col)


@given(st.floats(0.0011, 0.4989), st.booleans())
def test_a_fraction_of_a_pixel_is_no_whole_offset(fraction: float, downwards: bool) -> None:
    dx, dy = (0.0, 10 * fraction) if downwards else (10 * fraction, 0.0)
    assert ten().whole_pixel_offset(ten(x=500_000 + dx, y=5_000_000 + dy)) is None
    assert ten().whole_pixel_offset(ten(x=500_000 - dx, y=5_000_000 - dy)) is None


def test_a_thousandth_of_a_pixel_is_let_pass() -> None:
    assert ten().whole_pixel_offset(ten(x=500_020.009, y=4_999_990.009)) == (1, 2)


@pytest.mark.parametrize("size", [10.001, 9.999, 20.0, 5.0])
def test_another_pixel_size_is_another_lattice(size: float) -> None:
    """All four corners count: the first one alone would let a slightly different pixel size pass."""
    other = Grid(height=50, width=40, transform=(size, 0, 500_000, 0, -size, 5_000_000))
    assert ten().whole_pixel_offset(other) is None


def test_a_pixel_size_that_differs_by_less_than_the_tolerance_over_the_whole_grid_passes() -> None:
    other = Grid(height=50, width=40, transform=(10.00001, 0, 500_000, 0, -10.00001, 5_000_000))
    assert ten().whole_pixel_offset(other) == (0, 0)
    wider = Grid(height=50, width=2000, transform=other.transform)
    assert ten().whole_pixel_offset(wider) is None


def test_the_old_rule_of_a_thousandth_of_a_degree_does_not_hold() -> None:
    """0.001 degrees is 6 % of 0.0167 degrees, and says nothing of where the pixels begin."""
    fine = Grid(height=60, width=60, transform=(0.0167, 0, 10, 0, -0.0167, 50))
    coarse = Grid(height=60, width=60, transform=(0.0176, 0, 10, 0, -0.0176, 50))
    shifted = Grid(height=60, width=60, transform=(0.0167, 0, 10.005, 0, -0.0167, 50))
    assert fine.whole_pixel_offset(coarse) is None
    assert fine.whole_pixel_offset(shifted) is None


def test_a_rotated_lattice_is_not_its_bounding_boxs() -> None:
    turned = Grid(height=50, width=40, transform=(8, 6, 500_000, 6, -8, 5_000_000))
    assert turned.pixel_size == ten().pixel_size
    assert ten().whole_pixel_offset(turned) is None
    assert turned.whole_pixel_offset(turned.window(row=3, col=4, height=2, width=2)) == (3, 4)


@given(SIZES, st.floats(-90, 90), st.floats(-90, 90), st.integers(1, 90), st.integers(1, 90))
def test_an_aligned_grid_covers_and_lies_on_the_lattice(
    size: float, dx: float, dy: float, height: int, width: int
) -> None:
    lattice = ten()
    grid = Grid(height=height, width=width, transform=(size, 0, 500_000 + dx, 0, -size, 5_000_000 + dy))
    aligned = grid.aligned_to(lattice)
    assert lattice.whole_pixel_offset(aligned) is not None
    for inner, outer, sign in zip(grid.bbox, aligned.bbox, (1, 1, -1, -1), strict=True):
        assert -1e-4 < sign * (inner - outer) < 10.0001


def test_a_grid_aligned_to_itself_is_itself() -> None:
    assert ten().aligned_to(ten()) == ten()
