"""The only place that starts processes and Dask work."""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Any, Final
from uuid import uuid4
from weakref import WeakSet

import dask
import dask.multiprocessing
import dask.threaded
from dask.callbacks import Callback

from sarzarr.errors import IngestError, InvalidInputError
from sarzarr.text import listed, size_text

Task = tuple[Callable[..., Any], tuple[Any, ...]]
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
log = logging.getLogger(__name__)
WAVE_TASKS_PER_THREAD: Final = 64
"""Tasks that are handed to the scheduler at once, for each of its threads: bounds its graph and memory."""
TOKEN: Final = ".working"
"""The file of a `workplace`."""
PROCESS_WORTH: Final = 100_000_000
"""Source bytes from which forked processes pay: threads hand each other Python's lock at every NumPy call."""
SCHEDULER_PATIENCE_S: Final = 10.0
"""Seconds that a scheduler has to answer, before it is said to be none."""
SILENCE_S: Final = 15.0
"""Seconds without a result after which a cluster is asked for its workers."""
LOST_S: Final = 300.0
"""Seconds that a cluster which had workers may be without any: they may come back."""
PAUSED_S: Final = 60.0
"""Seconds that workers may be paused while none of the cluster works: memory may become free."""
POLL_S: Final = 0.01
"""Seconds between two looks for results of a cluster."""
_AGAIN: Final = "run the same command again: what is done is not redone."
_MORE_MEMORY: Final = (
    "Give each worker more memory (fewer --workers, or `dask worker --memory-limit`), or blocks less of it "
    "(--memory)"
)
_STAFFED: Final[WeakSet[Any]] = WeakSet()
"""Clients whose clusters have had workers: that others have none yet is no loss, they may wait in a queue."""


@dataclass(frozen=True)
class Progress:
    """Work done of all of it, as a job reports it after each task.

    The unit is the job's: `ingest` counts bytes of the pixels that it makes, in their sources' dtypes, layers too,
    and with them those of an earlier run; `copy_store` bytes of the stored pixels, decoded. `import_chips` calls
    ``progress`` with (chips done, chips) after each shard. An index reports nothing: it is cut in one step.
    """

    done: int
    """Bytes whose blocks are written."""
    total: int
    """Bytes of all, the last value of ``done``."""
    scene: str
    """The scene that the last block belongs to."""


@contextmanager
def processes(bytes_in: int) -> Iterator[None]:
    """Let this machine's processors work on ``bytes_in`` source bytes as processes, where that is safe and pays.

    They are forked, which takes milliseconds and runs no script again; so only where this process has
    no other Python thread, is not daemonic (as workers of a `multiprocessing.Pool` or a DataLoader are, which may
    have no children), no cluster is active and Dask's configuration names no scheduler. Elsewhere nothing changes,
    and threads do the work. Raises `IngestError` where every process was killed.
    """
    chosen = active_client() is not None or dask.config.get("scheduler", None) or _is_daemonic()
    alone = sys.platform.startswith("linux") and threading.active_count() == 1
    if chosen or not alone or bytes_in < PROCESS_WORTH or cpu_count() < 2:
        yield
        return
    with (
        ForkedWorkers(cpu_count()) as workers,
        # Schedulers are functions here and below: for their names Dask imports all of distributed, 0.3 s.
        dask.config.set(scheduler=dask.multiprocessing.get, pool=workers, chunksize=1),
    ):
        yield


def _is_daemonic() -> bool:
    return bool(multiprocessing.current_process().daemon)


@dataclass(frozen=True)
class Workplace:
    """A folder that work is done in, and the file in it by which a worker knows that it sees the same one."""

    token: Path
    """The file's absolute path; it is there as long as the work goes on."""
    content: str
    """A word in it that no other file has."""
    machine: str
    """The name of the machine that it was left from."""
    release: str
    """The release of sarzarr there."""

    def check(self) -> None:
        """Raise `IngestError` unless the file is seen from here, with its words, by the same release."""
        where = worker_name() or "this machine"
        if self.release != (release := _release()):
            raise IngestError(
                f"sarzarr {self.release} was expected where work is done, got {release} on {where}. Install the same "
                "on all machines, then run the same command again."
            )
        try:
            if self.token.read_text() == self.content:
                return
            got = "another file"
        except OSError as error:
            got = f"none ({error.strerror})"
        raise IngestError(
            f"{self.token} was expected as {self.machine} sees it, got {got} on {where}. "
            "Workers must see the same file system under the same path: mount it there, or leave those workers out; "
            "then run the same command again."
        )


@cache
def _release() -> str:
    return version("sarzarr")


_WORKPLACE: ContextVar[Workplace | None] = ContextVar("workplace", default=None)


