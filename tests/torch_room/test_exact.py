"""Each epoch that all ranks complete has every patch once, or an error was raised: over random programs."""

import copy
import os
import pickle
import random
import threading

import pytest

torch = pytest.importorskip("torch")
from conftest import trials  # noqa: E402
from epoch_programs import Script, check_law, expected_of, runs  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from loader_stores import SMALL, small_store  # noqa: E402

from sarzarr.errors import InvalidInputError  # noqa: E402
from sarzarr.torch import ZarrPatchDataset  # noqa: E402
from sarzarr.torch.epochs import board  # noqa: E402
from sarzarr.torch.epochs.counter import EpochCounter  # noqa: E402
from sarzarr.torch.epochs.group import Group  # noqa: E402


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("exact"))


@pytest.fixture(scope="module")
def templates(store):
    """Datasets of 12 patches, of which each rank of each program gets copies."""
    kinds = {
        (size, last): {"batch_size": size, "drop_last": last}
        for size in (1, 2, 3, 5)
        for last in (False, True)
    }
    options = {**SMALL, "threads": 1, "read_ahead": 0}
    return {kind: ZarrPatchDataset(store, **options, **more) for kind, more in kinds.items()}


class StoppedError(Exception):
    """A rank waits in the training for others that do not come."""


class Conductor:
    """One rank goes on at a time; who waits gives way, and where all wait patience is at its end."""

    def __init__(self, ranks, seed):
        self.turns = [threading.Semaphore(0) for _ in range(ranks)]
        self.live, self.random, self.waits, self.is_stuck = set(range(ranks)), random.Random(seed), 0, False
        self.steps = [0] * ranks
        self.local = threading.local()

    def give_way(self):
        mine = self.local.rank
        other = self.random.choice(sorted(self.live))
        if other != mine:
            self.turns[other].release()
            self.turns[mine].acquire()

    def wait(self):
        self.waits += 1
        if self.waits > 40 * len(self.turns):
            self.is_stuck = True
            board.PATIENCE_S = -1.0
        self.give_way()

    def together(self):
        """Wait for the other ranks, as a training step does."""
        self.waits = 0
        self.steps[self.local.rank] += 1
        while min(self.steps) < self.steps[self.local.rank]:
            if self.is_stuck or len(self.live) < len(self.turns):
                raise StoppedError
            self.wait()

    def run(self, works):
        errors = [None] * len(works)

        def play(rank):
            self.local.rank = rank
            self.turns[rank].acquire()
            try:
                works[rank]()
            except (InvalidInputError, StoppedError) as error:
                errors[rank] = error.with_traceback(None)  # frames hold iterations that have not ended
            except Exception as error:
                errors[rank] = error
            self.waits = 0
            self.live.discard(rank)
            if self.live:
                self.turns[self.random.choice(sorted(self.live))].release()

        threads = [threading.Thread(target=play, args=(rank,)) for rank in range(len(works))]
        for thread in threads:
            thread.start()
        self.turns[self.random.randrange(len(works))].release()
        for thread in threads:
            thread.join()
        return errors


class RankOfOneProcess(Group):
    """A rank that is a thread."""

    def connect(self):
        return self.store

    def pause(self, seconds):
        self.conductor.wait()


def rank_of(template, rank, ranks, store, conductor):
    dataset = copy.copy(template)
    dataset.reader = copy.copy(template.reader)
    dataset._counter = EpochCounter()
    if ranks > 1:
        dataset._group = RankOfOneProcess(rank=rank, ranks=ranks, id="one", pid=os.getpid())
        vars(dataset._group).update(store=store, conductor=conductor)
    return dataset


def play(templates, run):
    """Run a program by ranks in one process, and hold what came against the law."""
    programs, kind, is_uniform, is_lockstep, seed = run
    template, ranks = templates[kind], len(programs)
    patience, board.PATIENCE_S = board.PATIENCE_S, 1e9
    conductor, shared = Conductor(ranks, seed), torch.distributed.HashStore()
    scripts = [Script(rank_of(template, rank, ranks, shared, conductor)) for rank in range(ranks)]

    def work(rank):
        script = scripts[rank]

        def between(step):
            conductor.waits = 0
            conductor.together() if is_lockstep and step.label >= 0 else conductor.give_way()

        script.between = between
        # A training step holds ranks together; without, they are in the same iteration where they say so.
        script.now = (
            (lambda: conductor.steps[rank])
            if is_lockstep
            else (lambda: tuple(script.dataset._counter.page[1:3]))
        )
        for step in programs[rank]:
            if step.what == "copy":
                group, script.dataset._group = script.dataset._group, None
                script.dataset._counter = pickle.loads(pickle.dumps(script.dataset._counter))
                script.dataset._group = group
            else:
                script.run(step)

    try:
        errors = conductor.run([lambda rank=rank: work(rank) for rank in range(ranks)])
    finally:
        board.PATIENCE_S = patience
    for error in errors:
        if not (error is None or isinstance(error, InvalidInputError | StoppedError)):
            raise error
    if is_uniform:
        assert errors == [None] * ranks
        for rank, script in enumerate(scripts):
            assert [loop.ids for loop in script.loops] == expected_of(template, programs[0], rank, ranks)
    check_law(template, scripts, ranks)
    return errors


@settings(max_examples=40, deadline=None)
@given(run=runs())
def test_an_epoch_is_whole_or_an_error_says_so(templates, run):
    play(templates, run)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=trials(2000), deadline=None)
@given(run=runs())
def test_many_programs_give_whole_epochs_or_errors(templates, run):
    play(templates, run)
