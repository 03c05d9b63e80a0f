"""The order of an epoch is a function of (seed, epoch); whatever the cut, nothing is lost or repeated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarzarr.errors import InvalidInputError
from sarzarr.reader.order import Deal, drawn, shuffled, shuffled_in_window

deals = st.builds(
    Deal,
    n=st.integers(0, 300),
    batch_size=st.integers(1, 17),
    ranks=st.integers(1, 5),
    drop_last=st.booleans(),
)


def positions(deal, rank):
    """Return the positions of each batch of a rank."""
    return [range(*deal.share(step, rank)) for step in range(deal.steps)]


@settings(deadline=None)
@given(deals)
def test_ranks_get_equally_many_batches_and_no_position_twice(deal):
    batches = [positions(deal, rank) for rank in range(deal.ranks)]
    assert {len(b) for b in batches} == {deal.steps}
    sizes = [len(batch) for rank in batches for batch in rank]
    assert all(1 <= size <= deal.batch_size for size in sizes)
    seen = sorted(p for rank in batches for batch in rank for p in batch)
    assert seen == list(range(deal.n - deal.left_out))


@settings(deadline=None)
@given(deals)
def test_what_is_left_out_is_less_than_a_step_or_than_the_ranks(deal):
    if deal.drop_last:
        assert deal.left_out == deal.n % (deal.batch_size * deal.ranks)
    else:
        assert deal.left_out < deal.ranks
        if deal.ranks == 1 or (deal.batch_size > 1 and deal.n >= deal.batch_size * deal.ranks):
            assert deal.left_out == 0


@settings(deadline=None)
@given(deals)
def test_only_the_last_steps_hold_fewer_than_a_full_batch(deal):
    for rank in range(deal.ranks):
        assert all(len(b) == deal.batch_size for b in positions(deal, rank)[:-2])
        if deal.ranks == 1 or deal.drop_last:
            assert all(len(b) == deal.batch_size for b in positions(deal, rank)[:-1])


@settings(deadline=None)
@given(deals, st.integers(1, 5))
def test_workers_in_turn_make_the_batches_of_one_process_in_order(deal, workers):
    turns = [list(deal.worker_steps(w, workers)) for w in range(workers)]
    interleaved = [turns[i % workers][i // workers] for i in range(deal.steps)]
    assert interleaved == list(range(deal.steps))
    assert sum(map(len, turns)) == deal.steps


@settings(deadline=None)
@given(deals, st.data())
def test_resuming_goes_on_as_if_nothing_had_happened(deal, data):
    step = data.draw(st.integers(0, deal.steps))
    resumed = Deal(
        n=deal.n,
        batch_size=deal.batch_size,
        ranks=deal.ranks,
        drop_last=deal.drop_last,
        start=deal.edge(step),
    )
    for rank in range(deal.ranks):
        assert positions(resumed, rank) == positions(deal, rank)[step:]


@settings(deadline=None)
@given(deals, st.integers(1, 5), st.integers(1, 17), st.data())
def test_other_ranks_and_batch_sizes_take_up_exactly_what_remains(deal, ranks, batch_size, data):
    step = data.draw(st.integers(0, deal.steps))
    behind = sum(len(b) for rank in range(deal.ranks) for b in positions(deal, rank)[:step])
    resumed = Deal(n=deal.n, batch_size=batch_size, ranks=ranks, start=deal.edge(step))
    ahead = sorted(p for rank in range(ranks) for b in positions(resumed, rank) for p in b)
    assert ahead == list(range(behind, deal.n - resumed.left_out))


@pytest.mark.parametrize("wrong", [{"n": -1}, {"batch_size": 0}, {"ranks": 0}, {"start": -1}])
def test_a_deal_refuses_what_it_cannot_be(wrong):
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        Deal(**{"n": 8, "batch_size": 2} | wrong)


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 2**40), st.integers(0, 2**20))
def test_an_epoch_is_every_patch_once_and_the_same_each_time(n, seed, epoch):
    order = shuffled(n, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(n))
    np.testing.assert_array_equal(order, shuffled(n, seed=seed, epoch=epoch))


def test_seeds_and_epochs_differ():
    orders = {
        tuple(shuffled(50, seed=s, epoch=e).tolist()) for s, e in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]
    }
    assert len(orders) == 5


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=300), st.integers(1, 8))
def test_a_window_holds_few_shards_and_loses_none(shards, window):
    shards = np.array(shards, np.int64)
    order = shuffled_in_window(shards, seed=3, epoch=1, window=window)
    assert sorted(order.tolist()) == list(range(len(shards)))
    first, last = {}, {}
    for place, shard in enumerate(shards[order].tolist()):
        first.setdefault(shard, place)
        last[shard] = place
    open_at = [sum(first[s] <= place <= last[s] for s in first) for place in range(len(shards))]
    assert max(open_at, default=0) <= window + 1


def test_a_window_mixes_the_patches_of_its_shards():
    shards = np.repeat(np.arange(20), 64)
    order = shuffled_in_window(shards, seed=0, epoch=0, window=8)
    batches = shards[order][256:-256].reshape(-1, 16)
    assert np.mean([len(set(b)) for b in batches.tolist()]) > 6
    with pytest.raises(InvalidInputError, match="window"):
        shuffled_in_window(shards, seed=0, epoch=0, window=0)


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=60).filter(lambda w: sum(w) > 1e-3), st.integers(0, 99)
)
def test_draws_are_the_shares_of_the_weights_rounded_up_or_down(weights, epoch):
    weights = np.array(weights)
    found = drawn(weights, seed=1, epoch=epoch)
    assert found.size == weights.size
    counts = np.bincount(found, minlength=weights.size)
    expected = weights / weights.sum() * weights.size
    assert (counts >= np.floor(expected - 1e-6)).all()
    assert (counts <= np.ceil(expected + 1e-6)).all()


def test_draws_come_to_the_weights_over_many_epochs():
    weights = np.array([1.0, 2.0, 3.0, 0.0, 0.5])
    counts = sum(np.bincount(drawn(weights, seed=0, epoch=e), minlength=5) for e in range(2000)) / 2000
    np.testing.assert_allclose(counts, weights / weights.sum() * 5, atol=0.05)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf]])
def test_weights_that_say_nothing_are_refused(weights):
    with pytest.raises(InvalidInputError, match="weights"):
        drawn(np.array(weights), seed=0, epoch=0)
