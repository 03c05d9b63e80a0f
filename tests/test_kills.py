"""Every command is killed at operations spread over its run and at random times: see `kills`."""

import os
import subprocess
import sys
from pathlib import Path

import kills
import pytest

ROOT = Path(__file__).parents[1]
PARTS = 4


def test_the_plan_kills_each_command_often_enough():
    """60 of an ingest, over threads, forked processes and a cluster together, and 5 of each other command."""
    counts = {}
    for name, backend, points, times in kills.PLAN:
        of_backend = counts.setdefault(name, {})
        of_backend[backend] = of_backend.get(backend, 0) + points + times
    assert set(counts) == set(kills.COMMANDS)
    assert sum(counts["ingest"].values()) >= 60
    assert {"threads", "forked", "cluster"} <= set(counts["ingest"])
    assert min(sum(of_backend.values()) for of_backend in counts.values()) >= 5


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.skipif(
    sys.platform != "linux", reason="sessions are killed whole, and renames counted, on Linux"
)
def test_a_killed_command_that_is_run_again_was_never_killed(tmp_path, part):
    """The whole plan of `make kill`, in parts that run side by side."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "kills.py"), "--part", f"{part}/{PARTS}"],
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert ", 0 faults" in done.stdout