@contextmanager
def workplace(folder: Path) -> Iterator[Workplace]:
    """Leave a file in a folder; inside, every task begins by finding it, so that no worker writes elsewhere.

    It goes at the end, and tasks that were left over then do nothing.
    """
    token = folder.absolute() / TOKEN
    here = Workplace(token, uuid4().hex, socket.gethostname(), _release())
    token.write_text(here.content)
    before = _WORKPLACE.set(here)
    try:
        yield here
    finally:
        _WORKPLACE.reset(before)
        token.unlink(missing_ok=True)


def _there(tasks: Sequence[Task]) -> Sequence[Task]:
    """Return tasks that each begin by finding the `workplace` they are for, if any."""
    here = _WORKPLACE.get()
    return tasks if here is None else [(_begin, (here, *task)) for task in tasks]


def _begin(here: Workplace, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    here.check()
    return function(*args)


def worker_name() -> str:
    """Return the name of the cluster's worker that this runs on, for people; empty where it runs on none."""
    if "distributed" not in sys.modules:
        return ""
    from distributed import get_worker

    try:
        return f"worker {get_worker().address} ({socket.gethostname()}, process {os.getpid()})"
    except ValueError:
        return ""


def active_client() -> Any:
    """Return the active ``dask.distributed`` client, or None; `InvalidInputError` where it is asynchronous."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        client = default_client()
    except ValueError:
        return None
    if client.asynchronous:
        raise InvalidInputError(
            f"a Dask client that waits for results was expected, got an asynchronous one of {_address(client)}. Make "
            "one inside `with Client(address):`, without asynchronous=True; within an event loop, in a function that "
            "asyncio.to_thread calls."
        )
    return client


def cpu_count() -> int:
    """Return how many processors this process may use: affinity and cgroup quota, as Dask finds them."""
    from dask.system import CPU_COUNT

    return max(int(CPU_COUNT), 1)


def wave_size() -> int:
    """Return how many tasks are handed to the scheduler at once."""
    client = active_client()
    threads = sum(client.nthreads().values()) if client is not None else cpu_count()
    return WAVE_TASKS_PER_THREAD * max(int(threads), 1)


def compute(tasks: Sequence[Task], take: Callable[[Any], None]) -> None:
    """Run tasks on whatever Dask runs on, and hand each result to ``take`` in this thread, as it comes.

    A task may be run again where its worker was killed, and twice at once where it was only thought to be.

    Raises `IngestError` where a cluster is lost or its workers stay paused, or every worker that a task was given to
    was killed; `InvalidInputError` where the client is asynchronous.
    """
    tasks, client = _there(tasks), active_client()
    if client is not None:
        with _told(client) as scenes:
            for future in _finished(client, _submitted(client, tasks, scenes)):
                take(future.result())
                future.release()
        return

    class Taker(Callback):  # type: ignore[misc]
        def _posttask(self, key: Any, result: Any, *_: Any) -> None:
            take(result)

    with Taker():
        _here(tasks)


def gather(tasks: Sequence[Task]) -> list[Any]:
    """Run tasks as `compute`, which says what it raises, and return their results in their order."""
    tasks, client = _there(tasks), active_client()
    if client is None:
        return list(_here(tasks))
    with _told(client) as scenes:
        futures = _submitted(client, tasks, scenes)
        results = {future.key: future.result() for future in _finished(client, futures)}
    return [results[future.key] for future in futures]


def _finished(client: Any, futures: Sequence[Any]) -> Iterator[Any]:
    """Yield futures as they finish; a cluster that is silent is asked whether its workers work."""
    from distributed import as_completed

    _workers(client)
    waiting, heard, since = as_completed(futures), time.monotonic(), 0.0
    while not waiting.is_empty():
        if done := waiting.next_batch(block=False):
            yield from done
            heard, since = time.monotonic(), 0.0
            continue
        time.sleep(POLL_S)
        if time.monotonic() - heard < SILENCE_S:
            continue
        heard = time.monotonic()
        count = _workers(client)
        paused = _paused(client) if count else ""
        if count and not paused:
            since = 0.0
        elif not since:
            since = heard
            none_answers = f"no worker of the cluster at {_address(client)} answers"
            log.warning("%s: waiting for one", f"no worker works: {paused}" if paused else none_answers)
        elif paused and heard - since >= PAUSED_S:
            raise IngestError(
                f"workers of the cluster at {_address(client)} that take tasks were expected, got none for "
                f"{PAUSED_S:g} s: {paused}. {_MORE_MEMORY}, then {_AGAIN}"
            )
        elif not paused and client in _STAFFED and heard - since >= LOST_S:
            raise IngestError(
                f"workers of the cluster at {_address(client)} were expected, got none for {LOST_S:g} s. Their "
                f"logs say why (too little memory, another release of sarzarr); start some, then {_AGAIN}"
            )


def _workers(client: Any) -> int:
    """Return how many workers a cluster has; 0 where it does not say."""
    try:
        count = len(client.nthreads(callback_timeout=SILENCE_S))
    except Exception:  # a client that has closed itself has no scheduler to ask
        return 0
    if count:
        _STAFFED.add(client)
    return count


def _paused(client: Any) -> str:
    """Return which workers are paused, and with what memory, for people; nothing while any worker runs a task."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if any(one["metrics"].get("task_counts", {}).get("executing") for one in workers.values()):
        return ""
    paused = {name: one for name, one in workers.items() if one["status"] == "paused"}
    return listed(
        f"{name} is paused with {size_text(one['metrics'].get('memory', 0))} of "
        f"{size_text(one['memory_limit'])} in use"
        for name, one in paused.items()
    )


def _scene_of(task: Task) -> str:
    """Return the id of the scene that a task is for; empty where it is for none, or several."""
    _, args = task
    nested = [one for arg in args for one in (arg if isinstance(arg, tuple) else (arg,))]
    scenes = {one.scene for one in nested if isinstance(getattr(one, "scene", None), str)}
    return scenes.pop() if len(scenes) == 1 else ""


@contextmanager
def _told(client: Any) -> Iterator[dict[str, str]]:
    """Say what happened to a cluster where it is lost; yield the scenes of its tasks by key, to be filled."""
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    address, scenes = _address(client), dict[str, str]()
    try:
        yield scenes
    except KilledWorker as error:
        scene = scenes.get(error.task)
        raise IngestError(
            f"a worker that does the task{f' of scene {scene!r}' if scene else ''} was expected, got "
            f"{error.allowed_failures + 1} killed, the last at {error.last_worker.address}, for memory perhaps. "
            f"{_MORE_MEMORY}, then {_AGAIN}"
        ) from error
    except (CancelledError, CommClosedError) as error:
        raise IngestError(
            f"the Dask scheduler at {address} was expected, got the connection to it lost, or its work cancelled. "
            f"Start it again, then {_AGAIN}"
        ) from error


def _address(client: Any) -> str:
    return str(getattr(client.scheduler, "address", "its address"))


def _submitted(client: Any, tasks: Sequence[Task], scenes: dict[str, str]) -> list[Any]:
    """Return the future of each task, and put down its scene by the future's key."""
    futures = [client.submit(function, *args, pure=False) for function, args in tasks]
    scenes |= {future.key: _scene_of(task) for future, task in zip(futures, tasks, strict=True)}
    return futures


def _here(tasks: Sequence[Task]) -> tuple[Any, ...]:
    """Run tasks in this process, or as Dask's configuration says."""
    delayed = (dask.delayed(function, pure=False)(*args) for function, args in tasks)
    if dask.config.get("scheduler", None):
        return tuple(dask.compute(*delayed))
    # Threads of our own, because those that Dask keeps are not there in a process that is forked later, which would
    # wait for them.
    with ThreadPoolExecutor(cpu_count()) as pool:
        return tuple(dask.compute(*delayed, scheduler=dask.threaded.get, pool=pool))


@contextmanager
def cluster(*, scheduler: str | None = None, workers: int = 0, memory: int | None = None) -> Iterator[None]:
    """Connect to a cluster, start one of our own, or do nothing: what is computed inside runs there.

    ``scheduler`` is the address of a running scheduler, ``tcp://...`` or ``tls://...``; ``workers`` are processes to
    start on this machine, one thread each, listening on loopback only, and ``memory`` the bytes that each may use.

    Raises `InvalidInputError` where both are asked for, the number is below 0, workers are asked for where no process
    may be started, the address is empty, or no scheduler answers at it.
    """
    if workers < 0:
        raise InvalidInputError(
            f"0 or more workers were expected, got {workers}. Leave them out for processes without a cluster."
        )
    if scheduler and workers:
        raise InvalidInputError(
            f"a scheduler or a number of workers was expected, got {scheduler!r} and {workers}. Leave one out."
        )
    if scheduler is not None and not scheduler.strip():
        raise InvalidInputError(
            f"the address of a scheduler was expected, got {scheduler!r}. Set the variable that it comes from, "
            "or leave the option out to work on this machine."
        )
    if workers and _is_daemonic():
        raise InvalidInputError(
            f"a process that may have children was expected for {workers} workers, got a daemonic one (of a "
            "multiprocessing.Pool, say). Leave the workers out: threads do the work there."
        )
    if scheduler is None and not workers:
        yield
        return
    from distributed import Client, LocalCluster

    if scheduler is not None:
        with _client(scheduler):
            yield
        return
    with _deaf_to_ctrl_c():
        own = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={
                "dashboard_address": "127.0.0.1:0"
            },  # else port 8787, and a warning where it is taken
            memory_limit=memory or "auto",
            silence_logs=logging.CRITICAL,  # in workers: what fails there comes back, and is said here
        )
    with own, Client(own):
        yield


