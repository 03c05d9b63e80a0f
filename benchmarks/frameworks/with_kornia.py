"""Kornia: augmentations of images and masks together, in the training loop."""

import warnings

import kornia.augmentation as K
import torch
from counts import OPTIONS, example, row

from sarzarr.torch import ZarrPatchDataset


def rows(root):
    """Yield a row of batches that went through augmentations that turn pixels but keep their values."""
    data = ZarrPatchDataset(root, keys={"mask": "water"}, **OPTIONS)
    every = data.reader.selection.id.tolist()
    turned = K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5), K.RandomVerticalFlip(p=0.5), data_keys=["input", "mask"]
    )
    ids = []
    for batch in data:
        image, mask = turned(batch["image"], batch["mask"][:, None].float())
        same_image = torch.equal(image.flatten(1).sort().values, batch["image"].flatten(1).sort().values)
        counted = torch.equal(mask.flatten(1).sum(1), batch["mask"].flatten(1).sum(1).float())
        if not (same_image and counted and mask.shape == image.shape):
            raise ValueError("pixels of a batch are others")
        ids += batch["id"].tolist()
    yield row("AugmentationSequential, images and masks", [ids], every, line='batch["mask"][:, None].float()')


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    example("Kornia", "kornia", rows)
