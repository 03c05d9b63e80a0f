"""Programs of iterations, breaks, looks, states and epochs, run by one rank; and what must come of them."""

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from hypothesis import strategies as st

from sarzarr.errors import InvalidInputError
from sarzarr.reader.order import Deal

LOOPS = ("all", "some")


@dataclass(frozen=True)
class Step:
    """One thing that a training script does."""

    what: str
    """``all`` batches, ``some``, ``peek``, ``save`` a state, ``load`` it, ``set`` an epoch, ``copy`` the dataset."""
    number: int = 0
    """Batches to take, or an epoch."""
    label: int = -1
    """The place in the program of all ranks; -1 of what one rank does alone."""


@dataclass
class Loop:
    """One loop over batches, as it came."""

    label: int
    epoch: int
    start: int
    ids: list[list[int]] = field(default_factory=list)
    is_over: bool = False
    when: Any = None
    """What loops of all ranks that belong together have in common."""


@dataclass
class Oracle:
    """The law, written down a second time: where the cursor of a dataset stands."""

    deal: Deal
    epoch: int = 0
    start: int = 0
    saved: tuple[int, int] | None = None
    last: tuple[int, int, int] | None = None

    def loop(self, asked: int | None, *, ahead: bool = False) -> tuple[int, int, int]:
        """Return the epoch and start of a loop, and its batches, where ``asked`` are taken or all."""
        begin = self.epoch, self.start
        steps = self.at(self.start).steps
        taken = steps if asked is None else min(asked, steps)
        moves = ahead or asked is None or asked > min(steps, 1)
        if moves:
            self.epoch, self.start = self.epoch + 1, 0
        self.last = (*begin, taken) if moves else None  # what is left after one batch was a look
        return *begin, taken

    def at(self, start: int) -> Deal:
        d = self.deal
        return Deal(n=d.n, batch_size=d.batch_size, ranks=d.ranks, drop_last=d.drop_last, start=start)

    def save(self) -> None:
        epoch, start, taken = self.last or (self.epoch, self.start, 0)
        deal = self.at(start)
        self.saved = (epoch + 1, 0) if taken >= max(deal.steps, 1) else (epoch, deal.edge(taken))

    def load(self) -> None:
        if self.saved is not None:
            (self.epoch, self.start), self.last = self.saved, None

    def set(self, epoch: int) -> None:
        self.epoch, self.start, self.last = epoch, self.start if epoch == self.epoch else 0, None


class Script:
    """A rank's run of a program over a dataset."""

    def __init__(self, dataset: Any, loader: Any = None) -> None:
        self.dataset = dataset
        self.loader = loader or (lambda dataset: dataset)
        self.between: Any = lambda step: None
        self.now: Any = lambda: 0
        self.state: Any = None
        self.loops: list[Loop] = []

    def run(self, step: Step) -> None:
        if step.what in LOOPS:
            self._loop(step)
        elif step.what == "peek":
            with suppress(InvalidInputError):  # of what is left there may be less than a batch a rank
                self.dataset.peek()
        elif step.what == "save":
            self.state = self.dataset.state_dict(self._taken)
        elif step.what == "load" and self.state is not None:
            self.dataset.load_state_dict(self.state)
            self._taken = None
        elif step.what == "set":
            self.dataset.set_epoch(step.number)
            self._taken = None

    _taken: int | None = None
    """Batches of the last loop, where workers made them; they must be told."""
    has_workers = False

    def _loop(self, step: Step) -> None:
        loop = Loop(step.label, self.dataset.epoch, self.dataset._counter.upcoming.start)
        self.loops.append(loop)
        begin = self.now()
        batches = iter(self.loader(self.dataset))
        for batch in islice(batches, None if step.what == "all" else step.number):
            loop.ids.append(batch["id"].tolist())
            self.between(step)
        loop.is_over, loop.when = step.what == "all", (begin, self.now())
        self._taken = len(loop.ids) if self.has_workers else None


STEPS = st.one_of(
    st.just(Step("all")),
    st.just(Step("all")),
    st.builds(Step, st.just("some"), st.integers(1, 5)),
    st.sampled_from([Step("peek"), Step("save"), Step("load"), Step("copy")]),
    st.builds(Step, st.just("set"), st.integers(0, 3)),
)


@st.composite
def runs(draw):
    """Ranks, a program of all, and what single ranks do otherwise."""
    ranks = draw(st.integers(1, 4))
    program = [
        Step(step.what, step.number, label)
        for label, step in enumerate(draw(st.lists(STEPS, min_size=1, max_size=7)))
    ]
    programs = [list(program) for _ in range(ranks)]
    is_uniform = draw(st.integers(0, 2)) > 0
    if not is_uniform:
        rank, place = draw(st.integers(0, ranks - 1)), draw(st.integers(0, len(program)))
        if draw(st.booleans()):
            programs[rank].insert(place, draw(STEPS))
        else:
            del programs[rank][place : place + 1]
    kind = draw(st.sampled_from([(1, False), (2, False), (5, False), (2, True), (3, True)]))
    return programs, kind, is_uniform, draw(st.booleans()), draw(st.integers(0, 10**6))


def expected_of(template, program, rank, ranks, *, ahead=False):
    """Return the batches of ids of each loop of a program that all ranks run."""
    reader = template.reader
    oracle, loops = Oracle(reader.deal(ranks=ranks)), []
    for step in program:
        if step.what in LOOPS:
            epoch, start, taken = oracle.loop(None if step.what == "all" else step.number, ahead=ahead)
            ids, deal = reader.selection.id[reader.order(epoch)], oracle.at(start)
            shares = (deal.share(i, rank) for i in range(taken))
            loops.append([ids[a:b].tolist() for a, b in shares])
        elif step.what in ("save", "load"):
            getattr(oracle, step.what)()
        elif step.what == "set":
            oracle.set(step.number)
    return loops


def check_law(template, scripts, ranks):
    """Hold each loop that all ranks completed together against the epoch that it is of."""
    reader, together = template.reader, {}
    for script in scripts:
        for loop in script.loops:
            if loop.is_over and loop.ids and loop.label >= 0:
                together.setdefault(loop.when, []).append(loop)
    for loops in together.values():
        if len(loops) == ranks:
            came = [i for loop in loops for batch in loop.ids for i in batch]
            assert len(came) == len(set(came))
            left = reader.selection.id[reader.order(loops[0].epoch)[loops[0].start :]].tolist()
            assert set(came) <= set(left)
            assert len(left) - len(came) == reader.deal(loops[0].start, ranks).left_out
