"""Forked workers: whoever is killed, whenever, every call comes back or is said to be lost; nobody waits for ever."""

import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")

KILLED = """
import os, random, signal, time
from sarzarr.errors import IngestError
from sarzarr.tasks import ForkedWorkers

def call(i):
    time.sleep(random.random() * 0.003)
    return i, bytes(random.choice((10, 30_000, 300_000)))  # more than a pipe holds: killed within a message, too

random.seed(0)
seen = {True: 0, False: 0}
for victims in [1, 2, 3] * 8:
    with ForkedWorkers(3) as workers:
        futures = [workers.submit(call, i) for i in range(40)]
        for worker in workers._workers[:victims]:
            time.sleep(random.random() * 0.03 * (victims < 3))
            os.kill(worker.process.pid, signal.SIGKILL)
        try:
            assert [future.result()[0] for future in futures] == list(range(40))
            seen[True] += 1
        except IngestError:
            assert victims == 3
            seen[False] += 1
print(seen[True], seen[False])
"""

FAILED = """
from sarzarr.tasks import ForkedWorkers

with ForkedWorkers(2) as workers:
    wrong = workers.submit(divmod, 1, 0)
    right = [workers.submit(divmod, 7, i) for i in range(1, 20)]
    assert isinstance(wrong.exception(), ZeroDivisionError)
    assert [future.result() for future in right] == [divmod(7, i) for i in range(1, 20)]
"""

INTERRUPTED = """
import time
from sarzarr.tasks import ForkedWorkers

with ForkedWorkers(2) as workers:
    future = workers.submit(time.sleep, 1000)
    print("begun", flush=True)
    future.result()
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


def test_calls_of_killed_workers_are_run_by_others():
    done = run(KILLED)
    assert done.returncode == 0, done.stderr
    whole, lost = map(int, done.stdout.split())
    assert (whole, lost) == (16, 8)


def test_a_call_that_fails_fails_alone():
    done = run(FAILED)
    assert done.returncode == 0, done.stderr


def test_an_interrupt_ends_workers_at_once():
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as it:
        assert it.stdout.readline() == b"begun\n"
        time.sleep(0.2)
        it.send_signal(signal.SIGINT)
        _, said = it.communicate(timeout=60)  # the pipes end with the last worker
    assert it.returncode != 0
    assert said.count(b"KeyboardInterrupt") == 1
    assert b"was killed" not in said
