"""Lightning: two ranks, two epochs, a look at validation before, and on from a checkpoint in the second epoch."""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import lightning.pytorch as L
import torch
from counts import OPTIONS, example, row
from torch.utils.data import DataLoader

from sarzarr.torch import PatchLoader, SARDataModule, ZarrPatchDataset

SITUATIONS = {
    "module-ddp-2": "fit(model, SARDataModule(store)), ddp, 2 workers",
    "module-ddp_spawn-0": "the same, ddp_spawn",
    "module-ddp_notebook-0": "the same, ddp_notebook",
    "PatchLoader-ddp_notebook-0": "fit(model, PatchLoader(dataset)), ddp_notebook",
    "StatefulDataLoader-ddp_notebook-2": "fit(model, StatefulDataLoader(dataset, batch_size=None)), "
    "ddp_notebook, 2 workers",
    "DataLoader-ddp_spawn-0": "fit(model, DataLoader(dataset, batch_size=None)), ddp_spawn",
    "DataLoader-ddp_notebook-0": "the same, ddp_notebook",
}
STEP = 5


class Model(L.LightningModule):
    """Writes what each rank is given into a file of its own, and saves one checkpoint."""

    def __init__(self, folder, run):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.folder, self.run = folder, run

    def note(self, stage, batch):
        with (self.folder / f"{self.trainer.global_rank}.jsonl").open("a") as file:
            note = [self.run, stage, self.trainer.current_epoch, batch["id"].tolist()]
            file.write(json.dumps(note) + "\n")
        return self.layer(batch["image"].mean().reshape(1, 1)).sum()

    def training_step(self, batch, _):
        return self.note("train", batch)

    def validation_step(self, batch, _):
        self.note("sanity" if self.trainer.sanity_checking else "val", batch)

    def on_train_batch_end(self, outputs, batch, index):
        if self.run == "whole" and (self.current_epoch, index) == (1, STEP - 1):
            self.trainer.save_checkpoint(self.folder / "middle.ckpt")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def data_of(kind, root, workers):
    """Return what is passed to ``fit`` as its training data, and what as its validation data."""
    if kind == "module":
        options = {k: v for k, v in OPTIONS.items() if k != "shuffle"}
        return SARDataModule(root, num_workers=workers, val_fraction=0.1, **options), None
    train, val = ZarrPatchDataset(root, **OPTIONS), ZarrPatchDataset(root, **OPTIONS | {"shuffle": False})
    if kind == "PatchLoader":
        return PatchLoader(train, workers), PatchLoader(val, workers)
    if kind == "StatefulDataLoader":
        from torchdata.stateful_dataloader import StatefulDataLoader

        make = StatefulDataLoader
    else:
        make = DataLoader
    return tuple(
        make(data, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
        for data in (train, val)
    )


def fit(name, root, folder):
    """Fit two epochs, and again from the checkpoint; every rank runs this under ``ddp``."""
    kind, strategy, workers = name.split("-")
    quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    for run in ("whole", "rest"):
        trainer = L.Trainer(
            accelerator="cpu", devices=2, strategy=strategy, max_epochs=2, **dict.fromkeys(quiet, False)
        )
        train, val = data_of(kind, root, int(workers))
        checkpoint = folder / "middle.ckpt" if run == "rest" else None
        if kind != "DataLoader" or checkpoint is None:
            trainer.fit(Model(folder, run), train, val, ckpt_path=checkpoint, weights_only=False)


def counted(name, root):
    """Yield the rows of a situation, from what the ranks wrote."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", __file__, "--one", name, root, folder]
        alone = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
        if done.returncode:
            yield row(SITUATIONS[name], [], [], refused=done.stderr.strip().splitlines()[-1])
            return
        texts = [file.read_text() for file in sorted(Path(folder).glob("*.jsonl"))]
    ranks = [[json.loads(line) for line in text.splitlines()] for text in texts]

    def given(run, stage, epoch, first=None):
        batches = [[n[3] for n in notes if n[:3] == [run, stage, epoch]][:first] for notes in ranks]
        return [i for rank in batches for batch in rank for i in batch]

    train_ids, val_ids, left_out = ids_of(name, root)
    train = [given("whole", "train", epoch) for epoch in (0, 1)]
    yield row(SITUATIONS[name], train, train_ids, left_out=left_out)
    yield row(f"{SITUATIONS[name]}: validation", [given("whole", "val", e) for e in (0, 1)], val_ids)
    if not name.startswith("DataLoader"):
        resumed = [[*given("whole", "train", 1, first=STEP), *given("rest", "train", 1)]]
        yield row(f"{SITUATIONS[name]}: on from the middle", resumed, train[1])


def ids_of(name, root):
    """Return the ids of training and of validation, and how many of training no rank is given."""
    if name.startswith("module"):
        module, _ = data_of("module", root, 0)
        sides = [loader.dataset.reader for loader in (module.train_dataloader(), module.val_dataloader())]
        train, val = [side.selection.id.tolist() for side in sides]
        return train, val, sides[0].deal(ranks=2).left_out
    every = ZarrPatchDataset(root, **OPTIONS).reader.selection.id.tolist()
    return every, every, 0


def rows(root):
    """Yield the rows of the situations that the command line names after the store, or of all."""
    for name in sys.argv[2:] or SITUATIONS:
        yield from counted(name, root)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--one"]:
        fit(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        example("Lightning", "lightning", rows)
