"""Loops that Numba compiled, kept as object code: compiled once a machine, and loaded in milliseconds after that.

To import Numba and to set it up takes every process 0.4 s and 100 MB, more than the loops save in a gigabyte.
What it compiles from `sarzarr.pixels.compiled.loops` needs nothing of it, so it is kept beside this file or,
where that is not writable, in the user's cache, under a name that changes with loops, Numba and processor.
LLVM loads it (llvmlite, which Numba brings).
"""

import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from sarzarr.files import whole_file
from sarzarr.pixels.compiled.calls import NEEDS_CRC, SIGNATURES, Loops

FOLDER: Final = "SARZARR_CACHE"
"""Environment variable: the folder to keep object code in."""
_SOURCES: Final = ("loops.py", "calls.py", "../turns.py")
_HARMLESS: Final = frozenset(("pread", "memcpy", "memmove", "memset"))
"""Functions that a loop may call, beside those that are LLVM's own."""
_DIGEST: Final = hashlib.sha256().digest_size
_LOADING: Final[list[int]] = []
"""The process of each thread that loads, as far as this one knows: itself, or one that it was forked from."""
log = logging.getLogger(__name__)


def kept_loops() -> Loops | None:
    """Return the loops that an earlier process kept for this machine; None where there are none that are whole.

    None, too, where Numba is not installed, or LLVM does not load them. Any number of threads may ask.
    """
    if _was_forked_while_loading():
        return None
    _LOADING.append(os.getpid())
    try:
        name = _name()
        return next((_load(code) for folder in _folders() if (code := _read(folder / name))), None)
    except (ImportError, RuntimeError) as error:
        log.debug("loops are left out: %s", error)
        return None
    finally:
        _LOADING.remove(os.getpid())


def new_loops() -> Loops | None:
    """Compile the loops, which takes Numba some seconds, and keep them; None where that is not possible.

    It is done by another process, since Numba's memory would stay with this one.
    """
    if not (sys.executable and _is_installed()) or _was_forked_while_loading():
        return None
    log.info("compiling loops, once on this machine")
    paths = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    try:
        subprocess.run(
            [sys.executable, "-m", "sarzarr.pixels.compiled.object_code"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        log.debug("loops are left out: %s", getattr(error, "stderr", None) or error)
        return None
    return kept_loops()


def _was_forked_while_loading() -> bool:
    """Whether LLVM's lock is held here by a thread that is not here, for ever."""
    return any(process != os.getpid() for process in _LOADING)


def _is_installed() -> bool:
    return os.name == "posix" and all(find_spec(name) is not None for name in ("numba", "llvmlite"))


def keep() -> Path:
    """Compile the loops and keep them; return where.

    Raises
    ------
    ImportError
        Numba is not installed, or nowhere can be written.
    """
    name = _name()
    folder = next((f for f in _folders() if _is_writable(f)), None)
    if folder is None:
        raise ImportError(f"a folder to write to was expected, got {[str(f) for f in _folders()]}")
    code = _compile()
    with whole_file(folder / name) as partial:
        partial.write_bytes(hashlib.sha256(code).digest() + code)
    return folder / name


def _read(path: Path) -> bytes | None:
    try:
        kept = path.read_bytes()
    except OSError:
        return None
    digest, code = kept[:_DIGEST], kept[_DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def _folders() -> Iterator[Path]:
    if told := os.environ.get(FOLDER):
        yield Path(told)
        return
    yield Path(__file__).parent / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "sarzarr"


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _name() -> str:
    if not _is_installed():
        raise ImportError("Numba was expected, on a POSIX system. Install it: pip install 'sarzarr[fast]'.")
    llvm = _llvm()
    here = Path(__file__).parent
    parts = [version("numba"), version("llvmlite"), *SIGNATURES, *_processor(llvm)]
    digest = hashlib.sha256("\n".join(parts).encode())
    for source in _SOURCES:
        digest.update((here / source).read_bytes())
    return f"loops-{digest.hexdigest()[:24]}.o"


def _llvm() -> Any:
    from llvmlite import binding

    return binding


def _processor(llvm: Any) -> tuple[str, str, str]:
    return llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _target_machine(llvm: Any) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple, cpu, features = _processor(llvm)
    target = llvm.Target.from_triple(triple)
    return target.create_target_machine(cpu=cpu, features=features, opt=3, codemodel="jitdefault", jit=True)


def _load(code: bytes) -> Loops:
    llvm = _llvm()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine(llvm))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    found = {name: engine.get_function_address(_symbol(name)) for name in SIGNATURES}
    if missing := [name for name, address in found.items() if not address and name != NEEDS_CRC]:
        raise ImportError(f"object code was expected to have {missing}")
    return Loops({name: address for name, address in found.items() if address}, engine)


def _symbol(name: str) -> str:
    return "sarzarr_" + name.replace(" ", "_")


# ---------------------------------------------------------------- what Numba made
def _compile() -> bytes:
    from sarzarr.pixels.compiled.loops import LOOPS

    llvm = _llvm()
    machine = _target_machine(llvm)
    whole = llvm.parse_assembly("")
    for name, loop in LOOPS.items():
        module = llvm.parse_assembly(loop.inspect_llvm())
        functions = {f.name: f for f in module.functions}
        native = loop.native_name.removeprefix("cfunc.")  # the loop, without what would tell Python of errors
        reached = _reached(functions, native)
        foreign = [
            f
            for f in reached
            if functions[f].is_declaration and not (f.startswith("llvm.") or f in _HARMLESS)
        ]
        if foreign:
            raise ImportError(f"the loop {name!r} may raise, or allocates: it calls {sorted(foreign)}")
        for f in functions.values():
            if not f.is_declaration:
                f.linkage = llvm.Linkage.internal if f.name in reached else llvm.Linkage.available_externally
        functions[native].linkage = llvm.Linkage.external
        functions[native].name = _symbol(name)
        whole.link_in(module)
    whole.verify()
    return bytes(machine.emit_object(whole))


def _reached(functions: dict[str, Any], name: str) -> set[str]:
    """Return the names of the functions that one calls, and of those that these call, itself among them."""
    reached, left = set[str](), [name]
    while left:
        one = left.pop()
        if one not in reached:
            reached.add(one)
            left += [callee for callee in _named(functions[one]) if callee in functions]
    return reached


def _named(function: Any) -> Iterable[str]:
    return (o.name for block in function.blocks for i in block.instructions for o in i.operands)


if __name__ == "__main__":
    keep()
