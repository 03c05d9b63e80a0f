"""torchdata: StatefulDataLoader, and nodes that read a dataset; saved and resumed in the middle of an epoch."""

import copy
import warnings

from counts import OPTIONS, example, row
from torchdata.nodes import IterableWrapper, Loader, Prefetcher
from torchdata.stateful_dataloader import StatefulDataLoader

from sarzarr.torch import ZarrPatchDataset

STEP = 5


def halves(make):
    """Return the ids of two epochs, and of one that another loader goes on with from a state in its middle."""
    loader = make()
    epochs = [[i for batch in loader for i in batch["id"].tolist()] for _ in range(2)]
    loader, batches, before = make(), None, []
    batches = iter(loader)
    for _ in range(STEP):
        before.extend(next(batches)["id"].tolist())
    state = copy.deepcopy(loader.state_dict())
    other = make()
    other.load_state_dict(state)
    after = [i for batch in other for i in batch["id"].tolist()]
    following = [i for batch in other for i in batch["id"].tolist()]
    return epochs, [before + after, following]


def rows(root):
    """Yield the rows."""
    every = ZarrPatchDataset(root, **OPTIONS).reader.selection.id.tolist()
    for workers, lives in ((0, False), (2, False), (2, True)):

        def make(workers=workers, lives=lives):
            data = ZarrPatchDataset(root, **OPTIONS)
            return StatefulDataLoader(data, batch_size=None, num_workers=workers, persistent_workers=lives)

        what = f"StatefulDataLoader(dataset, batch_size=None), {workers} workers{' that live on' * lives}"
        epochs, resumed = halves(make)
        yield row(what, epochs, every)
        yield row(f"{what}: on from the middle, and the next", resumed, every)

    def make_nodes():
        return Loader(Prefetcher(IterableWrapper(ZarrPatchDataset(root, **OPTIONS)), prefetch_factor=2))

    epochs, resumed = halves(make_nodes)
    yield row("nodes: Loader(Prefetcher(IterableWrapper(dataset)))", epochs, every)
    yield row("nodes: on from the middle, and the next", resumed, every)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    example("torchdata", "torchdata", rows)
