"""The law: regions found block by block, in any layout, are those of the whole mask."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sarzarr.ingestion.blocks.regions import RegionTracker, reaching_edge


def whole(mask):
    """Return the pixels of regions that reach the edge, from the mask as a whole."""
    labels, _ = ndimage.label(mask)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return np.isin(labels, edge[edge > 0])


def by_blocks(mask, block, band):
    height, width = mask.shape
    found, labelled = {}, {}
    for i, row in enumerate(range(0, height, block[0])):
        for j, col in enumerate(range(0, width, block[1])):
            part = mask[row : row + block[0], col : col + block[1]]
            if not part.any():
                found[i, j] = None
                continue
            tracker = RegionTracker()
            bands = [tracker.add(part[r : r + band]) for r in range(0, len(part), band)]
            found[i, j] = tracker.finish()
            labelled[i, j] = (row, col, tracker.names()[np.concatenate(bands)])
    out = np.zeros_like(mask)
    for at, reaches in reaching_edge(found).items():
        row, col, labels = labelled[at]
        out[row : row + labels.shape[0], col : col + labels.shape[1]] = reaches[labels]
    return out


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    fill=st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.7, 1.0]),
    block=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    band=st.integers(1, 9),
)
def test_any_block_layout_finds_the_regions_of_the_whole(seed, shape, fill, block, band):
    mask = np.random.default_rng(seed).random(shape) < fill
    np.testing.assert_array_equal(by_blocks(mask, block, band), whole(mask))


def test_a_spiral_through_every_block_is_one_region():
    mask = np.zeros((33, 33), bool)
    row, col, length, step = 0, 0, 33, (0, 1)
    mask[0, :] = True
    turns = [(1, 0), (0, -1), (-1, 0), (0, 1)]
    row, col = 0, 32
    for k in range(24):
        length = 32 - 2 * ((k + 1) // 2) if k else 32
        step = turns[k % 4]
        for _ in range(max(length, 0)):
            row, col = row + step[0], col + step[1]
            mask[row, col] = True
    np.testing.assert_array_equal(by_blocks(mask, (8, 8), 4), whole(mask))
    hole = ~mask
    np.testing.assert_array_equal(by_blocks(hole, (5, 7), 3), whole(hole))
