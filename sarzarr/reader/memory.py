"""Memory and handles of a process: buffers of batches, and the scratch memory of threads."""

import math
import os
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.reader.sources import PAGE

MAX_HANDLES: Final = 512
"""Files that one thread holds open at most; fewer where the process may not have as many."""
MAX_THREADS: Final = 4
"""Threads that fill batches, unless told otherwise: more hand each other the GIL more often than they work."""


def available_cores() -> int:
    """Return the number of cores that this process may use: the smaller of its affinity and its cgroup's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # there is no such file, or it says "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, int(quota) // int(period))
    return max(cores, 1)


def available_handles() -> int:
    """Return the number of files that the loader may hold open: a quarter of what the process may."""
    try:
        import resource
    except ImportError:  # not on Windows, where the C runtime stops at 512
        return 128
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_HANDLES * MAX_THREADS if soft == resource.RLIM_INFINITY else max(soft // 4, 1)


def aligned_buffer(nbytes: int, *, within_page: int = 0) -> memoryview:
    """Return so many bytes that begin so far into a page: rows that straddle cache lines cost a third more."""
    memory = np.empty(nbytes + PAGE, np.uint8)
    begin = (within_page - memory.ctypes.data) % PAGE
    return memory[begin : begin + nbytes].data


@dataclass(eq=False)
class ScratchMemory:
    """Memory of one thread, kept between calls: bytes by name, seen as arrays."""

    _memory: dict[str, memoryview] = field(default_factory=dict, init=False)
    _views: dict[tuple[str, tuple[int, ...], str], Array] = field(default_factory=dict, init=False)

    def take(self, name: str, shape: tuple[int, ...], dtype: str, *, within_page: int = 0) -> Array:
        """Return the array that is kept under ``name``, ``within_page`` bytes into a page, its values arbitrary."""
        key = name, shape, dtype
        if (view := self._views.get(key)) is not None:
            return view
        count = math.prod(shape)
        wanted = count * np.dtype(dtype).itemsize
        kept = self._memory.get(name)
        if kept is None or kept.nbytes < wanted:
            kept = self._memory[name] = aligned_buffer(wanted, within_page=within_page)
            self._views = {k: v for k, v in self._views.items() if k[0] != name}
        view = self._views[key] = np.frombuffer(kept, dtype, count).reshape(shape)
        return view


@dataclass(eq=False)
class BatchMemory:
    """Memory of batches, used again once no array looks into it."""

    keep: int
    """Buffers of each part that are kept for use again; more are made when they are needed."""
    make: Callable[[int], memoryview] = aligned_buffer
    """Makes a buffer of so many bytes."""
    _free: dict[int, deque[memoryview]] = field(default_factory=lambda: defaultdict(deque), init=False)
    _watches: dict[int, Any] = field(default_factory=dict, init=False)

    def take(self, shape: tuple[int, ...], dtype: Any, part: int = 0) -> Array:
        """Return an array of ``shape`` and ``dtype`` whose bytes are arbitrary.

        Parts of a batch, by number, have buffers of their own: else they would drive out each other's.
        """
        count, watches = math.prod(shape), self._watches
        buffer, give_back = self._buffer(count * np.dtype(dtype).itemsize, part)
        # Every view, and every tensor made of one, holds `flat` itself: its base is no array.
        flat = np.frombuffer(buffer, dtype, count)

        def forgotten(watch: Any) -> None:
            del watches[id(watch)]
            give_back()

        watch = weakref.ref(flat, forgotten)
        watches[id(watch)] = watch  # a weak reference that is itself forgotten calls nobody
        return flat.reshape(shape)

    def _buffer(self, nbytes: int, part: int) -> tuple[Any, Callable[[], None]]:
        """Return so many bytes or more, and what is called once no array looks into them."""
        free, buffer = self._free[part], memoryview(b"")
        # The buffer that came back last is likeliest to be in cache still; none left: another thread may be quicker.
        with suppress(IndexError):
            while buffer.nbytes < nbytes:
                buffer = free.pop()
        if buffer.nbytes < nbytes:
            buffer = self.make(nbytes)

        def give_back() -> None:
            if len(free) < self.keep:
                free.append(buffer)

        return buffer, give_back
