"""Batches of 16 bits are the float32 batches, rounded: half the bytes, from any store and any cut."""

import numpy as np
import pytest
from loader_stores import make_store

import sarzarr as sz
from sarzarr.errors import InvalidInputError
from sarzarr.pixels.compiled.when import SWITCH, loops

torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
from sarzarr.torch import ZarrPatchDataset  # noqa: E402

CUTS = [
    {},
    {"augment": "d4", "shuffle": True},
    {"patch_size": 100, "stride": 64, "edge": "pad", "min_valid": 0, "flags": True},
    {"crops": "random", "patch_size": 100},
]


@pytest.mark.parametrize("compiled", ["0", "1"])
@pytest.mark.parametrize("stored", ["uint16", "float32"])
def test_halves_are_the_floats_rounded(tmp_path, monkeypatch, stored, compiled):
    monkeypatch.setenv(SWITCH, compiled)
    loops.cache_clear()
    store = make_store(tmp_path, dtype=stored)
    for cut in CUTS:
        options = {"min_unsaturated": 0, "batch_size": 3} | cut
        for dtype in ("float16", "bfloat16"):
            floats, halves = (ZarrPatchDataset(store, dtype=d, **options) for d in ("float32", dtype))
            for whole, half in zip(floats, halves, strict=True):
                pair = (whole, half) if torch.is_tensor(whole) else (whole[0], half[0])
                assert pair[1].dtype == getattr(torch, dtype)
                assert torch.equal(pair[0].to(pair[1].dtype), pair[1])
    loops.cache_clear()


def test_numpy_has_float16_and_the_bits_of_bfloat16(tmp_path):
    store = make_store(tmp_path)
    options = {"min_unsaturated": 0, "polarizations": ["vv"]}
    kinds = {d: next(iter(sz.PatchReader(store, dtype=d, **options))).dtype for d in ("float16", "bfloat16")}
    assert kinds == {"float16": np.float16, "bfloat16": np.uint16}
    dataset = ZarrPatchDataset(store, dtype="bfloat16", **options)
    assert dataset.reader.plot(next(iter(dataset))) is not None
    workers = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1)
    assert next(iter(workers)).dtype == torch.bfloat16


def test_changed_values_are_refused_with_a_remedy(tmp_path):
    store = make_store(tmp_path)
    with pytest.raises(InvalidInputError, match="needs dtype='float32', got 'float16'"):
        sz.PatchReader(store, dtype="float16", augment=sz.Gain(std_db=1.0))
