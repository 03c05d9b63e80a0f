"""Crops lie anywhere on chosen ground, with equal chance, and nowhere else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.patches.crops import CropGround, Fit, drawn_crops

CELL = 256


@st.composite
def grounds(draw):
    """Return a ground, and masks (rows, columns) a group of the pixels that are chosen, and clear."""
    seed, groups = draw(st.integers(0, 2**20)), draw(st.integers(1, 3))
    size = draw(st.sampled_from([1, 31, 100, 256, 257, 300, 511, 512, 600]))
    rng = np.random.default_rng(seed)
    shapes = np.array([[draw(st.integers(1, 900)), draw(st.integers(1, 900))] for _ in range(groups)])
    cells, chosen, clear = [], [], []
    for group, (height, width) in enumerate(shapes):
        share = draw(st.sampled_from([0.5, 0.9, 1.0]))
        mask, whole = np.zeros((height, width), bool), np.zeros((height, width), bool)
        for row in range(0, height, CELL):
            for col in range(0, width, CELL):
                if rng.random() < share:
                    is_clear = rng.random() < 0.8
                    cells.append((group, row, col, is_clear))
                    mask[row : row + CELL, col : col + CELL] = True
                    whole[row : row + CELL, col : col + CELL] = is_clear
        chosen.append(mask)
        clear.append(whole)
    group, row, col, is_clear = np.array(cells, np.int64).reshape(-1, 4).T
    ground = CropGround(
        size=size, group=group, row=row, col=col, is_clear=is_clear.astype(bool), shape=shapes
    )
    return ground, chosen, clear


def windows(mask, size):
    """Return (rows, columns) bool: where a window of ``size`` may begin that the mask has whole."""
    height, width = mask.shape
    if height < size or width < size:
        return np.zeros((max(height - size + 1, 0), max(width - size + 1, 0)), bool)
    sums = np.pad(mask.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    return sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size] == size**2


@settings(max_examples=25)
@given(grounds(), st.integers(0, 99))
def test_windows_fit_where_every_pixel_is_chosen(made, seed):
    ground, chosen, clear = made
    rng = np.random.default_rng(seed)
    group = rng.integers(0, len(chosen), 200)
    row, col = rng.integers(-40, 900, (2, 200))
    for g, r, c, fit in zip(group, row, col, ground.fit(group, row, col), strict=True):
        expected = Fit.NO
        for answer, masks in ((Fit.LOOK, chosen), (Fit.YES, clear)):
            may = windows(masks[g], ground.size)
            if 0 <= r < may.shape[0] and 0 <= c < may.shape[1] and may[r, c]:
                expected = answer
        assert fit == expected, (g, r, c)


@settings(max_examples=40)
@given(grounds())
def test_each_window_has_one_number_and_no_other_has_any(made):
    ground, chosen, _ = made
    assert ground.windows == sum(windows(mask, ground.size).sum() for mask in chosen)
    if not 0 < ground.windows <= 400_000:
        return

    class Every:
        """A generator that gives each number once."""

        def integers(self, low, high, n):
            assert (low, high) == (0, n)
            return np.arange(n)

    cell, row, col = ground.draw(ground.windows, Every())
    assert np.all((row >= ground.row[cell]) & (row < ground.row[cell] + CELL))
    assert np.all((col >= ground.col[cell]) & (col < ground.col[cell] + CELL))
    for g, mask in enumerate(chosen):
        mine = ground.group[cell] == g
        counts = np.zeros([max(n - ground.size + 1, 0) for n in mask.shape], np.int64)
        np.add.at(counts, (row[mine], col[mine]), 1)
        np.testing.assert_array_equal(counts, windows(mask, ground.size))


@given(grounds(), st.integers(1, 500), st.integers(0, 99))
def test_what_is_looked_at_and_refused_is_drawn_again(made, n, seed):
    ground, _, _ = made

    def look(cell, row, col):
        assert (ground.fit(ground.group[cell], row, col) == Fit.LOOK).all()
        return row % 2 == 0

    cell, row, col = drawn_crops(ground, n, np.random.default_rng(seed), look)
    again = drawn_crops(ground, n, np.random.default_rng(seed), look)
    np.testing.assert_array_equal(np.stack([cell, row, col]), np.stack(again))
    fits = ground.fit(ground.group[cell], row, col)
    assert not (fits == Fit.NO).any()
    assert (row[fits == Fit.LOOK] % 2 == 0).all()
    assert len(cell) == n or len(cell) == 0 or ground.windows < 1000
