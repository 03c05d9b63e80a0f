"""Models: whatever makes (n, K, rows, columns) of (n, C, rows, columns), and how one is told from another.

A model is a NumPy function, a torch module, an ONNX file, or ``module:function`` of the user's own code. No pickle is
ever opened: whoever wrote one can run anything here.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from sarzarr.arrays import Array
from sarzarr.errors import InvalidInputError, MissingExtraError

Run = Callable[[Array], Array]
"""Makes (n, K, rows, columns) of (n, C, rows, columns) float32."""
PICKLES: Final = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".bin", ".pt2")
"""Endings of files that may be pickles, or hold them."""


class Model(Protocol):
    """A thing that can be run over batches; holds nothing open, so that it pickles where what it is made of does."""

    @property
    def name(self) -> str:
        """Its name, for people."""

    @property
    def identity(self) -> str | None:
        """A text that tells it from any other model; None where nothing does."""

    def running(self) -> AbstractContextManager[Run]:
        """Open it; what is yielded takes (n, C, rows, columns) float32 batches until the end."""


@dataclass(frozen=True)
class FunctionModel:
    """A NumPy function of (n, C, rows, columns) float32."""

    function: Run
    """The function."""

    @property
    def name(self) -> str:
        """The function's name."""
        function: Any = self.function
        return str(getattr(function, "__qualname__", type(function).__qualname__))

    @property
    def identity(self) -> None:
        """None: nothing tells whether a function is the same one as last time."""

    @contextmanager
    def running(self) -> Iterator[Run]:
        """Yield the function, which takes (n, C, rows, columns) float32."""
        yield self.function


@dataclass(frozen=True)
class ImportedModel:
    """A name in a module of the user's own, ``module:function``, imported where it is used: workers do so, too."""

    address: str
    """``module:name``; the module is looked for in the current folder, too."""

    @cached_property
    def model(self) -> Model:
        """The thing that the name stands for; a function without parameters is called, once, and returns it."""
        found, _ = self._found
        if isinstance(found, type):
            raise InvalidInputError(
                f"a model, or a function that returns one, was expected at {self.address!r}, got a class. Write a "
                "function without parameters that makes one and loads its weights, and name that."
            )
        if inspect.isroutine(found) and not inspect.signature(found).parameters:
            found = found()
        return model_of(found)

    @cached_property
    def _found(self) -> tuple[Any, str]:
        """What the name stands for, and the checksum of its module's source."""
        module_name, _, path = self.address.partition(":")
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)
        try:
            module: Any = importlib.import_module(module_name)
            found = module
            for part in path.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise InvalidInputError(
                f"something to import was expected at {self.address!r}, got {type(error).__name__}: {error}. Check "
                "the name; modules are looked for in the current folder and on PYTHONPATH."
            ) from error
        source = getattr(module, "__file__", None)
        return found, sha256(Path(source).read_bytes()).hexdigest()[:16] if source else ""

    @property
    def name(self) -> str:
        """The address."""
        return self.address

    @property
    def identity(self) -> str:
        """The address, the checksum of the module's source, and the model's own identity, if it has one."""
        return f"{self.address} {self._found[1]} {self.model.identity or ''}".rstrip()

    @contextmanager
    def running(self) -> Iterator[Run]:
        """Yield the model, opened: it takes (n, C, rows, columns) float32."""
        with self.model.running() as run:
            yield run

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address}


