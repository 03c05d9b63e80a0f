"""What `sarzarr bench` shows: its parts are there and fit together."""

import pytest
from loader_stores import make_store

from sarzarr.errors import InvalidInputError
from sarzarr.reader.rate import measure_delivery


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("rate"))


@pytest.mark.parametrize("options", [{}, {"flags": True, "batch_size": 4}, {"with_meta": True, "threads": 1}])
def test_a_rate_has_all_its_parts(store, options):
    found = measure_delivery(store.root, seconds=0.1, **options)
    assert found.delivered > 0
    assert found.copied > 0
    assert found.opening_s > 0
    assert found.batch_shape[1:] == (1, 256, 256)
    assert found.patch_bytes == 256 * 256 * 4
    assert found.threads == options.get("threads", found.threads)
    lines = str(found).splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == [
        "first batch after",
        "delivered",
        "copied in memory",
    ]


def test_a_time_that_is_none_is_refused(store):
    with pytest.raises(InvalidInputError, match="seconds"):
        measure_delivery(store, seconds=0)
