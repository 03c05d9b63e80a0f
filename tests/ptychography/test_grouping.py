"""Groups are those of a slow loop that follows the text, for any positions and recipe."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import slow_groups

from sarzarr import grouping
from sarzarr.errors import InvalidInputError
from sarzarr.grouping import GroupRecipe, group_positions, subsampled


def scattered(n, seed=0):
    return np.random.default_rng(seed).uniform(0, 100, (2, n))


@st.composite
def recipes(draw):
    gridsize = draw(st.integers(1, 3))
    return GroupRecipe(
        gridsize=gridsize,
        nsamples=draw(st.integers(1, 120)),
        neighbors=draw(st.integers(gridsize**2, 14)),
        seed=draw(st.integers(0, 2**32 - 1)),
        sequential_sampling=draw(st.booleans()),
        enable_oversampling=True,
        neighbor_pool_size=draw(st.none() | st.integers(gridsize**2, 11)),
    )


@settings(max_examples=150)
@given(recipe=recipes(), n=st.integers(1, 60), is_lattice=st.booleans(), seed=st.integers(0, 99))
def test_groups_are_those_of_the_slow_loop(recipe, n, is_lattice, seed):
    x, y = (np.array(np.divmod(np.arange(n), 6), float)) if is_lattice else scattered(n, seed)
    size = recipe.gridsize**2
    if n < size + 1 and size > 1:
        return
    found, expected = group_positions(x, y, recipe), slow_groups(x, y, recipe)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("n", "given_recipe", "what"),
    [
        (3, {"gridsize": 2, "nsamples": 10, "neighbors": 1}, "OVERSAMPLING-001.*enable_oversampling"),
        (3, {"gridsize": 2, "nsamples": 10, "neighbors": 1, "enable_oversampling": True}, "neighbor_pool_size"),
        (3, {"gridsize": 2, "nsamples": 10, "neighbors": 9, "enable_oversampling": True, "neighbor_pool_size": 3},
         "neighbor_pool_size"),
        (3, {"gridsize": 2, "nsamples": 2, "neighbors": 1}, "at least 4 positions"),
        (20, {"gridsize": 2, "nsamples": 2, "neighbors": 3}, "K of at least 4"),
        (4, {"gridsize": 2, "nsamples": 9, "neighbors": 4, "enable_oversampling": True}, "more than 4 positions"),
    ],
)  # fmt: skip
def test_errors_come_in_their_order(n, given_recipe, what):
    with pytest.raises(ValueError, match=what):
        group_positions(*scattered(n), GroupRecipe(**given_recipe))


@pytest.mark.parametrize("name", ["gridsize", "nsamples", "neighbors", "neighbor_pool_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_a_recipe_is_of_whole_numbers(name, value):
    with pytest.raises(InvalidInputError, match=f"expected {name} as a whole number"):
        GroupRecipe(**{"gridsize": 2, "nsamples": 3, name: value})


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_positions_are_finite_and_as_many(wrong):
    x, y = scattered(20)
    with pytest.raises(InvalidInputError, match="one length"):
        group_positions(x[1:], y, GroupRecipe(gridsize=1, nsamples=1))
    y[7] = wrong
    with pytest.raises(InvalidInputError, match="number 7"):
        group_positions(x, y, GroupRecipe(gridsize=1, nsamples=1))


def test_a_seed_is_not_in_its_group_where_it_has_k_others():
    x, y = scattered(50)
    recipe = GroupRecipe(gridsize=2, nsamples=50, seed=3)
    for seed, group in enumerate(group_positions(x, y, recipe)):
        assert seed not in group
        assert len(set(group.tolist())) == 4


def test_same_seed_same_groups_other_seed_others():
    x, y = scattered(100)
    first, again, other = (
        group_positions(x, y, GroupRecipe(gridsize=2, nsamples=10, seed=seed)) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - it is what must not be touched
    group_positions(x, y, GroupRecipe(gridsize=2, nsamples=10, seed=5))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_sequential_sampling_draws_from_seed_0_whatever_is_given():
    x, y = scattered(100)
    found = [
        group_positions(
            x, y, GroupRecipe(gridsize=2, nsamples=10, seed=seed, sequential_sampling=True, neighbors=7)
        )
        for seed in (5, 6)
    ]
    np.testing.assert_array_equal(*found)


def test_every_position_is_sampled_about_as_often():
    x, y = np.array(np.divmod(np.arange(100), 10), float)
    counts = np.zeros(100)
    for seed in range(100):
        np.add.at(counts, group_positions(x, y, GroupRecipe(gridsize=2, nsamples=10, seed=seed)).ravel(), 1)
    expected = counts.sum() / 100
    assert np.mean((counts >= expected / 3) & (counts <= 3 * expected)) >= 0.8


def test_neighbours_of_all_seeds_are_asked_for_at_once(monkeypatch):
    asked = []

    class Tree(grouping.cKDTree):
        def query(self, points, **options):
            asked.append(len(points))
            return super().query(points, **options)

    monkeypatch.setattr(grouping, "cKDTree", Tree)
    group_positions(*scattered(10_000), GroupRecipe(gridsize=2, nsamples=512, seed=0))
    assert asked == [512]


@pytest.mark.parametrize("pool", [None, 12])
def test_groups_take_little_memory(pool):
    x, y = scattered(2500)
    recipes = [
        GroupRecipe(gridsize=2, nsamples=256, seed=0, neighbors=pool or 4),
        GroupRecipe(gridsize=2, nsamples=3000, seed=0, neighbor_pool_size=pool, enable_oversampling=True),
    ]
    for recipe in recipes:
        tracemalloc.start()
        group_positions(x, y, recipe)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10e6


def test_a_subsample_is_drawn_once_in_ascending_order():
    assert subsampled(10, None, 0) is None
    assert subsampled(10, 10, 0) is None
    expected = np.sort(np.random.RandomState(7).choice(100, 20, False))
    np.testing.assert_array_equal(subsampled(100, 20, 7), expected)
    with pytest.raises(InvalidInputError, match="n_subsample"):
        subsampled(10, 0, 0)
