"""Scenes are tasks of a cluster, whose workers open the model themselves, and give what one process gives."""

import sys

import numpy as np
import pytest
from conftest import tree_hash
from predictions import predicted_store, write_onnx

import sarzarr as sz
from sarzarr.tasks import cluster

CODE = "import numpy as np\n\ndef model():\n    return lambda batch: np.sqrt(batch[:, :1])\n"


@pytest.mark.slow
def test_a_cluster_gives_what_one_process_gives(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="onnx is not installed (sarzarr[test])")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (sarzarr[onnx])")
    write_onnx(tmp_path / "m.onnx", channels=1)
    (tmp_path / "roots.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    hashes = []
    for name in ("alone", "together"):
        store = predicted_store(tmp_path / name)
        models = {"by_onnx": str(tmp_path / "m.onnx"), "by_name": "roots:model"}
        function = lambda batch: np.float32(1) - batch  # noqa: E731 - what cannot be pickled by name

        def predict_all(store=store, models=models, function=function):
            seen = []
            for layer, model in models.items():
                done = sz.predict_scenes(
                    model, store, names=layer, polarizations=["vv"], progress=seen.append
                )
                assert sorted(one.scene for one in done.scenes) == ["a", "b"]
            sz.predict_scenes(
                function, store, names="by_function", polarizations=["vv"], model_name="negative"
            )
            both = sz.predict_scenes(function, store, names=["p", "q"], polarizations=["vv", "vh"])
            assert [one.scene for one in both.refused] == ["b"]
            assert seen[-1].done == seen[-1].total == 13

        if name == "alone":
            predict_all()
        else:
            with cluster(workers=2):
                predict_all()
        assert not sz.verify(store.root).findings
        hashes.append(tree_hash(store.root))
    assert hashes[0] == hashes[1]
    sys.modules.pop("roots", None)
