"""Ptychography without torch: scans in NPZ files or stores, grouped into training data as NumPy arrays."""

from sarzarr.ptychography.bridge import MemmapDatasetBridge as MemmapDatasetBridge
from sarzarr.ptychography.config import PtychoConfig as PtychoConfig
from sarzarr.ptychography.container import PtychoDataContainer as PtychoDataContainer
from sarzarr.ptychography.container import PtychoDataContainer as PtychoDataContainerTorch  # noqa: F401
from sarzarr.ptychography.raw_data import RawDataTorch as RawDataTorch
