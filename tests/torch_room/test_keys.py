"""Layers under the keys that others look for."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from conftest import speckle, write_band  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

import sarzarr as sz  # noqa: E402
from sarzarr.errors import InvalidInputError  # noqa: E402
from sarzarr.torch import ZarrPatchDataset  # noqa: E402


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    rng = np.random.default_rng(0)
    write_band(folder / "s_vv.tif", speckle((512, 768)), tiles=256)
    write_band(
        folder / "water.tif", rng.integers(0, 2, (512, 768)).astype(np.uint16), tiles=256, nodata=65535
    )
    write_band(folder / "dem.tif", rng.normal(0, 9, (512, 768)).astype(np.float32), tiles=256)
    layers = {"water": folder / "water.tif", "dem": folder / "dem.tif"}
    return sz.ingest(
        sz.plan_ingest(
            folder / "s_vv.tif", folder / "s.zarr", layers=layers, quantity="sigma0", representation="power"
        )
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_is_a_dict_of_images_and_masks(store, workers):
    options = {"batch_size": 4, "min_unsaturated": 0.0}
    named = ZarrPatchDataset(store, keys={"mask": "water", "height": "dem"}, **options)
    plain = ZarrPatchDataset(store, layers=["water", "dem"], **options)
    batch = next(iter(DataLoader(named, batch_size=None, num_workers=workers)))
    image, water, dem = next(iter(plain))
    assert list(batch) == ["image", "mask", "height"]
    assert (batch["mask"].dtype, batch["mask"].shape) == (torch.int64, (4, 256, 256))
    torch.testing.assert_close(batch["image"], image)
    torch.testing.assert_close(batch["mask"], water[:, 0].long())
    torch.testing.assert_close(batch["height"], dem, equal_nan=True)
    loss = torch.nn.CrossEntropyLoss(ignore_index=named.layer_nodata["water"])
    assert loss(torch.zeros(4, 2, 256, 256), batch["mask"]).isfinite()
    described = next(iter(ZarrPatchDataset(store, keys={"mask": "water"}, with_meta=True, **options)))
    assert {"image", "flags", "id", "scene", "mask"} <= set(described)
    assert "layers" not in described


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": {"image": "water"}},
        {"keys": {"a": "water", "b": "water"}},
        {"keys": {"mask": "water"}, "layers": ["dem"]},
    ],
)
def test_keys_name_each_layer_once(store, wrong):
    with pytest.raises(InvalidInputError, match="a key of its own"):
        ZarrPatchDataset(store, **wrong)