def _client(scheduler: str) -> Any:
    """Return a client of the scheduler at an address, if one answers there."""
    from distributed import Client

    try:
        with ThreadPoolExecutor(1) as apart:  # this thread may have an event loop of its own, as notebooks do
            kind = apart.submit(asyncio.run, _kind_of(scheduler)).result()
        if kind != "Scheduler":
            raise ValueError(f"a {kind}")
        return Client(scheduler, timeout=SCHEDULER_PATIENCE_S)
    except Exception as error:  # whatever stands there, it may answer anything
        silent = f"no answer within {SCHEDULER_PATIENCE_S:g} s"
        got = silent if isinstance(error, TimeoutError) else str(error).rstrip(".") or type(error).__name__
        raise InvalidInputError(
            f"a Dask scheduler was expected at {scheduler!r}, got {got}. Start one with `dask scheduler`, and give "
            "the address that it says: tcp://..., not that of its dashboard."
        ) from error


async def _kind_of(address: str) -> str:
    """Return what answers at an address of Dask's; a client would wait for ever for what connects and is silent."""
    from distributed import Security, rpc

    async with asyncio.timeout(SCHEDULER_PATIENCE_S):
        async with rpc(address, connection_args=Security().get_connection_args("client")) as other:
            return str((await other.identity())["type"])


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let processes that are started inside ignore Ctrl-C: this one answers it, and ends them."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True, eq=False)
class _Worker:
    process: Any
    pipe: Connection


