"""Rotated boxes: four corners and (cx, cy, w, h, angle) are the same box, however it is cut, turned or written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.errors import InvalidInputError
from sarzarr.pixels.rotated import (
    apply_to_points,
    apply_to_rotated,
    corners_of_boxes,
    corners_of_rotated,
    least_rectangle,
    ring_areas,
    rotated_boxes,
    shared_areas,
    simple_rings,
)
from sarzarr.pixels.turns import apply_to_boxes, inverse
from sarzarr.reader.augment import RandomHorizontalFlip, RandomVerticalFlip
from sarzarr.store.boxes import (
    Boxes,
    Drawn,
    Windows,
    boxes_in_windows,
    check_boxes,
    rotated_in_windows,
    stored_rotated,
)

ANGLES = st.one_of(
    st.floats(-np.pi / 2, np.pi / 2),
    st.sampled_from([-np.pi / 2, 0.0, np.pi / 4, np.nextafter(np.pi / 2, 0)]),
)
SIDES = st.tuples(st.floats(0.5, 80), st.floats(0.5, 80))
BOXES = st.tuples(st.floats(-50, 200), st.floats(-50, 200), SIDES, ANGLES)


def box(drawn):
    x, y, sides, angle = drawn
    return np.array([[x, y, max(sides), min(sides), angle]])


def same_ring(one, other, atol=1e-3):
    """Whether two lists of corners (4, 2) have the same corners, in any order."""
    far = np.abs(one[:, None] - other[None]).max(axis=-1)
    return bool((far.min(axis=0) <= atol).all() and (far.min(axis=1) <= atol).all())


# ------------------------------------------------------------------ numbers
@given(drawn=BOXES)
def test_a_rectangle_comes_back_from_its_corners(drawn):
    given_box = box(drawn)
    corners = corners_of_rotated(given_box)
    back = rotated_boxes(corners)
    assert back[0, 2] >= back[0, 3]
    assert -np.pi / 2 <= back[0, 4] < np.pi / 2
    assert same_ring(corners_of_rotated(back)[0], corners[0], 1e-6)
    as_stored = stored_rotated(corners)
    assert as_stored.dtype == np.float32
    assert (np.abs(as_stored[:, 4].astype(np.float64)) < np.pi / 2).all()
    assert same_ring(corners_of_rotated(as_stored)[0], corners[0], 1e-3)
    turned = corners[:, ::-1]  # the other way round, and from another corner
    assert same_ring(corners_of_rotated(rotated_boxes(turned))[0], corners[0], 1e-6)


def test_the_angle_turns_from_columns_to_rows():
    """As MMRotate's le90, and as a ``robndbox``: a box that falls to the right has a positive angle."""
    falls = np.array([[[10, 10], [30, 30], [29, 31], [9, 11]]], float)
    ((x, y, w, h, angle),) = rotated_boxes(falls)
    np.testing.assert_allclose((x, y, w, h, angle), (19.5, 20.5, 20 * 2**0.5, 2**0.5, np.pi / 4), atol=1e-9)
    upright = rotated_boxes(corners_of_boxes(np.array([[0.0, 0, 10, 4], [0, 0, 4, 10]])))
    np.testing.assert_allclose(upright, [[5, 2, 10, 4, 0], [2, 5, 10, 4, -np.pi / 2]])
    assert rotated_boxes(np.zeros((0, 4, 2))).shape == (0, 5)


@given(
    points=st.lists(st.tuples(st.floats(-99, 99), st.floats(-99, 99)), min_size=4, max_size=90, unique=True)
)
def test_the_least_rectangle_is_shapelys(points):
    shapely = pytest.importorskip("shapely")
    given_points = np.round(points, 3)
    right = shapely.minimum_rotated_rectangle(shapely.MultiPoint(given_points)).area
    ring = least_rectangle(given_points)
    if len(given_points) == 4:
        ring = corners_of_rotated(rotated_boxes(ring[None]))[0]
    assert abs(ring_areas(ring[None])[0] - right) <= 1e-6 * max(right, 1)
    inside = shapely.Polygon(ring).buffer(1e-5)
    assert right < 1e-6 or inside.covers(shapely.MultiPoint(given_points))


@settings(max_examples=40)
@given(seed=st.integers(0, 2**20))
def test_shared_areas_are_shapelys(seed):
    """Of any four corners, those whose ring crosses itself too."""
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(seed)
    corners = rng.integers(-9, 30, (40, 4, 2)).astype(float)
    frames = np.sort(rng.integers(0, 25, (40, 2, 2)), axis=1).reshape(40, 4).astype(float)
    rings = shapely.make_valid(shapely.polygons(simple_rings(corners)))
    right = shapely.area(shapely.intersection(rings, shapely.box(*frames.T)))
    np.testing.assert_allclose(shared_areas(corners, frames), right, atol=1e-9)


