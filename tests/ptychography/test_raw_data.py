"""`RawDataTorch`: arrays in, groups out, by the formulas; the real positions give the reference numbers."""

from types import SimpleNamespace

import numpy as np
import pytest
from scans import arguments, diffraction, lattice, window
from scipy.ndimage import map_coordinates

import sarzarr as sz
from sarzarr.errors import InvalidInputError
from sarzarr.grouping import GroupRecipe, group_positions
from sarzarr.ptychography import PtychoConfig, PtychoDataContainer, RawDataTorch

GROUPED = {
    "diffraction": ((10, 64, 64, 4), "float32"),
    "X_full": ((10, 64, 64, 4), "float32"),
    "Y": ((10, 64, 64, 4), "complex64"),
    "coords_nn": ((10, 1, 2, 4), "float64"),
    "coords_offsets": ((10, 1, 2, 1), "float64"),
    "coords_relative": ((10, 1, 2, 4), "float64"),
    "coords_start_nn": ((10, 1, 2, 4), "float64"),
    "coords_start_offsets": ((10, 1, 2, 1), "float64"),
    "coords_start_relative": ((10, 1, 2, 4), "float64"),
    "nn_indices": ((10, 4), "int32"),
    "objectGuess": ((108, 108), "complex64"),
}


def raw(**changes):
    return RawDataTorch(**(arguments(lattice()) | changes))


@pytest.fixture(scope="module")
def real_scan(real_data):
    """The real positions, probe and object, with simulated diffraction."""
    file = real_data / "ptychography" / "Run1084_recon3_postPC.npz"
    if not file.is_file():
        pytest.skip(f"needs {file.name} below ptychography/ of the real data")
    with np.load(file) as arrays:
        x, y, probe, image = (arrays[k] for k in ("xcoords", "ycoords", "probeGuess", "objectGuess"))
    return RawDataTorch(x, y, diffraction(probe, image, x, y), probe, None, image)


def test_grouped_raw_data_has_the_shapes_and_dtypes_of_the_text():
    found = raw().generate_grouped_data(N=64, K=4, nsamples=10, seed=0, gridsize=2)
    assert {k: (v.shape, str(v.dtype)) for k, v in found.items() if k != "nphotons"} == GROUPED


def test_groups_are_those_of_the_formulas():
    data = raw()
    found = data.generate_grouped_data(64, K=7, nsamples=10, seed=3, gridsize=2)
    groups = group_positions(
        data.xcoords, data.ycoords, GroupRecipe(gridsize=2, nsamples=10, neighbors=7, seed=3)
    )
    np.testing.assert_array_equal(found["nn_indices"], groups)
    for b, group in enumerate(groups):
        centers = np.array([data.xcoords[group], data.ycoords[group]])
        mean = centers.mean(axis=1, keepdims=True)
        np.testing.assert_array_equal(found["coords_nn"][b, 0], centers)
        np.testing.assert_array_equal(found["coords_offsets"][b, 0], mean)
        np.testing.assert_array_equal(found["coords_relative"][b, 0], mean - centers)
        for k, i in enumerate(group):
            np.testing.assert_array_equal(found["diffraction"][b, :, :, k], data.diff3d[i])
            expected = window(data.objectGuess, data.xcoords[i], data.ycoords[i], 64)
            np.testing.assert_array_equal(found["Y"][b, :, :, k], expected)
    total = (found["diffraction"].astype(float) ** 2).sum() / 40
    np.testing.assert_array_equal(found["X_full"], np.float32(np.sqrt(32**2 / total)) * found["diffraction"])


@pytest.mark.parametrize("position", ["true", "compat"])
def test_the_object_is_cut_out_bilinearly_and_is_0_beyond_its_edge(position):
    draw = np.random.default_rng(0)
    data = raw(xcoords=draw.uniform(-5, 110, 100), ycoords=draw.uniform(-5, 110, 100))
    found = data.generate_grouped_data(nsamples=6, seed=1, gridsize=2, position=position)
    centers = found["coords_nn"][:, 0]
    places = centers if position == "true" else 2 * centers.mean(axis=2, keepdims=True) - centers
    pixels = np.arange(64) - 32
    for b, k in np.ndindex(6, 4):
        x, y = places[b, :, k]
        at = np.meshgrid(y + pixels, x + pixels, indexing="ij")
        parts = (map_coordinates(part(data.objectGuess).astype(float), at, order=1, mode="grid-constant")
                 for part in (np.real, np.imag))  # fmt: skip
        real, imaginary = parts
        np.testing.assert_allclose(found["Y"][b, :, :, k], real + 1j * imaginary, atol=1e-6)


