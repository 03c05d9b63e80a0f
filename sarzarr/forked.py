"""Forked worker processes, each on a pipe of its own: one that is killed takes nobody with it.

The standard library's process pool shares two queues and their locks among its workers. Whoever is killed while
it holds one leaves everybody waiting for ever; and workers outlive a killed parent, since each holds both ends of
the queue that it waits at.
"""

import logging
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Any

from sarzarr.errors import IngestError

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Worker:
    process: Any
    pipe: Connection


class ForkedWorkers(Executor):
    """So many processes, forked at once, each of which runs one call at a time.

    The call of a worker that was killed is run again by another, while there is one: calls must bear that.
    Workers end with the process that made them, however that ends. To be made where this process has no other
    Python thread. Leaving it with an exception ends them at once.

    Parameters
    ----------
    count
        How many.
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
            log.warning(
                "a worker process was killed (exit code %s), for memory perhaps; %d go on",
                worker.process.exitcode,
                alive,
            )

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
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_serve, args=(there, [*others, here]), daemon=True)
    process.start()
    there.close()  # the worker alone holds it: when that dies, the pipe ends
    return _Worker(process, here)


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
            said = True, function(*args, **kwargs)
        except BaseException as error:
            said = False, error
        try:
            pipe.send(said)
        except BrokenPipeError:
            return
