"""`PtychoDataContainer`: grouped data under the names of training code, in NumPy and in torch alike."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from scans import arguments, lattice

import sarzarr as sz
from sarzarr.ptychography import PtychoDataContainer, RawDataTorch

ATTRIBUTES = {
    "X": ((10, 64, 64, 4), "float32"),
    "Y": ((10, 64, 64, 4), "complex64"),
    "Y_I": ((10, 64, 64, 4), "float32"),
    "Y_phi": ((10, 64, 64, 4), "float32"),
    "coords": ((10, 1, 2, 4), "float32"),
    "coords_nominal": ((10, 1, 2, 4), "float32"),
    "coords_true": ((10, 1, 2, 4), "float32"),
    "coords_relative": ((10, 1, 2, 4), "float32"),
    "global_offsets": ((10, 1, 2, 1), "float64"),
    "local_offsets": ((10, 1, 2, 4), "float64"),
    "nn_indices": ((10, 4), "int32"),
    "probe": ((64, 64), "complex64"),
    "YY_full": ((108, 108), "complex64"),
}


@pytest.fixture(scope="module")
def grouped():
    return RawDataTorch(**arguments(lattice())).generate_grouped_data(nsamples=10, seed=0, gridsize=2)


@pytest.fixture(scope="module")
def probe():
    return lattice()["probeGuess"]


def test_attributes_have_the_values_shapes_and_dtypes_of_the_text(grouped, probe):
    made = PtychoDataContainer(grouped, probe)
    assert {k: (getattr(made, k).shape, str(getattr(made, k).dtype)) for k in ATTRIBUTES} == ATTRIBUTES
    assert len(made) == 10
    for name, source in {
        "X": "X_full",
        "Y": "Y",
        "global_offsets": "coords_offsets",
        "local_offsets": "coords_relative",
        "nn_indices": "nn_indices",
        "YY_full": "objectGuess",
    }.items():
        np.testing.assert_array_equal(getattr(made, name), grouped[source])
    np.testing.assert_array_equal(
        made.Y_I * np.exp(1j * made.Y_phi), made.Y_I * np.exp(1j * np.angle(made.Y))
    )
    assert made.norm_Y_I == pytest.approx(np.sqrt(1e9) / 32, rel=1e-6)
    for name, (shape, dtype) in ATTRIBUTES.items():
        assert f"{name} {shape} {dtype}" in repr(made)


def test_a_layout_puts_channels_second(grouped, probe):
    last, first = (PtychoDataContainer(grouped, probe, layout) for layout in (None, "nchw"))
    assert first.X.shape == (10, 4, 64, 64)
    assert first.coords.shape == (10, 4, 1, 2)
    again = PtychoDataContainer(
        {name: np.moveaxis(grouped[name], -1, 1) if name != "nn_indices" else grouped[name]
         for name in ("X_full", "Y", "coords_relative", "coords_offsets", "nn_indices")},
        probe,
        "nhwc",
    )  # fmt: skip
    np.testing.assert_array_equal(again.X, last.X)
    np.testing.assert_array_equal(again.global_offsets, last.global_offsets)
    assert again.norm_Y_I == last.norm_Y_I


def test_an_object_that_is_not_complex64_is_refused(grouped, probe):
    for dtype in (np.float32, np.complex128):
        with pytest.raises(ValueError, match="DATA-001"):
            PtychoDataContainer(grouped | {"Y": grouped["Y"].real.astype(dtype)}, probe)


def test_amplitudes_that_are_not_float32_are_a_type_error(grouped, probe):
    with pytest.raises(TypeError, match="float32, got float64"):
        PtychoDataContainer(grouped | {"X_full": grouped["X_full"].astype(float)}, probe)


def test_frames_without_light_are_refused(grouped, probe):
    with pytest.raises(ValueError, match="light"):
        PtychoDataContainer(grouped | {"X_full": grouped["X_full"] * 0}, probe)


@pytest.mark.parametrize("name", ["X_full", "coords_relative", "coords_offsets", "nn_indices"])
def test_missing_arrays_are_named(grouped, probe, name):
    with pytest.raises(ValueError, match=f"got none of {name}"):
        PtychoDataContainer({k: v for k, v in grouped.items() if k != name}, probe)


def test_without_an_object_ones_stand_for_it_and_that_is_said(grouped, probe, caplog):
    with caplog.at_level(logging.WARNING):
        made = PtychoDataContainer(grouped | {"Y": None}, probe)
    assert "ones" in caplog.text
    assert made.Y.dtype == np.complex64
    assert (made.Y == 1).all()
    assert made.Y.shape == made.X.shape


def test_tensors_have_the_same_values_shapes_and_dtypes(grouped, probe):
    torch = pytest.importorskip("torch", reason="torch is not installed (sarzarr[torch])")
    arrays, tensors = PtychoDataContainer(grouped, probe), sz.PtychoDataContainerTorch(grouped, probe)
    for name in ATTRIBUTES:
        value = getattr(tensors, name)
        assert isinstance(value, torch.Tensor)
        assert str(value.dtype) == f"torch.{ATTRIBUTES[name][1]}"
        np.testing.assert_array_equal(value.numpy(), getattr(arrays, name))
    assert tensors.norm_Y_I == arrays.norm_Y_I
    assert "X (10, 64, 64, 4) float32" in repr(tensors)
    assert tensors.coords_nominal is tensors.coords


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it raises ImportError, as where it is not installed
import numpy as np
import sarzarr as sz
from sarzarr.ptychography import PtychoDataContainer, PtychoDataContainerTorch
assert sz.PtychoDataContainerTorch is PtychoDataContainer is PtychoDataContainerTorch
x, y = np.divmod(np.arange(20.0), 5)
data = sz.RawDataTorch(x + 8, y + 8, np.ones((20, 8, 8)), np.ones((8, 8)), None, np.ones((20, 20)))
grouped = data.generate_grouped_data(N=8, K=4, nsamples=10, seed=0, gridsize=2)
made = sz.PtychoDataContainerTorch(grouped, data.probeGuess)
assert type(made.X) is np.ndarray and made.X.shape == (10, 8, 8, 4)
"""


def test_without_torch_the_container_is_of_arrays():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "torch is not installed: PtychoDataContainerTorch is of NumPy arrays" in done.stderr
