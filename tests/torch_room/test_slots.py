"""Memory that workers and the training process share: what is kept is never written over, and little is made."""

import gc
import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

torch = pytest.importorskip("torch")
from loader_stores import make_store  # noqa: E402
from torch.utils.data import DataLoader, IterableDataset  # noqa: E402

import sarzarr as sz  # noqa: E402
from sarzarr.store.boxes import Boxes, write_boxes  # noqa: E402
from sarzarr.torch import ZarrPatchDataset  # noqa: E402
from sarzarr.torch.slots import INLINE, SLOTS, SPARE, Slots, shelves  # noqa: E402

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no files in memory")
VV = {"polarizations": "vv", "batch_size": 3, "shuffle": True, "seed": 4, "min_unsaturated": 0}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("slots"))


def loader(dataset, workers=2, **options):
    options = {"persistent_workers": True, "multiprocessing_context": "fork"} | options
    return DataLoader(dataset, batch_size=None, num_workers=workers, **options)


@pytest.fixture(autouse=True)
def nothing_arrived():
    """Forget what workers of other tests have sent: some live on with their loaders."""
    shelves.clear()


def arrived():
    """Return how many tensors came in slots, and how many slots were mapped for them, of workers that live."""
    return sum(s.taken for s in shelves.values()), sum(len(s.memory) for s in shelves.values())


def by_torch():
    """Return the storages that torch knows to be shared with another process, by their keys."""
    return set(torch.multiprocessing.reductions.shared_cache)


def files_of(pids):
    """Return the files of shared memory that torch made for some processes."""
    return [path for pid in pids for path in Path("/dev/shm").glob(f"torch_{pid}_*")]


# ------------------------------------------------------------------ the law
class Traffic(RuleBasedStateMachine):
    """A worker and a training process in one, which keep and drop what they like."""

    def __init__(self):
        super().__init__()
        self.slots = Slots()
        self.slots.board.is_known = True  # a descriptor that is sent costs a connection
        self.held = []  # by the worker: (value, tensor)
        self.sent = []  # messages
        self.kept = []  # by the training process
        self.value = 0

    @rule(size=st.sampled_from([INLINE + 1, 3 * INLINE]))
    def fill(self, size):
        slot = self.slots.take(size, 0)
        if slot is None:
            return
        slot.is_known = True
        self.value += 1
        flat = np.frombuffer(slot.memory, np.uint8, size)
        flat[:] = self.value % 251
        # what `BatchMemory` does: the slot is the worker's until no array looks into it

        weakref.finalize(flat, slot.give_back)
        self.held.append((self.value % 251, torch.from_numpy(flat)))

    @rule(size=st.sampled_from([1, INLINE, INLINE + 1]))
    def make_elsewhere(self, size):
        self.value += 1
        self.held.append((self.value % 251, torch.full((size,), self.value % 251, dtype=torch.uint8)))

    @rule(data=st.data())
    def send(self, data):
        if self.held:
            value, tensor = data.draw(st.sampled_from(self.held))
            for slot in (s for slots in self.slots._of_part.values() for s in slots):
                slot.is_known = True
            message = self.slots.message(tensor.untyped_storage())
            if message is not None:
                self.sent.append((value, pickle.dumps(message)))

    @rule()
    def receive(self):
        if self.sent:
            value, message = self.sent.pop(0)
            rebuild, arguments = pickle.loads(message)
            storage = rebuild(*arguments)
            self.kept.append((value, torch.empty(0, dtype=torch.uint8).set_(storage)))

    @rule(data=st.data(), whose=st.sampled_from(["held", "kept"]))
    def drop(self, data, whose):
        if some := getattr(self, whose):
            some.pop(data.draw(st.integers(0, len(some) - 1)))

    @rule(data=st.data())
    def write_into_what_was_received(self, data):
        if self.kept:
            number = data.draw(st.integers(0, len(self.kept) - 1))
            value, tensor = self.kept[number]
            if value not in [
                other for other, _ in self.held
            ]:  # the worker would see it, as torch's workers do
                self.value += 1
                self.kept[number] = self.value % 251, tensor.fill_(self.value % 251)

    @invariant()
    def what_is_looked_at_stays(self):
        for value, tensor in self.kept:
            assert bool((tensor == value).all())
        assert all(len(slots) <= SLOTS for slots in self.slots._of_part.values())

    def teardown(self):
        self.held.clear(), self.kept.clear()
        while self.sent:
            self.receive()
        self.kept.clear()
        gc.collect()
        shelves.pop(self.slots.key, None)


Traffic.TestCase.settings = settings(max_examples=10, stateful_step_count=40, deadline=None)
TestTraffic = Traffic.TestCase


