"""Batches of DataLoader workers in memory that is shared with the training process, and used again.

A worker fills its batches in slots. A slot is a file in memory, without a name: the worker maps it once, and the
training process once, when its descriptor arrives with its first batch. From then on a message has the slot's number
in the place of its pixels. A byte a slot, on a board that both processes map, says whether the training process looks
into it still: the worker fills it again when neither does. Where the system has no such files, and for what finds no
slot, torch copies batches into shared memory as it does without this module.
"""

import mmap
import os
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final

import numpy as np
import torch
from torch.multiprocessing import reductions

from sarzarr.arrays import Array
from sarzarr.reader.memory import BatchMemory

FREE, OUT, LOST = range(3)
"""Bytes of the board: only the worker may look into the slot; the training process does, too; a fork of it may."""
SLOTS: Final = 16
"""Slots of a part that a worker has at most: those that wait, and those that the training loop keeps."""
SPARE: Final = 8
"""Free slots of a part whose pages are kept."""
INLINE: Final = 1 << 14
"""Bytes that a tensor may have to be sent within the message: a file costs more."""
_NUMBERS: Final = 4096
"""Slots that a worker makes in its life."""


@dataclass(eq=False)
class Slot:
    """A file in memory that a worker has mapped."""

    number: int
    """Its byte on the board."""
    nbytes: int
    """Its length."""
    is_held: bool = False
    """Whether arrays of the worker look into it."""
    is_known: bool = False
    """Whether its descriptor has been sent."""
    is_empty: bool = True
    """Whether its pages are with the system."""

    def __post_init__(self) -> None:
        self.file = os.memfd_create("sarzarr", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.file, self.nbytes)
            self.memory = mmap.mmap(self.file, self.nbytes)
        except BaseException:
            os.close(self.file)
            raise
        self.address = int(np.frombuffer(self.memory, np.uint8).ctypes.data)
        weakref.finalize(self, os.close, self.file)

    def give_back(self) -> None:
        """Say that no array of the worker looks into it."""
        self.is_held = False

    def empty(self) -> None:
        """Give its pages back to the system, in every process that has mapped them."""
        if not self.is_empty:
            self.memory.madvise(mmap.MADV_REMOVE)
            self.is_empty = True

    def sent(self) -> tuple[int, int, Any]:
        """Return what another process maps it by: descriptor and length, the first time a copy of it too."""
        from multiprocessing.reduction import DupFd  # there is none on Windows

        copy = None if self.is_known else DupFd(self.file)
        self.is_known = True
        return self.file, self.nbytes, copy


class Slots:
    """The slots of one worker."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.key = self.pid, os.urandom(8)
        self.board = Slot(-1, _NUMBERS)
        self._made = 0
        self._of_part: dict[int, list[Slot]] = defaultdict(list)
        self._lock = threading.Lock()

    def take(self, nbytes: int, part: int) -> Slot | None:
        """Return a slot of so many bytes, or more, that nobody looks into; None where there may be no more."""
        with self._lock:
            slots = [slot for slot in self._of_part[part] if self._state(slot) != LOST]
            free = [slot for slot in slots if not slot.is_held and self._state(slot) == FREE]
            fits = [slot for slot in free if slot.nbytes >= nbytes]
            if not fits and free and len(slots) == SLOTS:
                free[-1].empty()  # too small: it makes room
                slots.remove(free[-1])
            if not fits and len(slots) < SLOTS and self._made < _NUMBERS:
                with suppress(OSError):  # too many open files
                    fits = [Slot(self._made, nbytes)]
                    slots.append(fits[0])
                    self._made += 1
            self._of_part[part] = slots
            if not fits:
                return None
            for slot in free[SPARE:]:
                if slot is not fits[0]:
                    slot.empty()
            fits[0].is_held, fits[0].is_empty = True, False
            return fits[0]

    def _state(self, slot: Slot) -> int:
        return self.board.memory[slot.number]

    def message(self, storage: torch.UntypedStorage) -> tuple[Callable[..., Any], Any] | None:
        """Return what makes a storage in another process, and from what; None where it found no slot."""
        nbytes, address = storage.nbytes(), storage.data_ptr()
        slot = self._at(address)
        if slot is not None and self._state(slot) == FREE:
            return self._handed_over(slot, address - slot.address, nbytes)
        if nbytes <= INLINE:
            return _storage_of_bytes, (_bytes_of(storage).tobytes(),)
        # What was made elsewhere, by a transform say: a part for each power of two.
        if (slot := self.take(nbytes, -nbytes.bit_length())) is None:
            return None
        np.frombuffer(slot.memory, np.uint8, nbytes)[:] = _bytes_of(storage)
        message = self._handed_over(slot, 0, nbytes)
        slot.give_back()
        return message

    def _at(self, address: int) -> Slot | None:
        with self._lock:
            every = (slot for slots in self._of_part.values() for slot in slots)
            return next((slot for slot in every if 0 <= address - slot.address < slot.nbytes), None)

    def _handed_over(self, slot: Slot, begin: int, nbytes: int) -> tuple[Callable[..., Any], Any]:
        self.board.memory[slot.number] = OUT
        return _storage_of_slot, (
            self.key,
            self.board.sent(),
            (slot.number, *slot.sent()),
            (begin, nbytes),
        )

    def lose_held(self) -> None:
        """Forget slots that arrays look into: a process that is forked now has those arrays, too."""
        with self._lock:
            for part, slots in self._of_part.items():
                self._of_part[part] = [slot for slot in slots if not slot.is_held]


@dataclass(eq=False)
class SlotMemory(BatchMemory):
    """Memory of a worker's batches: its slots, and ordinary memory where there may be no more of them."""

    def __post_init__(self) -> None:
        self._slots = slots_of_worker()

    def _buffer(self, nbytes: int, part: int) -> tuple[Any, Callable[[], None]]:
        slots = self._slots
        slot = slots.take(nbytes, part) if slots is not None and slots.pid == os.getpid() else None
        return super()._buffer(nbytes, part) if slot is None else (slot.memory, slot.give_back)


