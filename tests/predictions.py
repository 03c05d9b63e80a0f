"""Stores and models that tests of predictions use."""

import numpy as np
from conftest import speckle, write_band

import sarzarr as sz


def predicted_store(folder, *, shape=(600, 500), **options):
    """Ingest ``a`` (VV, VH, layers ``dem`` and ``mask``; nodata, some in VH alone) and ``b`` (VV)."""
    folder.mkdir(parents=True, exist_ok=True)
    vv, vh = speckle(shape, seed=1), speckle(shape, seed=2, mean=0.01)
    vv[:300, :280], vh[-40:, -50:] = np.nan, np.nan
    vv[400, 400] = -1e-9  # nonpositive: valid
    write_band(folder / "a_vv.tif", vv, nodata=np.nan)
    write_band(folder / "a_vh.tif", vh, nodata=np.nan)
    write_band(folder / "b_vv.tif", speckle((300, 260), seed=3), nodata=np.nan, crs="EPSG:32634")
    rows, cols = np.indices(shape)
    write_band(folder / "dem.tif", (rows + 2 * cols).astype("float32"), nodata=-9999)
    write_band(folder / "mask.tif", ((rows // 50 + cols // 70) % 4).astype("uint8"), nodata=255)
    known = {"quantity": "sigma0", "representation": "power", "shard": 512}
    layers = {name: folder / f"{name}.tif" for name in ("dem", "mask")}
    sz.ingest(
        sz.plan_ingest(
            [folder / "a_vv.tif", folder / "a_vh.tif"], folder / "s.zarr", layers=layers, **known | options
        )
    )
    return sz.ingest(sz.plan_ingest([folder / "b_vv.tif"], folder / "s.zarr", **known | options))


def as_delivered(store, scene, array):
    """Return a whole array as a reader delivers it, float32 in [0, 1], NaN where not measured."""
    entry = store.bounds[store.rows(scene)["bounds_key"].values[store.arrays(scene).index(array)]]
    z = store.open_scene(scene)[array].values.astype("float64")
    db = entry.vmin + z * (entry.vmax - entry.vmin)
    return np.clip((db - entry.clip_vmin) / (entry.clip_vmax - entry.clip_vmin), 0, 1)


def same(batch):
    """Return what is given."""
    return batch


def brighter(batch):
    """Return 1 where a pixel is bright, else 0: whole numbers."""
    return batch > 0.5


class Counting:
    """A model that counts its batches and windows, and may fail after some."""

    def __init__(self, model=same, fail_after=None):
        self.model, self.fail_after, self.windows = model, fail_after, 0

    def __call__(self, batch):
        if self.fail_after is not None and self.windows >= self.fail_after:
            raise RuntimeError("the power went")
        self.windows += len(batch)
        return self.model(batch)


def write_onnx(path, *, batch="n", channels=2, outputs=1, size=None, weights=None):
    """Write a 3 x 3 convolution, padded, from ``channels`` to ``outputs``; ``batch`` is a name or a number."""
    from onnx import TensorProto, helper, save

    if weights is None:
        weights = np.random.default_rng(0).normal(size=(outputs, channels, 3, 3)).astype("float32") / 9
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, channels, size or "h", size or "w"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, outputs, size or "h", size or "w"])
    kernel = helper.make_tensor("k", TensorProto.FLOAT, weights.shape, weights.reshape(-1))
    node = helper.make_node("Conv", ["x", "k"], ["y"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([node], "conv", [x], [y], [kernel])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return weights
