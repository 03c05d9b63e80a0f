"""Boxes stay with their pixels: painted boxes are cut, flipped and turned, and compared."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.errors import InvalidInputError
from sarzarr.pixels.turns import apply, apply_to_boxes
from sarzarr.reader.augment import AUGMENTATIONS
from sarzarr.store.boxes import Windows, area, as_boxes, boxes_in_windows, check_boxes


def some_boxes(rng, n, height, width, *, whole=True):
    low = np.stack([rng.integers(0, width, n), rng.integers(0, height, n)], 1)
    high = np.minimum(low + rng.integers(1, [width // 2 + 2, height // 2 + 2], (n, 2)), [width, height])
    boxes = np.concatenate([low, high], 1).astype(np.float32)
    if not whole:
        boxes[:, :2] += rng.uniform(0, 0.4, (n, 2)).astype(np.float32)
        boxes[:, 2:] -= rng.uniform(0, 0.4, (n, 2)).astype(np.float32)
    return boxes


def paint(box, height, width):
    image = np.zeros((height, width), bool)
    x0, y0, x1, y1 = (int(v) for v in box)
    image[y0:y1, x0:x1] = True
    return image


# ------------------------------------------------------------------ patches
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    size=st.integers(1, 40),
    min_visible=st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0]),
    operation=st.sampled_from(AUGMENTATIONS["d4"].turns),
)
def test_a_painted_box_and_its_pixels_stay_together(seed, size, min_visible, operation):
    """Any size, stride and edge policy: windows may overlap and reach beyond the image."""
    rng = np.random.default_rng(seed)
    height, width, scenes, n = 60, 70, 3, 25
    boxes, owner = some_boxes(rng, n, height, width), rng.integers(0, scenes, n)
    windows = Windows(
        owner=rng.integers(-1, scenes, 12),
        row=rng.integers(0, height, 12),
        col=rng.integers(0, width, 12),
        size=size,
    )
    found = boxes_in_windows(boxes, owner, windows, min_visible=min_visible)
    assert len(found) == 12
    for i in range(12):
        at = found.of(i)
        shown = {}
        for b in range(n):
            if owner[b] != windows.owner[i]:
                continue
            padded = np.zeros((height + size, width + size), bool)
            padded[:height, :width] = paint(boxes[b], height, width)
            patch = padded[windows.row[i] :, windows.col[i] :][:size, :size]
            if patch.any() and np.float32(patch.sum() / padded.sum()) >= np.float32(min_visible):
                shown[b] = patch
        assert found.source[at].tolist() == sorted(shown)
        turned = apply_to_boxes(operation, found.boxes[at], shape=(size, size))
        for box, b in zip(turned, found.source[at], strict=True):
            assert (paint(box, size, size) == apply(operation, shown[b])).all()
        assert turned.dtype == np.float32
        visible = [shown[b].sum() / area(boxes[b : b + 1])[0] for b in sorted(shown)]
        assert np.allclose(found.visible[at], visible)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), size=st.integers(1, 300))
def test_boxes_between_pixels_are_cut_as_intervals_are(seed, size):
    rng = np.random.default_rng(seed)
    boxes = some_boxes(rng, 40, 300, 400, whole=False)
    boxes = boxes[(area(boxes) > 0)]
    owner = np.zeros(len(boxes), np.int64)
    windows = Windows(
        owner=np.zeros(9, np.int64), row=rng.integers(0, 300, 9), col=rng.integers(0, 400, 9), size=size
    )
    found = boxes_in_windows(boxes, owner, windows, min_visible=0)
    for i in range(9):
        corner = np.array([windows.col[i], windows.row[i]] * 2, np.float32)
        cut = np.clip(boxes - corner, 0, size)
        keep = area(cut) > 0
        assert found.source[found.of(i)].tolist() == np.flatnonzero(keep).tolist()
        assert np.array_equal(found.boxes[found.of(i)], cut[keep])


def test_patches_without_boxes_are_empty_and_well_formed():
    none = np.empty((0, 4), np.float32)
    windows = Windows(owner=np.array([0, -1]), row=np.array([0, 5]), col=np.array([0, 5]), size=8)
    found = boxes_in_windows(none, np.empty(0, np.int64), windows)
    assert found.boxes[found.of(1)].shape == (0, 4)
    assert found.boxes.dtype == np.float32
    nowhere = Windows(owner=np.empty(0, np.int64), row=np.empty(0, int), col=np.empty(0, int), size=8)
    assert len(boxes_in_windows(np.ones((1, 4)) * [0, 0, 3, 3], np.zeros(1, int), nowhere)) == 0
    for operation in AUGMENTATIONS["d4"].turns:
        assert apply_to_boxes(operation, none, shape=(8, 8)).shape == (0, 4)


def test_a_box_on_the_border_of_two_patches_is_in_neither_by_a_touch():
    boxes = np.array([[8, 0, 16, 4]], np.float32)
    windows = Windows(owner=np.zeros(3, int), row=np.zeros(3, int), col=np.array([0, 8, 16]), size=8)
    found = boxes_in_windows(boxes, np.zeros(1, int), windows, min_visible=0)
    assert np.diff(found.first).tolist() == [0, 1, 0]


@settings(deadline=None)
@given(seed=st.integers(0, 2**16), operation=st.sampled_from(AUGMENTATIONS["d4"].turns))
def test_turning_leaves_the_source_and_the_areas_alone(seed, operation):
    boxes = some_boxes(np.random.default_rng(seed), 6, 32, 32)
    before = boxes.copy()
    turned = apply_to_boxes(operation, boxes, shape=(32, 32))
    assert np.array_equal(boxes, before)
    assert np.array_equal(np.sort(area(turned)), np.sort(area(boxes)))


def test_many_windows_of_many_boxes_list_no_more_than_they_show():
    rng = np.random.default_rng(0)
    boxes = some_boxes(rng, 5000, 20_000, 20_000)
    boxes[:, 2:] = np.minimum(boxes[:, :2] + 30, 20_000)
    starts = np.arange(0, 20_000 - 256, 128)
    row, col = (v.reshape(-1) for v in np.meshgrid(starts, starts, indexing="ij"))
    windows = Windows(owner=np.zeros(len(row), int), row=row, col=col, size=256)
    found = boxes_in_windows(boxes, np.zeros(5000, int), windows)
    assert len(found.boxes) < 5 * 5000
    assert (np.bincount(found.source, minlength=5000)[(boxes < 19_000).all(1)] >= 1).all()


# ------------------------------------------------------------------ checks
def test_boxes_are_repaired_and_counted():
    good = [[1, 2, 5, 6], [5, 6, 1, 2], [-3, 2, 4, 5], [7, 7, 30, 30]]
    lost = [[3, 3, 3, 9], [np.nan, 0, 1, 1], [50, 50, 60, 60], [0, 0, np.inf, 1]]
    given = good + lost
    checked = check_boxes(given, height=20, width=10)
    assert checked.boxes.tolist() == [[1, 2, 5, 6], [1, 2, 5, 6], [0, 2, 4, 5], [7, 7, 10, 20]]
    assert checked.kept.tolist() == [0, 1, 2, 3]
    assert (checked.repaired, checked.left_out) == (3, 4)
    assert (checked.without_area, checked.not_finite, checked.outside) == (1, 2, 1)
    assert checked.counts["given"] == 8
    assert checked.boxes.dtype == np.float32


@pytest.mark.parametrize(
    "box", [[5, 6, 1, 2], [-3, 2, 4, 5], [7, 7, 30, 30], [3, 3, 3, 9], [np.nan, 0, 1, 1], [50, 50, 60, 60]]
)
def test_boxes_are_refused_on_request(box):
    with pytest.raises(InvalidInputError, match="number 1"):
        check_boxes([[0, 0, 1, 1], box], height=20, width=10, policy="refuse")


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(
        st.lists(st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf]), min_size=4, max_size=4)
    ),
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
)
def test_what_is_kept_is_inside_and_everything_is_counted(boxes, height, width):
    checked = check_boxes(boxes, height=height, width=width)
    assert len(checked.boxes) + checked.left_out == len(boxes)
    assert np.isfinite(checked.boxes).all()
    assert (area(checked.boxes) > 0).all()
    assert (checked.boxes >= 0).all()
    assert (checked.boxes <= [width, height, width, height]).all()
    again = check_boxes(checked.boxes, height=height, width=width, policy="refuse")
    assert np.array_equal(again.boxes, checked.boxes)


def test_each_box_is_held_against_its_own_image():
    checked = check_boxes([[0, 0, 50, 50]] * 2, height=np.array([40, 60]), width=np.array([30, 60]))
    assert checked.boxes.tolist() == [[0, 0, 30, 40], [0, 0, 50, 50]]


@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 2, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InvalidInputError, match=r"\(n, 4\)"):
        as_boxes(np.ones(shape))


def test_options_out_of_range_are_refused():
    windows = Windows(owner=np.zeros(1, int), row=np.zeros(1, int), col=np.zeros(1, int), size=8)
    with pytest.raises(InvalidInputError, match="min_visible"):
        boxes_in_windows(np.ones((1, 4)), np.zeros(1, int), windows, min_visible=2)
    with pytest.raises(InvalidInputError, match="policy"):
        check_boxes([], height=1, width=1, policy="drop")
