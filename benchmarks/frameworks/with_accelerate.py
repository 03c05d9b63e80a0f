"""Accelerate: two processes, two epochs, a checkpoint in the second; and what its default does with a DataLoader."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import accelerate
import torch
from counts import OPTIONS, example, row
from torch.utils.data import DataLoader

from sarzarr.errors import InvalidInputError
from sarzarr.torch import PatchLoader, ZarrPatchDataset

STEP = 5


def tensors_alone(batch):
    """Return what can be cut along its first axis."""
    return {"image": batch["image"], "id": batch["id"]}


def one_process(root, folder):
    """Run one of two processes; print what it was given, as JSON."""
    one = accelerate.Accelerator(cpu=True)
    said = {}
    for name, setting in {"dispatch_batches=None": None, "dispatch_batches=False": False}.items():
        one.dataloader_config.dispatch_batches = setting
        loader = one.prepare(DataLoader(ZarrPatchDataset(root, **OPTIONS), batch_size=None))
        try:
            said[name] = f"nothing was: {sum(len(batch['id']) for batch in loader)} patches"
        except InvalidInputError as error:
            said[name] = str(error)
    model = torch.nn.Linear(1, 1)
    loader = PatchLoader(ZarrPatchDataset(root, **OPTIONS), num_workers=1)
    model, _, loader = one.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1), loader)
    one.register_for_checkpointing(loader)
    epochs, rest = [], []
    for epoch in range(2):
        loader.set_epoch(epoch)
        epochs.append([])
        for step, batch in enumerate(loader, 1):
            epochs[-1].append(batch["id"].tolist())
            one.backward(model(batch["image"].mean().reshape(1, 1)).sum())
            if (epoch, step) == (1, STEP):
                one.save_state(folder)
                one.wait_for_everyone()
    one.load_state(folder)
    for epoch in range(2):
        loader.set_epoch(epoch)  # of the epoch that the state has behind it nothing comes
        rest.extend(batch["id"].tolist() for batch in loader)
    whole = ZarrPatchDataset(root, **OPTIONS, rank=0, ranks=1, transform=tensors_alone)
    one.dataloader_config.dispatch_batches = None
    shared = one.prepare(DataLoader(whole, batch_size=None))
    sliced = [[batch["id"].tolist() for batch in shared] for _ in range(2)]
    print(json.dumps({"said": said, "epochs": epochs, "rest": rest, "sliced": sliced}))
    one.end_training()


def rows(root):
    """Yield the rows, from two processes."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        command = [sys.executable, "-W", "ignore", __file__, "--one", root, folder]
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ
                | shared
                | {"RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"},
            )
            for rank in range(2)
        ]
        both = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in ranks]
    every = ZarrPatchDataset(root, **OPTIONS).reader.selection.id.tolist()

    def joined(batches):
        return [i for rank in batches for batch in rank for i in batch]

    for name, message in both[0]["said"].items():
        same = message == both[1]["said"][name]
        yield row(
            f"prepare(DataLoader(dataset, batch_size=None)), {name}", [], [], refused=message if same else ""
        )
    epochs = [joined([said["epochs"][epoch] for said in both]) for epoch in (0, 1)]
    line = "prepare(PatchLoader(dataset, num_workers=1))"
    yield row("prepare, 1 worker", epochs, every, line=line)
    resumed = [joined([[*said["epochs"][1][:STEP], *said["rest"]] for said in both])]
    yield row("save_state and load_state", resumed, epochs[1], line="register_for_checkpointing(loader)")
    sliced = [joined([said["sliced"][epoch] for said in both]) for epoch in (0, 1)]
    yield row("process 0 reads for all", sliced, every, line="ZarrPatchDataset(..., rank=0, ranks=1)")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--one"]:
        one_process(sys.argv[2], str(Path(sys.argv[3])))
    else:
        example("Accelerate", "accelerate", rows)
