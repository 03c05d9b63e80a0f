"""What was not measured takes no part: said by a tag, by the user, or refused where it would not be seen in time."""

import multiprocessing

import numpy as np
import pytest
import rasterio
from conftest import speckle, write_band
from rasterio.rpc import RPC

import sarzarr as sz
from sarzarr.conventions import Flag
from sarzarr.errors import InvalidInputError, UnsupportedRasterError

KNOWN = {"quantity": "sigma0", "representation": "power"}
COARSER = {"crs": "EPSG:32633", "pixel_size": 20.0}


@pytest.fixture
def filled(tmp_path):
    """A scene of even ground whose first 101 columns are fill, by zeros without a tag."""
    raw = np.random.default_rng(0).uniform(0.9, 1.1, (1024, 1024)).astype(np.float32)
    raw[:, :101] = 0
    write_band(tmp_path / "a_vv.tif", raw, tiles=256)
    return tmp_path / "a_vv.tif"


def test_fill_that_is_told_of_is_not_averaged_into_power(filled, tmp_path):
    """Column 50 of 20 m is half fill: what was measured of it is the ground's 0 dB, and not 3 dB less."""
    store = sz.ingest(sz.plan_ingest(filled, tmp_path / "s.zarr", nodata=0.0, **COARSER, **KNOWN))
    db = store.db("a", "vv").values
    assert np.isnan(db[:, :50]).all()
    assert np.nanmean(db[:, 50]) == pytest.approx(0, abs=0.05)
    assert store.open_scene("a")["vv"].attrs["source_nodata"] == 0


def test_what_is_told_outweighs_the_tag(tmp_path):
    raw = speckle((300, 300))
    raw[:, :20] = -5
    write_band(tmp_path / "a_vv.tif", raw, nodata=-9999.0)
    store = sz.ingest(sz.plan_ingest(tmp_path / "a_vv.tif", tmp_path / "s.zarr", nodata=-5.0, **KNOWN))
    flags = store.open_scene("a")["vv_flags"].values
    assert (flags[:, :20] == Flag.NODATA).all()
    assert (flags[:, 20:] < Flag.NODATA).all()


def test_bounds_from_pixels_and_a_border_do_not_go_together(filled, tmp_path):
    with pytest.raises(InvalidInputError, match="--bounds fixed"):
        sz.plan_ingest(filled, tmp_path / "s.zarr", bounds="percentile", border=5, **KNOWN)
    sz.plan_ingest(filled, tmp_path / "s.zarr", bounds="fixed", border=5, **KNOWN)


def test_rational_polynomials_are_kept_out_of_a_grid(tmp_path):
    path = tmp_path / "r_vv.tif"
    one = [1.0] + [0.0] * 19
    rpcs = RPC(
        height_off=0, height_scale=100, lat_off=50, lat_scale=1, line_den_coeff=one, line_num_coeff=one, line_off=150,
        line_scale=150, long_off=12, long_scale=1, samp_den_coeff=one, samp_num_coeff=one, samp_off=150,
        samp_scale=150,
    )  # fmt: skip
    with rasterio.open(
        path, "w", driver="GTiff", height=300, width=300, count=1, dtype="float32", rpcs=rpcs
    ) as out:
        out.write(speckle((300, 300)), 1)
    assert sz.probe_file(path).geolocation == "rpcs"
    plan = sz.plan_ingest(path, tmp_path / "s.zarr", **KNOWN)
    assert "RPC, image geometry" in str(plan)
    assert sz.ingest(plan).scenes == ("r",)
    with pytest.raises(UnsupportedRasterError, match=r"RPC.*Orthorectify"):
        sz.plan_ingest(path, tmp_path / "t.zarr", **COARSER, **KNOWN)


def _index(root):
    sz.index_patches(root, size=64, stride=64, name="small")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_forked_after_an_ingest_computes(filled, tmp_path):
    """Threads that the parent kept are not there in the child, who would wait for them."""
    store = sz.ingest(sz.plan_ingest(filled, tmp_path / "s.zarr", shard=256, **KNOWN))
    child = multiprocessing.get_context("fork").Process(target=_index, args=(str(store.root),))
    child.start()
    child.join(60)
    is_done = child.exitcode == 0
    child.kill()
    assert is_done
    assert "small" in sz.open_store(store.root).patch_indices
