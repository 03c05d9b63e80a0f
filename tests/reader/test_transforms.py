"""The law: a flip keeps what is inside each box, and twice is as if never."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarzarr.errors import InvalidInputError
from sarzarr.reader.augment import Compose, RandomHorizontalFlip, RandomVerticalFlip, collate_fn

KINDS = ["numpy", "torch"]


def pair(seed, kind, count):
    """An image on which each box is painted with its own value."""
    random = np.random.default_rng(seed)
    image = np.zeros((1, 40, 60), np.float32)
    boxes = np.zeros((count, 4), np.float32)
    for i in range(count):
        x, y = np.sort(random.choice(60, 2, replace=False)), np.sort(random.choice(40, 2, replace=False))
        boxes[i] = x[0], y[0], x[1], y[1]
    if count:
        x0, y0, x1, y1 = boxes[-1].astype(int)
        image[:, y0:y1, x0:x1] = 7
    target = {"boxes": boxes, "labels": np.ones(count, np.int64)}
    if kind == "torch":
        torch = pytest.importorskip("torch")
        return torch.from_numpy(image), {k: torch.from_numpy(v) for k, v in target.items()}
    return image, target


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000), count=st.integers(0, 4))
def test_what_is_in_a_box_stays_in_it(kind, seed, count):
    image, target = pair(seed, kind, count)
    before = np.asarray(target["boxes"]).copy()
    for flip in (
        RandomHorizontalFlip(1),
        RandomVerticalFlip(1),
        Compose([RandomHorizontalFlip(1), RandomVerticalFlip(1)]),
    ):
        turned, other = flip(image, target)
        assert tuple(other["boxes"].shape) == (count, 4)
        np.testing.assert_array_equal(np.asarray(target["boxes"]), before)
        if count:
            x0, y0, x1, y1 = np.asarray(other["boxes"])[-1].astype(int)
            painted = np.asarray(turned)[0] == 7
            expected = np.zeros_like(painted)
            expected[y0:y1, x0:x1] = True
            np.testing.assert_array_equal(painted, expected)
        again, back = flip(turned, other)
        np.testing.assert_array_equal(np.asarray(again), np.asarray(image))
        np.testing.assert_array_equal(np.asarray(back["boxes"]), before)


def test_draws_are_seeded_and_leave_the_global_generator_alone():
    image, target = pair(0, "numpy", 1)
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    runs = []
    for _ in range(2):
        flip = RandomHorizontalFlip(seed=3)
        runs.append([flip(image, target)[0] is image for _ in range(40)])
    assert runs[0] == runs[1]
    assert 5 < sum(runs[0]) < 35
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    with pytest.raises(InvalidInputError, match="probability"):
        RandomHorizontalFlip(2)


class Flipped:
    """Whether each of 60 images was flipped: along columns, and along rows."""

    def __init__(self, kind, seed=None):
        self.kind, self.flips = kind, (RandomHorizontalFlip(seed=seed), RandomVerticalFlip(seed=seed))

    def __len__(self):
        return 60

    def __getitem__(self, index):
        image = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
        if self.kind == "torch":
            image = pytest.importorskip("torch").from_numpy(image)
        target = {"boxes": image.reshape(-1)[:0].reshape(0, 4)}
        return [float(flip(image, target)[0][0, 0, 0]) != 0 for flip in self.flips]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("seed", [None, 3])
def test_each_worker_draws_its_own_flips_anew_each_epoch(kind, seed):
    torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")

    def sequences(data):
        """Return what each worker drew in each epoch, along either axis."""
        loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=2)
        epochs = [list(loader) for _ in range(3)]
        return [
            tuple(f[axis] for f in drawn[worker::2])
            for drawn in epochs
            for worker in (0, 1)
            for axis in (0, 1)
        ]

    data = Flipped(kind, seed)
    torch.manual_seed(0)
    first, other = sequences(data), sequences(data)
    torch.manual_seed(0)
    assert sequences(data) == first
    assert len({*first, *other}) == 24


def test_a_tensor_is_flipped_by_the_generator_that_torch_seeds():
    torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
    data, drawn = Flipped("torch"), []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        drawn.append([tuple(data[i]) for i in range(60)])
    assert drawn[0] == drawn[2] != drawn[1]


def test_batches_are_lists():
    batch = [pair(i, "numpy", i) for i in range(3)]
    images, targets = collate_fn(batch)
    assert [i.shape for i in images] == [(1, 40, 60)] * 3
    assert [t["boxes"].shape for t in targets] == [(0, 4), (1, 4), (2, 4)]
