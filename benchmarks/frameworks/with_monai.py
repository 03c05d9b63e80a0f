"""MONAI: dictionary transforms on batches, and its DataLoader, which stacks."""

import warnings

from counts import OPTIONS, example, refused, row
from monai.data import DataLoader
from monai.transforms import Compose, RandGaussianNoised, ScaleIntensityd

from sarzarr.torch import PatchLoader, ZarrPatchDataset

KEYS = {"keys": {"label": "water"}}


def rows(root):
    """Yield the rows."""
    transform = Compose([ScaleIntensityd("image"), RandGaussianNoised("image", prob=1.0, std=0.01)])
    data = ZarrPatchDataset(root, transform=transform, **KEYS, **OPTIONS)
    every = data.reader.selection.id.tolist()
    for workers in (0, 2):
        loader = PatchLoader(data, workers)
        epochs = [[i for batch in loader for i in batch["id"].tolist()] for _ in range(2)]
        yield row(
            f"dictionary transforms, {workers} workers",
            epochs,
            every,
            line="PatchLoader(dataset, num_workers)",
        )
    yield refused("monai.data.DataLoader(dataset)", lambda: next(iter(DataLoader(data))))
    yield refused(
        "monai.data.DataLoader(dataset, batch_size=None)",
        lambda: next(iter(DataLoader(data, batch_size=None))),
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    example("MONAI", "monai", rows)
