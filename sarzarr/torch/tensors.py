"""NumPy batches as tensors."""

from typing import Any

import numpy as np
import torch

from sarzarr.arrays import Array

_WIDER = {"uint16": "int32", "uint32": "int64"}
"""What layers become whose dtype torch can hold, but hardly compute with."""


# ------------------------------------------------------------------ tensors
def widened(values: Array) -> Array:
    """Return a layer in a dtype that torch can compute with: uint16 as int32, uint32 as int64."""
    return values.astype(_WIDER.get(str(values.dtype), values.dtype), copy=False)


def as_tensors(batch: Any) -> Any:
    """Return a batch whose arrays are tensors that share their memory."""
    if isinstance(batch, np.ndarray):
        return torch.from_numpy(batch)
    if isinstance(batch, tuple):
        return tuple(as_tensors(part) for part in batch)
    if isinstance(batch, list):
        return [as_tensors(part) for part in batch]
    if isinstance(batch, dict):
        return {key: as_tensors(part) for key, part in batch.items()}
    return batch


def pinned_block(nbytes: int) -> memoryview:
    """Return page-locked memory."""
    block: memoryview = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy().data
    return block
