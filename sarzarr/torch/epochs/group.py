"""`Group`: a process group of torch, as the DataLoader workers of its ranks can meet it, too."""

import os
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch

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
    """A name that no other group has."""
    store: Any = None
    """The store, for the process ``pid`` alone: a connection survives neither fork nor pickle."""
    pid: int = 0
    """The process that may use ``store``."""
    address: tuple[str, int] | str | None = None
    """Host and port, or a path, with which another process opens a connection of its own; None where it cannot."""

    def connect(self) -> Any:
        """Return the store for this process, None where there is no way to it."""
        if self.store is not None and self.pid == os.getpid():
            return self.store
        if isinstance(self.address, str):
            return torch.distributed.FileStore(self.address)
        if self.address is not None:
            return torch.distributed.TCPStore(
                *self.address, is_master=False, wait_for_workers=False, timeout=_CONNECT
            )
        return None

    def pause(self, seconds: float) -> None:
        """Wait for other ranks."""
        time.sleep(seconds)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"store": None}


_met: list[tuple[Any, Group]] = []
"""The group that was met last, beside the store by which it is known again."""


def current_group() -> Group | None:
    """Return the default process group, None where none is initialised."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    store = distributed.distributed_c10d._get_default_store()
    if not (_met and _met[0][0] is store):
        _met[:] = [(store, _group_of(store))]
    return _met[0][1]


def _group_of(store: Any) -> Group:
    distributed = torch.distributed
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    if store is None:  # a group of MPI has none
        return Group(rank=rank, ranks=ranks, id="")
    name = store.compare_set(_ID, "", uuid.uuid4().hex).decode()
    while isinstance(store, distributed.PrefixStore):
        store = store.underlying_store
    address: Any = None
    if isinstance(store, distributed.TCPStore):
        address = (store.host, store.port)
    elif isinstance(store, distributed.FileStore):
        address = store.path
    return Group(rank=rank, ranks=ranks, id=name, store=store, pid=os.getpid(), address=address)
