"""Memory and handles of a process, and the buffers that batches are delivered in."""

import math
import os
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from sarzarr.arrays import Array
from sarzarr.reader.engine import MAX_HANDLES, aligned_memory

MAX_THREADS: Final = 4
"""Threads that fill batches, unless told otherwise: more hand each other the GIL more often than they work."""


def available_cores() -> int:
    """Return how many cores this process may use: the smaller of its affinity and its cgroup's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(min(cores, int(quota) // int(period)), 1)
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return max(cores, 1)


def available_handles() -> int:
    """Return how many files the loader may hold open: a quarter of what the process may."""
    try:
        import resource
    except ImportError:  # not on Windows, where the C runtime stops at 512
        return 128
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_HANDLES * MAX_THREADS if soft == resource.RLIM_INFINITY else max(soft // 4, 1)


# ------------------------------------------------------------------ buffers
def _new_buffer(nbytes: int) -> memoryview:
    return aligned_memory(nbytes).data


@dataclass(eq=False)
class BatchMemory:
    """Memory of batches, used again once no array looks into it."""

    keep: int
    """Buffers of each part that are kept for use again; more are made when they are needed."""
    make: Callable[[int], memoryview] = _new_buffer
    """Makes a buffer of so many bytes."""
    _free: dict[int, deque[memoryview]] = field(default_factory=lambda: defaultdict(deque), init=False)
    _watches: dict[int, Any] = field(default_factory=dict, init=False)

    def take(self, shape: tuple[int, ...], dtype: Any, part: int = 0) -> Array:
        """Return an array whose values are arbitrary.

        Parts of a batch, by number, have buffers of their own: else they would drive out each other's.
        """
        count = math.prod(shape)
        buffer = self._take_buffer(count * np.dtype(dtype).itemsize, part)
        # Every view, and every tensor made of one, holds `flat` itself: its base is no array.
        flat = np.frombuffer(buffer, dtype, count)
        free, watches = self._free[part], self._watches

        def give_back(watch: Any) -> None:
            del watches[id(watch)]
            if len(free) < self.keep:
                free.append(buffer)

        watch = weakref.ref(flat, give_back)
        watches[id(watch)] = watch  # a weak reference that is itself forgotten calls nobody
        return flat.reshape(shape)

    def _take_buffer(self, wanted: int, part: int) -> memoryview:
        """Return the buffer that came back last, which is likeliest to be in cache still, or a new one."""
        free = self._free[part]
        while free:
            try:
                buffer = free.pop()
            except IndexError:  # another thread was quicker
                break
            if wanted <= buffer.nbytes:
                return buffer
        return self.make(wanted)
