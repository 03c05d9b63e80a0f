"""What each training framework is given of an epoch: runs the examples, and prints docs/frameworks.md.

Usage: python benchmarks/run_frameworks.py [--environment FOLDER] [--only NAME ...]

Each example is a script ``frameworks/with_NAME.py`` that takes a store and prints one JSON line. Those of PINNED run
in the environment that runs this; the others in one of their own over it, which this makes, with the versions of
``frameworks/requirements.txt``, unless FOLDER already has it.
"""

import argparse
import json
import os
import site
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent / "frameworks"
PINNED = ("lightning", "accelerate", "torchdata", "fabric")
OTHERS = ("transformers", "ray", "torchgeo", "smp", "kornia", "monai", "grain", "tensorflow")


def make_environment(folder, requirements=HERE / "requirements.txt", *options):
    """Make an environment over this one; return its Python, or raise with what pip, given options, said."""
    python = folder / "bin" / "python"
    if python.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    packages = next(folder.glob("lib/*/site-packages"))
    (packages / "base.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run = subprocess.run([*pip, *options, "-r", requirements], stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        raise RuntimeError(next(line for line in run.stderr.splitlines() if line.startswith("ERROR")))
    return python


def run_example(name, python, root, *arguments):
    """Return what an example printed; `RuntimeError` with its last line where it failed."""
    paths = [str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    alone = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [str(python), "-W", "ignore", str(HERE / f"with_{name}.py"), str(root), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=alone, timeout=900)
    if run.returncode:
        raise RuntimeError((run.stderr.strip().splitlines() or [f"exit {run.returncode}"])[-1])
    return json.loads(run.stdout.splitlines()[-1])


def lines_of(name, python, root):
    """Yield the lines of the table for one example."""
    try:
        found = run_example(name, python, root)
    except (RuntimeError, subprocess.SubprocessError, ValueError) as error:
        yield f"| {name} | | not tried: {str(error).replace('|', '/')[:160]} | | | |"
        return
    for row in found["rows"]:
        line = f"`{row['line']}`" if row["line"] else ""
        if row["refused"]:
            counts = f"refused: {row['refused'].replace('|', '/')} | |"
        else:
            counts = f"{row['lost']} | {row['repeated']} |"
        yield f"| {found['framework']} | {found['version']} | {row['situation']} | {line} | {counts}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--environment", type=Path)
    parser.add_argument("--only", nargs="*", default=[*PINNED, *OTHERS])
    given = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from counts import make_store

    with tempfile.TemporaryDirectory() as name:
        folder, table = Path(name), []
        root = make_store(folder).root
        for example in given.only:
            python, reason = sys.executable, ""
            if example in OTHERS:
                try:
                    python = make_environment(given.environment or folder / "environment")
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    reason = f"| {example} | | not tried: {error} | | | |"
            table += [reason] if reason else lines_of(example, python, root)
            print(f"{example}: {len(table)} rows", file=sys.stderr)
    print(PAGE.format(table="\n".join(table)), end="")


PAGE = """# In which training framework

Made by `make frameworks`, from runs. Each example ([benchmarks/frameworks](../benchmarks/frameworks)) trains for
two epochs on a store of 108 patches, most of them on two processes, and counts the ids that all processes were
given of an epoch: how many of the patches it never had, and how many came more than once. "line" is what has to be
written; where there is none, what the situation says is enough.

| framework | version | situation | line | lost | repeated |
|---|---|---|---|---|---|
{table}

## The loader that frameworks leave as it is

A dataset of sarzarr makes whole batches and knows its rank. Frameworks are made for datasets of single items and do
both once more: they stack what they get, and share it out. `PatchLoader(dataset, num_workers=0)` is an iterable of
batches, and no DataLoader, so that Lightning, Accelerate, Fabric and HF Trainer hand it on as it is. It begins with
the first batch that is asked for, counts the batches that the loop has taken, with DataLoader workers, too, and has
`state_dict`, `load_state_dict` and `set_epoch`. After a state was loaded, `for epoch in range(n):
loader.set_epoch(epoch)` goes on where it was: epochs that are over have no batches.

It moves nothing to a GPU: `batch.to(device, non_blocking=True)`.

## Lightning

`sarzarr.torch.SARDataModule` is a LightningDataModule where `lightning` or `pytorch_lightning` is installed: of the
package that is imported when it is first asked for, of both where both are. `import sarzarr.torch` alone imports
neither. Without Lightning it is a plain class with the same loaders.

- `Trainer.fit(model, datamodule=SARDataModule(store))` delivers the epoch that the trainer counts, whatever the
  dataset was used for before; sanity checking and validation move nothing. `reload_dataloaders_every_n_epochs`
  changes nothing.
- A checkpoint may be saved at any batch, and `fit(ckpt_path=...)` goes on with the next one. In the middle of an
  epoch that takes as many processes and as large batches, or `InvalidInputError`: Lightning ends an epoch by
  counting steps. At the end of an epoch both may change. A loader that is passed without a data module keeps its
  place as `PatchLoader` and as `StatefulDataLoader`; a plain DataLoader does not, and Lightning warns of it.
- `overfit_batches=k` takes the first k batches of epoch 0 again and again.
- `test_dataloader` delivers the test side of a stored split (`split="v1"`), `predict_dataloader` the patches of all
  sides.
- `SARDataModule(store, collection="floods")` has the same loaders of [chips](collections_training.md#batches), with
  their layers, labels and boxes.
- `lazy=False` and `.npy` files are map-style: Lightning gives each process its part with a DistributedSampler,
  which fills up the last step with patches that come twice, and a checkpoint in the middle of an epoch does not
  keep their place.
- Lightning advises more workers than 0. Leave it: threads of the process are at work already ([where the loader
  runs](training.md#where-the-loader-runs)).

## Accelerate, HF Trainer

`accelerator.prepare(model, optimizer, PatchLoader(dataset))` leaves the loader alone; each process reads its own
share. `accelerator.register_for_checkpointing(loader)` puts its place into `save_state`; in the place of
`skip_first_batches` it is `load_state_dict` that skips, without reading. A DataLoader would be read by process 0
alone and its share be cut up: that is refused. Where process 0 is to read for all, say so with `rank=0, ranks=1`;
Accelerate then fills up a last batch that does not divide by the processes.

HF Trainer stacks `per_device_train_batch_size` items, so that whole batches are refused. Override one method:

    class PatchTrainer(Trainer):
        def get_train_dataloader(self):
            return PatchLoader(self.train_dataset)

`per_device_train_batch_size` then has no say. Resuming skips by reading a DataLoader anew, which a PatchLoader is
not: pass `ignore_data_skip=True`, and keep the loader's state beside the checkpoint.

## Masks, augmentations

`ZarrPatchDataset(store, keys={{"mask": "water"}})`, and SARDataModule with the same, delivers dicts of `image` (N,
C, rows, columns) float32 and of layers under the names that others look for: those of integers as (N, rows,
columns) int64, as torchgeo's tasks and losses take them. `dataset.layer_nodata["water"]` is the loss's
`ignore_index`. Kornia takes masks as floats with a channel, see the table. MONAI's DataLoader stacks what it gets,
even with `batch_size=None`: take PatchLoader.

`DataLoader(dataset)` without `batch_size=None` stacks whole batches, an axis too many: refused. A `collate_fn` of
your own that joins batches is not.

## JAX, TensorFlow

`sarzarr.PatchReader` needs no torch: it yields NumPy arrays, `reader[i]` is a batch by number, so that Grain's
samplers take it, and `reader.for_rank(rank, ranks)` delivers a process's share.

## To know

- torchvision's wheels on PyPI are built beside a torch with CUDA; beside one without, `import torchvision` fails
  for want of the names of its operators, which the examples then declare. Models run all the same.
- TensorFlow and Ray are some hundred MB each. They are installed for the table, and needed for nothing else.
"""

if __name__ == "__main__":
    main()