def test_pages_of_slots_that_idle_go_back_to_the_system():
    slots = Slots()
    taken = [slots.take(1 << 20, 0) for _ in range(SLOTS)]
    assert slots.take(1 << 20, 0) is None
    for slot in taken:
        np.frombuffer(slot.memory, np.uint8)[:] = 1
        slot.give_back()
    slots.take(1 << 20, 0)
    with_pages = [os.fstat(slot.file).st_blocks * 512 for slot in taken]
    assert with_pages == [1 << 20] * SPARE + [0] * (SLOTS - SPARE)
    assert slots.take(1 << 21, 0).nbytes == 1 << 21  # in the place of one that is too small


# ------------------------------------------------------------------ epochs
METHODS = [
    ("fork", "file_descriptor"),
    ("fork", "file_system"),
    pytest.param("spawn", "file_descriptor", marks=pytest.mark.slow),
    pytest.param("forkserver", "file_system", marks=pytest.mark.slow),
]


@pytest.fixture
def strategy(request):
    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy(request.param)
    yield
    torch.multiprocessing.set_sharing_strategy(before)


@pytest.mark.parametrize(("method", "strategy"), METHODS, indirect=["strategy"])
def test_batches_come_in_slots_and_those_that_are_kept_stay(method, strategy, store):
    truth = sz.PatchReader(store, **VV)
    batches = loader(ZarrPatchDataset(store.root, **VV), multiprocessing_context=method)
    random, kept, steps, known = np.random.default_rng(0), [], 0, by_torch()
    for _ in range(3):
        for expected, batch in zip(truth, batches, strict=True):
            assert np.array_equal(batch.numpy(), expected)
            steps += 1
            if random.random() < 0.2:
                kept.append((expected, batch[1:]))
        taken, mapped = arrived()
        assert taken == steps
        assert mapped <= 2 * SLOTS
        assert by_torch() == known
        assert files_of([worker.pid for worker in batches._iterator._workers]) == []
    for expected, batch in kept:
        assert np.array_equal(batch.numpy(), expected[1:])


def test_slots_are_filled_again_epoch_after_epoch(store):
    batches = loader(ZarrPatchDataset(store, **VV), 1)
    mapped = []
    for epoch in range(4):
        for number, _ in enumerate(batches):
            if number == 5 and epoch % 2:
                break  # the others are on their way, and are not lost
        mapped.append(arrived()[1])
    assert mapped[0] <= 11  # five made ahead, of which one leaves; two on their way, and those of the loop
    assert mapped[-1] <= 13
    del batches
    gc.collect()


def test_a_loop_that_keeps_everything_gets_the_rest_from_torch(store):
    known = by_torch()
    batches = loader(ZarrPatchDataset(store, **VV | {"batch_size": 1}), 1)
    kept = [batch for _ in range(3) for batch in batches]
    truth = sz.PatchReader(store, **VV | {"batch_size": 1})
    expected = [batch for _ in range(3) for batch in truth]
    assert len(kept) > 3 * SLOTS
    taken, mapped = arrived()
    assert taken == mapped == 2 * SLOTS  # in which they were made, and into which the next were copied
    assert len(by_torch() - known) == len(kept) - taken
    for mine, other in zip(kept, expected, strict=True):
        assert np.array_equal(mine.numpy(), other)
    del kept, mine
    assert len(list(batches)) == len(truth)
    assert arrived()[0] > taken  # those that came back


@pytest.mark.parametrize("there_are", [True, False], ids=["too many", "none"])
def test_without_files_in_memory_torch_sends_batches(there_are, store, monkeypatch):
    def refused(*_):
        raise OSError("no more files")

    if there_are:
        monkeypatch.setattr(os, "memfd_create", refused)
    else:
        monkeypatch.delattr(os, "memfd_create")
    truth, known = sz.PatchReader(store, **VV), by_torch()
    batches = loader(ZarrPatchDataset(store, **VV))
    for expected, batch in zip(truth, batches, strict=True):
        assert np.array_equal(batch.numpy(), expected)
        assert batch.is_shared()
    assert len(by_torch() - known) == len(truth)


def halved(batch):
    return {"image": batch / 2, "means": batch.mean((1, 2, 3)), "itself": batch}


def test_tensors_of_a_transform_come_in_slots_and_small_ones_in_the_message(store):
    known = by_torch()
    batches = loader(ZarrPatchDataset(store, transform=halved, **VV))
    kept = list(zip(sz.PatchReader(store, **VV), batches, strict=True))
    assert by_torch() == known
    for expected, batch in kept:
        assert np.array_equal(batch["itself"].numpy(), expected)
        assert np.array_equal(batch["image"].numpy(), expected / 2)
        assert np.array_equal(batch["means"].numpy(), torch.from_numpy(expected).mean((1, 2, 3)).numpy())
        batch["means"] += 1  # may be written to