class ForkedWorkers(Executor):
    """So many processes, forked at once where this one has no other Python thread, that run one call each at a time.

    The call of a worker that was killed is run again by another, while there is one: calls must bear that. Workers
    end with the process that made them, however that ends. Leaving it with an exception ends them at once.
    """

    def __init__(self, count: int) -> None:
        self._max_workers = count  # Dask asks for it
        self._workers: list[_Worker] = []
        for _ in range(count):
            self._workers.append(_forked([w.pipe for w in self._workers]))
        self._idle: SimpleQueue[_Worker | None] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._alive, self._lock, self._is_ending = count, Lock(), False
        self._threads = ThreadPoolExecutor(count)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call in the next worker that is idle; its future raises `IngestError` where none lives."""
        return self._threads.submit(self._run, (fn, args, kwargs))

    def _run(self, call: Call) -> Any:
        while (worker := self._idle.get()) is not None:
            try:
                worker.pipe.send(call)
                is_result, value = worker.pipe.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            except BaseException:
                self._idle.put(worker)
                raise
            self._idle.put(worker)
            if is_result:
                return value
            raise value
        self._idle.put(None)  # for whoever asks next
        raise IngestError(
            "a worker process was expected to live, got all of them killed, for memory perhaps. "
            "Run the same command again: what is done is not redone."
        )

    def _bury(self, worker: _Worker) -> None:
        worker.process.join()
        with self._lock:
            self._alive -= 1
            alive = self._alive
        if not alive:
            self._idle.put(None)
        elif not self._is_ending:
            killed = "a worker process was killed (exit code %s), for memory perhaps; %d go on"
            log.warning(killed, worker.process.exitcode, alive)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers, after the calls that run."""
        self._threads.shutdown(wait=True, cancel_futures=cancel_futures)
        for worker in self._workers:
            worker.pipe.close()
            worker.process.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_ending = kind is not None
        if self._is_ending:
            for worker in self._workers:
                worker.process.kill()
        self.shutdown(cancel_futures=self._is_ending)


def _forked(others: Sequence[Connection]) -> _Worker:
    own, its = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_serve, args=(its, [*others, own]), daemon=True)
    process.start()
    its.close()  # the worker alone holds it: when that dies, the pipe ends
    return _Worker(process, own)


def _serve(pipe: Connection, others: Sequence[Connection]) -> None:
    """Run calls until the pipe ends, which this process's copies of its other ends must not delay."""
    for other in others:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the parent, too, who then ends this
    while True:
        try:
            function, args, kwargs = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, function(*args, **kwargs)
        except BaseException as error:
            answer = False, error
        try:
            pipe.send(answer)
        except BrokenPipeError:
            return
