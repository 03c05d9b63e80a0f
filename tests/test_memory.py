"""Peak memory by the operating system's own account: under 1 GB, and flat as a raster grows taller."""

import json
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

CHILD = """
import json, resource, sys
import sarzarr as sz
plan = sz.plan_ingest(sys.argv[1], sys.argv[2], quantity="dn", representation="amplitude", **json.loads(sys.argv[3]))
store = sz.ingest(plan)
flags = store.histogram(store.scenes[0], "vv")
# Its own from the status: ru_maxrss of a process begins where that of its parent was.
(own,) = (int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({
    "peak": max(own, workers) * 1024,
    "projected": plan.peak_memory,
    "tasks": plan.tasks,
    "warped": store.open_scene(store.scenes[0])["vv"].attrs.get("resampling"),
    "lit": int(flags.counts.sum()), "nodata": flags.nodata, "nonpositive": flags.nonpositive,
}))
"""


def ingest(source, folder, **options):
    """Ingest in a process of its own and return what it says of itself; with the loops compiled, which hold more."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, str(source), str(folder / "s.zarr"), json.dumps(options)],
        capture_output=True, text=True, check=False, env={**os.environ, "SARZARR_NUMBA": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["peak"] < 1e9
    assert said["peak"] <= said["projected"]
    print(f"peak {said['peak'] / 1e6:.0f} MB, projected {said['projected'] / 1e6:.0f} MB")
    return said


def write_large(path, height, width, *, tiled):
    """A uint16 raster with a slanted border of zeros, written band by band; cheap to compress."""
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512} if tiled else {"blockysize": 1}
    rng = np.random.default_rng(0)
    pattern = rng.integers(200, 204, (512, width), dtype=np.uint16)
    profile = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(0, 0, 10, 10), **layout}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=1,
        dtype="uint16",
        compress="zstd",
        zstd_level=1,
        **profile,
    ) as out:
        for row in range(0, height, 512):
            band = pattern[: min(512, height - row)].copy()
            edge = width // 20 + row // 8
            band[:, :edge] = 0
            band[100:140, width // 2 : width // 2 + 900] = 0
            out.write(band, 1, window=Window(0, row, width, len(band)))
    return path


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    """Return a function that gives the raster of so many rows and columns, written once."""
    folder = tmp_path_factory.mktemp("square")

    @cache
    def get(side):
        (folder / str(side)).mkdir()
        return write_large(folder / str(side) / "large_vv.tif", side, side, tiled=True)

    return get


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("tiled", [True, False], ids=["tiled", "striped"])
def test_a_raster_of_40000_columns_stays_under_a_gigabyte(tmp_path, tiled):
    height, width = 14_000, 40_000  # 1.12 GB; that more rows take no more is a test below
    source = write_large(tmp_path / "large_vv.tif", height, width, tiled=tiled)
    said = ingest(source, tmp_path)
    assert said["lit"] + said["nodata"] + said["nonpositive"] == height * width
    assert said["nonpositive"] > 0
    assert said["nodata"] > height * width // 20
    assert said["tasks"] <= 200


@pytest.mark.slow
def test_the_hollow_frame_stays_under_a_gigabyte(tmp_path, real_data):
    (source,) = (real_data / "hollow_large_grd").glob("*.tiff")
    said = ingest(source, tmp_path)
    assert said["lit"] + said["nodata"] + said["nonpositive"] > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_is_flat_as_a_raster_grows_taller(tmp_path):
    peaks = []
    for height in (4096, 16384, 32768):
        folder = tmp_path / str(height)
        folder.mkdir()
        source = write_large(folder / "large_vv.tif", height, 8192, tiled=False)
        peaks.append(ingest(source, folder)["peak"])
    assert peaks[2] < peaks[1] * 1.1
    assert peaks[2] < peaks[0] * 1.4


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("side", "pixel_size", "method"),
    [
        (4_000, 2.5, "bilinear"),
        (20_000, 40.0, "average"),
        (20_000, 25.0, "lanczos"),
        (20_000, 640.0, "average"),
    ],
    ids=["up", "down", "down by a wide kernel", "down to almost nothing"],
)
def test_an_ingest_that_warps_stays_under_a_gigabyte(square, tmp_path, side, pixel_size, method):
    """Up to 16 times the pixels and down to a 4,000th of them, into another zone; a tile is all that is held."""
    said = ingest(square(side), tmp_path, crs="EPSG:32632", pixel_size=pixel_size, resampling=method)
    assert said["warped"] == method
    pixels = said["lit"] + said["nodata"] + said["nonpositive"]
    assert pixels > 0.9 * (side * 10 / pixel_size) ** 2
