"""Clusters that are named, started, lost and killed: an error that says what happened, or the same bytes."""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
from conftest import speckle, tree_hash, write_band

import sarzarr as sz
from sarzarr import tasks
from sarzarr.errors import IngestError, InvalidInputError
from sarzarr.tasks import cluster

KNOWN = {"quantity": "sigma0", "representation": "power"}
LOCAL = {
    "host": "127.0.0.1",
    "dashboard_address": None,
    "threads_per_worker": 1,
    "silence_logs": logging.CRITICAL,
}
LOCAL |= {"scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}  # other tests run at the same time


# ------------------------------------------------------------------ an address
@contextlib.contextmanager
def listener(answer=b""):
    """Take connections on a port, and say ``answer`` to each, and nothing more."""
    held = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)

        def take():
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])
                    held[-1].sendall(answer)

        thread = threading.Thread(target=take)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in held:
        connection.close()


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (b"", "no answer within 0.5 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ""),
        (b"SSH-2.0-OpenSSH_9.6\r\n", ""),
        (b"\0" * 64, ""),
    ],
    ids=["silent", "http", "ssh", "zeros"],
)
def test_what_answers_at_an_address_and_is_no_scheduler_is_said(answer, got, monkeypatch):
    monkeypatch.setattr(tasks, "SCHEDULER_PATIENCE_S", 0.5)
    with listener(answer) as address, pytest.raises(InvalidInputError) as error, cluster(scheduler=address):
        pass
    assert f"a Dask scheduler was expected at {address!r}, got {got}" in str(error.value)
    assert "not that of its dashboard" in str(error.value)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://x", "http://127.0.0.1:1"])
def test_an_address_where_nothing_is_is_said(address, monkeypatch):
    monkeypatch.setattr(tasks, "SCHEDULER_PATIENCE_S", 0.5)
    with (
        pytest.raises(InvalidInputError, match="a Dask scheduler was expected at"),
        cluster(scheduler=address),
    ):
        pass


@pytest.mark.parametrize("address", ["", " "])
def test_an_empty_address_is_a_mistake_in_usage_and_runs_nothing(address, tmp_path):
    path = write_band(tmp_path / "a_vv.tif", speckle((300, 300)))
    done = ingest_by([path], tmp_path / "s.zarr", "--scheduler", address)
    assert done.returncode == 2
    assert "the address of a scheduler was expected, got" in done.stderr
    assert not (tmp_path / "s.zarr").exists()


