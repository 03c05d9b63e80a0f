"""Loops that Numba compiles once on a machine, and that a process loads when it first calls them."""

import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from numba import njit

from sarzarr.pixels.compiled import LOADING

log = logging.getLogger(__name__)
COMPILED: Final[list[str]] = []
"""The loops that this process had to compile, since no earlier one did."""


class LazyLoop:
    """A function that is loaded, or compiled, for its signatures alone, 10 ms each, when it is first called."""

    def __init__(self, function: Callable[..., Any], signatures: tuple[Any, ...]) -> None:
        self._waiting = signatures
        self._loop: Any = njit(cache=True, nogil=True, error_model="numpy")(function)

    def __call__(self, *arguments: Any) -> Any:
        """Return what the loop returns, loaded if it was not."""
        if self._waiting:
            self._load()
        return self._loop(*arguments)

    def _load(self) -> None:
        with LOADING:
            begin, signatures = perf_counter(), self._waiting
            for signature in signatures:
                self._loop.compile(signature)
            if signatures and self._loop.stats.cache_misses:
                COMPILED.append(self._loop.__name__)
                seconds = perf_counter() - begin
                log.info("%s was compiled, once on this machine, %.1f s", COMPILED[-1], seconds)
            self._loop.disable_compile()
            self._waiting = ()


def lazy_loop(*signatures: Any) -> Callable[[Callable[..., Any]], LazyLoop]:
    """Return a decorator that makes a `LazyLoop` of a function, for these signatures of Numba."""
    return lambda function: LazyLoop(function, signatures)
