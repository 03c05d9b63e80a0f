"""segmentation-models-pytorch: a U-Net on images of one channel and masks."""

import warnings

from counts import OPTIONS, example, name_operators, row

name_operators()
import segmentation_models_pytorch as smp  # noqa: E402
import torch  # noqa: E402

from sarzarr.torch import ZarrPatchDataset  # noqa: E402


def rows(root):
    """Yield the row of one epoch."""
    torch.set_num_threads(1)
    data = ZarrPatchDataset(root, keys={"mask": "water"}, **OPTIONS)
    every = data.reader.selection.id.tolist()
    model = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=2)
    loss = smp.losses.DiceLoss("multiclass", ignore_index=data.layer_nodata["water"])
    ids = []
    for batch in data:
        loss(model(batch["image"][:, :, ::4, ::4]), batch["mask"][:, ::4, ::4]).backward()
        ids += batch["id"].tolist()
    yield row("Unet(in_channels=1), DiceLoss", [ids], every, line='keys={"mask": "water"}')


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    example("segmentation-models-pytorch", "segmentation-models-pytorch", rows)
