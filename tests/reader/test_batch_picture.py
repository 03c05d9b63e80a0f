"""Figures of batches: every part that is delivered is drawn as it is."""

import numpy as np
import pytest
from conftest import speckle, write_band
from loader_stores import make_store

import sarzarr as sz
from sarzarr.errors import InvalidInputError, MissingExtraError
from sarzarr.store.boxes import Boxes, write_boxes

pytest.importorskip("matplotlib", reason="matplotlib is not installed (sarzarr[plot])")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two scenes with masks of three classes and 255, an angle, and boxes of ships."""
    folder = tmp_path_factory.mktemp("picture")
    files = []
    mask = (np.add.outer(np.arange(600), np.arange(600)) // 200 % 3).astype(np.uint8)
    mask[:30] = 255
    for i, name in enumerate(("north", "south")):
        power = speckle((600, 600), seed=i)
        power[:40, 300:] = np.nan
        files += [
            write_band(folder / f"{name}_vv.tif", power),
            write_band(folder / f"{name}_vh.tif", speckle((600, 600), seed=i + 5)),
        ]
        write_band(folder / f"mask_{name}.tif", mask, nodata=255)
    plan = sz.plan_ingest(
        files,
        folder / "s.zarr",
        quantity="sigma0",
        representation="power",
        layers={"mask": str(folder / "mask_*.tif")},
    )
    store = sz.ingest(plan)
    boxes = Boxes(
        boxes=np.array([[20.0, 30, 80, 60], [300, 100, 380, 200]] * 2), owner=np.array([0, 0, 1, 1]),
        label=np.ones(4, np.int64), owners=("north", "south"),
        grids=(store.grids["north"], store.grids["south"]), on="scenes", classes=("ship",),
    )  # fmt: skip
    write_boxes(store, boxes)
    return store.anew()


def panels(figure):
    """Return the pictures (rows, columns) that are drawn, row by row, without colour bars."""
    return [axis.get_images()[0].get_array() for axis in figure.axes if axis.get_images()]


def test_every_part_of_a_batch_is_drawn_as_it_is_delivered(store):
    options = {
        "polarizations": ["vv", "vh"],
        "flags": True,
        "layers": ["mask"],
        "boxes": True,
        "min_unsaturated": 0,
    }
    reader = sz.PatchReader(store, batch_size=4, **options)
    batch = next(iter(reader))
    figure = reader.plot(batch, patches=3)
    images, flags, targets, mask = batch
    drawn = panels(figure)
    assert len(drawn) == 3 * 4
    for i in range(3):
        assert np.array_equal(drawn[i], images[i, 0])
        assert np.array_equal(drawn[3 + i], images[i, 1])
        assert np.array_equal(drawn[6 + i], flags[i].max(axis=0))
        assert np.array_equal(drawn[9 + i].filled(255), mask[i, 0])
    outlined = [len(axis.patches) for axis in figure.axes[:6]]
    assert outlined == [len(target["boxes"]) for target in targets[:3]] * 2
    assert max(outlined) > 0
    with_meta = sz.PatchReader(store, batch_size=4, with_meta=True, **options)
    titled = with_meta.plot(next(iter(with_meta)))
    assert titled.axes[0].get_title() == "north\n0, 0"
    assert titled.axes[0].get_ylabel() == "vv"
    assert len(panels(titled)) == 4 * 4
    named = with_meta.plot({"image": images, "water": mask[:, 0]})  # as torchgeo and Kornia have it
    assert np.array_equal(panels(named)[8].filled(255), mask[0, 0])


@pytest.mark.parametrize("options", [{}, {"dtype": "uint16"}, {"flags": True}, {"layers": ["mask"]}])
def test_plain_batches_and_tuples(store, options, tmp_path):
    reader = sz.PatchReader(store, batch_size=2, **options)
    reader.plot(next(iter(reader))).savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_stacks_are_drawn_date_after_date(tmp_path):
    files = [
        write_band(
            tmp_path / f"s1a_iw_grdh_1sdv_2020010{d}t053000_2020010{d}t053025_030000_0000{d}_abcd_vv.tif",
            speckle((256, 256), seed=d),
        )
        for d in (1, 2)
    ]
    store = sz.ingest(sz.plan_ingest(files, tmp_path / "s.zarr", quantity="sigma0", representation="power"))
    stack = sz.make_stack(store, store.scenes, mixed=True)
    reader = sz.PatchReader(store, stack=stack, min_unsaturated=0)
    (batch,) = reader
    drawn = panels(reader.plot(batch))
    assert len(drawn) == 2
    assert all(np.array_equal(one, other) for one, other in zip(drawn, batch[0, :, 0], strict=True))


def test_tensors_and_what_is_no_batch(store, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
    data = sz.torch.ZarrPatchDataset(store, batch_size=2, polarizations=["vv"], channels=3)
    assert len(panels(data.plot(next(iter(data))))) == 6
    for wrong in (torch.zeros(2), "batch", (torch.zeros(2, 1, 4, 4), 1), {"image": np.zeros((0, 1, 4, 4))}):
        with pytest.raises(InvalidInputError, match="a batch as this reader delivers it"):
            data.plot(wrong)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"sarzarr\[plot\]"):
        data.plot(torch.zeros(1, 1, 4, 4))


def test_a_figure_of_a_padded_batch_of_several_stores(store, tmp_path):
    other = make_store(tmp_path)
    reader = sz.PatchReader(
        [store, other], shuffle=True, with_meta=True, edge="pad", min_unsaturated=0, batch_size=12
    )
    batch = next(iter(reader))
    assert len(panels(reader.plot(batch))) == 2 * 8
