"""Several stores through ZarrPatchDataset, and every integer column of its batches through torch's own operations."""

import numpy as np
import pytest
from loader_stores import make_store

import sarzarr as sz
from sarzarr.errors import InvalidInputError
from sarzarr.store.boxes import Boxes, write_boxes

torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
from torch.utils.data import DataLoader  # noqa: E402

from sarzarr.torch import ZarrPatchDataset  # noqa: E402


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two stores of the same scenes, with boxes."""
    folder = tmp_path_factory.mktemp("torch")
    one = make_store(folder)
    boxes = Boxes(
        boxes=np.array([[300.0, 300, 340, 330], [10, 10, 30, 30]]), owner=np.array([0, 1]),
        label=np.ones(2, np.int64),
        owners=("a", "b"), grids=(one.grids["a"], one.grids["b"]), on="scenes", classes=("ship",),
    )  # fmt: skip
    write_boxes(one, boxes)
    return one.anew(), sz.copy_store(one, folder / "other.zarr", codec="zstd")


@pytest.mark.parametrize("workers", [0, 2])
def test_two_stores_are_one_epoch_for_any_workers(stores, workers):
    data = ZarrPatchDataset(list(stores), shuffle=True, seed=1, batch_size=5, with_meta=True, clip=(-30, 5))
    ids = [
        sorted(i for b in DataLoader(data, batch_size=None, num_workers=workers) for i in b["id"].tolist())
        for _ in "ab"
    ]
    assert ids[0] == ids[1] == sorted(data.reader.selection.id.tolist())
    assert len(ids[0]) == 2 * len(ZarrPatchDataset(stores[0], with_meta=True).reader.selection)
    assert data.preprocessing_params == {"vmin": -30.0, "vmax": 5.0}


def test_datasets_are_joined_and_intersected(stores):
    one, other = (
        ZarrPatchDataset(stores[0], where=w, channels=3, transform=lambda b: b + 1)
        for w in ("col < 600", "col > 0")
    )
    ids = [set(d.reader.selection.id.tolist()) for d in (one, other, one | other, one & other)]
    assert ids[2:] == [ids[0] | ids[1], ids[0] & ids[1]]
    batch = next(iter(one | other))
    assert batch.shape[1] == 3
    assert batch.min() >= 1
    assert (one.statistics().mean == (one | other).statistics().mean).all()
    assert len(ZarrPatchDataset(sz.PatchReader(stores[0], batch_size=3))) == len(
        sz.PatchReader(stores[0], batch_size=3)
    )


def test_a_rank_of_several_stores_is_a_rank_of_the_dataset(stores):
    reader = sz.PatchReader(list(stores), with_meta=True, batch_size=5, shuffle=True)
    ids = [
        sorted(i for data in every for batch in data for i in batch["id"].tolist())
        for every in (
            [reader],
            [ZarrPatchDataset(reader.for_rank(rank, 2)) for rank in (0, 1)],
            [
                ZarrPatchDataset(one, rank=rank, ranks=2) | ZarrPatchDataset(other)
                for rank in (0, 1)
                for one, other in [[sz.PatchReader(store, with_meta=True, batch_size=5) for store in stores]]
            ],
        )
    ]
    assert ids[0] == ids[1] == ids[2]


def test_misuses_are_refused(stores):
    reader = sz.PatchReader(stores[0])
    with pytest.raises(InvalidInputError, match="readers of all ranks were expected, got one of 2"):
        sz.PatchReader([reader.for_rank(1, 2)])
    with pytest.raises(InvalidInputError, match=r"a reader of the layers \['x'\] was expected for keys="):
        ZarrPatchDataset(reader, keys={"mask": "x"})
    for wrong in ({"batch_size": 2}, {"samples": "x"}):
        with pytest.raises(InvalidInputError, match=r"a reader alone was expected, got \w+ too"):
            ZarrPatchDataset(reader, **wrong)
    with pytest.raises(InvalidInputError, match="one store was expected for samples= and groups="):
        ZarrPatchDataset(list(stores), samples="x")


def integers(part, name=""):
    """Yield every integer tensor of a batch, by name."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from integers(value, f"{name}.{key}")
    elif isinstance(part, list | tuple):
        for value in part:
            yield from integers(value, name)
    elif isinstance(part, torch.Tensor) and not part.is_floating_point():
        yield name, part


def test_every_integer_of_a_batch_is_one_that_torch_computes_and_gathers(stores, tmp_path):
    data = ZarrPatchDataset(stores, with_meta=True, flags=True, boxes=True, augment="d4", batch_size=6)
    dense = ZarrPatchDataset(stores[0], with_meta=True, min_valid=0, min_unsaturated=0)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/gloo", rank=0, world_size=1)
    try:
        for batch in (next(iter(data)), next(iter(dense))):
            found = dict(integers(batch))
            assert {".id", ".row", ".col", ".turn", ".flags"} <= set(found)
            assert found[".id"].dtype == torch.int64
            for name, values in found.items():
                assert torch.isin(values, values).all(), name
                assert (values + 1 > values).all(), name
                out = [torch.empty_like(values)]
                torch.distributed.all_gather(out, values)
                assert torch.equal(out[0], values), name
    finally:
        torch.distributed.destroy_process_group()
