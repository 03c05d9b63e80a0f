"""Patches lost and repeated in each situation of a training, with real processes; prints a table (Markdown).

Usage: python benchmarks/bench_exactness.py [--only WORDS]

A situation is a function that takes a store of 108 patches and returns epochs, each a list of the ids that came, of
all ranks together. Those of training frameworks stand in ``frameworks*.py`` beside this file, in a list SITUATIONS.
"""

import argparse
import importlib
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

import sarzarr as sz
from sarzarr.torch import ZarrPatchDataset

HERE = Path(__file__).parent
PATCHES, EPOCHS, PATIENCE_S = 108, 2, 5.0
OPTIONS: dict[str, Any] = {
    "polarizations": "vv", "patch_size": 64, "shuffle": True, "seed": 7, "min_unsaturated": 0, "min_valid": 0,
    "with_meta": True, "batch_size": 4,
}  # fmt: skip
Epochs = list[list[int]]
Situation = tuple[str, Callable[[Path], Epochs]]


class RankError(Exception):
    """A rank has stopped with an error; its last line."""


def make_store(folder: Path) -> Path:
    """Ingest one scene of 9 x 12 patches of 64 pixels."""
    raw = sz.write_synthetic_scenes(folder / "raw", count=1, shape=(9 * 64, 12 * 64))
    store = sz.ingest(sz.plan_ingest(raw, folder / "s.zarr"))
    assert len(sz.PatchReader(store, **OPTIONS).selection) == PATCHES
    return folder / "s.zarr"


def ids_of(batches: Any) -> list[int]:
    return [i for batch in batches for i in batch["id"].tolist()]


def run_ranks(work: Callable[..., Epochs], *given: Any, ranks: int = 2, method: str = "fork") -> Epochs:
    """Return the epochs of all ranks together, each of which runs ``work(rank, *given)`` in a gloo group."""
    with tempfile.TemporaryDirectory() as place:
        context = multiprocessing.get_context(method)
        every = [
            context.Process(target=_rank_main, args=(place, rank, ranks, work, given))
            for rank in range(ranks)
        ]
        for process in every:
            process.start()
        for process in every:
            process.join(180)
        left = [pickle.loads((Path(place) / str(rank)).read_bytes()) for rank in range(ranks)]
    # A rank's own error says more than what gloo then says to the others.
    for error in sorted(
        (said for said in left if isinstance(said, str)), key=lambda said: "sarzarr" not in said
    ):
        raise RankError(error)
    return [list(chain(*parts)) for parts in zip(*left, strict=True)]


def _rank_main(
    place: str, rank: int, ranks: int, work: Callable[..., Epochs], given: tuple[Any, ...]
) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    impatient()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{place}/meet", rank=rank, world_size=ranks, timeout=timedelta(seconds=20)
    )
    try:
        left: Epochs | str = work(rank, *given)
    except Exception:
        left = traceback.format_exc().strip()
    (Path(place) / str(rank)).write_bytes(pickle.dumps(left))
    if not isinstance(left, str):
        torch.distributed.barrier()
    os._exit(0)


def impatient() -> None:
    """Wait for other ranks for seconds, in the place of half an hour."""
    from sarzarr.torch.epochs import board

    board.PATIENCE_S = PATIENCE_S


def train(loader: Any) -> Epochs:
    """Return the ids of each epoch of a loop whose every step waits for the other ranks."""
    epochs = []
    for _ in range(EPOCHS):
        epochs.append([])
        for batch in loader:
            epochs[-1] += batch["id"].tolist()
            torch.distributed.all_reduce(torch.zeros(1))
    return epochs


def loader_of(dataset: Any, workers: int = 0, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=None, num_workers=workers, **options)


# ------------------------------------------------------------------ what a rank does
def with_dataset(rank: int, dataset: Any, workers: int) -> Epochs:
    return train(loader_of(dataset, workers))