@pytest.mark.parametrize("with_meta", [False, True])
def test_boxes_flags_and_facts_make_no_files_of_their_own(with_meta, store):
    corner = np.random.default_rng(1).integers(0, 800, (40, 2))
    boxes = np.hstack([corner, corner + 20]).astype(np.float32)
    write_boxes(store, Boxes.gathered({"a": (boxes, ["ship"] * 40)}, {"a": (1100, 1300)}))
    known = by_torch()
    options = VV | {"boxes": True, "flags": True, "with_meta": with_meta}
    batches = loader(ZarrPatchDataset(store, **options))
    made = list(batches)
    assert by_torch() == known
    assert arrived()[0] == 2 * len(made)


class Twice(IterableDataset):
    """A dataset within a worker that delivers each batch twice, and whole batches late."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        before = None
        for batch in self.batches:
            yield batch
            if before is not None:
                yield torch.stack([before, batch])
            yield batch
            before = batch


def test_a_batch_that_a_worker_sends_twice_or_keeps_is_right_each_time(store):
    truth = list(sz.PatchReader(store, **VV | {"drop_last": True}))
    expected = []
    for number, batch in enumerate(truth):
        expected += [batch, *([np.stack([truth[number - 1], batch])] if number else []), batch]
    came = loader(Twice(ZarrPatchDataset(store, **VV | {"drop_last": True})), 1)
    kept = []
    for batch, other in zip(came, expected, strict=True):
        assert np.array_equal(batch.numpy(), other)
        kept.append(batch)
    for batch, other in zip(kept, expected, strict=True):
        assert np.array_equal(batch.numpy(), other)


BEGIN = """
import gc, os, signal, sys, time
import numpy as np
import torch
from torch.utils.data import DataLoader
import sarzarr as sz
from sarzarr.torch import ZarrPatchDataset
from sarzarr.torch.slots import shelves

VV = {"polarizations": "vv", "batch_size": 3, "shuffle": True, "seed": 4, "min_unsaturated": 0}
torch.multiprocessing.set_sharing_strategy(sys.argv[2])

def left():
    return [f for f in os.listdir("/dev/shm") if any(f.startswith(f"torch_{pid}_") for pid in [os.getpid(), *pids])]
"""
MAKE = """
dataset = ZarrPatchDataset(sys.argv[1], **VV)
loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)
batches = iter(loader)
pids = [worker.pid for worker in batches._workers]
"""
FORKED = """
held = [next(batches) for _ in range(4)]
expected = [batch.numpy().copy() for batch in held]
go, going = os.pipe()
child = os.fork()
if not child:  # reads what the training process has dropped, and drops what that one still reads
    os.read(go, 1)
    same = all(np.array_equal(b.numpy(), e) for b, e in zip(held[:2], expected))
    os._exit(0 if same else 1)
other = os.fork()
if not other:
    held.clear()
    gc.collect()
    os._exit(0)
assert os.waitpid(other, 0)[1] == 0
del held[:2]
for _ in range(3):
    for _ in batches:
        pass
    batches = iter(loader)
assert all(np.array_equal(b.numpy(), e) for b, e in zip(held, expected[2:]))
os.write(going, b"1")
assert os.waitpid(child, 0)[1] == 0
del held, batches, loader, _
"""
KILLED = """
kept = next(batches)
expected = kept.numpy().copy()
assert sum(len(shelf.memory) for shelf in shelves.values())
os.kill(pids[1], signal.SIGKILL)
try:
    try:
        list(batches)
    except (ConnectionError, EOFError):  # a batch was on its way
        pass
    time.sleep(60)
except RuntimeError as error:
    assert "DataLoader worker" in str(error), error
del batches, loader
gc.collect()
assert np.array_equal(kept.numpy(), expected)
del kept, dataset
gc.collect()
assert not shelves
assert left() == []
"""
CLOSED = """
for batch in batches:
    pass
assert {pid for pid, _ in shelves} == {*pids}, "those of workers that ended are forgotten"
del batches, batch, loader, dataset
gc.collect()
assert not shelves
assert left() == []
maps = open("/proc/self/maps").read()
assert "memfd:sarzarr" not in maps
"""


@pytest.mark.parametrize("strategy", ["file_descriptor", pytest.param("file_system", marks=pytest.mark.slow)])
def test_forks_see_what_they_were_given_and_workers_leave_nothing_behind(strategy, store):
    code = BEGIN + MAKE + FORKED + MAKE + CLOSED + MAKE + KILLED
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, str(store.root), strategy]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_process_that_did_not_get_the_file_finds_it_by_its_place():
    slots = Slots()
    slot = slots.take(INLINE + 1, 0)
    flat = np.frombuffer(slot.memory, np.uint8, INLINE + 1)
    flat[:] = 7
    rebuild, arguments = slots.message(torch.from_numpy(flat).untyped_storage())
    key, board, place, where = arguments
    for copy in (board[-1], place[-1]):
        os.close(copy.detach())
    storage = rebuild(key, (*board[:-1], None), (*place[:-1], None), where)
    assert torch.empty(0, dtype=torch.uint8).set_(storage).unique().tolist() == [7]
    del storage
    shelves.pop(key)
