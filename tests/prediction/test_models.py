"""Models of every kind give the layers that they give of the whole scene; pickles are never opened."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from predictions import as_delivered, predicted_store, write_onnx
from scipy.ndimage import convolve

import sarzarr as sz
from sarzarr.errors import InvalidInputError
from sarzarr.prediction.models import PICKLES, model_of

BOTH = {"polarizations": ["vv", "vh"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store that tests read, and write into arrays of their own."""
    return predicted_store(tmp_path_factory.mktemp("kept"))


def run(store, model, channels=1, **options):
    out = np.empty((channels, 600, 500), "f4")
    done = sz.predict_scene(model, store, "a", **BOTH, out=out, **options)
    return out, done


def convolved(store, weights):
    """Return what a 3 x 3 convolution makes of the whole scene, zeros beyond: NaN where it was not measured."""
    planes = [as_delivered(store, "a", name) for name in ("vv", "vh")]
    filled = [np.nan_to_num(plane) for plane in planes]
    made = [
        sum(convolve(plane, k[::-1, ::-1], mode="constant") for plane, k in zip(filled, ks, strict=True))
        for ks in weights
    ]
    return np.where(np.isnan(planes[0]) | np.isnan(planes[1]), np.nan, made)


# ------------------------------------------------------------------ ONNX
@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_an_onnx_file_gives_what_it_makes_of_the_whole_scene(store, tmp_path, batch):
    """But for the outermost pixels of windows, whose weights are a ramp's first step."""
    pytest.importorskip("onnx", reason="onnx is not installed (sarzarr[test])")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (sarzarr[onnx])")
    weights = write_onnx(tmp_path / "m.onnx", batch=batch, outputs=2)
    out, done = run(store, tmp_path / "m.onnx", 2, overlap=64)
    want = convolved(store, weights)
    assert np.array_equal(np.isnan(out), np.isnan(want))
    assert np.nanmax(np.abs(out - want)) < 1e-3
    assert np.nanmedian(np.abs(out - want)) < 1e-6
    assert (done.patches, done.skipped) == (8, 1)
    named, _ = run(store, str(tmp_path / "m.onnx"), 2, overlap=64)
    assert np.array_equal(named, out, equal_nan=True)


def test_an_onnx_file_says_what_it_was_exported_for(store, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed (sarzarr[test])")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (sarzarr[onnx])")
    write_onnx(tmp_path / "m.onnx", channels=3, size=128)
    with pytest.raises(
        InvalidInputError, match=r"3 channels \(polarizations= and layers=\) were expected by 'm.onnx', got 2"
    ):
        run(store, tmp_path / "m.onnx", patch_size=128)
    with pytest.raises(InvalidInputError, match=r"128 rows \(patch_size=\) were expected"):
        run(store, tmp_path / "m.onnx", layers=["dem"])
    run(store, tmp_path / "m.onnx", layers=["dem"], patch_size=128)
    with pytest.raises(InvalidInputError, match="an ONNX file was expected"):
        run(store, tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InvalidInputError, match="a model that onnxruntime reads was expected"):
        run(store, tmp_path / "text.onnx")


def test_an_onnx_file_is_told_by_its_bytes(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed (sarzarr[test])")
    write_onnx(tmp_path / "m.onnx")
    one = model_of(tmp_path / "m.onnx").identity
    write_onnx(tmp_path / "same.onnx")
    write_onnx(tmp_path / "m.onnx", outputs=2)
    assert one == model_of(tmp_path / "same.onnx").identity != model_of(tmp_path / "m.onnx").identity


# ------------------------------------------------------------------ names
@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A folder with a user's module, which the current one is; gone from sys.path and sys.modules afterwards."""
    (tmp_path / "users_code.py").write_text(
        "import numpy as np\n"
        "made = []\n"
        "def double(batch):\n    return 2 * batch[:, :1]\n"
        "def model():\n    made.append(1)\n    return double\n"
        "class Net:\n    def __call__(self, batch):\n        return 3 * batch[:, :1]\n"
        "net = Net()\nnumber = 4\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("users_code", None)


def test_a_name_in_the_users_own_code_is_the_model_or_returns_it(store, own_code):
    want = as_delivered(store, "a", "vv")
    for name, factor in (("double", 2), ("model", 2), ("net", 3)):
        (out,), _ = run(store, f"users_code:{name}")
        inside = ~np.isnan(out)
        np.testing.assert_allclose(out[inside], factor * want[inside], atol=1e-5)
    assert len(sys.modules["users_code"].made) == 1
    one = model_of("users_code:double").identity
    (own_code / "users_code.py").write_text("def double(batch):\n    return batch\n")
    assert model_of("users_code:double").identity != one


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("users_code:Net", "got a class"),
        ("users_code:nope", "AttributeError"),
        ("users_nothing:model", "ModuleNotFoundError"),
        ("users_code:number", "a callable, an ONNX file or module:function"),
        ("users_code", "FILE.onnx or module:function"),
        ("os:system('true')", "FILE.onnx or module:function"),
        ("users_code.py", "which may be a pickle"),
        (7, "a callable"),
        (np.ndarray, "a callable"),
    ],
)
def test_what_is_no_model_is_refused(store, own_code, given, said):
    with pytest.raises(InvalidInputError, match=said):
        run(store, given)


