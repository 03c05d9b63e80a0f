"""The law of epochs with real ranks, forked or spawned, and real workers: gloo, a file between them."""

import contextlib
import multiprocessing
import os
import pickle
import tempfile
import warnings
from datetime import timedelta
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from conftest import trials  # noqa: E402
from epoch_programs import Script, Step, check_law, expected_of, runs  # noqa: E402
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from loader_stores import SMALL, small_store  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from sarzarr.torch import ZarrPatchDataset  # noqa: E402
from sarzarr.torch.epochs import board  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PATIENCE_S = 4.0
"""Seconds in these ranks in the place of half an hour."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("exact"))


def rank_main(place, rank, ranks, dataset, program, workers, is_persistent, is_lockstep):
    """Run a program as one rank, and leave what came in a file."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more workers than cores
    board.PATIENCE_S = PATIENCE_S
    distributed, error, steps = torch.distributed, None, [0]
    distributed.init_process_group(
        "gloo", init_method=f"file://{place}/meet", rank=rank, world_size=ranks, timeout=timedelta(seconds=20)
    )
    options = {"persistent_workers": True} if workers and is_persistent else {}
    script = Script(dataset)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, **options)
    script.loader, script.has_workers = lambda _: loader, workers > 0

    def between(step):
        if is_lockstep and step.label >= 0:
            steps[0] += 1
            distributed.all_reduce(torch.zeros(1))

    script.between = between
    script.now = (lambda: steps[0]) if is_lockstep else (lambda: tuple(dataset._counter.page[1:3]))
    try:
        for step in program:
            script.run(step)
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    (Path(place) / f"{rank}.pickle").write_bytes(pickle.dumps((script.loops, error)))
    with contextlib.suppress(RuntimeError):
        if error is None:
            distributed.barrier()
    os._exit(0)  # gloo waits for ranks that have failed


class Ran:
    """What a rank left."""

    def __init__(self, loops, error):
        self.loops, self.error = loops, error


def run_ranks(dataset, programs, method, workers, is_persistent, is_lockstep):
    with tempfile.TemporaryDirectory() as place:
        context, ranks = multiprocessing.get_context(method), len(programs)
        processes = [
            context.Process(
                target=rank_main,
                args=(place, rank, ranks, dataset, programs[rank], workers, is_persistent, is_lockstep),
            )
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * ranks
        return [Ran(*pickle.loads((Path(place) / f"{rank}.pickle").read_bytes())) for rank in range(ranks)]


@settings(
    max_examples=trials(16),
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    run=runs(),
    before=st.lists(
        st.sampled_from([Step("all"), Step("some", 2), Step("some", 1), Step("peek")]), max_size=2
    ),
    method=st.sampled_from(["fork", "fork", "fork", "spawn"]),
    workers=st.integers(0, 3),
    is_persistent=st.booleans(),
)
def test_programs_of_real_ranks_and_workers(store, run, before, method, workers, is_persistent):
    programs, (batch_size, drop_last), is_uniform, is_lockstep, _ = run
    programs = [[step for step in program if step.what != "copy"] for program in programs]
    method = "fork" if len(programs) > 2 or workers > 1 else method  # each that is spawned imports torch
    dataset = ZarrPatchDataset(store, **SMALL, batch_size=batch_size, drop_last=drop_last, threads=1)
    mine = Script(dataset)
    for step in before:
        mine.run(step)
    epoch = dataset.epoch
    ran = run_ranks(dataset, programs, method, workers, is_persistent, is_lockstep)
    assert dataset.epoch == epoch  # what came of this process moves nothing here
    if is_uniform:
        assert [one.error for one in ran] == [None] * len(ran)
        begin = [Step("set", epoch), *programs[0]]
        for rank, one in enumerate(ran):
            expected = expected_of(dataset, begin, rank, len(ran), ahead=workers > 0)
            assert [loop.ids for loop in one.loops] == expected
    for one in ran:
        known = ("InvalidInputError", "Gloo", "gloo", "Connection", "Timed out", "Stopped")
        assert one.error is None or any(word in one.error for word in known), one.error
    check_law(dataset, ran, len(ran))
