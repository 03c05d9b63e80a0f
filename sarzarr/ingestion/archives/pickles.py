"""Pickles of older pipelines, dicts of numbers, texts and NumPy arrays, read without running anything.

A pickle is a program: it names functions and calls them. This reader knows the seven names that NumPy writes, and has
its own, harmless function for each; a program that names another, or takes one of another way, ends with an error
before its first step. Memory is taken for what the file holds, never for what it says.
"""

import io
import math
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError
from sarzarr.text import size_text

MAX_PICKLE: Final = 64 * 10**6
"""Bytes of a file that is read at all; a million files are listed in less."""
_DTYPE: Final = re.compile(r"[<>|=]?(?:[biufcSU]\d{1,9}|[?OV]8?)")
_STEP: Final = re.compile(
    r"APPENDS?|(SHORT_)?BIN(BYTES|STRING|UNICODE)|BIN(BYTES8|UNICODE8|FLOAT|INT[12]?)|(BIN|LONG_BIN)?(GET|PUT)|BUILD|"
    r"(EMPTY_)?(DICT|LIST|TUPLE)|FLOAT|FRAME|(STACK_)?GLOBAL|INT|LONG[14]?|MARK|MEMOIZE|NEW(FALSE|TRUE)|NONE|POP(_MARK)?|"
    r"PROTO|REDUCE|SETITEMS?|STOP|STRING|TUPLE[123]|UNICODE"
)
"""Steps of a pickle's program that numbers, texts and arrays need: none of persistent ids, registries or classes."""
_PUTS: Final = ("PUT", "BINPUT", "LONG_BINPUT")


def read_pickled(path: Path) -> dict[str, Any]:
    """Return the dict that ``numpy.save`` or ``pickle.dump`` wrote: numbers, texts, lists, tuples and arrays.

    Raises `InvalidInputError`, which names the file and what was found, where it has more than 64 MB (nothing of it
    is read then), is no regular file, is no pickle of a dict, or names anything that NumPy's numbers and arrays do
    not need: nothing that it names is looked up, imported or called. `OSError` where the file cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_PICKLE or not path.is_file():
        got = size_text(size) if path.is_file() else "no regular file"
        raise _refused(path, f"at most {size_text(MAX_PICKLE)}", got)
    found = _loaded(path.read_bytes(), path)
    if isinstance(found, np.ndarray) and found.dtype == object and found.ndim == 0:
        found = found.item()
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise _refused(path, "a dict whose keys are texts", f"a {type(found).__name__}")
    return found


def _refused(path: Path, wanted: str, got: str) -> InvalidInputError:
    return InvalidInputError(
        f"{wanted} was expected in {path.name!r}, got {got}. Nothing of it was run: write it anew with "
        "numpy.save, as a dict of numbers, texts, lists and arrays."
    )


def _loaded(data: bytes, path: Path) -> Any:
    """Return the object of a pickle, which may stand behind the header of a ``.npy`` file of objects."""
    stream = io.BytesIO(data)
    if data.startswith(np.lib.format.MAGIC_PREFIX):
        try:
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = read[version](stream)
        except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, EOFError) as error:
            raise _refused(path, "the header of an array", f"{error!r:.100}") from None
        if not dtype.hasobject:
            raise _refused(path, "a pickled dict", f"an array {shape} of {dtype}")
    program = data[stream.tell() :]
    try:
        _check_steps(program)
        return _Unpickler(io.BytesIO(program)).load()
    except _RefusedError as error:
        raise _refused(path, "a pickle of numbers, texts and arrays", str(error)) from None
    except Exception as error:  # a program that is damaged may fail in any way
        raise _refused(path, "a whole pickle", f"{error!r:.200}") from None


class _RefusedError(Exception):
    """A step of a pickle that is not taken; says which."""


def _check_steps(program: bytes) -> None:
    """Refuse a program with a step that is not known, or that takes more memory than it has bytes, unrun."""
    for step, argument, _ in pickletools.genops(program):
        if not _STEP.fullmatch(step.name):
            raise _RefusedError(f"the step {step.name}" + (f" ({argument!r:.100})" if argument else ""))
        if step.name in _PUTS and not 0 <= int(argument or 0) <= len(program):
            raise _RefusedError(f"the number {argument} of a thing to remember")
        if step.name == "GLOBAL" and tuple(str(argument).split(" ")) not in _KNOWN:
            raise _RefusedError(repr(str(argument).replace(" ", ".")))


class _Unpickler(pickle.Unpickler):
    """An unpickler whose every name is looked up in `_KNOWN`."""

    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise _RefusedError(repr(f"{module}.{name}")) from None

    def persistent_load(self, pid: Any, /) -> Any:
        raise _RefusedError(f"the persistent id {pid!r:.100}")


class _Maker:
    """A function that a pickle may call, and whose attributes it cannot change."""

    __slots__ = ("_make",)

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("a change of a function")


_ORDERS: Final[dict[Any, Literal["<", ">", "|", "="]]] = {"<": "<", ">": ">", "|": "|", "=": "="}
"""Orders of bytes."""


class _Dtype:
    """A dtype as a pickle tells it: its letter and size, and the order of its bytes."""

    __slots__ = ("order", "text")

    def __init__(self, text: str, *_: Any) -> None:
        if not isinstance(text, str) or not _DTYPE.fullmatch(text):
            raise _RefusedError(f"the dtype {text!r:.100}")
        self.text, self.order = text.lstrip("<>|="), _ORDERS["="]

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in _ORDERS or any(part is not None for part in state[2:5]):
            raise _RefusedError(f"the dtype {self.text} with {state!r:.100}")
        self.order = _ORDERS[order]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype itself: of numbers, of texts of one length, or of objects."""
        if self.text.startswith("V"):
            raise _RefusedError(f"the dtype {self.text}")
        return np.dtype(object if self.text.startswith("O") else self.text).newbyteorder(self.order)