def with_own(rank: int, store: Path, workers: int, options: Sequence[dict[str, Any]]) -> Epochs:
    return train(loader_of(ZarrPatchDataset(store, **OPTIONS | options[rank]), workers))


def looking(rank: int, store: Path, workers: int) -> Epochs:
    loader = loader_of(ZarrPatchDataset(store, **OPTIONS), workers)
    if rank == 0:
        next(iter(loader))
    return train(loader)


def peeking(rank: int, store: Path, workers: int) -> Epochs:
    dataset = ZarrPatchDataset(store, **OPTIONS)
    if rank == 0:
        dataset.peek()
    return train(loader_of(dataset, workers))


def alone(rank: int, store: Path) -> Epochs:
    return [ids_of(ZarrPatchDataset(store, **OPTIONS))] if rank == 0 else [[]]


def resuming_one(rank: int, store: Path) -> Epochs:
    dataset = ZarrPatchDataset(store, **OPTIONS)
    if rank == 0:
        state = dataset.reader.state_at(sz.PatchReader(store, **OPTIONS)._cursor.upcoming, taken=5, ranks=2)
        dataset.load_state_dict(state)
    return train(loader_of(dataset))


def gathering(rank: int, store: Path) -> Epochs:
    """Gather the ids of each step on rank 0, and look for them among all."""
    epoch: list[int] = []
    for batch in loader_of(ZarrPatchDataset(store, **OPTIONS)):
        some = torch.nn.functional.pad(batch["id"], (0, 4 - len(batch["id"])), value=-1)
        parts = [torch.empty_like(some) for _ in range(2)]
        torch.distributed.all_gather(parts, some)
        every = torch.cat(parts)
        assert bool(torch.isin(batch["id"], every).all())
        epoch += every[every >= 0].tolist()
    return [epoch if rank == 0 else []]


# ------------------------------------------------------------------ situations
def from_one_process(store: Path, method: str, workers: int = 0) -> Epochs:
    return run_ranks(with_dataset, ZarrPatchDataset(store, **OPTIONS), workers, method=method)