def test_one_frame_a_group():
    data = raw()
    found = data.generate_grouped_data(K=4, nsamples=1000, seed=0, gridsize=1)
    np.testing.assert_array_equal(found["nn_indices"], np.arange(100)[:, None])
    assert found["nn_indices"].dtype == np.int64
    assert not found["coords_relative"].any()
    np.testing.assert_array_equal(found["Y"][7, :, :, 0], window(data.objectGuess, 60, 32, 64))


def test_nchw_is_the_same_with_channels_second():
    last, first = (
        raw().generate_grouped_data(nsamples=10, seed=0, gridsize=2, layout=layout)
        for layout in ("nhwc", "nchw")
    )
    assert first["X_full"].shape == (10, 4, 64, 64)
    assert first["coords_relative"].shape == (10, 4, 1, 2)
    assert first["coords_offsets"].shape == (10, 1, 1, 2)
    for name in GROUPED.keys() - {"nn_indices", "objectGuess"}:
        np.testing.assert_array_equal(np.moveaxis(first[name], 1, -1), last[name])


def test_intensities_of_16_bits_become_amplitudes_without_wrapping():
    counts = np.full((100, 64, 64), 60_000, np.uint16)
    counts[:, 0, 0] = 9
    found = raw(diff3d=counts).generate_grouped_data(nsamples=1, seed=0, gridsize=1)
    np.testing.assert_array_equal(np.unique(found["diffraction"]), np.sqrt([9, 60_000]).astype(np.float32))
    np.testing.assert_allclose((found["X_full"] ** 2).sum(), 32**2, rtol=1e-5)


@pytest.mark.parametrize("shape", ["with a last axis of 1", "older"])
def test_older_axes_are_put_in_order(shape):
    frames = lattice()["diffraction"]
    given = frames[..., None] if shape != "older" else np.moveaxis(frames, 0, -1)
    np.testing.assert_array_equal(raw(diff3d=given).diff3d, frames)


def test_a_given_object_at_each_position_is_taken():
    patches = np.exp(1j * np.random.default_rng(0).uniform(size=(100, 64, 64)))
    found = raw(Y=patches).generate_grouped_data(nsamples=5, seed=0, gridsize=2)
    np.testing.assert_array_equal(
        np.moveaxis(found["Y"], -1, 1), patches[found["nn_indices"]].astype(np.complex64)
    )
    assert raw(objectGuess=None).generate_grouped_data(nsamples=5, gridsize=2)["Y"] is None


def test_a_config_binds_all_that_a_call_leaves_out():
    config = PtychoConfig(N=64, gridsize=2, n_groups=12, neighbor_count=6, n_subsample=50, subsample_seed=9)
    data = raw(config=config)
    found = data.generate_grouped_data(seed=4)
    chosen = np.sort(np.random.RandomState(9).choice(100, 50, False))
    np.testing.assert_array_equal(found["sample_indices"], chosen)
    recipe = GroupRecipe(gridsize=2, nsamples=12, neighbors=6, seed=4)
    groups = group_positions(data.xcoords[chosen], data.ycoords[chosen], recipe)
    np.testing.assert_array_equal(found["nn_indices"], groups)
    np.testing.assert_array_equal(np.moveaxis(found["diffraction"], -1, 1), data.diff3d[chosen[groups]])
    every = PtychoConfig(N=64, gridsize=2, n_groups=None, sequential_sampling=True)
    assert len(raw(config=every).generate_grouped_data()["nn_indices"]) == 100