class _Array(np.ndarray[Any, Any]):
    """An array as a pickle tells it, filled only from as many values as there are."""

    def __setstate__(self, state: Any, /) -> None:
        _, shape, described, in_columns, values = state
        dtype, count = described.dtype, math.prod(shape)
        if not all(type(n) is int and n >= 0 for n in shape):
            raise _RefusedError(f"an array of shape {shape!r:.100}")
        if dtype.hasobject:
            is_whole = isinstance(values, list) and len(values) == count
        else:
            is_whole = isinstance(values, bytes) and len(values) == count * dtype.itemsize
        if not is_whole:
            raise _RefusedError(f"an array {shape!r:.100} of {dtype} from another number of values")
        super().__setstate__((1, shape, dtype, bool(in_columns), values))  # type: ignore[arg-type]


def _empty_array(*_: Any) -> Array:
    return _Array((0,), np.int8)


def _scalar(described: Any, value: Any = b"") -> Any:
    dtype = described.dtype
    if dtype.hasobject or not isinstance(value, bytes) or len(value) != dtype.itemsize:
        raise _RefusedError(f"a number of {dtype} from {value!r:.50}")
    return np.frombuffer(value, dtype)[0]


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"a text in {encoding!r:.50}")
    return text.encode("latin-1")


_NUMPY: Final = ("numpy.core.multiarray", "numpy._core.multiarray")
_KNOWN: Final[dict[tuple[str, ...], Any]] = {
    **{(module, "_reconstruct"): _Maker(_empty_array) for module in _NUMPY},
    **{(module, "scalar"): _Maker(_scalar) for module in _NUMPY},
    ("numpy", "ndarray"): "numpy.ndarray",  # an argument of `_reconstruct`, which nothing can be done with
    ("numpy", "dtype"): _Maker(_Dtype),
    ("_codecs", "encode"): _Maker(_encoded),
}
"""Everything that a pickle may name."""