@dataclass(frozen=True)
class OnnxModel:
    """A model in an ONNX file, run by onnxruntime on the first of its devices that is there."""

    path: Path
    """The file; what lies beside it under its name and ``.data`` belongs to it."""

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @cached_property
    def identity(self) -> str:
        """The checksum of the file, and of what lies beside it."""
        digest = sha256()
        for path in (self.path, self.path.with_name(f"{self.path.name}.data")):
            digest.update(path.read_bytes() if path.exists() else b"")
        return f"onnx {digest.hexdigest()}"

    @contextmanager
    def running(self) -> Iterator[Run]:
        """Yield a function of (n, C, rows, columns) float32; a fixed number of patches is filled up with zeros.

        Raises `MissingExtraError` where onnxruntime is not installed; `InvalidInputError` where the file is none that
        it reads, or has not one input and one output.
        """
        session = self._session()
        (given,), (made,) = session.get_inputs(), session.get_outputs()
        fixed = given.shape[0] if isinstance(given.shape[0], int) else None
        kind = {"tensor(float16)": np.float16, "tensor(double)": np.float64}.get(given.type, np.float32)

        def run(batch: Array) -> Array:
            self._check(given.shape, batch.shape)
            parts = []
            for first in range(0, len(batch), fixed or len(batch)):
                some = batch[first : first + (fixed or len(batch))].astype(kind, copy=False)
                filled = some
                if fixed and len(some) < fixed:
                    filled = np.zeros((fixed, *some.shape[1:]), kind)
                    filled[: len(some)] = some
                parts.append(session.run([made.name], {given.name: filled})[0][: len(some)])
            return parts[0] if len(parts) == 1 else np.concatenate(parts)

        run.batch_size = fixed  # type: ignore[attr-defined]
        yield run

    def _session(self) -> Any:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError(
                "onnxruntime was expected, got no module of that name. Install it with `pip install 'sarzarr[onnx]'`."
            ) from None
        if not self.path.is_file():
            raise InvalidInputError(
                f"an ONNX file was expected at {str(self.path)!r}, got none. Check the path."
            )
        options = onnxruntime.SessionOptions()
        # Its threads would spin between two batches, and take the cores from those that read and write meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdigit():  # as Dask's workers have it
            options.intra_op_num_threads = int(threads)
        try:
            session = onnxruntime.InferenceSession(
                str(self.path), options, providers=onnxruntime.get_available_providers()
            )
        except Exception as error:  # its errors have no root of their own
            raise InvalidInputError(
                f"a model that onnxruntime reads was expected at {str(self.path)!r}, got {str(error).strip()[:300]}. "
                "Export it again."
            ) from error
        counts = len(session.get_inputs()), len(session.get_outputs())
        if counts != (1, 1) or len(session.get_inputs()[0].shape) != 4:
            raise InvalidInputError(
                f"one input (n, C, rows, columns) and one output were expected of {self.path.name!r}, got "
                f"{counts[0]} and {counts[1]}. Export what makes one of one, or call it in a function of your own "
                "(module:function)."
            )
        return session

    def _check(self, wanted: Any, shape: tuple[int, ...]) -> None:
        """Raise `InvalidInputError` where channels or pixels are fixed, and other ones."""
        words = ("channels (polarizations= and layers=)", "rows (patch_size=)", "columns (patch_size=)")
        for word, fixed, given in zip(words, wanted[1:], shape[1:], strict=True):
            if isinstance(fixed, int) and fixed != given:
                raise InvalidInputError(
                    f"{fixed} {word} were expected by {self.path.name!r}, got {given}. Pass what it was exported for."
                )


def model_of(given: Any) -> Model:
    """Return the model that is given: a callable, an ONNX file, or ``module:function``; its batches are float32.

    Raises `InvalidInputError` where it is none of these, or a pickle.
    """
    if isinstance(given, str | Path):
        return _named(str(given))
    if callable(getattr(type(given), "running", None)):
        model: Model = given
        return model
    if sys.modules.get("torch") is not None:  # without it, nothing is a module of torch
        from sarzarr.torch.models import module_model

        if (module := module_model(given)) is not None:
            return module
    if isinstance(given, type) or not callable(given):
        raise InvalidInputError(
            f"a callable, an ONNX file or module:function was expected as a model, got {given!r:.80}. Pass one of "
            "these."
        )
    return FunctionModel(given)


def _named(text: str) -> Model:
    path = Path(text)
    if path.suffix.lower() == ".onnx":
        return OnnxModel(path)
    if path.suffix.lower() in PICKLES or path.is_file():
        raise InvalidInputError(
            f"an ONNX file or module:function was expected as a model, got {path.name!r}, which may be a pickle: "
            "opening one can run anything. Export it to ONNX (torch.onnx.export), or write a function that makes the "
            "model and loads its weights, and name it: --model module:function."
        )
    module, colon, name = text.partition(":")
    if not (colon and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))):
        raise InvalidInputError(
            f"FILE.onnx or module:function was expected as a model, got {text!r:.80}. Name one of these."
        )
    return ImportedModel(text)
