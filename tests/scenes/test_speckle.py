"""Integers that nothing says a radar made: digital numbers where they look like speckle, else refused."""

import numpy as np
import pytest
from conftest import read_band
from scipy.ndimage import gaussian_filter
from tiffs import write
from typer.testing import CliRunner

import sarzarr as sz
from sarzarr.cli.app import app

SHAPE = (400, 500)


def field(low, high, *, seed=0, smooth=25):
    """Return a smooth field from low to high, as the ground has it."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), smooth)
    return low + (high - low) * (noise - noise.min()) / np.ptp(noise)


def poisson(mean):
    return np.random.default_rng(1).poisson(mean, SHAPE if np.isscalar(mean) else None).astype(np.uint16)


def amplitude(mean, *, looks=4.4, dtype=np.uint16, seed=2):
    power = np.random.default_rng(seed).gamma(looks, 1 / looks, SHAPE)
    return np.rint(mean * np.sqrt(power)).clip(1, np.iinfo(dtype).max).astype(dtype)


COUNTS = {
    "few species": poisson(3),
    "many species": poisson(120),
    "very many": poisson(2_000),
    "species by the ground": poisson(field(5, 300)),
    "people": np.random.default_rng(3).negative_binomial(1, 0.02, SHAPE).astype(np.int32),
    "ranks": np.random.default_rng(4).permutation(SHAPE[0] * SHAPE[1]).reshape(SHAPE).astype(np.int32),
    "any number": np.random.default_rng(5).integers(0, 1000, SHAPE).astype(np.uint16),
    "richness by the ground": np.rint(field(0, 180)).astype(np.uint8),
    "cells of one number": np.kron(
        np.random.default_rng(6).integers(1, 900, (40, 50)), np.ones((10, 10), int)
    ).astype(np.int16),
}
SPECKLED = {
    "single look": amplitude(300, looks=1),
    "GRD": amplitude(300),
    "many looks": amplitude(2_000, looks=40),
    "land and water": amplitude(field(120, 900)),
    "a dark border": np.where(np.indices(SHAPE)[1] < 90, 0, amplitude(400)).astype(np.uint16),
    "int32": amplitude(9_000, dtype=np.int32),
    "8 bits": amplitude(90, dtype=np.uint8),
}


@pytest.mark.parametrize("kind", COUNTS)
def test_counts_are_refused_and_a_layer_takes_them(tmp_path, kind):
    path = write(tmp_path / "data" / "richness.tif", COUNTS[kind])
    probe = sz.probe_file(path)
    assert probe.refusal, probe.reason
    assert "--layer NAME=FILE" in probe.refusal
    done = CliRunner().invoke(app, ["ingest", str(path), "-o", str(tmp_path / "s.zarr")])
    assert done.exit_code == 1
    layer = ["--layer", f"richness:counts={path}", "-o", str(tmp_path / "s.zarr")]
    done = CliRunner().invoke(app, ["ingest", *layer])
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(
        sz.open_store(tmp_path / "s.zarr").open_scene("richness").richness, COUNTS[kind]
    )


@pytest.mark.parametrize("kind", SPECKLED)
def test_speckle_is_digital_numbers(tmp_path, kind):
    probe = sz.probe_file(write(tmp_path / "data" / "place.tif", SPECKLED[kind]))
    assert (probe.quantity, probe.representation) == ("dn", "amplitude"), probe.refusal


@pytest.mark.parametrize(
    "said",
    [
        {"name": "place_VV.tif"},
        {"name": "place_sar.tif"},
        {"name": "S1A_place.tif"},
        {"name": "place_amp.tif"},
        {"name": "GRD/3.tif"},
        {"tags": {"POLARIZATION": "HH"}},
        {"names": ("VH",)},
        {"tags": {"QUANTITY": "dn"}},
    ],
    ids=str,
)
def test_a_name_or_a_tag_says_that_a_radar_made_them(tmp_path, said):
    name = said.pop("name", "place.tif")
    pixels = COUNTS["many species"]
    assert sz.probe_file(write(tmp_path / "data" / name, pixels, **said)).refusal is None


@pytest.mark.parametrize(
    "told", [{"quantity": "dn"}, {"representation": "amplitude"}, {"polarizations": ["VV"]}]
)
def test_whoever_says_so_is_believed(tmp_path, told):
    path = write(tmp_path / "data" / "place.tif", COUNTS["many species"])
    assert sz.probe_file(path, **told).refusal is None


def test_digital_numbers_of_a_real_product_look_like_speckle_whatever_they_are_called(real_data, tmp_path):
    (path,) = (real_data / "s1_grd_dn_gcp_safe" / "2018").rglob("iw-vv.tiff")
    bare = write(tmp_path / "data" / "place.tif", read_band(path, 1))
    assert sz.probe_file(bare).quantity == "dn"