@pytest.mark.parametrize("ending", PICKLES)
def test_a_pickle_is_never_opened(store, tmp_path, ending):
    import pickle

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "opened",)

    (tmp_path / f"model{ending}").write_bytes(pickle.dumps(Evil()))
    for given in (tmp_path / f"model{ending}", str(tmp_path / f"model{ending}")):
        with pytest.raises(InvalidInputError, match=r"Export it to ONNX .* --model module:function"):
            run(store, given)
    assert not (tmp_path / "opened").exists()


# ------------------------------------------------------------------ torch
def unet(channels=2):
    torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(channels, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5)
    return torch.nn.Sequential(*layers, torch.nn.Conv2d(4, 1, 1))


def test_a_module_runs_in_evaluation_and_is_as_it_was_afterwards(store):
    module = unet()
    torch = sys.modules["torch"]
    module[1].eval()  # as who fine-tunes freezes it
    module[1].running_mean += 0.3
    seen = []
    module.register_forward_hook(lambda net, _, made: seen.append((net.training, made.requires_grad)))
    out, _ = run(store, module)
    assert set(seen) == {(False, False)}
    assert [part.training for part in module] == [True, False, True, True]
    module.eval()
    again, _ = run(store, module)
    assert np.array_equal(out, again, equal_nan=True)
    half = torch.nn.Conv2d(2, 1, 1).to(torch.bfloat16)
    assert np.isfinite(run(store, half)[0][0, 590:, 5]).all()


def test_a_module_is_told_by_its_weights():
    module = unet()
    torch = sys.modules["torch"]
    one = model_of(module).identity
    assert one == model_of(unet()).identity
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] += 1e-3
    assert one != model_of(module).identity


def test_a_module_that_was_interrupted_in_training_mode_is_put_back(store):
    module = unet(channels=3)
    with pytest.raises(RuntimeError, match="channels"):
        run(store, module)
    assert all(part.training for part in module)


def test_a_function_of_tensors_is_a_model(store):
    module = unet().eval()
    torch = sys.modules["torch"]
    out, _ = run(store, module)
    told, _ = run(store, sz.torch.on_tensors(lambda x: torch.sigmoid(module(x))))
    np.testing.assert_allclose(told[~np.isnan(told)], 1 / (1 + np.exp(-out[~np.isnan(out)])), atol=1e-2)
    labels, _ = run(store, sz.torch.on_tensors(lambda x: x[:, :1] > 0.5))
    assert set(np.unique(labels)) == {0, 1, 255}


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it raises ImportError, as where it is not installed
import sarzarr as sz
print(sz.predict_scene(lambda batch: batch, sys.argv[1], "b", names="plain"))
print(sz.predict_scene(sys.argv[2], sys.argv[1], "b", names="by_onnx"))
"""


def test_functions_and_onnx_files_need_no_torch(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed (sarzarr[test])")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (sarzarr[onnx])")
    made = predicted_store(tmp_path)
    write_onnx(tmp_path / "m.onnx", channels=1)
    words = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, str(made.root), str(tmp_path / "m.onnx")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sz.open_store(made.root).layers("b") == ("by_onnx", "plain")


def test_a_missing_onnxruntime_is_said(store, tmp_path, monkeypatch):
    (tmp_path / "m.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(sz.errors.MissingExtraError, match=r"pip install 'sarzarr\[onnx\]'"):
        run(store, tmp_path / "m.onnx")
