"""The PyTorch face: the only room that imports torch."""

from sarzarr.errors import MissingExtraError

try:
    import torch as torch
except ImportError:
    raise MissingExtraError(
        "PyTorch was expected, got no module named 'torch'. Install it with `pip install 'sarzarr[torch]'`."
    ) from None

from sarzarr.torch.datamodule import SARDataModule as SARDataModule
from sarzarr.torch.dataset import ZarrPatchDataset as ZarrPatchDataset
from sarzarr.torch.mapstyle import LazyPatchDataset as LazyPatchDataset
from sarzarr.torch.mapstyle import SARPatchDataset as SARPatchDataset
from sarzarr.torch.ptychography import PtychoDataContainerTorch as PtychoDataContainerTorch
from sarzarr.torch.spectrograms import SpectrogramDataset as SpectrogramDataset
from sarzarr.torch.spectrograms import create_data_loaders as create_data_loaders