def stateful(store: Path, workers: int, *, is_persistent: bool = False, stop: int | None = None) -> Epochs:
    """Return three epochs; with ``stop``, of a loader saved after so many batches, and of one that goes on."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make() -> Any:
        dataset = ZarrPatchDataset(store, **OPTIONS)
        return StatefulDataLoader(
            dataset, batch_size=None, num_workers=workers, persistent_workers=is_persistent
        )

    loader, epochs = make(), []
    if stop is not None:
        epochs.append(ids_of(islice(loader, stop)))
        state = pickle.loads(pickle.dumps(loader.state_dict()))
        loader = make()
        loader.load_state_dict(state)
        epochs[0] += ids_of(loader)
    epochs += [ids_of(loader) for _ in range(3 - len(epochs))]
    return epochs


def set_after_load(store: Path) -> Epochs:
    first = ZarrPatchDataset(store, **OPTIONS)
    epoch = ids_of(islice(first, 10))
    again = ZarrPatchDataset(store, **OPTIONS)
    again.load_state_dict(first.state_dict())
    again.set_epoch(0)
    return [epoch + ids_of(again), ids_of(again)]


def seeded(store: Path) -> Epochs:
    dataset, epochs = ZarrPatchDataset(store, **OPTIONS), []
    for _ in range(3):
        torch.manual_seed(0)
        epochs.append(ids_of(loader_of(dataset, 2, worker_init_fn=_first_is_late)))
    return epochs


def _first_is_late(worker: int) -> None:
    time.sleep(0.5 if worker == 0 else 0)


def by_hand(store: Path) -> Epochs:
    ranks = [sz.PatchReader(store, **OPTIONS).for_rank(rank, 3) for rank in range(3)]
    return [list(chain.from_iterable(map(ids_of, ranks))) for _ in range(2)]


def by_number(store: Path) -> Epochs:
    reader = sz.PatchReader(store, **OPTIONS)
    return [ids_of(reader[i] for i in range(len(reader)))]


_SAME: list[dict[str, Any]] = [{}, {}]
SITUATIONS: list[Situation] = [
    ("ranks forked from the process that holds the dataset", lambda s: from_one_process(s, "fork")),
    ("the same, two workers a rank", lambda s: from_one_process(s, "fork", 2)),
    ("ranks spawned from the process that holds the dataset", lambda s: from_one_process(s, "spawn")),
    ("the same, one worker a rank", lambda s: from_one_process(s, "spawn", 1)),
    ("each rank opens its own, two workers", lambda s: run_ranks(with_own, s, 2, _SAME)),
    ("three ranks, one worker", lambda s: run_ranks(with_own, s, 1, [{}] * 3, ranks=3)),
    ("rank 0 alone looks at one batch", lambda s: run_ranks(looking, s, 0)),
    ("rank 0 alone looks at one batch, two workers", lambda s: run_ranks(looking, s, 2)),
    ("rank 0 alone calls peek(), two workers", lambda s: run_ranks(peeking, s, 2)),
    ("rank 0 alone iterates", lambda s: run_ranks(alone, s)),
    ("ranks with different seeds", lambda s: run_ranks(with_own, s, 0, [{}, {"seed": 8}])),
    (
        "ranks with different batch sizes, a worker",
        lambda s: run_ranks(with_own, s, 1, [{}, {"batch_size": 3}]),
    ),
    ("one rank alone loads a state", lambda s: run_ranks(resuming_one, s)),
    ("ids gathered over gloo, `isin`", lambda s: run_ranks(gathering, s)),
    ("`torch.manual_seed(0)` before each epoch, two workers of which the first is late", seeded),
    ("`StatefulDataLoader`, two workers", lambda s: stateful(s, 2)),
    *(
        (
            f"`StatefulDataLoader`, {workers} {'persistent ' if lives else ''}workers, resumed after {stop} batches",
            lambda s, workers=workers, lives=lives, stop=stop: stateful(
                s, workers, is_persistent=lives, stop=stop
            ),
        )
        for workers, lives, stop in ((0, False, 3), (2, False, 3), (2, True, 1), (2, True, 14), (3, True, 27))
    ),
    ("`set_epoch(e)` after a state within epoch e", set_after_load),
    ("`for_rank` of three, without a process group", by_hand),
    ("`reader[i]` for each i", by_number),
]


def outcome(situation: Callable[[Path], Epochs], store: Path) -> tuple[str, str, str]:
    """Return patches lost and repeated in each epoch, and what was said."""
    try:
        epochs = situation(store)
    except Exception as error:
        line = str(error).splitlines()[-1].removeprefix("sarzarr.errors.").replace("|", "/")
        return "-", "-", f"error: {line if len(line) < 160 else line[:160] + '...'}"
    distinct = [len(set(epoch)) for epoch in epochs]
    lost = [PATCHES - n for n in distinct]
    repeated = [len(epoch) - n for epoch, n in zip(epochs, distinct, strict=True)]
    most = Counter(zip(lost, repeated, strict=True))
    return (
        ", ".join(map(str, lost)),
        ", ".join(map(str, repeated)),
        "exact" if set(most) == {(0, 0)} else "**wrong**",
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="words that the name of a situation has")
    only = parser.parse_args().only
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(HERE))
    every = list(SITUATIONS)
    for path in sorted(HERE.glob("frameworks*.py")):
        every += getattr(importlib.import_module(path.stem), "SITUATIONS", [])
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder))
        print("| situation | lost of 108, by epoch | repeated | |\n|---|---|---|---|")
        for name, situation in every:
            if only in name:
                print(f"| {name} | {' | '.join(outcome(situation, store))} |", flush=True)


if __name__ == "__main__":
    main()
