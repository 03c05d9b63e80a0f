"""The rate of a prediction against that of the bare model on batches that are in memory already.

    make bench-predict

It makes a scene, and pairs of runs: the model alone, over as many windows as the
scene has, and `sarzarr.predict_scene` of the same model over the scene, written into the store. Printed are the
medians of the ratios. The models are a small U-Net in torch, and the same kind of network by onnxruntime.
"""

import argparse
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

import sarzarr as sz
from sarzarr.prediction.inputs import scene_input
from sarzarr.prediction.models import model_of
from sarzarr.prediction.options import PredictOptions

POLARIZATIONS, NAMES = ["vv", "vh"], ["p_vv", "p_vh"]


def unet(width):
    """Return a U-Net of two levels, (n, 2, h, w) to (n, 2, h, w)."""
    import torch
    from torch import nn

    def block(i, o):
        return nn.Sequential(
            nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1), nn.ReLU()
        )

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.low = block(2, width), block(width, 2 * width)
            self.up, self.last = block(3 * width, width), nn.Conv2d(width, 2, 1)

        def forward(self, x):
            high = self.down(x)
            low = self.low(nn.functional.max_pool2d(high, 2))
            low = nn.functional.interpolate(low, scale_factor=2.0)
            return self.last(self.up(torch.cat([high, low], 1)))

    torch.manual_seed(0)
    return UNet().eval()


def onnx_network(path, width):
    """Write a chain of convolutions, (n, 2, h, w) to (n, 2, h, w)."""
    from onnx import TensorProto, helper, save

    rng, nodes, kernels, name = np.random.default_rng(0), [], [], "x"
    sizes = [2, width, width, width, 2]
    for i, (a, b) in enumerate(pairwise(sizes)):
        values = rng.normal(size=(b, a, 3, 3)).astype("float32") / 9
        kernels.append(helper.make_tensor(f"k{i}", TensorProto.FLOAT, values.shape, values.reshape(-1)))
        made = "y" if i == len(sizes) - 2 else f"c{i}"
        nodes.append(helper.make_node("Conv", [name, f"k{i}"], [made], pads=[1, 1, 1, 1]))
        name = made
        if made != "y":
            nodes.append(helper.make_node("Relu", [made], [f"r{i}"]))
            name = f"r{i}"
    x, y = (helper.make_tensor_value_info(k, TensorProto.FLOAT, ["n", 2, "h", "w"]) for k in "xy")
    graph = helper.make_graph(nodes, "network", [x], [y], kernels)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def pair(model, store, scene, batch_size):
    """Return windows, seconds of the bare model and of the prediction, and the ratio of their processor seconds."""
    given = scene_input(store, scene, PredictOptions(polarizations=POLARIZATIONS))
    windows = len(given.grid)
    batches = [np.arange(i, min(i + batch_size, windows)) for i in range(0, windows, batch_size)]
    held = [batch.copy() for batch in given.batches(batches)]
    with model_of(model).running() as run:
        run(held[0])
        began, worked = time.perf_counter(), time.process_time()
        for batch in held:
            run(batch)
        bare, worked = time.perf_counter() - began, time.process_time() - worked
    del held
    whole = time.process_time()
    done = sz.predict_scene(
        model, store, scene, polarizations=POLARIZATIONS, batch_size=batch_size, overwrite=True, names=NAMES,
        units=f"of {time.time_ns()}",  # else it is there already
    )  # fmt: skip
    return windows, bare, done.seconds, worked / (time.process_time() - whole)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048, help="rows and columns of the scene")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--width", type=int, default=16, help="channels of the networks")
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = sz.write_synthetic_scenes(folder / "raw", count=1, shape=(options.size, options.size))
        store = sz.ingest(sz.plan_ingest(files, folder / "s.zarr"))
        models = {"numpy, x -> x": lambda batch: batch, "torch U-Net": unet(options.width)}
        models["onnx convolutions"] = onnx_network(folder / "m.onnx", 2 * options.width)
        for label, model in models.items():
            ratios, rates, worked = [], [], []
            for _ in range(options.pairs):
                windows, bare, whole, cpu = pair(model, store, store.scenes[0], options.batch_size)
                worked.append(cpu)
                ratios.append(bare / whole)
                rates.append(windows / whole)
            print(
                f"{label}: {statistics.median(ratios):.2f} times the bare model (from {min(ratios):.2f} to "
                f"{max(ratios):.2f}), {statistics.median(rates):.1f} patches/s of {windows}; of processor seconds "
                f"{statistics.median(worked):.2f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
