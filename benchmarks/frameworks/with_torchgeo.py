"""torchgeo: its trainer of segmentation, on a data module and on a dataset of ours."""

import warnings

from counts import OPTIONS, example, name_operators, row

name_operators()
import lightning.pytorch as L  # noqa: E402
import torch  # noqa: E402
from torchgeo.trainers import SemanticSegmentationTask  # noqa: E402

from sarzarr.torch import PatchLoader, SARDataModule, ZarrPatchDataset  # noqa: E402


class Task(SemanticSegmentationTask):
    """Notes the ids of training batches."""

    def training_step(self, batch, index, dataloader_idx=0):
        self.seen.append((self.current_epoch, batch["id"].tolist()))
        batch = {"image": batch["image"][:, :, ::4, ::4], "mask": batch["mask"][:, ::4, ::4]}
        return super().training_step(batch, index)

    def validation_step(self, batch, index, dataloader_idx=0):
        batch = {"image": batch["image"][:, :, ::4, ::4], "mask": batch["mask"][:, ::4, ::4]}
        return super().validation_step(batch, index)


def rows(root):
    """Yield the rows."""
    torch.set_num_threads(1)
    quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    named = {"keys": {"mask": "water"}, **OPTIONS}

    def fit(*data):
        task = Task(
            model="unet",
            backbone="resnet18",
            in_channels=1,
            task="multiclass",
            num_classes=2,
            ignore_index=255,
        )
        task.seen = []
        L.Trainer(max_epochs=2, accelerator="cpu", devices=1, **dict.fromkeys(quiet, False)).fit(task, *data)
        return [[i for e, ids in task.seen if e == epoch for i in ids] for epoch in (0, 1)]

    every = ZarrPatchDataset(root, **named).reader.selection.id.tolist()
    val = PatchLoader(ZarrPatchDataset(root, **named | {"shuffle": False}, max_patches=4))
    epochs = fit(PatchLoader(ZarrPatchDataset(root, **named)), val)
    line = 'keys={"mask": "water"}'
    yield row("SemanticSegmentationTask, fit(task, PatchLoader(dataset))", epochs, every, line=line)
    module = SARDataModule(root, val_fraction=0.1, **{k: v for k, v in named.items() if k != "shuffle"})
    reader = module.train_dataloader().dataset.reader
    epochs = fit(module)
    ids, left_out = reader.selection.id.tolist(), reader.deal().left_out
    yield row(
        "the same, fit(task, datamodule=SARDataModule(store))", epochs, ids, left_out=left_out, line=line
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    example("torchgeo", "torchgeo", rows)
