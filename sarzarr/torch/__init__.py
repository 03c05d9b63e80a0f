"""The PyTorch face: the only room that imports torch."""

from typing import TYPE_CHECKING, Any

from sarzarr.errors import MissingExtraError

try:
    import torch as torch
except ImportError:
    raise MissingExtraError(
        "PyTorch was expected, got no module named 'torch'. Install it with `pip install 'sarzarr[torch]'`."
    ) from None

if TYPE_CHECKING:
    from sarzarr.torch.datamodule import SARDataModule as SARDataModule
from sarzarr.torch.dataset import ZarrPatchDataset as ZarrPatchDataset
from sarzarr.torch.loader import PatchLoader as PatchLoader
from sarzarr.torch.mapstyle import LazyPatchDataset as LazyPatchDataset
from sarzarr.torch.mapstyle import SARPatchDataset as SARPatchDataset
from sarzarr.torch.models import on_tensors as on_tensors
from sarzarr.torch.ptychography import PtychoDataContainerTorch as PtychoDataContainerTorch
from sarzarr.torch.spectrograms import SpectrogramDataset as SpectrogramDataset
from sarzarr.torch.spectrograms import create_data_loaders as create_data_loaders


def __getattr__(name: str) -> Any:
    # Lightning takes seconds to import: only who asks for its data module waits for it.
    if name == "SARDataModule":
        from sarzarr.torch.datamodule import SARDataModule

        return globals().setdefault(name, SARDataModule)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
