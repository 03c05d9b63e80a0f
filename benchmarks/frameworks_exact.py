"""Situations of training frameworks for ``bench_exactness.py``: the examples of ``frameworks/``, run and counted."""

import atexit
import shutil
import sys
import tempfile
from functools import cache

from run_frameworks import HERE, run_example

PATCHES = 108
_LIGHTNING = {
    "Lightning, `ddp_spawn`": "DataLoader-ddp_spawn-0",
    "Lightning, `ddp_notebook`": "DataLoader-ddp_notebook-0",
    "Lightning, `fit(model, datamodule=SARDataModule(store))`, two workers": "module-ddp-2",
    "the same, `ddp_spawn`": "module-ddp_spawn-0",
    "the same, `ddp_notebook`": "module-ddp_notebook-0",
    "Lightning, `StatefulDataLoader`, two workers": "StatefulDataLoader-ddp_notebook-2",
}


@cache
def store_of_examples():
    sys.path.insert(0, str(HERE))
    from counts import make_store

    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_store(folder).root


def epochs_of(name, *arguments):
    """Return an epoch for each row of an example, which lacks and repeats as many ids as the example counted."""
    rows = run_example(name, sys.executable, store_of_examples(), *arguments)["rows"]
    counted = [row for row in rows if row["lost"] is not None]
    if not counted:
        raise RuntimeError(rows[0]["refused"])
    return [[*range(PATCHES - row["lost"]), *[0] * row["repeated"]] for row in counted]


def refused_by_accelerate(_):
    rows = run_example("accelerate", sys.executable, store_of_examples())["rows"]
    raise RuntimeError(rows[0]["refused"] or "nothing was refused")


SITUATIONS = [
    *((name, lambda _, of=of: epochs_of("lightning", of)) for name, of in _LIGHTNING.items()),
    ("Accelerate, `prepare(DataLoader(dataset, batch_size=None))`", refused_by_accelerate),
    ("Accelerate, `prepare(PatchLoader(dataset))`", lambda _: epochs_of("accelerate")),
]
