"""Models of torch, put over scenes: modules in evaluation on their own devices, and functions of tensors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from sarzarr.arrays import Array


@dataclass(frozen=True)
class ModuleModel:
    """A torch module (n, C, rows, columns) to (n, K, rows, columns), on the device of its weights, in their dtype."""

    module: torch.nn.Module
    """The module; while it runs it is in evaluation, and then as it was before."""

    @property
    def name(self) -> str:
        """The name of its class."""
        return type(self.module).__qualname__

    @property
    def identity(self) -> str:
        """The checksum of its structure and of the bytes of its weights."""
        digest = sha256(repr(self.module).encode())
        for key, value in sorted(self.module.state_dict().items()):
            digest.update(key.encode())
            if isinstance(value, torch.Tensor):
                digest.update(
                    value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                )
        return f"torch {digest.hexdigest()}"

    @contextmanager
    def running(self) -> Iterator[Callable[[Array], Array]]:
        """Yield a function of (n, C, rows, columns) float32 arrays; no gradient is kept."""
        modes = [(part, part.training) for part in self.module.modules()]
        weights = [*self.module.parameters(), *self.module.buffers()]
        floats = [weight for weight in weights if weight.is_floating_point()]
        device = weights[0].device if weights else torch.device("cpu")
        dtype = floats[0].dtype if floats else torch.float32
        self.module.eval()
        try:
            yield lambda batch: _run(self.module, batch, device, dtype)
        finally:
            for part, was_training in modes:
                part.training = was_training


@dataclass(frozen=True)
class TensorModel:
    """A function of float32 tensors (n, C, rows, columns) on a device, that returns tensors."""

    function: Callable[[torch.Tensor], torch.Tensor]
    """The function; modules in it are to be in evaluation already."""
    device: str = "cpu"
    """The device of the tensors that it takes."""

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.function, "__qualname__", type(self.function).__qualname__))

    @property
    def identity(self) -> None:
        """None: nothing tells whether a function is the same one as last time."""

    @contextmanager
    def running(self) -> Iterator[Callable[[Array], Array]]:
        """Yield a function of (n, C, rows, columns) float32 arrays; no gradient is kept."""
        device = torch.device(self.device)
        yield lambda batch: _run(self.function, batch, device, torch.float32)


def module_model(given: Any) -> ModuleModel | None:
    """Return the model of a torch module, (n, C, rows, columns) in; None where it is none."""
    return ModuleModel(given) if isinstance(given, torch.nn.Module) else None


def on_tensors(function: Callable[[torch.Tensor], torch.Tensor], device: str = "cpu") -> TensorModel:
    """Return a function of tensors, (n, C, rows, columns) float32, as a model for `sarzarr.predict_scene`.

    >>> bright = on_tensors(lambda x: (x > 0.5).to(torch.uint8))
    >>> with bright.running() as run:
    ...     run(np.ones((1, 1, 2, 2), "float32")).tolist()
    [[[[1, 1], [1, 1]]]]
    """
    return TensorModel(function, device)


def _run(function: Any, batch: Array, device: torch.device, dtype: torch.dtype) -> Any:
    """Return what a function makes of a batch, as an array; of half and bfloat16 float32."""
    with torch.inference_mode():
        made = function(torch.from_numpy(batch).to(device=device, dtype=dtype))
        if not isinstance(made, torch.Tensor):
            return made
        made = made.detach().cpu()
        return np.asarray((made.float() if made.is_floating_point() else made).numpy())
