"""Ptychography without torch: scans in NPZ files or stores, grouped into training data as NumPy arrays."""

from sarzarr.ptychography.bridge import MemmapDatasetBridge
from sarzarr.ptychography.config import PtychoConfig
from sarzarr.ptychography.container import PtychoDataContainer
from sarzarr.ptychography.container import PtychoDataContainer as PtychoDataContainerTorch
from sarzarr.ptychography.raw_data import RawDataTorch

__all__ = [
    "MemmapDatasetBridge",
    "PtychoConfig",
    "PtychoDataContainer",
    "PtychoDataContainerTorch",
    "RawDataTorch",
]
