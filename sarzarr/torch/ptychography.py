"""`PtychoDataContainerTorch`: grouped data of a scan as tensors."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sarzarr.ptychography.container import PtychoDataContainer
from sarzarr.ptychography.grouped import Layout


class PtychoDataContainerTorch(PtychoDataContainer):
    """Grouped data of B groups of C frames as tensors: all else is as of `PtychoDataContainer`.

    X is (B, N, N, C) float32, with ``layout="nchw"`` (B, C, N, N). Tensors share the memory of arrays.
    """

    def __init__(self, grouped: Mapping[str, Any], probe: Any, layout: Layout | None = None) -> None:
        super().__init__(grouped, probe, layout)
        made: dict[int, torch.Tensor] = {}
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, made.setdefault(id(value), torch.from_numpy(value)))
