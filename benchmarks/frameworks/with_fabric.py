"""Fabric: two forked ranks with a loader that Fabric leaves as it is, and with one that it sets up."""

import json
import tempfile
import warnings
from pathlib import Path

import torch
from counts import OPTIONS, example, row
from lightning.fabric import Fabric
from torch.utils.data import DataLoader

from sarzarr.torch import PatchLoader, ZarrPatchDataset


def train(fabric, dataset, kind, folder):
    model, _ = fabric.setup(model := torch.nn.Linear(1, 1), torch.optim.SGD(model.parameters(), lr=0.1))
    loader = PatchLoader(dataset)
    if kind != "PatchLoader":
        loader = fabric.setup_dataloaders(DataLoader(dataset, batch_size=None))
    epochs = []
    for _ in range(2):
        epochs.append([])
        for batch in loader:
            epochs[-1] += batch["id"].tolist()
            fabric.backward(model(batch["image"].mean().reshape(1, 1)).sum())
    (Path(folder) / f"{fabric.global_rank}.json").write_text(json.dumps(epochs))


def rows(root):
    """Yield the rows; the dataset is made in the process that ranks are forked from."""
    dataset = ZarrPatchDataset(root, **OPTIONS)
    every = dataset.reader.selection.id.tolist()
    for kind in ("PatchLoader", "setup_dataloaders"):
        with tempfile.TemporaryDirectory() as folder:
            fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_notebook")
            fabric.launch(train, dataset, kind, folder)
            ranks = [json.loads(file.read_text()) for file in Path(folder).glob("*.json")]
        epochs = [[i for rank in ranks for i in rank[epoch]] for epoch in (0, 1)]
        yield row(f"{kind}, two ranks of ddp_notebook", epochs, every)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    example("Fabric", "lightning", rows)