_by_torch: Final[Callable[[torch.UntypedStorage], Any]] = reductions.reduce_storage
_mine: Slots | None = None


def slots_of_worker() -> Slots | None:
    """Return the slots of this worker process; None where the system has no files in memory.

    From the first call on, what the process sends to others goes by them: tensors in slots as they are, others
    copied into slots, small ones within the message, and those that are in shared memory already as torch sends them.
    """
    global _mine
    if _mine is None and hasattr(os, "memfd_create"):
        try:
            _mine = Slots()
        except OSError:  # a sandbox, or too many open files
            return None
        ForkingPickler.register(torch.UntypedStorage, _reduced)
    return _mine


def _reduced(storage: torch.UntypedStorage) -> Any:
    message = None
    if _mine is not None and storage.device.type == "cpu" and storage.nbytes() and not storage.is_shared():
        message = _mine.message(storage)
    return _by_torch(storage) if message is None else message


def _bytes_of(storage: torch.UntypedStorage) -> Array:
    array: Array = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
    return array


# ------------------------------------------------------------------ the training process
@dataclass(eq=False)
class Shelf:
    """The slots of one worker, as a training process has mapped them."""

    board: mmap.mmap
    """The worker's board."""
    memory: dict[int, mmap.mmap] = field(default_factory=dict)
    """Its slots, by number."""
    watches: dict[int, Any] = field(default_factory=dict)
    """Those that tensors of this process look into."""
    taken: int = 0
    """Tensors that came in slots."""


shelves: Final[dict[tuple[int, bytes], Shelf]] = {}
"""By worker; of those that ended they are forgotten when a worker begins to send, a batch or a dataset is dropped."""


def forget_the_dead() -> None:
    """Unmap the slots of workers that ended, but for those that tensors look into."""
    for key in list(shelves):
        try:
            os.kill(key[0], 0)
        except OSError:
            shelves.pop(key, None)


def _storage_of_bytes(data: bytes) -> torch.UntypedStorage:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).untyped_storage()


def _storage_of_slot(
    key: tuple[int, bytes],
    board: tuple[int, int, Any],
    slot: tuple[int, int, int, Any],
    place: tuple[int, int],
) -> torch.UntypedStorage:
    """Return a storage over a slot; the worker may fill it again when nothing looks into that storage."""
    shelf = shelves.get(key)
    if shelf is None:
        forget_the_dead()
        shelf = shelves[key] = Shelf(_mapped(key[0], *board))
    number, *file = slot
    if number not in shelf.memory:
        shelf.memory[number] = _mapped(key[0], *file)
    begin, nbytes = place
    flat = np.frombuffer(shelf.memory[number], np.uint8, nbytes, begin)
    states, watches = shelf.board, shelf.watches

    def give_back(_: Any) -> None:
        del watches[number]
        if states[number] == OUT:
            states[number] = FREE
        forget_the_dead()

    watches[number] = weakref.ref(flat, give_back)
    shelf.taken += 1
    return torch.from_numpy(flat).untyped_storage()


def _mapped(pid: int, number: int, nbytes: int, copy: Any) -> mmap.mmap:
    """Map a file of another process: by the copy of its descriptor that came along, or by its place there."""
    file = copy.detach() if copy is not None else os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR)
    try:
        return mmap.mmap(file, nbytes)
    finally:
        os.close(file)


def _before_fork() -> None:
    # A process that is forked now may look into what this one looks into, for as long as it lives.
    for shelf in list(shelves.values()):
        for number in list(shelf.watches):
            shelf.board[number] = LOST
            shelf.memory.pop(number, None)
    if _mine is not None:
        _mine.lose_held()


def _after_fork() -> None:
    global _mine
    _mine = None
    shelves.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
