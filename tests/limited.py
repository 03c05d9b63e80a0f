"""Functions that run in forked children with limits: memory, CPU, wall time, and no internet.

A child that dies takes nobody with it, and imports are paid once, by the parent. Linux only.
"""

import ctypes
import importlib
import json
import os
import platform
import resource
import select
import signal
import struct
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sarzarr.errors import SarzarrError, exit_code

MEMORY = 2 * 2**30
"""Bytes of address space that a child may take beside what it inherits."""
CPU = 20
"""Seconds of CPU that a child may take."""
WALL = 120
"""Seconds after which a child hangs."""
_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""The number of an architecture, and of its call ``socket``."""


@dataclass(frozen=True)
class Outcome:
    """What became of a child."""

    kind: str
    """``done``, ``refused`` (an error of sarzarr's own), ``error`` (another), ``killed`` or ``hangs``."""
    said: object = None
    """What the function returned, the message of the error, or the number of the signal."""
    code: int = 0
    """The exit code of a command that ends so."""

    @property
    def is_good(self):
        return self.kind == "done" or (self.kind == "refused" and self.code in (1, 2))


def forbid_internet():
    """Have this process, and what it starts, be killed when any code of it opens an internet socket.

    False where the kernel takes no such filter. Libraries in C are held to it as much as Python is.
    """
    machine, number = _SOCKET.get(platform.machine(), (0, 0))
    if sys.platform != "linux" or not number:
        return False
    load, equal, give = 0x20, 0x15, 0x06
    kill, allow = 0x80000000, 0x7FFF0000
    program = [  # (code, then, else, value): the architecture, the call, its first argument
        (load, 0, 0, 4), (equal, 0, 6, machine),
        (load, 0, 0, 0), (equal, 0, 4, number),
        (load, 0, 0, 16), (equal, 1, 0, 2), (equal, 0, 1, 10),
        (give, 0, 0, kill), (give, 0, 0, allow),
    ]  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    header = struct.pack("=H6xQ", len(program), ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    no_new_rights, seccomp, by_filter = 38, 22, 2
    return prctl(no_new_rights, 1, 0, 0, 0) == 0 and prctl(seccomp, by_filter, header, 0, 0) == 0


def limit(memory=MEMORY, cpu=CPU):
    """Limit this process to what it has and so many bytes more, and to seconds of CPU; no core is written."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + cpu, used + cpu + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def fill_memory_with(byte):
    """Have memory that nobody has written hold a byte: what is read without having been written shows."""
    perturb = -6
    ctypes.CDLL(None).mallopt(perturb, byte)


def forked(function, *args, memory=MEMORY, cpu=CPU, wall=WALL, byte=None):
    """Return the `Outcome` of ``function(*args)``, which returns what JSON holds, in a forked child with limits."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(ours)
            said = json.dumps(_outcome(function, args, memory, cpu, byte)).encode()
            while said:
                said = said[os.write(theirs, said) :]
            code = 0
        finally:
            os._exit(code)
    os.close(theirs)
    said, until = b"", time.monotonic() + wall
    try:
        while True:
            is_ready, _, _ = select.select([ours], [], [], max(0, until - time.monotonic()))
            if not is_ready:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return Outcome("hangs", wall)
            piece = os.read(ours, 2**16)
            if not piece:
                break
            said += piece
    finally:
        os.close(ours)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) or os.WEXITSTATUS(status):
        return Outcome("killed", os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    return Outcome(*json.loads(said))


def import_what_it_imports(function, *args):
    """Import what ``function(*args)`` imports, without its threads: the children that run it are to find it there."""
    known = set(sys.modules)

    def imported():
        function(*args)
        return [name for name in sys.modules if name not in known]

    for name in forked(imported).said:
        with suppress(ImportError):
            importlib.import_module(name)


def _outcome(function, args, memory, cpu, byte):
    """Return the kind, what was said, and the exit code."""
    with Path(os.devnull).open("w") as nowhere:  # GDAL and libtiff write to it from C
        os.dup2(nowhere.fileno(), 2)
    limit(memory, cpu)
    forbid_internet()
    if byte is not None:
        fill_memory_with(byte)
    try:
        return "done", function(*args), 0
    except SarzarrError as error:
        return "refused", str(error), int(exit_code(error))
    except BaseException:
        return "error", traceback.format_exc()[-3000:], 1