def ingest_by(files, root, *options):
    """Run the command, and return how it ended."""
    command = [
        sys.executable,
        "-m",
        "sarzarr",
        "ingest",
        *map(str, files),
        "-o",
        str(root),
        "--shard",
        "256",
        "-q",
    ]
    command += ["--quantity", "sigma0", "--representation", "power", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


# ------------------------------------------------------------------ processes that may have no children
def pooled(paths, root, worth):
    tasks.PROCESS_WORTH = worth
    store = sz.ingest(sz.plan_ingest(paths, root, shard=256, **KNOWN))
    said = ""
    try:
        with cluster(workers=1):
            pass
    except InvalidInputError as error:
        said = str(error)
    return store.scenes, said


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_daemonic_process_ingests_with_threads_and_the_same_bytes(method, tmp_path):
    paths = [write_band(tmp_path / f"{n}_vv.tif", speckle((700, 600), seed=i)) for i, n in enumerate("ab")]
    expected = sz.ingest(sz.plan_ingest(paths, tmp_path / "here" / "s.zarr", shard=256, **KNOWN))
    if method == "fork":
        code = f"""
import sys; sys.path[:0] = {sys.path!r}
import multiprocessing
from test_schedulers import pooled
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(*pool.apply(pooled, ({[str(p) for p in paths]!r}, {str(tmp_path / "pool" / "s.zarr")!r}, 0)), sep="\\n")
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        scenes, said = done.stdout.splitlines()
    else:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            scenes, said = map(str, pool.apply(pooled, (paths, tmp_path / "pool" / "s.zarr", 0)))
    assert scenes == "('a', 'b')"
    assert "a process that may have children was expected for 1 workers, got a daemonic one" in said
    assert tree_hash(tmp_path / "pool" / "s.zarr") == tree_hash(expected.root)


# ------------------------------------------------------------------ clusters, real ones
@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two scenes of many blocks, with zeros to decide."""
    folder = tmp_path_factory.mktemp("raw")
    for i, name in enumerate(("a_vv", "a_vh", "b_vv")):
        raw = speckle((2600, 2300), seed=i)
        raw[:300, :260] = 0
        raw[400:420, 500:530] = 0
        write_band(folder / f"{name}.tif", raw, tiles=128 if i else 0)
    return sorted(folder.glob("*.tif"))


@pytest.fixture(scope="module")
def reference(files, tmp_path_factory):
    """The bytes of the store, made by threads."""
    store = sz.ingest(
        sz.plan_ingest(files, tmp_path_factory.mktemp("reference") / "s.zarr", shard=256, **KNOWN)
    )
    return tree_hash(store.root)


@pytest.mark.slow
def test_a_cluster_of_our_own_listens_on_loopback_alone(files, reference, tmp_path, monkeypatch):
    """And its workers stand in another folder than this process, whose paths are relative."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    me = psutil.Process()
    before = {c.laddr for c in me.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    with cluster(workers=2):
        family = [me, *me.children(recursive=True)]
        assert len(family) > 2
        heard = {
            c.laddr
            for one in family
            for c in one.net_connections("inet")
            if c.status == psutil.CONN_LISTEN or not c.raddr
        } - before
        assert heard
        assert {address.ip for address in heard} == {"127.0.0.1"}
        monkeypatch.chdir(tmp_path)
        relative = [os.path.relpath(path, tmp_path) for path in files]
        store = sz.ingest(sz.plan_ingest(relative, "s.zarr", shard=256, **KNOWN))
        assert store.scenes == ("a", "b")
    assert tree_hash(tmp_path / "s.zarr") == reference
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_worker_is_no_scheduler(monkeypatch):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, **LOCAL, processes=False, protocol="tcp://") as own:
        (worker,) = own.workers.values()
        with pytest.raises(InvalidInputError, match="got a Worker"), cluster(scheduler=worker.address):
            pass
        with cluster(scheduler=own.scheduler_address):
            assert tasks.gather([(divmod, (7, 2))]) == [(3, 1)]


def kill_me(_=None):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_no_worker_survives_is_said():
    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, **LOCAL) as own,
        Client(own),
        pytest.raises(
            IngestError, match=r"a worker that does the task was expected, got 1 killed, the last at tcp://"
        ),
    ):
        tasks.compute([(kill_me, ())], print)


def test_a_cluster_that_has_lost_its_workers_is_said(monkeypatch, caplog):
    from distributed import Client, LocalCluster

    monkeypatch.setattr(tasks, "SILENCE_S", 0.2)
    monkeypatch.setattr(tasks, "LOST_S", 0.5)
    with (
        LocalCluster(n_workers=1, **LOCAL, processes=False, protocol="tcp://") as own,
        Client(own) as client,
    ):
        assert tasks.gather([(divmod, (7, 2))]) == [(3, 1)]
        client.retire_workers(list(client.nthreads()))
        with pytest.raises(
            IngestError, match=r"workers of the cluster at .* were expected, got none for 0\.5 s"
        ):
            tasks.gather([(divmod, (7, 2))] * 3)
    assert "waiting for one" in caplog.text


def test_workers_that_stay_paused_are_said_and_what_is_done_is_not_redone(
    files, tmp_path, monkeypatch, caplog
):
    import dask
    from distributed import Client, LocalCluster

    monkeypatch.setattr(tasks, "SILENCE_S", 0.3)
    monkeypatch.setattr(tasks, "PAUSED_S", 0.6)
    root = tmp_path / "s.zarr"
    shares = {f"distributed.worker.memory.{k}": v for k, v in (("pause", 1e-6), ("target", 0), ("spill", 0))}
    with (
        dask.config.set(shares),
        LocalCluster(n_workers=2, **LOCAL, processes=False, protocol="tcp://", memory_limit="4GB") as own,
        Client(own),
        pytest.raises(IngestError) as error,
    ):
        sz.ingest(sz.plan_ingest(files[:1], root, shard=256, **KNOWN))
    said = str(error.value)
    assert (
        f"workers of the cluster at {own.scheduler_address} that take tasks were expected, got none" in said
    )
    assert said.count("is paused with") == 2
    assert "in use. Give each worker more memory (fewer --workers" in said
    assert "no worker works: tcp://" in caplog.text
    assert sz.ingest(sz.plan_ingest(files[:1], root, shard=256, **KNOWN)).scenes == ("a",)


class OfScene:
    """Work for a scene that takes more memory than a worker has."""

    scene = "huge"


def take_memory(_):
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1 << 20) * 32))
        time.sleep(0.01)


@pytest.mark.slow
def test_a_scene_for_which_workers_die_of_memory_is_named():
    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, **LOCAL, memory_limit="700MB") as own,
        Client(own),
        pytest.raises(
            IngestError, match=r"does the task of scene 'huge' was expected, got 1 killed"
        ) as error,
    ):
        tasks.compute([(take_memory, (OfScene(),))], print)
    assert "or blocks less of it (--memory), then run the same command again" in str(error.value)


def test_a_cluster_that_restarts_in_the_middle_is_said():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, **LOCAL, processes=False, protocol="tcp://") as own,
        Client(own) as client,
        pytest.raises(
            IngestError, match=r"connection to it lost, or its work cancelled. Start it again, then run"
        ),
    ):
        tasks.compute([(time.sleep, (0.2,))] * 9, lambda _: client.restart(wait_for_workers=False))


def test_an_asynchronous_client_is_refused_with_a_way_that_works(files, tmp_path):
    from distributed import Client, LocalCluster

    plan = sz.plan_ingest(files[:1], tmp_path / "s.zarr", shard=256, **KNOWN)

    def work(address):
        with Client(address):
            return sz.ingest(plan)

    async def main():
        options = {**LOCAL, "n_workers": 1, "processes": False, "protocol": "tcp://", "asynchronous": True}
        async with LocalCluster(**options) as own, Client(own, asynchronous=True):
            with pytest.raises(
                InvalidInputError, match=r"got an asynchronous one of tcp://.*asyncio\.to_thread"
            ):
                sz.ingest(plan)
            return await asyncio.to_thread(work, own.scheduler_address)

    assert asyncio.run(main()).scenes == ("a",)


@pytest.mark.slow
def test_a_worker_that_is_killed_twice_over_changes_no_byte(files, reference, tmp_path):
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, **LOCAL) as own, Client(own) as client:
        seen = []

        def kill_some(progress):
            seen.append(progress.done)
            if len(seen) in (1, 4):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

        store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", shard=256, **KNOWN), progress=kill_some)
    assert len(seen) > 4
    assert tree_hash(store.root) == reference
    assert sorted(tmp_path.iterdir()) == [store.root]


@contextlib.contextmanager
def scheduler(port=0):
    """Start a scheduler as people do, and yield its process and port."""
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, "--no-dashboard"], stderr=subprocess.DEVNULL) as process:
        try:
            yield process, port
        finally:
            process.kill()


@contextlib.contextmanager
def workers_of(port, folder):
    """Start two workers that stand in another folder."""
    command = [sys.executable, "-m", "dask", "worker", f"tcp://127.0.0.1:{port}", "--host", "127.0.0.1"]
    command += [
        "--nworkers",
        "2",
        "--nthreads",
        "1",
        "--no-dashboard",
        "--local-directory",
        str(folder / "spill"),
    ]
    folder.mkdir()
    found = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}  # as this process finds sarzarr
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=folder, env=os.environ | found) as process:
        family = [psutil.Process(process.pid)]
        try:
            yield
        finally:
            for one in [*family[0].children(recursive=True), *family]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [False, True], ids=["dies", "restarts"])
def test_a_scheduler_that_is_lost_in_the_middle_is_said_and_what_is_done_is_not_redone(
    restarts, files, reference, tmp_path, monkeypatch
):
    monkeypatch.setattr(tasks, "SCHEDULER_PATIENCE_S", 10.0)
    root, seen = tmp_path / "s.zarr", []
    with contextlib.ExitStack() as later:
        process, port = later.enter_context(scheduler())
        address = f"tcp://127.0.0.1:{port}"
        later.enter_context(workers_of(port, tmp_path / "elsewhere"))

        def kill_it(progress):
            seen.append(progress.done)
            if len(seen) == 3:
                process.kill()
                process.wait()
                if restarts:
                    later.enter_context(scheduler(port))

        lost = f"the Dask scheduler at {address} was expected, got the connection to it lost"
        with pytest.raises(IngestError, match=lost), cluster(scheduler=address):
            sz.ingest(sz.plan_ingest(files, root, shard=256, **KNOWN), progress=kill_it)
    receipts = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("receipts/*.json")}
    assert len(receipts) >= 3
    again = []
    sz.ingest(sz.plan_ingest(files, root, shard=256, **KNOWN), progress=again.append)
    assert tree_hash(root) == reference
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "s.zarr"]
    assert [p.name for p in (tmp_path / "elsewhere").iterdir() if p.name != "spill"] == []


@pytest.mark.slow
def test_a_scheduler_that_is_asked_for_is_used_by_the_command(files, reference, tmp_path):
    with scheduler() as (_, port), workers_of(port, tmp_path / "elsewhere"):
        done = ingest_by(files, tmp_path / "s.zarr", "--scheduler", f"tcp://127.0.0.1:{port}")
    assert done.returncode == 0, done.stderr
    assert tree_hash(tmp_path / "s.zarr") == reference
