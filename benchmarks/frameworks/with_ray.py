"""Ray Train: two workers of a TorchTrainer, each with a dataset that knows its rank."""

import json
import os
import tempfile
import warnings
from pathlib import Path

os.environ |= {"RAY_TRAIN_V2_ENABLED": "1", "RAY_AUTH_MODE": "disabled"}
import ray
import ray.train.torch
from counts import OPTIONS, example, row
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def train(config):
    """Write what this worker was given."""
    from torch.utils.data import DataLoader

    from sarzarr.torch import PatchLoader, ZarrPatchDataset

    dataset = ZarrPatchDataset(config["root"], **config["options"])
    if config["kind"] == "PatchLoader":
        loader = PatchLoader(dataset)
    else:
        loader = ray.train.torch.prepare_data_loader(DataLoader(dataset, batch_size=None))
    epochs = [[i for batch in loader for i in batch["id"].tolist()] for _ in range(2)]
    rank = ray.train.get_context().get_world_rank()
    (Path(config["folder"]) / f"{rank}.json").write_text(json.dumps(epochs))


def rows(root):
    """Yield the rows."""
    from sarzarr.torch import ZarrPatchDataset

    every = ZarrPatchDataset(root, **OPTIONS).reader.selection.id.tolist()
    paths = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parent)])
    ray.init(
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    for kind in ("PatchLoader", "prepare_data_loader(DataLoader)"):
        with tempfile.TemporaryDirectory() as folder:
            config = {"root": root, "options": OPTIONS, "kind": kind, "folder": folder}
            TorchTrainer(
                train,
                train_loop_config=config,
                scaling_config=ScalingConfig(num_workers=2),
                run_config=RunConfig(storage_path=folder),
            ).fit()
            ranks = [json.loads(file.read_text()) for file in Path(folder).glob("*.json")]
        epochs = [[i for rank in ranks for i in rank[epoch]] for epoch in (0, 1)]
        yield row(f"TorchTrainer of two workers, {kind}", epochs, every)
    ray.shutdown()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    example("Ray Train", "ray", rows)