# ------------------------------------------------------------------ turned
@given(drawn=BOXES, operation=st.integers(0, 7), shape=st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_turning_a_rotated_box_is_turning_its_polygon(drawn, operation, shape):
    for dtype, atol in ((np.float64, 1e-9), (np.float32, 2e-4)):
        given_box = box(drawn).astype(dtype)
        turned = apply_to_rotated(operation, given_box, shape=shape)
        assert turned.dtype == dtype
        assert -np.pi / 2 <= turned[0, 4] < np.pi / 2
        right = apply_to_points(operation, corners_of_rotated(given_box), shape=shape)
        assert same_ring(corners_of_rotated(turned)[0], right[0], atol)
        after = shape[::-1] if operation & 4 else shape
        back = apply_to_rotated(inverse(operation), turned, shape=after)
        assert same_ring(corners_of_rotated(back)[0], corners_of_rotated(given_box)[0], 2 * atol)


@given(operation=st.integers(0, 7), rows=st.integers(20, 90), cols=st.integers(20, 90))
def test_upright_boxes_turn_as_upright_ones(operation, rows, cols):
    boxes = np.array([[1, 2, 9, 5], [3, 3, 6, 17]], np.float32)
    turned = apply_to_rotated(operation, stored_rotated(corners_of_boxes(boxes)), shape=(rows, cols))
    right = corners_of_boxes(apply_to_boxes(operation, boxes, shape=(rows, cols)))
    assert all(same_ring(a, b) for a, b in zip(corners_of_rotated(turned), right, strict=True))


@pytest.mark.parametrize("flip", [RandomHorizontalFlip(1.0), RandomVerticalFlip(1.0)])
@given(drawn=BOXES)
def test_flips_of_one_picture_turn_rotated_boxes(flip, drawn):
    given_box = stored_rotated(corners_of_rotated(box(drawn)))
    operation = 1 if isinstance(flip, RandomHorizontalFlip) else 2
    _, target = flip(np.zeros((40, 60), np.float32), {"boxes": given_box})
    right = apply_to_points(operation, corners_of_rotated(given_box), shape=(40, 60))
    assert same_ring(corners_of_rotated(target["boxes"])[0], right[0])


# ------------------------------------------------------------------ cut
@settings(max_examples=30)
@given(seed=st.integers(0, 2**20), size=st.integers(4, 60), min_visible=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_a_window_shows_whole_boxes_by_the_area_of_their_polygon(seed, size, min_visible):
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(seed)
    sides = np.sort(rng.uniform(1, 40, (30, 2)), axis=1)[:, ::-1]
    drawn = np.concatenate([rng.uniform(0, 80, (30, 2)), sides, rng.uniform(-1.5, 1.5, (30, 1))], axis=1)
    corners, owner = corners_of_rotated(drawn).astype(np.float32), rng.integers(0, 3, 30)
    windows = Windows(
        owner=rng.integers(-1, 3, 8), row=rng.integers(0, 60, 8), col=rng.integers(0, 60, 8), size=size
    )
    found = rotated_in_windows(corners, owner, windows, min_visible=min_visible)
    for i in range(8):
        left, top = int(windows.col[i]), int(windows.row[i])
        frame = shapely.box(left, top, left + size, top + size)
        seen = {}
        for b in np.flatnonzero(owner == windows.owner[i]).tolist():
            polygon = shapely.Polygon(corners[b].astype(float))
            share = polygon.intersection(frame).area / polygon.area
            if share > 0 and share >= min_visible - 1e-9:
                seen[b] = share
        at = found.of(i)
        assert found.source[at].tolist() == sorted(seen)
        np.testing.assert_allclose(found.visible[at], [seen[b] for b in sorted(seen)], atol=1e-6)
        rings = corners_of_rotated(found.boxes[at]) + np.array([left, top])
        assert all(same_ring(ring, corners[b], 5e-3) for ring, b in zip(rings, sorted(seen), strict=True))
    # any of upright boxes is shown by the same windows either way
    hulls = np.concatenate([np.maximum(corners.min(1), 0), np.maximum(corners.max(1), 1)], axis=1)
    own = rotated_in_windows(corners_of_boxes(hulls), owner, windows, min_visible=0)
    right = boxes_in_windows(hulls, owner, windows, min_visible=0)
    assert own.source.tolist() == right.source.tolist()


# ------------------------------------------------------------------ checked
def test_rotated_boxes_are_checked_by_their_polygon():
    """A hull may lie in a picture whose corner its polygon passes by; one that reaches outside is kept whole."""
    rings = corners_of_rotated(
        [[-4, -4, 20, 2, -np.pi / 4], [2, 2, 20, 2, -np.pi / 4], [0, 0, 9, 0, 1.0], [50, 50, 20, 8, 0.3]]
    )
    hulls = np.concatenate([rings.min(axis=1), rings.max(axis=1)], axis=1)
    checked = check_boxes(hulls, height=100, width=100, corners=rings)
    assert checked.kept.tolist() == [1, 3]
    assert (checked.outside, checked.without_area, checked.repaired) == (1, 1, 1)
    made = Boxes.gathered(
        {"a": Drawn(hulls, ["ship"] * 4, rings, [False, True, False, False])}, {"a": (100, 100)}
    )
    np.testing.assert_allclose(made.corners, rings[[1, 3]], atol=1e-5)
    assert (made.boxes >= 0).all()
    assert made.difficult.tolist() == [True, False]
    assert made.turned == 2
    with pytest.raises(InvalidInputError, match="a: boxes inside"):
        Boxes.gathered({"a": Drawn(hulls, ["ship"] * 4, rings)}, {"a": (100, 100)}, policy="refuse")


def test_tables_of_upright_boxes_have_no_corners():
    boxes = np.array([[1.0, 2, 9, 5], [3, 3, 60, 17]])
    for corners in (None, np.full((2, 4, 2), np.nan), np.roll(corners_of_boxes(boxes), 1, axis=1)):
        made = Boxes.gathered({"a": Drawn(boxes, ["x", "x"], corners)}, {"a": (99, 99)})
        assert made.corners is None
        assert made.difficult is None
        assert made.turned == 0
        np.testing.assert_array_equal(made.polygons, corners_of_boxes(boxes))
