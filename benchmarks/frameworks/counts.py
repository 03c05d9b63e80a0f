"""Stores for the examples, and what an example was given of each epoch, held against what there is."""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rasterio

import sarzarr as sz

OPTIONS = {"batch_size": 4, "shuffle": True, "with_meta": True, "min_unsaturated": 0.0}
"""27 batches of the store's 108 patches."""


def make_store(folder, shape=(2304, 3072)):
    """Ingest one scene of 108 patches with a layer ``water`` (0 land, 1 water, 255 no data)."""
    folder = Path(folder)
    rng = np.random.default_rng(0)
    place = {
        "crs": "EPSG:32633",
        "transform": rasterio.transform.from_origin(500_000, 5_400_000, 10, 10),
    }
    sides = {"height": shape[0], "width": shape[1], "count": 1, "driver": "GTiff", "tiled": True, **place}
    with rasterio.open(folder / "s_vv.tif", "w", dtype="float32", **sides) as file:
        file.write(rng.gamma(4.4, 0.05 / 4.4, shape).astype(np.float32), 1)
    with rasterio.open(folder / "water.tif", "w", dtype="uint8", nodata=255, **sides) as file:
        file.write(rng.integers(0, 2, shape).astype(np.uint8), 1)
    plan = sz.plan_ingest(
        folder / "s_vv.tif",
        folder / "s.zarr",
        layers={"water": folder / "water.tif"},
        quantity="sigma0",
        representation="power",
    )
    return sz.ingest(plan)


def row(situation, epochs, expected, *, left_out=0, line="", refused=""):
    """Return a row: of ``epochs``, lists of the ids that all ranks were given, the most lost and repeated of one.

    ``left_out`` of the expected ids may be missing: they do not fill a batch for every rank.
    """
    lost = [max(len(set(expected) - set(ids)) - left_out, 0) for ids in epochs]
    more = [len(ids) - len(set(ids) & set(expected)) for ids in epochs]
    counts = {"lost": max(lost, default=None), "repeated": max(more, default=None)}
    return {"situation": situation, "line": line, **counts, "refused": refused}


def refused(situation, run, line=""):
    """Return a row of what ``run()`` is refused with."""
    try:
        run()
    except Exception as error:  # a framework's own, too
        return row(situation, [], [], line=line, refused=f"{type(error).__name__}: {error}")
    return row(situation, [], [], line=line, refused="nothing was")


def example(framework, package, rows):
    """Run an example on the store that the command line names, or on one of its own; print its JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        root = sys.argv[1] if len(sys.argv) > 1 else make_store(folder).root
        found = list(rows(str(root)))
    print(json.dumps({"framework": framework, "version": version(package), "rows": found}))


def name_operators():
    """Let torchvision be imported beside a torch without CUDA, where its wheel's operators have no names."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        names = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            names.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        kept.append(names)


kept = []
"""Libraries of operators: a name goes with its library."""
