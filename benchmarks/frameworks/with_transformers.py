"""HF Trainer: its own loader, which stacks; and ours, for which one method is overridden."""

import tempfile
import warnings

import torch
from counts import OPTIONS, example, name_operators, refused, row

name_operators()
from transformers import Trainer, TrainingArguments  # noqa: E402

from sarzarr.torch import PatchLoader, ZarrPatchDataset  # noqa: E402


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def forward(self, image, id):  # noqa: A002
        self.seen += id.tolist()
        return {"loss": self.layer(image.mean().reshape(1, 1)).sum()}


class PatchTrainer(Trainer):
    def get_train_dataloader(self):
        return PatchLoader(self.train_dataset)


def rows(root):
    """Yield the rows."""

    def train(trainer_class, **options):
        kept = {"transform": images_and_ids, **OPTIONS}
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                num_train_epochs=2,
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                save_strategy="no",
                **options,
            )
            model = Model()
            trainer_class(model=model, args=arguments, train_dataset=ZarrPatchDataset(root, **kept)).train()
        return model.seen

    every = ZarrPatchDataset(root, **OPTIONS).reader.selection.id.tolist()
    yield refused("Trainer(train_dataset=dataset)", lambda: train(Trainer))
    seen = train(PatchTrainer)
    halves = [seen[: len(every)], seen[len(every) :]]
    yield row(
        "Trainer, two epochs",
        halves,
        every,
        line="get_train_dataloader returns PatchLoader(self.train_dataset)",
    )


def images_and_ids(batch):
    """Return what the model's forward takes."""
    return {"image": batch["image"], "id": batch["id"]}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    example("HF Trainer", "transformers", rows)