def test_configs_of_older_code_are_read_by_their_attributes():
    nested = SimpleNamespace(
        model=SimpleNamespace(N=64, gridsize=2), n_groups=7, neighbor_count=5, n_images=30
    )
    assert PtychoConfig.of(nested) == PtychoConfig(64, 2, n_groups=7, neighbor_count=5, n_subsample=30)
    nested.n_subsample = 20
    assert PtychoConfig.of(nested).n_subsample == 20
    with pytest.raises(InvalidInputError, match="config with gridsize"):
        PtychoConfig.of(SimpleNamespace(N=64))
    with pytest.raises(InvalidInputError, match="n_groups as a whole number"):
        PtychoConfig(64, 2, n_groups=0)


def test_oversampling_gives_more_groups_than_positions_where_it_is_asked_for():
    with pytest.raises(ValueError, match="OVERSAMPLING-001"):
        raw().generate_grouped_data(nsamples=200, gridsize=2, seed=0)
    found = raw().generate_grouped_data(
        nsamples=200, gridsize=2, seed=0, enable_oversampling=True, neighbor_pool_size=8
    )
    assert found["nn_indices"].shape == (200, 4)
    assert found["nn_indices"].dtype == np.int64


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"ycoords": np.zeros(99)}, "ycoords"),
        ({"xcoords": np.zeros((10, 10))}, "xcoords"),
        ({"scan_index": np.zeros(99, int)}, "scan_index"),
        ({"scan_index": np.zeros(100)}, "scan_index that int64 can hold"),
        ({"diff3d": np.zeros((100, 64, 63))}, "square frames"),
        ({"diff3d": np.zeros((99, 64, 64))}, "a frame for each of 100"),
        ({"diff3d": np.zeros((100, 64, 64), complex)}, "amplitudes, got complex128"),
        ({"probeGuess": np.zeros((2, 64, 64))}, "probeGuess as a picture"),
        ({"objectGuess": np.zeros(64)}, "objectGuess as a picture"),
        ({"Y": np.ones((100, 64, 64))}, "DATA-001"),
        ({"config": PtychoConfig(N=128, gridsize=1)}, "128 x 128"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, what):
    with pytest.raises(ValueError, match=what):
        raw(**changes)


@pytest.mark.parametrize(
    ("changes", "asked", "what"),
    [
        ({"diff3d": np.full((100, 64, 64), np.nan)}, {}, "amplitudes of 0 or more"),
        ({"diff3d": np.full((100, 64, 64), -1)}, {}, "amplitudes of 0 or more"),
        ({"diff3d": np.zeros((100, 64, 64))}, {}, "light"),
        ({}, {"N": 32}, "N=64"),
        ({}, {"gridsize": None}, "expected gridsize, got none"),
        ({}, {"position": "false"}, "position true or compat"),
        ({}, {"layout": "chw"}, "layout nhwc or nchw"),
    ],
)
def test_calls_that_cannot_be_are_refused(changes, asked, what):
    with pytest.raises(InvalidInputError, match=what):
        raw(**changes).generate_grouped_data(**{"nsamples": 2, "gridsize": 1} | asked)


def test_real_positions_give_the_reference_numbers(real_scan):
    x, y = real_scan.xcoords, real_scan.ycoords
    assert len(x) == 1087
    found = real_scan.generate_grouped_data(N=64, K=4, nsamples=512, seed=42, gridsize=2)
    recipe = GroupRecipe(gridsize=2, nsamples=512, seed=42)
    np.testing.assert_array_equal(found["nn_indices"], group_positions(x, y, recipe))
    seeds = np.random.RandomState(42).choice(np.arange(1087), 512, replace=False)
    distance = (x[:, None] - x[seeds]) ** 2 + (y[:, None] - y[seeds]) ** 2
    nearest = np.argsort(distance, axis=0, kind="stable")[1:5].T
    np.testing.assert_array_equal(np.sort(found["nn_indices"]), np.sort(nearest))
    np.testing.assert_allclose((found["X_full"].astype(float) ** 2).sum() / 2048, 32**2, rtol=1e-6)
    container = PtychoDataContainer(found, real_scan.probeGuess)
    assert round(container.norm_Y_I, 2) == 988.21
    assert container.X.shape == (512, 64, 64, 4)


def test_raw_data_is_a_name_of_the_package():
    assert sz.RawDataTorch is RawDataTorch
    assert "100 positions: diff3d float32 (100, 64, 64)" in repr(raw())
