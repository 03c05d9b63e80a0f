"""The only place that starts processes and Dask work."""

import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Any, Final

import dask
import dask.multiprocessing
import dask.threaded
from dask.callbacks import Callback

from sarzarr.errors import IngestError, InvalidInputError

Task = tuple[Callable[..., Any], tuple[Any, ...]]
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
log = logging.getLogger(__name__)
WAVE_TASKS_PER_THREAD: Final = 64
"""Tasks that are handed to the scheduler at once, for each of its threads: bounds its graph and memory."""
PROCESS_WORTH: Final = 100_000_000
"""Source bytes from which forked processes pay: threads hand each other Python's lock at every NumPy call."""


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
    no other Python thread, no cluster is active and Dask's configuration names no scheduler. Elsewhere
    nothing changes, and threads do the work. Raises `IngestError` where every process was killed.
    """
    chosen = active_client() is not None or dask.config.get("scheduler", None)
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


def active_client() -> Any:
    """Return the active ``dask.distributed`` client, or None."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


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
    """Run tasks on whatever Dask runs on, and hand each result to ``take`` in this thread, as it comes."""
    client = active_client()
    if client is not None:
        from distributed import as_completed

        for future in as_completed(_submitted(client, tasks)):
            take(future.result())
            future.release()
        return

    class Taker(Callback):  # type: ignore[misc]
        def _posttask(self, key: Any, result: Any, *_: Any) -> None:
            take(result)

    with Taker():
        _here(tasks)


def gather(tasks: Sequence[Task]) -> list[Any]:
    """Run tasks on whatever Dask runs on, and return their results in their order."""
    client = active_client()
    return list(_here(tasks) if client is None else client.gather(_submitted(client, tasks)))


def _submitted(client: Any, tasks: Sequence[Task]) -> list[Any]:
    return [client.submit(function, *args, pure=False) for function, args in tasks]


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

    Raises `InvalidInputError` where both are asked for, the number is below 0, or nothing answers at the address.
    """
    if workers < 0:
        raise InvalidInputError(
            f"0 or more workers were expected, got {workers}. Leave them out for processes without a cluster."
        )
    if scheduler and workers:
        raise InvalidInputError(
            f"a scheduler or a number of workers was expected, got {scheduler!r} and {workers}. Leave one out."
        )
    if not scheduler and not workers:
        yield
        return
    from distributed import Client, LocalCluster

    if scheduler:
        try:
            client = Client(scheduler, timeout="10s")
        except (OSError, ValueError) as error:
            raise InvalidInputError(
                f"a Dask scheduler was expected at {scheduler!r}, got {error}. Start one with `dask scheduler`."
            ) from error
        with client:
            yield
        return
    with _deaf_to_ctrl_c():
        own = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=memory or "auto",
            silence_logs=logging.CRITICAL,  # in workers: what fails there comes back, and is said here
        )
    with own, Client(own):
        yield


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
