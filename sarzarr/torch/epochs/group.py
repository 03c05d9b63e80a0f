"""`Group`: a process group of torch, as the DataLoader workers of its ranks can meet it, too."""

import os
import time
import uuid
import weakref
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
from torch.utils.data import get_worker_info

_distributed: Any = torch.distributed
"""As it is: not all of its names are declared."""
_ID: Final = "sarzarr/group"
_CONNECT: Final = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A rank's place in a process group, and the way to the store of keys and values that all its ranks share."""

    rank: int
    """This process's number."""
    ranks: int
    """Their number."""
    id: str
    """A name that no other group has; empty where the group has no store to compare by."""
    pid: int
    """The process that is the rank: a connection survives neither fork nor pickle."""
    address: tuple[str, int] | str | None = None
    """Host and port, or a path, with which another process opens a connection of its own; None where it cannot."""

    def connect(self) -> Any:
        """Return the store for this process, None where there is no way to it."""
        if not self.id or self.pid == os.getpid():
            return _unwrapped(_default_store()) if self.id else None
        if isinstance(self.address, str):
            return _distributed.FileStore(self.address)
        if self.address is not None:
            return _distributed.TCPStore(
                *self.address, is_master=False, wait_for_workers=False, timeout=_CONNECT
            )
        return None

    def pause(self, seconds: float) -> None:
        """Wait for other ranks."""
        time.sleep(seconds)


_met: list[tuple[Any, Group]] = []
"""The group that was met last, beside a weak reference to the store by which it is known again."""


def current_group() -> Group | None:
    """Return the default process group, None where none is initialised."""
    if not (_distributed.is_available() and _distributed.is_initialized()):
        return None
    store = _default_store()
    if _met and _met[0][0]() is store:
        return _met[0][1]
    name = ""
    if store is not None and get_worker_info() is None:  # a worker must not use what it was forked with
        with suppress(RuntimeError):  # of a store that cannot compare
            name = store.compare_set(_ID, "", uuid.uuid4().hex).decode()
    group = Group(
        rank=_distributed.get_rank(), ranks=_distributed.get_world_size(), id=name, pid=os.getpid(),
        address=_address(_unwrapped(store)),
    )  # fmt: skip
    _met[:] = [((lambda: None) if store is None else weakref.ref(store), group)]
    return group


def _default_store() -> Any:
    """Return the store of the default group; None of a group without, as MPI's, and where none is initialised."""
    return _distributed.distributed_c10d._get_default_store() if _distributed.is_initialized() else None


def _unwrapped(store: Any) -> Any:
    while isinstance(store, _distributed.PrefixStore):
        store = store.underlying_store
    return store


def _address(store: Any) -> Any:
    if isinstance(store, _distributed.TCPStore):
        return store.host, store.port
    return store.path if isinstance(store, _distributed.FileStore) else None
