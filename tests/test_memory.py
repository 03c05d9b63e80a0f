"""Peak memory by the operating system's own account: under 1 GB, and flat as a raster grows taller."""

import json
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

CHILD = """
import json, resource, sys
import sarzarr as sz
plan = sz.plan_ingest(sys.argv[1], sys.argv[2], quantity="dn", representation="amplitude")
store = sz.ingest(plan)
flags = store.histogram(store.scenes[0], "vv")
print(json.dumps({
    "peak": max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * 1024,
    "projected": plan.peak_memory,
    "tasks": plan.tasks,
    "lit": int(flags.counts.sum()), "nodata": flags.nodata, "nonpositive": flags.nonpositive,
}))
"""


def ingest(source, folder):
    """Ingest in a process of its own and return what it says of itself."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, str(source), str(folder / "s.zarr")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("tiled", [True, False], ids=["tiled", "striped"])
def test_a_raster_of_40000_by_40000_stays_under_a_gigabyte(tmp_path, tiled):
    source = write_large(tmp_path / "large_vv.tif", 40_000, 40_000, tiled=tiled)
    said = ingest(source, tmp_path)
    assert said["peak"] < 1e9
    assert said["peak"] <= said["projected"]
    assert said["lit"] + said["nodata"] + said["nonpositive"] == 40_000**2
    assert said["nonpositive"] > 0
    assert said["nodata"] > 40_000**2 // 20
    assert said["tasks"] <= 200


@pytest.mark.slow
def test_the_hollow_frame_stays_under_a_gigabyte(tmp_path, real_data):
    (source,) = (real_data / "hollow_large_grd").glob("*.tiff")
    said = ingest(source, tmp_path)
    assert said["peak"] < 1e9
    assert said["peak"] <= said["projected"]


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
