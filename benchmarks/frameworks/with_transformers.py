"""HF Trainer: its own loader, which stacks; ours, for which one method is overridden; and on from a checkpoint."""

import json
import tempfile
import warnings
from pathlib import Path

import torch
from counts import OPTIONS, example, name_operators, refused, row

name_operators()
from transformers import Trainer, TrainerCallback, TrainingArguments  # noqa: E402

from sarzarr.torch import PatchLoader, ZarrPatchDataset  # noqa: E402

SAVED = 32
"""A step in the second epoch of 27."""


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def forward(self, image, id):  # noqa: A002
        self.seen += id.tolist()
        return {"loss": self.layer(image.mean().reshape(1, 1)).sum()}


class PatchTrainer(Trainer):
    """A Trainer whose loader keeps its place beside each checkpoint."""

    loader = None
    place = None

    def get_train_dataloader(self):
        self.loader = PatchLoader(self.train_dataset)
        if self.place is not None:
            self.loader.load_state_dict(self.place)
        return self.loader


class KeepPlace(TrainerCallback):
    """Writes the place of a trainer's loader into each checkpoint."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_save(self, arguments, state, control, **_):
        place = Path(arguments.output_dir) / f"checkpoint-{state.global_step}" / "loader.json"
        place.write_text(json.dumps(self.trainer.loader.state_dict()))


def make_trainer(trainer_class, root, folder, **options):
    data = ZarrPatchDataset(root, transform=images_and_ids, **OPTIONS)
    quiet = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "num_train_epochs": 2}
    arguments = TrainingArguments(folder, save_strategy="steps", save_steps=SAVED, **quiet, **options)
    return trainer_class(model=Model(), args=arguments, train_dataset=data)


def rows(root):
    """Yield the rows."""
    every = ZarrPatchDataset(root, **OPTIONS).reader.selection.id.tolist()
    line = "get_train_dataloader returns PatchLoader(self.train_dataset)"
    with tempfile.TemporaryDirectory() as folder:
        yield refused("Trainer(train_dataset=dataset)", make_trainer(Trainer, root, folder).train)
        trainer = make_trainer(PatchTrainer, root, folder)
        trainer.add_callback(KeepPlace(trainer))
        trainer.train()
        seen = trainer.model.seen
        epochs = [seen[: len(every)], seen[len(every) :]]
        yield row("Trainer, two epochs", epochs, every, line=line)
        checkpoint = Path(folder) / f"checkpoint-{SAVED}"
        again = make_trainer(PatchTrainer, root, folder)
        yield refused(
            "train(resume_from_checkpoint)", lambda: again.train(resume_from_checkpoint=str(checkpoint))
        )
        again = make_trainer(PatchTrainer, root, folder, ignore_data_skip=True)
        again.place = json.loads((checkpoint / "loader.json").read_text())
        again.train(resume_from_checkpoint=str(checkpoint))
        yield row(
            "on from a checkpoint in the second epoch",
            [seen[len(every) : SAVED * 4] + again.model.seen],
            epochs[1],
            line="ignore_data_skip=True, and load_state_dict of the loader",
        )


def images_and_ids(batch):
    """Return what the model's forward takes."""
    return {"image": batch["image"], "id": batch["id"]}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    example("HF Trainer", "transformers", rows)
