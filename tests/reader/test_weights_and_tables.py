"""Weights by function, by any column and by number; the selection as a table."""

import json
import pickle

import numpy as np
import pytest
from loader_stores import make_store

import sarzarr as sz
from sarzarr.errors import InvalidInputError, NotInStoreError
from sarzarr.reader.order import Position, drawn


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def copied(store):
    return sz.copy_store(store, store.root.with_name("copied.zarr"))


def bright(table):
    return np.exp(table["mean_db"] / 5) * (table["scene"] == "b").map({True: 3.0, False: 1.0})


def test_the_table_of_a_selection_has_a_row_a_patch_with_all_that_is_known(store, copied):
    reader = sz.PatchReader(
        store, where="col > 0", polarizations=["vh", "vv"], with_meta=True, batch_size=999
    )
    (batch,), table = reader, reader.table()
    assert table["scene"].tolist() == batch["scene"]
    for name in ("row", "col", "id"):
        assert table[name].tolist() == batch[name].tolist()
    assert set(table["array"]) == {"vh"}
    assert {"mean_db", "std_db", "valid_fraction", "incidence", "time", "bounds_key"} <= set(table.columns)
    both = sz.PatchReader([store, copied]).table()
    assert set(both["store"]) == {str(store.place), str(copied.place)}


@pytest.mark.parametrize("weights", [bright, "valid_fraction", lambda table: table["std_db"].to_numpy()])
@pytest.mark.parametrize("several", [False, True])
def test_patches_are_drawn_as_often_as_their_weights_say(store, weights, several, copied):
    where = [store, copied] if several else store
    reader = sz.PatchReader(where, weights=weights, seed=5, shuffle=True, with_meta=True, batch_size=4)
    table = reader.table()
    expected = np.asarray(weights(table) if callable(weights) else table[weights], np.float64)
    np.testing.assert_array_equal(reader.weights, expected)
    reader = pickle.loads(pickle.dumps(reader))  # a lambda does not pickle: what it returned does
    for epoch in range(2):
        want = np.bincount(drawn(expected, seed=5, epoch=epoch), minlength=len(table))
        ids = np.concatenate([batch["id"] for batch in reader])
        counts = dict(zip(*np.unique(ids, return_counts=True), strict=True))
        assert [counts.get(one, 0) for one in table["id"]] == want.tolist()


def test_a_state_goes_on_with_the_same_weights_alone(store):
    reader = sz.PatchReader(store, weights=bright, seed=1, shuffle=True, batch_size=4, with_meta=True)
    whole = [batch["id"].tolist() for batch in reader.batches(Position())]
    state = json.loads(json.dumps(reader.state_at(Position(), taken=3)))
    again = sz.PatchReader(
        store, weights=bright(reader.table()).to_numpy(), seed=1, shuffle=True, batch_size=4, with_meta=True
    )
    again.load_state_dict(state)
    assert [batch["id"].tolist() for batch in again] == whole[3:]
    other = sz.PatchReader(
        store, weights=lambda table: bright(table) + 1, seed=1, shuffle=True, with_meta=True
    )
    with pytest.raises(InvalidInputError, match="a state with weights"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("weights", "error", "says"),
    [
        (
            lambda table: [1.0, 2.0],
            InvalidInputError,
            r"one weight for each of \d+ patches was expected, got shape \(2,\)",
        ),
        (lambda table: -table["valid_fraction"], InvalidInputError, "not negative"),
        (lambda table: table["valid_fraction"] * np.nan, InvalidInputError, "finite"),
        ("mean_db", InvalidInputError, "not negative"),
        ("nope", NotInStoreError, r"a column among .*mean_db.*, got 'nope'"),
        ({"nope": 1.0}, NotInStoreError, "got nope"),
    ],
)
def test_weights_that_cannot_be_drawn_by_are_refused_at_once(store, weights, error, says):
    with pytest.raises(error, match=says):
        sz.PatchReader(store, weights=weights)
